"""Who asks for labels in a run: the selector of its label rounds, and that of its initial set."""

from __future__ import annotations

from functools import partial
from typing import Any

from clsim.acquisitions.acquisition import Acquisition
from clsim.acquisitions.stream_policies import StreamPolicy
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.pool import Selector
from clsim.randomness import generator
from clsim.spec import registry
from clsim.spec.options import bind
from clsim.spec.run import RunSpec


def askers(spec: RunSpec, net: Net, labeller: Any = None) -> tuple[Selector, Selector | None, Acquisition | None]:
    """Build the selector of label rounds, that of the initial set, and the former as an acquisition if it is one.

    Args:
        spec: the run's spec.
        net: the net that is trained.
        labeller: a selector, or a class of acquisitions, in place of the one that the spec names.

    Raises:
        InputError: if a selector is not known, or needs the labels that it is to ask for.
    """
    labelling, first = spec.labelling, None
    if labelling.initial_count and labelling.initial not in ("random", "class"):
        first = registry.component("labellers", labelling.initial, {}, "[labelling.initial]")
        if isinstance(first, type) and issubclass(first, Acquisition):
            raise InputError(
                f"labelling.initial: found {labelling.initial!r}, which keeps a state from round to round; allowed: "
                "random, class, or a selector"
            )
    if labeller is None:
        found = registry.component("labellers", labelling.selector, labelling.options, "[labelling.options]")
    else:
        found = bind(labeller, labelling.options, "[labelling.options]", labelling.selector)
    kind = found.func if isinstance(found, partial) else found
    if isinstance(kind, type) and issubclass(kind, Acquisition):
        found = found(net, generator(spec.seed, "acquisition"))
        if isinstance(found, StreamPolicy) != (labelling.update == "batch"):
            wanted = (
                "a stream policy, or a selector without a state" if labelling.update == "batch" else "'batch' with it"
            )
            raise InputError(
                f"labelling.update: found {labelling.update!r} with {labelling.selector!r}; allowed: {wanted}"
            )
        if isinstance(found, StreamPolicy) and "budget" in labelling.options:
            raise InputError(
                f"labelling.options.budget: found {labelling.options['budget']!r} with {labelling.selector!r}, whose "
                "share follows from labelling.budget or labelling.fraction; allowed: one of these"
            )
        return found, first, found
    return found, first, None

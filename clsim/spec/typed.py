"""Check the options of every component that a spec names, by the annotations in its source, before one is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clsim.spec import registry
from clsim.spec.definitions import Unread, definition
from clsim.spec.options import check
from clsim.spec.run import RunSpec


def check_options(spec: RunSpec) -> None:
    """Refuse options that a component of the spec does not have, and values that are not of their type.

    What no source shows is checked when the component is loaded.

    Raises:
        InputError: naming the table and the option, what was found, and what is allowed.
    """
    for kind, name, options, where in _components(spec):
        target = registry.target_of(kind, name) if options else ""
        try:
            found = definition(target) if target else None
            if found is None or (found.node.decorator_list and not target.startswith("clsim.")):
                continue  # a decorator of one's own may change the options
            known = found.options
        except Unread:
            pass
        else:
            check(options, ((p.name, p.kind, p.default) for p in known), where, name)


def _components(spec: RunSpec) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
    """Yield the kind, the name and the options of each component with options, and the table that holds these."""
    yield "models", spec.model.name, spec.model.options, "[model.options]"
    yield "learners", spec.learner.name, spec.learner.options, "[learner.options]"
    if spec.memory.buffer != "none":
        yield "buffers", spec.memory.buffer, spec.memory.options, "[memory.options]"
        yield "selectors", spec.memory.retrieval, spec.memory.retrieval_options, "[memory.retrieval_options]"
    if spec.labelling.asks:
        yield "labellers", spec.labelling.selector, spec.labelling.options, "[labelling.options]"
    if spec.batch.selector != "none":
        yield "batches", spec.batch.selector, spec.batch.options, "[batch.options]"
    if spec.irreducible.model != "same":
        yield "models", spec.irreducible.model, spec.irreducible.options, "[irreducible.options]"
    yield "models", spec.embedding.model, spec.embedding.options, "[embedding.options]"
    for one in spec.pool:
        yield "pools", one.name, one.options, f"[pool] {one.name}"

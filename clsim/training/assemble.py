"""Assembly of the net, the memory and the learner of a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clsim.memory.initial import memory_of
from clsim.pool.pool import Cost, Embed
from clsim.spec import registry
from clsim.spec.run import NAMED, Given, RunSpec
from clsim.streams.stream import Stream
from clsim.training.batch_choice import choosing
from clsim.training.contract import Learner, Seat, Setup, plateau_of
from clsim.training.offered import learner_of, refuse_apart, refuse_early, refuse_unfit, refuse_untrained
from clsim.training.workshop import Fresh, Workshop, workshop


def assemble(
    spec: RunSpec,
    stream: Stream,
    cost: Cost,
    given: Given = NAMED,
    *,
    started: Callable[[Fresh], Fresh] | None = None,
    embed: Embed | None = None,
    seat: Seat | None = None,
) -> tuple[Setup, Learner]:
    """Assemble the net, the memory and the learner of a spec, as they are before the first experience.

    Args:
        spec: the resolved spec.
        stream: the stream that the learner will be trained on.
        cost: the counters that all parts add to.
        given: objects in place of those that the spec names; without effect for the buffer ``none``.
        started: makes a maker of nets one that also gives them the first weights which the spec names; None: weights
            are drawn.
        embed: computes the embedding of samples; None: there is none.
        seat: the run's place among the seeds that advance together; None: it advances alone.
    """
    refuse_unfit(spec)
    shop = _shop(spec, spec.model.name, spec.model.options, "[model.options]", stream, cost)
    if started is not None:
        shop = replace(shop, fresh=started(shop.fresh))
    net = shop.net()
    memory = memory_of(spec, stream, given.buffer, rng=shop.randomness.memory, cost=cost)
    setup = Setup(spec, net, shop.fresh, memory, shop.transform, shop.randomness, cost, plateau_of(spec))
    setup = replace(setup, embed=embed, other=_other(spec, stream, cost), seat=seat)
    if spec.labelling.asks:
        from clsim.training.askers import askers  # with the acquisitions

        asks, first, acquisition = askers(spec, net, given.label)
        setup = replace(setup, asks=asks, asks_first=first, acquisition=acquisition)
    make = registry.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")
    learner = learner_of(make, setup, spec.learner.name)
    refuse_untrained(spec, learner)
    refuse_early(spec, learner)
    refuse_apart(spec, learner)
    return setup, choosing(setup, learner, given.batch)


def _shop(spec: RunSpec, model: str, options: Mapping[str, Any], where: str, stream: Stream, cost: Cost) -> Workshop:
    """Set up the workshop of nets of one architecture for the samples of a stream."""
    return workshop(
        spec,
        registry.component("models", model, options, where),
        shape=stream.shape,
        visible=stream.visible,
        mean=stream.mean,
        std=stream.std,
        augment=spec.data.augment,
        precision=spec.training.precision,
        channels_last=spec.training.channels_last,
        device=stream.device,
        cost=cost,
    )


def _other(spec: RunSpec, stream: Stream, cost: Cost) -> Fresh | None:
    """Return what makes irreducible-loss nets, if they are of another architecture than the run's."""
    one = spec.irreducible
    if one.model == "same":
        return None
    return _shop(spec, one.model, one.options, "[irreducible.options]", stream, cost).fresh

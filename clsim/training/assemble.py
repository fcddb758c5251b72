"""Assembly of the net, the memory and the learner of a spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from clsim.memory.buffer import Buffer
from clsim.memory.initial import start_of
from clsim.pool.pool import Cost, Embed
from clsim.spec import registry
from clsim.spec.run import NAMED, Given, RunSpec
from clsim.streams.stream import Stream
from clsim.training.contract import Learner, Setup, plateau_of
from clsim.training.offered import learner_of, refuse_early, refuse_unfit, refuse_untrained
from clsim.training.workshop import Fresh, workshop


def assemble(
    spec: RunSpec,
    stream: Stream,
    cost: Cost,
    given: Given = NAMED,
    *,
    started: Callable[[Fresh], Fresh] | None = None,
    embed: Embed | None = None,
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
    """
    refuse_unfit(spec)
    shop = workshop(
        spec,
        registry.component("models", spec.model.name, spec.model.options, "[model.options]"),
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
    if started is not None:
        shop = replace(shop, fresh=started(shop.fresh))
    net = shop.net()
    condense, selector = None, given.buffer
    if spec.memory.buffer == "none":
        selector = None
    elif selector is None:
        found = registry.component("buffers", spec.memory.buffer, spec.memory.options, "[memory.options]")
        condense, selector = (found, None) if registry.is_condenser(spec.memory.buffer) else (None, found)
    retrieve = None
    if spec.memory.retrieval != "random":
        retrieve = registry.component(
            "selectors", spec.memory.retrieval, spec.memory.retrieval_options, "[memory.retrieval_options]"
        )
    memory = Buffer(
        spec.memory,
        selector,
        rng=shop.randomness.memory,
        cost=cost,
        retrieve=retrieve,
        condense=condense,
        tasks=len(stream),
    )
    if spec.memory.start:
        memory.begin(start_of(spec, stream, memory.factor))
    setup = Setup(spec, net, shop.fresh, memory, shop.transform, shop.randomness, cost, plateau_of(spec))
    setup = replace(setup, embed=embed)
    if spec.labelling.asks:
        from clsim.training.askers import askers  # with the acquisitions

        asks, first, acquisition = askers(spec, net, given.label)
        setup = replace(setup, asks=asks, asks_first=first, acquisition=acquisition)
    made = registry.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")(setup)
    learner = learner_of(made, spec.learner.name)
    refuse_untrained(spec, learner)
    refuse_early(spec, learner)
    return setup, learner

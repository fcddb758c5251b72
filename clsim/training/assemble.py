"""A fresh net, memory and learner, as a spec has them."""

from __future__ import annotations

import torch

from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.memory.initial import start_of
from clsim.models import nets
from clsim.models.optimizers import Plateau
from clsim.pool.pool import Cost, Selector
from clsim.randomness import Randomness, derive
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream
from clsim.training.contract import Learner, Setup
from clsim.training.offered import refuse_unfit


def assemble(spec: RunSpec, stream: Stream, cost: Cost, selector: Selector | None = None) -> tuple[Setup, Learner]:
    """A fresh net, memory and learner, as the spec has them before the first experience.

    Args:
        selector: in place of the one that the spec's buffer names, where it names one.
    """
    refuse_unfit(spec)
    training, randomness = spec.training, Randomness(spec.seed, stream.device)
    model = registry.component("models", spec.model.name, spec.model.options, "[model.options]")
    channels_last = training.channels_last and len(stream.shape) == 3

    def fresh(seed: int) -> nets.Net:
        net = nets.build(model, stream.shape, stream.visible, seed, stream.device)
        return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]

    net = fresh(derive(spec.seed, "weights"))
    transform = Transform(stream.mean, stream.std, spec.data.augment, device=stream.device, channels_last=channels_last)
    condense = None
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
    memory = Buffer(spec.memory, selector, rng=randomness.memory, cost=cost, retrieve=retrieve, condense=condense)
    if spec.memory.start:
        memory.begin(start_of(spec, stream, memory.factor))
    fall = spec.optimizer.patience if spec.optimizer.schedule == "plateau" else 0
    setup = Setup(spec, net, fresh, memory, transform, randomness, cost, Plateau(fall, training.patience))
    learner = registry.component("learners", spec.learner.name, spec.learner.options, "[learner.options]")(setup)
    if not isinstance(learner, Learner):
        raise InputError(
            f"learner.name: {spec.learner.name!r} makes a {type(learner).__name__}, which is no clsim.Learner; "
            "allowed: a class derived from clsim.Learner, which has defaults for all but observe"
        )
    return setup, learner

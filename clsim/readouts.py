"""Further ways to predict than a learner's own: on a partly labelled stream, by nearest neighbours for all learners."""

from __future__ import annotations

from dataclasses import replace

import torch

from clsim.exemplars import Exemplars, concatenate
from clsim.learners import Learner, OwnFeatures, Readout, Setup, SeveralReadouts
from clsim.learners.nearest import NEAREST, by_neighbours, features_of
from clsim.memory import Buffer
from clsim.pool import Cost, Pool
from clsim.randomness import generator
from clsim.selectors.combinators import per_class
from clsim.selectors.random import random
from clsim.streams import Stream


def readouts(learner: Learner, setup: Setup, stream: Stream, position: int) -> dict[str, Readout]:
    """Those that the learner has; where labels are few, also :func:`clsim.learners.nearest.by_neighbours`.

    Its support is what memory holds with a label (a pseudo-label, with ``memory.unlabelled``). A learner without a
    memory is measured with :func:`borrowed` exemplars. Nothing is learnt from either.
    """
    found = learner.readouts() if isinstance(learner, SeveralReadouts) else {}
    if not setup.spec.labels.partial or NEAREST in found:
        return found
    held = setup.memory.exemplars
    support = borrowed(setup, stream, position) if held is None else held[held.y >= 0]
    if not len(support):
        return found
    embed = learner.features if isinstance(learner, OwnFeatures) else features_of(setup)
    cuda = [stream.device] if stream.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # a net that draws even in eval mode must not disturb training
        return {**found, NEAREST: by_neighbours(setup, embed, support)}


def borrowed(setup: Setup, stream: Stream, position: int) -> Exemplars:
    """What a random, class-balanced memory as large as the spec's would hold of the labelled samples seen so far.

    It tells how good the features of a learner are that keeps no exemplars: the learner itself never sees them. Drawn
    from the run's seed alone.
    """
    past = [i for i in stream.schedule if i <= position]
    if setup.spec.stream.presentation != "separate":  # an experience holds all those before it
        past = [position]
    known = concatenate([stream.experience(i).train for i in past])
    rng = generator(setup.spec.seed, f"readout {position}")
    spec = replace(setup.spec.memory, update="experience")
    memory = Buffer(spec, per_class(random), rng=rng, cost=Cost())
    shares = stream.shares(position, spec.per)
    memory.after_experience(known, shares, lambda samples, **_: Pool(samples, None, setup.transform.plain))
    return known if memory.exemplars is None else memory.exemplars

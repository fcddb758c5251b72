"""What of an experience its memory is offered: the labelled part, and unlabelled samples under a predicted label."""

from __future__ import annotations

import dataclasses

import torch

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Learner, Setup
from clsim.training.evaluation import scored


def refuse_unfit(spec: RunSpec) -> None:
    """Refuse a memory for unlabelled samples where there are none, or where predictions are worth nothing.

    Raises:
        InputError: if all samples are labelled, the memory is updated in mid-training, or no score can be so confident.
    """
    memory = spec.memory
    if memory.unlabelled and not spec.labels.partial:
        raise InputError(
            "memory.unlabelled: found true, but all samples of this stream are labelled; "
            "allowed: a scenario with a table [labels], or --labels 5%"
        )
    if memory.unlabelled and memory.update == "batch":
        raise InputError("memory.unlabelled: found true with update = 'batch', allowed: update = 'experience'")
    if not 0 <= memory.confidence <= 1 or (memory.confidence and not memory.unlabelled):
        raise InputError(
            f"memory.confidence: found {memory.confidence} with unlabelled = {str(memory.unlabelled).lower()}, "
            "allowed: from 0 to 1, with unlabelled = true"
        )


def learner_of(made: object, name: str) -> Learner:
    """``made`` itself, if it is a learner.

    Raises:
        InputError: if its class is not derived from :class:`Learner`.
    """
    if isinstance(made, Learner):
        return made
    raise InputError(
        f"learner.name: {name!r} makes a {type(made).__name__}, which is no clsim.Learner; "
        "allowed: a class derived from clsim.Learner, which has defaults for all but observe"
    )


def offered(experience: Experience, setup: Setup, learner: Learner) -> Exemplars:
    """The labelled part, and, if ``memory.unlabelled`` says so, the unlabelled samples with their pseudo-label.

    Source: Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks (ICML
    workshop 2013): the class that the learner, as it is now, gives the highest score.
    """
    if not setup.spec.memory.unlabelled or experience.unlabelled is None:
        return experience.train
    unlabelled = experience.unlabelled
    # images that are in both parts have their true label already
    unlabelled = unlabelled[~torch.isin(unlabelled.index, experience.train.index)]
    return concatenate([experience.train, pseudo_labelled(unlabelled, setup, learner)])


def pseudo_labelled(samples: Exemplars, setup: Setup, learner: Learner) -> Exemplars:
    """The samples of which the learner is confident enough, each labelled y = argmax_k s_k of its scores s.

    Its confidence is max_k softmax(s)_k; ``memory.confidence`` is the lowest that will do.
    """
    if not len(samples):
        return samples
    found = scored(learner.predict, samples, setup.spec, setup.cost)
    confidence, y = torch.cat([scores.float().softmax(1) for _, scores in found]).max(1)
    return dataclasses.replace(samples, y=y)[confidence >= setup.spec.memory.confidence]

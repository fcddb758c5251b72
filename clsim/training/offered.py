"""The samples that the memory is offered: the labelled part, and unlabelled samples with a predicted label."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext

import torch

from clsim.errors import InputError, in_one_line
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Learner, Setup
from clsim.training.evaluation import scored


def refuse_unfit(spec: RunSpec) -> None:
    """Refuse a memory for unlabelled samples that cannot work.

    Raises:
        InputError: if all samples are labelled, if the memory is updated while the net is still being trained, or if
            the confidence is no share.
    """
    memory = spec.memory
    if memory.unlabelled and not spec.partly_labelled:
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


def learner_of(make: Callable[[Setup], object], setup: Setup, name: str) -> Learner:
    """Make a learner; what one's own code raises becomes one line.

    Raises:
        InputError: if it is not derived from :class:`Learner`.
    """
    with in_one_line(f"learner {name!r}") if ":" in name else nullcontext():
        made = make(setup)
    if isinstance(made, Learner):
        return made
    raise InputError(
        f"learner.name: {name!r} makes a {type(made).__name__}, which is no clsim.Learner; "
        "allowed: a class derived from clsim.Learner, which has defaults for all but observe"
    )


def offered(experience: Experience, setup: Setup, learner: Learner) -> Exemplars:
    """Return the labelled part and, if ``memory.unlabelled`` is true, the unlabelled samples with a pseudo-label.

    The pseudo-label is the class to which the current learner gives the highest score.

    Source: Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks (ICML
    workshop 2013).
    """
    if not setup.spec.memory.unlabelled or experience.unlabelled is None:
        return experience.train
    unlabelled = experience.unlabelled
    # images that are in both parts have their true label already
    unlabelled = unlabelled[~torch.isin(unlabelled.index, experience.train.index)]
    return concatenate([experience.train, pseudo_labelled(unlabelled, setup, learner)])


def pseudo_labelled(samples: Exemplars, setup: Setup, learner: Learner) -> Exemplars:
    """Return the samples of which the learner is confident enough, each labelled y = argmax_k s_k of its scores s.

    The confidence is max_k softmax(s)_k, and must reach ``memory.confidence``.
    """
    if not len(samples):
        return samples
    found = scored(learner, samples, setup.spec, setup.cost)
    confidence, y = torch.cat([scores.float().softmax(1) for _, scores in found]).max(1)
    return dataclasses.replace(samples, y=y)[confidence >= setup.spec.memory.confidence]


def refuse_early(spec: RunSpec, learner: Learner) -> None:
    """Refuse labels that come during training with a learner that needs them before it.

    Raises:
        InputError: if labels come gradually, and the learner does not take them so.
    """
    if spec.labelling.asks and spec.labelling.inject != "once" and not learner.takes_late_labels:
        raise InputError(
            f"labelling.inject: found {spec.labelling.inject!r} with learner {spec.learner.name!r}, which needs all "
            "labels before its first step; allowed: 'once', or a learner that takes them during training (sgd, as in "
            "er and finetune; fixmatch, mixmatch, remixmatch, comatch, nncsl, csl, paws, ccic, pseudo-label)"
        )


def refuse_untrained(spec: RunSpec, learner: Learner) -> None:
    """Refuse choices by a net that is not trained yet, and pseudo-labels that it would not be trained on.

    Raises:
        InputError: if the learner trains at the end of an experience alone, and choices are made before it, or samples
            get pseudo-labels, which join the batches of a training alone.
    """
    labelling, acquisition = spec.labelling, learner.setup.acquisition
    if not labelling.asks or not learner.trains_at_end:
        return
    if acquisition is not None and acquisition.guesses:
        raise InputError(
            f"labelling.selector: found {labelling.selector!r} with learner {spec.learner.name!r}, which is trained at "
            "the end of an experience alone, on what its memory keeps: no sample with a pseudo-label is; allowed: a "
            "selector without pseudo-labels, or a learner that is trained on each batch"
        )
    for key, found, allowed in (("update", labelling.update, "round"), ("start", labelling.start, "scratch")):
        if found != allowed:
            raise InputError(
                f"labelling.{key}: found {found!r} with learner {spec.learner.name!r}, whose net is trained at the end "
                f"of an experience alone, after all choices; allowed: {allowed!r}"
            )


def refuse_apart(spec: RunSpec, learner: Learner) -> None:
    """Refuse a run among seeds that advance together whose learner has steps of its own.

    Raises:
        InputError: if it has.
    """
    if spec.training.seeds and not learner.steps_together:
        raise InputError(
            f"training.together: found true with learner {spec.learner.name!r}, whose steps are not those of one loss "
            "of the whole batch; allowed: false"
        )

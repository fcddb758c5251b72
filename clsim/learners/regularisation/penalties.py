"""Learners with a penalty on moving important weights: EWC, online EWC, MAS."""

from __future__ import annotations

from functools import partial

from clsim.errors import InputError, at_least
from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.consolidation import Consolidation
from clsim.objectives.importance import fisher, sensitivity
from clsim.training.contract import Learner, Setup

OWN = ("experience", "batch")
"""The choices of classes under which new samples are never compared with classes of earlier experiences."""


def ewc(setup: Setup, *, strength: float = 400.0, samples: int = 0, among: Among = "all") -> Learner:
    """Elastic weight consolidation: L = CE + λ Σ Ω(θ − θ*)², Ω the sum of the experiences' diagonal Fishers.

    As the survey has it: no ½, and one anchor θ*, the weights after the last experience (the first paper keeps one
    for each task, and λ/2). The Fisher is the empirical one, at the given labels; see
    :func:`clsim.objectives.importance.fisher` and, for the weights that are covered, its module. It is that of the
    loss that is learnt: with ``among`` ``experience`` or ``batch`` its softmax ranges over the experience's classes.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the penalty.
        samples: Samples of each experience that the Fisher is measured on, drawn uniformly; 0 means all.
        among: The classes that the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.
            In class-incremental streams without a memory, ``all`` teaches the new classes by lowering the old ones'
            logits, which no penalty on weights can prevent; ``experience`` does not.

    Cost: a forward and backward pass of each sample after its experience; 1 M kept, 2 M more in training.

    Source: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (PNAS 2017), eq. 3; De Lange et
    al., A continual learning survey (TPAMI 2021)
    """
    at_least(0, "ewc: ", strength=strength, samples=samples)
    measure = partial(fisher, most=samples, own=among in OWN)
    return Sgd(setup, objective=Consolidation(setup, measure, strength=strength), among=among)


def online_ewc(
    setup: Setup, *, strength: float = 400.0, decay: float = 0.95, samples: int = 0, among: Among = "all"
) -> Learner:
    """EWC with decaying importances: Ω ← γΩ + F_t, with one anchor; γ = 1 is ``ewc``.

    The recursion is that of Progress & Compress; here too there is no ½, and the Fishers are not normalised. The
    default of γ is clsim's own.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the penalty.
        decay: The factor γ, from 0 (the last experience alone counts) to 1 (all experiences count equally).
        samples: Samples of each experience that the Fisher is measured on, drawn uniformly; 0 means all.
        among: The classes that the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Cost: as ``ewc``.

    Source: Schwarz et al., Progress & Compress: A scalable framework for continual learning (ICML 2018)
    """
    at_least(0, "online-ewc: ", strength=strength, samples=samples)
    if not 0 <= decay <= 1:
        raise InputError(f"online-ewc: decay: found {decay:g}, allowed: from 0 to 1")
    measure = partial(fisher, most=samples, own=among in OWN)
    return Sgd(setup, objective=Consolidation(setup, measure, strength=strength, decay=decay), among=among)


def mas(setup: Setup, *, strength: float = 1.0, samples: int = 0, among: Among = "all") -> Learner:
    """Memory aware synapses: L = CE + λ Σ Ω(θ − θ*)², Ω the mean of |∂‖f(x)‖²/∂θ|, summed over experiences.

    The importance needs no label; see :func:`clsim.objectives.importance.sensitivity` and, for the weights that are
    covered, its module.

    Args:
        setup: net, memory, transform, generators.
        strength: The weight λ of the penalty; the survey's search begins at 3, which hinders small nets in learning.
        samples: Samples of each experience that the importance is measured on, drawn uniformly; 0 means all.
        among: The classes that the cross-entropy of a new sample ranges over; see :class:`clsim.learners.sgd.Sgd`.

    Cost: a forward and backward pass of each sample after its experience; 1 M kept, 2 M more in training.

    Source: Aljundi et al., Memory Aware Synapses: Learning what (not) to forget (ECCV 2018)
    """
    at_least(0, "mas: ", strength=strength, samples=samples)
    return Sgd(
        setup, objective=Consolidation(setup, partial(sensitivity, most=samples), strength=strength), among=among
    )

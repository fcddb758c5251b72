"""SS-IL: replay with a softmax of new classes and one of old ones."""

from __future__ import annotations

from clsim.learners import Setup
from clsim.learners.sgd import Sgd
from clsim.objectives.separated import Separated


def ss_il(setup: Setup, *, strength: float = 1.0, temperature: float = 2.0) -> Sgd:
    """Separated softmax for incremental learning: cross-entropy by sides, distillation by tasks.

    L = mean CE over the sample's own side (new or old classes) + λ·T² Σ_s KL over the classes of earlier task s; see
    :class:`clsim.objectives.separated.Separated`. Each step holds as many exemplars to each new sample: the paper's
    ratio-preserving batches are those of ``training.batch_size`` new samples with ``memory.batch_size`` exemplars;
    its code has 128 with 32. Any number of exemplars will do. Without a memory it is distillation by tasks alone.

    Args:
        strength: λ; 1 in the paper.
        temperature: T.

    Cost: 1 M kept; a second forward pass a step.

    Source: Ahn et al., SS-IL: Separated Softmax for Incremental Learning (ICCV 2021), and its code.
    """
    return Sgd(setup, objective=Separated(setup, strength=strength, temperature=temperature))

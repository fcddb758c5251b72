"""ER-ACE: experience replay with an asymmetric cross-entropy."""

from __future__ import annotations

from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.objectives.asymmetric import AsymmetricCrossEntropy
from clsim.training.contract import Setup


def er_ace(setup: Setup, *, classes: Among = "batch") -> Sgd:
    """Experience replay with new samples compared among current classes, and exemplars among all seen.

    Neither cross-entropy lowers the logits of classes not seen yet, so that predictions leave these out, which is
    clsim's own reading; with ``all`` they do not.

    Args:
        classes: The current classes: those of the ``batch``, as in the paper, those of the ``experience``, those
            ``seen`` so far, or ``all``.

    Source: Caccia et al., New Insights on Reducing Abrupt Representation Change in Online Continual Learning
    (ICLR 2022), ER-ACE.
    """
    return Sgd(setup, objective=AsymmetricCrossEntropy(setup, classes=classes), among=classes)

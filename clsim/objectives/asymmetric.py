"""ER-ACE's objective: new samples do not lower the logits of old classes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net
from clsim.objectives.among import Among, Classes, narrowed
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Objective, Setup, Terms


class AsymmetricCrossEntropy(Objective):
    """Two cross-entropies, each with a softmax over classes of its own. Final.

    L = CE(new, C_now) + CE(memory, C_seen), each a weighted mean. C_now are the classes of the new samples of the
    batch (or of the experience), so that learning them does not lower the logits of other classes. C_seen are all
    classes seen so far, including C_now. A task's mask narrows either softmax to the classes of the task. New and
    replayed samples pass through the net together, so that batch norm sees both.

    Args:
        setup: the net.
        classes: The choice of C_now, see :data:`~clsim.objectives.among.Among`; the paper's is ``batch``. With
            ``all``, C_seen is all classes too.

    Source: Caccia et al., New Insights on Reducing Abrupt Representation Change in Online Continual Learning
    (ICLR 2022), ER-ACE.
    """

    one_pass: ClassVar[bool] = True

    def __init__(self, setup: Setup, *, classes: Among = "batch") -> None:
        self._classes = Classes(setup, classes, "er-ace: classes")

    def begin(self, experience: Experience) -> None:
        self._classes.begin(experience)

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the term ``new`` and, if there are exemplars, ``memory``."""
        n, new = len(batch.y), batch.new
        self._classes.see(batch.y)
        out = net(batch.x, batch.task)
        weight = out.new_ones(n) if batch.weight is None else batch.weight
        terms = {"new": _over(self._classes.of_new(batch.y[:new]), out[:new], batch.y[:new], weight[:new])}
        if new < n:
            terms["memory"] = _over(self._classes.of_old(), out[new:], batch.y[new:], weight[new:])
        return terms

    def state_dict(self) -> dict[str, Any]:
        """Return the classes seen so far, bool (classes,)."""
        return {"seen": self._classes.seen.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._classes.seen = state["seen"].to(self._classes.seen.device, copy=True)


def _over(classes: Tensor, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean cross-entropy with a softmax over some classes alone."""
    losses = F.cross_entropy(narrowed(logits, classes), y, reduction="none")
    return (losses * weight).sum() / weight.sum().clamp_min(1e-12)

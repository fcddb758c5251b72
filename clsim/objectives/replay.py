"""Cross-entropy on new and replayed samples."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net
from clsim.objectives.among import narrowed
from clsim.training.contract import Batch


def replay(net: Net, batch: Batch) -> dict[str, Tensor]:
    """Return the weighted mean of the cross-entropy over new ∪ memory, as two terms.

    L = Σ_i w_i · CE(f(x_i), y_i) / Σ_i w_i, each over the classes ``batch.among``; divided by n where weights are
    absolute. New and replayed samples pass through the net together, so that batch norm sees both. Without a memory it
    is plain cross-entropy.

    Source: Chaudhry et al., On Tiny Episodic Memories in Continual Learning (2019), algorithm 1 (ER).
    """
    return cross_entropy(net(batch.x, batch.task), batch)


def cross_entropy(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return the terms of :func:`replay` from the logits of the batch, for objectives that need the features too."""
    return by_origin(losses(logits, batch), batch)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy (n,) of each sample of the batch, over the classes ``batch.among``."""
    return F.cross_entropy(narrowed(logits, batch.among), batch.y, reduction="none")


def by_origin(losses: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Split the weighted mean of the losses (n,) of a batch into the parts of new samples and of exemplars."""
    n = len(batch.y)
    # a selection may give weight 0; the loss of a batch with only such samples is 0 and not 0 / 0
    share: float | Tensor = 1 / n
    if batch.weight is not None:
        share = batch.weight / (n if batch.absolute else batch.weight.sum().clamp_min(1e-12))
    losses = losses * share
    if batch.new == n:
        return {"new": losses.sum()}
    new, old = losses.split([batch.new, n - batch.new])
    return {"new": new.sum(), "memory": old.sum()}

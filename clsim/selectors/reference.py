"""What a choice should serve: the held-out samples of the classes that it chooses from, or those classes themselves.

Held-out samples of earlier experiences are not kept, since they would be a second memory. So a reference serves the
classes of the present experience; for an older class, its own candidates stand in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsim.pool.pool import Pool


@dataclass(frozen=True)
class Served:
    """Samples whose loss should fall.

    Attributes:
        features, logits: float32 (n, width) and (n, classes), of the last layer.
        y: int64 (n,), the label that each counts with.
        mass: float32 (n,), how many samples of the stream each stands for.
    """

    features: Float[Tensor, "n width"]
    logits: Float[Tensor, "n classes"]
    y: Int[Tensor, " n"]
    mass: Float[Tensor, " n"]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The mass of all of them, above 0."""
        return self.mass.sum().clamp_min(torch.finfo(self.mass.dtype).tiny)

    def errors(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """Each sample's mass times the gradient of its cross-entropy at these logits, (n, classes)."""
        return (logits.softmax(1) - F.one_hot(self.y, logits.shape[1])) * self.mass[:, None]


def served(pool: Pool, y: Int[Tensor, " m"], own: Bool[Tensor, " m"] | None = None) -> Served:
    """Find the held-out samples of each class of the candidates; of a class that has none, its candidates.

    All held-out samples weigh the same: together as much as the candidates of the classes that they serve.

    Args:
        y: int64 (m,), the class of each candidate.
        own: bool (m,), which candidates may stand for their class; None: all.
    """
    reference, left = pool.reference, torch.ones_like(y, dtype=torch.bool) if own is None else own
    if reference is None:
        rows = left.nonzero().flatten()
        return _candidates(pool, y, rows)
    held_out = reference[torch.isin(reference.data.y, y[y >= 0]).nonzero().flatten()]
    labels = held_out.data.y
    open_ = ~torch.isin(y, labels)
    mass = (pool.mass.masked_fill(open_, 0).sum() / max(len(labels), 1)).expand(len(labels))
    rows = (left & open_).nonzero().flatten()
    return _joined(Served(held_out.features, held_out.logits, labels, mass), _candidates(pool, y, rows))


def served_by_prediction(pool: Pool) -> Served:
    """Find the same where the labels of the candidates are not to be read: a class has those predicted to be of it.

    Without a reference, what is labelled already is served, and where nothing is, all candidates.
    """
    reference, y = pool.reference, pool.predictions
    if reference is not None:
        return _joined(_labelled(reference), _candidates(pool, y, unserved(pool, reference)))
    return (
        _candidates(pool, y, torch.arange(len(y), device=y.device))
        if pool.labelled is None
        else _labelled(pool.labelled)
    )


def unserved(pool: Pool, reference: Pool) -> Int[Tensor, " k"]:
    """Find the candidates that are predicted to be of a known class that a reference does not serve; rows, int64.

    None where all candidates are of one class: the reference beside them is then of that class.
    """
    if pool.label is not None:
        return pool.predictions[:0]
    classes = torch.arange(pool.known.shape[1], device=reference.data.device)
    lacking = pool.known.any(0) & ~torch.isin(classes, reference.data.y)
    return lacking[pool.predictions].nonzero().flatten()


def _labelled(pool: Pool) -> Served:
    y = torch.where(pool.data.y >= 0, pool.data.y, pool.predictions)
    return Served(pool.features, pool.logits, y, pool.mass)


def _candidates(pool: Pool, y: Tensor, rows: Tensor) -> Served:
    return Served(pool.features[rows], pool.logits[rows], y[rows], pool.mass[rows])


def _joined(first: Served, second: Served) -> Served:
    return Served(
        torch.cat([first.features, second.features]),
        torch.cat([first.logits, second.logits]),
        torch.cat([first.y, second.y]),
        torch.cat([first.mass, second.mass]),
    )

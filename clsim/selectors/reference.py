"""The samples that a choice should serve: held-out samples of the candidates' classes, or the candidates themselves.

Held-out samples of earlier experiences are not kept, since they would be a second memory. So a reference serves the
classes of the present experience; an older class is represented by its own candidates.
"""

from __future__ import annotations

from collections.abc import Callable
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
        features, logits: float32 (n, width) and (n, classes), the inputs and outputs of the last layer.
        y: int64 (n,), the label that each sample counts with.
        mass: float32 (n,), how many samples of the stream each sample stands for.
    """

    features: Float[Tensor, "n width"]
    logits: Float[Tensor, "n classes"]
    y: Int[Tensor, " n"]
    mass: Float[Tensor, " n"]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The sum of all masses, above 0."""
        return self.mass.sum().clamp_min(torch.finfo(self.mass.dtype).tiny)

    def errors(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """Compute each sample's mass times the gradient of its cross-entropy at these logits: (n, classes)."""
        return (logits.softmax(1) - F.one_hot(self.y, logits.shape[1])) * self.mass[:, None]


def served(pool: Pool, y: Int[Tensor, " m"], own: Bool[Tensor, " m"] | None = None) -> Served:
    """Find the held-out samples of each class of the candidates; a class without any is served by its candidates.

    All held-out samples have the same mass: together that of the candidates of the classes that they serve.

    Args:
        y: int64 (m,), the class of each candidate.
        own: bool (m,), which candidates may represent their class; None: all.
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
    """Find the samples to serve by predictions alone, where the candidates' labels may not be read.

    Without a reference, the samples labelled already are served, and without these, all candidates.
    """
    y = pool.predictions
    held = [part for part in (pool.reference, further(pool)) if part is not None]
    if not held:
        return _candidates(pool, y, torch.arange(len(y), device=y.device))
    found = _labelled(held[0]) if len(held) == 1 else _joined(_labelled(held[0]), _labelled(held[1]))
    return found if pool.reference is None else _joined(found, _candidates(pool, y, unserved(pool, *held)))


def unserved(pool: Pool, *held: Pool) -> Int[Tensor, " k"]:
    """Find the rows, int64 (k,), of candidates predicted to be of a known class of which ``held`` has no samples.

    There are none where all candidates are of one class: the reference beside them is then of that class.
    """
    if pool.label is not None:
        return pool.predictions[:0]
    known = pool.known.any(0)
    classes = torch.arange(len(known), device=known.device)
    lacking = known & ~torch.isin(classes, torch.cat([part.data.y for part in held]))
    return lacking[pool.predictions].nonzero().flatten()


def told(pool: Pool) -> Pool | None:
    """Find the samples labelled already whose label is a class; None: there are none.

    A labelled sample of no class (−1) is an outsider.
    """
    return _where(pool.labelled, lambda y: y >= 0)


def outsiders(pool: Pool) -> Pool | None:
    """Find the samples labelled already that turned out to be of no class; None: there are none."""
    return _where(pool.labelled, lambda y: y < 0)


def further(pool: Pool) -> Pool | None:
    """Find the samples labelled already of classes without reference samples; None: there are none."""
    if pool.reference is None:
        return told(pool)
    held = pool.reference.data.y
    return _where(told(pool), lambda y: ~torch.isin(y, held))


def _where(pool: Pool | None, wanted: Callable[[Tensor], Tensor]) -> Pool | None:
    if pool is None:
        return None
    rows = wanted(pool.data.y).nonzero().flatten()
    return pool if len(rows) == len(pool) else pool[rows] if len(rows) else None


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

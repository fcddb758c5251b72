"""BAIT: samples whose Fisher information, with that of the labelled ones, covers that of all samples."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clsim.errors import InputError, at_least
from clsim.pool.pool import Pool, Selection
from clsim.selectors.distances import blocks, principal
from clsim.selectors.scores import highest
from clsim.spec.kinds import Positive

LARGEST = 6000
"""The largest side of the Fisher matrix, (C − 1)·(d + 1): two such matrices of float64 take 576 MB."""


def bait(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    ridge: Positive = 1.0,
    oversampling: int = 2,
    rank: int = 10,
    width: int = 0,
) -> Selection:
    """Query samples whose Fisher information, with that of the labelled ones, best covers that of all samples.

    min over S of tr(M⁻¹ Σ_all F), M = λI + Σ_{L∪S} F, where F = (diag p − p pᵀ) ⊗ [h, 1][h, 1]ᵀ is the Fisher matrix of
    the last layer, its bias included, at a sample's own prediction, and *all* are the labelled samples L and the
    candidates. It adds greedily up to 2b samples, each time the one that lowers the trace most, then removes greedily
    those whose loss raises it least, until b are left; these are returned in the order in which they were added. The
    trace changes by tr((I ± VᵀM⁻¹V)⁻¹ VᵀM⁻¹ F_all M⁻¹V) for F = VVᵀ, so that nothing is inverted but M, once, and small
    matrices. Without labelled samples M begins as λI.

    Exact up to rank + 1 classes. With more, F of a candidate is replaced by its ``rank`` leading eigenvectors in the
    classes; that of the labelled samples and of all is never. Classes that no sample can have do not count. Where
    (C − 1)·(d + 1) would be above 6,000, it refuses; ``width`` makes d smaller.

    The equation is recalled, and was held against the authors' code, in which each pick counts b times as much as a
    labelled sample, and the last layer has no bias. The paper leaves λ open for a net; 1 is a choice of ours.

    Args:
        ridge: λ, what is added to the diagonal of the Fisher matrix, above 0.
        oversampling: how many times the budget is added, before samples are removed; 1: none is removed.
        rank: largest rank of a candidate's F, at least 1.
        width: number of principal components of the features in place of the features; 0: the features themselves.

    Needs: features, probabilities; labelled samples if there are any.
    Cost: O(D³ + n·D²) time at first, D = (C − 1)·(d + 1), and O(r·(D² + n·D)) for each of the 3·b steps, r the rank;
        O(D² + n·(C·r + d)) memory. With D = 4,617, n = 10,000 and b = 100 that is minutes; ``width``, or
        ``subsample(bait,2000)``, makes it less than one.
    Source: Ash et al., Gone Fishing: Neural Active Learning with Fisher Embeddings (NeurIPS 2021), algorithm 1.
    """
    at_least(1, oversampling=oversampling, rank=rank)
    at_least(0, width=width)
    if not 0 < ridge < torch.inf:
        raise InputError(f"ridge: found {ridge}, allowed: above 0, finite")
    size = min(budget, len(pool))
    p, h = pool.logits.double().softmax(1), pool.features
    told_p, told_h = p[:0], h[:0]
    if pool.labelled is not None:
        told_p, told_h = pool.labelled.logits.double().softmax(1), pool.labelled.features
    possible = torch.cat([p, told_p]).amax(0) > 0
    classes = int(possible.sum())
    if classes < 2:  # no label tells anything
        return Selection(highest(pool.data.key, size))
    if 0 < width < h.shape[1]:
        mean, directions = principal(torch.cat([h, told_h]), width)
        h, told_h = (h - mean) @ directions, (told_h - mean) @ directions
    side = (classes - 1) * (h.shape[1] + 1)
    if side > LARGEST:
        most = max(LARGEST // (classes - 1) - 1, 0)
        raise InputError(
            f"bait: found {classes} classes and {h.shape[1]} features, a Fisher matrix of side {side:,}, allowed: "
            f"up to {LARGEST:,}" + (f" (width={most} keeps so many components of the features)" if most else "")
        )
    basis = contrasts(classes).to(p)
    told = Samples(told_p[:, possible], told_h, basis)
    candidates = Samples(p[:, possible], h, basis)
    return Selection(forward_backward(Traces(candidates, told, ridge, rank), size, oversampling))


def forward_backward(traces: Traces, budget: int, oversampling: int) -> Int[Tensor, " m"]:
    """Add greedily ``oversampling`` times the budget, remove greedily down to it; the rows in the order of adding."""
    n = len(traces)
    picks = torch.empty(min(oversampling * budget, n), dtype=torch.int64, device=traces.device)
    closed = torch.zeros(n, dtype=torch.bool, device=traces.device)
    for i in range(len(picks)):
        picks[i] = traces.gains().masked_fill_(closed, -torch.inf).argmax()
        closed[picks[i]] = True
        traces.change(picks[i], 1)
    while len(picks) > budget:
        worst = traces.losses(picks).argmin()
        traces.change(picks[worst], -1)
        picks = torch.cat([picks[:worst], picks[worst + 1 :]])
    return picks


def contrasts(classes: int) -> Float[Tensor, "classes less"]:
    """Make an orthonormal basis of the vectors with sum 0, float64 (C, C − 1): a Fisher matrix lies in their span."""
    basis = torch.zeros(classes, classes - 1, dtype=torch.float64)
    for k in range(1, classes):
        basis[:k, k - 1] = 1 / (k * (k + 1)) ** 0.5
        basis[k, k - 1] = -k / (k * (k + 1)) ** 0.5
    return basis


class Samples:
    """The Fisher matrices S_x ⊗ h_x h_xᵀ of samples, as two factors. Final.

    Attributes:
        s: float64 (n, c, c), Tᵀ(diag p − p pᵀ)T for a basis T of c = C − 1 contrasts between the classes.
        h: float64 (n, d + 1), features and a 1 for the bias.
    """

    def __init__(self, p: Float[Tensor, "n classes"], h: Tensor, basis: Tensor) -> None:
        along = p @ basis
        self.s = torch.einsum("nk,ka,kb->nab", p, basis, basis) - along[:, :, None] * along[:, None, :]
        self.h = torch.cat([h.double(), p.new_ones(len(p), 1)], 1)

    def sum(self) -> Float[Tensor, "side side"]:
        """Add up the matrices: float64 (D, D), D = c·(d + 1); a class's block of features after the other's."""
        c, d = self.s.shape[1], self.h.shape[1]
        total = self.h.new_empty(c, d, c, d)
        for a in range(c):
            for b in range(a, c):
                block = (self.h * self.s[:, a, b, None]).T @ self.h
                total[a, :, b], total[b, :, a] = block, block.T
        return total.view(c * d, c * d)


class Traces:
    """tr(M⁻¹ F_all) while samples are added to M = λI + Σ_L F and removed again. Final.

    For each candidate it keeps B = VᵀM⁻¹V and Q = VᵀM⁻¹F_all M⁻¹V, where VVᵀ is the candidate's Fisher matrix.

    Args:
        candidates, told: the candidates and the labelled samples.
        ridge: λ.
        rank: number of columns of V at most.
    """

    def __init__(self, candidates: Samples, told: Samples, ridge: float, rank: int) -> None:
        self.device = candidates.h.device
        self._h = candidates.h
        self._factor = _factors(candidates.s, rank)
        labelled = told.sum()
        self.everything = candidates.sum() + labelled
        self.inverse = torch.cholesky_inverse(
            torch.linalg.cholesky(labelled.diagonal_scatter(labelled.diagonal() + ridge))
        )
        del labelled
        self._b = self._within(self.inverse)
        self._q = self._within(self.inverse @ self.everything @ self.inverse)

    def __len__(self) -> int:
        return len(self._h)

    @property
    def trace(self) -> Float[Tensor, ""]:
        """tr(M⁻¹ F_all)."""
        return (self.inverse * self.everything).sum()

    def gains(self) -> Float[Tensor, " n"]:
        """Compute by how much each candidate would lower the trace, float64, from 0."""
        return self._moved(self._b, self._q, 1)

    def losses(self, rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """Compute by how much the trace would rise without each of these samples, which were added."""
        return self._moved(self._b[rows], self._q[rows], -1)

    def change(self, row: Tensor, sign: int) -> None:
        """Add a candidate to M (sign 1), or remove it (−1)."""
        v = (self._factor[row][:, None, :] * self._h[row][None, :, None]).flatten(0, 1)  # (D, r)
        eye = torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        root = torch.linalg.cholesky(eye + sign * self._b[row])
        # M⁻¹ changes by −sign·U Uᵀ
        u = torch.linalg.solve_triangular(root, (self.inverse @ v).T, upper=False).T.contiguous()
        seen = self.everything @ u
        w, inner = self.inverse @ seen, u.T @ seen
        along_u, along_w = self._along(u), self._along(w)
        self._b.baddbmm_(along_u, along_u.mT, alpha=-sign)
        cross = along_u @ along_w.mT
        self._q += along_u @ inner @ along_u.mT - sign * (cross + cross.mT)
        self.inverse.addmm_(u, u.T, alpha=-sign)

    def _moved(self, b: Tensor, q: Tensor, sign: int) -> Tensor:
        eye = torch.eye(b.shape[1], dtype=b.dtype, device=b.device)
        return torch.linalg.solve(eye + sign * b, q).diagonal(dim1=1, dim2=2).sum(1)

    def _along(self, u: Tensor) -> Tensor:
        """Compute Vᵀu of each candidate: (n, r, columns)."""
        c, d, columns = self._factor.shape[1], self._h.shape[1], u.shape[1]
        flat = u.view(c, d, columns).transpose(0, 1).reshape(d, c * columns)
        out = u.new_empty(len(self), self._factor.shape[2], columns)
        for rows in blocks(len(self), c * columns):
            out[rows] = self._factor[rows].mT @ (self._h[rows] @ flat).view(-1, c, columns)
        return out

    def _within(self, matrix: Tensor) -> Tensor:
        """Compute Vᵀ·matrix·V of each candidate, for a symmetric matrix: (n, r, r)."""
        n, c, r = self._factor.shape
        d = self._h.shape[1]
        out = matrix.new_empty(n, r, r)
        for rows in blocks(n, d * c):
            h, factor = self._h[rows], self._factor[rows]
            of_classes = matrix.new_empty(len(h), c, c)
            for a in range(c):
                strip = (h @ matrix[a * d : (a + 1) * d, a * d :]).view(len(h), c - a, d)
                of_classes[:, a, a:] = of_classes[:, a:, a] = (strip @ h[:, :, None])[:, :, 0]
            out[rows] = factor.mT @ of_classes @ factor
        return out


def _factors(s: Tensor, rank: int) -> Tensor:
    """Factor (n, c, c) into (n, c, r) by the leading eigenvectors."""
    n, c = s.shape[:2]
    out = s.new_empty(n, c, min(rank, c))
    for rows in blocks(n, c * c):
        values, vectors = torch.linalg.eigh(s[rows])
        out[rows] = (vectors * values.clamp_min(0).sqrt()[:, None, :]).flip(2)[:, :, :rank]
    return out

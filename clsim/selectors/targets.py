"""Query and private sets: the samples that a choice should resemble, and those that it should avoid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.pool import Pool
from clsim.selectors.reference import further, unserved
from clsim.selectors.similarity import Cosine, Representation, between, represented

MOST = 1000
"""Number of samples in a query or private set at most; from a larger set, this number is drawn."""


def query_set(pool: Pool, classes: Sequence[int], rng: torch.Generator, *, otherwise: Pool | None = None) -> Cosine:
    """Find the query set: ``pool.query``, else labelled samples of ``classes``, else the reference, else the pool.

    Labelled samples of known classes without samples in ``pool.reference`` join the reference, and where there are
    none either, candidates that are predicted to be of these.

    Args:
        classes: classes that the option ``query`` names.
        otherwise: labelled samples that are the query set, with the reference, where neither role nor option gives one.
    """
    found = _labelled_of(pool, classes, "query") if pool.query is None else pool.query
    if found is not None:
        return _drawn(represented(found, "gradients"), rng)
    held = [part for part in (pool.reference, further(pool) if otherwise is None else otherwise) if part is not None]
    if pool.reference is None and otherwise is None:
        return _drawn(represented(pool, "hypothetical"), rng)
    joint = represented(held[0], "gradients")
    for part in held[1:]:
        joint = joint.joined(represented(part, "gradients"))
    own = represented(pool, "hypothetical")[unserved(pool, *held)]
    return _drawn(joint.joined(own) if len(own) else joint, rng)


def private_set(
    pool: Pool, classes: Sequence[int], rng: torch.Generator, *, otherwise: Pool | None = None
) -> Cosine | None:
    """Find the private set: ``pool.private``, else the labelled samples of these classes, else ``otherwise``."""
    found = _labelled_of(pool, classes, "private") if pool.private is None else pool.private
    found = otherwise if found is None else found
    return None if found is None else _drawn(represented(found, "gradients"), rng)


def chosen_before(pool: Pool, by: Representation, rng: torch.Generator | None = None) -> Cosine | None:
    """Represent L of f(A | L), the samples labelled already; None: there are none.

    Args:
        rng: draws :data:`MOST` of more samples; None: all count.
    """
    if pool.labelled is None:
        return None
    samples = represented(pool.labelled, by)
    return samples if rng is None else _drawn(samples, rng)


def most_like(samples: Cosine, others: Cosine | None) -> Float[Tensor, " n"]:
    """Compute max_o s_io of each sample i, (n,); 0 if there are no others."""
    return _over(samples, others, lambda s: s.amax(1))


def summed(samples: Cosine, others: Cosine | None) -> Float[Tensor, " n"]:
    """Compute Σ_o s_io of each sample i, float64 (n,)."""
    return _over(samples, others, lambda s: s.sum(1, dtype=torch.float64)).double()


def eliminated(samples: Cosine, ridge: float, *sets: tuple[Cosine | None, float]) -> Float[Tensor, "n size"] | None:
    """Compute W with W·Wᵀ = S_VB (S_B + ridge·I)⁻¹ S_BV, float64 (n, |B|), for the union B of the sets.

    It is None if there are no sets.

    Args:
        sets: each set, with the factor of its similarities with the samples (not of those within B).
    """
    there = [(others, factor) for others, factor in sets if others is not None]
    if not there:
        return None
    units = [others.unit() for others, _ in there]
    within = torch.cat([torch.cat([between(a, b) for b in units], 1) for a in units]).double()
    across = torch.cat([factor * samples.similarity(others) for others, factor in there], 1).double()
    within.diagonal().add_(ridge)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(within), across.T, upper=False).T


def share(value: float, name: str) -> float:
    """Return the value of option ``name`` if it is from 0 to 1.

    Raises:
        InputError: if it is not.
    """
    if not 0 <= value <= 1:
        raise InputError(f"selector: {name} is {value:g}, allowed: from 0 to 1")
    return value


def _labelled_of(pool: Pool, classes: Sequence[int], option: str) -> Pool | None:
    if not len(classes):
        return None
    labelled = pool if pool.labelled is None else pool.labelled
    wanted = torch.tensor(list(classes), device=labelled.data.device)
    rows = torch.isin(labelled.data.y, wanted[wanted >= 0]).nonzero().flatten()
    if not len(rows) and bool((pool.data.y < 0).any()):
        return None  # nobody has been told of one of these so far
    if not len(rows):
        there = ", ".join(map(str, labelled.data.y[labelled.data.y >= 0].unique().tolist())) or "none"
        raise InputError(
            f"selector: {option} is {list(classes)}, but no labelled sample is of these; there are: {there}"
        )
    return labelled[rows]


def _drawn(others: Cosine, rng: torch.Generator) -> Cosine:
    if len(others) <= MOST:
        return others
    return others[torch.randperm(len(others), generator=rng)[:MOST].to(others.device)]


def _over(samples: Cosine, others: Cosine | None, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    if others is None or not len(samples):
        return samples.scales[0].new_zeros(len(samples))
    unit, size = others.unit(), 8192
    parts = [reduce(between(samples[i : i + size].unit(), unit)) for i in range(0, len(samples), size)]
    return torch.cat(parts)

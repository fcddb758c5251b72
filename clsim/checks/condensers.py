"""The contract of a condenser."""

from __future__ import annotations

from typing import Any

import torch

from clsim.checks.samples import CheckFailed, clusters, convolutional, pool_of, pools
from clsim.checks.selectors import ORDINARY, check_purity
from clsim.pool.contracts import Condenser
from clsim.pool.exemplars import Exemplars, groups
from clsim.pool.pool import Pool


def check_condenser(condense: Condenser) -> None:
    """Check all that a condenser promises, on small ordinary and difficult pools under convolutional nets.

    Raises:
        CheckFailed: at the first broken promise.
    """
    for name, pool in pools(convolutional).items():
        for budget in (0, 1, 8, len(pool) + 5):
            _check_made(_make(condense, pool, budget, name), pool, budget, name)
    check_purity(lambda pool: _make(condense, pool, 8, ORDINARY), convolutional)
    x, y = clusters(40, seed=3)
    first, again = (_make(condense, pool_of(x, y, model=convolutional), 8, ORDINARY).columns() for _ in range(2))
    for column, values in first.items():
        if column not in again or not torch.equal(values, again[column]):
            raise CheckFailed(f"made another {column!r} when called again with the same pool and seed")


def _check_made(made: Any, pool: Pool, budget: int, name: str) -> None:
    where = f"of {name} with budget {budget}"
    if not isinstance(made, Exemplars):
        raise CheckFailed(f"returned a {type(made).__name__} {where}, not clsim.Exemplars")
    x, like = made.x, pool.data.x
    if x.dtype != like.dtype or x.shape[1:] != like.shape[1:]:
        found, wanted = (f"{t.dtype} of shape {tuple(t.shape[1:])}" for t in (x, like))
        raise CheckFailed(f"returned samples of {found} {where}, not {wanted} as the pool's are")
    labelled = int((pool.data.y >= 0).sum())
    if len(made) != min(budget, labelled):
        raise CheckFailed(
            f"returned {len(made)} samples {where}, not min(budget, labelled samples) = {min(budget, labelled)}"
        )
    for column, values in made.columns().items():
        if len(values) != len(made):
            raise CheckFailed(f"returned a column {column!r} of {len(values)} rows {where}, not {len(made)}")
    _check_numbers(made, where)
    _check_balance(made, pool, where)


def _check_numbers(made: Exemplars, where: str) -> None:
    if not made.x.isfinite().all():
        raise CheckFailed(f"returned samples {where} that are not finite")
    if made.y.dtype != torch.int64 or made.task.dtype != torch.int64:
        raise CheckFailed(f"returned labels of {made.y.dtype} and tasks of {made.task.dtype} {where}, not int64")
    if not ((made.key >= 0) & (made.key <= 1)).all():
        raise CheckFailed(f"returned keys {where} outside 0 to 1")
    weight = made.weight
    if weight is not None and (not weight.isfinite().all() or (weight < 0).any()):
        raise CheckFailed(f"returned weights {where} that are not finite numbers from 0")


def _check_balance(made: Exemplars, pool: Pool, where: str) -> None:
    """Check that class counts differ by at most one, except for classes with too few samples."""
    have = _counts(pool.data)
    got = dict.fromkeys(have, 0) | _counts(made)
    strange = sorted(set(got) - set(have))
    if strange or (made.y < 0).any():
        found = f"label {strange[0][1]} of task {strange[0][0]}" if strange else "no label"
        raise CheckFailed(f"returned a sample with {found} {where}, which no labelled sample of the pool has")
    for group, count in got.items():
        if count > have[group]:
            raise CheckFailed(f"returned {count} samples of class {group[1]} {where}, which has {have[group]}")
        if count < have[group] and count < max(got.values()) - 1:
            most = max(got.values())
            raise CheckFailed(f"returned {count} samples of class {group[1]} {where} and {most} of another: unbalanced")


def _counts(samples: Exemplars) -> dict[tuple[int, int], int]:
    return {(int(samples.task[rows[0]]), int(samples.y[rows[0]])): len(rows) for rows in groups(samples)}


def _make(condense: Condenser, pool: Pool, budget: int, name: str) -> Exemplars:
    try:
        return condense(pool, budget, rng=torch.Generator().manual_seed(0))
    except Exception as error:
        raise CheckFailed(f"raised {type(error).__name__} on {name} with budget {budget}: {error}") from error

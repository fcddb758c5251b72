"""The contract of a selector."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.checks.samples import CLASSES, CheckFailed, clusters, pool_of, pools
from clsim.pool import Pool, Selection, Selector


def check_selector(select: Selector, *, shortfall: bool = False, reads_labels: bool = True) -> None:
    """Everything that a selector promises, on small pools with and without trouble in them.

    Args:
        shortfall: the selector may return fewer than ``min(budget, n)`` rows, and says so in its documentation.
        reads_labels: false: the selector is an acquisition, and promises not to look at the candidates' labels.

    Raises:
        CheckFailed: at the first broken promise.
    """
    for name, pool in pools().items():
        for budget in sorted({0, 1, 7, len(pool), len(pool) + 5}):
            _check_selection(_select(select, pool, budget, name), pool, budget, name, shortfall)
    _check_purity(select)
    _check_repeatable(select)
    if not reads_labels:
        _check_blind(select)


def _check_selection(selection: Any, pool: Pool, budget: int, name: str, shortfall: bool) -> None:
    where = f"of {name} with budget {budget}"
    if not isinstance(selection, Selection):
        raise CheckFailed(f"returned a {type(selection).__name__} {where}, not a clsim.Selection")
    index = selection.index
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
        kind = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        raise CheckFailed(f"returned an index of {kind} {where}, not an int64 tensor (m,)")
    wanted = min(budget, len(pool))
    if len(index) > wanted or (len(index) < wanted and not shortfall):
        raise CheckFailed(f"returned {len(index)} rows {where}, not min(budget, n) = {wanted}")
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(pool)):
        raise CheckFailed(
            f"returned rows {int(index.min())} to {int(index.max())} {where}, outside 0 to {len(pool) - 1}"
        )
    if len(index.unique()) < len(index):
        raise CheckFailed(f"chose a row twice {where}")
    weight = selection.weight
    if weight is not None and (weight.shape != index.shape or not weight.isfinite().all() or (weight < 0).any()):
        raise CheckFailed(f"returned weights {where} that are not finite numbers from 0, one a row")


def _check_purity(select: Selector) -> None:
    """Nothing but the selection may come out of it."""
    pool = pool_of(*clusters(40, seed=2))
    net = pool.net
    net.train()
    frozen = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d))
    frozen.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    columns = {name: column.clone() for name, column in pool.data.columns().items()}
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    _select(select, pool, 7, "40 samples of 4 classes")
    if not torch.equal(torch_state, torch.get_rng_state()):
        raise CheckFailed("drew from torch's global generator; all randomness must come from rng")
    if str(numpy_state) != str(np.random.get_state()):  # noqa: NPY002
        raise CheckFailed("drew from numpy's global generator; all randomness must come from rng")
    if python_state != random.getstate():
        raise CheckFailed("drew from python's global generator; all randomness must come from rng")
    for name, value in net.state_dict().items():
        if not torch.equal(before[name], value):
            raise CheckFailed(f"changed the net: {name} is not what it was")
    if not net.head.training or frozen.training:
        raise CheckFailed("left the net in another mode (train or eval) than it found it in")
    if any(p.grad is not None for p in net.parameters()):
        raise CheckFailed("left gradients in the net")
    for name, column in pool.data.columns().items():
        if not torch.equal(columns[name], column):
            raise CheckFailed(f"changed the pool's column {name!r}")


def _check_repeatable(select: Selector) -> None:
    """Same pool and seed, same picks, in whatever order the pool stands and however it is batched."""
    x, y = clusters(40, seed=3)
    name = "40 samples of 4 classes"
    first = _select(select, pool_of(x, y), 9, name).index
    if not torch.equal(first, _select(select, pool_of(x, y), 9, name).index):
        raise CheckFailed("chose otherwise when called again with the same pool and the same seed")
    if not torch.equal(first, _select(select, pool_of(x, y, batch_size=7), 9, name).index):
        raise CheckFailed("chose otherwise when the pool was passed through the net in batches of 7")
    if not torch.equal(first, _select(select, pool_of(x, y), 9, name, seed=1).index):
        return  # it draws: another order of the pool draws other samples
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    turned = order[_select(select, pool_of(x, y)[order], 9, name).index]
    if set(turned.tolist()) != set(first.tolist()):
        raise CheckFailed("chose other samples when the same pool stood in another order, though it draws nothing")


def _check_blind(select: Selector) -> None:
    """Labels that are hidden from it, or wrong, must move nothing."""
    x, y = clusters(40, seed=3)
    name = "40 samples of 4 classes"
    first = _select(select, pool_of(x, y), 9, name).index
    for found, poisoned in (("hidden", torch.full_like(y, -1)), ("wrong", (y + 1 + torch.arange(40) % 3) % CLASSES)):
        if not torch.equal(first, _select(select, pool_of(x, poisoned), 9, name).index):
            raise CheckFailed(f"chose otherwise when the labels were {found}: it reads what an acquisition cannot know")


def _select(select: Selector, pool: Pool, budget: int, name: str, seed: int = 0) -> Selection:
    try:
        return select(pool, budget, rng=torch.Generator().manual_seed(seed))
    except Exception as error:
        raise CheckFailed(f"raised {type(error).__name__} on {name} with budget {budget}: {error}") from error

"""The contract of a selector."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from clsim.checks.nan_wins import NanWins, no_nan_wins
from clsim.checks.samples import CLASSES, CheckFailed, Model, clusters, label_pools, pool_of, pools
from clsim.pool.pool import Pool, Selection, Selector

ORDINARY = "40 samples of 4 classes"


def check_selector(
    select: Selector,
    *,
    shortfall: bool = False,
    reads_labels: bool = True,
    ordered: bool = False,
    score: Callable[[Pool], Tensor] | None = None,
) -> None:
    """Check all that a selector promises, on small ordinary and difficult pools.

    Args:
        shortfall: whether the selector may return fewer than ``min(budget, n)`` rows, and says so in its documentation.
        reads_labels: whether the selector may read the candidates' labels; an acquisition may not.
        ordered: whether the choice may depend on the order of the candidates.
        score: the score by which a selector ranks single samples, (n,), the largest first.

    Raises:
        CheckFailed: at the first broken promise.
    """
    for name, pool in pools().items():
        for budget in sorted({0, 1, 7, len(pool), len(pool) + 5}):
            # NaN wins with any budget that is less than the pool; to watch each comparison takes time
            selection = _select(select, pool, budget, name, watched=budget == 7)
            _check_selection(selection, pool, budget, name, shortfall)
    check_purity(lambda pool: _select(select, pool, 7, ORDINARY))
    _check_repeatable(select, ordered)
    if not reads_labels:
        _check_blind(select)
    if score is not None:
        _check_ranking(select, score)


def check_labelling(select: Selector, *, shortfall: bool = False) -> None:
    """Check that a selector can choose what to label, on small pools in which no candidate has a label.

    Args:
        select: the selector.
        shortfall: whether it may return fewer than ``min(budget, n)`` rows.

    Raises:
        CheckFailed: at the first pool of which it does not return different rows, as many as were asked for.
    """
    for name, pool in label_pools().items():
        for budget in (7, len(pool) + 5):
            selection = _select(select, pool, budget, name, watched=budget == 7)
            _check_selection(selection, pool, budget, name, shortfall)


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
    if weight is not None and len(index) and not weight.sum() > 0:
        raise CheckFailed(f"returned weights {where} that are all 0: nothing would be learnt")
    if selection.score is not None and selection.score.shape != index.shape:
        raise CheckFailed(f"returned scores of shape {tuple(selection.score.shape)} {where}, not one a row")


def check_purity(call: Callable[[Pool], Any], model: Model | None = None) -> None:
    """Check that the call of a selector or a condenser has no side effects.

    Args:
        model: model of the pool's net, with batch norm (default: a perceptron).

    Raises:
        CheckFailed: if it draws from a global generator, or changes the pool or its net.
    """
    x, y = clusters(40, seed=2)
    pool, untouched = pool_of(x, y, model=model), pool_of(x, y, model=model)
    net = pool.net
    net.train()
    frozen = next(m for m in net.modules() if isinstance(m, _BatchNorm))
    frozen.eval()
    net.head.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    columns = {name: column.clone() for name, column in pool.data.columns().items()}
    wanted = [p.requires_grad for p in net.parameters()]
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    call(pool)
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
    if wanted != [p.requires_grad for p in net.parameters()]:
        raise CheckFailed("changed which parameters of the net require a gradient")
    for name, column in pool.data.columns().items():
        if not torch.equal(columns[name], column):
            raise CheckFailed(f"changed the pool's column {name!r}")
    for name, mine, theirs in (
        ("features", pool.features, untouched.features),
        ("logits", pool.logits, untouched.logits),
    ):
        if not torch.allclose(mine, theirs, atol=1e-5):
            raise CheckFailed(f"changed the pool's {name} in place, which others share")


def _check_repeatable(select: Selector, ordered: bool) -> None:
    """Check that the same pool and seed give the same picks, in any batch size and, unless ``ordered``, any order."""
    x, y = clusters(40, seed=3)
    first = _select(select, pool_of(x, y), 9, ORDINARY)
    _compare(first, _select(select, pool_of(x, y), 9, ORDINARY), "when called again with the same pool and seed")
    for size, last in ((7, "the last of 5"), (13, "the last of a single one")):
        batched = _select(select, pool_of(x, y, batch_size=size), 9, ORDINARY)
        _compare(first, batched, f"when the pool was passed through the net in batches of {size}, {last}")
    if ordered or not torch.equal(first.index, _select(select, pool_of(x, y), 9, ORDINARY, seed=1).index):
        return  # it draws: another order of the pool draws other samples
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    turned = order[_select(select, pool_of(x, y)[order], 9, ORDINARY).index]
    if set(turned.tolist()) != set(first.index.tolist()):
        raise CheckFailed("chose other samples when the same pool stood in another order, though it draws nothing")


def _check_blind(select: Selector) -> None:
    """Check that hidden or wrong labels of the candidates do not change the picks."""
    x, y = clusters(40, seed=3)
    poisoned = {
        "hidden": torch.full_like(y, -1),
        "hidden from every second sample": y.where(torch.arange(40) % 2 == 0, -1),
        "wrong": (y + 1 + torch.arange(40) % 3) % CLASSES,
        "all the same": torch.zeros_like(y),
    }
    for budget in (3, 9):
        first = _select(select, pool_of(x, y, beside=True), budget, ORDINARY)
        for how, labels in poisoned.items():
            other = _select(select, pool_of(x, labels, beside=True), budget, ORDINARY)
            _compare(first, other, f"when the labels were {how}: it reads what an acquisition cannot know")


def _check_ranking(select: Selector, score: Callable[[Pool], Tensor]) -> None:
    """Check that the picks are the largest scores, in falling order, up to round-off."""
    for name, pool in pools().items():
        index = _select(select, pool, 7, name).index
        scores = score(pool).double()
        best = scores.sort(descending=True).values[: len(index)]
        if not torch.allclose(scores[index], best, rtol=1e-4, atol=1e-6):
            rank = int((scores[index] - best).abs().gt(1e-6).int().argmax())
            raise CheckFailed(
                f"ranked {name} otherwise than by its score: pick {rank + 1} scores "
                f"{float(scores[index][rank]):.4g}, and that place belongs to {float(best[rank]):.4g}"
            )


def _compare(first: Selection, other: Selection, when: str) -> None:
    if not torch.equal(first.index, other.index):
        raise CheckFailed(f"chose otherwise {when}")
    if (first.weight is None) != (other.weight is None):
        raise CheckFailed(f"gave weights only sometimes: otherwise {when}")
    if (
        first.weight is not None
        and other.weight is not None
        and not torch.allclose(first.weight, other.weight, rtol=1e-3, atol=1e-5)
    ):
        raise CheckFailed(f"weighed otherwise {when}")


def _select(select: Selector, pool: Pool, budget: int, name: str, seed: int = 0, *, watched: bool = False) -> Selection:
    try:
        with no_nan_wins() if watched else nullcontext():
            return select(pool, budget, rng=torch.Generator().manual_seed(seed))
    except NanWins as error:
        raise CheckFailed(f"{error} on {name} with budget {budget}, where NaN counts as the largest") from error
    except Exception as error:
        raise CheckFailed(f"raised {type(error).__name__} on {name} with budget {budget}: {error}") from error

"""Herding: exemplars whose mean is close to the pool's mean."""

from __future__ import annotations

import torch
from torch import Tensor

from clsim.pool.pool import Pool, Selection
from clsim.selectors.points import Points, points

SMALL = 4096
"""Number of rows up to which each pick reads them all."""

LIKELY = 2048
"""Number of rows that the next picks are guessed among."""

FEWEST, MOST = 8, 32
"""Number of picks that are guessed at a time."""

WORTH, WAIT = 4, 8
"""Picks that a pass with guesses must exceed, since it takes as long; picks without guesses after one that does not."""


def herding(pool: Pool, budget: int, *, rng: torch.Generator, normalise: bool = True) -> Selection:
    """Keep samples whose mean stays close to the mean μ of all features, greedily.

    p_{i+1} = argmin_x ‖(i+1)·μ − Σ_{j≤i} φ(p_j) − φ(x)‖, each x at most once. Every prefix is itself the herding of
    that length, so a memory may shrink to a prefix. Features are not copied. On a processor, the next picks are guessed
    among a few likely rows, and one product with all features tells which guesses are right; the picks are those of a
    pass for each, to the last bit.

    Args:
        normalise: whether each feature vector is scaled to length 1 first, as in iCaRL.

    Needs: features.
    Cost: O(n·b·d) time, O(n) memory.
    Source: Welling, Herding Dynamical Weights to Learn (ICML 2009); Rebuffi et al., iCaRL (CVPR 2017), algorithm 4.
    """
    return Selection(herded(points(pool.features, normalise=normalise), min(budget, len(pool))))


def herded(about_mean: Points, budget: int, *, small: int = SMALL) -> Tensor:
    """Order points by herding, int64 (budget,).

    About the mean, z = φ − μ: the target is 0, and ‖Σz + z_x‖² = ‖Σz‖² + 2⟨Σz, z_x⟩ + ‖z_x‖².

    Args:
        small: number of points up to which each pick reads them all. A GPU reads them all, too: it takes less time than
            it would take to look at guesses.
    """
    squares = about_mean.squares.clone()
    chosen = torch.zeros_like(about_mean.mean)
    picks = torch.empty(budget, dtype=torch.int64, device=squares.device)
    guesses, plain, wait, done = FEWEST, 1, WAIT, 0
    values, round_off = squares, _round_off(about_mean)
    if len(squares) <= small or squares.device.type != "cpu":
        plain = budget
    while done < budget:
        if plain:
            values = _values(about_mean, squares, chosen)
            right, plain = values.argmin().reshape(1), plain - 1
        else:
            right, values = _several(about_mean, squares, round_off, chosen, values, min(guesses, budget - done))
            if len(right) <= WORTH:
                plain, wait = wait, min(2 * wait, 256)
            else:
                wait = WAIT
            guesses = max(min(2 * len(right), MOST), FEWEST)
        picks[done : done + len(right)] = right
        squares[right] = torch.inf
        for pick in right:
            chosen += about_mean[pick[None]][0]
        done += len(right)
    return picks


def _values(about_mean: Points, squares: Tensor, chosen: Tensor) -> Tensor:
    """Compute 2⟨Σz, z_x⟩ + ‖z_x‖² of all points by one pass through the features, (n,)."""
    return torch.add(squares, about_mean.along(chosen), alpha=2)


def _several(
    about_mean: Points, squares: Tensor, round_off: Tensor, chosen: Tensor, values: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Guess the next ``count`` picks by earlier values, and check them all in one pass through the features.

    What is computed for several sums at once may differ from :func:`_values` by round-off; where two rows are as close
    as that, :func:`_values` decides.

    Returns:
        The first picks: those guessed right, and one more. And the values that the last of them had.
    """
    likely = values.topk(min(LIKELY, len(values)), largest=False, sorted=False).indices
    there, left = about_mean[likely], squares[likely]
    sums, guessed = [chosen], []
    for _ in range(count):
        best = torch.add(left, there @ sums[-1], alpha=2).argmin()
        left[best] = torch.inf
        guessed.append(likely[best])
        sums.append(sums[-1] + there[best])
    directions = torch.stack(sums[:count], 1)
    products = about_mean.features @ directions
    if about_mean.scale is not None:
        products.mul_(about_mean.scale[:, None])
    products.sub_(torch.stack([about_mean.mean @ direction for direction in sums[:count]]))
    found = products.mul_(2).add_(squares[:, None])
    for i in range(count - 1):
        found[guessed[i], i + 1 :] = torch.inf
    error = round_off[:, None] * torch.linalg.vector_norm(directions, dim=0)
    least = (found + error).amin(0)
    rows, steps = (found - error <= least).nonzero().T
    alone = steps.bincount(minlength=count).tolist()
    first = torch.empty(count, dtype=torch.int64)
    first[steps] = rows  # of several, none is used
    right: list[Tensor] = []
    for i in range(count):
        pick = first[i]
        if alone[i] != 1:
            left = squares.index_fill(0, torch.stack(guessed[:i]), torch.inf) if i else squares
            pick = _values(about_mean, left, sums[i]).argmin()
        right.append(pick)
        if int(pick) != int(guessed[i]):
            break
    return torch.stack(right), found[:, len(right) - 1].contiguous()


def _round_off(about_mean: Points) -> Tensor:
    """Bound by how much two ways of computing 2⟨z_x, v⟩ + ‖z_x‖² differ, for ‖v‖ = 1, (n,)."""
    unit = torch.finfo(about_mean.squares.dtype).eps
    length = about_mean.squares.sqrt() + about_mean.mean.norm()
    return length.mul_(2 * unit * (about_mean.features.shape[1] + 8))

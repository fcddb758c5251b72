"""Memories made for streams: the newest samples, the typical ones, or an even spread of uncertainty."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clsim.data.augmentation import crop
from clsim.errors import InputError
from clsim.models.nets import evaluating
from clsim.pool.pool import Pool, Selection
from clsim.selectors.random import in_turn


def ring(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keep the newest samples of each class: a first-in, first-out buffer for each class.

    ``Selection.score`` keeps the order of arrival (0: the oldest in memory); a sample without a score is new. Samples
    that arrive together stand in the order of their keys, that is at random. The classes have equal shares as far as
    their samples last, so that a class gives up room when another one comes. Meant for an update with every batch.

    Needs: labels; the memory's own notes.
    Cost: O(n log n) time, O(n) memory.
    Source: Chaudhry et al., On Tiny Episodic Memories in Continual Learning (2019), ring buffer.
    """
    by_key = pool.data.key.argsort(stable=True)
    if pool.data.score is not None:
        by_key = by_key[pool.data.score[by_key].argsort(stable=True)]  # new samples have NaN, which comes last
    newest = by_key.flip(0)
    places = in_turn(pool.data.y[newest])[:budget]
    return Selection(newest[places], score=(-places).argsort().argsort().float())


def mean_of_features(pool: Pool, budget: int, *, rng: torch.Generator, normalise: bool = True) -> Selection:
    """Keep the samples nearest to the mean of all features.

    Samples are ranked by ‖φ(x) − μ‖₂, the smallest first. Each pick is typical by itself; herding instead keeps the
    mean of the picks near μ. As a buffer it is applied to each class, and μ is then the mean of that class.

    Args:
        normalise: whether each feature vector is scaled to length 1 first, as in iCaRL.

    Needs: features.
    Cost: O(n·d) time, O(n) memory beside the features.
    Source: Chaudhry et al., On Tiny Episodic Memories in Continual Learning (2019), mean of features,
        with the mean of the pool instead of a running one; after Rebuffi et al., iCaRL (CVPR 2017).
    """
    features = F.normalize(pool.features) if normalise else pool.features
    return Selection((features - features.mean(0)).norm(dim=1).argsort(stable=True)[:budget])


def rainbow(pool: Pool, budget: int, *, rng: torch.Generator, versions: int = 12, strength: float = 0.1) -> Selection:
    """Keep samples evenly spaced from the most certain to the most uncertain under perturbation.

    u(x) = 1 − max_c S_c/A, where S_c of the A perturbed versions of x are predicted to be of class c. The samples are
    sorted by u and every (n/b)-th is kept, so that easy and hard ones are both in memory. Many samples have equal u;
    they stand in the order of their keys, that is at random. Any prefix of the picks is spread evenly too.

    The paper draws its perturbations from a mixture of image transformations. Here the versions of an image take turns
    at a shift by up to an eighth of its height, a change of contrast and brightness, a blank square of half its
    height, and Gaussian noise, each drawn anew for every image and applied to the normalised input. The versions of a
    vector all have Gaussian noise.

    Args:
        versions: A, the number of perturbed versions of each sample.
        strength: standard deviation of the noise, in units of the normalised input; contrast and brightness change by
            factors and shifts of up to four times as much.

    Needs: perturbed inputs.
    Cost: A forward passes, O(n·C) memory.
    Source: Bang et al., Rainbow Memory: Continual Learning with a Memory of Diverse Samples (CVPR 2021), eq. 2 to 4 and
        algorithm 1.
    """
    if versions < 1 or not 0 <= strength < torch.inf:
        raise InputError(
            f"rainbow: found versions {versions} and strength {strength}, allowed: versions from 1, strength from 0"
        )
    n, size = len(pool), min(budget, len(pool))
    uncertainty = disagreement(pool, versions, strength, rng)
    by_key = pool.data.key.argsort(stable=True)
    order = by_key[uncertainty[by_key].argsort(stable=True)]
    places = _spread(size).to(order.device)
    return Selection(order[(places * n).div(max(size, 1), rounding_mode="floor")])


def disagreement(pool: Pool, versions: int, strength: float, rng: torch.Generator) -> Float[Tensor, " n"]:
    """Compute u, float32 (n,): the share of a sample's perturbed versions outside their most predicted class."""
    votes = torch.zeros_like(pool.visible, dtype=torch.float32)
    device = votes.device
    own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
    with evaluating(pool.net), torch.no_grad():
        for start in range(0, len(pool), _CHUNK):  # not the pool's batch size, so that the draws do not depend on it
            rows = slice(start, start + _CHUNK)
            x, task = pool.inputs(rows), pool.data.task[rows]
            for version in range(versions):
                predicted = pool.net(_perturbed(x, version, strength, own), task).argmax(1, keepdim=True)
                votes[rows].scatter_add_(1, predicted, torch.ones_like(predicted, dtype=torch.float32))
    pool.cost.forward_passes += versions * len(pool)
    return 1 - votes.amax(1) / versions


_CHUNK = 500


def _perturbed(x: Tensor, version: int, strength: float, rng: torch.Generator) -> Tensor:
    kind = version % 4 if x.ndim == 4 else 3
    if kind == 0:
        return crop(x, rng)
    if kind == 1:
        contrast, brightness = torch.rand(2, len(x), 1, 1, 1, generator=rng, device=x.device).mul(2).sub(1)
        return x * (1 + 4 * strength * contrast) + 4 * strength * brightness
    if kind == 2:
        return x * ~_squares(x, rng)
    return x + strength * torch.randn(x.shape, generator=rng, device=x.device)


def _squares(x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw a square of half the height at a random place for each sample: bool (n, 1, h, w)."""
    centre = torch.rand(2, len(x), 1, generator=rng, device=x.device)
    inside = [
        (torch.arange(size, device=x.device) + 0.5 - at * size).abs() <= x.shape[2] / 4
        for at, size in zip(centre, x.shape[2:], strict=True)
    ]
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def _spread(m: int) -> Tensor:
    """Order 0 … m−1 so that any prefix is spread evenly: where 0, ½, ¼, ¾, ⅛ … of m lie (van der Corput).

    >>> _spread(8).tolist(), _spread(6).tolist()
    ([0, 4, 2, 6, 1, 5, 3, 7], [0, 3, 1, 4, 2, 5])
    """
    digits = max(m - 1, 1).bit_length()
    turn = torch.arange(2**digits)
    backwards = torch.zeros_like(turn)
    for digit in range(digits):
        backwards |= (turn >> digit & 1) << (digits - 1 - digit)
    places = (backwards * m) >> digits
    return torch.full((m,), len(turn)).scatter_reduce_(0, places, turn, "amin").argsort() if m else turn[:0]

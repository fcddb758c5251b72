"""Bounds: choices of labels that read what no annotator could know; they show what there is to gain."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsim.acquisitions.acquisition import Acquisition
from clsim.errors import InputError, at_least
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.selectors.balanced import water_filled
from clsim.selectors.reference import told


class Bound(Acquisition):
    """An acquisition that is told the hidden labels, and the test samples, before each choice. Abstract.

    Args:
        net: the net that is trained.
        rng: a generator; a bound has no weights to draw.
    """

    bound = True

    def __init__(self, net: Net, rng: torch.Generator) -> None:
        self._truth: Tensor | None = None
        self._test: Exemplars | None = None

    def reads(self, truth: Int[Tensor, " n"], test: Exemplars) -> None:
        """Learn what is hidden from all others; the oracle tells it before each call.

        Args:
            truth: int64 (n,), the label of each candidate of the pool that the next call is given.
            test: labelled test samples, of the experiences so far.
        """
        self._truth, self._test = truth, test

    @abstractmethod
    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, best first."""

    def _told(self, pool: Pool) -> tuple[Tensor, Exemplars]:
        """Return what was told, once.

        Raises:
            InputError: if nothing was told of this pool.
        """
        truth, test = self._truth, self._test
        self._truth = self._test = None
        if truth is None or test is None or len(truth) != len(pool):
            found = "no labels" if truth is None else f"{len(truth)} labels"
            raise InputError(f"bound: found {found} of {len(pool)} candidates, allowed: those that the oracle tells")
        return truth, test


class BalancedRandom(Bound):
    """Ask for labels at random, but of the rarest class each time: water filling by the hidden labels. Final.

    The next pick is of the class that has the fewest samples among those labelled already and those chosen, so that the
    largest class exceeds the smallest by as little as possible. It shows the effect of balance alone.

    Needs: the hidden labels.
    Cost: O(n log n) time, O(n) memory.
    Source: the balanced random baseline of Emam et al., Active Learning at the ImageNet Scale (2021).
    """

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, the rarest class first."""
        return Selection(water_filled(pool, self._told(pool)[0], budget))


class GreedyOracle(Bound):
    """Try random sets of candidates against the test labels, and ask for the best set each time. Final.

    A step draws ``tries`` sets of ``size`` candidates. Each set, with its hidden labels, joins what is labelled (in
    memory too), and a linear readout of the features is fitted to all: W = argmin Σ_i ‖W·[φ_i, 1] − e_{y_i}‖² +
    λ‖W‖², φ scaled to a mean square length of 1. The set with the highest accuracy on the test samples is chosen, of
    equals that with the smallest squared error. The readout stands for the net, which is not trained for each try.

    Its cost is bounded: a try updates the readout by the set alone (recursive least squares), sets grow so that there
    are at most ``most`` tries in a round, and at most ``tests`` test samples count.

    Args:
        net: the net that is trained.
        rng: a generator; nothing is drawn from it.
        tries: sets that a step draws, at least 1.
        size: candidates in a set, at least 1.
        most: tries in a round at most.
        tests: test samples at most; of more, this number is drawn.
        ridge: λ, above 0.

    Needs: the hidden labels, the test labels, features.
    Cost: O(n·d + d³ + most·size·tests·(d + C)) time, O(tests·(d + C + tries·size)) memory.
    Source: the greedy oracle of active-learning benchmarks, which retrain for each try; the readout is ours.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        tries: int = 50,
        size: int = 1,
        most: int = 10_000,
        tests: int = 2000,
        ridge: float = 0.1,
    ) -> None:
        super().__init__(net, rng)
        at_least(1, "greedy-oracle: ", tries=tries, size=size, most=most, tests=tests)
        if not 0 < ridge < torch.inf:
            raise InputError(f"greedy-oracle: ridge: found {ridge}, allowed: a finite number above 0")
        self._tries, self._size, self._most, self._tests, self._ridge = tries, size, most, tests, ridge

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, in the order in which they were chosen."""
        truth, test = self._told(pool)
        budget, device = min(budget, len(pool)), pool.data.device
        drawn = torch.randperm(len(test), generator=rng)[: self._tests].sort().values
        tested, labelled = pool.scored(test[drawn.to(device)]), told(pool)
        unit = pool.features.double().square().sum(1).mean().sqrt().clamp_min(1e-12)
        x, against = _inputs(pool, unit), _inputs(tested, unit)
        readout = Readout(against, tested.data.y, pool.logits.shape[1], self._ridge)
        if labelled is not None:
            for rows in torch.arange(len(labelled), device=device).split(256):
                readout.add(_inputs(labelled[rows], unit), labelled.data.y[rows])
        size = max(self._size, -(-budget * self._tries // self._most))
        picks, left = truth[:0], torch.arange(len(pool), device=device)
        while len(picks) < budget:
            wanted = min(size, budget - len(picks))
            keys = torch.rand(self._tries, len(left), generator=rng).to(device)
            sets = left[keys.topk(wanted, 1).indices]
            best = sets[readout.best(x[sets], truth[sets])]
            readout.add(x[best], truth[best])
            picks = torch.cat([picks, best])
            left = left[~torch.isin(left, best)]
        return Selection(picks)


class Readout:
    """A linear least-squares readout with a ridge, updated by a few samples at a time. Final.

    With P = (λI + Σ x xᵀ)⁻¹, samples X (s, d) with targets Y change W by P·Xᵀ·(I + X·P·Xᵀ)⁻¹·(Y − X·W) and P by
    −P·Xᵀ·(I + X·P·Xᵀ)⁻¹·X·P, exactly. Kept are P, W, and their products with the test samples.

    Args:
        tested: float64 (t, d), the test samples.
        y: int64 (t,), their labels; −1: never right.
        width: number of classes.
        ridge: λ.

    Attributes:
        scores: float64 (t, width), the outputs for the test samples.
    """

    def __init__(self, tested: Float[Tensor, "t width"], y: Int[Tensor, " t"], width: int, ridge: float) -> None:
        self._p = torch.eye(tested.shape[1], dtype=torch.float64, device=tested.device) / ridge
        self._w = tested.new_zeros(tested.shape[1], width)
        self._tested, self._along, self.scores = tested, tested / ridge, tested.new_zeros(len(tested), width)
        self._y, self._right = y, F.one_hot(y.clamp_min(0), width) * (y >= 0)[:, None]

    def add(self, x: Float[Tensor, "s width"], y: Int[Tensor, " s"]) -> None:
        """Add samples with their labels."""
        change, gain = self._change(x[None], y[None])
        along, inverse = self._p @ x.T, gain[0]
        self._w = self._w + along @ change[0]
        self.scores = self.scores + self._along @ x.T @ change[0]
        self._along = self._along - self._along @ x.T @ inverse @ along.T
        self._p = self._p - along @ inverse @ along.T

    def best(self, x: Float[Tensor, "sets s width"], y: Int[Tensor, "sets s"]) -> Int[Tensor, ""]:
        """Find the set that, if added, gives the highest accuracy, of equals the smallest squared error."""
        change, _ = self._change(x, y)
        found = []
        for one, by in zip(x, change, strict=True):
            scores = self.scores + self._along @ one.T @ by
            accuracy = (scores.argmax(1) == self._y).double().mean()
            error = (scores - self._right).square().mean()
            found.append(accuracy - 1e-6 * error / (1 + error))  # a millionth of a sample at most
        return torch.stack(found).argmax()

    def _change(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute (I + X·P·Xᵀ)⁻¹·(Y − X·W), (sets, s, C), and the inverse, (sets, s, s)."""
        within = x @ self._p @ x.transpose(1, 2)
        inverse = torch.linalg.inv(within + torch.eye(x.shape[1], dtype=x.dtype, device=x.device))
        return inverse @ (F.one_hot(y, self._w.shape[1]) - x @ self._w), inverse


def _inputs(pool: Pool, unit: Tensor) -> Tensor:
    """Write out [φ / unit, 1], float64 (n, d + 1)."""
    features = pool.features.double() / unit
    return torch.cat([features, features.new_ones(len(features), 1)], 1)

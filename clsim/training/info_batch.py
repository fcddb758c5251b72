"""InfoBatch: epochs that leave out samples with a low loss, without bias."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, places_of
from clsim.training.batch_choice import Choosing
from clsim.training.contract import Learner, Setup, Terms
from clsim.training.outputs import noted


class InfoBatch(Choosing):
    """Leave some of the samples with a low loss out of an epoch, and let the others weigh more. Final.

    The score of a sample is its loss in the last step that was taken on it. In an epoch, a sample whose score is below
    the mean is left out with probability r; if it stays, its loss is multiplied by 1 / (1 − r). The loss of a step is
    Σ w·l / n, so that the sum over an epoch has the expectation of the sum over all samples, and so has its gradient.
    The first epoch, in which nothing has a score, and the last epochs pass over all samples.

    An epoch has fewer steps than one of all samples. Schedules of the learning rate go by epochs then: at the beginning
    of each, the rate is what it would be with all samples. The scores are those of the training's own forward passes,
    augmented and in training mode: they cost nothing. Each sample is drawn apart; how the authors' code draws them
    could not be read.

    Args:
        setup: net, memory, transform, generators.
        inner: the learner, ``sgd`` with its own loss, which goes by weights.
        ratio: r, the probability with which a sample below the mean is left out.
        last: the share of the epochs at the end that pass over all samples.

    Needs: labels.
    Cost: O(n) time an epoch, and one number a sample; no forward pass.
    Source: Qin et al., InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning (ICLR 2024), as recalled.

    Raises:
        InputError: if the ratio or the share is out of range.
    """

    def __init__(self, setup: Setup, inner: Learner, *, ratio: float = 0.5, last: float = 0.125) -> None:
        super().__init__(setup, inner)
        if not 0 <= ratio < 1 or not 0 <= last <= 1:
            raise InputError(
                f"info-batch: found ratio {ratio:g} and last {last:g}, allowed: a ratio from 0 to below 1, and a share"
            )
        self._ratio, self._last = ratio, last
        self._places = torch.empty(0, dtype=torch.int64)
        self.scores = torch.empty(0)

    def kept(self, samples: Exemplars, progress: float) -> Exemplars:
        """Leave samples with a score below the mean out of the next epoch at random, and weigh those that stay."""
        places = places_of(samples).sort().values
        if not progress or not torch.equal(places, self._places):
            self._places, self.scores = places, torch.full_like(samples.key, torch.nan)
        pace = self.setup.pace
        pace.step = round(progress * pace.steps)
        low = self.scores < self.scores.nanmean()
        if progress >= 1 - self._last - 1e-9 or not bool(low.any()):
            return samples
        weight, stays = drawn(low[self._at(samples)], self._ratio, self.setup.randomness.batch)
        if samples.weight is not None:
            weight = weight * samples.weight
        return dataclasses.replace(samples, weight=weight)[stays]

    def observe(self, batch: Exemplars) -> Terms:
        """Take one gradient step on ``batch``, and note the loss of each of its samples."""
        with noted(self.inner.net) as outputs:
            terms = self.inner.observe(batch)
        logits = outputs.first(len(batch))
        if logits is not None:
            losses = F.cross_entropy(self._visible(logits, batch), batch.y, reduction="none")
            self.scores.index_copy_(0, self._at(batch), losses.float())
        self.taken.add(batch, logits)
        return terms

    def _visible(self, logits: Tensor, batch: Exemplars) -> Tensor:
        """Mask logits of the head as the net does."""
        net = self.inner.net
        return logits.float().masked_fill(~net.visible[batch.task], -torch.inf) if net.masked else logits.float()

    def _at(self, samples: Exemplars) -> Tensor:
        return torch.searchsorted(self._places, places_of(samples))


def drawn(low: Tensor, ratio: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which samples stay, and weigh them.

    Args:
        low: bool (n,), the samples that may be left out.
        ratio: the probability with which each of them is.
        rng: the generator of the draws, on the CPU.

    Returns:
        float32 (n,), the weights, 1 / (1 − ratio) where ``low``; and bool (n,), which samples stay.

    >>> weight, stays = drawn(torch.tensor([True] * 4 + [False]), 0.5, torch.Generator().manual_seed(0))
    >>> weight.tolist(), bool(stays[4])
    ([2.0, 2.0, 2.0, 2.0, 1.0], True)
    """
    out = torch.rand(len(low), generator=rng).to(low.device) < ratio
    weight = torch.where(low, 1 / (1 - ratio), 1.0)
    return weight, ~(low & out)

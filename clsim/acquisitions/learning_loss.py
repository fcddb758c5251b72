"""Learning loss: a small module beside the net predicts the loss of a sample, and learns it with the net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.errors import InputError, at_least
from clsim.models.nets import Net, evaluating
from clsim.pool.pool import Pool, Selection
from clsim.randomness import own_draws
from clsim.selectors.combinators import subsample
from clsim.selectors.scores import highest


class LearningLoss(Acquisition):
    """Query the samples with the largest predicted loss; a module beside the net learns to predict it. Final.

    The module reads the net's taps (the stages of a ResNet, the blocks of a convolutional net, the hidden layers of a
    perceptron). It learns the order of the losses from pairs of samples of a batch: the learner's loss grows by λ times
    the mean of :func:`pair_losses`. The losses that it learns from are the samples' cross-entropies, as constants.

    Pairs are made among the new samples of a batch, and among those from memory. Paired across the whole batch, sample
    i with n − 1 − i, each new sample would meet one from memory: the module would learn to tell the two apart, and not
    to rank the new samples, which is what it chooses among. Samples of weight 0 make no pairs; other weights do not
    count.

    The largest predicted losses lie close together, often in one class. So the module chooses from ten candidates a
    label, drawn at random: the paper's 10,000 for 1,000 labels. The net is not trained anew in each round, which the
    paper leaves open and its best-known reproduction does so: ``labelling.start`` is ``warm``, unless the spec says
    otherwise. The first set should be random (``labelling.initial_count``): without one, the first choice of an
    experience is by a module that has seen none of its classes, and may be of one class alone, from which no losses can
    be learnt.

    Args:
        strength: the weight λ of the module's loss.
        margin: the margin ξ of the pairs.
        width: number of units of each tap's layer.
        stop: share of a round's steps after which the module's loss no longer changes the net; 0.6 is epoch 120 of 200,
            as in the paper. 1: it always does.
        candidates_per_label: number of candidates, drawn at random in each round, for each label asked for. 0: all.

    Needs: a learner that takes its terms; a net with taps; labelled samples to begin with.
    Cost: a forward pass of the candidates; in training, one linear layer a tap.
    Source: Yoo & Kweon, Learning Loss for Active Learning (CVPR 2019).

    Raises:
        InputError: if the net has no taps, or an option is out of its range.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        strength: float = 1.0,
        margin: float = 1.0,
        width: int = 128,
        stop: float = 0.6,
        candidates_per_label: int = 10,
    ) -> None:
        at_least(0, "learning-loss: ", strength=strength, margin=margin, candidates_per_label=candidates_per_label)
        at_least(1, "learning-loss: ", width=width)
        if not 0 <= stop <= 1:
            raise InputError(f"learning-loss: stop: found {stop:g}, allowed: a share from 0 to 1")
        if not net.taps:
            raise InputError(
                "learning-loss: model.name: found a net without hidden layers to predict the loss from; allowed: mlp, "
                "convnet3, a VGG or ResNet net, or a net whose body is an nn.Sequential with weights"
            )
        self._strength, self._margin, self._stop = strength, margin, stop
        self._candidates_per_label = candidates_per_label
        with own_draws(int(torch.randint(2**62, (), generator=rng))):
            self.module = LossPredictor([net.shapes[tap + 1][0] for tap in net.taps], width)
        self.module.to(net.head.weight.device)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return the term ``learning-loss``, whose gradient stops at the maps in the last part of a round."""
        flows = step.progress < self._stop
        predicted = self.module(step.maps if flows else [maps.detach() for maps in step.maps])
        counts = step.y >= 0 if step.weight is None else (step.y >= 0) & (step.weight > 0)
        rows = slice(step.new), slice(step.new, None)
        parts = [pair_losses(predicted[r], step.losses[r], counts[r], self._margin) for r in rows]
        hinges, pairs = (torch.cat(column) for column in zip(*parts, strict=True))
        return {"learning-loss": self._strength * hinges.sum() / pairs.sum().clamp_min(1)}

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the largest predicted losses of the candidates that are drawn, best first."""
        drawn = self._candidates_per_label * budget or len(pool)
        return subsample(self._largest, max(drawn, 1))(pool, budget, rng=rng)

    def predicted(self, pool: Pool) -> Float[Tensor, " n"]:
        """Predict the losses of a pool's candidates in eval mode, up to their scale: float32 (n,)."""
        net, parts = pool.net, []
        with evaluating(net), torch.no_grad(), pool.precision(), net.tapped() as passes:
            for start in range(0, max(len(pool), 1), pool.batch_size):
                net.features(pool.inputs(slice(start, start + pool.batch_size)))
                parts.append(self.module(passes.pop().maps))
        pool.cost.forward_passes += len(pool)
        return torch.cat(parts)

    def _largest(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(highest(self.predicted(pool), budget))


class LossPredictor(nn.Module):
    """Mean over pixels → linear layer → ReLU for each tap; together they are the input of a last linear unit. Final.

    Args:
        channels: number of channels, or of units, of each tap.
        width: number of units of each tap's layer.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.each = nn.ModuleList([nn.Linear(number, width) for number in channels])
        self.last = nn.Linear(width * len(channels), 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Predict the loss of each sample from the outputs of its taps: float32 (n,)."""
        pooled = [out.flatten(2).mean(2) if out.ndim > 2 else out for out in maps]
        hidden = [torch.relu(layer(out)) for layer, out in zip(self.each, pooled, strict=True)]
        return self.last(torch.cat(hidden, 1)).flatten().float()


def pair_losses(
    predicted: Float[Tensor, " n"], losses: Float[Tensor, " n"], counts: Bool[Tensor, " n"], margin: float
) -> tuple[Float[Tensor, " pairs"], Bool[Tensor, " pairs"]]:
    """Compute max(0, −s·(l̂_i − l̂_j) + ξ) of each pair, s = 1 where l_i > l_j and else −1.

    Row i is paired with row n − 1 − i, i < n/2; the middle row of an odd number is left out.

    Args:
        predicted: the predicted losses l̂.
        losses: the losses l.
        counts: whether a row may be part of a pair.
        margin: the margin ξ.

    Returns:
        The losses of the pairs, 0 where one of the two rows does not count; and whether both do.

    >>> predicted, losses = torch.tensor([2.0, 9.0, 0.5]), torch.tensor([1.0, 5.0, 3.0])
    >>> pair_losses(predicted, losses, torch.ones(3, dtype=torch.bool), 1.0)
    (tensor([2.5000]), tensor([True]))
    """
    half = len(predicted) // 2
    ahead, both = predicted - predicted.flip(0), (counts & counts.flip(0))[:half]
    sign = torch.where(losses > losses.flip(0), 1.0, -1.0)
    return (margin - sign * ahead)[:half].clamp_min(0).where(both, 0.0), both

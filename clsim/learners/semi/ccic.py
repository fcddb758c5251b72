"""CCIC: MixMatch with replay, two triplet losses on features, and predictions by nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.learners.semi.mixing import Mixing, MixUp
from clsim.learners.semi.pseudolabels import WEAK
from clsim.learners.semi.unlabelled import Loss, SemiOptions, SemiSgd, SemiStep
from clsim.models.nets import evaluating
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Readout, Setup, Terms


@dataclass(frozen=True)
class Apart:
    """Options of the two triplet losses of CCIC.

    Attributes:
        past: α, the weight of unsupervised mining, L_UM.
        margin: The margin of both triplet losses, in features as they are.
    """

    past: float = 0.5
    margin: float = 1.0


class Contrasts(Loss):
    """The terms of CCIC; see :class:`Ccic`. Final.

    Args:
        setup: net, transform, generators.
        mixing: The terms of MixMatch.
        weak: Augmentations of unlabelled samples.
        views: Views of each unlabelled sample.
        distant: The weight α and the margin of the triplet losses.
    """

    def __init__(self, setup: Setup, mixing: Mixing, *, weak: Sequence[str], views: int, distant: Apart) -> None:
        self._setup, self._mixing, self._views, self._distant = setup, mixing, views, distant
        self._weak = setup.transform.view(weak, "learner.options.weak")

    def __call__(self, step: SemiStep) -> tuple[Terms, int]:
        """Compute MixMatch's terms; then pass the labelled samples and the first views of the others unmixed."""
        m, n, rng = len(step.labelled), len(step.unlabelled), self._setup.randomness.augment
        x = self._setup.transform.train(step.labelled.x, rng)
        views = self._weak(torch.cat([step.unlabelled.x] * self._views), rng)
        terms, passed = self._mixing.terms(step, x, views)
        known, unlabelled = self._setup.net.features(torch.cat([x, views[:n]])).float().tensor_split([m])
        terms["supervised mining"] = hardest_triplets(known, step.labelled.y, self._distant.margin)
        if step.new < m:
            terms["unsupervised mining"] = self._distant.past * apart(
                unlabelled, known[step.new :], self._distant.margin
            )
        return terms, passed + m + n


def hardest_triplets(features: Tensor, y: Tensor, margin: float) -> Tensor:
    """Return the mean over samples of max(0, m + the largest distance in its class − the smallest to another class).

    Source: Hermans, Beyer & Leibe, In Defense of the Triplet Loss for Person Re-Identification (2017), eq. 5.
    """
    distance, same = distances(features, features), y[:, None] == y
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return (margin + (distance * same).amax(1) - nearest).clamp_min(0).mean()


def apart(unlabelled: Tensor, past: Tensor, margin: float) -> Tensor:
    """Return the mean over unlabelled samples of max(0, m − the smallest distance to a sample of the past)."""
    return (margin - distances(unlabelled, past).amin(1)).clamp_min(0).mean()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances, (n, m); the gradient at 0 is 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class Ccic(Around[SemiSgd]):
    """Contrastive continual interpolation consistency. Final.

    L = L_S + λ·L_U + L_SM + α·L_UM. L_S and L_U are MixMatch's on labelled ∪ memory and the unlabelled samples
    (:func:`clsim.learners.semi.mixing.mixmatch`), guesses sharpened as probabilities and averaged over views of the
    same sample. L_SM, supervised mining: :func:`hardest_triplets` of labelled ∪ memory. L_UM, unsupervised mining: no
    unlabelled sample is of a past class, so each is to be a margin apart from what memory holds: :func:`apart`.

    Predictions: votes of the k exemplars whose features, scaled to length 1, are nearest, less 1e-5 × the squared
    distance to the nearest exemplar of the class, which breaks ties; −inf for classes that memory has none of. While an
    experience is learnt, and without a memory, they are the head's logits, which the readout ``linear`` has always.

    Where unlabelled samples come from the whole stream, some are of past classes: switch L_UM off with ``past = 0``.

    The authors' code, which the default weights are from, differs: both mining losses take squared distances, and the
    ⌊batch / 10⌋ hardest samples of each anchor; exemplars are anchors of L_UM, too; from the second experience on the
    samples of L_SM are mixed, but for the last tenth of each, which is without L_UM; L_S has the labels from before the
    mixing, and L_U logits in place of probabilities, averaged over the views of different samples.

    Args:
        setup: net, memory, transform, generators.
        weak: Augmentations of unlabelled samples, by names as in ``data.augment``.
        mix: see :class:`~clsim.learners.semi.mixing.MixUp`.
        weight: The weight λ of L_U.
        distant: see :class:`Apart`.
        neighbours: The number k of exemplars that vote.
        labelled: Labelled samples of the experience in each step; 0 means as many as unlabelled ones, at most all.
        freeze_norm: Whether the statistics of batch norm stay as the first experience left them.

    Cost: one more pass of labelled samples and one view of the others in each step; one of the memory after each
        experience.

    Source: Boschini et al., Continual semi-supervised learning through contrastive interpolation consistency (Pattern
    Recognition Letters 2022).
    """

    takes_late_labels: ClassVar[bool] = True

    def __init__(
        self,
        setup: Setup,
        *,
        weak: Sequence[str] = WEAK,
        mix: MixUp = MixUp(views=3),
        weight: float = 0.5,
        distant: Apart = Apart(),
        neighbours: int = 3,
        labelled: int = 0,
        freeze_norm: bool = False,
    ) -> None:
        if neighbours < 1:
            raise InputError(f"learner.options.neighbours: found {neighbours}, allowed: 1 or more")
        mixing = Mixing(setup, mix, weak=weak, weight=weight, growth=0.0)
        loss = Contrasts(setup, mixing, weak=weak, views=mix.views, distant=distant)
        options = SemiOptions(labelled, 0.0, freeze_norm)
        super().__init__(setup, SemiSgd(setup, loss, name="ccic", options=options))
        self._neighbours = neighbours
        self._learning = False
        self._support: tuple[Tensor, Tensor] | None = None

    def begin(self, experience: Experience) -> None:
        """Predict by the head, and forget the neighbours, while the features change."""
        self._learning, self._support = True, None
        super().begin(experience)

    def finish(self, experience: Experience) -> list[Terms]:
        """Predict by neighbours from here on."""
        self._learning = False
        return super().finish(experience)

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return scores of raw samples by the exemplars near them."""
        exemplars = self.setup.memory.exemplars
        if self._learning or exemplars is None:
            return super().predict(x, task)
        if self._support is None:
            known = exemplars[exemplars.y >= 0]
            self._support = self._embedded(known.x), known.y
        support, y = self._support
        visible = self.setup.net.visible
        near = torch.cdist(self._embedded(x), support).square()
        # a task's neighbours are among its own classes
        near = near.masked_fill(~visible[task][:, y], torch.inf)
        k = min(self._neighbours, len(y))
        nearest, rows = near.topk(k, largest=False)
        votes = near.new_zeros(len(x), visible.shape[1]).scatter_add_(1, y[rows], nearest.isfinite().float())
        closest = torch.full_like(votes, torch.inf).scatter_reduce_(1, y.expand(len(x), -1), near, "amin")
        return votes - 1e-5 * closest

    def readouts(self) -> dict[str, Readout]:
        """Return the readout by the head."""
        return {"linear": self.inner.predict}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._support = None

    def _embedded(self, x: Tensor) -> Tensor:
        """Return features of raw samples, scaled to length 1, in eval mode and without augmentation."""
        setup = self.setup
        setup.cost.forward_passes += len(x)
        with evaluating(setup.net), torch.no_grad(), setup.precision():
            parts = [
                setup.net.features(setup.transform.plain(some)).float()
                for some in x.split(setup.spec.evaluation.batch_size)
            ]
        return F.normalize(torch.cat(parts))

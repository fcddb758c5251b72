"""DALBT: the learner's net is trained jointly with Barlow Twins' loss of samples without a label."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.errors import InputError, at_least
from clsim.models.nets import Net
from clsim.models.self_supervised import barlow_loss
from clsim.pool.pool import Pool, Selection
from clsim.randomness import own_draws
from clsim.spec import abilities, registry


class Dalbt(Acquisition):
    """Query by any score, while Barlow Twins' loss of unlabelled images is trained with the learner's. Final.

    Each step draws images without a label, two augmented views of each. The views go through the learner's net, and its
    features through a projector that is trained beside it: z₁, z₂. The learner's loss grows by ``strength`` times
    Σ_i (1 − C_ii)² + λ Σ_i Σ_{j≠i} C_ij², over the width of z, C the correlations of z₁ with z₂ over the batch.

    The choice is an interpretation: neither the paper's score nor its table nor any code of it could be found. What is
    chosen is what the selector ``score`` chooses by the features and predictions of the jointly trained net. The
    paper's λ is not known either; Barlow Twins' own is taken. Augmentations, projector and the weight of the loss are
    ours. So is the division by the width, by which a wider projector weighs no more.

    Labelled images have no views. Where batch norm is in the net, its statistics are those of the labelled batch and of
    the views, in turn. With a strength of 0 no views are drawn: the run is that of ``score`` alone.

    Args:
        net: the net that is trained, to be read for shapes and device.
        rng: generator of the projector's first weights.
        score: a selector of labels without a state, by name (default ``entropy``).
        strength: weight of Barlow Twins' loss beside the learner's (default 1).
        redundancy: the weight λ of the squares beside the diagonal (default .005).
        width: number of units of the projector's hidden layer and of its output (default 128).
        batch_size: images without a label in a step, each in two views (default 128).
        augment: names of the augmentations of a view, in order (default large-crop and jitter).

    Needs: a learner that takes its terms; images; what ``score`` needs.
    Cost: in training, 2 · batch_size more images through the net each step; that of ``score``.
    Source: Mandivarapu, Camp & Estrada, Deep Active Learning Using Barlow Twins (2022), of which the abstract alone was
    read; Zbontar et al., Barlow Twins (ICML 2021), eqs. 1 and 2.

    Raises:
        InputError: if samples are vectors, ``score`` cannot choose labels without a state, or an option is out of its
            range.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        score: str = "entropy",
        strength: float = 1.0,
        redundancy: float = 0.005,
        width: int = 128,
        batch_size: int = 128,
        augment: Sequence[str] = ("large-crop", "jitter"),
    ) -> None:
        at_least(0, "dalbt: ", strength=strength, redundancy=redundancy)
        at_least(1, "dalbt: ", width=width)
        at_least(2, "dalbt: ", batch_size=batch_size)
        if len(net.shape) != 3:
            found = " × ".join(map(str, net.shape)) or "unknown"
            raise InputError(f"dalbt: data.dataset: found samples of shape {found}, allowed: images, to be augmented")
        if not augment:
            raise InputError("dalbt: augment: found none, by which both views are one image, allowed: one name or more")
        select = registry.component("labellers", score)
        if isinstance(select, type) and issubclass(select, Acquisition):
            raise InputError(f"dalbt: score: found {score!r}, which keeps a state; allowed: a selector")
        abilities.check_acquires(score, "dalbt: score")
        self._select, self._strength, self._redundancy = select, strength, redundancy
        self.views, self.view_batch, self.augment = (2 if strength else 0), batch_size, tuple(augment)
        with own_draws(int(torch.randint(2**62, (), generator=rng))):
            self.module = nn.Sequential(
                nn.Linear(net.head.in_features, width, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(inplace=True),
                nn.Linear(width, width, bias=False),
            )
        self.module.to(net.head.weight.device)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return the term ``barlow``; none where fewer than two images have no label."""
        if len(step.views) < 2 or len(step.views[0]) < 2:
            return {}
        first, second = (self.module(step.net.features(view)) for view in step.views)
        return {"barlow": self._strength / first.shape[1] * barlow_loss(first, second, self._redundancy)}

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool`` as ``score`` does."""
        return self._select(pool, budget, rng=rng)

"""Reading classes off features: a soft vote of the labelled samples that a sample lies near."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import evaluating
from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Readout, Setup

NEAREST = "nearest-neighbour"
"""The name of this readout in a record."""

Embed = Callable[[Tensor], Tensor]
"""Raw samples → features (n, width), in eval mode and without augmentation."""


def by_neighbours(setup: Setup, embed: Embed, support: Exemplars) -> Readout:
    """Scores are the posterior p(q) = softmax(q · Sᵀ / 0.1) · Y over the classes of the support; see
    :func:`clsim.training.neighbours.posterior`. −inf for other classes and for those that a task does not have.

    Args:
        setup: for the cost, and for what a task may use.
        support: labelled samples.
    """
    size, visible = setup.spec.evaluation.batch_size, setup.net.visible
    setup.cost.forward_passes += len(support)
    known, classes = torch.cat([embed(part) for part in support.x.split(size)]), support.y.unique()
    labels = smoothed(support.y, classes)

    def nearest(x: Tensor, task: Tensor) -> Tensor:
        near = posterior(embed(x), known, labels)
        scores = near.new_full((len(x), visible.shape[1]), -torch.inf).index_copy_(1, classes, near)
        return scores.masked_fill(~visible[task], -torch.inf)

    return nearest


def features_of(setup: Setup) -> Embed:
    """The features of the run's net, as selectors see them."""

    def embed(x: Tensor) -> Tensor:
        with evaluating(setup.net), torch.no_grad(), setup.precision():
            return setup.net.features(setup.transform.plain(x)).float()

    return embed


def smoothed(y: Tensor, classes: Tensor, smoothing: float = 0.1) -> Tensor:
    """float32 (m, k): one-hot labels among ``classes``, with s/k everywhere and 1 − s more at the label.

    Args:
        y: int64 (m,), each among ``classes``.
        classes: int64 (k,), sorted.
    """
    hot = (y[:, None] == classes).float()
    return hot * (1 - smoothing) + smoothing / len(classes)


def posterior(query: Tensor, support: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """p(q) = softmax(q · Sᵀ / τ) · Y, float32 (n, k): rows of sum 1, no entry below the smallest of Y.

    Args:
        query: (n, d).
        support: (m, d).
        labels: Y, (m, k), rows of sum 1.
    """
    near = F.normalize(query.float()) @ F.normalize(support.float()).T
    return (near / temperature).softmax(1) @ labels

"""Projection heads, frozen batch norm, and a check for nets that take images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from clsim.data.views import small_side
from clsim.errors import InputError, raised
from clsim.models.nets import evaluating
from clsim.pool.exemplars import Exemplars
from clsim.randomness import derive, own_draws
from clsim.training.contract import Setup


def freeze_norm(module: nn.Module) -> None:
    """Put batch norm in eval mode: its running statistics are used and not updated; scale and shift still learn."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.eval()


def projection(setup: Setup, widths: Sequence[int]) -> nn.Module:
    """Build linear layers with batch norm and ReLU between them, drawn from a seed of their own."""
    sizes = [setup.net.head.in_features, *widths]
    with own_draws(derive(setup.spec.seed, "projection")):
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1])).to(setup.device)


def refuse_one_size(setup: Setup, samples: Exemplars) -> None:
    """Refuse a net that does not take images of other sizes, which small views need."""
    x = samples.x[:1]
    height, width = (small_side(side) for side in x.shape[2:]) if x.ndim == 4 else (0, 0)
    try:
        with evaluating(setup.net), torch.no_grad():
            setup.net.head(setup.net.features(setup.transform.plain(x[..., :height, :width])))
    except Exception as error:  # the net may be a user's own
        raise InputError(
            f"learner.options.small_views: with images of {height} × {width} the model {raised(error)}; allowed: 0, or "
            "a model that takes images of any size (slim-resnet18, resnet18)"
        ) from None

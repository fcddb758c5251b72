"""The VGG networks of the survey of De Lange et al. (TPAMI 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from clsim.models.nets import Shape, channels_of, dropout_layers


def vgg_small(shape: Shape, *, dropout: float = 0.0) -> nn.Module:
    """VGG with 6 convolutions of 64 to 128 channels (334,016 parameters, 3 channels in) and 2 layers of 128 units.

    Args:
        dropout: share of units left out after both layers of units (default 0; .5 in the survey).

    Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
    """
    return _vgg(channels_of(shape, "vgg-small"), shape, ((64,), (64,), (64, 64), (128, 128)), 128, dropout)


def vgg_base(shape: Shape, *, dropout: float = 0.0) -> nn.Module:
    """VGG with 6 convolutions of 64 to 256 channels (1,145,408 parameters, 3 channels in) and 2 layers of 512 units.

    Args:
        dropout: share of units left out after both layers of units (default 0; .5 in the survey).

    Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
    """
    return _vgg(channels_of(shape, "vgg-base"), shape, ((64,), (64,), (128, 128), (256, 256)), 512, dropout)


def vgg_wide(shape: Shape, *, dropout: float = 0.0) -> nn.Module:
    """VGG with 6 convolutions of 64 to 512 channels (4,500,864 parameters, 3 channels in) and 2 layers of 512 units.

    Args:
        dropout: share of units left out after both layers of units (default 0; .5 in the survey).

    Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
    """
    return _vgg(channels_of(shape, "vgg-wide"), shape, ((64,), (128,), (256, 256), (512, 512)), 512, dropout)


def vgg_deep(shape: Shape, *, dropout: float = 0.0) -> nn.Module:
    """VGG with 19 convolutions of 64 to 256 channels (4,280,704 parameters, 3 channels in) and 2 layers of 512 units.

    Args:
        dropout: share of units left out after both layers of units (default 0; .5 in the survey).

    Source: De Lange et al., A continual learning survey: Defying forgetting in classification tasks (TPAMI 2021)
    """
    return _vgg(channels_of(shape, "vgg-deep"), shape, ((64,), (64,) * 6, (128,) * 6, (256,) * 6), 512, dropout)


def _vgg(channels: int, shape: Shape, stages: Sequence[Sequence[int]], hidden: int, dropout: float) -> nn.Module:
    """Stages of 3 × 3 convolutions with ReLU, each followed by 2 × 2 max pooling; no batch norm.

    64 pixels end as 4, 32 as 2, 28 as 1. A smaller image is pooled until it has one pixel, and no further.
    """
    layers: list[nn.Module] = []
    side, before = min(shape[1:]), channels
    for stage in stages:
        for width in stage:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        if side > 1:
            layers.append(nn.MaxPool2d(2))
            side //= 2
    layers.append(nn.Flatten())
    before *= math.prod(size // 2 ** sum(isinstance(m, nn.MaxPool2d) for m in layers) for size in shape[1:])
    for _ in range(2):
        layers += [nn.Linear(before, hidden), nn.ReLU(inplace=True), *dropout_layers(dropout)]
        before = hidden
    for layer in layers:  # with torch's default weights, the signal would fade in such a deep net
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)

"""Residual networks for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clsim.models.nets import Shape, channels_of
from clsim.spec.kinds import Width


def slim_resnet18(shape: Shape, *, width: Width = 20) -> nn.Module:
    """ResNet-18 with a 3 × 3 stem, no max-pool, and 20 instead of 64 filters: 160 features.

    Args:
        width: number of filters of the stem; the last of the four stages has 8 times as many, which are the features.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017); the usual net of online replay.
    """
    return _resnet18(channels_of(shape, "slim-resnet18"), width)


def resnet18(shape: Shape, *, width: Width = 64) -> nn.Module:
    """ResNet-18 for small images: 3 × 3 stem, no max-pool, 512 features.

    Args:
        width: number of filters of the stem; the last of the four stages has 8 times as many, which are the features.

    Source: He et al., Deep Residual Learning (CVPR 2016), with the stem that small images need.
    """
    return _resnet18(channels_of(shape, "resnet18"), width)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu_(self.norm1(self.conv1(x)))
        return torch.relu_(self.norm2(self.conv2(out)).add_(self.shortcut(x)))


def _resnet18(channels: int, width: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    before = width
    for stage, stride in enumerate((1, 2, 2, 2)):
        after = width * 2**stage
        layers += [_Block(before, after, stride), _Block(after, after, 1)]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

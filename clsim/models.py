"""Networks: a body that makes features, and one linear head over all classes.

A model is a function of the input's shape, ``(c, h, w)`` or ``(d,)``, that returns a module which maps
(n, \\*shape) to (n, width). Its keyword arguments are the keys of ``[model.options]``. A user's own is named
``module:attr`` or ``./file.py:attr``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from clsim.errors import InputError, raised

Shape = tuple[int, ...]


class Net(nn.Module):
    """Body and head. Final.

    Args:
        body: maps (n, \\*shape) to features (n, width).
        width: of the features.
        visible: bool (tasks, classes): which logits a task may use. Where the task is unknown, all are true.
    """

    visible: Tensor

    def __init__(self, body: nn.Module, width: int, visible: Tensor) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, visible.shape[1])
        self.register_buffer("visible", visible, persistent=False)
        self.masked = not bool(visible.all())

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features (n, width)."""
        return self.body(x)

    def logits(self, features: Tensor, task: Tensor) -> Tensor:
        """float32 (n, classes) from features; −inf where the task of the sample does not have the class."""
        logits = self.head(features).float()
        return logits.masked_fill(~self.visible[task], -math.inf) if self.masked else logits

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        """Logits of normalised inputs (n, \\*shape), each under its own task (n,)."""
        return self.logits(self.body(x), task)


def build(model: Callable[..., nn.Module], shape: Shape, visible: Tensor, seed: int, device: torch.device) -> Net:
    """A net with weights drawn from ``seed`` alone; the global generator stays as it was.

    Args:
        model: a function of the shape, its options already bound.
        visible: see :class:`Net`.

    Raises:
        InputError: if the body does not map a batch to (n, width).
    """
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global generator
        torch.manual_seed(seed)
        try:
            body = model(shape)
            with evaluating(body), torch.no_grad():
                out = body(torch.zeros(2, *shape))
        except InputError:
            raise
        except Exception as error:  # it may be a user's own
            raise InputError(f"model: with inputs of shape {shape} it {raised(error)}") from error
        if out.ndim != 2 or len(out) != 2:
            raise InputError(f"model: features of 2 samples have shape {tuple(out.shape)}, allowed: (2, width)")
        return Net(body, out.shape[1], visible.cpu()).to(device)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule is back in the mode that it had."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


def linear(shape: Shape) -> nn.Module:
    """No body: the head sees the flattened input. For embeddings of a frozen backbone."""
    return nn.Flatten()


def mlp(shape: Shape, *, hidden: Sequence[int] = (400, 400)) -> nn.Module:
    """Fully connected layers with ReLU.

    Args:
        hidden: width of each layer.
    """
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def convnet3(shape: Shape, *, width: int = 128, norm: Literal["instance", "batch"] = "instance") -> nn.Module:
    """Three blocks of 3 × 3 convolution, instance norm (or batch norm), ReLU, 2 × 2 average pooling.

    Source: the ConvNet of Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching (ICLR 2021).
    """
    channels = _channels(shape, "convnet3")
    blocks: list[nn.Module] = []
    for before in (channels, width, width):
        blocks += [
            nn.Conv2d(before, width, 3, padding=1),
            # a group a channel is instance norm, with affine parameters
            nn.GroupNorm(width, width) if norm == "instance" else nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*blocks, nn.Flatten())


def slim_resnet18(shape: Shape, *, width: int = 20) -> nn.Module:
    """ResNet-18 with a 3 × 3 stem, no max-pool, and 20 instead of 64 filters: 160 features.

    Source: Lopez-Paz & Ranzato, Gradient Episodic Memory (NeurIPS 2017); the usual net of online replay.
    """
    return _resnet18(_channels(shape, "slim-resnet18"), width)


def resnet18(shape: Shape, *, width: int = 64) -> nn.Module:
    """ResNet-18 for small images: 3 × 3 stem, no max-pool, 512 features.

    Source: He et al., Deep Residual Learning (CVPR 2016), with the stem that small images need.
    """
    return _resnet18(_channels(shape, "resnet18"), width)


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


def _channels(shape: Shape, name: str) -> int:
    if len(shape) != 3:
        raise InputError(f"model.name: {name} needs images, found vectors of width {shape[0]}; allowed: linear, mlp")
    return shape[0]

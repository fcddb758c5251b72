"""Nets of one architecture as a stack, whose bodies pass their batches forward and backward in one pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from clsim.models.nets import InstanceNorm, Net

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DRAWN = "drawn"
"""Name of the buffer of a dropout layer in the stack."""


@dataclass(frozen=True)
class Passing:
    """A batch that passes through the body of a net in training.

    Attributes:
        net: the net.
        x: float32 (n, \\*shape), the inputs.
        drawn: what each dropout layer multiplies its input by, as :func:`draw` draws it.
    """

    net: Net
    x: Tensor
    drawn: dict[str, Tensor]


class Stack:
    """The bodies of several nets as one: each weight and each statistic is a tensor with a row for each net. Final.

    Each pass copies them from the nets, and gives gradients and the statistics of batch norm back: nets, optimizers and
    checkpoints are those of nets that pass alone.

    Args:
        net: a net of the architecture.
        rows: number of rows.

    Cost: beside the nets, ``rows`` times the weights and their gradients.
    """

    def __init__(self, net: Net, rows: int) -> None:
        self._body = copy.deepcopy(net.body)
        _replace_norms(self._body)
        if net.shapes:  # else nobody knows what a dropout layer would draw
            _make_passable(self._body)
        self._call: Any = torch.vmap(self._passed)
        self._parts: WeakKeyDictionary[Net, tuple[list[nn.Parameter], list[Tensor]]] = WeakKeyDictionary()
        weights, buffers = self._of(net)
        self._weights = [_stacked([w.detach()] * rows).requires_grad_(w.requires_grad) for w in weights]
        self._buffers = [_stacked([b] * rows) for b in buffers]
        names = [name for name, _ in (*net.body.named_parameters(), *net.body.named_buffers())]
        self._named = dict(zip(names, (*self._weights, *self._buffers), strict=True))
        self._rows = [[one.detach()[row] for one in self._named.values()] for row in range(rows)]

    def features(self, passes: Sequence[Passing | None]) -> list[Tensor]:
        """Pass batches of one shape forward, and return the features (n, width) of each row.

        Args:
            passes: what passes in each row. Where nothing does, the first of the others stands in, and the features
                mean nothing: the kernels are always those of a whole stack, so that the numbers of a row do not depend
                on what passes in the others.
        """
        there = [one for one in passes if one is not None]
        filled = [one or there[0] for one in passes]
        if self._body.training != there[0].net.body.training:
            self._body.train(there[0].net.body.training)
        with torch.no_grad():
            sources = [part for one in filled for parts in self._of(one.net) for part in parts]
            _copy(sources, [part for row in self._rows for part in row])
        drawn = {name: torch.stack([one.drawn[name] for one in filled]) for name in there[0].drawn}
        features = self._call(self._named | drawn, _stacked([one.x for one in filled]))
        if self._buffers:
            with torch.no_grad():
                known = len(self._weights)
                own = [part for one in there for part in self._of(one.net)[1]]
                moved = [row[known:] for row, one in zip(self._rows, passes, strict=True) if one is not None]
                _copy([part for parts in moved for part in parts], own)
        return list(features)

    def give_gradients(self, passes: Sequence[Passing | None]) -> None:
        """Add the gradients of a backward pass to those of the nets' own weights."""
        for place, weight in enumerate(self._weights):
            if weight.grad is None:
                continue
            for one, gradient in zip(passes, weight.grad.unbind(0), strict=True):
                if one is not None:
                    own = self._of(one.net)[0][place]
                    own.grad = gradient if own.grad is None else own.grad + gradient
            weight.grad = None

    def _passed(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self._body, tensors, (x,))

    def _of(self, net: Net) -> tuple[list[nn.Parameter], list[Tensor]]:
        """List the weights and the buffers of a net's body."""
        if net not in self._parts:
            self._parts[net] = list(net.body.parameters()), list(net.body.buffers())
        return self._parts[net]


def draw(net: Net, n: int) -> dict[str, Tensor]:
    """Draw what the dropout layers of a net multiply their inputs by, for ``n`` samples in training.

    The draws are those of the layers themselves: of torch's own generator, in the order of the layers. A dropout layer
    that is no layer of the body, but a part of one, is not looked at.
    """
    found = {}
    for i, shape in enumerate(net.shapes[:-1]):
        layer = net.body[i]  # type: ignore[index]
        if isinstance(layer, nn.Dropout) and layer.training and layer.p:
            found[f"{i}.{_DRAWN}"] = F.dropout(torch.ones(n, *shape, device=net.head.weight.device), layer.p)
    return found


class _Drawn(nn.Module):
    """A dropout layer whose draws are given to it."""

    drawn: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(_DRAWN, torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.drawn if self.training else x


class _Mean(nn.Module):
    """The mean over all pixels, for which a stack would pass ``nn.AdaptiveAvgPool2d(1)`` row by row."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class _ChannelNorm(nn.Module):
    """The arithmetic of :class:`clsim.models.nets.InstanceNorm`, wherever its input lies in memory."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self._eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        spread, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        scale = self.weight[:, None, None] * torch.rsqrt(spread + self._eps)
        return (x - mean) * scale + self.bias[:, None, None]


class _BatchNorm(nn.Module):
    """A batch norm by torch's own kernel, since a GPU's cuDNN asks how its input lies in memory."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, momentum: float) -> None:
        super().__init__()
        self.weight, self.bias, self._eps, self._momentum = norm.weight, norm.bias, norm.eps, momentum
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var, self.training, self._momentum, self._eps
        return torch.native_batch_norm(x, self.weight, self.bias, *statistics)[0]


def _replace_norms(body: nn.Module) -> None:
    """Replace each batch norm that has weights and running statistics by one that a stack can pass on any device."""
    for within in list(body.modules()):
        for name, layer in within.named_children():
            # one derived from them has its own arithmetic
            if not isinstance(layer, _NORMS) or type(layer) not in _NORMS:
                continue
            if layer.affine and layer.track_running_stats and layer.momentum is not None:
                within.add_module(name, _BatchNorm(layer, layer.momentum))


def _make_passable(body: nn.Module) -> None:
    """Replace layers of a sequence that a stack cannot pass as they are by others of the same numbers."""
    if not isinstance(body, nn.Sequential):
        return
    for i, layer in enumerate(body):
        if isinstance(layer, nn.Dropout):
            body[i] = _Drawn()
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
            body[i] = _Mean()
        elif isinstance(layer, InstanceNorm):  # asks how its input lies in memory, which a stack cannot say
            body[i] = _ChannelNorm(layer)


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    """Copy tensors at once: a GPU is asked a few times, and not once for each."""
    if sources:
        torch._foreach_copy_(targets, sources)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape; images and convolutions that are channels-last stay so in each row."""
    if parts[0].ndim == 4 and parts[0].is_contiguous(memory_format=torch.channels_last):
        return torch.stack([part.permute(0, 2, 3, 1) for part in parts]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(parts))

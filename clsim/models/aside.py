"""Gradients of a convolution's weights, computed on another core while the backward pass goes on.

They are more than a quarter of a step's arithmetic, and nothing but the optimizer waits for them. The kernels and their
threads are those of the plain backward pass, so that each gradient is equal to the last bit.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of the input, the weight and the bias."""


class Aside(TorchFunctionMode):
    """The convolutions of one forward pass, whose weights get their gradients from :meth:`join`. Final.

    It is for float32 and autocast on the CPU, and for weights that one pass uses once: the sum of several gradients
    would depend on their order. A convolution whose input needs no gradient stays as it is.

    Args:
        thread: computes the gradients.
    """

    def __init__(self, thread: Executor) -> None:
        super().__init__()
        self._thread = thread
        self._used: set[int] = set()
        self._coming: list[tuple[tuple[Tensor, Tensor | None], Future[Gradients]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take over the convolutions that ``torch.nn.Conv2d`` calls; call everything else as it is."""
        if func is not torch.conv2d or kwargs or len(args) != 7 or not self._takes(*args[:5]):
            return func(*args, **(kwargs or {}))
        x, weight, bias, *shape = args
        self._used.add(id(weight))
        kind = _kind()  # what autocast would do, so that it finds nothing to do
        fixed = None if bias is None else bias.detach().to(kind)
        return _Convolved.apply(x.to(kind), weight.detach().to(kind), fixed, shape, (weight, bias), self)

    def _takes(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> bool:
        own = [weight] if bias is None else [weight, bias]
        learnt = all(one.is_leaf and one.requires_grad and not one._backward_hooks for one in own)
        plain = weight.dtype == torch.float32 and x.dtype in (torch.float32, _kind()) and x.device.type == "cpu"
        usual = x.ndim == 4 and not isinstance(padding, str)
        once = x.requires_grad and torch.is_grad_enabled() and id(weight) not in self._used
        return learnt and plain and usual and once

    def later(self, of: tuple[Tensor, Tensor | None], slope: Tensor, x: Tensor, weight: Tensor, shape: Any) -> None:
        """Begin to compute the gradients of a weight and a bias; the arguments are those of :func:`_gradients`."""
        bias, mask = of[1], [False, True, of[1] is not None]
        self._coming.append((of, self._thread.submit(_gradients, slope, x, weight, bias, shape, mask)))

    def join(self) -> None:
        """Wait for the gradients, and add them to ``grad``, as the end of a backward pass does."""
        for of, future in self._coming:
            for parameter, gradient in zip(of, future.result()[1:], strict=True):
                if parameter is None or gradient is None:
                    continue
                gradient = gradient.to(parameter.dtype)
                if parameter.grad is not None:
                    parameter.grad += gradient
                elif gradient.stride() == parameter.stride():
                    parameter.grad = gradient
                else:  # a gradient lies in memory as its parameter does
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
        self._coming.clear()


def _kind() -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


class _Convolved(torch.autograd.Function):
    """A convolution whose backward pass returns the gradient of its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Any, of: Any, aside: Aside) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = (shape, of, aside)
        return torch.conv2d(x, weight, bias, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        shape, of, aside = ctx.rest
        aside.later(of, slope, x, weight, shape)
        return _gradients(slope, x, weight, None, shape, [True, False, False])[0], None, None, None, None, None


def _gradients(
    slope: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Any, mask: list[bool]
) -> Gradients:
    """Compute those gradients of a convolution that ``mask`` names: of input, weight, bias.

    Args:
        slope: the gradient of the output.
        x, weight, bias: what was convolved.
        shape: stride, padding, dilation and groups.
    """
    stride, padding, dilation, groups = shape
    sizes = None if bias is None else [len(bias)]
    with torch.no_grad():
        return torch.ops.aten.convolution_backward(
            slope, x, weight, sizes, stride, padding, dilation, False, [0, 0], groups, mask
        )

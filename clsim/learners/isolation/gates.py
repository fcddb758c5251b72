"""Gates on the hidden units of a net: which nets can have them, and which weights they hold."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clsim.errors import InputError
from clsim.models.nets import InstanceNorm

_LAYERS = (nn.Linear, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, InstanceNorm)
_WITHOUT_WEIGHTS = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity),
)
_ALLOWED = (
    "mlp, convnet3, pooled-convnet3, vgg-small, vgg-base, vgg-wide, vgg-deep, or a torch.nn.Sequential of fully "
    "connected layers, convolutions, activations, pooling, dropout and norms of single units"
)


class Gated:
    """A body that is a sequence of layers, with a gate on each hidden unit (in a convolution: channel). Final.

    h_l = a_l ⊙ f_l(h_{l−1}), where f_l is a fully connected layer or a convolution, with the norms, activations,
    pooling and dropout that follow it. The body's own modules are called, in order; the body itself stays as it is.

    Args:
        body: The body, an ``nn.Sequential``, nested or not.
        model: The name of the model, for the error message.

    Attributes:
        units: The number of units in each layer.

    Raises:
        InputError: if the body is anything else, such as a net with skip connections.

    >>> gated = Gated(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)), "mine")
    >>> gated.units, gated.features(torch.ones(5, 4), torch.zeros(5)).abs().max().detach()
    ([2, 3], tensor(0.))
    """

    def __init__(self, body: nn.Module, model: str) -> None:
        self._modules = list(_walk(body, model))
        layers = [module for module in self._modules if isinstance(module, _LAYERS)]
        weighty = [module for module in self._modules if isinstance(module, (*_LAYERS, *_NORMS))]
        if not layers:
            raise _refused(model, "no hidden layer")
        if not isinstance(weighty[0], _LAYERS):
            raise _refused(model, f"{type(weighty[0]).__name__} before the first layer")
        if len({id(module) for module in weighty}) < len(weighty):
            raise _refused(model, "a layer that occurs twice")
        self.units = [layer.weight.shape[0] for layer in layers]
        self._names = {id(parameter): name for name, parameter in body.named_parameters()}

    def features(self, x: Tensor, gates: Tensor) -> Tensor:
        """Compute features (n, width).

        Args:
            x: The inputs, (n, \\*shape).
            gates: The gates of all layers, one after the other, (Σ units,); or those of each sample, (n, Σ units).
        """
        parts = iter(gates.split(self.units, -1))
        gate: Tensor | None = None
        for module in self._modules:
            if isinstance(module, _LAYERS):
                x = x if gate is None else _times(x, gate)
                gate = next(parts)
            x = module(x)
        return x if gate is None else _times(x, gate)

    def shares(self, used: Tensor) -> dict[str, Tensor]:
        """Return the share of each weight's step, 1 − min(a[out], a[in]); for biases and norms it is 1 − a[out].

        The inputs of the first layer have no gates, so that the share of its weights is 1 − a[out].

        Args:
            used: The gates a of earlier tasks, (Σ units,), from 0 to 1.

        Returns:
            The shares by the parameter's name in the body, in shapes that broadcast against the parameter.
        """
        shares, into = {}, None
        parts = iter(used.split(self.units))
        for module in self._modules:
            if isinstance(module, _LAYERS):
                out = next(parts)
                held = out.view(-1, *[1] * (module.weight.ndim - 1))
                if into is not None:
                    into = into.repeat_interleave(module.weight.shape[1] // len(into))  # pixels, where flattened
                    held = torch.minimum(held, into.view(1, -1, *[1] * (module.weight.ndim - 2)))
                shares[self._names[id(module.weight)]] = 1 - held
                if module.bias is not None:
                    shares[self._names[id(module.bias)]] = 1 - out
                into = out
            elif isinstance(module, _NORMS):
                for parameter in module.parameters():
                    shares[self._names[id(parameter)]] = 1 - out.repeat_interleave(len(parameter) // len(out))
        return shares


def _times(x: Tensor, gate: Tensor) -> Tensor:
    """Multiply all pixels of each unit by its gate; pixels have dimensions of their own, or are flattened by unit."""
    gate = gate.repeat_interleave(x.shape[1] // gate.shape[-1], -1)
    return x * gate.view(*gate.shape, *[1] * (x.ndim - 2))


def _walk(body: nn.Module, model: str) -> Iterator[nn.Module]:
    """Yield the leaves in order; types must be exact, since a derived class may do anything in its forward pass."""
    if type(body) is nn.Sequential:
        for module in body:
            yield from _walk(module, model)
    elif isinstance(body, nn.Conv2d) and body.groups > 1:
        raise _refused(model, f"Conv2d of {body.groups} groups")
    elif isinstance(body, nn.GroupNorm) and body.num_groups < body.num_channels:
        raise _refused(model, f"GroupNorm of {body.num_groups} groups over {body.num_channels} channels")
    elif type(body) in (*_LAYERS, *_NORMS, *_WITHOUT_WEIGHTS):
        yield body
    else:
        raise _refused(model, type(body).__name__)


def _refused(model: str, found: str) -> InputError:
    return InputError(f"model.name: found {model!r} with {found}, which has no gates; allowed: {_ALLOWED}")

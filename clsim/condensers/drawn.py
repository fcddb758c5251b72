"""Random nets that share one module: the weights are drawn anew, the module is not built again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from clsim.models import nets
from clsim.models.nets import Net
from clsim.pool.pool import Pool
from clsim.randomness import own_draws
from clsim.spec import registry

_LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def builder(pool: Pool, model: str) -> Callable[[int], Net]:
    """Return a function that builds nets of a model from a seed.

    They have the classes, the device and the memory format of the run's net.

    Args:
        model: a name of ``clsim list models``; empty: the run's model. Vectors always get the run's model.
    """
    if not model or pool.data.x.ndim != 4 or not len(pool):
        return pool.fresh
    body, theirs, like = registry.component("models", model), pool.fresh(0), pool.prepare(pool.data.x[:1])
    channels_last = like.is_contiguous(memory_format=torch.channels_last)

    def build(seed: int) -> Net:
        net = nets.build(body, tuple(like.shape[1:]), theirs.visible, seed, like.device)
        return net.to(memory_format=torch.channels_last) if channels_last else net  # type: ignore[call-overload]

    return build


class Fresh:
    """Draws random nets of one architecture: the same module each time, its weights drawn anew. Final.

    The weights of ``Fresh(build)(seed)`` are those of ``build(seed)``, bit for bit. An architecture with an
    initialisation of its own may get other weights when its layers are drawn anew; then each net is built.

    Args:
        build: makes a net with weights drawn from a seed.
    """

    def __init__(self, build: Callable[[int], Net]) -> None:
        self._build = build
        self._net: Net | None = None
        self._twin: Net | None = None  # on the CPU and contiguous, as nets are built

    def __call__(self, seed: int) -> Net:
        """Return the net, weights drawn from ``seed``: in train mode, all parameters trainable, without gradients."""
        if self._net is None:
            self._net = self._build(seed)
            twin = copy.deepcopy(self._net).to("cpu").to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            _redraw(twin, seed + 1)
            self._twin = twin if _same(twin, self._build(seed + 1)) else None
        if self._twin is None:
            self._net = self._build(seed)
        else:
            _redraw(self._twin, seed)
            with torch.no_grad():
                for mine, drawn in zip(self._net.state_dict().values(), self._twin.state_dict().values(), strict=True):
                    mine.copy_(drawn, non_blocking=True)
        self._net.requires_grad_(True).train()
        self._net.zero_grad(set_to_none=True)
        return self._net


def _redraw(net: Net, seed: int) -> None:
    with own_draws(seed):
        for layer in net.modules():
            if isinstance(layer, _LAYERS):
                layer.reset_parameters()


def _same(net: Net, other: Net) -> bool:
    pairs = zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b.cpu()) for a, b in pairs)

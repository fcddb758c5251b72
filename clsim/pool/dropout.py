"""Monte-Carlo dropout: nets drawn from a net."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from clsim.models.nets import Net


class Dropped:
    """Nets drawn from a net by Monte-Carlo dropout. Final.

    One draw fixes one mask for all samples, so that the passes of different samples are joint, as BatchBALD needs
    (Kirsch et al., NeurIPS 2019), and the same for any batch size. Batch norm uses its statistics and changes none. A
    net without dropout gets a dropout layer of rate ½ between its features and its head.

    Source: Gal & Ghahramani, Dropout as a Bayesian Approximation (ICML 2016).
    """

    def __init__(self, net: Net, rng: torch.Generator) -> None:
        self.net = copy.deepcopy(net).eval()
        self._rng = rng
        self._masks: list[_Mask] = []
        self._replace(self.net.body)
        self.last = None if self._masks else _Mask(0.5, 0, rng)

    def draw(self) -> None:
        """Draw another net: masks are drawn anew."""
        for mask in [*self._masks, *([self.last] if self.last else [])]:
            mask.forget()

    def _replace(self, module: torch.nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Dropout):
                mask = _Mask(child.p, 0, self._rng)
            elif isinstance(child, (torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d)):
                mask = _Mask(child.p, 1, self._rng)
            else:
                self._replace(child)
                continue
            module.register_module(name, mask)
            self._masks.append(mask)


class _Mask(torch.nn.Module):
    """A dropout layer with one mask for the whole batch, drawn when it is first used."""

    def __init__(self, p: float, whole: int, rng: torch.Generator) -> None:
        super().__init__()
        self.p, self._whole, self._rng = p, whole, rng
        self._mask: Tensor | None = None

    def forget(self) -> None:
        self._mask = None

    def forward(self, x: Tensor) -> Tensor:
        if self._mask is None:
            shape = x.shape[1:2] + (1,) * (x.ndim - 2) if self._whole else x.shape[1:]
            kept = torch.rand(shape, generator=self._rng) >= self.p
            self._mask = (kept / (1 - self.p) if self.p < 1 else kept * 0.0).to(x)
        return x * self._mask

"""Small pools, nets and exemplars that several tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int, d: int = 4, seed: int = 0) -> Tensor:
    """Rows drawn from a standard normal distribution."""
    return torch.randn(n, d, generator=generator(seed))


def vectors(x: Tensor, y: Tensor | None = None, *, first: int = 0, key: Tensor | None = None) -> Exemplars:
    """Exemplars out of float vectors; ``index`` counts from ``first``."""
    n = len(x)
    y = torch.zeros(n, dtype=torch.int64) if y is None else y
    key = torch.rand(n, generator=generator(first)) if key is None else key
    return Exemplars(x, y, torch.zeros(n, dtype=torch.int64), key, torch.arange(first, first + n))


def pool_of(x: Tensor, y: Tensor | None = None, *, key: Tensor | None = None) -> Pool:
    """A pool whose features are ``x`` itself."""
    visible = torch.ones(1, 1 if y is None else int(y.max()) + 1, dtype=torch.bool)
    net = nets.build(lambda shape: nn.Identity(), (x.shape[1],), visible, 0, torch.device("cpu"))
    return Pool(vectors(x, y, key=key), net, lambda x: x)


def mlp_with_dropout(shape: tuple[int, ...]) -> nn.Module:
    """A model that draws from torch's own generator in every step."""
    return nn.Sequential(nets.mlp(shape, hidden=(32,)), nn.Dropout(0.2))


def assert_same(a: Any, b: Any) -> None:
    """Bit for bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b or (a != a and b != b)

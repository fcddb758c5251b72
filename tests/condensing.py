"""Small pools, nets and synthetic images for the tests of condensers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clsim.condensers.synthesis import Material, Method, Synthetic
from clsim.models.nets import Net, build, convnet3
from clsim.pool.exemplars import Exemplars, groups
from clsim.pool.pool import Pool
from clsim.pool.scoring import History
from tests.helpers import generator

CLASSES, SIDE = 3, 8


@dataclass(frozen=True)
class Untrained:
    """A trainer whose nets nobody trains."""

    fresh: Callable[[int], Net]

    def train(self, samples: Exemplars) -> tuple[Net, History]:
        raise NotImplementedError


def small(shape: tuple[int, ...]) -> nn.Module:
    return convnet3(shape, width=4)


def normed(shape: tuple[int, ...]) -> nn.Module:
    """With batch norm."""
    return nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(6), nn.Flatten())


def shallow(shape: tuple[int, ...]) -> nn.Module:
    """Its gradients change slowly with its inputs: no norm over a few pixels."""
    return nn.Sequential(nn.Conv2d(shape[0], 8, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten())


def images(each: int, seed: int = 0) -> Exemplars:
    """uint8 images of noise about a pattern of their class's own, the classes in turn."""
    n = CLASSES * each
    patterns = torch.rand(CLASSES, 2, SIDE, SIDE, generator=generator(99))
    y = torch.arange(n) % CLASSES
    x = 0.6 * patterns[y] + 0.4 * torch.rand(n, 2, SIDE, SIDE, generator=generator(seed))
    zeros = torch.zeros(n, dtype=torch.int64)
    return Exemplars((255 * x).to(torch.uint8), y, zeros, torch.rand(n, generator=generator(1)), torch.arange(n))


def pool_of(
    each: int, model: Callable[..., nn.Module] = small, *, classes: int = CLASSES, dtype: torch.dtype = torch.float64
) -> Pool:
    """``each`` images a class, and nets over ``classes``; in double precision, so that a certificate can be exact."""
    visible = torch.ones(1, classes, dtype=torch.bool)

    def fresh(seed: int) -> Net:
        return build(model, (2, SIDE, SIDE), visible, seed, torch.device("cpu")).to(dtype)

    def prepare(x: Tensor) -> Tensor:
        return (x.to(dtype) / 255 - 0.5) / 0.25

    return Pool(images(each), None, prepare, trainer=Untrained(fresh))


def material_of(pool: Pool, operations: tuple[str, ...] = ()) -> Material:
    material = Material(pool, groups(pool.data), 5, operations)
    material.begin(0)
    return material


def synthetic_of(
    material: Material, each: int, *, lr: float = 0.1, factor: int = 1, noise: float = 0.0, clip: bool = False
) -> Synthetic:
    """The first ``each`` images of every class, with noise."""
    x, place = material.pool.prepare(material.pool.data.x), material.pool.data.y
    first = torch.cat([(place == c).nonzero().flatten()[:each] for c in range(CLASSES)])
    away = noise * torch.randn(x[first].shape, generator=generator(3), dtype=x.dtype)
    return Synthetic(x[first] + away, place[first], material, factor=factor, lr=lr, momentum=0.0, clip=clip)


def loss_of(made: Exemplars, method: Method, pool: Pool, *, factor: int = 1, nets: int = 10) -> float:
    """The mean loss of images as they are stored, in nets drawn from another seed."""
    material = Material(pool, groups(pool.data), 7)
    made = made[made.y.argsort(stable=True)]
    losses = []
    for i in range(nets):
        material.begin(i)
        still = Synthetic(pool.prepare(made.x), made.y, material, factor=factor, lr=0.0, momentum=0.0)
        losses.append(float(method(i, still, material)))
    return sum(losses) / nets


def with_material(pool: Pool) -> tuple[Pool, Material]:
    """A pool, and the material that a condenser makes of it."""
    return pool, material_of(pool)

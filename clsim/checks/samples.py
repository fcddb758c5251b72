"""Small nets and pools that checks run on, ordinary and difficult ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from clsim.data.augmentation import Transform
from clsim.models import nets
from clsim.pool.exemplars import Columns, Exemplars
from clsim.pool.pool import Cost, Embed, Pool
from clsim.pool.proxy import Trainer
from clsim.spec.tables import ProxySpec

SHAPE = (1, 6, 6)
CLASSES = 4
CPU = torch.device("cpu")

Model = Callable[..., torch.nn.Module]
"""A shape and the option ``dropout`` → the body of a net."""


class CheckFailed(AssertionError):
    """A component breaks its contract; the message says how."""


def pools(model: Model | None = None) -> dict[str, Pool]:
    """Make small pools, ordinary and difficult ones, by name.

    Args:
        model: model of the pools' nets (default: a perceptron).
    """
    x, y = clusters(40, seed=1)
    same = torch.zeros_like(x)
    of = partial(pool_of, model=model)
    return {
        "40 samples of 4 classes": of(x, y),
        "a single sample": of(x[:1], y[:1]),
        "a single class": of(x, torch.zeros_like(y)),
        "a class with one sample": of(x, (torch.arange(40) == 0).long()),
        "exact duplicates": of(x[:5].repeat(8, 1, 1, 1), y[:5].repeat(8)),
        "all samples alike": of(same, y),
        "features of zero": of(same, y, zero=True),
        "features far from zero": of(x, y, shift=1e3),
        "certain predictions": of(x, y, sharp=1e4),
        "certain and open predictions": of(mixed(x), y, sharp=300),
        "no labels": of(x, torch.full_like(y, -1)),
        "half of the labels": of(x, y.where(torch.arange(40) % 8 < 4, -1)),
        "a missing class": of(x, torch.where(y == 2, 3, y)),
        "the last class missing": of(x, y % (CLASSES - 1)),
        "two tasks with classes of their own": of(x, y, tasks=((0, 1), (2, 3))),
        "a task with a single class": of(x, y, tasks=((0,), (1, 2, 3))),
        "classes that are still to come": of(x, y % 2, classes=(0, 1)),
        "labelled, reference, query and private samples": of(x, y, beside=True),
    }


def label_pools() -> dict[str, Pool]:
    """Make pools of a choice of labels, by name: no candidate has a label, and unknown classes have no logits."""
    x, y = clusters(40, seed=1)
    beside, told = clusters(12, seed=14)
    of = partial(pool_of, x, y, hidden=True)

    def labelled(*classes: int) -> Exemplars:
        rows = torch.isin(told, torch.tensor(classes)).nonzero().flatten()
        return exemplars(beside[rows], told[rows], seed=15)

    tasks = ((0, 1), (2, 3))
    past = dataclasses.replace(labelled(0, 1, 2), task=torch.tensor([0, 0, 1] * 3))
    outside = dataclasses.replace(labelled(0, 1, 3), y=torch.tensor([0, 1, -1] * 3))
    return {
        "some labelled": of(labelled=labelled(0, 1, 2), classes=(0, 1, 2)),
        "some labelled, and a reference": of(
            labelled=labelled(0, 1), classes=(0, 1), reference=exemplars(*clusters(8, seed=16))
        ),
        "nothing labelled": of(classes=()),
        "nothing labelled, and a reference": of(classes=(), reference=exemplars(*clusters(8, seed=16))),
        "one class labelled": of(labelled=labelled(3), classes=(3,)),
        "one sample labelled": of(labelled=labelled(1)[:1], classes=(1,)),
        "labelled outsiders": of(labelled=outside, classes=(0, 1)),
        "outsiders alone labelled": of(labelled=outside[outside.y < 0], classes=()),
        "the second of two tasks, and a memory of the first": pool_of(
            x[y > 1], y[y > 1], hidden=True, labelled=past, classes=range(CLASSES), tasks=tasks
        ),
        "a memory of other classes alone": pool_of(
            x[y > 1], y[y > 1], hidden=True, labelled=labelled(0, 1), classes=(0, 1)
        ),
        "alike, and like what is labelled": pool_of(
            torch.zeros_like(x), y, hidden=True, labelled=exemplars(torch.zeros_like(beside), told), classes=(0, 1, 2)
        ),
    }


def clusters(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Images in four well separated clusters, in turn: uint8 (n, 1, 6, 6), and their labels."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randint(40, 216, (CLASSES, *SHAPE), generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % CLASSES
    noise = torch.randint(-25, 26, (n, *SHAPE), generator=rng)
    return (centres[y] + noise).to(torch.uint8), y


def mixed(x: Tensor) -> Tensor:
    """Every second image almost black: far from all clusters."""
    dark = torch.arange(len(x)) % 2 == 1
    return torch.where(dark.view(-1, 1, 1, 1), x // 16, x)


def exemplars(x: Tensor, y: Tensor, *, task: int = 0, seed: int = 6) -> Exemplars:
    """Samples with keys drawn from a seed."""
    n = len(y)
    keys = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    return Exemplars(x, y, torch.full((n,), task), keys, torch.arange(n))


def pool_of(
    x: Tensor,
    y: Tensor,
    *,
    zero: bool = False,
    sharp: float = 1.0,
    shift: float = 0.0,
    batch_size: int = 500,
    tasks: Sequence[Sequence[int]] = (range(CLASSES),),
    beside: bool = False,
    model: Model | None = None,
    classes: Sequence[int] = range(CLASSES),
    reference: Exemplars | None = None,
    labelled: Exemplars | None = None,
    hidden: bool = False,
    embed: Embed | None = None,
) -> Pool:
    """A pool under a small net with dropout, and with a trainer.

    Args:
        zero: whether all samples have the same features.
        sharp: factor on the weights of the head.
        shift: number added to each feature.
        tasks: the classes of each task; a sample belongs to the task of its class.
        beside: whether the pool also has labelled, reference, query, private and incoming samples.
        model: model of the nets (default: :func:`body`).
        classes: the classes known so far.
        reference: held-out samples, in place of those that ``beside`` gives.
        labelled: labelled samples, in place of those that ``beside`` gives.
        hidden: whether no candidate has a label, and classes that are not known have no logits.
        embed: computes the embedding; None: it is the features.
    """
    visible = torch.tensor([[label in task for label in range(CLASSES)] for task in tasks])

    def fresh(seed: int) -> nets.Net:
        return nets.build(partial(model or body, dropout=0.2), SHAPE, visible, seed, CPU)

    net = fresh(0)
    with torch.no_grad():
        net.head.weight *= sharp
        list(net.body.parameters())[-1].add_(shift)  # the bias of the last layer
        if zero:
            for parameter in net.body.parameters():
                parameter.zero_()
    transform = Transform([0.5], [0.25], [], device=CPU, channels_last=False)
    rng, cost = torch.Generator().manual_seed(8), Cost()
    data = exemplars(x, y)
    data = dataclasses.replace(data, task=visible[:, y.clamp_min(0)].int().argmax(0))
    data = dataclasses.replace(data, y=torch.full_like(y, -1)) if hidden else data
    columns = Columns()  # every seventh sample has no irreducible loss
    columns.put("irreducible", (known := data[data.index % 7 > 0]), (known.key - 0.2).clamp_min(0))
    others = [exemplars(*clusters(8, seed=10 + i)) if beside else None for i in range(5)]
    return Pool(
        data,
        net,
        transform.plain,
        batch_size=batch_size,
        cost=cost,
        trainer=Trainer(ProxySpec(epochs=2, batch_size=16), fresh, transform, nullcontext, rng, rng, cost),
        classes=classes,
        labelled=others[0] if labelled is None else labelled,
        reference=others[1] if reference is None else reference,
        query=others[2],
        private=others[3],
        incoming=others[4],
        closed=hidden,
        embed=embed,
        columns=columns,
    )


def body(shape: nets.Shape, *, dropout: float = 0.0) -> torch.nn.Module:
    """A small net with batch norm, whose outputs depend on its mode (train or eval)."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(36, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.ReLU(),
        *[torch.nn.Dropout(dropout)] * (dropout > 0),
        torch.nn.Linear(16, 8),
    )


def convolutional(shape: nets.Shape, *, dropout: float = 0.0) -> torch.nn.Module:
    """A small net with batch norm and feature maps."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        *[torch.nn.Dropout(dropout)] * (dropout > 0),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
    )

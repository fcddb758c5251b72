"""The candidates of a choice without a stream: a data set, or features made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.data import arrays, datasets
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool
from clsim.randomness import generator
from clsim.spec.run import RunSpec
from clsim.training import footprint, machine, workshop


def of_dataset(
    spec: RunSpec,
    data_root: str | Path | None,
    model: str,
    device: torch.device,
    cost: Cost,
    chosen_by: Mapping[str, Any],
) -> tuple[Pool, tuple[str, ...], str]:
    """Make a pool of the training part of a data set, with features and scores of a proxy.

    Args:
        spec: the spec, as :func:`clsim.training.workshop.spec_of_call` makes it.
        data_root: folder of the data sets; None: the usual one.
        model: architecture of the proxy; empty: the usual one for the samples.
        device: the device of the pool.
        cost: counters to add to.
        chosen_by: the name of the selector → its options, for an estimate of the memory; empty: it is not known.

    Returns:
        The pool, the names of the classes, and where features come from, in words.
    """
    source = datasets.load(spec.data, datasets.data_root(data_root), progress=False)
    footprint.refuse_too_large(spec, source, device, chosen_by)
    net, augment = _usual(source.train_x.shape[1:])
    net = model or net
    shop, samples = workshop.of_dataset(spec, source, net, {}, augment, device=device, cost=cost)
    return shop.pool(samples), source.classes, f"features of {net} after {spec.proxy.epochs} epochs"


def _usual(shape: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the default model of the proxy for samples of a shape, and its augmentation."""
    if len(shape) != 3:
        return "linear", ()
    return ("slim-resnet18", ("crop", "flip")) if shape[0] == 3 else ("mlp", ())


def of_features(
    given: Any, labels: Any, seed: int, device: torch.device, cost: Cost, *, logits: bool = False
) -> tuple[Pool, tuple[str, ...], str]:
    """Make a pool of features, which have no net behind them, or of logits.

    Args:
        given, labels: the features and their labels, as :func:`clsim.execution.select.select` takes them.
        seed: the seed of the keys.
        device: the device of the pool.
        cost: counters to add to.
        logits: whether ``given`` are logits: the pool's features and logits alike.

    Returns:
        The pool, the names of its labels, and where its features come from, in words.
    """
    x = arrays.features(given, "logits" if logits else "features")
    y, classes = np.full(len(x), -1), np.empty(0, dtype=np.int64)
    if labels is not None:
        found = arrays.labels(labels, len(x))
        classes, y[found >= 0] = np.unique(found[found >= 0], return_inverse=True)
    net = _outputs(x.shape[1], device) if logits else None
    pool = Pool(workshop.exemplars(x, y, seed, device), net, _unchanged, cost=cost)
    return pool, tuple(map(str, classes.tolist())), "logits as given" if logits else "features as given"


def of_rows(x: np.ndarray, rows: np.ndarray, seed: int, device: torch.device, *, logits: bool) -> Pool:
    """Make a pool of some rows of features or logits, as they are in the pool of all.

    Args:
        x: float32 (m, d), at least one row.
        rows: int64 (m,), ascending, the rows that these are among all.
        seed: the seed of the keys.
        device: the device of the pool.
        logits: whether they are logits.
    """
    key, rng = torch.empty(len(rows)), generator(seed, workshop.KEYS)
    for start in range(0, int(rows[-1]) + 1, KEYS):
        drawn = torch.rand(KEYS, generator=rng)
        first, last = np.searchsorted(rows, [start, start + KEYS])
        key[first:last] = drawn[rows[first:last] - start]
    none = torch.zeros(len(rows), dtype=torch.int64, device=device)
    index = torch.from_numpy(rows).to(device)
    data = Exemplars(torch.from_numpy(x).to(device), none - 1, none, key.to(device), index)
    return Pool(data, _outputs(x.shape[1], device) if logits else None, _unchanged)


KEYS = 2**20
"""Number of keys that are drawn at a time."""


@contextmanager
def at_work(spec: RunSpec) -> Iterator[torch.device]:
    """Set torch's state for a spec, and restore it; give its device."""
    device = machine.device_of(spec.training.device)
    with machine.isolated(spec, device):
        yield device


def _outputs(classes: int, device: torch.device) -> Net:
    """Make a net that returns the logits that it is given."""
    net = Net(torch.nn.Identity(), classes, torch.ones(1, classes, dtype=torch.bool))
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(classes))
        net.head.bias.zero_()
    return net.to(device)


def _unchanged(x: Tensor) -> Tensor:
    return x

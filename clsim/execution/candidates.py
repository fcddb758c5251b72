"""The candidates of a choice without a stream: a data set, or features made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.data import arrays, datasets
from clsim.pool.pool import Cost, Pool
from clsim.spec.run import RunSpec
from clsim.training import footprint, workshop


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
    given: Any, labels: Any, seed: int, device: torch.device, cost: Cost
) -> tuple[Pool, tuple[str, ...], str]:
    """Make a pool of features, which have no net behind them.

    Args:
        given, labels: the features and their labels, as :func:`clsim.execution.select.select` takes them.
        seed: the seed of the keys.
        device: the device of the pool.
        cost: counters to add to.

    Returns:
        The pool, the names of its labels, and where its features come from, in words.
    """
    x = arrays.features(given)
    y, classes = np.full(len(x), -1), np.empty(0, dtype=np.int64)
    if labels is not None:
        found = arrays.labels(labels, len(x))
        classes, y[found >= 0] = np.unique(found[found >= 0], return_inverse=True)
    pool = Pool(workshop.exemplars(x, y, seed, device), None, _unchanged, cost=cost)
    return pool, tuple(map(str, classes.tolist())), "features as given"


def _unchanged(x: Tensor) -> Tensor:
    return x

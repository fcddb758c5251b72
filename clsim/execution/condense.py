"""Condense a data set into a few images a class: ``clsim.condense(...)``, and ``clsim condense``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clsim.condensers.judging import accuracy, protocol
from clsim.condensers.named import condenser_of
from clsim.data import datasets
from clsim.errors import InputError
from clsim.execution.condensed import Condensed
from clsim.execution.keeper import CondenseWatch, Keeper, Nobody, key_of
from clsim.pool.contracts import decoded, factor_of, made
from clsim.spec.components import DIGITS
from clsim.training import machine
from clsim.training.workshop import exemplars, of_dataset, spec_of_call


def condense(
    dataset: str = "cifar10",
    method: str = "dm",
    *,
    ipc: int = 10,
    path: str | Path = "",
    per_class: int = 0,
    classes: Sequence[str] = (),
    size: int = 0,
    options: Mapping[str, Any] | None = None,
    model: str = "",
    model_options: Mapping[str, Any] | None = None,
    nets: int = 2,
    epochs: int = 0,
    augment: bool = True,
    proxy_epochs: int = 10,
    seed: int = 0,
    precision: str = "fp32",
    device: str = "auto",
    threads: int | None = None,
    data_root: str | Path | None = None,
    state: Path | None = None,
    every: float = 30.0,
    watch: CondenseWatch | None = None,
) -> Condensed:
    """Make a set of ``ipc`` images a class out of a data set, and train nets on it.

    Args:
        dataset: a name of ``clsim list datasets``, or the path of an ``.npz`` file.
        method: a condenser of ``clsim list condensers``, ``module:attr`` or ``./file.py:attr``; or a selector, whose
            picks of each class are the set.
        ipc: images per class.
        path: the folder or file of one's own data, for ``image-folder`` and ``npz``.
        per_class: use the first training images of each class only, at most this many; 0: all.
        classes: names or numbers of the classes to use, two or more; none: all.
        size: scale images to this many pixels a side; 0: as they are.
        options: options of the method, by name, as in ``{"iterations": 2000}``.
        model: architecture of all nets, a name of ``clsim list models``; by default ``convnet3`` for images and ``mlp``
            for vectors.
        model_options: options of the model, as in ``{"width": 64}``.
        nets: nets trained on the set, each from other weights, and tested; 0: none.
        epochs: epochs of each of them; 0: the papers' 1000, or 300 without augmentation. A set's worth shows late:
            after 150 epochs on 10 images a class nets on random images are almost done, those on condensed ones not.
        augment: train these nets with siamese augmentation's operations, none mirrored on digits.
        proxy_epochs: epochs of the net behind the features, where the method is a selector that asks for one.
        seed: the same seed makes the same set.
        precision: ``fp32``, or ``bf16`` where the processor is fast at it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: threads of torch; None leaves them as they are.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        state: a file for the half-made set, from which the same call goes on; None keeps none.
        every: seconds between two states, and between two pictures that ``watch`` is given.
        watch: what is told of the work.

    Raises:
        InputError: for anything in the arguments that is wrong.
    """
    dataset, path = ("npz", dataset) if dataset.endswith(".npz") and not path else (dataset, str(path))
    least_of = {"ipc": (ipc, 1), "nets": (nets, 0), "epochs": (epochs, 0), "every": (every, 0), "size": (size, 0)}
    for name, (value, least) in least_of.items():
        if not value >= least:
            raise InputError(f"{name}: found {value}, allowed: {least} or more")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision: found {precision!r}, allowed: fp32, bf16")
    spec = spec_of_call(
        dataset,
        path,
        seed=seed,
        device=device,
        threads=threads,
        proxy_epochs=proxy_epochs,
        size=size,
        per_class=per_class,
    )
    digits = dataset in DIGITS
    make = condenser_of(method, options or {}, digits)
    place, watch = machine.device_of(device), watch or Nobody()
    asked = [sorted((options or {}).items()), model, sorted((model_options or {}).items()), list(classes)]
    keeper = Keeper(state, key_of(spec, method, *asked, ipc, precision), watch, every)
    with machine.isolated(spec, place):
        source = datasets.load(spec.data, datasets.data_root(data_root), progress=False)
        source = datasets.with_classes(source, classes) if classes else source
        keeper.classes = source.classes
        images = source.train_x.ndim == 4
        net, shift = model or ("convnet3" if images else "mlp"), ("crop",) if digits else ("crop", "flip")
        shop, samples = of_dataset(
            spec, source, net, model_options or {}, shift if images else (), device=place, precision=precision
        )
        pool = shop.pool(samples)
        pool.watch = keeper
        started = time.perf_counter()
        condensed = made(make, pool, ipc * len(source.classes), shop.randomness.memory, f"method {method!r}")
        half = time.perf_counter()
        watch.picture(condensed, source.classes)
        training, factor = protocol(epochs, augment=augment, digits=digits), factor_of(make)
        tests, shown = exemplars(np.array(source.test_x), source.test_y, 0, place), decoded(condensed, factor)
        found = []
        for i in range(nets):
            found.append(accuracy(shown, tests, pool, training, seed, i))
            watch.net(i + 1, nets, found[-1])
    seconds = half - started, time.perf_counter() - half
    return Condensed(condensed, factor, source, keeper.losses, tuple(found), seconds)

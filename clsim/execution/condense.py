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
    """Condense a data set into ``ipc`` images per class, and train nets on them.

    Args:
        dataset: a name of ``clsim list datasets``, or the path of an ``.npz`` file.
        method: a condenser of ``clsim list condensers``, ``module:attr`` or ``./file.py:attr``; or a selector, whose
            picks of each class are the set.
        ipc: number of images per class.
        path: path of the user's own data, for the datasets ``image-folder`` and ``hf`` (a folder) and ``npz`` (a file).
        per_class: largest number of training images of each class that are used, the first ones; 0: all.
        classes: names or numbers of the classes to use, two or more; none: all classes.
        size: side, in pixels, that images are scaled to; 0: no scaling.
        options: options of the method, by name, as in ``{"iterations": 2000}``.
        model: architecture of all nets, a name of ``clsim list models``; by default ``convnet3`` for images and ``mlp``
            for vectors.
        model_options: options of the model, by name, as in ``{"width": 64}``.
        nets: number of nets that are trained on the set, each from other weights, and tested; 0: none.
        epochs: training epochs per net (0: the papers' 1000, or 300 without augmentation). Too few of them make a
            condensed set look worse than it is, since nets take longer to learn it than random images.
        augment: whether to train these nets with the operations of siamese augmentation, without mirroring on digits.
        proxy_epochs: training epochs of the net behind the features, where the method is a selector that needs one.
        seed: seed of everything that is drawn; the same seed makes the same set.
        precision: ``fp32``, ``bf16``, or ``auto``: ``bf16`` where processor or GPU have it in hardware.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of torch's threads; None leaves it as it is.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        state: file for the state of an unfinished set, from which the same call resumes; None: no such file.
        every: seconds between two saved states, and between two pictures that ``watch`` is given.
        watch: object that is told of the progress; None: none.

    Raises:
        InputError: if an argument is wrong.
    """
    dataset, path = ("npz", dataset) if dataset.endswith(".npz") and not path else (dataset, str(path))
    least_of = {"ipc": (ipc, 1), "nets": (nets, 0), "epochs": (epochs, 0), "every": (every, 0), "size": (size, 0)}
    for name, (value, least) in least_of.items():
        if not value >= least:
            raise InputError(f"{name}: found {value}, allowed: {least} or more")
    precision = machine.precision_of(precision, device)
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
    asked = [model, sorted((model_options or {}).items()), list(classes)]
    keeper = Keeper(state, key_of(spec, method, options or {}, *asked, ipc, precision), watch, every)
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

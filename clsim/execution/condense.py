"""Condense a data set into a few images a class: ``clsim.condense(...)``, and ``clsim condense``."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clsim.condensers.judging import Training, accuracy
from clsim.data import datasets, siamese
from clsim.data.augmentation import Transform
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.models.nets import Net, build
from clsim.pool.contracts import Condenser, chosen, decoded, factor_of, made
from clsim.pool.draft import Draft
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Pool
from clsim.pool.proxy import Trainer
from clsim.randomness import Randomness, derive, generator
from clsim.records.atomic import write
from clsim.records.store import CHECKPOINT, checkpoint_format
from clsim.selectors.combinators import per_class as of_each_class
from clsim.spec import registry
from clsim.spec.components import DIGITS
from clsim.spec.run import RunSpec
from clsim.spec.sources import data_digest
from clsim.spec.tables import DataSpec, ProxySpec, TrainingSpec
from clsim.training import machine


@dataclass(frozen=True)
class Condensed:
    """A set, and what was found out about it.

    Attributes:
        exemplars: as stored: uint8 images, balanced.
        factor: each stored image holds factor × factor small ones.
        source: the data set that it was made of.
        losses: (of the float images, of the stored ones), under the same draws; None where there is no loss.
        accuracies: of nets trained on it, on the test part.
        seconds: of the making, and of the evaluation; of this process, when it took up a half-made set.
    """

    exemplars: Exemplars
    factor: int
    source: Dataset
    losses: tuple[float, float] | None
    accuracies: tuple[float, ...]
    seconds: tuple[float, float]

    def write(self, path: Path) -> None:
        """As ``.npz``: a data set of ``npz``, with the test part of what it was made of.

        ``x_train`` holds the images as a net sees them; where a stored image holds several, what is stored is beside
        them as ``x_stored``, with ``factor``. ``classes`` names what the labels count.
        """
        shown = decoded(self.exemplars, self.factor)
        arrays: dict[str, Any] = {
            "x_train": shown.x.cpu().numpy(),
            "y_train": shown.y.cpu().numpy(),
            "x_test": np.asarray(self.source.test_x),
            "y_test": np.asarray(self.source.test_y),
            "classes": np.array(self.source.classes),
        }
        if self.factor > 1:
            arrays |= {"x_stored": self.exemplars.x.cpu().numpy(), "factor": np.array(self.factor)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write(path, buffer.getvalue())


class CondenseWatch(Protocol):
    """Somebody who watches a set being made; see :class:`clsim.cli.condense.Easel`."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """An iteration is done; asking for the loss waits for the device."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """The images as they are now; every so often, and at the end."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """A net has been trained on the set, and tested."""


class Nobody:
    """Nobody watches."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """Silence."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """Silence."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """Silence."""


@dataclass
class Keeper:
    """Keeps a half-made set in a file, so that a killed command goes on where it was. Final; a :class:`~.Watch`.

    Args:
        path: of the state; None keeps nothing.
        key: of everything that decides the set; a state of another is refused.
        seconds: between two states, and two pictures.
    """

    path: Path | None
    key: str
    look: CondenseWatch
    seconds: float = 30.0
    classes: tuple[str, ...] = ()
    losses: tuple[float, float] | None = None
    _saved: float = field(default_factory=time.monotonic)
    _drawn: float = float("-inf")

    def resume(self) -> dict[str, Any] | None:
        """The state in the file, or None.

        Raises:
            InputError: if it is damaged, or of another set.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways inside torch.load
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise InputError(f"{self.path}: cannot be read ({line}); --force begins anew") from None
        if checkpoint_format(state) != CHECKPOINT or state.get("key") != self.key:
            raise InputError(
                f"{self.path}: found the state of another set, or of another format; allowed: the same command as "
                "before, another --out, or --force, which begins anew"
            )
        return state

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """Look, and every so often write the state and a picture."""
        self.look.iteration(done, total, lambda: float(loss))
        now = time.monotonic()
        if now - self._drawn > self.seconds:
            self.look.picture(draft.exemplars(), self.classes)
            self._drawn = now
        if self.path is not None and now - self._saved > self.seconds:
            state = {**draft.state_dict(), "iteration": done, "format": CHECKPOINT, "key": self.key}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write(self.path, buffer.getvalue())
            self._saved = time.monotonic()

    def finish(self, loss: float, stored: float) -> None:
        """Note what rounding costs."""
        self.losses = loss, stored


def condense(
    dataset: str,
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
    nets: int = 1,
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
    look: CondenseWatch | None = None,
) -> Condensed:
    """Make a set of ``ipc`` images a class out of a data set, and train nets on it.

    Args:
        dataset: a name of ``clsim list datasets``, or the path of an ``.npz``; ``path`` as well for one's own.
        method: a condenser of ``clsim list condensers``, ``module:attr`` or ``./file.py:attr``; or a selector, whose
            picks of each class are the set.
        per_class: at most so many training images of each class (the first ones); 0: all.
        classes: names or numbers of those to take, two or more; none: all.
        size: scale images to so many pixels a side; 0: as they are.
        options: keyword arguments of the method.
        model: a name of ``clsim list models``; by default ``convnet3`` for images, ``mlp`` for vectors.
        model_options: its keyword arguments, as in ``{"width": 64}``.
        nets: trained on the set, each from other weights, and tested; 0: none.
        epochs: of each; 0: the papers' 1000, or 300 without augmentation. A set's worth shows late: after 150 epochs
            on 10 images a class nets on random images are almost done, those on condensed ones are not.
        augment: in training, with siamese augmentation's operations, none mirrored on digits.
        proxy_epochs: of the net behind the features, where the method is a selector that asks for one.
        state: a file for the half-made set, written every ``every`` seconds; the same call goes on from it.
        look: who watches.

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
    spec = RunSpec(
        seed=seed,
        data=DataSpec(dataset, str(path), size=size, per_class=per_class),
        training=TrainingSpec(device=device, threads=threads or torch.get_num_threads()),
        proxy=ProxySpec(source="proxy", epochs=proxy_epochs),
    )
    digits = spec.data.dataset in DIGITS
    make = condenser_of(method, options or {}, digits)
    place, look = machine.device_of(device), look or Nobody()
    first = "0.1.0"  # the version whose half-made sets have the same format
    what = (first, spec.as_dict(), data_digest(spec.data), registry.digest(method), method)
    asked = [sorted((options or {}).items()), model, sorted((model_options or {}).items()), list(classes)]
    key = json.dumps([*what, *asked, ipc, precision], default=str)
    keeper = Keeper(state, hashlib.sha256(key.encode()).hexdigest(), look, every)
    with machine.isolated(spec, place):
        source = datasets.load(spec.data, datasets.data_root(data_root), progress=False)
        source = datasets.with_classes(source, classes) if classes else source
        keeper.classes = source.classes
        pool = _pool(spec, source, model, model_options or {}, precision, place, keeper)
        started = time.perf_counter()
        budget = ipc * len(source.classes)
        exemplars = made(make, pool, budget, generator(seed, "memory"), f"method {method!r}")
        half = time.perf_counter()
        look.picture(exemplars, source.classes)
        factor = factor_of(make)
        operations = () if not augment else siamese.DIGITS if digits else siamese.ALL
        training = Training(epochs or (1000 if augment else 300), operations)
        tests, shown = _exemplars(source.test_x, source.test_y, 0, place), decoded(exemplars, factor)
        found = []
        for i in range(nets):
            found.append(accuracy(shown, tests, pool, training, derive(seed, f"evaluation {i}")))
            look.net(i + 1, nets, found[-1])
    seconds = half - started, time.perf_counter() - half
    return Condensed(exemplars, factor, source, keeper.losses, tuple(found), seconds)


def condenser_of(method: str, options: Mapping[str, Any], digits: bool) -> Condenser:
    """A condenser; or a selector, as one whose set is its picks of each class."""
    if not registry.is_condenser(method) and registry.is_selector(method):
        select = of_each_class(registry.component("selectors", method, options, "options"))

        def picked(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
            return pool.data[chosen(select, pool, budget, rng, f"method {method!r}").index]

        return picked
    augment = inspect.signature(registry.component("condensers", method, {}, "options")).parameters.get("augment")
    if digits and augment is not None and "flip" in augment.default:
        options = {"augment": tuple(name for name in augment.default if name != "flip"), **options}
    return registry.component("condensers", method, options, "options")


def _pool(
    spec: RunSpec,
    source: Dataset,
    model: str,
    model_options: Mapping[str, Any],
    precision: str,
    device: torch.device,
    keeper: Keeper,
) -> Pool:
    """The training part, with random nets and proxies behind it."""
    shape, images = source.train_x.shape[1:], source.train_x.ndim == 4
    body = registry.component("models", model or ("convnet3" if images else "mlp"), model_options, "model options")
    visible = torch.ones(1, len(source.classes), dtype=torch.bool)
    augment = ("crop", "flip") if images and spec.data.dataset not in DIGITS else ("crop",) if images else ()
    transform = Transform(source.mean, source.std, augment, device=device, channels_last=images)

    def fresh(seed: int) -> Net:
        net = build(body, shape, visible, seed, device)
        return net.to(memory_format=torch.channels_last) if images else net  # type: ignore[call-overload]

    def context() -> AbstractContextManager:
        return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    randomness, cost = Randomness(spec.seed, device), Cost()
    trainer = Trainer(spec.proxy, fresh, transform, context, randomness.proxy, randomness.proxy_augment, cost)
    samples = _exemplars(source.train_x, source.train_y, spec.seed, device)
    return Pool(samples, None, transform.plain, precision=context, cost=cost, trainer=trainer, watch=keeper)


def _exemplars(x: np.ndarray, y: np.ndarray, seed: int, device: torch.device) -> Exemplars:
    n = len(x)
    return Exemplars(
        x=torch.from_numpy(np.array(x)).to(device),
        y=torch.from_numpy(y.astype(np.int64)).to(device),
        task=torch.zeros(n, dtype=torch.int64, device=device),
        key=torch.rand(n, generator=generator(seed, "experience 0")).to(device),
        index=torch.arange(n, device=device),
    )

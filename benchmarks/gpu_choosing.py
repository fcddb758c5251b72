"""Sections of ``benchmarks.gpu`` that choose: selectors on a million vectors, condensation, airbench's experiment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import condensation
from benchmarks.measured import Measure, Row, Setting
from clsim.condensers.distribution import MeanMatching
from clsim.condensers.gradient_matching import LOOPS, GradientMatching, Matching
from clsim.condensers.synthesis import Material, Method, Synthetic
from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.pool.exemplars import Exemplars, groups
from clsim.pool.pool import Cost, Pool, Selector
from clsim.selectors.kcenter import k_center
from clsim.selectors.random import random as at_random
from clsim.selectors.submodular import facility_location
from clsim.selectors.uncertainty import least_confidence
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import DataSpec
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from clsim.training.assemble import assemble
from clsim.training.contract import Learner
from clsim.training.experience import fit
from clsim.training.machine import isolated
from clsim.training.progress import Quiet


def selectors(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Seconds of k-center and facility location, 1,000 of 1,000,000 × 128."""
    n, budget = (3000, 20) if setting.tiny else (1_000_000, 1000)
    chosen: dict[str, Selector] = {"k-center": k_center, "facility location": facility_location}
    for name, select in chosen.items():
        what = f"{name}, {budget:,} of {n:,} × 128"
        yield what, partial(selector_row, setting, what, select, n, budget)


def selector_row(setting: Setting, what: str, select: Selector, n: int, budget: int) -> Row:
    x = clustered(n, setting.device)
    none = torch.zeros(n, dtype=torch.int64, device=x.device)
    pool = Pool(Exemplars(x, none, none, torch.zeros(n, device=x.device), none), None, lambda x: x)
    select(pool, 2, rng=torch.Generator().manual_seed(0))  # libraries load their kernels
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats(setting.device)
    picked: list[Tensor] = []
    spent = setting.seconds(lambda: picked.append(select(pool, budget, rng=torch.Generator().manual_seed(0)).index))
    different = f"{len(picked[0].unique()):,} different picks"
    memory = f", at most {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if setting.cuda else ""
    return Row(what, spent, "s", different + memory)


def clustered(n: int, device: torch.device) -> Tensor:
    """Make vectors of 128 numbers around 200 centres, on the device."""
    rng = torch.Generator(device).manual_seed(0)
    centres = 2 * torch.randn(200, 128, generator=rng, device=device)
    x = torch.randn(n, 128, generator=rng, device=device)
    return x.add_(centres[torch.randint(200, (n,), generator=rng, device=device)])


def condensers(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Iterations a second of DM, and of gradient matching with one step a net: CIFAR-10's shape, 10 images a class."""
    real = 8 if setting.tiny else condensation.REAL
    for name, method in {
        "dm": MeanMatching(real),
        "dc, a step in each net": GradientMatching(LOOPS, Matching(real=real, steps=1, epochs=1)),
    }.items():
        yield f"{name}, 10 images of 10 classes", partial(condenser_row, setting, name, method)


def condenser_row(setting: Setting, name: str, method: Method) -> Row:
    pool = condensation.pool_of(True, contextlib.nullcontext, setting.device)
    material = Material(pool, groups(pool.data), 1)
    place = torch.arange(condensation.CLASSES, device=setting.device).repeat_interleave(condensation.IPC)
    images = torch.randn(len(place), 3, 32, 32, generator=torch.Generator().manual_seed(2)).to(setting.device)
    synthetic = Synthetic(images, place, material, lr=1.0, momentum=0.5)
    repeats = 1 if setting.tiny else 50

    def iterations(first: int, last: int) -> None:
        for number in range(first, last):
            material.begin(number)
            method(number, synthetic, material)

    iterations(0, 1 if setting.tiny else 5)
    spent = setting.seconds(lambda: iterations(5, 5 + repeats))
    return Row(f"{name}, 10 images of 10 classes", repeats / spent, "iterations/s")


@dataclass(frozen=True)
class Images:
    """A data set for the experiment of airbench: uint8 (n, 3, 32, 32) and labels, for training and for testing."""

    name: str
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


KEPT, SEEDS = 0.6, 3


def airbench(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Test accuracy after training on 60 % of the images chosen at random, and on the least confident 60 %.

    The net whose confidence counts is trained on all images, in as many steps as those of the two shares. The shape of
    the experiment is that of airbench (Jordan, 94 % on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, section 5.3);
    net and schedule are others.
    """
    images = of_airbench(setting)
    for seed in range(1 if setting.tiny else SEEDS):
        kept: dict[str, np.ndarray] = {}
        yield f"{images.name}, all, seed {seed}", partial(whole_row, setting, images, seed, kept)
        for share in ("random 60 %", "least confident 60 %"):
            yield f"{images.name}, {share}, seed {seed}", partial(share_row, setting, images, seed, kept, share)


def whole_row(setting: Setting, images: Images, seed: int, kept: dict[str, np.ndarray]) -> Row:
    """Train on all images, and keep the rows of both shares."""
    accuracy, seconds, pool = trained(setting, images, np.arange(len(images.y)), seed)
    budget = round(KEPT * len(images.y))
    for name, select in {"random 60 %": at_random, "least confident 60 %": least_confidence}.items():
        rng = torch.Generator().manual_seed(seed)
        picks = select(pool, budget, rng=rng).index
        kept[name] = pool.data.index[picks].sort().values.cpu().numpy()
    return Row(f"{images.name}, all, seed {seed}", accuracy, "accuracy", f"{seconds:.1f} s")


def share_row(setting: Setting, images: Images, seed: int, kept: dict[str, np.ndarray], name: str) -> Row:
    what = f"{images.name}, {name}, seed {seed}"
    if name not in kept:
        return Row(what, None, note="skipped: no net was trained on all images")
    accuracy, seconds, _ = trained(setting, images, kept[name], seed)
    return Row(what, accuracy, "accuracy", f"{seconds:.1f} s, {len(kept[name]):,} images")


def trained(setting: Setting, images: Images, rows: np.ndarray, seed: int) -> tuple[float, float, Pool]:
    """Train on some rows; return test accuracy, seconds of training, and the rows as a pool of the trained net."""
    spec = airbench_spec(setting, len(images.y), seed)
    classes = tuple(range(10))
    part = Part(images.x, rows, images.y[rows])
    test = Part(images.test_x, np.arange(len(images.test_y)), images.test_y)
    mean, std = [[0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]]
    device = setting.device
    names = [str(c) for c in classes]
    stream = Stream(
        *([part], [test], [classes], names),
        masked=False,
        mean=mean,
        std=std,
        spec=spec.stream,
        seed=seed,
        device=device,
    )
    setup, learner = assemble(spec, stream, Cost())
    setup.classes.update(classes, setup.memory.begun)
    with isolated(spec, device):
        experience = stream.experience(0)
        seconds = setting.seconds(lambda: fit(experience, setup, learner, 10, Quiet()))
        return accuracy(learner, stream.tests), seconds, learner.pool(experience.train)


def airbench_spec(setting: Setting, images: int, seed: int) -> RunSpec:
    """Resolve the training: ResNet-18 in bf16 where there is hardware for it, about ten passes over 60 % of images."""
    size, epochs, model = (64, 4, "mlp") if setting.tiny else (512, 10, "resnet18")
    tables = {
        "data": {"dataset": "cifar10", "augment": ["crop", "flip"]},
        "stream": {"experiences": 1, "setting": "class"},
        "model": {"name": model},
        "training": {
            "batch_size": size,
            "steps": max(epochs * int(KEPT * images) // size, 1),
            "last_batch": "drop",
            "precision": "auto",
            "device": setting.device.type,
        },
        "optimizer": {
            **{"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
            **{"schedule": "cosine", "warmup": 0.2},
        },
    }
    return resolve(tables, "finetune", seed=seed)


@torch.no_grad()
def accuracy(learner: Learner, tests: Exemplars) -> float:
    """Measure the share of the test images that the net is right about."""
    parts = [tests[i : i + 1000] for i in range(0, len(tests), 1000)]
    return float(torch.cat([learner.predict(p.x, p.task).argmax(1) == p.y for p in parts]).float().mean())


def of_airbench(setting: Setting) -> Images:
    """Find images to learn: a file that was given, CIFAR-10 where it is at hand, else blobs."""
    if setting.npz:
        with np.load(setting.npz, allow_pickle=False) as found:
            arrays = [found[name] for name in ("x_train", "y_train", "x_test", "y_test")]
        return Images(f"{len(arrays[1]):,} images of {Path(setting.npz).name}", *arrays)
    if not setting.tiny:
        with contextlib.suppress(InputError):
            data = load(DataSpec("cifar10"), data_root(None), progress=False, download=False)
            arrays = [np.array(a) for a in (data.train_x, data.train_y, data.test_x, data.test_y)]
            return Images("CIFAR-10", *arrays)
    return blobs(500 if setting.tiny else 12_500)


def blobs(n: int) -> Images:
    """Make noisy images of coarse patterns, three of each of ten classes: they can be learnt, but not at once."""
    rng = np.random.default_rng(0)
    centres = np.kron(rng.integers(64, 192, (30, 3, 4, 4)), np.ones((8, 8)))
    total = n + n // 5
    kinds = rng.integers(0, 30, total)
    x = np.empty((total, 3, 32, 32), dtype=np.uint8)
    for rows in np.array_split(np.arange(total), max(total // 1000, 1)):
        x[rows] = np.clip(centres[kinds[rows]] + rng.normal(0, 70, (len(rows), 3, 32, 32)), 0, 255)
    y = (kinds % 10).astype(np.int64)
    return Images("synthetic images", x[:n], y[:n], x[n:], y[n:])


def packed(path: Path, megabytes: int = 50) -> int:
    """Write as many of CIFAR-10's images as fit into a file, four of five for training; return their number.

    Raises:
        InputError: if CIFAR-10 is not at hand.
    """
    data = load(DataSpec("cifar10"), data_root(None), progress=False, download=False)
    n = (megabytes * 10**6 - 10_000) // (3 * 32 * 32 + 8)
    sizes = {"train": (data.train_x, data.train_y, n * 4 // 5), "test": (data.test_x, data.test_y, n // 5)}
    arrays: dict[str, np.ndarray] = {}
    for name, (x, y, most) in sizes.items():
        rows = np.sort(np.random.default_rng(0).permutation(len(y))[:most])
        arrays |= {f"x_{name}": np.array(x)[rows], f"y_{name}": np.array(y)[rows]}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return sum(len(y) for name, y in arrays.items() if name.startswith("y_"))

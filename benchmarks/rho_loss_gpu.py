"""RHO-LOSS in the paper's setting, inside ten minutes of one GPU: CIFAR-10, halves of 25,000, ResNet-18, 32 of 320.

AdamW at 0.001 without a schedule, 320 candidates a step of which 32 are trained on, a hold-out of 25,000 images for the
irreducible-loss net (ResNet-18). The arms take turns until the time is up: random first, since the others are held
against its best accuracy; an arm whose turn would not fit is left out and said so. Printed, one line an arm: the best
accuracy, steps to random's best, the speed-up, the share of picks already learnt, seconds of training, of choosing and
of the irreducible-loss net. The published speed-up is over epochs of candidates, which are equally many steps for all.

Images are read from the data root, nothing is downloaded. ``--tiny`` takes random images of ten blobs, a small net and
few steps on whatever processor there is.

    python -m benchmarks.rho_loss_gpu [--minutes 10] [--epochs 40] [--mode train] [--noise 0.0] [--tiny]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import clsim
from clsim.data.datasets import data_root, load
from clsim.spec.tables import DataSpec

ARMS = ("random", "rho-loss", "loss", "gradient-norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--epochs", type=int, default=40, help="passes over the candidates, 79 steps each")
    parser.add_argument("--irreducible-epochs", type=int, default=40, help="at most; the paper has 100")
    parser.add_argument("--mode", choices=("eval", "train"), default="train", help="the paper's code has train")
    parser.add_argument("--noise", type=float, default=0.0, help="share of training labels drawn at random")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if not (torch.cuda.is_available() or given.tiny):
        raise SystemExit("benchmarks.rho_loss_gpu: found no GPU, allowed: --tiny, which takes any processor")
    ends = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        settings = small(folder) if given.tiny else full(given, folder)
        curves: dict[str, dict[str, Any]] = {}
        longest = 0.0
        for name in ARMS:
            if time.monotonic() + longest > ends:
                print(f"{name:<14} left out: the {given.minutes:g} minutes would not do")
                continue
            started = time.monotonic()
            record = clsim.run(
                "batch-cifar10",
                "finetune",
                batch=name,
                runs=Path(folder) / "runs",
                settings={**settings, "batch.mode": given.mode},
            )
            longest = max(longest, time.monotonic() - started)
            curves[name] = record.data["batches"][0] | {"train_seconds": record.data["cost"][0]["train_seconds"]}
            print(line(name, curves[name], curves["random"]), flush=True)


def full(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The paper's setting, with fewer epochs."""
    settings: dict[str, Any] = {
        "training.epochs": given.epochs,
        "irreducible.epochs": given.irreducible_epochs,
        "irreducible.patience": 10,
        "training.device": "cuda",
    }
    if given.noise:
        data = load(DataSpec("cifar10"), data_root(None), download=False)
        rng, y = np.random.default_rng(0), np.array(data.train_y)
        drawn = rng.random(len(y)) < given.noise
        y[drawn] = rng.integers(0, 10, int(drawn.sum()))
        settings |= written(folder, np.array(data.train_x), y, np.array(data.test_x), np.array(data.test_y))
    return settings


def small(folder: str) -> dict[str, Any]:
    """Blobs, a small net, and batches of 8 out of 80."""
    rng, y = np.random.default_rng(0), np.arange(1500) % 10
    centres = rng.integers(40, 216, (10, 3, 8, 8))
    x = np.clip(centres[y] + rng.integers(-60, 61, (len(y), 3, 8, 8)), 0, 255).astype(np.uint8)
    wrong = (np.arange(1000) % 10 == 3) | (np.arange(1000) % 17 == 0)
    labels = np.where(wrong, rng.integers(0, 10, 1000), y[:1000])
    sizes: dict[str, Any] = {"training.batch_size": 8, "training.epochs": 20, "evaluation.steps": 4}
    sizes |= {"model.name": "mlp", "model.options.hidden": [64], "irreducible.epochs": 20}
    sizes |= {"optimizer.lr": 0.01}
    return sizes | written(folder, x[:1000], labels, x[1000:], y[1000:])


def written(folder: str, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> dict[str, Any]:
    """Write a data set of one's own; return the settings that name it."""
    path = Path(folder) / "data.npz"
    channels_last = [images.transpose(0, 2, 3, 1) for images in (x, test_x)]
    np.savez(path, x_train=channels_last[0], y_train=y, x_test=channels_last[1], y_test=test_y)
    return {"data.dataset": "npz", "data.path": str(path)}


def line(name: str, found: dict[str, Any], random: dict[str, Any]) -> str:
    """Say what an arm reached, and how much sooner than random its best."""
    own, other = ([row[0] for row in one["curve"]["accuracy"]] for one in (found, random))
    goal, steps = max(other), found["curve"]["steps"]
    first = random["curve"]["steps"][other.index(goal)]
    reached = next((step for step, accuracy in zip(steps, own, strict=True) if accuracy >= goal), None)
    speed = "never" if reached is None else f"{reached} steps, × {first / reached:.2f}"
    net = found.get("irreducible", {}).get("seconds", 0.0)
    learnt = "–" if found["learnt"] is None else f"{100 * found['learnt']:.0f} %"
    return (
        f"{name:<14} best {100 * max(own):5.1f} %   random's {100 * goal:.1f} %: {speed:<22} already learnt {learnt} "
        f"training {found['train_seconds']:.1f} s, choosing {found['seconds']:.1f} s, irreducible net {net:.1f} s"
    )


if __name__ == "__main__":
    main()

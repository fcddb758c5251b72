"""What a machine offers: versions, device, threads, data."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from clsim.cli.console import out
from clsim.data import cache
from clsim.data.datasets import data_root
from clsim.spec.sources import DATASETS
from clsim.version import __version__

PLACES = {  # where torchvision keeps them
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "kmnist": "KMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "train_32x32.mat",
    "usps": "usps.bz2",
    "tiny-imagenet": "tiny-imagenet-200",
}


def _holds_something(path: Path) -> bool:
    """A file, or a folder with files: a download that failed leaves an empty one."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def findings(root_flag: Path | None) -> list[tuple[str, str]]:
    """A label and a finding each."""
    import torch

    found = [("clsim", __version__), ("python", platform.python_version())]
    for package in ("torch", "torchvision", "avalanche-lib", "numpy", "scikit-learn"):
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            found.append((package, "not installed"))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found.append(("device", ", ".join(gpus) or "cpu (no GPU that this torch can use)"))
    found.append(("cores", f"{os.cpu_count()}; a run uses training.threads of them, 1 by default"))
    root = data_root(root_flag)
    found.append(("data folder", str(root)))
    for name in DATASETS:
        if name in PLACES:
            cached = cache.read(root / "clsim-cache" / name, name) is not None
            source = _holds_something(root / PLACES[name])
            state = "ready" if cached else "here, cached at its first use" if source else "downloaded at its first use"
            found.append((f"  {name}", state))
    return found


def doctor(data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None) -> None:
    """Versions, device, threads, and which data sets are here."""
    from clsim.cli.doctor import findings

    table = Table(box=None, pad_edge=False, show_header=False)
    for label, value in findings(data_root):
        table.add_row(f"[cyan]{escape(label)}", escape(value))
    out.print(table)

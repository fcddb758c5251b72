"""The command ``clsim doctor``."""

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
from clsim.version import __version__

PACKAGES = ("torch", "torchvision", "avalanche-lib", "numpy", "scikit-learn")

PLACES = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
    "kmnist": "KMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "train_32x32.mat",
    "usps": "usps.bz2",
    "tiny-imagenet": "tiny-imagenet-200",
}
"""Data set → where torchvision keeps it in the data folder."""


def doctor(data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None) -> None:
    """Show versions, device, cores, and which data sets are here."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for label, value in findings(data_root):
        table.add_row(f"[cyan]{escape(label)}", escape(value))
    out.print(table)


def findings(folder: Path | None) -> list[tuple[str, str]]:
    """What this machine offers: a label and a finding each.

    Args:
        folder: folder of the data sets; None: the usual one.
    """
    import torch

    from clsim.compat import torchvision_misfit
    from clsim.data.datasets import data_root

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    root = data_root(folder)
    return [
        ("clsim", __version__),
        ("python", platform.python_version()),
        *((package, _version(package)) for package in PACKAGES),
        ("torchvision fits torch", torchvision_misfit() or "yes"),
        ("device", ", ".join(gpus) or "cpu (no GPU that this torch can use)"),
        ("cores", f"{os.cpu_count()}; a step uses training.threads of them, 1 by default"),
        ("data folder", str(root) if root.exists() else f"{root} (not there; a download makes it)"),
        *((f"  {name}", _state(name, root)) for name in PLACES),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _state(name: str, root: Path) -> str:
    """Whether a data set is in the data folder."""
    from clsim.data import cache

    if cache.read(root / "clsim-cache" / name, name) is not None:
        return "ready"
    return "here, cached at its first use" if _holds_something(root / PLACES[name]) else "downloaded at its first use"


def _holds_something(path: Path) -> bool:
    """Whether a path is a file or a folder with files; a download that failed leaves an empty folder."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))

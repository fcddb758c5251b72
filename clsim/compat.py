"""Workarounds for other packages, each with its reason."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, TypeVar

Found = TypeVar("Found")

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
"""The standard library's reader of TOML; before Python 3.11, the package that it comes from."""

_NMS = "torchvision::nms"
_kept: list[Any] = []  # kept alive: a library that is garbage-collected takes its operators with it


def import_torchvision() -> None:
    """Import torchvision, also where its compiled part does not load; to be called before Avalanche is imported.

    PyPI's torchvision beside a CPU build of torch fails at import with "operator torchvision::nms does not exist":
    its compiled part needs CUDA libraries (torchvision issue 9085). Only data sets and transforms are used
    here, so the two missing operators are declared, never defined.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _NMS not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        importlib.import_module("torchvision")


def torchvision_misfit() -> str:
    """Say how torchvision does not fit torch, and what to install; empty if it fits."""
    try:
        torch, torchvision = version("torch").partition("+")[0], version("torchvision").partition("+")[0]
        wanted = re.search(r"^torch\s*\(?==\s*([\d.]+)", "\n".join(requires("torchvision") or ()), re.MULTILINE)
    except PackageNotFoundError as error:
        return f"{error.name} is not installed: pip install torch torchvision"
    if wanted is not None and wanted[1].removesuffix(".") != torch:
        return (
            f"torchvision {torchvision} is made for torch {wanted[1]}, found torch {torch}: "
            f"pip install --force-reinstall torch=={torch} torchvision, which finds its partner"
        )
    try:
        import_torchvision()
    except Exception as error:  # a compiled part fails in ways of its own
        said = " ".join(str(error).split())[:100]
        return (
            f"torchvision {torchvision} cannot be imported beside torch {torch} ({said}): "
            "pip install --force-reinstall torch torchvision, both from one index (pytorch.org/get-started)"
        )
    return ""


def with_torchvision(load: Callable[[], Found]) -> Found:
    """Return what a function imports, which may need torchvision; see :func:`import_torchvision`."""
    try:
        return load()
    except RuntimeError as error:
        if _NMS not in str(error):
            raise
        import_torchvision()
        return load()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Show no warnings: record them, as Avalanche overrides the filters to warn of its own deprecations."""
    with warnings.catch_warnings(record=True):
        yield

"""The machine of a run: device, threads and memory, and torch's own state, which is restored after the run."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsim.errors import InputError
from clsim.models.passes import on_cores
from clsim.randomness import derive, own_draws
from clsim.selectors.neighbour_index import index_version
from clsim.spec.precision import in_hardware, settled
from clsim.spec.run import RunSpec
from clsim.version import __version__, code_state


def peak_bytes(device: torch.device) -> int:
    """Return the peak of the memory in use, in bytes: that of the GPU, or that of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss begins with what the parent held when it started this process
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


@functools.cache
def processor() -> str:
    """Name the processor: its model as the system has it; of an x86 under Linux also its family and model number.

    Virtual machines give several generations of processors one name, and the numbers tell them apart.
    """
    about = Path("/proc/cpuinfo")
    if about.exists():
        words = dict(re.findall(r"^(model name|cpu family|model)\s*: (.+)$", about.read_text(errors="replace"), re.M))
        numbers = [f"{key} {words[key]}" for key in ("cpu family", "model") if key in words]
        if "model name" in words:
            return words["model name"] + (f" ({', '.join(numbers)})" if numbers else "")
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=10, check=False
        )
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep the memory that a process frees, under Linux; return whether it does.

    glibc gives each block above 32 MB back to the system as soon as it is freed, and smaller ones from the end of its
    heap; a step that takes the same memory again waits for pages that the system fills with zeros. What is kept serves
    the next step; the peak stays as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library, (trim, map_blocks) = ctypes.CDLL(None), (-1, -4)  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    return bool(library.mallopt(map_blocks, 0) and library.mallopt(trim, 2**31 - 1))


@contextmanager
def flushing(wanted: bool) -> Iterator[None]:
    """Let the processor take numbers below the normal range (1.2e-38 in float32) as 0 inside, if that is ``wanted``.

    The gradients of samples that a net is sure of, and the moments of units that no longer learn, come to lie there,
    and a processor takes many times as long for each. The setting is one of the calling thread, and of those that it
    starts: with several of torch's threads, which may be there already, it would not hold for all.
    """
    before = bool(torch.full((1,), 1e-38).mul(0.01) == 0)
    if before or not wanted:
        yield
        return
    for kind in (np.float16, np.float32, np.float64, np.longdouble):
        np.finfo(kind)  # kept by numpy, which up to version 2.3 warns if it first looks inside
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


_TF32 = {"none": (False, False), "convolutions": (False, True), "all": (True, True)}
"""Value of ``training.tf32`` → whether products of matrices, and whether convolutions, may use TF32."""


@contextmanager
def rounding(wanted: str, device: torch.device) -> Iterator[None]:
    """Let a GPU round float32 to TF32 inside for what ``training.tf32`` names, and restore what was there.

    A processor has no TF32 here: for its runs nothing is touched. Nor is it where all is as it should be.

    Args:
        wanted: a value of ``training.tf32``.
        device: the device of the run.
    """
    if device.type != "cuda" or rounded() == wanted:
        yield
        return
    flags, each = _flags(), [(one, one.fp32_precision) for one in _operations()]
    products, convolutions = _TF32[wanted]
    _set_flags("high" if products else "highest", convolutions)  # which sets each operation, too
    try:
        yield
    finally:
        if flags is not None:
            _set_flags(*flags)
        for operation, before in each:
            operation.fp32_precision = before


def rounded() -> str:
    """Tell what a GPU would round to TF32 now: a value of ``training.tf32``, or ``products``, of matrices alone."""
    values = [one.fp32_precision == "tf32" for one in _operations()]
    if not values:
        products, convolutions = _flags() or ("highest", True)
        values = [products != "highest", convolutions]
    return next((name for name, both in _TF32.items() if both == (values[0], values[1])), "products")


def _operations() -> list[Any]:
    """List torch's settings of single operations: products, convolutions, recurrent layers; none before torch 2.9."""
    backends: Any = torch.backends
    if torch.__version__ < "2.9":  # compared as versions are
        return []
    return [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]


def _flags() -> tuple[str, bool] | None:
    """Read torch's flags for all products and for all of cuDNN; None where single operations were set otherwise."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _set_flags(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def arithmetic(device: torch.device) -> dict[str, str]:
    """Return what decides the arithmetic of a device beside its name, by its names in a record.

    ``bf16`` is ``in hardware`` or ``emulated``. For a GPU: ``tf32``, what may be rounded to it now (see
    :func:`rounded`); ``capability``; the versions ``cuda`` and ``cudnn`` that torch works with.
    """
    found = {"bf16": "in hardware" if in_hardware(str(device)) else "emulated"}
    if device.type != "cuda":
        return found
    return found | {
        "tf32": rounded(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "cuda": str(torch.version.cuda or torch.version.hip),
        "cudnn": str(torch.backends.cudnn.version()),
    }


@contextmanager
def isolated(spec: RunSpec, device: torch.device, cores: int = 1) -> Iterator[None]:
    """Set torch's own state (threads, global generators, determinism, TF32) for a run, and restore it afterwards.

    Args:
        spec: the run's spec.
        device: its device.
        cores: the cores that belong to it; no number depends on them (:mod:`clsim.models.passes`).

    Raises:
        InputError: if the spec asks for far more threads than the machine has processors.
    """
    most = max(4 * (os.cpu_count() or 1), 64)
    if spec.training.threads > most:
        raise InputError(
            f"training.threads: found {spec.training.threads}, allowed: 1 to {most} on this machine, which has "
            f"{os.cpu_count()} processors"
        )
    keep_freed_memory()
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    tf32 = rounding(spec.training.tf32, device)
    with own_draws(derive(spec.seed, "torch"), device), flushing(spec.training.threads == 1), tf32:
        torch.set_num_threads(spec.training.threads)
        torch.backends.cudnn.deterministic = True
        try:
            with on_cores(cores):
                yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


def device_of(name: str) -> torch.device:
    """Return the device that ``training.device`` names.

    Raises:
        InputError: if the machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    there = device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    if device.type != "cpu" and not there:
        raise InputError(f"training.device: found {name!r}, {_devices(name)}")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _devices(name: str) -> str:
    """Say which devices there are, and why no GPU is among them if one was meant."""
    count = torch.cuda.device_count()
    if not count and not name.startswith("cuda"):
        return "allowed: auto, cpu"
    if count:
        return f"allowed: auto, cpu, cuda, {', '.join(f'cuda:{i}' for i in range(count))}"
    if torch.version.cuda or torch.version.hip:
        return "but torch finds no GPU on this machine (`nvidia-smi` shows what its driver finds); allowed: auto, cpu"
    return (
        f"but torch {torch.__version__} is a build for processors alone; allowed: auto, cpu, or a torch with CUDA "
        "(pytorch.org/get-started)"
    )


def precision_of(name: str, device: str) -> str:
    """Return ``fp32`` or ``bf16`` for the name of a precision on a device.

    Raises:
        InputError: if there is no such precision.
    """
    if name not in ("fp32", "bf16", "auto"):
        raise InputError(f"precision: found {name!r}, allowed: fp32, bf16, auto")
    return settled(name, device)


VERSIONS = ("clsim", "code", "torch", "avalanche", "python")
"""The facts of a machine that are versions."""


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return the facts of this machine that may change numbers, versions first, by their names in a record."""
    return {
        "clsim": __version__,
        "code": code_state(),
        "torch": str(torch.__version__),
        "avalanche": version("avalanche-lib"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": processor(),
        **arithmetic(device),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "neighbours": index_version(),
    }

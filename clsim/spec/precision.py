"""The precision that ``auto`` stands for, by what processor and GPU say that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names under which Linux lists a processor's bf16 arithmetic: the first two on x86, the last on ARM."""


def settled(precision: str, device: str) -> Literal["fp32", "bf16"]:
    """Return ``bf16`` or ``fp32`` for ``auto``, and these two unchanged.

    ``bf16`` is taken only where the device has it in hardware; where it is emulated, it is many times slower than
    ``fp32``. Nothing is timed, so that the answer, and a fingerprint with it, is the same each time.

    Args:
        precision: ``auto``, ``fp32`` or ``bf16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    asked = in_hardware(device) if precision == "auto" else precision == "bf16"
    return "bf16" if asked else "fp32"


def in_hardware(device: str) -> bool:
    """Tell whether the device that ``training.device`` names has bf16 arithmetic in hardware.

    A GPU has it from compute capability 8.0 on. A processor is asked by ``/proc/cpuinfo``; where there is none, as on
    macOS, the answer is no.
    """
    if device != "cpu":
        import torch  # slow to import, and needed here alone

        number = int(device.partition(":")[2] or 0) if device.startswith("cuda") or device == "auto" else -1
        if torch.cuda.is_available() and 0 <= number < torch.cuda.device_count():
            return torch.cuda.get_device_capability(number) >= (8, 0)
        if device != "auto":
            return False
    return bool(CPU_FLAGS & cpu_flags())


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the names of the abilities that the first processor lists; none where there is no such file."""
    if not path.exists():
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())

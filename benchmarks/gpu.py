"""What clsim does on a GPU, in eight minutes: one table of speeds, and one experiment.

Sections: ``selectors`` (k-center and facility location on a million vectors), ``condensers`` (iterations of dm and dc),
``nncsl`` (its step), ``airbench`` (training on 60 % of the images at random, against the least confident 60 %),
``precision`` (fp32, TF32, bf16, channels-last), ``seeds`` (1, 5, 20 together), ``online`` (er and der++ on Split
CIFAR-10 and -100 beside a bare loop, kernel by kernel and as a graph). Each has its seconds, and what it does not come
to is a row that says so; what it leaves over goes to the next. A measurement that fails is a row, too.

Neither a network, Avalanche nor a folder of data is needed. Images are random and have CIFAR's shape, but for
``airbench``: CIFAR-10 where it is at hand ($CLSIM_DATA), a file by ``--npz`` (``--pack`` writes 50 MB of CIFAR-10),
else synthetic images; the table says which. ``--tiny`` takes every line in small, on whatever processor there is.

python -m benchmarks.gpu [--only online,seeds] [--minutes 8] [--csv FILE] [--npz FILE] [--tiny] | --pack FILE
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.gpu_choosing import airbench, condensers, packed, selectors
from benchmarks.gpu_training import nncsl, online, precision, seeds_together
from benchmarks.measured import Section, Setting, taken, write
from clsim.training.machine import processor
from clsim.version import __version__, code_state

SECTIONS: dict[str, tuple[float, Section]] = {
    "selectors": (60, selectors),
    "condensers": (30, condensers),
    "nncsl": (40, nncsl),
    "airbench": (120, airbench),
    "precision": (50, precision),
    "seeds": (50, seeds_together),
    "online": (100, online),
}
"""Name of a section → its seconds, which are 450 in all. The recorded steps are last: a GPU may be unwell after one."""

START = 25
"""Seconds that the start of Python and of the GPU may have taken before the first section."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--npz", default="", help="images to learn: x_train, y_train, x_test, y_test")
    parser.add_argument("--pack", type=Path, help="write 50 MB of CIFAR-10 as such a file, and end")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if given.pack:
        print(f"{given.pack}: {packed(given.pack):,} images of CIFAR-10")
        return
    gpu = torch.cuda.is_available()
    if not (gpu or given.tiny):
        raise SystemExit("benchmarks.gpu: found no GPU, allowed: --tiny, which takes any processor")
    unknown = set(given.only.split(",")) - set(SECTIONS)
    if unknown:
        raise SystemExit(f"--only: found {', '.join(sorted(unknown))}, allowed: {', '.join(SECTIONS)}")
    started = time.monotonic()
    setting = Setting(torch.device("cuda", 0) if gpu else torch.device("cpu"), given.tiny, given.npz)
    card = torch.cuda.get_device_name() if gpu else processor()
    words = {"--only": given.only, "--npz": given.npz and Path(given.npz).name, "--minutes": f"{given.minutes:g}"}
    usual = {"--only": parser.get_default("only"), "--npz": "", "--minutes": "8"}
    said = [f" {name} {word}" for name, word in words.items() if word != usual[name]]
    command = "python -m benchmarks.gpu" + "".join(said) + " --tiny" * given.tiny
    head = f"{command}; {card}, torch {torch.__version__}, clsim {__version__} at {code_state()}"
    print(head, flush=True)
    chosen = {name: SECTIONS[name] for name in SECTIONS if name in given.only.split(",")}
    found, failed = [], False
    for name, row in taken(chosen, setting, max(60 * given.minutes - START, 1)):
        value = "" if row.value is None else f"{row.value:.4g}"
        print(f"{name:<10} {row.what:<66} {value:>9} {row.unit:<12} {row.note}".rstrip(), flush=True)
        found.append((name, row))
        failed = failed or row.note.startswith("failed")
        if given.csv:
            write(given.csv, head, found)
    print(f"{time.monotonic() - started:.0f} s")
    if failed:
        raise SystemExit("benchmarks.gpu: a measurement failed; its row says why")


if __name__ == "__main__":
    main()

"""``python -m tests.fuzz``: carry inputs out, and say what they found, by cause."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import make
from tests.fuzz.arena import Arena
from tests.fuzz.case import KINDS, Case, read

REPLAY = "python -m tests.fuzz --replay"


def fuzz(
    arena: Arena,
    *,
    seed: int,
    inputs: int,
    seconds: float = float("inf"),
    first: int = 0,
    kinds: Sequence[str] = KINDS,
    keep: Path | None = None,
) -> tuple[Counter[str], dict[str, list[Case]]]:
    """Carry inputs out until there are enough, or the time is up.

    Args:
        kinds: the kinds of inputs.
        keep: a folder for the first input of each cause; None: none is kept.

    Returns:
        How many inputs there were of each kind, of each end and in all; and the inputs that failed, by cause.
    """
    counts: Counter[str] = Counter()
    found: dict[str, list[Case]] = {}
    began = time.monotonic()
    for number in range(first, first + inputs):
        if time.monotonic() - began > seconds:
            break
        case = make.case(seed, number, kinds)
        ended, faults = arena.carry_out(case, command_line=number % 100 == 99)
        counts.update(["inputs", case.kind, f"{case.kind}: {'failed' if faults else 'held'}"])
        if counts["inputs"] % 500 == 0:
            print(f"{counts['inputs']:,} inputs, {len(found)} causes of failures", file=sys.stderr, flush=True)
        counts.update("long" if one.late else f"exit {one.code}" for one in ended)
        counts["command line"] += number % 100 == 99
        for fault in faults:
            if fault not in found and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                kept = json.dumps({"fault": fault, "number": number}) + "\n" + case.text() + "\n"
                (keep / f"{zlib.crc32(fault.encode()):08x}.json").write_text(kept)
            found.setdefault(fault, []).append(case)
    return counts, found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="only inputs of these kinds")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--limit", type=float, default=6.0, help="seconds after which a command is told to stop")
    parser.add_argument("--keep", type=Path, help="folder for the first input of each cause")
    parser.add_argument("--replay", help="an input: a file, JSON, or the number of one of the seed")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with Arena(given.limit) as arena:
        if given.replay:
            return _replay(arena, given.replay, given.seed, given.kinds)
        began = time.monotonic()
        counts, found = fuzz(
            arena,
            seed=given.seed,
            inputs=given.inputs,
            seconds=given.seconds,
            first=given.first,
            kinds=given.kinds,
            keep=given.keep,
        )
    for name, number in sorted(counts.items()):
        print(f"{number:6} {name}")
    for fault, cases in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(cases):6} × {ascii(fault)[1:-1]}\n       {REPLAY} '{cases[0].text()[:2000]}'")
    print(f"{counts['inputs']:,} inputs in {time.monotonic() - began:.0f} s, {len(found)} causes of failures")
    return 1 if found else 0


def _replay(arena: Arena, given: str, seed: int, kinds: Sequence[str]) -> int:
    if given.isdecimal():
        case = make.case(seed, int(given), kinds)
    else:
        text = Path(given).read_text(encoding="utf-8") if not given.startswith("{") else given
        case = read(text.strip().splitlines()[-1] if text.startswith('{"fault"') else text)
    print(case.text(indent=1))
    ended, faults = arena.carry_out(case)
    for one in ended:
        print(f"--- clsim {' '.join(map(ascii, one.words))}\nexit code {one.code} after {one.seconds:.1f} s")
        print(one.out + one.err)
    print(*(faults or ["held"]), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

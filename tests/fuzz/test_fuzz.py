"""The fuzzer for some seconds, what it has found before, and that it would notice what it looks for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clsim.cli import main
from tests.fuzz import arena as place
from tests.fuzz import make
from tests.fuzz.__main__ import fuzz
from tests.fuzz.arena import Arena
from tests.fuzz.case import KINDS, Case, read

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.json"))


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    with Arena() as made:
        yield made


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_before(path: Path, arena: Arena) -> None:
    case = read(path.read_text(encoding="utf-8"))
    faults = arena.carry_out(case)[1]
    if case.known and faults:
        pytest.xfail(case.known)
    assert not faults


def test_some_seconds(arena: Arena) -> None:
    counts, found = fuzz(arena, seed=1, inputs=60, seconds=10)
    assert counts["inputs"]
    assert not found, next(iter(found.values()))[0].text()


@pytest.mark.slow
def test_a_minute(arena: Arena) -> None:
    counts, found = fuzz(arena, seed=2, inputs=10_000, seconds=60)
    assert all(counts[kind] for kind in KINDS)
    assert not found, {fault: cases[0].text() for fault, cases in found.items()}


def test_a_seed_gives_the_same_inputs() -> None:
    first, second = ([make.case(7, number).text() for number in range(300)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 290
    assert all(read(text).text() == text for text in first)
    assert {read(text).kind for text in first} == {*KINDS}


def crash() -> None:
    raise TypeError("from the middle")


def hang() -> None:
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            continue


def wait() -> None:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)


def replace() -> None:
    Path("exported", "train", "state.json").write_text("{}")


def say_nothing() -> None:
    sys.exit(2)


def say_much() -> None:
    print("something", file=sys.stderr)
    sys.exit(2)


def obey() -> None:
    print("\x1b[31m")


def lose() -> None:
    next(Path("runs").glob("*/record.json")).write_text("{}")


def litter() -> None:
    Path("strange.txt").write_text("x")


def leave() -> None:
    Path("../strange.txt").write_text("x")


def import_it() -> None:
    import canary_module  # type: ignore[import-not-found]

    canary_module.__name__  # noqa: B018


def open_a_pickle() -> None:
    os.mkdir(os.environ["FUZZ_MARK"] + "-pickle")


def take_memory() -> None:
    bytearray(1 << 40)


@pytest.mark.parametrize(
    ("wrong", "words", "cause"),
    [
        (crash, ("report",), "traceback: TypeError"),
        (take_memory, ("report",), "traceback: MemoryError"),
        (hang, ("report",), "hang: clsim report"),
        (wait, ("export", "set.npz"), "waits: clsim export"),
        (replace, ("export", "set.npz", "--out", "exported"), "clsim export changed: exported/train/state.json"),
        (litter, ("export", "set.npz", "--out", "exported", "--force"), "clsim export changed: strange.txt"),
        (litter, ("select", "--out", "picks.csv", "--force"), "clsim select changed: strange.txt"),
        (say_nothing, ("run",), "no line of error"),
        (say_much, ("run",), "the last line is no line of error"),
        (obey, ("run",), "control characters in stdout"),
        (lose, ("study",), "lost: runs/RUN/record.json"),
        (lose, ("runs",), "reading changed: runs/"),
        (litter, ("report",), "reading changed: strange.txt"),
        (leave, ("run",), "wrote outside: deep/strange.txt"),
        (import_it, ("report", "mine.toml"), "code run: an import"),
        (open_a_pickle, ("run",), "code run: a pickle"),
    ],
)
def test_it_notices(
    wrong: Callable[[], None], words: tuple[str, ...], cause: str, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "main", wrong)
    monkeypatch.setattr(place, "PATIENCE", 0.2)
    faults = arena.carry_out(Case("words", (words,)), limit=0.3)[1]
    assert [fault for fault in faults if fault.startswith(cause)], faults

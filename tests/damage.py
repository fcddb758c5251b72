"""Damage to the files of a run: by byte, as a disk does it, and by value, as somebody with intent does it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import clsim
from clsim.errors import InputError
from clsim.records import search
from clsim.records.frame import frame
from clsim.records.overview import overview
from clsim.records.store import RunFolder, Store
from clsim.reporting.report import readable
from clsim.training.progress import Quiet

JUNK: list[Any] = [
    *(None, True, False, -1, 0, 3, 10**30, 0.5, -0.5, 1e308, float("inf"), float("nan"), "x", "", "\ud800", "9999"),
    *([], {}, [None], [[]], {"a": 1}, [0.5, 2.0], [0] * 10, {"x": {"y": []}}),
]
"""What is put in the place of a value."""


class Stopping(Quiet):
    """Stops a run as an experience begins, or at a trial of a search, or at a label round."""

    def __init__(self, experience: int, *, trial: int = 0, asked: int = 0) -> None:
        self.at, self.trials, self.rounds, self.position = experience, trial, asked, -1

    def experience(self, position: int, total: int, images: int) -> None:
        self.position = position
        if position == self.at and not self.trials and not self.rounds:
            raise KeyboardInterrupt

    def trial(self, trial: search.Trial) -> None:
        self.trials -= self.position == self.at
        if self.position == self.at and self.trials == 0:
            raise KeyboardInterrupt

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        if self.position == self.at and number == self.rounds:
            raise KeyboardInterrupt


def bytes_of(content: bytes, rng: random.Random) -> bytes:
    """Cut content short, or flip bits of it, or swap a part of it for zeros."""
    how = rng.randrange(4)
    place = rng.randrange(len(content))
    if how == 0:
        return content[:place]
    if how == 1:
        return content[: place - place % 512] + bytes(512) + content[place - place % 512 + 512 :]
    out = bytearray(content)
    for _ in range(1 if how == 2 else 8):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def values_of(content: Any, rng: random.Random) -> Any:
    """Copy content with one value replaced, removed or added, at any depth."""
    content = copy.deepcopy(content)
    inner, depth = content, rng.randrange(1, 8)
    while depth:
        keys = _keys(inner)
        deeper = [key for key in keys if isinstance(inner[key], (dict, list)) and inner[key]]
        if not deeper or depth == 1:
            break
        inner, depth = inner[rng.choice(deeper)], depth - 1
    keys = _keys(inner)
    key, how = rng.choice(keys), rng.randrange(8)
    if how == 0:
        del inner[key]
    elif isinstance(inner[key], torch.Tensor) and how < 6:
        inner[key] = _tensor(inner[key], rng)
    elif type(inner[key]) in (int, float) and how < 4:
        inner[key] = rng.choice([-inner[key], inner[key] + 1, inner[key] * 2, float(inner[key]), str(inner[key])])
    elif isinstance(inner[key], list) and inner[key] and how < 4:
        inner[key] = rng.choice([inner[key][:-1], inner[key] * 2, inner[key][0]])
    else:
        inner[key] = copy.deepcopy(rng.choice(JUNK))
    return content


def _keys(inner: Any) -> list[Any]:
    return list(inner) if isinstance(inner, dict) else list(range(len(inner)))


def _tensor(value: torch.Tensor, rng: random.Random) -> Any:
    other = torch.float64 if value.dtype == torch.int64 else torch.int64
    changes: list[Callable[[], Any]] = [
        lambda: value[:-1] if value.ndim else value.reshape(1),
        lambda: value.flatten()[:1],
        lambda: torch.zeros(0, dtype=value.dtype),
        lambda: value.unsqueeze(0),
        lambda: value.nan_to_num().to(other),
        lambda: torch.full_like(value, 10**9 if value.dtype == torch.int64 else 100),
        lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else -torch.ones_like(value),
        lambda: value.expand(3, *value.shape),
        lambda: value.to_sparse() if value.ndim else "x",
        lambda: value.tolist(),
        lambda: 1.5,
        lambda: None,
    ]
    return rng.choice(changes)()


def read_all(runs: Path) -> list[str]:
    """Read all that a folder of runs holds; return the lines of what is refused. Anything but a line is raised."""
    lines = list[str]()
    records, problems = readable(Store(runs))
    lines += problems
    overview(Store(runs))
    Store(runs).failures()
    for record in records:
        frame([record.data])
        repr(record), record._repr_html_(), record.line, record.accuracy
    for path in Store(runs).folders():
        folder = RunFolder(path)
        folder.audit()
        for reads in (folder.checkpoint, folder.rounds, lambda p=path: search.load(p, 1)):
            lines += _refused(reads)
        record = records[0] if records and records[0].folder == path else None
        if record is not None:
            lines += _refused(lambda r=record: r.losses)
    for line in lines:
        assert "\n" not in line
        assert line.isprintable()
        assert len(line) < 600
    return lines


def _refused(reads: Callable[[], Any]) -> list[str]:
    try:
        reads()
    except InputError as error:
        return [str(error)]
    return []


def resumed(how: dict[str, Any], runs: Path) -> list[list[float]] | str:
    """Run a command on a folder; return its accuracies or, if it is refused, the line. Nothing on disk is lost then."""
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name != "lock"}
    try:
        record = clsim.run(**how, runs=runs)
    except InputError as error:
        line = str(error)
        assert "\n" not in line
        assert line.isprintable()
        left = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name != "lock"}
        lost = [path.name for path in before if left.get(path) != before[path] and path.name != "search.json"]
        assert not lost, (line, lost)
        return line
    return record.data["accuracy"]

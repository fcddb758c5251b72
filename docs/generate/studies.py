"""The CSVs of reports/results: what stands on top of each, its runs, and the report and the study that it is of."""

from __future__ import annotations

import io
import itertools
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from clsim.errors import InputError
from clsim.records.frame import COSTS, NAMES
from clsim.records.metrics import ALL, FURTHER, Metric
from clsim.reporting.report import ReportSpec, find_report
from clsim.spec import registry

TITLES = {
    "condense": "Memories that are made: Fashion-MNIST and CIFAR-10 with 1, 10 and 50 images a class",
    "condense-close": "Memories that are made: four close classes of Fashion-MNIST",
    "condense-early": "Memories that are made: early-stage, perturbed nets",
    "gpu": "Steps a second on a GPU",
    "pool-roles": "Every selector on split digits, before and after pools had roles; and without weights",
    "similar": "SIMILAR in small: rare classes, outsiders and copies on Fashion-MNIST",
    "split-cifar100-condensed": "Memories that are made, on Split CIFAR-100",
}
"""Titles of the CSVs that belong to no study or report alone."""

ABOUT = ("seed", "diverged", "version", "code", "commit", "processor", "command")
"""Columns that say where a run comes from, and whether its net broke down."""

OWN = ("deviation", "loss", "loss_stored")
"""Numbers that tables leave out: they are of a method's own making, and compare nothing."""

READ = ("labelling.split", "labelling.initial")
"""Settings that tables read and CSVs need not name: they are taken from the commands."""


OF_BATCHES = {
    name: Metric(label, float)
    for name, label in {
        "accuracy_at_steps": "accuracy at equal gradient steps",
        "accuracy_at_candidates": "accuracy at equal candidates",
    }.items()
}
"""What tables show of the numbers that a report on batches adds to the CSV of its runs."""
OF_BATCHES |= {name: FURTHER[name] for name in ("wrong_trained", "learnt_before")}


@dataclass(frozen=True)
class Study:
    """A CSV of results.

    Attributes:
        path: the file.
        comments: its comment lines, without the sign.
        rows: its rows, as they stand there.
    """

    path: Path
    comments: tuple[str, ...]
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        """The file's name without its ending, which is the page's name too."""
        return self.path.stem

    @property
    def report_name(self) -> str:
        """The name of the shipped report that made the file; empty if none did."""
        return self._named(r"clsim report (\S+) --format runs")

    @property
    def study_name(self) -> str:
        """The name of the shipped study whose runs these are; empty if they are of none."""
        return self._named(r"clsim study ([\w.+-]+)")

    def _named(self, pattern: str) -> str:
        found = [match[1] for line in self.comments if (match := re.match(pattern, line))]
        return found[0] if found else ""

    @cached_property
    def report(self) -> ReportSpec | None:
        """The report with the metrics that the file has; its filter and its choice of trials the file has passed."""
        if not self.report_name:
            return None
        spec = find_report(self.report_name)
        own = OF_BATCHES if spec.batches else {}
        metrics = tuple(name for name in (*spec.metrics, *own) if name in self.rows)
        return replace(spec, filter={}, exclude={}, tuned=(), metrics=metrics, own={**spec.own, **own})

    @property
    def about(self) -> dict[str, str]:
        """Title and description of the study's file."""
        if not self.study_name:
            return {}
        tables = registry.read_toml(registry.find_file("studies", self.study_name))
        return {key: str(tables.get(key, "")) for key in ("title", "description")}

    @property
    def title(self) -> str:
        """The title of the page."""
        report = self.report.title if self.report else ""
        return TITLES.get(self.name) or self.about.get("title") or report or self.name

    @property
    def codes(self) -> list[str | None]:
        """The recorded state of the code of each row: a digest or a commit; None where there is none.

        Without a column of its own, it is what the comment lines name, for all rows: ``clsim VERSION at COMMIT``.
        """
        column = next((name for name in ("code", "commit") if name in self.rows), None)
        if column is None:
            named = [code for line in self.comments for code in re.findall(r"\bclsim \S+ at ([0-9a-f]{12}\S*)", line)]
            return [", ".join(dict.fromkeys(code.rstrip(",;") for code in named)) or None] * len(self.rows)
        return [None if value != value or value in ("", "–") else str(value) for value in self.rows[column]]

    @property
    def commands(self) -> list[str]:
        """The command of each row; empty where there is none."""
        column = self.rows["command"] if "command" in self.rows else pd.Series([""] * len(self.rows))
        return ["" if value != value else str(value) for value in column]

    @property
    def seeds(self) -> int:
        """Number of different seeds."""
        return int(self.rows["seed"].nunique()) if "seed" in self.rows else 0

    @cached_property
    def date(self) -> str:
        """Day of the file's last commit; empty where that is not known."""
        command = ["git", "log", "-1", "--format=%cs", "--", self.path.name]
        try:
            done = subprocess.run(command, cwd=self.path.parent, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The rows as reports read runs: with every column that a table of the report asks for."""
        runs = self.rows.copy()
        runs["fingerprint"] = [str(i) for i in range(len(runs))]
        for name in NAMES:
            if name not in runs:
                runs[name] = "–"
        runs["scenario_file"] = runs["scenario"]
        for name in ("version", "code", "processor"):
            if name not in runs:
                runs[name] = None
        if "seed" not in runs:
            runs["seed"] = range(len(runs))
        runs["sources"], runs["revisions"], runs["unsized"], runs["train_passes"] = "", "", False, 0.0
        runs["stream.presentation"] = [_presentation(str(name)) for name in runs["strategy"]]
        given = [_settings(command) for command in self.commands]
        for name in READ:
            if name not in runs and any(name in of for of in given):
                runs[name] = [_number(of.get(name)) for of in given]
        return runs

    @property
    def figures(self) -> list[Path]:
        """Pictures that lie beside the file and begin with its name, and with no longer name of another file."""
        names = sorted((p.stem for p in self.path.parent.glob("*.csv")), key=len, reverse=True)
        return [
            p
            for p in sorted(self.path.parent.glob("*.png"))
            if next((name for name in names if p.stem == name or p.stem.startswith(f"{name}-")), "") == self.name
        ]

    @property
    def labels(self) -> list[str]:
        """Columns that tell what was run, in a file that no report made."""
        words = [name for name in self.rows if name not in ("command", "code", "commit", "processor", "seed")]
        words = [name for name in words if name in ("ipc", "nets") or not _numeric(self.rows[name])]
        return [name for name in words if name != "version" or not self.rows[name].astype(str).str.match(r"\d").all()]

    @property
    def numbers(self) -> list[str]:
        """Columns of numbers that were measured, in a file that no report made."""
        left_out = {*self.labels, *ABOUT, *OWN}
        return [name for name in self.rows if name not in left_out and _numeric(self.rows[name])]

    @property
    def measured(self) -> list[str]:
        """The metrics and the costs of the file, by the names that reports have for them."""
        return [name for name in self.rows if name in ALL or name in COSTS]


def read_study(path: Path) -> Study:
    """Read a CSV of results.

    Raises:
        InputError: if the file has no row.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    top = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comments = tuple(line.lstrip("#").strip() for line in lines[:top])
    if len(lines) < top + 2:
        raise InputError(f"{path}: found no row, allowed: one or more")
    rows = pd.read_csv(io.StringIO("".join(lines[top:])), keep_default_na=False, na_values=[""])
    return Study(path, comments, rows)


def read_studies(folder: Path) -> list[Study]:
    """Read all CSVs of a folder, in the order of their names."""
    return [read_study(path) for path in sorted(folder.glob("*.csv"))]


def without_seed(command: str) -> str:
    """Leave the seed out of a command."""
    return re.sub(r" --seed \d+\b", "", command)


def _settings(command: str) -> dict[str, str]:
    """Return the ``--set`` settings of a command."""
    words = shlex.split(command)
    given: Sequence[str] = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
    return {key: value for key, _, value in (text.partition("=") for text in given)}


def _number(value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value


def _numeric(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))


def _presentation(strategy: str) -> str:
    """Return how a shipped strategy shows the stream; ``separate`` for one that is not shipped."""
    if strategy not in registry.file_names("strategies"):
        return "separate"
    tables = registry.read_toml(registry.find_file("strategies", strategy))
    return str(tables.get("stream", {}).get("presentation", "separate"))

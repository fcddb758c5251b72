"""A report as one self-contained HTML page: no request leaves it, and every number leads to the runs behind it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clsim.records import atomic, frame
from clsim.records.doubts import overall
from clsim.records.store import RunFailure, RunRecord
from clsim.reporting import report, runs
from clsim.reporting.contents import contents
from clsim.reporting.exhibits import exhibits
from clsim.reporting.names import printable
from clsim.reporting.report import ReportSpec
from clsim.version import __version__

HERE = Path(__file__).parent

CHOICES = 40
"""Values of a label that are offered as a filter; more are searched as text."""

PAIRS = 250
"""Paired tests that a page shows; the conditions that go beyond are left to `clsim report --tests`."""


def write(
    spec: ReportSpec,
    records: Sequence[RunRecord],
    failures: Sequence[RunFailure],
    path: Path,
    command: str = "",
) -> None:
    """Write the page of a report.

    Args:
        records: all finished runs; the report's filter chooses among them.
        failures: runs that ended in an error.
        path: path of the HTML file; its folder is made if there is none.
        command: command that made the report, to be shown beside those of its runs.

    Raises:
        InputError: for an unknown column, or if no run passes the filter.
    """
    atomic.make_folder(path.parent)
    atomic.write(path, render(spec, records, failures, command).encode(errors="replace"))


def render(
    spec: ReportSpec,
    records: Sequence[RunRecord],
    failures: Sequence[RunFailure],
    command: str = "",
) -> str:
    """The page as text. The same records give the same page."""
    import jinja2

    every = frame.frame((r.data for r in records), spec.own)
    row_names, chosen = report.groups(spec, every)
    rows = {row["fingerprint"]: row for row in chosen.to_dict("records")}
    mine = [r for r in records if r.data["fingerprint"] in rows]
    data = [r.data for r in mine]
    parts = contents(spec, every, data, tests=spec.tests, most=PAIRS)
    figures = exhibits(spec, every, mine, parts.further)
    own, common = parts.apart
    numbers = {r["fingerprint"]: i for i, r in enumerate(data)}
    behind = {
        f"{t}-{i}-{j}": [numbers[run] for run in row[column].runs]
        for t, table in enumerate(parts.shown)
        for i, row in enumerate(table.rows.values())
        for j, column in enumerate(table.columns)
        if column in row and row[column].runs
    }
    script = Markup((HERE / "page.js").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    environment.policies |= {"json.dumps_function": _dumped, "json.dumps_kwargs": {}}
    return environment.get_template("page.html").render(
        spec=spec,
        title=spec.title or "Report",
        filters=[
            (f"{word} {name}", _text(value))
            for word, of in (("only", spec.filter), ("without", spec.exclude))
            for name, value in of.items()
        ],
        facts=_facts(data, chosen["scenario"].nunique()),
        row_names=row_names,
        choices=_choices(parts.shown[0].rows, row_names) if parts.shown else [],
        tables=own,
        common=common,
        arms=parts.arms,
        short=parts.short_names(exhibit.scenario for exhibit in figures.shown),
        contests=[(title, list(of)) for title, of in itertools.groupby(parts.contests, lambda contest: contest.title)],
        left_out=parts.left_out,
        chosen=parts.chosen,
        claims=[*parts.claims, *parts.beside],
        labelling=parts.labelling,
        batches=parts.batches,
        ranking=figures.ranking,
        exhibits=figures.shown,
        reading=figures.notes,
        absent=figures.absent,
        more_scenarios=chosen["scenario"].nunique() - len(figures.shown),
        failures=[(failure.title, failure) for failure in failures],
        doubts=doubts_of(mine, rows),
        commands=runs.commands(str(r["command"]) for r in data),
        without=sum(not r["command"] for r in data),
        command=command,
        versions=_distinct(data, "versions"),
        environments=_distinct(data, "environment"),
        data={**runs.packed(data, rows, spec.own), "cells": behind, "viridis": _viridis()},
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=script,
        digest=Markup(digest),
        version=__version__,
    )


def doubts_of(records: Iterable[RunRecord], fingerprints: Container[str]) -> list[str]:
    """Say what a reader of the records with these fingerprints should know, a line for each kind of doubt."""
    return overall([(r.data, r.checked) for r in records if r.data["fingerprint"] in fingerprints])


def _plain(value: Any) -> Any:
    """Replace control characters, and marks that turn the direction of writing, by spaces; our own parts have none."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _dumped(value: Any) -> str:
    """Write a value as JSON whose texts are as :func:`_plain` has them."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = re.sub(r"(\\\\)|\\u00[01][0-9a-f]|\\[bfnrt]", lambda found: found[1] or " ", text)
    return text if text.isprintable() else printable(text)


def _facts(data: Sequence[Mapping[str, Any]], scenarios: int) -> list[tuple[str, str]]:
    """List how many runs, scenarios and seeds the report uses, and the versions and dates of its runs."""
    specs = [r["spec"] for r in data]
    ended = sorted(str(r["ended"])[:10] for r in data if r.get("ended"))
    facts = [
        ("runs", str(len(data))),
        ("scenarios", str(scenarios)),
        ("seeds", str(len({s["seed"] for s in specs}))),
        ("clsim", ", ".join(sorted({str(r["versions"].get("clsim", "?")) for r in data}))),
    ]
    if ended:
        facts.append(("runs ended", ended[0] if ended[0] == ended[-1] else f"{ended[0]} to {ended[-1]}"))
    return facts


def _choices(rows: Any, names: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Position, name and values of the row labels that a reader may filter by."""
    found = []
    for i, name in enumerate(names):
        values = list(
            dict.fromkeys(key[i] for key, cells in rows.items() if any(c.published is None for c in cells.values()))
        )
        if 1 < len(values) <= CHOICES:
            found.append((i, name, values))
    return found


def _distinct(data: Sequence[Mapping[str, Any]], key: str) -> list[tuple[str, int]]:
    """The different values of a table of the records, in words, with the number of runs of each."""
    counts: dict[str, int] = {}
    for record in data:
        values = record.get(key) or {}
        words = ", ".join(f"{k} {v}" for k, v in values.items()) if isinstance(values, dict) else str(values)
        counts[words] = counts.get(words, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _viridis() -> list[str]:
    """The colours of accuracy, for the matrices of single runs, from 0 to 100 % in steps of 5."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(matplotlib.colormaps["viridis"](i / 20)) for i in range(21)]

"""Reports as markdown and as CSV. Names are escaped, so that they are neither markup nor formulas."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError
from clsim.records.frame import frame
from clsim.records.store import RunFailure
from clsim.reporting.batch_tables import of_runs
from clsim.reporting.cells import BEST, TIED, Table, natural
from clsim.reporting.comparisons import Contest
from clsim.reporting.listing import Listing, Mark
from clsim.reporting.names import printable
from clsim.reporting.report import ReportSpec, groups

if TYPE_CHECKING:
    import pandas as pd


def to_markdown(listing: Listing) -> str:
    """Write a table as GitHub's markdown has it, with the notes below; the best in bold."""
    lines = [listing.header, [*["---"] * len(listing.names), *["---:"] * len(listing.columns)]]
    body = ["| " + " | ".join([*map(escaped, lines[0])]) + " |", "| " + " | ".join(lines[1]) + " |"]
    for line in listing.lines:
        entries = [_marked(escaped(text), look) for text, look in line.marked]
        body.append("| " + " | ".join([*map(escaped, line.labels), *entries]) + " |")
    notes = map(escaped, listing.notes)
    parts = [f"**{escaped(listing.title)}**", *(["\n".join(body)] if listing.lines else []), *notes]
    return "\n\n".join(parts) + "\n"


def _marked(text: str, look: Mark) -> str:
    return f"**{text}** \\{BEST}" if look == "best" else f"{text} \\{TIED}" if look == "tied" else text


def failures_to_markdown(failures: Sequence[RunFailure]) -> str:
    """Write a list of the failed runs, a point for each."""
    lines = [f"- {escaped(f'{f.title}: {f.error}')} — {escaped(f.command)}" for f in failures]
    return f"**Failed runs: {len(failures)}**\n\n" + "\n".join(lines) + "\n"


def doubts_to_markdown(doubts: Sequence[str]) -> str:
    """Write a list of what a reader of the runs should know, a point for each."""
    return "**To know of these runs**\n\n" + "\n".join(f"- {escaped(line)}" for line in doubts) + "\n"


def to_csv(made: Iterable[Table]) -> str:
    """Write all tables as one, a row for each cell: labels, metric, mean, 95 % interval, seeds, marks, and runs."""
    numbers = ["metric", "mean", "half_width_95", "low_95", "high_95", "n", "best", "tied", "seeds", "runs"]
    numbers += ["published", "published_plus_minus"]
    rows: list[Sequence[Any]] = []
    made = list(made)
    names = list(dict.fromkeys(name for table in made for name in (*table.row_names, *table.column_names)))
    for table in made:
        for key, found in table.rows.items():
            source = table.sources[table.published[key] - 1] if key in table.published else ""
            for column, cell in found.items():
                interval = (cell.half_width, *cell.bounds)
                marks = (len(cell.sample), int(cell.best), int(cell.tied))
                behind = (" ".join(map(str, cell.seeds)), " ".join(cell.runs))
                paper = (source, cell.published[1] if cell.published and len(cell.published) > 1 else None)
                labels = dict(zip((*table.row_names, *table.column_names), (*key, *column), strict=True))
                shown = (labels.get(name) for name in names)
                rows.append((*shown, table.metric, cell.mean, *interval, *marks, *behind, *paper))
    return _csv((*names, *numbers), rows)


def contests_to_csv(contests: Iterable[Contest]) -> str:
    """Write all paired tests as one table, a row for each pair."""
    numbers = ["n", "difference", "low_95", "high_95", "p", "p_holm", "p_wilcoxon", "p_wilcoxon_holm"]
    numbers += ["p_games_howell", "wins", "losses", "seeds_needed", "kruskal", "p_kruskal"]
    labels: list[str] = []
    rows: list[Sequence[Any]] = []
    for contest in contests:
        arms = contest.arm_names
        labels = [*contest.condition_names, *(f"a.{n}" for n in arms), *(f"b.{n}" for n in arms)]
        for c in contest.pairs:
            tests = (c.n, c.difference, c.low, c.high, c.p, c.p_holm, c.p_wilcoxon, c.p_wilcoxon_holm, c.p_games_howell)
            counts = (c.wins, c.losses, c.seeds_needed, contest.kruskal, contest.p_kruskal)
            rows.append((contest.metric, *contest.condition, *c.a, *c.b, *tests, *counts))
    return _csv(["metric", *labels, *numbers], rows)


def to_runs(spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> str:
    """Write the runs of a report's filter, a row for each: labels, seed, metrics (shares of 1), costs, where from.

    ``diverged`` is whether a loss was not finite.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.
    """
    ordered, labels, names = _ordered(spec, runs, records)
    shown = ordered[[*labels, *spec.metrics, *names, "diverged", "version", "code", "processor", "command"]]
    return shown.map(guarded).to_csv(index=False, float_format="%.6g")


def to_parquet(spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> bytes:
    """Write the runs of a report's filter as Parquet, a row for each, with every column of the table of runs.

    A column of one type keeps it; values of several types are text, as of ``memory``, which is a number or a share.

    Args:
        runs: the :func:`clsim.records.frame.frame` of the records.

    Raises:
        InputError: if pyarrow is not installed.
    """
    ordered, labels, names = _ordered(spec, runs, records)
    front = [*dict.fromkeys((*labels, *spec.metrics, *names))]
    shown = ordered[[*front, *(name for name in ordered.columns if name not in front)]].reset_index(drop=True)
    return as_parquet(shown)


def records_to_parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Write records as Parquet, a row for each, with every column of :func:`clsim.records.frame.frame`."""
    return as_parquet(frame(records))


def as_parquet(table: pd.DataFrame) -> bytes:
    """Write a table as Parquet, a column of several types as text.

    Raises:
        InputError: if pyarrow is not installed.
    """
    shown = table.copy()
    for name in shown.columns:
        values = shown[name]
        if values.dtype == object and len({type(value) for value in values if value is not None}) > 1:
            shown[name] = [None if value is None else str(value) for value in values]
    content = io.BytesIO()
    try:
        shown.to_parquet(content, engine="pyarrow", index=False)
    except ImportError:
        raise InputError("--format parquet: needs pyarrow; allowed: after pip install 'clsim[hf]'") from None
    return content.getvalue()


def _ordered(
    spec: ReportSpec, runs: pd.DataFrame, records: Sequence[Mapping[str, Any]]
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Sort the runs of a report's filter; also name the columns of their labels and those of further numbers."""
    row_names, chosen = groups(spec, runs)
    labels = [*spec.columns, *(n for n in row_names if n != "seed"), *([] if "seed" in spec.columns else ["seed"])]
    ordered = chosen.sort_values(labels, key=lambda column: column.map(lambda value: natural([str(value)])[0]))
    further = of_runs(spec, runs, records)
    names = [name for name in dict.fromkeys(key for of in further.values() for key in of) if name not in spec.metrics]
    ordered = ordered.assign(
        **{name: [further.get(run, {}).get(name, math.nan) for run in ordered["fingerprint"]] for name in names}
    )
    return ordered, labels, names


def escaped(text: str) -> str:
    """Escape text so that markdown shows it as it is."""
    text = re.sub(r"([\\`*\[\]|~$!])", r"\\\1", printable(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word, an underscore is no markup
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def guarded(value: Any) -> Any:
    """Put an apostrophe before text that begins with one of ``= + - @``, a formula to a spreadsheet."""
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in value)
    number = re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", text)
    return f"'{text}" if re.match(r"\s*[=+\-@＝＋－＠]", text) and not number else text


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write CSV; an entry without a value (None or NaN) is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([guarded(name) for name in header])
    for row in rows:
        writer.writerow(["" if v is None or v != v else guarded(v) for v in row])
    return out.getvalue()

"""What ``clsim reproduce`` does, from Python: ``clsim.reproduce("rho-loss").verdicts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clsim.errors import InputError
from clsim.execution.engines.engine import EngineSpec
from clsim.execution.study import StudyResult, StudyWatch, carry_out
from clsim.records.store import RunRecord, Store
from clsim.reporting import page, reproduction
from clsim.reporting.claims import Judged, expected
from clsim.reporting.papers import Paper, find_paper
from clsim.reporting.report import failed
from clsim.reporting.results import Report

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Reproduction:
    """A paper reproduced: its runs, and its claims with what was found.

    Attributes:
        name: the paper, as it was named.
        size: ``small`` or ``published``.
        paper: the paper.
        result: its runs, and what went wrong among them.
        claims: its claims, judged.
        pages: the pages that were written.
    """

    name: str
    size: str
    paper: Paper
    result: StudyResult
    claims: tuple[Judged, ...]
    pages: tuple[Path, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The records of the runs that are finished."""
        return tuple(self.result.records)

    @property
    def verdicts(self) -> dict[str, str]:
        """Each claim → ``holds``, ``does not hold``, ``cannot be told`` or ``not judged``."""
        return {one.claim.text: one.verdict for one in self.claims}

    def frame(self) -> pd.DataFrame:
        """Return a table with a row for each claim: what is claimed, the verdict, the mean, its 95 % interval, why."""
        import pandas as pd

        names = ["claim", "claimed", "verdict", "n", "mean", "low", "high", "why"]
        rows = [
            (one.claim.text, expected(one.claim), one.verdict, len(one.values), _mean(one), one.low, one.high, one.why)
            for one in self.claims
        ]
        return pd.DataFrame(rows, columns=names)

    def __repr__(self) -> str:
        said = reproduction.in_short(self.claims, self.size) or "no claim to judge by runs"
        failed = f", {len(self.result.failures)} failed" if self.result.failures else ""
        return f"<Reproduction of {self.name}, {self.size}: {said}; {len(self.records)} runs{failed}>"

    def _repr_html_(self) -> str:
        import html

        return f"<div><strong>{html.escape(repr(self)[1:-1])}</strong>{self.frame().to_html(index=False)}</div>"


def reproduce(
    name: str,
    size: str = "small",
    *,
    workers: int | None = None,
    device: str | None = None,
    runs: str | Path = "runs",
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    watch: StudyWatch | None = None,
) -> Reproduction:
    """Reproduce a paper: make its runs, and judge its claims; what was run before is read.

    Args:
        name: a paper that ``clsim reproduce`` lists, or the path of a report with a table ``[paper]``.
        size: ``small``, a quarter of an hour of two cores at most, or ``published``, the paper's.
        workers: runs at a time; None: as the machine allows.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        runs: the folder of all runs.
        data_root: folder of the data sets; by default ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        out: the folder that gets the pages of results; None: none is written.
        fresh: whether to run anew even if there are records.
        watch: is told how far the runs are.

    Raises:
        InputError: for anything in the arguments that is wrong. What goes wrong in a run is among the failures.
    """
    paper = find_paper(name)
    of_size = paper.size(size, f"reproduce {name}")
    reproduction.check(paper, of_size)
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"out: {str(out)!r} is a file, allowed: a folder")
    training: Mapping[str, Any] = {} if device is None else {"device": device}
    planned = reproduction.planned(of_size, Store(Path(runs)), training)
    engine = EngineSpec("local", workers, device=device or "auto")
    result = carry_out(planned, Store(Path(runs)), engine, data_root=data_root, fresh=fresh, watch=watch)
    made = reproduction.reports(paper, of_size, result.records) if result.records else []
    pages = () if out is None else write_pages(name, size, made, result, Path(out))
    claims = tuple(one for report in made for one in reproduction.judged(report))
    return Reproduction(name, size, paper, result, claims, pages)


def write_pages(name: str, size: str, made: list[Report], result: StudyResult, folder: Path) -> tuple[Path, ...]:
    """Write a page for each report of a paper; return where they are.

    Args:
        name: the paper as it was named.
        size: the size.
        made: its reports.
        result: its runs.
        folder: the folder of the pages.
    """
    pages = []
    for report in made:
        own = f"-{report.name}" if len(made) > 1 else ""
        pages.append(folder / f"{Path(name).stem}-{size}{own}.html")
        command = f"clsim reproduce {name} --size {size}"
        page.write(report.spec, report.records, failed(report.spec, result.failures), pages[-1], command)
    return tuple(pages)


def _mean(one: Judged) -> float:
    return sum(one.values) / len(one.values) if one.values else float("nan")

"""What it takes to reproduce a paper in one of its sizes, and what came of its runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clsim.execution import plan
from clsim.execution.plan import Planned
from clsim.records.frame import frame
from clsim.records.store import RunRecord, Store
from clsim.reporting.claims import Judged, judge
from clsim.reporting.papers import Paper, Size
from clsim.reporting.report import Published, find_report
from clsim.reporting.results import Report, make


@dataclass(frozen=True)
class Cost:
    """What the unfinished runs of a size are expected to take.

    Attributes:
        seconds: seconds of a core; None: not known.
        source: what it is estimated by, in words; why it is not known.
    """

    seconds: float | None
    source: str


@dataclass(frozen=True)
class Outlook:
    """A size before its runs.

    Attributes:
        runs, finished: number of its runs, and of those that are finished.
        seconds, source: as for :class:`Cost`.
    """

    runs: int
    finished: int
    seconds: float | None
    source: str


def check(paper: Paper, size: Size, say: Callable[[str], None] | None = None) -> None:
    """Refuse a size whose reports cannot be read, before any run.

    Args:
        say: takes a line on each file of code that a report's file makes it import; None: nobody is told.

    Raises:
        InputError: naming the report.
    """
    for name in dict.fromkeys((*size.reports, *paper.published.reports)):
        find_report(name, say)


def planned(size: Size, store: Store, training: Mapping[str, Any] | None = None) -> list[Planned]:
    """List every run of a size once, with the seconds that are known of it.

    Args:
        size: the size, with its studies.
        store: the store, which says how far each run is.
        training: device and number of threads, where the command line names them.

    Raises:
        InputError: if there is no such study, or something in it is wrong.
    """
    found = _planned(size, store, training)
    return found if all(run.finished for run in found) else plan.with_expected_seconds(found, store)


def _planned(size: Size, store: Store, training: Mapping[str, Any] | None = None) -> list[Planned]:
    found: dict[str, Planned] = {}
    for study in size.studies:
        for run in plan.plan(plan.find_study(study), store, training):
            found.setdefault(run.spec.fingerprint, run)
    return list(found.values())


def number(size: Size, store: Store) -> int:
    """Count the runs of a size, whatever is finished of them: those of one seed, for each seed."""
    found: dict[str, int] = {}
    for study in map(plan.find_study, size.studies):
        first = plan.plan(dataclasses.replace(study, seeds=study.seeds[:1]), store)
        found |= {run.spec.fingerprint: len(study.seeds) for run in first}
    return sum(found.values())


def outlooks(sizes: Sequence[Size], store: Store) -> list[Outlook]:
    """Count the runs of sizes and estimate what they take; the records of the store are read once for all of them.

    In an empty store, the runs of further seeds need not be looked up: they are only counted.
    """
    if not store.folders():
        counts = [number(size, store) for size in sizes]
        return [Outlook(runs, 0, **vars(_cost(size, [], runs))) for size, runs in zip(sizes, counts, strict=True)]
    every = [_planned(size, store) for size in sizes]
    timed = iter(plan.with_expected_seconds([run for runs in every for run in runs], store))
    found = []
    for size, runs in zip(sizes, every, strict=True):
        expected = cost(size, [next(timed) for _ in runs])
        found.append(Outlook(len(runs), sum(run.finished for run in runs), **vars(expected)))
    return found


def cost(size: Size, runs: Sequence[Planned]) -> Cost:
    """Estimate what the unfinished runs of a size take.

    A run of which the like was recorded here takes as long as that did; any other as long as the file of the paper
    says that its runs take on average, on the machine where they were measured.

    Args:
        runs: the runs of the size, as :func:`planned` gives them.
    """
    todo = [run for run in runs if not run.finished]
    known = [run.seconds for run in todo if run.seconds is not None]
    return _cost(size, known, len(todo) - len(known))


def _cost(size: Size, known: Sequence[float], others: int) -> Cost:
    """Add up the seconds that are known of runs, and those that the paper's file says of a number of others."""
    if not known and not others:
        return Cost(0.0, "all is recorded")
    if not others:
        return Cost(sum(known), "by runs of the like that were made here")
    if not size.seconds:
        return Cost(None, "cost not known, as no run of the like was made here or measured")
    source = f"by {size.measured}" if size.measured else "by seconds that were measured elsewhere"
    return Cost(sum(known) + others * size.seconds, source + (", and by runs that were made here" if known else ""))


def reports(paper: Paper, size: Size, records: Sequence[RunRecord]) -> list[Report]:
    """Make the reports of a size over its own runs alone; the first one has the paper's published rows beside ours.

    Args:
        size: one of the paper's sizes.
        records: the runs of that size.

    Raises:
        InputError: if there is no such report, or no run for it.
    """
    rows: list[Published] = []
    for name in dict.fromkeys([*size.reports, *paper.published.reports]):
        rows += [row for row in find_report(name).published if row not in rows]
    made = []
    for name in size.reports:
        found = make(name, records)[0]
        made.append(dataclasses.replace(found, spec=dataclasses.replace(found.spec, elsewhere=tuple(rows))))
        rows = []
    return made


def judged(report: Report) -> list[Judged]:
    """Judge the claims of a report."""
    return judge(report.spec, frame(report.data, report.spec.own), report.data)


def in_short(found: Sequence[Judged], size: str) -> str:
    """Count the verdicts, in words; empty without a claim.

    >>> from clsim.reporting.report import Claim
    >>> one = Judged(Claim(""), (), 0, 0, "holds")
    >>> in_short([one, dataclasses.replace(one, verdict="cannot be told"), one], "small")
    '2 hold, 1 cannot be told at this size'
    """
    words = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "cannot be told": ("cannot be told", "cannot be told"),
        "not judged": ("is not judged", "are not judged"),
    }
    counts = Counter[str](one.verdict for one in found)
    parts = [f"{counts[verdict]} {said[counts[verdict] > 1]}" for verdict, said in words.items() if counts[verdict]]
    return ", ".join(f"{part} at this size" if "be told" in part and size == "small" else part for part in parts)

"""What ``clsim reproduce`` prints and writes of the runs of a paper: tables, published numbers, verdicts, the page."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from clsim.cli.console import err, out
from clsim.cli.study import print_failures, print_read
from clsim.execution.study import StudyResult
from clsim.reporting import reproduction
from clsim.reporting.claims import Judged, expected
from clsim.reporting.papers import Paper
from clsim.reporting.reproduced import write_pages
from clsim.reporting.screen import plain
from clsim.reporting.show import show


def show_verdicts(
    name: str, paper: Paper, size: str, result: StudyResult, folder: Path, form: Literal["console", "json", "quiet"]
) -> None:
    """Judge the claims of a paper on the runs of one of its sizes, print them, and write a page for each report.

    Args:
        name: the paper as it was named.
        result: the runs of the size.
        folder: the folder of the pages.
        form: ``console``: tables and claims; ``json``: the verdicts; ``quiet``: nothing but what failed.
    """
    if result.failures:  # first, since without these runs a report may be refused
        print_failures(result)
    found = list[Judged]()
    made = reproduction.reports(paper, paper.sizes[size], result.records) if result.records else []
    pages = write_pages(name, size, made, result, folder)
    for report in made:
        found += reproduction.judged(report)
        if form == "console":  # the page has the rest
            brief = dataclasses.replace(report.spec, tests=False, labelling=False, batches=False)
            show(brief, report.data, "console", out, name=report.name)
    if form == "json":
        print(json.dumps({"paper": name, "size": size, "claims": _plain(found), "pages": [*map(str, pages)]}))
    elif form == "console":
        print_read(result)
        said = reproduction.in_short(found, size) or ("no claim to judge by runs" if made else "no run is finished")
        out.print(plain(f"{name}, {size}: {said}", "bold"))
        for page in pages:
            err.say(f"wrote {page}")


def _plain(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return verdicts as JSON has them; an end of an interval that is not there is null."""
    return [
        {"claim": one.claim.text, "claimed": expected(one.claim), "verdict": one.verdict, "why": one.why}
        | {end: value if math.isfinite(value) else None for end, value in (("low", one.low), ("high", one.high))}
        | {"values": list(one.values)}
        for one in found
    ]

"""What ``clsim reproduce`` prints before any run: the list of papers, and the plan of one of their sizes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.padding import Padding
from rich.text import Text

from clsim.cli.console import count, err, out
from clsim.errors import InputError, duration
from clsim.execution import plan
from clsim.execution.plan import Planned
from clsim.records.store import Store
from clsim.reporting import reproduction
from clsim.reporting.names import printable
from clsim.reporting.papers import Paper, Size, every_paper
from clsim.reporting.screen import plain
from clsim.spec.cores import cores

LOOKS = {"verified": "green", "reduced": "yellow", "not yet": "dim"}
"""The style of each state."""


def show_list(store: Store, *, as_json: bool = False) -> None:
    """Print all papers: claims, both sizes with what they cost here, and how far the recorded results go.

    Args:
        store: the store, which says what is finished, and what the like took.
    """
    papers, problems = every_paper()
    for name, paper in [*papers.items()]:  # a broken file of one paper hides no other
        try:
            for size in paper.sizes.values():
                for study in size.studies:
                    plan.find_study(study)
        except InputError as error:
            problems[name] = str(error)
            del papers[name]
    outlooks = reproduction.outlooks([paper.small for paper in papers.values()], store)
    entries = [_entry(*one, small) for one, small in zip(papers.items(), outlooks, strict=True)]
    if as_json:
        print(json.dumps(entries, indent=1))
    else:
        for entry, paper in zip(entries, papers.values(), strict=True):
            _show_paper(entry, paper)
        out.print(
            plain("clsim reproduce NAME --size small, or published; with --dry-run it says what that takes", "dim")
        )
    for name, problem in problems.items():
        err.say(f"clsim: {name} cannot be read: {problem}")


def show_plan(paper: Paper, size: Size, runs: Sequence[Planned], *, as_json: bool = False) -> None:
    """Print what is to be done, what it takes here, and what should be known of it.

    Args:
        size: one of the paper's sizes.
        runs: the runs of that size.
    """
    cost = reproduction.cost(size, runs)
    if as_json:
        print(json.dumps(vars(reproduction.Outlook(len(runs), sum(run.finished for run in runs), **vars(cost)))))
        return
    out.print(plain(paper.cited, "bold"))
    for claim in paper.claims:
        out.print(plain(f"  {claim}", "dim"))
    todo = [run for run in runs if not run.finished]
    begun = sum(run.done > 0 for run in todo)
    line = f"{count(len(runs))}: {len(runs) - len(todo)} finished, {len(todo)} to do"
    line += f" ({begun} of them begun)" if begun else ""
    err.say(f"{line}; {said(cost.seconds, len(todo), cost.source)}")
    for remark in plan.remarks_on(runs):
        err.say(f"clsim: {remark}")


def said(seconds: float | None, todo: int, source: str) -> str:
    """Say what runs take on this machine, and how that is known.

    Args:
        seconds: seconds of a core; None: not known.
        todo: number of runs, which are carried out side by side.

    >>> said(None, 3, "not known"), said(0.0, 0, "all is recorded")
    ('not known', 'all is recorded')
    """
    if not seconds:
        return source
    at_once = max(1, min(cores(), todo))
    return f"about {duration(seconds / at_once)} on {count(at_once, 'core')}, {source}"


def _entry(name: str, paper: Paper, small: reproduction.Outlook) -> dict[str, Any]:
    """Return what is known of a paper; of the published size, what it takes is not looked up."""
    about = {key: vars(paper)[key] for key in ("title", "authors", "year", "key", "claims", "state")}
    sizes = {
        key: {"settings": [plan.find_study(study).title for study in size.studies], **vars(size)}
        for key, size in paper.sizes.items()
    }
    return {"name": name, **about, "small": sizes["small"] | vars(small), "published": sizes["published"]}


def _show_paper(entry: dict[str, Any], paper: Paper) -> None:
    """Print a paper in a few lines."""
    small, published = entry["small"], entry["published"]
    finished = f", {small['finished']} finished" if small["finished"] else ""
    takes = said(small["seconds"], small["runs"] - small["finished"], small["source"])
    lines = [("", "; ".join(paper.claims))]
    lines.append(("small      ", f"{'; '.join(small['settings'])}: {count(small['runs'])}{finished}; {takes}"))
    if published["studies"]:
        lines.append(("published  ", "; ".join(published["settings"])))
    name, state = entry["name"], paper.state
    out.print(Text.assemble((name, "bold cyan"), "  ", (state, LOOKS[state]), "  ", printable(paper.cited)))
    for label, line in lines:
        text = Text.assemble((label, "dim"), printable(line))
        out.print(Padding(text, (0, 0, 0, 4)) if out.is_terminal else Text("    ").append_text(text))

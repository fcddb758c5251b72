"""The page of papers: what each claims, how it is reproduced, and where its results stand."""

from __future__ import annotations

from clsim.execution.plan import find_study
from clsim.reporting.formats import escaped
from clsim.reporting.papers import Paper, every_paper
from docs.generate.text import wide_table


def page() -> str:
    """Write the page of all papers that a shipped report stands for."""
    rows = [_row(name, paper) for name, paper in every_paper()[0].items()]
    heads = ["paper", "claims, in our words", "state", "small size", "published size", "results"]
    said = (
        "`clsim reproduce NAME` makes the runs of a paper, judges its claims and writes a page "
        "([how-to](../howto/reproduce.md)). **Verified**: one of its published numbers is "
        "([what that means](../explanation/verified.md)); **reduced**: results of a small size are recorded."
    )
    return "\n\n".join(["# Papers", said, wide_table(heads, rows)]) + "\n"


def _row(name: str, paper: Paper) -> list[str]:
    sizes = [
        "; ".join(f"{escaped(find_study(study).title)} (`{study}`)" for study in size.studies) or "–"
        for size in (paper.small, paper.published)
    ]
    results = ", ".join(f"[{result}]({result}.md)" for result in paper.results) or "–"
    return [f"`{name}`: {escaped(paper.cited)}", escaped("; ".join(paper.claims)), paper.state, *sizes, results]

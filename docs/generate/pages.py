"""All generated pages, in one call."""

from __future__ import annotations

from pathlib import Path

from docs.generate import reference, results


def write(docs: Path) -> None:
    """Write the pages of the reference and of results into the folder of the documentation."""
    rows = docs.parent / "reports" / "results"
    reference.write(docs / "reference", rows)
    results.write(rows, docs / "results")

"""All generated pages, in one call."""

from __future__ import annotations

from pathlib import Path

from docs.generate import results


def write(docs: Path) -> None:
    """Write the pages of the reference and of results into the folder of the documentation."""
    results.write(docs.parent / "reports" / "results", docs / "results")

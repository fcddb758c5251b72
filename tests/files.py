"""Files of a run's folder, changed and written as clsim writes them: their checksum is right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsim.records import metrics, sealed, states


def rewrite(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with other content, which may have a checksum from before."""
    path.write_bytes(sealed.sealed({key: value for key, value in content.items() if key != sealed.KEY}))


def rewrite_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, or the like, with other content."""
    path.write_bytes(states.packed(state))


def agreeing(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the metrics of its accuracies."""
    computed = metrics.summary(record["accuracy"], record["initial"], sizes=metrics.weights(record))
    return {**record, "metrics": computed}

"""The contract of a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clsim.checks.samples import CheckFailed
from clsim.errors import InputError
from clsim.records.metrics import Metric
from clsim.records.own_metrics import as_metric, of_record


def check_metric(metric: Metric | Callable[..., float]) -> None:
    """Check that a metric gives a number, or NaN, for every accuracy matrix that a run can have, and always the same.

    Raises:
        CheckFailed: at the first broken promise.
    """
    try:
        found = as_metric(metric, "the metric")
        for name, record in _records().items():
            first, again = (of_record("that is checked", found, record) for _ in range(2))
            if first != again:
                raise CheckFailed(f"returned {first} and then {again} of {name}, not the same number")
    except InputError as error:
        raise CheckFailed(str(error)) from error


def _records() -> dict[str, Mapping[str, Any]]:
    """Make records by name: a stream of a single experience, and longer ones whose later experiences are untested."""
    R = np.random.default_rng(0).random((5, 5)).round(3)
    seen = [[value if j <= i else None for j, value in enumerate(row)] for i, row in enumerate(R.tolist())]
    matrices = {
        "five experiences": R.tolist(),
        "five experiences, each tested once it was seen": seen,
        "joint training, tested at its end alone": [[None] * 5] * 4 + [R[-1].tolist()],
        "a single experience": [[0.5]],
        "accuracies of 0": [[0.0] * 3] * 3,
    }
    return {
        name: {"accuracy": accuracy, "initial": [0.1] * len(accuracy), "fingerprint": f"({name})"}
        for name, accuracy in matrices.items()
    }

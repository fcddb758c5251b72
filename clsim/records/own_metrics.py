"""Metrics of the user's: a function of the accuracy matrix, in a file of their own or in an installed package."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clsim.errors import InputError, nearest, raised
from clsim.records.metrics import METRICS, Metric, weights
from clsim.spec import registry

GIVEN = ("sizes", "initial", "joint")
"""What a metric may take beside the accuracy matrix, by the name of its parameter, as the shipped formulas do."""


def own_metric(name: str, where: str = "--metric", shipped: Iterable[str] = ()) -> Metric:
    """Load a metric of the user's.

    The attribute is a :class:`Metric`, or a plain function of the accuracy matrix: the first line of its docstring is
    the heading, its values are shares of 1, and higher ones are better.

    Args:
        name: ``./file.py:attr``, ``module:attr``, or an entry point of the group ``clsim.metrics``.
        where: what names it, for messages.
        shipped: names of shipped metrics, for the message if there is no such name.

    Raises:
        InputError: if there is no such metric, or if it takes what no metric is given.
    """
    installed = registry.component_names("metrics")
    if ":" not in name and name not in installed:
        known = nearest(name, [*shipped, *installed])
        raise InputError(f"{where}: unknown name {name!r}; {known}; or ./file.py:attr, or module:attr")
    return as_metric(registry.component("metrics", name), name, where)


def as_metric(found: Any, name: str, where: str = "metric") -> Metric:
    """Make a metric of a function of the accuracy matrix; a :class:`Metric` stays as it is.

    Raises:
        InputError: if it is neither, or if it takes what no metric is given.
    """
    if isinstance(found, type) or not callable(found):
        what = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise InputError(f"{where}: {name}: found {what}, allowed: a function of the accuracy matrix, or clsim.Metric")
    metric = found if isinstance(found, Metric) else Metric(_label(found, name), found)
    for parameter in _parameters(metric)[1:]:
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if needed and parameter.name not in GIVEN:
            raise InputError(f"{where}: {name}: unknown parameter {parameter.name!r}; {nearest(parameter.name, GIVEN)}")
    return metric


def metrics_named(names: Iterable[str], where: str = "--metric") -> dict[str, Metric]:
    """Find the metrics of names: those of :data:`clsim.records.metrics.METRICS`, and the user's own."""
    return {name: METRICS[name] if name in METRICS else own_metric(name, where, METRICS) for name in names}


def of_record(
    name: str, metric: Metric, record: Mapping[str, Any], joint: Sequence[float | None] | None = None
) -> float | None:
    """Compute a metric of the user's for one run; None where it is not defined, which is NaN.

    Args:
        name: its name, for messages.
        metric: the metric.
        record: the record of the run.
        joint: last row of a joint run on the same stream.

    Raises:
        InputError: if it raises, or returns something else than a number.
    """
    R = np.array(record["accuracy"], dtype=float)
    lacking = np.full(len(R), np.nan)
    given = {
        "sizes": weights(record),
        "initial": np.array(record["initial"], dtype=float),
        "joint": lacking if joint is None else np.array(joint, dtype=float),
    }
    taken = {parameter.name for parameter in _parameters(metric)[1:]} & {*GIVEN}
    run = record.get("fingerprint", "")
    try:
        value = metric.function(R, **{key: given[key] for key in GIVEN if key in taken})
    except Exception as error:  # it is the user's own code
        raise InputError(f"metric {name}: {raised(error)}, for run {run}") from error
    if not isinstance(value, numbers.Real) or math.isinf(value):
        found = " ".join(repr(value).split())[:60]
        allowed = "a finite number, or NaN where it is not defined"
        raise InputError(f"metric {name}: returned {found} for run {run}, allowed: {allowed}")
    return None if math.isnan(value) else float(value)


def _parameters(metric: Metric) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(metric.function).parameters.values())
    except (TypeError, ValueError):  # some functions that are not written in Python have none
        return []


def _label(function: Any, name: str) -> str:
    """Return the first line of a function's docstring without its full stop; else its name."""
    lines = (inspect.getdoc(function) or "").splitlines()
    return lines[0].strip().rstrip(".") if lines and lines[0].strip() else name.rpartition(":")[2].replace("_", " ")

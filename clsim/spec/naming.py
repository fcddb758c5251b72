"""The name of a run's scenario, which says so where the data are not those of the scenario's file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.sources import OWN_DATA


def scenario_name(spec: Mapping[str, Any]) -> str:
    """Name the scenario of a run; where its data set was replaced, with the name of the one in its place.

    Args:
        spec: the spec as it stands in records, or a part of it.

    >>> scenario_name({"scenario": "split-digits", "data": {"dataset": "digits"}})
    'split-digits'
    >>> scenario_name({"scenario": "split-digits", "data": {"dataset": "npz", "path": "mine/faces.npz"}})
    'split-digits on faces.npz'
    """
    name, data = str(spec.get("scenario", "")), spec.get("data")
    try:
        path = registry.find_file("scenarios", name)
        planned = _data(path, path.stat().st_mtime_ns)
    except (InputError, OSError):  # of no file, or of one that is gone
        return name
    return name if not isinstance(data, Mapping) or _same(data, planned) else f"{name} on {data_name(data)}"


def data_name(data: Mapping[str, Any]) -> str:
    """Name a data set in a few words.

    Args:
        data: the table ``[data]`` of a spec.
    """
    dataset = str(data.get("dataset", "digits"))
    if dataset in OWN_DATA:
        return PurePath(str(data.get("path", ""))).name or dataset
    return "+".join(map(str, data.get("sequence", ()))) or dataset


def data_identity(spec: Mapping[str, Any]) -> str:
    """Tell data sets apart: by their content where they are the user's own or Avalanche's, else by their name."""
    digests = [digest for name, digest in spec["sources"] if name in data_sources(spec)]
    return digests[0] if digests else data_name(spec["data"])


def data_sources(spec: Mapping[str, Any]) -> set[str]:
    """Name those among the sources of a spec that hold its data."""
    data = spec["data"]
    return {"benchmark", *([str(data.get("path"))] if data.get("dataset") in OWN_DATA else [])}


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    kinds = [str(data.get("dataset", "digits")) for data in (a, b)]
    paths = [str(data.get("path", "")) if kinds[0] in OWN_DATA else "" for data in (a, b)]
    return kinds[0] == kinds[1] and paths[0] == paths[1] and [*a.get("sequence", ())] == [*b.get("sequence", ())]


@functools.cache
def _data(path: Path, changed: int) -> Mapping[str, Any]:
    """Read the table ``[data]`` of a scenario's file; anew once the file was changed."""
    found = registry.read_toml(path).get("data", {})
    return found if isinstance(found, Mapping) else {}

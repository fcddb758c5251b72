"""The names that people read: of a run, of its scenario, of its data set; and what tells the runs of a list apart."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from clsim import notebook
from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.batch import PRUNERS
from clsim.spec.flags import as_text, leaves
from clsim.spec.hub import plain_name
from clsim.spec.pools import named
from clsim.spec.sources import OWN_DATA


def title(spec: Mapping[str, Any]) -> str:
    """Name a run without its seed: scenario, pool, strategy, who asks for labels and for batches, buffer, controller.

    Args:
        spec: the spec as it stands in records, or a part of it.

    >>> title({"scenario": "split-digits", "strategy": "er", "memory": {"buffer": "kcenter", "capacity": 50}})
    'split-digits · er · kcenter 50'
    """
    words = [scenario_name(spec), str(spec.get("strategy", "")), *label_words(spec), *batch_words(spec)]
    if (pool := named(spec.get("pool"))) != "–":
        words.insert(1, pool)
    memory, controller = spec.get("memory"), spec.get("controller")
    if isinstance(memory, Mapping) and memory.get("buffer", "none") != "none":
        per = "" if memory.get("per", "total") == "total" or memory.get("fraction") else f" a {memory['per']}"
        words.append(f"{memory['buffer']} {memory_size(spec)}{per}".strip())
    if isinstance(controller, Mapping) and controller.get("name", "none") != "none":
        words.append(str(controller["name"]))
    return " · ".join(filter(None, words))


def run_name(spec: Mapping[str, Any], *settings: str) -> str:
    """Name a run: its title, settings that tell it apart, its seed.

    >>> run_name({"scenario": "split-digits", "strategy": "er", "seed": 1}, "optimizer.lr=0.1")
    'split-digits · er · optimizer.lr=0.1 · seed 1'
    """
    return " · ".join([title(spec), *settings, f"seed {spec.get('seed', '?')}"])


def run_names(runs: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]) -> dict[str, str]:
    """Name each run of a list, so that no two have the same name.

    Runs of one title that differ in more than their seed are told apart by the settings that they differ in. Where
    there is no such setting, as after an edit of the user's own code, a piece of the fingerprint stands at the end.

    Args:
        runs: fingerprint → spec, as it stands in records.
        usual: default value of keys that specs leave out, as ``table.key``.

    >>> specs = [{"strategy": "er", "seed": 0, "optimizer": {"lr": lr}, "n": {"k": 1}} for lr in (0.1, 0.2, 0.2)]
    >>> [*run_names(dict(zip(["a0", "b1", "c2"], specs)), {}).values()]
    ['er · optimizer.lr=0.1 · seed 0', 'er · optimizer.lr=0.2 · seed 0 · b1', 'er · optimizer.lr=0.2 · seed 0 · c2']
    """
    alike: dict[str, list[str]] = {}
    for fingerprint, spec in runs.items():
        alike.setdefault(title(spec), []).append(fingerprint)
    found: dict[str, str] = {}
    for group in alike.values():
        values = {name: {**usual, **_settings(runs[name])} for name in group}
        told = _telling([{**values[name], "seed": runs[name].get("seed")} for name in group])
        for name in group:
            shown = [f"{key}={as_text(values[name][key])}" for key in told if key in values[name]]
            found[name] = run_name(runs[name], *shown)
    taken: dict[str, list[str]] = {}
    for fingerprint, text in found.items():
        taken.setdefault(text, []).append(fingerprint)
    for text, group in taken.items():
        if len(group) > 1:
            length = next((n for n in range(4, 16) if len({name[:n] for name in group}) == len(group)), None)
            found |= {name: f"{text} · {name[:length]}" for name in group}
    return {fingerprint: found[fingerprint] for fingerprint in runs}


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a spec by ``table.key``, without those that its title tells or that follow from its seed."""
    tables = {name: values for name, values in spec.items() if isinstance(values, Mapping)}
    return {key: value for key, value in leaves(tables).items() if key not in _TOLD}


_TOLD = {
    *("memory.buffer", "memory.capacity", "memory.fraction", "memory.per", "controller.name"),
    *("labelling.selector", "labelling.budget", "labelling.fraction", "stream.difficulty"),
    *("batch.selector", "batch.share"),
}
"""Keys that :func:`title` shows, or that name another run."""


def _telling(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose keys that tell runs apart, in their order; one that tells no more apart than those before is left out."""

    def apart(keys: Sequence[str]) -> int:
        return len({tuple(_plain(run.get(key)) for key in keys) for run in runs})

    told: list[str] = []
    varying = [key for key in dict.fromkeys(key for run in runs for key in run) if key != "seed" and apart([key]) > 1]
    for key in varying:
        if apart(["seed", *told, key]) > apart(["seed", *told]):
            told.append(key)
    return told


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def memory_size(spec: Mapping[str, Any]) -> int | str:
    """The memory size of a run: a number of exemplars, or a share of the samples seen, as in ``1 %``."""
    fraction = spec["memory"].get("fraction")
    share = isinstance(fraction, float) and fraction
    return f"{100 * fraction:.4g} %" if share else spec["memory"].get("capacity", "")


def page(spec: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """Write a run's name and some facts of it as HTML, for notebooks; both are escaped."""
    return notebook.facts(run_name(spec), facts)


def selector_of(spec: Mapping[str, Any]) -> str:
    """Name the selector that chose what was labelled, from a spec as it stands in files; empty if nobody chose."""
    table = spec.get("labelling")
    name = table.get("selector", "none") if isinstance(table, Mapping) else "none"
    return "" if name == "none" else str(name)


def label_words(spec: Mapping[str, Any]) -> list[str]:
    """Say for a title who asked for how many labels an experience; nothing if nobody did.

    >>> label_words({"labelling": {"selector": "badge", "budget": 100}}), label_words({})
    (['badge 100 labels'], [])
    """
    if not (name := selector_of(spec)):
        return []
    share, budget = spec["labelling"].get("fraction"), spec["labelling"].get("budget", "")
    size = f"{100 * share:.4g} %" if isinstance(share, float) and share else str(budget)
    return [" ".join([name, *([size] if size else []), "labels"])]


def batch_words(spec: Mapping[str, Any]) -> list[str]:
    """Say for a title who chose the samples of each step, and which share of the candidates; nothing if nobody did.

    >>> batch_words({"batch": {"selector": "rho-loss", "share": 0.1}}), batch_words({})
    (['rho-loss 10 % of a batch'], [])
    """
    table = spec.get("batch")
    name = table.get("selector", "none") if isinstance(table, Mapping) else "none"
    if name == "none" or not isinstance(table, Mapping):
        return []
    share = table.get("share")
    return [f"{name} {100 * share:.4g} % of a batch" if type(share) is float and name not in PRUNERS else str(name)]


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
    (kind, path), (other, place) = map(_data_place, (a, b))
    same_place = path == place or kind not in OWN_DATA
    return kind == other and same_place and [*a.get("sequence", ())] == [*b.get("sequence", ())]


def _data_place(data: Mapping[str, Any]) -> tuple[str, str]:
    dataset, path = str(data.get("dataset", "digits")), str(data.get("path", ""))
    try:
        return plain_name(dataset, path)
    except InputError:  # of a file or a record that holds no such name
        return dataset, path


@functools.cache
def _data(path: Path, changed: int) -> Mapping[str, Any]:
    """Read the table ``[data]`` of a scenario's file; anew once the file was changed."""
    found = registry.read_toml(path).get("data", {})
    return found if isinstance(found, Mapping) else {}

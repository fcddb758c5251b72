"""Records as a table, with a row for each run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clsim.records import batch_record
from clsim.records.budget import aubc
from clsim.records.label_record import COUNTS, counted, labels_known
from clsim.records.metrics import Metric, by_samples, further, summary, weights
from clsim.records.own_metrics import of_record
from clsim.spec.naming import data_identity, data_name, data_sources, memory_size, scenario_name, selector_of
from clsim.spec.pools import named
from clsim.spec.run import USUAL

if TYPE_CHECKING:
    import pandas as pd


COSTS = {
    "steps": "optimizer steps",
    "forward_passes": "samples passed forward, evaluation included",
    "candidate_passes": "candidates passed forward to choose batches",
    "train_passes": "samples passed forward in training",
    "train_seconds": "training, s",
    "select_seconds": "selection, s",
    "evaluate_seconds": "evaluation, s",
    "peak_bytes": "peak memory, bytes",
    "memory_bytes": "memory, bytes",
    "state_bytes": "kept beside net and memory, bytes",
    "net_bytes": "net, bytes",
    "storage_bytes": "storage beside the net, bytes",
    "storage_nets": "storage beside the net, in nets",
    "irreducible_images": "images that irreducible-loss nets were trained on",
    "irreducible_steps": "steps of irreducible-loss nets",
    "irreducible_passes": "samples passed forward for irreducible-loss nets",
    "irreducible_seconds": "irreducible-loss nets, s",
    "relative_passes": "samples passed forward in training, × fine-tuning",
    "relative_seconds": "training and selection, × fine-tuning",
}
"""The headings of costs, by the name that specs and records use; the last four are computed from the others.

What is passed forward in training includes selection, and validation within an experience."""


SUMS = ("steps", "forward_passes", "train_seconds", "select_seconds", "evaluate_seconds")


NAMES = ("scenario", "strategy", "label", "buffer", "memory", "controller", "pool")
"""What names a run beside its seed; everything else that can tell two runs apart is a setting."""


def frame(records: Iterable[Mapping[str, Any]], own: Mapping[str, Metric] | None = None) -> pd.DataFrame:
    """A row a run: scenario, strategy, buffer, memory, seed; every value of its spec as ``table.key``; metrics; costs.

    ``scenario`` is the name that :func:`scenario_names` gives it, ``scenario_file`` that of its file; ``label`` is the
    selector that chose what was labelled, a dash if none did.

    Metrics are computed from the accuracy matrix, whatever version wrote the record. ``unsized`` tells the runs of
    class-incremental streams whose record holds no test sizes: their accuracies are means over experiences, where those
    of others are means over test samples. ``diverged`` is whether a loss was not finite, and None where the record does
    not say. Intransigence is held against the joint run on the same stream with the same seed, if it is among the
    records; relative costs likewise against the run of the strategy ``finetune``.

    Args:
        records: the records of finished runs.
        own: further metrics, of the user's, by the names of their columns.
    """
    import pandas as pd

    records = list(records)
    joint = {_stream(r): r["accuracy"][-1] for r in records if r["spec"]["stream"]["presentation"] == "joint"}
    tuned: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["spec"]["strategy"] == "finetune":
            tuned.setdefault(_stream(record), []).append(record)
    rows = []
    for record in records:
        row = {"fingerprint": record["fingerprint"], "version": _text(record["versions"].get("clsim", "?"))}
        row |= {"code": _text(record["versions"].get("code")), "processor": _text(_processor(record))}
        row |= {"command": record["command"], **settings(record["spec"])}
        sizes = weights(record)
        row |= summary(record["accuracy"], record["initial"], joint.get(_stream(record)), sizes) | further(record)
        row |= {"aubc": aubc(record)} | {f"labels_{kind}": counted(record, kind) for kind in COUNTS}
        row |= {"labels_known": labels_known(record)}
        row |= {"unsized": by_samples(record) and sizes is None, "diverged": record.get("diverged")}
        for name, metric in (own or {}).items():
            row[name] = of_record(name, metric, record, joint.get(_stream(record)))
        rows.append(row | _spent(record) | _relative(record, tuned.get(_stream(record), [])))
    names = scenario_names([record["spec"] for record in records])
    return pd.DataFrame([_whole(row | {"scenario": name}) for row, name in zip(rows, names, strict=True)])


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    """Put ? for what is no character in a name, as bytes of a file may be: not every frame takes it."""
    return {
        key: value.encode(errors="replace").decode() if isinstance(value, str) else value for key, value in row.items()
    }


def scenario_names(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the scenario of each run; runs on different data sets never have the same name.

    The data set stands behind the name where it is not that of the scenario's file, or where runs of one scenario have
    several, as after its file was edited; the digest of their content, where data sets of one name differ in it.
    """
    given = [scenario_name(spec) for spec in specs]
    data = [data_identity(spec) for spec in specs]
    longer = [f"{spec['scenario']} on {data_name(spec['data'])}" for spec in specs]
    for names in (longer, [f"{name} ({identity[:8]})" for name, identity in zip(longer, data, strict=True)]):
        behind: dict[str, set[str]] = {}
        for name, identity in zip(given, data, strict=True):
            behind.setdefault(name, set()).add(identity)
        given = [name if len(behind[name]) == 1 else other for name, other in zip(given, names, strict=True)]
    return given


def _text(fact: Any) -> str | None:
    """A fact of a record as text: a record may hold a number there, which no text can be sorted among."""
    return None if fact is None else str(fact)


def _processor(record: Mapping[str, Any]) -> Any:
    """The GPU of a run, or its processor; None where its version did not name it."""
    found = record.get("environment")
    about = found if isinstance(found, dict) else {}
    return about.get("processor") if about.get("device") in (None, "cpu") else str(about["device"])


def _spent(record: Mapping[str, Any]) -> dict[str, float]:
    """The costs of a whole run; NaN where its version did not count them."""
    cost = record["cost"]
    last = cost[-1] if cost else {}
    spent: dict[str, float] = {name: sum(c[name] for c in cost) for name in SUMS}
    spent["candidate_passes"] = sum(c.get("candidate_passes", 0) for c in cost)  # earlier versions chose none
    spent["train_passes"] = _train_passes(cost)
    spent |= {name: math.nan if value is None else value for name, value in batch_record.nets(record).items()}
    spent["peak_bytes"] = max((c["peak_bytes"] for c in cost), default=0)
    spent |= {n: math.nan if (v := last.get(n)) is None else v for n in ("memory_bytes", "state_bytes", "net_bytes")}
    spent["storage_bytes"] = spent["memory_bytes"] + spent["state_bytes"]
    spent["storage_nets"] = spent["storage_bytes"] / (spent["net_bytes"] or math.nan)
    return spent


def _train_passes(cost: Sequence[Mapping[str, Any]]) -> float:
    """Count the samples passed forward in training and selection; NaN where evaluation was not counted apart."""
    evaluated = [c.get("evaluate_passes") for c in cost]
    return math.nan if None in evaluated else sum(c["forward_passes"] - c["evaluate_passes"] for c in cost)


def _relative(record: Mapping[str, Any], tuned: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The costs of a run, relative to fine-tuning on the same stream; NaN unless exactly one such run is found."""
    like = [r for r in tuned if r["spec"].get("training") == record["spec"].get("training")] or tuned
    base = like[0]["cost"] if len(like) == 1 else []

    def ratio(spent: Callable[[Sequence[Mapping[str, Any]]], float]) -> float:
        return spent(record["cost"]) / (spent(base) or math.nan)

    def seconds(cost: Sequence[Mapping[str, Any]]) -> float:
        return sum(c["train_seconds"] + c["select_seconds"] for c in cost)

    return {"relative_passes": ratio(_train_passes), "relative_seconds": ratio(seconds)}


def settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of :func:`frame` that a run's spec, as it stands in its files, decides."""
    kept = spec["memory"]["buffer"] != "none"
    row = {"scenario": scenario_name(spec), "scenario_file": spec["scenario"]}
    row |= {name: spec[name] for name in ("strategy", "seed")}
    row |= {"label": selector_of(spec) or "–"}
    row |= {"buffer": spec["memory"]["buffer"] if kept else "–"}
    row |= {"memory": memory_size(spec) if kept else "–"}
    controller = spec.get("controller")
    row |= {"controller": controller.get("name", "–") if isinstance(controller, dict) else "–"}
    row |= {"pool": named(spec.get("pool"))}
    for table, values in spec.items():
        if isinstance(values, dict):
            row |= {f"{table}.{key}": comparable(value) for key, value in values.items()}
    for name, value in USUAL.items():
        row.setdefault(name, comparable(value))
    sources = [source for source in spec["sources"] if source[0] not in data_sources(spec)]  # the scenario's name
    return row | {"sources": comparable(sources), "revisions": comparable(spec.get("revisions", []))}


def _stream(record: Mapping[str, Any]) -> str:
    """What a run and its joint counterpart have in common."""
    spec = record["spec"]
    stream = {key: value for key, value in spec["stream"].items() if key != "presentation"}
    data = [data_identity(spec), spec["data"]]
    tested = spec.get("evaluation", {}).get("on", "test")
    return json.dumps([spec["scenario"], spec["seed"], data, stream, spec["model"], tested], sort_keys=True)


def comparable(value: Any) -> Any:
    """Lists and tables as text, so that they can be compared and shown."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value

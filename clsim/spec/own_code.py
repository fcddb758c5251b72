"""The user's own code and data that a spec names, hashed into its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clsim.spec import registry
from clsim.spec.followed import Code, fingerprint
from clsim.spec.run import RunSpec
from clsim.spec.sources import OWN_DATA, data_digest, file_digest
from clsim.spec.tables import DataSpec

NAMED = {
    ("labelling", "selector"): "labellers",
    ("labelling", "initial"): "labellers",
    ("batch", "selector"): "batches",
    ("irreducible", "model"): "models",
    ("memory", "buffer"): "buffers",
    ("memory", "retrieval"): "selectors",
    ("learner", "name"): "learners",
    ("model", "name"): "models",
    ("embedding", "model"): "models",
}
"""Keys that name a component → its kind."""

OPTIONS = {
    ("memory", "options"): {"model": "models", "start": "selectors"},
    ("learner", "options"): {"objective": "objectives"},
}
"""Options that may name a component of the user's → key → its kind."""


def sources(tables: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hash the user's own code and data, so that a change makes another run."""
    found = [(name, fingerprint(codes)) for name, codes in _codes(tables)]
    data = tables.get("data", {})
    if data.get("dataset") in OWN_DATA and data.get("path"):  # a scenario may leave the path to its user
        own = DataSpec(data["dataset"], data["path"])
        found.append((own.path, data_digest(own)))
    if start := tables.get("memory", {}).get("start", ""):
        found.append((start, file_digest(start, "memory.start")))
    if (name := tables.get("embedding", {}).get("name", "")).endswith(".npz"):
        found.append((name, file_digest(name, "embedding.name", "an .npz with a row for each training image")))
    for table in ("data", "embedding"):
        if frozen := tables.get(table, {}).get("weights", ""):
            found.append((frozen, file_digest(frozen, f"{table}.weights", "a .safetensors file")))
    if (weights := tables.get("model", {}).get("start", "")).endswith(".pt"):
        found.append((weights, file_digest(weights, "model.start", "a .pt that clsim keeps of a net")))
    return [(name, digest) for name, digest in found if digest]


def user_files(spec: RunSpec) -> list[Path]:
    """List the files of the code that a spec names and that is not shipped, local imports included."""
    codes = [code for _, found in _codes(spec.as_dict()) for code in found]
    return [path for code in codes for _, path in code.files]


def notices(spec: RunSpec) -> list[str]:
    """List what a run imports that is not shipped, a line for each component: its module and its file."""
    return list(dict.fromkeys(code.notice for _, codes in _codes(spec.as_dict()) for code in codes))


def open_ends(spec: RunSpec) -> str:
    """Say in a line what the spec's code uses that cannot be followed; empty if there is nothing."""
    found = {end: None for _, codes in _codes(spec.as_dict()) for code in codes for end in code.open_ends}
    if not found:
        return ""
    return f"a change of what is loaded here makes no new run, use --fresh then: {'; '.join(found)}"


def _codes(tables: Mapping[str, Any]) -> Iterator[tuple[str, list[Code]]]:
    """Yield the name and the code of every component of the user's."""
    named = [(kind, tables.get(table, {}).get(key, "")) for (table, key), kind in NAMED.items()]
    for (table, key), kinds in OPTIONS.items():
        for option, value in tables.get(table, {}).get(key, {}).items():
            if isinstance(value, str) and (option in kinds or ":" in value):
                named.append((kinds.get(option, "objectives"), value))
    named += [("pools", str(one["name"])) for one in tables.get("pool", ())]
    for kind, name in named:
        if codes := registry.codes(kind, name) if name else []:
            yield name, codes

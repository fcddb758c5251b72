"""An input of the fuzzer as plain values: what is done to the files of a workplace, and the commands that follow."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsim.records import sealed

KINDS = ("option", "spec", "damage", "data", "words", "export", "answers", "parts", "tune", "paper")
"""The kinds of inputs."""


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        kind: one of :data:`KINDS`.
        commands: the words of each command, without ``clsim``; ``{half}`` and the like name runs of the workplace.
        edits: what is done to files before, each a table with ``file``, ``do`` and what that takes.
        known: what it is known to find, while nobody has mended it; empty: nothing.
    """

    kind: str
    commands: tuple[tuple[str, ...], ...]
    edits: tuple[Mapping[str, Any], ...] = field(default=())
    known: str = ""

    def text(self, *, indent: int | None = None) -> str:
        """The input as JSON, in ASCII."""
        return json.dumps({key: value for key, value in asdict(self).items() if value}, indent=indent)


def read(text: str) -> Case:
    """Read an input from its JSON."""
    data = json.loads(text)
    commands = tuple(tuple(words) for words in data["commands"])
    return Case(data["kind"], commands, tuple(data.get("edits", ())), data.get("known", ""))


class Marker:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["FUZZ_MARK"] + "-pickle",))


def edit(place: Path, what: Mapping[str, Any]) -> None:
    """Change a file below ``place`` as an edit says; what cannot be done, as the file is no such file, is left out."""
    path = place / what["file"]
    with contextlib.suppress(Exception):  # each kind of file fails in ways of its own
        path.parent.mkdir(parents=True, exist_ok=True)
        if what["do"] in ("bytes", "value", "state", "arrays") and (path.is_symlink() or not path.is_file()):
            return
        if what["do"] in ("text", "raw", "pickled", "swap", "copy", "part") and path.exists() and not path.is_file():
            return  # whoever opens a pipe waits
        _EDITS[what["do"]](path, what)


def rename(folder: Path) -> None:
    """Give a run's folder the name that its spec has now, and its files the fingerprint: no accident would do so."""
    with contextlib.suppress(Exception):  # each kind of file fails in ways of its own
        _renamed(folder)


def _renamed(folder: Path) -> None:
    record, spec = folder / "record.json", folder / "spec.json"
    if not all(path.is_file() for path in folder.iterdir()):
        return
    held = json.loads((record if record.is_file() else spec).read_text(encoding="utf-8"))
    text = json.dumps(held["spec"] if record.is_file() else held, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    if name == folder.name:
        return
    if record.is_file():
        _write_json(record, {**held, "fingerprint": name})
        _write_json(spec, held["spec"])
    for path in (folder / "checkpoint.pt", folder / "rounds.pt"):
        if path.is_file():
            torch.save({**torch.load(path, weights_only=True), "fingerprint": name}, path)
            _seal(path)
    folder.rename(folder.with_name(name))


def _text(path: Path, what: Mapping[str, Any]) -> None:
    path.write_bytes(what["to"].encode("utf-8", "surrogatepass"))


def _raw(path: Path, what: Mapping[str, Any]) -> None:
    path.write_bytes(base64.b64decode(what["to"]))


def _bytes(path: Path, what: Mapping[str, Any]) -> None:
    """Change bytes: ``at`` is a share of the file, ``how`` flips, cuts, zeroes, doubles or replaces."""
    content = bytearray(path.read_bytes())
    at, size = int(what["at"] * len(content)), what.get("size", 1)
    how = what["how"]
    if how == "cut":
        del content[at:]
    elif how == "drop":
        del content[at : at + size]
    elif how == "flip":
        for i in range(at, min(at + size, len(content))):
            content[i] ^= what.get("mask", 255)
    elif how == "zero":
        content[at : at + size] = bytes(len(content[at : at + size]))
    elif how == "double":
        content[at:at] = content[at : at + size]
    elif how == "add":
        content += b"\x07" * size
    path.write_bytes(content)


def _value(path: Path, what: Mapping[str, Any]) -> None:
    """Change a value of a JSON file; ``renamed`` makes its checksum and its folder's name those of what it holds."""
    data = _changed(json.loads(path.read_text(encoding="utf-8")), list(what["at"]), what)
    _write_json(path, data, right=what["at"][0] != sealed.KEY)


def _write_json(path: Path, data: Any, *, right: bool = True) -> None:
    """Write JSON, with the right checksum if it has one; JSON has none for what is no number."""
    text = json.dumps(data, indent=1).encode()
    if right and isinstance(data, dict) and sealed.KEY in data:
        with contextlib.suppress(ValueError):
            text = sealed.sealed({key: value for key, value in data.items() if key != sealed.KEY})
    path.write_bytes(text)


def _changed(data: Any, at: list[Any], what: Mapping[str, Any]) -> Any:
    """Return ``data`` with the value at a place replaced, dropped, doubled or wrapped."""
    if not at:
        return _replaced(data, what)
    key, *rest = at
    if isinstance(data, dict):
        known = list(data)
        key = key if key in data else known[_number(key) % len(known)] if known else None
        if key is None:
            return _replaced(data, what)
        if not rest and what.get("how") == "drop":
            return {k: v for k, v in data.items() if k != key}
        if not rest and what.get("how") == "rename":
            return {what["to"] if k == key else k: v for k, v in data.items()}
        return {**data, key: _changed(data[key], rest, what)}
    if isinstance(data, (list, tuple)) and data:
        i = _number(key) % len(data)
        if not rest and what.get("how") == "drop":
            return type(data)([*data[:i], *data[i + 1 :]])
        if not rest and what.get("how") == "double":
            return type(data)([*data[: i + 1], *data[i:]])
        return type(data)([*data[:i], _changed(data[i], rest, what), *data[i + 1 :]])
    return _replaced(data, what)


def _number(key: Any) -> int:
    return key if isinstance(key, int) else sum(map(ord, str(key)))


def _replaced(value: Any, what: Mapping[str, Any]) -> Any:
    how = what.get("how", "set")
    if how == "wrap":
        return [value]
    if isinstance(value, torch.Tensor) and how in _TENSORS:
        return _TENSORS[how](value)
    if isinstance(value, np.ndarray) and how in _TENSORS:
        return np.asarray(_TENSORS[how](torch.from_numpy(np.array(value)))) if value.dtype.kind in "iufb" else value
    return what.get("to")


_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "double": lambda t: t.to(torch.float64),
    "long": lambda t: t.to(torch.int64),
    "bool": lambda t: t.to(torch.bool),
    "nan": lambda t: torch.full(t.shape, float("nan")),
    "huge": lambda t: torch.full(t.shape, 2**62, dtype=torch.int64) if not t.is_floating_point() else t * 1e38,
    "minus": lambda t: -t if t.dtype != torch.bool else ~t,
    "empty": lambda t: t.new_zeros(0),
    "scalar": lambda t: t.new_zeros(()),
    "flat": lambda t: t.reshape(-1),
    "deep": lambda t: t[None],
    "short": lambda t: t[:-1] if t.ndim and len(t) else t,
    "long1": lambda t: torch.cat([t, t[:1]]) if t.ndim else t[None],
    "list": lambda t: t.tolist(),
    "stride": lambda t: t.new_zeros(1).expand(t.shape),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse() if t.ndim else t,
}
"""Ways to change a tensor."""

TENSORS = tuple(_TENSORS)


def _seal(path: Path) -> None:
    """Give an archive the right checksum."""
    path.write_bytes(sealed.sealed_archive(path.read_bytes()))


def _state(path: Path, what: Mapping[str, Any]) -> None:
    """Change a value of a file of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.load(path, weights_only=True)
        torch.save(_changed(state, list(what["at"]), what), path)
        _seal(path)


def _arrays(path: Path, what: Mapping[str, Any]) -> None:
    """Change an array of an ``.npz`` file, or the one of an ``.npy`` file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".npy":
            np.save(path, np.asarray(_changed(np.load(path), [], what)))
            return
        with np.load(path) as opened:
            held = {name: opened[name] for name in opened.files}
        changed = _changed(held, list(what["at"]), what)
        if isinstance(changed, dict):
            with open(path, "wb") as file:
                np.savez(file, **{str(name) or "x": np.asarray(value) for name, value in changed.items()})
            if "runs" in path.parts:
                _seal(path)


def _pickled(path: Path, what: Mapping[str, Any]) -> None:
    """Write a pickle that leaves a mark where it is opened."""
    how = what.get("how", "plain")
    if how == "npy":
        np.save(path, np.array([Marker()], dtype=object), allow_pickle=True)
    elif how == "npz":
        with open(path, "wb") as file:
            np.savez(file, **{name: np.array([Marker()], dtype=object) for name in ("x", "y", "x_train", "loss")})
    elif how == "torch":
        torch.save({"format": 1, "learner": Marker()}, path)
    else:
        path.write_bytes(pickle.dumps(Marker()))


def _link(path: Path, what: Mapping[str, Any]) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name("moved-away"))
    path.unlink(missing_ok=True)
    path.symlink_to(what["to"])


def _pipe(path: Path, what: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _folder(path: Path, what: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _gone(path: Path, what: Mapping[str, Any]) -> None:
    path.unlink(missing_ok=True)


def _copy(path: Path, what: Mapping[str, Any]) -> None:
    """Put a copy of another file of the workplace there."""
    above = next(place for place in path.parents if (place / what["to"]).is_file())
    path.write_bytes((above / what["to"]).read_bytes())


def _part(path: Path, what: Mapping[str, Any]) -> None:
    """Change what a part of a choice has chosen, with the right checksum."""
    held = json.loads(path.read_bytes())
    text = json.dumps({**json.loads(held["content"]), **what["to"]})
    path.write_text(json.dumps({"checksum": hashlib.sha256(text.encode()).hexdigest(), "content": text}))


def _swap(path: Path, what: Mapping[str, Any]) -> None:
    """Put another file's content in its place."""
    path.write_bytes((path.parent.parent / what["to"]).read_bytes())


_EDITS: dict[str, Callable[[Path, Mapping[str, Any]], None]] = {
    "text": _text,
    "raw": _raw,
    "bytes": _bytes,
    "value": _value,
    "state": _state,
    "arrays": _arrays,
    "pickled": _pickled,
    "link": _link,
    "pipe": _pipe,
    "folder": _folder,
    "gone": _gone,
    "swap": _swap,
    "copy": _copy,
    "part": _part,
}

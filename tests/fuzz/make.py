"""Makes inputs from a seed: the same seed and number give the same input."""

from __future__ import annotations

import copy
import functools
import importlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from clsim.cli import main
from clsim.compat import tomllib
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.definitions import Parameter, Unread, definition
from clsim.spec.described import names
from clsim.spec.run import TABLES
from clsim.spec.sources import DATASETS
from tests.fuzz import values
from tests.fuzz.arena import RUNS, SMALL
from tests.fuzz.case import TENSORS, Case
from tests.fuzz.data import data_case
from tests.fuzz.exports import export_case
from tests.fuzz.loops import answers_case, paper_case, parts_case, tune_case

SHARES = {"option": 30, "damage": 18, "spec": 12, "data": 9, "words": 9}
SHARES |= {"export": 8, "answers": 4, "parts": 4, "tune": 3, "paper": 3}
"""How many of a hundred inputs are of each kind."""

FORMATS = ("console", "markdown", "csv", "runs", "latex", "html", "parquet")


def case(seed: int, number: int, kinds: Sequence[str] = tuple(SHARES)) -> Case:
    """Make one input, of one of some kinds."""
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choices(kinds, [SHARES[kind] for kind in kinds])[0]
    return MAKERS[kind](rng)


def options_of(kind: str, name: str) -> list[Parameter]:
    """List the options of a component; none where its source does not show them."""
    try:
        return definition(COMPONENTS[kind][name]).options
    except Unread:
        return []


@functools.cache
def components() -> list[tuple[str, str]]:
    """List every component that a run may have."""
    return [(kind, name) for kind, found in COMPONENTS.items() if kind != "combinators" for name in found]


MEMORY, FINETUNE = ("--memory", "10"), ("--strategy", "finetune")
LABELS = ("--label-budget", "6", "--label-rounds", "2", "--set", "labelling.initial_count=4")


def _with(kind: str, name: str, rng: random.Random) -> tuple[tuple[str, ...], str]:
    """Give the words that put a component into a run, and the table of its options."""
    if kind in ("selectors", "condensers"):
        ways = [((*MEMORY, "--buffer", name), "memory.options")]
        if kind == "selectors":
            ways.append(((*FINETUNE, "--label", name, *LABELS), "labelling.options"))
            ways.append(((*FINETUNE, "--batch", name), "batch.options"))
            ways.append(((*MEMORY, "--set", f"memory.retrieval={name}"), "memory.options"))
        return rng.choice(ways)
    if kind in ("acquisitions", "bounds"):
        return (*FINETUNE, "--label", name, *LABELS), "labelling.options"
    if kind == "pruners":
        return (*FINETUNE, "--batch", name), "batch.options"
    if kind == "learners":
        of_name = ("--strategy", name) if name in names("strategies") else ("--set", f"learner.name={name}")
        return (*of_name, *(("--labels", "3") if rng.random() < 0.4 else ())), "learner.options"
    if kind == "objectives":
        return (*FINETUNE, "--set", f"learner.options.objective={name}"), "learner.options"
    if kind == "pools":
        return (*MEMORY, "--pool", name), f"pool.{name}"
    return (*MEMORY, "--set", f"model.name={name}"), "model.options"


def _option(rng: random.Random) -> Case:
    words, settings = _small(rng), list[str]()
    if rng.random() < 0.55:
        kind, name = rng.choice(components())
        more, table = _with(kind, name, rng)
        words = (*words, *more)
        for one in rng.sample(found := options_of(kind, name), min(len(found), rng.choice((0, 1, 1, 1, 2)))):
            settings.append(f"{table}.{one.name}={_typed(values.by(one.kind, rng), rng)}")
    for _ in range(rng.choice((0, 1, 1, 2) if settings else (1, 1, 2, 3))):
        table = rng.choice([*TABLES])
        field = rng.choice(_fields(table))
        settings.append(f"{table}.{field.name}={_typed(values.by(field.kind, rng), rng)}")
    if rng.random() < 0.1:
        settings.append(rng.choice(("a.b=1", "x", ".=1", "memory.=1", "=", "memory.options.a.b.c=1", "memory=3")))
    words = (*words, *(word for text in settings for word in ("--set", text)))
    words = (*words, "--dry-run") if rng.random() < 0.05 else words
    return Case("option", (words,))


def _small(rng: random.Random) -> tuple[str, ...]:
    return ("run", *SMALL)


@functools.cache
def _fields(table: str) -> list[Parameter]:
    kind = TABLES[table]
    return definition(f"{kind.__module__}:{kind.__name__}").fields


def _typed(value: Any, rng: random.Random) -> str:
    """Write a value as a person types it: as TOML, or text without quotes."""
    text = value if isinstance(value, str) and rng.random() < 0.7 else values.toml(value)
    return text.replace("\0", " ")


def mutated(tables: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Change nested tables in one to four places."""
    tables = copy.deepcopy(tables)
    for _ in range(rng.choice((1, 1, 2, 4))):
        every = values.places(tables)
        if not every:
            break
        *at, key = rng.choice(every)
        parent: Any = tables
        for part in at:
            parent = parent[part]
        how = rng.random()
        if how < 0.15:
            del parent[key]
        elif how < 0.6:
            parent[key] = _near(parent[key], rng)
        elif how < 0.7 and isinstance(parent, dict):
            parent[rng.choice((f"{key}x", *values.TEXTS[:4], rng.choice(_all_keys())))] = parent.pop(key)
        elif how < 0.85 and isinstance(parent, dict):
            table = rng.choice([*TABLES])
            field = rng.choice(_fields(table))
            inner = tables.setdefault(table, {})
            if isinstance(inner, dict):
                inner[field.name] = values.by(field.kind, rng)
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[key] = [parent[key]]
    return tables


@functools.cache
def _all_keys() -> list[str]:
    return [field.name for table in TABLES for field in _fields(table)]


def _near(value: Any, rng: random.Random) -> Any:
    """Draw a value of the same type, or of any other."""
    kind = type(value) if isinstance(value, (bool, int, float, str)) else Any
    return values.by(kind, rng)


@functools.cache
def shipped(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Read the shipped files of a kind."""
    found = [(name, registry.find_file(kind, name)) for name in registry.file_names(kind)]
    return [(name, tomllib.loads(Path(path).read_text(encoding="utf-8"))) for name, path in found]


def _spec(rng: random.Random) -> Case:
    kind = rng.choice(registry.FILES)
    _, tables = rng.choice(shipped(kind))
    text = values.toml_file(mutated(tables, rng))
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(("[", "]", "=", '"', "\n", "\x00", "\ud800", "[[pool]]\n", "e", "9")) + text[at:]
    edits = ({"file": "mine.toml", "do": "text", "to": text},)
    overlay = ("--set", "data.dataset=digits", "--set", "data.per_class=10", "--set", "training.epochs=1")
    words: tuple[str, ...]
    if kind == "scenarios":
        words = ("run", "--scenario", "mine.toml", *rng.choice(((), MEMORY, FINETUNE)), "--quiet")
        words = (*words, *rng.choice((overlay, overlay, ("--dry-run",), ("--set", "model.name=mlp", *overlay))))
    elif kind == "strategies":
        words = ("run", *SMALL, "--strategy", "mine.toml", *rng.choice(((), MEMORY, ("--labels", "3"))))
    elif kind == "studies":
        words = ("study", "mine.toml", "--dry-run") if rng.random() < 0.7 else ("study", "mine.toml", *STUDY)
    else:
        words = ("report", "mine.toml", *_shown(rng))
    return Case("spec", (words,), edits)


STUDY = ("--scenario", "split-digits", "--strategy", "finetune", "--seeds", "1", "--engine", "here", "--runs", "runs")
STUDY += ("--quiet", "--set", "data.per_class=10", "--set", "stream.experiences=2", "--set", "training.epochs=1")


TUNE = ("--scenario", "split-digits", "--strategy", "finetune", "--trials", "2", "--test-seeds", "1", "--runs", "runs")
TUNE += ("--quiet", "--set", "data.per_class=10", "--set", "stream.experiences=2", "--set", "training.epochs=1")


def _shown(rng: random.Random) -> tuple[str, ...]:
    """Words after those of a report."""
    form = rng.choice(FORMATS)
    words = ["--runs", "runs", "--format", form]
    suffix = {"markdown": "md", "csv": "csv", "runs": "csv", "latex": "tex", "html": "html", "parquet": "parquet"}.get(
        form
    )
    if suffix:
        words += ["--out", f"out.{suffix}"]
    if rng.random() < 0.15:
        words.append("--tests")
    if rng.random() < 0.06:
        words += ["--figures", "out-figures"]
    return tuple(words)


JSONS = ("record.json", "record.json", "record.json", "spec.json", "search.json", "error.json")
STATES = ("checkpoint.pt", "checkpoint.pt", "rounds.pt")


def _damage(rng: random.Random) -> Case:
    run = rng.choice([*RUNS])
    folder = f"runs/{{{run}}}"
    edits = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edits.append(_damaged(rng, run, folder))
    again = ("run", *SMALL, *RUNS[run][1])
    looking: list[tuple[str, ...]] = [
        ("report", *rng.choice((("summary",), ("cost",), ("forgetting",), ("active",))), *_shown(rng)),
        ("runs",),
        ("runs", "show", f"{{{run}}}"),
        ("runs", "--json"),
        ("runs", "show", f"{{{run}}}", "--json"),
        (*again, "--dry-run"),
        ("runs", "--format", "parquet", "--out", "out.parquet"),
        ("show", folder),
    ]
    commands = (rng.choice(looking), again) if rng.random() < 0.8 else (again, rng.choice(looking))
    if rng.random() < 0.05:
        commands = (*commands, (*again, "--fresh"))
    if rng.random() < 0.04:
        commands = (("runs", "gc", "--yes"), *commands)
    return Case("damage", commands, tuple(edits))


def _damaged(rng: random.Random, run: str, folder: str) -> dict[str, Any]:
    state = RUNS[run][0]
    own = [name for name in ("search.json", "rounds.pt") if name == state]
    there = ["record.json", "checkpoint.pt", "losses.npz", "spec.json", *own, *own]
    if state in ("search.json", "rounds.pt"):
        there = [*own, *own, "spec.json"]
    name = rng.choice(there)
    file = f"{folder}/{name}"
    how = rng.random()
    if how < 0.25:
        manner = rng.choice(("cut", "cut", "drop", "flip", "flip", "zero", "double", "add"))
        size = rng.choice((1, 1, 2, 8, 100))
        return {"file": file, "do": "bytes", "at": round(rng.random(), 4), "how": manner, "size": size}
    if how < 0.85:
        return _by_value(rng, file, name)
    ways: list[dict[str, Any]] = [
        {"do": "text", "to": rng.choice(("", "{}", "[]", "null", "[" * 5000, '{"format": 1}', "NaN"))},
        {"do": "link", "to": rng.choice(("../../../outside.txt", "/dev/zero", "/etc/passwd", "nowhere", name))},
        {"do": "pipe"},
        {"do": "folder"},
        {"do": "gone"},
        {"do": "pickled", "how": rng.choice(("plain", "npz", "torch", "npy"))},
        {"do": "swap", "to": f"{{{rng.choice([*RUNS])}}}/spec.json"},
    ]
    return {"file": file, **rng.choice(ways)}


PLACES = {
    "record.json": "accuracy initial classes cost metrics versions command spec finished started ended environment "
    "losses test_sizes labelling searches memory readouts format fingerprint batches diagnostics checksum",
    "spec.json": "scenario strategy seed data stream model training optimizer learner memory sources",
    "search.json": "attempts format fingerprint done clsim",
    "rounds.pt": "position entries cost learner memory randomness state format labelled rounds acquisition",
    "checkpoint.pt": "learner memory randomness format fingerprint record accuracy cost step clsim data buffer",
    "losses.npz": "loss total x",
}
"""File → keys in it; a key that is not there stands for another one that is."""


def _by_value(rng: random.Random, file: str, name: str) -> dict[str, Any]:
    """Change one value; its place is a path of keys and numbers, each of which finds something."""
    at: list[Any] = [rng.choice(PLACES[name].split())]
    while rng.random() < 0.65 and len(at) < 7:
        at.append(rng.randrange(12))
    how = rng.choice(("set", "set", "set", "drop", "rename", "double", "wrap"))
    if name.endswith(".json"):
        found = {"file": file, "do": "value", "at": at, "how": how, "to": values.wild(rng)}
    else:
        how = rng.choice((*TENSORS, how, how, "set", "drop"))
        to = values.wild(rng)
        found = {"file": file, "do": "arrays" if name == "losses.npz" else "state", "at": at, "how": how, "to": to}
    if how == "rename":
        found["to"] = rng.choice(values.TEXTS[:8])
    if rng.random() < 0.6:
        found["renamed"] = True
    return found


@functools.cache
def commands() -> dict[str, Any]:
    """Every command, as typer makes it: name → command; those of ``runs`` too."""
    found: dict[str, Any] = {}
    for name, place in main.COMMANDS.items():
        module, _, function = place.partition(":")
        one = vars(importlib.import_module(f"clsim.cli.{module}"))[function]
        if isinstance(one, typer.Typer):
            found |= {f"{name} {inner}": made for inner, made in typer.main.get_command(one).commands.items()}  # type: ignore[attr-defined]
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(one)
            found[name] = typer.main.get_command(alone)
    return found


def _words(rng: random.Random) -> Case:
    name, command = rng.choice(sorted(commands().items()))
    words = name.split()
    if words[0] == "run":
        words += SMALL if rng.random() < 0.8 else ("--dry-run",)
    elif words[0] == "study":
        words += STUDY if rng.random() < 0.3 else ("--dry-run", "--runs", "runs")
    elif words[0] == "tune":
        words += TUNE if rng.random() < 0.3 else ("--dry-run", "--runs", "runs")
    elif words[0] == "condense":
        words += ["--dataset", "mine.npz", "--ipc", "1", "--nets", "0", "--out", "out.npz"]
    params = [one for one in command.params if "--help" not in one.opts]
    if words[0] == "tune":  # thousands of runs are allowed
        params = [one for one in params if one.name not in ("trials", "trial_seeds", "test_seeds")]
    for param in rng.sample(params, min(len(params), rng.choice((0, 1, 1, 2, 3, 5)))):
        flag = rng.choice(param.opts)
        value = _fitting(rng, name, param)
        if not flag.startswith("-"):
            words.append(value)
        elif getattr(param, "is_flag", False):
            words.append(flag)
        else:
            words += [flag, value]
    if rng.random() < 0.05:
        words.append(rng.choice(("--", "--nothing", "-", "--help", "-h", "@x", "--runs=", "--seed=1")))
    return Case("words", (tuple(word.replace("\0", "") for word in words),))


def _fitting(rng: random.Random, command: str, param: Any) -> str:
    """Draw a value for a parameter: one that fits it now and then."""
    key = param.name or ""
    if any(part in key for part in ("out", "figures", "csv", "picture")):
        return rng.choice(("out", "out.csv", "out.html", "out/deep/x.md", "out-\x1b[31m", ".", "runs", "mine.npz/x"))
    if key in ("runs", "data_root"):
        return rng.choice(("runs", "runs", "nowhere", "mine.npz", ".", "runs/{done}"))
    if key in ("path", "features", "labels", "labelled", "dataset"):
        return rng.choice(("mine.npz", "features.npy", "labels.npy", "pictures", "answers.csv", *DATASETS))
    if key == "name" and command == "new":
        return rng.choice(("mine", "out", "../up", "a b", "evil", "torch", *values.TEXTS[:8]))
    if key in (
        "name",
        "run",
        "kind",
        "strategy",
        "scenario",
        "buffer",
        "label",
        "batch",
        "selector",
        "method",
        "model",
    ):
        kinds = rng.choice(("selectors", "strategies", "learners", "models", "tables", "metrics", "reports", "studies"))
        return rng.choice((*values.TEXTS, *names(kinds), "{done}", "{half}", "{asking}"))
    if key in ("set_", "option", "where", "model_option"):
        return f"{rng.choice(_all_keys())}={_typed(values.wild(rng), rng)}"
    if key == "search":
        return f"{rng.choice(_all_keys())}={rng.choice(('0.1..1', '0.1..1:log', '1,2', '1..', '..', '1..x', '2..1'))}"
    if key == "engine":
        return rng.choice(("here", "ray", "slurm", "x"))
    if rng.random() < 0.5:
        return str(rng.choice((*values.INTS, *values.FLOATS)))
    return rng.choice(values.TEXTS)


MAKERS: Mapping[str, Callable[[random.Random], Case]] = {
    "option": _option,
    "damage": _damage,
    "spec": _spec,
    "data": data_case,
    "words": _words,
    "export": export_case,
    "answers": answers_case,
    "parts": parts_case,
    "tune": tune_case,
    "paper": paper_case,
}
"""Kind → what makes an input of it."""

"""Flags of the command line as tables of a spec, and the command that repeats a run."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clsim.compat import tomllib
from clsim.errors import InputError
from clsim.spec.cores import cores_of_one, processes
from clsim.spec.reader import merge

FLAGS = {
    "memory.buffer": "--buffer",
    "memory.capacity": "--memory",
    "labelling.selector": "--label",
    "labelling.budget": "--label-budget",
    "labelling.rounds": "--label-rounds",
    "batch.selector": "--batch",
    "batch.share": "--batch-share",
    "training.device": "--device",
    "training.precision": "--precision",
    "training.threads": "--threads",
    "training.together": "--together",
    "controller.name": "--controller",
    "embedding.name": "--embedding",
    "pool": "--pool",
}
"""``table.key`` → the flag of ``clsim run`` that sets it; all other keys are set by ``--set``."""

_ALSO = {
    "memory.fraction": "--memory",
    "labels.per_class": "--labels",
    "labels.fraction": "--labels",
    "labelling.fraction": "--label-budget",
}
"""``table.key`` → the flag that sets it from a text which is not the value itself, as ``1%`` for 0.01."""


def flag_of(key: str) -> str:
    """Name the flag of ``clsim run`` that sets a key.

    >>> flag_of("memory.fraction"), flag_of("optimizer.lr")
    ('--memory', '--set')
    """
    return FLAGS.get(key) or _ALSO.get(key, "--set")


def tables_of(
    *,
    buffer: str | None = None,
    memory: int | str | None = None,
    labels: int | str | None = None,
    label: str | None = None,
    label_budget: int | str | None = None,
    label_rounds: int | None = None,
    batch: str | None = None,
    batch_share: float | None = None,
    embedding: str | None = None,
    controller: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | str | None = None,
    pool: str | Sequence[str] | None = None,
    together: bool | str = False,
    tables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the tables that flags set; a flag that is None sets nothing.

    Args:
        buffer: name of the buffer.
        memory: size of the memory: a number of exemplars, or a share of the samples seen so far; see
            :func:`memory_size`.
        labels: number of labelled samples of each class, or the labelled share of each class; see :func:`label_share`.
        label: name of the selector that asks for labels.
        label_budget: labels asked for in an experience: a number, or a share of its samples; see
            :func:`label_budget_of`.
        label_rounds: number of rounds in which they are asked for.
        batch: name of the selector of the samples of each step.
        batch_share: share of the candidates of a step that it chooses.
        embedding: name of the embedding that selectors of samples see.
        controller: name of the controller.
        device: device of the training.
        precision: precision of the training.
        threads: number of CPU threads of the training, or ``auto``.
        pool: transforms of the pool, one or several, each ``NAME`` or ``NAME:number``.
        together: whether the seeds advance together, or ``auto``.
        tables: tables below the flags, which hold where no flag says otherwise.

    >>> tables_of(buffer="kcenter", memory="1%", threads=2)
    {'memory': {'buffer': 'kcenter', 'fraction': 0.01}, 'training': {'threads': 2}}
    """
    if label in (None, "none") and labels is not None and not any(label_share(labels).values()):
        raise InputError("labels: found 0, allowed: 1 or more of each class, or 0 with --label, which asks for them")
    said = {
        "labels": {} if labels is None else label_share(labels),
        "labelling": {"selector": None if label is None else _selector(label), "rounds": label_rounds}
        | ({} if label_budget is None else label_budget_of(label_budget)),
        "batch": {"selector": batch, "share": batch_share},
        "memory": {"buffer": buffer} | ({} if memory is None else memory_size(memory)),
        "training": {"device": device, "precision": precision}
        | {"threads": None if threads is None else threads_of(threads), "together": together or None},
        "controller": {"name": controller},
        "embedding": {"name": embedding},
    }
    given = {table: {k: v for k, v in values.items() if v is not None} for table, values in said.items()}
    lists = {} if pool is None else {"pool": [pool] if isinstance(pool, str) else list(pool)}
    return merge(tables or {}, {table: values for table, values in given.items() if values}, lists)


STACK = 20
"""Seeds from which on a stack of nets on a GPU was measured to be faster than one seed after another."""


def settled_machine(tables: Any, seeds: Collection[int] = ()) -> Any:
    """Return tables of a spec with what ``auto`` stands for in ``training.threads`` and ``training.together``.

    Tables without ``auto`` are returned as they are.

    Args:
        tables: the tables.
        seeds: the seeds of the command.
    """
    training = tables.get("training") if isinstance(tables, Mapping) else None
    found: dict[str, Any] = {}
    if isinstance(training, Mapping) and training.get("threads") == "auto":
        found["threads"] = cores_of_one()
    if isinstance(training, Mapping) and training.get("together") == "auto":
        found["together"] = _stacked({**training, **found}, len(set(seeds)))
    return merge(tables, {"training": found}) if found else tables


def _stacked(training: Mapping[str, Any], seeds: int) -> bool:
    """Tell whether a stack is the fastest way for so many seeds, as ``python -m benchmarks.together`` found.

    On a processor it was slower than one seed after another. On an H200 it was 1.4 times as fast with 20 seeds, and
    level with 5; processes were 4 times as fast with 5. So it is where there is no core for a second process.
    """
    threads, device = training.get("threads", 1), training.get("device", "auto")
    if seeds < STACK or device == "cpu" or not isinstance(threads, int) or processes(seeds, threads) > 1:
        return False
    import torch  # slow to import, and needed here alone

    return torch.cuda.is_available()


def threads_of(text: int | str, where: str = "--threads") -> int | str:
    """Read a number of threads, or ``auto``, as a command line has it.

    Raises:
        InputError: if it is neither.

    >>> threads_of("2"), threads_of("auto")
    (2, 'auto')
    """
    if text == "auto" or isinstance(text, int):
        return text
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InputError(f"{where}: found {text!r}, allowed: a whole number from 1, or auto")
    return int(text)


def together_of(value: bool | str, where: str = "--together") -> bool | str:
    """Read whether seeds advance together: true, false or ``auto``; a command line has ``yes`` and ``no``.

    Raises:
        InputError: if it is something else.

    >>> together_of("yes"), together_of(False), together_of("auto")
    (True, False, 'auto')
    """
    known: dict[bool | str, bool | str] = {True: True, False: False, "yes": True, "no": False, "auto": "auto"}
    if value not in known:
        raise InputError(f"{where}: found {value!r}, allowed: auto, yes, no")
    return known[value]


def command(
    scenario: str,
    strategy: str,
    tables: Mapping[str, Any],
    settings: Sequence[str],
    seed: int,
    seeds: Sequence[int] = (),
) -> str:
    """Write the command that makes exactly this run, and those of all ``seeds`` where it advances together with them.

    >>> command("split-digits", "er", tables_of(buffer="kcenter", memory=50), ["optimizer.lr=0.2"], 1)
    'clsim run --scenario split-digits --strategy er --buffer kcenter --memory 50 --set optimizer.lr=0.2 --seed 1'
    """
    words = ["clsim", "run", "--scenario", scenario, "--strategy", strategy]
    for key, value in leaves(tables).items():
        if key == "pool":
            words += _pool_words(value)
            continue
        if key == "training.together":
            if value is True or seeds:  # ``auto`` as what it came to
                words.append(FLAGS[key])
            continue
        words += [FLAGS[key], str(value)] if key in FLAGS else ["--set", f"{key}={as_text(value)}"]
    for setting in settings:
        words += ["--set", setting]
    for one in seeds or [seed]:
        words += ["--seed", str(one)]
    return shlex.join(words)


def _pool_words(entries: Sequence[Any]) -> list[str]:
    """Write the transforms of a pool, texts or tables, as words of a command.

    >>> _pool_words(["rare", {"name": "./mine.py:thin", "options": {"share": 0.5}}])
    ['--pool', 'rare', '--pool', './mine.py:thin', '--set', 'pool.thin.share=0.5']
    """
    words = []
    for entry in entries or ["none"]:
        name = entry if isinstance(entry, str) else entry["name"]
        options = {} if isinstance(entry, str) else entry.get("options", {})
        words += ["--pool", name]
        for key, value in options.items():
            words += ["--set", f"pool.{name.rpartition(':')[2]}.{key}={as_text(value)}"]
    return words


def leaves(tables: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Return every value of nested tables under its full key, ``table.key``.

    >>> leaves({"memory": {"options": {"metric": "cosine"}}})
    {'memory.options.metric': 'cosine'}
    """
    found: dict[str, Any] = {}
    for key, value in tables.items():
        inner = f"{name}.{key}" if name else key
        found |= leaves(value, inner) if isinstance(value, Mapping) else {inner: value}
    return found


def memory_size(size: int | str) -> dict[str, Any]:
    """Return what ``--memory`` sets: a number of exemplars, or a share of the samples seen so far.

    Raises:
        InputError: if the size is neither.

    >>> memory_size("500"), memory_size("1%"), memory_size(20)
    ({'capacity': 500}, {'fraction': 0.01}, {'capacity': 20})
    """
    text = str(size).replace(" ", "")
    try:
        if not text.endswith("%"):
            return {"capacity": int(text)}
        share = float(text[:-1]) / 100
        if 0 < share <= 1:
            return {"fraction": share}
    except ValueError:
        pass
    raise InputError(f"memory: found {size!r}, allowed: a whole number, as in 500, or a share, as in 1%")


def label_share(size: int | str) -> dict[str, Any]:
    """Return what ``--labels`` sets: a number of labelled samples of each class, or a share of each class.

    Raises:
        InputError: if the size is neither.

    >>> label_share("25"), label_share("5%"), label_share(0)
    ({'per_class': 25}, {'fraction': 0.05}, {'per_class': 0})
    """
    text = str(size).replace(" ", "")
    try:
        share = float(text.removesuffix("%")) / 100
        if text.endswith("%") and 0 < share <= 1:
            return {"fraction": share}
        if int(text) >= 0:
            return {"per_class": int(text)}
    except ValueError:
        pass
    meant = f"; --label {text} lets a selector choose" if text[:1].isalpha() else ""
    raise InputError(
        f"labels: found {size!r}, allowed: a whole number per class, as in 25, or a share, as in 5%{meant}"
    )


def label_budget_of(size: int | str) -> dict[str, Any]:
    """Return what ``--label-budget`` sets: a number of labels for each experience, or a share of its samples.

    Raises:
        InputError: if the size is neither.

    >>> label_budget_of("100"), label_budget_of("5%")
    ({'budget': 100}, {'fraction': 0.05})
    """
    text = str(size).replace(" ", "")
    try:
        share = float(text.removesuffix("%")) / 100
        if text.endswith("%") and 0 < share <= 1:
            return {"fraction": share}
        if int(text) > 0:
            return {"budget": int(text)}
    except ValueError:
        pass
    raise InputError(
        f"label-budget: found {size!r}, allowed: a whole number an experience, as in 100, or a share, as in 5%"
    )


def _selector(label: str) -> str:
    """Return the name of a selector; refuse a number, which ``--labels`` takes."""
    if label.replace(" ", "").removesuffix("%").replace(".", "", 1).isdecimal():
        raise InputError(
            f"label: found {label!r}, allowed: the name of a selector, as in badge; --labels {label} labels so much of "
            "each class, and --label-budget says how many labels a selector asks for"
        )
    return label


def setting(text: str) -> dict[str, Any]:
    """Read an argument of ``--set``, ``table.key=value``, into nested tables.

    Raises:
        InputError: if the text has another form.

    >>> setting("memory.capacity=20"), setting("memory.options.metric=cosine")
    ({'memory': {'capacity': 20}}, {'memory': {'options': {'metric': 'cosine'}}})
    """
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise InputError(f"--set: found {text!r}, allowed: table.key=value, as in memory.capacity=500")
    nested = parsed(value)
    for key in reversed(name.strip().split(".")):
        nested = {key: nested}
    return nested


def seeds_of(seed: int, seeds: int | Sequence[int] | None) -> list[int]:
    """List the seeds of runs: the one, or how many (0, 1, 2 …), or which.

    Raises:
        InputError: if both are given, or none is left.

    >>> seeds_of(3, None), seeds_of(0, 2), seeds_of(0, [5])
    ([3], [0, 1], [5])
    """
    if seeds is None:
        return [seed]
    found = list(range(count_of_seeds(seeds))) if isinstance(seeds, int) else list(seeds)
    if seed or not found:
        what = f"seed={seed} as well" if seed else repr(seeds)
        raise InputError(f"seeds: found {what}, allowed: a number from 1, or a list of seeds, without seed")
    return found


MOST_SEEDS = 100_000
"""Largest number of seeds in one call: each is a run, whose spec is resolved before the first one begins."""


def count_of_seeds(seeds: int, where: str = "seeds") -> int:
    """Return a number of seeds, refused beyond :data:`MOST_SEEDS`.

    Raises:
        InputError: naming the limit.
    """
    if seeds > MOST_SEEDS:
        raise InputError(f"{where}: found {seeds}, allowed: 1 to {MOST_SEEDS:,}, or a list of seeds")
    return seeds


def as_settings(given: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Write settings as ``--set`` takes them, whichever of both spellings they have.

    Raises:
        InputError: for a value that no TOML file could hold.

    >>> as_settings({"optimizer.lr": 0.1}), as_settings(["optimizer.lr=0.1"])
    (['optimizer.lr=0.1'], ['optimizer.lr=0.1'])
    """
    if isinstance(given, str):
        raise InputError(f"settings: found {given!r}, allowed: a list, as in [{given!r}]")
    if not isinstance(given, Mapping):
        return list(given)
    try:
        return [f"{key}={as_text(value)}" for key, value in leaves(given).items()]
    except TypeError as error:
        raise InputError(f"settings: found a value of another kind ({error}); allowed: numbers, text, lists") from None


def parsed(text: str) -> Any:
    """Read the value of a ``--set``: as TOML if it is valid TOML, else as plain text.

    >>> parsed("0.1"), parsed("cosine"), parsed("[100, 50]")
    (0.1, 'cosine', [100, 50])
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def as_text(value: Any) -> str:
    """Write a value so that :func:`parsed` reads it back; text has no quotes where it needs none.

    >>> as_text([0.1, True]), as_text("cosine"), as_text("true")
    ('[0.1, true]', 'cosine', '"true"')
    """
    if isinstance(value, str) and "\n" not in value and parsed(value) == value:
        return value
    return _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # TOML writes numbers, booleans and text as JSON does

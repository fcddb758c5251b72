"""Makes inputs of ``clsim export``, and of the folders that it writes, which a run reads as a data set."""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz import values
from tests.fuzz.case import TENSORS, Case
from tests.fuzz.prepared import SHORT

ROWS = ("0", "1", "39", "40", "-1", "-0", "1e3", "1.0", "NaN", "", " 7 ", "٣", "1_0", "9" * 30, str(2**63), "0x1", '"')
WEIGHTS = ("1", "0", "-1", "nan", "inf", "1e400", "1e39", "", "x", "٣", '"a\nb"')
NAMES = ("a\x1b[31m", "\u202eb", "", "a\nb", "x" * 300, "<b>", "\0", "..", "none", "=1+1", "a\ud800", "a", "a")

OUTS = (
    *("out", "out", "out", "out", "out-\x1b[31m", "out\nb", "out\udcff", "out\u202eb", "out/", "out/deep", "a::b"),
    *(
        ".",
        "..",
        "../..",
        "../../outside.txt",
        "",
        " ",
        "runs",
        "runs/{done}",
        "exported",
        "exported",
        "exported/train",
    ),
    *("mine.npz", "mine.npz/x", "data", "pictures/", "/proc/x", "/dev/null", "/dev/full", "x" * 250, "x" * 300, "~"),
    *("memory://x", "file:///x", "hf://x", "-", "./out/../out", "link", "link", "pipe"),
)
"""Where to write; ``link`` and ``pipe`` are what an edit makes them."""

FOLDER = (
    *("dataset_dict.json", "train/state.json", "train/dataset_info.json", "train/data-00000-of-00001.arrow"),
    *("train/state.json", "train/dataset_info.json", "train/data-00000-of-00001.arrow", "test/state.json"),
)
KEYS = (
    *("splits", "_data_files", "filename", "_format_columns", "_format_type", "_split", "_fingerprint", "features"),
    *(
        "image",
        "label",
        "names",
        "_type",
        "_indices_data_files",
        "download_checksums",
        "builder_name",
        "_output_all_columns",
    ),
)
TO = (
    "../../outside.txt",
    "/etc/passwd",
    "data-00000-of-00001.arrow",
    "Image",
    "Value",
    "ClassLabel",
    "Array2D",
    "train",
)
TO += ("canary_module", "pickle", "torch", "numpy", "jax", "custom")

READ = ("run", "--scenario", "split-digits", "--memory", "10", *SHORT[2:], "--runs", "runs", "--quiet")
READ += ("--set", "data.dataset=hf:./")


def export_case(rng: random.Random) -> Case:
    """Make an input that exports something, or reads what was exported."""
    if rng.random() < 0.3:
        return _read(rng)
    what, edits, words = rng.choice((*(_picks, _set, _memory, _whole) * 3, _anything))(rng)
    out = rng.choice(OUTS) if not edits or rng.random() < 0.3 else "out"
    words = ("export", what, "--out", out, *words, *(("--force",) if rng.random() < 0.45 else ()))
    edits += _in_the_way(rng, out)
    commands = [tuple(words)]
    if rng.random() < 0.3:
        commands.append(rng.choice(((*words, "--force"), words, (*READ[:-1], f"{READ[-1]}out"))))
    return Case("export", tuple(commands), tuple(edits))


def _in_the_way(rng: random.Random, out: str) -> list[dict[str, Any]]:
    """Put something where a folder is to be written, or beside it."""
    to = rng.choice(
        ("exported", "exported", "runs", "nowhere", "link", "../../outside.txt", "mine.npz", ".", "pictures")
    )
    if out == "link":
        return [{"file": "link", "do": "link", "to": to}]
    if out == "pipe":
        return [{"file": "pipe", "do": "pipe"}]
    if rng.random() > 0.25:
        return []
    ways: list[dict[str, Any]] = [
        {"file": ".out.partial", "do": "text", "to": "mine"},
        {"file": ".out.partial/x", "do": "text", "to": "left"},
        {"file": ".out.partial", "do": "link", "to": to},
        {"file": "out/mine.txt", "do": "text", "to": "mine"},
        {"file": "out/dataset_info.json", "do": "text", "to": "{}"},
        {"file": "exported/mine.txt", "do": "text", "to": "mine"},
        {"file": "exported/train/thesis/mine.txt", "do": "text", "to": "mine"},
        {"file": "exported/deep", "do": "link", "to": "../runs"},
        {"file": "dataset_info.json", "do": "text", "to": "{}"},
        {"file": "runs/dataset_dict.json", "do": "text", "to": "{}"},
    ]
    return rng.sample(ways, rng.choice((1, 1, 2)))


Made = tuple[str, list[dict[str, Any]], tuple[str, ...]]
"""What is exported, what is done to files before, and further words."""


def _picks(rng: random.Random) -> Made:
    """A file of picks, by value or by byte."""
    of = [
        *(("--features", "features.npy"), ("--features", "features.npy"), ("--dataset", "digits"), ()),
        *(("--dataset", "image-folder", "--path", "pictures", "--size", "8"), ("--dataset", "mine.npz")),
        *(("--dataset", "npz", "--path", "mine.npz"), ("--features", "labels.npy"), ("--features", "pictures")),
        ("--dataset", rng.choice(values.TEXTS).replace("\0", ""), "--path", rng.choice(("", "mine.npz", "pictures"))),
        ("--dataset", "image-folder", "--path", "pictures", "--size", str(rng.choice(values.INTS))),
    ]
    edits: list[dict[str, Any]] = []
    how = rng.random()
    if how < 0.45:
        head = rng.choice(
            ("index", "index", "index,weight", "index,weight", "index,index", "\ufeffindex", "row", "", "index\0")
        )
        lines = [f"{_row(rng)},{rng.choice(WEIGHTS)}" if "," in head else _row(rng) for _ in range(rng.randint(0, 4))]
        end = rng.choice(("\n", "\n", "\r\n", "\r", "\0\n"))
        edits.append({"file": "picks.csv", "do": "text", "to": end.join((head, *lines))})
    elif how < 0.7:
        edits += [by_byte(rng, "picks.csv")]
    elif how < 0.85:
        edits += [{"file": "picks.csv", **other(rng)}]
    else:
        edits += [by_byte(rng, "features.npy")]
    return "picks.csv", edits, rng.choice(of)


def _row(rng: random.Random) -> str:
    return str(rng.randrange(40)) if rng.random() < 0.8 else rng.choice(ROWS)


def _set(rng: random.Random) -> Made:
    """A condensed set, or the arrays of a data set."""
    file = rng.choice(("set.npz", "set.npz", "mine.npz", "features.npz", "named.npz"))
    edits: list[dict[str, Any]] = []
    how = rng.random()
    if how < 0.3:
        edits.append(by_byte(rng, file))
    elif how < 0.55:
        key = rng.choice(("x_train", "y_train", "x_test", "y_test", "classes"))
        edits.append(
            {"file": file, "do": "arrays", "at": [key], "how": rng.choice((*TENSORS, "drop", "wrap")), "to": ""}
        )
    elif how < 0.85:
        to: Any = [rng.choice(NAMES) for _ in range(rng.choice((4, 4, 4, 0, 1, 5)))]
        to = rng.choice((to, to, to, [[name] for name in to], 3, "a", [1.5, 2.5, 3.5, 4.5], [0, 1, 2, 3]))
        file = "set.npz"  # which has names of classes
        edits.append({"file": file, "do": "arrays", "at": ["classes"], "to": to})
    else:
        edits.append({"file": file, **other(rng)})
    return file, edits, ()


def _memory(rng: random.Random) -> Made:
    """A run whose memory, or record, was changed."""
    name = rng.choice(("done", "other", "half", "fisher", "asking", "done"))
    folder, edits = f"runs/{{{name}}}", list[dict[str, Any]]()
    for _ in range(rng.choice((1, 1, 2))):
        how = rng.random()
        if how < 0.6:
            deep = [
                "memory",
                rng.choice(("columns", "columns", "seen")),
                rng.choice(("x", "y", "index", "task", "weight", "mass", "soft")),
            ]
            at = deep[: rng.choice((1, 2, 3, 3, 3, 3))]
            what = {
                "do": "state",
                "at": at,
                "how": rng.choice((*TENSORS, "set", "drop", "wrap")),
                "to": values.wild(rng),
            }
            edits.append({"file": f"{folder}/checkpoint.pt", **what})
        elif how < 0.8:
            at = [
                rng.choice(("classes", "classes", "spec", "fingerprint", "format")),
                *(rng.randrange(9) for _ in range(2)),
            ]
            what = {
                "do": "value",
                "at": at,
                "how": rng.choice(("set", "set", "drop", "double", "wrap")),
                "to": values.wild(rng),
            }
            edits.append({"file": f"{folder}/record.json", **what})
        elif how < 0.9:
            edits.append(by_byte(rng, f"{folder}/{rng.choice(('checkpoint.pt', 'record.json', 'spec.json'))}"))
        else:
            edits.append(
                {"file": f"{folder}/{rng.choice(('checkpoint.pt', 'record.json', 'spec.json'))}", **other(rng)}
            )
    return (
        rng.choice((f"{{{name}}}", folder, folder)),
        edits,
        rng.choice(((), (), (), (), ("--runs", "runs"), ("--dataset", "digits"))),
    )


def _whole(rng: random.Random) -> Made:
    """What nobody has damaged."""
    made = (("set.npz", ()), ("picks.csv", ("--features", "features.npy")), ("runs/{done}", ()), ("{other}", ()))
    what, words = rng.choice(made)
    return what, [], words


def _anything(rng: random.Random) -> Made:
    """What is nothing to export, or perhaps."""
    texts = (
        *values.TEXTS,
        "exported",
        "runs",
        "pictures",
        "nowhere.csv",
        ".csv",
        ".npz",
        "features.npy",
        "a\udcff.csv",
        "a\udcff",
    )
    runs = rng.choice(("runs", "runs", "mine.npz", "nowhere", "exported", "."))
    return rng.choice(texts).replace("\0", ""), [], ("--runs", runs)


def by_byte(rng: random.Random, file: str) -> dict[str, Any]:
    """Change bytes of a file, more of them near its beginning."""
    manner = rng.choice(("cut", "drop", "flip", "flip", "flip", "zero", "double", "add"))
    size = rng.choice((1, 1, 2, 8, 100))
    return {"file": file, "do": "bytes", "at": round(rng.random() ** 2, 4), "how": manner, "size": size}


def other(rng: random.Random) -> dict[str, Any]:
    """Put something else in a file's place."""
    ways: list[dict[str, Any]] = [
        {
            "do": "text",
            "to": rng.choice(("", "{}", "[]", "null", "[" * 5000, "index\n" + '"' * 200_000, "\0" * 9, "\ud800")),
        },
        {"do": "link", "to": rng.choice(("/dev/zero", "nowhere", "/etc/passwd", "."))},
        {"do": "pipe"},
        {"do": "folder"},
        {"do": "gone"},
        {"do": "pickled", "how": rng.choice(("plain", "npy", "npz", "torch"))},
    ]
    return rng.choice(ways)


def _read(rng: random.Random) -> Case:
    """Damage an exported folder, and read or replace it."""
    edits = []
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(FOLDER)
        how, file = rng.random(), f"exported/{name}"
        if how < 0.35 or (name.endswith(".arrow") and how < 0.8):
            edits.append(by_byte(rng, file))
        elif how < 0.8:
            at: list[Any] = [rng.choice(KEYS)]
            at += [rng.choice((*KEYS, 0, 1, 2)) for _ in range(rng.choice((0, 1, 2, 3)))]
            to = rng.choice(TO) if rng.random() < 0.6 else values.wild(rng)
            edits.append(
                {"file": file, "do": "value", "at": at, "how": rng.choice(("set", "set", "drop", "double")), "to": to}
            )
        else:
            edits.append({"file": file, **other(rng)})
    name = rng.choice(
        ("exported", "exported", "exported", "exported/train", "exported/", "./exported/../exported", "nowhere")
    )
    words: tuple[str, ...] = (*READ[:-1], READ[-1] + name)
    if rng.random() < 0.3:
        key = rng.choice(("splits", "columns", "size", "config", "path"))
        words += (
            "--set",
            f"data.{key}={values.toml(rng.choice((['train'], ['test'], ['image', 'label'], 8, 0, 'x', 10**12)))}",
        )
    again: tuple[str, ...] = ("export", "set.npz", "--out", "exported", "--force")
    return Case("export", (words, again) if rng.random() < 0.25 else (words,), tuple(edits))

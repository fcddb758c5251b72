"""Makes inputs of damaged data files: IDX, archives, pickles, pictures, tables of labels, embeddings."""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz import values
from tests.fuzz.arena import SMALL
from tests.fuzz.case import TENSORS, Case

MEMORY = ("--memory", "10")


def data_case(rng: random.Random) -> Case:
    """Make an input that damages a data file, and reads it."""
    file, words = rng.choice(DATA)
    how, edits = rng.random(), list[dict[str, Any]]()
    manner = rng.choice(("cut", "cut", "drop", "flip", "flip", "flip", "zero", "double", "add"))
    if how < 0.5:
        for _ in range(rng.choice((1, 1, 3))):
            at = round(rng.random() ** 2, 4)
            edits.append({"file": file, "do": "bytes", "at": at, "how": manner, "size": rng.choice((1, 1, 4, 60))})
    elif how < 0.7 and file.endswith((".npz", ".npy")):
        key = rng.choice(("x_train", "y_train", "x_test", "y_test", "x"))
        edits.append(
            {"file": file, "do": "arrays", "at": [key], "how": rng.choice((*TENSORS, "drop", "rename")), "to": ""}
        )
    elif how < 0.8 and file.endswith(".csv"):
        rows = [f"{_cell(rng)},{_cell(rng)}" for _ in range(rng.randint(0, 4))]
        text = rng.choice(("file,label\n", "", "\ufefffile;label\n", "label,file\n")) + "\n".join(rows)
        edits.append({"file": file, "do": "text", "to": text})
    else:
        ways: list[dict[str, Any]] = [
            {
                "do": "text",
                "to": rng.choice(("", "P6\n99999 99999\n255\n", "%!PS-Adobe", "PK\x03\x04", "GIF89a", "[]")),
            },
            {"do": "pickled", "how": rng.choice(("plain", "npy", "npz", "torch"))},
            {"do": "link", "to": rng.choice(("/dev/zero", "nowhere", "../../../outside.txt", "."))},
            {"do": "pipe"},
            {"do": "folder"},
            {"do": "gone"},
            {"do": "raw", "to": _HEADER},
        ]
        edits.append({"file": file, **rng.choice(ways)})
    if "pictures" in file and rng.random() < 0.3:
        name = rng.choice(
            ("=cmd.png", "a\x1b[31m.png", "\u202egnp.png", "<b>.png", "a\nb.png", "-x.png", "ü" * 60 + ".png")
        )
        edits.append({"file": f"pictures/class0/{name}", "do": "text", "to": "no picture"})
    return Case("data", (words,) if rng.random() < 0.8 else (words, words), tuple(edits))


_HEADER = (
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEwMDAwMDAwMDAwMDAw"
    "MDAsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgCg=="
)
"""The header of an ``.npy`` file of ten to the sixteenth numbers, and nothing behind it."""

_RUN = ("run", *SMALL, *MEMORY)
_OWN = ("--set", "data.dataset=npz", "--set", "data.path=mine.npz")
_PICTURES = ("--set", "data.dataset=image-folder", "--set", "data.path=pictures", "--set", "data.size=8")
_MNIST = ("--set", "data.dataset=mnist", "--set", "stream.experiences=2")
_ASK = ("select", "--labelled", "answers.csv", "--budget", "3", "--out", "out-ask.csv", "--epochs", "1")
_PICK = ("select", "--features", "features.npy", "--budget", "3", "--out", "out.csv", "--force")
DATA: list[tuple[str, tuple[str, ...]]] = [
    ("mine.npz", (*_RUN, *_OWN)),
    ("mine.npz", (*_RUN, *_OWN)),
    (
        "mine.npz",
        ("condense", "--dataset", "mine.npz", "--method", "dm", "--ipc", "1", "--nets", "0", "--out", "out.npz"),
    ),
    *((f"data/MNIST/raw/{name}", (*_RUN, *_MNIST)) for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")),
    *((f"data/MNIST/raw/{name}", (*_RUN, *_MNIST)) for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte")),
    ("data/cifar-10-batches-py/data_batch_1", (*_RUN, "--set", "data.dataset=cifar10")),
    ("data/cifar-10-batches-py/batches.meta", (*_RUN, "--set", "data.dataset=cifar10")),
    ("data/cifar-100-python/train", (*_RUN, "--set", "data.dataset=cifar100")),
    ("data/train_32x32.mat", (*_RUN, "--set", "data.dataset=svhn")),
    ("data/usps.bz2", (*_RUN, "--set", "data.dataset=usps")),
    ("data/tiny-imagenet-200/wnids.txt", (*_RUN, "--set", "data.dataset=tiny-imagenet")),
    ("data/clsim-cache/digits/train_x.npy", _RUN),
    ("data/clsim-cache/digits/train_y.npy", _RUN),
    ("data/clsim-cache/digits/meta.json", _RUN),
    *(("pictures/class0/0.png", (*_RUN, *_PICTURES)) for _ in range(2)),
    ("pictures/class0/0.png", (*_ASK, "--dataset", "image-folder", "--path", "pictures", "--size", "8")),
    ("answers.csv", (*_ASK, "--dataset", "image-folder", "--path", "pictures", "--size", "8")),
    ("out-ask.csv", (*_ASK, "--dataset", "image-folder", "--path", "pictures", "--size", "8", "--force")),
    ("features.npy", (*_ASK, "--features", "features.npy")),
    ("features.npy", _PICK),
    ("labels.npy", (*_PICK, "--labels", "labels.npy", "--per-class")),
    ("features.npz", (*_RUN, "--set", "embedding.name=./features.npz", "--label", "typiclust", "--label-budget", "4")),
    ("start.npz", (*_RUN, "--set", "memory.start=start.npz")),
    ("start.pt", (*_RUN, "--set", "model.start=./start.pt")),
]
"""A file, and a command that reads it."""


def _cell(rng: random.Random) -> str:
    return rng.choice(("class0/0.png", "class1/3.png", "a", "b", "", "0", '"', '"a\nb"', *values.TEXTS[:16]))

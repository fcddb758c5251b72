"""What a workplace holds besides runs: what commands leave behind, for others to read or to go on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

SHORT = ("--set", "data.per_class=10", "--set", "stream.experiences=2", "--set", "training.epochs=1")
TUNE = ("--scenario", "split-digits", "--strategy", "finetune", "--trials", "2", "--test-seeds", "1", *SHORT)
SHARDS = ("select", "--features", "shards", "--parts", "3", "--budget", "4")
ANSWERS = ("select", "--features", "named.npz", "--labelled", "told.csv", "--budget", "3", "--epochs", "1")

PREPARED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", ("select", "--features", "features.npy", "--budget", "5", "--out", "picks.csv")),
    ("", ("condense", "--dataset", "mine.npz", "--method", "random", "--ipc", "2", "--nets", "0", "--out", "set.npz")),
    ("", ("export", "set.npz", "--out", "exported")),
    ("", (*ANSWERS, "--out", "out-ask.csv")),
    ("part-000001.json", (*SHARDS, "--selector", "kcenter", "--out", "cut.csv")),
    ("", ("tune", *TUNE, "--runs", "tuned", "--quiet")),
    ("", ("study", "planted", "--runs", "papers", "--engine", "here", "--quiet")),
)
"""The file after which a command is stopped (empty: it is finished), and its words."""

STORES = ("tuned", "papers")
"""Folders of runs besides ``runs``; their runs are called ``tuned0``, ``tuned1`` and so on, in the order of names."""

STUDY = """title = "Planted"
scenario = "split-digits"
strategy = "er"
memory = [4, 10]
seeds = 1
[set]
"data.per_class" = 10
"stream.experiences" = 2
"training.epochs" = 1
"""

PAPER = """title = "Planted"
rows = ["memory"]
columns = ["scenario"]
arms = ["memory"]
metrics = ["accuracy", "forgetting"]
[paper]
title = "More Memory"
claims = ["Ten exemplars beat four"]
small = { studies = ["planted"], reports = ["planted"], seconds = 1.0, measured = "a guess" }
[[claims]]
text = "Ten beat four"
a = { memory = 10 }
b = { memory = 4 }
"""


def make_files(place: Path) -> None:
    """Write the files that the prepared commands read."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((30, 5), dtype=np.float32)
    np.savez(place / "named.npz", x=x, files=[f"s{i}" for i in range(30)])
    (place / "told.csv").write_text("file,label\ns0,a\ns1,b\ns2,a\ns3,\n")
    (place / "shards").mkdir()
    for i in range(3):
        np.save(place / "shards" / f"x-{i}.npy", x[10 * i : 10 * i + 10])
    (place / "columns").mkdir()
    for i in range(3):
        lists = [pa.array(row.tolist()) for row in x[10 * i : 10 * i + 10].T]
        parquet.write_table(pa.table(lists, [f"c{c}" for c in range(5)]), place / "columns" / f"x-{i}.parquet")
    for kind, text in (("studies", STUDY), ("reports", PAPER)):
        (place / kind).mkdir()
        (place / kind / "planted.toml").write_text(text)

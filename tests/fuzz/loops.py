"""Makes inputs of commands that go on from what they left: a person's answers, choices in parts, searches, papers."""

from __future__ import annotations

import random
from typing import Any

from tests.fuzz import values
from tests.fuzz.case import TENSORS, Case
from tests.fuzz.exports import by_byte, other
from tests.fuzz.prepared import ANSWERS, SHARDS, TUNE

CELLS = (
    "s0",
    "s3",
    "s4",
    "s29",
    "s30",
    "a",
    "b",
    "",
    " ",
    "'=1+1",
    "=1+1",
    "''",
    "A",
    "ä",
    "\ufeff",
    '"',
    '"a\nb"',
    "a,b",
)
STATE = "files questions format checksum digest size changed number by labels agreement key guesses s1"
PICTURES = ("select", "--dataset", "image-folder", "--path", "pictures", "--size", "8", "--labelled", "answers.csv")
PICTURES += ("--budget", "3", "--epochs", "1", "--out", "out-ask.csv")
ASK = (*ANSWERS, "--out", "out-ask.csv")


def answers_case(rng: random.Random) -> Case:
    """Make an input that damages what an annotator and ``clsim select --labelled`` hand each other."""
    edits = []
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice(
            ("told.csv", "told.csv", "out-ask.csv", "out-ask.csv", "told.state.json", "told.state.json", "named.npz")
        )
        how = rng.random()
        if how < 0.2:
            edits.append(by_byte(rng, file))
        elif how < 0.35:
            edits.append({"file": file, **other(rng)})
        elif file.endswith(".csv"):
            edits.append({"file": file, "do": "text", "to": _rows(rng)})
        elif file.endswith(".json"):
            at = [rng.choice(STATE.split()), *(rng.randrange(9) for _ in range(rng.choice((0, 1, 2, 3))))]
            how_ = rng.choice(("set", "set", "drop", "rename", "double", "wrap"))
            to = rng.choice(values.TEXTS[:20]) if how_ == "rename" else values.wild(rng)
            edits.append({"file": file, "do": "value", "at": at, "how": how_, "to": to})
        else:
            names = [rng.choice(values.TEXTS) for _ in range(rng.choice((30, 30, 29, 0)))]
            to = rng.choice((names, names, [f"{i}{rng.choice(values.TEXTS[:40])}" for i in range(30)], 3))
            key = rng.choice(("x", "files", "files"))
            edits.append(
                {
                    "file": file,
                    "do": "arrays",
                    "at": [key],
                    "how": rng.choice((*TENSORS, "set", "set", "set")),
                    "to": to,
                }
            )
    words: tuple[str, ...] = (*ASK, "--selector", rng.choice(("kcenter", "badge", "typiclust", "entropy", "random")))
    if rng.random() < 0.25:
        words = PICTURES
        name = rng.choice(
            ("=cmd.png", "a\x1b[31m.png", "\u202egnp.png", "<b>.png", "a\nb.png", "ü" * 60 + ".png", "a\udcff.png")
        )
        folder = rng.choice(("", "class1/", "cl\x1b[2Jass/"))
        edits = [{"file": "answers.csv", "do": "text", "to": _rows(rng)}] if rng.random() < 0.5 else []
        edits.append(
            {
                "file": f"pictures/{folder}{name}",
                "do": "copy",
                "to": "pictures/class0/0.png",
            }
        )
    if rng.random() < 0.15:
        words += (
            "--out",
            rng.choice(("-", "told.csv", "told.state.json", "runs", "link", "../../outside.txt", "nowhere/x.csv")),
        )
        edits.append(
            {"file": "link", "do": "link", "to": rng.choice(("told.csv", "nowhere", "../../outside.txt", "/dev/full"))}
        )
    if rng.random() < 0.15:
        words += ("--force",)
    return Case("answers", (words, words) if rng.random() < 0.4 else (words,), tuple(edits))


def _rows(rng: random.Random) -> str:
    head = rng.choice(
        ("file,label", "file,label", "file;label", "\ufefffile,label", "label,file,x", "file,file", "FILE, Label", "")
    )
    rows = [",".join(_cell(rng) for _ in range(rng.choice((2, 2, 2, 2, 3, 1)))) for _ in range(rng.randint(0, 5))]
    return rng.choice(("\n", "\n", "\r\n", "\r", "\0\n")).join((head, *rows)) + rng.choice(("", "\n"))


def _cell(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"s{rng.randrange(31)}"
    return rng.choice((*CELLS, "class0/0.png", "class1/3.png", *values.TEXTS[:45]))


CHOOSERS = ("kcenter", "kcenter", "facility-location", "random", "entropy", "badge", "x")


def parts_case(rng: random.Random) -> Case:
    """Make an input that damages the shards of ``clsim select --parts``, or what its parts have chosen."""
    edits, cut = list[dict[str, Any]](), "cut.csv.parts"
    folder, ending = rng.choice((*(("shards", ".npy"),) * 3, ("columns", ".parquet")))
    for _ in range(rng.choice((1, 1, 2))):
        how = rng.random()
        shard = f"{folder}/x-{rng.randrange(3)}{ending}"
        if how < 0.25:
            edits.append(by_byte(rng, shard))
        elif how < 0.35:
            edits.append({"file": shard, "do": "arrays", "at": [], "how": rng.choice(TENSORS)})
        elif how < 0.45:
            edits.append({"file": shard, **other(rng)})
        elif how < 0.55:
            name = rng.choice(
                (
                    "x-7.npy",
                    "x-1-of-9.npy",
                    "x.npy",
                    "x-3.parquet",
                    "x-\x1b[31m.npy",
                    "x-٣.npy",
                    "x-²1.npy",
                    "x-" + "9" * 5000,
                    "x-1 .npy",
                )
            )
            edits.append({"file": f"{folder}/{name[:200]}", "do": "copy", "to": f"{folder}/x-0{ending}"})
        elif how < 0.85:
            file = f"{cut}/{rng.choice(('plan.json', 'part-000000.json', 'part-000001.json'))}"
            edits.append(
                rng.choice((by_byte(rng, file), {"file": file, **other(rng)}, _kept(rng, file), _kept(rng, file)))
            )
        else:
            edits.append(
                rng.choice(
                    (
                        {"file": cut, "do": "link", "to": rng.choice(("runs", "nowhere", "exported", "moved-away"))},
                        {"file": f"{cut}/lock", **other(rng)},
                        {"file": "out.csv.parts", "do": "link", "to": rng.choice(("shards", cut, "nowhere"))},
                        {"file": "out.csv.parts", "do": "text", "to": "mine"},
                        {"file": "out.csv.parts/mine.txt", "do": "text", "to": "mine"},
                        {"file": f"{cut}/part-000002.json", "do": "folder"},
                    )
                )
            )
    words: tuple[str, ...] = (
        *SHARDS[:2],
        folder,
        *SHARDS[3:],
        "--selector",
        rng.choice(CHOOSERS) if rng.random() < 0.25 else "kcenter",
    )
    words += (
        "--out",
        rng.choice((*("cut.csv",) * 8, "out.csv", "out.csv", "-", "runs", "out/x.csv", "shards/x-3.npy")),
    )
    if rng.random() < 0.3:
        words += ("--force",)
    if rng.random() < 0.2:
        flag = rng.choice(("--parts", "--budget", "--workers", "--seed", "--fraction"))
        words += (flag, str(rng.choice((*values.INTS, 0.5, "x"))))
    if rng.random() < 0.2:
        engine = rng.choice(("here", "here", "ray", "slurm", "", "x", "local"))
        words += ("--engine", engine, *(("--workers", "1") if engine == "local" else ()))
    return Case("parts", (words, words) if rng.random() < 0.3 else (words,), tuple(edits))


def _kept(rng: random.Random, file: str) -> dict[str, Any]:
    """Change what a part has chosen, with the right checksum, or what is said of the whole choice."""
    if file.endswith("plan.json"):
        key = rng.choice(("files", "counts", "width", "options", "budget", "parts", "seed", "clsim", "device", "x"))
        return {
            "file": file,
            "do": "value",
            "at": [key],
            "how": rng.choice(("set", "drop", "wrap")),
            "to": values.wild(rng),
        }
    content = {
        "rows": rng.choice(
            ([0, 1, 2, 3], [0, 0], [-1], [30], [2**70], ["a"], [[1]], [1.5], None, [True], [], 5, values.wild(rng))
        ),
        "measure": rng.choice((1.0, "x", None, 1e308, -1.0, values.wild(rng))),
        "digest": rng.choice(("", "\x1b[31m", None, values.wild(rng))),
    }
    if rng.random() < 0.5:
        del content[rng.choice(("measure", "digest"))]
    return {"file": file, "do": "part", "to": content}


SEARCHED = ("optimizer.lr",) * 4 + ("optimizer.weight_decay", "training.epochs", "memory.capacity", "seed", "a.b")
RANGES = (
    "0.1..1",
    "0.001..0.1:log",
    "1,2",
    "1..",
    "..",
    "1..x",
    "2..1",
    "0..1:log",
    "nan..1",
    "1e400..1e401",
    "0.1,0.1",
    "inf",
    "1..1e30",
    "-1..1",
    "mlp,\x1b[31m",
    "[1,2]..3",
    "true,false",
    "1,x",
    "0..0",
    "9" * 40 + ",1",
)


def tune_case(rng: random.Random) -> Case:
    """Make an input of ``clsim tune``: other searches, and the trials of an earlier one damaged."""
    words: tuple[str, ...] = ("tune", *TUNE, "--runs", "tuned")
    edits = []
    if rng.random() < 0.6:
        for _ in range(rng.choice((1, 1, 2))):
            edits.append(_of_a_run(rng, f"tuned/{{tuned{rng.randrange(4)}}}"))
    if rng.random() < 0.6 or not edits:
        for _ in range(rng.choice((1, 1, 2))):
            text = (
                rng.choice(values.TEXTS).replace("\0", "")
                if rng.random() < 0.1
                else f"{rng.choice(SEARCHED)}={rng.choice(RANGES)}"
            )
            words += ("--search", text)
    for flag in rng.sample(
        ("--experiences", "--validation", "--seed", "--trial-seeds", "--test-seeds", "--trials"),
        rng.choice((0, 0, 1, 2)),
    ):
        words += (flag, str(rng.choice((0, 1, 1, 2, -1, 0.5, 0.2, "x", "nan", 2**63, 10**30, 1e-320, "0.99999999"))))
    if rng.random() < 0.3:
        words += ("--search", "optimizer.lr=0.01..0.1:log")
    words += rng.choice(((), ("--quiet",), ("--json",), ("--dry-run",), ("--dry-run", "--json")))
    return Case("tune", (words,), tuple(edits))


def paper_case(rng: random.Random) -> Case:
    """Make an input of ``clsim reproduce``: a damaged store of its runs, a damaged file of the paper."""
    edits = [_of_a_run(rng, f"papers/{{papers{rng.randrange(2)}}}") for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.2:
        edits.append(by_byte(rng, rng.choice(("reports/planted.toml", "studies/planted.toml"))))
    name = rng.choice(("planted", "planted", "planted", "reports/planted.toml", "./reports/planted.toml"))
    words: tuple[str, ...] = ("reproduce", name, "--runs", "papers", "--workers", "1")
    words += ("--out", rng.choice((*("out",) * 6, "mine.npz", "runs", "out-\x1b[31m", "link", "out/deep/er")))
    edits.append({"file": "link", "do": "link", "to": rng.choice(("runs", "nowhere", "mine.npz"))})
    words += rng.choice((("--dry-run",), ("--dry-run", "--json"), ("--quiet",), ("--json",), ()))
    listing = (("reproduce", "--runs", "papers"), ("reproduce", "--runs", "papers", "--json"))
    return Case("paper", (words,) if rng.random() < 0.97 else (rng.choice(listing), words), tuple(edits))


def _of_a_run(rng: random.Random, folder: str) -> dict[str, Any]:
    """Damage a finished run."""
    name = rng.choice(("record.json", "record.json", "record.json", "spec.json", "checkpoint.pt", "losses.npz"))
    how, file = rng.random(), f"{folder}/{name}"
    if how < 0.25:
        return by_byte(rng, file)
    if how < 0.35:
        return {"file": file, **other(rng)}
    keys = (
        "metrics",
        "accuracy",
        "cost",
        "versions",
        "spec",
        "classes",
        "command",
        "finished",
        "diverged",
        "environment",
        "test_sizes",
    )
    at = [rng.choice(keys), *(rng.randrange(9) for _ in range(rng.choice((0, 1, 2, 3))))]
    found = {"file": f"{folder}/record.json", "do": "value", "at": at, "to": values.wild(rng)}
    found["how"] = rng.choice(("set", "set", "set", "drop", "double", "wrap"))
    return found | ({"renamed": True} if rng.random() < 0.3 else {})

"""``clsim runs``: the list, one run, and what is removed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import clsim as package
from clsim.errors import InputError, RunBusy
from clsim.records.overview import matching, overview
from clsim.records.store import Store
from clsim.reporting.stored import table
from clsim.spec.naming import run_names
from tests.commands import clsim, refused
from tests.files import rewrite

pytestmark = pytest.mark.usefixtures("workplace")

SMALL = ["data.per_class=10", "training.epochs=1", "stream.experiences=2"]


@pytest.fixture
def store(workplace: Path) -> Store:
    """Two finished runs, one that failed, one that is half done; they differ in buffer, seed and learning rate."""
    for buffer, seed, more in (("random", 0, ()), ("kcenter", 1, ()), ("kcenter", 0, ()), ("random", 0, ("0.2",))):
        settings = [*SMALL, *(f"optimizer.lr={lr}" for lr in more)]
        package.run(buffer=buffer, memory=10, settings=settings, seed=seed)
    store = Store(Path("runs"))
    failed, half = (find(store, f"kcenter 10 · seed {seed}") for seed in (1, 0))
    spec = json.loads((failed / "spec.json").read_text())
    (failed / "record.json").unlink()
    error = {
        "format": 1,
        "fingerprint": failed.name,
        "spec": spec,
        "error": "raised [red]OSError\x1b: no",
        "ended": "x",
    }
    (failed / "error.json").write_text(json.dumps(error | {"command": "clsim run --seed 1"}))
    record = json.loads((half / "record.json").read_text())
    record |= {"finished": False, "cost": record["cost"][:1]}
    rewrite(half / "record.json", record)
    return store


def find(store: Store, name: str) -> Path:
    (run,) = matching(overview(store), name)
    return run.folder


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert clsim("runs", "list", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_list_says_how_far_each_run_is(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = {run["name"]: run for run in listed(capsys)}
    title = "split-digits · er"
    assert found.keys() == {
        f"{title} · random 10 · optimizer.lr=0.05 · seed 0",
        f"{title} · random 10 · optimizer.lr=0.2 · seed 0",
        f"{title} · kcenter 10 · seed 0",
        f"{title} · kcenter 10 · seed 1",
    }
    finished = found[f"{title} · random 10 · optimizer.lr=0.2 · seed 0"]
    frame = package.load()
    (row,) = frame[frame["optimizer.lr"] == 0.2].to_dict("records")
    assert (finished["state"], finished["accuracy"]) == ("finished", row["accuracy"])
    assert row["folder"] == finished["folder"] == f"runs/{finished['fingerprint']}"
    half, failed = (found[f"{title} · kcenter 10 · seed {seed}"] for seed in (0, 1))
    assert (half["state"], half["done"], half["experiences"], half["accuracy"]) == ("half done", 1, 2, None)
    assert (failed["state"], failed["reason"]) == ("failed", "raised [red]OSError\x1b: no")
    assert clsim("runs") == 0  # the list is meant
    printed = capsys.readouterr().out
    assert "raised [red]OSError : no" in printed
    assert "half done 1/2" in printed


def test_a_narrow_console_shows_less_beside_the_name(store: Store) -> None:
    headings = [[column.header for column in table(overview(store), width).columns] for width in (80, 160)]
    assert headings[0] == ["id", "run", "state", "acc., %", "forg., %", "when"]
    assert headings[1] == ["id", "run", "state", "accuracy, %", "forgetting, %", "when", "seconds"]


def test_the_latest_run_is_last(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ended = [run["ended"] for run in listed(capsys)]
    assert ended == sorted(ended)


@pytest.mark.parametrize(
    ("words", "many"),
    [
        (["--buffer", "k-center"], 2),
        (["--buffer", "random", "--buffer", "kcenter"], 4),
        (["--seed", "1"], 1),
        (["--scenario", "split-mnist"], 0),
        (["--strategy", "er", "--where", "optimizer.lr=0.2"], 1),
        (["--where", "memory=10", "--failed"], 1),
        (["--unfinished"], 2),
        (["--label", "badge"], 0),
    ],
)
def test_filters(words: list[str], many: int, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(listed(capsys, *words)) == many


def test_what_is_wrong_in_a_filter_or_a_name_is_said(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'optimizer.lr'?" in refused(capsys, "runs", "--where", "optimizer.rl=1")
    assert "allowed: key=value" in refused(capsys, "runs", "--where", "memory")
    assert "no folder 'elsewhere'" in refused(capsys, "runs", "--runs", "elsewhere")
    assert "no run 'gem'" in refused(capsys, "runs", "show", "gem")
    assert clsim("runs", "show", "kcenter") == 2
    printed = capsys.readouterr()
    assert "names 2 runs" in printed.err
    assert "kcenter 10 · seed 1" in printed.out  # those that it may be


def test_a_run_is_shown_by_its_name_its_id_and_its_folder(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = find(store, "lr=0.2")
    shown = []
    name = "split-digits · er · random 10 · optimizer.lr=0.2 · seed 0"
    for words in (["runs", "show", name], ["runs", "show", folder.name[:6]], ["runs", "show", "LR=0.2"]):
        assert clsim(*words) == 0
        shown.append(capsys.readouterr().out)
    assert len(set(shown)) == 1
    assert clsim("show", str(folder)) == 0
    alone = capsys.readouterr().out.split("\n", 2)[2]
    assert alone == shown[0].split("\n", 2)[2]  # the same code; the first lines have its name in the list
    record = package.run(buffer="random", memory=10, settings=[*SMALL, "optimizer.lr=0.2"])
    assert record.read
    for value in [*record.accuracy.to_numpy().ravel(), record.metrics["forgetting"]]:
        assert f"{100 * value:.1f}" in alone
    assert record.data["command"] in alone
    assert record.data["versions"]["torch"] in alone
    for setting in ("optimizer.lr", "memory.capacity", "data.per_class", "training.epochs", "stream.experiences"):
        assert f"\n{setting} " in alone
    assert "own: 0.05" in alone
    assert "optimizer.momentum" not in alone  # which the scenario has


def test_broken_and_hostile_folders_have_their_reason(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    root = store.root
    for digit in "012":
        (root / (digit * 16)).mkdir()
    os.mkfifo(root / ("0" * 16) / "record.json")
    (root / ("1" * 16) / "record.json").write_text('{"format": 1, "spec"')
    (root / ("3" * 16)).touch()
    (root / ("4" * 16)).symlink_to(find(store, "lr=0.2"))
    (root / "notes").mkdir()
    spec = {"scenario": "\x1b[31m<b>", "seed": 0, "stream": {"presentation": "separate", "experiences": 3}, "memory": 7}
    name = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    (root / name).mkdir()
    (root / name / "spec.json").write_text(json.dumps(spec))
    found = {run["fingerprint"]: run for run in listed(capsys)}
    assert len(found) == 4 + 6
    broken = {key: run["reason"] for key, run in found.items() if run["state"] == "broken"}
    assert broken.keys() == {"0" * 16, "1" * 16, "2" * 16, "3" * 16, "4" * 16}
    assert "no regular file" in broken["0" * 16]
    assert all(reason for reason in broken.values())
    assert clsim("runs") == 0
    assert "\x1b" not in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"^skipped runs/0.*\(and 3 more\)$") as warned:
        assert len(package.load()) == 2
    assert len(warned) == 1


def test_removed_is_what_was_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one, kept = find(store, "lr=0.2"), find(store, "lr=0.05")
    (one / "elsewhere").symlink_to(kept)
    assert "no run 'lr=0.2'" in refused(capsys, "runs", "rm", "lr=0.2", "--yes")  # a part of a name is not enough
    assert clsim("runs", "rm", one.name[:7], "--yes") == 0
    assert not one.exists()
    assert (kept / "record.json").exists()  # a link is not followed
    assert clsim("runs", "rm", str(kept), "--yes") == 0
    assert len(store.folders()) == 2


def test_what_is_not_confirmed_stays(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert clsim("runs", "rm", find(store, "lr=0.2").name) == 1
    assert clsim("runs", "gc") == 1
    assert len(store.folders()) == 4


def test_only_runs_of_the_folder_are_removed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    link, empty, outside = store.root / ("4" * 16), store.root / ("5" * 16), Path("other") / ("6" * 16)
    link.symlink_to(find(store, "lr=0.2"))
    empty.mkdir()
    (empty / "mine.txt").touch()
    outside.mkdir(parents=True)
    (outside / "spec.json").touch()
    assert "is a link" in refused(capsys, "runs", "rm", link.name, "--yes")
    assert "holds no run" in refused(capsys, "runs", "rm", empty.name, "--yes")
    assert "no run" in refused(capsys, "runs", "rm", str(outside), "--yes")
    for folder in (outside, store.root, store.root / "..", link / "..", empty):
        with pytest.raises(InputError):
            store.remove(folder)
    assert len(store.folders()) == 6


def test_a_busy_run_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = find(store, "kcenter 10 · seed 0")
    with FileLock(folder / "lock"):
        assert {run["state"] for run in listed(capsys, "--unfinished")} == {"busy", "failed"}
        assert "another process" in refused(capsys, "runs", "rm", folder.name, "--yes")
        with pytest.raises(RunBusy):
            store.remove(folder)
        assert clsim("runs", "gc", "--yes") == 0
    assert folder.exists()


def test_gc_removes_what_failed_and_what_is_half_done(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    gone = [find(store, f"kcenter 10 · seed {seed}") for seed in (0, 1)]
    size = sum(file.stat().st_size for folder in gone for file in folder.iterdir())
    broken = store.root / ("5" * 16)
    broken.mkdir()
    assert clsim("runs", "gc", "--dry-run") == 0
    assert f"would remove 2 runs, {size:,} bytes" in capsys.readouterr().err
    assert all(folder.exists() for folder in gone)
    assert clsim("runs", "gc", "--yes") == 0
    assert {folder.name for folder in store.folders()} == {find(store, f"lr={lr}").name for lr in ("0.05", "0.2")} | {
        broken.name
    }


def test_names_are_unique_and_no_longer_than_needed() -> None:
    def of(lr: float, seed: int, code: str = "") -> dict[str, Any]:
        spec = {"scenario": "split-digits", "strategy": "er", "seed": seed, "optimizer": {"lr": lr}}
        return spec | {"memory": {"buffer": "./mine.py:f", "capacity": 5}, "sources": [["./mine.py:f", code]]}

    title = "split-digits · er · ./mine.py:f 5"
    assert [*run_names({"a": of(0.1, 0), "b": of(0.1, 1)}, {}).values()] == [f"{title} · seed 0", f"{title} · seed 1"]
    same = run_names({"abcd1": of(0.1, 0, "x"), "abcd2": of(0.1, 0, "y"), "e": of(0.2, 0, "y")}, {})
    assert [*same.values()] == [
        f"{title} · optimizer.lr=0.1 · seed 0 · abcd1",
        f"{title} · optimizer.lr=0.1 · seed 0 · abcd2",
        f"{title} · optimizer.lr=0.2 · seed 0",
    ]
    usual = {"optimizer.clip": 0.0}
    clipped = {**of(0.1, 0), "optimizer": {"lr": 0.1, "clip": 1.0}}
    assert [*run_names({"a": of(0.1, 0), "b": clipped}, usual).values()] == [
        f"{title} · optimizer.clip=0.0 · seed 0",
        f"{title} · optimizer.clip=1.0 · seed 0",
    ]


def test_the_list_as_parquet_has_a_row_for_each_finished_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    assert clsim("runs", "--format", "parquet") == 0
    assert "wrote runs.parquet" in capsys.readouterr().err
    table = pd.read_parquet("runs.parquet")
    finished = [run for run in overview(store) if run.state == "finished"]
    assert sorted(table["fingerprint"]) == sorted(run.fingerprint for run in finished)
    assert {"scenario", "buffer", "seed", "accuracy", "optimizer.lr", "command"} <= {*table.columns}
    assert clsim("runs", "--format", "parquet", "--where", "optimizer.lr=0.2", "--out", "one.parquet") == 0
    assert pd.read_parquet("one.parquet")["optimizer.lr"].tolist() == [0.2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "csv"], "--format: found 'csv', allowed: console, parquet"),
        (["--out", "a.parquet"], "--out: found a.parquet with --format console"),
        (["--format", "parquet", "--json"], "--json: found with --format parquet"),
        (["--format", "parquet", "--failed"], "none of the runs is finished"),
        (["--format", "parquet", "--out", "runs"], "is a folder"),
    ],
)
def test_a_wrong_form_of_the_list_is_refused(
    words: list[str], said: str, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clsim("runs", *words) == 2
    assert said in capsys.readouterr().err

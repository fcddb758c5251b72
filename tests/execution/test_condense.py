"""``clsim condense``: a set that is a data set again, a command that survives a kill, mistakes in one line."""

from __future__ import annotations

import csv
import inspect
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.cli import main
from clsim.cli.condense import condense as command_to_condense
from clsim.cli.select import select as command_to_select
from clsim.errors import InputError
from clsim.execution import condense as module
from clsim.execution.condense import condense
from clsim.execution.keeper import Keeper, Nobody, key_of
from clsim.execution.select import select
from clsim.spec import revisions
from clsim.training.workshop import spec_of_call
from tests.commands import clsim as command
from tests.killing import exit_code_of

ARGUMENTS = ["--dataset", "digits", "--per-class", "20", "--ipc", "2", "--option", "iterations=6", "--threads", "1"]
ARGUMENTS += ["--model-option", "width=16"]  # of 128
QUICK = ["--nets", "2", "--epochs", "2"]


def test_the_set_loads_again_and_says_what_rounding_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("condense", *ARGUMENTS, *QUICK, "--sets", "2", "--out", "set.npz") == 0
    printed = capsys.readouterr()
    assert "20 images, 1,280 bytes → set.npz" in printed.out
    assert "as stored, rounded to whole grey levels" in printed.out
    assert "(2 sets × 2 nets)" in printed.out
    assert "iteration 6/6 · loss" in printed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set-1.npz", "set-1.png", "set.npz", "set.png"]
    assert (tmp_path / "set.png").read_bytes().startswith(b"\x89PNG")
    with np.load("set.npz") as file:
        assert file["x_train"].dtype == np.uint8
        assert np.bincount(file["y_train"]).tolist() == [2] * 10
    settings = ["data.dataset=npz", "data.path=set.npz"]
    record = clsim.run("split-digits", "finetune", settings=settings, data_root=tmp_path, runs=tmp_path / "r")
    assert record.data["finished"]
    again = ["--dataset", "set.npz", "--method", "random", "--ipc", "1", "--nets", "0", "--data-root", str(tmp_path)]
    assert command("condense", *again, "--out", "smaller.npz") == 0


def die_half_way(words: list[str]) -> None:
    """Carry a command out, and kill its process after the fourth iteration."""

    class Dies(Keeper):
        def step(self, done: int, *rest: Any) -> None:
            super().step(done, *rest)
            if done == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    module.Keeper = Dies  # type: ignore[misc]
    sys.argv = ["clsim", "condense", *words]
    main.main()


@pytest.mark.parametrize("method", ["dm", "dsa"])
def test_a_killed_command_goes_on_and_makes_the_same_set(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*ARGUMENTS, "--method", method, "--nets", "0", "--every", "0", "--no-picture"]
    assert exit_code_of(die_half_way, [*arguments, "--out", "killed.npz"]) == -signal.SIGKILL
    state = torch.load("killed.npz.state", weights_only=True)
    assert state["iteration"] == 4
    assert not Path("killed.npz").exists()
    other = [a if a != "iterations=6" else "iterations=7" for a in arguments]
    assert command("condense", *other, "--out", "killed.npz") == 2  # another set's state
    assert command("condense", *arguments, "--out", "killed.npz") == 0
    assert command("condense", *arguments, "--out", "whole.npz") == 0
    with np.load("killed.npz") as killed, np.load("whole.npz") as whole:
        for name in whole.files:
            assert np.array_equal(killed[name], whole[name])
    assert not Path("killed.npz.state").exists()


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"no state")
    with pytest.raises(InputError, match="cannot be read"):
        Keeper(tmp_path / "state", "key", Nobody()).resume()
    torch.save({"clsim": clsim.__version__, "key": "other"}, tmp_path / "state")
    with pytest.raises(InputError, match="found the state of another set"):
        Keeper(tmp_path / "state", "key", Nobody()).resume()


def test_each_set_adds_a_row_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [*ARGUMENTS, *QUICK, "--no-picture", "--no-augment", "--option", "augment=['crop', 'scale']"]
    assert command("condense", *arguments, "--sets", "2", "--csv", "rows.csv", "--out", "set.npz") == 0
    printed = capsys.readouterr().out
    assert (
        command("condense", *ARGUMENTS[:6], "--method", "random", "--nets", "0", "--csv", "rows.csv", "--out", "r.npz")
        == 0
    )
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        first, second, picked = csv.DictReader(file)
    assert (first["seed"], second["seed"]) == ("0", "1")
    assert f"loss {float(second['loss']):.5g}" in printed
    assert (picked["method"], picked["accuracy"], picked["loss"]) == ("random", "", "")
    words = shlex.split(second["command"])
    assert words[:2] == ["clsim", "condense"]
    assert command("condense", *words[2:], "--no-picture", "--csv", "again.csv", "--out", "again.npz") == 0
    with Path("again.csv").open(newline="", encoding="utf-8") as file:
        (again,) = csv.DictReader(file)
    assert {**again, "seconds": ""} == {**second, "seconds": ""}


def test_some_classes_smaller_images_and_a_narrow_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8), "y_train": np.arange(40) % 4}
    tests = {"x_test": rng.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8), "y_test": np.arange(12) % 4}
    np.savez("own.npz", **arrays, **tests)
    narrowed = ["--classes", "3, 0", "--size", "8", "--model-option", "width=4", "--option", "iterations=1"]
    arguments = ["--dataset", "own.npz", "--ipc", "2", *narrowed, "--data-root", str(tmp_path), "--threads", "1"]
    assert command("condense", *arguments, *QUICK, "--csv", "rows.csv", "--out", "set.npz") == 0
    with np.load("set.npz") as file:
        assert file["x_train"].shape == (4, 3, 8, 8)
        assert sorted(file["y_train"].tolist()) == [0, 0, 1, 1]
        assert file["y_test"].tolist() == [1, 0, 1, 0, 1, 0]  # of 3 and 0, in the order of the test part
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    words = shlex.split(row["command"])
    assert all(word in words for word in narrowed)
    command("condense", *words[2:], "--data-root", str(tmp_path), "--csv", "rows.csv", "--out", "again.npz")
    with Path("rows.csv").open(newline="", encoding="utf-8") as file:
        first, again = csv.DictReader(file)
    assert {**first, "seconds": ""} == {**again, "seconds": ""}


def test_a_state_is_of_its_classes_size_and_model(tmp_path: Path) -> None:
    """Each decides what is made: the state of a set without it is refused."""
    state = tmp_path / "state"

    class Stops(Nobody):
        def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
            if done == 2:
                raise KeyboardInterrupt

    def make(watch: Nobody, **options: Any) -> None:
        condense("digits", ipc=1, per_class=5, nets=0, threads=1, state=state, every=0, watch=watch, **options)

    with pytest.raises(KeyboardInterrupt):
        make(Stops(), options={"iterations": 3})
    for other in ({"classes": ["0", "1"]}, {"size": 16}, {"model_options": {"width": 8}}):
        with pytest.raises(InputError, match="found the state of another set"):
            make(Nobody(), options={"iterations": 3}, **other)
    make(Nobody(), options={"iterations": 3})


def test_a_state_of_a_method_from_before_a_change_of_it_is_that_of_another_set(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of_call("digits", "", seed=0, device="cpu", threads=1, proxy_epochs=1)
    now = {method: key_of(spec, method, {}) for method in ("dm", "dsa", "idc")}
    monkeypatch.setattr(revisions, "REVISIONS", {})
    before = {method: key_of(spec, method, {}) for method in now}
    assert {method for method in now if now[method] != before[method]} == {"dm", "dsa"}


@pytest.mark.parametrize(("epochs", "augment", "expected"), [(0, True, 1000), (0, False, 300), (7, True, 7)])
def test_nets_are_trained_as_long_as_in_the_papers_unless_it_is_said(
    epochs: int, augment: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("clsim.execution.condense.accuracy", lambda *args: asked.append(args[3]) or 0.5)
    condense("digits", "random", ipc=1, per_class=5, nets=2, epochs=epochs, augment=augment, threads=1)
    assert [training.epochs for training in asked] == [expected, expected]
    assert all(bool(training.augment) is augment for training in asked)


def test_the_same_seed_makes_the_same_set_and_another_another() -> None:
    state = torch.get_rng_state()
    options = {"iterations": 2}
    first, again, other = (
        condense("digits", "dm", ipc=2, per_class=10, options=options, nets=1, epochs=1, seed=s, threads=1)
        for s in (0, 0, 1)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.exemplars.x, again.exemplars.x)
    assert first.accuracies == again.accuracies
    assert not torch.equal(first.exemplars.x, other.exemplars.x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "dn"], "did you mean"),
        (["--dataset", "cifar1"], "did you mean 'cifar10'"),
        (["--dataset", "no.npz"], "no file 'no.npz'"),
        (["--out", "set.txt"], "allowed: a name that ends in .npz"),
        (["--out", "nowhere/set.npz"], "no folder 'nowhere'"),
        (["--option", "iteration=2"], "did you mean 'iterations'"),
        (["--precision", "fp8"], "allowed: fp32, bf16, auto"),
        (["--model", "convnet4"], "did you mean 'convnet3'"),
        (["--model-option", "widht=8"], "did you mean 'width'"),
        (["--model-option", "width"], "--model-option: found 'width', allowed: NAME=VALUE, as in width=64"),
        (["--classes", "0,11"], "classes: found '11'"),
        (["--classes", "3"], "classes: found 1, allowed: two or more"),
        (["--classes", "3,4,3"], "classes: found '3' twice"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("condense", "--dataset", "digits", "--nets", "0", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error


COMMANDS = {"condense": (command_to_condense, condense), "select": (command_to_select, select)}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_has_the_defaults_of_the_function(name: str) -> None:
    command, function = (
        {name.rstrip("_"): p.default for name, p in inspect.signature(f).parameters.items()} for f in COMMANDS[name]
    )
    shared = {name for name in set(command) & set(function) if function[name] is not inspect.Parameter.empty}
    if name == "condense":  # all arguments of the function but those that a command line says in another way
        assert set(function) - shared == {"options", "model_options", "state", "watch"}
        assert (command["option"], command["model_option"]) == (function["options"], function["model_options"])
    differ = {n: (command[n], function[n]) for n in shared if (command[n] or None) != (function[n] or None)}
    assert not differ


def test_condense_is_a_public_name_and_a_set_is_written_and_read_again(tmp_path: Path) -> None:
    made = clsim.condense("digits", "dsa", ipc=1, per_class=5, options={"iterations": 1, "steps": 2}, nets=0, threads=1)
    assert isinstance(made, clsim.Condensed)
    made.write(tmp_path / "set.npz")
    again = clsim.condense(str(tmp_path / "set.npz"), "random", ipc=1, nets=0, threads=1, data_root=tmp_path)
    assert torch.equal(again.exemplars.x[again.exemplars.y.argsort()], made.exemplars.x[made.exemplars.y.argsort()])


def test_files_are_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("condensed.npz").write_bytes(b"")
    assert command("condense", "--dataset", "digits") == 2

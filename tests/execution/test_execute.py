"""The one path of a run: what it needs first, who watches, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app
from clsim.execution import plan
from clsim.execution.engines.engine import Job, work
from clsim.execution.execute import execute
from clsim.pool.pool import Pool, Selection
from clsim.records.store import Store
from clsim.spec.flags import command, tables_of
from clsim.spec.resolve import prerequisites, resolve
from clsim.spec.run import RunSpec
from clsim.training.progress import Progress, Quiet

SMALL = ["stream.experiences=2", "data.per_class=10", "training.epochs=1", "model.name=linear"]
ORDERED = [*SMALL, "stream.tasks=easy-first"]


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a scenario that no name leads to."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/two.toml").write_text('[data]\ndataset = "digits"\n[stream]\nsetting = "class"\n')
    return "mine/two.toml"


def test_a_plain_run_needs_nothing_first() -> None:
    assert prerequisites(resolve("split-digits", "er", settings=SMALL)) == []


def test_what_a_run_needs_first_is_named_in_its_spec() -> None:
    spec = resolve("split-digits", "finetune", settings=ORDERED, seed=2)
    (first,) = prerequisites(spec)
    assert (first.key, first.named) == ("stream.difficulty", spec.stream.difficulty)
    assert (first.spec.fingerprint, first.spec.strategy, first.spec.seed) == (first.named, "joint", 2)
    assert prerequisites(first.spec) == []


def test_each_run_is_watched_and_nothing_is_run_twice(scenario: str) -> None:
    spec, store, seen = resolve(scenario, "finetune", settings=ORDERED), Store(Path("runs")), list[str]()

    @contextmanager
    def watch(spec: RunSpec) -> Iterator[Progress]:
        seen.append(f"{spec.strategy} begins")
        yield Quiet()
        seen.append(f"{spec.strategy} ends")

    execute(spec, store, scenario=scenario, watch=watch)
    assert seen == ["joint begins", "joint ends", "finetune begins", "finetune ends"]
    assert len(store.records()[0]) == 2
    seen.clear()
    execute(spec, store, scenario=scenario, watch=watch)
    assert seen == ["finetune begins", "finetune ends"]  # as it is read, nothing is needed
    seen.clear()
    execute(spec, store, scenario=scenario, watch=watch, fresh=True)
    assert seen == ["finetune begins", "finetune ends"]  # what it needs is read, not run anew


def test_every_way_to_a_run_carries_out_what_it_needs_first(scenario: str) -> None:
    """A scenario that is a path, which the joint run is made of too: from Python, as a command, in a study's worker."""
    words = [word for setting in ORDERED for word in ("--set", setting)]
    one = clsim.run(scenario, "finetune", settings=ORDERED, runs="a").data
    made = CliRunner().invoke(app, ["run", "--scenario", scenario, "--strategy", "finetune", *words, "--runs", "b"])
    assert made.exit_code == 0, made.output
    axes = dict(setting.split("=") for setting in ORDERED)
    study = {"scenario": scenario, "strategy": "finetune", "seeds": 1, "set": {k: parsed(v) for k, v in axes.items()}}
    (planned,) = plan.plan(plan.read(study, "here"), Store(Path("c")))
    outcome = work(Job(planned.spec, planned.command, "c", None, ".", planned.scenario))
    assert outcome.state == "finished", outcome.error
    found = [Store(Path(folder)).records()[0] for folder in "abc"]
    assert [len(records) for records in found] == [2, 2, 2]
    assert len({record.data["fingerprint"] for records in found for record in records}) == 2
    assert [record.data["command"] for record in found[0]] == [record.data["command"] for record in found[1]]
    assert one["fingerprint"] == planned.spec.fingerprint


def parsed(text: str) -> Any:
    return int(text) if text.isdecimal() else text


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (tables_of(buffer="kcenter", memory=50, threads=2, device="cpu"), []),
        (tables_of(memory="1%", labels="20%"), ["optimizer.lr=0.2"]),
        ({"memory": {"buffer": "herding", "options": {"normalise": False}}}, []),
        ({"model": {"name": "mlp", "options": {"hidden": [10, 20]}}, "data": {"augment": ["noise"]}}, []),
        (tables_of(controller="stability-decay"), ["controller.decays=2"]),
    ],
)
def test_the_command_of_a_run_makes_it(flags: dict[str, Any], settings: list[str]) -> None:
    spec = resolve("split-digits", "er", flags=flags, settings=settings, seed=3)
    words = shlex.split(command("split-digits", "er", flags, settings, 3))
    given = dict(zip(words[2::2], words[3::2], strict=True))
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    names = ("buffer", "memory", "labels", "controller", "device", "precision")
    again = tables_of(
        threads=int(given["--threads"]) if "--threads" in given else None,
        **{name: given.get(f"--{name}") for name in names},  # type: ignore[arg-type]
    )
    assert resolve("split-digits", "er", flags=again, settings=sets, seed=int(given["--seed"])) == spec


def in_order(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.arange(budget))


def test_a_selector_that_is_an_object_has_no_command(tmp_path: Path) -> None:
    how: dict[str, Any] = {"memory": 10, "settings": SMALL, "runs": tmp_path}
    assert clsim.run("split-digits", buffer=in_order, **how).data["command"] == ""
    words = shlex.split(clsim.run("split-digits", buffer="random", **how).data["command"])
    assert words[:10:2] + words[-2:] == ["clsim", "--scenario", "--strategy", "--buffer", "--memory", "--seed", "0"]

"""Seeds that advance together take the steps that each takes alone, and each has a record of its own."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import clsim
from clsim.checks.samples import body, convolutional
from clsim.checks.setups import setup_of
from clsim.data import datasets
from clsim.errors import InputError, RunBusy
from clsim.execution.engines.engine import Job, work
from clsim.records.store import RunRecord, Store
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.resolve import remarks, resolve
from clsim.spec.run import RunSpec
from clsim.spec.seats import LEARNERS
from clsim.streams import build
from clsim.streams.stream import Stream
from clsim.training.contract import Setup
from clsim.training.experiment import Experiment
from clsim.training.progress import Quiet
from clsim.training.together import Together
from tests.helpers import assert_same
from tests.killing import Killed, Writes, assert_same_end, die, exit_code_of

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
# few steps: this net makes much of a rounding, as it does alone; tests/models/test_stacked.py has many in float64
RESNET = ["model.name=slim-resnet18", "model.options={width=4}", "optimizer.lr=0.01", "data.per_class=4"]
SMALL = ["data.per_class=12", "stream.experiences=2", "training.epochs=1"]


def spec_of(seed: int, *settings: str) -> RunSpec:
    words = [*SMALL, "training.together=true", *settings]
    return resolve("split-digits", "er", flags={"memory": {"capacity": 20}}, settings=words, seed=seed, seeds=SEEDS)


def stream_of(spec: RunSpec, root: Path) -> Stream:
    return build.build(datasets.load(spec.data, root), spec.stream, spec.seed, CPU)


def learnt(spec: RunSpec, root: Path, seat: Any = None) -> tuple[dict[str, Any], dict[str, list[float]], Setup]:
    """A learner's state after all experiences, the losses of its steps, and its setup."""
    stream, losses = stream_of(spec, root), {}
    experiment = Experiment(spec, stream, Quiet(), seat=seat)
    setup, learner = experiment.assemble()
    for position in stream.schedule:
        for name, column in experiment.learn(stream.experience(position), setup, learner).columns().items():
            losses.setdefault(name, []).extend(column)
    return learner.state_dict() or {}, losses, setup


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [one for value in state.values() for one in tensors(value)]
    if isinstance(state, (list, tuple)):
        return [one for value in state for one in tensors(value)]
    return [state.detach().double()] if isinstance(state, torch.Tensor) else []


def assert_the_same_steps(root: Path, *settings: str, atol: float = 1e-5, rtol: float = 1e-4) -> None:
    """All that a learner has after some steps is what it would have alone, to rounding."""
    specs, seats = [spec_of(seed, *settings) for seed in SEEDS], {}

    def work(spec: RunSpec) -> Any:
        def learns(seat: Any) -> Any:
            seats[spec.seed] = seat
            return learnt(spec, root, seat)

        return learns

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(4)
        found = Together(len(SEEDS), CPU).run([work(spec) for spec in specs])
    for spec, together in zip(specs, found, strict=True):
        if isinstance(together, BaseException):
            raise together
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(4)
            alone = learnt(spec, root)
        assert together[2].cost.steps == alone[2].cost.steps >= 4
        assert seats[spec.seed].taken >= alone[2].cost.steps  # every step was taken together
        assert together[1].keys() == alone[1].keys()
        for name, column in alone[1].items():
            expected, losses = torch.tensor(column), torch.tensor(together[1][name])
            torch.testing.assert_close(losses, expected, atol=atol, rtol=rtol, equal_nan=True)
        for one, other in zip(tensors(together[0]), tensors(alone[0]), strict=True):
            torch.testing.assert_close(one, other, atol=atol, rtol=rtol, equal_nan=True)


@pytest.mark.parametrize("name", sorted(COMPONENTS["learners"]))
def test_learners_say_whether_seeds_can_share_their_steps(name: str) -> None:
    model = convolutional if name == "lwm" else body
    learner = registry.component("learners", name, {}, "")(setup_of(model, buffered=True))
    assert learner.steps_together == (name in LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_together_is_that_of_each_alone(name: str, tmp_path: Path) -> None:
    assert_the_same_steps(tmp_path, f"learner.name={name}")


@pytest.mark.parametrize(
    "settings",
    [
        ["model.options.norm=batch", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"],
        ["model.options.dropout=0.3"],
        [*RESNET, 'data.augment=["crop"]'],
        ["model.name=convnet3", "model.options={width=8}", "optimizer.lr=0.01", "data.per_class=4"],
        ["optimizer.name=adam", "optimizer.lr=0.001"],
        ["model.name=linear", "model.options={}", "optimizer.name=lars", "optimizer.clip=1"],
        ["stream.setting=task", "optimizer.schedule=cosine", "memory.update=batch"],
    ],
    ids=["batch norm", "dropout", "resnet, augmented", "instance norm", "adam", "linear", "task"],
)
def test_nets_of_all_kinds_can_be_stacked(settings: list[str], tmp_path: Path) -> None:
    assert_the_same_steps(tmp_path, *settings)


def test_steps_in_bf16_are_those_of_each_alone_to_its_rounding(tmp_path: Path) -> None:
    assert_the_same_steps(tmp_path, "training.precision=bf16", atol=4e-3, rtol=4e-3)


def test_seeds_whose_experiences_have_other_sizes_wait_for_each_other(tmp_path: Path) -> None:
    """The digits have 174 to 183 samples a class, and each seed another order of them."""
    assert_the_same_steps(tmp_path, "data.per_class=0", "stream.order=seeded", "training.batch_size=67")


def together(folder: Path, *settings: str, **arguments: Any) -> list[RunRecord]:
    arguments = {"memory": 20, "seeds": 3, "together": True, "progress": False, **arguments}
    return list(clsim.run("split-digits", "er", settings=[*SMALL, *settings], runs=folder, **arguments))


def test_each_seed_has_a_record_that_is_not_that_of_the_run_alone(tmp_path: Path) -> None:
    records = together(tmp_path)
    names = {record.data["fingerprint"] for record in records}
    others = together(tmp_path, together=False) + together(tmp_path, seeds=2)
    assert len(names | {record.data["fingerprint"] for record in others}) == 8
    assert not any(record.read for record in [*records, *others])
    for seed, record in enumerate(records):
        assert record.data["spec"]["seed"] == seed
        assert record.data["spec"]["training"]["together"] is True
        assert record.data["spec"]["training"]["seeds"] == [0, 1, 2]
        assert record.data["command"].endswith(" --together " + " ".join(_words()) + " --seed 0 --seed 1 --seed 2")
    assert all(record.read for record in together(tmp_path))


def _words() -> list[str]:
    return [word for setting in SMALL for word in ("--set", setting)]


@pytest.mark.parametrize(
    ("strategy", "arguments", "why"),
    [
        ("gem", {}, "learner 'gem' has steps of its own"),
        ("gdumb", {}, "learner 'gdumb' has steps of its own"),
        ("er", {"batch": "loss"}, "batch.selector is 'loss'"),
        ("er", {"seeds": [1]}, "there is one seed"),
    ],
)
def test_what_cannot_be_stacked_says_so_and_runs_alone(
    strategy: str, arguments: dict[str, Any], why: str, tmp_path: Path
) -> None:
    how = {"seeds": 2, "settings": SMALL, "runs": tmp_path, "progress": False, **arguments}
    with pytest.warns(UserWarning, match=rf"training.together: the seeds of '{strategy}' run alone.*{why}"):
        first = clsim.run("split-digits", strategy, together=True, **how)
    again = clsim.run("split-digits", strategy, **how)
    assert [one.data["fingerprint"] for one in first] == [one.data["fingerprint"] for one in again]
    assert all(one.read for one in again)


def test_seeds_are_filled_in_and_hold_the_seed() -> None:
    spec = resolve("split-digits", "er", settings=["training.together=true", "learner.name=gem"], seeds=SEEDS)
    assert not spec.training.seeds
    assert "has steps of its own" in remarks(spec)[0]
    with pytest.raises(InputError, match=r"training.seeds: found \[0, 1, 2\] with seed 5"):
        clsim.run("split-digits", "er", seed=5, settings=["training.together=true", "training.seeds=[0,1,2]"])
    for words in (["training.seeds=[0,1]"], ["training.together=true", "training.seeds=[1,1]"]):
        with pytest.raises(InputError, match="allowed: different seeds, with together = true"):
            resolve("split-digits", "er", settings=words)


@pytest.mark.parametrize("move", [5, 9])
def test_killed_seeds_go_on_together_bit_for_bit(move: int, tmp_path: Path) -> None:
    """The kill falls between two checkpoints of different seeds: they go on from different experiences."""
    words = ["model.options.dropout=0.2"]
    whole = together(tmp_path / "whole", *words)
    arguments = {"scenario": "split-digits", "strategy": "er", "memory": 20, "seeds": 3, "together": True}
    arguments |= {"settings": [*SMALL, *words], "runs": tmp_path / "killed", "progress": False}
    assert exit_code_of(die, move, arguments) == -signal.SIGKILL
    for one, other in zip(together(tmp_path / "killed", *words), whole, strict=True):
        assert_same_end(one, other)


def test_a_seed_that_stops_keeps_no_other_from_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = together(tmp_path / "whole")
    with monkeypatch.context() as patch:
        writes = Writes(patch)
        writes.stop_at(4)
        with pytest.raises(Killed):
            together(tmp_path / "stopped")
    resumed = together(tmp_path / "stopped")
    assert sorted(record.read for record in resumed) == [False, True, True]  # the others had gone on
    for one, other in zip(resumed, whole, strict=True):
        assert_same_end(one, other)


def test_a_study_runs_the_seeds_of_a_cell_together(tmp_path: Path) -> None:
    by_run = together(tmp_path / "run")
    how: dict[str, Any] = {"engine": "here", "runs": tmp_path / "study", "scenario": "split-digits", "memory": 20}
    settings = {"training.together": True, "data.per_class": 12, "stream.experiences": 2, "training.epochs": 1}
    found = clsim.study(strategy=["er", "gdumb"], seeds=3, settings=settings, **how)
    assert not found.failures
    assert len(found.records) == 6
    there = {one.data["fingerprint"]: one for one in found.records}
    for record in by_run:
        assert_same_end(there[record.data["fingerprint"]], record)


def test_errors_are_of_their_seed_alone_but_a_run_elsewhere_stops_all() -> None:
    def fails(seat: Any) -> None:
        raise ValueError("no")

    done = Together(3, CPU).run([fails, None, lambda seat: seat.number])
    assert isinstance(done[0], ValueError)
    assert done[1:] == [None, 2]

    def busy(seat: Any) -> None:
        raise RunBusy("elsewhere")

    with pytest.raises(RunBusy):
        Together(2, CPU).run([busy, lambda seat: pytest.fail("it must not begin")])


def test_ctrl_c_ends_all_seeds_and_their_threads() -> None:
    before_it = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell began behind itself
    begun = []

    def interrupts(seat: Any) -> None:
        begun.append(seat.number)
        os.kill(os.getpid(), signal.SIGINT)

    before = threading.active_count()
    try:
        with pytest.raises(KeyboardInterrupt):
            Together(3, CPU).run([interrupts] * 3)
    finally:
        signal.signal(signal.SIGINT, before_it)
    assert begun == [0]
    assert threading.active_count() == before


def test_one_worker_of_a_study_has_all_seeds_and_the_others_wait(tmp_path: Path) -> None:
    store, specs = Store(tmp_path), [spec_of(seed) for seed in SEEDS]
    jobs = [Job(spec, "again", str(tmp_path), None, ".", group=tuple(specs)) for spec in specs]
    with store.open(specs[0]):  # as a worker holds it that has begun
        assert work(jobs[1]).state == "busy"
    assert store.folder(specs[1]).record() is None
    assert [work(job).state for job in jobs] == ["finished"] * 3
    assert all(store.folder(spec).record() is not None for spec in specs)


def test_each_seed_draws_from_torchs_generator_as_if_it_were_alone() -> None:
    before = torch.get_rng_state()
    draws = Together(2, CPU).run([lambda seat: torch.rand(2, generator=torch.default_generator)] * 2)
    assert_same(draws[0], draws[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "slim-resnet18"])
def test_over_many_seeds_the_mean_is_that_of_seeds_alone(model: str, tmp_path: Path) -> None:
    """The seeds of the ResNet part from those alone, by up to 28 points; those of the MLP hardly."""
    words = ["data.per_class=60", *(["training.epochs=2"] if model == "mlp" else RESNET[:2])]
    ends = []
    for shared in (True, False):
        records = together(tmp_path, *words, seeds=20, together=shared, memory=50)
        ends.append(torch.tensor([record.metrics["accuracy"] for record in records], dtype=torch.float64))
    gap = ends[0] - ends[1]
    assert gap.mean().abs() <= 2.1 * gap.std() / len(gap) ** 0.5 + 1e-9  # 95 %, 19 degrees of freedom
    assert gap.mean().abs() < (0.02 if model == "mlp" else 0.05)
    assert ends[0].std() > 0.005  # the seeds are different runs

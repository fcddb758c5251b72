"""The search of hyper-parameters: no test data before its end, no state but the store's, a search that finds."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import shlex
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clsim as package
from clsim.data import datasets
from clsim.data.cache import Dataset
from clsim.errors import InputError
from clsim.execution import tune as tuning
from clsim.execution.tune import Tried, Tuned, TuneSpec, best_of, known, proposed, searched, trial_of, tune
from clsim.records.frame import frame
from clsim.records.overview import seconds_of
from clsim.records.store import RunRecord, Store
from clsim.reporting import tuning as shown
from clsim.reporting.report import find_report, groups
from clsim.reporting.statistics import t_interval
from clsim.spec.resolve import resolve
from clsim.spec.space import Axis, combinations, default_of, read_axis, usual_axes
from tests.commands import clsim, refused

pytest.importorskip("optuna")

SMALL = ("data.per_class=30", "training.epochs=1", "model.options.hidden=[16]")
RATES = (read_axis("optimizer.lr=0.001..1.0:log"), read_axis("optimizer.weight_decay=0.0,0.001,0.1"))


def spec_of(**given: Any) -> TuneSpec:
    usual: dict[str, Any] = {"settings": SMALL, "axes": RATES, "trials": 5, "test_seeds": 3, "experiences": 2}
    return TuneSpec(**usual | given)


def measured(found: Tuned) -> list[Any]:
    """All that trials measured, and what they were."""
    keys = ("accuracy", "initial", "validation", "test_sizes", "metrics", "fingerprint")
    return [
        (one.number, dict(one.values), [[r.data[key] for key in keys] for r in one.records]) for one in found.trials
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuned, Store]:
    store = Store(tmp_path_factory.mktemp("tuned"))
    return tune(spec_of(), store), store


def poisoned(dataset: Dataset) -> Dataset:
    """The same data set, with other test labels and with noise as its test images."""
    rng = np.random.default_rng(0)
    return dataclasses.replace(
        dataset,
        test_x=rng.integers(0, 256, dataset.test_x.shape).astype(dataset.test_x.dtype),
        test_y=rng.permutation(dataset.test_y),
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"strategy": "der++", "axes": ()},
        {"settings": (*SMALL, "stream.tasks=easy-first")},  # a joint run tells the order
        {"settings": (*SMALL, "evaluation.steps=20")},
        {"settings": (*SMALL, "stream.validation=0.3", "optimizer.schedule=plateau")},
    ],
    ids=["er", "der++", "easy-first", "curve", "plateau"],
)
def test_poisoned_test_data_changes_no_trial_and_no_choice(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(trials=3, test_seeds=1, **given)
    clean = tune(spec, Store(tmp_path / "clean"))
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda *how, **more: poisoned(load(*how, **more)))
    other = tune(spec, Store(tmp_path / "poisoned"))
    assert measured(other) == measured(clean)
    assert other.best.number == clean.best.number
    assert dict(other.winner.values) == dict(clean.winner.values)
    tests = [[r.metrics["accuracy"] for r in one.winner.records] for one in (clean, other)]
    assert tests[0] != tests[1]  # the tests are of test data, and show it


def test_trials_are_measured_on_what_they_are_not_trained_on(found: tuple[Tuned, Store]) -> None:
    trial, test = found[0].trials[0].records[0].data, found[0].default.records[0].data
    assert trial["test_sizes"] == [6, 6]  # 10 % of 30 images of two classes
    assert len(trial["accuracy"]) == 2
    assert min(test["test_sizes"]) >= 70  # the test samples of the data set
    own = [trial["accuracy"][i][i] for i in range(2)]
    assert own == pytest.approx(trial["validation"])  # measured apart, on the experience's own validation part
    assert trial["spec"]["evaluation"]["on"] == "validation"
    assert "on" not in test["spec"]["evaluation"]
    assert test["spec"]["stream"]["validation"] == 0


def test_tests_have_seeds_that_no_trial_had(found: tuple[Tuned, Store]) -> None:
    tried = {r.data["spec"]["seed"] for one in found[0].trials for r in one.records}
    tested = [r.data["spec"]["seed"] for r in found[0].winner.records]
    assert tested == [r.data["spec"]["seed"] for r in found[0].default.records] == [1, 2, 3]
    assert not tried & {*tested}
    several = spec_of(seed=7, seeds=3, test_seeds=5)
    assert [*several.tests] == [10, 11, 12, 13, 14]


def test_the_default_is_trial_0_and_a_tie_is_its(found: tuple[Tuned, Store]) -> None:
    first = found[0].trials[0]
    assert not first.values
    assert found[0].own == {"optimizer.lr": 0.05, "optimizer.weight_decay": 0.0}
    assert found[0].best.value == max(one.value for one in found[0].trials)
    tied = [dataclasses.replace(first, number=i) for i in range(3)]
    assert best_of(tied).number == 0


def test_the_state_is_that_of_the_store(found: tuple[Tuned, Store], tmp_path: Path) -> None:
    """A search that is stopped, and called again, is the search that was not stopped; finished trials are read."""
    store, seen = Store(tmp_path), list[Tried]()

    def stop(one: Tried) -> None:
        seen.append(one)
        if one.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(spec_of(), store, tried=stop)
    assert [one.number for one in known(spec_of(), store)] == [0, 1, 2]
    again = tune(spec_of(), store)
    assert measured(again) == measured(found[0])
    assert [all(r.read for r in one.records) for one in again.trials] == [True, True, True, False, False]
    longer = tune(spec_of(trials=6), store)
    assert measured(longer)[:5] == measured(found[0])
    assert all(r.read for arm in (longer.default,) for r in arm.records)
    assert [all(r.read for r in one.records) for one in longer.trials] == [True] * 5 + [False]


def test_another_seed_proposes_others(found: tuple[Tuned, Store]) -> None:
    axes, own = searched(spec_of())
    trials = found[0].trials[:1]
    a, b, again = (proposed(seed, axes, own, trials) for seed in (0, 1, 0))
    assert a == again != b


def made(number: int, values: dict[str, Any], value: float) -> Tried:
    """A trial as if it had been run."""
    return Tried(number, values, (RunRecord({"metrics": {"accuracy": value}}),))


def test_proposals_come_near_the_best_settings() -> None:
    """On accuracies that fall with the distance from a peak: nearer than what is drawn evenly."""
    axes = (Axis("optimizer.lr", low=1e-4, high=1.0, log=True), Axis("learner.options.mode", ("a", "b", "c")))
    own = {"optimizer.lr": 0.5, "learner.options.mode": "a"}

    def off(values: dict[str, Any]) -> float:
        full = {**own, **values}
        return abs(math.log10(full["optimizer.lr"]) + 2.3) / 4 + 0.3 * (full["learner.options.mode"] != "b")

    late = list[float]()
    for seed in range(2):
        trials = [made(0, {}, 1 - off({}))]
        while len(trials) < 35:
            values = proposed(seed, axes, own, trials)
            trials.append(made(len(trials), values, 1 - off(values)))
        late += [off(dict(one.values)) for one in trials[-15:]]
    rng = random.Random(0)
    drawn = [{"optimizer.lr": 10 ** rng.uniform(-4, 0), "learner.options.mode": rng.choice("abc")} for _ in range(2000)]
    assert statistics.fmean(late) < 0.6 * statistics.fmean(map(off, drawn))


def test_a_default_outside_of_the_search_is_compared_but_teaches_nothing() -> None:
    axes = (Axis("optimizer.lr", low=0.2, high=0.4),)
    own, trials = {"optimizer.lr": 0.05}, [made(0, {}, 0.9)]
    values = proposed(0, axes, own, trials)
    assert 0.2 <= values["optimizer.lr"] <= 0.4
    assert values == proposed(0, axes, own, [made(0, {}, 0.1)])
    assert best_of([*trials, made(1, values, 0.5)]).number == 0


def test_few_combinations_are_all_tried_and_the_best_is_found(tmp_path: Path) -> None:
    """Against each combination run by itself, with the command that its record names."""
    axes = (read_axis("optimizer.lr=0.0001,0.05,0.3"), read_axis("memory.batch_size=1,10"))
    spec = spec_of(axes=axes, trials=9, test_seeds=0)
    result = tune(spec, Store(tmp_path))
    tried = [{**result.own, **one.values} for one in result.trials]
    assert sorted(map(str, tried)) == sorted(map(str, combinations(axes, 99)))
    assert tried[0] == {"optimizer.lr": 0.05, "memory.batch_size": 10}
    values = {}
    for one in result.trials:
        words = shlex.split(one.records[0].data["command"])
        given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        record = package.run("split-digits", "er", settings=given, seed=0, runs=tmp_path / "apart")
        R = record.accuracy.to_numpy()
        values[one.number] = float(np.mean(R[1]))  # both parts are of the same size
        assert one.value == pytest.approx(values[one.number])
    assert result.best.number == max(values, key=lambda number: (values[number], -number))
    assert not result.default.records


def test_a_value_that_a_learner_refuses_is_told_and_not_the_best(tmp_path: Path) -> None:
    axes = (read_axis("learner.options.strength=-1.0,1.0"),)
    found = tune(spec_of(strategy="lwf", axes=axes, trials=5, test_seeds=0), Store(tmp_path))
    wrong = next(one for one in found.trials if one.values.get("learner.options.strength") == -1)
    assert "strength" in wrong.refused
    assert not wrong.records
    assert found.best.number != wrong.number
    text = " ".join(entry for line in shown.trials(found).lines for entry in line.entries)
    assert wrong.refused in text
    own = {"learner.options.strength": 1.0}
    drawn = proposed(0, (Axis("learner.options.strength", low=-1.0, high=1.0),), own, found.trials)
    assert -1 <= drawn["learner.options.strength"] <= 1


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("optimizer.lr=0.001..0.1:log", Axis("optimizer.lr", low=0.001, high=0.1, log=True)),
        ("optimizer.lr = 1e-3..1", Axis("optimizer.lr", low=0.001, high=1)),
        ("memory.batch_size=5..20", Axis("memory.batch_size", low=5, high=20, whole=True)),
        ("learner.options.alpha=0.1,0.5,1", Axis("learner.options.alpha", (0.1, 0.5, 1))),
        ("learner.options.among=all,seen", Axis("learner.options.among", ("all", "seen"))),
        ("memory.buffer=../mine.py:pick,random", Axis("memory.buffer", ("../mine.py:pick", "random"))),
    ],
)
def test_an_axis_is_read_and_written(text: str, axis: Axis) -> None:
    assert read_axis(text) == axis
    assert read_axis(axis.text) == axis


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr=0.1..1", "--search: found 'lr=0.1..1', allowed: table.key=LOW..HIGH"),
        ("optimizer.lr", "--search: found 'optimizer.lr', allowed: table.key=LOW..HIGH"),
        ("optimiser.lr=0.1..1", "--search optimiser.lr: unknown table 'optimiser'; did you mean 'optimizer'?"),
        ("optimizer.lrs=0.1..1", "[optimizer] lrs: unknown key; did you mean 'lr'?"),
        ("optimizer.lr=1..0.1", "--search optimizer.lr: found 1..0.1, allowed: LOW..HIGH with LOW below HIGH"),
        ("optimizer.lr=0..1:log", "--search optimizer.lr: found 0..1:log, allowed: a range above 0"),
        ("optimizer.lr=0.1..1:linear", "found 'linear' behind the colon, allowed: log"),
        ("optimizer.lr=a..b", "found 'a..b', allowed: two numbers, as in 0.001..0.1"),
        ("optimizer.lr=0.1,0.1", "found [0.1, 0.1], allowed: each value once"),
        ("optimizer.lr=nan,0.1", "found nan, 0.1, allowed: finite numbers, text, lists"),
        ("optimizer.lr=1979-05-27,0.1", "found 1979-05-27, 0.1, allowed: finite numbers, text, lists"),
        ("stream.experiences=2,5", "found a key of the table 'stream', which says what the task is"),
        ("evaluation.rows=all,seen", "found a key of the table 'evaluation', which says what the task is"),
        ("optimizer.lr=-1.0,0.1", "optimizer.lr: found -1.0, allowed: a finite number above 0"),
        ("learner.options.alhpa=1,2", "unknown option 'alhpa'"),
    ],
)
def test_what_cannot_be_searched(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, "tune", "--strategy", "der", "--search", text, "--runs", str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trials", "0"), "--trials: found 0, allowed: 1 to 10,000"),
        (("--trial-seeds", "0"), "--trial-seeds: found 0, allowed: 1 to 1,000"),
        (("--experiences", "-1"), "--experiences: found -1, allowed: 0 or more"),
        (("--validation", "1"), "--validation: found 1, allowed: a share above 0 and below 1"),
        (("--search", "optimizer.lr=1,2", "--search", "optimizer.lr=3,4"), "--search optimizer.lr: found twice"),
        (("--set", "evaluation.on=validation", "--set", "stream.validation=0.1"), "allowed: 'test', as the tests"),
        (("--strategy", "err"), "did you mean"),
    ],
)
def test_wrong_options(words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, "tune", *words, "--runs", str(tmp_path / "runs"))


def test_without_optuna_a_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = tuning.importlib.util.find_spec
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name, *at: None if name == "optuna" else find(name))
    said = refused(capsys, "tune", "--runs", str(tmp_path / "runs"))
    assert said == "clsim: tune: optuna is not installed; pip install 'clsim[tune]'\n"


STRATEGIES = ("er", "der++", "ewc", "mas", "rwalk", "lwf", "gem", "hat", "packnet", "bic", "icarl", "fixmatch", "gdumb")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_default_axes_hold_the_default_and_only_values_of_its_type(strategy: str) -> None:
    scenario = "split-fashion-mnist-semi" if strategy == "fixmatch" else "split-digits"
    base = resolve(scenario, strategy)
    axes = usual_axes(base)
    assert [axis.key for axis in axes][:2] == ["optimizer.lr", "optimizer.weight_decay"]
    for axis in axes:
        assert axis.holds(default_of(base, axis.key)) or axis.key == "learner.options.cutmix"
        for value in axis.choices or (axis.low, axis.high):
            resolve(scenario, strategy, settings=[f"{axis.key}={value}"])
    names = {axis.key.rpartition(".")[2] for axis in axes}
    assert {"ewc": "strength", "der++": "alpha", "lwf": "temperature"}.get(strategy, "lr") in names
    assert not names & {"samples", "epochs", "batch_size", "among"}


def test_a_controller_sets_its_own_part() -> None:
    controlled = ["controller.name=stability-decay", "stream.validation=0.2"]
    keys = [axis.key for axis in usual_axes(resolve("split-digits", "ewc", settings=controlled))]
    assert keys == ["optimizer.weight_decay"]


def test_what_is_shown_follows_from_the_records(found: tuple[Tuned, Store]) -> None:
    result = found[0]
    a, b = ([100 * r.metrics["accuracy"] for r in arm.records] for arm in (result.winner, result.default))  # type: ignore[operator]
    assert result.best.number  # else there is one arm
    low, high = t_interval([x - y for x, y in zip(a, b, strict=True)])
    said = shown.verdict(result)
    assert f"{statistics.fmean(a) - statistics.fmean(b):+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}" in said
    assert ("cannot be told apart" in said) == (low <= 0 <= high)
    listing = shown.compared(result)
    assert listing is not None
    assert [line.labels[0] for line in listing.lines] == ["default", f"trial {result.best.number}"]
    assert f"{statistics.fmean(b):.1f} ± " in listing.lines[0].entries[1]
    marks = {line.looks[1] for line in listing.lines}
    assert marks == ({"best", "tied"} if "cannot be told apart" in said else {"best", ""})
    spent = shown.cost(result)
    runs = {r.data["fingerprint"]: r.data for one in result.trials for r in one.records}
    assert spent["search"]["seconds"] == pytest.approx(sum(map(seconds_of, runs.values())))
    passes = [sum(c["forward_passes"] - c["evaluate_passes"] for c in data["cost"]) for data in runs.values()]
    assert spent["search"]["train_passes"] == sum(passes)
    assert spent["tests"]["runs"] == 6
    few = dataclasses.replace(result, trials=result.trials[:1], winner=result.default)
    assert shown.verdict(few) == "No trial was better than the default on held-out samples."
    assert shown.compared(few).lines[1:] == []  # type: ignore[union-attr]


def test_reports_keep_trials_apart_from_tests(found: tuple[Tuned, Store]) -> None:
    records = [record.data for record in found[1].records()[0]]
    rows, chosen = groups(find_report("summary"), frame(records))
    assert set(chosen["evaluation.on"]) == {"test"}
    assert len(chosen) == 6
    assert "evaluation.on" not in rows
    asked = dataclasses.replace(find_report("summary"), filter={"evaluation.on": "validation"})
    assert len(groups(asked, frame(records))[1]) == len(records) - 6
    trials = [data for data in records if data["spec"]["evaluation"].get("on")]
    assert len(groups(find_report("summary"), frame(trials))[1]) == len(trials)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], found: tuple[Tuned, Store]) -> None:
    words = ["tune", "--trials", "5", "--test-seeds", "3", "--experiences", "2", "--runs", str(found[1].root)]
    words += [word for text in SMALL for word in ("--set", text)]
    words += [word for axis in RATES for word in ("--search", axis.text)]
    assert clsim(*words) == 0
    said = capsys.readouterr()
    assert "trial 4/4" in said.err
    assert said.err.count(", read") == 5
    assert "Default and winner" in said.out
    assert "No test sample takes part." in said.out
    assert shown.verdict(found[0]) in said.out
    assert found[0].winner.command in said.out
    assert clsim(*words, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["winner"] == found[0].best.number
    assert [one["values"] for one in plain["trials"]] == [dict(one.values) for one in found[0].trials]
    assert plain["tests"]["seeds"] == [1, 2, 3]
    assert clsim(*words, "--dry-run") == 0
    assert "Trials: 5, of which 5 are finished" in capsys.readouterr().out
    assert clsim(*words[:-2], "--dry-run", "--runs", str(tmp_path / "none")) == 0
    assert "of which 0 are finished" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_choices_may_be_lists_and_whole_ends_of_a_rate_are_no_steps(tmp_path: Path) -> None:
    axes = (Axis("model.options.hidden", ([16], [8, 8])), read_axis("optimizer.weight_decay=0..1"))
    assert axes[1].whole
    spec = spec_of(axes=axes, trials=3, test_seeds=0)
    ranges, own = searched(spec)
    assert not ranges[1].whole
    assert own == {"model.options.hidden": [16], "optimizer.weight_decay": 0.0}
    found = tune(spec, Store(tmp_path))
    assert all(one.values["model.options.hidden"] in ([16], [8, 8]) for one in found.trials[1:])
    assert any(0 < one.values["optimizer.weight_decay"] < 1 for one in found.trials[1:])
    with pytest.raises(InputError, match="each value once"):
        Axis("model.options.hidden", ([16], [16]))


def test_an_error_that_no_value_made_stops_the_search(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = tune(spec_of(trials=2, test_seeds=0), store)
    damaged = first.trials[1].records[0].folder / "record.json"  # type: ignore[operator]
    damaged.write_bytes(b"{")
    with pytest.raises(InputError, match=r"record.json: cannot be read .* run it again with --fresh"):
        tune(spec_of(trials=2, test_seeds=0), store)


def test_trials_take_the_settings_of_the_user_and_no_others() -> None:
    spec = spec_of(settings=("stream.validation=0.25", "stream.experiences=2"), experiences=0)
    trial = trial_of(spec, {"optimizer.lr": 0.3}, 4)[0]
    own = resolve("split-digits", "er", settings=spec.settings, seed=4)
    assert (trial.stream.validation, trial.stream.length, trial.optimizer.lr, trial.seed) == (0.25, 0, 0.3, 4)
    rest = dataclasses.replace(trial, optimizer=own.optimizer, evaluation=own.evaluation)
    assert rest == own
    short = spec_of(settings=("stream.length=2",), experiences=3)
    assert trial_of(short, {}, 0)[0].stream.length == 2
    with pytest.raises(InputError, match="trials: found 10001"):
        spec_of(trials=10_001)


def test_python_searches_as_the_engine_does(found: tuple[Tuned, Store]) -> None:
    """The runs of the engine's search are there: nothing is run, and the answers are the same."""
    tuned, store = found
    before = {path: path.stat().st_mtime_ns for path in store.root.glob("*/record.json")}
    rates = {"optimizer.lr": "0.001..1.0:log", "optimizer.weight_decay": [0.0, 0.001, 0.1]}
    said: list[int] = []
    made = package.tune(
        trials=5,
        search=rates,
        experiences=2,
        test_seeds=3,
        settings=SMALL,
        runs=store.root,
        tried=lambda one: said.append(one.number),
    )
    assert measured(made.found) == measured(tuned)
    assert said == [0, 1, 2, 3, 4]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert made.values == dict(tuned.best.values)
    assert made.command == tuned.winner.command
    assert [r.data["fingerprint"] for r in made.winner] == [r.data["fingerprint"] for r in tuned.winner.records]
    table = made.frame()
    assert table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert table["accuracy"].tolist() == [one.value for one in tuned.trials]
    assert {"optimizer.lr", "optimizer.weight_decay", "refused"} <= {*table.columns}
    assert made.tests()["arm"].value_counts().to_dict() == {"default": 3, "winner": 3}
    assert repr(made).startswith(f"<Search of er on split-digits: trial {tuned.best.number} of 5, ")
    assert made.verdict == shown.verdict(tuned)
    assert "<table" in made._repr_html_()
    with pytest.raises(InputError, match="--search"):
        package.tune(search=["optimizer"], runs=store.root)

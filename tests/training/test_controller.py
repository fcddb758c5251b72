"""The controller: its decisions step by step, what it reads, how every attempt begins, and what a kill costs."""

from __future__ import annotations

import json
import math
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clsim
from clsim.data import datasets
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool import pool
from clsim.pool.exemplars import Exemplars
from clsim.records.search import Search, Trial, read_search
from clsim.records.store import RunRecord, Store
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import ControllerSpec, LearnerSpec
from clsim.streams import build
from clsim.streams.stream import Experience, Stream
from clsim.training import assemble, controller, evaluation, progress, stability_decay
from clsim.training.checkpoint import copied, restore, snapshot
from clsim.training.contract import Around, Setup
from clsim.training.experience import learn
from clsim.training.stability_decay import decayed, search
from tests.helpers import assert_same
from tests.killing import assert_same_end, killed

SMALL = ["data.per_class=30", "training.epochs=2", "stream.setting=task", "optimizer.momentum=0.9"]
STRONG = ["controller.first={strength=1e32}", "controller.factor=1e-16"]
"""Distillation that no net survives, and steps in which it soon comes down from there."""
FEW = ["controller.first_rates=[0.1, 0.01]", "controller.rates=[0.01, 0.003]"]


def run(folder: Path, strategy: str = "mas", *settings: str, **arguments: Any) -> RunRecord:
    arguments = {"controller": "stability-decay", **arguments}
    few = FEW if arguments["controller"] != "none" else []
    return clsim.run("split-digits", strategy, settings=[*SMALL, *few, *settings], runs=folder, **arguments)


def found(record: RunRecord) -> list[Search]:
    return [read_search(one, "searches") for one in record.data["searches"]]


class Stub:
    """Trains nothing: knows the accuracy of every trial, and writes down what was asked."""

    def __init__(self, fine_tuning: dict[float, float], method: list[float]) -> None:
        self.fine_tuning, self.method = fine_tuning, iter(method)
        self.asked: list[tuple[str, float, tuple[float, ...]]] = []
        self.decisions: list[str] = []

    def __call__(self, trial: Trial) -> float:
        plastic = trial.phase == "plasticity"
        accuracy = self.fine_tuning.get(trial.lr, 0.0) if plastic else next(self.method)
        self.asked.append((trial.phase, trial.lr, tuple(trial.values.values())))
        self.decisions.append(trial.decision(accuracy))
        return accuracy


def test_the_trace_on_a_stub_is_the_pseudo_code() -> None:
    stub = Stub({0.1: 0.4, 0.01: 0.9, 0.005: 0.9, 0.001: 0.5}, [0.1, 0.5, 0.719, 0.73])
    search(ControllerSpec(), {"strength": 400.0}, first=True, train=stub)
    rates = [0.1, 0.05, 0.01, 0.005, 0.001, 0.0005, 0.0001]
    assert stub.asked[:7] == [("plasticity", lr, ()) for lr in rates]
    assert stub.asked[7:] == [("stability", 0.01, (400 / 2**i,)) for i in range(4)]  # at the best rate, from H on
    first, no, best = "best so far", "no better", "best so far"
    assert stub.decisions == [first, no, best, *[no] * 4, "decayed", "decayed", "decayed", "accepted"]

    later = Stub({0.001: 0.5}, [0.5])
    search(ControllerSpec(), {"strength": 50.0}, first=False, train=later)
    assert [lr for _, lr, _ in later.asked] == [0.01, 0.005, 0.001, 0.0005, 0.0001, 0.001]
    assert later.decisions[-1] == "accepted"


@pytest.mark.parametrize(("best", "equal"), [(0.875, 0.7), (0.5, 0.4), (35 / 57, 28 / 57), (1.0, 0.8), (0.0, 0.0)])
def test_equality_accepts_and_one_sample_less_does_not(best: float, equal: float) -> None:
    for accuracy, decision in ((equal, "accepted"), (equal - 1e-6, "decayed")):
        stub = Stub({0.01: best}, [accuracy, 1.0])
        search(ControllerSpec(), {"strength": 1.0}, first=False, train=stub)
        assert stub.decisions[5] == decision, accuracy


def test_two_values_are_decayed_each_alone_and_then_both() -> None:
    stub = Stub({0.01: 1.0}, [0.0] * 3 + [0.9])
    search(ControllerSpec(), {"strength": 5.0, "code_strength": 2.0}, first=False, train=stub)
    assert [values for _, _, values in stub.asked[5:]] == [(5, 2), (2.5, 2), (5, 1), (2.5, 1)]
    three = [tuple(v.values()) for v in islice(decayed({"a": 4, "b": 2.0, "c": 1.0}, 0.5), 5)]
    assert three == [(2, 2.0, 1.0), (4, 1.0, 1.0), (4, 2.0, 0.5), (2, 1.0, 0.5), (1, 1.0, 0.5)]
    assert [v["whole"] for v in islice(decayed({"whole": 5}, 0.5), 3)] == [2, 1, 0]


def test_after_the_tenth_decay_the_last_model_is_kept() -> None:
    stub = Stub({0.01: 1.0}, [0.0] * 11)
    search(ControllerSpec(), {"strength": 1024.0}, first=False, train=stub)
    tried = [values[0] for phase, _, values in stub.asked if phase == "stability"]
    assert tried == [1024.0 / 2**i for i in range(11)]  # H, and ten times H <- H/2
    assert stub.decisions[5:] == ["decayed"] * 10 + ["last"]
    tenth = Stub({0.01: 1.0}, [0.0] * 10 + [0.8])
    search(ControllerSpec(), {"strength": 1024.0}, first=False, train=tenth)
    assert tenth.decisions[-1] == "accepted"
    facil = Stub({0.01: 1.0}, [0.0] * 8)
    search(ControllerSpec(decays=7), {"strength": 1.0}, first=False, train=facil)
    assert facil.decisions[5:] == ["decayed"] * 7 + ["last"]


@pytest.mark.parametrize(("start", "spec"), [({}, {}), ({"strength": 3.0}, {"skip_first": True})])
def test_without_a_second_phase_the_method_is_trained_once_at_the_best_rate(start: Any, spec: Any) -> None:
    stub = Stub({0.05: 0.6, 0.005: 0.7}, [0.0])
    search(ControllerSpec(**spec), start, first=True, train=stub)
    assert stub.asked[7:] == [("once", 0.005, tuple(start.values()))]
    assert stub.decisions[-1] == "kept"


class Brake(Around[Sgd]):
    """Fine-tuning whose share of right answers is known: max(0, 1 − strength). Final."""

    def __init__(self, setup: Setup, *, strength: float = 0.9) -> None:
        super().__init__(setup, Sgd(setup))
        self._strength = strength

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Turned around, but for the share: answers of fine-tuning that are right become wrong."""
        logits = super().predict(x, task)
        right = round(max(0.0, 1 - self._strength) * len(x))
        return torch.cat([logits[:right], torch.where(logits[right:] > -torch.inf, -logits[right:], -torch.inf)])


@pytest.mark.parametrize(("start", "margin"), [(0.9, 0.2), (0.9, 0.5), (0.8, 0.2), (0.3, 0.75), (6.4, 0.1)])
def test_the_accepted_value_is_the_largest_of_the_decays_that_keeps_the_margin(
    start: float, margin: float, runs: Path
) -> None:
    settings = ["learner.name=tests.training.test_controller:Brake", f"learner.options.strength={start}"]
    settings += ["controller.decay=['strength']", f"controller.margin={margin}", "data.per_class=50"]
    settings += ["training.epochs=5", "evaluation.batch_size=1000", "controller.carry=false"]
    record = clsim.run(
        "split-digits", "finetune", settings=[*SMALL, *FEW, *settings], controller="stability-decay", runs=runs
    )
    n, decays = 20, [start * 0.5**i for i in range(11)]  # a fifth of 50 a class
    for one in found(record):
        values = [a.values["strength"] for a in one.attempts if a.phase == "stability"]
        assert values == decays[: len(values)]
        if one.best == 1:  # then the method's accuracy is known: what it does not turn around
            largest = next(h for h in decays if round(max(0.0, 1 - h) * n) / n >= 1 - margin - 1e-9)
            assert one.kept.values["strength"] == largest
    assert sum(one.best == 1 for one in found(record)) >= 2


def test_every_attempt_begins_with_the_same_state_and_the_last_one_is_kept(tmp_path: Path) -> None:
    """At one rate, without a second phase, the run is the run without a controller: bit for bit."""
    plain = run(tmp_path, "er", "stream.validation=0.2", "optimizer.lr=0.01", controller="none", memory=20)
    one = ["controller.first_rates=[0.01]", "controller.rates=[0.01]", "optimizer.lr=0.5", "stream.validation=0.2"]
    controlled = run(tmp_path, "er", *one, memory=20)
    assert controlled.accuracy.equals(plain.accuracy)
    states = [torch.load(r.folder / "checkpoint.pt", weights_only=True) for r in (plain, controlled)]
    for part in ("learner", "memory", "randomness"):
        assert_same(states[0][part], states[1][part])
    assert controlled.losses.equals(plain.losses)


@pytest.mark.parametrize("strategy", ["mas", "si", "der++", "gem", "mean-imm", "gdumb"])
def test_what_an_attempt_begins_with_is_bit_identical(strategy: str, tmp_path: Path) -> None:
    """After a whole attempt in between, and before the experience, whatever was trained on."""
    wide = ["model.name=tests.helpers:mlp_with_dropout", "optimizer.restart=false"]
    spec = resolve(
        "split-digits", strategy, settings=[*SMALL, *wide], flags={"controller": {"name": "stability-decay"}}
    )
    stream = stream_of(spec, tmp_path)
    cost = pool.Cost()
    setup, learner = assemble.assemble(spec, stream, cost)
    for position in (0, 1):
        learn(stream.experience(position), setup, learner, 2 * position + 2, progress.Quiet())
        state = snapshot(setup, learner)
        assert state is not None
        before = copied(state)
        for _ in range(2):
            other, another = assemble.assemble(spec, stream, cost)
            restore(copied(state), other, another)
            assert_same(snapshot(other, another), before)
            learn(stream.experience(position + 1), other, another, 2 * position + 4, progress.Quiet())
            assert_same(state, before)
        setup.randomness.load_state_dict(before["randomness"])  # torch's own generator is everybody's


def stream_of(spec: RunSpec, root: Path) -> Stream:
    return build.build(datasets.load(spec.data, root), spec.stream, spec.seed, torch.device("cpu"))


def test_an_attempt_that_diverges_is_decayed(tmp_path: Path) -> None:
    """iCaRL's herding asks the net for features at the end of an attempt: that one is lost, and the search goes on."""
    record = run(tmp_path, "icarl", *STRONG, memory=40)
    attempts = [attempt for one in found(record) for attempt in one.attempts if attempt.phase == "stability"]
    lost = [attempt for attempt in attempts if attempt.accuracy == 0]
    assert lost
    assert all(attempt.decision == "decayed" for attempt in lost)
    assert record.metrics["accuracy"] > 0.8


def test_a_run_whose_last_attempt_diverges_fails_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"herding.*its training has diverged"):
        run(tmp_path, "icarl", *STRONG, "controller.decays=1", memory=40)


def test_no_data_of_earlier_experiences_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisoned in place as soon as the next experience comes, it changes nothing; validation is the current one's."""
    clean = run(tmp_path / "clean", "mas")
    given: list[Experience] = []
    measured: list[int] = []
    honest, share = Stream.experience, evaluation.share_correct

    def poisoning(self: Stream, position: int) -> Experience:
        for old in given:
            for samples in (old.train, old.validation):
                assert samples is not None
                samples.x.fill_(255)
                samples.y.copy_(samples.y.flip(0))
        given.append(honest(self, position))
        return given[-1]

    def watched(learner: Any, samples: Exemplars, spec: Any, cost: Any) -> float:
        measured.extend(samples.task.unique().tolist())
        return share(learner, samples, spec, cost)

    monkeypatch.setattr(Stream, "experience", poisoning)
    monkeypatch.setattr(controller, "share_correct", watched)
    record = run(tmp_path / "poisoned", "mas")
    assert [experience.position for experience in given] == [0, 1, 2, 3, 4]  # each is gathered once
    assert measured == [one.experience for one in found(record) for _ in one.attempts]
    assert record.accuracy.equals(clean.accuracy)
    assert strip(record.data["searches"]) == strip(clean.data["searches"])


def strip(searches: Any) -> Any:
    """Without the seconds, which no two runs share."""
    plain = json.loads(json.dumps(searches))
    for one in plain:
        for attempt in one["attempts"]:
            attempt["cost"] = {k: v for k, v in attempt["cost"].items() if not k.endswith(("seconds", "bytes"))}
    return plain


def test_what_was_decayed_carries_over_or_starts_again(runs: Path) -> None:
    hard = ["learner.options.strength=1e6", "controller.margin=0.02", "stream.experiences=2", "training.epochs=4"]
    hard += ["controller.rates=[0.03]", "data.per_class=60"]
    kept = [one.kept.values["strength"] for one in found(run(runs, "mas", *hard))]
    three = ["stream.experiences=3", "stream.sizes=[4, 3, 3]"]
    first, second, third = found(run(runs, "mas", *hard, *three))
    assert second.kept.values["strength"] < 1e6
    opening = next(a for a in third.attempts if a.phase == "stability")
    assert opening.values == second.kept.values
    again = found(run(runs, "mas", *hard, *three, "controller.carry=false"))[2]
    assert next(a for a in again.attempts if a.phase == "stability").values == {"strength": 1e6}
    assert kept[1] < kept[0] == 1e6 == first.kept.values["strength"]


def test_the_search_is_in_the_record_and_its_cost_is_the_methods(runs: Path) -> None:
    record = run(runs)
    assert "searches" not in run(runs, controller="none").data
    for one, cost in zip(found(record), record.data["cost"], strict=True):
        spent = [a.cost for a in one.attempts]
        assert sum(c["steps"] for c in spent) == cost["steps"]
        assert sum(c["train_seconds"] for c in spent) == pytest.approx(cost["train_seconds"])
        # beyond the search: the test samples, and the validation samples once more for the record
        assert cost["forward_passes"] > sum(c["forward_passes"] for c in spent)
        assert record.data["validation"][one.experience] == one.kept.accuracy
    kept = sum(one.kept.cost["steps"] for one in found(record))
    assert len(record.losses) == kept  # of the attempts that were kept, no others


KILLED: dict[str, Any] = {
    "scenario": "split-digits",
    "strategy": "mas",
    "controller": "stability-decay",
    "settings": [
        *SMALL,
        *FEW,
        "model.name=tests.helpers:mlp_with_dropout",
        "learner.options.strength=1e5",
        "controller.margin=0.05",
        "stream.experiences=2",
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    record = clsim.run(**KILLED, runs=tmp_path_factory.mktemp("whole"))
    first, second = found(record)
    assert [a.decision for a in first.attempts] == ["best so far", "no better", "accepted"]
    assert [a.decision for a in second.attempts][2:4] == ["decayed", "decayed"]
    return record


# files replaced: the spec, the search after each of three attempts, checkpoint, losses, record; then the next search
@pytest.mark.parametrize("move", [2, 5, 7, 8, 11])
def test_a_run_killed_in_a_search_ends_with_the_same_record(move: int, whole: RunRecord, tmp_path: Path) -> None:
    again = {**KILLED, "runs": str(tmp_path / "killed")}
    folder = killed(move, again, whole)
    half = json.loads((folder / "search.json").read_text())["attempts"] if (folder / "search.json").exists() else []
    known = [a for a in half if a["decision"] not in ("accepted", "last", "kept")]  # of the last, the model is lost
    tried: list[Trial] = []

    class Watch(progress.Quiet):
        def trial(self, trial: Trial) -> None:
            tried.append(trial)

    resumed = clsim.run(**again, progress=Watch())
    assert strip(resumed.data["searches"]) == strip(whole.data["searches"])
    assert_same_end(resumed, whole)
    assert not (resumed.folder / "search.json").exists()
    done = 3 if move > 5 else 0
    assert len(tried) == sum(len(one.attempts) for one in found(whole)) - done - len(known)
    assert (len(known) > 0) == (move in (5, 11))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"fingerprint": 3}',
        '{"fingerprint": "x", "clsim": "0", "done": 0, "attempts": [{"phase": "plasticity"}]}',
    ],
)
def test_a_damaged_search_is_one_line(content: str, tmp_path: Path) -> None:
    spec = resolve("split-digits", "mas", settings=[*SMALL, *FEW], flags={"controller": {"name": "stability-decay"}})
    with Store(tmp_path).open(spec) as folder:
        (folder.path / "search.json").write_text(content)
    with pytest.raises(InputError, match=r"search\.json: cannot be read .*--fresh"):
        run(tmp_path)
    assert run(tmp_path, fresh=True).data["finished"]


def test_a_search_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    spec = resolve("split-digits", "mas", settings=[*SMALL, *FEW], flags={"controller": {"name": "stability-decay"}})
    with Store(tmp_path).open(spec) as folder:
        other = {"phase": "plasticity", "lr": 7.0, "values": {}, "needed": 0.0, "accuracy": 1.0, "cost": {}}
        trace = {"fingerprint": spec.fingerprint, "clsim": clsim.__version__, "done": 0}
        attempts = [{**other, "decision": "best so far"}]
        (folder.path / "search.json").write_text(json.dumps({**trace, "attempts": attempts}))
    with pytest.raises(InputError, match=r"search\.json: does not fit this run"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("strategy", "settings", "message"),
    [
        (
            "mas",
            ["controller.decay=['strenght']"],
            r"\[controller\] decay: unknown option 'strenght' of learner mas; did",
        ),
        (
            "er",
            ["controller.decay=['objective']"],
            r"decay: objective: found 'replay', allowed: an option that is a num",
        ),
        ("a-gem", ["controller.decay=['margin']"], r"unknown option 'margin' of learner a-gem; it has no options"),
        (
            "mas",
            ["learner.options.strength=0"],
            r"decay: strength: found 0, allowed: an option that is a number above 0",
        ),
        ("mas", ["stream.validation=0"], r"stream\.validation: found 0 with controller 'stability-decay'"),
        ("mas", ["data.per_class=5", "stream.validation=0.01"], r"holds out nothing of experiences of 10"),
        ("mas", ["controller.margin=1"], r"controller\.margin: found 1\.0, allowed: a share from 0 to below 1"),
        ("mas", ["controller.rates=[]"], r"controller\.rates: found \[\], allowed: one number above 0, or more"),
        ("avalanche:EWC", ["learner.options.ewc_lambda=1"], r"controller\.name: found 'stability-decay' with"),
    ],
)
def test_what_cannot_be_controlled_is_one_line(
    strategy: str, settings: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, strategy, *settings)


def test_settings_of_a_controller_that_is_not_used_are_refused() -> None:
    with pytest.raises(InputError, match=r"controller\.margin: found 0\.1 without a controller"):
        resolve("split-digits", "mas", settings=["controller.margin=0.1"])
    with pytest.raises(
        InputError, match=r"\[controller\] name: found 'stabilty-decay'; did you mean 'stability-decay'"
    ):
        resolve("split-digits", "mas", flags={"controller": {"name": "stabilty-decay"}})


def test_a_controller_makes_another_run_and_what_a_strategy_says_of_it_does_not() -> None:
    plain = resolve("split-digits", "mas")
    assert "controller" not in plain.as_dict()
    controlled = resolve("split-digits", "mas", flags={"controller": {"name": "stability-decay"}})
    assert controlled.fingerprint != plain.fingerprint
    assert controlled.controller.decay == ("strength",)
    assert controlled.stream.validation == 0.2  # unless anything says otherwise
    assert (
        resolve("online-cifar100-class", "mas", flags={"controller": {"name": "stability-decay"}}).stream.validation
        == 0.05
    )


def test_stability_reads_the_learners_own_defaults() -> None:
    assert stability_decay.stability(LearnerSpec("mas"), ["strength"]) == {"strength": 1.0}
    assert stability_decay.stability(LearnerSpec("mas", {"strength": 3}), ["strength"]) == {"strength": 3.0}
    whole = stability_decay.stability(LearnerSpec("gdumb"), ["epochs"])
    assert whole == {"epochs": 30}
    assert type(whole["epochs"]) is int
    assert math.isclose(stability_decay.stability(LearnerSpec("gem"), ["margin", "damping"])["damping"], 1e-3)


def test_a_search_begins_with_the_values_that_are_given_for_it() -> None:
    tuned = LearnerSpec("lwf", {"strength": 1.0})
    assert stability_decay.stability(tuned, ["strength"], {"strength": 10}) == {"strength": 10.0}
    spec = resolve("split-digits", "lwf", flags={"controller": {"name": "stability-decay"}})
    assert (spec.controller.first, spec.learner.options["strength"]) == ({"strength": 10.0}, 1.0)


@pytest.mark.parametrize("first", [{"stength": 1.0}, {"strength": 0.0}, {"strength": "much"}])
def test_values_to_begin_with_are_numbers_of_options_that_decay(first: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"controller\.first"):
        ControllerSpec("stability-decay", decay=("strength",), first=first)

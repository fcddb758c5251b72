"""Labels asked for in one pass: budgets, what a selector is handed, what the learner and the memory get, resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.acquisitions.stream_policies import StreamPolicy
from clsim.data import datasets
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.records.store import RunRecord
from clsim.spec.components import STREAM_POLICIES
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.streams import build
from clsim.streams.part import Part
from clsim.streams.stream import Experience
from clsim.training import loop
from tests.helpers import assert_same

ONE_PASS = ["data.per_class=40", "training.epochs=1", "training.passes=3", "labelling.update=batch"]
HERE = "tests.training.test_label_stream"
SEEN: list[dict[str, Any]] = []
"""What the selectors below were handed, a call an entry."""


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    SEEN.clear()
    yield
    SEEN.clear()


def noting(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """The first rows of a batch; notes what it was handed."""
    labelled = pool.labelled
    SEEN.append(
        {
            "y": pool.data.y.tolist(),
            "index": pool.data.index.tolist(),
            "budget": budget,
            "classes": pool.classes.tolist(),
            "labelled": [] if labelled is None else labelled.data.index.tolist(),
            "told": [] if labelled is None else labelled.data.y.tolist(),
            "weight": float(pool.net.head.weight.detach().double().abs().sum()),
        }
    )
    return Selection(torch.arange(min(budget, len(pool))))


def silent_later(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Nothing of the second experience, else the first rows."""
    return Selection(torch.arange(0 if int(pool.data.task[0]) == 1 else min(budget, len(pool))))


class Eager(StreamPolicy):
    """Asks for whatever it may. Final."""

    def asks(self, confidence: float, classes: int) -> bool:
        SEEN.append({"share": self.budget})
        return True


def run(folder: Path, label: str = "random", *settings: str, strategy: str = "er", seed: int = 0) -> RunRecord:
    own = [f"labelling.selector={label}"]
    if not any(setting.startswith(("labelling.budget", "labelling.fraction")) for setting in settings):
        own += ["labelling.fraction=0.2"]
    memory = 30 if strategy in ("er", "der", "er-ace") else None
    return clsim.run(
        "split-digits", strategy, settings=[*ONE_PASS, *own, *settings], runs=folder, memory=memory, seed=seed
    )


def checkpoint(record: RunRecord) -> dict[str, Any]:
    return torch.load(record.folder / "checkpoint.pt", weights_only=True)


def rows_of(record: RunRecord) -> list[list[int]]:
    return [entry["rows"] for entry in record.data["labelling"]["rounds"]]


def truth(settings: list[str]) -> np.ndarray:
    spec = resolve("split-digits", "er", settings=settings)
    return np.asarray(datasets.load(spec.data, datasets.data_root(None)).train_y)


@pytest.mark.parametrize("label", ["random", "margin", "kcenter", "badge", f"{HERE}:noting"])
@pytest.mark.parametrize("budget", [("labelling.fraction=0.23", 18), ("labelling.budget=11", 11)])
def test_a_selector_spends_its_budget_to_the_last_label(label: str, budget: tuple[str, int], runs: Path) -> None:
    labelling = run(runs, label, budget[0]).data["labelling"]
    assert labelling["asked"] == [budget[1]] * 5  # of 80 samples
    assert labelling["initial"] == labelling["validation"] == [0] * 5
    assert [(e["experience"], e["round"], e["by"], e["labelled"]) for e in labelling["rounds"]] == [
        (p, 1, label, budget[1]) for p in range(5)
    ]
    for entry in labelling["rounds"]:
        assert len(set(entry["rows"])) == len(entry["labels"]) == budget[1]
        assert entry["radius"] > 0
        assert entry["unique"] == 1
        assert entry["peak_bytes"] > 0


def test_the_answers_are_the_labels_of_the_data_set(runs: Path) -> None:
    record = run(runs, "margin")
    y = truth(ONE_PASS[:1])
    for position, entry in enumerate(record.data["labelling"]["rounds"]):
        assert y[entry["rows"]].tolist() == entry["labels"]
        assert set(entry["labels"]) <= {2 * position, 2 * position + 1}
        assert entry["accuracy"][: position + 1] == record.data["accuracy"][position][: position + 1]
        assert entry["accuracy"][position + 1 :] == [None] * (4 - position)


@pytest.mark.parametrize("label", STREAM_POLICIES)
def test_a_policy_asks_for_its_budget_at_most_and_for_some(label: str, runs: Path) -> None:
    record = run(runs, label)
    assert all(0 < asked <= 16 for asked in record.data["labelling"]["asked"][:1])
    assert all(asked <= 16 for asked in record.data["labelling"]["asked"])
    assert [e["round"] for e in record.data["labelling"]["rounds"]] == [1] * 5


def test_a_policy_has_the_share_of_the_experience_and_a_hard_limit(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:Eager", "labelling.budget=10")
    assert {entry["share"] for entry in SEEN} == {10 / 80}
    # u of 100·(1 − .99^k) reaches 12.5 after 14 labels, so that the limit of the experience comes first
    assert record.data["labelling"]["asked"][0] == 10
    # and in the next one it is remembered that the budget was spent
    assert 0 < record.data["labelling"]["asked"][1] <= 10
    SEEN.clear()
    run(tmp_path, f"{HERE}:Eager", "labelling.fraction=1.0")
    assert {entry["share"] for entry in SEEN} == {1.0}
    assert len(SEEN) == 400


def test_batches_come_once_and_their_labels_are_hidden(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:noting", "labelling.budget=11")
    assert len(SEEN) == 5 * 8
    for position in range(5):
        calls = SEEN[8 * position : 8 * position + 8]
        order = [i for call in calls for i in call["index"]]
        assert len(order) == len(set(order)) == 80
        assert order != sorted(order)
        assert all(y == -1 for call in calls for y in call["y"])
        due = [11 * 10 * (k + 1) // 80 for k in range(8)]
        assert [call["budget"] for call in calls] == [b - a for a, b in zip([0, *due], due, strict=False)]
        asked = [i for call in calls for i in call["index"][: call["budget"]]]
        assert rows_of(record)[position] == asked
        # what was told before is known, and nothing else of this experience
        told = dict(zip(asked, record.data["labelling"]["rounds"][position]["labels"], strict=True))
        done = 0
        for call in calls:
            own = [i for i in call["labelled"] if i in order]
            assert own == asked[:done]
            assert [call["told"][call["labelled"].index(i)] for i in own] == [told[i] for i in own]
            now = {told[i] for i in own}
            earlier = {label for e in record.data["labelling"]["rounds"][:position] for label in e["labels"]}
            assert set(call["classes"]) == now | earlier
            done += call["budget"]


def test_the_order_of_a_pass_is_the_same_for_all_who_ask_and_another_with_another_seed(tmp_path: Path) -> None:
    run(tmp_path, f"{HERE}:noting", "labelling.budget=11")
    first = [call["index"] for call in SEEN]
    SEEN.clear()
    run(tmp_path, f"{HERE}:noting", "labelling.budget=11", "labelling.options={}", "training.passes=1")
    assert [call["index"] for call in SEEN] == first
    SEEN.clear()
    run(tmp_path, f"{HERE}:noting", "labelling.budget=11", seed=1)
    assert [call["index"] for call in SEEN] != first


def test_the_learner_takes_its_steps_on_what_was_asked_for_and_the_memory_is_offered_it_once(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:noting", "labelling.budget=16", "memory.capacity=1000")  # 2 of each batch
    assert [cost["steps"] for cost in record.data["cost"]] == [3 * 8] * 5
    assert len({call["weight"] for call in SEEN}) == 40  # the net has learnt between two batches
    state = checkpoint(record)
    assert state["memory"]["seen"] == 80
    kept = state["memory"]["columns"]
    asked = [i for rows in rows_of(record) for i in rows]
    assert sorted(kept["index"].tolist()) == sorted(asked)
    told = dict(zip(asked, (y for e in record.data["labelling"]["rounds"] for y in e["labels"]), strict=True))
    assert [told[i] for i in kept["index"].tolist()] == kept["y"].tolist()


def test_a_single_sample_waits_for_the_next(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:noting", "labelling.budget=8")  # one of each batch
    assert [cost["steps"] for cost in record.data["cost"]] == [3 * 4] * 5
    odd = run(tmp_path, f"{HERE}:noting", "labelling.budget=7")
    assert [cost["steps"] for cost in odd.data["cost"]] == [3 * 4] * 5
    assert checkpoint(odd)["memory"]["seen"] == 35


def test_the_initial_set_is_learnt_first(tmp_path: Path) -> None:
    record = run(
        tmp_path, f"{HERE}:noting", "labelling.budget=10", "labelling.initial=class", "labelling.initial_count=2"
    )
    labelling = record.data["labelling"]
    assert (labelling["initial"], labelling["asked"]) == ([4] * 5, [10] * 5)
    assert [(e["round"], e["by"], e["labelled"]) for e in labelling["rounds"][:2]] == [
        (0, "initial", 4),
        (1, f"{HERE}:noting", 14),
    ]
    assert sorted(labelling["rounds"][0]["labels"]) == [0, 0, 1, 1]
    assert set(SEEN[0]["labelled"]) == set(labelling["rounds"][0]["rows"])
    assert labelling["rounds"][0]["accuracy"][0] is not None
    assert not set(labelling["rounds"][0]["rows"]) & {i for call in SEEN[:8] for i in call["index"]}
    assert sum(len(call["index"]) for call in SEEN[:8]) == 76


def test_held_out_samples_are_no_candidates(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:noting", "labelling.fraction=0.5", "stream.validation=0.25")
    assert record.data["labelling"]["validation"] == [20] * 5
    assert record.data["labelling"]["asked"] == [30] * 5
    assert sum(len(call["index"]) for call in SEEN) == 5 * 60


@pytest.mark.parametrize("label", ["margin", "variable-uncertainty", "cognitive-dual-query"])
def test_labels_that_were_not_asked_for_change_nothing(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden labels of each experience change places, for the oracle and for the stream."""
    first = run(tmp_path / "a", label)
    asked = {i for rows in rows_of(first) for i in rows}
    changed = 0

    def permuted(parts: Sequence[Part]) -> list[Part]:
        nonlocal changed
        found = []
        for part in parts:
            y, hidden = part.y.copy(), np.array([row not in asked for row in part.rows.tolist()])
            y[hidden] = np.random.default_rng(1).permutation(y[hidden])
            changed += int((y != part.y).sum())
            found.append(dataclasses.replace(part, y=y))
        return found

    oracle_of, stream_of = build.oracle_of, build.Stream
    monkeypatch.setattr(build, "oracle_of", lambda parts, *others: oracle_of(permuted(parts), *others))
    monkeypatch.setattr(build, "Stream", lambda train, *others, **named: stream_of(permuted(train), *others, **named))
    second = run(tmp_path / "b", label)
    assert changed > 100
    assert rows_of(first) == rows_of(second)
    assert first.accuracy.equals(second.accuracy)
    for part in ("learner", "memory"):
        assert_same(checkpoint(first)[part], checkpoint(second)[part])


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str) -> RunRecord:
    """A run that stops in its third experience and goes on."""
    save = loop.record_of

    def stops(*arguments: Any) -> Any:
        if arguments[2].done == 3:
            raise KeyboardInterrupt
        return save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "record_of", stops)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, label)
    return run(tmp_path, label)


@pytest.mark.parametrize("label", ["random", *STREAM_POLICIES])
def test_an_interrupted_run_goes_on_with_the_same_decisions(
    label: str, tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, again = run(runs, label), interrupted(tmp_path, monkeypatch, label)
    assert rows_of(whole) == rows_of(again)
    assert whole.accuracy.equals(again.accuracy)
    for part in ("learner", "memory", "randomness"):
        assert_same(checkpoint(whole)[part], checkpoint(again)[part])
    if label in STREAM_POLICIES:
        assert_same(checkpoint(whole)["acquisition"], checkpoint(again)["acquisition"])


def test_a_policy_that_forgets_decides_otherwise_after_an_interruption(
    tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(runs, "variable-uncertainty")
    monkeypatch.setattr(StreamPolicy, "load_state_dict", lambda self, state: None)
    assert rows_of(interrupted(tmp_path, monkeypatch, "variable-uncertainty")) != rows_of(whole)


def test_an_experience_of_which_nothing_is_labelled_is_not_learnt(tmp_path: Path) -> None:
    record = run(tmp_path, f"{HERE}:silent_later", "labelling.shortfall=none")
    assert [bool(asked) for asked in record.data["labelling"]["asked"]] == [True, False, True, True, True]
    assert record.data["cost"][1]["steps"] == 0
    first, second = record.data["accuracy"][:2]
    assert first[0] == second[0]
    topped_up = run(tmp_path, f"{HERE}:silent_later")
    assert topped_up.data["labelling"]["asked"] == [16] * 5


@pytest.mark.parametrize("strategy", ["er", "finetune", "der", "er-ace", "ewc", "si", "lwf", "a-gem"])
def test_learners_from_labelled_samples_take_part(strategy: str, tmp_path: Path) -> None:
    record = run(tmp_path, "random", strategy=strategy)
    assert record.data["labelling"]["asked"] == [16] * 5
    assert [cost["steps"] for cost in record.data["cost"]] == [24] * 5
    assert record.data["accuracy"][0][0] > 0.6  # of two classes
    assert not record.data["diverged"]


def test_a_learner_begins_again_where_a_class_is_told_and_its_learning_rate_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[tuple[int, tuple[int, ...], bool]] = []
    paces: list[tuple[int, int]] = []
    begin, observe = Sgd.begin, Sgd.observe

    def begins(self: Sgd, experience: Experience) -> None:
        began.append((experience.position, experience.classes, experience.again))
        begin(self, experience)

    def observes(self: Sgd, batch: Exemplars) -> Any:
        paces.append((self.setup.pace.step, self.setup.pace.steps))
        return observe(self, batch)

    monkeypatch.setattr(Sgd, "begin", begins)
    monkeypatch.setattr(Sgd, "observe", observes)
    run(tmp_path, "random", "learner.options.among=experience")
    for position in range(5):
        own = [(classes, again) for where, classes, again in began if where == position]
        assert [again for _, again in own] == [False, *[True] * (len(own) - 1)]
        assert own[-1][0] == (2 * position, 2 * position + 1)
    assert len(began) > 10  # in some experience the first batch told of one class alone; each ends with a last one
    assert paces == [(step, 24) for step in range(24)] * 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.epochs=2"], r"training\.epochs: found 2 .*one pass.*training\.passes"),
        (["training.steps=5", "training.passes=1"], r"training\.steps: found 5"),
        (["training.last_batch=drop"], r"training\.last_batch: found 'drop'"),
        (["labelling.candidates=10"], r"labelling\.candidates: found 10"),
        (["labelling.initial=kcenter", "labelling.initial_count=5"], r"labelling\.initial: found 'kcenter'"),
        (["labelling.rounds=2"], r"labelling\.update: found 'batch' with rounds"),
        (["optimizer.schedule=plateau", "stream.validation=0.2"], r"optimizer\.schedule: found 'plateau'"),
    ],
)
def test_what_needs_more_than_a_pass_is_refused(settings: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, "random", *settings)


def test_learners_from_unlabelled_batches_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 'batch' with learner 'fixmatch'"):
        run(tmp_path, "random", strategy="fixmatch")


def test_a_policy_is_refused_in_rounds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labelling\.update: found 'round' with 'split'; allowed: 'batch'"):
        run(tmp_path, "split", "labelling.update=round")


def test_the_share_of_a_policy_is_set_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labelling\.options\.budget: found 0\.5 with 'split'"):
        run(tmp_path, "split", "labelling.options.budget=0.5")


def test_the_name_of_a_policy_implies_decisions_per_batch() -> None:
    specs: list[RunSpec] = [
        resolve(
            "split-digits",
            "er",
            settings=["training.epochs=1", "labelling.budget=5", f"labelling.selector={name}"],
        )
        for name in (*STREAM_POLICIES, "margin")
    ]
    assert [spec.labelling.update for spec in specs] == [*["batch"] * 6, "round"]


@pytest.mark.parametrize("settings", [["labelling.update=batch"], ["labelling.update=round", "labelling.rounds=2"]])
def test_a_learner_that_keeps_notes_beside_its_memory_keeps_them_with_labels_that_are_asked_for(
    settings: list[str], tmp_path: Path
) -> None:
    record = run(tmp_path, "random", "memory.update=experience", *settings, strategy="der")
    assert not checkpoint(record)["memory"]["columns"]["soft"].isnan().any()  # the logits of der

"""Runs with realistic pools: what stays hidden, what is told, what is counted, and runs that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clsim
from clsim.pool.pool import Pool, Selection
from clsim.records.frame import frame
from clsim.streams import build
from clsim.streams.part import Part
from clsim.streams.stream import Stream
from tests.helpers import assert_same
from tests.killing import Killed, Writes, assert_same_end
from tests.training.test_label_rounds import numbers

pytestmark = pytest.mark.filterwarnings("ignore:without an initial set")

CLASSES, EACH = 6, 30
ALL = ("rare:0.3", "redundant:3", "outsiders", "noise:0.2")
SMALL = [
    *("data.dataset=npz", "stream.experiences=2", "training.epochs=1", "evaluation.rows=seen"),
    *("labelling.initial_count=8", "model.options.hidden=[16]"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Blobs on small pictures; class 5 is by far the brightest."""
    path, rng = tmp_path_factory.mktemp("data") / "blobs.npz", np.random.default_rng(0)
    y = np.arange(CLASSES * EACH) % CLASSES
    centres = rng.integers(20, 120, (CLASSES, 8, 8))
    centres[5] = 215
    x = np.clip(centres[y] + rng.integers(-40, 40, (len(y), 8, 8)), 0, 255).astype(np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x[:120], y_test=y[:120])
    return str(path)


def run(path: str, runs: Path, *settings: str, strategy: str = "er", **given: Any) -> clsim.RunRecord:
    given = {"label": "margin", "label_budget": 16, "label_rounds": 2, "pool": ALL, "runs": runs} | given
    more = ["memory.capacity=12"] if strategy not in ("finetune", "lwf") else []
    return clsim.run("split-digits", strategy, settings=[*SMALL, *more, f"data.path={path}", *settings], **given)


CASES: dict[str, tuple[str, str, list[str]]] = {
    **{
        n: ("er", n, []) for n in ("random", "entropy", "badge", "kcenter", "bald", "flqmi", "logdetmi", "poal", "base")
    },
    **{n: ("er", n, []) for n in ("flcg", "flcmi", "logdetcmi", "vaal", "learning-loss", "pt4al", "ceal")},
    "kcenter memory": ("er", "margin", ["memory.buffer=kcenter"]),
    "memory of guesses": ("er", "margin", ["memory.buffer=kcenter", "memory.unlabelled=true"]),
    "one pass": ("er", "margin", ["labelling.update=batch", "labelling.rounds=1"]),
    "embedding": ("finetune", "typiclust", ["embedding.name=rotation", "embedding.epochs=1"]),
    "bic": ("bic", "margin", []),
    "icarl": ("icarl", "margin", []),
    "fixmatch": ("fixmatch", "margin", []),
    "lwf": ("lwf", "margin", []),
}


@pytest.mark.parametrize("case", CASES)
def test_permuted_natures_change_nothing(tmp_path: Path, data: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The natures of the samples of each experience are permuted, once all labels and sets are drawn."""
    strategy, label, settings = CASES[case]
    first = run(data, tmp_path / "a", *settings, strategy=strategy, label=label)

    def poisoned(train: list[Part], *given: Any, **named: Any) -> Stream:
        rng = np.random.default_rng(1)
        return Stream([replace(p, natures=p.known.of(rng.permutation(len(p.rows)))) for p in train], *given, **named)

    monkeypatch.setattr(build, "Stream", poisoned)
    second = run(data, tmp_path / "b", *settings, strategy=strategy, label=label)
    assert first.data["natures"] != second.data["natures"]
    assert first.data["accuracy"] == second.data["accuracy"]
    told = [[(e["labels"], e["accuracy"]) for e in r.data["labelling"]["rounds"]] for r in (first, second)]
    assert told[0] == told[1]
    states = [torch.load(r.folder / "checkpoint.pt", weights_only=True) for r in (first, second) if r.folder]
    for part in ("learner", "memory", "randomness"):
        assert_same(*(_without_nan(state[part]) for state in states))


def _without_nan(state: Any) -> Any:
    """Put a number in the place of NaN, which iCaRL's mean of a class that never came is, and which equals nothing."""
    if isinstance(state, dict):
        return {key: _without_nan(value) for key, value in state.items()}
    if isinstance(state, torch.Tensor) and state.is_floating_point():
        return state.nan_to_num(-1e30)
    return state


def last(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Select the largest numbers, which moved copies had if they were rows."""
    return Selection(pool.data.index.argsort(descending=True)[:budget])


def test_a_selector_by_the_number_finds_copies_by_chance_alone(tmp_path: Path, data: str) -> None:
    """Of 300 samples an experience, 210 are moved copies: of 40 picks, 28 in the mean, never all."""
    found = []
    for seed in range(3):
        record = run(
            data, tmp_path, "pool.redundant.kind=moved", "pool.redundant.share=0.25", label=last, label_rounds=1,
            pool=("redundant:10",), label_budget=40, seed=seed, strategy="finetune",
        )  # fmt: skip
        found += [entry["copy"] for entry in record.data["natures"]["rounds"] if entry["round"]]
        totals = record.data["natures"]["pool"]
    share = totals[0]["copy"] / totals[0]["all"]
    assert len(found) == 6
    deviation = (240 * share * (1 - share)) ** 0.5
    assert abs(sum(found) - 240 * share) < 3 * deviation


def brightest(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Select the brightest pictures."""
    return Selection(pool.data.x.float().flatten(1).mean(1).argsort(descending=True)[:budget])


@pytest.mark.parametrize("asked", ["dropped", "class"])
@pytest.mark.parametrize("update", ["round", "batch"])
def test_outsiders_that_are_asked_for_cost_budget(tmp_path: Path, data: str, asked: str, update: str) -> None:
    """In the second experience all picks are outsiders: nothing can be learnt, where they are dropped."""
    settings = ["pool.outsiders.classes=[5]", f"pool.outsiders.asked={asked}", "pool.outsiders.dealt=own"]
    settings += ["labelling.initial_count=0", f"labelling.update={update}", "labelling.shortfall=none"]
    rounds = None if update == "batch" else 2
    given: dict[str, Any] = {"pool": ["outsiders"], "label": brightest, "label_budget": 20, "label_rounds": rounds}
    record = run(data, tmp_path, *settings, **given)
    labelling, natures = record.data["labelling"], record.data["natures"]
    assert labelling["asked"] == [20, 20]
    assert natures["outsider_classes"] == [5]
    assert [counts["outsider"] for counts in natures["pool"]] == [0, EACH]
    second = [entry for entry in natures["rounds"] if entry["experience"] == 1]
    assert sum(entry["outsider"] for entry in second) == (20 if update == "round" else second[0]["outsider"])
    assert second[0]["outsider"] > 0
    entries = [entry for entry in labelling["rounds"] if entry["experience"] == 1]
    label = 6 if asked == "class" else -1
    assert [entry["labels"].count(label) for entry in entries] == [entry["outsider"] for entry in second]
    assert entries[-1]["labelled"] == 20  # what it cost, learnt or not
    assert natures["trained"][1]["outsider"] == (0 if asked == "dropped" else sum(e["outsider"] for e in second))
    assert record.data["classes"] == [[0, 1, 2], [3, 4, 6] if asked == "class" else [3, 4]]
    row = frame([record.data])["outsiders_asked"][0]
    assert row == sum(entry["outsider"] for entry in natures["rounds"])


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any, Any, Any]]:
    """Note the roles of each choice: experience, labels of query and private set, and of what is labelled."""
    seen, original = list[tuple[int, Any, Any, Any]](), Stream.roles_at

    def noted(self: Stream, position: int, labelled: Any) -> Any:
        roles = original(self, position, labelled)
        named = {name: None if part is None else part.y.tolist() for name, part in roles.items()}
        seen.append((position, named["query"], named["private"], labelled.y.tolist()))
        return roles

    monkeypatch.setattr(Stream, "roles_at", noted)
    return seen


def test_the_query_of_rare_classes_grows_with_what_was_asked_for(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spied(monkeypatch)
    record = run(data, tmp_path, "pool.rare.classes=[1, 2]", pool=["rare:0.3"], label="flqmi", label_rounds=3)
    rounds = record.data["natures"]["rounds"]
    (_, first, private, _), (_, second, _, _) = seen[:2]
    assert sorted(first) == [1] * 5 + [2] * 5
    assert private is None
    assert len(second) == 10 + rounds[1]["rare"]
    assert set(second) == {1, 2}
    assert seen[3][:2] == (1, None)  # the second experience has no rare class
    assert record.data["natures"]["pool"][0]["query"] == 10


@pytest.mark.parametrize("until", ["none", "query"])
def test_the_private_set_of_outsiders_is_what_was_asked_for(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    seen = spied(monkeypatch)
    settings = ["pool.outsiders.classes=[5]", "pool.outsiders.dealt=own", f"pool.outsiders.private={until}"]
    run(data, tmp_path, *settings, "labelling.initial=class", "labelling.initial_count=2", pool=["outsiders"],
        label=brightest, label_rounds=2)  # fmt: skip
    (_, query, private, labelled), later = seen[2], seen[3]
    assert sorted(query) == [3, 3, 4, 4]
    assert set(labelled) >= {3, 4}
    assert private == (query if until == "query" else None)
    assert later[2] == [-1] * 8
    assert -1 not in later[1]


def test_what_is_labelled_is_private_among_copies(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spied(monkeypatch)
    run(data, tmp_path, pool=["redundant"], label="flcg", label_rounds=2)
    assert all(query is None and private == labelled for _, query, private, labelled in seen)
    assert len(seen) == 4


def test_answers_are_noisy_twice_and_stay_so(tmp_path: Path, data: str) -> None:
    """The oracle's own noise comes on top of that of the pool; the same sample gets the same answer."""
    settings = ["pool.noise.among=others", "labelling.initial_count=0", "stream.validation=0.2"]
    counts = []
    for noise in (0.0, 0.5):
        given: dict[str, Any] = {"pool": ["noise:0.25"], "label": "random", "label_budget": 72, "label_rounds": 1}
        records = [
            run(data, tmp_path / f"{twice}", *settings, f"labelling.noise={noise}", strategy="finetune", **given)
            for twice in range(2)
        ]
        labels = [[entry["labels"] for entry in record.data["labelling"]["rounds"]] for record in records]
        assert labels[0] == labels[1]
        counts.append(sum(entry["wrong"] for entry in records[0].data["natures"]["rounds"]))
    pool = records[0].data["natures"]["pool"]
    assert [total["wrong"] for total in pool] == [round(0.25 * 90)] * 2
    assert counts[0] < counts[1]
    assert counts[0] <= 2 * round(0.25 * 90)


def test_the_record_counts_exactly(tmp_path: Path, data: str) -> None:
    """All candidates are asked for: the counts of the rounds are those of the pool."""
    settings = ["labelling.initial_count=0", "memory.buffer=random", "memory.update=experience"]
    record = run(data, tmp_path, *settings, label="random", label_budget=10_000, label_rounds=3)
    natures = record.data["natures"]
    for position, total in enumerate(natures["pool"]):
        entries = [entry for entry in natures["rounds"] if entry["experience"] == position]
        for key in ("all", "rare", "outsider", "copy", "wrong"):
            assert sum(entry[key] for entry in entries) == total[key]
        assert entries[-1]["unique_so_far"] == total["unique"] < total["all"]
        assert natures["trained"][position]["all"] == total["all"] - total["outsider"]
        assert natures["trained"][position]["wrong"] == total["wrong"] > 0
    assert natures["memory"][-1]["all"] == 12
    assert len(natures["accuracy_rare"]) == 2
    row = frame([record.data]).iloc[0]
    assert row["rare_found"] == sum(total["rare"] for total in natures["pool"])
    assert row["unique_share"] == sum(t["unique"] for t in natures["pool"]) / sum(t["all"] for t in natures["pool"])
    assert row["wrong_in_memory"] == natures["memory"][-1]["wrong"]
    assert row["accuracy_rare"] == natures["accuracy_rare"][-1]


def test_without_choices_outsiders_are_dropped_and_noise_is_learnt(tmp_path: Path, data: str) -> None:
    """A fully labelled stream; where a part is labelled, outsiders are in the unlabelled part."""
    settings = [s for s in SMALL if not s.startswith("labelling")]
    given: dict[str, Any] = {"pool": ["outsiders", "noise:0.2"], "runs": tmp_path}
    settings += [f"data.path={data}", "memory.capacity=12"]
    natures = clsim.run("split-digits", "er", settings=settings, **given).data["natures"]
    for total, trained in zip(natures["pool"], natures["trained"], strict=True):
        assert trained["all"] == total["all"] - total["outsider"]
        assert trained["wrong"] == total["wrong"]
    assert natures["rounds"] == []
    partly = clsim.run("split-digits", "fixmatch", labels=4, settings=settings, **given).data["natures"]
    assert [trained["outsider"] for trained in partly["trained"]] == [0, 0]


def test_labels_held_out_may_be_clean(tmp_path: Path, data: str) -> None:
    """A learner that knows its training labels by heart is worse on noisy held-out labels."""
    found = {}
    for held_out in ("noisy", "clean"):
        settings = [f"pool.noise.held_out={held_out}", "stream.validation=0.5", "training.epochs=8"]
        record = run(data, tmp_path, *settings, pool=["noise:0.4"], label="random", label_budget=45, label_rounds=1)
        found[held_out] = record.data["validation"][0]
    assert found["clean"] > found["noisy"]


@pytest.mark.parametrize(
    ("label", "pool"), [("flqmi", ("rare:0.3", "noise:0.2")), ("flcmi", ("redundant:3", "outsiders"))]
)
def test_a_run_that_is_killed_at_any_write_ends_as_if_it_was_not(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, label: str, pool: tuple[str, ...]
) -> None:
    writes = Writes(monkeypatch)
    whole = run(data, tmp_path / "whole", label=label, pool=pool)
    count = writes.moves
    for limit in range(2, count):
        folder = tmp_path / f"{limit}"
        writes.stop_at(limit)
        with pytest.raises(Killed):
            run(data, folder, label=label, pool=pool)
        writes.stop_at(0)
        resumed = run(data, folder, label=label, pool=pool)
        assert numbers(resumed) == numbers(whole)
        assert resumed.data["natures"] == whole.data["natures"]
        assert_same_end(resumed, whole)


def trained(path: str, runs: Path, batch: str = "loss") -> clsim.RunRecord:
    """Choose 8 of 32 candidates with a pool of wrong labels and copies."""
    settings = ["data.dataset=npz", f"data.path={path}", "stream.experiences=2", "training.epochs=3"]
    settings += ["training.batch_size=8", "model.options.hidden=[16]", "evaluation.rows=seen"]
    pool = ("redundant:3", "noise:0.3")
    return clsim.run("split-digits", "finetune", settings=settings, batch=batch, batch_share=0.25, pool=pool, runs=runs)


def test_permuted_natures_change_the_counts_of_picks_alone(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(data, tmp_path / "a")

    def poisoned(train: list[Part], *given: Any, **named: Any) -> Stream:
        rng = np.random.default_rng(1)
        return Stream([replace(p, natures=p.known.of(rng.permutation(len(p.rows)))) for p in train], *given, **named)

    monkeypatch.setattr(build, "Stream", poisoned)
    second = trained(data, tmp_path / "b")
    natures, times = ("wrong", "copies"), ("seconds",)
    told = [[{k: e[k] for k in natures} for e in r.data["batches"]] for r in (first, second)]
    other = [
        [{k: v for k, v in e.items() if k not in (*natures, *times)} for e in r.data["batches"]]
        for r in (first, second)
    ]
    assert told[0] != told[1]
    assert other[0] == other[1]
    assert first.data["accuracy"] == second.data["accuracy"]


def test_picks_with_wrong_labels_are_counted(tmp_path: Path, data: str) -> None:
    """The loss finds wrong labels: it trains on more of them than the pool has, and random on about as many."""
    random, loss = trained(data, tmp_path, "random"), trained(data, tmp_path)
    row = frame([random.data, loss.data]).set_index("batch.selector")
    pool = random.data["natures"]["pool"]
    share = sum(entry["wrong"] for entry in pool) / sum(entry["all"] for entry in pool)
    assert abs(row.loc["random", "wrong_trained"] - share) < 0.12
    assert row.loc["loss", "wrong_trained"] > share + 0.12
    assert row.loc["loss", "learnt_before"] < row.loc["random", "learnt_before"]
    assert all(0 < entry["copies"] < 1 for entry in random.data["batches"])

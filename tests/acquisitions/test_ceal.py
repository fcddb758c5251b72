"""Cost-effective active learning: its threshold, who gets a pseudo-label, and where such samples must not turn up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clsim
from clsim.acquisitions.ceal import CostEffective
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors.uncertainty import entropy, margin
from clsim.training.progress import Quiet
from tests.acquisitions.test_rounds import RandomAcquisition, Stopping, checkpoint, given, losses
from tests.helpers import assert_same, generator, points, vectors
from tests.increments import CPU
from tests.killing import assert_same_end

ALL = "labelling.options.delta=5"  # ten classes: an entropy of log 10 = 2.3 at most
OWN = "labelling.epoch=labelled"


def made(**options: Any) -> CostEffective:
    return CostEffective(net_of(3), generator(), **options)


def net_of(classes: int) -> nets.Net:
    """A net whose logits are its inputs."""
    visible = torch.ones(1, classes, dtype=torch.bool)
    net = nets.build(lambda shape: torch.nn.Identity(), (classes,), visible, 0, CPU)
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(classes))
        net.head.bias.zero_()
    return net


def pool_with(logits: Tensor) -> Pool:
    return Pool(vectors(logits), net_of(logits.shape[1]), lambda x: x)


def test_the_threshold_falls_as_in_the_paper_or_as_in_code() -> None:
    paper, code = made(), made(variant="code")
    found: list[list[float]] = [[], []]
    for t in range(20):
        for acquisition, of in zip((paper, code), found, strict=True):
            acquisition.begin(t, 20)
            of.append(acquisition.threshold)
    delta = 5e-5
    for t in range(20):
        assert found[0][t] == pytest.approx(5e-5 - 0.033e-5 * t, abs=1e-12)
        delta -= 0.033e-5 * t
        assert found[1][t] == pytest.approx(delta, abs=1e-12)
    assert min(found[0]) > 0  # the paper's ends after 151 trainings, the code's after 17
    assert found[1][16] > 0 > found[1][17]


def test_a_sample_that_is_exactly_one_hot_gets_a_pseudo_label() -> None:
    """But none in code, where 0·log 0 is no number; there a sample needs an entropy that is small and above 0."""
    logits = torch.tensor([[0.0, 500, 0], [0, 0, 0], [0, 0, 16], [9, 0, 0]])
    pool = pool_with(logits)
    assert pool.probabilities[0].tolist() == [0, 1, 0]
    rows, labels = made().pseudo_labels(pool)
    assert (rows.tolist(), labels.tolist()) == ([0, 2], [1, 2])
    rows, labels = made(variant="code").pseudo_labels(pool)
    assert (rows.tolist(), labels.tolist()) == ([2], [2])


def test_nothing_gets_a_pseudo_label_once_the_threshold_is_at_0() -> None:
    pool = pool_with(torch.tensor([[0.0, 500, 0]]))
    for acquisition, t in ((made(delta=0.0), 0), (made(), 152), (made(delta=0.0, decay=0.0), 3)):
        acquisition.begin(t, 200)
        assert len(acquisition.pseudo_labels(pool)[0]) == 0


@pytest.mark.parametrize(("base", "select"), [("entropy", entropy), ("margin", margin)])
def test_it_asks_for_what_its_base_asks_for(base: str, select: Any) -> None:
    pool = pool_with(points(40, 3))
    picks = made(base=base)(pool, 7, rng=generator()).index
    assert torch.equal(picks, select(pool, 7, rng=generator()).index)
    assert not torch.equal(picks, RandomAcquisition(pool.net, generator())(pool, 7, rng=generator()).index)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"base": "learning-loss"}, "ceal: base: found 'learning-loss'.*; allowed"),
        ({"base": "ceal"}, "ceal: base: found 'ceal', which keeps a state"),
        ({"base": "balanced-random"}, "ceal: base: found 'balanced-random'"),
        ({"base": "el2n"}, "ceal: base: found 'el2n', which needs"),
        ({"base": "entropi"}, "entropi.*entropy"),
        ({"base": "./mine.py:pick"}, "ceal: base: found './mine.py:pick', allowed: a name of"),
        ({"delta": -1.0}, "ceal: delta: found -1"),
        ({"decay": -1.0}, "ceal: decay: found -1"),
        ({"variant": "codes"}, "ceal: variant: found 'codes'"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        made(**options)


@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_a_run_that_finds_none_is_that_of_its_base_bit_for_bit(tmp_path: Path, start: str) -> None:
    setting = f"labelling.start={start}"
    one = clsim.run(**given(tmp_path, setting, "labelling.options.delta=0", label="ceal"))
    other = clsim.run(**given(tmp_path, setting, label="entropy"))
    assert one.data["accuracy"] == other.data["accuracy"]
    assert_same(checkpoint(one)["learner"], checkpoint(other)["learner"])
    assert_same(checkpoint(one)["memory"], checkpoint(other)["memory"])
    assert all(np.array_equal(losses(one)[name], losses(other)[name], equal_nan=True) for name in losses(other))
    rounds = [record.data["labelling"]["rounds"] for record in (one, other)]
    assert [entry["rows"] for entry in rounds[0]] == [entry["rows"] for entry in rounds[1]]
    assert [entry.get("guessed") for entry in rounds[0]] == [None, 0, 0] * 2


class Images(Quiet):
    """Counts the images of each training."""

    def __init__(self) -> None:
        self.of: list[int] = []

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        self.of.append(0)

    def step(self, images: int) -> None:
        self.of[-1] += images


@pytest.mark.parametrize("update", ["batch", "experience"])
@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_pseudo_labelled_samples_join_one_training_and_are_never_in_memory(
    tmp_path: Path, update: str, start: str
) -> None:
    """100 images an experience, of which 10, 20 and 30 are labelled; all others may get one. Two epochs."""
    buffer = "reservoir" if update == "batch" else "kcenter"
    settings = (ALL, OWN, f"labelling.start={start}", f"memory.buffer={buffer}", "memory.capacity=60")
    watch = Images()
    record = clsim.run(**given(tmp_path, *settings, label="ceal"), progress=watch)
    labelling = record.data["labelling"]
    entries = labelling["rounds"]
    assert [entry["labelled"] for entry in entries] == [10, 20, 30] * 2
    assert (labelling["asked"], labelling["initial"]) == ([20, 20], [10, 10])
    guessed = [entry.get("guessed", 0) for entry in entries]
    assert guessed[:4] == [0, 80, 70, 0]  # in the second experience, those that are taken for an old class have none
    assert watch.of == [2 * (entry["labelled"] + more) for entry, more in zip(entries, guessed, strict=True)]
    assert all(0 <= entry.get("guessed_right", 0) <= entry.get("guessed", 0) for entry in entries)
    assert sum(entry.get("guessed_right", 0) for entry in entries) > 0.15 * sum(guessed)
    told = {row: label for e in entries for row, label in zip(e["rows"], e["labels"], strict=True)}
    columns = checkpoint(record)["memory"]["columns"]
    held = dict(zip(columns["index"].tolist(), columns["y"].tolist(), strict=True))
    assert len(held) > 40
    assert held.keys() <= told.keys()
    assert all(told[row] == label for row, label in held.items())


def test_they_change_what_is_learnt(tmp_path: Path) -> None:
    with_, without = (
        clsim.run(**given(tmp_path, setting, OWN, label="ceal")) for setting in (ALL, "labelling.options.delta=0")
    )
    weights = [checkpoint(record)["learner"]["net"]["head.weight"] for record in (with_, without)]
    assert not torch.equal(*weights)


def test_before_the_first_training_of_an_experience_there_are_none(tmp_path: Path) -> None:
    changed: dict[str, Any] = {"label": "ceal", "labels": 0, "label_rounds": 2}
    with pytest.warns(UserWarning, match="without an initial set"):
        record = clsim.run(**given(tmp_path, ALL, **changed))
    guessed = [entry.get("guessed", 0) for entry in record.data["labelling"]["rounds"]]
    assert (guessed[0], guessed[2]) == (0, 0)
    assert min(guessed[1], guessed[3]) > 0


class Labels(RandomAcquisition):
    """Says that all candidates are of one class."""

    says: Any = staticmethod(lambda pool: (torch.arange(len(pool)), torch.zeros(len(pool), dtype=torch.int64)))

    def pseudo_labels(self, pool: Pool) -> tuple[Tensor, Tensor]:
        return self.says(pool)


def test_classes_of_other_experiences_are_not_given(tmp_path: Path) -> None:
    record = clsim.run(**given(tmp_path, label=Labels))
    guessed = [entry.get("guessed", 0) for entry in record.data["labelling"]["rounds"]]
    assert guessed == [0, 80, 70, 0, 0, 0]  # class 0 is of the first one


def raised(pool: Pool) -> tuple[Tensor, Tensor]:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (lambda pool: (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)), "a row twice"),
        (lambda pool: (torch.tensor([len(pool)]), torch.tensor([0])), "rows outside 0 to"),
        (lambda pool: (torch.tensor([0, 1]), torch.tensor([0])), r"shape \(2,\).* of shape \(1,\)"),
        (lambda pool: (torch.tensor([0.0]), torch.tensor([0])), "torch.float32"),
        (raised, "KeyError"),
    ],
)
def test_pseudo_labels_that_are_none_are_refused_in_one_line(tmp_path: Path, says: Any, found: str) -> None:
    class Wrong(Labels):
        pass

    Wrong.says = staticmethod(says)
    with pytest.raises(InputError, match=found) as caught:
        clsim.run(**given(tmp_path, label=Wrong))
    assert "\n" not in str(caught.value)


def test_a_learner_that_is_trained_at_the_end_alone_is_refused_before_training(tmp_path: Path) -> None:
    watch = Stopping()
    with pytest.raises(InputError, match=r"labelling.selector: found 'ceal' with learner 'gdumb'.*; allowed: "):
        clsim.run(**given(tmp_path, strategy="gdumb", label="ceal"), progress=watch)
    assert watch.batches == 0


@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_a_run_that_is_stopped_ends_bit_for_bit_the_same(tmp_path: Path, start: str) -> None:
    changed = {"label": "ceal"}
    settings = (ALL, f"labelling.start={start}", "memory.buffer=reservoir")
    whole = clsim.run(**given(tmp_path / "whole", *settings, **changed))
    for at in (27, 45, 75, 101):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given(folder, *settings, **changed), progress=Stopping(at))
        resumed = clsim.run(**given(folder, *settings, **changed))
        assert_same_end(resumed, whole)
        entries = [
            [(e["rows"], e.get("guessed"), e.get("guessed_right")) for e in r.data["labelling"]["rounds"]]
            for r in (resumed, whole)
        ]
        assert entries[0] == entries[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda guesses: {**guesses, "labels": [9] * len(guesses["labels"])},
        lambda guesses: {**guesses, "places": [10**6] * len(guesses["places"])},
        lambda guesses: {**guesses, "places": guesses["places"][:1] * len(guesses["places"])},
        lambda guesses: {**guesses, "labels": guesses["labels"][1:]},
        lambda guesses: {"places": guesses["places"]},
        lambda guesses: 3,
        lambda guesses: {"places": ["a"], "labels": [0]},
    ],
)
def test_damaged_pseudo_labels_are_refused_in_one_line(tmp_path: Path, damage: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        clsim.run(**given(tmp_path, ALL, label="ceal"), progress=Stopping(25))
    (path,) = tmp_path.glob("*/rounds.pt")
    state = torch.load(path, weights_only=True)
    state["entries"][-1]["guesses"] = damage(state["entries"][-1]["guesses"])
    torch.save(state, path)
    with pytest.raises(InputError, match=r"rounds\.pt does not fit this run .* --fresh") as caught:
        clsim.run(**given(tmp_path, ALL, label="ceal"))
    assert "\n" not in str(caught.value)

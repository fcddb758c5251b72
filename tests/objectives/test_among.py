"""Among which classes a cross-entropy compares: the four choices, against a hand-made softmax."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import clsim
from clsim.checks.learners import check_learner
from clsim.errors import InputError
from clsim.learners.replay.der import DerPlusPlus, der
from clsim.learners.replay.er_ace import er_ace
from clsim.learners.sgd import Sgd
from clsim.objectives.among import Among
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.spec.resolve import resolve
from tests.increments import experience, setup_of

CHOICES: tuple[Among, ...] = ("all", "seen", "experience", "batch")


def one_class(samples: Exemplars, label: int, n: int) -> Exemplars:
    return samples[(samples.y == label).nonzero().flatten()[:n]]


@pytest.mark.parametrize(
    ("among", "new", "old"),
    [
        ("all", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("seen", [0, 1, 2, 3], [0, 1, 2, 3]),
        ("experience", [2, 3], [0, 1, 2, 3]),
        ("batch", [2], [0, 2]),
    ],
)
def test_each_choice_is_a_softmax_over_its_classes(among: Among, new: list[int], old: list[int]) -> None:
    """In the second of two experiences, a batch of class 2 with exemplars of class 0, the only ones met so far."""
    setup = setup_of(buffer="none", lr=1e-9)
    learner = Sgd(setup, among=among)
    first, second = experience(0), experience(1)
    learner.begin(first)
    learner.observe(one_class(first.train, 0, 4))
    learner.begin(second)
    fresh, replayed = one_class(second.train, 2, 5), one_class(first.train, 0, 3)
    terms = learner.step(fresh, replayed)
    with torch.no_grad():
        logits = setup.net(concatenate([fresh, replayed]).x, torch.zeros(8, dtype=torch.int64))
    by_hand = [
        F.cross_entropy(logits[:5][:, new], torch.full((5,), new.index(2)), reduction="sum") / 8,
        F.cross_entropy(logits[5:][:, old], torch.full((3,), old.index(0)), reduction="sum") / 8,
    ]
    torch.testing.assert_close([terms["new"], terms["memory"]], by_hand)


def test_in_the_first_experience_classes_to_come_are_not_lowered() -> None:
    for among, moves in (("all", True), ("seen", False), ("experience", False), ("batch", False)):
        setup = setup_of(buffer="none")
        learner, given = Sgd(setup, among=among), experience(0)  # type: ignore[arg-type]
        learner.begin(given)
        before = setup.net.head.bias.detach().clone()
        learner.observe(given.train)
        assert bool((setup.net.head.bias[2:] != before[2:]).any()) == moves


@pytest.mark.parametrize("among", CHOICES[1:])
@pytest.mark.parametrize("make", [Sgd, der, DerPlusPlus], ids=lambda m: m.__name__)
def test_every_choice_keeps_the_contract(make: type, among: Among) -> None:
    check_learner(partial(make, among=among))


@pytest.mark.parametrize("among", CHOICES)
def test_er_ace_has_the_same_choices(among: Among) -> None:
    check_learner(partial(er_ace, classes=among))


@pytest.mark.parametrize(
    "make", [er_ace, *(partial(Sgd, among=a) for a in CHOICES), *(partial(der, among=a) for a in CHOICES)]
)
def test_classes_that_no_loss_has_lowered_are_not_predicted(make: Any) -> None:
    """Before the first sample nothing is left out; afterwards the classes seen are compared, and no others."""
    setup = setup_of(buffer="none")
    with torch.no_grad():
        setup.net.head.bias[3] = 50.0
    learner, first, second = make(setup), experience(0), experience(1)
    compares_all = getattr(make, "keywords", {}).get("among") == "all"
    test = torch.cat([first.train.x, second.train.x])
    task = torch.zeros(len(test), dtype=torch.int64)
    assert (learner.predict(test, task).argmax(1) == 3).all()
    learner.begin(first)
    learner.observe(first.train)
    learner.finish(first)
    found = learner.predict(test, task)
    assert bool((found[:, 2:] == -torch.inf).all()) is not compares_all
    learner.begin(second)
    learner.observe(second.train)
    assert learner.predict(test, task).isfinite().all()


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^learner\.options\.among: found 'old', allowed: all, seen, experience, batch$"
    ):
        Sgd(setup_of(), among="old")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=re.escape("er-ace: classes: found 'old', allowed: all, seen, experience, ")):
        er_ace(setup_of(), classes="old")  # type: ignore[arg-type]


def test_the_choice_is_another_run_and_its_default_the_run_it_was(tmp_path: Path) -> None:
    plain = resolve("split-digits", "er")
    assert "among" not in plain.learner.options
    assert resolve("split-digits", "er", settings=["learner.options.among=batch"]).fingerprint != plain.fingerprint
    small = ["data.per_class=20", "training.epochs=1", "stream.setting=class"]
    found = {
        among: clsim.run("split-digits", "er", memory=20, settings=[*small, *setting], runs=tmp_path).accuracy
        for among, setting in [("unset", []), *((c, [f"learner.options.among={c}"]) for c in CHOICES)]
    }
    assert found["unset"].equals(found["all"])
    for among in CHOICES[1:]:
        assert found[among].notna().all().all()
        assert not found[among].equals(found["all"])

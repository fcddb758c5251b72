"""The contracts of learners and objectives: what has a default, and who may derive from whom."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import clsim
from clsim.checks.learners import check_learner
from clsim.checks.samples import CheckFailed
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.streams.stream import Experience
from clsim.training.contract import Around, Batch, Learner, Objective, Setup, Terms
from tests.helpers import assert_same
from tests.increments import experience

PACKAGE = Path(clsim.__file__).parent
SMALL = ["data.per_class=20", "training.epochs=1", "stream.experiences=2"]


class Watcher(Learner):
    """Writes nothing but what it must."""

    def observe(self, batch: Exemplars) -> Terms:
        return {"nothing": torch.zeros(())}


class Duck:
    """A learner of before, with all the methods of the contract but no base."""

    def __init__(self, setup: Setup) -> None:
        self.net, self._sgd = setup.net, Sgd(setup)

    def begin(self, experience: Experience) -> None:
        self._sgd.begin(experience)

    def observe(self, batch: Exemplars) -> Terms:
        return self._sgd.observe(batch)

    def finish(self, experience: Experience) -> list[Terms]:
        return self._sgd.finish(experience)

    def remember(self, samples: Exemplars) -> Exemplars:
        return samples

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return self._sgd.predict(x, task)

    def state_dict(self) -> dict[str, Any]:
        return self._sgd.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sgd.load_state_dict(state)


class DuckLoss:
    """An objective of before."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def __call__(self, net: Any, batch: Batch) -> Terms:
        return {"new": F.cross_entropy(net(batch.x, batch.task), batch.y)}


class Halved(Objective):
    """Half of the cross-entropy; everything else is the default."""

    def __init__(self, setup: Setup) -> None:
        self._share = 0.5

    def __call__(self, net: Any, batch: Batch) -> Terms:
        return {"new": self._share * F.cross_entropy(net(batch.x, batch.task), batch.y)}


def test_a_learner_need_write_observe_alone(tmp_path: Path) -> None:
    name = "tests.training.test_contract:Watcher"
    record = clsim.run("split-digits", "er", settings=[*SMALL, f"learner.name={name}"], runs=tmp_path)
    assert record.data["finished"]
    made = Watcher(setup_of(buffered=True))
    assert made.state_dict() is None
    with pytest.raises(NotImplementedError, match="Watcher has a state_dict, but no load_state_dict"):
        made.load_state_dict({})


def test_a_learner_around_another_is_the_other(tmp_path: Path) -> None:
    class Same(Around[Sgd]):
        def __init__(self, setup: Setup) -> None:
            super().__init__(setup, Sgd(setup))

    ends = []
    for make in (Sgd, Same):
        setup = setup_of(buffered=True)
        learner = make(setup)
        given = Experience(0, (0, 1), _images(experience(0).train))
        learner.begin(given)
        terms = learner.observe(given.train)
        learner.finish(given)
        x, task = given.train.x, given.train.task
        state = learner.state_dict()
        learner.load_state_dict(state)
        ends.append(
            [terms, learner.predict(x, task), learner.readouts(), state, learner.incoming(given) is given.train]
        )
    assert_same(*ends)
    check_learner(Same)


def _images(samples: Exemplars) -> Exemplars:
    return Exemplars(
        torch.randint(0, 255, (len(samples), 1, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
        samples.y,
        samples.task,
        samples.key,
        samples.index,
    )


def test_a_learner_without_the_base_is_refused_in_one_line(tmp_path: Path) -> None:
    name = "tests.training.test_contract:Duck"
    message = (
        rf"^learner\.name: '{name}' makes a Duck, which is no clsim\.Learner; allowed: a class derived from [^\n]*$"
    )
    with pytest.raises(InputError, match=message):
        clsim.run("split-digits", "er", settings=[*SMALL, f"learner.name={name}"], runs=tmp_path)
    with pytest.raises(CheckFailed, match=r"^made a Duck, which is no clsim\.Learner"):
        check_learner(Duck)  # type: ignore[arg-type]


def test_an_objective_without_the_base_is_refused_in_one_line() -> None:
    message = (
        r"^learner\.options\.objective 'tests\.training\.test_contract:DuckLoss': DuckLoss is a class that is no "
        r"clsim\.Objective; allowed: a function of net"
    )
    with pytest.raises(InputError, match=message):
        Sgd(setup_of(buffered=True), objective="tests.training.test_contract:DuckLoss")


def test_an_objective_is_named_or_given_as_a_class_an_object_or_a_function() -> None:
    def function(net: Any, batch: Batch) -> Terms:
        return {"new": 0.5 * F.cross_entropy(net(batch.x, batch.task), batch.y)}

    ends = []
    given = _images(experience(0).train)
    for objective in ("tests.training.test_contract:Halved", Halved, Halved(setup_of(buffered=True)), function):
        setup = setup_of(buffered=True)
        learner = Sgd(setup, objective=objective)
        learner.begin(Experience(0, (0, 1), given))
        ends.append((learner.observe(given), learner.state_dict()))
    for other in ends[1:]:
        assert_same(ends[0], other)
    assert ends[0][1]["objective"] == {}


def classes(folder: str) -> list[tuple[Path, ast.ClassDef]]:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    nodes = [(path, node) for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body]
    return [(path, node) for path, node in nodes if isinstance(node, ast.ClassDef)]


def test_learners_and_objectives_are_abstract_or_final() -> None:
    known = [c for folder in ("learners", "objectives", "training") for c in classes(folder)]
    bases = {ast.unparse(base).partition("[")[0] for _, node in known for base in node.bases}
    parents = [node for _, node in known if node.name in bases]
    assert {node.name for node in parents} >= {"Learner", "Around", "Objective"}
    assert not [node.name for node in parents if "Abstract." not in (ast.get_docstring(node) or "")]
    assert not [node.name for node in parents if "Final." in (ast.get_docstring(node) or "")]


def test_a_method_without_a_docstring_has_an_inherited_one() -> None:
    inherited = {name for base in (Learner, Objective) for name, _ in inspect.getmembers(base, inspect.isfunction)}
    bare = []
    for path, node in [*classes("learners"), *classes("objectives")]:
        for method in node.body:
            public = isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
            if public and not ast.get_docstring(method) and method.name not in inherited:
                bare.append(f"{path.name}: {node.name}.{method.name}")
    assert not bare


def test_nothing_is_passed_on_by_hand() -> None:
    """What a method would only hand to the base or to the inner learner is left out."""
    again = []
    for path, node in [*classes("learners"), *classes("objectives")]:
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and isinstance(method.body[-1], ast.Return):
                told = len(method.body) - bool(ast.get_docstring(method))
                passes = ast.unparse(method.body[-1]).startswith(
                    (f"return super().{method.name}(", f"return self.inner.{method.name}(")
                )
                again += [f"{path.name}: {node.name}.{method.name}"] * (told == 1 and passes)
    assert not again

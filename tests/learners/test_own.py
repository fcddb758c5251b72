"""A user's own learner in 25 lines, objective in 15 and selector in 10, as files beside a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import clsim
from clsim.cli.main import app

LEARNER = '''
"""Experience replay whose weights stay near those that the experience began with."""

from clsim import Learner, Objective, Setup, Sgd, replay


class Near(Objective):
    def __init__(self, setup, strength):
        self.net, self.strength, self.anchor = setup.net, strength, []

    def begin(self, experience):
        self.anchor = [weights.detach().clone() for weights in self.net.parameters()]

    def __call__(self, net, batch):
        away = sum((p - a).square().sum() for p, a in zip(net.parameters(), self.anchor))
        return {**replay(net, batch), "away": self.strength * away}


def near(setup: Setup, *, strength: float = 0.01) -> Learner:
    """Experience replay: the loss, and strength · ‖θ − θ*‖², θ* the weights when the experience began."""
    return Sgd(setup, objective=Near(setup, strength))
'''

OBJECTIVE = '''
"""Replay whose exemplars count twice."""

from clsim import Batch, Objective, Terms, replay


class Twice(Objective):
    """CE(new) + 2 · CE(memory), each as experience replay has it."""

    def __init__(self, setup):
        self.factor = 2.0

    def __call__(self, net, batch: Batch) -> Terms:
        return {name: term * (self.factor if name == "memory" else 1) for name, term in replay(net, batch).items()}
'''

FUNCTION = '''
from torch.nn.functional import cross_entropy

from clsim import Batch, Terms


def smooth(net, batch: Batch) -> Terms:
    """Cross-entropy with smoothed labels, among the classes that a task has."""
    logits = net(batch.x, batch.task).clamp_min(-30)
    return {"loss": cross_entropy(logits, batch.y, label_smoothing=0.01)}
'''


SELECTOR = """
from clsim import Pool, Selection


def most_certain(pool: Pool, budget: int, *, rng) -> Selection:
    certainty = pool.probabilities.amax(1)
    return Selection(certainty.argsort(descending=True, stable=True)[:budget])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("code", "lines", "target", "key", "kind", "options"),
    [
        (LEARNER, 25, "./mine.py:near", "learner.name", "learners", ["learner.options.strength=0.1"]),
        (OBJECTIVE, 15, "./mine.py:Twice", "learner.options.objective", "objectives", []),
        (FUNCTION, 15, "./mine.py:smooth", "learner.options.objective", "objectives", []),
        (SELECTOR, 10, "./mine.py:most_certain", "memory.buffer", "selectors", []),
    ],
    ids=["a learner", "an objective", "an objective without a state", "a selector"],
)
def test_ones_own_takes_few_lines(
    code: str, lines: int, target: str, key: str, kind: str, options: list[str], here: Path
) -> None:
    (here / "mine.py").write_text(code, encoding="utf-8")
    assert len(code.strip().splitlines()) <= lines
    checked = CliRunner().invoke(app, ["check", target, "--kind", kind])
    assert checked.exit_code == 0, checked.output
    assert f"{target}: keeps the contract" in checked.output
    settings = ["data.per_class=30", "stream.experiences=2", "training.epochs=4"]
    plain = clsim.run("split-digits", "er", memory=20, settings=settings, runs=here)
    own = clsim.run("split-digits", "er", memory=20, settings=[*settings, f"{key}={target}", *options], runs=here)
    assert not own.accuracy.equals(plain.accuracy)
    assert (own.metrics["learning_accuracy"] or 0) > 0.6
    assert set(own.losses.columns) >= ({"away"} if kind == "learners" else set())


def test_an_objective_that_draws_globally_is_told(here: Path) -> None:
    (here / "mine.py").write_text(
        FUNCTION.replace("clamp_min(-30)", "clamp_min(-30) + __import__('torch').rand(1)"), encoding="utf-8"
    )
    checked = CliRunner().invoke(app, ["check", "./mine.py:smooth", "--kind", "objectives"], env={"COLUMNS": "200"})
    assert checked.exit_code
    assert "drew from torch's global generator" in str(checked.output) + str(checked.exception)

"""RWalk: Fisher, path and penalty against closed forms on a linear model, and against Avalanche's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.compat import import_torchvision
from clsim.errors import InputError
from clsim.learners.regularisation.rwalk import RWalk
from clsim.learners.sgd import Sgd
from clsim.objectives.importance import weights
from tests.helpers import assert_same
from tests.increments import CPU, ONE_HEAD, Blind, experience, learn, plugin_steps, setup_of


def walk_by_hand(start: Tensor, steps: int, *, lr: float, strength: float, fresh: float, every: int, damping: float):  # type: ignore[no-untyped-def]
    """The weights (4, 7), the last column the bias, after each of two experiences; Fisher and score at the end.

    For softmax regression the gradient of the mean cross-entropy is 1/n Σ (p_i − e_{y_i}) (x_i, 1)ᵀ.
    """
    theta, fisher, score, reached = start.clone(), None, None, []
    for position in (0, 1):
        train = experience(position).train
        x = torch.cat([train.x.double(), torch.ones(len(train), 1)], 1)
        wanted = F.one_hot(train.y, 4).double()
        anchor, own = theta.clone(), torch.zeros_like(theta)
        price = torch.zeros_like(theta)
        if fisher is not None and score is not None:
            price = strength * (fisher / fisher.max() + score / score.max())
        for first in range(0, steps, every):
            beginning, fall, squares, count = theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta), 0
            for _ in range(first, min(first + every, steps)):
                gradient = ((x @ theta.T).softmax(1) - wanted).T @ x / len(x)
                step = -lr * (gradient + 2 * price * (theta - anchor))
                fall, squares, count = fall - gradient * step, squares + gradient**2, count + 1
                theta = theta + step
            fisher = squares / count if fisher is None else fresh * squares / count + (1 - fresh) * fisher
            own += fall / (fisher * (theta - beginning) ** 2 / 2 + damping)
        own = own.clamp_min(0)
        score = own if score is None else (score + own) / 2
        reached.append(theta.clone())
    return reached, fisher, score


def joined(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([named["head.weight"], named["head.bias"][:, None]], 1).double()


@pytest.mark.parametrize(("steps", "every"), [(12, 3), (11, 4), (5, 10), (6, 1)])
def test_walk_of_a_linear_model_is_its_closed_form(steps: int, every: int) -> None:
    options: dict[str, Any] = {"strength": 0.6, "fresh": 0.7, "every": every, "damping": 1e-3}
    setup = setup_of(hidden=(), buffer="none")
    learner = RWalk(setup, **options)
    reached, fisher, score = walk_by_hand(joined(weights(setup.net)), steps, lr=0.1, **options)
    for position in (0, 1):
        learn(setup, learner, position, steps=steps)
        torch.testing.assert_close(joined(weights(setup.net)), reached[position], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(joined(learner.fisher), fisher, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(joined(learner.score), score, rtol=1e-3, atol=1e-4)
    scaled = joined(learner.importance)
    torch.testing.assert_close(scaled, fisher / fisher.max() + score / score.max(), rtol=1e-3, atol=1e-4)
    alone = setup_of(hidden=(), buffer="none")
    learn(alone, Sgd(alone), 0, 1, steps=steps)
    assert not torch.allclose(joined(weights(alone.net)), reached[1], atol=1e-3)


def test_the_path_sums_to_the_loss_drop_for_small_steps() -> None:
    """One stretch with nothing but ε below the line: Σ score · ε = ΔL."""
    setup = setup_of(lr=1e-3, buffer="none")
    train = experience(0).train
    learner = RWalk(setup, every=1000, damping=1e9)
    before = F.cross_entropy(setup.net(train.x, train.task), train.y).detach()
    learner.begin(experience(0))
    for _ in range(100):
        learner.observe(train)
    fall = sum(float(value.sum()) for value in learner.fall.values())
    after = F.cross_entropy(setup.net(train.x, train.task), train.y).detach()
    assert fall == pytest.approx(float(before - after), rel=0.01)
    path = dict(learner.fall)
    learner.finish(experience(0))
    for name, value in learner.score.items():
        torch.testing.assert_close(value * 1e9, path[name].clamp_min(0), rtol=1e-3, atol=1e-7)


def test_the_penalty_is_nothing_at_the_anchor_and_there_is_none_at_first() -> None:
    setup = setup_of(buffer="none")
    learner = RWalk(setup, strength=2.0)
    learner.begin(experience(0))
    assert learner.observe(experience(0).train).keys() == {"new"}
    learner.finish(experience(0))
    twin = setup_of(buffer="none")
    twin.net.load_state_dict(setup.net.state_dict())
    fine = Sgd(twin)
    for l in (learner, fine):  # noqa: E741
        l.begin(experience(1))
        terms = l.observe(experience(1).train)
        assert terms.get("penalty", torch.tensor(0.0)) == 0
    assert_same(setup.net.state_dict(), twin.net.state_dict())  # and neither has a gradient there
    assert learner.observe(experience(1).train)["penalty"] > 0


def test_old_scores_halve() -> None:
    setup = setup_of(buffer="none")
    learner = RWalk(setup, strength=0.0)
    learn(setup, learner, 0)
    first = learner.score
    assert max(float(value.max()) for value in learner.importance.values()) <= 2
    learner.begin(experience(1))
    learner.finish(experience(1))  # not a step: its own score is 0
    for name, value in learner.score.items():
        assert torch.equal(value, first[name] / 2)


def test_it_walks_with_avalanches() -> None:
    """Weights, Fishers and the first experience's scores, where the definitions do not differ.

    Its Fisher averages every step, ours every stretch: so stretches of one step. It clamps the mean of the scores at 0,
    ours clamps each experience's: so the scores of the first. ε is float32's there.
    """
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.training.plugins import RWalkPlugin

    setup = setup_of(ONE_HEAD, buffer="none")
    twin = setup_of(ONE_HEAD, buffer="none")
    learner = RWalk(setup, strength=0.5, fresh=0.9, every=1, damping=torch.finfo(torch.float32).eps)
    plugin, model = RWalkPlugin(ewc_lambda=0.5, ewc_alpha=0.9, delta_t=1), Blind(twin.net)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    clock = SimpleNamespace(train_exp_counter=0, train_iterations=0)
    for position in (0, 1):
        train = experience(position).train
        clock.train_exp_counter = position
        around: Any = SimpleNamespace(
            model=model,
            optimizer=optimizer,
            _criterion=nn.CrossEntropyLoss(),
            mbatch=(train.x, train.y, train.task),
            device=CPU,
            clock=clock,
        )
        if not position:
            plugin.before_training(around)
        plugin_steps(plugin, around, train, 20)
        plugin.after_training_exp(around)
        learn(setup, learner, position)
        torch.testing.assert_close(weights(setup.net), weights(twin.net), rtol=1e-3, atol=1e-4)
        assert plugin.exp_importance is not None
        for name, value in learner.fisher.items():
            torch.testing.assert_close(value, plugin.exp_importance[f"net.{name}"].data, rtol=2e-2, atol=1e-5)
        if not position:
            assert plugin.exp_penalties is not None
            for name, value in learner.importance.items():
                torch.testing.assert_close(value, plugin.exp_penalties[f"net.{name}"].data, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_is_all_of_it() -> None:
    setup, other = setup_of(buffer="none"), setup_of(buffer="none")
    learner, again = RWalk(setup, every=3), RWalk(other, every=3)
    learn(setup, learner, 0)
    again.load_state_dict(learner.state_dict())
    for s, l in ((setup, learner), (other, again)):  # noqa: E741
        learn(s, l, 1)
    assert_same(again.state_dict(), learner.state_dict())


@pytest.mark.parametrize(
    ("option", "value"), [("strength", -1.0), ("fresh", 0.0), ("fresh", 1.5), ("every", 0), ("damping", 0.0)]
)
def test_options_are_looked_at(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"rwalk: {option}: found {value:g}"):
        RWalk(setup_of(), **{option: value})


def test_it_forgets_less_than_fine_tuning(runs: Path) -> None:
    settings = ["stream.setting=task", "training.epochs=5", "optimizer.lr=0.3", "data.per_class=60"]
    strong = [*settings, "learner.options.strength=100.0"]
    finetune = clsim.run("split-digits", "finetune", settings=settings, runs=runs)
    weak = clsim.run("split-digits", "rwalk", settings=settings, runs=runs)
    record = clsim.run("split-digits", "rwalk", settings=strong, runs=runs)
    forgetting = [run.metrics["forgetting"] or 0 for run in (record, weak, finetune)]
    assert forgetting == sorted(forgetting)
    assert forgetting[0] < forgetting[2] - 0.015
    assert (record.metrics["accuracy"] or 0) > (finetune.metrics["accuracy"] or 0)

"""Learners that penalise moving important weights, and the averages of IMM: what proves each one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import clsim
from clsim.compat import import_torchvision
from clsim.errors import InputError
from clsim.learners.regularisation.imm import Imm, mean_imm, mode_imm
from clsim.learners.regularisation.penalties import ewc, mas, online_ewc
from clsim.learners.regularisation.si import Si
from clsim.learners.sgd import Sgd
from clsim.objectives.consolidation import Consolidation
from clsim.objectives.importance import Weights, distance, fisher, held, pull, sensitivity, weights
from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Setup
from tests.helpers import assert_same
from tests.increments import CPU, ONE_HEAD, TASKS, Blind, Increments, hidden_layers, plugin_steps

SMALL = Increments(visible=TASKS, body=hidden_layers(8))
setup_of, experience, learn = SMALL.setup, SMALL.experience, SMALL.train


def consolidation(learner: Any) -> Consolidation:
    assert isinstance(learner, Sgd)
    assert isinstance(learner.objective, Consolidation)
    return learner.objective


@pytest.mark.parametrize("make", [ewc, online_ewc, mas, Si], ids=lambda make: make.__name__)
def test_the_penalty_and_its_gradient_are_zero_at_the_anchor(make: Any) -> None:
    setup = setup_of(lr=0.02)
    learner = make(setup)
    learn(learner, 0)
    importance = learner.importance if isinstance(learner, Si) else consolidation(learner).importance
    assert sum(float(value.sum()) for value in importance.values()) > 0
    anchor = weights(setup.net)
    there = distance(setup.net, anchor, importance)
    assert float(there.detach()) == 0
    assert not any(slope.any() for slope in torch.autograd.grad(there, list(setup.net.parameters())))
    learner.begin(experience(1))
    assert float(learner.observe(experience(1).train)["penalty"]) == 0  # before the first step
    assert float(learner.observe(experience(1).train)["penalty"]) > 0  # after it


def test_the_fisher_of_a_logistic_model_is_its_closed_form() -> None:
    """No body: ∂CE/∂W is (p − e_y) ⊗ x and ∂CE/∂b is p − e_y."""
    setup = setup_of(ONE_HEAD, hidden=())
    given = experience(0).train
    p = (given.x @ setup.net.head.weight.T + setup.net.head.bias).softmax(1).detach()
    q = p - F.one_hot(given.y, 4)
    found = fisher(setup, given)
    torch.testing.assert_close(found["head.weight"], (q[:, :, None] * given.x[:, None]).square().mean(0))
    torch.testing.assert_close(found["head.bias"], q.square().mean(0))


def test_the_fisher_of_its_own_classes_is_that_of_their_softmax() -> None:
    setup = setup_of(ONE_HEAD, hidden=())
    given = experience(1).train
    q = (given.x @ setup.net.head.weight.T + setup.net.head.bias)[:, 2:].softmax(1).detach() - F.one_hot(given.y - 2, 2)
    found = fisher(setup, given, own=True)
    torch.testing.assert_close(found["head.bias"][2:], q.square().mean(0))
    assert not found["head.bias"][:2].any()


def one_by_one(setup: Setup, samples: Exemplars, of: Any) -> Weights:
    """The same mean by plain autograd, a sample after the other."""
    setup.net.eval()
    total = {name: torch.zeros_like(p) for name, p in setup.net.named_parameters()}
    for i in range(len(samples)):
        row = samples[i : i + 1]
        logits = setup.net(row.x, row.task)
        score = F.cross_entropy(logits, row.y) if of is fisher else logits[:, TASKS[int(row.task)]].square().sum()
        setup.net.zero_grad()
        score.backward()
        for name, p in setup.net.named_parameters():
            assert p.grad is not None
            total[name] += (p.grad.square() if of is fisher else p.grad.abs()) / len(samples)
    setup.net.zero_grad()
    return total


@pytest.mark.parametrize("of", [fisher, sensitivity], ids=lambda of: of.__name__)
def test_importance_is_the_mean_of_each_samples_gradient(of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, samples = setup_of(), experience(1).train
    expected = one_by_one(setup, samples, of)
    for floats in (1, 700, 2**23):  # one sample at a time, a few, all
        monkeypatch.setattr("clsim.objectives.importance._FLOATS", floats)
        torch.testing.assert_close(of(setup, samples), expected)
    assert not expected["head.weight"][:2].any()  # the rows of the other task
    assert expected["head.weight"][2:].any(1).all()
    few = samples[samples.key.argsort(descending=True)[:5]]
    torch.testing.assert_close(of(setup, samples, 5), one_by_one(setup, few, of))


def test_labels_matter_to_the_fisher_alone() -> None:
    setup, samples = setup_of(), experience(0).train
    half = dataclasses.replace(samples, y=samples.y.where(torch.arange(24) < 12, -1))
    torch.testing.assert_close(fisher(setup, half), fisher(setup, samples[:12]))
    assert_same(sensitivity(setup, half), sensitivity(setup, samples))
    unlabelled = dataclasses.replace(samples, y=torch.full_like(samples.y, -1))
    assert not any(value.any() for value in fisher(setup, unlabelled).values())


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_importances_add_up_and_fade(decay: float) -> None:
    setup = setup_of()
    learner = online_ewc(setup, decay=decay, strength=5.0)
    learn(learner, 0)
    first = fisher(setup, experience(0).train)
    learn(learner, 1)
    second = fisher(setup, experience(1).train)
    expected = {name: decay * first[name] + second[name] for name in first}
    torch.testing.assert_close(consolidation(learner).importance, expected)
    if decay == 1:
        other = setup_of()
        learn(ewc(other, strength=5.0), 0, 1)
        assert_same(weights(setup.net), weights(other.net))


def test_sis_path_is_the_fall_of_the_loss() -> None:
    """Plain gradient descent: the error is of the order of the step, so half the step has half the error."""
    errors = []
    for lr, steps in ((0.01, 100), (0.005, 200)):
        setup = setup_of(lr=lr)
        learner, given = Si(setup), experience(0)
        learner.begin(given)
        losses = [learner.observe(given.train)["new"] for _ in range(steps)]
        fall = float(losses[0] - F.cross_entropy(setup.net(given.train.x, given.train.task), given.train.y).detach())
        path = sum(float(value.sum()) for value in learner.path.values())
        errors.append(abs(path / fall - 1))
    assert errors[0] < 0.02
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.1)


def test_sis_path_knows_nothing_of_the_penalty() -> None:
    """From one net, a second experience's first two steps: their gradients recomputed without the penalty."""
    setup = setup_of(lr=0.05)
    learner, given = Si(setup, strength=3.0), experience(1)
    learn(learner, 0)
    learner.begin(given)
    expected = {name: torch.zeros_like(value) for name, value in learner.path.items()}
    for _ in range(2):
        before = weights(setup.net)
        loss = F.cross_entropy(setup.net(given.train.x, given.train.task), given.train.y)
        slopes = torch.autograd.grad(loss, list(setup.net.parameters()))
        learner.observe(given.train)
        for (name, p), slope in zip(setup.net.named_parameters(), slopes, strict=True):
            expected[name] -= slope * (p.detach() - before[name])
    torch.testing.assert_close(learner.path, expected)


def test_the_share_of_weights_held_fast_is_counted(runs: Path) -> None:
    """λΩ above 1 / (2·lr); and a record says it of each experience."""
    setup = setup_of(lr=0.5)
    assert held(setup, 2.0, {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([[0.5], [9.0]])}) == 0.5
    assert held(setup, 2.0, {}) == 0
    assert held(setup_of(lr=0.5, name="adam"), 2.0, {"a": torch.ones(3)}) == 0
    shares = {
        strength: clsim.run(
            "split-digits", "si", settings=["stream.setting=task", f"learner.options.strength={strength}"], runs=runs
        ).data["diagnostics"]["held"]
        for strength in (1, 400)
    }
    assert all(a < 0.1 < b for a, b in zip(shares[1], shares[400], strict=True))
    assert len(shares[1]) == 5
    assert "diagnostics" not in clsim.run("split-digits", "finetune", runs=runs).data


@pytest.mark.parametrize("strength", [1.0, 1e9])
def test_no_strength_makes_sgd_diverge(strength: float) -> None:
    """Important weights stand still instead; the cap is above what moderate strengths ask for."""
    setup = setup_of(momentum=0.9)
    learner = mas(setup, strength=strength)
    learn(learner, 0)
    anchor, importance = weights(setup.net), consolidation(learner).importance
    price = pull(setup, strength, importance)
    assert all(bool((value <= 5).all()) for value in price.values())
    learn(learner, 1, steps=200)
    moved = max(float((value - anchor[name]).abs()[importance[name] > 0].max()) for name, value in anchor.items())
    assert moved == 0 if strength == 1e9 else True
    now = weights(setup.net)
    assert all(bool(value.isfinite().all()) for value in now.values())
    free = [(now[name] - anchor[name])[importance[name] == 0].abs().sum() for name in now]
    assert float(torch.stack(free).sum()) > 0
    small = {name: value / 1e6 for name, value in importance.items()}
    assert_same(pull(setup, 1.0, small), small)
    assert_same(pull(setup_of(name="adam"), 1e9, importance), {n: 1e9 * v for n, v in importance.items()})


def avalanche(plugin: Any, setup: Setup, steps: int = 20) -> tuple[list[Weights], Any]:
    """Its plugin around plain gradient descent on the same whole batches: the weights after each experience."""
    model = Blind(setup.net)
    optimizer = torch.optim.SGD(model.parameters(), setup.spec.optimizer.lr)
    reached = []
    for position in (0, 1):
        train = experience(position).train
        dataset = [(train.x[i], train.y[i], 0) for i in range(len(train))]
        around: Any = SimpleNamespace(
            model=model,
            optimizer=optimizer,
            _criterion=nn.CrossEntropyLoss(),
            device=CPU,
            train_mb_size=1,  # of its importances: else it squares the mean gradient of a batch
            experience=SimpleNamespace(dataset=dataset),
            clock=SimpleNamespace(train_exp_counter=position, train_iterations=0),
        )
        plugin.before_training_exp(around)
        plugin_steps(plugin, around, train, steps)
        plugin.after_training_exp(around)
        reached.append(weights(setup.net))
    return reached, plugin


def test_ewc_takes_the_steps_of_avalanches() -> None:
    """Its ``online`` mode without decay; ``separate`` keeps an anchor a task, which is the same up to the second."""
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.training.plugins import EWCPlugin

    for mode in ({"mode": "online", "decay_factor": 1.0}, {"mode": "separate"}):
        theirs, plugin = avalanche(EWCPlugin(ewc_lambda=3.0, **mode), setup_of(ONE_HEAD))
        setup = setup_of(ONE_HEAD)
        learner = ewc(setup, strength=3.0)
        for position in (0, 1):
            learn(learner, position)
            torch.testing.assert_close(weights(setup.net), theirs[position])
        last = {name: plugin.importances[1][f"net.{name}"].data for name in theirs[0]}
        if mode["mode"] == "separate":
            last = {name: value + plugin.importances[0][f"net.{name}"].data for name, value in last.items()}
        torch.testing.assert_close(consolidation(learner).importance, last)
    alone = setup_of(ONE_HEAD)
    learn(Sgd(alone), 0, 1)
    assert (
        max(float((value - alone.net.get_parameter(name).detach()).abs().max()) for name, value in theirs[1].items())
        > 0.01
    )


def test_si_walks_the_path_of_avalanches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths and weights agree where the definitions do.

    Theirs halves λ, damps by 1e-7, bounds the importance by 1e-3 and not by 0, and lets the penalty into the path:
    so one without a penalty, and their sum over experiences unfolded into ours.
    """
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.training.plugins import SynapticIntelligencePlugin

    def copied(model: nn.Module, target: Any, excluded: Any) -> None:
        for name, parameter in model.named_parameters():
            target[name].data = parameter.detach().flatten().clone()

    # on the CPU avalanche-lib 0.6 keeps views of the weights, which move along with them: every path is 0
    monkeypatch.setattr(SynapticIntelligencePlugin, "extract_weights", staticmethod(copied))

    theirs, plugin = avalanche(SynapticIntelligencePlugin(si_lambda=0.0), setup_of(ONE_HEAD))
    setup = setup_of(ONE_HEAD)
    learner = Si(setup, strength=0.0, damping=1e-7)
    start, ways = weights(setup.net), []
    for position in (0, 1):
        given = experience(position)
        learner.begin(given)
        for _ in range(SMALL.steps):
            learner.observe(given.train)
        torch.testing.assert_close(weights(setup.net), theirs[position])
        ways.append(
            {name: value / ((theirs[position][name] - start[name]) ** 2 + 1e-7) for name, value in learner.path.items()}
        )
        learner.finish(given)
        start = theirs[position]
    for name in start:
        whole = plugin.syn_data["cum_trajectory"][f"net.{name}"].data.view_as(start[name])
        torch.testing.assert_close(ways[0][name] + ways[1][name], -whole, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(learner.importance[name], ways[0][name].clamp_min(0) + ways[1][name].clamp_min(0))
    # the penalty itself: theirs is half of ours
    anchor, importance = plugin.ewc_data
    other = Blind(setup_of(ONE_HEAD).net)
    loss = plugin.compute_ewc_loss(other, plugin.ewc_data, set(), CPU, lambd=2.0)
    ours = [{n: d[f"net.{n}"].data.view_as(start[n]) for n in start} for d in (anchor, importance)]
    torch.testing.assert_close(loss, distance(other.net, *ours))


@pytest.mark.parametrize("make", [mean_imm, mode_imm], ids=lambda make: make.__name__)
def test_the_average_of_equal_weights_is_what_they_were(make: Any) -> None:
    setup = setup_of()
    learner = make(setup)
    learn(learner, 0, 1, 0, steps=0)
    assert isinstance(learner, Imm)
    assert_same(learner.merged, weights(setup.net))


def test_the_mean_is_that_of_the_nets_and_heads_stay_their_own() -> None:
    setup = setup_of()
    learner, nets = Imm(setup, strength=0.01), []
    for position in (0, 1, 0):
        learn(learner, position)
        nets.append(weights(setup.net))
    for name, value in learner.merged.items():
        if name.startswith("head"):
            expected = torch.cat([nets[2][name][:2], nets[1][name][2:]])
        else:
            expected = torch.stack([net[name] for net in nets]).mean(0)
        torch.testing.assert_close(value, expected)
    given = experience(1).train
    features = F.relu(given.x @ learner.merged["body.1.weight"].T + learner.merged["body.1.bias"])
    logits = features @ learner.merged["head.weight"].T + learner.merged["head.bias"]
    torch.testing.assert_close(learner.predict(given.x, given.task)[:, 2:], logits[:, 2:])
    assert_same(weights(setup.net), nets[2])  # the next experience begins at the net, not at the average


def test_the_mode_weighs_by_the_fishers() -> None:
    setup = setup_of()
    learner, nets, fishers = mode_imm(setup), [], []
    for position in (0, 1):
        learn(learner, position)
        nets.append(weights(setup.net))
        fishers.append(fisher(setup, experience(position).train))
    assert isinstance(learner, Imm)
    for name in ("body.1.weight", "body.1.bias"):
        f = torch.stack([each[name] for each in fishers]) + 1e-12
        expected = (f * torch.stack([net[name] for net in nets])).sum(0) / f.sum(0)
        torch.testing.assert_close(learner.merged[name], expected)


@pytest.mark.parametrize("precision", [0.0, 0.3])
def test_the_mode_of_equal_fishers_is_the_mean(precision: float) -> None:
    def same(setup: Setup, samples: Exemplars) -> Weights:
        return {name: torch.full_like(value, precision) for name, value in weights(setup.net).items()}

    learners = [Imm(setup_of(), strength=0.01), Imm(setup_of(), strength=0.01, measure=same)]
    for learner in learners:
        learn(learner, 0, 1, 0)
    torch.testing.assert_close(learners[0].merged, learners[1].merged)


def test_the_transfer_pulls_towards_the_net_before() -> None:
    moved = []
    for strength in (0.0, 1.0):
        setup = setup_of()
        learner = mean_imm(setup, strength=strength)
        learn(learner, 0)
        before = weights(setup.net)
        learn(learner, 1)
        moved.append(float(distance(setup.net, before)))
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (ewc, {"strength": -1.0}, "ewc: strength: found -1, allowed: 0 or more"),
        (mas, {"samples": -2}, "mas: samples: found -2, allowed: 0 or more"),
        (Si, {"damping": -0.5}, "si: damping: found -0.5, allowed: 0 or more"),
        (online_ewc, {"decay": 1.5}, "online-ewc: decay: found 1.5, allowed: from 0 to 1"),
        (mean_imm, {"strength": -1.0}, "mean-imm: strength: found -1, allowed: 0 or more"),
        (mode_imm, {"samples": -1}, "mode-imm: samples: found -1, allowed: 0 or more"),
    ],
)
def test_impossible_options_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(setup_of(), **options)


@pytest.mark.parametrize("strategy", ["ewc", "online-ewc", "mas", "si", "mean-imm", "mode-imm"])
def test_digits_are_forgotten_less_than_by_fine_tuning(strategy: str, runs: Path) -> None:
    settings = ["stream.setting=task", "optimizer.lr=0.2"]
    plain, ours = (clsim.run("split-digits", name, settings=settings, runs=runs) for name in ("finetune", strategy))
    assert (ours.metrics["forgetting"] or 0) < (plain.metrics["forgetting"] or 0)
    assert not ours.data["diverged"]


@pytest.mark.parametrize("strategy", ["ewc", "online-ewc", "mas", "si", "rwalk"])
def test_a_loss_over_the_experiences_classes_does_not_lower_old_ones(strategy: str, runs: Path) -> None:
    """Over all classes it lowers the logits of old ones on every sample, which no penalty on weights can prevent."""
    own = ["learner.options.among=experience"]
    found = clsim.run("split-digits", strategy, settings=own, runs=runs)
    plain = clsim.run("split-digits", "finetune", runs=runs)
    assert found.accuracy.to_numpy()[-1].mean() > 2 * plain.accuracy.to_numpy()[-1].mean()


@pytest.mark.parametrize("make", [ewc, online_ewc, mas, Si, mean_imm, mode_imm], ids=lambda make: make.__name__)
def test_what_is_saved_is_all_of_it(make: Any, tmp_path: Path) -> None:
    """Through a file after the first experience and on: importances, averages and predictions bit for bit."""
    whole = make(setup_of())
    learn(whole, 0)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed = make(setup_of())
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    given = experience(0).train
    assert_same(resumed.predict(given.x, given.task), whole.predict(given.x, given.task))
    for learner in (whole, resumed):
        learn(learner, 1)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert_same(resumed.predict(given.x, given.task), whole.predict(given.x, given.task))

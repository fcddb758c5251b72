"""PackNet and HAT: each task has a part of the net, and nothing that is learnt later moves it by a bit."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.errors import InputError
from clsim.learners.isolation.gates import Gated
from clsim.learners.isolation.hat import Hat, compensation, hardness
from clsim.learners.isolation.packnet import PackNet, smallest
from clsim.learners.isolation.protection import apply_within
from clsim.learners.sgd import Sgd
from clsim.models import nets, resnet, vgg
from clsim.models.nets import Shape
from clsim.pool.exemplars import Exemplars
from clsim.spec.tables import TrainingSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Learner, Setup
from tests.helpers import assert_same, generator
from tests.increments import CPU, Body, Increments

TASKS = torch.eye(3, dtype=torch.bool).repeat_interleave(2, 1)
"""Three tasks of two classes."""
PIXELS = (1, 6, 6)
OPTIMIZERS: list[dict[str, Any]] = [
    {"lr": 0.05},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "restart": False},
    {"lr": 0.01, "name": "adam", "weight_decay": 0.01},
    {"lr": 0.01, "name": "adamw", "weight_decay": 0.1, "restart": False},
    {"lr": 0.01, "name": "nadam", "weight_decay": 0.01},
]


def mlp(shape: Shape) -> nn.Module:
    return nets.mlp(shape, hidden=(12, 10))


def convolutions(shape: Shape) -> nn.Module:
    """With instance norm, two kinds of pooling, a flattening of several pixels, and a layer behind it."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(4, 4), nn.ReLU(inplace=True), nn.AvgPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 5, 2), nn.ReLU(inplace=True)),
        nn.Flatten(),
        nn.Linear(20, 7),
        nn.ReLU(),
    )


def normalised(shape: Shape) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))


IMAGES = Increments(
    PIXELS,
    TASKS,
    mlp,
    mean=(0.5,),
    std=(0.25,),
    levels=(40, 216, 40),
    samples=40,
    options={"buffer": "none", "epochs": 3, "setting": "task", "lr": 0.05},
)
setup_of, experience = IMAGES.setup, IMAGES.experience


def learn(setup: Setup, learner: Learner, *positions: int) -> None:
    for position in positions:
        given = experience(position)
        learner.begin(given)
        for _ in range(setup.spec.training.epochs):
            for start in range(0, len(given.train), 10):
                for _ in range(setup.spec.training.passes):
                    learner.observe(given.train[start : start + 10])
        learner.finish(given)


def predicted(learner: Learner, position: int) -> Tensor:
    given = experience(position).train
    return learner.predict(given.x, given.task)


def correct(learner: Learner, position: int) -> float:
    return float((predicted(learner, position).argmax(1) == experience(position).train.y).float().mean())


def binary(hat: Hat, position: int, seed: int = 0) -> Tensor:
    """Give a task gates of 0 and 1, as s → ∞ does; returns which are open."""
    is_open = torch.rand(hat.embeddings.shape[1], generator=generator(seed)) < 0.5
    hat.embeddings[position] = torch.where(is_open, 6.0, -6.0)
    return is_open


def state(setup: Setup) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in setup.net.state_dict().items()}


# both


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("body", [mlp, convolutions, normalised], ids=lambda b: b.__name__)
@pytest.mark.parametrize("make", [PackNet, Hat], ids=lambda m: m.__name__)
def test_what_is_learnt_later_changes_no_earlier_logit_by_a_bit(
    make: Any, body: Body, optimizer: dict[str, Any]
) -> None:
    setup = setup_of(body=body, **optimizer)
    learner = make(setup)
    before: list[Tensor] = []
    for position in range(3):
        learn(setup, learner, position)
        if isinstance(learner, Hat):  # at s → ∞
            binary(learner, position, seed=position)
            learner.used = torch.maximum(learner.used, learner.gates(position))
        before.append(predicted(learner, position))
        for earlier in range(position):
            assert torch.equal(predicted(learner, earlier), before[earlier])
    mixed = [experience(position).train for position in range(3)]
    x, task = (torch.stack([getattr(m, name) for m in mixed], 1).flatten(0, 1) for name in ("x", "task"))
    together = learner.predict(x, task).unflatten(0, (-1, 3))  # samples of all tasks in turn
    for position in range(3):
        torch.testing.assert_close(together[:, position], before[position])


@pytest.mark.parametrize("optimizer", OPTIMIZERS[:2], ids=["plain", "momentum"])
def test_fine_tuning_does_change_them(optimizer: dict[str, Any]) -> None:
    setup = setup_of(**optimizer)
    learner = Sgd(setup)
    learn(setup, learner, 0)
    before = predicted(learner, 0)
    learn(setup, learner, 1)
    assert not torch.equal(predicted(learner, 0), before)


def frugal(setup: Setup) -> Hat:
    """With a price for a net of 22 units: each of them is dear where there are so few."""
    return Hat(setup, c=0.5)


@pytest.mark.parametrize("make", [PackNet, frugal], ids=lambda m: m.__name__)
def test_every_task_is_learnt(make: Any) -> None:
    setup = setup_of(epochs=20, momentum=0.9)
    learner = make(setup)
    learn(setup, learner, 0, 1, 2)
    assert [correct(learner, position) for position in range(3)] == [1.0] * 3


@pytest.mark.parametrize("make", [PackNet, Hat], ids=lambda m: m.__name__)
def test_statistics_of_batch_norm_are_those_of_the_first_task(make: Any) -> None:
    setup = setup_of(body=normalised)
    learner = make(setup)
    first = state(setup)["body.2.running_mean"]
    learn(setup, learner, 0)
    learnt = state(setup)["body.2.running_mean"]
    assert not torch.equal(first, learnt)
    learn(setup, learner, 1)
    assert torch.equal(state(setup)["body.2.running_mean"], learnt)


@pytest.mark.parametrize("make", [PackNet, Hat], ids=lambda m: m.__name__)
@pytest.mark.parametrize("setting", ["class", "domain"])
def test_the_task_must_be_known(make: Any, setting: str) -> None:
    with pytest.raises(InputError, match=rf"^stream\.setting: found '{setting}', but .* allowed: task$"):
        make(setup_of(setting=setting))


@pytest.mark.parametrize("make", [PackNet, frugal], ids=lambda m: m.__name__)
def test_experiences_that_hold_several_tasks_are_learnt_as_one(make: Any) -> None:
    """As cumulative training presents them: what was learnt last predicts all its tasks."""
    setup = setup_of(epochs=20, momentum=0.9)
    learner = make(setup)
    learn(setup, learner, 0)
    parts = [experience(position).train for position in (0, 1)]
    columns = [torch.stack([getattr(p, n) for p in parts], 1).flatten(0, 1) for n in ("x", "y", "task", "key", "index")]
    both = Experience(1, (0, 1, 2, 3), Exemplars(*columns))
    learner.begin(both)
    for _ in range(20):
        for start in range(0, 80, 10):
            learner.observe(both.train[start : start + 10])
    learner.finish(both)
    logits = predicted(learner, 0), predicted(learner, 1)
    learn(setup, learner, 2)
    for position in (0, 1):
        assert correct(learner, position) == 1
        torch.testing.assert_close(predicted(learner, position), logits[position], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [PackNet, Hat], ids=lambda m: m.__name__)
def test_what_is_saved_is_all_of_it(make: Any, tmp_path: Path) -> None:
    setup = setup_of(momentum=0.9, restart=False)
    whole = make(setup)
    learn(setup, whole, 0, 1)
    torch.save({"learner": whole.state_dict(), "randomness": setup.randomness.state_dict()}, tmp_path / "state.pt")
    again = setup_of(momentum=0.9, restart=False)
    resumed = make(again)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(saved["learner"])
    again.randomness.load_state_dict(saved["randomness"])
    for position in range(3):
        assert torch.equal(predicted(resumed, position), predicted(whole, position))
    learn(setup, whole, 2)
    learn(again, resumed, 2)
    assert_same(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize("strategy", ["packnet", "hat"])
def test_digits_are_not_forgotten_at_all(strategy: str, runs: Path) -> None:
    settings = ["stream.setting=task", "optimizer.lr=0.2", "training.epochs=3"]
    plain = clsim.run("split-digits", "finetune", settings=settings, runs=runs)
    if strategy == "packnet":
        settings.append("learner.options.retrain_epochs=2")
    ours = clsim.run("split-digits", strategy, settings=settings, runs=runs)
    assert (plain.metrics["forgetting"] or 0) > 0.02
    assert abs(ours.metrics["forgetting"] or 0) < 0.005
    assert (ours.metrics["accuracy"] or 0) > (plain.metrics["accuracy"] or 0)


@pytest.mark.parametrize("strategy", ["packnet", "hat"])
@pytest.mark.parametrize("presentation", ["joint", "cumulative"])
def test_every_presentation_runs(strategy: str, presentation: str, runs: Path) -> None:
    settings = ["stream.setting=task", "training.epochs=2", f"stream.presentation={presentation}"]
    if strategy == "packnet":
        settings.append("learner.options.retrain_epochs=1")
    record = clsim.run("split-digits", strategy, settings=settings, runs=runs)
    assert (record.metrics["accuracy"] or 0) > 0.9


@pytest.mark.parametrize(("strategy", "decayed"), [("packnet", {"prune"}), ("hat", {"s_max", "c"})])
def test_the_controller_knows_what_to_decay_and_nothing_is_forgotten(
    strategy: str, decayed: set[str], runs: Path
) -> None:
    settings = ["stream.setting=task", "stream.experiences=2", "stream.validation=0.2", "data.per_class=60"]
    settings += ["training.epochs=2", "controller.name=stability-decay", "controller.rates=[0.1]"]
    settings += ["controller.first_rates=[0.1]", "controller.decays=2", "controller.margin=0.0"]
    record = clsim.run("split-digits", strategy, settings=settings, runs=runs)
    assert set(record.data["spec"]["controller"]["decay"]) == decayed
    assert abs(record.metrics["forgetting"] or 0) < 0.02
    assert (record.metrics["accuracy"] or 0) > 0.7


# a step of which each weight takes its share


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_share_of_the_step_is_what_a_share_of_the_gradient_gives_under_sgd(momentum: float) -> None:
    setup, other = (setup_of(momentum=momentum) for _ in range(2))
    rng = generator(4)
    shares = {name: torch.rand(p.shape, generator=rng) for name, p in setup.net.named_parameters()}
    ours, theirs = Sgd(setup), Sgd(other)
    given = experience(0).train
    for _ in range(5):
        ours.backward(ours.prepare(given, None))
        apply_within(ours, setup.net, shares)
        theirs.backward(theirs.prepare(given, None))
        for name, p in other.net.named_parameters():
            assert p.grad is not None
            p.grad *= shares[name]
        theirs.apply()
    torch.testing.assert_close(dict(setup.net.named_parameters()), dict(other.net.named_parameters()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_share_0_stays_and_share_1_takes_the_whole_step_bit_for_bit(optimizer: dict[str, Any]) -> None:
    setup, other = setup_of(**optimizer), setup_of(**optimizer)
    shares = {"body.1.weight": (torch.arange(12) % 2).float()[:, None], "body.3.bias": torch.ones(10)}
    first = state(setup)["body.1.weight"]
    ours, theirs = Sgd(setup), Sgd(other)
    given = experience(0).train
    ours.backward(ours.prepare(given, None))
    apply_within(ours, setup.net, shares)
    theirs.step(given, None)
    moved = state(other)["body.1.weight"]
    assert torch.equal(state(setup)["body.1.weight"][0::2], first[0::2])
    assert torch.equal(state(setup)["body.1.weight"][1::2], moved[1::2])
    assert not torch.equal(moved[0::2], first[0::2])
    assert torch.equal(state(setup)["body.3.bias"], state(other)["body.3.bias"])


# PackNet


@pytest.mark.parametrize("prune", [0.0, 0.5, 0.9])
def test_each_task_takes_its_share_of_what_is_free(prune: float) -> None:
    setup = setup_of(body=convolutions, epochs=1)
    learner = PackNet(setup, prune=prune, retrain_epochs=1)
    free = {name: owner.numel() for name, owner in learner.owner.items()}
    assert set(free) == {"body.0.0.weight", "body.1.0.weight", "body.3.weight"}
    for position in range(3):
        learn(setup, learner, position)
        for name, owner in learner.owner.items():
            left = round(prune * free[name])
            assert int((owner == position + 1).sum()) == free[name] - left
            assert int((owner == 0).sum()) == left
            free[name] = left
            weight = setup.net.get_parameter(name)
            assert not weight[owner == 0].any()
        mine = [setup.net.get_parameter(name)[owner == position + 1] for name, owner in learner.owner.items()]
        assert torch.cat(mine).any() == (position == 0 or prune > 0)  # it has learnt with what was 0
    assert all(owner.dtype == torch.uint8 for owner in learner.state_dict()["owner"].values())


def test_the_smallest_weights_are_pruned() -> None:
    setup = setup_of(epochs=2)
    learner = PackNet(setup, prune=0.6, retrain_epochs=0)
    for position in range(2):
        given = experience(position)
        learner.begin(given)
        for _ in range(5):
            learner.observe(given.train)
        before = {name: setup.net.get_parameter(name).detach().clone() for name in learner.owner}
        free = {name: owner == 0 for name, owner in learner.owner.items()}
        assert learner.finish(given) == []
        for name, owner in learner.owner.items():
            magnitude = before[name].abs()
            pruned, kept = magnitude[owner == 0], magnitude[owner == position + 1]
            assert pruned.max() <= kept.min()
            assert torch.equal((owner == 0) | (owner == position + 1), free[name])
            unmoved = setup.net.get_parameter(name)[owner > 0]
            assert torch.equal(unmoved, before[name][owner > 0])


def test_equal_weights_are_pruned_to_the_exact_number() -> None:
    chosen = smallest(torch.ones(4, 5), torch.arange(20).view(4, 5) > 3, 0.5)
    assert int(chosen.sum()) == 8
    assert not chosen.flatten()[:4].any()


def test_retraining_steps_along_the_gradient_of_the_pruned_net() -> None:
    """One batch, one epoch: θ − 0.1·lr·g of the kept weights, with g at the pruned net; all others stay."""
    setup, lr = setup_of(lr=0.5), 0.5
    setup = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, training=TrainingSpec(batch_size=40)))
    pruned, given = copy.deepcopy(setup), experience(0)
    learner, without = PackNet(setup, retrain_epochs=1), PackNet(pruned, retrain_epochs=0)
    for each in (learner, without):
        each.begin(given)
        for _ in range(4):
            each.observe(given.train)
    without.finish(given)
    (terms,) = learner.finish(given)
    net = pruned.net
    loss = F.cross_entropy(net(setup.transform.plain(given.train.x), given.train.task), given.train.y)
    torch.testing.assert_close(terms["new"], loss.detach())
    for (name, p), slope in zip(net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        owner = learner.owner.get(name)
        step = 0.1 * lr * slope * (1 if owner is None else owner == 1)
        torch.testing.assert_close(setup.net.get_parameter(name), p - step)


def test_a_task_is_predicted_by_its_own_and_earlier_weights() -> None:
    setup = setup_of(epochs=4)
    learner = PackNet(setup, prune=0.5)
    learn(setup, learner, 0, 1, 2)
    for position in range(3):
        net = copy.deepcopy(setup.net).eval()
        with torch.no_grad():
            for name, owner in learner.owner.items():
                net.get_parameter(name)[(owner == 0) | (owner > position + 1)] = 0
            given = experience(position).train
            expected = net(setup.transform.plain(given.x), given.task)
            whole = setup.net(setup.transform.plain(given.x), given.task)
        assert torch.equal(predicted(learner, position), expected)
        assert torch.equal(expected, whole) == (position == 2)


def test_biases_and_norms_are_those_of_the_first_task() -> None:
    setup = setup_of(body=normalised, momentum=0.9, weight_decay=0.1)
    learner = PackNet(setup)
    first = state(setup)
    learn(setup, learner, 0)
    learnt = state(setup)
    learn(setup, learner, 1)
    now = state(setup)
    for name in ("body.1.bias", "body.2.weight", "body.2.bias", "body.4.bias"):
        assert not torch.equal(first[name], learnt[name])
        assert torch.equal(learnt[name], now[name])
    assert torch.equal(learnt["head.bias"][:2], now["head.bias"][:2])
    assert not torch.equal(learnt["head.bias"][2:4], now["head.bias"][2:4])
    assert torch.equal(first["head.weight"][4:], now["head.weight"][4:])  # of the task that has not come


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": 1.0}, "packnet: prune: found 1, allowed: a share from 0 to below 1"),
        ({"prune": -0.1}, "packnet: prune: found -0.1"),
        ({"prune": float("nan")}, "packnet: prune: found nan"),
        ({"retrain_epochs": -1}, "packnet: retrain_epochs: found -1, allowed: 0 and more"),
        ({"retrain_rate": 0.0}, "packnet: retrain_rate: found 0, allowed: a number above 0"),
    ],
)
def test_packnet_refuses_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackNet(setup_of(), **options)


def test_a_byte_names_255_owners() -> None:
    setup = setup_of()
    setup.net.visible = torch.ones(256, 6, dtype=torch.bool)
    with pytest.raises(InputError, match="packnet: found a stream of 256 tasks, allowed: at most 255"):
        PackNet(setup)


# HAT


def scaled(net: nets.Net, gates: list[Tensor]) -> nets.Net:
    """A plain net that does what the gated one does: what leaves a unit is scaled in the weights that it goes to.

    The activations are ReLUs and the pooling is homogeneous, so that a gate before them or after them is the same.
    """
    net = copy.deepcopy(net).eval()
    layers = [m for m in net.body.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    with torch.no_grad():
        for following, gate in zip([*layers[1:], net.head], gates, strict=True):
            columns = gate.repeat_interleave(following.weight.shape[1] // len(gate))
            following.weight *= columns.view(1, -1, *[1] * (following.weight.ndim - 2))
    return net


@pytest.mark.parametrize(
    "body",
    [mlp, convolutions, nets.convnet3, vgg.vgg_small, lambda shape: nets.mlp(shape, dropout=0.3)],
    ids=["mlp", "convolutions", "convnet3", "vgg-small", "dropout"],
)
def test_a_gate_scales_what_leaves_a_unit(body: Body) -> None:
    net = nets.build(body, (1, 16, 16) if body is nets.convnet3 else PIXELS, TASKS, 0, CPU).eval()
    gated = Gated(net.body, "mine")
    shape = (7, 1, 16, 16) if body is nets.convnet3 else (7, *PIXELS)
    x = torch.randn(shape, generator=generator(1))
    gates = torch.rand(7, sum(gated.units), generator=generator(2))
    with torch.no_grad():
        each = net.head(gated.features(x, gates))
        for row in range(7):
            expected = scaled(net, list(gates[row].split(gated.units)))
            alone = net.head(gated.features(x[row : row + 1], gates[row]))
            torch.testing.assert_close(alone, expected.head(expected.body(x[row : row + 1])), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(each[row : row + 1], alone, atol=1e-5, rtol=1e-4)
        assert torch.equal(gated.features(x, torch.ones(sum(gated.units))), net.features(x))


def test_shares_are_those_of_the_equation_weight_by_weight() -> None:
    net = nets.build(convolutions, PIXELS, TASKS, 0, CPU)
    gated = Gated(net.body, "mine")
    assert gated.units == [4, 5, 7]
    used = torch.rand(16, generator=generator(3))
    first, second, third = used.split(gated.units)
    shares = {name: s.expand_as(net.body.get_parameter(name)) for name, s in gated.shares(used).items()}
    assert shares.keys() == dict(net.body.named_parameters()).keys()
    for name in ("0.0.bias", "0.1.weight", "0.1.bias"):
        assert torch.equal(shares[name], 1 - first)
    assert torch.equal(shares["1.0.bias"], 1 - second)
    assert torch.equal(shares["3.bias"], 1 - third)
    for out in range(4):
        assert (shares["0.0.weight"][out] == 1 - first[out]).all()  # pixels have no gate
    for out in range(5):
        for into in range(4):
            assert (shares["1.0.weight"][out, into] == 1 - min(second[out], first[into])).all()
    for out in range(7):
        for into in range(20):  # four pixels of each of five channels
            assert shares["3.weight"][out, into] == 1 - min(third[out], second[into // 4])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("body", [mlp, convolutions], ids=lambda b: b.__name__)
def test_with_hard_gates_no_weight_moves_that_earlier_tasks_gate(body: Body, optimizer: dict[str, Any]) -> None:
    setup = setup_of(body=body, **optimizer)
    hat = Hat(setup)
    learn(setup, hat, 0)
    is_open = binary(hat, 0)
    hat.used = hat.gates(0)
    assert torch.equal(hat.used, is_open.float())  # exactly 0 and 1 in float32
    before = state(setup)
    binary(hat, 1, seed=1)
    learn(setup, hat, 1)
    after = state(setup)
    parts, layers = list(is_open.split(Gated(setup.net.body, setup.spec.model.name).units)), []
    for name, module in setup.net.body.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            layers.append((f"body.{name}", module))
    for i, (name, module) in enumerate(layers):
        held = parts[i][:, None].expand(-1, module.weight.shape[1])
        if i:
            held = held & parts[i - 1].repeat_interleave(module.weight.shape[1] // len(parts[i - 1]))
        same = (
            (before[f"{name}.weight"] == after[f"{name}.weight"]).flatten(2).all(2)
            if module.weight.ndim > 2
            else (before[f"{name}.weight"] == after[f"{name}.weight"])
        )
        assert held.any()
        assert same[held].all()
        assert not same[~held].all()
        assert (before[f"{name}.bias"] == after[f"{name}.bias"])[parts[i]].all()
    assert torch.equal(before["head.weight"][:2], after["head.weight"][:2])
    assert torch.equal(before["head.bias"][:2], after["head.bias"][:2])


def test_the_price_is_that_of_units_that_no_earlier_task_uses() -> None:
    setup = setup_of()
    hat = Hat(setup, s_max=800.0, c=0.75)
    given = experience(0)
    hat.begin(given)
    s = 1 / 800
    a = torch.sigmoid(s * hat.embeddings[0])
    torch.testing.assert_close(hat.observe(given.train)["attention"], 0.75 * a.mean())
    hat.used = torch.rand(22, generator=generator(1))
    hat.begin(experience(1))
    a = torch.sigmoid(s * hat.embeddings[1])
    expected = 0.75 * (a * (1 - hat.used)).sum() / (1 - hat.used).sum()
    torch.testing.assert_close(hat.observe(experience(1).train)["attention"], expected)
    hat.used = torch.ones(22)  # nothing is left to be had
    hat.begin(experience(2))
    assert hat.observe(experience(2).train)["attention"] == 0


@pytest.mark.parametrize("batch", range(4))
def test_an_embedding_steps_as_if_its_gate_were_as_hard_from_the_start(batch: int) -> None:
    """Δe = −lr · ∂L/∂a · s_max / (2(cosh e + 1)), whatever s is: σ′(se) = 1 / (2(cosh(se) + 1)) cancels."""
    s_max, lr = 4.0, 0.01
    setup = setup_of(lr=lr)
    hat = Hat(setup, s_max=s_max, c=2.5)
    given = experience(0)
    hat.begin(given)
    for i in range(batch):
        hat.observe(given.train[10 * i : 10 * i + 10])
    e, net, rows = hat.embeddings[0].clone(), copy.deepcopy(setup.net), given.train[10 * batch : 10 * batch + 10]
    a = torch.sigmoid(hardness(batch, 4, s_max) * e).requires_grad_()
    logits = net.logits(Gated(net.body, "mine").features(setup.transform.plain(rows.x), a), rows.task)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, rows.y) + 2.5 * a.mean(), a)
    hat.observe(rows)
    torch.testing.assert_close(hat.embeddings[0], e - lr * slope * s_max / (2 * (torch.cosh(e) + 1)))


def test_the_compensation_stays_finite() -> None:
    e = torch.linspace(-6, 6, 101)
    for s in (1 / 800, 1.0, 800.0):
        assert compensation(e, s, 800.0).isfinite().all()
        sigmoid = torch.sigmoid(s * e.double())
        annealed = s * sigmoid * (1 - sigmoid) * compensation(e.double(), s, 800.0)
        inside = (s * e).abs() < 30
        torch.testing.assert_close(annealed[inside], (800 / (2 * (torch.cosh(e.double()) + 1)))[inside])


@pytest.mark.parametrize("passes", [1, 3])
def test_gates_harden_within_each_epoch(passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_of(epochs=2, passes=passes)
    hat, seen = Hat(setup, s_max=800.0), []
    monkeypatch.setattr("clsim.learners.isolation.hat.hardness", lambda *a: seen.append(hardness(*a)) or seen[-1])
    learn(setup, hat, 0)
    once = [1 / 800 + (800 - 1 / 800) * b / 3 for b in range(4)]
    assert seen == pytest.approx([s for s in once for _ in range(passes)] * 2)


def test_embeddings_stay_within_6_and_weight_decay_does_not_pull_them() -> None:
    setup = setup_of(lr=3.0, weight_decay=0.5)
    hat = Hat(setup, c=1e4)
    learn(setup, hat, 0)
    assert hat.embeddings[0].min() == -6
    first = Hat(setup_of()).embeddings
    assert torch.equal(hat.embeddings[1:], first[1:])  # of tasks that have not come
    assert first.min() >= 0
    assert first.max() <= 2


def test_a_task_keeps_the_hardness_that_it_was_learnt_with() -> None:
    """As when a controller lowers s_max from one task to the next."""
    setup = setup_of()
    hard = Hat(setup, s_max=50.0)
    learn(setup, hard, 0)
    soft = Hat(setup, s_max=2.0)
    soft.load_state_dict(hard.state_dict())
    assert torch.equal(predicted(soft, 0), predicted(hard, 0))
    learn(setup, soft, 1)
    assert torch.equal(soft.gates(0), hard.gates(0))
    torch.testing.assert_close(soft.gates(1), torch.sigmoid(2 * soft.embeddings[1]))


def test_a_higher_price_leaves_more_units_free() -> None:
    used = []
    for c in (0.0, 0.5, 2.5):
        setup = setup_of(epochs=10)
        hat = Hat(setup, c=c)
        learn(setup, hat, 0)
        used.append(float(hat.used.sum()))
    assert used[0] > used[1] > used[2]


class Skips(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + super().forward(x)


TWICE = nn.Linear(6, 6)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (lambda shape: resnet.slim_resnet18(shape, width=2), "Block"),
        (lambda shape: Skips(nn.Flatten(), nn.Linear(36, 36)), "Skips"),
        (lambda shape: nn.Flatten(), "no hidden layer"),
        (lambda shape: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()), "GroupNorm of 2 groups"),
        (lambda shape: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten()), "of 2 groups"),
        (lambda shape: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 4)), "BatchNorm2d before"),
        (lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(36, 6), TWICE, TWICE), "a layer that occurs twice"),
    ],
    ids=["resnet", "derived", "linear", "groups", "grouped", "norm-first", "twice"],
)
def test_a_net_without_gates_is_refused_in_one_line(body: Body, found: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.name: found 'mlp' with .*{found}.*; allowed: mlp, convnet3, "):
        Hat(setup_of(body=body))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s_max": 0.0}, "hat: s_max: found 0, allowed: a number above 0"),
        ({"s_max": float("inf")}, "hat: s_max: found inf"),
        ({"c": -1.0}, "hat: c: found -1, allowed: 0 and more"),
        ({"c": float("nan")}, "hat: c: found nan"),
    ],
)
def test_hat_refuses_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Hat(setup_of(), **options)

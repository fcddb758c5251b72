"""LwF, EBLL, LwM, LFL: what the old net says, sees and attends to is kept, and what proves it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.compat import import_torchvision
from clsim.errors import InputError
from clsim.learners.regularisation.distilling import ebll, lwf, lwm
from clsim.learners.regularisation.lfl import Lfl
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.models.nets import convnet3
from clsim.models.resnet import slim_resnet18
from clsim.objectives.attention import attention
from clsim.objectives.codes import Autoencoder, Encoded
from clsim.objectives.distillation import OldLogits
from clsim.pool.exemplars import Exemplars
from clsim.spec.options import bind
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup
from tests.helpers import assert_same, generator
from tests.increments import CPU, Blind, Increments, hidden_layers

TASKS = torch.tensor([[c // 2 == task for c in range(6)] for task in range(3)])
ONE_HEAD = torch.ones(3, 6, dtype=torch.bool)
SHAPE = (2, 4, 4)


def convolutional(shape: nets.Shape) -> nn.Module:
    """Smooth, so that finite differences agree."""
    return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


IMAGES = Increments(SHAPE, TASKS, hidden_layers(12), mean=(0.4, 0.5), std=(0.3, 0.2), levels=(30, 200, 30), steps=15)
setup_of, experience, learn = IMAGES.setup, IMAGES.experience, IMAGES.train


def batch_of(setup: Setup, position: int) -> Batch:
    train = experience(position).train
    return Batch(setup.transform.plain(train.x), train.y, train.task, len(train))


def state(setup: Setup) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in setup.net.state_dict().items()}


def model_for(make: Any) -> Any:
    return convolutional if make is lwm else IMAGES.body


TERMS = {lwf: ["distillation"], ebll: ["distillation", "code"], lwm: ["distillation", "attention"], Lfl: ["features"]}
STRENGTHS = {
    lwf: ["strength"],
    ebll: ["strength", "code_strength"],
    lwm: ["strength", "attention_strength"],
    Lfl: ["strength"],
}
each = pytest.mark.parametrize("make", TERMS, ids=lambda make: make.__name__)
settings = pytest.mark.parametrize("visible", [TASKS, ONE_HEAD], ids=["task", "class"])


@each
@settings
def test_every_term_and_its_gradient_are_zero_at_the_old_net(make: Any, visible: Tensor) -> None:
    """And after a step neither is."""
    setup = setup_of(visible, body=model_for(make))
    learner = make(setup)
    learn(learner, 0, 1)
    given = experience(2)
    learner.begin(given)
    parameters = list(setup.net.parameters())
    for away in (False, True):
        terms = learner.objective(setup.net, batch_of(setup, 2))
        assert terms.keys() == {"new", *TERMS[make]}
        for name in TERMS[make]:
            slopes = torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True)
            steepest = max(float(slope.abs().max()) for slope in slopes if slope is not None)
            assert (float(terms[name].detach()) > 0) is away
            assert steepest > 1e-5 if away else steepest < 1e-7
        learner.observe(given.train)


@each
@settings
def test_without_strength_it_is_fine_tuning_bit_for_bit(make: Any, visible: Tensor) -> None:
    options = {"momentum": 0.0 if make is Lfl else 0.9}  # frozen rows would move by momentum
    model = model_for(make)
    plain = setup_of(visible, body=model, **options)
    learn(Sgd(plain), 0, 1, 2)
    for strength in (0.0, 0.5):
        setup = setup_of(visible, body=model, **options)
        learn(make(setup, **dict.fromkeys(STRENGTHS[make], strength)), 0, 1, 2)
        same = all(torch.equal(a, b) for a, b in zip(state(plain).values(), state(setup).values(), strict=True))
        assert same is (strength == 0 and not (make is Lfl and visible is ONE_HEAD))  # where old rows get gradients


@each
def test_what_is_saved_is_all_of_it(make: Any, tmp_path: Path) -> None:
    """Through a file after the second experience and on."""
    whole = make(setup_of(body=model_for(make)))
    learn(whole, 0, 1)
    torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed = make(setup_of(body=model_for(make)))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for learner in (whole, resumed):
        learn(learner, 2)
    assert_same(resumed.state_dict(), whole.state_dict())


@each
def test_a_snapshot_stays_as_it_was(make: Any) -> None:
    """Its lists and the old net in it: only the net that learns, which a snapshot has to copy, moves."""
    learner = make(setup_of(body=model_for(make)))
    learn(learner, 0)
    kept = learner.state_dict()["objective"]
    before = torch.cat([t.flatten().double() for t in _tensors(kept)])
    learn(learner, 1)
    assert torch.equal(torch.cat([t.flatten().double() for t in _tensors(kept)]), before)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [tensor for part in parts for tensor in _tensors(part)]


@settings
def test_groups_are_the_old_tasks_or_all_old_classes(visible: Tensor) -> None:
    setup = setup_of(visible)
    teacher = OldLogits(setup)
    for position in (0, 2, 0):
        teacher.learn(experience(position))
    expected = [[0, 1], [4, 5]] if visible is TASKS else [[0, 1, 4, 5]]
    assert [group.tolist() for group in teacher.groups] == expected


@settings
def test_the_distillation_is_its_formula(visible: Tensor) -> None:
    """Entropies and cross-entropies written out, summed over groups; logits not learnt yet do not matter."""
    setup = setup_of(visible)
    learner = lwf(setup, strength=3.0, temperature=2.0)
    assert isinstance(learner, Sgd)
    learn(learner, 0, 1)
    old = setup.fresh(1)
    old.load_state_dict(state(setup))
    learner.begin(experience(2))
    for _ in range(5):
        learner.observe(experience(2).train)
    with torch.no_grad():
        setup.net.head.bias[4:] += 100.0
        batch = batch_of(setup, 2)
        expected = 0.0
        for group in [[0, 1], [2, 3]] if visible is TASKS else [[0, 1, 2, 3]]:
            p = (old.head(old.features(batch.x))[:, group] / 2).softmax(1).double()
            q = (setup.net.head(setup.net.features(batch.x))[:, group] / 2).softmax(1).double()
            expected += float(3 * (p * (p / q).log()).sum(1).mean())
        assert expected > 1e-3
        assert float(learner.objective(setup.net, batch)["distillation"]) == pytest.approx(expected, rel=1e-4)


def test_replayed_samples_are_learnt_and_not_distilled() -> None:
    setup = setup_of()
    learner = lwf(setup)
    assert isinstance(learner, Sgd)
    learn(learner, 0)
    with torch.no_grad():
        setup.net.head.weight += 0.3 * torch.randn(6, 12, generator=generator())
    new, old = batch_of(setup, 1), batch_of(setup, 0)
    weight = torch.rand(48, generator=generator(1))
    joint = Batch(torch.cat([new.x, old.x]), torch.cat([new.y, old.y]), torch.cat([new.task, old.task]), 24, weight)
    alone = dataclasses.replace(new, weight=weight[:24])
    terms = learner.objective(setup.net, joint)
    assert terms.keys() == {"new", "memory", "distillation"}
    assert_same(terms["distillation"], learner.objective(setup.net, alone)["distillation"])
    assert not torch.equal(terms["distillation"], learner.objective(setup.net, new)["distillation"])


@settings
def test_lwf_takes_the_steps_of_avalanches(visible: Tensor) -> None:
    """Its plugin around plain gradient descent on the same whole batches; the definitions are the same.

    Theirs too is a KL at T without T², summed over old heads, or over all old classes where there is one head. Ours
    differs in one thing that this net has not: their old net stays in train mode.
    """
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.models import MultiTaskModule
    from avalanche.training.plugins import LwFPlugin

    class PerTask(MultiTaskModule):
        def __init__(self, net: nets.Net) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, task_labels: Any) -> Any:
            if task_labels is not None:
                return self.net(x, task_labels)
            return {task: self.net(x, torch.full((len(x),), task)) for task in range(3)}

    theirs = setup_of(visible, lr=0.2)
    model: Any = PerTask(theirs.net) if visible is TASKS else Blind(theirs.net)
    optimizer, plugin = torch.optim.SGD(model.parameters(), 0.2), LwFPlugin(alpha=1.5, temperature=2.0)
    ours = setup_of(visible, lr=0.2)
    learner = lwf(ours, strength=1.5)
    for position in (0, 1, 2):
        batch, train = batch_of(theirs, position), experience(position).train
        for _ in range(15):
            optimizer.zero_grad()
            out = model(batch.x, batch.task) if visible is TASKS else model(batch.x)
            around: Any = SimpleNamespace(
                model=model, mb_x=batch.x, mb_output=out, loss=F.cross_entropy(out, batch.y), experience=None
            )
            plugin.before_backward(around)
            around.loss.backward()
            optimizer.step()
        label = position if visible is TASKS else 0
        targets = SimpleNamespace(targets=SimpleNamespace(uniques=set(train.y.tolist())))
        around.experience = SimpleNamespace(
            dataset=SimpleNamespace(targets_task_labels=SimpleNamespace(uniques={label}), task_set={label: targets})
        )
        plugin.after_training_exp(around)
        learn(learner, position)
        torch.testing.assert_close(state(ours), state(theirs))
    alone = setup_of(visible, lr=0.2)
    learn(Sgd(alone), 0, 1, 2)
    assert (
        max(float((a - b).abs().max()) for a, b in zip(state(alone).values(), state(ours).values(), strict=True)) > 0.01
    )


@pytest.mark.parametrize("setting", ["task", "class"])
def test_lwf_ends_where_avalanches_does_on_digits(setting: str, runs: Path) -> None:
    """Through the bridge, on whole batches, so that the order in which they are drawn does not matter."""
    chosen = [f"stream.setting={setting}", "training.batch_size=2000", "training.epochs=20", "optimizer.lr=0.5"]
    alpha = ["learner.options.alpha=1.0", "learner.options.temperature=2.0"]
    among = ["learner.options.among=all"]  # Avalanche's cross-entropy ranges over the whole head
    ours = clsim.run("split-digits", "lwf", settings=[*chosen, *among], runs=runs).accuracy
    theirs = clsim.run("split-digits", "avalanche:LwF", settings=[*chosen, *alpha], runs=runs).accuracy
    assert np.abs(ours.to_numpy() - theirs.to_numpy()).max() < 0.015  # one test image of 71


@pytest.mark.parametrize("make", [lwf, ebll, lwm], ids=lambda make: make.__name__)
def test_the_new_task_loss_leaves_old_logits_to_the_distillation(make: Any) -> None:
    """At the old net the other terms have no gradient: the old classes' rows stay, unless exemplars hold them up."""
    for options, among, moves in (
        ({"setting": "class"}, None, False),
        ({"setting": "class"}, "all", True),
        ({"setting": "class", "buffer": "random", "capacity": 6}, None, True),
    ):
        setup = setup_of(ONE_HEAD, body=model_for(make), **options)
        learner = make(setup, among=among)
        learn(learner, 0)
        learner.begin(experience(1))
        before = setup.net.head.bias.detach().clone()
        learner.observe(experience(1).train)
        assert bool((setup.net.head.bias[:2] != before[:2]).any()) is moves
        assert (setup.net.head.bias[2:4] != before[2:4]).all()


@pytest.mark.parametrize("strategy", ["lwf", "ebll"])
def test_old_digits_are_still_predicted_without_a_memory(strategy: str, runs: Path) -> None:
    """With a cross-entropy over all logits it is fine-tuning: no sample is predicted as an old class."""
    given, ruined = (
        clsim.run("split-digits", strategy, settings=among, runs=runs) for among in ([], ["learner.options.among=all"])
    )
    assert (ruined.accuracy.to_numpy()[-1, :-1] == 0).all()
    assert given.accuracy.to_numpy()[-1].mean() > 0.45


def test_lfl_draws_features_as_avalanche_does() -> None:
    """Theirs is a mean over the features too, ours half of the sum: their λ is ours times half of the width."""
    import_torchvision()  # before Avalanche, which imports it too
    from avalanche.training.plugins import LFLPlugin

    class Featured(Blind):
        def get_features(self, x: Tensor) -> Tensor:
            return self.net.features(x)

    setup = setup_of()
    learner = Lfl(setup, strength=0.7)
    learn(learner, 0)
    plugin, old = LFLPlugin(0.0), setup.fresh(1)
    old.load_state_dict(state(setup))
    plugin.prev_model = Featured(old)
    learner.begin(experience(1))
    for _ in range(3):
        learner.observe(experience(1).train)
    batch = batch_of(setup, 1)
    found = learner.objective(setup.net, batch)["features"].detach()
    torch.testing.assert_close(found, plugin.penalty(batch.x, Featured(setup.net), 0.7 * 12 / 2).detach())
    assert found > 0


@settings
def test_lfl_freezes_the_old_rows_whatever_the_optimizer_does(visible: Tensor) -> None:
    setup = setup_of(visible, momentum=0.9, weight_decay=0.1, restart=False)
    learner = Lfl(setup)
    learn(learner, 0)
    before = state(setup)
    learn(learner, 1)
    after = state(setup)
    for name in ("head.weight", "head.bias"):
        assert torch.equal(after[name][:2], before[name][:2])
        assert not torch.equal(after[name][2:4], before[name][2:4])


def encoded(learner: Any) -> Encoded:
    assert isinstance(learner.objective, Encoded)
    return learner.objective


def test_the_code_term_is_its_formula() -> None:
    setup = setup_of()
    learner = ebll(setup, code_strength=2.0, autoencoder=Autoencoder(code=4))
    learn(learner, 0, 1)
    old = setup.fresh(1)
    old.load_state_dict(state(setup))
    learner.begin(experience(2))
    learner.observe(experience(2).train)
    batch, expected = batch_of(setup, 2), 0.0
    assert len(encoded(learner).encoders) == 2
    for weight, bias in encoded(learner).encoders:
        assert weight.shape == (4, 12)
        codes = [torch.sigmoid(net.features(batch.x) @ weight.T + bias) for net in (setup.net, old)]
        expected += float((2 * (codes[0] - codes[1]).square().mean()).detach())
    assert expected > 0
    found = encoded(learner)(setup.net, batch)["code"].detach()
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_autoencoder_learns_what_its_features_have() -> None:
    """Two directions and noise: a learnt code of two comes near the best plane, one of random weights does not.

    The net stays as it was, in its gradients too.
    """
    setup = setup_of(ONE_HEAD, body=lambda shape: nn.Flatten())
    rng, n = generator(4), 300
    x = torch.randn(n, 2, generator=rng) @ torch.randn(2, 32, generator=rng) * 20
    images = (x + 12 * torch.randn(n, 32, generator=rng) + 120).view(n, *SHAPE).clamp(0, 255).to(torch.uint8)
    y = (x[:, 0] > 0).long()
    samples = Exemplars(images, y, torch.zeros(n, dtype=torch.int64), torch.rand(n, generator=rng), torch.arange(n))
    before = state(setup)
    features = setup.transform.plain(images).flatten(1)
    centred = features - features.mean(0)
    best = float((torch.linalg.svdvals(centred)[2:] ** 2).sum() / centred.square().sum())

    def unexplained(code: Tensor) -> float:
        """Share of the features' variance that no linear readout of the code gives back; at least ``best``."""
        inputs = torch.cat([code, torch.ones(n, 1)], 1)
        solved = torch.linalg.lstsq(inputs, centred).solution
        return float((centred - inputs @ solved).square().sum() / centred.square().sum())

    def codes(epochs: int) -> Tensor:
        plan = Autoencoder(code=2, reconstruction=10.0, epochs=epochs, rate=1.0, batch_size=50)
        weight, bias = plan.fit(setup, samples, seed=7)
        return torch.sigmoid(features @ weight.T + bias)

    learnt, drawn = unexplained(codes(300)), unexplained(codes(0))
    assert best < learnt < 1.3 * best < drawn
    assert torch.equal(codes(3), codes(3))
    assert_same(state(setup), before)
    assert all(parameter.grad is None for parameter in setup.net.parameters())


def test_an_autoencoder_serves_the_task() -> None:
    """With no weight on the reconstruction its code alone is to tell the head what it needs."""
    setup = setup_of()
    learn(Sgd(setup), 0, steps=60)
    given = experience(0).train
    losses = []
    for epochs in (0, 300):
        weight, bias = Autoencoder(3, 0.0, epochs, 1.0, 24).fit(setup, given, seed=1)
        codes = torch.sigmoid(setup.net.features(setup.transform.plain(given.x)) @ weight.T + bias).detach()
        apart = codes[given.y == 0].mean(0) - codes[given.y == 1].mean(0)
        losses.append(float(apart.abs().max() / codes.std(0).max().clamp_min(1e-6)))
    assert losses[1] > losses[0]


def test_unlabelled_samples_make_no_autoencoder() -> None:
    setup = setup_of()
    learner = ebll(setup)
    given = experience(0)
    hidden = dataclasses.replace(given.train, y=torch.full_like(given.train.y, -1))
    encoded(learner).finish(dataclasses.replace(given, train=hidden))
    assert encoded(learner).encoders == []
    assert encoded(learner)(setup.net, batch_of(setup, 1)).keys() == {"new", "distillation"}


def test_grad_cam_of_pooled_maps_is_the_heads_weights() -> None:
    """Mean pooling and a linear head: ∂z_b/∂A_k is W_bk / positions everywhere."""
    setup = setup_of(body=convolutional)
    net, x = setup.net, batch_of(setup, 0).x
    maps = F.softplus(net.body[0](x)).detach().requires_grad_()  # type: ignore[index]
    logits = net.head(maps.mean((2, 3)))
    found = attention(maps, logits[:, 3], create_graph=False)
    raw = F.relu((net.head.weight[3] @ maps.flatten(2)).detach())
    torch.testing.assert_close(found, raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-12))
    assert found.shape == (24, 16)


def test_the_gradient_of_attention_passes_through_maps_and_weights() -> None:
    """Against finite differences, in double precision."""
    setup = setup_of(body=convolutional)
    learner = lwm(setup, strength=0.0)
    assert isinstance(learner, Sgd)
    learn(learner, 0)
    with torch.no_grad():
        for parameter in setup.net.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator(int(parameter.numel())))
    teacher = learner.objective.teacher.net  # type: ignore[attr-defined]
    setup.net.double()
    teacher.double()
    batch = batch_of(setup, 1)
    batch = dataclasses.replace(batch, x=batch.x.double())

    def term() -> Tensor:
        return learner.objective(setup.net, batch)["attention"]

    for name in ("body.0.weight", "body.0.bias", "head.weight"):
        parameter = setup.net.get_parameter(name)
        (slope,) = torch.autograd.grad(term(), parameter)
        flat, row = parameter.data.view(-1), int(slope.abs().argmax())
        values = []
        for step in (1e-4, -1e-4):
            flat[row] += step
            values.append(float(term().detach()))
            flat[row] -= step
        assert (values[0] - values[1]) / 2e-4 == pytest.approx(float(slope.flatten()[row]), rel=0.02)
        assert float(slope.abs().max()) > 1e-3


def test_attention_is_for_the_likeliest_old_class() -> None:
    """Of all that were learnt, whatever the bias of one that was not."""
    setup = setup_of(ONE_HEAD, body=convolutional)
    learner = lwm(setup)
    assert isinstance(learner, Sgd)
    learn(learner, 0)
    batch, terms = batch_of(setup, 1), []
    with torch.no_grad():
        setup.net.head.weight += torch.randn(6, 5, generator=generator())
    for bias in (0.0, 100.0):
        with torch.no_grad():
            learner.objective.teacher.net.head.bias[5] += bias  # type: ignore[attr-defined]
        terms.append(learner.objective(setup.net, batch)["attention"].detach())
    assert torch.equal(terms[0], terms[1])
    with torch.no_grad():
        teacher = learner.objective.teacher.net  # type: ignore[attr-defined]
        teacher.head.bias[0] += 200.0 * (teacher(batch.x, batch.task)[:, :2].argmax(1)[0] == 1) - 100.0
    assert not torch.equal(learner.objective(setup.net, batch)["attention"].detach(), terms[0])


@pytest.mark.parametrize("model", [convnet3, slim_resnet18])
def test_lwm_finds_the_last_maps_of_shipped_nets(model: Any) -> None:
    net = nets.build(lambda shape: model(shape, width=4), (2, 16, 16), TASKS, 0, CPU)
    setup = dataclasses.replace(setup_of(body=convolutional), net=net)
    learner = lwm(setup)
    assert isinstance(learner, Sgd)
    x = torch.randint(0, 256, (8, 2, 16, 16), generator=generator()).to(torch.uint8)
    train = dataclasses.replace(experience(0, 8).train, x=x)
    learner.begin(Experience(0, (0, 1), train))
    maps = net.body[: learner.objective.layers](setup.transform.plain(x))  # type: ignore[attr-defined, index]
    assert tuple(maps.shape[2:]) == (2, 2)
    learner.observe(train)
    learner.finish(Experience(0, (0, 1), train))
    assert learner.observe(dataclasses.replace(train, y=train.y + 2, task=train.task + 1))["attention"].isfinite()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lwf, {"strength": -1.0}, "lwf: strength: found -1, allowed: 0 or more"),
        (lwf, {"temperature": 0.0}, "lwf: temperature: found 0, allowed: a finite number above 0"),
        (ebll, {"code": 12}, "ebll: code: found 12, allowed: fewer than the net's 12 features, or 0"),
        (ebll, {"code_strength": -1.0}, "ebll: code_strength: found -1"),
        (ebll, {"batch_size": 0}, "ebll: batch_size: found 0, allowed: 1 and more"),
        (lwm, {}, "lwm: model.name: found '.*', which has no feature maps to attend to; allowed: convnet3"),
        (Lfl, {"strength": -0.5}, "lfl: strength: found -0.5"),
    ],
)
def test_impossible_options_are_refused(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bind(make, options)(setup_of())


@pytest.mark.parametrize("strategy", ["lwf", "ebll", "lfl"])
def test_digits_are_forgotten_less_than_by_fine_tuning(strategy: str, runs: Path) -> None:
    chosen = ["stream.setting=task", "optimizer.lr=0.2"]
    plain, ours = (clsim.run("split-digits", name, settings=chosen, runs=runs) for name in ("finetune", strategy))
    assert (ours.metrics["forgetting"] or 0) < (plain.metrics["forgetting"] or 0)
    assert not ours.data["diverged"]

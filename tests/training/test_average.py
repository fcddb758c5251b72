"""``optimizer.average``: the mean of the last weights takes their place at the end of a training."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clsim
from clsim.checks.samples import body, clusters, convolutional, exemplars
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.models.optimizers import Average, Pace
from clsim.pool.exemplars import Exemplars
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.resolve import resolve
from clsim.spec.tables import OptimizerSpec
from clsim.streams.stream import Experience
from clsim.training import experience as one
from clsim.training.contract import Learner, Setup
from clsim.training.progress import Quiet
from tests.helpers import assert_same, generator

TAKE = {
    *("sgd", "ewc", "mas", "online-ewc", "mean-imm", "mode-imm", "lwf", "lwm", "ebll"),
    *("gem", "a-gem"),
    *("der", "der++", "er-ace", "bic", "icarl", "ss-il"),
}
"""Learners whose weights are averaged.

The others have nets of their own, go by the path of single weights (si, rwalk), or set some back after a step (lfl)."""

WARM = "labelling.start=warm"
TINY = ["data.per_class=12", "training.epochs=4", "stream.experiences=2", "evaluation.rows=seen"]


def averaged(model: Any = body, *, buffered: bool = True, **optimizer: Any) -> Setup:
    setup = setup_of(model, buffered=buffered)
    table = dataclasses.replace(setup.spec.optimizer, **{"average": 0.5, **optimizer})
    return dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, optimizer=table))


def two_classes(position: int = 0) -> Experience:
    x, y = clusters(80, seed=4)
    rows = (y // 2 == position).nonzero().flatten()
    return Experience(position, (2 * position, 2 * position + 1), exemplars(x[rows], y[rows], task=position))


def fitted(setup: Setup, learner: Learner, experience: Experience) -> list[dict[str, Tensor]]:
    """Fit, and return the weights after every step; the learner takes no others."""
    seen = []
    observe = learner.observe

    def noted(batch: Exemplars) -> Any:
        terms = observe(batch)
        seen.append({name: p.detach().clone() for name, p in setup.net.named_parameters()})
        return terms

    learner.observe = noted  # type: ignore[method-assign]
    one.fit(experience, setup, learner, 2, Quiet())
    learner.observe = observe  # type: ignore[method-assign]
    return seen


def mean(seen: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([weights[name] for weights in seen]).double().mean(0).float() for name in seen[0]}


@pytest.mark.parametrize(
    ("share", "every", "steps"), [(0.5, 1, range(10, 20)), (0.3, 2, (15, 17, 19)), (1.0, 1, range(20))]
)
def test_the_net_is_the_arithmetic_mean_of_a_loop_by_hand(share: float, every: int, steps: Any) -> None:
    setup = averaged(average=share, average_every=every)
    net = copy.deepcopy(setup.net)
    learner = Sgd(setup)
    seen = fitted(setup, learner, two_classes())
    assert len(seen) == 20
    assert_close(dict(setup.net.named_parameters()), mean([seen[i] for i in steps]))
    # the steps themselves are those of a run without the mean
    plain = setup_of(buffered=True)
    plain.net.load_state_dict(net.state_dict())
    assert_same(fitted(plain, Sgd(plain), two_classes()), seen)


def assert_close(found: dict[str, Any], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-5, atol=1e-6)


def test_the_weights_of_each_epochs_end_enter_if_every_is_0() -> None:
    setup = averaged(average=0.6, average_every=0)
    seen = fitted(setup, Sgd(setup), two_classes())
    assert_close(dict(setup.net.named_parameters()), mean([seen[i] for i in (11, 15, 19)]))


def test_on_least_squares_at_a_constant_rate_the_mean_is_nearer_to_the_solution_than_the_last_weights() -> None:
    """Polyak: the last weights stay as far away as rate and noise have it, the mean comes nearer with every step."""
    rng = generator(3)
    a, solution = torch.randn(2000, 8, generator=rng), torch.arange(8.0)
    b = a @ solution + torch.randn(2000, generator=rng)
    weight, pace = nn.Parameter(torch.zeros(8)), Pace(steps=2000)
    average = Average(OptimizerSpec(average=0.75), [weight], pace)
    optimizer = torch.optim.SGD([weight], lr=0.05)
    for i in range(2000):
        optimizer.zero_grad()
        (0.5 * (a[i] @ weight - b[i]).square()).backward()
        optimizer.step()
        pace.step += 1
        average.step()
    last = float((weight.detach() - solution).norm())
    assert average.settle()
    assert float((weight.detach() - solution).norm()) < 0.3 * last
    assert not average.settle()  # it is used once


def test_statistics_of_batch_norm_are_those_of_a_fresh_pass_over_the_training_data() -> None:
    net = nets.build(
        lambda s: nn.Sequential(nn.Flatten(), nets.VectorNorm(12), nn.Dropout(0.5)),
        (12,),
        torch.ones(1, 2, dtype=torch.bool),
        0,
        torch.device("cpu"),
    )
    x = torch.randn(50, 12, generator=generator(1)) * 3 + 2
    net.train()
    assert nets.renew_statistics(net, x.split(10)) == 50
    norm = net.body[1]
    assert net.training
    assert norm.training
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, x.mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([part.var(0) for part in x.split(10)]).mean(0))
    nets.renew_statistics(net, x.split(20))  # a batch of 10 at the end counts half
    torch.testing.assert_close(norm.running_mean, x.mean(0))


def test_a_learners_statistics_are_those_of_its_mean_and_of_new_and_replayed_samples() -> None:
    def normed(shape: tuple[int, ...]) -> nn.Module:
        return nets.mlp(shape, hidden=(16,), norm="batch")

    setup = averaged(normed)
    learner, inputs = Sgd(setup), []
    prepare = learner.prepare

    def noted(*args: Any) -> Any:
        inputs.append(prepare(*args))
        return inputs[-1]

    learner.prepare = noted  # type: ignore[method-assign]
    for position in (0, 1):
        one.learn(two_classes(position), setup, learner, 2 + 2 * position, Quiet())
    last = inputs[-4:]  # 40 samples in batches of 10
    assert [len(batch.y) for batch in last] == [20] * 4
    outs = [setup.net.body[1](setup.net.body[0](batch.x)) for batch in last]
    norm = setup.net.body[2]
    torch.testing.assert_close(norm.running_mean, torch.stack([out.mean(0) for out in outs]).mean(0).detach())
    torch.testing.assert_close(norm.running_var, torch.stack([out.var(0) for out in outs]).mean(0).detach())


@pytest.mark.parametrize("name", COMPONENTS["learners"])
def test_a_learner_averages_its_weights_or_refuses_before_training(name: str) -> None:
    make = registry.component("learners", name)
    if name not in TAKE:
        with pytest.raises(InputError, match=r"optimizer.average: found 0.5 with learner .*allowed: 0, or"):
            make(averaged(convolutional))
        return
    setup = averaged(convolutional if name == "lwm" else body)
    learner = make(setup)
    for position in (0, 1):
        seen = fitted(setup, learner, two_classes(position))
        assert_close(dict(setup.net.named_parameters()), mean(seen[10:]))
        one.conclude(two_classes(position), setup, learner, 2 + 2 * position)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["optimizer.average=1.5"], r"optimizer.average: found 1.5, allowed: a share"),
        (["optimizer.average_every=3"], r"optimizer.average_every: found 3 with average = 0"),
        (
            ["optimizer.average=0.5", "training.until=0.9"],
            r"training.until = 0.9, .*allowed: optimizer.average = 0, or",
        ),
        (["optimizer.average=0.5", "training.patience=2", "stream.validation=0.2"], r"training.patience = 2, "),
        (
            ["optimizer.average=0.5", "training.capturable=true", "training.last_batch=drop"],
            r"training.capturable = true",
        ),
    ],
)
def test_what_an_average_cannot_be_combined_with_is_refused(settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve("split-digits", "finetune", settings=settings)


def test_one_pass_of_labels_is_refused() -> None:
    asked = ["labelling.update=batch", "labelling.selector=random", "labelling.budget=9", "training.epochs=1"]
    settings = ["optimizer.average=0.5", *asked]
    with pytest.raises(InputError, match=r"optimizer.average: found 0.5 with labelling.update = batch"):
        resolve("split-digits", "finetune", settings=settings)


def test_a_run_without_an_average_keeps_its_fingerprint() -> None:
    assert "average" not in resolve("split-digits", "er").as_dict()["optimizer"]
    assert (
        resolve("split-digits", "er").fingerprint
        != resolve("split-digits", "er", settings=["optimizer.average=0.5"]).fingerprint
    )


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_mean_goes_with_a_schedule_and_a_run_repeats(tmp_path: Path, schedule: str) -> None:
    settings = [*TINY, "optimizer.average=0.5", f"optimizer.schedule={schedule}", "stream.validation=0.2"]
    settings += ["model.options.norm=batch"]
    first, again = (clsim.run("split-digits", "er", settings=settings, runs=tmp_path / f"{i}") for i in (1, 2))
    assert_same(first.data["accuracy"], again.data["accuracy"])

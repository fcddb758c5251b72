"""WAAL: its choice among blobs, the critic's slope, the score of a hand-made critic, its terms and state."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from clsim.acquisitions import waal
from clsim.acquisitions.acquisition import Step
from clsim.acquisitions.waal import Waal, gradient_penalty
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied, restore, snapshot
from clsim.training.contract import Setup
from tests.helpers import assert_same, generator, vectors
from tests.increments import CPU, Increments, hidden_layers

ALIKE, UNLIKE = 80, 40


def plain_net() -> nets.Net:
    """A net whose features are its input, and whose logits are all 0: all predictions are uniform."""
    net = nets.build(lambda shape: torch.nn.Identity(), (6,), torch.ones(1, 4, dtype=torch.bool), 0, CPU)
    torch.nn.init.zeros_(net.head.weight)
    torch.nn.init.zeros_(net.head.bias)
    return net


def blob(n: int, centre: float, seed: int) -> Tensor:
    return torch.randn(n, 6, generator=generator(seed)) + centre * torch.tensor([1.0, -1, 1, -1, 1, -1])


KNOWN = blob(60, 0.0, 3)
POOL = torch.cat([blob(ALIKE, 0.0, 1), blob(UNLIKE, 2.0, 2)])
"""Like what is known, then unlike it."""


def step_of(net: nets.Net, draw: int, known: Tensor = KNOWN, others: Tensor = POOL, **changed: Any) -> Step:
    """A step on 32 samples of each part."""
    rng = generator(draw)
    x, view = (part[torch.randperm(len(part), generator=rng)[:32]] for part in (known, others))
    y = torch.zeros(len(x), dtype=torch.int64)
    step = Step(x, y, len(x), None, (), net.features(x), y.float(), 0.0, net, y, (view,), torch.zeros(len(view)).long())
    return dataclasses.replace(step, **{"labelled": len(known), "unlabelled": len(others), **changed})


def trained(seed: int = 0, steps: int = 200, **options: Any) -> tuple[nets.Net, Waal]:
    net = plain_net()
    acquisition = Waal(net, generator(seed), **{"critic_steps": 2, "rate": 0.005, **options})
    for draw in range(steps):
        acquisition.terms(step_of(net, draw))
    return net, acquisition


def pool_under(net: nets.Net, x: Tensor = POOL) -> Pool:
    return Pool(vectors(x, torch.full((len(x),), -1)), net, lambda x: x)


def slopes(acquisition: Waal) -> Tensor:
    """The lengths of the critic's gradients on lines between the two parts."""
    place = torch.rand(60, 1, generator=generator(8))
    points = (KNOWN + place * (POOL[torch.randperm(120, generator=generator(9))[:60]] - KNOWN)).requires_grad_()
    return torch.autograd.grad(acquisition.module(points).sum(), points)[0].norm(dim=1)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_queries_what_is_unlike_the_labelled_where_all_is_as_uncertain(seed: int) -> None:
    net, acquisition = trained(seed)
    picks = acquisition(pool_under(net), UNLIKE, rng=generator()).index
    assert float((picks >= ALIKE).float().mean()) >= 0.85


def test_the_critic_has_a_slope_of_about_1_on_the_lines_between() -> None:
    assert abs(float(slopes(trained()[1]).mean()) - 1) < 0.25


def test_a_penalty_of_the_wrong_sign_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradient_penalty
    monkeypatch.setattr(waal, "gradient_penalty", lambda *given: -right(*given))
    found = slopes(trained(steps=60)[1])
    assert not abs(float(found.mean()) - 1) < 0.25


def test_a_critic_of_0_prefers_the_uniform_prediction() -> None:
    net, acquisition = trained(steps=0)
    with torch.no_grad():
        for p in acquisition.module.parameters():
            p.zero_()
        net.head.weight.copy_(torch.eye(4, 6))
    x = torch.zeros(5, 6)
    x[:, 0] = torch.tensor([3.0, 0.0, 1.0, 9.0, 0.5])
    pool = pool_under(net, x)
    assert acquisition(pool, 5, rng=generator()).index.tolist() == [1, 4, 2, 0, 3]
    p = pool.probabilities[0].log()
    torch.testing.assert_close(acquisition.scores(pool)[0], p.norm() / 2 - p.sum() / 2)


def test_a_certain_prediction_and_a_class_out_of_reach_have_a_finite_score() -> None:
    """The softmax of the first is exactly 1 and 0; a class whose logit is −inf is no part of the score."""
    net, acquisition = trained(steps=0, diversity=3.0)
    with torch.no_grad():
        net.head.weight.copy_(1000 * torch.eye(4, 6))
    pool = pool_under(net, POOL)
    assert bool((pool.probabilities == 0).any())
    assert bool(acquisition.scores(pool).isfinite().all())
    closed = pool_under(net.among([0, 1]), POOL)
    p = closed.logits[:, :2].log_softmax(1)
    expected = p.norm(dim=1) / 2 - p.sum(1) / 2 - 3 * acquisition.module(POOL).detach()
    torch.testing.assert_close(acquisition.scores(closed), expected)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_the_term_is_that_of_the_equation_and_its_gradient_leaves_the_critic_alone(variant: Any) -> None:
    net = nets.build(partial(nets.mlp, hidden=(8,)), (6,), torch.ones(1, 4, dtype=torch.bool), 0, CPU)
    acquisition = Waal(net, generator(), strength=0.5, variant=variant)
    step = step_of(net, 0, labelled=30, unlabelled=120)
    before = copied(acquisition.module.state_dict())
    term = acquisition.terms(step)["waal"]
    assert any(not torch.equal(before[name], weight) for name, weight in acquisition.module.state_dict().items())
    critic = acquisition.module
    expected = 0.5 * (critic(net.features(step.views[0])).mean() - 0.25 * critic(step.features).mean())
    torch.testing.assert_close(term, expected)
    term.backward()
    assert all(p.grad is None for p in critic.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.body.parameters())


def test_samples_from_memory_and_rows_without_a_label_are_no_part_of_the_labelled() -> None:
    net = plain_net()
    step = step_of(net, 0)
    far = torch.cat([step.features[:20], 100 + step.features[20:]])
    y = step.y.index_fill(0, torch.arange(10), -1)
    whole = dataclasses.replace(step, features=far, new=20, y=y)
    alone = dataclasses.replace(step, features=far[10:20], new=10, y=y[10:20])
    # the lines differ, so no penalty
    found = [Waal(net, generator(), penalty=0.0, critic_steps=1).terms(part)["waal"] for part in (whole, alone)]
    torch.testing.assert_close(*found)


def test_there_are_no_terms_where_one_of_the_parts_is_missing() -> None:
    net = plain_net()
    acquisition = Waal(net, generator())
    before = copied(acquisition.state_dict())
    assert acquisition.terms(step_of(net, 0, views=())) == {}
    assert acquisition.terms(step_of(net, 0, views=(POOL[:0],))) == {}
    assert acquisition.terms(step_of(net, 0, new=0)) == {}
    assert_same(acquisition.state_dict(), before)
    one = acquisition.terms(step_of(net, 0, known=KNOWN[:1], others=POOL[:1]))["waal"]
    assert bool(one.isfinite())


def test_the_term_draws_the_two_parts_together() -> None:
    """A net that descends on the term alone, against a critic that goes on learning."""
    net = nets.build(partial(nets.mlp, hidden=(16,)), (6,), torch.ones(1, 4, dtype=torch.bool), 0, CPU)

    def gap() -> float:
        with torch.no_grad():
            known, others = net.features(KNOWN), net.features(POOL[ALIKE:])
            return float((known.mean(0) - others.mean(0)).norm())

    acquisition, before = Waal(net, generator(), strength=1.0, critic_steps=2, rate=0.005), gap()
    optimizer = torch.optim.SGD(net.body.parameters(), 0.02)
    for draw in range(100):
        optimizer.zero_grad()
        step = step_of(net, draw, others=POOL[ALIKE:], labelled=60, unlabelled=60)
        acquisition.terms(step)["waal"].backward()
        optimizer.step()
    assert gap() < 0.6 * before


# with a learner

VECTORS = Increments(body=hidden_layers(16), options={"buffer": "none", "batch_size": 16})


def begun(seed: int = 0) -> tuple[Setup, Sgd, Waal]:
    setup = VECTORS.setup(lr=0.05, momentum=0.9)
    acquisition = Waal(setup.net, generator(seed))
    setup = dataclasses.replace(setup, acquisition=acquisition)
    return setup, Sgd(setup), acquisition


def take_round(learner: Sgd, acquisition: Waal, number: int, others: bool = True) -> list[dict[str, Tensor]]:
    train = vectors(KNOWN[:40], torch.arange(40) % 2)
    hidden = vectors(POOL, torch.full((120,), -1), first=1000)
    acquisition.begin(number, 2)
    learner.begin(Experience(0, (0, 1), train, unlabelled=hidden if others else train))
    return [learner.observe(train[start : start + 10]) for start in range(0, 40, 10)]


def test_a_state_between_two_rounds_goes_on_bit_for_bit() -> None:
    setup, learner, acquisition = begun()
    take_round(learner, acquisition, 0)
    state, own = copied(snapshot(setup, learner)), copied(acquisition.state_dict())
    take_round(learner, acquisition, 1)
    other, resumed, again = begun(seed=5)
    again.load_state_dict(own)
    restore(state, other, resumed)
    take_round(resumed, again, 1)
    assert_same(snapshot(other, resumed), snapshot(setup, learner))
    assert_same(again.state_dict(), acquisition.state_dict())
    assert not torch.equal(own["module"]["layers.0.weight"], again.module.state_dict()["layers.0.weight"])


def test_the_learners_optimizer_leaves_the_critic_alone() -> None:
    """It has the critic's weights too, with weight decay: at a rate of 0 they do not move."""
    setup = VECTORS.setup(lr=0.05, momentum=0.9, weight_decay=0.1)
    acquisition = Waal(setup.net, generator(), rate=0.0)
    learner = Sgd(dataclasses.replace(setup, acquisition=acquisition))
    before = copied(acquisition.module.state_dict())
    terms = take_round(learner, acquisition, 0)
    assert all("waal" in step for step in terms)
    assert_same(acquisition.module.state_dict(), before)


def test_where_all_samples_have_a_label_a_learner_has_no_further_term() -> None:
    _, learner, acquisition = begun()
    assert all("waal" not in step for step in take_round(learner, acquisition, 0, others=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "waal: strength: found -1"),
        ({"critic_steps": 0}, "waal: critic_steps: found 0, allowed: 1 or more"),
        ({"rate": -0.1}, "waal: rate: found -0.1"),
        ({"variant": "cod"}, "waal: variant: found 'cod'; did you mean 'code'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Waal(plain_net(), generator(), **options)

"""InfoBatch: what it leaves out, that the sum stays the same on average, and how long its epochs are."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import clsim
from clsim.checks.samples import body, clusters, exemplars
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.spec.batch import BatchSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Setup
from clsim.training.info_batch import InfoBatch, drawn
from tests.helpers import generator


def pruner(n: int = 12, **options: float) -> tuple[Setup, InfoBatch, Exemplars]:
    setup = setup_of(body, buffered=False)
    setup = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, batch=BatchSpec("info-batch")))
    x, y = clusters(n, seed=5)
    samples = exemplars(x, y % 2)
    learner = InfoBatch(setup, Sgd(setup), **options)
    learner.begin(Experience(0, (0, 1), samples))
    return setup, learner, samples


@pytest.mark.parametrize("ratio", [0.5, 0.25, 0.8])
def test_the_gradient_of_an_epoch_is_that_of_all_samples_on_average(ratio: float) -> None:
    """In closed form: the probability of each outcome times its gradient, over all outcomes of five low samples."""
    low = torch.tensor([True, False] * 5)
    x, y = torch.randn(10, 4, generator=generator()), torch.arange(10) % 3
    weights = torch.randn(3, 4, generator=generator(1), requires_grad=True)
    weight, _ = drawn(low, ratio, generator())

    def gradient(weight: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((weight * F.cross_entropy(x @ weights.T, y, reduction="none")).sum(), weights)[0]

    expected = torch.zeros_like(weights)
    for outs in itertools.product([False, True], repeat=5):
        out = torch.zeros(10, dtype=torch.bool)
        out[low] = torch.tensor(outs)
        chance = ratio ** sum(outs) * (1 - ratio) ** (5 - sum(outs))
        expected += chance * gradient(weight * ~out)
    assert torch.allclose(expected, gradient(torch.ones(10)), atol=1e-5)


def test_draws_have_the_probability_that_they_say() -> None:
    low = torch.arange(20_000) % 2 == 0
    weight, stays = drawn(low, 0.3, generator())
    assert stays[~low].all()
    assert abs(float(stays[low].float().mean()) - 0.7) < 0.02  # 4 standard deviations
    assert abs(float((weight * stays).sum()) / 20_000 - 1) < 0.01


def test_scores_are_the_losses_of_the_steps_and_low_ones_are_left_out() -> None:
    setup, learner, samples = pruner()
    assert learner.kept(samples, 0.0) is samples  # nothing has a score
    state = {name: value.clone() for name, value in setup.net.state_dict().items()}
    batch = samples[torch.tensor([7, 2, 9, 4, 0, 11])]
    learner.observe(batch)
    net = setup_of(body, buffered=False).net
    net.load_state_dict(state)
    losses = F.cross_entropy(net.train()(setup.transform.plain(batch.x), batch.task), batch.y, reduction="none")
    assert torch.allclose(learner.scores[batch.index], losses, atol=1e-6)
    assert int(learner.scores.isnan().sum()) == 6
    low = set(batch.index[losses < losses.mean()].tolist())
    gone = set()
    for _ in range(30):
        kept = learner.kept(samples, 0.5)
        weights = dict(zip(kept.index.tolist(), kept.weight.tolist(), strict=True))  # type: ignore[union-attr]
        gone |= set(range(12)) - set(weights)
        assert all(value == (2.0 if index in low else 1.0) for index, value in weights.items())
    assert gone == low
    assert learner.kept(samples, 0.875) is samples  # the last eighth


def test_a_step_divides_by_the_number_of_samples() -> None:
    """With relative weights a batch in which all are low would not weigh more."""
    setup, _, samples = pruner()
    sgd, batch = Sgd(setup), dataclasses.replace(samples, weight=torch.full((12,), 2.0))
    sgd.backward(sgd.prepare(samples, None))
    plain = [p.grad.clone() for p in setup.net.parameters() if p.grad is not None]
    sgd.backward(sgd.prepare(batch, None))
    twice = [p.grad for p in setup.net.parameters() if p.grad is not None]
    assert all(torch.allclose(2 * a, b, atol=1e-6) for a, b in zip(plain, twice, strict=True))


@pytest.mark.parametrize("settings", [["training.epochs=8"], ["training.steps=40"]])
def test_epochs_are_shorter_and_schedules_end(tmp_path: Path, settings: list[str]) -> None:
    small = ["data.per_class=20", "stream.experiences=2", "training.batch_size=5", "optimizer.schedule=cosine"]
    arms = {
        name: clsim.run("split-digits", "er", batch=name, memory=20, runs=tmp_path, settings=[*small, *settings]).data
        for name in (None, "info-batch")
    }
    plain, pruned = ([cost["steps"] for cost in arms[name]["cost"]] for name in (None, "info-batch"))
    if "training.steps=40" in settings:
        assert plain == pruned == [40, 40]
    else:
        assert plain == [160, 160]
        assert all(
            160 * 0.55 < steps < 160 for steps in pruned
        )  # a first and a last epoch of all, and half of low ones
    entry = arms["info-batch"]["batches"][0]
    assert entry["different"] == 100
    assert entry["passes"] == 0
    assert entry["trained"] == entry["candidates"]
    assert 0 < entry["learnt"] < 1


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"info-batch: found ratio 1 and last 0\.125"):
        pruner(ratio=1.0)

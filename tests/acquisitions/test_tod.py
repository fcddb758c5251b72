"""Temporal output discrepancy: closed forms of its score, its loss and its average; what it orders and keeps."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.acquisitions.acquisition import Step
from clsim.acquisitions.tod import Averaged, OutputDiscrepancy, TemporalDiscrepancy
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors.scores import discrepancies
from tests.acquisitions.test_rounds import Stopping, checkpoint, given, losses
from tests.helpers import generator, points, vectors
from tests.increments import CPU
from tests.killing import assert_same_end

ONE, TASKS = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, True, False, False], [False, False, True, True]])


def net_of(seed: int = 0, visible: Tensor = ONE, norm: Any = "none") -> nets.Net:
    return nets.build(partial(nets.mlp, hidden=(8,), norm=norm), (6,), visible, seed, CPU)


def pool_under(net: nets.Net, n: int = 30, seed: int = 0) -> Pool:
    return Pool(vectors(points(n, 6, seed)), net, lambda x: x)


def compared(net: nets.Net, before: nets.Net, **options: Any) -> OutputDiscrepancy:
    """An acquisition whose net was trained from ``before`` on."""
    acquisition = OutputDiscrepancy(net, generator(), **options)
    acquisition.begin(0, 2)
    acquisition(pool_under(before), 1, rng=generator())
    acquisition.begin(1, 2)
    return acquisition


def step_of(net: nets.Net, n: int = 7, views: int = 5, visible: Tensor = ONE) -> Step:
    x, view = points(n, 6, 1), points(views, 6, 2)
    with net.tapped() as passes:
        net.features(x)
    y, tasks = torch.zeros(n, dtype=torch.int64), torch.arange(max(n, views)) % len(visible)
    seen = (view,) if views else ()
    features = passes[0].features
    return Step(x, y, n, None, passes[0].maps, features, torch.rand(n), 0.0, net, tasks[:n], seen, tasks[:views])


def moved(net: nets.Net, by: float) -> None:
    with torch.no_grad():
        for weight in net.parameters():
            weight += by


def test_identical_checkpoints_have_no_discrepancy() -> None:
    net = net_of()
    found = compared(net, net).discrepancies(pool_under(net))
    assert torch.equal(found, torch.zeros(30))


def test_the_discrepancy_is_symmetric_and_that_of_a_slow_loop() -> None:
    one, other = net_of(0), net_of(1)
    there, back = compared(one, other), compared(other, one)
    found = there.discrepancies(pool_under(one))
    assert torch.equal(found, back.discrepancies(pool_under(other)))
    p, q = (pool_under(net).probabilities for net in (one, other))
    slow = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(*rows, strict=True)) ** 0.5 for rows in zip(p, q, strict=True)
    ]
    assert found.tolist() == pytest.approx(slow, abs=1e-6)
    assert torch.equal(discrepancies(p, q), found)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_it_queries_the_largest_changes_best_first(variant: str) -> None:
    net = net_of(0)
    acquisition = compared(net, net_of(1), variant=variant)
    found = acquisition.discrepancies(pool_under(net))
    picks = acquisition(pool_under(net), 6, rng=generator()).index
    assert picks.tolist() == found.argsort(descending=True)[:6].tolist()
    # that choice is what the next one compares with
    assert not acquisition.discrepancies(pool_under(net)).any()


def test_the_first_choice_is_random_or_in_code_the_smallest_change_from_the_untrained_net() -> None:
    net = net_of(0)
    for variant in ("paper", "code"):
        acquisition = OutputDiscrepancy(net_of(0), generator(), variant=variant)  # type: ignore[arg-type]
        acquisition.begin(0, 2)
        trained = net_of(1)
        pool = pool_under(trained)
        change = discrepancies(pool.probabilities, pool_under(net).probabilities)
        picks = acquisition(pool, 5, rng=generator()).index.tolist()
        smallest = change.argsort()[:5].tolist()
        assert picks == (pool.data.key.argsort(descending=True)[:5].tolist() if variant == "paper" else smallest)


def test_an_untrained_net_is_compared_with_nothing() -> None:
    """Where no set is labelled to begin with, the net chooses before its first training."""
    acquisition = OutputDiscrepancy(net_of(0), generator(), variant="code")
    pool = pool_under(net_of(0))
    assert acquisition(pool, 5, rng=generator()).index.tolist() == pool.data.key.argsort(descending=True)[:5].tolist()
    assert "before" not in acquisition.state_dict()


def test_an_experience_begins_with_the_net_that_the_one_before_left() -> None:
    net = net_of(0)
    acquisition = compared(net, net_of(1))
    moved(net, 0.1)  # the last training of the experience, after its last choice
    acquisition.begin(0, 2)
    assert not acquisition.discrepancies(pool_under(net)).any()
    moved(net, 0.1)
    assert acquisition.discrepancies(pool_under(net)).all()


def test_classes_that_were_not_known_then_are_compared_too() -> None:
    """A choice of labels is among known classes; the copy of the net is not restricted to those of its own time."""
    net = net_of(0)
    acquisition = OutputDiscrepancy(net, generator())
    acquisition.begin(0, 2)
    data = vectors(points(10, 6))
    acquisition(Pool(data, net, lambda x: x, classes=[0, 1], closed=True), 1, rng=generator())
    before = copy.deepcopy(net)
    moved(net, 0.1)
    later = Pool(data, net, lambda x: x, classes=[0, 1, 2, 3], closed=True)
    expected = discrepancies(later.probabilities, Pool(data, before, lambda x: x).probabilities)
    assert torch.equal(acquisition.discrepancies(later), expected)


def test_the_average_is_the_mean_of_all_weights_until_it_forgets() -> None:
    net = net_of()
    average, weights, expected = Averaged(net_of(5), generator(), 0.75, second=False), [], torch.empty(0)
    for step in range(8):
        moved(net, 0.1 * (step + 1))
        weights.append(net.head.weight.detach().clone())
        average.follow(net)
        # 1 − 1/(t + 1) ≤ 0.75 in the first four
        expected = torch.stack(weights).mean(0) if step < 4 else 0.75 * expected + 0.25 * weights[-1]
        torch.testing.assert_close(average.net.head.weight, expected)
    assert int(average.steps) == 8


def test_the_loss_of_the_paper_is_its_closed_form_and_moves_the_net_alone() -> None:
    net = net_of()
    acquisition = TemporalDiscrepancy(net, generator(), strength=0.5)
    assert acquisition.views == 1
    first = acquisition.terms(step_of(net))
    assert float(first["tod"].detach()) == 0  # the average begins as the net
    before = copy.deepcopy(net)
    moved(net, 0.3)
    step = step_of(net)
    term = acquisition.terms(step)["tod"]
    average = copy.deepcopy(before)
    with torch.no_grad():
        for a, b, w in zip(average.parameters(), before.parameters(), net.parameters(), strict=True):
            a.copy_((b + w) / 2)
        p, q = (of(step.views[0], step.view_task).softmax(1) for of in (net, average))
    assert float(term.detach()) == pytest.approx(0.5 * float((p - q).pow(2).sum(1).mean()), rel=1e-4)
    term.backward()
    assert all(w.grad is not None and bool(w.grad.any()) for w in net.parameters())
    assert all(w.grad is None for w in acquisition.module.parameters())


@pytest.mark.parametrize("visible", [ONE, TASKS])
def test_the_loss_of_the_code_is_its_closed_form(visible: Tensor) -> None:
    net = net_of(0, visible)
    acquisition = TemporalDiscrepancy(net, generator(), strength=0.5, variant="code")
    step = step_of(net, visible=visible)
    term = acquisition.terms(step)["tod"]
    second, expected = acquisition.module.head, 0.0
    for x, task in ((step.x, step.task), (step.views[0], step.view_task)):
        with torch.no_grad():
            features = net.features(x)
            own, beside = net.head(features), second(features)  # type: ignore[operator]
        total, count = 0.0, 0
        for i, t in enumerate(task.tolist()):
            for c in range(4):
                if visible[t, c]:  # the average is the net, in its first step
                    total, count = total + 2 * float(own[i, c] - beside[i, c]) ** 2, count + 1
        expected += total / count
    assert float(term.detach()) == pytest.approx(0.5 * expected, rel=1e-4)
    term.backward()
    assert all(w.grad is not None for w in (*net.parameters(), *second.parameters()))  # type: ignore[operator]
    assert all(w.grad is None for w in acquisition.module.net.parameters())  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("views", [0, 1])
def test_without_a_batch_of_samples_without_a_label_there_is_no_loss(views: int) -> None:
    """A single sample is not enough for batch norm."""
    net = net_of(norm="batch")
    term = TemporalDiscrepancy(net, generator()).terms(step_of(net, views=views))["tod"]
    assert float(term) == 0


def test_with_a_strength_of_0_nothing_is_kept_beside_the_net() -> None:
    net = net_of()
    acquisition = TemporalDiscrepancy(net, generator(), strength=0.0)
    assert acquisition.views == 0
    assert acquisition.terms(step_of(net)) == {}
    assert not list(acquisition.module.parameters())
    assert acquisition.state_dict()["module"] == {}


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"variant": "code"}, {"decay": 0.5}])
def test_the_contract_holds_with_other_options(options: dict[str, Any]) -> None:
    clsim.check_acquisition(partial(TemporalDiscrepancy, **options))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"strength": -1.0}, "tod: strength: found -1"),
        ({"decay": 1.0}, "tod: decay: found 1, allowed: from 0 to below 1"),
        ({"variant": "codes"}, "cod: variant: found 'codes'; .*code"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        TemporalDiscrepancy(net_of(), generator(), **options)


def test_nets_of_another_architecture_are_refused() -> None:
    acquisition = OutputDiscrepancy(net_of(), generator())
    other = nets.build(partial(nets.mlp, hidden=(3,)), (6,), ONE, 0, CPU)
    with pytest.raises(InputError, match=r"cod: proxy\.source: found a net of another architecture"):
        acquisition(pool_under(other), 1, rng=generator())


@pytest.mark.parametrize("start", ["warm", "scratch"])
def test_a_run_that_is_stopped_within_a_round_ends_bit_for_bit_the_same(tmp_path: Path, start: str) -> None:
    setting, each = f"labelling.start={start}", 20
    changed = {"label": "tod"}
    whole = clsim.run(**given(tmp_path / "whole", setting, **changed))
    assert np.nanmax(losses(whole)["tod"]) > 0
    for at in (each + 7, 4 * each + 11):
        folder = tmp_path / str(at)
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given(folder, setting, **changed), progress=Stopping(at))
        resumed = clsim.run(**given(folder, setting, **changed))
        assert_same_end(resumed, whole)
        picks = [[entry["rows"] for entry in r.data["labelling"]["rounds"]] for r in (resumed, whole)]
        assert picks[0] == picks[1]
    steps = int(checkpoint(whole)["learner"]["joined"]["steps"])
    assert steps == 20 * (6 if start == "warm" else 2)  # in a round from scratch it goes back with the net


def test_without_the_loss_it_is_the_choice_alone(tmp_path: Path) -> None:
    """And the name alone lets one net go on from round to round."""
    records = [
        clsim.run(**given(tmp_path, *more, label=label))
        for label, more in (("cod", []), ("tod", ["labelling.options.strength=0"]))
    ]
    assert records[0].data["spec"]["labelling"]["start"] == "warm"
    assert records[0].data["accuracy"] == records[1].data["accuracy"]
    rows = [[entry["rows"] for entry in record.data["labelling"]["rounds"]] for record in records]
    assert rows[0] == rows[1]


# digits: what the discrepancy orders


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    order = torch.randperm(len(found.target), generator=generator(0))
    return torch.from_numpy(found.data / 16).float()[order], torch.from_numpy(found.target).long()[order]


X, Y = digits()
BASE, MORE, LEFT = slice(0, 60), slice(0, 120), slice(120, 1797)


def digit_net(seed: int) -> nets.Net:
    return nets.build(partial(nets.mlp, hidden=(64,)), (64,), torch.ones(1, 10, dtype=torch.bool), seed, CPU)


def fitted(net: nets.Net, x: Tensor, y: Tensor, steps: int, seed: int, lr: float = 0.05) -> nets.Net:
    """A copy of a net after ``steps`` steps of momentum on batches of 32."""
    net = copy.deepcopy(net)
    optimizer, rng = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9), generator(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (32,), generator=rng)
        optimizer.zero_grad()
        F.cross_entropy(net.head(net.features(x[rows])), y[rows]).backward()
        optimizer.step()
    return net


def outputs(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x, torch.zeros(len(x), dtype=torch.int64)).softmax(1)


def loss_of(p: Tensor, y: Tensor) -> Tensor:
    return F.nll_loss(p.clamp_min(1e-12).log(), y, reduction="none")


def correlations() -> list[float]:
    """Spearman's, of the discrepancy between two rounds with the true loss, of samples without a label."""
    found = []
    for seed in range(5):
        before = fitted(digit_net(seed), X[BASE], Y[BASE], 150, seed)
        now = fitted(before, X[MORE], Y[MORE], 150, seed + 10)
        p, q = outputs(now, X[LEFT]), outputs(before, X[LEFT])
        found.append(float(spearmanr(discrepancies(p, q), loss_of(p, Y[LEFT])).statistic))
    return found


def test_the_discrepancy_rises_with_the_true_loss() -> None:
    """Random scores of 1,677 samples would exceed 0.1 in absolute value once in 20,000 draws."""
    assert min(correlations()) > 0.3


def candidates(kind: str, seed: int) -> tuple[dict[str, Tensor], Tensor, dict[str, float]]:
    """Models trained on from one checkpoint, that differ in one way: their outputs, the checkpoint's, their true loss.

    ``noise``: 150 more steps on labels of which a share is wrong. ``length``: another number of more steps.
    """
    before, rng, models = fitted(digit_net(seed), X[BASE], Y[BASE], 150, seed), generator(seed), {}
    x, y = X[MORE], Y[MORE]
    for i in range(6):
        noise, steps = (0.12 * i, 150) if kind == "noise" else (0.0, (0, 10, 25, 60, 150, 400)[i])
        wrong = torch.rand(len(y), generator=rng) < noise
        other = (y + torch.randint(1, 10, (len(y),), generator=rng)) % 10
        models[f"{noise:.2f} {steps}"] = fitted(before, x, torch.where(wrong, other, y), steps, seed + 20)
    now = {name: outputs(net, X[LEFT]) for name, net in models.items()}
    return now, outputs(before, X[LEFT]), {name: float(loss_of(p, Y[LEFT]).mean()) for name, p in now.items()}


def rank_correlation(kind: str, seed: int) -> float:
    now, before, true = candidates(kind, seed)
    ranked = clsim.rank_models(now, before)
    return float(spearmanr(list(ranked.values()), [true[name] for name in ranked]).statistic)


def test_models_that_learn_from_noise_are_ranked_as_their_true_losses_are() -> None:
    assert min(rank_correlation("noise", seed) for seed in range(3)) > 0.6


def test_models_of_different_lengths_are_not() -> None:
    """The less a model was trained, the less it has changed, and the worse it is: the choice is for equal trainings."""
    assert max(rank_correlation("length", seed) for seed in range(3)) < 0


def test_ranking_takes_files_and_refuses_what_is_no_softmax(tmp_path: Path) -> None:
    old = torch.full((4, 3), 1 / 3)
    near = torch.tensor([[0.4, 0.3, 0.3]]).expand(4, 3)
    np.save(tmp_path / "near.npy", near.numpy())
    found = clsim.rank_models({"far": torch.eye(3)[[0, 1, 2, 0]], "near": tmp_path / "near.npy", "same": old}, old)
    assert list(found) == ["same", "near", "far"]
    assert found["near"] == pytest.approx((0.4 - 1 / 3) ** 2 * 1.5**0.5 / (0.4 - 1 / 3), rel=1e-4)
    for now, said in (
        ({}, "now: found no model"),
        ({"a": old[:2]}, r"now\['a'\]: found outputs of shape \(2, 3\), allowed: that of before, \(4, 3\)"),
        ({"a": old * 2}, r"now\['a'\]: found outputs .* no probabilities"),
        ({"a": old * torch.nan}, r"now\['a'\]: row 0 holds NaN"),
    ):
        with pytest.raises(InputError, match=said):
            clsim.rank_models(now, old)


def test_steps_of_an_acquisition_are_not_changed_by_it() -> None:
    net = net_of()
    step = step_of(net)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    TemporalDiscrepancy(net, generator()).terms(dataclasses.replace(step))
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())

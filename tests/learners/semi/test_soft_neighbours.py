"""Soft nearest neighbours and their learners: the behaviours that prove them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.checks.hidden_labels import check_hidden_labels, partly_labelled
from clsim.checks.learners import train_on
from clsim.checks.samples import CheckFailed
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.semi.heads import freeze_norm
from clsim.learners.semi.labelled import Labelled
from clsim.learners.semi.paws import SoftNeighbours
from clsim.learners.sgd import Sgd
from clsim.models.optimizers import build, rate
from clsim.objectives.soft_neighbours import consistency, cross_entropy, mean_entropy, sharpen
from clsim.spec import registry
from clsim.spec.tables import OptimizerSpec
from clsim.streams.stream import Experience, Stream
from clsim.training import neighbours
from clsim.training.contract import Setup, Terms
from clsim.training.neighbours import posterior, smoothed
from tests.helpers import generator

SEMI = ("paws", "csl", "nncsl")


def embeddings(n: int, seed: int, width: int = 8) -> Tensor:
    return torch.randn(n, width, generator=generator(seed))


def support() -> tuple[Tensor, Tensor, Tensor]:
    """Twelve embeddings, their labels out of 2, 5 and 7, and the smoothed ones."""
    y = torch.tensor([2, 5, 7]).repeat(4)
    return embeddings(12, 1), y, smoothed(y, y.unique())


# the posterior


def test_posteriors_sum_to_one_and_no_entry_is_below_the_smoothing() -> None:
    s, _, labels = support()
    assert labels[0].tolist() == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    p = posterior(embeddings(50, 2), s, labels)
    assert torch.allclose(p.sum(1), torch.ones(50))
    assert p.min() >= 0.1 / 3 - 1e-6


def test_a_posterior_does_not_see_the_scale_of_embeddings_nor_the_order_of_the_support() -> None:
    s, _, labels = support()
    q = embeddings(20, 2)
    p, order = posterior(q, s, labels), torch.randperm(12, generator=generator(3))
    torch.testing.assert_close(posterior(7 * q, s * torch.rand(12, 1, generator=generator(4)), labels), p)
    torch.testing.assert_close(posterior(q, s[order], labels[order]), p)


def test_as_the_temperature_falls_the_nearest_neighbour_decides() -> None:
    s, y, _ = support()
    q = embeddings(30, 2)
    nearest = y[(F.normalize(q)[:, None] * F.normalize(s)[None]).sum(2).argmax(1)]
    p = posterior(q, s, smoothed(y, y.unique(), 0.0), temperature=1e-4)
    assert torch.equal(y.unique()[p.argmax(1)], nearest)
    assert p.max(1).values.min() > 0.99


def test_sharpening_keeps_the_argmax_and_never_raises_entropy() -> None:
    p = torch.randn(200, 5, generator=generator(0)).softmax(1)
    sharp = sharpen(p)
    assert torch.equal(sharp.argmax(1), p.argmax(1))
    assert (cross_entropy(sharp, sharp) <= cross_entropy(p, p) + 1e-6).all()
    by_hand = torch.tensor([0.5, 0.3, 0.2]).pow(4)
    torch.testing.assert_close(sharpen(torch.tensor([[0.5, 0.3, 0.2]]))[0], by_hand / by_hand.sum())
    assert sharpen(torch.tensor([[0.5, 0.3, 0.2]]))[0].tolist() == pytest.approx([0.866, 0.112, 0.022], abs=5e-4)


def test_the_mean_entropy_is_zero_when_collapsed_and_minus_log_k_when_uniform() -> None:
    k = 4
    collapsed = torch.eye(k)[torch.zeros(10, dtype=torch.int64)]
    spread = torch.eye(k)[torch.arange(12) % k]
    assert float(mean_entropy([collapsed])) == pytest.approx(0, abs=1e-6)
    assert float(mean_entropy([spread[:6], spread[6:]])) == pytest.approx(-math.log(k), abs=1e-5)
    anything = mean_entropy([torch.randn(9, k, generator=generator(1)).softmax(1)])
    assert -math.log(k) - 1e-6 <= float(anything) <= 0


def test_the_consistency_is_what_its_formula_says() -> None:
    views = [torch.randn(6, 3, generator=generator(i)).softmax(1) for i in range(4)]
    power = [(v**4) / (v**4).sum(1, keepdim=True) for v in views[:2]]
    targets = [power[1], power[0], (power[0] + power[1]) / 2, (power[0] + power[1]) / 2]
    targets = [t * (t >= 1e-4) for t in targets]
    wanted = torch.stack([-(t * v.log()).sum(1) for t, v in zip(targets, views, strict=True)]).mean()
    torch.testing.assert_close(consistency(views[:2], views[2:]), wanted)


def test_gradient_reaches_anchors_and_their_support_and_no_target() -> None:
    s, _, labels = support()
    anchors, others = embeddings(5, 2).requires_grad_(), embeddings(5, 3).requires_grad_()
    s.requires_grad_()
    loss = cross_entropy(sharpen(posterior(others, s, labels)), posterior(anchors, s, labels)).mean()
    by_anchor, by_support, by_target = torch.autograd.grad(loss, [anchors, s, others], allow_unused=True)
    assert by_anchor.abs().sum() > 0
    assert by_support.abs().sum() > 0
    assert by_target is None


def test_at_new_equal_to_old_the_distillation_is_the_teachers_mean_entropy_and_at_rest() -> None:
    s, _, labels = support()
    q = embeddings(40, 2).requires_grad_()
    new = posterior(q, s, labels)
    loss = cross_entropy(new.detach(), new).mean()
    entropy = -(new * new.log()).sum(1).mean()
    torch.testing.assert_close(loss, entropy)
    assert loss > 0.1
    assert torch.autograd.grad(loss, q)[0].abs().max() < 1e-6


# the labelled samples


def learner(name: str = "nncsl", **options: Any) -> tuple[Setup, SoftNeighbours]:
    setup = setup_of(buffered=True)
    return setup, registry.component("learners", name, options)(setup)


def test_a_support_has_as_many_of_each_class_and_tells_current_from_past() -> None:
    setup, stream = setup_of(buffered=True), partly_labelled(False)
    first = stream.experience(0)
    setup.memory.after_experience(first.train, 2, setup.pool)
    second = stream.experience(1)
    labelled = Labelled(setup, "test")
    labelled.begin(second)
    for of, classes in (("current", [2, 3]), ("past", [0, 1]), ("all", [0, 1, 2, 3])):
        drawn = labelled.support(3, of=of)
        assert drawn is not None
        assert drawn.y.tolist() == [label for label in classes for _ in range(3)]
        assert all(len(set(drawn.index[drawn.y == label].tolist())) == 3 for label in classes)
    # each class has six labelled samples here: all of them, and some again
    again = labelled.support(8, of="current")
    assert again is not None
    assert again.y.tolist() == [2] * 8 + [3] * 8
    assert set(again.index.tolist()) == set(second.train.index.tolist())
    batch = labelled.batch(30)
    assert set(batch.y.tolist()) == {0, 1, 2, 3}
    assert set(labelled.batch(30, past=False).y.tolist()) == {2, 3}


def test_a_class_draws_its_samples_equally_often() -> None:
    setup, stream = setup_of(buffered=True), partly_labelled(False)
    labelled = Labelled(setup, "test")
    labelled.begin(stream.experience(0))
    drawn = [labelled.support(2, of="current") for _ in range(900)]
    counts = torch.cat([d.index for d in drawn if d is not None]).bincount()
    counts = counts[counts > 0]
    assert len(counts) == 12
    assert (counts - 300).abs().max() < 5 * math.sqrt(900 / 3 * 2 / 3)


@pytest.mark.parametrize("name", SEMI)
def test_supports_hold_the_classes_that_the_arm_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[tuple[int, ...]]] = []
    original = neighbours.smoothed

    def spy(y: Tensor, *arguments: Any) -> Tensor:
        seen[-1].add(tuple(y.unique().tolist()))
        return original(y, *arguments)

    monkeypatch.setattr(neighbours, "smoothed", spy)
    setup, made = learner(name)
    stream = partly_labelled(False)
    for position in stream.schedule:
        seen.append(set())
        train_on(setup, made, stream.experience(position))
    second = {"paws": {(0, 1, 2, 3)}, "csl": {(2, 3)}, "nncsl": {(2, 3), (0, 1)}}  # those of the past to distil
    assert seen == [{(0, 1)}, second[name]]


# the learners


def terms_of(name: str) -> tuple[Setup, SoftNeighbours, Terms]:
    setup, made = learner(name)
    stream = partly_labelled(False)
    train_on(setup, made, stream.experience(0))
    experience = stream.experience(1)
    made.begin(experience)
    return setup, made, made.observe(made.incoming(experience)[:10])


def test_each_arm_has_the_terms_of_its_row() -> None:
    common = {"neighbours", "mean entropy", "linear"}
    assert terms_of("paws")[2].keys() == common
    assert terms_of("csl")[2].keys() == common
    assert terms_of("nncsl")[2].keys() == common | {"distillation"}


@pytest.mark.parametrize(("name", "blocked"), [("paws", True), ("csl", False), ("nncsl", False)])
def test_the_heads_gradient_reaches_the_features_where_the_arm_says(
    name: str, blocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[bool] = []

    def descend(self: Sgd, terms: Terms, passed: int) -> Terms:
        found = torch.autograd.grad(terms["linear"], list(self.net.body.parameters()), allow_unused=True)
        reached.append(any(g is not None for g in found))
        return {k: v.detach() for k, v in terms.items()}

    monkeypatch.setattr(Sgd, "descend", descend)
    _, made = learner(name)
    experience = partly_labelled(False).experience(0)
    made.begin(experience)
    made.observe(made.incoming(experience)[:10])
    assert reached == [not blocked]


def test_no_gradient_reaches_the_old_net_and_it_stays_as_it_was() -> None:
    _, made, _ = terms_of("nncsl")
    assert made.old is not None
    assert all(p.grad is None for module in made.old for p in module.parameters())
    assert not any(m.training for module in made.old for m in module.modules())


def test_batch_norm_is_frozen_after_the_first_experience_where_it_is_asked_for() -> None:
    for frozen in (True, False):
        setup, made = learner("csl", freeze_norm=frozen)
        stream, means = partly_labelled(False), []
        for position in stream.schedule:
            train_on(setup, made, stream.experience(position))
            means.append(next(v.clone() for k, v in setup.net.state_dict().items() if k.endswith("running_mean")))
        assert bool(means[0].abs().sum() > 0)
        assert torch.equal(*means) == frozen
    layer = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    freeze_norm(layer)
    assert [m.training for m in layer] == [False, True]


@pytest.mark.parametrize("name", SEMI)
@pytest.mark.parametrize("foreign", [False, True])
def test_permuting_hidden_labels_leaves_training_bit_identical(name: str, foreign: bool) -> None:
    check_hidden_labels(registry.component("learners", name), foreign=foreign)


def test_the_check_sees_a_learner_that_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    experience = Stream.experience

    def leaks(self: Stream, position: int) -> Experience:
        found = experience(self, position)
        told = self._hidden(position)
        assert told is not None
        return dataclasses.replace(found, train=told)

    monkeypatch.setattr(Stream, "experience", leaks)
    with pytest.raises(CheckFailed, match="learnt otherwise when labels that it was not shown were permuted"):
        check_hidden_labels(Sgd)


def test_predictions_are_among_the_classes_seen_and_the_readout_by_neighbours_is_right_too() -> None:
    setup, made = learner("nncsl")
    stream = partly_labelled(False)
    setup.net.visible.fill_(True)
    setup.net.masked = False
    train_on(setup, made, stream.experience(0))
    tests = stream.tests
    logits = made.predict(tests.x, tests.task)
    assert logits[:, 2:].isneginf().all()
    train_on(setup, made, stream.experience(1))
    nearest = made.readouts()["projection-diagnostic"](tests.x, tests.task)
    assert nearest.shape == (len(tests), 4)
    assert float((nearest.argmax(1) == tests.y).float().mean()) > 0.9
    assert float((made.predict(tests.x, tests.task).argmax(1) == tests.y).float().mean()) > 0.9


def test_without_unlabelled_samples_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"learner: nncsl learns from unlabelled samples, but all of this stream are"):
        clsim.run("split-digits", "nncsl", runs=tmp_path)
    with pytest.raises(InputError, match=r"and experience 1 has none; allowed: fewer labels, or labels\.include"):
        clsim.run("split-digits", "csl", labels="100%", settings=["labels.include_labelled=false"], runs=tmp_path)
    with pytest.raises(InputError, match=r"learner\.options\.small_views: with images of 4 × 4 the model raised"):
        clsim.run("split-digits", "nncsl", labels=5, settings=["learner.options.small_views=2"], runs=tmp_path)
    with pytest.raises(InputError, match=r"learner\.options\.large: unknown name 'flop'; did you mean 'flip'"):
        clsim.run("split-digits", "nncsl", labels=5, settings=["learner.options.large=['flop']"], runs=tmp_path)


@pytest.mark.parametrize("buffer", ["kcenter", "herding", "reservoir", "ring", "typiclust"])
def test_any_selector_that_needs_only_features_fills_the_memory(buffer: str, tmp_path: Path) -> None:
    settings = ["data.per_class=30", "training.batch_size=30", "learner.options.large=['crop']"]
    record = clsim.run("split-digits", "nncsl", buffer=buffer, labels=5, memory=20, settings=settings, runs=tmp_path)
    saved = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    assert len(saved["y"]) == 20
    assert (saved["y"] >= 0).all()
    matrix = record.data["readouts"]["projection-diagnostic"]
    assert len(matrix) == 5
    assert all(0 <= value <= 1 for value in matrix[-1])


# LARS


def lars(**options: Any) -> OptimizerSpec:
    return OptimizerSpec(name="lars", lr=0.5, momentum=0.9, **options)


def after(scale: float, spec: OptimizerSpec, steps: int = 3) -> list[Tensor]:
    head = nn.Linear(6, 3)
    with torch.no_grad():
        head.weight.copy_(embeddings(3, 0, 6))
        head.bias.copy_(embeddings(1, 9, 3)[0])
    optimizer = build(spec, head.parameters(), head.parameters())
    for i in range(steps):
        optimizer.zero_grad()
        (scale * F.cross_entropy(head(embeddings(8, i + 1, 6)), torch.arange(8) % 3)).backward()
        optimizer.step()
    return [p.detach().clone() for p in head.parameters()]


def test_a_lars_step_of_the_classifier_does_not_see_the_scale_of_the_loss() -> None:
    spec = lars(weight_decay=0.1, trust=0.02)  # the classifier has no decay, whatever the others have
    torch.testing.assert_close(after(1.0, spec), after(0.005, spec), rtol=1e-4, atol=1e-6)  # nor does that of its bias
    plain = OptimizerSpec(lr=0.5, momentum=0.9)
    assert not torch.allclose(after(1.0, plain)[0], after(0.005, plain)[0], rtol=1e-2)


def test_lars_is_what_its_formula_says() -> None:
    spec = lars(weight_decay=0.01, trust=0.02, head_lr=0.25)
    body, head = nn.Linear(4, 3), nn.Linear(3, 2)
    optimizer = build(spec, [*body.parameters(), *head.parameters()], head.parameters())
    weights = [p.detach().clone() for p in (*body.parameters(), *head.parameters())]
    speeds = [torch.zeros_like(w) for w in weights]
    for i in range(4):
        grads = [torch.randn(w.shape, generator=generator(i)) for w in weights]
        for p, g in zip((*body.parameters(), *head.parameters()), grads, strict=True):
            p.grad = g.clone()
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * group["scale"]
        optimizer.step()
        for j, (w, v, g) in enumerate(zip(weights, speeds, grads, strict=True)):
            decay = 0.01 if j == 0 else 0.0
            ratio = 0.02 * w.norm() / (g.norm() + decay * w.norm()) if j != 1 else torch.tensor(1.0)
            v.mul_(0.9).add_(ratio * (g + decay * w))
            w.sub_((0.25 if j > 1 else 0.5) * v)
    for p, w in zip((*body.parameters(), *head.parameters()), weights, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-5, atol=1e-6)


def test_a_warm_up_begins_and_a_cosine_ends_where_it_is_told() -> None:
    spec = OptimizerSpec(name="lars", lr=0.4, lr_start=0.08, lr_end=0.032, warmup=0.1, schedule="cosine")
    rates = [rate(spec, step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.08 + 0.32 / 100)
    assert rates[99] == rates[100] == pytest.approx(0.4)
    assert rates[-1] == pytest.approx(0.032, abs=1e-4)
    assert rates[550] == pytest.approx((0.4 + 0.032) / 2)


def test_a_weight_of_zero_or_without_a_gradient_leaves_no_nan() -> None:
    zero = nn.Parameter(torch.zeros(2, 2))
    optimizer = build(lars(), [zero])
    zero.grad = torch.ones(2, 2)
    optimizer.step()
    assert zero.isfinite().all()
    zero.grad = torch.zeros(2, 2)
    optimizer.step()
    assert zero.isfinite().all()

"""DALBT: Barlow Twins' term, where its gradient goes, and a run without it that is that of its score."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clsim
from clsim.acquisitions.acquisition import Step
from clsim.acquisitions.dalbt import Dalbt
from clsim.checks.samples import body, clusters, exemplars, pool_of
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.selectors.uncertainty import entropy
from clsim.streams.stream import Experience
from tests.acquisitions.test_rounds import Stopping, checkpoint, losses
from tests.helpers import assert_same, generator
from tests.increments import CPU
from tests.killing import assert_same_end

ONE = torch.ones(1, 4, dtype=torch.bool)
NONE = torch.empty(0, dtype=torch.int64)
RUN: dict[str, Any] = {"scenario": "split-digits", "strategy": "er", "label_budget": 20, "label_rounds": 2, "labels": 2}
SMALL = [
    *("data.per_class=20", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen", "memory.capacity=20"),
    "model.options.hidden=[16]",
]


def step_of(net: nets.Net, views: tuple[Tensor, ...]) -> Step:
    x, y = torch.zeros(2, 1, 6, 6), torch.zeros(2, dtype=torch.int64)
    none = torch.zeros(len(views[0]) if views else 0, dtype=torch.int64)
    return Step(x, y, 2, None, (), net.features(x), torch.zeros(2), 0.0, net, y, views, none)


def made(**options: Any) -> tuple[nets.Net, Dalbt]:
    net = nets.build(body, (1, 6, 6), ONE, 0, CPU)
    return net, Dalbt(net, generator(), **options)


def images(n: int, seed: int) -> Tensor:
    return torch.randn(n, 1, 6, 6, generator=generator(seed))


def slow(z1: Tensor, z2: Tensor, redundancy: float) -> float:
    """A second implementation: numpy's own correlation coefficient of each pair of dimensions."""
    width = z1.shape[1]
    found = np.corrcoef(z1.double().T.numpy(), z2.double().T.numpy())[:width, width:]
    on = sum((1 - found[i, i]) ** 2 for i in range(width))
    return float(on + redundancy * sum(found[i, j] ** 2 for i in range(width) for j in range(width) if i != j))


def test_the_term_is_that_of_a_second_implementation() -> None:
    net, acquisition = made(width=5, strength=3.0, redundancy=0.1)
    views = images(20, 1), images(20, 2)
    term = acquisition.terms(step_of(net, views))["barlow"]
    with torch.no_grad():
        z1, z2 = (acquisition.module(net.features(view)) for view in views)
    assert float(term.detach()) == pytest.approx(3.0 / 5 * slow(z1, z2, 0.1), rel=1e-3)


def test_the_term_is_0_for_identical_views_of_dimensions_that_are_not_correlated() -> None:
    """Sines of different frequencies over a whole period; and it is not 0 for other views, or equal dimensions."""
    turns = torch.arange(32) * 2 * torch.pi / 32
    z = torch.stack([(turns * k).sin() for k in (1, 2, 3, 4)], 1)
    net = nets.build(lambda shape: nn.Flatten(), (1, 2, 2), ONE, 0, CPU)
    acquisition = Dalbt(net, generator(), width=4)
    acquisition.module = nn.Identity()

    def term(first: Tensor, second: Tensor) -> float:
        views = first.view(32, 1, 2, 2), second.view(32, 1, 2, 2)
        step = dataclasses.replace(step_of_plain(net), views=views)
        return float(acquisition.terms(step)["barlow"].detach())

    assert term(z, z) == pytest.approx(0, abs=1e-6)
    assert term(z, 3 * z + 1) == pytest.approx(0, abs=1e-6)
    assert term(z, z.flip(0).roll(1, 0)) > 0.5
    assert term(z[:, :1].expand(-1, 4), z[:, :1].expand(-1, 4)) == pytest.approx(0.005 * 12 / 4, rel=1e-3)


def step_of_plain(net: nets.Net) -> Step:
    x, y = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)
    return Step(x, y, 2, None, (), net.features(x), torch.zeros(2), 0.0, net, y, (), NONE)


def test_the_gradient_reaches_body_and_projector_and_not_the_head() -> None:
    net, acquisition = made()
    net.train()
    acquisition.terms(step_of(net, (images(20, 1), images(20, 2))))["barlow"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.body.parameters())
    weights = [p for p in (*net.body.parameters(), *acquisition.module.parameters()) if p.ndim > 1]
    assert all(float(p.grad.abs().sum()) > 0 for p in weights if p.grad is not None)
    assert all(p.grad is not None for p in acquisition.module.parameters())
    assert net.head.weight.grad is None


def test_no_term_without_two_images() -> None:
    net, acquisition = made()
    assert acquisition.terms(step_of(net, ())) == {}
    assert acquisition.terms(step_of(net, (images(1, 1), images(1, 2)))) == {}


def test_joint_training_makes_views_agree() -> None:
    """The mean correlation of two noisy views of held-out images rises, and not without the term."""

    def agreement(strength: float) -> float:
        setup = setup_of(buffered=False)
        acquisition = Dalbt(setup.net, generator(), strength=strength, batch_size=32, augment=("jitter",))
        setup = dataclasses.replace(setup, acquisition=acquisition)
        learner = Sgd(setup)
        x, y = clusters(104, seed=4)
        few = exemplars(x[y < 2][:20], y[y < 2][:20])
        learner.begin(Experience(0, (0, 1), few, unlabelled=exemplars(x, torch.full_like(y, -1))))
        for _ in range(60):
            learner.observe(few[:10])
        setup.net.eval()
        acquisition.module.eval()
        view = setup.transform.view(("jitter",), "")
        held, _ = clusters(200, seed=9)
        held = (held // 64 * 64 + torch.randint(0, 64, held.shape, generator=generator(2))).to(torch.uint8)
        with torch.no_grad():
            z1, z2 = (setup.net.features(view(held, generator(i))) for i in (1, 2))
        found = np.corrcoef(z1.T.numpy(), z2.T.numpy())[: z1.shape[1], z1.shape[1] :]
        return float(np.nanmean(np.diagonal(found)))

    assert agreement(3.0) > agreement(0.0) + 0.02


def test_it_chooses_as_its_score_does() -> None:
    pool = pool_of(*clusters(40, seed=1))
    for name, select in (("entropy", entropy), ("margin", None)):
        acquisition = Dalbt(pool.net, generator(), score=name)
        picks = acquisition(pool, 7, rng=generator()).index
        select = select or clsim.spec.registry.component("selectors", name)  # type: ignore[attr-defined]
        assert torch.equal(picks, select(pool, 7, rng=generator()).index)


@pytest.mark.parametrize("score", ["entropy", "badge"])
def test_without_the_term_a_run_is_that_of_its_score_bit_for_bit(tmp_path: Path, score: str) -> None:
    def carried_out(label: str, *settings: str) -> clsim.RunRecord:
        return clsim.run(**RUN, label=label, runs=tmp_path, settings=[*SMALL, *settings])

    options = f"labelling.options.score={score}"
    without, plain = carried_out("dalbt", "labelling.options.strength=0", options), carried_out(score)
    rows = [[entry["rows"] for entry in record.data["labelling"]["rounds"]] for record in (without, plain)]
    assert rows[0] == rows[1]
    assert without.data["accuracy"] == plain.data["accuracy"]
    assert_same(checkpoint(without)["learner"]["net"], checkpoint(plain)["learner"]["net"])
    joint = carried_out("dalbt", options)
    assert not torch.equal(
        checkpoint(joint)["learner"]["net"]["head.weight"], checkpoint(plain)["learner"]["net"]["head.weight"]
    )
    assert np.isfinite(losses(joint)["barlow"]).all()
    assert "barlow" not in losses(without)


@pytest.mark.parametrize("start", ["scratch", "warm"])
def test_a_run_that_is_stopped_ends_bit_for_bit_the_same(tmp_path: Path, start: str) -> None:
    """With the projector, its momentum and its running statistics, whichever round it was stopped in."""
    given = {**RUN, "label": "dalbt", "settings": [*SMALL, f"labelling.start={start}"]}
    watch = Stopping()
    whole = clsim.run(**given, runs=tmp_path / "whole", progress=watch)
    for at in (watch.batches // 3 + 1, watch.batches - 1):
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given, runs=tmp_path / str(at), progress=Stopping(at))
        resumed = clsim.run(**given, runs=tmp_path / str(at))
        assert_same_end(resumed, whole)
        assert_same(checkpoint(resumed)["acquisition"], checkpoint(whole)["acquisition"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "dalbt: strength: found -1"),
        ({"redundancy": -1.0}, "dalbt: redundancy: found -1"),
        ({"width": 0}, "dalbt: width: found 0, allowed: 1 or more"),
        ({"batch_size": 1}, "dalbt: batch_size: found 1, allowed: 2 or more"),
        ({"augment": ()}, "dalbt: augment: found none"),
        ({"score": "learning-loss"}, "dalbt: score: found 'learning-loss', which keeps a state"),
        ({"score": "entropie"}, "entropie.*entropy"),
        ({"score": "forgetting"}, "dalbt: score: found 'forgetting', which needs"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**options)


def test_vectors_are_refused() -> None:
    net = nets.build(nets.mlp, (6,), ONE, 0, CPU)
    with pytest.raises(InputError, match=r"dalbt: data.dataset: found samples of shape 6, allowed: images"):
        Dalbt(net, generator())


def test_an_unknown_augmentation_is_refused_before_training(tmp_path: Path) -> None:
    watch, settings = Stopping(), [*SMALL, 'labelling.options.augment=["crops"]']
    with pytest.raises(InputError, match=r"labelling.options.augment: unknown name 'crops'"):
        clsim.run(**RUN, label="dalbt", runs=tmp_path, settings=settings, progress=watch)
    assert watch.batches == 0

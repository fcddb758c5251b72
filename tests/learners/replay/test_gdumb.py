"""GDumb in its authors' setting: warm restarts, a clipped gradient, CutMix, batch norm in place of biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clsim.checks.learners import check_learner
from clsim.checks.samples import SHAPE, convolutional
from clsim.checks.setups import setup_of as images_of
from clsim.errors import InputError
from clsim.learners.replay.gdumb import Gdumb, cut_and_mixed
from clsim.learners.sgd import Sgd
from clsim.models import nets, optimizers
from clsim.spec.resolve import resolve
from clsim.spec.tables import OptimizerSpec
from clsim.training.contract import Batch
from tests.helpers import generator
from tests.increments import experience, setup_of


def test_warm_restarts_are_the_authors() -> None:
    """Their loop: the first epoch at a tenth, the second at the rate, then a step of torch's scheduler in each."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=1, T_mult=2, eta_min=0.0005)
    wanted = [0.005, 0.05]
    for _ in range(2, 128):
        optimizer.step()
        scheduler.step()
        wanted.append(optimizer.param_groups[0]["lr"])
    spec = resolve("split-mnist", "gdumb").optimizer
    found = [optimizers.rate(spec, step, 128 * 3, epoch=3) for step in range(128 * 3)]
    assert found[::3] == pytest.approx(wanted)
    assert found[::3] == found[1::3] == found[2::3]
    assert optimizers.rate(spec, 128, 256) == 0.05  # 128 epochs end a cosine


def test_a_cosine_may_last_longer_and_grow_otherwise() -> None:
    spec = OptimizerSpec(lr=1.0, schedule="restarts", cycle=2, cycle_growth=1)
    assert [optimizers.rate(spec, step, 6) for step in range(6)] == pytest.approx([1, 0.5] * 3)
    for refused in ({"cycle": 0}, {"cycle_growth": 0}, {"clip": -1.0}, {"schedule": "restarts", "warmup": 0.1}):
        with pytest.raises(InputError, match=r"^optimizer\.(cycle|cycle_growth|clip|warmup): found"):
            OptimizerSpec(**refused)


def test_a_learner_counts_its_own_epochs() -> None:
    """24 samples in batches of 10: three steps an epoch; the first at lr_start, the next two at lr, then a cosine."""
    setup = setup_of(buffer="none", schedule="restarts", lr=0.4, lr_start=0.1, batch_size=10, epochs=4)
    learner, given = Sgd(setup), experience(0)
    learner.begin(given)
    rates = []
    for _ in range(12):
        rates.append(setup.pool(given.train).rate)  # what a selector is told before the step
        learner.observe(given.train[:10])
        assert rates[-1] == learner.optimizer.param_groups[0]["lr"]
    assert rates == pytest.approx([0.1] * 3 + [0.4] * 6 + [0.2] * 3)


def test_a_clipped_step_is_no_longer_than_the_clip() -> None:
    steps = {}
    for clip in (0.0, 1e-3, 1e6):
        setup = setup_of(buffer="none", lr=0.5, clip=clip)
        learner = Sgd(setup)
        before = [p.detach().clone() for p in setup.net.parameters()]
        learner.begin(experience(0))
        learner.observe(experience(0).train)
        moved = [p.detach() - b for p, b in zip(setup.net.parameters(), before, strict=True)]
        steps[clip] = torch.cat([m.flatten() for m in moved])
    assert float(steps[1e-3].norm()) == pytest.approx(0.5e-3, rel=1e-3)
    assert torch.equal(steps[1e6], steps[0.0])
    assert float(F.cosine_similarity(steps[0.0], steps[1e-3], dim=0)) == pytest.approx(1)


def test_a_rectangle_of_another_image_is_pasted() -> None:
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 8, 5).contiguous()
    shares = []
    for seed in range(40):
        mixed, other, share = cut_and_mixed(x, generator(seed))
        own = mixed == x
        pasted = mixed == x[other]
        assert (own | pasted).all()
        assert float(own[other != torch.arange(6)].float().mean()) == pytest.approx(share)
        shares.append(share)
    assert min(shares) < 0.5
    assert max(shares) > 0.9


def test_a_mixed_batch_is_learnt_by_both_labels_each_under_its_own_task() -> None:
    setup = images_of(convolutional, buffered=True)
    learner = Gdumb(setup, cutmix=1.0)
    x = torch.rand(8, *SHAPE, generator=generator(1))
    y, task = torch.arange(8) % 4, torch.arange(8) % 4 // 2
    batch = Batch(x, y, task, 8)
    before = setup.randomness.order.get_state()
    found = learner.inner.objective(setup.net, batch)["new"]
    twin = torch.Generator()
    twin.set_state(before)
    torch.rand((), generator=twin)
    mixed, other, share = cut_and_mixed(x, twin)
    by_hand = share * F.cross_entropy(setup.net(mixed, task), y)
    by_hand = by_hand + (1 - share) * F.cross_entropy(setup.net(mixed, task[other]), y[other])
    torch.testing.assert_close(found, by_hand)
    assert found.isfinite()


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(InputError, match=r"^gdumb: cutmix: found 1\.5, allowed: a probability from 0 to 1$"):
        Gdumb(setup_of(), cutmix=1.5)
    learner, given = Gdumb(setup_of(), cutmix=1.0), experience(0).train
    with pytest.raises(InputError, match=r"^gdumb: cutmix: found 1 with vectors, allowed: 0, or images$"):
        learner.inner.step(given, None)


def test_batch_norm_stands_in_place_of_biases() -> None:
    body = nets.mlp((6,), hidden=(5, 4), norm="batch")
    kinds = [type(layer).__name__ for layer in body]  # type: ignore[attr-defined]
    assert kinds == ["Flatten", *["Linear", "VectorNorm", "ReLU"] * 2]
    assert all(layer.bias is None for layer in body.modules() if isinstance(layer, nn.Linear))
    assert body.train()(torch.randn(1, 6)).isfinite().all()  # the last batch of an epoch may be a single sample
    x = torch.randn(64, 6, generator=generator(0)) * 3 + 1
    first = body[:4](x)  # type: ignore[index]
    linear = body[1](body[0](x))  # type: ignore[index]
    torch.testing.assert_close(first, ((linear - linear.mean(0)) / linear.std(0, correction=0)).relu())
    with pytest.raises(InputError, match=r"^model\.options\.norm: found 'layer', allowed: none, batch$"):
        nets.mlp((6,), norm="layer")  # type: ignore[arg-type]


def test_the_file_is_the_papers_setting_and_other_papers_keep_theirs() -> None:
    spec = resolve("split-mnist", "gdumb", settings=["model.options.hidden=[100,100]"])
    assert spec.model.options == {"hidden": [100, 100], "norm": "batch"}
    assert spec.data.augment == ("crop",)
    assert spec.learner.options == {"epochs": 128}
    assert (spec.optimizer.clip, spec.optimizer.momentum, spec.optimizer.weight_decay) == (10, 0.9, 1e-6)
    assert resolve("split-cifar10", "gdumb").learner.options == {"epochs": 128, "cutmix": 0.5}
    for scenario in ("coreset-cifar10", "condense-cifar100-5x20", "split-fashion-mnist-semi"):
        plain = resolve(scenario, "gdumb").as_dict()
        assert not {"clip", "lr_start", "lr_end"} & set(plain["optimizer"])
        assert "cutmix" not in plain["learner"]["options"]


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_the_contract_is_kept(cutmix: float) -> None:
    def images(setup: Any) -> Gdumb:
        if not any(isinstance(layer, nn.Conv2d) for layer in setup.net.modules()):
            raise InputError("images")
        return Gdumb(setup, cutmix=cutmix)

    check_learner(images)

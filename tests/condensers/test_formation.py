from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.condensers import formation
from clsim.condensers.early import EarlyNets, NetSource, direction, perturb
from clsim.condensers.formation import AUGMENT, Formation, Forming, acc_dd, boxed, difference, idc, learn, pixel_rate
from clsim.condensers.inner_steps import losses
from clsim.condensers.synthesis import Making, synthesise
from clsim.data import tiles
from clsim.errors import InputError
from clsim.models.nets import Net, build, mlp
from clsim.pool.contracts import Condenser
from clsim.pool.pool import Pool
from clsim.spec.options import bind
from tests.condensing import (
    CLASSES,
    SIDE,
    Untrained,
    loss_of,
    material_of,
    normed,
    pool_of,
    shallow,
    synthetic_of,
    with_material,
)
from tests.helpers import assert_same, generator


def filters_of(net: Net, x: Tensor, y: Tensor) -> list[Tensor]:
    net.zero_grad()
    F.cross_entropy(net.head(net.body(x)), y).backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None and p.ndim == 4]


@pytest.mark.parametrize("distance", ["l2", "l1"])
@pytest.mark.parametrize("operations", [(), AUGMENT])
def test_loss_and_gradient_are_zero_where_synthetic_equals_real(distance: str, operations: tuple[str, ...]) -> None:
    material = material_of(pool_of(6), operations)
    synthetic = synthetic_of(material, 6)
    before = synthetic.images.detach().clone()
    loss = Formation(Forming(steps=1, distance=distance))(0, synthetic, material)
    assert abs(float(loss)) < 1e-9
    if distance == "l2":  # an absolute value has no derivative there
        torch.testing.assert_close(synthetic.images.detach(), before, rtol=0, atol=1e-9)
    assert Formation(Forming(steps=1, distance=distance))(0, synthetic_of(material, 6, noise=0.5), material) > 1e-3


def test_images_that_no_step_moves_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the loss of a finished set costs one comparison, not a training of the net."""
    taught: list[int] = []
    monkeypatch.setattr(formation, "learn", lambda *args: taught.append(args[-1]))
    material = material_of(pool_of(6))
    synthetic = synthetic_of(material, 2, noise=0.3)
    still = synthetic.copy(synthetic.images)
    assert (synthetic.still, still.still) == (False, True)
    method = Formation(Forming(steps=3, samples=7))
    loss = method(0, still, material)
    assert not taught
    assert torch.equal(still.images, synthetic.images)
    material.begin(0)
    assert torch.equal(loss, Formation(Forming(steps=1))(0, synthetic_of(material, 2, noise=0.3), material))
    material.begin(0)
    method(0, synthetic, material)
    assert taught == [7, 7]


@pytest.mark.parametrize("squared", [True, False])
def test_loss_and_gradient_are_those_of_a_plain_recomputation_through_the_tiles(squared: bool) -> None:
    pool, material = with_material(pool_of(6))
    synthetic = synthetic_of(material, 2, factor=2)
    start = synthetic.images.detach().clone()
    loss = Formation(Forming(steps=1, distance="l2" if squared else "l1"))(0, synthetic, material)
    material.begin(0)
    net = material.fresh()

    def plain(x: Tensor) -> float:
        total = 0.0
        for c in range(CLASSES):
            mine, real = tiles.apart(x[synthetic.place == c], 2), pool.prepare(pool.data.x[pool.data.y == c])
            assert len(mine) == 8
            pair = [filters_of(net, images, torch.full((len(images),), c)) for images in (real, mine)]
            total += sum(float((a - b).abs().pow(2 if squared else 1).sum()) for a, b in zip(*pair, strict=True))
        return total

    assert float(loss) == pytest.approx(plain(start), rel=1e-9)
    assert synthetic.images.grad is not None
    towards = torch.randn(start.shape, generator=generator(8), dtype=start.dtype)
    slope = (plain(start + 1e-6 * towards) - plain(start - 1e-6 * towards)) / 2e-6
    assert float((synthetic.images.grad * towards).sum()) == pytest.approx(slope, rel=1e-4)


def test_no_more_small_images_than_allowed_are_compared() -> None:
    pool = pool_of(6)
    counts = []
    for most in (128, 3):
        material = material_of(pool)
        before = pool.cost.forward_passes
        Formation(Forming(steps=1, real=4, most=most))(0, synthetic_of(material, 2, factor=2), material)
        counts.append(pool.cost.forward_passes - before)
    assert counts == [CLASSES * (4 + 8), CLASSES * (4 + 3)]


def test_pixels_stay_in_the_range_that_is_stored() -> None:
    material = material_of(pool_of(6))
    assert synthetic_of(material, 2, noise=3.0).images.abs().max() > 2.1
    synthetic = synthetic_of(material, 2, noise=3.0, lr=1e9, clip=True)
    assert synthetic.images.abs().max() <= 2 + 1e-9  # (255 / 255 − 0.5) / 0.25
    Formation(Forming(steps=1))(0, synthetic, material)
    assert synthetic.images.abs().max() <= 2 + 1e-9
    assert (synthetic.images.abs() > 2 - 1e-9).any()


def test_the_net_learns_from_real_samples() -> None:
    material = material_of(pool_of(40, shallow), AUGMENT)
    net, (x, place) = material.fresh(), material.real(40)
    before = losses(net, x, place, material).mean()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for _ in range(40):
        learn(net, optimizer, material, 120)
    assert losses(net, x, place, material).mean() < 0.7 * before


def test_a_cutmix_box_has_the_share_that_it_says() -> None:
    x = torch.zeros(2, 1, 10, 12)
    for lam, down, across in torch.rand(200, 3, generator=generator()).tolist():
        box, share = boxed(x, lam, down, across)
        assert share == pytest.approx(float(box.float().mean()))
        assert share <= 1 - lam + 1e-6
        assert torch.equal(box, box.any(1)[:, None] & box.any(0))
    assert boxed(x, 0.75, 0.5, 0.5)[1] == pytest.approx(0.25)


def test_the_learning_rate_is_that_of_pixels_from_0_to_1() -> None:
    pool = pool_of(6)
    rate = pixel_rate(pool, 3 * CLASSES, 5e-3)
    assert rate == pytest.approx(5e-3 * 0.3 * (SIDE / 32) ** 2 / 0.25**2)
    options = {"iterations": 1, "steps": 2, "samples": 0}
    scaled, given, papers = (
        bind(idc, {**options, **rates})(pool, 3 * CLASSES, rng=generator())
        for rates in ({"lr_scale": 1e4}, {"lr": 1e4 * rate}, {})
    )
    assert torch.equal(scaled.x, given.x)
    assert not torch.equal(scaled.x, papers.x)


def test_directions_have_the_norm_of_each_filter_and_leave_one_dimension_alone() -> None:
    net = pool_of(2, normed).fresh(0)
    parameters = list(net.parameters())
    found = direction(parameters, generator())
    for theta, d in zip(parameters, found, strict=True):
        if theta.ndim < 2:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), theta.flatten(1).norm(dim=1))
            assert d.abs().max() > 0
    assert [d.shape for d in found] == [p.shape for p in parameters]


def test_a_perturbation_is_two_directions_of_1_to_9_percent() -> None:
    pool, lengths, signs = pool_of(2, normed), [], []
    for seed in range(300):
        net, twin = pool.fresh(0), pool.fresh(0)
        perturb(net, generator(seed))
        size, sign = torch.rand(2, 2, generator=(rng := generator(seed)))
        first, second = direction(list(twin.parameters()), rng), direction(list(twin.parameters()), rng)
        alpha = (0.01 + 0.08 * size) * torch.where(sign < 0.5, -1, 1)
        for theta, before, d, e in zip(net.parameters(), twin.parameters(), first, second, strict=True):
            torch.testing.assert_close(theta.detach(), (before + alpha[0] * d + alpha[1] * e).detach())
            if theta.ndim < 2:
                assert torch.equal(theta, before)
        assert_same(dict(net.named_buffers()), dict(twin.named_buffers()))
        lengths += alpha.abs().tolist()
        signs += alpha.sign().tolist()
        moved = (net.body[0].weight - twin.body[0].weight).flatten(1).norm(dim=1)
        relative = moved / twin.body[0].weight.flatten(1).norm(dim=1)
        assert relative.max() <= alpha.abs().sum() + 1e-9
    assert 0.01 <= min(lengths) < 0.012
    assert 0.088 < max(lengths) <= 0.09
    assert abs(sum(signs)) < 5 * 600**0.5


def test_early_nets_have_learnt_take_turns_and_follow_from_the_seed_alone() -> None:
    material = material_of(pool_of(40, shallow))
    x, place = material.real(40)
    nets, plain = NetSource(EarlyNets(3, 30.0, perturb=False)), NetSource(EarlyNets(3, 30.0))
    seen = []
    for i in range(20):
        material.begin(i)
        seen.append(nets(material).head.weight.detach().clone())
    assert len(torch.stack(seen).unique(dim=0)) == 3
    assert losses(nets(material), x, place, material).mean() < 0.8 * losses(material.fresh(), x, place, material).mean()
    late = NetSource(EarlyNets(3, 30.0, perturb=False))  # as after a break
    material.begin(19)
    assert torch.equal(late(material).head.weight, seen[-1])
    material.begin(19)
    assert not torch.equal(plain(material).head.weight, seen[-1])


def test_training_early_nets_moves_no_draw_of_the_iteration() -> None:
    material = material_of(pool_of(6))
    nets, after = NetSource(EarlyNets(2, 1.0)), []
    for _ in range(2):  # trained in the first turn, kept in the second
        with torch.random.fork_rng(devices=[]):
            material.begin(4)
            nets(material)
            after.append((material.rng.get_state(), torch.random.get_rng_state()))
    assert_same(after[0], after[1])


@pytest.mark.parametrize("condense", [idc, acc_dd])
def test_same_seed_same_set_and_torchs_own_generator_is_untouched(condense: Condenser) -> None:
    pool, before = pool_of(8, dtype=torch.float32), torch.random.get_rng_state()
    options = {"iterations": 2, "steps": 2, "samples": 12, "early_epochs": 1.0}
    sets = [bind(condense, options)(pool, 6, rng=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert_same(sets[0].columns(), sets[1].columns())
    assert not torch.equal(sets[0].x, sets[2].x)
    assert sets[0].x.shape == (6, 2, SIDE, SIDE)
    assert sets[0].y.bincount().tolist() == [2, 2, 2]


@pytest.mark.parametrize("early", [0, 2])
def test_more_iterations_lower_the_loss(early: int) -> None:
    pool, found = pool_of(10, shallow, dtype=torch.float32), []
    for iterations in (0, 3, 30):
        method = Formation(Forming(steps=2, samples=0), EarlyNets(early))
        made = synthesise(pool, 6, method, Making(iterations, 2.0, start="noise"), factor=2, rng=generator())
        found.append(loss_of(made, Formation(Forming(steps=1, samples=0)), pool, factor=2))
    assert found[2] < 0.9 * found[1] < 0.9 * found[0]


def test_mistakes_are_one_clear_line() -> None:
    pool = pool_of(4, dtype=torch.float32)
    with pytest.raises(InputError, match="factor: found 3 with images of 8 × 8 pixels, allowed: 1, 2, 4"):
        idc(pool, 3, rng=generator(), forming=Forming(factor=3))
    with pytest.raises(InputError, match="distance: unknown name 'l3'"):
        idc(pool, 3, rng=generator(), forming=Forming(distance="l3"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="samples: found -1, allowed: 0 or more"):
        acc_dd(pool, 3, rng=generator(), forming=Forming(samples=-1))
    fresh = Untrained(lambda seed: build(mlp, (2, SIDE, SIDE), torch.ones(1, 3) > 0, 0, torch.device("cpu")))
    flat = Pool(pool.data, None, pool.prepare, trainer=fresh)
    with pytest.raises(InputError, match="the model has no convolution"):
        bind(idc, {"iterations": 1})(flat, 3, rng=generator())


def test_the_difference_is_summed_over_the_layers() -> None:
    a, b = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])], [torch.tensor([2.0, 0.0]), torch.tensor([[6.0]])]
    assert float(difference(a, b, squared=True)) == 1 + 4 + 9
    assert float(difference(a, b, squared=False)) == 1 + 2 + 3
    assert formation.AUGMENT == ("color", "crop", "cutout")

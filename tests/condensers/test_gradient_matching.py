from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.condensers import gradient_matching, inner_steps
from clsim.condensers.early import EarlyNets
from clsim.condensers.gradient_distance import distance
from clsim.condensers.gradient_matching import GradientMatching, Matching, loop
from clsim.condensers.named import condenser_of
from clsim.condensers.synthesis import Making, Synthetic, synthesise
from clsim.data import siamese
from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.options import bind, options_of
from tests.condensing import CLASSES, loss_of, material_of, normed, pool_of, shallow, synthetic_of, with_material
from tests.helpers import assert_same, generator

METHODS = {
    "dc": gradient_matching.dc,
    "dsa": gradient_matching.dsa,
    "dcc": gradient_matching.dcc,
    "dsac": gradient_matching.dsac,
}
ONE = {1: (1, 1)}


def plain_gradient(net: Net, x: Tensor, y: Tensor) -> list[Tensor]:
    """With ``backward``, of the parameters with two and more dimensions."""
    net.zero_grad()
    F.cross_entropy(net.head(net.body(x)), y).backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None and p.ndim > 1]


def plain_distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Row by row."""
    total = 0.0
    for of_a, of_b in zip(a, b, strict=True):
        for row, other in zip(of_a, of_b, strict=True):
            total += 1 - float((row * other).sum() / (row.norm() * other.norm()))
    return total


def everything_of(pool: Pool, net: Net, position: int) -> list[Tensor]:
    rows = pool.data.y == position
    return plain_gradient(net, pool.prepare(pool.data.x[rows]), pool.data.y[rows])


def test_the_distance_is_that_of_a_plain_recomputation() -> None:
    shapes = [(4, 3, 3, 3), (5, 7), (2, 2)]
    a, b = ([torch.randn(s, generator=generator(i), dtype=torch.float64) for s in shapes] for i in (1, 2))
    assert float(distance(a, b)) == pytest.approx(plain_distance(a, b), abs=1e-12)
    assert float(distance(a, [3 * x for x in a])) == pytest.approx(0, abs=1e-12)
    assert float(distance(a, [-x for x in a])) == pytest.approx(2 * (4 + 5 + 2), abs=1e-12)


def test_rows_of_zeros_are_no_distance_apart_and_send_no_gradient() -> None:
    a = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    b = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.0, 2.0]], requires_grad=True)
    apart = distance([a], [b])
    assert float(apart.detach()) == pytest.approx(1, abs=1e-6)
    apart.backward()
    assert b.grad is not None
    assert torch.isfinite(b.grad).all()
    assert not b.grad[0].any()


@pytest.mark.parametrize("operations", [(), siamese.ALL])
@pytest.mark.parametrize("warm", [None, (0, 0), (9, 9)])
def test_loss_and_gradient_are_zero_where_synthetic_equals_real(
    operations: tuple[str, ...], warm: tuple[int, int] | None
) -> None:
    material = material_of(pool_of(6), operations)
    synthetic = synthetic_of(material, 6)
    before = synthetic.images.detach().clone()
    loss = GradientMatching(ONE, Matching(steps=3), warm=warm)(0, synthetic, material)
    assert abs(float(loss)) < 1e-9
    torch.testing.assert_close(synthetic.images.detach(), before, rtol=0, atol=1e-7)
    away = synthetic_of(material, 6, noise=0.5)
    assert GradientMatching(ONE, warm=warm)(0, away, material) > 0.1
    assert away.images.grad is not None
    assert away.images.grad.abs().sum() > 1e-3


@pytest.mark.parametrize("together", [False, True])
def test_loss_and_gradient_are_those_of_a_plain_recomputation(together: bool) -> None:
    pool, material = with_material(pool_of(6))
    synthetic = synthetic_of(material, 2, noise=0.4)
    start = synthetic.images.detach().clone()
    loss = GradientMatching(ONE, warm=(0, 0) if together else None)(0, synthetic, material)
    material.begin(0)
    net = material.fresh()
    wanted = [everything_of(pool, net, c) for c in range(CLASSES)]
    if together:
        wanted = [[torch.stack(of_one).mean(0) for of_one in zip(*wanted, strict=True)]]

    def plain(x: Tensor) -> float:
        groups = [slice(None)] if together else [synthetic.place == c for c in range(CLASSES)]
        found = [plain_gradient(net, x[rows], synthetic.place[rows]) for rows in groups]
        return sum(plain_distance(a, b) for a, b in zip(wanted, found, strict=True))

    assert float(loss) == pytest.approx(plain(start), rel=1e-9)
    assert synthetic.images.grad is not None
    towards = torch.randn(start.shape, generator=generator(8), dtype=start.dtype)
    slope = (plain(start + 1e-5 * towards) - plain(start - 1e-5 * towards)) / 2e-5
    assert float((synthetic.images.grad * towards).sum()) == pytest.approx(slope, rel=1e-5)


def test_the_gradient_of_real_samples_is_that_of_the_mean_of_the_classes_whatever_their_sizes_and_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool, material = with_material(pool_of(6))
    net = material.fresh()
    weights = [p for p in net.parameters() if p.ndim > 1]
    rows = torch.cat([(pool.data.y == c).nonzero().flatten()[: c + 2] for c in range(CLASSES)])
    x, place = pool.prepare(pool.data.x[rows]), pool.data.y[rows]
    of_each = [plain_gradient(net, x[place == c], place[place == c]) for c in range(CLASSES)]
    wanted = inner_steps.mean(of_each)
    for block in (2, 128):
        monkeypatch.setattr(inner_steps, "BLOCK", block)
        torch.testing.assert_close(inner_steps.gradient(net, weights, x, place, material), wanted)
    torch.testing.assert_close(inner_steps.gradient(net, weights, x, place, material, graph=True), wanted)


def test_only_the_classes_at_hand_are_in_the_softmax() -> None:
    few, many = (material_of(pool_of(4, classes=n)) for n in (CLASSES, 7))
    small, large = few.fresh(), many.fresh()
    large.body.load_state_dict(small.body.state_dict())
    with torch.no_grad():
        large.head.weight[:CLASSES], large.head.bias[:CLASSES] = small.head.weight, small.head.bias
    x, place = few.real(4)
    torch.testing.assert_close(inner_steps.losses(large, x, place, many), inner_steps.losses(small, x, place, few))
    weights = [large.head.weight]
    assert not inner_steps.gradient(large, weights, x, place, many)[0][CLASSES:].any()


def test_dcc_equals_dc_with_one_class() -> None:
    pool = pool_of(6)
    one = pool[(pool.data.y == 1).nonzero().flatten()]
    # another label keeps the softmax from being constant: the class is one, the labels are three
    sets = []
    for warm in (None, (0, 0)):
        material = material_of(one, siamese.ALL)
        material.columns, material.targets = torch.arange(CLASSES), torch.tensor([1])
        x = one.prepare(one.data.x[:2]) + 0.5
        synthetic = Synthetic(x, torch.zeros(2, dtype=torch.int64), material, lr=0.1, momentum=0.5)
        losses = [float(GradientMatching(ONE, Matching(steps=2), warm=warm)(0, synthetic, material))]
        sets.append((losses, synthetic.images.detach()))
    assert sets[0][0][0] > 0.01
    assert_same(sets[0], sets[1])


def test_with_several_classes_dcc_is_not_dc_and_its_warm_up_is() -> None:
    sets = []
    for warm in (None, (1, 1), (1, 9), (0, 9)):
        material = material_of(pool_of(6))
        synthetic = synthetic_of(material, 2, noise=0.5)
        GradientMatching(ONE, Matching(steps=2), warm=warm)(0, synthetic, material)
        sets.append(synthetic.images.detach())
    apart, half, whole, none = sets
    assert torch.equal(apart, whole)
    assert not torch.equal(apart, half)
    assert not torch.equal(half, none)


@pytest.mark.parametrize("method", ["dcc", "dsac"])
def test_the_warm_up_is_a_quarter_of_the_iterations_unless_it_is_said(method: str) -> None:
    def made(warm: int) -> Exemplars:
        return bind(METHODS[method], {"iterations": 4, "steps": 2, "warm_iterations": warm, "real": 4})(
            pool_of(6), 6, rng=generator()
        )

    assert torch.equal(made(-1).x, made(1).x)
    assert not torch.equal(made(-1).x, made(250).x)


def test_the_reported_loss_of_dcc_is_the_same_in_and_after_the_warm_up() -> None:
    losses = []
    for warm in ((1, 1), (0, 0)):
        material = material_of(pool_of(6))
        losses.append(float(GradientMatching(ONE, warm=warm)(0, synthetic_of(material, 2, noise=0.5), material)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_the_loops_are_the_papers_by_images_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the authors' code; between two of them, on the line through both."""
    published = {10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    for table, one in ((gradient_matching.LOOPS, (1, 1)), (gradient_matching.CONTRASTIVE_LOOPS, (10, 5))):
        assert {n: loop(table, n) for n in (1, *published)} == {1: one, **published}
        assert loop(table, 0) == one
        assert loop(table, 1000) == (50, 10)
        for n in range(1, 50):
            steps, epochs = loop(table, n)
            below, above = max(k for k in (1, *published) if k <= n), min(k for k in published if k > n)
            for value, a, b in zip((steps, epochs), loop(table, below), loop(table, above), strict=True):
                assert abs((value - a) * (above - below) - (b - a) * (n - below)) <= (above - below) / 2
    trained: list[int] = []
    monkeypatch.setattr(gradient_matching, "train", lambda *args: trained.append(args[-1]))
    for each, wanted in ((1, []), (2, [6])):
        material = material_of(pool_of(4))
        GradientMatching(gradient_matching.LOOPS)(0, synthetic_of(material, each), material)
        assert trained == wanted
    material = material_of(pool_of(21))
    GradientMatching(gradient_matching.LOOPS, Matching(real=2))(0, synthetic_of(material, 20), material)
    assert trained[1:] == 19 * [25]


@pytest.mark.parametrize("name", METHODS)
def test_the_net_moves_down_its_gradient_alone_and_the_images_with_momentum(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the authors' code, whose momentum of 0.5 is that of the images."""
    momenta: dict[str, set[float]] = {"net": set(), "images": set()}

    class Watched(torch.optim.SGD):
        def step(self, *args: Any) -> None:
            parameters = self.param_groups[0]["params"]
            momenta["net" if len(parameters) > 1 else "images"].add(self.param_groups[0]["momentum"])
            super().step(*args)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    options = {"iterations": 2, "steps": 3, "epochs": 2, "real": 4}
    bind(METHODS[name], options)(pool_of(6, dtype=torch.float32), 6, rng=generator())
    assert momenta == {"net": {0.0}, "images": {0.5}}


def test_images_that_no_step_moves_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    monkeypatch.setattr(gradient_matching, "train", lambda *args: trained.append(args[-1]))
    material = material_of(pool_of(6))
    synthetic = synthetic_of(material, 2, noise=0.3)
    method = GradientMatching({1: (3, 7)})
    still = synthetic.copy(synthetic.images)
    loss = method(0, still, material)
    assert not trained
    assert torch.equal(still.images, synthetic.images)
    material.begin(0)
    method(0, synthetic, material)
    assert trained == [7, 7]
    assert not torch.equal(still.images, synthetic.images)
    material.begin(0)
    moving = synthetic_of(material, 2, noise=0.3)
    assert torch.equal(loss, GradientMatching({1: (1, 7)})(0, moving, material))


def test_between_the_steps_the_net_trains_on_the_synthetic_images() -> None:
    material = material_of(pool_of(6))
    synthetic = synthetic_of(material, 2)
    x, place = synthetic.decoded()
    net = material.fresh()
    before = inner_steps.losses(net, x, place, material).mean()
    inner_steps.train(net, torch.optim.SGD(net.parameters(), 0.1), x.detach(), place, material, 40)
    assert inner_steps.losses(net, x, place, material).mean() < 0.9 * before


def test_batch_norms_keep_the_statistics_of_real_images_while_gradients_are_compared() -> None:
    material = material_of(pool_of(8, normed))
    net = material.fresh()
    inner_steps.freeze_norms(net, material)
    norm = net.body[1]
    assert not norm.training
    assert norm.momentum == 0.1
    activations = net.body[0](material.pool.prepare(material.pool.data.x))  # all 8 of each class, fewer than 16
    torch.testing.assert_close(norm.running_mean, activations.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, activations.var((0, 2, 3)))
    synthetic = synthetic_of(material, 8)
    assert abs(float(GradientMatching(ONE, Matching(steps=2))(0, synthetic, material))) < 1e-9


def test_no_batch_is_a_single_sample_left_over() -> None:
    for n, most in ((257, 256), (1, 64), (65, 64), (500, 64), (512, 256)):
        sizes = [len(part) for part in inner_steps.parts(torch.arange(n), most)]
        assert sum(sizes) == n
        assert max(sizes) <= most
        assert min(sizes) > 1 or n == 1


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_set_and_torchs_own_generator_is_untouched(name: str) -> None:
    pool, before = pool_of(6, dtype=torch.float32), torch.random.get_rng_state()
    condense = bind(METHODS[name], {"iterations": 2, "steps": 2, "epochs": 1, "real": 4})
    sets = [condense(pool, 6, rng=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert_same(sets[0].columns(), sets[1].columns())
    assert not torch.equal(sets[0].x, sets[2].x)
    assert sets[0].x.dtype == torch.uint8
    assert sets[0].y.bincount().tolist() == [2, 2, 2]


@pytest.mark.parametrize("together", [False, True])
def test_more_iterations_lower_the_loss(together: bool) -> None:
    """In nets that the images were not made with."""
    pool, found = pool_of(10, shallow, dtype=torch.float32), []
    for iterations in (0, 5, 40):
        method = GradientMatching(ONE, Matching(real=10), warm=(0, 0) if together else None)
        made = synthesise(pool, 6, method, Making(iterations, 0.5, start="noise"), rng=generator())
        found.append(loss_of(made, method, pool))
    assert found[2] < 0.8 * found[1] < 0.8 * found[0]


def test_early_nets_are_an_option_of_all() -> None:
    for name, condense in METHODS.items():
        pool = pool_of(6, dtype=torch.float32)
        options = {"iterations": 1, "steps": 1, "real": 4}
        early = bind(condense, {"early_nets": 1, "early_epochs": 5, **options})(pool, 6, rng=generator())
        random = bind(condense, options)(pool, 6, rng=generator())
        assert not torch.equal(early.x, random.x), name


@pytest.mark.parametrize("name", COMPONENTS["condensers"])
def test_digits_are_mirrored_by_none_and_change_no_other_operation(name: str) -> None:
    for digits in (False, True):
        made = options_of(condenser_of(name, {}, digits))
        if "augment" in made:
            plain = options_of(registry.component("condensers", name))["augment"].default
            assert tuple(made["augment"].default) == tuple(op for op in plain if op != "flip" or not digits)


def test_mistakes_are_one_clear_line() -> None:
    pool = pool_of(4)
    with pytest.raises(InputError, match="steps: found -1, allowed: 0 or more"):
        gradient_matching.dc(pool, 3, rng=generator(), matching=Matching(steps=-1))
    with pytest.raises(InputError, match="real: found 0, allowed: 1 or more"):
        gradient_matching.dsac(pool, 3, rng=generator(), matching=Matching(real=0))
    with pytest.raises(InputError, match="early_nets: found -2, allowed: from 0"):
        gradient_matching.dcc(pool, 3, rng=generator(), early=EarlyNets(early_nets=-2))

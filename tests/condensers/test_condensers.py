"""Condensers: DM's certificate, the frame, the memory that is made, and the checks that refuse broken ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import clsim
from clsim.checks.condensers import check_condenser
from clsim.checks.samples import CheckFailed, clusters, exemplars
from clsim.checks.samples import pool_of as small_pool
from clsim.condensers.distribution import MeanMatching, dm, means, rate
from clsim.condensers.drawn import Fresh, builder
from clsim.condensers.gradient_matching import GradientMatching, Matching
from clsim.condensers.synthesis import Making, Material, Synthetic, synthesise
from clsim.data import tiles
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.models import nets, resnet
from clsim.models.nets import InstanceNorm, Net
from clsim.pool.contracts import decoded, factor_of
from clsim.pool.exemplars import Exemplars, concatenate, groups
from clsim.pool.pool import Cost, Pool
from clsim.spec import components, registry
from clsim.spec.options import bind, options_of
from clsim.spec.resolve import resolve
from clsim.spec.tables import MemorySpec
from tests.condensing import CLASSES, Untrained, loss_of, material_of, normed, pool_of, shallow, synthetic_of
from tests.helpers import generator


def class_by_class(
    synthetic: Synthetic, material: Material, net: Net, changes: Sequence[Callable[[Tensor], Tensor]]
) -> Tensor:
    """DM's loss as the paper's algorithm has it: a class after the other, on all real samples."""
    loss = torch.zeros((), dtype=torch.float64)
    for c, change in enumerate(changes):
        real = material.pool.prepare(material.pool.data.x[material.pool.data.y == c])
        made = synthetic.of(c)[0]
        apart = net.features(change(real)).mean(0) - net.features(change(made)).mean(0)
        loss = loss + apart.square().sum()
    return loss


@pytest.mark.parametrize("operations", [(), ("color",), ("scale", "flip")])
def test_one_pass_over_all_classes_is_the_loop_over_classes(operations: tuple[str, ...]) -> None:
    """Loss and step of the batched method, against a loop with the same net and the same augmentations."""
    material = material_of(pool_of(12, dtype=torch.float32), operations)
    synthetic = synthetic_of(material, 4, noise=0.5)
    net, changes = material.fresh(), [material.change() for _ in range(CLASSES)]
    wanted = class_by_class(synthetic, material, net, changes)
    (slope,) = torch.autograd.grad(wanted, synthetic.images)
    before = synthetic.images.detach().clone()
    material.begin(0)
    loss = MeanMatching(256)(0, synthetic, material)
    torch.testing.assert_close(loss.double(), wanted.detach().double(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(synthetic.images.detach(), before - 0.1 * slope, rtol=1e-3, atol=1e-5)


def test_each_class_is_augmented_by_its_own_draw_the_same_for_real_and_synthetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The paper's loss has A_c within the sum over classes."""
    seen: list[list[Tensor]] = []
    material = material_of(pool_of(12, dtype=torch.float32), ("crop",))
    drawn = material.change

    def change(n: int | None = None) -> Callable[[Tensor], Tensor]:
        augment, inputs = drawn(n), []
        seen.append(inputs)
        return lambda x: inputs.append(x.detach().clone()) or augment(x)

    monkeypatch.setattr(material, "change", change)
    synthetic = synthetic_of(material, 4)
    MeanMatching(5)(0, synthetic, material)
    assert len(seen) == CLASSES
    whole = material.pool.prepare(material.pool.data.x)
    for c, (real, made) in enumerate(seen):
        assert (len(real), len(made)) == (5, 4)
        of_class = {row.numpy().tobytes() for row in whole[material.pool.data.y == c]}
        assert {row.numpy().tobytes() for row in [*real, *made]} <= of_class


def test_grouped_means_are_the_means_of_each_group() -> None:
    x, place = torch.randn(50, 7, generator=generator()), torch.arange(50) % 4
    wanted = torch.stack([x[place == c].mean(0) for c in range(4)])
    torch.testing.assert_close(means(x, place, 4), wanted)


@pytest.mark.parametrize("model", [None, normed], ids=["instance norm", "batch norm"])
def test_nothing_is_left_to_do_where_synthetic_equals_real(model: Callable | None) -> None:
    pool = pool_of(6, dtype=torch.float32) if model is None else pool_of(6, model, dtype=torch.float32)
    material = material_of(pool, ("rotate", "crop"))
    synthetic = synthetic_of(material, 6)
    before = synthetic.images.detach().clone()
    loss = MeanMatching(256)(0, synthetic, material)
    assert float(loss) < 1e-9
    assert float((synthetic.images.detach() - before).abs().max()) < 1e-5
    away = synthetic_of(material, 6, noise=0.5)
    material.begin(0)
    assert float(MeanMatching(256)(0, away, material)) > 1e-4


def test_more_iterations_lower_the_loss() -> None:
    """In nets that no iteration has seen."""
    pool = pool_of(40, shallow, dtype=torch.float32)
    losses = []
    for iterations in (0, 10, 100):
        made = dm(pool, 2 * CLASSES, rng=generator(), making=Making(iterations, 10.0, start="noise"), augment=())
        made = made[made.y.argsort(stable=True)]
        material = Material(pool, groups(pool.data), 7)
        still = Synthetic(pool.prepare(made.x), made.y, material, lr=0.0, momentum=0.0)
        total = 0.0
        for i in range(10):
            material.begin(i)
            total += float(MeanMatching(256)(i, still, material))
        losses.append(total)
    assert losses[2] < 0.5 * losses[1] < 0.25 * losses[0]


def test_fresh_nets_are_redrawn_in_place_and_are_what_building_gives() -> None:
    def build(seed: int) -> Net:
        net = nets.build(resnet.slim_resnet18, (3, 8, 8), torch.ones(1, 3, dtype=torch.bool), seed, torch.device("cpu"))
        return net.to(memory_format=torch.channels_last)

    fresh = Fresh(build)
    first = fresh(3)
    first(torch.randn(4, 3, 8, 8, generator=generator()), torch.zeros(4, dtype=torch.int64)).sum().backward()
    state = torch.get_rng_state()
    again = fresh(4)
    assert torch.equal(state, torch.get_rng_state())
    assert again is first
    assert all(p.grad is None for p in again.parameters())
    for mine, built in zip(again.state_dict().values(), build(4).state_dict().values(), strict=True):
        assert torch.equal(mine, built)


def test_a_net_with_weights_of_its_own_is_built_each_time() -> None:
    def build(seed: int) -> Net:
        net = nets.build(nets.mlp, (1, 6, 6), torch.ones(1, 3, dtype=torch.bool), seed, torch.device("cpu"))
        with torch.no_grad():
            net.head.weight.mul_(2)
        return net

    fresh = Fresh(build)
    for seed in (1, 2):
        assert torch.equal(fresh(seed).head.weight, build(seed).head.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 32])
def test_instance_norm_is_the_same_in_every_format(dtype: torch.dtype, side: int) -> None:
    norm = InstanceNorm(8).to(dtype)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=generator(1))
        norm.bias.uniform_(-1, 1, generator=generator(2))
    plain = torch.randn(3, 8, side, side, generator=generator()).to(dtype)
    grads, outs = [], []
    for x in (plain.float(), plain.contiguous(memory_format=torch.channels_last)):
        x = x.clone().requires_grad_()
        reference = (
            torch.nn.functional.group_norm(x, 8, norm.weight.float(), norm.bias.float()) if not outs else norm(x)
        )
        (reference.float() * plain.float()).sum().backward()
        outs.append(reference.float())
        grads.append(x.grad.float())
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.03, "atol": 0.1}
    torch.testing.assert_close(outs[1], outs[0], **tolerance)
    torch.testing.assert_close(grads[1], grads[0], **tolerance)


def test_convnet3_has_the_papers_form() -> None:
    for shape, width in (((3, 32, 32), 2048), ((1, 28, 28), 2048)):
        body = nets.convnet3(shape)
        assert body(torch.zeros(1, *shape)).shape == (1, width)
        assert [m.num_groups for m in body.modules() if isinstance(m, torch.nn.GroupNorm)] == [128] * 3


def test_tiles_come_apart_as_they_were_put_together() -> None:
    x = torch.randn(8, 3, 1, 1, generator=generator()).expand(8, 3, 8, 8)  # flat: nothing is lost by scaling
    stored = tiles.together(x, 2)
    assert stored.shape == (2, 3, 8, 8)
    torch.testing.assert_close(tiles.apart(stored, 2), x)
    with pytest.raises(InputError, match="factor: found 3 with images of 8 × 8 pixels, allowed: 1, 2, 4"):
        tiles.apart(stored, 3)


def test_the_rate_is_the_papers_at_its_length_and_no_longer_a_walk_at_any_other() -> None:
    """By hand: 1, and 10 from 100 images a class on, over 20,000 iterations; larger steps where there are fewer."""
    for images in (1, 2, 10, 50, 99):
        assert rate(images, 20_000) == rate(images, 50_000) == 1
        rates = [(rate(images, n), n) for n in (1, 50, 300, 2000, 10_000)]
        assert all(1 <= lr <= images for lr, _ in rates)
        assert all(lr * n <= 20_000 for lr, n in rates)
        assert rates == sorted(rates, reverse=True, key=lambda pair: pair[0])
    assert (rate(100, 20_000), rate(200, 20_000), rate(100, 50)) == (10, 10, 100)
    assert rate(1, 50) == 1
    assert rate(10, 300) == rate(10, 50) == 10


def test_a_rate_that_is_given_is_kept_and_one_that_is_not_is_of_the_images_a_class() -> None:
    pool = pool_of(12, dtype=torch.float32)

    def made(each: int, **options: float) -> Tensor:
        return bind(dm, {"iterations": 3, "real": 4, **options})(pool, each * CLASSES, rng=generator()).x

    assert torch.equal(made(8), made(8, lr=8.0))
    assert not torch.equal(made(8), made(8, lr=1.0))
    assert torch.equal(made(1), made(1, lr=1.0))


def test_few_iterations_at_the_derived_rate_lower_the_loss_further_than_at_the_papers() -> None:
    """In nets that the images were not made with: 1 belongs to 20,000 iterations."""
    pool = pool_of(40, shallow, dtype=torch.float32)

    def left(lr: float) -> float:
        making = Making(20, lr, start="noise")
        return loss_of(dm(pool, 10 * CLASSES, rng=generator(), making=making, augment=()), MeanMatching(40), pool)

    assert left(0.0) < 0.5 * left(1.0)


def test_vectors_are_condensed_without_augmentation() -> None:
    x, y = clusters(40, seed=1)
    pool = small_pool(x.flatten(1).float(), y)
    made, start = (dm(pool, 8, rng=generator(), making=Making(n, 1.0)) for n in (3, 0))
    assert made.x.shape == (8, x[0].numel())
    assert not torch.equal(made.x, start.x)


@pytest.mark.parametrize("start", ["real", "noise", "herding"])
def test_starts(start: str) -> None:
    x, y = clusters(40, seed=1)
    made = dm(small_pool(x, y), 8, rng=generator(), making=Making(0, 1.0, start=start))
    rows = {row.numpy().tobytes() for row in x}
    assert all((row.numpy().tobytes() in rows) == (start != "noise") for row in made.x)


def test_the_first_of_each_class_come_first() -> None:
    x, y = clusters(40, seed=1)
    assert dm(small_pool(x, y), 8, rng=generator(), making=Making(0, 1.0)).y.tolist() == [0, 1, 2, 3] * 2


BOUNDS = {"iterations": 1, "steps": 2, "epochs": 1, "real": 8, "samples": 8, "early_epochs": 1.0}


@pytest.mark.parametrize("name", components.COMPONENTS["condensers"])
def test_shipped_condensers_keep_the_contract(name: str) -> None:
    known = options_of(registry.component("buffers", name))
    options = {option: value for option, value in BOUNDS.items() if option in known}
    check_condenser(registry.component("buffers", name, options, "options"))


@pytest.mark.parametrize("name", components.COMPONENTS["condensers"])
def test_a_stream_is_condensed_through_convnet3_with_options_that_the_method_has(name: str) -> None:
    known = options_of(registry.component("condensers", name))
    flags = {"memory": {"buffer": name}}
    options = resolve("split-cifar100", "er", flags=flags).memory.options
    assert options["model"] == "convnet3"
    assert set(options) <= set(known)
    assert options.get("start", known["start"].default) == "real"  # noise stays noise in so few steps
    shorter = resolve("split-cifar100", "er", flags=flags, settings=["memory.options.iterations=1"]).memory.options
    assert shorter == options | {"iterations": 1}


@pytest.mark.parametrize("name", ["dc", "dsa", "dcc", "dsac"])
def test_the_steps_of_a_stream_go_further_at_its_rate_than_at_the_papers(name: str) -> None:
    """In nets that the images were not made with: 0.1 belongs to 1000 iterations."""
    pool = pool_of(40, shallow, dtype=torch.float32)
    options = resolve("split-cifar100", "er", flags={"memory": {"buffer": name}}).memory.options | {"model": ""}
    method = GradientMatching({1: (1, 1)}, Matching(real=40))

    def left(lr: float) -> float:
        made = bind(registry.component("condensers", name), options | {"lr": lr})(pool, 2 * CLASSES, rng=generator())
        return loss_of(made, method, pool)

    assert left(float(options["lr"])) < left(0.1)


def test_nets_of_another_model_have_the_classes_of_the_runs_net() -> None:
    pool = pool_of(6, shallow, classes=7, dtype=torch.float32)
    build = builder(pool, "convnet3")
    net = build(3)
    assert sum(isinstance(m, InstanceNorm) for m in net.modules()) == 3
    assert torch.equal(net.visible, pool.fresh(0).visible)
    assert torch.equal(net.head.weight, build(3).head.weight)
    assert not torch.equal(net.head.weight, build(4).head.weight)
    assert builder(pool, "") == pool.fresh
    with pytest.raises(InputError, match="did you mean 'convnet3'"):
        dm(pool, 3, rng=generator(), making=Making(1, 1.0, model="convnet"))


@pytest.mark.parametrize("clip", [False, True])
def test_pixels_are_kept_in_their_range_after_each_step_if_asked(clip: bool) -> None:
    material = material_of(pool_of(6, dtype=torch.float32))
    synthetic = synthetic_of(material, 2, lr=1e6, clip=clip)
    MeanMatching(8)(0, synthetic, material)
    assert bool(synthetic.images.abs().max() > 2.001) != clip  # (255 / 255 − 0.5) / 0.25
    assert bool((synthetic.restored() - synthetic.images).abs().max() < 1 / 32) == clip  # half a grey level of 4 / 255


def _whole(pool: Pool, budget: int, rng: torch.Generator) -> Exemplars:
    return dm(pool, budget, rng=rng, making=Making(0, 1.0))


def _as_floats(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    made = _whole(pool, budget, rng)
    return dataclasses.replace(made, x=made.x.float())


def _too_many(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    return _whole(pool, budget + 1, rng)


def _unbalanced(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    known = pool.data[pool.data.y >= 0]
    return known[known.y.argsort(stable=True)[:budget]]


def _of_a_global_generator(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    torch.rand(1)
    return _whole(pool, budget, rng)


def _other_each_time(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    return _whole(pool, budget, torch.Generator().manual_seed(torch.Generator().seed()))


def _changes_the_pool(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    made = _whole(pool, budget, rng)
    pool.data.x[:1] = 0
    return made


def _trains_the_net(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    made = _whole(pool, budget, rng)
    with torch.no_grad():
        pool.net.head.weight.add_(1)
    return made


def _mislabels(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
    made = _whole(pool, budget, rng)
    return dataclasses.replace(made, y=made.y + 9)


def _picks(pool: Pool, budget: int, *, rng: torch.Generator) -> Tensor:
    return pool.data.x[:budget]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (_as_floats, "not torch.uint8 of shape"),
        (_too_many, r"not min\(budget, labelled samples\)"),
        (_unbalanced, "unbalanced"),
        (_of_a_global_generator, "drew from torch's global generator"),
        (_other_each_time, "when called again"),
        (_changes_the_pool, "changed the pool's column 'x'"),
        (_trains_the_net, "changed the net"),
        (_mislabels, "which no labelled sample of the pool has"),
        (_picks, "returned a Tensor"),
    ],
)
def test_broken_condensers_are_refused(broken: Callable, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        check_condenser(broken)


def make_pool(samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None) -> Pool:
    like = small_pool(samples.x, samples.y)
    return Pool(samples, like.net, like.prepare, trainer=Untrained(like.fresh))


def two_tasks() -> list[Exemplars]:
    x, y = clusters(80, seed=1)
    every = exemplars(x, y)
    return [
        dataclasses.replace(part, task=torch.full_like(part.y, task))
        for task, part in enumerate((every[every.y < 2], every[every.y >= 2]))
    ]


def test_a_fixed_memory_keeps_a_prefix_of_old_classes_and_condenses_new_ones() -> None:
    seen: list[int] = []

    def watched(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
        seen.extend(pool.data.y.unique().tolist())
        return dm(pool, budget, rng=rng, making=Making(1, 1.0))

    memory = Buffer(MemorySpec(buffer="dm", capacity=12), None, rng=generator(), cost=Cost(), condense=watched)
    first, second = two_tasks()
    memory.after_experience(first, 2, make_pool)
    old = memory.stored
    assert old.y.bincount().tolist() == [6, 6]
    memory.after_experience(second, 4, make_pool)
    assert memory.stored.y.bincount().tolist() == [3, 3, 3, 3]
    assert seen == [0, 1, 2, 3]
    for c in (0, 1):
        assert torch.equal(memory.stored.x[memory.stored.y == c], old.x[old.y == c][:3])
    assert memory.stored.nbytes == 12 * 36
    memory.after_experience(concatenate([first, second]), 4, make_pool)  # all of it is held
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("factor", [1, 2])
def test_a_fixed_memory_condenses_what_it_had_for_a_smaller_share(factor: int) -> None:
    real: list[tuple[Tensor, Tensor, int, str]] = []

    def watched(
        pool: Pool, budget: int, *, rng: torch.Generator, start: str = "noise", factor: int = factor
    ) -> Exemplars:
        real.append((pool.data.x, pool.data.y, budget, start))
        return synthesise(pool, budget, MeanMatching(8), Making(1, 1.0, start=start), factor=factor, rng=rng)

    spec = MemorySpec(buffer="mine", capacity=12, shrink="condense")
    memory = Buffer(spec, None, rng=generator(), cost=Cost(), condense=watched)
    first, second = two_tasks()
    memory.after_experience(first, 2, make_pool)
    old = memory.exemplars
    memory.after_experience(second, 4, make_pool)
    assert memory.stored.y.bincount().tolist() == [3, 3, 3, 3]
    assert sorted(zip(memory.stored.y.tolist(), memory.stored.task.tolist(), strict=True)) == [
        (c, c // 2) for c in range(4) for _ in range(3)
    ]
    assert len(memory.stored.index.unique()) == 12
    (_, _, _, begun), (x, y, budget, again), (_, fresh, _, begun_too) = real
    assert (begun, again, begun_too) == ("noise", "real", "noise")  # what is condensed again does not begin with noise
    assert (budget, fresh.unique().tolist()) == (6, [2, 3])
    for c in (0, 1):  # the images that it had are what it is to resemble, as a net sees them
        assert torch.equal(x[y == c], old.x[old.y == c])
    memory.after_experience(concatenate([first, second]), 4, make_pool)  # no share shrinks
    assert len(real) == 3


def test_an_uneven_share_is_kept_where_it_does_not_shrink() -> None:
    memory = Buffer(
        MemorySpec(buffer="dm", capacity=11, shrink="condense"),
        None,
        rng=generator(),
        cost=Cost(),
        condense=bind(dm, {"iterations": 1}),
    )
    x, y = clusters(80, seed=1)
    few = exemplars(x, y)[torch.cat([(y == 0).nonzero().flatten()[:2], (y == 1).nonzero().flatten()])]
    memory.after_experience(few, 2, make_pool)
    old = memory.stored
    assert old.y.bincount().tolist() == [2, 9]
    memory.after_experience(two_tasks()[1], 4, make_pool)
    assert memory.stored.y.bincount().tolist() == [2, 3, 3, 3]
    assert torch.equal(memory.stored.x[memory.stored.y == 0], old.x[old.y == 0])
    assert not torch.equal(memory.stored.x[memory.stored.y == 1], old.x[old.y == 1][:3])


def test_condensing_again_matches_what_was_there_better_than_dropping() -> None:
    like = pool_of(40, shallow, dtype=torch.float32)

    def pool(samples: Exemplars, *, reference: Exemplars | None = None, incoming: Exemplars | None = None) -> Pool:
        return Pool(samples, None, like.prepare, trainer=Untrained(like.fresh))

    def loss(shrink: str) -> float:
        spec = MemorySpec(buffer="dm", capacity=24, shrink=shrink)  # type: ignore[arg-type]
        make = bind(dm, {"iterations": 60, "lr": 10.0, "augment": ()})
        memory = Buffer(spec, None, rng=generator(), cost=Cost(), condense=make)
        memory.after_experience(like.data, 3, pool)
        old = memory.stored
        later = dataclasses.replace(like.data, task=like.data.task + 1)  # the same labels are other classes there
        memory.after_experience(later, 6, pool)
        held = memory.stored[memory.stored.task == 0]
        assert len(old) == 2 * len(held) == 24
        return loss_of(held, MeanMatching(40), pool(old))

    assert loss("condense") < 0.5 * loss("drop")


def test_dm_implies_that_a_fixed_memory_condenses_again() -> None:
    def shrink(*settings: str, buffer: str = "dm") -> str:
        spec = resolve("split-digits", "er", settings=settings, flags={"memory": {"buffer": buffer}})
        assert ("shrink" in spec.as_dict()["memory"]) == (spec.memory.shrink == "condense")
        return spec.memory.shrink

    assert shrink() == shrink("memory.per=task") == shrink("memory.shrink=condense", buffer="idc") == "condense"
    assert shrink("memory.per=class") == shrink("memory.shrink=drop") == "drop"
    assert shrink(buffer="idc") == shrink(buffer="herding") == "drop"


@pytest.mark.parametrize("name", ["dm", "dsa", "dsac", "idc", "dc"])
def test_no_digit_is_mirrored(name: str) -> None:
    def augment(data: dict) -> list[str]:
        options = resolve({"data": data}, "er", flags={"memory": {"buffer": name}}).memory.options
        made = registry.component("condensers", name, options)
        option = options_of(made).get("augment")
        return [] if option is None else list(option.default)

    mirrored = ["flip"] if name in ("dm", "dsa", "dsac") else []
    for data in ({"dataset": "mnist"}, {"dataset": "sequence", "sequence": ["svhn", "usps"], "size": 32}):
        assert augment(data) == [operation for operation in augment({"dataset": "cifar10"}) if operation != "flip"]
    for data in ({"dataset": "cifar10"}, {"dataset": "sequence", "sequence": ["svhn", "cifar10"], "size": 32}):
        assert [operation for operation in augment(data) if operation == "flip"] == mirrored


def test_a_growing_memory_keeps_what_it_has() -> None:
    spec = MemorySpec(buffer="dm", capacity=3, per="class")
    memory = Buffer(spec, None, rng=generator(), cost=Cost(), condense=bind(dm, {"iterations": 1}))
    first, second = two_tasks()
    memory.after_experience(first, 2, make_pool)
    old = memory.stored
    memory.after_experience(second, 4, make_pool)
    assert torch.equal(memory.stored.x[:6], old.x)
    assert memory.stored.y.bincount().tolist() == [3] * 4


def tiled(pool: Pool, budget: int, *, rng: torch.Generator, factor: int = 2) -> Exemplars:
    return synthesise(pool, budget, MeanMatching(8), Making(1, 1.0), factor=factor, rng=rng)


def test_tiles_are_replayed_as_images_and_counted_as_stored() -> None:
    memory = Buffer(
        MemorySpec(buffer="mine", capacity=4, batch_size=10), None, rng=generator(), cost=Cost(), condense=tiled
    )
    first, _ = two_tasks()
    memory.after_experience(first, 2, make_pool)
    assert factor_of(partial(tiled, factor=3)) == 3
    assert (len(memory), memory.stored.nbytes, len(memory.exemplars)) == (4, 4 * 36, 16)
    virtual = {row.numpy().tobytes() for row in decoded(memory.stored, 2).x}
    batch = memory.sample(first[:2], make_pool).exemplars
    assert len(batch) == 10
    assert {row.numpy().tobytes() for row in batch.x} <= virtual
    state, again = memory.state_dict(), Buffer(memory.spec, None, rng=generator(), cost=Cost(), condense=tiled)
    again.load_state_dict(state, torch.device("cpu"))
    assert torch.equal(again.exemplars.x, memory.exemplars.x)


def test_a_condenser_waits_for_the_end_of_an_experience() -> None:
    with pytest.raises(InputError, match="found 'batch' with the condenser 'dm', allowed: experience"):
        Buffer(MemorySpec(buffer="dm", update="batch"), None, rng=generator(), cost=Cost(), condense=dm)


@pytest.mark.parametrize("strategy", ["er", "gdumb"])
def test_a_condenser_fills_the_memory_of_a_run(strategy: str, tmp_path: Path) -> None:
    settings = ["memory.options.iterations=1", "data.per_class=20", "memory.options.augment=['crop']"]
    runs = [
        clsim.run("split-digits", strategy, buffer="dm", memory=20, settings=settings, runs=tmp_path / str(i))
        for i in range(2)
    ]
    assert runs[0].accuracy.equals(runs[1].accuracy)
    assert [c["memory_bytes"] for c in runs[0].data["cost"]][-1] == 20 * 64


def test_a_condenser_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from clsim.condensers.distribution import dm\n"
        "from clsim.condensers.synthesis import Making\n"
        "def make(pool, budget, *, rng, iterations=1):\n"
        "    return dm(pool, budget, rng=rng, making=Making(iterations, lr=1.0))\n"
    )
    record = clsim.run(
        "split-digits", "er", buffer="condensed(./mine.py:make)", memory=10, settings=["data.per_class=9"]
    )
    assert record.data["cost"][-1]["memory_bytes"] == 10 * 64
    assert record.data["spec"]["sources"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "iterations: found -1"),
        ({"lr": -1.0}, "lr: found -1.0"),
        ({"momentum": 1.0}, "momentum: found 1.0"),
        ({"augment": ["flop"]}, "did you mean 'flip'"),
        ({"start": "herdin"}, "did you mean 'herding'"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    x, y = clusters(40, seed=1)
    with pytest.raises(InputError, match=message):
        bind(dm, options)(small_pool(x, y), 8, rng=generator())

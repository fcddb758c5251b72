"""A memory's size as a share, and the weights and scores that a selector leaves with what it keeps."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.models.nets import Net
from clsim.objectives.replay import replay
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Cost, Pool, Selection
from clsim.spec import components, registry, resolve
from clsim.spec.flags import memory_size
from clsim.spec.tables import MemorySpec
from clsim.training.contract import Batch
from tests.helpers import generator, vectors

CPU = torch.device("cpu")


def make_pool(samples: Exemplars, **beside: Any) -> Pool:
    return Pool(samples, None, lambda x: x)


def new(n: int, first: int = 0) -> Exemplars:
    return vectors(torch.arange(first, first + n, dtype=torch.float32)[:, None], first=first)


def noting(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Keeps the newest, and notes how often it has kept each."""
    index = pool.data.index.argsort(descending=True)[:budget]
    seen = torch.zeros(len(pool)) if pool.data.score is None else pool.data.score.nan_to_num(0)
    return Selection(index, 1.0 + pool.data.x[index, 0], seen[index] + 1)


def buffer(select: Any = noting, **options: Any) -> Buffer:
    return Buffer(MemorySpec(buffer="mine", **options), select, rng=generator(), cost=Cost())


@pytest.mark.parametrize("update", ["batch", "experience"])
def test_a_share_grows_with_what_was_seen(update: str) -> None:
    memory = buffer(registry.component("selectors", "random"), fraction=0.1, update=update)
    for position in range(3):
        experience = new(40, 40 * position)
        for start in range(0, 40, 8):
            memory.after_batch(experience[start : start + 8], 1, make_pool)
        memory.after_experience(experience, 1, make_pool)
        assert len(memory) == 4 * (position + 1)


def test_a_small_share_keeps_one() -> None:
    memory = buffer(fraction=0.001)
    memory.after_experience(new(30), 1, make_pool)
    assert len(memory) == 1


def test_a_share_survives_a_resume() -> None:
    memory = buffer(fraction=0.1)
    memory.after_experience(new(50), 1, make_pool)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    resumed = buffer(fraction=0.1)
    resumed.load_state_dict(torch.load(file, weights_only=True), CPU)
    for one in (memory, resumed):
        one.after_experience(new(50, 50), 1, make_pool)
        assert len(one) == 10
        assert one.exemplars is not None
    assert resumed.exemplars is not None
    for name, column in (memory.exemplars or new(1)).columns().items():
        assert torch.equal(column, resumed.exemplars.columns()[name])


def test_scores_and_weights_stay_with_their_samples() -> None:
    memory = buffer(capacity=6)
    for position in range(3):
        memory.after_experience(new(4, 4 * position), 1, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.score is not None
        assert kept.weight is not None
        kept_for = position - kept.index // 4 + 1  # selections that each has been through
        assert kept.score.tolist() == kept_for.tolist()
        assert float(kept.weight.mean()) == pytest.approx(1)
        raw = 1.0 + kept.x[:, 0]
        assert torch.allclose(kept.weight, raw / raw.mean())


def test_scores_stay_with_their_samples_when_every_batch_updates() -> None:
    memory = buffer(capacity=6, update="batch")
    for start in range(0, 20, 4):
        memory.after_batch(new(4, start), 1, make_pool)
        kept = memory.exemplars
        assert kept is not None
        assert kept.score is not None
        assert kept.score.tolist() == ((start - kept.index) // 4 + 1 + ((start - kept.index) % 4 > 0).int()).tolist()


def test_concatenated_notes_are_unknown_where_there_are_none() -> None:
    rows, weight = torch.tensor([0, 2]), torch.tensor([0.5, 1.5])
    noted = new(3).with_notes(rows, weight, torch.tensor([7.0, 8.0]), 10 * weight)
    assert noted.weight is not None
    assert noted.weight.tolist() == [0.5, 1.0, 1.5]  # the one that was not chosen weighs 1, and stands for itself
    both = concatenate([noted, new(2, 3)])
    assert both.weight is not None
    assert both.score is not None
    assert both.weight.tolist() == [0.5, 1.0, 1.5, 1.0, 1.0]
    assert both.score.isnan().tolist() == [False, True, False, True, True]
    assert both.mass is not None
    assert both.mass.tolist() == [5, 1, 15, 1, 1]
    plain = concatenate([new(2), new(2, 2)])
    assert plain.score is plain.mass is None


def test_the_weight_of_a_sample_is_its_share_of_the_loss() -> None:
    net = Net(torch.nn.Identity(), 2, torch.ones(1, 3, dtype=torch.bool))
    x, y = torch.randn(4, 2, generator=generator()), torch.tensor([0, 1, 2, 1])
    weight = torch.tensor([2.0, 0.0, 1.0, 0.0])
    batch = Batch(x, y, torch.zeros(4, dtype=torch.int64), 4, weight)
    twice = Batch(x[[0, 0, 2]], y[[0, 0, 2]], torch.zeros(3, dtype=torch.int64), 3)
    assert torch.allclose(replay(net, batch)["new"], replay(net, twice)["new"])


def test_a_batch_of_weight_0_teaches_nothing() -> None:
    net = Net(torch.nn.Identity(), 2, torch.ones(1, 3, dtype=torch.bool))
    x, y = torch.randn(3, 2, generator=generator()), torch.tensor([0, 1, 2])
    loss = replay(net, Batch(x, y, torch.zeros(3, dtype=torch.int64), 3, torch.zeros(3)))["new"]
    loss.backward()
    assert loss.tolist() == 0
    assert net.head.weight.grad is not None
    assert not net.head.weight.grad.any()


def size(scenario: str, strategy: str, **memory: Any) -> str:
    return resolve.resolve(scenario, strategy, flags={"memory": memory}).memory.size


def test_the_last_word_on_the_size_of_a_memory_holds() -> None:
    assert size("coreset-fashion-mnist", "gdumb") == size("coreset-cifar10", "gdumb") == "1 %"
    assert size("coreset-cifar10", "gdumb", capacity=300) == "300"
    assert size("coreset-cifar10", "gdumb", fraction=0.05) == "5 %"
    assert size("split-digits", "gdumb") == "500"
    assert size("split-digits", "gdumb", fraction=0.001) == "0.1 %"
    assert size("split-digits", "gdumb", per="class", capacity=20) == "20 a class"
    same = [resolve.resolve("split-digits", "gdumb", settings=[s]) for s in ("memory.capacity=500", "memory.per=total")]
    assert same[0].fingerprint == same[1].fingerprint == resolve.resolve("split-digits", "gdumb").fingerprint


@pytest.mark.parametrize("wrong", ["0%", "101%", "1.5", "few", "nan%", "%", ""])
def test_a_size_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match=r"memory: found .*, allowed: a whole number, as in 500, or a share, as in 1%"):
        memory_size(wrong)


def test_gdumb_with_a_share_is_deepcores_study() -> None:
    spec = resolve.resolve("coreset-cifar10", "gdumb")
    rate = spec.optimizer
    assert (rate.lr, rate.momentum, rate.nesterov, rate.weight_decay, rate.schedule) == (0.1, 0.9, True, 5e-4, "cosine")
    assert dict(spec.learner.options) == {"epochs": 200, "batch_size": 128}
    assert (spec.model.name, spec.stream.experiences, spec.stream.setting) == ("resnet18", 1, "class")
    assert (spec.proxy.source, spec.proxy.epochs) == ("proxy", 10)


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("per_class( k-center )", "per_class(kcenter)"),
        ("uniform", "random"),
        ("whole(per_class(k-center))", "whole(per_class(kcenter))"),
        (" herding ", "herding"),
    ],
)
def test_names_as_people_type_them(typed: str, means: str) -> None:
    assert registry.canonical(typed) == means
    pool = make_pool(vectors(torch.randn(30, 3, generator=generator()), torch.arange(30) % 3))
    picks = [registry.component("selectors", name)(pool, 9, rng=generator()).index for name in (typed, means)]
    assert torch.equal(*picks)


@pytest.mark.parametrize(("text", "message"), [("f(kcenter)", "takes 2"), ("f(kcenter, herding)", "a whole number")])
def test_a_number_is_asked_for_where_one_belongs(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(components.COMBINATORS, "f", "tests.memory.test_notes:first_of")
    assert callable(registry.component("selectors", "f(kcenter, 3)"))
    with pytest.raises(InputError, match=message):
        registry.component("selectors", text)


def first_of(select: Any, size: int) -> Any:
    def some(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(select(pool, budget, rng=rng).index[:size])

    return some


def test_options_reach_the_first_selector_inside() -> None:
    inside = registry.component("selectors", "per_class(kcenter)", {"metric": "cosine"}, "[memory.options]")
    pool = make_pool(vectors(torch.randn(30, 3, generator=generator()) * torch.arange(1, 31)[:, None]))
    plain = registry.component("selectors", "per_class(kcenter)")
    assert not torch.equal(inside(pool, 9, rng=generator()).index, plain(pool, 9, rng=generator()).index)
    with pytest.raises(InputError, match="did you mean 'metric'"):
        registry.component("selectors", "per_class(kcenter)", {"metrics": "cosine"}, "[memory.options]")

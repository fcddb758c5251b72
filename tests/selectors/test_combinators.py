"""Selectors made of selectors: what they add, and what they leave as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import clsim
from clsim.checks.selectors import check_selector
from clsim.errors import InputError
from clsim.memory.buffer import Buffer
from clsim.pool.pool import Cost, Pool, Selection
from clsim.selectors.combinators import per_class, subsample, topped_up
from clsim.selectors.continual import ring
from clsim.selectors.kcenter import k_center
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.tables import MemorySpec
from tests.helpers import generator, points, pool_of, vectors


def half(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Returns fewer than it may: half, those with the smallest keys."""
    index = pool.data.key.argsort()[: min(budget, len(pool)) // 2]
    noted = torch.arange(len(index))
    return Selection(index, noted + 2.0, noted * 1.0)


def test_a_subsample_is_what_the_selector_picks_from_a_random_part() -> None:
    pool = pool_of(points(200))
    rows = torch.randperm(200, generator=generator(4))[:50].sort().values
    expected = rows[k_center(pool[rows], 10, rng=generator()).index]
    assert torch.equal(subsample(k_center, 50)(pool, 10, rng=generator(4)).index, expected)


def test_every_sample_is_as_likely_in_a_subsample() -> None:
    pool, counts = pool_of(points(20)), torch.zeros(20)
    for seed in range(400):
        counts[subsample(k_center, 10)(pool, 10, rng=generator(seed)).index] += 1
    assert counts.sum() == 400 * 10
    assert counts.min() > 160
    assert counts.max() < 240  # of 400, four standard deviations about a half


def test_a_subsample_no_smaller_than_the_pool_changes_nothing() -> None:
    pool = pool_of(points(30))
    plain = k_center(pool, 8, rng=generator()).index
    assert torch.equal(subsample(k_center, 30)(pool, 8, rng=generator()).index, plain)
    assert len(subsample(k_center, 4)(pool, 8, rng=generator()).index) == 8


def test_topped_up_fills_with_the_largest_keys() -> None:
    key = torch.tensor([0.1, 0.2, 0.3, 0.8, 0.4, 0.7, 0.5, 0.6])
    selection = topped_up(half)(pool_of(points(8), key=key), 6, rng=generator())
    assert selection.index.tolist() == [0, 1, 2, 3, 5, 7]
    assert selection.weight is not None
    assert selection.weight.tolist() == [2, 3, 4, 2, 2, 2]
    assert selection.score is not None
    assert selection.score[:3].tolist() == [0, 1, 2]
    assert bool(selection.score[3:].isnan().all())
    with pytest.raises(AssertionError, match="returned 0 rows"):
        check_selector(half)
    check_selector(half, shortfall=True)
    check_selector(topped_up(half))


def test_combinators_are_found_by_name() -> None:
    check_selector(registry.component("buffers", "per_class(subsample(k-center, 12))"))
    check_selector(registry.component("buffers", "topped_up(subsample(herding,12))"))
    with pytest.raises(InputError, match="subsample: size: found 0, allowed: from 1"):
        registry.component("buffers", "subsample(kcenter,0)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("per_class()", "unknown name ''"),
        ("per_class(kcenter, herding)", r"per_class takes 1 arguments, found 2: per_class\(select\)"),
        ("per_class(kcenter, 5)", "per_class takes 1 arguments, found 2"),
        ("per_class(5)", "unknown name '5'"),
        ("per_clas(kcenter)", "did you mean 'per_class'"),
        ("per_class(per_class(kcentr))", "did you mean 'k"),
        ("per_class(kcenter", "unknown name"),
        ("prefilter(entropy)", "prefilter takes 2 to 3 arguments, found 1"),
        ("prefilter(entropy,5)", "selectors: unknown name '5'"),
        ("prefilter(entropy,kcenter,0)", "prefilter: factor: found 0"),
        ("prefilter(entropy,kcenter,margin)", "factor: found 'margin', allowed: a whole number"),
        ("prefilter(entropy,kcentre,5)", "did you mean 'kcenter'"),
    ],
)
def test_combinators_of_the_wrong_kind_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.component("selectors", name)


def test_each_class_passes_on_weights_and_scores() -> None:
    """Weights sum to the class's mass, and are alike where the selector gave none; scores are then unknown."""

    def sometimes(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        noted = torch.arange(budget) + 1.0
        return Selection(torch.arange(budget), noted, noted) if pool.data.y[0] else Selection(torch.arange(budget))

    pool = pool_of(points(20), torch.arange(20) % 2)
    found = per_class(sometimes)(pool, 6, rng=generator())
    assert found.index.tolist() == [0, 1, 2, 3, 4, 5]  # the classes in turn
    assert found.weight is not None
    torch.testing.assert_close(found.weight, torch.tensor([10, 5, 10, 10, 10, 15]) / 3)
    assert found.score is not None
    assert found.score.nan_to_num(-1).tolist() == [-1, 1, -1, 2, -1, 3]
    plain = per_class(k_center)(pool, 6, rng=generator())
    assert plain.weight is plain.score is None


def test_a_ring_in_each_class_keeps_the_newest() -> None:
    memory = Buffer(
        MemorySpec(buffer="mine", capacity=6, update="batch"), per_class(ring), rng=generator(), cost=Cost()
    )
    for start in range(0, 30, 6):
        new = vectors(points(6, seed=start), torch.arange(6) % 2, first=start)
        memory.after_batch(new, 2, lambda samples, **beside: Pool(samples, None, lambda x: x))
        assert memory.exemplars is not None
        assert sorted(memory.exemplars.index.tolist()) == list(range(start, start + 6))


@pytest.mark.parametrize("update", ["batch", "experience"])
@pytest.mark.parametrize("buffer", ["per_class(ring)", "per_class(gss-greedy)", "topped_up(per_class(gss-greedy))"])
def test_scores_are_kept_through_a_whole_run(buffer: str, update: str, tmp_path: Path) -> None:
    settings = ["training.epochs=1", "data.per_class=20", "stream.experiences=5", f"memory.update={update}"]
    record = clsim.run("split-digits", "er", buffer=buffer, memory=20, settings=settings, runs=tmp_path)
    assert record.folder is not None
    columns = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    assert len(columns["score"]) == 20
    assert not columns["score"].isnan().any()


@pytest.mark.parametrize("buffer", ["ring", "gss-greedy", "reservoir"])
def test_what_is_updated_with_every_batch_is_so_inside_a_combinator(buffer: str) -> None:
    for name in (buffer, f"per_class({buffer})", f"topped_up(per_class({buffer}))", f"whole({buffer})"):
        assert resolve("split-digits", "er", flags={"memory": {"buffer": name}}).memory.update == "batch"
    for name in ("per_class(herding)", f"prefilter(random,{buffer})"):
        assert resolve("split-digits", "er", flags={"memory": {"buffer": name}}).memory.update == "experience"

"""The irreducible-loss net: what it is trained on, what it scores, when it ends, and what it costs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from clsim.checks.samples import body, clusters, exemplars
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.pool.exemplars import Columns, Exemplars
from clsim.randomness import generator as of_purpose
from clsim.spec.batch import IrreducibleSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Setup
from clsim.training.irreducible import Irreducible, halves, kept_back
from tests.helpers import assert_same, generator


def samples_of(n: int, *, seed: int = 3, drawn: bool = False, task: int = 0, first: int = 0) -> Exemplars:
    """Blobs of two classes, or with labels that say nothing."""
    x, y = clusters(2 * n, seed=seed)
    own = (y < 2).nonzero().flatten()[:n]
    y = torch.randint(2, (n,), generator=generator(seed)) if drawn else y[own]
    found = exemplars(x[own], y, task=task)
    return dataclasses.replace(found, index=found.index + first)


def scored(spec: IrreducibleSpec, train: Exemplars, held_out: Exemplars | None, setup: Setup | None = None):  # type: ignore[no-untyped-def]
    setup = setup_of(body, buffered=False) if setup is None else setup
    took = Irreducible(spec, 0).score(Experience(0, (0, 1), train, held_out), setup)
    return setup.columns.of("irreducible", train), took


def test_what_can_be_learnt_from_others_has_a_low_loss_and_a_wrong_label_a_high_one() -> None:
    train, held_out = samples_of(80), samples_of(80, seed=4)
    wrong = torch.arange(80) % 5 == 0
    train = dataclasses.replace(train, y=torch.where(wrong, 1 - train.y, train.y))
    for given in (held_out, None):
        values, took = scored(IrreducibleSpec(), train, given)
        assert float(values[wrong].min()) > float(values[~wrong].max())
        assert took["source"] == ("halves" if given is None else "held-out")
        assert took["nets"] == len(took["epochs"]) == (2 if given is None else 1)


def test_no_net_scores_what_it_was_trained_on() -> None:
    """Another image in the place of one changes the scores of the other half alone, and its own."""
    train, spec = samples_of(60), IrreducibleSpec(epochs=3, patience=0)
    other = dataclasses.replace(train, x=torch.cat([255 - train.x[:1], train.x[1:]]))
    first, second = scored(spec, train, None)[0], scored(spec, other, None)[0]
    half = halves(train.y, of_purpose(0, "irreducible halves 0"))
    same = half == half[0]
    assert (first != second)[~same].all()
    assert (first != second)[same].nonzero().flatten().tolist() == [0]
    held_out = [scored(spec, one, samples_of(60, seed=4))[0] for one in (train, other)]
    assert (held_out[0] != held_out[1]).nonzero().flatten().tolist() == [0]


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    train, held_out = samples_of(60), samples_of(60, seed=4, drawn=True)
    long = scored(IrreducibleSpec(epochs=40, patience=0), train, held_out)
    short = scored(IrreducibleSpec(epochs=40, patience=3), train, held_out)
    assert long[1]["epochs"] == [40]
    assert short[1]["epochs"][0] == short[1]["best_epoch"][0] + 3 < 40  # what says nothing gets no better
    assert short[1]["loss"][0] >= long[1]["loss"][0]
    again = scored(IrreducibleSpec(epochs=short[1]["best_epoch"][0], patience=0), train, held_out)
    assert torch.equal(short[0], again[0])


def test_counts_are_exact() -> None:
    values, took = scored(IrreducibleSpec(epochs=3, patience=0, batch_size=16), samples_of(50), samples_of(80, seed=4))
    assert (took["samples"], took["kept_back"]) == ([72], [8])
    assert took["steps"] == [3 * 5]  # 72 = 4 × 16 + 8
    assert took["passes"] == 3 * (72 + 8) + 50
    assert values.isfinite().all()


def test_the_memory_is_learnt_too_unless_told_otherwise() -> None:
    """A class that only the memory has: without it, its logit is as high as it was drawn."""
    memory = dataclasses.replace(samples_of(20, task=1, first=100), y=torch.arange(20) % 2 + 2)
    found = {}
    for learns in (True, False):
        setup = setup_of(body, buffered=True)
        setup.memory.begin(memory)
        spec = IrreducibleSpec(memory=learns, epochs=1)
        found[learns] = scored(spec, samples_of(30), samples_of(40, seed=4), setup)[1]
    assert found[True]["samples"][0] + found[True]["kept_back"][0] == 60
    assert found[False]["samples"][0] + found[False]["kept_back"][0] == 40


def test_it_is_the_same_when_it_is_done_again_and_disturbs_nothing() -> None:
    train, setup = samples_of(40), setup_of(body, buffered=False)
    before = {**setup.randomness.state_dict(), **setup.net.state_dict()}
    before = {name: value.clone() for name, value in before.items()}
    first = scored(IrreducibleSpec(epochs=2), train, None, setup)[0]
    assert_same(before, {**setup.randomness.state_dict(), **setup.net.state_dict()})
    assert torch.equal(first, scored(IrreducibleSpec(epochs=2), train, None)[0])
    assert not torch.equal(first, scored(IrreducibleSpec(epochs=2, seed=5), train, None)[0])


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="found 1 samples to train the irreducible-loss net on, allowed: 2 or more"):
        scored(IrreducibleSpec(), samples_of(2), None)
    with pytest.raises(InputError, match="nothing is held out of experience 1"):
        scored(IrreducibleSpec(source="held-out"), samples_of(20), None)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (7, 3, 1), (1, 1), (9,)])
def test_halves_are_balanced(sizes: tuple[int, ...]) -> None:
    y = torch.cat([torch.full((n,), label) for label, n in enumerate(sizes)])[
        torch.randperm(sum(sizes), generator=generator(2))
    ]
    second = halves(y, generator())
    assert abs(2 * int(second.sum()) - len(y)) <= 1
    for label, n in enumerate(sizes):
        assert abs(2 * int(second[y == label].sum()) - n) <= 1
    assert not torch.equal(second, halves(y, generator(1))) or len(y) < 3


def test_kept_back_is_a_share_of_each_class_and_never_nothing() -> None:
    y = torch.arange(200) % 4
    back = kept_back(y, 0.1, generator())
    assert y[back].bincount().tolist() == [5] * 4
    assert int(kept_back(torch.tensor([0, 1, 2]), 0.1, generator()).sum()) == 1


def test_columns_tell_experiences_apart_and_keep_the_memory_alone() -> None:
    columns, first, second = Columns(), samples_of(4), samples_of(4, task=1)
    columns.put("irreducible", first, torch.arange(4.0))
    columns.put("irreducible", second, torch.arange(10.0, 14.0))
    columns.put("irreducible", first[:1], torch.tensor([7.0]))
    assert columns.of("irreducible", first).tolist() == [7, 1, 2, 3]
    assert columns.of("irreducible", second[torch.tensor([3, 0])]).tolist() == [13, 10]
    assert columns.of("irreducible", samples_of(1, task=2)).isnan().all()
    kept = Columns()
    kept.load_state_dict(columns.state_dict(second[:2]), torch.device("cpu"))
    assert kept.of("irreducible", second).nan_to_num(-1).tolist() == [10, 11, -1, -1]
    assert kept.of("irreducible", first).isnan().all()


@pytest.mark.parametrize("apart", [1, 3, 1000])
def test_values_are_found_whether_their_samples_lie_close_or_apart(apart: int) -> None:
    """Close ones are read from a table, those far apart are searched for; a missing one has none either way."""
    columns, samples = Columns(), samples_of(20)
    spread = dataclasses.replace(samples, index=apart * torch.arange(20) + 7)
    known = spread[torch.randperm(20, generator=generator(0))[:12]]
    columns.put("irreducible", known, torch.zeros(12))
    assert columns.of("irreducible", known).tolist() == [0.0] * 12
    columns.put("irreducible", known, known.index.float())
    for index in (spread.index, torch.tensor([-5, 0, 6, 7, 8, 10_000_000])):
        wanted = torch.where(torch.isin(index, known.index), index.float(), torch.nan)
        asked = dataclasses.replace(samples[: len(index)], index=index)
        torch.testing.assert_close(columns.of("irreducible", asked), wanted, equal_nan=True, rtol=0, atol=0)

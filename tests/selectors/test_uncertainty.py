"""Uncertainty of a net, of its dropout and of a committee: closed forms, and votes counted by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from clsim.checks.samples import clusters
from clsim.checks.samples import pool_of as trained_pool
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.selectors import scores, uncertainty
from clsim.spec import registry
from tests.helpers import generator, pool_of, vectors

MEASURES = ["least-confidence", "entropy", "margin", "variation-ratio"]


def softmaxes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed)).mul(2).softmax(-1)


def pool_saying(p: Tensor, dropout: float | None = None) -> Pool:
    """A pool under a net that gives these probabilities (n, C)."""
    net = nets.build(
        lambda shape: nn.Identity() if dropout is None else nn.Sequential(nn.Dropout(dropout)),
        (p.shape[1],),
        torch.ones(1, p.shape[1], dtype=torch.bool),
        0,
        torch.device("cpu"),
    )
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(p.shape[1]))
        net.head.bias.zero_()
    return Pool(vectors(p.log()), net, lambda x: x)


def chosen(name: str, pool: Pool, budget: int, **options: object) -> list[int]:
    return registry.component("selectors", name)(pool, budget, rng=generator(), **options).index.tolist()


def test_entropy_has_its_closed_forms() -> None:
    assert scores.entropies(torch.full((1, 7), 1 / 7)) == pytest.approx(math.log(7))
    assert scores.entropies(torch.eye(3)).tolist() == [0, 0, 0]  # no NaN at 0·log 0
    p = softmaxes(50, 5).double()
    assert torch.allclose(scores.entropies(p), -(p * p.log()).sum(1))


@pytest.mark.parametrize("name", MEASURES)
def test_the_uniform_is_first_and_the_certain_last(name: str) -> None:
    p = torch.tensor([[1.0, 0, 0], [0.4, 0.35, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.8, 0.1, 0.1]])
    assert chosen(name, pool_saying(p.clamp_min(1e-30)), 4) == [2, 1, 3, 0]


@pytest.mark.parametrize("name", MEASURES)
def test_names_of_classes_do_not_matter(name: str) -> None:
    p = softmaxes(60, 5)
    assert chosen(name, pool_saying(p), 20) == chosen(name, pool_saying(p[:, [3, 1, 4, 0, 2]]), 20)


def test_two_classes_are_ranked_alike_by_all() -> None:
    pool = pool_saying(softmaxes(60, 2))
    assert len({tuple(chosen(name, pool, 60)) for name in MEASURES}) == 1
    by_margin = (pool.probabilities[:, 0] - 0.5).abs().argsort(stable=True)
    assert chosen("margin", pool, 60) == by_margin.tolist()


def test_with_more_classes_they_differ_as_their_equations_do() -> None:
    p = softmaxes(200, 6)
    ranked = p.sort(1, descending=True).values
    expected = {
        "least-confidence": (1 - ranked[:, 0]),
        "entropy": -(p * p.log()).sum(1),
        "margin": -(ranked[:, 0] - ranked[:, 1]),
    }
    picks = {name: chosen(name, pool_saying(p), 20) for name in expected}
    for name, score in expected.items():
        assert set(picks[name]) == set(score.argsort(descending=True)[:20].tolist())
    assert len({tuple(p) for p in picks.values()}) == 3


@pytest.mark.parametrize("name", MEASURES)
def test_one_pass_without_anything_dropped_is_the_net(name: str) -> None:
    p = softmaxes(60, 5)
    assert chosen(f"mc-{name}", pool_saying(p, dropout=0.0), 30, passes=1) == chosen(name, pool_saying(p), 30)


@pytest.mark.parametrize("name", MEASURES)
def test_dropout_forms_score_the_mean_of_the_passes(name: str) -> None:
    pool = pool_saying(softmaxes(80, 5), dropout=0.5)
    p = pool.stochastic(10, generator())
    if name == "variation-ratio":
        votes = torch.stack([(p.argmax(2) == c).sum(0) for c in range(5)]).max(0).values  # of the mode
        score = (10 - votes) + (1 - p.mean(0).max(1).values) / 10  # ties by the mean's confidence
    else:
        mean = p.mean(0)
        ranked = mean.sort(1, descending=True).values
        score = {
            "least-confidence": 1 - ranked[:, 0],
            "entropy": -(mean * mean.log()).sum(1),
            "margin": ranked[:, 1] - ranked[:, 0],
        }[name]
    assert chosen(f"mc-{name}", pool, 20) == score.argsort(descending=True, stable=True)[:20].tolist()


def test_votes_are_counted_as_by_hand() -> None:
    votes = torch.tensor([[0, 0, 2], [0, 1, 2], [1, 2, 2], [0, 1, 2]])  # of 4 nets on 3 samples
    p = torch.nn.functional.one_hot(votes, 3).float()
    assert scores.vote_shares(p).tolist() == [[0.75, 0.25, 0], [0.25, 0.5, 0.25], [0, 0, 1]]
    assert scores.least_confidences(scores.vote_shares(p)).tolist() == [0.25, 0.5, 0]


@pytest.mark.parametrize("name", [*MEASURES, "bald"])
def test_ensemble_forms_score_the_mean_of_the_members(name: str) -> None:
    pool = trained_pool(*clusters(40, seed=1))
    p = torch.stack([member.probabilities for member in pool.committee(4)])
    assert not torch.allclose(p[0], p[1], atol=1e-3)
    mean = p.mean(0)
    ranked = mean.sort(1, descending=True).values
    share = torch.stack([(p.argmax(2) == c).sum(0) for c in range(4)]).max(0).values
    score = {
        "least-confidence": 1 - ranked[:, 0],
        "entropy": -(mean * mean.log()).sum(1),
        "margin": ranked[:, 1] - ranked[:, 0],
        "variation-ratio": (4 - share) + (1 - ranked[:, 0]) / 10,
        "bald": (p * (p.log() - mean.log())).sum(2).mean(0),  # as the divergence from the consensus
    }[name]
    assert chosen(f"ensemble-{name}", pool, 10, nets=4) == score.argsort(descending=True)[:10].tolist()


@pytest.mark.parametrize("name", ["ensemble-entropy", "ensemble-variation-ratio", "ensemble-bald", "vote-entropy"])
def test_given_its_committee_an_ensemble_reads_no_labels(name: str) -> None:
    pool = trained_pool(*clusters(40, seed=1))
    first = chosen(name, pool, 12)
    for part in (pool, *pool.committee(3)):
        part.data = dataclasses.replace(part.data, y=(part.data.y + 1) % 4)
    assert chosen(name, pool, 12) == first


def test_a_committee_learns_from_what_is_labelled_beside_the_pool() -> None:
    x, y = clusters(40, seed=1)
    hidden = torch.full_like(y, -1)
    with_labels = trained_pool(x, hidden, beside=True)
    assert with_labels.labelled is not None
    without = trained_pool(x, hidden)
    known = with_labels.committee(1)[0].net.head.weight
    assert not torch.equal(known, without.committee(1)[0].net.head.weight)
    assert with_labels.history.losses.shape == (2, 40)  # of the candidates alone


@pytest.mark.parametrize(
    ("name", "option"), [("mc-entropy", "passes"), ("bald", "passes"), ("ensemble-margin", "nets")]
)
def test_no_pass_is_refused(name: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{option}: found 0, allowed: 1 or more"):
        chosen(name, trained_pool(*clusters(8, seed=1)), 2, **{option: 0})


def test_nan_never_wins_and_ties_go_to_the_second_key_then_to_the_earlier_row() -> None:
    score = torch.tensor([1.0, torch.nan, 1.0, 3.0, -torch.inf])
    assert scores.highest(score, 5).tolist() == [3, 0, 2, 1, 4]
    assert scores.highest(score, 3, ties=torch.tensor([0.0, 9.0, 1.0, 0.0, 0.0])).tolist() == [3, 2, 0]


def test_classes_that_a_task_does_not_have_are_no_runners_up() -> None:
    """A sample of a task with one class is certain, whatever the others' logits are."""
    visible = torch.tensor([[True, True, True], [True, False, False]])
    net = nets.build(lambda shape: nn.Identity(), (3,), visible, 0, torch.device("cpu"))
    data = dataclasses.replace(vectors(torch.zeros(4, 3)), task=torch.tensor([0, 1, 0, 1]))
    pool = Pool(data, net, lambda x: x)
    for name in MEASURES:
        assert chosen(name, pool, 4) == [0, 2, 1, 3]
    assert scores.margins(pool.probabilities)[[1, 3]].tolist() == [1, 1]


def test_a_memory_of_uncertain_samples_is_not_one_of_random_ones() -> None:
    pool = pool_of(torch.randn(300, 4, generator=generator(2)), torch.arange(300) % 3)
    uncertain = uncertainty.entropy(pool, 30, rng=generator()).index
    drawn = torch.randperm(300, generator=generator())[:30]
    entropy = scores.entropies(pool.probabilities)
    assert entropy[uncertain].min() > entropy[drawn].mean()


@pytest.mark.parametrize("ties", [False, True])
def test_few_rows_stand_in_the_order_of_many(ties: bool) -> None:
    """numpy's order of a few rows is torch's of many: equal scores, NaN and both infinities among them."""
    rng = torch.Generator().manual_seed(0)
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0])
    for n in (0, 1, 7, 320):
        score, key = (special[torch.randint(len(special), (n,), generator=rng)] for _ in range(2))
        found = scores.highest(score, n, ties=key if ties else None)
        more = torch.full((5000,), -torch.inf)  # behind all of them, since they are last in every order
        many = scores.highest(torch.cat([score, more]), n, ties=torch.cat([key, more]) if ties else None)
        assert torch.equal(found, many)

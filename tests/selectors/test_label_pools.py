"""Selectors in a choice of labels: which can make it, what they are given, and that hidden labels stay hidden."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.samples import CLASSES, clusters, exemplars, label_pools, pool_of
from clsim.checks.selectors import check_labelling
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.selectors.badge import badge
from clsim.selectors.bilevel import glister_active
from clsim.selectors.pareto import confidences
from clsim.selectors.reference import outsiders, told
from clsim.selectors.targets import private_set, query_set
from clsim.selectors.typicality import typiclust, usl
from clsim.spec import abilities, components, registry
from tests.helpers import generator, points, vectors
from tests.selectors.test_selectors import SHORT

EVERY = [name for name in components.COMPONENTS["selectors"] if abilities.acquires(name)]

REFUSED = {
    **dict.fromkeys(
        ["class-balanced", "task-balanced", "ring", "forgetting", "grand", "el2n", "glister"], "its candidates' labels"
    ),
    **dict.fromkeys(["loss", "gradient-norm", "rho-loss", "low-irreducible-loss"], "its candidates' labels"),
    "gss-greedy": "the memory's own notes",
    "mir": "a new batch",
}
"""Selectors that cannot choose what to label -> what they need."""


def run(name: str, pool: Pool, budget: int = 6, **options: Any) -> list[int]:
    select = registry.component("selectors", name, SHORT.get(name, {}) | options)
    return select(pool, budget, rng=generator()).index.tolist()


def net_on(width: int, classes: int) -> nets.Net:
    """A net whose features are the samples themselves."""
    visible = torch.ones(1, classes, dtype=torch.bool)
    return nets.build(lambda shape: torch.nn.Identity(), (width,), visible, 0, torch.device("cpu"))


# which names


def test_every_selector_either_chooses_labels_or_is_refused_by_name() -> None:
    named = {*EVERY, *REFUSED, *components.BOUNDS}
    assert named == {*components.COMPONENTS["selectors"], *components.BOUNDS}
    assert not {*EVERY} & {*REFUSED}
    for name, needs in REFUSED.items():
        with pytest.raises(InputError, match=f"found '{name}', which needs {needs}"):
            abilities.check_acquires(name)
    for name in (*EVERY, *components.BOUNDS, "qbc", "mc-qbc", "./mine.py:pick"):
        abilities.check_acquires(name)


def test_a_name_inside_a_combinator_counts() -> None:
    for name in ("per_class(kcenter)", "prefilter(entropy,per_class(kcenter),5)"):
        with pytest.raises(InputError, match="'per_class', which needs its candidates' labels"):
            abilities.check_acquires(name)
    with pytest.raises(InputError, match="'el2n'"):
        abilities.check_acquires("topped_up(el2n)")
    with pytest.raises(InputError, match=r"did you mean glister-active\?"):
        abilities.check_acquires("glister")
    with pytest.raises(InputError, match="the condenser 'dm'"):
        abilities.check_acquires("dm")
    abilities.check_acquires("prefilter(density,k-center,5)")


@pytest.mark.parametrize("name", EVERY)
def test_every_acquisition_gives_exactly_what_is_asked_for(name: str) -> None:
    """Without a label, a class, or a sample beside the candidates too; and under the masks of tasks."""
    check_labelling(registry.component("selectors", name, SHORT.get(name)))


# hidden labels

TRUTH: dict[int, int] = {}
"""The data behind the oracle: row → label. Only a selector that cheats reads it."""


def cheats(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.tensor([TRUTH[row] for row in pool.data.index.tolist()]).argsort(stable=True)[:budget])


def cheats_a_little(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Ranks by confidence, but among as many classes as there are behind the oracle."""
    width = len({*TRUTH.values()})
    return Selection(pool.net.head(pool.features)[:, :width].softmax(1).amax(1).argsort(stable=True)[:budget])


def behind(change: str) -> Pool:
    """A pool of which 8 samples of two classes are labelled; behind the oracle, the labels of the rest are changed."""
    x, y = clusters(48, seed=3)
    known = (y < 2) & (torch.arange(48) < 16)
    hidden = (~known).nonzero().flatten()
    if change == "permuted":
        y[hidden] = y[hidden[torch.randperm(len(hidden), generator=generator(1))]]
    if change == "a class is another":
        y[hidden] = torch.where(y[hidden] == 2, 3, y[hidden])
    if change == "a class is known":
        y[hidden] = y[hidden] % 2
    TRUTH.update(enumerate(y[hidden].tolist()))
    told = exemplars(x[known], y[known], seed=5)
    return pool_of(x[hidden], y[hidden], hidden=True, labelled=told, classes=sorted({*told.y.tolist()}))


CHANGES = ("permuted", "a class is another", "a class is known")


def told_apart(select: Callable[..., Selection]) -> bool:
    """Whether a selector chooses otherwise when the labels behind the oracle change."""
    found = [select(behind(change), 9, rng=generator()).index.tolist() for change in ("", *CHANGES)]
    return any(picks != found[0] for picks in found[1:])


@pytest.mark.parametrize("name", EVERY)
def test_hidden_labels_change_nothing(name: str) -> None:
    assert not told_apart(registry.component("selectors", name, SHORT.get(name)))


@pytest.mark.parametrize("select", [cheats, cheats_a_little], ids=lambda s: s.__name__)
def test_a_selector_that_reads_what_is_behind_the_oracle_is_caught(select: Callable[..., Selection]) -> None:
    assert told_apart(select)


# classes that nobody has told


def test_a_class_that_nobody_has_told_has_no_probability() -> None:
    pool = label_pools()["some labelled"]
    assert pool.probabilities[:, 3].eq(0).all()
    assert pool.predictions.max() < 3
    assert torch.allclose(pool.probabilities.sum(1), torch.ones(len(pool)))
    drawn = pool.stochastic(3, generator())
    assert drawn[..., 3].eq(0).all()
    assert all(member.probabilities[:, 3].eq(0).all() for member in pool.committee(2))
    assert pool.labelled.probabilities[:, 3].eq(0).all()  # type: ignore[union-attr]


def test_where_nothing_is_told_every_class_of_the_task_counts() -> None:
    assert label_pools()["nothing labelled"].probabilities.gt(0).all()
    pool = label_pools()["a memory of other classes alone"]
    assert pool.probabilities[:, 2:].eq(0).all()
    tasks = label_pools()["the second of two tasks, and a memory of the first"]
    assert tasks.probabilities[:, :2].eq(0).all()
    assert tasks.probabilities[:, 2:].gt(0).all()


def test_held_out_labels_are_told_too() -> None:
    pool = label_pools()["nothing labelled, and a reference"]
    assert pool.visible.all()


def test_the_net_of_a_memory_sees_all_classes_as_before() -> None:
    x, y = clusters(40, seed=1)
    pool = pool_of(x, y, classes=(0, 1))
    assert pool.probabilities.gt(0).all()
    closed = pool_of(x, y, classes=(0, 1), hidden=True)
    assert closed.probabilities[:, 2:].eq(0).all()
    assert torch.equal(closed.net.head.weight, pool.net.head.weight)
    assert closed.net.body is not None
    whole = pool.probabilities[:, :2]
    assert torch.allclose(closed.probabilities[:, :2], whole / whole.sum(1, keepdim=True), atol=1e-6)


def test_badge_is_not_led_by_the_logits_of_classes_that_nobody_has_told() -> None:
    """In a head of 100 outputs of which 15 are known, only these stretch the gradients."""
    rng, known = generator(3), range(15)
    x = torch.randn(200, 8, generator=rng)

    def pool(width: int, closed: bool) -> Pool:
        net = net_on(8, width)
        with torch.no_grad():
            weight = torch.randn(100, 8, generator=generator(4))
            net.head.weight.copy_(weight[:width])
            net.head.bias.zero_()
        data = vectors(x, torch.full((200,), -1))
        return Pool(data, net, lambda x: x, classes=known, closed=closed)

    narrow, wide, open_ = pool(15, False), pool(100, True), pool(100, False)
    picks = badge(narrow, 20, rng=generator()).index
    assert torch.equal(badge(wide, 20, rng=generator()).index, picks)
    assert not torch.equal(badge(open_, 20, rng=generator()).index, picks)
    assert len(picks.unique()) == 20
    assert torch.equal(wide.hypothetical_gradients.q[:, 15:], torch.zeros(200, 85))


# what is labelled


def beside(labelled: Tensor, y: Tensor | None = None, *, n: int = 40) -> Pool:
    """Forty points without labels, with labelled ones beside them."""
    net = net_on(4, 3)
    told = vectors(labelled, torch.zeros(len(labelled), dtype=torch.int64) if y is None else y, first=n)
    return Pool(vectors(points(n), torch.full((n,), -1)), net, lambda x: x, labelled=told)


@pytest.mark.parametrize(
    ("plain", "conditional"), [("facility-location", "flcg"), ("graph-cut", "gccg"), ("log-det", "logdetcg")]
)
def test_conditional_gain_avoids_what_is_labelled(plain: str, conditional: str) -> None:
    """P is all that is labelled, as against redundancy in the paper, and f(A | L) is the same function."""
    pool = beside(points(12, seed=8), torch.arange(12) % 3)
    alone = Pool(pool.data, pool.net, lambda x: x)
    assert run(conditional, pool) == run(plain, pool, representation="gradients")
    assert run(conditional, pool) != run(conditional, alone)
    private = Pool(pool.data, pool.net, lambda x: x, private=pool.labelled.data)  # type: ignore[union-attr]
    assert run(conditional, pool) == run(conditional, private)


def likeness(a: Tensor, b: Tensor) -> Tensor:
    return 0.5 + 0.5 * F.normalize(a).double() @ F.normalize(b).double().T


def gain(name: str, x: Tensor, chosen: list[int], labelled: Tensor) -> float:
    """The set function of chosen and labelled samples together, by its definition."""
    everything = torch.cat([x[chosen], labelled])
    if name == "facility-location":
        return float(likeness(x, everything).amax(1).sum())
    s = likeness(everything, everything)
    if name == "graph-cut":
        return float(likeness(x, everything).sum() - 0.5 * s.sum())
    if name == "log-det":
        return float(torch.logdet(s + torch.eye(len(s), dtype=s.dtype)))
    if name == "disparity-sum":
        return float((1 - s).sum() / 2)
    parts = F.normalize(everything).double()
    return float(torch.cat([parts.clamp_min(0), (-parts).clamp_min(0)], 1).sum(0).sqrt().sum())


@pytest.mark.parametrize("name", ["facility-location", "graph-cut", "log-det", "disparity-sum", "feature-based"])
def test_labelled_samples_count_as_chosen_in_a_set_function(name: str) -> None:
    """Each pick is the best of all by brute force, with what is labelled in the set."""
    labelled = points(5, seed=9)
    pool = beside(labelled)
    x, picks = pool.features, run(name, pool, 5)
    for k, pick in enumerate(picks):
        rest = [row for row in range(len(x)) if row not in picks[:k]]
        gains = {row: gain(name, x, [*picks[:k], row], labelled) for row in rest}
        assert gains[pick] == pytest.approx(max(gains.values()), abs=1e-5)
    assert picks != run(name, Pool(pool.data, pool.net, lambda x: x), 5)


def test_disparity_min_keeps_away_from_what_is_labelled() -> None:
    labelled = points(6, seed=9)
    pool = beside(labelled)
    taken = labelled
    for pick in run("disparity-min", pool, 6):
        near = (1 - likeness(pool.features, taken)).amin(1)
        assert near[pick] == pytest.approx(float(near.max()), abs=1e-6)
        taken = torch.cat([taken, pool.features[pick : pick + 1]])


def test_fass_does_not_ask_for_what_a_labelled_sample_stands_for() -> None:
    pool = beside(points(30, seed=0)[:10])  # ten of the candidates are labelled, too
    picks = run("fass", pool, 10)
    assert run("fass", Pool(pool.data, pool.net, lambda x: x), 10) != picks
    assert sum(row < 10 for row in picks) <= 1


def test_usl_is_repelled_by_what_is_labelled() -> None:
    blob = torch.cat(
        [centre + 0.05 * torch.randn(60, 2, generator=generator(i)) for i, centre in enumerate(torch.eye(2))]
    )
    data = vectors(blob, torch.full((120,), -1))
    net = net_on(2, 2)
    options = {"metric": "euclidean", "neighbours": 20}
    first = usl(Pool(data, net, lambda x: x), 2, rng=generator(), **options).index  # type: ignore[arg-type]
    told = vectors(blob[first], torch.zeros(2, dtype=torch.int64), first=120)
    again = usl(Pool(data, net, lambda x: x, labelled=told), 2, rng=generator(), **options).index  # type: ignore[arg-type]
    assert not {*first.tolist()} & {*again.tolist()}
    assert torch.cdist(blob[again], blob[first]).amin(1).min() > 0.05


def test_typiclust_skips_clusters_that_have_labels() -> None:
    """Four far blobs, two of them labelled: K = labelled + budget, and the picks are of the other two."""
    centres = 20 * torch.eye(4)
    blob = torch.cat([centre + 0.1 * torch.randn(20, 4, generator=generator(i)) for i, centre in enumerate(centres)])
    net = net_on(4, 4)
    told = vectors(centres[:2].clone(), torch.tensor([0, 1]), first=80)
    pool = Pool(vectors(blob, torch.full((80,), -1)), net, lambda x: x, labelled=told)
    picks = typiclust(pool, 2, rng=generator()).index
    assert {*(picks // 20).tolist()} == {2, 3}


# query and private sets


def in_roles(
    reference: Tensor | None = None, y: Tensor | None = None, told: Tensor | None = None, **beside: Exemplars
) -> Pool:
    net = net_on(4, 3)
    labelled = None if told is None else vectors(points(len(told), seed=7), told, first=40)
    held = None if reference is None else vectors(reference, y, first=80)
    data = vectors(points(40), torch.full((40,), -1))
    return Pool(data, net, lambda x: x, labelled=labelled, reference=held, classes=(0, 1), closed=True, **beside)


def same(found: Any, pool: Pool, rows: Tensor) -> bool:
    expected = pool[rows].gradients.q
    return torch.allclose(found.factors[0], expected, atol=1e-6)


def test_a_rare_class_as_query_grows_with_its_labels() -> None:
    pool = in_roles(told=torch.tensor([0, 0, 1, 0, 1]))
    assert same(query_set(pool, [1], generator()), pool.labelled, torch.tensor([2, 4]))  # type: ignore[arg-type]
    none_yet = in_roles(told=torch.tensor([0, 0, 0]))
    assert len(query_set(none_yet, [1], generator())) == 40  # the pool, until one is found: no error


def test_mutual_information_without_a_query_resembles_the_pool_and_not_what_is_labelled() -> None:
    pool = in_roles(told=torch.tensor([0, 0, 1]))
    assert len(query_set(pool, [], generator())) == len(pool)


def test_conditional_mutual_information_tells_insiders_from_outsiders() -> None:
    pool = in_roles(told=torch.tensor([0, -1, 1, -1]))
    q = query_set(pool, [], generator(), otherwise=told(pool))
    assert same(q, pool.labelled, torch.tensor([0, 2]))  # type: ignore[arg-type]
    p = private_set(pool, [], generator(), otherwise=outsiders(pool))
    assert same(p, pool.labelled, torch.tensor([1, 3]))  # type: ignore[arg-type]
    inside = in_roles(told=torch.tensor([0, 1, 1]))
    assert outsiders(inside) is None
    assert run("flcmi", inside) == run("flvmi", Pool(inside.data, inside.net, lambda x: x, query=inside.labelled.data))  # type: ignore[union-attr]


def test_held_out_samples_and_labelled_insiders_are_one_query() -> None:
    pool = in_roles(points(3, seed=5), torch.tensor([0, 1, 1]), torch.tensor([0, 1, -1]))
    q = query_set(pool, [], generator(), otherwise=told(pool))
    assert len(q) == 5


def test_labelled_samples_stand_for_classes_without_held_out_ones() -> None:
    """And no candidate is taken for one of a class that a labelled sample stands for."""
    pool = in_roles(points(3, seed=5), torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 1]))
    assert len(query_set(pool, [], generator())) == 3 + 2


def test_glister_active_goes_by_what_is_labelled() -> None:
    told = torch.tensor([0, 1, 0, 1, 1])
    pool = in_roles(told=told)
    g, v = pool.hypothetical_gradients, pool.labelled.gradients  # type: ignore[union-attr]
    slope = (v.dense().double().sum(0) / len(told)).flatten()
    gains = g.dense().double().flatten(1) @ slope
    assert (
        glister_active(pool, 5, rng=generator(), lr=0.0).index.tolist() == gains.argsort(descending=True)[:5].tolist()
    )


def test_poal_takes_no_mean_of_outsiders_that_are_learnt_as_a_class() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    labelled = vectors(points(7, seed=7), y, first=40)
    beside = {"query": labelled[torch.arange(6)], "private": labelled[torch.tensor([6])]}
    whole = confidences(in_roles(told=y))
    dropped = confidences(in_roles(told=torch.where(y == 2, -1, y)))
    assert not torch.allclose(whole, dropped)
    assert torch.equal(confidences(in_roles(told=y, **beside)), dropped)


def test_the_means_of_poal_are_those_of_labelled_insiders() -> None:
    pool = in_roles(told=torch.tensor([0, 0, 0, 1, 1, 1, -1]))
    h, y = pool.labelled.features.double()[:6], torch.tensor([0, 0, 0, 1, 1, 1])  # type: ignore[union-attr]
    means = torch.stack([h[y == c].mean(0) for c in (0, 1)])
    around = h - means[y]
    cov = around.T @ around / 6
    cov += (1e-3 * cov.diagonal().mean() + 1e-12) * torch.eye(4, dtype=cov.dtype)
    x = pool.features.double()
    squares = torch.stack([((x - m) @ torch.linalg.inv(cov) * (x - m)).sum(1) for m in means], 1)
    assert torch.allclose(confidences(pool).double(), -squares.amin(1), rtol=1e-4)


# committees


def test_a_committee_is_trained_on_what_is_labelled_alone() -> None:
    """The same members whatever the candidates are, as long as their number is the same."""
    x, y = clusters(40, seed=1)
    told = exemplars(*clusters(16, seed=2), seed=3)
    members = []
    for candidates in (x, 255 - x):
        pool = pool_of(candidates, y, labelled=told, hidden=True)
        members.append([member.net.head.weight for member in pool.committee(2)])
    for a, b in zip(*members, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "by"), [("vote-entropy", "committee"), ("mc-vote-entropy", "passes")])
def test_query_by_committee_ranks_by_the_entropy_of_votes(name: str, by: str) -> None:
    x, y = clusters(40, seed=1)
    make = partial(pool_of, x, y, labelled=exemplars(*clusters(16, seed=2), seed=3), hidden=True)
    pool = make()
    nets = 5
    if by == "passes":
        p = pool.stochastic(nets, generator())
    else:
        p = torch.stack([member.probabilities for member in pool.committee(nets)])
    votes = torch.stack([(p.argmax(2) == c).double().mean(0) for c in range(CLASSES)], 1)
    score = torch.special.entr(votes).sum(1) + 1e-6 * (1 - p.mean(0).amax(1))
    picks = run(name, make(), 9, **({"passes": nets} if by == "passes" else {"nets": nets}))
    assert torch.allclose(score[picks], score.sort(descending=True).values[:9], atol=1e-7)

"""Transforms of the pool: exact counts, draws of their own, what commutes, what stays hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from clsim.errors import InputError
from clsim.spec.pools import PoolSpec
from clsim.spec.tables import StreamSpec
from clsim.streams.natures import Natures
from clsim.streams.part import Part, Parts, numbered
from clsim.streams.pools.apply import bound, transformed
from clsim.streams.pools.redundant import moved

CLASSES, EACH = 10, 40
SPEC = StreamSpec(setting="class", experiences=5)


def clean(experiences: int = 5, each: int = EACH, spec: StreamSpec = SPEC) -> Parts:
    """Ten classes of small images, divided over experiences in their order; row r has the grey r mod 251."""
    y = np.arange(CLASSES * each) % CLASSES
    x = np.random.default_rng(0).integers(1, 255, (len(y), 1, 6, 6)).astype(np.uint8)
    x += (20 * y).astype(np.uint8)[:, None, None, None]
    groups = np.array_split(np.arange(CLASSES), experiences)
    train = [Part(x, np.flatnonzero(np.isin(y, g)), y[np.isin(y, g)]) for g in groups]
    test = [Part(x, part.rows[:30], part.y[:30]) for part in train]
    classes = [tuple(g.tolist()) for g in groups]
    return Parts.begun(train, test, classes, [str(c) for c in range(CLASSES)], replace(spec, experiences=experiences))


def made(*entries: tuple[str, dict[str, Any]], parts: Parts | None = None, seed: int = 0) -> Parts:
    transforms = bound([PoolSpec(name, options) for name, options in entries])
    return transformed(clean() if parts is None else parts, transforms, seed)


def content(parts: Parts) -> Counter[tuple[Any, ...]]:
    """All that a stream holds, as a multiset: experience, place, label and nature of each sample."""
    found: Counter[tuple[Any, ...]] = Counter()
    for side, every in (("train", parts.train), ("test", parts.test), ("query", parts.query)):
        for i, part in enumerate(every):
            known = part.known
            columns = [part.rows, part.y, *(getattr(known, f.name) for f in fields(Natures))]
            found.update((side, i, *(int(v) for v in row)) for row in zip(*columns, strict=True))
    return found


def sizes(parts: Parts) -> list[Counter[int]]:
    return [Counter(part.y.tolist()) for part in parts.train]


def test_rare_classes_have_exact_counts_and_a_query() -> None:
    for seed in range(5):
        parts = made(("rare", {"share": 0.1, "query": 5}), seed=seed)
        rare = parts.roles.rare
        assert len(rare) == 5
        assert sum(sizes(parts), Counter()) == {c: 4 if c in rare else EACH for c in range(CLASSES)}
        assert sum((Counter(p.y.tolist()) for p in parts.query), Counter()) == dict.fromkeys(rare, 5)
        for part, aside in zip(parts.train, parts.query, strict=True):
            assert not set(part.rows) & set(aside.rows)
            assert (part.known.rare == np.isin(part.y, rare)).all()
        assert [len(p.rows) for p in parts.test] == [30] * 5
    assert len({made(("rare", {}), seed=seed).roles.rare for seed in range(5)}) > 1
    assert made(("rare", {"classes": [3, 8], "share": 0})).roles.rare == (3, 8)
    assert sum(sizes(made(("rare", {"classes": [3, 8], "share": 0}))), Counter())[3] == 1


def test_a_tail_and_a_step_have_exact_counts() -> None:
    tail = sum(sizes(made(("long-tail", {"ratio": 0.1}))), Counter())
    assert [tail[c] for c in range(CLASSES)] == [int(EACH * 0.1 ** (c / 9) + 1e-9) for c in range(CLASSES)]
    permuted = sum(sizes(made(("long-tail", {"ratio": 0.1, "permuted": True}))), Counter())
    assert sorted(permuted.values()) == sorted(tail.values())
    assert permuted != tail
    step = sum(sizes(made(("step", {"ratio": 0.25}))), Counter())
    assert step == {c: EACH if c < 5 else 10 for c in range(CLASSES)}
    assert sum(sizes(made(("step", {"ratio": 0.25, "classes": [0, 9]}))), Counter())[9] == 10


@pytest.mark.parametrize("kind", ["exact", "moved"])
def test_copies_have_exact_counts(kind: str) -> None:
    """A fifth of 80 samples an experience, 10 times."""
    before, parts = clean(), made(("redundant", {"kind": kind}))
    for own, part in zip(before.train, parts.train, strict=True):
        assert len(part.rows) == 64 + 16 * 10
        groups = Counter(part.known.group.tolist())
        assert Counter(groups.values()) == {10: 16, 1: 64}
        assert (part.known.copy > 0).sum() == 16 * 9
        for group, times in groups.items():
            rows = np.flatnonzero(part.known.group == group)
            assert sorted(part.known.copy[rows]) == list(range(times))
            assert len({*part.y[rows]}) == 1
            assert len({*part.known.origin[rows]}) == 1
        same = (part.x[part.rows] == part.x[part.known.origin]).all((1, 2, 3))
        assert same.all() if kind == "exact" else (same == (part.known.copy == 0)).all()
        assert set(own.rows) <= set(part.rows)


def test_a_moved_copy_is_its_original_elsewhere() -> None:
    x = np.random.default_rng(0).integers(1, 255, (3, 1, 6, 6)).astype(np.uint8)
    rows, rng = np.repeat(np.arange(3), 50), torch.Generator().manual_seed(0)
    found, moves = moved(x, rows, 2, rng), set()
    for image, row in zip(found, rows, strict=True):
        fits = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                whole = np.pad(x[row], ((0, 0), (2, 2), (2, 2)))[:, 2 + down : 8 + down, 2 + right : 8 + right]
                fits += [(down, right)] * bool((whole == image).all())
        assert len(fits) == 1
        assert fits[0] != (0, 0)
        moves.add(fits[0])
    assert len(moves) == 24


def test_outsiders_are_gone_from_tests_and_dealt_evenly() -> None:
    for seed in range(5):
        parts = made(("outsiders", {}), seed=seed)
        gone = parts.roles.outside
        assert len(gone) == 2
        assert all(part.known.outsider.sum() == 2 * EACH / 5 for part in parts.train)
        for part, test, own in zip(parts.train, parts.test, parts.classes, strict=True):
            assert ((part.y == -1) == part.known.outsider).all()
            assert (part.known.truth == part.y).all()
            assert not set(test.y) & set(gone)
            assert set(own) == set(part.y) - {-1}
            assert own
    own = made(("outsiders", {"classes": [0, 3], "dealt": "own", "asked": "class"}))
    assert [int(p.known.outsider.sum()) for p in own.train] == [EACH, EACH, 0, 0, 0]
    assert own.classes == ((1, 10), (2, 10), (4, 5), (6, 7), (8, 9))
    assert (own.names[10], own.roles.own, own.roles.private) == ("outsider", 10, "outsiders")


def test_outsiders_of_another_data_set() -> None:
    other = np.arange(500, dtype=np.uint8)[:, None, None, None].repeat(6, 2).repeat(6, 3)
    parts = made(("outsiders", {"dataset": "x", "share": 0.5}), parts=replace(clean(), load=lambda name, where: other))
    assert [int(p.known.outsider.sum()) for p in parts.train] == [40] * 5
    rows = np.concatenate([p.rows[p.known.outsider] for p in parts.train])
    assert len(set(rows)) == 200
    assert rows.min() == parts.source
    assert all((p.known.origin[p.known.outsider] == -1).all() for p in parts.train)
    groups = np.concatenate([p.known.group for p in parts.train])
    assert len(set(groups)) == len(groups)
    with pytest.raises(InputError, match="asks for 800 of 500 images"):
        made(("outsiders", {"dataset": "x", "share": 2}), parts=replace(clean(), load=lambda name, where: other))


@pytest.mark.parametrize("kind", ["uniform", "pairwise", "instance"])
def test_noise_gives_other_labels_of_the_same_experience(kind: str) -> None:
    for experiences in (5, 2):
        parts = made(("noise", {"share": 0.3, "kind": kind, "among": "others"}), parts=clean(experiences))
        for part, own in zip(parts.train, parts.classes, strict=True):
            wrong = part.known.wrong(part.y)
            assert wrong.sum() == round(0.3 * len(part.rows))
            assert set(part.y) <= set(own)
            if kind == "pairwise":
                assert set((part.y - part.known.truth)[wrong]) == {1, 1 - len(own)}
    assert not parts.roles.clean
    assert made(("noise", {"held_out": "clean"})).roles.clean


def test_uniform_noise_over_all_classes_may_keep_the_label() -> None:
    """Of 300 drawn labels, each of 10 classes is as frequent; a share of .3·.9 is wrong in the mean."""
    parts = made(("noise", {"share": 0.75}), parts=clean(1))
    part = parts.train[0]
    wrong = int(part.known.wrong(part.y).sum())
    assert 250 < wrong < 290  # 270 ± 3 standard deviations of 5.2
    others = made(("noise", {"share": 0.75, "among": "others"}), parts=clean(1)).train[0]
    assert others.known.wrong(others.y).sum() == 300


def test_noise_by_instance_takes_the_smallest_margins_of_class_means() -> None:
    part = made(("noise", {"share": 0.2, "kind": "instance"}), parts=clean(2)).train[0]
    y, x = part.known.truth, part.x[part.rows].reshape(len(part.rows), -1).astype(float)
    means = np.stack([x[y == c].mean(0) for c in range(5)])
    scores = -((x[:, None] - means) ** 2).sum(2)
    own = scores[np.arange(len(y)), y].copy()
    scores[np.arange(len(y)), y] = -np.inf
    margins, best = own - scores.max(1), scores.argmax(1)
    expected = np.argsort(margins)[:40]
    assert set(np.flatnonzero(part.known.wrong(part.y))) == set(expected)
    assert (part.y[expected] == best[expected]).all()


def test_blurry_experiences_overlap_by_exact_counts() -> None:
    parts = made(("blurry", {"share": 0.1}))
    for i, (part, own) in enumerate(zip(parts.train, parts.classes, strict=True)):
        counts = Counter(part.y.tolist())
        major = {2 * i, 2 * i + 1}
        assert {c: counts[c] for c in major} == dict.fromkeys(major, 36)
        assert {n for c, n in counts.items() if c not in major} == {1}
        assert own == tuple(range(CLASSES))
        assert set(parts.test[i].y) == major
    assert sum(sizes(parts), Counter()) == dict.fromkeys(range(CLASSES), EACH)
    half = made(("blurry", {"share": 0.25, "disjoint": 0.5}))
    assert sorted(max(counts[c] for counts in sizes(half)) for c in range(CLASSES)) == [30] * 5 + [EACH] * 5


OTHERS: dict[str, tuple[tuple[str, dict[str, Any]], list[tuple[str, dict[str, Any]]]]] = {
    "noise": (("noise", {"share": 0.2, "among": "others"}), [("redundant", {})]),
    "redundant": (("redundant", {"share": 0.5}), [("noise", {"share": 0.3}), ("outsiders", {"asked": "class"})]),
    "rare": (("rare", {"classes": [0, 1, 2]}), [("noise", {"held_out": "clean", "share": 0})]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_transform_in_the_list_changes_none_of_the_draws(name: str) -> None:
    """The keys of the images are those without the others; a transform before it shifts them not at all."""
    own, others = OTHERS[name]
    keys = []
    for before in ([], others):
        seen: list[dict[int, float]] = []

        def spied(parts: Parts, *, rng: torch.Generator, seen: list[Any] = seen) -> Parts:
            seen.append({label: place for place, label in enumerate(parts.in_drawn_order(rng))})
            plain = [(p.rows < parts.source) & (p.known.copy == 0) & ~p.known.outsider for p in parts.train]
            for drawn in parts.several_keys(rng, 2):
                for part, keys, own in zip(parts.train, drawn, plain, strict=True):
                    seen.append(dict(zip(part.rows[own].tolist(), keys[own].tolist(), strict=True)))
            return parts

        transformed(clean(), [*bound([PoolSpec(*one) for one in before]), (own[0], spied)], 0)
        keys.append(seen)
    (order, *alone), (left, *with_others) = keys
    assert sorted(left, key=left.__getitem__) == [
        label for label in sorted(order, key=order.__getitem__) if label in left
    ]
    for before_, after in zip(alone, with_others, strict=True):
        assert after
        assert {row: before_[row] for row in after} == after


def test_a_second_transform_of_a_name_draws_anew() -> None:
    twice = made(("noise", {"share": 0.3}), ("noise", {"share": 0.3}))
    wrong = sum(int(p.known.wrong(p.y).sum()) for p in twice.train)
    once = sum(int(p.known.wrong(p.y).sum()) for p in made(("noise", {"share": 0.3})).train)
    assert wrong > once


COMMUTING: list[list[tuple[str, dict[str, Any]]]] = [
    [("rare", {"classes": [0, 3]}), ("step", {"classes": [4, 5]})],
    [("rare", {"classes": [0, 3]}), ("outsiders", {"classes": [2, 7], "dealt": "own"})],
    [("step", {"classes": [0, 3]}), ("outsiders", {"classes": [2, 7], "dealt": "own"})],
    [("rare", {"classes": [0]}), ("step", {"classes": [4]}), ("outsiders", {"classes": [7], "dealt": "own"})],
]


@pytest.mark.parametrize("entries", COMMUTING)
def test_mixtures_commute_where_they_say_so(entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    found = made(*entries)
    other = made(*reversed(entries))
    assert content(found) == content(other)
    assert (found.roles, found.classes) == (other.roles, other.classes)
    assert content(found) != content(made(entries[0]))


def test_a_mixture_that_does_not_commute() -> None:
    noise, copies = ("noise", {"share": 0.3}), ("redundant", {})
    assert content(made(noise, copies)) != content(made(copies, noise))


def test_numbers_are_a_permutation_of_all_samples_that_tells_nothing() -> None:
    """Copies and outsiders lie as others do: their ranks have the mean of all, within 4 standard deviations."""
    parts = made(("redundant", {}), ("outsiders", {}), ("rare", {"query": 2}))
    train, query = numbered([parts.train, parts.query], 0)
    numbers = np.concatenate([part.index for part in (*train, *query)])
    assert sorted(numbers) == list(range(len(numbers)))
    natures = np.concatenate([part.known.copy > 0 for part in train])
    outside = np.concatenate([part.known.outsider for part in train])
    ranks = np.concatenate([part.index for part in train]) / len(numbers)
    for marked in (natures, outside):
        assert abs(ranks[marked].mean() - 0.5) < 4 / np.sqrt(12 * marked.sum())
    copied = np.concatenate([part.known.group for part in train])
    order = np.argsort(ranks)
    beside = (copied[order][1:] == copied[order][:-1]).mean()
    assert beside < 0.02  # in the order of rows, most copies stand beside each other
    assert [part.index.tolist() for part in numbered([parts.train], 0)[0]] == [
        part.index.tolist() for part in numbered([parts.train], 0)[0]
    ]


HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("rare", {"share": 1.5}, "share: found 1.5"),
    ("rare", {"classes": [11]}, "classes: found 11"),
    ("rare", {"classes": [1, 1]}, "each once"),
    ("rare", {"classes": list(range(10))}, "fewer than all 10"),
    ("rare", {"part": 1.0}, "the share of the classes is 1"),
    ("rare", {"query": -1}, "query: found -1"),
    ("rare", {"shares": 0.1}, "did you mean 'share'"),
    ("long-tail", {"ratio": 0.0}, "ratio: found 0"),
    ("step", {"ratio": 2.0}, "ratio: found 2"),
    ("redundant", {"times": 0}, "times: found 0"),
    ("redundant", {"kind": "exakt"}, "did you mean 'exact'"),
    ("redundant", {"times": "many"}, "allowed: a whole number"),
    ("outsiders", {"classes": [0, 1]}, "leaves experience 1 of 5 .* without training samples"),
    ("outsiders", {"share": 0.6}, "cannot be chosen so that each experience keeps one"),
    ("outsiders", {"asked": "drop"}, "did you mean 'dropped'"),
    ("outsiders", {"dataset": "mnist", "classes": [1]}, "classes and dataset"),
    ("outsiders", {"dataset": "mnist"}, "no data set can be loaded"),
    ("noise", {"share": -0.1}, "share: found -0.1"),
    ("noise", {"kind": "uniforn"}, "did you mean 'uniform'"),
    ("blurry", {"share": 2.0}, "share: found 2"),
    ("nois", {}, "did you mean 'noise'"),
]


@pytest.mark.parametrize(("name", "options", "says"), HOSTILE)
def test_hostile_options_are_refused_in_one_line(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        made((name, options))
    assert "\n" not in str(error.value)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="found 1 experiences"):
        made(("blurry", {}), parts=clean(1))
    with pytest.raises(InputError, match="the setting 'task'"):
        made(("blurry", {}), parts=clean(spec=replace(SPEC, setting="task")))
    with pytest.raises(InputError, match="the one class 0"):
        made(("noise", {"among": "others"}), parts=clean(10))
    with pytest.raises(InputError, match="returned a int"):
        transformed(clean(), [("mine", lambda parts, rng: 3)], 0)  # type: ignore[list-item]

"""Claims of papers: verdicts by construction, measures against closed forms, and what is said of absent runs."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from clsim.errors import InputError
from clsim.records.frame import frame
from clsim.records.store import RunRecord
from clsim.reporting import page, show
from clsim.reporting.cells import Cell
from clsim.reporting.claims import Absent, Judged, judge, of_interval, of_ranks
from clsim.reporting.report import Claim, ReportSpec, groups, read_report
from tests.labels import labelled

SPEC = ReportSpec(
    rows=("label",),
    columns=("scenario", "training.epochs"),
    arms=("label",),
    metrics=("aubc", "accuracy"),
    labelling=True,
)
BADGE = Claim("BADGE is better", a={"label": "badge"}, b={"label": "random"})
Level = Callable[[str, int, int], float]
"""(arm, epochs, seed) → final accuracy in percent."""


def always(percent: float) -> Callable[[int, int], float]:
    return lambda p, n: percent / 100


def records(level: Level, seeds: int = 5, names: tuple[str, ...] = ("random", "badge")) -> list[dict[str, Any]]:
    return [
        labelled(
            name,
            seed,
            accuracy=always(level(name, epochs, seed)),
            training__epochs=epochs,
        )
        for name in names
        for epochs in (5, 20)
        for seed in range(seeds)
    ]


def judged(claim: Claim, of: list[dict[str, Any]], **changes: Any) -> Judged:
    (found,) = judge(dataclasses.replace(SPEC, claims=(claim,), **changes), frame(of), of)
    return found


def noisy(gain: Callable[[int], float]) -> Level:
    """Badge is better than random by a gain of its epochs, with a common noise by seed and a small one of its own."""
    return lambda name, epochs, seed: 50 + 3 * seed + (gain(epochs) + 0.1 * (seed % 3)) * (name == "badge")


def trials(level: Callable[[str, float, int], tuple[float, float]], seeds: int = 4) -> list[dict[str, Any]]:
    """Runs of three rates: (arm, rate, seed) → accuracy on held-out samples, and on the test part."""
    found = []
    for name in ("random", "badge"):
        for lr in (0.1, 0.2, 0.3):
            for seed in range(seeds):
                held_out, tested = level(name, lr, seed)
                record = labelled(name, seed, accuracy=always(tested), optimizer__lr=lr)
                found.append(record | {"validation": [held_out]})
    return found


WAY = Claim("sooner", measure="speed-up", a={"batch.selector": "rho-loss"}, b={"batch.selector": "random"})


def on_the_way(name: str, seed: int, steps: list[int], accuracy: list[float]) -> dict[str, Any]:
    """A run whose last of two experiences was tested after some steps."""
    record = labelled("random", seed, accuracy=always(accuracy[-1]))
    record["spec"]["batch"] = {"selector": name}
    curve = {"steps": steps, "candidates": steps, "seconds": steps, "accuracy": [[0.5, 2 * a - 0.5] for a in accuracy]}
    entry = {"experience": 1, "steps": steps[-1], "candidates": 1, "trained": 1, "learnt": 0.5, "curve": curve}
    return record | {"fingerprint": f"{name} {seed}", "batches": [entry | {"experience": 0, "curve": None}, entry]}


def test_the_speed_up_is_that_of_steps_to_the_best_accuracy_of_the_other() -> None:
    """Reached on the way, reached by chance early and lost again, and never, where the last step counts."""
    runs = [on_the_way("random", seed, [10, 20, 30, 40], [0.1, 0.4, 0.6, 0.5]) for seed in range(3)]
    runs += [on_the_way("rho-loss", 0, [10, 20, 30, 40], [0.2, 0.7, 0.5, 0.8])]
    runs += [on_the_way("rho-loss", 1, [10, 20, 30, 40], [0.6, 0.1, 0.1, 0.1])]
    runs += [on_the_way("rho-loss", 2, [10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4])]
    spec = dataclasses.replace(SPEC, rows=("batch.selector",), arms=("batch.selector",), metrics=("accuracy",))
    (found,) = judge(dataclasses.replace(spec, claims=(WAY,)), frame(runs), runs)
    assert found.values == (1.5, 3.0, 0.75)
    for record in runs:
        del record["batches"]
    (absent,) = judge(dataclasses.replace(spec, claims=(WAY,)), frame(runs), runs)
    assert absent.verdict == "not judged"
    assert "evaluation.steps" in absent.why


TUNED = ReportSpec(
    rows=("label",), columns=("scenario",), arms=("label",), metrics=("accuracy",), tuned=("optimizer.lr",)
)


def test_each_arm_is_shown_with_its_best_trial_by_held_out_samples_alone() -> None:
    """Random's best rate is 0.2, badge's 0.3; on the test part, which decides nothing, the others are better."""
    best = {"random": 0.2, "badge": 0.3}
    of = trials(lambda name, lr, seed: (0.8 + 0.01 * seed if lr == best[name] else 0.7, 100 * (1 - lr)))
    names, chosen = groups(TUNED, frame(of))
    assert names == ["label"]  # the rate is no label of a row
    assert len(chosen) == 8
    assert {*zip(chosen["label"], chosen["optimizer.lr"], strict=True)} == {*best.items()}


def test_trials_are_compared_on_the_seeds_that_all_of_them_have() -> None:
    of = trials(lambda name, lr, seed: (0.5 + 0.1 * seed + 0.01 * lr, 50))
    short = [r for r in of if not (r["spec"]["optimizer"]["lr"] == 0.1 and r["spec"]["seed"] < 3)]
    assert {*groups(TUNED, frame(short))[1]["optimizer.lr"]} == {0.3}  # not 0.1, whose only seed is the best one
    with pytest.raises(InputError, match="without held-out samples"):
        groups(TUNED, frame([r | {"validation": [None]} for r in of]))


def test_a_claim_that_holds_one_that_does_not_and_one_that_cannot_be_told() -> None:
    found = judged(BADGE, records(noisy(lambda epochs: 2)))
    d = [2 + 0.1 * (seed % 3) for seed in range(5)]
    half = stats.t.ppf(0.975, 4) * np.std(d, ddof=1) / math.sqrt(5)
    assert (found.verdict, found.why) == ("holds", "")
    assert found.values == pytest.approx(d)
    assert (found.low, found.high) == pytest.approx((np.mean(d) - half, np.mean(d) + half))
    assert judged(BADGE, records(noisy(lambda epochs: -2))).verdict == "does not hold"
    assert judged(BADGE, records(noisy(lambda epochs: -0.08))).verdict == "cannot be told"
    assert judged(dataclasses.replace(BADGE, bound=5), records(noisy(lambda epochs: 2))).verdict == "does not hold"
    on_par = dataclasses.replace(BADGE, expect="within", bound=1)
    assert judged(on_par, records(noisy(lambda epochs: 0.2))).verdict == "holds"
    assert judged(on_par, records(noisy(lambda epochs: -3))).verdict == "does not hold"
    assert judged(on_par, records(noisy(lambda epochs: 0.9))).verdict == "cannot be told"
    worse = dataclasses.replace(BADGE, expect="below")
    assert judged(worse, records(noisy(lambda epochs: -2))).verdict == "holds"


def test_with_too_few_seeds_nothing_is_told() -> None:
    found = judged(BADGE, records(noisy(lambda epochs: 2), seeds=2))
    assert (found.verdict, found.why) == ("cannot be told", "2 common seeds, 3 needed")
    one_lacks = records(noisy(lambda epochs: 2), seeds=4)[:-2]  # badge at 20 epochs has two seeds
    assert judged(BADGE, one_lacks).why == "2 common seeds, 3 needed"
    short = dataclasses.replace(BADGE, at={"training.epochs": 5})
    assert judged(short, one_lacks).verdict == "holds"


def test_the_interval_keeps_its_level() -> None:
    """Where there is no difference, a claim of one holds in 2.5 % of the cases."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        x = rng.normal(size=5)
        half = stats.t.ppf(0.975, 4) * x.std(ddof=1) / math.sqrt(5)
        found.append(of_interval(BADGE, x.mean() - half, x.mean() + half))
    assert found.count("holds") / 400 == pytest.approx(0.025, abs=0.02)
    assert of_interval(BADGE, math.nan, math.nan) == "cannot be told"
    assert of_interval(BADGE, 0, 0) == "does not hold"  # all seeds are equal


def test_runs_that_are_not_there_are_named() -> None:
    of = records(noisy(lambda epochs: 2))
    found = judged(dataclasses.replace(BADGE, b={"label": ["bald", "vaal"]}), of)
    assert (found.verdict, found.why) == ("not judged", "no finished run with label bald or vaal")
    found = judged(dataclasses.replace(BADGE, at={"training.epochs": 7}), of)
    assert found.why == "no finished run with training.epochs 7, label badge"
    apart = [r for r in of if (r["spec"]["labelling"]["selector"] == "badge") == (r["spec"]["training"]["epochs"] == 5)]
    assert judged(BADGE, apart).why == "both sides have no condition in common"
    assert judged(dataclasses.replace(BADGE, than={"training.epochs": 3}), of).verdict == "not judged"
    with pytest.raises(InputError, match=r"claim 'BADGE is better': unknown column 'labl'; did you mean 'label'\?"):
        judged(dataclasses.replace(BADGE, a={"labl": "badge"}), of)


def test_what_is_beyond_a_small_machine_is_judged_at_the_published_size_alone() -> None:
    of, claim = records(noisy(lambda epochs: 2)), dataclasses.replace(BADGE, size="published")
    found = judged(claim, of)
    assert (found.verdict, found.why, found.values) == ("not judged", "published size alone", ())
    assert judged(claim, of, size="published").verdict == "holds"


def test_difference_of_differences() -> None:
    claim = dataclasses.replace(BADGE, at={"training.epochs": 20}, than={"training.epochs": 5})
    found = judged(claim, records(noisy(lambda epochs: epochs / 5)))
    assert found.values == pytest.approx([3.0] * 5)
    assert found.verdict == "holds"
    assert judged(claim, records(noisy(lambda epochs: 2))).verdict == "does not hold"  # no change in any seed


def test_settings_are_compared_within_what_else_differs() -> None:
    """Longer against shorter training: each arm with itself, and none where an arm has one length only."""
    claim = Claim("longer is better", a={"training.epochs": 20}, b={"training.epochs": 5}, at={"label": "random"})
    of = records(lambda name, epochs, seed: 50 + epochs / 10 + seed + 10 * (name == "badge"))
    assert judged(claim, of).values == pytest.approx([1.5] * 5)
    assert judged(dataclasses.replace(claim, at={}), of).values == pytest.approx([1.5] * 5)


def test_an_arm_is_compared_only_where_both_were_run() -> None:
    of = records(noisy(lambda epochs: epochs))
    lacks = [r for r in of if (r["spec"]["labelling"]["selector"], r["spec"]["training"]["epochs"]) != ("random", 20)]
    assert judged(BADGE, lacks).values == pytest.approx([5 + 0.1 * (seed % 3) for seed in range(5)])


def test_groups_of_arms_are_averaged_and_wins_counted() -> None:
    gains = {"random": 0, "a": 1, "b": -2, "c": 4}
    of = records(lambda name, epochs, seed: 40 + seed + gains[name], names=tuple(gains))
    group = dataclasses.replace(BADGE, a={"label": ["a", "b", "c"]})
    assert judged(group, of).values == pytest.approx([1.0] * 5)
    wins = dataclasses.replace(group, measure="wins", expect="below", bound=90)
    assert judged(wins, of).values == pytest.approx([200 / 3] * 5)
    assert judged(wins, of).verdict == "holds"
    same = dataclasses.replace(wins, a={"label": "random"})
    assert judged(same, of).values == pytest.approx([50.0] * 5)  # equal ones count half
    dearer = dataclasses.replace(wins, metric="train_seconds", a={"label": "a"})
    for record in of:
        seconds = 2.0 if record["spec"]["labelling"]["selector"] == "a" else 1.0
        record["cost"] = [record["cost"][0] | {"train_seconds": seconds}]
    assert judged(dearer, of).values == (0.0,) * 5  # of a cost, less is better
    ratio = Claim("twice as dear", metric="train_seconds", measure="ratio", a={"label": "a"}, b={"label": "random"})
    assert judged(dataclasses.replace(ratio, bound=1.9), of).values == (2.0,) * 5


def test_efficiency_is_the_ratio_of_slopes_seed_by_seed() -> None:
    def straight(name: str, slope: Callable[[int], float]) -> list[dict[str, Any]]:
        slopes = [slope(s) for s in range(4)]
        return [
            labelled(name, s, sizes=(90, 300), accuracy=lambda p, n, k=k: 0.1 + k * n) for s, k in enumerate(slopes)
        ]

    of = straight("random", lambda s: 0.0005) + straight("badge", lambda s: 0.001 + 0.00025 * s)
    of += straight("never", lambda s: 0.0001)
    claim = dataclasses.replace(BADGE, measure="efficiency", bound=2)
    assert judged(claim, of).values == pytest.approx([2.0, 2.5, 3.0, 3.5])
    assert judged(dataclasses.replace(claim, bound=1), of).verdict == "holds"
    assert judged(claim, of).verdict == "cannot be told"
    never = dataclasses.replace(claim, a={"label": "never"})
    assert judged(never, of).values == pytest.approx([1.0] * 4)  # its last budget stands in
    assert judged(never, of).verdict == "does not hold"


def test_the_first_choice_is_compared_where_its_labels_are_learnt() -> None:
    """By hand: random has 0.2 + 0.001 n, badge 0.3; the first choice is of 90 labels, after an initial set of 10."""

    def straight(name: str, first: float, slope: float, *sizes: int) -> list[dict[str, Any]]:
        return [
            labelled(name, seed, sizes=sizes, accuracy=lambda p, n, s=seed: first + 0.01 * s + slope * n)
            for seed in range(4)
        ]

    of = straight("random", 0.2, 0.001, 90, 300) + straight("badge", 0.3, 0.0, 90, 300)
    of += straight("other", 0.3, 0.0, 50, 340)
    claim = dataclasses.replace(BADGE, measure="first")
    assert judged(claim, of).values == pytest.approx([30 - (20 + 0.1 * 100)] * 4)
    of += straight("better", 0.35, 0.0, 90, 300)
    assert judged(dataclasses.replace(claim, a={"label": "better"}), of).values == pytest.approx([5.0] * 4)
    assert judged(dataclasses.replace(claim, a={"label": "better"}), of).verdict == "holds"
    other = judged(dataclasses.replace(claim, a={"label": "other"}), of)
    assert (other.verdict, other.why) == ("not judged", "the first choices are of different numbers of labels")


def of_setting(values: np.ndarray) -> dict[tuple[str, ...], Cell]:
    """Arms (columns) by seeds (rows)."""
    return {(f"arm {i}",): Cell(tuple(column), seeds=tuple(range(len(column)))) for i, column in enumerate(values.T)}


def test_ranks_that_a_setting_turns_around_are_told_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    order = np.arange(6.0)
    x, y = (level + 0.1 * rng.normal(size=(5, 6)) for level in (order, -order))
    assert list(of_ranks(of_setting(x), of_setting(y)).values()) == pytest.approx([-2.0] * 5)  # ρ of −1 against 1
    same = order + 0.1 * rng.normal(size=(5, 6))
    assert list(of_ranks(of_setting(x), of_setting(same)).values()) == pytest.approx([0.0] * 5)
    claim = Claim("ranks change", measure="ranks", expect="below")
    for noise in ((1.0, 1.0), (0.3, 3.0)):  # the order is the same, but one setting may be noisier
        held, means = 0, []
        for _ in range(200):
            one, other = (of_setting(order + size * rng.normal(size=(5, 6))) for size in noise)
            values = [*of_ranks(one, other).values()]
            half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) / math.sqrt(5)
            held += of_interval(claim, np.mean(values) - half, np.mean(values) + half) == "holds"
            means.append(np.mean(values))
        assert held <= 24  # of 200; about 6 %, as the seeds share their means
        assert abs(np.mean(means)) < 0.03
    with pytest.raises(Absent, match="2 arms in both settings"):
        of_ranks(of_setting(x[:, :2]), of_setting(y[:, :2]))


def test_ranks_of_a_report() -> None:
    names = ("random", "a", "b", "c")
    of = records(lambda n, e, s: 50 + s + (1 if e == 5 else -1) * names.index(n) + 0.01 * s, names=names)
    claim = Claim("length matters", "aubc", "ranks", at={"training.epochs": 5}, than={"training.epochs": 20})
    claim = dataclasses.replace(claim, expect="below")
    assert judged(claim, of).values == pytest.approx([-2.0] * 5)
    assert judged(claim, of).verdict == "holds"
    assert judged(dataclasses.replace(claim, a={"label": ["a", "b"]}), of).why == "2 arms in both settings, 3 needed"


def test_runs_on_one_initial_set_are_one_unit() -> None:
    level = noisy(lambda epochs: 2)
    of = [
        labelled(name, seed, split=split, accuracy=always(level(name, 5, seed + split)))
        for name in ("random", "badge")
        for split in range(3)
        for seed in range(4)
    ]
    assert len(judged(BADGE, of).values) == 3


FILE = """
title = "Mine"
rows = ["label"]
columns = ["scenario"]
metrics = ["accuracy"]
labelling = true
[[claims]]
text = "BADGE is better"
a = { label = "badge" }
b = { label = "random" }
at = { training.epochs = 5 }
[[claims]]
text = "and at length, <b>|%"
a = { label = "badge" }
b = { label = "bald" }
"""


@pytest.mark.parametrize("form", show.FORMS)
def test_claims_are_shown_in_every_format(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(FILE)
    out, of = io.StringIO(), records(noisy(lambda epochs: 2))
    show.show(read_report(tmp_path / "mine.toml"), of, form, Console(file=out, width=200))
    text = out.getvalue() + capsys.readouterr().out
    if form == "csv":
        (first, second) = pd.read_csv(io.StringIO(text)).query("metric == 'claim'").to_dict("records")
        assert (first["claim"], first["claimed"], first["verdict"]) == ("BADGE is better", "above 0", "holds")
        assert (first["n"], first["mean"]) == (5, pytest.approx(2.08))
        assert second["verdict"] == "not judged: no finished run with label bald"
        assert math.isnan(second["mean"])
    elif form != "runs":
        assert "BADGE is better" in text
        assert "not judged: no finished run with label bald" in text
        assert "nan" not in text.lower()
    if form == "markdown":
        assert "| 1 | BADGE is better | holds | +2.08 " in text
        assert "<b>" not in text


def test_the_page_has_the_claims(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(FILE)
    text = page.render(
        read_report(tmp_path / "mine.toml"), [RunRecord(r) for r in records(noisy(lambda epochs: 2))], []
    )
    assert '<a href="#claims">Claims</a>' in text
    assert "BADGE is better" in text
    assert "<b>|%" not in text
    assert 'href="#claims"' not in page.render(SPEC, [RunRecord(r) for r in records(noisy(lambda epochs: 2))], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[claims]]\na = { label = 'x' }", r"claims\[0\]\] text: missing"),
        ("[[claims]]\ntext = 'x'\nversus = { label = 'x' }", r"unknown key; .*(allowed|did you mean)"),
        ("[[claims]]\ntext = 'x'\nexpect = 'more'", r"found 'more'; .*above"),
        (
            "[[claims]]\ntext = 'x'\nmetric = 'acuracy'",
            "claims, number 1: metric: unknown name 'acuracy'; did you mean",
        ),
        ("[[claims]]\ntext = 'x'\na = { label = 'x' }", "number 1: b: found nothing with measure 'difference'"),
        (
            "[[claims]]\ntext = 'x'\nmeasure = 'ranks'",
            "number 1: than: found nothing with measure 'ranks', allowed: column = value",
        ),
        ("[[claims]]\ntext = 'x'\na = { label = 'x' }\nb = { label = 'y' }\nexpect = 'within'", "bound: found 0 with"),
        ("[[claims]]\ntext = 3", "found 3, allowed: text"),
        ("claims = 3", "claims: found 3"),
        ("base = 3", "base: found 3, allowed: text"),
        ("base = 'activ'", "reports: unknown name 'activ'; did you mean 'active'"),
    ],
)
def test_a_broken_claim_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_report(tmp_path / "mine.toml")


def test_a_report_may_stand_on_another(tmp_path: Path) -> None:
    below, mine, third = (tmp_path / f"{name}.toml" for name in ("below", "mine", "third"))
    below.write_text(FILE + "[filter]\nscenario = 'active-digits'\nmodel.name = 'mlp'\n")
    mine.write_text(f"base = {str(below)!r}\ntitle = 'Larger'\nsize = 'published'\n[filter]\nmodel.name = 'resnet18'\n")
    spec = read_report(mine)
    assert (spec.title, spec.size, len(spec.claims), spec.rows) == ("Larger", "published", 2, ("label",))
    assert dict(spec.filter) == {"scenario": "active-digits", "model.name": "resnet18"}
    third.write_text(f"base = {str(mine)!r}\n")
    with pytest.raises(InputError, match="has a base itself"):
        read_report(third)

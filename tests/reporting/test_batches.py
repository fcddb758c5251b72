"""The report on batches: numbers known by hand, streams, labels, targets, and what is said where nothing is known."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from clsim.errors import InputError
from clsim.records.frame import frame
from clsim.records.step_curve import ways
from clsim.records.store import RunRecord
from clsim.reporting import batch_figures, batch_plots, page, plots, show
from clsim.reporting.batch_tables import batches
from clsim.reporting.batches import fields
from clsim.reporting.listing import Listing
from clsim.reporting.report import ReportSpec, find_report, read_report
from tests.labels import labelled
from tests.ways import NET, small, stream, walked

SPEC = find_report("batches")


def listed(records: list[dict[str, Any]], spec: ReportSpec = SPEC) -> dict[str, Listing]:
    return {listing.title.partition(" (")[0]: listing for listing in batches(spec, frame(records), records)[1]}


def lines(listing: Listing) -> dict[str, dict[str, str]]:
    """Arm → heading → entry."""
    heads = [column[0] for column in listing.columns]
    return {line.labels[0]: dict(zip(heads, line.entries, strict=True)) for line in listing.lines}


def written(records: list[dict[str, Any]], form: str, spec: ReportSpec = SPEC) -> str:
    return show.text(spec, frame(records), records, form, "batches", (), tests=False)


def test_a_table_whose_numbers_are_known_by_hand() -> None:
    """At 20 steps training without a choice is a third of the way from 30 to 90 %; at 210 candidates 110 of 300."""
    made = listed(small())
    assert lines(made["Accuracy at equal cost"]) == {
        "loss": {
            "accuracy at the end, %": "36.7 ± 71.7",
            "at 20 steps, %": "36.7 ± 71.7",
            "at 210 candidates, %": "34.0 ± 64.5",
        },
        "none": {
            "accuracy at the end, %": "90.0 ± 0.0",
            "at 20 steps, %": "50.0 ± 0.0",
            "at 210 candidates, %": "52.0 ± 0.0",
        },
        "random": {
            "accuracy at the end, %": "50.0 ± 0.0",
            "at 20 steps, %": "60.0 ± 0.0",
            "at 210 candidates, %": "59.0 ± 0.0",
        },
        "rho-loss": {
            "accuracy at the end, %": "80.0 ± 0.0",
            "at 20 steps, %": "80.0 ± 0.0",
            "at 210 candidates, %": "80.0 ± 0.0",
        },
    }
    heads = ("reached, % of seeds", "steps", "candidates", "s", "s, with nets")
    found = {arm: tuple(entries[head] for head in heads) for arm, entries in lines(made["To the target"]).items()}
    assert found == {
        "random": ("100", "20", "200", "2.0", "2.0"),
        "rho-loss": ("100", "10", "110", "5.0", "35.0"),
        "none": ("100", "40", "400", "2.0", "2.0"),
        "loss": ("33", "≥ 20", "≥ 220", "≥ 8.0", "≥ 8.0"),
    }
    spent = lines(made["What was spent and learnt"])
    heads = ("steps", "candidates", "forward passes", "s", "wrong labels learnt, %", "learnt already, %")
    assert [spent["rho-loss"][head] for head in heads] == ["20", "210", "70", "6.0", "25.0", "12.5"]
    assert [spent["none"][head] for head in heads] == ["40", "400", "70", "2.0", "–", "–"]
    nets = ("nets: images", "nets: steps", "nets: forward passes", "nets: s")
    assert [spent["rho-loss"][head] for head in nets] == ["100", "15", "900", "30.0"]
    assert {spent["random"][head] for head in nets} == {"–"}
    assert "best accuracy of random" in made["To the target"].notes[0]


def test_the_target_is_that_of_random_with_the_same_seed_without_it_that_of_no_choice_or_one_that_is_set() -> None:
    runs = small()
    shifted = walked("random", 1, [([10, 20, 30], [100, 200, 300], [1, 2, 3], [0.4, 0.75, 0.5])])
    runs[4] = shifted  # the run of seed 1: rho-loss needs 20 steps there
    assert lines(listed(runs)["To the target"])["rho-loss"]["steps"] == "13 ± 14"
    without = [record for record in small() if record["spec"]["batch"]["selector"] != "random"]
    made = listed(without)["To the target"]
    assert "best accuracy of none" in made.notes[0]
    assert lines(made)["rho-loss"]["reached, % of seeds"] == "0"
    neither = [record for record in without if record["spec"]["batch"]["selector"] != "none"]
    made = listed(neither)["To the target"]
    assert made.notes[0].startswith("No target: ")
    assert {*lines(made)["rho-loss"].values()} == {"–"}
    made = listed(neither, dataclasses.replace(SPEC, target=75.0))["To the target"]
    assert made.notes[0].startswith("Target: 75 %.")
    assert lines(made)["rho-loss"]["steps"] == "20"


def test_a_seed_that_random_lacks_has_no_target() -> None:
    runs = [record for record in small(4) if record["spec"]["batch"]["selector"] != "random" or record["spec"]["seed"]]
    (field,) = fields(SPEC, frame(runs), runs)
    (rho,) = (arm for arm in field.arms if arm.name == "rho-loss")
    assert [math.isnan(taken) for taken, _ in field.to_target(rho, "steps", [0])] == [True, False, False, False]


def test_in_a_stream_accuracies_are_averaged_and_costs_summed_over_experiences() -> None:
    """Rho-loss: 10 steps of experience 1, and all 10 of experience 2, which does not reach it."""
    runs = stream()
    made = listed(runs)
    assert lines(made["Accuracy at equal cost"])["random"] == {
        "accuracy at the end, %": "50.0 ± 0.0",
        "at equal steps, %": "65.0 ± 0.0",
        "at equal candidates, %": "65.0 ± 0.0",
    }
    assert "In each of them: 20 · 10 steps, 200 · 100 candidates." in made["Accuracy at equal cost"].notes[-1]
    found = lines(made["To the target"])
    assert [*found["random"].values()] == ["100", "30", "300", "6.0", "6.0"]
    assert [*found["rho-loss"].values()] == ["50", "≥ 20", "≥ 200", "≥ 10.0", "≥ 70.0"]
    spent = lines(made["What was spent and learnt"])["rho-loss"]
    assert [spent[head] for head in ("steps", "nets: images", "nets: steps", "nets: s")] == [
        "30",
        "200",
        "30",
        "60.0",
    ]
    rows = [*csv.DictReader(io.StringIO(written(runs, "csv")))]
    by = {(row["metric"], row["batch.selector"], row["experience"]): row["mean"] for row in rows}
    means = [float(by["accuracy_at_steps", "random", at]) for at in ("all", "1", "2")]
    assert means == pytest.approx([65, 70, 60])
    assert [by["steps_to_target_where_reached", "rho-loss", at] for at in ("all", "1", "2")] == ["", "10.0", ""]
    assert by["all_seconds_to_target_where_reached", "rho-loss", "1"] == "32.0"


def test_average_accuracy_on_the_way_is_weighed_as_at_the_end() -> None:
    record = walked("random", 0, [([10], [100], [1], [0.5])] * 2, setting="class")
    record["batches"][1]["curve"]["accuracy"] = [[0.9, 0.5]]
    record["test_sizes"] = [300, 100]
    assert ways(record)[1].accuracy.tolist() == pytest.approx([0.8])


def test_label_rounds_follow_one_another() -> None:
    """The second round begins at 20 steps, 200 candidates and 2 s, and after two nets of 30 s."""
    record = walked("rho-loss", 0, [([10, 20], [100, 200], [1, 2], [0.5, 0.6])], net=NET)
    (entry,) = record["batches"]
    record["batches"] = [
        entry | {"round": 0},
        entry | {"round": 1, "curve": entry["curve"] | {"accuracy": [[0.7], [0.8]]}},
    ]
    way = ways(record)[0]
    assert way.taken["steps"].tolist() == [10, 20, 30, 40]
    assert way.taken["candidates"].tolist() == [100, 200, 300, 400]
    assert way.taken["all_seconds"].tolist() == [31, 32, 63, 64]
    assert way.to("all_seconds", 0.7) == (63, True)
    assert frame([record])["irreducible_seconds"][0] == 60
    assert frame([record])["irreducible_images"][0] == 100  # those of the last round
    assert frame([record])["candidates"][0] == 400


def test_conditions_are_apart() -> None:
    """With another pool random is worse: rho-loss is held against random of its own pool."""
    runs = small()
    noisy = [
        walked(name, seed, [([10, 20], [100, 200], [1, 2], curve)], pool="noise")
        for seed in range(3)
        for name, curve in (("random", [0.1, 0.2]), ("rho-loss", [0.1, 0.3]))
    ]
    found = batches(SPEC, frame([*runs, *noisy]), [*runs, *noisy])[1]
    made = {listing.title: listing for listing in found if listing.title.startswith("To the target")}
    clean, other = (lines(listing) for listing in sorted(made.values(), key=lambda one: "noise" in one.title))
    assert clean["rho-loss"]["steps"] == "10"
    assert other["rho-loss"]["steps"] == "20"


def test_wrong_labels_without_a_choice_are_those_of_the_training_samples() -> None:
    record = walked("none", 0, [([10], [100], [1], [0.5])])
    natures = {"rare_classes": [], "rounds": [], "memory": [], "accuracy_rare": []}
    record["natures"] = natures | {"trained": [{"experience": 0, "all": 50, "wrong": 10}]}
    assert frame([record])["wrong_trained"][0] == 0.2
    chosen = walked("random", 0, [([10], [100], [1], [0.5])], wrong=0.25)
    chosen["natures"] = record["natures"]
    assert frame([chosen])["wrong_trained"][0] == 0.25


def test_runs_that_were_not_tested_on_the_way_are_said_with_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    plain = [labelled("none", seed, sizes=()) for seed in range(3)]
    for record in plain:
        del record["labelling"]
    out = io.StringIO()
    show.show(SPEC, plain, "console", Console(file=out, width=200))
    (said,) = (line for line in out.getvalue().splitlines() if "evaluation.steps" in line)
    assert said.strip().startswith("No run was tested on the way: make runs with --set evaluation.steps=20")
    some = small()
    del some[0]["batches"][0]["curve"]
    assert any(note.startswith("1 runs were not tested") for note in listed(some)["To the target"].notes)
    assert "Accuracy over gradient steps" not in page.render(SPEC, [RunRecord(record, None) for record in plain], [])


def test_each_run_of_the_csv_has_its_own_numbers() -> None:
    rows = [*csv.DictReader(io.StringIO(written(small(), "runs")))]
    by = {(row["batch.selector"], row["seed"]): row for row in rows}
    names = ("equal_steps", "accuracy_at_steps", "steps_to_target", "all_seconds_to_target", "target_reached")
    assert [by["rho-loss", "1"][name] for name in names] == ["20", "0.8", "10", "35", "1"]
    assert [by["loss", "1"][name] for name in names] == ["20", "0.2", "", "", "0"]
    assert by["none", "0"]["accuracy_at_candidates"] == "0.52"
    assert "equal_steps" not in written(small(), "runs", dataclasses.replace(SPEC, batches=False))


def test_curves_of_figures_are_means_at_equal_steps() -> None:
    runs = [walked("random", seed, [([10, 30], [1, 3], [seed, 3 * seed], [0.2, 0.4])]) for seed in (1, 2, 3)]
    runs[0]["batches"][0]["curve"] |= {"steps": [10, 20, 40], "candidates": [1, 2, 4], "seconds": [1, 2, 4]}
    runs[0]["batches"][0]["curve"]["accuracy"] = [[0.2], [0.6], [0.6]]
    (field,) = fields(SPEC, frame(runs), runs)
    (part,) = batch_figures.stretches(field.arms[0])
    assert part.taken["steps"].tolist() == [10, 20, 30]
    assert part.accuracy.tolist() == pytest.approx([20, 40, 140 / 3])
    assert part.taken["all_seconds"].tolist() == pytest.approx([2, 4, 6])
    assert part.half[0] == 0
    assert part.half[1] > 0
    two = stream()[:2]
    (field,) = fields(SPEC, frame(two), two)
    first, second = batch_figures.stretches(next(arm for arm in field.arms if arm.name == "random"))
    assert second.taken["steps"].tolist() == [25, 30, 35]  # 20 of the first experience
    assert first.taken["steps"].tolist() == [10, 20]


def test_the_page_has_three_panels_a_condition_with_one_style_an_arm(tmp_path: Path) -> None:
    text = page.render(SPEC, [RunRecord(record, None) for record in small()], [])
    assert text.count('aria-label="Accuracy over ') == 3
    assert "rho-loss 80.0 % after 36" in text  # seconds with the net's
    assert '<a href="#batches">Batches</a>' in text
    drawn = batch_plots.drawn(SPEC, small())
    (figure,) = drawn.values()
    axes = figure.axes[:3]
    assert [ax.get_xlabel() for ax in axes] == [*batch_figures.AXES.values()]
    styles = [{line.get_label(): line.get_color() for line in ax.lines} for ax in axes]
    assert styles[0] == styles[1] == styles[2]
    assert len({*styles[0].values()}) == 4
    (rho,) = (line for line in axes[2].lines if line.get_label() == "rho-loss")
    assert np.asarray(rho.get_xdata()).tolist() == [35, 36]
    made = [path.name for path in batch_plots.draw(SPEC, small(), tmp_path)]
    assert made == [f"split-digits-batches.{kind}" for kind in ("pdf", "svg", "png")]


def test_an_arm_has_one_style_in_all_figures_of_a_report() -> None:
    (others, *_) = plots.drawn(SPEC, small()).values()
    (figure,) = batch_plots.drawn(SPEC, small()).values()
    of_batches, of_others = (
        {line.get_label(): (line.get_color(), line.get_marker()) for line in of.axes[0].lines if named(line)}
        for of in (figure, others)
    )
    assert of_batches == {label: of_others[label] for label in of_batches}
    assert len({*of_batches.values()}) == 4


def named(line: Any) -> bool:
    return not line.get_label().startswith("_")


def test_long_names_are_left_to_the_legend() -> None:
    short, long = (
        page.render(SPEC, [RunRecord(walked(name, 0, [([10, 20], [1, 2], [1, 2], [0.4, 0.6])]), None)], [])
        for name in ("mine", "./a/very/long/path/to/a/selector/of/mine.py:by_the_length_of_the_gradient_of_the_loss")
    )
    assert ">mine</text>" in short.replace("\n", "")
    assert "</text>" in long
    assert "by_the_length" not in "".join(part.partition("</svg>")[0] for part in long.split("<svg")[1:])


def test_a_line_far_below_the_others_does_not_hide_them() -> None:
    runs = [walked("random", s, [([10, 20], [1, 2], [1, 2], [0.7, 0.8])]) for s in range(3)]
    runs += [walked("loss", s, [([10, 20], [1, 2], [1, 2], [0.5, 0.1])]) for s in range(3)]
    (figure,) = batch_plots.drawn(SPEC, runs).values()
    assert figure.axes[0].get_ylim()[0] > 60
    assert [text.get_text() for text in figure.axes[0].texts] == ["↓ loss 10.0 %"]


def test_a_target_is_a_percentage(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "batches"\ntarget = 120.0\n', encoding="utf-8")
    with pytest.raises(InputError, match="target: found 120, allowed: a percentage from 0 to 100"):
        read_report(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text('base = "batches"\ntarget = 75\n', encoding="utf-8")
    assert read_report(tmp_path / "mine.toml").target == 75

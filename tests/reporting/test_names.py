"""Names of 1 to 300 characters of any kind: every form of a report shows them, and no figure is crushed by them."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from clsim.records import frame
from clsim.records.store import RunRecord
from clsim.reporting import curves, figures, names, page, picture, plots, show, svg
from clsim.reporting.listing import in_short
from clsim.reporting.names import IN_FIGURES, arms, shortened, width
from clsim.reporting.report import ReportSpec
from tests.reporting.test_latex import check
from tests.reporting.test_page import Page, renamed
from tests.studies import study

ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz_.-/:()",
    "$_{}^\\%#&~<>\"'`*|!?=,;[] ",
    "äößéñçøÆŁ αβγΔΩ ×·…±",
    "漢字かな데이터数据",
    "שלוםעולם مرحبا",
    "🦆🐢👩‍🚀\u0301\u200b\u202e\x00\x1b\n\t\udcff",
)


def name_of(rng: random.Random, length: int) -> str:
    alphabet = rng.choice([*ALPHABETS, "".join(ALPHABETS)])
    return "".join(rng.choice(alphabet) for _ in range(length))


def path_of(rng: random.Random, length: int) -> str:
    """A user's file, as in ``./my.py:net2``; several differ in their ends only."""
    folder = "./" + "a folder with a long name/" * (length // 40)
    return f"{folder}{'file' * max((length - len(folder)) // 8, 1)}.py:{rng.choice(['net', 'other', 'third'])}"


@pytest.mark.parametrize("seed", range(40))
def test_short_names_fit_and_differ(seed: int) -> None:
    rng = random.Random(seed)
    make = rng.choice([name_of, path_of])
    given = {make(rng, rng.randint(1, 300)) for _ in range(rng.randint(1, 40))}
    given |= {f"{'x' * 150}{i}{'y' * 150}" for i in range(rng.choice([0, 30]))}
    for most in (IN_FIGURES, 12):
        short = shortened(given, most)
        assert set(short) == given
        assert len(set(short.values())) == len(given)
        assert all(width(text) <= most for text in short.values())
        assert all(short[name] == name for name in given if width(name) <= most and name.isprintable())
        assert all(text.isprintable() for text in short.values())
    keys = {tuple(rng.choice([*sorted(given), "–"]) for _ in range(3)) for _ in range(12)}
    for found in (arms(("strategy", "buffer", "training.epochs"), keys), names.arms_in_tables("abc", keys, " · ")):
        assert set(found) == keys
        assert len(set(found.values())) == len(keys)
        assert all(0 < width(text) <= names.IN_TABLES for text in found.values())


def test_an_arm_is_named_by_what_differs() -> None:
    columns = ("strategy", "buffer", "training.epochs", "model.name", "sources")
    keys = [
        ("er", "random", "2", "mlp", "[]"),
        ("er", "random", "9", "mlp", "[]"),
        ("er", "./an/own.py:f", "2", "mlp", '[["./an/own.py:f", "0"]]'),
        ("er", "random", "2", "./net.py:net2", '[["./net.py:net2", "1"]]'),
    ]
    assert list(arms(columns, keys).values()) == ["random", "random epochs 9", "./an/own.py:f", "random ./net.py:net2"]
    assert list(arms(columns, keys[:1]).values()) == ["er"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return study(tmp_path_factory.mktemp("runs"))


def hostile(records: list[RunRecord], seed: int) -> list[RunRecord]:
    """The runs under new names, of 1, 300 or any other number of characters."""
    rng = random.Random(seed)
    new: dict[str, str] = {}

    def another(name: str) -> str:
        if name not in new:
            found = name
            while found in (name, *new.values()):
                found = rng.choice([name_of, path_of])(rng, rng.choice([1, rng.randint(1, 300), 300]))
            new[name] = found
        return new[name]

    return [
        RunRecord(
            renamed(
                record,
                scenario=another(record.data["spec"]["scenario"]),
                strategy=another(record.data["spec"]["strategy"]),
                memory__buffer=another(buffer)
                if (buffer := record.data["spec"]["memory"]["buffer"]) != "none"
                else buffer,
                model__name=another(record.data["spec"]["model"]["name"]),
            ).data,
            record.folder,
        )
        for record in records
    ]


def beyond(figure: Figure) -> list[str]:
    """Texts of a figure that are cut off at its edge, and axes that are crushed."""
    FigureCanvasAgg(figure).draw()
    box, found = figure.bbox, []
    for ax in figure.axes:
        if ax.axison and min(ax.bbox.width, ax.bbox.height) < 0.2 * min(box.width, box.height) and ax.images == []:
            found.append(f"axes of {ax.bbox.width:.0f} × {ax.bbox.height:.0f} in {box.width:.0f} × {box.height:.0f}")
    for text in figure.findobj(Text):
        extent = text.get_window_extent()
        if re.fullmatch(r"\s*|[\d.]+", text.get_text()) or not text.get_visible() or not extent.width:
            continue
        if extent.x0 < -1 or extent.y0 < -1 or extent.x1 > box.width + 1 or extent.y1 > box.height + 1:
            found.append(f"{text.get_text()!r} is cut off")
    return found


@pytest.mark.parametrize("seed", range(3))
def test_names_of_every_length_crush_no_figure(seed: int, records: list[RunRecord], tmp_path: Path) -> None:
    spec = ReportSpec(metrics=("accuracy", "forgetting"), columns=("scenario", "memory"), rows=("strategy", "buffer"))
    evil = [record.data for record in hostile(records, seed)]
    with svg.style(svg.PLAIN):
        kept = list(plots.drawn(spec, evil).values())
        files = plots.draw(spec, evil, tmp_path)
        assert len(set(files)) == len(plots.FORMS) * len(kept) >= 2 * len(plots.FORMS)
        assert all(path.parent == tmp_path and path.exists() for path in files)
        cut_off = [beyond(figure) for figure in kept]
    assert cut_off == [[]] * len(kept)
    (legend,) = kept[0].legends
    labels = [text.get_text() for text in legend.get_texts()]
    series = next(iter(curves.by_scenario(spec, frame.frame(evil), evil).values()))
    assert labels == list(dict.fromkeys(s.label for s in series))
    legend_box = legend.get_window_extent()
    assert not any(ax.bbox.overlaps(legend_box) for ax in kept[0].axes if ax.axison)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_names_at_the_side_of_a_figure_have_room(alphabet: str) -> None:
    rng = random.Random(0)
    given = ["".join(rng.choice(alphabet) for _ in range(length)) for length in (1, 30, 120, 300)]
    short = list(shortened(given, IN_FIGURES).values())
    with svg.style(svg.STYLE):
        assert beyond(figures.ranking(short, [1.0, 2.0, 2.5, 4.0], [(0, 1)], 1.2)) == []
        ax = figures.panel(7.4, 2, left=0.15 + 0.09 * max(map(width, short)), top=0.06)
        figures.picks(ax, {name: np.ones(10) for name in short})
        assert beyond(ax.figure) == []


@pytest.mark.parametrize("seed", range(6))
def test_names_of_every_length_stand_in_every_form(
    seed: int, records: list[RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ReportSpec(metrics=("accuracy", "forgetting"), tests=True)
    evil = hostile(records, seed)
    shown = Page(page.render(spec, evil, [], "x").encode(errors="replace").decode())
    assert len(shown.data["runs"]) == len(evil)
    assert "img" not in {tag for tag, a in shown.tags if not a.get("src", "").startswith("data:image/webp")}
    assert not any(name.startswith("on") for _, a in shown.tags for name in a)
    data = [record.data for record in evil]
    for form in show.FORMS:
        out = io.StringIO()
        show.show(spec, data, form, Console(file=out, width=100, force_terminal=True), tests=False)
        text = out.getvalue() + capsys.readouterr().out
        assert text.count("final accuracy") >= 1 or "accuracy" in text
        assert not set(text) & {"\x00", "\u202e"}, form


def test_a_name_in_a_table_is_short_and_said_in_full() -> None:
    listing = show.listing.Listing(
        "accuracy of " + "s" * 200,
        ("strategy",),
        [("s" * 200,)],
        [show.listing.Line(("t" * 300,), ("1",))],
        ["t" * 300],
    )
    brief, short = in_short(listing)
    assert set(short) == {"t" * 300, "s" * 200}
    assert brief.lines[0].labels == [short["t" * 300]]
    assert brief.columns == [(short["s" * 200],)]
    assert (brief.title, brief.notes) == (f"accuracy of {short['s' * 200]}", [short["t" * 300]])


def test_experiences_to_come_are_blank() -> None:
    """Also where they were tested: a zero there is no failure to learn."""
    with matplotlib.rc_context(svg.STYLE):
        ax = figures.panel()
        figures.heatmap(ax, np.full((2, 3, 3), 50.0))
    (mesh,) = ax.collections
    assert np.ma.getmaskarray(mesh.get_array()).reshape(3, 3).tolist() == np.triu(np.ones((3, 3), bool), 1).tolist()
    assert len(ax.texts) == 6


@pytest.mark.parametrize("log", [True, False])
def test_error_bars_stand_beside_each_other(log: bool) -> None:
    values = [10, 20, 80]
    moved = np.array([figures.dodged(values, values, i, 5, log=log) for i in range(5)])
    assert np.all(np.diff(moved, axis=0) > 0)
    assert np.all(moved[-1, :-1] < moved[0, 1:])  # those of a value stay together
    np.testing.assert_allclose(np.log(moved).mean(0) if log else moved.mean(0), np.log(values) if log else values)


def test_a_colour_stands_for_an_arm_in_every_figure(records: list[RunRecord]) -> None:
    """Also in those of a scenario that some arms were not run on, and in the page as in the images."""
    spec = ReportSpec(metrics=("accuracy",))
    other = [renamed(r, scenario="another") for r in records if r.data["spec"]["strategy"] != "er"]
    data = [r.data for r in (*records, *other)]
    scenarios = curves.by_scenario(spec, frame.frame(data), data)
    look = curves.looks(s.label for series in scenarios.values() for s in series)
    assert {s.label for s in scenarios["another"]} < {s.label for s in scenarios["split-digits"]}
    drawn = {}
    for scenario, series in scenarios.items():
        ax = plots.curves(series, scenario, look).axes[0]
        named = (line for line in ax.lines if not str(line.get_label()).startswith("_"))
        drawn[scenario] = {line.get_label(): line.get_color() for line in named}
        assert len(drawn[scenario]) == len({s.label for s in series})
    assert drawn["another"].items() <= drawn["split-digits"].items()
    assert ax.get_xlabel() == "experiences learnt"
    assert ax.get_ylabel() == "accuracy on all learnt so far, %"


def test_latex_of_long_names_is_whole(records: list[RunRecord], capsys: pytest.CaptureFixture[str]) -> None:
    evil = [
        renamed(r, memory__buffer="./" + "ein Pfad_{$}/" * 25 + "f.py:" + r.data["spec"]["memory"]["buffer"])
        for r in records
    ]
    show.show(ReportSpec(metrics=("accuracy",)), [r.data for r in evil], "latex", Console())
    text = capsys.readouterr().out
    assert "% f.py:herding = ./ein Pfad_{$}/" in text
    table = text[text.index("\\begin{table") :]
    rows = [line for line in table.splitlines() if " & " in line]
    assert len(rows) == 7
    assert max(map(len, rows)) < 120
    check(table, 4)


def test_a_class_may_have_any_name(tmp_path: Path) -> None:
    """Classes are named after the user's folders."""
    figure = picture.sheet(np.zeros((2, 1, 8, 8), np.uint8), np.array([0, 1]), ["$\\frac{", "$_b$"], "$\\x$", "first")
    picture.save(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000

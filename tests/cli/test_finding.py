"""``clsim list`` and ``clsim show``: everything that has a name can be found."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.cells import cell_len

from clsim.spec.components import COMPONENTS
from clsim.spec.described import KINDS, describe, names
from tests.commands import clsim, refused

SINGULAR = {"strategies": "strategy", "studies": "study"}

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """A terminal of 60 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    return 60


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_list_is_a_line_for_each_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("list") == 0
    out = capsys.readouterr().out
    first = Counter(line.split(" ")[0] for line in out.splitlines())
    assert len(out.splitlines()) == sum(1 + len(names(kind)) + 1 for kind in KINDS)
    wanted = Counter([*KINDS, *(name for kind in KINDS for name in names(kind))])
    assert {word: times for word, times in first.items() if word} == wanted
    for kind in KINDS:  # not cut, as this is no terminal
        for name in names(kind):
            assert describe(kind, name, whole=False).title in out


def test_a_line_that_does_not_fit_is_cut(narrow: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("list") == 0
    lines = plain(capsys.readouterr().out).splitlines()
    assert max(map(cell_len, lines)) == narrow
    assert len(lines) == sum(1 + len(names(kind)) + 1 for kind in KINDS)
    assert sum(line.endswith("…") for line in lines) > 50


@pytest.mark.parametrize("word", ["studies", "study", "buffers", "selector", "dataset", "tables"])
def test_list_takes_a_kind_in_the_singular_and_the_plural(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("list", word) == 0
    out = capsys.readouterr().out
    wanted = {"study": "studies", "selector": "selectors", "dataset": "datasets"}.get(word, word)
    assert all(f"\n{name} " in out for name in names(wanted))


@pytest.mark.parametrize("columns", ["80", "160"])
def test_the_long_list_shows_what_selectors_need(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert clsim("list", "selectors", "--long") == 0
    out = capsys.readouterr().out
    assert max(map(cell_len, out.splitlines())) <= int(columns)
    words = " ".join(out.split())
    for said in ("random, uniform", "kcenter, k-center", "O(n log n) time", "Vitter", "labels"):
        assert said in words
    assert all(name in words for name in names("selectors"))
    assert clsim("list", "--long") == 0


def test_json_holds_every_field_of_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(entry["kind"], entry["name"]) for entry in found] == [(k, name) for k in KINDS for name in names(k)]
    assert clsim("list", "condensers", "--json") == 0
    dm = next(entry for entry in json.loads(capsys.readouterr().out) if entry["name"] == "dm")
    assert {option["name"]: option["default"] for option in dm["options"]}["iterations"] == "200"
    assert dm["source"].startswith("Zhao & Bilen")
    assert dm["place"].rpartition(":")[2].isdecimal()


def test_what_goes_with_the_taxonomy(capsys: pytest.CaptureFixture[str]) -> None:
    assert "found '--json' with --taxonomy, allowed: one of them" in refused(capsys, "list", "--json", "--taxonomy")
    assert "list: unknown kind 'modls'; did you mean 'models'?" in refused(capsys, "list", "modls")


@pytest.mark.parametrize("kind", KINDS)
def test_show_works_for_every_name_that_list_prints(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in names(kind):
        assert clsim("show", kind, name) == 0
        found, out = describe(kind, name), capsys.readouterr().out
        assert out.startswith(f"{name}  {SINGULAR.get(kind, kind[:-1])}\n")
        words = " ".join(out.split())
        for said in (found.title, found.needs, found.cost, found.source, found.example, found.place):
            assert " ".join(said.replace("`", "").split()) in words
        for option in found.options:
            assert f"\n{option.name} " in out
            assert " ".join(f"{option.kind}; default {option.default}".split()) in words


def test_show_says_what_each_option_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("show", "kcenter") == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())
    assert "--set memory.options.NAME=VALUE metric euclidean or cosine; default euclidean the distance: euclid" in words
    assert "Also k-center, coreset" in words
    assert "it can choose what to label: --label kcenter" in words
    assert clsim("show", "dm") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "iterations a whole number; default 200; 50 with --buffer dm" in words
    assert "Sets memory.shrink=condense Paper" in words


def test_a_name_of_several_kinds_shows_all_and_a_kind_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("show", "forgetting") == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if re.fullmatch(r"forgetting  \w+", line)] == [
        *("forgetting  report", "forgetting  selector", "forgetting  metric"),
    ]
    for word, kind in (("metric", "metric"), ("selectors", "selector"), ("reports", "report")):
        assert clsim("show", word, "forgetting") == 0
        out = capsys.readouterr().out
        assert out.startswith(f"forgetting  {kind}\n")
        assert "─" not in out
    assert clsim("show", "optimizer") == 0
    assert capsys.readouterr().out.startswith("optimizer  table\n")
    assert clsim("show", "optimizer", "nadam") == 0
    assert capsys.readouterr().out.startswith("nadam  optimizer\n")


def test_show_takes_the_other_names_and_combinations(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("show", "uniform") == 0
    assert capsys.readouterr().out.startswith("random  selector\n")
    for words in (["per_class(prefilter(density,uniform,5))"], ["selector", "per_class(prefilter(density,uniform,5))"]):
        assert clsim("show", *words) == 0
        shown = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\S+  (sel|comb)", line)]
        assert shown == ["per_class  combinator", "prefilter  combinator", "density  selector", "random  selector"]


def test_a_file_is_shown_with_what_it_sets_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("show", "split-cifar100", "--help") == 0
    capsys.readouterr()
    assert clsim("show", "scenario", "split-cifar100") == 0
    out = capsys.readouterr().out
    assert "\nslim-resnet18  model    ResNet-18 with" in out
    assert '[data]\ndataset = "cifar100"\n' in out
    assert out.count("Split CIFAR-100: 20 tasks of 5 classes") == 1
    Path("mine.toml").write_text('title = "Mine"\n[stream]\nexperiences = 2\n')
    assert clsim("show", "mine.toml") == 0
    assert capsys.readouterr().out.startswith("mine.toml  scenario\nMine\n")


def test_ones_own_code_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "def pick(pool, budget, *, rng, k: int = 3):\n    '''Pick well.\n\n    Args:\n        k: how many.\n    '''\n"
        "def odd(x): ...\n"
    )
    assert clsim("show", "./mine.py:pick") == 0
    out = capsys.readouterr().out
    assert out.startswith("./mine.py:pick  selector\nPick well\n")
    assert "how many." in out
    assert "mine.py:1" in out
    assert "no 'pik'; did you mean 'pick'?" in refused(capsys, "show", "./mine.py:pik")
    assert "allowed: clsim show KIND ./mine.py:odd" in refused(capsys, "show", "./mine.py:odd")
    assert clsim("show", "model", "./mine.py:odd") == 0
    assert "no such file" in refused(capsys, "show", "./nowhere.py:pick")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kcentre"], "show: unknown name 'kcentre'; did you mean 'kcenter'? (allowed: a name of `clsim list`)"),
        (["fashon-mnist"], "did you mean 'fashion-mnist'?"),
        (["learner", "kcenter"], "show: learners: unknown name 'kcenter', found among selectors"),
        (["learner", "ewcc"], "show: learners: unknown name 'ewcc'; did you mean 'ewc'?"),
        (["thing", "kcenter"], "show: unknown kind 'thing'; allowed: acquisitions, "),
        (["selector"], "show: 'selector' is a kind; allowed: clsim show selector NAME, or clsim list selectors"),
        ([""], "show: unknown name ''"),
        (["no.toml"], "show: scenarios: no file 'no.toml'"),
        (["[red]x[/nope]"], "show: unknown name '[red]x[/nope]'"),
        (["a\x1b[31mb"], r"show: unknown name 'a\x1b[31mb'"),
    ],
)
def test_what_cannot_be_found_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "show", *words)


def test_names_and_texts_that_look_like_markup_are_shown_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "[red]x[/nope] \\u001b[31m\\u0007"
    Path("scenarios").mkdir()
    Path("scenarios/[b]odd\x1b[2J.toml").write_text(
        f'title = "{hostile}"\npaper = "{hostile}"\ndescription = "{hostile}"\n[stream]\nexperiences = 2\n'
    )
    Path("mine.py").write_text(
        "def pick(pool, budget, *, rng, k: str = '[/x]\\x1b[31m'):\n    '''[red]Pick[/nope] \\x1b[31m.\n\n"
        "    [bold]\\x07\n\n    Args:\n        k: [/nope] \\x1b[31m.\n    '''\n"
    )
    for forced in (False, True):
        if forced:
            monkeypatch.setenv("FORCE_COLOR", "1")
        for words in (
            ["list", "scenarios"],
            ["list", "scenarios", "--long"],
            ["show", "[b]odd\x1b[2J"],
            ["show", "./mine.py:pick"],
        ):
            assert clsim(*words) == 0
            out = plain(capsys.readouterr().out)
            assert "[/nope]" in out
            assert "\x1b" not in out
            assert "\x07" not in out


def test_what_cannot_be_read_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scenarios").mkdir()
    Path("scenarios/broken.toml").write_text("title = \n")
    Path("reports").mkdir()
    Path("reports/broken.toml").write_text("title = \n")
    (tmp_path / "lab_broken.py").write_text("1 / 0\npick = None\n")
    (tmp_path / "lab-1.0.dist-info").mkdir()
    (tmp_path / "lab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (tmp_path / "lab-1.0.dist-info" / "entry_points.txt").write_text("[clsim.selectors]\nodd = lab_broken:pick\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for words in (["list"], ["list", "--long"], ["list", "--json"]):
        assert clsim(*words) == 0
        out = capsys.readouterr().out
        assert "cannot be read: " in " ".join(out.split())
        assert "kcenter" in out
    assert clsim("show", "mnist") == clsim("show", "aubc") == 0
    assert "odd', installed by lab_broken: cannot be imported: division by zero" in refused(capsys, "show", "odd")
    assert "broken.toml: " in refused(capsys, "show", "scenario", "broken")


def test_every_selector_is_marked_by_whether_it_can_label_and_choose_a_batch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert clsim("list", "selectors") == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMPONENTS["selectors"]:
        line = next(line for line in lines if line.startswith(f"{name} "))
        mark, found = line.split()[1], describe("selectors", name)
        assert (mark in ("*", "*+")) is found.can_label
        assert (mark in ("+", "*+")) is found.can_batch

"""Somebody else's folder: what is read there imports nothing, leads nowhere, and is text wherever it is shown."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from clsim.records.sealed import sealed
from clsim.reporting.screen import Screen, plain
from clsim.spec.own_code import NAMED, OPTIONS
from tests.commands import clsim, refused

RUN = ["run", "--scenario", "split-digits", "--set", "data.per_class=10", "--set", "stream.experiences=2"]
RUN += ["--set", "training.epochs=1", "--memory", "10"]

CANARY = """
from pathlib import Path
Path({mark!r}).mkdir(exist_ok=True)
def f(R): return 0.5
"""

NAMES = ("canary_in_tests:f", "./canary_in_tests.py:f", "per_class(canary_in_tests:f)", "avalanche:canary_in_tests")
"""Names of the same code, as components are named."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert clsim(*RUN, "--quiet") == 0
    return next((place / "runs").iterdir())


@pytest.fixture(autouse=True)
def _place(workplace: Path) -> None:
    """Each test stands in a folder of its own, with one of data."""
    Path("data").mkdir()


@pytest.fixture
def mark(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The mark that the canary leaves; its module is in the working directory, and on the path."""
    Path("modules").mkdir()
    text = CANARY.format(mark=str(workplace / "mark"))
    for place in (Path("canary_in_tests.py"), Path("modules/canary_in_tests.py")):
        place.write_text(text)
    monkeypatch.syspath_prepend(str(Path("modules").resolve()))
    yield workplace / "mark"
    sys.modules.pop("canary_in_tests", None)


def kept(data: dict[str, Any], like: Path, name: str = "") -> Path:
    """Keep a record under the fingerprint of its spec, with the other files of the run ``like``."""
    data = {key: value for key, value in data.items() if key != "checksum"}
    fingerprint = hashlib.sha256(json.dumps(data["spec"], sort_keys=True).encode()).hexdigest()[:16]
    folder = Path("runs", name or fingerprint)
    shutil.copytree(like, folder, dirs_exist_ok=True)
    (folder / "record.json").write_bytes(sealed({**data, "fingerprint": fingerprint}))
    (folder / "spec.json").write_text(json.dumps(data["spec"]))
    return folder


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return found


def naming(data: dict[str, Any], code: str) -> Iterator[dict[str, Any]]:
    """Yield records that name code in every place that can name a component, one place in each."""
    places = [*NAMED, ("", "strategy"), ("", "scenario"), ("controller", "name"), ("embedding", "name")]
    for table, key in places:
        found = copy.deepcopy(data)
        at = found["spec"].setdefault(table, {}) if table else found["spec"]
        at[key] = code
        yield found
    for (table, key), options in OPTIONS.items():
        found = copy.deepcopy(data)
        found["spec"].setdefault(table, {})[key] = dict.fromkeys([*options, "other"], code)
        yield found
    for more in ({"pool": [{"name": code, "options": {}}]}, {"sources": [[code, "0" * 64]]}, {"revisions": [code]}):
        found = copy.deepcopy(data)
        yield {**found, "spec": {**found["spec"], **more}}
    others = ({"metrics": {code: 0.5}}, {"readouts": {code: data["accuracy"]}}, {"command": f"clsim run {code}"})
    for number, more in enumerate(others):
        found = copy.deepcopy(data)
        found["spec"]["seed"] = 10 * NAMES.index(code) + number
        yield {**found, **more}


READING = [
    ["report"],
    ["report", "cost", "--format", "markdown"],
    ["report", "--format", "runs"],
    ["report", "--format", "latex", "--tests"],
    ["report", "--format", "html", "--out", "page.html"],
    ["report", "active", "--format", "csv"],
    ["runs"],
    ["runs", "--json"],
    ["runs", "--where", "model.name=mlp"],
    ["list"],
]


def test_what_reads_imports_nothing_that_a_record_names(finished: Path, mark: Path) -> None:
    made = [kept(one, finished) for name in NAMES for one in naming(record_of(finished), name)]
    assert len(set(made)) == len(made) > 60
    for words in READING:
        assert clsim(*words) in (0, 2)
        assert not mark.exists(), words
    for folder in made[: len(made) // 4]:
        assert clsim("runs", "show", folder.name) in (0, 2)
        assert not mark.exists(), (folder / "spec.json").read_text()
    assert clsim("report", "--metric", "canary_in_tests:f", "--format", "csv") == 0
    assert mark.exists()  # so it is code that could have run


class Marker:
    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._place),)


@pytest.mark.parametrize("name", ["checkpoint.pt", "rounds.pt", "losses.npz"])
def test_classes_in_pickles_are_not_made(name: str, finished: Path, mark: Path) -> None:
    folder = Path("runs", finished.name)
    shutil.copytree(finished, folder)
    torch.save({"format": 1, "fingerprint": finished.name, "memory": Marker(mark)}, folder / name)
    for words in (["report", "--format", "html", "--out", "page.html"], ["runs", "show", finished.name], RUN):
        clsim(*words)
        assert not mark.exists()
    torch.load(folder / name, weights_only=False)
    assert mark.exists()


HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b2J\x7f",
    "\u202egnp.exe\u2066",
    "one\nclsim: two\r\nthree",
    "[link=http://evil.example]click[/link]",
    "../../../etc/passwd",
    "/etc/passwd",
    "=cmd|'/C calc'!A0",
    "<script>alert(1)</script>",
    r"\input{/etc/passwd}$x_{",
)


def hostile(finished: Path) -> list[Path]:
    """Keep a record for each hostile text, which stands for every name in it."""
    made = []
    for text in HOSTILE:
        data = record_of(finished)
        data["spec"] |= {"scenario": text, "strategy": text, "sources": [[text, text]]}
        data["spec"]["memory"]["buffer"] = data["spec"]["model"]["name"] = data["spec"]["data"]["dataset"] = text
        data |= {"command": f"clsim run {text}", "versions": {"clsim": text, text: text}, "environment": {text: text}}
        data |= {"ended": text, "started": text}
        made.append(kept(data, finished))
        error = {"format": 1, "fingerprint": made[-1].name, "spec": data["spec"], "error": text, "command": text}
        data["spec"]["seed"] = 7
        (failed := kept(data, finished)).joinpath("record.json").unlink()
        error |= {"fingerprint": failed.name, "ended": text, "spec": data["spec"]}
        (failed / "error.json").write_text(json.dumps(error))
        made.append(failed)
    return made


def strange(text: str) -> set[str]:
    """The characters that are neither printed nor the end of a line."""
    return {c for c in text if not c.isprintable() and c not in "\n\t"}


@pytest.mark.parametrize("words", [*READING[:6], ["runs"], ["runs", "--json"], ["runs", "--failed"]], ids=" ".join)
def test_hostile_names_are_text(
    words: list[str], finished: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile(finished)
    capsys.readouterr()
    assert clsim(*words) in (0, 2)
    printed = capsys.readouterr()
    assert not strange(printed.out + printed.err)
    form = words[words.index("--format") + 1] if "--format" in words else "console"
    if form == "html":
        text = Path("page.html").read_text()
        assert not strange(text)
        page = Tags()
        page.feed(text)
        assert page.scripts == 2
    elif form in ("csv", "runs"):
        cells = [cell for row in csv.reader(io.StringIO(printed.out)) for cell in row]
        assert not [cell for cell in cells if re.match(r"\s*[=@+]", cell)]
    elif form == "latex":
        assert r"\input" not in printed.out
    elif form == "markdown":
        assert "<script" not in printed.out
    assert sorted(p.name for p in workplace.iterdir()) == sorted(
        ["data", "runs", *(["page.html"] if form == "html" else [])]
    )


class Tags(HTMLParser):
    scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"


def test_figures_are_named_and_drawn_as_text(finished: Path, workplace: Path) -> None:
    hostile(finished)
    assert clsim("report", "--figures", "figures") == 0
    names = [str(path.relative_to(workplace)) for path in workplace.rglob("*.png")]
    assert names
    assert all(re.fullmatch(r"figures/[\w.-]+\.png", name) for name in names)
    assert {path.suffix for path in (workplace / "figures").iterdir()} == {".pdf", ".svg", ".png"}


def test_a_run_is_shown_as_text(finished: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in hostile(finished):
        capsys.readouterr()
        assert clsim("runs", "show", folder.name) in (0, 2)
        printed = capsys.readouterr()
        assert not strange(printed.out + printed.err)
        assert not [line for line in printed.out.splitlines() if line.startswith("clsim:")]


def test_a_terminal_gets_styles_and_no_other_escape(
    finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = hostile(finished)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for words in (["report"], ["runs"], *(["runs", "show", folder.name] for folder in folders)):
        clsim(*words)
    printed = capsys.readouterr()
    assert "\x1b[1m" in printed.out  # it is one
    assert not strange(re.sub(r"\x1b\[[\d;]*m", "", printed.out + printed.err))


def test_words_of_the_command_line_are_text_too(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a\x1b]0;b\x07\nclsim: c").mkdir()
    for words in (
        ["report", "--runs", "a\x1b]0;b\x07\nclsim: c"],
        ["report", "--x\x1b[31m"],
        ["run", "--set", "\x1b.x=1"],
    ):
        assert clsim(*words) == 2
        printed = capsys.readouterr()
        assert printed.err
        assert not strange(printed.out + printed.err)
        assert not [line for line in printed.err.splitlines()[1:] if line.startswith("clsim:")]
    assert clsim("runs", "--runs", "a\x1b]0;b\x07\nclsim: c") == 0
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert not strange(printed.err)


def test_a_console_keeps_its_styles_and_the_ends_of_lines() -> None:
    out = io.StringIO()
    screen = Screen(file=out, force_terminal=True, width=40, color_system="standard")
    screen.print("[bold]a\x1b[31mb[/]\nc", plain("[red]\nd", "dim"))
    assert "\x1b[1m" in out.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()) == "a [31mb\nc [red] d\n"


OWN = """
import sys
print("imported", file=sys.stderr)
from clsim.selectors.random import random as pick
"""


def test_what_a_spec_imports_is_said_before(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(OWN)
    Path("mine.toml").write_text('[memory]\nbuffer = "./mine.py:pick"\ncapacity = 10\n')
    assert clsim(*RUN[:-2], "--strategy", "mine.toml", "--dry-run") == 0
    printed = capfd.readouterr()
    assert "note: imports mine from mine.py" in printed.out
    assert "imported" not in printed.err
    assert clsim(*RUN[:-2], "--strategy", "mine.toml") == 0
    lines = capfd.readouterr().err.splitlines()
    assert "imported" in lines
    (said,) = [i for i, line in enumerate(lines) if "imports mine from mine.py" in line]
    assert said < lines.index("imported")


def test_what_a_study_imports_is_said_before(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(OWN)
    lines = ['scenario = "split-digits"', 'strategy = "er"', 'buffer = ["./mine.py:pick", "random"]', "memory = 10"]
    lines += ["seeds = 2", "[set]", '"data.per_class" = 10', '"training.epochs" = 1', '"stream.experiences" = 2']
    Path("mine.toml").write_text("\n".join(lines))
    assert clsim("study", "./mine.toml", "--engine", "here") == 0
    printed = capfd.readouterr().err.splitlines()
    said = [i for i, line in enumerate(printed) if "imports mine from mine.py" in line]
    assert len(said) == 1
    assert said[0] < printed.index("imported")


def test_what_a_report_imports_is_said_before(finished: Path, mark: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, Path("runs", finished.name))
    Path("reports").mkdir()
    Path("reports/summary.toml").write_text('metrics = ["accuracy", "./canary_in_tests.py:f"]\n')
    assert clsim("report") == 0
    assert mark.exists()
    assert "reports/summary.toml: metrics: imports canary_in_tests from canary_in_tests.py" in capfd.readouterr().err


def test_a_report_replaces_a_link_and_not_what_it_leads_to(finished: Path, workplace: Path) -> None:
    shutil.copytree(finished, Path("runs", finished.name))
    Path("outside.txt").write_text("mine")
    for form, name in (("markdown", "out.md"), ("html", "out.html"), ("csv", "out.csv")):
        Path(name).symlink_to("outside.txt")
        assert clsim("report", "--format", form, "--out", name) == 0
        assert not Path(name).is_symlink()
    assert Path("outside.txt").read_text() == "mine"


def test_a_link_in_a_store_is_not_followed(finished: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither that of a run's folder nor that of a file in it: what it leads to is neither read nor written."""
    elsewhere = shutil.copytree(finished, Path("elsewhere"))
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    Path("runs").mkdir()
    Path("runs", finished.name).symlink_to(elsewhere.resolve())
    assert "is a link, which is not followed" in refused(capsys, *RUN, "--quiet", "--fresh")
    assert "is a link, which is not followed" in refused(capsys, *RUN, "--quiet")
    assert clsim("runs") == 0
    assert "is a link, which is not followed" in capsys.readouterr().out
    assert clsim("report") == 2
    assert "is a link, which is not followed" in capsys.readouterr().err
    Path("runs", finished.name).unlink()
    shutil.copytree(elsewhere, Path("runs", finished.name))
    for name in ("lock", "record.json", "checkpoint.pt"):
        (elsewhere / "lock").write_text("mine")
        Path("runs", finished.name, "record.json").unlink(missing_ok=True)
        Path("runs", finished.name, name).unlink(missing_ok=True)
        Path("runs", finished.name, name).symlink_to((elsewhere / name).resolve())
        assert clsim("runs") == 0
        assert "is a link, which is not followed" in refused(capsys, *RUN, "--quiet")
        Path("runs", finished.name, name).unlink()
    (elsewhere / "lock").write_bytes(before["lock"])
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before

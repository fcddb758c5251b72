"""clsim reproduce: a planted selector that is random under another name wins nothing, and what is finished stays so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import clsim as package
from clsim.errors import InputError
from clsim.execution.engines.engine import EngineSpec
from clsim.execution.study import StudyResult, carry_out
from clsim.records.store import RunFailure, Store
from clsim.reporting import reproduction
from clsim.reporting.papers import find_paper
from clsim.reporting.reproduced import write_pages
from clsim.spec.resolve import resolve
from tests.commands import clsim, refused

pytestmark = pytest.mark.usefixtures("workplace")

MINE = """
import clsim, torch

def disguised(pool: clsim.Pool, budget: int, *, rng: torch.Generator) -> clsim.Selection:
    # uniform over all samples seen, as random is, by another number of each sample
    return clsim.Selection((9973 * pool.data.key.double() % 1).argsort(descending=True)[:budget])

def one(pool: clsim.Pool, budget: int, *, rng: torch.Generator) -> clsim.Selection:
    return clsim.Selection(torch.arange(min(1, len(pool))))
"""
DISGUISED, ONE = "./mine.py:disguised", "per_class(./mine.py:one)"

STUDY = f"""
title = "A planted paper, in small"
scenario = "split-digits"
strategy = "er"
buffer = ["random", "{DISGUISED}", "{ONE}"]
memory = 50
seeds = 5
[set]
"data.per_class" = 40
"training.epochs" = 2
"""

PAPER = f"""
title = "Planted"
rows = ["buffer"]
columns = ["scenario"]
arms = ["buffer"]
metrics = ["accuracy", "forgetting"]

[paper]
title = "A Better Memory"
authors = "Nobody"
year = 2026
claims = ["A new selector beats random, and one exemplar is too few"]
small = {{ studies = ["planted"], reports = ["planted"], seconds = 1.0, measured = "a guess" }}
published = {{ studies = ["planted"], reports = ["planted-published"] }}

[[claims]]
text = "The new selector beats random"
a = {{ buffer = "{DISGUISED}" }}
b = {{ buffer = "random" }}

[[claims]]
text = "It forgets less"
metric = "forgetting"
a = {{ buffer = "{DISGUISED}" }}
b = {{ buffer = "random" }}
expect = "below"

[[claims]]
text = "Random beats a single exemplar"
a = {{ buffer = "random" }}
b = {{ buffer = "{ONE}" }}
"""

PUBLISHED = f"""
base = "planted"
size = "published"

[[published]]
at = {{ scenario = "another", buffer = "random", memory = 7 }}
percent = {{ accuracy = [61.5, 0.5] }}
source = "Nobody (2026)"

[[published]]
at = {{ scenario = "split-digits", buffer = "{ONE}" }}
percent = {{ accuracy = [0.5] }}
source = "Nobody (2026)"
"""


@pytest.fixture
def planted(workplace: Path) -> Path:
    """A paper of one's own, which adds itself by its files; its runs are made once in the place."""
    for folder in ("studies", "reports"):
        Path(folder).mkdir()
    Path("mine.py").write_text(MINE)
    Path("studies", "planted.toml").write_text(STUDY)
    Path("reports", "planted.toml").write_text(PAPER)
    Path("reports", "planted-published.toml").write_text(PUBLISHED)
    return workplace


def carried_out(store: Store) -> None:
    paper = find_paper("planted")
    carry_out(reproduction.planned(paper.small, store), store, EngineSpec("here"))


def test_a_page_lists_the_failed_runs_of_its_own_report_alone(planted: Path) -> None:
    carried_out(Store(Path("runs")))
    paper = find_paper("planted")
    result = carry_out(reproduction.planned(paper.small, Store(Path("runs"))), Store(Path("runs")), EngineSpec("here"))
    (report,) = reproduction.reports(paper, paper.small, result.records)
    report = dataclasses.replace(report, spec=dataclasses.replace(report.spec, filter={"strategy": "er"}))
    specs = [resolve("split-digits", strategy).as_dict() for strategy in ("er", "gem")]
    lost = tuple(RunFailure(f"{n:016x}", spec, f"lost {spec['strategy']}", "", "") for n, spec in enumerate(specs))
    (page,) = write_pages("planted", "small", [report], StudyResult(result.records, lost), Path("pages"))
    text = page.read_text(encoding="utf-8")
    assert "lost er" in text
    assert "lost gem" not in text


def test_no_verdict_holds_for_random_under_another_name_and_one_does_for_a_real_effect(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    carried_out(Store(Path("runs")))
    records = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/*.json")}
    capsys.readouterr()
    assert clsim("reproduce", "planted", "--json") == 0  # all is there: nothing is run
    found = json.loads(capsys.readouterr().out)
    verdicts = {one["claim"]: one["verdict"] for one in found["claims"]}
    assert verdicts["Random beats a single exemplar"] == "holds"
    assert verdicts["The new selector beats random"] in ("cannot be told", "does not hold")
    assert verdicts["It forgets less"] in ("cannot be told", "does not hold")
    assert all(len(one["values"]) == 5 and one["low"] < one["high"] for one in found["claims"])
    assert {path: path.stat().st_mtime_ns for path in records} == records
    (page,) = found["pages"]
    assert page == "reproduced/planted-small.html"
    text = Path(page).read_text(encoding="utf-8")
    assert "Random beats a single exemplar" in text
    assert "Beside what was published" in text
    mine = package.reproduce("planted", out="pages")  # the same runs, judged in the same words
    assert mine.verdicts == verdicts
    assert mine.frame()[["claim", "verdict"]].values.tolist() == [[c["claim"], c["verdict"]] for c in found["claims"]]
    assert [path.as_posix() for path in mine.pages] == ["pages/planted-small.html"]
    assert len(mine.records) == 15
    assert repr(mine).startswith("<Reproduction of planted, small: 1 holds, ")
    assert "Random beats a single exemplar" in mine._repr_html_()
    assert package.reproduce("planted").pages == ()
    assert {path: path.stat().st_mtime_ns for path in records} == records


def test_python_refuses_what_the_command_refuses(planted: Path) -> None:
    with pytest.raises(InputError, match="planted"):
        package.reproduce("plante")
    with pytest.raises(InputError, match="size"):
        package.reproduce("planted", "huge")
    with pytest.raises(InputError, match="is a file"):
        package.reproduce("planted", out="mine.py")


def test_a_paper_is_run_once_and_its_rows_stand_beside_the_published_ones(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = STUDY.replace("seeds = 5", "seeds = 1").replace("= 40", "= 10").replace(f', "{DISGUISED}"', "")
    Path("studies", "planted.toml").write_text(short)
    assert clsim("reproduce", "planted", "--size", "small", "--dry-run") == 0
    printed = capsys.readouterr()
    assert "2 runs: 0 finished, 2 to do; about " in printed.err
    assert "by a guess" in printed.err
    assert clsim("reproduce", "planted", "--dry-run", "--json") == 0
    plan = {"runs": 2, "finished": 0, "seconds": 2.0, "source": "by a guess"}
    assert json.loads(capsys.readouterr().out) == plan
    assert not list(Path("runs").glob("*/record.json"))
    assert clsim("reproduce", "planted", "--workers", "1") == 0
    first = capsys.readouterr()
    made = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/record.json")}
    assert len(made) == 2
    (line,) = (line for line in first.out.splitlines() if "final accuracy" in line and "[1]" in line)
    assert "split-digits" in line  # a row of another scenario stands beside nothing
    assert "0.5" in line
    assert "Ours are of a reduced setting" in first.out
    assert "not judged: no finished run with buffer ./mine.py:disguised" in first.out
    assert "planted, small: 1 cannot be told at this size, 2 are not judged" in first.out
    assert "wrote reproduced/planted-small.html" in first.err
    assert clsim("reproduce", "planted") == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "2 runs: 2 finished, 0 to do; all is recorded" in second.err
    assert "read, not run: 2 runs" in second.err
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert clsim("reproduce", "planted", "--size", "published", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_at_the_published_size_it_is_said_how_a_number_lies_to_our_interval(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("studies", "planted.toml").write_text(STUDY.replace("seeds = 5", "seeds = 3").replace("= 40", "= 10"))
    carried_out(Store(Path("runs")))
    capsys.readouterr()
    assert clsim("reproduce", "planted", "--size", "published") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("0.5" in line and "exceeded" in line for line in lines)  # half a percent is below any interval of ours
    (other,) = (line for line in lines if "61.5 ± 0.5" in line)
    assert "exceeded" not in other


def test_the_list_has_a_paper_of_ones_own_with_what_it_costs_and_what_is_finished(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("reports", "broken.toml").write_text('title = "x"\n[paper]\ntitel = "y"\n')
    lost = '[paper]\ntitle = "y"\nclaims = ["z"]\nsmall = { studies = ["nnscl"], reports = ["nncsl"] }\n'
    Path("reports", "lost.toml").write_text(lost)
    assert clsim("reproduce", "--json") == 0
    printed = capsys.readouterr()
    assert "lost cannot be read: studies: unknown name 'nnscl'; did you mean 'nncsl'?" in printed.err
    (mine,) = (one for one in json.loads(printed.out) if one["name"] == "planted")
    assert (mine["small"]["runs"], mine["small"]["finished"], mine["small"]["seconds"]) == (15, 0, 15.0)
    assert (mine["small"]["settings"], mine["published"]["studies"]) == (["A planted paper, in small"], ["planted"])
    assert mine["state"] == "not yet"
    assert "broken cannot be read: " in printed.err
    assert "did you mean 'title'?" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nnclS"], "reproduce: unknown paper 'nnclS'; did you mean 'nncsl'? (allowed: acc-dd, "),
        (["nncsl", "--size", "smal"], "reproduce nncsl: size: found 'smal'; did you mean 'small'?"),
        (["deep-al-survey", "--size", "published"], "size: found 'published'; allowed: small"),
        (["--size", "small"], "reproduce: found --size small without a paper"),
        (["./none.toml"], "reports: no file './none.toml'"),
        (["broken"], "[paper] titel: unknown key; did you mean 'title'?"),
        (["half"], "[paper.small] reports: found none, allowed: one name or more"),
        (["unknown"], "studies: unknown name 'nnscl'; did you mean 'nncsl'?"),
        (["lost"], "reports: unknown name 'nnscl'; did you mean 'nncsl'?"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("reports").mkdir()
    table = '[paper]\ntitle = "y"\nclaims = ["z"]\nsmall = { '
    Path("reports", "broken.toml").write_text('[paper]\ntitel = "y"\n')
    Path("reports", "half.toml").write_text(table + 'studies = ["nncsl"] }\n')
    Path("reports", "unknown.toml").write_text(table + 'studies = ["nnscl"], reports = ["nncsl"] }\n')
    Path("reports", "lost.toml").write_text(table + 'studies = ["nncsl"], reports = ["nnscl"] }\n')
    assert message in refused(capsys, "reproduce", *words)
    assert not Path("runs").exists()

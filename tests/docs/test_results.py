"""Results: what is verified and what is not, what a page says of its runs, and text of a CSV as text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clsim.errors import InputError
from clsim.reporting.cells import Cell
from clsim.reporting.papers import every_paper
from clsim.reporting.report import Published
from docs.generate import results, verified
from docs.generate.studies import read_studies, read_study
from docs.generate.verified import Runs, judge

RESULTS = Path(results.__file__).parents[2] / "reports" / "results"

COMMAND = "clsim run --scenario split-digits --strategy er"
PAPER = Published(
    {"scenario": "split-digits", "strategy": "er"},
    {"accuracy": [80.0], "forgetting": [10.0]},
    "A paper",
    5,
    command=COMMAND,
)


def cell(*values: float) -> Cell:
    return Cell(values, runs=tuple(map(str, range(len(values)))), seeds=tuple(range(len(values))))


def runs(n: int, more: str = "", code: str | None = "abc") -> Runs:
    return Runs(tuple(f"{COMMAND}{more} --seed {i}" for i in range(n)), (code,) * n)


def test_verified_is_the_papers_setting_three_seeds_and_the_number_inside_or_exceeded() -> None:
    inside = judge(PAPER, "accuracy", (), cell(79, 80, 81), runs(3))
    assert (inside.verified, inside.agreement, inside.code) == (True, "inside our interval", ("abc",))
    above = judge(PAPER, "accuracy", (), cell(85, 86, 87), runs(3))
    assert (above.verified, above.agreement) == (True, "exceeded")
    forgets_less = judge(PAPER, "forgetting", (), cell(4, 5, 6), runs(3))
    assert (forgets_less.verified, forgets_less.agreement) == (True, "exceeded")


def test_what_is_worse_than_published_is_not_verified() -> None:
    below = judge(PAPER, "accuracy", (), cell(70, 71, 72), runs(3))
    assert (below.agreement, below.against) == ("not reached", ("the published number is better than our interval",))
    forgets_more = judge(PAPER, "forgetting", (), cell(24, 25, 26), runs(3))
    assert (forgets_more.agreement, forgets_more.verified) == ("not reached", False)


def test_two_seeds_are_too_few() -> None:
    found = judge(PAPER, "accuracy", (), cell(80, 90), runs(2))
    assert (found.agreement, found.against) == ("no interval", ("2 seeds, 3 needed",))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (" --set data.per_class=50", "data.per_class 50 instead of 0"),
        (" --precision bf16", "training.precision bf16 instead of fp32"),
        (" --memory 20", "memory.capacity 20 instead of 50"),
        (" --set optimizer.lr=0.5", "optimizer.lr 0.5 instead of"),
    ],
)
def test_a_reduced_setting_is_named_and_not_verified(more: str, said: str) -> None:
    found = judge(PAPER, "accuracy", (), cell(79, 80, 81), runs(3, more))
    assert not found.verified
    assert said in found.against[0]


def test_the_machine_is_no_setting_and_the_same_setting_may_be_written_otherwise() -> None:
    assert judge(PAPER, "accuracy", (), cell(79, 80, 81), runs(3, " --device cpu --threads 2")).verified
    whole = "clsim run --set optimizer.lr=0.05 --strategy er --scenario split-digits"
    assert verified.changes(f"{COMMAND} --set optimizer.lr=0.05", whole) == []


def test_what_a_machine_cannot_tell_is_not_verified() -> None:
    unknown = dataclasses.replace(PAPER, command="")
    assert judge(unknown, "accuracy", (), cell(79, 80, 81), runs(3)).against == (
        "the report names no command of the paper's setting",
    )
    early = judge(PAPER, "accuracy", (), cell(79, 80, 81), runs(3, code=None))
    assert early.against == ("made before commits were recorded",)
    one_early = Runs(runs(3).commands, ("abc", "abc", None))
    assert not judge(PAPER, "accuracy", (), cell(79, 80, 81), one_early).verified
    assert not judge(PAPER, "accuracy", (), cell(79, 80, 81), Runs((), ("abc",) * 3)).verified
    unreadable = Runs(("clsim condense --method dm",) * 3, ("abc",) * 3)
    assert "cannot be read" in judge(PAPER, "accuracy", (), cell(79, 80, 81), unreadable).against[0]


def test_a_method_counts_if_all_numbers_of_a_row_are_verified() -> None:
    good = judge(PAPER, "accuracy", ("er",), cell(79, 80, 81), runs(3))
    bad = judge(PAPER, "forgetting", ("er",), cell(24, 25, 26), runs(3))
    well = judge(PAPER, "forgetting", ("er",), cell(4, 5, 6), runs(3))
    assert verified.methods([good, bad]) == (0, 1)
    assert verified.methods([good]) == (0, 1)  # its forgetting was not compared
    assert verified.methods([good, well]) == (1, 1)
    curve = verified.Verdict(dataclasses.replace(PAPER, percent={}, over_labels={"10": 50}), "over_labels")
    assert verified.methods([curve]) == (0, 1)


def test_nothing_of_what_is_there_is_claimed() -> None:
    """The runs beside published rows were reduced, or made before commits were recorded."""
    for study in read_studies(RESULTS):
        for verdict in results.verdicts(study):
            if verdict.verified:
                assert len(verdict.cell.sample) >= 3
                assert verdict.code
                assert verdict.published.command
    anchor = results.verdicts(read_study(RESULTS / "online-cifar100.csv"))
    assert [v.agreement for v in anchor] == ["inside our interval", "inside our interval", "exceeded"]
    assert all("training.precision bf16 instead of fp32" in v.against[0] for v in anchor)


def test_the_state_of_a_paper_is_that_of_its_results() -> None:
    """Verified: a published number is; reduced: there are results; and a measured second is what its CSV says."""
    studies = {study.name: study for study in read_studies(RESULTS)}
    for name, paper in every_paper()[0].items():
        of = [studies[result] for result in paper.results]
        verified_ = any(verdict.verified for study in of for verdict in results.verdicts(study))
        assert paper.state == ("verified" if verified_ else "reduced" if of else "not yet"), name
        for size in paper.sizes.values():
            if "(reports/results/" in size.measured:
                rows = studies[size.measured.partition("(reports/results/")[2].partition(".csv")[0]].rows
                seconds = (rows["train_seconds"] + rows["select_seconds"]).sum()
                assert f"{len(rows)} runs" in size.measured
                assert f"{seconds:.0f} s" in size.measured
                assert size.seconds == pytest.approx(seconds / len(rows), abs=0.1)


def test_each_csv_has_a_page_and_the_index_names_it(tmp_path: Path) -> None:
    results.write(RESULTS, tmp_path)
    index = (tmp_path / "index.md").read_text(encoding="utf-8")
    for path in RESULTS.glob("*.csv"):
        page = (tmp_path / f"{path.stem}.md").read_text(encoding="utf-8")
        assert f"[{path.stem}]({path.stem}.md)" in index
        assert f"../../reports/results/{path.name}" in page
    shown = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md"))
    assert all(f"reports/results/{path.name})" in shown for path in RESULTS.glob("*.png"))  # each figure on some page
    number, every = (int(word) for word in index.partition("methods verified: ")[2].split()[:3:2])
    assert f">{number} of {every}</text>" in (tmp_path / "badge.svg").read_text(encoding="utf-8")
    published = (tmp_path / "published.md").read_text(encoding="utf-8")
    assert "online-cifar100-class · er · class-balanced · 2000" in published
    assert "split-tiny-imagenet-10x20 · packnet" in published
    papers = (tmp_path / "papers.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`: " in papers for name in every_paper()[0])
    assert "[semi-controlled](semi-controlled.md)" in papers


def test_a_page_has_our_mean_beside_the_published_one_the_command_and_when_it_was_made() -> None:
    study = read_study(RESULTS / "online-cifar100.csv")
    page = results.page(study, results.verdicts(study), Path("nowhere"))
    assert "| er | class-balanced | 2000 | 30.7 ± 2.7 |" in page
    assert "| 28.15 ± 1.22, 5 seeds" in page
    assert "clsim run --scenario online-cifar100-class --strategy er --precision bf16 --seeds 3" in page
    assert results.EARLY in page
    measured = read_study(RESULTS / "gpu.csv")  # its comment lines name the commits, and each row has its unit
    page = results.page(measured, [], Path("nowhere"))
    assert results.EARLY not in page
    assert "c668ea47d7fd, 546357a213ac" in page
    assert "| 0.8623 |" in page
    recorded = read_study(RESULTS / "survey.csv")
    page = results.page(recorded, [], Path("nowhere"))
    assert results.EARLY not in page
    assert "95f6973e33cc" in page
    assert "LwM, which needs a convolutional net, is left out" in page.replace("\n", " ")  # the study's deviations


def test_runs_on_one_initial_set_are_averaged_first() -> None:
    study = read_study(RESULTS / "torchal.csv")
    page = results.page(study, [], Path("nowhere"))
    assert "over 5 initial sets" in page
    assert "Claims, judged" in page


def test_figures_are_those_of_the_longest_name(tmp_path: Path) -> None:
    for name in ("a.csv", "a-b.csv"):
        (tmp_path / name).write_text("# x\nseed,accuracy\n0,0.5\n", encoding="utf-8")
    for name in ("a-curves.png", "a-b-curves.png", "ab.png"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in read_study(tmp_path / "a.csv").figures] == ["a-curves.png"]
    assert [p.name for p in read_study(tmp_path / "a-b.csv").figures] == ["a-b-curves.png"]


def test_an_empty_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# nothing\nseed,accuracy\n", encoding="utf-8")
    with pytest.raises(InputError, match="found no row, allowed: one or more"):
        read_study(tmp_path / "a.csv")


EVIL = "</td><script>x=1</script> | `b` [l](javascript:x) ``` {{ 7 }} <img src=x>"


def test_text_of_a_csv_is_text(tmp_path: Path) -> None:
    rows = [f'"{EVIL}",0,0.5,"{EVIL} --seed 0"', f'"{EVIL}",1,0.6,"{EVIL} --seed 1"']
    top = f"# clsim run {EVIL}\n# {EVIL}\n# ::: x\n"
    (tmp_path / "a.csv").write_text(top + "method,seed,accuracy,command\n" + "\n".join(rows), encoding="utf-8")
    (tmp_path / "b.csv").write_text(
        "# clsim report summary --format runs\nscenario,strategy,buffer,memory,seed,accuracy\n"
        + f'"{EVIL}",er,"{EVIL}",5,0,0.5\n',
        encoding="utf-8",
    )
    docutils = pytest.importorskip("docutils.core", reason="docutils is not installed (pip install 'clsim[docs]')")
    parser = pytest.importorskip("myst_parser.docutils_", reason="myst-parser is not installed")
    for name in ("a", "b"):
        study = read_study(tmp_path / f"{name}.csv")
        page = results.page(study, [], tmp_path)
        settings = {"myst_enable_extensions": ["colon_fence", "attrs_inline", "deflist"], "report_level": 5}
        html = docutils.publish_string(
            page, parser=parser.Parser(), writer="html5", settings_overrides=settings | {"embed_stylesheet": False}
        ).decode()
        assert "<script>x=1" not in html
        assert "<img" not in html
        assert 'href="javascript' not in html
        assert "&lt;script&gt;x=1&lt;/script&gt;" in html
        assert "{{ 7 }}" in html

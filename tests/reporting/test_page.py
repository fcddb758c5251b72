"""The page: every number is that of the runs behind it, all of it is in the file, and names are text."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import html.parser
import io
import json
import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from clsim.errors import InputError
from clsim.records import frame
from clsim.records.metrics import METRICS, summary
from clsim.records.store import RunFailure, RunFolder, RunRecord
from clsim.reporting import curves, figures, page, svg
from clsim.reporting import held as held_module
from clsim.reporting.report import ReportSpec
from clsim.reporting.results import Report
from clsim.reporting.statistics import half_width
from clsim.spec.run import read
from tests.studies import SPEC, study

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7 * 7 }} $x_1$ & \"'\u2028 ]]> -->"


class Page(html.parser.HTMLParser):
    """What a browser would find: tags, the text of scripts, the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(records: list[RunRecord]) -> str:
    return page.render(SPEC, records, [], "clsim report small --format html")


@pytest.fixture(scope="module")
def shown(text: str) -> Page:
    return Page(text)


def renamed(record: RunRecord, **changes: Any) -> RunRecord:
    """The record with other values in its spec, and the fingerprint of that."""
    data = copy.deepcopy(dict(record.data))
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if key:
            data["spec"][table][key] = value
        else:
            data["spec"][name] = value
    data["fingerprint"] = hashlib.sha256(json.dumps(data["spec"], sort_keys=True).encode()).hexdigest()[:16]
    return RunRecord(data)


def test_each_number_is_the_mean_over_the_runs_behind_it(shown: Page, records: list[RunRecord]) -> None:
    data, sizes = shown.data, records[0].data["test_sizes"]
    joint = {r["seed"]: r for r in data["runs"] if " joint " in r["name"]}
    links = {a["href"][6:] for _, a in shown.tags if a.get("href", "").startswith("#cell-")}
    assert links == set(data["cells"])
    assert len(links) == 6 + 5  # joint training forgets nothing: it has no such number
    means = [float(a["data-v"]) for tag, a in shown.tags if tag == "td" and "data-v" in a][: len(links)]
    behind = [data["cells"][key] for key in sorted(links, key=lambda k: [int(n) for n in k.split("-")])]
    for key, mean, runs in zip(sorted(links, key=lambda k: [int(n) for n in k.split("-")]), means, behind, strict=True):
        metric = SPEC.metrics[int(key.split("-")[0])]
        values = []
        for run in (data["runs"][i] for i in runs):
            matrix = [[None if v is None else v / 1e4 for v in row] for row in run["accuracy"]]
            reference = [None if v is None else v / 1e4 for v in joint[run["seed"]]["accuracy"][-1]]
            values.append(100 * summary(matrix, [None] * len(matrix), reference, sizes)[metric])  # type: ignore[operator]
        assert len(values) == 3
        assert mean == pytest.approx(np.mean(values), abs=0.01)  # the page rounds accuracies to 0.01 %


def test_each_run_is_all_there(shown: Page, records: list[RunRecord]) -> None:
    data, by_id = shown.data, {r.data["fingerprint"]: r.data for r in records}
    assert len(data["runs"]) == len(records)
    for run in data["runs"]:
        spec = {**{k: data["shared"][v] for k, v in run["spec"].items()}, "seed": run["seed"]}
        assert read(spec, "page").fingerprint == run["id"]  # the resolved spec, to the last value
        record = by_id[run["id"]]
        assert data["shared"][run["versions"]] == record["versions"]
        assert data["shared"][run["environment"]] == record["environment"]
        assert run["command"] == record["command"]
        for label, value in zip(data["metrics"], run["metrics"], strict=True):
            (name,) = (n for n, metric in METRICS.items() if metric.label == label)
            if name != "intransigence":  # it is held against the joint run, which the record does not know
                assert value == (
                    None if record["metrics"][name] is None else pytest.approx(record["metrics"][name], abs=1e-6)
                )


def test_all_of_it_is_in_the_file(text: str, shown: Page) -> None:
    policy = shown.attributes("content")[0]
    assert policy.startswith("default-src 'none';")
    digest = base64.b64encode(hashlib.sha256(shown.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert len(shown.scripts) == 2
    addresses = [*shown.attributes("href"), *shown.attributes("src"), *shown.attributes("xlink:href")]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert not re.search(r"https?://", re.sub(r"http://www\.w3\.org/\S*", "", text))
    assert "@import" not in text
    assert "url(http" not in text


def test_identifiers_are_there_once_and_references_lead_somewhere(text: str, shown: Page) -> None:
    counts = Counter(shown.attributes("id"))
    assert [name for name, n in counts.items() if n > 1] == []
    references = {a[1:] for a in shown.attributes("href") if a.startswith("#") and not a.startswith("#cell-")}
    references |= set(re.findall(r"url\(#([\w-]+)\)", text)) | set(shown.attributes("aria-labelledby"))
    assert references <= set(counts)


def test_the_same_records_give_the_same_page(text: str, records: list[RunRecord]) -> None:
    assert page.render(SPEC, records, [], "clsim report small --format html") == text


def test_figures_have_words_and_text(text: str, shown: Page) -> None:
    drawn = [a for tag, a in shown.tags if tag == "svg" and "role" in a]
    assert len(drawn) >= 10
    assert all(a["aria-label"] for a in drawn)
    assert all(a["alt"] for tag, a in shown.tags if tag == "img")
    for words in (
        "Accuracy over experiences",
        "Forgetting over experiences",
        "exemplars in memory",
        "tested on experience",
    ):
        assert words in shown.text
    colours = {color for color in curves.COLORS if color in text.split("</style>")[1].split('id="data"')[0]}
    assert not colours  # all of them follow the scheme
    assert "<style" not in text.split("</style>", 1)[1]


def test_names_are_text(records: list[RunRecord]) -> None:
    hostile = [renamed(r, scenario=HOSTILE, memory__buffer="<b>$m$</b>") for r in records]
    failures = [RunFailure("0" * 16, {"scenario": HOSTILE, "memory": 3}, HOSTILE, HOSTILE, "")]
    spec = dataclasses.replace(SPEC, title=HOSTILE, description=HOSTILE, filter={"scenario": HOSTILE})
    text = page.render(spec, hostile, failures, HOSTILE)
    shown, plain = Page(text), Page(page.render(SPEC, records, [], "x"))
    assert len(shown.scripts) == 2
    assert Counter(tag for tag, _ in shown.tags)["img"] == 0  # none of the renamed has a folder
    assert not any(name.startswith("on") for _, a in shown.tags for name in a)
    assert {tag for tag, _ in shown.tags} - {tag for tag, _ in plain.tags} <= {"code", "abbr", "details", "summary"}
    assert "alert(1)" not in shown.scripts[1]
    assert shown.data["shared"].count(HOSTILE.replace("\u2028", " ")) == 1
    for part in ("</script><script>alert(1)</script>", "{{ 7 * 7 }}", "<img src=x onerror=alert(2)>"):
        assert part in shown.text
    assert (
        "49" not in Page(page.render(dataclasses.replace(spec, title="{{ 7 * 7 }}"), hostile, [])).tags[0][1].values()
    )


def test_what_is_absent_says_why(records: list[RunRecord]) -> None:
    bare = [RunRecord(r.data) for r in records if r.data["spec"]["memory"]["buffer"] == "none"]
    text = Page(page.render(SPEC, bare, [])).text
    assert "No critical-difference diagram: it needs three or more arms" in text
    assert "Absent: no run of it has a memory." in text
    assert "Accuracy against memory is absent: it needs two sizes of memory or more." in text


def test_ranks_need_conditions_and_are_drawn(records: list[RunRecord]) -> None:
    second = [renamed(r, scenario="another") for r in records]
    shown = Page(page.render(SPEC, [*records, *second], []))
    ranks = [a["aria-label"] for _, a in shown.tags if a.get("aria-label", "").startswith("Average ranks over 2")]
    assert [words.count(",") for words in ranks] == [4, 4]  # five arms: joint training is a bound
    assert "critical difference" in shown.text


def test_runs_that_failed_stand_there() -> None:
    failure = RunFailure("ab" * 8, {"scenario": "s", "seed": 3}, "ValueError: no", "clsim run", "")
    with pytest.raises(InputError):
        page.render(dataclasses.replace(SPEC, filter={"no": 1}), [], [failure])


def test_failures_are_shown(records: list[RunRecord]) -> None:
    failure = RunFailure("ab" * 8, {"scenario": "s", "seed": 3}, "ValueError: no", "clsim run -s", "")
    text = Page(page.render(SPEC, records, [failure])).text
    for words in ("Failed runs", "seed 3", "ab" * 8, "ValueError: no", "clsim run -s"):
        assert words in text


def test_curves_end_where_the_metrics_do(records: list[RunRecord]) -> None:
    data = [r.data for r in records]
    for of in curves.by_scenario(SPEC, frame.frame(data), data).values():
        for s in of:
            assert len(s.fingerprints) == 3
            for i, name in enumerate(s.fingerprints):
                (metrics,) = (r["metrics"] for r in data if r["fingerprint"] == name)
                assert s.accuracy[i, -1] == pytest.approx(100 * metrics["accuracy"])
                if metrics["forgetting"] is not None:
                    assert s.forgetting[i, -1] == pytest.approx(100 * metrics["forgetting"])


def test_bands_are_the_intervals_of_tables() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 40))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, 0] = 7.0
    expected = [half_width(column.tolist()) for column in values.T]
    assert np.isnan(expected).any()
    np.testing.assert_allclose(curves.band(values), expected, atol=1e-12)


def test_looks_differ_in_more_than_colour() -> None:
    found = list(curves.looks(map(str, range(24))).values())
    assert len({(str(look.dash), look.marker) for look in found}) == 24


def test_the_front_is_what_nothing_dominates() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = [tuple(map(float, p)) for p in rng.integers(0, 8, (12, 2))]
        best = figures.front(points)  # type: ignore[arg-type]
        undominated = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
        assert set(best) == undominated


def test_drawings_are_small_and_theirs_alone() -> None:
    with matplotlib.rc_context(svg.STYLE):
        ax = figures.panel()
        ax.plot([0, 1], [0, 1], color=curves.COLORS[0], marker="o", label="x")
        ax.set_title("<b>$a_1$ & ")
    drawn = str(svg.inline(ax.figure, "f9", 'a "title"'))
    assert "&lt;b&gt;$a_1$ &amp; " in drawn
    assert "var(--series-0)" in drawn
    assert not re.search(r"\d\.\d{3}", re.sub(r'viewBox="[^"]*"', "", drawn).replace("font-size", ""))
    assert set(re.findall(r'id="([^"]*)"', drawn)) == set(re.findall(r'(?:url\(|href=")#([\w-]+)', drawn))
    assert all(name.startswith("f9-") for name in re.findall(r'id="([^"]*)"', drawn))


def checkpoint(records: list[RunRecord]) -> tuple[RunRecord, dict[str, Any]]:
    record = next(r for r in records if r.data["spec"]["memory"]["capacity"] == 40)
    assert record.folder is not None
    state = RunFolder(record.folder).checkpoint()
    assert state is not None
    return record, {**state, "memory": state["memory"].get("columns", state["memory"])}


def test_what_a_memory_holds_is_read_from_its_run(records: list[RunRecord]) -> None:
    record, state = checkpoint(records)
    assert record.folder is not None
    held, y, x = held_module.held(record.folder, 10), state["memory"]["y"], state["memory"]["x"]
    assert held.counts.tolist() == [int((y == c).sum()) for c in range(10)]
    kind, code = held_module.montage(held, held.columns).split(",")
    assert kind == "data:image/webp;base64"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB"))
    for row, label in enumerate(held.classes):  # 8 × 8 pixels, drawn four times as large, in tiles of 33
        for column, exemplar in enumerate(x[y == label][: held_module.COLUMNS, 0]):
            tile = sheet[33 * row : 33 * row + 32, 33 * column : 33 * column + 32]
            assert (tile[::4, ::4, 0] == exemplar.numpy()).all()


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.place, "boom"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "there is none"),
        ("text", "cannot be read"),
        ("code", "cannot be read"),
        ("list", "holds no memory of this run"),
        ("foreign", "holds no memory of this run"),
        ("label", "a label that the stream does not have"),
        ("float", "a column of int64"),
        ("longer", "as many rows as labels"),
        ("endless", "a label that the stream does not have"),
        ("sparse", "as many rows as labels"),
    ],
)
def test_a_hostile_checkpoint_is_a_line(kind: str, says: str, records: list[RunRecord], tmp_path: Path) -> None:
    record, state = checkpoint(records)
    folder = tmp_path / record.data["fingerprint"]
    folder.mkdir()
    memory = dict(state["memory"])
    if kind == "label":
        memory["y"] = memory["y"] + 100
    elif kind == "float":
        memory["y"] = memory["y"].float()
    elif kind == "longer":
        memory["x"] = torch.cat([memory["x"], memory["x"]])
    elif kind == "endless":  # a few bytes that say they are 10^13
        memory |= {
            "y": torch.zeros(1, dtype=torch.int64).expand(10**13),
            "x": memory["x"][:1].expand(10**13, -1, -1, -1),
        }
    elif kind == "sparse":
        memory["x"] = memory["x"].to_sparse()
    whole = {**state, "memory": memory}
    if kind == "foreign":
        whole["fingerprint"] = "0" * 16
    if kind == "text":
        (folder / "checkpoint.pt").write_text("no checkpoint")
    elif kind == "code":
        (folder / "checkpoint.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    elif kind != "missing":
        torch.save([1] if kind == "list" else whole, folder / "checkpoint.pt")
    with pytest.raises(InputError, match=re.escape(says)) as raised:
        held_module.held(folder, 10)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "boom").exists()
    if kind in ("code", "endless"):
        shown = Page(page.render(SPEC, [RunRecord(record.data, folder)], []))
        assert "no memory of its runs can be read" in shown.text
        assert says in shown.text


@pytest.mark.parametrize("nested", [False, True])
def test_columns_may_stand_alone_or_among_more(nested: bool, records: list[RunRecord], tmp_path: Path) -> None:
    record, state = checkpoint(records)
    folder = tmp_path / record.data["fingerprint"]
    folder.mkdir()
    memory = {"columns": state["memory"], "seen": 7} if nested else state["memory"]
    torch.save({**state, "memory": memory}, folder / "checkpoint.pt")
    assert held_module.held(folder, 10).counts.sum() == 40


def test_vectors_have_counts_and_no_images(records: list[RunRecord], tmp_path: Path) -> None:
    record, state = checkpoint(records)
    folder = tmp_path / record.data["fingerprint"]
    folder.mkdir()
    memory = {**state["memory"], "x": state["memory"]["x"].flatten(1).float()}
    torch.save({**state, "memory": memory}, folder / "checkpoint.pt")
    held = held_module.held(folder, 10)
    assert held.images is None
    assert held.counts.sum() == 40


@pytest.mark.slow
def test_a_thousand_runs_fit(tmp_path: Path) -> None:
    from benchmarks.report import make
    from clsim.records.store import Store

    make(tmp_path, 1000)
    records, problems = Store(tmp_path).records()
    assert (len(records), len(problems)) == (1000, 2)
    text = page.render(ReportSpec(title="Many", metrics=("accuracy", "forgetting", "train_seconds")), records, [])
    assert len(text.encode()) < 5 * 2**20
    assert len(Page(text).data["runs"]) == 1000


def test_runs_that_diverged_are_named_wherever_their_numbers_stand(records: list[RunRecord]) -> None:
    """And nowhere else: neither where none did, nor where the report's filter leaves them out."""
    broken = dataclasses.replace(records[0], data={**records[0].data, "diverged": True})
    name, line = broken.data["fingerprint"], f"1 of {len(records)} runs: diverged (a loss is not finite): "
    made = Report("small", SPEC, (broken, *records[1:]))
    assert f"- {line}{name}\n" in made.to_markdown()
    assert f"% {line}{name}\n" in made.to_latex()
    assert f"<li>{line}{name}</li>" in made.to_html()
    fine = Report("small", SPEC, tuple(records))
    other = "herding" if broken.data["spec"]["memory"]["buffer"] != "herding" else "random"
    without = dataclasses.replace(made, spec=dataclasses.replace(SPEC, filter={"buffer": other}))
    for one in (fine, without):
        assert one.doubts == []
        assert not any("diverged" in text for text in (one.to_markdown(), one.to_latex()))
        assert "is not finite)" not in one.to_html()
    assert made.doubts == [line + name]

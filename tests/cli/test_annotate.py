"""``clsim select --labelled``: the loop as a person goes through it, and what it says when something is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clsim.records import answers
from tests.commands import clsim, refused

pytestmark = pytest.mark.usefixtures("workplace")

ODD = [
    "a name with spaces.png",
    "comma, quote \" and 'more'.png",
    "Ünïcödé 写真.png",
    "<img src=x onerror=alert(1)>&amp;.png",
    "x" * 246 + ".png",
    "=1+1.png",
    "javascript:alert(1).png",
    "line\nbreak.png",
]
WORDS = ["select", "--dataset", "image-folder", "--data-path", "photos", "--labelled", "labels.csv", "--size", "8"]
WORDS += ["--selector", "margin", "--budget", "8", "--epochs", "2", "--out", "ask.csv"]


@pytest.fixture
def key(workplace: Path) -> dict[str, str]:
    """The right answers of 24 flat pictures, eight of which have odd names."""
    Path("photos").mkdir()
    rng, answers = np.random.default_rng(0), {}
    for i in range(24):
        name = ODD[i] if i < len(ODD) else f"{i}.png"
        answers[name] = ["dark", "light"][i % 2]
        x = rng.integers(0, 90, size=(8, 8, 3)) + 150 * (i % 2)
        Image.fromarray(x.astype(np.uint8)).save(Path("photos", name))
    return answers


def fill_in(key: dict[str, str], *, skip: int = 0, all_of_them: bool = True) -> list[str]:
    """Fill in ask.csv as a spreadsheet would, but for the first ``skip`` rows; the names that were asked for."""
    with open("ask.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    names = [name[1:] if name.startswith("'=") else name for name, _ in rows[1:]]
    with open("ask.csv", "w", encoding="utf-8-sig", newline="") as file:
        filled = [[n, key[m] if i >= skip else ""] for i, ((n, _), m) in enumerate(zip(rows[1:], names, strict=True))]
        csv.writer(file).writerows([rows[0], *filled])
    return names


def test_the_loop(key: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim(*WORDS) == 0
    printed = capsys.readouterr().out
    assert "question 1: 8 files, chosen by random" in printed
    assert "next: fill in the column label of ask.csv, and run the same command again" in printed
    sheet = Path("ask.html").read_text(encoding="utf-8")
    assert sheet.count("<li>") == sheet.count('src="data:image/png;base64,') == 8
    first, asked = Path("ask.csv").read_bytes(), fill_in(dict.fromkeys(key, ""))

    assert clsim(*WORDS) == 0  # nobody has answered
    printed = capsys.readouterr().out
    assert "taken from ask.csv: 0 labels, 0 skips" in printed
    assert "question 1, as before: 8 files" in printed
    assert Path("ask.csv").read_bytes() == first

    fill_in(key, skip=2)
    assert clsim(*WORDS) == 0
    printed = capsys.readouterr().out
    assert "taken from ask.csv: 6 labels, 2 skips" in printed
    assert "6 labels of 2 classes: dark " in printed
    assert "question 2: 8 files, chosen by margin" in printed
    again = fill_in({**key, **{n: "drak" for n in key if key[n] == "dark"}})
    assert not {*again} & {*asked}

    assert clsim(*WORDS) == 0
    printed = capsys.readouterr().out
    assert "new class 'drak'; is it 'dark'?" in printed
    assert "agree with those of the round before: kappa " in printed
    assert "question 3: 8 files" in printed
    assert {*fill_in(key)} == {*key} - {*asked} - {*again}

    assert clsim(*WORDS) == 0
    assert "nothing is left to ask" in capsys.readouterr().out
    with open("labels.csv", encoding="utf-8-sig", newline="") as file:
        rows = [(row["file"].replace("'=", "="), row["label"]) for row in csv.DictReader(file)]
    assert sorted(name for name, _ in rows) == sorted(key)
    assert [name for name, label in rows if not label] == asked[:2]


def test_names_are_escaped_on_the_sheet(key: dict[str, str]) -> None:
    assert clsim(*[word if word != "8" else "24" for word in WORDS[:-2]], "--out", "ask.csv") == 0
    sheet = Path("ask.html").read_text(encoding="utf-8")
    assert sheet.count("<img") == 24
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;.png" in sheet
    assert 'href="javascript' not in sheet
    assert 'href="photos/javascript%3Aalert%281%29.png"' in sheet
    assert "<bdi>line break.png</bdi>" in sheet


def test_dash_prints_and_takes_answers_from_the_labels(key: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.csv").write_text("file,label\n10.png,dark\n11.png,light\n")
    assert clsim(*WORDS[:-1], "-") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "file,label"
    assert "2 labels of 2 classes: dark 1 · light 1" in printed.err
    assert not Path("ask.html").exists()


def test_the_question_may_be_named_among_the_labels(key: dict[str, str]) -> None:
    words = [*WORDS, "--labelled", "ask.csv"]
    assert clsim(*WORDS) == 0
    assert clsim(*words) == 0
    assert json.loads(Path("labels.state.json").read_text())["questions"][0]["number"] == 1
    asked = fill_in(key)
    assert clsim(*words) == 0
    with open("labels.csv", encoding="utf-8-sig", newline="") as file:
        assert {row["file"].replace("'=", "=") for row in csv.DictReader(file)} == {*asked}


def test_features_alone(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(40, 3)).astype(np.float32))
    words = ["select", "--features", "x.npy", "--labelled", "labels.csv", "--selector", "badge", "--budget", "5"]
    assert clsim(*words) == 0
    assert "question 1: 5 files, chosen by typiclust" in capsys.readouterr().out
    assert not Path("ask.html").exists()
    head, *names = Path("ask.csv").read_text().splitlines()
    filled = [f"{name}{'ab'[i % 2]}" for i, name in enumerate(names)]
    Path("ask.csv").write_text("\n".join([head, *filled]))
    assert clsim(*words) == 0
    printed = capsys.readouterr().out
    assert "5 labels of 2 classes: a 3 · b 2; 0 skipped; 40 files in all" in printed
    assert "question 2: 5 files, chosen by badge" in printed


def test_what_is_refused(key: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("ask.csv").write_text("precious")
    assert "'ask.csv' is there already" in refused(capsys, *WORDS)
    Path("ask.csv").rename("ask.html")
    assert "'ask.html' is there already" in refused(capsys, *WORDS)
    assert Path("ask.html").read_text() == "precious"
    Path("ask.html").unlink()
    assert "no folder 'nowhere'" in refused(capsys, *WORDS[:-1], "nowhere/ask.csv")
    assert "the file with the labels" in refused(capsys, *WORDS[:-1], "labels.csv")
    assert "no file 'more.csv'" in refused(capsys, *WORDS, "--labelled", "more.csv")
    assert "no folder 'none'" in refused(capsys, *WORDS, "--data-path", "none")
    assert "class-balanced: found without labels" in refused(capsys, *WORDS, "--selector", "class-balanced")
    assert "did you mean 'badge'?" in refused(capsys, *WORDS, "--selector", "bagde")
    assert "--fraction: found with --labelled" in refused(capsys, *WORDS, "--fraction", "0.1")
    assert "--dataset: found 'digits' with --labelled" in refused(capsys, *WORDS, "--dataset", "digits")
    Path("labels.csv").write_text("file,label\n10.png,dark\n99.png,light\n")
    assert "labels.csv, line 3: no file '99.png' in photos" in refused(capsys, *WORDS)
    Path("labels.csv").write_text("file,label\n10.png,dark\n10.png,light\n")
    assert "line 3: found '10.png' with the label 'light', which has 'dark' in labels.csv, line 2" in refused(
        capsys, *WORDS
    )
    Path("labels.csv").unlink()
    assert clsim(*WORDS) == 0
    Path("ask.csv").write_text("file,label\nno such.png,\n")
    assert "ask.csv, line 2: no file 'no such.png'" in refused(capsys, *WORDS)
    assert clsim(*WORDS, "--force") == 2
    Path("ask.csv").unlink()
    assert clsim(*WORDS, "--force") == 0


def test_the_old_flag_and_pictures_in_class_folders(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        Path("photos", "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, size=(8, 8, 3), dtype=np.uint8)).save(f"photos/{'ab'[i % 2]}/{i}.png")
    words = ["select", "--dataset", "image-folder", "--path", "photos", "--size", "8", "--selector", "random"]
    assert clsim(*words, "--budget", "4") == 0
    assert "4 of 20 samples of image-folder" in capsys.readouterr().out
    Image.new("RGB", (8, 8)).save("photos/flat.png")
    assert clsim(*words, "--budget", "4", "--labelled", "labels.csv", "--epochs", "1") == 0
    assert "24 labels of 2 classes: a 12 · b 12; 0 skipped; 25 files in all" in capsys.readouterr().out
    assert Path("ask.csv").read_text() == "file,label\nflat.png,\n"


def test_a_question_that_a_terminal_would_obey_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["plain", "a\x1b[31m", "\u202eb", "nbsp\u00a0is fine"]
    np.savez("x.npz", x=np.eye(4, dtype=np.float32), files=names)
    words = ["select", "--features", "x.npz", "--labelled", "l.csv", "--budget", "4", "--selector", "kcenter"]
    assert clsim(*words, "--out", "-") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "clsim: --out: found '-' with a question on " in said.err.splitlines()[-1]
    assert clsim(*words, "--out", "ask.csv") == 0
    later = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & {*said.err, *later.out, *later.err}
    assert {row.file for row in answers.read(Path("ask.csv"))} == {*names}

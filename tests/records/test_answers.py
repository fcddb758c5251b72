"""An annotator's CSV files, as people, spreadsheets and hostile hands write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from clsim.errors import InputError
from clsim.records import answers, inquiry
from clsim.records.inquiry import Inquiry, Mark, Question

NAMES = [
    "a name with spaces.png",
    "comma, quote \" and 'more'.png",
    "Ünïcödé 写真.png",
    "<img src=x onerror=alert(1)>&amp;.png",
    "x" * 246 + ".png",
    "line\nbreak.png",
    "=1+1.png",
    "+3.png",
    "-2.png",
    "@sum.png",
    "\ttab.png",
    "'tis.png",
    "'=quoted.png",
    "''=twice.png",
    "-12",
    "semi;colon.png",
    " blank .png",
]


def said(path: Path) -> list[tuple[str, str]]:
    return [(row.file, row.label) for row in answers.read(path)]


def test_names_come_back_as_they_went(tmp_path: Path) -> None:
    path = tmp_path / "ask.csv"
    path.write_bytes(answers.question(NAMES))
    assert [answers.plain(row.file) for row in answers.read(path)] == NAMES
    assert {row.label for row in answers.read(path)} == {""}


def test_no_cell_begins_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(answers.question(NAMES).decode("utf-8-sig"), newline="")))
    assert not [cell for row in rows for cell in row if cell[:1] in {*"=+@\t\r\n"}]
    assert [cell for row in rows for cell in row if cell.startswith("-")] == ["-12"]  # a number


def test_a_spreadsheet_knows_the_letters() -> None:
    assert answers.question(["é"]).startswith(b"\xef\xbb\xbf")
    assert answers.question(["e"]) == b"file,label\ne,\n"


@pytest.mark.parametrize(
    "content",
    [
        b"file,label\na.png,cat\nb.png,\n",
        b"\xef\xbb\xbffile,label\r\na.png,cat\r\n\r\nb.png,\r\n",
        b"\xef\xbb\xbfFile;Label\r\na.png; cat \r\nb.png;\r\n;\r\n",
        b'label\tnote\tfile\ncat\t"a, note"\ta.png\n\t\tb.png',
        b'"file","label"\r"a.png","cat"\r"b.png",""\r',
    ],
)
def test_dialects_are_read_and_continued(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    assert said(path) == [("a.png", "cat"), ("b.png", "")]
    answers.append(path, [("c,d.png", "dog; hound"), ("=e.png", "")])
    assert path.read_bytes().startswith(content)
    assert [(answers.plain(file), label) for file, label in said(path)] == [
        ("a.png", "cat"),
        ("b.png", ""),
        ("c,d.png", "dog; hound"),
        ("=e.png", ""),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, allowed: the first line file,label"),
        (b"a.png,cat\n", "found the first line 'a.png,cat', allowed: file,label"),
        (b"file,label,label\n", "allowed: file,label"),
        (b"file,label\na.png\n", "line 2: found 1 cells, allowed: 2"),
        (b"file,label\na.png,cat,dog\n", "line 2: found 3 cells, allowed: 2"),
        (b'file,label\n"a.png,cat\n', "is no CSV"),
        (b"file,label\n\xe9.png,cat\n", "is no UTF-8 text"),
        ("file,label\n".encode("utf-16"), "is no UTF-8 text"),
        (b"file,label\na.png,cat\x1b[2J\n", "allowed: text without control characters"),
        (b"file,label\n" + b"a" * 200_000 + b",cat\n", "is no CSV"),
    ],
)
def test_what_is_no_such_file_is_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        answers.read(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_state_comes_back_as_it_went(tmp_path: Path) -> None:
    asked = Question(2, ("é\n.png", "=b.png"), "badge", 7, 0.5, "key", {"=b.png": "cat"})
    state = Inquiry({"é\n.png": Mark("digest", 3, 2**62)}, (asked,))
    inquiry.save(tmp_path / "s.json", state)
    assert inquiry.load(tmp_path / "s.json") == state
    assert inquiry.load(tmp_path / "none.json") == Inquiry()


GOOD = '{"format": 1, "files": {}, "questions": []}'
ASKED = '{"number": 1, "files": ["a"], "by": "b", "labels": 1, "agreement": null, "key": "k", "guesses": {}}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[" * 100_000,
        "[]",
        "{}",
        "\ud800",
        GOOD.replace("1", "2"),
        GOOD.replace("1", "true"),
        GOOD.replace("{}", "[]"),
        GOOD.replace("{}", '{"a": "b"}'),
        GOOD.replace("{}", '{"a": {"digest": 1, "size": 1, "changed": 1}}'),
        GOOD.replace("{}", '{"a": {"digest": "d", "size": -1, "changed": 1}}'),
        GOOD.replace("{}", '{"a": {"digest": "d", "size": 1e999, "changed": 1}}'),
        GOOD.replace("[]", '["a"]'),
        GOOD.replace("[]", "[{}]"),
        GOOD.replace("[]", f"[{ASKED.replace('null', 'NaN')}]"),
        GOOD.replace("[]", f"[{ASKED.replace('null', '2.0')}]"),
        GOOD.replace("[]", f"[{ASKED.replace('[', '[[').replace(']', ']]')}]"),
        GOOD.replace("[]", f"[{ASKED.replace('{}', '7')}]"),
        GOOD.replace("[]", f"[{ASKED.replace('1', '9' * 5000)}]"),
    ],
)
def test_a_hostile_state_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.state.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as caught:
        inquiry.load(path)
    assert "labels.state.json: is no state of a labelling (" in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_text(GOOD.replace("[]", f"[{ASKED}]"), encoding="utf-8")
    assert inquiry.load(path).questions[0].files == ("a",)

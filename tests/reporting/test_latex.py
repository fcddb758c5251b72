"""LaTeX tables: every row is whole, nothing but our own commands is in them, and every name reads as it was written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clsim.reporting import latex
from clsim.reporting.cells import Cell, Table
from clsim.reporting.listing import Line, Listing, of_table

HOSTILE = [
    r"\input{/etc/passwd}",
    r"\write18{rm -rf /}",
    r"}\end{tabular}\immediate\openout",
    "a & b \\\\ c",
    "[2cm] % the rest of the line",
    "* starred",
    "50% #1 $x^2$ a_b ~ {",
    "^^M^^5cinput x",
    "`quoted' \"text\" ''",
    "--flag --- <tag> | pipe",
    "line\nbreak\r\tand \x1b[31m\x00",
    "é ü ß ł Ō",
    "α–β ± × √ ≥ 1°",
    "a → b ← c ↑ d ↓ ∞",
    "日本 \u202e \ud7ff ẽ Đ",
]

OURS = set(
    re.findall(
        r"\w+",
        """begin end centering caption label toprule midrule bottomrule cmidrule multicolumn textbf texttt symbol
        textbackslash textasciitilde textasciicircum textless textgreater textbar dots
        pm times cdot geq leq approx sim dagger circ surd Sigma Omega Delta
        rightarrow leftarrow uparrow downarrow infty
        sbox ifdim wd linewidth resizebox usebox else fi raggedright arraybackslash textwidth shortstack""",
    )
) | set(latex.GREEK.values())
"""Every command that a table may hold."""

MATHS = {"±": "pm", "×": "times", "·": "cdot", "≥": "geq", "≤": "leq", "≈": "approx", "†": "dagger", "√": "surd"}
MATHS |= {"→": "rightarrow", "←": "leftarrow", "↑": "uparrow", "↓": "downarrow", "∞": "infty"}

PLAIN = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\symbol{34}": '"',
    r"\symbol{96}": "`",
    r"\dots{}": "…",
    "{}": "",
    "{[}": "[",
    "{]}": "]",
    "{*}": "*",
    **{f"\\{c}": c for c in "{}$&#_%"},
    "---": "—",
    "--": "–",
    "$-$": "−",
    **{f"$\\{command}$": c for c, command in MATHS.items()},
    "$'$": "′",
    "$^2$": "²",
    r"$^{\circ}$": "°",
    **{f"$\\{word}$": c for c, word in latex.GREEK.items()},
}


def read(text: str) -> str:
    """What LaTeX sets, of the part of LaTeX that we write."""
    code = r"\\texttt\{U\+([0-9A-F]+)\}"
    known = "|".join(re.escape(token) for token in sorted(PLAIN, key=len, reverse=True))
    out, at = "", 0
    while at < len(text):
        if found := re.compile(code).match(text, at):
            out += chr(int(found[1], 16))
        elif found := re.compile(known).match(text, at):
            out += PLAIN[found[0]]
        else:
            found = re.compile(r"[^\\{}$&#^_%~]", re.DOTALL).match(text, at)
            assert found, f"LaTeX would obey {text[at : at + 12]!r}"
            out += found[0]
        at = found.end()
    return out


def check(text: str, columns: int) -> None:
    """Braces and environments are balanced, commands are ours, and every row has ``columns`` columns."""
    assert set(re.findall(r"\\([A-Za-z]+)", re.sub(r"\\\\", "", text))) <= OURS
    bare = re.sub(r"\\[\\{}$&#_%]", "", text)
    depth = 0
    for c in bare:
        depth += (c == "{") - (c == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    open_ = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or open_.pop() == name
        if kind == "begin":
            open_.append(name)
    assert not open_
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    for line in body.splitlines():
        if "\\\\" in line:
            assert line.endswith(" \\\\")
            cells = re.split(r"(?<!\\)&", line)
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(cells) - len(spans) + sum(spans) == columns
            assert not re.match(r"\s*[\[*]", line), "a row that begins like an option of the last \\\\"
    assert "%" not in bare.replace("\\sbox0{%\n", "").replace("}%\n", "")
    assert "\n\n" not in text, "a blank line ends a paragraph, also in a caption"


PACKAGES = latex.PREAMBLE.removeprefix("% ")


def document(*tables: str) -> str:
    return "\n".join([r"\documentclass[twocolumn]{article}", PACKAGES, r"\begin{document}", *tables, r"\end{document}"])


def compiles(text: str, folder: Path) -> str:
    """Compile a document if there is a LaTeX here; return what it says."""
    if not shutil.which("pdflatex"):
        return ""
    (folder / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "paper.log").read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_reads_as_it_was_written(name: str) -> None:
    expected = "".join(c if c.isprintable() else " " for c in name)
    assert read(latex.escaped(name)) == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_cannot_leave_its_place(name: str, tmp_path: Path) -> None:
    cells = {(name, name): Cell((1.0, 2.0, 4.0), best=True), (name, "z"): Cell((1.0,)), ("y", name): Cell()}
    rows = {(name, "er"): cells, ("er", name): {(name, "z"): Cell((-1.0, -2.0, -2.5), tied=True)}}
    table = Table("accuracy", name, (name, "buffer"), ("scenario", name), [*cells], rows, [name, f"* {name} ~ {name}"])
    text = latex.to_latex(of_table(table), name)
    check(text, 5)
    assert "Overfull" not in compiles(document(text), tmp_path)


def test_a_table_as_a_paper_has_it(tmp_path: Path) -> None:
    columns = [("cifar", "500"), ("cifar", "2000"), ("mnist", "500")]
    ours = {
        columns[0]: Cell((61.0, 62.0, 63.0), best=True),
        columns[1]: Cell((-1.5, -2.0, -2.5), tied=True),
        columns[2]: Cell((7.0, 8.0)),
    }
    paper = {columns[0]: Cell(published=(63.0, 1.5))}
    rows = {("er", "random"): ours, ("er (published [1])", "random"): paper}
    notes = ["published [1]: A (2020).", "* marks the best mean of its column; ~ what cannot be told from it: p ≥ 5 %."]
    table = Table(
        "accuracy", "final accuracy, %", ("strategy", "buffer"), ("scenario", "memory"), columns, rows, notes,
        published={("er (published [1])", "random"): 1}, sources=["A (2020)"],
    )  # fmt: skip
    text = latex.to_latex(of_table(table), "study final accuracy")
    check(text, 5)
    compiles(document(text), tmp_path)
    assert text.splitlines() == [
        r"\begin{table*}",
        r"  \centering",
        r"  \caption{Final accuracy, \%. published {[}1{]}: A (2020). Bold marks the best mean of its column; "
        r"$^{\sim}$ what cannot be told from it: p $\geq$ 5 \%. $^{\dagger}$: published, "
        r"with the number of its source.}",
        r"  \label{tab:study-final-accuracy}",
        r"  \sbox0{%",
        r"  \begin{tabular}{llrrr}",
        r"    \toprule",
        r"     &  & \multicolumn{2}{c}{cifar} & \multicolumn{1}{c}{mnist} \\",
        r"    \cmidrule(lr){3-4} \cmidrule(lr){5-5}",
        r"    strategy & buffer & 500 & 2000 & 500 \\",
        r"    \midrule",
        r"    er & random & \textbf{62.0 $\pm$ 2.5} & $-$2.0 $\pm$ 1.2$^{\sim}$ & 7.0, 8.0 \\",
        r"    \midrule",
        r"    er$^{\dagger1}$ & random & 63 $\pm$ 1.5 & -- & -- \\",
        r"    \bottomrule",
        r"  \end{tabular}}%",
        r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        r"\end{table*}",
    ]


def test_a_table_without_rows_is_whole() -> None:
    check(latex.to_latex(Listing("nothing", ("a",), [("b",)], [], []), "x"), 2)
    check(latex.to_latex(Listing("one", ("a",), [("b",)], [Line(("x",), ("1",))], []), "x"), 2)


def test_a_range_is_no_negative_number() -> None:
    text = latex.to_latex(Listing("won", ("a",), [("b",)], [Line(("x",), ("2–1",)), Line(("y",), ("-1",))], []), "x")
    assert "x & 2--1 " in text
    assert "y & $-$1 " in text


def test_a_narrow_table_stands_in_one_column() -> None:
    text = latex.to_latex(Listing("few", ("a",), [("b",)], [Line(("x",), ("1.0 ± 0.2",))], []), "x")
    assert text.startswith("\\begin{table}\n")
    assert "\\resizebox" not in text


def test_the_estimate_of_a_width_is_rarely_too_small(tmp_path: Path) -> None:
    """Held against LaTeX's own measure: a table that is thought to fit into a column does."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    texts = [
        "62.0 ± 2.5",
        "MOMWWM",
        "fill lilt",
        "commonmen www",
        "split-fashion-mnist",
        "[1.0, 2.0] – β",
        "A B C D E F",
    ]
    boxes = [f"\\sbox0{{\\textbf{{{latex.escaped(text)}}}}}\\typeout{{is \\the\\wd0}}" for text in texts]
    log = compiles(document(*boxes, "x"), tmp_path)
    measured = [float(found) for found in re.findall(r"^is ([\d.]+)pt", log, re.MULTILINE)]
    for text, size in zip(texts, measured, strict=True):
        assert size <= latex.points(text) <= 1.6 * size, text

"""Markdown of plain text: everything is escaped but code in single backticks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from clsim.reporting.formats import escaped
from clsim.reporting.names import printable


def inline(text: str, link: Callable[[str], str] = lambda name: "") -> str:
    """Write a line of prose: code in single backticks stays code, and is a link where ``link`` has a target for it.

    >>> inline("`a_b` of <c>, 2 * 3"), inline("see `badge`", {"badge": "selectors-badge"}.get)
    ('`a_b` of &lt;c&gt;, 2 \\\\* 3', 'see [`badge`](#selectors-badge)')
    """
    parts = re.split(r"`([^`\n]+)`", text)
    for i, part in enumerate(parts):
        if i % 2:
            code = f"`{printable(part)}`".replace("|", "\\|")
            parts[i] = f"[{code}](#{target})" if (target := link(part)) else code
        else:
            parts[i] = escaped(part)
    return "".join(parts)


def prose(text: str, link: Callable[[str], str] = lambda name: "") -> str:
    """Write paragraphs of prose; a paragraph of which every line is indented is code."""
    made = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            made.append(fenced("\n".join(line[4:] for line in lines), "text"))
        elif lines:
            made.append("\n".join(_no_block(inline(line.strip(), link)) for line in lines))
    return "\n\n".join(made)


def _no_block(line: str) -> str:
    """Keep a line from being a heading, a list or a rule."""
    return re.sub(r"^([#>+=:%-]|\(|\d+(?=[.)]))", r"\\\1" if not line[:1].isdigit() else r"\1", line)


def sentence(text: str) -> str:
    """Begin with a capital letter, unless the first word may be a name, and end with a full stop.

    >>> sentence("share of each class"), sentence("auto, cpu or cuda"), sentence("table.key=value: set any key.")
    ('Share of each class.', 'auto, cpu or cuda.', 'table.key=value: set any key.')
    """
    text = text.strip()
    text = text[:1].upper() + text[1:] if re.match(r"[a-z]+ ", text) else text
    return text if not text or text[-1] in ".:!?" else f"{text}."


def fenced(text: str, language: str) -> str:
    """Write a block of code; the fence is longer than any in the text."""
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    code = "\n".join(map(printable, text.splitlines()))
    return f"{fence}{language}\n{code}\n{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of markdown; the texts are escaped already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def wide_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of names and what they are, whose second column keeps its width and whose others do not break."""
    return f":::{{div}} names\n{table(heads, rows)}\n:::"


def save(folder: Path, pages: Mapping[str, str]) -> None:
    """Write the generated pages of a folder: those that changed alone, so that sphinx reads no other.

    Pages that are no longer made are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.suffix in (".md", ".rst", ".svg") and old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def anchor(kind: str, name: str) -> str:
    """Return the name of an entry's target, by which other pages link to it.

    >>> anchor("strategies", "der++")
    'strategies-der-plus-plus'
    """
    return f"{kind}-{re.sub(r'[^a-z0-9-]+', '-', name.lower().replace('+', '-plus'))}"

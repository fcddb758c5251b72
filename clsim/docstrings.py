"""What components say of themselves, read from their files without running them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A line of ``clsim list``: a name, what it is, where that comes from; of a selector, what it needs and costs."""

    name: str
    title: str
    paper: str
    place: str
    family: str = ""
    needs: str = ""
    cost: str = ""


def described(name: str, target: str) -> Entry:
    """What a docstring says (first line, ``Needs:``, ``Cost:``, ``Source:``), read from the file without running it."""
    module_name, _, attribute = target.rpartition(":")
    path = Path(__file__).parent.joinpath(*module_name.split(".")[1:]).with_suffix(".py")
    for name_there, text in _docstrings(path):
        if name_there == attribute:
            said = {key: " ".join(value.split()) for key, value in _SAYS.findall(text)}
            title = " ".join(text.partition("\n\n")[0].split())
            return Entry(
                name,
                title,
                said.get("Source", ""),
                target,
                module_name.rpartition(".")[2],
                said.get("Needs", "").rstrip("."),
                said.get("Cost", "").rstrip("."),
            )
    return Entry(name, "", "", target)


@cache
def _docstrings(path: Path) -> list[tuple[str, str]]:
    """Of the functions and classes of a file, which hold several components each."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [(node.name, ast.get_docstring(node) or "") for node in nodes if isinstance(node, kinds)]


_SAYS = re.compile(r"^(Needs|Cost|Source): (.*?)(?=\n\n|\n(?:Needs|Cost|Source): |\Z)", re.DOTALL | re.MULTILINE)

"""What sphinx does with the docstrings of the API, and with a reference to code that has no page."""

from __future__ import annotations

import ast
import pkgutil
import re
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

PACKAGE = Path(__file__).resolve().parents[2] / "clsim"

STYLE = Config(napoleon_use_ivar=True, napoleon_use_rtype=False)

MARKS = re.compile(r"(?:(?<=\s)|^)(?:Final|Abstract)\.\s*$")
"""What the house says of classes, and users need not read."""

SAYS = re.compile(r"^(Needs|Cost|Source): ")


def docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Write a docstring as reStructuredText: arguments as fields; needs, cost and source as paragraphs of their own.

    A property is read as a function is: napoleon takes the words before a colon in its first line for a type.
    """
    kept = list[str]()
    for line in lines:  # each of needs, cost and source is a paragraph
        kept += ["", SAYS.sub(r"**\1:** ", line)] if SAYS.match(line) else [MARKS.sub("", line)]
    kind = "method" if what in ("property", "attribute", "data") else what
    lines[:] = GoogleDocstring(kept, STYLE, None, kind, name, obj, options).lines()


def answer(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Return the text of a reference if what it names exists, else None, upon which sphinx warns."""
    target = str(node.get("reftarget", ""))
    return contnode if node.get("refdomain") == "py" and target and exists(target) else None


def exists(target: str) -> bool:
    """Whether a name in a docstring or an annotation is there: a full name in clsim, or one that some module has.

    Names of other packages are not looked up: their documentation is elsewhere.

    >>> exists("clsim.pool.pool.Pool"), exists("clsim.pool.pool.Pond"), exists("Tensor"), exists("Pond")
    (True, False, True, False)
    """
    if not re.fullmatch(r"[A-Za-z_][\w.]*", target):  # of a shape in an annotation
        return True
    first, _, rest = target.partition(".")
    if first != "clsim":
        return first in known() if rest else target in known()
    owner, _, field = target.rpartition(".")
    try:
        pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return field in fields(owner)
    return True


@cache
def known() -> frozenset[str]:
    """Return every name that some module of clsim defines or imports at its top, and the built-in ones."""
    found = {*dir(__import__("builtins")), "clsim"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {str(name).partition(".")[0] for alias in node.names for name in (alias.name, alias.asname)}
                found |= {str(node.module).partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {one.id for one in targets if isinstance(one, ast.Name)}
    return frozenset(found)


def fields(owner: str) -> set[str]:
    """Return the names of a class's annotated fields, of which it has no attribute; none if it is no class."""
    try:
        found = pkgutil.resolve_name(owner)
    except (ImportError, AttributeError, ValueError):
        return set()
    return {name for c in getattr(found, "__mro__", ()) for name in vars(c).get("__annotations__", {})}

"""Tell what a file or one's own code is: a scenario, a strategy, a selector, a learner …, without an import."""

from __future__ import annotations

import ast
from pathlib import Path

from clsim.spec import registry
from clsim.spec.definitions import Unread, definition
from clsim.spec.roles import ROLES
from clsim.spec.run import TABLES


def kind_of_file(path: Path) -> str:
    """Tell a scenario, a strategy, a study and a report apart: by the folder, else by the keys."""
    if path.resolve().parent.name in registry.FILES:
        return path.resolve().parent.name
    tables = registry.read_toml(path)
    keys = {*tables}
    if {"scenario", "strategy", "seeds", "set"} & keys:
        return "studies"
    if "data" in keys or "experiences" in tables.get("stream", ()):
        return "scenarios"
    return "strategies" if any(isinstance(tables.get(key), dict) for key in (*TABLES, "on")) else "reports"


def kinds_of_code(target: str) -> list[str]:
    """Tell the kind of one's own code by its parameters; none if they are of no kind, or the code cannot be read."""
    try:
        found = definition(target)
        first = tuple(found.parameters)
    except Unread:
        return []
    if first[:1] == ("pool",) and isinstance(found.node, ast.FunctionDef) and found.node.returns is not None:
        return ["condensers" if "Exemplars" in ast.unparse(found.node.returns) else "selectors"]
    return [kind for kind, wanted in _FIRST.items() if first[: len(wanted)] == wanted][:1]


_FIRST = {kind: roles[0].given for kind, roles in ROLES.items()} | {"metrics": ("R",)}
"""Kind → the first parameters of its components."""

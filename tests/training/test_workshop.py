"""The workshop: the one place where nets, transforms, trainers and pools are put together."""

from __future__ import annotations

import ast
from pathlib import Path

import clsim

PACKAGE = Path(clsim.__file__).parent
MADE = {"Trainer", "Transform"}


def test_transforms_and_trainers_are_made_in_the_workshop_alone() -> None:
    """But for the small nets of checks, which know no spec."""
    places = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in MADE:
                places.add(path.relative_to(PACKAGE).as_posix())
    assert {place for place in places if not place.startswith("checks/")} == {"training/workshop.py"}

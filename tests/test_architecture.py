"""The house rules that a program can see: who imports whom, and what must not occur."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clsim
from clsim.resolve import tomllib

PACKAGE = Path(clsim.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"errors", "strict", "compat", "metrics", "components", "docstrings", "gradients", "cost"},
    {"tables", "labelling", "tradeoff", "plateau"},
    {"specs", "progress"},
    {"catalog", "store", "data", "exemplars", "randomness"},
    {"resolve", "optimizers", "models", "gates", "parts"},
    {"dropout", "labels", "scorers"},
    {"streams"},
    {"divide"},
    {"pool"},
    {"drafts"},
    {"proxy", "selectors", "memory"},
    {"condensers"},
    {"objectives", "learners"},
    {"bridge", "checks"},
    {"results", "machine", "evaluation", "pseudo", "snapshots", "traces", "storage", "readouts"},
    {"controller"},
    {"loop"},
    {"reporting", "doctor"},
    {"api", "grid", "picks", "condense"},
    {"engines"},
    {"supervise"},
    {"commands"},
    {"cli"},
]
"""From the ground up: a module imports its own floor and those below."""


def module(path: Path) -> str:
    return ".".join(("clsim", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at once or later; not those for its type hints alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(inner) for n in checking for inner in ast.walk(n)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor(name: str) -> int | None:
    part = name.split(".")[1] if name.startswith("clsim.") else ""
    return next((i for i, modules in enumerate(FLOORS) if part in modules), None)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_go_down(path: Path) -> None:
    if path.name == "__init__.py" and path.parent == PACKAGE:
        return  # the public names, imported when they are asked for
    mine = floor(module(path))
    assert mine is not None, "give the new module a floor"
    above = {n for n in imports(path) if (f := floor(n)) is not None and f > mine}
    assert not above


def test_avalanche_is_imported_in_two_places() -> None:
    users = {module(p) for p in FILES if any(n.split(".")[0] == "avalanche" for n in imports(p))}
    assert users == {"clsim.divide", "clsim.bridge"}


@pytest.mark.parametrize("name", ["catalog", "specs", "metrics", "store", "resolve", "supervise", "cli"])
def test_names_and_records_need_neither_torch_nor_avalanche(name: str) -> None:
    heavy = "{'torch', 'torchvision', 'avalanche', 'pandas', 'matplotlib', 'sklearn'}"
    code = f"import clsim.{name}, sys; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 330


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_assert_stands_for_a_message_and_no_attribute_is_guessed(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"hasattr", "setattr", "eval", "exec"}


@pytest.mark.parametrize("folder", ["selectors", "objectives", "learners", "memory.py", "pool.py", "data/augment.py"])
def test_no_step_waits_for_the_device(folder: str) -> None:
    place = PACKAGE / folder
    for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        attributes = {
            n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }
        assert not attributes & {"item", "numpy"}, path


def test_nothing_draws_from_a_global_generator() -> None:
    drawing = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in drawing}:
                assert "generator" in {k.arg for k in node.keywords}, f"{module(path)}, line {node.lineno}"


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    assert {module(path) for path in FILES if path.name == "__init__.py"} <= listed

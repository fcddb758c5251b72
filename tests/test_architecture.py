"""The house rules that a program can see: who imports whom, and what must not occur."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import clsim
from clsim.compat import tomllib

PACKAGE = Path(clsim.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"errors", "version", "compat", "randomness", "notebook"},
    {"spec"},
    {"records", "models"},
    {"data"},
    {"pool"},
    {"selectors", "streams"},
    {"condensers", "memory", "acquisitions"},
    {"training"},
    {"objectives"},
    {"learners"},
    {"interop"},
    {"execution"},
    {"checks", "reporting"},
    {"api", "cli"},
    {"__main__"},
]
"""Folders from the ground up: a module imports from its own folder and from floors below, for type hints too."""

WIDE = {
    "clsim.execution.execute",  # the path of a run touches every room that it goes through
    "clsim.training.loop",  # the experiment itself
    "clsim.training.contract",  # what a run gives its learner is made by all rooms below
}
"""Modules that may import more than ten others of ours."""


def module(path: Path) -> str:
    return ".".join(("clsim", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path): path for path in FILES}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at once, later or for its type hints."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module or "")
    return found


def floor(name: str) -> int:
    """
    >>> floor("clsim.errors")
    0
    """
    return next(i for i, folders in enumerate(FLOORS) if name.split(".")[1] in folders)


INNER = {name: sorted(imports(path) & set(MODULES) - {"clsim"}) for name, path in MODULES.items() if name != "clsim"}
"""Every module but the public names -> those of ours that it imports."""


def test_every_folder_has_a_floor() -> None:
    assert {name.split(".")[1] for name in INNER} == set.union(*FLOORS)


def test_imports_go_down() -> None:
    up = [
        f"{name} imports {other}"
        for name, found in INNER.items()
        for other in found
        if other.split(".")[1] != name.split(".")[1] and floor(other) >= floor(name)
    ]
    assert not up


def test_no_circle_of_imports() -> None:
    """Those for type hints, and those within a folder, included."""
    left = {name: set(found) - {name} for name, found in INNER.items()}
    while free := [name for name, found in left.items() if not found]:
        left = {name: found - set(free) for name, found in left.items() if name not in free}
    assert not left


def test_few_modules_know_many_others() -> None:
    wide = {name for name, found in INNER.items() if len(found) > 10}
    assert len(WIDE) <= 3
    assert wide == WIDE


def test_no_file_name_occurs_twice() -> None:
    """But ``__init__``, and a command beside what it calls."""
    counts = Counter(path.name for path in FILES if path.name != "__init__.py" and path.parent.name != "cli")
    assert not [name for name, times in counts.items() if times > 1]


def test_names_are_imported_from_where_they_are_defined() -> None:
    passing = []
    for path in [*FILES, *sorted((PACKAGE.parent / "tests").rglob("*.py"))]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES and node.module != "clsim":
                own = defined(MODULES[node.module])
                passing += [
                    f"{path.name}: {node.module} does not define {alias.name}"
                    for alias in node.names
                    if alias.name not in own and f"{node.module}.{alias.name}" not in MODULES
                ]
    assert not passing


@functools.cache
def defined(path: Path) -> set[str]:
    """Top-level names that a file itself makes, under an ``if`` too."""
    found: set[str] = set()
    body = list(tree(path).body)
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            found |= {a.asname or a.name for n in ast.walk(node) if isinstance(n, ast.Import) for a in n.names}
    return found


def test_avalanche_is_imported_for_streams_and_to_work_with_it() -> None:
    users = {name for name, path in MODULES.items() if any(n.split(".")[0] == "avalanche" for n in imports(path))}
    assert users == {"clsim.streams.division", "clsim.interop.avalanche", "clsim.interop.benchmarks"}


LIGHT = (
    "spec.described",
    "spec.registry",
    "spec.resolve",
    "records.metrics",
    "records.store",
    "execution.plan",
    "execution.study",
    "cli.list",
    "cli.main",
    "cli.show",
)


def test_names_and_records_need_neither_torch_nor_avalanche() -> None:
    heavy = "{'torch', 'torchvision', 'avalanche', 'pandas', 'matplotlib', 'sklearn'}"
    code = (
        "import importlib, sys\n"
        f"for name in {LIGHT}:\n"
        "    importlib.import_module('clsim.' + name)\n"
        f"    print(*(name + ' imports ' + other for other in {heavy} & set(sys.modules)), sep='\\n', end='')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == ""


def test_files_stay_readable() -> None:
    assert not [module(path) for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 600]


def test_no_assert_stands_for_a_message_and_no_attribute_is_guessed() -> None:
    offenders = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            guesses = isinstance(node, ast.Call) and ast.unparse(node.func) in {"hasattr", "setattr", "eval", "exec"}
            if guesses or isinstance(node, ast.Assert):
                offenders.append(f"{module(path)}, line {node.lineno}")
    assert not offenders


STEPS = ("selectors", "objectives", "learners", "memory/buffer.py", "pool/pool.py", "data/augmentation.py")


def test_no_step_waits_for_the_device() -> None:
    waiting = []
    for place in (PACKAGE / name for name in STEPS):
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    waiting += [f"{module(path)}, line {node.lineno}"] * (node.func.attr in {"item", "numpy"})
    assert not waiting


def test_nothing_draws_from_a_global_generator() -> None:
    drawing = {
        f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal")
    }
    offenders = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            drawn = isinstance(node, ast.Call) and ast.unparse(node.func) in drawing
            if drawn and "generator" not in {k.arg for k in node.keywords}:
                offenders.append(f"{module(path)}, line {node.lineno}")
    assert not offenders


def test_one_module_changes_files() -> None:
    """Those of a library (downloads, logs, locks) apart: what writes, renames or deletes goes through it."""
    names = ("replace", "rename", "remove", "unlink", "rmdir", "mkdir", "makedirs", "open", "link")
    changing = {*(f"os.{name}" for name in names), "FileLock"}
    changing |= {f"shutil.{name}" for name in ("rmtree", "move", "copy", "copyfile", "copytree")}
    methods = {"unlink", "mkdir", "rmdir", "rename", "touch", "write_text", "write_bytes", "symlink_to", "hardlink_to"}
    modes = {f"{way}{kind}" for way in "wxa" for kind in ("", "b", "t")} | {"r+", "r+b"}
    offenders = []
    for name, path in MODULES.items():
        for node in ast.walk(tree(path)) if name != "clsim.records.atomic" else ():
            if not isinstance(node, ast.Call):
                continue
            called, last = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
            given = {ast.unparse(of).strip("'") for of in (*node.args, *(k.value for k in node.keywords))}
            writes = last == "open" and given & modes
            if called in changing or last in methods or writes:
                offenders.append(f"{name}, line {node.lineno}: {called}")
    assert not offenders


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_repr_html_"  # notebooks call it


def test_tests_use_public_names() -> None:
    """No private name of ours is imported, read of another object, or patched."""
    offenders = []
    for path in sorted((PACKAGE.parent / "tests").rglob("*.py")):
        for node in ast.walk(tree(path)):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("clsim", "tests"):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                names = [node.attr]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".setattr"):
                owner, *rest = map(ast.unparse, node.args)
                names = [rest[0].strip("\"'")] if rest and owner != "datasets.SVHN" else []  # which is torchvision's
            offenders += [f"{path.name}, line {node.lineno}: {name}" for name in names if private(name)]
    assert not offenders


def test_every_package_is_in_the_wheel() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    assert {module(path) for path in FILES if path.name == "__init__.py"} <= listed

"""The command ``clsim new``."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from clsim.cli.console import out, words_of
from clsim.errors import InputError, nearest
from clsim.records.atomic import create, make_folder
from clsim.spec import registry

TEMPLATES = Path(__file__).parent / "templates"
"""A file for each kind, that works as it is; ``NAME`` stands for the name."""

TOKEN = re.compile(r"\bNAME\b")


@dataclass(frozen=True)
class Kind:
    """What can be written.

    Attributes:
        next: the commands that go on from there; ``NAME`` stands for the name.
        folder: the folder of the file, for kinds that are found by their names; empty: code, in the working directory.
    """

    next: tuple[str, ...]
    folder: str = ""


KINDS = {
    "selector": Kind(("clsim check ./NAME.py:NAME", "clsim run --buffer ./NAME.py:NAME --memory 50")),
    "acquisition": Kind(
        (
            "clsim check ./NAME.py:NAME --kind acquisitions",
            "clsim run --scenario active-digits --label ./NAME.py:NAME --strategy finetune",
        )
    ),
    "objective": Kind(
        (
            "clsim check ./NAME.py:NAME --kind objectives",
            "clsim run --memory 50 --set learner.options.objective=./NAME.py:NAME",
        )
    ),
    "learner": Kind(
        ("clsim check ./NAME.py:NAME --kind learners", "clsim run --memory 50 --set learner.name=./NAME.py:NAME")
    ),
    "model": Kind(("clsim run --memory 50 --set model.name=./NAME.py:NAME",)),
    "metric": Kind(
        (
            "clsim check ./NAME.py:NAME --kind metrics",
            "clsim run --memory 50 --metric ./NAME.py:NAME",
            "clsim report --metric ./NAME.py:NAME",
        )
    ),
    "pool": Kind(("clsim run --scenario active-digits --strategy finetune --label margin --pool ./NAME.py:NAME",)),
    "scenario": Kind(("clsim run --scenario NAME --dry-run", "clsim run --scenario NAME"), "scenarios"),
    "strategy": Kind(("clsim run --strategy NAME --dry-run", "clsim run --strategy NAME"), "strategies"),
    "study": Kind(("clsim study NAME --dry-run", "clsim study NAME"), "studies"),
    "report": Kind(("clsim report NAME",), "reports"),
}


def new(
    kind: Annotated[str, typer.Argument(help=f"What to write: {', '.join(KINDS)}.", autocompletion=words_of(KINDS))],
    name: Annotated[str, typer.Argument(help="Its name, and that of the file.")],
) -> None:
    """Write a working file to change: a selector, an objective, a scenario … of your own, and print what to do next."""
    if kind not in KINDS:
        raise InputError(f"new: unknown kind {kind!r}; {nearest(kind, KINDS)}")
    folder = KINDS[kind].folder
    _check_name(kind, name)
    path = Path(folder, f"{name}.toml") if folder else Path(f"{name}.py")
    template = (TEMPLATES / f"own_{kind}{path.suffix}").read_text(encoding="utf-8")
    make_folder(path.parent)
    try:
        create(path, TOKEN.sub(name, template).encode())
    except FileExistsError:
        raise InputError(f"new: ./{path} is there already; allowed: another name") from None
    out.print(f"written: ./{path}\nnext:", highlight=False, markup=False)
    for line in KINDS[kind].next:
        out.print(f"  {TOKEN.sub(name, line)}", highlight=False, markup=False)


def _check_name(kind: str, name: str) -> None:
    """Refuse a name that cannot be used, or that hides something else."""
    folder = KINDS[kind].folder
    if folder:
        fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is not None
        allowed, proposed = "letters, digits, - and _", re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")
        hides = name in registry.file_names(folder) and not Path(folder, f"{name}.toml").exists()
        what = f"a name that clsim itself has in `clsim list {folder}`"
    else:
        fits = name.isidentifier() and name.isascii() and not keyword.iskeyword(name)
        allowed, proposed = "a name as Python has it: letters, digits and _", re.sub(r"[^A-Za-z0-9_]+", "_", name)
        proposed = proposed.strip("_")
        proposed = f"{kind}_{proposed}" if not proposed.isidentifier() or keyword.iskeyword(proposed) else proposed
        hides = fits and not Path(f"{name}.py").exists() and importlib.util.find_spec(name) is not None
        what = f"the name of a module that is installed, which ./{name}.py would hide"
    if not fits:
        hint = f", as in {proposed}" if proposed else ""
        raise InputError(f"new: found the name {name!r}, allowed: {allowed}{hint}")
    if hides:
        raise InputError(f"new: found {name!r}, {what}; allowed: another name, as in my_{name}")

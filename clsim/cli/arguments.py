"""Options that ``clsim select`` and ``clsim condense`` share, and how what is typed is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clsim.errors import InputError
from clsim.spec.flags import parsed

_MACHINE = "Machine"

DataPath = Annotated[
    str,
    typer.Option("--data-path", "--path", help="Your own data: a folder (image-folder, hf) or an .npz file (npz)."),
]
NamedValues = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE: an option of the component; may be given several times."),
]
Force = Annotated[bool, typer.Option("--force", help="Start from the beginning and overwrite existing files.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MACHINE)]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="Threads that torch uses (default: torch decides).", rich_help_panel=_MACHINE
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder of the data sets (default: $CLSIM_DATA).", rich_help_panel=_MACHINE),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", help="fp32, bf16, or auto: bf16 where the device has it in hardware.", rich_help_panel=_MACHINE
    ),
]


def named_values(texts: list[str] | None, flag: str = "--option", example: str = "metric=cosine") -> dict[str, Any]:
    """Read ``NAME=VALUE`` texts into a dict; values are read as in TOML.

    >>> named_values(["metric=cosine", "k=3"])
    {'metric': 'cosine', 'k': 3}
    """
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{flag}: found {text!r}, allowed: NAME=VALUE, as in {example}")
        found[name.strip()] = parsed(value)
    return found


def check_place(flag: str, file: Path, force: bool) -> None:
    """Refuse, before the work starts, a file that could not be written."""
    if not file.parent.is_dir():
        raise InputError(f"{flag}: no folder {str(file.parent)!r}; allowed: a file in a folder that is there")
    if file.is_dir():
        raise InputError(f"{flag}: {str(file)!r} is a folder, allowed: a file")
    if file.exists() and not force:
        raise InputError(f"{flag}: {str(file)!r} is there already; allowed: another name, or --force to overwrite it")

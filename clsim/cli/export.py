"""The command ``clsim export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clsim.cli.arguments import DataPath, DataRoot
from clsim.cli.console import Runs, count, err, names_of, out
from clsim.errors import InputError


def export(
    what: Annotated[
        str,
        typer.Argument(
            help="A .csv file of `clsim select`, an .npz file of `clsim condense`, or a run: its name or a part of it, "
            "its id or the beginning, its folder."
        ),
    ],
    out_: Annotated[Path, typer.Option("--out", help="The folder to write, which datasets.load_from_disk reads.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="The data set that the picks were chosen from, a name of `clsim list datasets`.",
            autocompletion=names_of("datasets"),
        ),
    ] = "",
    path: DataPath = "",
    size: Annotated[
        int | None, typer.Option(min=1, help="Side in pixels that its pictures were scaled to, as for `clsim select`.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="The .npy file that the picks were chosen from, instead of a data set.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a data set that --out holds already.")] = False,
    data_root: DataRoot = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write picks, a condensed set or a run's memory as a data set of Hugging Face's `datasets`.

    The folder has the columns image (or vector) and label, and what else is
    known: index, the row in the training part of the data set; weight; task.
    Read it by datasets.load_from_disk, or by --set data.dataset=hf:./FOLDER.
    """
    from clsim.execution.export import export as write

    where: str | Path = what
    if not what.endswith((".csv", ".npz")):
        where = Path(what) if (Path(what) / "record.json").is_file() else _run(what, runs)
    written = write(
        where,
        out_,
        dataset=dataset,
        path=path,
        size=size,
        features=features,
        data_root=data_root,
        force=force,
    )
    parts = ", ".join(f"{name} {count(n, 'sample')}" for name, n in written.items())
    out.say(f"written: {out_} ({parts})")


def _run(text: str, runs: Path) -> Path:
    """Find the folder of the one run that a text names."""
    from clsim.records.overview import matching, overview
    from clsim.records.store import Store

    if not runs.is_dir():
        raise InputError(
            f"--runs: no folder {str(runs)!r}; allowed: a folder of runs, or a .csv or .npz file to export"
        )
    found = matching(overview(Store(runs)), text)
    if len(found) != 1:
        for one in found[:20]:
            err.say(f"{one.fingerprint} {one.name}")
        named = f"names {count(len(found))}" if found else "names no run"
        raise InputError(f"{text!r} {named}; allowed: one that `clsim runs` lists, by its id or its whole name")
    return found[0].folder

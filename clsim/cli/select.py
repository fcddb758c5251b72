"""The command ``clsim select``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clsim.cli.arguments import DataPath, DataRoot, Device, Force, NamedValues, Threads, check_place, named_values
from clsim.cli.console import err, names_of, out
from clsim.cli.watched import watched
from clsim.errors import DiskError, InputError
from clsim.reporting.screen import plain

if TYPE_CHECKING:
    from clsim.execution.select import Picks

_ANNOTATOR, _PROXY, _PARTS = "Labels from a person", "Features of a data set", "Features that outgrow the memory"

LISTED = 20
"""Most classes that are listed one by one; of more classes, only the extremes are."""


def select(
    selector: Annotated[
        str,
        typer.Option(
            help="A name of `clsim list selectors`, or ./file.py:attr (default: kcenter; with --labelled: badge).",
            autocompletion=names_of("selectors"),
        ),
    ] = "",
    dataset: Annotated[
        str, typer.Option(help="A name of `clsim list datasets`.", autocompletion=names_of("datasets"))
    ] = "",
    path: DataPath = "",
    features: Annotated[
        Path | None,
        typer.Option(
            help="A .npy file of n × d floats, instead of a data set; with --labelled also an .npz file of x and, with "
            "a name for each row, files."
        ),
    ] = None,
    logits: Annotated[
        Path | None, typer.Option(help="A .npy file of n × classes logits, instead of features: for entropy, margin, …")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A .npy file of n whole numbers, the labels of the features; −1: no label.")
    ] = None,
    fraction: Annotated[float | None, typer.Option(help="Share of the samples to choose, as in 0.01.")] = None,
    budget: Annotated[int | None, typer.Option(help="Number of samples to choose.")] = None,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV file (file,label) of what a person has labelled; may be given several times. Answers are added "
            "to the first, which need not be there yet.",
            rich_help_panel=_ANNOTATOR,
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Choose from each class separately, with equal quotas.")
    ] = False,
    option: NamedValues = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws; the same seed gives the same picks.")] = 0,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="CSV file to write: index, best first, and weight (default: picks.csv); with --labelled: file and an "
            "empty label (default: ask.csv); - prints it.",
        ),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw the picked samples into this PNG file.")] = None,
    force: Force = False,
    model: Annotated[
        str,
        typer.Option(
            help="Model of the proxy net (default: slim-resnet18, mlp or linear; with --labelled: pooled-convnet3).",
            rich_help_panel=_PROXY,
        ),
    ] = "",
    backbone: Annotated[
        str,
        typer.Option(
            help="A frozen net that makes the features: timm:NAME, torchvision:NAME or open-clip:NAME.",
            rich_help_panel=_PROXY,
        ),
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="Its weights, a .safetensors file (default: those of its library, downloaded).", rich_help_panel=_PROXY
        ),
    ] = "",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training epochs of the proxy net (default: 10; with --labelled at least 200 gradient steps).",
            rich_help_panel=_PROXY,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side in pixels that pictures are scaled to (default: 32 for image-folder, else their own).",
            rich_help_panel=_PROXY,
        ),
    ] = None,
    data_root: DataRoot = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Choose from that many parts of the rows, then among what they chose; --features may be a folder of "
            ".npy or .parquet files (default with --engine: parts of about 64 MiB).",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Where parts are chosen from: here (default), local (processes of this machine) or ray.",
            rich_help_panel=_PARTS,
        ),
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Parts at a time (default: what cores allow).", rich_help_panel=_PARTS),
    ] = None,
    address: Annotated[
        str, typer.Option(help="Address of a Ray cluster (default: one on this machine).", rich_help_panel=_PARTS)
    ] = "",
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Choose a few samples out of a data set, or of features made elsewhere; write their indices.

    With --labelled, it asks a person which samples to label next. Fill in the
    column label of ask.csv, beside which ask.html shows the pictures, and run
    the same command again: it adds the answers to the first --labelled file,
    trains on all labels, and asks the next question in ask.csv.

    An empty label among answers is a skip. It becomes a row with an empty
    label in the --labelled file, and is not asked again until that row has a
    label or is deleted. Where no row is filled in, the question stands.
    A label never seen before is a new class. To correct an answer, edit the
    --labelled file. A name that a spreadsheet would take for a formula is
    written behind an apostrophe.

    Pictures in the folder itself have no class; those in a folder in it have
    its name as their class. Before two classes have labels nothing can be
    trained: pictures are then drawn at random, and features chosen by the
    selector if it needs features alone, else by typiclust. A file that has
    changed or is missing is refused; --force remembers the files as they are.

    With --parts or --engine, kcenter, facility-location, random, entropy,
    margin and least-confidence choose from features that need not fit into
    memory. What the parts chose is kept beside --out, in a folder that ends in
    .parts, until the picks are written: the same command goes on after a kill,
    and with --force begins anew.
    """
    if not dataset and features is None and logits is None:
        raise InputError("select: found neither --dataset nor --features, allowed: one of them")
    if labelled:
        from clsim.cli.annotate import Annotator

        refused: dict[str, object] = {
            "--fraction": fraction,
            "--labels": labels,
            "--picture": picture,
            "--per-class": per_class or None,
        }
        refused |= {"--logits": logits, "--parts": parts, "--engine": engine or None, "--workers": workers}
        refused |= {"--address": address or None, "--backbone": backbone or None, "--weights": weights or None}
        for flag, value in refused.items():
            if value is not None:
                raise InputError(f"{flag}: found with --labelled, allowed: --budget, and no {flag}")
        if budget is None:
            raise InputError("--budget: found none with --labelled, allowed: the number of samples to ask for")
        if features is None and dataset not in ("folder", "image-folder"):
            raise InputError(f"--dataset: found {dataset!r} with --labelled, allowed: image-folder, or --features")
        Annotator(labelled, out_ or Path("ask.csv"), force).ask(
            budget,
            path=path,
            features=features,
            selector=selector or "badge",
            options=named_values(option),
            model=model,
            size=size or 32,
            epochs=epochs,
            seed=seed,
            device=device,
            threads=threads,
            data_root=data_root,
        )
        return
    selector, out_ = selector or "kcenter", out_ or Path("picks.csv")
    for flag, file in (("--out", out_), ("--picture", picture)):
        if file is not None and str(file) != "-":
            check_place(flag, file, force)
    options = named_values(option)
    from clsim.execution import select as execution
    from clsim.pool.pool import Cost
    from clsim.records.atomic import remove, remove_folder, write

    cost, state, said = Cost(), None, list[str]()
    if (parts is not None or engine) and str(out_) != "-":
        state = out_.with_name(f"{out_.name}.parts")
        # from the beginning, and never a folder of the user's own; a link is refused later
        if force and (state / "plan.json").exists() and not state.is_symlink():
            remove_folder(state)

    def progress(done: int, of: int) -> None:
        said[:] = [f"{done:,} of {of:,} parts"]

    with watched(cost, err, lambda: "".join(said)):
        found = execution.select(
            selector,
            dataset=dataset,
            path=path,
            features=features,
            logits=logits,
            labels=labels,
            fraction=fraction,
            budget=budget,
            per_class=per_class,
            options=options,
            model=model,
            backbone=backbone,
            weights=weights,
            epochs=epochs,
            size=size,
            seed=seed,
            device=device,
            threads=threads,
            data_root=data_root,
            parts=parts,
            engine=engine,
            workers=workers,
            address=address,
            state=state,
            progress=progress,
            cost=cost,
            say=err.say,
        )
    csv = found.frame.to_csv(index=False, lineterminator="\n")
    name = f"per_class({selector})" if per_class else selector
    title = f"{len(found.index):,} of {found.source} by {name}"

    def unless_refused(save: Callable[[], object]) -> None:
        """Save a file; where the disk refuses it, the same command shall not find a part of what it wrote."""
        try:
            save()
        except DiskError:
            for file in () if force else (out_, picture):  # neither was there before
                if file is not None and str(file) != "-":
                    remove(file)
            raise

    if str(out_) == "-":
        sys.stdout.write(csv)
    else:
        unless_refused(lambda: write(out_, csv.encode()))
    _summary(found, title, seed, err if str(out_) == "-" else out)
    written = [str(file) for file in (out_, picture) if file is not None and str(file) != "-"]
    if picture is not None:
        from clsim.reporting.picture import draw

        unless_refused(lambda: draw(found, title, picture))
    if state is not None:
        remove_folder(state)
    if written:
        (err if str(out_) == "-" else out).say(f"written: {', '.join(written)}")


def _summary(found: Picks, title: str, seed: int, console: Console) -> None:
    console.print(plain(title, "bold"))
    if found.classes:
        console.print(_classes(found))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("picked", justify="right")
    table.add_column("at random", justify="right")
    table.add_row("unlike every other pick", f"{found.unique:.1%}", "")
    if found.scorer:
        measured = zip(found.coverage(), found.coverage_at_random(seed), strict=True)
        for label, (mine, theirs) in zip(("coverage radius", "mean distance to a pick"), measured, strict=True):
            table.add_row(label, f"{mine:.4g}", f"{theirs:.4g}")
    console.print(table)
    if found.certificate:
        console.print(plain(found.certificate))
    steps = f", {found.pool.cost.proxy_steps:,} steps of a proxy among them" if found.pool.cost.proxy_steps else ""
    console.print(plain(f"{found.seconds:.1f} s{steps}{f'; {found.scorer}' if found.scorer else ''}", "dim"))


def _classes(found: Picks) -> Text:
    """The number of picks of each class; of many classes, only the extremes."""
    counts = {name: picked for name, (picked, _) in found.counts.items()}
    if len(counts) <= LISTED:
        return Text(" · ".join(f"{name} {picked}" for name, picked in counts.items()))
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    missing = sum(not picked for picked in counts.values())
    none = f" · none of {missing}" if missing else ""
    return Text(f"{len(counts)} classes · most: {most} {counts[most]} · least: {least} {counts[least]}{none}")

"""The command ``clsim condense``."""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from clsim.cli.arguments import (
    DataPath,
    DataRoot,
    Device,
    Force,
    NamedValues,
    Precision,
    Threads,
    check_place,
    named_values,
)
from clsim.cli.console import err, names_of, out
from clsim.errors import DiskError, InputError, duration
from clsim.records.atomic import remove, write
from clsim.reporting.bar import bar
from clsim.version import __version__

if TYPE_CHECKING:
    from clsim.execution.condensed import Condensed
    from clsim.pool.exemplars import Exemplars

_EVALUATION = "Evaluation"


def condense(
    dataset: Annotated[
        str,
        typer.Option(help="A name of `clsim list datasets`, or an .npz file.", autocompletion=names_of("datasets")),
    ] = "cifar10",
    method: Annotated[
        str,
        typer.Option(
            help="A name of `clsim list condensers`, ./file.py:attr, or a selector as a baseline.",
            autocompletion=names_of("condensers", "selectors"),
        ),
    ] = "dm",
    ipc: Annotated[int, typer.Option(min=1, help="Images per class.")] = 10,
    out_: Annotated[
        Path,
        typer.Option("--out", help="The .npz file to write; `clsim run` reads it as a data set or as memory.start."),
    ] = Path("condensed.npz"),
    path: DataPath = "",
    per_class: Annotated[
        int, typer.Option(min=0, help="Use only the first N training images of each class (default 0: all).")
    ] = 0,
    classes: Annotated[
        str, typer.Option(help="Use only these classes: names or numbers, separated by commas, as in 0,2,4.")
    ] = "",
    size: Annotated[int, typer.Option(min=0, help="Scale images to N pixels a side (default 0: keep their size).")] = 0,
    option: NamedValues = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws; the same seed gives the same set.")] = 0,
    sets: Annotated[int, typer.Option(min=1, help="Number of sets, from consecutive seeds: out.npz, out-1.npz …")] = 1,
    every: Annotated[
        float, typer.Option(min=0, help="Seconds between two saves of the state and of the picture.")
    ] = 30.0,
    picture: Annotated[bool, typer.Option(help="Write a picture of all images beside the set, as PNG.")] = True,
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="Append a row for each set, with its command, to this CSV file.")
    ] = None,
    force: Force = False,
    model: Annotated[
        str, typer.Option(help="Model of all nets (default: convnet3; mlp for vectors).", rich_help_panel=_EVALUATION)
    ] = "",
    model_option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE: an option of the model, as in width=64; may be repeated.", rich_help_panel=_EVALUATION
        ),
    ] = None,
    nets: Annotated[
        int, typer.Option(min=0, help="Number of nets trained and tested on each set.", rich_help_panel=_EVALUATION)
    ] = 2,
    epochs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Training epochs per net (default 0: the papers' 1000, or 300 with --no-augment, which take long on a "
            "CPU; fewer make a condensed set look worse).",
            rich_help_panel=_EVALUATION,
        ),
    ] = 0,
    augment: Annotated[
        bool,
        typer.Option(help="Train the nets with the operations of siamese augmentation.", rich_help_panel=_EVALUATION),
    ] = True,
    proxy_epochs: Annotated[
        int,
        typer.Option(
            min=1, help="Training epochs of the net that makes a selector's features.", rich_help_panel=_EVALUATION
        ),
    ] = 10,
    precision: Precision = "fp32",
    device: Device = "auto",
    threads: Threads = None,
    data_root: DataRoot = None,
) -> None:
    """Condense a data set into a few images per class and train nets on them; a stopped command can be resumed."""
    if out_.suffix != ".npz":
        raise InputError(f"--out: found {str(out_)!r}, allowed: a name that ends in .npz")
    files = [out_ if not i else out_.with_name(f"{out_.stem}-{i}.npz") for i in range(sets)]
    for file in files:
        check_place("--out", file, force)
    if csv_ is not None and not csv_.parent.is_dir():
        raise InputError(f"--csv: no folder {str(csv_.parent)!r}; allowed: a file in a folder that is there")
    options, model_options = named_values(option), named_values(model_option, "--model-option", "width=64")
    named = classes.split(",") if classes.strip() else []
    from clsim.execution.condense import condense as make

    usual = {name: p.default for name, p in inspect.signature(make).parameters.items()} | {"classes": ""}
    found: list[Condensed] = []
    for i, file in enumerate(files):
        state = file.with_name(f"{file.name}.state")
        if force:
            remove(state)
        title = f"{method} · {dataset} · {ipc} a class · seed {seed + i}"
        with Easel(title, file.with_suffix(".png") if picture else None, err) as easel:
            made = make(
                dataset,
                method,
                ipc=ipc,
                path=path,
                per_class=per_class,
                classes=named,
                size=size,
                options=options,
                model=model,
                model_options=model_options,
                nets=nets,
                epochs=epochs,
                augment=augment,
                proxy_epochs=proxy_epochs,
                seed=seed + i,
                precision=precision,
                device=device,
                threads=threads,
                data_root=data_root,
                state=state,
                every=every,
                watch=easel,
            )
        said = {"dataset": dataset, "method": method, "ipc": ipc, "per_class": per_class, "nets": nets}
        said |= {"epochs": epochs, "precision": precision, "model": model, "proxy_epochs": proxy_epochs}
        said |= {"path": path, "classes": classes, "size": size, "seed": seed + i}
        said = {name: value for name, value in said.items() if name in ALWAYS or value != usual[name]}
        plain = [*([] if augment else ["--no-augment"]), *_repeated("--model-option", model_option)]
        row = _row(made, said, [*_repeated("--option", option), *plain])
        try:
            made.write(file)
            if csv_ is not None:
                _add(csv_, row)
        except DiskError:
            if not force and not _is_last(csv_, row):  # or the same command would refuse to write over the set
                with contextlib.suppress(DiskError):
                    remove(file)
            raise
        found.append(made)
        _say(made, title, file)
        try:
            remove(state)
        except DiskError as error:
            err.print(f"clsim: {error}", markup=False, highlight=False)
    _conclude(found)


class Easel:
    """Show the progress, as a bar on a terminal or else as lines, and write the picture. Final.

    A :class:`clsim.execution.keeper.CondenseWatch`, and a context manager.
    """

    def __init__(self, title: str, file: Path | None, console: Console) -> None:
        self._title, self._file, self._console = title, file, console
        self._bar = bar(console, "note")
        self._task = self._bar.add_task(title, total=None, note="")
        self._began = time.monotonic()
        self._first: int | None = None  # iterations done by an earlier command
        self._shown = float("-inf")

    def __enter__(self) -> Easel:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """Show the progress four times a second on a terminal, every ten seconds elsewhere."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done - 1, now
        if now - self._shown < (0.25 if self._console.is_terminal else 10) and done < total:
            return
        self._shown = now
        note = f"iteration {done:,}/{total:,} · loss {loss():.4g}"
        self._bar.update(self._task, completed=done, total=total, note=note)
        if not self._console.is_terminal:
            speed = (done - self._first - 1) / (now - self._began) if now > self._began else 0
            left = f" · about {duration((total - done) / speed)} left" if speed and done < total else ""
            self._console.print(f"{self._title} · {note}{left}", markup=False, highlight=False, soft_wrap=True)

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """Write the picture of all images; vectors have none."""
        if self._file is None or exemplars.x.ndim != 4:
            return
        from clsim.reporting.picture import save, sheet

        x, y = exemplars.x.cpu().numpy(), exemplars.y.cpu().numpy()
        save(sheet(x, y, classes, self._title, "as stored"), self._file)

    def net(self, done: int, total: int, accuracy: float) -> None:
        """Show the accuracy of a net that has been tested."""
        self._bar.update(self._task, completed=done, total=total, note=f"net {done}/{total} · {100 * accuracy:.1f} %")


def _say(made: Condensed, title: str, file: Path) -> None:
    n, size = len(made.exemplars), made.exemplars.nbytes
    out.say(f"{title}: {n:,} images, {size:,} bytes → {file}")
    if made.losses is not None:
        loss, stored = made.losses
        out.print(f"loss {loss:.5g}; as stored, rounded to whole grey levels, {stored:.5g}", highlight=False)
    if made.accuracies:
        each = ", ".join(f"{100 * a:.1f}" for a in made.accuracies)
        out.print(f"accuracy of nets trained on it, %: {each}", highlight=False)
    making, testing = map(duration, made.seconds)
    out.print(f"[dim]{making} of making, {testing} of training and testing nets", highlight=False)


ROW = ("dataset", "method", "ipc", "seed", "accuracy", "deviation", "nets", "loss", "loss_stored", "bytes", "seconds")
"""Columns of a row, before version and command. The accuracy is the mean over the nets, with their deviation."""


ALWAYS = ("dataset", "method", "ipc", "nets", "seed")
"""Options that the command in a row names even where they have their default."""


def _repeated(flag: str, texts: Sequence[str] | None) -> list[str]:
    return [word for text in texts or [] for word in (flag, text)]


def _row(made: Condensed, said: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    """The row of a set: what was asked for, what came of it, and the command that makes it.

    Args:
        said: options of the command and their values.
        others: further words of the command.
    """
    words = ["clsim", "condense"]
    for name, value in said.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += others
    each = made.accuracies
    loss, stored = made.losses or (None, None)
    found = {
        **said,
        "accuracy": statistics.mean(each) if each else None,
        "deviation": statistics.stdev(each) if len(each) > 1 else None,
        "loss": loss,
        "loss_stored": stored,
        "bytes": made.exemplars.nbytes,
        "seconds": made.seconds[0],
    }
    texts = [
        f"{found[n]:.6g}" if isinstance(found[n], float) else str("" if found[n] is None else found[n]) for n in ROW
    ]
    return [*texts, __version__, shlex.join(words)]


def _add(file: Path, row: Sequence[str]) -> None:
    """Append a row to a CSV file; a new file begins with the names of the columns."""
    before = file.read_text(encoding="utf-8") if file.exists() else _line([*ROW, "version", "command"])
    write(file, (before + _line(row)).encode())


def _is_last(file: Path | None, row: Sequence[str]) -> bool:
    """Whether a row is the last of a CSV file, though the disk refused something after it was written."""
    return file is not None and file.exists() and file.read_text(encoding="utf-8").endswith(f"\n{_line(row)}")


def _line(row: Sequence[str]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerow(row)
    return lines.getvalue()


def _conclude(found: list[Condensed]) -> None:
    """Print mean and standard deviation of the accuracy over all sets and nets, as papers do."""
    accuracies = [100 * a for made in found for a in made.accuracies]
    if len(accuracies) > 1:
        nets = len(found[0].accuracies)
        deviation = statistics.stdev(accuracies)
        what = f"{len(found)} set{'s' * (len(found) > 1)} × {nets} net{'s' * (nets > 1)}"
        out.print(f"accuracy {statistics.mean(accuracies):.1f} ± {deviation:.1f} % ({what})", highlight=False)

"""The console script: finds the commands, and turns what goes wrong into one clear line."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import itertools
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clsim.cli.console import err, out
from clsim.errors import DiskWarning, InputError
from clsim.version import __version__

COMMANDS = {
    "run": "run:run",
    "study": "study:study",
    "tune": "tune:tune",
    "select": "select:select",
    "condense": "condense:condense",
    "export": "export:export",
    "report": "report:report",
    "reproduce": "reproduce:reproduce",
    "runs": "runs:app",
    "list": "list:list_",
    "show": "show:show",
    "new": "new:new",
    "check": "check:check",
    "doctor": "doctor:doctor",
}
"""Name → the module of :mod:`clsim.cli`, and the function in it."""


class Commands(TyperGroup):
    """Import a command only when it is called, so that it does not wait for the imports of others. Final."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name; None if there is none."""
        if cmd_name not in COMMANDS:
            for name in COMMANDS:  # the message names the nearest of them
                self.add_command(self.get_command(ctx, name), name)
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        found = vars(importlib.import_module(f"clsim.cli.{module}"))[function]
        if isinstance(found, typer.Typer):  # a command with commands of its own
            return typer.main.get_command(found)
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(found)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wished: bool) -> None:
    if wished:
        out.print(f"clsim {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def clsim(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A wind tunnel for continual learners. `python -m clsim` is the same command."""


@contextlib.contextmanager
def _disk_warnings_in_a_line() -> Iterator[None]:
    """Print what a run does without as a line, without its place in the code."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **further: Any) -> None:
            if issubclass(category, DiskWarning):
                err.print(f"clsim: {message}", markup=False, highlight=False)
            else:
                others(message, category, *place, **further)

        warnings.showwarning = show
        yield


def spelled_out(typed: Sequence[str]) -> list[str]:
    """Return what was typed, with the value that ``--together`` stands for where it has none.

    >>> spelled_out(["run", "--together", "--seeds", "5"]), spelled_out(["run", "--together", "auto"])
    (['run', '--together=yes', '--seeds', '5'], ['run', '--together', 'auto'])
    """
    return [
        "--together=yes" if word == "--together" and after.startswith("-") else word
        for word, after in itertools.pairwise([*typed, "-"])
    ]


def main() -> None:
    """The console script: one clear line and exit code 2 for a user's mistake, 130 for Ctrl-C."""
    atexit.register(gc.freeze)  # else Python looks for garbage among all of torch's objects before it ends
    # typer brings a click of its own or takes the installed one; in both, BadParameter < UsageError < ClickException
    click_exception: Any = typer.BadParameter.__mro__[2]
    try:
        with _disk_warnings_in_a_line():
            typed = spelled_out(sys.argv[1:])
            code = app(typed, standalone_mode=False, prog_name="clsim")  # also for `python -m clsim`
    except click_exception as error:
        said = io.StringIO()
        error.show(said)
        for line in said.getvalue().splitlines():
            err.say(line)
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except InputError as error:
        err.say(f"clsim: {error}")
        code = 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        err.say(f"clsim: {place}{error.strerror or error}")
        code = 2
    if code == 130:  # some versions of typer return it instead of raising
        err.print("clsim: stopped; the same command goes on after the last finished experience")
    sys.exit(code)

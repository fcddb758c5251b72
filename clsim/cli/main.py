"""The console script: finds the commands, and turns what goes wrong into one clear line."""

from __future__ import annotations

import sys
from typing import Any

import typer

from clsim.cli.condense import condense
from clsim.cli.console import err
from clsim.cli.doctor import doctor
from clsim.cli.inspect import check, list_, show
from clsim.cli.report import report
from clsim.cli.run import run
from clsim.cli.select import select
from clsim.cli.study import study
from clsim.errors import InputError

app = typer.Typer(
    help="A wind tunnel for continual learners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, study, select, condense, report, list_, show, check, doctor):
    app.command(command.__name__.strip("_"))(command)


def main() -> None:
    """The console script: one clear line and exit code 2 for a user's mistake, 130 for Ctrl-C."""
    # typer brings a click of its own or takes the installed one; in both, BadParameter < UsageError < ClickException
    click_exception: Any = typer.BadParameter.__mro__[2]
    try:
        code = app(standalone_mode=False)
    except click_exception as error:
        error.show()
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except InputError as error:
        err.print(f"clsim: {error}", markup=False, highlight=False)
        code = 2
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        err.print(f"clsim: {place}{error.strerror or error}", markup=False, highlight=False)
        code = 2
    if code == 130:  # some versions of typer return it instead of raising
        err.print("clsim: stopped; the same command goes on after the last finished experience")
    sys.exit(code)

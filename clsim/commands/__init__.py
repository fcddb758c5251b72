"""The commands of ``clsim``, a file each: they parse and print, and never compute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

out = Console(soft_wrap=True, emoji=False)  # a path such as mine.py:pick: holds no emoji
err = Console(stderr=True, soft_wrap=True, emoji=False)

Runs = Annotated[Path, typer.Option("--runs", help="Folder of all runs.", rich_help_panel="Where")]

"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest

from clsim.cli import main


def clsim(*words: str) -> int:
    """Run the command; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["clsim", *words])
        with pytest.raises(SystemExit) as caught:
            main.main()
    return int(caught.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line on stderr of a command that is refused."""
    capsys.readouterr()
    assert clsim(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clsim: ")
    assert printed.err.count("\n") == 1
    return printed.err

"""Whole commands, timed in turns: each runs for a while, is stopped, and goes on when the others have had their turn.

A machine whose speed changes from minute to minute is as fast for one command as for another that way. The seconds are
those of a command's own turns. Each command is a process group of its own, which gets SIGSTOP and SIGCONT; what it
prints is written to a file.

    python -m benchmarks.turns FOLDER 'clsim run …' 'other/bin/clsim run …' [--seconds 15]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from pathlib import Path


class Turns:
    """One command, which works in its turns alone."""

    def __init__(self, command: str, output: Path) -> None:
        self.seconds, self.status, self._command = 0.0, None, command
        self._output = output.open("w")
        self._process: subprocess.Popen[str] | None = None

    def take(self, seconds: float) -> bool:
        """Let the command work; tell whether it goes on after this turn."""
        started = time.perf_counter()
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, shell=True, text=True, start_new_session=True, stdout=self._output, stderr=self._output
            )
        else:
            os.killpg(self._process.pid, signal.SIGCONT)
        try:
            self.status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        return self.status is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for what the commands print")
    parser.add_argument("command", nargs="+")
    parser.add_argument("--seconds", type=float, default=15, help="length of a turn")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    commands = [Turns(one, given.folder / f"{i}.txt") for i, one in enumerate(given.command)]
    going = list(commands)
    while going:
        going = [one for one in going if one.take(given.seconds)]
    for i, (one, command) in enumerate(zip(commands, given.command, strict=True)):
        ratio = one.seconds / commands[0].seconds
        print(f"{i}: {one.seconds:7.1f} s, {ratio:.2f} × of the first, exit code {one.status}: {command}")


if __name__ == "__main__":
    main()

"""Whole commands, timed in turns: each works for a while, is stopped, and goes on after the others' turns.

A machine whose speed changes from minute to minute is as fast for one command as for another that way. The seconds are
those of a command's own turns. Each command is a process group of its own, which gets SIGSTOP and SIGCONT. Times that a
command takes itself hold the turns of the others, too.

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
    """One command, which works in its turns alone; what it prints goes into a file."""

    def __init__(self, command: str, output: Path) -> None:
        self.seconds = 0.0
        self.status: int | None = None
        self._command, self._output = command, output
        self._process: subprocess.Popen[bytes] | None = None

    def take(self, seconds: float) -> bool:
        """Let the command work; tell whether it goes on after this turn."""
        started = time.perf_counter()
        if self._process is None:
            with self._output.open("wb") as file:
                self._process = subprocess.Popen(
                    self._command, shell=True, start_new_session=True, stdout=file, stderr=file
                )
        else:
            os.killpg(self._process.pid, signal.SIGCONT)
        try:
            self.status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGSTOP)
        self.seconds += time.perf_counter() - started
        return self.status is None

    def stop(self) -> None:
        """End the command, if it has begun and not ended: nobody would wake it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for what the commands print")
    parser.add_argument("command", nargs="+")
    parser.add_argument("--seconds", type=float, default=15, help="length of a turn")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    commands = [Turns(one, given.folder / f"{i}.txt") for i, one in enumerate(given.command)]
    going = list(commands)
    try:
        while going:
            going = [one for one in going if one.take(given.seconds)]
    finally:
        for one in commands:
            one.stop()
    for i, (one, command) in enumerate(zip(commands, given.command, strict=True)):
        ratio = one.seconds / commands[0].seconds
        print(f"{i}: {one.seconds:7.1f} s, {ratio:.2f} × of the first, exit code {one.status}: {command}")


if __name__ == "__main__":
    main()

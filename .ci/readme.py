"""Run the blocks of pages that are marked <!-- run -->: readme.py PAGE [PAGE …] FOLDER.

The ```sh and ```python blocks of a page run in order, in a folder of that page's own in FOLDER; as many pages run at a
time as there are cores. A page of the docs has no other block in these languages, unless a reason is given above it, as
in <!-- not run: needs a cluster -->.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

# not within another fence: a fence begins at the start of a line, and is closed before the next one begins
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<fence>```+)(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=fence)$", re.M | re.S
)
LANGUAGES = ("sh", "python", "bash", "shell", "console", "py")
"""What could be run; the first two are."""


class Block(NamedTuple):
    """A block of code, and what the comment above it says."""

    language: str
    code: str
    mark: str

    @property
    def runs(self) -> bool:
        """Whether it is to be run."""
        return self.mark == "run"

    @property
    def left_out(self) -> bool:
        """Whether it is said why it is not run."""
        return re.fullmatch(r"not run: \S.*", self.mark) is not None


def blocks(page: Path) -> list[Block]:
    """List the blocks of a page that could be run."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    every = [Block(match["language"].strip(), match["code"], match["mark"] or "") for match in found]
    return [block for block in every if block.language in LANGUAGES or block.mark == "run"]


def run(page: Path, folder: Path) -> tuple[int, str]:
    """Run a page in a new folder; return the exit code, and all that is to be said."""
    folder.mkdir(parents=True)
    begun, said, marked = time.monotonic(), [], [block for block in blocks(page) if block.runs]
    for block in marked:
        if block.language not in LANGUAGES[:2]:
            return 1, f"{page}: a block in {block.language!r} is marked to run, allowed: sh, python"
        command = ["bash", "-euc", block.code] if block.language == "sh" else [sys.executable, "-c", block.code]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said.append(f"$ {block.code}\n{done.stdout}")
        if done.returncode:
            return done.returncode, "\n".join([*said, f"{page}: this block failed"])
    return 0, "\n".join([*said, f"{page}: {len(marked)} blocks ran in {time.monotonic() - begun:.0f} s"])


def main(pages: Sequence[Path], folder: Path) -> int:
    """Run several pages, each in its own folder; return the exit code."""
    for page in pages:
        if not any(block.runs for block in blocks(page)):
            sys.exit(f"{page}: no block marked <!-- run -->")
    begun, code = time.monotonic(), 0
    with ThreadPoolExecutor(os.cpu_count()) as several:
        for failed, said in several.map(lambda page: run(page, folder / page.stem), pages):
            print(f"\n{said}", flush=True)
            code = code or failed
    print(f"\n{len(pages)} pages in {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    *pages, folder = map(Path, sys.argv[1:])
    sys.exit(main(pages, folder))

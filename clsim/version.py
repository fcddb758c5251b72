"""The version of the package, and the state of its code."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

__version__ = "0.1.0"


@functools.cache
def code_state() -> str:
    """Name the code of this process: the git commit of clsim's checkout, with ``-dirty`` if its files were changed.

    Without a checkout, as after the installation of a wheel, or without git, it is the version. Git is called once per
    process, and never where there is no ``.git`` beside the package.
    """
    package = Path(__file__).parent
    if not (package.parent / ".git").exists():
        return __version__
    words = ["git", "-C", str(package), "status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--", "."]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # git's hooks set some
    try:
        found = subprocess.run(
            words, env=own | {"GIT_OPTIONAL_LOCKS": "0"}, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    lines = found.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    changed = any(not line.startswith("#") for line in lines)
    return commit[:12] + "-dirty" * changed if commit and commit != "(initial)" else __version__

"""The built pages: no warning, every internal link holds, no word on the console, none wider than its window."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import links, look

ROOT = Path(look.__file__).parents[1]
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "sphinx_design", "sphinx_gallery")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a copy, so that the checkout stays as it is; the tutorial's code is not run."""
    for name in NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed (pip install 'clsim[docs]')")
    copy = tmp_path_factory.mktemp("copy")
    without = shutil.ignore_patterns("_build", "reference", "tutorials", "__pycache__")
    for name in ("docs", "clsim"):
        shutil.copytree(ROOT / name, copy / name, ignore=without)
    for name in ("reports", "scenarios", "strategies", "studies"):
        (copy / name).symlink_to(ROOT / name)
    words = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-n", "-q", "-D", "plot_gallery=0"]
    done = subprocess.run(
        [*words, "docs", "html"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return copy / "html"


def test_every_internal_link_holds_and_nothing_is_loaded_from_elsewhere(built: Path) -> None:
    assert links.problems(built) == []


def test_pages_in_a_browser(built: Path) -> None:
    said = []
    try:
        with look.browser() as opened:
            for page, width, scheme in itertools.product(look.PAGES, look.WIDTHS, look.SCHEMES):
                said += look.look(opened, built, page, width, scheme)
            (built / "wrong.html").write_text(
                "<script>console.error('no')</script><div style='width: 900px'>wide</div>", encoding="utf-8"
            )
            wrong = look.look(opened, built, "wrong", 400, "light")
    except look.NoBrowser as missing:
        pytest.skip(str(missing))
    assert said == []
    assert ["console" in wrong[0], "900" in wrong[1] or "908" in wrong[1]] == [True, True]  # it would be seen

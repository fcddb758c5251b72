"""A change of a user's code makes another run, wherever the code is; a user's file may import its neighbours."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.own_code import open_ends, user_files
from clsim.spec.resolve import resolve

PICK = "def pick(pool, budget, *, rng):\n    return {}\n"


def fingerprint(buffer: str, **options: Any) -> str:
    tables = {"memory": {"buffer": buffer}} | options
    return resolve("split-digits", "er", flags=tables).fingerprint


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes files into an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def written(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    return written


def called(name: str) -> Any:
    """What a selector returns that asks nothing of its pool."""
    return registry.component("selectors", name)(None, 1, rng=None)


@pytest.mark.parametrize("buffer", ["./mine.py:pick", "mine:pick", "per_class(mine:pick)", "condensed(./mine.py:pick)"])
def test_a_changed_module_helper_or_global_makes_another_run(buffer: str, write: Callable[..., None]) -> None:
    write(mine="import first\nSIZE = 1\n" + PICK.format("first.order(pool, SIZE)"))
    write(first="from folder import second\n", folder__second="FACTOR = 1\n", unrelated="")
    seen = [fingerprint(buffer)]
    for change in (
        {"mine": "import first\nSIZE = 2\n" + PICK.format("first.order(pool, SIZE)")},
        {"first": "from folder import second\nTURNED = True\n"},
        {"folder__second": "FACTOR = 2\n"},
    ):
        write(**change)
        seen.append(fingerprint(buffer))
    assert len(set(seen)) == 4
    write(unrelated="X = 1\n")
    assert fingerprint(buffer) == seen[-1]


def test_a_learner_an_objective_and_a_condensers_net_count_too(write: Callable[..., None]) -> None:
    write(mine="import helper\n", helper="A = 1\n")
    cases: list[dict[str, Any]] = [
        {"learner": {"name": "mine:learner"}},
        {"learner": {"options": {"objective": "mine:loss"}}},
        {"model": {"name": "./mine.py:net"}},
        {"memory": {"buffer": "dm", "options": {"model": "./mine.py:net"}}},
        {"memory": {"buffer": "random", "retrieval": "mine:pick"}},
    ]
    before = [resolve("split-digits", "er", flags=tables).fingerprint for tables in cases]
    write(helper="A = 2\n")
    after = [resolve("split-digits", "er", flags=tables).fingerprint for tables in cases]
    assert all(b != a for b, a in zip(before, after, strict=True))


def test_a_file_without_neighbours_has_the_digest_of_its_content(write: Callable[..., None]) -> None:
    text = "import math\nimport torch\nfrom clsim import Selection\n" + PICK.format("None")
    write(mine=text)
    (source,) = resolve("split-digits", "er", flags={"memory": {"buffer": "./mine.py:pick"}}).sources
    assert source == ("./mine.py:pick", hashlib.sha256(text.encode()).hexdigest()[:16])


def test_an_entry_point_counts_by_its_module_and_its_release(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[clsim.selectors]\nlab-pick = lab_followed:pick\n")
    seen = []
    for release, text in (("1.0", "A = 1\n"), ("1.0", "A = 2\n"), ("1.1", "A = 2\n")):
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lab\nVersion: {release}\n")
        write(lab_followed=text)
        seen.append(fingerprint("lab-pick"))
    assert len(set(seen)) == 3


def test_what_is_shipped_and_what_is_installed_is_not_followed(write: Callable[..., None]) -> None:
    write(mine="import torch, numpy\nfrom clsim.selectors import kcenter\n")
    spec = resolve("split-digits", "er", flags={"memory": {"buffer": "./mine.py:pick"}})
    assert [path.name for path in user_files(spec)] == ["mine.py"]
    assert resolve("split-digits", "er", flags={"memory": {"buffer": "kcenter"}}).sources == ()
    assert resolve("split-digits", "avalanche:EWC").sources == ()
    installed = registry.codes("selectors", "pytest:main")[0]
    assert len(installed.files) == 1
    assert "pytest " in installed.release


def test_what_cannot_be_followed_is_said_in_a_line(write: Callable[..., None]) -> None:
    write(mine="import fast\nimport helper\n", helper='import importlib\n\nx = importlib.import_module("y")\n')
    Path("fast.so").write_bytes(b"")
    spec = resolve("split-digits", "er", flags={"memory": {"buffer": "./mine.py:pick"}})
    ends = "fast.so (compiled); helper.py, line 3 (import_module)"
    assert open_ends(spec) == f"a change of what is loaded here makes no new run, use --fresh then: {ends}"
    assert open_ends(resolve("split-digits", "er")) == ""


def test_a_file_imports_its_neighbours_and_no_others(write: Callable[..., None]) -> None:
    """At once and later, in packages too; two folders may have helpers of the same name."""
    text = "from helpers import NAME\n" + PICK.format("NAME + told()").replace(
        "    ", "    from pack.inner import told\n    "
    )
    for folder in "ab":
        write(
            **{f"{folder}__mine": text, f"{folder}__helpers": f"NAME = '{folder}'\n", f"{folder}__extra": "E = 'x'\n"}
        )
        Path(folder, "pack").mkdir()
        Path(folder, "pack", "__init__.py").write_text("from . import inner\nimport pack.inner as again\n")
        Path(folder, "pack", "inner.py").write_text(
            "import helpers\nimport extra\ndef told():\n    return helpers.NAME.upper() + extra.E\n"
        )
    path, modules = list(sys.path), set(sys.modules)
    chosen = [registry.component("selectors", f"./{folder}/mine.py:pick") for folder in "ab"]
    assert [pick(None, 1, rng=None) for pick in chosen] == ["aAx", "bBx"]
    assert sys.path == path
    assert all(name.startswith("clsim_user_") for name in set(sys.modules) - modules)


def test_a_neighbour_is_read_anew_and_hides_nothing_of_pythons_own(write: Callable[..., None]) -> None:
    write(mine="import helper\nimport random\n" + PICK.format("helper.A, random.Random(0) is not None"), random="")
    for value in (1, 2):  # as quickly as that, with as many bytes
        write(helper=f"A = {value}\n")
        assert called("./mine.py:pick") == (value, True)


def test_a_module_that_has_changed_since_it_was_imported_is_refused(write: Callable[..., None]) -> None:
    write(stale_mine="import stale_helper\n" + PICK.format("stale_helper.A"), stale_helper="A = 1\n")
    assert called("stale_mine:pick") == called("stale_mine:pick") == 1
    write(stale_helper="A = 2\n")
    with pytest.raises(InputError, match=r"stale_mine or a file that it imports has changed since .* start Python"):
        called("stale_mine:pick")

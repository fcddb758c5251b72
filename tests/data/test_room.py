"""What does not fit into memory is one line with both numbers, before anything large is built."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clsim.data import room
from clsim.data.cache import Dataset
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.execution.select import select
from clsim.spec.resolve import resolve
from clsim.spec.tables import DataSpec
from clsim.training.footprint import needed
from tests.commands import refused


def test_the_least_of_machine_and_control_group_counts(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    for folder in (proc, cgroup, cgroup / "memory"):
        folder.mkdir()
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert room.available(cgroup, proc) == 4_096_000
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("2000\n")
    assert room.available(cgroup, proc) == 4_096_000
    (cgroup / "memory.max").write_text("5000\n")
    assert room.available(cgroup, proc) == 3000
    (cgroup / "memory.stat").write_text("active_file 7\ninactive_file 500\n")
    assert room.available(cgroup, proc) == 3500
    (cgroup / "memory" / "memory.limit_in_bytes").write_text("2500\n")
    (cgroup / "memory" / "memory.usage_in_bytes").write_text("3000\n")
    assert room.available(cgroup, proc) == 0


def test_what_this_machine_has_is_positive() -> None:
    assert room.available() > 10**7


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["data.size=9223372036854775807"], "data.size"),
        (["data.size=3000000"], "data.size"),
        (["model.options.hidden=[1000000000]"], "model.options"),
        (["model.options.hidden=[1000000000, 1000000000]"], "model.options"),
        (["memory.buffer=el2n", "memory.options.nets=900000000"], "memory.options.nets"),
        (
            ["labelling.selector=ensemble-entropy", "labelling.budget=9", "labelling.options.nets=900000000"],
            "labelling.options.nets",
        ),
        (
            ["labelling.selector=bald", "labelling.budget=9", "labelling.options.passes=900000000"],
            "labelling.options.pa",
        ),
    ],
)
def test_a_run_that_does_not_fit(
    settings: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    said = refused(capsys, "run", "--quiet", *words, "--runs", str(tmp_path / "runs"))
    assert said.startswith(f"clsim: {key}")
    assert " of memory are needed, and " in said
    assert not (tmp_path / "runs").exists()


def test_a_single_choice_that_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"options\.nets: about .* TB of memory are needed, and "):
        select("el2n", dataset="digits", budget=5, options={"nets": 900_000_000})


def test_images_of_ones_own_that_do_not_fit(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "own" / name / f"{i}.png")
    with pytest.raises(InputError, match=r"data\.size: about .* are needed"):
        load(DataSpec("image-folder", str(tmp_path / "own"), size=10**8), tmp_path)


def test_the_estimate_grows_with_what_is_asked_for() -> None:
    dataset = load(DataSpec(), Path("~/.cache/clsim").expanduser())

    def total(*settings: str, strategy: str = "er") -> float:
        return sum(needed(resolve("split-digits", strategy, settings=settings), dataset).values())

    plain = total()
    assert total("memory.capacity=2") < plain < total("model.options.hidden=[4000]")
    assert plain < total("optimizer.name=adam") < total("optimizer.name=adam", "stream.presentation=joint")
    assert plain < 10**7


@pytest.fixture
def little() -> Iterator[None]:
    """Let this process take no more than 300 MB beyond what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (1024 * int(held.split()[1]) + 300 * 10**6, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the limit is Linux's")
def test_an_allocation_that_fails_is_one_line(little: None) -> None:
    assert room.available() <= 300 * 10**6
    message = r"^memory: the run needs more than there is \(.*\), with .* MB free now"
    with pytest.raises(InputError, match=message), room.in_one_line():
        torch.ones(10**9)
    with pytest.raises(InputError, match=message), room.in_one_line():
        np.ones(10**9)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), room.in_one_line():
        raise RuntimeError("a wrong shape")


def test_a_choice_of_labels_is_not_refused_for_a_table_that_nobody_makes() -> None:
    """FLQMI keeps similarities up to half a gigabyte, and with more candidates makes them anew."""
    x = np.zeros((50_000, 3, 32, 32), np.uint8)
    dataset = Dataset(
        "cifar10", x, np.zeros(50_000, np.int64), x[:1], np.zeros(1, np.int64), ("a", "b"), (0.5,), (1.0,)
    )
    spec = resolve("active-cifar10", "finetune", flags={"labelling": {"selector": "flqmi"}})
    assert sum(needed(spec, dataset).values()) < 10**9

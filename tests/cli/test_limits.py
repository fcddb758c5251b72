"""Limits of machine and place, each told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clsim.data import origins
from clsim.data.datasets import load
from clsim.errors import InputError
from clsim.execution.select import select
from clsim.spec import registry
from clsim.spec.described import KINDS, names
from clsim.spec.tables import DataSpec
from clsim.training import machine
from tests.commands import clsim, refused


@pytest.mark.parametrize("count", ["1000", "10000000"])
def test_more_threads_than_a_machine_serves(count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "run", "--quiet", "--threads", count, "--runs", str(tmp_path))
    assert f"training.threads: found {count}, allowed: 1 to " in said
    with pytest.raises(InputError, match=f"training.threads: found {count}, allowed: 1 to "):
        select("kcenter", dataset="digits", budget=3, threads=int(count))


@pytest.mark.parametrize("command", ["run", "study"])
def test_more_seeds_than_anybody_runs(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, command, "--seeds", "300000000", "--runs", str(tmp_path))
    assert "seeds: found 300000000, allowed: 1 to 100,000, or a list of seeds" in said


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(
        InputError, match=r"found 'cuda', but torch .* is a build for processors alone; allowed: auto, cpu"
    ):
        machine.device_of("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(
        InputError, match=r"found 'cuda:1', but torch finds no GPU on this machine .*; allowed: auto, cpu$"
    ):
        machine.device_of("cuda:1")
    with pytest.raises(InputError, match=r"found 'gpu', allowed: auto, cpu$"):
        machine.device_of("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"found 'cuda:2', allowed: auto, cpu, cuda, cuda:0, cuda:1$"):
        machine.device_of("cuda:2")


def test_a_mistyped_data_folder_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mistyped"
    said = refused(capsys, "run", "--quiet", "--data-root", str(folder), "--runs", str(tmp_path / "runs"))
    assert f"no folder '{folder}'; allowed: a folder that is there" in said
    assert not folder.exists()
    with pytest.raises(InputError, match="no folder"):
        load(DataSpec("cifar10"), folder, download=False)
    assert not folder.exists()


def test_a_download_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(spec: DataSpec, root: Path, *, progress: bool, download: bool) -> None:
        (root / "MNIST" / "raw").mkdir(parents=True)
        raise InputError("the download failed")

    monkeypatch.setattr(origins, "read", fails)
    with pytest.raises(InputError, match="the download failed"):
        load(DataSpec("mnist"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    kept = tmp_path / "old"
    (kept / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="the download failed"):
        load(DataSpec("mnist"), kept)
    assert (kept / "mine").is_dir()


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package whose entry points are broken in every way, and one that works."""
    (tmp_path / "lab-1.0.dist-info").mkdir()
    (tmp_path / "lab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    points = ("raises = lab_raises:x", "leaves = lab_leaves:x", "absent = lab_absent:x", "lacks = lab_works:x")
    others = ("odd = lab works!!", "module = lab_works", "number = lab_works:number", "works = lab_works:pick")
    (tmp_path / "lab-1.0.dist-info" / "entry_points.txt").write_text(
        "\n".join(["[clsim.selectors]", *points, *others, ""])
    )
    (tmp_path / "lab_raises.py").write_text("raise ValueError('two\\nlines')\n")
    (tmp_path / "lab_leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "lab_works.py").write_text(
        "import clsim\nfrom clsim.selectors.random import random as pick\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["raises", "leaves", "absent", "lacks", "odd", "module", "number"])
def test_a_broken_entry_point_is_one_line(name: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "run", "--quiet", "--buffer", name, "--runs", str(broken / "runs"))
    assert said.startswith(f"clsim: selectors: {name!r}")


def test_the_other_components_go_on_working(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("list", "selectors") == 0
    assert "kcenter" in capsys.readouterr().out
    assert clsim("show", "kcenter") == 0
    assert "works" in names("selectors")
    assert all(names(kind) is not None for kind in KINDS)
    fast = ["--set", "training.epochs=1", "--set", "data.per_class=4"]
    for buffer in ("works", "random"):
        assert clsim("run", "--quiet", "--buffer", buffer, *fast, "--runs", str(broken / "runs")) == 0
    assert callable(registry.component("selectors", "works"))

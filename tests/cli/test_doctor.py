"""`clsim doctor` tells what is here, and is not misled by what looks like it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

import clsim
from clsim import compat
from clsim.cli.doctor import findings
from clsim.data.datasets import load
from clsim.spec.tables import DataSpec


def test_it_names_versions_device_and_data(tmp_path: Path) -> None:
    (tmp_path / "clsim-cache" / "mnist").mkdir(parents=True)  # empty: a cache that cannot be read
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").touch()
    found = dict(findings(tmp_path))
    assert found["clsim"] == clsim.__version__
    assert {"torch", "avalanche-lib", "device", "cores"} <= set(found)
    assert found["data folder"] == str(tmp_path)
    assert found["  mnist"] == "downloaded at its first use"
    assert found["  cifar100"] == "here, cached at its first use"


def test_a_cache_that_reads_is_ready(tmp_path: Path) -> None:
    load(DataSpec(), tmp_path)
    (tmp_path / "clsim-cache" / "digits").rename(tmp_path / "clsim-cache" / "kmnist")
    assert dict(findings(tmp_path))["  kmnist"] == "ready"


def test_it_says_whether_torchvision_fits_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(findings(None))["torchvision fits torch"] == "yes"
    monkeypatch.setattr(compat, "requires", lambda package: ["numpy", "torch (==1.0.0)"])
    said = dict(findings(None))["torchvision fits torch"]
    assert said.startswith(
        f"torchvision {version('torchvision').partition('+')[0]} is made for torch 1.0.0, found torch"
    )
    assert "pip install" in said

    def broken() -> None:
        raise OSError("undefined symbol: x\nsecond line")

    monkeypatch.setattr(compat, "requires", lambda package: [])
    monkeypatch.setattr(compat, "import_torchvision", broken)
    said = dict(findings(None))["torchvision fits torch"]
    assert "(undefined symbol: x second line): pip install" in said


def test_it_makes_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mistyped"
    assert dict(findings(folder))["data folder"] == f"{folder} (not there; a download makes it)"
    assert not folder.exists()

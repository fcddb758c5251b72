"""`clsim doctor` tells what is here, and is not misled by what looks like it."""

from __future__ import annotations

from pathlib import Path

import clsim
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

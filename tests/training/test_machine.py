"""Torch's own state in a run: numbers below the normal range are 0, TF32 is as named; afterwards all is as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from clsim.spec.precision import in_hardware
from clsim.spec.run import RunSpec
from clsim.spec.tables import TrainingSpec
from clsim.training.machine import arithmetic, flushing, isolated, rounded, rounding


def are_zero() -> bool:
    return bool(torch.full((1,), 1e-38).mul(0.01) == 0)


@pytest.mark.parametrize(("threads", "wanted"), [(1, True), (2, False)])
def test_numbers_below_the_normal_range_are_zero_with_one_thread(threads: int, wanted: bool) -> None:
    assert not are_zero()
    with isolated(RunSpec(training=TrainingSpec(threads=threads)), torch.device("cpu")):
        assert are_zero() is wanted
    assert not are_zero()


def test_the_setting_of_a_process_stays() -> None:
    with flushing(True):
        with flushing(True):
            assert are_zero()
        assert are_zero()
        with pytest.raises(KeyError), flushing(True):
            raise KeyError
        assert are_zero()
    assert not are_zero()


def test_numpy_does_not_warn_of_it() -> None:
    code = """
import numpy as np
from clsim.training.machine import flushing
with flushing(True):
    print([float(np.finfo(kind).eps) for kind in (np.float16, np.float32, np.float64, np.longdouble)])
"""
    ended = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


GPU = torch.device("cuda")


def flags() -> list[object]:
    """All that torch can be asked of TF32, by its flags and by operation; on a processor it can be set, too."""
    backends: Any = torch.backends
    each = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
    return [torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32, *(one.fp32_precision for one in each)]


@pytest.fixture
def restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


by_operation = pytest.mark.skipif(torch.__version__ < "2.9", reason="torch has no settings of single operations")


@by_operation
@pytest.mark.parametrize(("wanted", "products", "convolutions"), [("none", "highest", False), ("all", "high", True)])
@pytest.mark.usefixtures("restored")
def test_tf32_is_what_the_spec_names_and_afterwards_what_it_was(wanted: str, products: str, convolutions: bool) -> None:
    for word, allowed in (("highest", True), ("medium", False), ("highest", False), ("high", False)):
        torch.set_float32_matmul_precision(word)
        torch.backends.cudnn.allow_tf32 = allowed
        before = flags()
        with rounding(wanted, GPU):
            assert rounded() == wanted
            assert flags()[:2] == [products, convolutions]
            tf32 = [one == "tf32" for one in flags()[2:5]]
            assert tf32 == [products == "high", convolutions, convolutions]
        assert flags() == before
        with pytest.raises(KeyError), rounding(wanted, GPU):
            raise KeyError
        assert flags() == before


@by_operation
@pytest.mark.usefixtures("restored")
def test_what_was_set_by_operation_is_restored_by_operation() -> None:
    backends: Any = torch.backends
    conv = backends.cudnn.conv
    conv.fp32_precision = "ieee"  # the recurrent layers keep theirs: torch's flags cannot be read any more
    with pytest.raises(RuntimeError):
        flags()
    with rounding("all", GPU):
        assert rounded() == "all"
        assert flags()[0] == "high"
    assert (conv.fp32_precision, backends.cudnn.rnn.fp32_precision) == ("ieee", "tf32")
    conv.fp32_precision = "tf32"


@pytest.mark.usefixtures("restored")
def test_before_torch_had_settings_of_operations_its_flags_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsim.training.machine._operations", list)
    for wanted, expected in {
        "none": ("highest", False),
        "convolutions": ("highest", True),
        "all": ("high", True),
    }.items():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = False
        assert rounded() == "products"
        with rounding(wanted, GPU):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
            assert rounded() == wanted
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", False)


def test_nothing_is_touched_for_a_processor_and_where_all_is_as_it_should_be() -> None:
    before = flags()
    assert rounded() == "convolutions"  # torch's own default, and the spec's
    for wanted, device in (("all", "cpu"), ("none", "cpu"), ("convolutions", "cuda")):
        with rounding(wanted, torch.device(device)):
            assert flags() == before


def test_a_run_stands_in_the_rounding_of_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    @contextmanager
    def noted(wanted: str, device: torch.device) -> Iterator[None]:
        told.append((wanted, device.type))
        yield
        told.append("left")

    monkeypatch.setattr("clsim.training.machine.rounding", noted)
    with isolated(RunSpec(training=TrainingSpec(tf32="all")), torch.device("cpu")):
        told.append("inside")
    assert told == [("all", "cpu"), "inside", "left"]


def test_a_record_says_what_arithmetic_a_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic(torch.device("cpu")) == {"bf16": "in hardware" if in_hardware("cpu") else "emulated"}
    monkeypatch.setattr("clsim.training.machine.in_hardware", lambda device: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 90100)
    found = arithmetic(GPU)
    assert found == {"bf16": "emulated", "tf32": "convolutions", "capability": "7.5", "cuda": "12.4", "cudnn": "90100"}
    with rounding("none", GPU):
        assert arithmetic(GPU)["tf32"] == "none"

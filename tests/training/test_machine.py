"""Torch's own state in a run: numbers below the normal range are 0, and afterwards they are what they were."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from clsim.spec.run import RunSpec
from clsim.spec.tables import TrainingSpec
from clsim.training.machine import flushing, isolated


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

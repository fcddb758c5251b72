"""Several studies at once on one folder of runs, whose processes are killed at random; see :mod:`swarm`."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsim.execution.engines.engine import Job, Outcome, work
from clsim.records.store import Store
from tests.execution.swarm import Swarm, planned


@pytest.mark.slow
def test_no_run_is_lost_or_doubled_though_processes_are_killed(workplace: Path) -> None:
    """Two studies of the same runs; and their numbers are those of runs that nobody disturbed."""
    swarm = Swarm(workplace, runs=30, studies=2, workers=2, pause=1.0, kills=10)
    swarm.carry_out(seconds=900)
    assert swarm.counts["kills"] >= 5
    found = swarm.numbers()
    alone = Swarm(workplace / "alone", runs=30, studies=1, workers=1, pause=1.0, kills=0)
    sample = planned(alone)[::6]
    for run in sample:
        job = Job(run.spec, run.command, str(alone.folder / "runs"), str(workplace / "data"), str(workplace))
        assert work(job) == Outcome(run.spec.fingerprint, "finished")
    assert {name: found[name] for name in alone.numbers()} == alone.numbers()
    assert len(Store(alone.folder / "runs").records()[0]) == 5

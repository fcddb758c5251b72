"""clsim: a wind tunnel for continual learners.

>>> import clsim
>>> sorted(clsim.__all__)[:4]
['Acquisition', 'Batch', 'Buffer', 'Condensed']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from clsim.version import __version__ as __version__

if TYPE_CHECKING:
    from clsim.acquisitions.acquisition import Acquisition as Acquisition
    from clsim.api import run as run
    from clsim.api import study as study
    from clsim.checks.acquisitions import check_acquisition as check_acquisition
    from clsim.checks.condensers import check_condenser as check_condenser
    from clsim.checks.formulas import check_metric as check_metric
    from clsim.checks.learners import check_learner as check_learner
    from clsim.checks.learners import check_objective as check_objective
    from clsim.checks.selectors import check_selector as check_selector
    from clsim.errors import InputError as InputError
    from clsim.execution.annotation import Labelling as Labelling
    from clsim.execution.condense import condense as condense
    from clsim.execution.condensed import Condensed as Condensed
    from clsim.execution.export import export as export
    from clsim.execution.rank_models import rank_models as rank_models
    from clsim.execution.select import Picks as Picks
    from clsim.execution.select import select as select
    from clsim.learners.sgd import Sgd as Sgd
    from clsim.memory.buffer import Buffer as Buffer
    from clsim.objectives.replay import replay as replay
    from clsim.pool.contracts import Condenser as Condenser
    from clsim.pool.exemplars import Exemplars as Exemplars
    from clsim.pool.pool import Pool as Pool
    from clsim.pool.pool import Selection as Selection
    from clsim.pool.pool import Selector as Selector
    from clsim.records import metrics as metrics
    from clsim.records.metrics import Metric as Metric
    from clsim.records.store import RunRecord as RunRecord
    from clsim.records.store import Store as Store
    from clsim.reporting.report import load as load
    from clsim.reporting.reproduced import Reproduction as Reproduction
    from clsim.reporting.reproduced import reproduce as reproduce
    from clsim.reporting.results import report as report
    from clsim.reporting.tuned import Search as Search
    from clsim.reporting.tuned import tune as tune
    from clsim.spec.run import RunSpec as RunSpec
    from clsim.streams.stream import Experience as Experience
    from clsim.training.contract import Batch as Batch
    from clsim.training.contract import Learner as Learner
    from clsim.training.contract import Objective as Objective
    from clsim.training.contract import Setup as Setup
    from clsim.training.contract import Terms as Terms

_PLACES = {
    "run": "clsim.api",
    "study": "clsim.api",
    "load": "clsim.reporting.report",
    "report": "clsim.reporting.results",
    "tune": "clsim.reporting.tuned",
    "Search": "clsim.reporting.tuned",
    "reproduce": "clsim.reporting.reproduced",
    "Reproduction": "clsim.reporting.reproduced",
    "select": "clsim.execution.select",
    "Picks": "clsim.execution.select",
    "rank_models": "clsim.execution.rank_models",
    "Labelling": "clsim.execution.annotation",
    "condense": "clsim.execution.condense",
    "Condensed": "clsim.execution.condensed",
    "export": "clsim.execution.export",
    "Acquisition": "clsim.acquisitions.acquisition",
    "check_acquisition": "clsim.checks.acquisitions",
    "check_condenser": "clsim.checks.condensers",
    "check_learner": "clsim.checks.learners",
    "check_metric": "clsim.checks.formulas",
    "check_objective": "clsim.checks.learners",
    "check_selector": "clsim.checks.selectors",
    "InputError": "clsim.errors",
    "Condenser": "clsim.pool.contracts",
    "Exemplars": "clsim.pool.exemplars",
    "Buffer": "clsim.memory.buffer",
    "Pool": "clsim.pool.pool",
    "Selection": "clsim.pool.pool",
    "Selector": "clsim.pool.pool",
    "RunSpec": "clsim.spec.run",
    "Metric": "clsim.records.metrics",
    "RunRecord": "clsim.records.store",
    "Store": "clsim.records.store",
    "Learner": "clsim.training.contract",
    "Objective": "clsim.training.contract",
    "Setup": "clsim.training.contract",
    "Batch": "clsim.training.contract",
    "Terms": "clsim.training.contract",
    "Experience": "clsim.streams.stream",
    "Sgd": "clsim.learners.sgd",
    "replay": "clsim.objectives.replay",
}
"""Public name → the module that defines it."""

_MODULES = {"metrics": "clsim.records.metrics"}
"""Public name → the module that it stands for."""

__all__ = [*_PLACES, *_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and most commands need none."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _PLACES:
        raise AttributeError(f"module 'clsim' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

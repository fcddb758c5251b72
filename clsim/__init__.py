"""clsim: a wind tunnel for continual learners.

>>> import clsim
>>> sorted(clsim.__all__)[:4]
['Buffer', 'Exemplars', 'InputError', 'Picks']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clsim.api import run as run
    from clsim.checks import check_condenser as check_condenser
    from clsim.checks import check_learner as check_learner
    from clsim.checks import check_selector as check_selector
    from clsim.errors import InputError as InputError
    from clsim.exemplars import Exemplars as Exemplars
    from clsim.memory import Buffer as Buffer
    from clsim.picks import Picks as Picks
    from clsim.picks import select as select
    from clsim.pool import Pool as Pool
    from clsim.pool import Selection as Selection
    from clsim.specs import RunSpec as RunSpec
    from clsim.store import RunRecord as RunRecord
    from clsim.store import Store as Store
    from clsim.supervise import study as study

_PLACES = {
    "run": "clsim.api",
    "select": "clsim.picks",
    "Picks": "clsim.picks",
    "check_condenser": "clsim.checks",
    "check_learner": "clsim.checks",
    "check_selector": "clsim.checks",
    "InputError": "clsim.errors",
    "Exemplars": "clsim.exemplars",
    "Buffer": "clsim.memory",
    "Pool": "clsim.pool",
    "Selection": "clsim.pool",
    "RunSpec": "clsim.specs",
    "RunRecord": "clsim.store",
    "Store": "clsim.store",
    "study": "clsim.supervise",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and most commands need none."""
    if name not in _PLACES:
        raise AttributeError(f"module 'clsim' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)

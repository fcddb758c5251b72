"""Condensers by name; a selector's name stands for one that chooses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clsim.pool.contracts import Condenser, chosen
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool
from clsim.selectors.combinators import per_class
from clsim.spec import registry
from clsim.spec.options import bind, options_of


def condenser_of(method: str, options: Mapping[str, Any], digits: bool) -> Condenser:
    """Return the condenser of a name; for a selector's name, one whose set is the selector's picks of each class.

    Args:
        method: a name of ``clsim list condensers`` or of ``clsim list selectors``, ``module:attr`` or
            ``./file.py:attr``.
        options: options of the method, by flat name.
        digits: whether the images are digits, which no method mirrors by default.

    Raises:
        InputError: for a wrong name or option.
    """
    if not registry.is_condenser(method) and registry.is_selector(method):
        select = per_class(registry.component("selectors", method, options, "options"))

        def picked(pool: Pool, budget: int, *, rng: torch.Generator) -> Exemplars:
            return pool.data[chosen(select, pool, budget, rng, f"method {method!r}").index]

        return picked
    found = registry.component("condensers", method)
    augment = options_of(found).get("augment")
    if digits and augment is not None and "flip" in augment.default:
        found = bind(found, {"augment": tuple(name for name in augment.default if name != "flip")})
    return bind(found, options, "options", method)

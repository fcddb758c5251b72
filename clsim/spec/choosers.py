"""Which selectors can choose the samples of a gradient step, and which ones need irreducible losses."""

from __future__ import annotations

import re

from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.batch import PRUNERS
from clsim.spec.components import COMPONENTS
from clsim.spec.definitions import Unread, definition
from clsim.spec.run import RunSpec

IRREDUCIBLE = "irreducible losses"
"""What a selector that reads the irreducible losses of its candidates needs, as its docstring says it."""

BEYOND: dict[str, str] = {
    **dict.fromkeys(("a committee", "a committee of proxies"), "nets that are trained apart"),
    "training dynamics of a proxy": "a net that is trained apart",
    **dict.fromkeys(("passes with dropout", "dropout passes"), "several forward passes"),
    **dict.fromkeys(("input gradients", "perturbed inputs"), "further passes on changed inputs"),
    "held-out samples": "a forward pass of held-out samples",
    **dict.fromkeys(("query", "private"), "a set of samples beside the candidates"),
    "the memory's own notes": "the memory's own notes on its candidates",
    "the new batch": "a new batch to replay with",
}
"""What takes more than one forward pass of the candidates of a step, or is not there, for docstrings and messages."""


def chooses_batch(name: str) -> bool:
    """Tell whether a selector can choose the samples of a gradient step: one that needs one forward pass at most.

    >>> chooses_batch("margin"), chooses_batch("per_class(rho-loss)"), chooses_batch("bald"), chooses_batch("dm")
    (True, True, False, False)
    """
    if name in PRUNERS:
        return True
    taken = registry.is_condenser(name) or name in COMPONENTS["acquisitions"] or name in COMPONENTS["bounds"]
    return not taken and not _unmet(name)


def check_chooses_batch(name: str) -> None:
    """Refuse a shipped component that cannot choose the samples of a step; selectors of your own pass.

    Raises:
        InputError: naming the part that cannot, what it needs, and what is allowed.
    """
    if name == "none" or chooses_batch(name):
        return
    part, why = next(iter(_unmet(name).items()), (name, "a state of its own"))
    usual = "rho-loss, loss, gradient-norm, margin, entropy, random, ..."
    raise InputError(
        f"batch.selector: found {part!r}, which needs {why}; allowed: a selector that needs one forward pass of the "
        f"candidates ({usual}), marked in `clsim list selectors`; or {', '.join(PRUNERS)}"
    )


def reads_irreducible(name: str) -> bool:
    """Tell whether a selector needs irreducible losses, by the docstrings of its parts, one's own code included.

    >>> reads_irreducible("per_class(low-irreducible-loss)"), reads_irreducible("margin")
    (True, False)
    """
    said = list(registry.needs(name).values())
    combinator, inner = registry.taken_apart(name)
    if any(reads_irreducible(part) for part in inner):
        return True
    if not inner and ":" in combinator:
        try:
            said.append(definition(combinator).docstring.needs)
        except (Unread, InputError, OSError):
            return False
    return any(IRREDUCIBLE in what for what in said)


def irreducible_readers(spec: RunSpec) -> list[str]:
    """List the selectors of a run that need irreducible losses: of batches, of the memory, of what is replayed."""
    memory = (spec.memory.buffer, spec.memory.retrieval) if spec.memory.buffer != "none" else ()
    return [name for name in dict.fromkeys((spec.batch.selector, *memory)) if reads_irreducible(name)]


def _unmet(name: str) -> dict[str, str]:
    """Return the parts of a name that need what is :data:`BEYOND` a forward pass, and what that is."""
    parts = {part: re.split(r"[;,] ", what) for part, what in registry.needs(name).items()}
    return {part: BEYOND[one] for part, what in parts.items() for one in what if one in BEYOND}

"""What selectors need, by their docstrings, and so where each can be used: for labels, for batches, and so on."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.batch import PRUNERS
from clsim.spec.components import BOUNDS, COLD_STARTS, COMBINATORS, COMPONENTS
from clsim.spec.definitions import Unread, definition
from clsim.spec.run import RunSpec


def needs(name: str) -> dict[str, str]:
    """Say what each shipped selector and combinator in a name needs, by its docstring.

    >>> needs("topped_up(kcenter)"), needs("per_class(entropy)")
    ({'kcenter': 'features; labelled samples if there are any'}, {'per_class': 'labels', 'entropy': 'probabilities'})
    """
    combinator, inner = registry.taken_apart(registry.canonical(name))
    shipped = COMBINATORS if inner else COMPONENTS["selectors"]
    said = definition(shipped[combinator]).docstring.needs if combinator in shipped else ""
    found = {combinator: said} if said else {}
    return found | {part: what for one in inner for part, what in needs(one).items()}


def reads_embedding(name: str) -> bool:
    """Tell whether a selector chooses by the pool's embedding where there is one; code of one's own may.

    >>> reads_embedding("typiclust"), reads_embedding("prefilter(entropy,kcenter,5)"), reads_embedding("./mine.py:pick")
    (True, False, True)
    """
    said = needs(name)
    for part in registry.innermost(registry.canonical(name)):
        if target := COMPONENTS["acquisitions"].get(part):
            said[part] = definition(target).docstring.needs
        elif not part.isdecimal() and not any(part in COMPONENTS[k] for k in ("selectors", "bounds", "condensers")):
            return True
    return any("embedding" in what for what in said.values())


LACKING = {
    "labels": "its candidates' labels",
    "the memory's own notes": "the memory's own notes on its candidates",
    "the new batch": "a new batch to replay with",
}
"""What a choice of labels cannot give a selector, as docstrings and as messages name it."""


def acquires(name: str) -> bool:
    """Tell whether a selector can choose what to label: all but those that need what is :data:`LACKING`.

    >>> acquires("prefilter(entropy,kcenter,5)"), acquires("per_class(kcenter)"), acquires("el2n")
    (True, False, False)
    """
    return not registry.is_condenser(name) and not _unmet(name, LACKING)


def check_acquires(name: str, where: str = "labelling.selector") -> None:
    """Refuse a shipped selector that cannot choose what to label; acquisitions and selectors of your own pass.

    Args:
        name: the name, with combinators.
        where: the key that holds it, for the message; bounds pass as ``labelling.selector`` alone.

    Raises:
        InputError: naming the part that cannot, and what it lacks.
    """
    if (where == "labelling.selector" and name in BOUNDS) or acquires(name):
        return
    part, why = next(iter(_unmet(name, LACKING).items()), (name, ""))
    found = f"{part!r}, which needs {why}" if why else f"the condenser {part!r}"
    instead = f" (did you mean {part}-active?)" if f"{part}-active" in COMPONENTS["selectors"] else ""
    raise InputError(
        f"{where}: found {found}; allowed: a selector that needs none of what a choice of labels lacks, marked in "
        f"`clsim list selectors`{instead}"
    )


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
    return not taken and not _unmet(name, BEYOND)


def check_chooses_batch(name: str) -> None:
    """Refuse a shipped component that cannot choose the samples of a step; selectors of your own pass.

    Raises:
        InputError: naming the part that cannot, what it needs, and what is allowed.
    """
    if name == "none" or chooses_batch(name):
        return
    part, why = next(iter(_unmet(name, BEYOND).items()), (name, "a state of its own"))
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
    said = list(needs(name).values())
    combinator, inner = registry.taken_apart(name)
    if any(reads_irreducible(part) for part in inner):
        return True
    if not inner and ":" in combinator:
        try:
            said.append(definition(combinator).docstring.needs)
        except (Unread, InputError, OSError):
            return False
    return any(IRREDUCIBLE in what for what in said)


def _unmet(name: str, lacking: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of a name that need what is lacking, and what that is."""
    parts = {part: re.split(r"[;,] ", what) for part, what in needs(name).items()}
    return {part: lacking[one] for part, what in parts.items() for one in reversed(what) if one in lacking}


def needs_without_labels(selector: Any, name: str, allowed: str) -> dict[str, str]:
    """Say what each part of a selector needs; refuse what balances classes or tasks, or reads candidates' labels.

    Without labels it would choose at random, or by nothing.

    Args:
        selector: the selector, or its name.
        name: its name, for messages.
        allowed: what is allowed in its place, for messages.

    Raises:
        InputError: naming the selector.
    """
    if isinstance(selector, str):
        said = needs(selector)
    else:
        found = re.search(r"^Needs: (.*)", inspect.getdoc(getattr(selector, "func", selector)) or "", re.MULTILINE)
        said = {name: found[1].rstrip(".") if found else ""}
    for wanting in (part for part, text in said.items() if text.startswith("labels")):
        raise InputError(f"{wanting}: found without labels, allowed: {allowed}")
    return said


def blind_start(spec: RunSpec) -> str:
    """Say in a line that an untrained net makes the first choice of labels; empty if it does not, or it is no matter.

    It matters to acquisitions, and to selectors that go by what the net predicts.
    """
    labelling = spec.labelling
    if not labelling.asks or labelling.initial_count or spec.labels.partial or labelling.selector in BOUNDS:
        return ""
    said = " ".join(needs(labelling.selector).values())
    if labelling.selector in COLD_STARTS:
        return ""
    if labelling.selector not in COMPONENTS["acquisitions"] and not any(w in said for w in _PREDICTS):
        return ""
    return (
        "without an initial set, an untrained net makes the first choice of labels, and some selectors choose badly by "
        "it; begin with --labels 2 or --set labelling.initial_count=20"
    )


_PREDICTS = ("probabilit", "logit", "gradient", "dropout", "committee", "perturbed")
"""Words for what depends on a trained net, as ``Needs:`` says it."""

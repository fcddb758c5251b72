"""How each kind of component is called, and the refusal of what cannot be called so."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clsim.errors import InputError


@dataclass(frozen=True)
class Role:
    """The call of a kind of component.

    Attributes:
        given: names of what it is given by position.
        named: names of what it is given by name.
    """

    given: tuple[str, ...]
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"({', '.join([*self.given, *(['*', *self.named] if self.named else [])])})"

    def refusal(self, component: Callable[..., Any]) -> str:
        """Say why a component cannot be called so; empty if it can."""
        try:
            signature = inspect.signature(component)
        except (TypeError, ValueError):
            return "which does not say what it takes"
        try:
            signature.bind(*self.given, **dict.fromkeys(self.named))
        except TypeError as error:
            return f"which takes {str(signature).partition(' ->')[0]} ({error})"
        return ""


_CHOICE, _STATE = Role(("pool", "budget"), ("rng",)), Role(("net", "rng"))
_LEARNER = Role(("setup",))

ROLES: dict[str, tuple[Role, ...]] = {
    "selectors": (_CHOICE,),
    "condensers": (_CHOICE,),
    "objectives": (Role(("net", "batch")),),
    "acquisitions": (_STATE,),
    "bounds": (_STATE,),
    "learners": (_LEARNER,),
    "models": (Role(("shape",)),),
    "pools": (Role(("parts",), ("rng",)),),
}
"""Kind → the calls of its components, the usual one first."""

CLASSES: dict[str, tuple[Role, ...]] = {"selectors": (_STATE,), "objectives": (_LEARNER,)}
"""Kind → the calls that a class in the place of a function may have instead."""


def check_role(kind: str, name: str, component: Callable[..., Any]) -> None:
    """Refuse a component that cannot be called as its kind is.

    Args:
        kind: its kind; one that is not in :data:`ROLES` is not checked.
        name: its name, for messages.
        component: the function or the class, its options already bound.

    Raises:
        InputError: naming what it takes, and what it is given.
    """
    roles, made = ROLES.get(kind, ()), component
    while isinstance(made, functools.partial):
        made = made.func
    if inspect.isclass(made):
        roles = (*roles, *CLASSES.get(kind, ()))
    refusals = [role.refusal(component) for role in roles]
    if roles and all(refusals):
        calls = " or ".join(map(str, roles))
        raise InputError(f"{kind}: found {name!r}, {refusals[0]}; allowed: a function that is called with {calls}")

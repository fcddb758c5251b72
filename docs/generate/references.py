"""What sphinx does with a reference to code that has no page: it is text, if the code is there."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

OTHERS = ("torch", "numpy", "np", "pandas", "pd", "jaxtyping", "pathlib", "typing", "collections", "types", "rich")
"""Packages whose names stand in signatures and are not looked up: their documentation is elsewhere."""


def answer(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Return the text of a reference if what it names exists, else None, upon which sphinx warns."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or not target:
        return None
    inside = node.get("py:module") or ""
    return contnode if exists(target, inside) else None


def exists(target: str, inside: str = "") -> bool:
    """Whether a dotted name is that of a module, class, function or attribute, or a name of another package.

    Args:
        inside: the module in which the name is used.
    """
    first = target.partition(".")[0]
    if first in OTHERS or first in dir(__builtins__):
        return True
    return any(_resolves(name) for name in (target, f"{inside}.{target}", f"clsim.{target}"))


def _resolves(name: str) -> bool:
    if not name.startswith("clsim"):
        return False
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return _is_field(name)
    return True


def _is_field(name: str) -> bool:
    """Whether a name is that of a field without a default, which the class itself does not have."""
    owner, _, field = name.rpartition(".")
    try:
        found = pkgutil.resolve_name(owner)
    except (ImportError, AttributeError, ValueError):
        return False
    return inspect.isclass(found) and any(field in vars(c).get("__annotations__", {}) for c in found.__mro__)



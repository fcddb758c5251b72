"""A schema in a few words: what a value that was read may be. A check says where it does not fit; empty if it does.

>>> check = table({"name": text(), "shares": listing(maybe(share()))}, {"passes": whole()})
>>> check({"name": "a", "shares": [0.5, None]}, "record")
''
>>> check({"name": "a", "shares": [0.5, 2]}, "record")
'record.shares[1]: found 2, allowed: a number from 0 to 1, or nothing'
>>> check({"name": "a", "shares": [], "passes": 1.5}, "")
'passes: found 1.5, allowed: a whole number from 0'
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], str]
"""(value, where it stands) → why it does not fit, beginning with the place; empty if it fits."""

MOST = 2**63
"""Numbers that count, and amounts, are below this."""

LONGEST = 2**20
"""Most characters of a text."""


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """Check for a finite number within bounds; a whole one may not be larger than 64 bits hold."""
    words = "a finite number" if least == -math.inf else f"a number from {least:g}"
    words += "" if most == math.inf else f" to {most:g}"

    def check(value: Any, where: str) -> str:
        fits = type(value) in (int, float) and least <= value <= most and abs(value) < math.inf
        fits = fits and (type(value) is float or abs(value) < MOST)
        return "" if fits else refusal(value, where, words)

    return check


def share() -> Check:
    """Check for a share of 1, such as an accuracy."""
    return number(0, 1)


def amount() -> Check:
    """Check for an amount, such as seconds."""

    def check(value: Any, where: str) -> str:
        fits = type(value) in (int, float) and 0 <= value < MOST
        return "" if fits else refusal(value, where, "a number from 0")

    return check


def whole(least: int = 0, most: int = MOST - 1) -> Check:
    """Check for a whole number within bounds."""
    words = f"a whole number from {least}" + ("" if most == MOST - 1 else f" to {most}")
    return lambda value, where: "" if type(value) is int and least <= value <= most else refusal(value, where, words)


def counter() -> Check:
    """Check for a whole number from 0, which code that adds fractions may have written as 3.0."""

    def check(value: Any, where: str) -> str:
        fits = type(value) is int or (type(value) is float and value.is_integer())
        return "" if fits and 0 <= value < MOST else refusal(value, where, "a whole number from 0")

    return check


def text(longest: int = LONGEST) -> Check:
    """Check for text."""
    words = f"text of at most {longest} characters"
    return lambda value, where: "" if isinstance(value, str) and len(value) <= longest else refusal(value, where, words)


def flag() -> Check:
    """Check for true or false."""
    return lambda value, where: "" if isinstance(value, bool) else refusal(value, where, "true or false")


def maybe(check: Check) -> Check:
    """Check for a value or nothing."""
    return lambda value, where: "" if value is None else _or_nothing(check(value, where))


def either(*checks: Check) -> Check:
    """Check for a value of one of several kinds; the refusal is that of the last."""

    def check(value: Any, where: str) -> str:
        found = [one(value, where) for one in checks]
        return "" if "" in found else found[-1]

    return check


def listing(of: Check, length: int | None = None, *, most: int | None = None) -> Check:
    """Check for a list whose values all fit.

    Args:
        of: what each value may be.
        length: their number; None: any.
        most: their largest number; None: any.
    """
    words = "a list" + ("" if length is None else f" of {length}") + ("" if most is None else f" of at most {most}")

    def check(value: Any, where: str) -> str:
        if not isinstance(value, list) or (length is not None and len(value) != length):
            return refusal(value, where, words)
        if most is not None and len(value) > most:
            return refusal(value, where, words)
        return next((wrong for i, one in enumerate(value) if (wrong := of(one, f"{where}[{i}]"))), "")

    return check


def table(
    needed: Mapping[str, Check], allowed: Mapping[str, Check] | None = None, others: Check | None = None
) -> Check:
    """Check for a table.

    Args:
        needed: keys that must be there, and what the value of each may be.
        allowed: keys that may be there, likewise.
        others: what the values of other keys may be; None: anything, as a later version may add keys.
    """
    known = {**needed, **(allowed or {})}

    def check(value: Any, where: str) -> str:
        if not isinstance(value, dict):
            return refusal(value, where, "a table")
        for key in needed:
            if key not in value:
                return f"{at(where, key)}: missing"
        for key, one in value.items():
            of = known.get(key, others)
            if of is not None and (wrong := of(one, at(where, key))):
                return wrong
        return ""

    return check


def mapping(of: Check) -> Check:
    """Check for a table whose values all fit."""
    return table({}, others=of)


def at(where: str, key: object) -> str:
    """Name a key of a table, for messages: text that somebody else wrote is cut short."""
    name = key if isinstance(key, str) and key.isprintable() and len(key) < 40 else f"{key!r:.40}"
    return f"{where}.{name}" if where else str(name)


def refusal(value: Any, where: str, words: str) -> str:
    """Say what was found and what is allowed."""
    kinds = (dict, list, tuple)
    found = f"{type(value).__name__} of {len(value)}" if isinstance(value, kinds) else f"{value!r:.40}"
    return f"{where}: found {found}, allowed: {words}"


def _or_nothing(wrong: str) -> str:
    return f"{wrong}, or nothing" if wrong else ""

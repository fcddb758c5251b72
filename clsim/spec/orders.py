"""Orders of time, as the docstrings of components state them under ``Cost:``, as numbers that grow with the size."""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping

_WRITTEN = {"·": "*", "²": "**2", "³": "**3", "−": "-", "′": "_prime", "|": ""}
_DOES: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def steps(cost: str, letters: Mapping[str, float]) -> float | None:
    """Compute the order of the time that a docstring states: the sum of its O(…) up to that of memory.

    Args:
        cost: what the docstring says under ``Cost:``.
        letters: the value of each letter, as n, b and d.

    Returns:
        The number; None where no order of time is stated, or one has a letter that is not given.

    >>> steps("O(n·b·d) time at worst, far less where distances differ; O(n) memory", {"n": 10, "b": 2, "d": 3})
    60.0
    >>> steps("O(n²·d) time for the neighbours, O(n log n) a round; O(n·d) memory", {"n": 2, "d": 3})
    14.0
    >>> steps("O(n·T) time", {"n": 2}), steps("``nets`` trainings, O(n) memory", {"n": 2})
    (None, None)
    """
    found = [inside for inside, _ in itertools.takewhile(lambda o: not o[1].startswith(" memory"), _orders(cost))]
    try:
        return float(sum(_value(ast.parse(_plain(text), mode="eval").body, letters) for text in found)) or None
    except (KeyError, SyntaxError, ZeroDivisionError):
        return None


def at_most(cost: str) -> bool:
    """Tell whether a docstring says that its order is that of the worst case.

    >>> at_most("O(n·b·d) time at worst, far less where distances differ"), at_most("O(n·d) time")
    (True, False)
    """
    return " at worst" in cost or " at most" in cost


def _orders(cost: str) -> Iterator[tuple[str, str]]:
    """Find each O(…): what is inside, and what comes behind."""
    for start in re.finditer(r"\bO\(", cost):
        depth, end = 1, start.end()
        while depth and end < len(cost):
            depth += (cost[end] == "(") - (cost[end] == ")")
            end += 1
        yield cost[start.end() : end - 1], cost[end:]


def _plain(text: str) -> str:
    for sign, word in _WRITTEN.items():
        text = text.replace(sign, word)
    return re.sub(r"(\w+) log (\w+)", r"\1*log(\2)", text.replace("`", "")).strip()


def _value(node: ast.AST, letters: Mapping[str, float]) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in _DOES:
        return _DOES[type(node.op)](_value(node.left, letters), _value(node.right, letters))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log" and len(node.args) == 1:
        return math.log2(max(_value(node.args[0], letters), 1))
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.Name):
        return float(letters[node.id])
    raise KeyError(ast.dump(node))

"""Values to try: by annotation, mostly of the right type and at its edges, and texts that somebody would obey."""

from __future__ import annotations

import json
import math
import random
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

INTS = (
    -1,
    0,
    1,
    2,
    3,
    5,
    7,
    64,
    1000,
    -(2**31),
    2**31 - 1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**63,
    10**12,
    10**30,
)

FLOATS = (0.0, -0.0, 0.5, 1.0, 1e-320, 1e-12, 1e308, -1e308, 1e38, 3.5, -0.1, 1.0000001, math.inf, -math.inf, math.nan)

NAMES = (
    "builtins:int",
    "builtins:print",
    "os:system",
    "canary_module:f",
    "canary_module",
    "./evil.py:f",
    "./evil.py",
    "torch.nn:Linear",
    "clsim.selectors.random:random",
    "avalanche:EWC",
    "avalanche:",
    "per_class(random)",
    "per_class(per_class(kcenter))",
    "a(b(c",
    "(" * 300,
    "none",
    "random",
    "kcenter",
    "digits",
    "mlp",
    "sgd",
)

TEXTS = (
    "",
    " ",
    "../../outside",
    "/etc/passwd",
    "..",
    "/dev/zero",
    "pipe",
    "~",
    "~nobody/x",
    "a\x1b[31mb\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\u202eabc\u2066",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "$\\input{/etc/passwd}$",
    "a_{b^{c",
    "x" * 5000,
    "a\nb\r\nc\ttab",
    "[link=http://evil.example]y[/link]",
    "[/bold]",
    "{} {0} %s %(x)s",
    "nan",
    "inf",
    "1e400",
    "true",
    "'",
    '"',
    "\\",
    "naïve – ☃ 日本",
    "\u0085\u2028",
    "\x7f\x9b31m",
    "0x10",
    "1_000",
    "2020-01-01",
    *NAMES,
)


def wild(rng: random.Random, depth: int = 0) -> Any:
    """Draw any value that a file can hold."""
    kinds: list[Any] = [lambda: rng.choice(INTS), lambda: rng.choice(FLOATS), lambda: rng.choice(TEXTS)]
    kinds += [lambda: rng.random() < 0.5, lambda: [], lambda: {}, lambda: None]
    if depth < 2:
        kinds += [
            lambda: [wild(rng, depth + 1) for _ in range(rng.randint(1, 3))],
            lambda: {rng.choice(("a", "name", "options", "0", "x.y")): wild(rng, depth + 1)},
        ]
    if depth == 0 and rng.random() < 0.02:
        return nested(rng.choice((20, 150)))
    return rng.choice(kinds)()


def nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def by(kind: Any, rng: random.Random) -> Any:
    """Draw a value for an annotation: of its type in two cases of three."""
    if rng.random() < 0.33:
        return wild(rng)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return by(inner[0], rng)
    if origin in (typing.Union, types.UnionType):
        return by(rng.choice(inner), rng)
    if origin is Literal:
        return rng.choice([*inner, *TEXTS[:3]])
    if kind is bool:
        return rng.random() < 0.5
    if kind is int:
        return rng.choice(INTS) if rng.random() < 0.7 else rng.randint(-3, 40)
    if kind is float:
        return rng.choice(FLOATS) if rng.random() < 0.7 else round(rng.uniform(-1, 2), 3)
    if kind is str:
        return rng.choice(TEXTS)
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        part = inner[0] if inner else Any
        return [by(part, rng) for _ in range(rng.choice((0, 1, 2, 3, 50)))]
    if kind is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {rng.choice(("hidden", "a", "metric", "")): wild(rng, 1) for _ in range(rng.randint(0, 2))}
    return wild(rng)


def toml(value: Any) -> str:
    """Write a value as TOML; what TOML has no word for as text that a person would try."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, str):
        return re.sub("[\x7f]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value))
    return "none" if value is None else str(value)


def _key(key: Any) -> str:
    return key if re.fullmatch(r"[\w-]+", str(key), re.ASCII) else json.dumps(str(key))


def toml_file(tables: Mapping[str, Any], above: str = "") -> str:
    """Write tables as a TOML file."""
    plain = {k: v for k, v in tables.items() if not isinstance(v, Mapping) and not _of_tables(v)}
    lines = [f"{_key(key)} = {toml(value)}" for key, value in plain.items()]
    for key, value in tables.items():
        name = f"{above}{_key(key)}"
        if isinstance(value, Mapping):
            lines += [f"\n[{name}]", toml_file(value, f"{name}.")]
        elif _of_tables(value):
            for one in value:
                lines += [f"\n[[{name}]]", toml_file(one, f"{name}.")]
    return "\n".join(lines)


def _of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where values stand in nested tables and lists."""
    found = [at] if at else []
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*at, key))
    return found

"""The losses of steps, a column a term."""

from __future__ import annotations

import math

import torch

from clsim.training.contract import Losses


def plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def test_columns_hold_each_step_and_nan_where_a_term_is_missing():
    losses, want = Losses(), dict[str, list[float | None]]()
    for step in range(9001):  # more than a column has room for at first, and no multiple of what waits
        terms = {"new": step + 0.5}
        if step % 3 == 1 and step < 2000:  # a term that is rare, and that ends
            terms["memory"] = -float(step)
        if step >= 5000:  # one that comes late
            terms["late"] = 1.0
        for name in ("new", "memory", "late"):
            want.setdefault(name, []).append(terms.get(name))
        losses.append({name: torch.tensor(value) for name, value in terms.items()})
    assert len(losses) == 9001
    found = losses.columns()
    assert {name: [plain(value) for value in column] for name, column in found.items()} == want
    assert losses.columns().keys() == found.keys()  # asking twice changes nothing
    losses.extend([{"new": torch.tensor(2.0)}, {}])
    assert len(losses) == 9003
    assert [plain(value) for value in losses.columns()["new"][-2:]] == [2.0, None]


def test_no_step_is_no_column():
    assert Losses().columns() == {}

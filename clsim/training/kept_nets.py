"""The files of nets that learnt without labels: a net each, under the hash of what decides its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from clsim.errors import DiskError
from clsim.models import nets
from clsim.records import atomic, states

State = dict[str, Tensor]


def read(path: Path) -> tuple[State, dict[str, Any]] | None:
    """Read a net that was kept, and what it took; None if the file is absent, damaged, or another one."""
    try:
        found, _ = states.read(path)
        body, cost = dict(found["body"]), dict(found["cost"])
    except Exception:  # a broken file fails in many ways; whatever it is, the net is trained again
        return None
    return (body, cost) if all(isinstance(value, Tensor) for value in body.values()) else None


def fits(net: nets.Net, body: State) -> bool:
    """Tell whether weights are those of a net's body, each of its shape and finite."""
    own = {name: value.shape for name, value in net.body.state_dict().items()}
    return own == {n: value.shape for n, value in body.items()} and all(bool(v.isfinite().all()) for v in body.values())


def keep(folder: Path | None, body: State, cost: dict[str, Any]) -> None:
    """Keep a net and what it took; a disk that refuses it is a warning."""
    if folder is None:
        return
    try:
        atomic.write(folder / cost["file"], states.packed({"body": body, "cost": cost}))
    except DiskError as error:
        atomic.warn_unkept(folder / cost["file"], error, "each run trains this net anew until it can be")


@contextlib.contextmanager
def locked(folder: Path | None, key: str) -> Iterator[None]:
    """Let one process at a time train a net; the others wait, and then read it."""
    with contextlib.ExitStack() as held:
        if folder is not None:
            with contextlib.suppress(DiskError):  # no folder, or one without locks: all train
                atomic.make_folder(folder)
                held.enter_context(atomic.locked(folder / f".{key}.lock"))
                atomic.tidy(folder, [f"{key}.pt"])
        yield

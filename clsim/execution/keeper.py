"""Half-made sets: who watches them, and the file from which a killed command goes on."""

from __future__ import annotations

import hashlib
import io
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.pool.draft import Draft
from clsim.pool.exemplars import Exemplars
from clsim.records.atomic import write
from clsim.records.store import CHECKPOINT, checkpoint_format
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.spec.sources import data_digest


class CondenseWatch(Protocol):
    """What is told of a set while it is made, as :class:`clsim.cli.condense.Easel` is."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """An iteration is done; asking for the loss waits for the device."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """The images as they are now; every so often, and at the end."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """A net has been trained on the set, and tested."""


class Nobody:
    """A watch that does nothing: a base for one that does little."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """Do nothing."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """Do nothing."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """Do nothing."""


@dataclass
class Keeper:
    """Keeps a half-made set in a file, so that a killed command goes on where it was.

    A :class:`clsim.pool.draft.DraftWatch`.

    Args:
        path: the file of the state; None keeps nothing.
        key: stands for everything that decides the set, see :func:`key_of`; a state of another set is refused.
        watch: what is told of the work.
        seconds: time between two states, and between two pictures.
        classes: names of the classes, for the pictures.

    Attributes:
        losses: of the float images and of the stored ones, once the set is made; None where there is no loss.
    """

    path: Path | None
    key: str
    watch: CondenseWatch
    seconds: float = 30.0
    classes: tuple[str, ...] = ()
    losses: tuple[float, float] | None = None
    _saved: float = field(default_factory=time.monotonic)
    _drawn: float = float("-inf")

    def resume(self) -> dict[str, Any] | None:
        """The state in the file, or None.

        Raises:
            InputError: if it is damaged, or of another set.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways inside torch.load
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise InputError(f"{self.path}: cannot be read ({line}); --force begins anew") from None
        if checkpoint_format(state) != CHECKPOINT or state.get("key") != self.key:
            raise InputError(
                f"{self.path}: found the state of another set, or of another format; allowed: the same command as "
                "before, another --out, or --force, which begins anew"
            )
        return state

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """Tell the watch; write the state and a picture if ``seconds`` have passed since the last."""
        self.watch.iteration(done, total, lambda: float(loss))
        now = time.monotonic()
        if now - self._drawn > self.seconds:
            self.watch.picture(draft.exemplars(), self.classes)
            self._drawn = now
        if self.path is not None and now - self._saved > self.seconds:
            state = {**draft.state_dict(), "iteration": done, "format": CHECKPOINT, "key": self.key}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            write(self.path, buffer.getvalue())
            self._saved = time.monotonic()

    def finish(self, loss: float, stored: float) -> None:
        """Note what rounding costs."""
        self.losses = loss, stored


def key_of(spec: RunSpec, method: str, *asked: Any) -> str:
    """A hash of all that decides a set: spec, data, the method's code where it is the user's own, the rest."""
    first = "0.1.0"  # the version whose half-made sets have the same format
    what = [first, spec.as_dict(), data_digest(spec.data), registry.digest(method), method, *asked]
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()

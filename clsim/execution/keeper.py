"""Unfinished condensed sets: the file from which an interrupted command resumes, and the display of the progress."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from clsim.pool.draft import Draft
from clsim.pool.exemplars import Exemplars
from clsim.records import states
from clsim.records.atomic import write
from clsim.spec import registry
from clsim.spec.followed import fingerprint
from clsim.spec.revisions import revisions
from clsim.spec.run import RunSpec
from clsim.spec.sources import data_digest


class CondenseWatch(Protocol):
    """Display of a condensation in progress, such as :class:`clsim.cli.condense.Easel`."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """Show that an iteration is done; calling ``loss`` waits for the device."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """Show the current images; called from time to time, and at the end."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """Show that a net has been trained on the set and tested."""


class Nobody:
    """A :class:`CondenseWatch` that shows nothing; a base for watches that show only some of the events."""

    def iteration(self, done: int, total: int, loss: Callable[[], float]) -> None:
        """Do nothing."""

    def picture(self, exemplars: Exemplars, classes: Sequence[str]) -> None:
        """Do nothing."""

    def net(self, done: int, total: int, accuracy: float) -> None:
        """Do nothing."""


@dataclass
class Keeper:
    """Keeps an unfinished set in a file, so that an interrupted command resumes where it was.

    A :class:`clsim.pool.draft.DraftWatch`.

    Args:
        path: the file of the state; None: no file.
        key: hash of everything that decides the set, see :func:`key_of`; the state of another set is refused.
        watch: display of the progress.
        seconds: seconds between two saved states, and between two pictures.
        classes: names of the classes, for the pictures.

    Attributes:
        losses: losses of the float images and of the stored ones, once the set is made; None if there is no loss.
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
        """Return the state in the file; None if there is none.

        Raises:
            InputError: if the file is damaged, or holds the state of another set.
        """
        if self.path is None:
            return None
        cure = "the same command as before goes on with it, another --out or --force begins anew"
        return states.load(self.path, "set", ("key", self.key), cure)

    def step(self, done: int, total: int, loss: Tensor, draft: Draft) -> None:
        """Show the progress; save the state and show a picture if ``seconds`` have passed since the last one."""
        self.watch.iteration(done, total, lambda: float(loss))
        now = time.monotonic()
        if now - self._drawn > self.seconds:
            self.watch.picture(draft.exemplars(), self.classes)
            self._drawn = now
        if self.path is not None and now - self._saved > self.seconds:
            state = {**draft.state_dict(), "iteration": done, "key": self.key}
            write(self.path, states.packed(state))
            self._saved = time.monotonic()

    def finish(self, loss: float, stored: float) -> None:
        """Keep the losses of the float images and of the stored ones."""
        self.losses = loss, stored


def key_of(spec: RunSpec, method: str, options: Mapping[str, Any], *asked: Any) -> str:
    """Hash all that decides a set: the spec, the data, the method and its code if it is the user's, and ``asked``.

    The revisions of the method are part of it, so that no set is begun by one version of it and finished by another.
    """
    first = "0.1.0"  # the first version whose unfinished sets have this format
    tables, code = spec.as_dict(), fingerprint(registry.codes("buffers", method))
    what = [first, tables, data_digest(spec.data), code, method, sorted(options.items()), *asked]
    what += revisions({**tables, "memory": {"buffer": method, "options": options}})
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()

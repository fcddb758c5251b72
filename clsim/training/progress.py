"""Who watches a run: the contract, and nobody."""

from __future__ import annotations

from typing import Protocol

from clsim.records.search import Search, Trial


class Progress(Protocol):
    """Somebody who watches a run; see :mod:`clsim.reporting.terminal`."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Training on ``images`` samples (epochs counted) of an experience begins."""

    def trial(self, trial: Trial) -> None:
        """Training on the same experience begins anew, one of several times, in a controller's search."""

    def step(self, images: int) -> None:
        """A batch was learnt."""

    def searched(self, search: Search) -> None:
        """A controller's search for the trade-off of an experience is over."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """An experience is done; NaN where nothing was tested."""


class Quiet:
    """Nobody watches."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Silence."""

    def trial(self, trial: Trial) -> None:
        """Silence."""

    def step(self, images: int) -> None:
        """Silence."""

    def searched(self, search: Search) -> None:
        """Silence."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """Silence."""

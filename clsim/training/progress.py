"""Display of a run's progress: the contract, and one that shows nothing."""

from __future__ import annotations

from typing import Protocol

from clsim.records.search import Search, Trial


class Progress(Protocol):
    """Display of a run in progress; see :mod:`clsim.reporting.terminal`."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Show that an experience begins; ``images``: samples that will be trained on, each counted once per epoch."""

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        """Show that the training of a label round begins.

        Args:
            number: the number of the round; 0: the training on the initial set.
            rounds: the number of rounds.
            labelled: the number of labels in the experience.
            images: samples that will be trained on, each counted once per epoch.
        """

    def trial(self, trial: Trial) -> None:
        """Show that a controller's search begins another trial on the same experience."""

    def step(self, images: int) -> None:
        """Show that a batch was learnt."""

    def searched(self, search: Search) -> None:
        """Show that a controller's search on an experience is finished."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """Show the accuracies after an experience; NaN where nothing was tested."""


class Quiet:
    """A :class:`Progress` that shows nothing. Final."""

    def experience(self, position: int, total: int, images: int) -> None:
        """Do nothing."""

    def asked(self, number: int, rounds: int, labelled: int, images: int) -> None:
        """Do nothing."""

    def trial(self, trial: Trial) -> None:
        """Do nothing."""

    def step(self, images: int) -> None:
        """Do nothing."""

    def searched(self, search: Search) -> None:
        """Do nothing."""

    def row(self, position: int, accuracy: list[float]) -> None:
        """Do nothing."""

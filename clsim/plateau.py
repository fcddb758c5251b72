"""Plateaus: epochs without a gain in validation accuracy, after which the learning rate falls, and training stops."""

from __future__ import annotations


class Plateau:
    """Counts the epochs of an experience that brought no gain. Final.

    The survey of De Lange et al. (TPAMI 2021): × 0.1 after 5 epochs in a row without gain, stop after more than 10,
    and go on with the best epoch's model.

    Args:
        fall: the rate falls after every so many epochs in a row without a gain; 0 = never.
        stop: training stops after more than so many; 0 = never.

    Attributes:
        falls: how often the rate has fallen in this experience.
    """

    def __init__(self, fall: int = 0, stop: int = 0) -> None:
        self._fall, self._stop = fall, stop
        self.begin()

    @property
    def watches(self) -> bool:
        """Whether anybody asks for validation accuracies."""
        return bool(self._fall or self._stop)

    def begin(self) -> None:
        """An experience begins, or what follows its last epoch: the rate is the whole one."""
        self.falls = self._without = 0
        self._best = -1.0

    def epoch(self, accuracy: float) -> bool:
        """An epoch is over. Returns whether it brought a gain: more than the best so far."""
        if accuracy > self._best:
            self._best, self._without = accuracy, 0
            return True
        self._without += 1
        if self._fall and self._without % self._fall == 0:
            self.falls += 1
        return False

    @property
    def over(self) -> bool:
        """Whether it is time to stop."""
        return 0 < self._stop < self._without

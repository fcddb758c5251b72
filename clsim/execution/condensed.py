"""A condensed set: the images, and what was found out about them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsim.data.cache import Dataset
from clsim.pool.contracts import decoded
from clsim.pool.exemplars import Exemplars
from clsim.records.atomic import write


@dataclass(frozen=True)
class Condensed:
    """A set, and what was found out about it.

    Attributes:
        exemplars: as stored: uint8 images, balanced.
        factor: each stored image holds factor × factor small ones.
        source: the data set that it was made of.
        losses: (of the float images, of the stored ones), under the same draws; None where there is no loss.
        accuracies: of nets trained on it, on the test part.
        seconds: of the making, and of the evaluation; of this process, when it took up a half-made set.
    """

    exemplars: Exemplars
    factor: int
    source: Dataset
    losses: tuple[float, float] | None
    accuracies: tuple[float, ...]
    seconds: tuple[float, float]

    def write(self, path: Path) -> None:
        """As ``.npz``: a data set of ``npz``, with the test part of what it was made of.

        ``x_train`` holds the images as a net sees them; where a stored image holds several, what is stored is beside
        them as ``x_stored``, with ``factor``. ``classes`` names what the labels count.
        """
        shown = decoded(self.exemplars, self.factor)
        arrays: dict[str, Any] = {
            "x_train": shown.x.cpu().numpy(),
            "y_train": shown.y.cpu().numpy(),
            "x_test": np.asarray(self.source.test_x),
            "y_test": np.asarray(self.source.test_y),
            "classes": np.array(self.source.classes),
        }
        if self.factor > 1:
            arrays |= {"x_stored": self.exemplars.x.cpu().numpy(), "factor": np.array(self.factor)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write(path, buffer.getvalue())

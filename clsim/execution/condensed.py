"""A condensed set: its images, losses and accuracies."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsim import notebook
from clsim.data.cache import Dataset
from clsim.pool.contracts import decoded
from clsim.pool.exemplars import Exemplars
from clsim.records.atomic import write


@dataclass(frozen=True)
class Condensed:
    """A condensed set: its images, losses and accuracies.

    Attributes:
        exemplars: the images as stored: uint8, balanced over the classes.
        factor: each stored image holds factor × factor small ones.
        source: the data set that the set was made from.
        losses: the method's loss of the float images and of the stored ones, under the same draws; None if it has none.
        accuracies: accuracy on the test part of each net that was trained on the set.
        seconds: seconds of making the set and of evaluating it; those of this process alone if the work was resumed.
    """

    exemplars: Exemplars
    factor: int
    source: Dataset
    losses: tuple[float, float] | None
    accuracies: tuple[float, ...]
    seconds: tuple[float, float]

    def __repr__(self) -> str:
        made = f"{len(self.exemplars)} images of {self.source.name} for {len(self.source.classes)} classes"
        return f"<Condensed: {made}{f', accuracy {self._accuracy}' if self.accuracies else ''}>"

    def _repr_html_(self) -> str:
        facts = {
            "images": len(self.exemplars),
            "small ones in each": self.factor**2,
            "accuracy of nets trained on them": self._accuracy if self.accuracies else None,
            "loss, as floats and as stored": None if self.losses is None else "{:.4g}, {:.4g}".format(*self.losses),
            "seconds to make, to evaluate": "{:.1f}, {:.1f}".format(*self.seconds),
        }
        return notebook.facts(f"condensed {self.source.name}", facts)

    @property
    def _accuracy(self) -> str:
        return ", ".join(f"{100 * share:.1f} %" for share in self.accuracies)

    def write(self, path: Path) -> None:
        """Write the set as an ``.npz`` file; see :meth:`content`."""
        write(path, self.content())

    def content(self) -> bytes:
        """Return the set as an ``.npz`` file that is a data set ``npz``, with the test part of its source.

        ``x_train`` holds the images as a net sees them. Where a stored image holds several, the stored images are
        there too, as ``x_stored``, with their ``factor``. ``classes`` names the labels 0, 1, 2 …
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
        return buffer.getvalue()

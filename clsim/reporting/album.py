"""Pictures of the first picks of a run, from the data set itself where it is at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.reporting.held import Held, montage
from clsim.reporting.picked import picks
from clsim.spec.reader import arguments
from clsim.spec.sources import OWN_DATA, data_digest
from clsim.spec.tables import DataSpec

FIRST = 20
"""Most picks of a run that are shown."""


@dataclasses.dataclass(frozen=True)
class Album:
    """The first picks of a run, best first.

    Attributes:
        images: uint8 (n, h, w, c) with one channel or three.
        labels: the answers of the oracle, (n,).
    """

    images: np.ndarray
    labels: np.ndarray

    @property
    def address(self) -> str:
        """The pictures in one row, as a ``data:`` address."""
        return montage(Held(np.array([len(self.images)]), np.zeros(len(self.images), np.int64), self.images), FIRST)


def album(record: Mapping[str, Any]) -> Album:
    """Fetch the first pictures that a run asked for.

    Raises:
        InputError: in one line that says why there are none: the data are not at hand, are others by now, or are no
            pictures.
    """
    every = picks(record)
    found = [of for of in every if of.experience == every[0].experience][-1:]  # all rounds of it
    if not found or not found[0].rows:
        raise InputError("no label was asked for")
    spec = DataSpec(**arguments(DataSpec, record["spec"]["data"], "record", "data"))
    spec = dataclasses.replace(spec, features="", weights="")  # the pictures that these are of
    if spec.dataset in OWN_DATA and data_digest(spec) not in [digest for _, digest in record["spec"]["sources"]]:
        raise InputError(f"{spec.path}: its content is not that of the run")
    data = load(spec, data_root(None), progress=False, download=False)
    rows, labels = np.array(found[0].rows), np.array(found[0].labels)
    rows, labels = (column[rows >= 0][:FIRST] for column in (rows, labels))  # what is of another data set has no row
    if not len(rows):
        raise InputError("no picture of its data set was asked for")
    x = data.train_x
    if rows.max() >= len(x):
        raise InputError(f"{spec.dataset}: found row {rows.max()}, allowed: 0 to {len(x) - 1}")
    if x.ndim != 4 or x.dtype != np.uint8 or x.shape[1] not in (1, 3):
        raise InputError(f"{spec.dataset}: its samples are no pictures")
    return Album(np.ascontiguousarray(x[rows].transpose(0, 2, 3, 1)), labels)

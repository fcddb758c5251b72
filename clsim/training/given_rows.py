"""An embedding that belongs to the data set's own images, row by row: of the user's file, or of a frozen net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clsim.data import backbones, npz
from clsim.data.datasets import data_root
from clsim.errors import InputError
from clsim.spec.embedding import EmbeddingSpec
from clsim.streams.stream import Stream


def rows(embedding: EmbeddingSpec, stream: Stream, kept: Path | None) -> Tensor:
    """Return the embedding of each training image of the stream's data set, float32 (n, width), on its device.

    Args:
        embedding: the table of the spec; its name is that of a file or of a frozen net.
        stream: the stream.
        kept: folder of nets that were trained before, in that of the data sets; None: the usual one of the data sets.

    Raises:
        InputError: if the stream's samples are not those of a data set, or there is no such file or net.
    """
    source = stream.source
    stream.rows_of(torch.empty(0, dtype=torch.int64, device=stream.device))  # of what has none, says so
    if embedding.from_file:
        found = npz.embedding(Path(embedding.name), None if source is None else len(source.train_y))
        return torch.from_numpy(found).to(stream.device)
    if source is None:
        raise InputError(f"embedding.name: found {embedding.name!r} without a data set, allowed: with one")
    root = data_root(None) if kept is None else kept.parent.parent
    made = backbones.embedded(source, embedding.name, embedding.weights, root, where="embedding.name")
    return torch.from_numpy(np.array(made.train_x)).to(stream.device)

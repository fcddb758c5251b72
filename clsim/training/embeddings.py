"""What a run learns without labels before an experience: the pool's embedding, and the first weights of its net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.selectors.distances import principal
from clsim.spec.readers import readers
from clsim.spec.run import RunSpec
from clsim.streams.stream import Stream
from clsim.training import given_rows, kept_nets, nursery

PRINCIPAL = 10000
"""Number of images, at most, of which principal components are taken."""


class Embeddings:
    """The embedding of a run's pools, experience by experience, and the first weights of its net. Final.

    Args:
        spec: the resolved spec.
        stream: the stream.
        kept: folder of nets that were trained before; None: none is kept.
        read: whether a selector reads the embedding; None: whether one of those that the spec names does.

    Raises:
        InputError: if this stream's samples have no such embedding; nothing is trained before.
    """

    def __init__(self, spec: RunSpec, stream: Stream, kept: Path | None = None, read: bool | None = None) -> None:
        self._spec, self._stream, embedding = spec, stream, spec.embedding
        asked = embedding.name != "none" and (bool(readers(spec)) if read is None else read)
        self._trains = asked and not embedding.of_rows
        self._starts = spec.model.learns_start
        self._net: nets.Net | None = None
        self._axes: tuple[Tensor, Tensor] | None = None
        self._rows: Tensor | None = None
        self._first: tuple[kept_nets.State, dict[str, Any] | None] | None = None
        for key, name, used in (
            ("embedding.name", embedding.name, self._trains),
            ("model.start", spec.model.start, self._starts),
        ):
            if used and len(stream.shape) != 3:
                raise InputError(
                    f"{key}: found {name!r} with vectors of width {stream.shape[0]}, which are features already; "
                    "allowed: none, or images"
                )
        if asked and embedding.of_rows:
            self._rows = given_rows.rows(embedding, stream, kept)
        self._nursery = nursery.Nursery(spec, stream, kept) if self._trains or self._starts else None

    @property
    def embed(self) -> Embeddings | None:
        """Itself, where pools have an embedding apart from the learner's features; else None."""
        return self if self._trains or self._rows is not None else None

    def begin(self, position: int) -> list[dict[str, Any]]:
        """Make the embedding of an experience; return an entry of the record for each net that belongs to it."""
        found = []
        if self._starts and position == self._stream.schedule[0]:
            found.append({"experience": position, "use": "start", **(self._weights()[1] or {})})
        if self._nursery is not None and self._trains:
            one, where = self._spec.embedding, "[embedding.options]"
            state, cost = self._nursery.learnt(one.name, one.model, one.options, where, position)
            self._net = self._nursery.net(one.model, one.options, where)
            self._net.body.load_state_dict(state)
            self._axes = self._principal(self._stream.images(position))
            found.append({"experience": position, "use": "embedding", **cost})
        return found

    def __call__(self, samples: Exemplars) -> Tensor:
        """Compute the embedding of samples, float32 (n, width), in eval mode and without augmentation."""
        if self._rows is not None:
            return self._rows[self._stream.rows_of(samples.index)]
        return torch.cat([self._features(x) for x in samples.x.split(500)])

    def _features(self, x: Tensor) -> Tensor:
        """Compute the embedding of raw images (n, c, h, w)."""
        if self._net is None or self._nursery is None:
            raise InputError("embedding: found no net, allowed: within an experience")
        with nets.evaluating(self._net), torch.no_grad(), self._nursery.precision():
            found = self._net.features(self._nursery.transform.plain(x)).float()
        return found if self._axes is None else (found - self._axes[0]) @ self._axes[1]

    def _principal(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        """Find the principal components of an experience's features; None where all of them are kept."""
        self._axes, width = None, self._spec.embedding.components
        some = images[:: -(-len(images) // PRINCIPAL)]
        if not 0 < width < self._features(some[:1]).shape[1]:
            return None
        return principal(torch.cat([self._features(x) for x in some.split(500)]), width)

    def started(self, net: nets.Net) -> nets.Net:
        """Give a net of the run's architecture the first weights that the spec names, if it names any; return it."""
        model = self._spec.model
        if model.start == "none":
            return net
        try:
            net.body.load_state_dict(self._weights()[0])
        except RuntimeError as error:
            line = " ".join(str(error).split())[:160]
            raise InputError(
                f"model.start: {model.start!r} does not fit model {model.name!r} ({line}); allowed: weights of the "
                "same model with the same options, for samples of the same shape"
            ) from None
        if model.frozen:
            net.freeze()
        return net

    def starting(self, fresh: Callable[[int], nets.Net]) -> Callable[[int], nets.Net]:
        """Make a maker of nets one that also gives each its first weights."""
        return lambda seed: self.started(fresh(seed))

    def _weights(self) -> tuple[kept_nets.State, dict[str, Any] | None]:
        """Return the first weights and what they took; train them when they are first needed."""
        model = self._spec.model
        if self._first is None and self._nursery is not None and self._starts:
            first = self._stream.schedule[0]
            self._first = self._nursery.learnt(model.start, model.name, model.options, "[model.options]", first)
        elif self._first is None:
            self._first = kept_nets.read(Path(model.start).expanduser())
        if self._first is None:
            raise InputError(f"model.start: {model.start!r} is no file of a net that clsim trained without labels")
        return self._first

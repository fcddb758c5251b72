"""Nets that a run trains beside its learner: those that learn without labels, and irreducible-loss nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clsim.errors import InputError
from clsim.spec.readers import irreducible_readers
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Setup
from clsim.training.embeddings import Embeddings
from clsim.training.irreducible import Irreducible


class Beside:
    """What is trained in each experience before the learner is. Final.

    Args:
        spec: the resolved spec.
        stream: the stream.
        kept: folder of nets that learnt without labels; None: none is kept.
        given: whether a component was given as an object, which may read whatever there is.

    Attributes:
        embeddings: the nets that learn without labels.

    Raises:
        InputError: if a controller would search with irreducible losses; nothing is trained before.
    """

    def __init__(self, spec: RunSpec, stream: Stream, kept: Path | None, given: bool) -> None:
        self.embeddings = Embeddings(spec, stream, kept, True if given else None)
        readers = irreducible_readers(spec)
        if readers and spec.controller.name != "none":
            raise InputError(
                f"controller.name: found {spec.controller.name!r} with {readers[0]!r}, whose irreducible-loss net each "
                "attempt of the search would train; allowed: none"
            )
        if readers and spec.labelling.update == "batch":
            raise InputError(
                f"labelling.update: found 'batch' with {readers[0]!r}, whose irreducible losses are those of labels "
                "that are there before training; allowed: 'round'"
            )
        self._irreducible = Irreducible(spec.irreducible, spec.seed) if readers else None

    @property
    def trains_irreducible(self) -> bool:
        """Whether there are irreducible-loss nets."""
        return self._irreducible is not None

    @property
    def seconds(self) -> float:
        """The time that irreducible-loss nets have taken so far."""
        return 0.0 if self._irreducible is None else self._irreducible.seconds

    def score(self, experience: Experience, setup: Setup, *, again: bool) -> dict[str, Any]:
        """Give labelled samples their irreducible losses, if a selector reads them; return what it took, or nothing.

        Args:
            experience, setup, again: as for :meth:`clsim.training.irreducible.Irreducible.score`.
        """
        irreducible = self._irreducible
        return {} if irreducible is None else {"irreducible": irreducible.score(experience, setup, again=again)}

"""Labels that come while an experience is learnt, although all of them were told before its first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from clsim.pool.exemplars import Exemplars, concatenate
from clsim.spec.run import RunSpec
from clsim.streams.stream import Experience


class Injection:
    """An experience as its learner knows it at each step of a training. Final.

    A label is injected when its time has come (``labelling.inject``); until then it is absent, and its sample is in the
    unlabelled part alone. The classes of the experience are those of all its labels from the beginning, as in
    semi-supervised learning, where the classes are known and labels are few.

    Args:
        whole: the experience with all of its labels.
        waiting: int64 (n,), rows of the labelled part whose labels wait, in the order in which they come; the others
            are there from the first step. None: no label waits.
        spec: the run's spec.
        steps: number of batches of the training.
        incoming: returns the samples that the learner's batches are made from.

    Attributes:
        now: the experience with the labels that have come.
        samples: what the batches are made from now.
    """

    def __init__(
        self,
        whole: Experience,
        waiting: Tensor | None,
        spec: RunSpec,
        steps: int,
        incoming: Callable[[Experience], Exemplars],
    ) -> None:
        self._whole, self._spec, self._steps, self._incoming = whole, spec, steps, incoming
        self.samples = incoming(whole)  # which refuses an experience that it will not take in the end
        self._waiting = torch.empty(0, dtype=torch.int64) if waiting is None else waiting
        self._count = spec.labelling.there(len(self._waiting), 0, steps)
        self.now = self._with(self._count)
        if self.now is not whole:
            self.samples = incoming(self.now)

    def given(self) -> Exemplars:
        """Return :attr:`samples`."""
        return self.samples

    @property
    def gradual(self) -> bool:
        """Whether some label is not there at the first step."""
        return self._spec.labelling.there(len(self._waiting), 0, self._steps) < len(self._waiting)

    def advance(self, step: int) -> bool:
        """Let the labels come whose time is step ``step`` or before; return whether there are any."""
        count = self._spec.labelling.there(len(self._waiting), step, self._steps)
        if count == self._count:
            return False
        self._count, self.now = count, self._with(count)
        self.samples = self._incoming(self.now)
        return True

    def _with(self, count: int) -> Experience:
        """Return the experience with the first ``count`` of the labels that wait."""
        if count == len(self._waiting):
            return self._whole
        whole, unlabelled = self._whole, self._whole.unlabelled
        hidden = torch.zeros(len(whole.train), dtype=torch.bool, device=whole.train.y.device)
        hidden[self._waiting[count:]] = True
        extent = len(whole.train), 0 if unlabelled is None else len(unlabelled)
        if not self._spec.labels.include_labelled:  # else they are there already
            samples = whole.train[hidden]
            samples = dataclasses.replace(samples, y=torch.full_like(samples.y, -1))
            unlabelled = samples if unlabelled is None else concatenate([unlabelled, samples])
        return dataclasses.replace(whole, train=whole.train[~hidden], unlabelled=unlabelled, extent=extent)

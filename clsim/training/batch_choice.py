"""The choice of the samples of each gradient step, out of candidates that are scored by the learner's present net."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.models.nets import Net
from clsim.pool.contracts import chosen, invalid
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selector
from clsim.spec import registry
from clsim.spec.options import bind
from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Around, Learner, Setup, Terms
from clsim.training.outputs import Taken, noted


class Choosing(Around[Learner]):
    """A learner that takes its steps on less than what it is handed, and counts on what. Abstract.

    Args:
        setup: net, memory, transform, generators.
        inner: the learner, whose ``observe`` takes a step on labelled samples.

    Raises:
        InputError: if that learner is trained at the end of an experience alone.
    """

    takes_terms: ClassVar[bool] = True  # what the inner learner does not take, it has refused itself
    takes_average: ClassVar[bool] = True
    takes_late_labels: ClassVar[bool] = True

    def __init__(self, setup: Setup, inner: Learner) -> None:
        super().__init__(setup, inner)
        if inner.trains_at_end:
            raise InputError(
                f"batch.selector: found {setup.spec.batch.selector!r} with learner {setup.spec.learner.name!r}, which "
                "is trained at the end of an experience alone; allowed: a learner that takes a step on each batch"
            )
        self.taken = Taken()
        self.seconds = 0.0
        self.passes = 0

    def begin(self, experience: Experience) -> None:
        """Begin to count, and let the learner begin."""
        self.taken, self.seconds, self.passes = Taken(), 0.0, 0
        self.inner.begin(experience)

    def counts(self) -> dict[str, Any]:
        """Say what steps were taken on since the experience began; waits for the device.

        Returns:
            The counts of :meth:`clsim.training.outputs.Taken.counts`, with ``passes``: samples passed forward to choose
            them, and ``seconds``: the time of choosing.
        """
        return {**self.taken.counts(), "passes": self.passes, "seconds": self.seconds}


class BatchChoice(Choosing):
    """A learner that takes each step on the chosen ones of the samples that it is handed. Final.

    The candidates B are augmented once and scored in one forward pass without gradient; the step is taken on the
    n_b of them that the selector chooses, in the form in which they were scored, and on what the memory gives. With
    ``training.passes`` above 1, each step on a batch chooses anew. A selector draws from a generator of its own, and
    sees keys that are drawn anew in each step: ``random`` would choose the same samples in each epoch otherwise.

    Cost: one forward pass of the candidates a step; nothing waits for the device.

    Args:
        setup: net, memory, transform, generators.
        inner: the learner, whose ``observe`` takes a step on labelled samples.
        select: the selector.

    Raises:
        InputError: if the learner is not trained on batches, or has features of its own that cannot be scored in
            training mode.
    """

    def __init__(self, setup: Setup, inner: Learner, select: Selector) -> None:
        super().__init__(setup, inner)
        self._select, self._spec = select, setup.spec.batch
        self._name = f"batch.selector {self._spec.selector!r}"
        innermost = inner
        while isinstance(innermost, Around):
            innermost = innermost.inner
        self._own_features = type(innermost).features is not Learner.features
        if self._own_features and self._spec.mode == "train":
            raise InputError(
                f"batch.mode: found 'train' with learner {setup.spec.learner.name!r}, whose features are not those of "
                "its net alone; allowed: 'eval'"
            )

    def observe(self, batch: Exemplars) -> Terms:
        """Take one gradient step on the chosen ones of ``batch``."""
        started, setup = time.perf_counter(), self.setup
        cost, before = setup.cost, setup.cost.forward_passes
        size = self._spec.picked(setup.spec.training.batch_size, len(batch))
        x = setup.transform.train(batch.x, setup.randomness.augment)
        rows = self._chosen(batch, x, size)
        try:
            picks, inputs = batch[rows], x.index_select(0, rows)
        except IndexError as error:
            raise invalid(self._name, str(error), len(batch), size) from None
        del x  # its memory serves the step
        passed, seconds = cost.forward_passes - before, time.perf_counter() - started
        self.passes, self.seconds = self.passes + passed, self.seconds + seconds
        cost.candidate_passes += passed
        cost.select_seconds += seconds
        with setup.prepared.held(picks.x, inputs), noted(self.inner.net, setup.prepared.taken) as outputs:
            terms = self.inner.observe(picks)
        self.taken.add(picks, outputs.first(len(picks)))
        return terms

    def _chosen(self, batch: Exemplars, x: Tensor, size: int) -> Tensor:
        """Choose ``size`` rows of the candidates; a selector that returns fewer gets the rest at random."""
        setup, rng = self.setup, self.setup.randomness.batch
        key = torch.rand(len(batch), generator=rng).to(batch.device)
        candidates = dataclasses.replace(batch, x=x, key=key)
        with setup.transform.done():
            pool = self._pool(candidates)
            rows = chosen(self._select, pool, size, rng, self._name, look=False).index
        if len(rows) < size:
            others = torch.ones(len(batch), device=rows.device).index_fill_(0, rows, -1.0) * key
            rows = torch.cat([rows, others.argsort(descending=True)[: size - len(rows)]])
        return rows

    def _pool(self, candidates: Exemplars) -> Pool:
        """Put augmented candidates under the learner's net."""
        setup, net = self.setup, self.net
        train = self._spec.mode == "train"

        def in_training(x: Tensor, task: Tensor) -> Tensor:
            with _training(net):
                return net.features(x).float()

        own = self.inner.features if self._own_features else None
        return Pool(
            candidates,
            net,
            setup.transform.plain,
            precision=setup.precision,
            features=in_training if train else own,
            batch_size=len(candidates) if train else 500,
            cost=setup.cost,
            classes=setup.classes or None,
            rate=setup.rate,
            columns=setup.columns,
            waits=False,
        )


def choosing(setup: Setup, learner: Learner, select: Any = None) -> Learner:
    """Return the learner or, as the table ``batch`` says, one around it that chooses the samples of its steps.

    Args:
        setup: the setup.
        learner: the learner.
        select: a selector in place of the one that the spec names.
    """
    batch, where = setup.spec.batch, "[batch.options]"
    if batch.selector == "none":
        return learner
    if select is None:
        found = registry.component("batches", batch.selector, batch.options, where)
    else:
        found = bind(select, batch.options, where, batch.selector)
    if not batch.prunes:
        return BatchChoice(setup, learner, found)
    pruning: Learner = found(setup, learner)
    return pruning


@contextmanager
def _training(net: Net) -> Iterator[None]:
    """Put a net into training mode inside, and into eval mode afterwards; a frozen body stays in eval mode."""
    net.train()
    try:
        yield
    finally:
        net.eval()


def refuse_unlabelled(setup: Setup, learner: Learner, stream: Stream) -> None:
    """Refuse a learner whose batches are unlabelled, of which nothing can be chosen by label.

    Raises:
        InputError: if the batches of the learner are not the labelled samples of the experience.
    """
    if setup.spec.batch.selector == "none":
        return
    first = stream.experience(stream.schedule[0])
    if learner.incoming(first) is not first.train:
        raise InputError(
            f"batch.selector: found {setup.spec.batch.selector!r} with learner {setup.spec.learner.name!r}, which "
            "learns from unlabelled batches; allowed: a learner from labelled samples (sgd, as in er and finetune; "
            "der, er-ace, ewc, lwf, icarl, ...)"
        )

"""Labels asked for in one pass: the selector decides on each batch of an experience as it comes, now or never.

The candidates of an experience come once, in a seeded order, in batches. The selector chooses by the learner's net as
it is then; the oracle tells the labels; the learner takes its steps on what was asked for; the memory is offered it
once. See :mod:`clsim.training.label_rounds` for choices out of a whole experience.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import torch

from clsim.acquisitions.stream_policies import StreamPolicy
from clsim.errors import InputError
from clsim.pool.contracts import chosen
from clsim.pool.exemplars import Exemplars, batch_count, batches, concatenate
from clsim.randomness import generator
from clsim.streams.stream import Experience, Stream
from clsim.training.contract import Learner, Losses, Setup
from clsim.training.experiment import Experiment
from clsim.training.label_rounds import entry_of, remembered, spread
from clsim.training.machine import peak_bytes


class LabelStream:
    """The passes of a run in which labels are asked for batch by batch. Final.

    A stream policy may ask for a share B of the candidates: the budget of the experience over their number. It may ask
    for less; what it lets pass is gone. Another selector chooses the best of each batch: of the first t of n candidates
    it asks for ⌊budget·t/n⌋. No experience is asked for more than its budget.

    A single sample waits for the next one that is asked for, since batch norm needs two. Where the labels told add a
    class, the learner begins again on the same experience, so that its softmax may range over it, and once more at the
    end, so that it knows all that was labelled; its learning rate goes on, while momentum starts anew if
    ``optimizer.restart`` says so. An experience of which nothing is labelled is not learnt at all.

    Args:
        experiment: the steps of the run.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._progress = experiment, experiment.progress
        self._stream, self._oracle = experiment.stream, experiment.stream.oracle

    def learn(
        self, position: int, setup: Setup, learner: Learner
    ) -> tuple[Setup, Learner, Experience, Losses, list[dict[str, Any]]]:
        """Pass over one experience, its initial set first.

        Args:
            position: the position of the experience.
            setup, learner: the setup and the learner as the experience before left them.

        Returns:
            The setup and the learner, the experience as the learner knows it, the losses of all steps, and an entry for
            the initial set and for the pass.

        Raises:
            InputError: if the batches of the learner are not its labelled samples.
        """
        experience = self._stream.experience(position)
        if learner.incoming(experience) is not experience.train:
            raise InputError(
                f"labelling.update: found 'batch' with learner {setup.spec.learner.name!r}, which learns from "
                "unlabelled batches; allowed: 'round', or a learner from labelled samples"
            )
        samples, initial = len(self._stream.candidates(position)[1]), self._oracle.initial[position]
        learning, entries = _Learning(self._stream, position, setup, learner, samples), []
        if len(initial):
            entries.append(entry_of(position, 0, "initial", initial.tolist()))
            self._oracle.tell(position, initial, "initial")
            self._progress.asked(0, 1, len(initial), len(initial))
            with self._experiment.training():
                self._learn_initial(learning)
            entries[0] |= {"labelled": len(initial), "train_seconds": setup.cost.train_seconds}
            row, rare = self._experiment.measure(learner, position)
            entries[0] |= {"accuracy": row, "accuracy_rare": rare}
        entries.append(self._passed(samples, learning))
        return setup, learner, learning.concluded(), learning.losses, entries

    def _learn_initial(self, learning: _Learning) -> None:
        """Learn the initial set, in one pass."""
        samples, setup = self._stream.experience(learning.position).train, learning.setup
        for batch in batches(samples, setup.spec.training.batch_size, setup.randomness.order):
            learning.take(batch)
            self._progress.step(len(batch))
        learning.end()

    def _passed(self, samples: int, learning: _Learning) -> dict[str, Any]:
        """Pass over the candidates; return the entry of the pass."""
        setup, position = learning.setup, learning.position
        before = dataclasses.replace(setup.cost)
        candidates, places = self._stream.candidates(position)
        self._progress.asked(1, 1, learning.labels, len(candidates))
        known = learning.known() or candidates[:0]
        with self._experiment.training():
            order = torch.randperm(len(candidates), generator=setup.randomness.order)
            budget = sum(setup.spec.labelling.asked(samples, len(places)))
            rows = self._walked(candidates, places, order, budget, learning)
        entry = entry_of(position, 1, setup.spec.labelling.selector, places[np.asarray(rows, dtype=np.int64)].tolist())
        cost = setup.cost
        entry |= {
            "labelled": int(self._oracle.revealed(position).sum()),
            "select_seconds": cost.select_seconds - before.select_seconds,
            "train_seconds": cost.train_seconds - before.train_seconds,
            "peak_bytes": peak_bytes(candidates.device),
        }
        picked = torch.tensor(rows, dtype=torch.int64, device=candidates.device)
        return entry | spread(candidates, picked, known, learning.learner)

    def _walked(
        self, candidates: Exemplars, places: np.ndarray, order: torch.Tensor, budget: int, learning: _Learning
    ) -> list[int]:
        """Decide on all candidates, batch by batch, and learn what is told; return the rows that were asked for."""
        setup, n = learning.setup, len(candidates)
        name, size = setup.spec.labelling.selector, setup.spec.training.batch_size
        rng, decides = generator(setup.spec.seed, f"label {learning.position} 1"), isinstance(setup.asks, StreamPolicy)
        if isinstance(setup.asks, StreamPolicy):
            setup.asks.budget = budget / max(n, 1)
        asked: list[int] = []
        for i in range(count := batch_count(n, size) if n else 0):
            part = order[i * size : n if i == count - 1 else (i + 1) * size]
            share = budget if decides else budget * int(i * size + len(part)) // n
            rows = self._chosen(candidates[part.to(candidates.device)], share - len(asked), rng, decides, learning)
            picks = part[rows]
            asked += picks.tolist()
            told = torch.from_numpy(self._oracle.tell(learning.position, places[picks.numpy()], name, 1))
            found = dataclasses.replace(candidates[picks.to(candidates.device)], y=told.to(candidates.device))
            learning.take(found[found.y >= 0] if len(found) else found)  # outsiders are dropped
            self._progress.step(len(part))
        learning.end()
        return asked

    def _chosen(
        self, batch: Exemplars, size: int, rng: torch.Generator, decides: bool, learning: _Learning
    ) -> torch.Tensor:
        """Let the selector choose up to ``size`` rows of a batch; return them on the CPU."""
        setup, started = learning.setup, time.perf_counter()
        if setup.asks is None or not (size or decides):
            return torch.empty(0, dtype=torch.int64)
        known = learning.known()
        roles = learning.stream.roles_at(learning.position, batch[:0] if known is None else known)
        pool = learning.learner.pool(batch, labelled=known, reference=learning.validation, **roles)
        rows = chosen(setup.asks, pool, size, rng, f"labelling.selector {setup.spec.labelling.selector!r}").index.cpu()
        if not decides and len(rows) < size and setup.spec.labelling.shortfall == "random":
            others = torch.randperm(len(batch), generator=rng)
            rows = torch.cat([rows, others[~torch.isin(others, rows)][: size - len(rows)]])
        setup.cost.select_seconds += time.perf_counter() - started
        return rows


class _Learning:
    """What is labelled and learnt in the pass over one experience. Final.

    Args:
        stream: the stream.
        position: the position of the experience.
        setup, learner: the setup and the learner as the experience before left them.
        samples: the number of samples that will come, labelled or not, by which the learning rate is planned.
    """

    def __init__(self, stream: Stream, position: int, setup: Setup, learner: Learner, samples: int) -> None:
        self.stream, self.position, self.setup, self.learner = stream, position, setup, learner
        self.validation = stream.experience(position).validation
        self.losses = Losses()
        self._told: list[Exemplars] = []
        self._waiting: list[Exemplars] = []
        self._seen: set[int] | None = None
        training = setup.spec.training
        self._steps = training.passes * batch_count(samples, training.batch_size)
        held = remembered(setup)
        # a memory that every batch updates holds some of this experience too
        self._held = [part[part.task != position] for part in held]
        self._note()

    @property
    def labels(self) -> int:
        """The number of samples of the experience that are labelled."""
        return sum(map(len, self._told))

    def known(self) -> Exemplars | None:
        """Return what is labelled: of the experience, then of the memory as it was before; None: nothing."""
        parts = [part for part in (*self._told, *self._held) if len(part)]
        return concatenate(parts) if parts else None

    def take(self, batch: Exemplars) -> None:
        """Learn labelled samples; a single one waits for company."""
        if len(batch):
            self._told.append(batch)
            self._waiting.append(batch)
            self._note()
        if sum(map(len, self._waiting)) > 1 or self.setup.spec.training.batch_size == 1:
            self.end()

    def end(self) -> None:
        """Learn what waits, if anything does, and offer it to the memory."""
        if not self._waiting:
            return
        batch, self._waiting = concatenate(self._waiting), []
        setup, seen = self.setup, self.stream.labels_seen(self.position)
        if seen != self._seen:
            self._begin(seen)
        for _ in range(setup.spec.training.passes):
            self.losses.append(self.learner.observe(batch))
        shares = self.stream.shares(self.position, setup.spec.memory.counted, setup.memory.known)
        setup.memory.after_batch(self.learner.remember(batch), shares, self.learner.pool)

    def concluded(self) -> Experience:
        """Let the learner know all that was labelled, if anything was; return the experience as it then is."""
        if self._seen is None:
            return self.stream.experience(self.position)
        return self._begin(self._seen)

    def _begin(self, seen: set[int]) -> Experience:
        """Let the learner begin, or begin again with what was told since; the learning rate goes on where it is."""
        pace, experience = self.setup.pace, self.stream.experience(self.position)
        done = 0 if self._seen is None else pace.step
        experience = dataclasses.replace(experience, again=self._seen is not None)
        self.learner.begin(experience)
        pace.step, pace.steps, self._seen = done, self._steps, seen
        return experience

    def _note(self) -> None:
        self.setup.classes.update(self.stream.labels_seen(self.position), self.setup.memory.begun)

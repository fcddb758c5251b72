"""The pool a selector chooses from, and the selection that it returns.

A selector is a function ``(pool, budget, *, rng) -> Selection``. The pool gives it what it asks for: nothing is
computed until then, and everything only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net, evaluating
from clsim.pool.draft import DraftWatch
from clsim.pool.dropout import Dropped
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.gradients import Gradients
from clsim.pool.scoring import History, ScoringNets, Trains


@dataclass(frozen=True)
class Selection:
    """Rows of a pool.

    Attributes:
        index: int64 (m,), best first, no row twice; m = min(budget, n).
        weight: float32 (m,), from 0, the mass that each row stands for: how many samples of the stream, candidates
            counted by their own mass. A memory scales those of each class to the mass of all its candidates. None: a
            selector that does not weigh.
        score: float32 (m,), a note on each row for the next time, kept in ``Exemplars.score``; or None.
    """

    index: Int[Tensor, " m"]
    weight: Shaped[Tensor, " m"] | None = None
    score: Shaped[Tensor, " m"] | None = None


Features = Callable[[Tensor, Tensor], Tensor]
"""Raw samples and their tasks → features, float32 (n, width), in eval mode and without augmentation."""


@runtime_checkable
class Selector(Protocol):
    """Chooses ``min(budget, len(pool))`` rows, best first. All randomness comes from ``rng`` (a CPU generator)."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Of ``pool``."""


class Pool:
    """Candidates, and what a net says of them. Final.

    Args:
        data: the candidates.
        net: whose features and scores they are; it is left as it was found, in its mode too. None: a proxy of
            ``trainer``, trained when first needed; without a trainer either, the vectors ``data.x`` are the features,
            and a selector that asks for more than features is refused.
        prepare: uint8 or vectors → the normalised input of the net, without augmentation.
        precision: makes the context of forward passes (autocast, or nothing).
        features: in place of the net's own; the net's head makes the logits of them.
        batch_size: samples a forward pass.
        cost: counters to add the forward passes to.
        trainer: makes proxies.
        classes: the labels known so far in the stream, which may be fewer than the head has; None: those that occur
            in the data and beside it.
        labelled: what is labelled (or in memory) already, and no candidate.
        reference: held-out labelled samples that the choice should serve, as far as it is among their classes.
        query, private: what the choice should resemble, and what it should avoid.
        incoming: the new batch, when the choice is what to replay with it.
        watch: who watches a condenser.

    Attributes:
        label: the class that all candidates are of, where a selector is applied to each class apart; else None.
    """

    def __init__(
        self,
        data: Exemplars,
        net: Net | None,
        prepare: Callable[[Tensor], Tensor],
        *,
        precision: Callable[[], AbstractContextManager] = nullcontext,
        features: Features | None = None,
        batch_size: int = 500,
        cost: Cost | None = None,
        trainer: Trains | None = None,
        classes: Iterable[int] | None = None,
        labelled: Exemplars | None = None,
        reference: Exemplars | None = None,
        query: Exemplars | None = None,
        private: Exemplars | None = None,
        incoming: Exemplars | None = None,
        watch: DraftWatch | None = None,
    ) -> None:
        self.data = data
        self.prepare, self.precision, self.watch = prepare, precision, watch
        self.cost = Cost() if cost is None else cost
        self._nets = ScoringNets(data if labelled is None else concatenate([data, labelled]), net, trainer)
        self._rows: Tensor | None = None  # in the pool that this one is a part of
        self._features = features
        self.batch_size = batch_size
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._members: list[Pool] = []
        self._beside = {"labelled": labelled, "reference": reference, "query": query, "private": private}
        self._beside["incoming"] = incoming
        self._pools: dict[str, Pool] = {}
        self._classes = None if classes is None else sorted(classes)
        self._above: Pool | None = None  # that this one is a part of, or beside
        self.label: int | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Pool:
        """A part of the pool; what is computed already is sliced, not computed again."""
        part = self._with(self.data[rows], self.net if self._outputs else None)
        part._nets, part._pools, part._beside, part.label = self._nets, self._pools, self._beside, self.label
        part._features = self._features
        part._rows = rows.to(self.data.device) if self._rows is None else self._rows[rows]
        part._members = [member[rows] for member in self._members]
        if self._outputs is not None:
            features, logits = self._outputs
            part._outputs = features[rows], logits[rows]
        return part

    def of(self, label: int, rows: Int[Tensor, " m"]) -> Pool:
        """The candidates of one class, which are at ``rows``; beside them the held-out samples of it, or none."""
        part = self[rows]
        part.label, part._pools, part._beside = label, dict(self._pools), dict(self._beside)
        part._pools.pop("reference", None)
        part._beside["reference"] = None
        if self.reference is not None:
            held_out = self.reference[(self.reference.data.y == label).nonzero().flatten()]
            if len(held_out):
                part._pools["reference"], part._beside["reference"] = held_out, held_out.data
        return part

    def apart(self, roles: Mapping[str, Int[Tensor, " _"]]) -> Pool:
        """The other candidates, with these rows beside them.

        Args:
            roles: ``labelled``, ``query`` or ``private`` → rows of this pool, int64.
        """
        taken = torch.cat([*roles.values()])
        others = torch.ones(len(self), dtype=torch.bool, device=self.data.device).index_fill_(0, taken, False)
        part = self[others.nonzero().flatten()]
        part._beside = self._beside | {name: self.data[rows] for name, rows in roles.items() if len(rows)}
        part._pools = self._pools | {name: self[rows] for name, rows in roles.items() if len(rows)}
        return part

    @property
    def net(self) -> Net:
        """The net behind the features and scores; to be read, never changed."""
        return self._nets.scoring()

    def fresh(self, seed: int) -> Net:
        """A net of the run's architecture, untrained, with weights drawn from ``seed``.

        Raises:
            InputError: if the pool has no trainer, which knows the architecture.
        """
        return self._nets.fresh(seed)

    @property
    def diverged(self) -> bool:
        """Whether a weight of a net behind the pool is not finite; waits for the device: why a choice went wrong."""
        return self._nets.diverged()

    @property
    def mass(self) -> Float[Tensor, " n"]:
        """float32 (n,), how many samples of the stream each candidate stands for: 1, or what its selector gave it."""
        return torch.ones_like(self.data.key) if self.data.mass is None else self.data.mass

    @property
    def features(self) -> Float[Tensor, "n width"]:
        """float32 (n, width), the penultimate layer in eval mode."""
        return self.data.x if self._nets.none else self._forward()[0]

    @property
    def logits(self) -> Float[Tensor, "n classes"]:
        """float32 (n, classes); −inf where a sample's task does not have the class."""
        return self._forward()[1]

    @property
    def probabilities(self) -> Float[Tensor, "n classes"]:
        """float32 (n, classes), softmax of the logits."""
        return self.logits.softmax(1)

    @property
    def predictions(self) -> Int[Tensor, " n"]:
        """int64 (n,), the likeliest class."""
        return self.logits.argmax(1)

    @property
    def visible(self) -> Bool[Tensor, "n classes"]:
        """bool (n, classes): the classes that a sample's task has."""
        return self.net.visible[self.data.task]

    @property
    def classes(self) -> Int[Tensor, " k"]:
        """int64 (k,), the labels known so far in the stream, in order; not those that the head has room for."""
        said = self._said()
        if said is not None:
            return torch.tensor(said, dtype=torch.int64, device=self.data.device)
        if self._above is not None:
            return self._above.classes
        labels = torch.cat([data.y for data in (self.data, *self._beside.values()) if data is not None]).unique()
        return labels[labels >= 0]

    @property
    def known(self) -> Bool[Tensor, "n classes"]:
        """bool (n, classes): of the classes that a sample's task has, those known so far; all where nobody says."""
        if self._said() is None:
            return self.visible
        return self.visible & torch.isin(torch.arange(self.visible.shape[1], device=self.data.device), self.classes)

    @property
    def losses(self) -> Float[Tensor, " n"]:
        """float32 (n,), cross-entropy of each sample; NaN where it is unlabelled."""
        labelled = self.data.y >= 0
        losses = F.cross_entropy(self.logits, self.data.y.clamp_min(0), reduction="none")
        return losses.where(labelled, torch.nan)

    @property
    def gradients(self) -> Gradients:
        """Last-layer gradients at the label where there is one, else at the prediction."""
        return self._gradients(torch.where(self.data.y >= 0, self.data.y, self.predictions))

    @property
    def hypothetical_gradients(self) -> Gradients:
        """Last-layer gradients at the prediction, whatever the label: what an acquisition may know."""
        return self._gradients(self.predictions)

    def stochastic(self, passes: int, rng: torch.Generator) -> Float[Tensor, "passes n classes"]:
        """float32 (passes, n, classes): softmax under nets drawn by dropout (:class:`clsim.pool.dropout.Dropped`)."""
        dropped, drawn = Dropped(self.net, rng), []
        for _ in range(passes):
            dropped.draw()
            features = self.features if dropped.last else self._pass(dropped.net)[0]
            with torch.no_grad():
                out = dropped.last(features) if dropped.last else features
                drawn.append(self.net.logits(out, self.data.task).softmax(1))
        return torch.stack(drawn)

    def committee(self, nets: int) -> list[Pool]:
        """The same candidates under so many fresh nets, each trained from other first weights.

        They are trained on what is labelled, among the candidates and beside them.

        Raises:
            InputError: if the pool has no trainer.
        """
        for i in range(len(self._members), nets):
            self._members.append(self._with(self.data, self._nets.proxy(i)[0]))
        return self._members[:nets]

    @property
    def history(self) -> History:
        """The dynamics of a proxy's training on all candidates.

        Raises:
            InputError: if the pool has no trainer.
        """
        history = self._nets.proxy(0)[1]
        return history[slice(len(self)) if self._rows is None else self._rows]

    @property
    def labelled(self) -> Pool | None:
        """What is labelled (or in memory) already; None: nothing."""
        return self._other("labelled")

    @property
    def reference(self) -> Pool | None:
        """Held-out labelled samples, which serve the classes that occur in it; None: there are none.

        Of a stream, those of the present experience, and in a pool of one class (:meth:`of`) those of that class.
        """
        return self._other("reference")

    @property
    def query(self) -> Pool | None:
        """What the choice should resemble; None: nothing in particular."""
        return self._other("query")

    @property
    def private(self) -> Pool | None:
        """What the choice should avoid; None: nothing in particular."""
        return self._other("private")

    @property
    def incoming(self) -> Pool | None:
        """The new batch, when the choice is what to replay with it; else None."""
        return self._other("incoming")

    def inputs(self, rows: Tensor | slice) -> Float[Tensor, "m ..."]:
        """Normalised inputs of the net, float32, without augmentation; for gradients with respect to them."""
        return self.prepare(self.data.x[rows])

    def _said(self) -> Sequence[int] | None:
        """The known classes, if anybody said which they are."""
        return self._classes if self._classes is not None or self._above is None else self._above._said()

    def _other(self, name: str) -> Pool | None:
        data = self._beside[name]
        if name not in self._pools and data is not None and len(data):
            self._pools[name] = self._with(data, None, self._features)
            self._pools[name]._nets = ScoringNets(data, None, None, self._nets)
        return self._pools.get(name)

    def _with(self, data: Exemplars, net: Net | None, features: Features | None = None) -> Pool:
        """Other candidates, or another net, and the rest as here."""
        other = Pool(
            data,
            net,
            self.prepare,
            precision=self.precision,
            features=features,
            batch_size=self.batch_size,
            cost=self.cost,
            incoming=self._beside["incoming"],
        )
        other._above = self
        return other

    def _gradients(self, y: Tensor) -> Gradients:
        return Gradients(self.probabilities - F.one_hot(y, self.logits.shape[1]), self.features)

    def _forward(self) -> tuple[Tensor, Tensor]:
        """One pass over the pool for features and logits together."""
        if self._outputs is None:
            self._outputs = self._pass(self.net, self._features)
        return self._outputs

    def _pass(self, net: Net, embed: Features | None = None) -> tuple[Tensor, Tensor]:
        features, logits = [], []
        with evaluating(net), torch.no_grad(), self.precision():
            for start in range(0, max(len(self), 1), self.batch_size):
                rows = slice(start, start + self.batch_size)
                x, task = self.data.x[rows], self.data.task[rows]
                out = net.features(self.prepare(x)).float() if embed is None else embed(x, task)
                features.append(out)
                logits.append(net.logits(out, task))
        self.cost.forward_passes += len(self)
        return torch.cat(features), torch.cat(logits)


@dataclass
class Cost:
    """What a run has spent; shared by the loop, the learner and every pool.

    Attributes:
        steps: optimizer steps.
        proxy_steps: optimizer steps of the proxies that a selector asked for.
        forward_passes: samples passed forward through the net (training, selection and evaluation together).
        train_seconds: in the learner. Selection and evaluation are counted apart.
        peak_bytes: the most that was in use, of the device or of the process.
        memory_bytes: of the exemplars; state_bytes: of what else the learner keeps beside its net (of ``net_bytes``).
    """

    steps: int = 0
    proxy_steps: int = 0
    forward_passes: int = 0
    train_seconds: float = 0.0
    select_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_bytes: int = 0
    memory_bytes: int = 0
    state_bytes: int | None = 0
    net_bytes: int = 0

"""The pool that a selector chooses from, and the selection that it returns.

A selector is a function ``(pool, budget, *, rng) -> Selection``. The pool computes a value when a selector asks for it,
and only once.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from clsim import notebook
from clsim.errors import Diverged, InputError
from clsim.models.nets import Net, evaluating
from clsim.models.passes import can_share, pieces, side_by_side
from clsim.pool.draft import DraftWatch
from clsim.pool.dropout import Dropped
from clsim.pool.exemplars import Columns, Exemplars, concatenate
from clsim.pool.gradients import Gradients
from clsim.pool.scoring import History, ScoringNets, Trains


@dataclass(frozen=True)
class Selection:
    """Rows of a pool.

    Attributes:
        index: int64 (m,), best first, no row twice; m = min(budget, n).
        weight: float32 (m,), from 0, the mass that each row stands for: how many samples of the stream, where each
            candidate counts with its own mass. A memory scales the weights of each class to the mass of all its
            candidates. None: the selector gives no weights.
        score: float32 (m,), a note on each row for the next selection, kept in ``Exemplars.score``; or None.
    """

    index: Int[Tensor, " m"]
    weight: Shaped[Tensor, " m"] | None = None
    score: Shaped[Tensor, " m"] | None = None

    def __repr__(self) -> str:
        notes = [name for name, column in (("weights", self.weight), ("scores", self.score)) if column is not None]
        return f"<Selection: {' with '.join([f'{len(self.index)} rows', *([' and '.join(notes)] if notes else [])])}>"

    def _repr_html_(self) -> str:
        first = ", ".join(map(str, self.index[:10].tolist())) + (" …" if len(self.index) > 10 else "")
        return notebook.facts(repr(self)[1:-1], {"rows, best first": first})


Features = Callable[[Tensor, Tensor], Tensor]
"""Raw samples and their tasks → features, float32 (n, width), in eval mode and without augmentation."""


Embed = Callable[[Exemplars], Tensor]
"""Samples → their features under a net apart from the learner's, float32 (n, width)."""


@runtime_checkable
class Selector(Protocol):
    """A function that chooses ``min(budget, len(pool))`` rows; all randomness comes from ``rng`` (a CPU generator)."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of ``pool``, best first."""


class Pool:
    """Candidates, with their features and scores under a net. Final.

    Args:
        data: the candidates.
        net: the net that computes features and scores; it stays unchanged, its mode included. None: a proxy of
            ``trainer``, trained when first needed; without a trainer either, the vectors ``data.x`` are the features,
            and a selector that asks for more than features is refused.
        prepare: uint8 or vectors → the normalised input of the net, without augmentation.
        precision: makes the context of forward passes (autocast, or nothing).
        features: computes features in place of the net's own; the net's head makes logits of them.
        batch_size: largest number of samples in a forward pass.
        cost: counters to which the forward passes are added.
        trainer: trains proxies.
        classes: the labels known so far in the stream, which may be fewer than the head has; None: those that occur
            in the data and in the samples beside it.
        labelled: samples that are labelled (or in memory) already and are no candidates.
        reference: held-out labelled samples that the choice should serve, where it is among their classes.
        query, private: samples that the choice should resemble, and samples that it should avoid.
        incoming: the new batch, when the selector chooses what to replay with it.
        rate: the learning rate of the learner's next step; None: there is no learner.
        watch: the watch of a condenser.
        embed: computes :attr:`embedding`; None: it is :attr:`features`.
        closed: whether only classes that are known, or that occur beside the candidates, have logits. A choice of what
            to label asks for it: which further classes the head has room for, nobody has told. Where a task has none of
            them yet, all of its classes have logits.
        columns: values that samples got once and keep, by name, which :attr:`columns` looks up.
        waits: whether a check may wait for the device; not in a training step.

    Attributes:
        label: the class of all candidates, where a selector is applied to each class apart; else None.
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
        rate: float | None = None,
        watch: DraftWatch | None = None,
        closed: bool = False,
        embed: Embed | None = None,
        columns: Columns | None = None,
        waits: bool = True,
    ) -> None:
        self.data = data
        self._columns, self._waits = columns, waits and incoming is None
        self.prepare, self.precision, self.watch = prepare, precision, watch
        self.rate = rate
        self.cost = Cost() if cost is None else cost
        self._rows: Tensor | None = None  # rows of the pool that this one is a part of
        self._features = features
        self.batch_size = batch_size
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._ahead: tuple[Tensor, Tensor] | None = None  # outputs that nobody has asked for yet
        self._kin: Sequence[weakref.ref[Pool]] = ()  # weak, since a cycle would keep the candidates in memory
        self._embed, self._embedded = embed, dict[str, Tensor]()
        self._members: list[Pool] = []
        self._beside = {"labelled": labelled, "reference": reference, "query": query, "private": private}
        self._beside["incoming"] = incoming
        self._pools: dict[str, Pool] = {}
        self._classes = None if classes is None else sorted(classes)
        everything = data if labelled is None else concatenate([data, labelled])
        among = self._told() if closed else None
        self._nets = ScoringNets(everything, net, trainer, among=among)
        self._above: Pool | None = None  # the pool that this one is a part of, or stands beside
        self.label: int | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        beside = "".join(f", {len(data)} {name}" for name, data in self._beside.items() if data is not None)
        return f"<Pool: {self.data.words}{beside}>"

    def _repr_html_(self) -> str:
        beside = {name: None if data is None else data.words for name, data in self._beside.items()}
        return notebook.facts("Pool", {"candidates": self.data.words, **beside})

    def __getitem__(self, rows: Int[Tensor, " m"]) -> Pool:
        """Take a part of the pool; values computed already are sliced, not computed again."""
        part = self._with(self.data[rows], self.net if self._outputs else None)
        part._nets, part._pools, part._beside, part.label = self._nets, self._pools, self._beside, self.label
        part._features = self._features
        part._rows = rows.to(self.data.device) if self._rows is None else self._rows[rows]
        part._members = [member[rows] for member in self._members]
        if self._outputs is not None:
            features, logits = self._outputs
            part._outputs = features[rows], logits[rows]
        part._embedded = {name: values[rows] for name, values in self._embedded.items()}
        return part

    def scored(self, data: Exemplars) -> Pool:
        """Put other samples under the same nets."""
        other = self._with(data, None, self._features)
        other._nets = ScoringNets(data, None, None, self._nets)
        return other

    def under(self, net: Net) -> Pool:
        """Put the same candidates under another net, such as the last round's or an average."""
        other = self._with(self.data, self._nets.restricted(net))
        other._embedded = self._embedded  # it depends on no net of the learner's
        return other

    def of(self, label: int, rows: Int[Tensor, " m"]) -> Pool:
        """Take the candidates of one class, at ``rows``, with the held-out samples of that class as reference."""
        part = self[rows]
        part.label, part._pools, part._beside = label, dict(self._pools), dict(self._beside)
        part._pools.pop("reference", None)
        part._beside["reference"] = None
        if self.reference is not None:
            held_out = self.reference[(self.reference.data.y == label).nonzero().flatten()]
            if len(held_out):
                part._pools["reference"], part._beside["reference"] = held_out, held_out.data
        return part

    def parts(self, groups: Sequence[tuple[int, Int[Tensor, " _"]]]) -> list[Pool]:
        """Take the candidates of several classes (:meth:`of`), which are passed forward side by side if one is.

        Args:
            groups: the label and the rows of each class.
        """
        found = [self.of(label, rows) for label, rows in groups]
        for part in found:
            part._kin = [weakref.ref(one) for one in found if one is not part]
        return found

    def apart(self, roles: Mapping[str, Int[Tensor, " _"]]) -> Pool:
        """Take the candidates that are not in ``roles``, with those in ``roles`` beside them.

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
        """The net that computes features and scores; read it, never change it."""
        return self._nets.scoring()

    def fresh(self, seed: int) -> Net:
        """Make an untrained net of the run's architecture, with weights drawn from ``seed``.

        Raises:
            InputError: if the pool has no trainer, which knows the architecture.
        """
        return self._nets.fresh(seed)

    @property
    def diverged(self) -> bool:
        """Whether a weight of the pool's nets is not finite, to explain a failed choice; waits for the device."""
        return self._nets.diverged()

    @property
    def columns(self) -> dict[str, Float[Tensor, " n"]]:
        """Name → float32 (n,), a value that each candidate got once and keeps; NaN where one has none.

        ``irreducible``: the cross-entropy under the irreducible-loss net, where one is trained.
        """
        return {} if self._columns is None else {name: self._columns.of(name, self.data) for name in self._columns}

    @property
    def mass(self) -> Float[Tensor, " n"]:
        """float32 (n,), how many samples of the stream each candidate stands for: 1, or as its selector said."""
        return torch.ones_like(self.data.key) if self.data.mass is None else self.data.mass

    @property
    def features(self) -> Float[Tensor, "n width"]:
        """float32 (n, width), the penultimate layer in eval mode."""
        return self.data.x if self._nets.none else self._forward()[0]

    @property
    def embedding(self) -> Float[Tensor, "n width"]:
        """float32 (n, width), features of a frozen or self-supervised net, apart from the learner's.

        Where there is no such net, these are :attr:`features`.

        Raises:
            InputError: if they are not finite.
        """
        if self._embed is None:
            return self.features
        if not self._embedded:
            found = self._embed(self.data)
            if not found.isfinite().all():
                raise InputError("embedding: found values that are not finite, allowed: finite ones")
            self._embedded["embedding"] = found
        return self._embedded["embedding"]

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
        """bool (n, classes): the classes of a sample's task that are known so far; all where none are named."""
        if self._said() is None:
            return self.visible
        return self.visible & torch.isin(torch.arange(self.visible.shape[1], device=self.data.device), self.classes)

    @property
    def losses(self) -> Float[Tensor, " n"]:
        """float32 (n,), cross-entropy of each sample; NaN where it is unlabelled."""
        losses = F.cross_entropy(self.logits, self.data.y, reduction="none", ignore_index=-1)
        return losses.masked_fill_(self.data.y < 0, torch.nan)

    @property
    def gradients(self) -> Gradients:
        """Last-layer gradients at the label where there is one, else at the prediction."""
        return self._gradients(torch.where(self.data.y >= 0, self.data.y, self.predictions))

    @property
    def hypothetical_gradients(self) -> Gradients:
        """Last-layer gradients at the prediction, without reading labels: for acquisitions."""
        return self._gradients(self.predictions)

    def stochastic(self, passes: int, rng: torch.Generator) -> Float[Tensor, "passes n classes"]:
        """Compute the softmax under nets drawn by :class:`clsim.pool.dropout.Dropped`: float32 (passes, n, classes)."""
        dropped, drawn = Dropped(self.net, rng), []
        for _ in range(passes):
            dropped.draw()
            features = self.features if dropped.last else self._pass(dropped.net)[0]
            with torch.no_grad():
                out = dropped.last(features) if dropped.last else features
                drawn.append(self.net.logits(out, self.data.task).softmax(1))
        return torch.stack(drawn)

    def committee(self, nets: int) -> list[Pool]:
        """Put the same candidates under ``nets`` fresh nets, each trained from different first weights.

        The nets are trained on the labelled samples, among the candidates and beside them.

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
        """The samples that are labelled (or in memory) already; None: there are none."""
        return self._other("labelled")

    @property
    def reference(self) -> Pool | None:
        """Held-out labelled samples, for choices among the classes that occur in them; None: there are none.

        In a stream they are of the present experience, and in a pool of one class (:meth:`of`) of that class.
        """
        return self._other("reference")

    @property
    def query(self) -> Pool | None:
        """The samples that the choice should resemble; None: there are none."""
        return self._other("query")

    @property
    def private(self) -> Pool | None:
        """The samples that the choice should avoid; None: there are none."""
        return self._other("private")

    @property
    def incoming(self) -> Pool | None:
        """The new batch, when the selector chooses what to replay with it; else None."""
        return self._other("incoming")

    def inputs(self, rows: Tensor | slice) -> Float[Tensor, "m ..."]:
        """Prepare the net's normalised inputs, float32, without augmentation; for gradients with respect to them."""
        return self.prepare(self.data.x[rows])

    def _said(self) -> Sequence[int] | None:
        """Return the known classes if they were named for this pool or one above it, else None."""
        return self._classes if self._classes is not None or self._above is None else self._above._said()

    def _told(self) -> list[int]:
        """List the classes that are named as known, or that occur beside the candidates."""
        beside = torch.cat([self.data.y[:0], *(data.y for data in self._beside.values() if data is not None)])
        return sorted({*(self._classes or ()), *beside[beside >= 0].tolist()})

    def _other(self, name: str) -> Pool | None:
        data = self._beside[name]
        if name not in self._pools and data is not None and len(data):
            self._pools[name] = self.scored(data)
        return self._pools.get(name)

    def _with(self, data: Exemplars, net: Net | None, features: Features | None = None) -> Pool:
        """Make a pool of other candidates, or under another net, with everything else as here."""
        other = Pool(
            data,
            net,
            self.prepare,
            precision=self.precision,
            features=features,
            batch_size=self.batch_size,
            cost=self.cost,
            incoming=self._beside["incoming"],
            rate=self.rate,
            embed=self._embed,
            columns=self._columns,
            waits=self._waits,
        )
        other._above = self
        return other

    def _gradients(self, y: Tensor) -> Gradients:
        return Gradients(self.probabilities - F.one_hot(y, self.logits.shape[1]), self.features)

    def _forward(self) -> tuple[Tensor, Tensor]:
        """Compute features and logits together, in one pass over the pool.

        Raises:
            Diverged: if they are not finite, unless the selection is for a training step, which waits for no device.
        """
        if self._outputs is None:
            if self._ahead is None:
                kin = [self]
                if self._kin and self._features is None and can_share(self.net):
                    others = [one for one in (there() for there in self._kin) if one is not None]
                    kin += [one for one in others if one._outputs is one._ahead is None]
                for one, outputs in zip(kin, self._passes(kin, self.net, self._features), strict=True):
                    one._ahead = outputs
            (features, logits), self._ahead = self._ahead, None  # type: ignore[misc]
            self.cost.forward_passes += len(self)
            if self._waits and not (features.isfinite().all() and not logits.isnan().any()):
                raise Diverged(
                    "the selector asks for features, and those of the net are not finite, since its training has "
                    "diverged; allowed: finite ones (try a smaller optimizer.lr)"
                )
            self._outputs = features, logits
        return self._outputs

    def _pass(self, net: Net) -> tuple[Tensor, Tensor]:
        self.cost.forward_passes += len(self)
        return self._passes([self], net)[0]

    def _passes(self, pools: Sequence[Pool], net: Net, embed: Features | None = None) -> list[tuple[Tensor, Tensor]]:
        """Pass the samples of pools forward, each pool in batches of its own."""

        def passed(part: tuple[Exemplars, slice]) -> tuple[Tensor, Tensor]:
            data, rows = part
            x, task = data.x[rows], data.task[rows]
            with torch.no_grad(), self.precision():
                out = net.features(self.prepare(x)).float() if embed is None else embed(x, task)
                return out, net.logits(out, task)

        shared = net if embed is None else None
        divided = [pieces(shared, len(one), self.batch_size) for one in pools]
        with evaluating(net):
            parts = [(one.data, rows) for one, of in zip(pools, divided, strict=True) for rows in of]
            done = iter(side_by_side(shared, passed, parts))
        found = []
        for of in divided:
            features, logits = zip(*itertools.islice(done, len(of)), strict=True)
            one = len(of) == 1
            found.append((features[0], logits[0]) if one else (torch.cat(features), torch.cat(logits)))
        return found


@dataclass
class Cost:
    """Counters of what a run has spent; the loop, the learner and every pool share them.

    Attributes:
        steps: optimizer steps.
        proxy_steps: optimizer steps of the proxies that a selector asked for.
        forward_passes: samples passed forward through the net (training, selection and evaluation together).
        evaluate_passes: those of them in evaluation: before the first experience, at the end of each, between rounds
            of labels, and after every ``evaluation.steps``.
        candidate_passes: those of them in the choice of the samples of gradient steps.
        train_seconds: time in the learner.
        select_seconds, evaluate_seconds: time of selection and of evaluation, not part of ``train_seconds``.
        peak_bytes: largest memory in use, of the device or of the process.
        memory_bytes: bytes of the exemplars.
        state_bytes: bytes of what else the learner keeps beside its net.
        net_bytes: bytes of the net.
    """

    steps: int = 0
    proxy_steps: int = 0
    forward_passes: int = 0
    evaluate_passes: int = 0
    candidate_passes: int = 0
    train_seconds: float = 0.0
    select_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    peak_bytes: int = 0
    memory_bytes: int = 0
    state_bytes: int | None = 0
    net_bytes: int = 0

"""The spec of a run: a frozen dataclass, how it is read from tables, and its fingerprint.

A scenario file and a strategy file each hold a part of a :class:`RunSpec` in TOML. Their tables are merged (defaults <
scenario < strategy < the strategy's ``[on.<scenario>]`` < flags < ``--set``) and read here, once. Neither torch nor
Avalanche is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from clsim.errors import InputError
from clsim.spec import naming
from clsim.spec.batch import BatchSpec, IrreducibleSpec
from clsim.spec.embedding import EmbeddingSpec
from clsim.spec.flags import as_text, leaves, settled_machine
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.pools import PoolSpec
from clsim.spec.reader import arguments
from clsim.spec.revisions import revisions
from clsim.spec.tables import (
    ControllerSpec,
    DataSpec,
    EvaluationSpec,
    LearnerSpec,
    MemorySpec,
    ModelSpec,
    OptimizerSpec,
    ProxySpec,
    StreamSpec,
    TrainingSpec,
)


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one run.

    ``sources`` holds (name, digest) of the user's own files that the spec names (a selector, a data file), so that
    an edited selector gives the run another fingerprint.
    """

    scenario: str = "custom"
    strategy: str = "custom"
    seed: int = 0
    data: DataSpec = field(default_factory=DataSpec)
    stream: StreamSpec = field(default_factory=StreamSpec)
    labels: LabelsSpec = field(default_factory=LabelsSpec)
    labelling: LabellingSpec = field(default_factory=LabellingSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    learner: LearnerSpec = field(default_factory=LearnerSpec)
    memory: MemorySpec = field(default_factory=MemorySpec)
    proxy: ProxySpec = field(default_factory=ProxySpec)
    embedding: EmbeddingSpec = field(default_factory=EmbeddingSpec)
    batch: BatchSpec = field(default_factory=BatchSpec)
    irreducible: IrreducibleSpec = field(default_factory=IrreducibleSpec)
    controller: ControllerSpec = field(default_factory=ControllerSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    pool: tuple[PoolSpec, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: found {self.seed}, allowed: a whole number from 0 to 2^63 − 1")
        asks = {
            f"controller {self.controller.name!r}": self.controller.name != "none",
            "optimizer.schedule 'plateau'": self.optimizer.schedule == "plateau",
            f"training.patience {self.training.patience}": bool(self.training.patience),
            "evaluation.on 'validation'": self.evaluation.on == "validation",
        }
        reader = next((name for name, reads in asks.items() if reads), "")
        if reader and not self.stream.validation:
            raise InputError(
                f"stream.validation: found 0 with {reader}, which needs validation accuracies; "
                "allowed: a share above 0, as in --set stream.validation=0.2"
            )
        pads, plain = self.training.last_batch == "pad", self.learner == LearnerSpec()
        if pads and not plain:
            raise InputError(
                f"training.last_batch: found 'pad' with learner {self.learner.name!r}, "
                "allowed: with learner 'sgd' without options, whose loss uses weights; 'drop' is allowed with all"
            )
        self._check_average()
        if self.labels.foreign and not self.partly_labelled:
            raise InputError(
                f"labels.foreign: found {self.labels.foreign!r} where all samples are labelled; "
                "allowed: with fraction, per_class or count, or --labels 5%, or --label"
            )
        self._check_labelling()
        self._check_embedding()
        self._check_batch()
        tasks, memory = self.stream.experiences, self.memory
        if memory.counted == "task" and memory.per == "total" and not memory.fraction and memory.capacity < tasks:
            raise InputError(
                f"memory.capacity: found {memory.capacity} with reserve = 'task' and {tasks} tasks, "
                f"allowed: {tasks} or more, one for each task"
            )
        if self.memory.update == "batch" and (pads or self.training.capturable):
            key = "last_batch: found 'pad'" if pads else "capturable: found true"
            raise InputError(f"training.{key} with memory.update = 'batch', allowed: with 'experience'")

    def _check_average(self) -> None:
        """Refuse an average of weights where the number of steps, or the weights to go on with, are another matter."""
        if not self.optimizer.average:
            return
        for key, found, why, allowed in (
            ("training.patience", self.training.patience, "which goes on with the weights of one epoch", 0),
            ("training.until", self.training.until, "under which nobody knows which steps are the last ones", 0.0),
            ("training.capturable", self.training.capturable, "whose steps do not know their number", False),
            ("labelling.update", self.labelling.update, "which is one pass with choices between its steps", "round"),
        ):
            if found != allowed:
                shown, may = (as_text(value) for value in (found, allowed))
                raise InputError(
                    f"optimizer.average: found {self.optimizer.average:g} with {key} = {shown}, {why}; "
                    f"allowed: optimizer.average = 0, or {key} = {may}"
                )

    def _check_labelling(self) -> None:
        """Refuse what cannot be combined with labels that are asked for."""
        labelling = self.labelling
        if not labelling.asks:
            return
        who = f"labelling.selector {labelling.selector!r}"
        if not (labelling.budget or labelling.fraction):
            raise InputError(f"labelling.budget: found 0 with {who}, allowed: 1 or more, or a share, as in 5%")
        if self.stream.presentation != "separate":
            raise InputError(f"stream.presentation: found {self.stream.presentation!r} with {who}, allowed: 'separate'")
        if labelling.update == "batch":
            self._check_one_pass()
        training, usual = self.training, TrainingSpec()
        for key, found, allowed in (
            ("training.until", training.until, usual.until),
            ("training.patience", training.patience, usual.patience),
            ("training.capturable", training.capturable, usual.capturable),
        ):
            if labelling.inject != "once" and found != allowed:
                raise InputError(
                    f"{key}: found {found!r} with labelling.inject {labelling.inject!r}, whose labels come until the "
                    f"last steps, in batches that grow; allowed: {allowed!r}"
                )
        if self.controller.name != "none":
            raise InputError(
                f"controller.name: found {self.controller.name!r} with {who}, whose rounds would each be a search; "
                "allowed: none"
            )

    def _check_embedding(self) -> None:
        """Refuse an embedding by file of samples that have no row in it, and a frozen net that would not be frozen."""
        if self.embedding.of_rows:
            for key, found, allowed in (
                ("stream.kind", self.stream.kind, ("split", "sequence")),
                ("labels.foreign", self.labels.foreign, ("",)),
                ("memory.start", self.memory.start, ("",)),
            ):
                if found not in allowed:
                    raise InputError(
                        f"{key}: found {found!r} with embedding.name = {self.embedding.name!r}, whose rows are those "
                        f"of the data set's own images; allowed: {' or '.join(map(repr, allowed))}"
                    )
        if self.model.frozen and self.learner.name != "sgd":
            raise InputError(f"model.frozen: found true with learner {self.learner.name!r}, allowed: with 'sgd'")

    def _check_batch(self) -> None:
        """Refuse what cannot be combined with a choice of the samples of a step, or with epochs that leave some out."""
        batch, training, usual = self.batch, self.training, TrainingSpec()
        if self.irreducible.source == "held-out" and not self.stream.validation:
            raise InputError(
                "stream.validation: found 0 with irreducible.source = 'held-out', allowed: a share above 0, as in "
                "--set stream.validation=0.2, or irreducible.source = 'halves'"
            )
        if batch.selector == "none":
            return
        who = f"batch.selector {batch.selector!r}"
        refused: list[tuple[str, Any, Any, str]] = [
            ("training.capturable", training.capturable, usual.capturable, "whose steps are no fixed draws"),
            ("labelling.update", self.labelling.update, "round", "which chooses among labels that are all there"),
        ]
        if training.last_batch == "pad":
            refused.append(("training.last_batch", "pad", "short", "which would choose padding"))
        if batch.prunes:
            refused += [
                ("learner.name", self.learner.name, LearnerSpec().name, "whose loss must go by weights"),
                ("learner.options", dict(self.learner.options), {}, "whose loss must go by weights"),
                ("optimizer.average", self.optimizer.average, 0.0, "under which the number of steps is open"),
                ("labelling.inject", self.labelling.inject, "once", "which leaves out by losses that it has seen"),
                ("batch.share", batch.share, BatchSpec().share, "which has no share"),
                ("batch.mode", batch.mode, BatchSpec().mode, "which takes the losses of the steps themselves"),
            ]
        for key, found, allowed, why in refused:
            if found != allowed:
                raise InputError(f"{key}: found {found!r} with {who}, {why}; allowed: {allowed!r}")

    def _check_one_pass(self) -> None:
        """Refuse what needs more than one pass over an experience, or batches of one size."""
        training, labelling = self.training, self.labelling
        where = "with labelling.update = 'batch', which is one pass"
        if training.epochs != 1 or training.steps:
            key = f"steps: found {training.steps}" if training.steps else f"epochs: found {training.epochs}"
            raise InputError(
                f"training.{key} {where}; allowed: epochs = 1, and training.passes for several gradient steps on each "
                "batch, as in --set training.epochs=1 --set training.passes=5"
            )
        usual = TrainingSpec()
        for key, found, allowed in (
            ("training.last_batch", training.last_batch, usual.last_batch),
            ("training.patience", training.patience, usual.patience),
            ("training.until", training.until, usual.until),
            ("labelling.candidates", labelling.candidates, 0),
        ):
            if found != allowed:
                raise InputError(f"{key}: found {found!r} {where}; allowed: {allowed!r}")
        if self.optimizer.schedule == "plateau":
            raise InputError(f"optimizer.schedule: found 'plateau' {where}; allowed: a schedule without validation")
        if labelling.initial_count and labelling.initial not in ("random", "class"):
            raise InputError(f"labelling.initial: found {labelling.initial!r} {where}; allowed: random, class")

    def __repr__(self) -> str:
        return f"<RunSpec {naming.run_name(dataclasses.asdict(self))}, {self.fingerprint}>"

    def _repr_html_(self) -> str:
        usual = leaves(RunSpec().as_dict())
        changed = {key: as_text(value) for key, value in leaves(self.as_dict()).items() if usual.get(key) != value}
        return naming.page(dataclasses.asdict(self), {"fingerprint": self.fingerprint, **changed})

    @property
    def drawing(self) -> TrainingSpec:
        """The table of training with the number of samples that a step draws, candidates included, as its batch."""
        size = self.batch.drawn(self.training.batch_size)
        return self.training if size == self.training.batch_size else replace(self.training, batch_size=size)

    @property
    def partly_labelled(self) -> bool:
        """Whether experiences have an unlabelled part: labels are hidden, or must be asked for."""
        return self.labels.partial or self.labelling.asks

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and scalars for JSON, without the :data:`EXTRAS` that are not used.

        The names of the run's :mod:`clsim.spec.revisions` are added, if there are any.
        """
        plain = json.loads(json.dumps(self, default=_fields))  # asdict would copy each value a second time
        for name in EXTRAS:
            table, _, key = name.partition(".")
            if not key and getattr(self, table) == TABLES[table]():
                del plain[table]
            elif key and table in plain and plain[table][key] == USUAL[name]:
                del plain[table][key]
        if not self.pool:
            del plain["pool"]
        if not self.training.seeds:
            plain["training"].pop("together", None)  # the run is alone, whatever was asked for
        return plain | ({"revisions": names} if (names := revisions(plain)) else {})

    @property
    def title(self) -> str:
        """Title of the run, without its seed: scenario, strategy, who asks for labels, buffer and controller."""
        return naming.title(dataclasses.asdict(self))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: SHA-256 over the whole resolved spec, seed included.

        >>> RunSpec(seed=1).fingerprint == RunSpec(seed=1).fingerprint != RunSpec(seed=2).fingerprint
        True
        """
        return _digest(self.as_dict())

    @property
    def earlier(self) -> list[str]:
        """The fingerprints that this run had before each of its revisions; their records have other numbers."""
        plain = self.as_dict()
        names = plain.pop("revisions", [])
        return [_digest(plain | ({"revisions": names[:n]} if n else {})) for n in range(len(names))]


@dataclass(frozen=True)
class Given:
    """Objects in place of the components that a spec names; None: the named one.

    Attributes:
        buffer: the selector of the memory.
        label: the selector, or the class of acquisitions, that asks for labels.
        batch: the selector of the samples of a step.
    """

    buffer: Any = None
    label: Any = None
    batch: Any = None

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.buffer, self.label, self.batch))


NAMED = Given()
"""Every component is the one that the spec names."""


def _fields(table: Any) -> dict[str, Any]:
    """Return the fields of a table by name, in their order."""
    return {one.name: getattr(table, one.name) for one in dataclasses.fields(table)}


def _digest(plain: Mapping[str, Any]) -> str:
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


TABLES: dict[str, Any] = {
    n: kind for n, kind in typing.get_type_hints(RunSpec).items() if dataclasses.is_dataclass(kind)
}
"""Name of each table of a spec file → the dataclass that reads it."""

EXTRAS: tuple[str, ...] = (
    "proxy",
    "embedding",
    *("model.start", "model.frozen"),
    *("labels", "labelling"),
    *("batch", "irreducible", "evaluation.steps", "evaluation.every", "evaluation.on"),
    *("optimizer.lr_start", "optimizer.lr_end", "optimizer.trust", "optimizer.head_lr"),
    "controller",
    "data.sequence",
    *("data.imbalance", "data.shares", "data.config", "data.splits", "data.columns"),
    *("data.features", "data.weights", "embedding.weights"),
    "stream.tasks",
    *("stream.difficulty", "stream.length"),
    *("training.patience", "training.steps", "training.until"),
    *("optimizer.patience", "optimizer.clip", "optimizer.cycle", "optimizer.cycle_growth"),
    *("optimizer.average", "optimizer.average_every"),
    *("training.last_batch", "training.capturable", "training.compile", "training.tf32"),
    *("training.together", "training.seeds"),
    *("labels.foreign", "labels.foreign_share"),
    *("labelling.inject", "labelling.inject_first", "labelling.inject_milestones"),
    *("memory.unlabelled", "memory.confidence", "memory.shrink", "memory.start", "memory.weights", "memory.reserve"),
)
"""Tables, and keys as ``table.key``, that are left out of a spec where they have their default values.

A new key that is listed here does not change the fingerprint of a run that does not use it.
"""

USUAL: dict[str, Any] = {
    f"{table}.{key}": value
    for table, kind in TABLES.items()
    for key, value in json.loads(json.dumps(dataclasses.asdict(kind()))).items()
    if table in EXTRAS or f"{table}.{key}" in EXTRAS
}
"""Default value of each key of :data:`EXTRAS`, as ``table.key``."""


def read(tables: Mapping[str, Any], where: str) -> RunSpec:
    """Read a spec strictly: refuse unknown tables, unknown keys and mistyped values.

    Args:
        tables: the tables as parsed from TOML or JSON, already merged.
        where: the file (or "command line") that error messages name.

    Raises:
        InputError: for what is refused, naming ``where``, the table, the key, what was found, what is allowed and the
            nearest match.

    >>> read({"learner": {"names": ""}}, "my")
    Traceback (most recent call last):
    clsim.errors.InputError: my: [learner] names: unknown key; did you mean 'name'? (allowed: name, options)
    """
    found = arguments(RunSpec, tables, where, "")
    try:
        built: dict[str, Any] = {k: TABLES[k](**v) if k in TABLES else v for k, v in found.items()}
        return RunSpec(**built)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def check(tables: Any, where: str) -> None:
    """Refuse unknown tables, unknown keys and mistyped values in one layer; limits are checked after all are merged."""
    arguments(RunSpec, settled_machine(tables), where, "")

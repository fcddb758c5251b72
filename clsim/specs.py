"""What a run is: frozen dataclasses, the strict reader that fills them, and the fingerprint.

A scenario file and a strategy file are both partial :class:`RunSpec` s in TOML. They are merged table by table
(defaults < scenario < strategy < the strategy's ``[on.<scenario>]`` < flags < ``--set``) and read here, once.
Neither torch nor Avalanche is imported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from clsim.errors import InputError
from clsim.strict import Options, arguments


@dataclass(frozen=True)
class DataSpec:
    """Which images (or vectors), and how they are altered in training.

    Attributes:
        dataset: a name of ``clsim list datasets``.
        path: the user's folder or file, for ``image-folder`` and ``npz``.
        size: images are resized to ``size`` × ``size`` pixels; 0 keeps the data set's own size.
        per_class: at most so many training images a class (the first ones); 0 keeps all.
        augment: batched augmentations, applied in this order: ``crop``, ``flip``, ``color``.
    """

    dataset: str = "digits"
    path: str = ""
    size: int = 0
    per_class: int = 0
    augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _at_least(self, "data", size=0, per_class=0)


@dataclass(frozen=True)
class StreamSpec:
    """How the data set becomes a stream of experiences.

    Attributes:
        kind: ``split`` divides the classes; ``permuted`` and ``rotated`` repeat the whole data set, with other
            pixels or another angle in each experience.
        setting: ``task`` (the task is known when predicting: logits are masked to its classes), ``class`` (one head
            over all classes), ``domain`` (one head; in a ``split`` the labels are counted from zero in each
            experience).
        experiences: how many.
        order: of the classes: ``fixed`` (0, 1, 2 …) or ``seeded`` (drawn from the run's seed).
        first: classes in the first experience, when it is larger or smaller than the others; 0 = equal.
        sizes: classes in each experience, when they differ otherwise; empty = equal.
        presentation: ``separate`` experiences; ``cumulative``: each also holds all earlier ones; ``joint``: one
            experience that holds everything.
        validation: share of each experience's training images that is held out, stratified by class.
    """

    kind: Literal["split", "permuted", "rotated"] = "split"
    setting: Literal["task", "class", "domain"] = "task"
    experiences: int = 5
    order: Literal["fixed", "seeded"] = "fixed"
    first: int = 0
    sizes: tuple[int, ...] = ()
    presentation: Literal["separate", "cumulative", "joint"] = "separate"
    validation: float = 0.0

    def __post_init__(self) -> None:
        _at_least(self, "stream", experiences=1, first=0)
        if not 0 <= self.validation < 1:
            raise InputError(f"stream.validation: found {self.validation}, allowed: a share from 0 to below 1")
        if self.kind != "split" and self.setting == "task":
            raise InputError(f"stream.setting: found 'task' with kind {self.kind!r}, allowed: 'class' or 'domain'")
        if self.kind != "split" and (self.first or self.sizes):
            raise InputError(f"stream.kind: found {self.kind!r} with stream.first or stream.sizes, allowed: 'split'")
        if self.sizes and (self.first or len(self.sizes) != self.experiences or min(self.sizes) < 1):
            raise InputError(
                f"stream.sizes: found {list(self.sizes)} with {self.experiences} experiences and first = {self.first}, "
                "allowed: one number from 1 an experience, and first = 0"
            )


@dataclass(frozen=True)
class ModelSpec:
    """The network: a name of ``clsim list models`` or ``module:attr``, and its keyword arguments."""

    name: str = "mlp"
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingSpec:
    """How an experience is trained.

    Attributes:
        epochs: passes over an experience; 1 is the online setting.
        batch_size: new samples a step.
        passes: gradient steps on each batch (each with its own augmentation and its own memory batch).
        precision: ``fp32``, or ``bf16`` (autocast; weights stay in fp32).
        channels_last: store images and convolutions channels-last (faster on CPUs and GPUs).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of torch; part of the spec because sums are split by thread.
    """

    epochs: int = 1
    batch_size: int = 10
    passes: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        _at_least(self, "training", epochs=1, batch_size=1, passes=1, threads=1)


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer and its schedule, by name.

    Attributes:
        name: ``sgd``, ``adam`` or ``adamw``.
        lr: learning rate at the start of an experience.
        schedule: ``constant``; ``cosine`` (to 0 over the experience); ``step`` (× gamma at each milestone).
        milestones: shares of the experience's steps, for ``step``.
        warmup: share of the experience's steps over which the rate grows linearly from 0.
        restart: a fresh optimizer state for each experience; false carries momentum over.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Literal["constant", "cosine", "step"] = "constant"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    restart: bool = True

    def __post_init__(self) -> None:
        _at_least(self, "optimizer", momentum=0, weight_decay=0, warmup=0)
        if not 0 < self.lr < math.inf:
            raise InputError(f"optimizer.lr: found {self.lr}, allowed: a finite number above 0")
        if self.nesterov and not self.momentum:
            raise InputError("optimizer.nesterov: found true with momentum 0, allowed: momentum above 0")


@dataclass(frozen=True)
class LearnerSpec:
    """Who learns: a name of ``clsim list learners``, ``module:attr`` or ``avalanche:Strategy``."""

    name: str = "sgd"
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class MemorySpec:
    """What may be kept of the past, and what of it is replayed.

    Attributes:
        buffer: a name of ``clsim list selectors``, ``module:attr``, ``./file.py:attr``, or a combinator such as
            ``per_class(…)`` around one; ``none`` keeps nothing.
        capacity: exemplars in all, or a class (see ``per``).
        per: ``total`` or ``class``: what the capacity counts.
        fraction: the capacity as a share of the training samples seen so far, instead; 0: ``capacity`` counts.
        batch_size: exemplars replayed with each batch of new samples.
        update: select after every ``batch`` or after every ``experience``.
        options: keyword arguments of the selector.
        retrieval: which exemplars to replay: ``random``, or a selector, such as ``mir``.
        candidates: exemplars drawn at random for the retrieval to choose from; 0: all.
        retrieval_options: keyword arguments of the retrieval.
    """

    buffer: str = "none"
    capacity: int = 500
    per: Literal["total", "class"] = "total"
    fraction: float = 0.0
    batch_size: int = 10
    update: Literal["batch", "experience"] = "experience"
    options: Options = field(default_factory=dict)
    retrieval: str = "random"
    candidates: int = 50
    retrieval_options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(self, "memory", capacity=1, batch_size=1, candidates=0)
        if not 0 <= self.fraction <= 1:
            raise InputError(f"memory.fraction: found {self.fraction}, allowed: a share from 0 to 1")
        if self.fraction and self.per == "class":
            raise InputError("memory.fraction: found with per = 'class', allowed: per = 'total'")

    @property
    def size(self) -> str:
        """In words: ``500``, ``20 a class``, ``1 %``."""
        if self.fraction:
            return f"{100 * self.fraction:.4g} %"
        return f"{self.capacity}{' a class' if self.per == 'class' else ''}"


@dataclass(frozen=True)
class ProxySpec:
    """Fresh nets trained on a selector's candidates, for selectors that ask for one (or a committee), and for coresets.

    SGD with Nesterov momentum and a cosine schedule, the run's architecture and augmentation. The defaults are those
    of DeepCore (Guo et al., 2022): 10 epochs.

    Attributes:
        source: whose features and scores selectors see: the ``learner``'s, or a ``proxy``'s.
        epochs: of each proxy.
    """

    source: Literal["learner", "proxy"] = "learner"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        _at_least(self, "proxy", epochs=1, batch_size=1, weight_decay=0)
        if not 0 < self.lr < math.inf:
            raise InputError(f"proxy.lr: found {self.lr}, allowed: a finite number above 0")
        if not 0 < self.momentum < 1:
            raise InputError(f"proxy.momentum: found {self.momentum}, allowed: above 0 and below 1")


@dataclass(frozen=True)
class EvaluationSpec:
    """What is tested after each experience.

    Attributes:
        rows: ``all`` experiences, or those ``seen`` so far (half the cost; no forward transfer).
        batch_size: test images a forward pass; changes no result beyond round-off. Small ones stay in a CPU's cache.
    """

    rows: Literal["all", "seen"] = "all"
    batch_size: int = 100

    def __post_init__(self) -> None:
        _at_least(self, "evaluation", batch_size=1)


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of one run.

    ``sources`` holds (name, digest) of the user's own files that the spec names (a selector, a data file), so that
    an edited selector is another run.
    """

    scenario: str = "custom"
    strategy: str = "custom"
    seed: int = 0
    data: DataSpec = field(default_factory=DataSpec)
    stream: StreamSpec = field(default_factory=StreamSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    training: TrainingSpec = field(default_factory=TrainingSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    learner: LearnerSpec = field(default_factory=LearnerSpec)
    memory: MemorySpec = field(default_factory=MemorySpec)
    proxy: ProxySpec = field(default_factory=ProxySpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    sources: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: found {self.seed}, allowed: a whole number from 0 to 2^63 − 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and scalars, as they go into JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: SHA-256 over the whole resolved spec, seed included.

        >>> RunSpec(seed=1).fingerprint == RunSpec(seed=1).fingerprint != RunSpec(seed=2).fingerprint
        True
        """
        text = json.dumps(self.as_dict(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


TABLES: dict[str, Any] = {
    n: kind for n, kind in typing.get_type_hints(RunSpec).items() if dataclasses.is_dataclass(kind)
}
"""Name of each table of a spec file → the dataclass that reads it."""


def read(tables: Mapping[str, Any], where: str) -> RunSpec:
    """The strict reader: unknown tables, unknown keys and mistyped values are refused.

    Args:
        tables: as parsed from TOML or JSON, already merged.
        where: the file (or "command line") that error messages name.

    Raises:
        InputError: naming ``where``, the table, the key, what was found, what is allowed and the nearest match.

    >>> read({"evaluation": {"row": "seen"}}, "my.toml")
    Traceback (most recent call last):
    clsim.errors.InputError: my.toml: [evaluation] row: unknown key; did you mean 'rows'? (allowed: batch_size, rows)
    """
    found = arguments(RunSpec, tables, where, "")
    try:
        built: dict[str, Any] = {k: TABLES[k](**v) if k in TABLES else v for k, v in found.items()}
        return RunSpec(**built)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def check(tables: Any, where: str) -> None:
    """Refuse unknown tables and keys and mistyped values of one layer; limits are looked at when all are merged."""
    arguments(RunSpec, tables, where, "")


def _at_least(spec: Any, table: str, **lowest: float) -> None:
    for key, bound in lowest.items():
        value = getattr(spec, key)
        if not bound <= value < math.inf:
            raise InputError(f"{table}.{key}: found {value}, allowed: {bound} or more")

"""The tables of a spec: a frozen dataclass for each. It refuses values that no run can have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from clsim.errors import InputError, at_least, nearest
from clsim.spec import frozen, hub
from clsim.spec.reader import Options


@dataclass(frozen=True)
class DataSpec:
    """Which images (or vectors), and how they are altered in training.

    Attributes:
        dataset: a name of ``clsim list datasets``.
        path: the user's folder or file, for ``image-folder``, ``npz`` and ``hf``.
        size: images are resized to ``size`` × ``size`` pixels; 0 keeps the data set's own size.
        per_class: largest number of training images of each class, the first ones; 0 keeps all.
        sequence: names of data sets, for ``sequence``: one after the other, each with classes of its own.
        imbalance: ratio of the largest to the smallest class in a long tail of training images: class i of C keeps its
            first n·imbalance^(−i/(C−1)) of n images. 1 keeps all. In the order of their labels, classes come from head
            to tail; ``stream.order = "seeded"`` mixes them.
        shares: share of each class's training images that is kept, one number a class, in the order of their labels;
            empty: all are kept. An image is kept where a random number lies below the share of its class. The numbers,
            one for each image in their order, are always the same (see :func:`clsim.data.datasets.thinned`).
        augment: batched augmentations, applied in this order: ``crop``, ``flip``, ``color``; for views of self- and
            semi-supervised learners ``large-crop``, ``small-crop``, ``resized-crop``, ``affine``, ``jitter``,
            ``gamma``, ``solarize``, ``equalize``, ``rand-augment``, ``cutout``; ``rand-augment:N:M`` for N operations
            of magnitude M out of 30 (``rand-augment`` has two, with magnitudes of their own); of siamese augmentation
            ``dsa``, ``dsa-digits``.
        config: configuration of a data set of the Hugging Face hub; empty: its only one.
        splits: its training and its test split, or one that is divided; empty: ``train``, ``test`` or ``validation``.
        columns: its columns of pictures (or vectors) and labels; empty: the only ones of these types.
        features: a frozen net whose features replace images, ``timm:``, ``torchvision:``, ``open-clip:NAME``; or empty.
        weights: its weights, a ``.safetensors`` file; empty: those of the library, which are downloaded.
    """

    dataset: str = "digits"
    path: str = ""
    size: int = 0
    per_class: int = 0
    augment: tuple[str, ...] = ()
    sequence: tuple[str, ...] = ()
    imbalance: float = 1.0
    shares: tuple[float, ...] = ()
    config: str = ""
    splits: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    features: str = ""
    weights: str = ""

    @classmethod
    def of(cls, dataset: str, path: str, size: int | None = 0, per_class: int = 0) -> DataSpec:
        """Name a data set in any of the ways that there are; with ``size`` None, folders of images have 32 pixels."""
        name, place = hub.plain_name(dataset, path)
        size = (32 if name == "image-folder" else 0) if size is None else size
        return cls(name, place, size=size, per_class=per_class)

    def __post_init__(self) -> None:
        at_least(0, "data.", size=self.size, per_class=self.per_class)
        frozen.check_backbone("data.features", self.features, self.weights, "data.weights")
        hub.check_keys(self.dataset, self.config, self.splits, self.columns)
        at_least(1, "data.", imbalance=self.imbalance)
        if not all(0 < share <= 1 for share in self.shares):
            raise InputError(f"data.shares: found {list(self.shares)}, allowed: numbers above 0, up to 1")
        if self.shares and self.imbalance > 1:
            raise InputError("data: found shares and imbalance, allowed: one of them")
        if bool(self.sequence) != (self.dataset == "sequence"):
            found = f"{list(self.sequence)} with data.dataset = {self.dataset!r}"
            raise InputError(
                f"data.sequence: found {found}, allowed: names of data sets, with data.dataset = 'sequence'"
            )
        if len(set(self.sequence)) < len(self.sequence):
            raise InputError(f"data.sequence: found {list(self.sequence)}, allowed: each data set once")


@dataclass(frozen=True)
class StreamSpec:
    """How the data set becomes a stream of experiences.

    Attributes:
        kind: ``split`` divides the classes; ``permuted`` and ``rotated`` repeat the whole data set, with other
            pixels or another angle in each experience; ``sequence`` has one experience for each data set of
            ``data.sequence``.
        setting: ``task`` (the task is known when predicting: logits are masked to its classes), ``class`` (one head
            over all classes), ``domain`` (one head; in a ``split`` or a ``sequence`` the labels are counted from zero
            in each experience).
        experiences: number of experiences.
        length: number of experiences that are there, the first ones: the stream ends early. The head still has the
            classes of all. 0: all are there.
        order: order of the classes: ``fixed`` (0, 1, 2 …), ``seeded`` (drawn from the run's seed), or ``superclass``:
            CIFAR-100's super-classes one after the other, so that each of 20 experiences is one.
        first: number of classes in the first experience, when it is larger or smaller than the others; 0 = equal.
        sizes: number of classes in each experience, when they differ otherwise; empty = equal.
        presentation: ``separate`` experiences; ``cumulative``: each also holds all earlier ones; ``joint``: one
            experience that holds everything.
        validation: share of each experience's training images that is held out, stratified by class.
        tasks: order of whole experiences: as ``given`` by the keys above, ``seeded`` (drawn from the run's seed), or by
            how well a joint model does on each: ``easy-first`` or ``hard-first``.
        difficulty: fingerprint of the run whose accuracy says how easy each task is: a run on the same tasks in the
            given order. It is filled in for ``easy-first`` and ``hard-first`` with the run of the strategy ``joint``
            on the same scenario, data, stream, model and seed, trained as scenario and ``joint`` say; that run is made
            first if it is not in the store.
    """

    kind: Literal["split", "permuted", "rotated", "sequence"] = "split"
    setting: Literal["task", "class", "domain"] = "task"
    experiences: int = 5
    order: Literal["fixed", "seeded", "superclass"] = "fixed"
    first: int = 0
    sizes: tuple[int, ...] = ()
    presentation: Literal["separate", "cumulative", "joint"] = "separate"
    validation: float = 0.0
    tasks: Literal["given", "seeded", "easy-first", "hard-first"] = "given"
    difficulty: str = ""
    length: int = 0

    def __post_init__(self) -> None:
        at_least(1, "stream.", experiences=self.experiences)
        at_least(0, "stream.", first=self.first)
        if not 0 <= self.length <= self.experiences:
            raise InputError(
                f"stream.length: found {self.length} with {self.experiences} experiences, "
                f"allowed: 0 to {self.experiences}"
            )
        if not 0 <= self.validation < 1:
            raise InputError(f"stream.validation: found {self.validation}, allowed: a share from 0 to below 1")
        if self.kind in ("permuted", "rotated") and self.setting == "task":
            raise InputError(f"stream.setting: found 'task' with kind {self.kind!r}, allowed: 'class' or 'domain'")
        if self.kind != "split" and (self.first or self.sizes):
            raise InputError(f"stream.kind: found {self.kind!r} with stream.first or stream.sizes, allowed: 'split'")
        if self.kind == "sequence" and self.order != "fixed":
            raise InputError(
                f"stream.order: found {self.order!r} with kind 'sequence', whose classes stay with their data set; "
                "allowed: 'fixed', with stream.tasks = 'seeded' for another order of the data sets"
            )
        if self.difficulty and (not self.by_difficulty or not re.fullmatch("[0-9a-f]{16}", self.difficulty)):
            raise InputError(
                f"stream.difficulty: found {self.difficulty!r} with tasks = {self.tasks!r}, "
                "allowed: the fingerprint of a run, with easy-first or hard-first"
            )
        if self.sizes and (self.first or len(self.sizes) != self.experiences or min(self.sizes) < 1):
            raise InputError(
                f"stream.sizes: found {list(self.sizes)} with {self.experiences} experiences and first = {self.first}, "
                "allowed: one number from 1 an experience, and first = 0"
            )

    @property
    def by_difficulty(self) -> bool:
        """Whether the order of the tasks follows a joint model."""
        return self.tasks in ("easy-first", "hard-first")

    @property
    def trained(self) -> int:
        """Number of experiences that a run trains on."""
        return 1 if self.presentation == "joint" else self.length or self.experiences


STARTS = ("rotation", "simclr", "barlow")
"""Ways to learn a net's first weights without labels."""


@dataclass(frozen=True)
class ModelSpec:
    """The network.

    Attributes:
        name: a name of ``clsim list models``, ``module:attr`` or ``./file.py:attr``.
        options: keyword arguments of the model, as ``clsim show models NAME`` lists them.
        start: the first weights of the net's body. ``none``: they are drawn. ``rotation``, ``simclr`` or ``barlow``: it
            is trained without labels as the table ``embedding`` says, on the training images of the first experience
            alone, since later ones have not been seen. Or a file ``./NAME.pt`` that clsim keeps of a net trained so,
            of the same model. Every net of the run's architecture starts from them: those of all label rounds, and
            proxies. The head is drawn in any case.
        frozen: whether the body keeps its first weights, so that a linear head is trained alone; with learner ``sgd``.
    """

    name: str = "mlp"
    options: Options = field(default_factory=dict)
    start: str = "none"
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.frozen and self.start == "none":
            raise InputError(
                "model.frozen: found true with start = 'none', allowed: with first weights that were learnt"
            )
        if self.start not in ("none", *STARTS) and not self.start.endswith(".pt"):
            raise InputError(f"model.start: found {self.start!r}; {nearest(self.start, ('none', *STARTS, 'FILE.pt'))}")

    @property
    def learns_start(self) -> bool:
        """Whether the first weights are trained in the run."""
        return self.start in STARTS


@dataclass(frozen=True)
class TrainingSpec:
    """How an experience is trained.

    Attributes:
        epochs: passes over an experience; 1 is the online setting. On a partly labelled stream, over its larger part,
            the labelled or the unlabelled one, for every learner: one that learns from labelled samples alone passes
            over these more often, and takes as many steps as the others.
        steps: batches that are learnt in each experience, whatever its size, in as many passes as they take; the last
            pass may be cut short. 0: ``epochs`` counts, which is not read otherwise. Schedules of the learning rate
            span these steps; one that falls on a plateau looks after each pass, the last one included. A memory that
            every batch updates is offered the samples that were learnt.
        batch_size: new samples in each step.
        last_batch: what becomes of the samples of an epoch that fill no whole batch. ``short``: a smaller batch.
            ``drop``: left out of that epoch. ``pad``: other samples fill their batch with weight 0 (batch norm sees
            them); for learner ``sgd`` with its own objective, whose loss goes by weights. Under the last two, all
            batches of an experience have one size.
        together: whether the seeds of a command advance in one step, their nets as a stack; see
            :mod:`clsim.spec.seats` for the runs that cannot. The numbers differ from those of a seed alone by
            rounding, so that such runs have records of their own.
        seeds: the seeds that advance together, in the order of the stack; clsim fills it in. Empty: the run is alone.
        capturable: whether a gradient step of ``sgd`` is one that a GPU can record and replay: the learning rate is a
            tensor on the device, the optimizer is fused, and what a step draws from memory is drawn for a whole
            experience at once. It needs ``last_batch`` ``drop`` or ``pad``. The draws stay those of a step at a time;
            the arithmetic may differ in the last bit.
        compile: ``auto``: a GPU records such a step as a CUDA graph in each experience, and replays it, with the same
            numbers; ``off``: it takes every step kernel by kernel. Without ``capturable`` nothing is recorded.
        passes: gradient steps on each batch (each with its own augmentation and its own memory batch).
        until: stop after the epoch in which accuracy on the samples that are learnt from, in eval mode and without
            augmentation, reaches this share; 0: train all epochs.
        patience: stop after more than this number of epochs in a row without a gain in validation accuracy, and go
            on with the best epoch's state; 0: train all epochs, and go on with the last.
        precision: ``fp32``, ``bf16`` (autocast; weights stay in fp32), or ``auto``: ``bf16`` where processor or GPU
            have it in hardware, else ``fp32``. A run's spec holds what ``auto`` came to, and so does its fingerprint.
        tf32: what a GPU may round float32 to TF32 for (a mantissa of 10 bits instead of 23; tensor cores, from compute
            capability 8.0 on): ``none``; ``convolutions``, with recurrent layers, which is PyTorch's own default; or
            ``all``, products of matrices too. Without effect on a processor.
        channels_last: store images and convolutions channels-last (faster on CPUs; ``benchmarks.gpu`` measures GPUs).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: threads of torch; part of the spec, because sums are split by thread. ``auto`` stands for as many as
            the process may use cores (fewer by ``OMP_NUM_THREADS``); a run's spec holds the number, and so does its
            fingerprint. Cores that are left over pass test images and candidates side by side, which changes no number.
    """

    epochs: int = 1
    batch_size: int = 10
    passes: int = 1
    patience: int = 0
    steps: int = 0
    until: float = 0.0
    last_batch: Literal["short", "drop", "pad"] = "short"
    capturable: bool = False
    compile: Literal["auto", "off"] = "auto"
    together: bool = False
    seeds: tuple[int, ...] = ()
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    tf32: Literal["none", "convolutions", "all"] = "convolutions"
    channels_last: bool = True
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        at_least(
            1, "training.", epochs=self.epochs, batch_size=self.batch_size, passes=self.passes, threads=self.threads
        )
        at_least(0, "training.", patience=self.patience, steps=self.steps)
        if not 0 <= self.until <= 1:
            raise InputError(f"training.until: found {self.until}, allowed: a share from 0 to 1")
        if self.until and self.steps:
            raise InputError(f"training.until: found {self.until:g} with steps = {self.steps}, allowed: with epochs")
        if self.steps and self.passes > 1:
            raise InputError(f"training.passes: found {self.passes} with steps = {self.steps}, allowed: 1")
        if self.steps and self.patience:
            raise InputError(
                f"training.patience: found {self.patience} with steps = {self.steps}, which says when training ends; "
                "allowed: 0"
            )
        if self.seeds and not (self.together and len(set(self.seeds)) == len(self.seeds)):
            raise InputError(
                f"training.seeds: found {list(self.seeds)} with together = {str(self.together).lower()}, allowed: "
                "different seeds, with together = true; clsim fills them in"
            )
        if self.capturable and self.last_batch == "short":
            raise InputError("training.capturable: found true with last_batch = 'short', allowed: with 'drop' or 'pad'")


@dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer and its schedule, by name.

    Attributes:
        name: ``sgd``; ``adam`` (Kingma & Ba, 2015); ``adamw`` (decoupled weight decay; Loshchilov & Hutter, 2019);
            ``nadam`` (Adam with Nesterov's momentum; Dozat, 2016); ``lars`` (You, Gitman & Ginsburg, 2017). All but
            ``sgd`` and ``lars`` have PyTorch's β₁ 0.9 and β₂ 0.999, and ``nadam`` its momentum decay of 0.004.
        lr: learning rate at the start of an experience, or at the end of its warm-up.
        momentum: share of the last step that each step keeps, under SGD and LARS.
        weight_decay: factor of the weights that is added to their gradient; under ``adamw``, each step
            multiplies the weights by 1 − lr · weight_decay instead.
        nesterov: whether the gradient is taken ahead of the momentum's step, under SGD and LARS.
        schedule: ``constant``; ``cosine`` (to ``lr_end`` over the experience); ``step`` (× gamma at each milestone);
            ``plateau`` (× gamma after every ``patience`` epochs in a row without a gain in validation accuracy);
            ``restarts`` (cosines to ``lr_end``, one after the other, each begun at ``lr``; the rate changes with each
            epoch). With ``lr_start`` above 0 the first epoch of ``restarts`` has that rate, before the first cosine.
        milestones: shares of the experience's steps, for ``step``.
        patience: epochs in a row without a gain, for ``plateau``.
        gamma: factor of the learning rate at each fall, for ``step`` and ``plateau``.
        cycle: epochs of the first cosine, for ``restarts``.
        cycle_growth: how many times as long each further cosine is as the one before.
        warmup: share of the experience's steps over which the rate grows linearly from ``lr_start``.
        lr_start: learning rate at which the warm-up begins.
        lr_end: learning rate at which the cosine ends.
        clip: the largest norm of the gradient, over all weights; a longer one is scaled down to it. 0: none.
        trust: under LARS, the length of a step relative to the norm of the weights.
        head_lr: under LARS, the classifier's learning rate, which follows the same schedule; 0: that of all others.
        restart: a fresh optimizer state for each experience; false carries momentum over.
        average: share of a training's steps, the last ones, whose weights are averaged (stochastic weight averaging).
            At the end of the training, of each round where labels are asked for, the mean takes the place of the
            weights, and batch norm's statistics are computed anew: it predicts, fills the memory, scores for selectors,
            and is where the next training begins, if that does not begin from scratch. 0: the last weights.
        average_every: steps between two weights that enter the mean (the cycle c of its paper, 1 at a constant rate);
            0: an epoch's, as in its authors' code. The last step's weights always enter.
    """

    name: Literal["sgd", "adam", "adamw", "nadam", "lars"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: Literal["constant", "cosine", "step", "plateau", "restarts"] = "constant"
    milestones: tuple[float, ...] = ()
    patience: int = 5
    gamma: float = 0.1
    warmup: float = 0.0
    restart: bool = True
    lr_start: float = 0.0
    lr_end: float = 0.0
    trust: float = 0.001
    head_lr: float = 0.0
    clip: float = 0.0
    cycle: int = 1
    cycle_growth: int = 2
    average: float = 0.0
    average_every: int = 1

    def __post_init__(self) -> None:
        at_least(0, "optimizer.", momentum=self.momentum, weight_decay=self.weight_decay, warmup=self.warmup)
        at_least(1, "optimizer.", patience=self.patience, cycle=self.cycle, cycle_growth=self.cycle_growth)
        at_least(0, "optimizer.", lr_start=self.lr_start, lr_end=self.lr_end, trust=self.trust, head_lr=self.head_lr)
        at_least(0, "optimizer.", clip=self.clip, average_every=self.average_every)
        if not 0 <= self.average <= 1:
            raise InputError(f"optimizer.average: found {self.average}, allowed: a share from 0 to 1")
        if self.average_every != 1 and not self.average:
            raise InputError(
                f"optimizer.average_every: found {self.average_every} with average = 0, allowed: with a share above 0"
            )
        if not 0 < self.lr < math.inf:
            raise InputError(f"optimizer.lr: found {self.lr}, allowed: a finite number above 0")
        if self.nesterov and not self.momentum:
            raise InputError("optimizer.nesterov: found true with momentum 0, allowed: momentum above 0")
        if self.schedule == "restarts" and self.warmup:
            raise InputError(
                f"optimizer.warmup: found {self.warmup:g} with schedule 'restarts', allowed: 0, with lr_start for the "
                "first epoch"
            )


@dataclass(frozen=True)
class LearnerSpec:
    """Who learns.

    Attributes:
        name: a name of ``clsim list learners``, ``module:attr``, ``./file.py:attr`` or ``avalanche:Strategy``.
        options: keyword arguments of the learner, as ``clsim show learners NAME`` lists them.
    """

    name: str = "sgd"
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSpec:
    """What is tested after each experience.

    Attributes:
        on: what accuracies are measured on. ``test``: the test samples. ``validation``: the samples of each experience
            that ``stream.validation`` holds out of training; no test sample takes part in the run then, as a search of
            hyper-parameters needs it.
        rows: ``all`` experiences, or those ``seen`` so far (half the cost; no forward transfer).
        batch_size: test images in each forward pass; changes no result beyond round-off. Small batches stay in the
            cache of a CPU.
        steps: also test after every so many gradient steps of an experience, on the test samples of those seen so far;
            the record keeps the curve, and no other number changes. 0: at the end alone.
        every: test after every so many experiences, and after the last one. 1: after each. The other rows of the
            accuracy matrix, and metrics that need them, are then empty; no other number changes.
    """

    rows: Literal["all", "seen"] = "all"
    batch_size: int = 100
    steps: int = 0
    every: int = 1
    on: Literal["test", "validation"] = "test"

    def __post_init__(self) -> None:
        at_least(1, "evaluation.", batch_size=self.batch_size, every=self.every)
        at_least(0, "evaluation.", steps=self.steps)

    def due(self, done: int, total: int) -> bool:
        """Tell whether to test after ``done`` of ``total`` experiences."""
        return done == total or done % self.every == 0


@dataclass(frozen=True)
class MemorySpec:
    """What may be kept of the past, and what of it is replayed.

    Attributes:
        buffer: a name of ``clsim list selectors``, ``module:attr``, ``./file.py:attr``, or a combinator such as
            ``per_class(…)`` around one; ``none`` keeps nothing.
        capacity: number of exemplars, in all or for each class or task (see ``per``).
        per: ``total``, ``class`` or ``task``: what the capacity counts.
        fraction: capacity as a share of the training samples seen so far; 0: ``capacity`` counts.
        reserve: what each may fill from its beginning on. ``none``: those seen so far share the whole capacity.
            ``task``: each task of the stream has an equal part of the capacity, which is full with the last task only
            (GEM's m = M / T). Where ``per`` or ``fraction`` let the memory grow, each has its own part in any case.
        batch_size: exemplars replayed with each batch of new samples.
        update: select after every ``batch`` or after every ``experience``.
        options: keyword arguments of the selector.
        retrieval: what chooses the exemplars to replay: ``random``, or a selector, such as ``mir``.
        candidates: exemplars drawn at random for the retrieval to choose from; 0: all.
        retrieval_options: keyword arguments of the retrieval.
        unlabelled: whether the selector is also offered unlabelled samples, under the label that the learner predicts.
        confidence: lowest softmax score of a prediction under which an unlabelled sample is offered.
        shrink: what becomes of a condensed class whose share of the memory shrinks: ``drop``: its first images stay;
            ``condense``: the condenser runs again for the smaller share, with the images that the class had in the
            place of real ones, and begins with some of these where it would begin with noise. The buffer ``dm`` implies
            ``condense`` (unless the capacity counts classes: no share shrinks then), the other condensers ``drop``.
            ``condense`` makes the whole memory anew after each experience, which takes time, and by ``dsa`` it cost
            accuracy in as few steps as a stream can wait for.
        start: an ``.npz`` that the memory holds before the first experience, as ``clsim condense`` writes one (or any
            x_train and y_train, whose labels count the classes of the data set from 0). It is replayed from the first
            batch on, classes that the stream has not come to included: what was known before the stream. From then on
            it is as if chosen earlier: a selector chooses among it and what is new, a condenser makes only classes that
            memory does not hold. It must fit into the capacity; where that counts classes (or tasks), those of the set
            count as seen.
        weights: which exemplars the weights of a selector tell apart in the loss: those of one ``class`` (the mean
            weight of each class is 1), ``all``, or ``none``: all weigh the same.
    """

    buffer: str = "none"
    capacity: int = 500
    per: Literal["total", "class", "task"] = "total"
    fraction: float = 0.0
    reserve: Literal["none", "task"] = "none"
    batch_size: int = 10
    update: Literal["batch", "experience"] = "experience"
    options: Options = field(default_factory=dict)
    retrieval: str = "random"
    candidates: int = 50
    retrieval_options: Options = field(default_factory=dict)
    unlabelled: bool = False
    confidence: float = 0.0
    shrink: Literal["drop", "condense"] = "drop"
    start: str = ""
    weights: Literal["class", "all", "none"] = "class"

    def __post_init__(self) -> None:
        at_least(1, "memory.", capacity=self.capacity, batch_size=self.batch_size)
        at_least(0, "memory.", candidates=self.candidates)
        if self.start and (self.buffer == "none" or self.fraction):
            found = "memory.fraction" if self.fraction else "memory.buffer = 'none'"
            raise InputError(f"memory.start: found {self.start!r} with {found}, allowed: a memory with a capacity")
        if not 0 <= self.fraction <= 1:
            raise InputError(f"memory.fraction: found {self.fraction}, allowed: a share from 0 to 1")
        if self.fraction and self.per != "total":
            raise InputError(f"memory.fraction: found with per = {self.per!r}, allowed: per = 'total'")

    @property
    def counted(self) -> Literal["total", "class", "task"]:
        """What the memory grows with: the tasks or classes seen so far, or ``total``: nothing."""
        return "task" if self.per == "total" and self.reserve == "task" else self.per

    def most(self, counted: int, seen: int, tasks: int) -> int:
        """Compute how many exemplars there may be at some point of a stream.

        Args:
            counted: number of the classes or tasks so far, whichever :attr:`counted` names.
            seen: number of training samples so far.
            tasks: number of tasks of the whole stream.

        >>> spec = MemorySpec(capacity=50, reserve="task")
        >>> [spec.most(seen_tasks, 0, 20) for seen_tasks in (1, 2, 3, 20)]
        [2, 5, 7, 50]
        """
        if self.fraction:
            return max(round(self.fraction * seen), 1)
        if self.per != "total":
            return self.capacity * counted
        return self.capacity * counted // tasks if self.reserve == "task" else self.capacity

    @property
    def size(self) -> str:
        """In words: ``500``, ``20 a class``, ``1 %``."""
        exemplars = f"{self.capacity}" if self.per == "total" else f"{self.capacity} a {self.per}"
        return f"{100 * self.fraction:.4g} %" if self.fraction else exemplars


@dataclass(frozen=True)
class ProxySpec:
    """Fresh nets trained on a selector's candidates, for selectors that ask for one (or a committee), and for coresets.

    SGD with Nesterov momentum and a cosine schedule, the run's architecture and augmentation. The defaults are those
    of DeepCore (Guo et al., 2022): 10 epochs.

    Attributes:
        source: whose features and scores selectors see: the ``learner``'s, or a ``proxy``'s.
        epochs: training epochs of each proxy.
        batch_size: samples in each step of a proxy.
        lr: learning rate at the start of a proxy's training, from which a cosine falls to 0.
        momentum: Nesterov momentum of a proxy's SGD.
        weight_decay: factor of a proxy's weights that is added to their gradient.
    """

    source: Literal["learner", "proxy"] = "learner"
    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        at_least(1, "proxy.", epochs=self.epochs, batch_size=self.batch_size)
        at_least(0, "proxy.", weight_decay=self.weight_decay)
        if not 0 < self.lr < math.inf:
            raise InputError(f"proxy.lr: found {self.lr}, allowed: a finite number above 0")
        if not 0 < self.momentum < 1:
            raise InputError(f"proxy.momentum: found {self.momentum}, allowed: above 0 and below 1")


@dataclass(frozen=True)
class ControllerSpec:
    """What sets the learning rate and the method's trade-off in each experience.

    The defaults are the survey's. FACIL's way is ``carry = false``, ``skip_first = true``, ``decays = 7``.

    Attributes:
        name: ``none``, or ``stability-decay``; see :mod:`clsim.training.stability_decay`.
        decay: the learner's options that trade stability for plasticity: the larger, the less is forgotten. Without
            any, the method is trained once with the best learning rate. Whole numbers are rounded down.
        first: values of some of them that the search begins with, instead of those that the learner has without a
            controller.
        margin: p, the share of the best fine-tuning's validation accuracy that stability may cost.
        factor: α, which an option that costs more is multiplied by.
        decays: largest number of decays in an experience; the model after the last one is kept in any case.
        carry: whether an experience begins with the values that the one before ended with; else with those given.
        skip_first: whether the first experience, where there is nothing to forget, is trained once, with no decay.
        first_rates: learning rates of the search in the first experience.
        rates: learning rates of the search in all others.
    """

    name: Literal["none", "stability-decay"] = "none"
    decay: tuple[str, ...] = ()
    first: Options = field(default_factory=dict)
    margin: float = 0.2
    factor: float = 0.5
    decays: int = 10
    carry: bool = True
    skip_first: bool = False
    first_rates: tuple[float, ...] = (1e-1, 5e-2, 1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
    rates: tuple[float, ...] = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise InputError(f"controller.margin: found {self.margin}, allowed: a share from 0 to below 1")
        if not 0 < self.factor < 1:
            raise InputError(f"controller.factor: found {self.factor}, allowed: above 0 and below 1")
        if self.decays < 0:
            raise InputError(f"controller.decays: found {self.decays}, allowed: 0 or more")
        if len(set(self.decay)) < len(self.decay):
            raise InputError(f"controller.decay: found {list(self.decay)}, allowed: each option once")
        for name, value in self.first.items():
            if name not in self.decay:
                raise InputError(f"controller.first: found {name!r}, allowed: the options of controller.decay")
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise InputError(f"controller.first.{name}: found {value!r}, allowed: a finite number above 0")
        for key, rates in (("first_rates", self.first_rates), ("rates", self.rates)):
            if not rates or not all(0 < rate < math.inf for rate in rates):
                raise InputError(f"controller.{key}: found {list(rates)}, allowed: one number above 0, or more")

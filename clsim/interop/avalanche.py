"""The bridge to Avalanche: its strategies as learners of clsim, and clsim's selectors in its replay."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clsim.compat import import_torchvision, without_warnings
from clsim.errors import InputError, nearest
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selector
from clsim.spec.run import RunSpec
from clsim.spec.tables import OptimizerSpec
from clsim.streams.stream import Experience
from clsim.training.contract import Learner, Setup, Terms

import_torchvision()  # before Avalanche, which imports it too

from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels  # noqa: E402
from avalanche.benchmarks.utils.classification_dataset import (  # noqa: E402
    _make_taskaware_classification_dataset as make_dataset,  # the public makers lose the task labels
)
from avalanche.benchmarks.utils.utils import concat_datasets  # noqa: E402
from avalanche.models import MultiTaskModule, avalanche_forward  # noqa: E402
from avalanche.training import supervised  # noqa: E402
from avalanche.training.plugins import SupervisedPlugin  # noqa: E402
from avalanche.training.storage_policy import ExemplarsBuffer  # noqa: E402
from avalanche.training.templates import SupervisedTemplate  # noqa: E402

OURS = ("model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size", "device", "plugins")
"""Arguments of a strategy that the bridge sets; the others are options of the learner, ``[learner.options]``."""

IGNORED = (
    *("training.passes", "training.steps", "training.until", "training.patience"),
    *("training.last_batch", "training.capturable", "training.compile"),
    *("optimizer.clip", "controller.name"),
)
"""Options that Avalanche's training does not have."""


def strategy(name: str) -> Callable[..., Learner]:
    """Return the learner ``avalanche:NAME``; its options are those of the strategy's constructor.

    Args:
        name: the name of the strategy's class in Avalanche.

    Raises:
        InputError: if Avalanche has no such strategy.
    """
    known = {n: c for n, c in vars(supervised).items() if inspect.isclass(c) and issubclass(c, SupervisedTemplate)}
    if name not in known:
        raise InputError(f"learner.name: Avalanche has no strategy {name!r}; {nearest(name, known)}")

    def make(setup: Setup, **options: Any) -> Learner:
        return AvalancheLearner(setup, known[name], options)

    taken = (*OURS, "self", "evaluator", "eval_every", "base_kwargs", "kwargs", "args")
    own = [p for p in inspect.signature(known[name].__init__).parameters.values() if p.name not in taken]
    options = [inspect.Parameter(p.name, p.KEYWORD_ONLY, default=p.default) for p in own]
    setup = inspect.Parameter("setup", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    make.__doc__ = inspect.getdoc(known[name])
    make.__signature__ = inspect.Signature([setup, *options])  # type: ignore[attr-defined]
    return make


class AvalancheLearner(Learner):
    """A strategy of Avalanche, trained on each experience as a whole. Final.

    It sees the same net, optimizer, schedule, precision, batch size, epochs and augmentation; batches are drawn by
    Avalanche. What its training does not have is refused (:data:`IGNORED`). A memory is
    Avalanche's own (``learner.options.mem_size``), so ``memory.buffer`` stays ``none``. It predicts with the net's
    logits: a readout that Avalanche does outside the net (iCaRL's nearest mean) is not used. It cannot be resumed:
    Avalanche's strategies cannot be saved with current versions of torch.

    Args:
        setup: the net, the transform and the spec of the run.
        kind: the strategy's class.
        options: options of the strategy's constructor.
    """

    trains_at_end: ClassVar[bool] = True

    def __init__(self, setup: Setup, kind: Callable[..., SupervisedTemplate], options: dict[str, Any]) -> None:
        _refuse_ignored(setup.spec)
        training = setup.spec.training
        super().__init__(setup)
        self._past: list[Any] = []
        with without_warnings():
            self.strategy = kind(
                model=_PerTask(setup) if setup.net.masked else _Blind(setup),
                optimizer=optimizers.build(setup.spec.optimizer, setup.net.parameters()),
                criterion=nn.CrossEntropyLoss(),
                train_mb_size=training.batch_size,
                train_epochs=training.epochs,
                eval_mb_size=setup.spec.evaluation.batch_size,
                device=setup.device,
                evaluator=None,
                **options,
            )
        self.strategy.plugins.append(_Schedule(setup.spec.optimizer))

    def observe(self, batch: Exemplars) -> Terms:
        """Do nothing: Avalanche draws its own batches, in :meth:`finish`."""
        return {}

    def finish(self, experience: Experience) -> list[Terms]:
        """Train on the whole experience, which Avalanche gets as the last one of a stream with all earlier ones."""
        samples = _Samples(experience.train, self.setup)
        tasks = experience.train.task if self.setup.net.masked else torch.zeros_like(experience.train.task)
        self._past.append(make_dataset(samples, targets=samples.targets, task_labels=tasks.tolist()))
        benchmark = with_task_labels(with_classes_timeline(benchmark_from_datasets(train=self._past)))
        # whole passes, where an epoch is several passes over the labelled part
        batches = -(-len(experience.train) // self.setup.spec.training.batch_size)
        partly = experience.unlabelled is not None
        passes = -(-self.setup.steps(experience) // batches) if partly else self.setup.spec.training.epochs
        self.strategy.train_epochs = passes
        with without_warnings():
            # the samples are on the device already, where nothing can be pinned
            self.strategy.train(benchmark.train_stream[len(self._past) - 1], pin_memory=False)
        self.setup.cost.steps += batches * passes
        self.setup.cost.forward_passes += len(experience.train) * passes
        return []

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        """Return the logits of raw samples, (n, classes); −∞ for classes that a task does not have."""
        model, net = self.strategy.model, self.setup.net
        with evaluating(model), torch.no_grad():
            logits = avalanche_forward(model, self.setup.transform.plain(x), task)
        return logits.masked_fill(~net.visible[task], -torch.inf) if net.masked else logits


def _refuse_ignored(spec: RunSpec) -> None:
    """Refuse options of a run that Avalanche's training does not have.

    Raises:
        InputError: naming the option.
    """
    found, usual = asdict(spec), asdict(RunSpec())
    allowed: dict[str, tuple[Any, ...]] = {
        "optimizer.name": ("sgd", "adam", "adamw", "nadam"),
        "optimizer.schedule": ("constant", "cosine", "step"),
    }
    for name in IGNORED:
        table, _, key = name.partition(".")
        allowed[name] = (usual[table][key],)
    for name, values in allowed.items():
        table, _, key = name.partition(".")
        value = found[table][key]
        if value not in values:
            listed = ", ".join(map(repr, values))
            raise InputError(f"{name}: found {value!r} with an Avalanche strategy, allowed: {listed}")


class _Schedule(SupervisedPlugin):
    """Sets the learning rate of each step, and clears the optimizer's state for each experience, as a spec has it.

    Args:
        spec: the optimizer's table of the spec.
    """

    def __init__(self, spec: OptimizerSpec) -> None:
        super().__init__()
        self._spec = spec
        self._step = 0

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        self._step = 0
        if self._spec.restart:
            strategy.optimizer.state.clear()

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        steps = len(strategy.dataloader) * strategy.train_epochs
        if self._spec.schedule != "constant" or self._spec.warmup:
            rate = optimizers.rate(self._spec, min(self._step, steps - 1), steps)
            optimizers.set_rate(strategy.optimizer, rate)
        self._step += 1


class SelectorPolicy(ExemplarsBuffer):
    """A storage policy that uses a selector of clsim, for Avalanche's ``ReplayPlugin(mem_size, storage_policy=…)``.

    Args:
        select: the selector, which chooses out of buffer ∪ experience after each experience.
        max_size: largest number of exemplars to keep; the plugin's ``mem_size``.
        body: the part of the strategy's model that makes features.
        head: the last layer of that model.
        seed: seed of the selector's random draws.
    """

    def __init__(self, select: Selector, max_size: int, body: nn.Module, head: nn.Linear, *, seed: int = 0) -> None:
        super().__init__(max_size)
        self._select = select
        self._net = Net(body, head.in_features, torch.ones(1, head.out_features, dtype=torch.bool))
        self._net.head = head
        self._rng = torch.Generator().manual_seed(seed)
        self._keys = torch.empty(0)

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Keep the exemplars that the selector picks from the buffer and the experience."""
        # an empty buffer has no columns, and joined sets without common columns lose their task labels
        whole = concat_datasets([self.buffer, exp.dataset]) if len(self.buffer) else exp.dataset
        self._keys = torch.cat([self._keys, torch.rand(len(exp.dataset), generator=self._rng)])
        self._keep(whole, self.max_size)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Keep at most ``new_size`` exemplars, as the selector picks."""
        self.max_size = new_size
        if len(self.buffer) > new_size:
            self._keep(self.buffer, new_size)

    def _keep(self, dataset: Any, size: int) -> None:
        device = self._net.head.weight.device
        samples = [dataset.eval()[i] for i in range(len(dataset))]
        n = len(samples)
        data = Exemplars(
            x=torch.stack([s[0] for s in samples]).to(device),
            y=torch.tensor([int(s[1]) for s in samples], device=device),
            task=torch.zeros(n, dtype=torch.int64, device=device),
            key=self._keys.to(device),
            index=torch.arange(n, device=device),
        )
        chosen = self._select(Pool(data, self._net, lambda x: x), size, rng=self._rng).index.cpu()
        self.buffer = dataset.subset(chosen.tolist())
        self._keys = self._keys[chosen]


class _Blind(nn.Module):
    """The net in the form that Avalanche expects where no task is known."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.net = setup.net
        self._precision = setup.precision

    def forward(self, x: Tensor) -> Tensor:
        with self._precision():
            return self.net.head(self.net.features(x)).float()


class _PerTask(MultiTaskModule):
    """The net in the form that Avalanche expects where each sample comes with its task."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.net = setup.net
        self._precision = setup.precision

    def forward(self, x: Tensor, task_labels: Any) -> Any:
        if not isinstance(task_labels, Tensor):
            return super().forward(x, task_labels)
        with self._precision():
            logits = self.net.head(self.net.features(x)).float()
        # as Avalanche's own masked heads: with −inf, strategies that square outputs (MAS) get NaN
        return logits.masked_fill(~self.net.visible[task_labels], -1000.0)

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        return self(x, torch.full((len(x),), task_label, device=x.device))


class _Samples(torch.utils.data.Dataset):
    """The samples of an experience, each augmented anew every time that it is read."""

    def __init__(self, samples: Exemplars, setup: Setup) -> None:
        self._samples, self._setup = samples, setup
        self.targets = samples.y.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x = self._samples.x[row : row + 1]
        return self._setup.transform.train(x, self._setup.randomness.augment)[0], self.targets[row]

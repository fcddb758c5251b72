"""The workshop: the one place where a net, its transform, the trainer of its proxies and a pool of samples are made.

A run's stream (:mod:`clsim.training.assemble`), ``clsim select`` and ``clsim condense`` all get theirs here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clsim.data.augmentation import Transform
from clsim.data.cache import Dataset
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost, Features, Pool
from clsim.pool.proxy import Trainer
from clsim.randomness import Randomness, derive, generator
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.spec.tables import DataSpec, ProxySpec, TrainingSpec


@dataclass(frozen=True)
class Workshop:
    """What nets of one architecture are made and trained with, and pools of samples that they look at. Final.

    Attributes:
        spec: of the run; its ``seed`` and its ``proxy`` count here.
        fresh: a net with weights drawn from a seed.
        transform: uint8 → normalised float, with or without augmentation.
        precision: the context of forward passes.
        randomness: the run's generators.
        cost: the counters that pools and proxies add to.
    """

    spec: RunSpec
    fresh: Callable[[int], nets.Net]
    transform: Transform
    precision: Callable[[], AbstractContextManager]
    randomness: Randomness
    cost: Cost

    def net(self) -> nets.Net:
        """The net that a run begins with: the same one for the same seed."""
        return self.fresh(derive(self.spec.seed, "weights"))

    def pool(
        self,
        samples: Exemplars,
        net: nets.Net | None = None,
        *,
        features: Features | None = None,
        classes: Iterable[int] | None = None,
        reference: Exemplars | None = None,
        incoming: Exemplars | None = None,
    ) -> Pool:
        """Samples, with what a net says of them.

        Args:
            net: the net behind features and scores; None: a proxy, trained on the samples when first asked for.
            features: raw samples and their tasks → the features that the head of the net sees, where these are not the
                net's own.
            classes: labels known so far in the stream; None: those that occur in the samples and beside them.
            reference: held-out labelled samples that a choice should serve.
            incoming: the new batch, when the choice is what to replay with it.
        """
        draws = self.randomness
        trainer = Trainer(
            self.spec.proxy, self.fresh, self.transform, self.precision, draws.proxy, draws.proxy_augment, self.cost
        )
        return Pool(
            samples,
            net,
            self.transform.plain,
            features=features,
            precision=self.precision,
            cost=self.cost,
            trainer=trainer,
            classes=classes,
            reference=reference,
            incoming=incoming,
        )


def workshop(
    spec: RunSpec,
    body: Callable[..., nn.Module],
    *,
    shape: tuple[int, ...],
    visible: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Sequence[str],
    precision: str,
    channels_last: bool,
    device: torch.device,
    cost: Cost,
) -> Workshop:
    """Set up a workshop for samples of one shape.

    Args:
        body: the architecture: a function of the shape, its options bound.
        shape: the shape of one sample.
        visible: bool (tasks, classes), the classes that the head shows for each task.
        mean, std: of the training data, per channel or dimension.
        augment: operations in training, by name.
        precision: ``fp32``, or ``bf16`` (autocast).
        channels_last: store images and convolutions channels-last; vectors have one format.
    """
    last = channels_last and len(shape) == 3

    def fresh(seed: int) -> nets.Net:
        net = nets.build(body, shape, visible, seed, device)
        return net.to(memory_format=torch.channels_last) if last else net  # type: ignore[call-overload]

    transform = Transform(mean, std, augment, device=device, channels_last=last)
    return Workshop(spec, fresh, transform, partial(autocast, precision, device), Randomness(spec.seed, device), cost)


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of forward passes: autocast for ``bf16``, nothing for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def spec_of_call(
    dataset: str,
    path: str | Path,
    *,
    seed: int,
    device: str,
    threads: int | None,
    proxy_epochs: int,
    size: int = 0,
    per_class: int = 0,
) -> RunSpec:
    """The spec of work without a stream, in which features and scores come from proxies.

    Args:
        threads: of torch; None leaves them as they are.
    """
    return RunSpec(
        seed=seed,
        data=DataSpec(dataset, str(path), size=size, per_class=per_class),
        training=TrainingSpec(device=device, threads=threads or torch.get_num_threads()),
        proxy=ProxySpec(source="proxy", epochs=proxy_epochs),
    )


def of_dataset(
    spec: RunSpec,
    dataset: Dataset,
    model: str,
    options: Mapping[str, Any],
    augment: Sequence[str],
    *,
    device: torch.device,
    cost: Cost | None = None,
    precision: str = "fp32",
) -> tuple[Workshop, Exemplars]:
    """Set up a workshop for a data set as a whole; and its training part.

    Args:
        model: the architecture, a name of ``clsim list models``.
        options: of the model.
        augment: operations in a proxy's training, by name.
    """
    shop = workshop(
        spec,
        registry.component("models", model, options, "model options"),
        shape=dataset.train_x.shape[1:],
        visible=torch.ones(1, len(dataset.classes), dtype=torch.bool),
        mean=dataset.mean,
        std=dataset.std,
        augment=augment,
        precision=precision,
        channels_last=True,
        device=device,
        cost=Cost() if cost is None else cost,
    )
    return shop, exemplars(np.array(dataset.train_x), dataset.train_y, spec.seed, device)


def exemplars(x: np.ndarray, y: np.ndarray, seed: int, device: torch.device) -> Exemplars:
    """Samples of one experience, on a device: all of task 0, each one's ``index`` its row.

    Args:
        x: (n, \\*shape), writable where it shares its memory with the samples.
        y: (n,) whole numbers; −1 = unlabelled.
        seed: of the keys.
    """
    n = len(x)
    return Exemplars(
        x=torch.from_numpy(x).to(device),
        y=torch.from_numpy(y.astype(np.int64)).to(device),
        task=torch.zeros(n, dtype=torch.int64, device=device),
        key=torch.rand(n, generator=generator(seed, "experience 0")).to(device),
        index=torch.arange(n, device=device),
    )

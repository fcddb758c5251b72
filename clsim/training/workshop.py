"""The workshop: makes nets, their transform, the trainer of proxies and pools of samples.

It serves the runs of a stream (:mod:`clsim.training.assemble`), ``clsim select`` and ``clsim condense`` alike.
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
from clsim.pool.exemplars import Columns, Exemplars
from clsim.pool.pool import Cost, Embed, Features, Pool
from clsim.pool.proxy import Trainer
from clsim.randomness import Randomness, derive, generator
from clsim.spec import registry
from clsim.spec.run import RunSpec
from clsim.spec.tables import DataSpec, ProxySpec, TrainingSpec

Fresh = Callable[[int], nets.Net]
"""Makes a net with weights drawn from a seed."""


KEYS = "experience 0"
"""Purpose of the generator that draws the keys of samples without a stream."""


@dataclass(frozen=True)
class Workshop:
    """Maker of nets of one architecture, and of pools of samples with their features and scores. Final.

    Attributes:
        spec: the run's spec, of which ``seed`` and ``proxy`` are used here.
        fresh: makes a net with weights drawn from a seed.
        transform: converts uint8 samples to normalised floats, with or without augmentation.
        precision: makes the context of forward passes.
        randomness: the run's generators.
        cost: the counters that pools and proxies add to.
    """

    spec: RunSpec
    fresh: Fresh
    transform: Transform
    precision: Callable[[], AbstractContextManager]
    randomness: Randomness
    cost: Cost

    def net(self) -> nets.Net:
        """Make the net that a run begins with: the same one for the same seed."""
        return self.fresh(derive(self.spec.seed, "weights"))

    def trainer(self) -> Trainer:
        """Make the trainer of proxies."""
        draws = self.randomness
        return Trainer(
            self.spec.proxy, self.fresh, self.transform, self.precision, draws.proxy, draws.proxy_augment, self.cost
        )

    def pool(
        self,
        samples: Exemplars,
        net: nets.Net | None = None,
        *,
        features: Features | None = None,
        classes: Iterable[int] | None = None,
        labelled: Exemplars | None = None,
        reference: Exemplars | None = None,
        query: Exemplars | None = None,
        private: Exemplars | None = None,
        incoming: Exemplars | None = None,
        rate: float | None = None,
        closed: bool = False,
        embed: Embed | None = None,
        columns: Columns | None = None,
    ) -> Pool:
        """Make a pool of samples, with features and scores of a net.

        Args:
            samples: the candidates.
            net: the net behind features and scores; None: a proxy, which is trained on the samples when first needed.
            features: computes the features that the net's head sees from raw samples and their tasks; None: the net's
                own features.
            classes: labels known so far in the stream; None: those of the samples and of the other roles of the pool.
            labelled: samples that are labelled already and are no candidates.
            reference: held-out labelled samples that the selection should serve.
            query, private: samples that the selection should resemble, and samples that it should avoid.
            incoming: the new batch, when the selection is what to replay with it.
            rate: the learning rate of the learner's next step; None: there is no learner.
            closed: whether only classes that are known have logits, as in a choice of labels.
            embed: computes the embedding of samples; None: their features.
            columns: values that samples got once and keep.
        """
        trainer = self.trainer()
        return Pool(
            samples,
            net,
            self.transform.plain,
            features=features,
            precision=self.precision,
            cost=self.cost,
            trainer=trainer,
            classes=classes,
            labelled=labelled,
            reference=reference,
            query=query,
            private=private,
            incoming=incoming,
            rate=rate,
            closed=closed,
            embed=embed,
            columns=columns,
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
        spec: the run's spec.
        body: the architecture, as a function of the shape with its options bound.
        shape: the shape of one sample.
        visible: bool (tasks, classes), the classes that the head shows for each task.
        mean, std: mean and standard deviation of the training data, per channel or dimension.
        augment: names of the operations of augmentation in training.
        precision: ``fp32``, or ``bf16`` (autocast).
        channels_last: whether to store images and convolutions channels-last; without effect for vectors.
        device: the device of nets and samples.
        cost: the counters that pools and proxies add to.
    """
    last = channels_last and len(shape) == 3

    def fresh(seed: int) -> nets.Net:
        net = nets.build(body, shape, visible, seed, device)
        return net.to(memory_format=torch.channels_last) if last else net  # type: ignore[call-overload]

    transform = transform_of(mean, std, augment, device=device, channels_last=last)
    return Workshop(spec, fresh, transform, partial(autocast, precision, device), Randomness(spec.seed, device), cost)


def transform_of(
    mean: Sequence[float], std: Sequence[float], augment: Sequence[str], *, device: torch.device, channels_last: bool
) -> Transform:
    """Make what converts uint8 samples to normalised inputs, with or without augmentation; see :class:`Transform`."""
    return Transform(mean, std, augment, device=device, channels_last=channels_last)


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context of forward passes: autocast for ``bf16``, no effect for ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def spec_of_call(
    dataset: str,
    path: str | Path,
    *,
    seed: int,
    device: str,
    threads: int | None,
    proxy_epochs: int,
    size: int | None = 0,
    per_class: int = 0,
) -> RunSpec:
    """Make the spec of work without a stream, in which features and scores come from proxies.

    Args:
        dataset: a name of ``clsim list datasets``.
        path: path of the user's own data, for ``image-folder``, ``npz`` and ``hf``.
        seed: seed of everything that is drawn.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of torch's threads; None leaves it as it is.
        proxy_epochs: training epochs of each proxy.
        size: side, in pixels, that images are scaled to; 0: no scaling; None: 32 for ``image-folder``, else no scaling.
        per_class: largest number of training images of each class; 0: all.
    """
    return RunSpec(
        seed=seed,
        data=DataSpec.of(dataset, str(path), size, per_class),
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
    """Set up a workshop for a whole data set; return it, and the training part as samples.

    Args:
        spec: the spec, as :func:`spec_of_call` makes it.
        dataset: the data set.
        model: the architecture, a name of ``clsim list models``.
        options: options of the model, by name.
        augment: names of the operations of augmentation in a proxy's training.
        device: the device of nets and samples.
        cost: the counters that pools and proxies add to; None: new ones.
        precision: ``fp32``, or ``bf16`` (autocast).
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
    """Make samples of one experience on a device, all of task 0, with their rows as ``index``.

    Args:
        x: (n, \\*shape), a writable array, whose memory the samples may share.
        y: (n,), whole numbers; −1 = unlabelled.
        seed: seed of the keys.
        device: the device of the samples.
    """
    n = len(x)
    return Exemplars(
        x=torch.from_numpy(x).to(device),
        y=torch.from_numpy(y.astype(np.int64)).to(device),
        task=torch.zeros(n, dtype=torch.int64, device=device),
        key=torch.rand(n, generator=generator(seed, KEYS)).to(device),
        index=torch.arange(n, device=device),
    )

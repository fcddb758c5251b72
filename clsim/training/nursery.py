"""Nets that learn the images of an experience without labels, each trained once and kept.

A net is kept in a folder, under a name that is a hash of all that decides its weights: so a run that is killed trains
no net twice, and the runs of a study share a net where images and settings are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clsim.models import nets
from clsim.pool.pretraining import pretrain
from clsim.randomness import derive
from clsim.spec import components, registry
from clsim.spec.run import RunSpec
from clsim.spec.tables import TrainingSpec
from clsim.streams.stream import Stream
from clsim.training import kept_nets
from clsim.training.workshop import autocast, transform_of

FORMAT = 2
"""Goes up with each change of what a training computes, so that nets which were kept before are not read."""


class Nursery:
    """Trains nets on the images of a stream's experiences, or reads those that were trained before. Final.

    Args:
        spec: the resolved spec, whose table ``embedding`` says how.
        stream: the stream.
        kept: folder of the nets; None: none is kept.

    Attributes:
        transform: converts images to the input of these nets.

    Raises:
        InputError: for an unknown augmentation.
    """

    def __init__(self, spec: RunSpec, stream: Stream, kept: Path | None) -> None:
        self._spec, self._stream, self._kept = spec, stream, kept
        # nets that were kept before there was a choice keep their names
        self._rounded = [] if spec.training.tf32 == TrainingSpec.tf32 else [spec.training.tf32]
        self._last = spec.training.channels_last and len(stream.shape) == 3
        self.transform = transform_of(stream.mean, stream.std, (), device=stream.device, channels_last=self._last)
        self.transform.view(views_of(spec, "simclr", stream.shape[0]), "embedding.augment")

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of forward passes."""
        return autocast(self._spec.training.precision, self._stream.device)

    def net(self, model: str, options: Mapping[str, Any], where: str, seed: int = 0) -> nets.Net:
        """Build a net with a head of four outputs, for the quarter turns.

        Args:
            model: the name of the model.
            options: its options.
            where: the table that holds the options, for messages.
            seed: the seed of its weights.
        """
        body, stream = registry.component("models", model, options, where), self._stream
        net = nets.build(body, stream.shape, torch.ones(1, 4, dtype=torch.bool), seed, stream.device)
        return net.to(memory_format=torch.channels_last) if self._last else net  # type: ignore[call-overload]

    def learnt(
        self, method: str, model: str, options: Mapping[str, Any], where: str, position: int
    ) -> tuple[kept_nets.State, dict[str, Any]]:
        """Train a body on the images of an experience, or read it.

        Args:
            method: the way to learn.
            model, options, where: as for :meth:`net`.
            position: the position of the experience.

        Returns:
            The weights, and what they took: images, steps, seconds, the mean loss of the last epoch, and the name of
            the file that keeps them.
        """
        spec, stream = self._spec, self._stream
        course, images = spec.embedding, stream.images(position)
        seed = derive(spec.seed if course.seed < 0 else course.seed, f"embedding {method}")
        rng = torch.Generator().manual_seed(seed)
        if 0 < course.images < len(images):
            images = images[torch.randperm(len(images), generator=rng)[: course.images].sort().values.to(images.device)]
        augment = views_of(spec, method, stream.shape[0])
        own = {"name": method, "model": model, "options": dict(options), "augment": augment, "seed": seed}
        own |= {"batch_size": course.batch(len(images)), "components": 0}  # which no weight depends on
        about = {
            "format": FORMAT,
            "course": dataclasses.asdict(course) | own,
            "code": [digest for name, digest in spec.sources if name == model],
            "images": [list(images.shape), hashlib.sha256(images.cpu().numpy().tobytes()).hexdigest()],
            "moments": [stream.mean, stream.std],
            "training": [spec.training.precision, self._last, *self._rounded],
            "machine": [stream.device.type, platform.machine(), torch.__version__, torch.get_num_threads()],
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        with kept_nets.locked(self._kept, key):
            found = None if self._kept is None else kept_nets.read(self._kept / f"{key}.pt")
            net = self.net(model, options, where, derive(seed, "weights"))
            if found is None or not kept_nets.fits(net, found[0]):
                started = time.perf_counter()
                losses = pretrain(
                    images,
                    method,
                    net,
                    self.transform,
                    rng,
                    options=course,
                    augment=augment,
                    precision=self.precision,
                )
                each = len(images) // course.batch(len(images))
                cost = {"method": method, "model": model, "images": len(images), "steps": course.epochs * each}
                cost |= {"seconds": time.perf_counter() - started, "loss": losses[-1], "file": f"{key}.pt"}
                found = {name: value.cpu() for name, value in net.body.state_dict().items()}, cost
                kept_nets.keep(self._kept, *found)
        return found


def views_of(spec: RunSpec, method: str, channels: int) -> tuple[str, ...]:
    """Name the augmentations of the views of a run's images; ``auto`` goes by the method and by the data."""
    if spec.embedding.augment != ("auto",):
        return spec.embedding.augment
    if method == "rotation":
        return ("crop",)
    digits = components.are_digits(spec.data.dataset, spec.data.sequence)
    return ("affine", *(() if digits else ("flip",)), "gamma" if channels == 1 else "jitter")

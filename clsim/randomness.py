"""The random generators of a run: one for each purpose, all derived from the run's seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive(seed: int, purpose: str) -> int:
    """Derive the seed of one purpose from the run's seed.

    Each purpose has a seed of its own, so that one more draw for a purpose changes no draw for another.

    >>> derive(0, "order") == derive(0, "order") != derive(0, "replay")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a fresh generator for one purpose."""
    return torch.Generator(device).manual_seed(derive(seed, purpose))


@contextmanager
def own_draws(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let layers draw from ``seed`` inside; torch's global generators are afterwards as they were before.

    Layers draw their first weights from the global generator of the CPU, and dropout from that of its device.

    Args:
        device: The device of the samples that go through dropout layers; None if only weights are drawn.
    """
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's global generators, that of the CPU and, if ``device`` is a GPU, that of the GPU."""
    if device is not None and device.type == "cuda":
        torch.manual_seed(seed)
    else:  # torch.manual_seed also seeds every GPU and, where there is none, notes with a stack trace that it did
        torch.default_generator.manual_seed(seed)


class Randomness:
    """The generators of a run, as one state. Final.

    Attributes:
        order: draws the order of the samples in an epoch (CPU).
        memory: draws replayed batches, and whatever selectors draw (CPU).
        augment: draws augmentation (on the device of the images).
        proxy: draws weights and order of samples of proxy nets (CPU).
        proxy_augment: draws augmentation for proxy nets (on the device of the images).
        batch: draws for the choice of the samples of each step (CPU).
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.order = generator(seed, "order")
        self.memory = generator(seed, "memory")
        self.augment = generator(seed, "augment", device)
        self.proxy = generator(seed, "proxy")
        self.proxy_augment = generator(seed, "proxy augment", device)
        self.batch = generator(seed, "batch")

    def state_dict(self) -> dict[str, Tensor]:
        """Return every generator's state, and that of torch's own, which only layers such as dropout draw from."""
        states = {name: g.get_state() for name, g in vars(self).items()}
        states["torch"] = torch.get_rng_state()
        if self.augment.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.augment.device)
        return states

    def load_state_dict(self, states: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name, g in vars(self).items():
            if name in states:  # earlier versions had no choice of batches
                g.set_state(states[name])
        torch.set_rng_state(states["torch"])
        if self.augment.device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], self.augment.device)

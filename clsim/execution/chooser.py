"""The choice of what a person is asked to label next: trained on what is labelled, or cold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clsim.errors import InputError
from clsim.pool.contracts import chosen
from clsim.pool.pool import Cost, Pool, Selector
from clsim.randomness import generator
from clsim.spec import abilities, registry
from clsim.training import classifier, machine
from clsim.training.workshop import exemplars, spec_of_call

WITHOUT_A_NET = ("nothing", "features", "features; labelled samples if there are any")
"""What those selectors need that choose among features without a trained net."""


@dataclass(frozen=True)
class Candidates:
    """Samples, some of them labelled.

    Attributes:
        x: uint8 (n, 3, size, size), pictures; or float32 (n, d), features.
        y: int64 (n,), the label; −1 where there is none.
        classes: number of classes; each occurs in ``y``.
        mean, std: of each channel of pictures.
    """

    x: np.ndarray
    y: np.ndarray
    classes: int
    mean: Sequence[float] = ()
    std: Sequence[float] = ()


class Chooser:
    """Maker of choices by one selector. Final.

    Args:
        selector: a name of ``clsim list selectors``, ``module:attr``, ``./file.py:attr``, or a selector itself.
        options: keyword arguments of the selector.
        features: whether samples are features, and not pictures.
        model: architecture of the net for pictures; empty: ``pooled-convnet3``.
        epochs: training epochs of the net; None: see :func:`clsim.training.classifier.of_images`.
        seed: seed of everything that is drawn.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of torch's threads; None leaves it as it is.
        cost: counters that are added to.

    Raises:
        InputError: if there is no such selector, or it reads labels of candidates.
    """

    def __init__(
        self,
        selector: str | Selector,
        options: Mapping[str, Any] | None,
        *,
        features: bool,
        model: str,
        epochs: int | None,
        seed: int,
        device: str,
        threads: int | None,
        cost: Cost,
    ) -> None:
        self.name = selector if isinstance(selector, str) else getattr(selector, "__qualname__", repr(selector))
        bound = registry.component("selectors", selector, options, "options") if isinstance(selector, str) else selector
        allowed = "selectors that read no label of a candidate (`clsim list selectors`)"
        needs = set(abilities.needs_without_labels(selector, self.name, allowed).values())
        self._selector, self._cold = (self.name, bound), (self.name, bound)
        if not needs or not needs <= set(WITHOUT_A_NET if features else WITHOUT_A_NET[:1]):
            name = "typiclust" if features else "random"
            self._cold = (name, registry.component("selectors", name))
        if model:
            registry.check_name("models", model)
        self._features, self._model, self._epochs, self._seed = features, model or "pooled-convnet3", epochs, seed
        self._spec = spec_of_call("digits", "", seed=seed, device=device, threads=threads, proxy_epochs=10)
        self._device, self._cost = machine.device_of(device), cost

    def choose(self, given: Candidates, free: Sequence[int], budget: int) -> tuple[list[int], str, list[int]]:
        """Choose among the rows ``free``, with the labelled rows beside them.

        With labels of two classes or more, a classifier is trained first. The choice is the same for the same
        arguments.

        Returns:
            The chosen rows, best first; the name of the selector; and the predicted class of each row, empty where
            nothing was trained.
        """
        labelled = np.flatnonzero(given.y >= 0)
        with machine.isolated(self._spec, self._device):
            samples, guesses = exemplars(np.array(given.x), given.y, self._seed, self._device), []
            if given.classes < 2:
                name, select = self._cold
                pool = Pool(samples, None, classifier.unchanged, cost=self._cost)
            else:
                name, select = self._selector
                pool = self._fitted(given).pool(samples)
                guesses = pool.predictions.tolist()
            if not free:
                return [], name, guesses
            rows = np.union1d(labelled, free)
            pool = pool[torch.from_numpy(rows).to(self._device)]
            beside = torch.from_numpy(np.searchsorted(rows, labelled)).to(self._device)
            pool = pool.apart({"labelled": beside})
            # a generator of its own for each number of labels: the same picks whether asked for once or again
            rng = generator(self._seed, f"question after {len(given.y) - len(free)} answers")
            selection = chosen(select, pool, min(budget, len(free)), rng, f"selector {name!r}")
            return pool.data.index[selection.index].tolist(), name, guesses

    def predict(self, given: Candidates, x: np.ndarray) -> list[int]:
        """Predict the classes of ``x`` by the labelled ones of ``given``.

        Raises:
            InputError: if fewer than two classes have labels.
        """
        if given.classes < 2:
            raise InputError(f"predict: found labels of {given.classes} classes, allowed: two or more")
        with machine.isolated(self._spec, self._device):
            samples = exemplars(np.array(x), np.full(len(x), -1), self._seed, self._device)
            return self._fitted(given).pool(samples).predictions.tolist()

    def _fitted(self, given: Candidates) -> classifier.Classifier:
        samples = exemplars(np.array(given.x), given.y, self._seed, self._device)
        if self._features:
            return classifier.of_features(samples, given.classes, self._spec, cost=self._cost)
        return classifier.of_images(
            samples,
            given.classes,
            self._spec,
            model=self._model,
            mean=given.mean,
            std=given.std,
            augment=("crop", "flip"),
            epochs=self._epochs,
            cost=self._cost,
        )

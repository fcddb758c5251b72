"""Rank candidate models without labels, by how much their outputs have changed: ``clsim.rank_models(...)``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim.data import arrays
from clsim.errors import InputError
from clsim.selectors.scores import discrepancies


def rank_models(now: Mapping[str, Any], before: Any) -> dict[str, float]:
    """Order models by the mean temporal output discrepancy on unlabelled samples, the lowest first.

    The discrepancy of a sample is ‖p(x; w) − p(x; w′)‖₂, with the softmax p of a model and that of the checkpoint that
    all of them were trained on from. The paper bounds the loss from below by it, and says that it chooses the best of
    several models without labels; that the lowest mean is the best is recalled, not read.

    The measure is blind to a model that was hardly trained: the checkpoint itself has 0 and is first. Compare models
    whose trainings took as many steps.

    Args:
        now: the name of each model → its softmax outputs for the samples, floats (n, C): an array, a tensor, or the
            path of a ``.npy`` file.
        before: the softmax outputs of the checkpoint for the same samples, likewise.

    Returns:
        The name of each model → its mean discrepancy, the lowest first; of equals, the first given.

    Raises:
        InputError: if there is no model or no sample, or the outputs are no probabilities of the same samples and
            classes.

    Source: Huang, Wang, Xiong, Huang & Dou, Semi-Supervised Active Learning with Temporal Output Discrepancy (ICCV
        2021).

    >>> old = [[0.5, 0.5], [0.5, 0.5]]
    >>> list(rank_models({"far": [[0.9, 0.1], [0.1, 0.9]], "near": [[0.6, 0.4], [0.5, 0.5]]}, old))
    ['near', 'far']
    """
    if not now:
        raise InputError("rank_models: now: found no model, allowed: one or more")
    old = _probabilities("before", before)
    found = {}
    for name, outputs in now.items():
        p = _probabilities(f"now[{name!r}]", outputs)
        if p.shape != old.shape:
            raise InputError(
                f"rank_models: now[{name!r}]: found outputs of shape {tuple(p.shape)}, allowed: that of before, "
                f"{tuple(old.shape)}"
            )
        found[name] = float(discrepancies(p, old).mean())
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _probabilities(name: str, given: Any) -> Tensor:
    """Read softmax outputs, float64 (n, C)."""
    given = given.detach().cpu() if isinstance(given, Tensor) else given
    read = given if isinstance(given, (str, Path)) else np.asarray(given, dtype=np.float64)
    p = torch.from_numpy(np.array(arrays.features(read, f"rank_models: {name}"), dtype=np.float64))
    if bool((p < 0).any()) or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-3):
        shape = tuple(p.shape)
        raise InputError(
            f"rank_models: {name}: found outputs of shape {shape} that are no probabilities, allowed: rows from 0 that "
            "sum to 1"
        )
    return p

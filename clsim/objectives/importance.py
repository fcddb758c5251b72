"""The importance of each weight to what a net has learnt, and the penalty on moving important weights.

Importances, anchors and merged weights are dictionaries of tensors, by the names and in the shapes of
``net.named_parameters()``: all weights and biases, the head's too. Under a mask, a task gives the head's rows of other
tasks no gradient, and their importance to it is 0. Running statistics of batch norm are no weights: they are neither
measured nor held, and go on following the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clsim.models.nets import Net, evaluating
from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Setup

Weights = dict[str, Tensor]

_FLOATS = 2**23
"""Number of values of per-sample gradients computed at a time: 32 MiB; larger chunks are slower."""


def weights(net: Net) -> Weights:
    """Copy all weights of a net."""
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def on_device(net: Net, stored: Weights) -> Weights:
    """Move tensors from a checkpoint to the devices of the weights that they belong to."""
    parameters = dict(net.named_parameters())
    return {name: value.to(parameters[name].device) for name, value in stored.items()}


def distance(net: Net, anchor: Weights, importance: Weights | None = None) -> Tensor:
    """Return Σ Ω(θ − θ*)² over all weights, a scalar with its gradient; without importances Ω is 1."""
    parts = []
    for name, parameter in net.named_parameters():
        square = (parameter - anchor[name]).square()
        parts.append((square if importance is None else square * importance[name]).sum())
    return torch.stack(parts).sum()


def pull(setup: Setup, strength: float, importance: Weights) -> Weights:
    """Return λΩ, the factor of the penalty on moving each weight; under SGD at most 1 / (2·lr).

    A step of SGD on λΩ(θ − θ*)² alone overshoots θ* where 2λΩ·lr is above 1, and diverges where it is 2 or more. At the
    limit such a step ends at θ* itself: the weight is held fast, as with λΩ → ∞. Below the limit, and under Adam, whose
    steps are bounded, λΩ is unchanged.
    """
    limit = _limit(setup)
    return {name: (strength * value).clamp_max(limit) for name, value in importance.items()}


def held(setup: Setup, strength: float, importance: Weights) -> float:
    """Return the share of all weights whose λΩ is above the limit of :func:`pull`, which holds them fast."""
    limit = _limit(setup)
    fast = [(strength * value > limit).float().flatten() for value in importance.values()]
    return float(torch.cat(fast).mean()) if fast else 0.0


def _limit(setup: Setup) -> float:
    optimizer = setup.spec.optimizer
    return 1 / (2 * optimizer.lr) if optimizer.name == "sgd" and optimizer.lr else math.inf


def fisher(setup: Setup, samples: Exemplars, most: int = 0, *, own: bool = False) -> Weights:
    """Measure the diagonal of the empirical Fisher matrix: F = 1/n Σ_i (∂ log p(y_i | x_i) / ∂θ)².

    Gradients are taken at the given labels, one for each sample (not for a batch), in eval mode and without
    augmentation; unlabelled samples are left out.

    Source: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (PNAS 2017).

    Args:
        setup: The net, and how its inputs are prepared.
        samples: The samples of the experience just learnt.
        most: The largest number of samples to measure on, drawn uniformly (those with the largest keys); 0 means all.
        own: Whether p ranges over the classes of these samples alone, as the loss may that the net was trained on.
    """
    samples = samples[samples.y >= 0]
    among = torch.full((setup.net.visible.shape[1],), not own, device=setup.device).index_fill(0, samples.y, True)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.masked_fill(~among, -math.inf)[None], y[None])

    return _mean(setup, _some(samples, most), loss, torch.square)


def sensitivity(setup: Setup, samples: Exemplars, most: int = 0) -> Weights:
    """Measure the sensitivity of the squared length of the outputs to each weight: 1/n Σ_i |∂‖f(x_i)‖² / ∂θ|.

    f are the logits of the classes that the sample's task has. No label is read. Gradients are taken one for each
    sample, as in the paper's equation, in eval mode and without augmentation.

    Source: Aljundi et al., Memory Aware Synapses: Learning what (not) to forget (ECCV 2018).

    Args:
        setup: The net, and how its inputs are prepared.
        samples: The samples of the experience just learnt.
        most: The largest number of samples to measure on, drawn uniformly (those with the largest keys); 0 means all.
    """

    def length(logits: Tensor, y: Tensor) -> Tensor:
        return logits.masked_fill(logits == -math.inf, 0).square().sum()

    return _mean(setup, _some(samples, most), length, torch.abs)


def _some(samples: Exemplars, most: int) -> Exemplars:
    return samples[samples.key.topk(most).indices] if 0 < most < len(samples) else samples


def _mean(
    setup: Setup, samples: Exemplars, score: Callable[[Tensor, Tensor], Tensor], of: Callable[[Tensor], Tensor]
) -> Weights:
    """Return the mean over the samples of ``of(∂ score(logits, y) / ∂θ)``, always in float32."""
    net = setup.net
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    def one(parameters: Weights, x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        return score(functional_call(net, parameters, (x[None], task[None]))[0], y)

    # a net that draws even in eval mode draws for each sample anew
    gradients = vmap(grad(one), in_dims=(None, 0, 0, 0), randomness="different")
    chunk = max(_FLOATS // sum(p.numel() for p in parameters.values()), 1)
    with evaluating(net):
        for start in range(0, len(samples), chunk):
            part = samples[start : start + chunk]
            each = gradients(parameters, setup.transform.plain(part.x), part.y, part.task)
            for name, gradient in each.items():
                total[name] += of(gradient).sum(0)
    setup.cost.forward_passes += len(samples)
    return {name: value / max(len(samples), 1) for name, value in total.items()}

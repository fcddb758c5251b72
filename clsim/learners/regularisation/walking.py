"""The step of SI and RWalk, which records how much each weight's move lowered the cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

from clsim.learners.sgd import Sgd
from clsim.objectives.importance import Weights, distance, weights
from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Setup, Terms


@dataclass(frozen=True)
class PathStep:
    """The results of one step, by weight; weights without a gradient are left out.

    Attributes:
        terms: The terms of the loss.
        gradients: The gradients g of the cross-entropy alone, on new ∪ replayed samples.
        falls: −g·δθ, with δθ the step that the optimizer took along the gradient of the whole loss: for small steps,
            the fall of the cross-entropy due to this weight's move.
    """

    terms: Terms
    gradients: Weights
    falls: Weights


def walk(setup: Setup, sgd: Sgd, batch: Exemplars, anchor: Weights, pull: Weights) -> PathStep:
    """Take one step along the gradient of CE + Σ pull·(θ − anchor)²; with an empty ``pull``, along that of CE."""
    net = setup.net
    terms = sgd.backward(sgd.prepare(batch, setup.memory.sample(batch, setup.pool).exemplars))
    before = weights(net)
    gradients: Weights = {}
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.clone()
    if pull:
        penalty = distance(net, anchor, pull)
        penalty.backward()  # adds to the gradients of the cross-entropy
        terms["penalty"] = penalty.detach()
    sgd.apply()
    after = dict(net.named_parameters())
    falls = {name: -gradient * (after[name].detach() - before[name]) for name, gradient in gradients.items()}
    return PathStep(terms, gradients, falls)

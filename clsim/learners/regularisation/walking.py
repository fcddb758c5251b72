"""The step that SI and RWalk share: along cross-entropy and penalty, noting what each weight's move was worth."""

from __future__ import annotations

from dataclasses import dataclass

from clsim.learners.sgd import Sgd
from clsim.objectives.importance import Weights, distance, weights
from clsim.pool.exemplars import Exemplars
from clsim.training.contract import Setup, Terms


@dataclass(frozen=True)
class PathStep:
    """One step, seen weight by weight; weights without a gradient are left out.

    Attributes:
        terms: of the loss.
        gradients: g, of the cross-entropy alone, on new ∪ replayed samples.
        falls: −g·δθ, δθ the step that the optimizer took along the gradient of the whole loss: for small steps, what
            this weight's move took off the cross-entropy.
    """

    terms: Terms
    gradients: Weights
    falls: Weights


def walk(setup: Setup, sgd: Sgd, batch: Exemplars, anchor: Weights, pull: Weights) -> PathStep:
    """One step along the gradient of CE + Σ pull·(θ − anchor)²; without any pull there is no penalty."""
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

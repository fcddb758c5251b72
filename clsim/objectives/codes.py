"""The objective of encoder based lifelong learning: the codes that old tasks' autoencoders make of features stay."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.models.nets import Net
from clsim.models.optimizers import light
from clsim.objectives.distillation import Taught, mean_of_new
from clsim.objectives.replay import cross_entropy
from clsim.pool.exemplars import Exemplars, batches
from clsim.pool.pool import Pool
from clsim.randomness import derive
from clsim.streams.stream import Experience
from clsim.training.contract import Batch, Setup, Terms


@dataclass(frozen=True)
class Autoencoder:
    """The shape of a task's autoencoder, and how it is learnt.

    h → c = sigmoid(W z + b) → ẑ = V c + d, with z = (h − μ) / σ the features standardised over the task: μ the mean
    of each, σ² the mean of their variances. (With a σ of its own, a feature that the task hardly used would weigh
    without bound once another task uses it.) The loss, with everything else frozen, is
    CE(head(μ + σẑ), y) + α · mean (ẑ − z)², both means over the samples of a batch, the second over the features too.

    Attributes:
        code: Units of c, fewer than the features; in ``ebll`` 0 stands for 100, or for half of the features where
            there are at most 100.
        reconstruction: α, the weight of the reconstruction beside the task's cross-entropy.
        epochs: Epochs over the task's samples.
        rate: Adadelta's learning rate. The survey's is the default; few steps need a larger one, such as 1.
        batch_size: Samples in a step.

    Source: Rannen et al., Encoder Based Lifelong Learning (ICCV 2017), section 3.2.
    """

    code: int = 0
    reconstruction: float = 0.1
    epochs: int = 50
    rate: float = 0.01
    batch_size: int = 200

    def fit(self, setup: Setup, samples: Exemplars, seed: int) -> tuple[Tensor, Tensor]:
        """Learn an encoder: weights (code, width) and bias (code,), for features that are not standardised.

        The features are taken in eval mode, without augmentation, from labelled samples alone. The decoder is dropped,
        and the standardisation is folded into the encoder.

        Args:
            setup: The net, which is not changed.
            samples: The samples of the task, at least one of them labelled.
            seed: The seed of the first weights and of the order of samples.
        """
        samples = samples[samples.y >= 0]
        net, device = setup.net, setup.device
        rng = torch.Generator().manual_seed(seed)
        features = Pool(samples, net, setup.transform.plain, precision=setup.precision, cost=setup.cost).features
        mean, deviation = features.mean(0), features.var(0, correction=0).mean().sqrt().clamp_min(1e-6)
        rows = dataclasses.replace(samples, x=(features - mean) / deviation, soft=None, weight=None, score=None)

        width = features.shape[1]
        encoder, decoder = _layer(width, self.code, rng, device), _layer(self.code, width, rng, device)
        parameters = [*encoder, *decoder]
        optimizer = light(torch.optim.Adadelta)(parameters, lr=self.rate)
        for _ in range(self.epochs):
            for batch in batches(rows, self.batch_size, rng):
                again = F.linear(F.linear(batch.x, *encoder).sigmoid(), *decoder)
                task = F.cross_entropy(net.logits(mean + deviation * again, batch.task), batch.y)
                loss = task + self.reconstruction * F.mse_loss(again, batch.x)
                # not backward(), which would leave gradients in the net's head
                for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.grad = slope
                optimizer.step()
        weight, bias = (parameter.detach() for parameter in encoder)
        weight = weight / deviation
        return weight, bias - weight @ mean


class Encoded(Taught):
    """L = CE + λ · LwF's distillation + α Σ_k mean (c_k(h) − c_k(h*))², on new samples. Final.

    c_k are the codes (new, code) that the encoder of old task k computes from features; h are the features of the net,
    h* those of the net after the last experience. The mean is over samples and units. In the first experience the loss
    is CE alone. With a
    memory, CE covers new ∪ replayed samples.

    Args:
        setup: net, transform, counters.
        strength: The weight λ of the distillation.
        code_strength: The weight α of the distance between codes.
        temperature: The temperature T of the distillation.
        autoencoder: The shape of the autoencoders, and how they are learnt.

    Cost: 1 M kept, and an encoder for each experience.
    """

    one_pass: ClassVar[bool] = True

    def __init__(
        self, setup: Setup, *, strength: float, code_strength: float, temperature: float, autoencoder: Autoencoder
    ) -> None:
        super().__init__(setup)
        self._setup = setup
        self._strength = strength
        self._code_strength = code_strength
        self._temperature = temperature
        self._autoencoder = autoencoder
        self.encoders: list[tuple[Tensor, Tensor]] = []

    def __call__(self, net: Net, batch: Batch) -> Terms:
        """Return the cross-entropy and, from the second experience on, distillation and codes."""
        features = net.features(batch.x)
        terms = cross_entropy(net.logits(features, batch.task), batch)
        if self.teacher.net is not None:
            new, old = features[: batch.new], self.teacher.features(batch)
            away = self.teacher.divergence(net, new, old, batch, self._temperature)
            terms["distillation"] = self._strength * away
            if self.encoders:
                gaps = [F.linear(new, *e).sigmoid() - F.linear(old, *e).sigmoid() for e in self.encoders]
                moved = torch.stack([gap.float().square().mean(1) for gap in gaps]).sum(0)
                terms["code"] = self._code_strength * mean_of_new(moved, batch)
        return terms

    def finish(self, experience: Experience) -> None:
        """Copy the net as the old one, and learn an autoencoder of its features on the experience."""
        super().finish(experience)
        if bool((experience.train.y >= 0).any()):
            seed = derive(self._setup.spec.seed, f"autoencoder {experience.position}")
            self.encoders = [*self.encoders, self._autoencoder.fit(self._setup, experience.train, seed)]

    def state_dict(self) -> dict[str, Any]:
        """Return the old net and the encoders."""
        return {"teacher": super().state_dict(), "encoders": self.encoders}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["teacher"])
        device = self._setup.device
        self.encoders = [(weight.to(device), bias.to(device)) for weight, bias in state["encoders"]]


def _layer(inputs: int, outputs: int, rng: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw weights and bias of a linear layer, uniform within ±1/√inputs."""
    bound = inputs**-0.5
    weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=rng)
    bias = torch.empty(outputs).uniform_(-bound, bound, generator=rng)
    return weight.to(device).requires_grad_(), bias.to(device).requires_grad_()

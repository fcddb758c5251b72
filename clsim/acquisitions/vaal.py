"""VAAL: a variational autoencoder against a discriminator, which tells labelled samples from the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.acquisitions.acquisition import Acquisition
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net, Shape, evaluating
from clsim.pool.pool import Pool, Selection
from clsim.randomness import own_draws
from clsim.selectors.random import random
from clsim.selectors.scores import highest

Variant = Literal["paper", "code"]


class Vaal(Acquisition):
    """Query the samples that a discriminator takes for unlabelled ones, by their place in a latent space. Final.

    A variational autoencoder learns from labelled samples and candidates alike; a discriminator D learns to tell the
    two apart by the latent mean μ, and the autoencoder to deceive it. With x_L labelled and x_U candidates:

        autoencoder: Σ_{x ∈ {x_L, x_U}} [½‖x − x̂‖² + β·KL(q(z|x) ‖ N(0, 1))] − a·(log D(μ_L) + log D(μ_U))
        discriminator: −log D(μ_L) − log(1 − D(μ_U))

    Each term is a mean over a batch. The candidates with the smallest D(μ) are chosen. The learner's net is never read.

    In the paper one step of autoencoder and discriminator follows each step of the learner. Neither reads the other, so
    here they are trained before each choice, from new weights, on what is labelled at that moment (in memory too).
    Where nothing is labelled there is nothing to tell apart: nothing is trained, and the choice is a random one.

    Inputs are the learner's, normalised and not augmented; they are rebuilt as they are, by a last layer without a
    bound. Images pass convolutions, as many as halve them to 4 pixels (four at most), vectors and smaller images two
    fully connected layers. Both halves of a batch pass together, so that batch norm cannot tell them apart; labelled
    samples are drawn with replacement, as they may be fewer than a batch. The paper leaves this open.

    The authors' code rebuilds by the mean square over pixels, but sums KL over a batch and its samples, so that KL
    outweighs the rest by three orders of magnitude: ``variant = "code"``. A widely used re-implementation takes the
    largest score of a discriminator that learns to call all samples labelled; it is not offered.

    Args:
        net: the learner's net, read for the shape of its input and its device.
        rng: generator of the first weights.
        latent: number of dimensions of the latent space.
        beta: the weight β of KL.
        adversary: the weight a of what deceives the discriminator.
        steps: number of steps before each choice.
        vae_steps: number of steps of the autoencoder for each of the discriminator.
        rate: learning rate of both, with Adam.
        batch_size: number of labelled samples, and of candidates, in a step.
        width: channels of the first convolution, which double with each further one; a fully connected layer has eight
            times as many units.
        units: width of the discriminator's two hidden layers.
        variant: ``paper``: the sums above. ``code``: the mean square over pixels, and KL summed over the batch.

    Needs: labelled samples; the shape of the net's input.
    Cost: ``steps`` · (``vae_steps`` + ½) passes of two batches through the autoencoder, and one pass of the candidates
        through its encoder.
    Source: Sinha, Ebrahimi & Darrell, Variational Adversarial Active Learning (ICCV 2019), recalled but for the code.

    Attributes:
        vae: the autoencoder of the last choice.

    Raises:
        InputError: if an option is out of its range, or the net does not tell the shape of its input.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        latent: int = 32,
        beta: float = 1.0,
        adversary: float = 1.0,
        steps: int = 300,
        vae_steps: int = 2,
        rate: float = 5e-4,
        batch_size: int = 64,
        width: int = 16,
        units: int = 128,
        variant: Variant = "paper",
    ) -> None:
        at_least(0, "vaal: ", beta=beta, adversary=adversary, rate=rate)
        at_least(1, "vaal: ", latent=latent, steps=steps, vae_steps=vae_steps, width=width, units=units)
        at_least(2, "vaal: ", batch_size=batch_size)
        if variant not in get_args(Variant):
            raise InputError(f"vaal: variant: found {variant!r}; {nearest(str(variant), get_args(Variant))}")
        if not net.shape:
            raise InputError(
                "vaal: model.name: found a net that does not tell the shape of its input; allowed: one that "
                "clsim.models.nets.build has made"
            )
        self._shape, self._device = net.shape, net.head.weight.device
        self._latent, self._width, self._units = latent, width, units
        self._beta, self._adversary, self._variant = beta, adversary, variant
        self._steps, self._vae_steps, self._rate, self._batch_size = steps, vae_steps, rate, batch_size
        self._fitted = False
        self.vae, self._discriminator = self._anew(rng)

    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        """Train autoencoder and discriminator from new weights, on ``pool.labelled`` and the candidates."""
        labelled = pool.labelled
        self._fitted = labelled is not None and len(pool) > 0
        if labelled is None or not self._fitted:
            return
        self.vae, self._discriminator = vae, judge = self._anew(rng)
        noise = torch.Generator(self._device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
        optimizers = [torch.optim.Adam(nets.parameters(), self._rate) for nets in (vae, judge)]

        def batch() -> Tensor:
            """Draw labelled inputs, then as many candidates."""
            rows = [torch.randint(len(p), (self._batch_size,), generator=rng) for p in (labelled, pool)]
            return torch.cat([p.inputs(r.to(self._device)) for p, r in zip((labelled, pool), rows, strict=True)])

        for _ in range(self._steps):
            for _ in range(self._vae_steps):
                x = batch()
                mean, log_variance = vae.encode(x)
                rebuilt = vae.decode(mean + (log_variance / 2).exp() * drawn(mean, noise))
                loss = self.bound_loss(x, rebuilt, mean, log_variance) + self._adversary * deception(
                    *judge(mean).chunk(2)
                )
                _descend(loss, optimizers[0], vae)
            with torch.no_grad():
                mean = vae.encode(x)[0]
            _descend(discrimination(*judge(mean).chunk(2)), optimizers[1], judge)

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the candidates with the smallest D(μ), best first; at random where nothing was trained."""
        if not self._fitted:
            return random(pool, budget, rng=rng)
        return Selection(highest(-self.judged(pool), budget))

    def judged(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute the logits of D(μ) of a pool's candidates, in eval mode: float32 (n,)."""
        rows = range(0, max(len(pool), 1), pool.batch_size)
        with evaluating(self.vae), torch.no_grad():
            inputs = (pool.inputs(slice(start, start + pool.batch_size)) for start in rows)
            return torch.cat([self._discriminator(self.vae.encode(x)[0]) for x in inputs])

    def state_dict(self) -> dict[str, Any]:
        return {
            "fitted": self._fitted,
            "vae": self.vae.state_dict(),
            "discriminator": self._discriminator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._fitted = state["fitted"]
        self.vae.load_state_dict(state["vae"])
        self._discriminator.load_state_dict(state["discriminator"])

    def _anew(self, rng: torch.Generator) -> tuple[Vae, Discriminator]:
        with own_draws(int(torch.randint(2**62, (), generator=rng))):
            vae, judge = Vae(self._shape, self._latent, self._width), Discriminator(self._latent, self._units)
        return vae.to(self._device), judge.to(self._device)

    def bound_loss(self, x: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Compute the negative evidence bound of a labelled and an unlabelled batch, which are added."""
        squares, kl = (x - rebuilt).square(), divergence(mean, log_variance)
        if self._variant == "code":
            return 2 * squares.mean() + self._beta * kl.sum()
        return 2 * (squares.flatten(1).sum(1) / 2 + self._beta * kl).mean()


class Vae(nn.Module):
    """A variational autoencoder for inputs of one shape. Final.

    Args:
        shape: the shape of one input.
        latent: number of dimensions of the latent space.
        width: channels of the first convolution; an eighth of the units of a fully connected layer.
    """

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        sizes = _halved(shape)
        if len(sizes) == 1:
            into, out = _connected([math.prod(shape), 8 * width, 8 * width])
            last, start = 8 * width, nn.Sequential(nn.Linear(latent, 8 * width), nn.ReLU(inplace=True))
        else:
            channels = [shape[0], *(width * 2**i for i in range(len(sizes) - 1))]
            into, out = _convolutions(channels, sizes)
            inner = (channels[-1], *sizes[-1])
            last = math.prod(inner)
            start = nn.Sequential(nn.Linear(latent, last), nn.Unflatten(1, inner), nn.ReLU(inplace=True))
        self.encoder, self.moments = nn.Sequential(*into, nn.Flatten()), nn.Linear(last, 2 * latent)
        self.decoder, self._shape = nn.Sequential(start, *out), shape

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and log variance of q(z|x), (n, latent) each."""
        mean, log_variance = self.moments(self.encoder(x)).chunk(2, 1)
        return mean, log_variance.clamp(-20, 20)

    def decode(self, z: Tensor) -> Tensor:
        """Rebuild inputs (n, \\*shape) from (n, latent)."""
        return self.decoder(z).view(-1, *self._shape)


class Discriminator(nn.Sequential):
    """Three fully connected layers: latent means (n, latent) → the logits of "is labelled" (n,). Final.

    Args:
        latent: number of dimensions of the latent space.
        units: width of the two hidden layers.
    """

    def __init__(self, latent: int, units: int) -> None:
        hidden = [nn.Linear(latent, units), nn.ReLU(inplace=True), nn.Linear(units, units), nn.ReLU(inplace=True)]
        super().__init__(*hidden, nn.Linear(units, 1), nn.Flatten(0))


def discrimination(labelled: Float[Tensor, " n"], unlabelled: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Compute the discriminator's loss, −log D of the labelled and −log(1 − D) of the others, from logits."""
    return F.softplus(-labelled).mean() + F.softplus(unlabelled).mean()


def deception(labelled: Float[Tensor, " n"], unlabelled: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Compute the autoencoder's loss, −log D of all samples: small where all are taken for labelled ones."""
    return F.softplus(-labelled).mean() + F.softplus(-unlabelled).mean()


def divergence(mean: Float[Tensor, "n d"], log_variance: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Compute KL(N(mean, variance) ‖ N(0, 1)) of each sample, summed over dimensions.

    >>> divergence(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.zeros(2, 2))
    tensor([0.0000, 2.5000])
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def drawn(like: Tensor, rng: torch.Generator) -> Tensor:
    """Draw standard normal noise in the shape of ``like``."""
    return torch.randn(like.shape, generator=rng, device=like.device)


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, of: nn.Module) -> None:
    """Take one step of the weights of one of the two modules; the other's gradients are not computed."""
    weights = [*of.parameters()]
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()


def _halved(shape: Shape) -> list[tuple[int, int]]:
    """List the sizes of an image before and after each convolution of stride 2; a single one: there is none."""
    if len(shape) != 3:
        return [(1, 1)]
    sizes = [(shape[1], shape[2])]
    while min(sizes[-1]) > 4 and len(sizes) < 5:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _convolutions(channels: Sequence[int], sizes: Sequence[tuple[int, int]]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Make the layers that halve an image, and those that double it again to the size that it had."""
    into: list[nn.Module] = []
    out: list[nn.Module] = []
    for i in range(len(sizes) - 1):
        before, after, (high, wide) = channels[i], channels[i + 1], sizes[i]
        into += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        up = nn.ConvTranspose2d(after, before, 4, 2, 1, output_padding=(high % 2, wide % 2), bias=i == 0)
        out = [up, *([nn.BatchNorm2d(before), nn.ReLU(inplace=True)] if i else []), *out]
    return into, out


def _connected(units: Sequence[int]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Make fully connected layers, and those that go back from the last width to the first."""
    first, hidden, last = units
    into = [nn.Flatten(), nn.Linear(first, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, last)]
    out = [nn.Linear(last, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, first)]
    return [*into, nn.ReLU(inplace=True)], [*out]

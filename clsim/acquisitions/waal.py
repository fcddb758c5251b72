"""WAAL: a critic measures how far unlabelled samples lie from labelled ones; the learner draws the two together."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net, evaluating
from clsim.pool.pool import Pool, Selection
from clsim.randomness import own_draws
from clsim.selectors.scores import highest

Variant = Literal["paper", "code"]


class Waal(Acquisition):
    """Query the uncertain samples that a critic finds far from the labelled ones; the critic is trained with the net.

    Final. The critic D reads the features h of labelled samples L and of others U. It estimates the Wasserstein
    distance of the two; the net learns to lessen it. In each step of the learner

        the critic maximises E_U D(h) − E_L D(h) − λ·E (‖∇D(h̃)‖ − 1)², h̃ on lines between both
        the net minimises its own loss + α·(E_U D(h) − γ·E_L D(h)), γ = |L| / |U|

    and what is chosen has the smallest ½‖log p‖₂ + ½·Σ_c(−log p_c) − w·D(h), p the softmax over the known classes. A
    log-softmax is finite where a probability underflows to 0.

    γ corrects for the smaller part, which is passed over again and again within an epoch of the larger one. In a stream
    whose epoch is a pass over the labelled part (``labelling.epoch``) there are fewer steps than the paper takes. U are
    as many samples without a label as a batch has, drawn anew in each step and augmented as the batch is. L are the new
    samples of the batch, not those from memory: a critic that read those would learn to tell experiences apart. Where
    all samples are labelled, or none, there are no terms. Where rounds start from scratch, so does the critic.

    The critic's steps are taken before the net's, by an optimizer of its own that begins anew with each training. λ, w,
    the optimizer (Adam) and its rate are our choice: the authors' w of 10 weighs a D between 0 and 1, and would let an
    unbounded one decide alone. Their code is ``variant = "code"``: D ends in a sigmoid, its loss has γ too, and the
    penalty, of weight 2 and over the lines and both their ends, has the wrong sign. There the critic is trained with
    the net's settings, SGD with momentum 0.3, on a loss that is multiplied by α, so that it hardly moves. The dropout
    in it is left out.

    Args:
        net: the net that is trained.
        rng: generator of the first weights, and of the points on the lines.
        strength: the weight α of the critic in the net's loss.
        diversity: the weight w of the critic in the choice (default None: 1 for ``paper``, 10 for ``code``).
        penalty: the weight λ of the gradient penalty; without effect on ``code``.
        critic_steps: number of steps of the critic for each of the net.
        rate: learning rate of the critic (default None: 0.001 for ``paper``, 0.01 for ``code``).
        width: width of the critic's hidden layer.
        variant: ``paper``: a penalty of the right sign. ``code``: as in the authors' code.

    Needs: a learner that takes its terms; labelled samples to begin with; features, probabilities.
    Cost: in training, a second forward and backward pass of the net in each step, and ``critic_steps`` small ones; a
        forward pass of the candidates.
    Source: Shui, Zhou, Gagné & Wang, Deep Active Learning: Unified and Principled Method for Query and Training
        (AISTATS 2020), recalled but for the code.

    Raises:
        InputError: if an option is out of its range.
    """

    views = 1

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        strength: float = 2e-3,
        diversity: float | None = None,
        penalty: float = 10.0,
        critic_steps: int = 1,
        rate: float | None = None,
        width: int = 50,
        variant: Variant = "paper",
    ) -> None:
        at_least(0, "waal: ", strength=strength, diversity=diversity or 0.0, penalty=penalty, rate=rate or 0.0)
        at_least(1, "waal: ", critic_steps=critic_steps, width=width)
        if variant not in get_args(Variant):
            raise InputError(f"waal: variant: found {variant!r}; {nearest(str(variant), get_args(Variant))}")
        weight, usual = (1.0, 0.001) if variant == "paper" else (10.0, 0.01)
        self._diversity, self._rate = weight if diversity is None else diversity, usual if rate is None else rate
        self._strength, self._penalty = strength, penalty
        self._critic_steps, self._variant = critic_steps, variant
        device = net.head.weight.device
        with own_draws(int(torch.randint(2**62, (), generator=rng))):
            self.module = Critic(net.head.in_features, width, bounded=variant == "code")
        self.module.to(device)
        self._draws = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
        self._optimizer = self._fresh_optimizer()

    def begin(self, number: int, rounds: int) -> None:
        """Give the critic a fresh optimizer."""
        self._optimizer = self._fresh_optimizer()

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Train the critic, and return the term ``waal``: the distance that the net is to lessen."""
        if not step.views or not len(step.views[0]) or not step.new:
            return {}
        unlabelled = step.net.features(step.views[0])
        with torch.autocast(unlabelled.device.type, enabled=False):
            known, others = step.features[: step.new].float(), unlabelled.float()
            counts = step.y[: step.new] >= 0
            share, ratio = counts / counts.sum().clamp_min(1), step.labelled / max(step.unlabelled, 1)
            for _ in range(self._critic_steps):
                self._train(known.detach(), others.detach(), counts, share, ratio)
            frozen = {name: weight.detach() for name, weight in self.module.named_parameters()}
            on_known, on_others = (functional_call(self.module, frozen, (h,)) for h in (known, others))
            return {"waal": self._strength * (on_others.mean() - ratio * (share * on_known).sum())}

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the candidates with the smallest score, best first."""
        return Selection(highest(-self.scores(pool), budget))

    def scores(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute ½‖log p‖₂ + ½·Σ_c(−log p_c) − w·D(h) of a pool's candidates: float32 (n,)."""
        p = log_probabilities(pool.logits)
        with evaluating(self.module), torch.no_grad():
            critic = self.module(pool.features)
        return p.norm(dim=1) / 2 - p.sum(1) / 2 - self._diversity * critic

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "draws": self._draws.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self._draws.set_state(state["draws"].cpu())

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        if self._variant == "paper":
            return torch.optim.Adam(self.module.parameters(), self._rate)
        return torch.optim.SGD(self.module.parameters(), self._rate, momentum=0.3)

    def _train(self, known: Tensor, others: Tensor, counts: Tensor, share: Tensor, ratio: float) -> None:
        """Take one step of the critic."""
        pairs = min(len(known), len(others))
        ends, other_ends, both = known[:pairs], others[:pairs], counts[:pairs]
        place = torch.rand(pairs, 1, generator=self._draws, device=known.device)
        points = ends + place * (other_ends - ends)
        on_known, on_others = (share * self.module(known)).sum(), self.module(others).mean()
        if self._variant == "paper":
            loss = on_known - on_others + self._penalty * gradient_penalty(self.module, points, both)
        else:
            points, both = torch.cat([points, ends, other_ends]), both.repeat(3)
            slope = gradient_penalty(self.module, points, both)
            loss = self._strength * (ratio * on_known - on_others - 2 * slope)
        weights = [*self.module.parameters()]
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad()  # the learner's optimizer has these weights too, and leaves them alone without


class Critic(nn.Module):
    """Two fully connected layers: features (n, features) → (n,). Final.

    Args:
        features: number of features.
        width: width of the hidden layer.
        bounded: whether a sigmoid follows.
    """

    def __init__(self, features: int, width: int, *, bounded: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 1), nn.Flatten(0))
        self._bounded = bounded

    def forward(self, features: Tensor) -> Tensor:
        """Compute D of each sample."""
        out = self.layers(features)
        return out.sigmoid() if self._bounded else out


def gradient_penalty(critic: nn.Module, points: Float[Tensor, "n d"], counts: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Compute the mean of (‖∇D‖ − 1)² over the points that count, 0 where none does; for further differentiation."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return ((gradient.norm(dim=1) - 1).square() * counts).sum() / counts.sum().clamp_min(1)


def log_probabilities(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """Compute log p, 0 for the classes that a sample cannot have (whose logit is −inf).

    >>> log_probabilities(torch.tensor([[0.0, 1000.0, -torch.inf]]))
    tensor([[-1000.,     0.,     0.]])
    """
    return logits.log_softmax(1).masked_fill(logits == -torch.inf, 0.0)

"""Temporal output discrepancy: what has changed since the training before, to choose labels by and to learn from."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clsim.acquisitions.acquisition import Acquisition, Step
from clsim.errors import InputError, at_least, nearest
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.randomness import own_draws
from clsim.selectors.combinators import subsample
from clsim.selectors.random import random
from clsim.selectors.scores import discrepancies, highest

Variant = Literal["paper", "code"]
"""The equations of the paper, or what its code does instead."""

Kind = Literal["nothing", "untrained", "trained"]
"""What a choice compares with: nothing, the net before its first training, or a trained one."""


class OutputDiscrepancy(Acquisition):
    """Query the samples whose output has changed most since the training before. Final.

    The score of a sample is ‖p(x; w) − p(x; w′)‖₂, with the softmax p under the weights w now and w′ at the end of the
    training before: the round before or, in the first round of an experience, the last one of the experience before.
    It bounds from below what the gradient steps in between have changed, and so the sample's loss (the paper's claim).

    The paper leaves the first round open, when there is no training before: its choice is random here. A net before
    its first training gives about the same output to all samples, so that the largest change would be that of the
    samples that the net is surest of. The code does compare with an untrained net there, and takes the smallest; in
    ``variant = "code"`` that is the net as it was before its first training. Its ½‖·‖² ranks as the norm does.

    The largest changes are often those of samples that are like what has just been labelled, and lie in few classes. So
    the choice is among ten candidates a label, drawn at random: the 25,000 for 2,500 labels of the code.

    One net goes on through all rounds in the code: ``labelling.start`` is ``warm``, unless the spec says otherwise.

    Args:
        candidates_per_label: number of candidates, drawn at random in each round, for each label asked for. 0: all.
        variant: ``paper``, or what the public code does in the first round: ``code``.

    Needs: a learner that takes the terms of acquisitions, since its net alone must be what predicts; labelled samples
        to begin with.
    Cost: two forward passes of the candidates; a copy of the net.
    Source: Huang, Wang, Xiong, Huang & Dou, Semi-Supervised Active Learning with Temporal Output Discrepancy (ICCV
        2021): its cyclic output discrepancy, without the unsupervised loss.

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self, net: Net, rng: torch.Generator, *, candidates_per_label: int = 10, variant: Variant = "paper"
    ) -> None:
        at_least(0, "cod: ", candidates_per_label=candidates_per_label)
        if variant not in get_args(Variant):
            raise InputError(f"cod: variant: found {variant!r}; {nearest(variant, get_args(Variant))}")
        self._net, self._code = net, variant == "code"
        self._candidates_per_label = candidates_per_label
        self._before = copy.deepcopy(net).requires_grad_(False)
        self._trained = False  # whether the net was trained at all
        self._compares: Kind = "nothing"

    def begin(self, number: int, rounds: int) -> None:
        """Before the first training of an experience, keep the net as the experience before left it."""
        if number == 0:
            self._keep(self._net, "trained" if self._trained else "untrained")
        self._trained = True

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return no term; a learner that takes none may predict by more than its net."""
        return {}

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the largest discrepancies, best first; the net is what the next choice compares with."""
        if self._compares == "nothing" or (self._compares == "untrained" and not self._code):
            picks = random(pool, budget, rng=rng)
        else:
            drawn = self._candidates_per_label * budget or len(pool)
            picks = subsample(self._extreme, max(drawn, 1))(pool, budget, rng=rng)
        self._keep(pool.net, "trained" if self._trained else "nothing")
        return picks

    def discrepancies(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute ‖p(x; w) − p(x; w′)‖₂ of a pool's candidates in eval mode: float32 (n,)."""
        return discrepancies(pool.probabilities, pool.under(self._before).probabilities)

    def _extreme(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        found = self.discrepancies(pool)
        return Selection(highest(-found if self._compares == "untrained" else found, budget))

    def state_dict(self) -> dict[str, Any]:
        before = {} if self._compares == "nothing" else {"before": self._before.state_dict()}
        return {**before, "compares": self._compares, "trained": self._trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "before" in state:
            self._before.load_state_dict(state["before"])
        self._compares, self._trained = state["compares"], state["trained"]

    def _keep(self, net: Net, kind: Kind) -> None:
        """Keep a copy of a net's weights; the classes that are known may be more at the next choice."""
        try:
            self._before.load_state_dict(net.state_dict())
        except RuntimeError:
            raise InputError(
                "cod: proxy.source: found a net of another architecture than the learner's, whose outputs it compares; "
                "allowed: 'learner'"
            ) from None
        self._compares = kind


class TemporalDiscrepancy(Acquisition):
    """Query the samples whose output has changed most, as ``cod`` does; learn from an averaged net. Final.

    Each step adds λ·mean ‖p(x; w) − p(x; w̃)‖₂² over a batch of augmented samples without a label, p the softmax and w̃
    the running average of the weights: w̃ ← α·w̃ + (1 − α)·w with α = min(1 − 1/(t + 1), ``decay``) in step t, from 0.
    So the average begins as the net, and is the mean of all its weights until α reaches ``decay``. It is passed through
    in training mode, as the net is. It goes on from round to round; in a round from scratch it goes back with the net.

    [The digest that this is written from has the norm of the difference; the square is ours, since the norm has no
    gradient where both nets agree, and the code has it too. That only samples without a label count is recalled.]

    ``variant = "code"`` is what the public code does, in the first round (see ``cod``) and here: a second head ĉ stands
    beside the net's own s. Of labelled and of unlabelled samples, each step adds λ·(MSE(s, ĉ) + MSE(ĉ, s̃)), on logits,
    the mean over samples and classes, s̃ the averaged net's. Its averaged net begins with weights of its own, which the
    average has soon left behind; here it begins as the net.

    Args:
        strength: the weight λ of the term; 0: there is none, and no averaged net is kept. The code has 0.02 for
            CIFAR-10, 0.05 for CIFAR-100, 0.005 for SVHN and 0.1 for Caltech-101; the default is that for CIFAR-10, of
            ten classes as most streams here.
        decay: the largest α of the average.
        candidates_per_label: number of candidates, drawn at random in each round, for each label asked for. 0: all.
        variant: ``paper``, or what the public code does: ``code``.

    Needs: a learner that takes its terms; labelled samples to begin with.
    Cost: two forward passes of the candidates and a copy of the net; in training, a batch's pass and the averaged net's
        (in code, two of these).
    Source: Huang, Wang, Xiong, Huang & Dou, Semi-Supervised Active Learning with Temporal Output Discrepancy (ICCV
        2021).

    Raises:
        InputError: if an option is out of its range.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        strength: float = 0.02,
        decay: float = 0.999,
        candidates_per_label: int = 10,
        variant: Variant = "paper",
    ) -> None:
        at_least(0, "tod: ", strength=strength)
        if not 0 <= decay < 1:
            raise InputError(f"tod: decay: found {decay:g}, allowed: from 0 to below 1")
        self._choice = OutputDiscrepancy(net, rng, candidates_per_label=candidates_per_label, variant=variant)
        self._strength, self._code = strength, variant == "code"
        self.views = 1 if strength else 0
        self._average = Averaged(net, rng, decay, second=self._code) if strength else None
        if self._average is not None:
            self.module = self._average

    def begin(self, number: int, rounds: int) -> None:
        self._choice.begin(number, rounds)

    def terms(self, step: Step) -> dict[str, Tensor]:
        """Return the term ``tod``, if there is one; the averaged net takes a step first."""
        average, losses = self._average, []
        if average is None:
            return {}
        average.follow(step.net)
        if self._code:
            losses.append(average.apart(step.net, step.x, step.task, step.features))
        for view in (view for view in step.views if len(view) > 1):  # batch norm needs two samples
            features, task = step.net.features(view), step.view_task
            if self._code:
                losses.append(average.apart(step.net, view, task, features))
            else:
                p, q = step.net.logits(features, task).softmax(1), average.logits(view, task).softmax(1)
                losses.append((p - q).square().sum(1).mean())
        return {"tod": self._strength * torch.stack(losses).sum() if losses else step.losses.new_zeros(())}

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select the largest discrepancies, best first."""
        return self._choice(pool, budget, rng=rng)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "choice": self._choice.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._choice.load_state_dict(state["choice"])


class Averaged(nn.Module):
    """The running average of a net's weights, and a second head beside the net. Final.

    Args:
        net: the net, a copy of which the average begins with.
        rng: draws the first weights of the second head.
        decay: the largest α of w̃ ← α·w̃ + (1 − α)·w.
        second: whether there is a second head.

    Attributes:
        net: the averaged net, in training mode and without gradient.
        head: the second head; without parameters if there is none.
        steps: int64, the number of steps so far.
    """

    steps: Tensor

    def __init__(self, net: Net, rng: torch.Generator, decay: float, *, second: bool) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).train().requires_grad_(False)
        with own_draws(int(torch.randint(2**62, (), generator=rng))):
            self.head = nn.Linear(net.head.in_features, net.head.out_features) if second else nn.Sequential()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._decay = decay
        self.to(net.head.weight.device)

    @torch.no_grad()
    def follow(self, net: Net) -> None:
        """Take a step towards a net's weights."""
        share = (1 / (self.steps + 1)).clamp_min(1 - self._decay)  # 1 − α
        for average, weight in zip(self.net.parameters(), net.parameters(), strict=True):
            average.lerp_(weight, share.to(weight.dtype))
        self.steps += 1

    @torch.no_grad()
    def logits(self, x: Tensor, task: Tensor) -> Float[Tensor, "n classes"]:
        """Compute the averaged net's logits, in training mode."""
        return self.net(x, task)

    def apart(self, net: Net, x: Tensor, task: Tensor, features: Tensor) -> Tensor:
        """Compute MSE(s, ĉ) + MSE(ĉ, s̃) of logits, over the classes that the samples' tasks have.

        Args:
            net: the net, whose head has the logits s.
            x, task, features: the samples, their tasks, and the net's features of them.
        """
        own, second, average = net.head(features).float(), self.head(features).float(), self.logits(x, task)
        seen = net.visible[task]
        squares = (own - second).square() + (second - average.where(seen, 0.0)).square()
        return (squares * seen).sum() / seen.sum()

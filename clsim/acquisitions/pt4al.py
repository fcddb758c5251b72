"""PT4AL: batches of the pool by the loss of a pretext task, rotation; one of them is asked in each round."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsim.acquisitions.acquisition import Acquisition
from clsim.errors import InputError, at_least
from clsim.models import optimizers
from clsim.models.nets import Net, evaluating
from clsim.models.self_supervised import rotation_losses, rotations
from clsim.pool.exemplars import Exemplars, concatenate
from clsim.pool.pool import Pool, Selection
from clsim.randomness import derive, own_draws
from clsim.selectors.scores import highest, least_confidences
from clsim.spec.tables import OptimizerSpec


class Pt4al(Acquisition):
    """Query in round i the least confident samples of the i-th batch, batches by falling loss of a pretext task. Final.

    A net of the run's architecture with a head of four classes learns by how many quarter turns an image is rotated,
    once an experience, from all its images, labelled or not. The pretext loss of an image is the mean cross-entropy
    over its four turns, in eval mode. Sorted by falling loss, as numbers, the images of the experience make as many
    batches as there are choices. The first choice takes every k-th of the first batch (even stride), and needs no
    label. Choice i > 0 takes the samples of batch i whose largest probability is lowest. Labelled samples count for the
    batches, and are no candidates.

    A batch with fewer candidates than labels asked for is taken whole; the rest come from the nearest batches, the
    harder one first, by the same rule. Where the candidates of a round are drawn (``labelling.candidates``), the
    pretext net is trained on those of the first choice, and the images seen so far make the batches.

    The paper, as it is known to us, leaves open where the even stride runs: over the first batch, as in its code. Its
    learner goes on from round to round in its code, so that ``labelling.start`` is ``warm``, unless the spec says
    otherwise. Its code sorts the losses as strings, so that 1.9e-05 counts as 1.9, and keeps the pretext net of the
    best epoch by its training images: here, neither. A batch of images and all its turns are one forward pass, so that
    batch norm sees all turns alike. A perceptron makes a pretext perceptron, whose features know no neighbouring
    pixels.

    Args:
        net: the net that is trained, of which the shape of the images is read.
        rng: a generator; nothing is drawn from it.
        epochs: training epochs of the pretext net (default 15).
        steps: training steps of the pretext net at least, in whole epochs; small pools need them (default 0: as many as
            the epochs have).
        lr: learning rate of the pretext net, which stays as it is (default .1).
        momentum: momentum of the pretext net (default .9).
        weight_decay: weight decay of the pretext net (default 5e-4).
        batch_size: images in a training step of the pretext net, each in four turns (default 256).
        batches: number of batches; 0: that of the choices. With fewer, the last one serves all further choices.
        variant: ``paper``: confidence is the largest probability. ``code``: the largest softmax of logits that are
            scaled to length 1, as in the authors' code, which ranks otherwise.

    Needs: square images; probabilities from the second choice on.
    Cost: once an experience, 4 · epochs forward and backward passes of its images and 4 forward passes; a forward pass
        of the candidates a round; the pretext net and a loss an image in the state.
    Source: Yi, Seo, Park & Choi, PT4AL: Using Self-Supervised Pretext Tasks for Active Learning (ECCV 2022).

    Raises:
        InputError: if samples are no square images, or an option is out of its range.
    """

    def __init__(
        self,
        net: Net,
        rng: torch.Generator,
        *,
        epochs: int = 15,
        steps: int = 0,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        batch_size: int = 256,
        batches: int = 0,
        variant: Literal["paper", "code"] = "paper",
    ) -> None:
        at_least(1, "pt4al: ", epochs=epochs, batch_size=batch_size)
        at_least(0, "pt4al: ", steps=steps, lr=lr, momentum=momentum, weight_decay=weight_decay, batches=batches)
        if variant not in ("paper", "code"):
            raise InputError(f"pt4al: variant: found {variant!r}, allowed: paper, code")
        if len(net.shape) != 3 or net.shape[1] != net.shape[2]:
            found = " × ".join(map(str, net.shape)) or "unknown"
            kind = "vectors" if len(net.shape) == 1 else "samples"
            raise InputError(
                f"pt4al: data.dataset: found {kind} of shape {found}, allowed: square images, to be turned"
            )
        self._epochs, self._steps, self._batch_size, self._batches = epochs, steps, batch_size, batches
        self._rates = OptimizerSpec(lr=lr, momentum=momentum, weight_decay=weight_decay)
        self._variant = variant
        self._number, self._choices = 0, 1
        self._weights: dict[str, Tensor] = {}
        self._index = torch.empty(0, dtype=torch.int64, device=net.head.weight.device)
        self._losses = torch.empty(0, device=net.head.weight.device)

    def next_choice(self, number: int, choices: int) -> None:
        """Learn which choice comes; with the first one of an experience, its pretext losses are forgotten."""
        self._number, self._choices = number, choices
        if not number:
            self._weights = {}

    def fit(self, pool: Pool, rng: torch.Generator) -> None:
        """Train the pretext net if the experience has none yet, and compute the losses of images not seen before."""
        if not self._weights:
            self._index, self._losses = self._index[:0], self._losses[:0]
            self._weights = self._trained(pool, _images(pool), rng)
        self._see(pool)

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        """Select up to ``budget`` rows of the batch whose turn it is, then of those beside it."""
        losses = self.pretext_losses(pool)
        count = self._batches or self._choices
        turn = min(self._number, count - 1)
        batch = loss_batches(self._losses, count)[torch.searchsorted(self._index, pool.data.index)]
        order = highest(self.doubts(pool) if self._number else losses, len(pool))
        picks, left = [order[:0]], min(budget, len(pool))
        for other in sorted(range(count), key=lambda other: (abs(other - turn), other)):
            rows = order[batch[order] == other]
            part = rows[:left] if self._number else every(rows, left)
            picks.append(part)
            left -= len(part)
            if not left:
                break
        return Selection(torch.cat(picks))

    def pretext_losses(self, pool: Pool) -> Float[Tensor, " n"]:
        """Return the pretext losses of a pool's candidates: float32 (n,).

        Raises:
            InputError: if no pretext net was trained.
        """
        if not self._weights:
            raise InputError("pt4al: found no pretext losses to choose by, allowed: a choice after fit")
        self._see(pool)
        return self._losses[torch.searchsorted(self._index, pool.data.index)]

    def state_dict(self) -> dict[str, Any]:
        """Return which choice it is, the pretext net, and the images seen with their losses."""
        column = {"index": self._index, "losses": self._losses}
        return {"number": self._number, "choices": self._choices, "weights": dict(self._weights), **column}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._number, self._choices, self._weights = state["number"], state["choices"], dict(state["weights"])
        self._index, self._losses = state["index"].to(self._index.device), state["losses"].to(self._index.device)

    def doubts(self, pool: Pool) -> Float[Tensor, " n"]:
        """Compute 1 − the confidence of each candidate."""
        if self._variant == "paper":
            return least_confidences(pool.probabilities)
        hidden = pool.logits.isinf()  # classes that a task does not have, or nobody has told yet
        unit = F.normalize(pool.logits.masked_fill(hidden, 0.0), dim=1)
        return least_confidences(unit.masked_fill(hidden, -torch.inf).softmax(1))

    def _see(self, pool: Pool) -> None:
        """Add the images that are not in the column yet, in the order of their index."""
        images = _images(pool)
        new = images[(~torch.isin(images.index, self._index)).nonzero().flatten()]
        if not len(new):
            return
        net = pretext_net(pool, 0)
        net.load_state_dict(self._weights)
        index, losses = torch.cat([self._index, new.index]), torch.cat([self._losses, self._scored(pool, net, new)])
        order = index.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)
        first[1:] = index[order][1:] != index[order][:-1]  # copies of a sample share their index
        self._index, self._losses = index[order[first]], losses[order[first]]

    def _trained(self, pool: Pool, images: Exemplars, rng: torch.Generator) -> dict[str, Tensor]:
        """Train a pretext net; layers that draw, draw from a seed of its own."""
        weights, layers = torch.randint(2**62, (2,), generator=rng).tolist()
        net = pretext_net(pool, weights)
        optimizer, taken, epoch = optimizers.build(self._rates, net.parameters()), 0, 0
        with own_draws(layers, images.device):
            net.train()
            while epoch < self._epochs or taken < self._steps:
                order = torch.randperm(len(images), generator=rng).to(images.device)
                for rows in order.split(self._batch_size):
                    with pool.precision():
                        losses = turn_losses(net, pool.prepare(images.x[rows]))
                    optimizer.zero_grad()
                    losses.mean().backward()
                    optimizer.step()
                    taken += 1
                epoch += 1
        pool.cost.proxy_steps += taken
        pool.cost.forward_passes += 4 * epoch * len(images)
        return {name: value.detach() for name, value in net.state_dict().items()}

    def _scored(self, pool: Pool, net: Net, images: Exemplars) -> Float[Tensor, " n"]:
        """Compute the pretext losses of images in eval mode.

        Raises:
            InputError: if they are not finite.
        """
        with evaluating(net), torch.no_grad(), pool.precision():
            found = torch.cat([turn_losses(net, pool.prepare(x)) for x in images.x.split(self._batch_size)])
        pool.cost.forward_passes += 4 * len(images)
        if not found.isfinite().all():
            raise InputError(
                "pt4al: the pretext net's losses are not finite, since its training has diverged; allowed: finite ones "
                "(try a smaller labelling.options.lr)"
            )
        return found


def loss_batches(losses: Float[Tensor, " n"], count: int) -> Int[Tensor, " n"]:
    """Number the batch of each sample, from 0: by falling loss, ties by row; sizes differ by one at most.

    >>> loss_batches(torch.tensor([0.5, 1.9e-05, 3.0, 12.0]), 2)
    tensor([1, 1, 0, 0])
    """
    order = losses.argsort(descending=True, stable=True)
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order), device=order.device) * count // max(len(order), 1)
    return found


def every(rows: Int[Tensor, " n"], budget: int) -> Int[Tensor, " m"]:
    """Take ``budget`` rows at an even stride from the first one on; all if there are no more.

    >>> every(torch.arange(10), 4)
    tensor([0, 2, 5, 7])
    """
    wanted = min(budget, len(rows))
    return rows[torch.arange(wanted, device=rows.device) * len(rows) // max(wanted, 1)]


def _images(pool: Pool) -> Exemplars:
    """Return the images of the experience: the candidates, and those labelled that are not among them."""
    data, beside = pool.data, pool.labelled
    if beside is None:
        return data
    others = beside.data
    own = torch.isin(others.task, data.task) & ~torch.isin(others.index, data.index)
    return concatenate([data, others[own.nonzero().flatten()]])


def pretext_net(pool: Pool, seed: int) -> Net:
    """Make an untrained net of the run's architecture with a head of four classes."""
    fresh = pool.fresh(seed)
    with own_draws(derive(seed, "pretext head")):
        net = Net(fresh.body, fresh.head.in_features, torch.ones(1, 4, dtype=torch.bool), fresh.shapes, fresh.shape)
    return net.to(fresh.head.weight.device)


def turn_losses(net: Net, x: Tensor) -> Float[Tensor, " n"]:
    """Compute the pretext losses of normalised images by one forward pass of all their turns."""
    turned, _ = rotations(x)
    return rotation_losses(net(turned, torch.zeros(len(turned), dtype=torch.int64, device=x.device)))

"""Selectors by the effect of a step on new samples on old ones: gradients that disagree, losses that rise."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clsim.errors import InputError
from clsim.models.nets import evaluating
from clsim.pool.pool import Pool, Selection
from clsim.selectors.scores import highest


def gss_greedy(
    pool: Pool,
    budget: int,
    *,
    rng: torch.Generator,
    compare: int = 10,
    at_once: int = 10,
    layers: Literal["last", "all"] = "last",
) -> Selection:
    """Keep samples whose gradients point in different directions.

    The score of a new sample is c = 1 + max_j cos(g, g_j), in [0, 2], over a few exemplars j drawn from the memory;
    ``Selection.score`` holds it as long as the sample is kept. While there is room, every new sample is kept. Later, a
    new sample with c < 1 replaces an exemplar i, drawn with probability ∝ C_i, with probability C_i/(C_i + c).

    New samples (those without a score) are taken in the order of their keys, ``at_once`` together: these are compared
    with the same exemplars, and no two may replace the same one. While the memory is empty they are compared with each
    other. Meant for an update with every batch.

    Args:
        compare: number of exemplars that a new sample is compared with.
        at_once: number of new samples that are taken together; 1 is the paper's algorithm, sample by sample.
        layers: gradients of the ``last`` layer, in closed form, or of ``all`` layers, with a backward pass per sample.
            The paper uses all; the last is the default because it costs only a forward pass, and because the gradients
            of other layers pass through it.

    Needs: gradients; the memory's own notes.
    Cost: O(new·compare·(C + d)) time and a forward pass of the compared samples; with ``all`` also a backward pass,
        and memory for (compare + at_once) gradients.
    Source: Aljundi et al., Gradient Based Sample Selection for Online Continual Learning (NeurIPS 2019), algorithm 2.
    """
    if compare < 1 or at_once < 1:
        raise InputError(f"gss-greedy: found compare {compare} and at_once {at_once}, allowed: 1 or more")
    data, size = pool.data, min(budget, len(pool))
    score = torch.full_like(data.key, torch.nan) if data.score is None else data.score
    by_key = data.key.argsort(stable=True)
    old, new = by_key[~score[by_key].isnan()], by_key[score[by_key].isnan()]
    kept = old[score[old].argsort(stable=True)][:size]
    scores = score[kept]
    for rows in new.split(min(at_once, size)) if size else ():
        drawn = torch.randperm(len(kept), generator=rng)[:compare].to(kept.device)
        fresh = 1 + _largest_cosine(pool, rows, kept[drawn], layers)
        room = size - len(kept)
        kept, scores = torch.cat([kept, rows[:room]]), torch.cat([scores, fresh[:room]])
        rows, fresh = rows[room:], fresh[room:]
        # the largest log(u)/C are a draw without replacement, ∝ C (Efraimidis & Spirakis, 2006); no step waits for it
        chance, fate = torch.rand(len(kept), generator=rng).to(kept.device), torch.rand(len(rows), generator=rng)
        loser = (chance.log() / scores).topk(len(rows)).indices
        replaced = (fresh < 1) & (fate.to(kept.device) < scores[loser] / (scores[loser] + fresh))
        kept[loser], scores[loser] = kept[loser].where(~replaced, rows), scores[loser].where(~replaced, fresh)
    order = scores.argsort(stable=True)
    return Selection(kept[order], score=scores[order])


def mir(pool: Pool, budget: int, *, rng: torch.Generator, lr: float | None = None) -> Selection:
    """Replay the samples whose loss rises most when the net takes a step on the new batch.

    Samples are ranked by ℓ(x; θ − η∇L(new; θ)) − ℓ(x; θ), the largest first. As ``memory.retrieval``,
    ``memory.candidates`` random exemplars are the pool, and ``memory.batch_size`` of them are replayed. The step is
    virtual: the net's weights, its mode, and the statistics of its batch norm stay as they are; it is taken in eval
    mode, without augmentation. Where there is no new batch (as a buffer), the step is on the pool itself. An unlabelled
    sample counts with its predicted label.

    Args:
        lr: η, the learning rate of the virtual step, one of plain gradient descent; by default that of the learner's
            next step, and 0.1 where there is no learner.

    Needs: the new batch.
    Cost: a forward and a backward pass of the new batch, two forward passes of the candidates.
    Source: Aljundi et al., Online Continual Learning with Maximally Interfered Retrieval (NeurIPS 2019), section 3.1
        (ER-MIR, criterion s_MI-1).
    """
    if lr is None:
        lr = 0.1 if pool.rate is None else pool.rate
    if not 0 <= lr < torch.inf:
        raise InputError(f"mir: lr: found {lr}, allowed: a finite number from 0")
    rise = virtual_losses(pool, lr) - _losses(pool.logits, _labels(pool))
    return Selection(highest(rise, budget, ties=pool.data.key))


def virtual_losses(pool: Pool, lr: float) -> Float[Tensor, " n"]:
    """Compute the cross-entropy of the pool's samples, float32 (n,), after a virtual SGD step on the new batch."""
    new, net = pool if pool.incoming is None else pool.incoming, pool.net
    weights = {name: p.detach().requires_grad_() for name, p in net.named_parameters() if p.requires_grad}
    slopes = [torch.zeros_like(w) for w in weights.values()]
    logits = []
    with evaluating(net):
        with torch.enable_grad():
            for rows in _chunks(new):
                task = new.data.task[rows]
                out = functional_call(net, weights, (new.inputs(rows), task))
                loss = _losses(out, _labels(new, out, rows)).sum() / len(new)
                found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
                slopes = [slope + part for slope, part in zip(slopes, found, strict=True)]
        moved = {name: w.detach() - lr * slope for (name, w), slope in zip(weights.items(), slopes, strict=True)}
        with torch.no_grad():
            for rows in _chunks(pool):
                logits.append(functional_call(net, moved, (pool.inputs(rows), pool.data.task[rows])))
    pool.cost.forward_passes += len(new) + len(pool)
    return _losses(torch.cat(logits), _labels(pool))


def full_gradients(pool: Pool, rows: Int[Tensor, " m"]) -> Float[Tensor, "m weights"]:
    """Compute the gradient of each sample's cross-entropy with respect to all weights, (m, weights), in eval mode."""
    net = pool.net
    weights = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(net, weights, (x[None], task[None])), y[None])

    y = _labels(pool[rows])
    with evaluating(net):
        found = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, pool.inputs(rows), y, pool.data.task[rows])
    pool.cost.forward_passes += len(rows)
    return torch.cat([part.flatten(1) for part in found.values()], 1)


def _largest_cosine(pool: Pool, rows: Tensor, against: Tensor, layers: str) -> Tensor:
    """Compute max_j cos(g_i, g_j) of each row over ``against``, or the other rows if it is empty; 0 for one row."""
    m = len(rows)
    if layers == "last":
        gradients = pool[torch.cat([rows, against])].gradients
        norms, other = gradients.squares.sqrt(), gradients[m:] if len(against) else gradients
        inner = gradients[:m].inner(other)
    else:
        dense = full_gradients(pool, torch.cat([rows, against]))
        norms, inner = dense.norm(dim=1), dense[:m] @ (dense[m:] if len(against) else dense).T
    lengths = norms[:m, None] * (norms[m:] if len(against) else norms)
    cosine = (inner / lengths.clamp_min(torch.finfo(inner.dtype).tiny)).clamp(-1, 1)
    if not len(against):
        cosine = cosine.fill_diagonal_(0.0 if m == 1 else -1.0)
    return cosine.amax(1)


def _labels(pool: Pool, logits: Tensor | None = None, rows: slice = slice(None)) -> Tensor:
    """Return the label of each sample, or its prediction where it has none."""
    y = pool.data.y[rows]
    return torch.where(y >= 0, y, (pool.logits if logits is None else logits).argmax(1))


def _losses(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _chunks(pool: Pool) -> list[slice]:
    return [slice(start, start + 500) for start in range(0, len(pool), 500)]

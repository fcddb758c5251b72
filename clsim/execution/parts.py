"""Choices from a pool that outgrows the memory: among the rows of each part, then among what the parts chose.

Round one applies the selector to each part of the rows; each part gives ``budget`` rows. Round two applies it to their
union. :data:`METHODS` says which selectors keep a bound that way, and which. Only a part, or the union, is in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from clsim.data.shards import Shards
from clsim.errors import InputError, nearest
from clsim.execution import candidates
from clsim.pool.contracts import chosen
from clsim.pool.pool import Pool
from clsim.randomness import generator
from clsim.selectors.points import points
from clsim.selectors.submodular import for_clients, mean_service
from clsim.spec import registry

PART = 2**26
"""Bytes of the features of a part, about, where the number of parts is not given: 64 MiB."""

CLIENTS = 10_000
"""Largest number of rows that facility location serves in parts, where the option ``clients`` is not given."""

DRAWN = 2**20
"""Number of rows whose parts are drawn at a time."""


@dataclass(frozen=True)
class Method:
    """How a selector chooses in parts.

    Attributes:
        rows: the rows of a part: ``in order``, an equal run of them, or at ``random``: each row goes to a part of its
            own draw, which the bound needs.
        bound: what the choice keeps, in words.
    """

    rows: Literal["in order", "random"]
    bound: str


METHODS: Mapping[str, Method] = {
    "kcenter": Method("in order", "the radius is at most 4 times the smallest possible one (the whole's: 2 times)"),
    "facility-location": Method(
        "random", "at least (1 − 1/e)/2 of the optimum in expectation, for clients drawn once for all parts"
    ),
    "random": Method("in order", "the picks of the whole"),
    "entropy": Method("in order", "the picks of the whole"),
    "least-confidence": Method("in order", "the picks of the whole"),
    "margin": Method("in order", "the picks of the whole"),
}
"""Selectors that choose in parts, and the bound that each keeps for any number of parts.

``kcenter``: k picks of a part leave none of its rows farther than 2·OPT from them: else they and that row would be
k + 1 rows farther than 2·OPT from each other, two of them in one ball of the optimum. In the same way the union lies
within 2·OPT of the last picks. It holds for any division, so that parts are read in order. Source: Malkomes, Kusner,
Chen, Weinberger & Moseley, Fast Distributed k-Center Clustering with Outliers on Massive Data (NIPS 2015).

``facility-location``: greedy on parts that are drawn at random, greedy on the union, and the best of that and of each
part's picks. All evaluate the mean over the same clients, drawn uniformly from the pool, so that all maximise one
monotone submodular function. Its own expectation over the parts is at least α/2 of the optimum, where greedy keeps
α = 1 − 1/e: with ``similarities`` dense or in blocks (``auto``), and the optimiser naive or lazy. For one set of rows
named beforehand, the mean over the pool is within √(ln(2/δ)/(2·clients)) of that over the clients, with probability
1 − δ. Source: Mirzasoleiman, Karbasi, Sarkar & Krause, Distributed Submodular Maximization (NIPS 2013); Barbosa, Ene,
Nguyen & Ward, The Power of Randomization (ICML 2015).

Scores: a row among the highest ``budget`` of all is among those of its part, ties in the order of rows included.

Others are refused. A k-means++ draw, as of ``badge``, weighs each row by its distance to all picks so far, in any part:
draws in parts would follow another law.
"""


@dataclass(frozen=True)
class Plan:
    """A choice in parts: everything that decides its picks.

    Attributes:
        shards: the features, or logits.
        logits: whether the rows are logits.
        selector: a name of :data:`METHODS`.
        options: keyword arguments of the selector, by name.
        budget: number of picks.
        parts: number of parts.
        seed: seed of everything that is drawn.
        device: where parts are chosen from, as torch names it.
        threads: number of torch's threads.
    """

    shards: Shards
    logits: bool
    selector: str
    options: tuple[tuple[str, Any], ...]
    budget: int
    parts: int
    seed: int
    device: str
    threads: int


@dataclass(frozen=True)
class Chosen:
    """The picks of a part, or of the union.

    Attributes:
        rows: int64 (m,), rows of the pool, best first.
        measure: for ``kcenter`` the largest distance of a row of the part to a pick, for ``facility-location`` the mean
            over the clients of the similarity to the best pick; else 0.
        digest: a hash of the features of the part.
    """

    rows: np.ndarray
    measure: float
    digest: str


def check(plan: Plan) -> None:
    """Refuse what cannot be chosen in parts.

    Raises:
        InputError: naming the selector, the option, or the number of parts.
    """
    if plan.selector not in METHODS:
        allowed = nearest(plan.selector, METHODS)
        raise InputError(f"parts: found the selector {plan.selector!r}, which keeps no bound in parts; {allowed}")
    registry.component("selectors", plan.selector, dict(plan.options), "options")
    if plan.selector == "facility-location" and dict(plan.options).get("representation", "features") != "features":
        raise InputError("facility-location: representation: found gradients in parts, allowed: features")
    n = len(plan.shards)
    if plan.parts < 1 or (plan.parts > 1 and plan.parts * plan.budget > n):
        most = max(n // plan.budget, 1)
        raise InputError(
            f"parts: found {plan.parts} with a budget of {plan.budget:,}, allowed: 1 to {most:,}; of more, what the "
            f"parts choose is no less than all {n:,} rows"
        )


def parts_for(shards: Shards, budget: int) -> int:
    """Count the parts of about :data:`PART` bytes; fewer, where they would choose all rows."""
    return max(min(math.ceil(len(shards) * shards.width * 4 / PART), len(shards) // budget), 1)


def rows_of(plan: Plan, part: int) -> np.ndarray:
    """List the rows of a part: int64, ascending."""
    n = len(plan.shards)
    if plan.parts == 1 or METHODS[plan.selector].rows == "in order":
        return np.arange(n * part // plan.parts, n * (part + 1) // plan.parts)
    found = []
    for start in range(0, n, DRAWN):
        rng = generator(plan.seed, f"parts of rows from {start}")
        drawn = torch.randint(plan.parts, (min(DRAWN, n - start),), generator=rng)
        found.append((drawn == part).nonzero().flatten() + start)
    return torch.cat(found).numpy()


def first_round(plan: Plan, part: int) -> Chosen:
    """Choose ``budget`` rows of a part, or all of a smaller one. A part that is the whole is chosen from as a whole."""
    rows = rows_of(plan, part)
    features = plan.shards.take(rows)
    return _choose(plan, rows, features, "memory" if plan.parts == 1 else f"part {part}")


def digest(plan: Plan, part: int) -> str:
    """Hash the features of a part, which are read anew."""
    return _hash(plan.shards.take(rows_of(plan, part)))


def second_round(plan: Plan, firsts: Sequence[Chosen]) -> Chosen:
    """Choose ``budget`` of the rows that the parts chose.

    Args:
        plan: the plan.
        firsts: the picks of each part, in order.
    """
    if plan.parts == 1:
        return firsts[0]
    rows = np.sort(np.concatenate([first.rows for first in firsts]))
    last = _choose(plan, rows, plan.shards.take(rows), "union")
    if plan.selector != "facility-location":
        return last
    return max([last, *firsts], key=lambda found: found.measure if len(found.rows) == len(last.rows) else -1.0)


def certificate(plan: Plan, firsts: Sequence[Chosen], last: Chosen) -> str:
    """Say, in words, what holds of the picks: computed for this pool, and so no worse than the bound."""
    if plan.selector == "kcenter":
        inner = max(first.measure for first in firsts)
        outer = last.measure if plan.parts > 1 else 0.0
        if not inner + outer:
            return "every sample lies on a pick"
        factor = 2 * (inner + outer) / max(inner, outer)  # some k + 1 rows lie that far apart
        return f"every sample lies within {inner + outer:.4g} of a pick, at most {factor:.3g} × the smallest possible"
    if plan.parts == 1:
        return "the picks of the whole"
    if plan.selector == "facility-location":
        size, by = len(_clients(plan)), torch.from_numpy(plan.shards.take(np.sort(last.rows)))
        fresh = drawn(len(plan.shards), size, generator(plan.seed, "fresh clients"))  # that no pick was chosen for
        on_fresh = mean_service(torch.from_numpy(plan.shards.take(fresh)), by)
        return f"mean similarity to a pick {last.measure:.4f} of {size:,} clients, {on_fresh:.4f} of fresh rows"
    return METHODS[plan.selector].bound


def sample(plan: Plan, picks: np.ndarray, size: int) -> Pool:
    """Make a pool of the picks and of rows drawn uniformly, to measure the coverage on.

    Args:
        plan: the plan.
        picks: rows of the pool.
        size: number of rows that are drawn, or fewer if they are larger than a part.
    """
    size = min(size, max(PART // (4 * plan.shards.width), 1), len(plan.shards))
    rows = np.union1d(drawn(len(plan.shards), size, generator(plan.seed, "measured")), picks)
    return _pool(plan, rows, plan.shards.take(rows))


def drawn(n: int, size: int, rng: torch.Generator) -> np.ndarray:
    """Draw ``size`` of ``n`` rows uniformly, without replacement: int64, ascending, in memory for ``size`` rows.

    >>> drawn(3, 3, torch.Generator()).tolist(), len(drawn(10**12, 5, torch.Generator()))
    ([0, 1, 2], 5)
    """
    if n <= 4 * size:
        return np.sort(torch.randperm(n, generator=rng)[:size].numpy())
    found = np.empty(0, dtype=np.int64)
    while len(found) < size:  # the first to come count: all sets are equally likely
        more = np.concatenate([found, torch.randint(n, (2 * size,), generator=rng).numpy()])
        found = more[np.sort(np.unique(more, return_index=True)[1])]
    return np.sort(found[:size])


def _choose(plan: Plan, rows: np.ndarray, features: np.ndarray, purpose: str) -> Chosen:
    seen, options = _hash(features), dict(plan.options)
    if not len(rows):
        return Chosen(rows, 0.0, seen)
    pool, rng = _pool(plan, rows, features), generator(plan.seed, purpose)
    measure = 0.0
    if plan.selector == "facility-location" and plan.parts > 1:
        clients = torch.from_numpy(plan.shards.take(_clients(plan))).to(plan.device)
        how = {name: value for name, value in options.items() if name not in ("clients", "representation")}
        selection, measure = for_clients(pool, plan.budget, clients, rng=rng, **how)
        return Chosen(rows[selection.index.cpu().numpy()], measure, seen)
    select = registry.component("selectors", plan.selector, options, "options")
    picks = chosen(select, pool, plan.budget, rng, f"selector {plan.selector!r}").index
    if plan.selector == "kcenter":
        around = points(pool.features, normalise=options.get("metric") == "cosine")
        measure = float(around.nearest_of(pool.features[picks]).amax().sqrt())
    return Chosen(rows[picks.cpu().numpy()], measure, seen)


def _clients(plan: Plan) -> np.ndarray:
    """Draw the rows that all parts serve."""
    size = min(dict(plan.options).get("clients") or CLIENTS, len(plan.shards))
    return drawn(len(plan.shards), size, generator(plan.seed, "clients"))


def _pool(plan: Plan, rows: np.ndarray, features: np.ndarray) -> Pool:
    return candidates.of_rows(features, rows, plan.seed, torch.device(plan.device), logits=plan.logits)


def _hash(features: np.ndarray) -> str:
    return hashlib.blake2b(features.tobytes() if not len(features) else features.data, digest_size=16).hexdigest()

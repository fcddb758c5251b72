"""Select once from a data set, or from features made elsewhere: ``clsim.select(...)``, and ``clsim select``."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clsim.errors import InputError
from clsim.execution import candidates, foresight, part_work
from clsim.pool.pool import Cost, Pool, Selector
from clsim.randomness import generator
from clsim.selectors.combinators import per_class as of_each_class
from clsim.spec import abilities, registry
from clsim.training.workshop import spec_of_call

if TYPE_CHECKING:
    import pandas as pd

MEASURED = 50_000
"""Largest number of candidates whose distance to the picks is measured; of more, as many are drawn at random."""

DRAWS = 3
"""Number of random selections that a selection is compared with."""


@dataclass(frozen=True)
class Picks:
    """The picks of a selection.

    Attributes:
        index: int64 (m,), rows of the training part (or of the features), best first.
        weight: float32 (m,), how many of the candidates each stands for; None: the selector does not weigh.
        pool: the candidates that they were chosen from; of a choice in parts, the picks and a uniform sample of the
            other candidates.
        classes: names of the labels; empty without labels.
        source: the candidates, in words.
        scorer: where features and scores come from, in words; empty if the selector used none.
        seconds: seconds of the selection, the training of proxies included.
        certificate: what holds of a choice in parts, in words; else empty.
    """

    index: np.ndarray
    weight: np.ndarray | None
    pool: Pool
    classes: tuple[str, ...]
    source: str
    scorer: str
    seconds: float
    certificate: str = ""

    def __repr__(self) -> str:
        among = "" if self.certificate else f"{len(self.pool)}, "
        return f"<Picks: {len(self.index)} of {among}{self.source}>"

    def _repr_html_(self) -> str:
        return f"<div><strong>{html.escape(repr(self)[1:-1])}</strong>{self.frame.to_html(max_rows=10)}</div>"

    @property
    def places(self) -> np.ndarray:
        """int64 (m,), where the picks lie in the pool, which is without what is labelled, wanted or avoided."""
        return np.searchsorted(self.pool.data.index.cpu().numpy(), self.index)

    @property
    def frame(self) -> pd.DataFrame:
        """The picks as a table, best first: the columns ``index``, and ``weight`` where there is one."""
        import pandas as pd

        columns = {"index": self.index} | ({} if self.weight is None else {"weight": self.weight})
        return pd.DataFrame(columns)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Number of picks and of candidates of each class, by name; empty without labels."""
        y = self.pool.data.y.cpu().numpy()
        if not self.classes:
            return {}
        known = y >= 0
        of = np.bincount(y[known], minlength=len(self.classes)).tolist()
        picked = np.bincount(y[self.places][known[self.places]], minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, zip(picked, of, strict=True), strict=True))

    @property
    def unique(self) -> float:
        """Share of different samples among the picks, compared byte by byte; 1 if there are no picks."""
        rows = self.pool.data.x[torch.from_numpy(self.places).to(self.pool.data.device)].cpu().numpy()
        return len({row.tobytes() for row in rows}) / len(rows) if len(rows) else 1.0

    def coverage(self, index: np.ndarray | None = None) -> tuple[float, float]:
        """Measure how near the candidates are to the picks: the largest and the mean Euclidean distance of features.

        With d_i = min_{j∈S} ‖h_i − h_j‖, these are the coverage radius max_i d_i and the mean of d_i. Of more than
        :data:`MEASURED` candidates, that many are drawn at random.

        Args:
            index: rows that are measured in place of the picks.
        """
        features = self.pool.features
        rows = torch.from_numpy(self.places if index is None else index).to(features.device)
        if not len(rows):
            return float("nan"), float("nan")
        if len(features) > MEASURED:
            drawn = torch.randperm(len(features), generator=generator(0, "coverage"))[:MEASURED]
            measured = features[drawn.to(features.device)]
        else:
            measured = features
        centres = features[rows]
        nearest = torch.cat([_nearest(block, centres) for block in measured.split(4096)])
        return float(nearest.max()), float(nearest.mean())

    def coverage_at_random(self, seed: int = 0) -> tuple[float, float]:
        """Measure the coverage of as many random candidates: the mean over :data:`DRAWS` draws."""
        rng = generator(seed, "coverage at random")
        draws = [torch.randperm(len(self.pool), generator=rng)[: len(self.index)].numpy() for _ in range(DRAWS)]
        radii, means = zip(*(self.coverage(draw) for draw in draws), strict=True)
        return sum(radii) / DRAWS, sum(means) / DRAWS


def select(
    selector: str | Selector,
    *,
    dataset: str = "",
    path: str | Path = "",
    size: int | None = None,
    features: Any = None,
    logits: Any = None,
    labels: Any = None,
    fraction: float | None = None,
    budget: int | None = None,
    per_class: bool = False,
    labelled: Sequence[int] = (),
    query: Sequence[int] = (),
    private: Sequence[int] = (),
    options: Mapping[str, Any] | None = None,
    model: str = "",
    backbone: str = "",
    weights: str | Path = "",
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    data_root: str | Path | None = None,
    parts: int | None = None,
    engine: str = "",
    workers: int | None = None,
    address: str = "",
    state: str | Path | None = None,
    progress: part_work.Progress | None = None,
    cost: Cost | None = None,
    say: foresight.Say | None = foresight.tell,
) -> Picks:
    """Select a few samples out of many.

    For a data set, a selector that needs features or scores gets those of a proxy that is trained on the training part:
    DeepCore's protocol (Guo, Zhao & Bai, DEXA 2022), 10 epochs of SGD. Given features have no net behind them, so that
    selectors that need more (logits, gradients, dropout) are refused.

    With ``parts`` or ``engine`` the features may outgrow the memory: the selector chooses from each part of the rows,
    and then among what the parts chose. :data:`clsim.execution.parts.METHODS` says which selectors can, and how near
    they stay to the choice from the whole. One part makes the picks of the whole.

    What does not fit into the memory by an upper estimate is refused before anything large is built; see
    :mod:`clsim.execution.foresight`.

    Args:
        selector: a name of ``clsim list selectors``, ``module:attr``, ``./file.py:attr``, or a selector itself.
        dataset: a name of ``clsim list datasets``.
        path: path of the user's own data, for the datasets ``image-folder`` and ``hf`` (a folder) and ``npz`` (a file).
        size: side, in pixels, that images are scaled to; None: 32 for ``image-folder``, others stay as they are.
        features: features in place of a data set, floats (n, d): an array, or the path of a ``.npy`` file, which is
            memory-mapped; in parts, the path of such a file, or of a folder of ``.npy`` or ``.parquet`` files.
        logits: logits in place of features, floats (n, classes), given in the same ways: for ``entropy``, ``margin``
            and all that need no more than a net's outputs.
        labels: labels of the features, whole numbers (n,) with −1 = unlabelled: an array, or the path of a ``.npy``
            file.
        fraction: share of the candidates to select; give this or ``budget``.
        budget: number of candidates to select.
        per_class: whether to apply the selector to each class apart, with equal quotas.
        labelled, query, private: rows that are no candidates: what is labelled already, what the choice should
            resemble, and what it should avoid, for selectors that read them.
        options: keyword arguments of the selector.
        model: architecture of the proxy, a name of ``clsim list models``; by default ``slim-resnet18`` for colour
            images, ``mlp`` for grey ones, ``linear`` for vectors (whose features are the normalised vectors).
        backbone: a frozen net whose features take the place of the data set's images, ``timm:NAME``,
            ``torchvision:NAME`` or ``open-clip:NAME``.
        weights: its weights, a ``.safetensors`` file; empty: those of its library, which are downloaded.
        epochs: training epochs of the proxy; None: 10.
        seed: seed of everything that is drawn; the same seed makes the same picks.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: number of torch's threads; None leaves it as it is; in parts, the threads of each, None: 1.
        data_root: folder of the data sets; None: ``$CLSIM_DATA``, else ``~/.cache/clsim``.
        parts: number of parts; None with an engine: as many as make parts of about 64 MiB.
        engine: where the parts are chosen from: ``here``, one after the other; ``local``, processes of this machine;
            or ``ray``, on nodes that see the same files. Empty with ``parts``: ``here``.
        workers: number of parts at a time, for ``local`` and ``ray``; None: as many as there are cores for.
        address: address of a Ray cluster; empty: one is started on this machine.
        state: folder that keeps the picks of the parts, so that the same call goes on after a kill; it stays until you
            delete it. None: nothing is kept.
        progress: is told the number of parts that are done, and of all.
        cost: counters to add to, which show the progress while the selection is made.
        say: is told, before a selection over a large pool, an estimate of its memory and its time, in a line; by
            default it is printed on the standard error. None: nothing is said, and nothing is timed.

    Raises:
        InputError: if an argument is wrong, or the selection does not fit into the memory.

    >>> import numpy as np
    >>> line = np.arange(5, dtype=np.float32)[:, None]
    >>> select("kcenter", features=line, budget=3).index.tolist()
    [2, 0, 4]
    """
    if features is not None and logits is not None:
        raise InputError("select: found both features and logits, allowed: one of them")
    if bool(dataset) == (features is not None or logits is not None):
        found = "both" if dataset else "neither"
        raise InputError(f"select: found {found} of a data set and features, allowed: one of them")
    if labels is not None and dataset:
        raise InputError("labels: found with a data set, which has its own; allowed: with features")
    features, outputs = (features, False) if logits is None else (logits, True)
    if features is not None and model:
        raise InputError(f"model: found {model!r} with features, which have no net behind them; allowed: a data set")
    if features is not None and (backbone or weights):
        raise InputError(f"backbone: found {backbone or str(weights)!r} with features, allowed: with a data set")
    name = selector if isinstance(selector, str) else getattr(selector, "__qualname__", repr(selector))
    pick = registry.component("selectors", selector, options, "options") if isinstance(selector, str) else selector
    epochs = 10 if epochs is None else epochs
    spec = spec_of_call(
        dataset or "digits",
        path,
        seed=seed,
        device=device,
        threads=threads,
        proxy_epochs=epochs,
        size=size,
    )
    spec = replace(spec, data=replace(spec.data, features=backbone, weights=str(weights)))
    by = {selector: options or {}} if isinstance(selector, str) else {}
    _check_size(fraction, budget)
    cost = Cost() if cost is None else cost
    if parts is not None or engine:
        refused = {"a data set": dataset, "labels": labels is not None, "per_class": per_class}
        refused |= {"labelled": len(labelled), "query": len(query), "private": len(private)}
        for what, given in refused.items():
            if given:
                raise InputError(f"parts: found with {what}, allowed: with features or logits alone")
        with candidates.at_work(spec) as place:
            started = time.perf_counter()
            plan = part_work.plan_of(
                features,
                name,
                dict(options or {}),
                budget,
                fraction,
                parts,
                logits=outputs,
                seed=seed,
                device=str(place),
                threads=threads,
            )
            n, d = len(plan.shards), plan.shards.width
            foresight.refuse_parts(n, d, name, options or {}, plan.budget, plan.parts, place)
            where = part_work.engine_of(engine, plan, workers, address)
            done = part_work.choose(plan, None if state is None else Path(state), where, progress, measured=MEASURED)
            seconds = time.perf_counter() - started
        scorer = "logits as given" if outputs else "features as given"
        return Picks(done.rows, None, done.pool, (), part_work.words(plan), scorer, seconds, done.certificate)
    for what, asked in (("workers", workers), ("address", address), ("state", state)):
        if asked:
            raise InputError(f"{what}: found without parts, allowed: with parts or an engine")
    label = f"per_class({name})" if per_class else name
    with candidates.at_work(spec) as place:
        if features is None:
            pool, classes, scorer = candidates.of_dataset(spec, data_root, model, place, cost, by)
            foreseen = foresight.of_pool(pool, label, options or {}, budget, fraction)
        else:
            foreseen = foresight.of_features(
                features, label, options or {}, budget, fraction, place, "logits" if outputs else "features"
            )
            pool, classes, scorer = candidates.of_features(features, labels, seed, place, cost, logits=outputs)
        roles = {"labelled": labelled, "query": query, "private": private}
        if any(len(rows) for rows in roles.values()):
            pool = pool.apart({role: _rows(role, rows, pool) for role, rows in roles.items()})
        if not classes:
            given = "per_class(random)" if per_class else selector
            abilities.needs_without_labels(given, name, "with a data set, or with labels")
        if per_class:
            pick = of_each_class(pick)
        wanted = foresight.wanted(len(pool), budget, fraction)
        selection, seconds = foresight.select(foreseen, pick, pool, wanted, seed, f"selector {name!r}", say)
        index = pool.data.index[selection.index].cpu().numpy()
    weight = None if selection.weight is None else selection.weight.float().cpu().numpy()
    if dataset and not cost.forward_passes:
        scorer = ""
    found = f"{len(pool):,} samples of {dataset}" if dataset else f"{len(pool):,} × {pool.features.shape[1]} features"
    return Picks(index, weight, pool, classes, found, scorer, seconds)


def _rows(role: str, rows: Sequence[int], pool: Pool) -> Tensor:
    """Check rows of the pool that a user gives; return them sorted, each once, int64 on the pool's device."""
    found = np.asarray(rows)
    if len(found) and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= len(pool)):
        raise InputError(f"{role}: found rows outside 0 to {len(pool) - 1}, or no whole numbers; allowed: rows")
    return torch.from_numpy(np.unique(found.astype(np.int64))).to(pool.data.device)


def _check_size(fraction: float | None, budget: int | None) -> None:
    if (fraction is None) == (budget is None):
        found = "neither" if budget is None else "both"
        raise InputError(f"select: found {found} of fraction and budget, allowed: one of them")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"fraction: found {fraction}, allowed: above 0, up to 1")
    if budget is not None and budget < 1:
        raise InputError(f"budget: found {budget}, allowed: 1 or more")


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Compute the distance to the nearest centre, (n,), a block of centres at a time."""
    return torch.stack([torch.cdist(x, part).amin(1) for part in centres.split(4096)]).amin(0)

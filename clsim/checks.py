"""The contract, as checks that anyone can run on their own component.

    clsim check ./my_selector.py:my_selector          from the command line
    clsim.check_selector(my_selector)                 from a test

Each raises :class:`CheckFailed` with one sentence that says what the component did and what it should have done.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsim import models
from clsim.data.augment import Transform
from clsim.exemplars import Exemplars
from clsim.learners import Learner, Setup
from clsim.memory import Buffer
from clsim.pool import Cost, Pool, Selection, Selector
from clsim.randomness import Randomness
from clsim.selectors.random import random as random_selector
from clsim.specs import MemorySpec, OptimizerSpec, RunSpec, TrainingSpec
from clsim.streams import Experience

SHAPE = (1, 6, 6)
CLASSES = 4
CPU = torch.device("cpu")


class CheckFailed(AssertionError):
    """A component breaks its contract; the message says how."""


def check_selector(select: Selector, *, shortfall: bool = False) -> None:
    """Everything that a selector promises, on small pools with and without trouble in them.

    Args:
        shortfall: the selector may return fewer than ``min(budget, n)`` rows, and says so in its documentation.

    Raises:
        CheckFailed: at the first broken promise.
    """
    for name, pool in _pools().items():
        for budget in sorted({0, 1, 7, len(pool), len(pool) + 5}):
            _check_selection(_select(select, pool, budget, name), pool, budget, name, shortfall)
    _check_purity(select)
    _check_repeatable(select)


def _pools() -> dict[str, Pool]:
    """Ordinary pools, and those that break what was written for ordinary ones."""
    x, y = clusters(40, seed=1)
    same = torch.zeros_like(x)
    return {
        "40 samples of 4 classes": _pool(x, y),
        "a single sample": _pool(x[:1], y[:1]),
        "a single class": _pool(x, torch.zeros_like(y)),
        "a class with one sample": _pool(x, (torch.arange(40) == 0).long()),
        "exact duplicates": _pool(x[:5].repeat(8, 1, 1, 1), y[:5].repeat(8)),
        "all samples alike": _pool(same, y),
        "features of zero": _pool(same, y, zero=True),
        "certain predictions": _pool(x, y, sharp=1e4),
        "no labels": _pool(x, torch.full_like(y, -1)),
    }


def _check_selection(selection: Any, pool: Pool, budget: int, name: str, shortfall: bool) -> None:
    where = f"of {name} with budget {budget}"
    if not isinstance(selection, Selection):
        raise CheckFailed(f"returned a {type(selection).__name__} {where}, not a clsim.Selection")
    index = selection.index
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.ndim != 1:
        kind = f"{index.dtype} {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        raise CheckFailed(f"returned an index of {kind} {where}, not an int64 tensor (m,)")
    wanted = min(budget, len(pool))
    if len(index) > wanted or (len(index) < wanted and not shortfall):
        raise CheckFailed(f"returned {len(index)} rows {where}, not min(budget, n) = {wanted}")
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(pool)):
        raise CheckFailed(
            f"returned rows {int(index.min())} to {int(index.max())} {where}, outside 0 to {len(pool) - 1}"
        )
    if len(index.unique()) < len(index):
        raise CheckFailed(f"chose a row twice {where}")
    weight = selection.weight
    if weight is not None and (weight.shape != index.shape or not weight.isfinite().all() or (weight < 0).any()):
        raise CheckFailed(f"returned weights {where} that are not finite numbers from 0, one a row")


def _check_purity(select: Selector) -> None:
    """Nothing but the selection may come out of it."""
    pool = _pool(*clusters(40, seed=2))
    net = pool._net
    net.train()
    frozen = next(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm1d))
    frozen.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    columns = {name: column.clone() for name, column in pool.data.columns().items()}
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    _select(select, pool, 7, "40 samples of 4 classes")
    if not torch.equal(torch_state, torch.get_rng_state()):
        raise CheckFailed("drew from torch's global generator; all randomness must come from rng")
    if str(numpy_state) != str(np.random.get_state()):  # noqa: NPY002
        raise CheckFailed("drew from numpy's global generator; all randomness must come from rng")
    if python_state != random.getstate():
        raise CheckFailed("drew from python's global generator; all randomness must come from rng")
    for name, value in net.state_dict().items():
        if not torch.equal(before[name], value):
            raise CheckFailed(f"changed the net: {name} is not what it was")
    if not net.head.training or frozen.training:
        raise CheckFailed("left the net in another mode (train or eval) than it found it in")
    if any(p.grad is not None for p in net.parameters()):
        raise CheckFailed("left gradients in the net")
    for name, column in pool.data.columns().items():
        if not torch.equal(columns[name], column):
            raise CheckFailed(f"changed the pool's column {name!r}")


def _check_repeatable(select: Selector) -> None:
    """Same pool and seed, same picks, in whatever order the pool stands and however it is batched."""
    x, y = clusters(40, seed=3)
    name = "40 samples of 4 classes"
    first = _select(select, _pool(x, y), 9, name).index
    if not torch.equal(first, _select(select, _pool(x, y), 9, name).index):
        raise CheckFailed("chose otherwise when called again with the same pool and the same seed")
    if not torch.equal(first, _select(select, _pool(x, y, batch_size=7), 9, name).index):
        raise CheckFailed("chose otherwise when the pool was passed through the net in batches of 7")
    if not torch.equal(first, _select(select, _pool(x, y), 9, name, seed=1).index):
        return  # it draws: another order of the pool draws other samples
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    turned = order[_select(select, _pool(x, y)[order], 9, name).index]
    if set(turned.tolist()) != set(first.tolist()):
        raise CheckFailed("chose other samples when the same pool stood in another order, though it draws nothing")


def _select(select: Selector, pool: Pool, budget: int, name: str, seed: int = 0) -> Selection:
    try:
        return select(pool, budget, rng=torch.Generator().manual_seed(seed))
    except Exception as error:
        raise CheckFailed(f"raised {type(error).__name__} on {name} with budget {budget}: {error}") from error


def check_learner(make: Callable[[Setup], Learner]) -> None:
    """Everything that a learner promises, on two easy experiences.

    Args:
        make: the learner's class, its options bound.

    Raises:
        CheckFailed: at the first broken promise.
    """
    setup, learner = _learn(make, buffered=True)
    _check_terms(make)
    _check_predictions(setup, learner)
    _check_silent_evaluation(make, setup, learner)
    _check_resume(make, setup)
    _learn(make, buffered=False)


def _check_terms(make: Callable[[Setup], Learner]) -> None:
    setup = _setup(buffered=True)
    learner, experience = make(setup), _experience(0)
    untouched = {name: column.clone() for name, column in experience.train.columns().items()}
    state = torch.get_rng_state()
    learner.begin(experience)
    terms = learner.observe(experience.train[:10])
    if not torch.equal(state, torch.get_rng_state()):
        raise CheckFailed("observe drew from torch's global generator; all randomness must come from setup.randomness")
    if not isinstance(terms, dict):
        raise CheckFailed(f"observe returned a {type(terms).__name__}, not a dict of loss terms")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim or term.requires_grad:
            raise CheckFailed(
                f"observe returned the term {name!r} not as a detached scalar tensor (no .item() in a step)"
            )
    for name, column in experience.train.columns().items():
        if not torch.equal(untouched[name], column):
            raise CheckFailed(f"observe changed the experience's column {name!r}")


def _check_predictions(setup: Setup, learner: Learner) -> None:
    for position in (0, 1):
        test = _experience(position).train
        before = _snapshot(setup)
        logits = learner.predict(test.x, test.task)
        if not torch.equal(before, _snapshot(setup)):
            raise CheckFailed("predict changed the net")
        if logits.shape != (len(test), CLASSES) or logits.requires_grad or logits.isnan().any():
            raise CheckFailed(
                f"predict returned {tuple(logits.shape)} with gradient or NaN, not ({len(test)}, {CLASSES})"
            )
        if not torch.equal(learner.predict(test.x[:3], test.task[:3]).argmax(1), logits[:3].argmax(1)):
            raise CheckFailed("predict depends on which samples are predicted together (batch statistics?)")
        hidden = ~setup.net.visible[position]
        if hidden.any() and bool((logits[:, hidden] > -torch.inf).any()):
            raise CheckFailed("predict gave a task logits of classes that it does not have")
    accuracy = float((logits.argmax(1) == test.y).float().mean())
    if accuracy < 0.9:
        raise CheckFailed(f"learnt {accuracy:.0%} of two separable classes that it had just been trained on")


def _check_silent_evaluation(make: Callable[[Setup], Learner], setup: Setup, learner: Learner) -> None:
    watched, _ = _learn(make, buffered=True, evaluate=True)
    again, _ = _learn(make, buffered=True)
    if not torch.equal(_snapshot(setup), _snapshot(again)):
        raise CheckFailed("learnt otherwise from the same seed and the same stream")
    if not torch.equal(_snapshot(setup), _snapshot(watched)):
        raise CheckFailed("learnt otherwise when it was evaluated in between")


def _check_resume(make: Callable[[Setup], Learner], whole: Setup) -> None:
    """Through a file and back after the first experience, then on: bit for bit the same."""
    setup, learner = _learn(make, buffered=True, positions=(0,))
    state = learner.state_dict()
    if state is None:
        return  # it says that it cannot be resumed
    everything = {"learner": state, "memory": setup.memory.state_dict(), "randomness": setup.randomness.state_dict()}
    file = io.BytesIO()
    try:
        torch.save(everything, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
    except Exception as error:
        raise CheckFailed(f"has a state_dict that is not tensors and plain values only: {error}") from error
    resumed = _setup(buffered=True)
    learner = make(resumed)
    learner.load_state_dict(loaded["learner"])
    resumed.memory.load_state_dict(loaded["memory"], CPU)
    resumed.randomness.load_state_dict(loaded["randomness"])
    _train(resumed, learner, (1,), evaluate=False)
    if not torch.equal(_snapshot(whole), _snapshot(resumed)):
        raise CheckFailed("learnt otherwise after it was saved and loaded: its state_dict is not all of its state")


def _learn(
    make: Callable[[Setup], Learner], *, buffered: bool, evaluate: bool = False, positions: tuple[int, ...] = (0, 1)
) -> tuple[Setup, Learner]:
    setup = _setup(buffered=buffered)
    learner = make(setup)
    try:
        _train(setup, learner, positions, evaluate)
    except Exception as error:
        memory = "a memory" if buffered else "no memory"
        raise CheckFailed(f"raised {type(error).__name__} in training with {memory}: {error}") from error
    return setup, learner


def _train(setup: Setup, learner: Learner, positions: tuple[int, ...], evaluate: bool) -> None:
    for position in positions:
        experience = _experience(position)
        learner.begin(experience)
        for epoch in range(setup.spec.training.epochs):
            for start in range(0, len(experience.train), 10):
                learner.observe(experience.train[start : start + 10])
                if evaluate and not epoch:
                    learner.predict(experience.train.x[:7], experience.train.task[:7])
        setup.memory.after_experience(experience.train, 2 * position + 2, setup.pool)
        learner.finish(experience)


def _setup(*, buffered: bool) -> Setup:
    spec = RunSpec(
        training=TrainingSpec(epochs=5),
        optimizer=OptimizerSpec(lr=0.05, momentum=0.9),
        memory=MemorySpec(buffer="random" if buffered else "none", capacity=20),
    )
    randomness, cost = Randomness(7, CPU), Cost()
    memory = Buffer(spec.memory, random_selector if buffered else None, rng=randomness.memory, cost=cost)
    visible = torch.tensor([[True, True, False, False], [False, False, True, True]])
    transform = Transform([0.5], [0.25], [], device=CPU, channels_last=False)
    return Setup(spec, models.build(_body, SHAPE, visible, 0, CPU), memory, transform, randomness, cost)


def _experience(position: int) -> Experience:
    """Two of the four clusters, 52 samples: the last batch is short."""
    x, y = clusters(104, seed=4)
    rows = ((y == 2 * position) | (y == 2 * position + 1)).nonzero().flatten()
    train = exemplars(x[rows], y[rows], task=position)
    return Experience(position, (2 * position, 2 * position + 1), train)


def _snapshot(setup: Setup) -> Tensor:
    """All weights and statistics in one vector."""
    return torch.cat([value.detach().flatten().double() for value in setup.net.state_dict().values()])


def clusters(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Images in four well separated clusters, in turn: uint8 (n, 1, 6, 6), and their labels."""
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randint(40, 216, (CLASSES, *SHAPE), generator=torch.Generator().manual_seed(0))
    y = torch.arange(n) % CLASSES
    noise = torch.randint(-25, 26, (n, *SHAPE), generator=rng)
    return (centres[y] + noise).to(torch.uint8), y


def exemplars(x: Tensor, y: Tensor, *, task: int = 0, seed: int = 6) -> Exemplars:
    """Samples with keys drawn from a seed."""
    n = len(y)
    keys = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    return Exemplars(x, y, torch.full((n,), task), keys, torch.arange(n))


def _pool(x: Tensor, y: Tensor, *, zero: bool = False, sharp: float = 1.0, batch_size: int = 500) -> Pool:
    net = models.build(_body, SHAPE, torch.ones(1, CLASSES, dtype=torch.bool), 0, CPU)
    with torch.no_grad():
        net.head.weight *= sharp
        if zero:
            for parameter in net.body.parameters():
                parameter.zero_()
    transform = Transform([0.5], [0.25], [], device=CPU, channels_last=False)
    return Pool(exemplars(x, y), net, transform.plain, batch_size=batch_size)


def _body(shape: models.Shape) -> torch.nn.Module:
    """A small net with batch norm: a wrong mode shows."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 8)
    )

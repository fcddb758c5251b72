"""The contract of a learner, and of an objective as plain SGD minimises it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import torch
from torch import Tensor

from clsim.checks.samples import CLASSES, CPU, CheckFailed, Model, body, clusters, convolutional, exemplars
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.sgd import AnyObjective, Sgd
from clsim.streams.stream import Experience
from clsim.training.checkpoint import copied
from clsim.training.contract import Learner, Setup


def check_learner(make: Callable[[Setup], Learner]) -> None:
    """Check all that a learner promises, on two easy experiences.

    Args:
        make: the learner's class (or a function that makes one), its options bound.

    Raises:
        CheckFailed: at the first broken promise.
    """
    model: Model = body
    try:
        made: object = make(setup_of(body, buffered=True))
    except InputError:  # it may need feature maps; if it refuses those too, its own message says so
        model = convolutional
        made = make(setup_of(model, buffered=True))
    if not isinstance(made, Learner):
        raise CheckFailed(
            f"made a {type(made).__name__}, which is no clsim.Learner; allowed: a class derived from clsim.Learner"
        )
    setup, learner = _learn(make, model, buffered=True)
    _check_terms(make, model)
    _check_predictions(setup, learner)
    _check_silent_evaluation(make, model, setup, learner)
    _check_resume(make, model, setup)
    _check_return(make, model)
    _learn(make, model, buffered=False)


def check_objective(objective: AnyObjective) -> None:
    """Check all that an objective promises, on two easy experiences.

    Args:
        objective: the objective's class, or a function of net and batch.

    Raises:
        CheckFailed: at the first broken promise.
    """
    check_learner(lambda setup: Sgd(setup, objective=objective))


def _check_terms(make: Callable[[Setup], Learner], model: Model) -> None:
    setup = setup_of(model, buffered=True)
    learner, experience = make(setup), _experience(0)
    untouched = {name: column.clone() for name, column in experience.train.columns().items()}
    state = torch.get_rng_state()
    learner.begin(experience)
    terms = learner.observe(learner.incoming(experience)[:10])
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
        before = snapshot(setup)
        logits = learner.predict(test.x, test.task)
        if not torch.equal(before, snapshot(setup)):
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


def _check_silent_evaluation(make: Callable[[Setup], Learner], model: Model, setup: Setup, learner: Learner) -> None:
    watched, _ = _learn(make, model, buffered=True, evaluate=True)
    again, _ = _learn(make, model, buffered=True)
    if not torch.equal(snapshot(setup), snapshot(again)):
        raise CheckFailed("learnt otherwise from the same seed and the same stream")
    if not torch.equal(snapshot(setup), snapshot(watched)):
        raise CheckFailed("learnt otherwise when it was evaluated in between")


def _check_resume(make: Callable[[Setup], Learner], model: Model, whole: Setup) -> None:
    """Check that a learner saved and loaded after the first experience ends bit for bit the same."""
    setup, learner = _learn(make, model, buffered=True, positions=(0,))
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
    resumed = setup_of(model, buffered=True)
    learner = make(resumed)
    learner.load_state_dict(loaded["learner"])
    resumed.memory.load_state_dict(loaded["memory"], CPU)
    resumed.randomness.load_state_dict(loaded["randomness"])
    _train(resumed, learner, (1,), evaluate=False)
    if not torch.equal(snapshot(whole), snapshot(resumed)):
        raise CheckFailed("learnt otherwise after it was saved and loaded: its state_dict is not all of its state")


def _check_return(make: Callable[[Setup], Learner], model: Model) -> None:
    """Check that a learner that goes back within an experience, as to its best epoch, ends like one that stopped there.

    What it accumulates along the way must go back with its weights.
    """
    ended = []
    for beyond in (0, 2):
        setup = setup_of(model, buffered=True)
        learner = make(setup)
        if learner.state_dict() is None:
            return
        for position in (0, 1):
            train_on(setup, learner, _experience(position), epochs=2, beyond=beyond)
        test = _experience(0).train
        ended.append(torch.cat([snapshot(setup), learner.predict(test.x, test.task).flatten()]))
    if not torch.equal(*ended):
        raise CheckFailed(
            "learnt otherwise after it went back to a state within an experience: its state_dict lacks what it "
            "accumulates there"
        )


def _learn(
    make: Callable[[Setup], Learner],
    model: Model,
    *,
    buffered: bool,
    evaluate: bool = False,
    positions: tuple[int, ...] = (0, 1),
) -> tuple[Setup, Learner]:
    setup = setup_of(model, buffered=buffered)
    learner = make(setup)
    try:
        _train(setup, learner, positions, evaluate)
    except Exception as error:
        memory = "a memory" if buffered else "no memory"
        raise CheckFailed(f"raised {type(error).__name__} in training with {memory}: {error}") from error
    return setup, learner


def _train(setup: Setup, learner: Learner, positions: tuple[int, ...], evaluate: bool) -> None:
    for position in positions:
        train_on(setup, learner, _experience(position), evaluate=evaluate)


def train_on(
    setup: Setup,
    learner: Learner,
    experience: Experience,
    *,
    evaluate: bool = False,
    epochs: int = 0,
    beyond: int = 0,
) -> None:
    """Train on an experience of two classes as the loop does.

    Args:
        setup, learner: The setup and its learner.
        experience: The experience.
        evaluate: Whether to predict in between.
        epochs: The number of epochs; 0 means that of the setup.
        beyond: The number of further epochs from which the learner then goes back, as to its best epoch.
    """
    learner.begin(experience)
    _epochs(learner, experience, epochs or setup.spec.training.epochs, evaluate)
    if beyond:
        state = copied({"learner": learner.state_dict(), "randomness": setup.randomness.state_dict()})
        _epochs(learner, experience, beyond, evaluate)
        learner.load_state_dict(state["learner"])
        setup.randomness.load_state_dict(state["randomness"])
    learner.settle(experience)
    setup.memory.after_experience(experience.train, 2 * experience.position + 2, learner.pool)
    learner.finish(experience)


def _epochs(learner: Learner, experience: Experience, epochs: int, evaluate: bool) -> None:
    samples = learner.incoming(experience)
    for epoch in range(epochs):
        for start in range(0, len(samples), 10):
            learner.observe(samples[start : start + 10])
            if evaluate and not epoch:
                learner.predict(experience.train.x[:7], experience.train.task[:7])


def _experience(position: int) -> Experience:
    """Make an experience of two of the four clusters: 52 samples, so that the last batch is short, also unlabelled."""
    x, y = clusters(104, seed=4)
    rows = ((y == 2 * position) | (y == 2 * position + 1)).nonzero().flatten()
    train = exemplars(x[rows], y[rows], task=position)
    unlabelled = dataclasses.replace(train, y=torch.full_like(train.y, -1))
    return Experience(position, (2 * position, 2 * position + 1), train, unlabelled=unlabelled)


def snapshot(setup: Setup) -> Tensor:
    """All weights and statistics in one vector."""
    return torch.cat([value.detach().flatten().double() for value in setup.net.state_dict().values()])

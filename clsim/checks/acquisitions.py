"""The contract of an acquisition: a selector with a state, which may have terms in a learner's loss."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clsim.acquisitions.acquisition import Acquisition
from clsim.checks.samples import CheckFailed, clusters, exemplars
from clsim.checks.selectors import check_selector
from clsim.checks.setups import setup_of
from clsim.learners.sgd import Sgd
from clsim.models.nets import Net
from clsim.pool.pool import Pool, Selection
from clsim.streams.stream import Experience
from clsim.training.contract import Setup

Make = Callable[[Net, torch.Generator], Acquisition]
"""An acquisition's class, or a function that makes one, its options bound."""


def check_acquisition(make: Make) -> None:
    """Check all that an acquisition promises: as a selector of labels, in the training of a learner, and of its state.

    Each call of the selector is that of a new acquisition in its first round, after its ``fit``. It may return fewer
    rows than the budget, and its choice may depend on the order of the candidates.

    Args:
        make: the acquisition's class (or a function that makes one), its options bound.

    Raises:
        CheckFailed: at the first broken promise.
    """

    def select(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        acquisition = _made(make, pool.net)
        acquisition.begin(0, 1)
        acquisition.next_choice(0, 1)
        acquisition.fit(pool, rng)
        return acquisition(pool, budget, rng=rng)

    check_selector(select, shortfall=True, reads_labels=False, ordered=True)
    whole = _Run(make)
    whole.take_round(0)
    _check_state(make, whole)
    resumed = _Run(make)
    resumed.load(_saved(whole.state()))
    if not torch.equal(whole.take_round(1), resumed.take_round(1)):
        raise CheckFailed("chose otherwise after it was saved and loaded between two rounds")
    for name, weights in resumed.setup.net.state_dict().items():
        if not torch.equal(weights, whole.setup.net.state_dict()[name]):
            raise CheckFailed("trained the learner otherwise after it was saved and loaded between two rounds")


class _Run:
    """A learner that is trained in two label rounds, and its acquisition. Final."""

    def __init__(self, make: Make) -> None:
        setup = setup_of(buffered=False)
        self.acquisition = _made(make, setup.net)
        self.setup: Setup = dataclasses.replace(setup, acquisition=self.acquisition)
        self.learner = Sgd(self.setup)

    def take_round(self, number: int) -> Tensor:
        """Train on 52 samples of two classes, the last batch a short one; return the picks among 40 others."""
        x, y = clusters(104, seed=4)
        labelled = exemplars(x[y < 2], y[y < 2])
        others, _ = clusters(40, seed=5 + number)
        unlabelled = exemplars(others, torch.full((40,), -1))
        try:
            self.acquisition.begin(number, 2)
            self.learner.begin(Experience(0, (0, 1), labelled, unlabelled=unlabelled))
            for start in range(0, len(labelled), 10):
                state = torch.get_rng_state()
                terms = self.learner.observe(labelled[start : start + 10])
                _check_terms(terms, state)
            pool = self.setup.pool(unlabelled, labelled=labelled)
            self.acquisition.next_choice(number, 2)
            self.acquisition.fit(pool, _generator(number))
            return self.acquisition(pool, 9, rng=_generator(number)).index
        except CheckFailed:
            raise
        except Exception as error:
            raise CheckFailed(f"raised {type(error).__name__} in the label rounds of a learner: {error}") from error

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds after a round."""
        return {
            "learner": self.learner.state_dict(),
            "acquisition": self.acquisition.state_dict(),
            "randomness": self.setup.randomness.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        self.learner.load_state_dict(state["learner"])
        self.acquisition.load_state_dict(state["acquisition"])
        self.setup.randomness.load_state_dict(state["randomness"])


def _check_terms(terms: dict[str, Tensor], state: Tensor) -> None:
    if not torch.equal(state, torch.get_rng_state()):
        raise CheckFailed("drew from torch's global generator in a step; all randomness must come from rng")
    for name, term in terms.items():
        if not bool(term.isfinite()):
            raise CheckFailed(f"made the loss of a step not finite, by its term or through the weights: {name!r}")


def _check_state(make: Make, run: _Run) -> None:
    """Check that a new acquisition with the state of one that was trained makes the same picks, again and again."""
    state = _saved({"acquisition": run.acquisition.state_dict()})["acquisition"]
    other, net = _made(make, run.setup.net), run.setup.net
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    other.load_state_dict(state)
    for call in range(3):
        pool = run.setup.pool(exemplars(clusters(40, seed=8 + call)[0], torch.full((40,), -1)))
        picks = [a(pool, 9, rng=_generator(call)).index for a in (run.acquisition, other)]
        if not torch.equal(*picks):
            raise CheckFailed("chose otherwise after it was saved and loaded: its state_dict is not all of its state")
    run.acquisition.load_state_dict(_saved({"acquisition": state})["acquisition"])
    if any(not torch.equal(weights[name], value) for name, value in net.state_dict().items()):
        raise CheckFailed("changed the learner's net when it was loaded or made its choice")


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as it comes back from a file of tensors and plain values."""
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except Exception as error:
        raise CheckFailed(f"has a state_dict that is not tensors and plain values only: {error}") from error


def _made(make: Make, net: Net) -> Acquisition:
    found: object = make(net, _generator(0))
    if not isinstance(found, Acquisition):
        raise CheckFailed(
            f"made a {type(found).__name__}, which is no clsim.Acquisition; allowed: a class derived from "
            "clsim.Acquisition, which has defaults for all but the call"
        )
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

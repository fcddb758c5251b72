"""The checks accept what is shipped, and reject each way of breaking the contract with a reason that names it."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clsim
from clsim.checks.learners import check_learner
from clsim.checks.samples import CheckFailed
from clsim.checks.selectors import check_selector
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.spec import components, registry
from clsim.streams.stream import Experience
from clsim.training.contract import Setup


def first(pool: Pool, budget: int) -> Tensor:
    return pool.data.key.argsort(descending=True)[:budget]


def a_list(pool: Pool, budget: int, *, rng: torch.Generator) -> Any:
    return first(pool, budget).tolist()


def floating(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget).float())


def greedy_for_more(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget + 1))


def one_short(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, max(budget - 1, 0)))


def with_repetition(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.randint(len(pool), (min(budget, len(pool)),), generator=rng))


def from_the_data_set(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(first(pool, budget) + 1)


def torch_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.randperm(len(pool))[:budget])


def numpy_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.from_numpy(np.random.permutation(len(pool)))[:budget])  # noqa: NPY002


def python_global(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.tensor(python_random.sample(range(len(pool)), min(budget, len(pool))), dtype=torch.int64))


def unseeded(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    fresh = torch.Generator()
    fresh.seed()
    return Selection(torch.randperm(len(pool), generator=fresh)[:budget])


def trains_the_net(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    with torch.no_grad():
        pool.net.head.weight.add_(0.01)
    return Selection(first(pool, budget))


def leaves_eval_mode(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.net.eval()
    return Selection(first(pool, budget))


def leaves_gradients(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.net.head.weight.square().sum().backward()
    return Selection(first(pool, budget))


def relabels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.data.y.zero_()
    return Selection(first(pool, budget))


def takes_the_first_rows(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(torch.arange(min(budget, len(pool))))


def infinite_weights(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    index = first(pool, budget)
    return Selection(index, torch.full((len(index),), torch.inf))


def needs_labels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.losses.argsort()[: budget if pool.data.y.min() >= 0 else len(pool) + [][0]])


def entropy(pool: Pool) -> Tensor:
    return torch.special.entr(pool.probabilities).sum(1)


def nan_first(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """0 · log 0, which argsort then puts first."""
    p = pool.probabilities
    return Selection((-(p * p.log()).sum(1)).argsort(descending=True)[:budget])


def square_root_of_round_off(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """k-center on √(‖a‖² + ‖b‖² − 2⟨a, b⟩), which round-off makes negative."""
    h = pool.features
    squares, picks = h.square().sum(1), [0][:budget]
    nearest = torch.full((len(h),), torch.inf)
    while len(picks) < min(budget, len(h)):
        distance = (squares + squares[picks[-1]] - 2 * h @ h[picks[-1]]).sqrt()
        nearest = torch.minimum(nearest, distance)
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    return Selection(torch.tensor(picks, dtype=torch.int64))


def picks_a_point_again(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """k-center that does not rule out what it has: among duplicates every distance is 0."""
    h, picks = pool.features, [0][:budget]
    while len(picks) < min(budget, len(h)):
        picks.append(int(torch.cdist(h, h[picks]).min(1).values.argmax()))
    return Selection(torch.tensor(picks, dtype=torch.int64))


def in_train_mode(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.net.train()
    with torch.no_grad():
        p = pool.net(pool.inputs(slice(None)), pool.data.task).softmax(1)
    pool.net.eval()
    return Selection(p.max(1).values.argsort()[:budget])


def moves_batch_norm(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Monte-Carlo dropout by switching all of the net to train mode; it even puts the mode and torch's state back."""
    modes, state = {m: m.training for m in pool.net.modules()}, torch.get_rng_state()
    pool.net.train()
    with torch.no_grad():
        if len(pool) > 1:
            pool.net(pool.inputs(slice(None)), pool.data.task)
    for module, mode in modes.items():
        module.training = mode
    torch.set_rng_state(state)
    return Selection(first(pool, budget))


def augments(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    x = pool.inputs(slice(None))
    noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(torch.seed() % 1000))
    return Selection(noisy.flatten(1).norm(dim=1).argsort()[:budget])


def width_from_labels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """As many classes as the largest hidden label says."""
    p = pool.probabilities[:, : int(pool.data.y.max()) + 1]
    return Selection(p.max(1).values.argsort(stable=True)[:budget])


def wants_every_class(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Begins with the likeliest sample of each class, as if each were there."""
    own = pool.probabilities.gather(1, pool.data.y.clamp_min(0)[:, None])[:, 0]
    seeds = [int(own.where(pool.data.y == c, -1.0).argmax()) for c in range(pool.logits.shape[1])]
    rest = [row for row in first(pool, len(pool)).tolist() if row not in seeds]
    return Selection(torch.tensor((seeds + rest)[:budget], dtype=torch.int64))


def needs_a_labelled_set(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    centres = pool.labelled.features  # type: ignore[union-attr]
    return Selection(torch.cdist(pool.features, centres).min(1).values.argsort(descending=True)[:budget])


def rescales_a_short_batch(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Gradients of the mean loss of each batch: in the short last one they are larger."""
    parts = torch.arange(len(pool)).split(16)
    norms = torch.cat([pool.hypothetical_gradients[rows].squares.sqrt() / len(rows) for rows in parts])
    return Selection(norms.argsort(descending=True, stable=True)[:budget])


def never_the_whole_pool(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    scores = pool.probabilities.max(1).values.numpy()
    return Selection(torch.from_numpy(np.argpartition(scores, budget)[:budget]))


def one_batch_at_a_time(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Standardises over whatever batch the pool was passed in."""
    size = pool.batch_size
    parts = [part - part.mean() for part in pool.probabilities.max(1).values.split(size)]
    return Selection(torch.cat(parts).argsort(stable=True)[:budget])


def normalises_in_place(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    pool.features.sub_(pool.features.mean(0))
    return Selection(first(pool, budget))


def freezes_the_net(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    for parameter in pool.net.parameters():
        parameter.requires_grad_(False)
    return Selection(first(pool, budget))


def no_weight(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    index = first(pool, budget)
    return Selection(index, torch.zeros(len(index)))


def remembers(pool: Pool, budget: int, *, rng: torch.Generator, seen: list[Tensor] = []) -> Selection:  # noqa: B006
    """Keeps the first pool's order for ever after."""
    if not seen:
        seen.append(first(pool, len(pool)))
    return Selection(seen[0][:budget])


BROKEN_SELECTORS: dict[Callable[..., Any], str] = {
    a_list: "returned a list",
    floating: "returned an index of torch.float32",
    greedy_for_more: "returned 1 rows of 40 samples of 4 classes with budget 0",
    one_short: r"not min\(budget, n\) = 1",
    with_repetition: "chose a row twice",
    from_the_data_set: "outside 0 to",
    torch_global: "drew from torch's global generator",
    numpy_global: "drew from numpy's global generator",
    python_global: "drew from python's global generator",
    unseeded: "chose otherwise when called again",
    trains_the_net: "changed the net: head.weight",
    leaves_eval_mode: "left the net in another mode",
    leaves_gradients: "left gradients in the net",
    relabels: "changed the pool's column 'y'",
    takes_the_first_rows: "when the same pool stood in another order",
    infinite_weights: "not finite numbers",
    needs_labels: "raised IndexError on no labels",
    nan_first: "compared 20 NaN with argsort on certain and open predictions|compared 40 NaN with argsort",
    square_root_of_round_off: "compared .* NaN with argmax on .* where NaN counts as the largest",
    picks_a_point_again: "chose a row twice of exact duplicates",
    in_train_mode: "drew from torch's global generator|raised ValueError on a single sample",
    moves_batch_norm: "changed the net: body.2.running_mean is not what it was",
    augments: "drew from torch's global generator",
    width_from_labels: "raised IndexError on no labels",
    wants_every_class: "chose a row twice of a single class|of a single sample",
    needs_a_labelled_set: "raised AttributeError on 40 samples of 4 classes",
    rescales_a_short_batch: "when the same pool stood in another order",
    never_the_whole_pool: "raised ValueError on 40 samples of 4 classes with budget 40",
    one_batch_at_a_time: "passed through the net in batches of 7",
    normalises_in_place: "changed the pool's features in place",
    freezes_the_net: "changed which parameters of the net require a gradient",
    no_weight: "that are all 0: nothing would be learnt",
    remembers: "returned rows .* outside 0 to 0",
}


@pytest.mark.parametrize("select", BROKEN_SELECTORS, ids=lambda s: s.__name__)
def test_a_broken_selector_is_rejected_with_its_reason(select: Callable[..., Any]) -> None:
    with pytest.raises(CheckFailed, match=BROKEN_SELECTORS[select]):
        check_selector(select)


def reads_the_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.losses.nan_to_num(0).argsort(descending=True, stable=True)[:budget])


def reads_the_gradients(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(pool.gradients.squares.argsort(descending=True, stable=True)[:budget])


def width_from_labels_with_care(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    p = pool.probabilities[:, : max(int(pool.data.y.max()) + 1, 1)]
    return Selection(p.max(1).values.argsort(stable=True)[:budget])


def weighs_by_labels(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    index = first(pool, budget)
    return Selection(index, 1.0 + pool.data.y[index].clamp_min(0))


BROKEN_ACQUISITIONS: dict[Callable[..., Any], str] = {
    reads_the_loss: "chose otherwise when the labels were hidden: it reads what an acquisition cannot know",
    reads_the_gradients: "chose otherwise when the labels were (hidden|wrong)",
    width_from_labels_with_care: "chose otherwise when the labels were",
    weighs_by_labels: "weighed otherwise when the labels were hidden",
}


@pytest.mark.parametrize("select", BROKEN_ACQUISITIONS, ids=lambda s: s.__name__)
def test_an_acquisition_that_reads_labels_is_rejected(select: Callable[..., Any]) -> None:
    check_selector(select)  # a coreset may
    with pytest.raises(CheckFailed, match=BROKEN_ACQUISITIONS[select]):
        check_selector(select, reads_labels=False)


def most_uncertain(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(entropy(pool).argsort(descending=True, stable=True)[:budget])


def sorted_as_strings(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    scores = [f"{value:g}" for value in entropy(pool).tolist()]  # 9e-05 comes before 0.3
    order = sorted(range(len(pool)), key=lambda row: scores[row], reverse=True)
    return Selection(torch.tensor(order[:budget], dtype=torch.int64))


def most_certain(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    return Selection(entropy(pool).argsort(stable=True)[:budget])


def nan_last_from_the_end(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """NaN first in numpy, which the watch over torch does not see."""
    p = pool.probabilities.double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.argsort(-(p * np.log(p)).sum(1))
    return Selection(torch.from_numpy(order[::-1].copy()[:budget]))


def test_a_ranking_is_held_against_its_score() -> None:
    check_selector(most_uncertain, score=entropy, reads_labels=False)


@pytest.mark.parametrize("select", [sorted_as_strings, most_certain, nan_last_from_the_end], ids=lambda s: s.__name__)
def test_a_ranking_in_another_order_is_rejected(select: Callable[..., Any]) -> None:
    check_selector(select)
    with pytest.raises(CheckFailed, match=r"ranked .* otherwise than by its score: pick \d scores"):
        check_selector(select, score=entropy)


def test_a_rising_sort_may_hold_nan() -> None:
    def lowest_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(pool.losses.argsort(stable=True)[:budget])

    check_selector(lowest_loss)


def test_a_selector_that_announces_a_shortfall_may_return_fewer() -> None:
    check_selector(one_short, shortfall=True)


def test_a_selector_of_one_line_passes() -> None:
    def mine(pool: clsim.Pool, budget: int, *, rng: torch.Generator) -> clsim.Selection:
        return clsim.Selection(torch.randperm(len(pool), generator=rng)[:budget])

    clsim.check_selector(mine)


@pytest.mark.parametrize("name", components.COMPONENTS["learners"])
def test_every_shipped_learner_keeps_the_contract(name: str) -> None:
    check_learner(registry.component("learners", name))


class Fetches(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return {name: term.item() for name, term in super().observe(batch).items()}


class KeepsTheGraph(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        super().observe(batch)
        return {"loss": self.net.head.weight.sum()}


class ReturnsTheLoss(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return sum(super().observe(batch).values())


class LearnsNothing(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return {}


class DrawsGlobally(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        return super().observe(batch[torch.randperm(len(batch))])


class TouchesTheData(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        batch.x.clamp_(max=100)
        return super().observe(batch)


class LearnsFromTests(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        with torch.no_grad():
            self.net.head.bias.add_(1e-3)
        return super().predict(x, task)


class UsesBatchStatistics(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        logits = super().predict(x, task)
        return logits - logits.nan_to_num(neginf=0.0).mean(0) * 50


class ShowsHiddenClasses(Sgd):
    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        return super().predict(x, task).clamp_min(-1e9)


class CountsPredictions(Sgd):
    predictions = 0

    def predict(self, x: Tensor, task: Tensor) -> Tensor:
        self.predictions += 1
        return super().predict(x, task)

    def observe(self, batch: Exemplars) -> Any:
        batch = batch if self.predictions % 2 == 0 else batch[:2]
        return super().observe(batch)


class ForgetsToSave(Sgd):
    """Carries something from one experience to the next that is not in its state."""

    seen = 0

    def begin(self, experience: Experience) -> None:
        super().begin(experience)
        self.seen += 1

    def observe(self, batch: Exemplars) -> Any:
        return super().observe(batch if self.seen == 1 else batch[:6])


class ForgetsItsPath(Sgd):
    """The second experience is learnt the slower, the more steps the first one took, those taken back included."""

    walked = 0
    slower = 1.0

    def begin(self, experience: Experience) -> None:
        super().begin(experience)
        self.walked = 0

    def observe(self, batch: Exemplars) -> Any:
        self.walked += 1
        terms = super().observe(batch)
        with torch.no_grad():
            self.net.head.weight.mul_(self.slower)
        return terms

    def finish(self, experience: Experience) -> Any:
        self.slower, self.walked = 1 - 1e-4 * self.walked, 0
        return super().finish(experience)

    def state_dict(self) -> Any:
        return {"sgd": super().state_dict(), "slower": self.slower}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state["sgd"])
        self.slower = state["slower"]


class SavesAnObject(Sgd):
    def state_dict(self) -> Any:
        return {**super().state_dict(), "setup": self.setup.spec}


class NeedsAMemory(Sgd):
    def observe(self, batch: Exemplars) -> Any:
        assert self.setup.memory.exemplars is not None or self.setup.spec.memory.buffer != "none", "no memory"
        return super().observe(batch)


BROKEN_LEARNERS: dict[Callable[[Setup], Any], str] = {
    Fetches: "not as a detached scalar tensor",
    KeepsTheGraph: "not as a detached scalar tensor",
    ReturnsTheLoss: "observe returned a Tensor, not a dict",
    LearnsNothing: "learnt .* of two separable classes",
    DrawsGlobally: "observe drew from torch's global generator",
    TouchesTheData: "observe changed the experience's column 'x'",
    LearnsFromTests: "predict changed the net",
    UsesBatchStatistics: "predict depends on which samples are predicted together",
    ShowsHiddenClasses: "gave a task logits of classes that it does not have",
    CountsPredictions: "when it was evaluated in between",
    ForgetsToSave: "its state_dict is not all of its state",
    ForgetsItsPath: "went back to a state within an experience: its state_dict lacks what it accumulates there",
    SavesAnObject: "state_dict that is not tensors and plain values only",
    NeedsAMemory: "raised AssertionError in training with no memory: no memory",
}


@pytest.mark.parametrize("make", BROKEN_LEARNERS, ids=lambda m: m.__name__)
def test_a_broken_learner_is_rejected_with_its_reason(make: Callable[[Setup], Any]) -> None:
    with pytest.raises(CheckFailed, match=BROKEN_LEARNERS[make]):
        check_learner(make)

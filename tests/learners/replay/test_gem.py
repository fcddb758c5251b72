"""GEM and A-GEM: the projections against a QP solver and by hand, the steps against fine-tuning and Avalanche."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qpsolvers
import torch
from torch import Tensor
from torch.nn import functional as F

import clsim
from clsim.compat import import_torchvision, without_warnings
from clsim.errors import InputError
from clsim.learners.replay.gem import a_gem, gem, nearest_agreeing, not_opposing
from clsim.learners.sgd import Sgd
from clsim.streams.stream import Experience
from clsim.training.contract import Setup
from tests.helpers import generator
from tests.increments import Blind
from tests.learners.replay.test_replays import experience, samples, setup_of

GAMMAS = (0.0, 0.5, 1.0)


def problem(seed: int, *, tasks: int = 5, p: int = 40) -> tuple[Tensor, Tensor]:
    """A gradient and references, of which some are opposed; double, so that what differs is the method."""
    rng = generator(seed)
    references = torch.randn(tasks, p, generator=rng, dtype=torch.float64)
    return torch.randn(p, generator=rng, dtype=torch.float64) - 0.3 * references.sum(0), references


@pytest.mark.parametrize("seed", range(8))
def test_gem_agrees_with_a_qp_solver_on_the_nearest_step(seed: int) -> None:
    """The primal min ½‖z − g‖² so that Gz ≥ 0, by another method; the damping is made small enough not to matter."""
    gradient, references = problem(seed)
    assert (references @ gradient < 0).any()
    found = nearest_agreeing(gradient, references, margin=0.0, damping=1e-10)
    expected = qpsolvers.solve_qp(
        np.eye(len(gradient)), -gradient.numpy(), -references.numpy(), np.zeros(len(references)), solver="quadprog"
    )
    assert expected is not None
    assert np.abs(found.numpy() - expected).max() < 1e-7
    assert float((references @ found).min()) > -1e-8
    for other in range(200):  # any other step that opposes nothing is further away
        step = found + 0.1 * torch.randn(len(found), generator=generator(other), dtype=torch.float64)
        if (references @ step >= 0).all():
            assert (step - gradient).norm() > (found - gradient).norm()


@pytest.mark.parametrize("margin", GAMMAS)
@pytest.mark.parametrize("seed", range(4))
def test_gem_solves_the_dual_with_margin_and_damping(seed: int, margin: float) -> None:
    gradient, references = problem(seed, tasks=4)
    quadratic = (references @ references.T).numpy() + 1e-3 * np.eye(4)
    opposed = (references @ gradient).numpy()
    dual = qpsolvers.solve_qp(quadratic, opposed, lb=np.full(4, margin), solver="quadprog")
    assert dual is not None
    found = nearest_agreeing(gradient, references, margin=margin, damping=1e-3)
    assert np.abs(found.numpy() - (gradient.numpy() + dual @ references.numpy())).max() < 1e-7
    # the certificate: what each task may lose is the damping times its own multiplier
    assert ((references @ found).numpy() >= -1e-3 * dual - 1e-9).all()


def test_gem_leaves_a_step_that_opposes_nothing_as_it_is() -> None:
    references = torch.eye(3, 5)
    gradient = torch.tensor([0.0, 1.0, 2.0, -3.0, 4.0])
    for margin in GAMMAS:
        assert nearest_agreeing(gradient, references, margin=margin, damping=1e-3) is gradient


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4, 1e15])
def test_gem_with_repeated_opposite_and_missing_references(scale: float) -> None:
    """Degenerate duals: the same task twice, no gradient at all, lengths of any scale."""
    gradient = scale * torch.tensor([-1.0, 2.0, 0.0])
    references = scale * torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    found = nearest_agreeing(gradient, references, margin=0.0, damping=1e-3 * scale**2)
    assert torch.allclose(found, scale * torch.tensor([0.0, 2.0, 0.0]), atol=2e-3 * scale)
    assert nearest_agreeing(gradient * torch.inf, references, margin=0.0, damping=1e-3).isinf().any()


def test_a_gem_is_its_closed_form() -> None:
    """By hand: g = (−3, 4), r = (2, 0): what opposes r goes. And it is GEM with one task."""
    found = not_opposing(torch.tensor([-3.0, 4.0]), torch.tensor([[2.0, 0.0]]))
    assert found.tolist() == [0.0, 4.0]
    for seed in range(20):
        gradient, references = problem(seed, tasks=1)
        found = not_opposing(gradient, references)
        inner = references[0] @ gradient
        if inner >= 0:
            assert torch.equal(found, gradient)
            continue
        assert abs(float(references[0] @ found)) < 1e-10
        assert torch.allclose(found, gradient - inner / references[0].square().sum() * references[0])
        assert torch.allclose(found, nearest_agreeing(gradient, references, margin=0.0, damping=1e-10))
    nothing = torch.zeros(1, 2)
    assert torch.equal(not_opposing(torch.tensor([-3.0, 4.0]), nothing), torch.tensor([-3.0, 4.0]))


def gradient_of(setup: Setup, x: Tensor, y: Tensor, task: Tensor) -> Tensor:
    parameters = list(setup.net.parameters())
    found = torch.autograd.grad(F.cross_entropy(setup.net(x, task), y), parameters)
    return torch.cat([part.flatten() for part in found])


def weights(setup: Setup) -> Tensor:
    return torch.cat([p.detach().flatten() for p in setup.net.parameters()])


def filled(**memory: Any) -> Setup:
    """Two tasks in memory, of classes 0 and 1; steps on a third, of class 2, oppose them."""
    setup = setup_of(buffer="ring", update="batch", capacity=12, **memory)
    for task in (0, 1):
        setup.memory.after_batch(samples([task] * 6, task=task, seed=task + 1), task + 1, setup.pool)
    return setup


@pytest.mark.parametrize("margin", GAMMAS)
def test_gem_steps_along_the_projection(margin: float) -> None:
    """Every exemplar of every earlier task counts; those of the task at hand do not."""
    setup = filled()
    new = samples([2] * 5, task=2, seed=7)
    setup.memory.after_batch(new[:2], 3, setup.pool)
    learner = gem(setup, margin=margin, damping=1e-6)
    learner.begin(Experience(2, (2,), new))
    for _ in range(20):
        kept = setup.memory.exemplars
        assert kept is not None
        assert kept.task.unique().tolist() == [0, 1, 2]
        gradient = gradient_of(setup, new.x, new.y, new.task)
        references = [
            gradient_of(setup, *(getattr(kept[kept.task == task], name) for name in ("x", "y", "task")))
            for task in (0, 1)
        ]
        before = weights(setup)
        learner.observe(new)
        step = (before - weights(setup)) / 0.1  # plain SGD at rate 0.1
        expected = nearest_agreeing(gradient, torch.stack(references), margin=margin, damping=1e-6)
        assert torch.allclose(step, expected, atol=1e-5)
        assert float((torch.stack(references) @ step).min()) > -1e-4


def test_a_gem_steps_along_the_projection_by_the_batch_that_it_draws() -> None:
    setup, twin = filled(batch_size=4), filled(batch_size=4)
    new = samples([2] * 5, task=2, seed=7)
    learner = a_gem(setup)
    learner.begin(Experience(2, (2,), new))
    opposed = 0
    for _ in range(10):
        drawn = twin.memory.sample(new, twin.pool).exemplars
        assert drawn is not None
        reference = gradient_of(setup, drawn.x, drawn.y, drawn.task)
        gradient, before = gradient_of(setup, new.x, new.y, new.task), weights(setup)
        opposed += bool(gradient @ reference < 0)
        learner.observe(new)
        step = (before - weights(setup)) / 0.1
        assert torch.allclose(step, not_opposing(gradient, reference[None]), atol=1e-5)
    assert opposed


@pytest.mark.parametrize("make", [gem, a_gem], ids=["gem", "a-gem"])
def test_where_nothing_is_opposed_the_step_is_fine_tunings(make: Any) -> None:
    """Bit for bit: without exemplars, and where memory holds nothing but the new samples themselves."""
    new = samples([0, 1, 0, 1], seed=4)
    agreeing = dataclasses.replace(new, task=torch.ones_like(new.task))  # of another task, and of the same gradient
    for memory in (None, agreeing):
        bound, free = setup_of(hidden=(8,), capacity=4, update="batch"), setup_of(hidden=(8,), buffer="none")
        if memory is not None:
            bound.memory.after_batch(memory, 2, bound.pool)
        learner, finetune = make(bound), Sgd(free)
        for each in (learner, finetune):
            each.begin(experience(new))
            for _ in range(5):
                each.observe(new)
        assert torch.equal(weights(bound), weights(free))


@pytest.mark.parametrize("options", [{"margin": -0.1}, {"damping": 0.0}, {"margin": float("nan")}])
def test_gem_refuses_what_its_program_cannot_have(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"gem: found margin .* allowed: margin from 0, damping above 0"):
        gem(setup_of(), **options)


class FixedMemory:
    """What Avalanche's plugins read of a strategy, on a net and a batch of ours."""

    def __init__(self, setup: Setup) -> None:
        self.model = Blind(setup.net)
        self.optimizer = torch.optim.SGD(setup.net.parameters(), lr=0.1)
        self.device = setup.device
        self.clock = type("Clock", (), {"train_exp_counter": 2})()
        self._criterion = F.cross_entropy


def assert_same_steps(ours: Setup, learner: Any, other: Setup, plugin: Any) -> None:
    """A learner moves its net by what Avalanche's plugin moves its own by, on the same new samples."""
    new, strategy, start = samples([2] * 5, task=2, seed=7), FixedMemory(other), weights(ours)
    learner.begin(Experience(2, (2,), new))
    for _ in range(20):
        learner.observe(new)
        plugin.before_training_iteration(strategy)
        strategy.optimizer.zero_grad()
        F.cross_entropy(strategy.model(new.x), new.y).backward()
        plugin.after_backward(strategy)
        strategy.optimizer.step()
    assert float((weights(ours) - start).abs().max()) > 0.05
    assert torch.allclose(weights(ours), weights(other), atol=1e-5)


@pytest.mark.parametrize("margin", GAMMAS)
def test_avalanches_gem_takes_the_same_steps(margin: float) -> None:
    """On the same exemplars: the same program, margin and damping included. They differ in what they store: Avalanche
    the first ``patterns_per_exp`` samples of a shuffled pass, we what the buffer chooses, and in theirs a margin is
    solved for by quadprog."""
    import_torchvision()  # before Avalanche, which imports it too
    with without_warnings():
        from avalanche.training.plugins import GEMPlugin

    ours = filled()
    kept = ours.memory.exemplars
    assert kept is not None
    plugin = GEMPlugin(patterns_per_experience=6, memory_strength=margin)
    for task in (0, 1):
        part = kept[kept.task == task]
        plugin.memory_x[task], plugin.memory_y[task], plugin.memory_tid[task] = part.x, part.y, part.task
    assert_same_steps(ours, gem(ours, margin=margin), filled(), plugin)


def test_avalanches_a_gem_takes_the_same_steps() -> None:
    """With a batch of the whole memory, so that both draw the same. They differ in the draw: Avalanche takes as many
    exemplars of each experience, running through them in turn, we ``memory.batch_size`` of all, at random."""
    import_torchvision()  # before Avalanche, which imports it too
    with without_warnings():
        from avalanche.training.plugins import AGEMPlugin

    ours = filled(batch_size=12)
    kept = ours.memory.exemplars
    assert kept is not None
    assert len(kept) == 12
    plugin = AGEMPlugin(patterns_per_experience=6, sample_size=12)
    plugin.buffers = [None, None]  # type: ignore[list-item]
    plugin.buffer_dliter = iter([(kept.x, kept.y, kept.task)] * 20)
    assert_same_steps(ours, a_gem(ours), filled(), plugin)


@pytest.mark.parametrize("strategy", ["gem", "a-gem"])
def test_it_forgets_less_than_fine_tuning_and_is_no_replay(strategy: str, runs: Path) -> None:
    small: dict[str, Any] = {
        "scenario": "split-digits",
        "settings": ["stream.setting=domain", "data.per_class=60", "memory.batch_size=50"],
        "runs": runs,
    }
    forgetting = {}
    for name, memory in (("finetune", {}), ("er", {"memory": 50}), (strategy, {"memory": 50})):
        records = [clsim.run(strategy=name, seed=seed, **memory, **small) for seed in range(2)]
        forgetting[name] = np.mean([r.metrics["forgetting"] or 0 for r in records])
    assert forgetting[strategy] < forgetting["finetune"] - 0.03
    assert forgetting[strategy] != forgetting["er"]

"""Batches of one size, a learning rate that the device holds, and a step that a GPU can record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import clsim
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.memory.buffer import Buffer
from clsim.models import optimizers
from clsim.pool.exemplars import Exemplars, batch_count, batches
from clsim.pool.pool import Cost
from clsim.selectors.random import random
from clsim.spec.resolve import keeps_memory
from clsim.spec.tables import MemorySpec, OptimizerSpec
from clsim.training.contract import Terms
from tests.helpers import generator, vectors
from tests.memory.test_buffer import make_pool

SETTINGS = ["training.epochs=1", "training.batch_size=64", "stream.experiences=2"]


@pytest.mark.parametrize("n", [7, 20, 21, 23])
def test_dropped_and_padded_batches_have_one_size(n: int) -> None:
    samples = vectors(torch.randn(n, 3, generator=generator(1)), torch.arange(n) % 2)
    short = torch.cat([batch.index for batch in batches(samples, 5, generator(2))])
    for last in ("drop", "pad"):
        found = list(batches(samples, 5, generator(2), last))  # type: ignore[arg-type]
        assert [len(batch) for batch in found] == [5] * batch_count(n, 5, last)  # type: ignore[arg-type]
        together = torch.cat([batch.index for batch in found])
        assert torch.equal(together[:n], short[: len(together)])  # the order that ever was
        if last == "pad":
            weight = torch.cat([batch.weight for batch in found if batch.weight is not None])
            assert torch.equal(weight, (torch.arange(len(together)) < n).float())
            assert torch.equal(together[n:], short[: len(together) - n])
        else:
            assert len(together) == n // 5 * 5


def test_padding_teaches_nothing(tmp_path: Path) -> None:
    """Without batch norm, a step on a padded batch is the step on its own samples."""
    words = [*SETTINGS, "data.per_class=30", "training.batch_size=64"]  # the last batch of 150 samples holds 22
    short, padded = (
        clsim.run("split-digits", "finetune", settings=[*words, f"training.last_batch={last}"], runs=tmp_path)
        for last in ("short", "pad")
    )
    assert padded.data["fingerprint"] != short.data["fingerprint"]
    ends = [torch.tensor(record.data["accuracy"][-1]) for record in (padded, short)]
    torch.testing.assert_close(*ends, atol=0.005, rtol=0)
    assert padded.data["cost"][0]["steps"] == short.data["cost"][0]["steps"] == 3


def test_a_dropped_rest_is_not_learnt(tmp_path: Path) -> None:
    words = [*SETTINGS, "data.per_class=30", "training.last_batch=drop"]
    record = clsim.run("split-digits", "er", buffer="kcenter", settings=words, runs=tmp_path)
    assert [cost["steps"] for cost in record.data["cost"]] == [2, 2]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam", "lars"])
def test_a_rate_held_by_the_device_makes_the_same_steps(name: str) -> None:
    spec = OptimizerSpec(name=name, lr=0.1, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]
    ends = []
    for on_device in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = optimizers.build(spec, net.parameters(), net[2].parameters(), on_device=on_device)
        for step in range(6):
            optimizers.set_rate(optimizer, optimizers.rate(spec, step, 6) / (step + 1))
            net.zero_grad()
            net(torch.randn(5, 4, generator=generator(step))).square().sum().backward()
            optimizer.step()
        assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) == on_device
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["training.capturable=true"],
            "training.capturable: found true with last_batch = 'short', allowed: with 'drop'",
        ),
        (
            ["training.capturable=true", "training.last_batch=drop", "memory.update=batch"],
            "training.capturable: found true with memory.update = 'batch'",
        ),
        (["training.last_batch=pad", "memory.update=batch"], "last_batch: found 'pad' with memory.update = 'batch'"),
        (["training.last_batch=pad", "learner.name=der"], "last_batch: found 'pad' with learner 'der'"),
        (["training.last_batch=half"], "last_batch: found 'half'; allowed"),
    ],
)
def test_what_does_not_go_together_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        clsim.run("split-digits", "er", buffer="random", settings=words, runs=tmp_path)


def test_what_is_drawn_ahead_is_what_would_be_drawn() -> None:
    rows = []
    for ahead in (0, 3):
        memory = Buffer(MemorySpec(buffer="random", capacity=20, batch_size=4), random, rng=generator(3), cost=Cost())
        samples = vectors(torch.randn(40, 3, generator=generator(1)), torch.arange(40) % 4)
        memory.after_experience(samples, 4, make_pool)
        memory.draw_ahead(ahead)
        rows.append(torch.cat([memory.sample(samples[:1], make_pool).rows for _ in range(5)]))
        memory.after_experience(samples, 4, make_pool)
        memory.draw_ahead(ahead)
        memory.after_experience(samples, 4, make_pool)  # forgets them
    assert torch.equal(*rows)


class Waits(TorchDispatchMode):
    """Notes operations that a device has to finish before the processor knows what comes next, or that copy to it."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "bincount")

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        by_value = name == "index_put_" and not args[2].ndim  # x[i] = 1: the 1 is copied from the host
        if name in self.WAITING or by_mask or by_value:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("strategy", ["er", "er-ace", "der", "der++", "ewc", "lwf", "icarl", "ss-il", "bic"])
def test_no_step_waits_for_the_device(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, found, taken = Sgd.on_device, set[str](), list[int]()

    def watched(self: Sgd, new: Exemplars, old: Exemplars | None) -> Terms:
        taken.append(0 if old is None else len(old))
        with Waits(found):
            return step(self, new, old)

    monkeypatch.setattr(Sgd, "on_device", watched)
    words = ["training.epochs=1", "data.per_class=20", "training.last_batch=drop", "training.capturable=true"]
    buffer = "random" if keeps_memory("split-digits", strategy) else None
    clsim.run("split-digits", strategy, buffer=buffer, settings=words, runs=tmp_path)
    assert len(taken) == 20
    assert not found


def test_a_step_that_waits_is_noticed() -> None:
    found = set[str]()
    with Waits(found):
        x = torch.arange(4)
        float(x[1])
        x[x > 1]
        x[x.new_tensor([0])] = 1
    assert found == {"_local_scalar_dense", "index", "index_put_"}

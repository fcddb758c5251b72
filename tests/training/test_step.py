"""Batches of one size, a learning rate that the device holds, and a step that a GPU can record."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import clsim
from clsim.errors import InputError
from clsim.models import optimizers
from clsim.pool.exemplars import batch_count, batches
from clsim.spec.tables import OptimizerSpec
from tests.helpers import generator, vectors

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


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
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

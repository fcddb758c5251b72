"""A memory is filled by the features and logits that the learner's predictions are made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from clsim.checks.hidden_labels import partly_labelled
from clsim.checks.setups import setup_of
from clsim.memory.buffer import Buffer
from clsim.pool.pool import Pool, Selection
from clsim.selectors.random import random
from clsim.spec import registry
from clsim.training import progress
from clsim.training.experience import learn

OWN = [("fixmatch", {"ema": 0.9}), ("hat", {}), ("packnet", {"retrain_epochs": 1}), ("mean-imm", {}), ("sgd", {})]


def filled(name: str, options: dict[str, Any]) -> list[dict[str, Tensor]]:
    """What the selector saw when it filled the memory after each of two experiences, and what the learner says."""
    setup, stream, seen = setup_of(buffered=True), partly_labelled(False), list[dict[str, Tensor]]()

    def spy(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        x, task = pool.data.x, pool.data.task
        with torch.no_grad():
            plain = setup.net.eval().features(setup.transform.plain(x))
        setup.net.train()
        found = {"features": pool.features, "logits": pool.logits, "plain": plain}
        seen.append({**found, "own": learner.features(x, task), "predicted": learner.predict(x, task)})
        part = pool[torch.arange(3)]
        assert torch.equal(part.features, pool.features[:3])
        return random(pool, budget, rng=rng)

    memory = Buffer(setup.spec.memory, spy, rng=setup.randomness.memory, cost=setup.cost)
    setup = dataclasses.replace(setup, memory=memory)
    learner = registry.component("learners", name, options)(setup)
    for position in stream.schedule:
        learn(stream.experience(position), setup, learner, 2 * position + 2, progress.Quiet())
    return seen


@pytest.mark.parametrize(("name", "options"), OWN, ids=[name for name, _ in OWN])
def test_a_selector_sees_what_predictions_are_made_of(name: str, options: dict[str, Any]) -> None:
    first, second = filled(name, options)
    for seen in (first, second):
        torch.testing.assert_close(seen["features"], seen["own"])
        torch.testing.assert_close(seen["logits"], seen["predicted"])
    others = not torch.allclose(second["features"], second["plain"])
    assert others == (name in ("fixmatch", "hat", "packnet"))


def test_a_retrieval_sees_the_net_that_is_trained() -> None:
    setup = setup_of(buffered=True)
    learner = registry.component("learners", "fixmatch", {"ema": 0.9})(setup)
    samples = partly_labelled(False).experience(0).train
    assert setup.pool(samples, incoming=samples).net is setup.net
    assert learner.pool(samples).net is learner.net is not setup.net

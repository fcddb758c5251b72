"""Logistic regression as a net: the probabilities of scikit-learn's own, and committees of bootstraps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clsim.pool.exemplars import Exemplars
from clsim.pool.logistic import LogisticTrainer
from clsim.pool.pool import Pool
from tests.helpers import generator, vectors

CPU = torch.device("cpu")


def samples(classes: int) -> Exemplars:
    """Ten labelled of each class, and sixty without a label, on dimensions of unlike scales; one is constant."""
    rng = np.random.default_rng(classes)
    y = np.concatenate([np.arange(10 * classes) % classes, np.full(60, -1)])
    x = rng.normal(size=(classes + 1, 5))[y] * 2 + rng.normal(size=(len(y), 5))
    x = x * [1, 100, 0.01, 1, 0] + [0, 1000, 0, -3, 7]
    return vectors(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_net_has_the_probabilities_of_the_regression(classes: int) -> None:
    given = samples(classes)
    net = LogisticTrainer(5, classes, generator(), CPU).fit(given)
    scaled = StandardScaler().fit_transform(given.x.double().numpy())
    known = given.y.numpy() >= 0
    theirs = LogisticRegression(max_iter=1000).fit(scaled[known], given.y.numpy()[known]).predict_proba(scaled)
    ours = Pool(given, net, lambda x: x).probabilities.detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert ours.std(0).min() > 0.1  # the labels do say something


def test_features_are_the_vectors_as_given() -> None:
    given = samples(3)
    pool = Pool(given, LogisticTrainer(5, 3, generator(), CPU).fit(given), lambda x: x)
    assert torch.equal(pool.features, given.x)


def test_a_committee_differs_and_knows_every_class_and_is_the_same_again() -> None:
    given = samples(4)
    members = []
    for _ in range(2):
        trainer = LogisticTrainer(5, 4, generator(), CPU)
        pool = Pool(given, trainer.fit(given), lambda x: x, trainer=trainer)
        members.append([member.probabilities for member in pool.committee(3)])
    assert all(torch.equal(a, b) for a, b in zip(*members, strict=True))
    first = members[0]
    assert len({p.numpy().tobytes() for p in first}) == 3
    assert all(set(p.argmax(1).tolist()) == {0, 1, 2, 3} for p in first)

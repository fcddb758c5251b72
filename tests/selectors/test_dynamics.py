"""Training dynamics and the proxies that have them, against counts by hand, autograd and closed forms."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clsim.checks.samples import CLASSES, CPU, SHAPE, body, clusters, exemplars
from clsim.checks.samples import pool_of as small_pool
from clsim.checks.selectors import check_selector
from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Cost, Pool
from clsim.pool.proxy import Trainer
from clsim.pool.scoring import History
from clsim.selectors.dynamics import el2n, forgetting, forgetting_events, grand
from clsim.spec.tables import ProxySpec
from tests.helpers import assert_same, generator, pool_of


def trainer(seed: int = 0, *, dropout: float = 0.2, epochs: int = 3) -> Trainer:
    def fresh(weights: int) -> nets.Net:
        return nets.build(partial(body, dropout=dropout), SHAPE, torch.ones(1, CLASSES, dtype=torch.bool), weights, CPU)

    transform = Transform([0.5], [0.25], ["crop"], device=CPU, channels_last=False)
    spec = ProxySpec(epochs=epochs, batch_size=8)
    return Trainer(spec, fresh, transform, nullcontext, generator(seed), generator(seed + 1), Cost())


# ---- proxies


def test_the_same_seed_trains_the_same_net_and_each_member_is_another() -> None:
    samples = exemplars(*clusters(40, seed=1))
    torch.manual_seed(1)
    one, other = trainer(), trainer(5)
    first, second = one.train(samples), one.train(samples)
    torch.manual_seed(2)  # a run's own state moves no proxy
    again, elsewhere = trainer().train(samples), other.train(samples)
    assert_same(first[0].state_dict(), again[0].state_dict())
    assert_same(vars(first[1]), vars(again[1]))
    for net in (second[0], elsewhere[0]):
        assert not torch.equal(first[0].head.weight, net.head.weight)


def test_training_a_proxy_leaves_torchs_own_generator_alone() -> None:
    state = torch.get_rng_state()
    trainer().train(exemplars(*clusters(20, seed=1)))
    assert torch.equal(state, torch.get_rng_state())


def test_unlabelled_samples_teach_nothing_and_have_no_dynamics() -> None:
    x, y = clusters(40, seed=1)
    hidden = torch.arange(40) % 3 == 0
    changed = x.clone()
    changed[hidden] = 255 - changed[hidden]
    (first, history), (second, _) = (
        trainer().train(exemplars(pixels, y.where(~hidden, -1))) for pixels in (x, changed)
    )
    assert_same(first.state_dict(), second.state_dict())
    assert history.losses[:, hidden].isnan().all()
    assert history.errors[:, hidden].isnan().all()
    assert not history.correct[:, hidden].any()
    assert history.losses[:, ~hidden].isfinite().all()
    untaught, history = trainer().train(exemplars(x, torch.full_like(y, -1)))
    assert history.correct.shape == (3, 40)
    weights, _ = torch.randint(2**62, (2,), generator=generator()).tolist()
    assert_same(untaught.state_dict(), trainer().fresh(weights).state_dict())


def test_a_history_is_what_the_net_says_after_each_epoch() -> None:
    samples = exemplars(*clusters(40, seed=1))
    made = trainer()
    net, history = made.train(samples)
    assert made.cost.proxy_steps == 3 * 5
    assert made.cost.forward_passes == 2 * 3 * 40
    assert history.correct.shape == history.losses.shape == history.errors.shape == (3, 40)
    with nets.evaluating(net), torch.no_grad():
        logits = net(made.transform.plain(samples.x), samples.task)
    torch.testing.assert_close(history.losses[-1], F.cross_entropy(logits, samples.y, reduction="none"))
    assert torch.equal(history.correct[-1], logits.argmax(1) == samples.y)
    error = (logits.softmax(1) - F.one_hot(samples.y, CLASSES)).norm(dim=1)
    torch.testing.assert_close(history.errors[-1], error)
    assert history.losses[-1].mean() < history.losses[0].mean()
    rows = torch.tensor([3, 1])
    assert torch.equal(history[rows].losses, history.losses[:, rows])


# ---- forgetting


def history(*epochs: str) -> History:
    """A row of 0 and 1 an epoch; x: unlabelled."""
    correct = torch.tensor([[c == "1" for c in row] for row in epochs])
    known = torch.tensor([[(3 * i % 7) / 10 if c in "01" else torch.nan for i, c in enumerate(row)] for row in epochs])
    return History(correct, known, known)


def test_forgetting_counts_what_was_right_and_then_wrong() -> None:
    found = forgetting_events(
        history(
            "1010x01",
            "0110x01",
            "1010x01",
            "0011x01",
        )
    )
    assert found.tolist() == [2, 1, 0, 0, -1, torch.inf, 0]


def test_forgetting_keeps_the_never_learnt_first_and_the_unlabelled_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(torch.zeros(7, 2), torch.arange(7))
    monkeypatch.setattr(Pool, "history", property(lambda self: history("1010x01", "0110x01", "1010x01", "0011x01")))
    order = forgetting(pool, 7, rng=generator()).index.tolist()
    assert order[:3] == [5, 0, 1]
    assert order[3:6] == [2, 6, 3]  # never forgotten: losses of 0.6, 0.4 and 0.2
    assert order[6] == 4


def test_forgetting_finds_the_samples_with_contradictory_labels() -> None:
    x, y = clusters(80, seed=1)
    wrong = torch.arange(80) % 10 == 0
    made = trainer(epochs=10)
    samples = exemplars(x, torch.where(wrong, (y + 1) % CLASSES, y))
    pool = Pool(samples, made.fresh(0), made.transform.plain, trainer=made)
    kept = forgetting(pool, 8, rng=generator()).index
    assert wrong[kept].sum() >= 6  # 0.8 by chance


# ---- GraNd and EL2N


def test_grand_is_the_mean_norm_of_the_gradients_that_autograd_finds() -> None:
    pool = small_pool(*clusters(20, seed=1))
    expected = torch.zeros(20)
    for member in pool.committee(3):
        head = member.net.head
        for i in range(20):
            loss = F.cross_entropy(head(member.features[i : i + 1]), pool.data.y[i : i + 1])
            parts = torch.autograd.grad(loss, [head.weight, head.bias])
            expected[i] += torch.cat([p.flatten() for p in parts]).norm() / 3
    assert grand(pool, 20, rng=generator(), nets=3).index.tolist() == expected.argsort(descending=True).tolist()


def test_el2n_is_the_mean_length_of_the_error() -> None:
    pool = small_pool(*clusters(20, seed=1))
    errors = [(m.probabilities - F.one_hot(pool.data.y, CLASSES)).square().sum(1).sqrt() for m in pool.committee(3)]
    expected = torch.stack(errors).mean(0).argsort(descending=True)
    assert torch.equal(el2n(pool, 20, rng=generator(), nets=3).index, expected)
    own = (pool.probabilities - F.one_hot(pool.data.y, CLASSES)).norm(dim=1).argsort(descending=True)
    assert torch.equal(el2n(pool, 20, rng=generator(), nets=0).index, own)
    assert not torch.equal(own, expected)


@pytest.mark.parametrize("select", [grand, el2n])
def test_a_wrong_label_pulls_hard(select) -> None:
    x, y = clusters(80, seed=1)
    wrong: Tensor = torch.arange(80) % 10 == 0
    kept = select(small_pool(x, torch.where(wrong, (y + 1) % CLASSES, y)), 8, rng=generator(), nets=4).index
    assert wrong[kept].sum() >= 6  # 0.8 by chance


@pytest.mark.parametrize("select", [grand, el2n])
def test_applied_to_a_part_the_nets_are_those_of_the_whole(select) -> None:
    pool = small_pool(*clusters(40, seed=1))
    rows = torch.arange(0, 40, 4)
    whole = select(pool, 40, rng=generator(), nets=2).index
    part = rows[select(pool[rows], 10, rng=generator(), nets=2).index]
    assert part.tolist() == [i for i in whole.tolist() if i % 4 == 0]


@pytest.mark.parametrize("select", [partial(grand, nets=2), partial(el2n, nets=2), partial(el2n, nets=0)])
def test_they_keep_the_contract_over_a_whole_pool(select) -> None:
    check_selector(select)


def test_a_negative_number_of_nets_is_refused() -> None:
    with pytest.raises(InputError, match="grand: nets: found -1, allowed: 0 or more"):
        grand(small_pool(*clusters(8, seed=1)), 2, rng=generator(), nets=-1)

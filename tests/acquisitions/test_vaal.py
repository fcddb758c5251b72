"""VAAL: its choice among blobs, broken discriminators, the shapes it rebuilds, its losses, its state."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from clsim.acquisitions import vaal
from clsim.acquisitions.vaal import Vaal, Vae, divergence, drawn
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.training.checkpoint import copied
from tests.helpers import assert_same, generator, vectors
from tests.increments import CPU

SMALL: dict[str, Any] = {"latent": 4, "width": 4, "units": 32, "steps": 100, "batch_size": 32, "rate": 2e-3}
ALIKE, UNLIKE = 80, 40


def net_for(*shape: int) -> nets.Net:
    return nets.build(partial(nets.mlp, hidden=(8,)), shape, torch.ones(1, 4, dtype=torch.bool), 0, CPU)


def blob(n: int, centre: float, seed: int) -> Tensor:
    return torch.randn(n, 6, generator=generator(seed)) + centre * torch.tensor([1.0, -1, 1, -1, 1, -1])


def blobs(net: nets.Net, labelled: Exemplars | None = None) -> Pool:
    """Candidates like what is labelled, then others unlike it, which are fewer."""
    x = torch.cat([blob(ALIKE, 0.0, 1), blob(UNLIKE, 2.0, 2)])
    unknown = torch.full((len(x),), -1)
    return Pool(vectors(x, unknown), net, lambda x: x, labelled=labelled or vectors(blob(60, 0.0, 3), first=1000))


def share_of_others(acquisition: Vaal, pool: Pool, seed: int = 0) -> float:
    """Of the picks, as many as there are candidates unlike what is labelled, the share of those; by chance a third."""
    acquisition.fit(pool, generator(seed))
    picks = acquisition(pool, UNLIKE, rng=generator(seed)).index
    return float((picks >= ALIKE).float().mean())


def test_it_queries_what_is_unlike_the_labelled() -> None:
    net = net_for(6)
    for seed in range(2):
        assert share_of_others(Vaal(net, generator(seed), **SMALL), blobs(net), seed) >= 0.85


def test_the_weights_of_the_code_leave_nothing_of_a_sample_in_its_place() -> None:
    """KL outweighs all else there: the latent means of all samples fall together, and the choice is none."""
    net, spread = net_for(6), {}
    for variant in ("paper", "code"):
        acquisition = Vaal(net, generator(), variant=variant, **{**SMALL, "steps": 60})  # type: ignore[arg-type]
        acquisition.fit(blobs(net), generator())
        with torch.no_grad():
            spread[variant] = float(acquisition.vae.encode(blobs(net).data.x)[0].std(0).max())
    assert spread["code"] < 0.1 < 0.5 < spread["paper"]


class Largest(Vaal):
    """It takes the samples that look labelled."""

    def __call__(self, pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(self.judged(pool).argsort(descending=True, stable=True)[:budget])


def test_a_discriminator_that_never_discriminates_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a re-implementation: both parts are labelled ones to it, and the largest scores are taken."""
    net = net_for(6)
    assert share_of_others(Largest(net, generator(), **SMALL), blobs(net)) < 0.1  # the wrong end alone
    monkeypatch.setattr(vaal, "discrimination", vaal.deception)
    for kind in (Vaal, Largest):
        shares = [share_of_others(kind(net, generator(i), **SMALL), blobs(net), i) for i in range(2)]
        assert min(shares) < 0.85  # what the true one reaches with each seed


def test_nothing_labelled_is_a_random_choice() -> None:
    net = net_for(6)
    pool = Pool(vectors(blob(50, 0.0, 1)), net, lambda x: x)
    acquisition = Vaal(net, generator(), **SMALL)
    acquisition.fit(pool, generator())
    picks = acquisition(pool, 10, rng=generator()).index
    assert torch.equal(picks, pool.data.key.argsort(descending=True)[:10])
    empty = blobs(net)[torch.empty(0, dtype=torch.int64)]
    acquisition.fit(empty, generator())
    assert len(acquisition(empty, 10, rng=generator()).index) == 0


def test_it_reads_neither_labels_nor_the_net() -> None:
    net = net_for(6)
    x = blob(60, 0.0, 3)
    found = []
    for y, weights in ((torch.zeros(60, dtype=torch.int64), 1.0), (torch.arange(60) % 4, -3.0)):
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(weights)
        acquisition = Vaal(net, generator(), **{**SMALL, "steps": 10})
        pool = blobs(net, vectors(x, y, first=1000))
        acquisition.fit(pool, generator(5))
        found.append(acquisition.judged(pool))
        assert pool.cost.forward_passes == 0
    assert torch.equal(*found)


def test_each_round_begins_from_new_weights_and_the_same_draws_give_the_same() -> None:
    net = net_for(6)
    pool, options = blobs(net), {**SMALL, "steps": 5}
    first, second = Vaal(net, generator(0), **options), Vaal(net, generator(9), **options)
    second.fit(pool, generator(1))
    states = []
    for acquisition in (first, second):
        acquisition.fit(pool, generator(2))
        states.append(acquisition.state_dict())
    assert_same(*states)
    first.fit(pool, generator(3))
    assert not torch.equal(first.judged(pool), second.judged(pool))


def test_its_state_is_all_that_its_choice_depends_on() -> None:
    net = net_for(6)
    pool, options = blobs(net), {**SMALL, "steps": 5}
    acquisition, other = Vaal(net, generator(0), **options), Vaal(net, generator(1), **options)
    state = torch.get_rng_state()
    acquisition.fit(pool, generator())
    assert torch.equal(state, torch.get_rng_state())
    other.load_state_dict(copied(acquisition.state_dict()))
    for draw in range(2):
        picks = [a(pool, 20, rng=generator(draw)).index for a in (acquisition, other)]
        assert torch.equal(*picks)
    assert_same(acquisition.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("shape", "inner"),
    [
        *(((1, 8, 8), (4, 4, 4)), ((1, 28, 28), (16, 3, 3)), ((3, 32, 32), (16, 4, 4)), ((3, 64, 64), (32, 4, 4))),
        *(((1, 9, 13), (4, 4, 6)), ((2, 7, 30), (4, 3, 15)), ((1, 4, 4), None), ((10,), None)),
    ],
)
def test_it_fits_inputs_of_any_shape(shape: tuple[int, ...], inner: tuple[int, ...] | None) -> None:
    """A convolution halves an image until its smaller side has at most four pixels; what it rebuilds has its shape."""
    vae, x = Vae(shape, 5, 4), torch.randn(3, *shape, generator=generator())
    mean, log_variance = vae.encode(x)
    assert mean.shape == log_variance.shape == (3, 5)
    assert vae.decode(mean).shape == x.shape
    before = vae.encoder[:-1](x)
    assert before.shape[1:] == (inner or (32,))


def test_it_learns_to_rebuild_images() -> None:
    """Two levels of grey: what is rebuilt after training is nearer than the mean image."""
    net = net_for(1, 8, 8)
    x = torch.randint(0, 2, (64, 1, 1, 1), generator=generator()).float().expand(-1, 1, 8, 8) * 4 - 2
    pool = Pool(vectors(x, torch.full((64,), -1)), net, lambda x: x, labelled=vectors(x[:20], first=100))
    acquisition = Vaal(net, generator(), **{**SMALL, "steps": 60})
    acquisition.fit(pool, generator())
    model = acquisition.vae.eval()
    with torch.no_grad():
        rebuilt = model.decode(model.encode(x)[0])
    assert (rebuilt - x).square().mean() < 0.3 * x.var()


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 7, 3, generator=generator())
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    assert drawn(mean, generator(1)).shape == mean.shape


def test_the_bound_of_paper_and_code() -> None:
    """Two batches of 3 and 3: both means add up; KL of the code grows with the batch."""
    x, rebuilt = torch.randn(2, 6, 4, generator=generator())
    mean, log_variance = torch.randn(2, 6, 5, generator=generator(1))
    squares, kl = (x - rebuilt).square(), divergence(mean, log_variance)
    parts = [slice(3), slice(3, 6)]
    paper = sum((squares[r].sum(1) / 2 + 2.0 * kl[r]).mean() for r in parts)
    code = sum(squares[r].mean() + 2.0 * kl[r].sum() for r in parts)
    for variant, expected in (("paper", paper), ("code", code)):
        acquisition = Vaal(net_for(4), generator(), beta=2.0, variant=variant)  # type: ignore[arg-type]
        torch.testing.assert_close(acquisition.bound_loss(x, rebuilt, mean, log_variance), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "vaal: beta: found -1"),
        ({"steps": 0}, "vaal: steps: found 0, allowed: 1 or more"),
        ({"batch_size": 1}, "vaal: batch_size: found 1, allowed: 2 or more"),
        ({"variant": "papre"}, "vaal: variant: found 'papre'; did you mean 'paper'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vaal(net_for(6), generator(), **options)


def test_a_net_that_does_not_tell_its_shape_is_refused() -> None:
    net = nets.Net(torch.nn.Flatten(), 6, torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"vaal: model\.name: found a net that does not tell .* allowed: "):
        Vaal(net, generator())

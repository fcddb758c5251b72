"""PT4AL: batches against a second implementation, the pretext task on images that can and cannot be turned, kills."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.acquisitions import pt4al
from clsim.acquisitions.pt4al import Pt4al, every, loss_batches
from clsim.checks.samples import CLASSES, clusters, convolutional, exemplars, pool_of
from clsim.errors import InputError
from clsim.models import nets
from clsim.pool.pool import Pool
from clsim.spec.abilities import blind_start
from clsim.spec.resolve import resolve
from tests.acquisitions.test_rounds import Stopping
from tests.helpers import assert_same, generator
from tests.increments import CPU
from tests.killing import assert_same_end
from tests.training.test_label_rounds import numbers

RUN: dict[str, Any] = {"scenario": "split-digits", "strategy": "er", "label": "pt4al", "label_budget": 30}
RUN |= {"label_rounds": 3}
SMALL = [
    *("data.per_class=20", "training.epochs=1", "stream.experiences=2", "evaluation.rows=seen", "memory.capacity=20"),
    *("model.options.hidden=[16]", "labelling.options.epochs=2"),
]


# the batches


@pytest.mark.parametrize("n", [1, 2, 7, 40, 500])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 41])
def test_batches_partition_the_samples_and_their_means_fall(n: int, count: int) -> None:
    losses = torch.rand(n, generator=generator(n)) * 10.0 ** -torch.randint(0, 6, (n,), generator=generator(1))
    found = loss_batches(losses, count)
    sizes = torch.bincount(found, minlength=count)
    assert len(found) == n
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1
    means = [float(losses[found == i].mean()) for i in range(count) if sizes[i]]
    assert means == sorted(means, reverse=True)
    for i in range(1, count):
        if sizes[i] and sizes[i - 1]:
            assert losses[found == i].max() <= losses[found == i - 1].min()


def test_losses_are_sorted_as_numbers() -> None:
    """As strings, 1.9e-05 would come before 1.2, and 9e-06 before all others."""
    losses = torch.tensor([1.2, 1.9e-05, 0.5, 9e-06, 10.0, 2.0])
    assert loss_batches(losses, 3).tolist() == [1, 2, 1, 2, 0, 0]
    as_text = sorted(range(6), key=lambda i: str(float(losses[i])), reverse=True)
    assert as_text != sorted(range(6), key=lambda i: float(losses[i]), reverse=True)


def test_the_first_set_is_that_of_the_published_code_at_its_size() -> None:
    assert torch.equal(every(torch.arange(5000), 1000), torch.arange(0, 5000, 5))
    assert every(torch.arange(3), 5).tolist() == [0, 1, 2]
    assert every(torch.arange(0), 5).tolist() == []
    strides = every(torch.arange(101), 7).diff()
    assert strides.max() - strides.min() <= 1


# the choice


def pool(n: int = 40, *, seed: int = 1, taken: list[int] | None = None, x: Tensor | None = None, **more: Any) -> Pool:
    """Candidates without labels, and of the same experience those that are labelled."""
    clustered, y = clusters(n, seed=seed)
    images = exemplars(clustered if x is None else x, y)
    known = torch.zeros(n, dtype=torch.bool)
    known[taken or []] = True
    beside = images[known.nonzero().flatten()] if taken else None
    data = images[(~known).nonzero().flatten()]
    made = pool_of(images.x, y, model=convolutional, labelled=beside, hidden=True, classes=range(CLASSES), **more)
    made.data = dataclasses.replace(data, y=torch.full_like(data.y, -1))
    return made


def asked(made: Pool, number: int, choices: int, acquisition: Pt4al | None = None, **options: Any) -> Pt4al:
    acquisition = acquisition or Pt4al(made.net, generator(), **{"epochs": 2, **options})
    acquisition.next_choice(number, choices)
    acquisition.fit(made, generator(number))
    return acquisition


def losses_of(acquisition: Pt4al) -> dict[int, float]:
    state = acquisition.state_dict()
    return dict(zip(state["index"].tolist(), state["losses"].tolist(), strict=True))


def by_hand(
    losses: dict[int, float], confidence: dict[int, float], number: int, choices: int, budget: int
) -> list[int]:
    """A second implementation: lists and loops. ``confidence`` has the candidates alone."""
    falling = sorted(losses, key=lambda index: (-losses[index], index))
    parts: list[list[int]] = [[] for _ in range(choices)]
    for position, index in enumerate(falling):
        parts[position * choices // len(falling)].append(index)
    assert sorted(index for part in parts for index in part) == sorted(losses)
    picks: list[int] = []
    near = [number]
    for step in range(1, choices):
        near += [i for i in (number - step, number + step) if 0 <= i < choices]
    for i in near:
        free, left = [index for index in parts[i] if index in confidence], budget - len(picks)
        if number:
            picks += sorted(free, key=lambda index: (confidence[index], index))[:left]
        else:
            picks += [free[k * len(free) // min(left, len(free))] for k in range(min(left, len(free)))]
    return picks


def certain(made: Pool, variant: str = "paper") -> dict[int, float]:
    logits = made.logits if variant == "paper" else F.normalize(made.logits)
    return dict(zip(made.data.index.tolist(), logits.softmax(1).amax(1).tolist(), strict=True))


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize(("choices", "budget"), [(4, 5), (4, 10), (3, 20), (1, 7), (8, 2), (50, 3), (2, 100)])
def test_every_round_is_that_of_a_second_implementation(variant: str, choices: int, budget: int) -> None:
    """Also where a budget exceeds a batch, there is one batch, or there are more batches than samples."""
    taken: list[int] = [3, 17]
    acquisition: Pt4al | None = None
    for number in range(min(choices, 5)):
        made = pool(taken=taken)
        if not len(made):
            break
        acquisition = asked(made, number, choices, acquisition, variant=variant)
        picks = made.data.index[acquisition(made, budget, rng=generator()).index].tolist()
        losses = losses_of(acquisition)
        assert sorted(losses) == list(range(40))  # labelled ones count for the batches
        assert picks == by_hand(losses, certain(made, variant), number, choices, min(budget, len(made)))
        assert not set(picks) & set(taken)
        taken += picks


def test_the_confidence_of_the_code_ranks_otherwise() -> None:
    """Scaled to length 1, logits tell their direction alone."""
    made = pool(sharp=4.0)
    plain, scaled = certain(made), certain(made, "code")
    assert sorted(plain, key=plain.__getitem__) != sorted(scaled, key=scaled.__getitem__)


def test_hidden_classes_have_no_part_in_the_confidence_of_the_code() -> None:
    made = pool(taken=[0, 1, 4])
    made = pool_of(made.data.x, made.data.y, model=convolutional, classes=(0, 1), hidden=True)
    found = asked(made, 1, 2, variant="code").doubts(made)
    shown = F.normalize(made.logits[:, :2]).softmax(1)
    torch.testing.assert_close(found, 1 - shown.amax(1))
    assert float(found.max()) <= 0.5


def test_candidates_that_are_drawn_anew_have_their_losses_by_the_same_net() -> None:
    whole = pool()
    first = whole[torch.arange(0, 20)]
    acquisition = asked(first, 0, 4)
    before = losses_of(acquisition)
    assert sorted(before) == list(range(20))
    weights = acquisition.state_dict()["weights"]
    second = whole[torch.arange(10, 40)]
    asked(second, 1, 4, acquisition)
    found = losses_of(acquisition)
    assert sorted(found) == list(range(40))
    assert {index: found[index] for index in before} == before
    assert_same(weights, acquisition.state_dict()["weights"])
    picks = second.data.index[acquisition(second, 6, rng=generator()).index].tolist()
    assert picks == by_hand(found, certain(second), 1, 4, 6)


def test_each_experience_has_a_pretext_net_of_its_own() -> None:
    made = pool()
    acquisition = asked(made, 0, 2)
    first = acquisition.state_dict()
    asked(made, 1, 2, acquisition)
    assert_same(first["weights"], acquisition.state_dict()["weights"])
    other = pool(seed=5)
    acquisition.next_choice(0, 2)
    acquisition.fit(other, generator(7))
    assert not torch.equal(first["losses"], acquisition.state_dict()["losses"])


def test_the_first_choice_does_not_go_by_the_learner() -> None:
    picks = []
    for sharp in (1.0, -3.0):
        made = pool(sharp=sharp)
        picks.append(asked(made, 0, 4)(made, 5, rng=generator()).index)
    assert torch.equal(*picks)


# the pretext task


def disks_and_slopes(n: int) -> Tensor:
    """Every second image is the same however it is turned; the others are bright at the top and dark below."""
    rng = generator(3)
    level = torch.randint(60, 200, (n, 1, 1, 1), generator=rng)
    slope = torch.linspace(40, -40, 6).view(1, 1, 6, 1).expand(n, 1, 6, 6)
    turned = (torch.arange(n) % 2 == 0).view(-1, 1, 1, 1)
    return torch.where(turned, level.float(), level + slope).clamp(0, 255).to(torch.uint8)


def test_images_that_look_alike_when_turned_are_the_hardest() -> None:
    """Their loss is that of a guess, log 4, and the first batch is theirs; with half of them, chance has 0.5^10."""
    made = pool(x=disks_and_slopes(40))
    acquisition = asked(made, 0, 2, epochs=30)
    losses = losses_of(acquisition)
    same, sloped = ([losses[i] for i in range(start, 40, 2)] for start in (0, 1))
    assert min(same) > math.log(4) - 0.05
    assert max(sloped) < 0.5
    picks = made.data.index[acquisition(made, 10, rng=generator()).index]
    assert (picks % 2 == 0).all()
    asked(made, 1, 2, acquisition)
    picks = made.data.index[acquisition(made, 10, rng=generator()).index]
    assert (picks % 2 == 1).all()


def test_losses_are_those_of_a_loop_over_images_and_turns() -> None:
    made = pool(n=6)
    acquisition = asked(made, 0, 2)
    net = pt4al.pretext_net(made, 0)
    net.load_state_dict(acquisition.state_dict()["weights"])
    net.eval()
    for index, loss in losses_of(acquisition).items():
        terms = []
        for turn in range(4):
            image = torch.rot90(made.inputs(slice(None))[index], turn, (1, 2))[None]
            with torch.no_grad():
                scores = net(image, torch.zeros(1, dtype=torch.int64))[0]
            terms.append(float(scores.logsumexp(0) - scores[turn]))
        assert loss == pytest.approx(sum(terms) / 4, abs=1e-5)


def test_the_pretext_net_has_the_architecture_of_the_run_and_four_classes() -> None:
    made = pool()
    state, own = asked(made, 0, 2).state_dict()["weights"], made.net.state_dict()
    assert state.keys() == own.keys()
    assert state["head.weight"].shape[0] == 4
    assert all(state[name].shape == own[name].shape for name in own if not name.startswith("head"))
    assert not torch.equal(state["body.0.weight"], own["body.0.weight"])


def test_labels_change_nothing_in_the_pretext_losses() -> None:
    made, other = pool(taken=[1, 2]), pool(taken=[1, 2])
    other.data = dataclasses.replace(other.data, y=torch.arange(38) % 3)
    assert_same(asked(made, 0, 2).state_dict(), asked(other, 0, 2).state_dict())


def test_it_counts_what_it_costs() -> None:
    made = pool()
    asked(made, 0, 2, epochs=3, batch_size=16)
    assert made.cost.proxy_steps == 3 * 3
    assert made.cost.forward_passes == 4 * 40 * (3 + 1)
    made = pool()
    asked(made, 0, 2, epochs=3, batch_size=16, steps=20)
    assert made.cost.proxy_steps == 21


def test_layers_that_draw_leave_the_global_generator() -> None:
    state = torch.get_rng_state()
    made = pool()
    first, again = (asked(made, 0, 2).state_dict() for _ in range(2))
    assert_same(first, again)
    assert torch.equal(state, torch.get_rng_state())


# in a run


def checkpoint(record: clsim.RunRecord) -> dict[str, Any]:
    assert record.folder is not None
    return torch.load(record.folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("labels", [0, 2])
def test_a_run_asks_one_batch_a_round_and_begins_without_a_label(tmp_path: Path, labels: int) -> None:
    record = clsim.run(**RUN, labels=labels, runs=tmp_path, settings=SMALL)
    rounds = record.data["labelling"]["rounds"]
    assert [entry["by"] for entry in rounds] == ([*["initial"] * bool(labels), *["pt4al"] * 3]) * 2
    state = checkpoint(record)["acquisition"]
    column = dict(zip(state["index"].tolist(), loss_batches(state["losses"], 3).tolist(), strict=True))
    assert len(column) == 100  # the last experience's, labelled or not
    last = [entry for entry in rounds if entry["experience"] == 1 and entry["by"] == "pt4al"]
    for number, entry in enumerate(last):
        assert {column[row] for row in entry["rows"]} == {number}


@pytest.mark.parametrize("labels", [0, 2])
def test_a_run_that_is_stopped_ends_bit_for_bit_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: int
) -> None:
    """In a round of the learner, and in the middle of the training of the pretext net."""
    given: dict[str, Any] = {**RUN, "labels": labels, "settings": SMALL}
    watch = Stopping()
    whole = clsim.run(**given, runs=tmp_path / "whole", progress=watch)
    losses, calls = pt4al.turn_losses, 0

    def counted(stop: int) -> Callable[[nn.Module, Tensor], Tensor]:
        def passed(net: nn.Module, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return losses(net, x)  # type: ignore[arg-type]

        return passed

    for name, stop in (("pretext 2", 2), ("pretext 5", 5), ("middle", watch.batches // 2), ("end", watch.batches - 1)):
        folder, calls = tmp_path / name, 0
        pretext = name.startswith("pretext")
        monkeypatch.setattr(pt4al, "turn_losses", counted(stop if pretext else 0))
        with pytest.raises(KeyboardInterrupt):
            clsim.run(**given, runs=folder, progress=Stopping(10**9 if pretext else stop))
        monkeypatch.setattr(pt4al, "turn_losses", losses)
        resumed = clsim.run(**given, runs=folder)
        assert numbers(resumed) == numbers(whole)
        assert_same_end(resumed, whole)
        assert_same(checkpoint(resumed)["acquisition"], checkpoint(whole)["acquisition"])


def test_a_run_with_drawn_candidates(tmp_path: Path) -> None:
    record = clsim.run(**RUN, labels=2, runs=tmp_path, settings=[*SMALL, "labelling.candidates=40"])
    rounds = [entry["rows"] for entry in record.data["labelling"]["rounds"]]
    assert len({row for rows in rounds for row in rows}) == 80
    assert 60 < len(checkpoint(record)["acquisition"]["index"]) <= 100


def test_the_name_sets_what_its_code_has_and_nobody_is_warned_of_the_first_choice() -> None:
    spec = resolve("active-digits", "finetune", settings=["labelling.selector=pt4al", "labelling.initial_count=0"])
    assert spec.labelling.start == "warm"
    assert not blind_start(spec)
    other = ["labelling.selector=margin", "labelling.initial_count=0"]
    assert blind_start(resolve("active-digits", "finetune", settings=other))


# what is refused


def test_vectors_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "v.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    watch = Stopping()
    settings = ["data.dataset=npz", f"data.path={tmp_path / 'v.npz'}", "stream.experiences=1", "memory.capacity=9"]
    with pytest.raises(InputError, match=r"pt4al: data.dataset: found vectors of shape 8, allowed: square images"):
        clsim.run(**RUN, labels=2, runs=tmp_path / "runs", settings=settings, progress=watch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "pt4al: epochs: found 0, allowed: 1 or more"),
        ({"steps": -1}, "pt4al: steps: found -1"),
        ({"lr": -1.0}, "pt4al: lr: found -1"),
        ({"batches": -1}, "pt4al: batches: found -1"),
        ({"variant": "both"}, "pt4al: variant: found 'both', allowed: paper, code"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pt4al(pool().net, generator(), **options)


def test_images_that_are_not_square_are_refused() -> None:
    net = nets.build(nets.mlp, (1, 6, 8), torch.ones(1, 2, dtype=torch.bool), 0, CPU)
    with pytest.raises(InputError, match=r"pt4al: data.dataset: found samples of shape 1 × 6 × 8, allowed: square"):
        Pt4al(net, generator())


def test_a_pretext_net_that_diverges_is_said() -> None:
    with pytest.raises(InputError, match=r"pt4al: the pretext net's losses are not finite.*labelling.options.lr"):
        asked(pool(), 0, 2, lr=1e30, epochs=3)


def test_a_choice_before_fit_is_refused() -> None:
    made = pool()
    with pytest.raises(InputError, match="pt4al: found no pretext losses"):
        Pt4al(made.net, generator())(made, 3, rng=generator())

"""Pseudo-label, FixMatch, MixMatch, ReMixMatch, CoMatch, CCIC: their equations, and what unlabelled samples teach."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clsim
from clsim.checks.hidden_labels import check_hidden_labels, partly_labelled
from clsim.checks.learners import snapshot, train_on
from clsim.checks.samples import Model, body
from clsim.checks.setups import setup_of
from clsim.errors import InputError
from clsim.learners.semi import mixing as mixes
from clsim.learners.semi.ccic import Ccic, apart, hardest_triplets
from clsim.learners.semi.comatch import CoMatching, Graph, graph_loss
from clsim.learners.semi.mixing import Anchoring, Mixing, MixUp, mixture, turned
from clsim.learners.semi.pseudolabels import Augmentations, Fixed, PseudoLabels
from clsim.learners.semi.unlabelled import SemiSgd, SemiStep, marginal, ramp, still_norm
from clsim.learners.sgd import Sgd
from clsim.models import nets
from clsim.objectives.guesses import Alignment, beta, confident, one_hot, soft_cross_entropy, squared_error
from clsim.pool.exemplars import Exemplars
from clsim.spec import registry
from clsim.streams.stream import Experience
from clsim.training.contract import Setup, Terms
from tests.helpers import generator

RIVALS = ("pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch", "ccic")


def without_norm(shape: nets.Shape) -> nn.Module:
    """Samples do not see each other."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU())


def made(name: str, model: Model = without_norm, **options: Any) -> tuple[Setup, Any]:
    setup = setup_of(model, buffered=True)
    return setup, registry.component("learners", name, options)(setup)


def second_experience(setup: Setup, learner: Any) -> Experience:
    """The second of two, the first learnt: memory is full."""
    stream = partly_labelled(False)
    train_on(setup, learner, stream.experience(0))
    return stream.experience(1)


def step_of(setup: Setup, progress: float = 1.0) -> SemiStep:
    """Six labelled samples, two of them from memory, and eight unlabelled ones, of the second of two tasks."""
    stream = partly_labelled(False)
    first, second = stream.experience(0), stream.experience(1)
    known = Exemplars(
        *(
            torch.cat([getattr(e.train, name)[:n] for e, n in ((second, 4), (first, 2))])
            for name in ("x", "y", "task", "key", "index")
        )
    )
    assert second.unlabelled is not None
    unlabelled = second.unlabelled[:8]
    return SemiStep(known, 4, unlabelled, setup.net.visible[unlabelled.task], progress)


def logits_of(setup: Setup, x: Tensor, columns: slice) -> Tensor:
    """Raw samples through the net, the columns of one task."""
    return setup.net.head(setup.net.features(setup.transform.plain(x)))[:, columns]


def supervised(setup: Setup, step: SemiStep) -> Tensor:
    """Cross-entropy of each sample within its task, by hand: the mean over labelled ∪ memory."""
    losses = [
        F.cross_entropy(
            logits_of(setup, step.labelled.x[i : i + 1], slice(2 * t, 2 * t + 2)), step.labelled.y[[i]] - 2 * t
        )
        for i, t in enumerate(step.labelled.task.tolist())
    ]
    return torch.stack(losses).mean()


def total(terms: Terms, *names: str) -> Tensor:
    return torch.stack([terms[name] for name in names]).sum()


NEW = slice(2, 4)  # the columns of the second task


# guesses


def test_soft_cross_entropy_is_that_of_labels_and_classes_that_are_not_there_do_no_harm() -> None:
    logits, y = torch.randn(6, 4, generator=generator(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.testing.assert_close(soft_cross_entropy(logits, one_hot(y, 4)), F.cross_entropy(logits, y, reduction="none"))
    q = torch.randn(6, 4, generator=generator(1)).softmax(1)
    torch.testing.assert_close(soft_cross_entropy(logits, q), F.cross_entropy(logits, q, reduction="none"))
    masked = logits.clone().requires_grad_()
    losses = soft_cross_entropy(masked.masked_fill(torch.arange(4) > 1, -torch.inf), one_hot(y % 2, 4))
    torch.testing.assert_close(losses, F.cross_entropy(logits[:, :2], y % 2, reduction="none"))
    losses.sum().backward()
    assert masked.grad is not None
    assert masked.grad.isfinite().all()
    assert soft_cross_entropy(logits, one_hot(torch.full((6,), -1), 4)).abs().sum() == 0


def test_only_confident_guesses_are_labels_and_the_others_count_in_the_mean() -> None:
    guess = torch.tensor([[0.97, 0.03], [0.6, 0.4], [0.05, 0.95], [0.5, 0.5]])
    logits = torch.randn(4, 2, generator=generator(0))
    logs = logits.log_softmax(1)
    torch.testing.assert_close(confident(guess, logits, 0.95), -(logs[0, 0] + logs[2, 1]) / 4)
    soft = -(guess * logs).sum(1)
    torch.testing.assert_close(confident(guess, logits, 0.95, hard=False), (soft[0] + soft[2]) / 4)
    assert float(confident(guess, logits, 1.01)) == 0
    wanted = sum((float(logs[i, j].exp()) - float(guess[i, j])) ** 2 for i in range(4) for j in range(2)) / 8
    assert float(squared_error(guess, logits)) == pytest.approx(wanted)


def test_draws_are_of_the_beta_distribution_and_of_their_generator() -> None:
    drawn = beta(4000, 0.75, generator(3))
    assert scipy.stats.kstest(drawn.double().numpy(), scipy.stats.beta(0.75, 0.75).cdf).pvalue > 0.01
    assert torch.equal(drawn, beta(4000, 0.75, generator(3)))


def test_aligned_guesses_are_as_frequent_as_they_should_be() -> None:
    marginal = torch.tensor([0.5, 0.25, 0.25, 0.0])
    align = Alignment(marginal, 3)
    batches = [torch.randn(5, 4, generator=generator(i)).softmax(1) for i in range(5)]
    for i, q in enumerate(batches):
        mean = torch.stack([b.mean(0) for b in batches[max(0, i - 2) : i + 1]]).mean(0)
        scaled = q * marginal / mean
        torch.testing.assert_close(align(q), scaled / scaled.sum(1, keepdim=True))
    same = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).repeat(4, 1)
    torch.testing.assert_close(Alignment(marginal, 2)(same), marginal.expand(4, 4))


# the equations


def test_pseudo_label_is_what_its_equation_says() -> None:
    setup = setup_of(without_norm, buffered=True)
    loss = PseudoLabels(setup, weak=[], weight=3.0, begin=0.2, end=0.6)
    found = logits_of(setup, step_of(setup).unlabelled.x, NEW)
    own = F.cross_entropy(found, found.argmax(1))
    for progress, alpha in ((0.1, 0.0), (0.4, 1.5), (0.8, 3.0)):
        step = step_of(setup, progress)
        terms, _ = loss(step)
        torch.testing.assert_close(total(terms, "new", "memory"), supervised(setup, step))
        # 4 of the 6 labelled samples are of the experience
        torch.testing.assert_close(terms["unlabelled"], alpha * 4 / 6 * own)


def test_fixmatch_is_what_its_equation_says() -> None:
    setup = setup_of(without_norm, buffered=True)
    step = step_of(setup)
    q = logits_of(setup, step.unlabelled.x, NEW).softmax(1)
    threshold = float(q.max(1).values.median().detach()) + 1e-4
    loss = Fixed(setup, Augmentations([], ["solarize", "cutout"]), threshold=threshold, weight=2.0)
    strong = setup.transform.view(["solarize", "cutout"], "test")(step.unlabelled.x, copy_of(setup.randomness.augment))
    terms, _ = loss(step)
    sure = q.max(1).values >= threshold
    assert 0 < int(sure.sum()) < len(sure)
    losses = F.cross_entropy(setup.net.head(setup.net.features(strong))[:, NEW], q.argmax(1), reduction="none")
    torch.testing.assert_close(terms["unlabelled"], 2 * losses[sure].sum() / len(sure))
    torch.testing.assert_close(total(terms, "new", "memory"), supervised(setup, step))
    # no gradient through the guess: the weak view alone teaches nothing
    gradient = torch.autograd.grad(terms["unlabelled"], setup.net.head.bias)[0][NEW]
    p = setup.net.head(setup.net.features(strong))[:, NEW].softmax(1)
    by_hand = ((p - F.one_hot(q.argmax(1), 2)) * sure[:, None]).sum(0) * 2 / len(sure)
    torch.testing.assert_close(gradient, by_hand)


def copy_of(rng: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(rng.get_state())


def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every λ is 1: each sample stays as it is."""
    monkeypatch.setattr(mixes, "beta", lambda n, alpha, rng: torch.ones(n))


def test_mixmatch_is_what_its_equation_says_where_nothing_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    unmixed(monkeypatch)
    setup = setup_of(without_norm, buffered=True)
    step = step_of(setup, progress=0.25)
    loss = Mixing(setup, MixUp(2, 0.5, 0.75), weak=["solarize"], weight=8.0, growth=0.5)
    view, rng = setup.transform.view(["solarize"], "test"), copy_of(setup.randomness.augment)
    x = view(torch.cat([step.unlabelled.x, step.unlabelled.x]), rng)
    terms, _ = loss(step)
    p = setup.net.head(setup.net.features(x))[:, NEW].softmax(1)
    q = ((p[:8] + p[8:]) / 2) ** 2
    q = (q / q.sum(1, keepdim=True)).repeat(2, 1)
    # half of the growth is over; the mean is over all four classes, of which two are not there
    torch.testing.assert_close(terms["unlabelled"], 4.0 * ((p - q) ** 2).sum() / (16 * 4))
    known = setup.transform.plain(step.labelled.x)
    by_hand = [
        F.cross_entropy(
            setup.net.head(setup.net.features(known[[i]]))[:, 2 * t : 2 * t + 2], step.labelled.y[[i]] - 2 * t
        )
        for i, t in enumerate(step.labelled.task.tolist())
    ]
    torch.testing.assert_close(total(terms, "new", "memory"), torch.stack(by_hand).mean())


def test_samples_and_targets_are_mixed_alike_and_the_sample_itself_weighs_most() -> None:
    setup = setup_of(without_norm, buffered=True)
    y = torch.eye(12)[:, :4] + torch.eye(12)[:, 4:8] + torch.eye(12)[:, 8:]
    task = torch.arange(12) % 2
    one = torch.eye(12)  # as images: what is mixed stands in the row
    x, target, may = mixture(setup, one, y, setup.net.visible[task], 0.75)
    torch.testing.assert_close(x @ y, target)
    assert (x.diagonal() >= 0.5).all()
    torch.testing.assert_close(x.sum(1), torch.ones(12))
    assert ((x > 0).sum(1) <= 2).all()
    assert sorted((x - torch.diag(x.diagonal())).argmax(1).tolist()) != list(range(12))
    both = (x > 0).float() @ setup.net.visible[task].float() > 0
    assert torch.equal(may, both)


def test_remixmatch_is_what_its_equation_says_where_nothing_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    unmixed(monkeypatch)
    setup = setup_of(without_norm, buffered=True)
    step, experience = step_of(setup), partly_labelled(False).experience(1)
    augment = Augmentations([], ["solarize"])
    loss = Anchoring(setup, MixUp(2, 0.5, 0.75), augment, weights=(1.5, 0.5, 0.25), growth=0.0)
    loss.begin(experience)
    rng = copy_of(setup.randomness.augment)
    strong = setup.transform.view(["solarize"], "test")(torch.cat([step.unlabelled.x, step.unlabelled.x]), rng)
    quarter = torch.randint(4, (8,), generator=rng)
    terms, _ = loss(step)
    guess = logits_of(setup, step.unlabelled.x, NEW).softmax(1)
    q = (guess * 0.5 / guess.mean(0)).pow(2)  # T = ½; both classes are equally often labelled
    aligned = guess * 0.5 / guess.mean(0)
    q = (aligned / aligned.sum(1, keepdim=True)) ** 2
    q = q / q.sum(1, keepdim=True)

    def entropy(x: Tensor) -> Tensor:
        return F.cross_entropy(setup.net.head(setup.net.features(x))[:, NEW], q, reduction="none")

    views = torch.cat([entropy(strong[:8]), entropy(strong[8:]), entropy(setup.transform.plain(step.unlabelled.x))])
    torch.testing.assert_close(terms["unlabelled"], 1.5 * views.mean())
    torch.testing.assert_close(terms["unmixed"], 0.5 * entropy(strong[:8]).mean())
    images = torch.stack([torch.rot90(x, int(k), (1, 2)) for x, k in zip(strong[:8], quarter, strict=True)])
    assert torch.equal(turned(strong[:8], quarter), images)
    heads = loss.beside(setup.net.features(images))
    torch.testing.assert_close(terms["rotation"], 0.25 * F.cross_entropy(heads, quarter))


def test_the_graph_of_embeddings_is_held_against_that_of_guesses() -> None:
    q = (3 * torch.randn(6, 3, generator=generator(0))).softmax(1)
    z, other = (F.normalize(torch.randn(6, 5, generator=generator(i))) for i in (1, 2))
    wanted = 0.0
    for b in range(6):
        w_q = [1.0 if j == b else float(q[b] @ q[j]) * (float(q[b] @ q[j]) >= 0.6) for j in range(6)]
        w_z = [math.exp(float(z[b] @ (other[b] if j == b else z[j])) / 0.2) for j in range(6)]
        wanted -= sum(a / sum(w_q) * math.log(c / sum(w_z)) for a, c in zip(w_q, w_z, strict=True)) / 6
    assert any(float(q[i] @ q[j]) >= 0.6 for i in range(6) for j in range(i))
    assert float(graph_loss(q, z, other, 0.2, 0.6)) == pytest.approx(wanted, rel=1e-5)


def test_comatch_smooths_by_the_bank_of_the_steps_before() -> None:
    setup = setup_of(without_norm, buffered=True)
    graph = Graph(smoothing=0.7, temperature=0.2, edge=0.8, batches=1, width=6)
    loss = CoMatching(setup, graph, Augmentations([], []), second=[], threshold=0.0, weight=1.0, contrast=1.0)
    loss.begin(partly_labelled(False).experience(1))
    step = step_of(setup)
    first, _ = loss(step)
    second, _ = loss(step)
    p = logits_of(setup, step.unlabelled.x, NEW).softmax(1)
    p = p * 0.5 / p.mean(0)
    p = torch.cat([torch.zeros(8, 2), p / p.sum(1, keepdim=True)], 1)
    logs = logits_of(setup, step.unlabelled.x, NEW).log_softmax(1)
    torch.testing.assert_close(first["unlabelled"], -(p[:, NEW] * logs).sum(1).mean())  # nothing to smooth by yet
    x = setup.transform.plain(torch.cat([step.labelled.x, step.unlabelled.x]))
    z = F.normalize(loss.beside(setup.net.features(x)))
    near = (z[6:] @ z.T / 0.2).softmax(1) @ torch.cat([F.one_hot(step.labelled.y, 4).float(), p])
    q = 0.7 * p + 0.3 * near
    assert q[:, :2].sum() > 0  # neighbours of the first task, whose classes the second does not have
    q = q[:, NEW] / q[:, NEW].sum(1, keepdim=True)
    torch.testing.assert_close(second["unlabelled"], -(q * logs).sum(1).mean())


def test_triplets_are_the_hardest_and_the_past_is_a_margin_away() -> None:
    h, y = torch.randn(9, 4, generator=generator(0)).requires_grad_(), torch.tensor([0, 1, 2] * 3)
    past = torch.randn(5, 4, generator=generator(1))

    def d(a: Tensor, b: Tensor) -> float:
        return float((a - b).detach().square().sum().sqrt())

    wanted = [
        max(0.0, 1 + max(d(a, h[j]) for j in range(9) if y[j] == c) - min(d(a, h[j]) for j in range(9) if y[j] != c))
        for a, c in zip(h, y, strict=True)
    ]
    loss = hardest_triplets(h, y, 1.0)
    assert float(loss.detach()) == pytest.approx(sum(wanted) / 9, rel=1e-5)
    loss.backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()
    assert float(hardest_triplets(h.detach(), torch.zeros(9), 1.0)) == 0  # a single class: nothing to be told from
    far = [max(0.0, 2 - min(d(a, b) for b in past)) for a in h]
    assert float(apart(h.detach(), past, 2.0)) == pytest.approx(sum(far) / 9, rel=1e-5)


def test_ccic_votes_by_the_nearest_exemplars() -> None:
    setup, learner = made("ccic")
    train_on(setup, learner, second_experience(setup, learner))
    exemplars, test = setup.memory.exemplars, partly_labelled(False).tests
    assert exemplars is not None
    with torch.no_grad():
        support, query = (F.normalize(setup.net.features(setup.transform.plain(s.x))) for s in (exemplars, test))
    scores = learner.predict(test.x, test.task)
    for i in range(0, len(test), 7):
        rows = [j for j in range(len(exemplars)) if setup.net.visible[test.task[i], exemplars.y[j]]]
        near = sorted(rows, key=lambda j: float((query[i] - support[j]).norm()))
        votes = exemplars.y[torch.tensor(near[:3])].bincount(minlength=4)
        shown = scores[i].isfinite()
        assert torch.equal(shown, setup.net.visible[test.task[i]])
        assert torch.equal(scores[i][shown].round().long(), votes[shown])
    assert set(learner.readouts()) == {"linear"}
    assert not torch.equal(learner.readouts()["linear"](test.x, test.task), scores)


# what is learnt from


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("foreign", [False, True])
def test_permuting_hidden_labels_leaves_training_bit_identical(name: str, foreign: bool) -> None:
    check_hidden_labels(registry.component("learners", name), foreign=foreign)


SUPERVISED: dict[str, dict[str, Any]] = {
    "pseudo-label": {"weight": 0.0},
    "fixmatch": {"threshold": 1.01},
    "mixmatch": {"weight": 0.0},
    "remixmatch": {"weight": 0.0, "unmixed": 0.0, "rotation": 0.0},
    "comatch": {"threshold": 1.01, "contrast": 0.0},
    "ccic": {"weight": 0.0, "past": 0.0},
}
"""Options that leave what is learnt from labels."""


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("off", [False, True])
def test_unlabelled_samples_matter_unless_their_terms_are_switched_off(
    name: str, off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if off:
        unmixed(monkeypatch)  # else labelled samples are mixed with unlabelled ones
    ends = []
    for inverted in (False, True):
        setup, learner = made(name, **(SUPERVISED[name] if off else {}))
        for position in (0, 1):
            experience = partly_labelled(False).experience(position)
            assert experience.unlabelled is not None
            x = 255 - experience.unlabelled.x if inverted else experience.unlabelled.x
            other = dataclasses.replace(experience, unlabelled=dataclasses.replace(experience.unlabelled, x=x))
            train_on(setup, learner, other)
        ends.append(snapshot(setup))
    assert torch.allclose(*ends, atol=1e-6) == off


@pytest.mark.parametrize("source", ["own", "stream"])
def test_guesses_are_among_the_classes_that_unlabelled_samples_can_be_of(source: Literal["own", "stream"]) -> None:
    setup = setup_of(without_norm, buffered=True)
    setup.net.visible.fill_(True)  # the task is not known
    labels = dataclasses.replace(setup.spec.labels, unlabelled=source)
    setup = dataclasses.replace(setup, spec=dataclasses.replace(setup.spec, labels=labels))
    learner = registry.component("learners", "fixmatch")(setup, threshold=0.0)
    guessed, taught = [], []
    loss: Callable[[SemiStep], Any] = learner.loss

    class Spy:
        def begin(self, experience: Experience) -> None:
            pass

        def __call__(self, step: SemiStep) -> Any:
            guessed.append(step.guess(torch.zeros(len(step.unlabelled), 4))[0].tolist())
            terms, passed = loss(step)
            # nor do unlabelled samples say that nothing is of another class
            gradient = torch.autograd.grad(terms["unlabelled"], setup.net.head.bias, retain_graph=True)[0]
            taught.append((gradient != 0).tolist())
            return terms, passed

    learner.loss = Spy()
    for position in (0, 1):
        experience = partly_labelled(False).experience(position)
        learner.begin(experience)
        learner.observe(learner.incoming(experience)[:10])
    assert guessed == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5] if source == "own" else [0.25] * 4]
    assert taught == [[True, True, False, False], [False, False, True, True] if source == "own" else [True] * 4]
    shares = marginal(setup, partly_labelled(False).experience(1)).tolist()
    assert shares == ([0, 0, 0.5, 0.5] if source == "own" else [0.25] * 4)


@pytest.mark.parametrize("name", ["pseudo-label", "fixmatch", "mixmatch", "remixmatch", "comatch"])
def test_with_their_terms_switched_off_a_step_is_one_of_experience_replay(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmixed(monkeypatch)
    views = {"weak": [], **({"strong": []} if name in ("fixmatch", "remixmatch", "comatch") else {})}
    views |= {"second": []} if name == "comatch" else {}
    setup, learner = made(name, **SUPERVISED[name], **views)
    experience = second_experience(setup, learner)
    learner.begin(experience)
    other = dataclasses.replace(setup, net=copy.deepcopy(setup.net))
    replay = Sgd(other)
    replay.schedule(1, 1)
    seen: list[SemiStep] = []
    loss: Callable[[SemiStep], Any] = learner.loss

    class Spy:
        def __call__(self, step: SemiStep) -> Any:
            seen.append(step)
            return loss(step)

    learner.loss = Spy()
    learner.observe(learner.incoming(experience)[:10])
    known = seen[0].labelled
    assert seen[0].new == 10
    assert set(known.y[:10].tolist()) == {2, 3}
    assert len(known) > 10
    assert set(known.y[10:].tolist()) == {0, 1}
    replay.step(known[:10], known[10:])
    torch.testing.assert_close(snapshot(setup), snapshot(other))


def test_the_averaged_net_follows_and_predicts_and_survives_a_save() -> None:
    setup, learner = made("fixmatch", body, ema=0.9)
    experience = partly_labelled(False).experience(0)
    learner.begin(experience)
    average = {name: p.detach().clone() for name, p in setup.net.named_parameters()}
    for t in range(12):
        learner.observe(learner.incoming(experience)[:10])
        share = min(0.9, (1 + t) / (10 + t))
        average = {n: share * average[n] + (1 - share) * p.detach() for n, p in setup.net.named_parameters()}
    kept = learner.state_dict()["average"]
    torch.testing.assert_close({name: kept[name] for name in average}, average)
    by_average = learner.predict(experience.train.x, experience.train.task)
    assert not torch.equal(by_average, Sgd(setup).predict(experience.train.x, experience.train.task))
    _, again = made("fixmatch", body, ema=0.9)
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert torch.equal(again.predict(experience.train.x, experience.train.task), by_average)


def test_a_weight_grows_from_its_beginning_to_its_end() -> None:
    assert [ramp(p, 0.2, 0.6) for p in (0.0, 0.2, 0.3, 0.6, 0.9)] == pytest.approx([0, 0, 0.25, 1, 1])
    assert [ramp(p, 0.0, 0.0) for p in (0.0, 0.5)] == [1, 1]
    assert [ramp(p, 0.5, 0.5) for p in (0.4, 0.5)] == [0, 1]


def test_batch_norm_uses_the_batch_and_keeps_still() -> None:
    layer, x = nn.BatchNorm1d(3).train(), torch.randn(8, 3, generator=generator(0)) * 5 + 2
    before = copy.deepcopy(layer.state_dict())
    with still_norm(layer):
        out = layer(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    layer(x)
    assert not torch.equal(before["running_mean"], layer.running_mean)


@pytest.mark.parametrize("name", RIVALS)
def test_batch_norm_is_frozen_after_the_first_experience_where_it_is_asked_for(name: str) -> None:
    for frozen in (True, False):
        setup, learner = made(name, body, freeze_norm=frozen)
        means = []
        for position in (0, 1):
            train_on(setup, learner, partly_labelled(False).experience(position))
            means.append(next(v.clone() for k, v in setup.net.state_dict().items() if k.endswith("running_mean")))
        assert torch.equal(*means) == frozen


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    for name in RIVALS:
        with pytest.raises(InputError, match=f"learner: {name} learns from unlabelled samples, but all of this stream"):
            clsim.run("split-digits", name, runs=tmp_path)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "pseudo-label": ({"begin": 0.7, "end": 0.5}, r"found begin 0\.7 and end 0\.5, allowed: 0 ≤ begin ≤ end ≤ 1"),
        "fixmatch": ({"ema": 1.0}, "fixmatch: allowed: labelled from 0, ema from 0 to below 1"),
        "mixmatch": ({"alpha": 0.0}, r"found views 2, temperature 0\.5, alpha 0; allowed: views from 1"),
        "remixmatch": ({"views": 0}, "option 'views' of remixmatch: found 0, allowed: a whole number from 1"),
        "comatch": ({"batches": 0}, "batches 0, width 64; allowed: smoothing from 0 to 1"),
        "ccic": ({"neighbours": 0}, "neighbours: found 0, allowed: 1 or more"),
    }
    for name, (options, message) in wrong.items():
        with pytest.raises(InputError, match=message):
            made(name, **options)
    _, learner = made("remixmatch")
    experience = partly_labelled(False).experience(0)
    oblong = dataclasses.replace(
        experience, train=dataclasses.replace(experience.train, x=experience.train.x[:, :, :4])
    )
    with pytest.raises(InputError, match=r"rotation: found 0\.5 with samples of shape \(1, 4, 6\), allowed: 0, or squ"):
        learner.begin(oblong)


@pytest.mark.parametrize("name", RIVALS)
def test_a_run_with_any_buffer_ends(name: str, tmp_path: Path) -> None:
    settings = ["data.per_class=30", "training.batch_size=30", "training.epochs=2"]
    buffer = {"ccic": "kcenter", "comatch": "herding"}.get(name, "reservoir")
    record = clsim.run("split-digits", name, buffer=buffer, labels=5, memory=20, settings=settings, runs=tmp_path)
    saved = torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"]["columns"]
    assert len(saved["y"]) == 20
    assert (saved["y"] >= 0).all()


def test_the_learners_are_what_their_names_say() -> None:
    setup = partial(setup_of, without_norm, buffered=True)
    assert all(
        isinstance(registry.component("learners", name)(setup()), Ccic if name == "ccic" else SemiSgd)
        for name in RIVALS
    )

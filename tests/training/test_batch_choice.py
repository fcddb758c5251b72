"""Steps on chosen ones of the candidates: exact counts, the picks, what stays as it was, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clsim
from clsim.checks.samples import CPU, body, clusters, exemplars
from clsim.checks.setups import setup_of
from clsim.data.augmentation import Transform
from clsim.errors import InputError
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Pool, Selection
from clsim.selectors import losses
from clsim.spec import abilities, registry
from clsim.spec.batch import BatchSpec
from clsim.spec.components import COMPONENTS
from clsim.spec.flags import tables_of
from clsim.spec.resolve import resolve
from clsim.spec.tables import TrainingSpec
from clsim.training.batch_choice import BatchChoice
from clsim.training.contract import Setup
from tests.helpers import assert_same
from tests.killing import Killed, Writes, assert_same_end

SMALL = ["data.per_class=17", "stream.first=4", "stream.experiences=3", "training.epochs=2", "evaluation.rows=seen"]
SMALL += ["training.batch_size=4", "irreducible.epochs=2", "model.options.hidden=[16]"]
"""68, 51 and 51 samples: with 16 candidates a step 5, 4 and 4 batches."""


def run(folder: Path, *settings: str, strategy: str = "er", **arguments: Any) -> clsim.RunRecord:
    given = {"batch_share": 0.25, **arguments} if "batch" in arguments else arguments
    return clsim.run("split-digits", strategy, settings=[*SMALL, *settings], runs=folder, **given)


def untimed(record: clsim.RunRecord) -> list[dict[str, Any]]:
    """What the record says of batches, without seconds."""
    found = json.loads(json.dumps(record.data["batches"]))
    for entry in found:
        for part in (entry, entry.get("irreducible", {}), entry.get("curve", {})):
            part.pop("seconds", None)
    return found


@pytest.mark.parametrize("name", ["random", "loss", "gradient-norm", "rho-loss", "margin", "entropy"])
def test_counts_are_exact_and_an_epoch_is_a_pass_over_candidates_for_all(tmp_path: Path, name: str) -> None:
    record = run(tmp_path, batch=name)
    found = record.data["batches"]
    assert [entry["steps"] for entry in found] == [10, 8, 8] == [cost["steps"] for cost in record.data["cost"]]
    assert [entry["candidates"] for entry in found] == [136, 102, 102]
    assert [entry["trained"] for entry in found] == [2 * (4 * 4 + 1), 2 * (3 * 4 + 1), 2 * (3 * 4 + 1)]
    passes = [0, 0, 0] if name == "random" else [136, 102, 102]
    assert [entry["passes"] for entry in found] == passes
    assert [cost["candidate_passes"] for cost in record.data["cost"]] == passes
    assert all(0 <= entry["learnt"] <= 1 for entry in found)


def test_a_last_batch_is_dropped_and_steps_are_counted(tmp_path: Path) -> None:
    dropped = run(tmp_path, "training.last_batch=drop", batch="loss").data["batches"]
    assert [(e["steps"], e["trained"]) for e in dropped] == [(8, 32), (6, 24), (6, 24)]
    fixed = run(tmp_path, "training.steps=7", "optimizer.schedule=cosine", batch="loss").data["batches"]
    assert [(e["steps"], e["trained"]) for e in fixed] == [(7, 25), (7, 25), (7, 25)]
    several = run(tmp_path, "training.passes=3", batch="loss").data
    assert [cost["steps"] for cost in several["cost"]] == [30, 24, 24]
    assert [entry["passes"] for entry in several["batches"]] == [3 * 136, 3 * 102, 3 * 102]


def test_random_draws_anew_in_each_epoch(tmp_path: Path) -> None:
    """By keys that stay, the same quarter would come in each epoch, more or less."""
    found = run(tmp_path, "training.epochs=16", batch="random").data["batches"][0]
    assert found["different"] >= 0.95 * 68


@pytest.mark.parametrize("buffer", ["reservoir", "random"])
def test_the_memory_is_offered_every_candidate_once(tmp_path: Path, buffer: str) -> None:
    """A reservoir of the stream goes by keys: it is the same whoever chooses the batches."""
    kept = []
    for given in ({}, {"batch": "rho-loss"}):
        record = run(tmp_path, buffer=buffer, memory=30, **given)
        assert record.folder is not None
        kept.append(torch.load(record.folder / "checkpoint.pt", weights_only=True)["memory"])
    assert kept[0]["seen"] == kept[1]["seen"] == 170
    assert sorted(kept[0]["columns"]["index"].tolist()) == sorted(kept[1]["columns"]["index"].tolist())


def chooser(name: str = "rho-loss", mode: str = "eval", size: int = 8) -> tuple[Setup, BatchChoice, Exemplars]:
    """A learner with batch norm and augmentation that chooses 8 of 40 candidates with irreducible losses."""
    setup = setup_of(body, buffered=False)
    batch = BatchSpec(name, share=0.2, mode=mode)  # type: ignore[arg-type]
    spec = dataclasses.replace(setup.spec, batch=batch, training=TrainingSpec(batch_size=size))
    augmenting = Transform([0.5], [0.25], ["crop", "flip"], device=CPU, channels_last=False)
    setup = dataclasses.replace(setup, spec=spec, transform=augmenting)
    x, y = clusters(40, seed=5)
    samples = exemplars(x, y)
    samples = dataclasses.replace(samples, task=(y > 1).long())
    setup.columns.put("irreducible", samples, samples.key * 3)
    select = registry.component("batches", name)
    return setup, BatchChoice(setup, Sgd(setup), select), samples


def scored(setup: Setup, samples: Exemplars, augmented: Tensor) -> Tensor:
    """The cross-entropy of augmented samples, in eval mode."""
    net = setup.net.eval()
    with torch.no_grad():
        return torch.nn.functional.cross_entropy(net(augmented, samples.task), samples.y, reduction="none")


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", ["rho-loss", "loss"])
def test_a_step_is_the_plain_step_on_the_best_of_what_was_scored(name: str, mode: str) -> None:
    """By brute force, weights and batch norm's statistics included: the inputs are those that were scored."""
    setup, learner, samples = chooser(name, mode)
    other, _, _ = chooser(name, mode)
    state = setup.randomness.augment.get_state()
    learner.observe(samples)

    other.randomness.augment.set_state(state)
    augmented = other.transform.train(samples.x, other.randomness.augment)
    if mode == "eval":
        score = scored(other, samples, augmented)
    else:
        with torch.no_grad():
            logits = other.net.train()(augmented, samples.task)
        score = torch.nn.functional.cross_entropy(logits, samples.y, reduction="none")
    if name == "rho-loss":
        score = score - 3 * samples.key
    best = score.argsort(descending=True)[:8]
    plain, picks = Sgd(other), samples[best]
    with other.prepared.held(picks.x, augmented[best]):
        plain.step(picks, None)
    assert_same(setup.net.state_dict(), other.net.state_dict())
    tracked = {k: int(v) for k, v in setup.net.state_dict().items() if k.endswith("num_batches_tracked")}
    assert set(tracked.values()) == {1 if mode == "eval" else 2}


def test_scores_are_nought_under_the_irreducible_net_itself() -> None:
    setup, _, samples = chooser()
    pool = Pool(samples, setup.net, setup.transform.plain, columns=setup.columns)
    setup.columns.put("irreducible", samples, pool.losses)
    assert torch.equal(pool.losses - losses.irreducible(pool, "rho-loss"), torch.zeros(40))
    picks = losses.rho_loss(pool, 8, rng=torch.Generator()).index
    assert torch.equal(picks, samples.key.argsort(descending=True)[:8])


def test_samples_without_a_label_or_an_irreducible_loss_come_last() -> None:
    setup, _, samples = chooser()
    fresh = setup_of(body, buffered=False)
    fresh.columns.put("irreducible", samples[:30], torch.zeros(30))
    hidden = dataclasses.replace(samples, y=samples.y.where(torch.arange(40) >= 10, -1))
    pool = Pool(hidden, setup.net, setup.transform.plain, columns=fresh.columns)
    assert set(losses.rho_loss(pool, 20, rng=torch.Generator()).index.tolist()) == {*range(10, 30)}
    assert set(losses.low_irreducible_loss(pool, 30, rng=torch.Generator()).index.tolist()) == {*range(30)}


def noisy(path: Path, share: float = 0.3) -> tuple[str, np.ndarray]:
    """Blobs that a net learns with ease, a share of their training labels wrong; which ones are."""
    rng, truth = np.random.default_rng(0), np.arange(400) % 4
    centres = rng.integers(40, 216, (4, 6, 6))
    x = np.clip(centres[truth] + rng.integers(-60, 60, (400, 6, 6)), 0, 255).astype(np.uint8)
    wrong = rng.random(400) < share
    y = np.where(wrong, (truth + rng.integers(1, 4, 400)) % 4, truth)
    np.savez(path, x_train=x, y_train=y, x_test=x[:100], y_test=truth[:100])
    return str(path), wrong


PICKED: list[Tensor] = []


def watched_rho_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose as rho-loss, and note what.

    Needs: labels; probabilities; irreducible losses.
    """
    found = losses.rho_loss(pool, budget, rng=rng)
    PICKED.append(pool.data.index[found.index])
    return found


def watched_loss(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
    """Choose as loss, and note what."""
    found = losses.loss(pool, budget, rng=rng)
    PICKED.append(pool.data.index[found.index])
    return found


@pytest.mark.parametrize("validation", [0.4, 0.0])
def test_rho_loss_picks_few_wrong_labels_where_loss_picks_many(tmp_path: Path, validation: float) -> None:
    path, wrong = noisy(tmp_path / "noisy.npz")
    shares = []
    for select in (watched_rho_loss, watched_loss):
        PICKED.clear()
        settings = [f"data.path={path}", "data.dataset=npz", "stream.experiences=1", "training.epochs=6"]
        settings += [f"stream.validation={validation}", "irreducible.epochs=30", "irreducible.patience=0"]
        run(tmp_path / "runs", *settings, "stream.first=0", strategy="finetune", batch=select)
        shares.append(wrong[torch.cat(PICKED).numpy()].mean())
    assert shares[0] < 0.22 < wrong.mean() < shares[1]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "steps that are recorded": (
        {"batch": "loss", "settings": ["training.last_batch=drop", "training.capturable=true"]},
        "training.capturable",
    ),
    "padding": ({"batch": "loss", "settings": ["training.last_batch=pad"]}, "training.last_batch: found 'pad'"),
    "unlabelled batches": ({"batch": "loss", "strategy": "fixmatch", "labels": 2}, "unlabelled batches"),
    "training at the end": ({"batch": "loss", "strategy": "gdumb"}, "at the end of an experience alone"),
    "policies": (
        {"batch": "loss", "label": "variable-uncertainty", "label_budget": 9, "settings": ["training.epochs=1"]},
        "labelling.update: found 'batch' with batch.selector 'loss'",
    ),
    "several passes": ({"batch": "bald"}, "found 'bald', which needs several forward passes; allowed: .*rho-loss"),
    "other nets": ({"batch": "per_class(el2n)"}, "found 'el2n', which needs nets that are trained apart"),
    "a reference": ({"batch": "glister"}, "found 'glister', which needs a forward pass of held-out samples"),
    "an acquisition": ({"batch": "vaal"}, "found 'vaal', which needs a state of its own"),
    "a condenser": ({"batch": "dm"}, "found 'dm'"),
    "nobody chooses": ({"batch_share": 0.5}, "batch.share: found 0.5, but nobody chooses the batch"),
    "no share": ({"batch": "loss", "batch_share": 0.0}, "batch.share: found 0, allowed"),
    "nothing is held out": (
        {"batch": "rho-loss", "settings": ["irreducible.source=held-out"]},
        "irreducible.source = 'held-out'",
    ),
    "features of its own": (
        {"batch": "loss", "strategy": "hat", "settings": ["stream.setting=task", "batch.mode=train"]},
        "batch.mode: found 'train'",
    ),
    "a search": (
        {"buffer": "low-irreducible-loss", "controller": "stability-decay"},
        "controller.name: found 'stability-decay' with 'low-irreducible-loss'",
    ),
    "pruning by another loss": ({"batch": "info-batch", "strategy": "der"}, "learner.name: found 'der'"),
    "an unknown name": ({"batch": "rho-los"}, "did you mean 'rho-loss'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_trained(tmp_path: Path, case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as error:
        clsim.run("split-digits", **{"strategy": "er", **given}, runs=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize("strategy", ["der++", "er-ace", "lwf", "ewc", "si", "icarl", "bic", "gem", "hat", "packnet"])
def test_every_learner_from_labelled_batches_takes_the_steps(tmp_path: Path, strategy: str) -> None:
    task = ["stream.setting=task"] if strategy in ("hat", "packnet", "gem", "lwf") else []
    kept = {"memory": 20} if strategy in ("der++", "er-ace", "icarl", "bic", "gem") else {}
    record = run(tmp_path, *task, strategy=strategy, batch="rho-loss", **kept)
    found = record.data["batches"]
    assert [entry["steps"] for entry in found] == [10, 8, 8]
    assert all(entry["learnt"] is not None for entry in found)
    assert all(entry["irreducible"]["nets"] == 2 for entry in found)


def test_one_selector_does_all_three(tmp_path: Path) -> None:
    asked = {"label": "margin", "label_budget": 30, "label_rounds": 2, "labels": 1}
    record = run(tmp_path, "labelling.epoch=labelled", batch="margin", buffer="margin", memory=20, **asked)
    assert record.data["labelling"]["asked"] == [30, 30, 30]
    assert record.data["spec"]["memory"]["buffer"] == "margin" == record.data["spec"]["batch"]["selector"]
    found = record.data["batches"]
    assert [(entry["experience"], entry["round"]) for entry in found] == [(p, n) for p in range(3) for n in range(3)]
    assert [entry["candidates"] for entry in found] == [2 * n for n in (4, 19, 34, 3, 18, 33, 3, 18, 33)]
    for position, cost in enumerate(record.data["cost"]):  # every round is counted there, too
        assert sum(entry["steps"] for entry in found if entry["experience"] == position) == cost["steps"]
    with_net = run(tmp_path, batch="rho-loss", buffer="low-irreducible-loss", memory=20, **asked)
    assert [entry["irreducible"]["source"] for entry in with_net.data["batches"]] == ["halves"] * 9


def test_a_net_of_held_out_samples_is_counted_once_an_experience(tmp_path: Path) -> None:
    asked = {"label": "margin", "label_budget": 20, "label_rounds": 2, "labels": 1}
    record = run(tmp_path, "stream.validation=0.3", batch="rho-loss", memory=20, **asked)
    took = [entry["irreducible"] for entry in record.data["batches"]]
    assert [entry["steps"][0] > 0 for entry in took] == [True, False, False] * 3
    assert [entry["epochs"][0] > 0 for entry in took] == [True, False, False] * 3
    assert took[0]["samples"] == took[2]["samples"]
    assert took[0]["passes"] > took[1]["passes"] > 0  # the scores of what is labelled


KILLED: dict[str, dict[str, Any]] = {
    "halves": {"batch": "rho-loss", "buffer": "low-irreducible-loss", "memory": 20},
    "held out": {"batch": "rho-loss", "memory": 20, "settings": ["stream.validation=0.3", "batch.mode=train"]},
    "memory alone": {"buffer": "low-irreducible-loss", "memory": 20, "settings": ["memory.update=batch"]},
    "labels": {"batch": "rho-loss", "memory": 20, "label": "margin", "label_budget": 12, "label_rounds": 2},
    "labels, held out": {
        **{"batch": "rho-loss", "memory": 20, "label": "margin", "label_budget": 12, "label_rounds": 2},
        "settings": ["stream.validation=0.3", "evaluation.steps=2"],
    },
    "pruning": {"batch": "info-batch", "memory": 20},
    "norm": {"batch": "loss", "settings": ["model.options.norm=batch", "evaluation.steps=3"]},
}


@pytest.mark.parametrize("case", KILLED)
def test_a_run_that_is_killed_at_any_write_ends_as_if_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    given = dict(KILLED[case])
    settings = ["stream.experiences=2", "stream.first=0", "data.per_class=8", *given.pop("settings", [])]
    if given.get("batch") == "info-batch":
        given["batch_share"] = None
    writes = Writes(monkeypatch)
    whole = run(tmp_path / "whole", *settings, **given)
    last = writes.moves
    for limit in range(2, last, 1 if case.startswith("labels") else 2):
        writes.stop_at(limit)
        with pytest.raises(Killed):
            run(tmp_path / f"{limit}", *settings, **given)
        resumed = run(tmp_path / f"{limit}", *settings, **given)
        assert_same_end(resumed, whole)
        assert untimed(resumed) == untimed(whole)
        assert [c["candidate_passes"] for c in resumed.data["cost"]] == [
            c["candidate_passes"] for c in whole.data["cost"]
        ]


@pytest.mark.parametrize("batch", [None, "loss"])
def test_tests_on_the_way_change_no_number(tmp_path: Path, batch: str | None) -> None:
    settings = ["model.options.norm=batch", "model.options.dropout=0.2", 'data.augment=["crop"]']
    chosen = {} if batch is None else {"batch": batch}
    plain, tested = (run(tmp_path, *settings, *more, **chosen) for more in ([], ["evaluation.steps=3"]))
    assert_same_end(tested, plain)
    assert plain.data["fingerprint"] != tested.data["fingerprint"]
    curve = tested.data["batches"][1]["curve"]
    steps = [3, 6, 8] if batch else [*range(3, 26, 3), 26]
    assert curve["steps"] == steps
    assert curve["candidates"][-1] == 102
    assert [len(row) for row in curve["accuracy"]] == [2] * len(steps)
    assert curve["seconds"] == sorted(curve["seconds"])
    assert curve["accuracy"][-1] == tested.data["accuracy"][1][:2]  # er ends with its last step
    tests = [cost["evaluate_passes"] for record in (tested, plain) for cost in record.data["cost"]]
    assert tests[0] > tests[3]


def test_a_spec_without_a_choice_is_as_before() -> None:
    spec = resolve("split-digits", "er")
    assert spec.fingerprint == "dd2980f4ba0ba42f"
    plain = spec.as_dict()
    assert not {"batch", "irreducible"} & set(plain)
    assert "steps" not in plain["evaluation"]
    unread = resolve("split-digits", "er", settings=["irreducible.epochs=3"])  # which no selector reads
    assert unread.fingerprint == spec.fingerprint
    read = [
        resolve("split-digits", "er", flags=tables_of(batch=name), settings=["irreducible.epochs=3"]).as_dict()
        for name in ("loss", "rho-loss")
    ]
    assert ["irreducible" in one for one in read] == [False, True]


def test_a_study_has_an_axis_of_batches(tmp_path: Path) -> None:
    found = clsim.study(
        batch=["random", "loss"],
        scenario="split-digits",
        settings={"data.per_class": 8, "training.epochs": 1, "batch.share": 0.5},
        workers=1,
        runs=tmp_path,
    )
    assert not found.failures
    assert sorted(found.frame()["batch.selector"]) == ["loss", "random"]


FORWARD = {
    *(
        "nothing",
        "labels",
        "the tasks",
        "features",
        "logits",
        "probabilities",
        "gradients",
        "embedding",
        "else features",
    ),
    *("gradients of the last layer", "gradients of the last layer at predicted labels", "labelled samples"),
    *("labelled samples if there are any", "if there are any", "among the candidates or beside them"),
    *("irreducible losses",),
}
"""Needs that one forward pass of the candidates meets."""


def test_what_selectors_need_is_known_to_fit_a_step_or_not() -> None:
    """A need in other words would pass unseen: the words are a closed list."""
    said = {
        (name, part.rstrip("."))
        for name in COMPONENTS["selectors"]
        for what in abilities.needs(name).values()
        for part in what.replace(", ", "; ").split("; ")
    }
    known = FORWARD | {*abilities.BEYOND} | {"query if there is one"}
    assert not {(name, part) for name, part in said if part not in known}
    for name in ("bald", "qbc", "forgetting", "grand", "mir", "flqmi", "glister", "adversarial-bim", "epig"):
        assert not abilities.chooses_batch(registry.canonical(name)), name
    for name in ("rho-loss", "margin", "entropy", "random", "badge", "craig", "kcenter", "class-balanced"):
        assert abilities.chooses_batch(name), name

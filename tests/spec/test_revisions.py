"""Runs whose numbers a revision changes are told from those of before; all others keep their fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

import clsim
from clsim.errors import InputError
from clsim.records.store import Store
from clsim.spec import registry
from clsim.spec.embedding import EmbeddingSpec
from clsim.spec.labelling import LabellingSpec, LabelsSpec
from clsim.spec.resolve import resolve
from clsim.spec.revisions import revisions
from clsim.spec.run import RunSpec
from clsim.spec.tables import LearnerSpec, MemorySpec, StreamSpec


def of(buffer: str = "random", retrieval: str = "random", **stream: object) -> list[str]:
    spec = RunSpec(memory=MemorySpec(buffer=buffer, retrieval=retrieval), stream=StreamSpec(**stream))  # type: ignore[arg-type]
    found = revisions(spec.as_dict())
    assert spec.as_dict().get("revisions", []) == found
    assert len(spec.earlier) == len(found) == len({*spec.earlier, spec.fingerprint}) - 1
    return found


@pytest.mark.parametrize("buffer", ["none", "random", "kcenter", "idc", "acc-dd", "prefilter(craig,kcenter)"])
def test_what_no_revision_concerns_has_none(buffer: str) -> None:
    assert of(buffer) == []


@pytest.mark.parametrize(
    "buffer", ["craig", "gradmatch", "whole(topped_up(craig))", "prefilter(kcenter,craig,3)", "./a.py:b"]
)
def test_weights_are_masses_now(buffer: str) -> None:
    assert of(buffer) == ["mass"]
    assert of(retrieval=buffer) == ["mass"]
    assert of("none", retrieval=buffer) == []


def test_scores_reach_a_selector_that_is_applied_to_each_class() -> None:
    assert of("per_class(ring)") == of("topped_up(per_class(gss))") == ["notes"]
    assert of("per_class(./a.py:b)") == ["mass"]
    assert of("ring") == of("whole(ring)") == []


def test_selectors_that_count_classes_count_the_known_ones() -> None:
    for setting, concerned in (("class", True), ("task", False), ("domain", False)):
        assert of("base", setting=setting) == of("boundary-margin", setting=setting) == ["classes"] * concerned
    assert of("probcover", setting="task") == of(retrieval="prob-cover") == ["classes"]
    assert of("prob-cover", setting="class", experiences=1) == of("base", presentation="joint") == []


@pytest.mark.parametrize(
    ("label", "options", "concerned"),
    [
        ("learning-loss", {}, True),
        ("per_class(probcover)", {}, True),
        ("learning-loss", {"candidates_per_label": 0}, False),
        ("prob-cover", {"clusters": 10}, False),
        ("typiclust", {}, False),
    ],
)
def test_defaults_of_choices_of_labels_that_changed(label: str, options: dict[str, int], concerned: bool) -> None:
    spec = RunSpec(labelling=LabellingSpec(selector=label, options=options, budget=5))
    assert revisions(spec.as_dict()) == ["candidates"] * concerned


@pytest.mark.parametrize(
    ("embedding", "concerned"),
    [
        (EmbeddingSpec(), False),
        (EmbeddingSpec("simclr"), True),
        (EmbeddingSpec("rotation", components=0), False),
        (EmbeddingSpec("./own.npz"), False),
    ],
)
def test_an_embedding_that_is_trained_has_few_components(embedding: EmbeddingSpec, concerned: bool) -> None:
    spec = RunSpec(labelling=LabellingSpec(selector="typiclust", budget=5), embedding=embedding)
    assert revisions(spec.as_dict()) == ["components"] * concerned


@pytest.mark.parametrize("buffer", ["glister", "glister-active", "flqmi", "prefilter(com,kcenter)", "whole(logdetcmi)"])
def test_a_reference_serves_its_own_classes_alone(buffer: str) -> None:
    assert of(buffer, validation=0.2) == ["reference"]
    assert of(buffer) == of("random", retrieval=buffer, validation=0.2) == []
    assert of("grad-match", validation=0.2) == ["mass", "reference"]


def test_fingerprints_from_before_are_what_they_were() -> None:
    """As version 0.1.0 printed them."""
    assert RunSpec(seed=1).fingerprint == "a9172d8ed843c7b7"
    assert resolve("split-digits", "er", flags={"memory": {"buffer": "kcenter"}}).fingerprint == "8e4749693b6a24cb"
    craig = resolve("split-digits", "er", flags={"memory": {"buffer": "craig"}})
    assert craig.earlier == ["a12203ce01cd095b"]
    assert craig.fingerprint not in craig.earlier


def test_a_record_from_before_stays_and_its_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    spec = resolve(
        "split-digits", "er", flags={"memory": {"buffer": "craig", "capacity": 20}}, settings=["training.epochs=1"]
    )
    record = clsim.run("split-digits", "er", buffer="craig", memory=20, settings=["training.epochs=1"], runs=tmp_path)
    assert record.folder is not None
    assert record.folder.name == spec.fingerprint
    old, store = tmp_path / spec.earlier[0], Store(tmp_path)
    record.folder.rename(old)  # as if an earlier version had been stopped in it
    (old / "record.json").unlink()
    refused = pytest.raises(InputError, match=r"checkpoint\.pt: found a checkpoint from before the revision .*--fresh$")
    with refused, store.open(spec):
        pass
    assert (old / "checkpoint.pt").exists()
    with store.open(spec, fresh=True):
        pass
    with store.open(spec):
        pass
    assert not (old / "checkpoint.pt").exists()


def test_learners_with_features_of_their_own_choose_by_them() -> None:
    def learner(name: str, buffer: str = "kcenter", labels: float = 0.0) -> list[str]:
        spec = RunSpec(learner=LearnerSpec(name), memory=MemorySpec(buffer=buffer), labels=LabelsSpec(fraction=labels))
        return revisions(spec.as_dict())

    assert learner("hat") == ["features", "start"]
    assert learner("fixmatch") == learner("packnet") == ["features"]
    assert learner("hat", "random") == ["start"]
    assert learner("packnet", "random") == learner("fixmatch", "reservoir") == learner("sgd") == learner("mas") == []
    assert learner("mean-imm", "none", 0.1) == learner("packnet", "none", 0.1) == ["features", "labels"]
    assert learner("fixmatch", "none", 0.1) == ["labels"]
    assert learner("mean-imm") == []


def test_the_new_task_loss_is_another_where_nothing_is_replayed_and_tasks_are_unknown() -> None:
    for name in ("lwf", "ebll", "lwm", "ewc"):
        for setting in ("class", "task", "domain"):
            spec = RunSpec(learner=LearnerSpec(name), stream=StreamSpec(setting=setting))  # type: ignore[arg-type]
            assert revisions(spec.as_dict()) == ["new-task"] * (setting == "class" and name != "ewc")
    alone, told = resolve("split-digits", "lwf"), resolve("split-digits", "lwf", settings=["learner.options.among=all"])
    assert len(alone.earlier) == 1
    assert told.earlier == resolve("split-digits", "er-lwf").earlier == resolve("split-mnist", "lwf").earlier == []
    assert resolve("split-digits", "lwf", settings=["stream.experiences=1"]).earlier == []


def test_a_path_goes_back_to_the_best_epoch() -> None:
    patient = ["training.patience=3", "stream.validation=0.2"]
    for name in ("si", "rwalk", "ewc"):
        concerned = name != "ewc"
        assert resolve("split-digits", name, settings=patient).as_dict().get("revisions", []) == ["path"] * concerned
        assert resolve("split-digits", name).earlier == []


def test_avalanches_strategies_have_what_the_bridge_now_gives_them() -> None:
    def bridged(*settings: str, strategy: str = "avalanche:Naive") -> bool:
        return "bridge" in revisions(resolve("split-digits", strategy, settings=list(settings)).as_dict())

    assert bridged("optimizer.schedule=cosine")
    assert bridged("optimizer.warmup=0.1")
    assert bridged("optimizer.momentum=0.9")
    assert bridged("training.precision=bf16")
    assert not bridged()
    assert not bridged("optimizer.momentum=0.9", "optimizer.restart=false")
    assert not bridged("optimizer.schedule=cosine", strategy="finetune")


def test_rivals_on_a_partly_labelled_stream_have_equal_steps_and_views_now() -> None:
    for strategy in ("er", "finetune", "nncsl", "fixmatch"):
        spec = resolve("split-fashion-mnist-semi", strategy)
        assert spec.as_dict()["revisions"] == ["labels"]
    assert "revisions" not in resolve("split-fashion-mnist-semi", "er-all-labels").as_dict()


def test_condensers_whose_draws_rate_momentum_or_loops_changed() -> None:
    def concerned(buffer: str, **options: object) -> bool:
        spec = RunSpec(memory=MemorySpec(buffer=buffer, options=options))
        assert revisions(spec.as_dict()) in ([], ["condensers"])
        return bool(revisions(spec.as_dict()))

    assert concerned("dm")
    assert concerned("dm", lr=1.0)  # its augmentation
    assert concerned("dm", augment=[])  # its rate
    assert not concerned("dm", lr=1.0, augment=[])
    for name in ("dc", "dsa"):
        assert concerned(name, steps=10, epochs=5)
        assert not concerned(name, steps=1)
    for name in ("dcc", "dsac"):
        assert concerned(name)
        assert concerned(name, steps=10)
        assert not concerned(name, steps=10, epochs=5)
    assert concerned("condensed(./a.py:b)")  # it may call any of them


def test_lars_and_solarize_draw_and_step_otherwise_now() -> None:
    assert resolve("split-digits", "finetune", settings=["optimizer.name=lars"]).as_dict()["revisions"] == ["lars"]
    solarized = resolve("nncsl-cifar10-small", "er-all-labels").as_dict()
    assert solarized["revisions"] == ["solarize"]
    assert resolve("nncsl-cifar10", "finetune").as_dict()["revisions"] == ["labels", "lars", "solarize"]


def test_balancing_in_a_memory_is_not_random_any_more() -> None:
    assert of("balancing") == of("whole(balancing)") == ["balancing"]
    assert of("balanced-random") == of("none", retrieval="balancing") == []


def test_a_default_is_no_longer_the_start_of_a_search() -> None:
    assert revisions(RunSpec(learner=LearnerSpec("si", {"strength": 400.0})).as_dict()) == []
    assert revisions(RunSpec(learner=LearnerSpec("si")).as_dict()) == ["start"]
    for name, started, plain in (
        ("si", {"strength": 400.0}, {"strength": 1.0}),
        ("hat", {"s_max": 800.0, "c": 2.5}, {"s_max": 400.0, "c": 0.75}),
    ):
        spec = resolve("split-mnist", name, flags={"controller": {"name": "stability-decay"}})
        assert spec.controller.first == started
        assert {option: spec.learner.options[option] for option in plain} == plain


def test_mir_steps_at_the_rate_of_the_learner() -> None:
    def of_mir(*settings: str) -> list[str]:
        return resolve("split-digits", "mir", settings=settings).as_dict().get("revisions", [])

    assert of_mir() == of_mir("optimizer.lr=0.1", "optimizer.schedule=cosine") == ["rate"]
    assert of_mir("optimizer.lr=0.1") == of_mir("memory.retrieval_options.lr=0.05") == []
    assert of_mir("optimizer.lr=0.1", "controller.name=stability-decay") == ["rate"]


def test_joint_training_sees_the_samples_of_every_one_pass_stream_five_times() -> None:
    streams = [n for n in registry.file_names("scenarios") if not n.startswith(("condense-", "coreset-"))]
    training = {n: resolve(n, "finetune").training for n in streams}
    once = [n for n in streams if training[n].epochs == 1 and not training[n].steps]
    assert len(once) == 10
    assert {resolve(n, "joint").training.epochs for n in once} == {5}


def test_predictions_leave_out_what_has_not_been_seen() -> None:
    def of_seen(strategy: str, *settings: str) -> list[str]:
        return resolve("split-digits", strategy, settings=settings).as_dict().get("revisions", [])

    assert of_seen("er-ace") == of_seen("er", "learner.options.among=seen") == ["seen"]
    assert of_seen("der", "learner.options.among=batch") == ["seen"]
    assert of_seen("er") == of_seen("er", "learner.options.among=all") == of_seen("er-ace", "stream.setting=task") == []
    assert resolve("online-cifar100-class", "er").learner.options == {"among": "seen"}

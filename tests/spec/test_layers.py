"""Where each value of a resolved spec comes from, against what was resolved."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from clsim.errors import InputError
from clsim.spec import run
from clsim.spec.flags import leaves, tables_of
from clsim.spec.layers import FLAGS, Value, explained, merged
from clsim.spec.own_code import sources
from clsim.spec.resolve import resolve, resolved

SCENARIOS = ("split-digits", "split-cifar100", "active-mnist", "split-fashion-mnist-semi")
STRATEGIES = ("er", "finetune", "icarl", "mas", "er-ace", "joint", "avalanche:GEM")
WORDS: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({}, ()),
    ({"buffer": "uniform", "memory": "5%"}, ("memory.options.x=1",)),
    ({"buffer": "dm"}, ("data.dataset=mnist", "memory.per=class")),
    ({"buffer": "per_class(kcenter)", "memory": 50}, ()),
    ({"memory": "1%"}, ("memory.batch_size=3",)),
    ({"labels": 5, "label": "k-center", "label_budget": 10, "label_rounds": 2}, ()),
    ({"label": "learning-loss", "label_budget": "5%"}, ("labelling.initial_count=20",)),
    ({"controller": "stability-decay"}, ("optimizer.lr=0.3", "optimizer.lr=0.4")),
    ({"precision": "auto", "device": "cpu"}, ("stream.tasks=easy-first", "model.name=convnet3")),
)


def places(scenario: str, strategy: str, words: dict[str, Any], settings: tuple[str, ...] = ()) -> dict[str, Value]:
    found = resolved(scenario, strategy, flags=tables_of(**words), settings=settings)
    return {value.key: value for value in explained(found.spec, found.layers)}


def test_what_is_explained_is_what_is_resolved() -> None:
    usual = {key: value for key, value in plain(run.RunSpec()).items() if "." in key}
    tried = 0
    for scenario, strategy, (words, settings) in itertools.product(SCENARIOS, STRATEGIES, WORDS):
        try:
            spec = resolve(scenario, strategy, flags=tables_of(**words), settings=settings, seed=3)
        except InputError:
            with pytest.raises(InputError):
                resolved(scenario, strategy, flags=tables_of(**words), settings=settings, seed=3)
            continue
        found = resolved(scenario, strategy, flags=tables_of(**words), settings=settings, seed=3)
        assert found.spec == spec
        values = {value.key: value for value in explained(found.spec, found.layers)}
        assert {key: value.value for key, value in values.items()} == {k: v for k, v in plain(spec).items() if "." in k}
        names = {"scenario": spec.scenario, "strategy": spec.strategy, "seed": 3}
        tables = merged(found.layers)
        assert run.read(tables | names | {"sources": sources(tables)}, "again") == spec
        assert all(value.value == usual[key] for key, value in values.items() if not value.given)
        by_origin: dict[str, dict[str, Any]] = {}
        for layer in found.layers:
            by_origin.setdefault(layer.origin, {}).update(leaves(layer.tables))
        for key, value in values.items():
            if value.given:
                told = [by_origin[origin][key] for origin in (value.origin, FLAGS) if key in by_origin.get(origin, {})]
                assert json.loads(json.dumps(value.value)) in json.loads(json.dumps(told)), (key, value)
        tried += 1
    assert tried > 150


def plain(spec: run.RunSpec) -> dict[str, Any]:
    return leaves(json.loads(json.dumps(dataclasses.asdict(spec))))


@pytest.mark.parametrize(
    ("words", "settings", "key", "origin", "over"),
    [
        ({}, (), "optimizer.lr", "scenario mine", None),
        ({}, (), "memory.batch_size", "strategy own", (2, "scenario mine")),
        ({}, (), "memory.capacity", "strategy own [on.mine]", (2, "strategy own")),
        ({}, (), "training.epochs", "default", None),
        ({"memory": 9}, (), "memory.capacity", "--memory", (3, "strategy own [on.mine]")),
        ({"memory": "9%"}, (), "memory.fraction", "--memory", None),
        ({"memory": "9%"}, (), "memory.capacity", "default, as the command line sets it otherwise", (3, "own")),
        ({"memory": 9}, ("memory.capacity=8",), "memory.capacity", "--set", (9, "--memory")),
        ({"buffer": "reservoir"}, (), "memory.update", "implied by buffer reservoir", None),
        ({"buffer": "reservoir"}, ("memory.update=experience",), "memory.update", "--set", ("batch", "implied by")),
        ({"buffer": "kcenter"}, (), "memory.buffer", "--buffer", ("random", "strategy own")),
        ({"label": "learning-loss", "label_budget": 5}, (), "labelling.start", "implied by label learning-loss", None),
        ({"label": "badge", "label_budget": "5%"}, (), "labelling.fraction", "--label-budget", None),
        ({"controller": "stability-decay"}, (), "stream.validation", "implied by controller stability-decay", None),
        ({"labels": "5%"}, (), "labels.fraction", "--labels", None),
        ({"device": "cpu"}, (), "training.device", "--device", None),
        ({}, ("stream.tasks=easy-first",), "stream.difficulty", "the joint run that it needs first", None),
    ],
)
def test_each_value_names_its_place(
    words: dict[str, Any],
    settings: tuple[str, ...],
    key: str,
    origin: str,
    over: tuple[Any, str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scenarios").mkdir()
    Path("scenarios", "mine.toml").write_text("[optimizer]\nlr = 0.1\n[memory]\nbatch_size = 2")
    Path("strategies").mkdir()
    text = "[memory]\nbuffer = 'random'\nbatch_size = 3\ncapacity = 2\n[on.mine.memory]\ncapacity = 3"
    Path("strategies", "own.toml").write_text(text)
    found = places("mine", "own", words, settings)[key]
    assert found.origin == origin
    assert found.given == (not origin.startswith("default"))
    assert (found.over is None) == (over is None)
    if over is not None and found.over is not None:
        assert found.over[0] == over[0]
        assert over[1] in found.over[1]


def test_what_does_not_hold_for_another_buffer_has_no_place() -> None:
    found = places("split-digits", "er", {"buffer": "kcenter"})
    assert found["memory.update"].origin == "default"
    assert places("split-digits", "er", {})["memory.update"].origin == "implied by buffer reservoir"


def test_auto_is_settled_by_the_machine() -> None:
    found = places("split-digits", "er", {"precision": "auto", "device": "cpu"})["training.precision"]
    assert found.value in ("fp32", "bf16")
    assert (found.origin, found.over) == ("this machine", ("auto", "--precision"))

"""Specs and names: whatever is mistyped is refused where it stands; whatever is right becomes one fingerprint."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import pytest

from clsim.errors import InputError
from clsim.execution import given
from clsim.selectors.combinators import per_class
from clsim.selectors.herding import herding
from clsim.selectors.kcenter import k_center
from clsim.spec import components, described, registry, run
from clsim.spec.labelling import LabellingSpec
from clsim.spec.reader import merge
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import StreamSpec

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"memry": {}}, r"memry: unknown key; did you mean 'memory'\?"),
    ({"memory": {"capacty": 5}}, r"\[memory\] capacty: unknown key; did you mean 'capacity'\?"),
    ({"memory": {"capacity": "5"}}, r"\[memory\] capacity: found '5', allowed: a whole number"),
    ({"memory": {"capacity": 5.0}}, r"\[memory\] capacity: found 5.0, allowed: a whole number"),
    ({"memory": {"capacity": True}}, r"\[memory\] capacity: found True, allowed: a whole number"),
    ({"memory": {"capacity": 0}}, r"memory\.capacity: found 0, allowed: 1 or more"),
    ({"memory": {"capacity": -3}}, r"memory\.capacity: found -3, allowed: 1 or more"),
    ({"memory": 5}, r"memory: found 5, allowed: a table"),
    ({"memory": {"options": {"metric": {"a": 1}}}}, r"\[memory\] options\.metric: found .* allowed: a number, text"),
    ({"memory": {"options": {"x": float("nan")}}}, r"\[memory\] options\.x: found nan"),
    ({"stream": {"setting": "tasks"}}, r"\[stream\] setting: found 'tasks'; did you mean 'task'\?"),
    ({"stream": {"validation": 1.0}}, r"stream\.validation: found 1\.0, allowed: a share"),
    ({"stream": {"kind": "permuted"}}, r"stream\.setting: found 'task' with kind 'permuted'"),
    ({"optimizer": {"lr": 0}}, r"optimizer\.lr: found 0\.0, allowed: a finite number above 0"),
    ({"optimizer": {"lr": float("inf")}}, r"\[optimizer\] lr: found inf, allowed: a finite number"),
    (
        {"optimizer": {"lr": 1e-320}},
        r"\[optimizer\] lr: found 1e-320, allowed: 0, or a number of at least 2.23e-308 in size",
    ),
    (
        {"evaluation": {"batch_size": 2**63}},
        r"\[evaluation\] batch_size: found 9\d{18}, allowed: a whole number of 64",
    ),
    ({"optimizer": {"lr": 10**400}}, r"\[optimizer\] lr: found 10+, allowed: a whole number of 64 bits"),
    (
        {"memory": {"options": {"x": -(2**64)}}},
        r"\[memory\] options\.x: found -\d+, allowed: a whole number of 64",
    ),
    ({"optimizer": {"lr": 1e308}}, r"\[optimizer\] lr: found 1e\+308, allowed: at most 3\.4e\+38 in size"),
    ({"memory": {"options": {"x": [1e-310]}}}, r"\[memory\] options\.x: found 1e-310, allowed: 0, or a number"),
    ({"optimizer": {"nesterov": True}}, r"optimizer\.nesterov: found true with momentum 0"),
    ({"optimizer": {"milestones": 0.5}}, r"\[optimizer\] milestones: found 0\.5, allowed: a list, each a finite"),
    ({"data": {"augment": ["crop", 3]}}, r"\[data\] augment\[1\]: found 3, allowed: text"),
    ({"training": {"epochs": 0}}, r"training\.epochs: found 0, allowed: 1 or more"),
    ({"seed": -1}, r"seed: found -1"),
]


@pytest.mark.parametrize(("tables", "message"), REFUSED)
def test_what_is_mistyped_is_refused_where_it_stands(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^my\.toml: {message}") as caught:
        run.read(tables, "my.toml")
    assert "\n" not in str(caught.value)


def test_a_spec_survives_its_own_dictionary() -> None:
    spec = resolve("split-cifar100", "er", settings=["optimizer.milestones=[0.5, 0.9]", "model.options.width=3"])
    assert run.read(spec.as_dict(), "again") == spec
    assert run.read(spec.as_dict(), "again").fingerprint == spec.fingerprint


def test_every_value_of_a_spec_is_in_the_fingerprint() -> None:
    base = RunSpec(stream=StreamSpec(validation=0.2))  # without which nothing may go by it
    asking = dataclasses.replace(base, labelling=LabellingSpec("random", budget=10))
    seen = {base.fingerprint, asking.fingerprint}
    for name, kind in run.TABLES.items():
        base = asking if name in ("labelling", "labels") else dataclasses.replace(asking, labelling=LabellingSpec())
        for field in dataclasses.fields(kind):
            value = getattr(getattr(base, name), field.name)
            changed = object.__new__(kind)  # without the limits: any other value will do
            other = f"{value} other" if isinstance(value, str) else [value, "other"]
            changed.__dict__.update(vars(getattr(base, name)) | {field.name: other})
            seen.add(dataclasses.replace(base, **{name: changed}).fingerprint)
    seen |= {dataclasses.replace(base, **change).fingerprint for change in ({"seed": 1}, {"scenario": "x"})}
    fields = sum(len(dataclasses.fields(kind)) for kind in run.TABLES.values())
    assert len(seen) == 4 + fields - 1  # ``training.together`` without seeds to be together with says nothing


def test_every_shipped_scenario_goes_with_every_strategy() -> None:
    offenders = []
    for scenario, strategy in itertools.product(registry.file_names("scenarios"), registry.file_names("strategies")):
        try:
            spec = resolve(scenario, strategy)
        except Exception as error:
            offenders.append(f"{scenario} with {strategy}: {error}")
        else:
            if (spec.scenario, spec.strategy) != (scenario, strategy):
                offenders.append(f"{scenario} with {strategy}: became {spec.scenario} with {spec.strategy}")
    assert not offenders


def test_every_component_is_found() -> None:
    every = [(kind, name) for kind in components.COMPONENTS for name in described.names(kind)]
    assert not [found for found in every if not callable(registry.component(*found))]


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_later_layers_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    write(
        tmp_path / "scenarios" / "mine.toml",
        "title = 'x'\n[optimizer]\nlr = 0.1\n[memory]\nbatch_size = 2\ncapacity = 1",
    )
    strategy = write(
        tmp_path / "own.toml",
        "[memory]\nbuffer = 'random'\nbatch_size = 3\ncapacity = 2\n[on.mine.memory]\nbatch_size = 4\ncapacity = 3",
    )
    spec = resolve("mine", strategy, flags={"memory": {"capacity": 4}}, settings=["memory.capacity=5", "data.size=16"])
    assert (spec.optimizer.lr, spec.memory.batch_size, spec.memory.capacity, spec.data.size) == (0.1, 4, 5, 16)
    assert resolve("split-digits", strategy).memory.batch_size == 3


def test_the_working_directory_hides_a_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenarios").mkdir()
    write(tmp_path / "scenarios" / "split-digits.toml", "[stream]\nexperiences = 2")
    assert resolve("split-digits", "er").stream.experiences == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[memory\n", r"own\.toml: .*line 1"),
        ("[memory]\ncapacty = 3", r"own\.toml: \[memory\] capacty: unknown key; did you mean 'capacity'"),
        ("title = 3", r"own\.toml: title: allowed: text"),
        (
            "[on.split-digit.memory]\ncapacity = 3",
            r"\[on\.split-digit\]: unknown scenario; did you mean 'split-digits'",
        ),
        ("[on.split-digits.memry]\ncapacity = 3", r"\[on\.split-digits\]: memry: unknown key"),
        ("on = 3", r"on: found 3, allowed: tables"),
        ("\x00", r"own\.toml: "),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve("split-digits", write(tmp_path / "own.toml", text))


@pytest.mark.parametrize("text", ["memory", "memory=3", "=3", "capacity=3"])
def test_a_setting_is_table_key_value(text: str) -> None:
    with pytest.raises(InputError, match=r"^--set: found .*allowed: table\.key=value"):
        resolve("split-digits", "er", settings=[text])


def test_options_of_one_model_do_not_pass_to_another() -> None:
    assert resolve("split-digits", "er").model.options == {"hidden": [100]}
    assert resolve("split-digits", "er", settings=["model.name=convnet3"]).model.options == {}
    assert resolve("split-digits", "er", settings=["model.name=mlp"]).model.options == {"hidden": [100]}


def test_merging_leaves_the_layers_as_they_were() -> None:
    first = {"memory": {"options": {"a": 1}}}
    merge(first, {"memory": {"options": {"b": 2}}})["memory"]["options"].clear()
    merge(first)["memory"].clear()
    assert first == {"memory": {"options": {"a": 1}}}


def test_a_strategy_without_a_memory_takes_no_buffer() -> None:
    with pytest.raises(InputError, match="strategy 'finetune' keeps no memory"):
        resolve("split-digits", "finetune", flags={"memory": {"buffer": "random"}})


def test_a_reservoir_is_updated_with_every_batch_and_others_after_the_experience() -> None:
    assert resolve("split-digits", "er").memory.update == "batch"
    assert resolve("split-digits", "er", flags={"memory": {"buffer": "kcenter"}}).memory.update == "experience"
    assert resolve("split-digits", "er", settings=["memory.update=experience"]).memory.update == "experience"


SELECTOR = """import clsim
def pick(pool, budget, *, rng, power=1):
    return clsim.Selection(pool.data.key.topk(budget).indices)
"""


def test_an_edited_selector_is_another_run(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.py", SELECTOR)
    flags = {"memory": {"buffer": f"per_class({file}:pick)"}}
    before = resolve("split-digits", "er", flags=flags).fingerprint
    assert resolve("split-digits", "er", flags=flags).fingerprint == before
    write(tmp_path / "mine.py", SELECTOR + "# changed\n")
    assert resolve("split-digits", "er", flags=flags).fingerprint != before


def test_a_component_is_found_by_file_module_and_combinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine_for_test.py", SELECTOR)
    for name in (
        "./mine_for_test.py:pick",
        "mine_for_test:pick",
        "per_class(./mine_for_test.py:pick)",
        "per_class(kcenter)",
    ):
        assert callable(registry.component("buffers", name))
    assert registry.component("buffers", "./mine_for_test.py:pick", {"power": 2}).keywords == {"power": 2}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kcentre", {}, r"unknown name 'kcentre'; did you mean 'kcenter'\?"),
        ("./none.py:pick", {}, "no such file"),
        ("./mine.py:pck", {}, r"has no 'pck'; did you mean 'pick'\?"),
        ("./broken.py:pick", {}, "cannot import './broken.py'"),
        ("clsim.selectors.nothing:f", {}, "cannot import"),
        ("per_clas(kcenter)", {}, r"unknown combinator 'per_clas'; did you mean 'per_class'\?"),
        ("clsim.spec.registry:FILES", {}, "is a tuple, allowed: a function or a class"),
        ("./mine.py:pick", {"powr": 2}, r"unknown option 'powr'.*did you mean 'power'\?"),
        ("./mine.py:pick", {"rng": 2}, "unknown option 'rng'"),
        ("kcenter", {"metrik": "cosine"}, r"unknown option 'metrik'.*did you mean 'metric'\?"),
    ],
)
def test_a_component_that_is_not_there_is_refused(
    name: str, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.py", SELECTOR)
    write(tmp_path / "broken.py", "def pick(:")
    with pytest.raises(InputError, match=message) as caught:
        registry.component("buffers", name, options, "[memory.options]")
    assert "\n" not in str(caught.value)


def test_what_a_selector_has_bound_tells_it_from_another() -> None:
    texts = [
        given.source_of(s)
        for s in (
            k_center,
            functools.partial(k_center, metric="cosine"),
            functools.partial(k_center, metric="euclidean"),
            per_class(k_center),
            per_class(herding),
            per_class(per_class(herding)),
        )
    ]
    assert len(set(texts)) == 6
    assert given.source_of(per_class(k_center)) == texts[3]
    with pytest.raises(InputError, match="cannot be read"):
        given.source_of(len)


def test_an_installed_package_publishes_selectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_for_test.py").write_text(SELECTOR)
    (tmp_path / "lab-1.0.dist-info").mkdir()
    (tmp_path / "lab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (tmp_path / "lab-1.0.dist-info" / "entry_points.txt").write_text(
        "[clsim.selectors]\nlab-pick = lab_for_test:pick\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert callable(registry.component("buffers", "lab-pick"))
    assert "lab-pick" in described.names("buffers")

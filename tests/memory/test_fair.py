"""The size of a memory means one thing, whichever strategy fills it."""

from __future__ import annotations

import itertools

import pytest

from clsim.errors import InputError
from clsim.spec import registry
from clsim.spec.resolve import keeps_memory, resolve
from clsim.spec.run import RunSpec
from clsim.spec.tables import MemorySpec

SHIPPED = registry.file_names("scenarios")
SAMPLES = 10_000


def total(spec: RunSpec) -> tuple[str, int]:
    """What counts a memory's size, and how many exemplars it may hold at the end of a stream of ten classes a task."""
    tasks = spec.stream.experiences
    counted = {"total": 1, "class": 10 * tasks, "task": tasks}[spec.memory.counted]
    return spec.memory.per, spec.memory.most(counted, SAMPLES, tasks)


@pytest.mark.parametrize("scenario", SHIPPED)
def test_all_strategies_have_as_large_a_memory_on_a_scenario(scenario: str) -> None:
    """As shipped, and with --memory: the scenario alone says what is usual. There are no exceptions."""
    for flags in ({}, {"memory": {"capacity": 400}}, {"memory": {"fraction": 0.02}}):
        found = {
            strategy: total(resolve(scenario, strategy, flags=flags))
            for strategy in registry.file_names("strategies")
            if keeps_memory(scenario, strategy)
        }
        assert len(found) > 10
        assert len(set(found.values())) == 1, found


def test_a_strategy_names_no_size_of_its_own() -> None:
    for name, key in itertools.product(registry.file_names("strategies"), ("capacity", "per", "fraction")):
        tables = registry.read_toml(registry.find_file("strategies", name))
        assert key not in tables.get("memory", {}), name
        assert all(key not in exception.get("memory", {}) for exception in tables.get("on", {}).values()), name


def test_a_number_is_that_of_all_tasks() -> None:
    for scenario, tasks in (("split-cifar100", 20), ("split-cifar100-10x10", 10), ("split-digits", 5)):
        spec = resolve(scenario, "gem", flags={"memory": {"capacity": 500}})
        sizes = [spec.memory.most(i, 0, spec.stream.experiences) for i in range(1, tasks + 1)]
        assert sizes == [500 * i // tasks for i in range(1, tasks + 1)]
        assert sizes[-1] == 500
        assert spec.memory.size == "500"


def test_the_online_anchor_keeps_its_memory_and_its_rivals_have_it_too() -> None:
    spec = resolve("online-cifar100-class", "er")
    assert (spec.memory.buffer, spec.memory.update, spec.memory.capacity) == ("class-balanced", "batch", 2000)
    assert resolve("online-cifar100-class", "mir").memory.capacity == 2000


def test_fewer_exemplars_than_tasks_are_refused_where_each_has_its_part() -> None:
    with pytest.raises(InputError, match=r"memory\.capacity: found 19 with reserve = 'task' and 20 tasks, allowed: 20"):
        resolve("split-cifar100", "r-pm", flags={"memory": {"capacity": 19}})
    resolve("split-cifar100", "r-fm", flags={"memory": {"capacity": 19}})


def test_a_reserve_that_is_not_set_makes_no_other_run() -> None:
    assert "reserve" not in RunSpec(memory=MemorySpec(buffer="random")).as_dict()["memory"]

"""Options of components: flat names in a spec, groups in a signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest

from clsim.condensers.gradient_matching import Matching, dsa
from clsim.condensers.synthesis import Making
from clsim.errors import InputError
from clsim.learners.semi.paws import Views, nncsl
from clsim.pool.contracts import factor_of, from_samples
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.options import bind, groups_of, options_of
from clsim.spec.resolve import resolve
from clsim.training.stability_decay import stability

EVERY = [(kind, name) for kind, names in COMPONENTS.items() for name in names]

FLAT = {
    "dm": "iterations lr momentum real start augment clip model",
    "dc": "iterations lr momentum real steps epochs net_lr start early_nets early_epochs perturb clip model",
    "dsa": "iterations lr momentum real steps epochs net_lr start augment early_nets early_epochs perturb clip model",
    "dcc": "iterations lr momentum real steps epochs net_lr warm_iterations warm_steps start early_nets early_epochs "
    "perturb clip model",
    "dsac": "iterations lr momentum real steps epochs net_lr warm_iterations warm_steps start augment early_nets "
    "early_epochs perturb clip model",
    "idc": "iterations lr lr_scale momentum real most steps samples factor distance start augment early_nets "
    "early_epochs perturb model",
    "acc-dd": "iterations lr lr_scale momentum real most steps samples factor distance start augment early_nets "
    "early_epochs perturb model",
    "paws": "per_class large small small_views projection linear freeze_norm",
    "csl": "per_class large small small_views projection linear freeze_norm",
    "nncsl": "per_class large small small_views projection linear freeze_norm distillation",
    "pseudo-label": "weak weight begin end labelled ema freeze_norm",
    "fixmatch": "weak strong threshold weight labelled ema freeze_norm",
    "mixmatch": "weak views temperature alpha weight growth labelled ema freeze_norm",
    "remixmatch": "weak strong views temperature alpha weight unmixed rotation growth labelled ema freeze_norm",
    "comatch": "weak strong second smoothing threshold temperature edge batches width weight contrast labelled ema "
    "freeze_norm",
    "ccic": "weak views temperature alpha weight past margin neighbours labelled freeze_norm",
    "ebll": "strength code_strength temperature code reconstruction epochs rate batch_size among",
}


def defaults(kind: str, name: str) -> dict[str, Any]:
    return {option: p.default for option, p in options_of(registry.component(kind, name)).items()}


def test_options_in_groups_have_the_names_that_they_had_when_they_were_flat() -> None:
    for name, names in FLAT.items():
        kind = "condensers" if name in COMPONENTS["condensers"] else "learners"
        assert set(defaults(kind, name)) == set(names.split()), name


def test_defaults_that_differ_by_method_are_those_of_the_method() -> None:
    dc, dsa, dm, idc, acc = (defaults("condensers", name) for name in ("dc", "dsa", "dm", "idc", "acc-dd"))
    assert (dc["start"], dsa["start"]) == ("noise", "real")
    assert (dm["iterations"], dm["lr"]) == (200, 0.0)
    assert (dsa["iterations"], dsa["lr"], dsa["real"], dsa["steps"]) == (100, 0.1, 256, 0)
    mix, ccic = (defaults("learners", name) for name in ("mixmatch", "ccic"))
    assert (mix["views"], mix["weight"], mix["ema"], ccic["views"], ccic["weight"]) == (2, 10.0, 0.999, 3, 0.5)
    assert (idc["lr"], idc["real"], idc["steps"], idc["early_nets"], acc["early_nets"]) == (0.0, 64, 100, 0, 5)


def test_no_component_has_two_options_of_one_name() -> None:
    """Nor a group of the name of an option: a flat name means one thing."""
    twice = []
    for kind, name in EVERY:
        component = registry.component(kind, name)
        groups = groups_of(component)
        plain = [p for p in inspect.signature(component).parameters if p not in groups]
        names = [*plain, *groups, *(field for group in groups.values() for field in vars(group))]
        twice += [f"{name}: {option}" for option in set(names) if names.count(option) > 1]
    assert not twice


def test_groups_are_frozen() -> None:
    for kind, name in EVERY:
        for group in groups_of(registry.component(kind, name)).values():
            with pytest.raises(FrozenInstanceError):
                group.__setattr__(next(iter(vars(group))), None)


def test_flat_options_become_an_instance_and_the_others_stay_as_the_method_has_them() -> None:
    made = registry.component("condensers", "dsa", {"iterations": 2, "steps": 3, "clip": True}, "[memory.options]")
    assert made.func is dsa
    assert made.keywords == {"making": Making(2, 0.1), "matching": Matching(steps=3), "clip": True}
    again = bind(made, {"lr": 7, "steps": 4})
    assert {name: options_of(again)[name].default for name in ("iterations", "lr", "steps", "clip")} == {
        **{"iterations": 2, "lr": 7, "steps": 4, "clip": True}
    }
    assert registry.component("learners", "nncsl", {"per_class": 3}).keywords == {"views": Views(3)}
    assert bind(nncsl, {}) is nncsl


def test_readers_of_options_see_those_in_groups() -> None:
    assert factor_of(registry.component("condensers", "idc")) == 2
    assert factor_of(registry.component("condensers", "idc", {"factor": 4})) == 4
    dc, dsa = (registry.component("condensers", name) for name in ("dc", "dsa"))
    assert options_of(from_samples(dc))["start"].default == "real"
    assert from_samples(dsa) is dsa
    learner = resolve("split-digits", "nncsl", settings=["learner.options.linear=0.5"]).learner
    assert stability(learner, ["linear", "distillation", "per_class"]) == {
        **{"linear": 0.5, "distillation": 0.2, "per_class": 5}
    }


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        ("buffers", "dsa", {"iteration": 2}, "unknown option 'iteration' of dsa; did you mean 'iterations'?"),
        ("buffers", "dsa", {"making": 2}, "unknown option 'making' of dsa; allowed: augment, "),
        ("buffers", "dsa", {"rng": 2}, "unknown option 'rng' of dsa; "),
        ("buffers", "dc", {"augment": ["crop"]}, "unknown option 'augment' of dc; "),
        ("buffers", "dsa", {"iterations": "two"}, "option 'iterations' of dsa: found 'two', allowed: a whole number"),
        ("buffers", "dsa", {"iterations": 2.5}, "option 'iterations' of dsa: found 2.5, allowed: a whole number"),
        ("buffers", "dsa", {"iterations": True}, "option 'iterations' of dsa: found True, allowed: a whole number"),
        ("buffers", "dsa", {"lr": "fast"}, "option 'lr' of dsa: found 'fast', allowed: a number"),
        ("buffers", "dsa", {"clip": 1}, "option 'clip' of dsa: found 1, allowed: true or false"),
        ("buffers", "dsa", {"augment": "crop"}, "option 'augment' of dsa: found 'crop', allowed: a list, each text"),
        ("buffers", "dsa", {"augment": [1]}, "option 'augment' of dsa: found [1], allowed: a list, each text"),
        ("buffers", "idc", {"distance": 1}, "option 'distance' of idc: found 1, allowed: l2 or l1"),
        ("buffers", "kcenter", {"metric": 3}, "option 'metric' of kcenter: found 3, allowed: euclidean or cosine"),
        ("learners", "csl", {"linear": "no"}, "option 'linear' of csl: found 'no', allowed: a number or none"),
        ("learners", "csl", {"distillation": 1}, "unknown option 'distillation' of csl; "),
        ("models", "mlp", {"hidden": 5}, "option 'hidden' of mlp: found 5, allowed: a list, each a whole number"),
    ],
)
def test_unknown_and_mistyped_options_are_one_line(kind: str, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        registry.component(kind, name, options, "[memory.options]")
    line = str(caught.value)
    assert line.startswith(f"[memory.options]: {message}")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("buffers", "dsa", {"lr": 1, "augment": ("crop",), "perturb": False}),
        ("buffers", "dsa", {"augment": []}),
        ("learners", "csl", {"linear": None, "projection": [8]}),
        ("learners", "sgd", {"objective": "replay"}),
    ],
)
def test_values_of_the_types_that_a_spec_can_hold_are_taken(kind: str, name: str, options: dict[str, Any]) -> None:
    made = registry.component(kind, name, options, "options")
    assert {option: options_of(made)[option].default for option in options} == options


def test_the_default_of_every_shipped_option_is_of_its_type() -> None:
    """So that no value which a component itself uses is refused."""
    for kind, name in EVERY:
        component = registry.component(kind, name)
        known = {n: p.default for n, p in options_of(component).items() if p.default is not p.empty}
        bind(component, known, kind, name)


def test_a_group_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hint that only type checkers can resolve: it is not checked."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from nowhere import Thing\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    k: int = 1\n"
        "def pick(pool, budget, *, rng, mine: Mine = Mine(2), thing: Thing | None = None): ...\n"
    )
    made = registry.component("selectors", "./mine.py:pick", {"k": 5, "thing": "any"}, "options")
    assert made.keywords["mine"].k == 5
    with pytest.raises(InputError, match=r"option 'k' of \./mine\.py:pick: found 'x', allowed: a whole number"):
        registry.component("selectors", "./mine.py:pick", {"k": "x"}, "options")


@pytest.mark.parametrize(
    ("strategy", "buffer", "setting", "fingerprint"),
    [
        ("er", "dsa", "memory.options.iterations=2", "60e46cf6509b5d80"),
        ("er", "idc", "memory.options.factor=1", "8dc0f3245a834b43"),
        ("nncsl", "herding", "learner.options.per_class=3", "4b17ef721505664d"),
    ],
)
def test_a_fingerprint_is_what_it_was_before_options_were_in_groups(
    strategy: str, buffer: str, setting: str, fingerprint: str
) -> None:
    spec = resolve("split-digits", strategy, flags={"memory": {"buffer": buffer}}, settings=[setting])
    assert spec.fingerprint == fingerprint


@dataclass(frozen=True)
class Loose:
    """With a default that is of no use as an option."""

    values: tuple[int, ...] = (1, 2)


def test_the_types_that_only_code_can_give() -> None:
    """A list is known by its elements, an object of Python by its class; a spec can hold the former alone."""

    def component(*, loose: Loose = Loose(), rule: Callable[[int], int] | None = None, other: Any = 1) -> None: ...

    with pytest.raises(InputError, match="found 'any', allowed: a list, each a whole number"):
        bind(component, {"values": "any"})
    with pytest.raises(InputError, match="found 'any', allowed: an object of Python or none"):
        bind(component, {"rule": "any"})
    assert bind(component, {"rule": abs, "other": "any", "values": [3]}).keywords == {
        **{"loose": Loose([3]), "rule": abs, "other": "any"}  # type: ignore[arg-type]
    }

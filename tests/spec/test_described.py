"""What is known of every name, read from files and from source."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from clsim.data.augmentation import AUGMENTATIONS
from clsim.errors import InputError
from clsim.execution.plan import find_study
from clsim.records.metrics import ALL
from clsim.reporting.report import find_report, with_metrics
from clsim.spec import described, registry
from clsim.spec.components import ALIASES, COMBINATORS, COMPONENTS, OF_SOME, OPTIMIZERS
from clsim.spec.definitions import Source, definition
from clsim.spec.described import KINDS, describe, kind_named, kinds_of, names
from clsim.spec.docstrings import parsed
from clsim.spec.flags import tables_of
from clsim.spec.kinds import in_words
from clsim.spec.options import options_of
from clsim.spec.resolve import resolve
from clsim.spec.run import TABLES, RunSpec
from clsim.spec.sources import DATASETS
from clsim.spec.tables import OptimizerSpec

EVERY = [(kind, name) for kind in KINDS for name in names(kind)]


def test_every_name_is_of_a_kind_and_says_what_it_is() -> None:
    for kind, name in EVERY:
        found = describe(kind, name)
        assert kind in kinds_of(name)
        assert found.title, f"{kind} {name}"
        assert found.example
        if kind != "datasets":
            assert Path(found.place.rpartition(":")[0] or found.place).is_file() or Path(found.place).is_file()
    assert {kind for kind, _ in EVERY} == {*KINDS}


def test_every_option_has_a_default_and_says_what_it_means() -> None:
    silent = []
    for kind, name in EVERY:
        for option in describe(kind, name).options:
            if not (option.default and option.kind and len(option.says) > 5) or option.says.startswith("see "):
                silent.append(f"{kind} {name}: {option}")
    assert not silent


def test_options_read_from_source_are_those_of_the_component() -> None:
    for kind in COMPONENTS:
        for name, target in COMPONENTS[kind].items():
            wanted = options_of(registry.component(kind, name))
            found = {option.name: option for option in definition(target).options}
            assert list(found) == list(wanted), name
            for option, parameter in wanted.items():
                default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
                read = found[option].default
                assert not isinstance(read, Source), f"{name}: {option}"
                assert (list(read) if isinstance(read, tuple) else read) == default, f"{name}: {option}"
                assert in_words(found[option].kind) == in_words(parameter.annotation), f"{name}: {option}"


def test_tables_of_other_rooms_are_what_they_are_there() -> None:
    assert names("metrics") == [*ALL]
    for name, metric in ALL.items():
        found = describe("metrics", name)
        assert found.title.lower().startswith(metric.label.lower())
        assert ("Higher is better." in found.text) is metric.higher_is_better
    assert (*OPTIMIZERS,) == typing.get_args(typing.get_type_hints(OptimizerSpec)["name"])
    assert {*OF_SOME} <= {field.name for field in dataclasses.fields(OptimizerSpec)}
    for name, table in TABLES.items():
        keys = {option.name: option for option in describe("tables", name).options}
        assert list(keys) == [field.name for field in dataclasses.fields(table)]
    assert [option.name for option in describe("optimizers", "lars").options].count("trust") == 1
    assert "trust" not in [option.name for option in describe("optimizers", "nadam").options]


def test_names_that_an_option_takes_are_in_its_line() -> None:
    augment = next(option for option in describe("tables", "data").options if option.name == "augment")
    assert all(f"`{name}`" in augment.says for name in AUGMENTATIONS)


def test_groups_give_their_fields_as_the_method_sets_them() -> None:
    options = {option.name: option for option in describe("condensers", "dsa").options}
    assert options["lr"].default == "0.1"
    assert options["early_nets"].says.startswith("number of nets at an early stage")
    assert options["augment"].default.startswith('["color"')
    dm = describe("condensers", "dm")
    assert "memory.options.iterations=50" in dm.implies
    assert {"memory.shrink=condense"} < {*dm.implies}
    assert describe("acquisitions", "split").implies == ("labelling.update=batch",)


def test_a_name_of_several_kinds_has_all_of_them() -> None:
    assert kinds_of("forgetting") == ["reports", "selectors", "metrics"]
    assert kinds_of("optimizer") == ["tables"]
    for alias, name in ALIASES.items():
        assert describe("selectors", alias) == describe("selectors", name)
        assert alias in describe("selectors", name).aliases


def test_kinds_have_a_singular_and_a_plural() -> None:
    for kind in KINDS:
        assert kind_named(kind) == kind
    assert [kind_named(word) for word in ("strategy", "Data set", "metric", "bound")] == [
        *("strategies", "datasets", "metrics", "bounds"),
    ]
    with pytest.raises(InputError, match="unknown kind 'selctors'; did you mean 'selectors'"):
        kind_named("selctors")


def test_every_example_is_a_command_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = np.zeros((4, 3), dtype=np.float32), np.arange(4) % 2
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "saved").mkdir()
    for kind, name in EVERY:
        words = shlex.split(describe(kind, name).example)
        if words[:2] == ["clsim", "run"]:
            spec = _resolved(words[2:])
            assert name in str(dataclasses.asdict(spec)) or kind == "tables", (kind, name)
        elif words[:2] == ["clsim", "study"]:
            find_study(words[2])
        elif words[:3] == ["clsim", "report", "--metric"]:
            assert words[3:] == [name]
            assert name in with_metrics(find_report("summary"), words[3:]).metrics
        elif words[:2] == ["clsim", "report"]:
            find_report(words[2])
        else:
            assert words[:2] == ["python", "-c"]
            compile(words[2], name, "exec")


def _resolved(words: list[str]) -> RunSpec:
    pairs = list(zip(words[::2], words[1::2], strict=True))
    given = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairs if flag != "--set"}
    settings = [value for flag, value in pairs if flag == "--set"]
    scenario, strategy = given.pop("scenario"), given.pop("strategy", "er")
    return resolve(scenario, strategy, flags=tables_of(**given), settings=settings)  # type: ignore[arg-type]


def test_nothing_heavy_is_imported_for_any_description() -> None:
    code = (
        "import sys\nfrom clsim.spec.described import KINDS, describe, names\n"
        "[describe(kind, name) for kind in KINDS for name in names(kind)]\n"
        "print({'torch', 'torchvision', 'avalanche', 'numpy', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


OWN = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from shared import WIDTH, Shared

raise RuntimeError("this file must not run")

Choice = Literal["near", "far"]

@dataclass(frozen=True)
class Mine(Shared):
    \"\"\"Options.

    Attributes:
        last: whether the last wins.
    \"\"\"
    last: bool = False

def pick(pool, budget, *, rng, k: int = WIDTH, where: Choice | None = None, mine: Mine = Mine(2.5, last=True)):
    \"\"\"Pick what I like.

    It is ``mine``, see :class:`Mine`.

    Args:
        k: how many
            there are.
        where: where they are.

    Source: Me (2026).
    \"\"\"

class Learner:
    def __init__(self, setup, *, rate: float = 2 * WIDTH): ...

class Other(Learner):
    \"\"\"Learn otherwise.\"\"\"

def make(pool, budget, *, rng) -> "clsim.Exemplars": ...

def net(shape, *, width: int): ...

def loss(net, batch): ...

class Asks:
    def __init__(self, net, rng): ...

def lowest(R): ...

def other(x, y): ...
"""
SHARED = """
from dataclasses import dataclass
WIDTH = 7
@dataclass(frozen=True)
class Shared:
    \"\"\"Shared.

    Attributes:
        scale: the scale.
    \"\"\"
    scale: float = 1.0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    Path("shared.py").write_text(SHARED)


@pytest.mark.usefixtures("own")
def test_code_of_ones_own_is_read_and_not_run() -> None:
    found = describe("selectors", "./mine.py:pick")
    assert (found.title, found.text, found.source) == ("Pick what I like", "It is `mine`, see `Mine`.", "Me (2026)")
    assert [dataclasses.astuple(option) for option in found.options] == [
        ("k", "a whole number", "7", "how many there are."),
        ("where", "near or far or none", "none", "where they are."),
        ("scale", "a number", "2.5", "the scale."),
        ("last", "true or false", "true", "whether the last wins."),
    ]
    assert found.place == "mine.py:20"
    assert found.example.endswith("--buffer ./mine.py:pick")
    rate = describe("learners", "./mine.py:Other").options[0]
    assert (rate.default, rate.says) == ("2 * WIDTH", "")
    assert describe("models", "./mine.py:net").options[0].default == ""  # it must be given


@pytest.mark.usefixtures("own")
def test_the_parameters_of_ones_own_code_tell_its_kind() -> None:
    kinds = {"pick": "selectors", "make": "condensers", "Other": "learners", "net": "models", "loss": "objectives"}
    kinds |= {"Asks": "acquisitions", "lowest": "metrics"}
    assert {name: kinds_of(f"./mine.py:{name}") for name in kinds} == {name: [kind] for name, kind in kinds.items()}
    assert kinds_of("mine:pick") == ["selectors"]
    assert kinds_of("./mine.py:other") == kinds_of("./mine.py:absent") == kinds_of("./none.py:x") == []


def test_code_that_is_made_at_run_time_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("made.py").write_text(
        "def _making():\n    def pick(pool, budget, *, rng, k: int = 3):\n"
        "        '''Pick.\n\n        Args:\n            k: how many.\n        '''\n    return pick\npick = _making()\n"
    )
    found = describe("selectors", "./made.py:pick")
    assert (found.title, found.options[0].says, found.options[0].default) == ("Pick", "how many.", "3")
    Path("partly.py").write_text("from functools import partial\nfrom made import pick\nfive = partial(pick, k=5)\n")
    found = describe("selectors", "./partly.py:five")
    assert (found.title, found.options[0].says, found.options[0].default) == ("Pick", "how many.", "5")
    assert found.place.endswith("made.py:2")


def test_what_is_installed_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_described.py").write_text("def pick(pool, budget, *, rng): '''Pick as the lab does.'''\n")
    (tmp_path / "lab-1.0.dist-info").mkdir()
    (tmp_path / "lab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (tmp_path / "lab-1.0.dist-info" / "entry_points.txt").write_text(
        "[clsim.selectors]\nlab-pick = lab_described:pick\n[clsim.metrics]\nlab-metric = lab_described:pick\n"
    )
    assert "lab-pick" not in names("selectors")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert kinds_of("lab-pick") == ["selectors"]
    assert describe("selectors", "lab-pick").title == "Pick as the lab does"
    assert "lab-metric" in names("metrics")
    assert "lab_described" not in sys.modules


def test_a_file_elsewhere_is_told_by_what_it_holds(tmp_path: Path) -> None:
    for kind in registry.FILES:
        for name in names(kind):
            copy = tmp_path / "copy.toml"
            copy.write_bytes(registry.find_file(kind, name).read_bytes())
            assert kinds_of(str(copy)) == [kind], name


def test_a_file_names_its_parts() -> None:
    assert describe("scenarios", "split-mnist").parts[0] == ("datasets", "mnist")
    assert ("learners", "fixmatch") in describe("strategies", "fixmatch").parts
    study = describe("studies", "digits")
    assert ("strategies", "er") in study.parts
    assert study.tables == registry.find_file("studies", "digits").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("selectors", "kcentre", "selectors: unknown name 'kcentre'; did you mean 'kcenter'?"),
        ("datasets", "a:b", "datasets: unknown name 'a:b'; allowed: cifar10"),
        ("scenarios", "split-mnits", "scenarios: unknown name 'split-mnits'; did you mean 'split-mnist'?"),
        ("models", "./no.py:net", "models: './no.py:net': cannot import './no.py'"),
        ("tables", "trainin", "tables: unknown name 'trainin'; did you mean 'training'?"),
    ],
)
def test_unknown_names_are_one_line(kind: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        describe(kind, name)
    assert str(caught.value).startswith(message)


def test_docstrings_of_any_form_are_read() -> None:
    assert parsed(None) == parsed("") == parsed(" ")
    said = parsed(
        "Do it. Final.\n\nProse of ``a`` and :func:`~b.c`.\n\n    x = 1\n    y = 2\n\nArgs:\n    a, b: both:\n"
        "        of them.\n\nFinal.\n\n>>> 1\n1\n\nNeeds: labels.\nCost: O(n).\n\nSource: One, in\n    two lines.\n"
    )
    assert said.title == "Do it"
    assert said.text == "Prose of `a` and `b.c`.\n\n    x = 1\n    y = 2"
    assert said.args == {"a": "both: of them.", "b": "both: of them."}
    assert (said.needs, said.cost, said.source) == ("labels", "O(n)", "One, in two lines")


def test_every_kind_of_shipped_thing_is_listed() -> None:
    assert {*DATASETS, *COMBINATORS} <= {name for _, name in EVERY}
    assert names("buffers") == names("selectors") + names("condensers")
    assert described.describe("buffers", "dm").kind == "condensers"

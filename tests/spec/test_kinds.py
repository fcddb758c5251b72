"""What fits the type of an option, and what a component of a kind is called with."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from clsim.errors import InputError
from clsim.spec import registry, roles
from clsim.spec.kinds import Count, Positive, Range, Share, allowed, fits
from clsim.spec.resolve import resolve
from tests.commands import clsim, refused


@pytest.mark.parametrize(
    ("kind", "taken", "others"),
    [
        (int, [0, -3, 10**9], [True, 1.0, "1", None, [1], {}, 10**9 + 1, 2**63]),
        (float, [0, 1, -0.5, 3e38], [True, "x", None, [1.0], math.nan, math.inf, 1e39]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "x"], [0, None, ["x"], True]),
        (int | None, [1, None], [1.5, "none", []]),
        (Sequence[int], [[], [1], (1, 2)], [1, "12", None, [1.5], [[1]], [True], {}]),
        (tuple[int, ...], [[], [1, 2]], ["x", [0.5]]),
        (tuple[int, str], [[1, "a"]], [[1], [1, 2], ["a", 1]]),
        (Literal["l1", "l2"], ["l1"], ["l3", "", 1, None, ["l1"]]),
        (Literal["a", 1] | None, ["a", 1, None], [True, "1"]),
        (Count, [1, 9], [0, -1, 1.0, True]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, math.nan]),
        (Positive, [1e-300, 5], [0, -1, math.inf]),
        (Annotated[float, Range(0, below=1)], [0, 0.99], [1]),
        (Annotated[int, Range(1, 4)] | None, [None, 4], [5, 0]),
        (Mapping[str, int], [{}], [1, "x", []]),
        (Callable[[int], int], [abs], [1, "x", None]),
        (type[int], [int], [1, "x"]),
        (Path, [Path(), "a/path"], [1, None, ["x"]]),
        (Any, [1, "x", None], []),
        ("Thing | None", [1, "x", None], []),
    ],
)
def test_what_fits(kind: Any, taken: list[Any], others: list[Any]) -> None:
    assert [value for value in taken if not fits(kind, value)] == []
    assert [value for value in others if fits(kind, value)] == []
    assert all(allowed(kind, value).startswith(("allowed: ", "did you mean ")) for value in others)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--set", "memory.options.metric=euclidian", "--buffer", "kcenter"],
            "option 'metric' of kcenter: found 'euclidian'; did you mean 'euclidean'?",
        ),
        (["--strategy", "ewc", "--set", "learner.options.strength=x"], "'strength' of ewc: found 'x', allowed: a numb"),
        (["--strategy", "ewc", "--set", "learner.options.strength=[1]"], "found [1], allowed: a number"),
        (
            ["--strategy", "gdumb", "--set", "learner.options.batch_size=0"],
            "found 0, allowed: a whole number from 1",
        ),
        (["--set", "model.options.hiden=[3]"], "unknown option 'hiden' of mlp; did you mean 'hidden'?"),
        (
            ["--pool", "rare", "--set", "pool.rare.classes=2"],
            "'classes' of rare: found 2, allowed: a list",
        ),
        (
            ["--label", "bald", "--label-budget", "3", "--set", "labelling.options.passes=1e308"],
            "found 1e+308",
        ),
        (["--batch", "info-batch", "--set", "batch.options.keep=x"], "option 'keep' of info-batch"),
        (["--buffer", "per_class(k-means)", "--set", "memory.options.iterations=-1"], "found -1, allowed: a whole"),
    ],
)
def test_options_are_checked_before_anything_is_built(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "run", *words, "--runs", str(tmp_path / "runs"), "--dry-run")
    assert not (tmp_path / "runs").exists()


def test_the_check_imports_no_component() -> None:
    code = (
        "import sys\nfrom clsim.spec.resolve import resolve\n"
        "resolve('split-digits', 'ewc', settings=['learner.options.strength=2'])\n"
        "print('torch' in sys.modules, 'clsim.learners.regularisation.penalties' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False False\n"


OWN = """
def nothing(*given, **named): return None
def one(value): return value
def decorated(function): return lambda pool, budget, *, rng, anything=0: function(pool, budget, rng=rng)
@decorated
def pick(pool, budget, *, rng): ...
class Thing:
    def __init__(self, *given, **named): pass
class Loud:
    def __init__(self, *given, **named): raise KeyError("x")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    return tmp_path


@pytest.mark.parametrize("kind", ["selectors", "condensers", "learners", "models", "pools", "objectives"])
@pytest.mark.parametrize("name", ["builtins:int", "os:getcwd", "math:pi", "os:path", "./leaves.py:x", "nowhere:x"])
def test_what_is_no_component_of_a_kind_is_refused(kind: str, name: str, own: Path) -> None:
    with pytest.raises(InputError) as caught:
        registry.component(kind, name)
    assert str(caught.value).startswith(f"{kind}: ")
    assert "\n" not in str(caught.value)


def test_the_message_says_what_a_component_is_called_with() -> None:
    with pytest.raises(InputError, match=r"found 'os:getcwd', which takes \(\) \(too many positional arguments\); all"):
        registry.component("models", "os:getcwd")
    with pytest.raises(InputError, match=r"allowed: a function that is called with \(pool, budget, \*, rng\)"):
        registry.component("selectors", "os:getcwd")


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("memory.retrieval", []),
        ("memory.buffer", []),
        ("model.name", []),
        ("learner.name", []),
        ("learner.options.objective", []),
        ("batch.selector", []),
        ("labelling.selector", ["labelling.budget=4", "labelling.initial_count=6"]),
    ],
)
@pytest.mark.parametrize(
    "name", ["builtins:print", "./mine.py:nothing", "./mine.py:one", "./mine.py:Thing", "./mine.py:Loud"]
)
def test_one_line_whatever_stands_in_the_place_of_a_component(
    key: str, name: str, settings: list[str], own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ["training.epochs=1", "data.per_class=4", "stream.experiences=2", "memory.candidates=3", *settings]
    plain = [] if key == "model.name" else ["model.name=linear"]
    words = [word for one in (*fast, *plain, f"{key}={name}") for word in ("--set", one)]
    capsys.readouterr()
    assert clsim("run", "--quiet", "--strategy", "er", *words, "--runs", str(own / "runs")) == 2
    said = capsys.readouterr().err
    assert said.startswith("clsim: ")
    assert said.count("\n") == 1


def test_a_decorator_of_ones_own_may_change_the_options(own: Path) -> None:
    """The source does not show it: the check waits until the component is there."""
    flags = {"memory": {"buffer": "./mine.py:pick", "options": {"anything": 1}}}
    assert resolve("split-digits", "er", flags=flags).memory.options == {"anything": 1}
    assert registry.component("buffers", "./mine.py:pick", {"anything": 1}).keywords == {"anything": 1}


def test_a_class_that_asks_for_labels_may_have_options() -> None:
    class Fading:
        def __init__(self, net: Any, rng: Any, *, half: float = 2.0) -> None: ...

    roles.check_role("selectors", "Fading", Fading)
    roles.check_role("selectors", "Fading", partial(Fading, half=1.0))
    with pytest.raises(InputError, match=r"selectors: found 'Fading', which takes"):
        roles.check_role("selectors", "Fading", partial(lambda net, rng, *, half: None, half=1.0))

"""The list of transforms in files, on the command line and in studies; names and fingerprints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from clsim.errors import InputError
from clsim.execution import plan
from clsim.records.store import Store
from clsim.spec import registry
from clsim.spec.components import COMPONENTS
from clsim.spec.described import describe
from clsim.spec.resolve import resolve, resolved
from clsim.spec.run import RunSpec
from tests.commands import refused

OWN = '''
def thin(parts, *, share: float = 0.5, rng):
    """Keep a share of the samples."""
    return parts.with_train([p.of(slice(int(share * len(p.rows)))) for p in parts.train])
'''


def test_a_spec_without_a_pool_is_what_it_was() -> None:
    """Fingerprints of version 0.1.0, and no key in the spec."""
    known = {("split-digits", "er"): "dd2980f4ba0ba42f", ("active-digits", "finetune"): "3f21ec3a0e4c8169"}
    for (scenario, strategy), fingerprint in known.items():
        spec = resolve(scenario, strategy)
        assert spec.fingerprint == fingerprint
        assert "pool" not in spec.as_dict()
        assert resolve(scenario, strategy, flags={"pool": ["none"]}).fingerprint == spec.fingerprint
        assert resolve(scenario, strategy, flags={"pool": ["rare"]}).fingerprint != spec.fingerprint
    assert RunSpec(seed=1).fingerprint == "a9172d8ed843c7b7"


def test_a_file_lists_transforms_and_the_command_line_changes_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[data]\ndataset = "digits"\n[[pool]]\nname = "rare"\n[[pool]]\nname = "noise"\noptions = { share = 0.3 }\n'
    )
    spec = resolve(str(path), "er", settings=["pool.noise.kind=pairwise"])
    assert [(one.name, dict(one.options)) for one in spec.pool] == [
        ("rare", {}),
        ("noise", {"share": 0.3, "kind": "pairwise"}),
    ]
    assert resolve(str(path), "er", flags={"pool": ["none"]}).pool == ()
    other = resolve(str(path), "er", flags={"pool": ["noise:0.3"]}, settings=["pool.noise.kind=pairwise"])
    assert [one.name for one in other.pool] == ["noise"]
    short = path.with_name("short.toml")
    short.write_text('pool = ["rare", "noise:0.3"]\n[data]\ndataset = "digits"\n')
    assert resolve(str(short), "er", settings=["pool.noise.kind=pairwise"]).pool == spec.pool


def test_a_number_sets_the_first_option() -> None:
    first = {name: describe("pools", name).options[0].name for name in COMPONENTS["pools"]}
    assert first == {
        "rare": "share",
        "long-tail": "ratio",
        "step": "ratio",
        "redundant": "times",
        "outsiders": "share",
        "noise": "share",
        "blurry": "share",
    }
    for name, option in first.items():
        (one,) = resolve(
            "split-digits", "er", flags={"pool": [f"{name}:3" if option == "times" else f"{name}:0.3"]}
        ).pool
        assert one.options == {option: 3 if option == "times" else 0.3}
    assert resolve("split-digits", "er", flags={"pool": ["noise:1"]}).pool[0].options == {"share": 1.0}


def test_code_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    spec = resolve("split-digits", "er", flags={"pool": ["./mine.py:thin:0.25", "noise"]})
    assert (spec.pool[0].name, dict(spec.pool[0].options)) == ("./mine.py:thin", {"share": 0.25})
    assert [name for name, _ in spec.sources] == ["./mine.py:thin"]
    changed = resolve(
        "split-digits", "er", flags={"pool": ["./mine.py:thin", "noise"]}, settings=["pool.thin.share=0.25"]
    )
    assert changed == spec
    (tmp_path / "mine.py").write_text(OWN.replace("slice(", "slice(0, "))
    assert (
        resolve("split-digits", "er", flags={"pool": ["./mine.py:thin:0.25", "noise"]}).fingerprint != spec.fingerprint
    )
    assert describe("pools", "./mine.py:thin").title == "Keep a share of the samples"


def test_a_study_has_pools_on_an_axis(tmp_path: Path) -> None:
    study = plan.read({"pool": ["none", "rare", "noise:0.2+redundant"], "scenario": "split-digits"}, "test")
    runs = plan.plan(study, Store(tmp_path))
    assert [[one.name for one in run.spec.pool] for run in runs] == [[], ["rare"], ["noise", "redundant"]]
    for run in runs:
        words = shlex.split(run.command)
        pools = [words[i + 1] for i, word in enumerate(words) if word == "--pool"]
        assert resolve("split-digits", "er", flags={"pool": pools}).fingerprint == run.spec.fingerprint
    with pytest.raises(InputError, match="did you mean 'noise'"):
        plan.plan(plan.read({"pool": ["noice:0.2"]}, "test"), Store(tmp_path))


WRONG: dict[str, tuple[list[str], str]] = {
    "name": (["--pool", "rore"], "did you mean 'rare'"),
    "number": (["--pool", "noise:much"], "noise:much"),
    "option": (["--pool", "noise", "--set", "pool.noise.shares=0.1"], "did you mean 'share'"),
    "type": (["--pool", "noise", "--set", "pool.noise.share=many"], "allowed: a number"),
    "absent": (["--set", "pool.noise.share=0.1"], "a transform that this run does not have"),
    "other": (["--pool", "rare", "--set", "pool.noise.share=0.1"], "allowed: rare"),
    "table": (["--pool", "rare", "--set", "pool.rare=0.1"], "pool.rare.OPTION=VALUE"),
    "file": (["--pool", "./absent.py:thin"], "absent.py"),
    "empty": (["--pool", ""], "allowed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, case: str) -> None:
    words, says = WRONG[case]
    said = refused(capsys, "run", "--scenario", "split-digits", *words, "--runs", str(tmp_path), "--quiet")
    assert says in said


@pytest.mark.parametrize(
    "text", ["pool = 3\n", '[[pool]]\nnam = "rare"\n', "[[pool]]\noptions = { share = 1 }\n", "pool = [3]\n"]
)
def test_mistakes_in_a_file_are_told_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text + '[data]\ndataset = "digits"\n' if text.startswith("pool") else "[data]\n" + text)
    with pytest.raises(InputError, match=r"mine\.toml") as error:
        resolve(str(path), "er")
    assert "\n" not in str(error.value)


def test_every_transform_has_an_option_that_says_what_it_does() -> None:
    for name in COMPONENTS["pools"]:
        found = describe("pools", name)
        assert found.options_in == f"pool.{name}"
        assert all(option.says and option.default for option in found.options)
        assert found.source
        assert found.cost
        assert registry.component("pools", name)


def test_what_a_dry_run_explains_holds_the_pool() -> None:
    from clsim.spec.layers import explained

    found = resolved("split-digits", "er", flags={"pool": ["rare"]})
    values: dict[str, Any] = {value.key: (value.value, value.origin) for value in explained(found.spec, found.layers)}
    assert values["pool"] == ([{"name": "rare", "options": {}}], "--pool")

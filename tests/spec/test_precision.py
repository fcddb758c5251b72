"""``precision = "auto"`` is bf16 where the device has it in hardware, and a spec holds what it came to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clsim.compat import tomllib
from clsim.errors import InputError
from clsim.spec import precision, registry
from clsim.spec.flags import tables_of
from clsim.spec.resolve import prerequisites, resolve, resolved

AUTO = ["training.precision=auto"]
OTHER = ["none", "all"]


@pytest.mark.parametrize(("there", "name"), [(True, "bf16"), (False, "fp32")])
def test_a_run_is_the_run_that_names_what_auto_came_to(there: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "in_hardware", lambda device: there)
    found, named = (resolve("split-digits", "er", settings=[f"training.precision={word}"]) for word in ("auto", name))
    assert found.training.precision == name
    assert found.fingerprint == named.fingerprint
    assert resolve("split-digits", "er").training.precision == "fp32"


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\nflags\t\t: fpu\n", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),  # emulated there, many times slower than fp32
        ("model name\t: bf16 avx512_bf16\n", False),
    ],
)
def test_a_processor_is_asked_by_name(text: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert bool(precision.CPU_FLAGS & precision.cpu_flags(tmp_path / "cpuinfo")) == there
    assert precision.cpu_flags(tmp_path / "none") == set()


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_is_asked_for_its_capability(
    capability: tuple[int, int], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
    monkeypatch.setattr(precision, "cpu_flags", set)
    assert [precision.in_hardware(device) for device in ("auto", "cuda", "cuda:0")] == [there] * 3
    assert not precision.in_hardware("cpu")
    assert not precision.in_hardware("cuda:7")  # refused later, with the devices that there are


def test_tf32_as_torch_has_it_leaves_a_fingerprint_as_it_was() -> None:
    plain = resolve("split-digits", "er")
    assert plain.training.tf32 == "convolutions"
    assert "tf32" not in plain.as_dict()["training"]
    named = {
        word: resolve("split-digits", "er", settings=[f"training.tf32={word}"]) for word in ("convolutions", *OTHER)
    }
    assert named["convolutions"].fingerprint == plain.fingerprint
    assert len({spec.fingerprint for spec in named.values()}) == 3
    assert [named[word].as_dict()["training"]["tf32"] for word in OTHER] == OTHER
    with pytest.raises(InputError, match=r"tf32: found 'on'.*allowed: all, convolutions, none"):
        resolve("split-digits", "er", settings=["training.tf32=on"])


def test_the_joint_run_that_orders_tasks_rounds_as_the_run_does() -> None:
    settings = ["stream.tasks=easy-first", "training.tf32=all"]
    (first,) = prerequisites(resolve("split-digits", "er", settings=settings))
    assert first.spec.training.tf32 == "all"


def test_no_shipped_file_asks_for_bf16_by_name() -> None:
    root = registry.find_file("scenarios", "split-digits").parents[1]
    files = [path for kind in ("scenarios", "strategies", "studies") for path in sorted((root / kind).glob("*.toml"))]
    assert len(files) > 60
    for path in files:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        layers = [tables, *tables.get("on", {}).values()]
        asked = [layer.get("training", {}).get("precision") for layer in layers]
        assert "bf16" not in [*asked, tables.get("set", {}).get("training.precision")], path


def test_threads_by_auto_are_a_number_before_the_fingerprint_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsim.spec.flags.cores_of_one", lambda: 3)
    found = resolved("split-digits", "er", flags=tables_of(threads="auto"))
    assert found.spec.training.threads == 3
    assert found.spec.fingerprint == resolve("split-digits", "er", flags=tables_of(threads="3")).fingerprint
    assert found.spec.fingerprint == resolve("split-digits", "er", settings=["training.threads=auto"]).fingerprint
    assert found.layers[-1].origin == "this machine"
    assert resolve("split-digits", "er").training.threads == 1
    for text in ("many", "1.5", "²"):
        with pytest.raises(InputError, match=r"--threads: found .* allowed: a whole number from 1, or auto"):
            tables_of(threads=text)

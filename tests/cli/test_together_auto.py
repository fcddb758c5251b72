"""``--together auto``: a process for each core, else a stack where that was measured to pay, else one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import clsim
from clsim.errors import InputError
from clsim.execution import study
from clsim.execution.study import workers_of
from clsim.spec.cores import processes
from clsim.spec.flags import settled_machine
from clsim.spec.resolve import resolve
from tests.commands import clsim as command
from tests.commands import refused

SMALL = ["data.per_class=12", "stream.experiences=2", "training.epochs=1"]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of processes of each study that is carried out."""
    found: list[int] = []
    original = study.carry_out

    def noted(planned: Any, store: Any, engine: Any, **how: Any) -> study.StudyResult:
        found.append(engine.workers)
        return original(planned, store, engine, **how)

    monkeypatch.setattr(study, "carry_out", noted)
    return found


def _cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("clsim.spec.cores.cores", lambda: count)


def test_seeds_go_to_processes_and_have_the_records_of_runs_alone(
    tmp_path: Path, engines: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _cores(monkeypatch, 2)
    how: dict[str, Any] = {"settings": SMALL, "seeds": 3, "progress": False}
    found = clsim.run("split-digits", "er", **how, together="auto", runs=tmp_path / "auto")
    assert engines == [2]
    alone = clsim.run("split-digits", "er", **how, runs=tmp_path / "alone")
    for one, other in zip(found, alone, strict=True):
        assert not one.read
        assert one.data["fingerprint"] == other.data["fingerprint"]
        assert one.data["command"] == other.data["command"]
        assert one.accuracy.equals(other.accuracy)
    assert all(one.read for one in clsim.run("split-digits", "er", **how, together="auto", runs=tmp_path / "auto"))


def test_one_core_takes_them_one_after_another(
    tmp_path: Path, engines: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _cores(monkeypatch, 1)
    records = clsim.run("split-digits", "er", settings=SMALL, seeds=2, together="auto", runs=tmp_path, progress=False)
    assert len(records) == 2
    assert not engines


def test_a_failed_seed_is_told_after_the_others_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cores(monkeypatch, 2)
    where = {"runs": tmp_path / "runs", "progress": False, "settings": [*SMALL, "stream.kind=nowhere"]}
    with pytest.raises(InputError):  # before any process begins
        clsim.run("split-digits", "er", seeds=2, together="auto", **where)
    (tmp_path / "broken.npz").write_bytes(b"no arrays")
    words = [*SMALL, "data.dataset=npz", f"data.path={tmp_path / 'broken.npz'}"]
    with pytest.raises(InputError, match=r"broken\.npz"):
        clsim.run("split-digits", "er", seeds=2, together="auto", runs=tmp_path / "runs", settings=words)


@pytest.mark.parametrize(
    ("seeds", "cores", "gpu", "device", "threads", "stacked"),
    [
        (20, 1, True, "auto", 1, True),
        (19, 1, True, "auto", 1, False),
        (20, 1, True, "cpu", 1, False),
        (20, 1, False, "auto", 1, False),
        (20, 2, True, "cuda", 1, False),  # two processes are faster
        (20, 2, True, "cuda", 2, True),
        (20, 1, True, "cuda", "auto", True),
    ],
)
def test_a_stack_is_for_many_seeds_on_a_gpu_without_a_second_core(
    seeds: int, cores: int, gpu: bool, device: str, threads: Any, stacked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cores(monkeypatch, cores)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    training = {"together": "auto", "device": device, "threads": threads}
    found = settled_machine({"training": training}, range(seeds))["training"]
    assert found["together"] is stacked
    assert isinstance(found["threads"], int)


def test_what_auto_came_to_is_in_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    _cores(monkeypatch, 4)
    how: dict[str, Any] = {"settings": SMALL, "seed": 1, "seeds": range(3)}
    spec = resolve("split-digits", "er", flags={"training": {"together": "auto"}}, **how)
    assert spec == resolve("split-digits", "er", **how)
    assert [workers_of(word, [spec] * 6) for word in ("auto", "yes", True, False)] == [4, 1, 1, 1]
    assert [processes(5, 1), processes(3, 1), processes(5, 2), processes(5, 9)] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (["--together"], "there is one seed"),
        (["--together", "--seeds", "2"], "the seeds of this command"),
        (["--together", "auto", "--seeds", "2"], "none so far"),
        (["--together=no", "--seeds", "2"], "none so far"),
    ],
)
def test_the_command_line_takes_it_with_and_without_a_value(
    said: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command("run", *said, "--dry-run", "--runs", str(tmp_path))
    shown = capsys.readouterr()
    assert text in shown.out + shown.err


def test_another_word_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "run", "--together", "maybe", "--runs", str(tmp_path))
    assert "--together: found 'maybe', allowed: auto, yes, no" in said

"""The script for a GPU runs where there is none, keeps its seconds, and holds clsim against the same arithmetic."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import SECTIONS
from benchmarks.gpu_choosing import of_airbench, share_row, whole_row
from benchmarks.gpu_training import Bare, columns, online_spec
from benchmarks.graphs import measured, random_stream, spec_of
from benchmarks.measured import Measure, Row, Setting, rows, taken, write
from clsim.learners.replay.der import DerPlusPlus
from clsim.learners.sgd import Sgd
from clsim.pool.exemplars import Exemplars
from clsim.pool.pool import Cost
from clsim.training.assemble import assemble
from clsim.version import code_state
from tests.helpers import generator

TINY = Setting(torch.device("cpu"), tiny=True)
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_script_takes_every_line_without_a_gpu(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--minutes", "30", "--csv", str(tmp_path / "found.csv")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    head, *lines = (tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()
    assert head.startswith("# python -m benchmarks.gpu --minutes 30 --tiny; ")
    assert all(word in head for word in (f"torch {torch.__version__}", code_state()))
    found = list(csv.DictReader(lines))
    assert [*dict.fromkeys(row["section"] for row in found)] == list(SECTIONS)
    assert all(row["value"] for row in found)
    assert {row["unit"] for row in found if row["section"] == "online"} == {"images/s"}


def test_sections_have_less_than_eight_minutes() -> None:
    assert sum(seconds for seconds, _ in SECTIONS.values()) <= 455


def section(*measures: tuple[str, Measure]) -> Callable[[Setting], Iterator[tuple[str, Measure]]]:
    return lambda setting: iter(measures)


def sleeps(seconds: float) -> Row:
    for _ in range(round(1000 * seconds)):
        time.sleep(0.001)
    return Row("slept", seconds)


def broken() -> Row:
    raise ValueError("no\nsuch kernel")


def test_what_fails_and_what_comes_too_late_are_rows() -> None:
    started = time.monotonic()
    asked = (("a", broken), ("b", lambda: Row("b", 1.0)), ("c", lambda: sleeps(20)), ("d", lambda: Row("d", 2.0)))
    found = list(rows(section(*asked), TINY, 0.3))
    assert time.monotonic() - started < 5
    assert [(row.what, row.value) for row in found] == [("a", None), ("b", 1.0), ("c", None), ("d", None)]
    assert found[0].note == "failed: ValueError: no such kernel"
    assert found[2].note == found[3].note == "skipped: the 0 s of the section are over"


def test_what_a_section_leaves_over_goes_to_the_next_and_no_more() -> None:
    quick, long = section(("quick", lambda: Row("quick", 1.0))), section(("long", lambda: sleeps(0.4)))
    assert [row.value for _, row in taken({"a": (0.9, quick), "b": (0.1, long)}, TINY, 1.0)] == [1.0, 0.4]
    assert [row.value for _, row in taken({"a": (0.1, long), "b": (0.9, quick)}, TINY, 1.0)] == [None, 1.0]
    assert [row.value for _, row in taken({"a": (9, long), "b": (9, quick)}, TINY, 0.1)] == [None, None]


def test_rows_are_written_below_where_they_come_from(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", "a card", [("one", Row("x, y", 1234.56789, "s")), ("two", Row("z", None, note="no"))])
    text = (tmp_path / "rows.csv").read_text(encoding="utf-8")
    assert text.splitlines() == ["# a card", "section,what,value,unit,note", 'one,"x, y",1235,s,', "two,z,,,no"]


@pytest.mark.parametrize(("strategy", "width"), [("er", 10), ("der++", 100)])
def test_the_bare_loop_takes_the_steps_of_clsim(strategy: str, width: int) -> None:
    """Weights after three steps on the same batches, from the same weights."""
    spec = online_spec(TINY, strategy, 6, by_experience=False)
    setup, learner = assemble(spec, random_stream(spec, classes=width // 10, width=width), Cost())
    bare = Bare(TINY, strategy, width)
    bare.net.load_state_dict(setup.net.state_dict())
    before = torch.cat([p.detach().flatten() for p in setup.net.parameters()])
    setup.net.train()
    exemplars = 20 if strategy == "der++" else 10
    for step in range(3):
        rng = generator(step)
        new, old = (
            columns(
                torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=rng),
                torch.randint(0, width, (n,), generator=rng),
                torch.randn(n, width, generator=rng),
            )
            for n in (10, exemplars)
        )
        bare.step(new, old)
        if isinstance(learner, DerPlusPlus):
            learner.inner.step(new, without_second_logits(old))
        else:
            assert isinstance(learner, Sgd)
            learner.step(new, replace(old, soft=None))
    mine, theirs = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (setup.net, bare.net))
    assert (mine - before).abs().max() > 1e-3
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def without_second_logits(old: Exemplars) -> Exemplars:
    """DER++ holds the first half of its exemplars to their logits, and the second to their labels."""
    assert old.soft is not None
    soft = old.soft.clone()
    soft[10:] = torch.nan
    return replace(old, soft=soft)


@pytest.mark.parametrize("strategy", ["er", "er-ace", "der", "der++", "lwf", "icarl", "ss-il"])
def test_a_step_reads_nothing_but_the_places_that_a_recorded_step_reads(strategy: str) -> None:
    """The losses are those of steps on batches of their own, in every experience, to the last bit."""
    spec = spec_of(strategy, 8, "mlp", "cpu", ["memory.capacity=60"])
    plain, fixed = (measured(spec, record=record, classes=2, width=10)[1] for record in (False, True))
    assert len(plain) == 24
    assert (plain > 0).all()
    assert torch.equal(plain, fixed)


def test_the_least_confident_share_holds_what_a_net_was_not_sure_of(tmp_path: Path) -> None:
    """Half of the images show their class, half show nothing: these are the ones of which no net is sure."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 10
    x = np.full((400, 3, 32, 32), 128, dtype=np.uint8)
    shown = np.arange(400) < 200
    for row in np.flatnonzero(shown):
        x[row, :, 3 * y[row] : 3 * y[row] + 3] = 255
    x = np.clip(x + rng.normal(0, 2, x.shape), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:200], y_test=y[:200])
    images = of_airbench(Setting(torch.device("cpu"), tiny=True, npz=str(tmp_path / "mine.npz")))
    assert (images.name, len(images.test_y)) == ("400 images of mine.npz", 200)
    kept: dict[str, np.ndarray] = {}
    whole = whole_row(TINY, images, 0, kept)
    assert whole.value is not None
    assert {name: len(rows) for name, rows in kept.items()} == {"random 60 %": 240, "least confident 60 %": 240}
    assert shown[kept["least confident 60 %"]].sum() < 80 < shown[kept["random 60 %"]].sum()
    row = share_row(TINY, images, 0, kept, "random 60 %")
    assert row.note.endswith("240 images")

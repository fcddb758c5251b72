"""``clsim select`` and ``clsim.select``: what is chosen, what is written, and what is refused in one line."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clsim.data import arrays
from clsim.errors import InputError
from clsim.execution import select
from clsim.pool.pool import Pool, Selection
from clsim.selectors.random import class_balanced
from tests.commands import clsim

pytestmark = pytest.mark.usefixtures("workplace")


def blobs(n: int = 90, d: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    return (5 * rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))).astype(np.float32), y


def test_a_data_set_gives_indices_a_picture_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["select", "--dataset", "digits", "--selector", "herding", "--fraction", "0.02", "--epochs", "1"]
    assert clsim(*words, "--per-class", "--out", "a.csv", "--picture", "a.png") == 0
    printed = capsys.readouterr().out
    assert "29 of 1,442 samples of digits by per_class(herding)" in printed
    assert "coverage radius" in printed
    assert "steps of a proxy" in printed
    frame = pd.read_csv("a.csv")
    assert list(frame.columns) == ["index"]
    assert len(frame) == frame["index"].nunique() == round(0.02 * 1442)
    with Image.open("a.png") as image:
        assert min(image.size) > 200
    assert clsim(*words, "--per-class", "--out", "b.csv") == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_random_trains_no_net(capsys: pytest.CaptureFixture[str]) -> None:
    assert clsim("select", "--dataset", "digits", "--selector", "random", "--budget", "20") == 0
    printed = capsys.readouterr().out
    assert "proxy" not in printed
    assert "coverage" not in printed
    assert len(pd.read_csv("picks.csv")) == 20


def test_features_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = blobs()
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = ["select", "--features", "x.npy", "--labels", "y.npy", "--budget", "9", "--per-class"]
    assert clsim(*words, "--option", "metric=cosine", "--picture", "p.png", "--out", "-") == 0
    printed = capsys.readouterr()
    frame = pd.read_csv(io.StringIO(printed.out))  # nothing but the CSV
    assert np.bincount(y[frame["index"]]).tolist() == [3, 3, 3]
    assert "0 3 · 1 3 · 2 3" in printed.err
    assert Path("p.png").stat().st_size > 1000


def test_weights_are_written() -> None:
    Path("mine.py").write_text(
        "import clsim, torch\ndef pick(pool, budget, *, rng):\n"
        "    return clsim.Selection(torch.arange(budget), torch.arange(budget) + 0.5)\n"
    )
    np.save("x.npy", blobs()[0])
    assert clsim("select", "--features", "x.npy", "--budget", "3", "--selector", "./mine.py:pick") == 0
    assert Path("picks.csv").read_text() == "index,weight\n0,0.5\n1,1.5\n2,2.5\n"


def test_what_is_there_is_overwritten_only_by_force(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", blobs()[0])
    Path("picks.csv").write_text("precious")
    assert clsim("select", "--features", "x.npy", "--budget", "3") == 2
    assert "'picks.csv' is there already" in capsys.readouterr().err
    assert Path("picks.csv").read_text() == "precious"
    assert clsim("select", "--features", "x.npy", "--budget", "3", "--force") == 0
    assert Path("picks.csv").read_text().startswith("index\n")


def header_of(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def hostile(name: str) -> None:
    x, _ = blobs()
    if name == "pickled":
        np.save("x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif name == "archive":
        np.savez("x.npz", x=x)
        Path("x.npz").rename("x.npy")
    elif name == "truncated":
        np.save("x.npy", x)
        Path("x.npy").write_bytes(Path("x.npy").read_bytes()[:-100])
    elif name == "no array":
        Path("x.npy").write_bytes(pickle.dumps([1, 2]))
    elif name == "vast":
        Path("x.npy").write_bytes(header_of("(10**9, 10**9)") + b"\0" * 64)
    elif name == "huge":
        Path("x.npy").write_bytes(header_of("(1000000000000, 1000)") + b"\0" * 64)
    elif name == "negative":
        Path("x.npy").write_bytes(header_of("(-1, 4)") + b"\0" * 64)
    elif name == "empty":
        Path("x.npy").write_bytes(b"")
    elif name == "no rows":
        np.save("x.npy", x[:0])
    elif name == "images":
        np.save("x.npy", np.zeros((4, 3, 8, 8), dtype=np.uint8))
    elif name == "NaN":
        np.save("x.npy", np.where(np.arange(len(x))[:, None] == 70, np.nan, x))
    elif name == "too large for float32":
        np.save("x.npy", x.astype(np.float64) * 1e300)
    elif name == "folder":
        Path("x.npy").mkdir()


HOSTILE = {
    "pickled": "cannot be read as .npy",
    "archive": "is an archive of arrays",
    "truncated": "cannot be read as .npy",
    "no array": "cannot be read as .npy",
    "vast": "cannot be read as .npy",
    "huge": "cannot be read as .npy",
    "negative": "x.npy",
    "empty": "cannot be read as .npy",
    "no rows": "of shape (0, 6), allowed: float32 or float64 (n, d)",
    "images": "uint8 of shape (4, 3, 8, 8), allowed: float32 or float64 (n, d)",
    "NaN": "row 70 holds NaN or infinite values",
    "too large for float32": "row 0 holds NaN or infinite values",
    "folder": "'x.npy' is a folder",
    "missing": "no file 'x.npy'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_features_are_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile(name)
    assert clsim("select", "--features", "x.npy", "--budget", "3") == 2
    line = capsys.readouterr().err
    assert HOSTILE[name] in line
    assert line.startswith("clsim: ")
    assert line.count("\n") == 1
    assert not Path("picks.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "3"], "found neither --dataset nor --features"),
        (["--features", "x.npy"], "found neither of fraction and budget"),
        (["--features", "x.npy", "--budget", "3", "--fraction", "0.1"], "found both of fraction and budget"),
        (["--features", "x.npy", "--fraction", "1.5"], "fraction: found 1.5"),
        (["--features", "x.npy", "--budget", "0"], "budget: found 0"),
        (["--features", "x.npy", "--budget", "3", "--dataset", "digits"], "found both of a data set and features"),
        (["--features", "x.npy", "--budget", "3", "--per-class"], "per_class: found without labels"),
        (["--features", "x.npy", "--budget", "3", "--labels", "z.npy"], "labels: z.npy: found 5 labels of 90"),
        (["--features", "x.npy", "--budget", "3", "--labels", "n.npy"], "n.npy: found -2 to -2"),
        (["--features", "x.npy", "--budget", "3", "--selector", "kcentre"], "did you mean 'k"),
        (["--features", "x.npy", "--budget", "3", "--option", "metrik=cosine"], "did you mean 'metric'"),
        (["--features", "x.npy", "--budget", "3", "--option", "metric"], "--option: found 'metric'"),
        (["--features", "x.npy", "--budget", "3", "--model", "mlp"], "model: found 'mlp' with features"),
        (["--features", "x.npy", "--budget", "3", "--out", "no/where.csv"], "--out: no folder 'no'"),
        (["--dataset", "digitz", "--budget", "3"], "did you mean 'digits'"),
        (["--dataset", "digits", "--budget", "3", "--labels", "z.npy"], "labels: found with a data set"),
        (["--dataset", "digits", "--budget", "3", "--model", "resnet"], "did you mean 'resnet18'"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", blobs()[0])
    np.save("z.npy", np.zeros(5, dtype=np.int64))
    np.save("n.npy", np.full(90, -2))
    assert clsim("select", *words) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    "asks", ["logits", "probabilities", "gradients", "predictions", "visible", "losses", "history"]
)
def test_a_selector_that_needs_a_net_is_told_so(asks: str) -> None:
    def needy(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        getattr(pool, asks)
        return Selection(torch.arange(budget))

    with pytest.raises(InputError, match=r"needy'?: the selector asks for a net .* but there are features alone"):
        select.select(needy, features=blobs()[0], budget=3)


def test_dropout_and_committees_need_a_net_too() -> None:
    def dropout(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(pool.stochastic(3, rng).argmax(0))

    def committee(pool: Pool, budget: int, *, rng: torch.Generator) -> Selection:
        return Selection(pool.committee(2)[0].features.argmax(0))

    for needy in (dropout, committee):
        with pytest.raises(InputError, match="there are features alone"):
            select.select(needy, features=blobs()[0], budget=3)


@pytest.mark.parametrize(
    "selector",
    ["class-balanced", "task-balanced", "balanced-random", "per_class(kcenter)", "prefilter(kcenter,class-balanced)"],
)
def test_what_balances_by_labels_is_refused_without_them(selector: str) -> None:
    """It would be random without a word."""
    asks = {"features": blobs()[0], "budget": 3}
    with pytest.raises(InputError, match=r"(-balanced|-random|per_class): found without labels, allowed: with a data"):
        select.select(selector, **asks)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="class_balanced: found without labels"):
        select.select(class_balanced, **asks)  # type: ignore[arg-type]
    assert len(select.select(selector, labels=[0, 1] * (len(blobs()[0]) // 2), **asks).index) == 3  # type: ignore[arg-type]


def test_float32_features_are_neither_copied_nor_written() -> None:
    x, _ = blobs()
    np.save("x.npy", x)
    before = Path("x.npy").read_bytes()
    mapped = arrays.features("x.npy")
    assert isinstance(mapped.base, np.memmap) or isinstance(mapped, np.memmap)
    found = select.select("kcenter", features="x.npy", budget=4)
    assert found.pool.features.data_ptr() == found.pool.data.x.data_ptr()
    assert Path("x.npy").read_bytes() == before
    for other in (x.astype(np.float64), x.astype(">f4"), np.asfortranarray(x), torch.from_numpy(x)):
        assert select.select("kcenter", features=other, budget=4).index.tolist() == found.index.tolist()


def test_coverage_is_what_it_says() -> None:
    x = np.array([[0.0], [1.0], [10.0], [4.0]], dtype=np.float32)
    found = select.select("kcenter", features=x, labels=[3, 3, 7, -1], budget=2)
    assert found.coverage(np.array([0, 2])) == pytest.approx((4.0, 1.25))
    assert found.index.tolist() == [3, 2]  # the one nearest the mean has no label
    assert found.counts == {"3": (0, 2), "7": (1, 1)}
    everything = select.select("random", features=x, budget=9)
    assert len(everything.index) == 4
    assert everything.coverage() == everything.coverage_at_random() == (0.0, 0.0)


def test_duplicates_among_the_picks_are_counted() -> None:
    x = np.zeros((4, 2), dtype=np.float32)
    x[3] = 1
    assert select.select("random", features=x, budget=4).unique == 0.5


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2])
def test_a_picture_of_next_to_nothing(n: int, d: int) -> None:
    np.save("x.npy", np.zeros((n, d), dtype=np.float32))
    assert clsim("select", "--features", "x.npy", "--budget", "1", "--picture", "p.png") == 0
    assert Path("p.png").stat().st_size > 1000


def test_torch_is_left_as_it_was() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    select.select("herding", dataset="digits", budget=5, epochs=1, threads=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_classes_of_a_random_choice_add_up() -> None:
    x, y = blobs(300, classes=3)
    found = select.select("random", features=x, labels=y, budget=50, seed=4)
    assert sum(picked for picked, _ in found.counts.values()) == 50
    assert {of for _, of in found.counts.values()} == {100}
    assert found.index.tolist() != select.select("random", features=x, labels=y, budget=50, seed=5).index.tolist()


@pytest.mark.slow
def test_a_million_features_take_less_than_three_times_their_own_memory(tmp_path: Path) -> None:
    n, d = 1_000_000, 128
    out = np.lib.format.open_memmap("x.npy", "w+", np.float32, (n, d))
    rng = np.random.default_rng(0)
    for start in range(0, n, 100_000):
        out[start : start + 100_000] = rng.normal(size=(100_000, d))
    del out
    code = (
        "import sys, torch; from clsim.cli import main; from clsim.training import machine; "
        "sys.argv = ['clsim', 'select', '--features', 'x.npy', '--budget', '30']\ntry: main.main()\n"
        "except SystemExit as e: print(machine.peak_bytes(torch.device('cpu')), e.code or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, code_of = done.stdout.split()[-2:]
    assert int(code_of) == 0
    assert int(peak) < 3 * 4 * n * d


def test_rows_that_are_labelled_already_are_no_candidates() -> None:
    x, y = blobs()
    first = select.select("kcenter", features=x, labels=y, budget=5).index
    then = select.select("kcenter", features=x, labels=y, budget=5, labelled=first)
    together = select.select("kcenter", features=x, labels=y, budget=10).index
    assert not {*then.index} & {*first}
    assert then.index.tolist() == together[5:].tolist()  # k-center goes on from what is labelled
    assert sum(picked for picked, _ in then.counts.values()) == 5
    assert then.pool.labelled is not None
    assert len(then.pool) == 85


def test_a_choice_resembles_the_query_and_avoids_the_private_set() -> None:
    """Of a data set: all that is wanted or avoided is of one class."""
    whole = select.select("random", dataset="digits", budget=1)
    y = whole.pool.data.y.numpy()
    threes, fives = (np.flatnonzero(y == label)[:20] for label in (3, 5))
    common = {"dataset": "digits", "budget": 30, "epochs": 5}
    like = select.select("flqmi", query=threes, **common)
    assert not {*like.index} & {*threes}
    assert np.mean(y[like.index] == 3) > 0.8
    apart = select.select("gccg", private=fives, options={"nu": 50.0}, **common)
    assert np.mean(y[apart.index] == 5) < 0.1


@pytest.mark.parametrize("rows", [[0, 90], [-1], [0.5]])
def test_rows_that_do_not_exist_are_refused(rows: list[float]) -> None:
    with pytest.raises(InputError, match="labelled: found rows outside 0 to 89, or no whole numbers"):
        select.select("kcenter", features=blobs()[0], budget=5, labelled=rows)  # type: ignore[arg-type]


def test_prob_cover_needs_features_alone() -> None:
    x, y = blobs()
    assert len(select.select("prob-cover", features=x, budget=6).index) == 6
    assert len(select.select("prob-cover", features=x, labels=y, budget=6, labelled=[0, 1]).index) == 6

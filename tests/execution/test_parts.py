"""Choices in parts: as from the whole, or within the bound; whatever is killed, and in whatever order."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import clsim
from clsim.cli.watched import watched
from clsim.data.shards import shards
from clsim.errors import InputError
from clsim.execution import part_work, parts
from clsim.execution.engines.engine import Outcome
from clsim.execution.part_work import Part
from clsim.execution.parts import METHODS, Plan, drawn, rows_of
from clsim.pool.pool import Cost
from clsim.selectors.submodular import facility_location, for_clients
from tests import commands
from tests.commands import refused

pytestmark = pytest.mark.usefixtures("workplace")


def clusters(n: int = 3000, d: int = 8, k: int = 30, seed: int = 0) -> np.ndarray:
    """Clusters of very different size, which a random choice misses; sorted by cluster, as files often are."""
    rng = np.random.default_rng(seed)
    of = np.sort(np.minimum(rng.geometric(0.15, n) - 1, k - 1))
    of[:: max(n // k, 1)] = np.arange(len(of[:: max(n // k, 1)])) % k
    return (10 * rng.normal(size=(k, d))[of] + rng.normal(size=(n, d))).astype(np.float32)


def saved(x: np.ndarray, name: str = "x.npy") -> str:
    np.save(name, x)
    return name


def distances(x: np.ndarray, picks: Any) -> np.ndarray:
    return np.sqrt(((x[:, None].astype(np.float64) - x[np.asarray(picks)][None]) ** 2).sum(-1)).min(1)


def service(x: np.ndarray, picks: Any) -> float:
    unit = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    return float((0.5 + unit @ unit[np.asarray(picks)].T / 2).max(1).mean())


def plan(
    path: str = "x.npy", selector: str = "kcenter", count: int | None = 3, budget: int = 20, **options: Any
) -> Plan:
    how: dict[str, Any] = {"logits": False, "seed": 0, "device": "cpu", "threads": 1}
    return part_work.plan_of(path, selector, options, budget, None, count, **how)


SCORES = ("entropy", "least-confidence", "margin")


@pytest.mark.parametrize("selector", METHODS)
def test_one_part_makes_the_picks_of_the_whole(selector: str) -> None:
    given: dict[str, Any] = {"logits" if selector in SCORES else "features": saved(clusters())}
    whole = clsim.select(selector, budget=40, **given).index
    assert clsim.select(selector, budget=40, parts=1, **given).index.tolist() == whole.tolist()
    share = clsim.select(selector, fraction=40 / 3000, parts=1, **given).index
    assert share.tolist() == whole.tolist()


@pytest.mark.parametrize("selector", [*SCORES, "random"])
@pytest.mark.parametrize("count", [2, 7])
def test_scores_make_the_picks_of_the_whole_in_any_number_of_parts(selector: str, count: int) -> None:
    x = clusters()
    x[1500:] = x[:1500]  # ties
    given: dict[str, Any] = {"logits" if selector in SCORES else "features": saved(x)}
    whole = clsim.select(selector, budget=41, **given)
    found = clsim.select(selector, budget=41, parts=count, **given)
    assert found.index.tolist() == whole.index.tolist()
    assert found.certificate == METHODS[selector].bound


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("count", [2, 3])
def test_k_center_is_within_four_times_the_optimum_by_brute_force(count: int, metric: str) -> None:
    for seed in range(20):
        x = clusters(16, 3, 4, seed)
        found = clsim.select("kcenter", features=saved(x), budget=4, parts=count, options={"metric": metric})
        if metric == "cosine":
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
        best = min(distances(x, some).max() for some in itertools.combinations(range(16), 4))
        radius = distances(x, found.index).max()
        assert radius <= 4 * best * (1 + 1e-5)
        inner, factor = (float(word) for word in found.certificate.split() if word[0].isdigit())
        assert radius <= inner * 1.001  # printed with four digits
        assert inner <= factor * best * 1.01


@pytest.mark.parametrize("count", [2, 7])
def test_k_center_covers_all_clusters(count: int) -> None:
    x = clusters()
    found, whole = (clsim.select("kcenter", features=saved(x), budget=40, **how) for how in ({"parts": count}, {}))
    assert distances(x, found.index).max() <= 1.5 * distances(x, whole.index).max()
    assert distances(x, found.index).max() < 0.6 * distances(x, np.arange(0, 3000, 75)).max()  # of the order of rows


def test_facility_location_is_within_its_bound_by_brute_force() -> None:
    values, best = [], []
    for seed in range(20):
        x = clusters(14, 3, 4, seed)
        found = clsim.select("facility-location", features=saved(x), budget=4, parts=3, seed=seed)
        values.append(service(x, found.index))
        best.append(max(service(x, some) for some in itertools.combinations(range(14), 4)))
    assert np.mean(values) >= (1 - np.exp(-1)) / 2 * np.mean(best)
    assert np.mean(values) >= 0.97 * np.mean(best)  # the bound is for the worst case: random reaches that, too
    assert all(value <= most + 1e-6 for value, most in zip(values, best, strict=True))


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("clients", [None, 300])
def test_facility_location_in_parts_is_near_that_of_the_whole(count: int, clients: int | None) -> None:
    x = clusters()
    options: dict[str, Any] = {} if clients is None else {"clients": clients}
    whole = clsim.select("facility-location", features=saved(x), budget=30, options=options)
    found = clsim.select("facility-location", features="x.npy", budget=30, options=options, parts=count)
    drawn_at_random = np.random.default_rng(0).permutation(3000)[:30]
    assert service(x, found.index) >= 0.98 * service(x, whole.index)
    assert 1 - service(x, found.index) < 0.8 * (1 - service(x, drawn_at_random))


def test_facility_location_for_clients_is_that_of_the_pool_for_all() -> None:
    x = torch.from_numpy(clusters(400))
    pool = parts.candidates.of_rows(x.numpy(), np.arange(400), 0, torch.device("cpu"), logits=False)
    rng = torch.Generator()
    whole = facility_location(pool, 12, rng=rng).index.tolist()
    for kind in ("dense", "blocks"):
        selection, value = for_clients(pool, 12, x, rng=rng, similarities=kind)  # type: ignore[arg-type]
        assert selection.index.tolist() == whole
        assert value == pytest.approx(service(x.numpy(), whole), abs=1e-6)


def test_the_best_of_the_rounds_counts() -> None:
    """The union may be worse than the picks of one part, which the bound of facility location needs."""
    saved(clusters())
    of = plan(selector="facility-location", budget=1, count=2)
    firsts = [parts.first_round(of, part) for part in range(2)]
    best = parts.Chosen(firsts[0].rows, 2.0, "")
    assert parts.second_round(of, [best, firsts[1]]) is best


@pytest.mark.parametrize("selector", ["kcenter", "facility-location"])
def test_each_row_is_in_one_part(selector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "DRAWN", 256)  # many blocks
    saved(clusters())
    of = plan(selector=selector, count=7)
    found = [rows_of(of, part) for part in range(7)]
    assert np.sort(np.concatenate(found)).tolist() == list(range(3000))
    assert all((np.diff(rows) > 0).all() for rows in found)
    if selector == "facility-location":
        share = np.array([np.isin(np.arange(1000), rows).sum() for rows in found])
        assert ((share - 1000 / 7) ** 2 / (1000 / 7)).sum() < 22.5  # χ² with 6 degrees of freedom: 0.1 %
    else:
        assert all(rows[-1] - rows[0] + 1 == len(rows) for rows in found)


def test_rows_are_drawn_uniformly() -> None:
    counts, rng = np.zeros(41), torch.Generator()
    for _ in range(4000):
        rows = drawn(41, 10, rng)
        assert len(np.unique(rows)) == 10
        counts[rows] += 1
    expected = 4000 * 10 / 41
    assert ((counts - expected) ** 2 / expected).sum() < 80  # χ² with 40 degrees of freedom: 0.02 %, and narrower here


@pytest.mark.parametrize("selector", ["kcenter", "facility-location"])
def test_neither_the_order_nor_the_files_change_the_picks(selector: str) -> None:
    x = clusters()
    saved(x)
    Path("many").mkdir()
    for number, rows in enumerate(np.array_split(x.astype(np.float64), 11)):
        np.save(f"many/x-{number}.npy", rows)
    found = clsim.select(selector, features="x.npy", budget=20, parts=4).index.tolist()
    assert clsim.select(selector, features="many", budget=20, parts=4).index.tolist() == found
    state = Path("state")
    of = plan(selector=selector, count=4)
    state.mkdir()
    part_work.choose(of, state, part_work.engine_of("", of, None, ""))
    for file in state.glob("part-*.json"):
        file.unlink()
    for number in (2, 0, 3, 1):
        assert Part(of, number, str(state.absolute())).carry_out().state == "finished"
    assert part_work.choose(of, state, part_work.engine_of("", of, None, "")).rows.tolist() == found


class Killed(BaseException):
    """What ends a choice, in place of a signal."""


def test_what_is_killed_goes_on_and_chooses_no_part_again(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(clusters())
    how: dict[str, Any] = {"features": "x.npy", "budget": 20, "parts": 5}
    whole = clsim.select("kcenter", **how).index.tolist()

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        clsim.select("kcenter", **how, state="state", progress=stop)
    assert len(list(Path("state").glob("part-*.json"))) == 3
    chosen, first_round = [], parts.first_round
    monkeypatch.setattr(parts, "first_round", lambda of, part: chosen.append(part) or first_round(of, part))
    seen: list[tuple[int, int]] = []
    found = clsim.select("kcenter", **how, state="state", progress=lambda *at: seen.append(at))
    assert found.index.tolist() == whole
    assert chosen == [3, 4]
    assert seen == [(done, 5) for done in range(1, 6)]


def half_done(name: str = "state") -> None:
    def stop(done: int, of: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        clsim.select("kcenter", features="x.npy", budget=20, parts=3, state=name, progress=stop)


def go_on(**how: Any) -> None:
    clsim.select("kcenter", **({"features": "x.npy", "budget": 20, "parts": 3, "state": "state"} | how))


def test_another_choice_or_other_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clusters()
    saved(x)
    half_done()
    for how, words in (
        ({"budget": 21}, r"budget of what is chosen there \(there 20, now 21\) changed since"),
        ({"parts": 4}, "parts of what is chosen there"),
        ({"seed": 1}, "seed of what is chosen there"),
        ({"options": {"metric": "cosine"}}, "options of what is chosen there"),
    ):
        with pytest.raises(InputError, match=words):
            go_on(**how)
    x[3, 3] += 1
    saved(x)
    with pytest.raises(InputError, match="the features of part 0 changed since; allowed: as before, or begin anew"):
        go_on()
    saved(x[:-1])
    with pytest.raises(InputError, match="counts of what is chosen there"):
        go_on()


def test_a_damaged_state_is_refused() -> None:
    saved(clusters())
    half_done()
    file = Path("state/part-000000.json")
    content = file.read_text()
    for damaged in (content[:-5], content.replace("rows", "Rows"), "[]", "null", '{"checksum": 1, "content": 2}'):
        file.write_text(damaged)
        with pytest.raises(InputError, match=r"part-000000\.json: damaged"):
            go_on()
    text = json.dumps({"rows": [0, 0], "measure": 0, "digest": ""})
    sealed = part_work.hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({"checksum": sealed, "content": text}))
    with pytest.raises(InputError, match="its rows are none of this choice"):
        go_on()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match=r"part-000000\.json: damaged \(it is no regular file\)"):
        go_on()
    Path("state/plan.json").write_text("[" * 5000)
    with pytest.raises(InputError, match=r"plan\.json: damaged"):
        go_on()
    Path("state/plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan\.json: damaged"):
        go_on()
    Path("other").mkdir()
    Path("other/mine.txt").touch()
    with pytest.raises(InputError, match=r"holds 'mine\.txt', and no choice in parts"):
        go_on(state="other")
    assert [path.name for path in Path("other").iterdir()] == ["mine.txt"]
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    with pytest.raises(InputError, match="link: is a link, allowed: a folder, or another --out"):
        go_on(state="link")
    assert not [*Path("empty").iterdir()]


class Deadly(Part):
    """A part whose process dies: the third once, or, where a file says so, always."""

    def carry_out(self) -> Outcome:
        marker = Path(f"{self.folder}.died")
        if self.number == 2 and (not marker.exists() or Path(f"{self.folder}.always").exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().carry_out()


@pytest.fixture
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    package = str(Path(clsim.__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("_path")
def test_a_killed_worker_changes_nothing(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="needs clsim[ray]")
    saved(clusters())
    how: dict[str, Any] = {"features": "x.npy", "budget": 20, "parts": 5}
    whole = clsim.select("facility-location", **how).index.tolist()
    monkeypatch.setattr(part_work, "Part", Deadly)
    found = clsim.select("facility-location", **how, engine=engine, workers=2, state="state")
    assert Path("state.died").exists()
    assert found.index.tolist() == whole


@pytest.mark.slow
@pytest.mark.usefixtures("_path")
def test_a_part_that_always_dies_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    saved(clusters())
    monkeypatch.setattr(part_work, "Part", Deadly)
    Path("state.always").touch()
    with pytest.raises(InputError, match=r"part 2: its process was stopped by signal 9 \(Killed\), 3 times"):
        clsim.select("kcenter", features="x.npy", budget=20, parts=5, engine="local", workers=1, state="state")


@pytest.mark.slow
def test_kill_9_of_the_command_loses_no_part() -> None:
    saved(clusters(200_000, 32))
    words = [sys.executable, "-m", "clsim", "select", "--features", "x.npy", "--budget", "300", "--parts", "40"]
    started = subprocess.Popen([*words, "--out", "a.csv"], stdout=subprocess.DEVNULL)
    state = Path("a.csv.parts")
    until = time.monotonic() + 60
    while len(list(state.glob("part-*.json"))) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    started.kill()
    started.wait()
    kept = {file: file.stat().st_mtime_ns for file in state.glob("part-*.json")}
    assert 3 <= len(kept) < 40
    again = subprocess.Popen([*words, "--out", "a.csv"], stdout=subprocess.DEVNULL)
    while again.poll() is None:
        for file, since in kept.items():
            if file.exists():
                assert file.stat().st_mtime_ns == since
        time.sleep(0.01)
    assert again.returncode == 0
    assert not state.exists()
    assert commands.clsim("select", "--features", "x.npy", "--budget", "300", "--parts", "40", "--out", "b.csv") == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    saved(clusters())
    words = ["select", "--features", "x.npy", "--budget", "20"]
    assert commands.clsim(*words, "--parts", "3", "--picture", "p.png") == 0
    printed = capsys.readouterr().out
    assert "20 of 3,000 × 8 features in 3 parts by kcenter" in printed
    assert "every sample lies within" in printed
    assert "coverage radius" in printed
    assert sorted(path.name for path in Path().iterdir()) == ["p.png", "picks.csv", "x.npy"]
    assert commands.clsim(*words, "--engine", "here", "--out", "-") == 0  # 96 kB are one part
    assert len(capsys.readouterr().out.splitlines()) == 21
    half_done(name="o.csv.parts")
    assert "now 2) changed since" in refused(capsys, *words, "--parts", "2", "--out", "o.csv")
    assert commands.clsim(*words, "--parts", "2", "--out", "o.csv", "--force") == 0
    assert not Path("o.csv.parts").exists()


def test_the_line_of_a_terminal_says_how_far_the_choice_is() -> None:
    shown = io.StringIO()
    with watched(Cost(), Console(file=shown, force_terminal=True), lambda: "3 of 7 parts"):
        pass
    assert "3 of 7 parts · 0 s" in shown.getvalue()


def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    x = clusters()
    np.save("y.npy", np.zeros(3000, dtype=np.int64))
    saved(x)
    words = ("select", "--features", "x.npy", "--budget", "20", "--out", "o.csv")
    for more, said in (
        (
            ("--selector", "badge"),
            "parts: found the selector 'badge', which keeps no bound in parts; allowed: entropy,",
        ),
        (("--selector", "per_class(kcenter)"), "which keeps no bound in parts"),
        (("--selector", "margin"), "the selector asks for a net"),
        (("--per-class",), "parts: found with per_class"),
        (("--labels", "y.npy"), "parts: found with labels"),
        (("--option", "metric=manhattan"), "metric"),
        (("--engine", "slurm"), "allowed: here, local, ray"),
        (("--engine", "locl"), "did you mean 'local'"),
        (("--address", "a:1"), "allowed: with --engine ray"),
    ):
        assert said in refused(capsys, *words, "--parts", "3", *more)
        assert not Path("o.csv.parts").exists()
    assert "allowed: 1 to 150" in refused(capsys, *words, "--parts", "151")
    assert "workers: found without parts" in refused(capsys, *words, "--workers", "2")
    assert "is a folder, allowed: a .npy file; with parts" in refused(
        capsys, "select", "--features", ".", "--budget", "2"
    )
    assert "allowed: with features or logits alone" in refused(
        capsys, "select", "--dataset", "digits", "--budget", "2", "--parts", "2", "--out", "o.csv"
    )
    x[1700] = np.inf
    saved(x)
    assert "row 1700 holds NaN or infinite" in refused(capsys, *words, "--parts", "3")


def test_ray_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    saved(clusters())
    said = refused(capsys, "select", "--features", "x.npy", "--budget", "20", "--engine", "ray")
    assert "allowed: after pip install 'clsim[ray]'" in said


def test_parts_are_of_64_mebibytes_where_no_number_is_given() -> None:
    found = type(shards(saved(clusters())))(("x",), (10_000_000,), 128)
    assert parts.parts_for(found, 1000) == 77
    assert parts.parts_for(found, 1_000_000) == 10
    assert parts.parts_for(found, 9_000_000) == 1


@pytest.fixture
def large() -> Iterator[Path]:
    """800,000 × 128 floats, 410 MB."""
    file = Path("large.npy")
    x = np.lib.format.open_memmap(file, "w+", np.float32, (800_000, 128))
    rng = np.random.default_rng(0)
    for rows in range(0, len(x), 8000):
        x[rows : rows + 8000] = rng.standard_normal((8000, 128), np.float32)
    x.flush()
    yield file
    file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selector", "options"), [("kcenter", {}), ("facility-location", {"clients": 500}), ("random", {})]
)
def test_memory_is_that_of_a_few_parts(large: Path, selector: str, options: dict[str, Any]) -> None:
    code = (
        "import clsim\nfrom benchmarks.shards import Memory\nwith Memory() as memory:\n"
        f"    clsim.select({selector!r}, features={str(large)!r}, budget=50, engine='here', options={options!r})\n"
        "print(memory.growth)"
    )
    root = str(Path(clsim.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert 2**24 < int(done.stdout) < 4 * parts.PART  # the whole: 410 MB


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 7])
def test_20_000_points_in_parts_against_the_whole(count: int) -> None:
    x = clusters(20_000, 16, 200)
    for selector in ("kcenter", "facility-location"):
        whole = clsim.select(selector, features=saved(x), budget=200).index
        found = clsim.select(selector, features="x.npy", budget=200, parts=count).index
        if selector == "kcenter":
            assert distances(x, found).max() <= 1.25 * distances(x, whole).max()
        else:
            assert service(x, found) >= 0.98 * service(x, whole)

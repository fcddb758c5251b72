"""Several studies at once on one folder of runs, whose processes are killed at random: nothing is lost or doubled.

``python -m tests.execution.swarm --runs 1000 --studies 3 --workers 8`` makes a thousand runs of about a second, in a
folder of its own, and prints the figures.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clsim.execution import plan
from clsim.records.store import RunRecord, Store

STRATEGIES = ("er", "finetune")
SETTINGS = ("data.per_class=20", "training.epochs=2", "memory.batch_size=10")
FILES = {"spec.json", "checkpoint.pt", "losses.npz", "record.json", "lock"}
"""What a run that is finished has, and nothing besides."""


@dataclass
class Swarm:
    """Studies of the same runs, each in another order.

    Attributes:
        folder: where all of it happens.
        runs: number of runs.
        studies: number of studies at a time.
        workers: number of processes of each study.
        pause: mean seconds between two kills.
        kills: number of kills, after which the studies are left alone.
        settings: settings of the runs.
        seed: seed of what is killed, and when.
    """

    folder: Path
    runs: int
    studies: int
    workers: int
    pause: float
    kills: int
    settings: tuple[str, ...] = SETTINGS
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, str] = field(default_factory=dict)

    def carry_out(self, seconds: float) -> None:
        """Let the studies end, killing on the way; raise AssertionError if anything is lost, doubled or wrong."""
        rng, began = random.Random(self.seed), time.monotonic()
        (self.folder / "data").mkdir(exist_ok=True)
        going = {place: self._begin(place) for place in range(self.studies)}
        strike, look = time.monotonic() + self.pause, time.monotonic() + 5
        try:
            while going:
                assert time.monotonic() - began < seconds, f"after {seconds:g} s: {self.counts}"
                time.sleep(0.05)
                for place, study in list(going.items()):
                    if study.poll() is None:
                        continue
                    self.counts[f"studies that ended with {study.returncode}"] += 1
                    assert study.returncode in (0, 1, -9), (study.returncode, self._said(place))
                    del going[place]
                    if study.returncode:  # killed; or it gave up a run whose processes were killed three times
                        assert self.counts["kills"], self._said(place)
                        going[place] = self._begin(place)
                if going and self.counts["kills"] < self.kills and time.monotonic() > strike:
                    self._strike(rng, [*going.values()])
                    strike = time.monotonic() + rng.expovariate(1 / self.pause)
                if time.monotonic() > look:
                    self._look()
                    look = time.monotonic() + 5
        finally:
            for study in going.values():
                study.kill()
                study.wait()
        self.counts["seconds"] = round(time.monotonic() - began)
        self._look()
        assert len(self.kept) == self.runs
        folders = Store(self.folder / "runs").folders()
        assert len(folders) == self.runs
        assert len([*(self.folder / "runs").iterdir()]) == self.runs
        for folder in folders:
            found = {path.name for path in folder.iterdir()}
            assert found - {"error.json"} == FILES, found  # a study that gave it up may have said so a moment too late
        assert not Store(self.folder / "runs").failures()

    def words(self, place: int) -> list[str]:
        """The command of a study; each begins with other seeds."""
        seeds = [*range(self.runs // len(STRATEGIES))]
        first = place * len(seeds) // self.studies
        named = ",".join(map(str, seeds[first:] + seeds[:first]))
        words = ["study", "--strategy", ",".join(STRATEGIES), "--seed", named, "--memory", "20", "--quiet"]
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += ["--workers", str(self.workers), "--runs", str(self.folder / "runs")]
        return [*words, "--data-root", str(self.folder / "data")]

    def numbers(self) -> dict[str, str]:
        """The accuracies of each run, as text, by fingerprint."""
        found = self._records()
        return {r.data["fingerprint"]: json.dumps([r.data["accuracy"], r.data["metrics"]]) for r in found}

    def _begin(self, place: int) -> subprocess.Popen[bytes]:
        self.counts["studies begun"] += 1
        code = "from clsim.cli.main import main; main()"
        with open(self.folder / f"{place}.log", "ab") as log:
            return subprocess.Popen([sys.executable, "-c", code, *self.words(place)], stderr=log)

    def _said(self, place: int) -> str:
        return (self.folder / f"{place}.log").read_text()[-2000:]

    def _strike(self, rng: random.Random, studies: list[subprocess.Popen[bytes]]) -> None:
        """Kill a parent, one time in six, or one of its workers."""
        parent = rng.choice(studies)
        try:
            workers = psutil.Process(parent.pid).children()
        except psutil.NoSuchProcess:
            return
        if rng.random() < 1 / 6 or not workers:
            parent.kill()
            self.counts["parents killed"] += 1
        else:
            try:
                rng.choice(workers).kill()
            except psutil.NoSuchProcess:
                return
            self.counts["workers killed"] += 1
        self.counts["kills"] += 1

    def _look(self) -> None:
        """Look at the runs as `clsim report` does, while they go on."""
        runs = self.folder / "runs"
        if not runs.is_dir():
            return
        before = self._finished()
        words = ["report", "--format", "runs", "--runs", str(runs)]
        code = "from clsim.cli.main import main; main()"
        shown = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        after = self._finished()
        for name, digest in self.kept.items():  # what was finished stays as it was
            assert before.get(name) == digest, name
        for name, digest in before.items():
            assert after.get(name) == digest, name
        self.kept = after
        self.counts["looks"] += 1
        if not after:
            return
        assert "skipped" not in shown.stderr, shown.stderr
        if not before and shown.returncode == 2:  # there was none to show yet
            return
        assert shown.returncode == 0, shown.stderr
        rows = list(csv.DictReader(io.StringIO(shown.stdout)))
        named = {(row["strategy"], row["seed"]) for row in rows}
        assert len(named) == len(rows), "a run is there twice"
        assert len(before) <= len(rows) <= len(after), (len(before), len(rows), len(after))
        true = {(r.data["spec"]["strategy"], str(r.data["spec"]["seed"])): r.data["metrics"] for r in self._records()}
        for row in rows:
            accuracy = true[row["strategy"], row["seed"]]["accuracy"]
            assert row["accuracy"] == f"{accuracy:.6g}", row

    def _records(self) -> list[RunRecord]:
        return Store(self.folder / "runs").records()[0]

    def _finished(self) -> dict[str, str]:
        """The digest of each record that says that its run is finished, by fingerprint."""
        found = {}
        for path in (self.folder / "runs").glob("*/record.json"):
            content = path.read_bytes()
            if json.loads(content)["finished"]:
                found[path.parent.name] = hashlib.sha256(content).hexdigest()
        return found


def planned(swarm: Swarm) -> list[plan.Planned]:
    """The runs of a swarm."""
    tables = {"strategy": list(STRATEGIES), "memory": ["20"], "seeds": swarm.runs // len(STRATEGIES)}
    return plan.plan(plan.read({**tables, "set": plan.axes(list(swarm.settings))}, "test"), Store(swarm.folder))


def main() -> None:
    """Carry out a swarm, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 1000), ("studies", 3), ("workers", 8), ("kills", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--pause", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=6 * 3600)
    given = vars(parser.parse_args())
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        seconds = given.pop("seconds")
        swarm = Swarm(Path(folder), **given)
        swarm.carry_out(seconds)
        print(f"{swarm.runs} runs, none lost, none doubled: {dict(swarm.counts)}")


if __name__ == "__main__":
    main()

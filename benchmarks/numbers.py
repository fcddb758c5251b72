"""Two installations of clsim, number by number: whether a change of the code has changed any of them, bit for bit.

Both carry out the commands below, each in a process of its own; what they find is compared without tolerance, but for
seconds and the peak of memory. Results stay in the work folder, so that a second call runs only what is missing there.
Beside it: the fingerprints of all shipped scenarios × strategies and of the shipped studies; runs that the old
installation began, was killed in, and the new one finishes; and what the new one says of the old one's records.

    python -m benchmarks.numbers OLD NEW [--only NAME,…] [--work FOLDER] [--jobs 2] [--fresh-new]

OLD and NEW are environments, folders that hold bin/clsim; of clsim only its commands and its run folders are used. The
changes that are expected, listed below, are those from commit 290b26d to 5d11e0e. The corrections after it, listed in
CHANGELOG, change the numbers of many learners on purpose: a later commit is compared with one that follows them.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MASS = "weights are masses, compared within a class"
REFERENCE = "held-out samples serve their own classes"
CLASSES = "classes known so far are counted"
FEATURES = "memory is filled by the features that the learner predicts by"
CONDENSERS = "condensers' augmentation, rates, momentum and loops"

EXPECTED: dict[str, str] = {
    "lwf": REFERENCE,
    "both": MASS,
    "gradients": MASS,
    "balanced": CLASSES,
    "boundary": CLASSES,
    "pseudo-label": CLASSES,
    "fixmatch": FEATURES,
    "mixmatch": FEATURES,
    "remixmatch": FEATURES,
    "comatch": FEATURES,
    **dict.fromkeys(("dm", "dc", "dsa", "dsac", "dcc", "condense-dm.npz"), CONDENSERS),
}
"""Name → why its numbers, or its fingerprint alone, have changed since version 0.1.0."""

REVISED = (
    *("craig", "grad-match", "sparse-approximation", "prob-cover", "base", "boundary-margin"),
    *("dm", "dc", "dsa", "dcc", "dsac"),
)
"""Buffers whose runs have another fingerprint since then, for one of these reasons."""

READ_OUT = ("hat", "packnet", "mean-imm", "mode-imm")
"""Strategies whose nearest-neighbour readout, on partly labelled streams, sees the features they predict by."""

FEW = "--memory 50"
TASK = "--set stream.setting=task"
SEMI = "--labels 20% --memory 50 --set training.epochs=2"
SELECT = "--dataset digits --budget 30 --epochs 1"
NARROW = "--set model.name=convnet3 --set model.options.width=8"
CONV = "--set model.name=pooled-convnet3 --set model.options.width=8 --set training.epochs=1"
BRIEF = "--set memory.options.model=convnet3 --set memory.options.iterations=2 --set learner.options.epochs=5"
MNIST = "--set data.per_class=20 --set training.epochs=1 --set evaluation.rows=seen --memory 50"

RUNS: dict[str, str] = {
    # every learner once, each with another buffer where it has one
    "sgd": f"--strategy finetune {TASK} --set stream.order=seeded --set stream.first=4 --set stream.experiences=4",
    "gdumb": f"--strategy gdumb --buffer kcenter {FEW} --set learner.options.epochs=5",
    "ewc": f"--strategy ewc {TASK} --set optimizer.name=adam --set optimizer.lr=0.001",
    "mas": f"--strategy mas --controller stability-decay {TASK}",
    "mean-imm": f"--strategy mean-imm {TASK} --set stream.tasks=hard-first",
    "mode-imm": f"--strategy mode-imm {TASK} --set optimizer.name=adamw --set optimizer.lr=0.001",
    "online-ewc": f"--strategy online-ewc {TASK} --set learner.options.samples=100 --set training.passes=2",
    "rwalk": f"--strategy rwalk {TASK} --set optimizer.schedule=cosine --set optimizer.warmup=0.1",
    "si": "--strategy si --set stream.setting=domain",
    "paws": f"--strategy paws {SEMI}",
    "csl": f"--strategy csl --buffer typiclust {SEMI} --set optimizer.name=lars --set optimizer.head_lr=0.01",
    "nncsl": f"--strategy nncsl --buffer herding {SEMI}",
    "pseudo-label": f"--strategy pseudo-label --buffer prob-cover {SEMI} --set memory.unlabelled=true",
    "fixmatch": f"--strategy fixmatch --buffer badge {SEMI} --set labels.unlabelled=stream",
    "mixmatch": f"--strategy mixmatch --buffer entropy {SEMI} --set labels.include_labelled=false",
    "remixmatch": f"--strategy remixmatch --buffer margin {SEMI} {CONV}",
    "comatch": f"--strategy comatch --buffer acs-fw {SEMI} {CONV}",
    "ccic": f"--strategy ccic --buffer bald {SEMI} {CONV} --set learner.options.freeze_norm=true",
    "lwf": f"--strategy er-lwf --buffer glister {FEW} --set stream.validation=0.2",
    "ebll": f"--strategy ebll {TASK} --set learner.options.epochs=5",
    "lwm": f'--strategy lwm {TASK} {CONV} --set data.augment=["crop"]',
    "lfl": "--strategy lfl",
    "gem": f"--strategy gem --buffer ring {FEW} {TASK}",
    "a-gem": f"--strategy a-gem --buffer task-balanced {FEW} {TASK}",
    "der": f"--strategy der {FEW}",
    "der++": f'--strategy der++ {FEW} {CONV} --set data.augment=["crop"]',
    "er-ace": f"--strategy er-ace --buffer gss-greedy {FEW} --set training.epochs=1",
    "packnet": f"--strategy packnet {TASK} --set training.patience=2 --set stream.validation=0.2"
    " --set optimizer.schedule=plateau --set optimizer.patience=1 --set training.epochs=10",
    "hat": f"--strategy hat {TASK} --set optimizer.schedule=step --set optimizer.milestones=[0.5]",
    "bic": f"--strategy bic --buffer rainbow {FEW} --set training.epochs=2",
    "icarl": f"--strategy icarl --buffer mean-of-features {FEW}",
    "ss-il": f"--strategy ss-il --buffer class-balanced {FEW}",
    "avalanche": "--strategy avalanche:EWC --set learner.options.ewc_lambda=10",
    # all other selectors, three at a time
    "coverage": f"--buffer prefilter(prefilter(kcenter-pca,kcenter-robust,3),dacs,2) {FEW}",
    "density": f"--buffer prefilter(prefilter(density,centre-of-gravity,3),usl,2) {FEW}",
    "clusters": f"--buffer prefilter(prefilter(k-means,k-medoids,3),agglomerative,2) {FEW}",
    "submodular": f"--buffer prefilter(prefilter(facility-location,graph-cut,3),log-det,2) {FEW}",
    "disparity": f"--buffer whole(prefilter(prefilter(disparity-min,disparity-sum,3),feature-based,2)) {FEW}",
    "mutual": f"--buffer prefilter(prefilter(prefilter(flvmi,flqmi,3),gcmi,2),logdetmi,2) {FEW}",
    "conditional": f"--buffer prefilter(prefilter(prefilter(flcg,gccg,3),logdetcg,2),com,2) {FEW}",
    "both": f"--buffer prefilter(prefilter(flcmi,logdetcmi,3),craig,2) {FEW}",
    "gradients": f"--buffer prefilter(prefilter(glister-active,sparse-approximation,3),grad-match,2) {FEW}",
    "dynamics": f"--buffer prefilter(prefilter(forgetting,grand,3),el2n,2) {FEW} --set proxy.epochs=2",
    "uncertainty": f"--buffer prefilter(prefilter(least-confidence,variation-ratio,3),mean-std,2) {FEW}",
    "dropout": "--buffer prefilter(prefilter(prefilter(mc-least-confidence,mc-entropy,4),mc-margin,2),"
    f"mc-variation-ratio,2) {FEW} --set model.options.dropout=0.2",
    "committee": "--buffer prefilter(prefilter(prefilter(ensemble-least-confidence,ensemble-entropy,4),"
    f"ensemble-margin,2),ensemble-variation-ratio,2) {FEW} --set proxy.epochs=1",
    "disagreement": f"--buffer prefilter(prefilter(ensemble-bald,vote-entropy,3),batch-bald,2) {FEW}"
    " --set proxy.epochs=1 --set proxy.source=proxy",
    "batches": f"--buffer prefilter(prefilter(cluster-margin,fass,3),poal,2) {FEW}",
    "balanced": f"--buffer whole(prefilter(prefilter(balancing,balanced-random,3),base,2)) {FEW}",
    "boundary": f"--buffer prefilter(prefilter(boundary-margin,cal,3),contextual-diversity,2) {FEW}",
    "adversarial": f"--buffer topped_up(prefilter(subsample(deepfool,60),adversarial-bim,2)) {FEW} {CONV}",
    "mir": f"--strategy mir {FEW} --set training.epochs=2 --set optimizer.momentum=0.9 --set optimizer.nesterov=true",
    "per-class": "--buffer per_class(random) --memory 3% --set evaluation.rows=seen",
    # memories that are made
    "dm": f"--strategy gdumb --buffer dm --memory 20 {BRIEF}",
    "dc": f"--strategy gdumb --buffer dc --memory 20 {BRIEF} --set memory.options.steps=2",
    "dsa": f"--strategy gdumb --buffer dsa --memory 20 {BRIEF} --set memory.options.steps=2",
    "dsac": f"--strategy gdumb --buffer dsac --memory 20 {BRIEF} --set memory.options.steps=2",
    "dcc": f"--strategy gdumb --buffer dcc --memory 20 {BRIEF} --set memory.options.steps=2",
    "idc": f"--strategy gdumb --buffer idc --memory 20 {BRIEF} --set memory.options.steps=2",
    "acc-dd": f"--strategy gdumb --buffer acc-dd --memory 20 {BRIEF} --set memory.options.steps=2",
    # other streams
    "permuted": f"--scenario permuted-mnist {MNIST} --set stream.experiences=3 --precision bf16",
    "rotated": f"--scenario rotated-mnist {MNIST} --set stream.experiences=3 --strategy er-ace",
    "sequence": f'--scenario sequence-digits {MNIST} --set data.sequence=["mnist","fashion-mnist"]'
    " --set stream.experiences=2 --set data.size=16 --set model.name=vgg-small",
    "fashion": f"--scenario split-fashion-mnist-semi --strategy mixmatch {MNIST} --labels 5 --set labels.foreign=mnist"
    f" --set labels.foreign_share=0.5 --set training.batch_size=10 {NARROW}",
    "cifar10": f"--scenario split-cifar10 {MNIST} --set stream.experiences=2 --set data.size=16 --precision bf16",
    "superclass": f"--scenario split-cifar100-class {MNIST} --set stream.order=superclass --set data.size=16 {NARROW}",
    "long-tail": f"--strategy cumulative --set data.imbalance=10 {FEW}",
    "joint": "--strategy joint --set stream.sizes=[2,3,5] --set stream.experiences=3 --set model.name=linear"
    " --set model.options={}",
}  # fmt: skip

FILES: dict[str, str] = {
    # commands that write a file, instead of a run folder
    "select-kcenter.csv": f"select {SELECT} --selector kcenter",
    "select-facility.csv": f"select {SELECT} --selector facility-location --per-class",
    "select-craig.csv": f"select {SELECT} --selector craig --seed 1",
    "select-el2n.csv": f"select {SELECT} --selector el2n",
    "condense-dm.npz": "condense --dataset digits --method dm --ipc 1 --option iterations=20 --nets 1 --epochs 30"
    " --no-picture",
}

KILLED: dict[str, str] = {
    # the old installation is killed in them after two experiences
    "killed-er": f"--set optimizer.restart=false --set optimizer.momentum=0.9 {FEW} --set training.epochs=40",
    "killed-der++": f"--strategy der++ {FEW} --set training.epochs=30",
    "killed-si": f"--strategy si {TASK} --set training.epochs=40",
    "killed-hat": f"--strategy hat {TASK} --set training.epochs=30",
    "killed-nncsl": f"--strategy nncsl {SEMI} --set training.epochs=8",
    "killed-comatch": f"--strategy comatch {SEMI} --set training.epochs=8",
    "killed-mas": f"--strategy mas --controller stability-decay {TASK} --set training.epochs=20",
}

REPORTS = ("summary --format csv", "summary --format runs", "forgetting --format csv", "cost --format csv")
MACHINE = {"started", "ended", "versions", "environment", "machines", "peak_bytes", "command", "fingerprint", "spec"}
"""Of a record, what is compared apart, or says when and on what it was made; as does all that ends in ``seconds``."""

Difference = tuple[str, Any, Any]


@dataclass(frozen=True)
class Side:
    """An installation, and the folder of what it found.

    Attributes:
        killed: folder of the runs that the old installation was killed in.
    """

    clsim: Path
    folder: Path
    killed: Path

    @property
    def runs(self) -> Path:
        """All of :data:`RUNS` together, for the reports."""
        return self.folder / "runs"

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """In a folder without scenarios and strategies, so that the shipped ones are found."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(self.clsim), *words], cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    def text(self, words: Sequence[str]) -> str:
        """What a command prints."""
        process = self.start(words)
        printed, errors = process.communicate()
        if process.returncode:
            raise RuntimeError((errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1])
        return printed

    def result(self, name: str) -> Path:
        """Where the result of a command is kept."""
        return self.folder / (name if name in FILES else f"{name}.json")

    def produce(self, name: str) -> None:
        """Carry a command out, unless its result is there."""
        if self.result(name).exists():
            return
        unfinished = self.folder / f"unfinished-{self.result(name).name}"
        if name in FILES:
            self.text([*FILES[name].split(), "--threads", "1", "--out", str(unfinished), "--force"])
        else:
            if name in KILLED:
                shutil.rmtree(self.folder / name, ignore_errors=True)
                shutil.copytree(self.killed / name, self.folder / name)
            unfinished.write_text(self.text(run_words(name, self.runs_of(name))), encoding="utf-8")
        unfinished.rename(self.result(name))

    def kill(self, name: str) -> None:
        """Begin a run, and kill it after its second experience: in the search of the third, where there is one."""
        runs = self.killed / name
        if runs.exists():
            return
        begun = self.killed / f"begun-{name}"
        shutil.rmtree(begun, ignore_errors=True)
        process = self.start(run_words(name, begun))
        while process.poll() is None:
            if any(map(past_two, begun.glob("*/record.json"))):
                process.send_signal(signal.SIGKILL)
                process.wait()
                begun.rename(runs)
                return
            time.sleep(0.01)
        raise RuntimeError(f"{name} ended before it was killed: {process.communicate()[1].strip()}")

    def runs_of(self, name: str) -> Path:
        """The folder of runs that a command works in: the killed ones have one each."""
        return self.folder / name if name in KILLED else self.runs


def run_words(name: str, runs: Path) -> list[str]:
    """The command of a run, in a folder of runs."""
    return ["run", *(RUNS | KILLED)[name].split(), "--json", "--runs", str(runs)]


def past_two(record: Path) -> bool:
    """Whether two experiences are finished, and the checkpoint, which is written after the record, is there, too."""
    data, checkpoint = json.loads(record.read_text(encoding="utf-8")), record.with_name("checkpoint.pt")
    saved = checkpoint.exists() and checkpoint.stat().st_mtime_ns >= record.stat().st_mtime_ns
    searches = "searches" not in data or record.with_name("search.json").exists()
    return len(data["cost"]) >= 2 and saved and searches


def difference(old: Any, new: Any, path: str = "") -> Difference | None:
    """The first number that differs, and where; −0.0 is not 0.0, and 1 is not 1.0."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if key not in MACHINE and not key.endswith("seconds")]
        parts = [(old.get(key, "absent"), new.get(key, "absent"), f"{path}.{key}".lstrip(".")) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return None if repr(old) == repr(new) else (path, old, new)
    return next((found for part in parts if (found := difference(*part))), None)


def arrays(file: Path) -> dict[str, tuple[str, bytes]]:
    """Of an .npz: name → type and shape, and the bytes."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            begin = 10 if content[6] == 1 else 12  # where the header begins, by the version of the format
            end = begin + int.from_bytes(content[8:begin], "little")
            found[name.removesuffix(".npy")] = (content[begin:end].decode().strip(), content[end:])
    return found


def array_difference(old: Path, new: Path) -> Difference | None:
    """The first element that differs, by its bits."""
    mine, others = arrays(old), arrays(new)
    for name in sorted({*mine, *others}):
        (kind, a), (other_kind, b) = mine.get(name, ("absent", b"")), others.get(name, ("absent", b""))
        if kind != other_kind:
            return name, kind, other_kind
        if a != b:
            code = ast.literal_eval(kind)["descr"]
            letter = {"<f8": "d", "<f4": "f", "<i8": "q", "<i4": "i", "|u1": "B"}.get(code, "B")
            step = struct.calcsize(f"<{letter}")
            at = next(i for i in range(0, len(a), step) if a[i : i + step] != b[i : i + step])
            values = [struct.unpack_from(f"<{letter}", content, at)[0] for content in (a, b)]
            return f"{name}[{at // step}]", *values
    return None


def compare(name: str, old: Side, new: Side) -> str:
    """A verdict in words: ``equal``, ``changed`` as expected, or what differs."""
    first, second = old.result(name), new.result(name)
    if name.endswith(".npz"):
        found = array_difference(first, second)
    elif name in FILES:
        found = difference(first.read_text().splitlines(), second.read_text().splitlines(), "line")
    else:
        records = [json.loads(file.read_text(encoding="utf-8"))[0] for file in (first, second)]
        found = difference(*records)
        losses = [s.runs_of(name) / r["fingerprint"] / "losses.npz" for s, r in zip((old, new), records, strict=True)]
        at = array_difference(*losses)
        found = found or (at and (f"losses.{at[0]}", *at[1:]))
        prints = [record["fingerprint"] for record in records]
        verdict = f"fingerprint differs: {prints[0]}, {prints[1]}; " if prints[0] != prints[1] else ""
        if name in EXPECTED and (verdict or found):
            before, after = (record["metrics"]["accuracy"] for record in records)
            return f"changed: {EXPECTED[name]}; final average accuracy {before} → {after}"
        if verdict:
            return verdict + (described(found) if found else "numbers equal")
    if found and name in EXPECTED:
        return f"changed: {EXPECTED[name]}"
    return described(found) if found else "equal"


def described(found: Difference) -> str:
    """In a line."""
    path, *values = found
    return f"differs: {path}, " + ", ".join(text if len(text := str(v)) < 80 else f"{text[:80]} …" for v in values)


def in_turn(work: Callable[[str], None], names: Sequence[str], jobs: int, label: str) -> dict[str, str]:
    """So many at a time. Returns what failed, and why."""
    failed: dict[str, str] = {}

    def one(name: str) -> None:
        started = time.perf_counter()
        try:
            work(name)
        except (RuntimeError, OSError, ValueError) as error:
            failed[name] = f"{label} failed: {error}"
        took = time.perf_counter() - started
        if took > 0.1:
            print(f"{label}: {name} {took:.1f} s {failed.get(name, '')}", file=sys.stderr)

    with ThreadPoolExecutor(jobs) as executor:
        list(executor.map(one, names))
    return failed


def numbers(old: Side, new: Side, names: Sequence[str], jobs: int) -> bool:
    """Part 1. Returns whether all is as expected."""
    failed = in_turn(old.kill, [name for name in names if name in KILLED], jobs, "killed")
    for side, label in ((old, "old"), (new, "new")):
        failed |= in_turn(side.produce, [name for name in names if name not in failed], jobs, label)
    same = changed = 0
    for name in names:
        try:
            verdict = failed.get(name) or compare(name, old, new)
        except (OSError, KeyError) as error:
            verdict = f"cannot be compared: {error!r}"
        changed += verdict.startswith("changed")
        same += verdict == "equal"
        print(f"{name:<20} {verdict}")
    print(f"{same} of {len(names)} equal" + (f", {changed} changed as expected" if changed else ""))
    return same + changed == len(names)


def fingerprints(side: Side) -> dict[str, str]:
    """Of every shipped scenario × strategy, and of every run of a shipped study: command → fingerprint."""
    listed = {}
    for kind in ("scenarios", "strategies", "studies"):
        lines = side.text(["list", kind]).splitlines()
        listed[kind] = [line.split()[0] for line in lines if line[:1].strip() and line.strip() != kind]
    grids = [["--scenario", ",".join(listed["scenarios"]), "--strategy", ",".join(listed["strategies"])]]
    grids += [[name] for name in listed["studies"]]
    found = {}
    for grid in grids:
        for run in json.loads(side.text(["study", *grid, "--dry-run", "--json", "--runs", "none"])):
            found[run["command"]] = run["fingerprint"]
    return found


def compare_fingerprints(old: Side, new: Side) -> bool:
    """Part 2. Returns whether all of the old installation's are the new one's."""
    mine, others = fingerprints(old), fingerprints(new)
    differing = [command for command, value in mine.items() if others.get(command) != value]
    words = [f"--buffer {name} " for name in REVISED] + [f"--strategy {name} " for name in READ_OUT]
    revised = [command for command in differing if any(word in command for word in words)]
    for command in differing:
        if command not in revised:
            print(f"  {command}: {mine[command]}, {others.get(command, 'absent')}")
    print(f"fingerprints: {len(mine) - len(differing)} of {len(mine)} the same, {len(revised)} changed as expected")
    return len(differing) == len(revised)


def old_records(old: Side, new: Side, names: Sequence[str], jobs: int) -> bool:
    """Part 3, in a copy of the old one's runs. Returns whether the new one says of them what the old one says."""
    different = []
    with tempfile.TemporaryDirectory(dir=new.folder) as copy:
        shutil.copytree(old.runs, copy, dirs_exist_ok=True)
        for report in REPORTS:
            words = ["report", *report.split(), "--runs", copy]
            found = difference(old.text(words).splitlines(), new.text(words).splitlines(), "line")
            different += [report] if found else []
            print(f"report {report}: {described(found) if found else 'the same'}")

        def again(name: str) -> None:
            if new.text(run_words(name, Path(copy))) != old.result(name).read_text(encoding="utf-8"):
                raise RuntimeError("not the old record")

        finished = [name for name in names if name in RUNS and name not in EXPECTED and old.result(name).exists()]
        failed = in_turn(again, finished, jobs, "again")
    for name, why in failed.items():
        print(f"  {name}: {why}")
    print(f"old records: {len(finished) - len(failed)} of {len(finished)} printed as they are, without a run")
    return not different and not failed


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("old", type=Path)
    arguments.add_argument("new", type=Path)
    arguments.add_argument("--only", default="", help="names with commas between them")
    arguments.add_argument("--work", type=Path, default=Path("numbers-work"))
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--fresh-new", action="store_true", help="forget what the new installation found")
    given = arguments.parse_args()
    work = given.work.resolve()
    if given.fresh_new:
        shutil.rmtree(work / "new", ignore_errors=True)
    for name in ("old", "new", "killed"):
        (work / name).mkdir(parents=True, exist_ok=True)
    old, new = (
        Side(place.absolute() / "bin" / "clsim", work / name, work / "killed")
        for place, name in ((given.old, "old"), (given.new, "new"))
    )
    everything = [*RUNS, *FILES, *KILLED]
    names = given.only.split(",") if given.only else everything
    if unknown := {*names} - {*everything}:
        raise SystemExit(f"--only: found {', '.join(sorted(unknown))}, allowed: {', '.join(everything)}")
    good = [numbers(old, new, names, given.jobs)]
    if not given.only:
        good += [compare_fingerprints(old, new), old_records(old, new, names, given.jobs)]
    raise SystemExit(not all(good))


if __name__ == "__main__":
    main()

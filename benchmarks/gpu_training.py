"""Sections of ``benchmarks.gpu`` that train: online replay, several seeds, precision, NNCSL's step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.graphs import measured, random_stream, spec_of
from benchmarks.measured import Measure, Row, Setting
from clsim.models import nets
from clsim.pool.exemplars import Exemplars, batches
from clsim.pool.pool import Cost
from clsim.spec import registry
from clsim.spec.resolve import resolve
from clsim.spec.run import RunSpec
from clsim.training.assemble import assemble
from clsim.training.contract import Seat, Terms
from clsim.training.experience import learn
from clsim.training.graph import RUN_FIRST, Graph
from clsim.training.machine import isolated
from clsim.training.progress import Quiet
from clsim.training.together import Together

STREAMS = {"split CIFAR-10": (2, 10), "split CIFAR-100": (5, 100)}
"""Name of a stream → the number of classes of an experience, and of all."""
BATCH, MEMORY, EXPERIENCES = 10, 500, 3
ALPHA, BETA = 0.1, 0.5


def online(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """New images a second of er and der++, beside the bare loop, kernel by kernel and as a graph.

    One kernel at a time, the memory is a reservoir that every batch updates, as online; as a graph, whose steps nothing
    may interrupt, it is updated after an experience, on both sides. Nothing augments.
    """
    steps = 6 if setting.tiny else 150
    for strategy, (name, (classes, width)) in itertools.product(("er", "der++"), STREAMS.items()):
        bare: dict[bool, float] = {}
        for graph in (False, True):
            how = "as a graph" if graph else "kernel by kernel"
            yield f"bare loop, {strategy}, {name}, {how}", partial(loop, setting, strategy, width, steps, graph, bare)
            yield (
                f"clsim, {strategy}, {name}, {how}",
                partial(ours, setting, strategy, (name, classes, width), steps, graph, bare),
            )


def loop(setting: Setting, strategy: str, width: int, steps: int, graph: bool, kept: dict[bool, float]) -> Row:
    """Measure the bare loop, and keep its rate."""
    how = "as a graph" if graph else "kernel by kernel"
    name = next(name for name, (_, all_) in STREAMS.items() if all_ == width)
    kept[graph] = Bare(setting, strategy, width).rate(steps, graph=graph)
    return Row(f"bare loop, {strategy}, {name}, {how}", kept[graph], "images/s", without_gpu(setting, graph))


def ours(
    setting: Setting, strategy: str, stream: tuple[str, int, int], steps: int, graph: bool, bare: dict[bool, float]
) -> Row:
    """Measure clsim's loop, beside what the bare loop reached."""
    name, classes, width = stream
    spec = online_spec(setting, strategy, steps, by_experience=graph)
    said = []
    if graph:
        plain, losses = measured(spec, record=False, classes=classes, width=width)
        steps_a_second, replayed = measured(spec, record=True, classes=classes, width=width)
        rate, gap = BATCH * steps_a_second, (losses - replayed).abs().max().item()
        said.append(f"{steps_a_second / plain:.2f} × kernel by kernel, losses differ by {gap:.2g} at most")
    else:
        rate = learning_rate(setting, spec, classes, width)
    if graph in bare:
        said.append(f"{rate / bare[graph]:.2f} × the bare loop")
    note = "; ".join(filter(None, [*said, without_gpu(setting, graph)]))
    how = "as a graph" if graph else "kernel by kernel"
    return Row(f"clsim, {strategy}, {name}, {how}", rate, "images/s", note)


def without_gpu(setting: Setting, graph: bool) -> str:
    return "no GPU: nothing is recorded" if graph and not setting.cuda else ""


def online_spec(setting: Setting, strategy: str, steps: int, *, by_experience: bool) -> RunSpec:
    """Resolve replay on a stream of one pass, batch 10 + 10, that does not augment."""
    further = ["data.augment=[]", f"memory.capacity={MEMORY}", f"memory.batch_size={BATCH}", "optimizer.lr=0.03"]
    if not by_experience:
        further += ["training.capturable=false", "training.last_batch=short"]
        further += ["memory.buffer=reservoir", "memory.update=batch"]
    return spec_of(strategy, steps, "mlp" if setting.tiny else "slim-resnet18", setting.device.type, further)


def learning_rate(setting: Setting, spec: RunSpec, classes: int, width: int) -> float:
    """Measure new images a second over all experiences but the first: training, and the memory's updates."""
    with isolated(spec, setting.device):
        seen, started = learnt(setting, spec, classes, width)
    return seen / (setting.now() - started)


def learnt(setting: Setting, spec: RunSpec, classes: int, width: int, seat: Seat | None = None) -> tuple[int, float]:
    """Train on a stream; return the number of new images of all experiences but the first, and when these began."""
    stream = random_stream(spec, classes=classes, width=width)
    setup, learner = assemble(spec, stream, Cost(), seat=seat)
    started, seen = 0.0, 0
    for position in range(len(stream)):
        if position == 1:
            started = setting.now()
        setup.classes.update(stream.labels_seen(position), setup.memory.begun)
        terms = learn(stream.experience(position), setup, learner, classes * (position + 1), Quiet())
        seen += len(terms) * spec.training.batch_size if position else 0
    return seen, started


class Bare:
    """The arithmetic of er and der++ in a flat loop, as one writes it: its memory is a few tensors. Final.

    Unlike clsim's runs, it lets cuDNN take kernels whose sums differ from run to run.
    """

    def __init__(self, setting: Setting, strategy: str, width: int) -> None:
        self._setting, self._twice, device = setting, strategy == "der++", setting.device
        body = registry.component("models", "mlp" if setting.tiny else "slim-resnet18")
        visible = torch.ones(1, width, dtype=torch.bool)
        self.net = nets.build(body, (3, 32, 32), visible, 0, device)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.SGD(self.net.parameters(), 0.03, fused=True)
        self._rng, rows = torch.Generator().manual_seed(0), MEMORY
        self._x = torch.zeros(rows, 3, 32, 32, dtype=torch.uint8, device=device)
        self._y = torch.zeros(rows, dtype=torch.int64, device=device)
        self._soft = torch.zeros(rows, width, device=device)
        self._logits = torch.zeros(BATCH, width, device=device)

    def rate(self, steps: int, *, graph: bool) -> float:
        """Measure new images a second; without a graph, the memory is a reservoir that each step updates."""
        device, n = self._setting.device, steps * BATCH
        x = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=self._rng).to(device)
        y = torch.randint(0, self._soft.shape[1], (n,), generator=self._rng).to(device)
        recorded = Graph(device, []) if graph else None
        started, first = 0.0, min(RUN_FIRST + 1, steps - 1)
        for number in range(steps):
            if number == first:
                started = self._setting.now()
            rows = slice(number * BATCH, (number + 1) * BATCH)
            drawn = torch.randperm(MEMORY, generator=self._rng)[: BATCH * (2 if self._twice else 1)].to(device)
            new = columns(x[rows], y[rows], self._soft[:BATCH])
            old = columns(self._x[drawn], self._y[drawn], self._soft[drawn])
            self.step(new, old) if recorded is None else recorded.step(self.step, new, old)
            if not graph:
                self._keep(new, number * BATCH)
        return (steps - first) * BATCH / (self._setting.now() - started)

    def step(self, new: Exemplars, old: Exemplars | None) -> Terms:
        """Take one step; of der++'s exemplars the first half is held to its logits, the second to its labels."""
        assert old is not None
        x = torch.cat([new.x, old.x]).to(torch.float32, memory_format=torch.channels_last).sub_(127.5).mul_(1 / 127.5)
        out = self.net.head(self.net.body(x))
        if self._twice:
            assert old.soft is not None
            terms = F.cross_entropy(out[:BATCH], new.y), ALPHA * F.mse_loss(out[BATCH:-BATCH], old.soft[:BATCH])
            loss = terms[0] + terms[1] + BETA * F.cross_entropy(out[-BATCH:], old.y[BATCH:])
        else:
            loss = F.cross_entropy(out, torch.cat([new.y, old.y]))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._logits = out[:BATCH].detach()
        return {"loss": loss.detach()}

    def _keep(self, new: Exemplars, seen: int) -> None:
        """Let the reservoir keep some of a batch; the places are drawn on the CPU, so that nothing waits."""
        places = torch.randint(seen + MEMORY + BATCH, (BATCH,), generator=self._rng)
        inside = places < MEMORY
        to, of = places[inside].to(new.x.device), inside.nonzero().flatten().to(new.x.device)
        self._x[to], self._y[to], self._soft[to] = new.x[of], new.y[of], self._logits[of]


def columns(x: Tensor, y: Tensor, soft: Tensor) -> Exemplars:
    """Put tensors into the columns of exemplars, as the recorder of steps takes them."""
    return Exemplars(x, y, torch.zeros_like(y), y.new_zeros(len(y), dtype=torch.float32), y, soft=soft)


SEEDS = (1, 5, 20)


def seeds_together(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """New images a second, over all seeds, of er on split CIFAR-100: one seed, then several in one net."""
    alone: list[float] = []
    for seeds in SEEDS:
        what = f"er, split CIFAR-100, {seeds} seed{'s together' * (seeds > 1)}"
        yield what, partial(seeds_row, setting, what, seeds, alone)


def seeds_row(setting: Setting, what: str, seeds: int, alone: list[float]) -> Row:
    spec, shape = online_spec(setting, "er", 6 if setting.tiny else 60, by_experience=False), STREAMS["split CIFAR-100"]
    if seeds == 1:
        alone.append(learning_rate(setting, spec, *shape))
        return Row(what, alone[0], "images/s")
    works = [partial(learnt, setting, replace(spec, seed=seed), *shape) for seed in range(seeds)]
    with isolated(spec, setting.device):
        found = Together(seeds, setting.device).run(works)
        ended = setting.now()
    for one in found:
        if isinstance(one, BaseException):
            raise one
    rate = sum(seen for seen, _ in found) / (ended - min(started for _, started in found))
    return Row(what, rate, "images/s", f"{rate / alone[0]:.2f} × one seed" if alone else "")


PRECISIONS = {
    "fp32": ["training.tf32=none"],
    "fp32, TF32 in convolutions": ["training.tf32=convolutions"],
    "fp32, TF32 in convolutions and products": ["training.tf32=all"],
    "bf16": ["training.precision=bf16"],
}
"""Name of a precision → its settings."""


def precision(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Images a second of ResNet-18, batch 256, at each precision, channels-last and not."""
    model, size = ("slim-resnet18", 16) if setting.tiny else ("resnet18", 256)
    for (name, settings), last in itertools.product(PRECISIONS.items(), (True, False)):
        what = f"{model}, batch {size}, {name}, {'channels-last' if last else 'contiguous'}"
        settings = [*settings, f"training.channels_last={str(last).lower()}"]
        yield what, partial(precision_row, setting, what, model, size, settings)


def precision_row(setting: Setting, what: str, model: str, size: int, settings: list[str]) -> Row:
    steps = 2 if setting.tiny else 40
    further = [f"training.batch_size={size}", f"model.name={model}", "training.capturable=false", "optimizer.lr=0.01"]
    spec = spec_of("finetune", steps, model, setting.device.type, [*further, *settings])
    return Row(what, learning_rate(setting, spec, 5, 100), "images/s")


def nncsl(setting: Setting) -> Iterator[tuple[str, Measure]]:
    """Milliseconds of a step of NNCSL on CIFAR-10, 5 % labelled, in the second experience, the old net the teacher."""
    for name in ("fp32", "bf16"):
        yield f"NNCSL, CIFAR-10, {name}", partial(nncsl_row, setting, name)


def nncsl_row(setting: Setting, name: str) -> Row:
    steps, warm = (2, 1) if setting.tiny else (20, 3)
    sizes = ["model.name=slim-resnet18", "training.batch_size=8", "memory.batch_size=8", "memory.capacity=20"]
    spec = resolve(
        "nncsl-cifar10",
        "nncsl",
        settings=[
            *(sizes if setting.tiny else []),
            *("stream.experiences=2", f"training.steps={warm}", "labels.per_class=10"),
            *(f"training.device={setting.device.type}", f"training.precision={name}"),
        ],
    )
    stream = random_stream(spec, classes=2, per_class=40 if setting.tiny else 600, width=10)
    setup, learner = assemble(spec, stream, Cost())
    with isolated(spec, stream.device):
        learn(stream.experience(0), setup, learner, 2, Quiet())
        experience, size = stream.experience(1), spec.training.batch_size
        learner.begin(experience)
        passes = (batches(learner.incoming(experience), size, setup.randomness.order) for _ in itertools.count())
        endless = itertools.chain.from_iterable(passes)
        started = 0.0
        for number, batch in enumerate(itertools.islice(endless, warm + steps)):
            if number == warm:
                started = setting.now()
            learner.observe(batch)
        spent = (setting.now() - started) / steps
    return Row(
        f"NNCSL, CIFAR-10, {name}", 1000 * spent, "ms a step", f"{size} unlabelled images a step, {spec.model.name}"
    )

"""Passes side by side: several cores give the numbers of one, and nets that may change in a pass are not shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clsim
from clsim.execution.engines.engine import Job
from clsim.execution.engines.local import Local
from clsim.execution.execute import execute
from clsim.models import nets, resnet, vgg
from clsim.models.aside import Aside
from clsim.models.passes import aside, can_share, on_cores, pieces, side_by_side
from clsim.pool.pool import Pool, Selection
from clsim.records.store import RunRecord, Store
from clsim.selectors.combinators import per_class
from clsim.spec.cores import cores, cores_of_one
from clsim.spec.resolve import resolve
from clsim.training import evaluations
from tests.helpers import assert_same, vectors

CPU = torch.device("cpu")


def net_of(model: Callable[..., nn.Module] = resnet.slim_resnet18) -> nets.Net:
    visible = torch.ones(1, 10, dtype=torch.bool)
    return nets.build(model, (3, 32, 32), visible, 0, CPU).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(n: int) -> Tensor:
    x = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


class Own(nn.Conv2d):
    """A layer of a user's, which may do anything in a pass."""


def own_model(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(Own(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_two_threads_pass_at_the_same_time_and_return_in_order() -> None:
    met = threading.Barrier(2)  # nobody goes on before two are there

    def passed(part: int) -> tuple[int, int]:
        met.wait(timeout=20)
        return part, torch.get_num_threads()

    torch.set_num_threads(1)
    with on_cores(2):
        assert side_by_side(net_of(), passed, range(4)) == [(part, 1) for part in range(4)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_and_logits_are_equal_to_the_last_bit(precision: str) -> None:
    net, x, found = net_of().train(), images(26), []
    states = [value.clone() for value in net.state_dict().values()]
    torch.set_num_threads(1)
    for count in (1, 2, 5):
        pool = Pool(
            vectors(x),
            net,
            lambda part: part,
            batch_size=4,
            precision=lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
        )
        with on_cores(count):
            found.append((pool.features, pool.logits))
        assert all(module.training for module in net.modules())
        assert not pool.features.requires_grad
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
    assert_same(states, list(net.state_dict().values()))


def test_classes_that_are_chosen_from_apart_pass_side_by_side() -> None:
    """Each in its own batches, and only what a selector asks for counts."""
    x, y, found = images(14), torch.tensor([0] * 6 + [1] * 5 + [2] * 3), []
    torch.set_num_threads(1)
    for count in (1, 2):
        pool, asked = Pool(vectors(x, y), net_of(), lambda part: part), list[Tensor]()

        def first(own: Pool, budget: int, *, rng: torch.Generator, into: list[Tensor] = asked) -> Selection:
            if own.label != 1:
                into.append(own.features)
            return Selection(torch.arange(min(budget, len(own))))

        with on_cores(count):
            chosen = per_class(first)(pool, 6, rng=torch.Generator().manual_seed(0))
        assert pool.cost.forward_passes == 9
        found.append([chosen.index, *asked])
    assert_same(found[0], found[1])


def recorded(folder: Path, cores: int, *settings: str, learner: str = "er") -> RunRecord:
    small = ["stream.experiences=2", "data.per_class=10", "model.name=convnet3", "model.options.width=4"]
    small += ["evaluation.rows=all", "evaluation.batch_size=32", "evaluation.steps=3", "stream.validation=0.2"]
    spec = resolve("split-digits", learner, settings=[*small, *settings], flags={"memory": {"buffer": "kcenter"}})
    return execute(spec, Store(folder), cores=cores)


def test_a_run_on_two_cores_has_the_record_of_a_run_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passing: set[int] = set()
    forward = nets.Net.features

    def noted(self: nets.Net, x: Tensor) -> Tensor:
        passing.add(threading.get_ident())
        return forward(self, x)

    joined, join = [0], Aside.join

    def counted(self: Aside) -> None:
        joined[0] += 1
        join(self)

    monkeypatch.setattr(nets.Net, "features", noted)
    monkeypatch.setattr(Aside, "join", counted)
    one = recorded(tmp_path / "one", 1)
    assert (len(passing), joined[0]) == (1, 0)
    two = recorded(tmp_path / "two", 2)
    assert len(passing) > 2
    assert joined[0] == sum(cost["steps"] for cost in two.data["cost"]) > 0
    states = [torch.load(record.folder / "checkpoint.pt", weights_only=True) for record in (one, two)]
    for part in ("learner", "memory", "randomness"):
        assert_same(states[0][part], states[1][part])
    for key in ("fingerprint", "accuracy", "initial", "validation", "metrics"):
        assert one.data[key] == two.data[key]
    curves = [[{**part["curve"], "seconds": None} for part in record.data["batches"]] for record in (one, two)]
    assert curves[0] == curves[1]
    for first, second in zip(one.data["cost"], two.data["cost"], strict=True):
        assert {k: v for k, v in first.items() if "passes" in k} == {k: v for k, v in second.items() if "passes" in k}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("model", [resnet.slim_resnet18, nets.convnet3, vgg.vgg_small])
def test_gradients_aside_are_those_of_the_backward_pass(model: Callable[..., nn.Module], bf16: bool) -> None:
    """Weights and biases, and batch norm's statistics, over several steps; those aside come last."""
    x, task = images(12), torch.zeros(12, dtype=torch.int64)
    y, found = torch.arange(12) % 10, list[Any]()
    torch.set_num_threads(1)
    for count in (1, 2):
        net = net_of(model).train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with on_cores(count):
            for _ in range(3):
                beside = aside(net)
                assert (beside is not None) == (count == 2)
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16), nullcontext() if beside is None else beside:
                    loss = nn.functional.cross_entropy(net(x, task), y)
                loss.backward()
                if beside is not None:
                    assert any(weight.grad is None for weight in net.body.parameters())
                    beside.join()
                optimizer.step()
        strides = [p.grad.stride() for p in net.parameters() if p.grad is not None]
        found.append([net.state_dict(), [p.grad for p in net.parameters()], strides])
    assert all(gradient is not None for gradient in found[1][1])
    assert_same(found[0], found[1])


def test_a_weight_that_is_used_twice_and_one_that_is_kept_have_the_gradients_of_the_backward_pass() -> None:
    found = []
    for count in (1, 2):
        net = net_of()
        net.body[4].requires_grad_(False)  # type: ignore[index]
        with on_cores(count):
            beside = aside(net)
            with nullcontext() if beside is None else beside:
                loss = net.features(images(6)).square().sum() + net.features(images(3)).sum()
            loss.backward()
            if beside is not None:
                beside.join()
        found.append([p.grad for p in net.parameters()])
    assert found[0][-1] is found[1][-1] is None  # of the head
    assert sum(gradient is None for gradient in found[1]) > 2
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_convolutions_of_other_forms_are_left_to_the_backward_pass() -> None:
    def model(shape: tuple[int, ...]) -> nn.Module:
        same = nn.Conv2d(4, 4, 3, padding="same", padding_mode="circular")
        layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding="same"), same, nn.Conv2d(4, 6, 3, 2, groups=2)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    found = []
    for count in (1, 2):
        net = net_of(model)
        with on_cores(count):
            beside = aside(net)
            with nullcontext() if beside is None else beside:
                loss = net.features(images(3)).square().sum()
            loss.backward()
            if beside is not None:
                beside.join()
        found.append([p.grad for p in net.body.parameters()])
    assert_same(found[0], found[1])


def test_nets_that_may_change_in_a_pass_are_not_shared() -> None:
    net, own, hooked = net_of(), net_of(own_model), net_of()
    hooked.body[0].register_forward_hook(lambda *_: None)  # type: ignore[index]
    assert can_share(net)
    assert not can_share(own)
    assert not can_share(hooked)
    assert not can_share(net_of(nets.mlp))
    with net.tapped():
        assert not can_share(net)
    assert can_share(net)


@pytest.mark.parametrize(
    ("strategy", "shared"),
    [
        ("er", True),
        ("der++", True),
        ("er-ace", True),
        ("icarl", False),
        ("bic", False),
        ("hat", False),
        ("mean-imm", False),
    ],
)
def test_learners_that_predict_in_their_own_way_pass_one_by_one(strategy: str, shared: bool, tmp_path: Path) -> None:
    seen: list[Any] = []
    original = evaluations.measured

    def measured(*arguments: Any) -> Any:
        seen.append(arguments[6] if len(arguments) > 6 else None)
        return original(*arguments)

    small = ["stream.experiences=2", "data.per_class=5", "stream.setting=task"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluations, "measured", measured)
        clsim.run("split-digits", strategy, settings=small, runs=tmp_path)
    assert (seen[0] is not None) == shared


def test_the_runs_of_a_study_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clsim.execution.engines.local.cores", lambda: 6)
    engine, given = Local(2), list[Job]()
    spec = resolve("split-digits", "er")
    monkeypatch.setattr("clsim.execution.engines.local._Worker", lambda gpu: Taker(given))
    engine.submit([Job(spec, "", "runs", None, ".")] * 2)
    engine.poll(0)
    assert [job.cores for job in given] == [3, 3]


class Taker:
    """A process that takes a job."""

    def __init__(self, given: list[Job]) -> None:
        self.job: Job | None = None
        self.connection, self._other = Pipe()
        self._given = given

    def give(self, job: Job) -> None:
        self._given.append(job)
        self.job = job


def test_a_single_run_has_the_cores_of_its_process_or_fewer_if_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores_of_one() == cores()
    for said, expected in (("1", 1), ("1000", cores()), ("many", cores()), ("0", cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert cores_of_one() == expected


def test_the_parts_of_a_pass_fit_a_cache_and_hold_each_sample_once() -> None:
    net = net_of()
    for n in (0, 1, 100, 101, 320, 1000):
        for most in (7, 100, 500):
            parts = pieces(net, n, most)
            assert torch.arange(n).tolist() == [row for rows in parts for row in range(n)[rows]]
            sizes = [len(range(n)[rows]) for rows in parts]
            assert max(sizes) <= min(most, 100)
            assert n <= 100 or most == 7 or max(sizes) - min(sizes) < len(sizes)
    assert pieces(None, 320, 500) == [slice(0, 500)]
    assert [len(range(1000)[rows]) for rows in pieces(net_of(own_model), 1000, 500)] == [500, 500]  # it may do anything


def test_an_output_does_not_depend_on_the_parts_of_its_pass() -> None:
    torch.set_num_threads(1)
    net, x = net_of().eval(), images(230)
    with torch.no_grad():
        whole = net.features(x)
        parts = torch.cat([net.features(x[rows]) for rows in pieces(net, len(x), 500)])
    assert torch.equal(whole, parts)

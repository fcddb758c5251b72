"""Networks: the sizes that papers give them, the images that they take, and dropout as an option."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import clsim
from clsim.errors import InputError
from clsim.learners.isolation.gates import Gated
from clsim.models import nets
from clsim.spec import registry
from tests.helpers import assert_same, generator

CPU = torch.device("cpu")
ONE = torch.ones(1, 10, dtype=torch.bool)
VGG = {
    "vgg-small": (334_016, 6, 128),
    "vgg-base": (1_145_408, 6, 512),
    "vgg-wide": (4_500_864, 6, 512),
    "vgg-deep": (4_280_704, 19, 512),
}
"""Weights and biases of the convolutions, convolutions, units of both layers behind them: De Lange et al. (2021)."""


def body_of(name: str, shape: nets.Shape, **options: float) -> nn.Module:
    return nets.build(registry.component("models", name, options), shape, ONE, 0, CPU).body


def kinds(body: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in body.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", VGG)
def test_vgg_has_the_parameters_that_the_survey_counts(name: str) -> None:
    parameters, convolutions, units = VGG[name]
    body = body_of(name, (3, 64, 64))
    layers = kinds(body, nn.Conv2d)
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == parameters
    assert len(layers) == convolutions
    assert [layer.out_features for layer in kinds(body, nn.Linear)] == [units, units]
    assert len(kinds(body, nn.MaxPool2d)) == 4
    assert not kinds(body, nn.BatchNorm2d)
    last = layers[-1].out_channels
    assert kinds(body, nn.Linear)[0].in_features == 4 * 4 * last  # 64 pixels, halved four times


@pytest.mark.parametrize("name", VGG)
@pytest.mark.parametrize(
    ("shape", "pixels"),
    [((3, 32, 32), 4), ((1, 28, 28), 1), ((3, 48, 64), 12), ((1, 8, 8), 1), ((1, 5, 9), 2), ((1, 1, 1), 1)],
    ids=str,
)
def test_vgg_takes_smaller_images(name: str, shape: nets.Shape, pixels: int) -> None:
    body = body_of(name, shape)
    features = body(torch.randn(3, *shape, generator=generator()))
    assert features.shape == (3, VGG[name][2])
    assert kinds(body, nn.Linear)[0].in_features == pixels * kinds(body, nn.Conv2d)[-1].out_channels


@pytest.mark.parametrize("name", VGG)
def test_the_signal_does_not_fade_in_many_layers(name: str) -> None:
    """He's weights keep its size; torch's usual ones lose nine tenths of it in every four convolutions."""
    with torch.no_grad():
        features = body_of(name, (3, 64, 64))(torch.randn(4, 3, 64, 64, generator=generator()))
    assert 0.2 < float(features.square().mean().sqrt()) < 5


@pytest.mark.parametrize("name", VGG)
def test_vgg_wants_images(name: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.name: {name} needs images, found vectors of width 7"):
        body_of(name, (7,))


@pytest.mark.parametrize("name", ["mlp", *VGG])
def test_dropout_stands_behind_each_layer_of_units_and_changes_no_weight(name: str) -> None:
    plain, dropping = body_of(name, (1, 16, 16)), body_of(name, (1, 16, 16), dropout=0.4)
    assert not kinds(plain, nn.Dropout)
    assert [module.p for module in kinds(dropping, nn.Dropout)] == [0.4, 0.4]  # type: ignore[union-attr]
    leaves = [m for m in dropping.modules() if not list(m.children())]
    behind = [type(a) for a, b in itertools.pairwise(leaves) if isinstance(b, nn.Dropout)]
    assert behind == [nn.ReLU, nn.ReLU]
    assert isinstance(leaves[-1], nn.Dropout)
    assert_same(list(plain.parameters()), list(dropping.parameters()))
    x = torch.rand(5, 1, 16, 16, generator=generator(1))
    assert torch.equal(plain.eval()(x), dropping.eval()(x))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(plain(x), dropping.train()(x))


@pytest.mark.parametrize("name", ["mlp", "vgg-small"])
@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_is_a_share(name: str, share: float) -> None:
    with pytest.raises(InputError, match=r"dropout.* found .*, allowed: a (share from 0 to below 1|number)$"):
        body_of(name, (1, 8, 8), dropout=share)


def test_an_mlp_without_dropout_is_the_one_that_it_was() -> None:
    """Stored results rest on its first weights and on the names in its checkpoints."""

    def by_hand(shape: nets.Shape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU())

    expected = nets.build(by_hand, (1, 8, 8), ONE, 3, CPU).state_dict()
    found = nets.build(lambda shape: nets.mlp(shape, hidden=(20, 10)), (1, 8, 8), ONE, 3, CPU).state_dict()
    assert_same(dict(found), dict(expected))


@pytest.mark.parametrize("name", ["mlp", "convnet3", "pooled-convnet3", *VGG])
def test_the_models_that_an_error_names_have_gates(name: str) -> None:
    assert Gated(body_of(name, (3, 16, 16)), name).units


@pytest.mark.parametrize(("side", "width"), [(8, 96), (28, 1536), (32, 1536), (64, 1536)])
def test_strided_features_keep_a_grid_of_places(side: int, width: int) -> None:
    body = body_of("strided-convnet3", (1, side, side))
    net = nets.build(lambda shape: body, (1, side, side), ONE, 0, CPU)
    assert net.head.in_features == width
    x = torch.zeros(2, 1, side, side)
    x[0, :, : side // 4], x[1, :, -side // 4 :] = 1, 1  # one bar, above and below
    with torch.no_grad(), nets.evaluating(net):
        up, down = net.features(x)
    assert side == 8 or torch.nn.functional.cosine_similarity(up, down, dim=0) < 0.9


@pytest.mark.parametrize("options", ["{}", "{dropout = 0.5}"])
def test_vgg_learns(options: str, runs: Path) -> None:
    settings = ["model.name=vgg-small", f"model.options={options}", "data.per_class=60", "stream.setting=task"]
    record = clsim.run("split-digits", "finetune", settings=[*settings, "training.epochs=2"], runs=runs)
    assert (record.metrics["learning_accuracy"] or 0) > 0.8


TAPS = {
    "mlp": ((1, 8, 8), {}, [(400,), (400,)]),
    "convnet3": ((1, 28, 28), {}, [(128, 32, 32), (128, 16, 16), (128, 8, 8)]),
    "pooled-convnet3": ((3, 16, 16), {}, [(16, 16, 16), (32, 8, 8), (64, 4, 4)]),
    "strided-convnet3": ((1, 28, 28), {}, [(24, 14, 14), (48, 7, 7), (96, 4, 4)]),
    "slim-resnet18": ((3, 32, 32), {}, [(20, 32, 32), (40, 16, 16), (80, 8, 8), (160, 4, 4)]),
    "resnet18": ((3, 16, 16), {"width": 4}, [(4, 16, 16), (8, 8, 8), (16, 4, 4), (32, 2, 2)]),
    "vgg-small": ((3, 32, 32), {}, [(64, 32, 32), (64, 16, 16), (64, 8, 8), (128, 4, 4), (128,), (128,)]),
    "linear": ((6,), {}, []),
}
"""Stages of a ResNet, blocks before their pooling, hidden layers."""


@pytest.mark.parametrize("name", TAPS)
def test_taps_are_where_blocks_end(name: str) -> None:
    shape, options, expected = TAPS[name]
    net = nets.build(registry.component("models", name, options), shape, ONE, 0, CPU)
    assert [net.shapes[tap + 1] for tap in net.taps] == expected
    x = torch.randn(3, *shape, generator=generator())
    with torch.no_grad(), net.eval().tapped() as passes:
        features = net.features(x)
    (noted,) = passes
    assert [tuple(out.shape[1:]) for out in noted.maps] == expected
    assert torch.equal(noted.features, features)
    assert torch.equal(net.features(x), features)  # without notes
    assert len(passes) == 1


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"dropout": 0.2}, {"hidden": (8, 8, 8)}], ids=str)
def test_a_tap_of_a_perceptron_is_behind_its_nonlinearity(options: dict[str, object]) -> None:
    net = nets.build(registry.component("models", "mlp", {"hidden": (8, 8), **options}), (6,), ONE, 0, CPU)
    with torch.no_grad(), net.tapped() as passes:
        net.features(torch.randn(50, 6, generator=generator()))
    assert len(passes[0].maps) == len(options.get("hidden", (8, 8)))  # type: ignore[arg-type]
    assert all(out.min() == 0 and out.max() > 0 for out in passes[0].maps)


def test_shapes_are_of_a_body_of_ones_own_too_if_it_is_a_sequence() -> None:
    class Own(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[0](x).relu()

    layers = [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 5)]
    own = nets.build(lambda shape: nn.Sequential(*layers), (1, 4, 4), ONE, 0, CPU)
    assert own.shapes == ((1, 4, 4), (2, 2, 2), (2, 2, 2), (8,), (5,), (5,), (5,))
    assert own.taps == (1, 4, 5)
    for other in (lambda shape: Own(nn.Linear(6, 4)), lambda shape: nn.Linear(6, 4)):
        net = nets.build(other, (6,), ONE, 0, CPU)
        assert (net.shapes, net.taps) == ((), ())
        with net.tapped() as passes:
            features = net.features(torch.zeros(2, 6))
        assert passes[0].maps == ()
        assert passes[0].features is features


def test_gradients_through_noted_maps_are_right_where_layers_work_in_place() -> None:
    """The gradient with respect to the weights of a sum over all taps, against a body without work in place."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(1, 3, 3), nn.Linear(12, 4)
    slopes = []
    for inplace in (True, False):
        flat = [nn.Flatten(), nn.ReLU(inplace=inplace)]  # works in place on a view of the first tap
        net = nets.build(lambda shape, flat=flat: nn.Sequential(convolution, *flat, linear), (1, 4, 4), ONE, 0, CPU)
        x = torch.randn(5, 1, 4, 4, generator=generator())
        with net.tapped() as passes:
            net.features(x)
        first, last = passes[0].maps
        loss = first.relu().square().sum() + last.pow(3).sum()
        slopes.append(torch.autograd.grad(loss, list(net.body.parameters())))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b)

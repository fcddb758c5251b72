"""Frozen backbones: the features are those of the library's own net on images as it was trained, made once and kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clsim
from clsim.compat import import_torchvision
from clsim.data import backbones
from clsim.data.cache import Dataset
from clsim.data.datasets import data_root, load
from clsim.errors import InputError
from clsim.spec.resolve import resolve
from clsim.spec.tables import DataSpec

pytest.importorskip("safetensors", reason="the extra backbones is not installed")
from safetensors.torch import save_file


def images(channels: int = 3, side: int = 160, n: int = 6) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, channels, side, side), dtype=np.uint8)
    y = np.arange(n) % 2
    return Dataset("noise", x, y, x[:2], y[:2], ("a", "b"), (0.5,) * channels, (0.3,) * channels)


def timm() -> Any:
    import_torchvision()  # which timm imports
    return pytest.importorskip("timm", reason="the extra backbones is not installed")


def saved(net: nn.Module, file: str) -> str:
    save_file({name: value.contiguous().clone() for name, value in net.state_dict().items()}, file)
    return file


@pytest.fixture
def vit() -> tuple[Any, str]:
    """One of timm's smallest nets with weights of chance, and the file of them."""
    torch.manual_seed(0)
    net = timm().create_model("test_vit", num_classes=7).eval()
    return net, saved(net, "vit.safetensors")


def of(dataset: Dataset, name: str, weights: str) -> Dataset:
    return backbones.embedded(dataset, name, weights, Path("root"), where="data.features", download=False)


def normalised(x: np.ndarray, mean: Any, std: Any) -> Tensor:
    scale = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    return (torch.from_numpy(x).float() / 255 - scale[0]) / scale[1]


@pytest.fixture(autouse=True)
def root(workplace: Path) -> None:
    Path("root").mkdir()


def test_features_of_timm_are_those_of_its_net(vit: tuple[Any, str]) -> None:
    net, file = vit
    data, config = images(), timm().data.resolve_model_data_config(net)
    with torch.inference_mode():
        x = normalised(data.train_x, config["mean"], config["std"])
        expected = net.forward_head(net.forward_features(x), pre_logits=True)
    found = of(data, "timm:test_vit", file)
    assert found.train_x.shape == (6, net.num_features)
    torch.testing.assert_close(torch.from_numpy(np.array(found.train_x)), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.test_x, found.train_x[:2], rtol=1e-4, atol=1e-5)
    assert (found.train_y.tolist(), found.classes) == ([0, 1] * 3, ("a", "b"))


def test_features_of_torchvision_see_the_mean_and_the_deviation_of_its_weights() -> None:
    import_torchvision()
    from torchvision import models

    torch.manual_seed(0)
    net = models.get_model("squeezenet1_1", weights=None)
    with pytest.raises(InputError, match="torchvision:squeezenet1_1 ends in no linear layer"):
        of(images(), "torchvision:squeezenet1_1", saved(net, "s.safetensors"))
    net = models.get_model("mobilenet_v3_small", weights=None).eval()
    data = images(side=224, n=3)
    with torch.inference_mode():
        x = normalised(data.train_x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        expected = net.classifier[:-1](net.avgpool(net.features(x)).flatten(1))
    found = of(data, "torchvision:mobilenet_v3_small", saved(net, "m.safetensors"))
    torch.testing.assert_close(torch.from_numpy(np.array(found.train_x)), expected, rtol=1e-4, atol=1e-5)


def test_features_of_open_clip_are_those_of_its_images() -> None:
    import_torchvision()
    open_clip = pytest.importorskip("open_clip", reason="the extra backbones is not installed")
    tiny = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 50, "width": 64, "heads": 1, "layers": 1}
    Path("tiny-clip.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": tiny, "text_cfg": text}))
    open_clip.add_model_config("tiny-clip.json")
    torch.manual_seed(0)
    net = open_clip.create_model("tiny-clip").eval()
    data = images(side=32)
    with torch.inference_mode():
        expected = net.encode_image(normalised(data.train_x, net.visual.image_mean, net.visual.image_std))
    found = of(data, "open-clip:tiny-clip", saved(net, "clip.safetensors"))
    torch.testing.assert_close(torch.from_numpy(np.array(found.train_x)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="found the weights 'laion' of open-clip:ViT-B-32; "):
        backbones.backbone("open-clip:ViT-B-32/laion", "", Path("root"), where="data.features", download=True)


def test_images_of_other_sizes_are_scaled_and_cropped_to_the_centre() -> None:
    seen = backbones.Backbone(lambda x: x, (4, 4), (0.0,) * 3, (1.0,) * 3, "bilinear")
    band = torch.zeros(1, 1, 8, 24, dtype=torch.uint8)
    band[..., 8:16] = 255
    assert (seen.prepared(band)[0, :, :, 1:3] == 1).all()
    assert seen.prepared(band).shape == (1, 3, 4, 4)
    same = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    torch.testing.assert_close(seen.prepared(same) * 255, same.float())


def test_features_are_made_once(vit: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = vit
    made, real = [], backbones.backbone
    monkeypatch.setattr(backbones, "backbone", lambda *words, **more: made.append(words) or real(*words, **more))
    data = images(n=3)
    first = of(data, "timm:test_vit", file)
    assert np.array_equal(of(data, "timm:test_vit", file).train_x, first.train_x)
    assert len(made) == 1
    torch.manual_seed(1)
    saved(timm().create_model("test_vit", num_classes=0), file)  # the same name, other weights
    assert not np.array_equal(of(data, "timm:test_vit", file).train_x, first.train_x)
    of(images(n=4), "timm:test_vit", file)
    assert len(made) == 3


def test_streams_selections_and_labels_by_features(vit: tuple[Any, str]) -> None:
    _, file = vit
    digits = load(DataSpec("digits", per_class=8), data_root(None))
    np.savez("few.npz", x=digits.train_x, y=digits.train_y)
    net = {"features": "timm:test_vit", "weights": file}
    few, vectors = (load(DataSpec("npz", "few.npz", per_class=4, **more), data_root(None)) for more in ({}, net))
    assert vectors.train_x.shape == (40, 64)
    expected = of(few, "timm:test_vit", file).train_x
    np.testing.assert_allclose(vectors.train_x, expected, rtol=1e-4, atol=1e-5)
    data = {"data.dataset": "npz", "data.path": "few.npz", "data.per_class": 4}
    seen = {**data, **{f"data.{key}": value for key, value in net.items()}, "training.epochs": 1}
    assert clsim.run(buffer="kcenter", memory=10, settings={**seen, "model.name": "linear"}).accuracy.shape == (5, 5)
    named = resolve("split-digits", "er", settings=["data.features=timm:test_vit", f"data.weights={file}"])
    assert [name for name, _ in named.sources] == [file]
    asked = {"embedding.name": "timm:test_vit", "embedding.weights": file, "labelling.initial_count": 0}
    settings = {**data, **asked, "training.steps": 5}
    how = {"label": "typiclust", "label_budget": 4, "label_rounds": 1}
    record = clsim.run("active-digits", "finetune", settings=settings, **how)
    np.savez("rows.npz", expected)
    other = {**settings, "embedding.name": "./rows.npz", "embedding.weights": ""}
    same = clsim.run("active-digits", "finetune", settings=other, **how)
    rounds = [[entry["rows"] for entry in one.data["labelling"]["rounds"]] for one in (record, same)]
    assert rounds[0] == rounds[1]
    assert sum(map(len, rounds[0])) == 4


def test_a_selection_is_that_of_the_features_themselves(vit: tuple[Any, str]) -> None:
    _, file = vit
    data = images(1, 8, 30)
    np.savez("few.npz", x=data.train_x, y=data.train_y)
    vectors = load(DataSpec("npz", "few.npz", features="timm:test_vit", weights=file), data_root(None))
    picks = clsim.select("kcenter", dataset="npz", path="few.npz", backbone="timm:test_vit", weights=file, budget=5)
    scaled = (vectors.train_x - np.float32(vectors.mean)) / np.float32(vectors.std)
    assert picks.index.tolist() == clsim.select("kcenter", features=scaled, budget=5).index.tolist()


def test_mistakes_are_one_line(vit: tuple[Any, str]) -> None:
    _, file = vit
    other = saved(nn.Linear(2, 2), "linear.safetensors")
    Path("broken.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    for name, weights, message in (
        ("timm:test_vti", file, r"unknown backbone 'timm:test_vti'; did you mean 'test_vit'\?"),
        ("timm:test_vit", other, r"data\.weights: linear\.safetensors does not fit \(Missing key"),
        ("timm:test_vit", "broken.safetensors", r"data\.weights: broken\.safetensors cannot be read as safetensors"),
        ("timm:test_vit", "gone.safetensors", r"data\.weights: no file 'gone\.safetensors'; allowed: a \.safetensors"),
        ("timm:test_vit", "", "timm:test_vit has no weights here, and downloads are off"),
        ("torchvision:resnet17", file, "unknown backbone 'torchvision:resnet17'; did you mean 'resnet1"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            of(images(n=2), name, weights)
        assert "\n" not in str(caught.value)
    for keys, message in (
        ({"features": "tim:x"}, r"data\.features: found 'tim:x'; did you mean 'timm:NAME'\?"),
        ({"features": "timm:hf-hub:x/y"}, r"data\.features: found 'timm:hf-hub:x/y'"),
        ({"features": "timm:x", "weights": "x.pt"}, r"data\.weights: found 'x\.pt', allowed: a \.safetensors file"),
        ({"weights": "x.safetensors"}, r"data\.weights: found 'x\.safetensors' without a backbone"),
    ):
        with pytest.raises(InputError, match=message):
            DataSpec("digits", **keys)
    vectors = Dataset(
        "v",
        np.zeros((4, 2), np.float32),
        *(np.arange(4) % 2, np.zeros((4, 2), np.float32)),
        np.arange(4) % 2,
        ("a", "b"),
        (0.0,) * 2,
        (1.0,) * 2,
    )
    with pytest.raises(InputError, match="found 'timm:test_vit' with vectors, which are features already"):
        of(vectors, "timm:test_vit", file)


def test_without_the_library_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    file = saved(nn.Linear(2, 2), "linear.safetensors")
    with pytest.raises(InputError, match=r"allowed: after pip install 'clsim\[backbones\]'$"):
        backbones.backbone("open-clip:x", file, Path("root"), where="data.features", download=False)

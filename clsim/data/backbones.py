"""Features of frozen, pretrained nets of timm, torchvision and open-clip, made once for a data set and kept.

Each net sees images as it was trained: its own size, mean and standard deviation. Weights are read as safetensors, or
fetched by the library where the user names none; no pickle is run.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsim.compat import import_torchvision, with_torchvision
from clsim.data import cache, room
from clsim.data.cache import Dataset, Raw
from clsim.errors import InputError, first_line, nearest
from clsim.spec.sources import file_digest

BATCH = 64
"""Images that pass through a net at a time."""

FOLDER = "backbones"
"""Folder of what is downloaded, in the folder of the data sets."""

PACKAGES = {"timm": "timm", "torchvision": "torchvision", "open-clip": "open_clip_torch"}
"""Library → the package whose version counts."""


@dataclass(frozen=True)
class Backbone:
    """A frozen net.

    Attributes:
        net: images (n, 3, h, w), normalised → features (n, width); in eval mode.
        size: height and width of the images that it was trained on, in pixels.
        mean, std: mean and standard deviation of each channel of images in [0, 1].
        mode: how images are scaled: ``bilinear`` or ``bicubic``.
    """

    net: Callable[[Tensor], Tensor]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str

    def prepared(self, x: Tensor) -> Tensor:
        """Scale uint8 images (n, 1 or 3, h, w) so that they cover the net's size, crop to the centre, normalise."""
        high, wide = self.size
        out = x.expand(-1, 3, -1, -1).float() / 255
        scale = max(high / x.shape[2], wide / x.shape[3])
        cover = max(round(x.shape[2] * scale), high), max(round(x.shape[3] * scale), wide)
        if cover != tuple(x.shape[2:]):
            out = F.interpolate(out, cover, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        top, left = (cover[0] - high) // 2, (cover[1] - wide) // 2
        out = out[:, :, top : top + high, left : left + wide]
        mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (out - mean) / std


def embedded(dataset: Dataset, name: str, weights: str, root: Path, *, where: str, download: bool = True) -> Dataset:
    """Put features in the place of a data set's images: float32 (n, width).

    They are made once, and kept in the cache under a hash of the images, the backbone, its weights and the versions.

    Args:
        dataset: the data set.
        name: the backbone, as ``timm:NAME``.
        weights: a ``.safetensors`` file; empty: those that the library has for this name, which are downloaded.
        root: folder of the data sets.
        where: the key that names the backbone, for messages.
        download: whether weights may be downloaded.

    Raises:
        InputError: if the samples are no images; if there is no such backbone, or no such weights; or if the library is
            not installed.
    """
    if dataset.train_x.ndim != 4:
        raise InputError(f"{where}: found {name!r} with vectors, which are features already; allowed: images")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    library = name.partition(":")[0]
    digest = file_digest(weights, _beside(where), "a .safetensors file") if weights else ""
    try:
        versions = [version(PACKAGES[library]), torch.__version__]
    except ImportError:  # of a package that is not there
        raise _absent(where, name, f"{PACKAGES[library]} is not installed") from None
    sha = hashlib.sha256("\0".join([name, digest, *versions, device.type]).encode())
    for part in (dataset.train_x, dataset.test_x):
        sha.update(f"\0{part.shape}\0".encode())
        for start in range(0, len(part), 4096):
            sha.update(np.ascontiguousarray(part[start : start + 4096]).data)
    for labels in (dataset.train_y, dataset.test_y):
        sha.update(np.ascontiguousarray(labels).data)
    folder = root / "clsim-cache" / f"features-{sha.hexdigest()[:16]}"
    found = cache.read(folder, dataset.name)
    if found is not None:
        return found

    def made() -> Raw:
        net = backbone(name, weights, root / FOLDER, where=where, download=download, device=device)
        parts = [_features(net, part, device) for part in (dataset.train_x, dataset.test_x)]
        return Raw(parts[0], dataset.train_y, parts[1], dataset.test_y, dataset.classes)

    return cache.build(folder, dataset.name, made)


def _features(backbone: Backbone, x: np.ndarray, device: torch.device) -> np.ndarray:
    out: np.ndarray | None = None
    for start in range(0, len(x), BATCH):
        with torch.inference_mode():
            some = torch.from_numpy(np.array(x[start : start + BATCH])).to(device)
            block = backbone.net(backbone.prepared(some)).float().cpu().numpy()
        if out is None:
            room.refuse_beyond({"data.features": 4 * len(x) * block.shape[1]})
            out = np.empty((len(x), block.shape[1]), dtype=np.float32)
        out[start : start + len(block)] = block
    return np.empty((0, 1), np.float32) if out is None else out


def backbone(
    name: str, weights: str, folder: Path, *, where: str, download: bool, device: torch.device | None = None
) -> Backbone:
    """Build a frozen net with its weights.

    Args:
        name, weights, where, download: as for :func:`embedded`.
        folder: where downloaded weights are kept.
        device: the device of the net; None: the CPU.

    Raises:
        InputError: as :func:`embedded`.
    """
    library, _, inner = name.partition(":")
    if not weights and not download:
        raise InputError(f"{where}: {name} has no weights here, and downloads are off; allowed: a .safetensors file")
    make = {"timm": _timm, "torchvision": _torchvision, "open-clip": _open_clip}[library]
    try:
        with redirect_stdout(io.StringIO()):  # which is for results
            return make(inner, weights, folder, where, device or torch.device("cpu"))
    except InputError:
        raise
    except ImportError as error:
        raise _absent(where, name, first_line(error)) from None
    except Exception as error:  # a library, a network and a file of weights fail in ways of their own
        raise InputError(f"{where}: {name} cannot be built ({first_line(error)}); allowed: its own weights") from None


def _beside(where: str) -> str:
    """Name the key of the weights, by that of the backbone: both are in one table."""
    return f"{where.partition('.')[0]}.weights"


def _absent(where: str, name: str, reason: str) -> InputError:
    return InputError(f"{where}: {name} needs its library ({reason}); allowed: after pip install 'clsim[backbones]'")


def _timm(name: str, weights: str, folder: Path, where: str, device: torch.device) -> Backbone:
    def found() -> Any:
        import timm

        return timm

    timm = with_torchvision(found)
    _refuse_unknown(name.partition(".")[0], timm.list_models(), f"timm:{name}", where)
    net = timm.create_model(name, pretrained=not weights, num_classes=0, cache_dir=str(folder))
    config = timm.data.resolve_model_data_config(net)
    if weights:
        head = net.pretrained_cfg.get("classifier") or ()
        _load(net, weights, (head,) if isinstance(head, str) else head, where)
    size, mode = config["input_size"][1:], config["interpolation"]
    return _frozen(net, net, device, tuple(size), config["mean"], config["std"], mode)


def _torchvision(name: str, weights: str, folder: Path, where: str, device: torch.device) -> Backbone:
    import_torchvision()
    from torchvision import models

    _refuse_unknown(name, models.list_models(module=models), f"torchvision:{name}", where)
    usual = models.get_model_weights(name).DEFAULT
    net, seen = models.get_model(name, weights=None), usual.transforms()
    heads = [inner for inner, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise InputError(f"{where}: torchvision:{name} ends in no linear layer, allowed: a backbone that does")
    parent, _, leaf = heads[-1].rpartition(".")
    net.get_submodule(parent).register_module(leaf, nn.Identity())
    if weights:
        _load(net, weights, heads[-1:], where)
    else:
        state = usual.get_state_dict(model_dir=str(folder), progress=False, check_hash=True, weights_only=True)
        _fill(net, state, heads[-1:], f"torchvision:{name}", where)
    side = seen.crop_size[0]
    return _frozen(net, net, device, (side, side), seen.mean, seen.std, seen.interpolation.value)


def _open_clip(name: str, weights: str, folder: Path, where: str, device: torch.device) -> Backbone:
    def found() -> Any:
        import open_clip

        return open_clip

    open_clip = with_torchvision(found)
    inner, _, tag = name.partition("/")
    _refuse_unknown(inner, open_clip.list_models(), f"open-clip:{name}", where)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(inner)
        if tag not in tags:
            raise InputError(f"{where}: found the weights {tag!r} of open-clip:{inner}; {nearest(tag, tags)}")
    pretrained = None if weights else tag
    net = open_clip.create_model(inner, pretrained=pretrained, cache_dir=str(folder), weights_only=True)
    if weights:
        _load(net, weights, (), where)
    size, visual = net.visual.image_size, net.visual
    size = (size, size) if isinstance(size, int) else tuple(size)
    return _frozen(net, net.encode_image, device, size, visual.image_mean, visual.image_std, "bicubic")


def _refuse_unknown(name: str, known: Iterable[str], what: str, where: str) -> None:
    known = list(known)
    if name not in known:
        listed = f"one of the {len(known):,} names that {what.partition(':')[0]} lists"
        raise InputError(f"{where}: unknown backbone {what!r}; {nearest(name, known, listed)}")


def _frozen(
    net: nn.Module,
    features: Callable[[Tensor], Tensor],
    device: torch.device,
    size: tuple[int, int],
    mean: Iterable[float],
    std: Iterable[float],
    mode: str,
) -> Backbone:
    net.to(device).eval().requires_grad_(False)
    return Backbone(features, size, tuple(mean), tuple(std), mode if mode in ("bilinear", "bicubic") else "bicubic")


def _load(net: nn.Module, weights: str, heads: Iterable[str], where: str) -> None:
    from safetensors.torch import load_file

    file, where = Path(weights).expanduser(), _beside(where)
    try:
        if not file.is_file():
            raise OSError("no such file")
        state = load_file(file)
    except Exception as error:  # a broken file fails in many ways
        raise InputError(f"{where}: {weights} cannot be read as safetensors ({first_line(error)})") from None
    _fill(net, state, heads, weights, where)


def _fill(net: nn.Module, state: Mapping[str, Tensor], heads: Iterable[str], what: str, where: str) -> None:
    """Load weights, without those of the layer that tells classes apart, which a backbone has not."""
    beginnings = tuple(f"{head}." for head in heads)
    kept = {name: value for name, value in state.items() if not name.startswith(beginnings)}
    try:
        net.load_state_dict(kept)
    except RuntimeError as error:
        line = " ".join(str(error).split("\n")[1:2]).strip() or first_line(error)
        raise InputError(f"{where}: {what} does not fit ({line[:160]}); allowed: weights of this backbone") from None

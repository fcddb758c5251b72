"""Where each data set comes from: torchvision, a download, the user's own files."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clsim.compat import import_torchvision
from clsim.data.datasets import Raw, every_fifth, split
from clsim.errors import InputError, nearest
from clsim.specs import DataSpec

TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def read(spec: DataSpec, root: Path, progress: bool) -> Raw:
    """The arrays of a data set from its source, which is downloaded first if it is not here.

    Raises:
        InputError: if the source is not here and cannot be downloaded, or is broken.
    """
    if spec.dataset == "digits":
        return _digits()
    if spec.dataset == "npz":
        return _npz(Path(spec.path).expanduser())
    if spec.dataset == "image-folder":
        return _image_folder(Path(spec.path).expanduser(), spec.size)
    with contextlib.redirect_stdout(sys.stderr):  # torchvision prints; what is asked for goes to stdout alone
        if spec.dataset == "tiny-imagenet":
            return _tiny_imagenet(root, progress)
        return _torchvision(spec.dataset, root)


def resized(raw: Raw, size: int) -> Raw:
    """Images scaled so that the shorter side is ``size`` pixels, then cropped to the centre."""
    train, test = (
        np.stack([_fit(Image.fromarray(i[0] if len(i) == 1 else i.transpose(1, 2, 0)), size) for i in part])
        if part.shape[2:] != (size, size)
        else part
        for part in (raw.train_x, raw.test_x)
    )
    return Raw(train, raw.train_y, test, raw.test_y, raw.classes)


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return split(x, digits.target.astype(np.int64), [str(d) for d in range(10)])


def _torchvision(name: str, root: Path) -> Raw:
    import_torchvision()
    from torchvision import datasets

    kinds: dict[str, tuple[Callable[..., Any], str]] = {
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
        "kmnist": (datasets.KMNIST, "KMNIST/raw"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
        "cifar100": (datasets.CIFAR100, "cifar-100-python"),
        "svhn": (datasets.SVHN, "train_32x32.mat"),
    }
    kind, place = kinds[name]
    options: list[dict[str, Any]] = [{"train": True}, {"train": False}]
    if name == "svhn":
        options = [{"split": "train"}, {"split": "test"}]
    with _or_say(name, root / place):
        train, test = (_present_or_downloaded(kind, root, option) for option in options)
    x = [_channels_first(np.asarray(part.data), name) for part in (train, test)]
    y = [np.asarray(part.labels if name == "svhn" else part.targets, dtype=np.int64) for part in (train, test)]
    classes = [str(d) for d in range(10)] if name == "svhn" else train.classes
    return Raw(x[0], y[0], x[1], y[1], tuple(classes))


def _present_or_downloaded(kind: Callable[..., Any], root: Path, option: dict[str, Any]) -> Any:
    """Verified by torchvision's checksums; downloaded only if that fails."""
    try:
        return kind(root, **option)
    except RuntimeError:
        return kind(root, download=True, **option)


def _channels_first(x: np.ndarray, name: str) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    return x if name == "svhn" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


@contextlib.contextmanager
def _or_say(name: str, place: Path) -> Iterator[None]:
    """What goes wrong while a source is fetched or read, in one line that says what to do."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each source fails in ways of its own: network, checksum, archive, pickle
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            f"{name}: not found at {place}, and the download failed ({reason}); put its files there, "
            "or name the folder that holds them with --data-root or CLSIM_DATA"
        ) from None


def _tiny_imagenet(root: Path, progress: bool) -> Raw:
    folder = root / "tiny-imagenet-200"
    with _or_say("tiny-imagenet", folder):
        if not (folder / "wnids.txt").is_file():
            import_torchvision()
            from torchvision.datasets.utils import download_url

            root.mkdir(parents=True, exist_ok=True)
            download_url(TINY_IMAGENET, str(root), md5=TINY_IMAGENET_MD5)
            with zipfile.ZipFile(root / "tiny-imagenet-200.zip") as archive:  # extracts nothing outside the folder
                archive.extractall(root)
        names = (folder / "wnids.txt").read_text(encoding="utf-8").split()
        label = {name: i for i, name in enumerate(names)}
        train = [(p, label[n]) for n in names for p in sorted((folder / "train" / n / "images").glob("*.JPEG"))]
        lines = (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        test = [(folder / "val" / "images" / f, label[n]) for f, n in (line.split("\t")[:2] for line in lines)]
        return Raw(*_images(train, 64), *_images(test, 64), tuple(names))


def _image_folder(path: Path, size: int) -> Raw:
    if size < 1:
        raise InputError("data.size: found 0 with image-folder, allowed: the side of the images in pixels, as in 32")
    parts = [path / "train", path / "test"]
    if not parts[1].is_dir():
        parts[1] = path / "val"
    own_test = all(part.is_dir() for part in parts)
    names = sorted(p.name for p in (parts[0] if own_test else path).iterdir() if p.is_dir())

    def listed(folder: Path) -> list[tuple[Path, int]]:
        unknown = sorted({p.name for p in folder.iterdir() if p.is_dir()} - set(names))
        if unknown:
            raise InputError(f"{folder}: class {unknown[0]!r} is not in {parts[0]}; {nearest(unknown[0], names)}")
        files = [(p, i) for i, n in enumerate(names) for p in sorted((folder / n).rglob("*"))]
        return [(p, i) for p, i in files if p.suffix.lower() in IMAGES]

    if own_test:
        train, test = listed(parts[0]), listed(parts[1])
    else:
        everything = listed(path)
        chosen = every_fifth(np.asarray([label for _, label in everything]))
        train = [e for e, c in zip(everything, chosen, strict=True) if not c]
        test = [e for e, c in zip(everything, chosen, strict=True) if c]
    if not train or not test:
        raise InputError(f"{path}: {len(train)} training and {len(test)} test images, allowed: class folders of images")
    return Raw(*_images(train, size), *_images(test, size), tuple(names))


def _images(files: list[tuple[Path, int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 3, size, size), and labels."""
    x = np.empty((len(files), 3, size, size), dtype=np.uint8)
    for i, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                x[i] = _fit(image.convert("RGB"), size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: cannot be read as an image ({error})") from None
    return x, np.asarray([label for _, label in files], dtype=np.int64)


def _fit(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to ``size``, centre crop; (c, size, size)."""
    width, height = image.size
    scale = size / min(width, height)
    image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    array = np.asarray(image.crop((left, top, left + size, top + size)))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _npz(path: Path) -> Raw:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read as .npz ({str(error).splitlines()[0] if str(error) else error!r})"
        ) from None
    wanted = ("x", "y") if {"x", "y"} <= set(arrays) else ("x_train", "y_train", "x_test", "y_test")
    for name in wanted:
        if name not in arrays:
            raise InputError(
                f"{path}: no array {name!r}; found {', '.join(arrays) or 'none'}, allowed: {', '.join(wanted)}"
            )
    xs = [_samples(arrays[name], path, name) for name in wanted[::2]]
    ys = [_labels(arrays[name], path, name) for name in wanted[1::2]]
    for x, y, name in zip(xs, ys, wanted[::2], strict=True):
        if len(x) != len(y):
            raise InputError(f"{path}: {name} has {len(x)} samples and {len(y)} labels, allowed: as many")
    values = np.unique(np.concatenate(ys))
    labels = [np.searchsorted(values, y).astype(np.int64) for y in ys]
    names = tuple(str(v) for v in values.tolist())
    if len(xs) == 1:
        return split(xs[0], labels[0], names)
    return Raw(xs[0], labels[0], xs[1], labels[1], names)


def _samples(x: np.ndarray, path: Path, name: str) -> np.ndarray:
    if np.issubdtype(x.dtype, np.floating) and x.ndim == 2:
        if not np.isfinite(x).all():
            raise InputError(f"{path}: {name} holds values that are not finite, allowed: finite numbers")
        return x.astype(np.float32)
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    raise InputError(
        f"{path}: {name} has type {x.dtype} and shape {x.shape}, "
        "allowed: uint8 (n, h, w), (n, h, w, c) or (n, c, h, w) with 1 or 3 channels, or float (n, d)"
    )


def _labels(y: np.ndarray, path: Path, name: str) -> np.ndarray:
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{path}: {name} has type {y.dtype} and shape {y.shape}, allowed: whole numbers (n,)")
    return y

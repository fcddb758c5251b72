"""The origin of each data set: torchvision, a download, the user's own files."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clsim.compat import import_torchvision
from clsim.data import hugging_face, npz
from clsim.data.cache import Raw
from clsim.data.decoding import IMAGES, fitted, images
from clsim.errors import InputError, nearest
from clsim.records import atomic
from clsim.spec.tables import DataSpec

TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
PATIENCE = 60.0  # seconds without a byte before a download counts as failed


def read(spec: DataSpec, root: Path, *, progress: bool, download: bool) -> Raw:
    """Read the arrays of a data set from its source, which is downloaded first if it is absent.

    Raises:
        InputError: if the source is broken, or is absent and not downloaded.
    """
    if spec.dataset == "digits":
        return _digits()
    if spec.dataset == "npz":
        return _npz(Path(spec.path).expanduser())
    if spec.dataset == "image-folder":
        return _image_folder(Path(spec.path).expanduser(), spec.size)
    out = sys.stderr if progress else io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):  # torchvision prints; stdout is for results
        if spec.dataset == "tiny-imagenet":
            return _tiny_imagenet(root, download)
        if spec.dataset == "hf":
            return _of_splits(spec, hugging_face.saved(Path(spec.path).expanduser()), f"hf:{spec.path}", None)
        if spec.dataset.startswith("hf:"):
            with _or_say(spec.dataset, root / hugging_face.FOLDER, download):
                found = hugging_face.fetched(spec, root, download)
            return _of_splits(spec, found, spec.dataset, root / hugging_face.FOLDER)
        return _torchvision(spec.dataset, root, download)


def _of_splits(spec: DataSpec, splits: Mapping[str, Any], where: str, downloads: Path | None) -> Raw:
    """Read the splits that are the training and the test part; see :func:`clsim.data.hugging_face.parts`."""
    parts, classes = hugging_face.parts(splits, spec, where, downloads)
    if len(parts) == 1:
        return split(*parts[0], classes)
    return Raw(*parts[0], *parts[1], classes)


def resized(raw: Raw, size: int) -> Raw:
    """Scale images so that the shorter side is ``size`` pixels, and crop them to the centre."""

    def part(x: np.ndarray) -> np.ndarray:
        if x.shape[2:] == (size, size):
            return x
        out = np.empty((*x.shape[:2], size, size), dtype=np.uint8)
        for i, image in enumerate(x):
            out[i] = fitted(Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)), size)
        return out

    return Raw(part(raw.train_x), raw.train_y, part(raw.test_x), raw.test_y, raw.classes)


def every_fifth(y: np.ndarray) -> np.ndarray:
    """Choose a test part for data that has none: every fifth sample of each class, bool (n,)."""
    chosen = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        chosen[np.flatnonzero(y == label)[4::5]] = True
    return chosen


def split(x: np.ndarray, y: np.ndarray, classes: tuple[str, ...]) -> Raw:
    """Divide data that has no test part of its own."""
    test = every_fifth(y)
    return Raw(x[~test], y[~test], x[test], y[test], classes)


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return split(x, digits.target.astype(np.int64), tuple(map(str, range(10))))


def _torchvision(name: str, root: Path, download: bool) -> Raw:
    import_torchvision()
    from torchvision import datasets

    kinds: dict[str, tuple[type[Any], str]] = {
        "mnist": (datasets.MNIST, "MNIST/raw"),
        "fashion-mnist": (datasets.FashionMNIST, "FashionMNIST/raw"),
        "kmnist": (datasets.KMNIST, "KMNIST/raw"),
        "cifar10": (datasets.CIFAR10, "cifar-10-batches-py"),
        "cifar100": (datasets.CIFAR100, "cifar-100-python"),
        "svhn": (datasets.SVHN, "train_32x32.mat"),
        "usps": (datasets.USPS, "usps.bz2"),
    }
    kind, place = kinds[name]
    svhn = [{"split": "train"}, {"split": "test"}]
    options: list[dict[str, Any]] = svhn if name == "svhn" else [{"train": True}, {"train": False}]
    _refuse_pipes([*(root / place).rglob("*")] if (root / place).is_dir() else [*root.glob("*")])
    with _or_say(name, root / place, download):
        if issubclass(kind, datasets.MNIST):
            _set_truncated_aside(root / place)
        train, test = (_present_or_downloaded(kind, root, option, download) for option in options)
    x = [_channels_first(np.asarray(part.data), name) for part in (train, test)]
    y = [np.asarray(part.labels if name == "svhn" else part.targets, dtype=np.int64) for part in (train, test)]
    classes = [str(d) for d in range(10)] if name in ("svhn", "usps") else train.classes
    return Raw(x[0], y[0], x[1], y[1], tuple(classes))


def _present_or_downloaded(kind: Callable[..., Any], root: Path, option: dict[str, Any], download: bool) -> Any:
    """Load a part, verified by torchvision's checksums (USPS: its archive's own); download it only if that fails."""
    try:
        return kind(root, **option)
    except (RuntimeError, OSError, EOFError) as error:
        if not download:
            raise
        archive = root / ("usps.bz2" if option.get("train") else "usps.t.bz2")
        if (
            isinstance(error, EOFError) and archive.is_file()
        ):  # a download was cut short; torchvision keeps what is there
            atomic.replace(archive, archive.with_name(f"{archive.name}.damaged"))
        return kind(root, download=True, **option)


def _refuse_pipes(paths: Iterable[Path]) -> None:
    """Refuse what is neither a file nor a folder: whoever opens a pipe waits for its other end."""
    for path in paths:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: found a pipe, a socket or a device, allowed: a file")


def _set_truncated_aside(folder: Path) -> None:
    """Rename IDX files that are shorter than their header says, as a killed extraction leaves them.

    torchvision checks only that the files exist; if they do not, it fetches or extracts them again.
    """
    for path in folder.glob("*-ubyte"):
        with open(path, "rb") as file:
            start = file.read(4)  # two zeros, the type (8 = bytes), the number of dimensions
            shape = np.frombuffer(file.read(4 * start[3] if len(start) == 4 else 0), dtype=">u4").tolist()
        promised = 4 + 4 * len(shape) + int(np.prod(shape, dtype=object))
        if start[:3] != b"\0\0\x08" or path.stat().st_size != promised:
            atomic.replace(path, path.with_name(f"{path.name}.damaged"))


def _channels_first(x: np.ndarray, name: str) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    return x if name == "svhn" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


@contextlib.contextmanager
def _or_say(name: str, place: Path, download: bool) -> Iterator[None]:
    """Turn what goes wrong while a source is fetched or read into one line that says what to do."""
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(PATIENCE)  # urllib waits for ever otherwise, and torchvision gives it no limit
        yield
    except InputError:
        raise
    except Exception as error:  # each source fails in ways of its own: network, checksum, archive, pickle
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(":")[:160]
        fetched = f"the download failed ({reason})" if download else "downloads are off"
        raise InputError(
            f"{name}: no intact copy at {place}, and {fetched}; put its files there, "
            "or name the folder that holds them with --data-root or CLSIM_DATA"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


def _tiny_imagenet(root: Path, download: bool) -> Raw:
    folder = root / "tiny-imagenet-200"
    with _or_say("tiny-imagenet", folder, download):
        if not (folder / "wnids.txt").is_file():
            if not download:
                raise FileNotFoundError
            _fetch_tiny_imagenet(root)
        names = (folder / "wnids.txt").read_text(encoding="utf-8").split()
        label = {name: i for i, name in enumerate(names)}
        train = [(p, label[n]) for n in names for p in sorted((folder / "train" / n / "images").glob("*.JPEG"))]
        lines = (folder / "val" / "val_annotations.txt").read_text(encoding="utf-8").splitlines()
        test = [(folder / "val" / "images" / f, label[n]) for f, n in (line.split("\t")[:2] for line in lines)]
    return Raw(*images(train, 64), *images(test, 64), tuple(names))


def _fetch_tiny_imagenet(root: Path) -> None:
    """Download, verify, extract beside, rename: an extraction that is cut short leaves no folder of that name."""
    import_torchvision()
    from torchvision.datasets.utils import download_url

    download_url(TINY_IMAGENET, str(root), md5=TINY_IMAGENET_MD5)
    partial = root / ".tiny-imagenet-200.partial"
    atomic.remove_folder(partial)
    with zipfile.ZipFile(root / "tiny-imagenet-200.zip") as archive:  # extracts nothing outside the folder
        archive.extractall(partial)
    atomic.replace(partial / "tiny-imagenet-200", root / "tiny-imagenet-200")
    atomic.remove_folder(partial)


def _image_folder(path: Path, size: int) -> Raw:
    parts = [path / "train", path / "test"]
    if not parts[1].is_dir():
        parts[1] = path / "val"
    if parts[0].is_dir() != parts[1].is_dir():
        found = "train/ alone" if parts[0].is_dir() else f"{parts[1].name}/ without train/"
        raise InputError(f"{path}: found {found}, allowed: train/ and test/ (or val/), or class folders alone")
    own_test = parts[0].is_dir()
    names = _class_folders(parts[0] if own_test else path)

    def listed(folder: Path) -> list[tuple[Path, int]]:
        unknown = sorted(set(_class_folders(folder)) - set(names))
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
        found = f"{len(train)} training and {len(test)} test images"
        allowed = f"class folders of images ({', '.join(IMAGES)}); without classes: clsim select --labelled"
        raise InputError(f"{path}: found {found}, allowed: {allowed}")
    return Raw(*images(train, size), *images(test, size), tuple(names))


def _class_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _npz(path: Path) -> Raw:
    where, found = str(path), npz.arrays(path, str(path), npz.ARRAYS)
    names = [("x_train", "y_train"), ("x_test", "y_test")] if "x_train" in found else [("x", "y")]
    parts = [npz.part(found[x], found[y], where, (x, y)) for x, y in names]
    values, positions = np.unique(np.concatenate([y for _, y in parts]), return_inverse=True)
    classes = tuple(map(str, values.tolist()))
    labels = np.split(positions.astype(np.int64), [len(parts[0][1])])
    if len(parts) == 1:
        return split(parts[0][0], labels[0], classes)
    return Raw(parts[0][0], labels[0], parts[1][0], labels[1], classes)

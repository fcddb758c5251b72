"""Names of data sets, and digests of the user's own data."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from clsim.errors import InputError
from clsim.spec.hub import HUB
from clsim.spec.tables import DataSpec

DATASETS: dict[str, tuple[str, str]] = {
    "digits": ("8 × 8 grey digits, 10 classes, bundled with scikit-learn", "Alpaydin & Kaynak, UCI (1998)"),
    "mnist": ("28 × 28 grey digits, 10 classes", "LeCun et al. (1998)"),
    "fashion-mnist": ("28 × 28 grey clothes, 10 classes", "Xiao, Rasul & Vollgraf (2017)"),
    "kmnist": ("28 × 28 grey Japanese characters, 10 classes", "Clanuwat et al. (2018)"),
    "cifar10": ("32 × 32 colour photographs, 10 classes", "Krizhevsky (2009)"),
    "cifar100": ("32 × 32 colour photographs, 100 classes", "Krizhevsky (2009)"),
    "svhn": ("32 × 32 colour house numbers, 10 classes", "Netzer et al. (2011)"),
    "usps": ("16 × 16 grey digits from envelopes, 10 classes", "Hull (1994)"),
    "tiny-imagenet": ("64 × 64 colour photographs, 200 classes", "Le & Yang (2015)"),
    "image-folder": ("your folder, with a folder of images for each class: set data.path and data.size", ""),
    "hf": ("a Hugging Face data set: hf:NAME of the hub, or hf:./FOLDER as its save_to_disk writes it", ""),
    "sequence": ("several data sets, one after the other: set data.sequence and data.size", ""),
    "npz": ("your arrays x_train, y_train, x_test, y_test: uint8 images or float vectors; set data.path", ""),
}
"""Name → a description in one line, and the source."""


OWN_DATA = ("hf", "image-folder", "npz")
"""Names of ``data.dataset`` for the user's own data, which is at ``data.path``."""


def is_known(dataset: str) -> bool:
    """Whether a name is one of :data:`DATASETS`, or that of a data set of the hub.

    >>> is_known("digits"), is_known("hf:ylecun/mnist@main"), is_known("hf:../folder"), is_known("hf:")
    (True, True, False, False)
    """
    return dataset in DATASETS or HUB.fullmatch(dataset) is not None


def data_digest(spec: DataSpec) -> str:
    """Return the SHA-256 of the user's own data, for the fingerprint of a run; empty for a named data set.

    It covers the content of an ``npz``, or the names, sizes and modification times of the files of a folder.

    Raises:
        InputError: if ``data.path`` is empty, does not exist or cannot be read.
    """
    if spec.dataset not in OWN_DATA:
        return ""
    if not spec.path:
        raise InputError(f"data.path: found '' with {spec.dataset}, allowed: the path of your data")
    if spec.dataset == "npz":
        return file_digest(spec.path, "data.path", "an .npz with x_train, y_train, x_test, y_test")
    path, sha = Path(spec.path).expanduser(), hashlib.sha256()
    try:
        if not path.is_dir():
            holds = "as save_to_disk of datasets writes it" if spec.dataset == "hf" else "with a folder for each class"
            raise InputError(f"data.path: no folder {spec.path!r}; allowed: a folder {holds}")
        for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
            stat, name = file_path.stat(), os.fsencode(file_path.relative_to(path).as_posix())
            sha.update(name + f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    except OSError as error:
        raise InputError(f"data.path: {spec.path!r} cannot be read ({error.strerror or error})") from None
    return sha.hexdigest()


def file_digest(name: str, where: str, wanted: str = "an .npz with x_train and y_train") -> str:
    """Return the SHA-256 of the content of a user's own file.

    Args:
        name: the path of the file.
        where: the key that names the file, for messages.
        wanted: what the file should be, for messages.

    Raises:
        InputError: if the file does not exist or cannot be read.
    """
    path, sha = Path(name).expanduser(), hashlib.sha256()
    if not path.is_file():
        raise InputError(f"{where}: no file {name!r}; allowed: {wanted}")
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    except OSError as error:
        raise InputError(f"{where}: {name!r} cannot be read ({error.strerror or error})") from None
    return sha.hexdigest()

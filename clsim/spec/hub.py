"""Names of data sets that lie elsewhere, on the Hugging Face hub or in a folder, and the keys that go with them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clsim.errors import InputError

HUB = re.compile(r"hf:(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
"""A data set of the Hugging Face hub as ``data.dataset`` names it, with or without a revision."""


def plain_name(dataset: str, path: str = "") -> tuple[str, str]:
    """Return the name and the path that a data set has in a spec, whichever way it is named.

    Args:
        dataset: the name as a user may write it: ``folder`` is ``image-folder``, and ``hf:`` may be followed by a path.
        path: the path; empty: none is given.

    Raises:
        InputError: if ``hf:`` is followed by neither a name nor a path, or if there are two paths.

    >>> plain_name("folder", "photos"), plain_name("hf:./mine"), plain_name("hf:ylecun/mnist")
    (('image-folder', 'photos'), ('hf', './mine'), ('hf:ylecun/mnist', ''))
    """
    if dataset == "folder":
        return "image-folder", path
    if not dataset.startswith("hf:") or HUB.fullmatch(dataset):
        return dataset, path
    place = dataset.removeprefix("hf:")
    if not place.startswith((".", "/", "~")):
        allowed = "hf:NAME or hf:OWNER/NAME of the hub, with or without @REVISION, or hf:./FOLDER"
        raise InputError(f"data.dataset: found {dataset!r}, allowed: {allowed}")
    if path not in ("", place):
        raise InputError(f"data.path: found {path!r} with {dataset}, allowed: one of the two")
    return "hf", place


def check_keys(dataset: str, config: str, splits: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse keys of a Hugging Face data set beside another one, and lists of another length than they can have.

    Args:
        dataset, config, splits, columns: the keys of ``[data]``.

    Raises:
        InputError: naming the key.
    """
    of_hub = dataset.startswith("hf:")
    for key, value, fits in (
        ("config", config, of_hub),
        ("splits", [*splits], of_hub or dataset == "hf"),
        ("columns", [*columns], of_hub or dataset == "hf"),
    ):
        if value and not fits:
            allowed = "hf:NAME" if key == "config" else "hf:NAME or hf:./FOLDER"
            raise InputError(f"data.{key}: found {value!r} with {dataset}, allowed: with {allowed}")
    if len(set(splits)) != len(splits) or len(splits) > 2:
        raise InputError(f"data.splits: found {[*splits]}, allowed: one name, or two different ones")
    if columns and (len(columns), len(set(columns))) != (2, 2):
        raise InputError(f"data.columns: found {[*columns]}, allowed: two names, of the pictures and of the labels")

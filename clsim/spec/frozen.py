"""Names of frozen backbones: a library, a colon, and the name that the library gives its architecture."""

from __future__ import annotations

import re

from clsim.errors import InputError, nearest

LIBRARIES = ("timm", "torchvision", "open-clip")
"""Libraries of backbones, by what stands before the colon."""

NAME = re.compile(r"(timm|torchvision|open-clip):\w[\w.-]*(?:/\w+)?", re.ASCII)
"""A backbone as a spec names it. What stands behind a slash is open-clip's name of pretrained weights."""


def is_backbone(name: str) -> bool:
    """Whether a name is that of a backbone, by its form.

    >>> is_backbone("timm:resnet18.a1_in1k"), is_backbone("open-clip:ViT-B-32/laion2b_s34b_b79k"), is_backbone("simclr")
    (True, True, False)
    """
    return NAME.fullmatch(name) is not None


def check_backbone(key: str, name: str, weights: str, where: str) -> None:
    """Refuse what is no backbone, and weights that are no safetensors or of none.

    Args:
        key: the key of the name, for messages.
        name: the name; empty: there is none.
        weights: a file of the user's; empty: there is none.
        where: the key of the weights, for messages.

    Raises:
        InputError: naming the key.
    """
    if name and not is_backbone(name):
        library = name.partition(":")[0]
        allowed = nearest(f"{library}:", [f"{one}:NAME" for one in LIBRARIES])
        raise InputError(f"{key}: found {name!r}; {allowed}")
    if weights and not name:
        raise InputError(
            f"{where}: found {weights!r} without a backbone, allowed: with {key} = 'timm:NAME' or the like"
        )
    if weights and not weights.endswith(".safetensors"):
        raise InputError(f"{where}: found {weights!r}, allowed: a .safetensors file (others may hold code)")

"""A model of your own: a net without its last layer, which clsim adds for each stream."""

import math

from torch import nn


def NAME(shape: tuple[int, ...], *, width: int = 100) -> nn.Module:
    """Make the body of a net for samples of a shape: (channels, height, width), or (length,) of vectors.

    Args:
        shape: The shape of a sample.
        width: Number of units, an option: --set model.options.width=50.
    """
    # CHANGE THIS. Whatever comes out, flattened, are the features.
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.ReLU(), nn.Linear(width, width))

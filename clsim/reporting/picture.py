"""A picture of what was chosen: images, a row for each class, or vectors in the plane of their principal components."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clsim.records.atomic import write
from clsim.reporting.names import printable
from clsim.reporting.svg import PLAIN, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clsim.execution.select import Picks

COLUMNS = 20
"""Most images in a row."""
ROWS = 25
"""Most rows of images; of more classes, those with the most picks are shown."""
CLOUD = 5000
"""Most candidates drawn behind the picks; of more, a random part is drawn."""


def draw(picks: Picks, title: str, path: Path) -> None:
    """Write a picture of the picks, as PNG."""
    save((montage if picks.pool.data.x.ndim == 4 else scatter)(picks, title), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure, as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")  # a title may be wider than its figure
    write(path, buffer.getvalue())


def montage(picks: Picks, title: str) -> Figure:
    """Draw the picks of each class, best first from left to right; at the right, how many there are."""
    index = torch.from_numpy(picks.places).to(picks.pool.data.device)
    x, y = picks.pool.data.x[index].cpu().numpy(), picks.pool.data.y[index].cpu().numpy()
    return sheet(x, y, picks.classes, title, "best first")


@style(PLAIN)
def sheet(
    x: np.ndarray,
    y: np.ndarray,
    classes: Sequence[str],
    title: str,
    about: str,
    counted: str = "at the right, how many of the class",
) -> Figure:
    """Draw images, a row for each class.

    Args:
        x: uint8 (n, c, h, w).
        y: int64 (n,), positions in ``classes``.
        about: text below the title.
        counted: text behind it that explains the numbers at the right; empty: there are no numbers.
    """
    from matplotlib.figure import Figure

    counts = np.bincount(y[y >= 0], minlength=len(classes))
    most = sorted(range(len(classes)), key=lambda c: -counts[c])[:ROWS]
    rows = sorted(most)
    channels, high, wide = x.shape[1:]
    gap = max(high // 16, 1)
    columns = max(min(int(counts.max(initial=1)), COLUMNS), 1)
    canvas = np.full((len(rows) * (high + gap) - gap, columns * (wide + gap) - gap, 3), 255, dtype=np.uint8)
    for i, label in enumerate(rows):
        for j, image in enumerate(x[y == label][:columns]):
            top, left = i * (high + gap), j * (wide + gap)
            canvas[top : top + high, left : left + wide] = image.transpose(1, 2, 0)  # a grey channel fills all three
    size = 0.42 if channels == 3 else 0.36
    figure = Figure(figsize=(columns * size + 2.2, len(rows) * size + 0.7), layout="constrained")
    ax = figure.subplots()
    ax.imshow(canvas, interpolation="nearest")
    middle = np.arange(len(rows)) * (high + gap) + (high - 1) / 2
    ax.set_yticks(middle, [printable(classes[c]) for c in rows], fontsize=8)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if counted:
        beside = ax.secondary_yaxis("right")
        beside.set_yticks(middle, [str(counts[c]) for c in rows], fontsize=8)
        beside.tick_params(length=0)
        beside.spines[:].set_visible(False)
    left_out = len(classes) - len(rows)
    more = f"; {left_out} further classes are not shown" if left_out else ""
    told = f"{about}{'; ' + counted if counted else ''}{more}"
    ax.set_title(f"{printable(title)}\n{told}", fontsize=9, loc="left")
    return figure


@style(PLAIN)
def scatter(picks: Picks, title: str) -> Figure:
    """Draw candidates in grey, picks in the colour and the marker of their class, in the plane of most variance."""
    import seaborn as sns
    from matplotlib.figure import Figure

    cloud, chosen, share = _plane(picks)
    figure = Figure(figsize=(6.8, 5.2), layout="constrained")
    ax: Axes = figure.subplots()
    ax.scatter(cloud[:, 0], cloud[:, 1], s=6, color="0.8", linewidths=0, rasterized=True)
    shape: dict[str, Any] = {"x": chosen[:, 0], "y": chosen[:, 1], "ax": ax, "edgecolor": "black", "linewidth": 0.4}
    shape["s"] = 36 if len(chosen) <= 300 else 14
    y = picks.pool.data.y.cpu().numpy()[picks.places]
    if picks.classes and len(picks.classes) <= 10:
        names = [printable(picks.classes[label]) if label >= 0 else "no label" for label in y]
        order = [printable(c) for c in picks.classes] + (["no label"] if (y < 0).any() else [])
        colors = dict(zip(order, [*sns.color_palette("colorblind", 10), (0.3, 0.3, 0.3)], strict=False))
        markers = dict(zip(order, "osD^vPX<>*h", strict=False))
        order, title_of_legend = [name for name in order if name in set(names)], "class"
        sns.scatterplot(
            hue=names, hue_order=order, style=names, style_order=order, palette=colors, markers=markers, **shape
        )
    else:
        rank = np.arange(1, len(chosen) + 1)
        sns.scatterplot(hue=rank, palette="viridis", **shape)
        title_of_legend = "order"
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    ax.legend(title=title_of_legend, fontsize=8, title_fontsize=8, **place)
    ax.set_xlabel(f"first principal component, {share[0]:.0%} of the variance")
    ax.set_ylabel(f"second, {share[1]:.0%}")
    ax.set_title(f"{printable(title)}\nin grey, the candidates", fontsize=9, loc="left")
    sns.despine(ax=ax)
    return figure


def _plane(picks: Picks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project candidates and picks on the first two principal components; also return their shares of the variance."""
    from sklearn.decomposition import PCA

    x = picks.pool.data.x
    rows = np.random.default_rng(0).permutation(len(x))[:CLOUD]
    some, chosen = (x[torch.from_numpy(r).to(x.device)].cpu().numpy() for r in (rows, picks.places))
    together = np.concatenate([some, chosen]) if len(some) < len(x) else some
    kept = min(2, *together.shape)
    with np.errstate(invalid="ignore"):  # samples that are all alike have no variance to share out
        pca = PCA(kept, random_state=0).fit(together)
        share = np.nan_to_num(pca.explained_variance_ratio_)
    padding = ((0, 0), (0, 2 - kept))  # a single dimension, or a single sample
    return np.pad(pca.transform(some), padding), np.pad(pca.transform(chosen), padding), np.pad(share, (0, 2 - kept))

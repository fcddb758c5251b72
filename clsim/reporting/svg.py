"""A matplotlib figure as SVG inside a page: text as text, colours that follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from clsim.reporting.curves import COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#101418", "#c9cdd2"
"""Colours of axes and text, and of grids; exact ones, so that the page can replace them."""

PLAIN: Any = {"text.parse_math": False}
"""Matplotlib's settings for figures that show names: a name from a spec is text, not a formula."""

STYLE: Any = {
    **PLAIN,
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
"""Matplotlib's settings for figures of a page; they must be in force while figures are drawn, too."""

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font: (\S+ )*?([\d.]+px)[^;]*")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")


@contextmanager
def style(settings: Any) -> Iterator[None]:
    """Draw with some of matplotlib's settings, and without its warnings of letters that a font does not have."""
    import matplotlib

    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support")  # they are drawn as boxes
        yield


def inline(figure: Figure, name: str, title: str) -> Markup:
    """Write the figure as an ``<svg>`` element.

    Args:
        name: the beginning of all identifiers in the SVG: ASCII letters, digits and dashes; unique in its page.
        title: text for screen readers.
    """
    buffer = io.BytesIO()
    with style({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())  # comments are dropped here
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}style" or not child.tag.startswith(_SVG) or child.tag == f"{_SVG}metadata":
                parent.remove(child)
    used = set(re.findall(r"(?:url\(#|^#)([\w-]+)", "\n".join(v for e in root.iter() for v in e.attrib.values()), re.M))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        _tidy(element, name)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    root.attrib["style"] = f"max-width:{float(width) * 4 / 3:.0f}px;aspect-ratio:{float(width):.0f}/{float(height):.0f}"
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True))


def _tidy(element: ElementTree.Element, name: str) -> None:
    """Shorten numbers, put variables for colours, make identifiers unique in the page, leave the font to the page."""
    attributes = element.attrib
    if _LINK in attributes:
        attributes["href"] = attributes.pop(_LINK)
    for key in ("width", "height") if element.tag == "svg" else ():
        attributes.pop(key, None)
    for key, value in attributes.items():
        if key == "id":
            value = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif key == "clip-path":
            value = value.replace("url(#", f"url(#{name}-")
        elif key in ("d", "x", "y", "width", "height", "transform", "points"):
            value = " ".join(_NUMBER.sub(lambda m: f"{float(m[0]):.2f}", value).split())
        elif key == "style":
            value = _FONT.sub(r"font-size: \2", themed(value))
        attributes[key] = value


def themed(style: str) -> str:
    """Put the page's variables in the place of colours."""
    for i, color in enumerate(COLORS):
        style = style.replace(color, f"var(--series-{i})")
    return style.replace(INK, "var(--ink)").replace(FAINT, "var(--grid)")

"""The contact sheet of a question: one HTML file with the pictures that are to be labelled, and their names."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment
from PIL import Image, ImageOps

from clsim.data.decoding import FORMATS
from clsim.records.atomic import write
from clsim.reporting.names import printable

SIDE = 192
"""Longest side of a picture on the sheet, in pixels."""

SHOWN = 1000
"""Most pictures on a sheet, which holds all of them in itself."""

_PAGE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem }
h1 { font-size: 1.1rem; margin: 0 }
p { margin: .25rem 0 1rem; opacity: .75 }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax({{ side }}px, 1fr)); gap: 1rem .75rem; margin: 0;
  padding: 0; list-style: none }
.shown { align-items: end; display: flex; height: {{ side }}px }
img { max-height: {{ side }}px; max-width: 100% }
.small { height: {{ side }}px; image-rendering: pixelated; object-fit: contain; object-position: left bottom;
  width: 100% }
.name { display: block; overflow-wrap: anywhere }
.row { opacity: .6 }
</style>
<h1>{{ title }}</h1>
<p>{{ about }}</p>
<ol>
{% for file in files %}
<li>{% if file.image %}<a class="shown" href="{{ file.link }}"><img{% if file.small %} class="small"{% endif %}
 src="{{ file.image }}" alt=""></a>{% endif %}
<span class="name"><span class="row">{{ loop.index }}</span> <bdi>{{ file.name }}</bdi></span></li>
{% endfor %}
</ol>
</html>
""")


def draw(files: Mapping[str, Path | None], title: str, about: str, path: Path) -> None:
    """Write a contact sheet, atomically.

    Args:
        files: the names, in the order of the question's rows, and where their pictures are; None: there is none.
        title: heading of the sheet.
        about: a line below it.
        path: the HTML file.
    """
    shown = [_shown(name, picture, path.parent) for name, picture in list(files.items())[:SHOWN]]
    if len(files) > SHOWN:
        about += f" Shown: the first {SHOWN:,} of {len(files):,}."
    write(path, _PAGE.render(title=printable(title), about=about, files=shown, side=SIDE).encode())


def _shown(name: str, picture: Path | None, folder: Path) -> dict[str, object]:
    known: dict[str, object] = {"name": printable(name)}
    if picture is None:
        return known
    with Image.open(picture, formats=FORMATS) as image:
        small = max(image.size) <= SIDE
        image.thumbnail((SIDE, SIDE))  # a JPEG is decoded at the size that is needed
        turned = ImageOps.exif_transpose(image).convert("RGB")
    buffer = io.BytesIO()
    turned.save(buffer, "PNG" if small else "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    # quoted whole, a name is never the scheme of an address
    link = quote(Path(os.path.relpath(picture, folder)).as_posix())
    data = base64.b64encode(buffer.getvalue()).decode()
    return known | {"image": f"data:image/{kind};base64,{data}", "small": small, "link": link}

"""The contact sheet: pictures of every kind at a size to recognise them by, and names as they are."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from PIL import Image

from clsim.reporting import contact


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera that was held upright
    Image.new("RGB", (1200, 600), (200, 10, 10)).save(tmp_path / "large.jpg", exif=turned)
    Image.new("L", (8, 8), 200).save(tmp_path / "grey.png")
    Image.new("P", (8, 8), 3).save(tmp_path / "palette.gif")
    Image.new("CMYK", (300, 20)).save(tmp_path / "print.jpg")
    Image.new("RGBA", (9, 9)).save(tmp_path / "clear.png")
    names = ["large.jpg", "grey.png", "palette.gif", "print.jpg", "clear.png"]
    sheet = tmp_path / "below" / "ask.html"
    sheet.parent.mkdir()
    contact.draw({name: tmp_path / name for name in names} | {"none": None}, "<title>", "about", sheet)
    text = sheet.read_text(encoding="utf-8")
    assert "<title>&lt;title&gt;</title>" in text
    assert text.count("<li>") == 6
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", text)]
    assert [image.size for image in shown] == [(96, 192), (8, 8), (8, 8), (192, 13), (9, 9)]
    red, green, _ = shown[0].getpixel((40, 90))
    assert red > 180 > 40 > green
    links = re.findall(r'href="([^"]+)"', text)
    assert [(sheet.parent / link).resolve() for link in links] == [(tmp_path / name).resolve() for name in names]


def test_a_long_question_shows_its_beginning(tmp_path: Path) -> None:
    contact.draw(dict.fromkeys(map(str, range(contact.SHOWN + 1))), "t", "about.", tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.count("<li>") == contact.SHOWN
    assert "about. Shown: the first 1,000 of 1,001." in text

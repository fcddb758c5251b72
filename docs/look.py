"""Open built pages in a browser, wide and narrow, light and dark: photograph them, and list what is wrong.

    python -m docs.look docs/_build/html screenshots

Wrong is any word on the console, any request that leaves the folder, and a page that is wider than the window.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAGES = (
    "index",
    "tutorials/plot_first_table",
    "howto/index",
    "howto/own-selector",
    "reference/index",
    "reference/selectors",
    "reference/commands",
    "reference/api",
    "results/index",
    "results/online-cifar100",
    "results/survey",
    "explanation/why-kcenter-loses",
)
WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
QUIET += ("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")


class NoBrowser(Exception):
    """There is no browser, or nothing to drive it; the text says what to install."""


@contextmanager
def browser() -> Iterator[Any]:
    """Start a browser of its own, without a window.

    Raises:
        NoBrowser: if there is none.
    """
    try:
        from selenium import webdriver
    except ImportError:
        raise NoBrowser("selenium is not installed (pip install 'clsim[test]')") from None
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        raise NoBrowser("no Chromium with its chromedriver is installed (apt-get install chromium chromium-driver)")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for argument in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            yield opened
        finally:
            opened.quit()


def look(opened: Any, folder: Path, page: str, width: int, scheme: str, picture: Path | None = None) -> list[str]:
    """Open a page and list what is wrong with it.

    Args:
        folder: the folder of the built pages.
        page: path of the page in it, without its ending.
        width: width of the window in pixels.
        scheme: ``light`` or ``dark``.
        picture: PNG file for a photograph of its first 1400 pixels; None: none is made.
    """
    size = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for kind in ("browser", "performance"):
        opened.get_log(kind)
    opened.get((folder / f"{page}.html").resolve().as_uri())
    where = f"{page}, {width} pixels, {scheme}"
    said = [f"{where}: console: {entry['message']}" for entry in opened.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    said += [f"{where}: asks for {url}" for url in asked if not url.startswith(("file:", "data:"))]
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    if wide > width:
        said.append(f"{where}: is {wide} pixels wide")
    if picture is not None:
        taken = opened.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        picture.write_bytes(base64.b64decode(taken["data"]))
    return said


def main(folder: Path, pictures: Path) -> int:
    """Look at all of :data:`PAGES`; return the exit code."""
    pictures.mkdir(parents=True, exist_ok=True)
    said = []
    try:
        with browser() as opened:
            for page, width, scheme in itertools.product(PAGES, WIDTHS, SCHEMES):
                file = pictures / f"{page.replace('/', '-')}-{width}-{scheme}.png"
                said += look(opened, folder, page, width, scheme, file)
    except NoBrowser as missing:
        print(f"not looked at: {missing}")
        return 0
    print("\n".join(said) or f"{len(PAGES)} pages: no word on the console, no request, none too wide")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

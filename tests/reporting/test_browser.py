"""The page in a real browser: sorted, filtered, opened, photographed; nothing on the console, and no request."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clsim.records.store import RunFailure, RunRecord
from clsim.reporting import page
from docs.look import NoBrowser
from docs.look import browser as started
from tests.reporting.test_page import renamed
from tests.studies import SPEC, study

selenium = pytest.importorskip("selenium", reason="selenium is not installed (pip install 'clsim[test]')")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

EVIL = "</script><script>window.entered=1</script><img src=x onerror=window.entered=2>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        with started() as opened:
            opened.set_window_size(1280, 900)
            yield opened
    except NoBrowser as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    return study(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def file(records: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "small.html"
    page.write(SPEC, records, [], path, "clsim report small --format html")
    return path


def look(browser: Any, width: int, scheme: str = "light") -> None:
    """The size and the colours that the page is seen with from now on."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def show(browser: Any, file: Path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(file.as_uri())


def complaints(browser: Any, file: Path) -> list[Any]:
    """What the console says, and every request but that of the file."""
    said = browser.get_log("browser")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [*said, *(url for url in asked if url.split("#")[0] != file.as_uri() and not url.startswith("data:"))]


def column(browser: Any, number: int, table: int = 0) -> list[str]:
    """The cells of the rows that are shown."""
    script = """return [...document.querySelectorAll("table.filtered")[arguments[0]].tBodies[0].rows]
        .filter((row) => row.checkVisibility()).map((row) => row.cells[arguments[1]].textContent.trim())"""
    return browser.execute_script(script, table, number)


def values(browser: Any, number: int) -> list[float]:
    script = """return [...document.querySelectorAll("table.filtered")[0].tBodies[0].rows]
        .map((row) => Number(row.cells[arguments[0]].dataset.v))"""
    return browser.execute_script(script, number)


def test_tables_are_sorted_by_mouse_and_by_keyboard(browser: Any, file: Path) -> None:
    look(browser, 1280)
    show(browser, file)
    heads = browser.find_elements(By.CSS_SELECTOR, "table.filtered")[0].find_elements(By.CSS_SELECTOR, "thead th")
    assert [head.text for head in heads] == ["strategy", "buffer", "memory", "split-digits"]
    before = values(browser, 3)
    heads[3].click()
    assert values(browser, 3) == sorted(before, reverse=True) != before  # the better first
    assert [head.get_attribute("aria-sort") for head in heads] == ["none", "none", "none", "descending"]
    heads[3].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert values(browser, 3) == sorted(before)
    assert heads[3].get_attribute("aria-sort") == "ascending"
    heads[2].find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert column(browser, 2) == ["10", "10", "40", "40", "–", "–"]  # by number; what has none comes last
    heads[2].click()
    assert column(browser, 2) == ["40", "40", "10", "10", "–", "–"]
    assert heads[3].get_attribute("aria-sort") == "none"
    assert complaints(browser, file) == []


def test_rows_are_filtered_in_all_tables(browser: Any, file: Path) -> None:
    look(browser, 1280)
    show(browser, file)
    assert len(column(browser, 0)) == 6
    search = browser.find_element(By.ID, "search")
    search.send_keys("ER herding")
    for table in (0, 1):
        assert column(browser, 1, table) == ["herding", "herding"]
    assert browser.find_element(By.ID, "count").text == "4 of 12 rows"
    Select(browser.find_element(By.CSS_SELECTOR, 'select[data-position="2"]')).select_by_visible_text("40")
    assert column(browser, 2) == ["40"]
    search.clear()
    search.send_keys("no such row")
    assert column(browser, 0) == []
    assert complaints(browser, file) == []


def test_a_number_leads_to_its_runs(browser: Any, file: Path, records: list[RunRecord]) -> None:
    look(browser, 1280)
    show(browser, file)
    row = next(i for i, name in enumerate(column(browser, 1)) if name == "herding")
    link = browser.find_elements(By.CSS_SELECTOR, "table.filtered")[0].find_elements(By.CSS_SELECTOR, "tbody tr")[row]
    link.find_element(By.CSS_SELECTOR, "td a").click()
    dialog = browser.find_element(By.ID, "behind")
    WebDriverWait(browser, 5).until(lambda _: dialog.is_displayed())
    assert "herding · 10 · split-digits · final accuracy, %" in dialog.text
    opened = dialog.find_elements(By.TAG_NAME, "summary")
    assert [summary.text.split()[1] for summary in opened] == ["0", "1", "2"]
    opened[1].click()
    mine = [r for r in records if r.data["spec"]["memory"]["buffer"] == "herding"]
    (record,) = (r for r in mine if (r.data["spec"]["memory"]["capacity"], r.data["spec"]["seed"]) == (10, 1))
    WebDriverWait(browser, 5).until(lambda _: "Resolved spec" in dialog.text)
    shown = [part.text for part in dialog.find_elements(By.TAG_NAME, "pre")]
    assert record.data["fingerprint"] in dialog.text
    assert shown[0] == record.data["command"] != ""
    assert json.loads(shown[-1]) == record.data["spec"]
    assert f"{100 * record.data['metrics']['accuracy']:.2f} %" in dialog.text
    assert f"torch\n{record.data['versions']['torch']}" in dialog.text
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert "#" not in browser.current_url
    browser.get(f"{file.as_uri()}#cell-1-0-0")  # an address that somebody was sent
    assert "forgetting, %" in browser.find_element(By.ID, "behind-title").text
    assert complaints(browser, file) == []


@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_photographed(width: int, browser: Any, file: Path, tmp_path: Path) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        look(browser, width, scheme)
        show(browser, file)
        inner, outer = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert inner <= outer == width  # tables scroll in their own box
        height = browser.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        photo = tmp_path / f"{width}-{scheme}.png"
        photo.write_bytes(base64.b64decode(taken["data"]))
        with Image.open(io.BytesIO(photo.read_bytes())) as image:
            assert image.size == (width, height)
            pixels = np.asarray(image.convert("L"))
        lightness[scheme] = np.median(pixels)
        assert len(np.unique(pixels)) > 50
        assert complaints(browser, file) == []
    assert lightness["light"] > 200 > 60 > lightness["dark"]


def test_the_reader_chooses_the_scheme(browser: Any, file: Path) -> None:
    look(browser, 1280, "light")
    show(browser, file)
    script = "return getComputedStyle(document.body).backgroundColor"
    toggle, seen = browser.find_element(By.ID, "theme"), [browser.execute_script(script)]
    for _ in range(3):
        toggle.click()
        seen.append(browser.execute_script(script))
    assert seen[0] == seen[1] == seen[3] != seen[2]  # auto, light, dark, auto
    assert complaints(browser, file) == []


def test_hostile_names_stay_text(browser: Any, records: list[RunRecord], tmp_path: Path) -> None:
    hostile = [renamed(r, scenario=EVIL, strategy=EVIL) for r in records]
    failures = [RunFailure("0" * 16, {"scenario": EVIL}, EVIL, EVIL, "")]
    file = tmp_path / "hostile.html"
    page.write(dataclasses.replace(SPEC, title=EVIL, description=EVIL), hostile, failures, file, EVIL)
    look(browser, 400)
    show(browser, file)
    browser.execute_script('document.querySelector("td a").click()')
    WebDriverWait(browser, 5).until(lambda _: browser.find_element(By.ID, "behind").is_displayed())
    browser.execute_script('for (const d of document.querySelectorAll("dialog details")) d.open = true')
    assert browser.execute_script("return window.entered") is None
    assert browser.find_element(By.TAG_NAME, "h1").text == EVIL
    inner, outer = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner <= outer
    assert complaints(browser, file) == []

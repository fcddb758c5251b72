"""The HTML page of a report over 1,000 finished runs: the time to make it, its size, and how quick it is to use.

If a browser is found, the times to load the page, to sort a column, to filter, and to open the runs behind a number are
measured; all times are medians over the rounds. The records are those of :mod:`benchmarks.report`. There are two
reports: the usual one, and the slowest, which has a row for each run.

    python -m benchmarks.page [--runs 1000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import make
from clsim.records.store import Store
from clsim.reporting import page
from clsim.reporting.report import ReportSpec

REPORTS = {
    "usual": ReportSpec(title="The usual", metrics=("accuracy", "forgetting", "train_seconds")),
    "a row a run": ReportSpec(
        title="The worst", rows=("scenario", "buffer", "memory", "seed"), columns=(), metrics=("accuracy", "forgetting")
    ),
}

TIMED = {
    "sort": "document.querySelectorAll('table.filtered thead th.n button')[0].click()",
    "filter": "const s = document.getElementById('search'); s.value = s.value ? '' : 'kcenter 500';"
    "s.dispatchEvent(new Event('input'))",
    "open": "document.querySelector('table.filtered td a').click()",
}
"""Actions of a reader, timed until the page has been laid out again."""


def browser(folder: str) -> Any:
    """Start a headless browser; None if there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        return None
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def used(opened: Any, path: Path, rounds: int) -> dict[str, float]:
    """Measure, in milliseconds, the loading of a page and the actions of a reader."""
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        opened.get("about:blank")
        opened.get(path.as_uri())
        loaded = "return performance.getEntriesByType('navigation')[0].domComplete"
        times.setdefault("load", []).append(opened.execute_script(loaded))
        for name, action in TIMED.items():
            script = f"const a = performance.now(); {action}; document.body.offsetHeight; return performance.now() - a"
            times.setdefault(name, []).append(opened.execute_script(script))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder / "runs", given.runs)
        records, _ = Store(folder / "runs").records()
        opened = browser(str(folder / "profile"))
        for name, spec in REPORTS.items():
            seconds = []
            for _ in range(given.rounds):
                started = time.process_time()
                page.write(spec, records, [], folder / "page.html")
                seconds.append(time.process_time() - started)
            size = (folder / "page.html").stat().st_size
            print(
                f"{name}: {len(records)} runs, {statistics.median(seconds):.2f} s of processor, {size / 2**20:.2f} MiB"
            )
            if opened is None:
                print("  no Chromium with its chromedriver: not opened")
                continue
            print(
                "  " + ", ".join(f"{k} {v:.0f} ms" for k, v in used(opened, folder / "page.html", given.rounds).items())
            )
        if opened is not None:
            opened.quit()


if __name__ == "__main__":
    main()

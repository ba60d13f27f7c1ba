"""The measurements behind the report's bars: the demo's time, and every page that it makes in a real browser.

`make evidence-report` runs them all and writes docs/evidence/report.md and report.json with commit, date and versions.
`demo` runs examples/run_demo.py and times its phases; `pages` opens what it made, wide and narrow, light and dark, with
everything unfolded, and needs Debian's chromium and chromium-driver. Pass names to run some only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evidence import ROOT, facts_of, measure

LARGEST = 2_500_000
MINUTES, FIRST = 8, 3

sys.path.insert(0, str(ROOT))


def demo() -> dict[str, Any]:
    """Seconds of each phase of the demo, after the install."""
    began = time.monotonic()
    rows: list[list[Any]] = []
    run = [sys.executable, "-u", "examples/run_demo.py"]
    with subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("== "):  # a phase: a training, an audit, or the summary
                now = time.monotonic() - began
                if rows:
                    rows[-1][1] = now - rows[-1][1]
                rows.append([line.removeprefix("== ").strip(), now])
    total = time.monotonic() - began
    rows = rows[:-1]  # the summary takes no time
    first = next(i for i, row in enumerate(rows) if "audit of" in row[0])
    until_first = sum(row[1] for row in rows[: first + 1])
    return {
        "bar": f"the demo under {MINUTES} minutes on 2 cores after the install, its first report under {FIRST}",
        "columns": ["phase", "seconds"],
        "rows": [*rows, ["all", total]],
        "result": f"{total:.0f} s, first report after {until_first:.0f} s, on {os.cpu_count()} cores",
        "met": process.returncode == 0 and total < 60 * MINUTES and until_first < 60 * FIRST,
    }


def pages() -> dict[str, Any]:
    """Console errors, axe's findings, overflow, requests and size of each page of the demo and of a comparison."""
    views = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
    with tempfile.TemporaryDirectory() as folder, _browser() as driver:
        made = list(_made(Path(folder)))
        rows = [[name, *view, *_looked_at(driver, page, *view)] for name, page in made for view in views]
    clean = [row[4:] == [0, 0, 0, 0, 0] for row in rows]
    return {
        "bar": "each page at 1280 and 390 px, light and dark: no console error, no serious violation of axe's, no "
        f"scrolling sideways, no request, under {LARGEST / 1e6:.1f} MB",
        "columns": ["page", "px", "scheme", "kB", "console", "axe serious", "axe other", "px too wide", "requests"],
        "rows": rows,
        "result": f"{sum(clean)} of {len(rows)} views without any remark, largest page {max(r[3] for r in rows)} kB",
        "met": all(row[3] < LARGEST / 1000 and [*row[4:6], *row[7:]] == [0, 0, 0, 0] for row in rows),
    }


def _made(folder: Path) -> Iterator[tuple[str, Path]]:
    from examples.run_demo import EXAMPLES

    import casemate

    for example in EXAMPLES:
        outputs = [ROOT / "examples" / example.folder / audit.output for audit in example.audits]
        for audit, output in zip(example.audits, outputs, strict=True):
            yield f"{example.folder}: {audit.title}", output / "report.html"
        if len(outputs) > 1:
            page = folder / f"{example.folder}.html"
            page.write_text(casemate.compare(*outputs[:2]).page(), encoding="utf-8")
            yield f"{example.folder}: comparison", page


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(shutil.which("chromedriver")), options=options)
    try:
        yield driver
    finally:
        driver.quit()


def _looked_at(driver: Any, page: Path, width: int, scheme: str) -> list[int]:
    from axe_selenium_python import Axe

    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(page.as_uri())
    wide = "return document.documentElement.scrollWidth"
    folded = driver.execute_script(wide)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    axe = Axe(driver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # axe-selenium-python leaves its script's file open
        axe.inject()
    violations = axe.run()["violations"]
    serious = sum(violation["impact"] in ("serious", "critical") for violation in violations)
    errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    told = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in told if m["method"] == "Network.requestWillBeSent"}
    outside = [address for address in asked - {page.as_uri()} if not address.startswith(("data:", "blob:"))]
    too_wide = max(folded, driver.execute_script(wide)) - width
    kilobytes = round(page.stat().st_size / 1000)
    return [kilobytes, len(errors), serious, len(violations) - serious, max(too_wide, 0), len(outside)]


def _version() -> str:
    browser = shutil.which("chromium")
    if browser is None:
        return "none"
    told = subprocess.run([browser, "--version"], capture_output=True, text=True, check=True).stdout
    return " ".join(told.split()[:2])


MEASUREMENTS = {f.__name__: f for f in (demo, pages)}


def main(arguments: list[str]) -> int:
    """Run the named measurements (all by default) and write the page."""
    facts = facts_of("selenium", "axe-selenium-python", "torch") | {"browser": _version()}
    return measure("report", "the report", MEASUREMENTS, arguments, facts=facts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

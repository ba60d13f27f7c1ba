"""The pages in a real browser, wide and narrow, light and dark: no error, no barrier, nothing fetched or cut off."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import numpy as np
import pytest
from tests.report.test_exhibits import report_with

import casemate
from casemate.core.exhibit import Groups, bars, lines, pictures, rows, texts_changed
from casemate.report.folder import write_report

WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
LARGEST = 2_500_000
VISIBLE = ".filter(part => part.checkVisibility()).map(part => part.outerHTML.slice(0, 90))"
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser():
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(found.values()):
        missing = ", ".join(name for name, path in found.items() if not path)
        if os.environ.get("CI"):
            pytest.fail(f"expected {missing}, got none: install Debian's chromium and chromium-driver")
        pytest.skip(f"{missing} is not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(found["chromedriver"]), options=options)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A real audit, a report with every kind of outcome and exhibit, and the comparison of two audits."""
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 5))
    y = (x[:, 0] + 0.3 * rng.normal(size=240) > 0).astype(int)
    asked = {
        "groups": {"sex": np.where(x[120:, 0] > 0.2, "women", "men")},
        "profile": "quick",
        "only": ["evasion/standard", "evasion/corruptions", "fairness", "preflight/leakage", "preflight/eval_mode"],
    }
    for name, c in (("a", 1.0), ("b", 0.001)):
        model = LogisticRegression(C=c).fit(x[:120], y[:120])
        casemate.audit(model, test=(x[120:], y[120:]), train=(x[:120], y[:120]), output=folder / name, **asked)
    (folder / "comparison.html").write_text(casemate.compare(folder / "a", folder / "b").page(), encoding="utf-8")
    write_report(_everything(folder / "all"), folder / "all")
    return {
        "audit": folder / "a/report.html",
        "all": folder / "all/report.html",
        "comparison": folder / "comparison.html",
    }


def _everything(folder):
    rng = np.random.default_rng(1)
    image = rng.random((6, 3, 24, 24)).astype(np.float32)
    told = {"was": ["no"] * 6, "now": ["yes"] * 6, "about": "linf"}
    cells = np.array([[f"value {i}, {j}" for j in range(9)] for i in range(6)])
    steps = np.linspace(0, 1, 400)
    text = " ".join(["ordinary words of a letter"] * 30)
    names = [f"column_with_a_long_name_{i}" for i in range(9)]
    typo = text.replace("letter ordinary", "1etter ordinary", 1)
    ends = np.array([0.1, 0.3]), np.array([0.05, 0.2]), np.array([0.2, 0.5]), np.array([90, 12_000])
    rates = [Groups("linf", ["W" * 300, "men"], *ends), Groups("digit 8", ["a", "b"], *ends, thin=["W" * 90])]
    curves = {"loss": (steps, steps**0.5), "W" * 300: (steps, steps**0.8)}
    return report_with(
        folder,
        pictures(image, np.clip(image + 0.02, 0, 1), bounds=(0, 1), **told),
        rows(cells, np.char.replace(cells, "value", "another"), names=names, **told),
        texts_changed([text] * 6, [typo] * 6, **told),
        bars(rates, metric="evasion.robust_accuracy", confidence=0.95, caption="rate by group"),
        lines(curves, x="FPR", y="TPR", x_log=True, diagonal=True),
    )


def _show(driver, page, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(page.as_uri())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["audit", "all", "comparison"])
def test_a_page_has_no_error_no_barrier_and_fits_its_window(browser, pages, name, width, scheme):
    from axe_selenium_python import Axe

    assert pages[name].stat().st_size < LARGEST
    _show(browser, pages[name], width, scheme)
    wide = "return document.documentElement.scrollWidth"
    assert browser.execute_script(wide) <= width
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(ground[4:].split(",")[0]) > 128) == (scheme == "light")
    browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.execute_script(wide) <= width
    axe = Axe(browser)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # axe-selenium-python leaves its script's file open
        axe.inject()
    found = axe.run()
    assert found["passes"]
    bad = [v for v in found["violations"] if v["impact"] in SERIOUS]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]][:3]) for v in bad] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = {m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"}
    assert {a for a in addresses if not a.startswith(("data:", "blob:"))} == {pages[name].as_uri()}


def test_what_is_folded_is_open_in_print(browser, pages):
    _show(browser, pages["audit"], 800, "light")
    seen = "return [...document.querySelectorAll('details > :last-child')].map(part => part.checkVisibility())"
    shut = browser.execute_script(seen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(shut) > 3
    assert not any(shut)
    assert all(browser.execute_script(seen))


def test_every_part_is_reached_by_the_keyboard(browser, pages):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _show(browser, pages["all"], 1280, "light")
    wanted = browser.execute_script(f"return [...document.querySelectorAll('a, summary')]{VISIBLE}")
    assert len(wanted) > 8
    reached = []
    for _ in range(len(wanted) + 8):  # regions that scroll are stops too
        ActionChains(browser, duration=0).send_keys(Keys.TAB).perform()
        reached += browser.execute_script(f"return [document.activeElement]{VISIBLE}")
    assert set(wanted) <= set(reached)

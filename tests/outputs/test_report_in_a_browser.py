"""The report in a real browser, without a network: the slider moves, and names with HTML in them are text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_regplugins.figures import pair_figure
from monai_regplugins.figures.pair import PANELS, panels_of
from monai_regplugins.outputs import RegistrationReport

pytestmark = pytest.mark.slow
NAME = "<img src=x onerror=document.title=1>"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(flag)
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    images = {name: torch.rand(1, 12, 10, 8) for name in ("moving", "fixed", "warped")}
    figure = pair_figure(**images, ddf=torch.zeros(3, 12, 10, 8), spacing=[1.0, 1.0, 1.0])
    for name in (NAME, "plain"):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        figure.savefig(folder / "registration.png", metadata={PANELS: json.dumps(panels_of(figure))})
        measures = {"verdict": "WARN", "reasons": [f"WARN: {NAME}"], "ncc_before": 0.1, "ncc": 0.9}
        (folder / "metrics.json").write_text(json.dumps(measures))
    RegistrationReport(tmp_path / "out", title=NAME)([NAME, "plain"], {f"{NAME}2": f"failed by {NAME}"})
    return tmp_path / "out" / "report.html"


def test_the_slider_moves_and_nothing_is_asked_for(browser: Any, report: Path) -> None:
    browser.get("data:,")
    browser.get_log("performance")  # of the page that it starts with
    browser.get(report.as_uri())
    assert browser.title == NAME  # no script of a name has run
    assert browser.execute_script("return [...document.images].every(one => one.naturalWidth > 0)")
    sliders = browser.find_elements("css selector", ".slider")
    assert len(sliders) == 2
    top, control = (sliders[0].find_element("css selector", part) for part in (".top", "input"))
    for value in ("20", "80"):
        move = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        browser.execute_script(move, control, value)
        assert top.value_of_css_property("clip-path") == f"inset(0px 0px 0px {value}%)"
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert NAME in browser.find_element("tag name", "body").text

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.figures import pair_figure
from monai_regplugins.figures.pair import PANELS, panels_of
from monai_regplugins.figures.png import png_of
from monai_regplugins.outputs import report
from monai_regplugins.outputs.report import (
    RegistrationReport,
    box_figure,
    report_page,
    worst_first,
)

PNG = b"\x89PNG\r\n\x1a\n"
ROWS: list[dict[str, Any]] = [
    {
        "pair_id": "good",
        "dsc_before": 0.5,
        "dsc": 0.9,
        "dsc_before_1": 0.5,
        "dsc_1": 0.9,
        "ncc_before": 0.1,
        "ncc": 0.9,
    },
    {"pair_id": "bad", "dsc_before": 0.4, "dsc": 0.3, "dsc_before_1": 0.4, "dsc_1": 0.3, "ncc_before": 0.2, "ncc": 0.5},
    {"pair_id": "none", "dsc_before": math.nan, "dsc": math.nan, "ncc_before": 0.3, "ncc": 0.7},
]


class Page(HTMLParser):
    """Cells of the tables, sources of the pictures, and whether all tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")
        elif tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells.append(data)


def write_results(folder: Path) -> list[str]:
    for row in ROWS:
        results = folder / row["pair_id"]
        results.mkdir()
        values = {key: None if value != value else value for key, value in row.items() if key != "pair_id"}
        (results / "metrics.json").write_text(json.dumps(values))
        (results / "registration.png").write_bytes(PNG + row["pair_id"].encode())
    return [row["pair_id"] for row in ROWS]


def test_worst_pairs_come_first() -> None:
    assert [row["pair_id"] for row in worst_first(ROWS)] == ["none", "bad", "good"]
    distances = [{"pair_id": "near", "tre": 1.0, "dsc": 0.1}, {"pair_id": "far", "tre": 3.0, "dsc": 0.9}]
    assert [row["pair_id"] for row in worst_first(distances)] == ["far", "near"]
    assert worst_first([{"pair_id": "a"}]) == [{"pair_id": "a"}]


def test_the_page_needs_no_other_file_and_tells_all_numbers() -> None:
    text = report_page(ROWS, {"bad": PNG}, "Hips & <knees>")
    page = Page(text)
    assert page.open == []
    assert "<h1>Hips &amp; &lt;knees&gt;</h1>" in text
    assert not re.search(r"https?://", text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert len(page.sources) == 2  # box plot and the picture
    start = page.cells.index("DSC")
    assert page.cells[start : start + 3] == ["DSC", "0.450 ± 0.071", "0.600 ± 0.424"]
    assert "0.400 → 0.300" in page.cells
    assert page.cells.index("none") < page.cells.index("bad") < page.cells.index("good")


JUDGED: list[dict[str, Any]] = [
    {"pair_id": "fine", "verdict": "PASS", "reasons": "", "ncc_before": 0.2, "ncc": 0.3},
    {
        "pair_id": "odd",
        "verdict": "WARN",
        "reasons": "WARN: it folds",
        "ncc_before": 0.2,
        "ncc_aligned": 0.5,
        "ncc": 0.9,
    },
    {"pair_id": "<wrong>", "verdict": "FAIL", "reasons": "FAIL: <b>noise</b>", "ncc_before": 0.2, "ncc": 0.8},
    {"pair_id": "gone", "verdict": "ERROR", "reasons": "moving image is empty"},
]


def test_the_worst_verdicts_come_first_with_their_reasons() -> None:
    assert [row["pair_id"] for row in worst_first(JUDGED)] == ["gone", "<wrong>", "odd", "fine"]
    text = report_page(JUDGED, {"<wrong>": PNG, "fine": PNG}, "title")
    page = Page(text)
    assert page.open == []
    shown = (
        "gone: moving image is empty",
        "&lt;wrong&gt;: &lt;b&gt;noise",
        "odd: it folds",
        'FAIL">FAIL &lt;b&gt;noise',
    )
    places = [text.index(words) for words in shown]
    assert places == sorted(places)
    assert "FAIL: " not in text  # the level is not said twice
    assert "<b>" not in text
    assert '<a href="%3Cwrong%3E/">&lt;wrong&gt;</a>' in text
    assert [cell for cell in page.cells if cell in ("ERROR", "FAIL", "WARN", "PASS")] == [
        "ERROR",
        "FAIL",
        "WARN",
        "PASS",
    ]
    assert text.index("%3Cwrong%3E/") < text.index('<a href="fine/">')


def test_the_page_says_what_it_counts_and_what_an_arrow_is() -> None:
    text = report_page(JUDGED, {"fine": PNG}, "title")
    assert "<p>4 pairs, mean and standard deviation over the 3 with a result.</p>" in text
    assert "<p>Measures before → initially aligned, where that moved the image → after the registration.</p>" in text
    assert '<a href="fine/registration.png"><img' in text
    text = report_page(ROWS, {}, "title")
    assert "<p>3 pairs, mean and standard deviation over the pairs.</p>" in text
    assert "<p>Measures before → after the registration.</p>" in text
    (axes,) = box_figure({"1": ([0.1], [0.5])}).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("label", "DSC")


def test_what_the_initial_alignment_did_has_a_column_of_its_own() -> None:
    page = Page(report_page(JUDGED, {}, "title"))
    start = page.cells.index("NCC", page.cells.index("aligned"))
    assert page.cells[:3] == ["before", "aligned", "after"]
    # 0.2, 0.5, 0.2: pairs that were not moved are aligned as they were given
    assert page.cells[start : start + 4] == ["NCC", "0.200 ± 0.000", "0.300 ± 0.173", "0.667 ± 0.321"]
    assert "0.200 → 0.500 → 0.900" in page.cells
    assert "0.200 → 0.300" in page.cells
    assert Page(report_page(ROWS, {}, "title")).cells[:3] == ["before", "after", "DSC"]


def test_failed_pairs_and_verdicts_are_gathered(tmp_path: Path) -> None:
    names = write_results(tmp_path)
    judged = tmp_path / "good" / "metrics.json"
    judged.write_text(
        json.dumps({"verdict": "WARN", "reasons": ["WARN: a", "WARN: b"], "ncc": 0.5, "ncc_before": None})
    )
    RegistrationReport(tmp_path)(names, {"lost": "no such file"})
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        table = {line["pair_id"]: line for line in csv.DictReader(stream)}
    assert (table["good"]["verdict"], table["good"]["reasons"]) == ("WARN", "WARN: a; WARN: b")
    assert (table["lost"]["verdict"], table["lost"]["reasons"], table["lost"]["ncc"]) == ("ERROR", "no such file", "")
    assert table["bad"]["verdict"] == ""


def test_boxes_of_aligned_pairs_are_three() -> None:
    """A pair that was not moved is aligned as it was given."""
    dice = ({"dsc_before_3": 0.1, "dsc_aligned_3": 0.4, "dsc_3": 0.8}, {"dsc_before_3": 0.2, "dsc_3": 0.9})
    rows: list[dict[str, Any]] = [
        {"pair_id": "a", "ncc_before": 0.1, "ncc_aligned": 0.2, **dice[0]},
        {"pair_id": "b", "ncc_before": 0.1, **dice[1]},
    ]
    values = report._per_label(rows)
    assert values == {"3": [[0.1, 0.2], [0.4, 0.2], [0.8, 0.9]]}
    (axes,) = box_figure(values, ["before", "aligned", "after"]).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["before", "aligned", "after"]
    medians = [np.asarray(line.get_ydata())[0] for line in axes.lines if line.get_color() == "white"]
    assert medians == pytest.approx([0.15, 0.3, 0.85])


def test_without_labels_there_is_no_box_plot() -> None:
    assert Page(report_page([{"pair_id": "a", "ncc_before": 0.1, "ncc": 0.5}], {}, "title")).sources == []


def test_boxes_show_the_values_before_and_after() -> None:
    (axes,) = box_figure({"1": ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), "6": ([0.4], [0.8])}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "6"]
    medians = [np.asarray(line.get_ydata())[0] for line in axes.lines if line.get_color() == "white"]
    assert sorted(float(value) for value in medians) == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_the_report_gathers_the_folders(tmp_path: Path) -> None:
    RegistrationReport(tmp_path, "Knees", pictures=2)(write_results(tmp_path))
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        table = {line["pair_id"]: line for line in csv.DictReader(stream)}
    assert list(table) == ["good", "bad", "none", "mean", "sd"]
    assert float(table["mean"]["dsc"]) == pytest.approx(0.6)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [name for name in ("none", "bad", "good") if f'<h3><a href="{name}/">{name}</a></h3>' in text] == [
        "none",
        "bad",
    ]


@pytest.mark.parametrize("name", ["metrics.csv", "report.html"])
def test_files_of_someone_else_are_refused_before_anything_is_done(name: str, tmp_path: Path) -> None:
    report = RegistrationReport(tmp_path)
    report.check()
    report(write_results(tmp_path))
    report.check()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_text("mine")
    with pytest.raises(InputError, match=rf"'.*{name}' is there already and was not written by this program"):
        RegistrationReport(tmp_path / "b").check()
    assert (tmp_path / "b" / name).read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_results(tmp_path)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html"):
        RegistrationReport(tmp_path)(names)


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
def strange_report(tmp_path: Path) -> Path:
    images = {name: torch.rand(1, 12, 10, 8) for name in ("moving", "fixed", "warped")}
    figure = pair_figure(**images, ddf=torch.zeros(3, 12, 10, 8), spacing=[1.0, 1.0, 1.0])
    for name in (NAME, "plain"):
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        picture = png_of(figure, texts={PANELS: json.dumps(panels_of(figure))})
        (folder / "registration.png").write_bytes(picture)
        measures = {"verdict": "WARN", "reasons": [f"WARN: {NAME}"], "ncc_before": 0.1, "ncc": 0.9}
        (folder / "metrics.json").write_text(json.dumps(measures))
    RegistrationReport(tmp_path / "out", title=NAME)([NAME, "plain"], {f"{NAME}2": f"failed by {NAME}"})
    return tmp_path / "out" / "report.html"


@pytest.mark.slow
def test_the_slider_moves_and_nothing_is_asked_for(browser: Any, strange_report: Path) -> None:
    """In a real browser, without a network; names with HTML in them are text."""
    browser.get("data:,")
    browser.get_log("performance")  # of the page that it starts with
    browser.get(strange_report.as_uri())
    assert browser.title == NAME  # no script of a name has run
    assert browser.execute_script("return [...document.images].every(one => one.naturalWidth > 0)")
    sliders = browser.find_elements("css selector", ".slider")
    assert len(sliders) == 2
    top, control = (sliders[0].find_element("css selector", part) for part in (".top", "input"))
    assert [one.text for one in sliders[0].find_elements("css selector", "p span")] == ["fixed", "warped"]
    assert top.size == top.find_element("css selector", "img").size
    grasp = (
        "arguments[0].scrollIntoView(); const box = arguments[0].getBoundingClientRect(); const y = box.y + 2;"
        "return [0.1, 0.9].every(x => document.elementFromPoint(box.x + x * box.width, y) === arguments[0])"
    )
    assert browser.execute_script(grasp, control), "something lies on the control"
    for value in ("20", "80"):
        move = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        browser.execute_script(move, control, value)
        assert top.value_of_css_property("clip-path") == f"inset(0px 0px 0px {value}%)"
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [strange_report.as_uri()]
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert NAME in browser.find_element("tag name", "body").text

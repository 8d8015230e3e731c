"""Figures as PNG files."""

import io
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from monai_regplugins.figures.png import png_of, save_figure


def test_size_of_the_picture_is_that_of_the_figure(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    FigureCanvasAgg(figure)
    save_figure(tmp_path / "new" / "figure.png", figure, dpi=50)
    assert (tmp_path / "new" / "figure.png").read_bytes() == png_of(figure, dpi=50)
    with Image.open(io.BytesIO(png_of(figure))) as image:
        assert image.size == (220, 110)


def test_file_has_three_channels_the_resolution_and_what_it_is_to_state() -> None:
    figure = Figure(figsize=(2, 1), facecolor=(1.0, 0.0, 0.0, 1.0))
    with Image.open(io.BytesIO(png_of(figure, 90, {"Key": "some words"}))) as image:
        assert (image.size, image.mode) == ((180, 90), "RGB")
        assert image.info["dpi"] == pytest.approx((90, 90), abs=0.02)  # stored as pixels per meter
        assert image.text["Key"] == "some words"
        assert image.getpixel((90, 45)) == (255, 0, 0)


def test_settings_of_matplotlib_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure(figsize=(2, 1))
    expected = png_of(figure)
    for name, value in {"savefig.bbox": "tight", "savefig.dpi": 30, "savefig.transparent": True}.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert png_of(figure) == expected

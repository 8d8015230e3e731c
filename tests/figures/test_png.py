"""Figures as PNG files."""

import io
from pathlib import Path

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

"""Pictures against Pillow: gray values of each mode, palettes, and what is no gray image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from field_cases import LPS
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.pictures import itk_affine_of_picture, read_picture

SLICE = np.random.default_rng(0).integers(0, 4, size=(6, 4), dtype=np.uint8)  # rows, columns
GRAYS = np.array([0, 30, 200, 90], np.uint8)  # of the four indices, not in their order


def palette(colors: np.ndarray) -> Image.Image:
    """A picture of four indices into a palette."""
    picture = Image.frombytes("P", SLICE.shape[::-1], SLICE.tobytes())
    picture.putpalette(colors.astype(np.uint8).ravel().tolist())
    return picture


MODES = {".png": ["1", "L", "I;16", "RGB", "RGBA", "LA"], ".bmp": ["1", "L", "RGB", "RGBA"], ".jpg": ["L"]}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes])
def test_gray_values_of_each_mode(tmp_path: Path, suffix: str, mode: str) -> None:
    values = np.full_like(SLICE, 9) if suffix == ".jpg" else SLICE  # which JPEG keeps
    picture = Image.fromarray(values.astype(np.uint16)) if mode == "I;16" else Image.fromarray(values).convert(mode)
    picture.save(tmp_path / f"a{suffix}")
    expected = values > 127 if mode == "1" else values
    np.testing.assert_array_equal(read_picture(tmp_path / f"a{suffix}", "image"), expected.T)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_palette_is_looked_up_for_images_and_not_for_label_maps(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    palette(np.repeat(GRAYS[:, None], 3, axis=1)).save(path)
    np.testing.assert_array_equal(read_scan(path, "image", 2).values, GRAYS[SLICE].T)
    np.testing.assert_array_equal(read_scan(path, "label", 2, exact=True).values, SLICE.T)


def test_a_palette_of_colors_is_refused_for_images_only(tmp_path: Path) -> None:
    palette(np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"image '.*a.png' is a color picture, expected gray values"):
        read_scan(tmp_path / "a.png", "image", 2)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.png", "label", 2, exact=True).values, SLICE.T)


@pytest.mark.parametrize("exact", [False, True])
def test_modes_that_are_no_gray_values_are_refused(tmp_path: Path, exact: bool) -> None:
    Image.new("CMYK", (8, 8), 7).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="mode CMYK, expected gray values"):
        read_scan(tmp_path / "a.jpg", "image", 2, exact=exact)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg"])
@pytest.mark.parametrize("density", [{}, {"dpi": (300, 150)}])
def test_simpleitk_places_pictures_in_lps(tmp_path: Path, name: str, density: dict[str, tuple[int, int]]) -> None:
    Image.fromarray(SLICE).save(tmp_path / name, **density)
    image = sitk.ReadImage(str(tmp_path / name))
    expected = LPS @ np.diag([*image.GetSpacing(), 1, 1])
    assert image.GetOrigin() == (0, 0)
    np.testing.assert_allclose(itk_affine_of_picture(tmp_path / name), expected, rtol=1e-6)

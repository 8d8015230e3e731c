"""OME-Zarr images written with zarr, by both versions of the standard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import read_scan, scan_phases, scan_shape
from monai_regplugins.readers.phases import Phase
from monai_regplugins.transforms.load import LoadPaird

zarr = pytest.importorskip("zarr", minversion="3")

STACK = np.random.default_rng(0).integers(0, 60000, (5, 6, 7)).astype(np.uint16)  # z, y, x
UNITS = {"millimeter": 1.0, "micrometer": 1000.0}
SIZES, START = np.array([2.0, 0.75, 0.5]), np.array([10.0, -3.0, 4.0])  # z, y, x, mm


def write(
    folder: Path, values: Any, axes: str = "zyx", unit: str = "millimeter", version: int = 3, **others: Any
) -> Path:
    """An image of two levels."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=version)
    group.create_array("0", data=values, chunks=tuple(min(4, n) for n in values.shape))
    group.create_array("1", data=values[..., ::2, ::2])
    extra = [1.0] * (len(axes) - 3)
    steps = [
        {"type": "scale", "scale": [*extra, *(SIZES * UNITS.get(unit, 1.0))]},
        {"type": "translation", "translation": [*(0.0 for _ in extra), *(START * UNITS.get(unit, 1.0))]},
    ]
    known = [{"name": axis, "type": "space", "unit": unit} if axis in "zyx" else {"name": axis} for axis in axes]
    image = {"axes": known, "datasets": [{"path": "0", "coordinateTransformations": steps}, {"path": "1"}], **others}
    group.attrs.update(
        {"multiscales": [image]} if version == 2 else {"ome": {"version": "0.5", "multiscales": [image]}}
    )
    return folder


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("unit", UNITS)
def test_the_finest_level_lies_where_the_metadata_say(tmp_path: Path, unit: str, version: int) -> None:
    path = write(tmp_path / "a.ome.zarr", STACK, unit=unit, version=version)
    scan = read_scan(path, "image")
    np.testing.assert_array_equal(scan.values, STACK.T)
    expected = np.diag([*SIZES[::-1], 1.0])
    expected[:3, 3] = START[::-1]
    np.testing.assert_allclose(scan.affine, expected)
    assert scan_shape(path, "image") == STACK.T.shape
    assert LoadPaird()({"fixed": path, "moving": path})["fixed"].shape == (1, *STACK.T.shape)


def test_a_common_scale_comes_after_that_of_the_level(tmp_path: Path) -> None:
    steps = [{"type": "scale", "scale": [2.0, 2.0, 2.0]}]
    scan = read_scan(write(tmp_path / "a.zarr", STACK, coordinateTransformations=steps), "image")
    np.testing.assert_allclose(np.diag(scan.affine)[:3], 2 * SIZES[::-1])
    np.testing.assert_allclose(scan.affine[:3, 3], 2 * START[::-1])


def test_times_are_volumes_and_one_channel_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", np.stack([STACK, STACK // 2])[:, None], "tczyx")
    assert scan_phases(path, "image") == ["0", "1"]
    scan = read_scan(path, "image", phase=Phase("1", "fixed_phase"))
    np.testing.assert_array_equal(scan.values, (STACK // 2).T)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="holds 2 values per voxel"):
        read_scan(write(tmp_path / "c.zarr", np.stack([STACK, STACK]), "czyx"), "image")
    with pytest.raises(InputError, match="has no spacing"):
        read_scan(write(tmp_path / "u.zarr", STACK, unit="parsec"), "image")
    with pytest.raises(InputError, match="has the axes a, y, x, expected"):
        read_scan(write(tmp_path / "a.zarr", STACK, "ayx"), "image")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_scan(tmp_path / "empty.zarr", "image")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match="need zarr, which is missing; install it with: pip install zarr"):
        read_scan(tmp_path / "u.zarr", "image")

"""The package's own file of a field: NumPy reads it, and nothing is rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_cases import GRIDS, field_ras

from monai_regplugins.checks import InputError
from monai_regplugins.io.native import load_native, write_native


@pytest.mark.parametrize("d", [2, 3])
def test_numbers_come_back_bit_for_bit(tmp_path: Path, d: int) -> None:
    ddf = field_ras() if d == 3 else field_ras()[:2, ..., 0]
    write_native(ddf, GRIDS["oblique"], tmp_path / "field.npz")
    found, affine = load_native(tmp_path / "field.npz")
    assert (found.dtype, affine.dtype) == (np.float32, np.float64)
    assert np.array_equal(found, ddf)
    assert np.array_equal(affine, GRIDS["oblique"])
    with np.load(tmp_path / "field.npz") as archive:
        assert np.array_equal(archive["ddf"], ddf)


def test_a_smooth_field_is_compressed(tmp_path: Path) -> None:
    ddf = np.zeros((3, 20, 20, 20), np.float32)
    write_native(ddf, np.eye(4), tmp_path / "field.npz")
    assert (tmp_path / "field.npz").stat().st_size < ddf.nbytes / 20


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.npz"
    contents = {
        "holds affine \\(4, 4\\), expected ddf": {"affine": np.eye(4)},
        "holds affine \\(3, 3\\), ddf \\(3, 9, 8, 7\\)": {"affine": np.eye(3), "ddf": field_ras()},
        "ddf \\(1, 2, 2, 2\\)": {"affine": np.eye(4), "ddf": np.zeros((1, 2, 2, 2))},
        "holds affine \\(4, 4\\), ddf .*, extra": {"affine": np.eye(4), "ddf": field_ras(), "extra": np.zeros(1)},
        "cannot be read": {"affine": np.eye(4), "ddf": np.array(["no", "number"])},
        "holds nothing": {},
    }
    for message, arrays in contents.items():
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=message):
            load_native(path)
    with path.open("wb") as stream:
        np.save(stream, field_ras())
    with pytest.raises(InputError, match="cannot be read"):
        load_native(path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    np.savez(tmp_path / "field.npz", affine=np.eye(4), ddf=np.array([Trap(tmp_path / "sprung")], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        load_native(tmp_path / "field.npz")
    assert not (tmp_path / "sprung").exists()


def test_more_than_the_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive states what it unpacks to."""
    write_native(np.zeros((3, 50, 50, 50), np.float32), np.eye(4), tmp_path / "field.npz")
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "1M")
    with pytest.raises(InputError, match=r"field '.*' has 3750\d\d voxels, which take about .* of memory to read"):
        load_native(tmp_path / "field.npz")

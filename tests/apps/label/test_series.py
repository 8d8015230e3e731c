from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.series import propagate_frames, read_frames_label
from monai_regplugins.checks import InputError
from monai_regplugins.readers import read_cine
from monai_regplugins.registration import load_bundle


def draw(path: Path, shape: tuple[int, ...], *frames: int) -> Path:
    """A label map with a square on some frames."""
    values = np.zeros(shape, np.uint8)
    for frame in frames:
        values[10:20, 10:20, ..., frame] = 5
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def test_label_of_a_frame(cine: Path, tmp_path: Path) -> None:
    series = read_cine(cine)
    label, frame = read_frames_label(draw(tmp_path / "a.nii.gz", (40, 40, 4), 2), series)
    assert (frame, label.shape, label.max()) == (2, (40, 40), 5)
    two = draw(tmp_path / "b.nii.gz", (40, 40, 4), 1, 3)
    assert read_frames_label(two, series, 3)[1] == 3
    for frame, message in ((-1, "frames 1, 3 have labels; say by 'frame'"), (0, "frame 0 has no label")):
        with pytest.raises(RequestError, match=message):
            read_frames_label(two, series, frame)
    with pytest.raises(InputError, match="expected 0 to 3"):
        read_frames_label(two, series, 4)
    with pytest.raises(RequestError, match="is empty"):
        read_frames_label(draw(tmp_path / "c.nii.gz", (40, 40, 4)), series)
    with pytest.raises(RequestError, match=r"shape \(40, 40, 3\), expected \(40, 40, 4\)"):
        read_frames_label(draw(tmp_path / "d.nii.gz", (40, 40, 3), 1), series)


def test_series_in_a_file_of_four_axes(cine: Path, tmp_path: Path) -> None:
    values = np.asarray(nib.load(cine).dataobj)[:, :, None]
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "series.nii.gz")
    label = draw(tmp_path / "label.nii.gz", (40, 40, 1, 4), 2)
    assert read_frames_label(label, read_cine(tmp_path / "series.nii.gz"))[1] == 2


@pytest.mark.bundle
@pytest.mark.slow
def test_frames_are_registered_one_by_one(cine: Path, bundle_dir: Path) -> None:
    series, register = read_cine(cine), load_bundle(bundle_dir / "r2n2", device="cpu")
    label = np.zeros((40, 40), np.int32)
    label[10:20, 10:20] = 5
    carried, last = propagate_frames(register, series, label, 1)
    assert carried.shape == series.frames.shape
    assert np.array_equal(carried[1], label)
    spacing = np.array(series.spacing)
    lone = register(series.frames[3], series.frames[1], moving_label=label, spacing=spacing)
    assert np.array_equal(carried[3], lone.warped_label[0].numpy())
    assert np.array_equal(last.ddf.numpy(), lone.ddf.numpy())

"""Series of one slice over time: reading, refusing, preparing for the network, and writing back."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.readers import cine
from monai_regplugins.readers.cine import (
    CineSeries,
    join_frames,
    read_cine,
    reference_frame,
    series_files,
    write_series,
)

AFFINE = np.array([[0, 0, -10.0, 4], [0, -1.5, 0, 30], [-2.0, 0, 0, 50], [0, 0, 0, 1]])  # rows down, columns back


def values(frames=5, rows=6, columns=4):
    """A series of random frames (T, H, W)."""
    return np.random.default_rng(0).uniform(0, 200, (frames, rows, columns)).astype(np.float32)


@pytest.fixture
def save(tmp_path):
    """Write an array as NIfTI and return its path."""

    def write(array, affine=AFFINE, time=0.0, unit="unknown", name="series.nii.gz"):
        image = nib.Nifti1Image(array, affine)
        if array.ndim == 4:
            image.header["pixdim"][4] = time
        image.header.set_xyzt_units("mm", unit)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


def last(frames):
    """Frames with time as the last axis, (H, W, T)."""
    return np.moveaxis(frames, 0, -1)


def test_three_axes(save):
    frames = values()
    series = read_cine(save(last(frames)))
    np.testing.assert_array_equal(series.frames, frames)
    assert series.frames.dtype == np.float32
    assert series.spacing == pytest.approx((2.0, 1.5))
    assert series.times is None
    assert series.slice_axis is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_four_axes_with_the_slice_anywhere(save, axis):
    frames = values()
    file = save(np.expand_dims(last(frames), axis), np.diag([2.0, 3.0, 5.0, 1.0]), 0.4, "sec")
    series = read_cine(file)
    np.testing.assert_array_equal(series.frames, frames)
    assert series.spacing == pytest.approx(tuple(np.delete([2.0, 3.0, 5.0], axis)))
    np.testing.assert_allclose(series.times, 0.4 * np.arange(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("time", "unit", "interval"), [(400.0, "msec", 0.4), (0.0, "sec", None), (1.0, "unknown", None)]
)
def test_times_only_where_the_header_states(save, time, unit, interval):
    times = read_cine(save(last(values())[:, :, None], AFFINE, time, unit)).times
    assert (times is None) if interval is None else times[1] == pytest.approx(interval)


def test_scaled_integers(save):
    frames = np.random.default_rng(0).integers(0, 255, (3, 4, 5)).astype(np.uint8)
    file = save(last(frames)[:, :, None])
    np.testing.assert_array_equal(read_cine(str(file)).frames, frames)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_written_series_has_the_geometry_of_the_one_read(save, tmp_path, axis):
    frames = values()
    array = last(frames) if axis is None else np.expand_dims(last(frames), axis)
    file = save(array, AFFINE, 0.35, "sec")
    series = read_cine(file)
    aligned = series.with_frames(frames[::-1])
    write_series(aligned, tmp_path / "new" / "aligned.nii.gz")
    before, after = nib.load(file), nib.load(tmp_path / "new" / "aligned.nii.gz")
    assert before.shape == after.shape
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    again = read_cine(tmp_path / "new" / "aligned.nii.gz")
    np.testing.assert_array_equal(again.frames, frames[::-1])
    if axis is not None:
        assert after.header.get_zooms()[3] == pytest.approx(0.35)
        np.testing.assert_allclose(again.times, series.times, rtol=1e-6)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["aligned.nii.gz"]


def test_whole_numbers_are_rounded(save, tmp_path):
    series = read_cine(save(last(values())))
    write_series(series, tmp_path / "out.nii", np.uint8)
    image = nib.load(tmp_path / "out.nii")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(last(np.rint(series.frames)), np.asarray(image.dataobj))


def test_with_frames_refuses_another_shape(save):
    with pytest.raises(InputError, match=r"shape \(4, 6, 4\), expected \(5, 6, 4\)"):
        read_cine(save(last(values()))).with_frames(values(4))


def test_write_refuses_another_suffix(save, tmp_path):
    with pytest.raises(InputError, match="no NIfTI name"):
        write_series(read_cine(save(last(values()))), tmp_path / "out.mha")


def broken(frame, value):
    """A series with a bad value in one frame."""
    frames = values()
    frames[frame, 2 if not np.isfinite(value) else slice(None)] = value
    return last(frames)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (last(values(1)), "has 1 frame, expected two or more"),
        (last(values(1))[:, :, None], "has 1 frame, expected two or more"),
        (values()[0], r"is a single image of shape \(6, 4\), expected \(H, W, T\)"),
        (np.ones((4, 4, 3, 5), np.float32), r"is a volume over time of shape \(4, 4, 3, 5\)"),
        (np.ones((4, 4, 1, 5, 3), np.float32), "is an image of 5 axes"),
        (last(values(5, 1, 4)), "frames of 1 x 4 pixels"),
        (broken(3, 7.0), "is constant in frame 3"),
        (broken(1, np.nan), "NaN or infinite intensities in frame 1"),
        (broken(4, np.inf), "NaN or infinite intensities in frame 4"),
        (last(values()).astype(np.complex64), "one gray value per pixel"),
    ],
)
def test_refused_files(save, array, message):
    with pytest.raises(InputError, match=message) as caught:
        read_cine(save(array))
    assert "\n" not in str(caught.value)
    assert "series.nii.gz" in str(caught.value)


def test_sheared_affine_is_refused(save):
    sheared = AFFINE.copy()
    sheared[1, 0] = 1.0
    with pytest.raises(InputError, match="sheared"):
        read_cine(save(last(values()), sheared))


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_cine(tmp_path / "none.nii.gz")
    for name, kind in (("text.nii.gz", "as NIfTI"), ("text.dcm", "expected NIfTI or DICOM")):
        (tmp_path / name).write_text("no image at all")
        with pytest.raises(InputError, match=kind):
            read_cine(tmp_path / name)


def test_folder_with_one_nifti_file(save):
    file = save(last(values()))
    (file.parent / "notes.txt").write_text("beside it")
    np.testing.assert_array_equal(read_cine(file.parent).frames, values())
    save(last(values()), name="second.nii")
    with pytest.raises(InputError, match=r"holds 2 NIfTI files \('second.nii', 'series.nii.gz'"):
        read_cine(file.parent)


def test_hidden_files_of_a_folder_do_not_matter(save, tmp_path):
    file = save(last(values()))
    file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    file.with_name("._Toy_dataset.json").write_bytes(b"\0\5\x16\7")
    assert read_cine(file.parent).source == str(file)
    assert series_files(file.parent) == [file]


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no DICOM series and no NIfTI file"):
        read_cine(tmp_path)


def test_series_of_a_data_set(save, tmp_path):
    (tmp_path / "imagesTr").mkdir()
    files = [save(last(values()), name=f"imagesTr/Toy_{n}.nii.gz") for n in (2, 1)]
    entries = [{"image": "./imagesTr/Toy_2.nii.gz"}, "imagesTr/Toy_1.nii.gz"]
    (tmp_path / "Toy_dataset.json").write_text(json.dumps({"series": entries}))
    assert series_files(tmp_path) == files
    assert series_files(tmp_path / "imagesTr") == files[::-1]


@pytest.mark.parametrize("text", ["{", "[]", '{"series": [{"picture": "x"}]}', '{"series": 3}'])
def test_broken_description(tmp_path, text):
    (tmp_path / "Toy_dataset.json").write_text(text)
    with pytest.raises(InputError, match="lists no series"):
        series_files(tmp_path)


def test_data_set_without_series(tmp_path):
    with pytest.raises(InputError, match="holds no series"):
        series_files(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        series_files(tmp_path / "none")
    (tmp_path / "Toy_dataset.json").write_text('{"series": ["gone.nii"]}')
    with pytest.raises(InputError, match="does not exist"):
        series_files(tmp_path)


def test_frames_of_images_make_a_series():
    affine = np.array([[0, -3.0, 0, 4], [2, 0, 0, 5], [0, 0, 5, 6], [0, 0, 0, 1]])
    values = np.random.default_rng(0).uniform(size=(3, 6, 4))
    for axis, spacing in ((0, (3.0, 5.0)), (1, (2.0, 5.0)), (2, (2.0, 3.0))):
        series = join_frames([(np.expand_dims(one, axis), affine) for one in values], "list")
        np.testing.assert_array_equal(series.frames, values.astype(np.float32))
        assert (series.spacing, series.slice_axis, series.source) == (spacing, axis, "list")
    elsewhere = affine + np.eye(4)[:, [2, 3, 1, 0]]
    for images, message in (
        ([(values[0], affine), (values[1, :5], affine)], "frames of different sizes"),
        ([(values[0], affine), (values[1], elsewhere)], "frame 1 lies elsewhere"),
        ([(values[0], affine)], "has 1 frame"),
        ([(values, affine)] * 2, "volume over time"),
    ):
        with pytest.raises(InputError, match=message):
            join_frames(images, "list")


def test_reference_is_the_frame_of_the_mean_intensity():
    means = np.array([10.0, 30.0, 21.0, 40.0, 2.0])  # mean 20.6
    frames = values() / values().mean(axis=(1, 2), keepdims=True) * means[:, None, None]
    assert reference_frame(frames) == 2
    assert reference_frame(CineSeries(frames.astype(np.float32), (1.0, 1.0), None, np.eye(4))) == 2
    assert reference_frame(frames.astype(np.uint8)) == 2


@pytest.mark.data
def test_real_series(shared_data, monkeypatch):
    monkeypatch.setattr(cine, "_check_frames", lambda _: None)  # all pixels of all frames take a second
    files = series_files(shared_data("LungMR2Dt"))
    assert len(files) == 2
    series = read_cine(files[0])
    assert series.frames.shape == (200, 270, 270)
    assert series.slice_axis == 2
    assert series.times is None  # the header gives no unit
    part = series.frames[:20]
    assert np.corrcoef(part[0].ravel(), part[10].ravel())[0, 1] > 0.8


def test_more_than_the_memory_holds(save, monkeypatch):
    path = save(last(values()))
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(16 * 5 * 6 * 4))
    read_cine(path)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(16 * 5 * 6 * 4 - 1))
    with pytest.raises(InputError, match=r"series '.*' has 6 x 4 x 5 voxels, which take about .* of memory to read"):
        read_cine(path)

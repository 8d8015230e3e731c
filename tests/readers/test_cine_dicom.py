"""DICOM series, written by SimpleITK: order, times, geometry and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from monai_regplugins.checks import InputError
from monai_regplugins.readers import read_cine
from monai_regplugins.readers.cine_dicom import dicom_frames

UID = "1.2.826.0.1.3680043.2.1125.7"
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # columns to the back, rows to the feet, in LPS


def frames(count=4):
    """Distinct frames (T, H, W)."""
    return np.random.default_rng(0).integers(0, 1000, (count, 6, 5)).astype(np.int16)


@pytest.fixture
def save(tmp_path):
    """Write one frame as a DICOM file."""

    def write(frame, name, tags, series=UID, origin=(7.0, -30.0, 60.0), direction=SAGITTAL):
        image = sitk.GetImageFromArray(frame[None])
        image.SetSpacing((1.5, 2.0, 10.0))
        image.SetOrigin(origin)
        image.SetDirection(direction)
        position, d = "\\".join(map(str, origin)), direction
        orientation = "\\".join(map(str, (d[0], d[3], d[6], d[1], d[4], d[7])))
        keys = {"0008|0060": "MR", "0020|000e": series, "0020|0032": position, "0020|0037": orientation} | tags
        for key, value in keys.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(tmp_path / name))
        writer.Execute(image)
        return tmp_path / name

    return write


TIMES = {
    "acquisition time": (["0008|0032"], ["100059.500000", "100100", "100100.500", "100101.0"], 0.5),
    "acquisition over midnight": (["0008|0032", "0008|0022"], ["235959.5", "000000", "000000.5", "000001"], 0.5),
    "trigger time": (["0018|1060"], ["20", "270", "520", "770"], 0.25),
    "content time": (["0008|0033"], ["1000", "1001", "1002", "1003"], 60.0),
    "temporal position": (["0020|0100"], ["1", "2", "9", "10"], None),
    "instance number": (["0020|0013"], ["1", "2", "9", "10"], None),
}


@pytest.mark.parametrize("kind", TIMES)
def test_frames_are_sorted_by_time(save, tmp_path, kind):
    keys, texts, interval = TIMES[kind]
    images = frames()
    days = ["20260131", "20260201", "20260201", "20260201"]
    for index, name in zip((2, 0, 3, 1), "abcd", strict=True):
        tags = dict(zip(keys, (texts[index], days[index]), strict=False))
        save(images[index], f"{name}.dcm", tags)
    series = read_cine(tmp_path)
    np.testing.assert_array_equal(series.frames, images)
    if interval is None:
        assert series.times is None
    else:
        np.testing.assert_allclose(series.times, interval * np.arange(4), atol=1e-3)


def test_times_that_are_all_the_same_do_not_sort(save, tmp_path):
    images = frames()
    for index, name in zip((2, 0, 3, 1), "abcd", strict=True):
        save(images[index], f"{name}.dcm", {"0008|0032": "100000", "0020|0013": str(index)})
    series = read_cine(tmp_path)
    np.testing.assert_array_equal(series.frames, images)
    assert series.times is None


def test_geometry(save, tmp_path):
    for number, image in enumerate(frames()):
        save(image, f"{number}.dcm", {"0020|0013": str(number)})
    series = read_cine(tmp_path)
    assert series.spacing == pytest.approx((2.0, 1.5))  # rows, columns
    # in RAS: rows run to the feet (-S), columns to the back (-A), the first pixel lies at (-7, 30, 60)
    expected = np.array([[0, 0, 10.0, -7], [0, -1.5, 0, 30], [-2.0, 0, 0, 60], [0, 0, 0, 1]])
    np.testing.assert_allclose(np.abs(series.affine), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(series.affine[:, [0, 1, 3]], expected[:, [0, 1, 3]], atol=1e-5)


def test_a_file_of_a_series_chooses_it(save, tmp_path):
    images = frames()
    for number, image in enumerate(images):
        save(image, f"a{number}.dcm", {"0020|0013": str(number)})
        save(image[::-1].copy(), f"b{number}.dcm", {"0020|0013": str(number)}, series=UID + ".8")
    with pytest.raises(
        InputError, match=r"2 DICOM series \(.*: 4 files as a0.dcm, .*: 4 files as b0.dcm\), expected one"
    ):
        read_cine(tmp_path)
    np.testing.assert_array_equal(read_cine(tmp_path / "a2.dcm").frames, images)
    np.testing.assert_array_equal(read_cine(tmp_path / "b0.dcm").frames, images[:, ::-1])


def test_one_file_with_many_frames(tmp_path):
    images = frames()
    image = sitk.GetImageFromArray(images)
    image.SetMetaData("0008|0060", "MR")
    image.SetMetaData("0018|1063", "250")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(tmp_path / "all.dcm"))
    writer.Execute(image)
    for path in (tmp_path / "all.dcm", tmp_path):
        series = read_cine(path)
        np.testing.assert_array_equal(series.frames, images)
        np.testing.assert_allclose(series.times, 0.25 * np.arange(4))


def test_one_frame_only(save, tmp_path):
    save(frames()[0], "a.dcm", {"0020|0013": "1"})
    with pytest.raises(InputError, match="has 1 frame, expected two or more"):
        read_cine(tmp_path)


def test_frames_of_different_sizes(save, tmp_path):
    save(frames()[0], "a.dcm", {"0020|0013": "1"})
    save(frames()[1][:4], "b.dcm", {"0020|0013": "2"})
    with pytest.raises(InputError, match="different sizes"):
        read_cine(tmp_path)


def test_several_slices(save, tmp_path):
    for number, image in enumerate(frames()):
        save(image, f"{number}.dcm", {"0020|0013": str(number)}, origin=(7.0 + 10 * number, -30.0, 60.0))
    with pytest.raises(InputError, match="shows different slices"):
        read_cine(tmp_path)


def test_files_without_an_order(save, tmp_path):
    for number, image in enumerate(frames()):
        save(image, f"{number}.dcm", {})
    with pytest.raises(InputError, match="neither times nor numbers"):
        read_cine(tmp_path)


def test_color_pictures(tmp_path):
    colors = sitk.GetImageFromArray(
        np.random.default_rng(0).integers(0, 255, (6, 5, 3)).astype(np.uint8), isVector=True
    )
    sitk.WriteImage(colors, str(tmp_path / "a.dcm"))
    with pytest.raises(InputError, match="color picture"):
        dicom_frames(tmp_path / "a.dcm")


def test_a_damaged_frame_is_not_passed_over(save, tmp_path):
    for number, image in enumerate(frames()):
        file = save(image, f"{number}.dcm", {"0020|0013": str(number)})
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"3.dcm' is damaged and may be of the DICOM series beside it"):
        read_cine(tmp_path)
    with pytest.raises(InputError, match=r"3.dcm' cannot be read as an image, expected NIfTI or DICOM"):
        read_cine(file)


def test_more_than_the_memory_holds(save, tmp_path, monkeypatch):
    sitk.WriteImage(sitk.GetImageFromArray(np.stack(frames()).astype(np.uint8)), str(tmp_path / "many.dcm"))
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "300")
    with pytest.raises(InputError, match=r"series '.*many\.dcm' has \d+ x \d+ x 4 voxels, .* of memory to read"):
        dicom_frames(tmp_path / "many.dcm")
    (tmp_path / "many.dcm").unlink()
    for index, frame in enumerate(frames()):
        save(frame, f"{index}.dcm", {"0020|0013": str(index)})
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(16 * frames()[0].size * 4 - 1))  # one frame would fit
    with pytest.raises(InputError, match=r"series '.*' has \d+ x \d+ x 4 voxels, .* of memory to read"):
        dicom_frames(tmp_path)


def test_a_frame_that_is_there_twice_counts_once(save, tmp_path):
    values = frames()
    for number, frame in enumerate(values):
        save(frame, f"{number}.dcm", {"0020|0013": str(number + 1), "0008|0018": f"{UID}.{number}"})
    (tmp_path / "1 (1).dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    (tmp_path / "._0.dcm").write_bytes(b"\0\5\x16\7" * 100)
    np.testing.assert_array_equal(read_cine(tmp_path).frames, values)
    save(values[2], "other.dcm", {"0020|0013": "2", "0008|0018": f"{UID}.1"})
    with pytest.raises(InputError, match=r"two files of one instance that differ, '1.dcm' and 'other.dcm'"):
        read_cine(tmp_path)

"""DIR-Lab's raw files and landmarks, against a bright voxel put where a landmark says."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from monai_regplugins.checks import InputError
from monai_regplugins.data import dirlab
from monai_regplugins.data.dirlab import (
    DIRLAB_CASES,
    DirLabGeometry,
    convert_dirlab,
    read_dirlab,
)
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.transforms.load import LoadPaird

SIZE, SPACING = (7, 6, 9), (0.97, 0.97, 2.5)
FIXED_POINTS = [(1, 1, 1), (7, 6, 9), (3, 5, 4), (2, 1, 8)]
MOVING_POINTS = [(2, 2, 2), (6, 5, 8), (3, 4, 6), (1, 1, 7)]
NAMES = {
    "case1": ("case1_T00_s.img", "case1_300_T00_xyz.txt", "case1_T50_s.img", "case1_300_T50_xyz.txt"),
    "case6": ("case6_T00.img", "case6_dirLab300_T00_xyz.txt", "case6_T50.img", "case6_dirLab300_T50_xyz.txt"),
    "case8": ("Case8_T00-ssm.img", "case8_dirLab300_T00_xyz.txt", "case8_T50-ssm.img", "case8_dirLab300_T50_xyz.txt"),
    "case10": ("case10_T00.img", "case10_dirLab300_T00_xyz.txt", "case10_T50.img", "case10_dirLab300_T50_xyz.txt"),
    "copd1": ("copd1_iBHCT.img", "copd1_300_iBH_xyz_r1.txt", "copd1_eBHCT.img", "copd1_300_eBH_xyz_r1.txt"),
}


@pytest.fixture(autouse=True)
def _small_cases(monkeypatch):
    for case in NAMES:
        monkeypatch.setitem(dirlab.DIRLAB_CASES, case, DirLabGeometry(SIZE, SPACING))


def raw_slices(points, seed=0):
    """Raw values [slice, row, column] as they lie in the file: noise, and 3000 + n at the n-th landmark."""
    values = np.random.default_rng(seed).integers(0, 1200, SIZE[::-1]).astype("<i2")
    for n, (x, y, z) in enumerate(points):
        values[z - 1, y - 1, x - 1] = 3000 + n
    return values


def write_case(folder, case, fixed=None, moving=None):
    """Write the four files of a case into nested folders, as the archives have them."""
    fixed = raw_slices(FIXED_POINTS) if fixed is None else fixed
    moving = raw_slices(MOVING_POINTS, 1) if moving is None else moving
    names = NAMES[case]
    images, texts = folder / f"{case}Pack" / "Images", folder / f"{case}Pack" / "ExtremePhases"
    images.mkdir(parents=True)
    texts.mkdir()
    for name, values in ((names[0], fixed), (names[2], moving)):
        values.tofile(images / name)
    for name, points in ((names[1], FIXED_POINTS), (names[3], MOVING_POINTS)):
        (texts / name).write_text("".join(f"{x}\t{y} \t{z} \r\n" for x, y, z in points))
    return folder


def test_the_table_is_that_of_the_site():
    original = {case: entry for case, entry in DIRLAB_CASES.items() if case not in NAMES}
    assert len(DIRLAB_CASES) == 20
    assert original["case2"] == ((256, 256, 112), (1.16, 1.16, 2.5))
    assert original["case5"] == ((256, 256, 106), (1.10, 1.10, 2.5))
    assert original["case7"] == ((512, 512, 136), (0.97, 0.97, 2.5))
    assert original["copd2"] == ((512, 512, 102), (0.645, 0.645, 2.5))
    assert original["copd10"] == ((512, 512, 135), (0.742, 0.742, 2.5))


@pytest.mark.parametrize("case", NAMES)
def test_bright_voxels_lie_at_the_landmarks(tmp_path, case):
    for image, affine, landmarks in read_dirlab(write_case(tmp_path, case), case):
        assert image.shape == SIZE
        assert image.dtype == np.int16
        at_landmarks = image[tuple(landmarks.astype(int).T)]
        np.testing.assert_array_equal(at_landmarks, 3000 + np.arange(4) - 1024)
        assert nib.aff2axcodes(affine) == ("L", "P", "S")
        np.testing.assert_allclose(affine, np.diag([-0.97, -0.97, 2.5, 1.0]))


def test_slices_are_flipped_and_axes_kept(tmp_path):
    values = np.arange(np.prod(SIZE), dtype="<i2").reshape(SIZE[::-1])
    fixed, moving = read_dirlab(write_case(tmp_path, "case1", fixed=values), "case1")
    assert fixed.image[0, 0, 8] == 0 - 1024  # the file begins with the slice nearest to the head
    assert fixed.image[1, 0, 8] == 1 - 1024
    assert fixed.image[0, 1, 8] == SIZE[0] - 1024
    assert fixed.image[0, 0, 7] == SIZE[0] * SIZE[1] - 1024
    np.testing.assert_array_equal(fixed.landmarks[0], [0, 0, 8])
    np.testing.assert_array_equal(fixed.landmarks[1], [6, 5, 0])
    np.testing.assert_array_equal(moving.landmarks[2], [2, 3, 3])


def test_outside_of_the_field_of_view(tmp_path):
    values = raw_slices([])
    values[0, 0, :4] = (-2000, -32768, -1024, 32767)
    fixed, _ = read_dirlab(write_case(tmp_path, "case1", fixed=values), "case1")
    np.testing.assert_array_equal(fixed.image[:4, 0, 8], [-2048, -2048, -2048, 31743])


def test_empty_slices_of_copd_are_cut(tmp_path):
    values = raw_slices(FIXED_POINTS[2:])
    values[8:] = 0  # the file's last slice, nearest to the feet
    values[:2] = 0
    with_room = [(3, 5, 4), (2, 1, 8)]
    write_case(tmp_path, "copd1", fixed=values)
    for name, points in ((NAMES["copd1"][1], with_room), (NAMES["copd1"][3], MOVING_POINTS[2:])):
        np.savetxt(tmp_path / "copd1Pack" / "ExtremePhases" / name, points, fmt="%d")
    fixed, moving = read_dirlab(tmp_path, "copd1")
    assert fixed.image.shape == (7, 6, 6)
    assert moving.image.shape == SIZE
    np.testing.assert_array_equal(fixed.landmarks, [[2, 4, 9 - 4 - 1], [1, 0, 9 - 8 - 1]])
    np.testing.assert_array_equal(fixed.image[tuple(fixed.landmarks.astype(int).T)], [3000 - 1024, 3001 - 1024])
    np.testing.assert_allclose(fixed.affine[:3, 3], [0, 0, 2.5])  # world positions stay where they were
    uncut = [[-0.97 * (x - 1), -0.97 * (y - 1), 2.5 * (9 - z)] for x, y, z in with_room]
    np.testing.assert_allclose(nib.affines.apply_affine(fixed.affine, fixed.landmarks), uncut)


def test_empty_slices_of_4dct_stay(tmp_path):
    values = raw_slices(FIXED_POINTS)
    values[4:] = 0
    assert read_dirlab(write_case(tmp_path, "case1", fixed=values), "case1").fixed.image.shape == SIZE


def test_truncated_file(tmp_path):
    write_case(tmp_path, "case6")
    file = next(tmp_path.rglob("case6_T50.img"))
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"case6_T50\.img' has 754 bytes, expected 756 for the 7 x 6 x 9 voxels"):
        read_dirlab(tmp_path, "case6")


@pytest.mark.parametrize("missing", range(4))
def test_missing_file(tmp_path, missing):
    write_case(tmp_path, "case1")
    name = NAMES["case1"][missing]
    next(tmp_path.rglob(name)).unlink()
    with pytest.raises(InputError, match=f"no file '{name}' anywhere below '{tmp_path}'"):
        read_dirlab(tmp_path, "case1")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist; give the folder with the unpacked"):
        read_dirlab(tmp_path / "nowhere", "case1")


def test_hidden_companions_of_the_files_do_not_matter(tmp_path):
    write_case(tmp_path, "case1")
    expected = read_dirlab(tmp_path, "case1")
    for file in [file for file in tmp_path.rglob("*") if file.is_file()]:
        (tmp_path / "__MACOSX").mkdir(exist_ok=True)
        (tmp_path / "__MACOSX" / file.name).write_bytes(b"\0\5\x16\7")
    found = read_dirlab(tmp_path, "case1")
    np.testing.assert_array_equal(found.fixed.image, expected.fixed.image)


def test_file_that_is_there_twice(tmp_path):
    write_case(tmp_path, "case1")
    (tmp_path / "case1_T00-ssm.img").write_bytes(b"x")
    with pytest.raises(InputError, match=r"2 files for 'case1_T00_s.img': .*'case1_T00-ssm.img'.*keep exactly one"):
        read_dirlab(tmp_path, "case1")


def test_case1_is_not_case10(tmp_path):
    write_case(tmp_path, "case10")
    with pytest.raises(InputError, match=r"no file 'case1_T00_s\.img'"):
        read_dirlab(tmp_path, "case1")
    assert read_dirlab(write_case(tmp_path, "case1"), "case1").fixed.landmarks.shape == (4, 3)


@pytest.mark.parametrize("row", ["1.5 2 3", "1 2", "1 2 3 4", "x y z", "0 1 1", "1 1 10", "-1 2 3", "8 1 1"])
def test_rows_that_are_no_voxels(tmp_path, row):
    write_case(tmp_path, "case1")
    next(tmp_path.rglob(NAMES["case1"][1])).write_text(f"1 1 1\n\n{row}\n")
    with pytest.raises(InputError, match=f"line 3 of .* reads '{row}', expected three whole numbers"):
        read_dirlab(tmp_path, "case1")


def test_different_numbers_of_landmarks(tmp_path):
    write_case(tmp_path, "case1")
    next(tmp_path.rglob(NAMES["case1"][1])).write_text("1 1 1\n")
    with pytest.raises(InputError, match="case1's fixed landmarks has size 1 x 3 but its moving landmarks has 4 x 3"):
        read_dirlab(tmp_path, "case1")


def test_landmark_in_a_slice_that_was_cut(tmp_path):
    values = raw_slices([])
    values[8:] = 0
    write_case(tmp_path, "copd1", fixed=values)
    with pytest.raises(InputError, match="lie in its empty slices"):
        read_dirlab(tmp_path, "copd1")


def test_unknown_case(tmp_path):
    with pytest.raises(InputError, match="case is 'case11'; choose one of"):
        read_dirlab(tmp_path, "case11")


def test_converted_data_set(tmp_path):
    for case in ("case1", "copd1"):
        write_case(tmp_path / "raw", case)
    folder = convert_dirlab(tmp_path / "raw", ["case1", "copd1"], tmp_path / "made")
    data = Learn2RegDataset(folder)
    pairs = data.validation_pairs()
    assert [pair["pair_id"] for pair in pairs] == ["0001_0001_to_0001_0000", "0101_0001_to_0101_0000"]
    expected = read_dirlab(tmp_path / "raw", "case1")
    loaded = LoadPaird(spatial_dims=3)(pairs[0])
    for role, phase in (("fixed", expected.fixed), ("moving", expected.moving)):
        file = nib.load(pairs[0][role])
        assert file.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(file.dataobj), phase.image)
        np.testing.assert_allclose(file.affine, phase.affine, atol=1e-6)
        points = loaded[f"{role}_landmarks"].numpy()
        np.testing.assert_array_equal(points, phase.landmarks)
        np.testing.assert_array_equal(np.asarray(file.dataobj)[tuple(points.astype(int).T)], 1976 + np.arange(4))


def test_simpleitk_finds_the_landmarks_in_the_nifti(tmp_path):
    """Physical points after the site's tables: spacing times index in LPS, identity directions, z to the head."""
    folder = convert_dirlab(write_case(tmp_path / "raw", "case1"), ["case1"], tmp_path / "made")
    image = sitk.ReadImage(folder / "imagesTr" / "DirLab_0001_0000.nii.gz")
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6)
    for n, (x, y, z) in enumerate(FIXED_POINTS):
        point = (0.97 * (x - 1), 0.97 * (y - 1), 2.5 * (SIZE[2] - z))
        index = image.TransformPhysicalPointToIndex(point)
        assert image[index] == 1976 + n


def test_some_cases_train(tmp_path):
    for case in ("case1", "case6"):
        write_case(tmp_path / "raw", case)
    folder = convert_dirlab(tmp_path / "raw", ["case1", "case6"], tmp_path / "made", validation=["case6"])
    data = Learn2RegDataset(folder)
    assert [pair["pair_id"] for pair in data.training_pairs()] == ["0001_0001_to_0001_0000"]
    assert [pair["pair_id"] for pair in data.validation_pairs()] == ["0006_0001_to_0006_0000"]


def test_what_cannot_be_converted(tmp_path):
    raw = write_case(tmp_path / "raw", "case1")
    with pytest.raises(InputError, match="validation case is 'case6'; choose one of 'case1'"):
        convert_dirlab(raw, ["case1"], tmp_path / "made", validation=["case6"])
    with pytest.raises(InputError, match="cases is empty"):
        convert_dirlab(raw, [], tmp_path / "made")
    with pytest.raises(InputError, match=r"no file 'case6_T00\.img'"):
        convert_dirlab(raw, ["case1", "case6"], tmp_path / "made")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["raw"]  # nothing half made
    with pytest.raises(InputError, match="holds files already"):
        convert_dirlab(raw, ["case1"], raw)

"""Phantom subjects, their exact correspondence, and the data set written from them."""

from __future__ import annotations

import json
from itertools import permutations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from monai_regplugins.phantoms import abdomen as phantoms
from monai_regplugins.phantoms.abdomen import (
    abdomen_displacement,
    abdomen_map,
    abdomen_subject,
    make_abdomen,
)
from monai_regplugins.phantoms.anatomy import ABDOMEN_LANDMARKS

SHAPE, SPACING = (40, 32, 40), 8.0
LARGE = (2, 3, 6, 7)


def _dice(a, b, values):
    return np.array([2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in values])


@pytest.fixture(scope="module")
def subjects():
    return {number: abdomen_subject((0, number), SHAPE, SPACING) for number in range(1, 7)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return make_abdomen(folder, 1, 2, spatial_shape=(20, 16, 20), spacing=16.0, seed=3)


def test_subject_is_a_function_of_its_seed(subjects):
    again = abdomen_subject((0, 1), SHAPE, SPACING)
    for key, value in subjects[1].items():
        np.testing.assert_array_equal(again[key], value)
    assert (again["label"] != subjects[2]["label"]).mean() > 0.01


def test_each_subject_has_all_organs_in_order_of_size(subjects):
    sizes = np.array([[(s["label"] == value).sum() for value in range(1, 12)] for s in subjects.values()])
    assert sizes.min() > 0
    assert set(sizes.argmax(axis=1)) == {5}
    assert np.median(sizes, axis=0).argmin() == 9
    assert {s["image"].dtype for s in subjects.values()} == {np.dtype("int16")}


def test_subjects_differ_as_much_as_stated(subjects):
    pairs = permutations([subject["label"] for subject in subjects.values()], 2)
    dice = [_dice(fixed, moving, range(1, 12)).mean() for fixed, moving in pairs]
    assert 0.3 < np.mean(dice) < 0.5


@pytest.mark.parametrize(("fixed", "moving"), [(1, 2), (3, 4), (6, 5)])
def test_exact_field_registers(subjects, fixed, moving):
    f, m = subjects[fixed], subjects[moving]
    ddf = abdomen_displacement(f["canonical"], (0, moving), f["affine"])
    position = np.indices(SHAPE) + ddf
    before = _dice(f["label"], m["label"], LARGE)
    after = _dice(f["label"], map_coordinates(m["label"], position, order=0), LARGE)
    assert after.min() > 0.8
    assert after.mean() > 0.85
    assert after.mean() > before.mean() + 0.1
    warped = map_coordinates(m["image"].astype(float), position, order=1, cval=-1000)
    ncc = [np.corrcoef(image.ravel(), f["image"].ravel())[0, 1] for image in (m["image"], warped)]
    assert ncc[1] > 0.9 > ncc[0]


def test_field_to_itself_is_zero(subjects):
    ddf = abdomen_displacement(subjects[1]["canonical"], (0, 1), subjects[1]["affine"])
    assert ddf.dtype == np.float32
    assert np.abs(ddf).max() < 1e-3


def test_landmarks_follow_the_field(subjects):
    f, m = subjects[1], subjects[2]
    assert f["landmarks"].shape == (len(ABDOMEN_LANDMARKS), 3)
    world = f["landmarks"] * SPACING + f["affine"][:3, 3]
    places = np.array(list(ABDOMEN_LANDMARKS.values())).T
    np.testing.assert_allclose(abdomen_map((0, 1)).forward(world.T), places, atol=1e-3)
    ddf = abdomen_displacement(f["canonical"], (0, 2), f["affine"])
    smooth = [n for n, name in enumerate(ABDOMEN_LANDMARKS) if name.startswith("vertebra") or name == "liver"]
    start = f["landmarks"][smooth].T
    moved = start + np.stack([map_coordinates(component, start, order=1) for component in ddf])
    np.testing.assert_allclose(moved, m["landmarks"][smooth].T, atol=0.15)  # linear interpolation at 8 mm


def test_organs_slide_along_the_wall(subjects):
    """Just inside and just outside the border of the cavity, displacements along z differ by millimeters."""
    canonical = np.array([[109.5, 112.5], [4.0, 4.0], [0.0, 0.0]])
    fixed, moving = abdomen_map((0, 1)), abdomen_map((0, 2))
    jumps = (moving.inverse(canonical) - fixed.inverse(canonical))[2]
    slides = (fixed.maps[-1].inverse(canonical), moving.maps[-1].inverse(canonical))
    expected = (slides[1] - slides[0])[2]
    assert expected[1] == 0
    assert abs(expected[0]) > 2
    assert abs(jumps[0] - jumps[1]) > 1


def test_files(dataset):
    description = json.loads((dataset / "AbdomenPhantom_dataset.json").read_text())
    assert description["numTraining"] == len(description["training"]) == 1
    assert len(description["registration_val"]) == 2
    entry = description["validation"][0]
    image, label = nib.load(dataset / entry["image"]), nib.load(dataset / entry["label"])
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.header.get_zooms(), 16.0)
    np.testing.assert_allclose(image.affine[:3, 3], [-152, -120, -152])
    subject = abdomen_subject((3, 2), (20, 16, 20), 16.0)
    np.testing.assert_array_equal(image.get_fdata(), subject["image"])
    landmarks = np.loadtxt(dataset / entry["landmarks"], delimiter=",")
    np.testing.assert_allclose(landmarks, subject["landmarks"], atol=6e-4)


def test_displacement_file(dataset):
    field = nib.load(dataset / "displacements" / "disp_0002_0003.nii.gz").get_fdata(dtype=np.float32)
    fixed = abdomen_subject((3, 2), (20, 16, 20), 16.0)
    exact = abdomen_displacement(fixed["canonical"], (3, 3), fixed["affine"])
    np.testing.assert_allclose(field, np.moveaxis(exact, 0, -1), atol=1 / 512 + 1e-6)


def test_existing_folder_is_kept(dataset):
    before = {file: file.stat().st_mtime_ns for file in dataset.rglob("*")}
    assert make_abdomen(dataset, 5, 5) == dataset
    assert {file: file.stat().st_mtime_ns for file in dataset.rglob("*")} == before


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantoms, "_write_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_abdomen(tmp_path / "data", 1, 0, (10, 8, 10), 32.0)
    assert list(tmp_path.iterdir()) == []


def test_the_faster_process_wins(tmp_path, monkeypatch):
    target = tmp_path / "data"

    def other_process_finishes(folder, *_):
        target.mkdir()
        (target / "mine").touch()
        (folder / "late").touch()

    monkeypatch.setattr(phantoms, "_write_dataset", other_process_finishes)
    assert make_abdomen(target) == target
    assert [entry.name for entry in tmp_path.rglob("*")] == ["data", "mine"]


def test_empty_folder_gives_way(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(phantoms, "_write_dataset", lambda folder, *_: (folder / "new").touch())
    make_abdomen(tmp_path / "data")
    assert (tmp_path / "data" / "new").is_file()


def test_error_other_than_a_race_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(phantoms, "_write_dataset", lambda folder, *_: (tmp_path / "data").touch())
    with pytest.raises(OSError, match="data"):
        make_abdomen(tmp_path / "data")

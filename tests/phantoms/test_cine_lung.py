"""The cine lung phantom: exact correspondence between frames, and the data set written from it."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.phantoms.breathing import Breath
from monai_regplugins.phantoms.cine_lung import (
    NAME,
    cine_lung_displacement,
    cine_lung_subject,
    make_cine_lung,
)
from monai_regplugins.readers import read_cine, reference_frame
from monai_regplugins.series import respiratory_curve
from monai_regplugins.transforms import LoadPaird

FRAMES, SHAPE, SPACING = 8, (96, 96), 256 / 96


def subject(seed=(0, 1), **more):
    return cine_lung_subject(seed, **({"num_frames": FRAMES, "spatial_shape": SHAPE, "spacing": SPACING} | more))


def descents(lung):
    """Depth of the breath of each frame in mm."""
    return np.array([piece.descent for m in lung.maps for piece in m.maps if isinstance(piece, Breath)])


@pytest.fixture(scope="module")
def lung():
    return subject()


@pytest.fixture(scope="module")
def clean():
    return subject(noise=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cine") / "data"
    return make_cine_lung(folder, 1, 1, num_frames=3, spatial_shape=(40, 48), spacing=(6.4, 5.5), seed=3)


def test_subject_is_a_function_of_its_seed(lung):
    again, other = subject(), subject((0, 2), num_frames=2)
    for name in ("frames", "labels", "landmarks", "times"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lung, name))
    assert (other.labels[0] != lung.labels[0]).mean() > 0.02


def test_shapes_and_types(lung):
    assert lung.frames.shape == lung.labels.shape == (FRAMES, *SHAPE)
    assert lung.frames.dtype == lung.labels.dtype == np.uint8
    assert lung.landmarks.shape[0] == FRAMES
    assert lung.landmarks.shape[1] > 40
    assert lung.reference == reference_frame(lung.frames)
    np.testing.assert_allclose(np.diff(lung.times), 0.4)
    assert nib.aff2axcodes(lung.affine)[:2] == ("I", "P")


def test_fixed_landmark_and_displacement_give_the_moving_landmark(lung):
    for fixed, moving in ((lung.reference, n) for n in range(FRAMES)):
        start = lung.landmarks[fixed].T
        end = start + cine_lung_displacement(lung, fixed, moving, start)
        np.testing.assert_allclose(end.T, lung.landmarks[moving], atol=1e-4)


def test_dense_field_is_the_field_at_the_pixels(lung):
    dense = cine_lung_displacement(lung, 0, 3)
    pixels = np.array([[30.0, 50.0], [40.0, 60.0]])
    np.testing.assert_allclose(cine_lung_displacement(lung, 0, 3, pixels), dense[:, [30, 50], [40, 60]], atol=1e-12)
    assert np.abs(cine_lung_displacement(lung, 2, 2)).max() < 1e-4


def test_fields_compose_to_the_identity(lung):
    there = cine_lung_displacement(lung, 1, 5)
    back = cine_lung_displacement(lung, 5, 1, np.indices(SHAPE) + there)
    np.testing.assert_allclose(there + back, 0, atol=1e-4)


def test_exact_field_registers_up_to_noise(clean, lung):
    """What is left is the interpolation's error and, in the lung, the signal that the air takes away."""
    depth = descents(clean)
    fixed, moving = int(depth.argmin()), int(depth.argmax())
    assert depth[moving] - depth[fixed] > 10
    position = np.indices(SHAPE) + cine_lung_displacement(clean, fixed, moving)
    inside = ((position >= 1) & (position <= np.array(SHAPE)[:, None, None] - 2)).all(axis=0)
    left = {}
    for name, frames in (("clean", clean.frames), ("noisy", lung.frames)):
        target, source = frames[fixed].astype(float), frames[moving].astype(float)
        before, after = target - source, target - map_coordinates(source, position, order=1)
        left[name] = np.sqrt([(error[inside] ** 2).mean() for error in (before, after)])
    assert left["clean"][0] > 15
    assert left["clean"][1] < 0.2 * left["clean"][0]
    # the noise of both frames, that of the warped one averaged by the interpolation, and what is left without it
    assert left["noisy"][1] < np.sqrt(2 * 2.5**2 + left["clean"][1] ** 2)
    static = inside & (clean.labels[fixed] == 4)  # vertebrae: nothing moves, little is interpolated
    error = (clean.frames[fixed].astype(float) - clean.frames[moving])[static]
    assert np.abs(error).max() < 5


def test_labels_follow_the_field(clean):
    depth = descents(clean)
    fixed, moving = int(depth.argmin()), int(depth.argmax())
    position = np.indices(SHAPE) + cine_lung_displacement(clean, fixed, moving)
    warped = map_coordinates(clean.labels[moving], position, order=0, mode="nearest")
    for value in (1, 2, 3):
        sizes = (clean.labels[fixed] == value).sum() + (warped == value).sum()
        assert 2 * ((clean.labels[fixed] == value) & (warped == value)).sum() / sizes > 0.95


def test_motion_is_that_of_breathing(lung):
    """Down in the middle of the diaphragm as stated, at rest in the spine, forward in front, and no folding."""
    depth = descents(lung)
    fixed, moving = int(depth.argmin()), int(depth.argmax())
    ddf = cine_lung_displacement(lung, fixed, moving) * SPACING
    lung_label, liver, vertebrae = (lung.labels[fixed] == value for value in (1, 2, 4))
    descent = depth[moving] - depth[fixed]
    assert ddf[0][liver].mean() == pytest.approx(descent, rel=0.2)
    assert 0.1 * descent < ddf[0][lung_label].mean() < 0.8 * descent
    assert np.abs(ddf[:, vertebrae]).max() < 0.5
    front = np.array([ddf[1][row][lung.frames[fixed][row] > 60][0] for row in range(70, 90)])
    assert (front < -0.5).all()  # columns run to the back
    grad = np.stack([np.gradient(component / SPACING) for component in ddf]) + np.eye(2)[:, :, None, None]
    assert (grad[0, 0] * grad[1, 1] - grad[0, 1] * grad[1, 0]).min() > 0.3


def test_heart_beats_while_the_breath_is_held(monkeypatch):
    monkeypatch.setattr("monai_regplugins.phantoms.cine_lung.BreathingSignal", lambda *_, **__: np.zeros_like)
    held = subject(num_frames=4, noise=0.0)
    size = [np.abs(cine_lung_displacement(held, 0, n)).max() for n in range(4)]
    assert size[0] < 1e-4
    assert 0.2 < max(size) * SPACING < 6
    moved = np.abs(cine_lung_displacement(held, 0, int(np.argmax(size)))).max(axis=0) > 0.1
    assert moved[held.labels[0] == 3].mean() > 0.3
    assert not moved[held.labels[0] == 4].any()


def test_mean_intensity_follows_the_breath():
    lung = subject((0, 3), num_frames=20, spatial_shape=(64, 64), spacing=4.0)
    means = lung.frames.mean(axis=(1, 2))
    assert np.corrcoef(means, descents(lung))[0, 1] < -0.5


def test_files(dataset):
    description = json.loads((dataset / f"{NAME}_dataset.json").read_text())
    assert description["numTraining"] == len(description["training"]) == len(description["validation"]) == 3
    expected = cine_lung_subject((3, 2), 3, (40, 48), (6.4, 5.5))
    for number, entry in enumerate(description["validation"]):
        image = nib.load(dataset / entry["image"])
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_allclose(image.header.get_zooms(), (6.4, 5.5), rtol=1e-6)
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected.frames[number])
        np.testing.assert_array_equal(np.asarray(nib.load(dataset / entry["label"]).dataobj), expected.labels[number])
        points = np.loadtxt(dataset / entry["landmarks"], delimiter=",")
        np.testing.assert_allclose(points, expected.landmarks[number], atol=6e-6)


def test_pairs_go_to_the_reference_frame(dataset):
    data = Learn2RegDataset(dataset)
    assert data.spatial_dims == 2
    for pairs, number in ((data.training_pairs(), 1), (data.validation_pairs(), 2)):
        reference = cine_lung_subject((3, number), 3, (40, 48), (6.4, 5.5)).reference
        others = [frame for frame in range(3) if frame != reference]
        fixed = f"{number:04d}_{reference:04d}"
        assert [pair["pair_id"] for pair in pairs] == [f"{number:04d}_{frame:04d}_to_{fixed}" for frame in others]


def test_the_pipeline_loads_a_pair(dataset):
    pair = LoadPaird(spatial_dims=2)(Learn2RegDataset(dataset).validation_pairs()[0])
    assert pair["moving"].shape == pair["fixed_label"].shape == (1, 40, 48)
    assert pair["fixed_landmarks"].shape == pair["moving_landmarks"].shape
    assert pair["fixed_landmarks"].dtype == torch.float32


def test_series_and_displacements(dataset):
    expected = cine_lung_subject((3, 2), 3, (40, 48), (6.4, 5.5))
    series = read_cine(dataset / "series" / f"{NAME}_0002.nii.gz")
    np.testing.assert_array_equal(series.frames, expected.frames)
    np.testing.assert_allclose(series.times, expected.times, rtol=1e-6)
    assert series.spacing == pytest.approx((6.4, 5.5))
    fields = []
    for moving in range(3):
        file = dataset / "displacements" / f"disp_0002_{expected.reference:04d}_0002_{moving:04d}.nii.gz"
        exact = cine_lung_displacement(expected, expected.reference, moving)
        assert file.exists() == (moving != expected.reference)
        if file.exists():
            field = nib.load(file).get_fdata(dtype=np.float32)
            np.testing.assert_allclose(field, np.moveaxis(exact, 0, -1), atol=1 / 512 + 1e-5)
        fields.append(exact)
    curve, depth = respiratory_curve(np.stack(fields), series), descents(expected)
    assert np.abs(curve).max() > 0.1
    np.testing.assert_array_equal(np.argsort(curve), np.argsort(depth))


def test_existing_folder_is_kept(dataset):
    before = {file: file.stat().st_mtime_ns for file in dataset.rglob("*")}
    assert make_cine_lung(dataset, 5, 5) == dataset
    assert {file: file.stat().st_mtime_ns for file in dataset.rglob("*")} == before

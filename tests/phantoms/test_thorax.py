"""The thorax phantom: exact correspondence between phases, and the data set written from it."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, map_coordinates

from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.phantoms import thorax
from monai_regplugins.phantoms.embedded import open_dataset
from monai_regplugins.phantoms.thorax import (
    NAME,
    make_thorax,
    thorax_displacement,
    thorax_subject,
)
from monai_regplugins.phantoms.ventilation import PleuralSlide
from monai_regplugins.transforms.load import LoadPaird

SHAPE, SPACING = (56, 44, 52), 5.0
LUNGS, HEART, LIVER, AORTA, VERTEBRAE, RIBS, STERNUM = (1, 2), 3, 4, 7, 8, 9, 10


def subject(seed=(0, 1), **more):
    return thorax_subject(seed, **({"spatial_shape": SHAPE, "spacing": SPACING} | more))


def registered(one, fixed=0, moving=1):
    """Field, the positions it points to, and where these lie within the moving image."""
    ddf = thorax_displacement(one, fixed, moving)
    position = np.indices(SHAPE) + ddf
    return ddf, position, ((position >= 0) & (position <= np.array(SHAPE)[:, None, None, None] - 1)).all(axis=0)


@pytest.fixture(scope="module")
def noisy():
    return subject()


@pytest.fixture(scope="module")
def clean():
    """Without noise, and with the same intensity of a place in each phase."""
    return subject(noise=0.0, thinning=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thorax") / "data"
    return make_thorax(folder, 1, 1, (0.0, 0.4, 1.0), (28, 22, 26), 10.0, seed=3)


@pytest.mark.slow
def test_subject_is_a_function_of_its_seed(noisy):
    again, other = subject(), subject((0, 2))
    for name in ("images", "labels", "masks", "landmarks", "affine"):
        np.testing.assert_array_equal(getattr(again, name), getattr(noisy, name))
    assert (other.labels[0] != noisy.labels[0]).mean() > 0.02


def test_shapes_and_types(noisy):
    assert noisy.images.shape == noisy.labels.shape == noisy.masks.shape == (2, *SHAPE)
    assert (noisy.images.dtype, noisy.labels.dtype, noisy.masks.dtype) == (np.int16, np.uint8, np.uint8)
    np.testing.assert_array_equal(noisy.masks > 0, np.isin(noisy.labels, LUNGS))
    np.testing.assert_array_equal(noisy.phases, [0.0, 1.0])
    assert nib.aff2axcodes(noisy.affine) == ("R", "A", "S")
    assert set(np.unique(noisy.labels)) == set(range(11))
    assert noisy.images.min() >= -1024


def test_hounsfield_units(noisy):
    """The lung near -840 at end inspiration and denser at end expiration; air, fat, muscle and bone as always."""
    cores = [binary_erosion(mask, iterations=2) for mask in noisy.masks]
    inspired, expired = (np.median(image[core]) for image, core in zip(noisy.images, cores, strict=True))
    assert -880 < inspired < -790
    assert 10 < expired - inspired < 60
    assert np.median(noisy.images[0][:3]) == pytest.approx(-1000, abs=3)
    assert np.median(noisy.images[0][noisy.labels[0] == LIVER]) == pytest.approx(80, abs=40)
    assert np.percentile(noisy.images[0][noisy.labels[0] == RIBS], 75) > 200


def test_noise_is_that_of_the_scanner(noisy):
    silent = subject(noise=0.0)
    noise = (noisy.images - silent.images)[:, silent.images.min(axis=0) > -980]
    assert noise.std() == pytest.approx(14.0, rel=0.02)
    assert abs(noise.mean()) < 0.2
    assert abs(np.corrcoef(noise)[0, 1]) < 0.02


def test_landmarks_lie_in_the_lungs_of_all_phases(noisy):
    assert noisy.landmarks.shape[0] == 2
    assert noisy.landmarks.shape[1] > 100
    for mask, label, places in zip(noisy.masks, noisy.labels, noisy.landmarks, strict=True):
        voxels = tuple(np.rint(places).astype(int).T)
        assert mask[voxels].all()
        assert {1, 2} == set(label[voxels])


def test_fixed_landmark_and_displacement_give_the_moving_landmark(noisy):
    for fixed, moving in ((0, 1), (1, 0), (0, 0)):
        start = noisy.landmarks[fixed].T
        end = start + thorax_displacement(noisy, fixed, moving, start)
        np.testing.assert_allclose(end.T, noisy.landmarks[moving], atol=1e-7)


def test_dense_field_is_the_field_at_the_voxels(noisy):
    dense = thorax_displacement(noisy, 0, 1)
    voxels = np.array([[20.0, 50.0], [30.0, 31.0], [25.0, 40.0]])
    np.testing.assert_allclose(thorax_displacement(noisy, 0, 1, voxels), dense[:, [20, 50], [30, 31], [25, 40]],
                               atol=1e-10)  # fmt: skip


def test_fields_compose_to_the_identity(noisy):
    there = thorax_displacement(noisy, 0, 1)
    back = thorax_displacement(noisy, 1, 0, np.indices(SHAPE) + there)
    np.testing.assert_allclose(there + back, 0, atol=1e-7)


def test_exact_field_registers_up_to_interpolation(clean):
    """What is left is what interpolation loses, most at thin vessels; half a voxel aside far more is left."""
    ddf, position, inside = registered(clean)
    target, source = clean.images.astype(float)

    def left(places, order=1):
        error = target - map_coordinates(source, places, order=order)
        return np.sqrt([(error[region] ** 2).mean() for region in (body, lung)])

    body, lung = inside & (target > -990), inside & (clean.masks[0] > 0)
    linear, cubic, unregistered = left(position), left(position, 3), left(position - ddf)
    assert (linear < 0.4 * unregistered).all()
    assert (cubic < 0.85 * linear).all()
    for axis in np.eye(3):
        assert (left(position + 0.5 * axis[:, None, None, None]) > 1.3 * linear).all()


def test_even_tissue_and_resting_bones_register_exactly(clean):
    _, position, inside = registered(clean)
    error = np.abs(clean.images[0] - map_coordinates(clean.images[1].astype(float), position, order=1))
    assert error[inside & binary_erosion(clean.labels[0] == LIVER, iterations=2)].max() < 8
    assert np.percentile(error[clean.labels[0] == VERTEBRAE], [50, 95]) == pytest.approx([0, 0], abs=5)


def test_labels_follow_the_field(clean):
    _, position, inside = registered(clean)
    warped = map_coordinates(clean.labels[1], position, order=0)
    for value in (*LUNGS, HEART, LIVER):
        one, two = (label[inside] == value for label in (clean.labels[0], warped))
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.95


@pytest.mark.slow
def test_motion_is_that_of_breathing():
    """Lungs and liver go up as the air leaves, least at the apex; ribs stay, the sternum sinks in."""
    for seed in (1, 2):
        lung = subject(seed, noise=0.0)
        descent = next(piece.descent for piece in lung.maps[0].maps if isinstance(piece, PleuralSlide))
        ddf = thorax_displacement(lung, 0, 1) * SPACING
        where = {value: ddf[:, lung.labels[0] == value].mean(axis=1) for value in range(1, 11)}
        assert np.quantile(ddf[2][lung.labels[0] == LIVER], 0.9) == pytest.approx(descent, rel=0.2)
        assert 0.3 * descent < where[1][2] < 0.9 * descent
        assert where[HEART][2] < 0.5 * descent
        assert -1.5 < where[RIBS][2] < 0.3
        assert np.abs(where[VERTEBRAE]).max() < 0.3
        assert np.abs(where[AORTA]).max() < 0.15 * descent
        assert -7 < where[STERNUM][1] < -0.5
        rows = np.nonzero(lung.masks[0].any(axis=(0, 1)))[0]
        ups = [ddf[2][:, :, z][lung.masks[0][:, :, z] > 0].mean() for z in np.array_split(rows, 6)[1:] for z in z[:1]]
        assert (np.diff(ups) < 0).all()


def test_lungs_slide_past_the_ribs(clean):
    """At the side wall the displacement jumps between the lung and the rib beside it, by more than a centimeter/2."""
    lung, rib = clean.labels[0] == 1, clean.labels[0] == RIBS
    ddf = thorax_displacement(clean, 0, 1)[2] * SPACING
    low = np.zeros(SHAPE, dtype=bool)
    low[:, :, : SHAPE[2] // 2] = True
    beside = np.roll(lung, 2, axis=0) & rib & low  # ribs two voxels to the right of lung
    assert beside.sum() > 10
    assert (np.roll(ddf, 2, axis=0) - ddf)[beside].mean() > 5


@pytest.mark.slow
def test_tissue_of_the_lung_keeps_its_mass():
    """Thinned by the volume it gains: density times volume is the same in all phases."""
    change = {}
    for thinning in (0.0, 1.0):
        lung = subject((0, 5), noise=0.0, thinning=thinning)
        density = [np.median(image[mask > 0]) + 1000.0 for image, mask in zip(lung.images, lung.masks, strict=True)]
        volume = lung.masks.sum(axis=(1, 2, 3))
        change[thinning] = density[0] * volume[0] / (density[1] * volume[1])
    assert change[0.0] > 1.08
    assert change[1.0] == pytest.approx(1.0, abs=0.03)


def test_phases_between_lie_between():
    breath = subject((0, 6), phases=(0.0, 0.5, 1.0))
    half, whole = (thorax_displacement(breath, 0, moving)[2][breath.masks[0] > 0].mean() for moving in (1, 2))
    assert half == pytest.approx(whole / 2, rel=0.1)


@pytest.mark.slow
def test_files(dataset):
    description = json.loads((dataset / f"{NAME}_dataset.json").read_text())
    assert description["numTraining"] == len(description["training"]) == len(description["validation"]) == 3
    expected = thorax_subject((3, 2), (0.0, 0.4, 1.0), (28, 22, 26), 10.0)
    for number, entry in enumerate(description["validation"]):
        for key, kind in (("image", "images"), ("label", "labels"), ("mask", "masks")):
            file = nib.load(dataset / entry[key])
            array = getattr(expected, kind)[number]
            assert file.get_data_dtype() == array.dtype
            np.testing.assert_array_equal(np.asarray(file.dataobj), array)
            np.testing.assert_allclose(file.affine, expected.affine, atol=1e-4)
        points = np.loadtxt(dataset / entry["landmarks"], delimiter=",")
        np.testing.assert_allclose(points, expected.landmarks[number], atol=6e-6)


def test_pairs_have_inspiration_as_fixed_image(dataset):
    data = Learn2RegDataset(dataset)
    assert data.spatial_dims == 3
    assert data.label_names[1] == "right lung"
    for pairs, number in ((data.training_pairs(), 1), (data.validation_pairs(), 2)):
        expected = [f"{number:04d}_{phase:04d}_to_{number:04d}_0000" for phase in (1, 2)]
        assert [pair["pair_id"] for pair in pairs] == expected
        assert {"fixed_mask", "moving_mask", "fixed_label", "fixed_landmarks", "moving_landmarks"} <= pairs[0].keys()


def test_the_pipeline_loads_a_pair(dataset):
    pair = LoadPaird(spatial_dims=3)(Learn2RegDataset(dataset).validation_pairs()[0])
    assert pair["moving"].shape == pair["fixed_label"].shape == pair["fixed_mask"].shape == (1, 28, 22, 26)
    assert pair["fixed_landmarks"].shape == pair["moving_landmarks"].shape
    assert pair["fixed_landmarks"].dtype == torch.float32


def test_displacement_files(dataset):
    expected = thorax_subject((3, 2), (0.0, 0.4, 1.0), (28, 22, 26), 10.0)
    names = sorted(file.name for file in (dataset / "displacements").iterdir())
    assert names == [f"disp_0002_0000_0002_{moving:04d}.nii.gz" for moving in (1, 2)]
    for moving, name in enumerate(names, start=1):
        field = nib.load(dataset / "displacements" / name).get_fdata(dtype=np.float32)
        exact = np.moveaxis(thorax_displacement(expected, 0, moving), 0, -1)
        np.testing.assert_allclose(field, exact, atol=1 / 512 + 1e-5)


def test_existing_folder_is_kept(dataset):
    before = {file: file.stat().st_mtime_ns for file in dataset.rglob("*")}
    assert make_thorax(dataset, 5, 5) == dataset
    assert {file: file.stat().st_mtime_ns for file in dataset.rglob("*")} == before


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(thorax, "_write_displacements", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_thorax(tmp_path / "data", 0, 1, spatial_shape=(14, 11, 13), spacing=20.0)
    assert list(tmp_path.iterdir()) == []


def test_embedded_data_set_is_made_on_demand(tmp_path, monkeypatch):
    def tiny(folder):
        return make_thorax(folder, 1, 1, spatial_shape=(14, 11, 13), spacing=20.0)

    monkeypatch.setattr("monai_regplugins.phantoms.thorax.make_thorax", tiny)
    folder = open_dataset(tmp_path / "thorax", tmp_path / "thorax", "thorax")
    assert Learn2RegDataset(folder).name == NAME

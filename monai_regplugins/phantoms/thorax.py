"""Digital phantom of CT of the breathing thorax, 3D, with the exact displacement between any two phases.

Every phase is the one anatomy of its subject at rest, P, seen through the motion of that phase: ``image_t(x) =
P(T_t(x))``, T_t from the phase's mm to the subject at rest. The maps are inverted up to rounding, so the displacement
that registers phase m to phase f is ``T_m^-1(T_f(x)) - x``, everywhere, the sliding pleura included, and landmarks,
the bifurcations of the pulmonary vessels, are known in all phases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_regplugins.files.folders import make_folder
from monai_regplugins.phantoms.abdomen import grid_affine
from monai_regplugins.phantoms.chest import (
    LEFT_LUNG,
    RIGHT_LUNG,
    THORAX_LABELS,
    Chest,
    chest_at_rest,
    draw_anatomy,
    lung_distance,
)
from monai_regplugins.phantoms.shapes import rotation_matrix
from monai_regplugins.phantoms.space_maps import (
    AffineMap,
    LocalDilation,
    MapChain,
    ShearWave,
    SpaceMap,
)
from monai_regplugins.phantoms.ventilation import ChestExpansion, PleuralSlide

__all__ = ["Thorax", "make_thorax", "thorax_displacement", "thorax_subject"]

Array = npt.NDArray[Any]
Seed = int | Sequence[int]
NAME = "ThoraxPhantom"
PHASES = (0.0, 1.0)

PER_TREE = 50  # landmarks in each of the four trees of vessels
CLEARANCE = 3.0  # mm that a landmark keeps from the border of the lung
SMOOTHNESS = 0.5  # voxels, standard deviation of the filter that correlates the noise of neighbors


class Thorax(NamedTuple):
    r"""One subject of the phantom.

    Attributes:
        images: int16 Hounsfield units ``(T, *s)``, axes to the right, to the front and to the head.
        labels: uint8 ``(T, *s)``, see :data:`~monai_regplugins.phantoms.chest.THORAX_LABELS`.
        masks: uint8 ``(T, *s)``, 1 in the lungs.
        landmarks: float64 voxel positions (T, N, 3), the same N bifurcations of vessels in each phase.
        phases: how far expiration has gone in each phase, (T,).
        maps: T_t of each phase, from its mm to mm at rest.
        affine: voxel to mm, RAS, (4, 4).
    """

    images: Array
    labels: Array
    masks: Array
    landmarks: Array
    phases: Array
    maps: Sequence[MapChain]
    affine: Array


def thorax_subject(
    seed: Seed,
    phases: Sequence[float] = PHASES,
    spatial_shape: Sequence[int] = (112, 88, 104),
    spacing: float | Sequence[float] = 2.5,
    noise: float = 14.0,
    thinning: float = 1.0,
) -> Thorax:
    """One subject of the phantom in some phases of its breath.

    Args:
        seed: seed of anatomy, motion, intensities and noise.
        phases: how far expiration has gone, from 0, end inspiration, to 1, end expiration, the anatomy at rest.
        spatial_shape: voxels along right, front and head.
        spacing: voxel size in mm, one for all axes or one each; shape times spacing should be about 280 x 220 x 260 mm.
        noise: standard deviation of the noise in Hounsfield units.
        thinning: how much the density of the lung's tissue follows its volume: 1 as its mass stays the same, 0 not at
            all; then images of all phases have the same intensity at the same place of the anatomy.
    """
    rng = np.random.default_rng(seed)
    chest = draw_anatomy(rng)
    maps = _motion(rng, chest, phases)
    affine = grid_affine(spatial_shape, spacing)
    edge = float(np.mean(np.diag(affine)[:3]))
    voxels = np.indices(spatial_shape, dtype=np.float32).reshape(3, -1)
    posed = maps[0].maps[0].forward(_to_mm(voxels, affine))  # pose and size are the same in all phases
    images = np.empty((len(phases), *spatial_shape), dtype=np.int16)
    labels = np.empty(images.shape, dtype=np.uint8)
    for number, space_map in enumerate(maps):
        at_rest, volume = _rest_and_volume(space_map.maps[1:], posed)
        image, label = chest_at_rest(at_rest, chest, edge, volume**-thinning)
        images[number] = _with_noise(rng, image.reshape(spatial_shape), noise)
        labels[number] = label.reshape(spatial_shape)
    masks = np.isin(labels, (RIGHT_LUNG, LEFT_LUNG)).astype(np.uint8)
    landmarks = _landmarks(chest, maps, masks, affine)
    return Thorax(images, labels, masks, landmarks, np.array(phases, dtype=float), maps, affine)


def thorax_displacement(subject: Thorax, fixed: int, moving: int, voxels: Array | None = None) -> Array:
    r"""Exact displacement from one phase to another, ``T_moving^-1(T_fixed(x)) - x``.

    Args:
        subject: what :func:`thorax_subject` returned.
        fixed: number of the fixed phase.
        moving: number of the moving phase.
        voxels: positions in the fixed phase, shape ``(3, *s)``; all voxels if None.

    Returns:
        float64 displacement in voxels, shape ``(3, *s)``, as a ddf: ``warped(x) = moving(x + ddf(x))``.
    """
    start = np.indices(subject.images.shape[1:], dtype=float) if voxels is None else np.asarray(voxels, dtype=float)
    at_rest = subject.maps[fixed].forward(_to_mm(start.reshape(3, -1), subject.affine))
    end = _to_voxels(subject.maps[moving].inverse(at_rest), subject.affine)
    return np.asarray(end.reshape(start.shape) - start)


def _motion(rng: np.random.Generator, chest: Chest, phases: Sequence[float]) -> list[MapChain]:
    """The map of each phase: the subject's form, then chest wall, lungs and heart beat undone."""
    matrix = rotation_matrix(np.deg2rad(rng.normal(0.0, 1.5, 3))) @ np.diag(np.exp(rng.normal(0.0, 0.025, 3)))
    x, y, z = rng.normal(0.0, (2.0, 2.0, 4.0))
    form = MapChain([AffineMap(matrix, (float(x), float(y), float(z))), *(_random_wave(rng) for _ in range(4))])
    descent, tilt, core = rng.uniform(8.5, 17.5), rng.uniform(0.05, 0.25), rng.uniform(0.2, 0.35)
    outward, sideward, lift = rng.uniform((2.0, 0.5, 0.5), (6.0, 2.0, 2.5))
    center, radii = chest.heart[:3], (1.3 * chest.heart[3], 1.3 * chest.heart[4], 1.3 * chest.heart[5])
    maps = []
    for phase in phases:
        depth = 1.0 - phase
        wall = ChestExpansion(depth * outward, depth * sideward, depth * lift)
        lungs = PleuralSlide(depth * descent, tilt, core)
        beat = LocalDilation(center, radii, float(np.clip(rng.normal(0.0, 0.025), -0.06, 0.06)))
        maps.append(MapChain([form, wall, lungs, beat]))
    return maps


def _random_wave(rng: np.random.Generator) -> ShearWave:
    """A wave in a random direction, 160 to 360 mm long; longer ones are higher."""
    direction = rng.normal(size=3)
    wavelength = rng.uniform(160, 360)
    ax, ay, az = (float(part) for part in rng.normal(size=3) * wavelength / 130)
    kx, ky, kz = (float(part) for part in direction / np.linalg.norm(direction) * 2 * np.pi / wavelength)
    return ShearWave((ax, ay, az), (kx, ky, kz), rng.uniform(0, 2 * np.pi))


def _rest_and_volume(breath: Sequence[SpaceMap], points: Array) -> tuple[Array, Array]:
    """Where points are at rest, and how many times its volume at rest the breath gives the tissue there."""
    volume = np.ones_like(points[0])
    for piece in breath:
        points = piece.forward(points)
        if isinstance(piece, ChestExpansion | PleuralSlide):
            volume *= piece.expansion(points)
    return points, volume


def _with_noise(rng: np.random.Generator, image: Array, noise: float) -> Array:
    """Hounsfield units of a scanner: with noise, in whole numbers within its range."""
    if noise:
        grain = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), SMOOTHNESS)
        image = image + noise / grain.std() * grain
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _landmarks(chest: Chest, maps: Sequence[SpaceMap], masks: Array, affine: Array) -> Array:
    """Voxel positions (T, N, 3) of bifurcations, from thick to thin, that all phases show in the lungs."""
    places = []
    for tree in (*chest.arteries, *chest.veins):
        inner = tree.bifurcations[lung_distance(tree.bifurcations.T, chest) < -CLEARANCE]
        places.append(inner[np.linspace(0, len(inner) - 1, min(PER_TREE, len(inner))).astype(int)])
    at_rest = np.concatenate(places).T
    positions = np.stack([_to_voxels(space_map.inverse(at_rest), affine).T for space_map in maps])
    nearest = np.rint(positions).astype(int)
    within = ((nearest >= 0) & (nearest < masks.shape[1:])).all(axis=(0, 2))
    seen = [mask[tuple(voxels[within].T)] > 0 for mask, voxels in zip(masks, nearest, strict=True)]
    return np.asarray(positions[:, within][:, np.all(seen, axis=0)])


def _to_mm(voxels: Array, affine: Array) -> Array:
    """Points (3, N) in mm of voxel positions (3, N) on an axis-aligned grid."""
    size, origin = (part.astype(voxels.dtype)[:, None] for part in (np.diag(affine)[:3], affine[:3, 3]))
    return np.asarray(voxels * size + origin)


def _to_voxels(points: Array, affine: Array) -> Array:
    """Voxel positions (3, N) of points (3, N) in mm."""
    return np.asarray((points - affine[:3, 3:]) / np.diag(affine)[:3, None])


def make_thorax(
    dataset_dir: str | Path,
    num_training: int = 8,
    num_validation: int = 3,
    phases: Sequence[float] = PHASES,
    spatial_shape: Sequence[int] = (112, 88, 104),
    spacing: float | Sequence[float] = 2.5,
    seed: int = 0,
) -> Path:
    r"""Make the phantom data set in Learn2Reg's format.

    Each subject has one image per phase, with label, lung mask and landmarks (CSV, voxels). Pairs have the subject's
    first phase, end inspiration, as fixed and each of its others as moving image, as DIR-Lab's. For the pairs of the
    validation subjects there are the exact displacement fields ``displacements/disp_<fixed>_<moving>.nii.gz``
    ``(*s, 3)`` in voxels, rounded to 1/256 voxel.

    The folder appears complete or not at all, as that of :func:`~monai_regplugins.phantoms.abdomen.make_abdomen`.

    Args:
        dataset_dir: the folder to make.
        num_training: number of training subjects.
        num_validation: number of validation subjects.
        phases: how far expiration has gone in each phase, see :func:`thorax_subject`.
        spatial_shape: voxels along right, front and head.
        spacing: voxel size in mm; shape times spacing should be about 280 x 220 x 260 mm to hold the body.
        seed: seed of the whole set.

    Returns:
        ``dataset_dir``.
    """

    def write(folder: Path) -> None:
        for name in ("imagesTr", "labelsTr", "masksTr", "landmarksTr", "displacements"):
            (folder / name).mkdir()
        for number in range(1, num_training + num_validation + 1):
            subject = thorax_subject((seed, number), phases, spatial_shape, spacing)
            _write_subject(folder, number, subject)
            if number > num_training:
                _write_displacements(folder, number, subject)
        description = _description(num_training, num_validation, len(phases), spatial_shape)
        (folder / f"{NAME}_dataset.json").write_text(json.dumps(description, indent=4) + "\n", encoding="utf-8")

    return make_folder(Path(dataset_dir), write)


def _files(subject: int, phase: int) -> dict[str, str]:
    stem = f"{NAME}_{subject:04d}_{phase:04d}"
    files = {key: f"./{key}sTr/{stem}.nii.gz" for key in ("image", "label", "mask")}
    return files | {"landmarks": f"./landmarksTr/{stem}.csv"}


def _write_subject(folder: Path, number: int, subject: Thorax) -> None:
    volumes = zip(subject.images, subject.labels, subject.masks, strict=True)
    for phase, (arrays, landmarks) in enumerate(zip(volumes, subject.landmarks, strict=True)):
        files = _files(number, phase)
        for key, array in zip(("image", "label", "mask"), arrays, strict=True):
            nib.save(nib.Nifti1Image(array, subject.affine), folder / files[key])
        np.savetxt(folder / files["landmarks"], landmarks, fmt="%.5f", delimiter=",")


def _write_displacements(folder: Path, number: int, subject: Thorax) -> None:
    """Write the displacement field of each pair of one subject."""
    for moving in range(1, len(subject.images)):
        ddf = np.rint(256 * thorax_displacement(subject, 0, moving))
        image = nib.Nifti1Image(np.moveaxis(ddf, 0, -1).astype(np.int16), subject.affine)
        image.header.set_slope_inter(1 / 256, 0)
        nib.save(image, folder / "displacements" / f"disp_{number:04d}_0000_{number:04d}_{moving:04d}.nii.gz")


def _description(num_training: int, num_validation: int, num_phases: int, shape: Sequence[int]) -> dict[str, Any]:
    """The content of the data set's json file."""
    numbers = range(1, num_training + num_validation + 1)
    training, validation = numbers[:num_training], numbers[num_training:]

    def entries(subjects: Sequence[int]) -> list[dict[str, str]]:
        return [_files(subject, phase) for subject in subjects for phase in range(num_phases)]

    def pairs(subjects: Sequence[int]) -> list[dict[str, str]]:
        return [
            {"fixed": _files(subject, 0)["image"], "moving": _files(subject, phase)["image"]}
            for subject in subjects
            for phase in range(1, num_phases)
        ]

    return {
        "name": NAME,
        "release": "1.0",
        "description": "Digital phantom of thoracic CT in phases of the breath, HU; exact fields in displacements",
        "licence": "synthetic, Apache-2.0",
        "pairings": "paired",
        "modality": {"0": "CT"},
        "tensorImageSize": {"0": "3D"},
        "tensorImageShape": {"0": list(shape)},
        "labels": {"0": {str(value): name for value, name in THORAX_LABELS.items()}},
        "numTraining": num_training * num_phases,
        "training": entries(training),
        "validation": entries(validation),
        "training_paired_images": pairs(training),
        "registration_val": pairs(validation),
    }

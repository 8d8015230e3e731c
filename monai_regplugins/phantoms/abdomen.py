"""The abdomen phantom: CT of different subjects, with the exact correspondence that real data lack.

Every subject is the one canonical anatomy of :mod:`monai_regplugins.phantoms.anatomy`, P, seen through a map of its
own: ``image_i(x) = P(T_i(x))``, T_i from the subject's mm to canonical mm. The maps are inverted exactly, so the
displacement that registers moving j to fixed i is ``T_j^-1(T_i(x)) - x``, everywhere, the sliding border included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from monai_regplugins.files.folders import make_folder
from monai_regplugins.phantoms.anatomy import (
    ABDOMEN_LABELS,
    ABDOMEN_LANDMARKS,
    TISSUES,
    abdomen,
)
from monai_regplugins.phantoms.body import in_cavity
from monai_regplugins.phantoms.shapes import rotation_matrix
from monai_regplugins.phantoms.space_maps import (
    AffineMap,
    LocalDilation,
    LocalTwist,
    MapChain,
    RegionSlide,
    ShearWave,
    SpaceMap,
)

__all__ = ["abdomen_displacement", "abdomen_map", "abdomen_subject", "make_abdomen"]

Array = npt.NDArray[Any]
Seed = int | Sequence[int]
NAME = "AbdomenPhantom"
SIZE, SPACING = (80, 64, 80), 4.0  # of the data set's images: voxels, mm

# center (mm), radius (mm): where the inside of the body is turned and scaled subject by subject
_TWISTS = (((60, 0, 25), 95), ((-70, -10, 30), 75), ((0, 10, 0), 80), ((-50, 20, 30), 70), ((60, -30, -30), 70),
           ((-60, -30, -10), 70), ((0, 20, -90), 100))  # fmt: skip
_DILATIONS = (((60, 5, 35), 90), ((-84, -28, 28), 60), ((64, -40, -22), 65), ((-62, -40, -4), 65), ((-55, 15, 35), 60),
              ((10, 10, 5), 60), ((42, 36, -18), 40))  # fmt: skip


def abdomen_map(seed: Seed) -> MapChain:
    """The exact map of one subject, from its mm to canonical mm.

    Pose and size, smooth waves, then per region a twist and a dilation, and at last the organs' slide along the wall.

    Args:
        seed: seed of the subject.
    """
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(0, 0.03) + rng.normal(0, 0.025, 3))
    matrix = rotation_matrix(np.deg2rad(rng.normal(0, 2.5, 3))) @ np.diag(size)
    maps: list[SpaceMap] = [AffineMap(matrix, _vector(rng.normal(0, 1, 3) * (4, 4, 5)))]
    maps += [_random_wave(rng) for _ in range(10)]
    maps += [LocalTwist(_vector(c), r, _vector(rng.normal(0, 1, 3)), rng.normal(0, 0.30)) for c, r in _TWISTS]
    maps += [LocalDilation(_vector(c), (r, r, r), np.clip(rng.normal(0, 0.16), -0.35, 0.35)) for c, r in _DILATIONS]
    # a waist, and more or less fat under the skin
    maps.append(LocalDilation((0.0, 0.0, -35.0), (260.0, 220.0, 120.0), 0.08 + rng.normal(0, 0.03)))
    maps.append(LocalDilation((0.0, 0.0, 0.0), (190.0, 140.0, np.inf), np.clip(rng.normal(0, 0.08), -0.16, 0.16)))
    gradient = (rng.normal(0, 0.03), rng.normal(0, 0.04))
    maps.append(RegionSlide(in_cavity, rng.normal(0, 7), gradient, float(np.exp(rng.normal(0, 0.04)))))
    return MapChain(maps)


def _vector(values: Sequence[float] | Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _random_wave(rng: np.random.Generator) -> ShearWave:
    """A wave in a random direction, 110 to 320 mm long; longer ones are higher."""
    direction = rng.normal(size=3)
    wavelength = rng.uniform(110, 320)
    amplitude = rng.normal(size=3) * wavelength / 150
    wave_vector = direction / np.linalg.norm(direction) * 2 * np.pi / wavelength
    return ShearWave(_vector(amplitude), _vector(wave_vector), rng.uniform(0, 2 * np.pi))


def abdomen_subject(
    seed: Seed, spatial_shape: Sequence[int] = SIZE, spacing: float | Sequence[float] = SPACING
) -> dict[str, Array]:
    r"""One subject of the abdomen phantom.

    Args:
        seed: seed of shape, pose, intensities and noise.
        spatial_shape: voxels along right, front and head.
        spacing: voxel size in mm, one for all axes or one each.

    Returns:
        ``image``: int16 Hounsfield units ``(*s)``; ``label``: uint8 ``(*s)``, see :data:`ABDOMEN_LABELS`;
        ``canonical``: float32 canonical position of each voxel in mm ``(3, *s)``; ``landmarks``: float64 voxel
        positions (N, 3) of :data:`ABDOMEN_LANDMARKS`, the same rows in each subject; ``affine``: voxel to mm, RAS
        (4, 4).
    """
    space_map = abdomen_map(seed)
    affine = grid_affine(spatial_shape, spacing)
    canonical = space_map.forward(_grid_points(spatial_shape, affine))
    rng = np.random.default_rng([0xCA57, *np.atleast_1d(seed)])
    tissue = {name: rng.normal(mean, deviation) for name, (mean, deviation) in TISSUES.items()}
    edge = float(np.mean(np.diag(affine)[:3]))
    image, label = abdomen(canonical, tissue, edge, texture=rng.uniform(0.8, 1.2))
    noise = ndimage.gaussian_filter(rng.normal(size=spatial_shape).astype(np.float32), 0.6)
    image = image.reshape(spatial_shape) + rng.uniform(8, 14) / noise.std() * noise
    places = np.array(list(ABDOMEN_LANDMARKS.values())).T
    return {
        "image": np.clip(np.rint(image), -1024, 3071).astype(np.int16),
        "label": label.reshape(spatial_shape),
        "canonical": canonical.reshape(3, *spatial_shape),
        "landmarks": _to_voxels(space_map.inverse(places), affine).T,
        "affine": affine,
    }


def abdomen_displacement(canonical: Array, moving_seed: Seed, affine: Array) -> Array:
    r"""Exact displacement from a fixed subject to a moving one, ``T_moving^-1(T_fixed(x)) - x``.

    Args:
        canonical: canonical position of each voxel of the fixed subject in mm, T_fixed(x), shape ``(3, *s)``.
        moving_seed: seed of the moving subject.
        affine: voxel to mm of both grids, (4, 4).

    Returns:
        float32 displacement in voxels ``(3, *s)``, as a ddf: ``warped(x) = moving(x + ddf(x))``.
    """
    shape = canonical.shape[1:]
    target = _to_voxels(abdomen_map(moving_seed).inverse(canonical.reshape(3, -1)), affine)
    return np.asarray(target.reshape(3, *shape) - np.indices(shape, dtype=np.float32), dtype=np.float32)


def grid_affine(spatial_shape: Sequence[int], spacing: float | Sequence[float]) -> Array:
    """Voxel to RAS mm of a grid centered on the origin, (4, 4)."""
    size = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -size * (np.asarray(spatial_shape) - 1) / 2
    return affine


def _grid_points(spatial_shape: Sequence[int], affine: Array) -> Array:
    voxels = np.indices(spatial_shape, dtype=np.float32).reshape(3, -1)
    return np.asarray(voxels * np.diag(affine)[:3, None] + affine[:3, 3:], dtype=np.float32)


def _to_voxels(points: Array, affine: Array) -> Array:
    """Voxel positions (3, N) of points in mm on an axis-aligned grid."""
    return np.asarray((points - affine[:3, 3:]) / np.diag(affine)[:3, None], dtype=points.dtype)


def make_abdomen(
    dataset_dir: str | Path,
    num_training: int = 24,
    num_validation: int = 4,
    spatial_shape: Sequence[int] = SIZE,
    spacing: float | Sequence[float] = SPACING,
    seed: int = 0,
) -> Path:
    r"""Make the abdomen phantom data set in Learn2Reg's format.

    Besides images, labels and landmarks (CSV, voxels) it writes, for each ordered pair of validation subjects, the
    exact displacement field ``displacements/disp_<fixed>_<moving>.nii.gz`` ``(*s, 3)`` in voxels as Learn2Reg's
    submissions have it, rounded to 1/256 voxel.

    The folder appears complete or not at all: it is built beside its place and then renamed. If it is there already,
    or another process finishes it first, that one is kept.

    Args:
        dataset_dir: the folder to make.
        num_training: number of training subjects.
        num_validation: number of validation subjects, all their ordered pairs are listed.
        spatial_shape: voxels along right, front and head.
        spacing: voxel size in mm; shape times spacing should be about 320 x 256 x 320 mm to hold the body.
        seed: seed of the whole set.

    Returns:
        ``dataset_dir``.
    """

    def write(folder: Path) -> None:
        _write_dataset(folder, num_training, num_validation, spatial_shape, spacing, seed)

    return make_folder(Path(dataset_dir), write)


def _write_dataset(
    folder: Path,
    num_training: int,
    num_validation: int,
    spatial_shape: Sequence[int],
    spacing: float | Sequence[float],
    seed: int,
) -> None:
    for name in ("imagesTr", "labelsTr", "landmarksTr", "displacements"):
        (folder / name).mkdir()
    numbers = range(1, num_training + num_validation + 1)
    validation = numbers[num_training:]
    canonical = {}
    for number in numbers:
        subject = abdomen_subject((seed, number), spatial_shape, spacing)
        _write_subject(folder, number, subject)
        if number in validation:
            canonical[number] = subject["canonical"]
    pairs = [(fixed, moving) for fixed in validation for moving in validation if fixed != moving]
    affine = grid_affine(spatial_shape, spacing)
    for fixed, moving in pairs:
        ddf = abdomen_displacement(canonical[fixed], (seed, moving), affine)
        field = np.moveaxis(np.rint(ddf * 256) / 256, 0, -1)
        nib.save(nib.Nifti1Image(field, affine), folder / "displacements" / f"disp_{fixed:04d}_{moving:04d}.nii.gz")
    description = _description(numbers[:num_training], validation, pairs, spatial_shape)
    (folder / f"{NAME}_dataset.json").write_text(json.dumps(description, indent=4) + "\n", encoding="utf-8")


def _files(number: int) -> dict[str, str]:
    stem = f"{NAME}_{number:04d}_0000"
    return {
        "image": f"./imagesTr/{stem}.nii.gz",
        "label": f"./labelsTr/{stem}.nii.gz",
        "landmarks": f"./landmarksTr/{stem}.csv",
    }


def _write_subject(folder: Path, number: int, subject: dict[str, Array]) -> None:
    files = _files(number)
    for key in ("image", "label"):
        nib.save(nib.Nifti1Image(subject[key], subject["affine"]), folder / files[key])
    np.savetxt(folder / files["landmarks"], subject["landmarks"], fmt="%.3f", delimiter=",")


def _description(
    training: Sequence[int], validation: Sequence[int], pairs: list[tuple[int, int]], spatial_shape: Sequence[int]
) -> dict[str, Any]:
    """The content of the data set's json file."""
    return {
        "name": NAME,
        "release": "1.0",
        "description": "Digital phantom of abdominal CT of different subjects, HU; exact fields in displacements",
        "licence": "synthetic, Apache-2.0",
        "pairings": "unpaired",
        "modality": {"0": "CT"},
        "tensorImageSize": {"0": "3D"},
        "tensorImageShape": {"0": list(spatial_shape)},
        "labels": {"0": {str(value): name for value, name in ABDOMEN_LABELS.items()}},
        "landmarks": list(ABDOMEN_LANDMARKS),
        "numTraining": len(training),
        "training": [_files(number) for number in training],
        "validation": [_files(number) for number in validation],
        "registration_val": [{"fixed": _files(f)["image"], "moving": _files(m)["image"]} for f, m in pairs],
    }

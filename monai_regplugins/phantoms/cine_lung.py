"""Digital phantom of free-breathing sagittal lung MR, 2D+t, with the exact displacement between any two frames.

Every frame is the one anatomy of its subject at rest, P, seen through the motion of that moment: ``frame_t(x) =
P(T_t(x))``, T_t from the frame's mm to the subject at rest. The maps are inverted up to rounding, so the displacement
that registers frame m to frame f is ``T_m^-1(T_f(x)) - x``, and landmarks, the bifurcations of the vessels, are known
in all frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.files.folders import make_folder
from monai_regplugins.phantoms.breathing import Breath, BreathingSignal
from monai_regplugins.phantoms.sagittal import (
    CHEST_LABELS,
    SagittalChest,
    draw_chest,
    sagittal_chest,
)
from monai_regplugins.phantoms.shapes import rotation_matrix
from monai_regplugins.phantoms.space_maps import (
    AffineMap,
    LocalDilation,
    MapChain,
    ShearWave,
    SpaceMap,
)
from monai_regplugins.readers.cine import CineSeries, reference_frame, write_series

__all__ = ["CineLung", "cine_lung_displacement", "cine_lung_subject", "make_cine_lung"]

Array = npt.NDArray[Any]
Seed = int | Sequence[int]
NAME = "CineLungPhantom"

FRAME_TIME = 0.4  # s
SLICE_THICKNESS = 10.0  # mm
DILUTION = 0.014  # per mm of descent: the share by which air thins the lung's tissue, and darkens it
MARGIN = 2.0  # pixels that a landmark keeps from the border of the image in all frames


class CineLung(NamedTuple):
    """One subject of the phantom.

    Attributes:
        frames: uint8 gray values (T, H, W), rows from head to feet, columns from front to back.
        labels: uint8 (T, H, W), see :data:`~monai_regplugins.phantoms.sagittal.CHEST_LABELS`.
        landmarks: float64 pixel positions (T, N, 2), the same N bifurcations in each frame.
        times: s, (T,).
        reference: the frame that the others are registered to.
        maps: T_t of each frame, from its mm to mm at rest.
        affine: pixel (row, column, 0) to mm, RAS, (4, 4).
    """

    frames: Array
    labels: Array
    landmarks: Array
    times: Array
    reference: int
    maps: Sequence[SpaceMap]
    affine: Array


def cine_lung_subject(
    seed: Seed,
    num_frames: int = 24,
    spatial_shape: Sequence[int] = (128, 128),
    spacing: float | Sequence[float] = 2.0,
    noise: float = 2.5,
) -> CineLung:
    """One subject of the phantom, breathing freely.

    Args:
        seed: seed of anatomy, motion, intensities and noise.
        num_frames: number of frames, 0.4 s from one to the next.
        spatial_shape: pixels along rows (head to feet) and columns (front to back).
        spacing: pixel size in mm, one for both axes or one each; shape times spacing should be about 256 x 256 mm.
        noise: standard deviation of the scanner's noise in gray values.
    """
    rng = np.random.default_rng(seed)
    chest = draw_chest(rng)
    times = FRAME_TIME * np.arange(num_frames)
    depth, maps = _motion(rng, chest, times)
    affine = _sagittal_affine(spatial_shape, spacing)
    points = _to_mm(np.indices(spatial_shape).reshape(2, -1), affine)
    edge = float(np.sqrt(np.abs(affine[2, 0] * affine[1, 1])))
    gains = _coil_gain(rng, points, times)
    frames, labels = np.empty((2, num_frames, *spatial_shape), dtype=np.uint8)
    for number, (descent, space_map) in enumerate(zip(depth, maps, strict=True)):
        air = float(np.exp(-DILUTION * descent))
        image, label = sagittal_chest(space_map.forward(points).astype(np.float32), chest, edge, air)
        real, imaginary = rng.normal(0.0, noise, (2, len(image))) if noise else np.zeros((2, 1))
        magnitude = np.hypot(image * next(gains) + real, imaginary)  # the noise of a magnitude image is Rician
        frames[number] = np.clip(np.rint(magnitude), 0, 255).astype(np.uint8).reshape(spatial_shape)
        labels[number] = label.reshape(spatial_shape)
    places = np.concatenate([chest.lung_vessels.bifurcations, chest.liver_vessels.bifurcations])
    landmarks = _landmarks(places, maps, affine, spatial_shape)
    return CineLung(frames, labels, landmarks, times, reference_frame(frames), maps, affine)


def cine_lung_displacement(subject: CineLung, fixed: int, moving: int, pixels: Array | None = None) -> Array:
    r"""Exact displacement from one frame to another, ``T_moving^-1(T_fixed(x)) - x``.

    Args:
        subject: what :func:`cine_lung_subject` returned.
        fixed: number of the fixed frame.
        moving: number of the moving frame.
        pixels: positions in the fixed frame, shape ``(2, *s)``; all pixels if None.

    Returns:
        float64 displacement in pixels, shape ``(2, *s)``, as a ddf: ``warped(x) = moving(x + ddf(x))``.
    """
    start = np.indices(subject.frames.shape[1:], dtype=float) if pixels is None else np.asarray(pixels, dtype=float)
    at_rest = subject.maps[fixed].forward(_to_mm(start.reshape(2, -1), subject.affine))
    end = _to_pixels(subject.maps[moving].inverse(at_rest), subject.affine)
    return np.asarray(end.reshape(start.shape) - start)


def _motion(rng: np.random.Generator, chest: SagittalChest, times: Array) -> tuple[Array, list[SpaceMap]]:
    """Depth of the breath in mm, and the map of each frame: the subject's form, then breath and heart beat undone."""
    angle = np.deg2rad(rng.normal(0.0, 2.0))
    matrix = rotation_matrix([angle, 0.0, 0.0]) @ np.diag([1.0, *np.exp(rng.normal(0.0, 0.035, 2))])
    form: list[SpaceMap] = [AffineMap(matrix, (0.0, float(rng.normal(-6, 4)), float(rng.normal(0, 5))))]
    form += [_random_wave(rng) for _ in range(4)]
    signal = BreathingSignal(rng, times[-1] + 1.0, height=rng.uniform(13.0, 20.0), period=rng.uniform(3.4, 4.6))
    delay, outward, tilt = rng.uniform(0.0, 0.3), rng.uniform(0.10, 0.22), rng.uniform(0.1, 0.5)
    depth, height = signal(times), outward * signal(times - delay)  # the ribs follow the diaphragm: hysteresis
    rate, phase, strength = rng.uniform(1.0, 1.4), rng.uniform(0, 2 * np.pi), rng.uniform(0.10, 0.16)
    beat = strength * np.sin(2 * np.pi * rate * times + phase)
    y, z, wide, high = chest.heart
    maps: list[SpaceMap] = []
    for descent, expansion, contraction in zip(depth.tolist(), height.tolist(), beat.tolist(), strict=True):
        heart = LocalDilation((0.0, y, z), (np.inf, 1.35 * wide, 1.35 * high), contraction)
        maps.append(MapChain([*form, Breath(descent, expansion, float(tilt)), heart]))
    return depth, maps


def _random_wave(rng: np.random.Generator) -> ShearWave:
    """A wave in the plane, 150 to 350 mm long; longer ones are higher."""
    wavelength, angle, phase = rng.uniform(150, 350), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    height, k = float(rng.normal() * wavelength / 90), 2 * np.pi / wavelength
    along, across = float(np.cos(angle)), float(np.sin(angle))
    return ShearWave((0.0, -height * across, height * along), (0.0, k * along, k * across), phase)


def _coil_gain(rng: np.random.Generator, points: Array, times: Array) -> Any:
    """Yield the gain (N,) of each frame: receiver coils at fixed places whose sensitivity wanders slowly."""
    _, y, z = points
    near_coils = 0.22 * np.exp((y - 75.0) / 45.0) + 0.22 * np.exp((-105.0 - y) / 45.0)
    profile = 0.86 + near_coils - rng.uniform(0.05, 0.15) * (z / 128.0) ** 2
    direction, phase = rng.normal(0.0, 1.0, 2), rng.uniform(0, 2 * np.pi)
    tilt = (direction[0] * y + direction[1] * z) / 128.0
    for time in times:
        wander = np.sin(2 * np.pi * time / 17.0 + phase)
        yield profile * (1.0 + 0.005 * wander * (1.0 + tilt))


def _landmarks(places: Array, maps: Sequence[SpaceMap], affine: Array, shape: Sequence[int]) -> Array:
    """Pixel positions (T, N, 2) of those places at rest that all frames show."""
    at_rest = np.vstack([np.zeros(len(places)), places.T])
    positions = np.stack([_to_pixels(space_map.inverse(at_rest), affine).T for space_map in maps])
    seen = (positions > MARGIN) & (positions < np.asarray(shape) - 1 - MARGIN)
    return np.asarray(positions[:, seen.all(axis=(0, 2))])


def _sagittal_affine(spatial_shape: Sequence[int], spacing: float | Sequence[float]) -> Array:
    """Pixel to RAS mm of a sagittal slice around the origin: rows to the feet, columns to the back."""
    rows, columns = np.broadcast_to(np.asarray(spacing, dtype=float), (2,))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -rows, -columns, -SLICE_THICKNESS, 1.0
    affine[2, 3], affine[1, 3] = (np.asarray(spatial_shape) - 1) / 2 * (rows, columns)
    return affine


def _to_mm(pixels: Array, affine: Array) -> Array:
    """Points (3, N) in mm of pixel positions (2, N)."""
    return np.asarray(affine[:3, :2] @ pixels + affine[:3, 3:])


def _to_pixels(points: Array, affine: Array) -> Array:
    """Pixel positions (2, N) of points (3, N) in mm."""
    return np.asarray(np.linalg.inv(affine)[:2] @ np.vstack([points, np.ones(points.shape[1])]))


def make_cine_lung(
    dataset_dir: str | Path,
    num_training: int = 24,
    num_validation: int = 3,
    num_frames: int = 16,
    spatial_shape: Sequence[int] = (128, 128),
    spacing: float | Sequence[float] = 2.0,
    seed: int = 0,
) -> Path:
    r"""Make the phantom data set in Learn2Reg's format.

    Images and labels are NIfTI files (H, W) per frame, landmarks CSV files of pixel positions. Pairs have a subject's
    reference frame as fixed and each of its other frames as moving image. For each validation subject there are also
    the series as one file, ``series/<name>_<subject>.nii.gz`` (H, W, 1, T), and the exact displacement fields
    ``displacements/disp_<fixed>_<moving>.nii.gz`` (H, W, 2) in pixels, rounded to 1/256 pixel.

    The folder appears complete or not at all, as that of :func:`~monai_regplugins.phantoms.make_abdomen`.

    Args:
        dataset_dir: the folder to make.
        num_training: number of training subjects.
        num_validation: number of validation subjects.
        num_frames: frames per subject.
        spatial_shape: pixels along rows and columns.
        spacing: pixel size in mm; shape times spacing should be about 256 x 256 mm.
        seed: seed of the whole set.

    Returns:
        ``dataset_dir``.
    """

    def write(folder: Path) -> None:
        for name in ("imagesTr", "labelsTr", "landmarksTr", "displacements", "series"):
            (folder / name).mkdir()
        references = []
        for number in range(1, num_training + num_validation + 1):
            subject = cine_lung_subject((seed, number), num_frames, spatial_shape, spacing)
            references.append(subject.reference)
            _write_frames(folder, number, subject)
            if number > num_training:
                _write_exact(folder, number, subject)
        description = _description(references, num_training, num_frames, spatial_shape)
        (folder / f"{NAME}_dataset.json").write_text(json.dumps(description, indent=4) + "\n", encoding="utf-8")

    return make_folder(Path(dataset_dir), write)


def _files(subject: int, frame: int) -> dict[str, str]:
    stem = f"{NAME}_{subject:04d}_{frame:04d}"
    return {
        "image": f"./imagesTr/{stem}.nii.gz",
        "label": f"./labelsTr/{stem}.nii.gz",
        "landmarks": f"./landmarksTr/{stem}.csv",
    }


def _series_file(subject: int) -> str:
    return f"./series/{NAME}_{subject:04d}.nii.gz"


def _write_frames(folder: Path, number: int, subject: CineLung) -> None:
    for frame, (image, label, landmarks) in enumerate(
        zip(subject.frames, subject.labels, subject.landmarks, strict=True)
    ):
        files = _files(number, frame)
        nib.save(nib.Nifti1Image(image, subject.affine), folder / files["image"])
        nib.save(nib.Nifti1Image(label, subject.affine), folder / files["label"])
        np.savetxt(folder / files["landmarks"], landmarks, fmt="%.5f", delimiter=",")


def _write_exact(folder: Path, number: int, subject: CineLung) -> None:
    """Write the series of one subject and the displacement field of each of its pairs."""
    spacing = (abs(float(subject.affine[2, 0])), abs(float(subject.affine[1, 1])))
    series = CineSeries(subject.frames.astype(np.float32), spacing, subject.times, subject.affine, f"{NAME} {number}")
    write_series(series, folder / _series_file(number), np.uint8)
    for moving in range(len(subject.frames)):
        if moving != subject.reference:
            ddf = np.rint(256 * cine_lung_displacement(subject, subject.reference, moving))
            image = nib.Nifti1Image(np.moveaxis(ddf, 0, -1).astype(np.int16), subject.affine)
            image.header.set_slope_inter(1 / 256, 0)
            name = f"disp_{number:04d}_{subject.reference:04d}_{number:04d}_{moving:04d}.nii.gz"
            nib.save(image, folder / "displacements" / name)


def _description(
    references: Sequence[int], num_training: int, num_frames: int, spatial_shape: Sequence[int]
) -> dict[str, Any]:
    """The content of the data set's json file."""
    numbers = range(1, len(references) + 1)
    training, validation = numbers[:num_training], numbers[num_training:]

    def entries(subjects: Sequence[int]) -> list[dict[str, str]]:
        return [_files(subject, frame) for subject in subjects for frame in range(num_frames)]

    def pairs(subjects: Sequence[int]) -> list[dict[str, str]]:
        return [
            {"fixed": _files(subject, reference)["image"], "moving": _files(subject, frame)["image"]}
            for subject in subjects
            for reference in [references[subject - 1]]
            for frame in range(num_frames)
            if frame != reference
        ]

    return {
        "name": NAME,
        "release": "1.0",
        "description": "Digital phantom of free-breathing sagittal lung MR, 2D+t; exact fields in displacements",
        "licence": "synthetic, Apache-2.0",
        "pairings": "paired",
        "modality": {"0": "MR"},
        "tensorImageSize": {"0": "2D"},
        "tensorImageShape": {"0": list(spatial_shape)},
        "labels": {"0": {str(value): name for value, name in CHEST_LABELS.items()}},
        "numTraining": num_training * num_frames,
        "training": entries(training),
        "validation": entries(validation),
        "training_paired_images": pairs(training),
        "registration_val": pairs(validation),
        "series": [{"image": _series_file(subject)} for subject in validation],
    }

"""A pair of images, and a hundred ways to corrupt it: twenty kinds, each drawn from a seed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_series import Array, write_volume

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(4, 5, 6)).astype(np.float32)
AFFINE = np.array([[0.0, -1.2, 1.6, 3.0], [-3.0, 0.0, 0.0, 4.0], [0.0, 1.6, 1.2, 5.0], [0.0, 0.0, 0.0, 1.0]])

Damage = Callable[[np.random.Generator, dict[str, Any]], None]
DAMAGES: dict[str, Damage] = {}
ENCODED = ("moving.nii.gz", "moving.nii", "moving.nrrd", "moving.mha", "moving")  # the last is a DICOM series
DIMENSIONS, NUMBER_TYPE, SPACING, SFORM = slice(40, 56), slice(70, 74), slice(80, 92), slice(280, 328)  # of NIfTI


def write_nifti(path: Path, data: Array, affine: Array = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def good_pair(folder: Path) -> dict[str, Any]:
    """A pair of volumes on one oblique, left-handed grid."""
    return {
        "moving": write_nifti(folder / "moving.nii.gz", VOLUME),
        "fixed": write_nifti(folder / "fixed.nii", VOLUME + 1),
        "pair_id": "moving_to_fixed",
    }


def damaged_pair(folder: Path, kind: str, seed: int) -> dict[str, Any]:
    """A pair in a new folder, its moving image there in all formats, with something wrong in it."""
    folder.mkdir()
    pair = {**good_pair(folder), "folder": folder, "pair_id": folder.name}
    write_nifti(folder / "moving.nii", VOLUME)
    for name in ("moving.nrrd", "moving.mha"):
        sitk.WriteImage(sitk.ReadImage(str(folder / "moving.nii")), str(folder / name))
    write_volume(folder / "moving", (100 * VOLUME).astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    DAMAGES[kind](np.random.default_rng(seed), pair)
    return {key: value for key, value in pair.items() if key != "folder"}


def damages(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


def one_file(draw: np.random.Generator, pair: dict[str, Any], names: tuple[str, ...] = ENCODED) -> Path:
    """Take the moving image from one of its formats and return the file that holds it (one of them for DICOM)."""
    pair["moving"] = pair["folder"] / str(draw.choice(names))
    files = sorted(pair["moving"].iterdir()) if pair["moving"].is_dir() else [pair["moving"]]
    return files[draw.integers(len(files))]


def overwrite(file: Path, place: slice, content: bytes) -> None:
    old = file.read_bytes()
    assert len(content) == place.stop - place.start
    file.write_bytes(old[: place.start] + content + old[place.stop :])


def rewritten(draw: np.random.Generator, pair: dict[str, Any], key: str, data: Array, affine: Array = AFFINE) -> None:
    suffix = str(draw.choice([".nii", ".nii.gz"]))
    pair[key] = write_nifti(pair["folder"] / f"{key}_new{suffix}", data, affine)


@damages
def cut_short(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    file.write_bytes(file.read_bytes()[: draw.integers(1, file.stat().st_size - 8)])


@damages
def header_of_noise(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    overwrite(file, slice(0, 340), draw.bytes(340))


@damages
def file_of_noise(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    one_file(draw, pair).write_bytes(draw.bytes(int(draw.integers(1, 3000))))
    if pair["moving"].is_dir():  # noise alone says of no series that a file of it is lost
        for file in pair["moving"].iterdir():
            file.write_bytes(draw.bytes(500))


@damages
def swapped_bytes(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair, ("moving.nii",))
    head = np.frombuffer(file.read_bytes()[4:348], np.uint8).reshape(-1, 2)[:, ::-1]
    overwrite(file, slice(4, 348), head.tobytes())


@damages
def another_format_behind_the_suffix(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    first, second = draw.choice(ENCODED[:-1], 2, replace=False)
    pair["moving"] = pair["folder"] / str(first)
    pair["moving"].write_bytes((pair["folder"] / str(second)).read_bytes())


@damages
def affine_that_is_not_finite(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    affine = np.frombuffer(np.float32(AFFINE[:3]).tobytes(), np.float32).copy()
    affine[draw.integers(12)] = draw.choice([np.nan, np.inf, -np.inf])
    overwrite(one_file(draw, pair, ("moving.nii",)), SFORM, affine.tobytes())


@damages
def spacing_of_zero(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair, ("moving.nii", "moving"))
    if pair["moving"].is_dir():
        data = pydicom.dcmread(file)
        data.PixelSpacing = [[0, 1], [1, 0], [-1, 1]][draw.integers(3)]
        data.save_as(file)
    else:
        size = draw.uniform(0.5, 3, 3).astype(np.float32)
        size[draw.integers(3)] = draw.choice([0, -1, np.nan])
        overwrite(file, SPACING, size.tobytes())
        overwrite(file, slice(254, 256), bytes(2))  # no sform, so that the spacing counts


@damages
def huge_shape(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    file = one_file(draw, pair)
    size = [int(n) for n in draw.integers(2000, 30_000, 3)]
    if pair["moving"].is_dir():
        data = pydicom.dcmread(file)
        data.Rows, data.Columns = size[:2]
        data.save_as(file)
    elif file.suffix in (".nrrd", ".mha"):
        text = b"4 5 6", " ".join(map(str, size)).encode()
        assert text[0] in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(*text))
    else:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        content = content[:40] + np.int16([3, *size, 1, 1, 1, 1]).tobytes() + content[56:]
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@damages
def complex_values(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    values = (VOLUME + 1j * VOLUME).astype(draw.choice([np.complex64, np.complex128]))
    if draw.random() < 0.5:
        pair["moving"] = pair["folder"] / "complex.nrrd"
        sitk.WriteImage(sitk.GetImageFromArray(values), str(pair["moving"]))
    else:
        rewritten(draw, pair, "moving", values)


@damages
def color_values(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    colors = draw.integers(0, 255, (4, 5, 6, 3), dtype=np.uint8)
    if draw.random() < 0.5:
        pair["moving"] = pair["folder"] / "colors.mha"
        sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), str(pair["moving"]))
    else:
        rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        rewritten(draw, pair, "moving", colors.view(rgb)[..., 0])


@damages
def unknown_number_type(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    code = np.int16([draw.choice([0, 1, 3, 255, 999, -8]), 0])
    overwrite(one_file(draw, pair, ("moving.nii",)), NUMBER_TYPE, code.tobytes())


@damages
def values_that_are_not_finite(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    values = VOLUME.astype(np.float64)
    values[tuple(draw.integers(4, size=3))] = draw.choice([np.nan, np.inf, 1e300])
    rewritten(draw, pair, str(draw.choice(["moving", "fixed"])), values)


@damages
def dimensions_of_no_volume(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    sizes = [[0, 4, 5, 6], [3, -4, 5, 6], [3, 0, 5, 6], [9, 4, 5, 6], [2, 4, 30, 1], [3, 120, 1, 1], [4, 4, 5, 3]]
    chosen = [*sizes[draw.integers(len(sizes))], 2, 1, 1, 1]
    overwrite(one_file(draw, pair, ("moving.nii",)), DIMENSIONS, np.int16(chosen).tobytes())


@damages
def empty_label(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    kind = str(draw.choice(["moving_label", "fixed_label", "fixed_mask", "moving_mask"]))
    rewritten(draw, pair, kind, np.zeros((4, 5, 6), draw.choice([np.uint8, np.int16, np.float32])))


@damages
def label_on_another_grid(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    """Of another size without a position of its own, or with one outside of its image."""
    shape, affine = [4, 5, 6], AFFINE.copy()
    if draw.random() < 0.5:
        shape[draw.integers(3)] += 1
        affine = np.eye(4)
    else:
        affine[draw.integers(3), 3] += draw.choice([-1, 1]) * draw.uniform(100, 1e6)
    rewritten(draw, pair, "fixed_label", np.ones(shape, np.uint8), affine)


@damages
def points_outside(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    points = draw.uniform(0, 3, (5, 3))
    points[draw.integers(5), draw.integers(3)] = draw.choice([-200.0, 40.0, 1e30, np.nan, np.inf])
    pair["fixed_landmarks"] = pair["folder"] / "points.csv"
    np.savetxt(pair["fixed_landmarks"], points, delimiter=",")


@damages
def points_that_are_no_table(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    pair["moving_keypoints"] = pair["folder"] / str(draw.choice(["points.csv", "points.csv.gz", "points.csv.xz"]))
    pair["moving_keypoints"].write_bytes(draw.bytes(int(draw.integers(1, 200))))


@damages
def folder_instead_of_file(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    folder = pair["folder"] / str(draw.choice(["empty", "empty.nii.gz"]))
    folder.mkdir()
    pair[str(draw.choice(["moving", "fixed", "moving_label", "fixed_mask", "fixed_keypoints"]))] = folder


@damages
def path_to_nowhere(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    paths = ["", "nowhere.nii", "no/where", "\0", "x" * 5000, "/dev/null", str(pair["fixed"]) + "/inside"]
    pair[str(draw.choice(["moving", "fixed", "fixed_label", "moving_landmarks"]))] = str(draw.choice(paths))


@damages
def scan_of_elsewhere(draw: np.random.Generator, pair: dict[str, Any]) -> None:
    affine = AFFINE.copy()
    affine[draw.integers(3), 3] += draw.choice([-1, 1]) * draw.uniform(100, 1e6)
    rewritten(draw, pair, "moving", VOLUME, affine)

"""Reader for the DIR-Lab 4DCT and COPDgene cases: thorax CT at two respiratory phases, with landmarks.

Source: https://www.dir-lab.com; Castillo et al. 2009, Phys. Med. Biol. 54(7), and 2013, Phys. Med. Biol. 58(9). A phase
is a raw file without a header and a text file of landmarks, whose meaning only the tables of the site give:

* raw files hold int16, little endian, x fastest, slices from the head to the feet; values are Hounsfield units plus
  1024, and -2000 outside the scanner's field of view. Some COPDgene files have empty slices at their ends.
* landmarks are voxels ``x y z`` of the raw file, counted from 1.

Here an image is an array (x, y, z) as nibabel has it, x to the patient's left, y to the back, z to the head, without
the empty slices. Its affine in RAS mm is ``diag(-spacing_x, -spacing_y, spacing_z)``, and the empty slices below move
its origin. Landmarks are voxels of that array counted from 0, ``(x - 1, y - 1, size_z - z - empty slices below)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_file,
    check_same_size,
)
from monai_regplugins.files.folders import files_in, is_made, make_folder

__all__ = ["DIRLAB_CASES", "DirLabGeometry", "DirLabImage", "DirLabPair", "convert_dirlab", "read_dirlab"]

Array = npt.NDArray[Any]
NAME = "DirLab"

RAW_OFFSET = 1024  # of the raw value over the Hounsfield unit
OUTSIDE = -2048  # Hounsfield unit given to what lies outside the scanner's field of view
SLICE = 2.5  # mm, distance of all slices
FIRST_COPD = 100  # numbers of the COPDgene cases in a converted data set begin above it


class DirLabGeometry(NamedTuple):
    """Size along x, y, z in voxels and voxel size in mm."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]


_SLICES_4DCT = (94, 112, 104, 99, 106, 128, 136, 128, 128, 120)
_SPACINGS_4DCT = (0.97, 1.16, 1.15, 1.13, 1.10, 0.97, 0.97, 0.97, 0.97, 0.97)
_SLICES_COPD = (121, 102, 126, 126, 131, 119, 112, 115, 116, 135)
_SPACINGS_COPD = (0.625, 0.645, 0.652, 0.590, 0.647, 0.633, 0.625, 0.586, 0.644, 0.742)

DIRLAB_CASES: dict[str, DirLabGeometry] = {
    f"case{number}": DirLabGeometry((256 if number < 6 else 512,) * 2 + (slices,), (spacing, spacing, SLICE))
    for number, (slices, spacing) in enumerate(zip(_SLICES_4DCT, _SPACINGS_4DCT, strict=True), start=1)
} | {
    f"copd{number}": DirLabGeometry((512, 512, slices), (spacing, spacing, SLICE))
    for number, (slices, spacing) in enumerate(zip(_SLICES_COPD, _SPACINGS_COPD, strict=True), start=1)
}


class DirLabImage(NamedTuple):
    """One phase of a case.

    Attributes:
        image: int16 Hounsfield units (X, Y, Z), axes to the left, to the back and to the head.
        affine: voxel to mm, RAS, (4, 4).
        landmarks: float64 voxel positions (N, 3), x, y, z counted from 0.
    """

    image: Array
    affine: Array
    landmarks: Array


class DirLabPair(NamedTuple):
    """Both phases of a case, landmarks in the same order.

    Attributes:
        fixed: end inspiration, T00 or iBHCT.
        moving: end expiration, T50 or eBHCT.
    """

    fixed: DirLabImage
    moving: DirLabImage


class _Phase(NamedTuple):
    """File names of a phase as people know them, and patterns of all their variants."""

    image: str
    image_pattern: str
    landmarks: str
    landmarks_pattern: str


def read_dirlab(folder: str | Path, case: str) -> DirLabPair:
    """Read both phases of a case and their 300 landmarks.

    Args:
        folder: where the downloaded archives were unpacked; files are found anywhere below it, also under the names
            of newer downloads (``case1_T00-ssm.img``).
        case: one of :data:`DIRLAB_CASES`, ``case1`` to ``case10`` (4DCT) or ``copd1`` to ``copd10``.

    Raises:
        InputError: When a file is missing, there twice, of another size than the case, or no file of landmarks.
    """
    check_choice(case, DIRLAB_CASES, "case")
    fixed, moving = (_read_phase(Path(folder), case, phase) for phase in _phases(case))
    check_same_size(fixed.landmarks, moving.landmarks, f"{case}'s fixed landmarks", "its moving landmarks")
    return DirLabPair(fixed, moving)


def convert_dirlab(
    folder: str | Path, cases: Iterable[str], dataset_dir: str | Path, validation: Iterable[str] | None = None
) -> Path:
    """Write cases as a data set in Learn2Reg's format, which the bundles read by ``dataset_dir``.

    Subjects are numbered as the cases, COPDgene's from 101 on; ``<subject>_0000`` is end inspiration, the fixed image,
    ``<subject>_0001`` end expiration, the moving one. The folder appears complete or not at all.

    Args:
        folder: where the downloaded archives were unpacked, see :func:`read_dirlab`.
        cases: which ones, of :data:`DIRLAB_CASES`.
        dataset_dir: the folder to make.
        validation: which of ``cases`` validate; all if None. The others can train.

    Returns:
        ``dataset_dir``.

    Raises:
        InputError: As :func:`read_dirlab`, and when ``dataset_dir`` holds something already or there is no case.
    """
    chosen = list(dict.fromkeys(cases))
    validating = chosen if validation is None else list(dict.fromkeys(validation))
    for case in chosen:
        check_choice(case, DIRLAB_CASES, "case")
    for case in validating:
        check_choice(case, chosen, "validation case")
    if not chosen:
        raise InputError("cases is empty, expected at least one; give names such as 'case1' or 'copd1'.")
    target = Path(dataset_dir)
    if is_made(target):
        raise InputError(f"dataset_dir '{target}' holds files already; give a folder that does not exist yet.")

    def write(made: Path) -> None:
        for name in ("imagesTr", "landmarksTr"):
            (made / name).mkdir()
        for case in chosen:
            _write_pair(made, _number(case), read_dirlab(folder, case))
        description = _description(chosen, validating)
        (made / f"{NAME}_dataset.json").write_text(json.dumps(description, indent=4) + "\n", encoding="utf-8")

    return make_folder(target, write)


def _phases(case: str) -> tuple[_Phase, _Phase]:
    """Files of the fixed and of the moving phase."""
    number = int(case[4:])
    if case.startswith("copd"):
        fixed, moving = (
            _Phase(
                f"{case}_{letter}BHCT.img",
                rf"{case}_{letter}bhct(-ssm)?\.img",
                f"{case}_300_{letter}BH_xyz_r1.txt",
                rf"{case}_300_{letter}bh_xyz(_r\d)?\.txt",
            )
            for letter in "ie"
        )
    else:
        fixed, moving = (
            _Phase(
                f"{case}_{time}{'_s' if number < 6 else ''}.img",
                rf"{case}_{time}(_s)?(-ssm)?\.img",
                f"{case}_{'300' if number < 6 else 'dirLab300'}_{time}_xyz.txt",
                rf"{case}_(dirlab)?300_{time}_xyz\.txt",
            )
            for time in ("T00", "T50")
        )
    return fixed, moving


def _read_phase(folder: Path, case: str, phase: _Phase) -> DirLabImage:
    size, spacing = DIRLAB_CASES[case]
    raw = _read_raw(_find(folder, phase.image, phase.image_pattern), case, size)
    indices = _read_landmarks(_find(folder, phase.landmarks, phase.landmarks_pattern), size)
    below, above = _empty_ends(raw) if case.startswith("copd") else (0, size[2])
    image = np.maximum(raw[:, :, below:above], OUTSIDE + RAW_OFFSET) - np.int16(RAW_OFFSET)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[2, 3] = below * spacing[2]
    landmarks = np.stack([indices[:, 0] - 1, indices[:, 1] - 1, size[2] - indices[:, 2] - below], axis=1)
    if ((landmarks[:, 2] < 0) | (landmarks[:, 2] >= image.shape[2])).any():
        raise InputError(
            f"landmarks of '{phase.image}' lie in its empty slices, expected all in the others; one of the files is "
            "damaged or another case's, so download both again."
        )
    return DirLabImage(image, affine, landmarks.astype(float))


def _find(folder: Path, name: str, pattern: str) -> Path:
    """Return the one file below a folder whose whole name matches, in any case of letters."""
    if not folder.is_dir():
        raise InputError(f"folder '{folder}' does not exist; give the folder with the unpacked DIR-Lab archives.")
    whole = re.compile(pattern, re.IGNORECASE)
    found = [file for file in files_in(folder, below=True) if whole.fullmatch(file.name)]
    if not found:
        raise InputError(f"no file '{name}' anywhere below '{folder}'; unpack the DIR-Lab archive that holds it there.")
    if len(found) > 1:
        listed = ", ".join(f"'{file.relative_to(folder)}'" for file in found)
        raise InputError(f"'{folder}' holds {len(found)} files for '{name}': {listed}; keep exactly one of them.")
    return check_file(found[0], name)


def _read_raw(file: Path, case: str, size: tuple[int, int, int]) -> Array:
    """Raw values (x, y, z), z to the head."""
    expected = 2 * int(np.prod(size))
    if file.stat().st_size != expected:
        raise InputError(
            f"'{file}' has {file.stat().st_size} bytes, expected {expected} for the {size[0]} x {size[1]} x {size[2]} "
            f"voxels of {case}; it is cut short or another case's, so unpack or download it again."
        )
    slices = np.fromfile(file, dtype="<i2").reshape(size[::-1])
    return np.asarray(slices[::-1].T, dtype=np.int16)


def _read_landmarks(file: Path, size: tuple[int, int, int]) -> Array:
    """Voxel indices x, y, z as in the file, counted from 1: int (N, 3)."""
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        row = [int(word) if re.fullmatch(r"\d+", word) else 0 for word in words]
        if len(row) != 3 or not all(1 <= index <= length for index, length in zip(row, size, strict=True)):
            raise InputError(
                f"line {number} of '{file}' reads '{line.strip()[:60]}', expected three whole numbers, voxels from 1 "
                f"to {size[0]}, {size[1]} and {size[2]}; take the file of landmarks as downloaded."
            )
        rows.append(row)
    return np.array(rows, dtype=int).reshape(-1, 3)


def _empty_ends(raw: Array) -> tuple[int, int]:
    """First slice that is not all zero, and the one after the last such slice."""
    filled = np.flatnonzero(raw.any(axis=(0, 1)))
    return (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, raw.shape[2])


def _number(case: str) -> int:
    return int(case[4:]) + (FIRST_COPD if case.startswith("copd") else 0)


def _files(number: int, phase: int) -> dict[str, str]:
    stem = f"{NAME}_{number:04d}_{phase:04d}"
    return {"image": f"./imagesTr/{stem}.nii.gz", "landmarks": f"./landmarksTr/{stem}.csv"}


def _write_pair(folder: Path, number: int, pair: DirLabPair) -> None:
    for phase, (image, affine, landmarks) in enumerate(pair):
        files = _files(number, phase)
        nib.save(nib.Nifti1Image(image, affine), folder / files["image"])
        np.savetxt(folder / files["landmarks"], landmarks, fmt="%d", delimiter=",")


def _description(cases: Sequence[str], validation: Sequence[str]) -> dict[str, Any]:
    """The content of the data set's json file."""

    def pairs(some: Sequence[str]) -> list[dict[str, str]]:
        files = [[_files(_number(case), phase)["image"] for phase in (0, 1)] for case in some]
        return [{"fixed": fixed, "moving": moving} for fixed, moving in files]

    return {
        "name": NAME,
        "release": "1.0",
        "description": f"DIR-Lab {', '.join(cases)}: CT at end inspiration (fixed) and end expiration (moving), HU",
        "licence": "as DIR-Lab states",
        "pairings": "paired",
        "modality": {"0": "CT"},
        "tensorImageSize": {"0": "3D"},
        "numTraining": 2 * len(cases),
        "training": [_files(_number(case), phase) for case in cases for phase in (0, 1)],
        "training_paired_images": pairs(cases),
        "registration_val": pairs(validation),
    }

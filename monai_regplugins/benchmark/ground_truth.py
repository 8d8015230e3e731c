"""Write data sets with ground-truth displacements in Learn2Reg's format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.files.folders import is_made

__all__ = ["Subject", "check_request", "write_dataset", "write_displacement"]


@dataclass(frozen=True)
class Subject:
    """An image, ``(1, *spatial)``, points, ``(N, 3)`` voxels, and of its labels and its body's mask what there is."""

    image: Tensor
    label: Tensor | None
    points: Tensor
    mask: Tensor | None = None


def check_request(output_dir: Path, pairs: int, landmarks: int, seed: int) -> None:
    """Check what every command that makes such a data set is asked for.

    Raises:
        InputError: When a number is out of its range or the folder holds something.
    """
    if min(pairs, landmarks) < 1 or seed < 0:
        raise InputError(f"pairs is {pairs}, landmarks {landmarks} and seed {seed}, expected at least 1, 1 and 0.")
    if is_made(output_dir):
        raise InputError(
            f"output_dir '{output_dir}' is not empty, and nothing in it would be replaced; give a new folder."
        )


def write_dataset(
    folder: Path,
    name: str,
    description: str,
    affine: Tensor,
    subjects: Iterable[Subject],
    pairs: Sequence[tuple[int, int]],
) -> None:
    """Write images with what belongs to them, and the json file, which lists the pairs to validate on.

    Args:
        folder: an existing folder.
        name: of the data set, which the names of the files begin with.
        description: a line for the json file.
        affine: voxel to mm of all images, RAS, (4, 4).
        subjects: all on one grid, written one at a time; their numbers begin with 0.
        pairs: numbers (fixed, moving). The moving images are listed as training, which the format cannot do without.
    """
    entries = [_save_subject(folder, f"{name}_{i:04d}_0000", subject, affine) for i, subject in enumerate(subjects)]
    content = {
        "name": name,
        "description": description,
        "tensorImageSize": {"0": "3D"},
        "tensorImageShape": {"0": list(nib.Nifti1Image.from_filename(folder / entries[0]["image"]).shape)},
        "training": [entries[moving] for moving in sorted({moving for _, moving in pairs})],
        "validation": [entries[fixed] for fixed, _ in pairs],
        "registration_val": [{"fixed": entries[f]["image"], "moving": entries[m]["image"]} for f, m in pairs],
    }
    (folder / f"{name}_dataset.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def write_displacement(folder: Path, fixed: int, moving: int, ddf: Tensor, affine: Tensor) -> None:
    r"""Write the true displacement ``displacements/disp_<fixed>_<moving>.nii.gz``, ``(*spatial, 3)`` voxels.

    Args:
        folder: of the data set.
        fixed: number of the fixed image.
        moving: number of the moving image.
        ddf: ``(3, *spatial)`` voxels.
        affine: voxel to mm, (4, 4).
    """
    _save(folder / "displacements" / f"disp_{fixed:04d}_{moving:04d}.nii.gz", ddf.movedim(0, -1), affine)


def _save_subject(folder: Path, stem: str, subject: Subject, affine: Tensor) -> dict[str, str]:
    """Write what there is of a subject, and return the files as a data set lists them."""
    entry = {"image": f"./imagesTr/{stem}.nii.gz", "landmarks": f"./landmarksTr/{stem}.csv"}
    _save(folder / entry["image"], subject.image[0], affine)
    for key, classes in (("label", subject.label), ("mask", subject.mask)):
        if classes is not None:
            entry[key] = f"./{key}sTr/{stem}.nii.gz"
            _save(folder / entry[key], classes[0].to(torch.int16), affine)
    landmarks = folder / entry["landmarks"]
    landmarks.parent.mkdir(exist_ok=True)
    np.savetxt(landmarks, subject.points.numpy(), fmt="%.4f", delimiter=",")
    return entry


def _save(file: Path, values: Tensor, affine: Tensor) -> None:
    file.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(values.numpy(), affine.numpy()), file)

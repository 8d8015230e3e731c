"""NIfTI files of all kinds of headers: what they say about one grid, and what beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

Array = np.ndarray[Any, Any]


class Kind(NamedTuple):
    """A kind of header: codes, the unit, and what contradicts the grid.

    Attributes:
        sform: its code.
        qform: its code.
        unit: of the numbers.
        apart: whether sform and qform are two grids.
        pixdim: factor of the first voxel size beside its column.
        shear: of the sform, the cosine between two axes.
        warned: whether the header has to be reported.
    """

    sform: int
    qform: int
    unit: str = "mm"
    apart: bool = False
    pixdim: float = 1.0
    shear: float = 0.0
    warned: bool = False


KINDS = {
    "sform alone": Kind(1, 0),
    "sform alone, aligned": Kind(2, 0),
    "qform alone": Kind(0, 1),
    "qform alone, aligned": Kind(0, 2),
    "both alike": Kind(1, 1),
    "both alike, MNI": Kind(4, 1),
    "scanner sform beside a qform": Kind(1, 1, apart=True, warned=True),
    "aligned sform beside a qform": Kind(2, 1, apart=True, warned=True),
    "Talairach sform beside a qform": Kind(3, 2, apart=True, warned=True),
    "MNI sform beside a qform": Kind(4, 1, apart=True, warned=True),
    "template sform beside a qform": Kind(5, 3, apart=True, warned=True),
    "neither": Kind(0, 0, warned=True),
    "neither, micron": Kind(0, 0, unit="micron", warned=True),
    "micron": Kind(1, 1, unit="micron"),
    "micron, sform alone": Kind(2, 0, unit="micron"),
    "meter": Kind(1, 0, unit="meter"),
    "unknown unit": Kind(1, 1, unit="unknown"),
    "aligned sform beside a qform, micron": Kind(2, 1, unit="micron", apart=True, warned=True),
    "pixdim beside the sform": Kind(1, 0, pixdim=1.03, warned=True),
    "pixdim a little beside the sform": Kind(2, 0, pixdim=1.0005),
    "pixdim beside the sform, like the qform": Kind(2, 1, pixdim=1.03, warned=True),
    "a little shear beside a qform": Kind(2, 1, shear=5e-4),
}
FACTOR = {"mm": 1.0, "unknown": 1.0, "micron": 1e3, "meter": 1e-3}


def save_kind(path: Path, values: Array, affine: Array, kind: Kind) -> Path:
    """Save an image whose sform (qform if there is no sform) is ``affine``, in mm; without either, at the origin."""
    scale = np.diag([*[FACTOR[kind.unit]] * 3, 1.0])
    sform = scale @ affine
    sform[:3, 1] += kind.shear * sform[:3, 0] / np.linalg.norm(sform[:3, 0]) * np.linalg.norm(sform[:3, 1])
    turn = np.array([[0.96, -0.28, 0.0, 2.0], [0.28, 0.96, 0.0, -1.0], [0.0, 0.0, 1.0, 1.5], [0.0, 0.0, 0.0, 1.0]])
    image = nib.Nifti1Image(values, None)
    image.header.set_qform(scale @ turn @ affine if kind.apart else scale @ affine, kind.qform)
    image.header.set_sform(sform, kind.sform)
    image.header["pixdim"][1] *= kind.pixdim
    image.header.set_xyzt_units(kind.unit)
    nib.save(image, path)
    return path

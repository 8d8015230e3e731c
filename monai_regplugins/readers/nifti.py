r"""Placement of NIfTI images: choice between sform and qform, in mm, and detection of contradictions.

A header may hold two positions, each with a code: the sform, a matrix, and the qform, a rotation with the voxel sizes
of ``pixdim``. The rule is nibabel's, which FSL and FreeSurfer keep too: the sform where its code is above 0, since a
program that has registered or edited an image writes there; else the qform where its code is above 0; else the middle
of the image lies at the origin, x to the left. Only an sform without an inverse, left empty, gives way to a qform. ITK
has another rule (:mod:`~monai_regplugins.readers.itk_world`). Numbers in meters or micrometers (``xyzt_units``) become
mm, as in ITK.

Source: https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields/nifti1fields_pages/qsform.html.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from nibabel.openers import ImageOpener

from monai_regplugins.grids import grid_distance
from monai_regplugins.readers.itk_world import NO_DIFFERENCE

__all__ = ["NIFTI_SUFFIXES", "NiftiPlace", "nifti_header", "nifti_place", "report_place", "tell_corrected"]

Array = npt.NDArray[Any]
logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NIFTI_2 = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
TO_MM = {1: 1e3, 3: 1e-3}  # NIFTI_UNITS_METER and _MICRON; mm and unknown stay
WORTH_A_WARNING = 0.1  # voxels
CORRECTED = {"_Tilt_1": "without the tilt of the gantry", "_Eq_1": "with even slices"}  # what dcm2niix adds to a name


class NiftiPlace(NamedTuple):
    """Where a header places its image.

    Attributes:
        affine: voxels to RAS mm, (4, 4), by the form that is taken.
        form: ``"sform"``, ``"qform"``, or ``"none"`` where both codes are 0.
        contradiction: what else the header says, more than 0.1 voxels away, or ``""``.
        certain: whether the header says one thing, so that every reader takes the same place.
    """

    affine: npt.NDArray[np.float64]
    form: str
    contradiction: str
    certain: bool


def nifti_header(file: Path) -> nib.Nifti1Header:
    """The header of a NIfTI file as it is; ``nibabel.load`` would take an edge of zero for 1 mm.

    Raises:
        Exception: Whatever nibabel raises on a file that is none.
    """
    with ImageOpener(str(file)) as stream:
        second = stream.read(4) in NIFTI_2
        stream.seek(0)
        header: nib.Nifti1Header = (nib.Nifti2Header if second else nib.Nifti1Header).from_fileobj(stream, check=False)
        header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # the hand of the qform, by the standard 1 for 0
        return header


def nifti_place(header: nib.Nifti1Header) -> NiftiPlace:
    """Return where a header places its image, and by which of its forms.

    Raises:
        Exception: Whatever nibabel raises where the only form is damaged.

    Example:
        >>> header = nib.Nifti1Header()
        >>> header.set_data_shape((5, 6, 7))
        >>> header.set_sform(np.diag([1000.0, 1000.0, 2000.0, 1.0]), code=2)
        >>> header.set_xyzt_units("micron")
        >>> place = nifti_place(header)
        >>> place.form, np.diag(place.affine).tolist()
        ('sform', [1.0, 1.0, 2.0, 1.0])
    """
    forms = _forms(header)
    form = next(iter(forms), "none")
    affine = np.array(forms[form] if forms else header.get_base_affine(), dtype=np.float64)
    shape = tuple(int(n) for n in header.get_data_shape())
    others = {**forms, "pixdim": _with_edges(affine, header, len(shape))}
    taken = torch.from_numpy(affine.copy())
    distance = {name: grid_distance(taken, torch.from_numpy(one), shape[:3]) for name, one in others.items()}
    worst = max(distance, key=lambda name: distance[name])
    affine[:3] *= TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    contradiction = _contradiction(header, forms, worst) if not distance[worst] <= WORTH_A_WARNING else ""
    certain = bool(forms) and distance[worst] <= NO_DIFFERENCE and bool((header["pixdim"][1:4][: len(shape)] > 0).all())
    return NiftiPlace(affine, form, contradiction if forms else "it has neither sform nor qform", certain)


def report_place(place: NiftiPlace, name: str) -> None:
    """Log contradictions of a header, in one line, for the image of this name."""
    if place.contradiction:
        taken = "its middle is taken for the origin" if place.form == "none" else f"the {place.form} counts"
        logger.warning(
            "%s is placed differently by different programs: %s; here %s, as in nibabel, and fields for ITK, ANTs and "
            "3D Slicer follow what those take.",
            name,
            place.contradiction,
            taken,
        )


def tell_corrected(file: Path, name: str) -> None:
    """Log that dcm2niix has written a corrected file beside this one, whose voxels are not where its header says.

    Of a series with a tilted gantry or uneven slices it writes ``NAME.nii`` as if there were none, and then
    ``NAME_Tilt_1.nii`` or ``NAME_Eq_1.nii``.
    """
    stem, dot, _ = file.name.partition(".nii")
    for ending, what in CORRECTED.items():
        for other in (f"{stem}{ending}.nii", f"{stem}{ending}.nii.gz"):
            if dot and (file.parent / other).is_file():
                logger.warning("%s lies beside '%s', the same scan %s; register that one.", name, other, what)


def _forms(header: nib.Nifti1Header) -> dict[str, Array]:
    """The matrices whose codes are above 0, the one that counts first, in the header's unit."""
    forms = {}
    if header["sform_code"] > 0:
        forms["sform"] = np.asarray(header.get_sform(), np.float64)
    if header["qform_code"] > 0:
        try:
            forms["qform"] = np.asarray(header.get_qform(), np.float64)
        except Exception:  # nibabel raises several kinds on a rotation that is none
            if not forms:
                raise
    if len(forms) == 2 and not abs(np.linalg.det(forms["sform"])) > 0:  # left empty, which is no position
        del forms["sform"]
    return forms


def _with_edges(affine: Array, header: nib.Nifti1Header, d: int) -> Array:
    """The matrix with columns as long as ``pixdim`` states; where it states nothing, as they are."""
    lengths, edges = np.linalg.norm(affine[:3, :3], axis=0), np.array(header["pixdim"][1:4], np.float64)
    stated = np.isfinite(edges) & (edges > 0) & (lengths > 0) & (np.arange(3) < d)
    scaled: Array = affine.copy()
    scaled[:3, :3] *= np.divide(edges, lengths, out=np.ones(3), where=stated)
    return scaled


def _contradiction(header: nib.Nifti1Header, forms: dict[str, Array], other: str) -> str:
    """Contradictions of a header, as text."""
    if other == "pixdim":
        edges = " x ".join(f"{edge:g}" for edge in header["pixdim"][1:4])
        lengths = " x ".join(f"{length:g}" for length in np.linalg.norm(forms["sform"][:3, :3], axis=0))
        return f"its voxels are {edges} by pixdim and {lengths} by the sform"
    positions = (f"{name} (code {int(header[f'{name}_code'])}) {_shown(matrix)}" for name, matrix in forms.items())
    return " and ".join(positions)


def _shown(affine: Array) -> str:
    """The upper rows of a matrix, on one line."""
    return str([[round(float(entry), 4) for entry in row] for row in affine[:3]])

"""Report of a series: what was found of each phase, over time, gathered from the folders of the phases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_regplugins.figures.png import png_of
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.io.result_folder import check_result, write_result
from monai_regplugins.outputs.report import RegistrationReport
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.phases import Phase
from monai_regplugins.series.frame_table import curves_of, frame_table
from monai_regplugins.series.motion import AXES, curves_figure, motion_csv, read_motion
from monai_regplugins.series.phases import PhaseSeries
from monai_regplugins.series.registration import remove_fields

__all__ = ["FILES", "SeriesReport", "mean_image"]

FILES = ("phases.csv", "phases.png", "motion.csv", "motion.png", "mean.nii.gz")


class SeriesReport(RegistrationReport):
    """The report of pairs, and beside it what belongs to the series.

    * ``phases.csv`` and ``phases.png``: verdict and measures of each phase, in the order of time;
    * ``motion.csv`` and ``motion.png``: displacement of labels and points over the phases, see
      :func:`~monai_regplugins.series.motion.motion_of`;
    * ``mean.nii.gz``: mean of the reference and of all phases brought onto it.

    All is made of the folders of the phases, one after the other, so that the memory does not grow with their number.

    Args:
        output_dir: folder of the phases' folders.
        series: the phases.
        title: heading of the page.
    """

    def __init__(self, output_dir: str | Path, series: PhaseSeries, title: str = "Series") -> None:
        super().__init__(output_dir, title)
        self.series = series

    def check(self) -> None:
        """Check that the files may be written.

        Raises:
            InputError: When there is a file of their names that the program has not made.
        """
        super().check()
        for name in FILES:
            check_result(self.output_dir / name)

    def __call__(self, pair_ids: Sequence[str], failed: Mapping[str, str] | None = None) -> None:
        """Write all files.

        Args:
            pair_ids: names of the folders to look at.
            failed: pairs that have no result, and why.

        Raises:
            InputError: When a file cannot be written.
        """
        super().__call__(pair_ids, failed)
        by_phase = {self.series.places[name]: name for name in pair_ids}
        names, reference = self.series.names, self.series.reference
        folders = [self.output_dir / by_phase.get(number, ".none") for number in range(len(names))]
        rows = [_measures(folder) for folder in folders]
        self._put("phases.csv", frame_table(names, reference, rows).encode())
        if panels := curves_of(rows):
            self._put("phases.png", png_of(curves_figure(names, panels)))
        moved = [None if number == reference else folder for number, folder in enumerate(folders)]
        curves = read_motion(moved)
        self._put("motion.csv", motion_csv(names, curves).encode())
        d = next((curve.shape[1] for curve in curves.values()), 0)
        panels = {
            f"to the {AXES[k]} [mm]": {name: curve[:, k].tolist() for name, curve in curves.items()} for k in range(d)
        }
        if panels:
            self._put("motion.png", png_of(curves_figure(names, panels)))
        done = [folder / "warped.nii.gz" for folder in folders if (folder / "warped.nii.gz").is_file()]
        mean, affine = mean_image(self.series.pairs[0], done)
        image = nib.Nifti1Image(mean, affine)
        image.set_qform(affine, code="aligned")
        self._put("mean.nii.gz", partial(write_nifti, image))
        if not failed:
            remove_fields(self.output_dir)

    def _put(self, name: str, content: Any) -> None:
        """Write one of the files."""
        write_result(self.output_dir / name, content)


def mean_image(
    pair: Mapping[str, str], warped: Sequence[Path]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Mean of the fixed image of a pair and of images that were brought onto it, read one after the other.

    Args:
        pair: with ``fixed`` and, of an image with several volumes, ``fixed_phase``.
        warped: NIfTI files on the fixed grid.

    Returns:
        The values and the matrix from voxels to mm.
    """
    phase = Phase(pair.get("fixed_phase", ""), "fixed_phase")
    scan = read_scan(pair["fixed"], "fixed image", phase=phase)
    total = np.asarray(scan.values, dtype=np.float64)
    for file in warped:
        total += np.asanyarray(nib.Nifti1Image.from_filename(file).dataobj).reshape(total.shape)
    return (total / (1 + len(warped))).astype(np.float32), np.asarray(scan.affine)


def _measures(folder: Path) -> dict[str, Any]:
    """What the folder of a phase states, nothing if there is no result."""
    file = folder / "metrics.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content

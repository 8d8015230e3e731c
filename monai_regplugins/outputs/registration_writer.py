"""Write the results of an inference, one folder per pair, atomically."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from ignite.engine import Events
from monai.data import MetaTensor
from monai.utils import ensure_tuple

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.figures.pair import PANELS, panels_of
from monai_regplugins.figures.png import png_of
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.field_grid import check_plane
from monai_regplugins.io.formats import (
    FORMATS,
    FieldPair,
    output_name,
    write_field,
)
from monai_regplugins.io.linear_transform import ALIGNMENT_FILE, write_linear_transform
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.io.result_folder import ResultFolder
from monai_regplugins.readers.dicom_series import series_of
from monai_regplugins.readers.itk_world import itk_world_of
from monai_regplugins.readers.patients import patients_differ
from monai_regplugins.result import Part, RegistrationResult

__all__ = ["RegistrationWriter", "write_image"]

logger = logging.getLogger(__name__)

ALL = "all"
DPI = 90  # of the figure; a fifth of the time of a tiny pair is that of its pixels
LOGGED_AT = {"PASS": logging.INFO, "WARN": logging.WARNING, "FAIL": logging.ERROR}


class RegistrationWriter:
    """Write a folder per pair: warped image and label, displacement field, measures, picture and provenance.

    ``<output_dir>/<pair_id>/`` holds

    * ``warped.nii.gz`` and, with a moving label, ``warped_label.nii.gz``: one sampling of the original moving data on
      the fixed grid;
    * the total field from the fixed image to the original moving image, initial alignment included, in each of the
      wanted formats, see :data:`~monai_regplugins.io.FORMATS`, and on request that of the inverse on the moving grid,
      which is named ``inverse_...``;
    * ``initial_alignment.tfm``, where there was one: ITK's affine transform from the fixed to the moving world, which
      the total field holds already;
    * ``fixed_points_in_moving.csv``, where there are fixed points: voxels of the moving image, comma-separated;
    * ``uncertainty.nii.gz``, where the inferer estimates it: standard deviation of the displacement in mm on the fixed
      grid, see :attr:`~monai_regplugins.result.RegistrationResult.uncertainty`;
    * ``metrics.json``: ``verdict`` and its ``reasons``, see :class:`~monai_regplugins.verdict.judge.Verdict`, and
      :attr:`~monai_regplugins.result.RegistrationResult.metrics`, null where undefined, with an inverse also
      :attr:`~monai_regplugins.result.RegistrationResult.inverse_metrics`; and ``registration.png``;
    * ``provenance.json``: inputs, weights, configuration, versions, seconds, and the files of the folder.

    The folder is written atomically. An existing folder is only updated if its ``provenance.json`` lists the same
    images; the files that it lists are replaced, all others are kept.

    Args:
        output_dir: parent folder of the results; created if missing.
        formats: file formats of the field: a name, several, or ``all`` that support it; by default ``itk_nifti``, in 2D
            ``native``.
        inverse: write the inverse fields too.
        provenance: describes weights and configuration.
        parts: additional writers, called with result and folder.

    Raises:
        InputError: When there is no such format.
    """

    def __init__(
        self,
        output_dir: str | Path,
        formats: str | Sequence[str] = (),
        inverse: bool = False,
        provenance: Provenance | None = None,
        parts: Sequence[Part] = (),
    ) -> None:
        self.output_dir, self.inverse, self.parts = Path(output_dir), inverse, tuple(parts)
        self.formats = ensure_tuple(formats) if formats else ()
        for format in self.formats:
            check_choice(format, (*FORMATS, ALL), "format")
        self.provenance = provenance or Provenance()
        self._start = time.perf_counter()

    def attach(self, engine: Any) -> None:
        """Write after each batch of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write the pairs of the batch that has just been registered.

        Raises:
            InputError: As :meth:`write`.
        """
        seconds = time.perf_counter() - self._start
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            with self.folder(item).claimed(wait=True):
                self.write(RegistrationResult(item, output, seconds=seconds))

    def _begin(self, engine: Any) -> None:
        self._start = time.perf_counter()

    def check(self, pairs: Iterable[Mapping[str, Any]]) -> None:
        """Check that the results of all pairs may be written, before any is registered.

        Args:
            pairs: as they were given.

        Raises:
            InputError: When a folder of results is there that is none of the same images, or holds an input.
        """
        for pair in pairs:
            folder = self.folder(pair)
            if os.path.lexists(folder.path):  # nothing lies in a folder that is not there
                folder.check(self.provenance.describe(pair)["inputs"])

    def folder(self, pair: Mapping[str, Any]) -> ResultFolder:
        """Return the folder of a pair's results."""
        return ResultFolder(self.output_dir, pair["pair_id"])

    def write(
        self,
        result: RegistrationResult,
        record: Mapping[str, Any] | None = None,
        output_dir: Path | None = None,
        parts: Sequence[Part] = (),
    ) -> Path:
        """Write the folder of a pair, which has to be claimed.

        Args:
            result: the registered pair.
            record: what :class:`~monai_regplugins.io.Provenance` said of the pair when it was read; by default what it
                says now.
            output_dir: where the folder goes, if elsewhere.
            parts: additional writers for this result alone.

        Returns:
            The folder.

        Raises:
            InputError: When the folder holds other things than a result of the same images, or the files cannot be
                written; an earlier result is unchanged then.
        """
        known = record or self.provenance.describe(result.given or self._in_memory(result))
        folder = ResultFolder(output_dir or self.output_dir, result.pair_id)
        record = {**known, **_other_patient(result), **_initial_alignment(result), "seconds": round(result.seconds, 3)}

        def write(place: Path) -> None:
            self._write(place, result)
            for part in parts:
                part(result, place)

        folder.write(record, write)
        logger.info("Wrote %s", folder.path)
        return folder.path

    @staticmethod
    def _in_memory(result: RegistrationResult) -> dict[str, Any]:
        """The images of a result whose files are unknown."""
        return {"fixed": result.fixed, "moving": result.moving, "pair_id": result.pair_id}

    def _write(self, folder: Path, result: RegistrationResult) -> None:
        """Write all files of one pair into a new folder."""
        write_image(result.warped, folder / "warped.nii.gz")
        if result.warped_label is not None:
            write_image(result.warped_label, folder / "warped_label.nii.gz")
        if result.uncertainty is not None:
            write_image(result.uncertainty, folder / "uncertainty.nii.gz")
        self.write_fields(folder, result)
        _write_alignment(folder, result)
        if result.fixed_points_in_moving is not None:
            path = folder / "fixed_points_in_moving.csv"
            np.savetxt(path, result.fixed_points_in_moving.numpy(), fmt="%.6f", delimiter=",")
        values = {**result.metrics, **(self._of_inverse(result) if self.inverse else {})}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        measures = json.dumps({**result.verdict.as_json(), **finite}, indent=2)
        (folder / "metrics.json").write_text(measures, encoding="utf-8")
        said = "; ".join([str(result.verdict), *_progress(result.metrics)])
        logger.log(LOGGED_AT[result.verdict.level], "%s: %s", result.pair_id, said)
        figure = result.figure
        content = png_of(figure, DPI, {PANELS: json.dumps(panels_of(figure))})
        (folder / "registration.png").write_bytes(content)
        for write in self.parts:
            write(result, folder)

    @staticmethod
    def _of_inverse(result: RegistrationResult) -> dict[str, float]:
        """How exact the inverse is; a line of the log where it is not."""
        found = result.inverse_metrics
        if found["inverse_failed_percent"] > 0:
            logger.warning(
                "%s: the field has no inverse at %.2g %% of the moving voxels, by up to %.2g voxels: it folds there",
                result.pair_id,
                found["inverse_failed_percent"],
                found["inverse_residual_max"],
            )
        return found

    def write_fields(self, folder: Path, result: RegistrationResult) -> None:
        """Write the field, and the inverse one if it is wanted, in all formats, straight into a folder.

        Raises:
            InputError: When a format cannot hold the field.
        """
        fixed, moving = result.displacement, result.moving
        names = {side: result.given.get(side) for side in ("fixed", "moving")}
        dicom = {"fixed": _identity(result.fixed), "moving": _identity(moving)}
        worlds = itk_world_of(result.fixed), itk_world_of(moving)
        grid = moving.affine.numpy(), moving.shape[1:]
        there = FieldPair(names["fixed"], names["moving"], *grid, dicom["fixed"], dicom["moving"], *worlds)
        self._write_formats(folder, fixed, there)
        if self.inverse:
            grid = fixed.affine.numpy(), fixed.shape[1:]
            back = FieldPair(names["moving"], names["fixed"], *grid, dicom["moving"], dicom["fixed"], *worlds[::-1])
            self._write_formats(folder, result.inverse_displacement, back, "inverse_")

    def _write_formats(self, folder: Path, displacement: MetaTensor, about: FieldPair, prefix: str = "") -> None:
        """Write a field in the wanted formats; if all are wanted, in those that can hold it."""
        values: npt.NDArray[Any] = displacement.as_tensor().numpy()
        formats = self.formats or (("itk_nifti",) if values.ndim == 4 else ("native",))
        for format in FORMATS if formats == (ALL,) else formats:
            name = output_name(format, about)
            named = format == "learn2reg" and not (folder / name).exists()  # its names state the direction
            path = folder / (name if named else f"{prefix}{name}")
            try:
                write_field(format, values, displacement.affine.numpy(), path, about)
            except InputError as error:
                if formats != (ALL,):
                    raise
                logger.info("%s is left out: %s", path.name, error)


def _progress(metrics: Mapping[str, float]) -> list[str]:
    """What overlap of labels and error of landmarks were before, after the initial alignment, if any, and are."""
    said = []
    for name, title, digits in (("dsc", "Dice", 3), ("tre", "TRE (mm)", 2)):
        states = {"before": f"{name}_before", "aligned": f"{name}_aligned", "registered": name}
        values = {state: metrics.get(key, math.nan) for state, key in states.items()}
        words = [f"{state} {value:.{digits}f}" for state, value in values.items() if math.isfinite(value)]
        said += [f"{title} {' -> '.join(words)}"] if math.isfinite(values["registered"]) else []
    return said


def _identity(image: MetaTensor) -> DicomIdentity | None:
    """The DICOM series of an image, if any."""
    series = series_of(image)
    return None if series is None else DicomIdentity.from_keywords(series)


def _other_patient(result: RegistrationResult) -> dict[str, str]:
    """What shows that the images are of two patients, if something does, for the provenance."""
    differences = patients_differ(series_of(result.fixed), series_of(result.moving))
    return {"other_patient": differences} if differences else {}


def _initial_alignment(result: RegistrationResult) -> dict[str, Any]:
    """The initial alignment for the provenance: its kind, and unless that is none its matrix, fixed to moving world."""
    kind, matrix = result.initial_alignment, result.item["initial_alignment_matrix"]
    return {"initial_alignment_taken": kind, **({"initial_alignment": matrix.tolist()} if result.is_aligned else {})}


def _write_alignment(folder: Path, result: RegistrationResult) -> None:
    """Write the initial alignment, if one was made, where ITK has a world for it."""
    if not result.is_aligned:
        return
    try:
        check_plane(result.fixed.affine.numpy(), result.fixed.ndim - 1)
    except InputError:
        logger.info("%s is left out: ITK has no 2D world for slices that are not axial.", ALIGNMENT_FILE)
        return
    worlds = itk_world_of(result.fixed), itk_world_of(result.moving)
    write_linear_transform(result.item["initial_alignment_matrix"].numpy(), folder / ALIGNMENT_FILE, *worlds)


def write_image(image: MetaTensor, path: Path) -> None:
    """Save ``(1, *spatial)`` as NIfTI, its values and affine as they are, as sform and qform, for readers of either."""
    values = image.as_tensor().numpy()[0]
    saved = nib.Nifti1Image(values, image.affine.numpy(), dtype=values.dtype)  # int64 has to be asked for
    saved.set_qform(saved.affine, code="aligned")
    saved.header.set_xyzt_units("mm")
    write_nifti(saved, path)

"""Results of an inference as files: each pair's folder, written whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from ignite.engine import Events
from monai.data import MetaTensor
from monai.utils import ensure_tuple

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.handlers.figure import draw_pair
from monai_regplugins.handlers.registration_metrics import measure_pair
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.forms import FORMS, FieldPair, output_name, write_field
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.transforms.dicom_series import series_of
from monai_regplugins.transforms.total import WarpOriginald, inverse_displacement, map_to_moving

__all__ = ["RegistrationWriter"]

logger = logging.getLogger(__name__)

PROVENANCE = "provenance.json"
ALL = "all"


class RegistrationWriter:
    """Write a folder per pair: warped image and label, displacement field, measures, picture and provenance.

    ``<output_dir>/<pair_id>/`` holds

    * ``warped.nii.gz`` and, with a moving label, ``warped_label.nii.gz``: one sampling of the original moving data on
      the fixed grid;
    * the total field from the fixed image to the original moving image, pre-alignment included, in each of the wanted
      forms, see :data:`~monai_regplugins.io.FORMS`, and on request that of the inverse on the moving grid, which is
      named ``inverse_...``;
    * ``fixed_points_in_moving.csv``, where there are fixed points: voxels of the moving image, comma-separated;
    * ``uncertainty.nii.gz``, where the inferer tells it: standard deviation of the displacement in voxels;
    * ``metrics.json``, the measures of :func:`~monai_regplugins.metrics.pair_metrics`, and ``registration.png``;
    * ``provenance.json``: files, weights, parameters, versions and seconds.

    The folder appears when it is complete, and replaces that of an earlier run.

    Needs pairs prepared with ``MovingToFixedGridd(keep_original=True)``.

    Args:
        output_dir: where the folders go; it is made.
        forms: of the field, a name, several, or ``all`` that can hold it; by default ``itk_nifti``, in 2D ``native``.
        inverse: write the inverse fields too.
        surface: measure surface distances too, by far the slowest measures.
        provenance: describes weights and parameters.
        pairs: the pairs as they were given, with their files, for the provenance.

    Raises:
        InputError: When there is no such form.
    """

    def __init__(
        self,
        output_dir: str | Path,
        forms: str | Sequence[str] = (),
        inverse: bool = False,
        surface: bool = True,
        provenance: Provenance | None = None,
        pairs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.forms = ensure_tuple(forms) if forms else ()
        for form in self.forms:
            check_choice(form, (*FORMS, ALL), "form")
        self.inverse, self.surface = inverse, surface
        self.provenance = provenance or Provenance()
        self._given = {pair["pair_id"]: pair for pair in pairs}
        self._warp = WarpOriginald()
        self._start = time.perf_counter()

    def attach(self, engine: Any) -> None:
        """Write after each batch of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def is_done(self, pair: Mapping[str, Any]) -> bool:
        """Whether there are results of the same files, weights and parameters.

        Args:
            pair: as it was given.
        """
        try:
            told = json.loads((self.output_dir / pair["pair_id"] / PROVENANCE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(told.get("fingerprint") == self.provenance.describe(pair)["fingerprint"])

    def __call__(self, engine: Any) -> None:
        """Write the pairs of the batch that has just been registered.

        Raises:
            InputError: When the files cannot be written; an earlier result of the pair is unchanged then.
        """
        elapsed = time.perf_counter() - self._start
        seconds = getattr(engine.state, "seconds", elapsed)  # what is written later than registered tells it
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            pair = self._warp({**item, "ddf": output["pred"]["ddf"].cpu()})
            folder = self.output_dir / item["pair_id"]
            told = self.provenance.describe(self._given.get(item["pair_id"], {})) | {"seconds": round(seconds, 3)}
            try:
                self.output_dir.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=self.output_dir) as workshop:
                    self._write(Path(workshop) / "new", pair, item, output)
                    (Path(workshop) / "new" / PROVENANCE).write_text(json.dumps(told, indent=2), encoding="utf-8")
                    _replace(folder, Path(workshop))
            except OSError as error:
                raise InputError(
                    f"cannot write '{folder}' ({error.strerror or error}); free some space or give another output_dir."
                ) from error
            logger.info("Wrote %s", folder)

    def _begin(self, engine: Any) -> None:
        self._start = time.perf_counter()

    def _write(self, folder: Path, pair: Mapping[Any, Any], item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Write all files of one pair into a new folder."""
        folder.mkdir()
        _save(pair["warped"], folder / "warped.nii.gz")
        if "warped_label" in pair:
            _save(pair["warped_label"], folder / "warped_label.nii.gz")
        if (uncertainty := output["pred"].get("uncertainty")) is not None:
            _save(MetaTensor(uncertainty.cpu(), affine=pair["warped"].affine), folder / "uncertainty.nii.gz")
        self._write_fields(folder, pair)
        _write_points(folder / "fixed_points_in_moving.csv", pair)
        values = measure_pair(output, surface=self.surface)
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        (folder / "metrics.json").write_text(json.dumps(finite, indent=2), encoding="utf-8")
        draw_pair(item, output).savefig(folder / "registration.png")

    def _write_fields(self, folder: Path, pair: Mapping[Any, Any]) -> None:
        """Write the field, and the inverse one, in all forms."""
        displacement, moving = pair["displacement"], pair["moving_original"]
        given = self._given.get(pair["pair_id"], {})
        fixed_affine, moving_affine = displacement.affine.numpy(), moving.affine.numpy()
        about = FieldPair(
            given.get("fixed"),
            given.get("moving"),
            moving_affine,
            moving.shape[1:],
            _identity(pair["fixed"]),
            _identity(moving),
        )
        self._write_forms(folder, displacement.as_tensor().numpy(), fixed_affine, about)
        if self.inverse:
            inverse = inverse_displacement(
                pair["ddf"], pair["fixed"].affine, moving.affine, moving.shape[1:], pair["prealign_matrix"]
            )
            back = FieldPair(
                about.moving_name,
                about.fixed_name,
                fixed_affine,
                displacement.shape[1:],
                about.moving_dicom,
                about.fixed_dicom,
            )
            self._write_forms(folder, inverse.numpy(), moving_affine, back)

    def _write_forms(
        self, folder: Path, displacement: npt.NDArray[Any], affine: npt.NDArray[Any], about: FieldPair
    ) -> None:
        """Write a field in the wanted forms; if all are wanted, in those that can hold it."""
        forms = self.forms or (("itk_nifti",) if displacement.ndim == 4 else ("native",))
        for form in FORMS if forms == (ALL,) else forms:
            name = output_name(form, about)
            path = folder / (f"inverse_{name}" if (folder / name).exists() else name)  # Learn2Reg's names tell it
            try:
                write_field(form, displacement, affine, path, about)
            except InputError as error:
                if forms != (ALL,):
                    raise
                logger.info("%s is left out: %s", path.name, error)


def _replace(folder: Path, workshop: Path) -> None:
    """Put ``new`` of the workshop in the place of ``folder``, or leave ``folder`` as it was."""
    new, old = workshop / "new", workshop / "old"
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _identity(image: MetaTensor) -> DicomIdentity | None:
    """The DICOM series that an image was read from, if it was."""
    series = series_of(image)
    return None if series is None else DicomIdentity.from_keywords(series)


def _write_points(path: Path, pair: Mapping[Any, Any]) -> None:
    """Write where the fixed image's points are in the moving image, if it has any."""
    points = pair.get("fixed_landmarks", pair.get("fixed_keypoints"))
    if points is not None:
        moved = map_to_moving(points, pair["displacement"], pair["fixed"].affine, pair["moving_original"].affine)
        np.savetxt(path, moved.numpy(), fmt="%.6f", delimiter=",")


def _save(image: MetaTensor, path: Path) -> None:
    """Save (1, *spatial) as NIfTI, its values and affine as they are."""
    values = np.asarray(image.as_tensor().numpy()[0])
    nib.save(nib.Nifti1Image(values, image.affine.numpy()), path)

"""Check of DICOM pairs: same patient, and a result that can be written as DICOM."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import Transform
from monai.utils import ensure_tuple

from monai_regplugins.checks import InputError
from monai_regplugins.io.dicom_identity import DicomIdentity
from monai_regplugins.io.dicom_registration import FrameOfReferenceError, check_dicom_registration
from monai_regplugins.keys import IMAGE_KEYS
from monai_regplugins.readers.dicom_series import series_of
from monai_regplugins.readers.patients import patients_differ

__all__ = ["CheckSeriesPaird"]

logger = logging.getLogger(__name__)


class CheckSeriesPaird(Transform):
    """Reject a pair of two patients, or a pair whose field cannot be written in the requested formats.

    Images that are no DICOM series have no patient. The pair itself stays as it is.

    Args:
        other_patient: allow a moving image of another patient, such as an atlas; the log then reports it.
        formats: in which the field will be written, of :data:`~monai_regplugins.io.FORMATS`. With ``dicom``, pydicom
            has to be there, and the fixed series' texts have to be readable. A series without a frame of reference is
            no reason: the other results can be written.
    """

    def __init__(self, other_patient: bool = False, formats: str | Sequence[str] = ()) -> None:
        self.other_patient = other_patient
        self.formats = ensure_tuple(formats)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check a pair.

        Args:
            data: a loaded pair, see :class:`~monai_regplugins.transforms.LoadPaird`.

        Raises:
            InputError: When the images are of two patients and may not be, or the field could not be written.
        """
        pair: dict[Hashable, Any] = dict(data)
        series = {key: series_of(pair[key]) for key in IMAGE_KEYS}
        self._check_patients(series)
        if "dicom" in self.formats:
            known = {
                key: None if texts is None else DicomIdentity.from_keywords(texts) for key, texts in series.items()
            }
            with contextlib.suppress(FrameOfReferenceError):  # the field is written in another format then
                check_dicom_registration(**known)
        return pair

    def _check_patients(self, series: Mapping[str, Mapping[str, str] | None]) -> None:
        """Compare the patients of both images."""
        differing = patients_differ(series["fixed"], series["moving"])
        if not differing:
            return
        found = f"fixed and moving image are of two patients by their {differing}"
        if not self.other_patient:
            raise InputError(
                f"{found}, expected one; give the right images, or set other_patient=True if that is meant, as with an "
                "atlas."
            )
        logger.warning("%s, which other_patient allows", found)

"""Preparation of a pair for a network: one transform for training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import Transform
from torch import Tensor

from monai_regplugins.data.dicom_pair import CheckSeriesPaird
from monai_regplugins.keys import IMAGE_KEYS, MASK_KEYS, PHASE_KEYS
from monai_regplugins.transforms.load import COMPANIONS, LoadPaird
from monai_regplugins.transforms.pair_log import of_pair, unreported
from monai_regplugins.transforms.prepare import ResampleToFixedd

__all__ = ["PreparePaird"]

MOST_KEPT = 2**14  # initial alignments, of about a KiB with the names of their files
MATRIX = "initial_alignment_matrix"

Step = Callable[[Mapping[Hashable, Any]], Mapping[Hashable, Any]]
Files = tuple[str | None, ...]


class PreparePaird(Transform):
    """Load a pair, resample the moving image onto the fixed grid, and scale the intensities of both images.

    The steps, in :attr:`transforms`, are :class:`~monai_regplugins.transforms.LoadPaird`,
    :class:`~monai_regplugins.data.CheckSeriesPaird`, :class:`~monai_regplugins.transforms.ResampleToFixedd` and
    ``scaling``. A training, which does not ``keep_original``, prepares each pair in each epoch: what was done to it is
    not reported in the log then, and initial alignments are kept.

    Args:
        scaling: transform of a pair that scales its intensities.
        spatial_dims: number of spatial dimensions.
        companions: what is loaded beside the images, see ``LoadPaird``.
        other_patient: whether two DICOM series may be of two patients.
        formats: file formats of the field, which a DICOM series has to allow.
        points_space: what the numbers in files of points are, see ``LoadPaird``.
        check: called with the loaded pair, to refuse it before any work.
        keep_alignments: keep the initial alignment of two files, which are taken to stay as they are, in memory, of the
            last ``MOST_KEPT`` pairs; by default unless ``keep_original``. The validations of a training want it, too.
            The processes of a loader with ``num_workers`` keep them for an epoch.
        **resampling: arguments of ``ResampleToFixedd``, such as ``initial_alignment`` and ``extend_border``.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> from monai_regplugins.transforms import ScalePaird
        >>> pair = {key: MetaTensor(torch.arange(64.0).reshape(8, 8)) for key in ("moving", "fixed")}
        >>> prepared = PreparePaird(ScalePaird(), spatial_dims=2)(pair)
        >>> prepared["fixed"].shape, float(prepared["fixed"].max())
        (torch.Size([1, 8, 8]), 1.0)
    """

    def __init__(
        self,
        scaling: Step,
        spatial_dims: int = 3,
        companions: Sequence[str] = COMPANIONS,
        other_patient: bool = True,
        formats: str | Sequence[str] = (),
        points_space: str | None = None,
        check: Callable[[Mapping[Hashable, Any]], object] | None = None,
        keep_alignments: bool | None = None,
        **resampling: Any,
    ) -> None:
        steps: list[Step] = [
            LoadPaird(spatial_dims, companions, points_space=points_space),
            CheckSeriesPaird(other_patient, formats),
            ResampleToFixedd(**resampling),
            scaling,
        ]
        self.transforms, self.check = tuple(steps), check
        self.reported = bool(resampling.get("keep_original", False))
        self.keep_alignments = not self.reported if keep_alignments is None else keep_alignments
        self._alignments: dict[Files, Tensor] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """Prepare a pair.

        Args:
            data: paths, arrays or tensors under ``moving`` and ``fixed``, and companions, see ``LoadPaird``.

        Raises:
            InputError: When a file, a pair or an image is not what a step expects.
        """
        files = _files_of(data) if self.keep_alignments else None
        if files in self._alignments:
            data = {**data, MATRIX: self._alignments[files]}
        with unreported(not self.reported), of_pair(str(data.get("pair_id", ""))):
            for number, step in enumerate(self.transforms):
                data = step(data)
                if number == 0 and self.check is not None:
                    self.check(data)
        if files is not None:
            self._keep(files, data[MATRIX])
        return data

    def _keep(self, files: Files, matrix: Tensor) -> None:
        """Keep the initial alignment of two files, in the place of the oldest one if there are enough."""
        if files not in self._alignments and len(self._alignments) >= MOST_KEPT:
            self._alignments.pop(next(iter(self._alignments)))
        self._alignments[files] = matrix


def _files_of(data: Mapping[Hashable, Any]) -> Files | None:
    """Return the files that the initial alignment of a pair depends on; None if its images are no files."""
    files = tuple(data.get(key) for key in (*IMAGE_KEYS, *MASK_KEYS, *PHASE_KEYS))
    return files if all(isinstance(file, str | None) for file in files) and None not in files[:2] else None

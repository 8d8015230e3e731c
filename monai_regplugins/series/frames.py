"""Pairs of a series: every frame with the fixed frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.phantoms.embedded import open_dataset
from monai_regplugins.readers.cine import (
    CineSeries,
    join_frames,
    read_cine,
    reference_frame,
    series_files,
)
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.phases import Phase
from monai_regplugins.series.phases import LISTS, listed_images

__all__ = ["chosen_frame", "given_series", "series_pairs"]


def given_series(
    path: str | Path, dataset_dir: str | Path, embedded: str | Path, phantom: str = "cine_lung"
) -> CineSeries:
    """Return the series of the given file or folder; with none given, the first one of the data set.

    Args:
        path: a 2D+t NIfTI file or a DICOM series, see :func:`read_cine`, or a list of images, one for each frame, see
            :func:`~monai_regplugins.series.phase_series`; empty for none.
        dataset_dir: data set that is used when no path is given.
        embedded: folder of the embedded phantom data set.
        phantom: which phantom that is, see :func:`open_dataset`.

    Raises:
        InputError: When the path cannot be read as a series, or there is none.
    """
    if os.fspath(path):
        return _listed_frames(path) if Path(path).suffix.lower() in LISTS else read_cine(path)
    if Path(dataset_dir).resolve() == Path(embedded).resolve():
        open_dataset(dataset_dir, embedded, phantom)
    return read_cine(series_files(dataset_dir)[0])


def _listed_frames(path: str | Path) -> CineSeries:
    """The frames of a list, each an image of its own."""
    images = [(one["image"], one.get("phase", "")) for one in listed_images(path, f"series '{path}'")]
    scans = [read_scan(image, "frame", 2, phase=Phase(phase, "phase")) for image, phase in images]
    return join_frames([(scan.values.numpy(), scan.affine.numpy()) for scan in scans], os.fspath(path))


def chosen_frame(series: CineSeries, fixed: int | None) -> int:
    """Return the number of the fixed frame: the given one, else :func:`reference_frame`.

    Raises:
        InputError: When there is no such frame.
    """
    if fixed is None:
        return reference_frame(series)
    if not 0 <= fixed < len(series.frames):
        raise InputError(
            f"fixed_frame is {fixed}, expected 0 to {len(series.frames) - 1}; '{series.source}' has "
            f"{len(series.frames)} frames."
        )
    return int(fixed)


def series_pairs(series: CineSeries, fixed: int) -> list[dict[str, Any]]:
    """All frames against one, as pairs that have been loaded.

    Args:
        series: the series.
        fixed: number of the fixed frame.

    Returns:
        for each frame a pair: ``moving`` and ``fixed``, :class:`~monai.data.MetaTensor` (1, H, W) where the header puts
        the slice, ``spacing`` (2,) in mm, ``frame``, its number, and ``pair_id``.
    """
    affine = torch.from_numpy(_plane(series))
    frames = [MetaTensor(torch.from_numpy(np.ascontiguousarray(frame))[None], affine=affine) for frame in series.frames]
    spacing = torch.tensor(series.spacing, dtype=torch.float32)
    return [
        {
            "moving": frame,
            "fixed": frames[fixed],
            "spacing": spacing,
            "frame": t,
            "pair_id": f"frame_{t:04d}_to_{fixed:04d}",
        }
        for t, frame in enumerate(frames)
    ]


def _plane(series: CineSeries) -> npt.NDArray[np.float64]:
    """The matrix from pixels of a frame to RAS mm, (4, 4), its third axis that across the slice."""
    across = 2 if series.slice_axis is None else series.slice_axis
    return series.affine[:, [*(axis for axis in range(3) if axis != across), across, 3]]

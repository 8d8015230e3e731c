"""Respiratory curve of a registered series, and the orientation of the patient in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.readers.cine import CineSeries

__all__ = ["head_axis", "plane_axes", "respiratory_curve"]

Array = npt.NDArray[Any]


def head_axis(series: CineSeries) -> tuple[int, int] | None:
    """Which axis of a frame runs along the patient, and in which direction.

    Returns:
        0 (H) or 1 (W), and 1 where it runs to the head, -1 where it runs to the feet; None where the header shows an
        axial slice, as it does when it states nothing.
    """
    upward = plane_axes(series)[2]
    axis = int(np.abs(upward).argmax())
    return None if abs(upward[axis]) < 0.5 else (axis, int(np.sign(upward[axis])))


def plane_axes(series: CineSeries) -> Array:
    """Unit directions (3, 2) of H and W in RAS."""
    axes = [axis for axis in range(3) if axis != (2 if series.slice_axis is None else series.slice_axis)]
    columns = series.affine[:3, axes]
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def respiratory_curve(
    ddf: npt.ArrayLike | torch.Tensor, series: CineSeries, mask: npt.ArrayLike | None = None
) -> Array:
    r"""Breathing over time: the mean displacement towards the feet in mm, ``c_t = mean_x s_k u_t,k(x)``.

    The field of frame t goes from the fixed frame to where its pixels are in frame t; inspiration is positive. Where
    the header does not state (:func:`head_axis`), rows run from head to feet.

    Args:
        ddf: displacement of each frame in pixels, (T, 2, H, W).
        series: the series that was registered.
        mask: pixels of the fixed frame that count, (H, W), such as those of the lung; all if None.

    Returns:
        float64 curve (T,), 0 for a frame that equals the fixed one.

    Raises:
        InputError: When the fields do not fit the series, or the mask is empty or does not fit.
    """
    fields = ddf.detach().cpu().numpy() if isinstance(ddf, torch.Tensor) else np.asarray(ddf)
    count, *shape = series.frames.shape
    if fields.shape != (count, 2, *shape):
        raise InputError(
            f"the fields have shape {fields.shape}, expected {(count, 2, *shape)} as '{series.source}'; give one "
            "field of two components for each frame."
        )
    chosen = np.ones(shape, dtype=bool) if mask is None else np.asarray(mask) > 0
    if list(chosen.shape) != shape or not chosen.any():
        raise InputError(
            f"the mask has shape {chosen.shape} and {int(chosen.sum())} pixels, expected shape {tuple(shape)} and at "
            "least one pixel; draw it on the fixed frame."
        )
    axis, direction = head_axis(series) or (0, -1)
    return np.asarray(-direction * series.spacing[axis] * fields[:, axis, chosen].mean(axis=1, dtype=np.float64))

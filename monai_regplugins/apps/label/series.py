"""Cine series: propagate the label of one frame to all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.readers.images import read_scan
from monai_regplugins.registration import Registration
from monai_regplugins.result import RegistrationResult
from monai_regplugins.series.frames import chosen_frame, series_pairs

__all__ = ["propagate_frames", "read_frames_label"]


def read_frames_label(path: str | Path, series: CineSeries, frame: int = -1) -> tuple[npt.NDArray[Any], int]:
    """Read the label that was drawn on one frame of a series.

    Args:
        path: label map of the shape of the series' file.
        series: the series.
        frame: number of the frame; -1 for the only one that has labels.

    Returns:
        Label of that frame, (H, W), int32, and its number.

    Raises:
        RequestError: When the label map has another shape, or it is not clear or not true that the frame has labels.
        InputError: When it cannot be read, or there is no such frame.
    """
    values = np.rint(read_scan(path, "label", exact=True).values.numpy()).astype(np.int32)
    if series.slice_axis is not None and values.ndim == 4:
        values = values.squeeze(series.slice_axis)
    shape = (*series.frames.shape[1:], len(series.frames))
    if values.shape != shape:
        raise RequestError(
            f"the label has shape {values.shape}, expected {shape} as the series, frames last; draw on it."
        )
    drawn = [int(number) for number in np.flatnonzero(values.any(axis=(0, 1)))]
    if not drawn:
        raise RequestError("the label of the series is empty, nothing to propagate; draw on one frame.")
    if frame < 0 and len(drawn) > 1:
        raise RequestError(
            f"frames {', '.join(map(str, drawn))} have labels; say by 'frame' which one is to be used. If this is a 3D "
            "image and no series of one slice over time, choose a model of 3D images."
        )
    number = drawn[0] if frame < 0 else chosen_frame(series, frame)
    if number not in drawn:
        raise RequestError(f"frame {number} has no label, frames {', '.join(map(str, drawn))} have; choose one.")
    return values[..., number], number


def propagate_frames(
    register: Registration, series: CineSeries, label: npt.NDArray[Any], frame: int
) -> tuple[npt.NDArray[Any], RegistrationResult]:
    """Register one frame to every other frame and propagate its label.

    Args:
        register: a bundle of 2D images.
        series: the series.
        label: label of that frame, (H, W), whole numbers.
        frame: number of the frame.

    Returns:
        Labels of all frames, (T, H, W), the given one unchanged, and the last pair.

    Raises:
        InputError: When a frame cannot be registered.
    """
    frames = [pair["moving"] for pair in series_pairs(series, frame)]
    moving_label = MetaTensor(torch.from_numpy(label.astype(np.float32))[None], affine=frames[frame].affine)
    carried = np.repeat(label[None], len(frames), axis=0)
    for number, fixed in enumerate(frames):
        if number != frame:
            registered = register(
                fixed, frames[frame], moving_label=moving_label, pair_id=f"frame_{frame:04d}_to_{number:04d}"
            )
            warped = registered.warped_label
            assert warped is not None  # since there is a moving label
            carried[number] = warped[0].numpy()
    return carried, registered

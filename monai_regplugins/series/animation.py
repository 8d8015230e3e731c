"""Animation of a series before and after registration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.series.respiration import head_axis, plane_axes

__all__ = ["animation_frames", "write_animation"]

Array = npt.NDArray[Any]

HEIGHT = 256  # pixels that a panel has at least
TITLE = 18  # height of the line of titles in pixels
FRAME_TIME = 0.15  # s, of a series without times


def animation_frames(series: CineSeries, aligned: CineSeries, fixed: int) -> Array:
    """Pictures of each frame: the fixed frame, the moving one, and the moving one warped, side by side.

    Moving and warped lie over the fixed frame: where both are alike they are gray, where the fixed frame is brighter
    green, where it is darker magenta. Head up and front to the left where the header states it.

    Args:
        series: the series as it was.
        aligned: the series warped to its fixed frame.
        fixed: number of the fixed frame.

    Returns:
        uint8 colors (T, height, width, 3), one gray window for all of them.

    Raises:
        InputError: When the series differ in shape or there is no such frame.
    """
    if series.frames.shape != aligned.frames.shape:
        raise InputError(
            f"the aligned series has shape {aligned.frames.shape}, expected {series.frames.shape} as "
            f"'{series.source}'; align this series."
        )
    if not 0 <= fixed < len(series.frames):
        raise InputError(f"fixed frame is {fixed}, expected 0 to {len(series.frames) - 1}; give one of the frames.")
    low, high = np.percentile(series.frames, (0.5, 99.5))
    scaled = np.clip((np.stack([series.frames, aligned.frames]) - low) / max(high - low, 1e-12), 0, 1)
    moving, warped = _upright(np.rint(255 * scaled).astype(np.uint8), series)
    target = np.broadcast_to(moving[fixed], moving.shape)
    colors = ((target,) * 3, (moving, target, moving), (warped, target, warped))
    panels = [np.stack(channels, axis=-1) for channels in colors]
    size = _panel_size(series)
    return np.stack([_picture(panel, size) for panel in zip(*panels, strict=True)])


def write_animation(series: CineSeries, aligned: CineSeries, fixed: int, path: str | Path) -> None:
    """Write an animated GIF of :func:`animation_frames`, in real time where the series has times; whole or not at all.

    Args:
        series: the series as it was.
        aligned: the series warped to its fixed frame.
        fixed: number of the fixed frame.
        path: the file, ``.gif``.

    Raises:
        InputError: When the series do not fit, the suffix is another one, or the file cannot be written.
    """
    if not str(path).lower().endswith(".gif"):
        raise InputError(f"'{path}' is no name of an animation, expected one that ends in .gif; change it.")
    pictures = [Image.fromarray(picture) for picture in animation_frames(series, aligned, fixed)]
    # a palette of its own for each picture; without dithering, which would double the size
    first, *rest = [p.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for p in pictures]
    interval = FRAME_TIME if series.times is None else float(np.diff(series.times).mean())
    duration = round(1000 * max(interval, 0.02))  # browsers slow down what is faster
    replace_file(
        Path(path),
        lambda temporary: first.save(temporary, save_all=True, append_images=rest, duration=duration, loop=0),
    )


def _upright(frames: Array, series: CineSeries) -> Array:
    """Frames (..., H, W) with the head on top, the front or the patient's right on the left; else as they are."""
    along = head_axis(series)
    if along is None:
        return frames
    axis, direction = along
    across = plane_axes(series)[:2, 1 - axis]
    if axis == 1:
        frames = frames.swapaxes(-1, -2)
    if direction > 0:
        frames = np.flip(frames, axis=-2)
    return np.flip(frames, axis=-1) if across[np.abs(across).argmax()] > 0 else frames


def _panel_size(series: CineSeries) -> tuple[int, int]:
    """Width and height of a panel in square pixels, enlarged by a whole factor."""
    extent = np.array(series.frames.shape[1:]) * np.array(series.spacing) / min(series.spacing)
    along = head_axis(series)
    height, width = extent[::-1] if along is not None and along[0] == 1 else extent
    factor = max(1, int(np.ceil(HEIGHT / height)))
    return round(float(factor * width)), round(float(factor * height))


def _picture(panels: Sequence[Array], size: tuple[int, int]) -> Array:
    """Panels (H, W, 3) side by side under their titles."""
    width, height = size
    picture = Image.new("RGB", (len(panels) * width, height + TITLE))
    draw = ImageDraw.Draw(picture)
    for number, (title, panel) in enumerate(zip(("fixed", "moving", "warped"), panels, strict=True)):
        picture.paste(Image.fromarray(panel).resize(size, Image.Resampling.BILINEAR), (number * width, TITLE))
        draw.text((number * width + 4, 3), title, fill=(255, 255, 255))
    return np.asarray(picture)

"""Time series: frames, the respiratory curve, animations, and their output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.series.animation import animation_frames, write_animation
    from monai_regplugins.series.frames import chosen_frame, given_series, series_pairs
    from monai_regplugins.series.respiration import respiratory_curve
    from monai_regplugins.series.writer import SeriesWriter, curve_figure

__all__ = [
    "SeriesWriter",
    "animation_frames",
    "chosen_frame",
    "curve_figure",
    "given_series",
    "respiratory_curve",
    "series_pairs",
    "write_animation",
]

export_on_demand(
    __name__,
    animation=["animation_frames", "write_animation"],
    frames=["chosen_frame", "given_series", "series_pairs"],
    respiration=["respiratory_curve"],
    writer=["SeriesWriter", "curve_figure"],
)

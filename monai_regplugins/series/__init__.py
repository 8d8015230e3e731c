"""Time series, 2D and 3D: frames and phases, curves of their motion, animations, and their output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.series.animation import animation_frames, write_animation
    from monai_regplugins.series.frames import chosen_frame, given_series, series_pairs
    from monai_regplugins.series.motion import motion_of, write_motion
    from monai_regplugins.series.phases import PhaseChain, PhaseSeries, phase_series
    from monai_regplugins.series.registration import BeginAtFieldd, SeriesRegistration
    from monai_regplugins.series.report import SeriesReport
    from monai_regplugins.series.respiration import respiratory_curve
    from monai_regplugins.series.writer import SeriesWriter, curve_figure

__all__ = [
    "BeginAtFieldd",
    "PhaseChain",
    "PhaseSeries",
    "SeriesRegistration",
    "SeriesReport",
    "SeriesWriter",
    "animation_frames",
    "chosen_frame",
    "curve_figure",
    "given_series",
    "motion_of",
    "phase_series",
    "respiratory_curve",
    "series_pairs",
    "write_animation",
    "write_motion",
]

export_on_demand(
    __name__,
    animation=["animation_frames", "write_animation"],
    frames=["chosen_frame", "given_series", "series_pairs"],
    motion=["motion_of", "write_motion"],
    phases=["PhaseChain", "PhaseSeries", "phase_series"],
    registration=["BeginAtFieldd", "SeriesRegistration"],
    report=["SeriesReport"],
    respiration=["respiratory_curve"],
    writer=["SeriesWriter", "curve_figure"],
)

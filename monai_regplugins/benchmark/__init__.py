"""Classical registration that the learned methods are compared with."""

from __future__ import annotations

from monai_regplugins.benchmark.bspline import SPACINGS, BSplineResult, control_points, register_bspline

__all__ = ["SPACINGS", "BSplineResult", "control_points", "register_bspline"]

"""Classical registration that the learned methods are compared with."""

from __future__ import annotations

from monai_regplugins.benchmark.bspline import SPACINGS, BSplineResult, control_points, register_bspline
from monai_regplugins.benchmark.elastix import ElastixResult, elastix_parameters, register_elastix

__all__ = [
    "SPACINGS",
    "BSplineResult",
    "ElastixResult",
    "control_points",
    "elastix_parameters",
    "register_bspline",
    "register_elastix",
]

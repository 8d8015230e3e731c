"""Comparison of the bundles with classical registration methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.benchmark.baselines import BASELINES, Baseline, load_baseline
    from monai_regplugins.benchmark.bspline import (
        SPACINGS,
        BSplineResult,
        control_points,
        register_bspline,
    )
    from monai_regplugins.benchmark.elastix import ElastixResult, elastix_parameters, register_elastix

__all__ = [
    "BASELINES",
    "SPACINGS",
    "BSplineResult",
    "Baseline",
    "ElastixResult",
    "control_points",
    "elastix_parameters",
    "load_baseline",
    "register_bspline",
    "register_elastix",
]

export_on_demand(
    __name__,
    bspline=["SPACINGS", "BSplineResult", "control_points", "register_bspline"],
    elastix=["ElastixResult", "elastix_parameters", "register_elastix"],
    baselines=["BASELINES", "Baseline", "load_baseline"],
)

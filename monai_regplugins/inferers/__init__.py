"""Inferers: how a network is applied to data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.inferers.dense import DenseInferer, predict_at_points
    from monai_regplugins.inferers.drivers import Drivers
    from monai_regplugins.inferers.pair import PairInferer
    from monai_regplugins.inferers.refine import RefinedInferer
    from monai_regplugins.inferers.sequence import SequenceInferer, StoppingRule
    from monai_regplugins.inferers.warm import WarmInferer

__all__ = [
    "DenseInferer",
    "Drivers",
    "PairInferer",
    "RefinedInferer",
    "SequenceInferer",
    "StoppingRule",
    "WarmInferer",
    "predict_at_points",
]

export_on_demand(
    __name__,
    dense=["DenseInferer", "predict_at_points"],
    drivers=["Drivers"],
    pair=["PairInferer"],
    refine=["RefinedInferer"],
    sequence=["SequenceInferer", "StoppingRule"],
    warm=["WarmInferer"],
)

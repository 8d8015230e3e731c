"""Losses for deformable registration: similarity, smoothness, synthetic supervision and their weighted sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.losses.deform import (
        EdgeAwareSmoothnessLoss,
        FoldingLoss,
        GradientLoss,
        IsotropicTVLoss,
        isotropic_tv,
    )
    from monai_regplugins.losses.instance import InstanceLoss
    from monai_regplugins.losses.label import LabelOverlapLoss
    from monai_regplugins.losses.sequence import SequenceMSELoss, masked_mse
    from monai_regplugins.losses.similarity import MaskedLNCCLoss, MaskedMSELoss
    from monai_regplugins.losses.synthetic import SyntheticFieldLoss
    from monai_regplugins.losses.weighted_sum import Term, WeightedSum

__all__ = [
    "EdgeAwareSmoothnessLoss",
    "FoldingLoss",
    "GradientLoss",
    "InstanceLoss",
    "IsotropicTVLoss",
    "LabelOverlapLoss",
    "MaskedLNCCLoss",
    "MaskedMSELoss",
    "SequenceMSELoss",
    "SyntheticFieldLoss",
    "Term",
    "WeightedSum",
    "isotropic_tv",
    "masked_mse",
]

export_on_demand(
    __name__,
    deform=["EdgeAwareSmoothnessLoss", "FoldingLoss", "GradientLoss", "IsotropicTVLoss", "isotropic_tv"],
    instance=["InstanceLoss"],
    label=["LabelOverlapLoss"],
    sequence=["SequenceMSELoss", "masked_mse"],
    similarity=["MaskedLNCCLoss", "MaskedMSELoss"],
    synthetic=["SyntheticFieldLoss"],
    weighted_sum=["Term", "WeightedSum"],
)

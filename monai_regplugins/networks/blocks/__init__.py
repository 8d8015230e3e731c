"""Building blocks, one file per box of a paper's figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_regplugins.lazy import export_on_demand

if TYPE_CHECKING:
    from monai_regplugins.networks.blocks.conv_gru import ConvGRU, GatedRegistrationUnit, RegistrationResidualBlock
    from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms
    from monai_regplugins.networks.blocks.parameter_net import ParameterNet
    from monai_regplugins.networks.blocks.position_net import Localization, PositionNet
    from monai_regplugins.networks.blocks.residual_aligner import AlignerHeads, AlignerRegressor, ResidualAligner
    from monai_regplugins.networks.blocks.residual_conv import ConvNorm, ResidualConvBlock
    from monai_regplugins.networks.blocks.sample_norm import SampleNorm

__all__ = [
    "AlignerHeads",
    "AlignerRegressor",
    "ConvGRU",
    "ConvNorm",
    "GatedRegistrationUnit",
    "LocalTransforms",
    "Localization",
    "ParameterNet",
    "PositionNet",
    "RegistrationResidualBlock",
    "ResidualAligner",
    "ResidualConvBlock",
    "SampleNorm",
]

export_on_demand(
    __name__,
    conv_gru=["ConvGRU", "GatedRegistrationUnit", "RegistrationResidualBlock"],
    local_gaussian=["LocalTransforms"],
    parameter_net=["ParameterNet"],
    position_net=["Localization", "PositionNet"],
    residual_aligner=["AlignerHeads", "AlignerRegressor", "ResidualAligner"],
    residual_conv=["ConvNorm", "ResidualConvBlock"],
    sample_norm=["SampleNorm"],
)

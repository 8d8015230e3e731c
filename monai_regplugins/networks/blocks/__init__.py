"""Building blocks, one file per box of a paper's figure."""

from monai_regplugins.networks.blocks.residual_aligner import AlignerHeads, AlignerRegressor, ResidualAligner
from monai_regplugins.networks.blocks.residual_conv import ConvNorm, ResidualConvBlock
from monai_regplugins.networks.blocks.sample_norm import SampleNorm

__all__ = ["AlignerHeads", "AlignerRegressor", "ConvNorm", "ResidualAligner", "ResidualConvBlock", "SampleNorm"]

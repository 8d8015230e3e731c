"""Inferers: how a network is applied to data."""

from monai_regplugins.inferers.dense import DenseInferer, predict_at_points
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.inferers.refine import RefinedInferer
from monai_regplugins.inferers.sequence import SequenceInferer, StoppingRule

__all__ = ["DenseInferer", "PairInferer", "RefinedInferer", "SequenceInferer", "StoppingRule", "predict_at_points"]

"""Inferers: how a network is applied to data."""

from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.inferers.sequence import SequenceInferer, StoppingRule

__all__ = ["PairInferer", "SequenceInferer", "StoppingRule"]

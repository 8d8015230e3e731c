"""Inferers: how a network is applied to data."""

from monai_regplugins.inferers.pair import PairInferer

__all__ = ["PairInferer"]

"""Optimizers that PyTorch does not have in this form."""

from monai_regplugins.optimizers.muon import Muon, orthogonalized

__all__ = ["Muon", "orthogonalized"]

"""Losses for deformable registration: similarity, smoothness, synthetic supervision and their weighted sum."""

from __future__ import annotations

from .deform import EdgeAwareSmoothnessLoss, GradientLoss
from .similarity import MaskedLNCCLoss, MaskedMSELoss
from .synthetic import SyntheticFieldLoss
from .total import Term, WeightedSum

__all__ = [
    "EdgeAwareSmoothnessLoss",
    "GradientLoss",
    "MaskedLNCCLoss",
    "MaskedMSELoss",
    "SyntheticFieldLoss",
    "Term",
    "WeightedSum",
]

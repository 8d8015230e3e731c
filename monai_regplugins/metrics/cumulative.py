"""Measures of a registration as MONAI metrics: collect over batches and processes, then reduce."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.landmarks import landmark_errors
from monai_regplugins.metrics.regularity import folding, folding_strict, sdlogj

__all__ = ["FieldMetric", "FoldingMetric", "SDLogJMetric", "TargetRegistrationError"]


class FieldMetric(CumulativeIterationMetric, ABC):
    """One number per displacement field, collected over the batches of all processes.

    Call it with a batch of fields (B, d, *spatial), or a list of fields (d, *spatial), as MONAI's metrics are called;
    it returns the values of that batch, shape (B, 1). ``aggregate`` reduces those of all calls since ``reset``.

    Args:
        reduction: how ``aggregate`` sums up, a :class:`monai.utils.MetricReduction`; NaN does not count. ``none`` gives
            the values of all pairs, shape (N, 1).
        get_not_nans: whether ``aggregate`` returns the number of values that count too.
    """

    def __init__(self, reduction: MetricReduction | str = MetricReduction.MEAN, get_not_nans: bool = False) -> None:
        super().__init__()
        self.reduction, self.get_not_nans = reduction, get_not_nans

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Reduce what has been collected.

        Args:
            reduction: in place of the one given to the constructor.

        Returns:
            The reduced value; with ``get_not_nans`` also how many values it is made of.
        """
        buffer: Tensor = cast(Any, self).get_buffer()  # MONAI leaves it untyped
        values, not_nans = do_metric_reduction(buffer, reduction or self.reduction)
        return (values, not_nans) if self.get_not_nans else values

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Measure a batch of fields."""
        if y_pred.ndim not in (4, 5) or y_pred.shape[1] != y_pred.ndim - 2:
            raise InputError(
                f"y_pred has shape {tuple(y_pred.shape)}, expected fields (B, 2, X, Y) or (B, 3, X, Y, Z) in voxels; "
                "give one component per spatial axis, with a batch axis."
            )
        if y is not None and len(y) != len(y_pred):
            raise InputError(f"y holds {len(y)} items but y_pred {len(y_pred)}, expected as many; give one per field.")
        others = [None] * len(y_pred) if y is None else list(y)
        values = [self.measure(ddf, other, **kwargs) for ddf, other in zip(y_pred, others, strict=True)]
        return torch.tensor(values, dtype=torch.float32, device=y_pred.device)[:, None]

    @abstractmethod
    def measure(self, ddf: Tensor, other: Tensor | None, **kwargs: Any) -> float:
        """Measure one field (d, *spatial); ``other`` is its item of ``y``."""


class TargetRegistrationError(FieldMetric):
    """Mean target registration error of each pair, see :func:`~monai_regplugins.metrics.landmark_errors`.

    ``metric(y_pred=ddf, y=points, spacing=spacing)`` with landmarks (B, N, 2 d): each row a point of the fixed image
    and the corresponding point of the moving image, in voxels of the fixed grid. Rows with NaN fill up pairs that have
    fewer landmarks; a pair without any is NaN. ``spacing``, (d,) in mm, is 1 by default: the error is in voxels then.

    Args:
        reduction: see :class:`FieldMetric`; ``mean`` is the mean of the pairs, whatever their number of landmarks.
        get_not_nans: see :class:`FieldMetric`.
    """

    def measure(
        self, ddf: Tensor, other: Tensor | None, spacing: Sequence[float] | Tensor | None = None, **kwargs: Any
    ) -> float:
        """Return the mean error of the landmarks ``other``, (N, 2 d)."""
        d = len(ddf)
        if other is None or other.ndim != 2 or other.shape[1] != 2 * d:
            shape = None if other is None else tuple(other.shape)
            raise InputError(
                f"landmarks of a pair have shape {shape}, expected (N, {2 * d}); "
                "give y = torch.cat([fixed_points, moving_points], dim=-1)."
            )
        known = other[~other.isnan().any(dim=1)]
        if not len(known):
            return math.nan
        steps = torch.ones(d) if spacing is None else spacing
        return float(landmark_errors(known[:, :d], known[:, d:], steps, ddf).mean())


class FoldingMetric(FieldMetric):
    """Percentage of folded voxels of each field: ``metric(y_pred=ddf)``, or ``metric(ddf, mask)`` within masks.

    Masks have the shape (B, 1, *spatial). See :func:`~monai_regplugins.metrics.folding`.

    Args:
        strict: whether to use one-sided differences, :func:`~monai_regplugins.metrics.regularity.folding_strict`.
        reduction: see :class:`FieldMetric`.
        get_not_nans: see :class:`FieldMetric`.
    """

    def __init__(
        self,
        strict: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(reduction, get_not_nans)
        self.strict = strict

    def measure(self, ddf: Tensor, other: Tensor | None, **kwargs: Any) -> float:
        """Return the percentage within the mask ``other``."""
        return (folding_strict if self.strict else folding)(ddf, other)[1]


class SDLogJMetric(FieldMetric):
    """Standard deviation of log det J of each field: ``metric(y_pred=ddf)``, or ``metric(ddf, mask)`` within masks.

    Masks have the shape (B, 1, *spatial). See :func:`~monai_regplugins.metrics.sdlogj`.
    """

    def measure(self, ddf: Tensor, other: Tensor | None, **kwargs: Any) -> float:
        """Return the deviation within the mask ``other``."""
        return sdlogj(ddf, other)

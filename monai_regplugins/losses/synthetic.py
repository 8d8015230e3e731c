"""Supervised loss on a ground-truth displacement field, for synthetic pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match

__all__ = ["SyntheticFieldLoss"]

LOG_SCALE = 0.5  # voxels


def _log_distance(a: torch.Tensor, b: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return ``s log(1 + |a - b| / s)``; ``reduction`` is for the signature of PyTorch's losses, always "none" here."""
    return LOG_SCALE * torch.log1p((a - b).abs() / LOG_SCALE)


DISTANCES: dict[str, Callable[..., torch.Tensor]] = {
    "l1": F.smooth_l1_loss,
    "l2": F.mse_loss,
    "mae": F.l1_loss,
    "log": _log_distance,
}


class SyntheticFieldLoss(nn.Module):
    r"""Distance between predicted and true ddf, over the samples that have a true ddf.

    .. math::
        L = \mathrm{mean}_{x, k} \, (\phi_k(x) - \tilde\phi_k(x))^2

    in square voxels: the data term of the RAN paper's supplement (Zheng et al. 2022, suppl. Eq. 11)
    with a mean in place of its sum, as in the authors' code; :class:`GradientLoss` is its regularization.

    Args:
        norm: "l2" as published for RAN; "l1", which grows only linearly beyond one voxel (smooth L1); "mae", the
            mean of absolute differences, RegNet's (Sokooti et al. 2017, section 2.2); or "log", the mean of
            :math:`s \log(1 + |\phi - \tilde\phi| / s)` with s of half a voxel, whose slope is largest at zero: what
            no image can determine, as far from any edge, counts little against small errors where it can.

    Raises:
        InputError: ``norm`` is unknown.

    Example:
        >>> SyntheticFieldLoss(norm="mae")(torch.zeros(1, 2, 8, 8), torch.ones(1, 2, 8, 8))
        tensor(1.)
    """

    def __init__(self, norm: str = "l2") -> None:
        super().__init__()
        check_choice(norm, DISTANCES, "norm")
        self.norm = norm

    def forward(
        self,
        ddf: torch.Tensor,
        true_ddf: torch.Tensor,
        known: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss, a scalar; zero, and still differentiable, when no sample is known.

        Args:
            ddf: predicted field ``(B, d, *spatial)``, voxels.
            true_ddf: true field, the same shape.
            known: ``(B,)``, nonzero where the true field holds; None takes every sample.
            mask: weights ``(B, 1, *spatial)`` of the voxels; None takes every voxel, an empty mask counts as zero.

        Raises:
            InputError: the shapes do not match.
        """
        if ddf.shape != true_ddf.shape:
            raise InputError(f"ddf {tuple(ddf.shape)} and true_ddf {tuple(true_ddf.shape)} differ, expected one shape.")
        per_voxel = DISTANCES[self.norm](at_least_float32(ddf), at_least_float32(true_ddf), reduction="none")
        per_sample = per_voxel.flatten(1).mean(1) if mask is None else _masked_mean(per_voxel, mask)
        if known is None:
            return per_sample.mean()
        if known.numel() != len(per_sample):
            raise InputError(f"known {tuple(known.shape)} does not match a batch of {len(per_sample)}, expected (B,).")
        held = known.reshape(-1) != 0
        return torch.where(held, per_sample, 0.0).sum() / held.sum().clamp_min(1)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of each sample over its mask, ``(B,)``."""
    check_spatial_match(values, mask, "ddf", "mask")
    weights = mask.to(values.dtype)
    sums = (values.mean(1, keepdim=True) * weights).flatten(1).sum(1)
    return sums / weights.flatten(1).sum(1).clamp_min(1)

"""Supervision by a known displacement field, for pretraining on synthetic pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.losses.numerics import at_least_float32

__all__ = ["SyntheticFieldLoss"]

DISTANCES = {"l1": F.smooth_l1_loss, "l2": F.mse_loss, "mae": F.l1_loss}


class SyntheticFieldLoss(nn.Module):
    r"""Distance of a ddf from the true one, over the samples whose true one is known.

    .. math::
        L = \mathrm{mean}_{x, k} \, (\phi_k(x) - \tilde\phi_k(x))^2

    in square voxels: the data term of the RAN paper's supplement (Zheng et al. 2022, suppl. Eq. 11)
    with a mean in place of its sum, as in the authors' code; :class:`GradientLoss` is its regularization.

    Args:
        norm: "l2" as published for RAN; "l1", which grows only linearly beyond one voxel (smooth L1); or "mae", the
            mean of absolute differences, RegNet's (Sokooti et al. 2017, section 2.2).

    Raises:
        InputError: `norm` is unknown.
    """

    def __init__(self, norm: str = "l2") -> None:
        super().__init__()
        check_choice(norm, DISTANCES, "norm")
        self.norm = norm

    def forward(self, ddf: torch.Tensor, true_ddf: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        """Return the loss, a scalar; zero, and still differentiable, when no sample is known.

        Args:
            ddf: predicted field `(B, d, *spatial)`, voxels.
            true_ddf: true field, the same shape.
            known: `(B,)`, nonzero where the true field holds; None takes every sample.

        Raises:
            InputError: the shapes do not match.
        """
        if ddf.shape != true_ddf.shape:
            raise InputError(f"ddf {tuple(ddf.shape)} and true_ddf {tuple(true_ddf.shape)} differ, expected one shape.")
        per_voxel = DISTANCES[self.norm](at_least_float32(ddf), at_least_float32(true_ddf), reduction="none")
        per_sample = per_voxel.flatten(1).mean(1)
        if known is None:
            return per_sample.mean()
        if known.numel() != len(per_sample):
            raise InputError(f"known {tuple(known.shape)} does not match a batch of {len(per_sample)}, expected (B,).")
        held = known.reshape(-1) != 0
        return torch.where(held, per_sample, 0.0).sum() / held.sum().clamp_min(1)

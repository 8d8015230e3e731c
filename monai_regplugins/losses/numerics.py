"""Input checks and type promotion shared by all losses."""

from __future__ import annotations

import torch

from monai_regplugins.checks import InputError

__all__ = ["at_least_float32", "check_spatial_match"]


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return ``values`` in float32, or unchanged in float64 (half precision loses too much, autocast or not)."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)


def check_spatial_match(a: torch.Tensor, b: torch.Tensor, name_a: str, name_b: str) -> None:
    """Reject two tensors ``(B, C, *spatial)`` of different batch or spatial sizes, which would broadcast silently.

    Raises:
        InputError: the ranks differ or are not 2D/3D images, or a batch or spatial size differs.
    """
    if a.ndim not in (4, 5) or a.ndim != b.ndim or a.shape[:1] + a.shape[2:] != b.shape[:1] + b.shape[2:]:
        raise InputError(
            f"{name_a} {tuple(a.shape)} and {name_b} {tuple(b.shape)} do not match: expected (B, C, *spatial) with "
            "the same batch and spatial sizes in 2D or 3D; resample one onto the grid of the other."
        )

"""Target registration error: how far corresponding points are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_regplugins.checks import InputError, check_same_size
from monai_regplugins.fields import sample_at

__all__ = ["CAPTURE_RANGE", "landmark_differences", "landmark_errors", "landmark_statistics", "mean_of_worst"]

CAPTURE_RANGE = 8.0  # mm; the largest component of a displacement that RegNet is trained on


def landmark_differences(
    fixed_points: Tensor, moving_points: Tensor, spacing: Sequence[float] | Tensor, ddf: Tensor | None = None
) -> Tensor:
    r"""Vector from each moving point to where its fixed point is mapped, in mm along the axes of the fixed grid.

    .. math::
        D \, (p^F_k + u(p^F_k) - p^M_k)

    A field points from fixed to moving, so it is the fixed points that it moves. Between voxels it is interpolated
    linearly.

    Args:
        fixed_points: voxel coordinates of the fixed grid, shape (N, d).
        moving_points: the corresponding points of the moving image, in voxels of the fixed grid too.
        spacing: voxel size D of the fixed grid along each axis in mm, shape (d,).
        ddf: displacement field in voxels, shape ``(d, *spatial)``; None for the vectors before the registration.

    Returns:
        N vectors, shape (N, d), float64.
    """
    fixed, moving = (torch.as_tensor(points).to(torch.float64) for points in (fixed_points, moving_points))
    if ddf is not None:
        fixed = fixed + sample_at(ddf[None], fixed[None])[0]
    return (fixed - moving) * torch.as_tensor(spacing).to(fixed)


def landmark_errors(
    fixed_points: Tensor, moving_points: Tensor, spacing: Sequence[float] | Tensor, ddf: Tensor | None = None
) -> Tensor:
    """Distance of each pair of corresponding points after the registration, in mm.

    The length of :func:`landmark_differences`, which takes the same arguments.

    Returns:
        N distances, float64.

    Example:
        >>> landmark_errors(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), spacing=[2.0, 2.0])
        tensor([10.], dtype=torch.float64)
    """
    differences = landmark_differences(fixed_points, moving_points, spacing, ddf)
    errors: Tensor = torch.linalg.vector_norm(differences, dim=1)
    return errors


def landmark_statistics(errors: Tensor, initial: Tensor | None = None) -> dict[str, float]:
    """Summarize landmark errors the way papers report them, all landmarks of all pairs pooled.

    TRE' leaves out the landmarks beyond the capture range: it is the mean over those that were at most 8 mm apart
    before, that is after the affine registration (Sokooti et al. 2017, section 3.2). TRE30 is the mean of the 30 % of
    the landmarks that are farthest off, see :func:`mean_of_worst`.

    Args:
        errors: distances in mm, shape (N,), or vectors as :func:`landmark_differences` gives them, shape (N, d).
        initial: the same landmarks before the registration, distances or vectors, for TRE'.

    Returns:
        ``landmarks``, their number; in mm ``tre``, ``tre_sd`` (of a sample, n - 1), ``tre_median``, ``tre_p75``,
        ``tre_p95``, ``tre_max``, ``tre30``; for vectors ``tre_axis_<k>``, the mean absolute component along axis k;
        with ``initial`` ``landmarks_within``, ``tre_within`` and ``tre_within_sd``. What there are too few landmarks
        for is NaN.

    Raises:
        InputError: When ``errors`` has another shape, or ``initial`` another number of landmarks.
    """
    distances = _distances(errors, "errors")
    values = {"landmarks": float(len(distances)), **_mean_and_sd(distances, "tre")}
    for name, share in (("median", 0.5), ("p75", 0.75), ("p95", 0.95), ("max", 1.0)):
        values[f"tre_{name}"] = float(distances.quantile(share)) if len(distances) else math.nan
    values["tre30"] = mean_of_worst(distances)
    if errors.ndim == 2:
        values |= {f"tre_axis_{k}": float(column.abs().mean()) for k, column in enumerate(errors.double().unbind(1))}
    if initial is None:
        return values
    before = _distances(initial, "initial")
    check_same_size(before, distances, "initial", "errors")
    within = distances[before <= CAPTURE_RANGE]
    return values | {"landmarks_within": float(len(within)), **_mean_and_sd(within, "tre_within")}


def mean_of_worst(values: Tensor, percent: int = 30, largest: bool = True) -> float:
    """Mean of the worst values: the measure of robustness that Learn2Reg calls TRE30 and DSC30.

    The challenge takes it over the test cases, each with its mean error or mean overlap, and
    :func:`landmark_statistics` over single landmarks; TRE30 of either kind is no smaller than the mean.

    Args:
        values: what to summarize, shape (N,); NaN does not count.
        percent: how many of them, rounded up to whole values.
        largest: whether large values are the bad ones, as errors are; False for overlaps.

    Returns:
        The mean of the worst; NaN where there is none.
    """
    known = values[~values.isnan()].to(torch.float64)
    count = -(-percent * len(known) // 100)  # in whole numbers: 0.3 * 10 may round up to 4 values
    return float(known.topk(count, largest=largest).values.mean()) if count else math.nan


def _distances(errors: Tensor, name: str) -> Tensor:
    """Length of vectors (N, d); distances (N,) as they are."""
    if errors.ndim not in (1, 2):
        raise InputError(f"{name} has shape {tuple(errors.shape)}, expected (N,) or (N, d); give one per landmark.")
    wide = errors.to(torch.float64)
    lengths: Tensor = torch.linalg.vector_norm(wide, dim=1) if errors.ndim == 2 else wide
    return lengths


def _mean_and_sd(values: Tensor, name: str) -> dict[str, float]:
    """Mean and standard deviation of a sample under their names."""
    mean = float(values.mean()) if len(values) else math.nan
    return {name: mean, f"{name}_sd": float(values.std()) if len(values) > 1 else math.nan}

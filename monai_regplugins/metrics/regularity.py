"""Regularity of a displacement field: where it folds, and how unevenly it changes volume.

Each measure works through the field in slabs and holds little beyond it. A field with NaN or infinity has no measure:
all are NaN then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from monai_regplugins.checks import check_minimum_size
from monai_regplugins.fields import central_difference, determinant_of, slabs

__all__ = [
    "central_determinants",
    "corner_determinants",
    "folding",
    "folding_strict",
    "folds_strict",
    "is_finite",
    "pooled_deviation",
    "regularity",
    "sdlogj",
]

SMALLEST_DETERMINANT = 1e-9  # a folded voxel has no logarithm; this stands for "almost all volume lost"

Columns: TypeAlias = list[tuple[Tensor, ...]]  # for each axis the derivatives (d, ...) of x + u(x), one or one per side


class Slab(NamedTuple):
    """A part of a field ``(d, *spatial)`` that ends at two planes, with what lies beyond them."""

    wide: Tensor  # the slab and one plane beyond each of its ends that is not an end of the field
    core: slice  # where the slab lies in it
    inside: Tensor | None  # the voxels of the slab to look at; None for all

    def double(self) -> Slab:
        """The slab in double precision."""
        return self._replace(wide=self.wide.double())

    def along(self, axis: int) -> tuple[Tensor, slice]:
        """What the derivative along an axis is made of, and which planes of it belong to the slab."""
        return (self.wide, self.core) if axis == 0 else (self.wide[:, self.core], slice(None))

    def chosen(self, values: Tensor) -> Tensor:
        """The values ``(*spatial)`` at the voxels to look at, shape (N,)."""
        return values.flatten() if self.inside is None else values[self.inside]


def folding(ddf: Tensor, mask: Tensor | None = None) -> tuple[float, float]:
    """Count the voxels where x + u(x) folds: det J <= 0.

    Derivatives are central differences, which do not see what alternates from voxel to voxel; :func:`folding_strict`
    does.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.

    Returns:
        The number of folded voxels, and their percentage; NaN percent for an empty mask, both NaN for a field that is
        not finite.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.

    Example:
        >>> folding(torch.zeros(2, 8, 8))  # number and percentage
        (0, 0.0)
    """
    return _count(ddf, mask, _central_columns)


def folding_strict(ddf: Tensor, mask: Tensor | None = None) -> tuple[float, float]:
    r"""Count the voxels where any of the 2^d determinants of one-sided differences is not positive.

    .. math::
        \min_{s \in \{+,-\}^d} \det \left( \partial^{s_1}_1 (x + u), \ldots, \partial^{s_d}_d (x + u) \right) \le 0

    Each of these is the volume of a triangle or tetrahedron between the voxel and one neighbor along every axis, after
    the map, over that before it. In 2D a field without such voxels is a digital diffeomorphism: it turns no triangle of
    the grid over (Liu et al. 2024, "On finite difference Jacobian computation in deformable image registration", IJCV).
    In 3D their definition also asks for the two tetrahedra in the middle of each cube of eight voxels, which are not
    looked at here. The mean over the corners is the determinant of central differences, so what :func:`folding` finds
    is found here too.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.

    Returns:
        The number of folded voxels, and their percentage; NaN percent for an empty mask, both NaN for a field that is
        not finite.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.
    """
    return _count(ddf, mask, _one_sided_columns)


def folds_strict(ddf: Tensor) -> Tensor:
    """Where :func:`folding_strict` counts a voxel, bool ``(*spatial)``; nowhere in a field that is not finite.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.

    Example:
        >>> bool(folds_strict(torch.zeros(2, 8, 8)).any())
        False
    """
    if not is_finite(ddf):
        return torch.zeros(ddf.shape[1:], dtype=torch.bool, device=ddf.device)
    return torch.cat([_folds(slab, _one_sided_columns, 1.0) for slab in _slabs(ddf, None)])


def corner_determinants(ddf: Tensor) -> Iterator[Tensor]:
    """Yield det J by one-sided differences for each of the 2^d choices of a side along every axis.

    A voxel at the border has a neighbor on one side only and takes the same difference for both.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.

    Yields:
        Determinants of the whole field, shape ``(*spatial)``, float64.

    Raises:
        InputError: When ddf has an axis of less than 2 voxels.
    """
    check_minimum_size(ddf.shape[1:], 2, "displacement field")
    yield from _exact_determinants(_one_sided_columns(Slab(ddf, slice(None), None).double()))


def central_determinants(ddf: Tensor, mask: Tensor | None = None, volume: float = 1.0) -> Iterator[Tensor]:
    """Yield det J by central differences, one-sided at the border, slab by slab.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.
        volume: determinant of a linear map that follows the field, such as an initial alignment.

    Yields:
        Determinants at the voxels of the mask in one slab after the other, shape (N,), float64.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.
    """
    for slab in _slabs(ddf, mask):
        yield slab.chosen(next(_determinants(_central_columns(slab.double())))).mul_(volume)


def sdlogj(ddf: Tensor, mask: Tensor | None = None, volume: float = 1.0) -> float:
    """Standard deviation of log det J over the voxels: 0 for any field that changes volume evenly.

    The determinant is clipped from below at 1e-9; the deviation is that of the population, not of a sample. What
    Learn2Reg publishes under this name is about four times smaller, see
    :func:`~monai_regplugins.metrics.learn2reg.sdlogj_l2r`.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.
        volume: determinant of a linear map that follows the field, see :func:`central_determinants`.

    Returns:
        A non-negative value without unit; NaN for an empty mask or a field that is not finite.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.

    Example:
        >>> sdlogj(torch.zeros(2, 8, 8))
        0.0
    """
    if not is_finite(ddf):
        return math.nan
    determinants = central_determinants(ddf, mask, volume)
    return pooled_deviation(det.clamp(min=SMALLEST_DETERMINANT).log_() for det in determinants)


def regularity(ddf: Tensor, mask: Tensor | None = None, volume: float = 1.0) -> dict[str, float]:
    r"""Measure a field in all the ways of this module.

    Args:
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        mask: voxels to look at (above zero), shape ``(*spatial)`` or ``(1, *spatial)``; all by default.
        volume: determinant of a linear map that follows the field, so that the measures are of both together; the
            product rule :math:`\det(B J) = \det B \det J` spares their composition.

    Returns:
        ``folding_count`` and ``folding_percent`` of :func:`folding`, ``folding_strict_percent`` of
        :func:`folding_strict`, ``sdlogj`` of :func:`sdlogj`.

    Raises:
        InputError: When ``ddf`` has an axis of less than 2 voxels.
    """
    sign = math.copysign(1.0, volume)
    count, percent = _count(ddf, mask, _central_columns, sign)
    return {
        "folding_count": float(count),
        "folding_percent": percent,
        "folding_strict_percent": _count(ddf, mask, _one_sided_columns, sign)[1],
        "sdlogj": sdlogj(ddf, mask, volume),
    }


def pooled_deviation(parts: Iterable[Tensor]) -> float:
    """Standard deviation of values that come in parts: variance within the parts plus variance of their means.

    Args:
        parts: values in float64, shape (N,), any number in each part.

    Returns:
        The deviation of the population, not of a sample; NaN where there is no value.

    Example:
        >>> pooled_deviation([torch.tensor([1.0, 3.0]), torch.tensor([4.0, 4.0])])  # that of 1, 3, 4 and 4
        1.224744871391589
    """
    moments = [_moments(part) for part in parts if len(part)]
    if not moments:
        return math.nan
    count, variance, mean = torch.tensor(moments, dtype=torch.float64).T
    share = count / count.sum()
    return float((share @ (variance + (mean - share @ mean).square())).sqrt())


def _moments(values: Tensor) -> tuple[int, float, float]:
    """Number, variance and mean, as plain numbers: tensors made between large ones would keep their memory in parts."""
    variance, mean = torch.var_mean(values, correction=0)
    return len(values), float(variance), float(mean)


def is_finite(ddf: Tensor) -> bool:
    """Return whether no displacement of a field is NaN or infinite."""
    parts = (ddf[:, slab] for slab in slabs(ddf.shape[1:]))  # the whole would be copied, unless it lies in one piece
    return all(math.isfinite(extreme) for part in parts for extreme in torch.aminmax(part.detach()))  # NaN is passed on


def _slabs(ddf: Tensor, mask: Tensor | None) -> Iterator[Slab]:
    """Divide a field, in float32 at least, into slabs; those without a voxel to look at are left out."""
    check_minimum_size(ddf.shape[1:], 2, "displacement field")
    u = ddf.detach().as_subclass(torch.Tensor)
    marks = None if mask is None else mask.as_subclass(torch.Tensor).reshape(u.shape[1:])
    for slab in slabs(u.shape[1:]):
        first, last = max(slab.start - 1, 0), min(slab.stop + 1, u.shape[1])
        inside = None if marks is None else marks[slab] > 0
        if inside is None or inside.any():
            wide = u[:, first:last].to(torch.promote_types(u.dtype, torch.float32))
            yield Slab(wide, slice(slab.start - first, slab.stop - first), inside)


def _one_sided_columns(slab: Slab) -> Columns:
    """Derivatives towards both neighbors along each axis; twice the same at a border, where there is one neighbor."""
    columns = []
    for axis in range(len(slab.wide)):
        u, core = slab.along(axis)
        step, n = u.diff(dim=axis + 1), u.shape[axis + 1]
        step[axis] += 1
        ends = (step.narrow(axis + 1, 0, 1), step, step.narrow(axis + 1, n - 2, 1))
        sides = torch.cat(ends, dim=axis + 1)
        columns.append(tuple(sides.narrow(axis + 1, side, n)[:, core] for side in (0, 1)))
    return columns


def _central_columns(slab: Slab) -> Columns:
    """Derivatives by central differences along each axis, by one-sided ones at a border."""
    columns: Columns = []
    for axis in range(len(slab.wide)):
        u, core = slab.along(axis)
        derivative = central_difference(u, axis + 1)
        derivative[axis] += 1
        columns.append((derivative[:, core],))
    return columns


def _determinants(columns: Columns) -> Iterator[Tensor]:
    """Yield the determinant (...) of each choice of one derivative per axis.

    Expanded along the first component: in 3D the choices share the minors of the two others.
    """
    if len(columns) == 2:
        yield from (x[0] * y[1] - x[1] * y[0] for x, y in product(*columns))
        return
    x, y, z = columns
    yz, zx, xy = _minors(y, z), _minors(z, x), _minors(x, y)
    for i, j, k in product(*(range(len(sides)) for sides in columns)):
        yield (x[i][0] * yz[j][k]).addcmul_(y[j][0], zx[k][i]).addcmul_(z[k][0], xy[i][j])


def _minors(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """Determinants of the second and third component of each derivative in ``p`` with each in ``q``."""
    return [[(a[1] * b[2]).addcmul_(a[2], b[1], value=-1) for b in q] for a in p]


def _exact_determinants(columns: Columns) -> Iterator[Tensor]:
    """Yield the same as :func:`_determinants` by the definition of a determinant that everything else goes by."""
    for chosen in product(*columns):
        yield determinant_of(torch.stack(chosen, dim=1)[None])[0]


def _folds(slab: Slab, derive: Callable[[Slab], Columns], sign: float) -> Tensor:
    """Where the least determinant in a slab, times a sign, is not positive, ``(*spatial)``.

    Single precision decides, and double precision where the sign could be due to rounding.
    """
    columns = [tuple(side.float() for side in sides) for sides in derive(slab)]
    least = _least(_determinants(columns), sign)
    folded, doubtful = least <= 0, ~(least.abs() > _rounding_error(columns))
    if doubtful.any():
        exact = [tuple(side[:, doubtful] for side in sides) for sides in derive(slab.double())]
        folded[doubtful] = _least(_exact_determinants(exact), sign) <= 0
    return folded


def _least(values: Iterator[Tensor], sign: float) -> Tensor:
    """The least of the values, times a sign, at each place."""
    least = next(values).mul_(sign)
    for value in values:
        torch.minimum(least, value.mul_(sign), out=least)
    return least


def _rounding_error(columns: Columns) -> float:
    r"""Upper bound of the error of :func:`_determinants` in single precision.

    With derivatives up to M each of the d! products is below (M + 1)^d, and less than 10 operations, each with a
    relative error of half an epsilon, lead to it: less than 6 * 10 / 2 epsilon (M + 1)^d in all, here doubled.
    """
    extremes = torch.stack([extreme for sides in columns for side in sides for extreme in torch.aminmax(side)])
    return 64 * torch.finfo(torch.float32).eps * (float(extremes.abs().max()) + 1) ** len(columns)


def _count(
    ddf: Tensor, mask: Tensor | None, derive: Callable[[Slab], Columns], sign: float = 1.0
) -> tuple[float, float]:
    """Return how many of the voxels are folded, and what percentage; a sign of -1 mirrors what the field gives."""
    if not is_finite(ddf):
        return math.nan, math.nan
    count = voxels = 0
    for slab in _slabs(ddf, mask):
        folded = slab.chosen(_folds(slab, derive, sign))
        count, voxels = count + int(folded.sum()), voxels + folded.numel()
    return count, 100 * count / voxels if voxels else math.nan

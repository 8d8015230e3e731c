r"""Maps of points, one after the other: what a transform file means, whatever it is made of.

A map takes points of the fixed image's world, RAS mm, to the moving image's, the direction in which images are
resampled: ``warped(p) = moving(T(p))``. A chain :math:`T = T_n \circ \dots \circ T_1` lists its members in the order in
which a point of the fixed image meets them, as ``antsApplyTransforms`` does (and SimpleITK's ``CompositeTransform``
does not). A displacement field goes on beyond its grid with the values of its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.grids import LPS_TO_RAS, affine_field, map_points, world_affine
from monai_regplugins.inversion import solve
from monai_regplugins.io.field_grid import Displacement, GridAffine

if TYPE_CHECKING:
    import SimpleITK as sitk

__all__ = ["Chain", "FieldMap", "InverseMap", "ItkMap", "LinearMap", "PointMap", "check_meets", "grid_points"]

Array = npt.NDArray[Any]

TOLERANCE = 1e-4  # mm, at which an inversion of points stops
SAMPLES = 4000  # points that a linear map is fitted to


class PointMap(Protocol):
    """What takes points of the fixed image's world to the moving image's, RAS mm."""

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""


@dataclass(frozen=True)
class LinearMap:
    """``p`` goes to ``T p``.

    Attributes:
        matrix: ``T``, (4, 4), RAS mm.

    Example:
        >>> LinearMap(np.diag([2.0, 1, 1, 1])).move(torch.ones(1, 3).double()).tolist()
        [[2.0, 1.0, 1.0]]
    """

    matrix: Array

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""
        d = points.shape[1]
        kept = [*range(d), 3]
        return map_points(points, torch.from_numpy(np.ascontiguousarray(self.matrix[kept][:, kept])))


@dataclass(frozen=True)
class FieldMap:
    """``p`` goes to ``p + D(p)``, ``D`` between the voxel centers by linear interpolation, as in ITK.

    Attributes:
        displacement: ``D``, (3, X, Y, Z) or (2, X, Y), mm, components in RAS.
        affine: voxel-to-RAS matrix of its grid, (4, 4), in 2D too.
    """

    displacement: Displacement
    affine: GridAffine

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the grid along each axis."""
        return tuple(int(n) for n in self.displacement.shape[1:])

    @cached_property
    def _to_voxel(self) -> torch.Tensor:
        matrix = world_affine(torch.from_numpy(self.affine), len(self.displacement), "the field")
        return torch.as_tensor(torch.linalg.inv(matrix))

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""
        if points.shape[1] != len(self.displacement):
            raise InputError(
                f"a {len(self.displacement)}D field cannot move points of {points.shape[1]} dimensions; give images, "
                "points and transforms of one dimension."
            )
        where = map_points(points, self._to_voxel)
        moved: torch.Tensor = points + fields.sample_at(torch.from_numpy(self.displacement)[None], where[None])[0]
        return moved

    def covers(self, points: torch.Tensor) -> torch.Tensor:
        """Which of the points (N, d) lie on the grid, whose border is half a voxel beyond the last centers."""
        where = map_points(points, self._to_voxel)
        inside = (where >= -0.5 - 1e-3) & (where <= torch.tensor(self.shape) - 0.5 + 1e-3)
        return torch.all(inside, dim=1)


@dataclass(frozen=True)
class ItkMap:
    """A transform of ITK that is neither linear nor a field, such as a B-spline; SimpleITK moves the points.

    Attributes:
        transform: takes points in LPS.
    """

    transform: sitk.Transform

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""
        import SimpleITK as sitk  # 95 MB of memory, so only where it is used

        # a grid of one row, a field that takes it to the points, and the transform behind: all at once, not one by one
        count, d = points.shape
        row = np.zeros((count, d))
        row[:, 0] = np.arange(count)
        signs = np.diag(LPS_TO_RAS)[:d]
        to_points = sitk.GetImageFromArray(
            (points.numpy() * signs - row).reshape(*[1] * (d - 1), count, d), isVector=True
        )
        whole = sitk.CompositeTransform([self.transform, sitk.DisplacementFieldTransform(to_points)])
        moved = sitk.TransformToDisplacementField(whole, sitk.sitkVectorFloat64, [count, *[1] * (d - 1)])
        return torch.from_numpy((sitk.GetArrayFromImage(moved).reshape(count, d) + row) * signs)


@dataclass(frozen=True)
class InverseMap:
    r"""The inverse of a map ``T``, point by point: x with :math:`T(x) = y`.

    x starts at :math:`L^{-1} y`, with ``L`` the linear map that is closest to ``T``, whose inverse is the first inverse
    Jacobian, see :func:`~monai_regplugins.inversion.solve`.

    Attributes:
        forward: ``T``.
        around: points (N, d) that ``L`` is fitted to, those of the grid of ``T``.
    """

    forward: PointMap
    around: torch.Tensor

    @cached_property
    def _linear(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``L`` as ``x A + b``, for rows x."""
        rows = torch.nn.functional.pad(self.around, (0, 1), value=1.0)
        fitted = torch.linalg.lstsq(rows, self.forward.move(self.around)).solution
        return fitted[:-1], fitted[-1]

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""
        return self.solve(points)[0]

    def solve(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move points (N, d); return them and the distances (N,), mm, that ``T`` leaves between them and the given."""
        A, b = self._linear
        inverse = torch.linalg.inv(A)
        return solve(self.forward.move, points, (points - b) @ inverse, inverse.T, TOLERANCE)


@dataclass(frozen=True)
class Chain:
    """Maps one after the other.

    Attributes:
        maps: in the order in which a point of the fixed image meets them.
        fixed_by_itk: whether the first map belongs to a program that places the fixed image as ITK does, see
            :mod:`~monai_regplugins.readers.itk_world`.
        moving_by_itk: the same of the last map and the moving image.
    """

    maps: Sequence[PointMap]
    fixed_by_itk: bool = False
    moving_by_itk: bool = False

    def move(self, points: torch.Tensor) -> torch.Tensor:
        """Move points (N, d), float64."""
        for one in self.maps:
            points = one.move(points)
        return points

    def in_worlds(self, fixed: Array | None, moving: Array | None) -> Chain:
        """The same chain from this package's world of the fixed image to this package's world of the moving one.

        Args:
            fixed: the map from this package's world to ITK's for the fixed image, (4, 4); None where they are one.
            moving: the same of the moving image.
        """
        maps = list(self.maps)
        if fixed is not None and self.fixed_by_itk:
            maps.insert(0, LinearMap(np.asarray(fixed, np.float64)))
        if moving is not None and self.moving_by_itk:
            maps.append(LinearMap(np.linalg.inv(np.asarray(moving, np.float64))))
        return Chain(maps)

    @property
    def fields(self) -> list[FieldMap]:
        """The displacement fields among its maps."""
        return [one for one in self.maps if isinstance(one, FieldMap)]

    @property
    def grid(self) -> FieldMap | None:
        """The displacement field that a point of the fixed image meets first, if that is what it meets first."""
        first = self.maps[0] if self.maps else None
        return first if isinstance(first, FieldMap) else None


def grid_points(affine: GridAffine, shape: tuple[int, ...], most: int | None = SAMPLES) -> torch.Tensor:
    """World points of a grid (N, d), float64: of all its voxels, or of some, evenly, with the last of each axis.

    Args:
        affine: voxels to RAS mm, (4, 4).
        shape: voxels along each axis.
        most: about how many; None for all.
    """
    d = len(shape)
    matrix = world_affine(torch.from_numpy(np.asarray(affine, np.float64)), d, "the grid")
    if most is None:
        return affine_field(matrix, shape, torch.float64).flatten(1).T
    each = max(2, round(most ** (1 / d)))
    axes = [torch.linspace(0, n - 1, min(n, each), dtype=torch.float64) for n in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).T
    return map_points(index, matrix)


def check_meets(chain: Chain, points: torch.Tensor) -> None:
    """Check that points of the fixed image reach every field of a chain.

    Args:
        chain: from the fixed to the moving image.
        points: of the grid of the fixed image, (N, d).

    Raises:
        InputError: When none of them lies on a field's grid, as where that belongs to another subject, or where the
            files are in another order than a point meets them.
    """
    for number, one in enumerate(chain.maps, 1):
        moved = one.move(points)
        field, reached = (one.forward, moved) if isinstance(one, InverseMap) else (one, points)
        if isinstance(field, FieldMap) and not bool(field.covers(reached).any()):
            raise InputError(
                f"no point of the grid lies on the field of transform {number} of {len(chain.maps)}, expected one that "
                "they meet; check that transforms and images belong together, and the order: what meets a point of the "
                "fixed image first comes first."
            )
        points = moved

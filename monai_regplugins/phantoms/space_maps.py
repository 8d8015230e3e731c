"""Smooth maps of space whose inverses are known in closed form.

A digital phantom is one anatomy seen through many maps. When each map is a chain of exactly invertible pieces, the
correspondence between any two subjects is exact everywhere, with no iteration and no search. The pieces are

* :class:`AffineMap` - pose and size;
* :class:`ShearWave` - a transverse wave; it leaves its own phase unchanged, so a change of sign inverts it;
* :class:`LocalDilation` - one region grows or shrinks, all else stays;
* :class:`LocalTwist` - one ball turns within itself, all else stays;
* :class:`RegionSlide` - a region glides along axis 2 past its surroundings: the discontinuous piece.

Points are arrays ``(3, N)`` in mm; every map returns a new array of the same shape and dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["AffineMap", "LocalDilation", "LocalTwist", "MapChain", "RegionSlide", "ShearWave", "SpaceMap"]

Array = npt.NDArray[Any]
Vector = tuple[float, float, float]


class SpaceMap(Protocol):
    """A bijection of space: ``inverse(forward(points)) == points``."""

    def forward(self, points: Array) -> Array:
        """Map points ``(3, N)``."""

    def inverse(self, points: Array) -> Array:
        """Undo :meth:`forward`."""


def _column(vector: Sequence[float] | Array, points: Array) -> Array:
    """A 3-vector as a column of the dtype of the points."""
    return np.asarray(vector, dtype=points.dtype)[:, None]


@dataclass(frozen=True)
class AffineMap:
    """``x -> A x + t`` with an invertible matrix A (3, 3) and a translation t (mm)."""

    matrix: Array
    translation: Vector = (0.0, 0.0, 0.0)

    def forward(self, points: Array) -> Array:
        """``A x + t``."""
        mapped: Array = self.matrix.astype(points.dtype) @ points + _column(self.translation, points)
        return mapped

    def inverse(self, points: Array) -> Array:
        """``A^-1 (x - t)``."""
        mapped: Array = np.linalg.inv(self.matrix).astype(points.dtype) @ (points - _column(self.translation, points))
        return mapped


@dataclass(frozen=True)
class ShearWave:
    r"""A transverse wave ``x -> x + a sin(k^T x + phase)`` with ``a`` perpendicular to ``k``.

    Moving along ``a`` does not change ``k^T x``; the inverse is therefore the same wave with ``-a``, and det J = 1.

    Args:
        amplitude: displacement vector a in mm; its part along k is removed.
        wave_vector: k in rad/mm, ``2 pi / wavelength`` long.
        phase: phase in rad.
    """

    amplitude: Vector
    wave_vector: Vector
    phase: float = 0.0

    def forward(self, points: Array) -> Array:
        """``x + a sin(k^T x + phase)``."""
        return self._shifted(points, 1.0)

    def inverse(self, points: Array) -> Array:
        """``x - a sin(k^T x + phase)``."""
        return self._shifted(points, -1.0)

    def _shifted(self, points: Array, sign: float) -> Array:
        k, a = np.asarray(self.wave_vector), np.asarray(self.amplitude)
        transverse = a - k * (a @ k) / (k @ k)
        phase = k.astype(points.dtype) @ points + points.dtype.type(self.phase)
        shifted: Array = points + _column(sign * transverse, points) * np.sin(phase)
        return shifted


@dataclass(frozen=True)
class LocalDilation:
    r"""Radial scaling about a center that fades out at an ellipsoid, ``x -> c + (x - c) (1 + s (1 - rho^2)^2)``.

    ``rho`` is the distance to c measured in radii; outside ``rho = 1`` nothing moves. The radial profile
    ``rho (1 + s (1 - rho^2)^2)`` increases strictly for ``-1 < s < 1.25``, so a table of it gives the inverse. An
    infinite radius makes a cylinder and leaves that axis alone.

    Args:
        center: c in mm.
        radii: extent along the three axes in mm, ``inf`` allowed.
        strength: s; at the center lengths are multiplied by 1 + s.

    Raises:
        ValueError: When the map would fold.
    """

    center: Vector
    radii: Vector
    strength: float

    def __post_init__(self) -> None:
        """Refuse a profile that is not monotone."""
        if not -1.0 < self.strength < 1.25:
            raise ValueError(f"a dilation of strength {self.strength} folds space, choose one in (-1, 1.25)")

    def forward(self, points: Array) -> Array:
        """Scale by ``1 + s (1 - rho^2)^2``."""
        return self._scaled(points, self._factor)

    def inverse(self, points: Array) -> Array:
        """Scale by the reciprocal factor, looked up at the mapped radius."""
        knots = np.linspace(0.0, 1.0, 4097)
        mapped = knots * self._factor(knots)
        return self._scaled(points, lambda rho: 1.0 / self._factor(np.interp(rho, mapped, knots)))

    def _factor(self, rho: Array) -> Array:
        factor: Array = 1.0 + self.strength * (1.0 - rho**2) ** 2
        return factor

    def _scaled(self, points: Array, factor: Callable[[Array], Array]) -> Array:
        offset = points - _column(self.center, points)
        rho = np.sqrt(np.sum((offset / _column(self.radii, points)) ** 2, axis=0))
        inside = np.flatnonzero(rho < 1.0)
        mapped: Array = points.copy()
        change = (factor(rho[inside]) - 1.0).astype(points.dtype)
        mapped[:, inside] += offset[:, inside] * change * _column(np.isfinite(self.radii), points)
        return mapped


@dataclass(frozen=True)
class LocalTwist:
    r"""Rotation inside a ball by ``angle (1 - rho^2)^2`` about an axis through its center.

    A rotation keeps the distance to the center, hence its own angle: the inverse is the twist by ``-angle``.

    Args:
        center: center of the ball in mm.
        radius: radius of the ball in mm; nothing moves outside.
        axis: direction of the rotation axis.
        angle: angle at the center in rad.
    """

    center: Vector
    radius: float
    axis: Vector
    angle: float

    def forward(self, points: Array) -> Array:
        """Rotate by the angle."""
        return self._rotated(points, self.angle)

    def inverse(self, points: Array) -> Array:
        """Rotate back."""
        return self._rotated(points, -self.angle)

    def _rotated(self, points: Array, angle: float) -> Array:
        offset = points - _column(self.center, points)
        rho2 = np.sum(offset**2, axis=0) / self.radius**2
        inside = np.flatnonzero(rho2 < 1.0)
        theta = angle * (1.0 - rho2[inside]) ** 2
        axis = np.asarray(self.axis, dtype=points.dtype) / np.linalg.norm(self.axis).astype(points.dtype)
        x = offset[:, inside]
        cross = np.cross(axis, x, axis=0)
        # Rodrigues' formula, written as the change of the offset
        change = np.sin(theta) * cross + (1.0 - np.cos(theta)) * np.cross(axis, cross, axis=0)
        mapped: Array = points.copy()
        mapped[:, inside] += change.astype(points.dtype)
        return mapped


@dataclass(frozen=True)
class RegionSlide:
    r"""Scaling and shift along axis 2 inside an upright cylinder, ``z -> m z + s + g^T (x, y)``; outside nothing moves.

    The region depends on x and y only and these do not change, so the map sends the region onto itself and is a
    bijection of space, discontinuous at the region's border: organs that glide along the wall.

    Args:
        inside: ``(x, y) -> bool array``, the cross-section of the region.
        shift: s in mm.
        gradient: g, mm per mm, along x and y.
        scale: m, positive.
    """

    inside: Callable[[Array, Array], npt.NDArray[np.bool_]] = field(repr=False)
    shift: float
    gradient: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    def forward(self, points: Array) -> Array:
        """``m z + s + g^T (x, y)`` inside."""
        return self._replaced(points, lambda z, offset: self.scale * z + offset)

    def inverse(self, points: Array) -> Array:
        """``(z - s - g^T (x, y)) / m`` inside."""
        return self._replaced(points, lambda z, offset: (z - offset) / self.scale)

    def _replaced(self, points: Array, glide: Callable[[Array, Array], Array]) -> Array:
        x, y, z = points
        offset = self.shift + self.gradient[0] * x + self.gradient[1] * y
        mapped: Array = points.copy()
        mapped[2] = np.where(self.inside(x, y), glide(z, offset), z)
        return mapped


@dataclass(frozen=True)
class MapChain:
    """Maps applied one after the other, the first one first."""

    maps: Sequence[SpaceMap]

    def forward(self, points: Array) -> Array:
        """``m_n(... m_1(x))``."""
        for space_map in self.maps:
            points = space_map.forward(points)
        return points

    def inverse(self, points: Array) -> Array:
        """``m_1^-1(... m_n^-1(x))``."""
        for space_map in reversed(self.maps):
            points = space_map.inverse(points)
        return points

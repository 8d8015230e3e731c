r"""A breath in three dimensions: the lungs slide along the pleura, the chest wall widens, in exactly invertible maps.

Coordinates are mm, x to the patient's right, y to the front, z to the head, the origin in the middle of the chest. The
cavity of the chest narrows towards the head. At each height it has its own coordinates ``u = x / half width`` and
``v = (y - middle) / half depth``, in which its cross-section is always the same: an oval with a bay at the back for
spine, aorta and esophagus. What lies within keeps its u and v as it moves along z, hence stays within: the map of the
cavity is a bijection of the cavity, and jumps at its border, which is the pleura.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_regplugins.phantoms.shapes import superellipse

__all__ = [
    "ChestExpansion",
    "PleuralSlide",
    "cavity_section",
    "chest_cavity",
    "chest_wall",
    "in_chest_cavity",
    "oval_distance",
]

Array = npt.NDArray[Any]

WIDEST, TOP = -20.0, 125.0  # z in mm, where the cavity begins to narrow, and where it does so no more
APEX, BASE = 104.0, -44.0  # z in mm where the descent begins, and below which it is complete
MIDLINE, SPREAD = -0.08, 0.22  # u of the mediastinum, which moves less, and its width
MEAN_WIDE, MEAN_DEEP = 104.0, 66.0  # mm, half width and half depth where the cavity is widest
MEAN_WIDE, MEAN_DEEP = 104.0, 66.0  # mm, half width and half depth where the cavity is widest
BAY_CENTER, BAY_RADII = (-0.06, -0.82), (0.30, 0.54)  # u and v
STILL_X, STILL_Y, REACH_X, REACH_Y = 25.0, -20.0, 85.0, 100.0  # mm, where the wall begins to move, and over how much
NEWTON_STEPS = 5  # one more than reach rounding for the deepest breath


def cavity_section(z: Array) -> tuple[Array, Array, Array]:
    """Half width, middle and half depth of the chest cavity in mm at heights z in mm: its extent along x and y."""
    narrowing = _step((z - WIDEST) / (TOP - WIDEST))
    back = -52.0 - 14.0 * np.exp(-(((z - 15.0) / 85.0) ** 2))
    front = 72.0 - 46.0 * narrowing
    return 104.0 - 48.0 * narrowing, (front + back) / 2, (front - back) / 2


def oval_distance(x: Array, y: Array, wide: Array | float, deep: Array | float) -> Array:
    """Distance to ``|x / wide|^2.5 + |y / deep|^2.5 = 1``, exact to first order there; all lengths in mm."""
    u, v = np.abs(x) / wide, np.abs(y) / deep
    rho = _oval(u, v)
    slope = np.hypot(_power(u / rho) / wide, _power(v / rho) / deep)
    return np.asarray((rho - 1.0) / np.maximum(slope, 0.005))


def chest_wall(points: Array) -> Array:
    """Distance in mm to the oval of the chest wall of points (3, N) in mm, negative inside: the cavity and its bay."""
    wide, middle, deep = cavity_section(points[2])
    return oval_distance(points[0], points[1] - middle, wide, deep)


def chest_cavity(points: Array) -> Array:
    """Distance in mm to the border of the chest cavity of points (3, N) in mm, negative inside."""
    wide, middle, deep = cavity_section(points[2])
    u, v = points[0] / wide - BAY_CENTER[0], (points[1] - middle) / deep - BAY_CENTER[1]
    bay = superellipse(MEAN_WIDE * u, MEAN_DEEP * v, (MEAN_WIDE * BAY_RADII[0], MEAN_DEEP * BAY_RADII[1]), 3.0)
    return np.maximum(chest_wall(points), -bay)


def in_chest_cavity(u: Array, v: Array) -> npt.NDArray[np.bool_]:
    """Whether places u, v lie in the cross-section of the cavity."""
    bay = (np.abs(u - BAY_CENTER[0]) / BAY_RADII[0]) ** 3 + (np.abs(v - BAY_CENTER[1]) / BAY_RADII[1]) ** 3
    return np.asarray((_oval(u, v) < 1.0) & (bay > 1.0))


@dataclass(frozen=True)
class PleuralSlide:
    r"""How far the breath has moved lungs, diaphragm and upper abdomen along the wall, from rest at end expiration.

    Within the cavity a point at rest (u, v, z) goes to ``z' = z - descent * w(u, v) * phi(z)`` and keeps its u and v,
    so that its x and y follow the width of the cavity at z'. phi is a smooth step from the apex, at rest, to the
    diaphragm; w is less in the mediastinum, and inclines to the back. Outside nothing moves.

    :meth:`inverse` is that formula, from rest to the breathing subject; :meth:`forward` solves it by Newton's method up
    to rounding.

    Args:
        descent: how far the diaphragm's domes go down, mm; below 50.
        tilt: how much more the back of the diaphragm moves than its front, relative.
        core: how far the mediastinum moves, relative to the lungs.
    """

    descent: float
    tilt: float = 0.15
    core: float = 0.3

    def forward(self, points: Array) -> Array:
        """Map points (3, N) of the breathing subject to their place at rest."""
        inside, u, v, z_now = _within(points)
        drop = self._drop(u, v)
        z = z_now.copy()
        for _ in range(NEWTON_STEPS):
            depth = (APEX - z) / (APEX - BASE)
            z -= (z - drop * _step(depth) - z_now) / (1.0 + drop * _slope(depth) / (APEX - BASE))
        return _placed(points, inside, u, v, z)

    def inverse(self, points: Array) -> Array:
        """Map points (3, N) at rest to their place in the breathing subject."""
        inside, u, v, z = _within(points)
        return _placed(points, inside, u, v, z - self._drop(u, v) * _step((APEX - z) / (APEX - BASE)))

    def expansion(self, points: Array) -> Array:
        """By how much the breath enlarges the volume at points (3, N) at rest: the determinant of :meth:`inverse`."""
        inside, u, v, z = _within(points)
        drop, depth = self._drop(u, v), (APEX - z) / (APEX - BASE)
        (wide, _, deep), (wide_now, _, deep_now) = cavity_section(z), cavity_section(z - drop * _step(depth))
        ratio: Array = np.ones_like(points[0])
        ratio[inside] = wide_now / wide * deep_now / deep * (1.0 + drop * _slope(depth) / (APEX - BASE))
        return ratio

    def _drop(self, u: Array, v: Array) -> Array:
        """Descent below the diaphragm in mm."""
        core = (1.0 - self.core) * np.exp(-0.5 * ((u - MIDLINE) / SPREAD) ** 2)
        return np.asarray(self.descent * (1.0 - core) * (1.0 - self.tilt * v))


@dataclass(frozen=True)
class ChestExpansion:
    r"""How the breath moves the chest wall: to the front, to the sides and, the sternum, upwards.

    A point at rest first goes up by ``lift * s((y - a) / b)``, then out by ``outward * h(z) * s((y - a) / b)`` along y
    and ``sideward * h(z) * s((|x| - c) / d)`` along x, away from the midline; s is a smooth step, h one from the top of
    the chest to its base. Spine and back rest. :meth:`inverse` is that formula, from rest to the breathing subject;
    :meth:`forward` solves it by Newton's method up to rounding, one unknown at a time.

    Args:
        outward: how far the front wall goes out, mm.
        sideward: how far each side goes out, mm.
        lift: how far the front wall goes up, mm.
    """

    outward: float
    sideward: float = 0.0
    lift: float = 0.0

    def forward(self, points: Array) -> Array:
        """Map points (3, N) of the breathing subject to their place at rest."""
        height = self._height(points[2])
        aside = _pulled_back(np.abs(points[0]), self.sideward * height, STILL_X, REACH_X)
        y = _pulled_back(points[1], self.outward * height, STILL_Y, REACH_Y)
        z = points[2] - self.lift * _step((y - STILL_Y) / REACH_Y)
        return np.stack([np.copysign(aside, points[0]), y, z]).astype(points.dtype)

    def inverse(self, points: Array) -> Array:
        """Map points (3, N) at rest to their place in the breathing subject."""
        forward = _step((points[1] - STILL_Y) / REACH_Y)
        z = points[2] + self.lift * forward
        height = self._height(z)
        aside = np.abs(points[0])
        aside = aside + self.sideward * height * _step((aside - STILL_X) / REACH_X)
        y = points[1] + self.outward * height * forward
        return np.stack([np.copysign(aside, points[0]), y, z]).astype(points.dtype)

    def expansion(self, points: Array) -> Array:
        """By how much the breath enlarges the volume at points (3, N) at rest: the determinant of :meth:`inverse`."""
        forward = (points[1] - STILL_Y) / REACH_Y
        height = self._height(points[2] + self.lift * _step(forward))
        along_x = 1.0 + self.sideward * height * _slope((np.abs(points[0]) - STILL_X) / REACH_X) / REACH_X
        return np.asarray(along_x * (1.0 + self.outward * height * _slope(forward) / REACH_Y))

    @staticmethod
    def _height(z: Array) -> Array:
        """h: 0 at the top of the chest, 1 at its base and below."""
        return _step((110.0 - z) / 170.0)


def _within(points: Array) -> tuple[npt.NDArray[np.intp], Array, Array, Array]:
    """Which points lie in the cavity, and their u, v and z."""
    wide, middle, deep = cavity_section(points[2])
    u, v = points[0] / wide, (points[1] - middle) / deep
    inside = np.flatnonzero(in_chest_cavity(u, v))
    return inside, u[inside], v[inside], points[2, inside]


def _placed(points: Array, inside: npt.NDArray[np.intp], u: Array, v: Array, z: Array) -> Array:
    """Points, those in the cavity replaced by the places u, v, z."""
    wide, middle, deep = cavity_section(z)
    placed: Array = points.copy()
    placed[:, inside] = [u * wide, middle + v * deep, z]
    return placed


def _pulled_back(end: Array, push: Array, start: float, reach: float) -> Array:
    """Solve ``t + push * s((t - start) / reach) = end`` for t."""
    t: Array = end.copy()
    for _ in range(NEWTON_STEPS):
        part = (t - start) / reach
        t -= (t + push * _step(part) - end) / (1.0 + push * _slope(part) / reach)
    return t


def _oval(u: Array, v: Array) -> Array:
    """``(|u|^2.5 + |v|^2.5)^0.4``, 1 at the border of the oval."""
    u, v = np.abs(u), np.abs(v)
    return np.asarray(np.maximum(u * u * np.sqrt(u) + v * v * np.sqrt(v), 1e-6) ** 0.4)


def _power(t: Array) -> Array:
    """``t^1.5``."""
    return np.asarray(t * np.sqrt(t))


def _step(t: Array) -> Array:
    """The smooth step ``3 t^2 - 2 t^3`` from 0 to 1."""
    inside = np.clip(t, 0.0, 1.0)
    return np.asarray(inside * inside * (3.0 - 2.0 * inside))


def _slope(t: Array) -> Array:
    """Its derivative."""
    inside = np.clip(t, 0.0, 1.0)
    return np.asarray(6.0 * inside * (1.0 - inside))

"""Shapes given by signed distances, and a canvas that paints them with soft edges.

A shape is a function ``(3, N) points in mm -> (N,) distance in mm``, negative inside, together with the box it lives
in. The canvas paints shapes in order, each over what is there already; an edge is blended over one voxel, which is the
partial-volume effect of a scanner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

__all__ = ["Canvas", "Shape", "cut", "ellipsoid", "everywhere", "smooth_max", "superellipse", "tube"]

Array = npt.NDArray[Any]
Distance = Callable[[Array], Array]


@dataclass(frozen=True)
class Shape:
    """A signed distance (mm, negative inside) and the corners of the box outside of which it is positive."""

    distance: Distance
    low: tuple[float, ...] = (-np.inf,) * 3
    high: tuple[float, ...] = (np.inf,) * 3


def everywhere(distance: Distance) -> Shape:
    """A shape without a box."""
    return Shape(distance)


def smooth_max(a: Array, b: Array, width: float) -> Array:
    """Maximum of two distances with the edge rounded over ``width`` mm (polynomial smooth maximum)."""
    blend = np.maximum(width - np.abs(a - b), 0.0) / width
    rounded: Array = np.maximum(a, b) + blend * blend * width / 4
    return rounded


def cut(shape: Shape, *others: Distance, width: float = 6.0) -> Shape:
    """The part of a shape that lies inside all other distances, edges rounded over ``width`` mm."""

    def distance(p: Array) -> Array:
        d = shape.distance(p)
        for other in others:
            d = smooth_max(d, other(p), width)
        return d

    return Shape(distance, shape.low, shape.high)


def superellipse(x: Array, y: Array, radii: tuple[float, float], exponent: float = 2.0) -> Array:
    """Distance to ``|x/a|^n + |y/b|^n = 1``, exact to first order at the curve (the value over its gradient)."""
    u, v = np.abs(x) / radii[0], np.abs(y) / radii[1]
    rho = np.maximum(u**exponent + v**exponent, 1e-12) ** (1 / exponent)
    gradient = np.hypot((u / rho) ** (exponent - 1) / radii[0], (v / rho) ** (exponent - 1) / radii[1])
    distance: Array = (rho - 1) / np.maximum(gradient, 0.5 / max(radii))  # the gradient vanishes at the center
    return distance


def ellipsoid(center: Sequence[float], radii: Sequence[float], turn: Sequence[float] = (0.0, 0.0, 0.0)) -> Shape:
    """An ellipsoid, turned about x, y and z (degrees, in this order); distance to first order."""
    c, r = np.asarray(center, dtype=np.float32)[:, None], np.asarray(radii, dtype=np.float32)[:, None]
    rotation = rotation_matrix(np.deg2rad(turn)).astype(np.float32)

    def distance(p: Array) -> Array:
        q = rotation.T @ (p - c) / r
        rho = np.sqrt(np.sum(q * q, axis=0)) + 1e-6
        slope = np.sqrt(np.sum((q / r) ** 2, axis=0)) / rho + 1e-6
        return np.asarray((rho - 1) / slope)

    reach = np.sqrt(np.sum((rotation * r.T) ** 2, axis=1))
    return Shape(distance, tuple(c[:, 0] - reach), tuple(c[:, 0] + reach))


def rotation_matrix(angles: Sequence[float] | Array) -> Array:
    """Rotation about x, then y, then z, by angles in rad: ``Rz Ry Rx``."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def tube(knots: Sequence[tuple[float, float, float, float]], folds: float = 0.0) -> Shape:
    """A tube along a spline through knots ``(x, y, z, radius)``, as the union of balls strung on it.

    Args:
        knots: centers and radii in mm.
        folds: depth of periodic constrictions relative to the radius, as of the colon.
    """
    table = np.asarray(knots, dtype=float)
    chords = np.linalg.norm(np.diff(table[:, :3], axis=0), axis=1)
    position = np.concatenate([[0.0], np.cumsum(chords)])
    spline = CubicSpline(position, table) if len(table) > 2 else CubicSpline(position, table, bc_type="natural")
    s = np.linspace(0.0, position[-1], int(position[-1] / (0.35 * table[:, 3].min())) + 2)
    beads = spline(s).astype(np.float32)
    beads[:, 3] *= 1 - folds * (0.5 + 0.5 * np.cos(2 * np.pi * s / 26))

    def distance(p: Array) -> Array:
        nearest = np.full(p.shape[1], np.inf, dtype=np.float32)
        for x, y, z, r in beads:
            np.minimum(nearest, np.sqrt((p[0] - x) ** 2 + (p[1] - y) ** 2 + (p[2] - z) ** 2) - r, out=nearest)
        return nearest

    low, high = (beads[:, :3] - beads[:, 3:]).min(axis=0), (beads[:, :3] + beads[:, 3:]).max(axis=0)
    return Shape(distance, tuple(low), tuple(high))


class Canvas:
    """Intensities and labels at given points, painted shape by shape.

    Args:
        points: positions in mm, shape ``(3, N)``.
        background: intensity before anything is painted.
        edge: width in mm over which an edge is blended, about one voxel.
    """

    def __init__(self, points: Array, background: float, edge: float) -> None:
        self.points = points
        self.edge = edge
        self.image = np.full(points.shape[1], background, dtype=np.float32)
        self.label = np.zeros(points.shape[1], dtype=np.uint8)

    def paint(
        self,
        shape: Shape,
        value: float | Array,
        label: int | None = 0,
        rim: float = 0.0,
        content: float | Array | None = None,
    ) -> None:
        """Paint a shape over the canvas.

        Args:
            shape: what to paint.
            value: intensity, one number or one per point of the canvas.
            label: class of the painted points; None leaves the classes as they are, for what lies within an organ.
            rim: thickness in mm of the wall around the content.
            content: intensity within the rim, as ``value``; None makes the shape solid.
        """
        index = self._near(shape)
        if index.size == 0:
            return
        distance = shape.distance(self.points[:, index])
        layers = [(distance, value)] if content is None else [(distance, value), (distance + rim, content)]
        for depth, intensity in layers:
            touched = depth < self.edge / 2
            there, cover = index[touched], np.minimum(0.5 - depth[touched] / self.edge, 1.0)
            painted = intensity[there] if isinstance(intensity, np.ndarray) else intensity
            self.image[there] += cover * (painted - self.image[there])
        if label is not None:
            self.label[index[distance < 0]] = label

    def _near(self, shape: Shape) -> npt.NDArray[np.intp]:
        """Indices of the points within the shape's box, widened by the soft edge."""
        near = np.ones(self.points.shape[1], dtype=bool)
        for coordinate, low, high in zip(self.points, shape.low, shape.high, strict=True):
            if np.isfinite([low, high]).any():
                near &= (coordinate > low - self.edge) & (coordinate < high + self.edge)
        return np.flatnonzero(near)

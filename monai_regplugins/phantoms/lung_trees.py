"""Arteries, veins and bronchi of a lung: trees that fill it, known at every bifurcation, and how much they cover.

Source of the growth: Tawhai et al. 2000, "Generation of an anatomically based three-dimensional model of the conducting
airways", Ann. Biomed. Eng. 28: a branch grows part of the way to the center of the points it has to reach, a plane
splits these points in two, and each half is the task of one daughter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from monai_regplugins.phantoms.vessels import VesselTree

__all__ = ["cover", "grow_lung_tree", "main_airways"]

Array = npt.NDArray[Any]

PART_OF_THE_WAY = 0.38  # that a branch grows to the center of its points
TAPER = 0.96  # radius at the end of a branch, relative to its start
FEWEST = 8  # points that a branch still splits
PIECE = 7.0  # mm, length of the straight pieces that a branch bends by
THINNING = 1 / 3.5  # of a daughter's share of the points; her radius shrinks by it, 1 / 3, Murray's law, is less even


class _Branch(NamedTuple):
    start: Array
    heading: Array
    radius: float
    points: Array


def grow_lung_tree(rng: np.random.Generator, root: Array, heading: Array, radius: float, points: Array) -> VesselTree:
    """Grow a tree from its root to the points it has to reach.

    Args:
        rng: source of the random numbers.
        root: where the tree begins, (3,) in mm.
        heading: direction it begins in, (3,).
        radius: radius of the first branch in mm.
        points: places spread over the lung, (N, 3) in mm; the more, the finer the tree.

    Returns:
        Pieces, radii and bifurcations, all places (x, y, z); pieces and bifurcations from thick to thin.
    """
    curves: list[tuple[Array, Array]] = []
    splits: list[tuple[float, Array]] = []
    growing = [_Branch(root, heading / np.linalg.norm(heading), radius, points)]
    while growing:
        branch = growing.pop()
        curve, end_heading = _curve(branch, 1.0 if len(branch.points) < FEWEST else PART_OF_THE_WAY)
        curves.append((curve, np.linspace(branch.radius, TAPER * branch.radius, len(curve))))
        if len(branch.points) >= FEWEST:
            splits.append((branch.radius, curve[-1]))
            for half in _halves(rng, curve[-1], branch.points):
                share = len(half) / len(branch.points)
                thinner = TAPER * branch.radius * share**THINNING
                growing.append(_Branch(curve[-1], end_heading, thinner, half))
    starts, ends = (np.concatenate([curve[part] for curve, _ in curves]) for part in np.s_[:-1, 1:])
    radii = np.concatenate([np.stack([width[:-1], width[1:]], axis=1) for _, width in curves])
    order = np.argsort(-radii[:, 0], kind="stable")
    splits.sort(key=lambda split: -split[0])
    places = np.array([place for _, place in splits]).reshape(-1, 3)
    return VesselTree(starts[order], ends[order], radii[order], places)


def _curve(branch: _Branch, part: float) -> tuple[Array, Array]:
    """Places along a branch, that leaves in its heading and bends to its points, and the direction at its end."""
    end = branch.start + part * (branch.points.mean(axis=0) - branch.start)
    length = float(np.linalg.norm(end - branch.start)) + 1e-6
    knee = branch.start + 0.45 * length * branch.heading
    t = np.linspace(0.0, 1.0, int(length / PIECE) + 2)[:, None]
    curve = (1 - t) ** 2 * branch.start + 2 * t * (1 - t) * knee + t**2 * end
    heading = end - knee
    return curve, heading / (np.linalg.norm(heading) + 1e-6)


def _halves(rng: np.random.Generator, place: Array, points: Array) -> Iterator[Array]:
    """Two parts of the points, split across their longest axis at right angles to the way that leads to them."""
    offset = points - points.mean(axis=0)
    way = points.mean(axis=0) - place
    way /= np.linalg.norm(way) + 1e-6
    aside = offset - np.outer(offset @ way, way)
    position = offset @ np.linalg.eigh(aside.T @ aside)[1][:, -1]
    beyond = position > np.quantile(position, rng.uniform(0.36, 0.64))
    yield points[beyond]
    yield points[~beyond]


def main_airways(arteries: VesselTree, least: float, offset: Array) -> VesselTree:
    """The bronchi that run beside the thick arteries.

    Args:
        arteries: the arteries of a lung.
        least: radius in mm down to which an artery has a bronchus that is seen.
        offset: from the artery's axis to that of its bronchus, in radii of the artery, (3,).
    """
    thick = arteries.radii[:, 1] > least
    radii = arteries.radii[thick]
    starts, ends = (
        place[thick] + radii[:, [end]] * offset for end, place in enumerate((arteries.starts, arteries.ends))
    )
    return VesselTree(starts, ends, 0.8 * radii, np.zeros((0, 3)))


def cover(points: cKDTree, tree: VesselTree, edge: float) -> tuple[npt.NDArray[np.intp], Array]:
    r"""Which part of each voxel the pieces of a tree cover.

    As any soft edge a vessel covers ``clip(1/2 + (q - distance) / edge, 0, 1)``, ``distance`` from its axis. With
    ``q^2 = r^2 - edge^2 / 12`` the cover adds up to the cross-section of a vessel of radius r. One with ``r < edge /
    sqrt(3)`` has the profile of a cone, ``q = edge / 2``, of the height that adds up to it, ``3 r^2 / edge^2``.

    Args:
        points: centers of the voxels in mm, as a tree of places (N, 3).
        tree: the vessels.
        edge: size of a voxel in mm.

    Returns:
        Indices of the voxels that are touched, each once, and the part of each that is covered, 0 to 1.
    """
    reach = np.linalg.norm(tree.ends - tree.starts, axis=1) / 2 + tree.radii.max(axis=1) + edge
    near = points.query_ball_point((tree.starts + tree.ends) / 2, reach)
    counts = [len(found) for found in near]
    if sum(counts) == 0:
        return np.zeros(0, dtype=np.intp), np.zeros(0)
    piece = np.repeat(np.arange(len(near)), counts)
    there = np.concatenate([np.asarray(found, dtype=np.intp) for found in near])
    along = (tree.ends - tree.starts)[piece]
    offset = points.data[there] - tree.starts[piece]
    part = np.clip(np.sum(offset * along, axis=1) / (np.sum(along * along, axis=1) + 1e-12), 0.0, 1.0)
    radius = tree.radii[piece, 0] + part * (tree.radii[piece, 1] - tree.radii[piece, 0])
    distance = np.linalg.norm(offset - part[:, None] * along, axis=1) / edge
    size = (radius / edge) ** 2
    painted = np.clip(0.5 + np.sqrt(np.maximum(size - 1 / 12, 1 / 4)) - distance, 0.0, 1.0)
    covered = np.zeros(points.n)
    np.maximum.at(covered, there, painted * np.minimum(3 * size, 1.0))
    touched = np.flatnonzero(covered)
    return touched, covered[touched]

"""Branching vessels in a plane: grown at random, known at every bifurcation, painted with soft edges."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from monai_regplugins.phantoms.shapes import Canvas

__all__ = ["VesselTree", "grow_vessels", "paint_vessel_tree"]

Array = npt.NDArray[Any]

PIECES = 3  # straight pieces per branch, each turned a little
TURNS = (0.0, 0.3, -0.3, 0.6, -0.6)  # rad, tried in this order where a vessel meets the border


class VesselTree(NamedTuple):
    """Vessels as straight pieces with round ends.

    Attributes:
        starts: (S, 2), y and z in mm, as all places.
        ends: (S, 2).
        radii: (S, 2), mm, at the start and at the end of each piece.
        bifurcations: (N, 2), where a vessel splits in two.
    """

    starts: Array
    ends: Array
    radii: Array
    bifurcations: Array


class _Branch(NamedTuple):
    place: Array
    heading: float
    radius: float
    length: float
    generation: int


def grow_vessels(
    rng: np.random.Generator,
    root: tuple[float, float],
    headings: Array,
    radius: float,
    length: float,
    generations: int,
    inside: Callable[[Array], bool],
) -> VesselTree:
    """Grow vessels from a root: each bends at random, turns away from borders, and splits in two, thinner and shorter.

    Args:
        rng: source of the random numbers.
        root: y and z in mm.
        headings: directions of the first vessels, rad from y towards z.
        radius: of the first vessels in mm.
        length: of the first vessels in mm.
        generations: number of times a vessel splits.
        inside: whether a vessel may pass a place (2,); it ends before one where it may not.
    """
    pieces: list[tuple[Array, Array, tuple[float, float]]] = []
    splits: list[Array] = []
    growing = [_Branch(np.array(root), heading, radius, length, 0) for heading in headings]
    while growing:
        place, heading, start_radius, reach, generation = growing.pop()
        end_radius = 0.75 * start_radius
        widths = np.linspace(start_radius, end_radius, PIECES + 1)
        for near, far in pairwise(widths):
            heading += rng.normal(0.0, 0.12)
            found = _next_place(place, heading, reach / PIECES, inside)
            if found is None:
                break
            target, heading = found
            pieces.append((place, target, (near, far)))
            place = target
        else:
            if generation < generations:
                splits.append(place)
                growing += _children(rng, _Branch(place, heading, end_radius, reach, generation))
    starts, ends, radii = (np.array(column).reshape(-1, 2) for column in zip(*pieces, strict=True))
    return VesselTree(starts, ends, radii, np.array(splits).reshape(-1, 2))


def _next_place(
    place: Array, heading: float, reach: float, inside: Callable[[Array], bool]
) -> tuple[Array, float] | None:
    """Where a piece ends and its direction: straight on, or as little aside as needed; None where all is blocked."""
    for turn in TURNS:
        target = place + reach * np.array([np.cos(heading + turn), np.sin(heading + turn)])
        if inside(target):
            return target, heading + turn
    return None


def _children(rng: np.random.Generator, parent: _Branch) -> list[_Branch]:
    """Two vessels, one on each side of the old direction."""
    turns = rng.uniform(0.25, 0.65, 2) * (1, -1)
    radii = parent.radius * rng.uniform(0.62, 0.95, 2)
    lengths = parent.length * rng.uniform(0.65, 0.95, 2)
    return [
        _Branch(parent.place, parent.heading + float(turn), float(radius), float(length), parent.generation + 1)
        for turn, radius, length in zip(turns, radii, lengths, strict=True)
    ]


def paint_vessel_tree(canvas: Canvas, tree: VesselTree, value: float) -> None:
    """Paint vessels over the canvas, brighter than what is there; classes stay as they are.

    A vessel thinner than 2.5 mm takes only part of a slice's thickness and is fainter in proportion.

    Args:
        canvas: what to paint on, points (3, N).
        tree: the vessels.
        value: intensity of blood.
    """
    points = canvas.points[1:].T.astype(float)
    reach = np.linalg.norm(tree.ends - tree.starts, axis=1) / 2 + tree.radii.max(axis=1) + canvas.edge
    near = cKDTree(points).query_ball_point((tree.starts + tree.ends) / 2, reach)
    piece = np.repeat(np.arange(len(near)), [len(found) for found in near])
    if piece.size == 0:
        return
    there = np.concatenate([np.asarray(found, dtype=np.intp) for found in near])
    along = (tree.ends - tree.starts)[piece]
    offset = points[there] - tree.starts[piece]
    part = np.clip(np.sum(offset * along, axis=1) / np.sum(along * along, axis=1), 0.0, 1.0)
    radius = tree.radii[piece, 0] + part * (tree.radii[piece, 1] - tree.radii[piece, 0])
    depth = np.linalg.norm(offset - part[:, None] * along, axis=1) - radius
    cover = np.clip(0.5 - depth / canvas.edge, 0.0, 1.0) * np.minimum(radius / 2.5, 1.0)
    strongest = np.zeros(len(points))
    np.maximum.at(strongest, there, cover)
    canvas.image += (strongest * np.maximum(value - canvas.image, 0.0)).astype(canvas.image.dtype)

"""Figure of motion separability: bounds of network geometries and measured pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from monai_regplugins.checks import InputError
from monai_regplugins.metrics.separability import MotionSeparability

__all__ = ["separability_figure"]

Array = npt.NDArray[Any]


def separability_figure(
    bounds: Mapping[str, MotionSeparability],
    densities: Mapping[str, Array] | None = None,
    max_distance: float = 60.0,
) -> Figure:
    """Draw the bounds of some geometries and, where there are any, the pairs of points that networks have separated.

    First row (RAN paper, Fig. 3c and d): the accessible motion range of each level, and the largest motion difference
    Delta(p) over the distance p of two points. Second row (Fig. 7): the density of each network with the Delta(p) of
    the bound of the same name in it, and the differences of the densities, each to the one before: red near the left
    top means that the later network separates near points better.

    Args:
        bounds: geometries by name.
        densities: shares of pairs by name, each (P, Q) and of one shape, see
            :meth:`~monai_regplugins.metrics.separability.MotionPairs.density`.
        max_distance: right end of the axis of Delta(p), in voxels.

    Returns:
        The figure; no global state of matplotlib is touched.

    Raises:
        InputError: When there is no geometry, or the densities differ in shape.
    """
    densities = densities or {}
    if not bounds or len({density.shape for density in densities.values()}) > 1:
        raise InputError(
            "there are no bounds, or densities of several shapes, expected at least one bound and one shape; "
            "use the same max_distance and max_difference for all."
        )
    columns = max(2 * len(densities) - 1, 2)
    figure = Figure(figsize=(max(3.4 * columns, 9.0), 7.2 if densities else 3.7), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(2 if densities else 1, 1, squeeze=False)[:, 0]
    _draw_bounds(rows[0], bounds, max_distance)
    if densities:
        _draw_densities(rows[1].subplots(1, 2 * len(densities) - 1, squeeze=False)[0], bounds, densities)
    return figure


def _draw_bounds(row: SubFigure, bounds: Mapping[str, MotionSeparability], max_distance: float) -> None:
    """Draw ranges and Delta(p) of all geometries."""
    left, right = row.subplots(1, 2)
    for name, bound in bounds.items():
        left.plot(bound.ranges, marker="o", markersize=4, label=name)
        starts = [0.0, *bound.thresholds[::-1]]
        right.step([*starts, max(max_distance, starts[-1])], [0, *bound.values[::-1], bound.values[0]], where="post")
    left.set(title="accessible motion range", xlabel="level k, coarse to fine", ylabel="$a_k$ (voxels)")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(title="motion separability", xlabel="distance p (voxels)", ylabel=r"$\Delta_\infty(p)$ (voxels)")
    right.set(xlim=(0, max_distance), ylim=(0, 1.05 * max(bound.difference(max_distance) for bound in bounds.values())))
    left.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)


def _draw_densities(
    row: Sequence[Axes], bounds: Mapping[str, MotionSeparability], densities: Mapping[str, Array]
) -> None:
    """Draw all densities in one color window, then all differences in another."""
    highest = max(float(density.max()) for density in densities.values())
    for axes, (name, density) in zip(row, densities.items(), strict=False):
        _draw_map(axes, density, name, "viridis", (0, highest))
        if name in bounds:
            distances = range(1, len(density) + 1)
            limits = [bounds[name].difference(p) for p in distances]
            axes.step(distances, limits, where="mid", color="white", linewidth=1)
    differences = {f"{b} - {a}": densities[b] - densities[a] for a, b in pairwise(densities)}
    widest = max((float(np.abs(one).max()) for one in differences.values()), default=0.0)
    for axes, (name, difference) in zip(row[len(densities) :], differences.items(), strict=True):
        _draw_map(axes, difference, name, "RdBu_r", (-widest, widest))


def _draw_map(axes: Axes, values: Array, title: str, colors: str, window: tuple[float, float]) -> None:
    """Draw one map (P, Q), the distance to the right, the difference upward."""
    p, q = values.shape
    low, high = window
    high = high or 1.0  # an empty map
    shown = axes.imshow(
        values.T, cmap=colors, vmin=low, vmax=high, origin="lower", extent=(0.5, p + 0.5, 0, q), aspect="auto"
    )
    axes.set(title=title, xlabel="distance (voxels)", ylabel="motion difference (voxels)", ylim=(0, q))
    axes.figure.colorbar(shown, ax=axes, format="%.1g")

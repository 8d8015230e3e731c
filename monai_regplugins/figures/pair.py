"""Figure of one registered pair for visual assessment: images, differences, contours, deformed grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import contourpy
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from monai_regplugins.fields import jacobian_determinant, sample_at, warp
from monai_regplugins.metrics.pair import pair_metrics
from monai_regplugins.verdict.judge import judge

__all__ = ["PANELS", "draw_pair", "pair_figure", "panels_of"]

Array = npt.NDArray[Any]

COLORS = ("#ff595e", "#ffca3a", "#8ac926", "#36c9c6", "#4d96ff", "#c77dff", "#ff924c", "#f15bb5", "#b8f2e6", "#d4a373")
GRID_LINES = 24  # along the longest side of a plane
WINDOW_VOXELS = 500_000  # so many determine the windows of gray and color; more take longer and add nothing
PANELS = "Panels"  # text of a PNG file: where its panels lie, see panels_of
PANEL, GAP = 2.53, 0.07  # inches: the width of a panel, and what lies between two
ROW_GAP, HEAD = 0.14, 0.64  # between two rows, and above the first for the titles
KEY = 10  # labels whose numbers are written
BAR = (0.06, 0.08, 0.9)  # of the scale of the displacement: distance to the edges of its panel, width, height
MASK_KEYS = ("fixed_mask", "moving_mask", "warped_mask")
POINT_KEYS = (("fixed_landmarks", "moving_landmarks"), ("fixed_keypoints", "moving_keypoints"))
NEAR = 1.5  # voxels from a plane, within which points are drawn in it
LEFT_OUT, SHADE = (0.16, 0.23, 0.38), 0.75  # color of what does not count, and how much of an image it covers


def draw_pair(
    item: Mapping[str, Any],
    output: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    judged: bool = True,
    note: str = "",
) -> Figure:
    """Draw a pair from its item of the batch and its item of the engine's output, both decollated.

    Args:
        item: of the batch.
        output: of the engine.
        metrics: the pair's measures, if they are known already.
        judged: whether the title says the verdict on them, which wants evidence that an evaluation does not collect.
        note: what the title says after the name of the pair.
    """
    pred, targets = output["pred"], output["label"]
    return pair_figure(
        targets["moving"],
        targets["fixed"],
        pred["warped"],
        pred["ddf"],
        targets["spacing"],
        targets.get("moving_label"),
        targets.get("fixed_label"),
        affine=getattr(item.get("fixed"), "affine", None),
        title=str(item.get("pair_id", "")) + note + _start_of(metrics or {}) + _level_of(metrics if judged else None),
        metrics=metrics,
        warped_label=pred.get("warped_label"),
        masks=[pred.get(key, targets.get(key)) for key in MASK_KEYS],
        points=next(((targets[one], targets[other]) for one, other in POINT_KEYS if {one, other} <= {*targets}), None),
    )


def _level_of(metrics: Mapping[str, float] | None) -> str:
    """The verdict on the measures, for a title; nothing if there are none."""
    return "" if metrics is None else f": {judge(metrics).level}"


def _start_of(metrics: Mapping[str, float]) -> str:
    """Where the instance optimization began and by how much it is better than the aligned pair, for a title."""
    if "from_network" not in metrics:
        return ""
    start = "the network's field" if metrics["from_network"] else "the aligned pair"
    start = "the discrete search" if metrics.get("from_search") else start
    gain = metrics["unused"] - metrics["unused_aligned"]
    return f" (from {start}, {f'similarity {gain:+.3f}' if gain else 'which is kept'})"


class Plane(NamedTuple):
    """One plane through the volume: its normal axis (None in 2D), its position, and how it lies on the page."""

    normal: int | None
    position: int
    across: int  # array axis that runs from left to right
    upward: int  # array axis that runs along the page's height
    mirrored: bool  # whether the first voxel is at the right
    upright: bool  # whether the first voxel is at the bottom

    def cut(self, volume: Array) -> Array:
        """Return the plane of a volume ``(*spatial)``, rows along the height of the page."""
        plane: Array = volume if self.normal is None else volume[(slice(None),) * self.normal + (self.position,)]
        return np.transpose(plane) if self.across < self.upward else plane

    def show(self, axes: Axes, spacing: Sequence[float]) -> None:
        """Turn the axes as the plane lies, in voxels of true proportion, without ticks."""
        axes.set_aspect(spacing[self.upward] / spacing[self.across])
        axes.set(xticks=[], yticks=[])
        if self.mirrored:
            axes.invert_xaxis()
        if axes.yaxis_inverted() == self.upright:
            axes.invert_yaxis()


class Panel(NamedTuple):
    """A place on the page, inches, where the plane of an image lies; left is the side of its first column."""

    left: float
    right: float
    bottom: float
    top: float

    def place(self, points: Array, shape: Sequence[int]) -> Array:
        """Return the places on the page of points (..., 2), column and row, of a plane of so many rows and columns."""
        rows, columns = shape
        share = (points + 0.5) / (columns, rows)
        start, end = (self.left, self.bottom), (self.right, self.top)
        return np.asarray(start + share * np.subtract(end, start))

    def outline(self) -> Array:
        """Return its corners, (5, 2), the first one twice."""
        across, up = (self.left, self.right), (self.bottom, self.top)
        return np.array([(across[i], up[j]) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))])


def pair_figure(
    moving: Tensor,
    fixed: Tensor,
    warped: Tensor,
    ddf: Tensor,
    spacing: Sequence[float] | Tensor,
    moving_label: Tensor | None = None,
    fixed_label: Tensor | None = None,
    affine: Tensor | Array | None = None,
    title: str = "",
    metrics: Mapping[str, float] | None = None,
    warped_label: Tensor | None = None,
    masks: Sequence[Tensor | None] = (),
    points: tuple[Tensor, Tensor] | None = None,
) -> Figure:
    """Draw a registered pair.

    Columns: fixed, moving and warped image in one gray window, the differences of moving and of warped to fixed in one
    color window, and the length of the displacement, whose scale in mm is in the first row, under the field as a grid:
    each line joins the points x + u(x) of a straight line of fixed voxels; where they fold there are red dots. What
    does not count, such as padding, is covered in blue and determines no window. Contours of an image's own labels are
    solid, those of the fixed labels beside them dotted, in the colors of the numbers in the first panel. A line from a
    fixed point, a cross, shows its error: before in the moving, after in the warped image. One row per orthogonal
    plane, through the largest cross section of the labels or else of the fixed mask, or the brightest one; a single row
    in 2D.

    Args:
        moving: moving image on the fixed grid, after the initial alignment, shape ``(1, *spatial)``, 2D or 3D, as all
            others.
        fixed: fixed image.
        warped: moving image after the registration.
        ddf: displacement field in voxels, shape ``(d, *spatial)``.
        spacing: voxel size along each axis in mm, shape (d,).
        moving_label: label map of the moving image, for the overlap.
        fixed_label: label map of the fixed image.
        affine: voxel-to-world matrix (RAS) of the fixed grid; the image then lies as radiologists look at it. Without
            it the first voxel of a volume is at the lower left, and a slice has its first row on top.
        title: name of the pair.
        metrics: the measures for the titles, as :func:`~monai_regplugins.metrics.pair_metrics` names them; None
            measures the pair.
        warped_label: label map of the moving image after the registration; by default the one of the moving image,
            warped by the field.
        masks: voxels that count of the fixed, the moving and the warped image, each None for all.
        points: corresponding points of fixed and moving image, (N, d) each, voxels of the fixed grid.

    Returns:
        The figure, to be saved with ``savefig``; no global state of matplotlib is touched. All panels lie in its one
        pair of axes, in inches: eighteen pairs with their ticks and labels take several times as long.
    """
    values = metrics or pair_metrics(
        moving=moving,
        fixed=fixed,
        warped=warped,
        ddf=ddf,
        spacing=spacing,
        moving_label=moving_label,
        fixed_label=fixed_label,
        surface=False,
    )
    steps = [float(step) for step in spacing]
    images = {name: _array(image[0]) for name, image in (("fixed", fixed), ("moving", moving), ("warped", warped))}
    labels = None if fixed_label is None else fixed_label[0].detach().cpu().numpy()
    carried = _labels_of(moving_label, warped_label, ddf)
    counts = [None if mask is None else _array(mask[0]) > 0 for mask in (*masks, None, None, None)][:3]
    gray, strongest = _windows(images["fixed"], images["moving"], *counts[:2])
    regions = (labels, counts[0], images["fixed"])
    planes = planes_through(next(one if one is regions[2] else one != 0 for one in regions if one is not None), affine)
    axes, rows = _page(planes, images["fixed"].shape, steps)
    field = _array(ddf)
    longest = float(np.percentile(_lengths([one[_step(one)] for one in field], steps), 99.5)) or 1.0
    for plane, panels in zip(planes, rows, strict=True):
        cuts = [plane.cut(image) for image in images.values()]
        differences = [np.abs(cuts[0] - other) for other in cuts[1:]]
        for panel, cut in zip(panels[:3], cuts, strict=True):
            axes.imshow(cut, cmap="gray", vmin=gray[0], vmax=gray[1], **_lying(panel))
        for panel, cut in zip(panels[3:5], differences, strict=True):
            axes.imshow(cut, cmap="magma", vmin=0, vmax=strongest, **_lying(panel))
        axes.imshow(
            _lengths([plane.cut(one) for one in field], steps),
            cmap="viridis",
            vmin=0,
            vmax=longest,
            **_lying(panels[5]),
        )
        _cover(axes, panels, plane, counts)
        if labels is not None:
            _draw_contours(axes, panels[:3], [plane.cut(labels), *(plane.cut(one) for one in carried)])
        if points is not None:
            _draw_points(axes, panels, plane, ddf, *points)
        _draw_grid(axes, panels[5], plane, field)
    _draw_scale(axes, rows[0][5], longest)
    if labels is not None:
        _draw_key(axes, rows[0][0], labels)
    axes.add_collection(
        LineCollection([panel.outline() for row in rows for panel in row], colors="black", linewidths=0.8)
    )
    _write_titles(axes, rows[0], _column_titles(values, bool(carried)), title)
    return axes.figure  # type: ignore[return-value]


def panels_of(figure: Figure) -> dict[str, list[float]]:
    """Return where the fixed and the warped image lie on the page, in the first row of it.

    Args:
        figure: of :func:`pair_figure`.

    Returns:
        Left, top, right and bottom of the panels ``fixed`` and ``warped``, as shares of the page; empty for a figure
        without images.
    """
    shown = [image for axes in figure.axes for image in axes.images]
    if not shown:
        return {}
    width, height = figure.get_size_inches()
    panels = {}
    for name, column in (("fixed", 0), ("warped", 2)):
        left, right, bottom, top = shown[column].get_extent()
        across, up = sorted((left / width, right / width)), sorted((1 - bottom / height, 1 - top / height))
        panels[name] = [float(end) for end in (across[0], up[0], across[1], up[1])]
    return panels


def _labels_of(moving_label: Tensor | None, warped_label: Tensor | None, ddf: Tensor) -> list[Array]:
    """The moving and the warped label map, none without a moving one."""
    if moving_label is None:
        return []
    moved = warp(moving_label[None], ddf[None], mode="nearest")[0] if warped_label is None else warped_label
    return [one[0].detach().cpu().numpy() for one in (moving_label, moved)]


def _array(tensor: Tensor) -> Array:
    """Return a tensor as a float32 array."""
    return tensor.detach().cpu().float().numpy()


def _step(image: Array) -> tuple[slice, ...]:
    """Every so many voxels, of which there are enough to state a window."""
    return (slice(None, None, math.ceil((image.size / WINDOW_VOXELS) ** (1 / image.ndim))),) * image.ndim


def _lengths(components: Sequence[Array], steps: Sequence[float]) -> Array:
    """Lengths of displacements in mm."""
    lengths: Array = np.sqrt(sum((one * float(step)) ** 2 for one, step in zip(components, steps, strict=True)))
    return lengths


def _windows(fixed: Array, moving: Array, *counts: Array | None) -> tuple[Array, float]:
    """Return the gray window of what counts of two images, and the top of the color window of their difference."""
    step = _step(fixed)
    some = [image[step] for image in (fixed, moving)]
    inside = [np.ones(some[0].shape, dtype=bool) if mask is None else mask[step] for mask in (*counts, None, None)][:2]
    both = inside[0] & inside[1]
    if not both.any():
        return _windows(fixed, moving)
    strongest = float(np.percentile(np.abs(some[0] - some[1])[both], 99.5))
    values = np.concatenate([image[mask] for image, mask in zip(some, inside, strict=True)])
    return np.percentile(values, [0.5, 99.5]), strongest or 1.0


def _cover(axes: Axes, panels: Sequence[Panel], plane: Plane, counts: Sequence[Array | None]) -> None:
    """Cover what does not count of the images, and of their differences what does not count of either."""
    for panel, numbers in zip(panels, ((0,), (1,), (2,), (0, 1), (0, 2)), strict=False):
        masks = [mask for number in numbers if (mask := counts[number]) is not None]
        covered = ~np.logical_and.reduce([plane.cut(mask) for mask in masks]) if masks else np.zeros(1)
        if covered.any():
            shade = np.array([*LEFT_OUT, 1.0 if len(numbers) > 1 else SHADE])
            axes.imshow(covered[..., None] * shade, **_lying(panel))


def _draw_points(axes: Axes, panels: Sequence[Panel], plane: Plane, ddf: Tensor, fixed: Tensor, moving: Tensor) -> None:
    """Mark the fixed points near a plane, and draw their errors before, and after the registration."""
    found = sample_at(ddf[None].float().cpu(), fixed[None].float().cpu())[0].numpy()
    points, before = (one.detach().cpu().double().numpy() for one in (fixed, moving - fixed))
    near = np.ones(len(points), bool) if plane.normal is None else abs(points[:, plane.normal] - plane.position) <= NEAR
    axis, shape = [plane.across, plane.upward], plane.cut(ddf[0].numpy()).shape
    for panel, error in zip(panels, (0 * before, before, before - found), strict=False):
        ends = [panel.place(one[near][:, axis], shape) for one in (points, points + error)]
        axes.add_collection(LineCollection(list(np.stack(ends, axis=1)), colors="yellow", linewidths=0.9))
        axes.plot(*ends[0].T, "+", color="yellow", markersize=4, markeredgewidth=0.8)


def _draw_scale(axes: Axes, panel: Panel, longest: float) -> None:
    """Draw the colors of the displacement's length, mm, into a corner of its panel."""
    gap, width, height = BAR
    left, top = min(panel.left, panel.right) + gap, max(panel.bottom, panel.top) - gap
    height = min(height, abs(panel.top - panel.bottom) - 2 * gap)
    bar: dict[str, Any] = {"extent": (left, left + width, top - height, top), "origin": "lower", "aspect": "auto"}
    axes.imshow(np.linspace(0, 1, 64)[:, None], cmap="viridis", zorder=3, **bar)
    for place, text in ((top, f"{longest:.3g} mm"), (top - height, "0")):
        side = "top" if place == top else "bottom"
        axes.text(left + width + 0.04, place, text, fontsize=7, color="white", va=side, zorder=3)


def _draw_key(axes: Axes, panel: Panel, labels: Array) -> None:
    """Write the numbers of the labels in their colors into the lower left corner of a panel."""
    left, bottom = min(panel.left, panel.right) + BAR[0], min(panel.bottom, panel.top) + 0.04
    known = np.unique(labels[labels != 0])
    for number, label in enumerate(known[:KEY]):
        place = (left + number * PANEL / KEY, bottom)
        axes.text(*place, f"{label:g}", fontsize=7, color=_color(label), va="bottom", zorder=3)


def _color(label: float) -> str:
    """The color of a label."""
    return COLORS[int(label - 1) % len(COLORS)]


def _column_titles(values: Mapping[str, float], outlined: bool = False) -> list[str]:
    """Name the six columns, with the measures before and after, and say what outlines are."""

    def measures(suffix: str) -> str:
        dsc = f"DSC {values['dsc' + suffix]:.3f}, " if "dsc" in values else ""
        tre = f", TRE {values['tre' + suffix]:.2f} mm" if "tre" in values else ""
        return f"{dsc}NCC {values['ncc' + suffix]:.3f}{tre}"

    aligned = "ncc_aligned" in values
    return [
        f"fixed\n{'outlines: — own, ··· fixed labels' * outlined}",
        f"moving, aligned\n{measures('_aligned')}" if aligned else f"moving\n{measures('_before')}",
        f"warped\n{measures('')}",
        "|fixed - moving|\nbefore",
        "|fixed - warped|\nafter",
        f"displacement, as a grid\nfolding {values['folding_percent']:.2g} %",
    ]


def planes_through(region: Array, affine: Tensor | Array | None) -> list[Plane]:
    """Choose the planes, (axial, coronal, sagittal) of a volume, with most of the region ``(*spatial)`` in them."""
    if region.ndim == 2:
        return [slice_plane(affine)]
    world = np.eye(3) if affine is None else np.asarray(affine, dtype=np.float64)[:3, :3]
    right, front, top = _closest_axes(world)
    planes = []
    for normal, across, upward in ((top, right, front), (front, right, top), (right, front, top)):
        others = tuple(axis for axis in range(3) if axis != normal)
        position = int(region.sum(axis=others, dtype=np.float64).argmax())
        to_right = world[[right, front, top].index(across), across] > 0
        upright = world[[right, front, top].index(upward), upward] > 0
        planes.append(Plane(normal, position, across, upward, affine is not None and bool(to_right), bool(upright)))
    return planes


def slice_plane(affine: Tensor | Array | None) -> Plane:
    """Lay a slice with the head on top if its affine states where that is, else with its first row on top."""
    world = np.eye(3) if affine is None else np.asarray(affine, dtype=np.float64)
    heights = world[2, :2] / np.linalg.norm(world[:3, :2], axis=0) if world.shape == (4, 4) else np.zeros(2)
    upward = int(np.abs(heights).argmax())
    if abs(heights[upward]) < 0.5:
        return Plane(None, 0, across=0, upward=1, mirrored=False, upright=False)
    sideways = world[:2, 1 - upward]  # to the right or to the front; both are shown on the left
    mirrored = bool(sideways[np.abs(sideways).argmax()] > 0)
    return Plane(None, 0, across=1 - upward, upward=upward, mirrored=mirrored, upright=bool(heights[upward] > 0))


def _closest_axes(world: Array) -> list[int]:
    """Return for each world axis (right, front, top) the array axis that lies closest to it, each once."""
    strength = np.abs(world / np.linalg.norm(world, axis=0))
    chosen: list[int] = []
    for direction in strength:
        chosen.append(max((axis for axis in range(3) if axis not in chosen), key=lambda axis: float(direction[axis])))
    return chosen


def _page(planes: Sequence[Plane], shape: Sequence[int], spacing: Sequence[float]) -> tuple[Axes, list[list[Panel]]]:
    """Return the axes of an empty page, and on it a row of six panels per plane, as high as the plane needs."""
    extent = [size * step for size, step in zip(shape, spacing, strict=True)]
    heights = [PANEL * extent[plane.upward] / extent[plane.across] for plane in planes]
    width, height = 6 * (PANEL + GAP), sum(heights) + len(planes) * ROW_GAP + HEAD
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    axes.set_autoscale_on(False)
    rows, top = [], height - HEAD
    for plane, high in zip(planes, heights, strict=True):
        rows.append([_panel(plane, GAP / 2 + column * (PANEL + GAP), top, high) for column in range(6)])
        top -= high + ROW_GAP
    return axes, rows


def _panel(plane: Plane, left: float, top: float, height: float) -> Panel:
    """Return the panel with this upper left corner, turned as the plane lies."""
    across, up = (left, left + PANEL), (top - height, top)
    return Panel(*(across[::-1] if plane.mirrored else across), *(up if plane.upright else up[::-1]))


def _lying(panel: Panel) -> dict[str, Any]:
    """Return the words that make ``imshow`` fill a panel."""
    return {"extent": panel, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}


def _draw_contours(axes: Axes, panels: Sequence[Panel], maps: Sequence[Array]) -> None:
    """Draw the outline of every label in its color: of each panel's own map, the fixed one first, and of that."""
    outlines = [_outlines(labels) for labels in maps]
    for number, panel in enumerate(panels):
        if number < len(maps):
            _draw_outlines(axes, panel, maps[0].shape, outlines[number], "solid")
        if number:
            _draw_outlines(axes, panel, maps[0].shape, outlines[0], "dotted")


def _outlines(labels: Array) -> list[tuple[Array, str]]:
    """The outlines of every label of a plane, each (N, 2), column and row, with its color."""
    found = []
    for label in np.unique(labels[labels != 0]):
        lines: list[Any] = list(contourpy.contour_generator(z=(labels == label).astype(np.float32)).lines(0.5))
        found += [(line, _color(label)) for line in lines]
    return found


def _draw_outlines(
    axes: Axes, panel: Panel, shape: Sequence[int], outlines: Sequence[tuple[Array, str]], style: str
) -> None:
    """Draw outlines of a plane of so many rows and columns in a panel."""
    lines, colors = [panel.place(line, shape) for line, _ in outlines], [color for _, color in outlines]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.9, linestyles=style))


def _draw_grid(axes: Axes, panel: Panel, plane: Plane, ddf: Array) -> None:
    """Draw straight lines of fixed voxels where the field ``(d, *spatial)`` takes them, within the plane."""
    across, upward = plane.cut(ddf[plane.across]), plane.cut(ddf[plane.upward])
    rows, columns = np.indices(across.shape, dtype=np.float32)
    points = panel.place(np.stack([columns + across, rows + upward], axis=-1), across.shape)
    step = max(1, round(max(across.shape) / GRID_LINES))
    lines = [*points[step // 2 :: step], *points[:, step // 2 :: step].swapaxes(0, 1)]
    grid = LineCollection(lines, colors="white", linewidths=0.5)
    axes.add_collection(grid)
    (dots,) = axes.plot(*points[_folds(plane, ddf)].T, ".", color="red", markersize=1.5)
    corner = (panel.left, panel.bottom)
    for drawn in (grid, dots):
        box = Rectangle(corner, panel.right - panel.left, panel.top - panel.bottom, transform=axes.transData)
        drawn.set_clip_path(box)


def _folds(plane: Plane, ddf: Array) -> Array:
    """Where the field ``(d, *spatial)`` folds within the plane; of a volume, three planes state."""
    near, middle = ddf, 0
    if plane.normal is not None:
        first = max(plane.position - 1, 0)
        near = ddf[(slice(None),) * (plane.normal + 1) + (slice(first, plane.position + 2),)]
        middle = plane.position - first
    folded = jacobian_determinant(torch.from_numpy(np.ascontiguousarray(near))[None])[0].numpy() <= 0
    return plane._replace(position=middle).cut(folded.reshape(near.shape[1:]))


def _write_titles(axes: Axes, panels: Sequence[Panel], titles: Sequence[str], title: str) -> None:
    """Write the title of each column above its first panel, and that of the page on top."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    for panel, text in zip(panels, titles, strict=True):
        middle = (panel.left + panel.right) / 2
        axes.text(middle, max(panel.bottom, panel.top) + 0.06, text, fontsize=9, ha="center", va="bottom")
    axes.text(width / 2, height - 0.02, title, fontsize=11, ha="center", va="top")

"""Figure of one registered pair for visual assessment: images, differences, contours, deformed grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import contourpy
import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import Tensor

from monai_regplugins.fields import jacobian_determinant, sample_at, warp
from monai_regplugins.grids import above_zero, inside_mask
from monai_regplugins.metrics.pair import pair_metrics
from monai_regplugins.transforms.measured import COVERED
from monai_regplugins.verdict.judge import judge

__all__ = ["PANELS", "DrawnImage", "draw_pair", "pair_figure", "panels_of"]

Array = npt.NDArray[Any]

COLORS = (
    *("#ff595e", "#ffca3a", "#8ac926", "#36c9c6", "#4d96ff", "#c77dff"),
    *("#ff924c", "#f15bb5", "#b8f2e6", "#d4a373", "#ffffff", "#00a36c"),
)
GRID_LINES = 24  # along the longest side of a plane
WINDOW_VOXELS = 500_000  # so many determine the windows of gray and color; more take longer and add nothing
PANELS = "Panels"  # text of a PNG file: where its panels lie, see panels_of
PANEL, GAP = 2.53, 0.07  # inches: the width of a panel, and what lies between two
ROW_GAP, HEAD = 0.14, 0.7  # between two rows, and above the first for the titles
DIGIT, KEY_SIZE = 0.08, 9.5  # of the numbers of labels: inches, points
BAR = (0.06, 0.08, 0.9)  # of the scale of the displacement: distance to the edges of its panel, width, height
LETTER = 0.1  # inches: the distance of the middle of a letter of the body's directions to its edge
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
MASK_KEYS = ("fixed_mask", "moving_mask", "warped_mask")
POINT_KEYS = (("fixed_landmarks", "moving_landmarks"), ("fixed_keypoints", "moving_keypoints"))
NEAR = 1.5  # voxels from a plane, within which points are drawn in it
LEFT_OUT, SHADE = (0.16, 0.23, 0.38), 0.75  # color of what does not count, and how much of an image it covers
SHADOW: dict[str, Any] = {"color": "black", "alpha": 0.6, "linewidth": 0, "zorder": 3}  # behind what is written
SMALL: dict[str, Any] = {"color": "white", "fontsize": 7.5, "zorder": 3.1}


class DrawnImage(NamedTuple):
    """An image on the fixed grid with what belongs to it.

    Attributes:
        image: shape ``(1, *spatial)``.
        label: its label map.
        mask: its voxels that count; None for all.
        points: corresponding to those of the fixed image, (N, d), voxels of the fixed grid.
    """

    image: Tensor
    label: Tensor | None = None
    mask: Tensor | None = None
    points: Tensor | None = None


def draw_pair(
    item: Mapping[str, Any],
    output: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    judged: bool = True,
    note: str = "",
    given: DrawnImage | None = None,
) -> Figure:
    """Draw a pair from its item of the batch and its item of the engine's output, both decollated.

    Args:
        item: of the batch.
        output: of the engine.
        metrics: the pair's measures, if they are known already.
        judged: whether the title says the verdict on them, which wants evidence that an evaluation does not collect.
        note: what the title says after the name of the pair.
        given: the moving image before the initial alignment, if there was one.
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
        given=given,
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
    letters: str = ""  # directions of the body at the left and on top; empty where none is known

    def cut(self, volume: Array) -> Array:
        """Return the plane of a volume ``(*spatial)``, rows along the height of the page."""
        plane: Array = volume if self.normal is None else volume[(slice(None),) * self.normal + (self.position,)]
        return np.transpose(plane) if self.across < self.upward else plane

    def panel(self, across: tuple[float, float], up: tuple[float, float]) -> Panel:
        """Return the panel between these ends on the page, turned as the plane lies."""
        return Panel(*(across[::-1] if self.mirrored else across), *(up if self.upright else up[::-1]))

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
    given: DrawnImage | None = None,
) -> Figure:
    """Draw a registered pair.

    Columns: fixed, moving and warped image in one gray window, the differences of moving and of warped to fixed in
    one color window, both of what counts without the outermost half percent of the values, and the length of the
    displacement, whose scale in mm is in the first row, under the field as a grid: each line joins the points x +
    u(x) of a straight line of fixed voxels; where they fold there are red dots. A pair that was aligned first has
    another column, the moving image as it was given. What does not count, such as padding, is covered in blue, as
    is what the moving image does not reach; it determines no window. Contours of an image's own labels are solid,
    those of the fixed labels beside them dotted, in the colors of the numbers in the first panel. Letters at the
    edges of the first difference name the directions of the body where the affine states them; all panels of a row
    lie alike. A line from a fixed point, a cross, shows its error: before in the moving, after in the warped image.
    One row per orthogonal plane, through the largest cross section of the labels or else of the fixed mask, or the
    brightest one; a single row in 2D.

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
        masks: voxels that count of the fixed, the moving and the warped image, each None for all; of the warped image
            None for those at which the field reaches what counts of the moving one.
        points: corresponding points of fixed and moving image, (N, d) each, voxels of the fixed grid.
        given: the moving image before the initial alignment, if there was one.

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
    steps, field = [float(step) for step in spacing], _array(ddf)
    if moving_label is not None and warped_label is None:
        warped_label = warp(moving_label[None], ddf[None], mode="nearest")[0]
    of_fixed, of_moving, of_warped = [*masks, None, None, None][:3]
    if of_warped is None:
        of_warped = _reached(ddf, of_moving)
    there, before = points or (None, None)
    images = {
        "fixed": DrawnImage(fixed, fixed_label, of_fixed, there),
        "as given": given,
        "moving": DrawnImage(moving, moving_label, of_moving, before),
        "warped": DrawnImage(warped, warped_label, of_warped, _arrived(ddf, points)),
    }
    columns = [_column(name, one, there) for name, one in images.items() if one is not None]
    first, last = columns[0], columns[-1]
    gray, strongest = _windows(first.image, columns[-2].image, first.counts, columns[-2].counts)
    regions = [one != 0 for one in (first.label, last.label, first.counts) if one is not None and one.any()]
    planes = planes_through(regions[0] if regions else first.image, affine)
    axes, rows = _page(planes, first.image.shape, steps, len(columns) + 3)
    longest = float(np.percentile(_lengths([one[_step(one)] for one in field], steps), 99.5)) or 1.0
    most = max(float(_lengths([one[k] for one in field], steps).max()) for k in range(len(field[0])))
    for plane, panels in zip(planes, rows, strict=True):
        for panel, one in zip(panels, columns, strict=False):
            axes.imshow(plane.cut(one.image), cmap="gray", vmin=gray[0], vmax=gray[1], label=one.name, **lying(panel))
        for panel, one in zip(panels[-3:-1], columns[-2:], strict=True):
            difference = np.abs(plane.cut(first.image) - plane.cut(one.image))
            axes.imshow(difference, cmap="magma", vmin=0, vmax=strongest, **lying(panel))
        lengths = _lengths([plane.cut(one) for one in field], steps)
        axes.imshow(lengths, cmap="viridis", vmin=0, vmax=longest, **lying(panels[-1]))
        for panel, one in zip(panels, columns, strict=False):
            _cover(axes, panel, [one], plane, SHADE)
        for panel, one in zip(panels[-3:-1], columns[-2:], strict=True):
            _cover(axes, panel, [first, one], plane)
        _draw_contours(axes, panels, columns, plane)
        if there is not None:
            _draw_points(axes, panels, columns, plane, there.detach().cpu().double().numpy())
        _draw_grid(axes, panels[-1], plane, field)
        _draw_letters(axes, panels[-3], plane)
    _draw_scale(axes, rows[0][-1], longest, most)
    if known := [one.label for one in columns if one.label is not None]:
        _draw_key(axes, rows[0][0], known[0])
    frames = [panel.outline() for row in rows for panel in row]
    axes.add_collection(LineCollection(frames, colors="black", linewidths=0.8), autolim=False)
    _write_titles(axes, rows[0], _column_titles(values, columns, most), title)
    return axes.figure  # type: ignore[return-value]


class _Column(NamedTuple):
    """An image of the page with what belongs to it: label map, voxels that count, and the errors of its points."""

    name: str
    image: Array
    label: Array | None
    counts: Array | None
    errors: Array | None


def _column(name: str, one: DrawnImage, fixed_points: Tensor | None) -> _Column:
    """An image of the page as arrays."""
    errors = None if one.points is None or fixed_points is None else one.points.double() - fixed_points.double()
    return _Column(
        name,
        _array(one.image[0]),
        None if one.label is None else one.label[0].detach().cpu().numpy(),
        None if one.mask is None else above_zero(one.mask[0]).cpu().numpy(),
        None if errors is None else errors.detach().cpu().numpy(),
    )


def _arrived(ddf: Tensor, points: tuple[Tensor, Tensor] | None) -> Tensor | None:
    """The points of the moving image, moved so that their errors are those after the registration."""
    if points is None:
        return None
    return points[1].double() - sample_at(ddf[None].float(), points[0][None].to(ddf).float())[0].to(points[1])


def _reached(ddf: Tensor, mask: Tensor | None) -> Tensor:
    """The voxels of the fixed grid that the field takes to what counts of the moving image, ``(1, *spatial)``."""
    within = inside_mask(ddf.float(), ddf.shape[1:])[None]
    if mask is None:
        return within
    return within & (warp(above_zero(mask).float()[None], ddf[None].float(), padding="border")[0] > COVERED)


def panels_of(figure: Figure) -> dict[str, list[float]]:
    """Return where the fixed and the warped image lie on the page, in the first row of it.

    Args:
        figure: of :func:`pair_figure`.

    Returns:
        Left, top, right and bottom of the panels ``fixed`` and ``warped``, as shares of the page; empty for a figure
        without images.
    """
    shown = {image.get_label(): image for axes in figure.axes for image in axes.images[::-1]}
    if not shown:
        return {}
    width, height = figure.get_size_inches()
    panels = {}
    for name in ("fixed", "warped"):
        left, right, bottom, top = shown[name].get_extent()
        across, up = sorted((left / width, right / width)), sorted((1 - bottom / height, 1 - top / height))
        panels[name] = [float(end) for end in (across[0], up[0], across[1], up[1])]
    return panels


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


def _cover(axes: Axes, panel: Panel, columns: Sequence[_Column], plane: Plane, shade: float = 1.0) -> None:
    """Cover what does not count of some images in a panel of theirs."""
    masks = [plane.cut(one.counts) for one in columns if one.counts is not None]
    covered = ~np.logical_and.reduce(masks) if masks else np.zeros(1)
    if covered.any():
        axes.imshow(covered[..., None] * np.array([*LEFT_OUT, shade]), **lying(panel))


def _draw_points(axes: Axes, panels: Sequence[Panel], columns: Sequence[_Column], plane: Plane, points: Array) -> None:
    """Mark the fixed points (N, d) near a plane in the panel of each image, and draw their errors there."""
    near = np.ones(len(points), bool) if plane.normal is None else abs(points[:, plane.normal] - plane.position) <= NEAR
    axis = [plane.across, plane.upward]
    for panel, one in zip(panels, columns, strict=False):
        errors = np.zeros_like(points) if one.errors is None else one.errors
        shape = plane.cut(one.image).shape
        ends = [panel.place(place[near][:, axis], shape) for place in (points, points + errors)]
        lines = LineCollection(list(np.stack(ends, axis=1)), colors="yellow", linewidths=0.9)
        axes.add_collection(lines, autolim=False)
        axes.plot(*ends[0].T, "+", color="yellow", markersize=4, markeredgewidth=0.8)


def _draw_scale(axes: Axes, panel: Panel, longest: float, most: float) -> None:
    """Draw the colors of the displacement's length, mm, into a corner of its panel; an arrow means that some go on."""
    gap, width, height = BAR
    left, top = min(panel.left, panel.right) + gap, max(panel.bottom, panel.top) - gap
    height = min(height, abs(panel.top - panel.bottom) - 2 * gap)
    bottom, head = top - height, 0.13 * height if most > longest else 0.0
    bar: dict[str, Any] = {"extent": (left, left + width, bottom, top - head), "origin": "lower", "aspect": "auto"}
    axes.imshow(np.linspace(0, 1, 64)[:, None], cmap="viridis", zorder=3, **bar)
    if head:
        corners = [(left, top - head), (left + width / 2, top), (left + width, top - head)]
        axes.add_patch(Polygon(corners, facecolor=colormaps["viridis"](1.0), zorder=3))
    for place, text, side in ((top - head, _mm(longest), "top"), (bottom, "0", "bottom")):
        room = SHADOW | {"pad": 0.8}
        axes.text(left + width + 0.04, place, text, va=side, bbox=room, **SMALL)


def _mm(length: float) -> str:
    """A length as text."""
    return f"{length:.3g} mm" if length < 1000 else f"{length:.0f} mm"


def _draw_letters(axes: Axes, panel: Panel, plane: Plane) -> None:
    """Write the directions of the body (R, L, A, P, S, I) at the edges of a panel, where they are known."""
    if not plane.letters:
        return
    left, right = sorted((panel.left, panel.right))
    bottom, top = sorted((panel.bottom, panel.top))
    middle = (left + right) / 2, (bottom + top) / 2
    letters = [letter for first in plane.letters for letter in (first, OPPOSITE[first])]
    places = [(left + LETTER, middle[1]), (right - LETTER, middle[1])]
    places += [(middle[0], top - LETTER), (middle[0], bottom + LETTER)]
    across, up = zip(*places, strict=True)
    axes.scatter(across, up, 120, marker="s", **SHADOW)  # much faster than a box about each
    for letter, place in zip(letters, places, strict=True):
        axes.text(*place, letter, ha="center", va="center_baseline", **SMALL)


def _draw_key(axes: Axes, panel: Panel, labels: Array) -> None:
    """Write the numbers of the labels in their colors into the lower left corner of a panel, as many as have room."""
    left, bottom = min(panel.left, panel.right) + BAR[0], min(panel.bottom, panel.top) + 0.04
    start, end = left, max(panel.left, panel.right) - 3 * DIGIT
    style: dict[str, Any] = {"fontsize": KEY_SIZE, "fontweight": "bold", "zorder": 3.1}
    for label in np.unique(labels[labels != 0]):
        text, color = f"{label:g}", _color(label)
        full = left + len(text) * DIGIT > end
        axes.text(left, bottom, "..." if full else text, color="white" if full else color, va="bottom", **style)
        left += (len(text) + 1) * DIGIT
        if full:
            break
    axes.add_patch(Rectangle((start - 0.03, bottom - 0.02), left - start, 0.18, **SHADOW))


def _color(label: float) -> str:
    """The color of a label."""
    return COLORS[int(label - 1) % len(COLORS)]


def _column_titles(values: Mapping[str, float], columns: Sequence[_Column], most: float) -> list[str]:
    """Name the columns, with the measures in each state, and say what outlines are."""

    def measures(suffix: str) -> str:
        dsc = f"DSC {values['dsc' + suffix]:.3f}, " if "dsc" in values else ""
        tre = f", TRE {values['tre' + suffix]:.2f} mm" if "tre" in values else ""
        return f"{dsc}NCC {values['ncc' + suffix]:.3f}{tre}"

    aligned = "ncc_aligned" in values
    outlined = columns[0].label is not None and columns[-1].label is not None
    titles = {
        "fixed": f"fixed\n{'outlines: — own, ··· fixed labels' * outlined}",
        "as given": f"moving, as given\n{measures('_before')}",
        "moving": f"moving, aligned\n{measures('_aligned')}" if aligned else f"moving\n{measures('_before')}",
        "warped": f"warped\n{measures('')}",
    }
    return [
        *(titles[one.name] for one in columns),
        f"|fixed - {'aligned' if aligned else 'moving'}|\nbefore",
        "|fixed - warped|\nafter",
        f"displacement to {_mm(most)}\n{'after alignment' if aligned else 'as a grid'}, "
        f"folding {values['folding_percent']:.2g} %{' (red)' * (values['folding_percent'] > 0)}",
    ]


def planes_through(region: Array, affine: Tensor | Array | None) -> list[Plane]:
    """Choose the planes, (axial, coronal, sagittal) of a volume, with most of the region ``(*spatial)`` in them."""
    if region.ndim == 2:
        return [slice_plane(affine)]
    world = np.eye(3) if affine is None else np.asarray(affine, dtype=np.float64)[:3, :3]
    right, front, top = _closest_axes(world)
    planes = []
    for normal, across, upward, letters in (
        (top, right, front, "RA"),
        (front, right, top, "RS"),
        (right, front, top, "AS"),
    ):
        others = tuple(axis for axis in range(3) if axis != normal)
        position = int(region.sum(axis=others, dtype=np.float64).argmax())
        to_right = world[[right, front, top].index(across), across] > 0
        upright = world[[right, front, top].index(upward), upward] > 0
        mirrored, known = affine is not None and bool(to_right), letters if affine is not None else ""
        planes.append(Plane(normal, position, across, upward, mirrored, bool(upright), known))
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
    letters = f"{'RA'[int(np.abs(sideways).argmax())]}S"
    return Plane(None, 0, 1 - upward, upward, mirrored, bool(heights[upward] > 0), letters)


def _closest_axes(world: Array) -> list[int]:
    """Return for each world axis (right, front, top) the array axis that lies closest to it, each once."""
    strength = np.abs(world / np.linalg.norm(world, axis=0))
    chosen: list[int] = []
    for direction in strength:
        chosen.append(max((axis for axis in range(3) if axis not in chosen), key=lambda axis: float(direction[axis])))
    return chosen


def _page(
    planes: Sequence[Plane], shape: Sequence[int], spacing: Sequence[float], columns: int
) -> tuple[Axes, list[list[Panel]]]:
    """Return the axes of an empty page, and on it a row of panels per plane, as high as the plane needs."""
    extent = [size * step for size, step in zip(shape, spacing, strict=True)]
    heights = [PANEL * extent[plane.upward] / extent[plane.across] for plane in planes]
    width, height = columns * (PANEL + GAP), sum(heights) + len(planes) * ROW_GAP + HEAD
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False, xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    axes.set_autoscale_on(False)
    rows, top = [], height - HEAD
    for plane, high in zip(planes, heights, strict=True):
        rows.append([_panel(plane, GAP / 2 + column * (PANEL + GAP), top, high) for column in range(columns)])
        top -= high + ROW_GAP
    return axes, rows


def _panel(plane: Plane, left: float, top: float, height: float) -> Panel:
    """Return the panel with this upper left corner, turned as the plane lies."""
    return plane.panel((left, left + PANEL), (top - height, top))


def lying(panel: Panel) -> dict[str, Any]:
    """Return the words that make ``imshow`` fill a panel."""
    return {"extent": panel, "origin": "lower", "aspect": "auto", "interpolation": "nearest"}


def _draw_contours(axes: Axes, panels: Sequence[Panel], columns: Sequence[_Column], plane: Plane) -> None:
    """Draw the outline of every label in its color: of each image's own map, and of the fixed one."""
    of_fixed = None if columns[0].label is None else _outlines(plane.cut(columns[0].label))
    for panel, one in zip(panels, columns, strict=False):
        shape = plane.cut(one.image).shape
        if one.label is not None:
            own = of_fixed if one is columns[0] and of_fixed is not None else _outlines(plane.cut(one.label))
            _draw_outlines(axes, panel, shape, own, "solid")
        if one is not columns[0] and of_fixed is not None:
            _draw_outlines(axes, panel, shape, of_fixed, "dotted")


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
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.9, linestyles=style), autolim=False)


def _draw_grid(axes: Axes, panel: Panel, plane: Plane, ddf: Array) -> None:
    """Draw straight lines of fixed voxels where the field ``(d, *spatial)`` takes them, within the plane."""
    across, upward = plane.cut(ddf[plane.across]), plane.cut(ddf[plane.upward])
    rows, columns = np.indices(across.shape, dtype=np.float32)
    points = panel.place(np.stack([columns + across, rows + upward], axis=-1), across.shape)
    step = max(1, round(max(across.shape) / GRID_LINES))
    lines = [*points[step // 2 :: step], *points[:, step // 2 :: step].swapaxes(0, 1)]
    grid = LineCollection(lines, colors="white", linewidths=0.5)
    axes.add_collection(grid, autolim=False)
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
        place = ((panel.left + panel.right) / 2, max(panel.bottom, panel.top) + 0.06)
        axes.text(*place, text, fontsize=_fitting(text, PANEL + GAP, 9), ha="center", va="bottom")
    size = _fitting(title, width, 11)
    axes.text(width / 2, height - 0.05, title, fontsize=size, ha="center", va="top", parse_math=False)


def _fitting(text: str, width: float, most: float) -> float:
    """The size of a font, points, in which the lines of a text have room in a width, inches, and the largest one."""
    return min(most, 120 * width / max(1, *map(len, text.split("\n"))))  # a character is 0.6 times as wide as its size

"""Write the local transformations of a recurrent registration as JSON and as a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from monai_regplugins.figures.pair import Panel, Plane, lying, slice_plane
from monai_regplugins.figures.png import png_of
from monai_regplugins.networks.blocks.local_gaussian import (
    LocalTransforms,
    rotation_matrix,
    to_json,
    voxels_per_unit,
)
from monai_regplugins.result import RegistrationResult

__all__ = ["LocalTransformsWriter", "local_transforms_figure"]

Array = npt.NDArray[Any]

PAGE = (13.0, 9.5)  # inches


class LocalTransformsWriter:
    """Write ``transformations.json`` and ``transformations.png`` into each pair's folder.

    Needs an inferer that returns the local transformations, ``SequenceInferer(transforms=True)``. The file lists,
    step by step, the normalized parameters of
    :class:`~monai_regplugins.networks.blocks.local_gaussian.LocalTransforms`, from which the field can be made again
    on any grid. Where instance optimization changed the field, they are still those of the network, and the files are
    named ``network_transformations.json`` and ``network_transformations.png``.

    It is one of the ``parts`` of a :class:`RegistrationWriter`.
    """

    def __call__(self, result: RegistrationResult, folder: Path) -> None:
        """Write both files of a result into its folder."""
        pred, fixed = result.pred, result.targets["fixed"]
        transforms = LocalTransforms(*(pred[name][None].float().cpu() for name in LocalTransforms._fields))
        name = f"{result.of_network}transformations"
        (folder / f"{name}.json").write_text(json.dumps(to_json(transforms), indent=1), encoding="utf-8")
        spacing = [float(s) for s in result.targets["spacing"]]
        figure = local_transforms_figure(transforms, fixed, spacing, getattr(result.fixed, "affine", None))
        (folder / f"{name}.png").write_bytes(png_of(figure))


def local_transforms_figure(
    transforms: LocalTransforms,
    fixed: Tensor,
    spacing: list[float],
    affine: Tensor | None = None,
    panels: int = 12,
) -> Figure:
    """Draw standard deviations and displacements over the steps, and the local transformations over the fixed image.

    Each ellipse is the contour at two standard deviations, its arrow twice the displacement, as in the supplement of
    Sandkuehler et al. 2019 (Fig. 1 and 2). Volumes are projected along their last axis, the image is its middle slice.

    Args:
        transforms: of one sample.
        fixed: fixed image, ``(1, *spatial)``.
        spacing: voxel size along each axis in mm.
        affine: voxel-to-world matrix (RAS) of the fixed grid; a slice then lies with the head on top.
        panels: how many steps at most get an image of their own, the first, the last and evenly spaced ones between.

    Returns:
        The figure; no global state of matplotlib is touched. All images lie in one pair of axes, in inches: thirteen
        pairs with their ticks and labels take several times as long.
    """
    size = list(fixed.shape[1:])
    units = torch.tensor(voxels_per_unit(size, None), dtype=torch.float32)
    mm = units * torch.tensor(spacing)
    steps = transforms.vector.shape[1]
    vector = transforms.vector[0].flip(-1)  # array-axis order from here on
    centers = transforms.position[0].flip(-1) * units + torch.tensor([(n - 1) / 2 for n in size])
    root = rotation_matrix(transforms.rotation[0]) * transforms.sigma[0].unsqueeze(-2)  # R diag(sigma), x first
    covariance = (root @ root.transpose(-1, -2)).flip(-1, -2) * units[:, None] * units
    image = fixed[0].cpu().float().numpy()
    plane = slice_plane(affine)
    drawn = plane.cut(image if image.ndim == 2 else image[:, :, image.shape[2] // 2])
    along = [plane.across, plane.upward]
    ellipses = [_contour(covariance[n, :2, :2].numpy(), centers[n, :2].numpy())[:, along] for n in range(steps)]
    start = centers[:, along].numpy()
    end = start + 2 * (vector * units)[:, along].numpy()

    figure = Figure(figsize=PAGE)
    FigureCanvasAgg(figure)
    deviation = torch.stack([covariance[:, k, k].sqrt() * spacing[k] for k in range(len(size))])
    curves = {
        "standard deviation along the axes [mm]": deviation,
        "displacement v [mm]": (vector[:, : len(size)] * mm).T,
    }
    for left, (title, values) in zip((0.04, 0.37), curves.items(), strict=True):
        axes = figure.add_axes((left, 0.61, 0.28, 0.35), title=title, xlabel="step t")
        for k, value in enumerate(values):
            axes.plot(range(1, steps + 1), value.numpy(), marker=".", label=f"axis {k}")
        axes.legend()
        axes.grid(alpha=0.3)

    page = figure.add_axes((0, 0, 1, 1), frameon=False, xlim=(0, PAGE[0]), ylim=(0, PAGE[1]), xticks=[], yticks=[])
    page.set_autoscale_on(False)
    extent = (size[plane.across] * spacing[plane.across], size[plane.upward] * spacing[plane.upward])
    own = [round(n) for n in np.linspace(0, steps - 1, min(panels, steps))]
    columns = max(1, -(-len(own) // 2))
    width = PAGE[0] / columns
    shown = [(_panel(plane, extent, (9.0, 5.8, 3.9, 3.3)), "all steps, dark to bright", list(range(steps)))]
    for place, n in enumerate(own):
        row, column = divmod(place, columns)
        box = (column * width + 0.04, 2.75 * (1 - row) + 0.05, width - 0.08, 2.35)
        shown.append((_panel(plane, extent, box), f"t = {n + 1}", [n]))
    low, high = np.percentile(drawn, [0.5, 99.5])
    colors = colormaps["viridis"](np.linspace(0, 1, steps))
    lines: list[Array] = []
    for panel, title, chosen in shown:
        page.imshow(drawn, cmap="gray", vmin=low, vmax=high, **lying(panel))
        middle, top = (panel.left + panel.right) / 2, max(panel.bottom, panel.top)
        page.text(middle, top + 0.06, title, fontsize=12, ha="center", va="bottom")
        lines += [panel.place(_inside(ellipses[n], drawn.shape), drawn.shape) for n in chosen]
    used = [n for *_, chosen in shown for n in chosen]
    arrows = np.array(
        [panel.place(np.stack([start[n], end[n]]), drawn.shape) for panel, _, chosen in shown for n in chosen]
    )
    page.add_collection(LineCollection(lines, colors=colors[used], linewidths=1.2))
    page.quiver(
        *arrows[:, 0].T,
        *(arrows[:, 1] - arrows[:, 0]).T,
        color=colors[used],
        angles="xy",
        scale_units="xy",
        scale=1.0,
        units="inches",
        width=0.02,
    )
    return figure


def _panel(plane: Plane, extent: tuple[float, float], box: tuple[float, float, float, float]) -> Panel:
    """The largest panel of true proportion in a box (left, bottom, width, height), turned as the plane lies."""
    left, bottom, width, height = box
    scale = min(width / extent[0], height / extent[1])
    wide, high = scale * extent[0], scale * extent[1]
    return plane.panel((left + (width - wide) / 2, left + (width + wide) / 2), (bottom, bottom + high))


def _inside(points: Array, shape: tuple[int, ...]) -> Array:
    """The points (N, 2), column and row, that are on a plane of so many rows and columns, NaN for the others."""
    rows, columns = shape
    beyond = (points < -0.5) | (points > (columns - 0.5, rows - 0.5))
    return np.where(beyond.any(axis=1, keepdims=True), np.nan, points)


def _contour(covariance: Array, center: Array) -> Array:
    """Points of the ellipse at two standard deviations, (N, 2)."""
    angle = np.linspace(0, 2 * np.pi, 65)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    values, vectors = np.linalg.eigh(covariance)
    points: Array = center + 2 * (vectors * np.sqrt(values.clip(0)) @ circle).T
    return points

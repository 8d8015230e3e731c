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

from monai_regplugins.figures.pair import slice_plane
from monai_regplugins.networks.blocks.local_gaussian import (
    LocalTransforms,
    rotation_matrix,
    to_json,
    voxels_per_unit,
)
from monai_regplugins.result import RegistrationResult

__all__ = ["LocalTransformsWriter", "local_transforms_figure"]

Array = npt.NDArray[Any]


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
        figure.savefig(folder / f"{name}.png", dpi=110)


def local_transforms_figure(
    transforms: LocalTransforms,
    fixed: Tensor,
    spacing: list[float],
    affine: Tensor | None = None,
    panels: int = 12,
) -> Figure:
    """Draw standard deviations and displacements over the steps, and the local transformations over the fixed image.

    Each ellipse is the contour at two standard deviations, its arrow the displacement, both as in the supplement of
    Sandkuehler et al. 2019 (Fig. 1 and 2). Volumes are projected along their last axis, the image is its middle slice.

    Args:
        transforms: of one sample.
        fixed: fixed image, ``(1, *spatial)``.
        spacing: voxel size along each axis in mm.
        affine: voxel-to-world matrix (RAS) of the fixed grid; a slice then lies with the head on top.
        panels: how many steps at most get an image of their own, the first, the last and evenly spaced ones between.

    Returns:
        The figure; no global state of matplotlib is touched.
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
    middle_slice: Array = image if image.ndim == 2 else image[:, :, image.shape[2] // 2]
    plane = slice_plane(affine)
    shown_axes = [plane.across, plane.upward]

    figure = Figure(figsize=(13, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = np.ravel(figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.25]))
    left, middle, right = top.subplots(1, 3)
    t = np.arange(1, steps + 1)
    for k in range(len(size)):
        deviation = covariance[:, k, k].sqrt() * spacing[k]
        left.plot(t, deviation.numpy(), marker=".", label=f"axis {k}")
        middle.plot(t, (vector[:, k] * mm[k]).numpy(), marker=".", label=f"axis {k}")
    left.set(title="standard deviation along the axes [mm]", xlabel="step t")
    middle.set(title="displacement v [mm]", xlabel="step t")
    for axes in (left, middle):
        axes.legend()
        axes.grid(alpha=0.3)
    colors = colormaps["viridis"](np.linspace(0, 1, steps))
    shown = [(right, range(steps), "all steps, dark to bright")]
    own = [round(n) for n in np.linspace(0, steps - 1, min(panels, steps))]
    small = bottom.subplots(2, max(1, -(-len(own) // 2)), squeeze=False).ravel()
    shown += [(axes, range(n, n + 1), f"t = {n + 1}") for n, axes in zip(own, small, strict=False)]
    for axes in small[len(own) :]:
        axes.set_axis_off()
    low, high = np.percentile(middle_slice, [0.5, 99.5])
    for axes, chosen, title in shown:
        axes.imshow(plane.cut(middle_slice), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        lines = [_contour(covariance[n, :2, :2].numpy(), centers[n, :2].numpy())[:, shown_axes] for n in chosen]
        axes.add_collection(LineCollection(lines, colors=colors[list(chosen)], linewidths=1.2))
        shift = (vector * units)[list(chosen)][:, shown_axes].numpy()
        start = centers[list(chosen)][:, shown_axes].numpy()
        axes.quiver(*start.T, *shift.T, color=colors[list(chosen)], angles="xy", scale_units="xy", scale=0.5)
        axes.set(title=title, xlim=(-0.5, size[plane.across] - 0.5), ylim=(size[plane.upward] - 0.5, -0.5))
        plane.show(axes, spacing)
    return figure


def _contour(covariance: Array, center: Array) -> Array:
    """Points of the ellipse at two standard deviations, (N, 2)."""
    angle = np.linspace(0, 2 * np.pi, 65)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    values, vectors = np.linalg.eigh(covariance)
    points: Array = center + 2 * (vectors * np.sqrt(values.clip(0)) @ circle).T
    return points

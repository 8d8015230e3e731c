"""Figure of a predicted displacement field beside the ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from monai_regplugins.figures.pair import planes_through

__all__ = ["draw_field", "field_figure"]

Array = npt.NDArray[Any]

EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}


def draw_field(item: Mapping[str, Any], output: Mapping[str, Any]) -> Figure:
    """Draw a field from its pair's item of the batch and of the engine's output, both decollated."""
    pred, targets = output["pred"], output["label"]
    return field_figure(
        targets["fixed"],
        pred["ddf"],
        targets["true_ddf"],
        targets.get("fixed_mask"),
        affine=getattr(item.get("fixed"), "affine", None),
        title=str(item.get("pair_id", "")),
    )


def field_figure(
    fixed: Tensor,
    ddf: Tensor,
    true_ddf: Tensor,
    mask: Tensor | None = None,
    affine: Tensor | Array | None = None,
    title: str = "",
) -> Figure:
    """Draw predicted against true displacements.

    One row per component of the field: fixed image, true and predicted component in one color window, and their
    difference in the same window; in the coronal plane through most of the mask, the only plane in 2D. The window is
    that of the true field; its bar ends in arrows where others go beyond. Last column: predicted over true values at up
    to 5000 voxels of the mask, with the line on which they are equal.

    Args:
        fixed: fixed image, ``(1, *spatial)``.
        ddf: predicted field, ``(d, *spatial)``, voxels.
        true_ddf: true field, the same.
        mask: voxels that count, ``(1, *spatial)``; all by default.
        affine: voxel-to-world matrix (RAS) of the fixed grid.
        title: name of the pair.

    Returns:
        The figure; no global state of matplotlib is touched.
    """
    image, found, true = (values.detach().cpu().float().numpy() for values in (fixed[0], ddf, true_ddf))
    counted = np.ones(image.shape, dtype=bool) if mask is None else mask[0].detach().cpu().numpy() > 0
    plane = planes_through(counted if counted.any() else image, affine)[min(image.ndim - 2, 1)]
    limit = float(np.abs(true).max()) or 1.0
    spacing = np.ones(image.ndim) if affine is None else np.linalg.norm(np.asarray(affine)[:-1, : image.ndim], axis=0)
    low, high = np.percentile(image[counted] if counted.any() else image, [0.5, 99.5])
    figure = Figure(figsize=(14, 2.9 * len(true) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(true), 5, squeeze=False)
    chosen = np.random.default_rng(0).permutation(int(counted.sum()))[:5000]
    for k, row in enumerate(grid):
        row[0].imshow(plane.cut(image), cmap="gray", vmin=low, vmax=high)
        cuts = [plane.cut(values) for values in (true[k], found[k], found[k] - true[k])]
        for axes, cut in zip(row[1:4], cuts, strict=True):
            shown = axes.imshow(cut, cmap="RdBu_r", vmin=-limit, vmax=limit)
        for axes in row[:4]:
            plane.show(axes, spacing.tolist())
        beyond = (min(cut.min() for cut in cuts) < -limit, max(cut.max() for cut in cuts) > limit)
        figure.colorbar(shown, ax=row[3], label="voxels", extend=EXTEND[beyond])
        row[4].scatter(true[k][counted][chosen], found[k][counted][chosen], s=2, alpha=0.4, color="tab:blue")
        row[4].plot([-limit, limit], [-limit, limit], color="tab:gray", linewidth=0.8)
        row[4].set(xlabel=f"true component {k}", ylabel="predicted", aspect="equal")
        error, zero = np.abs(found[k] - true[k])[counted].mean(), np.abs(true[k])[counted].mean()
        row[4].set_title(f"MAE {error:.2f} (zero: {zero:.2f})", fontsize=9)
    for axes, text in zip(grid[0], ("fixed", "true", "predicted", "difference"), strict=False):
        axes.set_title(text, fontsize=10)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return figure

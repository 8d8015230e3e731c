"""Draw the pictures of the documentation: ``python docs/figures.py``.

``python docs/figures.py overlap "TITLE=out/metrics.csv" ...`` draws the overlap of labels that registrations reached.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from monai_regplugins.data import abdomen_subject, cine_lung_subject
from monai_regplugins.data.thorax import thorax_displacement, thorax_subject

IMAGES = Path(__file__).parent / "images"
SHAPE, SPACING = (80, 64, 80), 4.0


def phantom_figure(seeds: tuple[int, ...] = (1, 2, 3)) -> Figure:
    """Axial, coronal and sagittal slices of some subjects of the abdomen phantom, labels in color."""
    figure = Figure(figsize=(9, 2.6 * len(seeds)), layout="constrained")
    axes = figure.subplots(len(seeds), 4, squeeze=False)
    for row, seed in zip(axes, seeds, strict=True):
        subject = abdomen_subject(seed, SHAPE, SPACING)
        image, label = (np.squeeze(np.asarray(subject[key])) for key in ("image", "label"))
        x, y, z = (int(n * part) for n, part in zip(image.shape, (0.36, 0.5, 0.5), strict=True))
        planes = [np.s_[:, :, z], np.s_[:, :, z + 10], np.s_[:, y, :], np.s_[x]]
        for ax, plane in zip(row, planes, strict=True):
            ax.imshow(image[plane].T, cmap="gray", vmin=-150, vmax=250, origin="lower")
            organs = np.ma.masked_equal(label[plane].T, 0)
            ax.imshow(organs, cmap="tab20", vmin=1, vmax=12, alpha=0.35, origin="lower", interpolation="nearest")
            ax.set_axis_off()
        for ax in row[:3]:
            ax.invert_xaxis()  # as radiologists look: the patient's right, and the liver, on the left
    return figure


def cine_figure(seeds: tuple[int, ...] = (1, 2), frames: tuple[int, ...] = (0, 3, 6, 9)) -> Figure:
    """Some frames of some subjects of the cine_lung phantom, the landmarks of each frame as points."""
    figure = Figure(figsize=(11, 2.9 * len(seeds)), layout="constrained")
    axes = figure.subplots(len(seeds), len(frames), squeeze=False)
    for row, seed in zip(axes, seeds, strict=True):
        subject = cine_lung_subject(seed)
        for ax, frame in zip(row, frames, strict=True):
            ax.imshow(subject.frames[frame], cmap="gray")
            ax.scatter(*subject.landmarks[frame].T[::-1], s=5, color="tab:orange")
            ax.set_axis_off()
    return figure


def thorax_figure(seeds: tuple[int, ...] = (1, 3)) -> Figure:
    """Inspiration and expiration of some subjects of the thorax phantom, landmarks, and the registered expiration."""
    figure = Figure(figsize=(15, 2.9 * len(seeds)), layout="constrained")
    titles = ("inspiration", "inspiration", "expiration", "expiration, registered", "inspiration", "expiration")
    axes = figure.subplots(len(seeds), len(titles), squeeze=False, width_ratios=(112, 112, 112, 112, 88, 88))
    for row, seed in zip(axes, seeds, strict=True):
        subject = thorax_subject(seed)
        inspired, expired = subject.images.astype(float)
        position = np.indices(inspired.shape) + thorax_displacement(subject, fixed=0, moving=1)
        registered = ndimage.map_coordinates(expired, position, order=1, cval=-1000)
        axial, coronal, sagittal = np.s_[:, :, 54], np.s_[:, 36], np.s_[84]
        planes = [inspired[axial], *(image[coronal] for image in (inspired, expired, registered))]
        planes += [inspired[sagittal], expired[sagittal]]
        for ax, plane, title in zip(row, planes, titles, strict=True):
            ax.imshow(plane.T, cmap="gray", vmin=-1050, vmax=250, origin="lower")
            ax.set_title(title if ax in axes[0] else "", fontsize=9)
            ax.set_axis_off()
        for ax in row[:4]:
            ax.invert_xaxis()  # as radiologists look
        for ax, places in zip(row[1:3], subject.landmarks, strict=True):
            near = places[np.abs(places[:, 1] - 36) < 3]
            ax.scatter(near[:, 0], near[:, 2], s=5, color="tab:orange")
    return figure


def overlap_figure(tables: Mapping[str, Path]) -> Figure:
    """Dice of each label of each pair, before and after, from the ``metrics.csv`` of inference."""
    figure = Figure(figsize=(3.3 * len(tables), 3.6), layout="constrained")
    for ax, (title, path) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["pair_id"] not in ("mean", "sd")]
        labels = [name.removeprefix("dsc_before_") for name in rows[0] if name.startswith("dsc_before_")]
        cells = [(row[f"dsc_before_{label}"], row[f"dsc_{label}"]) for row in rows for label in labels]
        before, after = np.array([[float(a), float(b)] for a, b in cells if a and b]).T
        ax.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        ax.scatter(before, after, s=9, alpha=0.6, linewidths=0)
        ax.set(title=title, xlabel="DSC before", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.text(0.97, 0.04, f"{len(before)} labels in {len(rows)} pairs", ha="right", fontsize=8)
    figure.axes[0].set_ylabel("DSC after")
    return figure


if __name__ == "__main__":
    if sys.argv[1:2] == ["overlap"]:
        given = dict(argument.split("=", 1) for argument in sys.argv[2:])
        chosen = {title: Path(path) for title, path in given.items()}
        overlap_figure(chosen).savefig(IMAGES / "real_overlap.png", dpi=80)
        sys.exit()
    IMAGES.mkdir(exist_ok=True)
    thorax_figure().savefig(IMAGES / "thorax_phantom.png", dpi=70)
    cine_figure().savefig(IMAGES / "cine_lung_phantom.png", dpi=70)
    phantom_figure().savefig(IMAGES / "abdomen_phantom.png", dpi=80)

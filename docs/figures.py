"""Draw the pictures of the documentation: ``python docs/figures.py``.

``overlap "TITLE=out/metrics.csv" ...`` draws the overlap of labels that registrations reached, ``cases ran r2n2`` the
best, the median and the worst validation pair of bundles, ``label`` an atlas's labels brought to a patient,
``transforms out/PAIR`` the local transformations that R2N2 found for a pair, without its image.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy import ndimage

from monai_regplugins import load_bundle
from monai_regplugins.bundle_folders import read_json
from monai_regplugins.data import validation_pairs
from monai_regplugins.figures.pair import LEFT_OUT, planes_through
from monai_regplugins.networks.blocks.local_gaussian import from_json
from monai_regplugins.outputs.local_transforms import local_transforms_figure
from monai_regplugins.phantoms import abdomen_subject, cine_lung_subject, open_dataset
from monai_regplugins.phantoms.thorax import thorax_displacement, thorax_subject
from monai_regplugins.registration import Registration
from monai_regplugins.result import RegistrationResult

IMAGES = Path(__file__).parent / "images"
BUNDLES = Path(__file__).parents[1] / "bundles"
PHANTOMS = {"ran": "abdomen", "r2n2": "cine_lung", "regnet": "thorax"}
SHAPE, SPACING = (80, 64, 80), 4.0
GRAY, MAGMA = (colormaps[name].with_extremes(bad=LEFT_OUT) for name in ("gray", "magma"))  # what was not scanned


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
        for ax in row:
            ax.invert_xaxis()  # as radiologists look: the patient's right, and the liver, or the front on the left
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
        registered = ndimage.map_coordinates(expired, position, order=1, cval=np.nan)
        axial, coronal, sagittal = np.s_[:, :, 54], np.s_[:, 36], np.s_[84]
        planes = [inspired[axial], *(image[coronal] for image in (inspired, expired, registered))]
        planes += [inspired[sagittal], expired[sagittal]]
        for ax, plane, title in zip(row, planes, titles, strict=True):
            ax.imshow(plane.T, cmap=GRAY, vmin=-1050, vmax=250, origin="lower")
            ax.set_title(title if ax in axes[0] else "", fontsize=9)
            ax.set_axis_off()
        for ax in row:
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


def label_figure() -> Figure:
    """An atlas and its labels on a patient: laid over, brought there by RAN, and with refinement."""
    folder = BUNDLES / "ran" / "data" / "abdomen"
    (atlas, atlas_label), (patient, patient_label) = (
        [folder / f"{kind}Tr" / f"AbdomenPhantom_{number}_0000.nii.gz" for kind in ("images", "labels")]
        for number in ("0025", "0026")
    )
    images = [(atlas, atlas_label, "atlas"), (patient, atlas_label, "patient, the atlas laid over")]
    panels = [(np.asarray(nib.load(i).dataobj), np.asarray(nib.load(k).dataobj), title) for i, k, title in images]
    for steps in (0, 30):
        register = load_bundle(BUNDLES / "ran", refine_steps=steps)
        result = register(patient, atlas, moving_label=atlas_label, fixed_label=patient_label)
        title = f"{'refined' if steps else 'ran_propagate'}, DSC {result.metrics['dsc']:.2f}"
        panels.append((panels[1][0], np.asarray(result.warped_label[0]), title))
    figure = Figure(figsize=(12, 2.9), layout="constrained")
    for ax, (image, label, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        plane = np.s_[:, image.shape[1] // 2]
        ax.imshow(image[plane].T, cmap="gray", vmin=-150, vmax=250, origin="lower")
        organs = np.ma.masked_equal(label[plane].T, 0)
        ax.imshow(organs, cmap="tab20", vmin=1, vmax=12, alpha=0.4, origin="lower", interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
        ax.invert_xaxis()  # as radiologists look
    return figure


def cases_figure(name: str) -> Figure:
    """The validation pairs of a bundle's phantom with the least, the median and the largest TRE after its network.

    Fixed, moving, registered and registered with refinement, and the differences of the last three to the first, in the
    window of the bundle; differences up to half of it. What the moving image does not reach is blue.
    """
    window = read_json(BUNDLES / name / "configs" / "inference.json").get("window")
    folder = BUNDLES / name / "data" / PHANTOMS[name]
    pairs = validation_pairs(open_dataset(folder, folder, PHANTOMS[name]))
    plain, refined = (load_bundle(BUNDLES / name, refine_steps=steps) for steps in (0, 30))
    results = sorted(((register_pair(plain, pair), pair) for pair in pairs), key=lambda one: one[0].metrics["tre"])
    figure = Figure(figsize=(15.6, 6.6), layout="constrained")
    grid = figure.subplots(3, 7)
    for row, case, place in zip(grid, ("best", "median", "worst"), (0, len(results) // 2, -1), strict=True):
        alone, pair = results[place]
        better = register_pair(refined, pair)
        fixed, moving = (np.squeeze(np.asarray(nib.load(pair[key]).dataobj, float)) for key in ("fixed", "moving"))
        images = [
            np.ma.masked_array(np.asarray(one.warped[0], float), ~one.shown[0].numpy()) for one in (alone, better)
        ]
        labels = np.squeeze(np.asarray(nib.load(pair["fixed_label"]).dataobj))
        plane = planes_through(labels > 0, alone.warped.affine)[-1 if fixed.ndim == 2 else 1]
        gray = np.percentile(fixed, [0.5, 99.5]) if window is None else np.array(window)
        images = [image.clip(*gray) for image in (moving, *images)]
        errors = [alone.metrics["tre_before"], alone.metrics["tre"], better.metrics["tre"]]
        titles = [
            f"{text}, {error:.1f} mm" for text, error in zip(("moving", "network", "refined"), errors, strict=True)
        ]
        for axes, image, title in zip(row, (fixed, *images), (f"{case}: fixed", *titles), strict=False):
            axes.imshow(plane.cut(image), cmap=GRAY, vmin=gray[0], vmax=gray[1])
            axes.set_title(title, fontsize=9)
        top, differences = (gray[1] - gray[0]) / 2, [plane.cut(np.abs(fixed.clip(*gray) - one)) for one in images]
        for axes, difference in zip(row[4:], differences, strict=True):
            strength = axes.imshow(difference, cmap=MAGMA, vmin=0, vmax=top)
        beyond = any(difference.max() > top for difference in differences)
        figure.colorbar(
            strength, ax=row[-1], extend="max" if beyond else "neither", label="" if name == "r2n2" else "HU"
        )
        for axes in row:
            plane.show(axes, [1.0] * fixed.ndim)
    for axes, text in zip(grid[0, 4:], ("before", "network", "refined"), strict=True):
        axes.set_title(f"|difference|, {text}", fontsize=9)
    return figure


def transforms_figure(folder: Path) -> Figure:
    """The local transformations in an output folder of R2N2, on an empty image."""
    warped = nib.load(folder / "warped.nii.gz")
    transforms = from_json(json.loads((folder / "transformations.json").read_text()))
    size, spacing = list(warped.shape[:2]), [float(mm) for mm in warped.header.get_zooms()[:2]]
    figure = local_transforms_figure(transforms, torch.ones(1, *size), spacing, torch.as_tensor(warped.affine))
    for axes in figure.axes:
        for image in axes.get_images():
            image.set_clim(0, 1)  # white
    return figure


def register_pair(register: Registration, pair: Mapping[str, str]) -> RegistrationResult:
    """Register a pair of a data set by its files."""
    columns = {"fixed_landmarks": "fixed_points", "moving_landmarks": "moving_points"}
    names = ("fixed", "moving", "fixed_label", "moving_label", *columns)
    return register(**{columns.get(key, key): pair[key] for key in names if key in pair})


if __name__ == "__main__":
    if sys.argv[1:2] == ["overlap"]:
        given = dict(argument.split("=", 1) for argument in sys.argv[2:])
        chosen = {title: Path(path) for title, path in given.items()}
        overlap_figure(chosen).savefig(IMAGES / "real_overlap.png", dpi=80)
        sys.exit()
    if sys.argv[1:2] == ["cases"]:
        for bundle in sys.argv[2:]:
            cases_figure(bundle).savefig(IMAGES / f"{bundle}_cases.png", dpi=70)
        sys.exit()
    if sys.argv[1:] == ["label"]:
        label_figure().savefig(IMAGES / "label_propagated.png", dpi=80)
        sys.exit()
    if sys.argv[1:2] == ["transforms"]:
        transforms_figure(Path(sys.argv[2])).savefig(IMAGES / "r2n2_transforms_real.png", dpi=60)
        sys.exit()
    IMAGES.mkdir(exist_ok=True)
    thorax_figure().savefig(IMAGES / "thorax_phantom.png", dpi=70)
    cine_figure().savefig(IMAGES / "cine_lung_phantom.png", dpi=70)
    phantom_figure().savefig(IMAGES / "abdomen_phantom.png", dpi=80)

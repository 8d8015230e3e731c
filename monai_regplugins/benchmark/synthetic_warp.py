"""Make pairs with ground truth from one image: the image and its warps by random smooth displacements.

The moving image of each pair is the image as it is, the fixed one ``fixed(x) = image(x + u(x))`` with a random sum of
Gaussians u (cubic B-splines; labels by the nearest voxel), so u is the displacement that registration has to find.
Landmarks are random points of the body, with their exact places in every fixed image. The result is a folder in
Learn2Reg's format, which every bundle and ``python -m monai_regplugins.benchmark`` take as ``--dataset_dir``.

    python -m monai_regplugins.benchmark.synthetic_warp ct.nii.gz --label organs.nii.gz --output_dir Warped
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_regplugins.benchmark.ground_truth import (
    Subject,
    check_request,
    write_dataset,
    write_displacement,
)
from monai_regplugins.benchmark.synthetic_contrast import CONTRASTS, in_other_contrast
from monai_regplugins.bundle import start
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.fields import warp
from monai_regplugins.files.folders import make_folder
from monai_regplugins.grids import voxel_spacing, world_affine
from monai_regplugins.synthesis.bspline_image import bspline_warp
from monai_regplugins.synthesis.regnet_fields import GaussianField, random_field
from monai_regplugins.transforms.load import LoadPaird

__all__ = ["find_sources", "make_synthetic_warps", "synthetic_displacement"]

BUMPS = 80  # for an image of 322 x 246 x 348 mm, as in the smoothest fields of Sokooti et al. 2017
ITERATIONS = 50  # of Newton's method at most; a handful is the rule
TOLERANCE = 1e-3  # mm
RANGE = (0.005, 0.995)  # quantiles of the intensities that are mapped


def synthetic_displacement(
    rng: np.random.Generator, spatial_shape: Sequence[int], spacing: Tensor, largest: float, sigma: float
) -> tuple[GaussianField, Tensor]:
    """Draw a displacement without folding.

    Args:
        rng: source of the random numbers.
        spatial_shape: voxels along each axis.
        spacing: voxel size in mm, ``(d,)``.
        largest: component of a displacement, mm.
        sigma: standard deviation of the Gaussians, mm.

    Returns:
        u in mm as a function of mm from the first voxel, and on the grid, ``(d, *spatial)`` in voxels, float32.
    """
    extent = [max(1, round(n * float(s))) for n, s in zip(spatial_shape, spacing, strict=True)]
    field = random_field(rng, extent, sigma, BUMPS, largest, density=True, least_determinant=0.2)
    axes = [torch.arange(n, dtype=torch.float64) * float(s) for n, s in zip(spatial_shape, spacing, strict=True)]
    scale = spacing.double().reshape(-1, *[1] * len(spatial_shape))
    return field, (field.on_axes(axes) / scale).float()


def find_sources(field: GaussianField, targets: Tensor) -> Tensor:
    """Find the points x that a displacement moves to given ones, ``x + u(x) = y``, by Newton's method.

    Args:
        field: u, mm.
        targets: y, ``(N, d)`` mm, float64.

    Returns:
        x, ``(N, d)``; NaN where the iteration did not end within a thousandth of a millimeter.
    """
    points = targets.clone()
    for _ in range(ITERATIONS):
        error = points + field.at(points) - targets
        if float(error.abs().max()) < 0.01 * TOLERANCE:
            break
        points = points - torch.linalg.solve(field.jacobian_at(points), error[..., None])[..., 0]
    missed = torch.linalg.vector_norm(points + field.at(points) - targets, dim=1) > TOLERANCE
    return torch.where(missed[:, None], torch.nan, points)


def make_synthetic_warps(
    dataset_dir: str | Path,
    image: str,
    label: str = "",
    pairs: int = 1,
    largest: float = 12.0,
    sigma: float = 40.0,
    landmarks: int = 300,
    seed: int = 0,
    contrast: str = "equal",
) -> Path:
    """Make a data set of one image under known displacements.

    Args:
        dataset_dir: the folder to make, complete or not at all.
        image: file of a 3D image, in any format that the bundles read.
        label: file of its labels, on its grid; without one the pairs have none.
        pairs: how many displacements to draw.
        largest: component of a displacement, mm.
        sigma: standard deviation of the Gaussians, mm.
        landmarks: points in the labels, or where the image is above its mean; fewer where some leave the image.
        seed: of displacements, points and contrast.
        contrast: of the image under each displacement, one of
            :data:`~monai_regplugins.benchmark.synthetic_contrast.CONTRASTS`, between its 0.5 and 99.5 % quantiles.

    Returns:
        ``dataset_dir``.

    Raises:
        InputError: When a file cannot be read, label and image differ in size, a number is out of its range, or the
            folder is there already.
    """
    target = Path(dataset_dir)
    check_request(target, pairs, landmarks, seed)
    rng = np.random.default_rng(seed)
    files: dict[Hashable, Any] = {"fixed": image, "moving": image}
    if label:
        files["moving_label"] = label
    loaded = LoadPaird()(files)
    affine, shape = world_affine(loaded["moving"].affine, 3, "image"), loaded["moving"].shape[1:]
    original = _original(loaded, landmarks, rng)
    check_choice(contrast, CONTRASTS, "contrast")

    def shown(image: Tensor) -> Tensor:
        low, high = (float(np.quantile(image.numpy(), at)) for at in RANGE)
        return (
            image
            if contrast == "equal"
            else low + (high - low) * in_other_contrast((image - low) / (high - low), contrast, seed)
        )

    fields = [synthetic_displacement(rng, shape, voxel_spacing(affine, 3), largest, sigma) for _ in range(pairs)]
    return make_folder(target, lambda folder: _fill(folder, target.resolve().name, original, affine, fields, shown))


def _original(loaded: Mapping[Hashable, Any], landmarks: int, rng: np.random.Generator) -> Subject:
    """The image as it is, with random voxels of its labels, or of what is brighter than the mean, as points."""
    image = loaded["moving"].as_tensor()
    label = loaded["moving_label"].as_tensor() if "moving_label" in loaded else None
    body = (image > image.mean() if label is None else label > 0)[0].nonzero()
    return Subject(image, label, body[torch.from_numpy(rng.integers(len(body), size=landmarks))].double())


def _fill(
    folder: Path,
    name: str,
    original: Subject,
    affine: Tensor,
    fields: Sequence[tuple[GaussianField, Tensor]],
    shown: Callable[[Tensor], Tensor],
) -> None:
    """Write the data set: number 0 is the image itself, the others are the image under one field each."""
    spacing = voxel_spacing(affine, 3).double()
    points = [original.points, *(find_sources(field, original.points * spacing) / spacing for field, _ in fields)]
    kept = torch.stack([_within(at, original.image.shape[1:]) for at in points]).all(dim=0)
    if not bool(kept.any()):
        raise InputError("no landmark stays within the image under all displacements; make them smaller.")
    for number, (_, ddf) in enumerate(fields, start=1):
        write_displacement(folder, number, 0, ddf, affine)
    write_dataset(
        folder,
        name,
        "One image under known displacements, which are in displacements, voxels",
        affine,
        _subjects(original, [ddf for _, ddf in fields], [at[kept] for at in points], shown),
        [(number, 0) for number in range(1, len(points))],
    )


def _subjects(
    original: Subject, ddfs: Sequence[Tensor], points: Sequence[Tensor], shown: Callable[[Tensor], Tensor]
) -> Iterator[Subject]:
    """The image as it is, then under each displacement, ``(3, *spatial)`` voxels, each with points of its own."""
    yield replace(original, points=points[0])
    for ddf, at in zip(ddfs, points[1:], strict=True):
        label = original.label
        if label is not None:
            label = warp(label[None], ddf[None], mode="nearest", padding="border")[0]
        yield Subject(shown(bspline_warp(original.image, ddf)), label, at)


def _within(points: Tensor, shape: Sequence[int]) -> Tensor:
    """Which points, voxels, lie between the centers of the outer voxels; NaN does not."""
    return ((points >= 0) & (points <= torch.tensor(shape) - 1)).all(dim=1)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_regplugins.benchmark.synthetic_warp",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("image", help="a 3D image")
    add("--label", default="", help="labels on its grid (default: none)")
    add("--output_dir", type=Path, required=True, help="folder to make")
    add("--pairs", type=int, default=1, help="displacements to draw (default: 1)")
    add("--largest", type=float, default=12.0, help="component of a displacement, mm (default: 12)")
    add("--sigma", type=float, default=40.0, help="standard deviation of the Gaussians, mm (default: 40)")
    add("--landmarks", type=int, default=300, help="points to place (default: 300)")
    add("--seed", type=int, default=0, help="of displacements, points and contrast (default: 0)")
    add("--contrast", default="equal", help=f"of the displaced images, {', '.join(CONTRASTS)} (default: equal)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Path:
    """Make the data set of the command line and return its folder."""
    args = vars(parse_arguments(sys.argv[1:] if argv is None else argv))
    return make_synthetic_warps(args.pop("output_dir"), **args)


if __name__ == "__main__":
    start()  # input errors in one line
    main()

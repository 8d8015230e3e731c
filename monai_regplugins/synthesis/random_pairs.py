"""Synthetic pairs without data: random shapes under random motion, each image with its own random contrast.

The recipe is "shapes" of SynthMorph (Hoffmann et al. 2022, IEEE TMI 41(3), 543): a network that has seen enough of them
registers images of any organ and contrast. Here the motion of the pair is known, so that its displacement supervises
beside the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from monai_regplugins.checks import InputError
from monai_regplugins.fields import identity_grid, warp
from monai_regplugins.phantoms.abdomen import abdomen_subject
from monai_regplugins.phantoms.thorax import thorax_subject
from monai_regplugins.synthesis.ran_fields import affine_displacement, image_center, rotation_matrix
from monai_regplugins.synthesis.random_contrast import Contrast, RandomScanner
from monai_regplugins.synthesis.random_motion import RandomMotion, smooth_noise

__all__ = ["RandomPairs", "phantom_maps", "random_shapes"]

Array = npt.NDArray[Any]

LABELS = (3, 10)  # fewest and most shapes in an image


class RandomPairs(Dataset[dict[str, torch.Tensor]]):
    r"""A data set of endless random pairs; each is a function of the seed and its index.

    Labels l and a texture t are drawn on a canvas, the moving space, that reaches beyond the image. The images are

    .. math::
        M(x) = D_m[c_m](x), \qquad F(x) = D_f[c_f](x + u(x))

    with a :class:`~monai_regplugins.synthesis.random_motion.RandomMotion` u, a contrast c of each
    (:class:`~monai_regplugins.synthesis.random_contrast.Contrast`; one for both in half of the pairs) and what a
    scanner does to each, D (:class:`~monai_regplugins.synthesis.random_contrast.RandomScanner`). The fixed labels are
    :math:`l(x + u(x))`, those of the nearest voxel: the moving labels warped by the known field are exactly these.

    An item has ``moving`` and ``fixed`` ``(1, *spatial)`` in [0, 1], their labels, the truth ``true_ddf``
    ``(3, *spatial)`` in voxels, ``has_true_ddf`` 1.0, and ``fixed_mask``, where the fixed image shows something whose
    partner the moving image shows too.

    Args:
        spatial_size: voxels of the images along each axis, at least 8.
        seed: seed of all pairs.
        length: number of pairs.
        motion: draws the motions.
        scanner: adds noise and artifacts to the images.
        same_contrast: probability that both images have one contrast.
        copies: probability that a pair at rest is twice the same image.
        maps: label maps of anatomies to use as well, whole numbers from 0 to 255, of any size.
        map_share: share of pairs made of ``maps``, if there are any.

    Raises:
        InputError: A number is out of its range.

    Example:
        >>> pair = RandomPairs((16, 16, 16))[0]
        >>> pair["true_ddf"].shape
        torch.Size([3, 16, 16, 16])
    """

    def __init__(
        self,
        spatial_size: Sequence[int],
        seed: int = 0,
        length: int = 1_000_000,
        motion: RandomMotion | None = None,
        scanner: RandomScanner | None = None,
        same_contrast: float = 0.5,
        copies: float = 0.5,
        maps: Sequence[Array] = (),
        map_share: float = 0.3,
    ) -> None:
        if len(spatial_size) != 3 or min(spatial_size) < 8:
            raise InputError(f"spatial_size is {list(spatial_size)}, expected three sizes of at least 8 voxels.")
        for name, value in {"same_contrast": same_contrast, "copies": copies, "map_share": map_share}.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a probability from 0 to 1.")
        if length < 1:
            raise InputError(f"length is {length}, expected at least 1 pair.")
        self.spatial_size, self.seed, self.length = tuple(spatial_size), seed, length
        self.motion, self.scanner = motion or RandomMotion(), scanner or RandomScanner()
        self.same_contrast, self.copies = same_contrast, copies
        self.maps, self.map_share = [torch.as_tensor(values) for values in maps], map_share if len(maps) else 0.0
        self.margin = 2 * -(-max(self.spatial_size) // 8)

    def __len__(self) -> int:
        """Number of pairs."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Make one pair."""
        if not 0 <= index < self.length:
            raise IndexError(f"pair {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index))
        motion = self.motion(rng, self.spatial_size, self.margin)
        label = self._labels(rng, motion.region)
        (moving, moving_seen), (fixed, fixed_seen) = self._images(rng, label, motion.ddf)
        if not motion.ddf.any() and rng.random() < self.copies:
            fixed, fixed_seen = moving.clone(), moving_seen
        inside = warp(moving_seen[None].float(), motion.ddf[None])[0] > 0.999
        return {
            "moving": moving,
            "fixed": fixed,
            "moving_label": self._cropped(label[None]),
            "fixed_label": self._seen_through(label[None], motion.ddf, "nearest"),
            "fixed_mask": inside & fixed_seen,
            "true_ddf": motion.ddf,
            "has_true_ddf": torch.tensor(1.0),
        }

    def _labels(self, rng: np.random.Generator, region: torch.Tensor) -> torch.Tensor:
        """Labels of the canvas, uint8; a region that slides has labels of its own, so that its wall can be seen."""
        if rng.random() < self.map_share:
            label = placed(rng, self.maps[int(rng.integers(len(self.maps)))], region.shape)
        else:
            label = random_shapes(rng, region.shape, self.spatial_size)
        count = int(label.max())
        return torch.where(region & (label > 0), label + count, label) if count < 128 else label

    def _images(
        self, rng: np.random.Generator, label: torch.Tensor, ddf: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The moving and the fixed image, each with the voxels that are not padded."""
        count, texture = int(label.max()) + 1, random_texture(rng, label.shape)
        contrast = Contrast.draw(rng, count)
        other = contrast if rng.random() < self.same_contrast else Contrast.draw(rng, count)
        moving = self._cropped(contrast.image(label, texture)[None])
        fixed = self._seen_through(other.image(label, texture)[None], ddf, "linear")
        return [self.scanner(rng, image) for image in (moving, fixed)]

    def _cropped(self, canvas: torch.Tensor) -> torch.Tensor:
        """The part ``(C, *spatial)`` of a canvas that the moving image shows."""
        window = [slice(None), *(slice(self.margin, self.margin + n) for n in self.spatial_size)]
        return canvas[tuple(window)].clone()

    def _seen_through(self, canvas: torch.Tensor, ddf: torch.Tensor, mode: str) -> torch.Tensor:
        """What the fixed image shows of a canvas: its values at ``x + u(x)``."""
        values = warp(canvas[None].float(), (ddf + self.margin)[None], mode, padding="border")[0]
        return values.to(canvas.dtype)


def random_shapes(rng: np.random.Generator, canvas: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    r"""Draw smooth random labels, uint8: of K noise images the one with the highest value, :math:`\arg\max_k n_k(x)`.

    Each noise image is the sum of two, coarse and fine. In half of the maps the shapes lie in a body, an uneven
    ellipsoid, with background, 0, around it; in the others they fill the canvas.

    Args:
        rng: source of the random numbers.
        canvas: voxels of the label map along each axis.
        size: those of the image in its middle, which set the scale.
    """
    count = int(rng.integers(LABELS[0], LABELS[1] + 1))
    coarse, fine = (min(size) / rng.uniform(*r) for r in ((4.0, 9.0), (9.0, 18.0)))
    noise = smooth_noise(rng, canvas, coarse, count) + rng.uniform(0, 0.7) * smooth_noise(rng, canvas, fine, count)
    label = (1 + noise.max(dim=0).indices).to(torch.uint8)  # five times as fast as argmax
    return label * _body(rng, canvas, size) if rng.random() < 0.5 else label


def phantom_maps(count: int, seed: int = 0) -> list[Array]:
    """Make label maps of the abdomen and the thorax phantom in turn, at 5 mm, uint8.

    Tissue without a label of its own is distinguished by its intensity: air, fat, soft tissue, and what is denser. The
    subjects are none of those that :func:`~monai_regplugins.phantoms.make_abdomen` and
    :func:`~monai_regplugins.phantoms.make_thorax` put into a data set.

    Args:
        count: number of maps, 0 or more.
        seed: seed of the subjects.
    """
    return [_phantom_map((0x5EED, seed, number), thorax=number % 2 == 1) for number in range(count)]


def _phantom_map(seed: tuple[int, ...], thorax: bool) -> Array:
    if thorax:
        chest = thorax_subject(seed, (1.0,), (56, 44, 52), 5.0)
        image, label = chest.images[0], chest.labels[0]
    else:
        subject = abdomen_subject(seed, (64, 52, 64), 5.0)
        image, label = subject["image"], subject["label"]
    tissue = np.digitize(image, (-500, -30, 140)) + int(label.max())
    outside = (image < -500) & (label == 0)
    return np.where(outside, 0, np.where(label > 0, label, tissue)).astype(np.uint8)


def random_texture(rng: np.random.Generator, canvas: Sequence[int]) -> torch.Tensor:
    """Draw a texture of about unit variance: fine noise, or spots where it exceeds a threshold."""
    noise = smooth_noise(rng, canvas, rng.uniform(0.8, 2.5))[0]
    return 3.0 * (noise > 1.0) if rng.random() < 0.5 else noise


def placed(rng: np.random.Generator, values: torch.Tensor, canvas: Sequence[int]) -> torch.Tensor:
    """Put a label map on a canvas at a random size and pose, with background around it; uint8."""
    canvas = list(canvas)
    axis = rng.standard_normal(3).tolist()
    turn = rotation_matrix(axis, float(rng.uniform(-0.5, 0.5)))
    sizes = np.asarray(values.shape) / np.asarray(canvas) * rng.uniform(0.8, 1.8, 3)
    matrix = torch.from_numpy(sizes).float()[:, None] * turn
    grid, middle = identity_grid(tuple(canvas)), image_center(canvas)
    ddf = affine_displacement(grid, matrix, middle, image_center(values.shape) - middle)
    return warp(values[None, None].float(), ddf[None], "nearest", "zeros")[0, 0].to(torch.uint8)


def _body(rng: np.random.Generator, canvas: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """Where an uneven ellipsoid about the middle of the canvas is, boolean."""
    radii = torch.from_numpy(np.asarray(size) * rng.uniform(0.3, 0.65, len(size))).float()
    offset = (identity_grid(tuple(canvas)) - image_center(canvas).view(-1, 1, 1, 1)) / radii.view(-1, 1, 1, 1)
    return offset.square().sum(0) + 0.25 * smooth_noise(rng, canvas, min(size) / 6)[0] < 1

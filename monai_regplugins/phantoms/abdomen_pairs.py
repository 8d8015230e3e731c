"""Pairs of abdomen phantoms in memory, on about the grid that a network trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.phantoms.abdomen import SIZE, SPACING, Array, abdomen_subject

__all__ = ["AbdomenPairs"]

FIRST = 1000  # number of the first subject; those of the data set in files are numbered from 1
FINER = 2  # images are drawn on a grid so much finer, so that resizing averages them like those of scans


class AbdomenPairs(Sequence[dict[str, Any]]):
    """All ordered pairs of subjects of the abdomen phantom, other ones than those of its data set.

    A subject is drawn when it is first asked for, a third of a CPU second for a grid of 24x20x24, and kept, so that
    there can be many of them: of few, a network learns these subjects instead of the anatomy. Worker processes of a
    data loader draw their own, in each epoch.

    Args:
        spatial_size: voxels of the network's grid along each axis. Images have twice as many, but no more than those of
            the data set, over the same 320 x 256 x 320 mm.
        num_subjects: number of subjects.
        seed: seed of all subjects.

    Raises:
        InputError: When there are not three axes of at least 4 voxels, or fewer than two subjects.

    Example:
        >>> pairs = AbdomenPairs((10, 8, 10), num_subjects=3)
        >>> len(pairs), pairs[0]["fixed"].shape
        (6, torch.Size([20, 16, 20]))
    """

    def __init__(self, spatial_size: Sequence[int], num_subjects: int = 120, seed: int = 0) -> None:
        if len(spatial_size) != 3 or min(spatial_size) < 4:
            raise InputError(f"spatial_size is {list(spatial_size)}, expected three sizes of at least 4 voxels.")
        if num_subjects < 2:
            raise InputError(f"num_subjects is {num_subjects}, expected at least 2 to make a pair.")
        self.shape = tuple(min(FINER * n, most) for n, most in zip(spatial_size, SIZE, strict=True))
        self.num_subjects, self.seed = num_subjects, seed
        self._drawn: dict[int, dict[str, Array]] = {}

    def __len__(self) -> int:
        """Number of ordered pairs of different subjects."""
        return self.num_subjects * (self.num_subjects - 1)

    def __getitem__(self, index: Any) -> Any:
        """Return a pair.

        Args:
            index: number of the pair.

        Returns:
            ``moving``, ``fixed``: Hounsfield units ``(*s)``; ``moving_label``, ``fixed_label``: organs ``(*s)``, see
            :data:`~monai_regplugins.phantoms.anatomy.ABDOMEN_LABELS`; ``pair_id``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        fixed, moving = divmod(int(index), self.num_subjects - 1)
        moving += moving >= fixed
        pair: dict[str, Any] = {"pair_id": f"{FIRST + moving}_to_{FIRST + fixed}"}
        for side, number in (("fixed", fixed), ("moving", moving)):
            subject = self._subject(number)
            image, label, affine = (torch.from_numpy(subject[key]) for key in ("image", "label", "affine"))
            pair[side] = MetaTensor(image.float(), affine=affine)
            pair[f"{side}_label"] = MetaTensor(label, affine=affine)
        return pair

    def _subject(self, number: int) -> dict[str, Array]:
        if number not in self._drawn:
            spacing = [SPACING * most / n for most, n in zip(SIZE, self.shape, strict=True)]
            subject = abdomen_subject((self.seed, FIRST + number), self.shape, spacing)
            self._drawn[number] = {key: subject[key] for key in ("image", "label", "affine")}
        return self._drawn[number]

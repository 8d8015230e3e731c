"""What drives the instance optimization beside the images: labels and landmarks, and which of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.grids import above_zero
from monai_regplugins.keys import LABEL_KEYS, POINT_KEYS
from monai_regplugins.losses.drivers import Driver, LabelDistance, LandmarkDistance
from monai_regplugins.metrics.overlap import labels_in
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["Drivers", "PairDrivers"]

Pair: TypeAlias = Mapping[Any, Any]

LISTED = 12  # labels in a message
POINTS = ("landmarks", "keypoints")  # the former are measured where a pair has both


class Drivers:
    """Labels and landmarks that pull in instance optimization, and how much.

    Those that do not pull are only measured, and what is measured of the others is reported apart, see
    :func:`~monai_regplugins.metrics.pair_metrics`.

    Args:
        label_weight: of :class:`~monai_regplugins.losses.drivers.LabelDistance`; 0 is no label.
        labels: the values that drive; empty for all that both images have.
        landmark_weight: of :class:`~monai_regplugins.losses.drivers.LandmarkDistance`, one number or one for each
            landmark that drives; 0 is no landmark.
        landmarks: rows of the points that drive, from 0; empty for all.

    Raises:
        InputError: A weight is negative, or a label or row is no whole number.

    Example:
        >>> label = torch.tensor([[[0, 3], [5, 3]]])
        >>> Drivers(label_weight=1.0).labels_of({"moving_label": label, "fixed_label": label})
        [3, 5]
    """

    def __init__(
        self,
        label_weight: float = 0.0,
        labels: int | Sequence[int] = (),
        landmark_weight: float | Sequence[float] = 0.0,
        landmarks: int | Sequence[int] = (),
    ) -> None:
        (self.label_weight,) = _weights(label_weight, "refine_label_weight")
        self.landmark_weights = _weights(landmark_weight, "refine_landmark_weight")
        self.labels = _numbers(labels, "driving_labels", 1, "labels such as [1, 3], not 0, which is the background")
        self.landmarks = _numbers(landmarks, "driving_landmarks", 0, "rows of the points such as [0, 2], from 0")

    def __bool__(self) -> bool:
        """Whether anything drives."""
        return bool(self.keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """Entries of a pair that drive."""
        return (LABEL_KEYS if self.label_weight else ()) + (POINT_KEYS if any(self.landmark_weights) else ())

    def check(self, pair: Pair) -> None:
        """Look whether a loaded pair has what is to drive.

        Raises:
            InputError: A label map or the points of an image are missing, a label is not in both images, or there are
                no such points.
        """
        if self.label_weight:
            self.labels_of(pair)
        if any(self.landmark_weights):
            self.landmarks_of(pair)

    def labels_of(self, pair: Pair) -> list[int]:
        """The labels of a pair that drive.

        Raises:
            InputError: See :meth:`check`.
        """
        moving, fixed = (labels_in(label) - {0} for label in _both(pair, ("label",), "refine_label_weight"))
        common = sorted(moving & fixed)
        if not common:
            raise InputError(
                "no label is in both label maps, so that none can drive; give label maps of the same organs, or set "
                "refine_label_weight to 0."
            )
        for label in self.labels:
            if label not in common:
                where = "moving" if label in fixed else "fixed" if label in moving else "fixed and the moving"
                raise InputError(
                    f"driving label {label} is not in the {where} label map, expected labels that both images have "
                    f"({_listed(common)}); change driving_labels."
                )
        return self.labels or common

    def landmarks_of(self, pair: Pair) -> list[int]:
        """The rows of the points of a pair that drive; of its landmarks, if it has keypoints too.

        Raises:
            InputError: See :meth:`check`.
        """
        moving, fixed = _both(pair, POINTS, "refine_landmark_weight")
        number = fixed.shape[-2]
        if moving.shape != fixed.shape:
            raise InputError(
                f"there are {moving.shape[-2]} moving and {number} fixed points, expected a partner for each; check "
                "the files."
            )
        beyond = [row for row in self.landmarks if row >= number]
        if beyond:
            raise InputError(
                f"driving_landmarks names row {beyond[0]}, but the pair has {number} points, expected rows from 0 to "
                f"{number - 1}; change it."
            )
        rows = self.landmarks or list(range(number))
        if len(self.landmark_weights) not in (1, len(rows)):
            raise InputError(
                f"refine_landmark_weight has {len(self.landmark_weights)} numbers, expected one, or one for each of "
                f"the {len(rows)} points that drive."
            )
        return rows

    def of_pair(self, pair: Mapping[str, Tensor]) -> PairDrivers:
        """The drivers of a pair on the fixed grid, all tensors with a batch axis of one.

        Raises:
            InputError: See :meth:`check`.
        """
        return PairDrivers(self, pair)


class PairDrivers:
    """The drivers of one pair, at any size of its grid.

    Args:
        drivers: which, and how much they weigh.
        pair: ``moving_label`` and ``fixed_label`` ``(1, 1, *spatial)``, points ``(1, N, d)`` in voxels of the fixed
            grid, masks, and ``fixed``.

    Attributes:
        labels: that drive.
        landmarks: rows of the points that drive.

    Example:
        >>> label = torch.zeros(1, 1, 16, 16).index_fill(2, torch.arange(4, 8), 3.0)
        >>> pair = {"fixed": label, "fixed_label": label, "moving_label": label.roll(2, 2)}
        >>> driving = Drivers(label_weight=1.0).of_pair(pair)
        >>> driving.labels, driving.loss([8, 8])(torch.zeros(1, 2, 8, 8))
        ([3], tensor(0.5000))
    """

    def __init__(self, drivers: Drivers, pair: Mapping[str, Tensor]) -> None:
        self._drivers, self._pair = drivers, pair
        self.labels = drivers.labels_of(pair) if drivers.label_weight else []
        self.landmarks = drivers.landmarks_of(pair) if any(drivers.landmark_weights) else []
        self._made: dict[tuple[int, ...], list[Driver]] = {}

    def at(self, size: Sequence[int]) -> list[Driver]:
        """The terms at a size of the grid; what depends on the pair alone is computed once."""
        key = tuple(size)
        if key not in self._made:
            self._made[key] = list(self._terms(list(size)))
        return self._made[key]

    def loss(self, size: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """Their sum as a function of a field of a size."""
        terms = self.at(size)
        return lambda ddf: torch.stack([ddf.new_zeros(()), *(term(ddf) for term in terms)]).sum()

    def outputs(self) -> dict[str, Tensor]:
        """What becomes part of the result: ``driving_labels`` and ``driving_landmarks``, each ``(1, N)``."""
        found = {"driving_labels": self.labels, "driving_landmarks": self.landmarks}
        return {key: torch.tensor([numbers]) for key, numbers in found.items() if numbers}

    def _terms(self, size: list[int]) -> Iterator[Driver]:
        """Make the terms at a size."""
        if self.labels:
            weights, seen = (self._mask(key, size) for key in ("fixed_mask", "moving_mask"))
            seen = None if seen is None else (seen >= 0.5).float()
            yield LabelDistance(self._shares(size), self._drivers.label_weight, weights, seen)
        if self.landmarks:
            yield self._landmark_distance(size)

    def _shares(self, size: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The shares of the voxels at a size that belong to each label, of the moving and the fixed image."""
        for label in self.labels:
            moving, fixed = (_resized((self._pair[key] == label).float(), size) for key in LABEL_KEYS)
            yield moving, fixed

    def _mask(self, key: str, size: list[int]) -> Tensor | None:
        """How far voxels at a size count by a mask, if there is one."""
        mask = self._pair.get(key)
        return None if mask is None else _resized(above_zero(mask).float(), size)

    def _landmark_distance(self, size: list[int]) -> LandmarkDistance:
        """The landmarks at a size."""
        moving, fixed = (points[0].float() for points in _both(self._pair, POINTS, "refine_landmark_weight"))
        weights = fixed.new_tensor(self._drivers.landmark_weights).expand(len(self.landmarks))
        scale = fixed.new_tensor([n / m for n, m in zip(size, self._pair["fixed"].shape[2:], strict=True)])
        moving, fixed = moving[self.landmarks], fixed[self.landmarks]
        return LandmarkDistance((fixed + 0.5) * scale - 0.5, (moving - fixed) * scale, size, weights)


def _both(pair: Pair, kinds: Sequence[str], option: str) -> tuple[Tensor, Tensor]:
    """The moving and the fixed entry of the first of some kinds of which a pair has any."""
    kind = next((kind for kind in kinds if {f"moving_{kind}", f"fixed_{kind}"} & pair.keys()), kinds[0])
    what = "label map" if kind == "label" else "points"
    for side in ("moving", "fixed"):
        if f"{side}_{kind}" not in pair:
            raise InputError(
                f"{option} is above 0, but the pair has no {side} {what}, expected {what}{'s' * (kind == 'label')} of "
                f"both images; give {'it' if kind == 'label' else 'them'}, or set {option} to 0."
            )
    return pair[f"moving_{kind}"], pair[f"fixed_{kind}"]


def _resized(values: Tensor, size: list[int]) -> Tensor:
    """An image ``(1, 1, *spatial)`` at a size."""
    return values if list(values.shape[2:]) == size else resize_image(values[0], size)[None]


def _weights(given: Any, option: str) -> list[float]:
    """One weight or several."""
    values = given if isinstance(given, Sequence) and len(given) > 0 else [given]
    if not all(isinstance(value, int | float) and 0 <= value < math.inf for value in values):
        raise InputError(f"{option} is {given!r}, expected a number from 0 on, such as 1; correct it.")
    return [float(value) for value in values]


def _numbers(given: Any, option: str, lowest: int, expected: str) -> list[int]:
    """Whole numbers from a lowest one on, without repetition."""
    values = [given] if isinstance(given, int) else given
    whole = not isinstance(values, str) and all(isinstance(value, int) and value >= lowest for value in values)
    if not whole or len({*values}) < len(values):
        raise InputError(f"{option} is {given!r}, expected a list of {expected}; correct it.")
    return list(values)


def _listed(labels: Sequence[int]) -> str:
    """The first labels in words."""
    more = ["..."] if len(labels) > LISTED else []
    return ", ".join([*map(str, labels[:LISTED]), *more])

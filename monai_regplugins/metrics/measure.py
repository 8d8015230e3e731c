"""Measures of a user, from the images of a registered pair by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from monai_regplugins.checks import InputError

__all__ = ["OWN", "Measure", "own_values"]

OWN = "own_"  # what the names of these measures begin with
NOT_IN_EVERY_PAIR = ("label", "mask", "landmarks", "keypoints", "true_ddf")  # how such names end
BEFORE = {"warped": "moving", "warped_label": "moving_label"}  # what takes the place of the registered image
ALIGNED = {"warped": "aligned", "warped_label": "aligned_label"}


class Measure:
    """A function of the images of a pair, that becomes ``own_<name>`` among its measures.

    Where it sees the registered image or label map, ``own_<name>_before`` is its value for those as they were given,
    and ``own_<name>_aligned`` that after the initial alignment, if there was one.

    Args:
        function: called with the inputs in order, tensors ``(1, *spatial)`` or ``(d, *spatial)``; returns a number.
        inputs: their names: ``warped``, ``fixed``, ``moving``, ``ddf``, ``warped_label``, ``fixed_label``,
            ``moving_label``, ``fixed_mask`` or ``spacing``. A pair that lacks a label map or a mask lacks the measure.
        smaller_is_better: whether it is a distance, for the score of a training.

    Raises:
        InputError: When no inputs are named.

    Example:
        >>> error = Measure(torch.nn.L1Loss(), ["warped", "fixed"], smaller_is_better=True)
        >>> targets = {"fixed": torch.ones(1, 4, 4), "moving": torch.zeros(1, 4, 4)}
        >>> own_values({"mae": error}, {"warped": torch.ones(1, 4, 4)}, targets)
        {'own_mae': 0.0, 'own_mae_before': 1.0}
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[str] = ("warped", "fixed"),
        smaller_is_better: bool = False,
    ) -> None:
        if isinstance(inputs, str) or not inputs:
            raise InputError(f"inputs is {inputs!r}, expected a list of names such as ['warped', 'fixed'].")
        self.function, self.inputs, self.smaller_is_better = function, tuple(inputs), smaller_is_better

    def __call__(self, tensors: Mapping[str, Any]) -> float:
        """Return the value, NaN where the pair lacks an input.

        Raises:
            InputError: When there is no input of that name in any pair.
        """
        missing = [name for name in self.inputs if name not in tensors]
        for name in missing:
            if not name.endswith(NOT_IN_EVERY_PAIR):
                raise InputError(f"no tensor is named '{name}', expected one of {', '.join(sorted(tensors))}.")
        if missing:
            return math.nan
        values = (tensors[name] for name in self.inputs)
        return float(self.function(*(one.as_subclass(torch.Tensor).float() for one in values)))


def own_values(
    measures: Mapping[str, Measure], pred: Mapping[str, Any], targets: Mapping[str, Any]
) -> dict[str, float]:
    """Return the measures of a pair, before, aligned and after, see :class:`Measure`; those it lacks are left out."""
    found = {}
    for suffix, places in (("", {}), ("_before", BEFORE), ("_aligned", ALIGNED)):
        tensors = {**targets, **pred}
        for name, source in places.items():
            tensors.pop(name, None)
            if source in targets:
                tensors[name] = targets[source]
        for name, measure in measures.items():
            seen = {*measure.inputs} & {*places}
            if not places or (seen and seen <= {*tensors}):
                found[f"{OWN}{name}{suffix}"] = measure(tensors)
    return {name: value for name, value in found.items() if not math.isnan(value)}

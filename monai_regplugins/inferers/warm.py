"""Registration of the phases of a series: the field of one phase is where the optimization of the next one begins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from monai.inferers import Inferer
from torch import Tensor

from monai_regplugins.checks import InputError
from monai_regplugins.inferers.refine import RefinedInferer

__all__ = ["WarmInferer"]


class WarmInferer(Inferer):
    """Refine a pair from a field that is given, in few steps; without one register it from the beginning.

    The motion between neighboring phases of a breath or of a heart beat is small, so that the field of a phase is a
    good start for the next one. The network is not run then. As with the network's field, the optimization begins at
    no displacement, too, and keeps the better one, so that a bad field is not handed on.

    Args:
        inferer: registers a pair from the beginning.
        steps: maximum number of steps per level from a given field.

    Raises:
        InputError: When ``steps`` is below 1.

    Example:
        >>> import torch
        >>> from monai_regplugins.inferers.pair import PairInferer
        >>> warm = WarmInferer(RefinedInferer(PairInferer(), steps=5), steps=2)
        >>> images, previous = torch.rand(1, 2, 16, 16), torch.full((1, 2, 16, 16), 0.5)
        >>> warm(images, torch.zeros_like, start=previous)["ddf"].shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(self, inferer: RefinedInferer, steps: int = 15) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"steps from the field of the previous phase is {steps}, expected at least 1.")
        self.inferer = inferer
        self._warm = copy.copy(inferer)
        self._warm.inferer = _Given(inferer.inferer.padding)  # type: ignore[assignment]
        self._warm.descend, self._warm.steps = copy.copy(inferer.descend), steps
        self._warm.descend.steps = steps

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, start: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Register a batch.

        Args:
            inputs: as the wrapped inferer takes them.
            network: the network.
            *args: further arguments of the wrapped inferer.
            start: field to begin at, ``(B, d, *spatial)``, voxels; None for that of the network.
            **kwargs: keyword arguments of the wrapped inferer.
        """
        if start is None:
            return self.inferer(inputs, network, *args, **kwargs)
        return self._warm(inputs, network, *args, start=start, **kwargs)


class _Given(Inferer):
    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = padding

    def __call__(self, inputs: Tensor, network: Any, *args: Any, start: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        return {"ddf": start, "warped": inputs[:, :1]}

"""Registration from a field that is given, such as that of the phase before in a series."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.inferers.pair import moving_and_fixed
from monai_regplugins.inferers.refine import RefinedInferer

__all__ = ["KnownField", "WarmInferer"]


class WarmInferer(Inferer):
    """Refine a pair from a field that is given, in few steps; without one register it from the beginning.

    The motion between neighboring phases of a breath or of a heart beat is small, so that the field of a phase is a
    good start for the next one, and the network does not have to run. A field under which the images differ more than
    without it, by their mean squared difference, is not taken; the optimization begins at no displacement then.

    Args:
        inferer: registers a pair from the beginning.

    Example:
        >>> from monai_regplugins.inferers.pair import PairInferer
        >>> warm = WarmInferer(RefinedInferer(PairInferer(), steps=5))
        >>> images, previous = torch.rand(1, 2, 16, 16), torch.full((1, 2, 16, 16), 0.5)
        >>> warm(images, torch.zeros_like, start=previous, start_steps=torch.tensor([2]))["ddf"].shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(self, inferer: RefinedInferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Any],
        *args: Any,
        start: Tensor | None = None,
        start_steps: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Register a batch.

        Args:
            inputs: ``(B, 2, *spatial)``, moving then fixed.
            network: the network.
            *args: further arguments of the wrapped inferer.
            start: field to begin at, ``(B, d, *spatial)``, voxels; None for that of the network.
            start_steps: maximum number of steps per level from it, ``(B,)``, equal for all; 0 keeps it as it is.
            **kwargs: keyword arguments of the wrapped inferer.

        Returns:
            As the wrapped inferer; from a field that is given, without what that states of its starts, which are not
            judged then.
        """
        if start is None:
            return self.inferer(inputs, network, *args, **kwargs)
        steps = self.inferer.steps if start_steps is None else int(start_steps.flatten()[0])
        given = start.to(inputs)
        begin = _of_fewer_differences(inputs, given, self.inferer.inferer.padding) if steps else given
        return self._with_steps(steps, begin)(inputs, network, *args, **kwargs)

    def _with_steps(self, steps: int, start: Tensor) -> RefinedInferer:
        """The wrapped inferer with a field in place of its network's, and with another number of steps."""
        warm = copy.copy(self.inferer)
        warm.inferer = KnownField(start, self.inferer.inferer.padding)  # type: ignore[assignment]
        warm.descend, warm.steps = copy.copy(self.inferer.descend), steps
        warm.descend.steps = steps
        warm.never_worse = warm.judged = False  # else it would begin at no displacement, too, and take twice as long
        return warm


class KnownField(Inferer):
    """Stand in for an inferer: the field is known, and the network does not run.

    Args:
        ddf: the field, ``(B, d, *spatial)``, voxels; None for no displacement.
        padding: padding of the warp outside of the moving image: ``zeros`` or ``border``.

    Example:
        >>> sorted(KnownField(None, "zeros")(torch.rand(1, 2, 16, 16), None))
        ['ddf', 'warped']
    """

    def __init__(self, ddf: Tensor | None, padding: str) -> None:
        super().__init__()
        self.ddf, self.padding = ddf, padding

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the field and the moving image under it."""
        moving = moving_and_fixed(inputs)[0].float()
        if self.ddf is None:
            return {"ddf": moving.new_zeros(len(moving), moving.ndim - 2, *moving.shape[2:]), "warped": moving}
        return {"ddf": self.ddf, "warped": fields.warp(moving, self.ddf, padding=self.padding)}


def _of_fewer_differences(image: Tensor, ddf: Tensor, padding: str) -> Tensor:
    """The field, or zero where that matches the images of a pair better."""
    moving, fixed = moving_and_fixed(image.float())
    axes = list(range(1, image.ndim))
    with_it = (fields.warp(moving, ddf, padding=padding) - fixed).square().mean(axes, keepdim=True)
    return torch.where(with_it <= (moving - fixed).square().mean(axes, keepdim=True), ddf, 0)

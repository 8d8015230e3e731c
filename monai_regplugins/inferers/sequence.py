"""The inferer of registration in steps: it takes all steps, or as many as help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.losses import masked_mse
from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms, field, voxels_per_unit
from monai_regplugins.networks.nets.r2n2 import RegistrationState

__all__ = ["SequenceInferer", "StoppingRule", "register_until"]


@dataclass(frozen=True)
class StoppingRule:
    """When a sample has had enough steps, and which step it keeps.

    A step stalls if its displacement is below ``smallest_update`` everywhere, or if it lowers the image difference by
    less than the fraction ``smallest_decrease`` of the difference before the registration.

    Attributes:
        patience: stalling steps in a row after which a sample stops.
        smallest_update: voxels of the network's grid.
        smallest_decrease: fraction of the initial mean squared difference.
        min_steps: steps that every sample takes.
        keep_best: return the step of the smallest image difference, the identity included, not the last one.

    Raises:
        InputError: When ``patience`` or ``min_steps`` is below 1.
    """

    patience: int = 2
    smallest_update: float = 0.1
    smallest_decrease: float = 1e-3
    min_steps: int = 2
    keep_best: bool = True

    def __post_init__(self) -> None:
        """Check the counts."""
        if self.patience < 1 or self.min_steps < 1:
            raise InputError(
                f"patience and min_steps are {self.patience} and {self.min_steps}, expected at least 1; "
                "leave stopping out to take all steps."
            )


class SequenceInferer(PairInferer):
    """Run a network that registers in steps, such as :class:`~monai_regplugins.networks.nets.R2N2`.

    Like :class:`PairInferer`, and beside ``ddf`` and ``warped`` the result has ``sequence`` ``(B, T, d, *grid)``, the
    fields after all steps on the network's grid, where the network returns them; ``steps`` ``(B,)``, the number of
    steps taken, where there is a stopping rule; and, if asked, the local transformations, one entry per field of
    :class:`~monai_regplugins.networks.blocks.local_gaussian.LocalTransforms`.

    Args:
        stopping: when to stop, a :class:`StoppingRule`; None takes all steps. Ignored while gradients are on.
        transforms: whether to return the local transformations; those after the step that is kept do nothing.
        minimum_size: smallest axis that the network takes.
        **kwargs: further arguments of :class:`PairInferer`.
    """

    def __init__(
        self,
        stopping: StoppingRule | None = None,
        transforms: bool = False,
        minimum_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(minimum_size=minimum_size, **kwargs)
        self.stopping, self.transforms = stopping, transforms

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Tensor],
        fixed: Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> dict[str, Tensor]:
        """Register a batch; arguments as of :class:`PairInferer`."""
        extra: dict[str, Tensor] = {}

        def last_field(grid: Tensor, *args: object, **kwargs: object) -> Tensor:
            registrar: Any = getattr(network, "module", network)  # inside of DistributedDataParallel
            if self.stopping is not None and not torch.is_grad_enabled():
                found, extra["steps"] = register_until(self.stopping, registrar, grid)
            elif self.transforms:
                found = registrar.local_transforms(grid)
            else:
                ddf = network(grid, *args, **kwargs)
                if ddf.ndim == grid.ndim + 1:
                    extra["sequence"], ddf = ddf, ddf[:, -1]
                return ddf
            if self.transforms:
                extra.update(found._asdict())
            return field(found, list(grid.shape[2:]), registrar.unit_spacing())

        return super().__call__(inputs, last_field, fixed, *args, **kwargs) | extra


def register_until(rule: StoppingRule, network: Any, image: Tensor) -> tuple[LocalTransforms, Tensor]:
    """Register each sample of a batch until it stalls; stopped samples are not computed any further.

    Args:
        rule: when to stop.
        network: an R2N2; its ``steps`` are the most that are taken.
        image: moving and fixed, ``(B, 2, *grid)``.

    Returns:
        the local transformations, those after the step that is kept without displacement; and the number of steps
        that each sample took, ``(B,)``.
    """
    size, spacing = list(image.shape[2:]), network.unit_spacing()
    units = torch.tensor(voxels_per_unit(size, spacing)[::-1], device=image.device)  # x first
    moving, fixed = image[:, :1].float(), image[:, 1:].float()
    ddf = moving.new_zeros(len(image), len(size), *size)
    first = masked_mse(moving, fixed, ddf)
    smallest, previous = first.clone(), first.clone()
    steps = torch.zeros(len(image), dtype=torch.int64, device=image.device)
    kept, stalls = steps.clone(), steps.clone()
    found: list[LocalTransforms] = []
    active, state, warped = torch.arange(len(image), device=image.device), network.start(image), moving
    for t in range(1, network.steps + 1):
        transform, _, state = network.step(warped, state)
        found.append(LocalTransforms(*(_spread(values, active, len(image)) for values in transform)))
        ddf = ddf + field(transform, size, spacing)
        warped = fields.warp(moving[active], ddf, "linear", network.padding)
        difference = masked_mse(moving[active], fixed[active], ddf)
        steps[active] = t
        better = (difference < smallest[active]) | (not rule.keep_best)
        kept[active[better]], smallest[active[better]] = t, difference[better]
        update = (transform.vector[:, 0].float() * units).norm(dim=1)
        decrease = (previous[active] - difference) / first[active].clamp_min(torch.finfo(torch.float32).tiny)
        stalled = (update < rule.smallest_update) | (decrease < rule.smallest_decrease)
        previous[active] = difference
        stalls[active] = torch.where(stalled, stalls[active] + 1, 0)
        going = (stalls[active] < rule.patience) | (t < rule.min_steps)
        active, ddf, warped = active[going], ddf[going], warped[going]
        state = RegistrationState(state.features[going], [h[going] for h in state.hidden])
        if not len(active):
            break
    together = LocalTransforms(*(torch.cat(values, dim=1) for values in zip(*found, strict=True)))
    number = torch.arange(1, len(found) + 1, device=image.device)
    vector = together.vector * (number <= kept[:, None])[:, :, None]
    return together._replace(vector=vector), steps


def _spread(values: Tensor, active: Tensor, count: int) -> Tensor:
    """Parameters of the active samples among those of all: the others get one, which is a valid size and no error."""
    spread = values.new_ones(count, *values.shape[1:])
    spread[active] = values
    return spread

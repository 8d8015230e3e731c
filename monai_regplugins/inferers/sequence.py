"""Inferer for recurrent networks, with early stopping and uncertainty estimation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice, check_minimum_size
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.losses import masked_mse
from monai_regplugins.networks.blocks.local_gaussian import (
    LocalTransforms,
    field,
    localization_variance,
    voxels_per_unit,
)
from monai_regplugins.networks.nets.r2n2 import RegistrationState

__all__ = ["SequenceInferer", "StoppingRule", "register_until", "weight_deviation"]

UNCERTAINTIES = ("none", "localization", "weights")


@dataclass(frozen=True)
class StoppingRule:
    """Early stopping of a recurrent registration: when a sample stops, and which step it keeps.

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

    Example:
        >>> StoppingRule(patience=3).keep_best
        True
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


ALL_STEPS = StoppingRule(patience=sys.maxsize, keep_best=False)


class SequenceInferer(PairInferer):
    r"""Run a recurrent registration network, such as :class:`~monai_regplugins.networks.nets.R2N2`.

    Like :class:`PairInferer`, and beside ``ddf`` and ``warped`` the result has ``sequence`` ``(B, T, d, *grid)``, the
    fields after all steps on the network's grid, where the network returns them; ``steps`` ``(B,)``, the number of
    steps taken, where there is a stopping rule; if asked, the local transformations, one entry per field of
    :class:`~monai_regplugins.networks.blocks.local_gaussian.LocalTransforms`; and, if asked, ``uncertainty``
    ``(B, d, *spatial)``, the standard deviation of each component of the displacement, voxels as ``ddf``:

    * ``localization``: what the spread of the position maps does to the field, in closed form and in one pass; see
      :func:`.local_gaussian.localization_variance`. Steps count as independent.
    * ``weights``: the deviation over registrations with the noise of the training left on in the weights, which reads
      the noise as a distribution of networks; see :func:`weight_deviation`.

    Neither is calibrated: they rank voxels, and a factor turns them into errors.

    Args:
        stopping: early stopping, a :class:`StoppingRule`; None takes all steps. Ignored while gradients are enabled.
        transforms: whether to return the local transformations; those after the kept step are zero displacements.
        uncertainty: ``none``, ``localization`` or ``weights``.
        samples: number of registrations for ``weights``.
        seed: seed of the noise for ``weights``; the noise is the same for every batch.
        minimum_size: smallest axis length of the network's input.
        **kwargs: further arguments of :class:`PairInferer`.

    Raises:
        InputError: When ``uncertainty`` is unknown or ``samples`` is below 2.

    Example:
        >>> from monai_regplugins.networks.nets import R2N2
        >>> network = R2N2(channels=(4, 8, 16), steps=2).eval()
        >>> SequenceInferer(StoppingRule())(torch.rand(1, 2, 40, 30), network)["ddf"].shape
        torch.Size([1, 2, 40, 30])
    """

    def __init__(
        self,
        stopping: StoppingRule | None = None,
        transforms: bool = False,
        uncertainty: str = "none",
        samples: int = 10,
        seed: int = 0,
        minimum_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(minimum_size=minimum_size, **kwargs)
        if self.passes > 1:
            raise InputError(f"passes is {self.passes}, expected 1: the steps of one pass would be taken for all.")
        check_choice(uncertainty, UNCERTAINTIES, "uncertainty")
        if samples < 2:
            raise InputError(f"samples is {samples}, expected at least 2 for a deviation; 10 to 30 are usual.")
        self.stopping, self.transforms = stopping, transforms
        self.uncertainty, self.samples, self.seed = uncertainty, samples, seed

    def __call__(
        self,
        inputs: Tensor,
        network: Callable[..., Tensor],
        fixed: Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> dict[str, Tensor]:
        """Register a batch; arguments as of :class:`PairInferer`.

        Raises:
            InputError: As there, and in a training when the image is smaller than the network takes, since the fields
                after all steps would be those of the padded one.
        """
        extra: dict[str, Tensor] = {}
        registrar: Any = getattr(network, "module", network)  # inside of DistributedDataParallel
        if getattr(registrar, "training", False) and getattr(registrar, "return_sequence", False):
            check_minimum_size(self._target(list(inputs.shape[2:])), self.minimum_size, "image to train on")
        rule = None if torch.is_grad_enabled() else self.stopping

        def last_field(grid: Tensor, *args: object, **kwargs: object) -> Tensor:
            if self.uncertainty == "weights":
                extra["uncertainty"] = weight_deviation(rule, registrar, grid, self.samples, self.seed)
            if rule is None and self.uncertainty != "localization" and not self.transforms:
                ddf = network(grid, *args, **kwargs)
                if ddf.ndim == grid.ndim + 1:
                    extra["sequence"], ddf = ddf, ddf[:, -1]
                return ddf
            return self._sum_of_steps(rule, registrar, grid, extra)

        last_field.weights_file = getattr(registrar, "weights_file", "")  # type: ignore[attr-defined]
        result = super().__call__(inputs, last_field, fixed, *args, **kwargs) | extra
        if "uncertainty" in extra:
            native = list(inputs.shape[2:])
            result["uncertainty"] = self._to_native(extra["uncertainty"], native, self._target(native))
        return result

    def _sum_of_steps(self, rule: StoppingRule | None, network: Any, grid: Tensor, extra: dict[str, Tensor]) -> Tensor:
        """Field as the sum of its local transformations; what was asked for beside it goes into ``extra``."""
        size, spacing = list(grid.shape[2:]), network.unit_spacing()
        if rule is None and self.uncertainty != "localization":
            found = network.local_transforms(grid)
        else:
            found, steps, covariances = register_until(rule or ALL_STEPS, network, grid)
            if rule is not None:
                extra["steps"] = steps
            if self.uncertainty == "localization":
                extra["uncertainty"] = localization_variance(found, covariances, size, spacing).detach().sqrt()
        if self.transforms:
            extra.update(found._asdict())
        return field(found, size, spacing)


@torch.no_grad()
def weight_deviation(rule: StoppingRule | None, network: Any, image: Tensor, samples: int, seed: int) -> Tensor:
    """Deviation of the field over networks drawn from the Gaussian noise on the state kernels of the GRUs.

    The noise is that of the training (``R2N2.draw_noise``), here left on for a network in any mode; global random
    numbers are neither used nor changed. All samples of a batch meet the same networks.

    Args:
        rule: when to stop; None takes all steps.
        network: an R2N2 with noise.
        image: moving and fixed, ``(B, 2, *grid)``.
        samples: number of networks.
        seed: of the noise.

    Returns:
        standard deviation of each component, ``(B, d, *grid)``, voxels.

    Raises:
        InputError: When the network has no noise.
    """
    if not network.noise_std > 0:
        raise InputError(
            f"noise_std of the network is {network.noise_std}, expected a number above 0 for the uncertainty of its "
            "weights; give the noise_std it was trained with, or uncertainty='localization'."
        )
    size, spacing = list(image.shape[2:]), network.unit_spacing()
    generator = torch.Generator(image.device).manual_seed(seed)
    ddfs = []
    for _ in range(samples):
        found, *_ = register_until(rule or ALL_STEPS, network, image, generator)
        ddfs.append(field(found, size, spacing))
    return torch.stack(ddfs).std(dim=0)


def register_until(
    rule: StoppingRule, network: Any, image: Tensor, noise: torch.Generator | None = None
) -> tuple[LocalTransforms, Tensor, Tensor]:
    """Register each sample of a batch until it converges; converged samples are not computed any further.

    Args:
        rule: when to stop.
        network: an R2N2; its ``steps`` are the most that are taken.
        image: moving and fixed, ``(B, 2, *grid)``.
        noise: where the noise on the network's weights comes from; None leaves the weights as they are.

    Returns:
        the local transformations, those after the step that is kept without displacement; the number of steps that
        each sample took, ``(B,)``; and the covariances of the positions, ``(B, T, d, d)``, normalized, x first.
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
    covariances: list[Tensor] = []
    factors: list[Tensor] | None = None
    active, state, warped = torch.arange(len(image), device=image.device), network.start(image), moving
    for t in range(1, network.steps + 1):
        if noise is not None and t > 1 and (factors is None or network.noise_per_step):
            factors = network.draw_noise(noise)
        transform, place, state = network.step(warped, state, factors)
        found.append(LocalTransforms(*(_spread(values, active, len(image)) for values in transform)))
        covariances.append(_spread(network.localization_covariance(place, warped), active, len(image)))
        ddf = ddf + field(transform, size, spacing)
        warped = fields.warp(moving[active], ddf, "linear", network.padding)
        difference = masked_mse(moving[active], fixed[active], ddf)
        steps[active] = t
        better = (difference < smallest[active]) | (not rule.keep_best)
        kept[active[better]], smallest[active[better]] = t, difference[better]
        update = (transform.vector[:, 0].float() * units).norm(dim=1)
        decrease = (previous[active] - difference) / first[active].clamp_min(torch.finfo(torch.float32).tiny)
        stalled = ~((update >= rule.smallest_update) & (decrease >= rule.smallest_decrease))  # NaN gets nowhere
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
    return together._replace(vector=vector), steps, torch.stack(covariances, dim=1)


def _spread(values: Tensor, active: Tensor, count: int) -> Tensor:
    """Parameters of the active samples among those of all: the others get one, which is a valid size and no error."""
    spread = values.new_ones(count, *values.shape[1:])
    spread[active] = values
    return spread

"""R2N2, the Recurrent Registration Neural Network (Sandkühler et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_regplugins import fields
from monai_regplugins.checks import (
    InputError,
    check_choice,
    check_minimum_size,
    check_pair_channels,
    check_single_channels,
)
from monai_regplugins.networks.blocks import local_gaussian
from monai_regplugins.networks.blocks.conv_gru import (
    ACTIVATIONS,
    NORMS,
    GatedRegistrationUnit,
    channel_norm,
    conv_layer,
    nonlinearity,
)
from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms, grid_axes
from monai_regplugins.networks.blocks.parameter_net import ParameterNet
from monai_regplugins.networks.blocks.position_net import (
    Localization,
    PositionNet,
    fuse_positions,
    localization_covariance,
)
from monai_regplugins.networks.blocks.sample_norm import widened

__all__ = ["R2N2", "R2N2Level", "RegistrationState", "SplitInput"]


# types as values: TorchScript does not find those of a class body by their names (pytorch #95858)
_RegistrationState = NamedTuple(  # noqa: UP014
    "_RegistrationState", [("features", torch.Tensor), ("hidden", list[torch.Tensor])]
)


class RegistrationState(_RegistrationState):
    """What R2N2 carries from step to step; every tensor has the batch first, so finished samples can be dropped.

    Attributes:
        features: of fixed image and coordinates, the same in all steps, ``(B, C, *half)``.
        hidden: states of the GRUs, ``(B, C, *level)`` per level; none before the first step.
    """

    __slots__ = ()


class SplitInput(nn.Module):
    """First convolution, norm and activation, with all that does not change over the steps computed once.

    A convolution is linear in its inputs: the fixed image, the warped moving one and the coordinates (CoordConv).

    Args:
        spatial_dims: number of spatial dimensions d.
        channels: width of the output.
        coordinate_channels: whether there are d coordinate channels, x first.
        activation: ``tanh`` or ``leaky_relu``.
        norm: ``group`` or ``none``.
    """

    def __init__(self, spatial_dims: int, channels: int, coordinate_channels: bool, activation: str, norm: str) -> None:
        super().__init__()
        self.spatial_dims, self.coordinate_channels = spatial_dims, coordinate_channels
        width = 2 + (spatial_dims if coordinate_channels else 0)
        conv = conv_layer(spatial_dims, width, channels, activation, kernel_size=7, stride=2)
        self.weight, self.bias = conv.get_parameter("weight"), conv.get_parameter("bias")
        self.finish = nn.Sequential(channel_norm(norm, channels), nonlinearity(activation))

    def forward(self, features: torch.Tensor, warped: torch.Tensor) -> torch.Tensor:
        """Add the part of the warped image ``(B, 1, *spatial)`` to :meth:`features` and finish the layer."""
        y: torch.Tensor = self.finish(features + self.convolve(warped, self.weight[:, 1:2], None))
        return y

    @torch.jit.export
    def features(self, fixed: torch.Tensor, axes: list[torch.Tensor]) -> torch.Tensor:
        """Part of the fixed image ``(B, 1, *spatial)`` and of the coordinates, a vector per array axis."""
        channels = [fixed]
        if self.coordinate_channels:
            for grid in torch.meshgrid(axes, indexing="ij")[::-1]:  # x is the last array axis
                channels.append(grid.to(fixed.dtype).expand_as(fixed))
        weight = torch.cat([self.weight[:, :1], self.weight[:, 2:]], dim=1)
        return self.convolve(torch.cat(channels, dim=1), weight, self.bias)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Convolution with the weights of some of the input channels."""
        if self.spatial_dims == 2:
            return nn.functional.conv2d(x, weight, bias, stride=2, padding=3)
        return nn.functional.conv3d(x, weight, bias, stride=2, padding=3)


class R2N2Level(nn.Module):
    """One resolution: recurrent registration unit, position network on its output, convolution to half the size.

    Args:
        spatial_dims: number of spatial dimensions.
        in_channels: width of the level.
        out_channels: width after the last convolution.
        num_residual: number of residual blocks.
        activation: ``tanh`` or ``leaky_relu``.
        norm: ``group`` or ``none``.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, num_residual: int, activation: str, norm: str
    ) -> None:
        super().__init__()
        self.unit = GatedRegistrationUnit(spatial_dims, in_channels, num_residual, activation, norm)
        self.position = PositionNet(spatial_dims, in_channels)
        self.down = nn.Sequential(
            conv_layer(spatial_dims, in_channels, out_channels, activation, stride=2),
            channel_norm(norm, out_channels),
            nonlinearity(activation),
        )

    def forward(
        self, x: torch.Tensor, h: torch.Tensor | None, noise: torch.Tensor | None, axes: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Advance by one step.

        Args:
            x: features, ``(B, in_channels, *level)``.
            h: state, the same shape; None is zero.
            noise: factors of the GRU's state kernels.
            axes: normalized coordinates along each array axis of the level.

        Returns:
            input of the next level and new state; position ``(B, d)``, certainty ``(B,)`` and map ``(B, *level)``.
        """
        out, h_new = self.unit(x, h, noise)
        position, certainty, probability = self.position(out, axes)
        return self.down(out), h_new, position, certainty, probability


class R2N2(nn.Module):
    r"""Recurrent Registration Neural Network: a field as a sum of few local transformations, found one by one.

    In each of T steps a recurrent network looks at the fixed and at the warped moving image, and adds one Gaussian
    displacement (Eq. 7 and 8),

    .. math::
        f_t(x) = f_{t-1}(x) + v_t \exp\big(-\tfrac12 (x - \tilde x_t)^T \Sigma_t^{-1} (x - \tilde x_t)\big),

    7 numbers in 2D, 12 in 3D. The moving image is always sampled anew, from the original. The defaults are the paper's
    2D configuration; ``docs/methods/r2n2.md`` lists where paper and authors' code differ. At the start f is zero.

    Args:
        spatial_dims: 2 or 3; the paper has 2.
        in_channels: channels of the input image: 2, moving and fixed.
        out_channels: components of the field; equals ``spatial_dims``.
        steps: number T of local transformations.
        channels: widths of the levels, which begin at half the size and halve it each time.
        num_residual: residual blocks per level.
        sigma_max: largest standard deviation of a Gaussian, normalized: in halves of an axis.
        sigma_min: smallest one; below a voxel a Gaussian is lost between the grid points.
        v_max: largest component of one displacement, normalized.
        noise_std: deviation of the multiplicative Gaussian noise on the state kernels of the GRUs, in training only.
            The samples of a batch share the noise.
        noise_per: ``step`` draws it anew in each step (authors' code), ``sequence`` once per call.
        activation: ``tanh`` (paper) or ``leaky_relu``.
        norm: ``group`` for the instance norm of the authors' code, or ``none``.
        coordinate_channels: whether the first convolution sees the coordinates (CoordConv).
        certainty_weights: whether more certain levels count more (Eq. 16, 17); False takes the mean of their positions.
        exact_centers: give the positions of the levels their true coordinates; False lets each level reach from border
            to border, as in the paper, which is up to 7 pixels off at the far borders.
        fold_free: kappa below 1: shorten each displacement until the determinant of its step is at least 1 - kappa;
            None leaves them as they are.
        return_sequence: return the fields after all steps instead of the last.
        checkpointing: recompute each step in the backward pass, which saves memory; gradients are equal.
        padding: what the network sees where the field points outside of the moving image: ``zeros`` or ``border``.
        spacing: voxel size along each array axis, for normalized coordinates with one unit on all axes; None takes the
            paper's [-1, 1] on each axis.

    Raises:
        InputError: When an argument is out of its range or unknown.

    Example:
        >>> ddf = R2N2(channels=(4, 8, 16), steps=2)(torch.rand(1, 2, 32, 32))
        >>> ddf.shape
        torch.Size([1, 2, 32, 32])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 2,
        out_channels: int | None = None,
        *,
        steps: int = 25,
        channels: Sequence[int] = (32, 64, 128),
        num_residual: int = 3,
        sigma_max: float = 0.3,
        sigma_min: float = 1e-5,
        v_max: float = 1.0,
        noise_std: float = 2**0.5,
        noise_per: str = "step",
        activation: str = "tanh",
        norm: str = "group",
        coordinate_channels: bool = True,
        certainty_weights: bool = True,
        exact_centers: bool = False,
        fold_free: float | None = None,
        return_sequence: bool = False,
        checkpointing: bool = False,
        padding: str = "zeros",
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_pair_channels(spatial_dims, in_channels, out_channels, "R2N2")
        check_choice(noise_per, ("step", "sequence"), "noise_per")
        check_choice(activation, ACTIVATIONS, "activation")
        check_choice(norm, NORMS, "norm")
        check_choice(padding, ("zeros", "border"), "padding")
        positive = {"steps": steps, "sigma_max": sigma_max, "sigma_min": sigma_min, "v_max": v_max}
        _check_ranges(spatial_dims, channels, noise_std, fold_free, spacing, positive)
        self.spatial_dims, self.steps, self.padding = spatial_dims, steps, padding
        self.noise_std, self.noise_per_step = noise_std, noise_per == "step"
        self.certainty_weights = certainty_weights
        self.kappa = 0.0 if fold_free is None else fold_free
        self.exact_centers, self.return_sequence, self.checkpointing = exact_centers, return_sequence, checkpointing
        # TorchScript reads the type of an attribute off its value, hence no None
        self.isotropic, self.spacing = spacing is not None, [float(s) for s in spacing or [1] * spatial_dims]
        self.kernel_shapes = [[3 * c, c, *[3] * spatial_dims] for c in channels]
        self.minimum_size = 2 ** (len(channels) + 2)  # the last convolution's output is 2 voxels long

        self.input = SplitInput(spatial_dims, channels[0], coordinate_channels, activation, norm)
        widths = [*channels, 2 * channels[-1]]
        self.levels = nn.ModuleList(
            R2N2Level(spatial_dims, c, n, num_residual, activation, norm) for c, n in pairwise(widths)
        )
        self.parameter_net = ParameterNet(spatial_dims, widths[-1], sigma_max, sigma_min, v_max, activation)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Register a batch of pairs.

        Args:
            image: moving (channel 0) and fixed (channel 1) image on one grid, ``(B, 2, *spatial)``; each axis at least
                32 voxels long with three levels.

        Returns:
            displacement on the fixed grid, ``(B, d, *spatial)``, or ``(B, T, d, *spatial)`` after each step with
            ``return_sequence``; voxels, ``warped(x) = moving(x + ddf(x))``.

        Raises:
            InputError: When an axis is too short.
        """
        _, sequence = self.unroll(image, self.steps, self.return_sequence)
        return torch.stack(sequence, dim=1) if self.return_sequence else sequence[-1]

    @torch.jit.export
    def local_transforms(self, image: torch.Tensor, steps: int | None = None) -> LocalTransforms:
        """Find the local transformations whose sum is the field of :meth:`forward`.

        Args:
            image: as in :meth:`forward`.
            steps: how many; None takes as many as :meth:`forward`.

        Returns:
            the transformations, normalized, x first; see :func:`.local_gaussian.field` for their field on any grid.

        Raises:
            InputError: When an axis is too short.
        """
        found, _ = self.unroll(image, self.steps if steps is None else steps, False)
        return LocalTransforms(
            torch.cat([one.position for one in found], dim=1),
            torch.cat([one.sigma for one in found], dim=1),
            torch.cat([one.rotation for one in found], dim=1),
            torch.cat([one.vector for one in found], dim=1),
        )

    @torch.jit.export
    def start(self, image: torch.Tensor) -> RegistrationState:
        """State before the first step.

        Args:
            image: as in :meth:`forward`.

        Raises:
            InputError: When an axis is too short.
        """
        fixed, size = widened(image[:, 1:]), list(image.shape[2:])
        if not torch.jit.is_scripting():
            check_single_channels(image, "R2N2")
            check_minimum_size(size, self.minimum_size, "image")
        hidden: list[torch.Tensor] = []
        axes = grid_axes(size, size, self.unit_spacing(), 0, fixed)
        return RegistrationState(self.input.features(fixed, axes), hidden)

    @torch.jit.export
    def step(
        self, warped: torch.Tensor, state: RegistrationState, noise: list[torch.Tensor] | None = None
    ) -> tuple[LocalTransforms, Localization, RegistrationState]:
        """Find one local transformation; a pure function, which draws no noise itself.

        Args:
            warped: moving image, warped by the field so far, ``(B, 1, *spatial)``.
            state: from :meth:`start` or the previous step.
            noise: factors of each level's state kernels; see :meth:`draw_noise`.

        Returns:
            the transformation (T = 1), what each level knows about its position, and the new state.
        """
        warped = widened(warped)
        x = self.input(state.features, warped)
        positions: list[torch.Tensor] = []
        certainties: list[torch.Tensor] = []
        maps: list[torch.Tensor] = []
        hidden: list[torch.Tensor] = []
        for n, level in enumerate(self.levels):
            h = state.hidden[n] if len(state.hidden) > 0 else None
            factors = None if noise is None else noise[n]
            x, h_new, position, certainty, probability = level(
                x, h, factors, self.level_axes(n, list(x.shape[2:]), warped)
            )
            positions.append(position)
            certainties.append(certainty if self.certainty_weights else torch.ones_like(certainty))
            maps.append(probability)
            hidden.append(h_new)
        found = Localization(torch.stack(positions, 1), torch.stack(certainties, 1), maps)
        sigma, rotation, vector = self.parameter_net(x)
        if self.kappa > 0:
            vector = local_gaussian.fold_free(vector, sigma, rotation, self.kappa)
        fused = fuse_positions(found.position, found.certainty)
        transform = LocalTransforms(fused.unsqueeze(1), sigma.unsqueeze(1), rotation.unsqueeze(1), vector.unsqueeze(1))
        return transform, found, RegistrationState(state.features, hidden)

    @torch.jit.export
    def localization_covariance(self, found: Localization, warped: torch.Tensor) -> torch.Tensor:
        """Covariance of the position of a step, ``(B, d, d)``, normalized, x first; ``warped`` lends its size."""
        axes = [self.level_axes(n, list(p.shape[1:]), warped) for n, p in enumerate(found.probability)]
        return localization_covariance(found, axes)

    @torch.jit.export
    def draw_noise(self, generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """Draw the factors of each level's state kernels, of mean 1 and deviation ``noise_std``.

        Args:
            generator: of the network's device; None is PyTorch's own.
        """
        like = self.input.bias
        return [
            1 + self.noise_std * torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
            for shape in self.kernel_shapes
        ]

    def unroll(self, image: torch.Tensor, steps: int, keep: bool) -> tuple[list[LocalTransforms], list[torch.Tensor]]:
        """Run all steps: the transformations, and the fields after each step, or the last one if not ``keep``."""
        moving = widened(image[:, :1])
        state = self.start(image)
        ddf = torch.zeros_like(moving).repeat_interleave(self.spatial_dims, dim=1)  # f_0
        noise: list[torch.Tensor] | None = None
        found: list[LocalTransforms] = []
        sequence: list[torch.Tensor] = []
        for t in range(steps):
            # the first step has no state yet; drawn out here, a recomputation sees the same noise
            if t > 0 and self.training and self.noise_std > 0 and (noise is None or self.noise_per_step):
                noise = self.draw_noise(None)  # TorchScript knows no defaults of exported methods
            if not torch.jit.is_scripting() and self.checkpointing and torch.is_grad_enabled():
                transform, ddf, state = checkpoint(
                    self.advance, moving, ddf, state, noise, use_reentrant=False, preserve_rng_state=False
                )
            else:
                transform, ddf, state = self.advance(moving, ddf, state, noise)
            found.append(transform)
            if not keep:
                sequence.clear()
            sequence.append(ddf)
        return found, sequence

    def advance(
        self, moving: torch.Tensor, ddf: torch.Tensor, state: RegistrationState, noise: list[torch.Tensor] | None
    ) -> tuple[LocalTransforms, torch.Tensor, RegistrationState]:
        """Warp, find a local transformation and add it to the field (Eq. 7)."""
        warped = fields.warp(moving, ddf, "linear", self.padding)
        transform, _, state = self.step(warped, state, noise)
        return transform, ddf + local_gaussian.field(transform, list(ddf.shape[2:]), self.unit_spacing()), state

    def level_axes(self, n: int, size: list[int], image: torch.Tensor) -> list[torch.Tensor]:
        """Normalized coordinates along each array axis of level n, counted from 0 and of the given size."""
        stride = 2 << n if self.exact_centers else 0
        return grid_axes(size, list(image.shape[2:]), self.unit_spacing(), stride, widened(image))

    @torch.jit.export
    def unit_spacing(self) -> list[float] | None:
        """Spacing that the normalized coordinates of this network's transformations refer to, None for the paper's."""
        return self.spacing if self.isotropic else None


def _check_ranges(
    d: int,
    channels: Sequence[int],
    noise_std: float,
    fold_free: float | None,
    spacing: Sequence[float] | None,
    positive: dict[str, float],
) -> None:
    """Refuse what is out of range."""
    problems = [f"{name} is {value}, expected a number above 0" for name, value in positive.items() if not value > 0]
    if not channels or min(channels) < 1:
        problems.append(f"channels is {list(channels)}, expected a width above 0 for each level")
    if not noise_std >= 0:
        problems.append(f"noise_std is {noise_std}, expected zero or more")
    if fold_free is not None and not 0 < fold_free < 1:
        problems.append(f"fold_free is {fold_free}, expected a number between 0 and 1, or None")
    if spacing is not None and (len(spacing) != d or not min(spacing) > 0):
        problems.append(f"spacing is {list(spacing)}, expected {d} numbers above 0, or None")
    if problems:
        raise InputError(f"{problems[0]}; leave it out to take the paper's.")

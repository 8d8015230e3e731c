"""The Residual Aligner (RA) module of RAN: Regressor, Accumulator and feedback."""

from __future__ import annotations

import torch
from torch import nn

from monai_regplugins import fields
from monai_regplugins.networks.blocks.residual_conv import channels_last, same_conv
from monai_regplugins.networks.blocks.sample_norm import SampleNorm, widened

HEAD_WEIGHTINGS = ("softmax_confidence", "softmax", "raw")
SLOPE = 0.01  # of every LeakyReLU inside the RA module; the backbone uses 0.2


class AlignerHeads(nn.Module):
    """The output convolutions of the RA module that the authors' code shares between all levels.

    Args:
        spatial_dims: number of spatial dimensions d.
        num_heads: number of displacement heads m.
        head_kernel: kernel size of the last convolution of each head: 1 (authors' code) or 3 (suppl. Table 4).

    Example:
        >>> AlignerHeads(spatial_dims=3, num_heads=5, head_kernel=1).field.out_channels
        1
    """

    def __init__(self, spatial_dims: int, num_heads: int, head_kernel: int) -> None:
        super().__init__()
        width, wide = regressor_width(spatial_dims), 3**spatial_dims
        self.displacement = nn.Sequential(
            same_conv(spatial_dims, width, wide),
            nn.LeakyReLU(SLOPE, inplace=True),
            same_conv(spatial_dims, wide, spatial_dims * num_heads, head_kernel),
        )
        self.mask_in = same_conv(spatial_dims, width, width)
        self.mask_out = same_conv(spatial_dims, width, num_heads, head_kernel)
        self.attribute = same_conv(spatial_dims, width, num_heads, 1)
        self.mask_fusion = same_conv(spatial_dims, width, num_heads)
        self.field = same_conv(spatial_dims, width, 1)

    @torch.no_grad()
    def start_as_sum(self) -> None:
        """Let the Accumulator begin as the plain sum of the previous field and a small mean residual.

        Two channels bring plus and minus that sum through the LeakyReLU, and the field convolution takes their
        difference; its other weights begin at a tenth of their random values. What the module can learn is the same,
        but gradients reach the coarse levels from the first step, not through five random filters.
        """
        self.displacement[-1].get_parameter("weight").mul_(0.1)
        weight = self.field.get_parameter("weight")
        weight[:, 2:] *= 0.1
        weight[:, :2] = 0
        weight[(0, slice(2)) + (1,) * (weight.ndim - 2)] = torch.tensor([1.0, -1.0]) / (1 + SLOPE)


def regressor_width(spatial_dims: int) -> int:
    """Width i = 3^d - 3^(d-1) of the Regressor: 18 in 3D, 6 in 2D."""
    return int(3**spatial_dims - 3 ** (spatial_dims - 1))


class AlignerRegressor(nn.Module):
    """Dilated convolutions on the concatenated target and resampled source features (suppl. Table 4, first rows).

    Two convolutions as printed, or three with a residual as in the authors' code. The dilation sets the accessible
    motion range, Eq. 5: ``||r_k||_1`` is the sum of the dilations.

    Args:
        spatial_dims: number of spatial dimensions.
        in_channels: width of one stream.
        dilation: dilation of the two outer convolutions.
        num_convs: 2 or 3.

    Example:
        >>> features = torch.rand(1, 8, 16, 16, 16)
        >>> AlignerRegressor(3, in_channels=8, dilation=2, num_convs=3)(features, features).shape
        torch.Size([1, 18, 16, 16, 16])
    """

    def __init__(self, spatial_dims: int, in_channels: int, dilation: int, num_convs: int) -> None:
        super().__init__()
        width = regressor_width(spatial_dims)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)
        self.first = same_conv(spatial_dims, 2 * in_channels, width, dilation=dilation)
        self.second = same_conv(spatial_dims, width, width, dilation=dilation)
        self.third = same_conv(spatial_dims, width, width) if num_convs == 3 else nn.Identity()
        self.residual = num_convs == 3

    def forward(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Map two ``(B, C, *spatial)`` feature maps to ``(B, i, *spatial)``."""
        a = self.act(self.first(torch.cat([target, source], dim=1)))
        b: torch.Tensor = self.act(self.second(a))
        if self.residual:
            b = self.act(self.third(b) + a)
        return b


class ResidualAligner(nn.Module):
    r"""Residual Aligner of one level (Zheng et al. 2022, Fig. 4, Eq. 10-12, suppl. Table 4).

    From the features of a target and a source stream and the previous field and head mask it predicts

    .. math::
        \hat\varphi_k, \vartheta_k, g_k &= \mathcal{R}_k(F^t_k, \phi_{k-1}(F^s_k)) \\
        \theta_k &= \mathcal{C}_3[\vartheta_k, \theta_{k-1}] \\
        \phi_k &= \mathcal{C}_4[w \odot \hat\varphi_k, \; \overline{\hat\varphi_k}, \; w' \odot \phi_{k-1},
            \; \phi_{k-1}]

    with m heads, weights :math:`w = \operatorname{softmax}(\theta_k) \, \max(0, c(a(\vartheta_k)))` and
    :math:`w' = \operatorname{softmax}(\theta_k) \, \max(0, c(a(\theta_{k-1})))`, and feeds the aligned source back into
    the target stream, :math:`F^t_k \mathrel{+}= a(\mathcal{C}[\phi_k(F^s_k), g_k])`. The field is regressed by
    convolutions; it is no composition (Eq. 3).

    Args:
        spatial_dims: number of spatial dimensions d.
        in_channels: width of one stream.
        dilation: dilation of the Regressor.
        heads: output convolutions, possibly shared with other levels.
        num_heads: number of heads m.
        first: True for level 0, which has no previous field.
        regressor_convs: 2 (as printed) or 3 (authors' code).
        head_weighting: ``softmax_confidence`` as above (the paper), ``softmax`` without the confidence factor, or
            ``raw``: :math:`w = w' = \theta_k`.

    Example:
        >>> level = ResidualAligner(2, 8, dilation=1, heads=AlignerHeads(2, 5, 1), num_heads=5, first=True)
        >>> [tuple(found.shape) for found in level(torch.rand(1, 8, 16, 16), torch.rand(1, 8, 16, 16))]
        [(1, 8, 16, 16), (1, 2, 16, 16), (1, 5, 16, 16)]
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        dilation: int,
        heads: AlignerHeads,
        num_heads: int,
        first: bool,
        regressor_convs: int = 3,
        head_weighting: str = "softmax_confidence",
    ) -> None:
        super().__init__()
        width = regressor_width(spatial_dims)
        self.spatial_dims, self.num_heads, self.head_weighting = spatial_dims, num_heads, head_weighting
        self.key = same_conv(spatial_dims, in_channels, in_channels, 1)
        self.norm_key, self.norm_query = SampleNorm(spatial_dims), SampleNorm(spatial_dims)
        self.regressor = AlignerRegressor(spatial_dims, in_channels, dilation, regressor_convs)
        self.heads = heads
        self.norm_mask, self.norm_attribute = SampleNorm(spatial_dims), SampleNorm(spatial_dims)
        self.mask_fusion = same_conv(spatial_dims, num_heads if first else 2 * num_heads, width)
        self.norm_fusion = SampleNorm(spatial_dims)
        self.accumulator = same_conv(spatial_dims, (num_heads + 1) * (1 if first else 2), width)
        self.confidence = same_conv(spatial_dims, num_heads, 1, 1) if "confidence" in head_weighting else nn.Identity()
        self.feedback = same_conv(spatial_dims, in_channels + num_heads, in_channels, 1)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(
        self,
        target: torch.Tensor,
        source: torch.Tensor,
        phi: torch.Tensor | None = None,
        theta: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Align ``source`` to ``target``.

        Args:
            target: features on whose grid the field lives, ``(B, C, *spatial)``.
            source: features that the field samples, ``(B, C, *spatial)``.
            phi: previous field, ``(B, d, *spatial)``, voxels of this level's grid; None at level 0.
            theta: previous head mask, ``(B, m, *spatial)``; None at level 0.

        Returns:
            the target features after feedback, the field, voxels, and the head mask.
        """
        resampled = self.key(source)
        if phi is not None:
            resampled = channels_last(fields.warp(resampled, phi))
        a = self.regressor(self.norm_query(target), self.norm_key(resampled))

        varphi = self.heads.displacement(a)
        vartheta = self.heads.mask_out(self.act(self.norm_mask(self.heads.mask_in(a))))
        g = self.act(self.norm_attribute(self.heads.attribute(a)))
        masks = vartheta if theta is None else torch.cat([vartheta, theta.to(vartheta.dtype)], dim=1)
        theta_new = self.heads.mask_fusion(self.act(self.norm_fusion(self.mask_fusion(masks))))

        if torch.jit.is_scripting():
            phi_new = self.accumulate(varphi, vartheta, theta_new, phi, theta)
        else:
            with torch.autocast(target.device.type, enabled=False):  # a field in half precision is off by a tenth voxel
                phi_new = self.accumulate(widened(varphi), widened(vartheta), widened(theta_new), phi, theta)
        aligned = channels_last(fields.warp(source, phi_new).to(g.dtype))
        return target + self.act(self.feedback(torch.cat([aligned, g], dim=1))), phi_new, theta_new

    @torch.no_grad()
    def start_as_sum(self) -> None:
        """Let two channels carry plus and minus the sum of previous field and mean residual; see the heads' twin."""
        center = (slice(None),) + (1,) * self.spatial_dims
        weight = self.accumulator.get_parameter("weight")
        weight[:2] = 0
        for channel in {self.num_heads, weight.shape[1] - 1}:  # mean residual and previous field
            weight[:2, channel][center] = torch.tensor([1.0, -1.0])

    def weigh(self, theta: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Head weights from the head mask ``theta`` and the mask that the confidence looks at (Eq. 12)."""
        if self.head_weighting == "raw":
            return theta
        weights = torch.softmax(theta, dim=1)
        if self.head_weighting == "softmax_confidence":
            weights = weights * torch.relu(self.confidence(self.act(mask.clone())))
        return weights

    def accumulate(
        self,
        varphi: torch.Tensor,
        vartheta: torch.Tensor,
        theta_new: torch.Tensor,
        phi: torch.Tensor | None,
        theta: torch.Tensor | None,
    ) -> torch.Tensor:
        """Accumulator, Eq. 11: residual heads and previous field to the new field, one vector component at a time.

        The components share all weights. One after the other needs a third of the memory of all at once.
        """
        m = self.num_heads
        weights = self.weigh(theta_new, vartheta)
        previous_weights = weights
        if theta is not None:
            previous_weights = self.weigh(theta_new, theta.to(theta_new.dtype))
        components: list[torch.Tensor] = []
        for d in range(self.spatial_dims):
            residual = varphi[:, d * m : (d + 1) * m]
            channels = [weights * residual, residual.mean(dim=1, keepdim=True)]
            if phi is not None:
                previous = phi[:, d : d + 1]
                channels += [previous_weights * previous, previous]
            components.append(self.heads.field(self.act(self.accumulator(channels_last(torch.cat(channels, dim=1))))))
        limited = [c.clamp(-(2.0 * c.shape[d + 2] - 1.0), 2.0 * c.shape[d + 2] - 1.0) for d, c in enumerate(components)]
        return torch.cat(limited, dim=1)

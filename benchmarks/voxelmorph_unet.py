"""VoxelMorph (Balakrishnan et al. 2019, arXiv:1809.05231) as a network from an image pair to a displacement field.

It is MONAI's ``VoxelMorphUNet`` with the widths of MONAI's own default backbone, that is ``VoxelMorph(backbone,
integration_steps=0, half_res=False)`` without the warp at its end: the displacement form of the paper, at full
resolution. Like RAN it maps ``(B, 2, *spatial)``, moving and fixed, to a field ``(B, d, *spatial)`` in voxels, so
that one inferer warps for both and every loss and metric sees the same quantities.

The rest of MONAI's ``VoxelMorph`` is left out on purpose: with ``half_res`` it halves where a change of grid doubles a
displacement and doubles where it halves one, and the velocity form would compare two kinds of field, not two networks.
MONAI leaves the last convolution at PyTorch's default; here it starts as in the authors' code, normal with a standard
deviation of 1e-5 and zero bias, so that training starts from the identity.
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets import VoxelMorphUNet
from torch import nn

WIDTHS: dict[str, Any] = {
    "in_channels": 2,
    "unet_out_channels": 32,
    "channels": [16, 32, 32, 32, 32, 32],
    "final_conv_channels": [16, 16],
}
DIVISOR = 8  # three poolings

CONFIG: dict[str, Any] = {
    "_target_": "monai.networks.nets.VoxelMorphUNet",
    "spatial_dims": "@spatial_dims",
    **WIDTHS,
}


def voxelmorph_unet(spatial_dims: int) -> VoxelMorphUNet:
    """Return a VoxelMorph network whose field is about zero."""
    return start_from_identity(VoxelMorphUNet(spatial_dims=spatial_dims, **WIDTHS))


def start_from_identity(network: VoxelMorphUNet) -> VoxelMorphUNet:
    """Initialize the last convolution as the authors' code does; returns the network."""
    flow = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)][-1]
    nn.init.normal_(flow.weight, std=1e-5)
    if flow.bias is not None:
        nn.init.zeros_(flow.bias)
    return network

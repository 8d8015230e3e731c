#!/usr/bin/env bash
# The identity as an affine layer in mixed precision: an image of 256 voxels moves by up to 1.1 voxels.
# `torch.autocast` with bfloat16, around `torch.nn.functional.affine_grid` with `grid_sample`, MONAI's AffineTransform and
# MONAI's Warp, as in a spatial transformer trained or run with `amp`; the image is a ramp, whose values are positions.
# Most expect: autocast takes half precision where it does no harm, and sampling is on its list for float32.
# Seen: `grid_sample` is, but `affine_grid` makes its positions by a matrix product, which autocast cuts to bfloat16's
# eight bits: positions come in steps of up to 1/256 of half an image. The result is float32 and looks exact, but the
# identity is off by up to 0.25 voxels, and in AffineTransform, which scales the matrix by products, too, by 0.5 voxels on
# average and 1.1 at most (0.2 of 128 voxels, 1.4 of 300). MONAI's Warp by a field of zeros keeps the image.
# For users: an affine stage that is wrong by a voxel, which no loss sees as such. Turn autocast off around it
# (`torch.autocast(device.type, enabled=False)`).

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1
check <<'EOF'
import torch
from expect import expect
from monai.networks.blocks import Warp
from monai.networks.layers import AffineTransform
from torch.nn.functional import affine_grid, grid_sample


def ramp(size: int) -> torch.Tensor:
    return torch.arange(size).float()[None, None, :, None, None].expand(1, 1, size, 8, 8).contiguous()


def by_torch(image: torch.Tensor) -> torch.Tensor:
    grid = affine_grid(torch.eye(3, 4)[None], list(image.shape), align_corners=True)
    return grid_sample(image, grid, align_corners=True, padding_mode="border")


def by_monai(image: torch.Tensor) -> torch.Tensor:
    return AffineTransform(padding_mode="border")(image, torch.eye(4)[None])


def by_warp(image: torch.Tensor) -> torch.Tensor:
    return Warp()(image, torch.zeros(1, 3, *image.shape[2:]))


def moved(layer, size: int, half: bool) -> torch.Tensor:
    image = ramp(size)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        result = layer(image)
    expect(f"    type of the result, autocast {half}", str(result.dtype), "torch.float32")
    return (result - image).abs()


print("affine_grid and grid_sample")
expect("    largest motion of the identity, in voxels of 256", float(moved(by_torch, 256, False).max()), 0, 1e-3)
expect("    largest motion of the identity, in voxels of 256", float(moved(by_torch, 256, True).max()), 0.246, 0.01)
print("MONAI's AffineTransform")
expect("    largest motion of the identity, in voxels of 256", float(moved(by_monai, 256, False).max()), 0, 1e-3)
half = moved(by_monai, 256, True)
expect("    largest motion of the identity, in voxels of 256", float(half.max()), 1.119, 0.01)
expect("    on average", float(half.mean()), 0.512, 0.01)
for size, largest in ((128, 0.18), (300, 1.385)):
    expect(f"    largest, of {size}", float(moved(by_monai, size, True).max()), largest, 0.02)
print("MONAI's Warp by zeros")
expect("    largest motion, in voxels of 256", float(moved(by_warp, 256, True).max()), 0, 1e-3)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1
# affine_grid and grid_sample
#     type of the result, autocast False: torch.float32
#     largest motion of the identity, in voxels of 256: 3e-05
#     type of the result, autocast True: torch.float32
#     largest motion of the identity, in voxels of 256: 0.24612
# MONAI's AffineTransform
#     type of the result, autocast False: torch.float32
#     largest motion of the identity, in voxels of 256: 3e-05
#     type of the result, autocast True: torch.float32
#     largest motion of the identity, in voxels of 256: 1.11915
#     on average: 0.51171
#     type of the result, autocast True: torch.float32
#     largest, of 128: 0.17969
#     type of the result, autocast True: torch.float32
#     largest, of 300: 1.38525
# MONAI's Warp by zeros
#     type of the result, autocast True: torch.float32
#     largest motion, in voxels of 256: 1e-05

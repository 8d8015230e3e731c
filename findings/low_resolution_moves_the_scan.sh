#!/usr/bin/env bash
# Augmentations that take a scan's resolution away and bring its grid back: the scan moves by half a voxel.
# Most expect: the image loses detail in its place, as with a low-resolution scanner.
# Seen: MONAI's RandSimulateLowResolution moves it towards the end of each axis by half of what one coarse voxel is
# longer than a fine one: 0.5 voxels at its default's lower end of 0.5, and 1.5 at 0.25. TorchIO's RandomAnisotropy
# moves it to the other side, by 0.5 voxels for factors of 2, 4 and 5, by 0.24 for 2.5. Both take single voxels
# ("nearest"), and labels and affine stay. MONAI with "area" or "trilinear" leaves the image in place.
# For users: a pair of which one image is so augmented has a false motion, and edges leave their labels. In MONAI give
# downsample_mode="area"; in TorchIO resample there and back.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 torch==2.13.0 monai==1.6.1 torchio==1.2.1
check <<'EOF'
import numpy as np
import torch
import torchio as tio
from expect import expect
from monai.data import MetaTensor
from monai.transforms import RandSimulateLowResolution

ramps = torch.from_numpy(np.indices((48, 48, 48))).float()  # each voxel holds its own index
ball = torch.exp(-((ramps - 23.5) ** 2).sum(0, keepdim=True) / 50)


def center(image: torch.Tensor) -> np.ndarray:
    return (ramps * (image / image.sum())).sum((1, 2, 3)).double().numpy()


def by_monai(zoom: float, **options: str) -> np.ndarray:
    """Measure by how many voxels the ball moves along the axes."""
    way = RandSimulateLowResolution(prob=1.0, zoom_range=(zoom, zoom), **options)
    moved = way(MetaTensor(ball, affine=torch.eye(4)))
    assert (moved.affine == torch.eye(4)).all()  # nothing in the header tells of it
    return center(moved.as_tensor()) - center(ball)


def by_torchio(factor: float) -> np.ndarray:
    moved = tio.RandomAnisotropy(axes=0, downsampling=(factor, factor))(tio.ScalarImage(tensor=ball, affine=np.eye(4)))
    assert (moved.affine == np.eye(4)).all()
    return center(moved.data) - center(ball)


expect("MONAI, zoom 1: motion in voxels", by_monai(1.0), [0, 0, 0], 0.01)
expect("MONAI, zoom 0.5, the default's lower end", by_monai(0.5), [0.5, 0.5, 0.5], 0.01)
expect("MONAI, zoom 0.25", by_monai(0.25), [1.5, 1.5, 1.5], 0.01)
expect("MONAI, zoom 0.5, area", by_monai(0.5, downsample_mode="area"), [0, 0, 0], 0.01)
expect("MONAI, zoom 0.5, trilinear", by_monai(0.5, downsample_mode="trilinear"), [0, 0, 0], 0.01)
expect("MONAI, zoom 0.5, nearest-exact", by_monai(0.5, downsample_mode="nearest-exact"), [-0.5, -0.5, -0.5], 0.01)
default = RandSimulateLowResolution()
expect("its defaults", [str(default.downsample_mode), *default.zoom_range], ["nearest", 0.5, 1.0])
for factor, wanted in ((2, -0.5), (2.5, -0.24), (3, 0), (4, -0.5), (5, -0.5)):
    expect(f"TorchIO, factor {factor} along the first axis", by_torchio(factor), [wanted, 0, 0], 0.01)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 torch==2.13.0 monai==1.6.1 torchio==1.2.1
# MONAI, zoom 1: motion in voxels: [0.0, 0.0, 0.0]
# MONAI, zoom 0.5, the default's lower end: [0.49998, 0.49998, 0.49998]
# MONAI, zoom 0.25: [1.49994, 1.49994, 1.49994]
# MONAI, zoom 0.5, area: [0.0, 0.0, 0.0]
# MONAI, zoom 0.5, trilinear: [0.0, 0.0, 0.0]
# MONAI, zoom 0.5, nearest-exact: [-0.49998, -0.49998, -0.49998]
# its defaults: ['nearest', '0.5', '1.0']
# TorchIO, factor 2 along the first axis: [-0.49998, 0.0, 0.0]
# TorchIO, factor 2.5 along the first axis: [-0.23998, 0.0, 0.0]
# TorchIO, factor 3 along the first axis: [0.0, -0.0, 0.0]
# TorchIO, factor 4 along the first axis: [-0.49998, 0.0, 0.0]
# TorchIO, factor 5 along the first axis: [-0.49971, 0.0, 0.0]

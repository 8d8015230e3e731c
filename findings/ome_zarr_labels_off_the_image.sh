#!/usr/bin/env bash
# An image and its labels written as OME-Zarr by ome-zarr-py, each with four coarser levels: the labels of a level lie
# half a voxel of that level beside its image, 7.5 voxels of the original at the coarsest.
# Both are written with the defaults of `write_image` and `write_labels`; all values are the voxel's own x, so that each
# voxel states where it was taken from.
# Most expect: labels and image of one level, with the same scale and translation, belong together.
# Seen: the image is right: 11.5, 19.5, ... where the translation of 3.5 and the scale of 8 say so. Labels are halved level
# by level by the nearest neighbor, of two equally near ones always the upper, so that the errors add up in one direction:
# 15, 23, ... at those places. The translations written are those of the image.
# For users: coarse levels are what large scans are registered and shown at; overlap and center of mass of organs are off
# by half a voxel of the level along y and x each. Take the finest level of labels, or `labels[..., f // 2 :: f]` of it.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 scikit-image==0.26.0 zarr==3.1.6 ome-zarr==0.18.0
check <<'EOF'
import numpy as np
import zarr
from expect import expect
from ome_zarr.writer import write_image, write_labels

own = np.broadcast_to(np.arange(64), (8, 64, 64))
write_image(own.astype(np.float32), "scan.zarr", axes="zyx")
write_labels(own.astype(np.uint8), "scan.zarr", name="organs", axes="zyx")
for name, path in (("image", "scan.zarr"), ("labels", "scan.zarr/labels/organs")):
    group = zarr.open(path, mode="r")
    for level, entry in enumerate(dict(group.attrs)["ome"]["multiscales"][0]["datasets"]):
        scale, start = (item[item["type"]][-1] for item in entry["coordinateTransformations"])
        row = np.asarray(group[entry["path"]])[4, 1].astype(float)
        stated = start + scale * np.arange(len(row))
        expect(f"{name}, level {level}, x of voxels 1 and 2 as stated", stated[1:3], (np.arange(1, 3) + 0.5) * scale - 0.5)
        off = (row - stated)[1:-1]
        expect("    taken from", row[1:3], stated[1:3] + (scale / 2 - 0.5) * (name == "labels"), 1e-3)
        expect("    off by, in voxels of the scan, on average", off.mean(), (scale / 2 - 0.5) * (name == "labels"), 1e-3)
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 scikit-image==0.26.0 zarr==3.1.6 ome-zarr==0.18.0
# image, level 0, x of voxels 1 and 2 as stated: [1.0, 2.0]
#     taken from: [1.0, 2.0]
#     off by, in voxels of the scan, on average: 0.0
# image, level 1, x of voxels 1 and 2 as stated: [2.5, 4.5]
#     taken from: [2.5, 4.5]
#     off by, in voxels of the scan, on average: 0.0
# image, level 2, x of voxels 1 and 2 as stated: [5.5, 9.5]
#     taken from: [5.50001, 9.5]
#     off by, in voxels of the scan, on average: -0.0
# image, level 3, x of voxels 1 and 2 as stated: [11.5, 19.5]
#     taken from: [11.50004, 19.5]
#     off by, in voxels of the scan, on average: -0.0
# image, level 4, x of voxels 1 and 2 as stated: [23.5, 39.5]
#     taken from: [23.50007, 39.49992]
#     off by, in voxels of the scan, on average: -0.0
# labels, level 0, x of voxels 1 and 2 as stated: [1.0, 2.0]
#     taken from: [1.0, 2.0]
#     off by, in voxels of the scan, on average: 0.0
# labels, level 1, x of voxels 1 and 2 as stated: [2.5, 4.5]
#     taken from: [3.0, 5.0]
#     off by, in voxels of the scan, on average: 0.5
# labels, level 2, x of voxels 1 and 2 as stated: [5.5, 9.5]
#     taken from: [7.0, 11.0]
#     off by, in voxels of the scan, on average: 1.5
# labels, level 3, x of voxels 1 and 2 as stated: [11.5, 19.5]
#     taken from: [15.0, 23.0]
#     off by, in voxels of the scan, on average: 3.5
# labels, level 4, x of voxels 1 and 2 as stated: [23.5, 39.5]
#     taken from: [31.0, 47.0]
#     off by, in voxels of the scan, on average: 7.5

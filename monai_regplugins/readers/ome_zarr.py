"""OME-Zarr: a folder of chunks whose metadata state the axes and the voxel size; the finest level is taken.

Source: https://ngff.openmicroscopy.org, versions 0.4 (Zarr 2, ``multiscales``) and 0.5 (Zarr 3, ``ome/multiscales``):
an array index is multiplied by the ``scale`` of its level, and then its ``translation`` is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, import_optional

__all__ = ["ZARR_SUFFIXES", "ZarrImage", "open_ome_zarr"]

ZARR_SUFFIXES = (".zarr",)
SPATIAL = "xyz"
TO_MM = {"nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "meter": 1e3}


class ZarrImage(NamedTuple):
    """The finest level of an image.

    Attributes:
        array: of zarr, axes as in the file.
        axes: their names, in small letters: some of ``tczyx``.
        spacing: along x, y, z, mm; 0 where an axis has no length.
        origin: of the first voxel along x, y, z, mm.
    """

    array: Any
    axes: str
    spacing: npt.NDArray[np.float64]
    origin: npt.NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along x, y, and where there are such axes z and t."""
        return tuple(int(self.array.shape[self.axes.index(axis)]) for axis in "xyzt" if axis in self.axes)

    @property
    def channels(self) -> int:
        """Values per voxel."""
        return int(self.array.shape[self.axes.index("c")]) if "c" in self.axes else 1

    def read(self) -> npt.NDArray[Any]:
        """The values of the one channel, axes (x, y), (x, y, z) or (x, y, z, t)."""
        order = [self.axes.index(axis) for axis in "xyztc" if axis in self.axes]
        values: npt.NDArray[Any] = np.asarray(self.array[...]).transpose(order).reshape(self.shape)
        return values


def open_ome_zarr(folder: Path) -> ZarrImage:
    """Read the metadata of an image.

    Raises:
        InputError: When zarr is missing, or the axes are others than x, y, z, t and c.
        Exception: Whatever zarr raises on a folder that is none.
    """
    group = import_optional("zarr", f"OME-Zarr images such as '{folder}'").open_group(str(folder), mode="r")
    attributes: Mapping[str, Any] = dict(group.attrs)
    image = attributes.get("ome", attributes)["multiscales"][0]
    level = image["datasets"][0]
    known = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in image["axes"]]
    axes = "".join(str(axis["name"]).lower() for axis in known)
    if not set("xy") <= set(axes) <= set("xyztc") or len(axes) != len(known):
        names = ", ".join(str(axis["name"]) for axis in known)
        raise InputError(f"OME-Zarr image '{folder}' has the axes {names}, expected x and y, and z, t or c.")
    steps = [*level.get("coordinateTransformations", []), *image.get("coordinateTransformations", [])]
    scale, shift = _placed(len(axes), steps)
    unit = [TO_MM.get(str(axis.get("unit", "")), 0.0) for axis in known]
    at = {axis: index for index, axis in enumerate(axes)}
    spacing = [scale[at[axis]] * unit[at[axis]] if axis in at else 1.0 for axis in SPATIAL]
    origin = [shift[at[axis]] * unit[at[axis]] if axis in at else 0.0 for axis in SPATIAL]
    return ZarrImage(group[level["path"]], axes, np.array(spacing), np.array(origin))


def _placed(count: int, steps: Iterable[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Scale and translation of transformations that follow each other."""
    scale, shift = np.ones(count), np.zeros(count)
    for step in steps:
        if step["type"] == "scale":
            scale, shift = scale * step["scale"], shift * step["scale"]
        elif step["type"] == "translation":
            shift = shift + step["translation"]
    return scale, shift

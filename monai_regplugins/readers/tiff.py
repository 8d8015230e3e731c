"""TIFF stacks, of ImageJ and OME too: their axes and their voxel size in mm.

Sources: https://docs.openmicroscopy.org/ome-model (``PhysicalSizeX`` and its unit, micrometers by default), the ImageJ
hyperstack (``XResolution`` pixels per ``unit``, ``spacing`` between slices), both as tifffile reads them. The density
of other files, in dots per inch, is that of a print and no voxel size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, import_optional

__all__ = ["TIFF_SUFFIXES", "TiffLayout", "read_tiff", "tiff_layout"]

TIFF_SUFFIXES = (".tif", ".tiff")
WANTED = "XYZT"
COLORS = "CS"
UNNAMED = "IQ"  # pages of a stack whose axis is not reported
TO_MM = {"nm": 1e-6, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1e3, "inch": 25.4}


class TiffLayout(NamedTuple):
    """What a TIFF file states of its image.

    Attributes:
        axes: of the file, the unnamed one as Z: some of ``XYZTCS``.
        shape: along these.
        dtype: of its numbers.
        spacing: along x, y and z, mm; of a stack that does not state the distance between its slices 0; None if the
            file states nothing.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    spacing: tuple[float, float, float] | None

    @property
    def spatial(self) -> tuple[int, ...]:
        """Voxels along x, y, and where there are such axes z and t."""
        return tuple(self.shape[self.axes.index(axis)] for axis in WANTED if axis in self.axes)

    @property
    def channels(self) -> int:
        """Values per voxel."""
        return int(np.prod([size for axis, size in zip(self.axes, self.shape, strict=True) if axis in COLORS]))


def tiff_layout(file: Path) -> TiffLayout:
    """Read the header of a TIFF file.

    Raises:
        InputError: When tifffile is missing, or an axis is none of space, time and channels.
        Exception: Whatever tifffile raises on a file that is none.
    """
    with _open(file) as tiff:
        series = tiff.series[0]
        axes = series.axes
        if "Z" not in axes and sum(axes.count(axis) for axis in UNNAMED) == 1:
            axes = "".join("Z" if axis in UNNAMED else axis for axis in axes)
        if set(axes) - {*WANTED, *COLORS} or len(set(axes)) < len(axes) or not {"X", "Y"} <= set(axes):
            raise InputError(
                f"TIFF file '{file}' has the axes {series.axes}, expected X and Y, and Z, T or C where there are more; "
                "save it as OME-TIFF or as an ImageJ stack."
            )
        return TiffLayout(axes, tuple(map(int, series.shape)), series.dtype, _spacing(tiff))


def read_tiff(file: Path) -> npt.NDArray[Any]:
    """The values of a TIFF file of one channel, axes (x, y), (x, y, z) or (x, y, z, t).

    Raises:
        InputError: When its compression needs the package imagecodecs.
        Exception: Whatever tifffile raises on a damaged file.
    """
    layout = tiff_layout(file)
    try:
        with _open(file) as tiff:
            values = tiff.series[0].asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise InputError(
            f"TIFF file '{file}' is compressed in a way that needs imagecodecs; pip install imagecodecs."
        ) from error
    kept = [axis for axis in WANTED if axis in layout.axes]
    order = [layout.axes.index(axis) for axis in kept]
    others = [index for index in range(len(layout.axes)) if index not in order]
    turned: npt.NDArray[Any] = values.transpose(order + others).reshape(layout.spatial)
    return turned


def _open(file: Path) -> Any:
    """Open a file alone: OME's header may name others, see :mod:`~monai_regplugins.readers.voxel_files`."""
    return import_optional("tifffile", f"TIFF files such as '{file}'").TiffFile(file, _multifile=False)


def _spacing(tiff: Any) -> tuple[float, float, float] | None:
    """The voxel size, mm; what is not reported is 0."""
    sizes: list[float] | None = None
    if tiff.is_ome:
        sizes = _ome_sizes(tiff.ome_metadata)
    elif tiff.is_imagej:
        sizes = _imagej_sizes(tiff)
    if sizes is None:
        return None
    x, y, z = (*sizes, 0.0)[:3]
    return x, y, z


def _ome_sizes(text: str) -> list[float] | None:
    """Sizes in the XML of OME."""
    found = (node.attrib for node in ElementTree.fromstring(text).iter() if node.tag.endswith("Pixels"))
    reported = next(found, {})
    axes = [axis for axis in "XYZ" if f"PhysicalSize{axis}" in reported]
    units = [TO_MM.get(reported.get(f"PhysicalSize{axis}Unit", "µm"), 0.0) for axis in axes]
    if axes[:2] != ["X", "Y"] or not all(units):
        return None
    return [float(reported[f"PhysicalSize{axis}"]) * unit for axis, unit in zip(axes, units, strict=True)]


def _imagej_sizes(tiff: Any) -> list[float] | None:
    """Sizes in the tags and the description of ImageJ."""
    reported, tags = tiff.imagej_metadata or {}, tiff.pages[0].tags
    unit = TO_MM.get(str(reported.get("unit", "")).replace("\\u00B5", "µ"))
    resolutions = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
    if unit is None or len(resolutions) < 2 or not all(count for count, _ in resolutions):
        return None
    sizes = [unit * length / count for count, length in resolutions]
    return [*sizes, *([unit * float(reported["spacing"])] if "spacing" in reported else [])]

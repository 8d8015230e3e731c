"""What MetaImage and NRRD headers state and ITK does not look at: unit of lengths, and whether there is a voxel size.

ITK takes all numbers for mm, and 1 where there are none.

Source: MetaIO (``DistanceUnits``, ``ElementSpacing``, ``ElementSize``), https://itk.org/Wiki/MetaIO/Documentation, and
NRRD (``space units``, ``spacings``, ``space directions``), https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from monai_regplugins.checks import InputError

__all__ = ["millimeters", "report_no_size"]

logger = logging.getLogger(__name__)

LONGEST_HEADER = 2**16  # bytes; units and sizes stand before any list of files
END = re.compile(rb"\r?\n\r?\n|^ElementDataFile", re.MULTILINE)
SPACE_UNITS = re.compile(rb"^space units: *(.*?)\r?$", re.MULTILINE | re.IGNORECASE)
DISTANCE_UNITS = re.compile(rb"^DistanceUnits *= *(.*?)\s*$", re.MULTILINE)
SIZES = re.compile(
    rb"^(?:spacings: *(.*)|space directions: *(.*)|ElementSpacing *= *(.*)|ElementSize *= *(.*))$",
    re.MULTILINE | re.IGNORECASE,
)
TO_MM = {"mm": 1.0, "millimeter": 1.0, "um": 1e-3, "micron": 1e-3, "micrometer": 1e-3, "cm": 10.0, "centimeter": 10.0}
TO_MM |= {"m": 1e3, "meter": 1e3, "nm": 1e-6, "nanometer": 1e-6}


def millimeters(file: Path, name: str) -> float:
    r"""How many mm the unit is in which a header states lengths; 1 where it states none.

    Args:
        file: a MetaImage or NRRD file.
        name: of the image, for messages.

    Raises:
        InputError: When the axes have different units, or one that is unknown.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.nhdr")
        >>> _ = file.write_text('NRRD0004\nspace units: "um" "um" "um"\n')
        >>> millimeters(file, "image")
        0.001
    """
    header = _header(file)
    named = [unit.decode("utf-8", "replace") for found in SPACE_UNITS.findall(header) for unit in _quoted(found)]
    named += [unit.decode("utf-8", "replace") for unit in DISTANCE_UNITS.findall(header)]
    units = {unit.strip() for unit in named} - {"", "?"}
    factors = {TO_MM.get(unit.lower().replace("µ", "u").replace("metre", "meter").removesuffix("s")) for unit in units}
    if len(factors) > 1 or None in factors:
        raise InputError(
            f"{name} states lengths in {', '.join(sorted(units))}, expected one of {', '.join(TO_MM)} for all axes; "
            "correct its header."
        )
    return next((factor for factor in factors if factor), 1.0)


def report_no_size(file: Path, name: str) -> None:
    """Log that a header states no voxel size, so that 1 mm is taken."""
    stated = [b"".join(found) for found in SIZES.findall(_header(file))]
    if not any(re.search(rb"\d", text) for text in stated):
        logger.warning("%s states no voxel size, so its voxels are taken for 1 mm; set it in the header.", name)


def _header(file: Path) -> bytes:
    """The lines of a header before the voxels, or the names of their files."""
    with file.open("rb") as stream:
        content = stream.read(LONGEST_HEADER)
    end = END.search(content)
    return content[: end.start()] if end else content


def _quoted(text: bytes) -> list[bytes]:
    """The texts between quotes."""
    return re.findall(rb'"([^"]*)"', text)

"""Names and values of labels: clients see contiguous values, 1 to N, whatever the stored values.

Clients know one list of names per model and take value k for its k-th name. So there is one table for all label maps of
a datastore, and every answer is written in its values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.readers.images import read_scan

__all__ = ["LabelNames", "StoredLabel", "label_table", "read_names", "relabel"]

logger = logging.getLogger(__name__)


class StoredLabel(NamedTuple):
    """A label map of the datastore.

    Attributes:
        path: its file.
        info: what the datastore knows of it: ``label_info`` of the client that drew it, or ``params`` of the model that
            made it, and ``ts``, when.
        origin: the DICOM segmentation that it was read from, empty if it was from none.
    """

    path: str
    info: Mapping[str, Any]
    origin: str = ""


class LabelNames:
    """The names of the values in label maps.

    Args:
        by_value: names of values for label maps that have none, such as an atlas; others are called ``label_<value>``.
    """

    def __init__(self, by_value: Mapping[int, str] | None = None) -> None:
        self.by_value = dict(by_value or {})
        self._values: dict[str, tuple[tuple[int, int], list[int]]] = {}

    def __call__(self, label: StoredLabel) -> dict[int, str]:
        """Return value to name of a label map, in the order of the values, background left out.

        Raises:
            InputError: When the file cannot be read.
        """
        made = label.info.get("params") or {}
        if stored := made.get("label_names"):
            return {int(value): str(name) for name, value in sorted(stored.items(), key=lambda item: int(item[1]))}
        values = self.values(label.path)
        drawn = {
            int(entry["idx"]): str(entry["name"]) for entry in label.info.get("label_info") or [] if "idx" in entry
        }
        if not drawn.keys() >= set(values) and max(values, default=0) <= len(drawn):
            # 3D Slicer counts its background segment too, and writes the segments as 1 to N in their order all the same
            drawn = dict(enumerate((drawn[index] for index in sorted(drawn)), start=1))
        names = self.by_value | drawn
        return {value: names.get(value, f"label_{value}") for value in values}

    def values(self, path: str) -> list[int]:
        """Return the values in a label map without 0, ascending; each state of a file is read once.

        Raises:
            InputError: When the file cannot be read.
        """
        state = check_file(path, "label map").stat()
        version = (state.st_mtime_ns, state.st_size)
        known = self._values.get(path)
        if known is None or known[0] != version:
            found = np.unique(np.rint(read_scan(path, "label map", exact=True).values.numpy()))
            if not np.isfinite(found).all():
                raise InputError(f"label map '{path}' holds NaN or infinity, expected whole numbers; save it again.")
            known = self._values[path] = version, [int(value) for value in found if value != 0]
        return known[1]


def label_table(labels: Iterable[StoredLabel], names: LabelNames) -> dict[str, int]:
    """Return name to contiguous value, from 1 on, for all labels of a datastore.

    Names are in the order in which their label maps came, and within one in that of its values, so that new label maps
    do not change the values of known names. A label map that cannot be read is left out.
    """
    table: dict[str, int] = {}
    for label in sorted(labels, key=lambda label: (label.info.get("ts", 0), label.path)):
        try:
            found = names(label)
        except InputError as error:
            logger.warning("A label map is left out: %s", error)
            continue
        for name in found.values():
            table.setdefault(name, len(table) + 1)
    return table


def relabel(values: npt.NDArray[Any], names: Mapping[int, str], table: Mapping[str, int]) -> npt.NDArray[Any]:
    """Write a label map in the values of a table; values without a name become background.

    Args:
        values: label map, whole numbers.
        names: value to name.
        table: name to new value.

    Returns:
        The same shape, uint8, or uint16 where the table needs it.
    """
    changed = np.zeros(
        values.shape, np.uint8 if max(table.values(), default=0) <= np.iinfo(np.uint8).max else np.uint16
    )
    for value, name in names.items():
        changed[values == value] = table[name]
    return changed


def read_names(text: str) -> dict[int, str]:
    """Read value to name from JSON, such as ``{"liver": 6}``, as text or in a file.

    Raises:
        InputError: When it is something else.
    """
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")
        return {int(value): str(name) for name, value in json.loads(content).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"label_names '{text}' cannot be read ({error}); write names and values as JSON, such as "
            '{"liver": 6, "spleen": 1}, or give such a file.'
        ) from None

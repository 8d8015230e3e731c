"""The images of a datastore as a data set to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from monai_regplugins.checks import InputError
from monai_regplugins.files.atomic import write_file

__all__ = ["LEAST", "write_dataset"]

LEAST = 4  # images: two to train on, two to validate


def write_dataset(folder: str | Path, images: Iterable[Mapping[str, str]], spatial_dims: int) -> Path:
    """Describe images in Learn2Reg's format, so that a bundle's own configuration makes pairs of them.

    Args:
        folder: where the description goes; an earlier one is replaced.
        images: ``image`` and, where there is one, ``label``, absolute paths.
        spatial_dims: 2 or 3.

    Returns:
        The folder, a ``dataset_dir``.

    Raises:
        InputError: When there are too few images, or the file cannot be written.
    """
    entries = [{key: entry[key] for key in ("image", "label") if entry.get(key)} for entry in images]
    if len(entries) < LEAST:
        raise InputError(
            f"the datastore holds {len(entries)} images, expected {LEAST} or more to train on pairs of them and to "
            "validate on others; add images."
        )
    content = {"name": "Studies", "tensorImageSize": {"0": f"{spatial_dims}D"}, "training": entries}
    write_file(Path(folder) / "Studies_dataset.json", (json.dumps(content, indent=4) + "\n").encode())
    return Path(folder)

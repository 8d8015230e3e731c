"""The phantom data set of a bundle, made when it is first needed."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.files.folders import is_made

__all__ = ["PHANTOMS", "open_dataset"]

PHANTOMS = ("abdomen", "cine_lung", "thorax")

_logger = logging.getLogger(__name__)


def open_dataset(dataset_dir: str | Path, embedded: str | Path, phantom: str = "abdomen") -> str:
    """Return the data set's folder; where it is the embedded one and not there yet, make the phantom first.

    Args:
        dataset_dir: folder the user asked for.
        embedded: folder of the embedded phantom data set.
        phantom: which phantom that is, ``abdomen``, ``cine_lung`` or ``thorax``.

    Raises:
        InputError: When ``dataset_dir`` does not exist and is not the embedded one.
    """
    check_choice(phantom, PHANTOMS, "phantom")
    folder = Path(dataset_dir)
    if is_made(folder):
        return str(dataset_dir)
    if folder.resolve() != Path(embedded).resolve():
        state = "is empty or no folder" if folder.exists() else "does not exist"
        raise InputError(
            f"dataset_dir '{dataset_dir}' {state}; give a folder with 'images' and, if there are any, 'labels', "
            "or one that 'regplugins describe' has written."
        )
    _logger.info("Making the %s phantom data set in '%s' (once, some seconds).", phantom, folder)
    getattr(import_module(f"monai_regplugins.phantoms.{phantom}"), f"make_{phantom}")(folder)
    return str(dataset_dir)

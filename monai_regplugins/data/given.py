"""Pairs that a user names by their files."""

from __future__ import annotations

from pathlib import Path

from monai_regplugins.checks import InputError, check_file
from monai_regplugins.data.learn2reg import Pair, open_dataset, validation_pairs

__all__ = ["given_pairs"]

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png")


def given_pairs(
    fixed: str,
    moving: str,
    fixed_label: str,
    moving_label: str,
    dataset_dir: str | Path,
    embedded: str | Path,
    phantom: str = "abdomen",
) -> list[Pair]:
    """Return the pair of the given files; with none given, the first validation pair of the data set.

    Args:
        fixed: path of the fixed image, empty if not given; so are the next three.
        moving: path of the moving image.
        fixed_label: path of the fixed image's label map.
        moving_label: path of the moving image's label map, which is carried over to the fixed image.
        dataset_dir: data set that is used when no files are given.
        embedded: folder of the embedded phantom data set.
        phantom: which phantom that is, see :func:`~monai_regplugins.data.open_dataset`.

    Returns:
        A list of one pair.

    Raises:
        InputError: When only one image is given, a label comes without its image, or a file is missing.
    """
    files = {"fixed": fixed, "moving": moving, "fixed_label": fixed_label, "moving_label": moving_label}
    given = {key: str(check_file(path, key.replace("_", " "))) for key, path in files.items() if path}
    if not given:
        return validation_pairs(open_dataset(dataset_dir, embedded, phantom))[:1]
    if missing := [key for key in ("fixed", "moving") if key not in given]:
        raise InputError(
            f"{' and '.join(given)} given, but no {' and no '.join(missing)}; give both images of the pair."
        )
    return [{**given, "pair_id": f"{_stem(moving)}_to_{_stem(fixed)}"}]


def _stem(path: str) -> str:
    """The file name without its suffix."""
    name = Path(path).name
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), Path(path).stem)

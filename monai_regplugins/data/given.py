"""Pairs from the files on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from monai.config import PathLike

from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import Pair, validation_pairs
from monai_regplugins.data.pair_list import named_pair, read_pair_list
from monai_regplugins.phantoms.embedded import open_dataset

__all__ = ["given_pairs"]


def given_pairs(
    fixed: PathLike,
    moving: PathLike,
    fixed_label: PathLike,
    moving_label: PathLike,
    dataset_dir: str | Path,
    embedded: str | Path,
    phantom: str = "abdomen",
    *,
    fixed_points: PathLike = "",
    moving_points: PathLike = "",
    mask: PathLike = "",
    fixed_mask: PathLike = "",
    moving_mask: PathLike = "",
    fixed_phase: PathLike = "",
    moving_phase: PathLike = "",
    pair_id: PathLike = "",
    pairs: PathLike = "",
    max_pairs: int = 1,
) -> list[Pair]:
    """Return the pair of the given files, those of a list, or with none given validation pairs of a data set.

    Args:
        fixed: path of the fixed image, a file or the folder of a DICOM series, empty if not given; so are all others.
        moving: path of the moving image.
        fixed_label: path of the fixed image's label map.
        moving_label: path of the moving image's label map, which is carried over to the fixed image.
        dataset_dir: data set that is used when no files are given.
        embedded: folder of the embedded phantom data set.
        phantom: which phantom that is, see :func:`~monai_regplugins.phantoms.open_dataset`.
        fixed_points: path of points of the fixed image, see :mod:`~monai_regplugins.readers.points`.
        moving_points: path of their partners in the moving image.
        mask: another name of ``fixed_mask``.
        fixed_mask: path of a mask of the fixed image, the voxels that count.
        moving_mask: path of a mask of the moving image.
        fixed_phase: which volume of a fixed image with several, by its name or number.
        moving_phase: which one of a moving image with several.
        pair_id: name of the pair of the given files; by default ``<moving>_to_<fixed>``.
        pairs: path of a list of pairs, see :func:`~monai_regplugins.data.pair_list.read_pair_list`.
        max_pairs: so many pairs of the data set, 0 takes all.

    Returns:
        Pairs of paths, in the order of the list.

    Raises:
        InputError: When only one image is given, or something else comes without its image or beside a list.
    """
    files = {
        "fixed": fixed,
        "moving": moving,
        "fixed_label": fixed_label,
        "moving_label": moving_label,
        "fixed_points": fixed_points,
        "moving_points": moving_points,
        "mask": mask,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        "fixed_phase": fixed_phase,
        "moving_phase": moving_phase,
    }
    given = {column: os.fspath(path) for column, path in files.items() if os.fspath(path)}
    beside = [*given, *(["pair_id"] if os.fspath(pair_id) else [])]
    if os.fspath(pairs):
        if beside:
            raise InputError(
                f"pairs and {' and '.join(beside)} given; give either a list of pairs or the files of one."
            )
        return read_pair_list(pairs)
    if not beside:
        return validation_pairs(open_dataset(dataset_dir, embedded, phantom))[: max_pairs or None]
    if missing := [column for column in ("fixed", "moving") if column not in given]:
        raise InputError(
            f"{' and '.join(beside)} given, but no {' and no '.join(missing)}; give both images of the pair."
        )
    return [named_pair(given, pair_id=os.fspath(pair_id))]

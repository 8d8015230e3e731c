"""Inputs of an application: the bundle, and the two scans among the input files or series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from monai_regplugins.checks import InputError
from monai_regplugins.registration import CONFIG

__all__ = ["ROLES", "PickedSeries", "find_pair", "only_bundle", "picked_pair"]

ROLES = ("fixed", "moving", "moving_label")
OPTIONAL = "moving_label"

T = TypeVar("T")


class PickedSeries(NamedTuple):
    """A DICOM series that a selection rule selected.

    Attributes:
        role: name of the rule.
        uid: series instance UID.
        description: for messages.
        files: where its instances lie.
    """

    role: str
    uid: str
    description: str
    files: Sequence[Path]


def only_bundle(models: Path) -> Path:
    """Find the one bundle in the folder of models, which may itself be the bundle.

    Args:
        models: ``--model`` of an application, or the models folder of its container.

    Raises:
        InputError: When there is none, or more than one.
    """
    if (models / CONFIG).is_file():
        return models
    folders = sorted(models.iterdir()) if models.is_dir() else []
    bundles = [folder for folder in folders if (folder / CONFIG).is_file()]
    if len(bundles) != 1:
        names = f" ({', '.join(folder.name for folder in bundles)})" if bundles else ""
        raise InputError(
            f"'{models}' holds {len(bundles)} bundles{names}, expected one, a folder with {CONFIG.as_posix()}; give "
            "its path as --model."
        )
    return bundles[0]


def find_pair(folder: Path) -> dict[str, Path]:
    """Find the images of a pair by their names, such as ``fixed.nii.gz``, ``moving.nrrd``, ``moving_label.nii.gz``.

    Args:
        folder: where they lie; the folder of a DICOM series is called ``fixed`` or ``moving``.

    Returns:
        Paths of ``fixed``, ``moving`` and, if there is one, ``moving_label``.

    Raises:
        InputError: When an image is missing, or there are two of a name.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {role: [entry for entry in entries if entry.name.split(".")[0] == role] for role in ROLES}
    for role, names in _not_one(found, lambda path: path.name):
        raise InputError(
            f"'{folder}' holds {len(found[role])} entries called {role}{names}, expected one, such as {role}.nii.gz; "
            "rename or remove files."
        )
    return {role: paths[0] for role, paths in found.items() if paths}


def picked_pair(series: Iterable[PickedSeries]) -> dict[str, Path]:
    """Take the two scans, and the segmentation of the moving one, from what the selection rules have picked.

    Args:
        series: of all studies; those of other roles do not matter.

    Returns:
        A file of each series by its role; ``moving_label`` may be missing.

    Raises:
        InputError: When a role has no series or several, one series has both roles, its files lie in several folders,
            or the segmentation has several files.
    """
    picked = list(series)
    found = {role: [one for one in picked if one.role == role] for role in ROLES}
    for role, names in _not_one(found, _describe):
        raise InputError(
            f"the rule '{role}' picks {len(found[role])} series{names}, expected one; change the conditions under "
            "'selections' in app.yaml."
        )
    chosen = {role: candidates[0] for role, candidates in found.items() if candidates}
    if chosen["fixed"].uid == chosen["moving"].uid:
        raise InputError(
            f"the rules 'fixed' and 'moving' pick the same series ({_describe(chosen['fixed'])}), expected two; change "
            "the conditions under 'selections' in app.yaml."
        )
    if OPTIONAL in chosen and len(chosen[OPTIONAL].files) != 1:
        raise InputError(
            f"the rule '{OPTIONAL}' picks a series of {len(chosen[OPTIONAL].files)} files "
            f"({_describe(chosen[OPTIONAL])}), expected one DICOM segmentation; change its conditions in app.yaml."
        )
    return {role: _one_file(one) for role, one in chosen.items()}


def _not_one(found: Mapping[str, Sequence[T]], name: Callable[[T], str]) -> Iterator[tuple[str, str]]:
    """The roles that nothing or too much was found for, and the names of it in brackets."""
    for role, ones in found.items():
        if len(ones) > 1 or not (ones or role == OPTIONAL):
            yield role, f" ({', '.join(map(name, ones))})" if ones else ""


def _one_file(series: PickedSeries) -> Path:
    """A file that stands for the whole series, as its neighbors of the same UID are read with it."""
    if len(folders := {file.parent for file in series.files}) > 1:
        raise InputError(
            f"the series {_describe(series)} lies in {len(folders)} folders, expected one; copy its files together."
        )
    return min(series.files)


def _describe(series: PickedSeries) -> str:
    return f"'{series.description or series.uid}'"

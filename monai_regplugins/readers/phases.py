"""Images that hold several volumes, such as phases of the breath, times or echoes: which one is meant.

A file with a fourth axis numbers its volumes from 0. A DICOM series states them apart by one of its tags: by the first
of :data:`DICOM_TAGS` whose values part the slices into volumes without two slices at one place. Where none does, as
with trigger times that differ from slice to slice, the slices at each place are counted in the order they were taken.

Source: DICOM PS3.3, C.7.6.16.2 (multi-frame functional groups), C.8.3 and C.8.4 (MR), C.7.6.18 (synchronization).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_regplugins.checks import InputError

__all__ = ["DICOM_TAGS", "Phase", "Volumes", "chosen_volume", "numbered", "split_volumes"]

DICOM_TAGS = {
    "temporal position": "0020|0100",
    "temporal position index": "0020|9128",
    "respiratory phase": "0020|9245",
    "cardiac phase": "0020|9241",
    "trigger time": "0018|1060",
    "cardiac trigger delay": "0020|9153",
    "image comments": "0020|4000",
    "frame comments": "0020|9158",
    "acquisition number": "0020|0012",
    "b-value": "0018|9087",
    "echo number": "0018|0086",
    "echo time": "0018|0081",
    "effective echo time": "0018|9082",
    "stack": "0020|9056",
    "acquisition time": "0008|0032",
}
ORDERS = ("0018|1060", "0020|9153", "0008|0032", "0018|9074", "0020|0013")  # times, then the instance number
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SAME_PLACE = 1e-2  # mm along the normal
LISTED = 20  # names in a message


class Phase(NamedTuple):
    """Which volume the user means.

    Attributes:
        name: as the user gave it, ``""`` for the only one.
        option: the option that takes it, e.g. ``"fixed_phase"``.
    """

    name: str
    option: str


class Volumes(NamedTuple):
    """The volumes of a series.

    Attributes:
        by: what states them apart, in words.
        members: the indices of the slices by the name of their volume, volumes in their order.
    """

    by: str
    members: dict[str, list[int]]


def numbered(count: int) -> list[str]:
    """The names of volumes that have none.

    Example:
        >>> numbered(3)
        ['0', '1', '2']
    """
    return [str(number) for number in range(count)]


def chosen_volume(names: Sequence[str], phase: Phase | None, name: str, by: str) -> int:
    """The index of the volume that is meant.

    A name may be shortened to the number in it, such as ``50`` for ``50%``, where that is no other one's.

    Args:
        names: of the volumes.
        phase: which one the user means; None where there is no option to state it.
        name: of the image, for messages, e.g. ``"fixed image 'scan'"``.
        by: what states the volumes apart, in words.

    Raises:
        InputError: When there are several and none was named, or the name fits none or more than one.

    Example:
        >>> chosen_volume(["0%", "50%"], Phase("50", "fixed_phase"), "fixed image 'scan'", "image comments")
        1
    """
    asked, option = phase or Phase("", "")
    if not asked:
        if len(names) == 1:
            return 0
        advice = f"choose one with {option}" if option else "give a file of the one that is meant"
        raise InputError(f"{name} holds {len(names)} volumes by {by} ({_listed(names)}), expected one; {advice}.")
    if len(names) == 1:
        raise InputError(f"{name} holds one volume, but {option} is {asked!r}; leave {option} out.")
    fitting = [index for index, known in enumerate(names) if known == asked]
    fitting = fitting or [index for index, known in enumerate(names) if _number(known) == (_number(asked) or ())]
    if len(fitting) != 1:
        raise InputError(
            f"{name} has {len(fitting) or 'no'} volume{'s' if fitting else ''} {asked!r} by {by}, expected one of "
            f"{_listed(names)}; correct {option}."
        )
    return fitting[0]


def split_volumes(places: npt.NDArray[np.float64], tags_of: Sequence[Mapping[str, str]]) -> Volumes | None:
    """Part the slices of a series into volumes.

    Args:
        places: of the slices along their normal, mm.
        tags_of: their tags as texts, by ``"gggg|eeee"``.

    Returns:
        The volumes, one if no two slices lie at one place; None if there are more, but nothing that states them apart.

    Example:
        >>> split_volumes(np.array([0.0, 0.0]), [{"0020|4000": "50%"}, {"0020|4000": "0%"}])
        Volumes(by='image comments', members={'0%': [1], '50%': [0]})
    """
    levels = np.zeros(len(places), int)
    order = np.argsort(places, kind="stable")
    levels[order[1:]] = np.cumsum(np.diff(places[order]) > SAME_PLACE)
    counts = np.bincount(levels)
    if counts.max() == 1:
        return Volumes("", {"": list(range(len(places)))})
    for by, tag in DICOM_TAGS.items():
        members = _grouped(tags.get(tag, "") for tags in tags_of)
        if "" not in members and len(members) == counts.max() and _lie_apart(members.values(), levels):
            return Volumes(by, {name: members[name] for name in sorted(members, key=_natural)})
    return _counted(levels, tags_of) if counts.min() == counts.max() else None


def _grouped(values: Iterable[str]) -> dict[str, list[int]]:
    """The indices of equal values."""
    members: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        members.setdefault(" ".join(value.split()), []).append(index)
    return members


def _lie_apart(groups: Iterable[list[int]], levels: npt.NDArray[Any]) -> bool:
    """Whether no two slices of a group lie at one place."""
    return all(len(set(levels[group])) == len(group) for group in groups)


def _counted(levels: npt.NDArray[Any], tags_of: Sequence[Mapping[str, str]]) -> Volumes | None:
    """The slices at each place, counted in the order they were taken."""
    for tag in ORDERS:
        keys = [_number(tags.get(tag, "")) for tags in tags_of]
        pairs = set(zip(levels.tolist(), keys, strict=True))
        if () in keys or len(pairs) < len(levels):  # missing, or twice at one place
            continue
        at_place = [sorted(np.flatnonzero(levels == level), key=keys.__getitem__) for level in range(levels.max() + 1)]
        volumes = np.transpose(at_place).tolist()
        return Volumes("their order at each place", dict(zip(numbered(len(volumes)), volumes, strict=True)))
    return None


def _number(text: str) -> tuple[float, ...]:
    """The first number in a text; none if there is none."""
    found = NUMBER.search(text)
    return (float(found[0]),) if found else ()


def _natural(name: str) -> tuple[tuple[float, ...], str]:
    """What names are sorted by: their numbers, then their letters."""
    return tuple(float(number) for number in NUMBER.findall(name)), name


def _listed(names: Sequence[str]) -> str:
    """Names for a message."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")

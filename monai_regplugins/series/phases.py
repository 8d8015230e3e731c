"""The phases of a 4D image, or of a list of images, as pairs onto one of them along the cycle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.config import PathLike

from monai_regplugins.checks import InputError, suggest
from monai_regplugins.data.pair_list import check_pair_ids, list_rows, named_pair, stem_of
from monai_regplugins.readers.images import scan_phases
from monai_regplugins.readers.phases import Phase, chosen_volume

__all__ = ["LISTS", "PHASE_COLUMNS", "PhaseChain", "PhaseSeries", "first_image", "listed_images", "phase_series"]

Pair = dict[str, str]

PHASE_COLUMNS = ("image", "phase", "label", "points", "mask")  # of a list
LISTS = (".csv", ".json")


class PhaseChain(NamedTuple):
    """Phases one after the other, which begin beside the reference.

    Attributes:
        pairs: each phase with the reference.
        closed: whether the reference follows the last one, too.
    """

    pairs: tuple[Pair, ...]
    closed: bool


class PhaseSeries(NamedTuple):
    """A series and how its phases follow each other.

    Attributes:
        names: of all phases in the order of time.
        reference: number of the one that the others are registered to.
        chains: the others, along the cycle: one chain, or two if the series has a beginning and an end.
        places: number in time of the phase of each pair, by its ``pair_id``.
    """

    names: tuple[str, ...]
    reference: int
    chains: tuple[PhaseChain, ...]
    places: Mapping[str, int]

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, in the order in which they are registered."""
        return [pair for chain in self.chains for pair in chain.pairs]


def phase_series(
    series: PathLike, onto: str = "", cyclic: bool = True, of_reference: Mapping[str, PathLike] | None = None
) -> PhaseSeries:
    """Read which phases a series has.

    Args:
        series: an image with several volumes, a file or the folder of a DICOM series; or a list of images in the order
            of time, a CSV table or a JSON array of objects with ``image`` and, where there are such, ``phase``, which
            volume of it, ``label``, ``points`` and ``mask``; paths are relative to the folder of the list.
        onto: name of the phase that the others are registered to, or its number; by default the first one.
        cyclic: whether the first phase follows the last one.
        of_reference: files of the reference phase, ``fixed_label``, ``fixed_points`` or ``fixed_mask``; empty paths are
            left out.

    Raises:
        InputError: When there is no series, it has one phase, none of this name, or the list is damaged.
    """
    if not os.fspath(series):
        raise InputError("there is no series; give an image with several volumes, or a list of images, by series.")
    name = f"series '{os.fspath(series)}'"
    phases = listed_images(series, name) if Path(series).suffix.lower() in LISTS else _volumes(series)
    if len(phases) < 2:
        raise InputError(f"{name} has one phase, expected several, such as those of a 4D-CT; give such a one.")
    names = tuple(phase["name"] for phase in phases)
    reference = chosen_volume(names, Phase(onto or names[0], "onto"), name, "name")
    more = {key: os.fspath(path) for key, path in (of_reference or {}).items() if os.fspath(path)}
    pairs = {number: _pair(phases, number, reference, more) for number in range(len(phases)) if number != reference}
    check_pair_ids(list(pairs.values()), source=name)
    parts = _parts(len(names), reference, cyclic)
    chains = tuple(PhaseChain(tuple(pairs[number] for number in part), cyclic) for part in parts)
    return PhaseSeries(names, reference, chains, {pair["pair_id"]: number for number, pair in pairs.items()})


def _parts(count: int, reference: int, cyclic: bool) -> list[list[int]]:
    """The numbers of the other phases, in each part in the order of their distance to the reference."""
    if cyclic:
        return [[(reference + step) % count for step in range(1, count)]]
    return [part for part in (list(range(reference + 1, count)), list(range(reference - 1, -1, -1))) if part]


def _volumes(series: PathLike) -> list[dict[str, str]]:
    """The volumes of one image."""
    place, names = os.path.abspath(series), scan_phases(series, "series")
    return [{"name": name, "image": place, **({"phase": name} if name else {})} for name in names]


def listed_images(series: PathLike, name: str) -> list[dict[str, str]]:
    """The images of a list, each with its ``name``, and the files that belong to it by column.

    Args:
        series: the list.
        name: of the list, for messages.

    Raises:
        InputError: When it cannot be read, has an unknown column, or a line without an image.
    """
    folder, phases = Path(os.path.abspath(series)).parent, list[dict[str, str]]()
    for place, row in list_rows(series, "list of phases"):
        if unknown := [column for column in row if column not in PHASE_COLUMNS]:
            raise InputError(
                f"{place} of {name} has an unknown column '{unknown[0]}', expected some of {', '.join(PHASE_COLUMNS)}; "
                f"correct or remove it.{suggest(str(unknown[0]), PHASE_COLUMNS)}"
            )
        given = {column: value for column, value in row.items() if value}
        if "image" not in given:
            raise InputError(f"{place} of {name} has no image; give that of the phase.")
        files = {column: value if column == "phase" else str(folder / value) for column, value in given.items()}
        phases.append({"name": given.get("phase") or stem_of(files["image"]), **files})
    return phases


def _pair(phases: list[dict[str, str]], moving: int, fixed: int, of_reference: Mapping[str, Any]) -> Pair:
    """A phase with the reference."""
    columns = {"image": "{}", "phase": "{}_phase", "label": "{}_label", "points": "{}_points", "mask": "{}_mask"}
    files = {
        form.format(side): phases[number][column]
        for side, number in (("fixed", fixed), ("moving", moving))
        for column, form in columns.items()
        if column in phases[number]
    }
    return named_pair({**files, **of_reference})


def first_image(series: PathLike) -> str:
    """The image of a series, or the first one of a list.

    Raises:
        InputError: When the list is damaged or empty.
    """
    if Path(series).suffix.lower() not in LISTS:
        return os.fspath(series)
    phases = listed_images(series, f"series '{os.fspath(series)}'")
    if not phases:
        raise InputError(f"series '{os.fspath(series)}' lists no image; give at least two.")
    return phases[0]["image"]

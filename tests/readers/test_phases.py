"""Volumes of one image: their names, how they are chosen, and by which tags slices are parted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.readers.phases import DICOM_TAGS, Phase, Volumes, chosen_volume, numbered, split_volumes

PERCENT = ["0%", "10%", "50%", "100%"]


@pytest.mark.parametrize(("asked", "index"), [("0%", 0), ("10", 1), ("50.0", 2), ("100 %", 3)])
def test_a_name_or_its_number_chooses(asked: str, index: int) -> None:
    assert chosen_volume(PERCENT, Phase(asked, "fixed_phase"), "image", "phase") == index


@pytest.mark.parametrize("phase", [None, Phase("", "fixed_phase")])
def test_the_only_volume_needs_no_name(phase: Phase | None) -> None:
    assert chosen_volume([""], phase, "image", "") == 0


@pytest.mark.parametrize(
    ("names", "phase", "message"),
    [
        (PERCENT, Phase("", "fixed_phase"), r"^a holds 4 volumes by b \(0%, 10%, 50%, 100%\), .* with fixed_phase\.$"),
        (PERCENT, None, r"^a holds 4 volumes by b .*, expected one; give a file of the one that is meant\.$"),
        (PERCENT, Phase("5", "moving_phase"), r"has no volume '5' by b, expected one of 0%, .*; correct moving_phase"),
        (PERCENT, Phase("in", "moving_phase"), "has no volume 'in'"),
        (["0% In", "50% In", "50% Ex"], Phase("50", "moving_phase"), "has 2 volumes '50'"),
        ([""], Phase("3", "moving_phase"), r"holds one volume, but moving_phase is '3'; leave moving_phase out"),
        (numbered(30), Phase("", "fixed_phase"), r"18, 19, \.\.\.\)"),
    ],
)
def test_names_that_fit_no_volume(names: list[str], phase: Phase | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen_volume(names, phase, "a", "b")


def split(places: list[float], **columns: list[Any]) -> Volumes | None:
    tags_of = [
        {DICOM_TAGS[by.replace("_", " ")]: str(values[k]) for by, values in columns.items()} for k in range(len(places))
    ]
    return split_volumes(np.array(places), tags_of)


def test_slices_at_places_of_their_own_are_one_volume() -> None:
    assert split([3.0, 1.0, 2.0], trigger_time=[1, 2, 3]) == Volumes("", {"": [0, 1, 2]})


def test_the_first_tag_that_parts_them_counts() -> None:
    """A time of each slice does not, nor a number that all have."""
    found = split(
        [0, 1, 0, 1],
        temporal_position=[1, 1, 1, 1],
        trigger_time=[1, 2, 3, 4],
        acquisition_number=[9, 9, 10, 10],
        acquisition_time=[1, 1, 2, 2],
    )
    assert found == Volumes("acquisition number", {"9": [0, 1], "10": [2, 3]})


def test_volumes_may_lack_slices() -> None:
    """The longest ones show how many volumes there are."""
    found = split([0, 1, 2, 1, 2.004], acquisition_number=[1, 1, 1, 2, 2])
    assert found == Volumes("acquisition number", {"1": [0, 1, 2], "2": [3, 4]})


def test_names_are_in_the_order_of_their_numbers() -> None:
    found = split([0, 0, 0], image_comments=["Gated, 90.0%", "Gated, 0.0%", "Gated, 100.0%"])
    assert found is not None
    assert list(found.members) == ["Gated, 0.0%", "Gated, 90.0%", "Gated, 100.0%"]


def test_a_tag_that_some_slices_lack_does_not_count() -> None:
    assert split([0, 0], echo_number=["", 2]) is None


def test_slices_are_counted_in_the_order_of_their_times() -> None:
    found = split([0, 1, 0, 1, 1, 0], trigger_time=[700.5, 9, 80, 300, 90, 5])
    assert found == Volumes("their order at each place", {"0": [5, 1], "1": [2, 4], "2": [0, 3]})


def test_places_of_unequal_counts_cannot_be_counted() -> None:
    assert split([0, 0, 1], trigger_time=[1, 2, 3]) is None

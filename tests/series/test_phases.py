"""Which phases a series has, and in which order they are registered."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.series import PhaseSeries, phase_series
from monai_regplugins.series.phases import first_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "lung.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 6), np.int16), np.eye(4)), path)
    return path


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    rows = [{"image": f"{name}.nii", "label": f"{name}_label.nii" if name != "c" else ""} for name in "abcd"]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    return tmp_path / "list.json"


def order(series: PhaseSeries) -> list[list[int]]:
    return [[series.places[pair["pair_id"]] for pair in chain.pairs] for chain in series.chains]


@pytest.mark.parametrize(
    ("onto", "cyclic", "chains"),
    [
        ("", True, [[1, 2, 3, 4, 5]]),
        ("4", True, [[5, 0, 1, 2, 3]]),
        ("", False, [[1, 2, 3, 4, 5]]),
        ("2", False, [[3, 4, 5], [1, 0]]),
        ("5", False, [[4, 3, 2, 1, 0]]),
    ],
)
def test_phases_follow_each_other_from_the_reference_on(
    onto: str, cyclic: bool, chains: list[list[int]], image: Path
) -> None:
    series = phase_series(image, onto, cyclic)
    assert order(series) == chains
    assert all(chain.closed == cyclic for chain in series.chains)
    assert series.names == ("0", "1", "2", "3", "4", "5")
    assert {pair["fixed_phase"] for pair in series.pairs} == {onto or "0"}
    assert all(pair["moving_phase"] == str(series.places[pair["pair_id"]]) for pair in series.pairs)


def test_files_of_the_reference_come_with_every_phase(image: Path) -> None:
    series = phase_series(image, of_reference={"fixed_label": "label.nii", "fixed_points": "", "mask": "m.nii"})
    assert all((pair["fixed_label"], pair["fixed_mask"]) == ("label.nii", "m.nii") for pair in series.pairs)
    assert "fixed_keypoints" not in series.pairs[0]


def test_a_list_has_files_of_each_phase(listed: Path) -> None:
    series = phase_series(listed, "b")
    assert series.names == ("a", "b", "c", "d")
    (first, *_) = series.pairs
    folder = listed.parent
    assert first == {
        "fixed": str(folder / "b.nii"),
        "fixed_label": str(folder / "b_label.nii"),
        "moving": str(folder / "c.nii"),
        "pair_id": "c_to_b",
    }
    assert series.pairs[1]["moving_label"] == str(folder / "d_label.nii")
    assert first_image(listed) == str(folder / "a.nii")


def test_a_list_may_name_volumes(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,phase\nct,0%\nct,50%\n")
    (pair,) = phase_series(tmp_path / "list.csv").pairs
    assert (pair["fixed_phase"], pair["moving_phase"], pair["pair_id"]) == ("0%", "50%", "ct_50%_to_ct_0%")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.nii\n", "has one phase, expected several"),
        ("image,lable\na.nii,b\nb.nii,b\n", "unknown column 'lable'.*label"),
        ("image,label\na.nii,b\n,b\n", "line 3 of series .* has no image"),
        ("image\na.nii\na.nii\n", "one name|same pair_id|volumes 'a'"),
    ],
)
def test_lists_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        phase_series(tmp_path / "list.csv")


def test_no_series_and_no_such_phase(image: Path) -> None:
    with pytest.raises(InputError, match="there is no series"):
        phase_series("")
    with pytest.raises(InputError, match="has no volume '7' by name"):
        phase_series(image, "7")
    one = image.with_name("one.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), one)
    with pytest.raises(InputError, match="has one phase"):
        phase_series(one)

"""What an application is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_regplugins.apps.deploy.inputs import (
    PickedSeries,
    find_pair,
    only_bundle,
    picked_pair,
)
from monai_regplugins.checks import InputError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def series(role: str, *files: str, uid: str = "", description: str = "") -> PickedSeries:
    return PickedSeries(role, uid or f"1.{role}", description, [Path(file) for file in files or [f"in/{role}/1.dcm"]])


FIXED, MOVING, LABEL = series("fixed"), series("moving", "in/b/2.dcm", "in/b/1.dcm"), series("moving_label")


@pytest.mark.parametrize("where", ["", "ran"])
def test_the_bundle_is_the_folder_of_models_or_in_it(tmp_path: Path, where: str) -> None:
    make(tmp_path, f"{where or '.'}/configs/inference.json", "other/readme.md", "LICENSE")
    assert only_bundle(tmp_path) == tmp_path / where


def test_there_has_to_be_one_bundle(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"holds 0 bundles, expected one, a folder with configs/inference.json"):
            only_bundle(missing)
    make(tmp_path, "ran/configs/inference.json", "regnet/configs/inference.json")
    with pytest.raises(InputError, match=r"holds 2 bundles \(ran, regnet\), expected one"):
        only_bundle(tmp_path)


def test_a_pair_is_found_by_its_names(tmp_path: Path) -> None:
    make(tmp_path, "fixed.nii.gz", "moving/1.dcm", "fixed_label.nii.gz", "readme.md")
    assert find_pair(tmp_path) == {"fixed": tmp_path / "fixed.nii.gz", "moving": tmp_path / "moving"}
    make(tmp_path, "moving_label.nrrd")
    assert find_pair(tmp_path)["moving_label"] == tmp_path / "moving_label.nrrd"


def test_a_folder_without_a_pair(tmp_path: Path) -> None:
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"holds 0 entries called fixed, expected one, such as fixed.nii.gz"):
            find_pair(missing)
    make(tmp_path, "fixed.nii.gz", "fixed.nrrd", "moving.nii")
    with pytest.raises(InputError, match=r"2 entries called fixed \(fixed.nii.gz, fixed.nrrd\), expected one"):
        find_pair(tmp_path)


def test_a_file_stands_for_a_picked_series() -> None:
    assert picked_pair([series("scout"), MOVING, FIXED]) == {
        "fixed": Path("in/fixed/1.dcm"),
        "moving": Path("in/b/1.dcm"),
    }
    assert picked_pair([FIXED, LABEL, MOVING])["moving_label"] == Path("in/moving_label/1.dcm")


@pytest.mark.parametrize(
    ("picked", "message"),
    [
        ([FIXED], r"the rule 'moving' picks 0 series, expected one; change the conditions"),
        ([FIXED, series("fixed", uid="1.2", description="Chest"), MOVING], r"picks 2 series \('1.fixed', 'Chest'\)"),
        ([FIXED, MOVING, LABEL, series("moving_label")], r"'moving_label' picks 2 series"),
        ([FIXED, series("moving", uid=FIXED.uid)], r"'fixed' and 'moving' pick the same series \('1.fixed'\)"),
        ([FIXED, MOVING, series("moving_label", "a/1", "a/2")], r"a series of 2 files \('1.moving_label'\), expected"),
        ([FIXED, series("moving", "in/a/1.dcm", "in/b/2.dcm")], r"'1.moving' lies in 2 folders, expected one"),
    ],
)
def test_rules_that_pick_no_pair(picked: list[PickedSeries], message: str) -> None:
    with pytest.raises(InputError, match=message):
        picked_pair(picked)

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_series import write_volume

from monai_regplugins.apps.label.requests import (
    RequestError,
    check_known,
    check_name,
    check_suffix,
    check_voxels,
    chosen,
    first_of,
    flag,
    number,
    without_paths,
)


@pytest.mark.parametrize("name", ["day1", "a.b", "case 1", "..a", "1.2.840.10008", "größe"])
def test_names(name: str) -> None:
    assert check_name(name, "the id") == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\nb", None, 3, ["a"]])
def test_no_names(name: Any) -> None:
    with pytest.raises(RequestError, match=r"the id is .*not a path") as caught:
        check_name(name, "the id")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "expected"), [("b", "b"), (["b", "a"], "b"), ([], "a"), ("", "a"), (None, "a"), ([""], "a")]
)
def test_chosen(value: Any, expected: str) -> None:
    assert chosen({"key": value}, "key", ["a", "b"]) == expected
    assert chosen({}, "key", ["a", "b"]) == "a"


@pytest.mark.parametrize("value", ["c", 3, {"a": 1}, ["c"], ["a", "b", ["c"]][2:]])
def test_chosen_refuses(value: Any) -> None:
    with pytest.raises(RequestError, match=r"key is .*expected one of a, b"):
        chosen({"key": value}, "key", ["a", "b"])


@pytest.mark.parametrize(
    ("value", "default", "expected"), [("20", 3, 20), (20.0, 3, 20), (None, 3, 3), ("", 3, 3), ("1e-3", 0.1, 1e-3)]
)
def test_number(value: Any, default: float, expected: float) -> None:
    found = number({"key": value}, "key", default)
    assert found == expected
    assert type(found) is type(default)


@pytest.mark.parametrize("value", ["$1", "nan", "inf", -1, 1.5, True, {}, "many"])
def test_number_refuses(value: Any) -> None:
    with pytest.raises(RequestError, match=r"key is .*expected a whole number from 0 on"):
        number({"key": value}, "key", 3)


def test_first() -> None:
    assert [first_of("a"), first_of(["b", "c"]), first_of([]), first_of(None)] == ["a", "b", None, None]


def test_voxels(tmp_path: Path) -> None:
    image = np.zeros((4, 5, 6), np.uint8)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / "a.nrrd"))
    (tmp_path / "b.nii.gz").write_bytes(b"nothing")
    (tmp_path / "b.nrrd").write_bytes(b"nothing")
    for name in ("a.nii.gz", "a.nrrd"):
        check_voxels(tmp_path / name, "the image", 120)
        with pytest.raises(RequestError, match=r"the image has . x 5 x . voxels, this server takes 119") as caught:
            check_voxels(tmp_path / name, "the image", 119)
        assert caught.value.status == 413
    for name in ("b.nii.gz", "b.nrrd", ".", "missing.nii.gz"):
        check_voxels(tmp_path / name, "the image", 1)  # its reader says what is wrong


def test_voxels_of_a_series(tmp_path: Path) -> None:
    write_volume(tmp_path, np.zeros((4, 5, 6), np.int16), np.eye(4))
    check_voxels(tmp_path, "the image", 120)
    with pytest.raises(RequestError, match="the image has 4 x 5 x 6 voxels, this server takes 119"):
        check_voxels(tmp_path, "the image", 119)


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("true", True), (["False"], False), ("", False)])
def test_flags(value: Any, expected: bool) -> None:
    assert flag({"key": value}, "key") is expected
    assert flag({}, "key") is False
    with pytest.raises(RequestError, match=r"key is 3, expected true or false\."):
        flag({"key": 3}, "key")


def test_without_paths() -> None:
    names = {"/srv/a": "a", "/srv/a.nii.gz": "day1", "": "nothing"}
    assert without_paths("'/srv/a.nii.gz' and '/srv/a/b'", names) == "'day1' and 'a/b'"


def test_voxels_in_another_file(tmp_path: Path) -> None:
    """The header alone gives the size, and no file that it names out of the folder is opened."""
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8)), str(tmp_path / "a.mhd"))
    with pytest.raises(RequestError, match="the image has 6 x 5 x 4 voxels"):
        check_voxels(tmp_path / "a.mhd", "the image", 119)


def test_known_options() -> None:
    check_known({"image": "a", "result_dtype": "uint8", "client_id": "x", "_id": 0, "frame": 3}, ["frame", "format"])
    with pytest.raises(
        RequestError, match=r"no option 'fromat', expected one of format, frame\. Did you mean 'format'"
    ):
        check_known({"fromat": "native"}, ["frame", "format"])


def test_suffixes(tmp_path: Path) -> None:
    bare = tmp_path / "scan"
    check_suffix(bare, "the image")  # its reader says that it is missing
    bare.write_bytes(bytes(128) + b"DICM")
    check_suffix(bare, "the image")
    bare.write_bytes(bytes(200))
    with pytest.raises(RequestError, match="the image was sent under a name without suffix"):
        check_suffix(bare, "the image")
    check_suffix(bare.rename(tmp_path / "scan.nii.gz"), "the image")

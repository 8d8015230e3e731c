"""Pairs named by their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.data import given_pairs


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Paths of a pair with labels; what the files hold does not matter here."""
    paths = {key: tmp_path / f"{key}.nii.gz" for key in ("fixed", "moving", "fixed_label", "moving_label")}
    for path in paths.values():
        path.write_bytes(b"x")
    return {key: str(path) for key, path in paths.items()}


def given(files: dict[str, str], *keys: str) -> list[dict[str, str]]:
    """Call the function with some of the files."""
    chosen = [files[key] if key in keys else "" for key in ("fixed", "moving", "fixed_label", "moving_label")]
    return given_pairs(*chosen, dataset_dir="nowhere", embedded="nowhere")


@pytest.mark.parametrize("labels", [(), ("moving_label",), ("fixed_label", "moving_label")])
def test_the_pair_holds_what_was_given(files: dict[str, str], labels: tuple[str, ...]) -> None:
    keys = ("fixed", "moving", *labels)
    assert given(files, *keys) == [{**{key: files[key] for key in keys}, "pair_id": "moving_to_fixed"}]


def test_points_and_mask_come_under_the_keys_of_a_pair(files: dict[str, str], tmp_path: Path) -> None:
    more = {key: str(tmp_path / f"{key}.csv") for key in ("fixed_points", "moving_points", "mask")}
    for path in more.values():
        Path(path).write_bytes(b"x")
    (pair,) = given_pairs(files["fixed"], files["moving"], "", "", "nowhere", "nowhere", **more)
    assert pair == {
        "fixed": files["fixed"],
        "moving": files["moving"],
        "fixed_keypoints": more["fixed_points"],
        "moving_keypoints": more["moving_points"],
        "fixed_mask": more["mask"],
        "pair_id": "moving_to_fixed",
    }
    with pytest.raises(InputError, match=r"^mask given, but no fixed and no moving;"):
        given_pairs("", "", "", "", "nowhere", "nowhere", mask=more["mask"])


def test_phases_come_with_their_images(files: dict[str, str]) -> None:
    (pair,) = given_pairs(
        files["fixed"], files["fixed"], "", "", "nowhere", "nowhere", fixed_phase="0%", moving_phase="50%"
    )
    assert (pair["fixed_phase"], pair["moving_phase"]) == ("0%", "50%")
    assert pair["pair_id"] == "fixed_50%_to_fixed_0%"
    with pytest.raises(InputError, match=r"^fixed_phase given, but no fixed and no moving;"):
        given_pairs("", "", "", "", "nowhere", "nowhere", fixed_phase="3")


def test_images_may_be_folders(files: dict[str, str], tmp_path: Path) -> None:
    for name in ("ct.1", "ct.2"):
        (tmp_path / name).mkdir()
    folders = {"fixed": str(tmp_path / "ct.1"), "moving": str(tmp_path / "ct.2")}
    (pair,) = given({**files, **folders}, "fixed", "moving")
    assert pair == {**folders, "pair_id": "ct.2_to_ct.1"}


def test_a_list_of_pairs(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(
        "fixed,moving,pair_id\nfixed.nii.gz,moving.nii.gz,a\nmoving.nii.gz,fixed.nii.gz,b\n"
    )
    pairs = given_pairs("", "", "", "", "nowhere", "nowhere", pairs=str(tmp_path / "pairs.csv"))
    assert pairs == [
        {"fixed": files["fixed"], "moving": files["moving"], "pair_id": "a"},
        {"fixed": files["moving"], "moving": files["fixed"], "pair_id": "b"},
    ]
    with pytest.raises(InputError, match=r"^pairs and fixed and moving given; give either"):
        given_pairs(files["fixed"], files["moving"], "", "", "nowhere", "nowhere", pairs=str(tmp_path / "pairs.csv"))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("case.1.nii.gz", "case.1"),
        ("case.nii", "case"),
        ("CASE.NII.GZ", "CASE"),
        ("case.nrrd", "case"),
        ("case.mha", "case"),
        ("case.png", "case"),
        ("case.dcm", "case"),
        ("case.other", "case"),
        ("case", "case"),
    ],
)
def test_the_name_of_a_pair_has_no_suffixes(files: dict[str, str], tmp_path: Path, name: str, stem: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    (pair,) = given({**files, "moving": str(tmp_path / name)}, "fixed", "moving")
    assert pair["pair_id"] == f"{stem}_to_fixed"


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        (("fixed",), "no moving;"),
        (("moving",), "no fixed;"),
        (("moving", "moving_label"), "no fixed;"),
        (("fixed_label",), "no fixed and no moving;"),
    ],
)
def test_half_a_pair_is_refused(files: dict[str, str], keys: tuple[str, ...], missing: str) -> None:
    with pytest.raises(InputError, match=missing):
        given(files, *keys)


def test_without_files_it_is_the_first_validation_pair(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").write_bytes(b"x")
    pairs = [{"fixed": "c.nii.gz", "moving": "b.nii.gz"}, {"fixed": "b.nii.gz", "moving": "c.nii.gz"}]
    content = {"tensorImageSize": {"0": "3D"}, "training": ["a.nii.gz"], "registration_val": pairs}
    (tmp_path / "Toy_dataset.json").write_text(json.dumps(content), encoding="utf-8")

    (pair,) = given_pairs("", "", "", "", tmp_path, "elsewhere")

    assert pair == {"fixed": str(tmp_path / "c.nii.gz"), "moving": str(tmp_path / "b.nii.gz"), "pair_id": "b_to_c"}
    found = given_pairs("", "", "", "", tmp_path, "elsewhere", max_pairs=0)
    assert [pair["pair_id"] for pair in found] == ["b_to_c", "c_to_b"]


def test_without_data_it_is_the_chosen_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: str | Path) -> Path:
        Path(folder).mkdir()
        for name in "ab":
            (Path(folder) / f"{name}.nii.gz").write_bytes(b"x")
        pairs = [{"fixed": "b.nii.gz", "moving": "a.nii.gz"}]
        content = {"tensorImageSize": {"0": "2D"}, "training": ["a.nii.gz"], "registration_val": pairs}
        (Path(folder) / "Toy_dataset.json").write_text(json.dumps(content), encoding="utf-8")
        return Path(folder)

    monkeypatch.setattr("monai_regplugins.phantoms.cine_lung.make_cine_lung", make)
    embedded = tmp_path / "data"
    (pair,) = given_pairs("", "", "", "", embedded, embedded, phantom="cine_lung")
    assert pair["pair_id"] == "a_to_b"

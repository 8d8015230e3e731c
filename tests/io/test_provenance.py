from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import monai_regplugins
from monai_regplugins.io.provenance import Provenance, digest_of, identity_of


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Any]:
    files = {"moving": tmp_path / "a.nii.gz", "fixed": tmp_path / "b.nii.gz"}
    for path in files.values():
        path.write_bytes(b"image")
    return {**{key: str(path) for key, path in files.items()}, "pair_id": "a_to_b"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def test_it_tells_files_weights_parameters_and_versions(pair: dict[str, Any], weights: Path) -> None:
    reported = json.loads(json.dumps(Provenance({"initial_alignment": "none"}, weights).describe(pair)))
    assert reported["inputs"]["moving"]["file"] == str(Path(pair["moving"]).resolve())
    assert reported["inputs"]["moving"]["bytes"] == 5
    assert reported["inputs"]["pair_id"] == "a_to_b"
    assert reported["program"] == "monai_regplugins"
    assert reported["weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest() == digest_of(weights)
    assert reported["parameters"] == {"initial_alignment": "none"}
    assert reported["versions"]["torch"] == version("torch")
    assert reported["versions"]["monai-regplugins"] == monai_regplugins.__version__


def test_the_same_causes_have_the_same_fingerprint(pair: dict[str, Any], weights: Path) -> None:
    first, second = (Provenance({"steps": 3, "size": [2, 2]}, weights).describe(pair) for _ in range(2))
    assert first["fingerprint"] == second["fingerprint"]


@pytest.mark.parametrize("change", ["content", "time", "weights", "parameters", "name"])
def test_any_other_cause_has_another(change: str, pair: dict[str, Any], weights: Path) -> None:
    before = Provenance({"steps": 3}, weights).describe(pair)["fingerprint"]
    if change == "content":
        Path(pair["fixed"]).write_bytes(b"another image")
    elif change == "time":
        os.utime(pair["fixed"], (1, 1))
    elif change == "weights":
        weights.write_bytes(b"further weights")
    elif change == "name":
        pair["pair_id"] = "b_to_a"
    after = Provenance({"steps": 4 if change == "parameters" else 3}, weights).describe(pair)["fingerprint"]
    assert before != after


@pytest.mark.parametrize(
    ("value", "kind"), [("{}", str), ("inverse:{}", str), ("['fsl:{}']", str), ("{}", Path), ("inverse:{}", Path)]
)
def test_the_content_of_a_file_that_a_setting_names_counts(
    value: str, kind: Callable[[str], Any], pair: dict[str, Any], tmp_path: Path
) -> None:
    file, found = tmp_path / "initial#1.tfm", []
    for content in (b"one", b"two", b"one"):
        file.write_bytes(content)
        found.append(Provenance({"initial_transform": kind(value.format(file))}).describe(pair))
    assert found[0]["files"] == {str(file): hashlib.sha256(b"one").hexdigest()}
    assert found[0]["fingerprint"] == found[2]["fingerprint"] != found[1]["fingerprint"]


def test_settings_are_resolved_and_components_kept(weights: Path) -> None:
    config = {
        "size": [2, 3],
        "refine_size": "@size",
        "text": "@nothing",
        "loss": {"_target_": "Loss", "weight": 2},
        "computed": "$1 + 1",
        "output_dir": "out",
        "device": "cpu",
        "_meta_": {},
    }
    record = Provenance(config).describe({})
    assert record["parameters"] == {"size": [2, 3], "refine_size": [2, 3], "text": "@nothing"}
    assert record["components"] == {"loss": {"_target_": "Loss", "weight": 2}, "computed": "$1 + 1"}
    nested = {**config, "loss": {"_target_": "Loss", "weight": 3}}
    assert Provenance(nested).describe({})["fingerprint"] != record["fingerprint"]
    elsewhere = {**config, "output_dir": "elsewhere", "device": "cuda"}
    assert Provenance(elsewhere).describe({})["fingerprint"] == record["fingerprint"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.mhd", "NDims = 3\nElementDataFile = a.raw\n"),
        ("a.mhd", "NDims = 3\nElementDataFile = LIST\nb.raw\na.raw\n"),
        ("a.nhdr", "NRRD0004\ndata file: a.raw\n\n"),
        ("a.nrrd", "NRRD0004\ndatafile:a.raw\n\n"),
    ],
)
def test_voxels_in_another_file_count(name: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(line)
    for voxels in ("a.raw", "b.raw"):
        (tmp_path / voxels).write_bytes(b"voxels")
    (tmp_path / "other.raw").write_bytes(b"voxels")
    before = identity_of(tmp_path / name)
    os.utime(tmp_path / "other.raw", (1, 1))
    assert identity_of(tmp_path / name) == before
    os.utime(tmp_path / "a.raw", (1, 1))
    assert identity_of(tmp_path / name) != before


@pytest.mark.parametrize("name", ["points.fcsv", "points.mrk.json", "points.pts", "points.csv.gz", "points"])
def test_a_file_of_points_stands_for_itself_alone(name: str, pair: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text("1,2,3")
    points = {"fixed_keypoints": str(tmp_path / name), "moving_landmarks": str(tmp_path / name)}
    before = Provenance().describe(pair | points)
    assert "files" not in before["inputs"]["fixed_keypoints"]
    (tmp_path / "metrics.csv").write_text("of the results, beside the points")
    assert Provenance().describe(pair | points)["fingerprint"] == before["fingerprint"]
    (tmp_path / name).write_text("1,2,4.5")
    assert Provenance().describe(pair | points)["fingerprint"] != before["fingerprint"]


def test_a_slice_stands_for_its_series_and_hidden_files_for_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"IM{number}").write_bytes(b"slice")
    before = identity_of(tmp_path / "IM1")
    for name in (".DS_Store", "._IM1", "Thumbs.db", "DICOMDIR"):
        (tmp_path / name).write_bytes(b"of the file browser")
    assert identity_of(tmp_path / "IM1") == before
    (tmp_path / "IM2").write_bytes(b"another slice")
    assert identity_of(tmp_path / "IM1") != before


def test_swapped_slices_are_another_folder(tmp_path: Path) -> None:
    for name, content in (("1.dcm", b"first"), ("2.dcm", b"secon")):
        (tmp_path / name).write_bytes(content)
    os.utime(tmp_path / "1.dcm", (1, 1))
    os.utime(tmp_path / "2.dcm", (2, 2))
    before = identity_of(tmp_path)
    (tmp_path / "1.dcm").rename(tmp_path / "3.dcm")
    (tmp_path / "2.dcm").rename(tmp_path / "1.dcm")
    (tmp_path / "3.dcm").rename(tmp_path / "2.dcm")
    after = identity_of(tmp_path)
    assert (after["bytes"], after["changed"]) == (before["bytes"], before["changed"])
    assert after != before


def test_arrays_are_known_by_values_type_and_place() -> None:
    image = np.arange(8.0).reshape(2, 2, 2)
    places = [torch.eye(4).double(), 2 * torch.eye(4).double()]
    images: list[Any] = [image, image + 1, image.astype(np.float32), image.reshape(2, 4)]
    images += [MetaTensor(torch.from_numpy(image), affine=place) for place in places]
    digests = [repr(identity_of(one)) for one in images]
    assert len(set(digests)) == len(images)
    assert identity_of(image) == identity_of(np.flip(np.flip(image).copy()))
    assert json.loads(json.dumps(identity_of(images[-1]))) == identity_of(images[-1])


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"slice")
    before = Provenance().describe({"fixed": str(series)})
    (series / "2.dcm").write_bytes(b"slice")
    after = Provenance().describe({"fixed": str(series)})
    assert [reported["inputs"]["fixed"]["bytes"] for reported in (before, after)] == [5, 10]
    assert before["fingerprint"] != after["fingerprint"]
    assert before["weights"] == {"file": "", "sha256": ""}

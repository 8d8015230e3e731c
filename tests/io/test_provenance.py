from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import monai_regplugins
from monai_regplugins.io.provenance import Provenance, digest_of


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
    told = json.loads(json.dumps(Provenance({"prealign": "none"}, weights).describe(pair)))
    assert told["inputs"]["moving"]["file"] == str(Path(pair["moving"]).resolve())
    assert told["inputs"]["moving"]["bytes"] == 5
    assert told["inputs"]["pair_id"] == "a_to_b"
    assert told["weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest() == digest_of(weights)
    assert told["parameters"] == {"prealign": "none"}
    assert told["versions"]["torch"] == version("torch")
    assert told["versions"]["monai-regplugins"] == monai_regplugins.__version__


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


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"slice")
    before = Provenance().describe({"fixed": str(series)})
    (series / "2.dcm").write_bytes(b"slice")
    after = Provenance().describe({"fixed": str(series)})
    assert [told["inputs"]["fixed"]["bytes"] for told in (before, after)] == [5, 10]
    assert before["fingerprint"] != after["fingerprint"]
    assert before["weights"] == {"file": "", "sha256": ""}

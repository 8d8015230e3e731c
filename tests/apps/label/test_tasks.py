"""Batches and training in a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from label_server import LabelServer, fill_studies

pytestmark = pytest.mark.label

TINY = {"max_epochs": 1, "pairs_per_epoch": 2, "batch_size": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def server(
    label_python: str, bundle_dir: Path, abdomen: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """A server of its own, since these tests change what it knows."""
    folder = tmp_path_factory.mktemp("tasks")
    studies = fill_studies(folder / "studies", abdomen)
    server = LabelServer(label_python, folder / "app", studies, bundle_dir, "ran")
    yield server
    server.stop()


def test_bad_tasks(server: LabelServer) -> None:
    for path in ("/batch/infer/nothing?images=unlabeled", "/train/nothing"):
        status, answer = server.post(path, {"moving_image": "atlas"})
        assert (status, "there is no model 'nothing'" in answer["detail"]) == (404, True)
    status, answer = server.post(
        "/batch/infer/ran_propagate?images=unlabeled&run_sync=true", {"moving_image": "nobody"}
    )
    assert status == 400
    assert "there is no image 'nobody'" in answer["detail"]
    assert not list(server.studies.glob("labels/original/*"))


def test_batch(server: LabelServer) -> None:
    request = {"moving_image": "atlas", "initial_alignment": "none"}
    status, task = server.post("/batch/infer/ran_propagate?images=unlabeled", request)
    assert status == 200, task
    done = server.wait_for("/batch/infer")
    assert done["status"] == "DONE", done
    found = sorted(path.name for path in server.studies.glob("labels/original/*"))
    assert found == [f"day{number}.nii.gz" for number in range(1, 5)]
    _, body = server.infer("ran_propagate", "day3", request, "image")
    copy = server.app.parent / "day3.nii.gz"
    copy.write_bytes(body)
    stored = server.studies / "labels" / "original" / "day3.nii.gz"
    assert np.array_equal(np.asarray(nib.load(copy).dataobj), np.asarray(nib.load(stored).dataobj))
    config = server.get("/info/")["models"]["ran_propagate"]["config"]
    assert config["moving_image"] == ["atlas", "day1", "day2", "day3", "day4"]


def test_training_and_restart(server: LabelServer, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def reported(server: LabelServer) -> dict[str, object]:
        status, body = server.infer("ran_image", "day1", {"moving_image": "day2"})
        assert status == 200, body
        return dict(json.loads(body)["registration"])

    weights, before = (bundle_dir / "ran" / "models" / "model.pt").read_bytes(), reported(server)
    assert not before["trained_here"]
    status, task = server.post("/train/ran", TINY)
    assert status == 200, task
    done = server.wait_for("/train/")
    assert done["status"] == "DONE", done
    after = reported(server)  # without a restart
    is_better = any(path.name == "model.pt" for path in server.app.glob("model/ran/**/*.pt"))  # else it is not kept
    assert after["trained_here"] is is_better
    assert (after["weights_sha256"] != before["weights_sha256"]) is is_better
    assert (bundle_dir / "ran" / "models" / "model.pt").read_bytes() == weights
    server.stop()
    again = LabelServer(server.python, server.app, server.studies, bundle_dir, "ran")
    try:
        assert reported(again)["weights_sha256"] == after["weights_sha256"]
        found = again.get("/train/")  # of the server before
        assert (found["status"], found["id"], found["request"]["max_epochs"]) == ("DONE", "ran-1", 1)
    finally:
        again.stop()


def test_training_that_cannot_be(
    label_python: str, bundle_dir: Path, abdomen: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("few")
    studies = fill_studies(folder / "studies", abdomen)
    for name in ("day3", "day4"):
        (studies / f"{name}.nii.gz").unlink()
    server = LabelServer(label_python, folder / "app", studies, bundle_dir, "ran")
    try:
        server.post("/train/ran", TINY)
        done = server.wait_for("/train/")
        assert done["status"] == "ERROR"
        assert "holds 3 images, expected 4 or more" in " ".join(done["details"])
        assert not list(server.app.glob("model/ran/**/*.pt"))
    finally:
        server.stop()

"""The real server while it computes, and how it ends."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from label_server import LabelServer, fill_studies

from monai_regplugins.files.claims import claim, release
from monai_regplugins.phantoms import make_abdomen

pytestmark = pytest.mark.label

LONG = {"max_epochs": 10000, "pairs_per_epoch": 2, "batch_size": 1, "val_interval": 10000, "device": "cpu"}


def test_a_server_answers_while_it_computes_and_leaves_nothing_behind(
    label_python: str, bundle_dir: Path, tmp_path: Path
) -> None:
    abdomen = make_abdomen(
        tmp_path / "abdomen", num_training=3, num_validation=2, spatial_shape=(40, 32, 40), spacing=8.0
    )
    studies = fill_studies(tmp_path / "studies", abdomen)
    server = LabelServer(label_python, tmp_path / "app", studies, bundle_dir, "ran")
    try:
        answers_while_computing(server)
        refuses_a_second_training(server)
        processes = trains(server)
    finally:
        begun = time.monotonic()
        server.stop()
    assert time.monotonic() - begun < 30
    assert server.process.returncode == 0
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    left = [
        path
        for path in (tmp_path / "temporary").rglob("*")
        if path.name.startswith("monai_regplugins_") or ".nii" in path.name
    ]
    assert left == []  # what MONAI Label and torch leave there is a log's configuration and an empty cache


def answers_while_computing(server: LabelServer) -> None:
    """Information and an upload do not wait for a registration; another registration does, and is right."""
    slow = {"moving_image": "atlas", "initial_alignment": "none", "refine_steps": 1000}
    answers: list[object] = []
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(server.infer, "ran_propagate", "day1", slow)
        next_one = pool.submit(server.infer, "ran_propagate", "day2", {**slow, "refine_steps": 1})
        while not long.done():  # as many as fit: how long a registration takes is the computer's matter
            if len(answers) == 3:
                answers.append(server.upload("day5", server.studies / "day1.nii.gz")[0])
            else:
                answers.append(server.get("/info/")["name"])
        assert len(answers) > 6, answers
        assert answers.pop(3) == 200
        assert set(answers) == {"monai_regplugins"}
        assert [job.result()[0] for job in (long, next_one)] == [200, 200]


def refuses_a_second_training(server: LabelServer) -> None:
    """As long as another process has the folder."""
    folder = server.app / "model" / "ran"
    folder.mkdir(parents=True)
    path = folder / ".training.claim"
    descriptor = claim(path)
    assert descriptor is not None
    status, answer = server.post("/train/ran", LONG)
    release(path, descriptor)
    assert status == 409
    assert "'ran' is being trained since" in answer["detail"]
    assert not (folder / "runs").exists()


def trains(server: LabelServer) -> list[int]:
    """Start a training; its processes, when it is at work."""
    status, task = server.post("/train/ran", LONG)
    assert status == 200, task
    state = server.app / "model" / "ran" / "runs" / "1" / "state.json"
    deadline = time.monotonic() + 60
    while not state.is_file():
        assert time.monotonic() < deadline, server.get("/train/")
        time.sleep(0.2)
    assert json.loads(state.read_text())["status"] == "RUNNING"
    children = children_of(server.process.pid)
    assert children
    return children


def children_of(process: int) -> list[int]:
    """The processes that one has started, and those that they have."""
    found: list[int] = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, thread.read_text().split()):
            found += [child, *children_of(child)]
    return found

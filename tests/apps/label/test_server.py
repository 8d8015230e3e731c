"""The real server while it computes, and how it ends."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from containerfile import Containerfile
from label_server import LabelServer, fill_studies, form, free_port

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
    assert left_by(tmp_path / "temporary") == []


DAYS = ("day1", "day2", "day3", "day4")
QUICK = {"moving_image": "atlas", "initial_alignment": "none", "refine_steps": 0}
WRONG: list[tuple[str, str, dict[str, Any], int]] = [
    ("ran_propagate", "nobody", QUICK, 404),
    ("ran_propagate", "day1", {**QUICK, "moving_image": "day2"}, 400),
    ("ran_propagate", "day1", {**QUICK, "moving_image": "../atlas"}, 400),
    ("ran_propagate", "day1", {**QUICK, "refine_step": 3}, 400),
    ("ran_image", "day1", {**QUICK, "moving_image": "day1"}, 400),
    ("ran_transform", "day1", {**QUICK, "format": "dicom"}, 400),
    ("nothing", "day1", QUICK, 404),
]
EACH = 25  # of eight clients


def test_two_hundred_requests_of_eight_clients(
    label_python: str, bundle_dir: Path, abdomen: Path, tmp_path: Path
) -> None:
    """A quarter is wrong, some hang up; every right one is answered as it is alone.

    How much processor time the propagated labels took, ``-s`` shows: no limit holds on every machine.
    """
    studies = fill_studies(tmp_path / "studies", abdomen)
    server = LabelServer(label_python, tmp_path / "app", studies, bundle_dir, "ran")
    try:
        alone = {one: asked(server, *one) for kind in ("propagate", "image", "transform") for one in each_day(kind)}
        with ThreadPoolExecutor(8) as clients:
            work = [clients.submit(client, server, number, alone) for number in range(8)]
            seconds = [one for job in work for one in job.result()]
        assert len(seconds) == 8 * EACH * 9 // 25
        print(f"\n{len(seconds)} answers of ran_propagate: median {statistics.median(seconds):.2f} s of the processor")
        assert server.get("/info/")["name"] == "monai_regplugins"
    finally:
        processes = children_of(server.process.pid)
        server.stop()
    assert server.process.returncode == 0
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    assert left_by(tmp_path / "temporary") == []
    images = {path.name for path in studies.glob("*.nii.gz")}
    assert images == {f"{name}.nii.gz" for name in ("atlas", *DAYS, *(f"new{number}" for number in range(8)))}
    assert {path.name for path in (studies / "labels").rglob("*.nii.gz")} == {"atlas.nii.gz"}


def test_the_container_s_command_serves_a_user_without_a_name(
    label_python: str, repository: Path, abdomen: Path, tmp_path: Path
) -> None:
    studies = fill_studies(tmp_path / "studies", abdomen)
    for name in ("root", "app"):
        (tmp_path / name).mkdir()
    made = Containerfile(repository / "containers" / "label.Containerfile", Path(label_python).parents[1])
    port = free_port()
    process = made.start(
        tmp_path / "root",
        {"/studies": studies, "/app": tmp_path / "app"},
        ("--port 8000", f"--host 127.0.0.1 --port {port}"),
        MODELS="ran",
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    server = LabelServer.at(port, process, tmp_path / "app", studies, made.log(tmp_path / "root"))
    try:
        status, body = server.infer("ran_propagate", "day1", QUICK)
        assert status == 200, body
        assert json.loads(body)["registration"]["weights_sha256"]
    finally:
        server.stop()
    assert process.returncode == 0, made.log(tmp_path / "root").read_text()[-3000:]
    assert (tmp_path / "app" / "main.py").is_file()


def each_day(kind: str) -> list[tuple[str, str]]:
    return [(kind, day) for day in DAYS]


def asked(server: LabelServer, kind: str, day: str) -> bytes:
    """What is answered about an image, unpacked, as the time of the packing is in it."""
    status, body = server.infer(f"ran_{kind}", day, QUICK, "image")
    assert status == 200, body
    return gzip.decompress(body)


def client(server: LabelServer, number: int, alone: dict[tuple[str, str], bytes]) -> list[float]:
    """Send requests one after the other; the processor seconds of the propagated labels."""
    seconds = []
    for turn in range(EACH):
        day = DAYS[(number + turn) % len(DAYS)]
        step = (number + turn) % EACH
        if step < 9:
            status, body = server.infer("ran_propagate", day, QUICK)
            assert status == 200, body
            seconds.append(json.loads(body)["registration"]["seconds_of_processor"])
        elif step < 15:
            kind = ("propagate", "image", "transform")[step % 3]
            assert asked(server, kind, day) == alone[kind, day]
        elif step < 16:
            assert server.upload(f"new{number}", server.studies / "day1.nii.gz")[0] == 200
        elif step < 17:
            assert server.get("/info/")["version"]
        elif step < 18:
            server.hang_up(f"/infer/ran_propagate?image={day}", *form(QUICK, {}))
        elif step < 19:
            status, body = server.upload("atlas", server.studies / "day1.nii.gz")
            assert status == 409, body
        else:
            model, image, params, wanted = WRONG[(number + turn) % len(WRONG)]
            status, body = server.infer(model, image, params)
            assert (status, len(json.loads(body)["detail"].splitlines())) == (wanted, 1), body
    return seconds


def left_by(temporary: Path) -> list[Path]:
    """Files of patients, and folders of the app; what MONAI Label and torch leave is a log's settings and a cache."""
    found = temporary.rglob("*")
    return [path for path in found if path.name.startswith("monai_regplugins_") or ".nii" in path.name]


def answers_while_computing(server: LabelServer) -> None:
    """Information and an upload do not wait for a registration; another registration does, and is right."""
    slow = {"moving_image": "atlas", "initial_alignment": "none", "refine_steps": 1000}
    answers: list[object] = []
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(server.infer, "ran_propagate", "day1", slow)
        next_one = pool.submit(server.infer, "ran_propagate", "day2", {**slow, "refine_steps": 1})
        while not long.done():  # as many as fit: how long a registration takes is the computer's matter
            if len(answers) == 1:
                answers.append(server.upload("day5", server.studies / "day1.nii.gz")[0])
            else:
                answers.append(server.get("/info/")["name"])
        assert len(answers) > 2, "a server that waits gives the first answer when the registration has ended"
        assert answers.pop(1) == 200
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

"""The app in a real server on this computer, driven by MONAI Label's client and by plain HTTP."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import write_volume
from label_server import LabelServer, form

pytestmark = pytest.mark.label


def array(path: str | Path) -> np.ndarray[Any, Any]:
    """Values of an image file."""
    return np.asarray(nib.load(path).dataobj)


def files_of(*folders: Path) -> dict[str, int]:
    """All files in folders, with the times of their changes."""
    return {str(file): file.stat().st_mtime_ns for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="session")
def client_run(
    label_server: LabelServer, label_python: str, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What MONAI Label's client got."""
    folder = tmp_path_factory.mktemp("client")
    for name in ("day1", "atlas"):
        shutil.copy(label_server.studies / f"{name}.nii.gz", folder)
    shutil.copy(label_server.studies / "labels" / "final" / "atlas.nii.gz", folder / "atlas_label.nii.gz")
    script = repository / "tests" / "helpers" / "label_client.py"
    command = [label_python, "-W", "ignore", str(script), label_server.url, str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return {**json.loads(run.stdout), "folder": str(folder)}


@pytest.fixture(scope="session")
def inference(
    label_server: LabelServer, label_python: str, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the inference config makes of the same files, in the same environment."""
    output = tmp_path_factory.mktemp("inference")
    studies, label = label_server.studies, label_server.studies / "labels" / "final" / "atlas.nii.gz"
    settings = {"fixed": studies / "day1.nii.gz", "moving": studies / "atlas.nii.gz", "moving_label": label}
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [label_python, "-m", "monai.bundle", "run", "inference", "--output_dir", str(output), *flags]
    command += ["--initial_alignment", "auto"]
    config = bundle_dir / "ran" / "configs" / "inference.json"
    run = subprocess.run(
        [*command, "--config_file", str(config)], capture_output=True, text=True, cwd=output, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    return folder


def test_info(client_run: dict[str, Any]) -> None:
    models = client_run["info"]["models"]
    assert set(models) >= {"ran_propagate", "ran_image", "ran_transform", "r2n2_propagate", "r2n2_series"}
    flagship = models["ran_propagate"]
    assert flagship["type"] == "segmentation"  # what 3D Slicer and OHIF list
    assert flagship["dimension"] == 3
    assert flagship["labels"] == {"label_3": 1, "label_7": 2}
    assert client_run["info"]["labels"] == ["label_3", "label_7"]
    assert flagship["config"]["moving_image"] == ["atlas"]
    assert models["ran_image"]["type"] == models["ran_transform"]["type"] == "others"  # which viewers do not list
    assert models["r2n2_propagate"]["dimension"] == 2
    for model in models.values():
        for value in model["config"].values():  # 3D Slicer makes drop-downs of texts, and takes the first
            assert not isinstance(value, list) or (value and all(isinstance(item, str) for item in value))
    assert set(client_run["info"]["trainers"]) == {"ran", "r2n2"}


def test_strategies(label_server: LabelServer, client_run: dict[str, Any]) -> None:
    assert list(label_server.get("/info/")["strategies"]) == ["first", "last", "random"]
    unlabelled = "cine", "day1", "day3", "day4", "day9", "huge"
    found = {name: label_server.post(f"/activelearning/{name}")[1]["id"] for name in ("first", "last", "random")}
    assert (found["first"], found["last"]) == (min(unlabelled), max(unlabelled))
    assert found["random"] in unlabelled
    status, answer = label_server.post("/activelearning/best")
    assert (status, answer["detail"]) == (404, "there is no strategy 'best'; there are first, last, random.")


def test_the_list_of_labelled_images_is_live(client_run: dict[str, Any]) -> None:
    after = client_run["info_after"]["models"]["ran_propagate"]
    assert after["config"]["moving_image"] == ["atlas", "day2", "day9"]
    # the values of known names stay; what was saved as 'liver' on value 3 is a label of its own
    assert after["labels"] == {"label_3": 1, "label_7": 2, "liver": 3}


def test_answers_equal_the_inference_config(client_run: dict[str, Any], inference: Path) -> None:
    expected = array(inference / "warped_label.nii.gz")
    propagated = client_run["propagate"]
    assert propagated["params"]["label_names"] == {"label_3": 1, "label_7": 2}
    assert np.array_equal(array(propagated["file"]), np.select([expected == 3, expected == 7], [1, 2]))
    # equal but for the order of sums: another numpy, another number of threads
    np.testing.assert_allclose(array(client_run["image"]["file"]), array(inference / "warped.nii.gz"), atol=0.01)
    field, reference = nib.load(client_run["transform"]["file"]), nib.load(inference / "displacement_itk.nii.gz")
    np.testing.assert_allclose(field.get_fdata(), reference.get_fdata(), atol=1e-3)
    assert field.header["intent_code"] == 1007
    reported = propagated["params"]["registration"]
    provenance = json.loads((inference / "provenance.json").read_text())
    assert reported["weights_sha256"] == provenance["weights"]["sha256"]
    assert reported["moving_image"] == "atlas"


def test_what_viewers_read(client_run: dict[str, Any]) -> None:
    slicer = client_run["slicer"]
    assert slicer["file"].endswith(".nrrd")
    image, plain = sitk.ReadImage(slicer["file"]), sitk.ReadImage(client_run["propagate"]["file"])
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(plain))
    assert image.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayFromImage(image))) <= set(range(3))
    names = slicer["params"]["label_names"]
    assert list(names.values()) == list(range(1, len(names) + 1))  # Slicer takes the k-th name for value k


def test_uploads_and_sessions(client_run: dict[str, Any], label_server: LabelServer) -> None:
    assert np.array_equal(array(client_run["uploads"]["file"]), array(client_run["image"]["file"]))
    for name in ("uploaded_label", "session", "uploaded"):
        assert np.array_equal(array(client_run[name]["file"]), array(client_run["propagate"]["file"]))
    assert client_run["upload"] == {"image": "day9"}
    assert str(label_server.studies) not in json.dumps(client_run["propagate"]["params"])


def test_provenance_is_stored(client_run: dict[str, Any]) -> None:
    labels = client_run["datastore"]["objects"]["day9"]["labels"]
    assert labels["original"]["info"]["model"] == "ran_propagate"
    reported = labels["original"]["info"]["params"]
    assert reported["label_names"] == {"label_3": 1, "label_7": 2}
    assert reported["registration"]["moving_image"] == "atlas"
    assert reported["registration"]["parameters"]["refine_steps"] == 30
    assert labels["transform"]["info"]["params"]["registration"]["fixed_image"] == "day9"
    kept = nib.load(Path(client_run["folder"], "kept_transform.nii.gz"))
    assert np.array_equal(kept.get_fdata(), nib.load(client_run["transform"]["file"]).get_fdata())


BAD = [
    ("ran_propagate", "nobody", {"moving_image": "atlas"}, 404, "there is no image 'nobody'"),
    ("ran_propagate", "day1", {"moving_image": "nobody"}, 404, "there is no image 'nobody'"),
    ("ran_propagate", "day1", {"moving_image": "day3"}, 400, "has no label"),
    ("r2n2_propagate", "day1", {"moving_image": "atlas"}, 400, "2D"),
    ("ran_segment", "day1", {"moving_image": "atlas"}, 404, "there is no model 'ran_segment'"),
    ("ran_propagate", "huge", {"moving_image": "atlas"}, 413, "this server takes 100000"),
    ("ran_propagate", "day1", {"moving_image": "huge"}, 413, "this server takes 100000"),
    ("ran_propagate", "PATH", {"moving_image": "atlas"}, 400, "not a path"),
    ("ran_propagate", "day1", {"moving_image": "PATH"}, 400, "not a path"),
    ("ran_propagate", "day1", {"moving_image": "atlas", "image": "PATH"}, 400, "not a path"),
    ("ran_propagate", "day1", {"moving_image": "atlas", "label": "PATH"}, 400, "label is a path"),
    (
        "ran_propagate",
        "day1",
        {"moving_image": "atlas", "session": {"name": "x", "image": "PATH"}, "image": "PATH"},
        400,
        "",
    ),
    ("ran_propagate", "day1", {"moving_image": "atlas", "save_label": True, "label_tag": "../x"}, 400, "not a path"),
    ("ran_propagate", "day1", {"moving_image": "atlas", "refine_step": 3}, 400, "there is no option 'refine_step'"),
    (
        "ran_propagate",
        "day1",
        {"moving_image": "atlas", "save_label": True, "save_transform": True, "result_extension": ".stl"},
        400,
        "result_extension is '.stl'",
    ),
    (
        "ran_propagate",
        "day1",
        {"moving_image": "atlas", "result_extension": ".dcm"},
        400,
        "the image is no DICOM series",
    ),
    ("r2n2_series", "atlas", {}, 400, "choose a model of 3D images"),
    ("ran_propagate", "", {"moving_image": "atlas"}, 500, ""),  # MONAI Label's own answer
]


@pytest.mark.parametrize(("model", "image", "params", "status", "message"), BAD)
def test_bad_requests(
    label_server: LabelServer,
    client_run: dict[str, Any],
    model: str,
    image: str,
    params: dict[str, Any],
    status: int,
    message: str,
) -> None:
    path = str(label_server.studies / "day1.nii.gz")
    named = json.loads(json.dumps(params).replace("PATH", path))
    watched = label_server.studies, label_server.app / "model", label_server.app.parent / "temporary"
    before = files_of(*watched)
    found, body = label_server.infer(model, image.replace("PATH", path), named)
    assert found == status
    if status < 500:
        detail = json.loads(body)["detail"]
        assert message in detail
        assert "\n" not in detail
        assert str(label_server.studies) not in detail.replace(path, "")
    assert files_of(*watched) == before
    assert label_server.get("/info/")["name"] == "monai_regplugins"


def test_bad_uploads(label_server: LabelServer, client_run: dict[str, Any], tmp_path: Path) -> None:
    broken, flat = tmp_path / "broken.nii.gz", tmp_path / "flat.nii.gz"
    broken.write_bytes(b"no image")
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 16)).astype(np.float32), np.eye(4)), flat)
    watched = label_server.studies, label_server.app.parent / "temporary"
    before = files_of(*watched)
    for file in (broken, flat):
        status, body = label_server.infer("ran_propagate", "", {"moving_image": "atlas"}, files={"file": file})
        assert status == 400, body
        assert "upload" in json.loads(body)["detail"]
    for path in (
        "/datastore/?image=../evil",
        "/datastore/label?image=day1&tag=../evil",
        "/datastore/label?image=nobody",
    ):
        field = "label" if "label?" in path else "file"
        limit = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="x.nii.gz"\r\n\r\nx\r\n--b--\r\n'
        status, body = label_server.call("PUT", path, limit.encode(), "multipart/form-data; boundary=b")
        assert status in (400, 404), body
    assert files_of(*watched) == before


def test_uploads_that_would_lose_or_be_lost(
    label_server: LabelServer, client_run: dict[str, Any], tmp_path: Path
) -> None:
    bare = tmp_path / "scan"
    shutil.copy(label_server.studies / "day1.nii.gz", bare)
    watched = label_server.studies, label_server.app.parent / "temporary"
    before = files_of(*watched)
    status, body = label_server.upload("atlas", label_server.studies / "day1.nii.gz")
    assert status == 409
    assert "image 'atlas' is there and has labels (final)" in json.loads(body)["detail"]
    for status, body in (
        label_server.upload("new", bare),
        label_server.infer("ran_propagate", "", {"moving_image": "atlas"}, files={"file": bare}),
    ):
        assert status == 400
        assert "without suffix" in json.loads(body)["detail"]
    assert files_of(*watched) == before


def test_a_series_in_a_session_is_answered_by_a_segmentation(label_server: LabelServer, tmp_path: Path) -> None:
    image = nib.load(label_server.studies / "day1.nii.gz")
    stored = np.round(image.get_fdata()).astype(np.int16)
    files = write_volume(tmp_path / "series", stored, image.affine, PatientID="P 17", StudyDate="20240611")
    status, body = label_server.call("PUT", "/session/", *form({}, [("files", file) for file in files]))
    assert status == 200, body
    path = f"/infer/ran_propagate?session_id={json.loads(body)['session_id']}&output=image"
    request = {"moving_image": "atlas", "result_extension": ".dcm"}
    status, body = label_server.call("POST", path, *form(request, {}))
    assert status == 200, body
    written = pydicom.dcmread(BytesIO(body))
    assert (written.Modality, written.PatientID, written.StudyDate) == ("SEG", "P 17", "20240611")
    assert [one.SegmentLabel for one in written.SegmentSequence] == ["label_3", "label_7"]
    references = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(references) == len(files) == image.shape[2]


def test_concurrent_requests(label_server: LabelServer, client_run: dict[str, Any]) -> None:
    def ask(number: int) -> tuple[int, bytes]:
        request = {"moving_image": "atlas", "initial_alignment": "none"}
        return label_server.infer("ran_propagate", f"day{number % 2 + 1}", request, "image")

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(6)))
    assert [status for status, _ in answers] == [200] * 6
    assert answers[0][1] != answers[1][1]


def test_a_client_that_disconnects(label_server: LabelServer, client_run: dict[str, Any]) -> None:
    before = set(files_of(label_server.app.parent / "temporary"))
    connection = http.client.HTTPConnection("127.0.0.1", label_server.port)
    connection.request(
        "POST",
        "/infer/ran_propagate?image=day1",
        "params=%7B%22moving_image%22%3A%22atlas%22%7D",
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    connection.close()
    status, _ = label_server.infer("ran_propagate", "day1", {"moving_image": "atlas"}, "image")
    assert status == 200
    assert label_server.get("/info/")["name"] == "monai_regplugins"
    deadline = time.monotonic() + 60  # the server may come to the lost request last
    while extra := set(files_of(label_server.app.parent / "temporary")) - before:
        assert time.monotonic() < deadline, extra
        time.sleep(0.5)


HEADERS = {
    "x.mha": "ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\nElementDataFile = ",
    "x.nrrd": "NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\ndata file: ",
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("voxels", ["day1.nii.gz", "/etc/hostname", "missing"])
def test_uploads_are_whole(
    label_server: LabelServer, client_run: dict[str, Any], tmp_path: Path, name: str, voxels: str
) -> None:
    """Nothing that a client sends makes the server open another file, be it there or not."""
    (tmp_path / name).write_text(f"{HEADERS[name]}{voxels}\n")
    before = files_of(watched := label_server.studies, label_server.app.parent / "temporary")
    status, body = label_server.infer("ran_propagate", "", {"moving_image": "atlas"}, files={"file": tmp_path / name})
    answers = [(status, body)]
    for path, field in (("/datastore/?image=new", "file"), ("/datastore/label?image=day1&tag=final", "label")):
        head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        content = f"{head}{HEADERS[name]}{voxels}\n\r\n--b--\r\n".encode()
        answers.append(label_server.call("PUT", path, content, "multipart/form-data; boundary=b"))
    for status, body in answers:
        assert status == 400, body
        assert "is a header whose voxels lie in another file" in json.loads(body)["detail"]
    assert files_of(watched, label_server.app.parent / "temporary") == before

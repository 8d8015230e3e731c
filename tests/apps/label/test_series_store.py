"""The app on a real DICOMweb server: images come from there, segmentations and registrations go there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_pairs import (
    LPS,
    MARGIN,
    SeriesPair,
    check_segments,
    depth,
    field_of,
    found_by_dciodvfy,
    frames_of,
    make_series_pair,
    make_shift_bundle,
    world,
)
from dicom_series import SERIES
from label_server import LabelServer
from orthanc_server import OrthancServer

pytestmark = pytest.mark.label

FIXED, MOVING, OTHER = f"{SERIES}.1", f"{SERIES}.2", f"{SERIES}.3"
NAMES = {"Liver": 1, "Spleen": 2}
WRITE_SEGMENTATION = """
import sys
from pathlib import Path
import numpy
from monai_regplugins.apps.deploy.segmentation import write_segmentation
from monai_regplugins.readers.images import read_scan
folder = Path(sys.argv[1])
series = folder / "study2" / "moving"
label = numpy.load(folder / "moving_label.npy")
affine = read_scan(series, "image").affine.numpy()
write_segmentation(label, affine, series, folder / "label.dcm", names={1: "Liver", 2: "Spleen"})
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SeriesPair:
    """Two series of a patient."""
    return make_series_pair(tmp_path_factory.mktemp("series") / "pair", "axial", "oblong", PatientSex="F")


@pytest.fixture(scope="module")
def orthanc(pair: SeriesPair, label_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """A server with the two series, a segmentation of the moving one, and the scan of somebody else."""
    made = subprocess.run([label_python, "-c", WRITE_SEGMENTATION, pair.folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    other = {"PatientID": "P 18", "PatientName": "Roe^Richard", "StudyInstanceUID": f"{OTHER}.1"}
    make_series_pair(pair.folder.parent / "other", "axial", "oblong", fixed_SeriesInstanceUID=OTHER, **other)
    orthanc = OrthancServer(tmp_path_factory.mktemp("orthanc") / "files")
    orthanc.put([*pair.folder.rglob("*.dcm"), *(pair.folder.parent / "other" / "study1").rglob("*.dcm")])
    yield orthanc
    orthanc.stop()


@pytest.fixture(scope="module")
def server(
    orthanc: OrthancServer, label_python: str, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """MONAI Label with that server as its studies, and a bundle of known displacement."""
    folder = tmp_path_factory.mktemp("dicomweb")
    make_shift_bundle(repository / "bundles" / "ran", folder / "bundles")
    cache = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
    server = LabelServer(label_python, folder / "app", orthanc.dicomweb, folder / "bundles", "ran", **cache)
    yield server
    server.stop()


def ask(server: LabelServer, kind: str, output: str = "image", fixed: str = FIXED, **params: Any) -> bytes:
    """An answer of the app."""
    wanted = {"moving_image": MOVING, "initial_alignment": "none", **params}
    status, body = server.infer(f"ran_{kind}", fixed, wanted, output)
    assert status == 200, body
    return body


def saved(body: bytes, path: Path) -> Path:
    path.write_bytes(body)
    return path


def test_images_and_labels_are_those_of_the_server(server: LabelServer) -> None:
    model = server.get("/info/")["models"]["ran_propagate"]
    assert model["config"]["moving_image"] == [MOVING]
    assert model["labels"] == NAMES
    assert sorted(server.get("/info/")["models"]["ran_image"]["config"]["moving_image"]) == [FIXED, MOVING, OTHER]
    assert server.post("/activelearning/first")[1]["id"] == FIXED


def test_labels_on_the_image_that_viewers_get(server: LabelServer, pair: SeriesPair, tmp_path: Path) -> None:
    label = nib.load(saved(ask(server, "propagate"), tmp_path / "label.nii.gz"))
    image = nib.load(saved(server.call("GET", f"/datastore/image?image={FIXED}")[1], tmp_path / "image.nii.gz"))
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-4)
    points = world(LPS @ label.affine, label.shape)
    for ball in NAMES.values():
        inside, found = depth(points, ball), np.asarray(label.dataobj) == ball
        assert found[inside > MARGIN].all()
        assert not found[inside < -MARGIN].any()


@pytest.mark.parametrize("wanted", [{"result_extension": ".dcm"}, {"output": "dicom_seg"}])
def test_a_segmentation(server: LabelServer, pair: SeriesPair, tmp_path: Path, wanted: dict[str, str]) -> None:
    path = saved(ask(server, "propagate", **wanted), tmp_path / "seg.dcm")
    assert found_by_dciodvfy(path) == []
    written = pydicom.dcmread(path)
    fixed = pydicom.dcmread(next(pair.folder.glob("study1/fixed/*.dcm")))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert written[keyword].value == fixed[keyword].value
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == FIXED
    assert {one.SegmentLabel: one.SegmentNumber for one in written.SegmentSequence} == NAMES
    assert written.CommentsOnThePerformedProcedureStep.startswith("Verdict on the registration: ")
    check_segments(frames_of(written), pair)


def test_a_registration_goes_to_the_server(
    server: LabelServer, orthanc: OrthancServer, pair: SeriesPair, tmp_path: Path
) -> None:
    path = saved(ask(server, "transform", format="dicom", save_label=True), tmp_path / "reg.dcm")
    assert found_by_dciodvfy(path) == []
    (stored,) = orthanc.find(Modality="REG")
    assert stored == pydicom.dcmread(path)
    assert (stored.PatientID, stored.StudyInstanceUID) == ("P 17", f"{FIXED}.1")
    assert stored.DeformableRegistrationSequence[0].SourceFrameOfReferenceUID == f"{MOVING}.2"
    point = pair.fixed[:3, :3] @ (4.2, 7.0, 9.9) + pair.fixed[:3, 3]
    np.testing.assert_allclose(np.subtract(field_of(stored).TransformPoint(point), point), pair.shift, atol=1e-4)


def test_requests_that_are_refused(server: LabelServer, orthanc: OrthancServer) -> None:
    before = len(orthanc.find())
    for image, status, words in (
        (OTHER, 400, "are of two patients by their PatientID and PatientName"),
        ("1.2.3", 404, "there is no image '1.2.3'"),
        ("../../" + FIXED, 400, "not a path"),
    ):
        found, body = server.infer("ran_propagate", image, {"moving_image": MOVING, "result_extension": ".dcm"})
        assert (found, words in json.loads(body)["detail"]) == (status, True), body
    assert len(orthanc.find()) == before
    reported = json.loads(ask(server, "propagate", "json", OTHER, other_patient=True))
    assert reported["registration"]["fixed_image"] == OTHER


def test_a_label_that_a_person_has_seen_is_a_segmentation_on_the_server(
    server: LabelServer, orthanc: OrthancServer, pair: SeriesPair, tmp_path: Path
) -> None:
    label = saved(ask(server, "propagate"), tmp_path / "label.nii.gz")
    seen = [{"idx": number, "name": f"{name} seen"} for name, number in NAMES.items()]
    status, body = server.save_label(FIXED, label, "final", {"label_info": seen})
    assert status == 200, body
    (stored,) = (one for one in orthanc.find(Modality="SEG") if one.StudyInstanceUID == f"{FIXED}.1")
    assert [one.SegmentLabel for one in stored.SegmentSequence] == ["Liver seen", "Spleen seen"]
    check_segments(frames_of(stored), pair)
    model = server.get("/info/")["models"]["ran_propagate"]
    assert sorted(model["config"]["moving_image"]) == [FIXED, MOVING]
    assert set(model["labels"]) == {*NAMES, "Liver seen", "Spleen seen"}
    status, body = server.call("GET", f"/datastore/label?label={FIXED}&tag=final")
    assert status == 200, body
    back = sitk.GetArrayFromImage(sitk.ReadImage(str(saved(body, tmp_path / "back.nrrd"))))
    np.testing.assert_array_equal(back, sitk.GetArrayFromImage(sitk.ReadImage(str(label))))


def test_a_server_that_is_gone(server: LabelServer, orthanc: OrthancServer, tmp_path: Path) -> None:
    label = saved(ask(server, "propagate"), tmp_path / "label.nii.gz")
    orthanc.stop()
    status, body = server.save_label(MOVING, label, "final", {})
    assert status == 502, body
    assert "the DICOMweb server does not do as it is asked" in json.loads(body)["detail"]


def test_the_log_names_no_patient(server: LabelServer) -> None:
    log = (server.app.parent / "server.log").read_text()
    assert "Doe" not in log
    assert "Roe" not in log

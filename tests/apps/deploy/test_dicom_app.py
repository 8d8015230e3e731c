"""The application for DICOM pairs, its files read back by pydicom and SimpleITK."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from containerfile import Containerfile
from dicom_names import CHARACTER_SETS
from dicom_pairs import (
    BALLS,
    FIXED_SHAPE,
    LPS,
    MARGIN,
    SeriesPair,
    check_segments,
    depth,
    field_of,
    found_by_dciodvfy,
    frames_of,
    intensity,
    make_series_pair,
    world,
)
from dicom_series import SERIES
from orthanc_server import OrthancServer
from pydicom.pixels.utils import pack_bits

from monai_regplugins.registration import load_bundle

from .conftest import Run

pytestmark = pytest.mark.deploy

APP = ("-m", "monai_regplugins.apps.deploy.dicom_app")
WRITE_SEGMENTATION = """
import sys
from pathlib import Path
import highdicom, numpy, pydicom
from pydicom.sr.codedict import codes
folder = Path(sys.argv[1])
slices = sorted(map(pydicom.dcmread, folder.glob("study2/moving/*.dcm")), key=lambda one: -one.InstanceNumber)
for one in slices:
    one.SliceThickness = 1.0
    one.PatientBirthDate = one.PatientSex = one.AccessionNumber = one.StudyID = one.StudyDate = one.StudyTime = ""
label = numpy.load(folder / "moving_label.npy").T
of = {"segmented_property_category": codes.SCT.Organ, "algorithm_type": "MANUAL"}
kinds = {"Liver": codes.SCT.Liver, "Spleen": codes.SCT.Spleen}
segments = [
    highdicom.seg.SegmentDescription(number, name, segmented_property_type=kind, **of)
    for number, (name, kind) in enumerate(kinds.items(), 1)
]
segmentation = highdicom.seg.Segmentation(
    slices, label, "BINARY", segments, highdicom.UID(), 9, highdicom.UID(), 1, "m", "m", "1", "1",
    series_description="Moving Label",
)
(folder / "study2" / "labels").mkdir()
segmentation.save_as(folder / "study2" / "labels" / "1.dcm")
"""


HEADERS: dict[str, dict[str, Any]] = {
    "sex": {"PatientSex": "FEMALE"},
    "name": {"PatientName": "M\ufffdller", "SpecificCharacterSet": "ISO_IR 192"},
    "frame": {"FrameOfReferenceUID": None},
}


def run_app(
    run_deploy: Run,
    bundle: Path,
    pair: Path,
    output: Path,
    registration: str = "{initial_alignment: none}",
    tags: str = "{}",
) -> Any:
    """Run the application with the package's rules and other settings."""
    config = write_settings(output.with_name("app.yaml"), registration, tags)
    return run_deploy(*APP, "-i", pair, "-o", output, "-m", bundle, HOLOSCAN_CONFIG_PATH=config)


def write_settings(path: Path, registration: str, tags: str) -> Path:
    """The package's rules and other settings."""
    rules = (Path(__file__).parents[3] / "monai_regplugins/apps/deploy/app.yaml").read_text().split("selections:")[1]
    path.write_text(f"registration: {registration}\ntags: {tags}\nselections:{rules}")
    return path


def change(folder: Path, **tags: Any) -> None:
    """Change tags of all files of a series; None removes one."""
    for file in folder.iterdir():
        scan = pydicom.dcmread(file)
        for keyword, value in tags.items():
            if value is None:
                delattr(scan, keyword)
            else:
                setattr(scan, keyword, value)
        scan.save_as(file)


def read_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_segmentation_and_registration_of_a_pair(
    run_deploy: Run, bundle: Path, series_pair: SeriesPair, tmp_path: Path
) -> None:
    made = run_deploy("-c", WRITE_SEGMENTATION, series_pair.folder)
    assert made.returncode == 0, made.stderr
    done = run_app(run_deploy, bundle, series_pair.folder, tmp_path / "output")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "output" / "moving_to_fixed"
    fixed = pydicom.dcmread(next(series_pair.folder.glob("study1/fixed/*.dcm")))

    check_registration(pydicom.dcmread(folder / "displacement.dcm"), fixed, series_pair)
    segmentation = pydicom.dcmread(folder / "segmentation.dcm")
    assert segmentation.SOPClassUID == pydicom.uid.SegmentationStorage
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert segmentation[keyword].value == fixed[keyword].value
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == fixed.SeriesInstanceUID
    segments = [(item.SegmentNumber, item.SegmentLabel) for item in segmentation.SegmentSequence]
    assert segments == [(1, "Liver"), (2, "Spleen")]
    assert segmentation.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Spleen"
    check_segments(frames_of(segmentation), series_pair)
    check_with_simpleitk(segmentation, series_pair, tmp_path / "one.dcm")
    check_description(folder)
    check_provenance(folder, series_pair)


def check_description(folder: Path) -> None:
    """Both objects say what they are and what is to be thought of them."""
    verdict = json.loads((folder / "metrics.json").read_text())
    for file, (number, words) in {"displacement": (9001, "Deformable"), "segmentation": (9002, "Labels")}.items():
        written = pydicom.dcmread(folder / f"{file}.dcm")
        assert written.SeriesNumber == number
        assert written.SeriesDescription.startswith(words)
        assert written.SeriesDate == written.ContentDate == f"{datetime.now():%Y%m%d}"
        assert len(written.SeriesTime) == 6
        said = "; ".join(verdict["reasons"]) or "PASS"
        assert written.CommentsOnThePerformedProcedureStep == f"Verdict on the registration: {said}"


def check_provenance(folder: Path, pair: SeriesPair) -> None:
    """Provenance lists what went in and all that came out."""
    record = json.loads((folder / "provenance.json").read_text())
    for number, role in enumerate(("fixed", "moving"), 1):
        files = sorted((pair.folder / f"study{number}" / role).glob("*.dcm"))
        digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert record["sources"][role] == {
            "StudyInstanceUID": f"{SERIES}.{number}.1",
            "SeriesInstanceUID": f"{SERIES}.{number}",
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        }
    label = pair.folder / "study2" / "labels" / "1.dcm"
    assert record["sources"]["moving_label"]["SeriesInstanceUID"] == pydicom.dcmread(label).SeriesInstanceUID
    assert record["sources"]["moving_label"]["sha256"] == hashlib.sha256(label.read_bytes()).hexdigest()
    assert {file.name for file in folder.iterdir()} == {*record["files"], "provenance.json"}
    for name, entry in record["files"].items():
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert record["initial_alignment_taken"] in ("none", "affine", "rigid")
    assert ("initial_alignment" in record) is (record["initial_alignment_taken"] != "none")
    assert record["verdict"] == json.loads((folder / "metrics.json").read_text())["verdict"]
    assert record["seconds_total"] > record["seconds"] > 0


def check_registration(registration: Any, fixed: Any, pair: SeriesPair) -> None:
    """The registration is of these scans, and takes the moving one onto the fixed one."""
    moving = pydicom.dcmread(next(pair.folder.glob("study2/moving/*.dcm")))
    assert registration.SOPClassUID == pydicom.uid.DeformableSpatialRegistrationStorage
    assert registration.FrameOfReferenceUID == fixed.FrameOfReferenceUID
    (item,) = registration.DeformableRegistrationSequence
    assert item.SourceFrameOfReferenceUID == moving.FrameOfReferenceUID
    transform = field_of(registration)
    point = pair.fixed[:3, :3] @ (4.2, 7.0, 9.9) + pair.fixed[:3, 3]
    np.testing.assert_allclose(np.subtract(transform.TransformPoint(point), point), pair.shift, atol=1e-4)
    scans = [read_series(pair.folder / place) for place in ("study1/fixed", "study2/moving")]
    moved = sitk.GetArrayFromImage(sitk.Resample(scans[1], scans[0], transform, sitk.sitkLinear, -9999.0))
    inside = moved > -9999
    assert inside.mean() > 0.5
    truth = intensity(world(pair.fixed, FIXED_SHAPE)).T
    assert np.abs(moved - truth)[inside].max() < 12  # of 560, the error of linear interpolation


def check_with_simpleitk(segmentation: Any, pair: SeriesPair, path: Path) -> None:
    """SimpleITK finds each ball in its place, too; of several segments in one file it would have no spacing."""
    fixed = read_series(pair.folder / "study1" / "fixed")
    for ball in BALLS:
        one = copy.deepcopy(segmentation)
        kept = [k for k, (segment, _, _) in enumerate(frames_of(segmentation)) if segment == ball]
        one.PerFrameFunctionalGroupsSequence = [segmentation.PerFrameFunctionalGroupsSequence[k] for k in kept]
        one.PixelData = pack_bits(segmentation.pixel_array[kept])
        one.NumberOfFrames = len(kept)
        one.save_as(path)
        image = sitk.Resample(sitk.ReadImage(str(path)), fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        inside, pixels = depth(world(pair.fixed, FIXED_SHAPE), ball).T, sitk.GetArrayFromImage(image)
        assert (pixels[inside > MARGIN] > 0).all()
        assert not pixels[inside < -MARGIN].any()


def test_the_results_are_those_of_the_bundle_in_python(run_deploy: Run, bundle: Path, tmp_path: Path) -> None:
    """With instance optimisation, so that the field differs from place to place (after fewer steps the network's, which
    is the truth here, is kept)."""
    pair = make_series_pair(tmp_path / "input", "sagittal", "oblong")
    settings = "{initial_alignment: none, refine_steps: 10}"
    done = run_app(run_deploy, bundle, pair.folder, tmp_path / "output", settings)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "output" / "moving_to_fixed"
    assert not (folder / "segmentation.dcm").exists()  # no label was given
    register = load_bundle(bundle, device="cpu", initial_alignment="none", refine_steps=10)
    result = register(pair.folder / "study1" / "fixed", pair.folder / "study2" / "moving")
    assert result.ddf.std(dim=(1, 2, 3)).min() > 0.01
    field = np.swapaxes(
        sitk.GetArrayFromImage(field_of(pydicom.dcmread(folder / "displacement.dcm")).GetDisplacementField()), 0, 2
    )
    expected = np.moveaxis(result.displacement.numpy(), 0, -1) @ LPS[:3, :3]
    np.testing.assert_allclose(field, expected, atol=1e-3)


ALPHABETS = ("\\ISO 2022 IR 87", "\\ISO 2022 IR 58", "GB18030", "ISO 2022 IR 100\\ISO 2022 IR 144")
ANONYMOUS = {  # dummies and empty values as of PS3.15 E.1, which keeps the body part
    "PatientName": "ANON^SEVEN",
    "PatientID": "ANON 7",
    "PatientBirthDate": "",
    "PatientSex": "",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "Basic profile",
    "StudyDate": "19010101",
    "StudyTime": "000000",
    "StudyID": "ANON",
    "AccessionNumber": "",
}
LOST = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
STRIPPED = {**{f"fixed_{keyword}": None for keyword in (*LOST, "BodyPartExamined")}, **dict.fromkeys(LOST, "")}
ONE_STUDY = {"StudyInstanceUID": f"{SERIES}.1", "FrameOfReferenceUID": f"{SERIES}.2"}
TWO_STUDIES = {"fixed_StudyDate": "20240611", "moving_StudyDate": "20230502", "moving_StudyID": "5"}
TWELVE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "axial": ("axial", "square", {}),
    "sagittal": ("sagittal", "square", {"Laterality": "L", "BodyPartExamined": "KNEE"}),
    "oblique": ("oblique", "oblong", {}),
    "oblong": ("axial", "oblong", {}),
    "magnetic": ("sagittal", "oblong", {"Modality": "MR", "SOPClassUID": pydicom.uid.MRImageStorage}),
    "two_studies": (
        "axial",
        "square",
        {**TWO_STUDIES, "fixed_AccessionNumber": "A 1", "moving_AccessionNumber": "A 2"},
    ),
    **{
        f"alphabet{number}": (
            "axial",
            "square",
            {"fixed_SpecificCharacterSet": charset.split("\\"), "PatientName": CHARACTER_SETS[charset]},
        )
        for number, charset in enumerate(ALPHABETS)
    },
    "anonymous": ("oblique", "square", {**ANONYMOUS, **ONE_STUDY}),
    "private": ("axial", "square", {"StudyDescription": "Größe"}),
}
ALL = f"""
import sys
from monai_regplugins.apps.deploy.dicom_app import SeriesPairApp
write = compile({WRITE_SEGMENTATION!r}, "write", "exec")
bundle, output, *pairs = sys.argv[1:]
for pair in pairs:
    sys.argv = ["write", pair]
    exec(write, dict())
    sys.argv = ["app", "-i", pair, "-o", output + "/" + pair.split("/")[-1], "-m", bundle]
    assert SeriesPairApp.main() in (0, 3), pair
"""


def add_private_tags(folder: Path) -> None:
    """Give all files of a folder elements of a vendor, one of them with a sequence, and another alphabet's text."""
    for file in folder.rglob("*.dcm"):
        scan = pydicom.dcmread(file)
        block = scan.private_block(0x0009, "VENDOR 1.0", create=True)
        block.add_new(0x01, "LO", "Größe")
        block.add_new(0x02, "UN", b"\x01\x02")
        inner = pydicom.Dataset()
        inner.private_block(0x0029, "VENDOR 2.0", create=True).add_new(0x10, "FD", 2.5)
        block.add_new(0x03, "SQ", [inner])
        scan.save_as(file)


@pytest.fixture(scope="module")
def twelve(run_deploy: Run, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the application makes of twelve pairs and one that has been stripped of its identity, a folder each."""
    folder = tmp_path_factory.mktemp("twelve")
    pairs = {**TWELVE, "stripped": ("axial", "square", STRIPPED)}
    for name, (plane, pixels, tags) in pairs.items():
        make_series_pair(folder / "input" / name, plane, pixels, **{"SpecificCharacterSet": "ISO_IR 192", **tags})
    add_private_tags(folder / "input" / "private")
    tags = "{registration: {SeriesDescription: 向こう}, segmentation: {SeriesNumber: 5, SeriesDescription: größer}}"
    config = write_settings(folder / "app.yaml", "{initial_alignment: none}", tags)
    places = [folder / "input" / name for name in pairs]
    done = run_deploy("-c", ALL, bundle, folder / "output", *places, HOLOSCAN_CONFIG_PATH=config)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.parametrize("file", ["displacement.dcm", "segmentation.dcm"])
@pytest.mark.parametrize("name", TWELVE)
def test_dciodvfy_finds_nothing(twelve: Path, name: str, file: str) -> None:
    assert found_by_dciodvfy(twelve / "output" / name / "moving_to_fixed" / file) == []


@pytest.mark.parametrize("file", ["displacement.dcm", "segmentation.dcm"])
def test_dciodvfy_finds_what_a_stripped_series_lacks_and_no_more(twelve: Path, file: str) -> None:
    lacking = set(found_by_dciodvfy(next((twelve / "input" / "stripped" / "study1" / "fixed").iterdir())))
    found = found_by_dciodvfy(twelve / "output" / "stripped" / "moving_to_fixed" / file)
    # Laterality is empty, as it is unknown; without it, it would be an error
    assert [line for line in found if line not in lacking and not line.endswith("attribute <Laterality>")] == []


@pytest.mark.parametrize("number", range(len(ALPHABETS)))
def test_names_in_other_alphabets_are_those_of_both_objects(twelve: Path, number: int) -> None:
    for file in ("displacement.dcm", "segmentation.dcm"):
        written = pydicom.dcmread(twelve / "output" / f"alphabet{number}" / "moving_to_fixed" / file)
        name = CHARACTER_SETS[ALPHABETS[number]]
        assert (str(written.PatientName), written.SpecificCharacterSet) == (name, "ISO_IR 192")
        series, words = (9001, "向こう") if file == "displacement.dcm" else (5, "größer")
        assert (written.SeriesNumber, written.SeriesDescription) == (series, words)


def test_another_patient_is_allowed_by_the_settings_and_a_frame_of_reference_is_not_invented(
    run_deploy: Run, bundle: Path, tmp_path: Path
) -> None:
    pair = make_series_pair(tmp_path / "input", "axial", "square")
    change(pair.folder / "study2" / "moving", PatientID="P 18", FrameOfReferenceUID=None)
    done = run_app(
        run_deploy, bundle, pair.folder, tmp_path / "output", "{initial_alignment: none, other_patient: true}"
    )
    assert done.returncode == 0, done.stderr
    reported = done.stdout + done.stderr
    assert "are of two patients by their PatientID, which other_patient allows" in reported
    assert "displacement.dcm is left out: the DICOM series of the moving image has no frame of reference" in reported
    folder = tmp_path / "output" / "moving_to_fixed"
    assert {"displacement.nii.gz", "warped.nii.gz"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.dcm"))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        ("all", "holds no DICOM series; give the folder of two."),
        ("fixed", "the rule 'fixed' picks 0 series, expected one"),
        ("twice", "the rule 'moving' picks 2 series"),
        ("label", "is no segmentation of the moving series"),
        ("patient", "fixed and moving image are of two patients by their PatientID, expected one"),
        ("sex", "highdicom refuses a DICOM segmentation of"),
        ("name", "PatientName of the fixed series '"),
        ("frame", "has no frame of reference (0020,0052), so no DICOM segmentation can state its place"),
    ],
)
def test_bad_input_ends_with_one_line_and_without_files(
    run_deploy: Run, bundle: Path, tmp_path: Path, corrupt: str, message: str
) -> None:
    pair = make_series_pair(tmp_path / "input", "axial", "square")
    if corrupt == "all":
        shutil.rmtree(pair.folder)
        pair.folder.mkdir()
    elif corrupt == "fixed":
        for file in pair.folder.glob("study1/fixed/*.dcm"):
            file.unlink()
    elif corrupt == "twice":
        make_series_pair(tmp_path / "other", "axial", "square")
        for file in (tmp_path / "other" / "study2" / "moving").glob("*.dcm"):
            scan = pydicom.dcmread(file)
            scan.SeriesInstanceUID, scan.SOPInstanceUID = f"{scan.SeriesInstanceUID}.7", f"{scan.SOPInstanceUID}.7"
            scan.file_meta.MediaStorageSOPInstanceUID = scan.SOPInstanceUID
            scan.save_as(pair.folder / f"other_{file.name}")
    elif corrupt == "patient":
        change(pair.folder / "study2" / "moving", PatientID="P 18")
    elif corrupt in HEADERS:  # the segmentation would be refused at the very end
        assert run_deploy("-c", WRITE_SEGMENTATION, pair.folder).returncode == 0
        change(pair.folder / "study1" / "fixed", **HEADERS[corrupt])
    else:
        assert run_deploy("-c", WRITE_SEGMENTATION, pair.folder).returncode == 0
        (file,) = pair.folder.glob("study2/labels/*.dcm")
        segmentation = pydicom.dcmread(file)
        for group in segmentation.PerFrameFunctionalGroupsSequence:
            group.PlanePositionSequence[0].ImagePositionPatient[0] += 0.7
        segmentation.save_as(file)
    done = run_app(run_deploy, bundle, pair.folder, tmp_path / "output")
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1], done.stderr
    assert not list(tmp_path.glob("output/*"))


def test_the_container_s_command_registers_for_a_user_without_a_name(
    run_deploy: Run, repository: Path, tmp_path: Path
) -> None:
    assert run_deploy("-c", "").returncode == 0
    pair = make_series_pair(tmp_path / "input", "axial", "square")
    for name in ("root", "output"):
        (tmp_path / name).mkdir()
    environment = Path(os.environ["MONAI_DEPLOY_PYTHON"]).parents[1]
    made = Containerfile(repository / "containers" / "deploy.Containerfile", environment)
    volumes = {"/input": pair.folder, "/output": tmp_path / "output"}
    process = made.start(tmp_path / "root", volumes, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert process.wait(1200) in (0, 3), made.log(tmp_path / "root").read_text()[-3000:]
    assert (tmp_path / "output" / "moving_to_fixed" / "displacement.dcm").is_file()


def test_from_a_dicomweb_server_and_back(run_deploy: Run, bundle: Path, tmp_path: Path) -> None:
    """As docs/how-to/deploy.md says."""
    pair = make_series_pair(tmp_path / "scans", "oblique", "oblong")
    made = run_deploy("-c", WRITE_SEGMENTATION, pair.folder)
    assert made.returncode == 0, made.stderr
    orthanc = OrthancServer(tmp_path / "orthanc")
    client = (Path(os.environ["MONAI_DEPLOY_PYTHON"]).with_name("dicomweb_client"), "--url", orthanc.dicomweb)
    try:
        orthanc.put(pair.folder.rglob("*.dcm"))
        label = pydicom.dcmread(pair.folder / "study2" / "labels" / "1.dcm")
        for number, series in ((1, f"{SERIES}.1"), (2, f"{SERIES}.2"), (2, label.SeriesInstanceUID)):
            (folder := tmp_path / "input" / series).mkdir(parents=True)
            one = ("--study", f"{SERIES}.{number}.1", "--series", series)
            done = run_deploy(*client, "retrieve", "series", *one, "full", "--save", "--output-dir", folder)
            assert done.returncode == 0, done.stderr
        done = run_app(run_deploy, bundle, tmp_path / "input", tmp_path / "output")
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / "output" / "moving_to_fixed").glob("*.dcm"))
        done = run_deploy(*client, "store", "instances", *files)
        assert done.returncode == 0, done.stderr
        registration, segmentation = map(pydicom.dcmread, files)
        assert orthanc.find(Modality="REG") == [registration]
        assert orthanc.find(Modality="SEG", StudyInstanceUID=f"{SERIES}.1.1") == [segmentation]
        assert len(orthanc.find(StudyInstanceUID=f"{SERIES}.1.1")) == FIXED_SHAPE[2] + 2
        check_segments(frames_of(segmentation), pair)
    finally:
        orthanc.stop()

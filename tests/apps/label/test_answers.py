"""Answers of the app, on a datastore that stands in for MONAI Label's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from label_store import FakeDatastore

from monai_regplugins.apps.label.answers import KINDS, Answers
from monai_regplugins.apps.label.labels import LabelNames
from monai_regplugins.apps.label.networks import LabelBundle, Networks
from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.store import Store
from monai_regplugins.outputs.registration_writer import RegistrationWriter
from monai_regplugins.registration import Registration, load_bundle
from monai_regplugins.result import RegistrationResult

pytestmark = pytest.mark.bundle


@pytest.fixture
def datastore(studies: Path) -> FakeDatastore:
    """Five images, one with a label."""
    store = FakeDatastore({path.name.removesuffix(".nii.gz"): path for path in sorted(studies.glob("*.nii.gz"))})
    store.labels["atlas", "final"] = studies / "labels" / "final" / "atlas.nii.gz", {"ts": 1}
    return store


@pytest.fixture(scope="session")
def networks() -> Networks:
    """Networks in memory, for all tests."""
    return Networks()


@pytest.fixture
def answers(datastore: FakeDatastore, bundle_dir: Path, networks: Networks, tmp_path: Path) -> Callable[..., Answers]:
    """Return a function that makes the answers of a bundle."""

    def make(name: str = "ran", max_voxels: int = 10**6) -> Answers:
        bundle = LabelBundle(bundle_dir / name, tmp_path / "app" / name)
        return Answers(bundle, Store(lambda: datastore), networks, LabelNames({3: "spleen"}), max_voxels)

    return make


def request(datastore: FakeDatastore, image_id: str = "day1", **more: Any) -> dict[str, Any]:
    """A request as the app hands it on."""
    return {"image": str(datastore.images_by_id[image_id]), "image_id": image_id, "device": "cpu", **more}


@pytest.mark.slow
def test_propagate(answers: Callable[..., Answers], datastore: FakeDatastore, bundle_dir: Path) -> None:
    file, reported = answers()("propagate", request(datastore, moving_image="atlas"))
    result = load_bundle(bundle_dir / "ran", device="cpu", initial_alignment="auto")(
        datastore.images_by_id["day1"],
        datastore.images_by_id["atlas"],
        moving_label=datastore.labels["atlas", "final"][0],
    )
    assert reported["label_names"] == {"spleen": 1, "label_7": 2}
    values, image = nib.load(file), nib.load(datastore.images_by_id["day1"])
    expected = result.warped_label[0].numpy()
    assert np.array_equal(np.asarray(values.dataobj), np.select([expected == 3, expected == 7], [1, 2]))
    assert values.get_data_dtype() == np.uint8
    assert np.allclose(values.affine, image.affine)
    about = reported["registration"]
    assert about["moving_image"] == "atlas"
    assert about["moving_label_tag"] == "final"
    assert about["moving_label_values"] == {"spleen": 3, "label_7": 7}
    assert len(about["weights_sha256"]) == 64
    assert about["metrics"].keys() >= {"ncc", "ncc_before"}
    for said in (about, reported):
        assert (said["verdict"], said["reasons"]) == (result.verdict.level, list(result.verdict.reasons))
    assert 0 < about["seconds"] < about["seconds_total"]
    assert 0 < about["seconds_of_processor"] < about["seconds_total"] + 0.01
    assert not about["trained_here"]
    assert str(datastore.images_by_id["day1"].parent) not in str(reported)
    assert str(bundle_dir) not in str(reported)


@pytest.mark.slow
def test_a_doubtful_answer_says_so(
    answers: Callable[..., Answers], datastore: FakeDatastore, caplog: pytest.LogCaptureFixture
) -> None:
    noise = nib.load(datastore.images_by_id["day1"])
    values = np.random.default_rng(0).uniform(-160, 240, noise.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(values, noise.affine), path := datastore.images_by_id["day1"].with_name("noise.nii.gz"))
    datastore.images_by_id["noise"] = path
    _, reported = answers()("image", request(datastore, "noise", moving_image="day2", refine_steps=0))
    assert reported["verdict"] == "FAIL"
    assert "look unlike each other" in reported["reasons"][0]
    assert f"ran of 'noise': {'; '.join(reported['reasons'])}" in caplog.messages


@pytest.mark.slow
def test_nothing_is_made_for_files_that_nobody_gets(
    answers: Callable[..., Answers], datastore: FakeDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RegistrationWriter, "write", mock.Mock(side_effect=AssertionError("a folder of results")))
    monkeypatch.setattr(RegistrationResult, "figure", property(mock.Mock(side_effect=AssertionError("a picture"))))
    for kind in ("propagate", "image", "transform"):
        answers()(kind, request(datastore, moving_image="atlas"))


@pytest.mark.slow
@pytest.mark.slow
def test_propagate_for_browsers(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    plain, _ = answers()("propagate", request(datastore, moving_image=["atlas"]))
    file, _ = answers()("propagate", request(datastore, moving_image="atlas", result_extension=".nrrd"))
    assert file.endswith(".nrrd")
    assert b"encoding: raw" in Path(file).read_bytes()[:500]
    read, reference = sitk.ReadImage(file), sitk.ReadImage(plain)
    assert read.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(reference))
    assert np.allclose(read.GetOrigin(), reference.GetOrigin())


@pytest.mark.slow
def test_image(answers: Callable[..., Answers], datastore: FakeDatastore, bundle_dir: Path) -> None:
    file, reported = answers()("image", request(datastore, moving_image="day2"))
    result = load_bundle(bundle_dir / "ran", device="cpu", initial_alignment="auto")(
        datastore.images_by_id["day1"], datastore.images_by_id["day2"]
    )
    assert np.array_equal(nib.load(file).get_fdata(dtype=np.float32), result.warped[0].numpy())
    assert reported["registration"]["moving_image"] == "day2"
    assert "label_names" not in reported


@pytest.mark.slow
def test_transform(answers: Callable[..., Answers], datastore: FakeDatastore, bundle_dir: Path) -> None:
    file, reported = answers()("transform", request(datastore, moving_image="day2"))
    result = load_bundle(bundle_dir / "ran", device="cpu", initial_alignment="auto")(
        datastore.images_by_id["day1"], datastore.images_by_id["day2"]
    )
    field = nib.load(file)
    assert field.header["intent_code"] == 1007
    ras = np.moveaxis(field.get_fdata()[..., 0, :], -1, 0) * np.array([-1, -1, 1]).reshape(3, 1, 1, 1)
    assert np.allclose(ras, result.displacement.numpy(), atol=1e-5)
    assert reported["registration"]["format"] == "itk_nifti"


@pytest.mark.slow
@pytest.mark.slow
def test_second_upload(answers: Callable[..., Answers], datastore: FakeDatastore, studies: Path) -> None:
    stored, _ = answers()("image", request(datastore, moving_image="day2"))
    uploaded, reported = answers()("image", request(datastore, label=str(datastore.images_by_id["day2"])))
    assert np.array_equal(nib.load(stored).dataobj, nib.load(uploaded).dataobj)
    assert reported["registration"]["moving_image"] == "upload"
    label = datastore.labels.pop(("atlas", "final"))[0]
    file, reported = answers()("propagate", request(datastore, moving_image="atlas", label=str(label)))
    assert reported["label_names"] == {"spleen": 1, "label_7": 2}
    assert reported["registration"]["moving_label_tag"] == "upload"
    assert set(np.unique(nib.load(file).dataobj)) <= {0, 1, 2}


@pytest.mark.slow
def test_save_transform(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    _, reported = answers()("propagate", request(datastore, moving_image="atlas", save_transform=True))
    del reported["label_names"]
    del reported["registration"]["seconds_total"], reported["registration"]["seconds_of_processor"]
    assert datastore.saved == [("day1", "transform", {"params": reported})]


@pytest.mark.slow
def test_settings(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    plain, _ = answers()("image", request(datastore, moving_image="day2"))
    refined, reported = answers()(
        "image", request(datastore, moving_image="day2", refine_steps="2", initial_alignment="center")
    )
    assert reported["registration"]["parameters"]["refine_steps"] == 2
    assert reported["registration"]["parameters"]["initial_alignment"] == "center"
    assert not np.array_equal(nib.load(plain).dataobj, nib.load(refined).dataobj)


def test_options(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    options = answers().options("propagate")
    assert options["moving_image"] == ["atlas"]
    assert options["moving_label_tag"] == ["auto", "final", "original"]
    assert options["initial_alignment"][0] == "auto"
    assert answers().options("image")["moving_image"] == ["atlas", "day1", "day2", "day3", "day4"]
    datastore.labels["day3", "original"] = datastore.labels["atlas", "final"]
    assert answers().options("propagate")["moving_image"] == ["atlas", "day3"]
    datastore.labels.clear()
    assert answers().options("propagate")["moving_image"] == [""]  # a drop-down always has a first item


def test_kinds(answers: Callable[..., Answers]) -> None:
    assert answers().kinds() == ["propagate", "image", "transform"]
    assert answers("r2n2").kinds() == list(KINDS)


@pytest.mark.slow
def test_regnet(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    file, reported = answers("regnet")("propagate", request(datastore, moving_image="atlas"))
    assert reported["registration"]["bundle"] == "regnet"
    assert nib.load(file).shape == nib.load(datastore.images_by_id["day1"]).shape


@pytest.mark.slow
def test_series(answers: Callable[..., Answers], datastore: FakeDatastore, cine: Path, tmp_path: Path) -> None:
    series = nib.load(cine)
    drawn = np.zeros(series.shape, np.uint8)
    drawn[10:20, 10:20, 1] = 3
    path = tmp_path / "drawn.nii.gz"
    nib.save(nib.Nifti1Image(drawn, series.affine), path)
    datastore.images_by_id["cine"] = cine
    datastore.labels["cine", "final"] = path, {"ts": 2}
    file, reported = answers("r2n2")("series", request(datastore, "cine", result_extension=".nrrd"))
    values = sitk.GetArrayFromImage(sitk.ReadImage(file)).T
    assert values.shape == series.shape
    assert np.array_equal(values[..., 1], drawn[..., 1] // 3)
    assert all(values[..., frame].any() for frame in range(4))
    assert reported["registration"]["frame"] == 1
    with pytest.raises(RequestError, match="frame 2 has no label"):
        answers("r2n2")("series", request(datastore, "cine", frame=2))


@pytest.mark.parametrize(
    ("kind", "more", "status", "message"),
    [
        ("propagate", {"moving_image": "atlass"}, 404, "there is no image 'atlass'.*Did you mean 'atlas'"),
        ("propagate", {"moving_image": "/etc/passwd"}, 400, "not a path"),
        ("propagate", {"moving_image": "../studies/atlas"}, 400, "not a path"),
        ("propagate", {"moving_image": "day2"}, 400, "image 'day2' has no label"),
        ("propagate", {"moving_image": "atlas", "moving_label_tag": "original"}, 400, "no label with the tag"),
        ("propagate", {"moving_image": "atlas", "moving_label_tag": "best"}, 400, "expected one of auto"),
        ("propagate", {}, 400, "moving_image is missing"),
        ("propagate", {"moving_image": [""]}, 400, "moving_image is missing"),
        ("image", {"moving_image": "day1"}, 400, "is the image itself"),
        ("image", {"moving_image": "day2", "label": "x"}, 400, "give one of them"),
        ("image", {"moving_image": "day2", "refine_steps": -1}, 400, "refine_steps is -1"),
        ("image", {"moving_image": "day2", "refine_steps": "$1"}, 400, r"refine_steps is '\$1'"),
        ("image", {"moving_image": "day2", "initial_alignment": "$__import__('os')"}, 400, "initial_alignment is"),
        ("image", {"moving_image": "day2", "result_extension": ".stl"}, 400, "expected one of .nii.gz"),
        (
            "propagate",
            {"moving_image": "atlas", "result_extension": ".stl", "save_transform": True},
            400,
            "expected one of .nii.gz",
        ),
        ("transform", {"moving_image": "day2", "result_extension": ".stl"}, 400, "expected one of .nii.gz"),
        ("transform", {"moving_image": "day2", "format": "nifti"}, 400, "format is 'nifti', expected one of itk_nifti"),
        ("image", {"moving_image": "day2", "refine_step": 9}, 400, "no option 'refine_step'.*mean 'refine_steps'"),
        ("image", {"moving_image": "day2", "save_transform": True}, 400, "no option 'save_transform'"),
        ("transform", {"moving_image": "day2", "format": "dicom"}, 400, "the image is no DICOM series"),
        ("propagate", {"moving_image": "atlas", "result_extension": ".dcm"}, 400, "the image is no DICOM series"),
        ("image", {"moving_image": "flat"}, 400, "2"),
        ("image", {"moving_image": "broken"}, 400, "'broken' cannot be read"),
        ("image", {"moving_image": "huge"}, 413, "512 x 512 x 8 voxels, this server takes 1000000"),
    ],
)
def test_bad_requests(
    answers: Callable[..., Answers],
    datastore: FakeDatastore,
    studies: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    more: dict[str, Any],
    status: int,
    message: str,
) -> None:
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 16)), np.eye(4)), studies / "flat.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((512, 512, 8), np.uint8), np.eye(4)), studies / "huge.nii.gz")
    (studies / "broken.nii.gz").write_bytes(b"no image")
    for name in ("flat", "huge", "broken"):
        datastore.images_by_id[name] = studies / f"{name}.nii.gz"
    temporary = studies.parent / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    made = answers()
    register = mock.create_autospec(Registration.__call__, side_effect=Registration.__call__)
    monkeypatch.setattr(Registration, "__call__", register)
    with pytest.raises(RequestError, match=message) as caught:
        made(kind, request(datastore, **more))
    assert register.called is ("flat" in more.values() or "broken" in more.values())  # what a reader finds out
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
    assert not re.search(r"/\w+/", str(caught.value).replace("/etc/passwd", "").replace("../studies/", "")), "a path"
    assert list(temporary.iterdir()) == []
    assert datastore.saved == []


@pytest.mark.slow
@pytest.mark.slow
def test_new_weights_are_served(answers: Callable[..., Answers], datastore: FakeDatastore, tmp_path: Path) -> None:
    made = answers()
    _, before = made("image", request(datastore, moving_image="day2"))
    trained = made.bundle.trained_dir / "models" / "model.pt"
    trained.parent.mkdir(parents=True)
    shutil.copy(made.bundle.ckpt, trained)
    _, after = made("image", request(datastore, moving_image="day2"))
    assert before["registration"]["weights_sha256"] == after["registration"]["weights_sha256"]
    assert after["registration"]["trained_here"]


def test_retired_names_of_options(answers: Callable[..., Answers], datastore: FakeDatastore) -> None:
    _, about = answers()(
        "transform", request(datastore, moving_image="day2", format="native", initial_alignment="center")
    )
    assert about["registration"]["format"] == "native"
    assert about["registration"]["parameters"]["initial_alignment"] == "center"

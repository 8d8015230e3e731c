from __future__ import annotations

from pathlib import Path

import pytest
from label_store import FakeDatastore

from monai_regplugins.apps.label.requests import RequestError
from monai_regplugins.apps.label.store import Store


@pytest.fixture
def datastore() -> FakeDatastore:
    """Three images, two with labels."""
    store = FakeDatastore({name: Path(f"{name}.nii.gz") for name in ("c", "a", "b")})
    store.labels["a", "original"] = Path("made.nii.gz"), {"ts": 1}
    store.labels["b", "original"] = Path("old.nii.gz"), {}
    store.labels["b", "final"] = Path("seen.nii.gz"), {}
    store.labels["c", "transform"] = Path("field.nii.gz"), {}
    return store


def test_images(datastore: FakeDatastore) -> None:
    store = Store(lambda: datastore)
    assert store.images() == ["a", "b", "c"]
    assert store.image("a", "image") == "a.nii.gz"
    with pytest.raises(RequestError, match="there is no image 'd'") as caught:
        store.image("d", "image")
    assert caught.value.status == 404
    with pytest.raises(RequestError, match="not a path") as caught:
        store.image("../a", "image")
    assert caught.value.status == 400


def test_labels(datastore: FakeDatastore) -> None:
    store = Store(lambda: datastore)
    assert store.labelled() == ["b", "a"]  # those that a person has seen first
    assert [label.path for label in store.labels()] == ["seen.nii.gz", "made.nii.gz"]
    assert store.label("b")[1] == "final"
    assert store.label("a")[1] == "original"
    assert store.label("b", "original")[0].path == "old.nii.gz"
    for image_id, tag in (("a", "final"), ("c", "auto")):
        with pytest.raises(RequestError, match=f"image '{image_id}' has no label"):
            store.label(image_id, tag)


def test_training_entries(datastore: FakeDatastore) -> None:
    assert Store(lambda: datastore).training_entries() == [
        {"image": "a.nii.gz"},
        {"image": "b.nii.gz", "label": "seen.nii.gz"},
        {"image": "c.nii.gz"},
    ]


class FakeSeries(FakeDatastore):
    """A store of series, whose final labels are segmentations."""

    def series_folder(self, image_id: str) -> str:
        return f"series/{image_id}"

    def segmentation_file(self, image_id: str) -> str:
        return f"{image_id}.dcm"


def test_series_and_their_segmentations() -> None:
    datastore = FakeSeries({"a": Path("a.nii.gz")})
    datastore.labels = {("a", "final"): (Path("a.nrrd"), {}), ("a", "original"): (Path("b.nii.gz"), {})}
    store = Store(lambda: datastore)
    assert store.image("a", "the image") == "series/a"
    assert store.label("a")[0].origin == "a.dcm"
    assert store.label("a", "original")[0].origin == ""

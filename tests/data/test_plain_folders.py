"""Data sets of plain folders: images and labels, nnU-Net's layout, the Decathlon's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.data.plain_folders import content_of_folders, content_of_layout, spatial_dims_of

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Return a function that writes small images into a folder of a data set."""

    def write(folder: str, *names: str, shape: tuple[int, ...] = (4, 5, 6), about: Any = None) -> Path:
        place = tmp_path / "Set" / folder
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name.endswith(".png"):
                Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(place / name)
            else:
                nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4)), place / name)
        if about is not None:
            (place.parent / "dataset.json").write_text(json.dumps(about))
        return place.parent

    return write


def named(folder: Path) -> list[dict[str, str]]:
    """The subjects of a data set, by the names of their files."""
    return [
        {key: Path(path).relative_to(folder).as_posix() for key, path in entry.items()}
        for entry in Learn2RegDataset(folder).subjects
    ]


def test_images_and_labels(put: Put) -> None:
    put("images", "a.nii.gz", "b.nii.gz", "c.nii.gz", "._a.nii.gz")
    folder = put("labels", "a.nii.gz", "b.nii")
    (folder / "images" / "notes.txt").write_text("no image")
    data = Learn2RegDataset(folder)
    assert (data.name, data.spatial_dims, data.label_names) == ("Set", 3, {})
    assert named(folder) == [
        {"image": "images/a.nii.gz", "label": "labels/a.nii.gz"},
        {"image": "images/b.nii.gz", "label": "labels/b.nii"},
        {"image": "images/c.nii.gz"},
    ]


def test_label_maps_that_are_called_so(put: Put) -> None:
    """In a folder of their own or among the images; a name that belongs to no image is one of an image."""
    put("images", "a.nii.gz", "b.nii.gz", "b_Label.nii.gz", "c-seg.nii.gz")
    folder = put("labels", "a_seg.nii", "c-seg.nii.gz")
    assert named(folder) == [
        {"image": "images/a.nii.gz", "label": "labels/a_seg.nii"},
        {"image": "images/b.nii.gz"},
        {"image": "images/c-seg.nii.gz", "label": "labels/c-seg.nii.gz"},
    ]
    for labels in (None, folder / "images"):
        content = content_of_folders(folder / "images", labels, "Set")
        found = [{key: Path(path).name for key, path in entry.items()} for entry in content["training"]]
        assert found == [
            {"image": "a.nii.gz"},
            {"image": "b.nii.gz", "label": "b_Label.nii.gz"},
            {"image": "c-seg.nii.gz"},
        ]


def test_nnunet(put: Put) -> None:
    """Labels lack the number of the channel; of several channels the first is taken."""
    about = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "liver": 2}, "numTraining": 2}
    put("imagesTr", *(f"case_{case}_000{channel}.nii.gz" for case in (1, 2) for channel in (0, 1)), about=about)
    folder = put("labelsTr", "case_1.nii.gz", "case_2.nii.gz")
    assert Learn2RegDataset(folder).label_names == {0: "background", 2: "liver"}
    cases = [(f"imagesTr/case_{case}_0000.nii.gz", f"labelsTr/case_{case}.nii.gz") for case in (1, 2)]
    assert named(folder) == [{"image": image, "label": label} for image, label in cases]


def test_the_decathlon(put: Put) -> None:
    training = [{"image": f"./imagesTr/x_{case}.nii.gz", "label": f"./labelsTr/x_{case}.nii.gz"} for case in (1, 2)]
    about = {"name": "X", "tensorImageSize": "3D", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "l"}}
    put("imagesTr", "x_1.nii.gz", "x_2.nii.gz", about={**about, "training": training})
    folder = put("labelsTr", "x_1.nii.gz", "x_2.nii.gz")
    data = Learn2RegDataset(folder)
    assert (data.name, data.label_names) == ("X", {0: "background", 1: "l"})
    assert named(folder) == [{key: path[2:] for key, path in entry.items()} for entry in training]
    assert {pair["pair_id"] for pair in data.validation_pairs()} == {"x_1_to_x_2", "x_2_to_x_1"}


@pytest.mark.parametrize(
    ("name", "shape", "dims"),
    [
        ("a.png", (8, 9), 2),
        ("a.nii", (8, 9), 2),
        ("a.nii", (8, 9, 1), 2),
        ("a.nii", (8, 1, 9), 2),
        ("a.nii", (2, 8, 9), 3),
    ],
)
def test_dimensions(put: Put, name: str, shape: tuple[int, ...], dims: int) -> None:
    folder = put("images", name, shape=shape)
    assert spatial_dims_of(folder / "images" / name) == dims
    assert Learn2RegDataset(folder).spatial_dims == dims


def test_a_json_file_in_its_format_comes_first(put: Put) -> None:
    folder = put("images", "a.nii.gz", "b.nii.gz")
    content = content_of_folders(folder / "images", None, "Own")
    (folder / "Own_dataset.json").write_text(json.dumps({**content, "training": content["training"][:1]}))
    assert (Learn2RegDataset(folder).name, len(named(folder))) == ("Own", 1)


def test_what_is_none(put: Put, tmp_path: Path) -> None:
    assert content_of_layout(tmp_path) is None
    with pytest.raises(
        InputError, match=r"or 'images' and 'labels', found none; give a folder of files .*describe FOLDER"
    ):
        Learn2RegDataset(tmp_path)
    folder = put("scans", "a.nii")
    put("Segmentations", "a.nii")
    command = rf"regplugins describe {folder}/scans --labels {folder}/Segmentations"
    with pytest.raises(InputError, match=rf"images lie in its folders 'Segmentations', 'scans': {command}$"):
        Learn2RegDataset(folder)
    with pytest.raises(InputError, match=rf"found none; write one with: regplugins describe {folder}/scans$"):
        Learn2RegDataset(folder / "scans")
    with pytest.raises(InputError, match="holds no images; give a folder of files"):
        content_of_layout(put("images"))
    folder = put("imagesTr", "a.nii")
    (folder / "dataset.json").write_text("{")
    (folder / "images").rmdir()
    with pytest.raises(InputError, match=r"dataset\.json' is not valid JSON"):
        content_of_layout(folder)


def test_label_maps_that_belong_to_no_image_are_refused(put: Put) -> None:
    put("images", "a.nii.gz", "b.nii.gz")
    folder = put("labels", "seg_a.nii.gz")
    with pytest.raises(InputError, match=r"no label map in '.*labels' has the name of an image .*'seg_a' and 'a'"):
        Learn2RegDataset(folder)
    with pytest.raises(InputError, match=r"labels '.*nothing' is no folder"):
        content_of_folders(folder / "images", folder / "nothing", "Set")
    assert len(content_of_folders(folder / "images", None, "Set")["training"]) == 2

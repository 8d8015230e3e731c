"""The reader of Learn2Reg's format: pairs, splits, companions and error messages."""

from __future__ import annotations

import json

import pytest

from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import (
    Learn2RegDataset,
    training_images,
    training_pairs,
    validation_images,
    validation_pairs,
)


def _image(subject, phase=0, kind="images", suffix=".nii.gz"):
    return f"./{kind}Tr/Toy_{subject:04d}_{phase:04d}{suffix}"


def _content(images, **more):
    size = {"tensorImageSize": {"0": "3D"}}
    return {"name": "Toy", **size, "training": [{"image": image} for image in images], **more}


@pytest.fixture
def write(tmp_path):
    """Write a json file and an (almost) empty file for each path in it."""

    def write_dataset(content, name="Toy_dataset.json", missing=()):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        paths = {part for part in text.replace("\\", "").split('"') if part.startswith("./")}
        for path in paths - set(missing):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(b"x")
        return tmp_path

    return write_dataset


def _subjects(pairs):
    return {name[:4] for pair in pairs for name in pair["pair_id"].split("_to_")}


def test_attributes(write):
    labels = {"0": {"0": "background", "7": "liver"}}
    dataset = Learn2RegDataset(write(_content([_image(1), _image(2)], labels=labels)))
    assert (dataset.name, dataset.spatial_dims, dataset.label_names) == ("Toy", 3, {0: "background", 7: "liver"})
    assert [set(entry) for entry in dataset.subjects] == [{"image"}, {"image"}]


def test_all_ordered_pairs_of_subjects_that_do_not_validate(write):
    val = [{"fixed": _image(3), "moving": _image(4)}]
    folder = write(_content([_image(n) for n in range(1, 5)], registration_val=val))
    assert [pair["pair_id"] for pair in training_pairs(folder)] == ["0002_to_0001", "0001_to_0002"]
    (pair,) = validation_pairs(folder)
    assert pair == {
        "moving": str(folder / _image(4)),
        "fixed": str(folder / _image(3)),
        "pair_id": "0004_to_0003",
    }


def test_subject_wise_split_without_validation_pairs(write):
    folder = write(_content([_image(n) for n in range(1, 11)]))
    train, val = training_pairs(folder, 5, 0.3), validation_pairs(folder, 5, 0.3)
    assert len(train) == 7 * 6
    assert len(val) == 3 * 2
    assert not _subjects(train) & _subjects(val)
    assert val == validation_pairs(folder, 5, 0.3)
    assert len({frozenset(_subjects(validation_pairs(folder, seed, 0.3))) for seed in range(5)}) > 1
    assert len(_subjects(validation_pairs(folder, 0, 0.01))) == 2


def test_paired_set_pairs_within_a_subject_and_splits_by_subject(write):
    images = [_image(n, phase) for n in range(1, 5) for phase in range(3)]
    folder = write(_content(images, pairings="paired"))
    train, val = training_pairs(folder), validation_pairs(folder)
    assert len(train) == 3 * 6
    assert len(val) == 6
    assert all(pair["pair_id"][:4] == pair["pair_id"][-9:-5] for pair in train + val)
    assert not _subjects(train) & _subjects(val)
    assert val[0]["pair_id"].count("_") == 4  # subject and phase, twice, around "_to_"


def test_one_paired_subject_splits_by_pair_keeping_reverses_together(write):
    folder = write(_content([_image(1, phase) for phase in range(5)], pairings="paired"))
    train, val = ({(p["moving"], p["fixed"]) for p in f(folder)} for f in (training_pairs, validation_pairs))
    assert len(train) == 16
    assert len(val) == 4
    assert not train & val
    assert {(fixed, moving) for moving, fixed in val} == val


def test_listed_training_pairs_come_first(write):
    listed = [{"fixed": _image(1), "moving": _image(2)}, {"fixed": _image(1), "moving": _image(3)}]
    val = [{"fixed": _image(3), "moving": _image(4)}]
    content = _content([_image(n) for n in range(1, 5)], training_paired_images=listed, registration_val=val)
    assert [pair["pair_id"] for pair in training_pairs(write(content))] == ["0002_to_0001"]


def test_companions_listed_and_found_by_name(write):
    content = _content([], registration_val=[{"fixed": _image(1), "moving": _image(2)}])
    content["training"] = [{"image": _image(1), "label": _image(1, 0, "labels"), "mask": _image(1, 0, "masks")}]
    folder = write(content)
    for kind, suffix in (("labels", ".nii.gz"), ("keypoints", ".csv"), ("landmarks", ".csv")):
        file = folder / _image(2, 0, kind, suffix)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (pair,) = validation_pairs(folder)
    assert {key for key in pair if "_" in key} == {
        "fixed_label", "fixed_mask", "moving_label", "moving_keypoints", "moving_landmarks", "pair_id",
    }  # fmt: skip
    assert pair["moving_keypoints"] == str(folder / _image(2, 0, "keypoints", ".csv"))


def test_max_pairs_is_a_seeded_choice(write):
    folder = write(_content([_image(n) for n in range(1, 9)]))
    every = [pair["pair_id"] for pair in validation_pairs(folder, validation_fraction=0.5)]
    some = [p["pair_id"] for p in validation_pairs(folder, validation_fraction=0.5, max_pairs=3)]
    assert len(every) == 12
    assert len(some) == 3
    assert some == sorted(some, key=every.index)
    assert len(validation_pairs(folder, validation_fraction=0.5, max_pairs=99)) == 12


def test_two_dimensional_set_by_shape(write):
    content = _content([_image(1, suffix=".png")], tensorImageShape={"0": [256, 256]})
    del content["tensorImageSize"]
    assert Learn2RegDataset(write(content)).spatial_dims == 2


BROKEN = {
    "not json": ("{", "not valid JSON"),
    "not a dict": ("[1]", "holds a list"),
    "wrong key": ({"trainings": [], "tensorImageSize": {"0": "3D"}}, "no key 'training'.*Did you mean 'trainings'"),
    "empty training": (_content([]), "no images under 'training'"),
    "training no list": ({"tensorImageSize": {"0": "3D"}, "training": {"image": "a"}}, "is no list"),
    "label without image": (
        {"tensorImageSize": {"0": "3D"}, "training": [{"label": _image(1)}]}, "no 'image' in 'training' entry 0",
    ),
    "no size": ({"training": [{"image": _image(1)}]}, "tensorImageSize"),
    "labels no table": (_content([_image(1)], labels={"0": {"one": "x"}}), "'labels'"),
    "labels a list": (_content([_image(1)], labels={"0": ["x"]}), "'labels'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_description(case, write):
    content, message = BROKEN[case]
    with pytest.raises(InputError, match=message) as caught:
        Learn2RegDataset(write(content))
    assert "\n" not in str(caught.value)
    assert "Toy_dataset.json" in str(caught.value)


def test_missing_file_is_named(write):
    folder = write(_content([_image(1), _image(2)]), missing=[_image(2)])
    with pytest.raises(InputError, match=r"image of 'training' entry 1 .*Toy_0002_0000"):
        Learn2RegDataset(folder)


def test_json_missing_or_twice(write, tmp_path):
    with pytest.raises(InputError, match="found none"):
        Learn2RegDataset(tmp_path)
    write(_content([_image(1)]), "._A_dataset.json")  # of macOS
    write(_content([_image(1)]), "A_dataset.json")
    with pytest.raises(InputError, match=r"found 2 of them \(A_dataset.json, B_dataset.json\)"):
        Learn2RegDataset(write(_content([_image(1)]), "B_dataset.json"))
    with pytest.raises(InputError, match=r"no folder; give a folder with 'images' and 'labels', or .*regplugins descr"):
        Learn2RegDataset(tmp_path / "A_dataset.json")
    (tmp_path / "mydata").mkdir()
    with pytest.raises(InputError, match=r"does not exist; give .*regplugins describe .*\. Did you mean 'mydata'\?"):
        Learn2RegDataset(tmp_path / "mydate")


def test_no_pairs(write):
    folder = write(_content([_image(1), _image(2)]))
    with pytest.raises(InputError, match="no pair of images to train on"):
        training_pairs(folder)
    with pytest.raises(InputError, match="validation_fraction is 1"):
        training_pairs(folder, validation_fraction=1)
    with pytest.raises(InputError, match="no pair to validate on"):
        validation_pairs(write(_content([_image(1)])))


def test_broken_pair(write):
    folder = write(_content([_image(1)], registration_val=[{"fixed": _image(1)}]))
    with pytest.raises(InputError, match="'registration_val' entry 0"):
        validation_pairs(folder)


REAL = {  # pairs to train and to validate on
    "AbdomenCT64": (50 * 49, 56),
    "CardiacCine2D": (219, 34),
    "HippocampusMR": (170 * 169, 60),
    "LungCT4D": (90, 90),
    "ThoraxPOPI": (72, 18),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, shared_data):
    dataset = Learn2RegDataset(shared_data(name))
    train, val = dataset.training_pairs(), dataset.validation_pairs()
    assert (len(train), len(val)) == REAL[name]
    assert len({pair["pair_id"] for pair in train}) == len(train)
    assert {(p["moving"], p["fixed"]) for p in train}.isdisjoint((p["moving"], p["fixed"]) for p in val)
    assert all(("fixed_label" in pair) == bool(dataset.label_names) for pair in val)
    assert dataset.spatial_dims == (2 if name == "CardiacCine2D" else 3)


@pytest.mark.data
def test_real_set_for_synthetic_warps(shared_data):
    dataset = Learn2RegDataset(shared_data("TotalSegmentatorCT"))
    assert [set(entry) for entry in dataset.subjects] == [{"image", "label"}, {"image"}, {"image"}]
    assert len(dataset.validation_pairs()) == 2
    with pytest.raises(InputError, match="no pair of images to train on"):
        dataset.training_pairs()


@pytest.mark.data
def test_series_are_no_pairs(shared_data):
    with pytest.raises(InputError, match="no key 'training'"):
        Learn2RegDataset(shared_data("LungMR2Dt"))


def test_single_images_of_subjects_that_do_not_validate(write):
    val = [{"fixed": _image(3, 0), "moving": _image(3, 1)}]
    mask = _image(1, kind="masks")
    images = [{"image": _image(1), "mask": mask}, {"image": _image(2)}, {"image": _image(3, 0)}]
    folder = write(_content([], registration_val=val) | {"training": images, "pairings": "paired"})
    first, second = training_images(folder)
    assert first == {"image": str(folder / _image(1)), "mask": str(folder / mask), "image_id": "0001_0000"}
    assert second["image_id"] == "0002_0000"
    assert [item["image_id"] for item in validation_images(folder)] == ["0003_0000", "0003_0001"]


def test_single_images_listed_for_validation_or_split_away(write):
    folder = write(_content([_image(1), _image(2)], validation=[{"image": _image(9)}]))
    assert [item["image_id"] for item in validation_images(folder)] == ["0009"]
    assert len(training_images(folder)) == 2
    folder = write(_content([_image(n) for n in range(1, 11)]))
    train, val = ([item["image_id"] for item in images(folder, 3)] for images in (training_images, validation_images))
    assert len(val) == 2
    assert sorted(train + val) == [f"{n:04d}" for n in range(1, 11)]


def test_one_subject_leaves_nothing_to_validate_on(write):
    folder = write(_content([_image(1, 0), _image(1, 1)]))
    assert len(training_images(folder)) == 2
    with pytest.raises(InputError, match="one subject only"):
        validation_images(folder)

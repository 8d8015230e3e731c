"""Pairs of abdomen phantoms in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_regplugins.checks import InputError
from monai_regplugins.phantoms import AbdomenPairs, abdomen_subject, make_abdomen
from monai_regplugins.transforms.prepare import resize_image


@pytest.fixture(scope="module")
def pairs() -> AbdomenPairs:
    return AbdomenPairs((10, 8, 10), num_subjects=3)


def test_all_ordered_pairs_of_different_subjects(pairs: AbdomenPairs) -> None:
    names = [pair["pair_id"].split("_to_") for pair in pairs]
    assert len({tuple(name) for name in names}) == len(pairs) == 6
    assert all(moving != fixed for moving, fixed in names)


def test_a_subject_is_the_same_in_all_its_pairs(pairs: AbdomenPairs) -> None:
    images: dict[str, list[torch.Tensor]] = {}
    for pair in pairs:
        moving, fixed = pair["pair_id"].split("_to_")
        images.setdefault(moving, []).append(torch.cat([pair["moving"], pair["moving_label"]]))
        images.setdefault(fixed, []).append(torch.cat([pair["fixed"], pair["fixed_label"]]))
    assert len(images) == 3
    assert all(len(same) == 4 and all(torch.equal(same[0], one) for one in same) for same in images.values())
    assert not torch.equal(images["1000"][0], images["1001"][0])


def test_labels_lie_on_their_image(pairs: AbdomenPairs) -> None:
    pair = pairs[0]
    assert pair["fixed_label"].shape == pair["fixed"].shape == (20, 16, 20)
    assert torch.equal(pair["fixed_label"].affine, pair["fixed"].affine)
    assert np.diag(pair["fixed"].affine).tolist() == [16.0, 16.0, 16.0, 1.0]
    assert set(range(1, 12)) <= set(pair["fixed_label"].unique().tolist())


def test_resized_they_look_like_images_of_the_data_set() -> None:
    """The mean of finer voxels, as of a scan: drawn on the coarse grid itself, they would correlate by 0.93."""
    fine = abdomen_subject((0, 1000))
    (drawn, _), size = [AbdomenPairs((24, 20, 24), num_subjects=2)[0][key] for key in ("fixed", "moving")], (24, 20, 24)
    both = [
        resize_image(image[None].clamp(-160, 240), size).flatten().numpy()
        for image in (drawn.as_tensor(), torch.from_numpy(fine["image"]).float())
    ]
    assert np.corrcoef(both)[0, 1] > 0.955


def test_not_finer_than_the_data_set() -> None:
    assert AbdomenPairs((144, 20, 40)).shape == (80, 40, 80)


def test_training_draws_them_unless_a_data_set_is_given(tmp_path: Path, repository: Path) -> None:
    files = [str(repository / "bundles" / "ran" / "configs" / "train.json")]
    parser = ConfigParser(ConfigParser.load_config_files(files) | {"output_dir": str(tmp_path)})
    parser["embedded_dir"] = str(make_abdomen(tmp_path / "data", 3, 2, (20, 16, 20), 16.0))
    data = parser.get_parsed_content("train#dataset").data
    assert isinstance(data, AbdomenPairs)
    assert (len(data), data.shape) == (120 * 119, (48, 40, 48))
    parser["dataset_dir"], parser["embedded_dir"] = parser["embedded_dir"], "elsewhere"
    parser.parse(True)
    assert len(parser.get_parsed_content("train#dataset").data) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_size": (16, 16)}, "spatial_size is .16, 16., expected three sizes"),
        ({"spatial_size": (16, 3, 16)}, "at least 4 voxels"),
        ({"spatial_size": (16, 16, 16), "num_subjects": 1}, "num_subjects is 1, expected at least 2"),
    ],
)
def test_bad_input(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AbdomenPairs(**arguments)  # type: ignore[arg-type]


def test_no_pair_beyond_the_last(pairs: AbdomenPairs) -> None:
    with pytest.raises(IndexError, match="pair 6 of 6"):
        pairs[6]

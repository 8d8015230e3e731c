"""What is written of pairs with a ground truth is what the reader of data sets finds."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_regplugins.benchmark.ground_truth import (
    Subject,
    check_request,
    write_dataset,
    write_displacement,
)
from monai_regplugins.checks import InputError
from monai_regplugins.data import Learn2RegDataset
from monai_regplugins.transforms import LoadPaird

SHAPE = (5, 6, 7)


def subject(number: int, mask: bool) -> Subject:
    image, points = number + torch.arange(210.0).reshape(1, *SHAPE), torch.full((2, 3), 1.25 + number)
    return Subject(image, None, points, torch.ones(1, *SHAPE, dtype=torch.bool) if mask else None)


def test_the_reader_finds_what_was_written(tmp_path: Path) -> None:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    subjects = (subject(number, mask=number < 2) for number in range(3))
    write_dataset(tmp_path, "Made", "three images", affine, subjects, [(1, 0), (2, 0)])
    dataset = Learn2RegDataset(tmp_path)
    assert (dataset.name, dataset.spatial_dims, len(dataset.subjects)) == ("Made", 3, 1)
    pairs = [LoadPaird()(files) for files in dataset.validation_pairs()]
    assert [pair["pair_id"] for pair in pairs] == ["0000_to_0001", "0000_to_0002"]
    for number, pair in enumerate(pairs, start=1):
        assert torch.equal(pair["fixed"].as_tensor(), subject(number, mask=False).image)
        assert torch.equal(pair["moving"].as_tensor(), subject(0, mask=False).image)
        assert (pair["fixed_landmarks"] == 1.25 + number).all()
        assert pair["moving_mask"].all()
        assert "fixed_label" not in pair
        assert ("fixed_mask" in pair) == (number < 2)


def test_displacements_have_their_components_last(tmp_path: Path) -> None:
    ddf = torch.rand(3, *SHAPE)
    write_displacement(tmp_path, 12, 3, ddf, torch.eye(4, dtype=torch.float64))
    written = nib.load(tmp_path / "displacements" / "disp_0012_0003.nii.gz").get_fdata(dtype=np.float32)
    assert np.array_equal(written, np.moveaxis(ddf.numpy(), 0, -1))


def test_requests_are_checked(tmp_path: Path) -> None:
    check_request(tmp_path, 1, 1, 0)
    for numbers in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(InputError, match="expected at least 1, 1 and 0"):
            check_request(tmp_path, *numbers)
    (tmp_path / "precious").touch()
    with pytest.raises(InputError, match="is not empty"):
        check_request(tmp_path, 1, 1, 0)

from __future__ import annotations

from pathlib import Path

import pytest

from monai_regplugins.apps.label.dataset import write_dataset
from monai_regplugins.checks import InputError
from monai_regplugins.data import Learn2RegDataset


def test_a_datastore_becomes_pairs(studies: Path, tmp_path: Path) -> None:
    label = str(studies / "labels" / "final" / "atlas.nii.gz")
    entries = [{"image": str(path)} for path in sorted(studies.glob("*.nii.gz"))]
    entries[0]["label"] = label
    dataset = Learn2RegDataset(write_dataset(tmp_path / "data", entries, 3))
    assert dataset.spatial_dims == 3
    training, validation = dataset.training_pairs(), dataset.validation_pairs()
    assert training
    assert validation
    apart = {pair[side] for pair in training for side in ("fixed", "moving")}
    assert apart.isdisjoint(pair[side] for pair in validation for side in ("fixed", "moving"))
    assert {pair["moving_label"] for pair in [*training, *validation] if "moving_label" in pair} <= {label}


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds 3 images, expected 4 or more"):
        write_dataset(tmp_path / "data", [{"image": "x.nii.gz"}] * 3, 3)
    assert not (tmp_path / "data").exists()

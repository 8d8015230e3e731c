"""Preparation of a pair: that of its steps one after the other, and the same in evaluation and inference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_regplugins.checks import InputError
from monai_regplugins.data import CheckSeriesPaird, PreparePaird, prepare_pair
from monai_regplugins.transforms import (
    LoadPaird,
    ResampleToFixedd,
    ScalePaird,
    StandardizePaird,
    prepare,
)

RNG = np.random.default_rng(2)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    """Files of a pair on two grids, the moving one within a frame of zeros."""
    images = {"fixed": RNG.uniform(1, 9, (9, 8, 7)), "moving": np.pad(RNG.uniform(1, 9, (5, 6, 5)), 1)}
    for name, values in images.items():
        affine = np.diag([1.0, 1.0, 1.0 if name == "fixed" else 1.25, 1.0])
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), tmp_path / f"{name}.nii")  # type: ignore[attr-defined]
    return {name: str(tmp_path / f"{name}.nii") for name in images}


def assert_same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        same = torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
        assert same, key


def test_it_is_its_steps_one_after_the_other(pair: dict[str, str]) -> None:
    expected: Any = pair
    for step in [LoadPaird(), ResampleToFixedd("center", True, "border", 2.0), ScalePaird([2, 8])]:
        expected = step(expected)
    settings: dict[str, Any] = {"keep_original": True, "outside": "border", "lowest": 2.0}
    settings["initial_alignment"] = "center"
    assert_same(PreparePaird(ScalePaird([2, 8]), **settings)(pair), expected)


def test_a_training_aligns_a_pair_once(pair: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways are two pairs; of more pairs than may be kept the oldest is aligned again; an evaluation keeps none."""
    aligned: list[int] = []
    real = prepare.initial_matrix
    monkeypatch.setattr(prepare, "initial_matrix", lambda *args, **more: aligned.append(1) or real(*args, **more))
    monkeypatch.setattr(prepare_pair, "MOST_KEPT", 2)
    training = PreparePaird(ScalePaird(), initial_alignment="center")
    back = {"fixed": pair["moving"], "moving": pair["fixed"]}
    first = training(pair)
    assert_same(training(pair), first)
    assert len(aligned) == 1
    training(back)
    assert_same(training(pair), first)
    assert len(aligned) == 2
    training({"fixed": pair["fixed"], "moving": pair["fixed"]})
    training(back)
    assert len(aligned) == 3
    training(pair)
    assert len(aligned) == 4
    evaluation = PreparePaird(ScalePaird(), initial_alignment="center", keep_original=True)
    for _ in range(2):
        evaluation(pair)
    assert len(aligned) == 6


@pytest.mark.parametrize("part", ["train", "validate"])
def test_a_training_of_ran_aligns_its_validation_pairs_once_too(
    part: str, pair: dict[str, str], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned: list[int] = []
    real = prepare.initial_matrix
    monkeypatch.setattr(prepare, "initial_matrix", lambda *args, **more: aligned.append(1) or real(*args, **more))
    config = json.loads((repository / "bundles" / "ran" / "configs" / "train.json").read_text())
    settings = {**config, "window": [2, 8], "initial_alignment": "center"}
    preprocessing = ConfigParser(settings).get_parsed_content(f"{part}#preprocessing")
    prepared = [preprocessing(pair) for _ in range(2)]
    assert len(aligned) == 1
    if part == "validate":
        assert_same(prepared[1], prepared[0])


def test_a_check_sees_the_loaded_pair_before_any_work(pair: dict[str, str]) -> None:
    seen: list[Any] = []

    def refuse(loaded: Any) -> None:
        seen.append(loaded)
        raise InputError("no")

    prepare = PreparePaird(ScalePaird(), check=refuse)
    with pytest.raises(InputError, match="no"):
        prepare(pair)
    assert_same(seen[0], LoadPaird()(pair))


def test_settings_reach_the_steps() -> None:
    scaling = StandardizePaird()
    resampling: dict[str, Any] = {"initial_alignment": "affine", "keep_original": True}
    resampling |= {"outside": "border", "lowest": -1024.0, "extend_border": True}
    load, check, resample, last = PreparePaird(scaling, 2, ["label"], False, "dicom", **resampling).transforms
    assert isinstance(load, LoadPaird)
    assert load.spatial_dims == 2
    assert isinstance(check, CheckSeriesPaird)
    assert (check.other_patient, check.formats) == (False, ("dicom",))
    assert isinstance(resample, ResampleToFixedd)
    assert (resample.initial_alignment, resample.keep_original) == ("affine", True)
    assert (resample.outside, resample.lowest, resample.extend_border) == ("border", -1024.0, True)
    assert last is scaling


@pytest.mark.parametrize("name", ["ran", "regnet", "r2n2"])
def test_evaluation_prepares_as_inference_does(name: str, pair: dict[str, str], repository: Path) -> None:
    prepared = []
    for file in ("evaluate", "inference"):
        config = json.loads((repository / "bundles" / name / "configs" / f"{file}.json").read_text())
        settings = {**config, "window": [2, 8], "intensity_range": [0.0, 9.0], "bundle_root": str(repository)}
        settings["spatial_dims"] = 3
        prepared.append(ConfigParser(settings).get_parsed_content("preprocessing")(pair))
    assert_same(*prepared)

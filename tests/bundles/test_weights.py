"""The published weights, on phantoms of subjects that no training has seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from monai_regplugins import load_bundle
from monai_regplugins.data import validation_pairs
from monai_regplugins.phantoms import (
    make_abdomen,
    make_cine_lung,
    make_thorax,
    open_dataset,
)

pytestmark = [pytest.mark.bundle, pytest.mark.slow]

Measured = dict[str, float]
COLUMNS = {
    "fixed": "fixed",
    "moving": "moving",
    "fixed_label": "fixed_label",
    "moving_label": "moving_label",
    "fixed_landmarks": "fixed_points",
    "moving_landmarks": "moving_points",
}


@pytest.fixture
def measured(repository: Path, tmp_path: Path) -> Callable[..., Measured]:
    """Return a function that registers unseen subjects by a bundle's weights and gives the means of the measures."""

    def register(name: str, make: Callable[..., Path], refine_steps: int = 0) -> Measured:
        folder = make(tmp_path / name, num_training=1, num_validation=1 + (name == "ran"), seed=1)
        bundle = load_bundle(repository / "bundles" / name, refine_steps=refine_steps)
        pairs = validation_pairs(open_dataset(folder, folder), max_pairs=4)
        found = [bundle(**{COLUMNS[k]: v for k, v in pair.items() if k in COLUMNS}).metrics for pair in pairs]
        return {key: fmean(one[key] for one in found) for key in ("dsc", "dsc_before", "tre", "tre_before")}

    return register


@pytest.mark.parametrize(("refine_steps", "gain", "rest"), [(0, 0.1, 0.85), (30, 0.3, 0.5)])
def test_ran(measured: Callable[..., Measured], refine_steps: int, gain: float, rest: float) -> None:
    found = measured("ran", make_abdomen, refine_steps)
    assert found["dsc"] > found["dsc_before"] + gain
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize(("refine_steps", "rest"), [(0, 0.4), (30, 0.2)])
def test_r2n2(measured: Callable[..., Measured], refine_steps: int, rest: float) -> None:
    found = measured("r2n2", make_cine_lung, refine_steps)
    assert found["dsc"] > found["dsc_before"]
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize(("refine_steps", "rest"), [(0, 0.6), (30, 0.2)])
def test_regnet(measured: Callable[..., Measured], refine_steps: int, rest: float) -> None:
    found = measured("regnet", make_thorax, refine_steps)
    assert found["dsc"] > found["dsc_before"]
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize("name", ["ran", "r2n2", "regnet"])
def test_the_weights_that_the_bundle_names_are_there_and_small(repository: Path, name: str) -> None:
    bundle = repository / "bundles" / name
    named = {"models/model.pt", *re.findall(r"models/model_[a-z_]+\.pt", (bundle / "docs" / "README.md").read_text())}
    for file in named - {"models/model_last.pt"}:  # that one a training leaves
        assert (bundle / file).stat().st_size < 10e6

"""The published weights, on phantoms of subjects that no training has seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
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


MAKES: dict[str, Callable[..., Path]] = {
    "ran": partial(make_abdomen, num_validation=2),
    "r2n2": partial(make_cine_lung, num_validation=1),
    "regnet": partial(make_thorax, num_validation=1, spatial_shape=(64, 56, 64)),  # the middle of the thorax
}


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives subjects that no training of a bundle has seen."""
    return cache(lambda name: MAKES[name](tmp_path_factory.mktemp("unseen") / name, num_training=1, seed=1))


@pytest.fixture
def measured(repository: Path, unseen: Callable[[str], Path]) -> Callable[..., Measured]:
    """Return a function that registers unseen subjects by a bundle's weights and gives the means of the measures."""

    def register(name: str, refine_steps: int = 0) -> Measured:
        bundle = load_bundle(repository / "bundles" / name, refine_steps=refine_steps)
        pairs = validation_pairs(open_dataset(unseen(name), unseen(name)), max_pairs=4)
        found = [bundle(**{COLUMNS[k]: v for k, v in pair.items() if k in COLUMNS}) for pair in pairs]
        assert [result.verdict.level for result in found] == ["PASS"] * len(pairs)
        measures = ("dsc", "dsc_before", "tre", "tre_before")
        return {key: fmean(result.metrics[key] for result in found) for key in measures}

    return register


@pytest.mark.parametrize(("refine_steps", "gain", "rest"), [(0, 0.1, 0.85), (30, 0.3, 0.5)])
def test_ran(measured: Callable[..., Measured], refine_steps: int, gain: float, rest: float) -> None:
    found = measured("ran", refine_steps)
    assert found["dsc"] > found["dsc_before"] + gain
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize(("refine_steps", "rest"), [(0, 0.4), (30, 0.2)])
def test_r2n2(measured: Callable[..., Measured], refine_steps: int, rest: float) -> None:
    found = measured("r2n2", refine_steps)
    assert found["dsc"] > found["dsc_before"]
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize(("refine_steps", "rest"), [(0, 0.6), (30, 0.2)])
def test_regnet(measured: Callable[..., Measured], refine_steps: int, rest: float) -> None:
    found = measured("regnet", refine_steps)
    assert found["dsc"] > found["dsc_before"]
    assert found["tre"] < rest * found["tre_before"]


@pytest.mark.parametrize("name", ["ran", "r2n2", "regnet"])
def test_the_weights_that_the_bundle_names_are_there_and_small(repository: Path, name: str) -> None:
    bundle = repository / "bundles" / name
    named = {"models/model.pt", *re.findall(r"models/model_[a-z_]+\.pt", (bundle / "docs" / "README.md").read_text())}
    for file in named - {"models/model_last.pt"}:  # that one a training leaves
        assert (bundle / file).stat().st_size < 10e6

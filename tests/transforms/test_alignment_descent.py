"""The descent: kinds of maps, repeatability, failures."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.linalg import polar
from scipy.ndimage import affine_transform, gaussian_filter

from monai_regplugins.checks import InputError
from monai_regplugins.transforms import alignment_descent
from monai_regplugins.transforms.alignment_descent import CORRELATION, MUTUAL_INFORMATION, Descent, nearest_of_kind
from monai_regplugins.transforms.alignment_scan import Scan, scan_of

KINDS = ("rigid", "similarity", "affine")


@pytest.mark.parametrize("d", [2, 3])
def test_the_nearest_rotation_is_that_of_the_polar_decomposition(d: int) -> None:
    linear = np.eye(d) + 0.3 * np.random.default_rng(d).normal(size=(d, d))
    rotation, stretch = polar(linear)
    np.testing.assert_allclose(nearest_of_kind(linear, "rigid"), rotation, atol=1e-12)
    scale = np.linalg.det(stretch) ** (1 / d)
    np.testing.assert_allclose(nearest_of_kind(linear, "similarity"), scale * rotation, atol=1e-12)
    assert nearest_of_kind(linear, "affine") is linear


def pair(d: int) -> tuple[Scan, Scan, np.ndarray]:
    """Smooth noise, turned by 6 degrees and moved, and the map, in voxels of 1 mm."""
    shape = (28,) * d
    rng = np.random.default_rng(0)
    fixed = gaussian_filter(rng.normal(size=shape), 2.5)
    angle = np.deg2rad(6)
    matrix = np.eye(d + 1)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:d, d] = np.array([1.0, -2.0, 0.5])[:d] + 13.5 * (1 - matrix[:d, :d].sum(axis=1))
    inverse = np.linalg.inv(matrix)
    moving = affine_transform(fixed, inverse[:d, :d], inverse[:d, d], order=3, mode="nearest")
    scans = [scan_of(torch.from_numpy(one).float()[None], torch.eye(d + 1).double()) for one in (fixed, moving)]
    return scans[0], scans[1], matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", [CORRELATION, MUTUAL_INFORMATION])
@pytest.mark.parametrize("d", [2, 3])
def test_it_ends_at_the_truth(kind: str, metric: str, d: int) -> None:
    fixed, moving, truth = pair(d)
    found = Descent(fixed, moving, metric, steps=(1.0, 1e-3)).run(torch.eye(d + 1).double(), kind).numpy()
    middle = np.r_[np.full(d, 13.5), 1.0]
    assert np.linalg.norm((found - truth) @ middle) < 0.4
    np.testing.assert_allclose(found[:d, :d], truth[:d, :d], atol=0.03)
    if kind == "rigid":
        np.testing.assert_allclose(found[:d, :d] @ found[:d, :d].T, np.eye(d), atol=1e-9)


def test_the_same_images_give_the_same_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_descent, "SAMPLES", 200)
    fixed, moving, _ = pair(2)
    run = {
        seed: [Descent(fixed, moving, CORRELATION, seed=seed).run(torch.eye(3).double(), "affine") for _ in range(2)]
        for seed in (1, 2)
    }
    assert torch.equal(*run[1])
    assert not torch.equal(run[1][0], run[2][0])


def test_a_failing_optimizer_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("All samples map outside moving image buffer")

    fixed, moving, _ = pair(2)
    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", fail)
    with pytest.raises(InputError, match="overlap too little"):
        Descent(fixed, moving, CORRELATION).run(torch.eye(3).double(), "rigid")


def test_a_map_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, _ = pair(2)
    monkeypatch.setattr(alignment_descent, "_to_matrix", lambda _: torch.full((3, 3), float("nan")))
    with pytest.raises(InputError, match="not finite"):
        Descent(fixed, moving, CORRELATION).run(torch.eye(3).double(), "rigid")

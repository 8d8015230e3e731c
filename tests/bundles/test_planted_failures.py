"""Failures that are planted in small phantoms, and ordinary pairs, as the bundles register them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins import load_bundle
from monai_regplugins.checks import InputError
from monai_regplugins.phantoms import abdomen_subject, cine_lung_subject, thorax_subject
from monai_regplugins.registration import Registration
from monai_regplugins.verdict.judge import Verdict

pytestmark = pytest.mark.slow

BUNDLES = Path(__file__).parents[2] / "bundles"
SIZE = (32, 26, 32)
SPACING = {"ran": 10.0, "regnet": 8.5}
GRID = {"regnet": {"voxel_size": 5.0}}  # in mm; finer than the images, as that of the bundle is
Image = MetaTensor


@cache
def bundle(name: str, **settings: Any) -> Registration:
    return load_bundle(BUNDLES / name, device="cpu", **settings)


def image(values: Any, affine: Any) -> Image:
    return MetaTensor(torch.as_tensor(values.astype("float32"))[None], affine=torch.as_tensor(affine))


@cache
def patient(name: str, seed: int) -> list[Image]:
    """Images of a phantom that a bundle registers: two patients of RAN, phases and frames of the others."""
    if name == "ran":
        subjects = (abdomen_subject(2 * seed + number, SIZE, SPACING[name]) for number in (0, 1))
        return [image(subject["image"], subject["affine"]) for subject in subjects]
    if name == "regnet":
        thorax = thorax_subject(seed, (0.0, 1.0), SIZE, SPACING[name])
        return [image(values, thorax.affine) for values in thorax.images]
    cine = cine_lung_subject(seed, 4, (64, 64), 4.0)
    return [image(cine.frames[frame], cine.affine) for frame in (cine.reference % 4, 3 - cine.reference % 4)]


def verdict(name: str, fixed: Image, moving: Image, **settings: Any) -> Verdict:
    return bundle(name, **{**GRID.get(name, {}), **settings})(fixed, moving, pair_id="pair").verdict


def noise(like: Image) -> Image:
    low, high = float(like.min()), float(like.max())
    values = torch.rand(like.shape, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    return MetaTensor(values, affine=like.affine)


def placed(one: Image, change: Callable[[torch.Tensor], None]) -> Image:
    """An image with another header."""
    affine = one.affine.clone()
    change(affine)
    return MetaTensor(one.as_tensor(), affine=affine)


def in_centimeters(one: Image) -> Image:
    return placed(one, lambda affine: affine[:3].mul_(0.1))


def upside_down(one: Image) -> Image:
    return MetaTensor(one.as_tensor().flip(3 if one.ndim == 4 else 1), affine=one.affine)


def one_slab(one: Image) -> Image:
    """Moved along the body, such that a seventh of its field of view is left in common."""
    length = float(one.affine[2, :3].abs().max()) * max(one.shape[1:])
    return placed(one, lambda affine: affine[2, 3].add_(0.86 * length))


PLANTED: dict[str, Callable[[Image, Image], tuple[Image, Image]]] = {
    "noise for the moving image": lambda fixed, moving: (fixed, noise(moving)),
    "noise for the fixed image": lambda fixed, moving: (noise(fixed), moving),
    "both in centimeters": lambda fixed, moving: (in_centimeters(fixed), in_centimeters(moving)),
    "one in centimeters": lambda fixed, moving: (fixed, in_centimeters(moving)),
    "upside down": lambda fixed, moving: (fixed, upside_down(moving)),
    "one slab in common": lambda fixed, moving: (fixed, one_slab(moving)),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["ran", "regnet", "r2n2"])
def test_ordinary_pairs_pass(name: str, seed: int) -> None:
    assert verdict(name, *patient(name, seed)) == Verdict("PASS")


@pytest.mark.parametrize("kind", list(PLANTED))
@pytest.mark.parametrize("name", ["ran", "regnet", "r2n2"])
def test_planted_failures_do_not_pass(name: str, kind: str) -> None:
    found = verdict(name, *PLANTED[kind](*patient(name, 0)))
    assert found.level != "PASS"
    if "noise" in kind:
        assert any("look unlike" in reason for reason in found.reasons)
    if "slab" in kind:
        assert any(reason.startswith("FAIL: the fields of view share only") for reason in found.reasons)
    if "centimeters" in kind:
        assert any("centimeters" in reason for reason in found.reasons)


@pytest.mark.parametrize("name", ["regnet", "r2n2"])
def test_another_patient_does_not_pass_where_a_bundle_is_made_for_one(name: str) -> None:
    assert verdict(name, patient(name, 0)[0], patient(name, 1)[1]).level != "PASS"


def test_nor_does_another_patient_of_the_same_build() -> None:
    fixed, moving = (thorax_subject(seed, (0.0, 0.5), SIZE, SPACING["regnet"]) for seed in (5516, 5517))
    found = verdict("regnet", image(fixed.images[0], fixed.affine), image(moving.images[1], moving.affine))
    assert any("all of the image has moved" in reason for reason in found.reasons), found


def test_another_region_does_not_pass() -> None:
    fixed, thorax = patient("ran", 0)[0], patient("regnet", 0)[1]
    assert verdict("ran", fixed, MetaTensor(thorax.as_tensor(), affine=fixed.affine)).level != "PASS"


@pytest.mark.parametrize("steps", [0, 30])
@pytest.mark.parametrize("name", ["ran", "r2n2"])
def test_weights_of_noise_do_not_pass(name: str, steps: int, tmp_path: Path) -> None:
    weights = torch.load(BUNDLES / name / "models" / "model.pt", weights_only=True)
    torch.manual_seed(0)
    random = {
        key: 0.3 * torch.randn_like(value) if value.is_floating_point() else value for key, value in weights.items()
    }
    torch.save(random, tmp_path / "noise.pt")
    found = verdict(name, *patient(name, 0), refine_steps=steps, ckpt=str(tmp_path / "noise.pt"))
    assert found.level == ("FAIL" if steps == 0 else "WARN"), found
    assert any("are these the right weights?" in reason for reason in found.reasons)


def test_a_working_grid_of_one_voxel_does_not_pass() -> None:
    found = verdict("regnet", *patient("regnet", 0), voxel_size=300.0)
    assert any("the images were seen on a grid of" in reason for reason in found.reasons), found
    assert found.level == "FAIL"


@pytest.mark.parametrize(("name", "size", "least"), [("ran", (1, 1, 1), 8), ("r2n2", (2, 2), 16)])
def test_a_working_grid_that_is_too_small_for_the_network_is_refused(
    name: str, size: tuple[int, ...], least: int
) -> None:
    with pytest.raises(InputError, match=f"expected at least {least} voxels along each axis"):
        verdict(name, *patient(name, 0), spatial_size=size)

"""One grid, one intensity range, one size: against SimpleITK, nibabel and closed forms."""

from __future__ import annotations

from typing import Any

import nibabel.processing
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.memory import REGISTERING, RESAMPLING
from monai_regplugins.transforms.prepare import (
    IsotropicSubjectd,
    ResampleToFixedd,
    ResizePaird,
    ScalePaird,
    ScaleRangePaird,
    StandardizePaird,
    resize_image,
)

RNG = np.random.default_rng(0)
OBLIQUE = np.array(  # left-handed, rotated about x, anisotropic
    [[-1.5, 0.0, 0.0, 15.1], [0.0, 1.6, -1.8, 3.03], [0.0, 1.2, 2.4, -4.07], [0.0, 0.0, 0.0, 1.0]]
)
PLAIN = np.array([[2.0, 0.0, 0.0, 1.0], [0.0, 1.5, 0.0, -2.0], [0.0, 0.0, 2.5, 0.5], [0.0, 0.0, 0.0, 1.0]])
SHIFTED = PLAIN + 30.0 * np.eye(4, k=3)


def volume(shape: tuple[int, ...], affine: np.ndarray[Any, Any], offset: float = 0.0) -> MetaTensor:
    data = torch.from_numpy(RNG.normal(size=(1, *shape)).astype(np.float32)) + offset
    return MetaTensor(data, affine=torch.from_numpy(affine), meta={"filename_or_obj": "image.nii"})


def labels(shape: tuple[int, ...], affine: np.ndarray[Any, Any]) -> MetaTensor:
    data = torch.from_numpy(RNG.integers(1, 9, size=(1, *shape)).astype(np.uint8))
    return MetaTensor(data, affine=torch.from_numpy(affine))


def to_sitk(image: MetaTensor) -> sitk.Image:
    """The image with its LPS header, as ITK would read it."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine.numpy()
    result = sitk.GetImageFromArray(image[0].numpy().T)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    result.SetSpacing(spacing.tolist())
    result.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    result.SetOrigin(lps[:3, 3].tolist())
    return result


@pytest.fixture
def pair() -> dict[str, Any]:
    """Fixed and moving image on different grids that overlap in part."""
    return {
        "moving": volume((9, 8, 10), OBLIQUE, offset=100.0),
        "moving_label": labels((9, 8, 10), OBLIQUE),
        "fixed": volume((7, 10, 8), PLAIN),
        "moving_keypoints": torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]),
        "pair_id": "a_to_b",
    }


def test_moving_on_the_fixed_grid_equals_simpleitk(pair: dict[str, Any]) -> None:
    prepared = ResampleToFixedd()(pair)
    for key, interpolator, padding in (
        ("moving", sitk.sitkLinear, float(pair["moving"].min())),
        ("moving_label", sitk.sitkNearestNeighbor, 0.0),
    ):
        reference = sitk.Resample(to_sitk(pair[key]), to_sitk(pair["fixed"]), sitk.Transform(), interpolator, padding)
        expected = sitk.GetArrayFromImage(reference).T
        inside = np.mean(expected != padding)
        assert 0.3 < inside < 0.9, "the case must have voxels inside and outside the moving field of view"
        np.testing.assert_allclose(prepared[key][0], expected, atol=2e-4)
        assert prepared[key].dtype == pair[key].dtype
        np.testing.assert_array_equal(prepared[key].affine, PLAIN)


def test_spacing_and_identity_initial_alignment_are_added(pair: dict[str, Any]) -> None:
    prepared = ResampleToFixedd()(pair)
    assert torch.equal(prepared["spacing"], torch.tensor([2.0, 1.5, 2.5]))
    assert torch.equal(prepared["initial_alignment_matrix"], torch.eye(4, dtype=torch.float64))
    assert prepared["fixed"] is pair["fixed"]
    assert prepared["moving"].meta["filename_or_obj"] == "image.nii"
    assert "moving_original" not in prepared


def test_moving_points_follow_onto_the_fixed_grid(pair: dict[str, Any]) -> None:
    prepared = ResampleToFixedd(keep_original=True)(pair)
    moving_world = nibabel.affines.apply_affine(OBLIQUE, pair["moving_keypoints"].numpy())
    fixed_world = nibabel.affines.apply_affine(PLAIN, prepared["moving_keypoints"].numpy())
    np.testing.assert_allclose(fixed_world, moving_world, atol=1e-4)
    assert prepared["moving_keypoints_original"] is pair["moving_keypoints"]


def test_originals_are_kept_where_asked(pair: dict[str, Any]) -> None:
    prepared = ResampleToFixedd(keep_original=True)(pair)
    assert prepared["moving_original"] is pair["moving"]
    assert prepared["moving_label_original"] is pair["moving_label"]
    np.testing.assert_array_equal(prepared["moving_original"].affine, OBLIQUE)


def test_equal_grids_are_not_sampled(pair: dict[str, Any]) -> None:
    pair["moving"] = volume((7, 10, 8), PLAIN + 5e-4 * np.eye(4, k=3))
    pair["moving_label"] = labels((7, 10, 8), PLAIN)
    prepared = ResampleToFixedd()(pair)
    assert prepared["moving"].data_ptr() == pair["moving"].data_ptr()
    assert prepared["moving_label"].data_ptr() == pair["moving_label"].data_ptr()
    np.testing.assert_array_equal(prepared["moving"].affine, PLAIN)
    assert torch.equal(prepared["moving_keypoints"], pair["moving_keypoints"])


def test_outside_the_moving_image_is_its_minimum_or_its_border() -> None:
    image = torch.arange(1.0, 65.0).reshape(1, 4, 4, 4)
    fixed = MetaTensor(torch.rand(1, 6, 4, 4), affine=torch.eye(4))
    pair = {"moving": MetaTensor(image, affine=torch.eye(4)), "fixed": fixed}
    at_minimum, continued = (ResampleToFixedd(outside=outside)(pair)["moving"] for outside in ("minimum", "border"))
    torch.testing.assert_close(at_minimum[0, :4].as_tensor(), image[0])
    torch.testing.assert_close(continued[0, :4].as_tensor(), image[0])
    assert (at_minimum[0, 4:] == 1).all()
    torch.testing.assert_close(continued[0, 4:].as_tensor(), image[0, -1:].expand(2, 4, 4))
    with pytest.raises(InputError, match="outside is 'zero'"):
        ResampleToFixedd(outside="zero")


def test_initial_alignment_finds_the_shifted_image() -> None:
    blob = torch.zeros(1, 8, 8, 8)
    blob[0, 2:5, 3:6, 3:7] = torch.rand(3, 3, 4) + 1
    fixed = MetaTensor(blob, affine=torch.from_numpy(PLAIN))
    moving = MetaTensor(blob, affine=torch.from_numpy(PLAIN + 20.0 * np.eye(4, k=3)))
    prepared = ResampleToFixedd(initial_alignment="center")({"moving": moving, "fixed": fixed})
    torch.testing.assert_close(prepared["initial_alignment_matrix"][:3, 3], torch.tensor([20.0, 0.0, 0.0]).double())
    torch.testing.assert_close(prepared["moving"].as_tensor(), blob)


@pytest.mark.parametrize("size", [3, 4], ids=["3x3", "4x4"])
def test_slices_are_resampled_in_their_plane(size: int) -> None:
    fixed_affine, moving_affine = np.eye(size), np.diag([0.5, 2.0, *[1.0] * (size - 2)])
    moving_affine[0, -1] = 1.0
    ramp = torch.arange(12.0)[:, None] + 100 * torch.arange(6.0)
    prepared = ResampleToFixedd()(
        {
            "moving": MetaTensor(ramp[None], affine=torch.from_numpy(moving_affine)),
            "fixed": MetaTensor(torch.rand(1, 5, 7), affine=torch.from_numpy(fixed_affine)),
        }
    )
    expected = (2 * (torch.arange(1.0, 5.0) - 1))[:, None] + 50 * torch.arange(7.0)
    torch.testing.assert_close(prepared["moving"].as_tensor()[0, 1:], expected)
    assert prepared["spacing"].tolist() == [1.0, 1.0]
    assert prepared["initial_alignment_matrix"].shape == (3, 3)


def test_slices_of_different_planes_are_refused() -> None:
    sagittal = torch.eye(4)[[2, 0, 1, 3]]
    moving, fixed = (MetaTensor(torch.rand(1, 5, 7), affine=affine) for affine in (sagittal, torch.eye(4)))
    with pytest.raises(InputError, match="different planes"):
        ResampleToFixedd()({"moving": moving, "fixed": fixed})


@pytest.mark.parametrize("key", ["moving", "fixed"])
def test_sheared_affines_are_refused(pair: dict[str, Any], key: str) -> None:
    pair[key] = volume((7, 10, 8), PLAIN + 0.3 * np.eye(4, k=1) * (np.arange(4) < 2)[:, None])
    with pytest.raises(InputError, match=f"{key} image is sheared"):
        ResampleToFixedd()(pair)


def test_images_that_do_not_overlap_are_refused(pair: dict[str, Any]) -> None:
    far = OBLIQUE.copy()
    far[2, 3] += 500
    pair["moving"] = volume((9, 8, 10), far)
    with pytest.raises(InputError, match="do not overlap"):
        ResampleToFixedd()(pair)


def test_unknown_initial_alignment_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'center'"):
        ResampleToFixedd(initial_alignment="centre")


def test_scale_clips_to_the_window_then_spans_zero_to_one() -> None:
    image = torch.tensor([-1000.0, -100.0, 100.0, 300.0, 3000.0]).reshape(1, 5, 1)
    narrow = torch.tensor([-50.0, 0.0, 0.0, 50.0, 50.0], dtype=torch.float64).reshape(1, 5, 1)
    pair = {"moving": MetaTensor(image), "fixed": MetaTensor(narrow), "spacing": torch.ones(2)}
    scaled = ScalePaird(window=[-100, 300])(pair)
    assert scaled["moving"].flatten().tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert scaled["fixed"].flatten().tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert scaled["fixed"].dtype == torch.float32
    assert ScalePaird()(pair)["moving"].flatten().tolist() == pytest.approx([0.0, 0.225, 0.275, 0.325, 1.0])


def test_scale_keeps_the_affine(pair: dict[str, Any]) -> None:
    scaled = ScalePaird()(pair)
    np.testing.assert_array_equal(scaled["moving"].affine, OBLIQUE)
    assert scaled["moving"].min() == 0.0
    assert scaled["moving"].max() == 1.0
    assert scaled["moving_label"] is pair["moving_label"]


def test_scale_refuses_an_image_outside_the_window(pair: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"moving image clipped to window \[-10, 10\] is constant"):
        ScalePaird(window=[-10, 10])(pair)


@pytest.mark.parametrize("window", [[300, -100], [0, 0], [1, 2, 3]])
def test_scale_refuses_a_bad_window(window: list[float]) -> None:
    with pytest.raises(InputError, match="window is"):
        ScalePaird(window=window)


@pytest.fixture
def on_one_grid() -> dict[str, Any]:
    return {
        "moving": volume((8, 6, 10), OBLIQUE),
        "fixed": volume((8, 6, 10), OBLIQUE),
        "fixed_label": labels((8, 6, 10), OBLIQUE),
        "fixed_landmarks": torch.tensor([[0.0, 0.0, 0.0], [3.5, 2.5, 4.5]]),
        "spacing": torch.tensor([1.5, 2.0, 3.0]),
    }


def test_resize_averages_where_the_factor_is_whole(on_one_grid: dict[str, Any]) -> None:
    resized = ResizePaird((4, 2, 10))(on_one_grid)
    expected = on_one_grid["fixed"].numpy().reshape(1, 4, 2, 2, 3, 10).mean(axis=(2, 4))
    np.testing.assert_allclose(resized["fixed"], expected, atol=1e-6)
    assert resized["spacing"].tolist() == [3.0, 6.0, 3.0]


def test_resize_of_a_ramp_is_the_ramp_at_the_new_centers() -> None:
    centers = (np.arange(12) + 0.5) * 8 / 12 - 0.5
    inside = (centers >= 0) & (centers <= 7)
    resized = resize_image(torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 4), (12, 2))
    np.testing.assert_allclose(resized[0, inside, 0], centers[inside], atol=1e-6)


def test_resized_grid_equals_simpleitk_sampling_there(on_one_grid: dict[str, Any]) -> None:
    resized = ResizePaird((16, 8, 16))(on_one_grid)  # no new center falls on an old face: the nearest voxel is unique
    for key, interpolator in (("fixed", sitk.sitkLinear), ("fixed_label", sitk.sitkNearestNeighbor)):
        reference = sitk.Resample(to_sitk(on_one_grid[key]), to_sitk(resized[key]), sitk.Transform(), interpolator)
        np.testing.assert_allclose(resized[key][0], sitk.GetArrayFromImage(reference).T, atol=1e-4)
        assert resized[key].dtype == on_one_grid[key].dtype


def test_resized_points_stay_where_they_are_in_the_world(on_one_grid: dict[str, Any]) -> None:
    resized = ResizePaird((4, 9, -1))(on_one_grid)
    assert resized["fixed"].shape == (1, 4, 9, 10)
    before = nibabel.affines.apply_affine(OBLIQUE, on_one_grid["fixed_landmarks"].numpy())
    after = nibabel.affines.apply_affine(resized["fixed"].affine.numpy(), resized["fixed_landmarks"].numpy())
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(resized["spacing"], nibabel.affines.voxel_sizes(OBLIQUE) * [2, 6 / 9, 1], rtol=1e-6)


def test_resize_to_the_same_size_changes_nothing(on_one_grid: dict[str, Any]) -> None:
    resized = ResizePaird((8, -1, 10))(on_one_grid)
    assert all(value is on_one_grid[key] for key, value in resized.items())


def test_resize_in_2d_takes_one_number_for_all_axes() -> None:
    image = MetaTensor(torch.rand(1, 8, 6))
    assert ResizePaird(4)({"moving": image, "fixed": image})["fixed"].shape == (1, 4, 4)


@pytest.mark.parametrize("size", [(4, 4), (4, 0, 4), -2])
def test_resize_refuses_a_bad_size(on_one_grid: dict[str, Any], size: Any) -> None:
    with pytest.raises(InputError, match="spatial_size is"):
        ResizePaird(size)(on_one_grid)


def test_resize_refuses_images_on_different_grids(pair: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="moving image has size"):
        ResizePaird(4)(pair)


def test_standardize_each_image_and_clip() -> None:
    images = {key: MetaTensor(50 + 7 * torch.randn(1, 20, 30), affine=torch.eye(4)) for key in ("moving", "fixed")}
    free, clipped = StandardizePaird(clip=None)(images), StandardizePaird()(images)
    for key, image in images.items():
        plain = image.as_tensor()
        torch.testing.assert_close(free[key].as_tensor(), (plain - plain.mean()) / plain.std(correction=1))
        torch.testing.assert_close(clipped[key].as_tensor(), free[key].as_tensor().clamp(-2, 2))
    with pytest.raises(InputError, match="moving image"):
        StandardizePaird()({**images, "moving": MetaTensor(torch.ones(1, 4, 4))})


def test_single_image_to_isotropic_voxels() -> None:
    """Twice as many voxels along an axis of 2 mm, half as many along one of 0.5 mm; the field of view stays."""
    affine = np.diag([2.0, 1.0, 0.5, 1.0])
    item = {
        "image": volume((4, 5, 6), affine),
        "mask": labels((4, 5, 6), affine) > 4,
        "spacing": torch.tensor([2.0, 1.0, 0.5]),
    }
    found = IsotropicSubjectd(1.0)(item)
    assert found["image"].shape == found["mask"].shape == (1, 8, 5, 3)
    assert found["spacing"].tolist() == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found["image"].affine.diagonal(), np.ones(4))
    np.testing.assert_allclose(found["image"].affine[:3, 3], [-0.5, 0.0, 0.25])
    pairs = item["image"].as_tensor().unflatten(3, (3, 2)).mean(4)
    np.testing.assert_allclose(found["image"].as_tensor()[:, 0], pairs[:, 0], rtol=1e-6)
    assert set(found["mask"].unique().tolist()) <= {0, 1}
    again = IsotropicSubjectd(1.0)(found)
    assert again["image"] is found["image"]


def test_voxels_of_no_size() -> None:
    with pytest.raises(InputError, match="voxel_size"):
        IsotropicSubjectd(0.0)


def test_a_grid_that_the_memory_does_not_hold(pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 7 x 10 x 8 voxels; those of the moving image do not matter."""
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", f"{REGISTERING * 560}")
    ResampleToFixedd(keep_original=True)(pair)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", f"{REGISTERING * 560 - 1}")
    ResampleToFixedd()(pair)
    with pytest.raises(InputError, match=r"grid of the fixed image has 7 x 10 x 8 voxels, .* of memory to register"):
        ResampleToFixedd(keep_original=True)(pair)
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", f"{RESAMPLING * 560 - 1}")
    with pytest.raises(InputError, match=r"grid of the fixed image has 7 x 10 x 8 voxels, .* of memory to resample"):
        ResampleToFixedd()(pair)


def test_one_bright_voxel_does_not_scale_the_rest_away() -> None:
    image = torch.linspace(0, 100, 4000).view(1, 50, 80)
    marked = image.clone()
    marked[0, 25, 40] = 1e5
    pair = {key: MetaTensor(values) for key, values in (("moving", marked), ("fixed", image))}
    scaled = ScalePaird()(pair)
    others = (marked == image)[0]
    torch.testing.assert_close(scaled["moving"][0][others], scaled["fixed"][0][others], atol=2e-3, rtol=0)


def test_a_window_of_another_unit_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    ct = torch.full((1, 20, 20), -1000.0)
    ct[:, 4:16, 4:16] = torch.linspace(-100, 200, 144).view(12, 12)
    for offset, lines in ((0.0, 0), (1024.0, 2)):
        caplog.clear()
        ScalePaird([-160, 240])({key: MetaTensor(ct + offset) for key in ("moving", "fixed")})
        assert [message.startswith("the window [-160, 240] clips 100 %") for message in caplog.messages] == [
            True
        ] * lines


def test_what_was_not_measured_leaves_the_masks() -> None:
    """Padding of the scanner, and fixed voxels beyond the moving image."""
    fixed, moving = torch.rand(1, 8, 8), torch.rand(1, 8, 6)
    fixed[..., 0] = moving[..., 0, :] = -3024
    pair = ResampleToFixedd(keep_original=True, lowest=-1024)(
        {"fixed": MetaTensor(fixed), "moving": MetaTensor(moving)}
    )
    assert pair["fixed_mask"][0].nonzero()[:, 1].unique().tolist() == [1, 2, 3, 4, 5, 6, 7]
    expected = torch.ones(8, 8)
    expected[0] = 0
    expected[:, 6:] = 0
    assert torch.equal(pair["moving_mask"][0].float().as_tensor(), expected)


@pytest.mark.parametrize("keep_original", [True, False])
def test_the_border_is_extended_before_the_moving_image_is_turned(keep_original: bool) -> None:
    """Slices that vary along x alone, in a frame of zeros: turned by 30 degrees about z, they vary along x' alone."""
    angle, x = np.radians(30), torch.arange(24.0)
    inner = (x >= 5) & (x <= 18)
    framed = torch.where(inner[:, None, None] & inner[:, None] & inner, x[:, None, None] + 1, 0.0)[None]
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affines = {"moving": matrix, "fixed": np.eye(4) + 8.0 * np.eye(4, k=3) * np.array([[1], [0], [0], [0]])}
    given = {key: MetaTensor(framed, affine=torch.from_numpy(affine)) for key, affine in affines.items()}
    pair = ResampleToFixedd(keep_original=keep_original, extend_border=True)(dict(given))
    here = torch.meshgrid(x + 8, x, x, indexing="ij")
    there = np.cos(angle) * here[0] + np.sin(angle) * here[1]
    torch.testing.assert_close(pair["moving"][0].as_tensor(), there.clamp(5, 18) + 1, atol=1e-4, rtol=0)
    torch.testing.assert_close(pair["fixed"][0].as_tensor(), (here[0] - 8).clamp(5, 18) + 1)
    assert ("moving_mask" in pair) == ("fixed_mask" in pair) == keep_original
    if keep_original:
        assert torch.equal(pair["moving_original"].as_tensor(), framed)
        for key in ("fixed_mask", "moving_mask_original"):
            assert torch.equal(pair[key].as_tensor(), framed > 0)


@pytest.mark.parametrize("scaling", [ScalePaird(), StandardizePaird(clip=None)])
def test_what_fills_voxels_that_are_not_covered_does_not_scale_the_others(scaling: Any) -> None:
    """Equal images, of which the moving one lacks half; the fixed one is brighter there."""
    fixed = torch.rand(1, 16, 16)
    fixed[:, 8:] += 5
    images = {"fixed": MetaTensor(fixed, affine=torch.eye(3)), "moving": MetaTensor(fixed[:, :8], affine=torch.eye(3))}
    scaled = scaling(ResampleToFixedd(keep_original=True)(images))
    torch.testing.assert_close(scaled["moving"][:, :8].as_tensor(), scaled["fixed"][:, :8].as_tensor())
    alone = scaling({key: MetaTensor(fixed[:, :8]) for key in images})
    torch.testing.assert_close(scaled["moving"][:, :8].as_tensor(), alone["moving"].as_tensor())


@pytest.mark.parametrize("scaling", [ScalePaird(), StandardizePaird()])
def test_an_image_that_is_constant_where_both_show_something_is_scaled_by_all_of_it(scaling: Any) -> None:
    image, covered = torch.rand(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    image[:, 4:], covered[:, :4] = 0.5, False
    pair = {"fixed": MetaTensor(image), "moving": MetaTensor(torch.rand(1, 8, 8))}
    assert torch.equal(scaling({**pair, "covered": MetaTensor(covered)})["fixed"], scaling(pair)["fixed"])


def test_an_interval_becomes_zero_to_one_without_clipping() -> None:
    values = torch.linspace(-2000.0, 4000.0, 16).reshape(1, 4, 4)
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0]))
    scaled = ScaleRangePaird([-1000.0, 3095.0])({key: MetaTensor(values, affine=affine) for key in ("moving", "fixed")})
    for image in scaled.values():
        np.testing.assert_allclose(image.numpy(), (values.numpy() + 1000) / 4095, atol=1e-6)
        assert torch.equal(image.affine, affine.double())

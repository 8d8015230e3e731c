"""The whole map from fixed to moving world, against the formula in float64 and SimpleITK's composite transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from peak_memory import peak_growth
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from monai_regplugins.checks import InputError
from monai_regplugins.fields import sample_at
from monai_regplugins.metrics.landmarks import landmark_errors
from monai_regplugins.transforms.prepare import ResampleToFixedd
from monai_regplugins.transforms.warp_original import (
    WarpOriginald,
    inverse_displacement,
    map_to_moving,
    resample_original,
    solved_inverse,
    total_displacement,
)

RNG = np.random.default_rng(0)
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS <-> LPS
FIXED_AFFINE = np.array(
    [[-1.5, 0.0, 0.0, 115.0], [0.0, 1.6, -1.8, 203.0], [0.0, 1.2, 2.4, -304.0], [0.0, 0.0, 0.0, 1.0]]
)
MOVING_AFFINE = np.array(
    [[2.0, 0.0, 0.0, 101.0], [0.0, 1.5, 0.0, 190.0], [0.0, 0.0, 2.5, -302.0], [0.0, 0.0, 0.0, 1.0]]
)
FIXED_SHAPE, MOVING_SHAPE = (7, 8, 6), (9, 10, 11)


def initial_alignment() -> np.ndarray[Any, Any]:
    """A rotation about the middle of the fixed image, with some scale and a shift."""
    center = (FIXED_AFFINE @ [3, 4, 3, 1])[:3]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [5, -4, 6], degrees=True).as_matrix() * 1.05
    matrix[:3, 3] = center - matrix[:3, :3] @ center + [1.0, 2.0, -1.5]
    return matrix


def geometry(shape: tuple[int, ...], affine: np.ndarray[Any, Any]) -> sitk.Image:
    """An empty ITK image on the grid."""
    lps = FLIP @ affine
    image = sitk.Image(*shape, sitk.sitkFloat64)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def on_grid(data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], is_vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(data, isVector=is_vector)
    image.CopyInformation(geometry(image.GetSize(), affine))
    return image


def composite(ddf: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any]) -> sitk.CompositeTransform:
    """The same map built from ITK parts: the field meets the point first, then the initial alignment."""
    lps_vectors = np.einsum("kj,jxyz->zyxk", (FLIP @ FIXED_AFFINE)[:3, :3], ddf)
    warp = sitk.DisplacementFieldTransform(on_grid(np.ascontiguousarray(lps_vectors), FIXED_AFFINE, is_vector=True))
    lps_matrix = FLIP @ matrix @ FLIP
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps_matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(lps_matrix[:3, 3].tolist())
    return sitk.CompositeTransform([affine, warp])


@pytest.mark.parametrize("with_initial_alignment", [True, False])
def test_total_displacement_equals_simpleitks_composite(with_initial_alignment: bool) -> None:
    ddf = RNG.normal(size=(3, *FIXED_SHAPE))
    matrix = initial_alignment() if with_initial_alignment else np.eye(4)
    given = torch.from_numpy(matrix) if with_initial_alignment else None
    displacement = total_displacement(torch.from_numpy(ddf), torch.from_numpy(FIXED_AFFINE), given).numpy()
    transform, grid = composite(ddf, matrix), geometry(FIXED_SHAPE, FIXED_AFFINE)
    for voxel in [(0, 0, 0), (6, 7, 5), (3, 2, 4), (1, 6, 0)]:
        point = np.array(grid.TransformIndexToPhysicalPoint(voxel))
        expected = FLIP[:3, :3] @ (np.array(transform.TransformPoint(point.tolist())) - point)
        np.testing.assert_allclose(displacement[(slice(None), *voxel)], expected, atol=1e-9)


def test_single_precision_is_enough_for_a_micrometer() -> None:
    ddf = torch.from_numpy(RNG.normal(size=(3, *FIXED_SHAPE)))
    affine, matrix = torch.from_numpy(FIXED_AFFINE), torch.from_numpy(initial_alignment())
    single = total_displacement(ddf.float(), affine.float(), matrix)
    assert single.dtype == torch.float32
    assert total_displacement(ddf.half(), affine, matrix).dtype == torch.float32
    assert float((single - total_displacement(ddf, affine.float(), matrix)).abs().max()) < 1e-4


def test_warping_the_original_equals_simpleitks_composite() -> None:
    ddf, matrix = RNG.normal(size=(3, *FIXED_SHAPE)), initial_alignment()
    moving = RNG.normal(size=MOVING_SHAPE)
    affines = torch.from_numpy(MOVING_AFFINE), torch.from_numpy(FIXED_AFFINE)
    displacement = total_displacement(torch.from_numpy(ddf), affines[1], torch.from_numpy(matrix))
    for mode, interpolator in (("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)):
        reference = sitk.Resample(
            on_grid(np.ascontiguousarray(moving.T), MOVING_AFFINE),
            geometry(FIXED_SHAPE, FIXED_AFFINE),
            composite(ddf, matrix),
            interpolator,
            -7.0,
        )
        expected = sitk.GetArrayFromImage(reference).T
        warped = resample_original(torch.from_numpy(moving)[None], *affines, displacement, mode, padding_value=-7.0)
        assert 0.3 < np.mean(expected != -7.0) < 1.0, "the case must have voxels inside and outside"
        np.testing.assert_allclose(warped[0], expected, atol=1e-8)


def test_landmarks_through_the_exact_map_have_no_error() -> None:
    """The point of x is T(A x + A u(x)), not T(A x) + A u(x), which the authors of RegNet score: that is off by
    (T - 1) A u."""
    field = np.column_stack([RNG.normal(scale=0.05, size=(3, 3)), [1.5, -2.0, 1.0]])  # linear, so exact between voxels
    ddf = torch.from_numpy(np.einsum("kj,jxyz->kxyz", field[:, :3], np.indices(FIXED_SHAPE)) + field[:, 3:, None, None])
    x = RNG.uniform(1, 5, size=(40, 3))
    u = x @ field[:, :3].T + field[:, 3]
    matrix, linear = initial_alignment(), FIXED_AFFINE[:3, :3]

    def errors(moving_world: np.ndarray[Any, Any]) -> torch.Tensor:
        """In mm along the fixed grid, with the moving points where the preparation puts them."""
        to_fixed = np.linalg.inv(matrix @ FIXED_AFFINE)
        points = moving_world @ to_fixed[:3, :3].T + to_fixed[:3, 3]
        return landmark_errors(torch.from_numpy(x), torch.from_numpy(points), np.linalg.norm(linear, axis=0), ddf)

    fixed_world = x @ linear.T + FIXED_AFFINE[:3, 3]
    aligned = fixed_world @ matrix[:3, :3].T + matrix[:3, 3]
    exact = (fixed_world + u @ linear.T) @ matrix[:3, :3].T + matrix[:3, 3]
    total = total_displacement(ddf, torch.from_numpy(FIXED_AFFINE), torch.from_numpy(matrix))
    sampled = sample_at(total[None], torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(fixed_world + sampled, exact, atol=1e-9)
    assert errors(exact).max() < 1e-9
    variant = u @ linear.T @ (np.eye(3) - matrix[:3, :3]).T @ np.linalg.inv(matrix[:3, :3]).T
    torch.testing.assert_close(errors(aligned + u @ linear.T), torch.from_numpy(np.linalg.norm(variant, axis=1)))
    assert errors(aligned + u @ linear.T).mean() > 0.3, "mm"


def test_padding_is_the_minimum_of_an_image_and_zero_for_a_label() -> None:
    moving = torch.arange(5.0, 21.0).reshape(1, 4, 4)
    away = torch.full((2, 3, 3), 99.0)
    assert resample_original(moving, torch.eye(3), torch.eye(3), away).unique().tolist() == [5.0]
    label = moving.to(torch.uint8)
    assert resample_original(label, torch.eye(3), torch.eye(3), away, mode="nearest").unique().tolist() == [0]


@pytest.mark.parametrize("size", [3, 4], ids=["3x3", "4x4"])
def test_slices_against_scipy(size: int) -> None:
    moving, ddf = RNG.normal(size=(8, 9)), RNG.normal(size=(2, 6, 5))
    fixed_affine = np.diag([0.5, 2.0, *[1.0] * (size - 2)])
    moving_affine = np.diag([1.0, 1.5, *[1.0] * (size - 2)])
    displacement = total_displacement(torch.from_numpy(ddf), torch.from_numpy(fixed_affine))
    np.testing.assert_allclose(displacement, ddf * np.array([0.5, 2.0])[:, None, None], atol=1e-12)
    warped = resample_original(
        torch.from_numpy(moving)[None],
        torch.from_numpy(moving_affine),
        torch.from_numpy(fixed_affine),
        displacement,
        padding_value=0.0,
    )[0]
    position = (np.indices((6, 5)) + ddf) * np.array([0.5, 2.0 / 1.5])[:, None, None]
    inside = ((position >= 0) & (position <= np.array([7, 8])[:, None, None])).all(0)
    assert inside.sum() > 10
    np.testing.assert_allclose(warped[inside], map_coordinates(moving, position, order=1)[inside], atol=1e-10)


def image(data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], name: str) -> MetaTensor:
    return MetaTensor(torch.from_numpy(data)[None], affine=torch.from_numpy(affine), meta={"filename_or_obj": name})


@pytest.fixture
def prepared() -> dict[str, Any]:
    """A pair after preparation with its originals, and a field on the fixed grid."""
    pair = {
        "moving": image(RNG.normal(size=MOVING_SHAPE).astype(np.float32), MOVING_AFFINE, "moving.nii"),
        "moving_label": image(RNG.integers(1, 200, size=MOVING_SHAPE).astype(np.uint8), MOVING_AFFINE, "label.nii"),
        "fixed": image(RNG.normal(size=FIXED_SHAPE).astype(np.float32), FIXED_AFFINE, "fixed.nii"),
    }
    pair = ResampleToFixedd(keep_original=True)(pair)
    return pair | {"ddf": torch.zeros(3, *FIXED_SHAPE)}


def test_warp_original_without_a_field_is_the_preparation(prepared: dict[str, Any]) -> None:
    result = WarpOriginald()(prepared)
    assert not result["displacement"].any()
    torch.testing.assert_close(result["warped"].as_tensor(), prepared["moving"].as_tensor())
    assert torch.equal(result["warped_label"].as_tensor(), prepared["moving_label"].as_tensor())


def test_warp_original_samples_once_through_field_and_initial_alignment(prepared: dict[str, Any]) -> None:
    prepared["ddf"] = torch.from_numpy(RNG.normal(size=(3, *FIXED_SHAPE)).astype(np.float32))
    prepared["initial_alignment_matrix"] = torch.from_numpy(initial_alignment())
    result = WarpOriginald()(prepared)
    moving, padding = prepared["moving_original"], float(prepared["moving_original"].min())
    reference = sitk.Resample(
        on_grid(np.ascontiguousarray(moving[0].numpy().T), MOVING_AFFINE),
        geometry(FIXED_SHAPE, FIXED_AFFINE),
        composite(prepared["ddf"].double().numpy(), initial_alignment()),
        sitk.sitkLinear,
        padding,
    )
    np.testing.assert_allclose(result["warped"][0], sitk.GetArrayFromImage(reference).T, atol=2e-4)
    assert result["warped_label"].dtype == torch.uint8


def whole_warp(pair: dict[str, Any], key: str, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The displacement and the warped entry, each from arrays of the whole fixed grid."""
    u, image = pair["ddf"], pair[key].as_tensor()
    d, shape = len(u), u.shape[1:]
    fixed, moving, matrix = (
        a.double() for a in (pair["fixed"].affine, pair[key].affine, pair["initial_alignment_matrix"])
    )
    x = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij"))

    def affine_values(matrix: torch.Tensor) -> torch.Tensor:
        linear = torch.einsum("kj,j...->k...", matrix[:d, :d].float(), x)
        return linear + matrix[:d, d].float().view(-1, *[1] * d)

    total = affine_values(matrix @ fixed - fixed)
    total = total + torch.einsum("kj,j...->k...", (matrix @ fixed)[:d, :d].float(), u)
    to_voxel = torch.linalg.inv(moving)
    offset = affine_values(to_voxel @ fixed - torch.eye(d + 1, dtype=torch.float64))
    offset = offset + torch.einsum("kj,j...->k...", to_voxel[:d, :d].float(), total)
    sizes = torch.tensor(image.shape[1:]).view(-1, *[1] * d)
    inside = ((x + offset >= -0.5) & (x + offset <= sizes - 0.5)).all(0)
    grid = torch.stack([(2 * (x + offset)[k] + 1) / sizes[k] - 1 for k in range(d)][::-1], dim=-1)
    warped = torch.nn.functional.grid_sample(
        image[None].float(), grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]
    outside = 0.0 if mode == "nearest" else float(image.min())
    return total, torch.where(inside, warped, outside).to(image.dtype)


@pytest.mark.parametrize("shape", [(34, 45, 44), (9, 8, 7), (2, 190, 195), (271, 263)], ids=str)
def test_warp_original_in_slabs_is_that_of_whole_arrays(shape: tuple[int, ...]) -> None:
    d = len(shape)
    keep = [*range(d), 3]
    fixed, matrix = (torch.from_numpy(array)[keep][:, keep] for array in (FIXED_AFFINE, initial_alignment()))
    fixed = fixed if d == 3 else torch.diag(torch.tensor([1.5, 1.2, 1.0], dtype=torch.float64))
    moving, size = fixed @ torch.diag(torch.tensor([*[1.1] * d, 1.0], dtype=torch.float64)), tuple(n + 3 for n in shape)
    pair = {
        "fixed": MetaTensor(torch.rand(1, *shape), affine=fixed),
        "moving_original": MetaTensor((1000 * torch.rand(1, *size)).to(torch.float32), affine=moving),
        "moving_label_original": MetaTensor(torch.randint(0, 200, (1, *size), dtype=torch.uint8), affine=moving),
        "ddf": 3 * torch.randn(d, *shape),
        "initial_alignment_matrix": matrix if d == 3 else torch.eye(3).double(),
    }
    result = WarpOriginald()(pair)
    total, warped = whole_warp(pair, "moving_original", "bilinear")
    torch.testing.assert_close(result["displacement"].as_tensor(), total, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(result["warped"].as_tensor(), warped, rtol=1e-6, atol=1e-3)
    assert torch.equal(result["warped_label"].as_tensor(), whole_warp(pair, "moving_label_original", "nearest")[1])
    assert 0.05 < float((result["warped_label"] > 0).float().mean()) < 1


def test_warp_original_gives_everything_the_fixed_affine(prepared: dict[str, Any]) -> None:
    result = WarpOriginald()(prepared)
    for key in ("displacement", "warped", "warped_label"):
        assert isinstance(result[key], MetaTensor)
        np.testing.assert_array_equal(result[key].affine, FIXED_AFFINE)
        assert result[key].shape[1:] == FIXED_SHAPE
    assert result["warped"].meta["filename_or_obj"] == "moving.nii"


def test_warp_original_needs_no_label(prepared: dict[str, Any]) -> None:
    del prepared["moving_label_original"]
    assert "warped_label" not in WarpOriginald()(prepared)


def test_a_field_on_another_grid_is_refused(prepared: dict[str, Any]) -> None:
    prepared["ddf"] = torch.zeros(3, 5, 5, 5)
    with pytest.raises(InputError, match="the field has size 5 x 5 x 5"):
        WarpOriginald()(prepared)


def test_an_initial_alignment_of_another_dimension_is_refused() -> None:
    with pytest.raises(InputError, match=r"initial_alignment_matrix has shape \(4, 4\), expected \(3, 3\)"):
        total_displacement(torch.zeros(2, 4, 4), torch.eye(3), torch.eye(4))


def test_a_sheared_affine_is_refused() -> None:
    affine = torch.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(InputError, match="fixed image is sheared"):
        total_displacement(torch.zeros(3, 4, 4, 4), affine)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="mode is 'cubic'"):
        resample_original(torch.zeros(1, 4, 4), torch.eye(3), torch.eye(3), torch.zeros(2, 4, 4), mode="cubic")


def test_inverse_displacement_undoes_the_total_one() -> None:
    shape = (24, 20, 22)
    waves = np.indices(shape) / np.array(shape).reshape(3, 1, 1, 1)
    ddf = torch.from_numpy(0.8 * np.sin(2 * np.pi * waves[[1, 2, 0]]))
    affines = [torch.from_numpy(affine) for affine in (FIXED_AFFINE, MOVING_AFFINE, initial_alignment())]
    fixed, moving, matrix = affines
    total = total_displacement(ddf, fixed, matrix)
    inverse = inverse_displacement(ddf, fixed, moving, (30, 32, 40), matrix)
    assert inverse.shape == (3, 30, 32, 40)

    x = torch.from_numpy(RNG.uniform(7, 13, size=(200, 3)))
    y = map_to_moving(x, total, fixed, moving)
    inside = ((y >= 0) & (y <= torch.tensor([29, 31, 39]))).all(1)
    assert inside.sum() > 50
    back = map_to_moving(y[inside], inverse, moving, fixed)
    rms = float((back - x[inside]).square().sum(1).mean().sqrt())
    assert rms < 0.03


def test_inverse_is_solved_at_the_moving_voxels() -> None:
    """A shear by two voxels from voxel to voxel, to which the plain fixed point finds no inverse, on a finer grid."""
    x = np.indices((20, 24, 22)).astype(float)
    ddf = np.stack([3 * np.sin(0.8 * x[1]), 0.2 * np.sin(0.5 * x[2]), 0.2 * np.sin(0.5 * x[0])])
    fixed = np.diag([3.0, 3.0, 3.0, 1.0])
    moving = np.diag([2.0, 1.9, 2.1, 1.0])
    moving[:3, 3] = 9.3, 8.8, 9.1
    shape = (16, 22, 20)
    inverse, left = solved_inverse(torch.from_numpy(ddf), torch.from_numpy(fixed), torch.from_numpy(moving), shape)
    assert left.shape == shape
    assert left.max() < 1e-3
    q = moving[:3, :3] @ np.indices(shape).reshape(3, -1) + moving[:3, 3:]
    found = (q + inverse.flatten(1).numpy()) / 3.0
    moved = np.stack([map_coordinates(u, found, order=1, mode="nearest") for u in ddf])
    np.testing.assert_allclose(3.0 * (found + moved), q, atol=4e-3)


def test_inverse_of_an_initial_alignment_alone_is_exact() -> None:
    matrix = torch.from_numpy(initial_alignment())
    fixed, moving = torch.from_numpy(FIXED_AFFINE), torch.from_numpy(MOVING_AFFINE)
    inverse = inverse_displacement(torch.zeros(3, *FIXED_SHAPE).double(), fixed, moving, MOVING_SHAPE, matrix)
    y = np.array([8.0, 9.0, 10.0, 1.0])
    expected = np.linalg.inv(initial_alignment()) @ MOVING_AFFINE @ y - MOVING_AFFINE @ y
    np.testing.assert_allclose(inverse[:, 8, 9, 10].numpy(), expected[:3], atol=1e-9)


def test_points_go_where_the_exact_map_takes_them() -> None:
    ddf = torch.zeros(3, *FIXED_SHAPE).double() + torch.tensor([0.5, -1.0, 0.25]).reshape(3, 1, 1, 1)
    matrix, fixed = torch.from_numpy(initial_alignment()), torch.from_numpy(FIXED_AFFINE)
    total = total_displacement(ddf, fixed, matrix)
    moved = map_to_moving(torch.tensor([[2.0, 3.5, 4.0]]), total, fixed, torch.from_numpy(MOVING_AFFINE))
    expected = np.linalg.inv(MOVING_AFFINE) @ initial_alignment() @ FIXED_AFFINE @ [2.5, 2.5, 4.25, 1.0]
    np.testing.assert_allclose(moved[0].numpy(), expected[:3], atol=1e-9)


@pytest.mark.slow
def test_warping_holds_little_beyond_its_results() -> None:
    """The displacement, warped image and label take 17 bytes a voxel, the label in single precision another 4."""
    prepare = """
from monai.data import MetaTensor
from monai_regplugins.transforms.warp_original import WarpOriginald
n = 160
affine = torch.eye(4, dtype=torch.float64)
image, label = MetaTensor(torch.rand(1, n, n, n), affine=affine), MetaTensor(torch.ones(1, n, n, n, dtype=torch.uint8))
pair = {"fixed": image, "moving_original": image, "moving_label_original": label, "initial_alignment_matrix": affine}
pair["ddf"] = torch.rand(3, n, n, n)
"""
    assert peak_growth(prepare, "WarpOriginald()(pair)") < (17 + 4 + 9) * 160**3


def test_the_warped_mask_holds_the_voxels_of_which_all_counts() -> None:
    """Shifted by half a voxel, and seen on voxels of half the size."""
    moving = MetaTensor(torch.rand(1, 6, 4), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0])))
    mask = torch.ones(1, 6, 4, dtype=torch.uint8)
    mask[:, 2] = 0
    pair = {"fixed": MetaTensor(torch.rand(1, 12, 4)), "moving_original": moving, "ddf": torch.zeros(2, 12, 4)}
    pair |= {"initial_alignment_matrix": torch.eye(3), "moving_mask": MetaTensor(torch.ones(1, 12, 4))}
    pair["ddf"][0] = 1.0
    assert "warped_mask" not in WarpOriginald()({key: value for key, value in pair.items() if key != "moving_mask"})
    # fixed voxel x shows the moving image at (x + 1) / 2, which ends at 5.5
    assert WarpOriginald()(pair)["warped_mask"][0, :, 0].tolist() == [True] * 11 + [False]
    shown = WarpOriginald()({**pair, "moving_mask_original": MetaTensor(mask)})["warped_mask"]
    assert shown.dtype == torch.bool
    assert shown[0, :, 0].tolist() == [True, True, *[False] * 3, *[True] * 6, False]

"""Dice, surface distances and correlation against closed forms, SciPy and MONAI's own metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist

from monai_regplugins.checks import InputError
from monai_regplugins.metrics import dice, ncc, surface_distances
from monai_regplugins.metrics.overlap import labels_in


def cube(start: int, shape: tuple[int, ...] = (16, 16, 16), label: int = 1) -> torch.Tensor:
    """Return a cube of side 6 that begins at ``start`` along the first axis and at 4 along the others."""
    image = torch.zeros(1, *shape, dtype=torch.uint8)
    image[(0, slice(start, start + 6), *[slice(4, 10)] * (len(shape) - 1))] = label
    return image


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 16)])
@pytest.mark.parametrize("shift", [0, 1, 4, 6])
def test_dice_of_shifted_cubes(shape: tuple[int, ...], shift: int) -> None:
    """Cubes of side 6, shifted by s along one axis, share (6 - s) / 6 of their volume."""
    assert dice(cube(3, shape), cube(3 + shift, shape), [1]) == {1: pytest.approx((6 - shift) / 6)}


def test_dice_of_many_labels_agrees_with_monai() -> None:
    a, b = torch.randint(0, 5, (2, 1, 9, 8, 7))
    one_hot = [torch.nn.functional.one_hot(x, 5).movedim(-1, 1) for x in (a, b)]
    expected = compute_dice(*one_hot, include_background=True)[0].tolist()
    values = dice(a.float(), b.to(torch.uint8), [4, 1, 2, 3])
    assert list(values) == [4, 1, 2, 3]
    assert values == {label: pytest.approx(expected[label]) for label in (4, 1, 2, 3)}


def test_dice_of_a_large_map_is_that_of_its_masks() -> None:
    """Larger than what is counted at once, with a label that is larger than any number of voxels."""
    a, b = torch.randint(0, 4, (2, 1, 600, 451), dtype=torch.int32)
    a[a == 3], b[b == 3] = 500_000, 500_000
    masks = {label: (a == label, b == label) for label in (1, 2, 500_000)}
    expected = {label: 2 * int((p & q).sum()) / int(p.sum() + q.sum()) for label, (p, q) in masks.items()}
    assert dice(a, b, masks) == expected


def test_dice_refuses_what_is_no_label() -> None:
    label = torch.ones(1, 5, 5)
    label[0, 2, 2] = math.nan
    with pytest.raises(InputError, match="second label map holds nan, expected whole numbers"):
        dice(torch.ones(1, 5, 5), label, [1])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_dice_of_large_and_negative_labels_needs_no_table_up_to_them(dtype: torch.dtype) -> None:
    labels = [2**24 + 1, 2**24, -5, 614454277]
    a = torch.tensor([*labels, 0, labels[0]], dtype=dtype)
    b = torch.tensor([labels[1], *labels[1:], 0, labels[0]], dtype=dtype)
    expected = {labels[0]: 2 / 3, labels[1]: 2 / 3, labels[2]: 1.0, labels[3]: 1.0}
    assert dice(a, b, labels) == pytest.approx(expected)


def test_dice_of_missing_labels() -> None:
    values = dice(cube(3, label=2), cube(3, label=3), [2, 3, 9])
    assert (values[2], values[3]) == (0, 0)
    assert math.isnan(values[9])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.5, 0.5), (1.0, 1.0, 1.0), (3.0, 1.0, 0.5)])
def test_surface_distances_of_shifted_cubes(spacing: tuple[float, ...]) -> None:
    """The far face of a cube is the shift away from the other cube's nearest face: the 95th percentile in mm."""
    a, b = cube(3, (16,) * len(spacing)), cube(5, (16,) * len(spacing))
    result = surface_distances(a, b, [1], spacing)[1]
    surfaces = []
    for image in (a, b):
        mask = image[0].numpy() > 0
        surfaces.append(np.argwhere(mask & ~binary_erosion(mask)) * np.array(spacing))
    distances = cdist(*surfaces)
    there, back = distances.min(axis=1), distances.min(axis=0)
    assert result.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-6)
    assert result.asd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-6)
    assert result.hd == pytest.approx(max(there.max(), back.max()), rel=1e-6)
    if spacing[0] == min(spacing):
        assert result.hd95 == pytest.approx(2 * spacing[0])


def test_parallel_planes_are_their_distance_apart() -> None:
    a, b = torch.zeros(2, 1, 12, 6, 6, dtype=torch.int64)
    a[:, 2], b[:, 7] = 1, 1
    assert surface_distances(a, b, [1], torch.tensor([1.5, 1.0, 1.0]))[1] == (7.5, 7.5, 7.5)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_surface_distances_agree_with_monai() -> None:
    a, b = (torch.rand(2, 1, 10, 9, 8) > 0.7).long()  # objects that touch the border of the image
    spacing = [0.7, 1.3, 2.0]
    batch = {"y_pred": a[None], "y": b[None], "include_background": True, "spacing": spacing}
    result = surface_distances(a, b, [1], spacing)[1]
    assert result.hd95 == pytest.approx(compute_hausdorff_distance(percentile=95, **batch).item())
    assert result.asd == pytest.approx(compute_average_surface_distance(symmetric=True, **batch).item())
    assert result.hd == pytest.approx(compute_hausdorff_distance(**batch).item())


def test_surface_distances_are_those_of_a_distance_transform() -> None:
    labels, spacing = [1, 2, 3], [0.7, 1.3, 2.0]
    a, b = (torch.randint(0, 4, (1, 5, 4, 4)).repeat_interleave(3, dim=1) for _ in range(2))
    for label, result in surface_distances(a, b, labels, spacing).items():
        first, second = (image[0].numpy() == label for image in (a, b))
        edges = [mask & ~binary_erosion(mask) for mask in (first, second)]
        there, back = (distance_transform_edt(~end, sampling=spacing)[start] for start, end in (edges, edges[::-1]))
        assert result.hd == pytest.approx(max(there.max(), back.max()), rel=1e-6)
        assert result.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-6)
        assert result.asd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-6)
        assert result.asd < result.hd95 <= result.hd


@pytest.mark.parametrize(
    ("shape", "spacing"), [((40, 33), (0.7, 1.9)), ((21, 25, 19), (2.5, 0.7, 1.3)), ((1, 12, 11), (5.0, 1.0, 1.0))]
)
@pytest.mark.parametrize("kind", ["touching the border", "far apart", "single voxels", "the same"])
def test_surface_distances_of_shapes_of_all_kinds(
    shape: tuple[int, ...], spacing: tuple[float, ...], kind: str
) -> None:
    """Against the distance transform of the whole image, with nothing cut off."""
    rng = np.random.default_rng(0)
    a, b = (np.zeros(shape, np.int16) for _ in range(2))
    if kind == "touching the border":
        a[...], b[...] = (rng.random((2, *shape)) > 0.3) * 7
    elif kind == "single voxels":
        a[tuple(n // 3 for n in shape)], b[tuple(-1 for _ in shape)] = 7, 7
    else:
        a[(slice(None), *[slice(0, 5)] * (len(shape) - 1))] = 7
        b[(slice(None), *[slice(-6, -1)] * (len(shape) - 1))] = 7
    b = a if kind == "the same" else b
    edges = [mask & ~binary_erosion(mask) for mask in (a == 7, b == 7)]
    there, back = (distance_transform_edt(~end, sampling=spacing)[start] for start, end in (edges, edges[::-1]))
    found = surface_distances(torch.from_numpy(a)[None], torch.from_numpy(b)[None], [7], spacing)[7]
    assert found.hd == pytest.approx(max(there.max(), back.max()), rel=1e-9)
    assert found.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-9)
    assert found.asd == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-9)


def test_surface_distances_of_a_label_that_is_missing() -> None:
    values = surface_distances(cube(3, label=2), cube(3), [1, 2, 5], (1.0, 1.0, 1.0))
    assert all(math.isnan(value) for pair in values.values() for value in pair)


def test_ncc_agrees_with_numpy() -> None:
    a = torch.rand(1, 6, 7, 8)
    b = a + 0.3 * torch.rand(1, 6, 7, 8)
    mask = torch.rand(1, 6, 7, 8) > 0.5
    assert ncc(a, b) == pytest.approx(np.corrcoef(a.flatten().double(), b.flatten().double())[0, 1], abs=1e-12)
    inside = np.corrcoef(a[mask].double(), b[mask].double())[0, 1]
    assert ncc(a, b, mask.to(torch.uint8)) == pytest.approx(inside, abs=1e-12)
    assert ncc(a, 5 - 2 * a) == pytest.approx(-1)


def test_ncc_of_a_large_image_agrees_with_numpy() -> None:
    """Larger than what is converted at once; far from zero, where single precision would lose the differences."""
    a = 1e4 + torch.randn(1, 70, 50, 41)
    b = a + torch.randn(1, 70, 50, 41)
    mask = torch.rand(1, 70, 50, 41) > 0.9
    assert ncc(a, b) == pytest.approx(np.corrcoef(a.flatten().double(), b.flatten().double())[0, 1], abs=1e-12)
    assert ncc(a, b, mask) == pytest.approx(np.corrcoef(a[mask].double(), b[mask].double())[0, 1], abs=1e-12)
    assert math.isnan(ncc(a, b, torch.zeros_like(mask)))


def test_ncc_of_a_constant_or_diverged_image_is_unknown() -> None:
    image = torch.rand(1, 5, 5)
    assert math.isnan(ncc(image, torch.ones(1, 5, 5)))
    assert math.isnan(ncc(image, image / 0))


def test_sizes_must_agree() -> None:
    for measure in (lambda a, b: dice(a, b, [1]), ncc, lambda a, b: surface_distances(a, b, [1], (1.0, 1.0))):
        with pytest.raises(InputError, match="5 x 5"):
            measure(torch.zeros(1, 5, 5), torch.zeros(1, 5, 6))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_labels_of_a_map(dtype: torch.dtype) -> None:
    label_map = torch.zeros(1, 60, 60, 60)
    label_map[0, 0, 0, 0], label_map[0, 30, 5, 7], label_map[0, -1, -1, -1] = 7, 2, 200
    assert labels_in(label_map.to(dtype)) == {0, 2, 7, 200}

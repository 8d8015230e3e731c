"""Displacement field algebra against closed forms, SciPy, NumPy, nibabel and MONAI."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.blocks import Warp
from nibabel.affines import apply_affine
from peak_memory import peak_growth
from scipy.linalg import expm
from scipy.ndimage import map_coordinates
from torch.autograd import gradcheck
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import InputError

SCIPY_MODE = {"zeros": "grid-constant", "border": "nearest"}
SIZES = [(9, 7), (6, 8, 7)]

Operator = Callable[..., torch.Tensor]


def smooth_field(shape: tuple[int, ...], size: float = 0.6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A smooth field ``(1, d, *shape)`` with displacements up to ``size`` voxels, of another form in each component."""
    x = fields.identity_grid(shape, dtype=dtype)
    waves = [torch.sin(0.5 * x.sum(0) + k) * torch.cos(0.4 * x[k]) for k in range(len(shape))]
    return size * torch.stack(waves)[None]


def affine_field(matrix: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The field ``(1, d, *shape)`` of the map ``x -> matrix x``."""
    x = fields.identity_grid(shape, dtype=matrix.dtype)
    return (torch.einsum("ij,j...->i...", matrix, x) - x)[None]


def oblique(handedness: float, d: int = 3) -> np.ndarray:
    """An anisotropic voxel-to-RAS matrix whose axes lie along no world axis."""
    a, b = 0.4, -0.7
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    axes = about_z @ about_x if d == 3 else about_z[:2, :2]
    affine = np.eye(d + 1)
    affine[:d, :d] = axes * [handedness * 0.9, 1.5, 3.0][:d]
    affine[:d, d] = [-30.0, 12.0, 100.0][:d]
    return affine


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch use two threads, as on a machine that has them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------------------------------------------------------- warp


def test_identity_grid_holds_indices() -> None:
    grid = fields.identity_grid((2, 3, 4), dtype=torch.float64)
    assert grid.dtype == torch.float64
    assert np.array_equal(grid.numpy(), np.indices((2, 3, 4)))


@pytest.mark.parametrize("shape", [*SIZES, (5, 1, 4), (1, 6)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_zero_field_changes_nothing(shape: tuple[int, ...], padding: str) -> None:
    image = torch.rand(2, 3, *shape)
    warped = fields.warp(image, torch.zeros(2, len(shape), *shape), padding=padding)
    torch.testing.assert_close(warped, image, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_whole_voxels_pull_from_where_the_field_points(shape: tuple[int, ...], mode: str) -> None:
    image = torch.rand(1, 2, *shape, dtype=torch.float64)
    for axis in range(len(shape)):
        ddf = torch.zeros(1, len(shape), *shape, dtype=torch.float64)
        ddf[:, axis] = 2
        expected = torch.roll(image, -2, dims=axis + 2)  # warped(x) = image(x + 2)
        expected.narrow(axis + 2, shape[axis] - 2, 2).zero_()
        torch.testing.assert_close(fields.warp(image, ddf, mode=mode), expected)


def test_fractions_of_voxels_interpolate() -> None:
    image = torch.arange(5.0, dtype=torch.float64).square().expand(1, 1, 3, 5)
    ddf = torch.zeros(1, 2, 3, 5, dtype=torch.float64)
    ddf[:, 1] = 0.25
    line = torch.tensor([0.25, 1.75, 5.25, 10.75, 12.0], dtype=torch.float64)  # 3/4 of a voxel, 1/4 of the next
    torch.testing.assert_close(fields.warp(image, ddf), line.expand(1, 1, 3, 5))


def test_affine_map_of_a_linear_image() -> None:
    matrix = torch.tensor([[0.8, 0.1, 0.0], [-0.05, 0.7, 0.1], [0.1, 0.0, 0.75]], dtype=torch.float64)
    shape, slope = (6, 7, 8), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    x = fields.identity_grid(shape, dtype=torch.float64)
    mapped = torch.einsum("ij,j...->i...", matrix, x)
    inside = torch.stack([(m >= 0) & (m <= n - 1) for m, n in zip(mapped, shape, strict=True)]).all(0)
    warped = fields.warp(torch.einsum("i,i...->...", slope, x)[None, None], affine_field(matrix, shape))[0, 0]
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(warped[inside], torch.einsum("i,i...->...", slope, mapped)[inside])


@pytest.mark.parametrize("shape", [*SIZES, (5, 1, 6)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_warp_is_map_coordinates(shape: tuple[int, ...], padding: str, mode: str) -> None:
    image = torch.rand(2, 2, *(n + 3 for n in shape), dtype=torch.float64)  # larger than the field
    ddf = 3 * torch.randn(2, len(shape), *shape, dtype=torch.float64)
    warped = fields.warp(image, ddf, mode=mode, padding=padding)
    assert warped.shape == (2, 2, *shape)
    for b in range(2):
        at = np.indices(shape) + ddf[b].numpy()
        for c in range(2):
            expected = map_coordinates(image[b, c].numpy(), at, order=int(mode == "linear"), mode=SCIPY_MODE[padding])
            np.testing.assert_allclose(warped[b, c].numpy(), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp. Using PyTorch native grid_sample:UserWarning")
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_warp_is_that_of_monai(shape: tuple[int, ...], padding: str) -> None:
    image, ddf = torch.rand(2, 3, *shape), 2 * torch.randn(2, len(shape), *shape)
    expected = Warp("bilinear", padding)(image, ddf)
    torch.testing.assert_close(fields.warp(image, ddf, padding=padding), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_keep_their_type_and_values(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 100, (1, 1, 6, 7, 5)).to(dtype)
    ddf = smooth_field((6, 7, 5), 2.0, torch.float32)
    warped = fields.warp(labels, ddf, mode="nearest", padding="border")
    at = np.indices((6, 7, 5)) + ddf[0].numpy()
    assert warped.dtype == dtype
    assert np.array_equal(warped[0, 0].numpy(), map_coordinates(labels[0, 0].numpy(), at, order=0, mode="nearest"))


def test_large_labels_survive() -> None:
    labels = torch.full((1, 1, 3, 3), 2**31 - 1, dtype=torch.int32)  # not a float32 number
    assert torch.equal(fields.warp(labels, torch.zeros(1, 2, 3, 3), mode="nearest"), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    image, ddf = torch.rand(1, 1, 8, 9).to(dtype), smooth_field((8, 9), 2.0).to(dtype)
    warped = fields.warp(image, ddf)
    assert warped.dtype == torch.float32
    assert torch.equal(warped, fields.warp(image.float(), ddf.float()))
    for operator in (fields.jacobian, fields.jacobian_determinant, lambda u: fields.resize(u, (4, 5))):
        assert torch.equal(operator(ddf), operator(ddf.float()))
    assert fields.compose(ddf, ddf).dtype == torch.float32


@pytest.mark.parametrize("wide", ["image", "ddf"])
def test_float64_stays(wide: str) -> None:
    image, ddf = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    image, ddf = (image.double(), ddf) if wide == "image" else (image, ddf.double())
    assert fields.warp(image, ddf).dtype == torch.float64


class Warping(torch.nn.Module):
    """A module whose forward warps, as a network's does."""

    def forward(self, image: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
        """Warp at the border."""
        return fields.warp(image, ddf, padding="border")


@pytest.mark.parametrize("shape", SIZES)
def test_scripted_warp_is_the_same(shape: tuple[int, ...]) -> None:
    scripted = torch.jit.script(Warping())
    image, ddf = torch.rand(2, 2, *shape), smooth_field(shape, 2.0, torch.float32).expand(2, -1, *[-1] * len(shape))
    assert torch.equal(scripted(image, ddf), Warping()(image, ddf))


@pytest.mark.usefixtures("two_threads")
def test_trace_holds_for_other_values_and_threads() -> None:
    shape = (17, 16, 16)  # large enough to be divided among threads, were it not traced
    image, ddf = torch.rand(1, 1, *shape), torch.randn(1, 3, *shape)
    traced = torch.jit.trace(Warping(), (image, ddf))
    torch.testing.assert_close(traced(image + 1, -ddf), Warping()(image + 1, -ddf))


# ------------------------------------------------------------------------------------------------- threads on the CPU


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("shape", [(17, 15, 17), (67, 63)])  # neither can be divided by two
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_dividing_among_threads_changes_nothing(shape: tuple[int, ...], mode: str, padding: str) -> None:
    image = torch.rand(1, 2, *(n - 2 for n in shape), dtype=torch.float64, requires_grad=True)
    ddf = (2 * torch.randn(1, len(shape), *shape, dtype=torch.float64)).requires_grad_()
    weight = torch.randn(1, 2, *shape, dtype=torch.float64)
    results = []
    for batch in (1, 2):  # a batch of two keeps both threads busy, so torch's own division is used
        images, ddfs = (item.expand(batch, *item.shape[1:]) for item in (image, ddf))
        warped = fields.warp(images, ddfs, mode=mode, padding=padding)[:1]
        results.append((warped.detach(), *torch.autograd.grad((weight * warped).sum(), (image, ddf))))
    for divided, plain in zip(*results, strict=True):
        torch.testing.assert_close(divided, plain, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("two_threads")
def test_a_single_large_pair_is_divided_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    plain = functional.grid_sample

    def recorded(values: torch.Tensor, grid: torch.Tensor, **options: object) -> torch.Tensor:
        batches.append(len(grid))
        return plain(values, grid, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "grid_sample", recorded)
    for batch, shape in [(1, (17, 16, 16)), (2, (17, 16, 16)), (1, (4, 4, 4))]:
        fields.warp(torch.rand(batch, 1, 5, 5, 5), torch.zeros(batch, 3, *shape))
    assert batches == [2, 2, 1]


# --------------------------------------------------------------------------------------------------------------- slabs


@pytest.mark.parametrize("shape", [(5, 10, 10), (7, 3), (1, 4, 4), (6, 30, 30), (9,)])
def test_slabs_divide_a_grid(shape: tuple[int, ...]) -> None:
    parts = list(fields.slabs(shape, voxels=200))
    assert [row for slab in parts for row in range(shape[0])[slab]] == list(range(shape[0]))
    voxels = [(slab.stop - slab.start) * int(np.prod(shape[1:])) for slab in parts]
    assert all(count <= 200 or slab.stop - slab.start == 1 for count, slab in zip(voxels, parts, strict=True))
    assert max(voxels) > 100 or len(parts) == 1, "slabs are no thinner than they have to be"


LARGE = [(1, 1, 300, 310), (2, 2, 250, 140), (1, 2, 34, 45, 44), (3, 1, 30, 33, 31), (1, 1, 2, 210, 200)]


@pytest.mark.parametrize("size", LARGE, ids=str)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int16, torch.int32])
def test_warp_in_slabs_is_that_in_one_piece(size: tuple[int, ...], padding: str, dtype: torch.dtype) -> None:
    """The same numbers, not only close ones: a field that wants a gradient is not divided."""
    image, ddf = (200 * torch.rand(size)).to(dtype), 3 * torch.randn(size[0], len(size) - 2, *size[2:])
    ddf[:, :, ::3] = ddf[:, :, ::3].mul(2).round().div(2)  # half way between voxels
    for mode in ("nearest", "linear"):
        divided = fields.warp(image, ddf, mode, padding)
        whole = fields.warp(image, ddf.clone().requires_grad_(), mode, padding)
        assert divided.dtype == whole.dtype
        assert torch.equal(divided, whole.detach())


def test_a_slab_of_a_field_knows_where_it_begins() -> None:
    image, ddf = torch.rand(1, 2, 9, 10, 11), 2 * torch.randn(1, 3, 9, 10, 11)
    parts = [fields.warp(image, ddf[:, :, rows], start=rows.start) for rows in (slice(0, 4), slice(4, 5), slice(5, 9))]
    assert torch.equal(torch.cat(parts, dim=2), fields.warp(image, ddf))
    at = np.indices((3, 10, 11)) + np.array([5, 0, 0]).reshape(3, 1, 1, 1) + ddf[0, :, 5:8].numpy()
    expected = map_coordinates(image[0, 1].numpy(), at, order=1, mode="grid-constant")
    np.testing.assert_allclose(fields.warp(image, ddf[:, :, 5:8], start=5)[0, 1], expected, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 7, 8), (34, 45, 44)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_metadata_of_image_or_field_is_kept(size: tuple[int, ...], dtype: torch.dtype) -> None:
    """Whether the field is worked on in slabs or not."""
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    image = MetaTensor((200 * torch.rand(1, *size)).to(dtype), affine=affine, meta={"filename_or_obj": "a.nii"})[None]
    ddf = MetaTensor(torch.randn(3, *size))[None]
    plain = fields.warp(image.as_tensor(), ddf.as_tensor(), "nearest")
    assert type(plain) is torch.Tensor
    for field in (ddf, ddf.as_tensor()):
        warped = fields.warp(image, field, "nearest")
        assert torch.equal(warped.affine, affine)
        assert warped.meta["filename_or_obj"] == "a.nii"
        assert torch.equal(warped.as_tensor(), plain)
    assert isinstance(fields.warp(image.as_tensor(), ddf), MetaTensor)


def test_inverse_of_a_large_field_undoes_it() -> None:
    u = smooth_field((34, 45, 44), 0.8, torch.float32)
    before = u.clone()
    inverse, report = fields.invert(u)
    assert report.converged
    assert torch.linalg.vector_norm(fields.compose(u, inverse), dim=1).max() < 1e-3
    assert torch.equal(u, before)


# ----------------------------------------------------------------------------------------------------------- sample_at


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_sample_at_is_map_coordinates(shape: tuple[int, ...], padding: str, mode: str) -> None:
    volume = torch.rand(2, 3, *shape, dtype=torch.float64)
    points = 12 * torch.rand(2, 10, len(shape), dtype=torch.float64) - 2
    values = fields.sample_at(volume, points, mode=mode, padding=padding)
    assert values.shape == (2, 10, 3)
    for b in range(2):
        for c in range(3):
            expected = map_coordinates(
                volume[b, c].numpy(), points[b].T.numpy(), order=int(mode == "linear"), mode=SCIPY_MODE[padding]
            )
            np.testing.assert_allclose(values[b, :, c].numpy(), expected, atol=1e-12)


def test_sample_at_no_points_and_labels() -> None:
    labels = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    assert fields.sample_at(labels, torch.zeros(1, 0, 2), mode="nearest").shape == (1, 0, 1)
    found = fields.sample_at(labels, torch.tensor([[[0.9, 0.2], [0.0, 1.3]]]), mode="nearest")
    assert found.dtype == torch.uint8
    assert found.flatten().tolist() == [3, 2]


# ----------------------------------------------------------------------------------------------------- compose, invert


@pytest.mark.parametrize("shape", [(20, 21), (14, 13, 12)])
def test_compose_is_warping_twice(shape: tuple[int, ...]) -> None:
    u, v = smooth_field(shape, 1.0), smooth_field(shape, 1.5).flip(1)
    slopes = torch.randn(len(shape), dtype=torch.float64)
    image = torch.einsum("i,i...->...", slopes, fields.identity_grid(shape, dtype=torch.float64))[None, None]
    twice = fields.warp(fields.warp(image, u, padding="border"), v, padding="border")
    once = fields.warp(image, fields.compose(u, v), padding="border")
    inside = (..., *[slice(4, -4)] * len(shape))  # a linear image is interpolated without error away from the border
    torch.testing.assert_close(once[inside], twice[inside], atol=1e-12, rtol=0)


def test_compose_of_affine_maps_is_their_product() -> None:
    A = torch.tensor([[0.9, 0.05], [-0.05, 0.8]], dtype=torch.float64)
    B = torch.tensor([[0.7, 0.1], [0.05, 0.8]], dtype=torch.float64)
    shape = (12, 12)
    total = fields.compose(affine_field(A, shape), affine_field(B, shape))
    torch.testing.assert_close(total, affine_field(A @ B, shape))  # first B, then A


def test_compose_continues_the_outer_field_beyond_its_border() -> None:
    u = torch.full((1, 2, 5, 5), 2.0)
    torch.testing.assert_close(fields.compose(u, torch.full((1, 2, 5, 5), 30.0)), torch.full((1, 2, 5, 5), 32.0))


@pytest.mark.parametrize("shape", [(16, 18), (12, 11, 10), (9, 1, 8)])
def test_inverse_undoes_the_field(shape: tuple[int, ...]) -> None:
    u = smooth_field(shape, 0.8)
    inverse, report = fields.invert(u, tolerance=1e-6)
    residual = torch.linalg.vector_norm(fields.compose(u, inverse), dim=1)
    assert report.converged
    assert 1 < report.iterations < 50
    assert residual.max() < 1e-6
    assert (report.mean_residual, report.max_residual) == (residual.mean().item(), residual.max().item())


def test_inverse_of_an_affine_map() -> None:
    matrix = torch.tensor([[0.8, 0.1], [0.05, 0.75]], dtype=torch.float64)  # maps the grid into itself
    inverse, report = fields.invert(affine_field(torch.linalg.inv(matrix), (10, 10)), tolerance=1e-10)
    assert report.converged
    torch.testing.assert_close(inverse, affine_field(matrix, (10, 10)), atol=1e-9, rtol=0)


def test_inverse_of_a_folding_field_is_reported_as_failed() -> None:
    x = fields.identity_grid((16, 16), dtype=torch.float64)
    u = torch.stack([4 * torch.sin(1.5 * x[0]), torch.zeros(16, 16)])[None]
    assert fields.jacobian_determinant(u).min() < 0
    _, report = fields.invert(u, iterations=30)
    assert not report.converged
    assert report.iterations == 30
    assert report.max_residual > report.mean_residual > 0.1


def test_inverse_needs_no_gradient_and_does_not_hide_nan() -> None:
    u = smooth_field((8, 8)).requires_grad_()
    inverse, _ = fields.invert(u)
    assert not inverse.requires_grad
    with torch.no_grad():
        assert torch.equal(fields.invert(u)[0], inverse)
    assert not fields.invert(torch.full((1, 2, 4, 4), torch.nan))[1].converged


# -------------------------------------------------------------------------------------------------------------- resize


@pytest.mark.parametrize(("old", "new"), [((8, 6), (16, 12)), ((8, 6, 10), (12, 9, 5)), ((8, 9), (4, 3))])
@pytest.mark.parametrize("align_corners", [False, True])
def test_resize_of_a_linear_field_is_exact(old: tuple[int, ...], new: tuple[int, ...], align_corners: bool) -> None:
    d = len(old)
    column, shift, ends = (d, *[1] * d), 0.0 if align_corners else 0.5, int(align_corners)
    slope, offset = torch.randn(d, d, dtype=torch.float64), torch.randn(column, dtype=torch.float64)
    u = torch.einsum("ij,j...->i...", slope, fields.identity_grid(old, dtype=torch.float64)) + offset
    growth = (torch.tensor(new).double() - ends) / (torch.tensor(old).double() - ends)
    growth = growth.view(column)
    x_old = (fields.identity_grid(new, dtype=torch.float64) + shift) / growth - shift
    expected = growth * (torch.einsum("ij,j...->i...", slope, x_old) + offset)
    known = torch.stack([(x >= 0) & (x <= n - 1) for x, n in zip(x_old, old, strict=True)]).all(0)
    resized = fields.resize(u[None], new, align_corners=align_corners)[0]
    assert known.float().mean() > 0.3
    torch.testing.assert_close(resized[:, known], expected[:, known])


def test_resize_keeps_the_distance_in_mm() -> None:
    resized = fields.resize(torch.ones(1, 3, 4, 6, 8), (8, 3, 8))
    torch.testing.assert_close(resized, torch.tensor([2.0, 0.5, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 8, 3, 8))


def test_resize_of_axes_of_one_voxel() -> None:
    u = torch.ones(1, 2, 1, 4)
    assert fields.resize(u, (3, 4))[0, 0].unique().tolist() == [3.0]
    assert torch.equal(fields.resize(u, (1, 4), align_corners=True), u)
    with pytest.raises(InputError, match="axis of 1 voxel"):
        fields.resize(u, (3, 4), align_corners=True)


# ------------------------------------------------------------------------------------------------------------ jacobian


@pytest.mark.parametrize("d", [2, 3])
def test_jacobian_of_an_affine_map_is_its_matrix(d: int) -> None:
    matrix = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, dtype=torch.float64)
    shape = (5, 6, 4)[:d]
    u = affine_field(matrix, shape)
    J = fields.jacobian(u)
    torch.testing.assert_close(J, matrix.view(1, d, d, *[1] * d).expand(J.shape))
    det = fields.jacobian_determinant(u)
    torch.testing.assert_close(det, torch.linalg.det(matrix).expand(1, *shape))


def test_determinant_of_a_nonlinear_map() -> None:
    x, y, z = fields.identity_grid((7, 6, 8), dtype=torch.float64)
    u = torch.stack([0.02 * x**2, 0.1 * x + 0.03 * y**2, 0.2 * y - 0.01 * z**2])[None]
    exact = (1 + 0.04 * x) * (1 + 0.06 * y) * (1 - 0.02 * z)  # triangular; quadratics have exact central differences
    inside = (slice(1, -1),) * 3
    torch.testing.assert_close(fields.jacobian_determinant(u)[0][inside], exact[inside])


@pytest.mark.parametrize("shape", [*SIZES, (2, 2)])
def test_jacobian_is_numpy_gradient(shape: tuple[int, ...]) -> None:
    u = torch.randn(2, len(shape), *shape, dtype=torch.float64)
    J, det = fields.jacobian(u).numpy(), fields.jacobian_determinant(u).numpy()
    np.testing.assert_array_equal(fields.jacobian(u.clone().requires_grad_()).detach().numpy(), J)
    for b in range(2):
        for i in range(len(shape)):
            for j, derivative in enumerate(np.gradient(u[b, i].numpy(), axis=tuple(range(len(shape))))):
                np.testing.assert_allclose(J[b, i, j], derivative + (i == j), atol=1e-12)
    np.testing.assert_allclose(det, np.linalg.det(np.moveaxis(J, (1, 2), (-2, -1))), atol=1e-12)


# ----------------------------------------------------------------------------------------------- exponential, logarithm


def whirl(shape: tuple[int, ...], amplitude: float) -> torch.Tensor:
    """A smooth velocity that is zero at the border, ``(1, d, *shape)``, float64."""
    x = fields.identity_grid(shape, dtype=torch.float64)
    unit = torch.stack([math.pi * one / (n - 1) for one, n in zip(x, shape, strict=True)])
    bump = unit.sin().square().prod(dim=0)
    return amplitude * torch.stack([bump * (unit[k - 1] + k).cos() for k in range(len(shape))])[None]


@pytest.mark.parametrize("d", [2, 3])
def test_exponential_of_a_linear_velocity_is_that_of_its_matrix(d: int) -> None:
    generator = 0.2 * np.random.default_rng(d).normal(size=(d, d))
    x = fields.identity_grid((17,) * d, dtype=torch.float64) - 8
    velocity, expected = (
        torch.einsum("kj,j...->k...", torch.from_numpy(matrix), x)
        for matrix in (generator, expm(generator) - np.eye(d))
    )
    inner = (slice(None), *[slice(5, 12)] * d)
    found = [fields.exponential(velocity[None], step)[0][inner] for step in (1 / 8, 1 / 256)]
    np.testing.assert_allclose(found[1], expected[inner], atol=2e-3)
    np.testing.assert_allclose(found[0], expected[inner], atol=0.1)


def test_exponentials_of_opposite_velocities_are_inverse() -> None:
    velocity = whirl((40, 38, 36), 3.0)
    u = fields.exponential(velocity)
    left = fields.compose(u, fields.exponential(-velocity))
    assert u.abs().max() > 1.5
    assert left.abs().max() < 0.05
    assert fields.compose(u, -u).abs().max() > 0.3
    assert torch.equal(fields.exponential(torch.zeros(1, 2, 4, 4)), torch.zeros(1, 2, 4, 4))
    assert fields.exponential(torch.full((1, 2, 4, 4), torch.nan)).isnan().all()


def test_logarithm_undoes_the_exponential() -> None:
    velocity = whirl((40, 44), 6.0)
    u = fields.exponential(velocity)
    found = fields.logarithm(u)
    assert (found - velocity).abs().max() < 0.1 < 0.5 < (u - velocity).abs().max()
    assert (fields.exponential(found) - u).abs().max() < 0.05


def test_logarithm_of_a_folding_field_is_the_closest_that_was_met() -> None:
    u = 6 * torch.randn(1, 2, 12, 12)
    found = fields.exponential(fields.logarithm(u))
    assert (found - u).square().mean() <= (fields.exponential(u) - u).square().mean()


# ------------------------------------------------------------------------------------------------------------ gradients


def double(*size: int) -> torch.Tensor:
    """Random float64 values that want a gradient."""
    return torch.rand(*size, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("operator", [fields.warp, fields.sample_at])
def test_gradients_of_sampling(operator: Operator, shape: tuple[int, ...], padding: str) -> None:
    image, size = double(1, 1, *shape), (1, len(shape), *shape) if operator is fields.warp else (1, 3, len(shape))
    where = 0.3 + 0.4 * double(*size)  # between voxels, where linear interpolation is smooth
    assert gradcheck(lambda *a: operator(*a, padding=padding), (image, where.detach().requires_grad_()))


OPERATORS: dict[str, Operator] = {
    "resize": lambda u: fields.resize(u, [n + 1 for n in u.shape[2:]]),
    "resize, align_corners": lambda u: fields.resize(u, [n + 1 for n in u.shape[2:]], align_corners=True),
    "jacobian_determinant": fields.jacobian_determinant,
    "exponential": lambda v: fields.exponential(0.3 + 0.4 * v),  # between voxels
    "voxel_to_ras": lambda u: fields.voxel_to_ras(u, oblique(-1.0, u.shape[1])),
}


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_of_field_operators(name: str, shape: tuple[int, ...]) -> None:
    assert gradcheck(OPERATORS[name], double(1, len(shape), *shape))


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
def test_gradients_of_compose(shape: tuple[int, ...]) -> None:
    size = (1, len(shape), *shape)
    v = 0.3 + 0.4 * double(*size)  # between voxels, where linear interpolation is smooth
    assert gradcheck(fields.compose, (double(*size), v.detach().requires_grad_()))


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gradient_is_finite_and_not_zero_at_zero_displacement(padding: str) -> None:
    image, ddf = torch.rand(1, 1, 5, 6, 7), torch.zeros(1, 3, 5, 6, 7, requires_grad=True)
    total = fields.compose(ddf, ddf)
    (fields.warp(image, total, padding=padding).square().mean() + fields.jacobian_determinant(total).mean()).backward()
    assert ddf.grad is not None
    assert ddf.grad.isfinite().all()
    assert ddf.grad[:, :, 1:-1, 1:-1, 1:-1].abs().amax(dim=(0, 2, 3, 4)).min() > 0


# ---------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("handedness", [1.0, -1.0])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_world_units_are_differences_of_world_points(d: int, handedness: float, as_tensor: bool) -> None:
    affine = oblique(handedness, d)
    given = torch.from_numpy(affine) if as_tensor else affine
    u = torch.randn(1, d, *(4, 5, 3)[:d], dtype=torch.float64)
    x = np.moveaxis(np.indices(u.shape[2:]), 0, -1)
    ras = apply_affine(affine, x + np.moveaxis(u[0].numpy(), 0, -1)) - apply_affine(affine, x)
    np.testing.assert_allclose(np.moveaxis(fields.voxel_to_ras(u, given)[0].numpy(), 0, -1), ras, atol=1e-12)
    torch.testing.assert_close(fields.ras_to_voxel(torch.from_numpy(np.moveaxis(ras, -1, 0)[None]), given), u)


# --------------------------------------------------------------------------------------------------------------- errors

IMAGE, DDF, POINTS = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), torch.zeros(1, 5, 2)
FLAT, NO_NUMBER = np.diag([1.0, 0.0, 1.0]), np.diag([1.0, np.nan, 1.0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fields.warp(IMAGE[0], DDF), "cannot be sampled at positions"),
        (lambda: fields.warp(IMAGE, torch.zeros(1, 3, 4, 4)), "cannot be sampled at positions"),
        (lambda: fields.warp(torch.rand(1, 1, 4, 4, 4), DDF), "cannot be sampled at positions"),
        (lambda: fields.warp(torch.rand(1, 1, 4), torch.zeros(1, 1, 4)), "2 or 3 spatial axes"),
        (lambda: fields.warp(IMAGE.expand(2, 1, 4, 4), DDF), "batch size 2"),
        (lambda: fields.warp(IMAGE, DDF, mode="bilinear"), "mode is 'bilinear'"),
        (lambda: fields.warp(IMAGE, DDF, padding="reflection"), "padding is 'reflection'"),
        (lambda: fields.sample_at(IMAGE, POINTS[0]), "cannot be sampled at positions"),
        (lambda: fields.sample_at(IMAGE, torch.zeros(1, 5, 3)), "cannot be sampled at positions"),
        (lambda: fields.sample_at(IMAGE, POINTS.expand(3, 5, 2)), "the positions have 3"),
        (lambda: fields.sample_at(IMAGE, POINTS, mode="cubic"), "mode is 'cubic'"),
        (lambda: fields.compose(DDF, torch.zeros(1, 3, 4, 4, 4)), "cannot be sampled at positions"),
        (lambda: fields.invert(DDF[0]), "displacement field has shape"),
        (lambda: fields.invert(DDF, iterations=0), "iterations is 0"),
        (lambda: fields.resize(torch.zeros(1, 3, 4, 4), (4, 4)), "displacement field has shape"),
        (lambda: fields.resize(DDF, (4, 4, 4)), "spatial_shape is"),
        (lambda: fields.resize(DDF, (4, 0)), "spatial_shape is"),
        (lambda: fields.jacobian(torch.zeros(1, 2, 4, 1)), "expected at least 2 x 2"),
        (lambda: fields.jacobian_determinant(torch.zeros(1, 4, 4)), "displacement field has shape"),
        (lambda: fields.voxel_to_ras(DDF[0], FLAT), "displacement field has shape"),
        (lambda: fields.voxel_to_ras(DDF, np.eye(4)), "affine has shape"),
        (lambda: fields.ras_to_voxel(DDF, FLAT), "not invertible"),
        (lambda: fields.voxel_to_ras(DDF, NO_NUMBER), "not invertible"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shift", [0.5, -0.5, 1.5, -2.5])
@pytest.mark.parametrize("large", [False, True])
def test_labels_moved_by_half_a_voxel_keep_every_slice(shift: float, large: bool) -> None:
    """SciPy and ITK round a half up; to the even side, two of four slices would be lost and two doubled."""
    size = (12, 90, 90) if large else (12, 3, 2)  # the larger one is worked on in slabs
    labels = torch.arange(12, dtype=torch.int16).reshape(1, 1, 12, 1, 1).expand(1, 1, *size).contiguous()
    ddf = torch.zeros(1, 3, *size)
    ddf[:, 0] = shift
    places = np.indices(size, dtype=np.float64) + np.array([shift, 0, 0]).reshape(3, 1, 1, 1)
    expected = map_coordinates(labels[0, 0].numpy(), places, order=0, mode="nearest")
    np.testing.assert_array_equal(fields.warp(labels, ddf, "nearest", "border")[0, 0], expected)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_are_read_as_torch_reads_them(shape: tuple[int, ...], padding: str, dtype: torch.dtype) -> None:
    """Of whatever type, and far beyond the border; the values of floating point images come from torch itself."""
    labels = torch.randint(0, 5, (2, 2, *shape)).to(dtype)
    field = 6 * torch.randn(2, len(shape), *(n + 3 for n in shape))
    field[0, 0, 0] = 1e20
    found = fields.warp(labels, field, "nearest", padding)
    assert found.dtype == dtype
    torch.testing.assert_close(found, fields.warp(labels.double(), field, "nearest", padding).to(dtype))


def test_labels_at_no_position_are_none() -> None:
    field = torch.full((1, 2, 4, 5), math.nan)
    assert not fields.warp(torch.ones(1, 1, 4, 5, dtype=torch.uint8), field, "nearest", "zeros").any()


@pytest.mark.parametrize("shape", [*SIZES, (1, 40, 9)])
def test_few_points_are_read_in_their_own_precision(shape: tuple[int, ...]) -> None:
    """Of a float32 volume, widened only around the points, beyond the border and on it too."""
    volume = torch.randn(1, 2, *(4 * n if n > 1 else 1 for n in shape))
    size = torch.tensor(volume.shape[2:]).double()
    points = torch.rand(1, 8, len(shape), dtype=torch.float64) * 1.4 * size - 0.2 * size
    points[0, 0], points[0, 1] = 0, size - 1
    found = fields.sample_at(volume, points)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, fields.sample_at(volume.double(), points), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "fields.sample_at(field, torch.rand(1, 9, 3, dtype=torch.float64) * 150)",
        "fields.warp(labels, field, mode='nearest')",
        "fields.resize(field[..., ::8, ::8, ::8], field.shape[2:])",
    ],
)
def test_no_copies_of_what_is_given(code: str) -> None:
    """Results aside: the volume in float64 took 24 bytes a voxel, labels in float32 four, a field once more twelve."""
    prepare = """
from monai_regplugins import fields
field, labels = torch.rand(1, 3, 160, 160, 160), torch.ones(1, 1, 160, 160, 160, dtype=torch.uint8)
"""
    results = {"sample_at": 0, "warp": 1, "resize": 12}
    own = next(size for name, size in results.items() if name in code)
    assert peak_growth(prepare, f"result = {code}") < (own + 3.5) * 160**3

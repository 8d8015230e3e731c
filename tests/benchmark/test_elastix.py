"""Registration by elastix: its parameters against the paper, its fields against known ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_regplugins.benchmark import elastix
from monai_regplugins.checks import InputError
from monai_regplugins.fields import identity_grid, warp

SHAPE, SPACING = (32, 26, 22), (1.0, 1.5, 2.0)
DRAW = np.random.default_rng(1)
BLOBS = DRAW.uniform([-8.0] * 3, [40.0, 47.0, 52.0], (300, 3))  # mm
HEIGHTS = DRAW.uniform(-300.0, 300.0, 300)

needs_elastix = pytest.mark.skipif(
    importlib.util.find_spec("itk") is None, reason="needs itk-elastix, the extra 'benchmark'"
)


def blobs(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sum of Gaussians of 5 mm at points (N, d), mm."""
    distance = ((points[:, None] - BLOBS[None, :, : points.shape[1]]) ** 2).sum(-1)
    return np.exp(-distance / 50.0) @ HEIGHTS


def image(points: np.ndarray[Any, Any]) -> torch.Tensor:
    """The phantom sampled at points (*spatial, d), shape (1, 1, *spatial)."""
    lines = np.array_split(points.reshape(-1, points.shape[-1]), 20)
    return torch.from_numpy(np.concatenate([blobs(line) for line in lines]).reshape(points.shape[:-1]))[None, None]


def pair(
    shape: tuple[int, ...], displacement: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fixed and moving image with fixed(x) = moving(x + u(x)), both exact, and u (1, d, *spatial) in voxels."""
    spacing = np.array(SPACING[: len(shape)])
    x = np.moveaxis(np.indices(shape), 0, -1) * spacing
    u = displacement(x)
    return image(x + u), image(x), torch.from_numpy(np.moveaxis(u / spacing, -1, 0))[None]


def wave(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A smooth field of other size and shape in each component, mm."""
    d = x.shape[-1]
    return np.stack([(2.0 + k) * np.sin(x[..., (k + 1) % d] / 12 + k) for k in range(d)], axis=-1)


def inner(field: torch.Tensor) -> torch.Tensor:
    """The middle of a field (1, d, *spatial), one line per component."""
    middle = tuple(slice(n // 5, n - n // 5) for n in field.shape[2:])
    return field[(0, slice(None), *middle)].flatten(1)


class TestParameters:
    @pytest.mark.parametrize(
        ("method", "resolutions", "iterations"), [("affine", 5, 1000), ("bspline_1r", 1, 2000), ("bspline_3r", 3, 500)]
    )
    def test_numbers_of_the_paper(self, method: str, resolutions: int, iterations: int) -> None:
        found = elastix.elastix_parameters(method, "ncc", (322, 246, 348))
        assert found["NumberOfResolutions"] == [str(resolutions)]
        assert found["MaximumNumberOfIterations"] == [str(iterations)]
        assert found["Metric"] == ["AdvancedNormalizedCorrelation"]
        factors = found["ImagePyramidSchedule"]
        assert factors == [str(f) for f in (16, 8, 4, 2, 1)[-resolutions:] for _ in range(3)]
        assert ("FinalGridSpacingInPhysicalUnits" in found) == (method != "affine")
        assert found.get("FinalGridSpacingInPhysicalUnits", ["10.0"]) == ["10.0"]
        assert (found["ImageSampler"], found["NumberOfSpatialSamples"]) == (["RandomCoordinate"], ["2000"])

    def test_small_images_have_fewer_affine_resolutions(self) -> None:
        found = elastix.elastix_parameters("affine", "mi", (90, 32, 90), seed=7)
        assert found["ImagePyramidSchedule"] == ["4"] * 3 + ["2"] * 3 + ["1"] * 3
        assert (found["Metric"], found["RandomSeed"]) == (["AdvancedMattesMutualInformation"], ["7"])
        assert elastix.elastix_parameters("affine", "ncc", (4, 4))["ImagePyramidSchedule"] == ["1", "1"]

    def test_distance_of_the_nodes(self) -> None:
        found = elastix.elastix_parameters("bspline_3r", "ncc", SHAPE, grid_spacing=25)
        assert found["FinalGridSpacingInPhysicalUnits"] == ["25"]
        with pytest.raises(InputError, match=r"grid_spacing is 0\.0, expected a number above 0"):
            elastix.elastix_parameters("bspline_3r", "ncc", SHAPE, grid_spacing=0.0)

    def test_unknown_words(self) -> None:
        with pytest.raises(InputError, match="method is 'bspline_2r'; choose one of 'affine', 'bspline_1r'"):
            elastix.elastix_parameters("bspline_2r", "ncc", SHAPE)
        with pytest.raises(InputError, match=r"metric is 'nc'; choose one of 'ncc', 'mi'\. Did you mean 'ncc'"):
            elastix.elastix_parameters("affine", "nc", SHAPE)


class TestBadInput:
    good = torch.rand(1, 1, 9, 8, 7)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise ModuleNotFoundError(f"No module named '{name}'")

        monkeypatch.setattr(elastix.importlib, "import_module", missing)
        with pytest.raises(InputError, match=r'pip install "monai-regplugins\[benchmark\]"'):
            elastix.register_elastix(self.good, self.good, SPACING)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"moving": torch.rand(1, 1, 9, 8, 6)}, "moving has size 1 x 1 x 9 x 8 x 6 but fixed has"),
            ({"moving": torch.rand(2, 1, 9, 8, 7)}, "give one pair"),
            ({"moving": torch.ones(1, 1, 9, 8, 7)}, "moving image is constant"),
            ({"mask": torch.zeros(1, 1, 9, 8, 7)}, "mask is empty"),
            ({"mask": torch.ones(9, 8, 7)}, r"mask has shape \(9, 8, 7\)"),
            ({"spacing": (1.0, 2.0)}, "expected 3 positive numbers"),
            ({"spacing": (1.0, 2.0, 0.0)}, "expected 3 positive numbers"),
            ({"threads": 0}, "threads is 0, expected at least 1"),
        ],
    )
    def test_is_refused(self, changes: dict[str, Any], message: str) -> None:
        arguments = {"fixed": self.good, "moving": self.good, "spacing": SPACING} | changes
        with pytest.raises(InputError, match=message):
            elastix.register_elastix(**arguments)


@needs_elastix
@pytest.mark.slow
class TestRegistration:
    """Real runs, with fewer iterations than in the paper; loading elastix alone takes ten seconds."""

    @pytest.fixture(autouse=True)
    def fewer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for method, (resolutions, iterations) in elastix.METHODS.items():
            monkeypatch.setitem(elastix.METHODS, method, (resolutions, iterations * 2 // 5))

    @pytest.mark.parametrize("axis", range(3))
    @pytest.mark.parametrize(("method", "tolerance"), [("affine", 0.03), ("bspline_3r", 0.15)])
    def test_translation_along_one_axis(self, axis: int, method: str, tolerance: float) -> None:
        fixed, moving, true = pair(SHAPE, lambda x: np.broadcast_to(3.0 * np.eye(3)[axis], x.shape))
        found = elastix.register_elastix(fixed, moving, SPACING, method)
        assert found.ddf.shape == (1, 3, *SHAPE)
        assert found.ddf.dtype == torch.float32
        assert found.seconds > 0
        assert inner(true).abs().max() == 3.0 / SPACING[axis]
        assert (inner(found.ddf) - inner(true)).abs().mean(dim=1).max() < tolerance, "voxels"

    @pytest.mark.parametrize(
        ("method", "metric", "tolerance"),
        [("bspline_3r", "ncc", 0.15), ("bspline_1r", "ncc", 0.15), ("bspline_3r", "mi", 0.25)],
    )
    def test_smooth_field_on_anisotropic_voxels(self, method: str, metric: str, tolerance: float) -> None:
        fixed, moving, true = pair(SHAPE, wave)
        found = elastix.register_elastix(fixed, moving, torch.tensor(SPACING), method, metric)
        assert inner(true).abs().mean(dim=1).min() > 0.8, "voxels"
        assert (inner(found.ddf) - inner(true)).abs().mean(dim=1).max() < tolerance

    def test_slices(self) -> None:
        fixed, moving, true = pair((60, 50), wave)
        found = elastix.register_elastix(fixed, moving, SPACING[:2])
        assert (inner(found.ddf) - inner(true)).abs().mean(dim=1).max() < 0.1

    def test_warping_by_the_field_gives_elastixs_own_image(self) -> None:
        fixed, moving, _ = pair(SHAPE, wave)
        itk = elastix.load_elastix()
        images = [itk.image_from_array(np.ascontiguousarray(i[0, 0].float().numpy().T)) for i in (fixed, moving)]
        for each in images:
            each.SetSpacing(SPACING)
        assert images[1].GetPixel([3, 2, 1]) == moving[0, 0, 3, 2, 1].float()
        linear = {"FinalBSplineInterpolationOrder": ["1"], "WriteResultImage": ["true"]}
        parameters = itk.ParameterObject.New()
        parameters.AddParameterMap(elastix.elastix_parameters("bspline_1r", "ncc", SHAPE) | linear)
        result, _ = itk.elastix_registration_method(*images, parameter_object=parameters)
        ddf = elastix.register_elastix(fixed, moving, SPACING, "bspline_1r").ddf
        position = ddf[0] + identity_grid(SHAPE)
        last = torch.tensor(SHAPE).view(3, 1, 1, 1) - 1
        inside = ((position >= 0) & (position <= last)).all(dim=0)
        assert inside.float().mean() > 0.6
        warped = warp(moving.float(), ddf)[0, 0][inside]
        expected = torch.from_numpy(np.ascontiguousarray(itk.array_from_image(result).T))[inside]
        assert (expected - moving[0, 0][inside]).abs().mean() > 10.0
        torch.testing.assert_close(warped, expected.float(), rtol=0, atol=0.02)  # of intensities up to 1000

    def test_the_mask_is_that_of_the_fixed_image(self) -> None:
        """Two halves move apart along the second axis; each mask shows the registration its own half only."""
        fixed, moving, true = pair(SHAPE, lambda x: np.where(x[..., :1] < 16.0, 1.5, -1.5) * np.array([0.0, 1.0, 0.0]))
        for side in (1.0, -1.0):
            mask = true[:, 1:2] == side
            found = elastix.register_elastix(fixed, moving, SPACING, "affine", mask=mask)
            assert (found.ddf[:, 1:2][mask] - side).abs().mean() < 0.1

    def test_seeds_repeat(self) -> None:
        fixed, moving, _ = pair((40, 30), wave)
        first, again, other = (
            elastix.register_elastix(fixed, moving, SPACING[:2], "affine", seed=seed).ddf for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_leaves_no_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        fixed, moving, _ = pair((40, 30), wave)
        monkeypatch.chdir(tmp_path)
        elastix.register_elastix(fixed, moving, SPACING[:2], "affine")
        assert list(tmp_path.iterdir()) == []

    def test_threads_are_given_back(self) -> None:
        fixed, moving, _ = pair((40, 30), wave)
        threader = elastix.load_elastix().MultiThreaderBase
        before = threader.GetGlobalDefaultNumberOfThreads()
        elastix.register_elastix(fixed, moving, SPACING[:2], "affine", threads=before + 1)
        assert threader.GetGlobalDefaultNumberOfThreads() == before

    def test_failure_is_an_input_error(self) -> None:
        fixed, moving, _ = pair((40, 30), wave)
        mask = torch.zeros_like(fixed)
        mask[..., 0, 0] = 1
        with pytest.raises(InputError, match=r"elastix \(affine\) failed"):
            elastix.register_elastix(fixed, moving, SPACING[:2], "affine", mask=mask)

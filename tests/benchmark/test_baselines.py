"""The baselines: each finds known displacements, in direction and unit, on an image that has a closed form."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_regplugins.benchmark import baselines
from monai_regplugins.checks import InputError

MODULES = {"elastix": "itk", "greedy": "picsl_greedy", "ants": "ants", "dipy": "dipy", "convexadam": "convexAdam"}
MISSING = [module for module in MODULES.values() if importlib.util.find_spec(module) is None]
SPACING = (1.0, 1.5, 2.0)
SHIFT = (2.0, -1.0, 0.0)  # voxels, not mm

DRAW = np.random.default_rng(3)
WAVES = DRAW.normal(size=(3, 150)) * 2 * np.pi / 30  # per mm; wavelengths of about 10 mm and more
PHASES = DRAW.uniform(0, 2 * np.pi, 150)

pytestmark = pytest.mark.filterwarnings("ignore")  # of the baselines' own code


def installed(*methods: Any) -> list[Any]:
    """Give each set of parameters, the method's name first, a skip where its package is missing."""
    return [
        pytest.param(
            name,
            *rest,
            id=name,
            marks=[
                *marks,
                pytest.mark.skipif(
                    MODULES.get(name.partition("-")[0], "torch") in MISSING,
                    reason=f"needs {baselines.BASELINES[name].package}, of the extra 'benchmark'",
                ),
            ],
        )
        for name, marks, *rest in methods
    ]


def image(points: np.ndarray[Any, Any]) -> Tensor:
    """A sum of waves at points (*spatial, d), mm, about in [0, 1]; shape (1, *spatial)."""
    values = np.cos(points @ WAVES[: points.shape[-1]] + PHASES).sum(axis=-1)
    return torch.from_numpy(0.5 + values / 60).float()[None]


def pair(shape: tuple[int, ...], field: Callable[[np.ndarray[Any, Any]], Any]) -> dict[str, Any]:
    """Fixed and moving image with fixed(x) = moving(x + field(x)), both exact; ``true`` is the field, voxels."""
    spacing = np.array(SPACING[: len(shape)])
    x = np.moveaxis(np.indices(shape), 0, -1)
    u = np.broadcast_to(field(x), x.shape)
    return {
        "fixed": image((x + u) * spacing),
        "moving": image(x * spacing),
        "spacing": torch.tensor(spacing, dtype=torch.float32),
        "true": torch.from_numpy(np.moveaxis(u, -1, 0).copy()).float(),
    }


def register(
    name: str, known: dict[str, Any], mask: Tensor | None = None, seed: int = 0, stiffness: float = 1.0
) -> Tensor:
    """Run a baseline on a pair."""
    images = {key: known[key] for key in ("fixed", "moving", "spacing")}
    return baselines.load_baseline(name, stiffness)(**images, mask=mask, seed=seed, threads=1)


def error_left(ddf: Tensor, true: Tensor, where: Tensor | None = None) -> float:
    """Mean end-point error, in shares of that of the identity, in the middle of the image."""
    middle = (slice(None), *[slice(n // 6, n - n // 6) for n in true.shape[1:]])
    kept = torch.ones_like(true[:1]) if where is None else where.float()
    before, after = ((u.norm(dim=0, keepdim=True) * kept)[middle].sum() for u in (true, ddf - true))
    return float(after / before)


def wave(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A smooth field up to 2 voxels long, of another shape in each component."""
    d = x.shape[-1]
    return np.stack([(2.0 - 0.5 * k) * np.sin(x[..., (k + 1) % d] / 9 + k) for k in range(d)], axis=-1)


slow = [pytest.mark.slow]


class TestFields:
    @pytest.mark.parametrize(
        ("name", "share"),
        installed(
            ("demons", [], 0.05),
            ("greedy", [], 0.1),
            ("greedy-affine", [], 0.1),
            ("dipy", slow, 0.25),
            ("ants", slow, 0.35),
            ("elastix", slow, 0.1),
            ("convexadam", [], 0.2),
            ("simpleitk-bspline", slow, 0.05),
        ),
    )
    def test_shift_on_anisotropic_voxels(self, name: str, share: float) -> None:
        """Wrong signs or swapped axes leave more than all of the error, mm in place of voxels 40 % and more."""
        known = pair((34, 30, 26), lambda x: np.array(SHIFT))
        found = register(name, known)
        assert found.shape == known["true"].shape
        assert found.dtype == torch.float32
        assert error_left(found, known["true"]) < share

    @pytest.mark.parametrize(
        ("name", "share"),
        installed(
            ("demons", [], 0.1),
            ("greedy", [], 0.15),
            ("dipy", slow, 0.25),
            ("ants", slow, 0.35),
            ("elastix", slow, 0.1),
            ("simpleitk-bspline", slow, 0.1),
            ("bspline-tv", slow, 0.2),
        ),
    )
    def test_smooth_field_on_slices(self, name: str, share: float) -> None:
        known = pair((60, 48), wave)
        assert known["true"].norm(dim=0).mean() > 1.0, "voxels"
        assert error_left(register(name, known), known["true"]) < share

    @pytest.mark.parametrize("name", installed(("elastix-mi", slow), ("ants-mi", slow)))
    def test_mutual_information_takes_another_contrast(self, name: str) -> None:
        known = pair((60, 48), wave)
        known["fixed"] = (1 - known["fixed"]).square()
        assert error_left(register(name, known), known["true"]) < 0.6

    @pytest.mark.parametrize("name", installed(("greedy-affine", [])))
    def test_an_affine_registration_of_its_own(self, name: str) -> None:
        """A shift of more than a wavelength; without an affine registration as much is left, and more."""
        known = pair((60, 48), lambda x: np.array([10.0, -6.7]))
        assert error_left(register(name, known), known["true"]) < 0.1
        assert error_left(register("greedy", known), known["true"]) > 0.5

    def test_the_unit_shows(self) -> None:
        """The shares above distinguish the right field in mm, with a swapped pair of axes, or pushed."""
        true = pair((34, 30, 26), lambda x: np.array(SHIFT))["true"]
        in_mm = true * torch.tensor(SPACING).view(3, 1, 1, 1)
        assert min(error_left(u, true) for u in (in_mm, true[[1, 0, 2]], -true)) > 0.2

    @pytest.mark.parametrize("spatial", [(9, 8), (9, 8, 7)])
    def test_identity(self, spatial: tuple[int, ...]) -> None:
        found = register("identity", pair(spatial, lambda x: np.zeros(len(spatial))))
        assert torch.equal(found, torch.zeros(len(spatial), *spatial))


class TestMask:
    """Outside of the mask the images are of unrelated content."""

    @pytest.mark.parametrize(
        "name", installed(("greedy", []), ("simpleitk-bspline", slow), ("ants", slow), ("elastix", slow))
    )
    def test_is_obeyed(self, name: str) -> None:
        known = pair((60, 48), lambda x: np.array([1.5, -1.0]))
        mask = torch.zeros_like(known["fixed"])
        mask[:, :40] = 1
        known["moving"] = torch.where(
            mask > 0, known["moving"], image(np.moveaxis(np.indices((60, 48)), 0, -1) + 500.0)
        )
        inside = torch.zeros_like(mask)
        inside[:, :34] = 1  # there the unrelated content does not reach, but through the smoothness of a field
        with_mask, without = (register(name, known, m) for m in (mask, None))
        assert not torch.equal(with_mask, without)
        assert error_left(with_mask, known["true"], inside) < 0.5
        difference = (with_mask - without)[:, :10].abs().mean(), (with_mask - without)[:, 45:].abs().mean()
        assert difference[0] < 0.5 * difference[1], "the mask is that of the other end"


class TestStiffness:
    @pytest.mark.parametrize(
        ("name", "soft", "stiff"),
        installed(
            ("demons", [], 0.5, 3.0),
            ("greedy", [], 0.5, 3.0),
            ("bspline-tv", slow, 1.0, 300.0),
            ("dipy", slow, 1.0, 8.0),
            ("ants", slow, 1.0, 4.0),
            ("elastix", slow, 0.5, 3.0),
            ("simpleitk-bspline", slow, 0.5, 3.0),
        ),
    )
    def test_stiffer_fields_are_smoother(self, name: str, soft: float, stiff: float) -> None:
        """By the standard deviation of their derivatives, on images whose noise the fields may follow."""
        known = pair((40, 30), lambda x: np.array([1.5, -1.0]))
        noise = torch.randn(known["fixed"].shape, generator=torch.Generator().manual_seed(0))
        known["fixed"] = known["fixed"] + 0.5 * known["fixed"].std() * noise
        fields = (register(name, known, stiffness=factor) for factor in (soft, stiff))
        roughness = [float(torch.stack([u.diff(dim=k).std() for k in (1, 2)]).max()) for u in fields]
        assert roughness[1] < 0.6 * roughness[0]


class TestSeeds:
    @pytest.mark.parametrize("name", installed(("greedy", [])))
    def test_repeat(self, name: str) -> None:
        known = pair((40, 30), wave)
        first, again, other = (register(name, known, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


class TestBadInput:
    def test_unknown_method(self) -> None:
        with pytest.raises(InputError, match=r"method is 'gredy'; choose one of .*Did you mean 'greedy'"):
            baselines.load_baseline("gredy")

    @pytest.mark.parametrize("name", ["greedy", "ants", "dipy"])
    def test_not_installed(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(module: str) -> None:
            raise ModuleNotFoundError(f"No module named '{module}'")

        monkeypatch.setattr(baselines.importlib, "import_module", missing)
        package = baselines.BASELINES[name].package
        with pytest.raises(InputError, match=rf'needs the package {package}; .*"monai-regplugins\[benchmark\]"'):
            baselines.load_baseline(name)

    @pytest.mark.parametrize("name", installed(("convexadam", [])))
    def test_slices(self, name: str) -> None:
        with pytest.raises(InputError, match="ConvexAdam registers volumes, the images are slices"):
            register(name, pair((12, 12), wave))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", installed(("dipy", [])))
    def test_too_small(self, name: str) -> None:
        with pytest.raises(InputError, match=r"\(9, 30\) voxels, DIPY needs at least 10"):
            register(name, pair((9, 30), wave))

"""Instance optimization: closed forms, known fields, and what an evaluator asks of an inferer."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator
from scipy import ndimage

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.inferers import (
    DenseInferer,
    Drivers,
    PairInferer,
    SequenceInferer,
    StoppingRule,
)
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.inferers.refine import RefinedInferer
from monai_regplugins.inferers.spread import deviation
from monai_regplugins.losses import (
    EdgeAwareSmoothnessLoss,
    GradientLoss,
    InstanceLoss,
    IsotropicTVLoss,
    MaskedLNCCLoss,
    MaskedMSELoss,
    SequenceMSELoss,
    SyntheticFieldLoss,
    Term,
    WeightedSum,
)
from monai_regplugins.losses.instance import WeightedImage
from monai_regplugins.metrics import folding_strict
from monai_regplugins.metrics.uncertainty import ause
from monai_regplugins.networks.nets import R2N2, RAN, RegNet

Tensors = Mapping[str, torch.Tensor]
Network = Callable[[torch.Tensor], torch.Tensor]


def no_motion(image: torch.Tensor) -> torch.Tensor:
    """Stands in for a network that has learned nothing."""
    return torch.zeros(len(image), image.ndim - 2, *image.shape[2:])


def always(ddf: torch.Tensor) -> Network:
    return lambda image: ddf


def smooth(size: tuple[int, ...], sigma: float, seed: int) -> torch.Tensor:
    """Smooth noise between 0 and 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), sigma, mode="nearest")
    return torch.from_numpy((noise - noise.min()) / (noise.max() - noise.min())).float()


def known_pair(size: tuple[int, ...], amplitude: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A pair and the field that relates it, some voxels long."""
    moving = smooth(size, 1.5, 0)[None, None]
    ddf = torch.stack([smooth(size, 5.0, seed) - 0.5 for seed in range(1, 1 + len(size))])[None]
    ddf *= amplitude / torch.linalg.vector_norm(ddf, dim=1).max()
    return torch.cat([moving, fields.warp(moving, ddf, padding="border")], dim=1), ddf


def standardized(image: torch.Tensor) -> torch.Tensor:
    return (image - image.mean()) / image.std()


def error(ddf: torch.Tensor, true_ddf: torch.Tensor) -> float:
    """Mean endpoint error in voxels."""
    return float(torch.linalg.vector_norm(ddf - true_ddf, dim=1).mean())


def ran_loss() -> WeightedSum:
    return WeightedSum(
        {
            "similarity": Term(MaskedLNCCLoss(9, 0.1), ["warped", "fixed"], 2.0),
            "smoothness": Term(EdgeAwareSmoothnessLoss("l2"), ["ddf", "fixed"], 1.5),
        }
    )


def r2n2_loss(weight: float = 0.1) -> WeightedSum:
    return WeightedSum(
        {
            "similarity": Term(SequenceMSELoss("border"), ["sequence", "moving", "fixed"]),
            "smoothness": Term(IsotropicTVLoss(), ["ddf"], weight),
        }
    )


def refined(loss: Any = None, steps: int = 10, padding: str = "border", **options: Any) -> RefinedInferer:
    return RefinedInferer(PairInferer(minimum_size=1, padding=padding), loss or ran_loss(), steps, **options)


def test_no_steps_are_the_wrapped_inferer() -> None:
    """The same objects, and neither the loss nor anything else is touched, whatever its terms need."""

    expected = {"ddf": torch.zeros(1)}
    inputs: Any = "pair"

    class Wrapped(PairInferer):
        def __call__(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
            assert (args, kwargs) == (("pair", no_motion, "fixed"), {"key": "value"})
            return expected

    unusable = WeightedSum({"field": Term(SyntheticFieldLoss(), ["ddf", "true_ddf"])})
    assert RefinedInferer(Wrapped(), unusable, 0)(inputs, no_motion, "fixed", key="value") is expected
    assert list(expected) == ["ddf"]


class TestClosedForm:
    """Losses whose minimum is known, in float64: in float32 they are flat where they are lowest."""

    @pytest.mark.parametrize("size", [(7, 6), (4, 5, 3)])
    def test_of_a_quadratic(self, size: tuple[int, ...]) -> None:
        """Distance from t plus squared differences: the minimum solves (1 + weight D'D) u = t."""
        target, start, weight = torch.randn(1, len(size), *size), torch.randn(1, len(size), *size), 0.8

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            u = pred["ddf"].double()
            roughness = [u.diff(dim=axis).square().sum() for axis in range(2, 2 + len(size))]
            return ((u - target).square().sum() + weight * torch.stack(roughness).sum()) / target.numel()

        system = np.eye(int(np.prod(size)))
        for axis, n in enumerate(size):
            difference = np.diff(np.eye(n), axis=0)
            factors = [difference.T @ difference if k == axis else np.eye(m) for k, m in enumerate(size)]
            product = factors[0]
            for factor in factors[1:]:
                product = np.kron(product, factor)
            system += weight * product
        expected = np.linalg.solve(system, target[0].flatten(1).T.numpy()).T.reshape(target.shape)
        found = refined(loss, 250, spacing=1, smallest_change=0, node_smoothing=0)(
            torch.rand(1, 2, *size), always(start)
        )["ddf"]
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)

    @pytest.mark.parametrize(("size", "spacing"), [((8, 6), 2), ((9, 7), 3), ((5, 9), 20)])
    def test_of_the_closest_field_on_coarse_nodes(self, size: tuple[int, int], spacing: int) -> None:
        """Least squares in the span of hat functions, whose cells cover the same length as the voxels.

        What is outside of the span is small: next to a large rest of the loss, float32 sees no difference.
        """
        outside, start = 0.02 * torch.randn(1, 2, *size), torch.randn(1, 2, *size)
        axes = []
        for n in size:
            nodes = -(-n // spacing)
            x = (np.arange(n) + 0.5) * nodes / n - 0.5
            axes.append(np.stack([np.interp(x, np.arange(nodes), e) for e in np.eye(nodes)], axis=1))
        basis = np.kron(*axes)
        inside = basis @ torch.randn(basis.shape[1], 2).numpy()
        target = start + outside + torch.from_numpy(inside.T.reshape(start.shape)).float()
        residual = (target - start)[0].flatten(1).T.numpy()
        weights = np.linalg.lstsq(basis, residual, rcond=None)[0]
        expected = start.numpy() + (basis @ weights).T.reshape(target.shape)
        inferer = refined(
            lambda pred, _: (pred["ddf"].double() - target).square().mean(),
            400,
            spacing=spacing,
            smallest_change=0,
            node_smoothing=0,
        )
        np.testing.assert_allclose(inferer(torch.rand(1, 2, *size), always(start))["ddf"], expected, atol=1e-4)

    def test_at_the_size_of_the_training(self) -> None:
        """A loss that wants (1, 2) voxels of a coarse grid moves a fine one by as much as these are long."""
        shapes: set[tuple[int, ...]] = set()

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            shapes.update(tuple(value.shape[2:]) for value in [pred["ddf"], pred["warped"], *targets.values()])
            return (pred["ddf"].double() - torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)).square().mean()

        result = refined(loss, 300, spatial_size=[8, -1], smallest_change=0)(torch.rand(1, 2, 16, 9), no_motion)
        assert shapes == {(8, 9)}
        torch.testing.assert_close(result["ddf"][:, 0], torch.full((1, 16, 9), 2.0), atol=1e-4, rtol=0)
        torch.testing.assert_close(result["ddf"][:, 1], torch.full((1, 16, 9), 2.0), atol=1e-4, rtol=0)

    def test_the_fine_detail_of_the_field_is_kept(self) -> None:
        """One node for all can only shift the field: by the mean of what the coarse grid lacks, in fine voxels."""
        fine = torch.randn(1, 2, 16, 12)
        inferer = refined(
            lambda pred, _: (pred["ddf"].double() - 1).square().mean(), 300, spatial_size=[8, 6], spacing=16
        )
        inferer.descend.smallest_change = 0
        change = inferer(torch.rand(1, 2, 16, 12), always(fine))["ddf"] - fine
        lack = (1 - fields.resize(fine, [8, 6])).mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(change, (2 * lack).expand_as(change), atol=1e-4, rtol=0)


class TestLevels:
    """From coarse to fine."""

    def test_each_level_is_twice_as_large_and_none_larger_than_the_image(self) -> None:
        sizes: list[tuple[int, ...]] = []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            sizes.append(tuple(targets["fixed"].shape[2:]))
            return pred["ddf"].square().mean() + targets["fixed"].mean() * 0 * pred["warped"].mean()

        refined(loss, 1, spatial_size=[8, 6], levels=9)(torch.rand(1, 2, 30, 12), always(torch.ones(1, 2, 30, 12)))
        assert list(dict.fromkeys(sizes)) == [(8, 6), (16, 12), (30, 12)]

    def test_full_resolution_is_one_level_more(self) -> None:
        sizes: list[tuple[int, ...]] = []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            sizes.append(tuple(targets["fixed"].shape[2:]))
            return pred["ddf"].square().mean() + targets["fixed"].mean() * 0 * pred["warped"].mean()

        inferer = refined(loss, 1, spatial_size=[8, 6], levels=2, full_resolution=True)
        inferer(torch.rand(1, 2, 50, 40), always(torch.ones(1, 2, 50, 40)))
        assert list(dict.fromkeys(sizes)) == [(8, 6), (16, 12), (50, 40)]
        sizes.clear()
        inferer(torch.rand(1, 2, 16, 12), always(torch.ones(1, 2, 16, 12)))
        assert list(dict.fromkeys(sizes)) == [(8, 6), (16, 12)]

    @pytest.mark.parametrize(("levels", "large"), [(1, 1000), (2, 100), (2, 50)], ids=["last", "two", "all"])
    def test_large_levels_in_slabs_are_those_of_the_whole(
        self, levels: int, large: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair, true_ddf = known_pair((40, 36))
        first = [20 // levels, 18 // levels]
        inferer = refined(
            InstanceLoss(), 20, spatial_size=first, levels=levels, full_resolution=True, smallest_change=0
        )
        whole = inferer(pair, always(torch.zeros_like(true_ddf)))["ddf"]
        monkeypatch.setattr("monai_regplugins.inferers.refine.LARGE", large)
        monkeypatch.setattr("monai_regplugins.losses.slabs.SLAB_VOXELS", 300)
        slabs = inferer(pair, always(torch.zeros_like(true_ddf)))["ddf"]
        torch.testing.assert_close(slabs, whole, atol=0.01, rtol=0)
        assert error(slabs, true_ddf) < 0.5 * error(torch.zeros_like(true_ddf), true_ddf)

    @pytest.mark.parametrize(("levels", "last"), [(3, (40, 40)), (2, (16, 16)), (1, (8, 8))])
    def test_images_that_are_little_finer_take_the_place_of_the_last_level(
        self, levels: int, last: tuple[int, int]
    ) -> None:
        seen: list[torch.Size] = []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            seen.append(targets["fixed"].shape[2:])
            return pred["warped"].square().mean()

        refined(loss, 1, spatial_size=[8, 8], levels=levels)(torch.rand(1, 2, 40, 40), always(torch.ones(1, 2, 40, 40)))
        assert seen[-1] == last

    def test_what_is_far_is_found_on_the_coarse_levels(self) -> None:
        """Fine texture repeats within a few voxels and misleads; the structures beneath it do not."""
        noise = np.random.default_rng(0).normal(size=(96, 96))
        scene = sum(sigma * ndimage.gaussian_filter(noise, sigma, mode="wrap") for sigma in (1.5, 5.0))
        moving, fixed = (np.roll(scene, by, (0, 1))[16:80, 16:80].astype(np.float32) for by in ((0, 0), (6, -7)))
        image = standardized(torch.from_numpy(np.stack([moving, fixed]))[None])
        shift = torch.tensor([-6.0, 7.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
        loss = WeightedSum(
            {
                "similarity": Term(torch.nn.MSELoss(), ["warped", "fixed"]),
                "smoothness": Term(GradientLoss(), ["ddf"], 4.0),
            }
        )
        fine, coarse_to_fine = (
            refined(loss, 100, learning_rate=0.2, spatial_size=[size, size], levels=levels)(image, no_motion)["ddf"]
            for size, levels in ((64, 1), (16, 3))
        )
        inner = (..., slice(16, 48), slice(16, 48))  # elsewhere a part of what is to be found lies outside
        assert error(coarse_to_fine[inner], shift[inner]) < 0.05
        assert error(fine[inner], shift[inner]) > 3

    def test_the_loss_of_the_last_level_never_rises(self) -> None:
        """The coarse level is made to corrupt the field, and the fine one has no step that could repair it."""

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            wanted = 3.0 if pred["ddf"].shape[2] == 8 else 0.0
            return (pred["ddf"] - wanted).square().mean() + 1

        result = refined(loss, 2, spatial_size=[8, 8], levels=2)(torch.rand(1, 2, 16, 16), no_motion)
        assert torch.equal(result["ddf"], torch.zeros(1, 2, 16, 16))
        assert result["refinement"].tolist() == [[1.0, 1.0]]


class TestKnownField:
    """Pairs warped by a smooth field of up to 3 voxels, from no field at all."""

    @pytest.mark.parametrize("size", [(40, 40), (24, 26, 22)])
    def test_local_correlation(self, size: tuple[int, ...]) -> None:
        image, true_ddf = known_pair(size)
        result = refined(steps=60)(image, no_motion)
        assert error(result["ddf"], true_ddf) < 0.2 * error(no_motion(image), true_ddf)

    @pytest.mark.parametrize("size", [(40, 40), (24, 26, 22)])
    def test_squared_differences(self, size: tuple[int, ...]) -> None:
        image, true_ddf = known_pair(size)
        result = refined(r2n2_loss(), 60)(standardized(image), no_motion)
        assert error(result["ddf"], true_ddf) < 0.2 * error(no_motion(image), true_ddf)

    def test_the_better_the_start_the_better_the_end_of_few_steps(self) -> None:
        image, true_ddf = known_pair((40, 40))
        errors = [error(refined(steps=5)(image, always(k * true_ddf))["ddf"], true_ddf) for k in (0.0, 0.5, 0.8)]
        assert errors == sorted(errors, reverse=True)
        assert errors[1] < 0.5 * error(no_motion(image), true_ddf)


class TestNeverWorse:
    """The best field seen is kept."""

    def test_reported_losses_are_those_of_the_fields(self) -> None:
        image, true_ddf = known_pair((24, 20))
        start, loss = true_ddf + 0.3 * torch.randn_like(true_ddf), ran_loss()
        result = refined(loss, 12)(image, always(start))
        moving, fixed = image.split(1, dim=1)
        for ddf, value in zip((start, result["ddf"]), result["refinement"][0], strict=True):
            pred = {"ddf": ddf, "warped": fields.warp(moving, ddf, padding="border")}
            torch.testing.assert_close(loss(pred, {"fixed": fixed}), value)

    def test_more_steps_are_not_worse(self) -> None:
        image, _ = known_pair((20, 18))
        ends = [refined(steps=n, learning_rate=1.5)(image, no_motion)["refinement"] for n in range(1, 16)]
        before, after = torch.cat(ends).T
        assert (before == before[0]).all()
        assert (after.diff() <= 0).all()
        assert after[0] <= before[0]
        assert after[-1] < before[0] - 0.05
        assert (after.diff() == 0).any(), "no step was worse, so nothing was kept"

    def test_steps_that_only_hurt_leave_the_field_as_it_was(self) -> None:
        image, true_ddf = known_pair((24, 20))
        result = refined(steps=5, learning_rate=50.0)(image, always(true_ddf))
        assert torch.equal(result["ddf"], true_ddf)
        assert result["refinement"][0, 0] == result["refinement"][0, 1]

    @pytest.mark.parametrize("broken_from", [0, 1, 4])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_loss_that_breaks_ends_the_descent(
        self, broken_from: int, value: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls = 0

        def loss(pred: Tensors, _: Tensors) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return (pred["ddf"] - 1).square().mean() + (value if calls > broken_from else 0)

        result = refined(loss, 50)(torch.rand(1, 2, 8, 8), no_motion)
        assert calls == broken_from + 1
        assert result["ddf"].isfinite().all()
        assert (result["ddf"] != 0).all() == (broken_from > 1)
        reported = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert [line.startswith(f"not refined: the loss of the pair is {value}") for line in reported] == [True] * (
            broken_from == 0
        )

    @pytest.mark.parametrize("loss", [ran_loss(), r2n2_loss()], ids=["ran", "r2n2"])
    @pytest.mark.parametrize("size", [(12, 10), (8, 7, 9)])
    def test_constant_images(self, loss: WeightedSum, size: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
        image = torch.cat([torch.zeros(1, 1, *size), torch.full((1, 1, *size), 0.5)], dim=1)
        with caplog.at_level(logging.INFO):
            still = refined(loss, 30, patience=4)(image, no_motion)
        assert torch.equal(still["ddf"], no_motion(image))
        assert caplog.messages[0].endswith("in 4 steps")
        rough = torch.randn(1, len(size), *size)
        smoothed = refined(loss, 30)(image, always(rough))
        assert all(value.isfinite().all() for value in smoothed.values())
        assert smoothed["refinement"][0, 1] < smoothed["refinement"][0, 0]


class TestDescent:
    """How the descent runs."""

    def test_it_ends_where_the_loss_stands_still(self, caplog: pytest.LogCaptureFixture) -> None:
        image, _ = known_pair((20, 18))
        with caplog.at_level(logging.INFO):
            result = refined(steps=200)(image, no_motion)
            longer = refined(steps=200, smallest_change=0)(image, no_motion)
        stopped, full = (int(message.split()[-2]) for message in caplog.messages)
        assert 20 < stopped < 150
        assert full == 200
        gains = [float(ends[0, 0] - ends[0, 1]) for ends in (result["refinement"], longer["refinement"])]
        assert gains[0] > 0.98 * gains[1]

    @pytest.mark.parametrize("size", [(8, 8), (64, 64)])
    def test_a_weak_loss_on_a_large_image_moves_as_fast(self, size: tuple[int, int]) -> None:
        """Adam's first step is the learning rate, as long as the gradients are far above its epsilon."""
        inferer = refined(lambda pred, _: 1e-5 * (pred["ddf"] - 1).square().mean(), 1, learning_rate=0.25)
        ddf = inferer(torch.rand(1, 2, *size), no_motion)["ddf"]
        torch.testing.assert_close(ddf, torch.full_like(ddf, 0.25), rtol=1e-2, atol=0)

    def test_one_line_per_pair(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG):
            result = refined(steps=3)(torch.rand(2, 2, 8, 8), no_motion)
        ends = result["refinement"].tolist()
        assert caplog.messages == [f"refined: loss {a:.4g} -> {b:.4g} in 3 steps" for a, b in ends]
        assert {record.levelname for record in caplog.records} == {"INFO"}

    @pytest.mark.parametrize("size", [(12, 10), (8, 7, 9)])
    def test_same_again(self, size: tuple[int, ...]) -> None:
        image, start = torch.rand(1, 2, *size), torch.randn(1, len(size), *size)
        first, second = (refined()(image, always(start)) for _ in range(2))
        assert not torch.equal(first["ddf"], start)
        assert all(torch.equal(first[key], second[key]) for key in first)

    @pytest.mark.parametrize("size", [(12, 10), (8, 7, 9)])
    def test_samples_do_not_mix(self, size: tuple[int, ...]) -> None:
        image, start = torch.rand(3, 2, *size), torch.randn(3, len(size), *size)
        mask = (torch.rand(3, 1, *size) > 0.5).float()
        loss = WeightedSum({"similarity": Term(MaskedMSELoss(), ["warped", "fixed", "fixed_mask"])})

        class Wrapped(PairInferer):
            def __call__(self, *args: Any, fixed_mask: Any = None, **kwargs: Any) -> dict[str, torch.Tensor]:
                return super().__call__(*args, **kwargs)

        inferer = RefinedInferer(Wrapped(minimum_size=1), loss, 6)
        together = inferer(image, always(start), fixed_mask=mask)
        for b in range(3):
            one = slice(b, b + 1)
            alone = inferer(image[one], always(start[one]), fixed_mask=mask[one])
            assert all(torch.equal(together[key][one], alone[key]) for key in ("ddf", "warped", "refinement"))

    def test_it_keeps_no_graphs(self) -> None:
        seen: list[weakref.ref[torch.Tensor]] = []
        alive = []

        def loss(pred: Tensors, _: Tensors) -> torch.Tensor:
            alive.append(sum(reference() is not None for reference in seen))
            value = pred["warped"].square()
            seen.append(weakref.ref(value))
            return value.mean()

        weight = torch.ones(1, requires_grad=True)
        result = refined(loss, 6)(torch.rand(1, 2, 8, 8), lambda image: no_motion(image) + weight)
        assert max(alive) == 0
        assert not any(value.requires_grad for value in result.values())
        assert weight.grad is None

    @pytest.mark.parametrize("padding", ["zeros", "border"])
    def test_padding_is_that_of_the_wrapped_inferer(self, padding: str) -> None:
        image, start, seen = torch.rand(1, 2, 9, 8), 3 * torch.randn(1, 2, 9, 8), []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            seen.append(pred["warped"].detach())
            return (pred["warped"] - targets["fixed"]).square().mean()

        result = refined(loss, 4, padding)(image, always(start))
        assert torch.equal(seen[0], fields.warp(image[:, :1], start, padding=padding))
        assert torch.equal(result["warped"], fields.warp(image[:, :1], result["ddf"], padding=padding))
        assert any(torch.equal(result["warped"], warped) for warped in seen[1:])


class TestContext:
    """What evaluators and users put around the call."""

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_any_gradient_mode(self, context: Callable[[], Any]) -> None:
        convolution, loss = torch.nn.Conv2d(2, 2, 3, padding=1), ran_loss()
        with context():
            image = torch.linspace(0, 1, 240).sin().abs().reshape(1, 2, 12, 10)
            result = refined(loss, 5)(image, convolution)
        with torch.no_grad():
            expected = refined(loss, 5)(image.clone(), convolution)
        assert result["refinement"][0, 1] < result["refinement"][0, 0]
        assert all(torch.equal(result[key], expected[key]) for key in expected)
        assert all(parameter.grad is None for parameter in convolution.parameters())
        assert not result["ddf"].requires_grad

    def test_float32_under_autocast(self) -> None:
        image, start = torch.rand(1, 2, 12, 10), torch.randn(1, 2, 12, 10)
        expected = refined()(image, always(start))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = refined()(image, always(start))
        assert result["ddf"].dtype == torch.float32
        assert all(torch.equal(result[key], expected[key]) for key in expected)

    def test_half_precision_images(self) -> None:
        image, start = torch.rand(1, 2, 12, 10).half(), torch.randn(1, 2, 12, 10)
        result, expected = (refined()(pair, always(start)) for pair in (image, image.float()))
        assert all(torch.equal(result[key], expected[key]) for key in expected)

    def test_moving_and_fixed_apart(self) -> None:
        image, start = torch.rand(2, 2, 12, 10), torch.randn(2, 2, 12, 10)
        moving, fixed = image.split(1, dim=1)
        together = refined()(image, always(start))
        for apart in (refined()(moving, always(start), fixed), refined()(moving, always(start), fixed=fixed)):
            assert all(torch.equal(together[key], apart[key]) for key in together)

    def test_inputs_are_left_alone(self) -> None:
        image, start = torch.rand(1, 2, 12, 10), torch.randn(1, 2, 12, 10)
        copies = image.clone(), start.clone()
        refined()(image, always(start))
        assert torch.equal(image, copies[0])
        assert torch.equal(start, copies[1])

    def test_in_an_evaluator(self) -> None:
        image, _ = known_pair((20, 18))
        batch = {"moving": image[:, :1].repeat(2, 1, 1, 1), "fixed": image[:, 1:].repeat(2, 1, 1, 1)}

        class Still(torch.nn.Module):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return no_motion(image)

        evaluator: Any = SupervisedEvaluator(
            torch.device("cpu"), [batch], Still(), inferer=refined(steps=4), prepare_batch=PairPrepareBatch()
        )
        evaluator.run()
        for output in evaluator.state.output:
            before, after = output["pred"]["refinement"].tolist()
            assert after < before
            assert output["pred"]["ddf"].shape == (2, 20, 18)


class TestSmoothing:
    """Pairs with noise of their own in each image."""

    def test_the_loss_sees_smoothed_images_and_the_result_is_sharp(self) -> None:
        seen: list[dict[str, torch.Tensor]] = []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            seen.append(dict(targets))
            return pred["warped"].square().mean()

        image, start = torch.rand(1, 2, 14, 12), torch.randn(1, 2, 14, 12)
        result = refined(loss, 1, smoothing=0.8)(image, always(start))
        for key, channel in (("moving", 0), ("fixed", 1)):
            expected = ndimage.gaussian_filter(image[0, channel].numpy(), 0.8, mode="nearest")
            np.testing.assert_allclose(seen[0][key][0, 0], expected, atol=1e-3)
        assert torch.equal(result["warped"], fields.warp(image[:, :1], result["ddf"], padding="border"))

    def test_noise_alone_moves_nothing(self) -> None:
        anatomy = smooth((32, 32), 3.0, 0)
        image = torch.stack([anatomy + 0.03 * torch.randn(32, 32) for _ in range(2)])[None]
        loss = WeightedSum({**ran_loss().terms, "similarity": Term(MaskedLNCCLoss(9, None), ["warped", "fixed"], 2.0)})
        sharp, soft = (error(refined(loss, smoothing=s)(image, no_motion)["ddf"], no_motion(image)) for s in (0, 0.75))
        assert soft < 0.5 * sharp


class TestLoss:
    """The losses of the trainings."""

    @pytest.mark.parametrize("bundle", ["ran", "r2n2"])
    def test_that_of_a_bundle(self, bundle: str, repository: Path) -> None:
        config = ConfigParser.load_config_file(repository / "bundles" / bundle / "configs" / "train.json")
        loss = ConfigParser(config).get_parsed_content("loss")
        size = (20, 18) if config["spatial_dims"] == 2 else (12, 14, 16)
        image, true_ddf = known_pair(size)
        result = refined(loss, 20)(image if bundle == "ran" else standardized(image), no_motion)
        assert error(result["ddf"], true_ddf) < 0.8 * error(no_motion(image), true_ddf)
        assert loss.last == {}, "the values that a training logs are those of another call"

    def test_terms_without_their_inputs_are_left_out(self) -> None:
        image, start = torch.rand(1, 2, 12, 10), torch.randn(1, 2, 12, 10)
        terms: dict[str, Any] = dict(ran_loss().terms)
        more = {
            "synthetic": Term(SyntheticFieldLoss(), ["ddf", "true_ddf", "has_true_ddf"]),
            "off": Term(GradientLoss(), ["nothing"], 0.0),
        }
        result, expected = (refined(WeightedSum(t))(image, always(start)) for t in ({**terms, **more}, terms))
        assert all(torch.equal(result[key], expected[key]) for key in expected)

    @pytest.mark.parametrize(
        ("terms", "named"),
        [
            ({"field": Term(SyntheticFieldLoss(), ["ddf", "true_ddf"])}, "'field' takes ddf, true_ddf"),
            ({"smooth": Term(EdgeAwareSmoothnessLoss(), ["ddf", "fixed"])}, "'smooth' takes ddf, fixed"),
            ({"masked": Term(MaskedMSELoss(), ["warped", "fixed", "fixed_mask"])}, "warped, fixed, fixed_mask"),
            ({"off": Term(MaskedMSELoss(), ["warped", "fixed"], 0.0)}, "all weights are zero"),
        ],
    )
    def test_a_loss_that_sees_no_images_is_refused_before_anything_runs(
        self, terms: dict[str, Term], named: str
    ) -> None:
        def network(image: torch.Tensor) -> torch.Tensor:
            pytest.fail("the network was called")

        with pytest.raises(InputError, match=rf"no term that compares the images of a pair \(.*{named}\)"):
            refined(WeightedSum(terms))(torch.rand(1, 2, 12, 10), network)

    def test_mask_of_the_call_reaches_the_loss(self) -> None:
        """Half of a pair is marked: there it is registered, elsewhere it stays as it is."""
        image, net = torch.rand(1, 2, 12, 16), RegNet(2, width=0.1).eval()
        mask = torch.zeros(1, 1, 12, 16, dtype=torch.uint8)
        mask[..., :8] = 1
        loss = WeightedSum({"similarity": Term(MaskedMSELoss(), ["warped", "fixed", "fixed_mask"])})
        wrapped = DenseInferer("fast", None)
        with torch.no_grad():
            plain = wrapped(image, net, fixed_mask=mask)["ddf"]
            result = RefinedInferer(wrapped, loss, 5, 4, node_smoothing=0)(
                image, net, fixed_mask=mask, spacing=torch.ones(1, 2)
            )
        change = (result["ddf"] - plain).abs().sum(dim=1)
        assert (change[..., :8] > 0).any()
        assert (change[..., 14:] == 0).all()  # beyond the last node with a marked voxel in its reach

    def test_mask_is_resized_with_the_images(self) -> None:
        seen = []

        def loss(pred: Tensors, targets: Tensors) -> torch.Tensor:
            seen.append(targets["fixed_mask"])
            return pred["warped"].mean()

        mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        mask[..., :3] = True
        wrapped, net = DenseInferer("fast", None), RegNet(2, width=0.1).eval()
        RefinedInferer(wrapped, loss, 1, spatial_size=[4, 4])(torch.rand(1, 2, 8, 8), net, fixed_mask=mask)
        expected = torch.tensor([1.0, 0.5, 0.0, 0.0]).expand(1, 1, 4, 4)
        torch.testing.assert_close(seen[0], expected)

    def test_what_a_sequence_tells_beside_the_field_stays(self) -> None:
        net = R2N2(channels=(2, 4, 4), num_residual=1, steps=3).eval()
        image, wrapped = standardized(torch.rand(1, 2, 32, 32)), SequenceInferer(StoppingRule(), transforms=True)
        with torch.no_grad():
            plain, result = wrapped(image, net), RefinedInferer(wrapped, r2n2_loss(), 3)(image, net)
        assert set(result) == {*plain, "refinement"}
        assert all(torch.equal(result[key], plain[key]) for key in plain if key not in ("ddf", "warped"))
        assert result["refinement"][0, 1] < result["refinement"][0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps, spacing and patience are -1, 2 and 10"),
        ({"spacing": 0}, "steps, spacing and patience are 10, 0 and 10"),
        ({"levels": 0}, "levels is 0, expected at least 1"),
        ({"transform": "affine"}, "transform is 'affine'"),
        ({"search": -1}, "search is -1, expected voxels of the first level"),
        ({"patience": 0}, "expected at least 0, 1 and 1"),
        ({"learning_rate": 0.0}, "learning_rate and smallest_change are 0.0 and 0.001"),
        ({"learning_rate": float("nan")}, "expected voxels above 0"),
        ({"smallest_change": 1.0}, "a fraction from 0 to below 1"),
        ({"smoothing": -0.1}, "smoothing is -0.1, expected voxels from 0 on"),
        ({"smoothing": float("nan")}, "smoothing is nan"),
        ({"uncertainty": -1.0}, "uncertainty is -1.0, expected a factor from 0 on"),
        ({"uncertainty": 1.0}, "instance optimization, which is off; set refine_steps to 30"),  # loss of a training
        ({"uncertainty": 1.0, "loss": InstanceLoss(), "steps": 0}, "set refine_steps to 30, or uncertainty to false"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refined(**options)


def test_windows_of_a_training_are_refused() -> None:
    with pytest.raises(InputError, match="choose 'exact' or 'fast'"):
        RefinedInferer(DenseInferer("window"), ran_loss(), 1)
    assert isinstance(RefinedInferer(DenseInferer("window"), ran_loss(), 0), RefinedInferer)


class TestUncertainty:
    """The spread of fields of an instance optimization."""

    OPTIONS: Mapping[str, Any] = {"steps": 15, "smoothing": 0.75, "levels": 2, "spatial_size": (16, 14)}

    def infer(self, factor: float, image: torch.Tensor, **changes: Any) -> dict[str, torch.Tensor]:
        options = {**self.OPTIONS, "loss": InstanceLoss("mse", smoothness_weight=0.05), **changes}
        return refined(uncertainty=factor, **options)(image, no_motion)

    def test_by_hand(self) -> None:
        """By the optimum for four times the smoothness, sought from the field that was found."""
        image, _ = known_pair((32, 28))
        found = self.infer(2.0, image)
        stiffer = InstanceLoss("mse", smoothness_weight=0.2)
        other = refined(stiffer, never_worse=False, **self.OPTIONS)(image, always(found["ddf"]))["ddf"]
        assert (other - found["ddf"]).abs().max() > 0.1, "too small to show anything"
        expected = deviation(found["ddf"], other, factor=2.0)
        torch.testing.assert_close(found["uncertainty"], expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("size", [(32, 28), (16, 14, 18)])
    def test_nothing_else_changes(self, size: tuple[int, ...]) -> None:
        image, _ = known_pair(size)
        options = {"spatial_size": [n // 2 for n in size]}
        plain, found = (self.infer(factor, image, **options) for factor in (0.0, 1.0))
        assert found["uncertainty"].shape == plain["ddf"].shape
        assert found["uncertainty"].min() > 0
        assert set(found) - set(plain) == {"uncertainty"}
        assert all(torch.equal(found[key], plain[key]) for key in plain)

    def test_same_again(self) -> None:
        image, _ = known_pair((32, 28))
        state = torch.get_rng_state()
        one, two = (self.infer(1.0, image)["uncertainty"] for _ in range(2))
        assert torch.equal(one, two)
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_is_large_where_the_error_is(self) -> None:
        image, true_ddf = known_pair((48, 40), amplitude=5.0)
        found = self.infer(1.0, image, spatial_size=(24, 20), node_smoothing=0, learning_rate=0.1)
        wrong = torch.linalg.vector_norm(found["ddf"] - true_ddf, dim=1).flatten()
        deviation = torch.linalg.vector_norm(found["uncertainty"], dim=1).flatten()
        moved = torch.linalg.vector_norm(found["ddf"], dim=1).flatten()
        assert ause(wrong, deviation) < 0.6 * ause(wrong, moved)
        assert ause(wrong, deviation) < 0.8 * ause(wrong, None)

    @pytest.mark.parametrize("changes", [{"transform": "velocity"}, {"full_resolution": True}])
    def test_in_each_form(self, changes: dict[str, Any]) -> None:
        image, _ = known_pair((32, 28))
        found = self.infer(1.0, image, **changes)["uncertainty"]
        assert found.isfinite().all()
        assert 0.1 < found.max() < 3

    def test_that_of_a_network_is_left_out_with_its_field(self) -> None:
        net = R2N2(channels=(2, 4, 4), num_residual=1, steps=3).eval()
        image = standardized(torch.rand(1, 2, 32, 32))
        wrapped = SequenceInferer(uncertainty="localization")
        with torch.no_grad():
            kept, left_out = (RefinedInferer(wrapped, InstanceLoss("mse"), steps)(image, net) for steps in (0, 2))
            assert torch.equal(kept["uncertainty"], wrapped(image, net)["uncertainty"])
        assert "uncertainty" not in left_out


class TestNeverWorseThanAligned:
    """With its own loss the inferer chooses the start, and keeps nothing that unused voxels like less than none."""

    def options(self, **changes: Any) -> dict[str, Any]:
        return {"spatial_size": [20, 20], "levels": 2, "smoothing": 0.75, **changes}

    def test_a_network_that_does_harm_is_not_the_start(self, caplog: pytest.LogCaptureFixture) -> None:
        image, true_ddf = known_pair((40, 40))
        wrong = always(-4 * true_ddf)
        with caplog.at_level(logging.INFO):
            found = refined(InstanceLoss(), 60, **self.options())(image, wrong)
        expected = refined(InstanceLoss(), 60, **self.options())(image, no_motion)
        assert found["from_network"].tolist() == [0.0]
        assert error(found["ddf"], true_ddf) == pytest.approx(error(expected["ddf"], true_ddf), abs=0.02)
        assert " from the aligned pair; similarity on unused voxels " in caplog.messages[0]

    def test_a_good_network_is_the_start(self) -> None:
        image, true_ddf = known_pair((40, 40), amplitude=4.0)
        found = refined(InstanceLoss(), 5, **self.options())(image, always(true_ddf))
        assert found["from_network"].tolist() == [1.0]
        before, after = found["unused_similarity"][0].tolist()
        assert after > before + 0.1

    @pytest.mark.parametrize("mapped", [lambda image: image, lambda image: 1 - image])
    def test_auto_leaves_images_of_one_contrast_as_they_are(
        self, mapped: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing else than local correlation, which is linear, is even tried."""
        image, _ = known_pair((40, 40))
        image[:, 1] = mapped(image[:, 1])
        monkeypatch.setattr("monai_regplugins.losses.instance.mind_ssc", None)
        auto, plain = (refined(InstanceLoss(name), 60, **self.options())(image, no_motion) for name in ("auto", "lncc"))
        assert auto["contrast_free"].tolist() == [0.0]
        assert torch.equal(auto["ddf"], plain["ddf"])

    def test_a_bias_field_is_removed(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, 1, 32, 32, 32, generator=generator)
        moving = (8 * gaussian_mean(noise, 2.0) - 3.5).clamp(0, 1) + 0.2
        true_ddf = 30 * gaussian_mean(torch.randn(1, 3, 32, 32, 32, generator=generator), 5.0)
        bias = torch.exp(8 * gaussian_mean(torch.randn(1, 1, 32, 32, 32, generator=generator), 8.0))
        fixed = fields.warp(moving, true_ddf, padding="border")
        options: dict[str, Any] = {"spatial_size": [16] * 3, "levels": 2, "smoothing": 0.75}
        found = {}
        for name, image in (("equal", fixed), ("auto", bias * fixed), ("lncc", bias * fixed)):
            inferer = refined(InstanceLoss("auto" if name == "auto" else "lncc"), 40, **options)
            found[name] = error(inferer(torch.cat([moving, image], dim=1), no_motion)["ddf"], true_ddf)
        assert [" without the bias of the fixed image " in line for line in caplog.messages] == [False, True, False]
        before = error(torch.zeros_like(true_ddf), true_ddf)
        assert found["equal"] < 0.3 * before
        assert found["auto"] < 0.8 * found["lncc"]

    @pytest.mark.parametrize(
        ("side", "options"),
        [("fixed", {}), ("moving", {"levels": 1, "spatial_size": [], "transform": "velocity"})],
    )
    def test_an_unmonotonic_map_is_undone(
        self, side: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        image, true_ddf = known_pair((64, 64))
        channel = int(side == "fixed")
        image[:, channel] = ((1.5 * image[:, channel] + 0.25) % 1 * 2 - 1).abs()
        with caplog.at_level(logging.INFO):
            auto, mind = (
                refined(InstanceLoss(name), 60, **self.options(**options, node_smoothing=0, learning_rate=0.1))(
                    image, no_motion
                )
                for name in ("auto", "mind")
            )
        assert auto["contrast_free"].tolist() == [1.0]
        assert f" steps by lncc in the contrast of the {side} image from " in caplog.messages[0]
        assert error(auto["ddf"], true_ddf) < 0.75 * error(mind["ddf"], true_ddf)

    def test_auto_sees_that_a_result_lost_information(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A field that made local correlation high and joint histograms flat is not taken for a match."""
        image, true_ddf = known_pair((64, 64))
        image[:, 1] = 4 * (image[:, 1] - 0.45).square()
        monkeypatch.setattr("monai_regplugins.inferers.refine.ALIKE", float("inf"))
        auto, lncc = (refined(InstanceLoss(name), 60, **self.options())(image, no_motion) for name in ("auto", "lncc"))
        assert auto["contrast_free"].tolist() == [1.0]
        assert error(auto["ddf"], true_ddf) < 0.5 * error(lncc["ddf"], true_ddf)

    def test_the_discrete_search_starts_where_descent_alone_does_not_arrive(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        scene = smooth((96, 96), 2.0, 0)
        image = torch.stack([scene[16:80, 16:80], scene[26:90, 7:71]])[None]
        shift = torch.tensor([10.0, -9.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
        inner = (..., slice(16, 48), slice(16, 48))
        options = self.options(spatial_size=[32, 32])
        with caplog.at_level(logging.INFO):
            found = [refined(InstanceLoss(), 30, search=reach, **options)(image, no_motion) for reach in (0, 6)]
        errors = [error(one["ddf"][inner], shift[inner]) for one in found]
        assert errors[1] < 0.5 < 5 < errors[0]
        assert [one["from_search"].item() for one in found] == [0.0, 1.0]
        assert " from the discrete search; " in caplog.messages[1]

    def test_identical_images_stay_put(self) -> None:
        image = smooth((40, 40), 1.5, 0)[None, None].repeat(1, 2, 1, 1)
        wrong = always(torch.full((1, 2, 40, 40), 1.3))
        found = refined(InstanceLoss(), 30, **self.options())(image, wrong)
        assert torch.equal(found["ddf"], torch.zeros(1, 2, 40, 40))

    def test_noise_alone_moves_little(self) -> None:
        anatomy = smooth((48, 48), 3.0, 0)
        noise = torch.randn(2, 48, 48, generator=torch.Generator().manual_seed(0))
        found = refined(InstanceLoss(), 30, **self.options())((anatomy + 0.03 * noise)[None], no_motion)["ddf"]
        assert error(found, torch.zeros_like(found)) < 0.05

    def test_without_steps_a_worse_field_is_reported_and_kept(self, caplog: pytest.LogCaptureFixture) -> None:
        image, true_ddf = known_pair((40, 40))
        for ddf, lines in ((-2 * true_ddf, 1), (true_ddf, 0)):
            caplog.clear()
            found = refined(InstanceLoss(), 0)(image, always(ddf))
            assert torch.equal(found["ddf"], ddf)
            assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
            assert all("the network's field is worse than the aligned pair" in line for line in caplog.messages)

    def test_without_steps_a_right_field_of_a_part_of_a_voxel_is_not_called_worse(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Interpolation blurs fine structure; the image that is not moved is sharper, and no match for that."""
        fine = smooth((1320, 1320), 12.0, 1)  # 20 of its voxels are one
        image = torch.stack([fine[17:1297:20, 20:1300:20], fine[20:1300:20, 20:1300:20]])[None]
        image += 0.05 * image.std() * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        ddf = torch.tensor([0.15, 0.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
        aligned, found = refined(InstanceLoss(), 0)(image, always(ddf))["unused_similarity"][0].tolist()
        assert (found > aligned, caplog.messages) == (True, [])

    @pytest.mark.parametrize("size", [(48, 48), (24, 26, 22)])
    def test_velocity_finds_the_field_as_displacements_do(self, size: tuple[int, ...]) -> None:
        image, true_ddf = known_pair(size)
        found = [
            refined(InstanceLoss(), 30, transform=transform, levels=2, spatial_size=[12] * len(size))(image, no_motion)[
                "ddf"
            ]
            for transform in ("displacement", "velocity")
        ]
        errors = [error(ddf, true_ddf) for ddf in found]
        assert errors[1] < 1.1 * errors[0] < 0.5 * error(0 * true_ddf, true_ddf)
        assert not torch.equal(*found)

    @pytest.mark.parametrize("transform", ["displacement", "velocity"])
    def test_no_field_folds(self, transform: str) -> None:
        """Noise without smoothness: each voxel goes where it likes."""
        image = torch.rand(1, 2, 32, 32)
        loss = InstanceLoss("mse", smoothness_weight=0.0)
        inferer = refined(loss, 20, transform=transform, never_worse=False, spacing=1, learning_rate=0.5)
        assert folding_strict(inferer(image, no_motion)["ddf"][0])[0] == 0
        pair = WeightedImage(image[:, :1]), WeightedImage(image[:, 1:])
        rough = inferer.descend(loss.of_pair(*pair), torch.zeros(1, 2, 32, 32)).residual
        assert folding_strict(rough[0])[0] > 100

    def test_a_velocity_begins_at_a_good_network(self) -> None:
        image, ddf = known_pair((32, 34))
        found = refined(InstanceLoss(), 2, transform="velocity", **self.options())(image, always(ddf))
        assert found["from_network"] == 1
        assert error(found["ddf"], ddf) < 0.25 * error(0 * ddf, ddf)

    def test_a_velocity_in_slabs_is_that_of_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        image, _ = known_pair((40, 36))
        inferer = refined(InstanceLoss(), 5, transform="velocity", never_worse=False, full_resolution=True)
        whole = inferer(image, no_motion)["ddf"]
        monkeypatch.setattr("monai_regplugins.inferers.refine.LARGE", 100)
        monkeypatch.setattr("monai_regplugins.losses.slabs.SLAB_VOXELS", 36 * 8)
        torch.testing.assert_close(inferer(image, no_motion)["ddf"], whole, atol=1e-3, rtol=0)

    def test_masks_of_both_images_shut_out_what_was_planted(self) -> None:
        """A bright table in the fixed and an implant in the moving image, both outside of their masks."""
        image, true_ddf = known_pair((48, 48))
        fixed_mask, moving_mask = torch.ones(1, 1, 48, 48), torch.ones(1, 1, 48, 48)
        fixed_mask[..., :10, :] = 0
        moving_mask[..., 38:] = 0
        planted = image.clone()
        planted[:, 1:] += 3 * (1 - fixed_mask) * torch.rand(1, 1, 48, 48)
        planted[:, :1] += 3 * (1 - moving_mask) * torch.rand(1, 1, 48, 48)
        masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
        inferer = refined(InstanceLoss(), 40, **self.options())
        clean, corrupted = (inferer(pair, no_motion, **masks)["ddf"] for pair in (image, planted))
        torch.testing.assert_close(clean, corrupted, atol=1e-3, rtol=0)
        inner = (..., slice(14, 44), slice(4, 32))
        assert error(corrupted[inner], true_ddf[inner]) < 0.3 * error(0 * true_ddf[inner], true_ddf[inner])

    @pytest.mark.parametrize("transform", ["displacement", "velocity"])
    def test_far_from_the_mask_the_start_is_kept(self, transform: str) -> None:
        """The field of the network there, or no displacement."""
        image, true_ddf = known_pair((64, 48))
        mask = torch.zeros(1, 1, 64, 48)
        mask[..., :16, :] = 1
        inferer = refined(InstanceLoss(), 40, **self.options(), transform=transform, never_worse=False)
        for start in (torch.zeros_like(true_ddf), torch.full_like(true_ddf, 0.7)):
            ddf = inferer(image, always(start), fixed_mask=mask)["ddf"]
            changed = (ddf - start).abs().amax(dim=(0, 1, 3))
            share = float(changed[56:].max()) / float(changed[4:14].max())
            assert share < (0.1 if transform == "displacement" else 0.2)  # a grid of nodes is coarser

    def test_masks_without_a_common_voxel(self) -> None:
        mask = torch.zeros(1, 1, 20, 18)
        mask[..., :5] = 1
        with pytest.raises(InputError, match="no voxel counts in both images"):
            refined(InstanceLoss(), 2)(known_pair((20, 18))[0], no_motion, fixed_mask=mask, moving_mask=1 - mask)

    def test_a_threshold_that_leaves_nothing_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        refined(InstanceLoss(threshold=2.0), 2)(known_pair((20, 18))[0], no_motion)
        assert caplog.messages[0].startswith("only 0.00 % of the fixed image are above mask_threshold 2:")


class TestDrivers:
    """Labels and landmarks of a region in which the images show nothing."""

    SHIFT = 2.0  # voxels, of label and landmarks along the first axis

    @staticmethod
    def pair() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Two equal images, dark where the driving label lies, and what drives."""
        images = torch.rand(1, 1, 32, 28).repeat(1, 2, 1, 1)
        images[..., :20, :] = 0
        label = torch.zeros(1, 1, 32, 28, dtype=torch.uint8)
        label[..., 6:14, 8:20] = 4
        points = torch.tensor([[[7.0, 10.0], [12.0, 10.0], [7.0, 17.0], [12.0, 17.0], [28.0, 14.0]]])
        moved = points + torch.tensor([2.0, 0.0])
        labels = {"fixed_label": label, "moving_label": label.roll(2, 2)}
        return images, {**labels, "fixed_keypoints": points, "moving_keypoints": moved}

    @staticmethod
    def inferer(**options: Any) -> RefinedInferer:
        settings: dict[str, Any] = {"steps": 80, "spatial_size": [16, 14], "levels": 2, **options}
        return RefinedInferer(PairInferer(), InstanceLoss("mse", smoothness_weight=0.01), **settings)

    @pytest.mark.parametrize(
        ("drivers", "transform"),
        [
            (Drivers(1.0), "velocity"),
            (Drivers(landmark_weight=1.0, landmarks=[0, 1, 2, 3]), "displacement"),
        ],
    )
    def test_the_field_follows_them(self, drivers: Drivers, transform: str) -> None:
        images, given = self.pair()
        without = self.inferer(transform=transform)(images, no_motion, **given)
        assert not without["ddf"].any()
        assert not {"driving_labels", "driving_landmarks"} & without.keys()
        found = self.inferer(transform=transform, drivers=drivers)(images, no_motion, **given)
        rows = {6: 8, 13: 15}
        for row, moved in rows.items():
            assert found["ddf"][0, 0, row, 10:18].mean() == pytest.approx(moved - row, abs=0.3)
        assert found["ddf"][0, 0, 28:].abs().max() < 0.3  # the images say so
        told = {"driving_labels": [[4]]} if drivers.label_weight else {"driving_landmarks": [[0, 1, 2, 3]]}
        assert {key: value.tolist() for key, value in found.items() if key.startswith("driving")} == told

    def test_in_slabs_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images, given = self.pair()
        inferer = self.inferer(drivers=Drivers(1.0, [], 0.5), steps=5)
        expected = inferer(images, no_motion, **given)["ddf"]
        monkeypatch.setattr("monai_regplugins.inferers.refine.LARGE", 0)
        monkeypatch.setattr("monai_regplugins.losses.slabs.SLAB_VOXELS", 100)
        torch.testing.assert_close(inferer(images, no_motion, **given)["ddf"], expected, atol=1e-4, rtol=0)
        assert expected.abs().max() > 0.3

    def test_samples_of_a_batch_are_as_if_alone(self) -> None:
        images, given = self.pair()
        more = dict(given)
        for key in ("fixed_label", "moving_label"):
            more[key] = given[key].clone()
            more[key][..., 22:26, 4:9] = 9
        inferer = self.inferer(drivers=Drivers(1.0), steps=3)
        alone = [inferer(images, no_motion, **one) for one in (given, more)]
        both = inferer(images.repeat(2, 1, 1, 1), no_motion, **{k: torch.cat([given[k], more[k]]) for k in given})
        torch.testing.assert_close(both["ddf"], torch.cat([one["ddf"] for one in alone]))
        assert both["driving_labels"].tolist() == [[4, 0], [4, 9]]

    def test_what_cannot_be_driven_is_refused(self) -> None:
        for options in ({"steps": 0}, {"loss": MaskedMSELoss()}):
            with pytest.raises(InputError, match="instance optimization, which is off; set refine_steps to 30"):
                RefinedInferer(PairInferer(), **options, drivers=Drivers(1.0))  # type: ignore[arg-type]


class TestChannels:
    """Each of two channels shows the motion along one axis alone."""

    @staticmethod
    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        """Moving and fixed image, ``(1, 2, 32, 32)``; the fixed one is moved by a voxel along each axis."""
        stripes = smooth((36,), 1.5, 0).expand(36, 36)
        moving = torch.stack([stripes, stripes.T])[None]
        return moving[..., 2:-2, 2:-2], moving[..., 3:-1, 3:-1]

    @pytest.mark.parametrize(("similarity", "search", "most"), [("lncc", 0, 0.2), ("mind", 2, 0.4)])
    def test_all_channels_are_registered(self, similarity: str, search: int, most: float) -> None:
        moving, fixed = self.pair()
        loss = InstanceLoss(similarity, window=5, smoothness_weight=0.1)
        inferer = RefinedInferer(
            PairInferer(padding="border"), loss, 40, spatial_size=[16, 16], levels=2, search=search
        )
        found = inferer(torch.cat([moving, fixed], dim=1), no_motion)
        inner = found["ddf"][..., 8:-8, 8:-8]
        assert (inner - 1).abs().mean() < most
        assert torch.equal(found["warped"], fields.warp(moving, found["ddf"], padding="border"))
        again = inferer(moving, lambda image, *_: no_motion(image), fixed=fixed)
        assert torch.equal(again["ddf"], found["ddf"])
        single = inferer(torch.cat([moving[:, :1], fixed[:, :1]], dim=1), no_motion)["ddf"][..., 8:-8, 8:-8]
        assert sorted((single - 1).abs().mean(dim=(0, 2, 3)).tolist())[1] > 0.7  # that axis is not seen

    def test_networks_for_one_channel_say_so(self) -> None:
        four, three = torch.rand(1, 4, 32, 32), torch.rand(1, 3, 32, 32)
        for inferer, network in ((PairInferer(), RAN(2)), (DenseInferer(), RegNet(2))):
            with pytest.raises(InputError, match="a pair has 4 channels, expected 2: R"):
                inferer(four, network)
        with pytest.raises(InputError, match="a pair has 3 channels, expected as many of the fixed image"):
            RefinedInferer(PairInferer())(three, no_motion)

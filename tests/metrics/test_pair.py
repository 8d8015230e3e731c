"""All measures of a pair whose registration is known exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from peak_memory import peak_growth

from monai_regplugins.fields import warp
from monai_regplugins.metrics import (
    finite_values,
    folding,
    mean_metrics,
    pair_metrics,
    sdlogj,
    surface_distances,
)
from monai_regplugins.metrics.learn2reg import sdlogj_l2r
from monai_regplugins.metrics.regularity import folding_strict


def shifted_pair(dims: int) -> dict[str, Any]:
    """Return a pair that a shift by two voxels along the first axis registers perfectly: fixed(x) = moving(x + 2)."""
    fixed_label = torch.zeros(1, *[16] * dims, dtype=torch.uint8)
    fixed_label[(0, slice(4, 8), *[slice(4, 10)] * (dims - 1))] = 1
    fixed_label[(0, slice(8, 11), *[slice(4, 10)] * (dims - 1))] = 3
    moving_label = fixed_label.roll(2, 1)
    ddf = torch.zeros(dims, *[16] * dims)
    ddf[0] = 2
    images = {"fixed": fixed_label / 3, "moving": moving_label / 3, "warped": fixed_label / 3}
    labels = {"fixed_label": fixed_label, "moving_label": moving_label}
    return {**images, **labels, "ddf": ddf, "spacing": torch.tensor([0.5, 1.0, 2.0][:dims])}


@pytest.mark.parametrize("dims", [2, 3])
def test_perfect_registration(dims: int) -> None:
    values = pair_metrics(**shifted_pair(dims))
    assert values["dsc_before"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert values["hd95_before"] == pytest.approx(2 * 0.5)
    assert 0 < values["asd_before"] < 1
    assert (values["dsc"], values["dsc_1"], values["dsc_3"], values["hd95"], values["asd"]) == (1, 1, 1, 0, 0)
    assert (values["folding_percent"], values["sdlogj"]) == (0, 0)
    assert values["ncc"] == pytest.approx(1)
    assert values["ncc_before"] < 0.8
    assert (values["hd_before"], values["hd"]) == (2 * 0.5, 0)
    assert all(values[f"{name}_{label}"] == 0 for name in ("hd95", "asd") for label in (1, 3))
    assert (values["folding_count"], values["folding_strict_percent"]) == (0, 0)
    assert values["sdlogj_l2r"] == pytest.approx(0, abs=1e-12)
    assert all(isinstance(value, float) for value in values.values())


def test_without_labels_or_surfaces() -> None:
    pair = shifted_pair(2)
    assert not any("hd" in name or "asd" in name for name in pair_metrics(**pair, surface=False))
    del pair["moving_label"]
    of_the_field = {"folding_count", "folding_percent", "folding_strict_percent", "sdlogj", "sdlogj_l2r"}
    assert set(pair_metrics(**pair)) == {"ncc", "ncc_before"} | of_the_field


def test_measures_of_single_labels_are_those_of_the_functions() -> None:
    pair = shifted_pair(3)
    pair["ddf"] = pair["ddf"] / 2 + torch.randn(3, 16, 16, 16) / 2
    values = pair_metrics(**pair)
    warped = warp(pair["moving_label"][None].float(), pair["ddf"][None], mode="nearest")[0]
    expected = surface_distances(warped, pair["fixed_label"], [1, 3], pair["spacing"])
    for label, distances in expected.items():
        assert (values[f"hd95_{label}"], values[f"asd_{label}"]) == (distances.hd95, distances.asd)
    for name in ("hd95", "asd", "hd"):
        assert values[name] == pytest.approx(sum(getattr(one, name) for one in expected.values()) / 2)
    assert expected[1] != expected[3]
    assert (values["folding_count"], values["folding_percent"]) == folding(pair["ddf"])
    assert values["folding_strict_percent"] == folding_strict(pair["ddf"])[1] > values["folding_percent"] > 0
    assert values["sdlogj"] == sdlogj(pair["ddf"])
    assert values["sdlogj_l2r"] == sdlogj_l2r(pair["ddf"])


def test_labels_that_one_image_lacks_do_not_count() -> None:
    pair = shifted_pair(3)
    pair["moving_label"] = pair["moving_label"].clone()
    pair["moving_label"][pair["moving_label"] == 3] = 0
    assert "dsc_3" not in pair_metrics(**pair)
    values = pair_metrics(**pair, labels=[1, 3, 7])
    assert (values["dsc"], values["dsc_1"]) == (1, 1)
    assert values["dsc_before_1"] == values["dsc_before"] < 1
    assert all(math.isnan(values[f"{name}_3"]) for name in ("dsc", "hd95", "asd"))
    assert math.isnan(values["dsc_7"])


def test_label_that_the_warp_loses_counts_as_missed() -> None:
    pair = shifted_pair(2)
    pair["ddf"] = torch.full((2, 16, 16), 100.0)
    values = pair_metrics(**pair)
    assert (values["dsc"], values["dsc_1"]) == (0, 0)
    assert math.isnan(values["hd95"])
    assert values["hd95_before"] > 0


def test_mask_limits_correlation_and_regularity() -> None:
    pair = shifted_pair(2)
    pair["ddf"][0, 12:] -= 40  # folds far from the mask
    mask = torch.zeros(1, 16, 16)
    mask[:, :10] = 1
    assert pair_metrics(**pair)["folding_percent"] > 0
    assert pair_metrics(**pair, mask=mask)["folding_percent"] == 0


def test_means_skip_what_is_missing() -> None:
    rows = [{"pair_id": "a", "dsc": 0.5, "hd95": math.nan}, {"pair_id": "b", "dsc": 1.0}, {"pair_id": "c", "ncc": 0.25}]
    means = mean_metrics(rows)
    assert (means["dsc"], means["ncc"]) == (0.75, 0.25)
    assert math.isnan(means["hd95"])
    assert "pair_id" not in means
    assert finite_values(rows, "dsc") == [0.5, 1.0]
    assert mean_metrics([]) == {}


def test_landmark_errors_of_a_pair() -> None:
    pair = shifted_pair(2)  # spacing 0.5 and 1 mm; the field moves by two voxels along the first axis
    rng = np.random.default_rng(0)
    fixed, moving = (rng.uniform(2, 10, (40, 2)) for _ in range(2))
    values = pair_metrics(**pair, fixed_points=torch.from_numpy(fixed), moving_points=torch.from_numpy(moving))
    for suffix, shift in (("_before", 0), ("", 2)):
        errors = np.linalg.norm((fixed + np.array([shift, 0]) - moving) * (0.5, 1), axis=1)
        assert values[f"tre{suffix}"] == pytest.approx(errors.mean())
        assert values[f"tre95{suffix}"] == pytest.approx(np.percentile(errors, 95))
        assert values[f"tre_max{suffix}"] == pytest.approx(errors.max())
    assert not any(name.startswith("tre") for name in pair_metrics(**pair))


def test_what_drove_the_registration_is_measured_apart() -> None:
    """Each mean is that of a registration which knows the labels, or the landmarks, of its group alone."""
    pair = shifted_pair(2)
    moving, fixed = torch.from_numpy(np.random.default_rng(0).uniform(2, 10, (2, 9, 2)))
    pair["warped_label"] = pair["moving_label"].roll(-1, 1)
    known = {"fixed_points": fixed, "moving_points": moving}
    found = pair_metrics(**pair, **known, driving_labels=[3], driving_points=[0, 4])
    drove = torch.tensor([k in (0, 4) for k in range(9)])
    for prefix, label, rows in (("", 1, ~drove), ("driving_", 3, drove)):
        points = {"fixed_points": fixed[rows], "moving_points": moving[rows]}
        expected = pair_metrics(**pair, **points, labels=[label])
        for name in ("dsc", "dsc_before", "hd95", "asd_before", "tre", "tre95_before", "tre_max"):
            assert found[prefix + name] == pytest.approx(expected[name]), name
    assert found["driving_dsc"] == pytest.approx(found["dsc_3"])
    nothing_else = pair_metrics(**pair, **known, driving_labels=[1, 3], driving_points=range(9))
    assert not {"dsc", "dsc_before", "hd95", "tre", "tre_max_before"} & nothing_else.keys()
    assert nothing_else["driving_dsc"] == pytest.approx(pair_metrics(**pair)["dsc"])


def test_error_of_a_known_field_is_summed_over_the_axes() -> None:
    pair = shifted_pair(2)  # spacing 0.5 and 1 mm; the field moves by two voxels along the first axis
    truth = pair["ddf"].clone()
    truth[1] = 3
    values = pair_metrics(**pair, true_ddf=truth)
    assert (values["mae_before"], values["mae"]) == pytest.approx((1 + 3, 0 + 3))
    assert (values["mae_axis_0_before"], values["mae_axis_1_before"]) == pytest.approx((1, 3))
    assert (values["mae_axis_0"], values["mae_axis_1"]) == pytest.approx((0, 3))
    truth[:, :8] = 0
    within = pair_metrics(**pair, true_ddf=truth, capture_range=2.5)
    assert (within["mae_before"], within["mae"]) == pytest.approx((0, 1))
    assert "mae" not in pair_metrics(**pair)


def test_the_initial_alignment_follows_the_field_in_what_is_measured() -> None:
    """Against the field of x -> B (x + u(x)), made whole."""
    pair, rng = shifted_pair(2), np.random.default_rng(0)
    matrix = torch.tensor([[1.1, 0.2, -1.5], [-0.1, 0.9, 2.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    whole, alone = (
        torch.einsum("kj,j...->k...", matrix[:2, :2].float(), grid + u) + matrix[:2, 2, None, None].float() - grid
        for u in (pair["ddf"], torch.zeros_like(pair["ddf"]))
    )
    points = {f"{side}_points": torch.from_numpy(rng.uniform(3, 9, (20, 2))) for side in ("fixed", "moving")}
    known = {**points, "true_ddf": torch.from_numpy(rng.normal(size=(2, 16, 16))).float()}
    found = pair_metrics(**pair, **known, aligned=pair["moving"], aligned_matrix=matrix)
    after, before = (pair_metrics(**{**pair, "ddf": u}, **known) for u in (whole, alone))
    for name in ("mae", "mae_axis_1", "tre", "tre95", "tre_max"):
        assert found[name] == pytest.approx(after[name], rel=1e-5)
        assert found[f"{name}_aligned"] == pytest.approx(before[name], rel=1e-5)
        assert found[f"{name}_before"] == after[f"{name}_before"]
    assert found["folding_percent"] == after["folding_percent"]
    assert found["sdlogj_l2r"] == pytest.approx(after["sdlogj_l2r"], abs=1e-6)


@pytest.mark.slow
def test_measuring_holds_little_beyond_the_pair() -> None:
    """Less than the images, labels and the field themselves, about 30 bytes a voxel; it was 400 bytes."""
    prepare = """
from monai_regplugins.metrics import pair_metrics
n = 160
axis = torch.arange(n) - n / 2
ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2 < (n / 3) ** 2)[None].to(torch.uint8)
image, ddf = torch.rand(1, n, n, n), torch.rand(3, n, n, n)
moved = ball.roll(3, 1)
"""
    code = "pair_metrics(moving=image, fixed=image, warped=image, ddf=ddf, spacing=(1., 1., 2.), moving_label=ball, fixed_label=moved)"  # noqa: E501
    assert peak_growth(prepare, code) < 35 * 160**3

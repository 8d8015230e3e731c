"""Registration from a field that is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.inferers import PairInferer, RefinedInferer, WarmInferer
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.losses import InstanceLoss

SIZE = (24, 20)


def known_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Images, moving then fixed, and the field that was put between them."""
    generator = torch.Generator().manual_seed(0)
    moving = gaussian_mean(torch.rand(1, 1, *SIZE, generator=generator), 2.0) * 8
    ddf = torch.zeros(1, 2, *SIZE)
    ddf[:, 0], ddf[:, 1] = 1.5, -1.0
    return torch.cat([moving, fields.warp(moving, ddf, padding="border")], dim=1), ddf


def refuse(*inputs: Any) -> torch.Tensor:
    raise AssertionError("the network is not asked")


def warm() -> WarmInferer:
    return WarmInferer(
        RefinedInferer(PairInferer(padding="border"), InstanceLoss("mse", smoothness_weight=0.01), steps=40)
    )


def test_a_good_start_needs_few_steps_and_no_network() -> None:
    images, truth = known_pair()
    near = truth + 0.2
    found = warm()(images, refuse, start=near, start_steps=torch.tensor([8]))
    before, after = (float((ddf - truth).abs()[..., 3:-3, 3:-3].mean()) for ddf in (near, found["ddf"]))
    assert after < 0.5 * before
    assert not {"from_network", "unused_similarity", "network_folding"} & found.keys()
    torch.testing.assert_close(found["warped"], fields.warp(images[:, :1], found["ddf"], padding="border"))


def test_no_steps_keep_the_field_whatever_it_is() -> None:
    images, truth = known_pair()
    found = warm()(images, refuse, start=-3 * truth, start_steps=torch.tensor([0]))
    torch.testing.assert_close(found["ddf"], -3 * truth)


def test_a_field_that_makes_images_differ_more_is_not_taken() -> None:
    images, truth = known_pair()
    steps = {"start_steps": torch.tensor([3])}
    bad, still = (warm()(images, refuse, start=start, **steps)["ddf"] for start in (-3 * truth, 0 * truth))
    torch.testing.assert_close(bad, still)


def test_without_a_field_it_is_the_wrapped_inferer() -> None:
    images, truth = known_pair()
    inferer = warm()
    mine, other = (one(images, lambda image: truth.clone()) for one in (inferer, inferer.inferer))
    assert mine.keys() == other.keys()
    torch.testing.assert_close(mine["ddf"], other["ddf"])
    assert inferer.inferer.steps == 40


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_type_of_the_start_does_not_matter(dtype: torch.dtype) -> None:
    images, truth = known_pair()
    found = warm()(images, refuse, start=truth.to(dtype), start_steps=torch.tensor([1]))
    assert found["ddf"].dtype == torch.float32

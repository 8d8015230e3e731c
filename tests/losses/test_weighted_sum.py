from __future__ import annotations

import copy

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_regplugins.checks import InputError
from monai_regplugins.losses import (
    GradientLoss,
    MaskedLNCCLoss,
    MaskedMSELoss,
    SyntheticFieldLoss,
    Term,
    WeightedSum,
)


@pytest.fixture
def pred() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"ddf": torch.randn(2, 2, 6, 6, requires_grad=True), "warped": torch.rand(2, 1, 6, 6, requires_grad=True)}


@pytest.fixture
def targets() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., 1:4] = 1
    return {"fixed": torch.rand(2, 1, 6, 6), "fixed_mask": mask, "true_ddf": torch.zeros(2, 2, 6, 6)}


def test_sum_of_weighted_terms(pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    similarity = MaskedLNCCLoss(3)(pred["warped"], targets["fixed"], targets["fixed_mask"])
    supervision = SyntheticFieldLoss()(pred["ddf"], targets["true_ddf"])
    loss = WeightedSum(
        {
            "similarity": Term(MaskedLNCCLoss(3), ["warped", "fixed", "fixed_mask"], 2.0),
            "supervision": Term(SyntheticFieldLoss(), ["ddf", "true_ddf"], 0.5),
        }
    )

    total = loss(pred, targets)
    total.backward()

    torch.testing.assert_close(total, 2 * similarity + 0.5 * supervision)
    torch.testing.assert_close(loss.last, {"similarity": similarity.detach(), "supervision": supervision.detach()})
    assert not any(value.requires_grad for value in loss.last.values())
    expected = torch.autograd.grad(0.5 * supervision, pred["ddf"])[0]
    torch.testing.assert_close(pred["ddf"].grad, expected)


def test_the_prediction_is_looked_up_before_the_targets() -> None:
    term = Term(GradientLoss(1), ["ddf"])
    still, ramp = torch.zeros(1, 2, 4, 4), torch.arange(4.0).expand(1, 2, 4, 4)

    assert term({"ddf": ramp}, {"ddf": still}).item() == pytest.approx(0.5)
    assert term({}, {"ddf": ramp}).item() == pytest.approx(0.5)


def test_a_term_of_weight_zero_is_not_computed(pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    class Forbidden(nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            raise AssertionError("computed")

    mse = Term(MaskedMSELoss(None), ["warped", "fixed"])
    loss = WeightedSum({"mse": mse, "off": Term(Forbidden(), ["nowhere"], 0.0)})

    torch.testing.assert_close(loss(pred, targets), nn.functional.mse_loss(pred["warped"], targets["fixed"]))
    assert list(loss.last) == ["mse"]
    mse.weight = 0.0
    with pytest.raises(InputError, match="weight zero"):
        loss(pred, targets)


def test_a_missing_input_is_named(pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    loss = WeightedSum({"mse": Term(MaskedMSELoss(), ["warped", "target"])})

    with pytest.raises(KeyError, match=r"MaskedMSELoss needs 'target'.*ddf, warped.*fixed, fixed_mask, true_ddf"):
        loss(pred, targets)


def test_moves_and_copies_as_a_module(pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    loss = WeightedSum({"gradient": Term(GradientLoss(), ["ddf"])})
    value = loss(pred, targets)

    torch.testing.assert_close(copy.deepcopy(loss).double()(pred, targets), value)
    assert loss.state_dict() == {}


def test_built_from_a_configuration(pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    package = "monai_regplugins.losses"
    term = {
        "_target_": f"{package}.Term",
        "inputs": ["ddf"],
        "weight": 3.0,
        "loss": {"_target_": f"{package}.GradientLoss"},
    }
    config = {"loss": {"_target_": f"{package}.WeightedSum", "terms": {"gradient": term}}}

    loss = ConfigParser(config).get_parsed_content("loss")

    torch.testing.assert_close(loss(pred, targets), 3 * GradientLoss()(pred["ddf"]))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="terms"):
        WeightedSum({})
    for inputs in ("ddf", []):
        with pytest.raises(InputError, match="inputs"):
            Term(GradientLoss(), inputs)
    for weight in (-1.0, float("nan")):
        with pytest.raises(InputError, match="weight"):
            Term(GradientLoss(), ["ddf"], weight)

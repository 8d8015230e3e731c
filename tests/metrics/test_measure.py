"""Measures of a user."""

from __future__ import annotations

import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.handlers import RegistrationMetrics
from monai_regplugins.handlers.registration_metrics import score_of
from monai_regplugins.metrics import Measure
from monai_regplugins.metrics.measure import own_values
from monai_regplugins.outputs.metric_table import metrics_csv, summary_table

IMAGES = {name: torch.full((1, 4, 4), value) for name, value in (("fixed", 1.0), ("moving", 4.0), ("aligned", 2.0))}
PRED = {"warped": torch.full((1, 4, 4), 1.5), "ddf": torch.ones(2, 4, 4)}


def test_each_state_is_measured() -> None:
    own = {"mae": Measure(torch.nn.L1Loss(), smaller_is_better=True)}
    assert own_values(own, PRED, IMAGES) == {"own_mae": 0.5, "own_mae_before": 3.0, "own_mae_aligned": 1.0}


def test_what_does_not_see_the_moving_image_has_one_value() -> None:
    own = {"motion": Measure(lambda ddf: ddf.abs().mean(), ["ddf"])}
    assert own_values(own, PRED, IMAGES) == {"own_motion": 1.0}


def test_a_pair_without_labels_lacks_the_measure() -> None:
    own = {"volume": Measure(lambda label: (label > 0).sum(), ["warped_label"])}
    assert own_values(own, PRED, IMAGES) == {}
    labels = {"moving_label": torch.ones(1, 4, 4, dtype=torch.uint8)}
    found = own_values(own, {**PRED, "warped_label": torch.zeros(1, 4, 4)}, {**IMAGES, **labels})
    assert found == {"own_volume": 0.0, "own_volume_before": 16.0}


def test_a_wrong_name_is_refused() -> None:
    with pytest.raises(InputError, match="no tensor is named 'warpd', expected one of aligned, ddf, fixed, moving, wa"):
        own_values({"mae": Measure(torch.nn.L1Loss(), ["warpd", "fixed"])}, PRED, IMAGES)
    with pytest.raises(InputError, match="expected a list of names"):
        Measure(torch.nn.L1Loss(), "warped")


def test_tables_show_it_last() -> None:
    rows = [{"pair_id": "one", "ncc": 0.5, "ncc_before": 0.25, "own_mae": 0.5, "own_mae_before": 3.0}]
    assert summary_table(rows).splitlines()[-1].split() == ["mae", "3.000", "0.500"]
    assert metrics_csv(rows).splitlines()[0] == "pair_id,ncc,ncc_before,own_mae,own_mae_before"


def test_a_distance_is_a_negative_score() -> None:
    row = {"pair_id": "one", "ncc": 0.5, "own_mae": 0.5}
    assert score_of([row], row, "own_mae", distances={"own_mae"}) == -0.5
    assert score_of([row], row, "own_mae") == 0.5
    RegistrationMetrics("own_mae", own={"mae": Measure(torch.nn.L1Loss())})
    with pytest.raises(InputError, match="own_mae"):
        RegistrationMetrics("own_mae")

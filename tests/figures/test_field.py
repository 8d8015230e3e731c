"""The picture of a predicted field beside the true one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_regplugins.figures.field import field_figure


def known_pair(*size: int) -> dict[str, torch.Tensor]:
    """Return a field that is half of the true one."""
    true_ddf = torch.randn(len(size), *size)
    return {"fixed": torch.rand(1, *size), "ddf": true_ddf / 2, "true_ddf": true_ddf}


@pytest.mark.parametrize("size", [(9, 7), (9, 7, 5)])
def test_true_and_predicted_components_in_one_window(size: tuple[int, ...]) -> None:
    pair = known_pair(*size)
    axes = [one for one in field_figure(**pair).axes if one.get_label() != "<colorbar>"]
    rows = np.array(axes).reshape(len(size), 5)
    limit = pair["true_ddf"].abs().max().item()
    for k, row in enumerate(rows):
        assert {one.images[0].get_clim() for one in row[1:4]} == {(-limit, limit)}
        true, found, difference = (one.images[0].get_array() for one in row[1:4])
        np.testing.assert_allclose(found, true / 2)
        np.testing.assert_allclose(difference, found - true)
        error = pair["true_ddf"][k].abs().mean()
        assert row[4].get_title() == f"MAE {error / 2:.2f} (zero: {error:.2f})"


def test_only_voxels_of_the_mask_are_measured() -> None:
    pair = known_pair(6, 6)
    mask = torch.zeros(1, 6, 6)
    mask[0, 2:4, 1:3] = 1
    error = pair["true_ddf"][0, 2:4, 1:3].abs().mean()
    assert any(f"(zero: {error:.2f})" in one.get_title() for one in field_figure(**pair, mask=mask).axes)

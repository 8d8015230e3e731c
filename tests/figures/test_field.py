"""The picture of a predicted field beside the true one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

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


def bars_of(drawn: Figure) -> list[str]:
    """Return at which ends the color bars go on."""
    bars = [axes.images[0].colorbar for axes in drawn.axes if axes.images and axes.images[0].colorbar]
    return [bar.extend for bar in bars]


def test_the_bar_goes_on_where_values_are_beyond_the_true_ones() -> None:
    true_ddf = torch.linspace(-1.0, 1.0, 36).reshape(1, 6, 6).repeat(2, 1, 1)
    pair = {"fixed": torch.rand(1, 6, 6), "true_ddf": true_ddf}
    assert bars_of(field_figure(**pair, ddf=true_ddf)) == ["neither", "neither"]
    found = torch.stack([true_ddf[0].abs() * 2, -2 * true_ddf[1]])
    assert bars_of(field_figure(**pair, ddf=found)) == ["max", "both"]


def test_images_lie_in_true_proportion_in_the_window_of_most_of_their_values() -> None:
    pair = known_pair(20, 30)
    pair["fixed"][0, 3, 4] = 1e6
    drawn = field_figure(**pair, affine=torch.diag(torch.tensor([2.0, 3.0, 1.0])), title="a$b")
    image = drawn.axes[0]
    assert image.get_aspect() == pytest.approx(1.5)
    assert image.images[0].get_clim() == pytest.approx(np.percentile(pair["fixed"], [0.5, 99.5]))
    assert image.images[0].get_clim()[1] < 2
    drawn.canvas.draw()  # no mathematics

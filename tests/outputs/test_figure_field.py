"""The picture of a predicted field beside the true one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image

from monai_regplugins.outputs.figure_field import FieldFigure, field_figure


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


def evaluation(handler: FieldFigure, outputs: list[dict[str, Any]]) -> None:
    def step(engine: Any, output: dict[str, Any]) -> Any:
        engine.state.batch = [{"pair_id": "a", "fixed": SimpleNamespace(affine=None)}]
        return [output]

    engine = Engine(step)
    engine.state.rank = 0
    handler.attach(engine)
    engine.run(outputs)


def test_file_is_made_for_the_first_known_field_only(tmp_path: Path) -> None:
    pair = known_pair(6, 6)
    real = {"pred": {"ddf": pair["ddf"]}, "label": {"fixed": pair["fixed"]}}
    path = tmp_path / "eval" / "field.png"
    evaluation(FieldFigure(path), [real])
    assert not path.exists()
    known = {"pred": {"ddf": pair["ddf"]}, "label": {"fixed": pair["fixed"], "true_ddf": pair["true_ddf"]}}
    evaluation(FieldFigure(path), [real, known])
    with Image.open(path) as image:
        assert image.size[0] > 500

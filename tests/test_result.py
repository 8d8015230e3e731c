"""A registered pair: a shift in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms import MovingToFixedGridd

SIZE = (6, 7, 8)
AFFINE = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0], dtype=torch.float64))


def make(shift: tuple[float, ...] = (1.0, 0.0, 0.0), **more: Any) -> RegistrationResult:
    images = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    pair = {side: MetaTensor(image, affine=AFFINE) for side, image in zip(("moving", "fixed"), images, strict=True)}
    item = MovingToFixedGridd(keep_original=True)({**pair, "pair_id": "a_to_b", **more})
    ddf = torch.tensor(shift).reshape(3, 1, 1, 1).expand(3, *SIZE).clone()
    targets = {key: item[key].as_tensor() for key in ("moving", "fixed")} | {"spacing": item["spacing"]}
    output = {"pred": {"ddf": ddf, "warped": targets["moving"]}, "label": targets}
    return RegistrationResult(item, output, {"fixed": Path("b.nii"), "moving": images, "pair_id": "a_to_b"}, 1.5)


def test_a_shift_in_closed_form() -> None:
    result = make()
    assert (result.pair_id, result.seconds, result.given) == ("a_to_b", 1.5, {"fixed": "b.nii", "pair_id": "a_to_b"})
    expected = torch.tensor([2.0, 0.0, 0.0]).reshape(3, 1, 1, 1).expand(3, *SIZE)
    torch.testing.assert_close(result.displacement.as_tensor(), expected)
    torch.testing.assert_close(result.inverse_displacement.as_tensor(), -expected)
    torch.testing.assert_close(result.warped.as_tensor()[:, :-1], result.moving.as_tensor()[:, 1:])
    assert torch.equal(result.displacement.affine, AFFINE)
    assert torch.equal(result.inverse_displacement.affine, AFFINE)
    assert result.metrics["folding_percent"] == 0.0
    assert (result.warped_label, result.fixed_points_in_moving, result.uncertainty) == (None, None, None)


@pytest.mark.parametrize("kind", ["keypoints", "landmarks"])
def test_points_go_to_the_moving_image(kind: str) -> None:
    result = make(**{f"fixed_{kind}": torch.tensor([[1.0, 2.0, 3.0]])})
    assert result.fixed_points_in_moving is not None
    torch.testing.assert_close(result.fixed_points_in_moving, torch.tensor([[2.0, 2.0, 3.0]], dtype=torch.float64))


def test_what_was_made_once_is_kept() -> None:
    result = make()
    assert result.displacement is result.displacement
    assert result.metrics is result.metrics


def test_saving_is_left_to_a_function(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="RegistrationWriter"):
        make().save(tmp_path)
    result = make().saved_by(lambda result, folder: folder / result.pair_id)
    assert result.save(str(tmp_path)) == tmp_path / "a_to_b"

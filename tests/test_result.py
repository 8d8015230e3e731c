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


def make(
    shift: tuple[float, ...] = (1.0, 0.0, 0.0), outside: str = "minimum", offset: float = 0.0, **more: Any
) -> RegistrationResult:
    """A pair whose moving image, and label, lie ``offset`` mm further back along x than the fixed."""
    images = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    pair = {side: MetaTensor(image, affine=AFFINE) for side, image in zip(("moving", "fixed"), images, strict=True)}
    further_back = AFFINE - offset * torch.eye(4, dtype=torch.float64)[0, :, None] * torch.eye(4)[3]
    for key, image in {"moving": images[0], "moving_label": more.pop("moving_label", None)}.items():
        if image is not None:
            pair[key] = MetaTensor(torch.as_tensor(image).as_subclass(torch.Tensor), affine=further_back)
    item = MovingToFixedGridd(keep_original=True, outside=outside)({**pair, "pair_id": "a_to_b", **more})
    ddf = torch.tensor(shift).reshape(3, 1, 1, 1).expand(3, *SIZE).clone()
    wanted = [key for key in ("moving", "fixed", "moving_label", "fixed_label") if key in item]
    targets = {key: item[key].as_tensor() for key in wanted} | {"spacing": item["spacing"]}
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


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def test_the_correlation_is_of_the_original_moving_image_in_the_window_of_the_networks() -> None:
    result = make(moving_window=torch.tensor([0.2, 0.6]))
    shifted = torch.cat([result.moving[:, 1:], result.moving.min().expand_as(result.moving[:, :1])], 1).as_tensor()
    assert result.metrics["ncc"] == pytest.approx(correlation(shifted.clamp(0.2, 0.6), result.fixed), abs=1e-6)


def test_before_and_after_are_filled_alike_beyond_the_moving_image() -> None:
    result = make((0.0, 0.0, 0.0), outside="border", offset=4.0)
    seen = torch.cat([result.moving[:, 2:], result.moving.min().expand_as(result.moving[:, :2])], 1).as_tensor()
    assert result.metrics["ncc_before"] == result.metrics["ncc"]
    assert result.metrics["ncc"] == pytest.approx(correlation(seen, result.fixed), abs=1e-6)


def test_the_overlap_is_of_the_label_that_is_written() -> None:
    """Halfway between two voxels, sampled twice, a label would be rounded twice."""
    label = MetaTensor((torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1)) > 0.5).float(), affine=AFFINE)
    result = make((0.3, 0.0, 0.0), offset=0.6, moving_label=label, fixed_label=label)
    assert result.warped_label is not None
    expected = 2 * (result.warped_label * label).sum() / (result.warped_label.sum() + label.sum())
    assert result.metrics["dsc"] == pytest.approx(float(expected))
    assert result.metrics["dsc_before"] == 1.0
    assert result.metrics["dsc"] < 1.0

"""A registered pair: a shift in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins import result as result_module
from monai_regplugins.data import PreparePaird
from monai_regplugins.inferers.observed_pair import ObservedPair
from monai_regplugins.io.linear_transform import write_linear_transform
from monai_regplugins.keys import MASK_KEYS
from monai_regplugins.losses import InstanceLoss
from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms import ResampleToFixedd, ScalePaird, ScaleRangePaird, StandardizePaird

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
    item = ResampleToFixedd(keep_original=True, outside=outside)({**pair, "pair_id": "a_to_b", **more})
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
    assert list(result.inverse_metrics.values()) == [0.0, 0.0, 0.0]
    assert (result.warped_label, result.fixed_points_in_moving, result.uncertainty) == (None, None, None)


def test_uncertainty_is_the_length_in_mm() -> None:
    """Voxels of 2, 1 and 3 mm; an initial alignment that doubles the first axis doubles its part."""
    result = make()
    components = torch.rand(3, *SIZE)
    result.pred["uncertainty"] = components
    for scale in (1.0, 2.0):
        result.item["initial_alignment_matrix"] = torch.diag(torch.tensor([scale, 1.0, 1.0, 1.0]))
        expected = sum((step * one) ** 2 for step, one in zip((2.0 * scale, 1.0, 3.0), components, strict=True)) ** 0.5
        assert result.uncertainty is not None
        torch.testing.assert_close(result.uncertainty.as_tensor(), expected[None])
    assert torch.equal(result.uncertainty.affine, AFFINE)


def test_where_the_field_folds_the_inverse_says_that_it_misses() -> None:
    result = make()
    result.ddf[0] = -torch.arange(SIZE[0]).view(-1, 1, 1)  # all goes to the first plane
    found = result.inverse_metrics
    assert found["inverse_residual_max"] > 0.5
    assert 0 < found["inverse_failed_percent"] < 100
    assert found["inverse_residual99"] <= found["inverse_residual_max"]


def test_an_inverse_that_is_not_finite_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    left = torch.zeros(10)
    left[:3] = torch.tensor([torch.nan, torch.inf, 1.0])
    monkeypatch.setattr(result_module, "solved_inverse", lambda *arguments: (None, left))
    assert make().inverse_metrics["inverse_failed_percent"] == pytest.approx(30.0)


@pytest.mark.parametrize("kind", ["keypoints", "landmarks"])
def test_points_go_to_the_moving_image(kind: str) -> None:
    result = make(**{f"fixed_{kind}": torch.tensor([[1.0, 2.0, 3.0]])})
    assert result.fixed_points_in_moving is not None
    torch.testing.assert_close(result.fixed_points_in_moving, torch.tensor([[2.0, 2.0, 3.0]], dtype=torch.float64))


def test_what_was_made_once_is_kept() -> None:
    result = make()
    assert result.warped is result.warped
    assert result.metrics is result.metrics


def test_saving_is_left_to_a_function(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="RegistrationWriter"):
        make().save(tmp_path)
    result = make().saved_by(lambda result, folder, *_: folder / result.pair_id)
    assert result.save(str(tmp_path)) == tmp_path / "a_to_b"


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def test_the_correlation_is_of_the_original_moving_image_in_the_window_of_the_networks() -> None:
    result = make(moving_window=torch.tensor([0.2, 0.6]))
    shifted = torch.cat([result.moving[:, 1:], result.moving.min().expand_as(result.moving[:, :1])], 1).as_tensor()
    assert result.metrics["ncc"] == pytest.approx(correlation(shifted.clamp(0.2, 0.6), result.fixed), abs=1e-6)


@pytest.mark.parametrize("outside", ["minimum", "border"])
def test_what_fills_the_rest_beyond_the_moving_image_is_not_compared(outside: str) -> None:
    result = make((0.0, 0.0, 0.0), outside=outside, offset=4.0)
    expected = correlation(result.moving[:, 2:].as_tensor(), result.fixed[:, :-2].as_tensor())
    assert result.metrics["ncc_before"] == pytest.approx(expected, abs=1e-6)
    assert result.metrics["ncc"] == pytest.approx(expected, abs=1e-6)


def test_both_masks_count_for_the_correlation_the_moving_one_where_it_is_shown() -> None:
    masks = {side: torch.ones(1, *SIZE, dtype=torch.uint8) for side in ("fixed", "moving")}
    masks["fixed"][..., 0], masks["moving"][:, 4] = 0, 0
    result = make(**{f"{side}_mask": MetaTensor(mask, affine=AFFINE) for side, mask in masks.items()})
    result.targets["fixed_mask"] = masks["fixed"]
    at = [0, 1, 2, 4]  # fixed voxel x shows moving voxel x + 1: not 4, and 6 is none
    expected = correlation(result.moving.as_tensor()[:, 1:][:, at][..., 1:], result.fixed.as_tensor()[:, at][..., 1:])
    assert result.metrics["ncc"] == pytest.approx(expected, abs=1e-6)


def test_where_both_images_show_nothing_all_of_the_fixed_one_is_compared() -> None:
    result = make((0.0, 0.0, 0.0), offset=4.0)
    result.ddf[0] = 100.0
    assert result.compared is None


def waves(points: torch.Tensor) -> torch.Tensor:
    """An anatomy that is known everywhere: waves of random directions at points ``(d, *spatial)``, mm."""
    draw = torch.Generator().manual_seed(3)
    frequencies = 0.12 * torch.randn(12, len(points), generator=draw, dtype=torch.float64)
    phases = 6 * torch.rand(12, *[1] * (points.ndim - 1), generator=draw, dtype=torch.float64)
    return torch.cos(torch.einsum("nk,k...->n...", frequencies, points) + phases).sum(0)


def turned(size: tuple[int, ...]) -> torch.Tensor:
    """A rotation by 25 degrees about the middle of voxels of 2 mm, in the plane of the first two axes."""
    angle, d = torch.tensor(25.0, dtype=torch.float64).deg2rad(), len(size)
    matrix = torch.eye(d + 1, dtype=torch.float64)
    matrix[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    middle = torch.tensor([n - 1.0 for n in size], dtype=torch.float64)
    matrix[:d, d] = middle - matrix[:d, :d] @ middle
    return matrix


def seen(size: tuple[int, ...], pose: torch.Tensor, gray: tuple[float, float], frame: float | None) -> MetaTensor:
    """The anatomy in a pose, on voxels of 2 mm: gain and offset of its values, and that of a frame of 5 voxels."""
    d, affine = len(size), torch.diag(torch.tensor([2.0] * len(size) + [1.0], dtype=torch.float64))
    voxels = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in size], indexing="ij"))
    matrix = torch.linalg.inv(pose) @ affine
    points = torch.einsum("kj,j...->k...", matrix[:d, :d], voxels) + matrix[:d, d].view(-1, *[1] * d)
    values = gray[0] * waves(points) + gray[1]
    if frame is not None:
        inside = torch.zeros(size, dtype=torch.bool)
        inside[tuple(slice(5, n - 5) for n in size)] = True
        values = torch.where(inside, values, frame)
    return MetaTensor(values[None].float(), affine=affine)


@pytest.mark.parametrize(
    ("size", "scaling", "settings", "gray", "frame"),
    [
        ((32,) * 3, ScalePaird(), {}, (40, 500), None),
        ((32,) * 3, ScalePaird(), {"extend_border": True}, (40, 500), 0.0),
        ((32,) * 3, ScalePaird([-160, 240]), {"lowest": -1024}, (40, 40), -3024.0),
        ((32,) * 3, ScaleRangePaird([-1000, 3095]), {"lowest": -1024, "outside": "border"}, (60, 0), None),
        ((64, 64), StandardizePaird(), {"outside": "border"}, (40, 500), None),
        ((64, 64), StandardizePaird(), {"outside": "minimum"}, (40, 500), None),
    ],
    ids=["ran", "ran of framed crops", "ran of padded CT", "regnet", "r2n2", "r2n2, filled by the minimum"],
)
def test_one_anatomy_in_two_poses_matches_when_it_is_aligned(
    size: tuple[int, ...],
    scaling: Any,
    settings: dict[str, Any],
    gray: tuple[float, float],
    frame: float | None,
    tmp_path: Path,
) -> None:
    """Whatever lies beyond the moving image, and around both: what they compare is the same."""
    d, pose = len(size), turned(size)
    write_linear_transform(pose.numpy(), tmp_path / "pose.tfm")
    given = {"fixed": seen(size, torch.eye(d + 1).double(), gray, frame), "moving": seen(size, pose, gray, frame)}
    prepare = PreparePaird(scaling, d, keep_original=True, initial_transform=str(tmp_path / "pose.tfm"), **settings)
    item: dict[str, Any] = dict(prepare({**given, "pair_id": "waves"}))
    names = [key for key in (*given, *MASK_KEYS, "spacing") if key in item]
    targets = {key: torch.as_tensor(item[key]).as_subclass(torch.Tensor) for key in names}
    result = RegistrationResult(
        item, {"pred": {"ddf": torch.zeros(d, *size), "warped": targets["moving"]}, "label": targets}
    )
    assert result.metrics["ncc"] == pytest.approx(1.0, abs=1e-3)
    assert result.metrics["ncc_aligned"] == pytest.approx(1.0, abs=1e-3)
    assert result.metrics["ncc_before"] < 0.8
    assert result.metrics["lncc"] == pytest.approx(1.0, abs=1e-2)
    assert str(result.verdict) == "PASS"
    masks = {key: targets[key][None] for key in MASK_KEYS if key in targets}
    observed = ObservedPair(targets["moving"][None], targets["fixed"][None], **masks)
    still = torch.zeros(1, d, *size)
    for similarity, least in (("lncc", 0.97), ("mse", -2e-3)):
        assert observed.judge(InstanceLoss(similarity), list(size), "zeros")(still).similarity > least


def test_the_overlap_is_of_the_label_that_is_written() -> None:
    """Halfway between two voxels, sampled twice, a label would be rounded twice."""
    label = MetaTensor((torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1)) > 0.5).float(), affine=AFFINE)
    result = make((0.3, 0.0, 0.0), offset=0.6, moving_label=label, fixed_label=label)
    assert result.warped_label is not None
    expected = 2 * (result.warped_label * label).sum() / (result.warped_label.sum() + label.sum())
    assert result.metrics["dsc"] == pytest.approx(float(expected))
    assert result.metrics["dsc_before"] == 1.0
    assert result.metrics["dsc"] < 1.0


def blob(center: float) -> torch.Tensor:
    """A soft ball on 24^3 voxels, at the middle of the second and third axis."""
    x = torch.stack(torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij"))
    return (-((x - torch.tensor([center, 11.5, 11.5]).reshape(3, 1, 1, 1)) ** 2).sum(0, keepdim=True) / 18).exp()


def aligned_pair(**more: Any) -> RegistrationResult:
    """A ball that lies 5 voxels, 10 mm, off, aligned by its center of mass, and a field that changes nothing."""
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    pair = {side: MetaTensor(blob(center), affine=affine) for side, center in (("fixed", 9.0), ("moving", 14.0))}
    labels = {
        f"{side}_label": MetaTensor((image.as_tensor() > 0.5).float(), affine=affine) for side, image in pair.items()
    }
    points = {"fixed_landmarks": torch.tensor([[9.0, 12, 12]]), "moving_landmarks": torch.tensor([[14.0, 12, 13]])}
    item = ResampleToFixedd(initial_alignment="center", keep_original=True)(
        {**pair, **labels, **points, "pair_id": "ball"}
    )
    targets = {key: torch.as_tensor(item[key]) for key in (*pair, *labels, *points, "spacing")} | more
    pred = {"ddf": torch.zeros(3, 24, 24, 24), "warped": targets["moving"]}
    return RegistrationResult(item, {"pred": pred, "label": targets})


def test_correlation_before_is_one_of_the_pair_whatever_the_field() -> None:
    """One field moves the aligned image by voxels that it does not show; the pair stays the same."""
    results = [aligned_pair(), aligned_pair()]
    results[1].ddf[0] = 6.0
    still, moved = (result.metrics for result in results)
    assert moved["ncc"] < still["ncc"] - 0.1
    for name in ("ncc_before", "ncc_aligned"):
        assert moved[name] == still[name]


def test_before_is_the_pair_as_it_was_given_and_the_alignment_has_its_own_measures() -> None:
    result = aligned_pair()
    found = result.metrics
    assert result.is_aligned
    torch.testing.assert_close(result.as_given.as_tensor(), result.moving.as_tensor())
    assert found["ncc_before"] == pytest.approx(correlation(blob(14.0), blob(9.0)), abs=1e-5)  # both show all of it
    assert found["ncc_aligned"] == pytest.approx(1.0, abs=1e-2)
    assert found["ncc"] == pytest.approx(found["ncc_aligned"], abs=1e-6)
    assert found["dsc_before"] < 0.35
    assert found["dsc_aligned"] == found["dsc"] > 0.9
    assert found["hd_before"] == pytest.approx(10.0)
    assert (found["tre_before"], found["tre_aligned"]) == pytest.approx((104**0.5, 2.0), abs=0.05)  # mm
    assert found["tre"] == pytest.approx(found["tre_aligned"], abs=1e-5)
    assert found["lncc_before"] < found["lncc_aligned"] == pytest.approx(found["lncc"])
    assert result.verdict.level == "PASS"


def panel_of(result: RegistrationResult, name: str) -> torch.Tensor:
    """Return what a panel of the first row of the picture shows, as its array axes lie."""
    image = next(one for one in result.figure.axes[0].images if one.get_label() == name)
    return torch.from_numpy(image.get_array().data.T)


def test_the_picture_shows_the_moving_image_as_given_aligned_and_as_it_is_written() -> None:
    result = aligned_pair()
    result.ddf[0] = 2.0
    titles = [text.get_text().split("\n")[0] for text in result.figure.axes[0].texts]
    names = ["fixed", "moving, as given", "moving, aligned", "warped", "|fixed - aligned|", "|fixed - warped|"]
    assert titles[-8:-2] == names
    images = {name: panel_of(result, name) for name in ("fixed", "as given", "moving", "warped")}
    cuts = [int((plane == images["fixed"]).all()) for plane in result.targets["fixed"][0].unbind(-1)]
    z = cuts.index(1)
    torch.testing.assert_close(images["as given"], result.as_given.as_tensor()[0, ..., z])
    torch.testing.assert_close(images["moving"], result.targets["moving"][0, ..., z])
    torch.testing.assert_close(images["warped"], result.warped.as_tensor()[0, ..., z])


def test_voxels_that_the_moving_image_does_not_reach_are_told() -> None:
    shown = make((1.5, 0.0, 0.0)).shown
    assert shown.dtype == torch.bool
    assert shown[0, :, 0, 0].tolist() == [True] * 5 + [False]  # up to half a voxel beyond the last one
    assert bool(make((0.4, 0.0, 0.0)).shown.all())


@pytest.mark.parametrize(
    "scaling", [ScalePaird(), ScalePaird([0.3, 0.7]), ScaleRangePaird([0.0, 5.0]), StandardizePaird()]
)
def test_the_written_image_is_drawn_in_the_scale_of_the_networks(scaling: Any) -> None:
    """The values of the moving image are far from those of the fixed one."""
    fixed, moving = (MetaTensor(torch.rand(1, *SIZE), affine=AFFINE) for _ in range(2))
    further = AFFINE.clone()
    further[0, 3] = 4.0  # the first two planes are beyond the image
    moving = MetaTensor(moving.as_tensor(), affine=further)
    item = scaling(ResampleToFixedd(keep_original=True)({"fixed": fixed, "moving": moving, "pair_id": "a_to_b"}))
    keys = [key for key in ("fixed", "moving", "moving_mask", "spacing") if key in item]
    targets = {key: torch.as_tensor(item[key]).as_subclass(torch.Tensor) for key in keys}
    pred = {"ddf": torch.zeros(3, *SIZE), "warped": targets["moving"]}
    result = RegistrationResult(item, {"pred": pred, "label": targets})
    assert result.shown[0, :, 0, 0].tolist() == [False] * 2 + [True] * 4
    torch.testing.assert_close(panel_of(result, "warped")[2:], panel_of(result, "moving")[2:], atol=1e-5, rtol=1e-5)


def test_a_true_field_is_compared_with_the_total_one() -> None:
    true = torch.zeros(3, 24, 24, 24)
    true[0] = 5.0
    found = aligned_pair(true_ddf=true).metrics
    assert found["mae_before"] == pytest.approx(10.0)
    assert (found["mae_aligned"], found["mae"]) == pytest.approx((0.0, 0.0), abs=0.05)


def test_without_initial_alignment_there_are_no_measures_of_it() -> None:
    assert not [name for name in make().metrics if "aligned" in name]


def test_a_mirror_in_the_initial_alignment_folds_the_total_field() -> None:
    result = aligned_pair()
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    mirror[0, 3] = 46.0
    result.item = {**result.item, "initial_alignment_matrix": mirror}
    assert result.metrics["folding_percent"] == 100.0
    assert result.verdict.level == "FAIL"


def test_evidence_of_a_shift() -> None:
    found = make((1.0, 0.0, 0.0)).evidence
    assert found["motion95"] == pytest.approx(2.0)
    assert found["motion_percent"] == pytest.approx(100 * 2.0 / ((12 + 7 + 24) / 3))
    assert (found["overlap_percent"], found["extent"], found["extent_ratio"]) == pytest.approx((100, 24, 1))


def test_whether_it_is_one_patient_is_seen_by_all_of_the_image_whatever_the_mask() -> None:
    """Half of the image rests, the other half, which alone the mask holds, has nothing in common before."""
    fixed, other = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, *SIZE)
    mask[:, :, :, 4:] = 1
    moving = torch.where(mask > 0, other, fixed)
    pair = {"moving": MetaTensor(moving, affine=AFFINE), "fixed": MetaTensor(fixed, affine=AFFINE)}
    states = {}
    for masked in (False, True):
        given = {**pair, "fixed_mask": MetaTensor(mask, affine=AFFINE)} if masked else pair
        item = ResampleToFixedd(keep_original=True)({**given, "pair_id": "a_to_b"})
        keys = [key for key in ("moving", "fixed", "fixed_mask") if key in item]
        targets = {key: item[key].as_tensor() for key in keys} | {"spacing": item["spacing"]}
        output = {"pred": {"ddf": torch.zeros(3, *SIZE), "warped": targets["moving"]}, "label": targets}
        states[masked] = RegistrationResult(item, output, one_patient=True).evidence
    assert states[True]["likeness"] == states[False]["likeness"] == states[False]["lncc_before"]
    assert states[True]["unchanged_percent"] == states[False]["unchanged_percent"] == 100.0
    assert states[True]["lncc_before"] < states[True]["likeness"] - 0.1


def test_of_a_flat_image_it_is_not_known_whether_it_is_one_patient() -> None:
    images = {"moving": torch.rand(1, *SIZE), "fixed": torch.ones(1, *SIZE)}
    item = ResampleToFixedd(keep_original=True)(
        {**{key: MetaTensor(image, affine=AFFINE) for key, image in images.items()}, "pair_id": "a_to_b"}
    )
    targets = {key: item[key].as_tensor() for key in images} | {"spacing": item["spacing"]}
    output = {"pred": {"ddf": torch.zeros(3, *SIZE), "warped": targets["moving"]}, "label": targets}
    found = RegistrationResult(item, output, one_patient=True).evidence
    assert all(math.isnan(found[name]) for name in ("likeness", "unchanged_percent", "lncc_before", "lncc"))

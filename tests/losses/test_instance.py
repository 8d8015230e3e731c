"""The loss of instance optimization: the terms of the trainings, within the masks of both images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.losses import (
    EdgeAwareSmoothnessLoss,
    FoldingLoss,
    GradientLoss,
    InstanceLoss,
    IsotropicTVLoss,
    MaskedLNCCLoss,
    SequenceMSELoss,
    Term,
    WeightedSum,
)
from monai_regplugins.losses.instance import WeightedImage
from monai_regplugins.losses.roughness import bending, edge_huber

FOLDING = Term(FoldingLoss(), ["ddf"], 0.7)
TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Term]]] = {
    "ran": (
        {"window": 5, "threshold": 0.1, "similarity_weight": 2.0, "smoothness": "edges_l2", "smoothness_weight": 1.5},
        {
            "similarity": Term(MaskedLNCCLoss(5, 0.1), ["warped", "fixed"], 2.0),
            "smoothness": Term(EdgeAwareSmoothnessLoss("l2"), ["ddf", "fixed"], 1.5),
        },
    ),
    "ran l1": (
        {"window": 5, "smoothness": "edges_l1", "folding_weight": 0.7},
        {
            "similarity": Term(MaskedLNCCLoss(5, None), ["warped", "fixed"]),
            "smoothness": Term(EdgeAwareSmoothnessLoss("l1"), ["ddf", "fixed"]),
            "folding": FOLDING,
        },
    ),
    "regnet": (
        {"window": 4, "smoothness_weight": 3.0, "folding_weight": 0.7},
        {
            "similarity": Term(MaskedLNCCLoss(4, None), ["warped", "fixed"]),
            "smoothness": Term(GradientLoss(), ["ddf"], 3.0),
            "folding": FOLDING,
        },
    ),
    "r2n2": (
        {"similarity": "mse", "smoothness": "tv", "smoothness_weight": 2.0},
        {
            "similarity": Term(SequenceMSELoss("border"), ["sequence", "moving", "fixed"]),
            "smoothness": Term(IsotropicTVLoss(), ["ddf"], 2.0),
        },
    ),
}


def drawn(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Moving and fixed image, and a field."""
    moving, fixed = torch.rand(2, 1, 1, *size, dtype=torch.float64)
    return moving, fixed, torch.randn(1, len(size), *size, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("size", [(9, 8), (7, 6, 8)])
@pytest.mark.parametrize("training", TRAININGS)
def test_it_is_the_loss_of_the_training_and_its_gradient(training: str, size: tuple[int, ...]) -> None:
    (options, terms), (moving, fixed, ddf) = TRAININGS[training], drawn(size)
    found = InstanceLoss(**options).of_pair(WeightedImage(moving), WeightedImage(fixed), "border")(ddf)
    pred = {"ddf": ddf, "warped": fields.warp(moving, ddf, padding="border"), "sequence": ddf[:, None]}
    expected = WeightedSum(terms)(pred, {"moving": moving, "fixed": fixed})
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, ddf)[0] for loss in (found, expected)))


def test_a_stiffer_loss_has_more_smoothness_and_more_bending() -> None:
    moving, fixed, ddf = drawn((9, 8))
    pair = WeightedImage(moving), WeightedImage(fixed)
    options: dict[str, Any] = {"smoothness": "edges_huber", "smoothness_weight": 0.5, "bending_weight": 0.25}
    terms = [InstanceLoss(**options).stiffer(factor).of_pair(*pair)(ddf) for factor in (0.0, 1.0, 3.0)]
    expected = 0.5 * edge_huber(fixed)(ddf) + 0.25 * bending(fixed.shape[2:])(ddf)
    torch.testing.assert_close(terms[1] - terms[0], expected)
    torch.testing.assert_close(terms[2] - terms[0], 3 * expected)


def test_ignored_points_outside_are_those_of_the_sequence_loss() -> None:
    moving, fixed, ddf = drawn((9, 8))
    loss = InstanceLoss("mse", outside="ignore", smoothness_weight=0)
    found = loss.of_pair(WeightedImage(moving), WeightedImage(fixed), "border")(ddf)
    torch.testing.assert_close(found, SequenceMSELoss("ignore")(ddf[:, None], moving, fixed))


@pytest.mark.parametrize("similarity", ["lncc", "mse", "mind", "nmi"])
@pytest.mark.parametrize("masked", ["fixed", "moving"])
def test_no_gradient_where_a_mask_says_so(masked: str, similarity: str) -> None:
    """Nor any influence of what lies there, planted in the masked image."""
    moving, fixed, _ = drawn((12, 14))
    mask = torch.ones_like(fixed)
    mask[..., 8:] = 0
    shift = torch.zeros(1, 2, 12, 14, dtype=torch.float64)
    shift[:, 1] = 0.25
    found = []
    clean = fixed if masked == "fixed" else moving
    for image in (clean, clean + 50 * (1 - mask)):
        pair = {"fixed": WeightedImage(fixed), "moving": WeightedImage(moving), masked: WeightedImage(image, mask)}
        ddf = shift.clone().requires_grad_()
        value = InstanceLoss(similarity, 5, smoothness_weight=0).of_pair(**pair)(ddf)
        found.append((value.detach(), torch.autograd.grad(value, ddf)[0]))
    last = 8 if masked == "fixed" else 7  # at x + 0.25 voxel 7 is interpolated from one that does not count
    assert torch.equal(found[0][1][..., last:], torch.zeros(1, 2, 12, 14 - last))
    assert (found[0][1][..., :last] != 0).all()
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "ncc"}, "similarity"),
        ({"smoothness": "l3"}, "smoothness"),
        ({"outside": "zeros"}, "outside"),
        ({"window": 1}, "window and stride are 1 and 1"),
        ({"stride": 0}, "window and stride are 9 and 0"),
        ({"similarity_weight": 0.0}, "are 0.0, 1.0, 0.0, 0.0"),
        ({"folding_weight": -1.0}, "no negative one"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InstanceLoss(**options)


TEXTURE = torch.rand(1, 1, 40, 40).sub(0.5).cumsum(2).cumsum(3)
IMAGE = (TEXTURE - TEXTURE.min()) / (TEXTURE.max() - TEXTURE.min())


def parted(image: torch.Tensor) -> torch.Tensor:
    """A map of the intensities that is not monotonic."""
    return ((1.5 * image + 0.25) % 1 * 2 - 1).abs()


@pytest.mark.parametrize("same_contrast", ["lncc", "mse"])
def test_auto_alone_is_what_suits_one_contrast(same_contrast: str) -> None:
    pair, ddf = (WeightedImage(IMAGE), WeightedImage(parted(IMAGE))), torch.zeros(1, 2, 40, 40)
    auto, own = InstanceLoss("auto", same_contrast=same_contrast), InstanceLoss(same_contrast)
    assert auto.of_pair(*pair)(ddf) == own.of_pair(*pair)(ddf)


@pytest.mark.parametrize("similarity", ["mind", "nmi"])
def test_an_unmonotonic_map_is_best_where_the_images_lie_on_each_other(similarity: str) -> None:
    compare = InstanceLoss(similarity).similarity_of_pair(WeightedImage(IMAGE), WeightedImage(parted(IMAGE)))
    shifts = range(-3, 4)
    values = []
    for shift in shifts:
        ddf = torch.zeros(1, 2, 40, 40)
        ddf[:, 1] = shift
        values.append(float(compare(ddf)))
    assert shifts[values.index(min(values))] == 0


def test_features_of_a_module(tmp_path: Path) -> None:
    """Of the identity, the squared error of images divided by their standard deviations."""
    file = tmp_path / "identity.pt"
    torch.jit.script(torch.nn.Identity()).save(file)
    moving, fixed, ddf = drawn((9, 8))
    loss = InstanceLoss("features", features=file, smoothness_weight=0)
    found = loss.of_pair(WeightedImage(moving), WeightedImage(fixed))(ddf)
    warped = fields.warp(moving / moving.std(correction=0), ddf, padding="border")
    torch.testing.assert_close(found, (warped - fixed / fixed.std(correction=0)).square().mean())


def test_unusable_files_of_features(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no module")
    with pytest.raises(InputError, match="no TorchScript module"):
        InstanceLoss("features", features=tmp_path / "text.pt")
    with pytest.raises(InputError, match="does not exist"):
        InstanceLoss("features", features=tmp_path / "nowhere.pt")
    with pytest.raises(InputError, match="features is '', expected"):
        InstanceLoss("features")


def test_single_voxels_have_no_descriptors() -> None:
    judges = {name: InstanceLoss(name).of_single_voxels().similarity for name in ("lncc", "mse", "mind", "nmi")}
    assert judges == {"lncc": "lncc", "mse": "mse", "mind": "nmi", "nmi": "nmi"}


class TestChannels:
    """Images with several channels."""

    @pytest.mark.parametrize(
        ("similarity", "smoothness"), [("lncc", "edges_l1"), ("mse", "edges_l2"), ("mind", "tv"), ("nmi", "l2")]
    )
    def test_the_loss_is_the_mean_over_the_channels(self, similarity: str, smoothness: str) -> None:
        moving, fixed = torch.rand(2, 1, 2, 12, 10, dtype=torch.float64)
        weights = (torch.rand(1, 1, 12, 10) > 0.1).double()
        ddf = torch.randn(1, 2, 12, 10, dtype=torch.float64, requires_grad=True)
        loss = InstanceLoss(similarity, window=5, smoothness=smoothness, outside="ignore")
        found = loss.of_pair(WeightedImage(moving), WeightedImage(fixed, weights))(ddf)
        single = [
            loss.of_pair(WeightedImage(m), WeightedImage(f, weights))(ddf)
            for m, f in zip(moving.split(1, dim=1), fixed.split(1, dim=1), strict=True)
        ]
        expected = torch.stack(single).mean()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(value, ddf)[0] for value in (found, expected)))

    def test_both_images_have_as_many(self) -> None:
        images = WeightedImage(torch.rand(1, 2, 8, 8)), WeightedImage(torch.rand(1, 3, 8, 8))
        with pytest.raises(InputError, match="moving image has 2 channels and the fixed one 3, expected as many"):
            InstanceLoss().of_pair(*images)

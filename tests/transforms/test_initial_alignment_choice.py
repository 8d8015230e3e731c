"""The choice of a pre-alignment: each rule, on blobs and boxes whose overlap is known."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.keys import SERIES_KEY
from monai_regplugins.transforms import initial_alignment_choice as prealign_choice
from monai_regplugins.transforms.initial_alignment import affine_matrix, moments_matrix
from monai_regplugins.transforms.initial_alignment_choice import auto_matrix, choose_prealignment, field_of_view_overlap
from monai_regplugins.transforms.prepare import MovingToFixedGridd

SHAPE = (20, 24, 28)
AFFINE = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))  # 40 x 48 x 84 mm


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    """The grid, shifted by mm."""
    affine = AFFINE.clone()
    affine[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return affine


def blob(affine: torch.Tensor, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    """A blob in the middle of the unmoved grid, shifted by mm, seen on a grid."""
    world = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].numpy().T + affine[:3, 3].numpy()
    distance = ((world - np.array([20.0 + x, 24.0 + y, 42.0 + z])) / np.array([6.0, 8.0, 12.0])) ** 2
    return torch.from_numpy(np.exp(-distance.sum(-1) / 2)).float()[None]


@pytest.mark.parametrize(
    ("shift", "share"), [((0, 0, 0), 1.0), ((10, 0, 0), 0.75), ((10, -12, 21), 0.75**3), ((40, 0, 0), 0.0)]
)
def test_overlap_of_shifted_boxes(shift: tuple[float, ...], share: float) -> None:
    assert field_of_view_overlap(SHAPE, AFFINE, SHAPE, moved(*shift)) == pytest.approx(share, abs=1e-12)


def test_overlap_is_the_share_of_the_smaller_field_of_view() -> None:
    small = moved(1.0, 4.0, 9.0)
    for one, other in (((SHAPE, AFFINE), ((5, 6, 7), small)), (((5, 6, 7), small), (SHAPE, AFFINE))):
        assert field_of_view_overlap(*one, *other) == 1.0


def test_overlap_of_a_slice_turned_by_45_degrees() -> None:
    """Two equal squares about one center share 2 (sqrt 2 - 1) = 83 %; 16 x 16 points tell that to 4 %."""
    turn = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, np.sqrt(2)]], dtype=torch.float64) / np.sqrt(2)
    center = torch.eye(3, dtype=torch.float64)
    center[:2, 2] = -15.5
    turned = torch.linalg.inv(center) @ turn @ center
    share = field_of_view_overlap((32, 32), torch.eye(3, dtype=torch.float64), (32, 32), turned)
    assert share == pytest.approx(2 * (np.sqrt(2) - 1), abs=0.04)


CASES = {  # moving grid, where the moving content lies, one frame of reference, choice, words of the reason
    "same place": (moved(), (0, 0, 0), False, "none", "overlap by 100%, their centers are 0 mm apart, no common"),
    "nearly": (moved(2.5), (3, 0, 0), False, "none", "overlap by 94%, their centers are 3 mm apart"),
    "other content": (moved(), (9, 0, 0), False, "affine", "overlap by 100%, their centers are"),
    "other content, one frame": (moved(), (9, 0, 0), True, "none", "one frame of reference"),
    "half": (moved(20), (10, 0, 0), False, "affine", "overlap by 50%"),
    "half, one frame": (moved(20), (10, 0, 0), True, "none", "overlap by 50%"),
    "corner": (moved(30, 10), (30, 10, 0), True, "moments", "overlap by 20%|overlap by 19%"),
    "disjoint": (moved(500), (500, 0, 0), False, "moments", "overlap by 0%, their centers are 500 mm apart"),
    "disjoint, one frame": (moved(500), (500, 0, 0), True, "moments", "overlap by 0%"),
}


@pytest.mark.parametrize("case", CASES)
def test_choices(case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    affine, place, same_frame, expected, words = CASES[case]
    fixed, moving = blob(AFFINE), blob(affine, *map(float, place))
    choice, reason = choose_prealignment(fixed, AFFINE, moving, affine, same_frame)
    assert choice == expected
    assert any(word in reason for word in words.split("|")), reason

    map_of = {"none": torch.eye(4).double(), "moments": moments_matrix(fixed, AFFINE, moving, affine)}
    map_of["affine"] = map_of["moments"] @ torch.diag(torch.tensor([1.1, 1.0, 1.0, 1.0], dtype=torch.float64))
    monkeypatch.setattr(prealign_choice, "affine_matrix", lambda *_, **__: map_of["affine"])
    with caplog.at_level(logging.INFO):
        found = auto_matrix(fixed, AFFINE, moving, affine, same_frame)
    assert torch.equal(found, map_of[expected])
    (record,) = caplog.records
    assert record.getMessage() == f"prealign 'auto' takes '{expected}': {reason}."


def fails(*_: object, **__: object) -> torch.Tensor:
    raise InputError("no")


SENSELESS: dict[str, Callable[..., torch.Tensor]] = {
    "fails": fails,
    "stretches": lambda *_, **__: torch.diag(torch.tensor([1.0, 1.6, 1.0, 1.0], dtype=torch.float64)),
    "shrinks": lambda *_, **__: torch.diag(torch.tensor([1.0, 0.6, 1.0, 1.0], dtype=torch.float64)),
    "leaves": lambda *_, **__: moved(200.0) @ torch.linalg.inv(AFFINE),
}


@pytest.mark.parametrize("way", SENSELESS)
def test_an_affine_map_without_sense_gives_way(
    way: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prealign_choice, "affine_matrix", SENSELESS[way])
    images = blob(AFFINE), AFFINE, blob(moved(20), 10.0), moved(20)
    assert torch.equal(auto_matrix(*images), moments_matrix(*images))
    assert "takes 'moments' after all" in caplog.text


def test_affine_is_that_of_its_function() -> None:
    images = blob(AFFINE), AFFINE, blob(AFFINE, 9.0, 2.0, -4.0), AFFINE
    assert torch.equal(auto_matrix(*images), affine_matrix(*images))


@pytest.mark.parametrize(
    ("frames", "name"), [(("1.2", "1.2"), "none"), (("1.2", "1.3"), "affine"), (("", ""), "affine")]
)
def test_the_pair_tells_the_frames_of_reference(
    frames: tuple[str, str], name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prealign_choice, "affine_matrix", lambda *_, **__: torch.eye(4).double())
    images = {"fixed": blob(AFFINE), "moving": blob(AFFINE, 9.0)}
    pair = {
        key: MetaTensor(image, affine=AFFINE, meta={SERIES_KEY: {"FrameOfReferenceUID": frame}})
        for (key, image), frame in zip(images.items(), frames, strict=True)
    }
    with caplog.at_level(logging.INFO):
        MovingToFixedGridd(prealign="auto")(pair)
    assert f"takes '{name}'" in caplog.text


def test_scans_of_two_worlds_meet() -> None:
    """Disjoint boxes raise an error without a pre-alignment, and agree with one."""
    pair = {
        "fixed": MetaTensor(blob(AFFINE), affine=AFFINE),
        "moving": MetaTensor(blob(moved(500), 500.0), affine=moved(500)),
    }
    with pytest.raises(InputError, match="do not overlap"):
        MovingToFixedGridd()(pair)
    prepared = MovingToFixedGridd(prealign="auto")(pair)
    torch.testing.assert_close(prepared["moving"].as_tensor(), pair["fixed"].as_tensor(), atol=1e-4, rtol=0)

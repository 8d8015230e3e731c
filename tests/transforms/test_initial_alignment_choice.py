"""Which alignment is used, and what the log says of it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.keys import SERIES_KEY
from monai_regplugins.transforms import initial_alignment_choice as choice
from monai_regplugins.transforms.initial_alignment import INITIAL_ALIGNMENTS, Alignment
from monai_regplugins.transforms.initial_alignment_choice import auto_matrix, initial_matrix, verdict
from monai_regplugins.transforms.prepare import ResampleToFixedd

EYE = torch.eye(3, dtype=torch.float64)
SHIFT = torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, -4.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
IMAGES = (torch.rand(1, 9, 9), EYE, torch.rand(1, 9, 9), EYE)


def found(after: float, before: float = 0.6, matrix: torch.Tensor = SHIFT, **other: Any) -> Alignment:
    """An alignment with its metrics."""
    return Alignment(matrix, **{"metric": "correlation", "start": EYE, "before": before, "after": after, **other})


@pytest.mark.parametrize("after", [0.5, 0.6])
def test_what_matches_no_better_is_not_used_and_says_so(after: float, caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(verdict(found(after), "rigid"), EYE)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    reported = f"initial alignment 'rigid' is not used: the correlation is {after:.3f} with it and 0.600 as they lie."
    assert record.getMessage() == reported


def test_what_matches_better_is_used_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(verdict(found(0.7), "rigid"), SHIFT)
    assert caplog.records == []


def test_a_doubt_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert torch.equal(verdict(found(0.7, doubt="the moon is full"), "affine"), SHIFT)
    assert "'affine' may be wrong: the moon is full" in caplog.text


CASES = {  # metric, before, after, one frame of reference, choice
    "aligned": ("correlation", 0.98, 0.985, False, "none"),
    "better": ("correlation", 0.6, 0.9, False, "affine"),
    "better, one frame": ("correlation", 0.6, 0.8, True, "none"),
    "far better, one frame": ("correlation", 0.6, 0.9, True, "affine"),
    "information": ("mutual information", 0.5, 0.56, False, "affine"),
    "little information": ("mutual information", 0.5, 0.54, False, "none"),
    "information, one frame": ("mutual information", 0.5, 0.7, True, "none"),
}


@pytest.mark.parametrize("case", CASES)
def test_auto_decides_by_how_well_the_images_match(
    case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric, before, after, same_frame, expected = CASES[case]
    monkeypatch.setattr(choice, "linear_alignment", lambda *_: found(after, before, metric=metric))
    with caplog.at_level(logging.INFO):
        matrix = auto_matrix(*IMAGES, same_frame)
    assert torch.equal(matrix, SHIFT if expected == "affine" else EYE)
    frame = "one frame of reference" if same_frame else "no common frame of reference"
    reported = f"{metric} {before:.3f} as they lie, {after:.3f} with 'affine', {frame}"
    assert caplog.records[0].getMessage() == f"initial alignment 'auto' takes '{expected}': {reported}."


def test_auto_brings_images_together_that_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in one frame of reference: what does not overlap cannot be registered."""
    monkeypatch.setattr(choice, "linear_alignment", lambda *_: found(0.7, start=SHIFT))
    assert torch.equal(auto_matrix(*IMAGES, True), SHIFT)


@pytest.mark.parametrize("stretch", [1.6, 0.6])
def test_an_affine_map_that_stretches_too_much_gives_way(stretch: float, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {"affine": torch.diag(torch.tensor([stretch, 1.0, 1.0], dtype=torch.float64)), "rigid": SHIFT}
    monkeypatch.setattr(choice, "linear_alignment", lambda *given: found(0.9, matrix=maps[given[4]]))
    assert torch.equal(auto_matrix(*IMAGES), SHIFT)


def blob(center: tuple[float, float], shape: tuple[int, int] = (24, 30)) -> torch.Tensor:
    """Two blobs about a voxel, not the same when turned."""
    x = np.moveaxis(np.indices(shape), 0, -1) - np.array(center)
    value = np.exp(-((x / [3, 6]) ** 2).sum(-1)) + 0.7 * np.exp(-(((x - [4, 3]) / 2) ** 2).sum(-1))
    return torch.from_numpy(value).float()[None]


@pytest.mark.parametrize("kind", [kind for kind in INITIAL_ALIGNMENTS if kind != "none"])
def test_content_that_lies_elsewhere_is_found(kind: str) -> None:
    """The grids agree; only the content says that something is to be done."""
    pair = {"fixed": MetaTensor(blob((10, 12)), affine=EYE), "moving": MetaTensor(blob((13, 17)), affine=EYE)}
    matrix = ResampleToFixedd(initial_alignment=kind)(pair)["initial_alignment_matrix"]
    torch.testing.assert_close(
        matrix[:2] @ torch.tensor([10.0, 12.0, 1.0]).double(), torch.tensor([13.0, 17.0]).double(), atol=0.3, rtol=0
    )


@pytest.mark.parametrize("kind", INITIAL_ALIGNMENTS)
def test_equal_images_stay_where_they_are(kind: str) -> None:
    image = blob((10, 12))
    matrix = initial_matrix(kind, image, EYE, image, EYE)
    torch.testing.assert_close(matrix, EYE, atol=1e-9, rtol=0)


@pytest.mark.parametrize("same", [True, False])
def test_the_pair_tells_the_frames_of_reference(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []
    monkeypatch.setattr(choice, "auto_matrix", lambda *given: heard.append(given[4]) or EYE)
    images = {
        key: MetaTensor(blob((10, 12)), affine=EYE, meta={SERIES_KEY: {"FrameOfReferenceUID": frame}})
        for key, frame in (("fixed", "1.2"), ("moving", "1.2" if same else "1.3"))
    }
    ResampleToFixedd(initial_alignment="auto")(images)
    assert heard == [same]


def test_images_of_two_worlds_meet() -> None:
    far = EYE.clone()
    far[:2, 2] = 500.0
    pair = {"fixed": MetaTensor(blob((10, 12)), affine=EYE), "moving": MetaTensor(blob((10, 12)), affine=far)}
    prepared = ResampleToFixedd(initial_alignment="auto")(pair)
    torch.testing.assert_close(prepared["moving"].as_tensor(), pair["fixed"].as_tensor(), atol=0.05, rtol=0)

"""Analytic pairs whose displacement is known in closed form."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_regplugins.benchmark import synthetic_motion
from monai_regplugins.benchmark.synthetic_motion import (
    KINDS,
    MotionPair,
    main,
    motion_pair,
)
from monai_regplugins.checks import InputError
from monai_regplugins.data import validation_pairs
from monai_regplugins.fields import warp
from monai_regplugins.metrics.landmarks import landmark_errors
from monai_regplugins.metrics.overlap import dice, ncc
from monai_regplugins.synthesis.regnet_fields import smallest_determinant
from monai_regplugins.transforms import LoadPaird, ResampleToFixedd

SIZE, AMPLITUDE = 32, 3.0


def drawn(kind: str, seed: int = 5, noise: float = 0.01) -> MotionPair:
    return motion_pair((seed, 0), kind, SIZE, AMPLITUDE, noise, landmarks=40)


def made(folder: Path, kind: str, *options: str) -> Path:
    size = ["--size", str(SIZE), "--amplitude", str(AMPLITUDE), "--landmarks", "40", "--seed", "5"]
    return main(["--kind", kind, "--output_dir", str(folder), *size, *options])


@pytest.mark.parametrize("kind", KINDS)
def test_images_field_and_landmarks_are_the_closed_form(kind: str) -> None:
    pair = drawn(kind, noise=0.0)
    voxels = torch.randint(SIZE, (50, 3), generator=torch.Generator().manual_seed(0))
    points, at = voxels.double(), (0, *voxels.T)
    u = pair.motion.at(points)
    torch.testing.assert_close(pair.ddf[(slice(None), *voxels.T)].T, u.float())
    for subject, places in ((pair.fixed, points + u), (pair.moving, points)):
        assert subject.label is not None
        assert subject.mask is not None
        value, label, body = pair.anatomy.sample(places.T.numpy())
        assert subject.image[at].numpy() == pytest.approx(value, abs=1e-5)
        assert np.array_equal(subject.label[at].numpy(), label)
        assert np.array_equal(subject.mask[at].numpy(), body)
    assert pair.fixed.points.shape == (40, 3)
    torch.testing.assert_close(pair.moving.points, pair.fixed.points + pair.motion.at(pair.fixed.points))
    assert pair.anatomy.sample(pair.moving.points.T.numpy())[2].all()


def test_the_smooth_field_is_as_large_as_asked_for_and_does_not_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn("smooth").ddf.norm(dim=0).max() == pytest.approx(AMPLITUDE, rel=1e-5)
    draws, bumps = [], synthetic_motion._random_bumps
    monkeypatch.setattr(synthetic_motion, "LEAST_DETERMINANT", 0.7)  # stricter, so that some draws fail
    monkeypatch.setattr(synthetic_motion, "_random_bumps", lambda *args: draws.append(bumps(*args)) or draws[-1])
    rngs = [np.random.default_rng(seed) for seed in range(4)]
    fields = [synthetic_motion._random_motion(rng, SIZE, AMPLITUDE, 0.0).smooth for rng in rngs]
    assert min(smallest_determinant(field, (SIZE,) * 3) for field in fields) >= 0.7
    assert len(draws) > 4


def test_a_slide_jumps_across_the_plane_alone() -> None:
    pair, step = drawn("sliding"), 1e-6
    assert pair.ddf.norm(dim=0).max() <= AMPLITUDE
    middle = (SIZE - 1) / 2
    inner = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * SIZE / 2 + SIZE / 4
    inner[:, 0] = middle
    below, above = (pair.motion.at(inner + torch.tensor([side * step, 0.0, 0.0])) for side in (-1, 1))
    jump = above - below
    # the smooth part, taken at two places that lie the jump apart, adds its own difference
    assert (jump[:, 1] > AMPLITUDE / 2).all()
    assert jump[:, 1].mean() == pytest.approx(AMPLITUDE, rel=0.2)
    assert jump[:, [0, 2]].abs().mean() < 0.2 * AMPLITUDE
    elsewhere = torch.rand(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * (SIZE - 1)
    elsewhere = elsewhere[(elsewhere[:, 0] - middle).abs() > 2 * step]
    for axis in range(3):
        moved = pair.motion.at(elsewhere + step * torch.eye(3)[axis].double()) - pair.motion.at(elsewhere)
        assert moved.abs().max() < 2 * step
    corner = torch.tensor([[0.0, 9.0, 9.0], [9.0, SIZE - 1.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(pair.motion.at(corner), pair.motion.smooth.at(corner))


def test_no_motion_leaves_the_noise() -> None:
    pair = drawn("zero", noise=0.05)
    assert not pair.ddf.any()
    assert pair.fixed.label is not None
    assert pair.moving.label is not None
    assert torch.equal(pair.fixed.label, pair.moving.label)
    torch.testing.assert_close(pair.fixed.points, pair.moving.points)
    difference = pair.fixed.image - pair.moving.image
    assert float(difference.std()) == pytest.approx(0.05 * 2**0.5, rel=0.03)
    assert abs(float(difference.mean())) < 0.002
    clean = drawn("zero", noise=0.0)
    assert torch.equal(clean.fixed.image, clean.moving.image)


@pytest.mark.parametrize("kind", ["smooth", "sliding"])
def test_the_reader_takes_the_folder_and_the_field_registers_it(kind: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "Made", kind, "--pairs", "2")
    listed = validation_pairs(folder)
    assert [pair["pair_id"] for pair in listed] == ["0001_to_0000", "0003_to_0002"]
    for number, files in enumerate(listed):
        pair = ResampleToFixedd()(LoadPaird()(files))
        field = folder / "displacements" / f"disp_{2 * number:04d}_{2 * number + 1:04d}.nii.gz"
        ddf = torch.from_numpy(np.moveaxis(nib.load(field).get_fdata(dtype=np.float32), -1, 0).copy())
        torch.testing.assert_close(ddf, motion_pair((5, number), kind, SIZE, AMPLITUDE, landmarks=40).ddf)
        image, label, mask = (
            warp(pair[f"moving{suffix}"].as_tensor()[None].float(), ddf[None], mode=mode)[0]
            for suffix, mode in (("", "linear"), ("_label", "nearest"), ("_mask", "nearest"))
        )
        fixed, moving = pair["fixed"].as_tensor(), pair["moving"].as_tensor()
        assert ncc(image, fixed) > 0.99 > ncc(moving, fixed)
        before, after = (dice(one, pair["fixed_label"], range(1, 6)) for one in (pair["moving_label"], label))
        assert min(after.values()) > 0.8
        assert np.mean(list(after.values())) > np.mean(list(before.values())) + 0.05
        assert dice(mask, pair["fixed_mask"], [1])[1] > 0.95
        points = [pair[f"{side}_landmarks"] for side in ("fixed", "moving")]
        away = (points[0][:, 0] - (SIZE - 1) / 2).abs() > 0.5  # not between the voxels beside a slide
        errors = landmark_errors(points[0][away], points[1][away], pair["spacing"], ddf)
        assert errors.max() < 0.1
        assert landmark_errors(*points, pair["spacing"]).mean() > 0.2 * AMPLITUDE


def test_the_seed_decides_and_kinds_share_the_anatomy() -> None:
    one, same, other = drawn("smooth"), drawn("smooth"), drawn("smooth", seed=6)
    for side in ("fixed", "moving"):
        assert torch.equal(getattr(one, side).image, getattr(same, side).image)
        assert torch.equal(getattr(one, side).points, getattr(same, side).points)
    assert not torch.allclose(one.moving.image, other.moving.image, atol=0.1)
    assert not torch.allclose(one.ddf, other.ddf, atol=0.1)
    assert torch.equal(one.moving.image, drawn("sliding").moving.image)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("slidin", [], "Did you mean 'sliding'"),
        ("smooth", ["--pairs", "0"], "pairs is 0"),
        ("smooth", ["--seed", "-1"], "seed -1"),
        ("smooth", ["--size", "8"], "size is 8"),
        ("smooth", ["--amplitude", "nan"], "amplitude is nan"),
        ("sliding", ["--amplitude", "4.5"], "at most 4 voxels"),
        ("zero", ["--noise", "-1"], "noise is -1"),
    ],
)
def test_bad_requests_are_told(kind: str, options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        made(tmp_path / "Made", kind, *options)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        made(tmp_path, "zero")
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]

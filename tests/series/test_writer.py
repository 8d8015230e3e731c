"""Files of a registered series: each number in them against one computed otherwise."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from scipy.ndimage import map_coordinates

from monai_regplugins.checks import InputError
from monai_regplugins.data import PreparePaird
from monai_regplugins.files.claims import claim
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.io.result_folder import write_result
from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms, field, from_json
from monai_regplugins.outputs import RegistrationWriter
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.series import series_pairs, writer
from monai_regplugins.series.writer import SeriesWriter, curve_figure
from monai_regplugins.transforms import StandardizePaird

SIZE, COUNT, STEPS = (14, 12), 5, 2
SAGITTAL = np.array([[0, 0, -9.0, 4], [0, -1.5, 0, 30], [-2.0, 0, 0, 50], [0, 0, 0, 1]])  # rows run to the feet
FILES = [
    "aligned.nii.gz",
    "animation.gif",
    "frames.csv",
    "frames.png",
    "provenance.json",
    "respiration.csv",
    "respiration.png",
    "transformations.json",
]
Write = Callable[..., Path]


def make_series(times: bool = True) -> CineSeries:
    frames = np.random.default_rng(0).uniform(10, 200, (COUNT, *SIZE)).astype(np.float32)
    return CineSeries(frames, (2.0, 1.5), 0.5 * np.arange(COUNT) if times else None, SAGITTAL)


def transforms() -> LocalTransforms:
    """Those of all frames, with displacements of some pixels."""
    generator = torch.Generator().manual_seed(1)
    position, sigma, vector = torch.rand(3, COUNT, STEPS, 2, generator=generator)
    rotation = torch.rand(COUNT, STEPS, 1, generator=generator)
    return LocalTransforms(position - 0.5, 0.2 + 0.2 * sigma, rotation, 0.6 * vector - 0.2)


def in_window(values: np.ndarray[Any, Any], frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Clipped at two standard deviations of a frame, as the network sees it."""
    return np.clip((values - frame.mean()) / frame.std(ddof=1), -2, 2)


def ddf() -> np.ndarray[Any, Any]:
    return field(transforms(), list(SIZE)).numpy()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that lets an engine run over batches of frames and gives the folder of the results."""

    def run(
        series: CineSeries,
        batches: Sequence[Sequence[int]] = ((3, 1), (0, 4), (2,)),
        extra: Mapping[str, torch.Tensor] | None = None,
        **options: Any,
    ) -> Path:
        found = {**transforms()._asdict(), "ddf": field(transforms(), list(SIZE)), **(extra or {})}
        found["warped"] = torch.rand(COUNT, 1, *SIZE)  # as the network saw it, for the picture alone

        prepare = PreparePaird(StandardizePaird(clip=2.0), 2, keep_original=True, outside="border")
        prepared: list[Any] = [prepare(pair) for pair in series_pairs(series, 2)]

        def step(engine: Any, batch: Sequence[int]) -> list[dict[str, Any]]:
            engine.state.batch = [prepared[frame] for frame in batch]
            targets = [{key: prepared[frame][key] for key in ("moving", "fixed", "spacing")} for frame in batch]
            preds = [{name: values[frame] for name, values in found.items()} for frame in batch]
            return [{"pred": pred, "label": target} for pred, target in zip(preds, targets, strict=True)]

        engine = Engine(step)
        SeriesWriter(tmp_path / "results", series, 2, **options).attach(engine)
        engine.run(batches)
        return tmp_path / "results"

    return run


@pytest.mark.parametrize("save_fields", [False, True])
def test_files(write: Write, save_fields: bool) -> None:
    folder = write(make_series(), save_fields=save_fields)
    assert sorted(os.listdir(folder)) == sorted([*FILES, *(["fields.npy"] if save_fields else [])])
    if save_fields:
        stored = np.load(folder / "fields.npy")
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, ddf())
    with Image.open(folder / "animation.gif") as animation:
        assert animation.n_frames == COUNT
        assert animation.info["duration"] == 500
    Image.open(folder / "respiration.png").verify()


def test_frames_with_folders_of_their_own(write: Write, tmp_path: Path) -> None:
    """Each but the fixed one, with the same measures as in the table; the record states weights and settings."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    provenance = Provenance({"steps": 3}, tmp_path / "model.pt")
    frames = RegistrationWriter(tmp_path / "results", "native", provenance=provenance)
    folder = write(make_series(), provenance=provenance, frames=frames)
    names = [f"frame_{t:04d}_to_0002" for t in range(COUNT) if t != 2]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == names
    with (folder / "frames.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["is_reference"] == "0"]
    for name, row, one in zip(names, rows, np.delete(ddf(), 2, axis=0), strict=True):
        with np.load(folder / name / "displacement.npz") as stored:
            np.testing.assert_allclose(stored["ddf"], one, atol=1e-5)
        measures = json.loads((folder / name / "metrics.json").read_text())
        assert (row["verdict"], float(row["lncc"])) == (measures["verdict"], pytest.approx(measures["lncc"], rel=1e-4))
        assert (folder / name / "registration.png").is_file()
    records = [json.loads((place / "provenance.json").read_text()) for place in (folder, folder / names[0])]
    for record in records:
        assert record["parameters"] == {"steps": 3}
        assert record["weights"]["file"] == str(tmp_path / "model.pt")


def test_files_of_others_and_of_other_series_stay(tmp_path: Path) -> None:
    series = make_series()
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "aligned.nii.gz").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"aligned.nii.gz' is there already and was not written by this program"):
        SeriesWriter(folder, series, 2).attach(Engine(lambda *_: None))
    source = dataclasses.replace(series, source=str(folder / "aligned.nii.gz"))
    with pytest.raises(InputError, match="would be replaced by a result"):
        SeriesWriter(folder, source, 2).attach(Engine(lambda *_: None))
    assert (folder / "aligned.nii.gz").read_bytes() == b"mine"


def test_the_folder_is_claimed_while_its_files_are_written(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of two processes would else be mixed."""
    others: list[int | None] = []

    def put(path: Path, *arguments: Any) -> None:
        others.append(claim(path.with_name(".series.claim")))
        write_result(path, *arguments)

    monkeypatch.setattr(writer, "write_result", put)
    folder = write(make_series())
    assert others == [None] * (len(FILES) - 1)
    assert sorted(os.listdir(folder)) == FILES


def test_another_series_does_not_replace_the_results(write: Write, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.nii.gz" for name in ("one", "two")]
    for file in files:
        file.write_bytes(b"series")
    one, two = (dataclasses.replace(make_series(), source=str(file)) for file in files)
    folder = write(one)
    assert write(one) == folder
    with pytest.raises(InputError, match=r"holds results of another series, '.*one\.nii\.gz'"):
        write(two)


def test_uncertainty_is_a_series_too(write: Write) -> None:
    """In mm: pixels of 2 by 1.5."""
    series, components = make_series(), torch.rand(COUNT, 2, *SIZE)
    folder = write(series, extra={"uncertainty": components})
    assert sorted(os.listdir(folder)) == sorted([*FILES, "uncertainty.nii.gz"])
    image = nib.load(folder / "uncertainty.nii.gz")
    expected = np.hypot(2.0 * components[:, 0].numpy(), 1.5 * components[:, 1].numpy())
    np.testing.assert_allclose(np.moveaxis(image.get_fdata()[:, :, 0], -1, 0), expected, rtol=1e-6)
    np.testing.assert_allclose(image.affine, SAGITTAL)


def test_beside_optimized_fields_what_is_of_the_network_is_named_so(write: Write) -> None:
    extra = {"uncertainty": torch.rand(COUNT, 2, *SIZE), "refinement": torch.rand(COUNT, 2)}
    found = set(os.listdir(write(make_series(), extra=extra)))
    assert {"network_transformations.json", "uncertainty.nii.gz"} <= found
    assert not {"transformations.json", "network_uncertainty.nii.gz"} & found


def test_aligned_frames_have_the_header_of_the_series(write: Write) -> None:
    series = make_series()
    image = nib.load(write(series) / "aligned.nii.gz")
    assert image.shape == (*SIZE, 1, COUNT)
    np.testing.assert_allclose(image.affine, SAGITTAL)
    np.testing.assert_allclose(image.header.get_zooms(), (2.0, 1.5, 9.0, 0.5))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    for frame, one, aligned in zip(series.frames, ddf(), np.moveaxis(image.get_fdata()[:, :, 0], -1, 0), strict=True):
        expected = map_coordinates(frame.astype(float), np.indices(SIZE) + one, order=1, mode="nearest")
        np.testing.assert_allclose(aligned, expected, atol=0.01)
        assert np.abs(aligned - frame).max() > 10


def test_transformations_give_the_fields_back(write: Write) -> None:
    content = json.loads((write(make_series()) / "transformations.json").read_text())
    assert (content["fixed_frame"], len(content["frames"])) == (2, COUNT)
    for steps, one in zip(content["frames"], ddf(), strict=True):
        assert len(steps) == STEPS
        np.testing.assert_allclose(field(from_json(steps), list(SIZE))[0].numpy(), one, atol=1e-4)


@pytest.mark.parametrize("times", [True, False])
def test_respiration_is_the_mean_displacement_to_the_feet(write: Write, times: bool) -> None:
    header, *lines = (write(make_series(times)) / "respiration.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines]
    assert header == "frame,seconds,mm"
    assert [cell[0] for cell in cells] == ["0", "1", "2", "3", "4"]
    assert [cell[1] for cell in cells] == (["0.0000", "0.5000", "1.0000", "1.5000", "2.0000"] if times else [""] * 5)
    curve = 2.0 * ddf()[:, 0].mean(axis=(1, 2))
    np.testing.assert_allclose([float(cell[2]) for cell in cells], curve, atol=1e-4)
    assert np.ptp(curve) > 0.1


def test_each_frame_has_measures_and_a_verdict(write: Write) -> None:
    series = make_series()
    folder = write(series)
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["is_reference"]) for row in rows] == [(str(t), str(int(t == 2))) for t in range(COUNT)]
    assert (rows[2]["ncc"], rows[2]["verdict"]) == ("", "")
    aligned = np.moveaxis(nib.load(folder / "aligned.nii.gz").get_fdata()[:, :, 0], -1, 0)
    for t in (0, 4):
        inside = np.indices(SIZE) + ddf()[t]
        counts = ((inside >= -0.5) & (inside <= np.array(SIZE)[:, None, None] - 0.5)).all(0)
        before, after = (
            np.corrcoef(in_window(one[t], series.frames[t])[counts], in_window(*[series.frames[2]] * 2)[counts])[0, 1]
            for one in (series.frames, aligned)
        )
        assert (float(rows[t]["ncc_before"]), float(rows[t]["ncc"])) == pytest.approx((before, after), abs=1e-3)
        assert rows[t]["verdict"] != "PASS"  # frames of noise
        assert "look unlike" in rows[t]["reasons"]


@pytest.mark.parametrize("times", [None, np.array([0.0, 0.5, 1.25])])
def test_curve_is_drawn_over_time_or_frames(times: Any) -> None:
    (axes,) = curve_figure(np.array([1.0, -2.0, 3.0]), times).axes
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2] if times is None else times)
    np.testing.assert_array_equal(line.get_ydata(), [1.0, -2.0, 3.0])
    assert axes.get_xlabel() == ("frame" if times is None else "time [s]")
    assert "mm" in axes.get_ylabel()


def test_full_disk(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(make_series())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write '.*aligned.nii.gz' \(No space left on device\)"):
        write(make_series(times=False))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

"""A series as pairs: which series, which fixed frame, and what the pairs hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch

from monai_regplugins.checks import InputError
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.series.frames import chosen_frame, given_series, series_pairs


@pytest.fixture
def series() -> CineSeries:
    """Five frames, the mean of frame 3 nearest to that of all."""
    frames = np.random.default_rng(0).uniform(0, 1, (5, 6, 4)).astype(np.float32)
    frames -= frames.mean(axis=(1, 2), keepdims=True)
    frames += np.array([0.0, 9.0, 1.0, 5.0, 8.0], dtype=np.float32)[:, None, None]
    return CineSeries(frames, (2.0, 1.5), None, np.diag([2.0, 1.5, 8.0, 1.0]))


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).uniform(0, 100, (6, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 1.5, 8.0, 1.0])), path)
    return path


def first_value(path: Path) -> float:
    return float(np.asarray(nib.load(path).dataobj)[0, 0, 0])


class TestGivenSeries:
    def test_a_path_is_read(self, tmp_path: Path) -> None:
        path = save(tmp_path / "own.nii.gz", 1)
        found = given_series(str(path), tmp_path / "nowhere", tmp_path / "nowhere")
        assert found.source == str(path)
        assert found.frames.shape == (3, 6, 4)
        assert found.frames[0, 0, 0] == pytest.approx(first_value(path))

    @pytest.mark.parametrize("kind", ["csv", "json"])
    def test_a_list_of_images_is_a_series(self, kind: str, tmp_path: Path) -> None:
        files = [save(tmp_path / f"{name}.nii.gz", seed) for seed, name in enumerate("ab")]
        rows = [{"image": "a.nii.gz", "phase": "2"}, {"image": "b.nii.gz", "phase": "0"}]
        table = "\n".join(["image,phase", *(",".join(row.values()) for row in rows)])
        (tmp_path / f"list.{kind}").write_text(table if kind == "csv" else json.dumps(rows))
        found = given_series(tmp_path / f"list.{kind}", tmp_path, tmp_path)
        values = [np.asarray(nib.load(file).dataobj) for file in files]
        np.testing.assert_array_equal(found.frames, [values[0][..., 2], values[1][..., 0]])
        assert (found.spacing, found.slice_axis, found.times) == ((2.0, 1.5), 2, None)

    def test_without_one_it_is_the_first_of_the_data_set(self, tmp_path: Path) -> None:
        second, first = save(tmp_path / "b.nii.gz", 2), save(tmp_path / "a.nii.gz", 1)
        found = given_series("", tmp_path, tmp_path / "elsewhere")
        assert found.source == str(first)
        assert found.frames[0, 0, 0] == pytest.approx(first_value(first))
        assert found.frames[0, 0, 0] != pytest.approx(first_value(second))

    def test_the_embedded_phantom_is_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []

        def make(folder: str | Path) -> Path:
            made.append(Path(folder))
            (Path(folder)).mkdir()
            (Path(folder) / "Toy_dataset.json").write_text('{"series": [{"image": "series/one.nii.gz"}]}')
            return save(Path(folder) / "series" / "one.nii.gz", 3)

        monkeypatch.setattr("monai_regplugins.phantoms.cine_lung.make_cine_lung", make)
        embedded = tmp_path / "embedded"
        assert given_series("", embedded, str(embedded)).frames.shape == (3, 6, 4)
        assert made == [embedded]

    def test_no_data(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere' is no folder"):
            given_series("", tmp_path / "nowhere", tmp_path / "embedded")
        with pytest.raises(InputError, match=r"series '.*nowhere.nii' does not exist"):
            given_series(str(tmp_path / "nowhere.nii"), tmp_path, tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestChosenFrame:
    @pytest.mark.parametrize(("given", "frame"), [(None, 3), (0, 0), (4, 4)])
    def test_the_given_one_or_the_reference(self, series: CineSeries, given: int | None, frame: int) -> None:
        assert chosen_frame(series, given) == frame

    @pytest.mark.parametrize("given", [-1, 5])
    def test_no_such_frame(self, series: CineSeries, given: int) -> None:
        with pytest.raises(InputError, match=rf"fixed_frame is {given}, expected 0 to 4; .* has 5 frames"):
            chosen_frame(series, given)


class TestSeriesPairs:
    def test_every_frame_against_one(self, series: CineSeries) -> None:
        pairs = series_pairs(series, 2)
        assert [pair["frame"] for pair in pairs] == [0, 1, 2, 3, 4]
        assert [pair["pair_id"] for pair in pairs][:2] == ["frame_0000_to_0002", "frame_0001_to_0002"]
        for pair, frame in zip(pairs, series.frames, strict=True):
            for key, expected in (("moving", frame), ("fixed", series.frames[2])):
                assert isinstance(pair[key], MetaTensor)
                np.testing.assert_array_equal(pair[key].numpy(), expected[None])
                np.testing.assert_allclose(pair[key].affine, series.affine)
            np.testing.assert_allclose(pair["spacing"], (2.0, 1.5))

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_frames_lie_where_the_header_puts_the_slice(self, series: CineSeries, axis: int) -> None:
        affine = np.array([[0.0, -3, 0, 4], [2, 0, 0, 5], [0, 0, 5, 6], [0, 0, 0, 1]])
        (first, *_) = series_pairs(dataclasses.replace(series, affine=affine, slice_axis=axis), 0)
        pixel = np.insert([2.0, 3.0], axis, 0.0)  # of the file's axes
        expected = affine @ [*pixel, 1]
        np.testing.assert_allclose(first["moving"].affine.numpy() @ [2, 3, 0, 1], expected)

    def test_frames_that_are_a_view(self, series: CineSeries) -> None:
        """As they come from a file with time as its last axis."""
        view = np.moveaxis(np.ascontiguousarray(np.moveaxis(series.frames, 0, -1)), -1, 0)[:, ::-1]
        pairs = series_pairs(series.with_frames(view), 0)
        np.testing.assert_array_equal(pairs[1]["moving"].numpy()[0], view[1])

    def test_a_loader_batches_them(self, series: CineSeries) -> None:
        (batch, _) = DataLoader(Dataset(series_pairs(series, 1)), batch_size=4)
        assert batch["moving"].shape == (4, 1, 6, 4)
        items = decollate_batch(batch)
        assert [int(item["frame"]) for item in items] == [0, 1, 2, 3]
        assert items[3]["pair_id"] == "frame_0003_to_0001"

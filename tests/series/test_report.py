"""What is told of a series, from the folders of its phases."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.series import PhaseSeries, SeriesReport, phase_series
from monai_regplugins.series.report import FILES, mean_image

SHAPE, COUNT = (4, 5, 3), 4
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def save(path: Path, values: Any) -> None:
    nib.save(nib.Nifti1Image(np.asarray(values, np.float32), AFFINE), path)


@pytest.fixture
def series(tmp_path: Path) -> PhaseSeries:
    save(tmp_path / "4d.nii.gz", np.stack([np.full(SHAPE, 10.0 * t) for t in range(COUNT)], axis=-1))
    return phase_series(tmp_path / "4d.nii.gz", "1")


def write_results(folder: Path, series: PhaseSeries, left_out: int = -1) -> list[str]:
    """Folders of results whose numbers tell their phase; the names of those."""
    done = [pair["pair_id"] for pair in series.pairs if series.places[pair["pair_id"]] != left_out]
    for name in done:
        number = series.places[name]
        place = folder / name
        place.mkdir(parents=True)
        measures = {"verdict": "PASS", "reasons": [], "ncc_before": 0.1 * number, "ncc": 0.2 * number, "dsc": None}
        (place / "metrics.json").write_text(json.dumps(measures))
        (place / "motion.json").write_text(json.dumps({"label 1": [number, 0.0, -2.0 * number]}))
        Image.new("RGB", (4, 4)).save(place / "registration.png")
        save(place / "warped.nii.gz", np.full(SHAPE, 100.0 * number))
    return done


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_files_are_in_the_order_of_time(series: PhaseSeries, tmp_path: Path) -> None:
    out = tmp_path / "out"
    SeriesReport(out, series)(write_results(out, series))
    assert {*FILES, "metrics.csv", "report.html"} <= {path.name for path in out.iterdir()}
    table = rows(out / "phases.csv")
    assert [line["phase"] for line in table] == ["0", "1", "2", "3"]
    assert [line["is_reference"] for line in table] == ["0", "1", "0", "0"]
    assert [line["ncc"] for line in table] == ["0", "", "0.4", "0.6"]
    assert [line["head_mm"] for line in rows(out / "motion.csv")] == ["0.0000", "0.0000", "-4.0000", "-6.0000"]
    mean = nib.load(out / "mean.nii.gz")
    np.testing.assert_allclose(mean.get_fdata(), (10 + 0 + 200 + 300) / 4)
    np.testing.assert_allclose(mean.affine, AFFINE)


def test_a_phase_without_a_result_is_a_gap(series: PhaseSeries, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = write_results(out, series, left_out=2)
    SeriesReport(out, series)(done, {"4d_2_to_4d_1": "damaged"})
    assert [line["head_mm"] for line in rows(out / "motion.csv")] == ["0.0000", "0.0000", "", "-6.0000"]
    np.testing.assert_allclose(nib.load(out / "mean.nii.gz").get_fdata(), (10 + 0 + 300) / 3)


def test_one_image_after_the_other_is_read(series: PhaseSeries, tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.full(SHAPE, 4.0))
    mean, _ = mean_image(series.pairs[0], [tmp_path / "a.nii.gz"] * 3)
    np.testing.assert_allclose(mean, (10 + 3 * 4) / 4)


@pytest.mark.parametrize("name", ["phases.csv", "mean.nii.gz", "report.html"])
def test_files_of_someone_else_are_refused(name: str, series: PhaseSeries, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(InputError, match="was not written by this program"):
        SeriesReport(tmp_path / "out", series).check()

"""Motion of labels and points over a series."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.result import RegistrationResult
from monai_regplugins.series import motion_of, write_motion
from monai_regplugins.series.motion import curves_figure, motion_csv, read_motion

SIZE = (6, 5, 4)
AFFINE = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))


def result(**entries: Any) -> RegistrationResult:
    """Voxel i of the first axis moves by i / 2 voxels along it, and all by one voxel of the last axis."""
    image = MetaTensor(torch.rand(1, *SIZE), affine=AFFINE)
    ddf = torch.zeros(3, *SIZE)
    ddf[0] = 0.5 * torch.arange(6.0).reshape(-1, 1, 1)
    ddf[2] = 1.0
    item = {"pair_id": "p", "fixed": image, "moving_original": image, "initial_alignment_matrix": torch.eye(4).double()}
    points = {key: value for key, value in entries.items() if "points" in key}
    targets = {"moving": image, "fixed": image, **{key: one for key, one in entries.items() if key not in points}}
    return RegistrationResult(item | points, {"pred": {"ddf": ddf}, "label": targets})


def test_labels_move_by_their_mean_and_points_by_the_field_between_voxels() -> None:
    label = torch.zeros(1, *SIZE, dtype=torch.int64)
    label[:, 1:3], label[:, 5] = 4, 2
    found = motion_of(result(fixed_label=label, fixed_keypoints=torch.tensor([[2.5, 1.0, 1.0]])))
    assert list(found) == ["label 2", "label 4", "point 0"]
    assert found["label 4"] == pytest.approx([2.0 * 0.75, 0.0, 4.0])
    assert found["label 2"] == pytest.approx([2.0 * 2.5, 0.0, 4.0])
    assert found["point 0"] == pytest.approx([2.0 * 1.25, 0.0, 4.0])


def test_without_labels_and_points_all_that_counts_is_taken() -> None:
    assert motion_of(result())["mean"] == pytest.approx([2.0 * 1.25, 0.0, 4.0])
    mask = torch.zeros(1, *SIZE)
    mask[:, 4] = 1
    assert motion_of(result(fixed_mask=mask)) == {"mean": pytest.approx([2.0 * 2.0, 0.0, 4.0])}


def test_curves_are_read_from_the_folders(tmp_path: Path) -> None:
    write_motion(result(), tmp_path)
    curves = read_motion([None, tmp_path, tmp_path / "none"])
    np.testing.assert_allclose(curves["mean"], [[0, 0, 0], [2.5, 0, 4], [np.nan] * 3])
    rows = list(csv.DictReader(io.StringIO(motion_csv(["0%", "1,5", "x"], curves))))
    assert [row["phase"] for row in rows] == ["0%", "1,5", "x"]
    assert float(rows[1]["length_mm"]) == pytest.approx(np.hypot(2.5, 4), abs=1e-3)
    assert (rows[1]["right_mm"], rows[1]["head_mm"], rows[2]["head_mm"]) == ("2.5000", "4.0000", "")


def test_names_of_phases_are_text_in_the_table() -> None:
    """No formula of a spreadsheet, and no end of a cell."""
    rows = list(csv.DictReader(io.StringIO(motion_csv(["=1+1", 'a "b", c'], {"mean": np.zeros((2, 3))}))))
    assert [row["phase"] for row in rows] == ["'=1+1", 'a "b", c']


def test_a_figure_has_a_panel_for_each_axis_and_a_curve_for_each_structure() -> None:
    panels = {"x": {f"point {number}": [0.0, float(number)] for number in range(20)}, "y": {"a": [0.0, 1.0]}}
    first, second = curves_figure(["0", "1"], panels).axes
    assert (len(first.lines), len(second.lines)) == (12, 1)
    assert (first.get_ylabel(), second.get_xlabel()) == ("x", "phase")
    assert [text.get_text() for text in second.get_xticklabels()] == ["0", "1"]

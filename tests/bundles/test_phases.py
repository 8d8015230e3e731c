"""All phases of a 4D image in one command, on a small phantom."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins.io import load_field
from monai_regplugins.phantoms import thorax_subject

pytestmark = pytest.mark.slow

COUNT = 6


@pytest.fixture
def breath(tmp_path: Path) -> Path:
    """A cycle, with a label map and points of its first phase."""
    depths = [float(np.sin(np.pi * t / COUNT) ** 2) for t in range(COUNT)]
    subject = thorax_subject(3, depths, (32, 26, 32), 8.5)
    series = nib.Nifti1Image(np.moveaxis(subject.images, 0, -1), subject.affine)
    nib.save(series, tmp_path / "4d.nii.gz")
    nib.save(nib.Nifti1Image(subject.labels[0], subject.affine), tmp_path / "label.nii.gz")
    np.savetxt(tmp_path / "points.csv", subject.landmarks[0][:5], delimiter=",")
    return tmp_path / "4d.nii.gz"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("bundle", ["ran", "regnet"])
def test_one_command_registers_all_phases(
    bundle: str, breath: Path, run_here: Any, repository: Path, tmp_path: Path
) -> None:
    configs = repository / "bundles" / bundle / "configs"
    files = str([str(configs / f"{name}.json") for name in ("inference", "series")])
    command = ["run", "inference", "--config_file", files, "--series", str(breath), "--output_dir", "out"]
    settings = {"refine_levels": 1, "formats": "['itk_nifti','learn2reg']", "fail_on": "never"}
    settings |= {"window": "[-1000,300]"} if bundle == "ran" else {"voxel_size": 8.5}
    settings |= {"fixed_label": str(tmp_path / "label.nii.gz"), "fixed_points": str(tmp_path / "points.csv")}
    run_here(command, tmp_path, settings)
    out = tmp_path / "out"
    phases = rows(out / "phases.csv")
    assert [row["phase"] for row in phases] == list("012345")
    assert [row["verdict"] for row in phases[1:]] == ["PASS"] * 5
    assert float(phases[3]["lncc"]) > float(phases[3]["lncc_before"]) + 0.02
    structures = rows(out / "motion.csv")
    assert {"label 1", "point 4"} <= {row["structure"] for row in structures}
    for number in range(1, COUNT):
        folder = out / f"4d_{number}_to_4d_0"
        assert {"warped.nii.gz", "registration.png", "disp_0000_0001.nii.gz"} & {path.name for path in folder.iterdir()}
        displacement = load_field(folder / "displacement_itk.nii.gz")[0]
        label = nib.load(tmp_path / "label.nii.gz").get_fdata() == 1
        moved = next(row for row in structures if (row["phase"], row["structure"]) == (str(number), "label 1"))
        assert float(moved["head_mm"]) == pytest.approx(float(np.asarray(displacement)[2][label].mean()), abs=0.02)
        assert json.loads((folder / "provenance.json").read_text())["weights"]["sha256"]
    assert nib.load(out / "mean.nii.gz").shape == (32, 26, 32)
    said = run_here(command, tmp_path, settings)
    assert said.count("is done already") == COUNT - 1

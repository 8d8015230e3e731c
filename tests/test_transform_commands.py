"""The commands on transform files, from words to files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from field_cases import GRIDS, MOVING_AFFINE, MOVING_SHAPE, SHAPE, field_ras

from monai_regplugins.cli import main
from monai_regplugins.io.formats import load_field, save_field
from monai_regplugins.io.linear import load_linear, save_linear

T = np.array([[1.05, -0.1, 0.02, 3.0], [0.12, 0.95, -0.05, -2.0], [0.0, 0.06, 1.02, -4.0], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    nib.save(nib.Nifti1Image(rng.normal(size=SHAPE).astype(np.float32), GRIDS["oblique"]), "fixed.nii.gz")
    nib.save(nib.Nifti1Image(rng.normal(size=MOVING_SHAPE).astype(np.float32), MOVING_AFFINE), "moving.nii.gz")
    nib.save(nib.Nifti1Image(rng.integers(0, 9, MOVING_SHAPE).astype(np.uint8), MOVING_AFFINE), "organs.nii.gz")
    save_field("itk_nifti", field_ras(), GRIDS["oblique"], "displacement_itk.nii.gz")
    save_field("itk_nifti", field_ras(), GRIDS["oblique"], "1Warp.nii.gz")
    save_linear(T, "0GenericAffine.mat")
    Path("fixed_points.fcsv").write_text(
        "# CoordinateSystem = RAS\n# columns = id,x,y,z\n1,-40,25,130\n", encoding="utf-8"
    )
    return tmp_path


WORDS = {
    "apply moving.nii.gz -t displacement_itk.nii.gz --like fixed.nii.gz -o warped.nii.gz": "written: warped.nii.gz",
    "apply moving.nii.gz organs.nii.gz -t 1Warp.nii.gz 0GenericAffine.mat -i nearest -o out": "out/organs.nii.gz",
    "apply fixed_points.fcsv -t displacement_itk.nii.gz -o moving_points.fcsv": "written: moving_points.fcsv",
    "apply moving.nii.gz -t 0GenericAffine.mat --like fixed.nii.gz -o a.nii -i cubic --padding -1": "written: a.nii",
    "compose 1Warp.nii.gz 0GenericAffine.mat -o total.nii.gz": "written: total.nii.gz",
    "invert displacement_itk.nii.gz --like moving.nii.gz -o inverse.nii.gz": "misses its points by: mean",
    "convert 0GenericAffine.mat -o a.lta --like fixed.nii.gz --moving moving.nii.gz": "written: a.lta",
    "convert displacement_itk.nii.gz -o displacement.h5": "written: displacement.h5",
    "jacobian displacement_itk.nii.gz --log -o log.nii.gz": "written: log.nii.gz",
    "inspect displacement_itk.nii.gz 0GenericAffine.mat": "direction: points of the fixed image to the moving image",
}


@pytest.mark.parametrize("words", WORDS)
def test_commands(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0
    assert WORDS[words] in capsys.readouterr().out


def test_commands_write_what_the_functions_write(capsys: pytest.CaptureFixture[str]) -> None:
    images = ["--like", "fixed.nii.gz", "--moving", "moving.nii.gz"]
    main(["convert", "0GenericAffine.mat", "--to", "fsl", "-o", "flirt.mat", *images])
    main(["convert", "flirt.mat", "--from", "fsl", "-o", "back.tfm", *images])
    np.testing.assert_allclose(load_linear("back.tfm"), T, atol=1e-6)
    main(["convert", "inverse:0GenericAffine.mat", "-o", "inverse.tfm"])
    np.testing.assert_allclose(load_linear("inverse.tfm"), np.linalg.inv(T), atol=1e-9)
    main(["convert", "displacement_itk.nii.gz", "--to", "slicer_nifti", "-o", "slicer.nii.gz"])
    np.testing.assert_array_equal(load_field("slicer.nii.gz")[0], field_ras())


def test_commands_of_the_documentation(repository: Path) -> None:
    """In the order of the page, each with the files that those before it have written."""
    page = (repository / "docs" / "how-to" / "use-a-transform-elsewhere.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 10
    for line in lines:
        words = line.split()
        assert (words[0], main(words[1:])) == ("regplugins", 0), line


@pytest.mark.slow
def test_an_error_is_one_line(repository: Path, folder: Path) -> None:
    words = ["apply", "moving.nii.gz", "-t", "fixed.nii.gz", "-o", "out.nii.gz"]
    done = subprocess.run(
        [sys.executable, "-m", "monai_regplugins", *words],
        cwd=folder,
        env={"PYTHONPATH": str(repository), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: 'fixed.nii.gz' has shape (9, 8, 7) and intent 0")
    assert not (folder / "out.nii.gz").exists()

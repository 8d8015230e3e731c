"""The application for pairs of files: it writes what the bundle does in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from monai_regplugins.registration import load_bundle

from .conftest import Run

pytestmark = pytest.mark.deploy

APP = ("-m", "monai_regplugins.apps.deploy.nifti_app")


def test_the_results_are_those_of_the_bundle_in_python(
    run_deploy: Run, bundle: Path, file_pair: Path, tmp_path: Path
) -> None:
    """With the package's own settings, and with paths set as in containers."""
    places = {"INPUT": file_pair, "OUTPUT": tmp_path / "output", "MODEL": bundle.parent}
    done = run_deploy(*APP, **{f"HOLOSCAN_{name}_PATH": path for name, path in places.items()})
    assert done.returncode == 3, done.stderr  # behind the initial alignment, that displacement is one too many
    register = load_bundle(bundle, device="cpu", initial_alignment="auto")
    files = {role: file_pair / f"{role}.nii.gz" for role in ("fixed", "moving", "moving_label")}
    expected = register(**files).save(tmp_path / "expected")
    folder = tmp_path / "output" / "moving_to_fixed"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in expected.iterdir())
    for name in ("warped.nii.gz", "warped_label.nii.gz", "displacement_itk.nii.gz"):
        found, truth = nib.load(folder / name), nib.load(expected / name)
        np.testing.assert_allclose(found.get_fdata(), truth.get_fdata(), atol=1e-3)
        np.testing.assert_array_equal(found.affine, truth.affine)
    assert nib.load(folder / "warped_label.nii.gz").get_fdata().max() == 2


def test_two_slices(run_deploy: Run, repository: Path, tmp_path: Path) -> None:
    """Their field has the format that holds any plane."""
    shutil.copytree(repository / "bundles" / "r2n2" / "configs", tmp_path / "r2n2" / "configs")
    config = ConfigParser.load_config_file(tmp_path / "r2n2" / "configs" / "inference.json")
    settings = {"spatial_size": [32, 32], "steps": 3}
    (tmp_path / "r2n2" / "models").mkdir()
    network = ConfigParser({**config, **settings}).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "r2n2" / "models" / "model.pt")
    (tmp_path / "input").mkdir()
    sagittal = np.array([[0.0, 0.0, 4.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    for role, place in {"fixed": 16, "moving": 18}.items():
        x, y = np.indices((32, 32))
        values = np.exp(-((x - place) ** 2 + (y - 15) ** 2) / 50).astype(np.float32)
        nib.save(nib.Nifti1Image(values, sagittal), tmp_path / "input" / f"{role}.nii.gz")
    (tmp_path / "app.yaml").write_text(json.dumps({"registration": settings}))
    words = (*APP, "-i", tmp_path / "input", "-o", tmp_path / "output", "-m", tmp_path / "r2n2")
    done = run_deploy(*words, HOLOSCAN_CONFIG_PATH=tmp_path / "app.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output" / "moving_to_fixed" / "displacement.npz").is_file()


def test_bad_input_ends_with_one_line_and_without_files(
    run_deploy: Run, bundle: Path, file_pair: Path, tmp_path: Path
) -> None:
    (file_pair / "moving.nii.gz").write_bytes(b"damaged")
    done = run_deploy(*APP, "-i", file_pair, "-o", tmp_path / "output", "-m", bundle)
    assert done.returncode == 1
    assert "moving.nii.gz' cannot be read as an image" in done.stderr.splitlines()[-1], done.stderr
    assert not list(tmp_path.glob("output/*"))


def test_results_that_are_not_to_be_trusted_have_an_exit_status_of_their_own(
    run_deploy: Run, bundle: Path, file_pair: Path, tmp_path: Path
) -> None:
    fixed = nib.load(file_pair / "fixed.nii.gz")
    noise = np.random.default_rng(0).uniform(-160, 240, fixed.shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, fixed.affine), file_pair / "fixed.nii.gz")
    words = (*APP, "-i", file_pair, "-o", tmp_path / "output", "-m", bundle)
    done = run_deploy(*words)
    assert done.returncode == 3, done.stderr
    folder = tmp_path / "output" / "moving_to_fixed"
    record = json.loads((folder / "provenance.json").read_text())
    assert record["verdict"] == "FAIL"
    assert any("the images still look unlike each other" in reason for reason in record["reasons"])
    assert "; ".join(record["reasons"]) in done.stdout + done.stderr
    assert record["sources"]["fixed"]["files"] == 1
    (folder / "provenance.json").unlink()  # now the folder is somebody else's
    before = sorted(path.stat().st_mtime_ns for path in folder.iterdir())
    done = run_deploy(*words)
    assert done.returncode == 1
    assert "holds other things than results of these images" in done.stderr.splitlines()[-1]
    assert "initial alignment" not in done.stdout + done.stderr  # it was refused before anything was registered
    assert sorted(path.stat().st_mtime_ns for path in folder.iterdir()) == before

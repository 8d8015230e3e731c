"""Weights used by ``--ckpt`` alone give the results of the settings that they were trained with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_files import configs, read_weights
from monai.bundle import ConfigWorkflow

from monai_regplugins import load_bundle

pytestmark = pytest.mark.bundle


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    """Two smooth random images."""
    files = {}
    for number, name in enumerate(("fixed", "moving")):
        coarse = torch.rand(1, 1, 4, 5, 4, generator=torch.Generator().manual_seed(number))
        image = torch.nn.functional.interpolate(coarse, size=(20, 24, 20), mode="trilinear")[0, 0] * 200
        files[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(image.numpy(), np.eye(4)), files[name])
    return files


@pytest.mark.slow
def test_published_weights_give_the_field_of_their_overlay(
    pair: dict[str, str], repository: Path, run_cli: Callable[..., str], tmp_path: Path
) -> None:
    """In processes of their own: by the file alone, by the overlay, by the preset."""
    ran = repository / "bundles" / "ran"
    ckpt = str(ran / "models" / "model_hippocampus.pt")
    ways: dict[str, tuple[list[Path], dict[str, Any]]] = {
        "weights": (configs(ran, "inference"), {"ckpt": ckpt}),
        "overlay": (configs(ran, "inference", "hippocampus"), {}),
        "preset": (configs(ran, "inference"), {"preset": "hippocampus"}),
        "neither": (configs(ran, "inference"), {}),
    }
    fields = {}
    for way, (files, given) in ways.items():
        words = ["run", "inference", "--config_file", str([str(file) for file in files])]
        run_cli(
            words, tmp_path, {**pair, "output_dir": str(tmp_path / way), "refine_steps": 2, "pair_id": "p", **given}
        )
        fields[way] = np.asanyarray(nib.load(next((tmp_path / way / "p").glob("displacement*.nii.gz"))).dataobj)
    assert np.array_equal(fields["weights"], fields["overlay"])
    assert np.array_equal(fields["preset"], fields["overlay"])
    assert np.abs(fields["neither"] - fields["overlay"]).max() > 1


@pytest.mark.slow
def test_weights_of_a_training_bring_its_settings(
    ran: Path, create: Callable[..., ConfigWorkflow], pair: dict[str, str], tmp_path: Path
) -> None:
    typed = {"spatial_size": [16, 20, 16], "window": [0, 200], "network_def#num_heads": 1, "mask_threshold": 0.0}
    create(configs(ran, "train"), tmp_path / "run", **typed).run()
    ckpt = next((tmp_path / "run" / "models").glob("model*.pt"))
    one = load_bundle(ran, ckpt=ckpt, device="cpu", refine_steps=0)
    other = load_bundle(ran, ckpt=ckpt, device="cpu", refine_steps=0, **typed)
    assert torch.equal(one(**pair).ddf, other(**pair).ddf)

    tuned = create(configs(ran, "train"), tmp_path / "tuned", ckpt=str(ckpt), spatial_size=[16, 16, 16])
    assert [tuned.parser[key] for key in typed] == [[16, 16, 16], *list(typed.values())[1:]]
    assert read_weights(ckpt).keys() == tuned.network_def.state_dict().keys()

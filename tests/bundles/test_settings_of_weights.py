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
    return smooth_pair(tmp_path)


def smooth_pair(folder: Path, size: tuple[int, ...] = (20, 24, 20)) -> dict[str, str]:
    """Write two smooth random images."""
    files = {}
    for number, name in enumerate(("fixed", "moving")):
        coarse = torch.rand(1, 1, *(4,) * len(size), generator=torch.Generator().manual_seed(number))
        mode = "trilinear" if len(size) == 3 else "bilinear"
        image = torch.nn.functional.interpolate(coarse, size=size, mode=mode)[0, 0] * 200
        files[name] = str(folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(image.numpy(), np.eye(4)), files[name])
    return files


def field_in(folder: Path) -> Any:
    """Read the field of a pair: of slices an NPZ file, else NIfTI."""
    (file,) = folder.glob("displacement*")
    return np.load(file)["ddf"] if file.suffix == ".npz" else np.asanyarray(nib.load(file).dataobj)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("ran", "hippocampus"),
        ("ran", "hippocampus_labels"),
        ("ran", "shapes"),
        ("ran", ""),
        ("r2n2", ""),
        ("regnet", ""),
    ],
)
def test_published_weights_give_the_field_of_their_settings(
    name: str, preset: str, repository: Path, run_here: Callable[..., str], tmp_path: Path
) -> None:
    """On command lines: by the bundle's default, by the file alone, or by the preset."""
    bundle, pair = repository / "bundles" / name, smooth_pair(tmp_path, (64, 48) if name == "r2n2" else (20, 24, 20))
    ckpt = str(bundle / "models" / f"model{f'_{preset}' * bool(preset)}.pt")
    ways: dict[str, tuple[list[Path], dict[str, Any]]] = {
        "default": (configs(bundle, "inference"), {}),
        "weights": (configs(bundle, "inference"), {"ckpt": ckpt}),
    }
    if preset:
        ways["preset"] = (configs(bundle, "inference"), {"preset": preset})
    fields = {}
    for way, (files, given) in ways.items():
        words = ["run", "inference", "--config_file", str([str(file) for file in files])]
        more = {"output_dir": str(tmp_path / way), "refine_steps": 0, "pair_id": "p", **given}
        run_here(words, tmp_path, {**pair, **more})
        fields[way] = field_in(tmp_path / way / "p")
    assert np.array_equal(fields["weights"], fields["preset" if preset else "default"])
    assert np.array_equal(fields["weights"], fields["default"]) == (not preset)


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

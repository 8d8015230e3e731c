"""Networks as methods: a bundle gives what its own inferer gives, VoxelMorph what MONAI's network gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import VoxelMorph
from scipy import ndimage

from monai_regplugins.benchmark.learned import load_bundle, load_voxelmorph
from monai_regplugins.benchmark.reporting import read_config
from monai_regplugins.checks import InputError

SHAPE = (16, 17, 18)


def images(shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    """A pair and all else that a method is called with."""
    fixed, moving = torch.rand(2, 1, *shape)
    return {"fixed": fixed, "moving": moving, "spacing": torch.ones(len(shape)), "mask": None, "seed": 0, "threads": 1}


class TestBundle:
    @pytest.fixture
    def bundle(self, tmp_path: Path) -> dict[str, Any]:
        """A bundle of one linear layer, with its weights."""
        network = torch.nn.Conv2d(2, 2, 1)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        train = {"bundle_root": "", "loss": {"_target_": "torch.nn.MSELoss"}}
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "train.json").write_text(json.dumps(train), encoding="utf-8")
        return {
            "imports": ["$import torch"],
            "bundle_root": str(tmp_path),
            "ckpt": str(tmp_path / "model.pt"),
            "device": "$torch.device('cpu')",
            "network": {"_target_": "torch.nn.Conv2d", "in_channels": 2, "out_channels": 2, "kernel_size": 1},
            "inferer": {"_target_": "monai_regplugins.inferers.PairInferer", "minimum_size": 1},
            "evaluator": {"prepare_batch": {"_target_": "monai_regplugins.engines.PairPrepareBatch"}},
        }

    def test_field(self, bundle: dict[str, Any]) -> None:
        known, weights = images((6, 5)), torch.load(bundle["ckpt"], weights_only=True)
        pair = torch.cat([known["moving"], known["fixed"]])
        expected = torch.einsum("cp,pij->cij", weights["weight"][:, :, 0, 0], pair) + weights["bias"][:, None, None]
        torch.testing.assert_close(load_bundle(bundle)(**known), expected)

    def test_the_inferer_gets_what_the_evaluator_gives_it(self, bundle: dict[str, Any]) -> None:
        bundle["evaluator"]["prepare_batch"]["inferer_keys"] = ["spacing", "fixed_mask"]
        bundle["inferer"] = "$lambda image, network, spacing, fixed_mask: {'ddf': image * spacing[0, 1] * fixed_mask}"
        known = images((6, 5)) | {"spacing": torch.tensor([2.0, 3.0]), "mask": torch.full((1, 6, 5), 2.0)}
        expected = 6.0 * torch.cat([known["moving"], known["fixed"]])
        torch.testing.assert_close(load_bundle(bundle)(**known), expected)

    def test_is_the_bundles_own_registration(self, repository: Path) -> None:
        """RAN with its weights, at a size other than that of its network."""
        config = read_config(repository / "bundles" / "ran" / "configs" / "evaluate.json", {})
        known = images()
        parser = ConfigParser(dict(config))
        network, inferer, device = (parser.get_parsed_content(key) for key in ("network", "inferer", "device"))
        network.load_state_dict(torch.load(parser.get_parsed_content("ckpt"), weights_only=True))
        with torch.no_grad():
            pair = torch.stack([known["moving"], known["fixed"]], dim=1).to(device)
            expected = inferer(pair, network.eval())["ddf"][0].cpu()
        assert expected.abs().max() > 0.1, "voxels"
        torch.testing.assert_close(load_bundle(config)(**known), expected)

    def test_refinement_needs_a_configuration_that_has_it(self, bundle: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="the configuration has no 'refine_steps'"):
            load_bundle(bundle, 20)
        with pytest.raises(InputError, match="the configuration has no 'smoothness_weight'"):
            load_bundle(bundle | {"refine_steps": 0}, 20, stiffness=2.0)

    def test_stiffness_is_a_factor_on_the_weight_of_the_smoothness(self, bundle: dict[str, Any]) -> None:
        inferer = "$lambda image, network: {'ddf': image * @smoothness_weight}"
        bundle |= {"refine_steps": 7, "weight": 3.0, "smoothness_weight": "@weight", "inferer": inferer}
        known = images((6, 5))
        pair = torch.cat([known["moving"], known["fixed"]])
        for factor in (1.0, 0.5):
            torch.testing.assert_close(load_bundle(bundle, 1, stiffness=factor)(**known), 3.0 * factor * pair)

    def test_refinement_of_the_configuration(self, bundle: dict[str, Any]) -> None:
        bundle |= {"refine_steps": 7, "inferer": "$lambda image, network: {'ddf': image * @refine_steps}"}
        known = images((6, 5))
        pair = torch.cat([known["moving"], known["fixed"]])
        for steps in (0, 3):
            torch.testing.assert_close(load_bundle(bundle, steps)(**known), steps * pair)

    @pytest.mark.parametrize("name", ["ran", "r2n2"])
    def test_optimization_alone_is_that_of_a_network_that_moves_nothing(self, repository: Path, name: str) -> None:
        config = read_config(repository / "bundles" / name / "configs" / "evaluate.json", {})
        known = images(SHAPE if name == "ran" else (32, 36))
        known["fixed"] = torch.from_numpy(ndimage.gaussian_filter(known["fixed"][0].numpy(), 1.5))[None] * 5
        known["moving"] = known["fixed"].roll(1, dims=1)
        alone = load_bundle(config, refine_steps=3, alone=True)(**known)
        moves_nothing = {"_target_": "monai_regplugins.inferers.PairInferer", "padding": "zeros"}
        still = {**config["inferer"], "inferer": moves_nothing, "steps": 3}
        inferer = ConfigParser({**config, "refine_steps": 3, "inferer": still}).get_parsed_content("inferer")
        pair = torch.stack([known["moving"], known["fixed"]], dim=1)
        with torch.no_grad():
            expected = inferer(pair, lambda image: torch.zeros(1, len(known["spacing"]), *image.shape[2:]))["ddf"][0]
        assert alone.abs().max() > 0.01, "voxels"
        torch.testing.assert_close(alone, expected)

    def test_other_weights(self, bundle: dict[str, Any], tmp_path: Path) -> None:
        torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
        with pytest.raises(InputError, match="does not fit Conv2d"):
            load_bundle(bundle | {"ckpt": str(tmp_path / "other.pt")})
        with pytest.raises(InputError, match="does not exist"):
            load_bundle(bundle | {"ckpt": str(tmp_path / "none.pt")})


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
class TestVoxelMorph:
    @pytest.fixture
    def network(self) -> VoxelMorph:
        return VoxelMorph(spatial_dims=2).eval()

    def test_velocities_are_integrated(self, network: VoxelMorph, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "model.pt")
        known = images((24, 16))
        with torch.no_grad():
            expected = network(known["moving"][None], known["fixed"][None])[1][0]
        torch.testing.assert_close(load_voxelmorph(str(tmp_path / "model.pt"), 2)(**known), expected)

    def test_a_backbone_predicts_displacements(self, network: VoxelMorph, tmp_path: Path) -> None:
        torch.save({"model": network.backbone.state_dict()}, tmp_path / "checkpoint.pt")
        known = images((24, 16))
        with torch.no_grad():
            expected = network.backbone(torch.cat([known["moving"], known["fixed"]])[None])[0]
            integrated = network(known["moving"][None], known["fixed"][None])[1][0]
        found = load_voxelmorph(str(tmp_path / "checkpoint.pt"), 2)(**known)
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, integrated)

    def test_any_size(self, network: VoxelMorph, tmp_path: Path) -> None:
        torch.save(network.state_dict(), tmp_path / "model.pt")
        known = images((21, 30))
        fields = [load_voxelmorph(str(tmp_path / "model.pt"), 2, size)(**known) for size in ((), (16, 16))]
        assert [tuple(field.shape) for field in fields] == [(2, 21, 30)] * 2
        assert not torch.allclose(*fields), "the size of the network's grid has no effect"

    def test_other_weights(self, tmp_path: Path) -> None:
        torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
        with pytest.raises(InputError, match="does not fit"):
            load_voxelmorph(str(tmp_path / "model.pt"), 2)

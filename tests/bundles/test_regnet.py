"""RegNet's configurations: training, evaluation, inference, MONAI's tools, and what is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
import torch.distributed as dist
from bundle_files import configs, files_of, killed_in_second_epoch, predictions, read_weights, same, table
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load, verify_net_in_out
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from monai_regplugins.checks import InputError
from monai_regplugins.networks.nets import RegNet

pytestmark = pytest.mark.bundle
Array = npt.NDArray[Any]
Create = Callable[..., ConfigWorkflow]

WIDTH = 0.2  # of the tiny networks


def save(path: Path, values: Array, spacing: float = 10.0) -> str:
    nib.save(nib.Nifti1Image(values, np.diag([spacing, spacing, spacing, 1.0])), path)
    return str(path)


def chest(size: tuple[int, ...] = (20, 18, 16), seed: int = 0) -> Array:
    """Some values in Hounsfield units."""
    return np.random.default_rng(seed).integers(-1000, 400, size).astype(np.int16)


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that move voxels by some tenths."""
    torch.manual_seed(0)
    network = RegNet(width=WIDTH)
    torch.nn.init.normal_(network.head[1].weight, std=1.0)
    path = tmp_path_factory.mktemp("weights") / "random.pt"
    torch.save(network.state_dict(), path)
    return path


class TestTraining:
    """What a training leaves, and how it goes on."""

    @pytest.mark.slow
    def test_it_writes_its_files_and_no_others(self, trained_regnet: Path, regnet: Path) -> None:
        names = [name for name in files_of(trained_regnet) if "tfevents" not in name]
        pictures = ["curves.png", "field.png", "registration.png", "registration_2.png"]
        assert names == [
            *(f"eval/{name}" for name in sorted(["curves.csv", "metrics.csv", "provenance.json", *pictures])),
            "models/checkpoint.pt",
            "models/model.pt",
        ]
        for name in pictures:
            Image.open(trained_regnet / "eval" / name).verify()
        assert {name.split("/")[0] for name in files_of(regnet)} <= {"LICENSE", "configs", "docs"}

    @pytest.mark.slow
    def test_model_is_trained_and_scored_by_the_error_of_known_fields(self, trained_regnet: Path) -> None:
        checkpoint, model = (read_weights(trained_regnet / "models" / f"{name}.pt") for name in ("checkpoint", "model"))
        assert same(checkpoint["model"], model)
        RegNet(width=WIDTH).load_state_dict(model)
        rows = table(trained_regnet / "eval" / "metrics.csv")
        assert len(rows) == 4  # two cases, mean and sd
        assert {"mae_before", "mae", "mae_axis_0", "mae_axis_2_before"} <= set(rows["mean"])
        mean = rows["mean"]
        assert float(mean["mae"]) == pytest.approx(sum(float(mean[f"mae_axis_{k}"]) for k in range(3)), rel=1e-4)
        assert checkpoint["best_metric"] == pytest.approx(-float(mean["mae"]), rel=1e-5)

    @pytest.mark.slow
    def test_resumed_it_ends_with_the_same_weights(self, regnet: Path, create_regnet: Create, tmp_path: Path) -> None:
        def training(name: str, **changes: Any) -> ConfigWorkflow:
            return create_regnet(configs(regnet, "train"), tmp_path / name, max_epochs=2, val_interval=2, **changes)

        training("straight").run()
        path = killed_in_second_epoch(training("broken"), tmp_path / "broken")
        training("broken", ckpt=str(path)).run()
        resumed, straight = (
            read_weights(tmp_path / name / "models" / "checkpoint.pt") for name in ("broken", "straight")
        )
        assert same(resumed["model"], straight["model"])

    @pytest.mark.slow
    @pytest.mark.parametrize(("overlays", "expected"), [((), 0.014 / 1.17**2), (("paper",), 1e-3 / 1.25**2)])
    def test_learning_rate_is_divided_after_each_epoch(
        self, overlays: tuple[str, ...], expected: float, regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        small = {"max_epochs": 2, "val_interval": 2, "images_per_epoch": 2, "batch_size": 2}
        create_regnet(configs(regnet, "train", *overlays), tmp_path, **small).run()
        (group,) = read_weights(tmp_path / "models" / "checkpoint.pt")["optimizer"]["param_groups"]
        assert group["lr"] == pytest.approx(expected)

    def test_the_papers_settings(self, regnet: Path) -> None:
        files = [str(file) for file in configs(regnet, "train", "paper")]
        parser = ConfigParser(ConfigParser.load_config_files(files))
        assert sum(p.numel() for p in parser.get_parsed_content("network_def").parameters()) == 904_878
        keys = ("images_per_epoch", "batch_size", "windows_per_image", "labels", "voxel_size", "max_epochs")
        images, batch, windows, labels, voxel, epochs = (parser.get_parsed_content(key) for key in keys)
        assert images * windows * labels**3 == 1_008_000
        assert (batch * windows, voxel, epochs) == (50, 1.0, 15)

    @pytest.mark.slow
    @pytest.mark.parametrize("changes", [{"fusion": "early"}, {"scales": "single"}, {"low_res": "stride"}])
    def test_ablations_train(
        self, changes: dict[str, str], regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        workflow = create_regnet(configs(regnet, "train"), tmp_path, images_per_epoch=2, val_cases=1, **changes)
        workflow.run()
        assert np.isfinite(workflow.evaluator.state.metrics["mae"])

    @pytest.mark.slow
    def test_the_twin_in_two_dimensions_trains(
        self, regnet: Path, create_regnet: Create, cine_lung: Path, tmp_path: Path
    ) -> None:
        changes = {"dataset_dir": str(cine_lung), "voxel_size": 6.4, "batch_size": 2, "images_per_epoch": 2}
        workflow = create_regnet(configs(regnet, "train", "planar"), tmp_path, labels=2, **changes)
        workflow.run()
        assert np.isfinite(workflow.evaluator.state.metrics["mae"])
        assert {"eval/field.png", "models/checkpoint.pt"} <= {*files_of(tmp_path)}


class TestSeveralProcesses:
    """The overlay for several processes."""

    @pytest.mark.slow
    @pytest.mark.usefixtures("lone_process")
    def test_one_process_alone(self, regnet: Path, create_regnet: Create, tmp_path: Path) -> None:
        workflow = create_regnet(configs(regnet, "train", "multi_gpu_train"), tmp_path)
        assert workflow.check_properties() == []
        workflow.run()
        assert isinstance(workflow.trainer.network, DistributedDataParallel)
        workflow.finalize()
        assert not dist.is_initialized()
        RegNet(width=WIDTH).load_state_dict(read_weights(tmp_path / "models" / "model.pt"))

    @pytest.mark.slow
    def test_two_processes_train_one_model(self, regnet: Path, tiny_regnet: Any, run_cli: Any, tmp_path: Path) -> None:
        files = configs(regnet, "train", "multi_gpu_train")
        words = ["run", "training", "--config_file", str([str(file) for file in files])]
        module = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
        said = run_cli(words, tmp_path, tiny_regnet(files, tmp_path / "output", val_cases=3), module)
        assert len(re.findall(r"pairs? +before +after", said)) == 1
        assert len(table(tmp_path / "output" / "eval" / "metrics.csv")) == 3 + 2
        RegNet(width=WIDTH).load_state_dict(read_weights(tmp_path / "output" / "models" / "model.pt"))


class TestEvaluation:
    """Real pairs and known fields."""

    def test_pairs_with_landmarks_inside_the_lung(
        self, ckpt: Path, regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        workflow = create_regnet(configs(regnet, "evaluate"), tmp_path, "infer", ckpt=str(ckpt))
        workflow.run()
        rows = table(tmp_path / "eval" / "evaluation.csv")
        assert {"tre_before", "tre", "dsc", "ncc"} <= set(rows["mean"])
        assert workflow.evaluator.state.metrics["score"] == pytest.approx(-float(rows["mean"]["tre"]), rel=1e-5)
        (output,) = workflow.evaluator.state.output
        assert bool((output["pred"]["ddf"] != 0).any())
        assert "fixed_mask" in output["label"]

    @pytest.mark.slow
    def test_known_fields_repeat_the_validation(
        self, trained_regnet: Path, regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        changes = {"ckpt": str(trained_regnet / "models" / "model.pt")}
        create_regnet(configs(regnet, "evaluate", "synthetic"), tmp_path, "infer", **changes).run()
        evaluation, validation = (
            table(path) for path in (tmp_path / "eval" / "evaluation.csv", trained_regnet / "eval" / "metrics.csv")
        )
        assert evaluation.keys() == validation.keys()
        for name, row in validation.items():
            assert float(evaluation[name]["mae"]) == pytest.approx(float(row["mae"]), rel=1e-3)
        Image.open(tmp_path / "eval" / "evaluation_field.png").verify()

    @pytest.mark.slow
    def test_fast_and_exact_agree_about(self, ckpt: Path, regnet: Path, create_regnet: Create, tmp_path: Path) -> None:
        fields = {}
        for mode in ("fast", "exact"):
            workflow = create_regnet(
                configs(regnet, "evaluate"), tmp_path / mode, "infer", ckpt=str(ckpt), dense_mode=mode
            )
            workflow.run()
            fields[mode] = workflow.evaluator.state.output[0]["pred"]["ddf"]
        assert not torch.equal(fields["fast"], fields["exact"])
        assert torch.allclose(fields["fast"][:, ::2, ::2, ::2], fields["exact"][:, ::2, ::2, ::2], atol=1e-4)


class TestInference:
    """Two files."""

    @pytest.mark.parametrize("changes", [{}, {"dense_mode": "exact"}, {"stages": [2, 1]}])
    def test_results_of_given_files(
        self, changes: dict[str, Any], ckpt: Path, regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        arrays = {"moving": chest(seed=1), "fixed": chest(seed=2)}
        paths = {key: save(tmp_path / f"{key}.nii.gz", values) for key, values in arrays.items()}
        output = tmp_path / "output"
        workflow = create_regnet(
            configs(regnet, "inference"), output, "infer", ckpt=str(ckpt), refine_steps=0, **paths, **changes
        )
        found = predictions(workflow)
        workflow.run()
        assert files_of(output) == [
            f"moving_to_fixed/{name}"
            for name in (
                "displacement_itk.nii.gz",
                "metrics.json",
                "provenance.json",
                "registration.png",
                "warped.nii.gz",
            )
        ]
        ddf = found[0]["ddf"].numpy()
        network = RegNet(width=WIDTH, dense_mode=changes.get("dense_mode", "fast")).eval()
        network.load_state_dict(read_weights(ckpt))
        if "stages" not in changes:
            image = torch.from_numpy(np.stack([arrays["moving"], arrays["fixed"]]).astype(np.float32))[None]
            with torch.no_grad():
                np.testing.assert_allclose(ddf, network((image + 1000) / 4095)[0].numpy(), rtol=1e-3, atol=1e-3)
        # what was written, read by another program: ITK's field moves points in mm, LPS
        folder = output / "moving_to_fixed"
        transform = sitk.DisplacementFieldTransform(
            sitk.Cast(sitk.ReadImage(str(folder / "displacement_itk.nii.gz")), sitk.sitkVectorFloat64)
        )
        point = (-10.0 * 9, -10.0 * 8, 10.0 * 7)
        moved = np.subtract(transform.TransformPoint(point), point)
        np.testing.assert_allclose(moved, ddf[:, 9, 8, 7] * (-10.0, -10.0, 10.0), atol=1e-3)

    @pytest.mark.slow
    def test_voxels_of_another_size(self, ckpt: Path, regnet: Path, create_regnet: Create, tmp_path: Path) -> None:
        paths = {key: save(tmp_path / f"{key}.nii.gz", chest(seed=n), 5.0) for n, key in enumerate(("moving", "fixed"))}
        workflow = create_regnet(configs(regnet, "inference"), tmp_path / "output", "infer", ckpt=str(ckpt), **paths)
        found = predictions(workflow)
        workflow.run()
        assert found[0]["ddf"].shape == (3, 20, 18, 16)


class TestTools:
    """MONAI's tools."""

    @pytest.fixture
    def bundle(self, copy_bundle: Callable[[str, Path], Path], tmp_path: Path) -> Path:
        """The bundle with random weights of the paper's network."""
        copy = copy_bundle("regnet", tmp_path)
        (copy / "models").mkdir()
        torch.save(RegNet().state_dict(), copy / "models" / "model.pt")
        return copy

    @pytest.mark.parametrize("name", ["evaluate", "inference"])
    def test_network_gives_what_the_metadata_say(self, name: str, regnet: Path) -> None:
        files = {"meta_file": str(regnet / "configs" / "metadata.json"), "config_file": str(*configs(regnet, name))}
        verify_net_in_out(net_id="network_def", device="cpu", n=1, any=16, **files)

    @pytest.mark.slow
    def test_exported_it_is_the_same_function(self, bundle: Path) -> None:
        ckpt_export(bundle_root=str(bundle), config_file=str(*configs(bundle, "inference")))
        scripted, eager = torch.jit.load(bundle / "models" / "model.ts"), RegNet().eval()
        eager.load_state_dict(read_weights(bundle / "models" / "model.pt"))
        image = torch.rand(1, 2, 10, 9, 8)
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), eager(image), rtol=1e-4, atol=1e-5)

    def test_monai_loads_it_with_its_weights(self, bundle: Path) -> None:
        network = load("regnet", bundle_dir=str(bundle.parent), device="cpu")
        assert isinstance(network, RegNet)
        assert same(network.state_dict(), read_weights(bundle / "models" / "model.pt"))

    @pytest.mark.slow
    def test_training_starts_from_its_folder(
        self, repository: Path, bundle: Path, tiny_regnet: Any, run_cli: Any, tmp_path: Path
    ) -> None:
        cwd, config = repository / "bundles" / "regnet", "configs/train.json"
        before = {name: sorted((repository / name).iterdir()) for name in (".", "bundles/regnet")}
        overrides = tiny_regnet(configs(bundle, "train"), tmp_path / "output")
        run_cli(["run", "training", "--config_file", config], cwd, overrides)
        assert (tmp_path / "output" / "models" / "model.pt").is_file()
        assert before == {name: sorted((repository / name).iterdir()) for name in (".", "bundles/regnet")}


class TestBadInput:
    """Whatever is wrong is reported in one line, and nothing is left half written."""

    @pytest.fixture
    def failure(self, regnet: Path, create_regnet: Create, ckpt: Path, tmp_path: Path) -> Callable[..., str]:
        """Return a function that runs a configuration, which has to fail, and gives the message of the input error."""

        def fail(name: str, *overlays: str, **changes: Any) -> str:
            kind = "train" if name == "train" else "infer"
            weights = {} if name == "train" else {"ckpt": str(ckpt)}
            with pytest.raises((InputError, RuntimeError)) as raised:
                create_regnet(configs(regnet, name, *overlays), tmp_path / "output", kind, **weights | changes).run()
            link: BaseException | None = raised.value
            while link is not None and not isinstance(link, InputError):
                link = link.__cause__
            assert link is not None, f"no input error behind {raised.value!r}"
            assert "\n" not in str(link)
            assert not (tmp_path / "output" / "moving_to_fixed").exists()
            return str(link)

        return fail

    def dataset(self, folder: Path, mask: Array | None, size: tuple[int, ...] = (20, 18, 16)) -> str:
        """Make a data set of three subjects, whose masks are given."""
        entries = []
        for n in range(3):
            entries.append({"image": Path(save(folder / f"Toy_{n:04d}_0000.nii.gz", chest(size, n))).name})
            if mask is not None:
                entries[-1]["mask"] = Path(save(folder / f"mask_{n:04d}.nii.gz", mask)).name
        content = {"name": "Toy", "tensorImageSize": {"0": "3D"}, "training": entries}
        (folder / "Toy_dataset.json").write_text(json.dumps(content))
        return str(folder)

    @pytest.mark.slow
    def test_image_smaller_than_the_receptive_field_trains_nevertheless(
        self, regnet: Path, create_regnet: Create, tmp_path: Path
    ) -> None:
        """It is continued at its edges, as in inference."""
        (tmp_path / "data").mkdir()
        small = self.dataset(tmp_path / "data", None, (12, 11, 10))
        workflow = create_regnet(configs(regnet, "train"), tmp_path / "output", dataset_dir=small)
        workflow.run()
        assert np.isfinite(workflow.evaluator.state.metrics["mae"])

    def test_empty_mask(self, failure: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        folder = self.dataset(tmp_path / "data", np.zeros((20, 18, 16), np.uint8))
        assert "mask" in failure("train", dataset_dir=folder)

    def test_mask_beside_the_image(self, failure: Callable[..., str], tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        folder = self.dataset(tmp_path / "data", np.ones((20, 18, 16), np.uint8))
        for path in Path(folder).glob("mask_*"):
            mask = nib.load(path)
            mask.affine[:3, 3] += 5000.0
            nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), mask.affine), path)
        assert "mask" in failure("train", dataset_dir=folder)

    def test_spacing_missing(self, failure: Callable[..., str], tmp_path: Path) -> None:
        """A header without voxel sizes: zeros."""
        paths = {}
        for n, key in enumerate(("moving", "fixed")):
            image = nib.Nifti1Image(chest(seed=n), None)
            image.header["pixdim"][1:4] = 0
            image.header["qform_code"] = image.header["sform_code"] = 0
            paths[key] = str(tmp_path / f"{key}.nii.gz")
            nib.save(image, paths[key])
        message = failure("inference", **paths)
        assert "has no spacing" in message

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"dense_mode": "quick"}, "mode"),
            ({"stages": [0]}, "stages"),
            ({"tile": 9}, "tile"),
            ({"voxel_size": -1.0}, "voxel_size"),
            ({"fusion": "both"}, "fusion"),
            ({"moving": "nowhere.nii.gz", "fixed": "nowhere.nii.gz"}, "nowhere.nii.gz"),
            ({"width": 1.0}, "random.pt"),
        ],
    )
    def test_bad_settings_of_inference(self, changes: dict[str, Any], word: str, failure: Callable[..., str]) -> None:
        assert word in failure("inference", **changes)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"labels": 0}, "labels"),
            ({"field_family": "miccai2018"}, "miccai2017"),
            ({"field_presets": ["middle"]}, "medium"),
            ({"next_probability": 2.0}, "next_probability"),
            ({"images_per_epoch": 0}, "images_per_epoch"),
            ({"max_epochs": 0}, "max_epochs is 0"),
            ({"val_interval": 0}, "val_interval is 0"),
            ({"batch_size": 0}, "batch_size is 0"),
            ({"learning_rate": "$float('nan')"}, "learning_rate is nan"),
            ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ],
    )
    def test_bad_settings_of_training(self, changes: dict[str, Any], word: str, failure: Callable[..., str]) -> None:
        assert word in failure("train", **changes)

    def test_unknown_setting(self, failure: Callable[..., str]) -> None:
        assert "labels" in failure("train", lables=4)


def test_planar_images_have_their_own_bundle_settings(regnet: Path) -> None:
    """The 2D overlay leaves nothing of chest CT behind."""
    planar = json.loads((regnet / "configs" / "planar.json").read_text())
    assert planar["spatial_dims"] == 2
    assert planar["intensity_range"] == [0.0, 255.0]


def test_shipped_copy_is_complete(regnet: Path, tmp_path: Path) -> None:
    """Nothing outside of the bundle's folder is needed."""
    shutil.copytree(regnet, tmp_path / "copy")
    files = (tmp_path / "copy" / "configs").glob("*.json")
    tasks = {"train", "evaluate", "inference", "multi_gpu_train", "paper", "planar", "series", "synthetic"}
    assert {path.stem for path in files} == {*tasks, "metadata"}

"""Whatever is wrong with what a user gives to RAN's configurations, it is reported in one line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from in_turn import flags_of, run_program
from monai.bundle import create_workflow

from monai_regplugins.checks import InputError
from monai_regplugins.networks.nets import RAN

pytestmark = pytest.mark.bundle
Array = npt.NDArray[Any]
Failure = Callable[..., str]

SIZE = (16, 16, 16)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CPU = "$torch.device('cpu')"
TINY_TRAINING = {"max_epochs": 1, "pairs_per_epoch": 1, "batch_size": 1, "val_pairs": 1, "val_interval": 1, "ckpt": ""}


def noise(size: tuple[int, ...] = SIZE, seed: int = 0) -> Array:
    """An image in the window of the configurations."""
    return np.random.default_rng(seed).uniform(-150, 200, size).astype(np.float32)


def save(path: Path, values: Array, affine: Array = AFFINE) -> str:
    nib.save(nib.Nifti1Image(values, affine), path)
    return str(path)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    """Paths of a pair that nothing is wrong with."""
    return {key: save(tmp_path / f"{key}.nii.gz", noise(seed=n)) for n, key in enumerate(("fixed", "moving"))}


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., str]:
    """Return a function that makes a data set of four subjects; its arguments change the description."""

    def make(size: tuple[int, ...] = SIZE, rename: dict[str, str] | None = None, **changes: Any) -> str:
        folder = tmp_path / "Toy"
        (folder / "imagesTr").mkdir(parents=True)
        names = [f"imagesTr/Toy_{n:04d}_0000.nii.gz" for n in range(4)]
        for n, name in enumerate(names):
            save(folder / name, noise(size, seed=n))
        content = {
            "tensorImageSize": {"0": "3D"},
            "training": [{"image": name} for name in names],
            "registration_val": [{"fixed": names[2], "moving": names[3]}],
        }
        renamed = {(rename or {}).get(key, key): value for key, value in content.items()}
        (folder / "Toy_dataset.json").write_text(json.dumps(renamed | changes), encoding="utf-8")
        return str(folder)

    return make


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that saves random weights of a preset."""

    def make(preset: str = "ran4_released") -> str:
        path = tmp_path / f"{preset}.pt"
        torch.save(RAN(preset=preset).state_dict(), path)
        return str(path)

    return make


def run(config: Path, **settings: Any) -> None:
    """Run a configuration as ``monai.bundle`` does."""
    kind = "train" if config.stem == "train" else "inference"
    settings = {"device": CPU, "spatial_size": list(SIZE), **settings}
    workflow = create_workflow(config_file=str(config), workflow_type=kind, logging_file=False, **settings)
    workflow.run()
    workflow.finalize()


@pytest.fixture
def failure(repository: Path, tmp_path: Path) -> Failure:
    """Return a function that runs a configuration, which has to fail, and gives the message of the input error."""

    def fail(name: str, **settings: Any) -> str:
        common = {"output_dir": str(tmp_path / "output"), **(TINY_TRAINING if name == "train" else {})}
        with pytest.raises((InputError, RuntimeError)) as raised:
            run(repository / "bundles" / "ran" / "configs" / f"{name}.json", **common | settings)
        link: BaseException | None = raised.value
        while link is not None and not isinstance(link, InputError):
            link = link.__cause__
        assert link is not None, f"no input error behind {raised.value!r}"
        message = str(link)
        assert "\n" not in message
        assert message.endswith((".", "?"))
        assert not (tmp_path / "output" / "moving_to_fixed").exists()
        return message

    return fail


def contains(message: str, *parts: str) -> None:
    """Check that a message has all of the parts."""
    assert [part for part in parts if part not in message] == [], message


NOT_FINITE = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}


@pytest.mark.parametrize("side", ["fixed", "moving"])
class TestImages:
    """A pair of files, one of which is wrong."""

    def test_missing(self, side: str, images: dict[str, str], failure: Failure) -> None:
        wrong = images[side].replace(f"{side}.nii", f"{side}s.nii")
        message = failure("inference", **images | {side: wrong})
        contains(message, f"{side} image '{wrong}' does not exist", f"Did you mean '{side}.nii.gz'?")

    @pytest.mark.parametrize("content", [b"no image at all", b""], ids=["text", "empty"])
    def test_no_image(self, side: str, content: bytes, images: dict[str, str], failure: Failure) -> None:
        Path(images[side]).write_bytes(content)
        wrong = "cannot be read as an image" if content else "is empty (0 bytes)"
        contains(failure("inference", **images), images[side], wrong)

    def test_cut_short(self, side: str, images: dict[str, str], failure: Failure) -> None:
        path = Path(images[side])
        path.write_bytes(path.read_bytes()[:5000])
        contains(failure("inference", **images), f"{side} image '{path}' cannot be read as an image")

    @pytest.mark.parametrize("value", NOT_FINITE.values(), ids=NOT_FINITE)
    def test_not_finite(self, side: str, value: float, images: dict[str, str], failure: Failure) -> None:
        values = noise()
        values[3, 4, 5] = value
        save(Path(images[side]), values)
        contains(failure("inference", **images), f"{side} image", images[side], "NaN or infinite")

    def test_constant(self, side: str, images: dict[str, str], failure: Failure) -> None:
        save(Path(images[side]), np.full(SIZE, 7, dtype=np.float32))
        contains(failure("inference", **images), f"{side} image", images[side], "is constant (7 everywhere)")

    @pytest.mark.parametrize(
        ("size", "wrong"),
        [
            ((16, 16), "2 spatial dimensions (shape (1, 16, 16), channel first), expected 3; give a 3D image"),
            ((16, 16, 1), "single slice (shape (16, 16, 1)), expected a 3D image"),
            ((16, 16, 16, 3), "3 volumes by their number (0, 1, 2), expected one"),
        ],
        ids=["2D", "one slice", "4D"],
    )
    def test_dimensions(
        self, side: str, size: tuple[int, ...], wrong: str, images: dict[str, str], failure: Failure
    ) -> None:
        save(Path(images[side]), noise(size))
        contains(failure("inference", **images), f"{side} image", images[side], wrong)

    def test_sheared_grid(self, side: str, images: dict[str, str], failure: Failure) -> None:
        affine = AFFINE.copy()
        affine[0, 1] = 0.5
        save(Path(images[side]), noise(), affine)
        contains(failure("inference", **images), f"affine of {side} image is sheared", "right angles")

    def test_alone(self, side: str, images: dict[str, str], failure: Failure) -> None:
        other = {"fixed": "moving", "moving": "fixed"}[side]
        contains(failure("inference", **{side: images[side]}), f"{side} given, but no {other}", "both images")

    def test_label_without_its_image(self, side: str, images: dict[str, str], failure: Failure) -> None:
        label = save(Path(images[side]).with_name("label.nii.gz"), np.ones(SIZE, dtype=np.uint8))
        other = {"fixed": "moving", "moving": "fixed"}[side]
        contains(failure("inference", **{f"{side}_label": label, other: images[other]}), f"but no {side}")

    @pytest.mark.parametrize(
        ("label", "affine", "wrong"),
        [
            (np.zeros(SIZE, dtype=np.uint8), AFFINE, "is empty (no value above 0)"),
            (np.ones((16, 16, 15), dtype=np.uint8), np.eye(4), "the same"),
            (np.ones(SIZE, dtype=np.uint8), AFFINE + 500 * np.eye(4, k=3), "lies outside of the"),
            (np.full(SIZE, 0.5, dtype=np.float32), AFFINE, "holds fractions"),
        ],
        ids=["empty", "another size without a place", "elsewhere", "fractions"],
    )
    def test_label(
        self,
        side: str,
        label: Array,
        affine: Array,
        wrong: str,
        images: dict[str, str],
        failure: Failure,
        tmp_path: Path,
    ) -> None:
        path = save(tmp_path / "label.nii.gz", label, affine)
        contains(failure("inference", **images, **{f"{side}_label": path}), f"{side} label '{path}'", wrong)


def test_smaller_than_the_network_takes(images: dict[str, str], weights: Any, failure: Failure) -> None:
    for path in images.values():
        save(Path(path), noise((16, 7, 16)))
    message = failure("inference", **images, ckpt=weights(), spatial_size=[-1, -1, -1])
    contains(message, "16 x 7 x 16 voxels", "at least 8 x 8 x 8")


def test_images_that_do_not_meet(images: dict[str, str], failure: Failure) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] = 500
    save(Path(images["moving"]), noise(), affine)
    contains(failure("inference", **images), "do not overlap", "initial_alignment='center'")


def test_window_without_content(images: dict[str, str], failure: Failure) -> None:
    message = failure("inference", **images, window=[1000, 2000])
    contains(message, "image clipped to window [1000, 2000] is constant")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"val_interval": 0}, "val_interval is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": "$float('nan')"}, "learning_rate is nan"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"label_weight": -1.0}, "label_weight is -1.0"),
        ({"similarity_weight": "$float('nan')"}, "similarity_weight is nan"),
    ],
)
def test_settings_of_training(changes: dict[str, Any], word: str, failure: Failure, tmp_path: Path) -> None:
    assert word in failure("train", **changes)
    assert not (tmp_path / "output").exists()


class TestDataset:
    """A data set that is not as described."""

    def test_labels_that_a_loss_wants(self, dataset: Any, failure: Failure) -> None:
        contains(failure("train", dataset_dir=dataset(), label_weight=1.0), "label_weight is 1.0", "pairs lack labels")

    @pytest.mark.parametrize("config", ["train", "inference"])
    def test_mistyped_key(self, config: str, dataset: Any, failure: Failure) -> None:
        message = failure(config, dataset_dir=dataset(rename={"training": "trainings"}))
        contains(message, "Toy_dataset.json", "no key 'training'", "Did you mean 'trainings'?")

    @pytest.mark.parametrize("config", ["train", "inference"])
    def test_missing_image(self, config: str, dataset: Any, failure: Failure) -> None:
        folder = dataset()
        (Path(folder) / "imagesTr" / "Toy_0001_0000.nii.gz").unlink()
        message = failure(config, dataset_dir=folder)
        contains(message, "'training' entry 1", "Toy_0001_0000.nii.gz", "does not exist")

    def test_missing_image_of_a_pair(self, dataset: Any, failure: Failure) -> None:
        pairs = [{"fixed": "imagesTr/Toy_0002_0000.nii.gz", "moving": "imagesTr/Toy_0009_0000.nii.gz"}]
        message = failure("inference", dataset_dir=dataset(registration_val=pairs))
        contains(message, "moving of 'registration_val' entry 0", "Toy_0009_0000.nii.gz", "does not exist")

    def test_no_json(self, dataset: Any, failure: Failure) -> None:
        folder = dataset()
        (Path(folder) / "Toy_dataset.json").write_text("{", encoding="utf-8")
        contains(failure("train", dataset_dir=folder), "Toy_dataset.json", "not valid JSON")

    def test_no_folder(self, failure: Failure, tmp_path: Path) -> None:
        wrong = str(tmp_path / "nowhere")
        contains(failure("train", dataset_dir=wrong), f"dataset_dir '{wrong}' does not exist", "regplugins describe")

    def test_empty_mask(self, dataset: Any, failure: Failure) -> None:
        entries = [{"image": f"imagesTr/Toy_{n:04d}_0000.nii.gz", "mask": "mask.nii.gz"} for n in range(4)]
        folder = Path(dataset(training=entries))
        save(folder / "mask.nii.gz", np.zeros(SIZE, dtype=np.uint8))
        message = failure("inference", dataset_dir=str(folder))
        contains(message, f"moving mask '{folder / 'mask.nii.gz'}' is empty")

    def test_volumes_too_small_to_train_on(self, dataset: Any, failure: Failure) -> None:
        message = failure("train", dataset_dir=dataset((7, 16, 16)), spatial_size=[-1, -1, -1])
        contains(message, "7 x 16 x 16 voxels", "at least")


class TestSettings:
    """Overrides that mean nothing, or nothing known."""

    @pytest.mark.parametrize(
        ("config", "wrong", "right"),
        [
            ("inference", "fixd", "fixed"),
            ("train", "max_epoch", "max_epochs"),
            ("train", "train#dataloder", "train#dataloader"),
        ],
    )
    def test_unknown_override(self, config: str, wrong: str, right: str, failure: Failure) -> None:
        message = failure(config, **{wrong: 1})
        contains(message, f"unknown override '{wrong}'", f"Did you mean '{right}'?")

    def test_unknown_argument_of_the_network(self, images: dict[str, str], failure: Failure) -> None:
        message = failure("inference", **images, **{"network_def#dilation": [1, 1, 1, 1, 1]})
        contains(message, "geometry field is 'dilation'", "Did you mean 'dilations'?")

    @pytest.mark.parametrize(
        ("key", "wrong", "right"), [("initial_alignment", "centre", "center"), ("geometry", "ran5", "ran")]
    )
    def test_unknown_choice(self, key: str, wrong: str, right: str, images: dict[str, str], failure: Failure) -> None:
        message = failure("inference", **images, **{key: wrong})
        contains(message, f"{key}", f"is '{wrong}'", f"Did you mean '{right}")


class TestCheckpoints:
    """Weights that are missing, damaged or someone else's, and no room to write new ones."""

    @pytest.mark.parametrize("config", ["train", "inference"])
    def test_cut_short(self, config: str, images: Any, dataset: Any, weights: Any, failure: Failure) -> None:
        path = Path(weights())
        path.write_bytes(path.read_bytes()[:-1000])
        given = {"dataset_dir": dataset()} if config == "train" else images
        contains(failure(config, **given, ckpt=str(path)), f"checkpoint '{path}'", "cannot be read", "cut short")

    @pytest.mark.parametrize("config", ["train", "inference"])
    def test_another_preset(self, config: str, images: Any, dataset: Any, weights: Any, failure: Failure) -> None:
        path = weights("ran3")
        given = {"dataset_dir": dataset()} if config == "train" else images
        message = failure(config, **given, ckpt=path)
        contains(message, f"checkpoint '{path}' does not fit RAN", "another network")

    def test_no_model_yet(self, images: dict[str, str], failure: Failure, tmp_path: Path) -> None:
        message = failure("inference", **images, bundle_root=str(tmp_path))
        contains(message, f"no model at '{tmp_path}/models/model.pt'", "train or download", "ckpt")

    def test_code_in_a_checkpoint_is_not_run(self, images: dict[str, str], failure: Failure, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "harm"),)

        torch.save({"weights": Harmful()}, tmp_path / "foreign.pt")
        contains(failure("inference", **images, ckpt=str(tmp_path / "foreign.pt")), "foreign.pt' cannot be read")
        assert not (tmp_path / "harm").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_full_disk(
        self, call: str, dataset: Any, failure: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models = tmp_path / "output" / "models"
        original = getattr(os, call)

        def full(first: Any, *rest: Any) -> Any:
            if any(
                os.path.samestat(os.stat(first), file.stat())
                for file in models.glob(".part-*-checkpoint.pt/checkpoint.pt")
            ):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(first, *rest)

        monkeypatch.setattr(os, call, full)
        message = failure("train", dataset_dir=dataset())

        contains(message, f"cannot write '{models / 'checkpoint.pt'}' (No space left on device)", "unchanged")
        assert os.listdir(models) == [], "a temporary file is left"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["missing image", "unknown override", "checkpoint cut short"])
def test_the_command_line_shows_one_line(
    case: str, repository: Path, images: dict[str, str], dataset: Any, weights: Any, tmp_path: Path
) -> None:
    settings = {"output_dir": str(tmp_path / "output"), "device": CPU, "spatial_size": str(list(SIZE))}
    if case == "missing image":
        name, wrong = "inference", "does not exist"
        settings |= images | {"moving": str(tmp_path / "nowhere.nii.gz")}
    elif case == "unknown override":
        name, wrong = "train", "Did you mean 'learning_rate'?"
        settings |= {"learning_rat": "0.1"}
    else:
        name, wrong, ckpt = "train", "cut short", Path(weights())
        ckpt.write_bytes(ckpt.read_bytes()[:-1000])
        settings |= {"dataset_dir": dataset(), "ckpt": str(ckpt)}
    config = repository / "bundles" / "ran" / "configs" / f"{name}.json"
    done = run_program("monai.bundle", ["run", "--config_file", config, *flags_of(settings)])
    shown = done.output + done.errors
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]

    assert done.status == 1
    assert "Traceback" not in shown
    assert len(errors) == 1
    contains(errors[0], wrong)

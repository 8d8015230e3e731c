"""The command that checks a folder of images and proposes how to train on it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_regplugins import describe
from monai_regplugins.checks import InputError
from monai_regplugins.cli import main
from monai_regplugins.data.learn2reg import Learn2RegDataset
from monai_regplugins.describe import Facts, facts_of, proposal


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(path: str, values: Any, spacing: float = 1.0, corner: float = 0.0) -> str:
    """Write an image."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    affine[:3, 3] = corner
    nib.save(nib.Nifti1Image(np.asarray(values), affine), path)
    return path


def image(number: int, shape: tuple[int, ...] = (16, 20, 12)) -> Any:
    """Random intensities from 0 to 100."""
    return np.random.default_rng(number).integers(0, 101, shape, dtype=np.int16)


def described(capsys: pytest.CaptureFixture[str], words: str) -> list[str]:
    """Run the command and return its lines."""
    assert main(["describe", *shlex.split(words)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_folder_of_images_and_one_of_labels(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"mine/scan{number}.nii.gz", image(number), 2.0)
        save(f"segs/scan{number}.nii.gz", (image(number) > 50).astype(np.uint8) * 3, 2.0)
    lines = described(capsys, "mine --labels segs")
    assert lines[:8] == [
        "Wrote 'datasets/mine/mine_dataset.json'.",
        "mine: 4 images, 3D, 4 with a label map; read: 4",
        "  voxels: 16 x 20 x 12",
        "  voxel size (mm): 2 x 2 x 2",
        "  orientation: LAS (4)",
        "  intensities: from 0, most within 1 to 99",
        "  labels: 0, 3",
        "  pairs: 2 to train, 2 to validate, of different subjects",
    ]
    words = shlex.split(lines[-1])
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert {key: options[f"--{key}"] for key in ("dataset_dir", "output_dir", "spatial_size", "window")} == {
        "dataset_dir": "datasets/mine",
        "output_dir": "runs/mine",
        "spatial_size": "[16,20,12]",
        "window": "[]",
    }
    assert Path(options["--config_file"]).parts[-3:] == ("ran", "configs", "train.json")
    data = Learn2RegDataset(options["--dataset_dir"])
    assert [Path(entry["label"]).name for entry in data.subjects] == [f"scan{number}.nii.gz" for number in range(4)]
    assert sorted(path.name for path in Path("mine").iterdir()) == [f"scan{number}.nii.gz" for number in range(4)]

    before = Path("datasets/mine/mine_dataset.json").read_bytes()
    with pytest.raises(InputError, match=r"mine_dataset\.json' is there already; train with --dataset_dir"):
        main(["describe", "mine"])
    assert Path("datasets/mine/mine_dataset.json").read_bytes() == before


def test_a_known_layout_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        save(f"Set/images/{name}.nii.gz", image(ord(name), (30, 40, 1)))
    lines = described(capsys, "Set")
    assert lines[0] == "Set: 2 images, 2D, 0 with a label map; read: 2"
    assert "--dataset_dir Set " in lines[-1]
    assert "bundles/r2n2/configs/train.json" in lines[-1]
    assert lines[-1].endswith("--spatial_size '[32,40]'")
    assert [path.name for path in Path("Set").iterdir()] == ["images"]


def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    save("Set/images/a.nii.gz", image(0))
    save("Set/images/b.nii.gz", image(1))
    save("Set/images/c.nii.gz", np.ones((16, 20, 12)))
    Path("Set/images/d.nii.gz").write_bytes(Path("Set/images/a.nii.gz").read_bytes())
    save("Set/labels/a.nii.gz", np.zeros((16, 20, 13), dtype=np.uint8))
    save("Set/labels/b.nii.gz", np.full((16, 20, 12), 0.5))
    holes = np.ones((16, 20, 12))
    holes[0, 0, 0] = np.nan
    save("Set/images/e.nii.gz", image(2))
    save("Set/labels/e.nii.gz", holes)
    text = "\n".join(line for line in described(capsys, "Set") if line.startswith("check: "))
    for part in (
        "a.nii.gz' has (16, 20, 12) voxels and its label map (16, 20, 13)",
        "b.nii.gz' has a label map of fractions",
        "c.nii.gz' is constant, or holds NaN or infinity",
        "d.nii.gz' is the same file as '",
        "e.nii.gz' has a label map that holds NaN or infinity",
        "2 images have no label map, first '",
    ):
        assert part in text
    assert len(text.splitlines()) == 7  # NaN is no whole number, either


def test_pairs_within_subjects(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways between the images of each of six subjects; those of one are kept to validate."""
    for number in range(12):
        save(f"hearts/p{number // 2}_{number % 2}.nii.gz", image(number))
    (line,) = (line for line in described(capsys, "hearts") if "--paired" in line)
    assert line == "  6 names have several numbers ('p0_0.nii.gz', 'p0_1.nii.gz'): if they are subjects, give --paired"
    assert "  pairs: 10 to train, 2 to validate, within each subject" in described(capsys, "hearts --paired -o paired")
    data = Learn2RegDataset("paired")
    ends = [[Path(pair[key]).name.split("_") for key in ("moving", "fixed")] for pair in data.training_pairs()]
    assert all(moving[0] == fixed[0] and moving[1] != fixed[1] for moving, fixed in ends)
    (left, _) = (Path(pair["moving"]).name[:2] for pair in data.validation_pairs())
    assert {moving[0] for moving, _ in ends} == {f"p{number}" for number in range(6)} - {left}


def test_nothing_to_pair(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save(f"Set/images/case_{number}.nii.gz", image(number))
    with pytest.raises(InputError, match="--paired finds no two subjects with several images"):
        main(["describe", "Set", "--paired"])
    assert not list(Path().rglob("*.json"))


def test_the_folder_above_has_a_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save("scans/a.nii.gz", image(0))
    Path("scans/deeper").mkdir()
    monkeypatch.chdir("scans/deeper")
    described(capsys, "..")
    assert [str(path) for path in Path().rglob("*.json")] == ["datasets/scans/scans_dataset.json"]


@pytest.mark.slow
def test_time(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each step takes six seconds, so that the 64 steps of an epoch take 6.4 minutes."""
    clock = iter(range(0, 6000, 6))
    monkeypatch.setattr(describe.time, "monotonic", lambda: next(clock))
    for number in range(5):
        save(f"Set/images/{number}.nii.gz", image(number))
    lines = described(capsys, "Set --time")
    assert "time: 6.4 minutes an epoch on this machine" in lines
    assert [path.name for path in Path("Set").iterdir()] == ["images"]


class TestProposal:
    """Settings follow the images."""

    FACTS = Facts((100, 100, 50), (1.0, 1.0, 2.0), "RAS", (0.0, 0.0, 0.0), 0.0, (0, 200), (), ())

    def test_ct_is_clipped_to_the_body(self) -> None:
        name, settings = proposal(3, [self.FACTS._replace(lowest=-1024.0, window=(-120, 310))])
        assert (name, settings["window"]) == ("ran", [-120, 310])
        assert "mask_threshold" not in settings

    def test_the_grid_is_one_of_cubic_voxels(self) -> None:
        assert proposal(3, [self.FACTS])[1]["spatial_size"] == [40, 40, 40]

    def test_centers_that_lie_apart(self) -> None:
        near, far = (self.FACTS._replace(center=(x, 0.0, 0.0)) for x in (4.0, 40.0))
        assert proposal(3, [self.FACTS, self.FACTS, near])[1]["initial_alignment"] == "none"
        assert proposal(3, [self.FACTS, self.FACTS, far])[1]["initial_alignment"] == "center"


def test_facts_of_a_ct() -> None:
    values = np.full((10, 10, 10), -1024, dtype=np.int16)
    values[2:8, 2:8, 2:8] = np.arange(216).reshape(6, 6, 6)
    facts = facts_of({"image": save("ct.nii.gz", values, 2.0, 10.0)}, 3)
    assert facts.lowest == -1024.0
    assert facts.window == (4, 211)
    assert facts.spacing == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(facts.center, (10 - 9, 10 + 9, 10 + 9))


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_no_folder(folder: str) -> None:
    Path("file").write_text("")
    with pytest.raises(InputError, match=f"images '{folder}' is no folder"):
        main(["describe", folder])

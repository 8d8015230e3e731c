"""The command that checks a folder of images and proposes how to train on it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_regplugins import describe
from monai_regplugins.bundle_folders import find_bundle
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


ASSUMED = (
    "  assumed: any two images of different subjects are a pair; --paired takes those alone whose names differ in "
    "their last number"
)
OPTIONS = ("dataset_dir", "output_dir", "spatial_size", "window", "label_weight")


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
    assert lines[:9] == [
        "mine: 4 images, 3D, 4 with a label map; read: 4 of 4",
        "  voxels: 16 x 20 x 12",
        "  voxel size (mm): 2 x 2 x 2",
        "  orientation: LAS (4)",
        "  intensities: from 0, most within 1 to 99",
        "  labels: 0, 3",
        "  pairs: 2 to train, 2 to validate, of different subjects",
        ASSUMED,
        "Wrote 'datasets/mine/mine_dataset.json'.",
    ]
    words = shlex.split(lines[-1])
    options = dict(zip(words[5::2], words[6::2], strict=True))
    assert {key: options[f"--{key}"] for key in OPTIONS} == {
        "dataset_dir": "datasets/mine",
        "output_dir": "runs/mine",
        "spatial_size": "[16,20,12]",
        "window": "[]",
        "label_weight": "3",
    }
    assert Path(options["--config_file"]).parts[-3:] == ("ran", "configs", "train.json")
    data = Learn2RegDataset(options["--dataset_dir"])
    assert [Path(entry["label"]).name for entry in data.subjects] == [f"scan{number}.nii.gz" for number in range(4)]
    assert sorted(path.name for path in Path("mine").iterdir()) == [f"scan{number}.nii.gz" for number in range(4)]

    before = Path("datasets/mine/mine_dataset.json").read_bytes()
    again = described(capsys, "mine --labels segs")
    there = "'datasets/mine/mine_dataset.json' is there already, of the same images and pairs."
    assert again == [there if line.startswith("Wrote ") else line for line in lines]
    assert Path("datasets/mine/mine_dataset.json").read_bytes() == before

    assert "Replaced 'datasets/mine/mine_dataset.json', which was of the same images." in described(capsys, "mine")
    assert "label" not in Learn2RegDataset("datasets/mine").subjects[0]
    save("mine/scan4.nii.gz", image(4), 2.0)
    before = Path("datasets/mine/mine_dataset.json").read_bytes()
    with pytest.raises(InputError, match=r"mine_dataset\.json' is there already, of other images; give another folder"):
        main(["describe", "mine"])
    assert Path("datasets/mine/mine_dataset.json").read_bytes() == before


def test_a_file_of_someone_else_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"mine/p{number // 2}_{number % 2}.nii.gz", image(number))
    described(capsys, "mine")
    file = Path("datasets/mine/mine_dataset.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "description": "by hand"}))
    with pytest.raises(InputError, match="is there already, of other images"):
        main(["describe", "mine", "--paired"])


def test_two_folders_of_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The second is refused with a name that is free; the data set and its training are called like -o."""
    for number in range(8):
        save(f"{'ab'[number % 2]}/scans/{number}.nii.gz", image(number))
    described(capsys, "a/scans")
    with pytest.raises(InputError, match="-o datasets/b_scans, or remove it"):
        main(["describe", "b/scans"])
    lines = described(capsys, "b/scans -o datasets/b_scans")
    with pytest.raises(InputError, match="-o datasets/scans_2, or remove it"):
        main(["describe", "b/scans"])
    assert "Wrote 'datasets/b_scans/b_scans_dataset.json'." in lines
    assert "--output_dir runs/b_scans " in lines[-1]


def test_paths_are_without_dots(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        save(f"mine/scan{number}.nii.gz", image(number))
        save(f"segs/scan{number}.nii.gz", np.eye(20, 12, dtype=np.uint8) + np.zeros((16, 1, 1), dtype=np.uint8))
    Path("work").mkdir()
    monkeypatch.chdir("work")
    described(capsys, "../mine --labels ../segs")
    (file,) = Path("datasets").rglob("*.json")
    entries = json.loads(file.read_text())["training"]
    assert {str(Path(path).parent) for entry in entries for path in entry.values()} == {
        str(Path.cwd().parent / name) for name in ("mine", "segs")
    }


def test_a_known_layout_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abcd":
        save(f"Set/images/{name}.nii.gz", image(ord(name), (30, 40, 1)))
    lines = described(capsys, "Set")
    assert lines[0] == "Set: 4 images, 2D, 0 with a label map; read: 4 of 4"
    assert "--dataset_dir Set " in lines[-1]
    assert "bundles/r2n2/configs/train.json" in lines[-1]
    assert lines[-1].endswith("--preset finetune --spatial_size '[32,40]' --max_minutes 60")
    assert any(line.startswith("  preset: starts from published weights") for line in lines)
    assert [path.name for path in Path("Set").iterdir()] == ["images"]


def test_the_pairs_of_a_data_set_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """The json file lists a pair that its layout alone would not make."""
    images = [save(f"Set/imagesTr/Set_{number}_0000.nii.gz", image(number)) for number in range(4)]
    files = [Path(path).relative_to("Set").as_posix() for path in images]
    pair = {"moving": files[2], "fixed": files[3]}
    content = {
        "tensorImageSize": {"0": "3D"},
        "training": [{"image": file} for file in files],
        "registration_val": [pair],
    }
    Path("Set/Set_dataset.json").write_text(json.dumps(content))
    assert "  pairs: 2 to train, 1 to validate, of different subjects" in described(capsys, "Set")
    listed = [{"moving": files[0], "fixed": files[1]}]
    Path("Set/Set_dataset.json").write_text(json.dumps({**content, "training_paired_images": listed}))
    lines = described(capsys, "Set")
    assert "  pairs: 1 to train, 1 to validate, as its json file lists them" in lines
    assert ASSUMED not in lines


def test_pairs_that_a_data_set_has_within_its_subjects(capsys: pytest.CaptureFixture[str]) -> None:
    images = [save(f"Set/imagesTr/Set_{number // 2}_{number % 2}.nii.gz", image(number)) for number in range(4)]
    entries = [{"image": Path(path).relative_to("Set").as_posix()} for path in images]
    content = {"tensorImageSize": {"0": "3D"}, "pairings": "paired", "training": entries}
    Path("Set/Set_dataset.json").write_text(json.dumps(content))
    lines = described(capsys, "Set")
    assert "  pairs: 2 to train, 2 to validate, within each subject" in lines
    assert not [line for line in lines if "--paired" in line]


def test_labels_that_are_broken_or_missing_in_some(capsys: pytest.CaptureFixture[str]) -> None:
    """Label 1 is missing in b, 2 has a fiftieth of its median volume in c, less in d; 7 in e is a stray one."""
    for name in "abcde":
        label = np.zeros((16, 20, 12), dtype=np.uint8)
        label[:2] = name != "b"
        label[8:13] = 2
        save(f"Set/images/{name}.nii.gz", image(ord(name)))
        if name in "cd":
            label[8:13] = 0
            label.reshape(-1)[-24 if name == "c" else -23 :] = 2
        if name == "e":
            label[0, 0, :3] = 7
        save(f"Set/labels/{name}.nii.gz", label)
    (line,) = (line for line in described(capsys, "Set") if "unlike the others" in line)
    assert re.sub(r"'[^']*/(\w)\.nii\.gz'", r"\1", line).partition(": label maps unlike the others: ")[2] == (
        "b without label 1, d with 23 voxels of label 2, e with 3 voxels of label 7"
    )


def test_of_many_broken_labels_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        save(f"Set/images/{number}.nii.gz", image(number))
        save(f"Set/labels/{number}.nii.gz", np.pad(np.ones((2, 2, 2), dtype=np.uint8), ((0, 14), (0, 18), (0, 10))))
    (line,) = (line for line in described(capsys, "Set") if "unlike the others" in line)
    assert line.count("8 voxels of label 1") == 5
    assert line.endswith(", and 3 more")


def refused(capsys: pytest.CaptureFixture[str], words: str) -> tuple[list[str], str]:
    """Run the command in vain; return the lines and the error, after which there is neither a file nor a command."""
    with pytest.raises(InputError) as caught:
        main(["describe", *shlex.split(words)])
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "monai.bundle" in line]
    assert not list(Path().rglob("*.json"))
    return lines, str(caught.value)


def test_what_cannot_be_trained_on_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
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
    Path("Set/images/f.nii.gz").write_text("<html>")
    lines, error = refused(capsys, "Set")
    text = "\n".join(line for line in lines if line.startswith("check: "))
    for part in (
        "a.nii.gz' has a label map that is of no use: fixed label '",
        "a.nii.gz' has an empty label map",
        "b.nii.gz' has a label map of fractions",
        "c.nii.gz' is constant, or holds NaN or infinity",
        "d.nii.gz' is the same file as '",
        "e.nii.gz' has a label map that holds NaN or infinity",
        "f.nii.gz' cannot be read as an image",
        "3 images have no label map, first '",
    ):
        assert part in text
    assert len(text.splitlines()) == 10  # NaN is no whole number, either, and 0.5 counts as 0
    assert re.fullmatch(r"'Set' cannot be trained on: '.*a\.nii\.gz' has .*, and 5 more, see above; mend or .*", error)


@pytest.fixture
def few_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six images the first and the last are read."""
    monkeypatch.setattr(describe, "LOOKED_AT", 2)
    monkeypatch.setattr(describe, "FEW_VOXELS", 0)
    for number in range(6):
        save(f"scans/{number}.nii.gz", image(number))
        save(f"segs/{number}.nii.gz", (image(number) > 50).astype(np.uint8))


@pytest.mark.usefixtures("few_are_read")
def test_how_much_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    first = described(capsys, "scans --labels segs")[0]
    assert first.endswith("6 with a label map; read: 2 of 6, of the others headers and lengths of files")


@pytest.mark.usefixtures("few_are_read")
@pytest.mark.parametrize(
    ("path", "shape", "kept", "message"),
    [
        ("scans/2.nii.gz", (16, 20, 12), 2000, "the file inflates to"),
        ("segs/3.nii.gz", (16, 20, 12), 100, "it is damaged or something else"),
        ("segs/3.nii.gz", (16, 20), None, "has (16, 20, 12) voxels and its label map (16, 20)"),
        ("scans/2.nii.gz", (20, 12), None, "has 2 dimensions, expected 3"),
    ],
    ids=["cut image", "cut label map", "other size", "other dimensions"],
)
def test_damage_in_what_is_not_read(
    capsys: pytest.CaptureFixture[str], path: str, shape: tuple[int, ...], kept: int | None, message: str
) -> None:
    save(path, image(9, shape))
    Path(path).write_bytes(Path(path).read_bytes()[:kept])
    lines, error = refused(capsys, "scans --labels segs")
    assert message in error
    assert any(message in line for line in lines)


def test_label_maps_on_another_grid(capsys: pytest.CaptureFixture[str]) -> None:
    """One that a training brings onto its image is said, one that it refuses is refused."""
    for number in range(4):
        save(f"scans/{number}.nii.gz", image(number))
        save(f"segs/{number}.nii.gz", (image(number) > 50).astype(np.uint8))
    save("segs/1.nii.gz", np.ones((20, 24, 16), dtype=np.uint8), corner=-2.0)
    save("segs/2.nii.gz", np.ones((16, 20, 12), dtype=np.uint8), corner=1.0)  # of the same size
    checks = [line.rpartition("/")[2] for line in described(capsys, "scans --labels segs") if "grid" in line]
    assert checks == [
        "1.nii.gz' has a label map on another grid, of (20, 24, 16) voxels, which is brought onto its own",
        "2.nii.gz' has a label map on another grid, of (16, 20, 12) voxels, which is brought onto its own",
    ]
    save("segs/3.nii.gz", np.ones((16, 20, 12), dtype=np.uint8), corner=500.0)
    with pytest.raises(InputError, match=r"of no use: fixed label '.*3\.nii\.gz' lies outside of the fixed image"):
        main(["describe", "scans", "--labels", "segs"])


def test_pictures_have_to_be_of_the_size_of_their_label_maps() -> None:
    for number, size in enumerate(((16, 20), (16, 20), (16, 21))):
        Path("images").mkdir(exist_ok=True)
        Path("labels").mkdir(exist_ok=True)
        Image.fromarray(image(number, (20, 16)).astype(np.uint8)).save(f"images/{number}.png")
        Image.fromarray(np.ones(size[::-1], dtype=np.uint8)).save(f"labels/{number}.png")
    with pytest.raises(InputError, match=r"2\.png' has \(16, 20\) voxels and its label map \(16, 21\)"):
        main(["describe", "images"])


def test_label_maps_in_the_folder_of_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"mixed/scan{number}.nii.gz", image(number))
        save(f"mixed/scan{number}_seg.nii.gz", (image(number) > 50).astype(np.uint8))
    lines = described(capsys, "mixed")
    assert lines[0] == "mixed: 4 images, 3D, 4 with a label map; read: 4 of 4"
    assert "  label maps: found beside the images, first 'mixed/scan0_seg.nii.gz'" in lines
    assert "--label_weight 3" in lines[-1]
    assert [Path(entry["image"]).name for entry in Learn2RegDataset("datasets/mixed").subjects] == [
        f"scan{number}.nii.gz" for number in range(4)
    ]


def test_label_maps_beside_the_folder_of_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"mr/images/{number}.nii.gz", image(number))
        save(f"mr/labels/{number}.nii.gz", (image(number) > 50).astype(np.uint8))
    lines = described(capsys, "mr/images")
    assert lines[0] == "mr: 4 images, 3D, 4 with a label map; read: 4 of 4"
    assert "  label maps: found beside the images, first 'mr/labels/0.nii.gz'" in lines
    assert not [line for line in described(capsys, "mr/images --labels mr/labels") if "found beside" in line]


def test_swapped_folders(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"scans/{number}.nii.gz", image(number))
        save(f"segs/{number}.nii.gz", (image(number) > 50).astype(np.uint8))
    _, error = refused(capsys, "segs --labels scans")
    assert error.startswith(
        "images and label maps seem to be swapped: an image in 'segs' has 2 different values, its la"
    )
    _, error = refused(capsys, "segs")
    assert error == (
        "'segs' holds label maps: 4 of 4 have 8 different values or fewer; give the folder of the images, and this one "
        "as --labels."
    )
    Path("segs").rename("outlines")
    (line,) = (line for line in described(capsys, "outlines") if line.startswith("check: "))
    assert line.startswith("check: 4 images have 8 different values or fewer, as label maps do, first '")


def test_many_labels_are_not_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"scans/{number}.nii.gz", image(number))
        save(f"segs/{number}.nii.gz", image(number) // 2)
    (line,) = (line for line in described(capsys, "scans --labels segs") if line.startswith("  labels: "))
    assert line.endswith(" 18, 19, ... (51)")


def test_images_in_folders_below(capsys: pytest.CaptureFixture[str]) -> None:
    save("mine/scans/a.nii.gz", image(0))
    save("mine/segs/a.nii.gz", image(0))
    _, error = refused(capsys, "mine")
    assert error == (
        "'mine' holds no images; images lie in its folders 'scans', 'segs': "
        "regplugins describe mine/scans --labels mine/segs"
    )


def test_too_few_images(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        save(f"scans/{number}.nii.gz", image(number))
    _, error = refused(capsys, "scans")
    assert "leaves no pair of images to train on" in error


def test_pairs_within_subjects(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways between the images of each of six subjects; those of one are kept to validate."""
    for number in range(12):
        save(f"hearts/p{number // 2}_{number % 2}.nii.gz", image(number))
    check = "  check: 6 names have several images, such as 'p0_0.nii.gz', 'p0_1.nii.gz'; if a name is a patient, give "
    assert [line for line in described(capsys, "hearts") if "--paired" in line] == [ASSUMED, f"{check}--paired"]
    lines = described(capsys, "hearts --paired")
    assert not [line for line in lines if "--paired" in line]
    assert "  pairs: 10 to train, 2 to validate, within each subject" in lines
    assert "Replaced 'datasets/hearts/hearts_dataset.json', which was of the same images." in lines
    data = Learn2RegDataset("datasets/hearts")
    ends = [[Path(pair[key]).name.split("_") for key in ("moving", "fixed")] for pair in data.training_pairs()]
    assert all(moving[0] == fixed[0] and moving[1] != fixed[1] for moving, fixed in ends)
    (left, _) = (Path(pair["moving"]).name[:2] for pair in data.validation_pairs())
    assert {moving[0] for moving, _ in ends} == {f"p{number}" for number in range(6)} - {left}


def test_no_patient_is_in_both_training_and_validation(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(24):
        save(f"hearts/p{number // 8}_slice{number // 2 % 4}_{number % 2}.nii.gz", image(number, (12, 14)))
    lines = described(capsys, "hearts --paired")
    (line,) = (line for line in lines if "a patient is" in line)
    assert line.startswith("  assumed: a patient is what stands before the last number of a name, such as 'p0_slice0'")
    lines = described(capsys, "hearts --paired --patient p[0-9]+")
    assert not [line for line in lines if "a patient is" in line]
    data = Learn2RegDataset("datasets/hearts")
    patients = [
        {Path(image).name[:2] for pair in pairs for image in (pair["moving"], pair["fixed"])}
        for pairs in (data.training_pairs(), data.validation_pairs())
    ]
    assert [len(found) for found in patients] == [2, 1]
    assert not patients[0] & patients[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--patient p[0-9]+", "--patient is of --paired; give both, or none."),
        ("--paired --patient p[0-9", "--patient 'p[0-9' is no regular expression"),
        (
            "--paired --patient q[0-9]+",
            "--patient 'q[0-9]+' is not in all names, or the same in all, such as 'p0.nii.gz'",
        ),
        ("--paired --patient p", "--patient 'p' is not in all names, or the same in all"),
    ],
)
def test_patients_that_cannot_be_found(capsys: pytest.CaptureFixture[str], options: str, message: str) -> None:
    for number in range(8):
        save(f"hearts/p{number // 2}_{number % 2}.nii.gz", image(number))
    _, error = refused(capsys, f"hearts {options}")
    assert error.startswith(message)


def test_presets_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"hearts/{number}.nii.gz", image(number, (12, 14)))
    assert "  other settings for registering with it: --preset cardiac" in described(capsys, "hearts")


def test_pictures_have_no_mm(capsys: pytest.CaptureFixture[str]) -> None:
    Path("frames").mkdir()
    for number in range(4):
        Image.fromarray(image(number, (16, 20)).astype(np.uint8)).save(f"frames/{number}.png")
    (line,) = (line for line in described(capsys, "frames") if "mm" in line and "check" in line)
    assert line == "check: 4 images are pictures, which state no pixel size: distances in mm count pixels"


def test_nothing_to_pair(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save(f"Set/images/case_{number}.nii.gz", image(number))
    with pytest.raises(InputError, match="--paired finds no two subjects with several images"):
        main(["describe", "Set", "--paired"])
    assert not list(Path().rglob("*.json"))


def test_the_folder_above_has_a_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        save(f"scans/{number}.nii.gz", image(number))
    Path("scans/deeper").mkdir()
    monkeypatch.chdir("scans/deeper")
    described(capsys, "..")
    assert [str(path) for path in Path().rglob("*.json")] == ["datasets/scans/scans_dataset.json"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (6, "6 s a step on this machine: 600 steps, 9.4 epochs of 64, fit into the 60 minutes of the command"),
        (3, "3 s a step on this machine: 768 steps, 12.0 epochs of 64, fit into the 60 minutes of the command"),
    ],
)
def test_time(seconds: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each step takes so long: the 12 epochs of 64 steps are 768."""
    clock = iter(range(0, 1000 * seconds, seconds))
    monkeypatch.setattr(describe.time, "monotonic", lambda: next(clock))
    for number in range(5):
        save(f"Set/images/{number}.nii.gz", image(number))
    lines = described(capsys, "Set --time")
    (line,) = (line for line in lines if line.startswith("time: "))
    hours = f"{768 * seconds / 3600:.1f}"
    assert line == f"time: {said}, less its validations; all 12 epochs take {hours} hours"
    assert [path.name for path in Path("Set").iterdir()] == ["images"]


class TestProposal:
    """Settings follow the images."""

    FACTS = Facts((100, 100, 50), (1.0, 1.0, 2.0), "RAS", (0.0, 0.0, 0.0), 0.0, (0, 200), (), ())

    def test_ct_is_clipped_to_the_body(self) -> None:
        name, settings = proposal(3, [self.FACTS._replace(lowest=-1024.0, window=(-120, 310))])
        assert (name, settings["window"]) == ("ran", [-120, 310])
        assert "mask_threshold" not in settings

    def test_it_starts_from_published_weights_of_similar_images(self) -> None:
        small = self.FACTS._replace(shape=(100, 50, 50))
        ct = self.FACTS._replace(lowest=-1024.0)
        labeled = proposal(3, [small._replace(labels=(0, 1))], labeled=True)[1]
        assert (labeled["ckpt"], labeled["label_weight"]) == ("models/model_hippocampus_labels.pt", 3)
        started = [proposal(3, [one])[1]["ckpt"] for one in (small, self.FACTS._replace(shape=(101, 9, 9)), ct)]
        assert started == ["models/model_hippocampus.pt", "models/model_shapes.pt", "models/model.pt"]
        assert all((find_bundle("ran") / weights).is_file() for weights in started)
        assert "ckpt" not in proposal(2, [self.FACTS._replace(shape=(50, 50), spacing=(1.0, 1.0))])[1]

    def test_the_grid_is_one_of_cubic_voxels(self) -> None:
        assert proposal(3, [self.FACTS])[1]["spatial_size"] == [40, 40, 40]

    def test_centers_that_lie_apart(self) -> None:
        near, far = (self.FACTS._replace(center=(x, 0.0, 0.0)) for x in (4.0, 40.0))
        assert proposal(3, [self.FACTS, self.FACTS, near])[1]["initial_alignment"] == "none"
        assert proposal(3, [self.FACTS, self.FACTS, far])[1]["initial_alignment"] == "center"

    def test_frames_are_extended(self) -> None:
        """The settings of the published hippocampus weights, where a quarter of the images has a frame."""
        framed = self.FACTS._replace(frame=0.5, center=(40.0, 0.0, 0.0))
        many = proposal(3, [framed, self.FACTS, self.FACTS, self.FACTS])[1]
        few = proposal(3, [framed, self.FACTS, self.FACTS, self.FACTS, self.FACTS])[1]
        published = json.loads((find_bundle("ran") / "configs" / "hippocampus.json").read_text())
        keys = ("initial_alignment", "extend_border", "mask_threshold")
        assert {key: many[key] for key in keys} == {key: published[key] for key in keys}
        assert "extend_border" not in few
        assert few["initial_alignment"] == "center"

    def test_labels_drive_a_training_if_there_are_some_everywhere(self) -> None:
        assert proposal(3, [self.FACTS._replace(labels=(0, 2))], labeled=True)[1]["label_weight"] == 3
        assert "label_weight" not in proposal(3, [self.FACTS._replace(labels=(0,))], labeled=True)[1]
        assert "label_weight" not in proposal(3, [self.FACTS._replace(labels=(0, 2))])[1]


def test_a_frame_is_what_is_constant_around_a_full_box() -> None:
    values = np.zeros((10, 10, 10))
    values[2:8, 1:9, :5] = np.arange(1, 241).reshape(6, 8, 5)
    assert facts_of({"image": save("crop.nii.gz", values)}, 3).frame == pytest.approx(0.76)
    values[2:8, 1:9, :5] *= np.random.default_rng(0).random((6, 8, 5)) > 0.2  # air around a body
    assert facts_of({"image": save("body.nii.gz", values)}, 3).frame == 0.0


def test_frames_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(f"crops/{number}.nii.gz", np.pad(image(number) + 1, 4))
    lines = described(capsys, "crops")
    share = round(100 * (1 - 16 * 20 * 12 / (24 * 28 * 20)))
    assert any(f"a constant frame covers {share} % (median) of 4 of 4 images" in line for line in lines)
    assert "--initial_alignment affine --extend_border True " in lines[-1]


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

"""Commands that run a bundle: the same as MONAI's command line does."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from bundle_files import files_of
from dicom_series import write_volume
from in_turn import Done, run_program
from monai.utils import set_determinism
from PIL import Image

from monai_regplugins import commands
from monai_regplugins.checks import InputError, input_error_message
from monai_regplugins.cli import build_parser, main, split_overrides
from monai_regplugins.commands import (
    choose_bundle,
    describe_bundle,
    inference_words,
    list_bundles,
)
from monai_regplugins.data.pair_list import read_pair_list
from monai_regplugins.readers.images import read_scan
from monai_regplugins.readers.phases import Phase

NAMES = ["ran", "r2n2", "regnet"]
TINY = {
    "ran": ["--spatial_size", "[16,16,16]"],
    "r2n2": ["--spatial_size", "[32,32]"],
    "regnet": ["--voxel_size", "4", "--tile", "16"],
}


def scene(size: tuple[int, ...], shift: float = 0.0) -> Any:
    """A ball in noise, in HU."""
    squares = [((x - (n - 1) / 2 - shift) / n) ** 2 for x, n in zip(np.indices(size), size, strict=True)]
    noise = np.random.default_rng(0).normal(size=size) * 10
    return (300 * np.exp(-12 * np.sum(squares, axis=0)) - 150 + noise).astype(np.float32)


def save(file: Path, values: Any) -> str:
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), file)
    return str(file)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[int], tuple[str, str]]:
    """Return a function that writes a pair of 2D or 3D images."""

    def write(spatial_dims: int) -> tuple[str, str]:
        size = (20, 18, 22)[:spatial_dims]
        return save(tmp_path / "fixed.nii.gz", scene(size)), save(tmp_path / "moving.nii.gz", scene(size, 1.5))

    return write


def arguments(words: str) -> tuple[Namespace, list[str]]:
    own, overrides = split_overrides(words.split())
    return build_parser().parse_args(own), overrides


def test_a_command_runs_without_a_look_at_all_sources(
    pair: Callable[[int], tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks = []
    monkeypatch.setattr("fire.core.inspect.stack", lambda *_: looks.append(1) or [])
    words = ["--bundle", "none", "-o", str(tmp_path / "out")]
    seen: list[Any] = []
    monkeypatch.setattr(commands, "run", lambda *of, **given: seen.append((of, given)))
    monkeypatch.setattr(commands, "find_bundle", lambda name: tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    fixed, moving = pair(2)
    commands.run_inference(*arguments(f"register {fixed} {moving} {' '.join(words)} --seed 3 --verbose"))
    assert not looks
    assert seen == [
        (
            ("inference",),
            {
                "config_file": str(tmp_path / "configs" / "inference.json"),
                "fixed": fixed,
                "moving": moving,
                "output_dir": str(tmp_path / "out"),
                "seed": 3,
                "verbose": True,
            },
        )
    ]


@pytest.mark.parametrize("words", ["", "--verbose", "--verbose False", "--verbose=True"])
@pytest.mark.parametrize("packaged", [True, False])
def test_what_monai_tells_about_each_run_is_told_on_request(
    words: str, packaged: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = []

    def run(*of: Any, **given: Any) -> None:
        told.append([logging.getLogger(name).isEnabledFor(logging.INFO) for name in commands.OF_MONAI])
        warnings.warn("parsing config_file a: it is code", stacklevel=2)

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(commands, "find_bundle", lambda name: tmp_path / "ran")
    monkeypatch.setattr(commands, "packaged_bundles", lambda: tmp_path / ("" if packaged else "other"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    is_verbose = words.endswith(("verbose", "True"))
    levels = [logging.getLogger(name).level for name in commands.OF_MONAI]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        commands.run_inference(*arguments(f"batch a.csv -o out --bundle ran {words}"))
    assert bool(found) == (is_verbose or not packaged)
    assert [logging.getLogger(name).level for name in commands.OF_MONAI] == levels
    assert told == [[is_verbose] * len(commands.OF_MONAI)]


# --- which bundle


def in_dicom(folder: Path) -> str:
    write_volume(folder, scene((8, 8, 4)).astype(np.int16), np.eye(4))
    return str(folder)


def in_color(folder: Path) -> str:
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "a.PNG")
    return str(folder / "a.PNG")


def in_meta_image(folder: Path) -> str:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(scene((4, 6, 8))), str(folder / "a.mha"))
    return str(folder / "a.mha")


IMAGES: dict[str, tuple[Callable[[Path], str], str, str]] = {
    "volume": (lambda folder: save(folder / "a.nii.gz", scene((8, 7, 6))), "ran", "3D (8 x 7 x 6)"),
    "MetaImage": (in_meta_image, "ran", "3D (8 x 6 x 4)"),
    "DICOM": (in_dicom, "ran", "a DICOM series"),
    "plane": (lambda folder: save(folder / "a.nii", scene((8, 7))), "r2n2", "2D (8 x 7)"),
    "one sagittal slice": (lambda folder: save(folder / "a.nii", scene((1, 8, 7))), "r2n2", "2D (8 x 7)"),
    "one coronal slice": (lambda folder: save(folder / "a.nii", scene((8, 1, 7))), "r2n2", "2D (8 x 7)"),
    "one slice over time": (lambda folder: save(folder / "a.nii", scene((8, 7, 1, 4))), "r2n2", "2D (8 x 7)"),
    "one slice": (lambda folder: save(folder / "a.nii", scene((8, 7, 1))), "r2n2", "2D (8 x 7)"),
    "volume over no time": (lambda folder: save(folder / "a.nii", scene((8, 7, 6, 1))), "ran", "3D (8 x 7 x 6)"),
    "color": (in_color, "r2n2", "2D (8 x 6)"),
}


@pytest.mark.parametrize(("write", "name", "expected"), IMAGES.values(), ids=IMAGES)
def test_a_bundle_is_chosen_by_the_axes_of_the_fixed_image(
    write: Callable[[Path], str], name: str, expected: str, tmp_path: Path
) -> None:
    chosen, reason = choose_bundle(write(tmp_path))
    assert chosen == name
    assert f"the fixed image is {expected};" in reason


def test_an_image_that_is_not_there_chooses_nothing() -> None:
    with pytest.raises(InputError, match=r"^fixed image 'nowhere.nii' does not exist"):
        choose_bundle("nowhere.nii")


# --- the words that MONAI gets


def test_words_of_a_pair(repository: Path) -> None:
    root = repository / "bundles" / "ran"
    words = inference_words(root, *arguments("register a.nii b.nii -o out --refine_steps 30 --mask m.nii"))
    config = str(root / "configs" / "inference.json")
    expected = f"run inference --config_file {config} --fixed a.nii --moving b.nii --output_dir out"
    assert words == [*expected.split(), "--refine_steps", "30", "--mask", "m.nii"]


def test_words_of_a_list_and_a_preset(repository: Path) -> None:
    root = repository / "bundles" / "ran"
    words = inference_words(root, *arguments("batch pairs.csv -o out --preset hippocampus"))
    config = str(root / "configs" / "inference.json")
    expected = f"run inference --config_file {config} --pairs_file pairs.csv --preset hippocampus --output_dir out"
    assert words == expected.split()


@pytest.mark.parametrize(("bundle", "key"), [("ran", "onto"), ("regnet", "onto"), ("r2n2", "fixed_frame")])
def test_words_of_a_series(bundle: str, key: str, repository: Path) -> None:
    root = repository / "bundles" / bundle
    words = inference_words(root, *arguments("series 4d.nii.gz -o out --onto 3 --cyclic False"))
    files = [str(root / "configs" / f"{name}.json") for name in ("inference", "series")]
    expected = f"--series 4d.nii.gz --{key} 3 --output_dir out --cyclic False"
    assert words == ["run", "inference", "--config_file", str(files), *expected.split()]


def test_a_bundle_without_a_configuration_for_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="registers no series"):
        inference_words(tmp_path, *arguments("series 4d.nii.gz -o out"))


# --- the same results


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Return a function that runs a program of Python and gives what it printed."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(module: str, *words: str, refused: bool = False) -> Done:
        done = run_program(module, words)
        set_determinism(None)
        assert (done.status == 1) == refused, done.errors
        return done

    return run


@pytest.mark.slow
@pytest.mark.bundle
@pytest.mark.parametrize("name", NAMES)
def test_it_writes_what_monai_writes(
    name: str, pair: Callable[[int], tuple[str, str]], program: Any, repository: Path, tmp_path: Path
) -> None:
    fixed, moving = pair(2 if name == "r2n2" else 3)
    options = [*TINY[name], "--initial_alignment", "center", "--formats", "native", "--moving_label", label_of(moving)]
    config = str(repository / "bundles" / name / "configs" / "inference.json")
    words = ["run", "inference", "--config_file", config, "--fixed", fixed, "--moving", moving]
    words += ["--output_dir", str(tmp_path / "theirs"), *options, "--inverse", "True"]
    theirs = program("monai.bundle", *words).errors
    ours = ["register", "--inverse", fixed, moving, "-o", str(tmp_path / "ours"), *options, "--bundle", name]
    assert program("monai_regplugins", *ours).errors == theirs
    folders = [tmp_path / side / "moving_to_fixed" for side in ("ours", "theirs")]
    assert files_of(folders[0]) == files_of(folders[1])
    assert {"displacement.npz", "inverse_displacement.npz", "warped_label.nii.gz"} <= set(files_of(folders[0]))
    contents = [{file: content(folder / file) for file in files_of(folder)} for folder in folders]
    assert [file for file in contents[0] if contents[0][file] != contents[1][file]] == []


def label_of(moving: str) -> str:
    values = (np.asarray(nib.load(moving).dataobj) > 0).astype(np.uint8)  # type: ignore[attr-defined]
    return save(Path(moving).with_name("label.nii.gz"), values)


def content(file: Path) -> Any:
    if file.suffix == ".npz":
        return {name: array.tobytes() for name, array in np.load(file).items()}
    if file.name.endswith(".nii.gz"):
        return np.asarray(nib.load(file).dataobj).tobytes()  # type: ignore[attr-defined]
    if file.name == "provenance.json":
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: value for key, value in found.items() if key not in ("created", "seconds")}
    return file.read_bytes()


@pytest.mark.slow
@pytest.mark.bundle
def test_it_refuses_what_monai_refuses(
    pair: Callable[[int], tuple[str, str]], program: Any, repository: Path, tmp_path: Path
) -> None:
    fixed, moving = pair(3)
    for changes in (["--refine_step", "3"], ["--initial_alignment", "rigit"], ["--moving_label", "nowhere.nii"]):
        ours = program("monai_regplugins", "register", fixed, moving, "-o", "out", *changes, refused=True)
        config = str(repository / "bundles" / "ran" / "configs" / "inference.json")
        words = ["run", "inference", "--config_file", config, "--fixed", fixed, "--moving", moving]
        theirs = program("monai.bundle", *words, "--output_dir", "out", *changes, refused=True)
        assert ours.errors.splitlines()[-1] == theirs.errors.splitlines()[-1]
        assert ours.errors.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
@pytest.mark.bundle
def test_a_list_of_pairs(pair: Callable[[int], tuple[str, str]], program: Any, tmp_path: Path) -> None:
    pair(2)
    rows = "fixed,moving,pair_id\nfixed.nii.gz,moving.nii.gz,one\nmoving.nii.gz,fixed.nii.gz,two\n"
    (tmp_path / "pairs.csv").write_text(rows)
    words = ["batch", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "out"), *TINY["r2n2"]]
    assert program("monai_regplugins", *words).output.startswith(
        "bundle r2n2: the fixed image is 2D (20 x 18); --bundle chooses another one\n"
    )
    assert {"metrics.csv", "report.html", "one/displacement.npz", "two/warped.nii.gz"} <= set(
        files_of(tmp_path / "out")
    )


def test_no_such_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    before, started = list(sys.argv), []
    monkeypatch.setattr(commands, "start", lambda: started.append(1))
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    words = ["register", str(tmp_path / "a.nii"), str(tmp_path / "b.nii"), "-o", str(tmp_path / "out")]
    assert main([*words, "--bundle", "rann"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: there is no bundle 'rann', ")
    assert said.endswith("Did you mean 'ran'?\n")
    assert (sys.argv, started) == (before, [])


# --- the list of bundles


def test_bundles_are_listed(repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert list_bundles() == 0
    text = capsys.readouterr().out
    assert "ran 0.1.0: Deformable registration of 3D images\n" in text
    assert f"  folder: {repository / 'bundles' / 'regnet'}\n" in text
    assert "  presets: hippocampus, hippocampus_labels, shapes, sliding\n" in text
    assert "  presets of a training: finetune, paper, volume\n" in text


def test_a_bundle_without_anything_is_described(tmp_path: Path) -> None:
    lines = describe_bundle(tmp_path).splitlines()
    assert lines[0] == f"{tmp_path.name} (no version): no task is given"
    assert lines[2:4] == ["  weights: none", "  presets: none"]


def test_the_names_of_phases_are_no_formulas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = ["=1+1", "@SUM(A1)", "50%"]
    monkeypatch.setattr("monai_regplugins.data.pair_list.scan_phases", lambda *arguments: phases)
    assert main(["phases", "ct", "--onto", "=1+1"]) == 0
    table = capsys.readouterr().out
    assert [line.split(",")[2:] for line in table.splitlines()[1:]] == [["'=1+1", "'@SUM(A1)"], ["'=1+1", "50%"]]
    (tmp_path / "pairs.csv").write_text(table)
    found = read_pair_list(tmp_path / "pairs.csv")
    assert [(pair["fixed_phase"], pair["moving_phase"]) for pair in found] == [(phases[0], one) for one in phases[1:]]


@pytest.mark.slow
def test_all_phases_of_one_folder_onto_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed list is one that the command for lists takes, phases and all."""
    monkeypatch.chdir(tmp_path)
    for k, phase in enumerate(("0% Ex", "50% In", "100% In")):
        volume = (scene((20, 18, 8), 0.6 * k)).astype(np.int16)
        files = write_volume(tmp_path / "one", volume, np.diag([2.0, 2.0, 4.0, 1.0]), ImageComments=phase)
        for file in files:
            data = pydicom.dcmread(file)
            data.SOPInstanceUID = f"{data.SOPInstanceUID}.{k}"
            (tmp_path / "ct").mkdir(exist_ok=True)
            data.save_as(tmp_path / "ct" / f"{k}{file.name}")
    assert main(["phases", "ct", "--onto", "50%"]) == 0
    table = capsys.readouterr().out
    place = tmp_path / "ct"
    assert table == (
        f"fixed,moving,fixed_phase,moving_phase\n{place},{place},50% In,0% Ex\n{place},{place},50% In,100% In\n"
    )
    Path("pairs.csv").write_text(table)
    assert main(["batch", "pairs.csv", "-o", "out", *TINY["ran"], "--refine_steps", "3", "--device", "cpu"]) == 0
    names = sorted(path.name for path in Path("out").iterdir() if path.is_dir())
    assert names == ["ct_0%-Ex_to_ct_50%-In", "ct_100%-In_to_ct_50%-In"]
    record = json.loads(Path("out", names[0], "provenance.json").read_text())
    assert record["inputs"]["moving_phase"] == "0% Ex"
    warped = nib.load(Path("out", names[0], "warped.nii.gz")).get_fdata()
    fixed = read_scan("ct", "image", phase=Phase("50", "fixed_phase")).values.numpy()
    assert np.corrcoef(warped.ravel(), fixed.ravel())[0, 1] > 0.8
    with pytest.raises(RuntimeError) as error:
        main(["register", "ct", "ct", "-o", "other", *TINY["ran"], "--device", "cpu"])
    assert "choose one with moving_phase" in (input_error_message(error.value) or "")
    words = ["--fixed_phase", "0%", "--moving_phase", "100", *TINY["ran"], "--refine_steps", "0", "--device", "cpu"]
    assert main(["register", "ct", "ct", "-o", "other", *words]) == 0
    assert [path.name for path in Path("other").iterdir()] == ["ct_100_to_ct_0%"]

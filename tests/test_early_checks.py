"""What is wrong with a command line, before PyTorch is imported."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from monai_regplugins.bundle_folders import packaged_bundles, search_folders
from monai_regplugins.early_checks import CHOICES, FILES, early_error
from monai_regplugins.engines.batch_runner import BAD
from monai_regplugins.inferers.refine import TRANSFORMS
from monai_regplugins.losses.instance import SIMILARITIES
from monai_regplugins.readers.points import POINT_SPACES
from monai_regplugins.renamed import VALUES
from monai_regplugins.transforms.initial_alignment import INITIAL_ALIGNMENTS


@pytest.fixture
def args(tmp_path: Path) -> Namespace:
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    return Namespace(bundle="auto", fixed=str(tmp_path / "a.nii"), moving=str(tmp_path / "b.nii"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--refine_steps", "3"],
        ["--refine-steps=3", "--other_patient", "True"],
        ["--prealign", "auto"],  # another name of an option
        ["--inferer#spacing", "2", "--registration::spatial_size", "[8,8,8]"],
        ["--run_id", "inference", "--tracking", "x.json"],  # of monai.bundle
        ["--zzz", "3"],  # unlike any option: what says so is the inference
        ["--steps", "8"],  # of R2N2, which may be chosen
        ["--refine_smoothing", "1e-1", "--window", "[-100, 300]", "--refine_full", "true"],
        ["--window", "[]"],
        ["--uncertainty", "localization", "--refine_steps", "$10 + 2", "--shard", "2/8"],
    ],
)
def test_nothing_is_wrong(words: list[str], args: Namespace) -> None:
    assert early_error(args, words) == ""


def test_options_that_look_like_others_are_mistyped(args: Namespace) -> None:
    assert early_error(args, ["--refin_steps", "3"]).endswith("has no such key. Did you mean 'refine_steps'?")
    args.bundle = "ran"
    assert early_error(args, ["--voxel_size", "2"]).endswith("has no such key. It is an option of the bundle 'regnet'.")
    assert early_error(args, ["--windov=[0,1]"]).startswith("unknown override 'windov', ")
    args.bundle = "rann"
    assert early_error(args, []).startswith("there is no bundle 'rann', ")


@pytest.mark.parametrize(("key", "what"), [("fixed", "fixed image"), ("moving", "moving image")])
def test_missing_images(key: str, what: str, args: Namespace) -> None:
    setattr(args, key, "none.nii")
    assert early_error(args, []) == f"{what} 'none.nii' does not exist; give the path of an existing file."
    assert early_error(Namespace(bundle="ran", pairs_file="x.csv"), []).startswith("list of pairs 'x.csv' does not")


@pytest.mark.parametrize("words", [["--ckpt", "a", "--ckpt=b"], ["--prealign", "a", "--initial-alignment", "b"]])
def test_an_option_given_twice(words: list[str], args: Namespace) -> None:
    assert early_error(args, words).endswith(" is given twice, as 'a' and 'b'; give it once.")


def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    """Nor is its cache folder another one before and after it is."""
    code = """if True:
        import argparse, sys
        from monai_regplugins.bundle_folders import search_folders
        from monai_regplugins.early_checks import early_error
        args = argparse.Namespace(bundle="auto", fixed="none.nii")
        print(early_error(args, []), early_error(argparse.Namespace(bundle="auto"), ["--refin_steps"]))
        print(early_error(argparse.Namespace(bundle="ran"), ["--shard", "9/8"]))
        found = search_folders()
        assert not {"torch", "monai", "SimpleITK"} & sys.modules.keys()
        import torch
        assert search_folders() == found
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "does not exist" in done.stdout
    assert "Did you mean" in done.stdout
    assert packaged_bundles() in search_folders()


def test_series_are_files_and_have_options_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "4d.nii").touch()
    args = Namespace(bundle="regnet", series=str(tmp_path / "4d.nii"))
    assert early_error(args, ["--warm_steps", "3"]) == ""
    assert "harmonics" in early_error(args, ["--harmonic", "3"])
    assert early_error(Namespace(bundle="regnet", series="none.nii"), []).startswith("series 'none.nii' does not exist")


@pytest.mark.parametrize("key", FILES)
def test_files_that_options_name_have_to_exist(key: str, args: Namespace, tmp_path: Path) -> None:
    assert early_error(args, [f"--{key}", args.fixed]) == ""
    for words in ([f"--{key}", "none.nii"], [f"--{key.replace('_', '-')}=none.nii"]):
        assert (
            early_error(args, words)
            == f"{key.replace('_', ' ')} 'none.nii' does not exist; give the path of an existing file."
        )


@pytest.mark.parametrize("key", list(CHOICES))
def test_values_are_some_of_those_that_there_are(key: str, args: Namespace) -> None:
    """They are those of the modules that use them."""
    for value in (*CHOICES[key], *VALUES.get(key, {}), "$'x'", "@y"):
        assert early_error(args, [f"--{key}", value]) == ""
    assert f"{key} is 'affin'" in early_error(args, [f"--{key}", "affin"])
    assert early_error(args, ["--prealign", "affin"]).startswith("initial_alignment is 'affin'")


def test_the_choices_are_those_of_the_program() -> None:
    known = {"initial_alignment": INITIAL_ALIGNMENTS, "similarity": ("auto", *SIMILARITIES), "fail_on": BAD}
    known |= {"points_space": POINT_SPACES, "refine_transform": TRANSFORMS}
    assert {key: set(CHOICES[key]) for key in known} == {key: set(values) for key, values in known.items()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refine_levels", "three"], "refine_levels is 'three', expected a number (by default 3)"),
        (["--refine-levels=three"], "refine_levels is 'three', expected a number (by default 3)"),
        (["--refine_full", "perhaps"], "refine_full is 'perhaps', expected true or false"),
        (["--spatial_size", "[a, b]"], "spatial_size is '[a, b]', expected a list of numbers"),
        (["--shard", "9/8"], "shard is '9/8', expected i/n"),
        (["--shard", "first"], "shard is 'first', expected i/n"),
    ],
)
def test_values_are_of_the_kind_of_the_configuration(words: list[str], message: str, args: Namespace) -> None:
    args.bundle = "ran"
    assert early_error(args, words).startswith(message)

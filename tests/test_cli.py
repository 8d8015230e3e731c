"""The command line: what is whose option, and what its help says."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import monai_regplugins
from monai_regplugins import cli, commands, doctor
from monai_regplugins.cli import build_parser, main, split_overrides

KEYS = [*cli.IMAGES, *cli.SETTINGS, *cli.SWITCHES]
WORDS: dict[str, tuple[str, str, str]] = {
    "key and value": ("a.nii --refine_steps 30 b.nii", "a.nii b.nii", "--refine_steps 30"),
    "equals": ("--refine-steps=30 a.nii", "a.nii", "--refine-steps=30"),
    "negative value": ("--mask_threshold -1 a.nii", "a.nii", "--mask_threshold -1"),
    "list": ("--window [-1000,400] a.nii", "a.nii", "--window [-1000,400]"),
    "nested": ("--inferer#learning_rate 0.2 a.nii", "a.nii", "--inferer#learning_rate 0.2"),
    "switch": ("--inverse a.nii", "a.nii", "--inverse True"),
    "switch off": ("--other-patient false a.nii", "a.nii", "--other-patient False"),
    "switch with a retired name": ("--uncertainty weights a.nii", "a.nii", "--uncertainty weights"),
    "switch at the end": ("a.nii --amp", "a.nii", "--amp True"),
    "no value": ("--ckpt --seed 3", "", "--ckpt --seed 3"),
    "option after a key": ("--ckpt -o out", "-o out", "--ckpt"),
    "own": ("--bundle ran -o out --preset=shapes", "--bundle ran -o out --preset=shapes", ""),
    "mistyped": ("--bundel ran a.nii", "a.nii", "--bundel ran"),
}


@pytest.mark.parametrize(("words", "own", "overrides"), WORDS.values(), ids=WORDS)
def test_split_overrides(words: str, own: str, overrides: str) -> None:
    assert split_overrides(words.split()) == (own.split(), overrides.split())


def test_a_path_with_spaces_stays_one_word() -> None:
    assert split_overrides(["my scan.nii", "--mask", "my mask.nii"]) == (["my scan.nii"], ["--mask", "my mask.nii"])


@pytest.mark.parametrize("words", ["--help", "--version", "register --help", "batch --help", "doctor -h", "bundles -h"])
def test_help_and_version_load_no_package(words: str, repository: Path) -> None:
    code = f"""if True:
        import sys
        from monai_regplugins.cli import main
        try:
            main({words.split()!r})
        finally:
            slow = {{"torch", "monai", "numpy", "SimpleITK"}} & sys.modules.keys()
            print("loaded:", sorted(slow), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stderr
    expected = f"regplugins {monai_regplugins.__version__}" if words == "--version" else "usage: regplugins"
    assert done.stdout.startswith(expected)


@pytest.mark.parametrize("bundle", ["ran", "r2n2", "regnet"])
def test_the_help_lists_keys_of_each_bundle(bundle: str, repository: Path) -> None:
    config = json.loads((repository / "bundles" / bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert [key for key in KEYS if key not in config] == []
    assert [key for key in cli.SWITCHES if config[key] is not False] == []


@pytest.mark.parametrize(("command", "keys"), [("register", KEYS), ("batch", [*cli.SETTINGS, *cli.SWITCHES])])
def test_each_option_has_a_line_of_help(command: str, keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args([command, "--help"])
    text = capsys.readouterr().out
    assert [key for key in ("bundle", "preset", "output_dir", *keys) if f"--{key} " not in text] == []


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "the following arguments are required: COMMAND"),
    "no output": (["register", "a.nii", "b.nii"], "the following arguments are required: -o"),
    "one image": (["register", "a.nii", "-o", "out"], "the following arguments are required: MOVING"),
    "three images": (["register", "a", "b", "c", "-o", "out"], "unrecognized arguments: c"),
    "unset variable": (["register", "", "b.nii", "-o", "out"], "argument FIXED: an empty path"),
    "no list": (["batch", "-o", "out"], "the following arguments are required: PAIRS"),
    "unknown": (["warp"], "invalid choice: 'warp'"),
    "mistyped option of a report": (["describe", "a", "--lables", "b"], "--lables b. Did you mean '--labels'?"),
    "cut option of a report": (["describe", "a", "--label", "b"], "--label b. Did you mean '--labels'?"),
    "mistyped option of transforms": (["jacobian", "a.nii", "-o", "b", "--lgo"], "--lgo. Did you mean '--log'?"),
    "own option twice": (["register", "a", "b", "-o", "c", "--output-dir", "d"], "given twice, as 'c' and 'd'; give"),
    "option of a report twice": (["describe", "a", "--labels", "b", "--labels", "c"], "given twice, as 'b' and 'c'"),
    "options of a report": (["doctor", "--seed", "3"], "unrecognized arguments: --seed 3"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


def test_imports_are_not_searched_for_garbage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither while they run nor by any search that follows."""
    states = []

    class Commands:
        @property
        def run_inference(self) -> Callable[..., None]:
            states.append((gc.isenabled(), gc.get_freeze_count() > 0))
            return lambda *_: states.append((gc.isenabled(), gc.get_freeze_count() > 0))

    monkeypatch.setitem(sys.modules, "monai_regplugins.commands", Commands())
    pairs = tmp_path / "pairs.csv"
    pairs.touch()
    gc.unfreeze()
    try:
        assert main(["batch", str(pairs), "-o", "out"]) == 0
        assert states == [(False, False), (True, True)]
    finally:
        gc.unfreeze()


def test_commands_get_their_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").touch()
    monkeypatch.setattr(commands, "run_inference", lambda args, overrides: seen.append((vars(args), overrides)))
    monkeypatch.setattr(commands, "list_bundles", lambda: 3)
    monkeypatch.setattr(doctor, "run_doctor", lambda: 4)
    monkeypatch.setattr(sys, "argv", ["regplugins", "batch", "--seed", "1", "pairs.csv", "-o", "out"])
    assert (main(["bundles"]), main(["doctor"]), main()) == (3, 4, 0)
    assert seen[0][1] == ["--seed", "1"]
    assert {key: seen[0][0][key] for key in ("command", "pairs_file", "output_dir", "bundle", "preset")} == {
        "command": "batch",
        "pairs_file": "pairs.csv",
        "output_dir": "out",
        "bundle": "auto",
        "preset": None,
    }


@pytest.mark.slow
def test_a_reader_that_has_had_enough_is_no_traceback() -> None:
    """As in ``regplugins bundles | head -1``."""
    command = [sys.executable, "-m", "monai_regplugins", "bundles"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # type: ignore[union-attr]
        errors = process.stderr.read()  # type: ignore[union-attr]
    assert (process.returncode, errors) == (1, "")

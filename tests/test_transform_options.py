"""What the help of the commands on transform files says, and which words are refused."""

from __future__ import annotations

import re

import pytest

from monai_regplugins.cli import build_parser, main
from monai_regplugins.io.operations import WRITTEN_FORMS
from monai_regplugins.io.transform_files import READ_FORMATS
from monai_regplugins.transform_options import EXAMPLES, FORMATS, TRANSFORM_COMMANDS


@pytest.mark.parametrize("command", TRANSFORM_COMMANDS)
def test_help_says_directions_and_forms(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert "A transform maps points of the fixed image to the moving image" in text
    assert "points from the fixed image to the moving one" in text
    assert EXAMPLES[command].splitlines()[0] in text


def test_help_lists_every_form() -> None:
    listed = set(re.findall(r"\b[a-z_0-9]+\b", FORMATS))
    assert {*READ_FORMATS, *WRITTEN_FORMS} <= listed


@pytest.mark.parametrize("command", TRANSFORM_COMMANDS)
def test_examples_are_understood(command: str) -> None:
    for line in EXAMPLES[command].splitlines():
        words = line.split()
        assert words[:2] == ["regplugins", command]
        assert build_parser().parse_args(words[1:]).command == command


REFUSED = {
    "apply a.nii -o b.nii": "the following arguments are required: -t",
    "apply a.nii -t b.nii": "the following arguments are required: -o",
    "apply a.nii -t b.nii -o c.nii -i spline": "invalid choice: 'spline'",
    "apply a.nii -t b.nii -o c.nii --points_space mm": "invalid choice: 'mm'",
    "convert a.nii b.nii -o c.nii": "unrecognized arguments: b.nii",
    "inspect": "the following arguments are required: TRANSFORM",
    "jacobian a.nii -o b.nii --logarithm": "unrecognized arguments: --logarithm",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert REFUSED[words] in capsys.readouterr().err

"""Options that are given twice."""

from __future__ import annotations

import pytest

from monai_regplugins.given_once import OptionParser, given_twice


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run training --seed 1 --max_epochs 2", ""),
        ("--loss#a 1 --loss#b 1 --window -1 -1", ""),
        ("--seed 1 --amp --seed=2", "--seed is given twice, as '1' and '2'; give it once."),
        ("--refine-steps 1 --refine_steps", "--refine_steps is given twice, as '1' and ''; give it once."),
        ("--forms a --formats b", "--formats is given twice, as 'a' and 'b'; give it once."),
    ],
)
def test_words(words: str, expected: str) -> None:
    assert given_twice(words.split()) == expected


class TestParser:
    """What is not refused is as ``argparse`` has it."""

    @pytest.fixture
    def parser(self) -> OptionParser:
        """A parser with options of all kinds, below a command too."""
        parser = OptionParser()
        for place in (parser, parser.add_subparsers().add_parser("go")):
            place.add_argument("-n", "--number", type=int, default=3)
            place.add_argument("--several", nargs="+", default=[])
            place.add_argument("--again", action="append")
            place.add_argument("--switch", action="store_true")
        return parser

    def test_once(self, parser: OptionParser) -> None:
        words = "--several a b --again c --again d --switch --switch -n 3"
        for _ in range(2):
            found = parser.parse_args(words.split())
        assert (found.number, found.several, found.again, found.switch) == (3, ["a", "b"], ["c", "d"], True)

    @pytest.mark.parametrize("words", ["-n 1 --number 2", "go -n 1 -n 2", "--several a --several b", "-n 3 -n 4"])
    def test_twice(self, words: str, parser: OptionParser, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(words.split())
        assert "is given twice, as '" in capsys.readouterr().err

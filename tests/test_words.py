"""The field's words: names and phrases that were retired come back nowhere in the package, configurations and pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RETIRED = {  # and what to write instead
    r"prealign\w*|pre-alignment": "initial alignment",
    r"moments_matrix": "center_of_mass_matrix",
    r"MovingToFixedGridd": "ResampleToFixedd",
    r"--forms|[\"'@]forms\b|\bforms=|\bFORMS\b|\bFieldForm\b|\bform_of\b|io[./]forms": "formats",
    r"\btold\b|\btells?\b|\btelling\b": "reports, states, specifies, shows",
    r"\bpeers?\b|\brivals?\b|\bcontenders?\b": "baselines, methods",
    r"\bRegistered\b": "RegistrationResult",
    r"known_(?:ddf|warp|motion|truth|displacement)": "has_true_ddf, synthetic_warp, synthetic_motion, ground_truth",
    r"PairQueue|pair_queue": "BatchRunner",
    r"\bstrangers?\b": "installation, user",
    r"\bspoil(?:s|ed)?\b": "corrupted",
}
TABLE = "monai_regplugins/renamed.py"  # of the old option names
FOLDERS = ("monai_regplugins", "bundles", "docs", "benchmarks", ".ci")
PAGES = ("README.md", "CONTRIBUTING.md", "pyproject.toml")
SUFFIXES = {".py", ".json", ".md", ".toml", ".yaml", ".conf", ".html", ""}


def written() -> dict[str, str]:
    """The files of the repository that people and programs read, by name."""
    files = [*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")), *(ROOT / page for page in PAGES)]
    read = [path for path in files if path.is_file() and path.suffix in SUFFIXES]
    made = re.compile(r"__pycache__|/reference/generated/|docs/_build|/(?:data|eval|runs|output)/|LICENSE$")
    names = {path.relative_to(ROOT).as_posix(): path for path in read}
    return {name: path.read_text(encoding="utf-8") for name, path in names.items() if not made.search(name)}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: text for name, text in written().items() if name != TABLE}


@pytest.mark.parametrize("pattern", RETIRED)
def test_retired_words_do_not_come_back(pattern: str, texts: dict[str, str]) -> None:
    assert len(texts) > 250, "the files are not where they were"
    found = [
        f"{name}:{number}: {line.strip()}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == [], f"write instead: {RETIRED[pattern]}"

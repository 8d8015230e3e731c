"""The pages of the documentation: links, names, pictures and options are those of the repository."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("bundles/*/docs/*.md")])
MADE_BY_SPHINX = DOCS / "reference" / "generated"
FENCE = re.compile(r"^(```+).*?^\1 *$", re.MULTILINE | re.DOTALL)


def relative(path: Path) -> str:
    """Name a page in a test id."""
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def reference_pages() -> ModuleType:
    """Import the part of the site's configuration that writes the reference pages."""
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "monai_regplugins").rglob("*.py")), ids=relative)
def test_docstrings_are_in_one_markup(path: Path) -> None:
    """Shapes with a star are literals, for Sphinx takes the star for emphasis; so is code, in two backticks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    text = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    marked = re.compile(r"^ *>>> .*|``(?:[^`]|`(?!`))+``|:[\w:]+:`[^`]+`|`[^`<]+<[^`]+>`_", re.MULTILINE)
    assert re.findall(r"\([^()]*\*\w[^()]*\)|`.*", marked.sub("", text)) == []


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site give the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    texts = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def links(page: Path) -> Iterator[str]:
    """Yield the links and pictures of a page that lead to files of the repository, or within the page."""
    for target in re.findall(r"\]\(([^()\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not re.match(r"[a-z]+:", target):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """On GitHub as on the site: to files of the repository, and to headings that they have."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_file(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=relative)
def test_the_site_has_what_its_pages_link(page: Path) -> None:
    """A page of the site cannot lead out of its folder."""
    assert [target for target in links(page) if DOCS not in (page.parent / target).resolve().parents] == []


def test_every_page_is_in_the_contents() -> None:
    listed = set(re.findall(r"^([\w/.-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    assert pages <= listed
    assert {name for name in listed - pages if not name.startswith("reference/generated/")} == set()


def named(page: Path) -> list[str]:
    """Return the names of the package that a page refers to."""
    return re.findall(r"\{py:\w+\}`~?([\w.]+)`", page.read_text(encoding="utf-8"))


def found(name: str) -> Any:
    """Import a module, or what it defines."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            value: Any = import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            value = getattr(value, word)
        return value
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", [path for path in PAGES if named(path)], ids=relative)
def test_names_on_a_page_can_be_imported(page: Path) -> None:
    for name in named(page):
        assert callable(found(name)), name


def test_a_wrong_name_is_noticed() -> None:
    for name in ("monai_regplugins.fields.unwarp", "monai_regplugin.fields"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            found(name)


def test_the_code_behind_the_papers_is_one_click_away() -> None:
    """What a reader new to the code looks for first."""
    page = (DOCS / "concepts" / "where-is-it.md").read_text(encoding="utf-8")
    for text in (
        "RAN, Eq. 12",
        "one recurrent step",
        "applied densely",
        "Instance optimization",
        "Writer of the field",
    ):
        (line,) = [line for line in page.splitlines() if line.startswith("|") and text in line][:1]
        assert "{py:" in line


def test_the_gallery_shows_every_picture() -> None:
    shown = set(re.findall(r"\]\(images/([^)]+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8")))
    assert shown == {path.name for path in (DOCS / "images").iterdir()}


def test_every_option_is_described_once(reference_pages: ModuleType) -> None:
    described = [key for options in reference_pages.descriptions().values() for key in options]
    configured = {key for kind in ("inference", "evaluate", "train") for key in reference_pages.options_of(kind)}
    assert sorted(described) == sorted(configured)


def test_the_reference_has_every_public_name(reference_pages: ModuleType, tmp_path: Path) -> None:
    reference_pages.write_api(tmp_path)
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    for part in ("losses", "networks.nets", "fields", "transforms"):
        module = import_module(f"monai_regplugins.{part}")
        names = re.findall(rf":: {module.__name__}\.(\w+)$", pages[module.__name__], re.MULTILINE)
        assert [name for name in module.__all__ if name not in names] == []
    assert "monai_regplugins.apps" not in " ".join(pages)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command on a page that runs a bundle's configuration, shell variables filled in."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    variables: dict[str, str] = {}
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line.strip()):
            variables[assigned[1]] = assigned[2]
        elif "monai.bundle" in line or re.match(r"\s*\$[A-Z]", line):
            words = [part for word in shlex.split(line) for part in variables.get(word.lstrip("$"), word).split()]
            if "run" in words:
                yield words[words.index("run") :]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_programs_on_a_page_exist(page: Path) -> None:
    text = "" if page.name == "CHANGELOG.md" else page.read_text(encoding="utf-8")  # history names those of its time
    for name in re.findall(r"python (?:-P )?-m (monai_regplugins[\w.]*)", text):
        module = ROOT.joinpath(*name.split("."))
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), name
    for script in re.findall(r"python ((?:benchmarks|docs)/\S+\.py)", text):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_names_that_a_page_imports_exist(page: Path) -> None:
    """In commands too, which no other test runs."""
    text = "" if page.name == "CHANGELOG.md" else page.read_text(encoding="utf-8")
    for module, names in re.findall(r"from (monai_regplugins[\w.]*) import ([\w, ]+)", text):
        if not module.startswith("monai_regplugins.apps"):  # their packages are installed where they run
            there = import_module(module)
            assert [name for name in re.findall(r"(?:^|,)\s*(\w+)", names) if not hasattr(there, name)] == [], module


def configured_keys(words: list[str], folder: Path) -> set[str]:
    """Return the top-level keys of the configurations that a command names, a reader's own ``own_*.json`` aside."""
    named = words[words.index("--config_file") + 1]
    files = ast.literal_eval(named) if named.startswith("[") else [named]
    return {
        key
        for file in files
        if not file.startswith("own_")
        for key in json.loads((folder / file).read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("page", [path for path in PAGES if any(commands(path))], ids=relative)
def test_commands_on_a_page_have_their_options(page: Path) -> None:
    folder = page.parents[1] if page.is_relative_to(ROOT / "bundles") else ROOT  # the page of a bundle or of all
    for words in commands(page):
        keys = configured_keys(words, folder) | {"config_file"}
        options = [word.removeprefix("--").partition("#")[0] for word in words if re.match(r"--\w", word)]
        assert [option for option in options if option not in keys] == [], words

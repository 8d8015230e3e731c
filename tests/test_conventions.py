"""Conventions of the repository that no linter knows."""

from __future__ import annotations

import ast
import importlib
import json
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from monai.bundle.config_item import ComponentLocator

import monai_regplugins

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "monai_regplugins"
MODULES = sorted(PACKAGE.rglob("*.py"))
PLAIN_MODULES = [path for path in MODULES if path.name != "__init__.py"]
JSON_FILES = sorted([*ROOT.glob("bundles/*/configs/*.json"), *ROOT.glob("models/*.json")])
METADATA_FILES = sorted(ROOT.glob("bundles/*/configs/metadata.json"))

LAYERS = [
    {
        "bundle_folders",
        "checks",
        "environment",
        "fields",
        "files",
        "given_once",
        "grids",
        "inversion",
        "keys",
        "lazy",
        "memory",
        "option_values",
        "renamed",
    },
    {"losses", "metrics", "networks", "optimizers", "readers"},
    {"io", "phantoms", "transforms"},
    {"verdict"},
    {"figures"},
    {"data", "result", "settings", "synthesis"},
    {"inferers", "outputs"},
    {"engines", "handlers", "series"},
    {"bundle"},
    {"training"},
    {"apps", "benchmark", "registration", "release"},
    {"commands", "describe", "doctor", "early_checks", "register_transform", "transform_commands", "transform_options"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {part: height for height, parts in enumerate(LAYERS) for part in parts}


def relative(path: Path) -> str:
    """Name a file in a test id."""
    return path.relative_to(ROOT).as_posix()


def part_of(path: Path) -> str:
    """Return the top-level module or subpackage that holds a file."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path: Path) -> set[str]:
    """Return the other parts of the package that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} line {node.lineno}: write the import in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    words = [name.split(".") for name in names]
    own = [word[1] if len(word) > 1 else "__init__" for word in words if word[0] == PACKAGE.name]
    return {name if name in LAYER_OF else "__init__" for name in own} - {part_of(path)}


def public_definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Yield the public classes and functions that a module defines."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def test_each_part_of_the_package_has_a_layer() -> None:
    assert {part_of(path) for path in MODULES} <= set(LAYER_OF)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_down(path: Path) -> None:
    above = {part for part in imported_parts(path) if LAYER_OF[part] > LAYER_OF[part_of(path)]}
    assert not above, f"{relative(path)} imports from a layer above its own"


def test_imports_do_not_go_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        graph.setdefault(part_of(path), set()).update(imported_parts(path))
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, monai_regplugins; print(*sorted(m for m in sys.modules if m.startswith(('monai', 'torch'))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["monai_regplugins", "monai_regplugins.environment"]


def test_tests_mirror_the_package() -> None:
    expected = {path.relative_to(PACKAGE).with_name(f"test_{path.name}").as_posix() for path in PLAIN_MODULES}
    found = {path.relative_to(ROOT / "tests").as_posix() for path in ROOT.glob("tests/**/test_*.py")}
    about_the_repository = {
        "test_architecture.py",
        "test_benchmarks.py",
        "test_conventions.py",
        "test_docs.py",
        "test_examples.py",
        "test_notebook.py",
        "test_packaging.py",
        "test_words.py",
    }
    found = {name for name in found - about_the_repository if not name.startswith("bundles/")}
    assert sorted(expected - found) == [], "modules without a test file"
    assert sorted(found - expected) == [], "test files without a module"


def test_no_public_name_exists_in_monai() -> None:
    locator = ComponentLocator(excludes=[PACKAGE.name])
    assert locator.get_component_module_name("Warp") is not None, "MONAI's table is not what it was"
    # fields.resize is called through its module; MONAI's resize is the inside of a transform, with its lazy state as
    # arguments, so that no configuration targets either of them by the short name
    names = {node.name for path in MODULES for node in public_definitions(path)} - {"resize"}
    assert {name: found for name in names if (found := locator.get_component_module_name(name))} == {}


def test_short_names_resolve() -> None:
    importlib.import_module(f"{PACKAGE.name}.checks")  # MONAI looks at modules that are loaded
    assert ComponentLocator().get_component_module_name("InputError") == f"{PACKAGE.name}.checks"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_public_names_are_documented(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))
    public: list[Any] = list(public_definitions(path))
    methods = [
        item
        for node in public
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
    ]
    assert [
        getattr(node, "name", "module") for node in [module, *public, *methods] if not ast.get_docstring(node)
    ] == []


@pytest.mark.parametrize("path", JSON_FILES, ids=relative)
def test_targets_of_configurations_exist(path: Path) -> None:
    targets = set(re.findall(r'"_target_": "(monai_regplugins\.[\w.]+)"', path.read_text(encoding="utf-8")))
    assert {target for target in targets if pydoc.locate(target) is None} == set()


@pytest.mark.parametrize("path", JSON_FILES, ids=relative)
def test_canonical_json(path: Path) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert sorted(keys) == sorted(set(keys)), "a key appears twice"
        return dict(pairs)

    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text, object_pairs_hook=unique), indent=4) + "\n"


def test_the_version_is_written_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", monai_regplugins.__version__)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'version = { attr = "monai_regplugins.__version__" }' in project
    assert not re.search(r'^version = "', project, re.MULTILINE)


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{monai_regplugins.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", METADATA_FILES, ids=relative)
def test_bundles_require_this_version(path: Path) -> None:
    required = json.loads(path.read_text(encoding="utf-8"))["required_packages_version"]
    by_name = {name.replace("-", "_"): version for name, version in required.items()}
    assert by_name[PACKAGE.name] == monai_regplugins.__version__


def test_no_file_names_a_private_path() -> None:
    suffixes = {".py", ".md", ".json", ".toml", ".yml", ".yaml", ".conf", ".txt", ""}
    private = re.compile(r"(?<![\w.:/])/(?:work|root|mnt|Users)/\w")
    generated = re.compile(
        r"\.git/|\.venv|\.egg-info|_cache/|__pycache__|^(?:build|dist|out|output\w*|runs)/|"
        r"/(?:data|eval|runs|output)/.+\.json$"
    )
    files = [path for path in ROOT.rglob("*") if path.suffix in suffixes and path.is_file()]
    texts = {relative(path): path for path in files if not generated.search(relative(path))}
    assert "README.md" in texts or "LICENSE" in texts
    named = [name for name, path in texts.items() if private.search(path.read_text(encoding="utf-8", errors="ignore"))]
    assert named == []

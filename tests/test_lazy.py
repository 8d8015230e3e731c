"""Packages whose names are imported when they are asked for: what is said three times says the same."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import monai_regplugins
from monai_regplugins.lazy import export_on_demand, postponed_imports

PACKAGE = Path(monai_regplugins.__file__).parent
LAZY = [
    path for path in sorted(PACKAGE.rglob("__init__.py")) if "export_on_demand(" in path.read_text(encoding="utf-8")
]


def module_name(path: Path) -> str:
    """Return the dotted name of a package."""
    return ".".join((PACKAGE.name, *path.parent.relative_to(PACKAGE).parts))


def modules_by_name(path: Path) -> dict[str, str]:
    """Return which module each name comes from, as the package declares it to type checkers and Python."""
    inner = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    found = {alias.name: str(node.module) for node in inner for alias in node.names}
    return {name: module for name, module in found.items() if module.startswith(f"{module_name(path)}.")}


def test_most_packages_are_lazy() -> None:
    assert {"data", "handlers", "io", "metrics", "transforms"} <= {path.parent.name for path in LAZY}


@pytest.mark.parametrize("path", LAZY, ids=module_name)
def test_public_names_are_those_of_their_modules(path: Path) -> None:
    package, modules = importlib.import_module(module_name(path)), modules_by_name(path)
    assert sorted(modules) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name, module in modules.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
        assert not isinstance(getattr(package, name), ModuleType), "a module hides a name"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package of two modules, of which one cannot be imported."""
    folder = tmp_path / "sample_package"
    folder.mkdir()
    text = "from monai_regplugins.lazy import export_on_demand\nexport_on_demand(__name__, good=['one'], bad=['two'])\n"
    for name, content in {"__init__": text, "good": "one = object()", "bad": "raise ImportError('no')"}.items():
        (folder / f"{name}.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("sample_package")
    for name in [name for name in sys.modules if name.startswith("sample_package")]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_asked_for(package: ModuleType) -> None:
    assert "sample_package.good" not in sys.modules
    assert {"one", "two"} <= set(dir(package))
    assert package.one is importlib.import_module("sample_package.good").one
    with pytest.raises(ImportError, match="no"):
        _ = package.two


def test_other_names_are_no_attributes(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'sample_package' has no attribute 'three'"):
        _ = package.three
    with pytest.raises(KeyError):
        export_on_demand("no_such_package", module=["name"])


NEEDED = (  # by the inference of two volumes, beside what MONAI imports itself
    "data.given",
    "engines.batch_runner",
    "engines.pair_registration",
    "engines.prepare_batch",
    "handlers.checkpoint",
    "outputs.registration_writer",
    "outputs.report",
    "inferers.refine",
    "losses.weighted_sum",
    "networks.nets.ran",
    "transforms.load",
    "transforms.prepare",
)
UNUSED = (
    "SimpleITK",
    *(f"{PACKAGE.name}.{name}" for name in ("phantoms.thorax", "phantoms.abdomen", "readers.cine", "benchmark")),
)


@pytest.mark.slow
def test_an_inference_imports_no_phantoms_and_no_simpleitk() -> None:
    modules = ", ".join(f"{PACKAGE.name}.{name}" for name in NEEDED)
    code = f"import sys, {PACKAGE.name}.data, {modules}; print(*[name for name in {UNUSED!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout.split() == []


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module with a class and a function."""
    text = "class Known:\n    colors = ('red',)\n\n\ndef double(x, *, plus=0):\n    return 2 * x + plus\n"
    (tmp_path / "other_package.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "other_package", raising=False)
    return "other_package"


def test_names_of_a_postponed_module_import_it_when_they_are_called(other_package: str) -> None:
    with postponed_imports(other_package):
        stand_in = importlib.import_module(other_package)
        double, known = stand_in.double, stand_in.Known
        assert not hasattr(stand_in, "__version__")
        assert not isinstance("anything", known)
    assert other_package not in sys.modules
    assert double(3, plus=1) == 7
    assert known.colors == ("red",)
    assert not hasattr(known, "shapes")
    real = importlib.import_module(other_package)
    assert real is not stand_in
    assert isinstance(known(), real.Known)


def test_a_postponed_name_that_is_called_at_once(other_package: str) -> None:
    with postponed_imports(other_package):
        assert importlib.import_module(other_package).double(3) == 6
        assert other_package in sys.modules
    assert importlib.import_module(other_package).double(2) == 4, "what was imported stays"


def test_an_imported_module_is_not_postponed(other_package: str) -> None:
    real = importlib.import_module(other_package)
    with postponed_imports(other_package):
        assert importlib.import_module(other_package) is real
    assert sys.modules[other_package] is real


@pytest.mark.slow
def test_a_registration_starts_without_what_it_never_uses(repository: Path) -> None:
    """And what was postponed can be imported afterwards."""
    code = """if True:
        import sys
        from monai_regplugins.cli import UNUSED
        from monai_regplugins.lazy import postponed_imports
        with postponed_imports(*UNUSED):
            import monai_regplugins.commands
        from ignite.handlers import Checkpoint
        from monai.transforms.signal.array import iirnotch
        unused = {*UNUSED, "torch.distributed.fsdp"}
        assert not unused & sys.modules.keys(), unused & sys.modules.keys()
        filters = iirnotch(0.3, 30.0)
        import scipy.signal
        from torch.distributed.optim import ZeroRedundancyOptimizer
        assert all((ours == theirs).all() for ours, theirs in zip(filters, scipy.signal.iirnotch(0.3, 30.0)))
        assert len(ZeroRedundancyOptimizer.__mro__) > 2
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

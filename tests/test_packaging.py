"""The source archive and the wheel, and how long an import takes."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import textwrap
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from package_source import copy_source
from packaging.requirements import Requirement

WRITTEN_BY_RUNS = (
    "bundles/ran/data/abdomen/imagesTr/a.nii.gz",
    "bundles/ran/runs/train/models/model.pt",
    "bundles/ran/output/a_to_b/metrics.json",
    "bundles/ran/eval/metrics.csv",
    "bundles/ran/models/checkpoint.pt",
    "bundles/ran/models/model_last.pt",
    "bundles/ran/models/model.ts",
    "bundles/mine/configs/notes.txt",
)


def python(*words: str, folder: Path) -> str:
    """Run Python in a folder and return what it printed."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tracked(repository: Path, folder: str) -> list[str]:
    """Name the files of a folder that belong to the repository."""
    done = subprocess.run(["git", "ls-files", folder], cwd=repository, capture_output=True, text=True, check=False)
    if not done.stdout:
        pytest.skip("needs a clone of the repository, to know which files belong to it")
    return done.stdout.splitlines()


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    """A copy of what the package is made of."""
    pytest.importorskip("setuptools", minversion="77", reason="builds without an index")
    return copy_source(repository, tmp_path / "source")


@pytest.mark.slow
def test_a_wheel_out_of_the_source_archive_is_that_of_the_source(
    source: Path, repository: Path, tmp_path: Path
) -> None:
    for name in WRITTEN_BY_RUNS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    build = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"

    def built(kind: str, folder: Path) -> Path:
        return tmp_path / python("-c", build, f"build_{kind}", str(tmp_path), folder=folder).split()[-1]

    wheel = built("wheel", source)
    with zipfile.ZipFile(wheel) as archive:
        direct = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        licence = any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    expected = {str(p.relative_to(source)) for p in (source / "monai_regplugins").rglob("*.py")}
    data = {f"monai_regplugins/{name}" for name in ("py.typed", "apps/deploy/app.yaml", "apps/deploy/requirements.txt")}
    bundles = {f"monai_regplugins/{name}" for name in tracked(repository, "bundles")}
    assert set(direct) == expected | data | bundles
    assert licence

    with tarfile.open(built("sdist", source)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel.unlink()
    with zipfile.ZipFile(built("wheel", unpacked)) as archive:
        assert {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name} == direct


@pytest.mark.slow
def test_the_import_takes_less_than_a_second_beyond_monai(repository: Path) -> None:
    code = """
        import time, monai.bundle
        start = time.process_time()
        import monai_regplugins
        print(time.process_time() - start)
    """
    assert min(float(python("-c", textwrap.dedent(code), folder=repository)) for _ in range(2)) < 1.0


@pytest.mark.parametrize("app", ["label", "deploy"])
def test_containers_are_pinned_and_run_without_rights(app: str, repository: Path) -> None:
    pins = (repository / "containers" / f"{app}.txt").read_text(encoding="utf-8").split()
    pinned = {name.lower(): version for name, version in (pin.split("==") for pin in pins)}
    for need in map(Requirement, requires("monai-regplugins") or []):
        if need.marker is None or need.marker.evaluate({"extra": app}):
            assert need.specifier.contains(pinned[need.name.lower()]), need
    text = (repository / "containers" / f"{app}.Containerfile").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert all(":3.11.14-" in line for line in lines if line.startswith("FROM"))
    assert [line for line in lines if line.startswith("USER")] == ["USER 4711:4711"]
    assert "exec " in lines[-1]  # the program itself gets the signal that stops a container
    assert f"torch=={pinned['torch']}" in text

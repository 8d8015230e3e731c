"""Settings of an application, and the files beside it that make a container of it."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigParser
from packaging.requirements import Requirement

import monai_regplugins
from monai_regplugins.apps.deploy.inputs import ROLES
from monai_regplugins.apps.deploy.settings import APP_YAML, AppPaths, exit_status, read_settings
from monai_regplugins.apps.deploy.tags import OBJECTS
from monai_regplugins.checks import InputError
from monai_regplugins.verdict.judge import LEVELS

from .conftest import Run

MANIFESTS = """
import sys
from pathlib import Path
from holoscan_cli.packager.config_reader import ApplicationConfiguration
from holoscan_cli.packager.parameters import PackageBuildParameters

config, parameters = ApplicationConfiguration(), PackageBuildParameters()
config.read(Path(sys.argv[1]) / "app.yaml")
for name in ("dicom_app.py", "nifti_app.py"):
    parameters.application = Path(sys.argv[1]) / name
    reported = config.populate_app_manifest(parameters)
    resources = config.populate_package_manifest(parameters).resources
    print(config.title(), reported.version, reported.command, parameters.requirements_file_path.name, resources["gpu"])
"""


@pytest.fixture
def paths(tmp_path: Path) -> AppPaths:
    """An application's context, its model a bundle."""
    (tmp_path / "ran" / "configs").mkdir(parents=True)
    (tmp_path / "ran" / "configs" / "inference.json").touch()
    return SimpleNamespace(input_path="in", output_path="out", model_path=str(tmp_path))


@pytest.fixture(autouse=True)
def _no_other_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLOSCAN_CONFIG_PATH", raising=False)


def test_the_settings_of_the_package(paths: AppPaths) -> None:
    settings = read_settings(paths)
    assert (settings.input_folder, settings.output_folder) == (Path("in"), Path("out"))
    assert settings.bundle == Path(paths.model_path) / "ran"
    assert settings.registration == {"initial_alignment": "auto", "other_patient": False, "fail_on": "fail"}
    assert settings.tags == OBJECTS
    assert [rule["name"] for rule in settings.selections] == list(ROLES)
    for rule in settings.selections:
        assert all(re.compile(pattern) for pattern in rule["conditions"].values())


def test_a_file_of_ones_own(paths: AppPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "app.yaml"
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(file))
    with pytest.raises(InputError, match=r"application configuration '.*app.yaml' does not exist"):
        read_settings(paths)
    file.write_text("registration: {refine_steps: 3}")
    settings = read_settings(paths)
    assert settings.registration == {"initial_alignment": "auto", "refine_steps": 3}
    assert settings.selections == []
    assert (settings.tags, settings.fail_on) == (OBJECTS, "fail")
    file.write_text("registration: {prealign: none, fail_on: warn}\ntags: {registration: {SeriesNumber: 5}}")
    settings = read_settings(paths)
    assert settings.registration == {"initial_alignment": "none", "fail_on": "warn"}
    assert settings.tags["registration"] == {"SeriesDescription": "Deformable registration", "SeriesNumber": 5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registration: {fail_on: always}", "fail_on"),
        ("tags: {registration: {SeriesNumbr: 5}}", "no keyword 'SeriesNumbr'.*Did you mean 'SeriesNumber'"),
    ],
)
def test_settings_that_are_wrong(
    paths: AppPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "app.yaml").write_text(text)
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(tmp_path / "app.yaml"))
    with pytest.raises(InputError, match=message):
        read_settings(paths)


def test_the_exit_status_says_what_is_to_be_thought_of_the_results() -> None:
    bad = {fail_on: [exit_status(level, fail_on) for level in LEVELS] for fail_on in ("never", "fail", "warn")}
    assert bad == {"never": [0, 0, 0], "fail": [0, 0, 3], "warn": [0, 3, 3]}


@pytest.mark.parametrize("text", ["registration: {", "- 1", "registration: 3", "selections: [fixed]", "tags: 3"])
def test_a_damaged_file(paths: AppPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "app.yaml").write_text(text)
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(tmp_path / "app.yaml"))
    with pytest.raises(InputError, match=r"configuration '.*app.yaml' cannot be read \(.+\); correct it\.$"):
        read_settings(paths)


def test_the_application_has_the_version_of_the_package() -> None:
    assert ConfigParser.load_config_file(APP_YAML)["application"]["version"] == monai_regplugins.__version__


def test_the_pins_are_versions_that_the_package_takes() -> None:
    lines = APP_YAML.with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {pin.name: pin.specifier for line in lines if line[0] != "#" for pin in [Requirement(line)]}
    assert {"monai-regplugins", "monai-deploy-app-sdk", "holoscan-cu13", "pydicom", "highdicom"} <= pins.keys()
    needed = {need.name: need.specifier for text in requires("monai-regplugins") or [] if (need := Requirement(text))}
    (monai,) = pins["monai"]
    assert needed["monai"].contains(monai.version)


@pytest.mark.deploy
def test_the_packager_reads_the_application(run_deploy: Run) -> None:
    done = run_deploy("-c", MANIFESTS, APP_YAML.parent)
    assert done.returncode == 0, done.stderr
    title = f"MONAI registration plugins {monai_regplugins.__version__}"
    assert done.stdout.splitlines() == [
        f'{title} ["python3", "/opt/holoscan/app/{name}"] requirements.txt 1'
        for name in ("dicom_app.py", "nifti_app.py")
    ]

"""Fixtures for the bundles: tiny phantoms, tiny settings, and ways to run a configuration."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from in_turn import flags_of, run_program
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow
from monai.utils import set_determinism

from monai_regplugins.phantoms import make_abdomen, make_cine_lung, make_thorax

CPU = "$torch.device('cpu')"
TINY: dict[str, Any] = {
    "device": CPU,
    "spatial_size": [16, 16, 16],
    "max_epochs": 1,
    "pairs_per_epoch": 2,
    "batch_size": 2,
    "val_pairs": 1,
    "val_interval": 1,
    "figures": 1,
}
# A best model is better than doing nothing; in one epoch RAN, as tiny as here, gets there by correlation only.
EASY_SCORE = {"validate#key_metric#score#measure": "ncc"}
TINY_R2N2: dict[str, Any] = {**TINY, "spatial_size": [32, 32], "steps": 3, "val_pairs": 2}


TINY_REGNET: dict[str, Any] = {
    **TINY,
    "voxel_size": 10.0,
    "width": 0.2,
    "labels": 2,
    "images_per_epoch": 4,
    "val_cases": 2,
    "tile": 16,
}


def tiny_overrides(
    settings: Mapping[str, Any], files: Sequence[Path], output_dir: str | Path, **changes: Any
) -> dict[str, Any]:
    """Return those of the settings that the configuration files have, and the changes."""
    config = ConfigParser.load_config_files([str(file) for file in files])
    wanted = {**settings, "output_dir": str(output_dir)}
    return {key: value for key, value in wanted.items() if key.split("#")[0] in config} | changes


def tiny_workflow(
    tiny: Callable[..., dict[str, Any]],
    files: Sequence[Path],
    output_dir: str | Path,
    workflow_type: str = "train",
    **changes: Any,
) -> ConfigWorkflow:
    """Make a workflow of configuration files with tiny settings."""
    overrides = tiny(files, output_dir, **changes)
    names = [str(file) for file in files]
    return create_workflow(config_file=names, workflow_type=workflow_type, logging_file=False, **overrides)


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Give back what the start and the run of a configuration change in the process."""
    factory, hook, path = logging.getLogRecordFactory(), sys.excepthook, list(sys.path)
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        sys.excepthook, sys.path[:] = hook, path
        set_determinism(None)


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start in an empty folder with a bare command line."""
    monkeypatch.setattr(sys, "argv", ["host"])
    monkeypatch.chdir(tmp_path)
    with unchanged_process():
        yield


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The abdomen phantom with few and coarse subjects."""
    folder = tmp_path_factory.mktemp("phantoms") / "abdomen"
    return make_abdomen(folder, num_training=3, num_validation=2, spatial_shape=(20, 16, 20), spacing=16.0)


@pytest.fixture(scope="session")
def tiny(phantoms: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that gives the overrides that make a configuration run in seconds, as far as it has them."""

    return partial(tiny_overrides, {**TINY, **EASY_SCORE, "dataset_dir": str(phantoms)})


@pytest.fixture(scope="session")
def create(tiny: Callable[..., dict[str, Any]]) -> Callable[..., ConfigWorkflow]:
    """Return a function that makes a tiny workflow of configuration files."""

    return partial(tiny_workflow, tiny)


@pytest.fixture(scope="session")
def copy_bundle(repository: Path) -> Callable[[str, Path], Path]:
    """Return a function that copies the text files of a bundle, as a user's own copy in another place."""

    def copy(name: str, folder: Path) -> Path:
        target = folder / name
        for part in ("configs", "docs"):
            shutil.copytree(repository / "bundles" / name / part, target / part)
        shutil.copy(repository / "bundles" / name / "LICENSE", target)
        return target

    return copy


@pytest.fixture(scope="session")
def ran(copy_bundle: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of RAN's bundle."""
    return copy_bundle("ran", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def trained_ran(ran: Path, create: Callable[..., ConfigWorkflow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one epoch of RAN's training; it was run in the folder above, empty until then."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as monkeypatch, unchanged_process():
        monkeypatch.chdir(folder)
        workflow = create([ran / "configs" / "train.json"], folder / "output")
        workflow.run()
        workflow.finalize()
    return folder / "output"


@pytest.fixture(scope="session")
def cine_lung(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cine_lung phantom with few subjects, few frames and coarse pixels."""
    folder = tmp_path_factory.mktemp("phantoms") / "cine_lung"
    return make_cine_lung(folder, num_training=2, num_validation=2, num_frames=4, spatial_shape=(40, 40), spacing=6.4)


@pytest.fixture(scope="session")
def tiny_r2n2(cine_lung: Path) -> Callable[..., dict[str, Any]]:
    """Return a function like that of ``tiny``, for R2N2's configurations."""
    return partial(tiny_overrides, {**TINY_R2N2, "dataset_dir": str(cine_lung)})


@pytest.fixture(scope="session")
def create_r2n2(tiny_r2n2: Callable[..., dict[str, Any]]) -> Callable[..., ConfigWorkflow]:
    """Return a function that makes a tiny workflow of R2N2's configuration files."""
    return partial(tiny_workflow, tiny_r2n2)


@pytest.fixture(scope="session")
def r2n2(copy_bundle: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of R2N2's bundle."""
    return copy_bundle("r2n2", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def trained_r2n2(
    r2n2: Path, create_r2n2: Callable[..., ConfigWorkflow], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of one epoch of R2N2's training."""
    output = tmp_path_factory.mktemp("trained") / "output"
    with unchanged_process():
        workflow = create_r2n2([r2n2 / "configs" / "train.json"], output)
        workflow.run()
        workflow.finalize()
    return output


@pytest.fixture(scope="session")
def thorax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thorax phantom with few subjects and coarse voxels."""
    folder = tmp_path_factory.mktemp("phantoms") / "thorax"
    return make_thorax(folder, num_training=2, num_validation=1, spatial_shape=(28, 22, 26), spacing=10.0)


@pytest.fixture(scope="session")
def tiny_regnet(thorax: Path) -> Callable[..., dict[str, Any]]:
    """Return a function like that of ``tiny``, for RegNet's configurations."""
    return partial(tiny_overrides, {**TINY_REGNET, "dataset_dir": str(thorax)})


@pytest.fixture(scope="session")
def create_regnet(tiny_regnet: Callable[..., dict[str, Any]]) -> Callable[..., ConfigWorkflow]:
    """Return a function that makes a tiny workflow of RegNet's configuration files."""
    return partial(tiny_workflow, tiny_regnet)


@pytest.fixture(scope="session")
def regnet(copy_bundle: Callable[[str, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of RegNet's bundle."""
    return copy_bundle("regnet", tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def trained_regnet(
    regnet: Path, create_regnet: Callable[..., ConfigWorkflow], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of one epoch of RegNet's training."""
    output = tmp_path_factory.mktemp("trained") / "output"
    with unchanged_process():
        workflow = create_regnet([regnet / "configs" / "train.json"], output)
        workflow.run()
        workflow.finalize()
    return output


@pytest.fixture
def lone_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of a distributed run of one process, without GPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    if dist.is_initialized():  # a failed run has left it
        dist.destroy_process_group()


def assert_nothing_is_wrong(status: int, errors: str) -> None:
    """A program has succeeded, and complains about nothing."""
    assert status == 0, errors
    assert not re.search(r"Traceback|Error\b|\bERROR\b|destroy_process_group", errors), errors


@pytest.fixture
def start_cli(repository: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts MONAI's command line, on the CPU, in some folder."""
    started: list[subprocess.Popen[str]] = []

    def start(
        words: Sequence[str], cwd: Path, overrides: Mapping[str, Any], module: Sequence[str] = ("monai.bundle",)
    ) -> subprocess.Popen[str]:
        flags = flags_of(overrides)
        environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", *module, *words, *flags]
        started.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:  # those that a failed test has left
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def run_cli(start_cli: Callable[..., subprocess.Popen[str]]) -> Callable[..., str]:
    """Return a function like that of ``start_cli`` for a program that has to succeed; it gives what that said."""

    def run(*arguments: Any, **options: Any) -> str:
        process = start_cli(*arguments, **options)
        output, errors = process.communicate(timeout=400)
        assert_nothing_is_wrong(process.returncode, errors)
        return output

    return run


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function like that of ``run_cli`` that runs the command line in the process of the tests."""

    def run(words: Sequence[Any], cwd: Path, overrides: Mapping[str, Any], module: str = "monai.bundle") -> str:
        threads = torch.get_num_threads()
        with monkeypatch.context() as patch, unchanged_process():
            patch.chdir(cwd)
            patch.setattr(torch.cuda, "is_available", lambda: False)
            torch.set_num_threads(1)
            status, output, errors = run_program(module, [*words, *flags_of(overrides)])
            torch.set_num_threads(threads)
        assert_nothing_is_wrong(status, errors)
        return output

    return run

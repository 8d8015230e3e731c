"""The bundles installed elsewhere: only the wheel, a released archive, and a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Sequence
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import in_turn
import nibabel
import numpy as np
import pytest
import torch
from bundle_files import files_of, read_weights
from in_turn import Done
from package_source import copy_source
from released_bundles import complete_bundle, served

pytestmark = [pytest.mark.bundle, pytest.mark.slow]

NAMES = ["ran", "r2n2", "regnet"]
VERSION = version("monai-regplugins")


class Installation:
    """A fresh environment with nothing of ours but the wheel; other packages are those of the tests."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = self.place = folder
        venv.create(folder / "venv", with_pip=False, symlinks=os.name != "nt")
        self.python = next(path for path in (folder / "venv").glob("*/python*") if path.stem == "python")
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (site / "others.pth").write_text("\n".join(packages))  # without the links to working trees in there
        pip(sys.executable, "--python", str(self.python), "install", "--no-deps", "--no-index", str(wheel))

    def run(self, *words: Any) -> str:
        """Run Python in the installation's folder and return what it printed."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
        environment |= {"TORCH_HOME": str(self.folder / "torch")}  # without the downloads of the user
        command = [str(self.python), *map(str, words)]
        done = subprocess.run(
            command, cwd=self.place, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def program(self, *words: Any) -> str:
        """Run the command that the wheel brings along."""
        return self.run(self.python.with_name("regplugins"), *words)

    def in_turn(self, *commands: Sequence[Any]) -> list[Done]:
        """Run command lines, each of them a module and its words, one after the other in one process."""
        plain = [[str(word) for word in command] for command in commands]
        printed = self.run("-c", Path(in_turn.__file__).read_text(encoding="utf-8"), json.dumps(plain))
        return [Done(*done) for done in json.loads(printed.splitlines()[-1])]

    def all_succeed(self, *commands: Sequence[Any]) -> list[str]:
        """Run command lines in one process and return what each of them printed."""
        done = self.in_turn(*commands)
        assert [one.status for one in done] == [0] * len(commands), done
        return [one.output for one in done]


def monai(*words: Any, **flags: Any) -> list[Any]:
    """A command line of MONAI's."""
    return ["monai.bundle", *words, *(word for key in flags for word in (f"--{key}", flags[key]))]


def pip(python: str, *words: str) -> None:
    """Run pip, which asks no index."""
    done = subprocess.run([python, "-m", "pip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installation(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Build the wheel of a copy of the repository, which stays as it is, and install it."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel without an index")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installation")
    copy_source(repository, source)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(source / "dist")]
    pip(sys.executable, "wheel", *options, str(source))
    (wheel,) = (source / "dist").glob("*.whl")
    return Installation(folder, wheel)


@pytest.fixture(scope="module")
def release(installation: Installation, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the installed package builds of all bundles."""
    folder = tmp_path_factory.mktemp("release")
    bundles = [complete_bundle(repository / "bundles" / name, folder) for name in NAMES]
    words = ["--bundles", *bundles, "--output_dir", folder / "dist", "--repo", "owner/name", "--tag", VERSION]
    installation.run("-m", "monai_regplugins.release", "build", *words)
    return folder / "dist"


@pytest.fixture
def settings(tiny: Any, tiny_r2n2: Any, tiny_regnet: Any) -> Callable[..., dict[str, Any]]:
    """Return a function that gives tiny settings of one configuration of a bundle."""
    by_name = {"ran": tiny, "r2n2": tiny_r2n2, "regnet": tiny_regnet}

    def give(bundle: Path, config: str, output_dir: Path, **changes: Any) -> dict[str, Any]:
        file = bundle / "configs" / f"{config}.json"
        overrides = by_name[bundle.name]([file], output_dir, **changes)
        overrides.pop("width", None)  # the released weights are those of the whole network
        if "fixed" in changes:
            del overrides["dataset_dir"]
        return {"config_file": file, **overrides}

    return give


@pytest.fixture
def pair(phantoms: Path, cine_lung: Path, thorax: Path) -> Callable[[str], dict[str, Path]]:
    """Return a function that gives a pair of images for a bundle."""
    folders = {"ran": phantoms, "r2n2": cine_lung, "regnet": thorax}

    def give(name: str) -> dict[str, Path]:
        fixed, moving, *_ = sorted((folders[name] / "imagesTr").iterdir())
        return {"fixed": fixed, "moving": moving}

    return give


def field(output: Path) -> Any:
    """Read the one field below a folder."""
    paths = [path for path in output.rglob("displacement*") if path.is_file()]
    (path,) = paths
    if path.suffix == ".npz":
        return np.load(path)["ddf"]
    return nibabel.load(path).get_fdata()


@pytest.fixture(scope="module")
def downloaded(installation: Installation, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All bundles as MONAI downloads them, from a server and from a folder."""
    place = tmp_path_factory.mktemp("downloaded")
    with served(release) as server:
        commands = [
            monai("download", name=name, url=f"{source}/{name}_v{VERSION}.zip", bundle_dir=place / folder)
            for name in NAMES
            for folder, source in (("served", server), ("copied", release.as_uri()))
        ]
        installation.all_succeed(*commands)
    return place


@pytest.fixture(scope="module")
def loaded(downloaded: Path, installation: Installation) -> dict[str, float]:
    """The sum of the weights that MONAI loads, for each bundle."""
    script = f"""
        import json
        import monai_regplugins
        from monai.bundle import load
        totals = {{}}
        for name in {NAMES!r}:
            network = load(name, bundle_dir={str(downloaded / "served")!r}, device="cpu")
            totals[name] = sum(value.double().sum().item() for value in network.state_dict().values())
        print(json.dumps([monai_regplugins.__file__, totals]))
    """
    place, totals = json.loads(installation.run("-c", textwrap.dedent(script)).splitlines()[-1])
    assert Path(place).is_relative_to(installation.folder)
    return dict(totals)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_of_use(
    name: str,
    installation: Installation,
    release: Path,
    downloaded: Path,
    loaded: dict[str, float],
    settings: Any,
    pair: Any,
    tmp_path: Path,
) -> None:
    bundle, files = downloaded / "served" / name, files_of(release.parent / name)
    assert files_of(bundle) == files_of(downloaded / "copied" / name) == files
    weights = read_weights(bundle / "models" / "model.pt")
    assert loaded[name] == pytest.approx(sum(value.double().sum().item() for value in weights.values()))

    commands = [monai("run", "inference", **settings(bundle, "inference", tmp_path / "out", **pair(name)))]
    if name == "ran":
        trains = settings(bundle, "train", tmp_path / "trained", ckpt=bundle / "models" / "model.pt")
        commands.append(monai("ckpt_export", bundle_root=bundle, config_file=bundle / "configs" / "inference.json"))
        commands.append(monai("run", "training", **trains))
        files = sorted([*files, "models/model.ts"])
    installation.all_succeed(*commands)
    assert np.isfinite(field(tmp_path / "out")).all()
    assert any((tmp_path / "out").rglob("warped*"))
    assert files_of(bundle) == files, "runs wrote into the bundle"
    if name == "ran":
        assert torch.jit.load(bundle / "models" / "model.ts").state_dict().keys() == weights.keys()
        trained = read_weights(tmp_path / "trained" / "models" / "checkpoint.pt")["model"]
        assert trained.keys() == weights.keys()
        assert any(not torch.equal(trained[key], weights[key]) for key in weights)


def installed_files(installation: Installation) -> list[str]:
    """Name the files of the environment's own packages, but those that Python caches."""
    (site,) = (installation.folder / "venv").glob("lib/python*/site-packages")
    return [name for name in files_of(site) if "__pycache__" not in name]


def test_the_command_works_after_the_installation(installation: Installation, pair: Any, tmp_path: Path) -> None:
    """Without a network, and without anything but the wheel; nothing is written into the installation."""
    before = installed_files(installation)
    installation = copy(installation)
    installation.place = tmp_path
    images = pair("ran")
    text = installation.program("register", images["fixed"], images["moving"], "-o", "out", "--pair_id", "one")
    assert text.startswith("bundle ran: the fixed image is 3D")
    assert np.isfinite(field(tmp_path / "out" / "one")).all()
    (bundle,) = (installation.folder / "venv").glob("lib/python*/site-packages/**/bundles/ran")
    bundles, doctor, _ = installation.all_succeed(
        ["monai_regplugins", "bundles"],
        ["monai_regplugins", "doctor"],
        monai("run", "inference", config_file=bundle / "configs" / "inference.json", **images),
    )
    assert f"folder: {bundle}\n" in bundles
    assert "everything works" in doctor
    (output,) = (tmp_path / "output").iterdir()
    assert np.array_equal(field(output), field(tmp_path / "out" / "one"))
    assert installed_files(installation) == before


def test_bundles_side_by_side(
    installation: Installation, release: Path, settings: Any, pair: Any, tmp_path: Path
) -> None:
    """Two of ours, and one with a folder of scripts, take turns in one process; the first gives the same again."""
    archives = [release / f"{name}_v{VERSION}.zip" for name in ("ran", "r2n2")]
    options = ["--sums", release / "SHA256SUMS", "--bundle_dir", tmp_path]
    installation.all_succeed(*(["monai_regplugins.release", "install", one, *options] for one in archives))
    foreign = tmp_path / "foreign"
    texts = {
        "configs/inference.json": '{"network_def": {"_target_": "scripts.net.Foreign"}, "run": ["$@network_def()"]}',
        "configs/metadata.json": "{}",
        "scripts/__init__.py": "",
        "scripts/net.py": "class Foreign:\n    def __call__(self):\n        print('this is the foreign one')\n",
    }
    for path, text in texts.items():
        (foreign / path).parent.mkdir(parents=True, exist_ok=True)
        (foreign / path).write_text(text)
    runs = [
        settings(tmp_path / name, "inference", tmp_path / output, **pair(name))
        for name, output in (("ran", "first"), ("r2n2", "second"), ("ran", "third"))
    ]
    runs.insert(1, {"config_file": foreign / "configs" / "inference.json"})
    plain = [{key: str(value) if isinstance(value, Path) else value for key, value in run.items()} for run in runs]
    script = f"""
        from monai.bundle import create_workflow
        for settings in {plain!r}:
            workflow = create_workflow(workflow_type="infer", logging_file=False, **settings)
            workflow.run()
            workflow.finalize()
    """
    assert "this is the foreign one" in installation.run("-c", textwrap.dedent(script))
    assert np.array_equal(field(tmp_path / "first"), field(tmp_path / "third"))
    assert field(tmp_path / "second").shape != field(tmp_path / "first").shape


def test_another_archive_is_refused(installation: Installation, release: Path, tmp_path: Path) -> None:
    name = f"ran_v{VERSION}.zip"
    content = (release / name).read_bytes()
    commands = []
    for kind, others in {"cut": content[:-100], "changed": content[:5000] + b"x" + content[5001:]}.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).write_bytes(others)
        options = ["--sums", release / "SHA256SUMS", "--bundle_dir", tmp_path / "bundles"]
        commands.append(["monai_regplugins.release", "install", (tmp_path / kind / name).as_uri(), *options])
    for done in installation.in_turn(*commands):
        assert done.status == 1
        assert "is not the published file: its SHA-256 is" in done.errors
    assert not (tmp_path / "bundles").exists()

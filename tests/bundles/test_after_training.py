"""What a training leaves to its user: a folder of its own, and commands that use what is in it."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_files import configs, files_of

pytestmark = pytest.mark.bundle


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ran", "r2n2", "regnet", "r2n2 series"])
def test_the_commands_at_its_end_run(
    name: str,
    tiny: Any,
    tiny_r2n2: Any,
    tiny_regnet: Any,
    copy_bundle: Callable[[str, Path], Path],
    run_here: Callable[..., str],
    tmp_path: Path,
) -> None:
    bundle = copy_bundle(name.split()[0], tmp_path)
    files = configs(bundle, "train", *(["train_series"] if "series" in name else []))
    settings = {"ran": tiny, "r2n2": tiny_r2n2, "regnet": tiny_regnet}[bundle.name]
    overrides = {key: value for key, value in settings(files, "").items() if key not in ("output_dir", "device")}
    shown = [str(file.relative_to(tmp_path)) for file in files]
    words = ["run", "training", "--config_file", str(shown) if len(shown) > 1 else shown[0]]
    said = run_here(words, tmp_path, overrides)
    run = bundle / "runs" / "train"
    assert {path.name for path in bundle.iterdir()} == {"LICENSE", "configs", "docs", "runs"}

    begun = ("python -m monai.bundle run ", "regplugins register ")
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith(begun)]
    assert shlex.join(commands[-1]) == said.splitlines()[-1]
    if commands[0][4] == "training":  # where no score has improved
        assert commands[0][-2:] == ["--ckpt", str((run / "models" / "checkpoint.pt").relative_to(tmp_path))] or (
            commands[0][-4:-2] == ["--ckpt", str((run / "models" / "checkpoint.pt").relative_to(tmp_path))]
        )
        del commands[0]
    evaluates, registers = commands
    assert evaluates[4] == "evaluating"
    run_here(evaluates[3:], tmp_path, {})
    assert (run / "eval" / "evaluation.csv").is_file()
    if "series" in name:
        assert registers[4] == "inference"
        run_here(registers[3:], tmp_path, {})
        assert "aligned.nii.gz" in files_of(run / "inference")
    else:
        images = sorted(Path(evaluates[evaluates.index("--dataset_dir") + 1], "imagesTr").glob("*.nii.gz"))
        of_pair = {"FIXED": str(images[0]), "MOVING": str(images[1])}
        words = [of_pair.get(word, word) for word in registers[1:]]
        run_here(words, tmp_path, {}, "monai_regplugins")
        assert any(file.endswith("/warped.nii.gz") for file in files_of(tmp_path / "out"))
    assert {path.name for path in bundle.iterdir()} == {"LICENSE", "configs", "docs", "runs"}


class TestReadme:
    """The README's commands, one after the other, in a clone."""

    def test_what_they_write_is_ignored(self, repository: Path) -> None:
        if not (repository / ".git").exists():
            pytest.skip("needs the repository's history")
        written = ["bundles/ran/runs/train/models/model.pt", "bundles/ran/data/abdomen/x.nii.gz"]
        written += ["bundles/ran/runs/train/eval/metrics.csv", "bundles/ran/eval/evaluation.csv", ".venv/bin/python"]
        written += ["bundles/ran/runs/train/inference/a_to_b/warped.nii.gz", "runs/mydata/models/model.pt", "out/x.png"]
        done = subprocess.run(
            ["git", "check-ignore", *written], cwd=repository, check=False, stdout=subprocess.PIPE, text=True
        )
        assert done.stdout.split() == written
        weights = ["bundles/ran/models/model.pt", "bundles/ran/models/model_hippocampus.pt"]
        ignored = subprocess.run(["git", "check-ignore", *weights], cwd=repository, check=False)
        assert ignored.returncode == 1

    @pytest.mark.parametrize("page", ["README.md", "docs/how-to/train-on-your-data.md", "bundles/ran/docs/README.md"])
    def test_weights_that_are_named_exist(self, page: str, repository: Path) -> None:
        """They are published, or a training writes them that a command before, or the default, has put there."""
        text = (repository / page).read_text()
        folder = repository / "bundles" / "ran" if page.startswith("bundles") else repository
        made = {"runs/train", "bundles/ran/runs/train"} | {*re.findall(r"--output_dir (\S+)", text)}
        for ckpt in re.findall(r"--ckpt (\S+\.pt)", text):
            by_training = re.fullmatch(r"(.+)/models/(model|checkpoint)\.pt", ckpt)
            assert (folder / ckpt).is_file() or (by_training is not None and by_training[1] in made), ckpt

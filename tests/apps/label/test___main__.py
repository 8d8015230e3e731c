from __future__ import annotations

import ast
from pathlib import Path

import pytest

from monai_regplugins.apps.label.__main__ import default_folder, main, make_app


def test_the_folder_is_what_monai_label_takes(tmp_path: Path) -> None:
    folder = make_app(tmp_path / "app")
    tree = ast.parse((folder / "main.py").read_text())
    (imported,) = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    assert imported.module == "monai_regplugins.apps.label.app"
    assert [alias.name for alias in imported.names] == ["RegistrationLabelApp"]


def test_what_is_in_the_folder_stays(tmp_path: Path) -> None:
    trained = tmp_path / "model" / "ran" / "models" / "model.pt"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"trained")
    make_app(tmp_path)
    make_app(tmp_path)
    assert trained.read_bytes() == b"trained"


def test_a_program_of_someone_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "main.py").write_text("print('mine')")
    assert main(["--output", str(tmp_path)]) == 1
    assert "main.py' is there already and belongs to something else" in capsys.readouterr().err
    assert (tmp_path / "main.py").read_text() == "print('mine')"


def test_the_command_prints_the_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output", str(tmp_path / "app")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'app'}\n"


def test_by_default_it_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "monai_regplugins" / "label"
    assert main([]) == 0
    assert Path(capsys.readouterr().out.strip(), "main.py").is_file()


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--output", str(tmp_path / "file" / "app")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: cannot write")

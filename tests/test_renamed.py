"""Retired option names and values: they do what the current ones do, and the log says how they are called now."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import create_workflow

import monai_regplugins.registration
from monai_regplugins import load_bundle
from monai_regplugins.benchmark.reporting import setting
from monai_regplugins.data import CheckSeriesPaird
from monai_regplugins.renamed import OPTIONS, VALUES, current_names, current_value
from monai_regplugins.transforms import ResampleToFixedd

OLD = {"prealign": "moments", "forms": ["native", "dicom"]}
CURRENT = {"initial_alignment": "center", "formats": ["native", "dicom"]}
BUNDLES = ("ran", "r2n2", "regnet")


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that gives what the log has said of retired names."""
    caplog.set_level(logging.WARNING, logger="monai_regplugins.renamed")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "monai_regplugins.renamed"]


def prepared_by(workflow: Any) -> dict[str, Any]:
    """The settings that the transforms of a workflow got."""
    steps = workflow.parser.get_parsed_content("preprocessing").transforms
    (alignment,) = (step.initial_alignment for step in steps if isinstance(step, ResampleToFixedd))
    (formats,) = (step.formats for step in steps if isinstance(step, CheckSeriesPaird))
    return {"initial_alignment": alignment, "formats": list(formats)}


def test_names_and_values(notices: Callable[[], list[str]]) -> None:
    assert current_names({**OLD, "seed": 0}) == {**CURRENT, "seed": 0}
    assert len(notices()) == 3
    assert (
        notices()[0] == "Option 'prealign' is called 'initial_alignment' now; the old name ends with the next release."
    )
    assert current_names({"forms": "all", "formats": ""}) == current_names({"formats": "", "forms": "all"})
    assert current_names({"form": "dicom"}) == {"format": "dicom"}


def test_current_names_stay_without_a_notice(notices: Callable[[], list[str]]) -> None:
    settings = {**CURRENT, "window": [], "padding": "border", "initial_alignment": "auto"}
    assert current_names(settings) == settings
    assert notices() == []


@pytest.mark.parametrize("name", BUNDLES)
def test_the_table_leads_to_settings_that_there_are(name: str, repository: Path) -> None:
    config = json.loads((repository / "bundles" / name / "configs" / "inference.json").read_text())
    assert {new for new in OPTIONS.values() if new != "format"} <= config.keys()
    assert VALUES.keys() <= config.keys()
    assert not OPTIONS.keys() & config.keys()


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("in_a_file", [False, True])
def test_inference_takes_them(
    name: str,
    in_a_file: bool,
    repository: Path,
    tmp_path: Path,
    notices: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As overrides of a command line, and in a configuration file of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps(OLD))
    file = str(repository / "bundles" / name / "configs" / "inference.json")
    given = {"config_file": [file, "mine.json"]} if in_a_file else {"config_file": file, **OLD}
    workflow = create_workflow(workflow_type="inference", logging_file=False, output_dir=str(tmp_path), **given)
    assert prepared_by(workflow) == CURRENT
    config = workflow.parser.get()
    assert {key: config[key] for key in CURRENT} == CURRENT, "what the provenance records"
    assert not OLD.keys() & config.keys()
    assert len(notices()) == 3


@pytest.mark.parametrize(("old", "new"), [("none", False), ("localization", True), ("weights", True)])
def test_uncertainty_was_a_name(old: str, new: bool, notices: Callable[[], list[str]]) -> None:
    assert current_value("uncertainty", old) is new
    found = current_names({"uncertainty": old})
    assert found == {"uncertainty": new, **({"network_uncertainty": "weights"} if old == "weights" else {})}
    assert notices() == [f"uncertainty '{old}' is called '{new}' now; the old name ends with the next release."]
    assert current_names({"uncertainty": new}) == {"uncertainty": new}
    assert len(notices()) == 1


def test_inference_takes_the_names_of_uncertainty(
    repository: Path, tmp_path: Path, notices: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = str(repository / "bundles" / "r2n2" / "configs" / "inference.json")
    given = {"config_file": file, "output_dir": str(tmp_path), "uncertainty": "weights", "refine_steps": 0}
    workflow = create_workflow(workflow_type="inference", logging_file=False, **given)
    assert workflow.parser.get()["uncertainty"] is True
    assert workflow.parser.get_parsed_content("registration").uncertainty == "weights"
    assert len(notices()) == 1


def test_load_bundle_takes_them(
    monkeypatch: pytest.MonkeyPatch, repository: Path, notices: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(monai_regplugins.registration, "Registration", lambda config: config)
    config: Any = load_bundle(repository / "bundles" / "ran", **OLD)
    assert {key: config[key] for key in CURRENT} == CURRENT
    assert not OLD.keys() & config.keys()
    assert len(notices()) == 3


def test_benchmarks_take_them() -> None:
    assert setting("prealign=moments") == ("initial_alignment", "center")
    assert setting('forms=["native"]') == ("formats", ["native"])

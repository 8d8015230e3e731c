from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from monai_regplugins.apps.label.networks import LabelBundle, Networks, find_bundles
from monai_regplugins.checks import InputError


@pytest.fixture
def bundle(bundle_dir: Path, tmp_path: Path) -> LabelBundle:
    """RAN, not trained in the app."""
    return LabelBundle(bundle_dir / "ran", tmp_path / "ran")


def loader(calls: list[dict[str, Any]]) -> Any:
    """Stands in for load_bundle; each call gives another object."""

    def load(root: Path, **overrides: Any) -> object:
        calls.append({"root": root, **overrides})
        return object()

    return load


def test_bundle(bundle: LabelBundle) -> None:
    assert bundle.name == "ran"
    assert bundle.spatial_dims == 3
    assert bundle.ckpt == bundle.root / "models" / "model.pt"
    assert bundle.training["max_epochs"] == 12
    trained = bundle.trained_dir / "models" / "model.pt"
    trained.parent.mkdir(parents=True)
    trained.touch()
    assert bundle.ckpt == trained


def test_a_training_is_served_if_it_has_a_best_model(bundle: LabelBundle) -> None:
    runs = []
    for _ in range(3):
        with bundle.runs.begun({}) as run:
            runs.append(run)
    assert runs == [bundle.trained_dir / "runs" / str(number) for number in (1, 2, 3)]
    assert not bundle.serve(runs[0])
    assert bundle.ckpt == bundle.root / "models" / "model.pt"
    for number, run in enumerate(runs[:2]):
        (run / "models").mkdir()
        (run / "models" / "model.pt").write_text(str(number))
        assert bundle.serve(run)
        assert bundle.ckpt.read_text() == str(number)
    assert not bundle.serve(runs[2])
    assert bundle.ckpt.read_text() == "1"
    assert (runs[0] / "models" / "model.pt").read_text() == "0"


def test_find_bundles(bundle_dir: Path, tmp_path: Path) -> None:
    found = find_bundles("ran, regnet", str(bundle_dir), tmp_path)
    assert list(found) == ["ran", "regnet"]
    assert found["ran"].trained_dir == tmp_path / "ran"
    assert list(find_bundles(str(bundle_dir / "r2n2"), None, tmp_path)) == ["r2n2"]
    for models, message in ((" ,", "no models given"), ("ran,ran", "two bundles 'ran'"), ("rann", "Did you mean")):
        with pytest.raises(InputError, match=message):
            find_bundles(models, str(bundle_dir), tmp_path)


def test_networks_are_kept(bundle: LabelBundle) -> None:
    calls: list[dict[str, Any]] = []
    networks = Networks(load=loader(calls))
    plain = networks(bundle, device="cpu")
    assert networks(bundle, device="cpu") is plain
    assert networks(bundle, device="cpu", refine_steps=3) is not plain
    assert [call.get("refine_steps") for call in calls] == [None, 3]
    assert calls[0]["ckpt"] == str(bundle.ckpt)


def test_newer_weights_are_loaded(bundle: LabelBundle) -> None:
    networks = Networks(load=loader([]))
    before = networks(bundle)
    state = bundle.ckpt.stat()
    os.utime(bundle.ckpt, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    after = networks(bundle)
    assert after is not before
    assert networks(bundle) is after


def test_only_so_many_are_kept(bundle: LabelBundle) -> None:
    calls: list[dict[str, Any]] = []
    networks = Networks(capacity=2, load=loader(calls))
    for steps in (1, 2, 1, 3, 1, 2):
        networks(bundle, refine_steps=steps)
    assert [call["refine_steps"] for call in calls] == [1, 2, 3, 2]

"""The files that a release consists of, and the metadata."""

from __future__ import annotations

from pathlib import Path

import pytest
from released_bundles import tiny_bundle

from monai_regplugins.checks import InputError
from monai_regplugins.release.layout import BUNDLE_FILE, read_metadata, released_files

RELEASED = [
    "LICENSE",
    "configs/inference.json",
    "configs/logging.conf",
    "configs/metadata.json",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
    "models/model_ncc.pt",
]


def test_only_what_others_need_is_released(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    (bundle / "docs" / "link.md").symlink_to(bundle / "LICENSE")
    assert released_files(bundle) == RELEASED
    (bundle / "models" / "model.ts").write_bytes(b"script")
    assert released_files(bundle) == [*RELEASED[:7], "models/model.ts", *RELEASED[7:]]


@pytest.mark.parametrize(
    "path",
    [
        "scripts/net.py",
        "torch.py",
        "configs/net.py",
        "docs/../x.md",
        "docs/.x",
        "models/x/y.pt",
        "/LICENSE",
        "LICENSE\n",
    ],
)
def test_foreign_paths(path: str) -> None:
    assert not BUNDLE_FILE.fullmatch(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"metadata\.json is no JSON"), ("[]", "has no version"), ('{"version": 1}', "has no version")],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "configs").mkdir()
    with pytest.raises(InputError, match="does not exist"):
        read_metadata(tmp_path)
    (tmp_path / "configs" / "metadata.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_metadata(tmp_path)

"""The handlers of an evaluation: the ones that the configurations need, with their files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from monai_regplugins.handlers import evaluation_handlers


def test_handlers_and_their_files(tmp_path: Path) -> None:
    network = nn.Identity()
    weights, table, pictures, field = evaluation_handlers(network, "model.pt", tmp_path, 2, field=True)
    assert (weights.network, weights.ckpt) == (network, "model.pt")
    assert [handler.path.name for handler in (table, pictures, field)] == [
        "evaluation.csv",
        "evaluation.png",
        "evaluation_field.png",
    ]
    assert {handler.path.parent for handler in (table, pictures, field)} == {tmp_path}
    assert pictures.max_pairs == 2
    assert len(evaluation_handlers(network, "model.pt", str(tmp_path), 0)) == 3

"""TensorBoard's curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_regplugins.handlers import LossTerms, TensorBoardCurves


def test_the_folder_comes_with_the_first_value(make_training: Any, tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "tensorboard"
    training = make_training(max_epochs=2)
    losses: list[float] = []
    curves = TensorBoardCurves(folder, output_transform=LossTerms(training.loss))
    curves.attach(training.trainer)
    training.trainer.add_event_handler(
        "ITERATION_COMPLETED", lambda engine: losses.append(float(engine.state.output[0]["loss"]))
    )
    assert not list(tmp_path.iterdir())
    training.trainer.run()
    curves._writer.flush()
    written = EventAccumulator(str(folder))
    written.Reload()
    (name,) = (tag for tag in written.Tags()["scalars"] if tag.endswith("loss"))
    assert [event.value for event in written.Scalars(name)] == losses
    assert len(list(folder.iterdir())) == 1
    curves._writer.close()

"""Handlers that draw the pairs of an evaluation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.figure import Figure
from monai.data import MetaTensor
from PIL import Image

from monai_regplugins.figures import pair as figure
from monai_regplugins.handlers import FieldFigure, PairFigure
from monai_regplugins.handlers import figures as handlers
from monai_regplugins.handlers.score import Score
from monai_regplugins.result import RegistrationResult
from monai_regplugins.transforms import ResampleToFixedd


def test_handler_draws_pairs_of_every_second_evaluation(
    make_training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure, "pair_figure", lambda *_, **__: Figure(figsize=(1, 1)))
    training = make_training(val_handlers=(PairFigure(tmp_path / "pair.png", interval=2, max_pairs=2),))
    drawn = []
    for _ in range(3):
        training.evaluator.run()
        drawn.append(sorted(path.name for path in tmp_path.glob("*.png")))
        for path in tmp_path.iterdir():
            path.unlink()
    assert drawn == [["pair.png", "pair_2.png"], [], ["pair.png", "pair_2.png"]]


def test_a_picture_has_the_measures_of_the_table(
    make_training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(handlers, "draw_pair", lambda *args, **_: shown.append(args) or Figure(figsize=(1, 1)))
    training = make_training(val_handlers=(PairFigure(tmp_path / "pair.png", max_pairs=2),))
    training.evaluator.run()
    rows = {row["pair_id"]: row for row in training.evaluator.state.pair_rows}
    assert [metrics for _, _, metrics in shown] == [rows[item["pair_id"]] for item, *_ in shown]
    assert sorted(item["pair_id"] for item, *_ in shown) == ["0_to_1", "1_to_2"]
    own = figure.draw_pair(*shown[0][:2], {"ncc_before": 0.125, "ncc": 0.25, "folding_percent": 0.0}, judged=False)
    texts = " ".join(text.get_text() for text in own.axes[0].texts)
    assert "NCC 0.250" in texts
    assert not {"PASS", "WARN", "FAIL"} & {*texts.replace(":", " ").split()}


@pytest.mark.parametrize(
    ("wanted", "kept", "expected"),
    [
        (3, 5, ["c, best of 5 pairs", "b, median of 5 pairs", "e, worst of 5 pairs"]),
        (1, 5, ["b, median of 5 pairs"]),
        (2, 5, ["c, best of 5 pairs", "e, worst of 5 pairs"]),
        (4, 5, ["c, best of 5 pairs", "d, number 2 of 5 pairs", "a, number 4 of 5 pairs", "e, worst of 5 pairs"]),
        (3, 2, ["b, best of the first 2 pairs", "a, worst of the first 2 pairs"]),
        (3, 1, ["a"]),
        (0, 5, []),
    ],
)
def test_best_median_and_worst(
    wanted: int, kept: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five pairs, each of 96 bytes, as many are kept as there is room for."""
    monkeypatch.setattr(handlers, "KEPT", 96 * kept)
    drawn: list[str] = []

    def draw(item: dict[str, Any], *_: Any, note: str, **__: Any) -> Figure:
        drawn.append(item["pair_id"] + note)
        return Figure(figsize=(1, 1))

    monkeypatch.setattr(handlers, "draw_pair", draw)

    def step(engine: Any, name: str) -> Any:
        engine.state.batch = [{"pair_id": name}]
        return [{"pred": {"ddf": torch.zeros(2, 3, 3)}, "label": {"fixed": torch.zeros(1, 2, 3)}}]

    engine = Engine(step)
    engine.state.rank = 0
    PairFigure(tmp_path / "pair.png", max_pairs=wanted).attach(engine)
    engine.state.scores = {"score": Score("DSC")}
    engine.state.pair_scores = dict(zip("abcde", (0.2, 0.3, 0.5, 0.4, 0.1), strict=True))
    engine.run(list("abcde"))
    assert drawn == [f"{text} by DSC" if "," in text else text for text in expected]
    assert len(list(tmp_path.glob("*.png"))) == len(expected)


def test_handler_writes_a_picture(make_training: Any, tmp_path: Path) -> None:
    make_training(val_handlers=(PairFigure(tmp_path / "pair.png"),)).evaluator.run()
    with Image.open(tmp_path / "pair.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert pixels.std() > 20


def evaluation(handler: FieldFigure, outputs: list[dict[str, Any]]) -> None:
    def step(engine: Any, output: dict[str, Any]) -> Any:
        engine.state.batch = [{"pair_id": "a", "fixed": SimpleNamespace(affine=None)}]
        return [output]

    engine = Engine(step)
    engine.state.rank = 0
    handler.attach(engine)
    engine.run(outputs)


def test_file_is_made_for_the_first_known_field_only(tmp_path: Path) -> None:
    true_ddf = torch.randn(2, 6, 6)
    pair = {"fixed": torch.rand(1, 6, 6), "ddf": true_ddf / 2, "true_ddf": true_ddf}
    real = {"pred": {"ddf": pair["ddf"]}, "label": {"fixed": pair["fixed"]}}
    path = tmp_path / "eval" / "field.png"
    evaluation(FieldFigure(path), [real])
    assert not path.exists()
    known = {"pred": {"ddf": pair["ddf"]}, "label": {"fixed": pair["fixed"], "true_ddf": pair["true_ddf"]}}
    evaluation(FieldFigure(path), [real, known])
    with Image.open(path) as image:
        assert image.size[0] > 500


def test_a_pair_with_its_original_images_is_drawn_as_an_inference_draws_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aligned first; the field takes a part of the fixed image beyond the moving one."""
    affine = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    images = {side: MetaTensor(torch.rand(1, 12, 10, 8), affine=affine) for side in ("fixed", "moving")}
    item: Any = ResampleToFixedd("center", keep_original=True)({**images, "pair_id": "a_to_b"})
    targets = {key: torch.as_tensor(item[key]).as_subclass(torch.Tensor) for key in (*images, "spacing")}
    pred = {"ddf": torch.full((3, 12, 10, 8), 1.5), "warped": targets["moving"]}
    pictures: list[Figure] = []
    monkeypatch.setattr(handlers, "save_figure", lambda _, picture: pictures.append(picture))

    def step(engine: Any, _: Any) -> Any:
        engine.state.batch = [item]
        return [{"pred": pred, "label": targets}]

    engine = Engine(step)
    engine.state.rank = 0
    PairFigure(tmp_path / "pair.png").attach(engine)
    engine.run([0])
    (drawn,) = pictures
    expected = RegistrationResult(item, {"pred": pred, "label": targets}).figure
    shown, wanted = ([np.asarray(image.get_array()) for image in one.axes[0].images] for one in (drawn, expected))
    assert len(shown) == len(wanted) > 3 * 7
    for image, other in zip(shown, wanted, strict=True):
        np.testing.assert_array_equal(image, other)
    covered = [image for image in shown if image.ndim == 3]
    assert covered
    titles = " ".join(text.get_text() for text in drawn.axes[0].texts)
    assert "moving, as given" in titles
    assert "|fixed - aligned|" in titles


def test_what_is_in_several_places_counts_once() -> None:
    image = torch.zeros(1, 4, 4)
    assert handlers._size({"fixed": image, "pair_id": "a"}, {"fixed": image, "ddf": torch.zeros(2, 4, 4)}) == 3 * 64

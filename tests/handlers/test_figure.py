"""The picture of a pair: what is drawn, where, and which way up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from monai_regplugins.handlers import PairFigure, figure, pair_figure


def volume_pair() -> dict[str, torch.Tensor]:
    """Return a box-shaped label shifted by one voxel along the first axis and the field that undoes the shift."""
    label = torch.zeros(1, 10, 12, 8, dtype=torch.uint8)
    label[:, 3:6, 4:9, 2:5] = 2
    ddf = torch.zeros(3, 10, 12, 8)
    ddf[0] = 1
    image = torch.rand(1, 10, 12, 8) * 0.1 + label / 3
    return {
        "moving": image.roll(1, 1),
        "fixed": image,
        "warped": image,
        "ddf": ddf,
        "spacing": torch.tensor([1.0, 2.0, 4.0]),
        "moving_label": label.roll(1, 1),
        "fixed_label": label,
    }


def test_three_planes_through_the_label_in_true_proportion() -> None:
    pair = volume_pair()
    rows = np.array(pair_figure(**pair).axes).reshape(3, 6)
    assert [tuple(axes.images[0].get_array().shape) for axes in rows[:, 0]] == [(12, 10), (8, 10), (8, 12)]
    first = pair["fixed"][0, ..., 2].T  # of the axial planes that hold most of the label
    np.testing.assert_array_equal(rows[0, 0].images[0].get_array(), first)
    assert [float(axes.get_aspect()) for axes in rows[:, 0]] == [2.0, 4.0, 2.0]
    for row in rows:
        assert len({axes.images[0].get_clim() for axes in row[:3]}) == 1
        assert len({axes.images[0].get_clim() for axes in row[3:5]}) == 1
        assert row[0].images[0].get_clim() != row[3].images[0].get_clim()
        assert all(axes.collections for axes in row[:3])  # contours
    assert not rows[0, 4].images[0].get_array().any()
    assert rows[0, 3].images[0].get_array().max() > 0.3


def test_grid_shows_where_fixed_points_go() -> None:
    rows = np.array(pair_figure(**volume_pair()).axes).reshape(3, 6)
    lines = rows[0, 5].collections[0].get_segments()
    assert len(lines) == 12 + 10
    np.testing.assert_allclose(lines[0], [[x + 1, 0] for x in range(10)])  # moved by one voxel along itself
    np.testing.assert_allclose(lines[-1], [[10, y] for y in range(12)])


def test_titles_give_measures_before_and_after() -> None:
    titles = [axes.get_title() for axes in pair_figure(**volume_pair()).axes[:6]]
    assert titles[1].startswith("moving\nDSC 0.667, NCC 0.")
    assert titles[2] == "warped\nDSC 1.000, NCC 1.000"
    assert titles[5] == "deformed grid\nfolding 0 %"


def corner(axes: Any, column: int, row: int) -> tuple[bool, bool]:
    """Return whether a voxel of a plane is seen on the right half and on the upper half of the axes."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    across, up = (column - left) / (right - left), (row - bottom) / (top - bottom)
    assert 0 < across < 1
    assert 0 < up < 1
    return across > 0.5, up > 0.5


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_volume_lies_as_radiologists_look_at_it(signs: tuple[int, ...], order: tuple[int, ...]) -> None:
    """Right is at the left of the page, front at the top of an axial plane and left of a sagittal one, head up."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, order]  # array axis k runs along world axis order[k]
    pair = volume_pair()
    del pair["fixed_label"]
    rows = np.array(pair_figure(**pair, affine=affine).axes).reshape(3, 6)
    for axes_row, (across, upward) in zip(rows, ((0, 1), (0, 2), (1, 2)), strict=True):
        for axes in (axes_row[0], axes_row[5]):
            height, width = axes_row[0].images[0].get_array().shape
            column = width - 1 if signs[across] > 0 else 0  # the voxel furthest along +world
            row = height - 1 if signs[upward] > 0 else 0
            assert corner(axes, column, row) == (False, True)


def test_without_affine_first_voxel_is_at_the_lower_left() -> None:
    for axes in pair_figure(**volume_pair()).axes:
        assert corner(axes, 0, 0) == (False, False)


def test_a_plane_image_has_its_first_row_on_top() -> None:
    pair = {key: value[..., 3] for key, value in volume_pair().items() if key != "spacing"}
    pair["ddf"] = pair["ddf"][:2]
    row = pair_figure(**pair, spacing=[1.0, 2.0]).axes
    assert len(row) == 6
    for axes in row:
        assert corner(axes, 0, 0) == (False, True)
    np.testing.assert_array_equal(row[0].images[0].get_array(), pair["fixed"][0].T)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("head", [0, 1])
def test_a_sagittal_slice_has_the_head_on_top_and_the_front_on_the_left(head: int, direction: int) -> None:
    affine = np.zeros((4, 4))
    affine[2, head], affine[1, 1 - head] = direction, direction
    affine[0, 2] = affine[3, 3] = 1
    pair = {key: value[..., 3] for key, value in volume_pair().items() if key != "spacing"}
    pair["ddf"] = pair["ddf"][:2]
    row = pair_figure(**pair, spacing=[1.0, 2.0], affine=affine).axes
    image = row[0].images[0].get_array()
    np.testing.assert_array_equal(image, pair["fixed"][0] if head == 0 else pair["fixed"][0].T)
    last = (image.shape[1] - 1, image.shape[0] - 1)
    for axes in (row[0], row[5]):
        assert corner(axes, *(last if direction > 0 else (0, 0))) == (False, True)


def test_handler_draws_the_first_pairs_of_every_second_evaluation(
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


def test_handler_writes_a_picture(make_training: Any, tmp_path: Path) -> None:
    make_training(val_handlers=(PairFigure(tmp_path / "pair.png"),)).evaluator.run()
    with Image.open(tmp_path / "pair.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert pixels.std() > 20

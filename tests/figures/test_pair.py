"""The picture of a pair: what is drawn, where, and which way up."""

from __future__ import annotations

import io
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image

from monai_regplugins.figures import DrawnImage, pair_figure
from monai_regplugins.figures import pair as figure
from monai_regplugins.figures.pair import panels_of
from monai_regplugins.figures.png import png_of


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


def images_of(drawn: Figure) -> np.ndarray:
    """Return the five images and the length of the displacement of each row, (rows, 6); the last image is its scale."""
    (axes,) = drawn.axes
    images = [image for image in axes.images if image.get_array().ndim == 2]
    return np.array(images[:-1], dtype=object).reshape(-1, 6)


def covers_of(drawn: Figure, row: int = 0) -> dict[int, np.ndarray]:
    """Return where the panels of a row are covered, by their column."""
    places = [image.get_extent() for image in images_of(drawn)[row]]
    covers = [image for image in drawn.axes[0].images if image.get_array().ndim == 3]
    found = [(places.index(one.get_extent()), one) for one in covers if one.get_extent() in places]
    return {column: np.asarray(one.get_array()[..., 3] > 0) for column, one in found}


def lines_of(drawn: Figure) -> list[LineCollection]:
    """Return all line collections: contours (where there are labels) and grid of each row, then the frames."""
    return [one for one in drawn.axes[0].collections if isinstance(one, LineCollection)]


def height_over_width(image: Any) -> float:
    """Return the proportion of a drawn image."""
    left, right, bottom, top = image.get_extent()
    return abs((top - bottom) / (right - left))


def test_three_planes_through_the_label_in_true_proportion() -> None:
    pair = volume_pair()
    drawn = pair_figure(**pair)
    rows = images_of(drawn)
    assert [tuple(image.get_array().shape) for image in rows[:, 0]] == [(12, 10), (8, 10), (8, 12)]
    first = pair["fixed"][0, ..., 2].T  # of the axial planes that hold most of the label
    np.testing.assert_array_equal(rows[0, 0].get_array(), first)
    millimeters = [12 * 2 / 10, 8 * 4 / 10, 8 * 4 / (12 * 2)]
    assert [height_over_width(image) for image in rows[:, 0]] == pytest.approx(millimeters)
    width, height = drawn.get_size_inches()
    assert (drawn.axes[0].get_xlim(), drawn.axes[0].get_ylim()) == ((0, width), (0, height)), "not in true proportion"
    for row in rows:
        assert len({image.get_clim() for image in row[:3]}) == 1
        assert len({image.get_clim() for image in row[3:5]}) == 1
        assert row[0].get_clim() != row[3].get_clim()
    assert not rows[0, 4].get_array().any()
    assert rows[0, 3].get_array().max() > 0.3


def test_panels_lie_side_by_side() -> None:
    rows = images_of(pair_figure(**volume_pair(), affine=np.eye(4)))
    boxes = [
        (*sorted(image.get_extent()[:2]), *sorted(image.get_extent()[2:])) for image in rows.ravel()
    ]  # left, right, bottom, top
    for number, (left, right, bottom, top) in enumerate(boxes):
        for other in boxes[number + 1 :]:
            assert right < other[0] or other[1] < left or top < other[2] or other[3] < bottom


def edges(line: np.ndarray, image: Any) -> tuple[list[float], list[float]]:
    """Return the least and the largest voxel positions of a contour over an image of 12 rows and 10 columns."""
    left, right, bottom, top = image.get_extent()
    voxels = (line - [left, bottom]) / [(right - left) / 10, (top - bottom) / 12] - 0.5
    return voxels.min(axis=0).round(4).tolist(), voxels.max(axis=0).round(4).tolist()


def test_each_image_shows_its_own_labels_and_the_fixed_ones_dotted() -> None:
    drawn = pair_figure(**volume_pair())
    fixed, moving, warped = images_of(drawn)[0][:3]
    found = [(line.get_segments(), line.get_linestyle()[0][1] is None) for line in lines_of(drawn)[:5]]
    here, before = ([2.5, 3.5], [5.5, 8.5]), ([3.5, 3.5], [6.5, 8.5])  # outer faces of 3..5 and 4..8; of 4..6
    expected = [(fixed, here, True), (moving, before, True), (moving, here, False), (warped, here, True)]
    for ((line,), solid), (image, corners, own) in zip(found, [*expected, (warped, here, False)], strict=True):
        assert edges(line, image) == corners
        assert solid == own


def test_a_label_that_was_warped_elsewhere_is_drawn_as_it_is() -> None:
    pair = volume_pair()
    drawn = pair_figure(**pair, warped_label=pair["moving_label"])
    ((line,), image) = lines_of(drawn)[3].get_segments(), images_of(drawn)[0][2]
    assert edges(line, image) == ([3.5, 3.5], [6.5, 8.5])


def test_folds_are_marked() -> None:
    pair = volume_pair()
    assert all(len(line.get_xdata()) == 0 for line in pair_figure(**pair).axes[0].lines)
    pair["ddf"][0, 4, 5:7] = -3.0  # x + u goes back behind its neighbor
    marked = [len(line.get_xdata()) for line in pair_figure(**pair).axes[0].lines]
    assert len(marked) == 3
    assert marked[0] > 0


def test_grid_shows_where_fixed_points_go() -> None:
    drawn = pair_figure(**volume_pair())
    frame = lines_of(drawn)[-1].get_segments()[5]  # of the last panel of the first row
    scale = np.ptp(frame, axis=0) / (10, 12)
    lines = [(line - frame.min(axis=0)) / scale - 0.5 for line in lines_of(drawn)[5].get_segments()]
    assert len(lines) == 12 + 10
    # moved by one voxel along itself
    np.testing.assert_allclose(lines[0], [[x + 1, 0] for x in range(10)], atol=1e-5)
    np.testing.assert_allclose(lines[-1], [[10, y] for y in range(12)], atol=1e-5)


def test_the_length_of_the_displacement_is_in_mm_with_its_scale() -> None:
    pair = volume_pair()
    pair["ddf"][1, 2:, :, 2] = -1.0  # 2 mm beside 1 mm, in the axial plane that is drawn
    drawn = pair_figure(**pair)
    shown = images_of(drawn)[0, 5]
    np.testing.assert_allclose(shown.get_array(), np.where(np.arange(10) < 2, 1.0, 5**0.5) * np.ones((12, 1)))
    assert shown.get_clim() == pytest.approx((0.0, 5**0.5))
    assert [text.get_text() for text in drawn.axes[0].texts[:2]] == ["2.24 mm", "0"]
    left, right, bottom, top = drawn.axes[0].images[-1].get_extent()
    frame = shown.get_extent()
    assert min(frame[:2]) < left < right < max(frame[:2])
    assert min(frame[2:]) < bottom < top < max(frame[2:])


def test_what_does_not_count_is_covered_and_determines_no_window() -> None:
    pair = volume_pair()
    mask = torch.ones(1, 10, 12, 8)
    mask[:, 7:] = 0
    padded = {**pair, **{key: torch.where(mask > 0, pair[key], -50.0) for key in ("fixed", "moving")}}
    drawn = pair_figure(**padded, masks=[mask, mask, mask])
    (axes,) = drawn.axes
    for row in range(2):
        assert sorted(covers_of(drawn, row)) == [0, 1, 2, 3, 4]
    assert not covers_of(drawn, 2)  # the sagittal plane, index 3, has none of it
    for cover in covers_of(drawn).values():
        np.testing.assert_array_equal(cover, np.arange(10)[None].repeat(12, 0) >= 7)
    inside = torch.cat([padded[key][mask > 0] for key in ("fixed", "moving")])
    assert axes.images[0].get_clim() == pytest.approx(np.percentile(inside, [0.5, 99.5]), rel=1e-5)
    difference = (padded["fixed"] - padded["moving"]).abs()[mask > 0]
    assert axes.images[3].get_clim()[1] == pytest.approx(float(np.percentile(difference, 99.5)), rel=1e-5)


def test_what_the_moving_image_does_not_reach_is_covered() -> None:
    """The field moves by a voxel along the first axis, whose last plane it takes beyond the image."""
    found = covers_of(pair_figure(**volume_pair()))
    assert sorted(found) == [2, 4]  # the warped image and its difference
    for cover in found.values():
        np.testing.assert_array_equal(cover, np.arange(10)[None].repeat(12, 0) == 9)


def test_what_counts_of_the_moving_image_counts_where_the_field_takes_it() -> None:
    mask = torch.ones(1, 10, 12, 8)
    mask[:, :3] = 0
    found = covers_of(pair_figure(**volume_pair(), masks=[None, mask]))
    assert sorted(found) == [1, 2, 3, 4]
    for column, first in ((1, 3), (2, 2), (3, 3), (4, 2)):
        beyond = 10 if column in (1, 3) else 9
        columns = np.arange(10)[None].repeat(12, 0)
        np.testing.assert_array_equal(found[column], (columns < first) | (columns >= beyond))


def arrows_of(drawn: Figure) -> list[Polygon]:
    """Return the arrows on the scale of the displacement."""
    return [one for one in drawn.axes[0].patches if isinstance(one, Polygon)]


def test_an_arrow_and_the_title_tell_displacements_beyond_the_scale() -> None:
    pair = volume_pair()
    assert not arrows_of(pair_figure(**pair))
    pair["ddf"][1, 5, 6, 3] = 4.5  # of one voxel, 8 mm long with the other component
    pair["ddf"][0, 5, 6, 3] = 0.0
    pair["ddf"][2, 5, 6, 3] = 10.0
    drawn = pair_figure(**pair)
    (arrow,) = arrows_of(drawn)
    bar = drawn.axes[0].images[-1]
    left, right, _, top = bar.get_extent()
    corners = arrow.get_xy()
    assert (corners[:, 0].min(), corners[:, 0].max(), corners[:, 1].min()) == pytest.approx((left, right, top))
    assert images_of(drawn)[0, 5].get_clim() == (0.0, 1.0)  # mm
    assert titles_of(drawn)[5].startswith(f"displacement to {41.0:.3g} mm\n")  # 9 and 40 mm


def test_planes_lie_in_the_mask_where_there_are_no_labels() -> None:
    pair = {key: one for key, one in volume_pair().items() if not key.endswith("label")}
    mask = torch.zeros(1, 10, 12, 8)
    mask[:, 7:9, 2:11, 6] = 1
    drawn = pair_figure(**pair, masks=[mask])
    np.testing.assert_array_equal(drawn.axes[0].images[0].get_array(), pair["fixed"][0, ..., 6].T)


def test_lines_from_points_show_their_errors() -> None:
    """The axial plane is 2; the field moves by one voxel along the first axis."""
    fixed = torch.tensor([[4.0, 5.0, 2.0], [3.0, 4.0, 7.0]])  # the second one lies elsewhere
    moving = fixed + torch.tensor([3.0, 2.0, 0.0])
    drawn = pair_figure(**volume_pair(), points=(fixed, moving))
    found = []
    for image, lines in zip(images_of(drawn)[0][:3], lines_of(drawn)[5:8], strict=True):
        (line,) = lines.get_segments()
        left, right, bottom, top = image.get_extent()
        voxels = (line - [left, bottom]) / [(right - left) / 10, (top - bottom) / 12] - 0.5
        found.append(voxels.round(4).tolist())
    assert found == [[[4, 5], [4, 5]], [[4, 5], [7, 7]], [[4, 5], [6, 7]]]


def titles_of(drawn: Figure) -> list[str]:
    """Return the titles of the columns and of the page, which come last."""
    texts = [text.get_text() for text in drawn.axes[0].texts]
    return texts[next(number for number, text in enumerate(texts) if text.startswith("fixed\n")) :]


def test_titles_give_measures_before_and_after() -> None:
    drawn = pair_figure(**volume_pair(), title="a_to_b")
    titles = titles_of(drawn)
    labels = [int(label) for label in volume_pair()["fixed_label"].unique() if label]
    key = {text.get_text(): text.get_color() for text in drawn.axes[0].texts}
    assert {str(label): figure.COLORS[label - 1] for label in labels}.items() <= key.items()
    assert titles[0] == "fixed\noutlines: — own, ··· fixed labels"
    assert titles[1].startswith("moving\nDSC 0.667, NCC 0.")
    assert titles[2] == "warped\nDSC 1.000, NCC 1.000"
    assert titles[5:] == ["displacement to 1 mm\nas a grid, folding 0 %", "a_to_b"]


def test_landmark_errors_are_in_the_titles_and_the_moving_image_is_the_aligned_one() -> None:
    known = {"ncc_before": 0.1, "ncc_aligned": 0.2, "ncc": 0.75, "folding_percent": 3.0}
    known |= {"tre_before": 9.0, "tre_aligned": 4.0, "tre": 1.234}
    titles = titles_of(pair_figure(**volume_pair(), metrics=known))
    assert titles[1:3] == ["moving, aligned\nNCC 0.200, TRE 4.00 mm", "warped\nNCC 0.750, TRE 1.23 mm"]
    assert titles[3] == "|fixed - aligned|\nbefore"
    assert titles[5] == "displacement to 1 mm\nafter alignment, folding 3 % (red)"


def test_the_moving_image_as_it_was_given_has_a_column_of_its_own() -> None:
    pair, mask = volume_pair(), torch.ones(1, 10, 12, 8)
    mask[:, 6:] = 0
    fixed = torch.tensor([[4.0, 5.0, 2.0]])
    image, label = (pair[key].roll(2, 1) for key in ("moving", "moving_label"))
    far = DrawnImage(image, label, mask, fixed + torch.tensor([5.0, 0, 0]))
    known = {"ncc_before": 0.1, "ncc_aligned": 0.2, "ncc": 0.75, "folding_percent": 3.0}
    drawn = pair_figure(**pair, metrics=known, given=far, points=(fixed, fixed + 1))
    (axes,) = drawn.axes
    flat = [image for image in axes.images if image.get_array().ndim == 2][:7]
    names = ["fixed", "as given", "moving", "warped"]
    assert [image.get_label() for image in flat[:4]] == names
    np.testing.assert_array_equal(flat[1].get_array(), far.image[0, ..., 2].T)
    (cover,) = [one for one in axes.images if one.get_array().ndim == 3 and one.get_extent() == flat[1].get_extent()]
    np.testing.assert_array_equal(cover.get_array()[..., 3] > 0, np.arange(10)[None].repeat(12, 0) >= 6)
    titles = [text.get_text() for text in axes.texts if text.get_text().startswith(("fixed", "moving", "warped"))]
    assert titles[1:] == ["moving, as given\nNCC 0.100", "moving, aligned\nNCC 0.200", "warped\nNCC 0.750"]
    contours = lines_of(drawn)[:7]
    outer = [
        edges(one.get_segments()[0], flat[panel]) for one, panel in zip(contours, (0, 1, 1, 2, 2, 3, 3), strict=True)
    ]
    assert outer[1] == ([5.5, 3.5], [8.5, 8.5])  # moved by three voxels
    assert outer[0] == outer[2] == outer[4] == outer[6] == ([2.5, 3.5], [5.5, 8.5])
    (line,) = lines_of(drawn)[8].get_segments()
    left, right, _, _ = flat[1].get_extent()
    assert np.ptp(line, axis=0) / [(right - left) / 10, 1] == pytest.approx([5.0, 0.0])
    places = panels_of(drawn)
    width = drawn.get_size_inches()[0]
    assert places["warped"][0] * width == pytest.approx(flat[3].get_extent()[0])


def test_labels_of_the_moving_image_alone_are_drawn() -> None:
    """As when an atlas brings its labels to a patient who has none."""
    pair = volume_pair()
    del pair["fixed_label"]
    drawn = pair_figure(**pair)
    _, moving, warped = images_of(drawn)[0][:3]
    for lines, image, corners in zip(
        lines_of(drawn)[:2], (moving, warped), (([3.5, 3.5], [6.5, 8.5]), ([2.5, 3.5], [5.5, 8.5])), strict=True
    ):
        (line,) = lines.get_segments()
        assert edges(line, image) == corners
    assert "2" in [text.get_text() for text in drawn.axes[0].texts]
    assert titles_of(drawn)[0] == "fixed\n"


def test_titles_and_numbers_of_labels_have_room() -> None:
    """A long name, large errors and numbers of many digits; what looks like mathematics is text."""
    pair = volume_pair()
    for key in ("fixed_label", "moving_label"):
        pair[key] = pair[key].int()
        pair[key][0, :, 0] = 11100 + torch.arange(10)[:, None]
    known = dict.fromkeys(("dsc_before", "dsc", "ncc_before", "ncc"), 0.875)
    known |= {"tre_before": 1234.56, "tre": 1234.56, "folding_percent": 12.5}
    drawn = pair_figure(**pair, metrics=known, title="$a_b$ " + "patient_0000_follow_up_" * 12)
    (axes,) = drawn.axes
    boxes = [text.get_window_extent().transformed(axes.transData.inverted()) for text in axes.texts]
    *columns, page = boxes[-7:]
    width, height = drawn.get_size_inches()
    assert 0 < page.x0 < page.x1 < width
    assert page.y0 > max(box.y1 for box in columns)
    assert page.y1 < height
    for one, following in pairwise(columns):
        assert one.x1 < following.x0
    left, right = sorted(images_of(drawn)[0, 0].get_extent()[:2])
    key = [box for box, text in zip(boxes, axes.texts, strict=True) if text.get_text() in ("2", "...", "11100")]
    assert len(key) == 3
    numbers = [box for box in boxes if box.y0 < key[0].y1 and box.x1 < right + 1 and box.y1 < columns[0].y0]
    for one, following in pairwise(sorted((box for box in numbers if box.x0 < right), key=lambda box: box.x0)):
        assert one.x1 < following.x0
    assert left < min(box.x0 for box in key)
    assert max(box.x1 for box in key) < right


def test_measures_that_are_known_are_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "pair_metrics", None)
    known = {"dsc_before": 0.25, "dsc": 0.5, "ncc_before": 0.125, "ncc": 0.75, "folding_percent": 3.0}
    titles = titles_of(pair_figure(**volume_pair(), metrics=known))
    assert titles[1:3] == ["moving\nDSC 0.250, NCC 0.125", "warped\nDSC 0.500, NCC 0.750"]
    assert titles[5] == "displacement to 1 mm\nas a grid, folding 3 % (red)"


def test_windows_of_a_large_image_are_those_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "WINDOW_VOXELS", 1000)
    draw = np.random.default_rng(0)
    fixed, moving = (draw.uniform(size=(40, 44, 48)).astype(np.float32) for _ in range(2))
    gray, strongest = figure._windows(fixed, moving)
    assert gray.tolist() == pytest.approx([0.005, 0.995], abs=0.01)
    assert strongest == pytest.approx(1 - np.sqrt(0.005), abs=0.03)  # of the difference of two uniform numbers


def corner(image: Any, column: int, row: int) -> tuple[bool, bool]:
    """Return whether a voxel of a plane is seen on the right half and on the upper half of its panel."""
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    across, up = left + (column + 0.5) / columns * (right - left), bottom + (row + 0.5) / rows * (top - bottom)
    return across > (left + right) / 2, up > (bottom + top) / 2


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_volume_lies_as_radiologists_look_at_it(signs: tuple[int, ...], order: tuple[int, ...]) -> None:
    """Right is at the left of the page, front at the top of an axial plane and left of a sagittal one, head up."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag(signs)[:, order]  # array axis k runs along world axis order[k]
    pair = {key: one for key, one in volume_pair().items() if not key.endswith("label")}
    drawn = pair_figure(**pair, affine=affine)
    for number, (across, upward) in enumerate(((0, 1), (0, 2), (1, 2))):
        for image in images_of(drawn)[number]:
            height, width = image.get_array().shape
            column = width - 1 if signs[across] > 0 else 0  # the voxel furthest along +world
            row = height - 1 if signs[upward] > 0 else 0
            assert corner(image, column, row) == (False, True)
        # the field takes all points one voxel further along the first axis, and the grid with them
        points = np.concatenate(lines_of(drawn)[number].get_segments())
        frame = lines_of(drawn)[-1].get_segments()[6 * number + 5]
        shift = (points.min(axis=0) + points.max(axis=0) - frame.min(axis=0) - frame.max(axis=0)) / 2
        along = [-signs[across] * (order[0] == across), signs[upward] * (order[0] == upward)]
        assert np.sign(np.round(shift, 4)).tolist() == along


def test_without_affine_first_voxel_is_at_the_lower_left() -> None:
    for image in images_of(pair_figure(**volume_pair())).ravel():
        assert corner(image, 0, 0) == (False, False)


def test_a_plane_image_has_its_first_row_on_top() -> None:
    pair = {key: value[..., 3] for key, value in volume_pair().items() if key != "spacing"}
    pair["ddf"] = pair["ddf"][:2]
    drawn = pair_figure(**pair, spacing=[1.0, 2.0])
    ((*images,),) = images_of(drawn)
    assert len(lines_of(drawn)[-1].get_segments()) == 6
    for image in images:
        assert corner(image, 0, 0) == (False, True)
    np.testing.assert_array_equal(images[0].get_array(), pair["fixed"][0].T)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("head", [0, 1])
def test_a_sagittal_slice_has_the_head_on_top_and_the_front_on_the_left(head: int, direction: int) -> None:
    affine = np.zeros((4, 4))
    affine[2, head], affine[1, 1 - head] = direction, direction
    affine[0, 2] = affine[3, 3] = 1
    pair = {key: value[..., 3] for key, value in volume_pair().items() if key != "spacing"}
    pair["ddf"] = pair["ddf"][:2]
    ((first, *others),) = images_of(pair_figure(**pair, spacing=[1.0, 2.0], affine=affine))
    shown = first.get_array()
    np.testing.assert_array_equal(shown, pair["fixed"][0] if head == 0 else pair["fixed"][0].T)
    last = (shown.shape[1] - 1, shown.shape[0] - 1)
    for image in (first, *others):
        assert corner(image, *(last if direction > 0 else (0, 0))) == (False, True)


FLAT = {"ncc_before": 0.0, "ncc": 0.0, "folding_percent": 0.0}


@pytest.mark.parametrize("affine", [None, torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0]))])
def test_the_panels_of_the_page_show_their_images(affine: torch.Tensor | None) -> None:
    """The panel of an image that is white among black ones is white."""
    black, white = torch.zeros(1, 9, 8, 7), torch.ones(1, 9, 8, 7)
    for name, others in (("fixed", {"moving": black, "warped": black}), ("warped", {"moving": white, "fixed": black})):
        images = {name: white, **others}
        drawn = pair_figure(**images, ddf=torch.zeros(3, 9, 8, 7), spacing=[1.0, 2.0, 3.0], affine=affine, metrics=FLAT)
        with Image.open(io.BytesIO(png_of(drawn))) as page:
            pixels = np.asarray(page.convert("L"))
        for column, (left, top, right, bottom) in panels_of(drawn).items():
            height, width = pixels.shape
            box = pixels[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
            assert np.unique(box[3:-3, 3:-3]).tolist() == [255 if column == name else 0]  # inside of the outline


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_letters_name_the_directions_of_the_body(signs: tuple[int, ...], order: tuple[int, ...]) -> None:
    """Where a letter stands, the world coordinate of its direction is the larger one."""
    affine, shape = np.eye(4), (5, 6, 7)
    affine[:3, :3] = np.diag(signs)[:, order]  # array axis k runs along world axis order[k]
    world = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape))
    planes = figure.planes_through(np.ones(shape), affine)
    for plane in planes:
        left, top = (plane.cut(world["RAS".index(letter)]) for letter in plane.letters)
        assert (left[0, 0] < left[0, -1]) == plane.mirrored
        assert (top[0, 0] < top[-1, 0]) == plane.upright
    assert [plane.letters for plane in planes] == ["RA", "RS", "AS"]


@pytest.mark.parametrize("direction", [1, -1])
def test_letters_of_a_slice(direction: int) -> None:
    """A sagittal one has the front on the left; of one whose head is nowhere nothing is known."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = direction, direction, 1, 1
    assert figure.slice_plane(affine).letters == "AS"
    assert figure.slice_plane(np.eye(4)).letters == ""


def test_letters_are_at_the_edges_of_a_panel() -> None:
    known = [text.get_text() for text in pair_figure(**volume_pair(), affine=np.eye(4)).axes[0].texts]
    assert [text for text in known if text in [*"RLAPSI"]] == list("RLAPRLSIAPSI")
    unknown = [text.get_text() for text in pair_figure(**volume_pair()).axes[0].texts]
    assert [text for text in unknown if text in [*"RLAPSI"]] == []

"""The moving picture before and after: colors, orientation, proportion and file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.readers.cine import CineSeries
from monai_regplugins.series.animation import TITLE, animation_frames, write_animation

H, W = 128, 64


def series(frames, matrix=None, spacing=(1.0, 1.0), times=None):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3) if matrix is None else matrix
    return CineSeries(np.asarray(frames, dtype=np.float32), spacing, times, affine)


def blocks():
    """Frame 0 with a bright upper left quarter, frame 1 with a bright lower right one, frame 2 with both."""
    frames = np.zeros((3, H, W))
    frames[(0, 2), : H // 2, : W // 2] = 200
    frames[1:, H // 2 :, W // 2 :] = 200
    return frames


def corners(panel):
    """Color in the middle of each quarter of a panel: upper left, upper right, lower left, lower right."""
    h, w = panel.shape[0] // 4, panel.shape[1] // 4
    return [tuple(int(v) for v in panel[y, x]) for y in (h, 3 * h) for x in (w, 3 * w)]


def panels(picture):
    return np.split(picture[TITLE:], 3, axis=1)


BLACK, WHITE, GREEN, MAGENTA = (0, 0, 0), (255, 255, 255), (0, 255, 0), (255, 0, 255)


def test_colors_tell_the_differences():
    before = series(blocks())
    after = before.with_frames(np.broadcast_to(blocks()[0], blocks().shape))
    pictures = animation_frames(before, after, 0)
    assert pictures.shape == (3, 2 * H + TITLE, 3 * 2 * W, 3)  # enlarged by 2
    fixed, moving, warped = panels(pictures[1])
    assert corners(fixed) == [WHITE, BLACK, BLACK, BLACK]
    assert corners(moving) == [GREEN, BLACK, BLACK, MAGENTA]
    assert corners(warped) == corners(fixed)
    assert corners(panels(pictures[2])[1]) == [WHITE, BLACK, BLACK, MAGENTA]


@pytest.mark.parametrize(
    ("matrix", "place"),
    [
        (None, 0),  # the header states nothing: as stored
        ([[0, 0, -1], [0, -1, 0], [-1, 0, 0]], 0),  # rows down, columns back: as shown
        ([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], 1),  # columns to the front: mirrored
        ([[0, 0, 1], [0, -1, 0], [1, 0, 0]], 2),  # rows up: upside down
        ([[0, 0, 1], [-1, 0, 0], [0, 1, 0]], 2),  # first axis back, second up: turned
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], 3),  # coronal, columns to the right, rows up: both
    ],
)
def test_the_head_is_on_top_and_the_front_on_the_left(matrix, place):
    """The bright upper left quarter of the file goes to the quarter ``place`` of the picture."""
    frames = np.zeros((2, H, H))
    frames[:, : H // 2, : H // 2] = 200
    toy = series(frames, matrix)
    colors = corners(panels(animation_frames(toy, toy, 0)[0])[0])
    assert [color == WHITE for color in colors] == [number == place for number in range(4)]


def test_pixels_become_square():
    toy = series(blocks(), spacing=(1.0, 2.5))
    assert animation_frames(toy, toy, 0).shape[1:3] == (2 * H + TITLE, 3 * 2 * 160)


def test_file(tmp_path):
    times = 0.4 * np.arange(3)
    toy = series(blocks(), times=times)
    write_animation(toy, toy, 0, tmp_path / "new" / "a.gif")
    with Image.open(tmp_path / "new" / "a.gif") as movie:
        assert movie.n_frames == 3
        assert movie.info["duration"] == 400
        assert movie.info["loop"] == 0
        movie.seek(1)
        got = np.asarray(movie.convert("RGB"))
    expected = animation_frames(toy, toy, 0)[1]
    assert np.abs(got.astype(int) - expected)[TITLE:].mean() < 8  # a palette of 128 colors
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["a.gif"]


def test_refused(tmp_path):
    toy = series(blocks())
    with pytest.raises(InputError, match=r"ends in \.gif"):
        write_animation(toy, toy, 0, tmp_path / "a.png")
    with pytest.raises(InputError, match="fixed frame is 3, expected 0 to 2"):
        write_animation(toy, toy, 3, tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"aligned series has shape \(2, 128, 64\)"):
        write_animation(toy, series(blocks()[:2]), 0, tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []

"""The picture of motion separability."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.figures.separability import separability_figure
from monai_regplugins.metrics.separability import MotionSeparability

BOUNDS = {f"q = {q}": MotionSeparability.motion_aware(q) for q in (0, 4)}


def test_bounds_are_drawn_as_steps() -> None:
    left, right = separability_figure(BOUNDS).axes
    for (name, bound), ranges, steps in zip(BOUNDS.items(), left.lines, right.lines, strict=True):
        assert ranges.get_label() == name
        assert tuple(ranges.get_ydata()) == bound.ranges
        assert steps.get_drawstyle() == "steps-post"
        p, drawn = steps.get_data()
        assert [bound.difference(distance) for distance in p] == list(drawn)
        assert max(p) >= 60


def test_densities_share_one_window_and_differences_another() -> None:
    densities = {name: np.random.default_rng(k).random((7, 5)) * (k + 1) for k, name in enumerate([*BOUNDS, "other"])}
    figure = separability_figure(BOUNDS, densities)
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["q = 0", "q = 4", "other", "q = 4 - q = 0", "other - q = 4"]
    highest = max(density.max() for density in densities.values())
    for axes, density in zip(maps, densities.values(), strict=False):
        np.testing.assert_array_equal(axes.images[0].get_array(), density.T)
        assert axes.images[0].get_clim() == (0, highest)
        assert axes.images[0].get_extent() == [0.5, 7.5, 0, 5]
    limits = [line.get_ydata() for axes in maps for line in axes.lines]
    assert [list(one) for one in limits] == [[bound.difference(p) for p in range(1, 8)] for bound in BOUNDS.values()]
    first, second = (axes.images[0] for axes in maps[3:])
    np.testing.assert_array_equal(first.get_array(), (densities["q = 4"] - densities["q = 0"]).T)
    assert first.get_clim() == second.get_clim()
    assert sum(first.get_clim()) == 0


def test_a_single_empty_density() -> None:
    figure = separability_figure(BOUNDS, {"q = 0": np.zeros((4, 3))})
    (axes,) = [one for one in figure.axes if one.images]
    assert axes.images[0].get_clim() == (0, 1)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=40)
    with Image.open(stream) as image:
        assert image.size == (40 * 9, 40 * 7.2)


def test_densities_of_several_shapes_are_refused() -> None:
    for bounds, densities in ((BOUNDS, {"a": np.zeros((4, 3)), "b": np.zeros((4, 4))}), ({}, None)):
        with pytest.raises(InputError, match="no bounds, or densities of several shapes"):
            separability_figure(bounds, densities)

"""Local transformations as files: they give the field back, and the ellipses lie where the Gaussians do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_files import files_of

from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms, field, from_json
from monai_regplugins.outputs.local_transforms import LocalTransformsWriter, _contour, local_transforms_figure
from monai_regplugins.result import RegistrationResult


def transforms(steps: int = 3, d: int = 2) -> LocalTransforms:
    rotation = torch.rand(1, steps, 1) if d == 2 else torch.nn.functional.normalize(torch.randn(1, steps, 4), dim=-1)
    return LocalTransforms(
        torch.rand(1, steps, d) - 0.5, 0.1 + 0.2 * torch.rand(1, steps, d), rotation, 0.1 * torch.randn(1, steps, d)
    )


def test_files_of_a_pair(tmp_path: Path) -> None:
    found = transforms()
    pred = {name: values[0] for name, values in found._asdict().items()}
    targets = {"fixed": torch.rand(1, 20, 24), "spacing": torch.tensor([1.0, 2.0])}
    item = {"pair_id": "b_to_a", "fixed": targets["fixed"]}
    LocalTransformsWriter()(RegistrationResult(item, {"pred": pred, "label": targets}), tmp_path)
    read = from_json(json.loads((tmp_path / "transformations.json").read_text()))
    torch.testing.assert_close(field(read, [30, 30]), field(found, [30, 30]))
    assert (tmp_path / "transformations.png").read_bytes().startswith(b"\x89PNG")


def test_beside_an_optimized_field_they_are_named_as_those_of_the_network(tmp_path: Path) -> None:
    pred = {name: values[0] for name, values in transforms()._asdict().items()}
    targets = {"fixed": torch.rand(1, 20, 24), "spacing": torch.tensor([1.0, 2.0])}
    refined = {**pred, "refinement": torch.tensor([0.5, 0.4])}
    item = {"pair_id": "b_to_a", "fixed": targets["fixed"]}
    LocalTransformsWriter()(RegistrationResult(item, {"pred": refined, "label": targets}), tmp_path)
    assert files_of(tmp_path) == ["network_transformations.json", "network_transformations.png"]


def test_ellipse_of_one_gaussian() -> None:
    alpha, size = math.pi / 6, [41, 61]
    one = LocalTransforms(
        torch.tensor([[[0.2, -0.3]]]), torch.tensor([[[0.2, 0.1]]]), torch.tensor([[[alpha]]]), torch.ones(1, 1, 2)
    )
    figure = local_transforms_figure(one, torch.rand(1, *size), [1.0, 1.0], panels=1)
    page = figure.axes[-1]
    left, right, first, last = page.images[1].get_extent()  # of the only step; ends of the rows and of the columns
    places = page.collections[0].get_paths()[1].vertices
    ellipse = (places - (left, first)) / (right - left, last - first) * size - 0.5  # first axis across
    bell = field(one, size)[0, 0] / ((size[0] - 1) / 2)  # v is one
    for row, column in ellipse[::8]:
        if 1 <= row < size[0] - 2 and 1 <= column < size[1] - 2:
            assert bell[round(row), round(column)] == pytest.approx(math.exp(-2), abs=0.03)


def test_contour_is_at_two_deviations() -> None:
    covariance, center = np.array([[4.0, 1.0], [1.0, 2.0]]), np.array([3.0, -1.0])
    offset = _contour(covariance, center) - center
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(covariance), offset), 4.0)


def test_volumes_are_drawn_too() -> None:
    figure = local_transforms_figure(transforms(12, 3), torch.rand(1, 16, 18, 20), [1.0, 1.0, 2.0])
    assert len(figure.axes[0].lines) == 3


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [1]), (12, list(range(1, 13))), (25, [1, 3, 5, 8, 10, 12, 14, 16, 18, 21, 23, 25])]
)
def test_the_last_step_is_drawn(steps: int, expected: list[int]) -> None:
    drawn = local_transforms_figure(transforms(steps), torch.rand(1, 20, 24), [1.0, 1.0])
    titles = [text.get_text() for text in drawn.axes[-1].texts[1:]]
    assert titles == [f"t = {number}" for number in expected]


def test_the_image_is_seen_beside_a_single_bright_pixel() -> None:
    image = torch.rand(1, 20, 24)
    image[0, 3, 3] = 1e6
    drawn = local_transforms_figure(transforms(), image, [1.0, 1.0])
    assert all(shown.get_clim()[1] < 2 for shown in drawn.axes[-1].images)


@pytest.mark.parametrize("head", [1.0, -1.0])
def test_the_ellipse_lies_on_the_voxels_that_the_affine_turns(head: float) -> None:
    image = torch.zeros(1, 21, 41)
    image[0, 15, 30] = 1.0
    affine = torch.tensor([[2.0, 0, 0, 0], [0, 0, 1, 0], [0, head, 0, 0], [0, 0, 0, 1]])  # second axis towards the head
    place = torch.tensor([[[30 / 20 - 1, 15 / 10 - 1]]])
    one = LocalTransforms(place, torch.full((1, 1, 2), 0.1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 2))
    page = local_transforms_figure(one, image, [2.0, 1.0], affine).axes[-1]
    page.figure.canvas.draw()
    shown = page.images[1]
    row, column = np.argwhere(np.asarray(shown.get_array()) == 1)[0]
    left, right, first, last = shown.get_extent()
    rows, columns = shown.get_array().shape
    voxel = (left + (column + 0.5) / columns * (right - left), first + (row + 0.5) / rows * (last - first))
    np.testing.assert_allclose(page.collections[0].get_paths()[1].vertices[:-1].mean(axis=0), voxel, atol=1e-6)
    assert (last > first) == (head > 0)  # the head on top
    assert left > right  # the right of the body on the left
    assert abs((last - first) / (right - left)) == pytest.approx(41 / 42)


def test_nothing_is_drawn_beyond_an_image() -> None:
    edge = torch.tensor([[[1.0, 0.0]]])
    one = LocalTransforms(edge, torch.full((1, 1, 2), 0.2), torch.zeros(1, 1, 1), torch.zeros(1, 1, 2))
    page = local_transforms_figure(one, torch.rand(1, 21, 41), [1.0, 1.0]).axes[-1]
    left, right, first, last = page.images[1].get_extent()
    across, up = page.collections[0].get_paths()[1].vertices.T
    assert np.isnan(across).any()
    assert left <= np.nanmin(across) <= np.nanmax(across) <= right
    assert last >= np.nanmax(up) >= np.nanmin(up) >= first or first >= np.nanmax(up) >= np.nanmin(up) >= last

"""Self-similarity context, by loops over voxels; channels of scripted modules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.losses.descriptors import mind_ssc, scripted_descriptors


def naive(image: np.ndarray, weights: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """By the definition; an image beyond whose border the border voxels continue, patches cut at the image."""
    d, sizes = image.ndim, image.shape
    steps = [sign * dilation * np.eye(d, dtype=int)[axis] for axis in range(d) for sign in (-1, 1)]
    pairs = [(a, b) for a, b in itertools.combinations(steps, 2) if a @ b == 0]
    patch = list(itertools.product(range(-radius, radius + 1), repeat=d))
    distances = np.zeros((len(pairs), *sizes))
    for x in np.ndindex(*sizes):
        for channel, (a, b) in enumerate(pairs):
            total = extent = 0.0
            for p in patch:
                y = np.add(x, p)
                if ((y < 0) | (y >= sizes)).any():
                    continue
                i, j = (tuple(np.clip(y + step, 0, np.subtract(sizes, 1))) for step in (a, b))
                total += weights[i] * weights[j] * (image[i] - image[j]) ** 2
                extent += weights[i] * weights[j]
            distances[(channel, *x)] = total / max(extent, 1e-6)
    distances -= distances.min(axis=0)
    variance = distances.mean(axis=0)
    mean = (variance * weights).sum() / weights.sum()
    return np.exp(-distances / np.clip(variance, mean / 1e3, mean * 1e3))


@pytest.mark.parametrize(("radius", "dilation"), [(1, 1), (2, 2)])
@pytest.mark.parametrize(("size", "channels"), [((7, 6), 4), ((3, 2, 4), 12)])
def test_the_definition(size: tuple[int, ...], channels: int, radius: int, dilation: int) -> None:
    image, weights = torch.rand(2, 1, 1, *size, dtype=torch.float64)
    weights = 0.1 + weights
    found, seen = mind_ssc(image, weights, radius, dilation)
    assert found.shape == (1, channels, *size)
    np.testing.assert_allclose(found[0], naive(image[0, 0].numpy(), weights[0, 0].numpy(), radius, dilation))
    assert torch.equal(seen, weights)


def test_what_is_masked_has_no_influence() -> None:
    image, mask = torch.rand(1, 1, 12, 14), torch.ones(1, 1, 12, 14)
    mask[..., 8:] = 0
    (found, seen), (other, _) = (mind_ssc(image + noise * (1 - mask), mask) for noise in (0, 50))
    assert torch.equal(seen, mask)
    torch.testing.assert_close(found[..., :8], other[..., :8])


def test_a_lone_voxel_has_no_descriptor() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    assert not mind_ssc(torch.rand(1, 1, 9, 9), mask)[1].any()


def test_a_flat_image_has_finite_descriptors() -> None:
    assert torch.equal(mind_ssc(torch.ones(1, 1, 6, 6))[0], torch.ones(1, 4, 6, 6))


def test_channels_of_a_module() -> None:
    module = torch.nn.Conv2d(1, 3, 3, padding=1)
    image = torch.rand(1, 1, 8, 9)
    found = scripted_descriptors(torch.jit.script(module), image)
    expected = module(image).detach()
    torch.testing.assert_close(found * expected.std(correction=0), expected)


class _Logarithm(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (-image).log()


@pytest.mark.parametrize(
    ("module", "message"),
    [(torch.nn.AvgPool2d(2), r"returns \(1, 1, 4, 4\)"), (_Logarithm(), "returns NaN or infinity")],
)
def test_unusable_modules(module: torch.nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scripted_descriptors(torch.jit.script(module), torch.rand(1, 1, 8, 8))

"""B-spline free-form deformation per pair, the baseline of R2N2.

Sandkuehler et al. 2019, section 4, "Experiments": three resolutions, masked mean squared error, isotropic total
variation, Adam with AMSGrad. The paper gives "a kernel size of (7, 21, 57) pixels" at 64, 128 and 256 pixels and no
distance between the nodes, but says that 25 local transformations of 7 numbers take 7.6 % of the parameters of the
spline. That holds for 34 x 34 nodes, 175 / 2312, hence 8 pixels apart. The default here is this lattice at every
resolution, 2, 4 and 8 pixels apart, under cubic splines: a reading of the paper, not its words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_image, check_minimum_size
from monai_regplugins.losses import isotropic_tv, masked_mse
from monai_regplugins.losses.numerics import at_least_float32, check_spatial_match

__all__ = ["SPACINGS", "BSplineResult", "control_points", "register_bspline"]

SPACINGS = {"lattice": (2, 4, 8), "kernel": (7, 21, 57)}  # the default, and the paper's kernel sizes taken as spacings
CLAMP = 2.0  # standard deviations; the same intensities as R2N2 is trained on


class BSplineResult(NamedTuple):
    """Outcome of :func:`register_bspline`.

    Attributes:
        ddf: ``(B, d, *spatial)`` in voxels.
        parameters: numbers that describe the transformation of one pair at the finest resolution.
        losses: loss before each step, ``(levels, iterations, B)``.
    """

    ddf: torch.Tensor
    parameters: int
    losses: torch.Tensor


def control_points(size: int, spacing: int) -> int:
    """Return how many nodes span ``size`` pixels, one beyond either end: ``ceil(size / spacing) + 2``."""
    return math.ceil(size / spacing) + 2


def register_bspline(
    moving: torch.Tensor,
    fixed: torch.Tensor,
    *,
    shrink: Sequence[int] = (4, 2, 1),
    spacing: Sequence[int] = SPACINGS["lattice"],
    order: int = 3,
    iterations: int = 250,
    learning_rate: float = 1e-3,
    smoothness_weight: float = 0.01,
    normalize: bool = True,
) -> BSplineResult:
    r"""Register pairs of images by free-form deformation, from coarse to fine.

    At each resolution the field f, in halves of the image, is the one found so far plus a spline,

    .. math::
        f(x) = f_{coarse}(x) + \sum_k c_k \prod_a \beta^n\Big(\frac{x_a - x_{k,a}}{s}\Big),

    and the nodes c minimize, by Adam with AMSGrad from zero,

    .. math::
        L = \frac{\sum_x m(x) \, (F(x) - M(x + f(x)))^2}{\max(\sum_x m(x), 1)} + \lambda \, TV(f), \qquad
        TV(f) = \underset{c,x}{\mathrm{mean}} \sqrt{\sum_a (f_c(x) - f_c(x - e_a))^2},

    m marking the pixels whose sampling point lies in the moving image (Sandkuehler et al. 2019, section 4 and Eq. 1).
    The pairs of a batch do not influence each other. It runs on the device of the images, also under ``no_grad``;
    no gradient reaches the images.

    Args:
        moving: images to deform, ``(B, 1, *spatial)``, 2D or 3D.
        fixed: images to match, the same shape.
        shrink: how much smaller the images are at each resolution, coarsest first.
        spacing: distance s of the nodes at each resolution, in pixels of that resolution; see ``SPACINGS``.
        order: degree n of the splines, 1 to 3.
        iterations: steps at each resolution.
        learning_rate: of Adam, in halves of the image.
        smoothness_weight: lambda.
        normalize: bring each image to mean 0 and standard deviation 1, and clamp it to [-2, 2].

    Returns:
        The :class:`BSplineResult`, in float32, or in float64 if the images are.

    Raises:
        InputError: The images do not match, are constant, not finite or too small, or an option is out of range.
    """
    _check_images(moving, fixed, shrink)
    _check_options(shrink, spacing, order, iterations, learning_rate, smoothness_weight)
    shape = list(fixed.shape[2:])
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(fixed.device.type, enabled=False):
        images = at_least_float32(torch.stack([moving, fixed]).detach())
        M, F = _standardized(images) if normalize else images
        ddf = M.new_zeros(len(M), len(shape), *_shrunken(shape, shrink[0]))
        losses = M.new_zeros(len(shrink), iterations, len(M))
        for factor, s, history in zip(shrink, spacing, losses, strict=True):
            coarse = fields.resize(ddf, _shrunken(shape, factor), align_corners=True)
            bases = [_basis(n, s, order, M) for n in coarse.shape[2:]]
            level = _resample(M, factor), _resample(F, factor)
            ddf = _register_level(*level, coarse, bases, learning_rate, smoothness_weight, history)
    parameters = len(shape) * math.prod(basis.shape[1] for basis in bases)
    return BSplineResult(fields.resize(ddf, shape, align_corners=True), parameters, losses)


def _register_level(
    moving: torch.Tensor,
    fixed: torch.Tensor,
    coarse: torch.Tensor,
    bases: list[torch.Tensor],
    learning_rate: float,
    smoothness_weight: float,
    history: torch.Tensor,
) -> torch.Tensor:
    """Optimize the nodes of one resolution on top of a frozen field; write the losses into ``history``."""
    half = fixed.new_tensor([(n - 1) / 2 for n in fixed.shape[2:]]).view(-1, *[1] * len(bases))
    nodes = coarse.new_zeros(*coarse.shape[:2], *[basis.shape[1] for basis in bases], requires_grad=True)
    optimizer = torch.optim.Adam([nodes], lr=learning_rate, amsgrad=True)
    for losses in history:
        ddf = coarse + _spline(nodes * half, bases)
        loss = masked_mse(moving, fixed, ddf) + smoothness_weight * isotropic_tv(ddf)
        optimizer.zero_grad()
        loss.sum().backward()  # Adam works on each number alone, so the sum keeps the pairs independent
        optimizer.step()
        losses.copy_(loss.detach())
    return coarse + _spline(nodes.detach() * half, bases)


def _spline(nodes: torch.Tensor, bases: list[torch.Tensor]) -> torch.Tensor:
    """Evaluate the spline of ``nodes`` ``(B, d, *nodes)`` on the pixels, axis by axis: ``(B, d, *spatial)``.

    The same as a transposed convolution of the nodes with the kernel, of stride ``spacing``, since that is separable.
    """
    values = nodes
    for basis in bases:
        values = torch.tensordot(values, basis, dims=([2], [1]))  # takes an axis off the front and appends it
    return values


def _basis(size: int, spacing: int, order: int, like: torch.Tensor) -> torch.Tensor:
    """Return each node's spline at each pixel of an axis, ``(size, nodes)``, the nodes centered on the axis.

    Rows sum to one, but for order 3 in the outermost half spacing, where up to 1/48 is missing: there the next node
    outside would reach in.
    """
    count = control_points(size, spacing)
    pixels = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    nodes = (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * spacing
    return _cardinal_bspline((pixels[:, None] - nodes) / spacing, order).to(like)


def _cardinal_bspline(t: torch.Tensor, order: int) -> torch.Tensor:
    r"""B-spline on the integers, centered: :math:`\sum_j (-1)^j \binom{n+1}{j} (\frac{n+1}{2} - |t| - j)_+^n / n!`."""
    reach = (order + 1) / 2 - t.abs()  # measured from the end of the support, so that nothing is left beyond it
    terms = [(-1) ** j * math.comb(order + 1, j) * (reach - j).clamp_min(0) ** order for j in range(order + 2)]
    return torch.stack(terms).sum(dim=0) / math.factorial(order)


def _resample(image: torch.Tensor, factor: int) -> torch.Tensor:
    """Smooth an image (standard deviation ``factor / 2`` pixels) and resample it on a coarser grid, same corners."""
    if factor == 1:
        return image
    d = image.ndim - 2
    kernel = gaussian_1d(torch.tensor(factor / 2)).to(image)
    smooth = separable_filtering(image, [kernel / kernel.sum()] * d, mode="replicate")
    size = _shrunken(list(image.shape[2:]), factor)
    return functional.interpolate(smooth, size=size, mode="bilinear" if d == 2 else "trilinear", align_corners=True)


def _shrunken(shape: list[int], factor: int) -> list[int]:
    """Size of an image at one resolution."""
    return [math.ceil(n / factor) for n in shape]


def _standardized(images: torch.Tensor) -> torch.Tensor:
    """Bring each image of ``(2, B, 1, *spatial)`` to mean 0 and standard deviation 1, outliers clamped."""
    std, mean = torch.std_mean(images, dim=tuple(range(2, images.ndim)), keepdim=True)
    return ((images - mean) / std).clamp(-CLAMP, CLAMP)


def _check_images(moving: torch.Tensor, fixed: torch.Tensor, shrink: Sequence[int]) -> None:
    """Check what :func:`register_bspline` is to work on."""
    check_spatial_match(moving, fixed, "moving", "fixed")
    for name, images in (("moving image", moving), ("fixed image", fixed)):
        for image in images:
            check_image(image.detach(), name, images.ndim - 2)
    check_minimum_size(list(fixed.shape[2:]), 2 * max(shrink, default=1), "fixed image")


def _check_options(
    shrink: Sequence[int],
    spacing: Sequence[int],
    order: int,
    iterations: int,
    learning_rate: float,
    smoothness_weight: float,
) -> None:
    """Check the options of :func:`register_bspline`."""
    if not shrink or len(shrink) != len(spacing) or min(*shrink, *spacing) < 1:
        raise InputError(
            f"shrink is {tuple(shrink)} and spacing {tuple(spacing)}, expected as many whole numbers above 0 in "
            "both; give one of each per resolution, coarsest first."
        )
    if order not in (1, 2, 3):
        raise InputError(f"order is {order}, expected 1, 2 or 3; 3 gives cubic splines.")
    if iterations < 1:
        raise InputError(f"iterations is {iterations}, expected at least 1; the default is 250.")
    if not learning_rate > 0 or not smoothness_weight >= 0:
        raise InputError(
            f"learning_rate is {learning_rate} and smoothness_weight {smoothness_weight}, expected a positive number "
            "and one that is not negative; the defaults are 1e-3 and 0.01."
        )

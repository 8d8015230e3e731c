"""Image pair of the instance optimization: smoothed, masked, with held-out voxels that judge the result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.grids import above_zero
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.inferers.pair_contrast import in_contrast_of, without_bias
from monai_regplugins.losses.instance import InstanceLoss, WeightedImage
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["Judge", "Judgement", "ObservedPair", "held_out_voxels"]

LATTICE = (1, 3, 2)  # no two of every eighth voxel along i + 3 j + 2 k share a face or an edge
EVERY = 8
SAME_FOLDING = 0.01  # percent of the voxels: fields that differ by less are as regular
SMALLEST_SHARE = 1e-4  # of a voxel that counts; less is rounding
JUDGE_SMOOTHING = 0.75  # voxels; else interpolation, which averages the moving image's noise, would look like a match
STILL_SMOOTHING = 0.5  # of interpolation's variance: where both err equally by known displacements, either is kept


def held_out_voxels(size: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Mask of one voxel in eight, no two with a common face or edge, ``(1, 1, *size)``, bool.

    Args:
        size: of the image.
        device: where to make it.

    Example:
        >>> held_out_voxels([16, 16]).sum()
        tensor(32)
    """
    lattice = torch.zeros(1, dtype=torch.uint8, device=device)
    for axis, (n, factor) in enumerate(zip(size, LATTICE, strict=False)):
        along = (factor * torch.arange(n, device=device) % EVERY).to(torch.uint8)
        lattice = lattice + along.reshape(-1, *[1] * (len(size) - 1 - axis))
    return (lattice % EVERY == 0)[None, None]


class Judgement(NamedTuple):
    """Quality of a field: similarity on the held-out voxels (higher is better), folding, and loss of what drives.

    The loss of labels and landmarks is relative to the weight of the similarity.

    Example:
        >>> Judgement(0.8, 0.0).is_better_than(Judgement(0.7, 0.0))
        True
    """

    similarity: float
    folding_percent: float
    driving: float = 0.0

    @property
    def gain(self) -> float:
        """Similarity less the loss of what drives."""
        return self.similarity - self.driving

    def is_better_than(self, other: Judgement) -> bool:
        """Whether a field folds less, or folds equally and has the higher gain."""
        if abs(self.folding_percent - other.folding_percent) > SAME_FOLDING:
            return self.folding_percent < other.folding_percent
        return self.gain > other.gain


class Judge(Protocol):
    """What judges a field, see :meth:`ObservedPair.judge`."""

    def __call__(self, ddf: Tensor, smoothed_by: Tensor | None = None) -> Judgement:
        """Judge a field, with the moving image smoothed as by another one."""
        ...


class ObservedPair:
    """Smooth and resize a pair by normalized convolution, so that masked voxels do not affect others.

    Both are averages weighted by the masks, :math:`G (w I) / G w`. One voxel in eight of the fixed image is held out
    of the optimization, so that similarity there distinguishes a better field from one that matches noise. The mean of
    its neighbors takes its place in the averages: left out, it would move the others towards its other side.

    Args:
        moving: ``(1, 1, *spatial)``.
        fixed: the same shape.
        fixed_mask: where the fixed image counts, ``(1, 1, *spatial)``; everywhere by default.
        moving_mask: where the moving image counts, on the same grid.
        smoothing: standard deviation of a Gaussian over both images, voxels.

    Raises:
        InputError: When a mask is empty, or no voxel counts in both images.

    Example:
        >>> [(moving, fixed)] = ObservedPair(*torch.rand(2, 1, 1, 16, 16)).at([[8, 8]])
        >>> moving.image.shape, fixed.weights.shape
        (torch.Size([1, 1, 8, 8]), torch.Size([1, 1, 8, 8]))
    """

    def __init__(
        self,
        moving: Tensor,
        fixed: Tensor,
        fixed_mask: Tensor | None = None,
        moving_mask: Tensor | None = None,
        smoothing: float = 0.0,
    ) -> None:
        _check_overlap(fixed_mask, moving_mask)
        self._moving, self._fixed = moving, fixed
        self._moving_mask = None if moving_mask is None else above_zero(moving_mask)
        held_out = held_out_voxels(fixed.shape[2:], fixed.device)
        self._counts = None if fixed_mask is None else above_zero(fixed_mask)
        self._unused = held_out if self._counts is None else held_out & self._counts
        self._used = ~held_out if self._counts is None else ~held_out & self._counts
        self.smoothing = smoothing

    def at(self, sizes: Sequence[list[int]]) -> list[tuple[WeightedImage, WeightedImage]]:
        """The moving and the fixed image of the optimization at some sizes."""
        fixed = WeightedImage(self._smoothed_fixed(), self._used)
        at_sizes = [_resized(fixed, size) for size in sizes]
        del fixed  # as large as the image
        return list(zip(self._moving_at(sizes, self.smoothing), at_sizes, strict=True))

    def loss_of_pair(self, loss: InstanceLoss) -> InstanceLoss:
        """The loss with its similarity weighted by the share of the voxels that count."""
        return loss.of_share(self._share(loss.compared(self._fixed)))

    def in_contrast_of(self, side: str, ddf: Tensor) -> ObservedPair:
        """The pair in the contrast of one of its images, see :func:`in_contrast_of`; the field may have any size."""
        ddf, other = fields.resize(ddf, list(self._fixed.shape[2:])), copy.copy(self)
        pair = WeightedImage(self._moving, self._moving_mask), WeightedImage(self._fixed, self._used)
        (other._moving, _), (other._fixed, _) = in_contrast_of(side, *pair, ddf)
        return other

    def without_bias(self, bias: Tensor) -> ObservedPair:
        """The pair with its fixed image divided by a bias of any size, see :func:`bias_of`."""
        other = copy.copy(self)
        other._fixed = without_bias(self._fixed, bias)
        return other

    def _smoothed_fixed(self) -> Tensor:
        """The fixed image, of which the held-out voxels leave no trace in the others."""
        if self.smoothing == 0:
            return self._fixed
        image = self._fixed.clone()
        for slab in fields.slabs(image.shape[2:], fields.SLAB_VOXELS):  # all at once would take many times its memory
            first = max(0, slab.start - 1)
            around, inner = slice(first, slab.stop + 1), slice(slab.start - first, slab.stop - first)
            counts = None if self._counts is None else self._counts[:, :, around]
            mean = _mean_of_neighbors(WeightedImage(self._fixed[:, :, around], counts))[:, :, inner]
            part = image[:, :, slab]
            part.copy_(torch.where(self._unused[:, :, slab], mean, part))
        return _smoothed(WeightedImage(image, self._counts), self.smoothing).image

    def _share(self, compared: Tensor) -> float:
        """How many of some voxels count in both images, as a share; 1 where none does, and nothing is lost."""
        counts = compared if self._counts is None else compared & self._counts
        if self._moving_mask is not None:
            counts = counts & self._moving_mask
        return int(torch.count_nonzero(counts)) / max(1, int(torch.count_nonzero(compared))) or 1.0

    def judge(
        self,
        loss: InstanceLoss,
        size: list[int],
        padding: str,
        driving: Callable[[Tensor], Tensor] | None = None,
    ) -> Judge:
        """A function that judges fields of this size by the voxels that were held out, resized to it.

        Its second argument, if any, is a field by which the moving image is smoothed as interpolation would, but not
        moved: what judges no displacement beside that field, since else the sharper image would win.

        Args:
            loss: that of the optimization.
            size: of the fields.
            padding: what lies outside of the moving image.
            driving: a further loss that counts.
        """
        (moving,) = self._moving_at([size], max(self.smoothing, JUDGE_SMOOTHING))
        fixed = _resized(WeightedImage(self._fixed, self._unused), size)
        single = loss.of_single_voxels()
        as_it_is = single.similarity_of_pair(moving, fixed, padding)

        def judge(ddf: Tensor, smoothed_by: Tensor | None = None) -> Judgement:
            dissimilarity = as_it_is
            if smoothed_by is not None:
                dissimilarity = single.similarity_of_pair(_smoothed_as_by(moving, smoothed_by), fixed, padding)
            pull = 0.0 if driving is None else float(driving(ddf)) / loss.weights["similarity"]
            return Judgement(-float(dissimilarity(ddf)), _folding_percent(ddf), pull)

        return judge

    def _moving_at(self, sizes: Sequence[list[int]], smoothing: float) -> list[WeightedImage]:
        """The moving image at some sizes, and where it has values."""
        smoothed = _smoothed(WeightedImage(self._moving, self._moving_mask), smoothing)
        return [WeightedImage(image, _most(weights)) for image, weights in (_resized(smoothed, size) for size in sizes)]


def _smoothed_as_by(moving: WeightedImage, ddf: Tensor) -> WeightedImage:
    r"""An image that lies still, smoothed half as much as linear interpolation under a field smooths it.

    At a fraction f between two voxels interpolation averages with variance f (1 - f) along the axis, as does
    :math:`I + \frac{1}{2} f (1 - f) \, \partial^2 I`; half of that second term is added.
    """
    image, fraction = moving.image.clone(), ddf - ddf.floor()
    counts = None if moving.weights is None else moving.weights > 0
    for axis in range(2, image.ndim):
        n, places = image.shape[axis], torch.arange(image.shape[axis], device=image.device)
        bend = torch.zeros_like(image)
        for beside in ((places - 1).clamp(min=0), (places + 1).clamp(max=n - 1)):
            step = moving.image.index_select(axis, beside) - moving.image
            bend += step if counts is None else torch.where(counts.index_select(axis, beside), step, 0)
        f = fraction[:, axis - 2 : axis - 1]
        image += bend.mul_(STILL_SMOOTHING / 2 * f * (1 - f))
    return moving._replace(image=image)


def _most(shares: Tensor | None) -> Tensor | None:
    """The voxels of which at least a half counts."""
    return None if shares is None else shares >= 0.5


def _check_overlap(fixed_mask: Tensor | None, moving_mask: Tensor | None) -> None:
    """Reject masks without overlap."""
    given = [above_zero(mask) for mask in (fixed_mask, moving_mask) if mask is not None]
    if given and not bool(torch.stack([mask.expand_as(given[0]) for mask in given]).all(0).any()):
        raise InputError(
            "no voxel counts in both images: their masks, or what was measured of them, do not overlap on the fixed "
            "grid; give other masks, or another initial_alignment."
        )


def _smoothed(observed: WeightedImage, sigma: float) -> WeightedImage:
    """Average the noise, over what counts."""
    if sigma == 0:
        return observed
    values, _ = _averaged(observed, lambda image: gaussian_mean(image, sigma))
    return WeightedImage(values, observed.weights)


def _resized(observed: WeightedImage, size: list[int]) -> WeightedImage:
    """Resize what counts; the weights become shares of voxels."""
    if list(observed.image.shape[2:]) == size:
        return observed
    return WeightedImage(*_averaged(observed, lambda image: resize_image(image[0], size)[None]))


def _mean_of_neighbors(observed: WeightedImage) -> Tensor:
    """Mean of the voxels that count among those that share a face; 0 where none does."""
    image, weights = observed
    values, _ = _averaged(WeightedImage(image, torch.ones_like(image) if weights is None else weights), _neighbors_sum)
    return values


def _neighbors_sum(image: Tensor) -> Tensor:
    """Sum of the voxels that share a face."""
    total = torch.zeros_like(image)
    for axis in range(2, image.ndim):
        n = image.shape[axis] - 1
        total.narrow(axis, 0, n).add_(image.narrow(axis, 1, n))
        total.narrow(axis, 1, n).add_(image.narrow(axis, 0, n))
    return total


def _averaged(observed: WeightedImage, average: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
    """The weighted averages, and those of the weights."""
    image, weights = observed
    if weights is None:
        return average(image), None
    shares = average(weights.to(image.dtype))
    values = average(image * weights).div_(shares.clamp_min(SMALLEST_SHARE))
    return torch.where(shares > SMALLEST_SHARE, values, 0), shares


def _folding_percent(ddf: Tensor) -> float:
    """Voxels at which space folds."""
    return 100 * float((fields.jacobian_determinant(ddf) <= 0).float().mean())

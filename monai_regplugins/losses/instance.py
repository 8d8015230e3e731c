"""The loss of instance optimization: similarity, smoothness and folding of one pair, with closed-form gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from monai_regplugins.checks import InputError, check_choice, check_file
from monai_regplugins.losses.channel_distance import ChannelDistance
from monai_regplugins.losses.deform import EdgeAwareSmoothnessLoss, FoldingLoss, IsotropicTVLoss
from monai_regplugins.losses.descriptors import mind_ssc, scripted_descriptors
from monai_regplugins.losses.local_correlation import LocalCorrelation
from monai_regplugins.losses.mutual_information import MutualInformation
from monai_regplugins.losses.roughness import bending, edge_huber, edge_roughness, plain_roughness
from monai_regplugins.losses.sampled_image import SampledImage
from monai_regplugins.losses.with_gradient import with_gradient

__all__ = ["InstanceLoss", "WeightedImage"]

OfField: TypeAlias = Callable[[Tensor], Tensor]
Comparison: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
SMALLEST_EXTENT = 1e-6  # of a mask: less is none
SIMILARITIES = ("lncc", "mse", "mind", "nmi", "features")
CONTRAST_FREE = ("mind", "nmi", "features")
MIND_SCALE = 4.0  # distances of MIND are this much smaller than correlations are: the weights suit both


class WeightedImage(NamedTuple):
    """An image ``(1, C, *spatial)`` and how far each voxel counts, ``(1, 1, *spatial)``, from 0 to 1; None counts all.

    The image has to have a sensible value wherever the weight is above 0.

    Example:
        >>> WeightedImage(torch.rand(1, 1, 8, 8)).weights is None
        True
    """

    image: Tensor
    weights: Tensor | None = None

    def channels(self) -> list[WeightedImage]:
        """The channels, each with the weights."""
        return [WeightedImage(channel, self.weights) for channel in self.image.split(1, dim=1)]


class InstanceLoss:
    r"""Loss of instance optimization as a function of the field u of one pair.

    .. math::
        L(u) = \lambda_s \, S(I \circ (x + u), J) + \lambda_r \, R(u) + \lambda_b \, B(u) + \lambda_f \, F(u),

    with the similarity S in the weights of both images (those of the moving image are warped along, and no gradient
    flows to them), the smoothness R, the :class:`~monai_regplugins.losses.roughness.Bending` B, and the folding F of
    :class:`~monai_regplugins.losses.FoldingLoss`. Of images with several channels, S is the mean over these.

    Args:
        similarity: ``lncc``, :class:`~monai_regplugins.losses.local_correlation.LocalCorrelation`; ``mse``, the mean
            squared error; ``mind``, four times that of :func:`~monai_regplugins.losses.descriptors.mind_ssc`, of which
            the moving image's are warped; ``nmi``,
            :class:`~monai_regplugins.losses.mutual_information.MutualInformation`; ``features``, the squared error of
            the channels of a scripted module; or ``auto``, which leaves the choice to
            :class:`~monai_regplugins.inferers.RefinedInferer` and is ``same_contrast`` elsewhere.
        window: edge length of the windows of ``lncc`` in voxels.
        threshold: ``lncc`` uses the windows around voxels where the fixed image exceeds this; None uses all.
        stride: voxels from window to window; 2 takes a fifth of the time for the similarity in 3D, and leaves rougher
            fields.
        outside: ``border`` compares points outside of the moving image with what the ``padding`` of :meth:`of_pair`
            states; ``ignore`` excludes them. With weights of the moving image they are always excluded.
        similarity_weight: :math:`\lambda_s`.
        smoothness: ``edges_l2`` or ``edges_l1`` (:class:`~monai_regplugins.losses.EdgeAwareSmoothnessLoss`),
            ``edges_huber`` (:func:`~monai_regplugins.losses.roughness.edge_huber`), ``l2``
            (:class:`~monai_regplugins.losses.GradientLoss`) or ``tv``
            (:class:`~monai_regplugins.losses.IsotropicTVLoss`).
        smoothness_weight: :math:`\lambda_r`.
        bending_weight: :math:`\lambda_b`; the second differences count as the fixed image's weights say.
        folding_weight: :math:`\lambda_f`.
        same_contrast: what ``auto`` takes for images that are or can be brought to one contrast, ``lncc`` or ``mse``.
        features: file of a TorchScript module that maps an image ``(1, 1, *spatial)`` to channels
            ``(1, C, *spatial)``, for ``features``.

    Raises:
        InputError: a name is unknown, a weight negative, that of the similarity zero, or there is no such module.

    Example:
        >>> pair = [WeightedImage(image) for image in torch.rand(2, 1, 1, 12, 12)]
        >>> InstanceLoss().of_pair(*pair)(torch.zeros(1, 2, 12, 12)).ndim
        0
    """

    def __init__(
        self,
        similarity: str = "lncc",
        window: int = 9,
        threshold: float | None = None,
        stride: int = 1,
        outside: str = "border",
        similarity_weight: float = 1.0,
        smoothness: str = "l2",
        smoothness_weight: float = 1.0,
        bending_weight: float = 0.0,
        folding_weight: float = 0.0,
        same_contrast: str = "lncc",
        features: str | Path = "",
    ) -> None:
        check_choice(similarity, ("auto", *SIMILARITIES), "similarity")
        check_choice(same_contrast, ("lncc", "mse"), "same_contrast")
        check_choice(smoothness, tuple(_SMOOTHNESS), "smoothness")
        check_choice(outside, ("border", "ignore"), "outside")
        if window < 2 or stride < 1:
            raise InputError(f"window and stride are {window} and {stride}, expected at least 2 and 1 voxels.")
        others = {"smoothness": smoothness_weight, "bending": bending_weight, "folding": folding_weight}
        if not similarity_weight > 0 or not all(weight >= 0 for weight in others.values()):
            raise InputError(
                f"the weights of similarity, {', '.join(others)} are {similarity_weight}, "
                f"{', '.join(map(str, others.values()))}, expected the first above 0 and no negative one."
            )
        self.similarity, self.window, self.threshold, self.stride = similarity, window, threshold, stride
        self.outside, self.smoothness = outside, smoothness
        self.weights = {"similarity": similarity_weight, **others}
        self.same_contrast = same_contrast
        self.module = _scripted(features) if similarity == "features" else None

    def of_pair(self, moving: WeightedImage, fixed: WeightedImage, padding: str = "zeros") -> OfField:
        """Return the loss as a function of the field ``(1, d, *spatial)`` in voxels.

        What depends on the images alone is computed once.

        Args:
            moving: the moving image.
            fixed: the fixed image, on the same grid.
            padding: what lies outside of the moving image, ``zeros`` or ``border``.
        """
        terms: dict[str, OfField] = {
            "similarity": self.similarity_of_pair(moving, fixed, padding),
            "smoothness": _SMOOTHNESS[self.smoothness](fixed),
            "bending": bending(fixed.image.shape[2:], fixed.weights),
            "folding": FoldingLoss(),
        }
        return _weighted_sum({name: term for name, term in terms.items() if self.weights[name] > 0}, self.weights)

    def similarity_of_pair(self, moving: WeightedImage, fixed: WeightedImage, padding: str = "zeros") -> OfField:
        """The similarity alone, the lower the better; arguments as :meth:`of_pair`."""
        if moving.image.shape[1] != fixed.image.shape[1]:
            raise InputError(
                f"the moving image has {moving.image.shape[1]} channels and the fixed one {fixed.image.shape[1]}, "
                "expected as many; give the same channels of both."
            )
        if self.similarity == "auto":
            return self.of_one_contrast().similarity_of_pair(moving, fixed, padding)
        counts = self._counts(moving)
        if self.similarity in ("mind", "features"):
            return self._of_descriptors(moving, fixed, counts)
        if moving.image.shape[1] > 1:
            pairs = zip(moving.channels(), fixed.channels(), strict=True)
            of_channels = [self.similarity_of_pair(*pair, padding) for pair in pairs]
            return lambda ddf: torch.stack([similarity(ddf) for similarity in of_channels]).mean()
        image, compare = self.sampled(moving, padding), self._comparison(moving, fixed, counts)
        return lambda ddf: compare(*image(ddf))

    def taking(self, similarity: str) -> InstanceLoss:
        """The loss with another similarity.

        Example:
            >>> InstanceLoss().taking("nmi").similarity
            'nmi'
        """
        other = copy.copy(self)
        other.similarity = similarity
        return other

    def of_one_contrast(self) -> InstanceLoss:
        """The loss of images of one contrast: with ``same_contrast`` in place of ``auto``."""
        return self.taking(self.same_contrast) if self.similarity == "auto" else self

    def of_share(self, share: float) -> InstanceLoss:
        """The loss of images of which masks leave a share, from 0 to 1: the similarity weight times that.

        The similarity is a mean over what counts, the smoothness one over all voxels. With this weight a voxel that
        counts has the same influence against the smoothness as without masks.

        Example:
            >>> InstanceLoss(similarity_weight=2.0).of_share(0.25).weights["similarity"]
            0.5
        """
        return self._weighing(similarity=share * self.weights["similarity"])

    def stiffer(self, factor: float) -> InstanceLoss:
        """The loss with the weights of smoothness and bending times a factor.

        Example:
            >>> InstanceLoss(smoothness_weight=0.5).stiffer(4.0).weights["smoothness"]
            2.0
        """
        return self._weighing(**{name: factor * self.weights[name] for name in ("smoothness", "bending")})

    def compared(self, fixed: Tensor) -> Tensor:
        """The voxels of a fixed image that are compared where no mask is given, bool."""
        above = -torch.inf if self.threshold is None or self.similarity != "lncc" else self.threshold
        return fixed > above

    def of_single_voxels(self) -> InstanceLoss:
        """The loss with a similarity that voxels have without their neighbors: for descriptors, ``nmi``."""
        return self.taking("nmi") if self.similarity in ("mind", "features") else self

    def _weighing(self, **weights: float) -> InstanceLoss:
        """A copy with other weights."""
        other = copy.copy(self)
        other.weights = {**self.weights, **weights}
        return other

    def _of_descriptors(self, moving: WeightedImage, fixed: WeightedImage, counts: Tensor | None) -> OfField:
        """The distance of descriptors; those of the border continue beyond the moving image."""
        if self.module is not None:
            of_moving, of_fixed = (scripted_descriptors(self.module, image) for image in (moving.image, fixed.image))
            weights, scale = fixed.weights, 1.0
        else:
            of_moving, seen = mind_ssc(moving.image, counts)
            (of_fixed, weights), scale = mind_ssc(fixed.image, fixed.weights), MIND_SCALE
            counts = None if counts is None else seen > 0
        distance = ChannelDistance(SampledImage(of_moving, "border", counts), of_fixed, weights)
        return lambda ddf: scale * distance(ddf)

    def sampled(self, moving: WeightedImage, padding: str = "zeros") -> SampledImage:
        """The moving image to be warped, and where it counts."""
        return SampledImage(moving.image, padding, self._counts(moving))

    def _comparison(self, moving: WeightedImage, fixed: WeightedImage, counts: Tensor | None) -> Comparison:
        """What compares a warped image with the fixed one."""
        if self.similarity == "lncc":
            return self._lncc(fixed)
        if self.similarity == "mse":
            return SquaredDifference(fixed)
        return MutualInformation(fixed.image, moving.image, fixed.weights, counts)

    def _counts(self, moving: WeightedImage) -> Tensor | None:
        """The voxels of the moving image that count; None if all do, and those beyond its border too."""
        if moving.weights is None:
            return None if self.outside == "border" else torch.ones_like(moving.image[:, :1], dtype=torch.bool)
        return moving.weights > 0

    def _lncc(self, fixed: WeightedImage) -> LocalCorrelation:
        """The local correlation with the fixed image."""
        centers = None if self.threshold is None else fixed.image > self.threshold
        return LocalCorrelation(fixed.image, self.window, fixed.weights, centers, self.stride)


class SquaredDifference:
    """Weighted mean of the squared difference to the fixed image.

    Example:
        >>> SquaredDifference(WeightedImage(torch.zeros(1, 1, 4, 4)))(torch.full((1, 1, 4, 4), 0.5))
        tensor(0.2500)
    """

    def __init__(self, fixed: WeightedImage) -> None:
        self.fixed = fixed.image
        self.weights = torch.ones_like(fixed.image) if fixed.weights is None else fixed.weights

    def __call__(self, warped: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the loss of a warped image, with further weights, as a scalar."""
        return with_gradient(partial(self.value_and_gradient, seen=seen), warped)

    def value_and_gradient(self, warped: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient."""
        total, number, gradient = self.sums(warped, seen)
        number = number.clamp_min(SMALLEST_EXTENT)
        return -total / number, gradient.div_(-number)

    def sums(self, warped: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return minus the sum of the squared differences, that of the weights, and the gradient of the former."""
        weights = self.weights if seen is None else self.weights * seen
        difference = warped - self.fixed
        weighted = difference * weights
        return -(weighted.flatten() @ difference.flatten()), weights.sum(), weighted.mul_(-2)


def _scripted(path: str | Path) -> torch.jit.ScriptModule:
    """Load the module of features."""
    if not str(path):
        raise InputError("features is '', expected the file of a TorchScript module for similarity 'features'.")
    file = check_file(path, "the module of features")
    try:
        module: torch.jit.ScriptModule = torch.jit.load(file, map_location="cpu").eval()
    except RuntimeError as error:
        raise InputError(
            f"features is {file}, which is no TorchScript module; write one by torch.jit.script(...).save(...)."
        ) from error
    return module


def _weighted_sum(terms: Mapping[str, OfField], weights: Mapping[str, float]) -> OfField:
    """The sum of functions of the field."""

    def total(ddf: Tensor) -> Tensor:
        return torch.stack([weights[name] * term(ddf) for name, term in terms.items()]).sum()

    return total


def _edges_l1(fixed: WeightedImage) -> OfField:
    """The l1 form of the edge-aware smoothness."""
    loss = EdgeAwareSmoothnessLoss("l1")
    return lambda ddf: torch.stack([loss(ddf, channel) for channel in fixed.image.split(1, dim=1)]).mean()


_SMOOTHNESS: dict[str, Callable[[WeightedImage], OfField]] = {
    "edges_l2": lambda fixed: edge_roughness(fixed.image, fixed.weights),
    "edges_l1": _edges_l1,
    "edges_huber": lambda fixed: edge_huber(fixed.image, fixed.weights),
    "l2": lambda fixed: plain_roughness(fixed.image),
    "tv": lambda fixed: IsotropicTVLoss(),
}

"""Instance optimization: refine the predicted field of a pair by gradient descent on that pair."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from monai.inferers import Inferer
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.inferers.dense import DenseInferer
from monai_regplugins.inferers.descent import NodeDescent
from monai_regplugins.inferers.discrete_search import discrete_field
from monai_regplugins.inferers.drivers import Drivers, PairDrivers
from monai_regplugins.inferers.field_sum import outside_inference, resized_field
from monai_regplugins.inferers.gaussian import gaussian_mean
from monai_regplugins.inferers.observed_pair import Judge, Judgement, ObservedPair
from monai_regplugins.inferers.pair import PairInferer, moving_and_fixed
from monai_regplugins.inferers.pair_contrast import bias_of, in_contrast_of, without_bias
from monai_regplugins.inferers.refined import (
    AtSize,
    OfField,
    Refined,
    RefinedDisplacement,
    RefinedVelocity,
    zero_field,
)
from monai_regplugins.inferers.spread import STIFFER, deviation
from monai_regplugins.keys import IMAGE_KEYS, LABEL_KEYS, MASK_KEYS, POINT_KEYS
from monai_regplugins.losses import InstanceLoss, Term, WeightedSum
from monai_regplugins.losses.instance import CONTRAST_FREE, WeightedImage
from monai_regplugins.losses.slabs import SlabLoss
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["RefinedInferer"]

logger = logging.getLogger(__name__)

Tensors: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[[Tensors, Tensors], Tensor]
Images: TypeAlias = tuple[WeightedImage, WeightedImage]  # moving and fixed image
Pairs: TypeAlias = Mapping[tuple[int, ...], Images]  # by their size

FROM_THE_FIELD = ("ddf", "warped", "sequence")  # what a loss finds in the prediction
LARGE = 2**21  # voxels: a level beyond is computed in slabs
TRANSFORMS = ("displacement", "velocity")
NETWORK, ALIGNED, SEARCHED = "the network's field", "the aligned pair", "the discrete search"
PERFECT = {"lncc": -1.0, "mse": 0.0}
ALIKE = 0.07  # of what is missing: a map of intensities adds no more to the similarity of images of one contrast
NEARLY = 2  # times as many voxels as the last level: the images themselves take its place
LITTLE = 0.01  # missing similarity: less is not worth the while
FEW = 0.01  # of the voxels above the threshold


class _Course(NamedTuple):
    """How a pair was refined: from which start, to what, by which loss, of which images."""

    start: str
    refined: Refined
    loss: InstanceLoss
    observed: ObservedPair
    driving: PairDrivers
    judge: Judge
    contrast: str = ""
    unbiased: bool = False

    @property
    def judged_by(self) -> InstanceLoss:
        """A loss of the images as they are: that of mapped ones would favor the field by which they were mapped."""
        return self.loss.taking("nmi") if self.contrast else self.loss

    def __str__(self) -> str:
        return "".join(
            (
                f"{self.refined} by {self.loss.similarity}",
                f" in the contrast of the {self.contrast} image" if self.contrast else "",
                " without the bias of the fixed image" if self.unbiased else "",
                f" from {self.start}",
            )
        )


class RefinedInferer(Inferer):
    r"""Register with another inferer, then refine the field of each pair by gradient descent on a loss.

    With f the network's field, the loss L is lowered over values v at the nodes of a coarser grid, which G smooths and
    between which W interpolates linearly,

    .. math::
        \hat v = \arg\min_v L(f + W G v), \qquad v_0 = 0,

    see :class:`~monai_regplugins.inferers.descent.NodeDescent`. Balakrishnan et al. 2019 (VoxelMorph, IEEE TMI 38,
    1788) call it instance-specific optimization, Siebert et al. 2021 (ConvexAdam) do it on nodes like these. With
    several levels each doubles the grid and starts from the field of the previous one. The field with the lowest loss
    on the last level is kept, that of the start included, so that the loss of no pair rises. Samples of a batch are
    refined one after the other, each as if it were alone. No gradient flows through the result.

    Interpolation between voxels averages the noise of the moving image, so that a similarity is biased towards shifts
    by half a voxel. ``smoothing`` reduces the noise of both images first.

    With an :class:`~monai_regplugins.losses.InstanceLoss` no pair gets worse: the first level is optimized from the
    network's field and from zero, and the better field is kept, the one that folds less or, if both fold equally, the
    one with the higher similarity on held-out voxels, see
    :class:`~monai_regplugins.inferers.observed_pair.ObservedPair`. A result that is no better on these than the aligned
    pair is replaced by zero displacement. The moving image of the aligned pair is smoothed for that, half as much as
    interpolation smooths it under the result: it would look better for being sharper.

    With the similarity ``auto`` the first level is optimized by the loss of images of one contrast. Where a map of the
    intensities of either image to those of the other, see
    :func:`~monai_regplugins.inferers.pair_contrast.in_contrast_of`, hardly raises the similarity, and the images share
    more information than without displacement, that is all, and costs next to nothing; nor does a bias of the fixed
    image, see :func:`~monai_regplugins.inferers.pair_contrast.bias_of`. Else the first level is optimized by ``mind``
    too, and with either image mapped as the best of both and of no displacement states it, from there on. Of all these
    the field by which the images share most information on the held-out voxels goes on, with its loss. A bias by which
    they match better than by any map is removed first.

    With the transform ``velocity`` the nodes are those of a stationary velocity field, of which the field is the
    exponential,

    .. math::
        \hat v = \arg\min_v L(W \exp(\log(1 + f) + G v)), \qquad v_0 = 0,

    see :func:`~monai_regplugins.fields.exponential` (Arsigny et al. 2006, MICCAI, LNCS 4190, 924; Ashburner 2007,
    NeuroImage 38, 95). The start is the approximate :func:`~monai_regplugins.fields.logarithm` of the network's field
    at the nodes of the first level, so that the result is a single exponential, as its inverse is.

    With an ``InstanceLoss`` a field of either transform is smoothed where it folds, until it does not, see
    :func:`~monai_regplugins.inferers.unfold.unfold`.

    Any other loss is one of a training, called as ``loss(pred, targets)``. ``pred`` has ``ddf``, ``warped`` and
    ``sequence``, the field as a sequence of one; ``targets`` has ``moving``, ``fixed`` and the tensors among the
    keyword arguments of the call, such as ``fixed_mask``. Terms of a
    :class:`~monai_regplugins.losses.WeightedSum` that need more than that, such as a true field, are left out. It
    begins at the network's field.

    Args:
        inferer: inferer of the initial field.
        loss: loss of one pair; None uses ``InstanceLoss()``.
        steps: maximum number of steps on the first level, half of that on each finer one; 0 runs the inferer alone.
        spacing: node spacing in voxels; 1 optimizes every voxel.
        node_smoothing: standard deviation of the Gaussian that smooths the nodes, nodes; 0 moves each on its own.
        learning_rate: approximate maximum displacement of a node per step, in voxels.
        spatial_size: grid size of the first level, such as that of the training; -1 (or an empty list) keeps an axis as
            it is. The network's field keeps its resolution.
        levels: number of levels; each doubles the size of the previous one, up to that of the image. The image's size
            takes the place of the last of several levels where it has at most twice as many voxels.
        full_resolution: whether the size of the image is one level more. Above two million voxels the loss is computed
            in slabs, see :class:`~monai_regplugins.losses.slabs.SlabLoss`: the same, in less memory.
        smoothing: standard deviation of the Gaussian that smooths both images for the loss, in image voxels.
        patience: number of steps of the stopping criterion.
        smallest_change: stop when the loss range over the last ``patience`` steps falls below this fraction of its
            total range.
        search: with an ``InstanceLoss``, and unless ``never_worse`` is False, begin from a discrete search too, see
            :func:`~monai_regplugins.inferers.discrete_search.discrete_field`, of all displacements of up to so many
            voxels of the first level; 0 is none.
        never_worse: with an ``InstanceLoss``, choose the better start and discard results that are worse than the
            aligned pair; with 0 steps log such a field. False starts from the network's field and keeps every result.
        transform: ``displacement`` or ``velocity``, what the nodes hold.
        uncertainty: factor of the standard deviation, see :func:`~monai_regplugins.inferers.spread.deviation`; 0 leaves
            it out. It needs an ``InstanceLoss`` and steps, and costs less than one more optimization.
        drivers: labels and landmarks that pull beside the images; what drives counts as the images do where fields are
            compared. It needs an ``InstanceLoss`` and steps.

    Raises:
        InputError: When a number is out of its range, or the inferer predicts windows, which have no warped image.

    Example:
        >>> refined = RefinedInferer(PairInferer(), InstanceLoss("mse"), steps=5)
        >>> refined(torch.rand(1, 2, 16, 16), torch.zeros_like)["ddf"].shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(
        self,
        inferer: PairInferer | DenseInferer,
        loss: Loss | InstanceLoss | None = None,
        steps: int = 30,
        spacing: int = 2,
        learning_rate: float = 0.2,
        spatial_size: Sequence[int] = (),
        levels: int = 1,
        smoothing: float = 0.0,
        patience: int = 10,
        smallest_change: float = 1e-3,
        never_worse: bool = True,
        full_resolution: bool = False,
        search: int = 0,
        transform: str = "displacement",
        uncertainty: float = 0.0,
        drivers: Drivers | None = None,
        node_smoothing: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice(transform, TRANSFORMS, "transform")
        self.descend = NodeDescent(steps, spacing, learning_rate, patience, smallest_change, node_smoothing)
        self.transform = transform
        if levels < 1:
            raise InputError(f"levels is {levels}, expected at least 1.")
        if search < 0:
            raise InputError(f"search is {search}, expected voxels of the first level, or 0 for no search.")
        if not 0 <= smoothing < math.inf:
            raise InputError(f"smoothing is {smoothing}, expected voxels from 0 on; 0.75 is enough against noise.")
        if steps and isinstance(inferer, DenseInferer) and inferer.mode == "window":
            raise InputError("mode of the inferer is 'window', which has nothing to refine; choose 'exact' or 'fast'.")
        self.inferer, self.loss, self.steps = inferer, InstanceLoss() if loss is None else loss, steps
        self.spatial_size, self.levels, self.full_resolution = list(spatial_size), levels, full_resolution
        self.smoothing, self.never_worse, self.search = smoothing, never_worse, search
        self.judged = True  # results on voxels that were held out; not where nothing is chosen by it
        self.uncertainty, self.drivers = uncertainty, drivers or Drivers()
        _check_uncertainty(uncertainty, steps, self.loss)
        _check_drivers(self.drivers, steps, self.loss)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Register a batch and refine it.

        Args:
            inputs: as the wrapped inferer takes them.
            network: the network.
            *args: further arguments of the wrapped inferer.
            **kwargs: its keyword arguments, and ``fixed_mask`` and ``moving_mask`` ``(B, 1, *spatial)``, the voxels
                that count, both on the fixed grid, and what drives: ``fixed_label`` and ``moving_label`` likewise,
                ``fixed_landmarks`` and ``moving_landmarks``, or ``_keypoints``, ``(B, N, d)``, voxels of that grid.

        Returns:
            What the wrapped inferer returns, ``ddf`` and ``warped`` refined, and ``refinement`` ``(B, 2)``, each pair's
            loss before and after. With an ``InstanceLoss`` also ``from_network`` ``(B,)``, 1 where the network's field
            was the start, ``from_search`` ``(B,)``, 1 where it was the discrete search, both 0 where it was no
            displacement, ``contrast_free`` ``(B,)``, 1 where descriptors, mutual information or mapped intensities were
            compared, ``unused_similarity`` ``(B, 2)``, that of the aligned pair and of the result on unused voxels,
            with descriptors or mapped intensities their normalized mutual information, ``network_folding`` ``(B,)``,
            percent of the voxels at which the network's own field folds, and ``refined_voxels`` ``(B,)``, those of the
            first level; with 0 steps these alone. Where labels or landmarks drive, ``driving_labels`` ``(B, K)``, their
            values, and ``driving_landmarks`` ``(B, N)``, the rows of the points. If asked, ``uncertainty`` ``(B,
            d, *spatial)``, the standard deviation of each component of ``ddf`` in voxels; that of a network's field
            that was changed is left out. The rest, such as local transformations, is the network's.

        Raises:
            InputError: When no term of the loss compares the images, no voxel counts in both images, or a pair lacks
                what is to drive.
        """
        own = isinstance(self.loss, InstanceLoss)
        inner = {key: value for key, value in kwargs.items() if not (own and self._is_foreign(key))}
        if self.steps == 0 and not (own and self.never_worse):
            return self.inferer(inputs, network, *args, **inner)
        targets = {key: value for key, value in kwargs.items() if isinstance(value, Tensor) and key not in IMAGE_KEYS}
        refine = self._method({*FROM_THE_FIELD, *IMAGE_KEYS, *targets})
        result = self.inferer(inputs, network, *args, **inner)
        fixed = args[0] if args else kwargs.get("fixed")
        moving, fixed = moving_and_fixed(inputs) if fixed is None else (inputs, fixed)
        device = inputs.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            targets |= {"moving": moving.float(), "fixed": fixed.float()}
            targets = {key: outside_inference(value) for key, value in targets.items()}
            pairs = [{key: value[b : b + 1] for key, value in targets.items()} for b in range(len(inputs))]
            if self.steps:
                del result["warped"]  # as large as an image, and made anew
                result.pop("uncertainty", None)
            found = [refine(u, pair) for u, pair in zip(result["ddf"].split(1), pairs, strict=True)]
            refined = {key: _batched([one[key] for one in found]) for key in found[0]}
            if self.steps == 0:
                return result | refined
            warped = fields.warp(targets["moving"], refined["ddf"], padding=self.inferer.padding)
            return result | refined | {"warped": warped}

    def _method(self, names: set[str]) -> Callable[[Tensor, dict[str, Tensor]], dict[str, Tensor]]:
        """How a pair is refined, by a loss that may see the tensors of these names."""
        if isinstance(self.loss, InstanceLoss):
            return partial(self._guarded, self.loss)
        return partial(self._by_training_loss, _computable(self.loss, names))

    def _is_foreign(self, key: str) -> bool:
        """Whether the wrapped inferer does not know a mask, labels or points."""
        known = key == "fixed_mask" and isinstance(self.inferer, DenseInferer)
        return key in (*MASK_KEYS, *LABEL_KEYS, *POINT_KEYS) and not known

    def _by_training_loss(self, loss: Loss, ddf: Tensor, pair: dict[str, Tensor]) -> dict[str, Tensor]:
        """Refine one pair by the loss of a training."""
        native, padding = list(ddf.shape[2:]), self.inferer.padding
        sizes = self._sizes(native)
        smoothed = pair | {key: gaussian_mean(pair[key], self.smoothing) for key in IMAGE_KEYS}
        refined = self._descend_levels(
            lambda size: _of_training(loss, smoothed, size, padding), ddf, ddf, [*sizes, *self._full(native, sizes)]
        )
        if not math.isfinite(refined.after):
            logger.warning(
                "not refined: the loss of the pair is %g, so that no field can be judged to be better", refined.after
            )
        else:
            logger.info("refined: %s", refined)
        return refined.outputs(native)

    def _guarded(self, loss: InstanceLoss, ddf: Tensor, pair: dict[str, Tensor]) -> dict[str, Tensor]:
        """Refine one pair from the better start; return zero displacement if the result is worse."""
        masks = {key: pair[key] for key in MASK_KEYS if key in pair}
        observed = ObservedPair(pair["moving"], pair["fixed"], **masks, smoothing=self.smoothing)
        own = loss.of_one_contrast()
        _report_few_voxels(own, pair["fixed"])
        sizes = self._sizes(list(ddf.shape[2:]))
        size, seen = sizes[-1], {"refined_voxels": ddf.new_tensor([math.prod(sizes[0])])}
        driving = self.drivers.of_pair(pair)
        if self.steps == 0:
            judge = self._judge(own, observed, driving, size)
            field = resized_field(ddf, size)
            aligned, predicted = judge(zero_field(ddf, size), field), judge(field)
            _report_worse(aligned, predicted)
            return _outcome(ddf, own, NETWORK, (aligned, predicted, predicted)) | seen
        course = self._course(loss, ddf, observed, driving)
        refined, judge = course.refined, course.judge
        if "fixed_mask" in masks:
            refined = refined.faded(masks["fixed_mask"])
        if not self.judged:
            logger.info("refined: %s", course._replace(refined=refined))
            outputs = refined.outputs(list(ddf.shape[2:]), unfolds=True) | seen
            return outputs | driving.outputs() | self._uncertainty(course, outputs["ddf"])
        field = refined.at(size)
        aligned, predicted = judge(zero_field(ddf, size), field), judge(resized_field(ddf, size))
        found = judge(field)
        if self.never_worse and not found.gain > aligned.gain:
            refined = refined.still()
            found = aligned
        logger.info(
            "refined: %s; similarity on unused voxels %.4f, %.4f of the aligned pair%s",
            course._replace(refined=refined),
            found.similarity,
            aligned.similarity,
            ", which is kept" if found is aligned else "",
        )
        outputs = refined.outputs(list(ddf.shape[2:]), unfolds=True)
        outputs |= _outcome(ddf, course.judged_by, course.start, (aligned, found, predicted)) | seen
        return outputs | driving.outputs() | self._uncertainty(course, outputs["ddf"])

    def _uncertainty(self, course: _Course, ddf: Tensor) -> dict[str, Tensor]:
        """The standard deviation of a field that was found, if asked for."""
        if not self.uncertainty:
            return {}
        native = list(ddf.shape[2:])
        sizes = self._sizes(native)
        pairs = dict(zip(map(tuple, sizes), course.observed.at(sizes), strict=True))
        smoother = self._descend_levels(
            self._losses(course.loss.stiffer(STIFFER), pairs, course.driving), ddf, ddf, sizes
        )
        return {"uncertainty": deviation(ddf, smoother.field(native, unfolds=False), self.uncertainty)}

    def _course(self, loss: InstanceLoss, ddf: Tensor, observed: ObservedPair, driving: PairDrivers) -> _Course:
        """Descend the first level from each start, the others from the best."""
        native = list(ddf.shape[2:])
        sizes = self._sizes(native)
        levels = [*sizes, *self._full(native, sizes)]
        pairs: Pairs = dict(zip(map(tuple, levels), observed.at(levels), strict=True))
        first = partial(
            self._first_level,
            ddf=ddf,
            observed=observed,
            driving=driving,
            pairs=pairs,
            starts=self._starts(ddf, pairs[tuple(sizes[0])]),
        )
        own = observed.loss_of_pair(loss.of_one_contrast())
        course = first(own)
        if loss.similarity == "auto" and self._differs_in_contrast(
            course, pairs[tuple(sizes[0])], pairs[tuple(sizes[-1])]
        ):
            free = first(observed.loss_of_pair(loss.taking("mind")))
            course, observed, pairs = self._best_contrast(course, free, ddf, observed, pairs)
        for size in levels[1:]:
            course = self._next_level(course, ddf, observed, pairs, size)
        return course

    def _first_level(
        self,
        loss: InstanceLoss,
        ddf: Tensor,
        observed: ObservedPair,
        driving: PairDrivers,
        pairs: Pairs,
        starts: Mapping[str, Tensor | None],
    ) -> _Course:
        """Descend the first level from each start, and take the best."""
        sizes = self._sizes(list(ddf.shape[2:]))
        at = self._losses(loss, pairs, driving)
        coarse = {name: self._descend_levels(at, ddf, start, sizes[:1]) for name, start in starts.items()}
        best, judge = next(iter(coarse)), self._judge(loss, observed, driving, sizes[-1])
        if len(coarse) > 1:
            judged = {name: judge(found.at(sizes[-1])) for name, found in coarse.items()}
            for name, judgement in judged.items():
                best = name if judgement.is_better_than(judged[best]) else best
        return _Course(best, coarse[best], loss, observed, driving, judge)

    def _judge(self, loss: InstanceLoss, observed: ObservedPair, driving: PairDrivers, size: list[int]) -> Judge:
        """What judges fields of a size, by the voxels that were held out and by what drives."""
        return observed.judge(loss, size, self.inferer.padding, driving.loss(size) if self.drivers else None)

    def _differs_in_contrast(self, course: _Course, first: Images, last: Images) -> bool:
        """Whether a map of intensities or a bias improves the match, or what was found has lost information."""
        ddf, padding = course.refined.at(list(first[1].image.shape[2:])), self.inferer.padding
        plain, *mapped = (
            float(course.loss.similarity_of_pair(*each, padding)(ddf)) for each in _contrasts(first, ddf, None)
        )
        if _is_much_less(min(mapped), plain, plain, course.loss):
            return True
        bias = bias_of(*first, ddf)
        if bias is not None and self._differs_by_bias(course, course.loss, last, bias):
            return True
        shared = course.loss.taking("nmi").similarity_of_pair(*first, padding)
        return bool(shared(ddf) > shared(torch.zeros_like(ddf)))

    def _differs_by_bias(self, course: _Course, loss: InstanceLoss, pair: Images, bias: Tensor) -> bool:
        """Whether a pair matches much better without a bias than as it is, or by a map of intensities."""
        ddf = course.refined.at(list(pair[1].image.shape[2:]))
        *others, unbiased = (
            float(loss.similarity_of_pair(*each, self.inferer.padding)(ddf)) for each in _contrasts(pair, ddf, bias)
        )
        return _is_much_less(unbiased, min(others), others[0], loss)

    def _best_contrast(
        self, same: _Course, free: _Course, ddf: Tensor, observed: ObservedPair, pairs: Pairs
    ) -> tuple[_Course, ObservedPair, Pairs]:
        """Of the results without and with descriptors, no displacement, and those in one contrast, the best.

        What all share, whatever their contrast, is mutual information. A bias that the best of the first three states
        is removed, once for all, if that raises the similarity more than any map of intensities does, and the mutual
        information above that of all others.

        Returns:
            The best, the pair, and it at all sizes.
        """
        sizes = self._sizes(list(ddf.shape[2:]))
        first, last = sizes[0], sizes[-1]

        def by_information(pair: ObservedPair) -> Judge:
            return pair.judge(same.loss.taking("nmi"), last, self.inferer.padding)

        def judged(judge: Judge, *courses: _Course) -> tuple[float, _Course]:
            found = [(judge(course.refined.at(last)).similarity, course) for course in courses]
            return max(found, key=lambda one: one[0])

        def mapped(begun: _Course, pair: ObservedPair, pairs: Pairs, contrasts: Sequence[str]) -> list[_Course]:
            begun = begun._replace(loss=same.loss)
            return [self._next_level(begun._replace(contrast=to), ddf, pair, pairs, first) for to in contrasts]

        still = same._replace(start=ALIGNED, refined=same.refined.still())
        shared = by_information(observed)
        _, begun = judged(shared, same, free, still)
        information, best = judged(shared, begun, *mapped(begun, observed, pairs, IMAGE_KEYS))
        bias = bias_of(*pairs[tuple(first)], begun.refined.at(first))
        if bias is not None and self._differs_by_bias(begun, same.loss, pairs[tuple(last)], bias):
            other = observed.without_bias(bias)
            shared = by_information(other)
            if judged(shared, begun)[0] > information:
                observed, pairs = other, dict(zip(pairs, other.at([list(size) for size in pairs]), strict=True))
                begun = begun._replace(unbiased=True)
                _, best = judged(shared, begun, *mapped(begun, observed, pairs, ("", *IMAGE_KEYS)))
        return best._replace(judge=self._judge(best.judged_by, observed, best.driving, last)), observed, pairs

    def _next_level(
        self, course: _Course, ddf: Tensor, observed: ObservedPair, pairs: Pairs, size: list[int]
    ) -> _Course:
        """Descend one more level, with the contrast as its field states it."""
        if course.contrast:
            observed = observed.in_contrast_of(course.contrast, course.refined.at(size))
            pairs = {tuple(size): observed.at([size])[0]}
        refined = self._descend_levels(
            self._losses(course.loss, pairs, course.driving), ddf, None, [size], course.refined
        )
        return course._replace(refined=refined, observed=observed)

    def _losses(self, loss: InstanceLoss, pairs: Pairs, driving: PairDrivers) -> AtSize:
        """The loss of a field at a size, of the pairs by their sizes."""

        def at(size: list[int]) -> OfField:
            moving, fixed = pairs[tuple(size)]
            if math.prod(size) > LARGE and SlabLoss.takes(loss) and moving.image.shape[1] == 1:
                return SlabLoss(loss, moving, fixed, self.inferer.padding, drivers=driving.at(size))
            of_images, of_drivers = loss.of_pair(moving, fixed, self.inferer.padding), driving.loss(size)
            return (lambda ddf: of_images(ddf) + of_drivers(ddf)) if self.drivers else of_images

        return at

    def _starts(self, ddf: Tensor, pair: tuple[WeightedImage, WeightedImage]) -> dict[str, Tensor | None]:
        """The fields to begin with, by what they are called; the pair is that of the first level.

        A network that moves nothing is no other start than the aligned pair.
        """
        if not self.never_worse:
            return {NETWORK: ddf}
        starts: dict[str, Tensor | None] = {NETWORK: ddf} if bool(ddf.any()) else {}
        starts[ALIGNED] = None
        if self.search:
            starts[SEARCHED] = fields.resize(discrete_field(*pair, self.search), list(ddf.shape[2:]))
        return starts

    def _descend_levels(
        self, at: AtSize, like: Tensor, start: Tensor | None, sizes: list[list[int]], coarser: Refined | None = None
    ) -> Refined:
        """Optimize level by level, from a start or from a coarser level."""
        if self.transform == "velocity":
            refined = coarser or RefinedVelocity.begun(like, start, self.descend.nodes(sizes[0]))
        else:
            refined = coarser or RefinedDisplacement.begun(like, start, sizes[0])
        return refined.descended(self.descend, at, sizes)

    def _sizes(self, native: list[int]) -> list[list[int]]:
        """The size of each level."""
        asked = self.spatial_size or [-1] * len(native)
        sizes = [[n if s <= 0 else s for n, s in zip(native, asked, strict=True)]]
        while len(sizes) < self.levels:
            doubled = [max(s, min(2 * s, n)) for n, s in zip(native, sizes[-1], strict=True)]
            if doubled == sizes[-1]:
                break
            sizes.append(doubled)
        if len(sizes) > 1 and math.prod(native) <= NEARLY * math.prod(sizes[-1]):
            sizes[-1] = native
        return sizes

    def _full(self, native: list[int], sizes: list[list[int]]) -> list[list[int]]:
        """The size of the image, if it is one more level."""
        return [native] if self.full_resolution and sizes[-1] != native else []


def _check_uncertainty(factor: float, steps: int, loss: Loss | InstanceLoss) -> None:
    """Reject an uncertainty that cannot be computed."""
    if not 0 <= factor < math.inf:
        raise InputError(f"uncertainty is {factor}, expected a factor from 0 on, 0 for none.")
    if factor and not (steps and isinstance(loss, InstanceLoss)):
        raise InputError(
            "uncertainty is the spread of fields of instance optimization, which is off; set refine_steps to 30, or "
            "uncertainty to false."
        )


def _check_drivers(drivers: Drivers, steps: int, loss: Loss | InstanceLoss) -> None:
    """Reject drivers of nothing."""
    if drivers and not (steps and isinstance(loss, InstanceLoss)):
        raise InputError(
            "labels or landmarks are to drive instance optimization, which is off; set refine_steps to 30, or "
            "refine_label_weight and refine_landmark_weight to 0."
        )


def _batched(values: Sequence[Tensor]) -> Tensor:
    """One tensor of the pairs of a batch; lists of labels of different length are filled up with the background."""
    if len({value.shape for value in values}) == 1:
        return torch.cat(list(values)) if len(values) > 1 else values[0]
    return torch.nn.utils.rnn.pad_sequence([value[0] for value in values], batch_first=True)


def _outcome(
    like: Tensor, loss: InstanceLoss, start: str, judged: tuple[Judgement, Judgement, Judgement]
) -> dict[str, Tensor]:
    """What becomes part of the result: where it began, and how the aligned pair, it and the network's field match."""
    aligned, found, predicted = judged
    return {
        "from_network": like.new_tensor([float(start == NETWORK)]),
        "from_search": like.new_tensor([float(start == SEARCHED)]),
        "contrast_free": like.new_tensor([float(loss.similarity in CONTRAST_FREE)]),
        "unused_similarity": like.new_tensor([[aligned.similarity, found.similarity]]),
        "network_folding": like.new_tensor([predicted.folding_percent]),
    }


def _contrasts(pair: Images, ddf: Tensor, bias: Tensor | None) -> list[Images]:
    """A pair as it is, in the contrast of either image, and without a bias of the fixed image if there is one."""
    moving, fixed = pair
    found = [pair, *(in_contrast_of(side, *pair, ddf) for side in IMAGE_KEYS)]
    return found if bias is None else [*found, (moving, fixed._replace(image=without_bias(fixed.image, bias)))]


def _is_much_less(dissimilarity: float, than: float, plain: float, loss: InstanceLoss) -> bool:
    """Whether a dissimilarity is less than another one by a considerable part of what the pair as it is misses."""
    return than - dissimilarity > ALIKE * max(plain - PERFECT[loss.similarity], LITTLE)


def _of_training(loss: Loss, targets: Tensors, size: list[int], padding: str) -> OfField:
    """The loss of a training as a function of a field of this size."""
    native = list(targets["moving"].shape[2:])
    seen = {key: _at_size(value, native, size) for key, value in targets.items()}

    def objective(u: Tensor) -> Tensor:
        warped = fields.warp(seen["moving"], u, padding=padding)
        return loss({"ddf": u, "warped": warped, "sequence": u[:, None]}, seen)

    return objective


def _report_few_voxels(loss: InstanceLoss, fixed: Tensor) -> None:
    """Log that a threshold leaves few voxels."""
    if loss.similarity == "lncc" and loss.threshold is not None:
        share = float((fixed > loss.threshold).float().mean())
        if share < FEW:
            logger.warning(
                "only %.2f %% of the fixed image are above mask_threshold %g: hardly anything is compared; give a "
                "lower one, or another window.",
                100 * share,
                loss.threshold,
            )


def _report_worse(aligned: Judgement, found: Judgement) -> None:
    """Log that the network's field is worse than no displacement."""
    if found.similarity < aligned.similarity:
        logger.warning(
            "the network's field is worse than the aligned pair: similarity %.4f, %.4f without it; it is kept, since "
            "refine_steps is 0",
            found.similarity,
            aligned.similarity,
        )


def _computable(loss: Loss, names: set[str]) -> Loss:
    """Leave out of a weighted sum the terms whose inputs are not all among ``names``."""
    if not isinstance(loss, WeightedSum):
        return loss
    terms: dict[str, Any] = {name: term for name, term in loss.terms.items() if term.weight != 0}
    kept: dict[str, Term] = {name: term for name, term in terms.items() if names.issuperset(term.inputs)}
    if not any({"warped", "moving"}.intersection(term.inputs) for term in kept.values()):
        needs = "; ".join(f"'{name}' takes {', '.join(term.inputs)}" for name, term in terms.items())
        raise InputError(
            f"the loss has no term that compares the images of a pair ({needs or 'all weights are zero'}), expected "
            "one that takes 'warped' or 'moving'; give such a loss, or take 0 refinement steps."
        )
    return WeightedSum(kept)


def _at_size(values: Tensor, native: list[int], size: list[int]) -> Tensor:
    """Resize what lies on the image's grid, ``(1, C, *native)``; masks become weights."""
    if size == native or list(values.shape[2:]) != native:
        return values
    return resize_image(values[0].float(), size)[None]

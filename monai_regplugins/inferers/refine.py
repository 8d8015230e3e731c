"""Instance optimization: what a network found for a pair, improved on that pair itself by gradient descent."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from monai.inferers import Inferer
from monai.networks.layers import gaussian_1d
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers.dense import DenseInferer
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.losses import Term, WeightedSum
from monai_regplugins.transforms.prepare import resize_image

__all__ = ["RefinedInferer"]

logger = logging.getLogger(__name__)

Tensors: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[[Tensors, Tensors], Tensor]

FROM_THE_FIELD = ("ddf", "warped", "sequence")  # what a loss finds in the prediction
IMAGES = ("moving", "fixed")  # and in the targets, beside what the inferer is called with


class Descent(NamedTuple):
    """Where a descent led: the best residual field, and the loss before each step and after the last one."""

    residual: Tensor
    losses: list[float]


class RefinedInferer(Inferer):
    r"""Register with another inferer, then improve the field of each pair by gradient descent on a loss.

    With f the network's field, the loss L is lowered over displacements v at the nodes of a coarser grid, between which
    W interpolates linearly,

    .. math::
        \hat v = \arg\min_v L(f + W v), \qquad v_0 = 0,

    by Adam (Kingma and Ba 2015). Balakrishnan et al. 2019 (VoxelMorph, IEEE TMI 38, 1788) call it instance-specific
    optimization, Siebert et al. 2021 (ConvexAdam) do it on nodes like these. With several levels it begins on a coarse
    grid, where the far is near, and goes on, from what it has found, on grids that are twice as fine each. The field
    with the lowest loss on the last one is kept, the network's own included, so that the loss of no pair rises. Samples
    of a batch are refined one after the other, each as if it were alone. No gradient flows through the result.

    Between voxels, interpolation averages the noise of the moving image, and so pairs that differ in their noise alone
    seem to match best half a voxel apart. ``smoothing`` averages the noise of both images first.

    The loss is the one of a training, called as ``loss(pred, targets)``. ``pred`` has ``ddf``, ``warped`` and
    ``sequence``, the field as a sequence of one; ``targets`` has ``moving``, ``fixed`` and the tensors among the
    keyword arguments of the call, such as ``fixed_mask``. Terms of a
    :class:`~monai_regplugins.losses.WeightedSum` that need more than that, such as a true field, are left out.

    Args:
        inferer: what registers first.
        loss: what to lower, of one pair.
        steps: most steps to take at each level; 0 is the inferer alone.
        spacing: voxels from node to node; 1 moves every voxel by itself.
        learning_rate: how far a step moves a node at most, about, in voxels.
        spatial_size: size at which the loss sees the pair first, such as that of the training; -1 (or an empty list)
            keeps an axis as it is. The network's field is kept in full.
        levels: how many sizes, each twice the one before, but not larger than the image.
        smoothing: standard deviation of a Gaussian over both images that the loss sees, in voxels of the images.
        patience: steps over which the loss of a pair has to vary for its descent to go on,
        smallest_change: by more than this fraction of how far it has varied since the start.

    Raises:
        InputError: When a number is out of its range, or the inferer predicts windows, which have no warped image.

    Example:
        >>> loss = WeightedSum({"similarity": Term(torch.nn.MSELoss(), ["warped", "fixed"])})
        >>> refined = RefinedInferer(PairInferer(), loss, steps=5)
        >>> refined(torch.rand(1, 2, 16, 16), torch.zeros_like)["ddf"].shape
        torch.Size([1, 2, 16, 16])
    """

    def __init__(
        self,
        inferer: PairInferer | DenseInferer,
        loss: Loss,
        steps: int,
        spacing: int = 2,
        learning_rate: float = 0.1,
        spatial_size: Sequence[int] = (),
        levels: int = 1,
        smoothing: float = 0.0,
        patience: int = 10,
        smallest_change: float = 1e-3,
    ) -> None:
        super().__init__()
        if steps < 0 or min(spacing, levels, patience) < 1:
            raise InputError(
                f"steps, spacing, levels and patience are {steps}, {spacing}, {levels} and {patience}, expected at "
                "least 0, 1, 1 and 1; 0 steps take the network's field as it is."
            )
        if not learning_rate > 0 or not 0 <= smallest_change < 1:
            raise InputError(
                f"learning_rate and smallest_change are {learning_rate} and {smallest_change}, expected voxels above 0 "
                "and a fraction from 0 to below 1; 0.1 and 0.001 are the defaults."
            )
        if not 0 <= smoothing < math.inf:
            raise InputError(f"smoothing is {smoothing}, expected voxels from 0 on; 0.75 is enough against noise.")
        if steps and isinstance(inferer, DenseInferer) and inferer.mode == "window":
            raise InputError("mode of the inferer is 'window', which has nothing to refine; choose 'exact' or 'fast'.")
        self.inferer, self.loss, self.steps = inferer, loss, steps
        self.spacing, self.learning_rate = spacing, learning_rate
        self.spatial_size, self.levels = list(spatial_size), levels
        self.smoothing, self.patience, self.smallest_change = smoothing, patience, smallest_change

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Register a batch and refine it.

        Args:
            inputs: as the wrapped inferer takes them.
            network: the network.
            *args: further arguments of the wrapped inferer.
            **kwargs: its keyword arguments.

        Returns:
            What the wrapped inferer returns, ``ddf`` and ``warped`` refined, and ``refinement`` ``(B, 2)``, each pair's
            loss before and after. The rest, such as local transformations, is the network's.

        Raises:
            InputError: When no term of the loss compares the images.
        """
        if self.steps == 0:
            return self.inferer(inputs, network, *args, **kwargs)
        targets = {key: value for key, value in kwargs.items() if isinstance(value, Tensor) and key not in IMAGES}
        loss = _computable(self.loss, {*FROM_THE_FIELD, *IMAGES, *targets})
        result = self.inferer(inputs, network, *args, **kwargs)
        image = inputs if inputs.shape[1] == 2 else torch.cat([inputs, args[0] if args else kwargs["fixed"]], dim=1)
        device = image.device.type
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device, enabled=False):
            moving, fixed = image[:, :1].float(), image[:, 1:].float()
            targets |= {"moving": moving, "fixed": fixed}
            del result["warped"]  # as large as an image, and made anew
            ddf = result["ddf"]
            pairs = [{key: value[b : b + 1] for key, value in targets.items()} for b in range(len(ddf))]
            found = [self._refined(loss, u, pair) for u, pair in zip(ddf.split(1), pairs, strict=True)]
            refined = found[0][0] if len(found) == 1 else torch.cat([u for u, _ in found])
            warped = fields.warp(moving, refined, padding=self.inferer.padding)
            return result | {"ddf": refined, "warped": warped, "refinement": torch.stack([ends for _, ends in found])}

    def _smoothed(self, image: Tensor) -> Tensor:
        """Average the noise."""
        if self.smoothing == 0:
            return image
        weights = gaussian_1d(torch.tensor(self.smoothing), approx="sampled").tolist()
        for axis in range(2, image.ndim):
            image = _averaged(image, weights, axis)
        return image

    def _refined(self, loss: Loss, ddf: Tensor, targets: Tensors) -> tuple[Tensor, Tensor]:
        """Refine one pair; return its field and its loss before and after, both as the last level sees them."""
        native, found, steps = list(ddf.shape[2:]), ddf.clone(), 0
        sizes = self._sizes(native)
        objectives = self._objectives(loss, targets, native, sizes)
        for size, objective in zip(sizes, objectives, strict=True):
            residual, losses = self._descend(objective, _resized(found, size))
            _add_resized(found, residual)
            steps += len(losses) - 1
        before, after = losses[0], min(losses)
        if len(sizes) > 1:  # what the levels before made of the network's field, the last may like less
            before = float(objective(_resized(ddf, size)))
            found, after = (found, after) if after < before else (_outside_inference(ddf), before)
        if not math.isfinite(after):
            logger.warning("not refined: the loss of the pair is %g, so that nothing can be told to be better", after)
            return found, ddf.new_tensor([before, after])
        logger.info("refined: loss %.4g -> %.4g in %d steps", before, after, steps)
        return found, ddf.new_tensor([before, after])

    def _sizes(self, native: list[int]) -> list[list[int]]:
        """The size of each level."""
        asked = self.spatial_size or [-1] * len(native)
        sizes = [[n if s <= 0 else s for n, s in zip(native, asked, strict=True)]]
        while len(sizes) < self.levels:
            doubled = [max(s, min(2 * s, n)) for n, s in zip(native, sizes[-1], strict=True)]
            if doubled == sizes[-1]:
                break
            sizes.append(doubled)
        return sizes

    def _objectives(
        self, loss: Loss, targets: Tensors, native: list[int], sizes: Sequence[list[int]]
    ) -> list[Callable[[Tensor], Tensor]]:
        """The loss of a field of each size; of large images only what the sizes make of them is kept."""
        smooth = {**targets, **{key: self._smoothed(targets[key]) for key in IMAGES}}
        return [self._objective(loss, smooth, native, size) for size in sizes]

    def _objective(
        self, loss: Loss, targets: Tensors, native: list[int], size: list[int]
    ) -> Callable[[Tensor], Tensor]:
        """The loss of a field of this size."""
        seen = {key: _at_size(value, native, size) for key, value in targets.items()}

        def objective(u: Tensor) -> Tensor:
            warped = fields.warp(seen["moving"], u, padding=self.inferer.padding)
            return loss({"ddf": u, "warped": warped, "sequence": u[:, None]}, seen)

        return objective

    def _descend(self, objective: Callable[[Tensor], Tensor], start: Tensor) -> Descent:
        """Lower the objective of a field, starting at ``start``."""
        size = start.shape[2:]
        weights = [_interpolation(n, -(-n // self.spacing), start) for n in size]
        nodes = start.new_zeros(1, len(size), *(len(w) for w in weights)).requires_grad_()
        optimizer = torch.optim.Adam([nodes], lr=self.learning_rate)
        best, losses = torch.zeros_like(start), list[float]()
        while True:
            with torch.enable_grad():
                residual = _spread(nodes, weights)
                value = objective(start + residual)
            losses.append(value.item())
            if losses[-1] < min(losses[:-1], default=math.inf):
                best = residual.detach()
            if len(losses) > self.steps or not math.isfinite(losses[-1]) or self._stalls(losses):
                return Descent(best, losses)
            # Losses are means over voxels; per voxel, Adam's epsilon means the same for images of any size.
            nodes.grad = torch.autograd.grad(value, nodes)[0] * size.numel()
            optimizer.step()

    def _stalls(self, losses: Sequence[float]) -> bool:
        """Whether the loss has all but stopped to change."""
        recent = losses[-self.patience - 1 :]
        return len(losses) > self.patience and _range(recent) <= self.smallest_change * _range(losses)


def _range(values: Sequence[float]) -> float:
    """Difference between the largest and the smallest value."""
    return max(values) - min(values)


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


def _outside_inference(values: Tensor) -> Tensor:
    """A copy of a tensor that was made in inference mode, which no gradient may pass; any other as it is."""
    return values.clone() if values.is_inference() else values


def _averaged(image: Tensor, weights: Sequence[float], axis: int) -> Tensor:
    """Weighted mean along an axis, an odd number of voxels; the border voxels continue beyond the image.

    The same as a convolution, which on a CPU takes six times as long and several times the memory.
    """
    n, reach = image.shape[axis], len(weights) // 2
    continued = image.index_select(axis, torch.arange(-reach, n + reach, device=image.device).clamp(0, n - 1))
    mean = torch.zeros_like(image)
    for start, weight in enumerate(weights):
        mean.add_(continued.narrow(axis, start, n), alpha=weight)
    return mean


def _resized(ddf: Tensor, size: list[int]) -> Tensor:
    """Resize a field, unless it has that size; of inference mode, a copy."""
    return _outside_inference(ddf) if list(ddf.shape[2:]) == size else fields.resize(ddf, size)


def _add_resized(ddf: Tensor, residual: Tensor) -> None:
    """Add a field of another size in place; by components, since all at once take the memory of as many images."""
    size, mode = ddf.shape[2:], "bilinear" if ddf.ndim == 4 else "trilinear"
    for k, (old, new) in enumerate(zip(residual.shape[2:], size, strict=True)):
        component = residual[:, k : k + 1]
        if residual.shape != ddf.shape:
            component = functional.interpolate(component, size=size, mode=mode, align_corners=False).mul_(new / old)
        ddf[:, k : k + 1] += component


def _at_size(values: Tensor, native: list[int], size: list[int]) -> Tensor:
    """Resize what lies on the image's grid, ``(1, C, *native)``; masks become weights."""
    if size == native or list(values.shape[2:]) != native:
        return _outside_inference(values)
    return resize_image(values[0].float(), size)[None]


def _interpolation(voxels: int, nodes: int, like: Tensor) -> Tensor:
    """Weights of the nodes at the voxels along an axis, ``(nodes, voxels)``; both cover the same length."""
    one_hot = torch.eye(nodes, dtype=like.dtype, device=like.device)[None]
    return functional.interpolate(one_hot, size=voxels, mode="linear", align_corners=False)[0]


def _spread(nodes: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Interpolate ``(1, d, *nodes)`` to all voxels, by products of matrices: deterministic gradients on GPUs too."""
    for matrix in weights:
        nodes = torch.tensordot(nodes, matrix, dims=([2], [0]))  # the axis of voxels becomes the last
    return nodes

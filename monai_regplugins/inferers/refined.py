"""A pair that is being refined: displacements, or a velocity, that were found so far."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.inferers.descent import NodeDescent
from monai_regplugins.inferers.field_sum import FieldSum, add_resized, resized_field
from monai_regplugins.inferers.unfold import SIGMA, unfold, unfolded_field
from monai_regplugins.losses.slabs import SlabLoss

__all__ = [
    "AtSize",
    "OfField",
    "Refined",
    "RefinedDisplacement",
    "RefinedVelocity",
    "faded",
    "zero_field",
]

FADING = 8.0  # voxels beyond a mask in which what was added falls to a third
STEEPEST = 1.5  # times the displacement at a mask's border, the least length in which it may fall so
MOST_DISTANCES = 2**22  # voxels of a grid of distances

OfField: TypeAlias = Callable[[Tensor], Tensor]
AtSize: TypeAlias = Callable[[list[int]], OfField]


@dataclass(frozen=True, kw_only=True)
class Refined(ABC):
    """What was found so far.

    Attributes:
        before: loss of the start as the last level sees it.
        after: loss of what was found.
        steps: of all levels; 0 if there was none.
    """

    before: float = math.nan
    after: float = math.nan
    steps: int = 0

    def __str__(self) -> str:
        return f"loss {self.before:.4g} -> {self.after:.4g} in {self.steps} steps"

    @abstractmethod
    def at(self, size: list[int]) -> Tensor:
        """The field at a size, ``(1, d, *size)``."""

    @abstractmethod
    def still(self) -> Refined:
        """The same for no displacement."""

    @abstractmethod
    def faded(self, counts: Tensor) -> Refined:
        """The same with what was added to the start falling off where nothing counts, see :func:`faded`.

        Args:
            counts: voxels of the image that count, ``(1, 1, *spatial)``.
        """

    @abstractmethod
    def descended(self, descend: NodeDescent, at: AtSize, sizes: list[list[int]]) -> Refined:
        """Optimize at some sizes, one after the other; keep the start if the last of them has a lower loss for it.

        Args:
            descend: the optimizer.
            at: returns the loss of a field at a size.
            sizes: of the levels.
        """

    def outputs(self, size: Sequence[int], unfolds: bool = False) -> dict[str, Tensor]:
        """What becomes part of the result, on the image's grid; on request without folds."""
        ddf = self.field(list(size), unfolds)
        return {"ddf": ddf, "refinement": ddf.new_tensor([[self.before, self.after]])}

    @abstractmethod
    def field(self, size: list[int], unfolds: bool) -> Tensor:
        """The field on the image's grid, which may be changed; on request without folds."""


@dataclass(frozen=True)
class RefinedDisplacement(Refined):
    """A start, and what was added.

    Attributes:
        start: field on the image's grid, ``(1, d, *spatial)``; None for no displacement.
        added: fields whose sum was added: one at the size of the last level; or, if that was computed in slabs, one at
            the size of the level before, and one at its nodes, since a field at its size takes the memory of images.
        size: of the last level.

    Example:
        >>> refined = RefinedDisplacement.begun(torch.zeros(1, 2, 16, 16), None, [8, 8])
        >>> refined.descended(NodeDescent(5), lambda size: lambda u: (u - 1).square().mean(), [[8, 8]]).after < 1
        True
    """

    start: Tensor | None
    added: tuple[Tensor, ...]
    size: list[int]

    @staticmethod
    def begun(like: Tensor, start: Tensor | None, size: list[int]) -> RefinedDisplacement:
        """Begin at a field, of which ``like`` has the type."""
        return RefinedDisplacement(start, (zero_field(like, size),), size)

    def at(self, size: list[int]) -> Tensor:
        """The field at a size."""
        return FieldSum(self._terms, size).whole()

    @property
    def _terms(self) -> tuple[Tensor, ...]:
        """The fields whose sum it is."""
        return self.added if self.start is None else (self.start, *self.added)

    def still(self) -> RefinedDisplacement:
        """The same for no displacement."""
        nothing = torch.zeros_like(self.added[0])
        return replace(self, start=None, added=(nothing,), size=list(nothing.shape[2:]))

    def faded(self, counts: Tensor) -> RefinedDisplacement:
        """The same with what was added falling off where nothing counts."""
        return replace(self, added=tuple(faded(one, counts) for one in self.added))

    def descended(self, descend: NodeDescent, at: AtSize, sizes: list[list[int]]) -> RefinedDisplacement:
        """Optimize at some sizes."""
        refined, steps = self, self.steps
        for size in sizes:
            objective, level = at(size), descend.after(steps)
            if isinstance(objective, SlabLoss):
                if refined.size != size:
                    refined = replace(refined, added=(refined._unfolded(),))  # on a coarser grid that costs little
                found, losses = level.at_nodes(objective, FieldSum(refined._terms, size))
                refined = replace(refined, added=(*refined.added, found), size=size)
            else:
                found, losses = level(objective, refined.at(size))
                refined = replace(refined, added=(FieldSum(refined.added, size).whole() + found,), size=size)
            steps += len(losses) - 1
        before, after = losses[0], min(losses)
        if self.steps or len(sizes) > 1:  # what the levels before made of the start, the last may like less
            still = found.new_zeros(1).expand(1, len(size), *size)  # one number
            before = float(objective(still if self.start is None else resized_field(self.start, size)))
            if not after < before:
                nothing = torch.zeros_like(found)
                refined, after = replace(refined, added=(nothing,), size=list(nothing.shape[2:])), before
        return replace(refined, before=before, after=after, steps=steps)

    def field(self, size: list[int], unfolds: bool) -> Tensor:
        """The field on the image's grid."""
        ddf = zero_field(self.added[0], size) if self.start is None else self.start.clone()
        single = len(self.added) == 1
        for one in (self._unfolded(),) if unfolds and single else self.added:
            add_resized(ddf, one)
        if unfolds:  # what the finer grid of the start, or interpolation, leaves
            finer = sum(n / m for n, m in zip(size, self.added[0].shape[2:], strict=True)) / len(size)
            unfold(ddf, SIGMA * (max(1.0, finer) if single else 1.0))
        return ddf

    def _unfolded(self) -> Tensor:
        """What was added at the size of the last level, so that the field has no folds at that size."""
        added, folded = FieldSum(self.added, self.size).whole(), self.at(self.size)
        unfold(ddf := folded.clone())
        return added + (ddf - folded)


@dataclass(frozen=True)
class RefinedVelocity(Refined):
    """A stationary velocity at nodes; between them its exponential is interpolated linearly.

    Attributes:
        start: velocity at the nodes of the first level, ``(1, d, *nodes)`` in units of their grid.
        velocity: that at the nodes of the last level.

    Example:
        >>> refined = RefinedVelocity.begun(torch.zeros(1, 2, 16, 16), None, [4, 4])
        >>> refined.descended(NodeDescent(5), lambda size: lambda u: (u - 1).square().mean(), [[8, 8]]).after < 1
        True
    """

    start: Tensor
    velocity: Tensor

    @staticmethod
    def begun(like: Tensor, start: Tensor | None, nodes: list[int]) -> RefinedVelocity:
        """Begin at the logarithm of a field."""
        velocity = zero_field(like, nodes) if start is None else fields.logarithm(resized_field(start, nodes))
        return RefinedVelocity(velocity, velocity)

    def at(self, size: list[int]) -> Tensor:
        """The field at a size."""
        return _field_of(self.velocity, size)

    def still(self) -> RefinedVelocity:
        """The same for no displacement."""
        return replace(self, velocity=torch.zeros_like(self.velocity))

    def faded(self, counts: Tensor) -> RefinedVelocity:
        """The same with a velocity that falls off to that of the start where nothing counts."""
        began = resized_field(self.start, list(self.velocity.shape[2:]))
        return replace(self, velocity=began + faded(self.velocity - began, counts))

    def descended(self, descend: NodeDescent, at: AtSize, sizes: list[list[int]]) -> RefinedVelocity:
        """Optimize at some sizes."""
        velocity, steps = self.velocity, self.steps
        for size in sizes:
            objective, nodes = at(size), descend.nodes(size)
            velocity, losses = descend.after(steps).of_velocity(objective, resized_field(velocity, nodes), size)
            steps += len(losses) - 1
        before, after = losses[0], min(losses)
        if self.steps or len(sizes) > 1:
            began = resized_field(self.start, nodes)
            before = float(objective(_field_of(began, size)))
            if not after < before:
                velocity, after = began, before
        return replace(self, velocity=velocity, before=before, after=after, steps=steps)

    def field(self, size: list[int], unfolds: bool) -> Tensor:
        """The field on the image's grid."""
        return unfolded_field(self.velocity, lambda velocity: _field_of(velocity, size)) if unfolds else self.at(size)


def faded(added: Tensor, counts: Tensor) -> Tensor:
    r"""Let what was added to a field fall off where nothing counts, and leave it as it is elsewhere.

    .. math::
        v(x) \, e^{-d(x) / \ell}, \qquad \ell = \max(8, 1.5 \max |v|),

    with the distance d to the next voxel that counts, and the maximum over the voxels beside these, so that it falls by
    less than it would have to for a fold. Nothing there says how anatomy moves, and the smoothness alone would continue
    the displacement at the border of a mask to the border of the image.

    Args:
        added: v, ``(1, d, *size)``, in voxels of its grid.
        counts: voxels that count, ``(1, 1, *spatial)``, on the same or a finer grid.

    Example:
        >>> counts = torch.arange(12.0).expand(1, 1, 12, 12) < 4
        >>> faded(torch.ones(1, 2, 12, 12), counts)[0, 0, 0, [0, 3, 11]]
        tensor([1.0000, 1.0000, 0.3679])
    """
    size = list(added.shape[2:])
    number = math.ceil((math.prod(size) / MOST_DISTANCES) ** (1 / len(size)))  # of voxels along an axis in one
    coarse = [max(1, round(n / number)) for n in size]
    distance = _distance_to(counts, coarse)
    beside = resized_field(added, coarse)[0][:, (distance > 0) & (distance < 2)]
    if beside.numel() == 0:
        return added
    length = max(FADING, STEEPEST * float(beside.norm(dim=0).max()))
    share = torch.exp(-distance / length).to(added)[None, None]
    if coarse != size:
        mode = "bilinear" if len(size) == 2 else "trilinear"
        share = functional.interpolate(share, size=size, mode=mode, align_corners=False)
        share[_pooled(counts, size)[None, None]] = 1
    return added * share


def _distance_to(counts: Tensor, size: list[int]) -> Tensor:
    """Distance of each voxel of a grid to the next one that counts, in its voxels."""
    return torch.from_numpy(distance_transform_edt(~_pooled(counts, size).cpu().numpy())).float()


def _pooled(counts: Tensor, size: list[int]) -> Tensor:
    """The voxels of a coarser grid in which any voxel counts, bool."""
    pool = functional.adaptive_max_pool2d if len(size) == 2 else functional.adaptive_max_pool3d
    return pool((counts > 0).float(), size)[0, 0] > 0


def zero_field(like: Tensor, size: Sequence[int]) -> Tensor:
    """No displacement at a size, ``(1, d, *size)``."""
    return like.new_zeros(1, len(size), *size)


def _field_of(velocity: Tensor, size: list[int]) -> Tensor:
    """The field of a velocity at nodes, at a size."""
    return fields.resize(fields.exponential(velocity), size)

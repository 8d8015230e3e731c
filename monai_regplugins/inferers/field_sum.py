"""A field as the sum of fields of other sizes, made whole or row by row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from monai_regplugins import fields
from monai_regplugins.losses.axis_products import along_axes, interpolation_matrix, used_columns

__all__ = ["FieldSum", "add_resized", "outside_inference", "resized_field"]


class FieldSum:
    """The sum of fields of any sizes, resized to one, of which some rows can be made without the others.

    Args:
        terms: the fields, ``(1, d, *any)`` each in voxels of its grid, at least one.
        size: of the sum.

    Example:
        >>> coarse, fine = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 8, 8)
        >>> FieldSum([coarse, fine], [8, 8]).rows(slice(2, 4)).shape  # one coarse voxel is two fine ones
        torch.Size([1, 2, 2, 8])
    """

    def __init__(self, terms: Sequence[Tensor], size: Sequence[int]) -> None:
        self.terms, self.size = tuple(terms), list(size)

    @cached_property
    def _matrices(self) -> list[list[Tensor]]:
        """The interpolation of each term along each axis; rows are asked for many times."""
        return [
            [interpolation_matrix(n, m, term) for n, m in zip(self.size, term.shape[2:], strict=True)]
            for term in self.terms
        ]

    def whole(self) -> Tensor:
        """All rows, ``(1, d, *size)``."""
        first, *others = self.terms
        total = resized_field(first, self.size)
        if others and total is first:
            total = first.clone()
        for one in others:
            add_resized(total, one)
        return total

    def rows(self, rows: slice) -> Tensor:
        """Some rows of the first axis, ``(1, d, rows, ...)``."""
        pairs = zip(self.terms, self._matrices, strict=True)
        return torch.stack([self._rows_of(*one, rows) for one in pairs]).sum(dim=0)

    def _rows_of(self, term: Tensor, matrices: Sequence[Tensor], rows: slice) -> Tensor:
        """Some rows of a term."""
        if list(term.shape[2:]) == self.size:
            return term[:, :, rows]
        ratios = [n / m for n, m in zip(self.size, term.shape[2:], strict=True)]
        first, *across = matrices
        near = used_columns(first[rows])
        values = along_axes(term[:, :, near], [first[rows, near], *across])
        return values.mul_(values.new_tensor(ratios).view(1, -1, *[1] * len(ratios)))


def resized_field(ddf: Tensor, size: list[int]) -> Tensor:
    """Resize a field, unless it has that size; of inference mode, a copy."""
    return outside_inference(ddf) if list(ddf.shape[2:]) == size else fields.resize(ddf, size)


def outside_inference(values: Tensor) -> Tensor:
    """A copy of a tensor that was made in inference mode, which no gradient may pass; any other as it is."""
    return values.clone() if values.is_inference() else values


def add_resized(ddf: Tensor, other: Tensor) -> None:
    """Add a field of another size in place; by components, since all at once take the memory of as many images."""
    size, mode = ddf.shape[2:], "bilinear" if ddf.ndim == 4 else "trilinear"
    for k, (old, new) in enumerate(zip(other.shape[2:], size, strict=True)):
        component = other[:, k : k + 1]
        if other.shape != ddf.shape:
            component = functional.interpolate(component, size=size, mode=mode, align_corners=False).mul_(new / old)
        ddf[:, k : k + 1] += component

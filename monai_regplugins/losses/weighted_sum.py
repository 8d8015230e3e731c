"""Training loss as a weighted sum of named terms, whose inputs are taken from prediction and targets by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from monai_regplugins.checks import InputError

__all__ = ["Term", "WeightedSum"]


class Term(nn.Module):
    """One term of a loss: a module, the names of its inputs and its weight.

    Args:
        loss: called with the inputs in order, returns a scalar tensor.
        inputs: names of the inputs, looked up in the prediction first, then in the targets.
        weight: factor of the term in the sum, zero or more; a term of weight zero is not computed.

    Raises:
        InputError: no inputs are named, or the weight is negative or not finite.

    Example:
        >>> mse = Term(nn.MSELoss(), inputs=["warped", "fixed"], weight=2.0)
        >>> mse({"warped": torch.zeros(4)}, {"fixed": torch.ones(4)})
        tensor(1.)
    """

    def __init__(self, loss: nn.Module, inputs: Sequence[str], weight: float = 1.0) -> None:
        super().__init__()
        if isinstance(inputs, str) or not inputs:
            raise InputError(f"inputs is {inputs!r}, expected a list of names such as ['warped', 'fixed'].")
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"weight is {weight}, expected a finite number, zero or more.")
        self.loss = loss
        self.inputs = list(inputs)
        self.weight = weight

    def forward(self, pred: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the unweighted value of the term.

        Raises:
            KeyError: an input is neither in the prediction nor in the targets.
        """
        value: torch.Tensor = self.loss(*(self._find(name, pred, targets) for name in self.inputs))
        return value

    def _find(self, name: str, pred: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        for source in (pred, targets):
            if name in source:
                return source[name]
        raise KeyError(
            f"{type(self.loss).__name__} needs '{name}', which is neither in the prediction ({', '.join(pred)}) "
            f"nor in the targets ({', '.join(targets)})."
        )


class WeightedSum(nn.Module):
    """The sum of weighted terms, called as ``loss(pred, targets)``.

    The RAN paper's losses (Zheng et al. 2022, Eq. 13 and suppl. Eq. 11) are sums of this kind.

    Args:
        terms: the terms by name; the names are those under which a training logs them.

    Attributes:
        last: unweighted values of the terms in the last call, detached and still on their device, so that reading them
            is what waits for the device, not the training step.

    Raises:
        InputError: there is no term.

    Example:
        >>> loss = WeightedSum({"similarity": Term(nn.MSELoss(), ["warped", "fixed"], weight=2.0)})
        >>> loss({"warped": torch.zeros(4)}, {"fixed": torch.ones(4)})
        tensor(2.)
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise InputError("terms is empty, expected at least one named term.")
        self.terms = nn.ModuleDict(dict(terms))
        self.last: dict[str, torch.Tensor] = {}

    def forward(self, pred: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the total, a scalar, for a prediction and targets given as dicts of tensors.

        Raises:
            InputError: every weight is zero.
            KeyError: a term's input is neither in the prediction nor in the targets.
        """
        active = {name: term for name, term in self.terms.items() if term.weight != 0}
        if not active:
            raise InputError("every term has weight zero, expected at least one above; nothing would be trained.")
        values = {name: term(pred, targets) for name, term in active.items()}
        self.last = {name: value.detach() for name, value in values.items()}
        return torch.stack([active[name].weight * value for name, value in values.items()]).sum()

r"""Muon: momentum whose matrices are orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

The gradient of a layer is dominated by few directions. An orthogonalized update moves all directions that the gradient
has by the same amount, so that the rare ones are learned as fast as the strong ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from monai_regplugins.checks import InputError

__all__ = ["Muon", "orthogonalized"]

# Quintic Newton-Schulz iteration of the publication. It brings singular values to about 1 (0.7 to 1.2) in five steps,
# and a more exact one trains no better.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


class Muon(torch.optim.Optimizer):
    r"""Orthogonalized momentum for weights, Adam for biases and norms.

    With the gradient G of a weight W, its momentum B and ``orth`` as in :func:`orthogonalized`

    .. math::
        B \leftarrow \mu B + (1 - \mu) G, \qquad O = orth(\mu B + (1 - \mu) G), \qquad
        W \leftarrow W - \eta \frac{\|W\|_F}{\|O\|_F} O

    A convolution's weight is the matrix of its output channels by all the rest. The step is a share :math:`\eta` of the
    weight: most layers are followed by a norm, for which only that share counts. (The publication scales by the shape
    of the matrix instead.) A weight of zeros would stay zero; such a one, and everything with less than two axes, is
    left to Adam.

    Args:
        params: parameters, or groups of them.
        lr: the share :math:`\eta` by which a step changes a weight.
        momentum: :math:`\mu`.
        adam_ratio: learning rate of Adam divided by ``lr``, so that a schedule changes both.
        betas: Adam's coefficients.
        eps: Adam's epsilon.

    Raises:
        InputError: When a number is out of its range.

    Example:
        >>> layer = torch.nn.Conv3d(2, 4, 3)
        >>> optimizer = Muon(layer.parameters(), lr=0.02)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.9,
        adam_ratio: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not lr >= 0 or not adam_ratio >= 0:
            raise InputError(f"lr is {lr} and adam_ratio {adam_ratio}, expected 0 or more.")
        if not all(0 <= share < 1 for share in (momentum, *betas)):
            raise InputError(f"momentum is {momentum} and betas are {betas}, expected numbers from 0 to below 1.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "adam_ratio": adam_ratio, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one step; ``closure`` computes the loss again, as in all of PyTorch's optimizers."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                gradient, state = weight.grad, self.state[weight]
                if gradient is None:
                    continue
                if not state:
                    state["matrix"] = weight.ndim >= 2 and bool(weight.any())
                update = self._turn if state["matrix"] else self._adam
                update(weight, gradient, state, group)
        return loss

    @staticmethod
    def _turn(weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move a weight along its orthogonalized momentum."""
        momentum = group["momentum"]
        if "average" not in state:
            state["average"] = torch.zeros_like(weight)
        average = state["average"].lerp_(gradient, 1 - momentum)
        update = orthogonalized(gradient.lerp(average, momentum).flatten(1)).view_as(weight)
        weight.sub_(update * (group["lr"] * weight.norm() / update.norm().clamp_min(1e-12)))

    @staticmethod
    def _adam(weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Do a step of Adam."""
        if "count" not in state:
            state.update(count=0, average=torch.zeros_like(weight), square=torch.zeros_like(weight))
        first, second = group["betas"]
        state["count"] += 1
        average = state["average"].lerp_(gradient, 1 - first)
        square = state["square"].lerp_(gradient.square(), 1 - second)
        scale = (square / (1 - second ** state["count"])).sqrt_().add_(group["eps"])
        weight.addcdiv_(average, scale, value=-group["lr"] * group["adam_ratio"] / (1 - first ** state["count"]))


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    r"""Return about :math:`U V^T` of the singular value decomposition :math:`U S V^T` of a matrix, ``(m, n)``.

    Computed by products alone. Directions that the matrix does not have, or only at a thousandth of the others, stay
    small.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(torch.float32)
    x = x / x.norm().clamp_min(1e-12)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: torch.Tensor = (x if wide else x.T).to(matrix.dtype)
    return result

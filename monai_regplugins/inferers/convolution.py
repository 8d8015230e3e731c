"""Convolutions of single small volumes on a CPU, by the fast of PyTorch's two ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["fast_convolutions"]

CONVOLUTIONS = {torch.conv3d, torch.nn.functional.conv3d}


def fast_convolutions(image: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which a network sends its 3D convolutions of one volume to oneDNN.

    PyTorch 2.13 sends a batch of one volume with channels x depth x height of at most 20480 and kernels of up to 3
    voxels to ``aten::slow_conv3d``, which takes about eight times as long (``use_mkldnn`` in
    ``aten/src/ATen/native/Convolution.cpp``). Everything else is left to PyTorch: other devices and types, batches,
    autocast, tracing, and whatever needs gradients.

    Args:
        image: what the network will be given, ``(B, C, *spatial)``.

    Example:
        >>> convolution, volume = torch.nn.Conv3d(2, 4, 3, padding=1), torch.rand(1, 2, 8, 8, 8)
        >>> with torch.no_grad(), fast_convolutions(volume):
        ...     fast = convolution(volume)
        >>> torch.allclose(fast, convolution(volume), atol=1e-5)
        True
    """
    return _OneDNN() if _is_single_volume(image) else nullcontext()


class _OneDNN(TorchFunctionMode):
    """The mode of :func:`fast_convolutions`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or oneDNN instead of it."""
        kwargs = kwargs or {}
        return (_convolve if func in CONVOLUTIONS else func)(*args, **kwargs)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.conv3d``, in oneDNN where that can be done."""
    if isinstance(padding, str) or not _is_single_volume(input):
        return torch.conv3d(input, weight, bias, stride, padding, dilation, groups)
    triples = (_triple(padding), _triple(stride), _triple(dilation))
    return torch.mkldnn_convolution(input, weight, bias, *triples, groups)


def _is_single_volume(volume: Tensor) -> bool:
    """Whether PyTorch may miss oneDNN for this one, and nothing else stands against it."""
    return (
        (volume.ndim, len(volume), volume.device.type, volume.dtype) == (5, 1, "cpu", torch.float32)
        and torch.backends.mkldnn.is_available()
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing())
    )


def _triple(value: int | Sequence[int]) -> list[int]:
    """A number for each axis."""
    return [value] * 3 if isinstance(value, int) else list(value)

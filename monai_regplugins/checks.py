"""Input errors (one line: what is wrong, what is expected, what to do) and the checks that raise them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "InputError",
    "check_affine",
    "check_choice",
    "check_file",
    "check_finite_field",
    "check_image",
    "check_mask",
    "check_minimum_size",
    "check_pair_channels",
    "check_same_size",
    "check_single_channels",
    "import_optional",
    "input_error_message",
    "load_into",
    "load_weights",
    "say_when_stopped",
    "stop_message",
    "suggest",
]

SHEAR_TOLERANCE = 1e-3  # largest |cosine| between two voxel axes that still counts as a right angle


class InputError(ValueError):
    """Invalid user input, as opposed to a program error; the message is one line and includes the remedy."""


# an error raised in a data loading worker arrives as text: the traceback, closed by this line
WORKER_ERROR = re.compile(rf"^{re.escape(InputError.__module__)}\.{InputError.__name__}: (.+)$", re.MULTILINE)


def input_error_message(error: BaseException) -> str | None:
    """Return the message of the input error among ``error`` and its causes, None if there is none.

    MONAI's transforms, engines and data loading workers wrap the errors that pass through them.
    """
    for link in _chain(error):
        if isinstance(link, InputError) and "\n" not in str(link):
            return str(link)
        if found := WORKER_ERROR.findall(str(link)):
            return str(found[-1])
    return None


def say_when_stopped(advice: Callable[[], str] | None) -> None:
    """Set what an interruption says beside that it stopped the program, in place of what was set before.

    Args:
        advice: returns how to go on; None for what is said by default.
    """
    _advice["stopped"] = advice or _default_advice


def stop_message() -> str:
    """Return the line that a program ends with that was interrupted.

    Example:
        >>> stop_message()
        'stopped; what was written is complete: a list goes on by the same command, a training by its checkpoint.pt.'
    """
    return f"stopped; what was written is complete: {_advice['stopped']()}."


def _default_advice() -> str:
    return "a list goes on by the same command, a training by its checkpoint.pt"


_advice: dict[str, Callable[[], str]] = {"stopped": _default_advice}


def _chain(error: BaseException) -> Iterable[BaseException]:
    """Return ``error`` and everything it was raised from or during, outermost first."""
    links: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop(0)
        if link is not None and link not in links:
            links.append(link)
            pending += [link.__cause__, link.__context__]
    return links


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the choice closest to ``word``, or ``""`` if none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


def import_optional(package: str, users: str, requirement: str | None = None) -> Any:
    """Import a package that few users need and that is no dependency.

    Args:
        package: its name.
        users: what needs it, in the plural, such as ``"TIFF files"``.
        requirement: what pip has to install; the package by default.

    Raises:
        InputError: When it is missing.

    Example:
        >>> import_optional("zarr9", "Zarr files")
        Traceback (most recent call last):
        monai_regplugins.checks.InputError: Zarr files need zarr9, which is missing; install it with: pip install zarr9.
    """
    try:
        return import_module(package)
    except ImportError as error:
        wanted = package if requirement is None else f"'{requirement}'"
        raise InputError(f"{users} need {package}, which is missing; install it with: pip install {wanted}.") from error


def check_file(path: str | Path, what: str) -> Path:
    """Check that ``path`` is an existing, non-empty file.

    Args:
        path: the file that the user named.
        what: what the file is for, in the user's words, e.g. ``"fixed image"``.

    Returns:
        ``path`` as a :class:`pathlib.Path`.

    Raises:
        InputError: When there is no such file, it is a folder, or it is empty.
    """
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{what} '{path}' is a folder; give the path of a file in it.")
    if not file.is_file():
        entries = file.parent.iterdir() if file.parent.is_dir() else ()
        neighbors = [entry.name for entry in entries if not entry.name.startswith(".")]
        hint = suggest(file.name, neighbors) if file.parent.is_dir() else f" The folder '{file.parent}' does not exist."
        raise InputError(f"{what} '{path}' does not exist; give the path of an existing file.{hint}")
    if file.stat().st_size == 0:
        raise InputError(f"{what} '{path}' is empty (0 bytes); copy or download it again.")
    return file


def check_choice(value: str, choices: Iterable[str], name: str) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        InputError: When it is not; the message lists the choices and the closest one.
    """
    options = list(choices)
    if value not in options:
        listed = ", ".join(f"'{option}'" for option in options)
        raise InputError(f"{name} is {value!r}; choose one of {listed}.{suggest(str(value), options)}")


def check_single_channels(image: Any, network: str) -> None:
    """Check that a pair ``(B, 2, *spatial)`` has one channel of each image.

    Raises:
        InputError: When it has not.
    """
    if image.shape[1] != 2:
        raise InputError(
            f"a pair has {image.shape[1]} channels, expected 2: {network} takes one of the moving image and one of the "
            "fixed one; give a single channel, or refine without this network."
        )


def check_pair_channels(spatial_dims: int, in_channels: int, out_channels: int | None, network: str) -> None:
    """Check that a network takes a moving and a fixed image in 2D or 3D and returns a field.

    Raises:
        InputError: When it does not; ``out_channels`` may be None for one component per axis.
    """
    if spatial_dims not in (2, 3) or in_channels != 2 or out_channels not in (None, spatial_dims):
        raise InputError(
            f"spatial_dims, in_channels and out_channels are {spatial_dims}, {in_channels} and {out_channels}, "
            f"expected d = 2 or 3, 2 and d; {network} takes a moving and a fixed image and returns a field."
        )


def check_image(data: np.ndarray[Any, Any] | torch.Tensor, name: str, spatial_dims: int) -> None:
    """Check an image: one channel, ``spatial_dims`` axes, finite, not constant.

    Args:
        data: intensities, shape ``(1, *spatial)``.
        name: what the image is, e.g. ``"fixed image"``.
        spatial_dims: number of spatial axes expected.

    Raises:
        InputError: When the shape is another one, or the intensities hold NaN or infinity or are all the same.
    """
    shape = tuple(data.shape)
    if len(shape) != spatial_dims + 1:
        others = {(3, 2): ", or take a bundle for 3D, ran or regnet", (2, 3): ", or the bundle for 2D, r2n2"}
        advice = others.get((len(shape) - 1, spatial_dims), "")
        raise InputError(
            f"{name} has {len(shape) - 1} spatial dimensions (shape {shape}, channel first), expected {spatial_dims}; "
            f"give a {spatial_dims}D image{advice}; of one with several channels, a single one."
        )
    if shape[0] != 1:
        raise InputError(f"{name} has {shape[0]} channels (shape {shape}), expected 1; give a single-channel image.")
    if 0 in shape:
        raise InputError(f"{name} has no voxels (shape {shape}); give an image of at least one voxel along each axis.")
    low, high = float(data.min()), float(data.max())  # both carry NaN, and one of them any infinity
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name} holds NaN or infinite intensities, expected finite ones; replace them in the file.")
    if low == high:
        raise InputError(
            f"{name} is constant ({low:g} everywhere), nothing to register; check that it is the right file."
        )


def check_finite_field(ddf: torch.Tensor, network: object) -> None:
    """Check that a predicted field is finite.

    Args:
        ddf: displacements of a batch, in voxels.
        network: what returned them; its ``weights_file``, which
            :class:`~monai_regplugins.handlers.WeightsLoader` notes, is named in the message.

    Raises:
        InputError: When values are NaN or infinite.
    """
    low, high = (float(extreme) for extreme in ddf.detach().aminmax())  # both carry NaN, and one of them any infinity
    if not (math.isfinite(low) and math.isfinite(high)):
        wrong = ddf.numel() - int(ddf.isfinite().sum())
        weights = getattr(network, "weights_file", "")
        named = f" with the weights '{weights}'" if weights else ""
        raise InputError(
            f"the network{named} returned {wrong} of {ddf.numel()} displacements that are not finite (NaN or "
            "infinity), so the pair has no result; use the published weights or an earlier checkpoint, and no mixed "
            "precision (amp=false)."
        )


def check_mask(data: np.ndarray[Any, Any] | torch.Tensor, name: str) -> None:
    """Check that a mask marks at least one voxel.

    Raises:
        InputError: When no value is above zero.
    """
    if not bool((data > 0).any()):
        raise InputError(
            f"{name} is empty (no value above 0), expected at least one voxel; check the file or leave it out."
        )


def check_minimum_size(spatial_shape: Sequence[int], minimum: int | Sequence[int], name: str) -> None:
    """Check that an image has at least ``minimum`` voxels along each axis.

    Args:
        spatial_shape: number of voxels along each axis.
        minimum: smallest number allowed, one for all axes or one each.
        name: what the image is, e.g. ``"moving image"``.

    Raises:
        InputError: When one axis is too short.
    """
    smallest = (minimum,) * len(spatial_shape) if isinstance(minimum, int) else tuple(minimum)
    if any(size < least for size, least in zip(spatial_shape, smallest, strict=True)):
        raise InputError(
            f"{name} has {_times(spatial_shape)} voxels, expected at least {_times(smallest)}; "
            "give a larger image or resample it to smaller voxels."
        )


def check_same_size(a: Any, b: Any, name_a: str, name_b: str) -> None:
    """Check that two arrays, tensors or shapes have the same size.

    Raises:
        InputError: When they differ.
    """
    size_a, size_b = (tuple(getattr(item, "shape", item)) for item in (a, b))
    if size_a != size_b:
        raise InputError(
            f"{name_a} has size {_times(size_a)} but {name_b} has {_times(size_b)}, expected the same; "
            "give files on one grid or resample one onto the other."
        )


def check_affine(affine: np.ndarray[Any, Any] | torch.Tensor, name: str) -> None:
    """Check a voxel-to-world matrix: square, finite, invertible and without shear.

    Args:
        affine: homogeneous matrix, shape (d + 1, d + 1), voxels to mm.
        name: what it belongs to, e.g. ``"fixed image"``.

    Raises:
        InputError: When it is no such matrix; two axes count as sheared when the cosine between them exceeds 1e-3.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
        raise InputError(f"affine of {name} has shape {matrix.shape}, expected a square one; save the image again.")
    axes = matrix[:-1, :-1]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(matrix).all() or not (spacing > 0).all():
        raise InputError(f"affine of {name} is not invertible, expected finite, positive voxel sizes; fix its header.")
    directions = axes / spacing
    cosines = np.abs(directions.T @ directions - np.eye(len(spacing)))
    if not abs(np.linalg.det(directions)) > SHEAR_TOLERANCE:
        raise InputError(f"affine of {name} is not invertible (two axes are parallel); fix the image's header.")
    if cosines.max() > SHEAR_TOLERANCE:
        raise InputError(
            f"affine of {name} is sheared (cosine {cosines.max():.2g} between two axes), expected right angles; "
            "resample the image onto a grid without shear."
        )


def load_weights(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of tensors onto the CPU; nothing in the file is executed.

    Raises:
        InputError: When the file is missing, damaged, not a PyTorch checkpoint, or holds no dictionary.
    """
    import torch  # seconds, which who only checks a path does not have to wait for

    file = check_file(path, "checkpoint")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file can fail in any way inside the unpickler
        raise InputError(
            f"checkpoint '{path}' cannot be read, expected a PyTorch file of weights; it is damaged, cut short or "
            "something else, so copy or download it again."
        ) from error
    if not isinstance(state, Mapping):
        raise InputError(
            f"checkpoint '{path}' holds a {type(state).__name__}, expected a dictionary of weights; "
            "save it with torch.save(network.state_dict(), path)."
        )
    return dict(state)


def load_into(network: torch.nn.Module, state: Mapping[str, Any], path: str | Path) -> None:
    """Load ``state`` into ``network``, all of it or nothing; weights are finite.

    Args:
        network: the network to fill.
        state: its weights by name, as :func:`load_weights` returns them.
        path: where they came from, for the message.

    Raises:
        InputError: When names or shapes differ, as they do for a checkpoint of another network, or a weight is NaN or
            infinite, as after a training that diverged.
    """
    expected = network.state_dict()
    common = expected.keys() & state.keys()
    differences = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
        "of another shape": [key for key in expected if key in common and not _same_shape(expected[key], state[key])],
    }
    found = [f"{len(keys)} {kind} (first '{keys[0]}')" for kind, keys in differences.items() if keys]
    if found:
        raise InputError(
            f"checkpoint '{path}' does not fit {type(network).__name__}: weights {', '.join(found)}; "
            "it belongs to another network, so give the settings it was trained with, or another checkpoint."
        )
    if wrong := [key for key in expected if not bool(state[key].isfinite().all())]:
        raise InputError(
            f"checkpoint '{path}' holds weights that are not finite (NaN or infinity, first '{wrong[0]}'), as a "
            "training leaves them that diverged; take an earlier checkpoint or the published weights."
        )
    network.load_state_dict(state)


def _same_shape(expected: torch.Tensor, value: Any) -> bool:
    """Whether ``value`` is a tensor of the same shape."""
    return isinstance(value, type(expected.detach())) and value.shape == expected.shape


def _times(size: Iterable[int]) -> str:
    """Write a size the way people do: ``64 x 64 x 48``."""
    return " x ".join(str(int(length)) for length in size)

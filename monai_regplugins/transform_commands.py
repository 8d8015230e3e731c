"""Commands of ``regplugins`` on transform files; the work is that of :mod:`~monai_regplugins.io.operations`."""

from __future__ import annotations

from argparse import Namespace

from monai_regplugins.bundle import start
from monai_regplugins.io import operations

__all__ = ["run_transform_command"]


def run_transform_command(args: Namespace) -> int:
    """Run one of the commands ``apply``, ``compose``, ``invert``, ``convert``, ``jacobian`` and ``inspect``.

    Args:
        args: ``command`` and its options, see :mod:`~monai_regplugins.transform_options`.

    Returns:
        The exit status.

    Raises:
        InputError: When a file cannot be read or written, or the files do not belong together.
    """
    start()  # input errors in one line, from here on
    for line in _COMMANDS[args.command](args):
        print(line)
    return 0


def _apply(args: Namespace) -> list[str]:
    written = operations.apply(
        args.transforms,
        args.inputs,
        args.output,
        args.like,
        args.interpolation,
        args.padding,
        args.format,
        args.points_space,
        args.moving,
    )
    return [f"written: {path}" for path in written]


def _compose(args: Namespace) -> list[str]:
    return [
        f"written: {operations.compose(args.transforms, args.output, args.like, args.to, args.format, args.moving)}"
    ]


def _convert(args: Namespace) -> list[str]:
    file = operations.convert(args.transform, args.output, args.to, args.format, args.like, args.moving)
    return [f"written: {file}"]


def _invert(args: Namespace) -> list[str]:
    report = operations.invert(args.transforms, args.output, args.like, args.to, args.format, args.fixed)
    left = f"mean {report.mean:.4f}, largest {report.max:.4f} mm, {report.unsolved} voxels without an inverse"
    return [f"written: {args.output}", f"the transform of the inverse misses its points by: {left}"]


def _jacobian(args: Namespace) -> list[str]:
    file = operations.jacobian(args.transforms, args.output, args.like, args.log, args.format, args.moving)
    return [f"written: {file}"]


def _inspect(args: Namespace) -> list[str]:
    return [str(operations.inspect(path, args.format, args.like, args.moving)) for path in args.transforms]


_COMMANDS = {
    "apply": _apply,
    "compose": _compose,
    "convert": _convert,
    "invert": _invert,
    "jacobian": _jacobian,
    "inspect": _inspect,
}

"""What is done with transform files: apply, compose, invert, convert, take the Jacobian, look at them.

Each function takes files and writes files, and is the command of the same name of ``regplugins``. A transform maps
points of the fixed image to the moving image; images are therefore brought from the moving to the fixed grid. Several
transforms are listed in the order in which a point of the fixed image meets them, each as ``[inverse:][FORMAT:]FILE``,
see :func:`~monai_regplugins.io.transform_files.load_transform`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.files.atomic import replace_file
from monai_regplugins.files.folders import files_in
from monai_regplugins.grids import affine_field, same_affine, world_affine
from monai_regplugins.io.field_grid import check_field, ddf_of_displacement
from monai_regplugins.io.foreign_fields import FOREIGN_FORMATS, VECTOR_SUFFIXES, save_foreign_field
from monai_regplugins.io.formats import FORMATS, FieldPair, in_itk_world, save_field
from monai_regplugins.io.freesurfer_warp import WARP_SUFFIXES
from monai_regplugins.io.linear import LINEAR_SUFFIXES, save_linear
from monai_regplugins.io.nifti import write_nifti
from monai_regplugins.io.point_map import Chain, FieldMap, InverseMap, LinearMap, check_meets, grid_points
from monai_regplugins.io.resampling import INTERPOLATIONS, apply_to_image, apply_to_points, displacement_on
from monai_regplugins.io.transform_files import load_transform, transform_format, transform_source
from monai_regplugins.memory import check_memory
from monai_regplugins.readers.dicom_files import is_dicom
from monai_regplugins.readers.image_grid import ImageGrid, grid_of, read_image_grid
from monai_regplugins.readers.images import check_readable, read_scan, without_padding
from monai_regplugins.readers.nifti import NIFTI_SUFFIXES, nifti_header
from monai_regplugins.readers.ome_zarr import ZARR_SUFFIXES
from monai_regplugins.readers.points import read_points, write_points
from monai_regplugins.readers.voxel_files import voxel_files

__all__ = ["WRITTEN_FORMS", "Inspection", "Inverted", "apply", "compose", "convert", "inspect", "invert", "jacobian"]

logger = logging.getLogger(__name__)

Source: TypeAlias = str | Path
Sources: TypeAlias = Source | Sequence[Source]

LINEAR = ("itk", "lta", "fsl", "ras", "lps")
WRITTEN_FORMS = (*FORMATS, *(name for name, form in FOREIGN_FORMATS.items() if form.write is not None), *LINEAR)
BY_SUFFIX = {
    **dict.fromkeys(NIFTI_SUFFIXES, "itk_nifti"),
    **dict.fromkeys(VECTOR_SUFFIXES, "vectors"),
    **dict.fromkeys(WARP_SUFFIXES, "freesurfer"),
    **dict.fromkeys(FORMATS["itk_h5"].suffixes, "itk_h5"),
    ".npz": "native",
    ".x5": "x5",
    ".dcm": "dicom",
}
POINT_SUFFIXES = (".csv", ".fcsv", ".json", ".txt", ".pts")
CONVERGED = 0.01  # mm
COPIES = 2  # of a result in float32: as it is made, and as it is written


class Inverted(NamedTuple):
    """How well a transform was inverted: distances between a point and where the transform takes its inverse, mm.

    They are those of the voxels whose inverse lies on the grid of the transform; elsewhere that is continued.
    """

    mean: float
    max: float
    unsolved: int


class Inspection(NamedTuple):
    """What a transform file is: a title, and facts by name."""

    path: Path
    facts: dict[str, str]

    def __str__(self) -> str:
        """A line for each fact."""
        return "\n".join([str(self.path), *(f"  {name}: {fact}" for name, fact in self.facts.items())])


def apply(
    transforms: Sources,
    moving: Sources,
    output: Source,
    like: Source | None = None,
    interpolation: str = "linear",
    padding_value: float | None = None,
    format: str | None = None,
    points_space: str | None = None,
    moving_image: Source | None = None,
) -> list[Path]:
    """Bring moving images onto the fixed grid, or carry points of the fixed image to the moving one.

    Args:
        transforms: files, see the module.
        moving: images, or files of points (``.csv .fcsv .mrk.json .txt .pts``): points are those of the *fixed* image
            and go to the moving one, the other way than images.
        output: the file, or for several ``moving`` the folder of files of the same names, where none may be yet; images
            become NIfTI.
        like: image whose grid the result has; by default that of the first field.
        interpolation: ``linear``, ``cubic``, or for label maps ``nearest`` or ``labels``, see
            :func:`~monai_regplugins.io.resampling.apply_to_image`.
        padding_value: outside of the moving image; None for its minimum, and 0 for labels.
        format: format of the transforms that do not state theirs.
        points_space: what the numbers of point files are, ``voxel``, ``ras`` or ``lps``; None for what they say.
        moving_image: image that points go to; those in voxels need it.

    Returns:
        The files that were written.

    Raises:
        InputError: When a file cannot be read or written, or transforms, images and points do not belong together.

    Example:
        >>> apply("displacement_itk.nii.gz", "moving.nii.gz", "warped.nii.gz", like="fixed.nii.gz")  # doctest: +SKIP
    """
    check_choice(interpolation, INTERPOLATIONS, "interpolation")
    inputs = [Path(one) for one in ([moving] if isinstance(moving, str | Path) else moving)]
    targets = _targets(inputs, Path(output))
    _check_kept(targets, transforms, *inputs, like, moving_image)
    target = None if like is None else read_image_grid(like, "image of the grid")
    to_moving = None if moving_image is None else read_image_grid(moving_image, "moving image")
    for path, written in zip(inputs, targets, strict=True):
        if _holds_points(path):
            found = read_points(check_readable(path, "points"), "points", points_space)
            chain = load_transform(transforms, format, target, to_moving)
            write_points(written, apply_to_points(chain, found, target, to_moving))
        else:
            _apply_to_file(transforms, path, written, target, interpolation, padding_value, format)
    return targets


def compose(
    transforms: Sources,
    output: Source,
    like: Source | None = None,
    to: str | None = None,
    format: str | None = None,
    moving_image: Source | None = None,
) -> Path:
    """Write one file of several transforms, from the fixed to the moving image like each of them.

    Args:
        transforms: files, see the module.
        output: the file; its suffix states the format unless ``to`` does. Linear transforms stay a matrix where it can
            hold one; anything else becomes a field.
        like: image, the fixed one as a rule, whose grid the field has; by default that of the first field.
        to: one of ``WRITTEN_FORMS``.
        format: format of the transforms that do not state theirs.
        moving_image: the moving image; formats that count its voxels need it.

    Returns:
        The file.

    Raises:
        InputError: When a file cannot be read or written, or the transforms do not meet.
    """
    fixed = None if like is None else read_image_grid(like, "fixed image")
    moving = None if moving_image is None else read_image_grid(moving_image, "moving image")
    _check_kept([Path(output)], transforms, like, moving_image)
    _save(load_transform(transforms, format, fixed, moving), Path(output), to, fixed, moving)
    return Path(output)


def convert(
    transform: Source,
    output: Source,
    to: str | None = None,
    format: str | None = None,
    like: Source | None = None,
    moving_image: Source | None = None,
) -> Path:
    """Write a transform in another format, or a field on another grid; the direction stays.

    Args:
        transform: the file.
        output: the file; its suffix states the format unless ``to`` does.
        to: one of ``WRITTEN_FORMS``.
        format: format of ``transform`` if it does not state it.
        like: the fixed image, whose grid a field gets; formats of FSL and FreeSurfer need it.
        moving_image: the moving image, which these formats need, too.

    Returns:
        The file.

    Raises:
        InputError: When a file cannot be read or written, or a format needs images that are not given.
    """
    return compose([transform], output, like, to, format, moving_image)


def invert(
    transforms: Sources,
    output: Source,
    like: Source | None = None,
    to: str | None = None,
    format: str | None = None,
    fixed_image: Source | None = None,
) -> Inverted:
    """Write the inverse: a transform from points of the moving image to the fixed image.

    Args:
        transforms: files, see the module.
        output: the file, as for :func:`compose`.
        like: the moving image, whose grid the inverse of a field has.
        to: one of ``WRITTEN_FORMS``.
        format: format of the transforms that do not state theirs.
        fixed_image: the fixed image; formats that count its voxels need it.

    Returns:
        How well the inverse undoes the transform.

    Raises:
        InputError: When a file cannot be read or written, or a field has no grid for its inverse.
    """
    fixed = None if fixed_image is None else read_image_grid(fixed_image, "fixed image")
    moving = None if like is None else read_image_grid(like, "moving image")
    _check_kept([Path(output)], transforms, like, fixed_image)
    chain = load_transform(transforms, format, fixed, moving)
    if (matrix := _matrix(chain)) is not None:
        turned = Chain([LinearMap(np.linalg.inv(matrix))], chain.moving_by_itk, chain.fixed_by_itk)
        _save(turned, Path(output), to, moving, fixed)
        return Inverted(0.0, 0.0, 0)
    if moving is None:
        raise InputError("the inverse of a field lies on the grid of the moving image; give that (--like).")
    field, report = _inverted(chain.in_worlds(None if fixed is None else fixed.itk, moving.itk), moving)
    _save_field(field, Path(output), to, moving, fixed)
    if report.unsolved:
        logger.warning("%d voxels have no inverse within %g mm, as where the field folds.", report.unsolved, CONVERGED)
    return report


def jacobian(
    transforms: Sources,
    output: Source,
    like: Source | None = None,
    log: bool = False,
    format: str | None = None,
    moving_image: Source | None = None,
) -> Path:
    """Write the Jacobian determinant of a transform as NIfTI, float32: the volume of a voxel in the moving image.

    It is counted in voxels of the fixed image, whatever the directions of their grid, by central differences, one-sided
    ones at the border of the grid. 1 is no change, above 1 a voxel of the fixed image takes more room in the moving
    one, and at 0 or below the transform folds.

    Args:
        transforms: files, see the module.
        output: the file, ``.nii`` or ``.nii.gz``.
        like: image whose grid is taken; by default that of the first field.
        log: write the natural logarithm; NaN where the determinant is not positive.
        format: format of the transforms that do not state theirs.
        moving_image: the moving image; formats that count its voxels need it.

    Raises:
        InputError: When a file cannot be read or written, or no grid is given.
    """
    target = _nifti_target(Path(output))
    _check_kept([target], transforms, like, moving_image)
    grid = None if like is None else read_image_grid(like, "image of the grid")
    moving = None if moving_image is None else read_image_grid(moving_image, "moving image")
    field = _field(load_transform(transforms, format, grid, moving), grid, moving)
    values = _determinants(field)
    if log:
        if folded := int((values <= 0).sum()):
            logger.warning("the transform folds at %d voxels, whose logarithm is NaN.", folded)
        with np.errstate(all="ignore"):
            values = np.where(values > 0, np.log(values), np.float32(np.nan))
    _save_image(target, torch.from_numpy(values)[None], field.affine)
    return target


def inspect(
    transform: Source, format: str | None = None, like: Source | None = None, moving_image: Source | None = None
) -> Inspection:
    """State what a transform file is: format, direction, units, frame, grid, size of the motion, folds.

    Args:
        transform: the file.
        format: its format if it does not state it.
        like: the fixed image, which formats that count voxels of both images need.
        moving_image: the moving image, which these need, too.

    Raises:
        InputError: When it cannot be read.
    """
    source = transform_source(transform, format)
    name = source.format or transform_format(source.path)
    fixed = None if like is None else read_image_grid(like, "fixed image")
    moving = None if moving_image is None else read_image_grid(moving_image, "moving image")
    chain = load_transform([source], format, fixed, moving)
    direction = "points of the fixed image to the moving image, so that images are resampled onto the fixed grid"
    facts = {"format": name, "direction": direction, "as read": "RAS, mm"}
    facts["image position"] = "as ITK takes it from the header" if chain.fixed_by_itk else "as nibabel takes it"
    for number, one in enumerate(chain.maps, 1):
        title = "" if len(chain.maps) == 1 else f"{number}. "
        facts[f"{title}kind"] = {
            LinearMap: "linear",
            FieldMap: "displacement field",
            InverseMap: "inverse of a displacement field",
        }.get(type(one), "other")
        if isinstance(one, LinearMap):
            facts |= {f"{title}{key}": fact for key, fact in _about_matrix(one.matrix).items()}
        elif isinstance(field := one.forward if isinstance(one, InverseMap) else one, FieldMap):
            facts |= {f"{title}{key}": fact for key, fact in _about_field(field).items()}
    return Inspection(source.path, facts)


def _listed(sources: Sources) -> list[Source]:
    return [sources] if isinstance(sources, str | Path) else list(sources)


def _holds_points(path: Path) -> bool:
    return path.name.lower().endswith(POINT_SUFFIXES)


def _targets(inputs: Sequence[Path], output: Path) -> list[Path]:
    """Where the result of each input goes."""
    if not inputs:
        raise InputError("nothing to apply the transform to, expected an image or a file of points; name it.")
    if len(inputs) == 1 and not output.is_dir():
        targets = [output if _holds_points(inputs[0]) else _nifti_target(output)]
    else:
        if not output.is_dir() and output.suffix:
            raise InputError(f"'{output}' is one file for {len(inputs)} inputs, expected a folder; name one.")
        targets = [output / (path.name if _holds_points(path) else f"{_stem(path)}.nii.gz") for path in inputs]
        if found := next(filter(os.path.lexists, targets), None):  # nobody has typed this name
            raise InputError(f"'{found}' is there already; move it, name another folder, or name the file itself.")
    if len(set(targets)) < len(targets):
        raise InputError("two inputs have one name, so that one result would replace the other; apply them one by one.")
    return targets


def _stem(path: Path) -> str:
    """The name of a file without its suffix."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _check_kept(targets: Sequence[Path], transforms: Sources, *images: Source | None) -> None:
    """A result never takes the place of what it is made of."""
    inputs = [transform_source(one).path for one in _listed(transforms)]
    inputs += [Path(image) for image in images if image is not None]
    files = [file for path in inputs if path.exists() for file in _files_of(path)]
    for target in filter(Path.exists, targets):
        if any(os.path.samefile(target, file) for file in files):
            raise InputError(f"'{target}' is an input itself and would be lost; give another output.")


def _files_of(path: Path) -> list[Path]:
    """The files that an input consists of: those of a series, or a header and its voxels."""
    if path.is_dir():
        return files_in(path, below=True) if path.name.endswith(ZARR_SUFFIXES) else [*filter(is_dicom, files_in(path))]
    return [path, *voxel_files(path, f"'{path}'").files]


def _nifti_target(path: Path) -> Path:
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"'{path}' is no NIfTI name, expected one that ends in .nii or .nii.gz; change it.")
    return path


def _apply_to_file(
    transforms: Sources,
    path: Path,
    target: Path,
    like: ImageGrid | None,
    interpolation: str,
    padding_value: float | None,
    format: str | None,
) -> None:
    """Bring one image onto a grid."""
    labels = interpolation in ("nearest", "labels")
    warped, grid = _warped(transforms, path, like, interpolation, padding_value, format)
    _save_image(target, _smallest_type(warped) if labels else warped, np.asarray(grid.affine), path)


def _warped(
    transforms: Sources,
    path: Path,
    like: ImageGrid | None,
    interpolation: str,
    padding_value: float | None,
    format: str | None,
) -> tuple[torch.Tensor, ImageGrid]:
    """One image on a grid; the image itself and the transforms leave the memory before the result is written."""
    scan = without_padding(read_scan(path, "moving image", exact=interpolation in ("nearest", "labels")))
    image = _as_channels(scan.values, 2 if like is not None and len(like.shape) == 2 else 3)
    moving = MetaTensor(image, affine=scan.affine, meta=scan.meta)
    chain = load_transform(transforms, format, like, grid_of(moving))
    grid = like or _own_grid(chain)
    _check_room(grid, len(image))
    check_meets(chain.in_worlds(grid.itk, None), grid_points(grid.affine, grid.shape))
    return apply_to_image(chain, moving, grid, interpolation, padding_value).as_tensor(), grid


def _as_channels(values: torch.Tensor, d: int) -> torch.Tensor:
    """An image ``(*spatial)``, or a series of images along its last axis, as ``(C, *spatial)``."""
    while values.ndim > d and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == d:
        return values[None]
    if values.ndim == d + 1:
        return values.movedim(-1, 0)
    if values.ndim == 2:
        return values[None]
    raise InputError(f"the moving image has {values.ndim} axes, expected {d}, or {d + 1} with the time; split it.")


def _own_grid(chain: Chain) -> ImageGrid:
    """The grid of the first field."""
    if (field := chain.grid) is None:
        raise InputError(
            "the transform has no grid of its own, expected the image whose grid the result has; give it (--like)."
        )
    return ImageGrid(field.affine, field.shape)


def _check_room(grid: ImageGrid, channels: int) -> None:
    """Refuse a result that the memory cannot hold."""
    check_memory((*grid.shape, channels), 4 * COPIES, "the grid of the result", "fill")


def _smallest_type(values: torch.Tensor) -> torch.Tensor:
    """Labels as the smallest of uint8, int16, int32 and int64 that holds them, fractions as float32."""
    if values.is_floating_point():
        if not bool((values == values.round()).all()):
            return values.float()
        values = values.to(torch.int64)
    low, high = int(values.min()), int(values.max())
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return values.to(dtype)
    return values


def _save_image(path: Path, values: torch.Tensor, affine: npt.NDArray[Any], source: Path | None = None) -> None:
    """Write ``(C, *spatial)`` as NIfTI, several channels as times of the step that the source states."""
    volumes = values.numpy()
    spatial = (*volumes.shape[1:], 1)[:3]
    shape = spatial if len(volumes) == 1 else (*spatial, len(volumes))
    image = nib.Nifti1Image(np.broadcast_to(volumes.dtype.type(0), shape), affine, dtype=volumes.dtype)
    image.header.set_xyzt_units("mm", "sec")
    if len(shape) == 4 and source is not None and source.name.lower().endswith(NIFTI_SUFFIXES):
        reported = nifti_header(source)
        image.header["pixdim"][4] = reported["pixdim"][4]
        image.header["xyzt_units"] = 2 + (int(reported["xyzt_units"]) & 56)
    image.set_sform(image.affine, code="aligned")
    image.set_qform(image.affine, code="aligned")
    parts = [one.reshape(spatial) for one in volumes]
    replace_file(path, lambda temporary: write_nifti(image, temporary, parts))


def _matrix(chain: Chain) -> npt.NDArray[Any] | None:
    """The product of a chain of linear maps; None if others are among them."""
    linear = [one.matrix for one in chain.maps if isinstance(one, LinearMap)]
    return reduce(np.matmul, linear[::-1]) if len(linear) == len(chain.maps) else None


def _save(chain: Chain, path: Path, to: str | None, fixed: ImageGrid | None, moving: ImageGrid | None) -> None:
    """Write a chain, as a matrix if it is linear and the format can hold one, else as a field."""
    if to is not None:
        check_choice(to, WRITTEN_FORMS, "format")
    suffix, matrix = path.suffix.lower(), _matrix(chain)
    linear_suffix = any(suffix in suffixes for suffixes in LINEAR_SUFFIXES.values())
    as_matrix = to in LINEAR if to is not None else linear_suffix and (matrix is not None or suffix not in BY_SUFFIX)
    if not as_matrix:
        _save_field(_field(chain, fixed, moving), path, to, fixed, moving)
        return
    worlds = (None if fixed is None else fixed.itk, None if moving is None else moving.itk)
    if (ours := _matrix(chain.in_worlds(*worlds))) is None:
        raise InputError(
            f"'{path}' can hold a matrix only, but the transform is not linear; name a .nii.gz or .h5 file."
        )
    by_itk = to == "itk" or (to is None and suffix != ".lta")
    there, back = (np.eye(4) if one is None or not by_itk else one for one in worlds)
    save_linear(back @ ours @ np.linalg.inv(there), path, to, fixed, moving)


def _field(chain: Chain, fixed: ImageGrid | None, moving: ImageGrid | None) -> FieldMap:
    """A chain as one field, in this package's worlds; a field that lies on the grid stays as it is."""
    grid = fixed or _own_grid(chain)
    ours = chain.in_worlds(grid.itk, None if moving is None else moving.itk)
    first = ours.grid
    if len(ours.maps) == 1 and first is not None and first.shape == grid.shape:
        target, own = (torch.from_numpy(np.array(one, np.float64)) for one in (grid.affine, first.affine))
        if same_affine(target, own, grid.shape):
            return FieldMap(first.displacement, np.asarray(grid.affine, np.float64))
    _check_room(grid, len(grid.shape))
    check_meets(ours, grid_points(grid.affine, grid.shape))
    return displacement_on(ours, grid)


def _save_field(field: FieldMap, path: Path, to: str | None, fixed: ImageGrid | None, moving: ImageGrid | None) -> None:
    """Write a field in the format that is named, or that the suffix states."""
    format = to or next((form for suffix, form in BY_SUFFIX.items() if path.name.lower().endswith(suffix)), None)
    if format is None:
        raise InputError(
            f"'{path}' does not name the format of a field, expected .nii.gz, .h5, .nrrd, .mha, .mgz, .npz or .dcm; "
            "change it, or name the format (--to)."
        )
    pair = FieldPair(
        moving_affine=None if moving is None else moving.affine,
        moving_shape=None if moving is None else moving.shape,
        fixed_itk=None if fixed is None else fixed.itk,
        moving_itk=None if moving is None else moving.itk,
    )
    if format in FORMATS:
        save_field(format, field.displacement, field.affine, path, pair)
        return
    if format not in FOREIGN_FORMATS:
        raise InputError(
            f"the format '{format}' holds a matrix only, but the transform is a field; choose another one."
        )
    checked = check_field(field.displacement, field.affine)
    placed = in_itk_world(*checked, pair) if FOREIGN_FORMATS[format].by_itk else checked
    save_foreign_field(format, *placed, path, moving)


def _inverted(chain: Chain, grid: ImageGrid) -> tuple[FieldMap, Inverted]:
    """The inverse of a chain on a grid of the moving image."""
    field = chain.fields[0] if chain.fields else None
    if field is None:
        raise InputError(
            "the transform has no field whose grid its inverse could start from; compose it on a grid first."
        )
    d, shape = len(grid.shape), grid.shape
    _check_room(grid, d)
    inverse = InverseMap(chain, _start_points(chain, field))
    matrix = world_affine(torch.from_numpy(np.array(grid.affine, np.float64)), d, "the moving image")
    displacement, errors = np.empty((d, *shape), np.float32), []
    for slab in fields.slabs(shape):
        points = affine_field(matrix, shape, torch.float64, slab).flatten(1).T
        moved, error = inverse.solve(points)
        displacement[:, slab] = (moved - points).T.reshape(d, -1, *shape[1:]).numpy()
        errors.append(error[field.covers(moved)] if chain.grid is field else error)
    left = torch.cat(errors)
    if not len(left):
        raise InputError("the transform leads nowhere into the moving image; check that they belong together.")
    report = Inverted(float(left.mean()), float(left.max()), int((~(left <= CONVERGED)).sum()))
    return FieldMap(displacement, np.array(grid.affine, np.float64)), report


def _start_points(chain: Chain, field: FieldMap) -> torch.Tensor:
    """Points of the fixed image that reach the first field: its grid, through the linear maps before it undone."""
    points = grid_points(field.affine, field.shape)
    before = []
    for one in chain.maps:
        if one is field:
            break
        before.append(one)
    for one in reversed(before):
        if isinstance(one, LinearMap):
            points = LinearMap(np.linalg.inv(one.matrix)).move(points)
    return points


def _determinants(field: FieldMap) -> npt.NDArray[np.float32]:
    """Jacobian determinants at the voxels of a field, slab by slab."""
    ddf = torch.from_numpy(ddf_of_displacement(field.displacement, field.affine))
    values = np.empty(field.shape, np.float32)
    for slab in fields.slabs(field.shape):
        low, high = max(slab.start - 1, 0), min(slab.stop + 1, field.shape[0])
        found = fields.jacobian_determinant(ddf[None, :, low:high])[0]
        values[slab] = found[slab.start - low : slab.stop - low].numpy()
    return values


def _about_matrix(matrix: npt.NDArray[Any]) -> dict[str, str]:
    """Facts of a linear map."""
    return {
        "matrix": str([[round(float(number), 6) for number in row] for row in matrix[:3]]),
        "volume change": f"{np.linalg.det(matrix[:3, :3]):.4f}",
    }


def _about_field(field: FieldMap) -> dict[str, str]:
    """Facts of a field."""
    d = len(field.displacement)
    length = np.sqrt(sum(np.square(part, dtype=np.float64) for part in field.displacement))
    determinants = _determinants(field)
    spacing = np.linalg.norm(field.affine[:3, :d], axis=0)
    hand = "left" if np.linalg.det(field.affine[:3, :3]) < 0 else "right"
    oblique = np.count_nonzero(np.abs(field.affine[:3, :d]) > 1e-4 * spacing) > d
    return {
        "grid": f"{' x '.join(map(str, field.shape))} voxels of {' x '.join(f'{edge:g}' for edge in spacing)} mm, "
        f"{'oblique' if oblique else 'along the axes'}, {hand}-handed in RAS",
        "first voxel at": f"{[round(float(number), 3) for number in field.affine[:3, 3]]} (RAS, mm)",
        "motion": f"mean {length.mean():.3f}, largest {length.max():.3f} mm",
        "volume change": f"{determinants.min():.4f} to {determinants.max():.4f}",
        "folds": f"{int((determinants <= 0).sum())} voxels ({100 * float((determinants <= 0).mean()):.3f} %)",
    }

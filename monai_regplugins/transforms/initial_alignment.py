r"""Initial alignment: translation or affine map from the fixed to the moving world before the network runs.

All matrices are homogeneous, shape (d + 1, d + 1), float64, RAS mm, fixed world to moving world.

A linear map is found in three steps:

1. **starts**: as the images lie, by their centers of mass, and, unless the images match as they lie, at the best
   translations of many rotations, see :mod:`~monai_regplugins.transforms.alignment_search`;
2. **descent** from the best of them at the coarsest resolution; the one that matches best goes on to finer ones;
3. **verdict**: a result that matches no better than the images as they lie is not used.

Correlation is compared where a linear function of the intensities of one image explains those of the other nearly as
well as any function, mutual information elsewhere. Unless a correlation of 0.95 is found, both are tried: at a wrong
place, body on body and air on air, the contrast of the images does not show. Constant frames around images count as
air does, for a crop hints at where an organ lies, but no rotation is taken that only brings frames onto frames.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

import torch

from monai_regplugins.checks import InputError, check_choice
from monai_regplugins.grids import map_points
from monai_regplugins.renamed import VALUES
from monai_regplugins.transforms.alignment_descent import CORRELATION, MUTUAL_INFORMATION, Descent
from monai_regplugins.transforms.alignment_measure import OUTSIDE, agreement, metric_for
from monai_regplugins.transforms.alignment_scan import Scan, center_of_mass, coarser, scan_of, without_frame
from monai_regplugins.transforms.alignment_search import find_starts

__all__ = [
    "FORMER_NAMES",
    "INITIAL_ALIGNMENTS",
    "LINEAR",
    "Alignment",
    "alignment_name",
    "center_of_mass",
    "center_of_mass_matrix",
    "linear_alignment",
]

logger = logging.getLogger(__name__)

LINEAR = ("rigid", "similarity", "affine")
INITIAL_ALIGNMENTS = ("none", "center", *LINEAR, "auto")
FORMER_NAMES: dict[str, str] = VALUES["initial_alignment"]

STARTS = 6  # best rotations that descend in any case
MOST_STARTS = 24  # that descend until one of them matches
HISTOGRAM_VOXELS = 32**3  # that fill a joint histogram; on smaller images the correlation is more accurate
FINER_STEPS = ((0.5, 0.02), (1.0, 5e-4))  # the first and the last one at the finer levels, voxels
SMALLEST_LEVEL = 8  # voxels along the shortest axis of a coarse image
MATCHING = 0.95  # correlation of images of one kind that lie where they should, so that nothing else is tried
POOR = 0.5  # correlation below which a result is reported
APART = 0.2  # of the length of the fixed image, by which two results differ that are not the same
NEARLY = 0.8  # of what the best result leaves unexplained, that another one differs by less
TIE = 0.01  # by which the correlation of another one is as good

_Level: TypeAlias = tuple[Scan, Scan]


class Alignment(NamedTuple):
    """A linear map and how well the images match.

    Attributes:
        matrix: fixed world to moving world, (d + 1, d + 1), float64, RAS mm.
        metric: ``"correlation"`` or ``"mutual information"``.
        start: identity, or the translation of the centers of mass where the images hardly overlap.
        before: the metric under ``start``.
        after: the metric under ``matrix``.
        doubt: why the result may be wrong, in words; empty if nothing says so.
    """

    matrix: torch.Tensor
    metric: str
    start: torch.Tensor
    before: float
    after: float
    doubt: str = ""

    @property
    def lies_apart(self) -> bool:
        """Whether the images hardly overlap as they lie."""
        return not torch.equal(self.start, torch.eye(len(self.start), dtype=self.start.dtype))

    @property
    def start_name(self) -> str:
        """The start in words."""
        return "by their centers of mass" if self.lies_apart else "as they lie"


def alignment_name(name: str, key: str = "initial_alignment") -> str:
    """Return the name of an initial alignment; for one of its former names, say so in the log.

    Raises:
        InputError: When there is no such alignment.

    Example:
        >>> alignment_name("moments")
        'center'
    """
    if name in FORMER_NAMES:
        new = FORMER_NAMES[name]
        logger.warning("%s '%s' is called '%s' now; the old name goes with the next release.", key, name, new)
        return new
    check_choice(name, INITIAL_ALIGNMENTS, key)
    return name


def center_of_mass_matrix(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Translation that carries the fixed center of mass to the moving one; arguments as :func:`linear_alignment`."""
    matrix = torch.eye(fixed_affine.shape[0], dtype=torch.float64)
    end, start = center_of_mass(moving, moving_affine, moving_mask), center_of_mass(fixed, fixed_affine, fixed_mask)
    matrix[:-1, -1] = end - start
    return matrix


def linear_alignment(
    fixed: torch.Tensor,
    fixed_affine: torch.Tensor,
    moving: torch.Tensor,
    moving_affine: torch.Tensor,
    kind: str = "affine",
    fixed_mask: torch.Tensor | None = None,
    moving_mask: torch.Tensor | None = None,
    seed: int = 1,
) -> Alignment:
    """Find the map of a kind under which two images match, whatever the rotation between them.

    One thread and a seeded choice of samples: the same images give the same matrix.

    Args:
        fixed: intensities, shape ``(1, *spatial)``.
        fixed_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        moving: intensities, shape ``(1, *spatial_m)``.
        moving_affine: voxel-to-world matrix, shape (d + 1, d + 1).
        kind: ``center`` (of mass, a translation), ``rigid``, ``similarity`` (rigid with one scale) or ``affine``.
        fixed_mask: voxels of the fixed image that are compared (above zero), shape ``(1, *spatial)``; all by default.
        moving_mask: voxels of the moving image that they are compared with, shape ``(1, *spatial_m)``; all by default.
        seed: of the sampling, 1 or more.

    Returns:
        The map, and what is to be thought of it. Where no descent succeeds it is the better of the images as they lie
        and their centers of mass.

    Raises:
        InputError: When a mask is empty or not on the grid of its image.
    """
    scans = scan_of(fixed, fixed_affine, fixed_mask, "fixed"), scan_of(moving, moving_affine, moving_mask, "moving")
    simple = [torch.eye(fixed_affine.shape[0], dtype=torch.float64), _center_matrix(*scans)]
    levels = _levels(*scans)
    known = [agreement(*scans, matrix, CORRELATION) for matrix in simple]
    if kind == "center":
        return Alignment(simple[1], CORRELATION, simple[0], known[0], known[1])
    starts = [start.matrix for start in find_starts(*scans)] if max(known) < MATCHING else []
    near, far = (_descended(levels[0], CORRELATION, some, kind, seed) for some in (simple, starts[:MOST_STARTS]))
    inner = _levels(*(without_frame(scan) for scan in scans))[1]
    far = _of_content(inner, CORRELATION, simple, far)
    best = max([*near, *far, *simple], key=lambda matrix: agreement(*levels[0], matrix, CORRELATION))
    if agreement(*levels[0], best, CORRELATION) <= MATCHING or not _is_linear(levels[0], best):
        tried = [*starts, *_turned_about(simple[1], starts, scans[0]), *near, *far]
        tried.sort(key=lambda matrix: -agreement(*levels[0], matrix, MUTUAL_INFORMATION))
        close, away = (_descended(levels[1], MUTUAL_INFORMATION, some, kind, seed) for some in (simple, tried[:STARTS]))
        away = _of_content(inner, MUTUAL_INFORMATION, simple, away)
        ends = _ranked(levels[1], close, away, MUTUAL_INFORMATION)
        if ends and not _is_linear(levels[1], ends[0][1]):
            return _finished(levels, MUTUAL_INFORMATION, simple, ends, kind, seed)
        near, far = [*near, *close], [*far, *away]
    return _finished(levels, CORRELATION, simple, _ranked(levels[1], near, far, CORRELATION), kind, seed)


def _is_linear(level: _Level, matrix: torch.Tensor) -> bool:
    """Whether the images are to be compared by correlation, as far as that can be seen under a map."""
    return metric_for(*level, matrix) == CORRELATION


def _center_matrix(fixed: Scan, moving: Scan) -> torch.Tensor:
    """Translation from one center of mass to the other."""
    return center_of_mass_matrix(fixed.image, fixed.affine, moving.image, moving.affine, fixed.weight, moving.weight)


def _levels(fixed: Scan, moving: Scan) -> list[_Level]:
    """The pair with voxels of about 4, 2 and 1 times its own, as far as there are enough of them."""
    d = fixed.image.ndim - 1
    edge = max(float(torch.linalg.det(scan.affine[:d, :d]).abs()) ** (1 / d) for scan in (fixed, moving))
    coarse = [tuple(coarser(scan, factor * edge, SMALLEST_LEVEL) for scan in (fixed, moving)) for factor in (4, 2)]
    return [(first, second) for first, second in coarse] + [(fixed, moving)]


def _turned_about(center: torch.Tensor, starts: Sequence[torch.Tensor], fixed: Scan) -> Iterator[torch.Tensor]:
    """The rotations of the starts about the centers of mass, for images that have no correlation."""
    middle = center_of_mass(fixed.image, fixed.affine, fixed.weight)
    for start in starts:
        turned = start.clone()
        turned[:-1, -1] = map_points(middle[None], center)[0] - start[:-1, :-1] @ middle
        yield turned


def _descended(level: _Level, metric: str, starts: Sequence[torch.Tensor], kind: str, seed: int) -> list[torch.Tensor]:
    """Where the descents from the starts end, without those that fail; an affine map has its turn later.

    Beyond the first few, no more descend once images of one kind match.
    """
    descent = Descent(*level, metric, steps=(1.0, 0.05), iterations=50, seed=seed)
    ends: list[torch.Tensor] = []
    matching = False
    for number, start in enumerate(starts):
        if number >= STARTS and matching:
            break
        if agreement(*level, start, metric) == OUTSIDE:
            continue
        with suppress(InputError):
            ends.append(descent.run(start, "rigid" if kind == "rigid" else "similarity"))
            matching = matching or (metric == CORRELATION and agreement(*level, ends[-1], metric) > MATCHING)
    return ends


def _of_content(
    inner: _Level, metric: str, simple: Sequence[torch.Tensor], ends: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Those of some ends under which also the images without their frames match about as well as they did before.

    Crops of different size that are padded to one fit best turned by a quarter, frame on frame.
    """
    before = max(agreement(*inner, matrix, metric) for matrix in simple)
    return [end for end in ends if agreement(*inner, end, metric) >= NEARLY * before]


def _ranked(
    level: _Level, near: Sequence[torch.Tensor], far: Sequence[torch.Tensor], metric: str
) -> list[tuple[float, torch.Tensor]]:
    """The ends with how well they match, best first; one that began as the images lie, where it is nearly as good."""
    first, others = ([(agreement(*level, end, metric), end) for end in ends] for ends in (near, far))
    ranked = sorted([*first, *others], key=lambda scored: -scored[0])
    plain = max(first, key=lambda scored: scored[0], default=None)
    if plain is not None and _is_nearly_as_good(plain[0], ranked[0][0], metric):
        return [plain, *(scored for scored in ranked if scored is not plain)]
    return ranked


def _is_nearly_as_good(score: float, best: float, metric: str) -> bool:
    """Whether a match may well be the right one though another is better."""
    return score > (1 - (1 - best) / NEARLY - TIE if metric == CORRELATION else NEARLY * best)


def _finished(
    levels: Sequence[_Level],
    metric: str,
    simple: Sequence[torch.Tensor],
    ends: Sequence[tuple[float, torch.Tensor]],
    kind: str,
    seed: int,
) -> Alignment:
    """Take the best end on to the finer levels, and judge the result."""
    known = [agreement(*levels[-1], matrix, metric) for matrix in simple]
    start, before = (simple[0], known[0]) if known[0] > OUTSIDE else (simple[1], known[1])
    if not ends or ends[0][0] == OUTSIDE:
        return Alignment(start, metric, start, before, before, "no descent found a map under which they overlap")
    exact = metric == CORRELATION and ends[0][0] > MATCHING
    matrix = _finer(levels[1:], MUTUAL_INFORMATION if exact else metric, metric, ends[0][1], kind, seed)
    after = agreement(*levels[-1], matrix, metric)
    return Alignment(matrix, metric, start, before, after, _doubt(levels[1][0], ends, metric, after))


def _finer(
    levels: Sequence[_Level], metric: str, of_few: str, matrix: torch.Tensor, kind: str, seed: int
) -> torch.Tensor:
    """Descend on the finer levels, as far as that succeeds.

    Images that show the same are compared by mutual information, where there are voxels for it: its optimum is nearer
    to the truth than that of the correlation, which noise and interpolation shift.
    """
    for level, steps in zip(levels, FINER_STEPS, strict=True):
        enough = float(level[0].counts.sum()) >= HISTOGRAM_VOXELS
        with suppress(InputError):
            matrix = Descent(*level, metric if enough else of_few, steps, seed=seed).run(matrix, kind)
    return matrix


def _doubt(fixed: Scan, ends: Sequence[tuple[float, torch.Tensor]], metric: str, after: float) -> str:
    """Why a result may be wrong: the images hardly match, or match nearly as well elsewhere."""
    if metric == CORRELATION and after < POOR:
        return f"the images hardly match there, their correlation is {after:.2f}"
    corners, (best, matrix) = _corners(fixed), ends[0]
    length = float((corners[-1] - corners[0]).norm())
    for score, end in ends[1:]:
        away = float((map_points(corners, end) - map_points(corners, matrix)).norm(dim=1).mean())
        if away > APART * length and _is_nearly_as_good(score, best, metric):
            return f"they match nearly as well elsewhere, with a {metric} of {score:.3f} after {best:.3f} at the start"
    return ""


def _corners(scan: Scan) -> torch.Tensor:
    """World positions of the corners, (2^d, d), the first and the last opposite to each other."""
    ends = [torch.tensor([0.0, n - 1.0], dtype=torch.float64) for n in scan.image.shape[1:]]
    return map_points(torch.cartesian_prod(*ends), scan.affine)

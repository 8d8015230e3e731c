"""Result of a registration: the displacement field and the quantities derived from it, computed on first access."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_regplugins import figures
from monai_regplugins.fields import sample_at
from monai_regplugins.grids import (
    above_zero,
    as_meta_tensor,
    linear_kind,
    map_points,
    sample_affine,
    voxel_spacing,
    world_affine,
)
from monai_regplugins.metrics.measure import Measure
from monai_regplugins.metrics.pair import measure_pair
from monai_regplugins.transforms.measured import COVERED
from monai_regplugins.transforms.warp_original import (
    WarpOriginald,
    resample_aligned,
    solved_inverse,
    total_displacement,
)
from monai_regplugins.verdict.evidence import (
    brightness_shift,
    clipped_percent,
    covered_percent,
    extents,
    field_evidence,
    local_similarity,
    mirror_gain,
    overlap_percent,
    sides_match,
    unchanged_percent,
)
from monai_regplugins.verdict.judge import Verdict, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RegistrationResult"]

FAILED = 0.1  # voxels that an inverse misses by
SCALED = 500_000  # voxels that determine a scale of gray values
TOLD = ("working_voxels", "refined_voxels", "network_folding")  # by an inferer

Part: TypeAlias = "Callable[[RegistrationResult, Path], object]"
Save: TypeAlias = "Callable[[RegistrationResult, Path, Mapping[str, Any], Sequence[Part]], Path]"


class RegistrationResult:
    """A registered pair, on the CPU.

    Args:
        item: the pair as it was prepared, without a batch axis; ``ResampleToFixedd(keep_original=True)`` has to be
            among the transforms.
        output: what the bundle's evaluator made of it, ``pred`` and ``label``; tensors are brought to the CPU.
        given: the pair as it was given, with the paths of its files.
        seconds: what registering took, without loading.
        one_patient: whether the images should be of one patient, for the verdict.
        own: further measures by name, see :class:`~monai_regplugins.metrics.Measure`.
    """

    def __init__(
        self,
        item: Mapping[str, Any],
        output: Mapping[str, Any],
        given: Mapping[str, Any] | None = None,
        seconds: float = math.nan,
        one_patient: bool = False,
        own: Mapping[str, Measure] | None = None,
    ) -> None:
        self.item, self.pred, self.targets = item, _on_cpu(output["pred"]), _on_cpu(output["label"])
        self.pair_id: str = str(item["pair_id"])
        self.given = {key: str(value) for key, value in (given or {}).items() if isinstance(value, str | os.PathLike)}
        self.seconds, self.one_patient, self.own = seconds, one_patient, own
        self.record: Mapping[str, Any] = {}
        self._save: Save | None = None

    def saved_by(self, save: Save, record: Mapping[str, Any] | None = None) -> RegistrationResult:
        """Let :meth:`save` call a function of its arguments, and keep what is known of the pair; returns the result.

        Args:
            save: called with result, output folder, further entries of the provenance and further writers.
            record: what :class:`~monai_regplugins.io.Provenance` says of the pair.
        """
        self._save, self.record = save, record or {}
        return self

    @property
    def ddf(self) -> Tensor:
        """The network's field, ``(d, *fixed)``, voxels of the fixed grid, component k along array axis k.

        Fixed voxel x shows the moving image, brought onto the fixed grid by its header and the initial alignment, at
        x + ddf(x). :attr:`displacement` is the way to the moving image itself.
        """
        found: Tensor = self.pred["ddf"]
        return found

    @property
    def displacement(self) -> MetaTensor:
        """The total displacement, ``(d, *fixed)``, mm in RAS: point p of the fixed image is p + D(p) in the moving.

        Each access makes it anew from :attr:`ddf`, which takes little time; kept, it would be the largest array.
        """
        total = total_displacement(self.ddf, self.fixed.affine, self.item["initial_alignment_matrix"])
        return as_meta_tensor(total, self.fixed.affine, self.fixed.meta)

    @cached_property
    def inverse_displacement(self) -> MetaTensor:
        """The inverse of :attr:`displacement`, ``(d, *moving)``, mm in RAS, on the original moving grid."""
        return MetaTensor(self._inverse[0], affine=self.moving.affine)

    @property
    def inverse_metrics(self) -> dict[str, float]:
        """By how much :attr:`inverse_displacement` misses, in voxels of the fixed grid.

        ``inverse_residual99`` is the 99th percentile over the moving voxels, ``inverse_residual_max`` the largest, and
        ``inverse_failed_percent`` the share of voxels beyond a tenth of a voxel.
        """
        left = self._inverse[1].double().numpy()
        return {
            "inverse_residual99": float(np.percentile(left, 99)),
            "inverse_residual_max": float(left.max()),
            "inverse_failed_percent": 100 * float((~(left <= FAILED)).mean()),  # NaN has failed
        }

    @cached_property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        """The inverse displacement and its residual at each moving voxel."""
        moving, matrix = self.moving, self.item["initial_alignment_matrix"]
        return solved_inverse(self.ddf, self.fixed.affine, moving.affine, moving.shape[1:], matrix)

    @property
    def fixed(self) -> MetaTensor:
        """The fixed image as the network saw it, ``(1, *fixed)``."""
        image: MetaTensor = self.item["fixed"]
        return image

    @property
    def moving(self) -> MetaTensor:
        """The original moving image, ``(1, *moving)``, on its own grid."""
        image: MetaTensor = self.item["moving_original"]
        return image

    @property
    def warped(self) -> MetaTensor:
        """The original moving image on the fixed grid, ``(1, *fixed)``, sampled once through :attr:`displacement`."""
        found: MetaTensor = self._warped["warped"]
        return found

    @property
    def warped_label(self) -> MetaTensor | None:
        """The original moving label on the fixed grid, ``(1, *fixed)``, if there is one."""
        return self._warped.get("warped_label")

    @property
    def uncertainty(self) -> MetaTensor | None:
        r"""Standard deviation of :attr:`displacement`, ``(1, *fixed)``, mm, if the bundle was asked for it.

        It is :math:`\sigma = \sqrt{E \, \|e\|^2}` of the error e of the whole vector; with a probability of 90 % the
        error is at most 1.44 (in 2D 1.52) times as long, see
        :func:`~monai_regplugins.metrics.uncertainty.interval_radius`.
        """
        if "uncertainty" not in self.pred:
            return None
        deviation = self.pred["uncertainty"]  # of each component of ddf, voxels
        d = len(deviation)
        steps = voxel_spacing(self._alignment @ world_affine(self.fixed.affine, d, "fixed image"), d)
        length = torch.linalg.vector_norm(deviation * steps.view(-1, *[1] * d), dim=0, keepdim=True)
        return as_meta_tensor(length, self.fixed.affine, self.fixed.meta)

    @property
    def of_network(self) -> str:
        """What the names of files begin with that describe the network's own field: ``network_`` beside another one."""
        return "network_" if "refinement" in self.pred else ""

    @cached_property
    def fixed_points_in_moving(self) -> Tensor | None:
        """Where the fixed points lie in the moving image, (N, d), voxels of that, if there are any."""
        points = self.item.get("fixed_landmarks", self.item.get("fixed_keypoints"))
        if points is None:
            return None
        x = points.double()
        return map_points(x + sample_at(self.ddf[None], x[None])[0], self._fixed_to_moving_voxels)

    @property
    def aligned(self) -> MetaTensor:
        """The original moving image on the fixed grid, ``(1, *fixed)``, by header and initial alignment alone."""
        return resample_aligned(self.moving, self.fixed, self._alignment, "linear")

    @property
    def as_given(self) -> MetaTensor:
        """The original moving image on the fixed grid, ``(1, *fixed)``, by header alone."""
        if not self.is_aligned:
            return self.aligned
        return resample_aligned(self.moving, self.fixed, torch.eye(len(self._alignment)), "linear")

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All measures of what is written, before and after the registration, see :meth:`measure`, and evidence."""
        before = self._before()
        return self._measured(before) | self._evidence(before)

    @cached_property
    def verdict(self) -> Verdict:
        """PASS, WARN or FAIL with reasons, by :attr:`metrics`, see :func:`~monai_regplugins.verdict.judge.judge`."""
        return judge(self.metrics)

    @property
    def figure(self) -> Figure:
        """The picture of the pair with its measures and verdict, see :func:`~monai_regplugins.figures.pair_figure`."""
        return self.drawn(self.metrics)

    def drawn(self, metrics: Mapping[str, float], judged: bool = True, note: str = "") -> Figure:
        """Draw what is written, and the moving image before: as it was given and, if that moved it, aligned.

        Args:
            metrics: the measures for the titles, as :attr:`metrics`.
            judged: whether the title says the verdict on them, which wants their evidence.
            note: what the title says after the name of the pair.
        """
        pred = {**self.pred, "warped": self._as_seen(self._in_window(self.warped)), "warped_mask": self.shown}
        if self.warped_label is not None:
            pred["warped_label"] = self.warped_label.as_tensor()
        output = {"pred": pred, "label": self.targets}
        return figures.draw_pair(self.item, output, metrics, judged, note, self._given())

    def _given(self) -> figures.DrawnImage | None:
        """The moving image before the initial alignment, for the picture; None where that did not move it."""
        if not self.is_aligned:
            return None
        before = self._before()
        points = before.get("moving_landmarks", before.get("moving_keypoints"))
        mask = self._shown_by(torch.eye(len(self._alignment)))
        return figures.DrawnImage(self._as_seen(before["moving"]), before.get("moving_label"), mask, points)

    def measure(
        self, labels: Sequence[int] | None = None, surface: bool = True, capture_range: float | None = None
    ) -> dict[str, float]:
        """Measure the written images on the fixed grid, and the moving image before the registration.

        * overlap and surface distances: of :attr:`warped_label` and the fixed label;
        * ``ncc``: of :attr:`warped` and the fixed image, both clipped to the window of the network's images, where both
          images count, see :attr:`compared`; before the registration where both count then, so that it is a measure of
          the pair alone;
        * folding, SDlogJ, landmarks and true field: of :attr:`displacement`, the total field; landmark errors are mm.

        ``<measure>_before`` is that of the pair as it was given, by its headers alone; after an initial alignment there
        is ``<measure>_aligned``, too.

        Args:
            labels: as those of :func:`~monai_regplugins.metrics.pair_metrics`, like the others.
            surface: whether to measure surface distances.
            capture_range: largest component of a true field that counts, mm.

        Returns:
            The measures of :func:`~monai_regplugins.metrics.pair_metrics`, NaN where undefined, and
            :attr:`start_values`.
        """
        return self._measured(self._before(), labels, surface, capture_range)

    def _measured(self, before: Mapping[str, Tensor], *how: Any) -> dict[str, float]:
        """Measure what is written, and what was before; further arguments as of :meth:`measure`."""
        pred = {**self.pred, "warped": self._in_window(self.warped)}
        if self.warped_label is not None:
            pred["warped_label"] = self.warped_label.as_tensor()
        output = {"pred": pred, "label": {**self.targets, **before, "compared": self._compared_in_each_state}}
        return measure_pair(output, *how, own=self.own) | self.start_values

    def _before(self) -> dict[str, Tensor]:
        """The moving image, label and points before the registration, on the fixed grid, unless as in the targets."""
        seen = self.targets["moving"]
        if not self.is_aligned:
            return {"moving": seen}
        label, back = self.targets.get("moving_label"), self._voxels_as_given
        found = {"moving": self._in_window(self.as_given), "aligned": seen}
        if label is not None:
            given = resample_aligned(self.item["moving_label_original"], self.fixed, torch.eye(len(back)), "nearest")
            found |= {"moving_label": given.as_tensor(), "aligned_label": label}
        points = [key for key in ("moving_landmarks", "moving_keypoints") if key in self.targets]
        found |= {key: map_points(self.targets[key], back) for key in points}
        return found | {"aligned_matrix": back}

    @cached_property
    def is_aligned(self) -> bool:
        """Whether the initial alignment moved the image."""
        return not torch.equal(self._alignment, torch.eye(len(self._alignment), dtype=torch.float64))

    @property
    def initial_alignment(self) -> str:
        """What the initial alignment was by its matrix, see :func:`~monai_regplugins.grids.linear_kind`."""
        return linear_kind(self._alignment)

    @property
    def _voxels_as_given(self) -> Tensor:
        """From fixed voxels of the aligned image to those of the image as it was given, ``A^-1 T A``."""
        affine = world_affine(self.fixed.affine, len(self.ddf), "fixed image")
        back: Tensor = torch.linalg.inv(affine) @ self._alignment @ affine
        return back

    @property
    def _fixed_to_moving_voxels(self) -> Tensor:
        """From fixed voxels to those of the moving image by headers and initial alignment, ``A_m^-1 T A``."""
        fixed, moving = (world_affine(image.affine, len(self.ddf), "image") for image in (self.fixed, self.moving))
        matrix: Tensor = torch.linalg.inv(moving) @ self._alignment @ fixed
        return matrix

    @property
    def _alignment(self) -> Tensor:
        """The matrix of the initial alignment, fixed to moving world, (d + 1, d + 1), RAS mm, float64."""
        return torch.as_tensor(self.item["initial_alignment_matrix"]).double()

    @property
    def start_values(self) -> dict[str, float]:
        """Start of the instance optimization, if any, and similarities on held-out voxels.

        ``from_network`` is 1 where the network's field was the start, ``from_search`` where the discrete search was,
        both 0 where it was no displacement, ``contrast_free`` 1 where descriptors, mutual information or mapped
        intensities were compared, ``unused_aligned`` the similarity of the pair as it was aligned, ``unused`` that of
        the result; where the two are equal, the aligned pair was kept.
        """
        if "unused_similarity" not in self.pred:
            return {}
        aligned, after = (float(value) for value in self.pred["unused_similarity"])
        flags = {key: float(self.pred[key]) for key in ("from_network", "from_search", "contrast_free")}
        return flags | {"unused_aligned": aligned, "unused": after}

    @property
    def evidence(self) -> dict[str, float]:
        """What :attr:`verdict` goes by beside the measures; part of :attr:`metrics`.

        ``overlap_percent``, ``covered_percent``, ``motion95``, ``motion_percent``, ``inverse95``, ``clipped_percent``
        and, in each state, ``lncc``, see :mod:`~monai_regplugins.verdict.evidence`; ``extent`` and ``extent_ratio``,
        the longest side of the smaller image in mm, and that of the larger one over it; ``mirror_gain``, by how much
        they match better when one is mirrored, and ``sides_match``, by how much the differences between left and right
        are the same after the registration; ``brightness_shift`` of the moving image from the fixed one, both as the
        network saw them, in standard deviations; ``one_patient``, 1 if the images should be of one, and then, by
        all of both images whatever their masks, ``likeness``, their local similarity before, aligned or not, and
        ``unchanged_percent`` of the fixed image, which matched as well before, initially aligned, as after; where the
        inferer states them, ``working_voxels`` and ``refined_voxels``, how many voxels the network and the first level
        of the optimization saw, and ``network_folding``, in percent, what the network's own field folds.
        """
        return self._evidence(self._before())

    def _evidence(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        """:attr:`evidence` by the images before the registration."""
        d, (fixed, moving) = len(self.ddf), (self.fixed, self.moving)
        fixed_affine, moving_affine = (world_affine(image.affine, d, "image") for image in (fixed, moving))
        to_moving = self._fixed_to_moving_voxels
        sides = [max(extents(fixed.shape[1:], fixed_affine)), max(extents(moving.shape[1:], moving_affine))]
        mask = self.targets.get("fixed_mask")
        clipped = [clipped_percent(image) for image in (fixed, self.targets["moving"])]
        return {
            "overlap_percent": overlap_percent(to_moving, fixed.shape[1:], moving.shape[1:]),
            "covered_percent": covered_percent(to_moving, fixed.shape[1:], moving.shape[1:]),
            "extent": min(sides),
            "extent_ratio": max(sides) / min(sides),
            "clipped_percent": max(clipped),
            "mirror_gain": mirror_gain(before.get("aligned", before["moving"]), fixed, fixed_affine),
            "sides_match": sides_match(self._in_window(self.warped), fixed, fixed_affine),
            "brightness_shift": brightness_shift(self.targets["moving"], fixed.as_tensor(), self.compared),
            "one_patient": float(self.one_patient),
            **field_evidence(self.ddf, self.targets["spacing"], mask),
            **self._local_similarities(before),
            **{name: float(self.pred[name]) for name in TOLD if name in self.pred},
        }

    @cached_property
    def compared(self) -> Tensor | None:
        """The voxels of the fixed grid by which images are compared, boolean, ``(1, *fixed)``; None for all.

        They are those of the fixed mask at which :attr:`warped` shows what counts of the moving image, where not all of
        that does: what lies outside of its mask or of what was measured does not, nor what lies outside of its field of
        view, if that leaves out a part of the fixed image. If there are none, those of the fixed mask.
        """
        return self._where_both_count(self._warped.get("warped_mask"))

    @cached_property
    def shown(self) -> Tensor:
        """The voxels of the fixed grid at which :attr:`warped` shows what counts of the moving image, boolean.

        Elsewhere, outside of the moving image, of its mask or of what was measured, it is filled.
        """
        if "warped_mask" in self._warped:
            return torch.as_tensor(self._warped["warped_mask"]).as_subclass(Tensor)
        view, d = torch.tensor(True).expand(self.moving.shape), len(self.ddf)  # one number
        matrix = self._fixed_to_moving_voxels
        return sample_affine(view, matrix, self.fixed.shape[1:], "nearest", 0.0, matrix[:d, :d], self.ddf)

    @property
    def _compared_in_each_state(self) -> dict[str, Tensor | None]:
        """The voxels by which images are compared, before the registration and after, see :attr:`compared`."""
        aligned = self._shown_by(self._alignment) if "moving_mask" in self.item else None
        before = self._shown_by(torch.eye(len(self._alignment))) if self.is_aligned else aligned
        return {
            "before": self._where_both_count(before),
            "aligned": self._where_both_count(aligned),
            "after": self.compared,
        }

    def _shown_by(self, matrix: Tensor) -> Tensor:
        """The voxels of the fixed grid that show what counts of the moving image under a map of the world."""
        if "moving_mask_original" in self.item:
            shares = self.item["moving_mask_original"].float()
            return resample_aligned(shares, self.fixed, matrix, "linear", outside=0.0) > COVERED
        return self._in_view(matrix)

    def _in_view(self, matrix: Tensor) -> Tensor:
        """The voxels of the fixed grid that lie in the moving image under a map of the world."""
        view = as_meta_tensor(torch.tensor(True).expand(self.moving.shape), self.moving.affine)  # one number
        return resample_aligned(view, self.fixed, matrix, "nearest")

    def _where_both_count(self, shown: Tensor | None) -> Tensor | None:
        """The voxels of the fixed mask at which a moving image shows what counts; all of them if it shows nothing."""
        mask = self.targets.get("fixed_mask")
        counts = None if mask is None else above_zero(mask)
        if shown is None:
            return counts
        both = above_zero(torch.as_tensor(shown).as_subclass(Tensor))
        both = both if counts is None else both & counts
        return both if bool(both.any()) else counts

    def _local_similarities(self, before: Mapping[str, Tensor]) -> dict[str, float]:
        """Local similarity of the moving image and the fixed one, before and after, and where it is the same."""
        states = {"lncc_before": before["moving"], "lncc": self._in_window(self.warped)}
        if "aligned" in before:
            states["lncc_aligned"] = before["aligned"]
        fixed = self.fixed.as_tensor()
        found = {name: local_similarity(image, fixed, self.compared) for name, image in states.items()}
        if self.one_patient:
            seen, start = self._seen, before.get("aligned", before["moving"])
            alike = [
                found[name] if seen is self.compared else local_similarity(image, fixed, seen)
                for name, image in states.items()
                if name != "lncc"
            ]
            found["likeness"] = max(alike)  # NaN, if so, in all states: that is where the fixed image is flat
            found["unchanged_percent"] = unchanged_percent(start, states["lncc"], fixed, seen)
        return found

    @property
    def _seen(self) -> Tensor | None:
        """Where the fixed grid lies in the moving image before the registration, whatever the masks leave out of it.

        Lungs alone move as a whole; that two images are of one patient is seen by what surrounds them.
        """
        if "fixed_mask" not in self.targets and "moving_mask_original" not in self.item:
            return self.compared
        return self._in_view(self._alignment)

    def _in_window(self, image: Tensor) -> Tensor:
        """A moving image clipped as the network's was."""
        window = self.item.get("moving_window")
        values = torch.as_tensor(image).as_subclass(Tensor).float()
        return values if window is None else values.clamp(*window.tolist())

    def _as_seen(self, values: Tensor) -> Tensor:
        """Values of the moving image, clipped as the network's were, in the scale of the network's."""
        low, slope, seen = self._scale
        return (values - low).mul_(slope).add_(seen)

    @cached_property
    def _scale(self) -> tuple[float, float, float]:
        """The least clipped value of the aligned image, and the line to what the network saw: slope and least value."""
        seen, mask = self.targets["moving"], self.targets.get("moving_mask")
        step = math.ceil((seen.numel() / SCALED) ** (1 / (seen.ndim - 1)))
        some = (slice(None), *(slice(None, None, step),) * (seen.ndim - 1))
        matrix = self._fixed_to_moving_voxels
        matrix = matrix @ torch.diag(matrix.new_tensor([step] * (seen.ndim - 1) + [1]))
        sampled = sample_affine(self.moving.as_tensor(), matrix, seen[some].shape[1:], "linear", None)
        own, seen = self._in_window(sampled), seen[some]
        if mask is not None and bool((mask[some] > 0).any()):
            own, seen = own[mask[some] > 0], seen[mask[some] > 0]
        low, top = float(own.min()), float(own.max())
        return low, float(seen.max() - seen.min()) / ((top - low) or 1.0), float(seen.min())

    def save(
        self, output_dir: str | os.PathLike[str], more: Mapping[str, Any] | None = None, parts: Sequence[Part] = ()
    ) -> Path:
        """Write what the command line writes, see :class:`~monai_regplugins.outputs.RegistrationWriter`.

        Overrides of :func:`~monai_regplugins.load_bundle` such as ``formats="all"`` and ``inverse=True`` say what that
        is.

        Args:
            output_dir: where the folder of the pair goes; it is made.
            more: further entries of ``provenance.json``.
            parts: further writers, called with result and folder when all other files are in it.

        Returns:
            The pair's folder, ``<output_dir>/<pair_id>``. If it holds an earlier result of the same images, that is
            replaced, and files of someone else stay.

        Raises:
            InputError: When the folder holds anything else, or cannot be written; what was there before is unchanged.
            TypeError: When the result was not made by a function of :func:`~monai_regplugins.load_bundle`.
        """
        if self._save is None:
            raise TypeError("this result does not know how to be saved; use RegistrationWriter.write")
        return self._save(self, Path(output_dir), more or {}, parts)

    @cached_property
    def _warped(self) -> dict[Hashable, Any]:
        """The original images warped by the total field."""
        given: dict[Any, Any] = {**self.item, "ddf": self.ddf}
        pair = WarpOriginald()(given)
        return {key: pair[key] for key in ("warped", "warped_label", "warped_mask") if key in pair}


def _on_cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their tensors on the CPU."""
    return {key: value.cpu() if isinstance(value, Tensor) else value for key, value in values.items()}

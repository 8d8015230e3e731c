"""The verdict on a registration: one check per way to go wrong, their limits in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["CHECKS", "LEVELS", "Check", "Verdict", "judge"]

LEVELS = ("PASS", "WARN", "FAIL")

ALIKE = 0.7  # local similarity of images that match; pairs of a cine series have 0.8 and more before a registration
SAME_SIDES = 0.82  # match of left and right after registration; 38 pairs of phantoms have 0.86 and more, flipped 0.79

NOTED = {"dsc": ("Dice", 1, 2), "hd95": ("HD95 (mm)", -1, 1)}  # title, 1 if larger is better, decimals that matter

Measures: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What is to be thought of a registration.

    Attributes:
        level: ``PASS``, ``WARN``, to be looked at, or ``FAIL``, not to be used as it is.
        reasons: in plain words, each after its level, the worst first; none for ``PASS``.
        notes: which measures of the labels have become worse, even if by too little for a reason.

    Example:
        >>> print(judge({"lncc": 0.9, "folding_percent": 12.0}))
        FAIL: 12 % of the voxels fold
    """

    level: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join([*(self.reasons or [self.level]), *self.notes])

    def as_json(self) -> dict[str, str | list[str]]:
        """``verdict`` and ``reasons`` for a file."""
        return {"verdict": self.level, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Check:
    """A number and from where on it is bad.

    Attributes:
        value: finds it among the measures; NaN where they do not state.
        warn: limit of WARN.
        fail: limit of FAIL, infinite if it never is one. Below ``warn``, small numbers are the bad ones.
        words: what is wrong, a format of the number.
        why: where the limits come from.
    """

    value: Callable[[Measures], float]
    warn: float
    fail: float
    words: str
    why: str

    def __call__(self, measures: Measures) -> str | None:
        """Return a reason, None if there is nothing to say."""
        value, sign = self.value(measures), 1 if self.fail > self.warn else -1
        if sign * value > sign * self.fail:
            return f"FAIL: {self.words.format(value)}"
        return f"WARN: {self.words.format(value)}" if sign * value > sign * self.warn else None


def judge(measures: Measures) -> Verdict:
    """Judge a registration.

    Args:
        measures: as :attr:`~monai_regplugins.result.RegistrationResult.metrics`; a check whose measures are missing
            says nothing, and one whose measures are NaN leaves it to the check that they are known.

    Example:
        >>> judge({"overlap_percent": 60.0, "lncc": 0.35}).reasons
        ('WARN: the images still look unlike each other: local similarity 0.35 of 1',)
    """
    found = [reason for check in CHECKS.values() if (reason := check(measures)) is not None]
    reasons = tuple(sorted(found, key=lambda reason: -LEVELS.index(reason[:4])))
    return Verdict(reasons[0][:4] if reasons else LEVELS[0], reasons, _notes(measures))


def _notes(measures: Measures) -> tuple[str, ...]:
    """What measures of the labels say that have become worse since the pair was given or, if better, aligned."""
    notes = []
    for name, (title, sign, digits) in NOTED.items():
        before = _best_before(measures, name, sign)
        loss = round(sign * (before - measures.get(name, math.nan)), digits)
        if loss > 0:
            notes.append(f"note: {title} of the labels was {before:.{digits}f}, is {measures[name]:.{digits}f}")
    return tuple(notes)


def _best_before(measures: Measures, name: str, sign: int) -> float:
    """A measure as the pair was given or, if better, aligned, NaN if unknown; the sign is 1 if more is better."""
    states = [measures.get(f"{name}_{state}", math.nan) for state in ("before", "aligned")]
    return max((value for value in states if not math.isnan(value)), key=lambda value: sign * value, default=math.nan)


def _of(name: str) -> Callable[[Measures], float]:
    """The check's number is a measure as it is."""
    return lambda measures: measures.get(name, math.nan)


def _gain(name: str, state: str) -> Callable[[Measures], float]:
    """The check's number is what a measure has gained since a state."""
    return lambda measures: measures.get(name, math.nan) - measures.get(f"{name}_{state}", math.nan)


def _unknown(name: str) -> Callable[[Measures], float]:
    """The check's number is 1 if a measure that there should be is NaN, else 0."""
    return lambda measures: float(math.isnan(measures.get(name, 0.0)))


def kept_aligned(measures: Measures) -> float:
    """1 if the aligned pair was kept, since nothing that was found is better, though its images differ; else 0."""
    gain = _gain("unused", "aligned")(measures)
    unchanged = gain == 0 and measures.get("motion95", 0.0) == 0
    return math.nan if math.isnan(gain) else float(unchanged and not measures.get("lncc", 0.0) >= ALIKE)


def brightness(measures: Measures) -> float:
    """Difference in brightness of images that should be of one patient."""
    return measures.get("brightness_shift", math.nan) if measures.get("one_patient", 0.0) else math.nan


def mirrored(measures: Measures) -> float:
    """By how much the images match better when mirrored, NaN where the sides of two patients match when registered."""
    settled = measures.get("sides_match", math.nan) > SAME_SIDES and not measures.get("one_patient", 0.0)
    return math.nan if settled else measures.get("mirror_gain", math.nan)


def landmark_growth(measures: Measures) -> float:
    """Landmark error after the registration over that before, or after the initial alignment if that is smaller."""
    before = min(measures.get("tre_before", math.nan), measures.get("tre_aligned", math.inf))
    return measures.get("tre", math.nan) / before if before > 0 else math.nan


def surface_growth(measures: Measures) -> float:
    """By how many mm the surfaces of the labels have moved apart since the pair was given or, if better, aligned."""
    return measures.get("hd95", math.nan) - _best_before(measures, "hd95", -1)


def smallest_grid(measures: Measures) -> float:
    """Voxels of the coarsest grid on which network and optimization saw the images."""
    return min(measures.get(name, math.inf) for name in ("working_voxels", "refined_voxels"))


CHECKS: dict[str, Check] = {
    "finite": Check(
        _unknown("folding_percent"), 0.5, 0.5 + 1e-9, "the field is not finite", "nothing can be done with such a field"
    ),
    "field of view": Check(
        _of("overlap_percent"),
        45,
        20,
        "the fields of view share only {:.0f} % of the smaller one",
        "beyond the overlap the field is continued, not measured; phantoms with 15 % of overlap end 30 mm off",
    ),
    "part of the fixed image": Check(
        _of("covered_percent"),
        45,
        -math.inf,
        "the moving image shows only {:.0f} % of the fixed one, and elsewhere the field is continued, not measured",
        "a third of a scan gives the same similarity, since it is compared where both show something",
    ),
    "small image": Check(
        _of("extent"),
        40,
        -math.inf,
        "the longest side of an image is {:.3g} mm: are the lengths of its header in centimeters?",
        "the smallest crops at hand, of the hippocampus, have 43 mm; a chest in centimeters has less than 40",
    ),
    "other scale": Check(
        _of("extent_ratio"),
        5,
        math.inf,
        "one image is {:.1f} times as long as the other: is the unit of its header another one?",
        "a wrong unit is a factor of ten; an organ in a scan of the trunk is one of three",
    ),
    "clipping": Check(
        _of("clipped_percent"),
        60,
        math.inf,
        "the intensity window clips {:.0f} % of the brighter part of an image: is it in another unit?",
        "sane pairs have at most 46 %, CT values without their intercept 97 %",
    ),
    "similarity": Check(
        _of("lncc"),
        0.42,
        0.15,
        "the images still look unlike each other: local similarity {:.2f} of 1",
        "phantoms end at 0.5 and more, upside down or of another region at 0.4 and less, against noise below 0.1",
    ),
    "similarity is known": Check(
        _unknown("lncc"),
        0.5,
        math.inf,
        "how alike the images are cannot be measured: the fixed one shows no structure where both count",
        "a number that is not known is no good one",
    ),
    "one patient": Check(
        _of("likeness"),
        0.6,
        -math.inf,
        "the images look too unlike for two of one patient, which the bundle is made for: local similarity {:.2f}",
        "phases of a breath or of a heart beat begin at 0.64 and more, cut to a half at 0.46, of another contrast at "
        "0.33; an image of the lung alone may begin lower in a deep breath",
    ),
    "part that rests": Check(
        _of("unchanged_percent"),
        35,
        -math.inf,
        "all of the image has moved, unlike in two of one patient, which the bundle is made for: only {:.0f} % of it "
        "matched as well before",
        "phases of a breath or of a heart beat have 46 % and more, two patients 29 % and less, of whatever build; an "
        "image of the lung alone may have less in a deep breath",
    ),
    "brightness": Check(
        brightness,
        1,
        math.inf,
        "the images differ in brightness by {:.1f} standard deviations: is one without its intercept, or in another "
        "unit?",
        "pairs of one patient differ by at most 0.2, CT values without their intercept by 2.2 and more",
    ),
    "sides": Check(
        mirrored,
        0.02,
        math.inf,
        "the images match better when one is mirrored: are left and right of one swapped? Local similarity {:+.2f}",
        "mirrored, images of one patient lose 0.1 and more; one in twenty pairs of abdomens gains, by how the bodies "
        "lie, which a registration undoes",
    ),
    "better than given": Check(
        _gain("lncc", "before"),
        -0.01,
        -0.1,
        "the images match worse than as they were given: local similarity {:+.2f}",
        "a registration that does harm; 0.01 is the effect of one more interpolation",
    ),
    "better than aligned": Check(
        _gain("lncc", "aligned"),
        -0.01,
        -0.1,
        "the images match worse than after the initial alignment: local similarity {:+.2f}",
        "as for the pair as it was given",
    ),
    "unused voxels": Check(
        _gain("unused", "aligned"),
        -1e-6,
        -0.05,
        "on voxels that it did not use, the registration is worse than the aligned pair: similarity {:+.3f}",
        "what matches used voxels alone has matched their noise",
    ),
    "no change": Check(
        kept_aligned,
        0.5,
        math.inf,
        "no displacement was found that makes the images match better, and they do not match yet",
        "a grid of one voxel, or images that have nothing in common",
    ),
    "folds": Check(
        _of("folding_percent"),
        0.5,
        5,
        "{:.3g} % of the voxels fold",
        "sane phantoms have none, pairs without common anatomy 0.1 to 2 %, weights of noise 50 %",
    ),
    "network": Check(
        _of("network_folding"),
        5,
        math.inf,
        "the network's own field folds {:.0f} % of the voxels: are these the right weights?",
        "trained networks fold less than 2 % on images of any kind; the optimization may have mended it",
    ),
    "size of the motion": Check(
        _of("motion_percent"),
        20,
        40,
        "the motion is {:.0f} % of the image's length",
        "bundles are trained on motion of up to a seventh of the image",
    ),
    "roughness of the motion": Check(
        _of("sdlogj"),
        0.75,
        3,
        "the motion is rough: volumes change by SDlogJ {:.2f}",
        "sane pairs have up to 0.25, beating hearts 0.7, pairs without common anatomy from 0.8 on",
    ),
    "inverse": Check(
        _of("inverse95"),
        1,
        10,
        "the field cannot be inverted: the way there and back ends {:.2g} mm off",
        "sane fields return to 0.01 mm, those that fold do not return at all",
    ),
    "working grid": Check(
        smallest_grid,
        100,
        10,
        "the images were seen on a grid of {:.0f} voxels: are its setting and the lengths of the header in one unit?",
        "on a grid of one voxel no motion is found; the smallest one of a bundle has 9216",
    ),
    "landmarks": Check(
        landmark_growth,
        1.05,
        1.5,
        "the error of the landmarks has grown to {:.2f} times what it was",
        "landmarks are known to a voxel, a few percent of what the motion is",
    ),
    "labels": Check(
        _of("dsc"),
        0.3,
        0.12,
        "the labels hardly overlap: mean Dice {:.2f}",
        "sane pairs of two patients have 0.4 and more, swapped labels below 0.1",
    ),
    "labels are known": Check(
        _unknown("dsc"),
        0.5,
        math.inf,
        "no label is in both label maps: do they belong together?",
        "a number that is not known is no good one",
    ),
    "labels as given": Check(
        _gain("dsc", "before"),
        -0.02,
        -0.15,
        "the labels overlap less than as they were given: mean Dice changed by {:+.2f}",
        "rounding labels to voxels changes up to 0.02",
    ),
    "surfaces of labels": Check(
        surface_growth,
        3,
        math.inf,
        "the surfaces of the labels have moved apart: HD95 {:+.1f} mm",
        "two voxels of a scan; sane pairs come closer, or lose less than 2 mm",
    ),
}

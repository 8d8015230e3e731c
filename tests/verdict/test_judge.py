"""The verdict on measures that are known, and its table."""

from __future__ import annotations

import math

import pytest

from monai_regplugins.verdict.judge import CHECKS, LEVELS, Verdict, judge

# of a phantom's ordinary pair
SANE = {
    "overlap_percent": 100.0,
    "covered_percent": 100.0,
    "extent": 320.0,
    "extent_ratio": 1.0,
    "clipped_percent": 7.1,
    "mirror_gain": -0.07,
    "sides_match": 0.7,
    "brightness_shift": 0.1,
    "lncc_before": 0.30,
    "lncc_aligned": 0.54,
    "lncc": 0.73,
    "unused_aligned": 0.40,
    "unused": 0.69,
    "folding_percent": 0.0,
    "network_folding": 0.0,
    "motion95": 23.0,
    "motion_percent": 7.8,
    "sdlogj": 0.13,
    "inverse95": 0.001,
    "working_voxels": 11520.0,
    "refined_voxels": 11520.0,
    "tre_before": 9.0,
    "tre": 4.0,
    "dsc_before": 0.54,
    "dsc": 0.79,
}

# for each check what is to be seen, what is bad, and what is worse
BAD: dict[str, tuple[dict[str, float], dict[str, float] | None]] = {
    "field of view": ({"overlap_percent": 40.0}, {"overlap_percent": 15.0}),
    "part of the fixed image": ({"covered_percent": 33.0}, None),
    "small image": ({"extent": 32.0}, None),
    "other scale": ({"extent_ratio": 10.0}, None),
    "clipping": ({"clipped_percent": 97.0}, None),
    "similarity": ({"lncc": 0.39, "lncc_aligned": 0.3}, {"lncc": 0.05, "lncc_before": 0.0, "lncc_aligned": 0.0}),
    "similarity is known": ({"lncc": math.nan}, None),
    "one patient": ({"one_patient": 1.0, "likeness": 0.54}, None),
    "part that rests": ({"unchanged_percent": 22.0}, None),
    "brightness": ({"one_patient": 1.0, "lncc_aligned": 0.75, "lncc": 0.8, "brightness_shift": 2.2}, None),
    "sides": ({"mirror_gain": 0.05}, None),
    "better than given": ({"lncc_before": 0.75}, {"lncc_before": 0.9}),
    "better than aligned": ({"lncc_aligned": 0.75}, {"lncc_aligned": 0.9}),
    "unused voxels": ({"unused": 0.39}, {"unused": 0.1}),
    "no change": ({"unused": 0.40, "motion95": 0.0, "lncc": 0.6}, None),
    "folds": ({"folding_percent": 1.2}, {"folding_percent": 50.0}),
    "network": ({"network_folding": 50.0}, None),
    "size of the motion": ({"motion_percent": 25.0}, {"motion_percent": 1460.0}),
    "roughness of the motion": ({"sdlogj": 0.8}, {"sdlogj": 15.0}),
    "inverse": ({"inverse95": 2.0}, {"inverse95": 1800.0}),
    "working grid": ({"working_voxels": 27.0}, {"refined_voxels": 1.0}),
    "landmarks": ({"tre": 10.0}, {"tre": 18.0}),
    "labels": ({"dsc": 0.25, "dsc_before": 0.2}, {"dsc": 0.08, "dsc_before": 0.07}),
    "labels are known": ({"dsc": math.nan}, None),
    "labels as given": ({"dsc": 0.5}, {"dsc": 0.35}),
    "surfaces of labels": ({"hd95_before": 15.8, "hd95_aligned": 16.0, "hd95": 21.0}, None),
}


def test_an_ordinary_pair_passes_without_a_word() -> None:
    assert judge(SANE) == Verdict("PASS", ())
    assert str(judge(SANE)) == "PASS"
    assert judge({}) == Verdict("PASS")


@pytest.mark.parametrize("name", list(BAD))
def test_each_check_warns_and_fails_by_itself(name: str) -> None:
    check, (bad, worse) = CHECKS[name], BAD[name]
    warned = judge(SANE | bad)
    assert (warned.level, len(warned.reasons)) == ("WARN", 1), warned
    assert warned.reasons[0].startswith(f"WARN: {check.words[:8].partition('{')[0]}")
    if worse is None:
        assert math.isinf(check.fail)
    else:
        failed = judge(SANE | worse)
        assert failed.level == "FAIL"
        assert failed.reasons[0].startswith("FAIL: ")


def test_every_check_is_tried_and_says_where_its_limits_come_from() -> None:
    assert set(CHECKS) == set(BAD) | {"finite"}
    assert all(check.why and check.words and check.warn != check.fail for check in CHECKS.values())


def test_images_of_two_patients_may_differ_in_brightness() -> None:
    assert judge(SANE | {"brightness_shift": 13.0}) == Verdict("PASS")


def test_two_patients_whose_sides_match_when_registered_may_match_better_mirrored_before() -> None:
    better_mirrored = SANE | {"mirror_gain": 0.09, "sides_match": 0.9}
    assert judge(better_mirrored) == Verdict("PASS")
    assert "mirrored" in str(judge(better_mirrored | {"one_patient": 1.0, "lncc_aligned": 0.72}))
    assert "mirrored" in str(judge(better_mirrored | {"sides_match": math.nan}))


def test_a_field_that_is_not_finite_fails() -> None:
    nothing = dict.fromkeys(("folding_percent", "motion95", "motion_percent", "inverse95", "sdlogj"), math.nan)
    assert judge(SANE | nothing) == Verdict("FAIL", ("FAIL: the field is not finite",))


def test_comparisons_with_nan_are_no_good_ones() -> None:
    of_one = SANE | {"one_patient": 1.0, "lncc_before": math.nan, "lncc_aligned": 0.3, "likeness": 0.3}
    assert any("too unlike for two of one patient" in reason for reason in judge(of_one).reasons)
    assert judge(SANE | {"one_patient": 1.0, "likeness": math.nan}) == Verdict("PASS")
    kept = judge(SANE | {"unused": 0.40, "motion95": 0.0, "lncc": math.nan})
    assert any("no displacement was found" in reason for reason in kept.reasons)


def test_a_pair_that_matches_already_may_stay_as_it_is() -> None:
    assert judge(SANE | {"unused": 0.40, "motion95": 0.0, "lncc": 0.9, "lncc_before": 0.9}) == Verdict("PASS")


def test_the_worst_reason_comes_first() -> None:
    verdict = judge(SANE | {"overlap_percent": 40.0, "folding_percent": 50.0})
    assert [reason[:4] for reason in verdict.reasons] == ["FAIL", "WARN"]
    assert verdict.as_json() == {"verdict": "FAIL", "reasons": list(verdict.reasons)}
    assert str(verdict) == "; ".join(verdict.reasons)
    assert LEVELS.index(verdict.level) == 2


@pytest.mark.parametrize(
    ("measures", "notes"),
    [
        ({"dsc_before": 0.794}, []),
        ({"dsc_before": 0.80}, ["note: Dice of the labels was 0.80, is 0.79"]),
        ({"dsc_before": 0.70, "dsc_aligned": 0.82}, ["note: Dice of the labels was 0.82, is 0.79"]),
        ({"hd95_before": 4.0, "hd95": 4.04}, []),
        ({"hd95_before": 4.0, "hd95_aligned": 3.0, "hd95": 3.5}, ["note: HD95 (mm) of the labels was 3.0, is 3.5"]),
        ({"hd95_before": math.nan, "hd95": 3.5}, []),
        ({"hd95_before": math.inf, "hd95": math.inf}, []),
    ],
)
def test_labels_that_have_become_a_little_worse_are_noted(measures: dict[str, float], notes: list[str]) -> None:
    verdict = judge(SANE | measures)
    assert (verdict.level, verdict.reasons, list(verdict.notes)) == ("PASS", (), notes)
    assert str(verdict) == "; ".join(["PASS", *notes])
    assert verdict.as_json() == {"verdict": "PASS", "reasons": []}


def test_landmarks_are_compared_with_the_better_start() -> None:
    better_than_given = SANE | {"tre_before": 20.0, "tre_aligned": 5.0, "tre": 10.0}
    assert judge(better_than_given).level == "FAIL"

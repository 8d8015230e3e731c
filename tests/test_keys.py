"""The keys of a pair."""

from __future__ import annotations

import pytest

from monai_regplugins.keys import (
    IMAGE_KEYS,
    LABEL_KEYS,
    MASK_KEYS,
    POINT_KEYS,
    present,
    side_of,
)


def test_present_keeps_the_order_of_the_groups_and_skips_what_is_absent() -> None:
    pair = {"fixed_label": 0, "fixed": 0, "moving": 0, "pair_id": "a_to_b"}
    assert list(present(pair, IMAGE_KEYS, LABEL_KEYS, MASK_KEYS)) == ["moving", "fixed", "fixed_label"]


@pytest.mark.parametrize("key", [*IMAGE_KEYS, *LABEL_KEYS, *MASK_KEYS, *POINT_KEYS])
def test_side_of_every_key_is_an_image_key(key: str) -> None:
    assert side_of(key) in IMAGE_KEYS
    assert key.startswith(side_of(key))

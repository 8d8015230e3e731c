"""Random pairs: their truth holds, they are the same again, and they are made of what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from monai_regplugins.checks import InputError
from monai_regplugins.fields import warp
from monai_regplugins.losses import LabelOverlapLoss
from monai_regplugins.phantoms import abdomen_subject
from monai_regplugins.synthesis.random_contrast import RandomScanner
from monai_regplugins.synthesis.random_motion import RandomMotion
from monai_regplugins.synthesis.random_pairs import (
    RandomPairs,
    phantom_maps,
    placed,
    random_shapes,
)

SIZE = (16, 12, 14)
CLEAN = RandomScanner(blur=0.0, bias=0.0, gamma=0.0, noise=0.0, thick=0.0, padded=0.0)


def boxes() -> np.ndarray:
    """A label map of two boxes."""
    values = np.zeros((20, 18, 16), dtype=np.uint8)
    values[3:12, 4:14, 4:12], values[12:17, 4:14, 4:12] = 1, 2
    return values


def test_items_have_their_keys_shapes_and_ranges() -> None:
    pairs = RandomPairs(SIZE, maps=[boxes()], map_share=0.5)
    for index in range(12):
        pair = pairs[index]
        assert all(pair[key].shape == (1, *SIZE) for key in pair if key not in ("true_ddf", "has_true_ddf"))
        assert pair["true_ddf"].shape == (3, *SIZE)
        assert float(pair["has_true_ddf"]) == 1
        for key in ("moving", "fixed"):
            assert pair[key].dtype == torch.float32
            assert float(pair[key].min()) >= 0
            assert float(pair[key].max()) <= 1
        assert all(pair[key].dtype == torch.uint8 for key in ("moving_label", "fixed_label"))
    assert default_collate([pairs[0], pairs[1]])["moving"].shape == (2, 1, *SIZE)


@pytest.mark.parametrize("index", range(16))
def test_the_known_field_maps_the_moving_labels_onto_the_fixed_ones(index: int) -> None:
    pair = RandomPairs(SIZE, motion=RandomMotion(still=0.0, sliding=0.5), maps=[boxes()], map_share=0.5)[index]
    mask = pair["fixed_mask"]
    warped = warp(pair["moving_label"][None], pair["true_ddf"][None], "nearest")[0]
    assert float(mask.float().mean()) > 0.1
    assert torch.equal(warped[mask], pair["fixed_label"][mask])


def test_it_maps_the_images_too_where_they_have_one_contrast() -> None:
    pairs = RandomPairs(SIZE, motion=RandomMotion(still=0.0, octaves=0.0), scanner=CLEAN, same_contrast=1.0)
    before, after = [], []
    for index in range(10):
        pair = pairs[index]
        warped = warp(pair["moving"][None], pair["true_ddf"][None])[0]
        mask = pair["fixed_mask"]
        before.append(float(torch.corrcoef(torch.stack([pair["moving"][mask], pair["fixed"][mask]]))[0, 1]))
        after.append(float(torch.corrcoef(torch.stack([warped[mask], pair["fixed"][mask]]))[0, 1]))
    assert min(after) > 0.97
    assert np.mean(before) < 0.6


def test_contrasts_differ_unless_they_are_to_be_the_same() -> None:
    rest = RandomMotion(still=1.0)
    same = [RandomPairs(SIZE, motion=rest, scanner=CLEAN, same_contrast=1.0)[i] for i in range(6)]
    other = [RandomPairs(SIZE, motion=rest, scanner=CLEAN, same_contrast=0.0, copies=0.0)[i] for i in range(6)]
    for pair in same:
        torch.testing.assert_close(pair["moving"], pair["fixed"], atol=1e-5, rtol=0)
    assert all(float((pair["moving"] - pair["fixed"]).abs().mean()) > 0.01 for pair in other)


def test_pairs_at_rest_are_copies_as_often_as_asked_for() -> None:
    rest = RandomMotion(still=1.0)
    twice = [RandomPairs(SIZE, motion=rest, copies=1.0)[i] for i in range(5)]
    assert all(torch.equal(pair["moving"], pair["fixed"]) for pair in twice)
    assert not any(bool(pair["true_ddf"].any()) for pair in twice)
    assert all(torch.equal(pair["moving_label"], pair["fixed_label"]) for pair in twice)
    scans = [RandomPairs(SIZE, motion=rest, copies=0.0)[i] for i in range(5)]
    assert not any(torch.equal(pair["moving"], pair["fixed"]) for pair in scans)


def test_what_one_image_does_not_show_is_not_in_the_mask() -> None:
    far = RandomMotion(largest=0.5, still=0.0, octaves=0.0, sliding=0.0)
    for index in range(8):
        pair = RandomPairs(SIZE, motion=far, scanner=CLEAN)[index]
        at = pair["true_ddf"] + torch.stack(torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij"))
        last = torch.tensor(SIZE).view(3, 1, 1, 1) - 1
        assert torch.equal(pair["fixed_mask"][0], ((at > -1e-3) & (at < last + 1e-3)).all(dim=0))
    padded = RandomScanner(padded=1.0, noise=0.1)
    pair = RandomPairs(SIZE, motion=RandomMotion(still=1.0), scanner=padded, copies=0.0)[0]
    shown = pair["fixed_mask"]
    assert not bool(shown.all())
    assert not bool(pair["fixed"][~shown].all())


def test_a_pair_is_a_function_of_seed_and_index() -> None:
    first, again = RandomPairs(SIZE, seed=5), RandomPairs(SIZE, seed=5)
    again[0]  # the order of the calls does not matter
    assert all(torch.equal(first[3][key], again[3][key]) for key in first[3])
    assert not torch.equal(first[3]["moving"], first[4]["moving"])
    assert not torch.equal(first[3]["moving"], RandomPairs(SIZE, seed=6)[3]["moving"])
    with pytest.raises(IndexError):
        RandomPairs(SIZE, length=3)[3]
    assert len(list(RandomPairs(SIZE, length=3))) == 3


def test_the_true_field_is_worth_more_than_none_to_the_label_loss() -> None:
    pairs = RandomPairs(SIZE, motion=RandomMotion(still=0.0, octaves=0.0))
    batch = default_collate([pairs[i] for i in range(6)])
    loss = LabelOverlapLoss()
    given = [batch[key] for key in ("moving_label", "fixed_label", "fixed_mask")]
    assert float(loss(batch["true_ddf"], *given)) < 0.5 * float(loss(torch.zeros_like(batch["true_ddf"]), *given))


@pytest.mark.parametrize("index", range(4))
def test_what_slides_has_labels_of_its_own(index: int) -> None:
    pairs = RandomPairs(SIZE, motion=RandomMotion(still=0.0, sliding=1.0))
    generator = np.random.default_rng((pairs.seed, index))
    region = pairs.motion(generator, SIZE, pairs.margin).region
    inner = region[tuple(slice(pairs.margin, pairs.margin + n) for n in SIZE)]
    label = pairs[index]["moving_label"][0]
    inside, outside = (set(label[part].unique().tolist()) - {0} for part in (inner, ~inner))
    assert inside
    assert outside
    assert inside.isdisjoint(outside)


def test_shapes_are_few_large_and_smooth() -> None:
    label = random_shapes(np.random.default_rng(1), (24, 24, 24), (16, 16, 16))
    values, counts = label.unique(return_counts=True)
    assert 2 <= len(values) <= 11
    assert int(counts.max()) > 24**3 / 10
    assert float((label[1:] == label[:-1]).float().mean()) > 0.7


def test_a_map_keeps_its_labels_and_their_places_when_it_is_put_on_a_canvas() -> None:
    label = placed(np.random.default_rng(0), torch.as_tensor(boxes()), (24, 24, 24))
    assert set(label.unique().tolist()) == {0, 1, 2}
    first, second = ((label == k).nonzero().float().mean(0) for k in (1, 2))
    assert float(first[0]) < float(second[0])


@pytest.mark.slow
def test_phantoms_give_maps_in_turn_that_no_data_set_holds() -> None:
    abdomen, thorax, other = phantom_maps(3)
    assert abdomen.dtype == thorax.dtype == np.uint8
    assert abdomen.shape == other.shape != thorax.shape
    assert not np.array_equal(abdomen, other)
    assert np.array_equal(phantom_maps(1)[0], abdomen)
    assert set(range(1, 12)) <= set(np.unique(abdomen).tolist())
    for number in range(1, 3):
        assert not np.array_equal(abdomen > 0, abdomen_subject((0, number), abdomen.shape, 5.0)["image"] >= -500)


@pytest.mark.parametrize(
    "wrong",
    [{"spatial_size": (16, 16)}, {"spatial_size": (16, 16, 4)}, {"same_contrast": 1.5}, {"copies": -1}, {"length": 0}],
)
def test_numbers_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*, expected"):
        RandomPairs(**({"spatial_size": SIZE} | wrong))  # type: ignore[arg-type]

"""Random numbers as a function of seed, epoch and rank."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandShiftIntensity

from monai_regplugins.handlers import EpochSeed


class Trainer(SimpleNamespace):
    """The part of a trainer that is asked for, with one epoch at hand."""

    def __init__(self, epoch: int, rank: int = 0, data_loader: Any = None) -> None:
        loader = data_loader or [0]
        super().__init__(state=SimpleNamespace(epoch=epoch, rank=rank), data_loader=loader, given=[], handlers=[])

    def set_data(self, data: Any) -> None:
        self.given.append(data)

    def add_event_handler(self, event: Any, handler: Any) -> None:
        self.handlers.append((event, handler))


def draws(seed: int, epoch: int, rank: int = 0) -> list[float]:
    """Draw from each global generator in an epoch."""
    EpochSeed(seed)(Trainer(epoch, rank))
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002 - the one that is seeded


def test_equal_epochs_draw_equal_numbers() -> None:
    first = draws(0, epoch=3)
    draws(0, epoch=4)
    assert draws(0, epoch=3) == first


@pytest.mark.parametrize(
    "other", [(1, 3, 0), (0, 4, 0), (0, 3, 1), (3, 0, 0)], ids=["seed", "epoch", "rank", "swapped"]
)
def test_seed_epoch_and_rank_all_count(other: tuple[int, int, int]) -> None:
    pairs = zip(draws(0, 3, 0), draws(*other), strict=True)
    assert all(a != b for a, b in pairs)


def test_transforms_and_order_of_the_loader_follow() -> None:
    shift = RandShiftIntensity(offsets=10.0, prob=1.0)
    loader = DataLoader(Dataset([torch.full((1, 2), float(n)) for n in range(8)], shift), batch_size=1, shuffle=True)

    def epoch(number: int) -> list[float]:
        trainer = Trainer(number, data_loader=loader)
        EpochSeed(0)(trainer)
        assert trainer.given == [loader], "the loader starts a new pass"
        return [float(batch[0, 0, 0]) for batch in loader]

    first, second = epoch(1), epoch(2)
    assert first != second
    assert epoch(1) == first


def test_seeds_when_an_epoch_starts() -> None:
    trainer, handler = Trainer(1), EpochSeed(0)
    handler.attach(trainer)
    assert trainer.handlers == [(Events.STARTED, handler._start), (Events.EPOCH_STARTED, handler)]

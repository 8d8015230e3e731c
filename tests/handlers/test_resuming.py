"""What a resumed optimizer and schedule take from the checkpoint, and what from the configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, StepLR

from monai_regplugins.handlers.resuming import load_optimizer, load_schedule


def trained(make: Any, steps: int, lr: float = 1e-3, **settings: Any) -> tuple[torch.optim.Adam, LRScheduler]:
    """Train one weight for some steps."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight], lr=lr, **settings)
    schedule = make(optimizer)
    for _ in range(steps):
        weight.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    return optimizer, schedule


SCHEDULES = [
    lambda optimizer: ExponentialLR(optimizer, 0.5),
    lambda optimizer: StepLR(optimizer, 2, 0.3),
    lambda optimizer: WarmupCosineSchedule(optimizer, 2, 10),
]


@pytest.mark.parametrize("make", SCHEDULES, ids=["exponential", "step", "cosine"])
@pytest.mark.parametrize("rate", [1e-3, 2e-3, 3e-4])
def test_rate_is_as_if_it_had_been_so_from_the_start(make: Any, rate: float) -> None:
    (saved, saved_schedule), (fresh, schedule) = trained(make, 3), trained(make, 0, rate)
    reported = load_optimizer(fresh, saved.state_dict()) + load_schedule(schedule, saved_schedule.state_dict())
    assert reported == ([] if rate == 1e-3 else [f"learning_rate {rate} instead of 0.001"])
    for steps in (3, 4, 5):
        expected = trained(make, steps, rate)[0].param_groups[0]["lr"]
        assert fresh.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        assert schedule.get_last_lr() == [fresh.param_groups[0]["lr"]]
        fresh.step()
        schedule.step()
    (weight,) = fresh.param_groups[0]["params"]
    assert fresh.state[weight]["step"] == 3


def test_other_settings() -> None:
    saved, saved_schedule = trained(SCHEDULES[0], 1)
    fresh, schedule = trained(lambda optimizer: ExponentialLR(optimizer, 0.25), 0, weight_decay=0.1)
    assert load_optimizer(fresh, saved.state_dict()) == ["weight_decay 0.1 instead of 0"]
    assert load_schedule(schedule, saved_schedule.state_dict()) == ["gamma 0.25 instead of 0.5"]
    assert fresh.param_groups[0]["weight_decay"] == 0.1
    assert (fresh.param_groups[0]["lr"], vars(schedule)["gamma"], schedule.last_epoch) == (0.0005, 0.25, 1)


def test_a_longer_training_is_not_told() -> None:
    saved, saved_schedule = trained(SCHEDULES[2], 3)
    fresh, schedule = trained(lambda optimizer: WarmupCosineSchedule(optimizer, 2, 20), 0)
    assert load_optimizer(fresh, saved.state_dict()) + load_schedule(schedule, saved_schedule.state_dict()) == []
    assert vars(schedule)["t_total"] == 20


def test_a_schedule_that_waits_for_a_plateau() -> None:
    (saved, saved_schedule), (fresh, schedule) = (trained(SCHEDULES[0], 0, lr) for lr in (1e-3, 2e-3))
    saved_schedule, schedule = (torch.optim.lr_scheduler.ReduceLROnPlateau(one, patience=0) for one in (saved, fresh))
    for score in (1.0, 2.0):
        saved_schedule.step(score)
    reported = load_optimizer(fresh, saved.state_dict()) + load_schedule(schedule, saved_schedule.state_dict())
    assert reported == ["learning_rate 0.002 instead of 0.001"]
    assert fresh.param_groups[0]["lr"] == pytest.approx(2e-4)
    assert schedule.best == 1.0


def test_a_rate_of_zero_becomes_the_one_that_is_given() -> None:
    saved = torch.optim.Adam([nn.Parameter(torch.ones(2))], lr=0.0)
    fresh = torch.optim.Adam([nn.Parameter(torch.ones(2))], lr=0.1)
    assert load_optimizer(fresh, saved.state_dict()) == ["learning_rate 0.1 instead of 0.0"]
    assert fresh.param_groups[0]["lr"] == 0.1

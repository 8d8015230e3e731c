"""Restore optimizer and schedule of a resumed training: state from the checkpoint, settings from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["load_optimizer", "load_schedule"]

# What a schedule of MONAI or PyTorch is given when it is made; all else in its state is how far it has come.
SCHEDULE_SETTINGS = (
    *("t_total", "warmup_steps", "warmup_multiplier", "cycles", "end_lr"),
    *("T_max", "eta_min", "gamma", "step_size"),
)
FOLLOW_MAX_EPOCHS = ("t_total", "T_max")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> list[str]:
    """Restore the moments of an optimizer and how far a schedule has taken its rate, not its settings.

    Returns:
        What is set otherwise than in ``state``, in words.
    """
    given = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    changes: dict[str, None] = {}
    for group, settings in zip(optimizer.param_groups, given, strict=True):
        then, now = (one.get("initial_lr", one["lr"]) for one in (group, settings))
        wanted = {key: value for key, value in settings.items() if key not in ("lr", "initial_lr")}
        changes |= dict.fromkeys(_different({"learning_rate": now, **wanted}, {**group, "learning_rate": then}))
        group.update(settings, lr=_moved(group["lr"], then, now))
    return list(changes)


def load_schedule(schedule: Any, state: dict[str, Any]) -> list[str]:
    """Restore the position of a schedule, not its settings, after its optimizer; return which settings are new."""
    settings = {key: value for key, value in vars(schedule).items() if key in SCHEDULE_SETTINGS}
    schedule.load_state_dict(state)
    vars(schedule).update(settings)
    groups = schedule.optimizer.param_groups
    if hasattr(schedule, "base_lrs"):  # ReduceLROnPlateau has none
        schedule.base_lrs = [group["initial_lr"] for group in groups]
    schedule._last_lr = [group["lr"] for group in groups]
    wanted = {key: value for key, value in settings.items() if key not in FOLLOW_MAX_EPOCHS}
    return _different(wanted, state)


def _moved(rate: float, then: float, now: float) -> float:
    """Return the rate that a schedule has come to, had it begun at ``now`` and not at ``then``; equal stays exact."""
    if now == then:
        return rate
    return rate * now / then if then else now


def _different(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Say which values are not those of before."""
    return [f"{key} {now[key]} instead of {then[key]}" for key in now if key in then and now[key] != then[key]]

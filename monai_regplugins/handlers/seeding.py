"""Seeding per epoch, so that a resumed training equals an uninterrupted one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data.utils import set_rnd

__all__ = ["EpochSeed"]


class EpochSeed:
    """Seed everything random at the start of each epoch from ``seed``, epoch and rank.

    That is Python's, NumPy's and PyTorch's generators and the random transforms of the training data; the data loader
    then starts a new pass, so that shuffling follows too. A training that stops after any epoch and is resumed goes
    on to the last bit as if it had never stopped, where the device computes deterministically. Worker processes are
    seeded by the data loader from the same generators, unless they are persistent.

    Args:
        seed: the seed of the whole training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._is_first = False  # epoch of a run

    def attach(self, trainer: Any) -> None:
        """Seed at the start of every epoch of ``trainer``."""
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self)

    def _start(self) -> None:
        self._is_first = True

    def __call__(self, trainer: Any) -> None:
        """Seed the epoch that starts; seeds of different epochs and ranks are independent, not shifted."""
        sequence = np.random.SeedSequence((self.seed, trainer.state.epoch, trainer.state.rank))
        seed = int(sequence.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the generator that transforms without one of their own draw from
        torch.manual_seed(seed)
        if (dataset := getattr(trainer.data_loader, "dataset", None)) is not None:
            set_rnd(dataset, seed)
        if not self._is_first:  # the engine itself begins the first pass, and knows how much of its epoch is done
            trainer.set_data(trainer.data_loader)
        self._is_first = False

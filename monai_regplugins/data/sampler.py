"""Sampler of a fixed number of pairs per epoch, for one or several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from torch import distributed
from torch.utils.data import DistributedSampler

from monai_regplugins.checks import InputError

__all__ = ["PairSampler"]


class PairSampler(DistributedSampler[int]):
    """Draws ``num_samples`` items per epoch, shared out over the ranks.

    N subjects make N (N - 1) ordered pairs, too many for one epoch. Each epoch draws anew, a pure function of
    (seed, epoch): without replacement as long as there are items, then from a fresh shuffle. Every rank gets equally
    many, rank r every world-size-th from r on, so the number is rounded up to a multiple of the world size. MONAI's
    trainers call ``set_epoch`` at the start of each epoch because this is a ``DistributedSampler``.

    Args:
        dataset: the data set to draw from; only its length matters.
        num_samples: items per epoch over all ranks; None takes each item once.
        seed: seed, the same on each rank.
        num_replicas: number of ranks; None asks ``torch.distributed``, one if that is not running.
        rank: this rank; None asks ``torch.distributed``, zero if that is not running.

    Raises:
        InputError: When there is nothing to draw, or ``num_samples`` is not positive.

    Example:
        >>> list(PairSampler(range(100), num_samples=3)) == list(PairSampler(range(100), num_samples=3))
        True
    """

    def __init__(
        self,
        dataset: Sized,
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        running = distributed.is_available() and distributed.is_initialized()
        replicas = num_replicas or (distributed.get_world_size() if running else 1)
        rank = rank if rank is not None else (distributed.get_rank() if running else 0)
        wanted = len(dataset) if num_samples is None else num_samples
        if len(dataset) == 0:
            raise InputError("the data set holds no pairs to draw from; check its list of pairs.")
        if wanted < 1:
            raise InputError(f"num_samples is {wanted}, expected at least 1 pair per epoch; give a positive number.")
        super().__init__(dataset, num_replicas=replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_samples = -(-wanted // replicas)
        self.total_size = self.num_samples * replicas

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank in this epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        size = len(self.dataset)  # type: ignore[arg-type]
        rounds = -(-self.total_size // size)
        drawn = np.concatenate([rng.permutation(size) for _ in range(rounds)])
        return iter(drawn[self.rank : self.total_size : self.num_replicas].tolist())

    def __len__(self) -> int:
        """Indices per rank and epoch."""
        return self.num_samples

"""PairSampler: which items, how many, and on which rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from torch.utils.data import DataLoader

from monai_regplugins.checks import InputError
from monai_regplugins.data.sampler import PairSampler

ITEMS = range(20)


def test_without_replacement_and_in_range():
    drawn = list(PairSampler(ITEMS, 8))
    assert len(drawn) == len(set(drawn)) == len(PairSampler(ITEMS, 8)) == 8
    assert set(drawn) <= set(ITEMS)
    assert all(isinstance(index, int) for index in drawn)


def test_more_than_there_are_repeats_evenly():
    counts = np.bincount(list(PairSampler(ITEMS, 50)), minlength=20)
    assert counts.sum() == 50
    assert counts.min() == 2
    assert counts.max() == 3


def test_default_takes_each_once():
    assert sorted(PairSampler(ITEMS)) == list(ITEMS)


def test_function_of_seed_and_epoch():
    def drawn(seed, epoch):
        sampler = PairSampler(ITEMS, 10, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert drawn(1, 2) == drawn(1, 2)
    assert len({tuple(drawn(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("num_samples", [6, 7, 41])
def test_ranks_share_one_draw(num_samples):
    ranks = [list(PairSampler(ITEMS, num_samples, num_replicas=3, rank=rank)) for rank in range(3)]
    per_rank = -(-num_samples // 3)
    assert [len(rank) for rank in ranks] == [per_rank] * 3
    together = [index for triple in zip(*ranks, strict=True) for index in triple]
    assert together == list(PairSampler(ITEMS, 3 * per_rank))


def test_asks_torch_distributed(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert list(PairSampler(ITEMS, 6)) == list(PairSampler(ITEMS, 6, num_replicas=2, rank=1))


def test_monai_trainer_sets_the_epoch():
    data = [{"image": torch.full((1,), float(n)), "label": torch.zeros(1)} for n in ITEMS]
    sampler = PairSampler(data, 2)
    network = torch.nn.Linear(1, 1)
    seen = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=3,
        train_data_loader=DataLoader(data, sampler=sampler),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=lambda pred, _: seen.append(sampler.epoch) or pred.sum(),
        decollate=False,
    )
    trainer.run()
    assert seen == [1, 1, 2, 2, 3, 3]


def test_ill_arguments():
    with pytest.raises(InputError, match="no pairs"):
        PairSampler([])
    with pytest.raises(InputError, match="num_samples is 0"):
        PairSampler(ITEMS, 0)

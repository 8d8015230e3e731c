"""A whole training in miniature: real MONAI engines, two convolutions, volumes of 8^3 voxels, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.inferers import Inferer
from monai.transforms import RandGaussianNoised
from torch import nn

from monai_regplugins.engines import PairPrepareBatch
from monai_regplugins.fields import warp
from monai_regplugins.handlers import RegistrationMetrics


class TinyInferer(Inferer):
    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        ddf = network(inputs)
        return {"ddf": ddf, "warped": warp(inputs[:, :1], ddf)}


class TinyLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, torch.Tensor] = {}

    def forward(self, pred: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
        difference = (pred["warped"] - targets["fixed"]).square().mean()
        size = pred["ddf"].square().mean()
        self.last = {"image": difference.detach(), "size": size.detach()}
        return difference + 0.1 * size


def pairs(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    items: list[dict[str, Any]] = []
    for number in range(count):
        moving, fixed = torch.rand(2, 1, 8, 8, 8, generator=generator)
        label = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
        label[:, 2:6, 2:6, 2:6] = 1
        item = {"moving": moving, "fixed": fixed, "moving_label": label, "fixed_label": label.roll(1, 1)}
        items.append({**item, "spacing": torch.tensor([1.0, 1.0, 2.0]), "pair_id": f"{number}_to_{number + 1}"})
    return items


@dataclass
class Training:
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    loss: TinyLoss
    trainer: SupervisedTrainer
    evaluator: SupervisedEvaluator

    def weights(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.network.parameters()).detach().clone()


@pytest.fixture
def make_training() -> Callable[..., Training]:
    """Return a function that makes a training; its arguments are handlers of the engines."""

    def make(
        max_epochs: int = 2,
        features: int = 4,
        train_handlers: tuple[Any, ...] = (),
        val_handlers: tuple[Any, ...] = (),
        metric: Any = None,
        interval: int = 1,
        epoch_length: int | None = None,
        amp: bool = False,
        learning_rate: float = 1e-3,
        num_validation: int = 2,
    ) -> Training:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(2, features, 3, padding=1), nn.Tanh(), nn.Conv3d(features, 3, 3, padding=1))
        optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
        loss = TinyLoss()
        noisy = RandGaussianNoised(keys=["moving"], prob=1.0, std=0.05)
        common: dict[str, Any] = {
            "device": torch.device("cpu"),
            "network": network,
            "prepare_batch": PairPrepareBatch(),
            "inferer": TinyInferer(),
        }
        evaluator = SupervisedEvaluator(
            val_data_loader=DataLoader(Dataset(pairs(num_validation), None), batch_size=2),
            key_val_metric={"score": metric or RegistrationMetrics(surface=False)},
            val_handlers=list(val_handlers) or None,
            **common,
        )
        trainer = SupervisedTrainer(
            max_epochs=max_epochs,
            train_data_loader=DataLoader(Dataset(pairs(3), noisy), batch_size=1, shuffle=True),
            epoch_length=epoch_length,
            amp=amp,
            optimizer=optimizer,
            loss_function=loss,
            train_handlers=[ValidationHandler(interval, evaluator), *train_handlers],
            **common,
        )
        trainer.add_event_handler("EPOCH_COMPLETED", lambda: scheduler.step())
        return Training(network, optimizer, scheduler, loss, trainer, evaluator)

    return make

"""Registration in steps: the same as the network alone, and stopping where nothing more is gained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers import SequenceInferer, StoppingRule
from monai_regplugins.inferers.sequence import register_until
from monai_regplugins.losses import masked_mse
from monai_regplugins.networks.blocks import local_gaussian
from monai_regplugins.networks.nets import R2N2


def network(**options: Any) -> R2N2:
    """A small network whose steps move something from the start."""
    net = R2N2(channels=(2, 4, 4), num_residual=1, steps=options.pop("steps", 5), v_max=0.2, **options).eval()
    with torch.no_grad():
        for parameter in net.parameter_net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return net


def images(batch: int = 3, size: tuple[int, ...] = (32, 40)) -> torch.Tensor:
    noise = torch.nn.functional.avg_pool2d(torch.rand(batch, 2, size[0] + 4, size[1] + 4), 5, stride=1)
    return 4 * (noise - noise.mean())


NEVER = StoppingRule(patience=99, keep_best=False)


@pytest.mark.parametrize("options", [{}, {"transforms": True}, {"stopping": NEVER}])
def test_all_steps_are_the_network_itself(options: dict[str, Any]) -> None:
    net, image = network(), images()
    with torch.no_grad():
        pred, expected = SequenceInferer(**options)(image, net), net(image)
    torch.testing.assert_close(pred["ddf"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pred["warped"], fields.warp(image[:, :1], expected), rtol=1e-3, atol=1e-3)


def test_sequence_is_handed_to_the_loss_with_its_gradient() -> None:
    net = network(return_sequence=True).train()
    pred = SequenceInferer()(images(), net)
    assert pred["sequence"].shape == (3, 5, 2, 32, 40)
    assert torch.equal(pred["ddf"], pred["sequence"][:, -1])
    pred["sequence"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.levels.parameters())


def test_field_is_returned_on_the_grid_that_came_in() -> None:
    net, image = network(), images(1, (50, 70))
    pred = SequenceInferer(spatial_size=(32, 32), transforms=True)(image, net)
    assert pred["ddf"].shape == (1, 2, 50, 70)
    assert pred["position"].shape == (1, 5, 2)


@pytest.mark.parametrize("rule", [StoppingRule(), StoppingRule(patience=1, smallest_update=0.5)])
def test_samples_of_a_batch_stop_each_by_itself(rule: StoppingRule) -> None:
    net, image = network(steps=8), images(4)
    with torch.no_grad():
        together, steps, _ = register_until(rule, net, image)
        for b in range(4):
            alone, count, _ = register_until(rule, net, image[b : b + 1])
            assert count.tolist() == steps[b : b + 1].tolist()
            fields_of_both = [local_gaussian.field(t, [32, 40]) for t in (together, alone)]
            torch.testing.assert_close(fields_of_both[0][b : b + 1], fields_of_both[1], rtol=1e-4, atol=1e-4)


def test_best_step_is_kept_and_never_worse_than_nothing() -> None:
    net, image = network(steps=8), images(4)
    with torch.no_grad():
        found, *_ = register_until(StoppingRule(patience=99), net, image)
        every = local_gaussian.field(net.local_transforms(image), [32, 40], cumulative=True)
    sequence = torch.cat([torch.zeros_like(every[:, :1]), every], dim=1)
    moving, fixed = image[:, :1], image[:, 1:]
    differences = torch.stack([masked_mse(moving, fixed, ddf) for ddf in sequence.unbind(1)], dim=1)
    best = sequence[torch.arange(4), differences.argmin(1)]
    torch.testing.assert_close(local_gaussian.field(found, [32, 40]), best, rtol=1e-4, atol=1e-4)


def test_patience_counts_stalls_in_a_row() -> None:
    idle = network(steps=9)
    torch.nn.init.zeros_(idle.parameter_net.output.weight)
    torch.nn.init.zeros_(idle.parameter_net.output.bias)
    for patience, min_steps in ((1, 1), (3, 1), (2, 5)):
        rule = StoppingRule(patience=patience, min_steps=min_steps)
        with torch.no_grad():
            assert register_until(rule, idle, images())[1].tolist() == [max(patience, min_steps)] * 3


def test_difference_counts_only_what_comes_from_inside() -> None:
    moving = torch.arange(8.0).expand(1, 1, 6, 8)
    ddf = torch.zeros(1, 2, 6, 8)
    ddf[:, 1] = 2.0
    assert masked_mse(moving, moving + 2, ddf).tolist() == [0.0]
    assert masked_mse(moving, moving, ddf).tolist() == [4.0]
    assert masked_mse(moving, moving, ddf + 100).tolist() == [0.0]


@pytest.mark.parametrize("counts", [{"patience": 0}, {"min_steps": 0}])
def test_rule_without_steps_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        StoppingRule(**counts)

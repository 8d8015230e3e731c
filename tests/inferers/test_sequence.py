"""Registration in steps: the same as the network alone, and stopping where nothing more is gained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.inferers import SequenceInferer, StoppingRule
from monai_regplugins.inferers.sequence import register_until, weight_deviation
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


def test_a_training_on_images_that_would_be_padded_is_refused() -> None:
    net = network(return_sequence=True).train()
    with pytest.raises(InputError, match="image to train on has 32 x 24 voxels, expected at least 32 x 32"):
        SequenceInferer()(images(size=(32, 24)), net)
    assert SequenceInferer()(images(size=(32, 24)), net.eval())["ddf"].shape[2:] == (32, 24)  # a validation


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


class TestUncertainty:
    """Standard deviations of the components of the field, in voxels of the grid that came in."""

    def test_localization_is_the_closed_form_of_each_step(self) -> None:
        net, image = network(), images()
        with torch.no_grad():
            pred = SequenceInferer(uncertainty="localization", transforms=True)(image, net)
            transforms, moving, state = net.local_transforms(image), image[:, :1], net.start(image)
            covariances, warped = [], moving
            for t in range(net.steps):
                _, place, state = net.step(warped, state)
                covariances.append(net.localization_covariance(place, warped))
                ddf = local_gaussian.field(transforms, [32, 40], cumulative=True)[:, t]
                warped = fields.warp(moving, ddf, "linear", net.padding)
        variance = local_gaussian.localization_variance(transforms, torch.stack(covariances, 1), [32, 40])
        assert pred["uncertainty"].max() > 0.1, "too small to show anything"
        torch.testing.assert_close(pred["uncertainty"].square(), variance, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(pred["ddf"], net(image), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("noise_per", ["step", "sequence"])
    def test_weights_are_those_of_the_training_with_its_noise(
        self, noise_per: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The deviation over fields of the network itself in training mode, which sees the same noise."""
        net, image = network(noise_std=0.5, noise_per=noise_per), images()
        with torch.no_grad():
            pred = SequenceInferer(uncertainty="weights", samples=4, seed=7)(image, net)
            assert not net.training
            generator, draw = torch.Generator().manual_seed(7), net.draw_noise
            monkeypatch.setattr(net, "draw_noise", lambda _: draw(generator))
            net.train()
            variance = torch.stack([net(image) for _ in range(4)]).var(0)
            torch.testing.assert_close(pred["ddf"], net.eval()(image))  # without noise
        assert pred["uncertainty"].max() > 0.1, "too small to show anything"
        torch.testing.assert_close(pred["uncertainty"].square(), variance, rtol=1e-3, atol=1e-4)

    def test_weights_repeat_whatever_comes_before_and_leave_the_global_dice_alone(self) -> None:
        net, image = network(noise_std=0.5), images()
        infer = SequenceInferer(uncertainty="weights", samples=3)
        with torch.no_grad():
            together, state = infer(image, net)["uncertainty"], torch.get_rng_state()
            torch.rand(5)
            moved = torch.get_rng_state()
            alone = infer(image[1:2], net)["uncertainty"]
            assert torch.equal(torch.get_rng_state(), moved)
            assert not torch.equal(moved, state)
            torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-4)
            infer.seed = 1
            assert not torch.allclose(infer(image, net)["uncertainty"], together, rtol=0.1)

    @pytest.mark.parametrize("kind", ["localization", "weights"])
    def test_units_are_those_of_the_grid_that_came_in(self, kind: str) -> None:
        """Pixels of half the size along one axis alone: that component counts twice as many."""
        net, image = network(noise_std=0.5), images(1, (64, 40))
        infer = SequenceInferer(spatial_size=(32, 40), uncertainty=kind)
        with torch.no_grad():
            pred = infer(image, net)
            small = torch.nn.functional.avg_pool2d(image, (2, 1))  # cell-centered, as the inferer resizes
            parts = (
                weight_deviation(None, net, small, 10, 0)
                if kind == "weights"
                else local_gaussian.localization_variance(*self.steps(net, small), [32, 40]).sqrt()
            )
        torch.testing.assert_close(pred["uncertainty"], fields.resize(parts, [64, 40]), rtol=1e-3, atol=1e-3)

    def steps(self, net: R2N2, image: torch.Tensor) -> tuple[Any, torch.Tensor]:
        found, _, covariances = register_until(NEVER, net, image)
        return found, covariances

    @pytest.mark.parametrize("kind", ["localization", "weights"])
    def test_with_stopping_only_the_steps_that_are_kept_count(self, kind: str) -> None:
        net, image = network(noise_std=0.5, steps=8), images()
        idle = StoppingRule(patience=1, min_steps=3, smallest_update=1e6)  # three steps, kept where they help
        with torch.no_grad():
            pred = SequenceInferer(idle, uncertainty=kind)(image.clone(), net)
            still = torch.cat([image[:1, :1], image[:1, :1]], dim=1)  # nothing helps where there is no difference
            none = SequenceInferer(idle, uncertainty=kind)(still, net)
        assert pred["steps"].tolist() == [3, 3, 3]
        assert none["uncertainty"].abs().max() == 0

    def test_none_by_default(self) -> None:
        assert set(SequenceInferer()(images(), network())) == {"ddf", "warped"}

    def test_gradients_of_the_field_stay(self) -> None:
        net = network().train()
        pred = SequenceInferer(uncertainty="localization")(images(), net)
        assert not pred["uncertainty"].requires_grad
        pred["ddf"].square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.levels.parameters())

    def test_what_makes_no_sense_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"uncertainty is 'weight'; .* Did you mean 'weights'\?"):
            SequenceInferer(uncertainty="weight")
        with pytest.raises(InputError, match="samples is 1, expected at least 2"):
            SequenceInferer(uncertainty="weights", samples=1)
        with pytest.raises(InputError, match="noise_std of the network is 0"):
            SequenceInferer(uncertainty="weights")(images(), network(noise_std=0.0))


@pytest.mark.parametrize("counts", [{"patience": 0}, {"min_steps": 0}])
def test_rule_without_steps_is_refused(counts: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        StoppingRule(**counts)


@pytest.mark.parametrize("rule", [None, StoppingRule(patience=2)])
def test_a_network_that_returns_no_numbers(rule: StoppingRule | None) -> None:
    """Steps without numbers are no progress, and their field is no result."""
    net = network(steps=9)
    net.weights_file = "models/model.pt"
    net.parameter_net.output.bias.data.fill_(float("nan"))
    with torch.no_grad():
        assert register_until(StoppingRule(patience=2, min_steps=1), net, images())[1].tolist() == [2, 2, 2]
        with pytest.raises(InputError, match=r"the network with the weights 'models/model\.pt' returned .* not finite"):
            SequenceInferer(rule)(images(), net)


def test_more_than_one_pass_is_refused() -> None:
    with pytest.raises(InputError, match="passes is 2, expected 1"):
        SequenceInferer(passes=2)

"""Learned registration methods: the bundles, run as in their evaluation, and MONAI's VoxelMorph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import VoxelMorph
from torch import Tensor, nn

from monai_regplugins.benchmark.baselines import Register
from monai_regplugins.checks import InputError, load_into, load_weights
from monai_regplugins.handlers.checkpoint import model_part
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.inferers.warm import KnownField

__all__ = ["load_bundle", "load_voxelmorph"]

POOLINGS = 3  # of MONAI's VoxelMorph


def load_bundle(
    config: Mapping[str, Any], refine_steps: int = 0, alone: bool = False, stiffness: float = 1.0
) -> Register:
    """Return the network of a bundle, with its weights and inferer, as a registration method.

    What the inferer gets beside the images, such as the voxel size, is what the configuration's evaluator gives it.

    Args:
        config: evaluation configuration, as :func:`~monai_regplugins.benchmark.reporting.read_config` returns it.
        refine_steps: steps of instance optimization on each pair.
        alone: optimize from no displacement; the network does not run.
        stiffness: factor on the configuration's ``smoothness_weight``, which the optimization obeys.

    Raises:
        InputError: When the weights are missing or do not fit, or the configuration has no such settings.
    """
    settings: dict[str, Any] = {"refine_steps": refine_steps} if refine_steps or "refine_steps" in config else {}
    if stiffness != 1:
        settings["smoothness_weight"] = f"$@unscaled_smoothness_weight * {stiffness}"
        config = {**config, "unscaled_smoothness_weight": config.get("smoothness_weight")}
    if missing := [key for key in settings if key not in config]:
        raise InputError(f"the configuration has no '{missing[0]}': give the evaluation of a bundle that is optimized.")
    parser = ConfigParser({**config, **settings})
    network, ckpt = parser.get_parsed_content("network"), parser.get_parsed_content("ckpt")
    load_into(network, model_part(load_weights(ckpt)), ckpt)
    inferer = parser.get_parsed_content("inferer")
    if alone:
        inferer.inferer = KnownField(None, inferer.inferer.padding)
    prepare, device = (parser.get_parsed_content(key) for key in ("evaluator#prepare_batch", "device"))
    network.eval()

    def register(
        fixed: Tensor, moving: Tensor, spacing: Tensor, mask: Tensor | None, seed: int, threads: int
    ) -> Tensor:
        batch = {"fixed": fixed, "moving": moving, "spacing": spacing, "fixed_mask": mask}
        known = {key: value[None] for key, value in batch.items() if value is not None}
        image, _, args, kwargs = prepare(known, device)
        with torch.no_grad():
            return torch.as_tensor(inferer(image, network, *args, **kwargs)["ddf"][0]).cpu()

    return register


def load_voxelmorph(ckpt: str, spatial_dims: int, spatial_size: Sequence[int] = ()) -> Register:
    """Return MONAI's VoxelMorph (Balakrishnan et al. 2019) as a registration method.

    Args:
        ckpt: weights of a ``monai.networks.nets.VoxelMorph`` with its default widths, whose velocities are integrated,
            or those of its backbone, a ``VoxelMorphUNet`` that predicts displacements.
        spatial_dims: 2 or 3.
        spatial_size: size of the network's input; -1 (or an empty list) keeps an axis as it is.

    Raises:
        InputError: When the weights are missing or do not fit.
    """
    state = model_part(load_weights(ckpt))
    network: nn.Module = VoxelMorph(spatial_dims=spatial_dims)
    integrates = any(name.startswith("backbone.") for name in state)
    if not integrates:
        network = network.backbone  # type: ignore[assignment]
    load_into(network, state, ckpt)
    network.eval()
    inferer = PairInferer(spatial_size, divisor=2**POOLINGS)

    def field(image: Tensor) -> Tensor:
        found: Tensor = network(image[:, :1], image[:, 1:])[1] if integrates else network(image)
        return found

    def register(
        fixed: Tensor, moving: Tensor, spacing: Tensor, mask: Tensor | None, seed: int, threads: int
    ) -> Tensor:
        with torch.no_grad():
            return inferer(torch.stack([moving, fixed], dim=1), field)["ddf"][0]

    return register

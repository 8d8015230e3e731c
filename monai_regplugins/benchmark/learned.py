"""Learned registration methods: the bundles, run as in their evaluation, and MONAI's VoxelMorph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import VoxelMorph
from torch import Tensor, nn

from monai_regplugins.benchmark.baselines import Register
from monai_regplugins.benchmark.reporting import read_config
from monai_regplugins.checks import load_into, load_weights
from monai_regplugins.handlers.checkpoint import model_part
from monai_regplugins.inferers.pair import PairInferer
from monai_regplugins.inferers.refine import RefinedInferer
from monai_regplugins.inferers.warm import KnownField

__all__ = ["load_bundle", "load_voxelmorph"]

POOLINGS = 3  # of MONAI's VoxelMorph


def load_bundle(config: Mapping[str, Any], refine_steps: int = 0, alone: bool = False) -> Register:
    """Return the network of a bundle, with its weights and inferer, as a registration method.

    What the inferer gets beside the images, such as the voxel size, is what the configuration's evaluator gives it.

    Args:
        config: evaluation configuration, as :func:`~monai_regplugins.benchmark.reporting.read_config` returns it.
        refine_steps: steps of instance optimization on each pair, by the configuration's own ``refine_steps`` where it
            has that, else on the loss of the bundle's training.
        alone: optimize from no displacement; the network does not run.

    Raises:
        InputError: When the weights are missing or do not fit.
    """
    own = "refine_steps" in config
    parser = ConfigParser({**config, "refine_steps": refine_steps} if own else dict(config))
    network, ckpt = parser.get_parsed_content("network"), parser.get_parsed_content("ckpt")
    load_into(network, model_part(load_weights(ckpt)), ckpt)
    inferer = parser.get_parsed_content("inferer")
    if refine_steps and not own:
        inferer = _refined(inferer, parser, refine_steps)
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


def _refined(inferer: Any, parser: ConfigParser, steps: int) -> RefinedInferer:
    """Refine each pair on the loss that the bundle's network was trained with."""
    root = Path(parser.get_parsed_content("bundle_root"))
    loss = ConfigParser(read_config(root / "configs" / "train.json", {})).get_parsed_content("loss")
    size = parser.get_parsed_content("spatial_size") if "spatial_size" in parser.get() else ()
    return RefinedInferer(inferer, loss, steps, spatial_size=size)

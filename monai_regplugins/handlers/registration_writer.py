"""Results of an inference as files: each pair's folder, written whole or not at all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Events
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.handlers.figure import draw_pair
from monai_regplugins.io import save_itk_nifti
from monai_regplugins.transforms import WarpOriginald

__all__ = ["RegistrationWriter"]

logger = logging.getLogger(__name__)


class RegistrationWriter:
    """Write a folder per pair: warped image, warped label, displacement field and picture.

    ``<output_dir>/<pair_id>/`` holds ``warped.nii.gz`` and, with a moving label, ``warped_label.nii.gz``: one sampling
    of the original moving data on the fixed grid. ``displacement_itk.nii.gz`` is the total field from the fixed image
    to the original moving image, pre-alignment included, as ITK and ANTs read it (NIfTI intent 1007, LPS, mm).
    ``uncertainty.nii.gz``, where the inferer tells it, is the standard deviation of the displacement in voxels.
    ``registration.png`` shows the result. The folder appears when it is complete, and replaces that of an earlier run.

    Needs pairs prepared with ``MovingToFixedGridd(keep_original=True)``.

    Args:
        output_dir: where the folders go; it is made.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self._warp = WarpOriginald()

    def attach(self, engine: Any) -> None:
        """Write after each batch of ``engine``."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write the pairs of the batch that has just been registered.

        Raises:
            InputError: When the files cannot be written; an earlier result of the pair is unchanged then.
        """
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            pair = self._warp({**item, "ddf": output["pred"]["ddf"].cpu()})
            folder = self.output_dir / item["pair_id"]
            try:
                self.output_dir.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=self.output_dir) as workshop:
                    _write(Path(workshop) / "new", pair, item, output)
                    _replace(folder, Path(workshop))
            except OSError as error:
                raise InputError(
                    f"cannot write '{folder}' ({error.strerror or error}); free some space or give another output_dir."
                ) from error
            logger.info("Wrote %s", folder)


def _replace(folder: Path, workshop: Path) -> None:
    """Put ``new`` of the workshop in the place of ``folder``, or leave ``folder`` as it was."""
    new, old = workshop / "new", workshop / "old"
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise


def _write(folder: Path, pair: Mapping[Any, Any], item: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    """Write all files of one pair into a new folder."""
    folder.mkdir()
    _save(pair["warped"], folder / "warped.nii.gz")
    if "warped_label" in pair:
        _save(pair["warped_label"], folder / "warped_label.nii.gz")
    if (uncertainty := output["pred"].get("uncertainty")) is not None:
        _save(MetaTensor(uncertainty.cpu(), affine=pair["warped"].affine), folder / "uncertainty.nii.gz")
    displacement = pair["displacement"]
    if displacement.ndim == 4:  # ITK has no planar NIfTI fields
        save_itk_nifti(
            displacement.as_tensor().numpy(), displacement.affine.numpy(), folder / "displacement_itk.nii.gz"
        )
    draw_pair(item, output).savefig(folder / "registration.png")


def _save(image: MetaTensor, path: Path) -> None:
    """Save (1, *spatial) as NIfTI, its values and affine as they are."""
    values = np.asarray(image.as_tensor().numpy()[0])
    nib.save(nib.Nifti1Image(values, image.affine.numpy()), path)

"""Write the results of a registered series: aligned frames, transformations, respiratory curve, animation."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Events
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from monai_regplugins import fields
from monai_regplugins.checks import InputError
from monai_regplugins.figures.png import png_of
from monai_regplugins.io.provenance import Provenance, identity_of
from monai_regplugins.io.result_folder import ResultFolder, check_result, write_result
from monai_regplugins.networks.blocks.local_gaussian import LocalTransforms, to_json
from monai_regplugins.outputs.registration_writer import RegistrationWriter
from monai_regplugins.readers.cine import CineSeries, write_series
from monai_regplugins.result import RegistrationResult
from monai_regplugins.series.animation import write_animation
from monai_regplugins.series.frame_table import Row, curves_of, frame_table
from monai_regplugins.series.frames import series_pairs
from monai_regplugins.series.motion import curves_figure
from monai_regplugins.series.respiration import respiratory_curve

__all__ = ["SeriesWriter", "curve_figure"]

NAMES = (
    "aligned.nii.gz",
    "uncertainty.nii.gz",
    "network_uncertainty.nii.gz",
    "network_transformations.json",
    "transformations.json",
    "animation.gif",
    "respiration.csv",
    "respiration.png",
    "frames.csv",
    "frames.png",
    "fields.npy",
)
CLAIMED = "series"


class SeriesWriter:
    """Collect the frames of a series and write its results at the end.

    ``aligned.nii.gz``: every frame, its original intensities, on the fixed one, with the header of the series.
    ``transformations.json``: the local transformations of each frame, from which its field can be made again on any
    grid. ``respiration.csv`` and ``.png``: the mean displacement towards the feet. ``animation.gif``: before and after.
    ``frames.csv`` and ``.png``: measures and verdict of each frame, as those of a pair.
    ``uncertainty.nii.gz``, where the inferer gives it: standard deviation of each frame's displacement in mm.
    ``provenance.json``: weights, settings, versions and files.
    Where instance optimization changed the fields, the transformations are the network's and named
    ``network_transformations.json``.
    Needs pairs of :func:`~monai_regplugins.series.series_pairs` and ``SequenceInferer(transforms=True)``.

    Args:
        output_dir: where the files go; it is made.
        series: the series as it was read.
        fixed: number of the fixed frame.
        save_fields: whether to write ``fields.npy`` too: float32 (T, 2, H, W), pixels.
        provenance: describes weights and configuration.
        frames: writes the folder of a pair for each frame but the fixed one, with field, measures and picture; None
            for none.
    """

    def __init__(
        self,
        output_dir: str | Path,
        series: CineSeries,
        fixed: int,
        save_fields: bool = False,
        provenance: Provenance | None = None,
        frames: RegistrationWriter | None = None,
    ) -> None:
        self.output_dir, self.series, self.frames = Path(output_dir), series, frames
        self._source = {"series": identity_of(series.source)}
        self._about = {} if provenance is None else provenance.describe({"series": series.source})
        self.fixed, self.save_fields = fixed, save_fields
        self._ddf: dict[int, Tensor] = {}
        self._steps: dict[int, list[dict[str, list[float]]]] = {}
        self._uncertainty: dict[int, Tensor] = {}
        self._rows: dict[int, Row] = {}
        self._of_network = ""

    def attach(self, engine: Any) -> None:
        """Follow ``engine``, and write when it has seen all frames.

        Raises:
            InputError: When a file of these names is there that is no result of the same series, or is the series.
        """
        if self.frames is not None:
            self.frames.check(item for item in series_pairs(self.series, self.fixed))
        for name in NAMES:
            if (self.output_dir / name).resolve() == Path(self.series.source).resolve():
                raise InputError(f"'{self.series.source}' would be replaced by a result; give another output_dir.")
            check_result(self.output_dir / name, self._source)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._gather)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _gather(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            frame, pred = int(item["frame"]), output["pred"]
            self._ddf[frame] = pred["ddf"].float().cpu()
            found = LocalTransforms(*(pred[name][None].float().cpu() for name in LocalTransforms._fields))
            self._steps[frame] = to_json(found)
            self._of_network = "network_" if "refinement" in pred else ""
            if "uncertainty" in pred:
                self._uncertainty[frame] = self._length_in_mm(pred["uncertainty"].float().cpu())
            if frame != self.fixed:
                result = RegistrationResult(item, output, one_patient=True)
                self._rows[frame] = {**result.verdict.as_json(), **result.metrics}
                if self.frames is not None:
                    self._write_frame(self.frames, result)

    def _write_frame(self, writer: RegistrationWriter, result: RegistrationResult) -> None:
        """Write the folder of a frame."""
        images = {"fixed": result.fixed, "moving": result.moving}
        record = writer.provenance.describe({**images, "pair_id": result.pair_id, **self._source})
        with writer.folder({"pair_id": result.pair_id}).claimed(wait=True):
            writer.write(result, record)

    def _length_in_mm(self, deviation: Tensor) -> Tensor:
        """Standard deviation of a displacement, (H, W) mm, of those of its components, (2, H, W) pixels."""
        spacing = deviation.new_tensor(self.series.spacing)
        length: Tensor = torch.linalg.vector_norm(deviation * spacing[:, None, None], dim=0)
        return length

    def _write(self, engine: Any) -> None:
        """Write all files; of two processes one after the other, so that they are those of one.

        Raises:
            InputError: When the system refuses, e.g. a full disk.
        """
        with ResultFolder(self.output_dir, CLAIMED).claimed(wait=True):
            self._write_all()

    def _write_all(self) -> None:
        """Write all files into the folder, which is claimed."""
        ddf = torch.stack([self._ddf[frame] for frame in range(len(self.series.frames))])
        frames = torch.from_numpy(self.series.frames)[:, None]
        aligned = self.series.with_frames(fields.warp(frames, ddf, "linear", "border")[:, 0].numpy())
        curve = respiratory_curve(ddf, self.series)
        self._put("aligned.nii.gz", partial(write_series, aligned))
        if self._uncertainty:
            maps = torch.stack([self._uncertainty[frame] for frame in range(len(ddf))]).numpy()
            self._put("uncertainty.nii.gz", partial(write_series, self.series.with_frames(maps)))
        steps = [self._steps[frame] for frame in range(len(ddf))]
        content = {"fixed_frame": self.fixed, "frames": steps}
        self._put(f"{self._of_network}transformations.json", json.dumps(content).encode())
        self._put("animation.gif", partial(write_animation, self.series, aligned, self.fixed))
        lines = [f"{t},{s},{value:.4f}\n" for t, (s, value) in enumerate(zip(self._times(), curve, strict=True))]
        self._put("respiration.csv", "".join(["frame,seconds,mm\n", *lines]).encode())
        self._put("respiration.png", png_of(curve_figure(curve, self.series.times)))
        names = [str(t) for t in range(len(ddf))]
        rows = [self._rows.get(frame, {}) for frame in range(len(ddf))]
        self._put("frames.csv", frame_table(names, self.fixed, rows, "frame").encode())
        self._put("frames.png", png_of(curves_figure(names, curves_of(rows), "frame")))
        if self.save_fields:
            stream = io.BytesIO()
            np.save(stream, ddf.numpy())
            self._put("fields.npy", stream.getvalue())

    def _put(self, name: str, content: bytes | Callable[[Path], object]) -> None:
        """Write one of the files."""
        write_result(self.output_dir / name, content, self._source, self._about)

    def _times(self) -> list[str]:
        """Times as text, empty where the series has none."""
        times = self.series.times
        return [""] * len(self.series.frames) if times is None else [f"{time:.4f}" for time in times]


def curve_figure(curve: npt.NDArray[Any], times: npt.NDArray[Any] | None) -> Figure:
    """Draw the respiratory curve over time, or over frames if there are no times."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(np.arange(len(curve)) if times is None else times, curve, marker=".", color="tab:blue")
    axes.set(xlabel="frame" if times is None else "time [s]", ylabel="mean displacement to the feet [mm]")
    axes.grid(alpha=0.3)
    return figure

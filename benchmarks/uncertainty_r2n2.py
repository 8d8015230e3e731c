"""Whether R2N2's uncertainty predicts where it is wrong: rank correlation with the landmark error, and sparsification.

Data, network, weights and preprocessing come from a bundle configuration, by default R2N2's evaluation on its phantom.
The uncertainties are those of ``SequenceInferer``, sampled at the landmarks of the fixed image. Beside them stand the
length of the displacement, which costs nothing, and no information at all.

AUSE is the area between two sparsification curves: the mean error of the landmarks that are left when the most
uncertain ones are taken away, and when those of the largest error are; in units of the mean error of all (Ilg et al.
2018, "Uncertainty estimates and multi-hypotheses networks for optical flow", ECCV, section 5). 0 is perfect.

    python benchmarks/uncertainty_r2n2.py --output uncertainty.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from compare_bspline import DEFAULT_CONFIG, Series, load_network, read_series
from monai.bundle import ConfigParser
from scipy.stats import spearmanr

import monai_regplugins
from monai_regplugins.benchmark.reporting import (
    check_output,
    clock,
    command_line,
    given,
    hardware,
    number,
    publish,
    read_config,
    table_with_facts,
)
from monai_regplugins.fields import sample_at
from monai_regplugins.inferers import SequenceInferer
from monai_regplugins.metrics import landmark_errors

Values = npt.NDArray[np.float64]
DISPLACEMENT, NOTHING = "length of the displacement", "no information"


@dataclass
class Score:
    """One uncertainty, mm, and the error, mm, at the landmarks of each pair."""

    uncertainty: list[list[float]] = field(default_factory=list)
    error: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def remaining_error(error: Values, rank_by: Values) -> Values:
    """Mean error of those left when 0, 1, ... of the largest ``rank_by`` are taken away, over that of all, ``(N,)``."""
    ascending = error[np.argsort(rank_by, kind="stable")]
    curve: Values = (np.cumsum(ascending) / np.arange(1, len(error) + 1))[::-1] / error.mean()
    return curve


def ause(error: Values, uncertainty: Values | None) -> float:
    """Area between the curves of an uncertainty and of the error itself; None is the expectation of a random order."""
    curve = np.ones(len(error)) if uncertainty is None else remaining_error(error, uncertainty)
    return float((curve - remaining_error(error, error)).mean())


def measure(network: Any, series: Sequence[Series], inferer: SequenceInferer) -> tuple[Score, Score]:
    """Register all series; return the scores of the inferer's uncertainty and of the displacement's length."""
    score, length = Score(), Score()
    device = torch.device("cpu")
    for image, targets in series:
        start = clock(device)
        with torch.no_grad():
            pred = inferer(image, network)
        score.seconds += [(clock(device) - start) / len(image)] * len(image)
        for target, ddf, deviation in zip(targets, pred["ddf"], pred["uncertainty"], strict=True):
            fixed, moving, spacing = (target[key][0] for key in ("fixed_landmarks", "moving_landmarks", "spacing"))
            points, pixel = fixed[None].float(), float(spacing.log().mean().exp())
            score.uncertainty.append((pixel * sample_at(deviation[None], points)[0, :, 0]).tolist())
            length.uncertainty.append((sample_at(ddf[None], points)[0] * spacing).norm(dim=1).tolist())
            for one in (score, length):
                one.error.append(landmark_errors(fixed, moving, spacing, ddf).tolist())
    return score, length


def summary(score: Score) -> dict[str, float]:
    """Return what the table shows of an uncertainty."""
    error, uncertainty = (np.concatenate(values) for values in (score.error, score.uncertainty))
    pairs = zip(score.uncertainty, score.error, strict=True)
    return {
        "mean": float(uncertainty.mean()),
        "factor": float(np.sqrt(np.square(error).mean() / np.square(uncertainty).mean())),
        "spearman": float(spearmanr(uncertainty, error).statistic),
        "spearman_within_pairs": float(np.mean([spearmanr(*pair).statistic for pair in pairs])),
        "ause": ause(error, uncertainty),
        "seconds": float(np.mean(score.seconds)) if score.seconds else float("nan"),
    }


def to_markdown(scores: Mapping[str, Score], about: Mapping[str, object]) -> str:
    """Return the table and, below it, what is needed to repeat it."""
    header = ["uncertainty", "mean (mm)", "RMS error / RMS", "Spearman", "within pairs", "AUSE", "s per pair"]
    rows = []
    for name, score in scores.items():
        row = summary(score)
        digits = {"mean": 3, "factor": 2, "spearman": 3, "spearman_within_pairs": 3, "ause": 3, "seconds": 3}
        rows.append([name, *(number(row[key], count) for key, count in digits.items())])
    error = np.concatenate(next(iter(scores.values())).error)
    rows.append([NOTHING, "-", "-", "0.000", "0.000", number(ause(error, None), 3), "-"])
    facts = {"mean_error": f"{error.mean():.3f} mm of {len(error)} landmarks", **about}
    return table_with_facts(header, rows, facts)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; what is not given stays as the configuration has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset_dir", help="folder of a data set in Learn2Reg's format, with landmarks")
    add("--ckpt", help="weights (default: the bundle's)")
    add("--spatial_size", type=int, nargs="+", help="grid of the network")
    add("--series", type=int, default=0, help="how many series to register (default: all)")
    add("--samples", type=int, default=10, help="registrations for the uncertainty of the weights (default: 10)")
    add("--noise_std", type=float, nargs="+", default=[2**0.5], help="of the weights (default: the paper's)")
    add("--output", type=Path, help="file to write, .md for the table or .json for all values")
    args = parser.parse_args(argv)
    if args.series < 0:
        parser.error("--series must be at least 0")
    return args


def main(argv: Sequence[str] | None = None) -> str:
    """Measure, print the table and return it."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_arguments(argv)
    check_output(args.output)
    torch.set_num_threads(1)  # seconds compare best with one
    overrides = given(args, ("dataset_dir", "ckpt", "spatial_size"))
    config = ConfigParser(read_config(DEFAULT_CONFIG, {"device": "cpu", **overrides}))
    series, network = read_series(config, args.series), load_network(config)
    options = {"spatial_size": config.get_parsed_content("spatial_size"), "samples": args.samples}

    scores: dict[str, Score] = {}
    scores["localization"], length = measure(network, series, SequenceInferer(uncertainty="localization", **options))
    for noise in args.noise_std:
        network.noise_std = noise
        scores[f"weights, noise {noise:g}"], _ = measure(
            network, series, SequenceInferer(uncertainty="weights", **options)
        )
    scores[DISPLACEMENT] = length
    about = {"hardware": hardware(torch.device("cpu")), "command": command_line(__file__, argv)}
    markdown = to_markdown(scores, about)
    results = {name: {**asdict(score), "summary": summary(score)} for name, score in scores.items()}
    return publish(args.output, markdown, about, scores=results)


if __name__ == "__main__":
    monai_regplugins.start()  # input errors in one line
    main()

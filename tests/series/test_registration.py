"""Phases of a series: where each begins, and what becomes of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_regplugins.checks import InputError
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.series.phases import PhaseChain, PhaseSeries
from monai_regplugins.series.registration import (
    FIELDS,
    BeginAtFieldd,
    SeriesRegistration,
    cycle_weights,
    remove_fields,
)
from monai_regplugins.transforms.warp_original import total_displacement

COUNT = 8


class Result:
    """Stands for a result; its displacement is told by the phase, or the one that it began at."""

    def __init__(self, displacement: torch.Tensor, shift: float = 0.0) -> None:
        self.displacement, self.seconds = displacement, 1.0
        self.item = {"initial_alignment_matrix": torch.eye(3, dtype=torch.float64)}
        self.item["initial_alignment_matrix"][0, 2] = shift


class Register:
    """Finds for phase t the field of ``values[t]``; without steps what it is given."""

    def __init__(self, bad: tuple[str, ...] = (), shifts: Mapping[str, float] | None = None) -> None:
        self.calls: list[tuple[str, float | None, Any]] = []
        self.prepared, self.bad, self.shifts = 0, bad, shifts or {}

    def prepare(self) -> None:
        self.prepared += 1

    def __call__(self, pair: Mapping[str, Any]) -> Result:
        start = pair.get("start")
        self.calls.append(
            (pair["pair_id"], None if start is None else float(start.flatten()[0]), pair.get("start_steps"))
        )
        if pair["pair_id"] in self.bad:
            raise RuntimeError(pair["pair_id"])
        found = start if start is not None and pair.get("start_steps") == 0 else values()[int(pair["pair_id"])]
        return Result(found, self.shifts.get(pair["pair_id"], 0.0))


def values() -> torch.Tensor:
    """A field of each phase, of motion that has one harmonic, and errors that have all."""
    phase = 2 * torch.pi * torch.arange(COUNT) / COUNT
    noise = 0.1 * torch.randn(COUNT, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    noise[0] = 0
    return (1 - torch.cos(phase)).reshape(-1, 1, 1, 1) + noise


Make = Callable[..., tuple[Any, Register]]


def series(cyclic: bool = True) -> PhaseSeries:
    pairs = [{"pair_id": str(t)} for t in range(1, COUNT)]
    chain = PhaseChain(tuple(pairs), cyclic)
    return PhaseSeries(tuple(map(str, range(COUNT))), 0, (chain,), {str(t): t for t in range(COUNT)})


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A series in one folder, and what registers its phases."""

    def made(
        bad: tuple[str, ...] = (), shifts: Mapping[str, float] | None = None, cyclic: bool = True, **options: Any
    ) -> tuple[Any, Register]:
        register: Any = Register(bad, shifts)
        return SeriesRegistration(register, series(cyclic), tmp_path, **options), register

    return made


def low_harmonics(values: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """What a Fourier transform leaves of them, less the value of the reference."""
    found = np.fft.rfft(values, axis=0)
    found[count + 1 :] = 0
    low = np.fft.irfft(found, n=len(values), axis=0)
    return low - low[:1]


def test_each_phase_begins_at_the_one_before(make: Make) -> None:
    registration, register = make(steps=7, harmonics=0)
    registration.prepare()
    results = [registration({"pair_id": str(t)}) for t in (3, 1)]
    assert register.prepared == 1
    first = [float(field.flatten()[0]) for field in values()]
    passed = [("1", None, None), *((str(t), pytest.approx(first[t - 1]), 7) for t in range(2, COUNT))]
    assert register.calls == [*passed, ("3", pytest.approx(first[3]), 0), ("1", pytest.approx(first[1]), 0)]
    for result, t in zip(results, (3, 1), strict=True):
        torch.testing.assert_close(result.displacement, values()[t])
        assert result.seconds > 1.0


@pytest.mark.parametrize("harmonics", [1, 2, 3])
def test_fields_of_a_cycle_are_those_of_its_low_harmonics(harmonics: int, make: Make) -> None:
    registration, _ = make(harmonics=harmonics)
    found = np.stack([registration({"pair_id": str(t)}).displacement.numpy() for t in range(1, COUNT)])
    np.testing.assert_allclose(found, low_harmonics(values().numpy(), harmonics)[1:], atol=1e-5)


@pytest.mark.parametrize("options", [{"cyclic": False}, {"harmonics": 0}, {"harmonics": 4}])
def test_what_is_no_cycle_or_too_short_is_not_averaged(options: dict[str, Any], make: Make) -> None:
    registration, _ = make(**options)
    torch.testing.assert_close(registration({"pair_id": "3"}).displacement, values()[3])


def test_a_phase_fails_alone(make: Make) -> None:
    registration, register = make(bad=("3",))
    with pytest.raises(RuntimeError, match="3"):
        registration({"pair_id": "3"})
    torch.testing.assert_close(registration({"pair_id": "4"}).displacement, values()[4])
    assert register.calls[3] == ("4", pytest.approx(float(values()[2].flatten()[0])), 6)


def test_an_interrupted_series_goes_on_where_it_was(make: Make, tmp_path: Path) -> None:
    whole, _ = make()
    expected = whole({"pair_id": "3"}).displacement
    remove_fields(tmp_path)
    assert not (tmp_path / FIELDS).exists()

    interrupted, register = make(bad=("5",))
    interrupted.register = lambda pair: register(pair) if pair["pair_id"] not in register.bad else _interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupted({"pair_id": "3"})
    again, register = make()
    torch.testing.assert_close(again({"pair_id": "3"}).displacement, expected)
    first = float(values()[4].flatten()[0])
    assert [call[0] for call in register.calls] == ["5", "6", "7", "3"]
    assert register.calls[0] == ("5", pytest.approx(first), 6)


def _interrupt() -> Result:
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", ["weights", "image"])
def test_fields_of_other_images_or_settings_are_not_taken(changed: str, make: Make, tmp_path: Path) -> None:
    make()[0]({"pair_id": "3"})
    registration, register = make(provenance=Provenance({"refine_steps": 3} if changed == "weights" else None))
    if changed == "image":
        registration.series.chains[0].pairs[2]["fixed"] = "another.nii"  # of phase 3
    registration({"pair_id": "3"})
    found = [name for name, *_ in register.calls[:-1]]
    assert found == [str(t) for t in range(1 if changed == "weights" else 3, COUNT)]


def test_phases_with_alignments_of_their_own_are_not_averaged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    torch.testing.assert_close(make(shifts={"5": 3.0})[0]({"pair_id": "3"}).displacement, values()[3])
    assert "the initial alignment differs between phases" in caplog.text


def test_files_of_someone_else_stay_in_the_folder_of_fields(make: Make, tmp_path: Path) -> None:
    make()[0]({"pair_id": "3"})
    (tmp_path / FIELDS / "mine.npz").write_bytes(b"mine")
    remove_fields(tmp_path)
    assert [file.name for file in (tmp_path / FIELDS).iterdir()] == ["mine.npz"]


@pytest.mark.parametrize(
    "affine", [torch.eye(4), torch.tensor([[0, -2.0, 0, 5], [3, 0, 0, -4], [0, 0, 1.5, 7], [0, 0, 0, 1]])]
)
def test_a_pair_begins_at_the_displacement_without_its_own_alignment(affine: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    ddf = torch.randn(3, 4, 5, 6, generator=generator)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += 0.1 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    fixed = MetaTensor(torch.zeros(1, 4, 5, 6), affine=affine)
    pair = {"fixed": fixed, "initial_alignment_matrix": matrix, "start": total_displacement(ddf, affine, matrix)}
    torch.testing.assert_close(BeginAtFieldd()(pair)["start"], ddf, atol=1e-5, rtol=1e-5)
    del pair["start"]
    assert BeginAtFieldd()(pair) == pair


def test_the_weights_keep_what_has_few_harmonics_and_the_reference_at_rest() -> None:
    weights = cycle_weights(10, 3)
    phase = 2 * np.pi * np.arange(10) / 10
    motion = np.sin(3 * phase) + 0.5 * np.sin(2 * phase) + np.sin(phase)
    np.testing.assert_allclose(weights @ motion, motion, atol=1e-12)
    assert not weights[0].any()
    assert np.abs(weights @ np.cos(4 * phase)).max() < 1e-12


@pytest.mark.parametrize("options", [{"steps": 0}, {"harmonics": -1}])
def test_bad_numbers(options: dict[str, int], make: Make) -> None:
    with pytest.raises(InputError, match="expected steps from 1 on"):
        make(**options)

"""Phases of a series: where each begins, and what becomes of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_regplugins.checks import InputError
from monai_regplugins.series.phases import PhaseChain, PhaseSeries
from monai_regplugins.series.registration import SeriesRegistration, average_cycle, cycle_weights

COUNT = 8


class Result:
    """Stands for a result; its field is told by the phase, or the one that it began at."""

    def __init__(self, ddf: torch.Tensor) -> None:
        self.ddf, self.seconds = ddf, 1.0


class Register:
    """Finds for phase t the field of ``values[t]``; without steps what it is given."""

    def __init__(self, bad: tuple[str, ...] = ()) -> None:
        self.calls: list[tuple[str, float | None, Any]] = []
        self.prepared, self.bad = 0, bad

    def prepare(self) -> None:
        self.prepared += 1

    def __call__(self, pair: Mapping[str, Any]) -> Result:
        start = pair.get("start")
        self.calls.append(
            (pair["pair_id"], None if start is None else float(start.flatten()[0]), pair.get("start_steps"))
        )
        if pair["pair_id"] in self.bad:
            raise RuntimeError(pair["pair_id"])
        return Result(start if pair.get("start_steps") == 0 else values()[int(pair["pair_id"])])


def values() -> torch.Tensor:
    """A field of each phase, of motion that has one harmonic, and errors that have all."""
    phase = 2 * torch.pi * torch.arange(COUNT) / COUNT
    noise = 0.1 * torch.randn(COUNT, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    noise[0] = 0
    return (1 - torch.cos(phase)).reshape(-1, 1, 1, 1) + noise


def series(cyclic: bool = True) -> PhaseSeries:
    pairs = [{"pair_id": str(t)} for t in range(1, COUNT)]
    chain = PhaseChain(tuple(pairs), cyclic)
    return PhaseSeries(tuple(map(str, range(COUNT))), 0, (chain,), {str(t): t for t in range(COUNT)})


def make(bad: tuple[str, ...] = (), cyclic: bool = True, **options: Any) -> tuple[Any, Register]:
    register: Any = Register(bad)
    return SeriesRegistration(register, series(cyclic), **options), register


def low_harmonics(values: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """What a Fourier transform leaves of them, less the value of the reference."""
    found = np.fft.rfft(values, axis=0)
    found[count + 1 :] = 0
    low = np.fft.irfft(found, n=len(values), axis=0)
    return low - low[:1]


def test_each_phase_begins_at_the_one_before() -> None:
    registration, register = make(steps=7, harmonics=0)
    registration.prepare()
    results = [registration({"pair_id": str(t)}) for t in (3, 1)]
    assert register.prepared == 1
    first = [float(field.flatten()[0]) for field in values()]
    passed = [("1", None, None), *((str(t), pytest.approx(first[t - 1]), 7) for t in range(2, COUNT))]
    assert register.calls == [*passed, ("3", pytest.approx(first[3]), 0), ("1", pytest.approx(first[1]), 0)]
    for result, t in zip(results, (3, 1), strict=True):
        torch.testing.assert_close(result.ddf, values()[t])
        assert result.seconds > 1.0


@pytest.mark.parametrize("harmonics", [1, 2, 3])
def test_fields_of_a_cycle_are_those_of_its_low_harmonics(harmonics: int) -> None:
    registration, _ = make(harmonics=harmonics)
    found = np.stack([registration({"pair_id": str(t)}).ddf.numpy() for t in range(1, COUNT)])
    np.testing.assert_allclose(found, low_harmonics(values().numpy(), harmonics)[1:], atol=1e-5)


@pytest.mark.parametrize("options", [{"cyclic": False}, {"harmonics": 0}, {"harmonics": 4}])
def test_what_is_no_cycle_or_too_short_is_not_averaged(options: dict[str, Any]) -> None:
    registration, _ = make(**options)
    torch.testing.assert_close(registration({"pair_id": "3"}).ddf, values()[3])


def test_a_phase_fails_alone() -> None:
    registration, register = make(bad=("3",))
    with pytest.raises(RuntimeError, match="3"):
        registration({"pair_id": "3"})
    torch.testing.assert_close(registration({"pair_id": "4"}).ddf, values()[4])
    assert register.calls[3] == ("4", pytest.approx(float(values()[2].flatten()[0])), 15)


def test_averaging_in_slabs_is_that_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for slab in (2**22, 30):
        monkeypatch.setattr("monai_regplugins.series.registration.SLAB", slab)
        files = [tmp_path / f"{t}.npy" for t in range(1, COUNT)]
        for file, field in zip(files, values()[1:], strict=True):
            np.save(file, field.numpy())
        average_cycle(files, 2)
        found.append(np.stack([np.load(file) for file in files]))
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    assert found[0].dtype == np.float32


def test_the_weights_keep_what_has_few_harmonics_and_the_reference_at_rest() -> None:
    weights = cycle_weights(10, 3)
    phase = 2 * np.pi * np.arange(10) / 10
    motion = np.sin(3 * phase) + 0.5 * np.sin(2 * phase) + np.sin(phase)
    np.testing.assert_allclose(weights @ motion, motion, atol=1e-12)
    assert not weights[0].any()
    assert np.abs(weights @ np.cos(4 * phase)).max() < 1e-12


@pytest.mark.parametrize("options", [{"steps": 0}, {"harmonics": -1}])
def test_bad_numbers(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected steps from 1 on"):
        make(**options)

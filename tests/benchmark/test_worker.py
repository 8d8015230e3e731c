"""The worker: what it leaves for each pair, and that one that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_regplugins.benchmark import worker
from monai_regplugins.benchmark.baselines import BASELINES
from monai_regplugins.checks import InputError

SHAPE = (9, 8, 7)

Job = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Give the threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run a registration function, or a loader of one, on two pairs and return the outcomes."""
    for number in range(2):
        images = {"fixed": torch.rand(1, *SHAPE), "moving": torch.rand(1, *SHAPE), "spacing": torch.ones(3)}
        masks = {"fixed_mask": torch.ones(1, *SHAPE)} if number else {}
        torch.save({**images, **masks, "number": torch.tensor(number)}, tmp_path / f"pair_{number}.pt")

    def run(register: Any = None, kind: str = "given", loader: Any = None, seed: int = 0) -> list[dict[str, Any]]:
        monkeypatch.setitem(worker.LOADERS, "given", loader or (lambda: register))
        pairs = [str(tmp_path / f"pair_{number}.pt") for number in range(2)]
        order = {"kind": kind, "options": {}, "pairs": pairs, "folder": str(tmp_path), "seed": seed, "threads": 1}
        worker.work(order)
        return [torch.load(worker.outcome_file(tmp_path, n), weights_only=True) for n in range(2)]

    return run


def zero(**known: Any) -> Tensor:
    """A method that moves nothing."""
    return torch.zeros(3, *SHAPE)


def test_all_peers_can_be_loaded() -> None:
    assert set(worker.LOADERS) == {*BASELINES, "voxelmorph", "bundle"}


def test_outcome(job: Job) -> None:
    for outcome in job(kind="identity"):
        assert torch.equal(outcome["ddf"], torch.zeros(3, *SHAPE))
        assert 0 <= outcome["seconds"] < 1
        assert outcome["peak_mib"] > 50
        assert set(outcome) == {"ddf", "seconds", "cpu_seconds", "peak_mib"}


def test_what_a_method_gets(job: Job) -> None:
    seen: list[dict[str, Any]] = []

    def register(**known: Any) -> Tensor:
        seen.append(known)
        return zero()

    job(register, seed=5)
    assert [known["mask"] is None for known in seen] == [True, False]
    for known in seen:
        assert set(known) == {"fixed", "moving", "spacing", "mask", "seed", "threads"}, "nothing to cheat with"
        assert (known["seed"], known["threads"], torch.get_num_threads()) == (5, 1, 1)


def test_times(job: Job) -> None:
    """Sleeping takes wall time, not CPU time; loading counts in neither."""

    def register(**known: Any) -> Tensor:
        time.sleep(0.1)
        return zero()

    def loader() -> Any:
        time.sleep(0.3)
        return register

    for outcome in job(loader=loader):
        assert 0.1 <= outcome["seconds"] < 0.3
        assert outcome["cpu_seconds"] < 0.09


def test_a_pair_that_fails_does_not_stop_the_next(job: Job) -> None:
    def register(mask: Tensor | None, **known: Any) -> Tensor:
        if mask is None:
            raise RuntimeError("the optimizer\n  diverged")
        return zero()

    first, second = job(register)
    assert first == {"error": "RuntimeError: the optimizer diverged"}
    assert "ddf" in second


def test_a_method_that_does_not_load(job: Job) -> None:
    def loader() -> Any:
        raise InputError("it needs a package.")

    assert job(loader=loader) == [{"error": "it needs a package."}] * 2


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (torch.zeros(3, 9, 8, 6), "the field has size 3 x 9 x 8 x 6"),
        (torch.full((3, *SHAPE), torch.nan), "the field holds NaN"),
    ],
)
def test_bad_fields(job: Job, field: Tensor, message: str) -> None:
    assert all(outcome["error"].startswith(message) for outcome in job(lambda **known: field))

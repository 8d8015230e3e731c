"""Free memory, as the system and its limits report it, and work that does not fit in it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from monai_regplugins import memory
from monai_regplugins.checks import InputError
from monai_regplugins.memory import BUDGET, check_memory, free_memory

GIB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 10 GiB available and no limits, as files."""
    monkeypatch.delenv(BUDGET, raising=False)
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    write(tmp_path / "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:   {10 * 2**20} kB\nSwapFree: 0 kB\n")
    write(
        tmp_path / "proc/self/limits",
        "Limit  Soft  Hard\nMax address space         unlimited  unlimited  bytes\n",
    )
    write(tmp_path / "proc/self/status", f"Name: python\nVmSize:\t {2 * 2**20} kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_what_is_available(system: Path) -> None:
    assert free_memory() == 10 * GIB


@pytest.mark.parametrize("path", ["/", "/job/step"])
def test_a_limit_of_a_control_group(system: Path, path: str) -> None:
    """A limit holds for all groups within; what the group has cached makes room."""
    write(system / "proc/self/cgroup", f"0::{path}\n")
    for group in ("", "job", "job/step"):
        write(system / "cgroup" / group / "memory.max", "max\n")
    limited = system / "cgroup" / path.split("/")[1]
    write(limited / "memory.max", f"{4 * GIB}\n")
    write(limited / "memory.current", f"{3 * GIB}\n")
    assert free_memory() == GIB
    write(limited / "memory.stat", f"anon 5\ninactive_file {GIB // 2}\nactive_file 7\n")
    assert free_memory() == GIB + GIB // 2
    write(limited / "memory.current", f"{5 * GIB}\n")
    write(limited / "memory.stat", "anon 5\n")
    assert free_memory() == 0


def test_a_limit_of_the_first_kind_of_control_groups(system: Path) -> None:
    write(system / "proc/self/cgroup", "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    write(system / "cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")  # as a container sees it
    write(system / "cgroup/memory/memory.usage_in_bytes", f"{GIB}\n")
    write(system / "cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n")
    assert free_memory() == GIB + GIB // 4


def test_a_limit_of_address_space(system: Path) -> None:
    write(system / "proc/self/limits", f"Max address space         {3 * GIB}  unlimited  bytes\n")
    assert free_memory() == GIB


def test_this_very_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own files: a limit of this process, a GiB above what it has taken, is seen."""
    resource = pytest.importorskip("resource")
    monkeypatch.delenv(BUDGET, raising=False)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + GIB, before[1]))
    try:
        free = free_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free is not None
    assert 0 < free <= 1.1 * GIB


def test_systems_without_such_files(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PROC", system / "none")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert free_memory() == 4_096_000
    monkeypatch.delattr(memory.os, "sysconf")
    assert free_memory() is None
    check_memory((10**6,) * 3, 400, "fixed image", "register")


@pytest.mark.parametrize(
    ("text", "amount"),
    [("64G", 64 * GIB), ("0.5 GB", GIB // 2), ("500MiB", 500 * 2**20), ("1234", 1234), ("2t", 2**41), ("8 k", 8192)],
)
def test_a_budget(system: Path, text: str, amount: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGET, text)
    assert free_memory() == amount


@pytest.mark.parametrize("text", ["much", "-1", "8 X", "1,5G", "inf"])
def test_no_budget(system: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGET, text)
    with pytest.raises(InputError, match="expected an amount of memory such as 64G"):
        free_memory()


def test_a_trifle_asks_no_system(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(system / "proc/meminfo", "MemAvailable: 0 kB\n")
    check_memory((2**14, 2**14), 1, "image", "read")
    with pytest.raises(InputError, match="and 0 GiB are free"):
        check_memory((2**14, 2**14 + 1), 1, "image", "read")
    monkeypatch.setenv(BUDGET, "1M")
    with pytest.raises(InputError, match=r"and 0\.000977 GiB are free"):
        check_memory((2**14, 2**14), 1, "image", "read")


def test_work_that_fits_and_work_that_does_not(system: Path) -> None:
    check_memory((1024, 1024, 1024), 10, "fixed image 'a.nii'", "read")
    with pytest.raises(InputError) as caught:
        check_memory((1024, 1024, 1025), 10, "fixed image 'a.nii'", "read")
    assert str(caught.value) == (
        "fixed image 'a.nii' has 1024 x 1024 x 1025 voxels, which take about 10 GiB of memory to read, and 10 GiB are "
        "free; crop it or resample it to larger voxels, or give the program more memory (MONAI_REGPLUGINS_MEMORY=64G, "
        "say, sets another budget)."
    )


def test_peak_is_what_the_system_counts() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").is_file() else 0
    peak = memory.peak_of_this_process()
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
    assert pages * resource.getpagesize() / 2**20 <= peak <= 1.01 * largest

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from monai_regplugins.checks import InputError
from monai_regplugins.data.pair_list import read_pair_list
from monai_regplugins.engines import BatchRunner
from monai_regplugins.files.claims import claim, release
from monai_regplugins.io import result_folder
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.outputs import RegistrationReport, RegistrationWriter
from monai_regplugins.result import RegistrationResult

IMAGE = MetaTensor(torch.zeros(1, 2, 2))


class Register:
    """Stands for a registration: its result is the value of a pair, which an exception raises."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1

    def __call__(self, pair: Mapping[str, Any]) -> RegistrationResult:
        self.calls.append(pair["pair_id"])
        value = Path(pair["moving"]).read_text()
        if value == "bad":
            raise RuntimeError("applying transform") from InputError("moving image is empty; copy it again.")
        if value == "fault":
            raise RuntimeError("applying transform") from ZeroDivisionError("a fault\nof the program")
        if value == "memory":
            raise MemoryError
        item = {"pair_id": pair["pair_id"], "value": value, "fixed": IMAGE, "moving_original": IMAGE}
        item["initial_alignment_matrix"] = torch.eye(3)
        return RegistrationResult(item, {"pred": {}, "label": {}}, pair, seconds=1.0)


class Writer(RegistrationWriter):
    """Writes the value of a result alone."""

    def _write(self, folder: Path, result: RegistrationResult) -> None:
        (folder / "value.txt").write_text(result.item["value"])


def make(folder: Path, values: Mapping[str, str], settings: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A runner on pairs whose moving images hold ``values``."""
    pairs = []
    for name, value in values.items():
        files = {side: folder / f"{name}_{side}" / "image.nii" for side in ("fixed", "moving")}
        for side, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            content = value if side == "moving" else "fixed"
            if not path.exists() or path.read_text() != content:
                path.write_text(content)
        pairs.append({**{side: str(path) for side, path in files.items()}, "pair_id": name})
    register: Any = Register()
    runner = BatchRunner(register, pairs, Writer(folder / "out", provenance=Provenance(settings)), **options)
    return runner, register


def values_in(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted((folder / "out").glob("*/value.txt"))}


class Report(RegistrationReport):
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.failed: dict[str, str] = {}

    def check(self) -> None:
        pass

    def __call__(self, pair_ids: Any, failed: Mapping[str, str] | None = None) -> None:
        self.ids += pair_ids
        self.failed |= failed or {}


def test_all_pairs_are_registered_and_reported(tmp_path: Path) -> None:
    report = Report()
    runner, register = make(tmp_path, {"a": "1", "b": "2"}, report=report)
    runner.run()
    assert values_in(tmp_path) == {"a": "1", "b": "2"}
    assert report.ids == ["a", "b"]
    assert register.prepared == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


class Terminal(io.StringIO):
    """What log and progress bar are written to."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What is seen: after a carriage return a line is written over."""
        seen = []
        for line in self.getvalue().split("\n"):
            written: list[str] = []
            for part in line.split("\r"):
                written[: len(part)] = part
            seen.append("".join(written).rstrip())
        return seen


@pytest.mark.parametrize("terminal", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_log_lines_do_not_tear_the_progress_bar(terminal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])  # a handler of an earlier test would take the lines
    runner, _ = make(tmp_path, {"a": "bad", "b": "2", "c": "3"})
    with pytest.raises(InputError):
        runner.run()
    assert logging.getLogger().handlers == [handler]
    message = "a: moving image is empty; copy it again."
    if terminal.isatty():
        assert message in terminal.lines
        assert any(line.startswith("100%") and "3/3" in line for line in terminal.lines)
    else:
        assert message in terminal.getvalue().splitlines()
        assert "pair/s" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bad", "b: moving image is empty; copy it again."),
        ("fault", "b: an unexpected error, ZeroDivisionError: a fault of the program; run it again with verbose set"),
        ("memory", "b: the memory is exhausted"),
    ],
)
def test_the_failure_of_a_pair_is_that_of_this_pair(
    value: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = Report()
    runner, _ = make(tmp_path, {"a": "1", "b": value, "c": "3"}, report=report)
    with caplog.at_level(logging.ERROR), pytest.raises(InputError, match=r"^1 of 3 pairs failed \(b\)"):
        runner.run()
    assert values_in(tmp_path) == {"a": "1", "c": "3"}
    assert report.ids == ["a", "c"]
    assert [f"{name}: {reason}" for name, reason in report.failed.items()] == [caplog.records[0].getMessage()]
    (record,) = caplog.records
    assert record.getMessage().startswith(message)
    assert "\n" not in record.getMessage()
    assert record.exc_info is None


def test_the_traceback_comes_when_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runner, _ = make(tmp_path, {"a": "fault", "b": "2"}, verbose=True)
    with caplog.at_level(logging.ERROR), pytest.raises(InputError, match="1 of 2"):
        runner.run()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"), [("bad", "^moving image is empty"), ("fault", "^an unexpected error, Zero")]
)
def test_a_single_pair_fails_with_its_own_error_in_one_line(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make(tmp_path, {"a": value})[0].run()


class Judged(Writer):
    """Writes the value of a result as its verdict."""

    def _write(self, folder: Path, result: RegistrationResult) -> None:
        (folder / "metrics.json").write_text(json.dumps({"verdict": result.item["value"]}))


@pytest.mark.parametrize(
    ("fail_on", "bad"),
    [
        ("fail", r"^1 of 3 results are not to be trusted \(c\)"),
        ("warn", r"^2 of 3 results are not to be trusted \(b, c\)"),
        ("never", ""),
    ],
)
def test_bad_verdicts_are_an_error_when_all_is_done(fail_on: str, bad: str, tmp_path: Path) -> None:
    report = Report()
    runner, register = make(tmp_path, {"a": "PASS", "b": "WARN", "c": "FAIL"}, report=report, fail_on=fail_on)
    runner.writer = Judged(tmp_path / "out", provenance=Provenance({}))
    for again in (False, True):  # those that are done are judged like the others
        with pytest.raises(InputError, match=bad) if bad else contextlib.nullcontext():
            runner.run()
        assert register.calls == ["a", "b", "c"], again
    assert report.ids == ["a", "b", "c"] * 2


def test_the_verdict_of_a_single_pair_is_no_error(tmp_path: Path) -> None:
    runner, _ = make(tmp_path, {"a": "FAIL"})
    runner.writer = Judged(tmp_path / "out", provenance=Provenance({}))
    runner.run()
    assert (tmp_path / "out" / "a" / "metrics.json").is_file()


def test_an_unknown_word_for_bad_verdicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fail_on"):
        make(tmp_path, {"a": "1", "b": "2"}, fail_on="fial")


def test_pairs_that_are_done_are_left_out_and_a_single_one_is_not(tmp_path: Path) -> None:
    make(tmp_path, {"a": "1", "b": "2"})[0].run()
    runner, register = make(tmp_path, {"a": "1", "b": "2", "c": "3"})
    runner.run()
    assert register.calls == ["c"]
    runner, register = make(tmp_path, {"a": "1"})
    runner.run()
    assert register.calls == ["a"]


def test_a_changed_setting_or_image_or_result_is_no_longer_done(tmp_path: Path) -> None:
    make(tmp_path, {"a": "1", "b": "2"}, {"steps": 1})[0].run()
    runner, register = make(tmp_path, {"a": "1", "b": "2"}, {"steps": 2})
    runner.run()
    assert register.calls == ["a", "b"]
    (tmp_path / "out" / "a" / "value.txt").unlink()
    (tmp_path / "out" / "b" / "value.txt").write_bytes(b"")
    runner, register = make(tmp_path, {"a": "1", "b": "2"}, {"steps": 2})
    runner.run()
    assert register.calls == ["a", "b"]
    assert values_in(tmp_path) == {"a": "1", "b": "2"}
    runner, register = make(tmp_path, {"a": "1", "b": "3"}, {"steps": 2})
    runner.run()
    assert register.calls == ["b"]
    assert values_in(tmp_path) == {"a": "1", "b": "3"}


def test_it_is_done_from_within_the_output_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, {"a": "1", "b": "2"})[0].run()
    monkeypatch.chdir(tmp_path / "out")  # where "a" is a folder, and still no more than a name
    runner, register = make(tmp_path, {"a": "1", "b": "2"})
    runner.run()
    assert register.calls == []


def test_an_interruption_ends_it_and_the_next_run_goes_on(tmp_path: Path) -> None:
    runner, register = make(tmp_path, {"a": "1", "b": "2"})

    def interrupt(pair: Mapping[str, Any]) -> RegistrationResult:
        if pair["pair_id"] == "b":
            raise KeyboardInterrupt
        return Register.__call__(register, pair)

    runner.register = interrupt
    runner.register.prepare = lambda: None
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    runner, register = make(tmp_path, {"a": "1", "b": "2"})
    runner.run()
    assert register.calls == ["b"]


def test_everything_is_checked_before_anything_is_registered(tmp_path: Path) -> None:
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "notes.txt").write_text("mine")
    runner, register = make(tmp_path, {"a": "1", "b": "2"})
    with pytest.raises(InputError, match="holds other things than results of these images"):
        runner.run()
    assert register.calls == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b"]


def test_what_ails_all_pairs_is_told_once(tmp_path: Path) -> None:
    runner, register = make(tmp_path, {"a": "1", "b": "2"})

    def no_weights() -> None:
        raise InputError("there is no model; train one.")

    register.prepare = no_weights
    with pytest.raises(InputError, match="no model"):
        runner.run()
    assert register.calls == []


def test_a_pair_that_another_process_registers_is_waited_for(tmp_path: Path) -> None:
    runner, register = make(tmp_path, {"a": "1", "b": "2"})
    (tmp_path / "out").mkdir()
    place = tmp_path / "out" / ".a.claim"
    other = claim(place)
    assert other is not None

    def finish() -> None:
        try:
            ready.wait(10)
            result = Register()(runner.pairs[0])
            runner.writer.write(result, runner.writer.provenance.describe(runner.pairs[0]))
        finally:  # else the runner would wait for ever
            release(place, other)

    ready = threading.Event()
    thread = threading.Thread(target=finish)
    thread.start()
    take = runner._take
    runner._take = lambda pair, wait=False: (ready.set() if wait else None, take(pair, wait))[1]
    runner.run()
    thread.join()
    assert register.calls == ["b"]
    assert values_in(tmp_path) == {"a": "1", "b": "2"}


# --- seeded lists, with foreign files, links, kills and a second process


GOOD = ("a", "b", "imagesTr", "é", "$x", "@y", "%z", "a#b", "=1+1")
NAMES = (*GOOD, "A", "e\u0301", "metrics.csv", "mean", "x" * 300)


def test_shards_register_their_parts_and_the_same_command_without_reports(tmp_path: Path) -> None:
    values = {name: name for name in "abcde"} | {"d": "bad"}
    for shard, calls in (("1/2", ["a", "c", "e"]), ("2/2", ["b", "d"])):
        report = Report()
        runner, register = make(tmp_path, values, report=report, shard=shard)
        with pytest.raises(InputError, match="1 of 2 pairs failed") if "d" in calls else contextlib.nullcontext():
            runner.run()
        assert register.calls == calls
        assert report.ids == []
    runner, register = make(tmp_path, values, report=report)
    with pytest.raises(InputError, match="1 of 5 pairs failed"):
        runner.run()
    assert register.calls == ["d"]
    assert report.ids == ["a", "b", "c", "e"]


def test_processes_of_torchrun_leave_waiting_report_and_errors_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {name: name for name in "abcde"} | {"d": "bad"}
    for rank, calls in ((1, ["b", "d", "a", "c"]), (0, ["e", "d"])):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))
        report = Report()
        runner, register = make(tmp_path, values, report=report)
        if rank:  # the first process is at the last pair
            with runner.writer.folder(runner.pairs[-1]).claimed(False):
                runner.run()
            assert report.ids == []
        else:
            with pytest.raises(InputError, match="1 of 5 pairs failed"):
                runner.run()
            assert report.ids == ["a", "c", "e", "b"]
        assert register.calls == calls


class Slow(Writer):
    """Takes its time between its files, so that a kill finds it at work, and writes others for other settings."""

    steps = 0

    def _write(self, folder: Path, result: RegistrationResult) -> None:
        for name, content in (
            ("value.txt", f"{result.item['value']} {self.steps}"),
            ("metrics.json", '{"ncc": 1}'),
            ("registration.png", ""),
        ):
            (folder / name).write_text(content)
            time.sleep(0.001)


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder, and where links lead."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def random_list(draw: random.Random, root: Path) -> tuple[list[dict[str, str]], Path]:
    """Pairs and an output folder, among inputs and files of others."""
    pairs: list[dict[str, str]] = []
    is_bad, ids = draw.random() < 0.3, draw.sample(GOOD, 4)
    for number in range(draw.randint(1, 4)):
        name = draw.choice(GOOD)
        folder = root / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        pair = {"pair_id": draw.choice((name, *NAMES)) if is_bad else ids[number]}
        for side in ("fixed", "moving"):
            image = folder / f"{side}{number}.nii"
            stored = root / "store" / f"{name} {image.name}" if draw.random() < 0.2 else image  # behind a link
            stored.parent.mkdir(exist_ok=True)
            stored.write_text(f"{side} {number} of {name}")
            if stored != image:
                image.symlink_to(stored)
            pair[side] = str(image)
        pairs.append(pair)
    output = root / draw.choice(["out", "out", "new/out", "data", "link"])
    (root / "out").mkdir()
    (root / "link").symlink_to(root / "out")
    for pair in pairs:
        place = root / "out" / pair["pair_id"][:20]
        if draw.random() < 0.1 and not place.exists():
            place.mkdir()
            (place / "notes.txt").write_text("by hand")
        elif draw.random() < 0.05 and not place.exists():
            place.symlink_to(Path(pair["fixed"]).parent)
    for name in ("metrics.csv", "provenance.json", ".a.claim", ".mine", "report.html"):
        if draw.random() < 0.04 and not (root / "out" / name).exists():
            (root / "out" / name).write_text(draw.choice(["", "mine", "{}"]) if name != ".a.claim" else "mine")
    return pairs, output


def run_list(pairs: list[dict[str, str]], output: Path, steps: int, shard: str = "") -> list[str]:
    """Register a list, or a shard of it; return the names of the pairs that were not done."""
    register: Any = Register()
    writer = Slow(output, provenance=Provenance({"steps": steps}))
    writer.steps = steps
    BatchRunner(register, pairs, writer, RegistrationReport(output) if steps % 2 else None, shard=shard).run()
    return register.calls  # type: ignore[no-any-return]


def dwelling(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes its time first, so that a kill finds what is before it done and nothing more."""

    def dwell(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.002)
        return function(*arguments, **options)

    return dwell


def run_in_child(pairs: list[dict[str, str]], output: Path, steps: int, shard: str) -> int:
    """Register a list in another process; return its number.

    Only SIGKILL may end it from outside: a handler of Python could leave this function, and pytest would go on twice.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a lock that another thread had at the fork stays locked
        logging.disable()
        with contextlib.suppress(BaseException), open(os.devnull, "w") as nowhere:
            sys.stderr = nowhere
            for name in ("_moved", "write_file"):  # between the steps of a replacement
                setattr(result_folder, name, dwelling(getattr(result_folder, name)))
            run_list(pairs, output, steps, shard)
        os._exit(0)
    return child


def assert_whole(pairs: list[dict[str, str]], output: Path, steps: int) -> None:
    """All results are there, a second start does nothing, and no temporary file is left."""
    assert run_list(pairs, output, steps) == ([pairs[0]["pair_id"]] if len(pairs) == 1 else [])
    writer = Slow(output, provenance=Provenance({"steps": steps}))
    assert all(writer.folder(pair).is_complete(writer.provenance.describe(pair)["fingerprint"]) for pair in pairs)
    values = [(writer.folder(pair).path / "value.txt").read_text() for pair in pairs]
    assert all(value.endswith(f" {steps}") for value in values)
    assert {path.name for path in output.rglob(".*")} <= {".mine", ".a.claim"}
    assert not list(output.rglob("*.kept-*")), "the program took a file of its own for one of somebody else"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(15))
def test_nothing_is_lost_and_nothing_is_half(block: int, tmp_path: Path) -> None:
    tqdm.set_lock(threading.RLock())  # the usual one is shared with children, which may be killed while they have it
    refused = 0
    for seed in range(10 * block, 10 * block + 10):
        draw, root = random.Random(seed), tmp_path / str(seed)
        root.mkdir()
        pairs, output = random_list(draw, root)
        before = snapshot(root)
        for _ in range(draw.randint(1, 3)):
            steps = draw.randint(0, 3)
            shards = draw.choices(("", "1/2", "2/2"), (4, 1, 1), k=draw.randint(1, 2))
            children = [run_in_child(pairs, output, steps, shard) for shard in shards]
            time.sleep(draw.random() * 0.05)
            for child in children:
                if draw.random() < 0.7:
                    os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        try:
            run_list(pairs, output, steps)
        except InputError:
            refused += 1
        else:
            assert_whole(pairs, output, steps)
        after = snapshot(root)
        assert {name: after.get(name) for name in before} == before, seed
    assert refused < 9


def test_what_a_pair_leaves_is_gone_when_the_next_one_begins(tmp_path: Path) -> None:
    """Objects that refer to themselves, as figures do, wait for the garbage collector, which rarely looks at all."""
    runner, register = make(tmp_path, {"a": "1", "b": "2", "c": "3"})
    alive: list[int] = []
    left: list[weakref.ref[Any]] = []

    class Circle:
        def __init__(self) -> None:
            self.circle = self

    def call(pair: Mapping[str, Any]) -> RegistrationResult:
        alive.append(sum(one() is not None for one in left))
        left.append(weakref.ref(Circle()))
        return Register.__call__(register, pair)

    runner.register = call
    call.prepare = register.prepare  # type: ignore[attr-defined]
    gc.disable()
    try:
        runner.run()
    finally:
        gc.enable()
    assert alive == [0, 0, 0]
    assert gc.get_freeze_count() == 0


# --- lists that are long, or shared by the processes of torchrun


class Stop(BaseException):
    """Ends a run at its first pair."""


def write_list(folder: Path, count: int) -> Path:
    """A list of pairs, all of the same two files."""
    for name in ("fixed.nii", "moving.nii"):
        (folder / name).write_text(name)
    lines = ["fixed,moving,pair_id", *(f"fixed.nii,moving.nii,pair{number}" for number in range(count))]
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def test_a_long_list_begins_soon(tmp_path: Path) -> None:
    begun: list[float] = []

    class First(Register):
        def __call__(self, pair: Mapping[str, Any]) -> RegistrationResult:
            begun.append(time.process_time())
            raise Stop

    start = time.process_time()
    pairs = read_pair_list(write_list(tmp_path, 10_000))
    register: Any = First()
    with pytest.raises(Stop):
        BatchRunner(register, pairs, Writer(tmp_path / "out", provenance=Provenance({}))).run()
    assert begun[0] - start < 5  # seconds of the processor


WORKER = """
import os, signal, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[2])
from test_batch_runner import Register, Writer
from monai_regplugins.data.pair_list import read_pair_list
from monai_regplugins.engines import BatchRunner
from monai_regplugins.io.provenance import Provenance
from monai_regplugins.outputs import RegistrationReport

folder, victim = Path(sys.argv[1]), sys.argv[3]
rank = os.environ.get("RANK", "alone")


def log(word, pair):
    with (folder / "log.txt").open("a") as file:
        file.write(f"{word} {pair['pair_id']} {rank}\\n")


class Slow(Register):
    def __call__(self, pair):
        log("begun", pair)
        killed = folder / "killed"
        if pair["pair_id"] == victim and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.1 if rank != "alone" else 0)
        return super().__call__(pair)


class Logging(Writer):
    def _write(self, place, result):
        super()._write(place, result)
        (place / "metrics.json").write_text('{"ncc": %d}' % int(result.pair_id[4:]))
        (place / "registration.png").write_bytes(b"")

    def write(self, result, record=None, *others):
        super().write(result, record, *others)
        log("written", {"pair_id": result.pair_id})


out = folder / ("out" if rank != "alone" else "one")
BatchRunner(Slow(), read_pair_list(folder / "list.csv"), Logging(out, provenance=Provenance({})),
            RegistrationReport(out)).run()
"""


def results_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.glob("*/[mv]*")}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["", "pair21"])
def test_torchrun_deals_forty_pairs_and_a_killed_worker_costs_its_pair(
    victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(tmp_path, 40)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    words = [str(script), str(tmp_path), str(Path(__file__).parent), victim]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max_restarts=1"]
    subprocess.run([sys.executable, *torchrun, *words], check=True, capture_output=True, timeout=500)
    lines = [line.split() for line in (tmp_path / "log.txt").read_text().splitlines()]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(words[0], run_name="__main__")
    assert results_in(tmp_path / "out") == results_in(tmp_path / "one")
    assert len(results_in(tmp_path / "one")) == 80
    tables = [sorted((tmp_path / name / "metrics.csv").read_text().splitlines()) for name in ("out", "one")]
    assert tables[0] == tables[1]
    written = [name for word, name, _ in lines if word == "written"]
    assert sorted(written) == sorted(f"pair{number}" for number in range(40))
    begun = [name for word, name, _ in lines if word == "begun"]
    # torchrun ends the other worker, too, when one is killed: each of them loses the pair that it was at
    assert 40 + bool(victim) <= len(begun) <= 40 + 2 * bool(victim)
    assert begun.count(victim) == 2 * bool(victim)
    assert {rank for _, _, rank in lines} == {"0", "1"}

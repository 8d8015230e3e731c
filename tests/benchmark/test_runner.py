"""Comparing methods: same images for all, measures that are those of the package, processes that may crash."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from monai_regplugins.benchmark import runner, worker
from monai_regplugins.benchmark.reporting import read_config
from monai_regplugins.benchmark.runner import BenchmarkMethod
from monai_regplugins.memory import peak_of_this_process
from monai_regplugins.metrics.pair import mean_metrics, pair_metrics
from monai_regplugins.phantoms.abdomen import make_abdomen

CRASHING_WORKER = """
import json, os, sys, torch
job = json.load(open(sys.argv[1]))
shape = torch.load(job["pairs"][0], weights_only=True)["fixed"].shape[1:]
done = {"ddf": torch.zeros(3, *shape), "seconds": 1.0, "cpu_seconds": 1.0, "peak_mib": 1.0}
torch.save(done, job["folder"] + "/outcome_0000.pt")
print("out of luck", file=sys.stderr, flush=True)
os._exit(7)
"""


@pytest.fixture(scope="module")
def config(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """RAN's evaluation on two pairs of a tiny phantom."""
    folder = make_abdomen(tmp_path_factory.mktemp("phantom") / "data", 2, 2, (20, 16, 20), 16.0)
    file = repository / "bundles" / "ran" / "configs" / "evaluate.json"
    return read_config(file, {"dataset_dir": str(folder), "val_pairs": 2})


@pytest.fixture(scope="module")
def pairs(config: dict[str, Any]) -> Any:
    return ConfigParser(dict(config)).get_parsed_content("dataset").data


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work of the processes in this one, which saves their start."""

    def run(command: list[str], *_: Any) -> str:
        worker.work(json.loads(Path(command[-1]).read_text(encoding="utf-8")))
        return ""

    monkeypatch.setattr(runner, "run_process", run)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda count: None)


Expected = Callable[[int], dict[str, float]]


@pytest.fixture
def expected(config: dict[str, Any]) -> Expected:
    """Measure a pair that nothing has moved, straight from the configuration's data set."""

    def measure(number: int) -> dict[str, float]:
        item = ConfigParser(dict(config)).get_parsed_content("dataset")[number]
        keys = ("moving", "fixed", "moving_label", "fixed_label", "spacing")
        known: dict[str, Any] = {key: torch.as_tensor(item[key]) for key in keys}
        points = {f"{side}_points": item[f"{side}_landmarks"] for side in ("moving", "fixed")}
        zero = torch.zeros(3, *item["fixed"].shape[1:])
        return pair_metrics(**known, **points, warped=known["moving"], ddf=zero)

    return measure


@pytest.mark.usefixtures("in_process")
class TestComparison:
    def test_identity_is_a_zero_field(self, config: dict[str, Any], pairs: Any, expected: Expected) -> None:
        result = runner.compare([BenchmarkMethod("identity", "identity")], config, pairs)["identity"]
        assert [row["pair_id"] for row in result.pairs] == [pair["pair_id"] for pair in pairs]
        rows = [expected(number) for number in range(len(pairs))]
        assert {"dsc", "tre", "hd95", "ncc"} <= set(rows[0])
        assert result.metrics == pytest.approx(mean_metrics(rows), nan_ok=True, abs=1e-6)
        assert result.metrics["tre"] == pytest.approx(result.metrics["tre_before"])
        for row, truth in zip(result.pairs, rows, strict=True):
            assert {key: row[key] for key in truth} == pytest.approx(truth, nan_ok=True, abs=1e-6)
        assert result.seconds == pytest.approx(sum(row["seconds"] for row in result.pairs) / 2)
        assert result.peak_mib == max(row["peak_mib"] for row in result.pairs)
        assert result.error == ""

    def test_a_method_that_fails_leaves_the_rest(
        self, config: dict[str, Any], pairs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def register(fixed: torch.Tensor, **known: Any) -> torch.Tensor:
            calls.append(fixed)
            if len(calls) == 2:
                raise RuntimeError("no memory")
            return torch.zeros(3, *fixed.shape[1:])

        calls: list[torch.Tensor] = []
        monkeypatch.setitem(worker.LOADERS, "moody", lambda: register)
        methods = [
            BenchmarkMethod("first", "moody"),
            BenchmarkMethod("unknown", "none"),
            BenchmarkMethod("last", "identity"),
        ]
        results = runner.compare(methods, config, pairs)
        assert list(results) == ["first", "unknown", "last"]
        assert results["first"].error == "1 of 2 pairs failed, the first because RuntimeError: no memory"
        assert (results["first"].metrics, results["first"].seconds) == ({}, None)
        assert ["error" in row for row in results["first"].pairs] == [False, True]
        assert results["unknown"].error == "KeyError: 'none'"
        assert results["last"].error == ""

    def test_all_methods_get_the_same_images(
        self, config: dict[str, Any], pairs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def register(fixed: torch.Tensor, moving: torch.Tensor, **known: Any) -> torch.Tensor:
            seen.append(torch.cat([fixed, moving]))
            return torch.zeros(3, *fixed.shape[1:])

        seen: list[torch.Tensor] = []
        monkeypatch.setitem(worker.LOADERS, "watching", lambda: register)
        runner.compare([BenchmarkMethod("a", "watching"), BenchmarkMethod("b", "watching")], config, pairs[:1])
        item = ConfigParser(dict(config)).get_parsed_content("preprocessing")(pairs[0])
        assert torch.equal(seen[0], torch.cat([torch.as_tensor(item[key]) for key in ("fixed", "moving")]))
        assert torch.equal(seen[0], seen[1])


class TestProgress:
    """How many pairs are done, on a terminal and in a file."""

    def test_lines_of_a_file(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """One when a step begins and one a minute, on a clock that goes on by 25 seconds with each look."""
        clock = iter(range(0, 1000, 25))
        monkeypatch.setattr(runner.time, "monotonic", lambda: next(clock))
        with runner.BenchmarkProgress(["preparation", "greedy"], 5) as progress:
            for name in progress.names:
                show = progress.begin(name)
                for done in range(1, 5):
                    show(done)
        assert capsys.readouterr().err.splitlines() == [
            "preparation (1 of 2): 0 of 5 pairs",
            "preparation (1 of 2): 3 of 5 pairs",
            "greedy (2 of 2): 0 of 5 pairs",
            "greedy (2 of 2): 3 of 5 pairs",
        ]

    def test_bar_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(runner, "tqdm", lambda **known: tqdm(**{**known, "disable": False}, mininterval=0.0))
        with runner.BenchmarkProgress(["preparation", "greedy"], 5) as progress:
            progress.begin("preparation")(5)
            progress.begin("greedy")(3)
        shown = capsys.readouterr().err.split("\r")
        assert [count for text in shown for count in re.findall(r"(\d+)/10 ", text)][-1] == "8"
        assert "greedy" in shown[-1]

    @pytest.mark.usefixtures("in_process")
    def test_each_method_is_named(self, config: dict[str, Any], pairs: Any, capsys: pytest.CaptureFixture[str]) -> None:
        methods = [BenchmarkMethod("identity", "identity"), BenchmarkMethod("again", "identity")]
        runner.compare(methods, config, pairs)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" pairs")]
        names = ("preparation (1 of 3)", "identity (2 of 3)", "again (3 of 3)")
        assert lines == [f"{name}: 0 of 2 pairs" for name in names]


def test_a_method_sees_no_labels(config: dict[str, Any], pairs: Any, tmp_path: Path) -> None:
    (prepared,) = runner.prepare_pairs(config, pairs[:1], tmp_path)
    assert set(torch.load(prepared.images, weights_only=True)) == {"fixed", "moving", "spacing"}
    assert "fixed_label" in torch.load(prepared.targets, weights_only=True)
    voxels = torch.load(prepared.images, weights_only=True)["fixed"].numel()
    assert prepared.images.stat().st_size < 2 * 4 * voxels + 4000


class TestProcess:
    """Real processes, though short ones."""

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("pass", ""),
            ("import os, sys; sys.stderr.write('bad\\nluck'); sys.stderr.flush(); os._exit(3)", "with status 3: luck"),
            ("import os; os.kill(os.getpid(), 11)", "crashed (SIGSEGV): it said nothing"),
            ("raise ValueError('wrong')", "with status 1: ValueError: wrong"),
        ],
    )
    def test_ending(self, code: str, words: str) -> None:
        found = runner.run_process([sys.executable, "-S", "-c", code])
        assert found.endswith(words)
        assert bool(found) == bool(words)

    def test_time_limit(self) -> None:
        code = "import time; time.sleep(60)"
        words = runner.run_process([sys.executable, "-S", "-c", code], time_limit=0.3)
        assert words == "it took longer than 0.3 seconds and was ended."

    def test_what_is_done_is_looked_at_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.01)
        looks = list[None]()
        code = "import sys, time; time.sleep(0.1); sys.exit('bad luck')"
        words = runner.run_process([sys.executable, "-S", "-c", code], look=lambda: looks.append(None))
        assert words == "its process ended with status 1: bad luck"
        assert len(looks) > 1

    def test_it_ends_with_what_has_started_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.01)

        def stop() -> None:
            raise KeyboardInterrupt

        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            runner.run_process([sys.executable, "-S", "-c", "import time; time.sleep(60)"], look=stop)
        assert time.monotonic() - start < 30

    def test_threads(self) -> None:
        names = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
        code = f"import os; assert [os.environ[name] for name in {names}] == ['3', '3']"
        assert runner.run_process([sys.executable, "-S", "-c", code], threads=3) == ""


@pytest.mark.slow
class TestIsolation:
    def test_a_crash_costs_the_pairs_that_were_left(
        self, config: dict[str, Any], pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "crashing_worker.py").write_text(CRASHING_WORKER, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(runner, "WORKER", "crashing_worker")
        result = runner.compare([BenchmarkMethod("crashing", "identity")], config, pairs)["crashing"]
        words = "its process ended with status 7: out of luck"
        assert result.error == f"1 of 2 pairs failed, the first because {words}"
        assert result.pairs[0]["dsc"] == pytest.approx(result.pairs[0]["dsc_before"])
        assert result.pairs[1] == {"pair_id": pairs[1]["pair_id"], "error": words}

    def test_memory_is_the_methods_own(self, config: dict[str, Any], pairs: Any) -> None:
        ballast = torch.ones(2**28)  # 1 GiB here must not count there
        result = runner.compare([BenchmarkMethod("identity", "identity")], config, pairs[:1])["identity"]
        assert result.error == ""
        assert result.peak_mib is not None
        assert 50 < result.peak_mib < peak_of_this_process() - 500
        del ballast

"""Where a bundle is found, which overrides are refused, and how an input error reaches the user."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow, run
from monai.utils import set_determinism
from torch._utils import ExceptionWrapper
from tqdm import tqdm

from monai_regplugins.bundle import (
    PATH_KEYS,
    bundle_root,
    check_keys,
    check_overrides,
    configuration,
    start,
)
from monai_regplugins.checks import InputError
from monai_regplugins.io.provenance import FILE_SETTINGS

TRAIN = {
    "imports": ["$import monai_regplugins", "$import monai_regplugins.checks"],
    "bundle_root": "$monai_regplugins.bundle_root()",
    "max_epochs": 2,
    "amp": False,
    "preset": "small",
    "size": [16, 16],
    "layer": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
    "train": {"trainer": {"max_epochs": "@max_epochs"}, "handlers": [{"_target_": "GarbageCollector"}]},
    "step": "$lambda engine, batch: monai_regplugins.checks.check_choice(@preset, ['small'], 'preset')",
    "trainer": {
        "_target_": "SupervisedTrainer",
        "device": "$torch.device('cpu')",
        "max_epochs": 1,
        "train_data_loader": [{"image": 0}],
        "network": {"_target_": "torch.nn.Identity"},
        "optimizer": None,
        "loss_function": None,
        "iteration_update": "@step",
        "train_handlers": [{"_target_": "StatsHandler", "output_transform": "$lambda output: None"}],
    },
    "initialize": ["$monai_regplugins.start(0)"],
    "show": ["$print('ROOT=' + @bundle_root)"],
    "fixed": "",
    "output_dir": "$@bundle_root + '/output'",
    "names": ["$print('NAMES=' + repr([str(@fixed), str(@output_dir)]))"],
    "joined": ["$print('JOINED=' + str(@output_dir + '/models'))"],
    "wait": ["$[print('READY', flush=True) or __import__('time').sleep(60) for _ in __import__('tqdm').tqdm([1])]"],
    "training": ["$@trainer.run()"],
}


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start in an empty folder with a bare command line, and give back what ``start`` and ``run`` change."""
    factory, on_termination = logging.getLogRecordFactory(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["host"])
    monkeypatch.chdir(tmp_path)
    yield
    logging.setLogRecordFactory(factory)
    signal.signal(signal.SIGTERM, on_termination)
    set_determinism(None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Make ``bundles/toy`` in the working directory, with a second configuration that overlays the first."""
    root = tmp_path / "bundles" / "toy"
    (root / "configs").mkdir(parents=True)
    for name, content in {
        "train": TRAIN,
        "overlay": {"max_epochs": 3, "extra": 1},
        "metadata": {"version": "0"},
    }.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps(content))
    return root


TRAIN_FILE, OVERLAY_FILE, METADATA_FILE = (
    f"bundles/toy/configs/{name}.json" for name in ("train", "overlay", "metadata")
)
NO_TRACKING_FILES = {"save_execute_config": False}
Capture = pytest.CaptureFixture[str]


def shown_root(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Give ``words`` to MONAI's command line in this process and return the root that the configuration printed."""
    fire.Fire(run, command=["show", *words])
    return capsys.readouterr().out.split("ROOT=")[1].splitlines()[0]


class TestBundleRoot:
    """Each context in which a configuration may be evaluated."""

    @pytest.mark.parametrize(
        ("cwd", "config_file"),
        [
            (".", TRAIN_FILE),
            ("bundles/toy", "configs/train.json"),
            ("elsewhere", "../bundles/toy/configs/train.json"),
            (".", f"['{TRAIN_FILE}','{OVERLAY_FILE}']"),
        ],
        ids=["repository root", "bundle folder", "elsewhere", "list of files"],
    )
    def test_the_command_line_knows_its_folder(
        self, bundle: Path, cwd: str, config_file: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("elsewhere").mkdir()
        monkeypatch.chdir(cwd)
        assert shown_root(capsys, "--config_file", config_file) == str(bundle)
        assert shown_root(capsys, f"--config_file={config_file}") == str(bundle)

    def test_a_given_root_replaces_the_expression(self, bundle: Path, capsys: Capture) -> None:
        assert shown_root(capsys, "--config_file", TRAIN_FILE, "--bundle_root", "given") == "given"

    def test_a_workflow_made_in_python_knows_its_folder(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = bundle.parent / "other" / "configs"
        other.mkdir(parents=True)
        (other / "train.json").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["host", "--config_file", str(other / "train.json")])
        assert create_workflow(config_file=TRAIN_FILE).bundle_root == str(bundle)

    def test_its_parser_knows_it_too(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        parser = create_workflow(config_file=TRAIN_FILE).parser
        parser["max_epochs"] = 5  # forgets everything that was resolved
        monkeypatch.chdir(Path.home())
        assert parser.get_parsed_content("bundle_root") == str(bundle)

    @pytest.mark.parametrize(
        "words",
        [
            ["--config_file", TRAIN_FILE],
            [f"--config_file={TRAIN_FILE}"],
            ["--config-file", TRAIN_FILE],
            [f"config_file={TRAIN_FILE}"],
            ["--config_file", f"['{TRAIN_FILE}', '{OVERLAY_FILE}']"],
            ["--args_file", "args.json"],
        ],
    )
    def test_a_bare_parser_reads_the_command_line(
        self, bundle: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("args.json").write_text(json.dumps({"config_file": [TRAIN_FILE]}))
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "ckpt_export", *words])
        assert parsed(TRAIN_FILE).get_parsed_content("bundle_root") == str(bundle)

    def test_a_folder_of_another_name_is_the_root_itself(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("plain").mkdir()
        Path("plain/train.json").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "--config_file=plain/train.json"])
        assert bundle_root() == os.path.abspath("plain")

    @pytest.mark.parametrize(
        "words",
        [["--config_file"], ["--config_file", "absent.json"], ["--config_file", "['a"], ["--args_file", "broken.json"]],
    )
    def test_a_host_in_the_bundle_folder_uses_it(
        self, bundle: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(bundle)
        Path("broken.json").write_text("{}")
        monkeypatch.setattr(sys, "argv", ["host", *words])
        assert bundle_root() == str(bundle)

    def test_any_other_host_gets_the_working_directory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert bundle_root() == "."
        monkeypatch.delattr(sys, "argv")
        assert bundle_root() == "."

    def test_nothing_is_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("broken.json").write_text("{")
        monkeypatch.setattr(sys, "argv", ["host", "--args_file", "broken.json"])
        assert bundle_root() == "."


class TestOverrides:
    """Unknown names are refused, whichever way they are given."""

    @pytest.mark.parametrize(
        "words",
        [
            ["--max_epochs", "3"],
            ["--max-epochs=3"],
            ["--noamp"],
            ["--amp"],
            ["--train#trainer#max_epochs", "3"],
            ["--train::trainer::max_epochs", "3"],
            ["--train#handlers#0#_disabled_", "True"],
            ["--size#0", "8"],
            ["--layer#bias", "False"],
            ["--layer", "{'_target_': 'torch.nn.Tanh'}"],
            ["--layer#_target_", "torch.nn.Bilinear", "--layer#in1_features", "3"],
            ["--_meta_#version", "1"],
            ["--init_id", "initialize", "--workflow_type", "train", "--meta_file", METADATA_FILE],
            ["--logging_file", "False"],
        ],
        ids=" ".join,
    )
    def test_known_names_pass(self, bundle: Path, words: list[str], capsys: Capture) -> None:
        assert shown_root(capsys, "--config_file", TRAIN_FILE, *words) == str(bundle)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--max_epoch", "3"], "'max_epoch', .* Did you mean 'max_epochs'"),
            (["--max_epoch=3"], "'max_epoch', .* Did you mean 'max_epochs'"),
            (["--noamb"], "'amb', .* Did you mean 'amp'"),
            (["--train#trainer#max_epoch", "3"], "Did you mean 'train#trainer#max_epochs'"),
            (["--train::trainr", "3"], "Did you mean 'train::trainer'"),
            (["--layer#in_feature", "3"], "'layer#in_feature', .* Did you mean 'layer#in_features'"),
            (["--layer#bais", "False"], "'layer#bais', .* Did you mean 'layer#bias'"),
            (["--max_epoch", "None"], "Did you mean 'max_epochs'"),
            (["--max_epoch", "1", "--presett", "a"], "'max_epoch', 'presett', .* 'max_epochs'.* 'preset'"),
            (["--zzz", "1"], "'zzz', .*train.json has no such key. Settings: .*max_epochs, amp, preset"),
            (["--extra", "1"], "'extra'"),
        ],
    )
    def test_unknown_names_are_refused(self, bundle: Path, words: list[str], expected: str) -> None:
        with pytest.raises(RuntimeError) as raised:
            fire.Fire(run, command=["show", "--config_file", TRAIN_FILE, *words])
        assert isinstance(raised.value.__cause__, InputError)
        assert re.search(expected, str(raised.value.__cause__))

    def test_options_of_another_bundle_are_said_to_be_its(self, repository: Path) -> None:
        file = repository / "bundles" / "r2n2" / "configs" / "train.json"
        with pytest.raises(InputError, match=r"has no such key\. It is an option of the bundle 'ran'\.$"):
            check_keys(["label_weight"], json.loads(file.read_text()), str(file))

    def test_keys_of_every_file_count(self, bundle: Path, capsys: Capture) -> None:
        files = f"['{TRAIN_FILE}','{OVERLAY_FILE}']"
        assert shown_root(capsys, "--config_file", files, "--extra", "2") == str(bundle)

    def test_keys_of_an_args_file_count(self, bundle: Path) -> None:
        Path("args.json").write_text(json.dumps({"config_file": TRAIN_FILE, "max_epoch": 3}))
        with pytest.raises(RuntimeError) as raised:
            fire.Fire(run, command=["show", "--args_file", "args.json"])
        assert "Did you mean 'max_epochs'" in str(raised.value.__cause__)

    def test_an_option_given_twice(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        words = ["show", "--config_file", TRAIN_FILE, "--max_epochs", "3", "--max_epochs=4"]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
        with pytest.raises(RuntimeError) as raised:
            fire.Fire(run, command=words)
        assert str(raised.value.__cause__) == "--max_epochs is given twice, as '3' and '4'; give it once."

    def test_python_is_checked_too(self, bundle: Path) -> None:
        create_workflow(config_file=TRAIN_FILE, max_epochs=3, **{"train#trainer#max_epochs": 3})
        with pytest.raises(RuntimeError) as raised:
            create_workflow(config_file=TRAIN_FILE, max_epoch=3)
        assert isinstance(raised.value.__cause__, InputError)

    @pytest.mark.parametrize("tracking", ["mlflow", {"handlers_id": {}, "configs": {"run_name": None}}])
    def test_tracking_brings_its_own_keys(self, bundle: Path, tracking: Any) -> None:
        create_workflow(config_file=TRAIN_FILE, tracking=tracking, run_name="a", **NO_TRACKING_FILES)

    def test_without_a_workflow_it_is_silent(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "verify_net_in_out", "--max_epoch", "3"])
        check_overrides()
        parser = parsed(TRAIN_FILE)
        parser["unknown"] = 1
        assert parser.get_parsed_content("initialize") == [None]


class TestNamesAsText:
    """What the command line gives for a path is a name: no number, no tuple, no code."""

    @pytest.mark.parametrize(
        "text",
        [
            "20240611",
            "007",
            "1e3",
            "0x10",
            "1,2",
            "(1)",
            "[1]",
            "True",
            "None",
            "$print(1)",
            "$1+",
            "@names",
            "a#b",
        ],
    )
    @pytest.mark.parametrize("spelling", ["--fixed={}", "--fixed {}"])
    def test_it_is_taken_as_written(
        self, text: str, spelling: str, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["names", "--config_file", TRAIN_FILE, *spelling.format(text).split(" ", 1), "--output_dir", text]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
        fire.Fire(run, command=words)
        assert capsys.readouterr().out.split("NAMES=")[1].splitlines()[0] == repr([text, text])

    @pytest.mark.parametrize("text", ["out", "$out", "@out", "a#b"])
    def test_expressions_add_text_to_it(
        self, text: str, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["joined", "--config_file", TRAIN_FILE, "--output_dir", text]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *words])
        fire.Fire(run, command=words)
        assert f"JOINED={text}/models" in capsys.readouterr().out

    def test_without_an_override_the_expression_counts(self, bundle: Path, capsys: Capture) -> None:
        fire.Fire(run, command=["names", "--config_file", TRAIN_FILE])
        expected = repr(["", f"{bundle}/output"])
        assert capsys.readouterr().out.split("NAMES=")[1].splitlines()[0] == expected

    def test_every_setting_that_names_files_is_one(self, repository: Path) -> None:
        configs = [*repository.glob("bundles/*/configs/*.json")]
        contents = [content for file in configs if "imports" in (content := json.loads(file.read_text()))]
        contents += [json.loads(file.read_text()) for file in configs if "series" in file.name]
        names = {key for content in contents for key, value in content.items() if value == "" or key.endswith("_dir")}
        endings = ("ckpt", "_file", "_root", "series")
        names |= {key for content in contents for key in content if key.endswith(endings)}
        assert len(contents) > 9
        assert names <= PATH_KEYS
        assert {*FILE_SETTINGS} <= PATH_KEYS

    def test_the_home_is_found(self, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        fire.Fire(run, command=["names", "--config_file", TRAIN_FILE, "--fixed=~/a.nii", "--output_dir=~nosuchuser"])
        assert "NAMES=['/home/me/a.nii', '~nosuchuser']" in capsys.readouterr().out

    def test_python_gives_text_too(self, bundle: Path, capsys: Capture) -> None:
        create_workflow(
            config_file=TRAIN_FILE, workflow_type="train", run_id="names", fixed="$x", output_dir=2025
        ).run()
        assert "NAMES=['$x', '2025']" in capsys.readouterr().out

    @pytest.mark.parametrize("place", ["a#b", "$a @b/%c#d::e"])
    def test_the_folder_of_the_bundle_may_have_any_name(
        self, place: str, bundle: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        root = str(tmp_path / place)
        for run_id, line in (("show", f"ROOT={root}"), ("joined", f"JOINED={root}/output/models")):
            create_workflow(config_file=TRAIN_FILE, workflow_type="train", run_id=run_id, bundle_root=root).run()
            assert line in capsys.readouterr().out.splitlines()

    def test_the_words_of_a_host_are_its_own(
        self, bundle: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["host", "--fixed", "another"])
        create_workflow(config_file=TRAIN_FILE, workflow_type="train", run_id="names", fixed="mine").run()
        assert "NAMES=['mine'," in capsys.readouterr().out

    def test_an_args_file_gives_text_too(self, bundle: Path, capsys: Capture) -> None:
        Path("args.json").write_text(json.dumps({"config_file": TRAIN_FILE, "fixed": 20240611, "output_dir": "@x"}))
        fire.Fire(run, command=["names", "--args_file", "args.json"])
        assert "NAMES=['20240611', '@x']" in capsys.readouterr().out


def test_the_configuration_is_known_where_it_is_evaluated(bundle: Path) -> None:
    parser = ConfigParser({"a": 1, "seen": "$__import__('monai_regplugins').configuration()"})
    parser["a"] = 2
    assert parser.get_parsed_content("seen")["a"] == 2
    assert configuration() == {}


class TestStart:
    """The seed, and the way an error takes to the user."""

    def test_the_seed_fixes_random_numbers(self) -> None:
        start(7)
        first = np.random.rand(), torch.rand(1)  # noqa: NPY002 -- the global state is what is fixed
        start(7)
        assert first == (np.random.rand(), torch.rand(1))  # noqa: NPY002

    def test_without_a_seed_they_stay_free(self) -> None:
        torch.manual_seed(0)
        state = torch.get_rng_state()
        start()
        assert torch.equal(torch.get_rng_state(), state)

    def test_it_installs_itself_once(self) -> None:
        start()
        hook, factory = sys.excepthook, logging.getLogRecordFactory()
        start()
        assert sys.excepthook is hook
        assert logging.getLogRecordFactory() is factory

    def test_the_program_ends_without_a_search_for_garbage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        last: list[Any] = []
        monkeypatch.setattr("atexit.register", last.append)
        monkeypatch.setattr("atexit.unregister", lambda function: last.remove(function) if function in last else None)
        start()
        start()
        assert last.count(gc.freeze) == 1

    @pytest.mark.parametrize("wrap", [RuntimeError, None], ids=["cause", "itself"])
    def test_an_input_error_is_one_line(self, wrap: type[Exception] | None, capsys: Capture) -> None:
        start()
        sys.excepthook(*caught(InputError("give a file."), wrap))
        assert capsys.readouterr().err == "error: give a file.\n"

    def test_the_line_is_not_that_of_an_open_progress_bar(self, capsys: Capture) -> None:
        start()
        bar = tqdm(total=3, file=sys.stderr)
        bar.update()
        sys.excepthook(*caught(InputError("give a file."), None))
        assert capsys.readouterr().err.splitlines()[-1] == "error: give a file."

    def test_also_from_a_worker_process(self, capsys: Capture) -> None:
        start()
        sys.excepthook(*caught(InputError("give a file."), RuntimeError, in_worker=True))
        sys.excepthook(*caught(InputError("give a file."), None, in_worker=True))
        assert capsys.readouterr().err == "error: give a file.\n" * 2

    def test_any_other_error_is_left_to_the_hook_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []
        monkeypatch.setattr(sys, "excepthook", lambda *error: seen.append(error))
        start()
        sys.excepthook(*(error := caught(KeyError("a bug"), RuntimeError)))
        assert seen == [error]

    @pytest.mark.parametrize("name", ["ignite.engine.engine.SupervisedTrainer", "StatsHandler"])
    def test_engines_do_not_log_it(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        def exception_raised(error: Exception) -> None:
            try:
                raise error
            except type(error):
                logging.getLogger(name).exception("Exception: %s", error)

        start()
        exception_raised(InputError("give a file."))
        assert not caplog.records
        exception_raised(KeyError("a bug"))
        assert len(caplog.records) == 1

    def test_other_loggers_do(self, caplog: pytest.LogCaptureFixture) -> None:
        start()
        try:
            raise InputError("give a file.")
        except InputError:
            logging.getLogger("host").exception("skipped")
        assert len(caplog.records) == 1


class TestCommandLine:
    """The real program, as a user sees it."""

    @pytest.mark.slow
    def test_it_shows_the_root_from_anywhere(self, bundle: Path, repository: Path, tmp_path: Path) -> None:
        done = cli(["show", "--config_file", TRAIN_FILE], repository)
        assert f"ROOT={bundle}\n" in done.stdout
        assert done.returncode == 0

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("words", "line"),
        [
            (["--max_epoch", "3"], r"error: unknown override 'max_epoch', .* Did you mean 'max_epochs'\?"),
            (["--preset", "smal"], r"error: preset is 'smal'; choose one of 'small'\. Did you mean 'small'\?"),
        ],
        ids=["before the run", "inside an engine"],
    )
    def test_an_input_error_is_one_line(self, bundle: Path, repository: Path, words: list[str], line: str) -> None:
        done = cli(["training", "--config_file", TRAIN_FILE, *words], repository)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        assert "ERROR" not in done.stdout + done.stderr
        assert re.fullmatch(line, done.stderr.splitlines()[-1])

    @pytest.mark.slow
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
    def test_a_signal_ends_it_in_one_line(
        self, number: int, status: int, bundle: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", str(repository))
        command = [sys.executable, "-m", "monai.bundle", "run", "wait", "--config_file", TRAIN_FILE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(line == "READY\n" for line in process.stdout)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == status
        assert errors.splitlines()[-1].startswith("stopped; what was written is complete")
        assert "Traceback" not in errors

    @pytest.mark.slow
    def test_torchrun_knows_the_root(self, bundle: Path, repository: Path) -> None:
        module = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
        done = cli(["show", "--config_file", TRAIN_FILE], repository, module)
        assert done.stdout.count(f"ROOT={bundle}\n") == 2


def parsed(config_file: str) -> ConfigParser:
    """Read a configuration the way exporters and hosts do, without a workflow."""
    parser = ConfigParser()
    parser.read_config(config_file)
    return parser


def caught(
    error: Exception, wrap: type[Exception] | None, in_worker: bool = False
) -> tuple[type[BaseException], BaseException, Any]:
    """Raise ``error``, wrapped as MONAI does, and hand back what the interpreter would give to the exception hook."""
    try:
        try:
            raise error
        except type(error) as cause:
            if wrap is not None:
                raise wrap("applying transform") from cause
            raise
    except Exception as outer:
        if not in_worker:
            return type(outer), outer, outer.__traceback__
        parcel = ExceptionWrapper(where="in DataLoader worker process 0")
    try:
        parcel.reraise()
    except Exception as arrived:
        return type(arrived), arrived, arrived.__traceback__


def cli(
    words: list[str], repository: Path, module: Sequence[str] = ("monai.bundle",)
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m monai.bundle run ...`` in the working directory."""
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", *module, "run", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

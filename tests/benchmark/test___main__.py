"""The command: what it accepts, what it refuses, and the table that it writes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import VoxelMorph

from monai_regplugins.benchmark import __main__ as command
from monai_regplugins.benchmark import baselines, runner, worker
from monai_regplugins.benchmark.runner import MethodResult
from monai_regplugins.bundle_folders import read_json
from monai_regplugins.checks import InputError
from monai_regplugins.data.learn2reg import validation_pairs
from monai_regplugins.phantoms.abdomen import make_abdomen
from monai_regplugins.settings import with_record
from monai_regplugins.training import shown

PUBLISHED = ("", "_hippocampus", "_hippocampus_labels", "_shapes")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_abdomen(tmp_path_factory.mktemp("phantom") / "data", 2, 2, (20, 16, 20), 16.0)


@pytest.fixture
def ran(repository: Path) -> list[str]:
    return ["--bundle", str(repository / "bundles" / "ran")]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work of the processes in this one, which saves their start."""

    def run(words: list[str], *_: Any) -> str:
        worker.work(json.loads(Path(words[-1]).read_text(encoding="utf-8")))
        return ""

    monkeypatch.setattr(runner, "run_process", run)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda count: None)


def cells(markdown: str) -> dict[str, list[str]]:
    """Read the cells of a table by the first one of their row."""
    lines = [line[1:-1].split("|") for line in markdown.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines[2:]}


def methods_of(words: list[str]) -> list[tuple[str, str]]:
    """Name and kind of the methods that a command line asks for."""
    args = command.parse_arguments(words)
    return [(method.name, method.kind) for method in command.choose_methods(args, command.read_bundles(args))]


@pytest.mark.usefixtures("in_process")
class TestTable:
    @pytest.fixture
    def missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take DIPY away."""

        def load() -> None:
            raise InputError("it needs the package dipy.")

        monkeypatch.setitem(baselines.BASELINES, "dipy", baselines.BASELINES["dipy"]._replace(load=load))

    @pytest.mark.usefixtures("missing")
    @pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
    @pytest.mark.slow
    def test_of_a_data_set(self, ran: list[str], dataset: Path, tmp_path: Path) -> None:
        output = tmp_path / "comparison.json"
        chosen = ["identity", "dipy", "demons", "voxelmorph", "ran"]
        torch.save(VoxelMorph(spatial_dims=3).state_dict(), tmp_path / "vxm.pt")
        words = [*ran, "--dataset_dir", str(dataset), "--pairs", "1", "--refine_steps", "2", "--output", str(output)]
        words += ["--set", "spatial_size=[16, 16, 16]", "--voxelmorph_ckpt", str(tmp_path / "vxm.pt")]
        words += ["--methods", *chosen]
        markdown = command.main(words)
        rows, content = cells(markdown), json.loads(output.read_text(encoding="utf-8"))
        assert list(content["results"]) == [*chosen, "ran + 2 steps"]
        assert list(rows) == ["identity (before)", *chosen[1:], "ran + 2 steps"]
        assert rows["dipy"][0] == "failed: it needs the package dipy."
        assert rows["identity (before)"][5:7] == ["0.000", "0.000"]
        for name in ("demons", "voxelmorph", "ran", "ran + 2 steps"):
            result = content["results"][name]
            assert result["error"] == ""
            assert float(rows[name][0]) == pytest.approx(result["metrics"]["dsc"], abs=6e-4)
            assert float(rows[name][4]) != float(rows["identity (before)"][4]), "nothing was moved"
            ratio = result["cpu_seconds"] / content["results"]["demons"]["cpu_seconds"]
            assert float(rows[name][-1]) == pytest.approx(ratio, abs=6e-3)
        assert len(content["results"]["ran"]["pairs"]) == content["pairs"] == 1
        assert (content["data_set"], content["preprocessing"]) == ("AbdomenPhantom", "that of ran")
        assert content["command"].startswith("python -m monai_regplugins.benchmark --bundle ")
        assert "SimpleITK" in content["versions"]
        assert "dipy" in content["versions"]

    def test_of_a_list_of_pairs(self, ran: list[str], dataset: Path, tmp_path: Path) -> None:
        names = sorted(path.name for path in (dataset / "imagesTr").iterdir())
        lines = [f"imagesTr/{moving},imagesTr/{fixed}" for moving, fixed in itertools.pairwise(names)]
        pairs = dataset / "pairs.csv"
        pairs.write_text("\n".join(["moving,fixed", *lines]), encoding="utf-8")
        output = tmp_path / "comparison.md"
        words = [*ran, "--pairs_file", str(pairs), "--pairs", "2", "--methods", "identity", "--output", str(output)]
        markdown = command.main(words)
        assert output.read_text(encoding="utf-8") == markdown + "\n"
        title = markdown.splitlines()[0]
        assert title.startswith("| method | NCC | folding (%) | SDlogJ | s per pair"), "it has no labels, no landmarks"
        assert "- pairs: 2\n" in markdown
        assert f"- data set: {pairs}\n" in markdown


class TestChoice:
    def test_default(self, ran: list[str]) -> None:
        assert methods_of(ran) == [
            *[(name, name) for name in ("identity", "elastix", "greedy", "ants", "demons", "dipy")],
            ("ran", "bundle"),
        ]

    def test_in_the_order_given(self, ran: list[str], tmp_path: Path) -> None:
        ckpt = tmp_path / "vxm.pt"
        ckpt.write_bytes(b"weights")
        words = [*ran, "--voxelmorph_ckpt", str(ckpt), "--refine_steps", "5", "--methods"]
        chosen = methods_of([*words, "ran", "voxelmorph", "greedy", "greedy"])
        assert [name for name, _ in chosen] == ["ran", "ran + 5 steps", "voxelmorph", "greedy"]
        assert methods_of([*ran, "--methods", "optimization"]) == [("optimization alone", "bundle")]
        args = command.parse_arguments([*words, "voxelmorph"])
        (method,) = command.choose_methods(args, command.read_bundles(args))
        assert method.options == {"ckpt": str(ckpt), "spatial_dims": 3, "spatial_size": [24, 20, 24]}

    def test_each_stiffness_of_methods_that_have_one(self, ran: list[str]) -> None:
        words = [*ran, "--refine_steps", "5", "--methods", "identity", "greedy", "ran", "--stiffness", "0.5", "2"]
        args = command.parse_arguments(words)
        methods = command.choose_methods(args, command.read_bundles(args))
        assert [(method.name, method.options.get("stiffness"), method.curve) for method in methods] == [
            ("identity", None, ""),
            ("greedy x 0.5", 0.5, "greedy"),
            ("greedy x 2", 2.0, "greedy"),
            ("ran", None, ""),
            ("ran + 5 steps x 0.5", 0.5, "ran + 5 steps"),
            ("ran + 5 steps x 2", 2.0, "ran + 5 steps"),
        ]

    def test_published_weights_that_a_training_started_from(
        self, ran: list[str], repository: Path, tmp_path: Path
    ) -> None:
        record = {"version": 1, "settings": {}, "started_from": "model_hippocampus.pt"}
        torch.save(with_record({"weight": torch.ones(2)}, record), ckpt := tmp_path / "tuned.pt")
        words = [*ran, "--ckpt", str(ckpt), "--set", "seed=3", "--pairs_file", "a.csv", "--methods", "ran"]
        words += ["published"]
        args = command.parse_arguments(words)
        own, published = command.choose_methods(args, command.read_bundles(args))
        assert (own.name, published.name) == ("ran", "ran model_hippocampus.pt (published)")
        assert own.options["config"]["ckpt"] == str(ckpt)
        config = published.options["config"]
        assert Path(config["ckpt"]) == repository / "bundles" / "ran" / "models" / "model_hippocampus.pt"
        assert (config["spatial_size"], config["seed"]) == ([36, 48, 36], 3)
        said = command.facts(args, own.options["config"], {"ran": MethodResult()}, [own, published])
        assert {name: said[f"weights of {name}"] for name in (own.name, published.name)} == {
            own.name: str(ckpt),
            published.name: shown(config["ckpt"]),
        }
        assert not [name for name in said if name.startswith("training of") or name == "with label maps"]
        data = MethodResult({"dsc": 0.5})
        args.pairs_file = "HippocampusMR.csv"
        known = command.facts(args, own.options["config"], {"ran": data}, [own, published])
        for method in (own, published):
            assert known[f"training of {method.name}"].startswith("that of 'model_hippocampus.pt' was on such data: ")
        assert known["with label maps"].startswith("--moving_label LABELS ")
        root = shown(repository / "bundles" / "ran")
        assert {name: text for name, text in said.items() if name.startswith("to register")} == {
            "to register with ran": f"regplugins register FIXED MOVING --bundle {root} --ckpt {ckpt} -o out"
        }

    def test_each_published_weights_beside_others(self, ran: list[str], tmp_path: Path) -> None:
        torch.save({"weight": torch.ones(2)}, ckpt := tmp_path / "own.pt")
        assert [name for name, _ in methods_of([*ran, "--ckpt", str(ckpt), "--methods", "published"])] == [
            f"ran model{name}.pt (published)" for name in PUBLISHED
        ]

    def test_settings_in_which_rows_differ(self, ran: list[str], repository: Path) -> None:
        """Of the refined rows; the optimization alone has those of the first bundle, but for its network."""
        ckpt = str(repository / "bundles" / "ran" / "models" / "model_hippocampus.pt")
        words = [*ran, "--ckpt", ckpt, "--refine_steps", "5", "--set", "smoothness_weight=3"]
        args = command.parse_arguments([*words, "--methods", "identity", "optimization", "ran", "published"])
        methods = command.choose_methods(args, command.read_bundles(args))
        said = command._differing_settings(methods, 5)
        own, alone = "settings of ran + 5 steps", "settings of optimization alone"
        assert {own, alone} < said.keys()
        assert "identity" not in str(said)
        assert "smoothness_weight" not in str(said)  # typed, so the same everywhere
        assert said[own] == f"{said[alone]}, extend_border True"
        assert "refine_smoothing 0.0" in said[own]
        assert "refine_smoothing 0.75" in said["settings of ran model.pt (published) + 5 steps"]
        assert command._differing_settings(methods[:2], 5) == {}

    def test_the_steps_that_it_proposes_to_register_with(self) -> None:
        """Those of the better row; of labels, landmarks, or neither."""
        for measure, alone, refined, expected in (
            ("dsc", 0.7, 0.6, 0),
            ("dsc", 0.6, 0.7, 5),
            ("tre", 2.0, 3.0, 0),
            ("ncc", 0.5, 0.5, 5),
        ):
            results = {"ran": MethodResult({measure: alone}), "ran + 5 steps": MethodResult({measure: refined})}
            assert command._better_steps(5, results, "ran") == {"refine_steps": expected}
        assert command._better_steps(0, results, "ran") == {}
        assert command._better_steps(5, {**results, "ran": MethodResult(error="it failed.")}, "ran") == {}

    def test_is_it_better(self, ran: list[str]) -> None:
        """Both rows are compared with optimization alone and their like of the published weights; then with another."""
        args = command.parse_arguments([*ran, "--refine_steps", "5", "--methods", "optimization", "ran", "published"])
        methods = command.choose_methods(args, command.read_bundles(args))
        results = {method.name: MethodResult(pairs=[{"dsc": 0.5}, {"dsc": 0.5}]) for method in methods}
        results["ran + 5 steps"] = MethodResult(pairs=[{"dsc": 0.625}, {"dsc": 0.626}])
        said = command._answers(args, results, methods)
        published = [
            f"ran model{name}.pt (published)" for name in ("", "_hippocampus", "_hippocampus_labels", "_shapes")
        ]
        alone = [f"ran better than {other}" for other in ("optimization alone", *published)]
        refined = [
            f"ran + 5 steps better than {other}"
            for other in ("optimization alone", *(f"{name} + 5 steps" for name in published), "ran")
        ]
        assert list(said) == alone + refined
        assert {said[question].partition(":")[0] for question in alone} == {"not shown"}
        assert {said[question].partition(":")[0] for question in refined} == {"yes"}
        assert "refine_steps" not in str(said)

    @pytest.mark.parametrize(
        ("pairs", "more"), [("1", "; --pairs takes more of the 3 there are"), ("3", ""), ("4", ""), ("0", "")]
    )
    def test_what_is_not_shown_may_be_with_more_pairs(
        self, pairs: str, more: str, ran: list[str], dataset: Path, tmp_path: Path
    ) -> None:
        """Of a list and of a data set."""
        file = tmp_path / "pairs.csv"
        file.write_text("moving,fixed\na.nii,b.nii\nb.nii,c.nii\nc.nii,a.nii\n")
        for name in "abc":
            file.with_name(f"{name}.nii").touch()
        args = command.parse_arguments([*ran, "--pairs_file", str(file), "--pairs", pairs])
        (config,) = command.read_bundles(args).values()
        assert command._more_pairs(args, config) == more
        args = command.parse_arguments([*ran, "--dataset_dir", str(dataset), "--pairs", "1"])
        (config,) = command.read_bundles(args).values()
        known = len(validation_pairs(dataset))
        assert known > 1
        assert command._more_pairs(args, config) == f"; --pairs takes more of the {known} there are"

    def test_only_what_is_not_shown_asks_for_more_pairs(self, ran: list[str]) -> None:
        args = command.parse_arguments([*ran, "--methods", "optimization", "ran"])
        methods = command.choose_methods(args, command.read_bundles(args))
        for gain, expected in ((0.001, "yes"), (-0.1, "no"), (0.0, "not shown")):
            overlaps = {"optimization alone": (0.5, 0.5), "ran": (0.5 + gain, 0.5 + 1.01 * gain)}
            results = {name: MethodResult(pairs=[{"dsc": one} for one in dsc]) for name, dsc in overlaps.items()}
            words = command._answers(args, results, methods, "; more")["ran better than optimization alone"]
            assert words.startswith(f"{expected}: ")
            assert words.endswith("; more") == (expected == "not shown")

    def test_the_data_of_published_weights_are_named(self, repository: Path, tmp_path: Path) -> None:
        """Of each bundle once, whatever the data set is called; not of weights that have nothing to do with them."""
        bundles = [repository / "bundles" / name for name in ("ran", "r2n2")]
        own, tuned = tmp_path / "own.pt", tmp_path / "tuned.pt"
        torch.save(with_record({}, {"version": 1}), own)
        torch.save(with_record({}, {"version": 1, "started_from": "model.pt"}), tuned)

        def said(*words: object, methods: tuple[str, ...] = ("r2n2",)) -> dict[str, str]:
            args = command.parse_arguments(["--bundle", str(bundles[1]), *map(str, words), "--methods", *methods])
            chosen = command.choose_methods(args, command.read_bundles(args))
            return command._data_of_published([(one, file) for one in chosen if (file := command._weights_of(one))])

        assert said("--ckpt", own) == {}
        for found in (said(), said("--ckpt", tuned), said("--ckpt", own, methods=("r2n2", "published"))):
            assert list(found) == ["published weights of r2n2"]
            assert "Sunnybrook Cardiac Data" in found["published weights of r2n2"]
        assert "Medical Segmentation Decathlon" in read_json(bundles[0] / "configs" / "metadata.json")["data_source"]

    def test_a_refinement_that_does_harm_is_said(self, ran: list[str]) -> None:
        args = command.parse_arguments([*ran, "--refine_steps", "5", "--methods", "optimization", "ran"])
        methods = command.choose_methods(args, command.read_bundles(args))
        overlaps = {"optimization alone": 0.75, "ran": 0.8, "ran + 5 steps": 0.7}
        results = {name: MethodResult(pairs=[{"dsc": dsc}, {"dsc": dsc + 0.001}]) for name, dsc in overlaps.items()}
        said = command._answers(args, results, methods)
        assert said["ran better than optimization alone"].startswith("yes: DSC +0.050 in the mean of 2 pairs")
        worse = "ran + 5 steps better than ran"
        assert said[worse].startswith("no: DSC -0.100")
        assert said[worse].endswith("; use --refine_steps 0")
        assert [question for question, words in said.items() if "--refine_steps 0" in words] == [worse]
        trade = [[{"dsc": 0.5, "tre": 2.0}] * 2, [{"dsc": 0.4, "tre": 1.0}] * 2]  # worse by one, better by the other
        mixed = dict(zip(("ran", "ran + 5 steps"), [MethodResult(pairs=pairs) for pairs in trade], strict=True))
        assert "--refine_steps 0" not in str(command._answers(args, mixed, methods))
        failed = {**results, "ran": MethodResult(error="it is not there.")}
        assert list(command._answers(args, failed, methods)) == ["ran + 5 steps better than optimization alone"]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--methods", "gredy"], r"method 'gredy' is unknown, expected .* ran, or .*Did you mean 'greedy'"),
            (["--methods", "voxelmorph"], "give those of MONAI's VoxelMorph by --voxelmorph_ckpt"),
            (["--voxelmorph_ckpt", "none.pt"], "voxelmorph_ckpt 'none.pt' does not exist"),
            (["--set", "spatial_sice=1"], r"no bundle has a key 'spatial_sice' to set\. Did you mean 'spatial_size'"),
        ],
    )
    def test_refused(self, ran: list[str], words: list[str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            methods_of([*ran, *words])

    def test_no_weights_there(self, ran: list[str], tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"ckpt '.*none\.pt' does not exist"):
            command.main([*ran, "--ckpt", str(tmp_path / "none.pt"), "--methods", "identity"])

    def test_no_bundle_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"evaluate\.json' does not exist"):
            methods_of(["--bundle", str(tmp_path)])


class TestArguments:
    def test_each_bundle_gets_its_own(self, ran: list[str], repository: Path) -> None:
        words = [*ran, *ran, "--bundle", str(repository / "bundles" / "r2n2"), "--ckpt", "a.pt", "b.pt", "c.pt"]
        words += ["--set", "steps=3", "geometry=ran0", "--dataset_dir", "elsewhere", "--pairs", "4"]
        configs = command.read_bundles(command.parse_arguments(words))
        assert {name: config["ckpt"] for name, config in configs.items()} == {
            "ran": "a.pt",
            "ran-2": "b.pt",
            "r2n2": "c.pt",
        }
        assert (configs["ran"]["geometry"], configs["r2n2"]["steps"]) == ("ran0", 3)
        assert "steps" not in configs["ran"]
        assert {(config["dataset_dir"], config["val_pairs"]) for config in configs.values()} == {("elsewhere", 4)}

    @pytest.mark.parametrize(
        "words",
        [
            ["--threads", "0"],
            ["--pairs", "-1"],
            ["--ckpt", "a", "b"],
            ["--dataset_dir", "a", "--pairs_file", "b"],
            ["--stiffness", "0"],
            ["--figure", "a.png"],
        ],
    )
    def test_refused(self, ran: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            command.parse_arguments([*ran, *words])
        assert words[0] in capsys.readouterr().err


@pytest.mark.slow
class TestProgram:
    def run(self, *words: Any) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "monai_regplugins.benchmark", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def test_table(self, ran: list[str], dataset: Path) -> None:
        done = self.run(*ran, "--dataset_dir", dataset, "--pairs", 1, "--methods", "identity", "demons")
        assert done.returncode == 0, done.stderr
        rows = cells(done.stdout)
        assert list(rows) == ["identity (before)", "demons"]
        assert float(rows["demons"][9]) > 50, "MiB"

    def test_mistakes_are_told_in_one_line(self, ran: list[str], tmp_path: Path) -> None:
        done = self.run(*ran, "--dataset_dir", tmp_path)
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert str(tmp_path) in lines[0]
        assert "Traceback" not in done.stderr

"""The benchmark scripts: both run, and they compare like with like."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import math
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from PIL import Image
from scipy.ndimage import map_coordinates

from monai_regplugins.benchmark.elastix import ElastixResult
from monai_regplugins.checks import InputError
from monai_regplugins.grids import world_affine
from monai_regplugins.inferers.dense import DenseInferer
from monai_regplugins.memory import peak_of_this_process
from monai_regplugins.networks.nets import RAN
from monai_regplugins.outputs import metrics_csv
from monai_regplugins.phantoms.abdomen import abdomen_subject, make_abdomen
from monai_regplugins.phantoms.cine_lung import make_cine_lung
from monai_regplugins.phantoms.thorax import make_thorax, thorax_subject
from monai_regplugins.readers.cine import CineSeries

NETWORKS = ["initial", "VoxelMorph", "RAN"]


@pytest.fixture
def script(monkeypatch, repository):
    """Import a script as it is imported from its own folder; undo what it sets for the whole process."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    set_determinism(None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_abdomen(tmp_path_factory.mktemp("phantom") / "data", 2, 2, (20, 16, 20), 16.0)


def tiny(dataset):
    return {"dataset_dir": str(dataset), "batch_size": 1, "spatial_size": [16, 16, 16], "val_pairs": 1}


def table(markdown):
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return {line[0]: line[1:] for line in lines[2:]}


@pytest.mark.slow
def test_comparison_runs(script, dataset, tmp_path):
    output = tmp_path / "comparison.json"
    options = "--batch_size 1 --spatial_size 16 16 16 --val_pairs 1 --seed 3 --steps 2 --output"
    markdown = script("compare_voxelmorph").main(["--dataset_dir", str(dataset), *options.split(), str(output)])
    content = json.loads(output.read_text(encoding="utf-8"))
    results = content["results"]
    assert list(table(markdown)) == list(results) == NETWORKS
    assert (content["data_set"], content["steps"], content["seed"]) == ("AbdomenPhantom", 2, 3)
    for name in NETWORKS[1:]:
        row = results[name]["pairs"][0]
        assert results[name]["metrics"]["dsc"] == pytest.approx(row["dsc"])
        assert results["initial"]["metrics"]["dsc"] == pytest.approx(row["dsc_before"])
        assert len(results[name]["losses"]) == 2
        assert results[name]["seconds_per_step"] > 0
    # two steps of the warm-up leave it close to the identity it starts from
    assert results["VoxelMorph"]["metrics"]["ncc"] == pytest.approx(results["initial"]["metrics"]["ncc"], abs=0.01)


def test_methods_see_the_same_batches(script, dataset):
    compare = script("compare_voxelmorph")
    config = compare.of_steps(compare.read_config(compare.DEFAULT_CONFIG, tiny(dataset)), 2)
    twins = [compare.make_method(compare.voxelmorph_parser(config), 0) for _ in range(2)]
    loader = ConfigParser(config).get_parsed_content("train#dataloader")
    compare.train(twins, loader, 0)
    assert torch.equal(torch.stack(twins[0].losses), torch.stack(twins[1].losses))
    assert len(twins[0].losses) == 2
    assert not torch.equal(twins[0].losses[0], twins[0].losses[1])


def test_only_the_network_differs(script, dataset):
    compare = script("compare_voxelmorph")
    config = compare.of_steps(compare.read_config(compare.DEFAULT_CONFIG, tiny(dataset)), 5)
    before = copy.deepcopy(config)
    other = compare.voxelmorph_parser(config).get()
    assert config == before
    other["train"]["inferer"].pop("divisor")
    other["validate"]["inferer"].pop("divisor")
    assert {key for key in config if other[key] != config[key]} == {"network_def"}


def test_without_steps_it_takes_those_of_the_configuration(script, dataset, tmp_path):
    compare = script("compare_voxelmorph")
    file = tmp_path / "configs" / "train.json"
    file.parent.mkdir()
    plan = {"bundle_root": "", "max_epochs": 3, "pairs_per_epoch": "$2 * 5", "batch_size": 4}
    file.write_text(json.dumps(plan), encoding="utf-8")
    joined = compare.of_steps(compare.read_config(file, {}), None)
    assert (joined["max_epochs"], joined["pairs_per_epoch"]) == (1, 3 * 3 * 4)  # the last batch of an epoch is short
    assert joined["bundle_root"] == str(tmp_path)
    with pytest.raises(InputError, match=r"no key 'max_epoch' to set\. Did you mean 'max_epochs'"):
        compare.read_config(file, {"max_epoch": 1})


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--step"], ["--ablate"]])
def test_forward_cost_runs(script, monkeypatch, tmp_path, options):
    cost = script("forward_cost")
    monkeypatch.setattr(cost, "peak_in_process", lambda case, *_: 100.0 if case == cost.BASELINE else 200.0)
    output = tmp_path / "cost.md"
    rows = table(cost.main(["--size", "16", "16", "--runs", "1", *options, "--output", str(output)]))
    assert rows == table(output.read_text(encoding="utf-8"))
    expected = [case for case in cost.CASES if "--ablate" in options or case in NETWORKS]
    assert list(rows) == [*(expected[1:] if "--ablate" in options else expected), "baseline"]
    first = next(iter(rows.values()))
    assert (first[1], first[4]) == ("1.00", "1.00")
    assert all(float(cell) > 0 for case, row in rows.items() if case != "baseline" for cell in row)


@pytest.mark.slow
def test_peak_memory_is_of_the_process_alone(script):
    cost = script("forward_cost")
    ballast = torch.ones(2**28)  # 1 GiB here must not count there
    baseline, forward = (cost.peak_in_process(case, [16, 16, 16], False, 1) for case in ("baseline", "VoxelMorph"))
    assert 0 < baseline < forward < cost.peak_of_this_process()
    del ballast


def test_without_its_speedups_ran_gives_the_same_field(script):
    cost = script("forward_cost")
    image = torch.rand(1, 2, 16, 16, 16)
    fields = {}
    for case in list(cost.CASES)[1:]:
        torch.manual_seed(1)
        fields[case] = cost.CASES[case](spatial_dims=3)(image).detach()
    reference = fields.pop("RAN")
    assert reference.std() > 0
    for case, field in fields.items():
        torch.testing.assert_close(field, reference, rtol=1e-3, atol=1e-3 * float(reference.std()), msg=case)


def test_default_layout_holds_inside_only(script):
    cost = script("forward_cost")
    x = torch.rand(1, 4, 4, 4, 4)
    original = cost.ran.channels_last
    with cost.default_layout():
        assert all(m.channels_last(x) is x for m in (cost.ran, cost.residual_conv, cost.residual_aligner))
    assert cost.ran.channels_last is original
    assert original(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_voxelmorph_starts_from_the_identity(script, spatial_dims):
    unet = script("voxelmorph_unet")
    sizes = [3 * unet.DIVISOR, *[2 * unet.DIVISOR] * (spatial_dims - 1)]
    field = unet.voxelmorph_unet(spatial_dims)(torch.rand(2, 2, *sizes))
    assert field.shape == (2, spatial_dims, *sizes)
    assert 0 < field.abs().max() < 1e-3


@pytest.fixture(scope="module")
def cine_lung(tmp_path_factory):
    return make_cine_lung(tmp_path_factory.mktemp("cine") / "data", 2, 2, 4, (40, 40), 6.4)


@pytest.fixture
def r2n2(script, tmp_path):
    """Words of a command line: random weights, which move something, on a grid as small as there can be."""
    compare = script("compare_bspline")
    network = ConfigParser(compare.read_config(compare.DEFAULT_CONFIG, {})).get_parsed_content("network_def")
    with torch.no_grad():
        for weight in network.parameter_net.parameters():
            weight += 0.1 * torch.randn_like(weight)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return ["--ckpt", str(tmp_path / "model.pt"), "--spatial_size", "32", "32"]


class TestBSpline:
    """R2N2 against the B-spline registration, on a series of four frames."""

    METHODS = ("before", "B-spline", "SimpleITK", "R2N2", "R2N2-refined")

    @pytest.fixture
    def options(self, r2n2, cine_lung):
        """Words of a command line: as little work as there can be."""
        return ["--dataset_dir", str(cine_lung), *r2n2, "--series", "1", "--iterations", "2", "--refine_steps", "2"]

    def errors_before(self, folder):
        """Distances in mm of all landmarks of the first series, from the files."""
        content = json.loads((folder / "CineLungPhantom_dataset.json").read_text())
        pairs = [
            pair for pair in content["registration_val"] if pair["fixed"] == content["registration_val"][0]["fixed"]
        ]
        assert len(pairs) == 3
        files = [[pair[key].replace("images", "landmarks") for key in ("fixed", "moving")] for pair in pairs]
        points = [[np.loadtxt(folder / f.replace(".nii.gz", ".csv"), delimiter=",") for f in both] for both in files]
        return np.concatenate([6.4 * np.linalg.norm(fixed - moving, axis=1) for fixed, moving in points])

    @pytest.mark.slow
    def test_table(self, script, cine_lung, options, monkeypatch, tmp_path):
        compare, output = script("compare_bspline"), tmp_path / "comparison.json"
        monkeypatch.setattr(compare, "peak_in_process", lambda *_: 123.4)
        markdown = compare.main([*options, "--output", str(output)])
        rows, content = table(markdown), json.loads(output.read_text(encoding="utf-8"))

        assert tuple(rows) == tuple(content["rows"]) == self.METHODS
        assert content["data_set"] == "CineLungPhantom"
        assert content["series_and_pairs"] == "1 and 3"
        errors = self.errors_before(cine_lung)
        assert content["rows"]["before"]["errors"] == pytest.approx(errors.tolist(), abs=1e-3)
        expected = [errors.mean(), *np.percentile(errors, [50, 95, 100])]
        assert [float(cell) for cell in rows["before"][:4]] == pytest.approx(expected, abs=0.0051)
        assert rows["before"][5:] == ["0.000", "-", "-", "-"]
        for name in self.METHODS[1:]:
            row = content["rows"][name]
            assert len(row["errors"]) == len(errors)
            assert not np.allclose(row["errors"], errors, atol=1e-3), "nothing was moved"
            assert len(row["overlaps"]) == len(row["folded"]) == len(row["seconds"]) == 3
            assert float(rows[name][0]) == pytest.approx(np.mean(row["errors"]), abs=0.0051)
            assert rows[name][8] == "123"
        steps = json.loads(compare.DEFAULT_CONFIG.read_text())["steps"]
        assert (rows["R2N2"][6], rows["R2N2-refined"][6]) == (str(7 * steps), "-")

        ratios = dict(line[2:].split(": ", 1) for line in markdown.splitlines() if line.startswith("- "))
        means = {
            name: {key: np.mean(content["rows"][name][key]) for key in ("errors", "seconds")}
            for name in rows
            if name != "before"
        }
        for baseline, name in itertools.product(("B-spline", "SimpleITK"), ("R2N2", "R2N2-refined")):
            seconds, error = (means[name][key] / means[baseline][key] for key in ("seconds", "errors"))
            assert float(ratios[f"{baseline} / {name} seconds"]) == pytest.approx(1 / seconds, abs=0.051)
            assert float(ratios[f"{name} / {baseline} mean TRE"]) == pytest.approx(error, abs=0.0051)

    def test_methods_can_be_chosen(self, script, options, monkeypatch):
        compare = script("compare_bspline")
        monkeypatch.setattr(compare, "peak_in_process", lambda *_: 1.0)
        assert list(table(compare.main([*options, "--methods", "R2N2"]))) == ["before", "R2N2"]

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["B-spline", "R2N2-refined"])
    def test_peak_memory_of_a_process(self, script, options, method):
        ballast = torch.ones(2**28)  # 1 GiB here must not count there
        compare = script("compare_bspline")
        peak = compare.peak_in_process(method, options)
        assert 0 < peak < peak_of_this_process()
        del ballast

    def test_unknown_keys_are_refused(self, script):
        compare = script("compare_bspline")
        with pytest.raises(InputError, match=r"no key 'datasets_dir' to set\. Did you mean 'dataset_dir'"):
            compare.read_config(compare.DEFAULT_CONFIG, {"datasets_dir": "x"})
        with pytest.raises(SystemExit):
            compare.parse_arguments(["--iterations", "0"])

    @pytest.mark.slow
    def test_stopping_curve(self, script, options, tmp_path, monkeypatch):
        """Always all steps is the comparison's own row; stopping takes no more steps than that."""
        stopping, compare = script("stopping_curve"), script("compare_bspline")
        monkeypatch.setattr(compare, "peak_in_process", lambda *_: 1.0)
        words = options[: options.index("--spatial_size")]
        rows = table(stopping.main([*words, "--output", str(tmp_path / "stopping.md")]))
        full = table(compare.main([*words, "--iterations", "1"]))["R2N2"][0]
        steps = json.loads(compare.DEFAULT_CONFIG.read_text())["steps"]
        assert [float(rows[f"always {t}"][0]) for t in range(1, steps + 1)] == list(range(1, steps + 1))
        assert float(rows[f"always {steps}"][2]) == pytest.approx(float(full), abs=0.0051)
        assert rows[f"always {steps}"][3] == "0.0"
        stopped = [float(row[0]) for name, row in rows.items() if name.startswith("until")]
        assert len(stopped) == len(stopping.PATIENCE) * len(stopping.DECREASES)
        assert all(2 <= count <= steps for count in stopped)


class TestSeries:
    """R2N2 against the B-spline registration on a file of frames, where there is nothing but the images."""

    @pytest.mark.slow
    @pytest.mark.parametrize("every", [1, 2])
    def test_table(self, script, cine_lung, r2n2, every, tmp_path):
        compare, (source, *_) = script("compare_series"), sorted((cine_lung / "series").iterdir())
        output, figure = tmp_path / "series.json", tmp_path / "curves.png"
        words = ["--series", str(source), *r2n2, "--iterations", "2", "--refine_steps", "2", "--frames", str(every)]
        markdown = compare.main([*words, "--output", str(output), "--figure", str(figure)])
        rows, content = table(markdown), json.loads(output.read_text(encoding="utf-8"))

        assert tuple(rows) == tuple(content["rows"]) == ("before", "B-spline", "SimpleITK", "R2N2", "R2N2-refined")
        frames = np.moveaxis(nib.load(source).get_fdata()[:, :, 0], -1, 0)
        means = frames.mean(axis=(1, 2))
        fixed = int(np.abs(means - means.mean()).argmin())
        assert (content["fixed_frame"], content["frames_and_pixels"]) == (fixed, f"{4 // every} of 40 x 40")
        deviations = frames.std(axis=(1, 2), ddof=1)
        seen = np.clip((frames - means[:, None, None]) / deviations[:, None, None], -2, 2)
        before = content["rows"]["before"]
        expected = [np.square(one - seen[fixed]).mean() for one in seen[::every]]
        assert before["mse"] == pytest.approx(expected, rel=1e-4)
        expected = [np.corrcoef(one.ravel(), seen[fixed].ravel())[0, 1] for one in seen[::every]]
        assert before["ncc"] == pytest.approx(expected, rel=1e-4)
        assert rows["before"][2:] == ["0.000", "0.00", "-", "-", "-"]
        for name in ("B-spline", "SimpleITK", "R2N2", "R2N2-refined"):
            row = content["rows"][name]
            moved = not np.allclose(row["mse"], before["mse"], rtol=1e-3)
            assert moved or name == "R2N2-refined", "nothing was moved"  # which drops what is no better
            assert name != "R2N2-refined" or np.mean(row["mse"]) < 1.001 * np.mean(before["mse"])
            assert float(rows[name][0]) == pytest.approx(np.mean(row["mse"]), abs=5.1e-5)
            assert float(rows[name][5]) == pytest.approx(row["seconds"] / (4 // every), abs=5.1e-5)
        steps = json.loads((compare.CONFIGS / "inference.json").read_text())["steps"]
        assert (rows["R2N2"][4], rows["R2N2-refined"][4]) == (str(7 * steps), "-")
        with Image.open(figure) as picture:
            assert picture.width > 500

    def test_curves(self, script):
        """Every frame but the times of those that are drawn, and no image."""
        compare = script("compare_series")
        frames = np.zeros((3, 4, 4), dtype=np.float32)
        rows = {name: compare.Row(mse=[3, 2, 1], breath=[0, 1, 2], displacement=[1, 1, 2]) for name in compare.COLORS}
        for times, x in ((None, [0, 5, 10]), (np.array([0.0, 0.5, 2.0]), [0.0, 0.5, 2.0])):
            figure = compare.curves_figure(rows, CineSeries(frames, (1.0, 1.0), times, np.eye(4)), 5)
            lines = [axes.get_lines() for axes in figure.axes]
            assert [len(found) for found in lines] == [5, 4, 4]
            assert all(line.get_xdata().tolist() == x for found in lines for line in found)
            assert list(lines[1][0].get_ydata()) == [0, 1, 2]
            assert not any(axes.get_images() for axes in figure.axes)

    def test_figure_is_checked_before_the_work(self, script, tmp_path):
        with pytest.raises(InputError, match=r"figure is '.*', expected a file name that ends in \.png or"):
            script("compare_series").main(["--figure", str(tmp_path / "curves.tif")])


class TestUncertainty:
    """Whether the standard deviation of a registration predicts its error."""

    @pytest.mark.slow
    def test_tables(self, script, repository, tmp_path):
        uncertainty, output = script("uncertainty"), tmp_path / "uncertainty.json"
        frame = next((repository / "docs" / "images").glob("cine_lung_phantom.png"))
        with Image.open(frame) as picture:
            picture.convert("L").resize((64, 48)).save(tmp_path / "gray.png")
        words = [
            "--bundles",
            "r2n2",
            "--pairs",
            "1",
            "--images",
            str(tmp_path / "gray.png"),
            "--cost",
            "--set",
            "steps=3",
        ]
        markdown = uncertainty.main([*words, "--output", str(output)])
        scores = json.loads(output.read_text(encoding="utf-8"))["scores"]
        assert list(scores) == ["r2n2, phantom", "r2n2, known warps", "r2n2, known warps of given images"]
        rows = table(markdown.split("\n\n")[0])
        for name, score in scores.items():
            assert float(rows[name][3]) == pytest.approx(score["coverage"], abs=5.1e-4)
            assert 0 < score["factor_85"] < score["factor"] < score["factor_95"]
            assert score["ause"] < score["ause_random"]
            assert score["cost"] > 0  # times of a busy machine say no more
            assert all(values[0] == pytest.approx(score["error"]) for values in score["curves"].values())

    def test_summary_of_gaussian_errors(self, script):
        """Where sigma is the deviation that the errors were drawn with, nothing has to be multiplied."""
        uncertainty = script("uncertainty")
        generator = torch.Generator().manual_seed(0)
        deviation = torch.rand(100000, generator=generator) + 0.5
        error = deviation * torch.randn(3, 100000, generator=generator).norm(dim=0) / 3**0.5
        score = uncertainty.Score(3, [error], [deviation], [torch.rand(100000, generator=generator)])
        row = uncertainty.summary(score)
        assert row["coverage"] == pytest.approx(0.9, abs=0.01)
        assert row["factor"] == pytest.approx(1.0, abs=0.02)
        assert row["ause"] < row["ause_length"]
        assert row["ause_length"] == pytest.approx(row["ause_random"], abs=0.02)
        curves = uncertainty.curves(score)
        assert curves["error"][2] == pytest.approx(float(error.sort().values[:50000].mean()), rel=1e-4)

    def test_a_known_warp_is_that_between_the_images(self, script):
        """Up to the noise, which is 1 % of the range."""
        uncertainty = script("uncertainty")
        x = np.indices((48, 40)).astype(float)
        image = 100 * np.sin(x[0] / 5) * np.cos(x[1] / 6)
        pair = uncertainty.warped_pair(image, np.diag([2.0, 1.5, 1.0]), 3)
        assert pair.ddf.norm(dim=0).max() > 1
        positions = np.indices((48, 40)) + pair.ddf.numpy()
        expected = map_coordinates(image, positions, order=3, mode="nearest")
        assert (pair.fixed[0].numpy() - expected).std() == pytest.approx(2.0, rel=0.15)
        assert not np.allclose(uncertainty.warped_pair(image, np.eye(3), 4).ddf, pair.ddf)
        assert torch.equal(uncertainty.warped_pair(image, np.eye(3), 3).ddf, pair.ddf)


class TestElastix:
    """RegNet against elastix on two slices over time; elastix itself runs in the slow test only."""

    METHODS = ("elastix-1R", "elastix-3R", "RegNet-fast", "RegNet-exact", "RegNet-refined")
    STEP = np.array([1.0, 0.0])  # of the stand-in for elastix, voxels
    MATRIX = np.array([[1.2, 0.1, 3.0], [0.0, 0.9, -4.0], [0.0, 0.0, 1.0]])  # fixed to moving world

    @pytest.fixture
    def options(self, script, cine_lung, tmp_path):
        """Words of a command line: the bundle's configuration in 2D, with a narrow network of random weights."""
        compare = script("compare_elastix")
        config = json.loads(compare.DEFAULT_CONFIG.read_text(encoding="utf-8"))
        config |= {"spatial_dims": 2, "width": 0.2, "intensity_range": [0.0, 200.0], "device": "$torch.device('cpu')"}
        file = tmp_path / "configs" / "evaluate.json"
        file.parent.mkdir()
        file.write_text(json.dumps(config), encoding="utf-8")
        network = ConfigParser(compare.read_config(file, {})).get_parsed_content("network_def")
        network.train().dense_mode = "window"
        for _ in range(30):
            network(torch.rand(4, 2, 60, 60))  # batch statistics, without which nothing comes through
        torch.save(network.state_dict(), tmp_path / "model.pt")
        words = f"--config {file} --dataset_dir {cine_lung} --ckpt {tmp_path / 'model.pt'} --voxel_size 6.4 --pairs 2"
        return words.split()

    @pytest.fixture
    def stand_in(self, script, monkeypatch):
        """An elastix that moves everything by a voxel along the first axis, and notes what it was given."""
        compare, calls = script("compare_elastix"), []

        def register(fixed, moving, spacing, method, metric, mask, threads):
            calls.append((fixed, moving, spacing, method, metric, mask, threads))
            ddf = torch.zeros(1, 2, *fixed.shape[2:])
            ddf[:, 0] = 1.0
            return ElastixResult(ddf, 0.0)

        monkeypatch.setattr(compare, "register_elastix", register)
        monkeypatch.setattr(compare, "load_elastix", lambda: None)
        monkeypatch.setattr(compare, "peak_in_process", lambda *_: 123.4)
        return calls

    def points(self, folder):
        """Landmarks of the fixed and the moving images of the first two pairs, voxels of 6.4 mm, from the files."""
        content = json.loads((folder / "CineLungPhantom_dataset.json").read_text())
        pairs = content["registration_val"][:2]
        files = [[pair[key].replace("images", "landmarks") for key in ("fixed", "moving")] for pair in pairs]
        points = [[np.loadtxt(folder / f.replace(".nii.gz", ".csv"), delimiter=",") for f in both] for both in files]
        return (np.concatenate(side) for side in zip(*points, strict=True))

    @pytest.mark.slow
    def test_table(self, script, cine_lung, options, stand_in, tmp_path):
        compare, output = script("compare_elastix"), tmp_path / "comparison.json"
        rows = table(compare.main([*options, "--no_affine", "--metric", "mi", "--output", str(output)]))
        content = json.loads(output.read_text(encoding="utf-8"))
        fixed, moving = self.points(cine_lung)
        errors = {
            "before": 6.4 * np.linalg.norm(fixed - moving, axis=1),
            "elastix-3R": 6.4 * np.linalg.norm(fixed + self.STEP - moving, axis=1),
        }
        assert tuple(rows) == tuple(content["rows"]) == ("before", *self.METHODS)
        assert (content["pairs"], content["landmarks"], content["data_set"]) == (2, len(fixed), "CineLungPhantom")
        within = errors["before"] <= 8
        for name, expected in errors.items():
            assert content["rows"][name]["errors"] == pytest.approx(expected.tolist(), abs=1e-3)
            near = expected[within]
            assert rows[name][:5] == [
                f"{expected.mean():.2f} ± {expected.std(ddof=1):.2f}",
                *(f"{value:.2f}" for value in np.percentile(expected, [50, 95, 100])),
                f"{near.mean():.2f} ± {near.std(ddof=1):.2f}",
            ]
        assert rows["before"][-3:] == ["-", "-", "-"]
        assert (rows["elastix-3R"][-2], rows["elastix-3R"][-1]) == ("1.000", "123")
        for name in self.METHODS:
            assert len(content["rows"][name]["correlations"]) == len(content["rows"][name]["seconds"]) == 2
        fast, exact = (np.array(content["rows"][f"RegNet-{mode}"]["errors"]) for mode in ("fast", "exact"))
        moved, apart = (np.abs(fast - other).mean() for other in (errors["before"], exact))
        assert moved > 0.01, "mm"
        assert 0 < apart < 0.5 * moved, "interpolated against predicted, between every second voxel"
        assert content["rows"]["RegNet-refined"]["errors"] != content["rows"]["RegNet-fast"]["errors"]

    def test_elastix_gets_what_regnet_gets(self, script, options, stand_in, monkeypatch):
        compare, seen = script("compare_elastix"), []
        monkeypatch.setattr(
            DenseInferer,
            "__call__",
            lambda _, image, network, **known: seen.append((image, known)) or {"ddf": image * 0},
        )
        compare.main([*options, "--methods", "elastix-1R", "RegNet-fast", "--no_affine", "--threads", "2"])
        assert len(stand_in) == len(seen) == 2
        for (fixed, moving, spacing, *rest), (image, known) in zip(stand_in, seen, strict=True):
            assert torch.equal(torch.cat([moving, fixed], dim=1), image)
            assert not torch.equal(moving, fixed)
            assert torch.equal(known["spacing"], spacing[None])
            assert rest == ["bspline_1r", "ncc", None, 2]

    def test_affine_errors_are_in_the_moving_world(self, script, cine_lung, options, stand_in, monkeypatch):
        prepare = importlib.import_module("monai_regplugins.transforms.prepare")
        matrices = {"none": torch.eye(3, dtype=torch.float64), "affine": torch.from_numpy(self.MATRIX)}
        monkeypatch.setattr(prepare, "initial_matrix", lambda name, *_, **__: matrices[name])
        output = cine_lung.parent / "affine.json"
        rows = table(script("compare_elastix").main([*options, "--methods", "elastix-1R", "--output", str(output)]))
        content = json.loads(output.read_text(encoding="utf-8"))["rows"]
        image = nib.load(next((cine_lung / "imagesTr").iterdir()))
        fixed, moving = self.points(cine_lung)
        assert tuple(rows) == ("before", "affine", "elastix-1R")
        assert rows["elastix-1R"][-1] == "123"
        matrix = world_affine(torch.from_numpy(image.affine), 2, "image").numpy()

        def world(points, affine):
            return points @ affine[:2, :2].T + affine[:2, 2]

        target = world(moving, matrix)
        for name, start in (("before", target), ("affine", world(world(fixed, matrix), self.MATRIX))):
            points = world(fixed, matrix) if name == "before" else start
            expected = np.linalg.norm(points - target, axis=1)
            assert content[name]["errors"] == pytest.approx(expected.tolist(), abs=1e-3)
        errors = np.linalg.norm(world(world(fixed + self.STEP, matrix), self.MATRIX) - target, axis=1)
        assert content["elastix-1R"]["errors"] == pytest.approx(errors.tolist(), abs=1e-3)
        within = np.array(content["affine"]["errors"]) <= 8
        assert 5 < within.sum() < len(errors) - 5
        assert rows["elastix-1R"][4] == f"{errors[within].mean():.2f} ± {errors[within].std(ddof=1):.2f}"
        assert len(content["affine"]["seconds"]) == 2

    def test_columns_without_values_are_left_out(self, script):
        compare = script("compare_elastix")
        row = compare.Row(correlations=[0.5, 0.7], folded=[0.0, 1.0])
        lines = compare.to_markdown({"before": row}, {"pairs": 2}).splitlines()
        assert lines == [
            "| method | NCC | folding (%) |",
            "| --- | ---: | ---: |",
            "| before | 0.600 | 0.500 |",
            "",
            "- pairs: 2",
        ]

    def test_bad_options(self, script):
        compare = script("compare_elastix")
        for words in ("--pairs -1", "--threads 0", "--methods elastix-2R"):
            with pytest.raises(SystemExit):
                compare.parse_arguments(words.split())

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["elastix-1R", "RegNet-fast"])
    def test_peak_memory_of_a_process(self, script, options, method):
        if method.startswith("elastix"):
            pytest.importorskip("itk", reason="needs itk-elastix, the extra 'benchmark'")
        ballast = torch.ones(2**29)  # 2 GiB here must not count there
        assert 100 < script("compare_elastix").peak_in_process(method, options) < 2048
        del ballast


class TestSeparability:
    """RAN's motion separability: the bound alone, and two random networks on one pair."""

    def test_bound_alone(self, script, tmp_path):
        output, figure = tmp_path / "bound.json", tmp_path / "bound.png"
        rows = table(script("separability").main(["--output", str(output), "--figure", str(figure)]))
        assert list(rows) == [f"q = {q}" for q in range(5)]
        assert rows["q = 4"] == ["32, 16, 8, 4, 2", "61, 29, 13, 5, 1", "124, 60, 28, 12, 4", "2420.0", "32"]
        assert json.loads(output.read_text(encoding="utf-8"))["counts"] == {}
        with Image.open(figure) as image:
            assert image.size[0] > 500

    @pytest.mark.slow
    def test_pairs_of_two_networks(self, script, dataset, tmp_path):
        runs = []
        for preset in ("ran0", "ran4_released"):
            torch.save(RAN(preset=preset).state_dict(), tmp_path / f"{preset}.pt")
            runs.append(f"{preset}={tmp_path / preset}.pt")
        output = tmp_path / "pairs.json"
        options = "--spatial_size 16 16 16 --val_pairs 1 --samples 200 --max_distance 6 --max_difference 4 --output"
        arguments = ["--runs", *runs, "--dataset_dir", str(dataset), *options.split(), str(output)]
        markdown = script("separability").main([*arguments, "--figure", str(tmp_path / "pairs.png")])
        counts = json.loads(output.read_text(encoding="utf-8"))["counts"]
        rows = {line.split(" | ")[0].strip("| "): line for line in markdown.splitlines() if line.startswith("| ran")}
        assert list(counts) == list(rows) == ["ran0", "ran4_released"]
        for name, pairs in counts.items():
            assert np.shape(pairs) == (6, 4)
            assert f" {np.sum(pairs) / 1e6:.3f} " in rows[name]
        assert np.sum(counts["ran0"]) > 0

    def test_the_third_convolution_is_not_dilated(self, script):
        separability = script("separability")
        released = separability.bound_of(separability.PRESETS["ran4_released"], 1.0)
        assert released.dilations == ((8, 8, 1), (4, 4, 1), (2, 2, 1), (1, 1, 1), (1, 1, 1))
        assert separability.bound_of(separability.PRESETS["ran3"], 2.0) == separability.MotionSeparability.motion_aware(
            3
        )

    def test_bad_options(self, script, tmp_path):
        main = script("separability").main
        for words in ("--samples 0", "--c -1", "--runs ran0", "--runs ran0=a.pt ran0=b.pt"):
            with pytest.raises(SystemExit):
                main(words.split())
        with pytest.raises(InputError, match="Did you mean 'ran4_plus'"):
            main(["--runs", "ran4_pluss=a.pt"])
        with pytest.raises(InputError, match=r"checkpoint 'a\.pt' does not exist"):
            main(["--runs", "ran0=a.pt"])


class TestAblation:
    """Variants of one configuration; trained in the slow test only, a stand-in writes the measures in the others."""

    TINY = ("max_epochs=2", "pairs_per_epoch=1", "batch_size=1", "spatial_size=[16,16,16]", "val_pairs=1")
    VARIANTS = ("--variant", "full", "--variant", "one head: network_def#num_heads=1; head_weighting=raw")

    @pytest.fixture
    def words(self, script, repository, dataset, tmp_path):
        config = repository / "bundles" / "ran" / "configs" / "train.json"
        tiny = [*self.TINY, f"dataset_dir={dataset}", "device=$torch.device('cpu')"]
        words = ["--config", str(config), "--set", *tiny, *self.VARIANTS, "--seeds", "0", "1"]
        return [*words, "--runs", str(tmp_path / "runs")]

    @pytest.fixture
    def trained(self, script, monkeypatch):
        """Trainings that end at once, and what they were asked for."""
        asked = []

        def run_process(command, threads):
            asked.append(json.loads(Path(command[-1]).read_text(encoding="utf-8")))
            seed, heads = asked[-1]["seed"], asked[-1].get("network_def#num_heads", 6)
            eval_dir = Path(asked[-1]["output_dir"], "eval")
            eval_dir.mkdir()
            measures = {"dsc_before": 0.2 + seed / 10, "dsc": heads / 10 + seed / 10, "tre": float("nan")}
            (eval_dir / "metrics.csv").write_text(metrics_csv([{"pair_id": "a", **measures}]), encoding="utf-8")
            return ""

        monkeypatch.setattr(script("ablation"), "run_process", run_process)
        return asked

    def test_table(self, script, words, trained, tmp_path):
        ablation, output = script("ablation"), tmp_path / "ablation.json"
        markdown = ablation.main([*words, "--output", str(output)])
        rows, content = table(markdown), json.loads(output.read_text(encoding="utf-8"))
        assert list(rows) == list(content["rows"]) == ["before", "full", "one head"]
        assert "| variant | parameters | DSC | folding (%) | SDlogJ | CPU s per training |" in markdown
        assert rows["before"] == ["-", "0.250 ± 0.071", "0.000 ± 0.000", "0.000 ± 0.000", "-"]
        assert [rows[name][1] for name in ("full", "one head")] == ["0.650 ± 0.071", "0.150 ± 0.071"]
        for name, network in (("full", RAN()), ("one head", RAN(num_heads=1, head_weighting="raw"))):
            assert rows[name][0] == f"{sum(p.numel() for p in network.parameters()):,}"
        assert (content["validation_pairs"], content["max_epochs"], content["seeds"]) == (1, 2, "0, 1")
        expected = list(itertools.product((0, 1), (None, "raw")))
        assert [(one["seed"], one.get("head_weighting")) for one in trained] == expected
        assert all(one["val_interval"] == "@max_epochs" for one in trained), "validation is after the last epoch"

        assert table(ablation.main(words)) == rows
        assert len(trained) == 4, "finished trainings are not repeated"
        (tmp_path / "runs" / "one_head_1" / "training.json").unlink()
        (tmp_path / "runs" / "one_head_1" / "eval" / "metrics.csv").unlink()
        (tmp_path / "runs" / "one_head_1" / "eval").rmdir()
        ablation.main(words)
        assert len(trained) == 5, "an interrupted one is"
        words[words.index("max_epochs=2")] = "max_epochs=3"
        with pytest.raises(InputError, match=r"full_0' holds a training of other settings; give --runs another folder"):
            ablation.main(words)

    @pytest.mark.slow
    def test_trainings(self, script, words, tmp_path):
        """Variants train by the bundle's own workflow and differ; the second call only reads."""
        ablation = script("ablation")
        words.remove("1")  # one seed
        rows = table(ablation.main(words))
        assert list(rows) == ["before", "full", "one head"]
        assert rows["full"][:-1] != rows["one head"][:-1]
        for folder in ("full_0", "one_head_0"):
            assert list((tmp_path / "runs" / folder / "models").glob("*.pt"))
        assert all(float(rows[name][-1].split(" ± ")[0]) > 0 for name in ("full", "one head"))
        assert table(ablation.main(words)) == rows

    def test_a_failed_training_is_reported(self, script, words, monkeypatch):
        ablation = script("ablation")
        monkeypatch.setattr(ablation, "run_process", lambda *_: "its process ended with status 1: error: no pairs.")
        with pytest.raises(InputError, match=r"full_0' failed, its .* no pairs\. See all of it: python -m monai"):
            ablation.main(words)

    def test_variants_of_a_command_line(self, script):
        ablation = script("ablation")
        assert ablation.variant("full") == ("full", {})
        text = "two: head_weighting=softmax; network_def#channels=[8, 16];a::b=null"
        settings = {"head_weighting": "softmax", "network_def#channels": [8, 16], "a::b": None}
        assert ablation.variant(text) == ("two", settings)
        assert ablation.folder_name("No confidence, 2D", 3) == "no_confidence_2d_3"

    def test_bad_options(self, script, words, trained, tmp_path):
        ablation = script("ablation")
        unknown = {
            "typo: head_weight=raw": "head_weight'.* Did you mean 'head_weighting'",
            "typo: networkdef#num_heads=1": "'networkdef', .* Did you mean 'network_def'",
        }
        for text, message in unknown.items():
            with pytest.raises(InputError, match=message):
                ablation.main([*words, "--variant", text])
        with pytest.raises(InputError, match=r"train\.jsn' does not exist"):
            ablation.main(["--config", str(tmp_path / "train.jsn"), "--variant", "full"])
        for one in ("full", "before", "a:seed=1", "a:x"):
            with pytest.raises(SystemExit):
                ablation.main([*words, "--variant", one])
        for one in ("--threads 0", "--seeds 1 1"):
            with pytest.raises(SystemExit):
                ablation.main([*words, *one.split()])
        with pytest.raises(SystemExit):
            ablation.main(words[:2])
        assert not trained


class TestCaptureRange:
    """RegNet's error over the length of the true displacement."""

    def test_who_finds_nothing_errs_by_the_displacement(self, script, tmp_path, monkeypatch):
        capture, output, figure = script("capture_range"), tmp_path / "capture.json", tmp_path / "capture.png"
        folder = make_thorax(tmp_path / "thorax", 1, 1, spatial_shape=(28, 22, 26), spacing=10.0)

        def inferer(image, network, spacing):
            return {"ddf": torch.zeros(len(image), 3, *image.shape[2:])}

        monkeypatch.setattr(capture, "load_network", lambda parser: None)
        monkeypatch.setattr(capture, "inferer_with", lambda parser, stages: inferer)
        words = ["--dataset_dir", str(folder), "--voxel_size", "10", "--theta_scale", "0.5", "--cases", "2"]
        words += ["--stages", "1", "--stages", "2", "1", "--output", str(output), "--figure", str(figure)]
        rows = table(capture.main(words))
        content = json.loads(output.read_text(encoding="utf-8"))
        assert list(content["curves"]) == ["stages 1", "stages 2, 1"]
        assert sum(content["voxels"]) == 2 * 28 * 22 * 26
        assert len(rows) > 3
        for name, (share, *errors) in rows.items():
            low, high = map(float, name.split(" to "))
            assert 0 <= float(share) <= 100
            assert all(low - 0.01 <= float(error) <= high + 0.01 for error in errors)
        with Image.open(figure) as picture:
            assert picture.width > 300

    def test_stages_are_those_of_the_prediction(self, script):
        capture = script("capture_range")
        config = capture.read_config(
            capture.CONFIGS / "evaluate.json", {"device": "cpu"}, capture.CONFIGS / "synthetic.json"
        )
        inferer = capture.inferer_with(ConfigParser(config), [4, 2, 1])
        assert isinstance(inferer, DenseInferer)
        assert list(inferer.stages) == [4, 2, 1]


class TestLinearAlignment:
    """The range of the initial alignment: draws whose truth is known, and what counts as success."""

    def test_draws_are_cut_and_repeat(self, script, monkeypatch):
        linear = script("linear_alignment")
        sphere = np.indices((20, 24, 28)).T - np.array([9.5, 11.5, 13.5])
        body = ((sphere**2).sum(axis=-1) < 64).T
        image = np.where(body, 40.0, -1000.0).astype(np.float32)
        monkeypatch.setattr(linear, "subject", lambda phantom, seed: (image, np.diag([2.0, 2.0, 2.0, 1.0]), body))
        first, again, other = (linear.draw("thorax", n, 0) for n in (1, 1, 2))
        assert np.array_equal(first.moving, again.moving)
        assert not np.array_equal(first.truth, other.truth)
        stretch = np.linalg.svd(first.truth[:3, :3])[1]
        assert stretch.min() == pytest.approx(stretch.max())
        assert 0.8 <= stretch.min() <= 1.25
        assert first.error(first.truth) == 0.0
        moved = first.truth.copy()
        moved[0, 3] += 4.0
        assert first.error(moved) == pytest.approx(2.0)
        inside = np.linalg.inv(first.moving_affine) @ first.truth @ np.r_[first.points.T, [np.ones(len(first.points))]]
        index = np.rint(inside[:3]).astype(int)
        there = ((index >= 0) & (first.moving.shape > index.T).T).all(axis=0)
        assert 0.3 < there.mean() <= 1.0
        assert first.moving[tuple(index[:, there])].mean() > -300, "the body is where the truth says"

    def test_failures_count_as_silent_without_a_warning(self, script):
        linear = script("linear_alignment")
        measured = [(0.5, False, 1.0), (3.0, False, 2.0), (9.0, True, 2.0), (float("inf"), True, 30.0)]
        results = [linear.Result("affine", "thorax", k, 0, *one) for k, one in enumerate(measured)]
        (line,) = table(linear.table(results, {})).values()
        assert line == ["4", "25.0", "25.0", "6.00", "2.0"]

    def test_a_run_goes_on_where_another_one_stopped(self, script, monkeypatch, tmp_path):
        linear, met, measured = script("linear_alignment"), [], tmp_path / "measured.jsonl"
        monkeypatch.setattr(linear, "draw", lambda phantom, number, seed: met.append((phantom, number)))
        monkeypatch.setattr(
            linear,
            "measure",
            lambda name, pair, number, seed: linear.Result(name, "thorax", number, seed, 0.5, False, 1.0),
        )
        words = ["--phantoms", "thorax", "--measured", str(measured), "--methods"]
        linear.main([*words, "affine", "--draws", "2"])
        linear.main([*words, "affine", "similarity", "--start", "1", "--draws", "2"])
        assert met == [("thorax", 0), ("thorax", 1), ("thorax", 1), ("thorax", 2)]
        content = measured.read_text(encoding="utf-8")
        rows = table(linear.main([*words, "affine", "--draws", "3"]))
        assert {name: row[0] for name, row in rows.items()} == {"similarity": "2", "affine": "3"}
        assert measured.read_text(encoding="utf-8") == content
        assert len(content.splitlines()) == 5

    def test_what_other_packages_raise_is_a_failure_with_a_word(self, script, monkeypatch):
        linear = script("linear_alignment")
        monkeypatch.setitem(linear.METHODS, "ants", ("ants", lambda pair: 1 // 0))
        pair = linear.Draw("thorax", *[None] * 6)
        result = linear.measure("ants", pair, 3, 0)
        assert (result.place, result.error, result.warned) == (("ants", "thorax", 3, 0), float("inf"), True)

    def test_other_packages_get_air_as_zero(self, script):
        linear = script("linear_alignment")
        pair = linear.Draw("thorax", np.full((2, 2, 2), -1000.0), np.eye(4), np.zeros((2, 2, 2)), np.eye(4), None, None)
        (fixed, _), (moving, _) = linear.images_of(pair)
        assert (fixed.max(), moving.min()) == (0.0, 1000.0)

    @pytest.mark.slow
    def test_the_right_place_is_not_among_the_best_few_rotations(self, script, monkeypatch):
        linear = script("linear_alignment")
        monkeypatch.setattr(linear, "CHEST", (112, 88, 104))
        monkeypatch.setattr(linear, "EDGE", 2.5)
        pair = linear.draw("thorax", 27, 0)
        assert pair.error(linear.ours("affine")(pair)) < 0.5

    @pytest.mark.slow
    def test_another_contrast_correlates_at_the_wrong_place(self, script):
        """Bright fat and dark bone: half a turn away, body on body, the correlation is 0.86."""
        linear = script("linear_alignment")
        pair = linear.draw("abdomen", 6, 0)
        units, signal = [-1000, -850, -120, 0, 60, 250, 700], [0, 60, 800, 600, 300, 420, 50]
        noise = 15 * np.random.default_rng(6).normal(size=pair.moving.shape)
        pair.moving = (np.interp(pair.moving, units, signal) + noise).astype(np.float32)
        assert pair.error(linear.ours("affine")(pair)) < 0.5

    @pytest.mark.slow
    def test_one_draw(self, script, tmp_path):
        linear = script("linear_alignment")
        words = ["--draws", "1", "--phantoms", "abdomen", "--methods", "affine", "--output", str(tmp_path / "a.json")]
        assert table(linear.main(words))["affine"][1] == "100.0"


class TestCost:
    """Time and memory of the whole command: what is measured, of which process, and what becomes of it."""

    def test_the_command_is_the_shortest_that_a_checkout_has(self, script, tmp_path):
        cost, package = script("cost"), tmp_path / "monai_regplugins" / "__main__.py"
        for file in (tmp_path / cost.CONFIG, package):
            file.parent.mkdir(parents=True)
        (tmp_path / cost.CONFIG).write_text("{}", encoding="utf-8")
        method = cost.Method(tmp_path, ("--seed", "1"))
        old = cost.inference_words(method, tmp_path, tmp_path / "out")
        package.touch()
        new = cost.inference_words(method, tmp_path, tmp_path / "out")
        bundle = str(tmp_path / "bundles" / "ran")
        images = [str(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
        assert old[:5] == ["monai.bundle", "run", "inference", "--config_file", str(tmp_path / cost.CONFIG)]
        assert new[:6] == ["monai_regplugins", "register", *images, "--bundle", bundle]
        given = [*new[6:], *(word for pair in zip(("--fixed", "--moving"), images, strict=True) for word in pair)]
        assert sorted(given) == sorted(old[5:])

    def test_child_alone_is_measured(self, script, tmp_path):
        ballast = torch.ones(2**27)  # half a gigabyte here must not count there
        cost, report = script("cost"), tmp_path / "report.json"
        burn = "import time; x = bytearray(2**26); t = time.process_time()\nwhile time.process_time() < t + 0.2: pass"
        cost.run_child(["cost", str(report), sys.executable, "-c", burn], cost.ROOT)
        found = json.loads(report.read_text(encoding="utf-8"))
        assert found["status"] == 0
        assert 0.2 <= found["cpu_seconds"] < 1.0
        assert 64 < found["peak_mib"] < 128
        del ballast

    def test_the_checkout_that_is_asked_for_is_measured(self, script, tmp_path, monkeypatch, repository):
        monkeypatch.chdir(repository)  # from which Python would import by itself
        package = tmp_path / "monai_regplugins"
        package.mkdir()
        (package / "__init__.py").write_text("", encoding="utf-8")
        found = tmp_path / "found.txt"
        code = f"import monai_regplugins; print(monai_regplugins.__file__, file=open({str(found)!r}, 'w'))"
        script("cost").run_child(["cost", str(tmp_path / "report.json"), sys.executable, "-c", code], tmp_path)
        assert found.read_text(encoding="utf-8").strip() == str(package / "__init__.py")

    def test_stages_by_file(self, script, tmp_path, monkeypatch):
        """Time goes to the innermost file that has a stage, and all of it goes somewhere."""
        child = script("child_process")
        assert child.stage_of("/a/monai_regplugins/transforms/initial_alignment_choice.py") == "initial alignment"
        assert child.stage_of("/a/monai_regplugins/transforms/warp_original.py") == "warp"
        assert child.stage_of("/a/monai_regplugins/transforms/load.py") == "load"
        assert child.stage_of("/a/numpy/core.py") == ""
        folder = tmp_path / "monai_regplugins" / "metrics"
        folder.mkdir(parents=True)
        lines = ["import time", "def burn():", "    t = time.process_time()"]
        lines += ["    while time.process_time() < t + 0.3: pass", "    return time.process_time() - t"]
        lines += [f"print(burn(), file=open({str(tmp_path / 'spent.txt')!r}, 'w'))"]
        code = "\n".join(lines)
        (folder / "busy.py").write_text(code, encoding="utf-8")
        (tmp_path / "run_busy.py").write_text(f"import sys; sys.path.insert(0, {str(folder)!r})\nimport busy")
        report = tmp_path / "report.json"
        script("cost").run_child(["stages", str(report), "run_busy"], tmp_path)
        found = json.loads(report.read_text(encoding="utf-8"))
        assert list(found) == [*child.STAGES, child.OTHER]
        spent = float((tmp_path / "spent.txt").read_text(encoding="utf-8"))
        assert found["measure"]["cpu_seconds"] == pytest.approx(spent, abs=0.03)
        assert sum(stage["cpu_seconds"] for stage in found.values()) < 1.0
        assert 5 < sum(stage["raised_mib"] for stage in found.values()) < 100

    def test_pair_is_the_phantom_at_another_size(self, script, tmp_path):
        cost, subject = script("cost"), thorax_subject(0, spatial_shape=(28, 22, 26), spacing=10.0)
        cost.make_pair(tmp_path, (56, 44, 52), subject)
        fixed, label = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("fixed", "fixed_label"))
        assert fixed.shape == label.shape == (56, 44, 52)
        assert fixed.header.get_zooms() == (5.0, 5.0, 5.0)
        repeated = subject.labels[0].repeat(2, 0).repeat(2, 1).repeat(2, 2)
        np.testing.assert_array_equal(label.dataobj, repeated)
        points = [np.loadtxt(tmp_path / f"{side}_points.csv", delimiter=",") for side in ("fixed", "moving")]
        worlds = [
            nib.affines.apply_affine(nib.load(tmp_path / f"{side}.nii.gz").affine, one)
            for side, one in zip(("fixed", "moving"), points, strict=True)
        ]
        expected = nib.affines.apply_affine(subject.affine, subject.landmarks[0])
        np.testing.assert_allclose(worlds[0], expected, atol=1e-3)
        assert np.linalg.norm(worlds[1] - worlds[0], axis=1).mean() > 15, "the moving image is not displaced"

    @pytest.mark.slow
    def test_table_and_lines(self, script, tmp_path, monkeypatch):
        cost, output, figure = script("cost"), tmp_path / "cost.json", tmp_path / "cost.png"
        spent = iter([3.0, 1.0, 2.0] * 3)

        def once(method, folder):
            voxels = nib.load(folder / "fixed.nii.gz").shape[0] ** 3
            if method.tree is None:
                raise InputError("killed")
            return {
                "cpu_seconds": next(spent) + 1e-5 * voxels,
                "seconds": 9.0,
                "peak_mib": 400 + voxels / 2**13,
                "tre": 1.5,
            }

        stage = {name: {"cpu_seconds": 0.5, "raised_mib": 10.0} for name in [*cost.child_process.STAGES, "other"]}
        monkeypatch.setattr(cost, "measure_once", once)
        monkeypatch.setattr(cost, "measure_stages", lambda method, folder: stage)
        monkeypatch.setattr(cost, "load_baseline", lambda name: None)
        words = ["--sizes", "16", "32", "48", "--repeats", "3", "--refine_steps", "30"]
        markdown = cost.main([*words, "--output", str(output), "--figure", str(figure)])
        content = json.loads(output.read_text(encoding="utf-8"))
        assert content["costs"]["16x16x16"]["greedy"]["error"] == "killed"
        assert "| 32x32x32 | 32,768 | ran + 30 steps | 2.33 | 71.04 | 404 | 12928 | 1.50 |" in markdown
        assert "| 32x32x32 | 32,768 | greedy | failed: killed |" in markdown
        assert "| ran + 30 steps | 2.00 | 10.00 | 400 | 128 |" in markdown
        assert "| measure | 0.50 / 10 | 0.50 / 10 | 0.50 / 10 |" in markdown
        with Image.open(figure) as picture:
            assert picture.width > 500

    def test_bad_options(self, script, tmp_path):
        cost = script("cost")
        assert cost.shape_of("512x512x160") == (512, 512, 160)
        for words in (["--sizes", "8"], ["--sizes", "64x64"], ["--repeats", "0"], ["--refine_steps", "-1"]):
            with pytest.raises(SystemExit):
                cost.parse_arguments(words)
        with pytest.raises(InputError, match="configuration of the baseline"):
            cost.main(["--no_greedy", "--baseline", str(tmp_path)])

    @pytest.mark.slow
    def test_memory_of_a_large_pair(self, script, tmp_path):
        """Above what the imports and a small pair take, 60 bytes a voxel, with refinement, which takes more."""
        cost, subject = script("cost"), thorax_subject(0, spatial_shape=(48, 48, 48), spacing=7.0)
        peaks = {}
        for steps, size in ((0, 96), (30, 96), (30, 192)):
            folder = tmp_path / f"{size}_{steps}"
            folder.mkdir()
            cost.make_pair(folder, (size, size, size), subject)
            method = cost.Method(cost.ROOT, ("--initial_alignment", "auto", "--refine_steps", str(steps)))
            peaks[steps, size] = cost.MIB * cost.measure_once(method, folder)["peak_mib"]
        assert peaks[0, 96] < 800 * cost.MIB
        assert peaks[30, 96] < 1100 * cost.MIB
        assert peaks[30, 192] - peaks[30, 96] < 60 * (192**3 - 96**3)

    @pytest.mark.slow
    def test_the_whole_command(self, script, tmp_path):
        pytest.importorskip("picsl_greedy")
        markdown = script("cost").main(["--sizes", "32", "--repeats", "1", "--refine_steps", "0"])
        rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| 32x32x32")]
        assert [row[2] for row in rows] == ["ran", "greedy"]
        assert all(float(row[3]) > 0 and float(row[5]) > 20 and 0 < float(row[7]) < 15 for row in rows)


@pytest.mark.slow
def test_similarities_of_unlike_contrast(script, tmp_path):
    """A map that is not monotonic leads local correlation astray, but costs auto little."""
    options = ["--pairs", "1", "--size", "32", "--amplitude", "3", "--output", str(tmp_path / "table.md")]
    script("compare_similarities").main(options)
    found = {name: [float(value) for value in row] for name, row in table((tmp_path / "table.md").read_text()).items()}
    ratio, before, mapped, auto, lncc, mind, *_ = found["not monotone"]
    assert lncc > before
    assert auto < mind < 0.7 * before
    assert auto < 1.25 * mapped
    assert ratio == pytest.approx(auto / found["equal"][3], abs=0.05)
    assert found["equal"][3] == found["equal"][4] == found["equal"][2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_contrast_that_rises_and_falls_leads_auto_nowhere(script, tmp_path, seed):
    """Local correlation ends worse than no displacement on the same chest."""
    compare, chest = script("compare_similarities"), thorax_subject(0, (0.0,), (48, 38, 44), 6.0)
    nib.save(nib.Nifti1Image(chest.images[0], chest.affine), tmp_path / "chest.nii.gz")
    pair = compare.warped_pair(str(tmp_path / "chest.nii.gz"), seed, 40, 4.0, "not monotone")
    before, found, misled = (
        torch.linalg.vector_norm(ddf - pair.ddf, dim=0)[pair.body].mean()
        for ddf in (0, *(compare.optimized(name, 30)(pair.moving, pair.fixed) for name in ("auto", "lncc")))
    )
    assert found < 0.9 * before < before < misled


def test_motion_of_parts_of_a_voxel_is_not_dropped_for_the_sharper_image_without_it(script, tmp_path):
    """The sum of what the displaced image loses where little moves is more than what is gained elsewhere."""
    compare, abdomen = script("compare_similarities"), abdomen_subject(0, (48, 40, 48), 7.0)
    nib.save(nib.Nifti1Image(abdomen["image"], abdomen["affine"]), tmp_path / "abdomen.nii.gz")
    pair = compare.warped_pair(str(tmp_path / "abdomen.nii.gz"), 0, 48, 1.0, "equal")
    found = compare.optimized("lncc", 30)(pair.moving, pair.fixed)
    before, after = (
        torch.linalg.vector_norm(ddf - pair.ddf, dim=0)[pair.body].mean() for ddf in (torch.zeros_like(found), found)
    )
    assert 0.2 < before < 0.3
    assert after < 0.7 * before


@pytest.mark.slow
def test_auto_registers_pairs_of_one_contrast_as_local_correlation_does(script, tmp_path):
    compare = script("compare_similarities")
    folder = make_abdomen(tmp_path / "abdomen", 1, 2, (40, 32, 40), 8.0)
    header, rows = compare.compare_same(compare.parse_arguments(["--same", str(folder), "--pairs", "1"]))
    found = dict(zip(header, rows[0], strict=True))
    assert found["the same field"] == "1 of 1"
    assert float(found["largest difference (voxels)"]) == 0


@pytest.mark.slow
def test_half_of_the_labels_or_landmarks_helps_the_other_half(script, tmp_path):
    folder = make_abdomen(tmp_path / "abdomen", 1, 2)
    header, rows = script("compare_similarities").compare_drivers([str(folder)], 1, 1.0)
    alone, labels, landmarks = (dict(zip(header[2:], map(float, row[2:]), strict=True)) for row in rows)
    assert labels["DSC, half that may drive"] > alone["DSC, half that may drive"] + 0.03
    assert labels["DSC, other half"] > alone["DSC, other half"] - 0.01  # nor do they fall by more than noise
    assert labels["TRE, other half"] <= alone["TRE, other half"]
    assert landmarks["its largest"] < 1 < alone["its largest"]
    assert landmarks["TRE, other half"] <= alone["TRE, other half"]


class TestThroughput:
    """Pairs an hour of several processes."""

    @pytest.mark.slow
    def test_two_processes_write_what_one_does(self, script, tmp_path, monkeypatch):
        throughput = script("throughput")
        monkeypatch.setattr(throughput, "SHAPE", (32, 26, 32))
        monkeypatch.setattr(throughput, "SPACING", 8.5)
        rows = table(throughput.main(["--pairs", "1", "--output", str(tmp_path / "report.md")]))
        assert len(rows) == 2  # by the number of processes
        assert all(float(value) > 0 for row in rows.values() for value in row)
        assert (tmp_path / "report.md").is_file()

    def test_other_images_are_found(self, script, tmp_path):
        throughput = script("throughput")
        assert not throughput.same_results(tmp_path, tmp_path)  # there are none
        for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
            (tmp_path / name / "pair").mkdir(parents=True)
            (tmp_path / name / "pair" / "warped.nii.gz").write_bytes(content)
        assert throughput.same_results(tmp_path / "a", tmp_path / "b")
        assert not throughput.same_results(tmp_path / "a", tmp_path / "c")

    def test_pairs_an_hour(self, script):
        rows = {(1, 1): {"seconds": 100.0, "cpu_seconds": 90.0}, (2, 1): {"seconds": 50.0, "cpu_seconds": 95.0}}
        found = table(script("throughput").table(rows, 10, {}))
        assert found == {"1": ["1", "360", "1.00", "9.00"], "2": ["1", "720", "2.00", "9.50"]}


class TestVerdicts:
    """The study of the verdict: what is planted, and how it is scored."""

    def test_auroc_counts_pairs_of_a_failure_and_a_sane_one(self, script):
        verdicts = script("verdicts")
        failures, sane = [10, 1, 0, 100], [0, 0, 1, 0, 12]
        wins = [(bad > good) + 0.5 * (bad == good) for bad in failures for good in sane]
        assert verdicts.auroc(failures, sane) == pytest.approx(np.mean(wins))

    def test_scores_follow_the_reasons(self, script):
        verdicts = script("verdicts")
        reasons = ("FAIL: a", "WARN: b", "WARN: c")
        found = [verdicts.score_of(verdicts.Verdict("FAIL", reasons)), verdicts.score_of(verdicts.Verdict("PASS"))]
        assert [*found, verdicts.score_of(verdicts.REFUSED)] == [12, 0, 100]

    def test_two_hundred_sane_pairs_and_forty_failures_each_of_which_changes_its_pair(self, script):
        verdicts = script("verdicts")
        assert sum(verdicts.SANE.values()) == 200
        assert sum(sum(kinds.values()) for kinds in verdicts.FAILED.values()) == 40
        pair, other = (verdicts.abdomen_pair(seed) for seed in (0, 1))
        for kind, plant in verdicts.PLANTED.items():
            changed = plant(dict(pair), other)
            same = [
                key in changed
                and changed[key].shape == pair[key].shape
                and torch.equal(changed[key].as_tensor(), pair[key].as_tensor())
                and torch.equal(changed[key].affine, pair[key].affine)
                for key in pair
            ]
            assert not all(same), kind

    @pytest.mark.slow
    def test_a_small_study(self, script, tmp_path):
        verdicts = script("verdicts")
        words = ["--sets", "cine lung phantom", "--share", "0.03", "--output", str(tmp_path / "v.json")]
        found = table(verdicts.main(words))
        assert found["all sane"][0] == "1"
        assert found["all failures"][:2] == ["4", "0"]
        assert json.loads((tmp_path / "v.json").read_text())["AUROC"] == 1.0
        assert table(verdicts.main(["--measured", str(tmp_path / "v.json")])) == found

    def test_measures_of_a_report_are_judged_again(self, script, tmp_path):
        verdicts = script("verdicts")
        cases = [("", {"lncc": 0.9, "tre": math.nan}), ("noise", {"lncc": 0.01}), ("no overlap", None)]
        listed = [{"set": "s", "planted": planted, "measures": measures} for planted, measures in cases]
        (tmp_path / "v.json").write_text(json.dumps({"cases": listed}))
        found = table(verdicts.main(["--measured", str(tmp_path / "v.json"), "--output", str(tmp_path / "again.json")]))
        assert [found[name] for name in ("all sane", "noise", "no overlap")] == [
            ["1", "1", "0", "0", "0"],
            ["1", "0", "0", "1", "0"],
            ["1", "0", "0", "0", "1"],
        ]
        assert json.loads((tmp_path / "again.json").read_text())["cases"][1]["measures"] == {"lncc": 0.01}


class TestPhases:
    """Series against pairs: errors and roughness in closed form."""

    def test_roughness_and_errors(self, script, tmp_path):
        phases = script("phases")
        u = [np.zeros((3, 4, 4, 4), np.float32) for _ in range(phases.COUNT)]
        u[5][0] = 2.0  # one phase jumps: second differences 2, 4 and 2 mm
        landmarks = np.full((phases.COUNT, 2, 3), 1.5)
        landmarks[5, :, 0] += 1.0  # voxels of 1.5 mm
        row = phases.measured(phases.Series("s", tmp_path, None, landmarks, 1.5), u, 7.0)
        assert row.roughness == pytest.approx(8.0 / phases.COUNT)
        assert row.errors == pytest.approx([0.0] * 4 + [0.5] + [0.0] * 4)
        line = phases.table({("s", "ran", "series"): row}, {}).splitlines()[2]
        assert line.startswith("| s | ran | series | 0.00 0.00 0.00 0.00 0.50 0.00")
        assert line.endswith("| 0.056 | 0.800 | 0.800 | 7.00 |")

"""The benchmark scripts: both run, and they compare like with like."""

from __future__ import annotations

import copy
import importlib
import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from monai_regplugins.checks import InputError
from monai_regplugins.data.cine_lung import make_cine_lung
from monai_regplugins.data.phantoms import make_abdomen

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


def test_contenders_see_the_same_batches(script, dataset):
    compare = script("compare_voxelmorph")
    config = compare.of_steps(compare.read_config(compare.DEFAULT_CONFIG, tiny(dataset)), 2)
    twins = [compare.make_contender(compare.voxelmorph_parser(config), 0) for _ in range(2)]
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


def test_output_is_checked_before_the_work(script, tmp_path):
    reporting = script("reporting")
    with pytest.raises(InputError, match=r"ends in \.json or \.md"):
        reporting.check_output(tmp_path / "table.csv")
    with pytest.raises(InputError, match="folder does not exist"):
        reporting.check_output(tmp_path / "missing" / "table.md")


@pytest.fixture(scope="module")
def cine_lung(tmp_path_factory):
    return make_cine_lung(tmp_path_factory.mktemp("cine") / "data", 2, 2, 4, (40, 40), 6.4)


class TestBSpline:
    """R2N2 against the B-spline registration, on a series of four frames."""

    METHODS = ("before", "B-spline", "R2N2")

    @pytest.fixture
    def options(self, script, cine_lung, tmp_path):
        """Words of a command line: random weights, which move something, and as little work as there can be."""
        compare = script("compare_bspline")
        network = ConfigParser(compare.read_config(compare.DEFAULT_CONFIG, {})).get_parsed_content("network_def")
        with torch.no_grad():
            for weight in network.parameter_net.parameters():
                weight += 0.1 * torch.randn_like(weight)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        words = f"--dataset_dir {cine_lung} --ckpt {tmp_path / 'model.pt'} --spatial_size 32 32"
        return [*words.split(), "--series", "1", "--iterations", "2"]

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
        assert rows["R2N2"][6] == str(7 * steps)

        ratios = dict(line[2:].split(": ", 1) for line in markdown.splitlines() if line.startswith("- "))
        means = {
            name: {key: np.mean(content["rows"][name][key]) for key in ("errors", "seconds")}
            for name in rows
            if name != "before"
        }
        spline, network = means["B-spline"], means["R2N2"]
        assert float(ratios["B-spline / R2N2 seconds"]) == pytest.approx(
            spline["seconds"] / network["seconds"], abs=0.051
        )
        assert float(ratios["R2N2 / B-spline mean TRE"]) == pytest.approx(
            network["errors"] / spline["errors"], abs=0.0051
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("method", METHODS[1:])
    def test_peak_memory_of_a_process(self, script, options, method):
        ballast = torch.ones(2**28)  # 1 GiB here must not count there
        compare = script("compare_bspline")
        peak = compare.peak_in_process(method, options)
        assert 0 < peak < script("reporting").peak_of_this_process()
        del ballast

    def test_unknown_keys_are_refused(self, script):
        compare = script("compare_bspline")
        with pytest.raises(InputError, match=r"no key 'datasets_dir' to set\. Did you mean 'dataset_dir'"):
            compare.read_config(compare.DEFAULT_CONFIG, {"datasets_dir": "x"})
        with pytest.raises(SystemExit):
            compare.parse_arguments(["--iterations", "0"])

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

"""Input errors: each mistake gives one line that names it and says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_regplugins.checks import (
    InputError,
    check_affine,
    check_choice,
    check_file,
    check_finite_field,
    check_image,
    check_mask,
    check_minimum_size,
    check_same_size,
    load_into,
    load_weights,
    suggest,
)


def raises(match: str) -> pytest.RaisesExc[InputError]:
    """Expect an InputError of one line that holds ``match``."""
    return pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z")


@pytest.mark.parametrize(
    ("word", "expected"),
    [("max_epoch", " Did you mean 'max_epochs'?"), ("MAX_EPOCHS", " Did you mean 'max_epochs'?"), ("zzz", "")],
)
def test_suggest_gives_the_closest_choice(word: str, expected: str) -> None:
    assert suggest(word, ["max_epochs", "seed"]) == expected


def test_an_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


class TestFile:
    def test_an_existing_file_comes_back_as_a_path(self, tmp_path: Path) -> None:
        file = tmp_path / "fixed.nii"
        file.write_bytes(b"x")
        assert check_file(str(file), "fixed image") == file

    def test_a_near_name_is_suggested(self, tmp_path: Path) -> None:
        (tmp_path / "fixed.nii.gz").write_bytes(b"x")
        with raises(r"fixed image '.*fixd\.nii\.gz' does not exist.* Did you mean 'fixed\.nii\.gz'\?"):
            check_file(tmp_path / "fixd.nii.gz", "fixed image")

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with raises(r"does not exist.*The folder '.*nowhere' does not exist"):
            check_file(tmp_path / "nowhere" / "a.nii", "fixed image")

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with raises("is a folder; give the path of a file"):
            check_file(tmp_path, "fixed image")

    def test_an_empty_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii").touch()
        with raises("is empty"):
            check_file(tmp_path / "a.nii", "fixed image")


def test_a_choice_outside_the_list_is_refused() -> None:
    check_choice("affine", ["none", "affine"], "initial_alignment")
    with raises(r"initial_alignment is 'afine'; choose one of 'none', 'affine'\. Did you mean 'affine'\?"):
        check_choice("afine", ["none", "affine"], "initial_alignment")


@pytest.mark.parametrize("as_type", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([[[0.0, 1.0]]], None),
        ([[0.0, 1.0]], "1 spatial dimensions .* expected 2; give a 2D image"),
        ([[[0.0, 1.0]], [[0.0, 1.0]]], "2 channels .* expected 1"),
        ([[[], []]], "no voxels"),
        ([[[0.0, float("nan")]]], "NaN or infinite"),
        ([[[0.0, float("-inf")]]], "NaN or infinite"),
        ([[[7.0, 7.0]]], r"constant \(7 everywhere\)"),
    ],
    ids=["good", "dimensions", "channels", "empty", "nan", "infinite", "constant"],
)
def test_image(data: list[object], match: str | None, as_type: type) -> None:
    if match is None:
        check_image(as_type(data), "fixed image", 2)
        return
    with raises(f"fixed image .*{match}"):
        check_image(as_type(data), "fixed image", 2)


@pytest.mark.parametrize("as_type", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_an_empty_mask_is_refused(as_type: type) -> None:
    check_mask(as_type([[0, 1]]), "fixed mask")
    with raises("fixed mask is empty"):
        check_mask(as_type([[0, 0]]), "fixed mask")


@pytest.mark.parametrize("minimum", [16, (16, 12)], ids=["one", "each"])
def test_too_small_an_image_is_refused(minimum: int | tuple[int, int]) -> None:
    check_minimum_size((16, 16), minimum, "moving image")
    with raises("moving image has 16 x 8 voxels, expected at least 16 x 1[26]"):
        check_minimum_size(torch.Size([16, 8]), minimum, "moving image")


def test_other_sizes_are_refused() -> None:
    check_same_size(torch.zeros(1, 4, 5), np.zeros((1, 4, 5)), "fixed image", "fixed label")
    check_same_size((4, 5), torch.Size([4, 5]), "fixed image", "fixed label")
    with raises("fixed image has size 4 x 5 but fixed label has 4 x 6"):
        check_same_size((4, 5), (4, 6), "fixed image", "fixed label")


ROTATION = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def homogeneous(axes: np.ndarray) -> np.ndarray:
    """Put an offset beside the axes."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = 5.0
    return affine


@pytest.mark.parametrize("axes", [np.diag([0.7, -0.7, 5.0]), ROTATION @ np.diag([1.0, 2.0, 3.0])], ids=["flip", "turn"])
def test_an_affine_with_right_angles_passes(axes: np.ndarray) -> None:
    check_affine(homogeneous(axes), "fixed image")
    check_affine(torch.from_numpy(homogeneous(axes)), "fixed image")


@pytest.mark.parametrize(
    ("affine", "match"),
    [
        (homogeneous(np.diag([1.0, 0.0, 1.0])), "not invertible"),
        (homogeneous(np.diag([1.0, np.nan, 1.0])), "not invertible"),
        (homogeneous(np.array([[1.0, 1, 0], [0, 0, 0], [0, 0, 1]])), "two axes are parallel"),
        (homogeneous(np.array([[1.0, 0.01, 0], [0, 1, 0], [0, 0, 1]])), r"sheared \(cosine 0\.01 "),
        (np.eye(4)[:3], r"shape \(3, 4\)"),
    ],
    ids=["zero", "nan", "parallel", "shear", "shape"],
)
def test_other_affines_are_refused(affine: np.ndarray, match: str) -> None:
    with raises(f"affine of fixed image .*{match}"):
        check_affine(affine, "fixed image")


class TestWeights:
    def test_a_checkpoint_comes_back(self, tmp_path: Path) -> None:
        network, copy = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        load_into(copy, load_weights(tmp_path / "model.pt"), "model.pt")
        torch.testing.assert_close(copy.weight, network.weight, rtol=0, atol=0)

    def test_a_truncated_checkpoint_is_refused(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(20, 30).state_dict(), tmp_path / "whole.pt")
        (tmp_path / "model.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:700])
        with raises(r"checkpoint '.*model\.pt' cannot be read"):
            load_weights(tmp_path / "model.pt")

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_text("not weights")
        with raises("cannot be read"):
            load_weights(tmp_path / "model.pt")

    def test_code_is_not_executed(self, tmp_path: Path) -> None:
        torch.save({"weight": Path("a")}, tmp_path / "model.pt")
        with raises("cannot be read"):
            load_weights(tmp_path / "model.pt")

    def test_a_bare_tensor_is_refused(self, tmp_path: Path) -> None:
        torch.save(torch.zeros(2), tmp_path / "model.pt")
        with raises("holds a Tensor, expected a dictionary"):
            load_weights(tmp_path / "model.pt")

    def test_another_shape_is_another_preset(self) -> None:
        with raises(r"model\.pt' does not fit Linear: weights 1 of another shape \(first 'weight'\).*another network"):
            load_into(torch.nn.Linear(3, 3), torch.nn.Linear(2, 3).state_dict(), "model.pt")

    def test_other_names_are_another_network(self) -> None:
        before = (network := torch.nn.Linear(2, 3)).weight.clone()
        with raises(r"1 missing \(first 'bias'\), 1 unknown \(first 'offset'\)"):
            load_into(network, {"weight": torch.zeros(3, 2), "offset": torch.zeros(3)}, "model.pt")
        assert torch.equal(network.weight, before), "nothing is loaded when not all fits"

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, value: float) -> None:
        before = (network := torch.nn.Linear(2, 3)).weight.clone()
        state = {"weight": torch.zeros(3, 2), "bias": torch.tensor([0.0, value, 0.0])}
        with raises(r"'model\.pt' holds weights that are not finite \(NaN or infinity, first 'bias'\).* diverged; "):
            load_into(network, state, "model.pt")
        assert torch.equal(network.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_field_that_is_not_finite(value: float) -> None:
    ddf = torch.zeros(1, 3, 4, 5, 6)
    check_finite_field(ddf, None)
    ddf[0, 1, 2, 3, 4] = ddf[0, 0, 0, 0, 0] = value
    network = torch.nn.Identity()
    with raises(r"^the network returned 2 of 360 displacements that are not finite \(NaN or infinity\)"):
        check_finite_field(ddf, network)
    network.weights_file = "models/model.pt"
    with raises(r"^the network with the weights 'models/model\.pt' returned 2 of 360 .*; use the published weights or"):
        check_finite_field(ddf, network)

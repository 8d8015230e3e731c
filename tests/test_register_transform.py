"""Registration among MONAI's transforms: what it adds, what it keeps, and the way back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Flipd, Invertd, LoadImaged, Orientationd, SaveImaged
from scipy.ndimage import map_coordinates

from monai_regplugins import load_bundle
from monai_regplugins.checks import InputError
from monai_regplugins.register_transform import RegisterPair, RegisterPaird
from monai_regplugins.registration import Registration

# MONAI's LoadImage announces the absence of an optional decoder
pytestmark = [pytest.mark.bundle, pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")]

FIXED, MOVING = (24, 20, 22), (22, 21, 19)
AFFINES = {
    "fixed": np.array([[-2.0, 0, 0, 20], [0, 2.2, 0, -20], [0, 0, 2.1, -22], [0, 0, 0, 1]]),  # LAS
    "moving": np.array([[0, 2.1, 0, -20], [2.0, 0, 0, -21], [0, 0, 2.4, -23], [0, 0, 0, 1]]),  # axes swapped
}
KEYS = ("fixed", "moving", "fixed_label", "moving_label")
LABELS = {"fixed_label_key": "fixed_label", "moving_label_key": "moving_label"}
SETTINGS = {"device": "cpu", "spatial_size": [16, 16, 16], "refine_steps": 5, "refine_levels": 1}
SETTINGS |= {"smoothness_weight": 5.0}  # a smooth field, which a numerical inverse undoes


def blob(size: tuple[int, ...], affine: Any, center: tuple[float, ...]) -> Any:
    """A bright ball in the world of an affine, in HU, and some noise."""
    voxels = np.indices(size).reshape(len(size), -1)
    world = (affine @ np.vstack([voxels, np.ones(voxels.shape[1])]))[: len(size)]
    distance = np.sum((world - np.reshape(center, (-1, 1))) ** 2, axis=0).reshape(size)
    noise = np.random.default_rng(0).normal(size=size)
    return (350 * np.exp(-distance / 150) - 150 + 5 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pair and its label maps on two grids."""
    folder = tmp_path_factory.mktemp("pair")
    for side, size, center in (("fixed", FIXED, (0, 0, 0)), ("moving", MOVING, (4, -3, 2))):
        image = blob(size, AFFINES[side], center)
        nib.save(nib.Nifti1Image(image, AFFINES[side]), folder / f"{side}.nii.gz")
        label = np.digitize(image, [-50, 50]).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, AFFINES[side]), folder / f"{side}_label.nii.gz")
    return {key: str(folder / f"{key}.nii.gz") for key in KEYS}


@pytest.fixture(scope="module")
def register() -> Registration:
    return load_bundle("ran", **SETTINGS)


@pytest.fixture
def images(files: dict[str, str]) -> dict[str, MetaTensor]:
    """The pair in memory, as MONAI loads it."""
    loaded: dict[str, MetaTensor] = LoadImaged(KEYS, image_only=True, ensure_channel_first=True)(files)
    return loaded


def compose(register: Registration, **options: Any) -> Compose:
    steps = [
        LoadImaged(KEYS, image_only=True, ensure_channel_first=True),
        Orientationd(KEYS, "RAS", labels=None),
        RegisterPaird(bundle=register, **LABELS, **options),
    ]
    return Compose(steps)


def test_uncertainty_is_added_on_request(register: Registration, files: dict[str, str]) -> None:
    """And removed on the way back; another pipeline's entry of this name is none of its business."""
    settings = {**SETTINGS, "uncertainty": True}
    transform = RegisterPaird(bundle="ran", uncertainty_key="sigma", **settings)
    pair = transform(files)
    expected = load_bundle("ran", **settings)(files["fixed"], files["moving"]).uncertainty
    assert expected is not None
    assert torch.equal(pair["sigma"], expected)
    assert torch.equal(pair["sigma"].affine, pair["displacement"].affine)
    assert "sigma" not in transform.inverse(pair)
    with pytest.raises(InputError, match=r"has 'sigma' already, .* choose another uncertainty_key"):
        transform({**files, "sigma": 0.0})
    plain = RegisterPaird(bundle=register)
    assert plain.inverse(plain({**files, "uncertainty": 5.0}))["uncertainty"] == 5.0


def test_it_gives_what_the_bundle_gives(register: Registration, files: dict[str, str]) -> None:
    pair = RegisterPaird(bundle=register, **LABELS)(files)
    expected = register(**files)
    assert sorted(pair) == sorted([*KEYS, "displacement", "metrics"])
    assert torch.equal(pair["moving"], expected.warped)
    assert expected.warped_label is not None
    assert torch.equal(pair["moving_label"], expected.warped_label)
    assert pair["moving_label"].dtype == torch.uint8
    assert torch.equal(pair["displacement"], expected.displacement)
    assert torch.equal(pair["displacement"].affine, expected.fixed.affine)
    assert pair["metrics"] == pytest.approx(expected.metrics, nan_ok=True)
    assert pair["metrics"]["dsc"] > pair["metrics"]["dsc_before"]
    assert pair["fixed"] == files["fixed"]
    result = RegisterPair(register)(files["fixed"], files["moving"], moving_label=files["moving_label"])
    assert torch.equal(result.warped, expected.warped)


def test_the_names_of_the_keys_are_free(register: Registration, files: dict[str, str]) -> None:
    data = {"ct": files["fixed"], "prior": files["moving"], "organs": files["moving_label"], "weight": 3}
    names = {"displacement_key": "field", "metrics_key": "measures"}
    transform = RegisterPaird("ct", "prior", register, moving_label_key="organs", **names)
    pair = transform(data)
    assert set(pair) == {"ct", "prior", "organs", "weight", "field", "measures"}
    assert pair["prior"].shape == pair["organs"].shape == (1, *FIXED)
    assert set(transform.inverse(pair)) == set(data)


def test_composed_with_others_and_back(register: Registration, files: dict[str, str]) -> None:
    """Each image returns to its file's grid and values, through the transforms before the registration, too."""
    transform = compose(register)
    pair = transform(files)
    assert pair["moving"].shape == pair["fixed"].shape
    assert torch.equal(pair["moving"].affine, pair["fixed"].affine)
    back = transform.inverse(pair)
    for key in KEYS:
        stored = nib.load(files[key])
        assert isinstance(stored, nib.Nifti1Image)
        np.testing.assert_array_equal(back[key][0].numpy(), np.asarray(stored.dataobj))
        np.testing.assert_allclose(back[key].affine, stored.affine, atol=1e-6)
        assert back[key].applied_operations == []
    assert set(back) == set(KEYS)


def test_a_transform_after_it_is_undone_first(register: Registration, files: dict[str, str]) -> None:
    transform = Compose([*compose(register).transforms, Flipd(("fixed", "moving", "moving_label"), 1)])
    back = transform.inverse(transform(files))
    stored = nib.load(files["moving"])
    assert isinstance(stored, nib.Nifti1Image)
    np.testing.assert_array_equal(back["moving"][0].numpy(), np.asarray(stored.dataobj))


def test_what_lies_on_the_fixed_grid_returns_through_the_inverse(
    register: Registration, images: dict[str, MetaTensor]
) -> None:
    """An image of fixed coordinates says on the moving grid where each voxel comes from; D leads back to the voxel."""
    transform = RegisterPaird(bundle=register)
    pair = transform(images)
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in FIXED), indexing="ij"))
    for axis in range(3):
        pair[f"x{axis}"] = pair["moving"].clone()
        pair[f"x{axis}"].copy_(coordinates[axis : axis + 1])
    back = [transform.inverse({"moving": pair[f"x{axis}"]})["moving"] for axis in range(3)]
    assert all(image.shape == images["moving"].shape for image in back)
    x = torch.cat([image.as_tensor() for image in back]).double().numpy()
    inside = np.all([(x[axis] > 1) & (x[axis] < n - 2) for axis, n in enumerate(FIXED)], axis=0)
    displacement = pair["displacement"].numpy()
    moved = np.stack([map_coordinates(component, x[:, inside], order=1) for component in displacement])
    world = AFFINES["fixed"] @ np.vstack([x[:, inside], np.ones(inside.sum())])
    expected = AFFINES["moving"] @ np.vstack([np.indices(MOVING)[:, inside], np.ones(inside.sum())])
    error = np.abs(world[:3] + moved - expected[:3])  # mm; between its voxels the inverse is interpolated
    assert inside.sum() > 2000
    assert error.mean() < 0.02 < 1 < np.abs(moved).max()
    assert error.max() < 0.5


def test_images_in_lps_go_and_return_alike(register: Registration, images: dict[str, MetaTensor]) -> None:
    """The moving tensor comes back as it was; what returns through the inverse lies where that of RAS does."""
    flip = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    lps = {key: MetaTensor(image, affine=flip @ image.affine, meta={"space": "LPS"}) for key, image in images.items()}
    transform = RegisterPaird(bundle=register, **LABELS)
    results = [transform(data) for data in (images, lps)]
    for key in ("moving", "moving_label", "displacement"):
        torch.testing.assert_close(results[1][key].as_tensor(), results[0][key].as_tensor())
        torch.testing.assert_close(results[1][key].affine, results[0][key].affine)
    assert results[1]["moving"].meta["space"] == "RAS"
    restored = transform.inverse(results[1])["moving"]
    assert torch.equal(restored.affine, lps["moving"].affine)
    assert torch.equal(restored.as_tensor(), images["moving"].as_tensor())
    for result in results:
        result["moving"] = result["moving"] + 1
    back = [transform.inverse(result)["moving"].as_tensor() for result in results]
    torch.testing.assert_close(back[1], back[0])


def test_a_segmentation_of_the_warped_image_returns_by_invertd(register: Registration, files: dict[str, str]) -> None:
    transform = compose(register)
    pair = transform(files)
    pair["pred"] = (pair["moving"] > 50).float()
    invert = Invertd("pred", transform, orig_keys="moving", nearest_interp=True)
    pred = invert(pair)["pred"]
    expected = np.asarray(nib.load(files["moving"]).dataobj) > 50  # type: ignore[attr-defined]
    found = pred[0].numpy() > 0.5
    assert set(np.unique(pred.numpy())) == {0.0, 1.0}
    assert found.shape == MOVING
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    np.testing.assert_allclose(pred.affine, AFFINES["moving"], atol=1e-6)


def test_the_warped_image_keeps_metadata_and_is_saved_on_the_fixed_grid(
    register: Registration, files: dict[str, str], tmp_path: Path
) -> None:
    pair = compose(register)(files)
    meta = pair["moving"].meta
    assert meta["filename_or_obj"] == files["moving"]
    np.testing.assert_allclose(meta["original_affine"], AFFINES["fixed"])
    assert tuple(meta["spatial_shape"]) == FIXED
    save = SaveImaged(
        ["moving", "fixed"], output_dir=tmp_path, output_postfix="", separate_folder=False, print_log=False
    )
    save(pair)
    saved = [nib.load(tmp_path / f"{side}.nii.gz") for side in ("moving", "fixed")]
    assert [image.shape[:3] for image in saved] == [FIXED, FIXED]  # type: ignore[attr-defined]
    assert np.array_equal(saved[0].affine, saved[1].affine)  # type: ignore[attr-defined]


def test_inputs_are_not_changed(register: Registration, images: dict[str, MetaTensor]) -> None:
    before = {key: (image.clone(), list(image.applied_operations)) for key, image in images.items()}
    transform = RegisterPaird(bundle=register, **LABELS)
    transform.inverse(transform(images))
    for key, (values, history) in before.items():
        assert torch.equal(images[key], values)
        assert images[key].applied_operations == history
        assert images[key].meta.keys() == values.meta.keys()


def test_batches(register: Registration, images: dict[str, MetaTensor]) -> None:
    swapped = {"fixed": images["fixed"], "moving": images["moving"] * 0.9}
    pairs = [{key: images[key] for key in ("fixed", "moving")}, swapped]
    transform = RegisterPaird(bundle=register)
    (batch,) = DataLoader(Dataset(pairs, transform), batch_size=2)
    assert batch["moving"].shape == (2, 1, *FIXED)
    assert batch["displacement"].shape == (2, 3, *FIXED)
    assert batch["metrics"]["ncc"].shape == (2,)
    for item, pair in zip(decollate_batch(batch), pairs, strict=True):
        assert torch.equal(transform.inverse(item)["moving"], pair["moving"])


@pytest.mark.slow
def test_it_can_be_sent_to_another_process(register: Registration, files: dict[str, str]) -> None:
    transform = RegisterPaird(bundle="ran", **SETTINGS)
    sent = pickle.loads(pickle.dumps(transform))
    assert "register" not in vars(sent.registrar)
    assert torch.equal(sent(files)["moving"], transform(files)["moving"])
    loaded = pickle.loads(pickle.dumps(RegisterPaird(bundle=register)))
    assert torch.equal(loaded(files)["moving"], RegisterPaird(bundle=register)(files)["moving"])


def test_arrays(register: Registration) -> None:
    data = {"fixed": blob(FIXED, np.eye(4), (12, 10, 11)), "moving": blob(MOVING, np.eye(4), (10, 11, 10))}
    transform = RegisterPaird(bundle=register)
    back = transform.inverse(transform(data))
    assert isinstance(back["moving"], MetaTensor)
    np.testing.assert_array_equal(back["moving"][0].numpy(), data["moving"])
    assert back["fixed"] is data["fixed"]


def test_a_plane(tmp_path: Path) -> None:
    plane = np.diag([1.5, 1.5, 1.0])
    data = {"fixed": blob((40, 36), plane, (28, 26)), "moving": blob((38, 36), plane, (30, 24))}
    transform = RegisterPaird(bundle="r2n2", device="cpu", steps=3)
    pair = transform(data)
    assert pair["moving"].shape == (1, 40, 36)
    assert pair["displacement"].shape == (2, 40, 36)
    np.testing.assert_array_equal(transform.inverse(pair)["moving"][0].numpy(), data["moving"])
    changed = {"moving": pair["moving"] + 1}
    assert transform.inverse(changed)["moving"].shape == (1, 38, 36)


def test_a_configuration_names_it(files: dict[str, str]) -> None:
    target = {"_target_": "monai_regplugins.register_transform.RegisterPaird", "bundle": "ran", **SETTINGS}
    transform = ConfigParser({"transform": target}).get_parsed_content("transform")
    assert transform(files)["moving"].shape == (1, *FIXED)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"fixed": 0}, "^the pair has no 'moving', found .*fixed.* give it, or another key"),
        ({"fixed": 0, "moving": 0}, "^the pair has no 'moving_label'"),
        ({"fixed": 0, "moving": 0, "moving_label": 0, "metrics": 0}, "has 'metrics' already, .* another metrics_key"),
        ({"fixed": "a.nii", "moving": "nowhere.nii", "moving_label": "b.nii"}, "^moving image 'nowhere.nii' does not"),
    ],
)
def test_bad_pairs(data: dict[str, Any], message: str, register: Registration) -> None:
    with pytest.raises(InputError, match=message):
        RegisterPaird(bundle=register, moving_label_key="moving_label")(data)


def test_companions_may_be_missing(register: Registration, files: dict[str, str]) -> None:
    transform = RegisterPaird(bundle=register, **LABELS, mask_key="mask", allow_missing_keys=True)
    pair = transform({key: files[key] for key in ("fixed", "moving")})
    assert set(transform.inverse(pair)) == {"fixed", "moving"}


def test_bad_settings(register: Registration) -> None:
    with pytest.raises(InputError, match=r"^unknown override 'refine_step'.*Did you mean 'refine_steps'"):
        RegisterPaird(refine_step=3)
    with pytest.raises(InputError, match=r"^there is no bundle 'rann'.*Did you mean 'ran'"):
        RegisterPair("rann")
    with pytest.raises(InputError, match=r"^settings refine_steps come with a loaded bundle;"):
        RegisterPair(register, refine_steps=3)

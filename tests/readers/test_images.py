"""Readers against nibabel, SimpleITK and PIL, and headers that promise what the file does not hold."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_regplugins.checks import InputError
from monai_regplugins.readers.images import (
    SimpleITKReader,
    as_scan,
    check_readable,
    read_scan,
    real_values,
    scan_phases,
    scan_shape,
)
from monai_regplugins.readers.phases import Phase
from monai_regplugins.transforms.load import LoadSubjectd

DRAW = np.random.default_rng(0)
VOLUME = DRAW.normal(size=(4, 5, 6)).astype(np.float32)
SLICE = DRAW.integers(0, 255, size=(6, 4), dtype=np.uint8)  # PNG rows, columns
AFFINE = np.array([[0.0, -1.2, 1.6, 3.0], [-3.0, 0.0, 0.0, 4.0], [0.0, 1.6, 1.2, 5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["1", "2"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_nifti_is_what_was_saved(tmp_path: Path, name: str, kind: type[nib.Nifti1Image]) -> None:
    kind(VOLUME, AFFINE).to_filename(tmp_path / name)
    scan = read_scan(tmp_path / name, "image")
    np.testing.assert_array_equal(scan.values, VOLUME)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-6)
    assert scan.meta == {"filename_or_obj": str(tmp_path / name)}


def test_scaled_integers_of_either_byte_order(tmp_path: Path) -> None:
    for order in "<>":
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(np.int16)
        image = nib.Nifti1Image(np.round(VOLUME * 100) * 0.25 - 7, AFFINE, header)
        nib.save(image, tmp_path / "a.nii")
        np.testing.assert_allclose(read_scan(tmp_path / "a.nii", "image").values, image.get_fdata(), atol=0.01)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_itk_formats(tmp_path: Path, suffix: str, compressed: bool) -> None:
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / f"b{suffix}"), useCompression=compressed)
    scan = read_scan(tmp_path / f"b{suffix}", "image")
    np.testing.assert_array_equal(scan.values, VOLUME)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_fourth_axis_has_no_place(tmp_path: Path, suffix: str) -> None:
    """A single time point, whose origin and spacing are seconds."""
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii")
    image = sitk.JoinSeries(sitk.ReadImage(str(tmp_path / "a.nii")), 7.0, 2.5)
    sitk.WriteImage(image, str(tmp_path / f"b{suffix}"))
    scan = read_scan(tmp_path / f"b{suffix}", "image")
    assert scan.values.shape == (*VOLUME.shape, 1)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    loaded = LoadSubjectd()({"image": tmp_path / f"b{suffix}"})
    np.testing.assert_array_equal(loaded["image"][0], VOLUME)


def test_simpleitk_reader_flips_x_and_y_of_a_slice(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(SLICE)
    image.SetSpacing((2.0, 3.0))
    image.SetOrigin((5.0, 7.0))
    sitk.WriteImage(image, str(tmp_path / "slice.mha"))
    reader = SimpleITKReader()
    assert reader.verify_suffix(tmp_path / "slice.mha")
    assert not reader.verify_suffix(tmp_path / "slice.nii")
    array, meta = reader.get_data(reader.read(tmp_path / "slice.mha"))
    np.testing.assert_array_equal(array, SLICE.T)
    expected = [[-2.0, 0.0, 0.0, -5.0], [0.0, -3.0, 0.0, -7.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    np.testing.assert_allclose(meta["affine"], expected)


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_pictures(tmp_path: Path, name: str) -> None:
    Image.fromarray(SLICE).save(tmp_path / name)
    scan = read_scan(tmp_path / name, "image", spatial_dims=2)
    np.testing.assert_array_equal(scan.values, SLICE.T)
    np.testing.assert_array_equal(scan.affine, np.eye(4))


# --- what is refused --------------------------------------------------------------------------------------------------


def enlarged(file: Path) -> None:
    """Let the header of a NIfTI, NRRD or MetaImage file declare 27 GB."""
    size = (3000, 1500, 1500)
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if ".nii" in file.suffixes:
        content = content[:42] + np.int16(size).tobytes() + content[48:]
    else:
        assert content.count(b"4 5 6") == 1
        content = content.replace(b"4 5 6", b"%d %d %d" % size)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_a_header_of_more_than_the_file_holds(tmp_path: Path, name: str) -> None:
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / name))
    enlarged(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"its header declares 3000 x 1500 x 1500 voxels but the file has \d+ bytes"):
        read_scan(tmp_path / name, "image")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_well_compressed_images_are_no_lie(tmp_path: Path) -> None:
    zeros = np.zeros((128, 128, 64), np.uint8)
    zeros[64, 64, 32] = 1
    content = gzip.compress(nib.Nifti1Image(zeros, AFFINE).to_bytes())
    assert zeros.size / len(content) > 800
    (tmp_path / "a.nii.gz").write_bytes(content)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii.gz", "image").values, zeros)


COMPLEX = (VOLUME + 1j).astype(np.complex64)
COLORS = DRAW.integers(0, 255, (4, 5, 6, 3), dtype=np.uint8)


def test_complex_numbers_and_colors(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(COMPLEX, AFFINE), tmp_path / "complex.nii")
    nib.save(
        nib.Nifti1Image(COLORS.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0], AFFINE), tmp_path / "rgb.nii"
    )
    sitk.WriteImage(sitk.GetImageFromArray(COMPLEX), str(tmp_path / "complex.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(COLORS, isVector=True), str(tmp_path / "rgb.mha"))
    words = {
        "complex.nii": "complex numbers",
        "rgb.nii": "colors",
        "complex.nrrd": "complex numbers",
        "rgb.mha": "3 values",
    }
    for name, kind in words.items():
        with pytest.raises(InputError, match=f"image '.*{name}' holds {kind}.*, expected one real number per voxel"):
            read_scan(tmp_path / name, "image")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.png", "a.npy", "a", "a.dcm"])
def test_no_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x93NUMPY or anything else" * 30)
    with pytest.raises(InputError, match=r"moving image '.*' cannot be read as an image"):
        read_scan(tmp_path / name, "moving image")


def test_no_other_reader_makes_sense_of_a_damaged_file(tmp_path: Path) -> None:
    """ITK would take this NIfTI file without its magic for one of Analyze, whose axes are others."""
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[344:348] = bytes(4)
    (tmp_path / "a.nii").write_bytes(content)
    assert sitk.ReadImage(str(tmp_path / "a.nii")).GetSize() == (4, 5, 6)
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_scan(tmp_path / "a.nii", "image")


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert check_readable(tmp_path / "file", "image") == tmp_path / "file"
    assert check_readable(str(tmp_path), "image", folder=True) == tmp_path
    wrong = {
        "": "image has an empty path",
        str(tmp_path): "is a folder",
        str(tmp_path / "fle"): "does not exist; .* Did you mean 'file'",
        str(tmp_path / ("x" * 500)): "cannot be opened|does not exist",
        str(tmp_path / "\0"): "does not exist",
    }
    for path, message in wrong.items():
        with pytest.raises(InputError, match=message):
            check_readable(path, "image")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0)
    with pytest.raises(InputError, match=r"label '.*' cannot be opened \(permission denied\)"):
        check_readable(tmp_path / "file", "label")


def test_what_is_in_memory_is_copied() -> None:
    for values in (VOLUME, VOLUME.astype(">f8"), np.flip(np.flip(VOLUME).copy()), torch.from_numpy(VOLUME)):
        scan = as_scan(values, "image")
        np.testing.assert_array_equal(scan.values, VOLUME)
        assert scan.values.dtype == torch.float32
        assert torch.equal(scan.affine, torch.eye(4, dtype=torch.float64))
        scan.values.zero_()
        np.testing.assert_array_equal(values, VOLUME)


def test_an_affine_of_its_own_comes_first() -> None:
    affine = torch.from_numpy(AFFINE)
    image = MetaTensor(torch.from_numpy(VOLUME), affine=affine, meta={"filename_or_obj": "a.nii"})
    own, given = as_scan(image, "image", torch.eye(4)), as_scan(VOLUME, "image", affine)
    assert torch.equal(own.affine, affine)
    assert torch.equal(given.affine, affine)
    assert type(own.values) is torch.Tensor
    assert own.meta["filename_or_obj"] == "a.nii"


@pytest.mark.parametrize("values", [VOLUME + 1j, torch.ones(2, dtype=torch.cfloat), "text", [None], np.array(["a"])])
def test_no_real_numbers(values: object) -> None:
    with pytest.raises(InputError, match=r"^image holds values of type .*, expected real numbers"):
        real_values(values, "image")


NAMES = ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.png", "a.bmp"]


@pytest.mark.parametrize("name", NAMES)
def test_more_than_the_memory_holds(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the header, before the voxels are read; the file itself is small."""
    picture = name in ("a.png", "a.bmp")
    values = np.zeros((300, 200) if picture else (200, 160, 150), np.uint8)
    values[1, 1] = 1
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / name), useCompression=name != "a.nii")
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "64M")
    assert read_scan(tmp_path / name, "image").values.numel() == values.size
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "400K" if picture else "8M")
    tracemalloc.start()
    size = "200 x 300" if picture else "150 x 160 x 200"
    with pytest.raises(
        InputError, match=rf"image '.*' has {size} voxels, which take about 0\.\d+ GiB of memory to read"
    ):
        read_scan(tmp_path / name, "image")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # the beginning of a file


def test_memory_counts_what_a_voxel_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled integers are decoded to float64, twice as large as float32."""
    image = nib.Nifti1Image(np.zeros((10, 10, 10), np.int16), AFFINE)
    nib.save(image, tmp_path / "plain.nii")
    image.header.set_slope_inter(0.5, 1)
    nib.save(image, tmp_path / "scaled.nii")
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", "8000")
    read_scan(tmp_path / "plain.nii", "image")
    with pytest.raises(InputError, match="of memory to read"):
        read_scan(tmp_path / "scaled.nii", "image")


def test_a_picture_is_one_of_the_formats_that_its_name_states(tmp_path: Path) -> None:
    """Pillow knows a file by its content and runs other programs for some; ITK knows several by theirs."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(tmp_path / "b.nii"))
    (tmp_path / "b.nii").rename(tmp_path / "b.mha")
    for name in ("a.png", "b.mha"):
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_scan(tmp_path / name, "image")


def test_the_shape_of_a_scan(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME.T), str(tmp_path / "a.mhd"))
    Image.fromarray(np.zeros((4, 7), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.nrrd").write_bytes(b"NRRD0004\nnonsense\n")
    assert scan_shape(tmp_path / "a.nii.gz", "image") == scan_shape(tmp_path / "a.mhd", "image") == (4, 5, 6)
    assert scan_shape(tmp_path / "a.png", "image") == (7, 4)
    assert scan_shape(tmp_path, "image") == ()
    with pytest.raises(InputError, match="cannot be read as an image"):
        scan_shape(tmp_path / "b.nrrd", "image")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha"])
def test_the_files_of_a_shape_are_complete(tmp_path: Path, name: str) -> None:
    if name.endswith(".mha"):
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME.T), str(tmp_path / name))
    else:
        nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / name)
    assert scan_shape(tmp_path / name, "image", complete=True) == (4, 5, 6)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    assert scan_shape(tmp_path / name, "image") == (4, 5, 6)
    with pytest.raises(InputError, match="is cut short or damaged"):
        scan_shape(tmp_path / name, "image", complete=True)


# --- several volumes in a file ----------------------------------------------------------------------------------------

SERIES = np.stack([VOLUME, VOLUME[::-1], VOLUME * 2], axis=-1)


def write_series(file: Path) -> None:
    if file.name.endswith((".mgz", ".mgh")):
        nib.save(nib.MGHImage(SERIES, AFFINE), file)
    elif ".nii" in file.name:
        nib.save(nib.Nifti1Image(SERIES, AFFINE), file)
    else:
        sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(SERIES[..., k].T) for k in range(3)]), str(file))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.mgh", "a.nrrd", "a.mha"])
def test_a_volume_of_several_is_chosen_by_its_number(tmp_path: Path, name: str) -> None:
    write_series(tmp_path / name)
    assert scan_phases(tmp_path / name, "image") == ["0", "1", "2"]
    for k in range(3):
        scan = read_scan(tmp_path / name, "image", phase=Phase(str(k), "moving_phase"))
        np.testing.assert_array_equal(scan.values, SERIES[..., k])
    with pytest.raises(InputError, match=r"holds 3 volumes by their number \(0, 1, 2\), .* with moving_phase"):
        read_scan(tmp_path / name, "image", phase=Phase("", "moving_phase"))
    with pytest.raises(InputError, match="has no volume '3' by their number"):
        read_scan(tmp_path / name, "image", phase=Phase("3", "moving_phase"))
    np.testing.assert_array_equal(read_scan(tmp_path / name, "image").values, SERIES)


def test_only_the_volume_that_is_meant_has_to_fit_into_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "a.nii")
    monkeypatch.setenv("MONAI_REGPLUGINS_MEMORY", str(8 * VOLUME.size))
    read_scan(tmp_path / "a.nii", "image", phase=Phase("1", "fixed_phase"))
    with pytest.raises(InputError, match="of memory"):
        read_scan(tmp_path / "a.nii", "image")


SEQUENCES = {
    "list first": ("list domain domain domain", "none (2,0,0) (0,2,0) (0,0,3)", 0),
    "list last": ("domain domain domain list", "(2,0,0) (0,2,0) (0,0,3) none", -1),
}


def write_sequence(path: Path, volumes: np.ndarray, kinds: str, directions: str, axis: int) -> None:
    """As 3D Slicer saves sequences: volumes (N, X, Y, Z) on an axis that is none of space."""
    values = np.moveaxis(volumes, 0, axis)
    sizes = " ".join(map(str, values.shape))
    header = (
        f"NRRD0005\ntype: float\ndimension: 4\nspace: left-posterior-superior\nsizes: {sizes}\n"
        f"space directions: {directions}\nkinds: {kinds}\nendian: little\nencoding: raw\nspace origin: (1,2,3)\n"
        "axis 0 index type:=numeric\n\n"
    )
    path.write_bytes(header.encode() + values.astype("<f4").tobytes("F"))


@pytest.mark.parametrize("kind", SEQUENCES)
def test_volumes_of_a_sequence_of_3d_slicer(kind: str, tmp_path: Path) -> None:
    volumes, path = np.random.default_rng(3).normal(size=(3, 4, 5, 6)).astype(np.float32), tmp_path / "a.seq.nrrd"
    write_sequence(path, volumes, *SEQUENCES[kind])
    assert scan_phases(path, "image") == ["0", "1", "2"]
    for k, volume in enumerate(volumes):
        scan = read_scan(path, "image", phase=Phase(str(k), "moving_phase"))
        np.testing.assert_array_equal(scan.values, volume)
        np.testing.assert_array_equal(scan.affine, [[-2, 0, 0, -1], [0, -2, 0, -2], [0, 0, 3, 3], [0, 0, 0, 1]])
    with pytest.raises(InputError, match=r"holds 3 volumes by their number \(0, 1, 2\), .* with moving_phase"):
        read_scan(path, "image", phase=Phase("", "moving_phase"))
    write_sequence(path, volumes, "vector domain domain domain", *SEQUENCES["list first"][1:])
    with pytest.raises(InputError, match="holds 3 values per voxel"):
        read_scan(path, "image")


def test_an_axis_of_time_that_itk_does_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    write_sequence(path, np.zeros((3, 4, 5, 6)), "time domain domain domain", *SEQUENCES["list first"][1:])
    with pytest.raises(InputError, match=r"a.nrrd' has more axes .* expected 'list'"):
        read_scan(path, "image")


def test_a_file_of_one_volume_has_no_phase(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), tmp_path / "a.nii")
    assert scan_phases(tmp_path / "a.nii", "image") == ["0"]
    with pytest.raises(InputError, match="holds one volume, but fixed_phase is '1'"):
        read_scan(tmp_path / "a.nii", "image", phase=Phase("1", "fixed_phase"))


def test_a_frame_of_a_series_of_one_slice(tmp_path: Path) -> None:
    for name, values in {"flat.nii": VOLUME, "single.nii": VOLUME[:, :, None]}.items():
        nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / name)
        frame = read_scan(tmp_path / name, "image", 2, phase=Phase("4", "fixed_phase")).values
        np.testing.assert_array_equal(frame.squeeze(), VOLUME[..., 4])


# --- FreeSurfer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "A.MGZ"])
def test_freesurfer_volumes_are_what_nibabel_saved(tmp_path: Path, name: str) -> None:
    nib.save(nib.MGHImage(VOLUME, AFFINE), tmp_path / "a.mgz")
    nib.save(nib.MGHImage(VOLUME, AFFINE), tmp_path / "a.mgh")
    if name == "A.MGZ":
        (tmp_path / "a.mgz").rename(tmp_path / name)
    scan = read_scan(tmp_path / name, "image")
    np.testing.assert_array_equal(scan.values, VOLUME)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    assert scan_shape(tmp_path / name, "image") == VOLUME.shape


def test_freesurfer_labels_are_exact(tmp_path: Path) -> None:
    labels = np.arange(120, dtype=np.int32).reshape(4, 5, 6) + 2**24
    nib.save(nib.MGHImage(labels, AFFINE), tmp_path / "aseg.mgz")
    scan = read_scan(tmp_path / "aseg.mgz", "label", exact=True)
    assert scan.values.dtype == torch.int64
    np.testing.assert_array_equal(scan.values, labels)


def test_a_cut_freesurfer_volume(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(VOLUME, AFFINE), tmp_path / "a.mgh")
    (tmp_path / "a.mgh").write_bytes((tmp_path / "a.mgh").read_bytes()[:600])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_scan(tmp_path / "a.mgh", "image")

"""CASE.pkl beside CASE.npz: the entries that nnU-Net's readers would give, taken from the file by other libraries."""

from __future__ import annotations

import pickle
import struct
import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import noise, write_plane, write_volume

from NNSegmentLib.errors import ImageError
from NNSegmentLib.image import read_geometry, read_image, write_image
from NNSegmentLib.labels import LabelSet
from NNSegmentLib.prediction import Prediction, save_prediction
from NNSegmentLib.probability_files import load_probabilities

LABELS = LabelSet.from_dataset_json({"labels": {"background": 0, "a": 1}})


def properties_of(path, reader=""):
    """What lies beside the probabilities of an image that `reader` read; only built-in types may come out."""
    image = read_image(path, reader)
    shape = image.geometry.shape
    prediction = Prediction(np.zeros(shape, np.uint8), image.geometry, LABELS, np.zeros((2, *shape), np.float32))
    save_prediction(prediction, path.with_name("out_" + path.name), read_geometry(path))
    name = "out_" + path.name.split(".")[0] + ".pkl"

    class NoNames(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"{module}.{name}")

    with path.with_name(name).open("rb") as file:
        return NoNames(file).load()


def assert_same(found, expected):
    assert set(found) >= set(expected)
    for key, value in expected.items():
        assert value == found[key] if isinstance(value, str) else np.allclose(found[key], value, atol=1e-5), key


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_volume_is_described_as_simpleitk_sees_it(tmp_path, any_geometry, ending):
    path = tmp_path / f"case{ending}"
    write_image(path, noise(1, any_geometry.shape), any_geometry)

    found = properties_of(path)

    volume = sitk.ReadImage(str(path))
    assert np.allclose(found["spacing"], volume.GetSpacing()[::-1])
    assert_same(
        found["sitk_stuff"],
        {"spacing": volume.GetSpacing(), "origin": volume.GetOrigin(), "direction": volume.GetDirection()},
    )


def test_a_nifti_file_is_described_as_nibabel_sees_it(tmp_path, any_geometry):
    path = tmp_path / "case.nii.gz"
    write_image(path, noise(1, any_geometry.shape), any_geometry)

    found = properties_of(path, "NibabelIO")

    volume = nibabel.load(path)
    assert np.allclose(found["spacing"], volume.header.get_zooms()[::-1])
    assert_same(found["nibabel_stuff"], {"original_affine": volume.affine})


def test_a_nifti_file_turned_by_the_reader_has_both_affines(tmp_path, any_geometry):
    path = tmp_path / "case.nii.gz"
    write_image(path, noise(1, any_geometry.shape), any_geometry)

    found = properties_of(path, "NibabelIOWithReorient")

    volume = nibabel.load(path)
    turned = nibabel.as_closest_canonical(volume)
    assert np.allclose(found["spacing"], turned.header.get_zooms()[::-1])
    assert_same(found["nibabel_stuff"], {"original_affine": volume.affine, "reoriented_affine": turned.affine})


def test_a_volume_turned_by_simpleitk_keeps_the_way_back(tmp_path, any_geometry):
    path = tmp_path / "case.mha"
    write_image(path, noise(1, any_geometry.shape), any_geometry)

    found = properties_of(path, "SimpleITKIOWithReorient")

    volume = sitk.ReadImage(str(path))
    turned = sitk.DICOMOrient(volume, "RAS")
    assert np.allclose(found["spacing"], turned.GetSpacing()[::-1])
    assert_same(
        found["sitk_stuff"],
        {
            "spacing": turned.GetSpacing(),
            "origin": turned.GetOrigin(),
            "direction": turned.GetDirection(),
            "original_orientation": sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
                volume.GetDirection()
            ),
        },
    )


def test_a_two_dimensional_medical_file_keeps_two_axes(tmp_path):
    plane = sitk.GetImageFromArray(noise(1, (20, 30)))
    plane.SetSpacing((0.5, 0.25)), plane.SetOrigin((3.0, -4.0)), plane.SetDirection((0.6, 0.8, -0.8, 0.6))
    write_volume(tmp_path / "slice.nrrd", plane)

    found = properties_of(tmp_path / "slice.nrrd")

    assert np.allclose(found["spacing"], (999 * 0.5, 0.25, 0.5))
    assert_same(
        found["sitk_stuff"],
        {"spacing": (0.5, 0.25), "origin": (3.0, -4.0), "direction": (0.6, 0.8, -0.8, 0.6)},
    )


def test_a_picture_has_the_thickness_nnunet_gives_it(tmp_path):
    write_plane(tmp_path / "cell.png", noise(1, (20, 30)).astype(np.uint8))

    assert properties_of(tmp_path / "cell.png")["spacing"] == [999.0, 1.0, 1.0]


def packed(path, header: str, voxels: bytes = bytes(64)):
    """A CASE.npz with this header of its array, written down from numpy's format."""
    lines = header.encode().ljust(501) + b"\n"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("probabilities.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(lines)) + lines + voxels)
    return path


@pytest.mark.parametrize("kind", ["<f4", "<f2", "<U1", "<c8", "<M8[s]", "|O", "|V9999999999"])
@pytest.mark.parametrize(
    "shape", ["(3, 1, 1, 1)", "(3, 0, 1, 1)", "(3, -4, 4, 4)", f"({10**20}, 2, 1, 1)", "(True, 2, 1, 1)", "(" * 200]
)
def test_only_numbers_of_four_axes_are_probabilities(tmp_path, kind, shape):
    path = packed(tmp_path / "a.npz", f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}")

    if kind in ("<f4", "<f2") and shape == "(3, 1, 1, 1)":
        assert load_probabilities(path, 3).shape == (3, 1, 1, 1)
    else:
        with pytest.raises(ImageError):
            load_probabilities(path, 3)


def test_locked_and_plain_files_are_refused_as_probabilities(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros((3, 1, 1, 1), np.float32))
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    locked = packed(tmp_path / "locked.npz", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1, 1, 1)}")
    data = bytearray(locked.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    locked.write_bytes(data)

    for name in ("plain.npz", "locked.npz"):
        with pytest.raises(ImageError, match="should hold an array named probabilities; .* predict"):
            load_probabilities(tmp_path / name, 3)

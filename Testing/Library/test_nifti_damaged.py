"""Damaged and odd NIfTI files are refused in a sentence, and never fill the memory first."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest

from NNSegmentLib.errors import ImageError
from NNSegmentLib.image import read_geometry, read_image, read_labels
from NNSegmentLib.image_files.completeness import require_complete


def header(dimensions=(3, 4, 4, 4), kind=2, bits=8, offset=352.0) -> bytes:
    """A NIfTI-1 header written down from its specification, with 1 mm voxels."""
    fields = bytearray(352)
    struct.pack_into("<i", fields, 0, 348)
    struct.pack_into("<8h", fields, 40, *(*dimensions, *(1,) * 7)[:8])
    struct.pack_into("<hh", fields, 70, kind, bits)
    struct.pack_into("<8f", fields, 76, *(1.0,) * 8)
    struct.pack_into("<f", fields, 108, offset)
    struct.pack_into("<h", fields, 254, 1)
    for row in range(3):
        struct.pack_into("<f", fields, 280 + 20 * row, 1.0)
    fields[344:348] = b"n+1\0"
    return bytes(fields)


def header_2(shape) -> bytes:
    fields = bytearray(544)
    struct.pack_into("<i8s", fields, 0, 540, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<hh8q", fields, 12, 16, 32, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<8dq", fields, 104, *(1.0,) * 8, 544)
    return bytes(fields)


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": 0}, {"kind": 1}, {"kind": 999}, {"kind": 1536, "bits": 128}, {"offset": -100.0}, {"offset": np.inf},
        {"offset": np.nan}, {"dimensions": (9, 4, 4, 4)}, {"dimensions": (3, -4, 4, 4)},
    ],
)  # fmt: skip
def test_headers_that_make_no_sense_are_refused(tmp_path, damage):
    path = tmp_path / "odd.nii"
    path.write_bytes(header(**damage) + bytes(64 * 16))

    for read in (read_image, read_labels):
        with pytest.raises(ImageError):
            read(path)


@pytest.mark.parametrize("axes", [5, 7])
def test_more_axes_than_a_series_of_volumes_has_are_refused(tmp_path, axes):
    path = tmp_path / "many.nii"
    path.write_bytes(header((axes, *(2,) * axes)) + bytes(2**axes))

    for read in (read_geometry, read_image, read_labels):
        with pytest.raises(ImageError, match=f"has {axes} axes, expected 2, 3 or 4"):
            read(path)


@pytest.mark.parametrize("start", [header((3, 16384, 16384, 16)), header((4, 16384, 16384, 16384, 64), 16, 32)])
def test_a_file_that_announces_more_than_gzip_can_hold_is_cut_off(tmp_path, start):
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(start))  # the length at its end fits modulo 2**32

    with pytest.raises(ImageError, match="cut off"):
        require_complete(tmp_path / "bomb.nii.gz")


def test_the_best_compression_of_gzip_is_believed(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((256, 256, 256), np.uint8), np.eye(4)), tmp_path / "empty.nii.gz")

    require_complete(tmp_path / "empty.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_nifti_2_file_that_is_cut_off_is_noticed(tmp_path, name):
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(header_2((2**40, 2**20, 2))))
    nibabel.save(nibabel.Nifti2Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / ("whole" + name))

    for read in (require_complete, read_image):
        with pytest.raises(ImageError, match="cut off"):
            read(tmp_path / name)
    assert read_image(tmp_path / ("whole" + name)).array.shape == (1, 5, 4, 3)


def test_colours_on_sheared_axes_are_refused(tmp_path):
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    nibabel.save(nibabel.Nifti1Image(colours, sheared), tmp_path / "a.nii")

    with pytest.raises(ImageError):
        read_image(tmp_path / "a.nii")

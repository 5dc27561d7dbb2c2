"""NaN in NIfTI files is kept, so that it can be refused by name."""

from __future__ import annotations

import nibabel
import numpy as np

from NNSegmentLib.image import read_image


def test_nan_and_infinity_of_a_nifti_file_are_seen(tmp_path):
    voxels = np.ones((4, 5, 6), np.float32)
    voxels[1, 2, 3], voxels[0, 0, 0] = np.nan, np.inf
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "odd.nii.gz")

    array = read_image(tmp_path / "odd.nii.gz").array[0]

    assert np.isnan(array[3, 2, 1])
    assert np.isinf(array[0, 0, 0])
    assert np.isfinite(array).sum() == array.size - 2


def test_float_files_lie_where_integer_files_lie(tmp_path):
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
    for name, kind in (("float", np.float32), ("whole", np.int16)):
        nibabel.save(
            nibabel.Nifti1Image(np.arange(120, dtype=kind).reshape(4, 5, 6), affine), tmp_path / f"{name}.nii.gz"
        )

    real, whole = (read_image(tmp_path / f"{name}.nii.gz") for name in ("float", "whole"))

    assert real.geometry == whole.geometry
    assert (real.array == whole.array).all()

"""A case of a task is shown from its files: its own voxels, in the place where the library has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from NNSegmentLib.errors import ImageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import write_image, write_labels
from NNSegmentLib.labels import Label, LabelSet

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
LABELS = LabelSet((Label("background", (0,)), Label("organ", (1,), (200, 10, 10))))
PLANE = Geometry((1, 12, 16), dimension=2)
THIN = Geometry((1, 12, 16), (5.0, 0.5, 0.5), (10.0, -20.0, 30.0))


@pytest.fixture
def view(bench):
    from bench.modules import load_scripted_module

    load_scripted_module(MODULE)
    from NNSegmentUI.case_view import CaseView

    yield CaseView()
    bench.take_vtk_errors()  # of the readers that were tried


def image_of(shape, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def organ(shape) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[..., 2:7, 3:9] = 1
    return mask


def voxels_of(node, volume) -> np.ndarray:
    import slicer

    segment = node.GetSegmentation().GetSegmentIdBySegmentName("organ")
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)


def matrix_of(volume) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.mark.parametrize("grid", [THIN, PLANE], ids=["one slice", "2-D file"])
def test_a_plane_is_shown_without_those_of_other_patients_beside_it(view, tmp_path, grid):
    """The files of a folder that are one slice each, whether of other cases or of another channel."""
    import slicer

    for case in range(3):
        for channel in range(2):
            array = image_of(grid.shape, seed=2 * case + channel)
            write_image(tmp_path / f"case{case}_000{channel}.nii.gz", array, grid)
    write_labels(tmp_path / "labels.nii.gz", organ(grid.shape), grid)

    shown = view.show("case1", tmp_path / "case1_0000.nii.gz", tmp_path / "labels.nii.gz", None, LABELS)

    assert np.array_equal(slicer.util.arrayFromVolume(shown[0]), image_of(grid.shape, seed=2))
    assert np.array_equal(voxels_of(shown[1], shown[0]), organ(grid.shape))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_picture_that_slicer_cannot_load_is_shown(view, tmp_path, ending):
    import slicer

    array = image_of(PLANE.shape, seed=1)
    write_image(tmp_path / f"case_0000{ending}", array, PLANE)
    write_labels(tmp_path / f"labels{ending}", organ(PLANE.shape), PLANE)

    volume, reference, _none = view.show(
        "case", tmp_path / f"case_0000{ending}", tmp_path / f"labels{ending}", None, LABELS
    )

    assert volume.GetName() == "case"
    assert np.array_equal(slicer.util.arrayFromVolume(volume), array)
    assert np.array_equal(matrix_of(volume), np.diag([-1.0, -1.0, 1.0, 1.0]))  # a pixel thick, not nnU-Net's 999
    assert np.array_equal(voxels_of(reference, volume), organ(PLANE.shape))


def test_a_picture_in_colour_that_slicer_cannot_load_keeps_its_colours(view, tmp_path):
    import SimpleITK as sitk
    import slicer

    colours = image_of((12, 16, 3), seed=1)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "case_0000.png"))

    volume, *_none = view.show("case", tmp_path / "case_0000.png", None, None, LABELS)

    assert volume.IsA("vtkMRMLVectorVolumeNode")
    assert np.array_equal(slicer.util.arrayFromVolume(volume)[0], colours)


def test_a_file_whose_axes_slicer_refuses_is_shown_where_the_labels_are(view, tmp_path):
    """Those of other programs, rounded a little more than its reader takes."""
    import nibabel
    import slicer

    matrix = np.array([[0.0, -1, 0, 10], [1, 0, 0.001, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
    array = image_of((4, 12, 16), seed=1)
    for name, voxels in (("case_0000.nii.gz", array), ("labels.nii.gz", organ(array.shape))):
        nibabel.save(nibabel.Nifti1Image(voxels.T, matrix), tmp_path / name)

    volume, reference, _none = view.show(
        "case", tmp_path / "case_0000.nii.gz", tmp_path / "labels.nii.gz", None, LABELS
    )

    assert np.array_equal(slicer.util.arrayFromVolume(volume), array)
    assert np.allclose(matrix_of(volume), matrix, atol=2e-3)
    assert np.array_equal(voxels_of(reference, volume), organ(array.shape))


def test_a_volume_that_slicer_loads_elsewhere_than_the_labels_are_is_put_there(view, tmp_path, monkeypatch):
    """Of the two places in a NIfTI header readers take one or the other."""
    import slicer

    grid, load = Geometry((4, 12, 16), (2.0, 1.0, 1.0), (5.0, 6.0, 7.0)), slicer.util.loadVolume
    array = image_of(grid.shape, seed=1)
    write_image(tmp_path / "case_0000.nii.gz", array, grid)
    write_labels(tmp_path / "labels.nii.gz", organ(grid.shape), grid)

    def load_elsewhere(*given):
        volume = load(*given)
        volume.SetOrigin(105.0, 6.0, 7.0)
        return volume

    monkeypatch.setattr(slicer.util, "loadVolume", load_elsewhere)
    volume, reference, _none = view.show(
        "case", tmp_path / "case_0000.nii.gz", tmp_path / "labels.nii.gz", None, LABELS
    )

    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [volume]
    assert np.allclose(matrix_of(volume), grid.ijk_to_ras)
    assert np.array_equal(slicer.util.arrayFromVolume(volume), array)
    assert np.array_equal(voxels_of(reference, volume), organ(grid.shape))


def test_a_file_that_is_no_image_is_told(view, tmp_path):
    (tmp_path / "case_0000.nii.gz").write_text(json.dumps({"no": "image"}))

    with pytest.raises(ImageError, match="cannot be read as an image"):
        view.show("case", tmp_path / "case_0000.nii.gz", None, None, LABELS)

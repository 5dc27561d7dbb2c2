"""NIfTI volumes whose axes are not perpendicular, as converters make of gantry-tilted CTs: nibabel is the opinion."""

from __future__ import annotations

import importlib.util
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from task_on_disk import PLAIN, noise

from NNSegmentLib.errors import MissingPackageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.grids.two_places import two_places
from NNSegmentLib.image import LabelMap, read_geometry, read_image, read_labels, write_image, write_labels
from NNSegmentLib.integrity.grids import carried_over
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.prediction import Prediction, save_prediction

LABELS = LabelSet((Label("background", (0,)), Label("one", (1,))))


def leaning(grid: Geometry, by: float) -> Geometry:
    """The grid with its z axis leaning along y, by mm a mm."""
    matrix = np.eye(4)
    matrix[1, 2] = by * grid.spacing_mm[0] / grid.spacing_mm[1]
    return Geometry.from_ijk_to_ras(grid.shape, grid.ijk_to_ras @ matrix)


@pytest.fixture(params=[5e-4, 0.02, 0.4])
def sheared(request, any_geometry) -> Geometry:
    """Every grid of the other tests with its z axis leaning."""
    return leaning(any_geometry, request.param)


@pytest.fixture
def image(tmp_path, sheared):
    """A file that SimpleITK refuses or, hardly sheared, straightens."""
    path = tmp_path / "case_0000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(noise(4, sheared.shape).T, sheared.ijk_to_ras), path)
    return path


def test_it_is_read_at_its_place(image, sheared):
    found = read_image(image)

    assert np.array_equal(found.array[0], noise(4, sheared.shape))
    assert found.geometry.corner_distance_mm(sheared) < 1e-3
    assert read_geometry(image) == found.geometry


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_it_is_written_with_its_axes(tmp_path, sheared, ending, capfd):
    write_image(tmp_path / f"case{ending}", noise(3, sheared.shape), sheared)
    write_labels(tmp_path / f"labels{ending}", noise(3, sheared.shape) > 0, sheared)

    image, labels = read_image(tmp_path / f"case{ending}"), read_labels(tmp_path / f"labels{ending}")

    assert np.array_equal(image.array[0], noise(3, sheared.shape))
    assert np.array_equal(labels.array, noise(3, sheared.shape) > 0) and labels.array.dtype == np.uint8
    straightened_mm = max(n * s for n, s in zip(sheared.shape, sheared.spacing_mm, strict=True)) * 5e-4
    assert image.geometry.corner_distance_mm(sheared) < 1e-3 + straightened_mm * (sheared.shear < 1e-3)
    assert labels.geometry.same_grid(image.geometry)
    if ending.startswith(".nii"):
        opinion = nibabel.load(tmp_path / f"labels{ending}")
        np.testing.assert_allclose(opinion.affine, sheared.ijk_to_ras, atol=1e-4)
        assert opinion.header.get_xyzt_units()[0] == "mm"
    assert "coerced" not in "".join(capfd.readouterr())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("reader", ["", "NibabelIO", "SimpleITKIO", "NibabelIOWithReorient"])
def test_a_prediction_lies_where_the_image_does_whatever_the_reader(tmp_path, image, sheared, reader):
    seen = read_image(image, reader)
    marked = seen.array[0] == noise(4, sheared.shape)[1, 2, 3]
    prediction = Prediction(marked.astype(np.uint8), seen.geometry, LABELS)

    save_prediction(prediction, tmp_path / "case.nii.gz", read_geometry(image))

    opinion, original = nibabel.load(tmp_path / "case.nii.gz"), nibabel.load(image)
    np.testing.assert_allclose(opinion.affine, original.affine, atol=1e-4)
    expected = np.asarray(original.dataobj) == noise(4, sheared.shape)[1, 2, 3]
    assert expected.any() and np.array_equal(np.asarray(opinion.dataobj), expected)


def test_labels_on_another_grid_are_carried_onto_it_by_world_coordinates(sheared):
    wider = Geometry(tuple(n + 6 for n in sheared.shape), sheared.spacing_mm, sheared.origin_mm, sheared.direction)
    wider = wider.cropped((-3, -3, -3), wider.shape)
    block = np.zeros(sheared.shape, np.uint8)
    block[1:-1, 2:-2, 2:-2] = 1

    there = carried_over(LabelMap(block, sheared), wider)

    assert np.array_equal(there[3:-3, 3:-3, 3:-3], block) and there.sum() == block.sum()


def test_grids_that_are_hardly_askew_are_written_so_that_simpleitk_reads_them_too(tmp_path, any_geometry):
    grid = leaning(any_geometry, 5e-4)

    write_labels(tmp_path / "labels.nii.gz", noise(3, grid.shape) > 0, grid)

    seen = sitk.ReadImage(str(tmp_path / "labels.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(seen), noise(3, grid.shape) > 0)
    assert read_geometry(tmp_path / "labels.nii.gz").corner_distance_mm(grid) < 0.02
    assert two_places(tmp_path / "labels.nii.gz", read_geometry(tmp_path / "labels.nii.gz")) is None


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3)])
def test_its_unit_counts(tmp_path, sheared, unit, mm):
    volume = nibabel.Nifti1Image(noise(4, sheared.shape).T, np.diag([1 / mm] * 3 + [1]) @ sheared.ijk_to_ras)
    volume.header.set_xyzt_units(unit)
    nibabel.save(volume, tmp_path / "case.nii.gz")

    np.testing.assert_allclose(read_geometry(tmp_path / "case.nii.gz").spacing_mm, sheared.spacing_mm, rtol=1e-4)


@pytest.fixture
def no_nibabel(monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("lean", [0.02, 0.4])
def test_without_nibabel_it_is_not_straightened_but_refused(tmp_path, no_nibabel, lean):
    with pytest.raises(MissingPackageError, match="nibabel"):
        write_labels(tmp_path / "labels.nii.gz", noise(3, PLAIN.shape) > 0, leaning(PLAIN, lean))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lean", [4e-6, 5e-4])
def test_without_nibabel_what_is_hardly_askew_is_straightened(tmp_path, no_nibabel, lean):
    write_labels(tmp_path / "labels.nii.gz", noise(3, PLAIN.shape) > 0, leaning(PLAIN, lean))

    assert read_labels(tmp_path / "labels.nii.gz").geometry.corner_distance_mm(leaning(PLAIN, lean)) < 0.02


def test_simpleitk_has_no_answer_here(image):
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(image))

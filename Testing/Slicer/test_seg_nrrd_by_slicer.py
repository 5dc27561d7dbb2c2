"""Segmentation files that Slicer itself writes become a task with the same voxels in the same places."""

from __future__ import annotations

import numpy as np
import pytest
from mrml_nodes import TERMINOLOGY, Builder

from NNSegmentLib.folders import Workspace
from NNSegmentLib.formats import convert
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_image


@pytest.fixture
def build(bench):
    import slicer

    return Builder(slicer.mrmlScene)


def save(node, path, crop: bool) -> None:
    import slicer

    path.parent.mkdir(parents=True, exist_ok=True)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    storage.SetCropToMinimumExtent(crop)
    assert storage.WriteData(node)


def box(shape, z, y, x) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def world(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    places = np.round(geometry.world(np.argwhere(mask)), 3)
    return places[np.lexsort(places.T)]


@pytest.mark.parametrize("crop", [True, False], ids=["cropped", "whole"])
@pytest.mark.parametrize("overlapping", [True, False], ids=["two layers", "one layer"])
def test_segments_saved_by_slicer_keep_place_name_and_terminology(build, tmp_path, any_geometry, crop, overlapping):
    shape = any_geometry.shape
    masks = {
        "organ": box(shape, (1, 5), (2, 9), (1, 7)),
        "tumor": box(shape, (2, 4), (4, 6), (3, 5)) if overlapping else box(shape, (2, 4), (10, 11), (3, 5)),
    }
    volume = build.volume(np.zeros(shape, np.int16), any_geometry.ijk_to_ras)
    node = build.segmentation(masks, any_geometry.ijk_to_ras, volume=volume)
    if not overlapping:
        node.GetSegmentation().CollapseBinaryLabelmaps(False)
    save(node, tmp_path / "source" / "labels" / "case.seg.nrrd", crop)
    write_image(tmp_path / "source" / "images" / "case.nii.gz", np.zeros(shape, np.int16), any_geometry)

    task = convert(tmp_path / "source", Workspace.at(tmp_path / "workspace"), overlaps="regions")

    found = read_labels(task.cases[0].labels)
    assert found.geometry.same_grid(any_geometry)
    assert task.labels.has_regions == overlapping
    for number, label in enumerate(sorted(task.labels.foreground, key=lambda label: label.name), 1):
        mask = masks[label.name]
        assert np.allclose(
            world(np.isin(found.array, label.values), found.geometry), world(mask, any_geometry), atol=0.01
        )
        assert label.color == (round(255 * 0.2 * number), 102, 204)
        assert label.terminology.split("~")[1:4] == TERMINOLOGY[label.name].split("~")[1:4]


def test_a_segmentation_saved_by_slicer_without_voxels_is_background(build, tmp_path):
    grid = Geometry((6, 7, 8), (2.0, 1.0, 1.0))
    for name, mask in (("full", box(grid.shape, (1, 3), (1, 4), (2, 5))), ("empty", None)):
        node = build.segmentation({"organ": mask}, grid.ijk_to_ras, name)
        save(node, tmp_path / "source" / "labels" / f"{name}.seg.nrrd", True)
        write_image(tmp_path / "source" / "images" / f"{name}.nii.gz", np.zeros(grid.shape, np.int16), grid)

    task = convert(tmp_path / "source", Workspace.at(tmp_path / "workspace"))

    assert not read_labels(task.case("empty").labels).array.any()
    assert read_labels(task.case("full").labels).array.sum() == 2 * 3 * 3

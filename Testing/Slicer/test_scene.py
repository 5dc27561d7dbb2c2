"""Nodes of a real MRML scene become cases and predictions become segments; places are compared in the world."""

from __future__ import annotations

import numpy as np
import pytest

from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_image, read_labels
from NNSegmentLib.prediction import Prediction

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from mrml_nodes import TERMINOLOGY, Builder  # noqa: E402

from NNSegmentLib import scene as bridge  # noqa: E402
from NNSegmentLib.scene_tasks import (  # noqa: E402
    create_task_from_nodes,
    export_case,
)

TISSUE = "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~~^^~^^"
"""What Slicer gives to a segment it knows nothing about."""


@pytest.fixture(scope="module")
def logics():
    """The logics that Slicer's application owns, without which segments cannot be converted."""
    return slicer.vtkSlicerApplicationLogic(), slicer.vtkSlicerSegmentationsModuleLogic()


@pytest.fixture
def scene(logics):
    application, segmentations = logics
    made = slicer.vtkMRMLScene()
    application.SetMRMLScene(made)
    application.GetColorLogic().SetMRMLScene(made)
    application.GetColorLogic().AddDefaultColorNodes()
    segmentations.SetMRMLScene(made)
    segmentations.SetMRMLApplicationLogic(application)
    yield made
    made.Clear(1)


@pytest.fixture
def build(scene):
    return Builder(scene)


def turn(degrees: float, shift=(5.0, -6.0, 7.0)) -> np.ndarray:
    a, matrix = np.deg2rad(degrees), np.eye(4)
    matrix[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    matrix[:3, 3] = shift
    return matrix


def image_of(geometry: Geometry) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 2000, geometry.shape).astype(np.int16)


def two_boxes(geometry: Geometry) -> dict[str, np.ndarray]:
    """Two boxes side by side that touch the array's first and last voxels."""
    z, y, x = np.indices(geometry.shape)
    organ = (z < geometry.shape[0] - 2) & (y < 5) & (x < 6)
    return {"organ": organ, "tumor": (y >= 5) & (x >= 6)}


def as_label_map(masks: dict) -> np.ndarray:
    return sum(value * mask.astype(int) for value, mask in enumerate(masks.values(), 1))


def world_points(labels: np.ndarray, value: int, geometry: Geometry) -> np.ndarray:
    """Sorted RAS positions of all voxels of a value."""
    points = geometry.world(np.argwhere(labels == value)).round(2) + 0.0
    return points[np.lexsort(points.T)]


def segment_points(node, name: str) -> np.ndarray:
    """Sorted RAS positions of a segment's voxels, read with VTK alone."""
    import vtk
    from vtk.util import numpy_support

    segmentation = node.GetSegmentation()
    segment = next(
        segmentation.GetSegment(i) for i in segmentation.GetSegmentIDs() if segmentation.GetSegment(i).GetName() == name
    )
    image, matrix, parent = segment.GetRepresentation("Binary labelmap"), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    index = np.argwhere(array == segment.GetLabelValue())[:, ::-1] + np.array(image.GetExtent()[::2])
    image.GetImageToWorldMatrix(matrix)
    if node.GetParentTransformNode():
        node.GetParentTransformNode().GetMatrixTransformToWorld(parent)
        vtk.vtkMatrix4x4.Multiply4x4(parent, matrix, matrix)
    points = np.array([matrix.MultiplyPoint((*map(float, i), 1.0))[:3] for i in index]).reshape(-1, 3).round(2) + 0.0
    return points[np.lexsort(points.T)]


def test_a_case_lies_where_the_nodes_lie_and_keeps_every_voxel(build, tmp_path, any_geometry):
    array, masks = image_of(any_geometry), two_boxes(any_geometry)
    volume = build.volume(array, any_geometry.ijk_to_ras)
    segmentation = build.segmentation(masks, any_geometry.ijk_to_ras)

    case = export_case(tmp_path, "one", volume, segmentation)

    image, labels = read_image(case.images), read_labels(case.labels)
    assert np.array_equal(image.array[0], array)
    assert np.array_equal(labels.array, as_label_map(masks))
    assert image.geometry.same_grid(any_geometry) and labels.geometry.same_grid(any_geometry)
    assert sorted(p.name for p in tmp_path.rglob("*.nii.gz")) == ["one.nii.gz", "one_0000.nii.gz"]


def test_labels_have_the_reference_grid_even_when_segments_fill_a_corner_of_another_grid(build, tmp_path, any_geometry):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    part = any_geometry.cropped((1, 2, 3), (3, 4, 5))
    segmentation = build.segmentation({"organ": np.ones(part.shape)}, part.ijk_to_ras)

    labels = read_labels(export_case(tmp_path, "one", volume, segmentation).labels)

    expected = np.zeros(any_geometry.shape, int)
    expected[1:4, 2:6, 3:8] = 1
    assert np.array_equal(labels.array, expected)


@pytest.mark.parametrize("where", ["volume", "segmentation", "same", "each"])
def test_transforms_of_volume_and_segmentation_are_applied(build, tmp_path, any_geometry, where):
    first, second = turn(20), turn(-35, (1.0, 2.0, 3.0))
    above_volume = {"volume": first, "segmentation": np.eye(4), "same": first, "each": first}[where]
    above_segmentation = {"volume": np.eye(4), "segmentation": first, "same": first, "each": second}[where]
    shared = build.linear(first)
    array, masks = image_of(any_geometry), two_boxes(any_geometry)
    volume = build.volume(array, any_geometry.ijk_to_ras, transform=None if where == "segmentation" else shared)
    # drawn so that in the world the segments lie exactly on the volume's voxels
    drawn = np.linalg.inv(above_segmentation) @ above_volume @ any_geometry.ijk_to_ras
    over = {"volume": None, "segmentation": shared, "same": shared}.get(where) or (
        build.linear(above_segmentation) if where == "each" else None
    )
    segmentation = build.segmentation(masks, drawn, transform=over)

    case = export_case(tmp_path, "one", volume, segmentation)

    image, labels = read_image(case.images), read_labels(case.labels)
    assert np.array_equal(image.array[0], array)
    assert np.array_equal(labels.array, as_label_map(masks))
    expected = Geometry.from_ijk_to_ras(any_geometry.shape, above_volume @ any_geometry.ijk_to_ras)
    assert image.geometry.same_grid(expected) and labels.geometry.same_grid(expected)


@pytest.mark.parametrize("over", ["nothing", "a transform"])
def test_node_to_case_to_prediction_to_node_is_exact_in_the_world(build, tmp_path, any_geometry, over):
    transform = build.linear(turn(30)) if over == "a transform" else None
    masks = two_boxes(any_geometry) | {"vessel": None}
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras, transform=transform)
    segmentation = build.segmentation(masks, any_geometry.ijk_to_ras, transform=transform, volume=volume)
    task = create_task_from_nodes(tmp_path, "Trip", ["CT"], [(volume, segmentation)])

    found = read_labels(task.cases[0].labels)
    shown = bridge.show_prediction(Prediction(found.array, found.geometry, task.labels), volume)

    assert shown.GetParentTransformNode() is transform
    assert shown.GetNodeReference("referenceImageGeometryRef") is volume
    assert [(r.name, r.color, r.terminology) for r in bridge.segment_table(shown)] == [
        ("organ", (51, 102, 204), TERMINOLOGY["organ"]),
        ("tumor", (102, 102, 204), TERMINOLOGY["tumor"]),
        ("vessel", bridge.segment_table(segmentation)[2].color, TISSUE),
    ]
    for name in ("organ", "tumor"):
        assert np.array_equal(segment_points(shown, name), segment_points(segmentation, name))
    assert bridge.segment_table(shown)[2].is_empty
    again = export_case(tmp_path, "again", volume, shown, task.labels)
    assert np.array_equal(read_labels(again.labels).array, as_label_map(two_boxes(any_geometry)))

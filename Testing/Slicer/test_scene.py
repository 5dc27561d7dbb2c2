"""Nodes of a real MRML scene become cases and predictions become segments; places are compared in the world."""

from __future__ import annotations

import csv
import gc
import logging
import tracemalloc
from functools import partial

import numpy as np
import pytest
from effort import growth

from NNSegmentLib.cases import load_origin
from NNSegmentLib.errors import ImageError, SettingsError, TaskError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_image, read_labels
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.prediction import Prediction
from NNSegmentLib.task import load_task

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")

from mrml_nodes import TERMINOLOGY, Builder, oriented, vtk_array  # noqa: E402

from NNSegmentLib import scene as bridge  # noqa: E402
from NNSegmentLib.scene_tasks import (  # noqa: E402
    add_case,
    create_task_from_nodes,
    find_pairs,
)

TISSUE = "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~~^^~^^"
"""What Slicer gives to a segment it knows nothing about."""


LABELS = LabelSet((Label("background", (0,)), Label("organ", (1,), (200, 10, 10)), Label("tumor", (2,), (0, 250, 0))))
SHEAR = np.eye(4)
SHEAR[1, 2] = 0.3
"""A gantry tilt: each plane a third of a voxel further along y."""


def all_nodes(scene) -> list:
    return [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]


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


def written(folder, volumes, segmentation, channels=("MR",), **options):
    """The only case, named "one", of a new task."""
    task = create_task_from_nodes(folder, "One", channels, [(volumes, segmentation)], case_ids="one", **options)
    return task.cases[0]


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

    case = written(tmp_path, volume, segmentation)

    image, labels = read_image(case.images), read_labels(case.labels)
    assert np.array_equal(image.array[0], array)
    assert np.array_equal(labels.array, as_label_map(masks))
    assert image.geometry.same_grid(any_geometry) and labels.geometry.same_grid(any_geometry)
    assert sorted(p.name for p in tmp_path.rglob("*.nii.gz")) == ["one.nii.gz", "one_0000.nii.gz"]


def test_labels_have_the_reference_grid_even_when_segments_fill_a_corner_of_another_grid(build, tmp_path, any_geometry):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    part = any_geometry.cropped((1, 2, 3), (3, 4, 5))
    segmentation = build.segmentation({"organ": np.ones(part.shape)}, part.ijk_to_ras)

    labels = read_labels(written(tmp_path, volume, segmentation).labels)

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

    case = written(tmp_path, volume, segmentation)

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
    assert bridge.segment_table(shown, find_empty=True)[2].is_empty
    again = add_case(task, volume, shown).cases[1]
    assert np.array_equal(read_labels(again.labels).array, as_label_map(two_boxes(any_geometry)))


@pytest.mark.parametrize("over", ["volume only", "segmentation only", "both differently"])
def test_a_prediction_put_into_a_segmentation_elsewhere_stays_on_its_voxels(build, any_geometry, over):
    """Slicer's own import applies the transform between the two nodes twice here."""
    first, second = build.linear(turn(25)), build.linear(turn(-50, (30.0, 0.0, 4.0)))
    volume_parent = None if over == "segmentation only" else first
    masks = two_boxes(any_geometry)
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras, transform=volume_parent)
    kept = np.ones((2, 2, 2))
    target = build.segmentation(
        {"other": kept, "tumor": kept}, np.eye(4), transform=None if over == "volume only" else second
    )
    world = turn(25) @ any_geometry.ijk_to_ras if volume_parent else any_geometry.ijk_to_ras
    grid = Geometry.from_ijk_to_ras(any_geometry.shape, world)
    others_before = segment_points(target, "other")

    shown = bridge.show_prediction(Prediction(as_label_map(masks).astype(np.uint8), grid, LABELS), volume, target)

    assert shown is target
    assert [row.name for row in bridge.segment_table(target)] == ["other", "tumor", "organ"]
    for name, value in (("organ", 1), ("tumor", 2)):
        assert np.array_equal(segment_points(target, name), world_points(as_label_map(masks), value, grid))
    assert np.array_equal(segment_points(target, "other"), others_before)


def test_showing_a_prediction_can_be_taken_back_step_by_step(build):
    geometry = Geometry((6, 7, 8))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    target = build.segmentation({"tumor": np.ones((2, 2, 2)), "other": np.ones((1, 2, 2))}, np.eye(4))
    first = segment_points(target, "tumor")
    assert not bridge.undo_prediction(target)

    for value in (1, 2):
        labels = np.zeros(geometry.shape, np.uint8)
        labels[value:, 3] = 2
        bridge.show_prediction(Prediction(labels, geometry, LABELS), volume, target)
    assert len(segment_points(target, "tumor")) == 4 * 8

    assert bridge.undo_prediction(target)
    assert len(segment_points(target, "tumor")) == 5 * 8
    assert bridge.undo_prediction(target)
    assert np.array_equal(segment_points(target, "tumor"), first)
    assert [row.name for row in bridge.segment_table(target)] == ["tumor", "other"]
    assert not bridge.undo_prediction(target)


def test_undo_leaves_what_was_drawn_or_changed_besides_the_prediction(build):
    geometry = Geometry((6, 7, 8))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    grown = np.ones((3, 4, 5))
    target = build.segmentation({"tumor": np.ones((2, 2, 2)), "other": np.ones((1, 2, 2))}, np.eye(4))
    bridge.show_prediction(Prediction(np.full(geometry.shape, 2, np.uint8), geometry, LABELS), volume, target)
    segmentation = target.GetSegmentation()
    segmentation.GetSegment("id2").AddRepresentation(bridge.BINARY, oriented(grown.astype(np.uint8), np.eye(4)))
    drawn = segmentation.AddEmptySegment("", "drawn")
    segmentation.GetSegment(drawn).AddRepresentation(bridge.BINARY, oriented(np.ones((1, 1, 1), np.uint8), np.eye(4)))
    segmentation.GetSegment(drawn).SetLabelValue(1)

    assert bridge.undo_prediction(target)

    assert [row.name for row in bridge.segment_table(target)] == ["tumor", "other", "drawn"]
    assert [len(segment_points(target, name)) for name in ("tumor", "other", "drawn")] == [8, grown.size, 1]


def test_segments_that_share_a_label_map_come_back_whole_each_in_its_place(build):
    geometry = Geometry((6, 7, 8))
    volume, masks = build.volume(image_of(geometry), geometry.ijk_to_ras), two_boxes(geometry)
    target = build.segmentation({"tumor": masks["tumor"], "other": masks["organ"], "organ": masks["organ"]}, np.eye(4))
    target.GetSegmentation().CollapseBinaryLabelmaps(False)
    target.CreateClosedSurfaceRepresentation()
    before = {name: segment_points(target, name) for name in ("tumor", "other", "organ")}

    bridge.show_prediction(Prediction(np.ones(geometry.shape, np.uint8), geometry, LABELS), volume, target)
    assert bridge.undo_prediction(target)
    gc.collect()

    assert [row.name for row in bridge.segment_table(target)] == list(before)
    for segment_id, (name, points) in zip(target.GetSegmentation().GetSegmentIDs(), before.items(), strict=True):
        assert np.array_equal(segment_points(target, name), points)
        assert target.GetSegmentation().GetSegment(segment_id).GetRepresentation(bridge.SURFACE).GetNumberOfPoints()


def test_only_segments_that_were_corrected_since_the_prediction_are_told(build):
    geometry = Geometry((6, 7, 8))
    volume, masks = build.volume(image_of(geometry), geometry.ijk_to_ras), two_boxes(geometry)
    shown = bridge.show_prediction(Prediction(as_label_map(masks).astype(np.uint8), geometry, LABELS), volume)
    segmentation = shown.GetSegmentation()
    assert bridge.changed_since_prediction(shown) == ()

    segmentation.AddEmptySegment("", "drawn")
    segmentation.CollapseBinaryLabelmaps(True)
    assert bridge.changed_since_prediction(shown) == ()
    corrected = oriented((masks["tumor"] & (np.indices(geometry.shape)[0] > 0)).astype(np.uint8), geometry.ijk_to_ras)
    tumor = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("tumor"))
    tumor.AddRepresentation(bridge.BINARY, corrected)
    tumor.SetLabelValue(1)

    ((name, look),) = bridge.changed_since_prediction(shown)
    tumor.AddRepresentation(bridge.BINARY, oriented(masks["organ"].astype(np.uint8), geometry.ijk_to_ras))
    ((_name, later),) = bridge.changed_since_prediction(shown)

    assert name == "tumor"
    assert later != look


def test_a_prediction_is_the_last_one_again_once_the_segment_editor_has_taken_the_next_one_back(scene, build):
    geometry = Geometry((6, 7, 8))
    volume, masks = build.volume(image_of(geometry), geometry.ijk_to_ras), two_boxes(geometry)
    node = bridge.show_prediction(Prediction(as_label_map(masks).astype(np.uint8), geometry, LABELS), volume)
    first, state = bridge.last_prediction(node), slicer.vtkSegmentation()
    state.DeepCopy(node.GetSegmentation())
    bridge.show_prediction(Prediction(np.ones(geometry.shape, np.uint8), geometry, LABELS), volume, node)
    second = bridge.last_prediction(node)

    between = bridge.predictions_since(node, first), bridge.predictions_since(node, second)
    node.GetSegmentation().DeepCopy(state)
    after = bridge.predictions_since(node, first), bridge.predictions_since(node, second)

    assert between == (1, 0)
    assert after == (0, None)
    assert bridge.undo_prediction(node)
    assert bridge.predictions_since(node, first) is None


@pytest.mark.parametrize("close", [False, True], ids=["the node is removed", "the scene is closed"])
def test_segments_kept_for_undo_are_let_go_with_their_node(scene, build, close):
    import vtk

    geometry = Geometry((6, 7, 8))
    volume, gone = build.volume(image_of(geometry), geometry.ijk_to_ras), []
    prediction = Prediction(np.ones(geometry.shape, np.uint8), geometry, LABELS)
    target, other = (build.segmentation({"organ": np.ones((2, 2, 2))}, np.eye(4)) for _ in range(2))
    for node in (target, target, other):
        bridge.show_prediction(prediction, volume, node)
    made = bridge.show_prediction(prediction, volume)
    removed = (target, made, other) if close else (target, made)
    for node in removed:
        node.GetSegmentation().AddObserver(vtk.vtkCommand.DeleteEvent, lambda *_: gone.append(True))

    if close:
        scene.Clear(0)
    else:
        scene.RemoveNode(target), scene.RemoveNode(made)
        assert bridge.undo_prediction(other), "the states of a node that stays are kept"
    count = len(removed)
    del node, target, made, removed, other
    gc.collect()

    assert len(gone) == count


@pytest.mark.parametrize("kind", ["Closed surface", "Fractional labelmap"])
def test_a_prediction_is_refused_where_its_voxels_would_be_converted(build, any_geometry, kind):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    target = build.surface("ball", (4, 4, 4), 3, kind=kind)
    prediction = Prediction(as_label_map(two_boxes(any_geometry)).astype(np.uint8), any_geometry, LABELS)

    with pytest.raises(ImageError, match=f"The segmentation ball keeps its segments as {kind}, where voxels cannot"):
        bridge.show_prediction(prediction, volume, target)

    assert [row.name for row in bridge.segment_table(target)] == ["ball"]


def test_an_empty_segmentation_of_surfaces_takes_a_prediction_voxel_by_voxel(scene, build, any_geometry):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    target = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
    target.SetSourceRepresentationToClosedSurface()
    masks = two_boxes(any_geometry)

    bridge.show_prediction(Prediction(as_label_map(masks).astype(np.uint8), any_geometry, LABELS), volume, target)

    assert target.GetSegmentation().GetSourceRepresentationName() == "Binary labelmap"
    for value, name in enumerate(masks, 1):
        assert np.array_equal(segment_points(target, name), world_points(as_label_map(masks), value, any_geometry))


def test_a_prediction_is_shown_in_3d_on_request(build):
    geometry = Geometry((6, 7, 8))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2:5, 2:5, 2:5] = 1

    flat = bridge.show_prediction(Prediction(labels, geometry, LABELS), volume)
    solid = bridge.show_prediction(Prediction(labels, geometry, LABELS), volume, show_3d=True)

    assert flat.GetClosedSurfaceInternalRepresentation("organ") is None
    bounds = np.array(solid.GetClosedSurfaceInternalRepresentation("organ").GetBounds()).reshape(3, 2)
    assert np.allclose(bounds.mean(axis=1), 3, atol=0.1) and (np.ptp(bounds, axis=1) > 1).all()
    again = bridge.show_prediction(Prediction(np.roll(labels, 1, 0), geometry, LABELS), volume, solid)
    moved = np.array(again.GetClosedSurfaceInternalRepresentation("organ").GetBounds()).reshape(3, 2)
    assert np.allclose(moved.mean(axis=1), (3, 3, 4), atol=0.1)


def test_a_prediction_on_a_turned_copy_or_another_grid_still_lands_in_the_right_place(build):
    geometry = Geometry((6, 7, 8), (2.0, 1.0, 1.0))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    labels = two_boxes(geometry)["organ"].astype(np.uint8)
    matrix = geometry.ijk_to_ras
    matrix[:3, 0] *= -1
    matrix[:3, 3] = geometry.world((0, 0, 7))[0]
    flipped = Geometry.from_ijk_to_ras(geometry.shape, matrix)
    part = geometry.cropped((1, 1, 1), (4, 5, 6))

    turned = bridge.show_prediction(Prediction(labels[:, :, ::-1], flipped, LABELS), volume)
    cut = bridge.show_prediction(Prediction(labels[1:5, 1:6, 1:7], part, LABELS), volume)

    assert np.array_equal(segment_points(turned, "organ"), world_points(labels, 1, geometry))
    assert np.array_equal(segment_points(cut, "organ"), world_points(labels[1:5, 1:6, 1:7], 1, part))
    elsewhere = Geometry(geometry.shape, geometry.spacing_mm, (500.0, 0.0, 0.0))
    with pytest.raises(ImageError, match="lies elsewhere than CT"):
        bridge.show_prediction(Prediction(labels, elsewhere, LABELS), volume)


def test_nothing_given_is_changed_and_nothing_is_left_in_the_scene(scene, build, tmp_path):
    geometry = Geometry((6, 7, 8), (2.0, 1.0, 1.0))
    tilted = geometry.ijk_to_ras @ SHEAR
    volume = build.volume(image_of(geometry), tilted, transform=build.warp(2.0))
    ball = build.surface("ball", (4, 4, 6), 3.0, transform=build.linear(turn(10, (0, 0, 0))))
    before = [(node.GetID(), node.GetMTime()) for node in all_nodes(scene)]
    segments_before = ball.GetSegmentation().GetMTime()

    written(tmp_path, volume, ball)

    assert [(node.GetID(), node.GetMTime()) for node in all_nodes(scene)] == before
    assert ball.GetSegmentation().GetMTime() == segments_before
    assert not ball.GetSegmentation().ContainsRepresentation("Binary labelmap")
    assert volume.GetImageData().GetScalarRange() == (image_of(geometry).min(), image_of(geometry).max())


def test_a_sheared_volume_is_resampled_onto_a_regular_grid_or_refused(build, tmp_path, caplog):
    geometry = Geometry((12, 20, 20), (2.0, 1.0, 1.0))
    matrix = geometry.ijk_to_ras @ SHEAR
    index = np.indices(geometry.shape)[::-1].reshape(3, -1)
    places = (matrix[:3, :3] @ index + matrix[:3, 3:]).reshape(3, *geometry.shape)
    volume = build.volume(places.sum(axis=0), matrix, "Tilted")  # its values say where a voxel is
    inside = (np.abs(places - np.array([10, 14, 11])[:, None, None, None]) < 5).all(axis=0)
    segmentation = build.segmentation({"organ": inside}, matrix)

    case = written(tmp_path, volume, segmentation)

    assert "Tilted has axes that are not perpendicular (gantry tilt) and was resampled" in caplog.text
    image, labels = read_image(case.images), read_labels(case.labels)
    assert image.geometry.same_grid(labels.geometry)
    assert image.geometry.spacing_mm == pytest.approx((2.0, 1.0, 1.0))
    found = labels.geometry.world(np.argwhere(labels.array))
    assert np.allclose(found.mean(axis=0), (10, 14, 11), atol=0.5)
    voxels = np.argwhere(labels.array)
    assert np.allclose(image.array[0][tuple(voxels.T)], image.geometry.world(voxels).sum(axis=1), atol=1e-3)
    shown = bridge.show_prediction(Prediction(labels.array, labels.geometry, LABELS), volume)
    assert np.allclose(segment_points(shown, "organ").mean(axis=0), (10, 14, 11), atol=0.5)
    with pytest.raises(ImageError, match="axes of Tilted are not perpendicular"):
        written(tmp_path / "two", volume, segmentation, irregular="refuse")


def test_a_volume_under_a_non_linear_transform_is_resampled_or_refused(build, tmp_path, caplog):
    geometry = Geometry((8, 9, 20))
    array = np.zeros(geometry.shape, np.int16)
    array[2:6, 3:7, 5:9] = 100
    warp = build.warp(4.0)
    volume = build.volume(array, geometry.ijk_to_ras, transform=warp)
    segmentation = build.segmentation({"organ": array > 0}, geometry.ijk_to_ras, transform=warp)

    case = written(tmp_path, volume, segmentation)

    assert "CT is under a non-linear transform and was resampled through it" in caplog.text
    expected = np.zeros(geometry.shape)
    expected[2:6, 3:7, 9:13] = 1
    assert np.array_equal(read_image(case.images).array[0] > 50, expected > 0)
    labels = read_labels(case.labels)
    assert np.array_equal(labels.array, expected)
    shown = bridge.show_prediction(Prediction(labels.array, labels.geometry, LABELS), volume)
    assert shown.GetParentTransformNode() is None
    assert np.array_equal(segment_points(shown, "organ"), world_points(expected, 1, geometry))
    with pytest.raises(ImageError, match="under a non-linear transform; harden"):
        written(tmp_path / "two", volume, segmentation, irregular="refuse")
    with pytest.raises(ImageError, match="show the prediction in a new segmentation"):
        bridge.show_prediction(Prediction(labels.array, labels.geometry, LABELS), volume, segmentation)


def test_channels_on_other_grids_are_resampled_to_the_first_with_a_warning(build, tmp_path, any_geometry, caplog):
    def slope(geometry):
        return geometry.world(np.indices(geometry.shape).reshape(3, -1).T).sum(axis=1).reshape(geometry.shape)

    fine = Geometry.from_ijk_to_ras((30, 30, 30), any_geometry.ijk_to_ras @ np.diag([0.7, 0.7, 0.4, 1.0]))
    shift = turn(0, (0.0, 0.0, 1.0))
    first = build.volume(slope(any_geometry), any_geometry.ijk_to_ras, "T1")
    second = build.volume(slope(fine), np.linalg.inv(shift) @ fine.ijk_to_ras, "T2", transform=build.linear(shift))
    twin = build.volume(slope(any_geometry), any_geometry.ijk_to_ras, "T1c")

    empty, names = build.segmentation({"organ": None}, any_geometry.ijk_to_ras), ("T1", "T2", "T1c")

    case = written(tmp_path, [first, second, twin], empty, names)

    image = read_image(case.images)
    assert [path.name for path in case.images] == ["one_0000.nii.gz", "one_0001.nii.gz", "one_0002.nii.gz"]
    assert [record.getMessage() for record in caplog.records] == ["one: T2 was resampled onto the grid of T1."]
    assert np.array_equal(image.array[0], image.array[2])
    inside = image.array[1] > image.array[1].min()
    assert inside.sum() > 100
    assert np.allclose(image.array[1][inside], image.array[0][inside], atol=1e-2)
    far = build.volume(slope(fine), turn(0, (900.0, 0, 0)) @ fine.ijk_to_ras, "Far")
    with pytest.raises(ImageError, match="Far lies elsewhere than T1"):
        written(tmp_path / "two", [first, far], empty, names[:2])


@pytest.mark.parametrize("kind", ["Closed surface", "Fractional labelmap"])
def test_surfaces_and_fractional_segments_are_converted_on_the_volumes_grid(build, tmp_path, any_geometry, kind):
    centre, transform = any_geometry.world(np.array(any_geometry.shape) / 2)[0], turn(15)
    radius = 0.35 * min(n * s for n, s in zip(any_geometry.shape, any_geometry.spacing_mm, strict=True)) + 1
    inner = np.linalg.inv(transform) @ [*centre, 1]
    ball = build.surface("ball", inner[:3], radius, transform=build.linear(transform), kind=kind)
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)

    labels = read_labels(written(tmp_path, volume, ball).labels).array

    places = any_geometry.world(np.indices(any_geometry.shape).reshape(3, -1).T).reshape(*any_geometry.shape, 3)
    distance = np.linalg.norm(places - centre, axis=-1)
    half_voxel = 0.5 * np.linalg.norm(any_geometry.spacing_mm)
    assert labels[distance < radius - half_voxel].all()
    assert not labels[distance > radius + half_voxel].any()
    assert labels.any() and labels.max() == 1


def test_nested_segments_become_regions_and_come_back_overlapping(build, tmp_path):
    geometry = Geometry((6, 10, 10), (2.0, 1.0, 1.0))
    organ, tumor = np.zeros((2, *geometry.shape), bool)
    organ[1:5, 1:9, 1:9] = True
    tumor[2:4, 3:6, 3:6] = True
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation({"tumor": tumor, "organ": organ}, geometry.ijk_to_ras)

    task = create_task_from_nodes(tmp_path, "Nested", ["CT"], [(volume, segmentation)])

    assert task.labels.to_dataset_json() == {
        "labels": {"background": 0, "organ": [1, 2], "tumor": 2},
        "regions_class_order": [1, 2],
    }
    labels = read_labels(task.cases[0].labels)
    assert np.array_equal(labels.array, organ.astype(int) + tumor)
    painted = task.labels.decide(np.stack([organ, tumor]).astype(float), probabilities=True)
    shown = bridge.show_prediction(Prediction(painted, geometry, task.labels), volume)
    for name in ("organ", "tumor"):
        assert np.array_equal(segment_points(shown, name), segment_points(segmentation, name))
    with pytest.raises(TaskError, match="the segments organ and tumor overlap in 18 voxels"):
        create_task_from_nodes(tmp_path, "Refused", ["CT"], [(volume, segmentation)], overlap="refuse")
    assert not list((tmp_path / "nnUNet_raw").glob("*Refused*")), "nothing half-made stays behind"


def test_crossing_segments_get_a_label_for_their_intersection_so_that_both_come_back(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    first, second, third = np.zeros((3, *geometry.shape), bool)
    first[1:5, 1:6, 1:9], second[1:5, 4:9, 1:9], third[5, 9, :3] = True, True, True
    masks = {"a": first, "b": second, "c": third, "nothing": None}
    plain = {"a": first, "c": third}
    volumes = [build.volume(image_of(geometry), geometry.ijk_to_ras, f"CT{n}") for n in range(2)]
    crossing = build.segmentation(masks, geometry.ijk_to_ras, "crossing")
    apart = build.segmentation(plain, geometry.ijk_to_ras, "apart")

    task = create_task_from_nodes(tmp_path, "Crossing", ["CT"], [(volumes[0], apart), (volumes[1], crossing)])

    assert set(label.name for label in task.labels.labels) == {"background", "a", "b", "c", "nothing", "a & b"}
    active = np.stack([masks.get(label.name) if masks.get(label.name) is not None
                       else (first & second) * (label.name == "a & b") for label in task.labels.foreground])  # fmt: skip
    painted = task.labels.decide(active.astype(float), probabilities=True)
    assert np.array_equal(painted, read_labels(task.cases[1].labels).array)
    shown = bridge.show_prediction(Prediction(painted, geometry, task.labels), volumes[0])
    assert {row.name: row.is_empty for row in bridge.segment_table(shown, find_empty=True)} == {
        "a": False, "b": False, "c": False, "nothing": True,
    }  # fmt: skip
    for name in ("a", "b", "c"):
        assert np.array_equal(segment_points(shown, name), segment_points(crossing, name))
    simple = read_labels(task.cases[0].labels).array
    value = {label.name: min(label.values) for label in task.labels.foreground}
    assert np.array_equal(simple, value["a"] * first + value["c"] * third)


def test_a_slip_of_the_brush_does_not_turn_a_task_into_regions(build, tmp_path):
    geometry = Geometry((6, 20, 20))
    first, second = np.zeros((2, *geometry.shape), bool)
    first[:, :10], second[:, 10:] = True, True
    second[0, 9, 0] = True
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation({"a": first, "b": second}, geometry.ijk_to_ras)

    task = create_task_from_nodes(tmp_path, "Slip", ["CT"], [(volume, segmentation)])

    assert not task.labels.has_regions
    assert np.array_equal(read_labels(task.cases[0].labels).array, np.where(second, 2, 1))
    assert load_origin(task.folder).cases[0].fixes == (
        "a and b overlap in 1 voxels, of which the later label was kept.",
    )


def test_label_values_are_the_same_in_every_case_whatever_the_order_of_segments(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry) | {"vessel": None}
    volumes = [build.volume(image_of(geometry), geometry.ijk_to_ras, f"Patient {n}") for n in range(3)]
    orders = [("organ", "vessel", "tumor"), ("tumor", "organ"), ("TUMOR ", "Organ", "vessel")]
    by_name = {name: masks[name.strip().lower()] for order in orders for name in order}
    pairs = [
        (volume, build.segmentation({name: by_name[name] for name in order}, geometry.ijk_to_ras))
        for volume, order in zip(volumes, orders, strict=True)
    ]

    task = create_task_from_nodes(tmp_path, "Orders", ["CT"], pairs)

    assert task.labels.to_dataset_json()["labels"] == {"background": 0, "organ": 1, "vessel": 2, "tumor": 3}
    assert [case.id for case in task.cases] == ["Patient_0", "Patient_1", "Patient_2"]
    for case in task.cases:
        assert np.array_equal(read_labels(case.labels).array, masks["organ"] * 1 + masks["tumor"] * 3)


def test_only_the_chosen_segments_count_and_an_ignore_segment_becomes_the_ignore_label(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry)
    unknown = np.zeros(geometry.shape, bool)
    unknown[0] = True
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(masks | {"Ignore": unknown, "scratch": ~unknown}, geometry.ijk_to_ras)

    task = create_task_from_nodes(
        tmp_path, "Chosen", ["CT"], [(volume, segmentation)], segments=["tumor", "ignore", "organ"]
    )

    assert task.labels.to_dataset_json() == {"labels": {"background": 0, "tumor": 1, "organ": 2, "ignore": 3}}
    expected = np.where(unknown, 3, masks["tumor"] + 2 * masks["organ"])
    assert np.array_equal(read_labels(task.cases[0].labels).array, expected)
    with pytest.raises(TaskError, match="No segment is named kidney; the segments are organ, tumor, scratch, ignore"):
        create_task_from_nodes(tmp_path, "Kidney", ["CT"], [(volume, segmentation)], segments=["kidney"])


def test_a_case_is_added_to_a_task_by_name_or_terminology(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry)
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    task = create_task_from_nodes(tmp_path, "Grows", ["CT"], [(volume, build.segmentation(masks, geometry.ijk_to_ras))])
    renamed = build.segmentation({"organ": masks["organ"], "Lesion": masks["tumor"]}, geometry.ijk_to_ras)
    renamed.GetSegmentation().GetSegment("id2").SetTerminology(TERMINOLOGY["tumor"])
    strange = build.segmentation({"organ": masks["organ"], "bone": masks["tumor"]}, geometry.ijk_to_ras)
    overlapping = build.segmentation({"organ": masks["organ"], "tumor": masks["organ"]}, geometry.ijk_to_ras)

    task = add_case(task, volume, renamed)

    assert [case.id for case in task.cases] == ["CT", "CT-2"]
    fixes = ("The segment Lesion was taken for tumor because of its terminology.",)
    assert load_origin(task.folder).cases[1].fixes == fixes
    assert task.declared_training_cases == 2
    assert np.array_equal(read_labels(task.cases[1].labels).array, as_label_map(masks))
    with pytest.raises(TaskError, match="no label for the segments bone; its labels are organ, tumor"):
        add_case(task, volume, strange)
    with pytest.raises(TaskError, match="organ and tumor overlap in .* know no such overlap"):
        add_case(task, volume, overlapping)
    with pytest.raises(TaskError, match="has a case CT-2 already"):
        add_case(task, volume, renamed, case_id="CT-2")
    with pytest.raises(TaskError, match="has 2 channels, but the task has 1"):
        add_case(task, [volume, volume], renamed)
    assert load_task(task.folder).cases == task.cases, "what was refused left no files"
    for _ in range(2):
        task = add_case(task, volume, strange, case_id="CT-2", replace_case=True, others="skip")
    assert np.array_equal(read_labels(task.case("CT-2").labels).array, masks["organ"])
    kept = {name: read_labels(task.folder / "labels_replaced" / f"{name}.nii.gz").array for name in ("CT-2", "CT-2-2")}
    assert np.array_equal(kept["CT-2"], as_label_map(masks))
    assert np.array_equal(kept["CT-2-2"], masks["organ"])
    assert [case.id for case in load_origin(task.folder).cases] == ["CT", "CT-2"]


def test_a_new_task_takes_segments_by_their_names_whatever_their_terminology_says(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry)
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    both = build.segmentation({"mass left": masks["organ"], "mass right": masks["tumor"]}, geometry.ijk_to_ras)
    right = build.segmentation({"mass right": masks["tumor"]}, geometry.ijk_to_ras)
    for segment_id, node in (("id1", both), ("id2", both), ("id1", right)):
        node.GetSegmentation().GetSegment(segment_id).SetTerminology(TERMINOLOGY["tumor"])

    task = create_task_from_nodes(tmp_path, "Left", "CT", [(volume, both), (volume, right)], segments="mass left")

    assert [label.name for label in task.labels.foreground] == ["mass left"]
    assert not read_labels(task.cases[1].labels).array.any()


def test_a_case_replaces_one_whose_name_differs_only_in_capitals(build, tmp_path):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry)
    volume, small = (build.volume(image_of(geometry), geometry.ijk_to_ras, name) for name in ("CT", "ct"))
    segmentation = build.segmentation(masks, geometry.ijk_to_ras)
    task = create_task_from_nodes(tmp_path, "Twins", "CT", [(volume, segmentation), (small, segmentation)])

    with pytest.raises(TaskError, match="has a case CT already"):
        add_case(task, volume, segmentation, case_id="ct")
    replaced = add_case(task, volume, segmentation, case_id="ct", replace_case=True)
    grown = add_case(replaced, small, segmentation)

    assert [case.id for case in replaced.cases] == ["CT", "ct-2"]
    assert sorted(case.id for case in grown.cases) == ["CT", "ct-2", "ct-3"]


WRONG_NODES = {
    "swapped": (
        lambda v, s: [(s, v)],
        "Expected a volume, found the segmentation Drawn; are volume and segmentation the",
    ),
    "two volumes": (
        lambda v, s: [(v, v)],
        "Expected a segmentation, found the volume CT; are volume and segmentation the",
    ),
    "a bare pair": (lambda v, s: (v, s), r"Expected pairs .* found the volume CT; .* \[\(volume, segmentation\)\]"),
    "names": (lambda v, s: [("CT", "Drawn")], "Expected a volume, found 'CT'; give the node"),
    "a text": (lambda v, s: "CT", "Expected pairs of a volume and its segmentation, found 'CT'"),
    "no segmentation": (lambda v, s: [(v, None)], "Expected a segmentation, found nothing"),
    "no volume": (lambda v, s: [((), s)], "Expected a volume, or one for every channel, found none"),
    "three of them": (lambda v, s: [(v, v, s)], "Expected pairs of a volume and its segmentation"),
}


@pytest.mark.parametrize("kind", WRONG_NODES)
def test_nodes_of_the_wrong_kind_are_refused_with_a_sentence(build, tmp_path, kind):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras, "Drawn")
    given, sentence = WRONG_NODES[kind]

    with pytest.raises(ImageError, match=sentence):
        create_task_from_nodes(tmp_path, "One", "CT", given(volume, segmentation))


def test_a_case_is_added_to_an_opened_task_with_nodes_of_the_right_kind(scene, build, tmp_path):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras, "Drawn")
    task = create_task_from_nodes(tmp_path, "One", "CT", [(volume, segmentation)])

    with pytest.raises(TaskError, match="Expected an opened task, found 'Dataset501_One'"):
        add_case("Dataset501_One", volume, segmentation)
    with pytest.raises(ImageError, match="Expected a segmentation, found nothing"):
        add_case(task, volume, None)
    with pytest.raises(ImageError, match="Expected a volume, found the segmentation Drawn"):
        add_case(task, segmentation, volume)
    labels = Prediction(np.zeros(geometry.shape, np.uint8), geometry, LABELS)
    with pytest.raises(ImageError, match="Expected a segmentation, found the volume CT"):
        bridge.show_prediction(labels, volume, volume)
    with pytest.raises(ImageError, match="The volume Hollow holds no voxels"):
        bridge.show_prediction(labels, scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Hollow"))


def test_nodes_that_have_left_the_scene_are_not_read_without_their_transforms(scene, build, tmp_path):
    geometry = Geometry((6, 10, 10))
    over = build.linear(turn(30))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras, transform=over)
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras, transform=over)

    scene.Clear(0)

    with pytest.raises(ImageError, match="Expected the volume CT in the scene, but it has left it"):
        written(tmp_path, volume, segmentation)
    assert not list(tmp_path.rglob("*One*"))


@pytest.mark.parametrize("setting", ["overlap", "irregular"])
def test_a_way_that_is_not_known_is_refused_before_anything_is_read(build, tmp_path, setting):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras)

    with pytest.raises(SettingsError, match=f"{setting} should be one of .*refuse.* found 'foo'"):
        written(tmp_path, volume, segmentation, **{setting: "foo"})


@pytest.mark.parametrize("setting", ["others", "irregular"])
def test_a_case_is_not_added_in_a_way_that_is_not_known(build, tmp_path, setting):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras)
    task = create_task_from_nodes(tmp_path, "One", "CT", [(volume, segmentation)])

    with pytest.raises(SettingsError, match=f"{setting} should be one of .*refuse.* found 'foo'"):
        add_case(task, volume, segmentation, **{setting: "foo"})


def test_two_segments_of_one_name_and_empty_nodes_are_refused_by_name(scene, build, tmp_path):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    twice = build.segmentation({"organ": None, "Organ": None}, geometry.ijk_to_ras, "Twice")
    with pytest.raises(TaskError, match="Two segments of Twice are named Organ"):
        written(tmp_path, volume, twice)
    once = build.segmentation({"organ": None}, geometry.ijk_to_ras)
    with pytest.raises(TaskError, match="at least one segment"):
        written(tmp_path, volume, build.segmentation({}, geometry.ijk_to_ras))
    hollow = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Hollow")
    with pytest.raises(ImageError, match="The volume Hollow holds no voxels"):
        written(tmp_path, hollow, once)
    with pytest.raises(TaskError, match="Volumes are written as"):
        written(tmp_path, volume, once, file_ending=".png")
    assert not list(tmp_path.rglob("*One*"))


def test_a_segment_beside_the_volume_is_told(build, tmp_path, caplog):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation({"organ": np.ones((3, 3, 3))}, turn(0, (400.0, 0, 0)))

    labels = read_labels(written(tmp_path, volume, segmentation).labels)

    assert "The segment organ lies outside CT." in caplog.text
    assert not labels.array.any()


def test_a_label_map_of_decimal_numbers_serves_when_they_are_whole(build, tmp_path, any_geometry):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    label_map = build.label_map(np.zeros(any_geometry.shape), any_geometry.ijk_to_ras, "Case-label")
    values = 2.0 * two_boxes(any_geometry)["organ"]
    label_map.GetImageData().GetPointData().SetScalars(vtk_array(values))

    case = written(tmp_path, volume, label_map)

    assert np.array_equal(read_labels(case.labels).array, values > 0)


@pytest.mark.parametrize(("value", "found"), [(-1, "-1 to 0"), (0.5, "0 to 0.5"), (70000, "0 to 70000")])
def test_a_label_map_with_values_that_no_label_has_is_refused(build, tmp_path, any_geometry, value, found):
    volume = build.volume(image_of(any_geometry), any_geometry.ijk_to_ras)
    label_map = build.label_map(np.zeros(any_geometry.shape), any_geometry.ijk_to_ras, "Case-label")
    values = np.zeros(any_geometry.shape, type(value))
    values[0, 0, 0] = value
    label_map.GetImageData().GetPointData().SetScalars(vtk_array(values))

    with pytest.raises(
        ImageError, match=f"label map Case-label should be whole numbers from 0 to 65535, found {found};"
    ):
        written(tmp_path, volume, label_map)


def test_a_label_map_volume_serves_as_a_segmentation(scene, build, tmp_path):
    geometry = Geometry((6, 10, 10), (2.0, 1.0, 1.0))
    masks, transform = two_boxes(geometry), build.linear(turn(20))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras, "Case1", transform=transform)
    label_map = build.label_map(3 * masks["organ"] + 7 * masks["tumor"], geometry.ijk_to_ras, "Case1-label", transform)
    build.color_table(label_map, {3: ("organ", (10, 20, 30)), 7: ("tumor", (200, 100, 0))})

    pairs = find_pairs(scene)
    task = create_task_from_nodes(tmp_path, "Map", ["CT"], pairs)

    assert [(p.volumes, p.segmentation, p.found_by) for p in pairs] == [((volume,), label_map, "name")]
    assert [(x.name, x.color) for x in task.labels.foreground] == [("organ", (10, 20, 30)), ("tumor", (200, 100, 0))]
    assert np.array_equal(read_labels(task.cases[0].labels).array, as_label_map(masks))


def test_a_table_of_segments_is_made_without_looking_at_their_voxels(build, monkeypatch):
    geometry = Geometry((6, 10, 10))
    segmentation = build.segmentation(two_boxes(geometry) | {"nothing": None}, geometry.ijk_to_ras)
    assert [row.is_empty for row in bridge.segment_table(segmentation, find_empty=True)] == [False, False, True]

    monkeypatch.setattr(bridge.numpy_support, "vtk_to_numpy", _no_voxels)

    assert [row.name for row in bridge.segment_table(segmentation)] == ["organ", "tumor", "nothing"]
    assert {row.is_empty for row in bridge.segment_table(segmentation)} == {None}


def _no_voxels(*_unused):
    raise AssertionError("The voxels were looked at.")


def test_the_labels_of_a_label_map_are_looked_for_again_only_when_it_has_changed(scene, build, monkeypatch):
    geometry = Geometry((6, 10, 10))
    masks = two_boxes(geometry)
    label_map = build.label_map(3 * masks["organ"] + 7 * masks["tumor"], geometry.ijk_to_ras, "Case1-label")
    scalars = label_map.GetImageData().GetPointData().GetScalars()

    first = bridge.segment_table(label_map)
    with monkeypatch.context() as patch:
        patch.setattr(bridge.numpy_support, "vtk_to_numpy", _no_voxels)
        build.color_table(label_map, {3: ("organ", (10, 20, 30)), 7: ("tumor", (200, 100, 0))})
        named = bridge.segment_table(label_map)
    bridge.numpy_support.vtk_to_numpy(scalars)[-1] = 9
    scalars.Modified()
    painted = bridge.segment_table(label_map)
    label_map.SetAndObserveImageData(build.label_map(masks["organ"], np.eye(4), "Other").GetImageData())

    assert [row.value for row in first] == [row.value for row in named] == [3, 7]
    assert [row.name for row in named] == ["organ", "tumor"]
    assert [row.value for row in painted] == [3, 7, 9]
    assert [row.value for row in bridge.segment_table(label_map)] == [1]


@pytest.mark.parametrize("kind", ["label map", "segmentation"])
def test_finding_what_occurs_takes_no_memory_of_the_size_of_the_image(build, kind):
    geometry = Geometry((64, 128, 128))
    masks = two_boxes(geometry)
    made = {"label map": lambda: build.label_map(as_label_map(masks), np.eye(4), "Case1-label"),
            "segmentation": lambda: build.segmentation(masks, np.eye(4))}[kind]()  # fmt: skip

    tracemalloc.start()
    rows = bridge.segment_table(made, find_empty=True)
    _now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [row.is_empty for row in rows] == [False, False]
    assert most < np.prod(geometry.shape) / 4


def test_pairs_are_found_by_reference_volume_then_by_name_and_predictions_are_left_out(scene, build):
    geometry = Geometry((4, 5, 6))
    array, matrix, mask = image_of(geometry), geometry.ijk_to_ras, {"organ": np.ones((2, 2, 2))}
    drawn = build.volume(array, matrix, "Anna")
    named = build.volume(array, matrix, "Berta_0000")
    build.volume(array, matrix, "Clara"), build.volume(array, matrix, "Clara")
    first = build.segmentation(mask, matrix, "Whatever", volume=drawn)
    second = build.segmentation(mask, matrix, "Berta segmentation")
    build.segmentation(mask, matrix, "Clara-seg")
    hidden = build.segmentation(mask, matrix, "Hidden", volume=drawn)
    hidden.SetHideFromEditors(True)
    mapped = build.volume(array, matrix, "Dora")
    label_map = build.label_map(np.ones(geometry.shape), matrix, "Dora-label")
    prediction = Prediction(np.ones(geometry.shape, np.uint8), geometry, LABELS)
    predicted = [bridge.show_prediction(prediction, volume) for volume in (named, mapped)]

    pairs, all_pairs = find_pairs(scene), find_pairs(scene, predictions=True)

    assert [(p.volumes, p.segmentation, p.found_by) for p in pairs] == [
        ((drawn,), first, "reference"),
        ((named,), second, "name"),
        ((mapped,), label_map, "name"),
    ]
    assert [pair for pair in all_pairs if not pair.is_prediction] == list(pairs)
    assert [pair.segmentation for pair in all_pairs if pair.is_prediction] == predicted


def test_pairs_are_found_without_comparing_every_segmentation_with_every_volume(logics):
    def scene_with(n_pairs: int):
        made = slicer.vtkMRMLScene()
        for n in range(n_pairs):
            made.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"Case{n}")
            made.AddNewNodeByClass("vtkMRMLSegmentationNode", f"Case{n} segmentation")
            made.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", f"Case{n}-label")
        return partial(find_pairs, made)

    assert len(scene_with(3)()) == 3
    assert growth(scene_with, 50) < 2.6


def test_slicer_reads_the_labels_of_a_task_as_a_colour_table(scene, build, tmp_path):
    geometry = Geometry((6, 10, 10))
    volume = build.volume(image_of(geometry), geometry.ijk_to_ras)
    segmentation = build.segmentation(two_boxes(geometry) | {"vena cava, upper": None}, geometry.ijk_to_ras)
    task = create_task_from_nodes(tmp_path, "Table", ["CT"], [(volume, segmentation)])

    storage, table = slicer.vtkMRMLColorTableStorageNode(), slicer.vtkMRMLColorTableNode()
    scene.AddNode(storage), scene.AddNode(table)
    storage.SetFileName(str(task.folder / "labels.csv"))
    assert storage.ReadData(table)

    rgba = [0.0] * 4
    for value, row in enumerate(bridge.segment_table(segmentation), 1):
        assert table.GetColorName(value) == row.name
        table.GetColor(value, rgba)
        assert [round(255 * part) for part in rgba] == [*row.color, 255]
        expected = row.terminology if value < 3 else TISSUE
        assert table.GetTerminologyAsString(value).split("~")[:7] == expected.split("~")
    with (task.folder / "labels.csv").open(newline="") as file:
        assert [(row["LabelValue"], row["Name"]) for row in csv.DictReader(file)] == [
            ("1", "organ"),
            ("2", "tumor"),
            ("3", "vena cava, upper"),
        ]


def test_the_origin_of_every_case_and_what_was_done_to_it_is_kept(build, tmp_path, caplog):
    geometry = Geometry((6, 10, 10))
    other = Geometry((12, 10, 10), (0.5, 1.0, 1.0))
    first = build.volume(image_of(geometry), geometry.ijk_to_ras, "T1")
    second = build.volume(image_of(other), other.ijk_to_ras, "T2")
    segmentation = build.segmentation(two_boxes(geometry), geometry.ijk_to_ras, "Mine")
    steps = []

    with caplog.at_level(logging.WARNING):
        task = create_task_from_nodes(
            tmp_path, "Kept", ["T1", "T2"], [([first, second], segmentation)],
            progress=lambda done, total, what: steps.append((done, total)),
        )  # fmt: skip

    origin = load_origin(task.folder).cases[0]
    assert (origin.images, origin.labels) == (("T1", "T2"), "Mine")
    assert origin.fixes == ("T2 was resampled onto the grid of T1.",)
    assert steps == [(0, 1), (1, 1)]
    with pytest.raises(TaskError, match="Dataset501_Kept exists"):
        create_task_from_nodes(tmp_path, "Kept", ["T1", "T2"], [([first, second], segmentation)])
    with pytest.raises(TaskError, match="T1 has 2 channels, but the task has 1"):
        create_task_from_nodes(tmp_path, "Fewer", ["T1"], [([first, second], segmentation)])


def boxes_on(build) -> tuple:
    """A volume and a prediction on it."""
    grid = Geometry((6, 10, 12))
    labels = as_label_map(two_boxes(grid)).astype(np.uint8)
    return build.volume(image_of(grid), grid.ijk_to_ras), Prediction(labels, grid, LABELS)


def test_a_prediction_is_seen_in_a_segmentation_that_was_never_shown(scene, build):
    volume, prediction = boxes_on(build)
    given = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")

    bridge.show_prediction(prediction, volume, given)

    assert given.GetDisplayNode().GetVisibility()


@pytest.mark.parametrize("listed", [("volume", "segmentation"), ("volume",), ("segmentation",)])
def test_a_prediction_is_put_into_the_study_of_its_volume_where_both_are_in_the_hierarchy(scene, build, listed):
    volume, prediction = boxes_on(build)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    top = hierarchy.GetSceneItemID()
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(top, "patient"), "study")
    if "volume" in listed:
        hierarchy.CreateItem(study, volume)

    def list_segmentation(*_unused):
        """As Slicer's plug-in does for a node that comes."""
        for node in all_nodes(scene):
            if node.IsA("vtkMRMLSegmentationNode") and not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(top, node)

    if "segmentation" in listed:
        scene.AddObserver(scene.NodeAddedEvent, list_segmentation)
    item = hierarchy.GetItemByDataNode(bridge.show_prediction(prediction, volume))

    expected = {2: study, 1: top if "segmentation" in listed else 0}[len(listed)]
    assert (hierarchy.GetItemParent(item) if item else 0) == expected


def test_predictions_that_are_forgotten_are_undone_no_more(scene, build):
    volume, prediction = boxes_on(build)
    node = bridge.show_prediction(prediction, volume)

    bridge.forget_predictions(scene)

    assert bridge.last_prediction(node) is None
    assert not bridge.undo_prediction(node)
    assert node.GetSegmentation().GetNumberOfSegments() == 2

"""The bridge to 3D Slicer's scene: volume and segmentation nodes become cases, predictions become segments.

The only file of the library that imports slicer and vtk, and therefore longer than the others. Nodes given as input are
read, never changed; no node is added to the scene but the segmentation that shows a prediction. Files hold world
coordinates: the transforms that a node is under are applied to its grid. A label map volume serves wherever a
segmentation does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from .case_files import CaseArrays
from .cases import CaseOrigin
from .errors import ImageError, require_choice
from .geometry import Geometry
from .grids.regular import Voxels, labels_on_voxels, onto_first_grid
from .labels import LARGEST_VALUE, Label, LabelSet
from .nodes import require_in_scene, require_segmentation, require_segments, volumes_of
from .prediction import Prediction
from .segments.looks import SegmentLook, looks_in
from .segments.names import SegmentRow, labels_from_rows, match_segments, renamed
from .segments.overlaps import Layer, combined, layers_of

BINARY, FRACTIONAL, SURFACE = "Binary labelmap", "Fractional labelmap", "Closed surface"
PREDICTION_ATTRIBUTE = "NNSegment.Prediction"
"""Marks segmentations that show a prediction, so that they are not taken for training labels."""
IRREGULAR, OTHERS = ("resample", "refuse"), ("refuse", "skip")
"""What may be done to volumes without a regular grid, and to segments that are no label."""
_log = logging.getLogger(__name__)
_label_values: dict[str, tuple[int, tuple[int, ...]]] = {}
"""Address of a label map's image → when it was changed last, and the values that occur in it."""


@dataclass(frozen=True, eq=False)
class _Step:
    """What one prediction did to a segmentation."""

    looks: dict[str, SegmentLook]
    """Id of each segment of the prediction → how it looked then."""
    replaced: tuple[tuple[str, slicer.vtkSegment], ...]
    """(id, copy) of the segments that were in their places."""


_steps: dict[str, tuple[slicer.vtkSegmentation, list[_Step], int]] = {}
"""Id of a segmentation node → its segmentation, the predictions shown in it, and the observer of the node's removal.

The segments are copies of whole label maps: an entry leaves with its node.
"""


def read_case(
    case_id: str,
    volume_nodes,
    segmentation_node=None,
    labels: LabelSet | None = None,
    *,
    irregular: str = "resample",
    others: str = "refuse",
    by_terminology: bool = True,
) -> CaseArrays:
    """Volumes and segments of one case as arrays on the grid of the first volume.

    `irregular`, `others` and `by_terminology` are those of `create_task_from_nodes`, `add_case` and `match_segments`.
    Raises ImageError, TaskError, SettingsError.
    """
    require_choice("irregular", irregular, IRREGULAR)
    require_choice("others", others, OTHERS)
    volumes = _readable(volume_nodes, segmentation_node)
    found = [_read_volume(volume, irregular) for volume in volumes]
    names = [volume.GetName() for volume in volumes]
    channels, grid, notes = onto_first_grid(names, [voxels for voxels, _ in found], irregular)
    notes = tuple(note for _, own in found for note in own) + notes
    segments = None
    if segmentation_node is not None:
        rows, owner = segment_table(segmentation_node, find_empty=True), segmentation_node.GetName()
        known = labels or labels_from_rows([rows], owners=[owner])
        chosen = match_segments(rows, known, others, by_terminology, owner)
        segments = combined(grid.shape, _layers(segmentation_node, volumes[0], grid, chosen))
        lost = [chosen[row.id] for row in rows if row.id in chosen and not row.is_empty]
        notes += renamed(rows, chosen)
        notes += tuple(f"The segment {name} lies outside {names[0]}." for name in lost if not segments.has(name))
    for note in notes:
        _log.warning("%s: %s", case_id, note)
    sources = tuple(_source(volume) for volume in volumes)
    origin = CaseOrigin(case_id, sources, _source(segmentation_node) if segmentation_node else "", notes)
    return CaseArrays(channels, grid, segments, origin)


def segment_table(segmentation_node, *, find_empty: bool = False) -> tuple[SegmentRow, ...]:
    """The segments of a segmentation, or the labels that occur in a label map volume, in their order.

    The voxels of a segmentation are looked at with `find_empty` only: what shows a table again and again does without.
    """
    if segmentation_node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _label_rows(segmentation_node)
    segmentation = segmentation_node.GetSegmentation()
    filled = _filled_segments(segmentation) if find_empty else None
    return tuple(_segment_row(i, segmentation.GetSegment(i), filled) for i in segmentation.GetSegmentIDs())


def show_prediction(
    prediction: Prediction, volume_node, segmentation_node=None, *, name: str = "", show_3d: bool = False
):
    """The predicted labels as segments over the volume; returns the segmentation node.

    A new node is made unless one is given, whose segments of the same names are replaced and others kept; those that
    were replaced come back with `undo_prediction`. Every label becomes a segment with the name, colour and terminology of
    training, empty ones too. Raises ImageError when the prediction does not lie on the volume, and what
    `require_exact` raises for the given node.
    """
    volumes_of(volume_node)
    shape = tuple(reversed(_voxels(volume_node).GetDimensions()))
    candidates = [_world_matrix(volume_node), _local_matrix(volume_node)]
    labels = labels_on_voxels(prediction, candidates, shape, volume_node.GetName())
    if segmentation_node is not None:
        require_exact(segmentation_node)
    node = segmentation_node or _new_segmentation(volume_node, name or f"{volume_node.GetName()} prediction")
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()  # without it nothing is seen
    matrix = _matrix_in(node, volume_node)
    segmentation, groups = node.GetSegmentation(), layers_of(prediction.label_set)
    with_surface = show_3d or segmentation.ContainsRepresentation(SURFACE)
    modified = node.StartModify()
    replaced = _taken_out(segmentation, {label.name for group in groups for label in group})
    ids = [segment_id for group in groups for segment_id in _put_segments(segmentation, group, labels, matrix)]
    if with_surface:
        node.CreateClosedSurfaceRepresentation()
    node.EndModify(modified)
    _remember(node, _Step(_looks(segmentation, ids), replaced))
    return node


def require_exact(segmentation_node) -> None:
    """Raises ImageError when voxels cannot stay as they are in a segmentation; one without segments takes any."""
    require_segmentation(segmentation_node)
    segmentation, name = segmentation_node.GetSegmentation(), segmentation_node.GetName()
    if not segmentation.GetNumberOfSegments():
        return
    if not _is_linear(segmentation_node):
        raise ImageError(
            f"The segmentation {name} is under a non-linear transform, where voxels cannot stay as they are; show the "
            "prediction in a new segmentation."
        )
    if segmentation.GetSourceRepresentationName() != BINARY:
        raise ImageError(
            f"The segmentation {name} keeps its segments as {segmentation.GetSourceRepresentationName()}, where voxels "
            f"cannot stay as they are; show the prediction in a new segmentation, or make {BINARY} the source "
            "representation in the module Segmentations."
        )


def undo_prediction(segmentation_node) -> bool:
    """Take the segments of the last prediction shown in this node away and bring back those that they replaced.

    All other segments keep what was done to them since. False when no prediction is left to take away.
    """
    steps = _steps_of(segmentation_node)
    if not steps:
        return False
    step, segmentation = steps.pop(), segmentation_node.GetSegmentation()
    with_surface, ids = segmentation.ContainsRepresentation(SURFACE), list(segmentation.GetSegmentIDs())
    modified = segmentation_node.StartModify()
    _empty_segments(segmentation, step.looks)
    for segment_id in step.looks:
        segmentation.RemoveSegment(segment_id)
    _put_back(segmentation, step.replaced, ids)
    if with_surface:
        segmentation_node.CreateClosedSurfaceRepresentation()
    segmentation_node.EndModify(modified)
    return True


def last_prediction(segmentation_node) -> object | None:
    """What stands for the last prediction shown in this node, to be given to `predictions_since`; None without one."""
    steps = _steps_of(segmentation_node)
    return steps[-1] if steps else None


def predictions_since(segmentation_node, prediction: object) -> int | None:
    """How many others were shown in this node since that one; None where that one is there no longer.

    Those that the Segment Editor's undo has taken back are forgotten.
    """
    steps = _steps_of(segmentation_node) or []
    if prediction not in steps:
        return None
    while steps[-1] is not prediction and _is_taken_back(segmentation_node.GetSegmentation(), steps[-1]):
        steps.pop()
    return len(steps) - 1 - steps.index(prediction)


def changed_since_prediction(segmentation_node) -> tuple[tuple[str, SegmentLook], ...]:
    """The segments of the last prediction shown in this node whose voxels were changed by hand since.

    Each with its name and how it looks now.
    """
    steps, segmentation = _steps_of(segmentation_node), segmentation_node.GetSegmentation()
    if not steps:
        return ()
    before = steps[-1].looks
    now = _looks(segmentation, before)
    return tuple((segmentation.GetSegment(i).GetName(), now[i]) for i in now if not now[i].is_same(before[i]))


def put_beside(node, volume_node) -> None:
    """Move a node in the subject hierarchy to where the volume is that it was made for, such as a patient's study.

    Nothing happens where there is no hierarchy, or one of the two is not in it.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    if hierarchy is None:
        return
    item, beside = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volume_node)
    if item and beside:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


def forget_predictions(scene) -> None:
    """Let go of the scene and of what predictions in it have replaced, which cannot be undone any more."""
    for node in filter(None, map(scene.GetNodeByID, tuple(_steps))):
        _forget_steps(scene, "", node)


# Reading nodes ------------------------------------------------------------------------------------------------------


def _readable(volume_nodes, segmentation_node) -> tuple:
    """The volumes, once it is sure that they and the segmentation are such nodes and are in the scene."""
    volumes = volumes_of(volume_nodes)
    nodes = volumes if segmentation_node is None else (*volumes, segmentation_node)
    if segmentation_node is not None:
        require_segments(segmentation_node)
    for node in nodes:
        require_in_scene(node)
    return volumes


def _voxels(volume_node):
    """The image of a volume; raises ImageError when it has none."""
    image = volume_node.GetImageData()
    if image is None or not image.GetNumberOfPoints():
        raise ImageError(f"The volume {volume_node.GetName()} holds no voxels; load it, or choose another.")
    return image


def _read_volume(node, irregular: str) -> tuple[Voxels, tuple[str, ...]]:
    """The voxels of a volume in the world, and sentences about what that took."""
    image = _voxels(node)
    parent = node.GetParentTransformNode()
    if parent is None or parent.IsTransformToWorldLinear():
        return Voxels(_array(image), _world_matrix(node)), ()
    if irregular == "refuse":
        raise ImageError(f"The volume {node.GetName()} is under a non-linear transform; harden the transform first.")
    hardened = slicer.vtkMRMLScalarVolumeNode()
    hardened.SetAndObserveImageData(image)
    hardened.CopyOrientation(node)
    hardened.ApplyTransform(_to_world(parent))
    note = f"{node.GetName()} is under a non-linear transform and was resampled through it onto its own grid."
    return Voxels(_array(hardened.GetImageData()), _local_matrix(hardened)), (note,)


def _layers(node, volume_node, grid: Geometry, names: dict[str, str]) -> Iterator[Layer]:
    """The segments that are labels (id → name), each group of non-overlapping ones as an array on the grid."""
    reference, transform = _reference(node, volume_node, grid)
    for image, values, threshold in _images(node, reference, transform):
        wanted = tuple((value, names[segment_id]) for value, segment_id in values if segment_id in names)
        if wanted and image.GetNumberOfPoints():
            array = _on_reference(image, reference, transform, threshold is not None)
            yield Layer(array if threshold is None else (array > threshold).astype(np.uint8), wanted)


def _images(node, reference, transform) -> Iterator[tuple]:
    """(oriented image, (value, segment id) of the segments in it, threshold or None) for each layer of a node."""
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        values = [(row.value, row.id) for row in segment_table(node)]
        yield _oriented(_label_voxels(node), _local_matrix(node)), values, None
        return
    segmentation = _voxel_segmentation(node, reference, transform)
    if segmentation.GetSourceRepresentationName() == FRACTIONAL:
        for segment_id in segmentation.GetSegmentIDs():
            image = segmentation.GetSegment(segment_id).GetRepresentation(FRACTIONAL)
            yield image, [(1, segment_id)], _fractional_threshold(image)
        return
    for layer in range(segmentation.GetNumberOfLayers(BINARY)):
        ids = segmentation.GetSegmentIDsForLayer(layer, BINARY)
        values = [(segmentation.GetSegment(segment_id).GetLabelValue(), segment_id) for segment_id in ids]
        yield segmentation.GetLayerDataObject(layer, BINARY), values, None


def _voxel_segmentation(node, reference, transform):
    """The segmentation where its source is voxels; a converted copy where it is surfaces or contours."""
    segmentation = node.GetSegmentation()
    if segmentation.GetSourceRepresentationName() in (BINARY, FRACTIONAL):
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    copy.RemoveRepresentation(BINARY)  # it may have been made on a coarser grid
    copy.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(_lattice(reference, transform), reference.GetExtent()),
    )
    if segmentation.GetNumberOfSegments() and not copy.CreateRepresentation(BINARY, True):
        source = segmentation.GetSourceRepresentationName()
        raise ImageError(f"{node.GetName()} ({source}) cannot be turned into voxels; convert it in Slicer first.")
    return copy


def _lattice(reference, transform):
    """The grid of the reference image seen from inside the segmentation, whose `transform` leads to the reference."""
    matrix = vtk.vtkMatrix4x4()
    reference.GetImageToWorldMatrix(matrix)
    inner = vtk.vtkTransform()
    if transform is not None and slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(transform, inner):
        vtk.vtkMatrix4x4.Multiply4x4(inner.GetLinearInverse().GetMatrix(), matrix, matrix)
    return matrix


def _reference(node, volume_node, grid: Geometry):
    """The grid as an image, and the transform from the segmentation to it (None when there is none).

    Under one transform with the volume, the segmentation is read without it: as exactly as Slicer does.
    """
    is_own = _is_linear(volume_node) and np.allclose(grid.ijk_to_ras, _world_matrix(volume_node))
    if is_own and node.GetTransformNodeID() == volume_node.GetTransformNodeID():
        return _oriented(np.zeros(grid.shape, np.uint8), _local_matrix(volume_node)), None
    parent = node.GetParentTransformNode()
    return _oriented(np.zeros(grid.shape, np.uint8), grid.ijk_to_ras), None if parent is None else _to_world(parent)


def _on_reference(image, reference, transform, linear: bool) -> np.ndarray:
    """A layer (Z, Y, X) on the reference grid, nearest value or linear; 0 (or the image's lowest value) outside."""
    out, outside = slicer.vtkOrientedImageData(), image.GetScalarRange()[0] if linear else 0
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, reference, out, linear, False, transform, outside):
        raise ImageError("A segment cannot be brought onto the grid of the volume; check the transforms it is under.")
    return _array(out)[0]


def _fractional_threshold(image) -> float:
    """The value above which a voxel of a fractional segment counts as inside."""
    data = image.GetFieldData()
    given, span = data.GetAbstractArray("ThresholdValue"), data.GetAbstractArray("ScalarRange")
    if given:
        return given.GetVariantValue(0).ToDouble()
    ends = [span.GetVariantValue(n).ToDouble() for n in (0, 1)] if span else image.GetScalarRange()
    return sum(ends) / 2


# Segments in nodes --------------------------------------------------------------------------------------------------


def _segment_row(segment_id: str, segment, filled: set[str] | None) -> SegmentRow:
    is_empty = None if filled is None else segment_id not in filled
    color = tuple(round(255 * part) for part in segment.GetColor())
    return SegmentRow(segment_id, segment.GetName(), color, segment.GetTerminology() or "", is_empty)


def _filled_segments(segmentation) -> set[str]:
    """Ids of the segments that have voxels, or a surface where there are no voxels."""
    if segmentation.GetSourceRepresentationName() != BINARY:
        name = segmentation.GetSourceRepresentationName()
        parts = {i: segmentation.GetSegment(i).GetRepresentation(name) for i in segmentation.GetSegmentIDs()}
        return {segment_id for segment_id, part in parts.items() if part is not None and part.GetNumberOfPoints()}
    filled = set()
    for layer in range(segmentation.GetNumberOfLayers(BINARY)):
        image = segmentation.GetLayerDataObject(layer, BINARY)
        present = _values_in(_array(image)[0]) if image is not None and image.GetNumberOfPoints() else ()
        ids = segmentation.GetSegmentIDsForLayer(layer, BINARY)
        filled |= {i for i in ids if segmentation.GetSegment(i).GetLabelValue() in present}
    return filled


def _label_rows(node) -> tuple[SegmentRow, ...]:
    """The labels that occur in a label map volume, with the names and colours of its colour table."""
    display = node.GetDisplayNode()
    table = display.GetColorNode() if display else None
    rows = []
    for value in _foreground_values(node):
        known = table is not None and value < table.GetNumberOfColors()
        rgba, text = [0.0] * 4, table.GetTerminologyAsString(value) if known else ""
        name = (table.GetColor(value, rgba) and table.GetColorName(value)) if known else ""
        color = tuple(round(255 * part) for part in rgba[:3])
        terminology = text if text.strip("~^") else ""
        rows.append(SegmentRow(str(value), name or f"label {value}", color, terminology, False, value))
    return tuple(rows)


def _foreground_values(node) -> tuple[int, ...]:
    """The values above 0 of a label map volume in their order; looked for again only when its image has changed."""
    image = node.GetImageData()
    if image is None:
        return ()
    address, changed = image.GetAddressAsString(""), image.GetMTime()
    known = _label_values.get(address)
    if known is None or known[0] != changed:
        known = _label_values[address] = changed, tuple(sorted(_values_in(_label_voxels(node)) - {0}))
    return known[1]


def _label_voxels(node) -> np.ndarray:
    """The voxels (Z, Y, X) of a label map volume as integers; raises ImageError for what no label can have."""
    image = node.GetImageData()
    if image is None or not image.GetNumberOfPoints():
        return np.zeros((0, 0, 0), np.uint8)
    array, (low, high) = _array(image)[0], image.GetScalarRange()
    is_label = 0 <= low <= high <= LARGEST_VALUE
    if is_label and np.can_cast(array.dtype, np.int64):
        return array
    whole = array.astype(np.uint16) if is_label else None
    if whole is None or (whole != array).any():
        raise ImageError(
            f"The values of the label map {node.GetName()} should be whole numbers from 0 to {LARGEST_VALUE}, found "
            f"{low:g} to {high:g}; correct them in Slicer first."
        )
    return whole


def _put_segments(segmentation, group: Sequence[Label], labels: np.ndarray, matrix: np.ndarray) -> list[str]:
    """Add segments that share one label map, each in the place of the segment of its name if there is one; their ids."""
    table = np.zeros(max(int(labels.max()), *(v for label in group for v in label.values)) + 1, np.uint16)
    for number, label in enumerate(group, 1):
        table[list(label.values)] = number
    image = _oriented(table.astype(np.uint8 if len(group) < 256 else np.uint16)[labels], matrix)
    ids = []
    for number, label in enumerate(group, 1):
        segment = slicer.vtkSegment()
        segment.SetName(label.name)
        if label.color:
            segment.SetColor(*(part / 255 for part in label.color))
        if label.terminology:
            segment.SetTerminology(label.terminology)
        segment.SetLabelValue(number)
        segment.AddRepresentation(BINARY, image)
        ids.append(_put_segment(segmentation, segment))
    return ids


def _put_segment(segmentation, segment) -> str:
    ids = list(segmentation.GetSegmentIDs())
    old = [n for n, i in enumerate(ids) if segmentation.GetSegment(i).GetName() == segment.GetName()]
    if not old:
        new = segmentation.GenerateUniqueSegmentID(segment.GetName())
        segmentation.AddSegment(segment, new)
        return new
    following = ids[old[0] + 1] if old[0] + 1 < len(ids) else ""
    segmentation.RemoveSegment(ids[old[0]])
    segmentation.AddSegment(segment, ids[old[0]], following)
    return ids[old[0]]


def _new_segmentation(volume_node, name: str):
    scene = volume_node.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    node.SetAttribute(PREDICTION_ATTRIBUTE, "1")
    put_beside(node, volume_node)
    return node


def _matrix_in(node, volume_node) -> np.ndarray:
    """The volume's 4×4 index → RAS matrix in the coordinates of the segmentation.

    A segmentation without segments is put under the volume's transform and gets its grid.
    """
    if not node.GetSegmentation().GetNumberOfSegments():
        node.GetSegmentation().SetSourceRepresentationName(BINARY)
        node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID() if _is_linear(volume_node) else None)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    if node.GetTransformNodeID() == volume_node.GetTransformNodeID() and _is_linear(node):
        return _local_matrix(volume_node)
    return np.linalg.inv(_parent_matrix(node)) @ _world_matrix(volume_node)


# What predictions did to segmentations --------------------------------------------------------------------------------


def _taken_out(segmentation, names: set[str]) -> tuple[tuple[str, slicer.vtkSegment], ...]:
    """(id, copy) of each segment of these names, whose voxels go; a label map that they share is copied once."""
    ids = [i for i in segmentation.GetSegmentIDs() if segmentation.GetSegment(i).GetName() in names]
    copies = {}
    for original, sharing, own in _label_maps(segmentation, ids):
        image = slicer.vtkOrientedImageData()
        image.DeepCopy(original)
        _clear(image, [value for i, value in sharing.items() if i not in own])
        for segment_id in own:
            copies[segment_id] = slicer.vtkSegment()
            copies[segment_id].DeepCopyMetadata(segmentation.GetSegment(segment_id))
            copies[segment_id].AddRepresentation(BINARY, image)
    _empty_segments(segmentation, ids)
    return tuple((segment_id, copies[segment_id]) for segment_id in ids)


def _is_taken_back(segmentation, step: _Step) -> bool:
    """Whether the segments are those that were there before a prediction was shown."""
    maps: dict = {}
    for segment_id, segment in step.replaced:
        maps.setdefault(segment.GetRepresentation(BINARY), {})[segment_id] = segment.GetLabelValue()
    then = {i: look for image, values in maps.items() for i, look in _looks_on(image, values).items()}
    now = _looks(segmentation, {*step.looks, *then})
    return then.keys() == now.keys() and all(now[i].is_same(then[i]) for i in now)


def _put_back(segmentation, replaced, ids: Sequence[str]) -> None:
    """Add the segments that a prediction has replaced, each in its place among `ids`, which were there with it."""
    for segment_id, segment in replaced:
        following = ids[ids.index(segment_id) + 1 :] if segment_id in ids else ()
        place = next((i for i in following if segmentation.GetSegment(i) is not None), "")
        segmentation.AddSegment(segment, segment_id, place)


def _empty_segments(segmentation, ids) -> None:
    """Clear the voxels of all these segments at once; VTK passes through the label map that they share for each one.

    To remove sixty segments in 100 million voxels took it 38 s.
    """
    for image, sharing, own in _label_maps(segmentation, ids):
        if len(own) < len(sharing):
            _clear(image, list(own.values()))
        for segment_id in own:
            segmentation.GetSegment(segment_id).AddRepresentation(BINARY, slicer.vtkOrientedImageData())


def _clear(image, values: list[int]) -> None:
    if values and image.GetNumberOfPoints():
        array = _array(image)[0]
        array[np.isin(array, values)] = 0
        image.Modified()


def _label_maps(segmentation, ids) -> list[tuple]:
    """(label map, values of all segments in it by id, values of those of `ids`) where it holds one of `ids`."""
    found = []
    for layer in range(segmentation.GetNumberOfLayers(BINARY)):
        sharing = segmentation.GetSegmentIDsForLayer(layer, BINARY)
        values = {i: segmentation.GetSegment(i).GetLabelValue() for i in sharing}
        own = {i: value for i, value in values.items() if i in ids}
        found += [(segmentation.GetLayerDataObject(layer, BINARY), values, own)] if own else []
    return found


def _looks(segmentation, ids) -> dict[str, SegmentLook]:
    """How each of these segments looks that is there, whatever else is in the label maps that they share."""
    maps = _label_maps(segmentation, ids)
    return {i: look for image, _sharing, own in maps for i, look in _looks_on(image, own).items()}


def _looks_on(image, values: dict[str, int]) -> dict[str, SegmentLook]:
    """How the segments with these values look in a label map."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    array = _array(image)[0] if image.GetNumberOfPoints() else np.zeros((0, 0, 0), np.uint8)
    return looks_in(array, image.GetExtent()[::2], _numbers(matrix), values)


def _remember(node, step: _Step) -> None:
    """Keep what a prediction did to a node until the node leaves its scene."""
    scene, steps = node.GetScene(), _steps_of(node)
    if scene is None:
        return
    if steps is None:
        steps = []
        _steps[node.GetID()] = (
            node.GetSegmentation(), steps, scene.AddObserver(scene.NodeRemovedEvent, _forget_steps)
        )  # fmt: skip
    steps.append(step)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _forget_steps(scene, _event: str, node) -> None:
    """What the scene calls for each node that is removed, also when it is closed."""
    if _steps_of(node) is not None:
        scene.RemoveObserver(_steps.pop(node.GetID())[2])


def _steps_of(node) -> list[_Step] | None:
    """What predictions did to this very node; another scene's node may have had the same id."""
    segmentation, steps, _observer = _steps.get(node.GetID(), (None, None, 0))
    is_same = segmentation is not None and segmentation is node.GetSegmentation()
    return steps if is_same else None


# Grids and transforms -----------------------------------------------------------------------------------------------


def _is_linear(node) -> bool:
    parent = node.GetParentTransformNode()
    return parent is None or bool(parent.IsTransformToWorldLinear())


def _world_matrix(node) -> np.ndarray:
    """Index → RAS with the linear transforms the volume is under; a non-linear one moves values, not the grid."""
    return _parent_matrix(node) @ _local_matrix(node) if _is_linear(node) else _local_matrix(node)


def _local_matrix(volume_node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return _numbers(matrix)


def _parent_matrix(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return _numbers(matrix)


def _to_world(transform_node):
    transform = vtk.vtkGeneralTransform()
    transform_node.GetTransformToWorld(transform)
    return transform


def _numbers(matrix) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _array(image) -> np.ndarray:
    """The voxels (C, Z, Y, X) of a VTK image, not copied."""
    scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return np.moveaxis(scalars.reshape(*reversed(image.GetDimensions()), -1), -1, 0)


def _oriented(array: np.ndarray, ijk_to_ras: np.ndarray):
    """An array (Z, Y, X) as an image of Slicer's segmentations."""
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetDimensions(*reversed(array.shape))
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    matrix.DeepCopy(ijk_to_ras.ravel())
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def _values_in(array: np.ndarray) -> set[int]:
    """The values in an array (Z, Y, X). Label maps are long runs of one value: only where one begins is it read."""
    found: set[int] = set()
    for plane in array:
        flat = plane.ravel()
        begins = flat[1:] != flat[:-1]
        found.update(flat[:1].tolist(), np.unique(flat[1:][begins]).tolist())
    return found


def _source(node) -> str:
    storage = node.GetStorageNode()
    return (storage.GetFileName() if storage else None) or node.GetName() or ""

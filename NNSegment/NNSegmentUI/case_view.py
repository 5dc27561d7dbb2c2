"""A case in the views: its image, the reference as an outline, the prediction filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import slicer
from slicer.i18n import tr as _

_FILE = "NNSegment.File"
_SAME_PLACE = 0.1
"""Voxels: what a header's rounding may put apart."""


class CaseView:
    """Loads cases from files and shows one at a time; what was loaded is found again instead of loaded twice."""

    def show(self, case_id: str, image: Path, reference: Path | None, prediction: Path | None, label_set):
        """Show one case; returns (volume, reference node, prediction node). Raises ImageError, TaskError."""
        volume = _loaded_volume(image, case_id)
        nodes = [
            _segments(volume, path, label_set, title.format(case=case_id)) if path is not None else None
            for path, title in ((reference, _("{case} reference")), (prediction, _("{case} prediction")))
        ]
        _hide_others([node for node in nodes if node is not None])
        _style(nodes[0], outline=True)
        _style(nodes[1], outline=False)
        show_volume(volume)
        jump_to_segments(nodes[0] or nodes[1])
        return (volume, *nodes)


def show_volume(volume) -> None:
    """Put a volume behind the slice views and fit them to it."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volume.GetID())
    logic.PropagateVolumeSelection(1)


def _loaded_volume(path: Path, name: str):
    from NNSegmentLib.image import read_geometry

    known = _node_of_file("vtkMRMLScalarVolumeNode", path)
    if known is not None:
        return known
    geometry = read_geometry(path)
    volume = _volume_by_slicer(path, name)
    if volume is not None and not _lies_on(volume, geometry):
        _remove(volume)
        volume = None
    if volume is None:
        volume = _volume_by_library(path, name)
    volume.SetAttribute(_FILE, _mark(path))
    return volume


def _volume_by_slicer(path: Path, name: str):
    """The volume as Slicer loads it; None where it cannot."""
    try:  # a single file, else Slicer makes one volume of all one-slice files of the folder, which are other patients
        return slicer.util.loadVolume(str(path), {"name": name, "singleFile": True})
    except RuntimeError:
        return None


def _lies_on(volume, geometry) -> bool:
    """Whether Slicer has put the voxels where the library, and so the labels, have them."""
    import numpy as np
    import vtk

    matrix, size = vtk.vtkMatrix4x4(), volume.GetImageData().GetDimensions()
    volume.GetIJKToRASMatrix(matrix)
    apart = np.abs(slicer.util.arrayFromVTKMatrix(matrix) - geometry.ijk_to_ras)[:3]
    farthest = apart @ (*(n - 1 for n in size), 1)
    return size[::-1] == geometry.shape and farthest.max() < _SAME_PLACE * min(geometry.spacing_mm)


def _remove(volume) -> None:
    """Take a volume away with what Slicer has made for it."""
    for node in (volume.GetDisplayNode(), volume.GetStorageNode(), volume):
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)


def _volume_by_library(path: Path, name: str):
    """A volume of what the library reads, in its colours or of the first channel; raises ImageError."""
    import numpy as np

    from NNSegmentLib.image import read_array

    array, geometry = read_array(path)
    has_colors = array.dtype == np.uint8 and len(array) in (3, 4)
    voxels = np.moveaxis(array[:3], 0, -1) if has_colors else array[0].astype(np.float32)
    kind = "vtkMRMLVectorVolumeNode" if has_colors else "vtkMRMLScalarVolumeNode"
    return slicer.util.addVolumeFromArray(voxels, _flat(geometry).ijk_to_ras, name, kind)


def _flat(geometry):
    """The thickness of a single plane is nnU-Net's invention; here it is that of a pixel."""
    in_plane = geometry.spacing_mm[1:]
    return replace(geometry, spacing_mm=(max(in_plane), *in_plane)) if geometry.dimension == 2 else geometry


def _segments(volume, path: Path, label_set, name: str):
    """The segments of a label file; loaded again when the file has changed."""
    from NNSegmentLib import scene
    from NNSegmentLib.image import read_labels
    from NNSegmentLib.prediction import Prediction

    known = _node_of_file("vtkMRMLSegmentationNode", path)
    if known is not None:
        return known
    found = read_labels(path)
    node = scene.show_prediction(Prediction(found.array, found.geometry, label_set), volume, name=name)
    node.SetAttribute(_FILE, _mark(path))
    return node


def _node_of_file(node_class: str, path: Path):
    nodes = slicer.util.getNodesByClass(node_class)
    return next((node for node in nodes if node.GetAttribute(_FILE) == _mark(path)), None)


def _mark(path: Path) -> str:
    return f"{path}@{Path(path).stat().st_mtime_ns}" if Path(path).exists() else str(path)


def _hide_others(shown) -> None:
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(_FILE) and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(any(node is other for other in shown))


def _style(node, outline: bool) -> None:
    if node is None or node.GetDisplayNode() is None:
        return
    node.GetDisplayNode().SetVisibility2DFill(not outline)
    node.GetDisplayNode().SetVisibility2DOutline(outline)


def jump_to_segments(node) -> None:
    """Move the slices to the middle of the first segment that is not empty, where there is something to see.

    Not to the middle of the node's bounds: they are those of its label map, mostly the whole image.
    """
    if node is None:
        return
    ids = node.GetSegmentation().GetSegmentIDs()
    centre = next((c for c in map(node.GetSegmentCenterRAS, ids) if c is not None), None)
    if centre is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *centre)

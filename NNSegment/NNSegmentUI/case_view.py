"""A case in the views: its image, the reference as an outline, the prediction filled."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

_FILE = "NNSegment.File"


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
    from NNSegmentLib.errors import ImageError

    known = _node_of_file("vtkMRMLScalarVolumeNode", path)
    if known is not None:
        return known
    try:
        volume = slicer.util.loadVolume(str(path), {"name": name})
    except RuntimeError as error:
        raise ImageError(f"The image {path} cannot be loaded; check the file.") from error
    volume.SetAttribute(_FILE, _mark(path))
    return volume


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

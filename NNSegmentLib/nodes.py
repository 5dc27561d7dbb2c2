"""What a node of 3D Slicer's scene must be to serve as a volume or as a segmentation; nothing here imports Slicer."""

from __future__ import annotations

from .errors import ImageError

_VOLUME, _LABEL_MAP, _SEGMENTATION = "vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"
_WORDS = {_SEGMENTATION: "segmentation", _LABEL_MAP: "label map", _VOLUME: "volume", "vtkMRMLNode": "node"}
"""What people call a node of a class, the special classes first."""


def volumes_of(volume_nodes) -> tuple:
    """The volume nodes of one case, whether one or several were given; raises ImageError for anything else."""
    volumes = tuple(volume_nodes) if isinstance(volume_nodes, (tuple, list)) else (volume_nodes,)
    if not volumes:
        raise ImageError("Expected a volume, or one for every channel, found none; give their nodes.")
    for volume in volumes:
        _require(volume, "volume", _VOLUME)
    return volumes


def require_segments(node) -> None:
    """Raises ImageError unless segments can be read from it: a segmentation or a label map."""
    _require(node, "segmentation", _SEGMENTATION, _LABEL_MAP)


def require_segmentation(node) -> None:
    """Raises ImageError unless segments can be put into it."""
    _require(node, "segmentation", _SEGMENTATION)


def require_in_scene(node) -> None:
    """Raises ImageError for a node that was removed: it has lost the transforms that tell its place."""
    if node.GetScene() is None:
        raise ImageError(
            f"Expected {described(node)} in the scene, but it has left it, and its place in the patient with it; load it "
            "again."
        )


def described(thing: object) -> str:
    """'the volume Head 1', 'nothing', or a value as Python writes it."""
    if not _is_a(thing, "vtkMRMLNode"):
        return "nothing" if thing is None else f"{thing!r:.60}"
    word = next(word for class_name, word in _WORDS.items() if thing.IsA(class_name))
    return f"the {word} {thing.GetName()}"


def _require(node, what: str, *class_names: str) -> None:
    if any(_is_a(node, class_name) for class_name in class_names):
        return
    is_swapped = _is_a(node, _VOLUME) or _is_a(node, _SEGMENTATION)
    advice = "are volume and segmentation the wrong way round?" if is_swapped else "give the node that is in the scene."
    raise ImageError(f"Expected a {what}, found {described(node)}; {advice}")


def _is_a(thing: object, class_name: str) -> bool:
    return hasattr(thing, "IsA") and bool(thing.IsA(class_name))

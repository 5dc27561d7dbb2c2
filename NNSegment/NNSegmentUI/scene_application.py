"""Between the scene and the files of an application: volumes go out, segments and probabilities come back."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
from slicer.i18n import tr as _


def write_volumes(folder, groups: Sequence[Sequence], card, *, segmentation=None, roi=None, probabilities=False):
    """Write each group of volumes (one per channel) as a case; returns the `Application`.

    Raises ImageError when a volume cannot be used, the region lies elsewhere, or the segmentation cannot hold an
    answer as it is; StorageError.
    """
    from NNSegmentLib.application import Application, AppliedCase, cropped
    from NNSegmentLib.case_files import case_name
    from NNSegmentLib.scene import read_case, require_exact

    if segmentation is not None:
        require_exact(segmentation)  # now, not after minutes of computing
    cases, ending = [], usable_ending(card.file_ending)
    for volumes in groups:
        case_id = case_name(volumes[0].GetName(), [case.id for case in cases])
        arrays = read_case(case_id, list(volumes))
        channels, grid = arrays.channels, arrays.geometry
        if roi is not None:
            channels, grid = cropped(channels, grid, roi_corners(roi))
        folder.write_case(case_id, channels, grid, ending)
        ids = tuple(volume.GetID() for volume in volumes)
        target = segmentation.GetID() if segmentation is not None else ""
        cases.append(AppliedCase(case_id, ids, volumes[0].GetName(), target))
    labels = card.label_set
    application = Application(tuple(cases), labels.labels, labels.regions_class_order, ending, probabilities)
    folder.save(application)
    return application


def usable_ending(file_ending: str) -> str:
    """The model's own ending where it can hold a volume with its place in the patient."""
    from NNSegmentLib.case_files import VOLUME_ENDINGS

    return file_ending if file_ending in VOLUME_ENDINGS else ".nii.gz"


def show_results(folder, show_3d: bool = False) -> tuple[tuple, tuple[str, ...]]:
    """Put the answers of an application into the scene.

    Returns the segmentation nodes, and the names of the cases whose volume is no longer there.
    Raises ImageError when an answer is missing or does not lie on its volume.
    """
    application, nodes, lost = folder.load(), [], []
    for case in application.cases:
        volume = volume_of(case)
        if volume is None:
            lost.append(case.name)
            continue
        nodes.append(_show_case(folder, application, case, volume, show_3d))
    return tuple(nodes), tuple(lost)


def volume_of(case):
    """The first volume of a case: the node it was made of, else the only one of its name."""
    node = slicer.mrmlScene.GetNodeByID(case.volumes[0])
    if node is not None and node.GetName() == case.name:
        return node
    named = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName() == case.name]
    return named[0] if len(named) == 1 else None


def roi_corners(roi):
    """The corners (8, 3) of a region in RAS mm, with its rotation and the transforms it is under."""
    import numpy as np

    half, matrix = np.array(roi.GetSize()) / 2, roi.GetObjectToWorldMatrix()
    rotation = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    return signs * half @ rotation[:3, :3].T + rotation[:3, 3]


def _show_case(folder, application, case, volume, show_3d: bool):
    from NNSegmentLib.scene import show_prediction

    prediction = folder.prediction(application, case)
    target = slicer.mrmlScene.GetNodeByID(case.segmentation) if case.segmentation else None
    node = show_prediction(prediction, volume, target, show_3d=show_3d)
    if prediction.probabilities is not None:
        _show_probabilities(prediction, case.name)
    return node


def _show_probabilities(prediction, name: str) -> None:
    """One volume per output of the network, named after it."""
    import vtk

    label_set = prediction.label_set
    names = [label.name for label in label_set.foreground] if label_set.has_regions else _value_names(label_set)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(prediction.geometry.ijk_to_ras.ravel())
    for output, title in zip(prediction.probabilities, names, strict=True):
        text = _("{volume} probability of {label}").format(volume=name, label=title)
        slicer.util.addVolumeFromArray(output, ijkToRAS=matrix, name=text)


def _value_names(label_set) -> list[str]:
    return ["background" if value == 0 else label_set.name_of(value) for value in label_set.values]

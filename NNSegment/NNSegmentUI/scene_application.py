"""Between the scene and the files of an application: volumes go out, segments and probabilities come back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _

TARGET_ATTRIBUTE = "NNSegment.Application"
"""Names the application whose answer a segmentation waits for: its id comes back in the scene of the next patient."""


@dataclass(frozen=True)
class Shown:
    """What became of the answers of an application."""

    nodes: tuple
    """The segmentations that they are in."""
    lost: tuple[str, ...]
    """Names of volumes that are no longer in the scene."""
    others: tuple[str, ...]
    """Names that other volumes have by now, or that of a volume with other voxels or in another place."""
    errors: tuple = ()
    """Why some of the answers could not be shown."""


def write_volumes(
    folder,
    groups: Sequence[Sequence],
    card,
    *,
    segmentation=None,
    roi=None,
    probabilities: bool = False,
    shown_by: str = "",
    say: Callable[[str], object] = lambda text: None,
):
    """Write each group of volumes (one per channel) as a case; returns the `Application`.

    With several groups `say` is told which one it is. Raises ImageError when a volume cannot be used, the region lies
    elsewhere, or the segmentation cannot hold an answer as it is; StorageError.
    """
    from NNSegmentLib.application import Application
    from NNSegmentLib.scene import require_exact

    if segmentation is not None:
        require_exact(segmentation)  # now, not after minutes of computing
    cases = []
    with wait_cursor():
        for number, volumes in enumerate(groups, 1):
            if len(groups) > 1:
                text = _("Writing volume {number} of {total} for the model: {name}")
                say(text.format(number=number, total=len(groups), name=volumes[0].GetName()))
            cases.append(_write_case(folder, volumes, [case.id for case in cases], segmentation, roi))
    labels = card.label_set
    application = Application(
        tuple(cases), labels.labels, labels.regions_class_order, probabilities=probabilities, shown_by=shown_by
    )
    folder.save(application)
    if segmentation is not None:
        segmentation.SetAttribute(TARGET_ATTRIBUTE, folder.folder.name)
    return application


@contextlib.contextmanager
def wait_cursor() -> Iterator[None]:
    """Show that the program is at work; unlike Slicer's own, it lets no click through meanwhile."""
    qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()


def show_results(folder, show_3d: bool = False) -> Shown:
    """Put the answers of an application into the scene, each on the volume that it was made for and on no other.

    Raises the first ImageError, when the others are shown, where an answer is missing or does not lie on its volume.
    """
    shown = show_what_can_be(folder, show_3d)
    if shown.errors:
        raise shown.errors[0]
    return shown


def show_what_can_be(folder, show_3d: bool = False) -> Shown:
    """As `show_results`, but the errors come back with what is shown."""
    from NNSegmentLib.errors import NNSegmentError

    application, nodes, lost, others, errors = folder.load(), [], [], [], []
    for case in application.cases:
        volume = volume_of(case)
        if volume is None:
            (others if _volumes_named(case.name) else lost).append(case.name)
            continue
        try:
            nodes.append(_show_case(folder, application, case, volume, show_3d))
        except NNSegmentError as error:
            errors.append(error)
    return Shown(tuple(nodes), tuple(lost), tuple(others), tuple(errors))


def late_answers(jobs: Sequence) -> list[tuple]:
    """(job, `ApplicationFolder`) of predictions of this computer that ended while nobody was there to take the answer.

    Who takes it puts the copies of the images away.
    """
    from NNSegmentLib.application import application_of

    own = [(job, application_of(job.request.arguments)) for job in jobs if job.request.is_here]
    waiting = [(job, folder) for job, folder in own if folder is not None and folder.images.is_dir()]
    return [(job, folder) for job, folder in waiting if not job.is_running()]


def volume_of(case):
    """The first volume of a case: the node it was made of, else one that is the same; None where there is none."""
    asked = slicer.mrmlScene.GetNodeByID(case.volumes[0])
    if case.identity is not None and _has_voxels(asked) and _is_volume_of(case, asked):
        return asked  # whatever its name is by now
    same = [node for node in _volumes_named(case.name) if _is_volume_of(case, node)]
    own = [node for node in same if node is asked]
    is_certain = len(same) == 1 or case.identity is not None  # a name alone may be that of several
    return next(iter(own or (same if is_certain else ())), None)


def identity_of(volume):
    """What a volume is known by, now and when it is loaded again."""
    import vtk

    from NNSegmentLib.application import VolumeIdentity

    matrix, parent = vtk.vtkMatrix4x4(), volume.GetParentTransformNode()
    volume.GetIJKToRASMatrix(matrix)
    if parent is not None and parent.IsTransformToWorldLinear():  # any other one has no matrix
        to_world = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(to_world)
        vtk.vtkMatrix4x4.Multiply4x4(to_world, matrix, matrix)
    return VolumeIdentity.of(slicer.util.arrayFromVolume(volume), slicer.util.arrayFromVTKMatrix(matrix))


def roi_corners(roi):
    """The corners (8, 3) of a region in RAS mm, with its rotation and the transforms it is under."""
    import numpy as np

    half, matrix = np.array(roi.GetSize()) / 2, roi.GetObjectToWorldMatrix()
    rotation = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    signs = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T
    return signs * half @ rotation[:3, :3].T + rotation[:3, 3]


def _write_case(folder, volumes: Sequence, taken: Sequence[str], segmentation, roi):
    """The files of one case; returns its `AppliedCase`."""
    from NNSegmentLib.application import IMAGE_ENDING, AppliedCase, cropped
    from NNSegmentLib.case_files import case_name
    from NNSegmentLib.scene import read_case

    first = volumes[0]
    case_id = case_name(first.GetName(), taken)
    arrays = read_case(case_id, list(volumes))
    channels, grid = arrays.channels, arrays.geometry
    if roi is not None:
        channels, grid = cropped(channels, grid, roi_corners(roi))
    folder.write_case(case_id, channels, grid, IMAGE_ENDING)
    ids = tuple(volume.GetID() for volume in volumes)
    target = segmentation.GetID() if segmentation is not None else ""
    return AppliedCase(case_id, ids, first.GetName(), target, identity_of(first))


def _volumes_named(name: str) -> list:
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if node.GetName() == name and _has_voxels(node)]


def _has_voxels(node) -> bool:
    is_volume = node is not None and node.IsA("vtkMRMLScalarVolumeNode")
    return is_volume and node.GetImageData() is not None


def _is_volume_of(case, node) -> bool:
    return case.identity is None or identity_of(node).is_same(case.identity)


def _target_of(folder, case, volume):
    """The segmentation that an answer was asked into; None when it is gone, or another one has its id."""
    from NNSegmentLib.scene_tasks import REFERENCE_ROLE

    node = slicer.mrmlScene.GetNodeByID(case.segmentation) if case.segmentation else None
    if node is None:
        return None
    waits = node.GetAttribute(TARGET_ATTRIBUTE) == folder.folder.name
    return node if waits or node.GetNodeReference(REFERENCE_ROLE) is volume else None


def _show_case(folder, application, case, volume, show_3d: bool):
    from NNSegmentLib.scene import show_prediction

    prediction, target = folder.prediction(application, case), _target_of(folder, case, volume)
    node = show_prediction(prediction, volume, target, show_3d=show_3d)
    node.RemoveAttribute(TARGET_ATTRIBUTE)
    if prediction.probabilities is not None:
        _show_probabilities(prediction, case.name, volume)
    return node


def _show_probabilities(prediction, name: str, volume) -> None:
    """One volume per output of the network, named after it."""
    import vtk

    from NNSegmentLib.scene import put_beside

    label_set = prediction.label_set
    names = [label.name for label in label_set.foreground] if label_set.has_regions else _value_names(label_set)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(prediction.geometry.ijk_to_ras.ravel())
    for output, title in zip(prediction.probabilities, names, strict=True):
        text = _("{volume} probability of {label}").format(volume=name, label=title)
        put_beside(slicer.util.addVolumeFromArray(output, ijkToRAS=matrix, name=text), volume)


def _value_names(label_set) -> list[str]:
    return ["background" if value == 0 else label_set.name_of(value) for value in label_set.values]

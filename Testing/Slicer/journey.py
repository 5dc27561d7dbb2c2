"""MR-like heads for the clicked journey: what lies in the scene, and the truth about it in world coordinates."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mrml_nodes import Builder
from scipy import ndimage

from NNSegmentLib.geometry import Geometry
from NNSegmentLib.sample import make_phantom

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
SECTIONS = ("taskButton", "planButton", "trainButton", "resultsButton", "applyButton")
TASK = "Dataset501_Heads"
SEGMENTS = {
    "head": ((0.9, 0.7, 0.5), "~SCT^123037004^Anatomical Structure~SCT^69536005^Head~^^~~^^~^^"),
    "mass": ((0.8, 0.1, 0.2), "~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~^^~^^"),
}
"""Name, colour and terminology as a person would have chosen them."""
SETTINGS = {
    "epochs": 4, "iterations_per_epoch": 20, "validation_iterations": 1, "optimizer": "adamw", "learning_rate": 0.003,
    "warmup_steps": 10, "augmentation": "light", "mirror_axes": [], "validation_mirroring": False, "seed": 1,
    "loader_workers": 0, "threads": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """One head: an image and the truth (Z, Y, X) as 0, 1 (head), 2 (mass), on its grid without any transform."""

    image: np.ndarray
    truth: np.ndarray
    geometry: Geometry


@functools.cache
def make_head(index: int) -> Head:
    """Every second voxel of phantom number `index`; the head is everything inside its skin but the mass."""
    phantom = make_phantom(index)
    bright = ndimage.gaussian_filter(phantom.image, 1.0) > 0.3 * np.percentile(phantom.image, 98)
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=2))
    truth = np.where(phantom.labels > 0, 2, inside).astype(np.uint8)
    coarse, shape = (slice(None, None, 2),) * 3, tuple((n + 1) // 2 for n in truth.shape)
    geometry = replace(phantom.geometry, shape=shape, spacing_mm=tuple(2 * s for s in phantom.geometry.spacing_mm))
    return Head(phantom.image.round().astype(np.int16)[coarse], truth[coarse], geometry)


def turned(degrees: float, shift_mm) -> np.ndarray:
    """A 4×4 matrix that turns about z and moves."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift_mm
    return matrix


def load_head(index: int, transform=None, with_segments: bool = True):
    """Put a head into the scene, under a transform if there is one; returns (volume, segmentation or None)."""
    import slicer

    head, build = make_head(index), Builder(slicer.mrmlScene)
    matrix = head.geometry.ijk_to_ras
    volume = build.volume(head.image, matrix, f"Head {index + 1}", transform)
    volume.CreateDefaultDisplayNodes()
    if not with_segments:
        return volume, None
    masks = {name: head.truth == value for value, name in enumerate(SEGMENTS, 1)}
    node = build.segmentation(masks, matrix, f"Head {index + 1} segmentation", transform, volume)
    for name, (color, terminology) in SEGMENTS.items():
        segment = node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name))
        segment.SetColor(*color)
        segment.SetTerminology(terminology)
    return volume, node


def labels_at(node, positions_ras: np.ndarray) -> np.ndarray:
    """What the segments of a node are at positions (N, 3) in the world: 0, or the number of the segment in `SEGMENTS`.

    Goes from the world to the voxels of each segment by hand, through the transform that the node is under.
    """
    import slicer
    import vtk
    from vtk.util import numpy_support

    found, to_world = np.zeros(len(positions_ras), int), vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(node.GetParentTransformNode(), None, to_world)
    for number, name in enumerate(SEGMENTS, 1):
        segment = node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name))
        image, to_local = segment.GetRepresentation("Binary labelmap"), vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(to_local)
        x0, x1, y0, y1, z0, z1 = image.GetExtent()
        array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        array = array.reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
        back = np.linalg.inv(as_array(to_world) @ as_array(to_local))
        index = np.rint(positions_ras @ back[:3, :3].T + back[:3, 3]).astype(int) - (x0, y0, z0)
        inside = ((index >= 0) & (index < array.shape[::-1])).all(axis=1)
        x, y, z = index[inside].T
        found[np.flatnonzero(inside)[array[z, y, x] == segment.GetLabelValue()]] = number
    return found


def world_positions(head: Head, matrix: np.ndarray) -> np.ndarray:
    """World positions (N, 3) of every voxel of a head under a transform, in the order of `truth.ravel()`."""
    voxels = np.argwhere(np.ones(head.truth.shape, bool))
    return head.geometry.world(voxels) @ matrix[:3, :3].T + matrix[:3, 3]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def as_array(matrix) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def open_panel(harness):
    """The module's panel on the bench."""
    return harness.open_module(MODULE)


def unfold(panel, section: str) -> None:
    """Open one section of the panel with a click and close the others."""
    for name in SECTIONS:
        if panel[name].collapsed != (name != section):
            panel.click(name)


def finish(panel, verb: str, timeout_s: float = 300) -> None:
    """Wait until the newest job of a verb has ended well."""
    from NNSegmentLib.jobs import find_jobs

    context = panel.widget.context
    job = next(job for job in find_jobs(context.workspace.jobs) if job.request.arguments[0] == verb)
    panel.wait_until(lambda: not context.running_verb(verb) and not job.is_running(), timeout_s, f"the end of {verb}")
    assert job.status() == "finished", job.failure()
    context.poll()


def make_task(panel, root: Path) -> None:
    """Three pairs from the scene become a checked and planned task."""
    panel.choose("workspaceEdit", root)
    unfold(panel, "taskButton")
    panel.set_text("channelsEdit", "MRI")
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", TASK.partition("_")[2])
    panel.click("createTaskButton")
    panel.click("checkButton")
    finish(panel, "check")


def plan(panel) -> None:
    unfold(panel, "planButton")
    panel.choose("presetCombo", "Small U-Net (2 GB or processor)")
    panel.click("makePlanButton")
    finish(panel, "plan")


def choose_training(panel, root: Path, **settings) -> None:
    """Fold 0 of 3d_fullres with a few steps, by a settings file as it can be given on the panel."""
    (root / "settings.json").write_text(json.dumps(SETTINGS | settings))
    unfold(panel, "trainButton")
    panel.choose("trainConfigurationBox", "3d_fullres")
    panel.choose("trainFoldBox", "Fold 0")
    panel.choose("trainLengthBox", "Other …")
    panel.set_text("trainLengthEdit", "")
    panel["trainAdvancedBox"].collapsed = False
    panel.choose("trainSettingsPath", root / "settings.json")
    panel["trainAdvancedBox"].collapsed = True

"""The whole journey, clicked on the panel: three loaded heads become a task, a model, and the segments of a fourth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import journey
import numpy as np
import pytest
from journey import SEGMENTS, TASK, dice, finish, make_head, turned, unfold, world_positions
from mrml_nodes import Builder

from NNSegmentLib.folders import Workspace
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_labels, write_image
from NNSegmentLib.jobs import JobState, find_jobs

pytestmark = pytest.mark.slow
TESTING = Path(__file__).resolve().parents[1]
UNDER = turned(30, (12.0, -7.0, 20.0))
"""The transform that one head to learn from is under."""
FOURTH = turned(-20, (-5.0, 15.0, 8.0))
"""The transform that the head to predict is under."""


@pytest.fixture(scope="module")
def panel(started, tmp_path_factory):
    from bench import harness

    before = os.environ.get("HOME")
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    harness.close_scene()
    panel = journey.open_panel(harness)
    yield panel
    panel.close()
    harness.close_scene()
    os.environ["HOME"] = before or ""


@pytest.fixture(scope="module")
def root(panel, tmp_path_factory) -> Path:
    """A workspace with a planned task of three heads: one under a transform, one oblique, one left-handed."""
    import slicer

    root = tmp_path_factory.mktemp("journey")
    transform = Builder(slicer.mrmlScene).linear(UNDER, "Patient moved")
    for index in range(3):
        journey.load_head(index, transform if index == 0 else None)
    journey.make_task(panel, root)
    journey.plan(panel)
    return root


@pytest.fixture(scope="module")
def trained(panel, root) -> Path:
    """The same with fold 0 trained for a few steps, validated, and chosen as the best there is."""
    journey.choose_training(panel, root)
    panel.click("trainStartButton")
    finish(panel, "train")
    unfold(panel, "resultsButton")
    panel.click("bestButton")
    finish(panel, "best")
    return root


@pytest.fixture(scope="module")
def predicted(panel, trained):
    """(volume, segmentation) of the fourth head."""
    import slicer

    transform = Builder(slicer.mrmlScene).linear(FOURTH, "Fourth moved")
    volume, _none = journey.load_head(3, transform, with_segments=False)
    unfold(panel, "applyButton")
    panel.choose("applyModelBox", "Best of this task")
    panel.choose("applyVolume0", volume)
    panel.click("applyRunButton")
    assert panel["applyRunButton"].text == "Cancel"
    finish(panel, "predict")
    assert panel["applyRunButton"].text == "Apply"
    return volume, slicer.util.getNode("Head 4 prediction")


def test_the_task_on_disk_has_the_segments_where_they_are_in_the_world(root):
    from NNSegmentLib.lookup import open_task

    task = open_task(TASK, root)
    assert [case.id for case in task.cases] == ["Head_1", "Head_2", "Head_3"]
    for index, case in enumerate(task.cases):
        head, written = make_head(index), read_labels(case.labels)
        positions = world_positions(head, UNDER if index == 0 else np.eye(4))
        voxels = np.rint(written.geometry.voxel(positions)).astype(int)
        assert np.array_equal(written.array[tuple(voxels.T)], head.truth.ravel()), case.id


def test_the_panel_shows_what_the_training_gave(panel, trained):
    unfold(panel, "trainButton")
    grid = panel["runsTable"]
    texts = [grid.item(row, 0).text() for row in range(grid.rowCount)]
    assert any(text.startswith("0.") for text in texts)
    assert "Epoch 4 / 4" in panel["trainEpochLabel"].text
    unfold(panel, "resultsButton")
    assert panel["bestLabel"].text.startswith("Best: 3d_fullres")
    assert panel["scoresTable"].rowCount == 1


def test_the_segments_have_the_names_colours_and_terminology_of_training(predicted):
    segmentation = predicted[1].GetSegmentation()
    segments = [segmentation.GetSegment(segment_id) for segment_id in segmentation.GetSegmentIDs()]
    assert [segment.GetName() for segment in segments] == list(SEGMENTS)
    for segment, (color, terminology) in zip(segments, SEGMENTS.values(), strict=True):
        assert segment.GetColor() == pytest.approx(color, abs=1 / 255)
        assert segment.GetTerminology() == terminology


def test_the_segments_lie_where_the_fourth_head_is_in_the_world(predicted):
    head = make_head(3)
    found = journey.labels_at(predicted[1], world_positions(head, FOURTH))
    truth = head.truth.ravel()

    assert dice(found > 0, truth > 0) > 0.85
    elsewhere = journey.labels_at(predicted[1], world_positions(head, np.eye(4)))
    assert dice(elsewhere > 0, truth > 0) < dice(found > 0, truth > 0) - 0.1


def test_the_panel_gives_the_voxels_that_the_command_line_gives(predicted, trained, tmp_path):
    head = make_head(3)
    moved = Geometry.from_ijk_to_ras(head.truth.shape, FOURTH @ head.geometry.ijk_to_ras)
    write_image(tmp_path / "head_0000.nii.gz", head.image, moved)
    words = ["predict", "--workspace", trained, "-i", tmp_path / "head_0000.nii.gz", "-o", tmp_path / "out", "-t", TASK]
    environment = dict(os.environ, PYTHONPATH=str(TESTING.parent))
    subprocess.run([sys.executable, "-m", "NNSegmentLib", *map(str, words)], check=True, env=environment)

    expected = read_labels(tmp_path / "out" / "head.nii.gz").array
    found = journey.labels_at(predicted[1], world_positions(head, FOURTH)).reshape(head.truth.shape)
    assert np.array_equal(found, expected)


STARTS = """
import sys
sys.path.insert(0, {folder!r})
import os, signal
import journey
from pathlib import Path
from bench import harness

harness.start()
panel = journey.open_panel(harness)
panel.choose("workspaceEdit", {root!r})
panel.choose("taskCombo", journey.TASK)
journey.choose_training(panel, Path({root!r}), epochs=1000, iterations_per_epoch=2)
panel.choose("trainFoldBox", "Fold 1")
panel.click("trainStartButton")
panel.wait_until(lambda: "Epoch" in panel["trainEpochLabel"].text, 120, "the first epoch")
os.kill(os.getpid(), signal.SIGKILL)
"""
FINDS = """
import sys
sys.path.insert(0, {folder!r})
import journey
from bench import harness

harness.start()
panel = journey.open_panel(harness)
panel.choose("workspaceEdit", {root!r})
panel.choose("taskCombo", journey.TASK)
journey.unfold(panel, "trainButton")
panel.choose("trainConfigurationBox", "3d_fullres")
panel.choose("trainFoldBox", "Fold 1")
before = panel["trainEpochLabel"].text
assert panel["trainStopButton"].visible
panel.wait_until(lambda: panel["trainEpochLabel"].text != before, 120, "another epoch")
panel.click("trainStopButton")
panel.wait_until(lambda: "stopped" in panel["trainJobLabel"].text, 120, "the end")
assert panel["trainResumeButton"].enabled, panel["trainResumeButton"].toolTip
"""


def test_a_training_outlives_its_panel_and_a_new_one_finds_follows_and_stops_it(trained):
    from bench import harness

    places = {"folder": str(Path(__file__).parent), "root": str(trained)}
    with pytest.raises(harness.BenchError, match="the process ended with -9"):
        harness.run_fresh(STARTS.format(**places), timeout_s=240)
    job = find_jobs(Workspace.at(trained).jobs)[0]
    assert job.is_running()

    try:
        harness.run_fresh(FINDS.format(**places), timeout_s=240)
        assert job.status() is JobState.STOPPED
    finally:
        if job.is_running():
            job.kill()

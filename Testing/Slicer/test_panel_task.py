"""Workspace, Task and Plan on the panel, clicked; the set-up row; the module from the Python console."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from bench.harness import BenchError
from effort import Watched, comparisons
from finished_runs import make_job
from mrml_nodes import Builder

from NNSegmentLib.arguments import build_parser
from NNSegmentLib.image import read_image, read_labels, write_labels
from NNSegmentLib.run import Progressed, Stopped, append_event
from NNSegmentLib.task import load_task

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
MATRIX = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def panel(bench, root):
    panel = bench.open_module(MODULE)
    panel.choose("workspaceEdit", root)
    panel["taskButton"].collapsed = False
    yield panel
    panel.close()


def masks(number: int) -> dict[str, np.ndarray]:
    """`organ` and `mass` as boxes (16, 24, 24) that move from case to case."""
    made = {name: np.zeros((16, 24, 24), bool) for name in ("organ", "mass")}
    made["organ"][4:12, 4:14, 4 + number : 14 + number] = True
    made["mass"][4:10, 16:22, 4:10] = True
    return made


def load_case(number: int, name: str = "", channels: tuple[str, ...] = ("",)):
    """Volumes and a segmentation in the scene; returns (first volume, segmentation)."""
    import slicer

    build, name = Builder(slicer.mrmlScene), name or f"patient{number}"
    noise = np.random.default_rng(number).normal(100, 10, (16, 24, 24))
    found = masks(number)
    image = (noise + 80 * found["organ"] - 60 * found["mass"]).astype(np.int16)
    volumes = [build.volume(image, MATRIX, name + channel) for channel in channels]
    return volumes[0], build.segmentation(found, MATRIX, f"{name} segmentation", volume=volumes[0])


def slicer_scene():
    import slicer

    return slicer.mrmlScene


def make_task(panel, n_cases: int = 3):
    """Three loaded pairs written as a task by clicking."""
    for number in range(n_cases):
        load_case(number)
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Phantom")
    panel.click("createTaskButton")
    return panel.widget.context.task


def finish_jobs(panel, timeout_s: float = 120) -> None:
    """Wait until the row that shows a job is gone; the panel's own timer does the looking."""
    panel.wait_until(lambda: not panel["workFrame"].visible, timeout_s, "the end of the job")


def column(panel, table: str, number: int) -> list[str]:
    return [panel[table].item(row, number).text() for row in range(panel[table].rowCount)]


# Opening


def test_opening_the_panel_loads_no_torch(bench, root):
    script = f"""
import sys
from bench import harness
harness.start()
panel = harness.open_module({str(MODULE)!r})
for name in ("planButton", "trainButton", "resultsButton", "applyButton"):
    panel.click(name)
loaded = [name for name in ("torch", "matplotlib", "SimpleITK", "nibabel") if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    bench.run_fresh(script, timeout_s=240)


def test_the_module_file_imports_only_slicer_and_the_standard_library_at_file_scope():
    import ast

    scope = ast.parse(MODULE.read_text(encoding="utf-8")).body
    plain = [alias.name for node in scope if isinstance(node, ast.Import) for alias in node.names]
    names = plain + [node.module for node in scope if isinstance(node, ast.ImportFrom)]
    known = {*sys.stdlib_module_names, "slicer", "qt", "ctk", "vtk"}

    assert {name.split(".")[0] for name in names} <= known


def test_every_section_fits_into_400_pixels(panel):
    make_task(panel)
    for name in ("planButton", "trainButton", "resultsButton", "applyButton", "sceneButton", "importButton"):
        panel[name].collapsed = False

    assert panel.overflow_px(400) == 0


# Task


def test_all_pairs_of_the_scene_become_a_task(panel, root):
    task = make_task(panel)

    assert task.folder == root / "nnUNet_raw" / "Dataset501_Phantom"
    assert [case.id for case in task.cases] == ["patient0", "patient1", "patient2"]
    assert [label.name for label in task.labels.foreground] == ["organ", "mass"]
    written = read_labels(task.case("patient1").labels).array
    found = masks(1)
    assert np.array_equal(written, np.where(found["mass"], 2, found["organ"]))
    assert panel["taskCombo"].currentText == "Dataset501_Phantom"
    assert column(panel, "casesTable", 1) == ["not checked yet"] * 3


def test_what_had_to_be_done_to_a_case_is_told_in_the_panel(panel):
    build, (_volume, segmentation) = Builder(slicer_scene()), load_case(0)
    far = build.linear(np.array([[1, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    segmentation.SetAndObserveTransformNodeID(far.GetID())
    load_case(1)
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Phantom")

    panel.click("createTaskButton")

    assert panel["statusLabel"].text == (
        "2 cases were written; Dataset501_Phantom has 2 now. The segment organ lies outside patient0. "
        "The segment mass lies outside patient0."
    )


def test_a_long_case_name_leaves_room_for_its_state(panel):
    load_case(0, "Patientin_mit_einem_langen_Namen_MRT_Becken_T2_axial_2024-03-01")
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Phantom")
    panel.click("createTaskButton")
    table = panel["casesTable"]

    assert table.columnWidth(0) < table.width / 2
    assert table.item(0, 0).toolTip().startswith("Patientin_mit_einem_langen_Namen_MRT_Becken_T2_axial_2024-03-01")


def test_a_volume_with_two_segmentations_is_pointed_out(panel):
    volume, _segmentation = load_case(0)
    Builder(slicer_scene()).segmentation(masks(1), MATRIX, "second reader", volume=volume)
    load_case(1)

    panel.click("addAllPairsButton")

    assert len(column(panel, "pairsTable", 0)) == 3
    assert panel["statusLabel"].text.startswith("More than one segmentation belongs to patient0; leave out all but one")


def test_the_volumes_of_many_pairs_are_not_compared_with_each_other(panel):
    from NNSegmentUI.pair_list import PairList

    from NNSegmentLib.scene_tasks import Pair

    class Volume(Watched):
        GetName = Watched.__str__

    waiting = types.SimpleNamespace(pairs=[Pair((Volume(f"patient{n}"),), None) for n in range(100)])

    assert comparisons(lambda: PairList.named_twice.fget(waiting)) == 0


def show_prediction(volume):
    """A segmentation as the panel makes it for the answer of a model."""
    from NNSegmentLib.geometry import Geometry
    from NNSegmentLib.labels import Label, LabelSet
    from NNSegmentLib.prediction import Prediction
    from NNSegmentLib.scene import show_prediction

    labels = LabelSet((Label("background", (0,)), Label("organ", (1,)), Label("mass", (2,))))
    found = masks(0)
    array = np.where(found["mass"], 2, found["organ"]).astype(np.uint8)
    geometry = Geometry.from_ijk_to_ras(array.shape, MATRIX)
    return show_prediction(Prediction(array, geometry, labels), volume)


def test_predictions_are_added_by_hand_and_the_user_is_told(panel):
    load_case(0)
    volumes = [Builder(slicer_scene()).volume(np.zeros((16, 24, 24)), MATRIX, f"new{number}") for number in range(2)]
    corrected, _other = map(show_prediction, volumes)
    sentence = 'Left out because they are predictions: {}; add those that you have corrected with "Add this pair".'

    panel.click("addAllPairsButton")
    assert column(panel, "pairsTable", 0) == ["patient0"]
    assert panel["statusLabel"].text == sentence.format(2)

    panel.choose("volumeSelector0", volumes[0])
    panel.choose("segmentationSelector", corrected)
    panel.click("addPairButton")
    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == ["patient0", "new0"]
    assert panel["statusLabel"].text == sentence.format(1)


def test_predictions_alone_and_nothing_at_all_are_told_apart(panel):
    volume = Builder(slicer_scene()).volume(np.zeros((16, 24, 24)), MATRIX, "new")
    panel.click("addAllPairsButton")
    assert panel["statusLabel"].text == "No segmentation in the scene has a volume that it was drawn on."

    show_prediction(volume)
    panel.click("addAllPairsButton")

    assert panel["pairsTable"].rowCount == 0
    assert panel["statusLabel"].text.startswith("Left out because they are predictions: 1; add those")


def test_predictions_do_not_hide_what_else_was_left_out(panel):
    load_case(0, "A", ("_T1",))
    build = Builder(slicer_scene())
    first, _second = (build.volume(np.zeros((16, 24, 24)), MATRIX, f"B_{channel}") for channel in ("T1", "T2"))
    show_prediction(first)
    panel.set_text("channelsEdit", "T1, T2")

    panel.click("addAllPairsButton")

    assert "for want of a volume for every channel: 1." in panel["statusLabel"].text
    assert "they are predictions: 1;" in panel["statusLabel"].text


def test_the_list_of_pairs_changes_without_a_look_at_voxels(panel, monkeypatch):
    from NNSegmentLib import scene

    def refuse(*_unused):
        raise AssertionError("The voxels were looked at.")

    for number in range(2):
        load_case(number)
    build = Builder(slicer_scene())
    build.volume(np.zeros((16, 24, 24)), MATRIX, "mapped")
    build.label_map(masks(0)["organ"], MATRIX, "mapped-label")
    panel.click("addAllPairsButton")
    assert column(panel, "pairsTable", 0) == ["patient0", "patient1", "mapped"]

    monkeypatch.setattr(scene.numpy_support, "vtk_to_numpy", refuse)
    panel.click("removePairButton0")
    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == ["patient1", "mapped", "patient0"]
    assert panel["segmentsList"].count == 3


def test_a_segment_without_a_tick_is_not_learned(panel):
    from PySide6 import QtCore

    load_case(0)
    panel.click("addAllPairsButton")
    panel["segmentsList"].item(0).setCheckState(QtCore.Qt.Unchecked)
    panel.set_text("nameEdit", "MassOnly")
    panel.click("createTaskButton")

    task = panel.widget.context.task
    assert [label.name for label in task.labels.foreground] == ["mass"]
    assert np.array_equal(read_labels(task.cases[0].labels).array, masks(0)["mass"])


def test_choosing_a_volume_chooses_its_segmentation_and_a_second_one_is_added_to_the_task(panel):
    make_task(panel, 1)
    panel.click("sceneButton")
    volume, segmentation = load_case(5)

    panel.choose("volumeSelector0", volume)
    assert panel["segmentationSelector"].currentNode() is segmentation
    panel.click("addPairButton")
    panel.click("createTaskButton")

    assert [case.id for case in panel.widget.context.task.cases] == ["patient0", "patient5"]


def test_a_channel_that_is_written_anew_keeps_its_volume(panel):
    volume, _segmentation = load_case(0)
    panel.choose("volumeSelector0", volume)

    panel.set_text("channelsEdit", "")
    for button in ("addPairButton", "addAllPairsButton"):
        with pytest.raises(BenchError, match="Name a channel first."):
            panel.click(button)
    panel.set_text("channelsEdit", "T2")

    assert panel["volumeSelector0"].currentNode() is volume


def test_cases_that_the_task_has_are_not_added_again(panel):
    make_task(panel, 2)
    panel.click("sceneButton")
    load_case(4)

    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == ["patient4"]
    assert panel["statusLabel"].text == (
        "Left out because the task has cases of these names: patient0, patient1; add another patient's, and what you "
        'have corrected, with "Add this pair".'
    )

    volume = slicer_scene().GetFirstNodeByName("patient4")
    Builder(slicer_scene()).segmentation(masks(1), MATRIX, "second reader", volume=volume)
    panel.click("addAllPairsButton")

    assert panel["statusLabel"].text.startswith("More than one segmentation belongs to patient4;")


def test_an_ampersand_in_a_channels_name_is_shown_and_marks_no_shortcut(panel):
    panel.set_text("channelsEdit", "T1&T2, FLAIR")

    label = panel["sceneForm"].labelForField(panel["volumeSelector0"])
    assert label.text == "Volume T1&&T2:"  # as Qt wants it


def add_corrected(panel, volume) -> str:
    """Add a corrected prediction to the open task by clicking; returns what was told when it came into the list."""
    corrected = show_prediction(volume)
    panel.choose("volumeSelector0", volume)
    panel.choose("segmentationSelector", corrected)
    panel.click("addPairButton")
    told = panel["statusLabel"].text
    panel.click("createTaskButton")
    return told


def test_a_corrected_segmentation_of_an_image_that_the_task_has_replaces_its_case(panel):
    """Else the same image would be learned and tested on at once."""
    make_task(panel, 3)
    panel.click("sceneButton")
    before = read_labels(panel.widget.context.task.case("patient1").labels).array

    warned = add_corrected(panel, slicer_scene().GetFirstNodeByName("patient1"))

    task = panel.widget.context.task
    assert warned == (
        "Dataset501_Phantom has patient1 already: where that is the same image, this pair will replace it; else it "
        "becomes a case of another name."
    )
    assert panel["statusLabel"].text == "1 case was replaced: patient1."
    assert [case.id for case in task.cases] == ["patient0", "patient1", "patient2"]
    found = masks(0)
    expected = np.where(found["mass"], 2, found["organ"])
    assert not np.array_equal(before, expected)
    assert np.array_equal(read_labels(task.case("patient1").labels).array, expected)


@pytest.mark.parametrize("other", ["voxels", "place"])
def test_another_image_of_the_same_name_becomes_a_case_of_its_own(panel, other):
    make_task(panel, 2)
    panel.click("sceneButton")
    first = panel.widget.context.task.case("patient1")
    before, shift = first.labels.read_bytes(), np.eye(4)
    shift[0, 3] = 30 * (other == "place")
    image = read_image(first.images).array[0].astype(np.int16) + (other == "voxels")
    volume = Builder(slicer_scene()).volume(image, shift @ MATRIX, "patient1")
    node = Builder(slicer_scene()).segmentation(masks(0), shift @ MATRIX, "other", volume=volume)
    for name, chosen in (("volumeSelector0", volume), ("segmentationSelector", node)):
        panel.choose(name, chosen)
    panel.click("addPairButton")

    panel.click("createTaskButton")

    assert panel["statusLabel"].text == "1 case was written; Dataset501_Phantom has 3 now."
    assert [case.id for case in panel.widget.context.task.cases] == ["patient0", "patient1", "patient1-2"]
    assert first.labels.read_bytes() == before


def test_two_segmentations_of_one_image_do_not_replace_each_other_unseen(panel):
    make_task(panel, 2)
    panel.click("sceneButton")
    volume = slicer_scene().GetFirstNodeByName("patient1")
    for number in range(2):
        node = Builder(slicer_scene()).segmentation(masks(number), MATRIX, f"reader {number}", volume=volume)
        panel.choose("volumeSelector0", volume)
        panel.choose("segmentationSelector", node)
        panel.click("addPairButton")

    panel.click("createTaskButton")

    assert panel["statusLabel"].text == (
        "1 case was replaced: patient1. 1 case was written; Dataset501_Phantom has 3 now."
    )
    assert [case.id for case in panel.widget.context.task.cases] == ["patient0", "patient1", "patient1-2"]


def test_channels_of_a_patient_are_found_by_their_names(panel):
    panel.set_text("channelsEdit", "T1, T2")
    load_case(0, "A", ("_T1", "_T2"))
    load_case(1, "B", ("_T1",))

    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == ["A_T1 + A_T2"]
    assert "for want of a volume for every channel: 1." in panel["statusLabel"].text


def test_volumes_of_equal_names_are_not_mixed_between_patients(panel):
    panel.set_text("channelsEdit", "T1, T2")
    for number in range(2):
        load_case(number, "Scan", (" T1", " T2"))

    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == []
    assert "for want of a volume for every channel: 2." in panel["statusLabel"].text


def test_a_volume_without_a_segmentation_is_not_paired_with_that_of_another_patient(panel):
    first, segmentation = load_case(0)
    other = Builder(slicer_scene()).volume(np.zeros((16, 24, 24)), MATRIX, "bare")
    panel.choose("volumeSelector0", first)
    assert panel["segmentationSelector"].currentNode() is segmentation

    panel.choose("volumeSelector0", other)

    assert panel["segmentationSelector"].currentNode() is None
    with pytest.raises(BenchError, match="Choose a segmentation first."):
        panel.click("addPairButton")


def test_the_other_channels_follow_the_first_volume(panel):
    panel.set_text("channelsEdit", "T1, T2")
    for number, name in enumerate(("A", "B")):
        load_case(number, name, ("_T1", "_T2"))
    node, alone = slicer_scene().GetFirstNodeByName, load_case(2, "alone")[0]
    second = panel["volumeSelector1"]

    panel.choose("volumeSelector0", node("A_T1"))
    assert second.currentNode() is node("A_T2")
    panel.choose("volumeSelector0", node("B_T1"))
    assert second.currentNode() is node("B_T2")
    panel.choose("volumeSelector0", alone)
    assert second.currentNode() is None


def test_choosing_another_channels_volume_keeps_the_chosen_segmentation(panel):
    panel.set_text("channelsEdit", "T1, T2")
    first, _segmentation = load_case(0, "A", ("_T1", "_T2"))
    reader = Builder(slicer_scene()).segmentation(masks(1), MATRIX, "second reader", volume=first)
    own = slicer_scene().GetFirstNodeByName("A segmentation")
    panel.choose("volumeSelector0", first)
    panel.choose("segmentationSelector", own)
    assert reader is not own

    panel.choose("volumeSelector1", first)

    assert panel["segmentationSelector"].currentNode() is own


def test_a_segmentation_that_is_listed_already_is_told(panel):
    volume, segmentation = load_case(0)
    other = Builder(slicer_scene()).volume(np.zeros((16, 24, 24)), MATRIX, "other")
    panel.choose("volumeSelector0", volume)
    panel.click("addPairButton")

    panel.choose("volumeSelector0", other)
    panel.choose("segmentationSelector", segmentation)
    panel.click("addPairButton")

    assert column(panel, "pairsTable", 0) == ["patient0"]
    assert panel["statusLabel"].text.startswith("patient0 segmentation is in the list already, with patient0; remove")


def test_a_segmentation_listed_with_another_volume_is_told_when_all_pairs_are_added(panel):
    _volume, segmentation = load_case(0)
    panel.choose("volumeSelector0", Builder(slicer_scene()).volume(np.zeros((16, 24, 24)), MATRIX, "other"))
    panel.choose("segmentationSelector", segmentation)
    panel.click("addPairButton")

    panel.click("addAllPairsButton")

    assert column(panel, "pairsTable", 0) == ["other"]
    assert panel["statusLabel"].text.startswith("patient0 segmentation is in the list already, with other;")


def test_channels_in_another_order_take_their_volumes_along(panel):
    panel.set_text("channelsEdit", "T1, T2")
    load_case(0, "A", ("_T1", "_T2"))
    slicer_scene().GetFirstNodeByName("A_T2").GetImageData().GetPointData().GetScalars().Fill(7)
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Swapped")

    panel.set_text("channelsEdit", "T2, T1")
    assert column(panel, "pairsTable", 0) == ["A_T2 + A_T1"]
    panel.click("createTaskButton")

    task = panel.widget.context.task
    assert [channel.name for channel in task.channels] == ["T2", "T1"]
    assert (read_image(task.cases[0].images[:1]).array == 7).all()


def test_pairs_of_other_channels_are_to_be_added_again(panel):
    panel.set_text("channelsEdit", "T1, T2")
    load_case(0, "A", ("_T1", "_T2"))
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Other")

    panel.set_text("channelsEdit", "T1, FLAIR")

    with pytest.raises(BenchError, match="Pairs were added for the channels T1, T2; name these again, or remove"):
        panel.click("createTaskButton")


def rename_segment(segmentation, before: str, after: str) -> None:
    segments = segmentation.GetSegmentation()
    segments.GetSegment(segments.GetSegmentIdBySegmentName(before)).SetName(after)


def segments_shown(panel) -> list[str]:
    """The segments of the list, those without a tick in brackets."""
    from PySide6 import QtCore

    items = [panel["segmentsList"].item(row) for row in range(panel["segmentsList"].count)]
    names = [(item.text().split("   ")[0], item.checkState() == QtCore.Qt.Checked) for item in items]
    return [name if ticked else f"({name})" for name, ticked in names]


def test_segments_that_are_drawn_or_renamed_later_show_in_the_list(panel):
    from PySide6 import QtCore

    volume, segmentation = load_case(0)
    panel.click("addAllPairsButton")
    panel["segmentsList"].item(1).setCheckState(QtCore.Qt.Unchecked)

    segmentation.GetSegmentation().AddEmptySegment("later", "vessel")
    rename_segment(segmentation, "organ", "liver")
    volume.SetName("renamed")

    panel.wait_until(lambda: panel["segmentsList"].count == 3, 10)
    assert segments_shown(panel) == ["liver", "(mass)", "vessel"]
    assert column(panel, "pairsTable", 0) == ["renamed"]


def test_segments_of_all_pairs_are_looked_through_once_however_many_changed(panel, monkeypatch):
    from NNSegmentLib import scene

    _volume, segmentation = load_case(0)
    panel.click("addAllPairsButton")
    looked, real = [], scene.segment_table
    monkeypatch.setattr(scene, "segment_table", lambda node: looked.append(node) or real(node))

    for number in range(20):
        segmentation.GetSegmentation().AddEmptySegment(f"later{number}", f"vessel {number}")
    panel.wait_until(lambda: panel["segmentsList"].count == 22, 10)

    assert looked == [segmentation]


def test_segments_that_changed_just_before_the_click_are_known_when_cases_are_written(panel):
    _volume, segmentation = load_case(0)
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Late")

    mass = segmentation.GetSegmentation().GetNthSegment(1)
    mass.SetName("Organ")
    panel.click("createTaskButton")
    refused = panel["statusLabel"].text
    mass.SetName("tumor")
    panel.wait_until(lambda: panel["createTaskButton"].enabled, 10)
    mass.SetName("lesion")
    panel.click("createTaskButton")

    assert refused.startswith("Two segments of patient0 segmentation are named Organ")
    assert [label.name for label in panel.widget.context.task.labels.foreground] == ["organ", "lesion"]


def test_nothing_is_looked_through_for_a_panel_that_is_gone(panel):
    _volume, segmentation = load_case(0)
    panel.click("addAllPairsButton")
    pairs = panel.widget.sections["task_section"].scene_cases._list
    segmentation.GetSegmentation().AddEmptySegment("later", "vessel")
    assert pairs._settling.active

    panel.widget.cleanup()

    assert not pairs._settling.active


def test_two_segments_of_one_name_are_told_with_their_segmentation_until_that_is_mended(panel):
    from PySide6 import QtCore

    load_case(0)
    _volume, segmentation = load_case(1)
    panel.click("addAllPairsButton")
    panel.set_text("nameEdit", "Twice")
    panel["segmentsList"].item(1).setCheckState(QtCore.Qt.Unchecked)

    segmentation.GetSegmentation().AddEmptySegment("again", "Organ")
    panel.wait_until(lambda: panel["segmentsHint"].visible, 10)
    assert panel["segmentsHint"].text.startswith(
        "Two segments of patient1 segmentation are named organ; rename or join"
    )
    with pytest.raises(BenchError, match="Two segments of patient1 segmentation"):
        panel.click("createTaskButton")
    rename_segment(segmentation, "Organ", "rest")

    panel.wait_until(lambda: not panel["segmentsHint"].visible, 10)
    assert segments_shown(panel) == ["organ", "(mass)", "rest"]


def test_a_segmentation_without_segments_is_no_longer_told_once_another_pair_brings_some(panel):
    build = Builder(slicer_scene())
    volume = build.volume(np.zeros((16, 24, 24)), MATRIX, "empty")
    build.segmentation({}, MATRIX, "empty segmentation", volume=volume)
    panel.click("addAllPairsButton")
    assert panel["segmentsHint"].text.startswith("A task needs at least one segment")

    load_case(1)
    panel.click("addAllPairsButton")

    assert not panel["segmentsHint"].visible
    assert not panel["statusFrame"].visible


def load_unknown_overlap(number: int) -> None:
    """A case whose organ and mass overlap, which a task without such overlaps refuses."""
    _volume, segmentation = load_case(number)
    for segment_id in list(segmentation.GetSegmentation().GetSegmentIDs()):
        segmentation.GetSegmentation().RemoveSegment(segment_id)
    organ = masks(number)["organ"]
    drawn = Builder(slicer_scene()).segmentation({"organ": organ, "mass": organ}, MATRIX, "drawn")
    segmentation.GetSegmentation().DeepCopy(drawn.GetSegmentation())
    slicer_scene().RemoveNode(drawn)


def test_cases_written_before_an_error_are_not_written_again(panel):
    make_task(panel, 1)
    panel.click("sceneButton")
    load_case(3)
    load_unknown_overlap(4)
    load_case(5)
    panel.click("addAllPairsButton")

    panel.click("createTaskButton")
    assert "patient4: mass and organ overlap" in panel["statusLabel"].text
    assert panel["statusLabel"].text.endswith(" Written before it, and in the task: 1.")
    assert column(panel, "pairsTable", 0) == ["patient4", "patient5"]
    slicer_scene().RemoveNode(slicer_scene().GetFirstNodeByName("patient4"))
    panel.click("createTaskButton")

    assert panel["statusLabel"].text == "1 case was written; Dataset501_Phantom has 3 now."
    assert [case.id for case in panel.widget.context.task.cases] == ["patient0", "patient3", "patient5"]


@pytest.mark.parametrize("is_new", [True, False], ids=["a new task", "an open task"])
def test_a_scene_that_is_closed_while_cases_are_written_spoils_none(panel, bench, is_new):
    from PySide6 import QtCore

    if not is_new:
        make_task(panel, 1)
        panel.click("sceneButton")
    for number in range(4, 7):
        load_case(number)
    panel.click("addAllPairsButton")
    if is_new:
        panel.set_text("nameEdit", "Closed")
    QtCore.QTimer.singleShot(0, lambda: slicer_scene().Clear(0))

    panel.click("createTaskButton")

    task = panel.widget.context.task
    assert "in the scene, but it has left it" in panel["statusLabel"].text
    assert task is None if is_new else [case.id for case in task.cases] == ["patient0"]


def test_clicks_wait_while_cases_are_written(panel, monkeypatch):
    import slicer
    from PySide6 import QtCore

    asked, real = [], slicer.app.processEvents
    monkeypatch.setattr(type(slicer.app), "processEvents", lambda *flags: asked.append(flags) or real())

    make_task(panel, 1)

    assert asked and all(flags[-1] == QtCore.QEventLoop.ExcludeUserInputEvents for flags in asked)


def test_a_task_whose_folder_is_deleted_is_told(panel):
    import shutil

    task = make_task(panel, 1)
    panel.click("checkButton")
    finish_jobs(panel)

    shutil.rmtree(task.folder)
    panel.widget.context.jobs_changed.emit()

    assert panel["statusLabel"].text.startswith(f"The folder {task.folder} of the open task is gone; put it back")
    with pytest.raises(BenchError, match="of the open task is gone"):
        panel.click("checkButton")


def test_the_disabled_button_tells_what_is_missing(panel):
    reasons = []
    for step in (lambda: load_case(0), lambda: panel.click("addAllPairsButton"), lambda: None):
        step()
        with pytest.raises(BenchError) as refused:
            panel.click("createTaskButton")
        reasons.append(str(refused.value).partition(": ")[2])

    assert reasons == [
        "Add a volume with its segmentation first.",
        "Give the task a name first.",
        "Give the task a name first.",
    ]


def test_pairs_leave_with_the_scene(panel, bench):
    load_case(0)
    panel.click("addAllPairsButton")
    assert panel["pairsTable"].rowCount == 1

    bench.close_scene()

    assert panel["pairsTable"].rowCount == 0


def test_a_label_map_on_another_grid_is_found_and_fixed_by_its_button(panel):
    from dataclasses import replace

    task = make_task(panel)
    path = task.cases[1].labels
    found = read_labels(path)
    geometry = replace(found.geometry, origin_mm=tuple(np.add(found.geometry.origin_mm, (0.0, 0.0, 0.3))))
    write_labels(path, found.array, geometry)

    panel.click("checkButton")
    finish_jobs(panel)
    states = dict(zip(column(panel, "casesTable", 0), column(panel, "casesTable", 1), strict=True))
    assert states["patient0"] == "ok"
    assert states["patient1"] == "label grid differs (corners 0.3 mm apart)"
    row = column(panel, "casesTable", 0).index("patient1")

    panel.click(f"fixButton{row}")
    finish_jobs(panel)

    assert set(column(panel, "casesTable", 1)) == {"ok"}
    assert np.allclose(read_labels(path).geometry.origin_mm, found.geometry.origin_mm)


def test_a_section_whose_file_is_missing_is_an_error_and_is_not_hidden(panel, monkeypatch):
    module = sys.modules[type(panel.widget).__module__]
    monkeypatch.setattr(module, "SECTIONS", (("taskButton", "lost_section", "LostSection"),))

    with pytest.raises(ModuleNotFoundError, match="lost_section"):
        panel.widget._make_sections()


def test_an_imported_folder_is_opened_as_a_task(panel, tmp_path):
    task = make_task(panel, 2)
    folder = tmp_path / "plain"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for case in task.cases:
        (folder / "images" / f"{case.id}.nii.gz").write_bytes(case.images[0].read_bytes())
        (folder / "labels" / f"{case.id}.nii.gz").write_bytes(case.labels.read_bytes())

    panel.choose("taskCombo", "New task …")
    panel["importButton"].collapsed = False
    panel.choose("importEdit", folder / "images")
    panel.choose("importLabelsEdit", folder / "labels")
    panel.set_text("importNameEdit", "Copy")
    panel.click("importFolderButton")
    finish_jobs(panel)

    assert panel.widget.context.task.name == "Dataset502_Copy"
    assert panel["taskCombo"].currentText == "Dataset502_Copy"


def test_a_name_that_begins_like_an_option_is_one(panel, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(panel.widget.context, "start_job", lambda words, title: asked.append(words))
    panel["importButton"].collapsed = False
    panel.choose("importEdit", tmp_path)
    panel.choose("importLabelsEdit", "-labels")
    panel.set_text("importNameEdit", "-Liver")
    panel.click("importFolderButton")

    arguments = build_parser().parse_args(asked[0])
    assert (arguments.name, arguments.labels) == ("-Liver", Path("-labels"))


def test_a_text_that_is_too_long_for_a_path_is_no_folder_to_import(panel):
    panel["importButton"].collapsed = False
    panel.choose("importEdit", "/" + "a" * 300)

    assert panel["importFolderButton"].toolTip == "Choose a folder of images first."


def test_a_scene_that_is_loaded_opens_its_task_again(panel, bench, tmp_path):
    import slicer

    make_task(panel, 1)
    path = tmp_path / "scene.mrml"
    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Commit()
    panel.choose("taskCombo", "New task …")
    bench.close_scene()

    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Connect()
    bench.process_events()

    assert panel.widget.context.task.name == "Dataset501_Phantom"


def test_a_panel_that_opens_after_a_scene_was_loaded_opens_its_task(bench, panel, root, tmp_path):
    import slicer

    make_task(panel, 1)
    path = tmp_path / "scene.mrml"
    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Commit()
    panel.choose("workspaceEdit", tmp_path / "another")
    panel.widget.cleanup()
    bench.close_scene()
    slicer.mrmlScene.SetURL(str(path))
    slicer.mrmlScene.Connect()

    late = bench.open_module(MODULE)
    try:
        node = late.widget.logic.getParameterNode()
        assert late.widget.context.task.name == node.task == "Dataset501_Phantom"
        assert late["workspaceEdit"].currentPath == node.workspace == str(root)
    finally:
        late.close()


def test_a_panel_that_opens_on_a_scene_of_another_computer_notes_what_it_has_open(bench, panel, root):
    node = panel.widget.logic.getParameterNode()
    panel.widget.cleanup()
    node.workspace, node.task = "/of/another/computer", "Dataset501_Phantom"

    late = bench.open_module(MODULE)
    try:
        assert (node.workspace, node.task) == (str(root), "")
    finally:
        late.close()


def type_path(panel, text: str) -> None:
    """Write a path letter by letter, without the Enter key."""
    from PySide6 import QtTest

    line = panel["workspaceEdit"].comboBox().lineEdit()
    line.selectAll()
    QtTest.QTest.keyClicks(line, text)


def opened_workspaces(panel) -> list[Path]:
    """The workspaces that the panel opens from now on."""
    opened, context = [], panel.widget.context
    context.workspace_changed.connect(lambda: opened.append(context.workspace_path))
    return opened


def test_a_workspace_that_is_typed_is_opened_once_it_rests(panel, tmp_path):
    opened = opened_workspaces(panel)

    type_path(panel, str(tmp_path / "typed"))
    before = list(opened)
    panel.wait_until(lambda: opened, 10)

    assert before == []
    assert opened == [tmp_path / "typed"]


def test_the_enter_key_opens_a_typed_workspace_at_once(panel, tmp_path):
    from PySide6 import QtCore, QtTest

    opened = opened_workspaces(panel)
    type_path(panel, str(tmp_path / "typed"))

    QtTest.QTest.keyClick(panel["workspaceEdit"].comboBox().lineEdit(), QtCore.Qt.Key_Return)

    assert opened == [tmp_path / "typed"]
    assert not panel.widget.head._typing.active


def test_workspaces_that_were_opened_are_offered_and_none_is_opened_for_that(panel, tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    opened = opened_workspaces(panel)

    for folder in (*folders, tmp_path / "new", folders[0]):
        panel.choose("workspaceEdit", folder)
    combo = panel["workspaceEdit"].comboBox()

    assert opened == [*folders, tmp_path / "new", folders[0]]
    assert [combo.itemText(row) for row in range(2)] == [str(folders[0]), str(folders[1])]
    assert combo.findText(str(tmp_path / "new")) < 0


def test_the_last_workspace_is_opened_though_the_line_shows_it_already(bench, panel, tmp_path):
    panel.choose("workspaceEdit", tmp_path)
    panel.widget.cleanup()
    panel.widget.logic.getParameterNode().workspace = ""

    again = bench.open_module(MODULE)
    try:
        assert again["workspaceEdit"].comboBox().itemText(0) == str(tmp_path)
        assert again.widget.context.workspace_path == tmp_path
    finally:
        again.close()


def test_a_job_that_another_program_starts_is_found_shown_and_stopped(panel, root):
    job = make_job(root, ("plan", "501"), "Started elsewhere", [Progressed(3, 10, "Preparing", time.time())])

    panel.wait_until(lambda: panel["workProgress"].maximum == 10, 10)
    assert panel["workCommand"].text.split()[1:] == ["-m", "NNSegmentLib", "plan", "501"]
    panel.click("workStopButton")
    assert job.folder.stop.exists()
    append_event(job.folder.events, Stopped(0, time.time()))
    finish_jobs(panel)

    assert panel["statusLabel"].text == "Stopped: Started elsewhere"


def test_work_that_is_asked_for_again_can_be_stopped_again(panel, root):
    for title in ("First", "Second"):
        job = make_job(root, ("plan", "501"), title)
        panel.widget.context.poll()
        assert panel["workProgress"].format == title
        panel.click("workStopButton")
        assert not panel["workStopButton"].enabled
        append_event(job.folder.events, Stopped(0, time.time()))
        panel.widget.context.poll()


def test_work_that_could_not_be_asked_to_stop_can_be_asked_again(panel, root):
    job = make_job(root, ("plan", "501"), "Work", [Progressed(3, 10, "Preparing", time.time())])
    panel.widget.context.poll()
    away = job.folder.folder.rename(root / "away")
    panel.click("workStopButton")
    told = panel["statusLabel"].text
    away.rename(job.folder.folder)
    panel.click("workStopButton")

    assert told.startswith(f"Expected the folder {job.folder.folder}, by which the job is asked to stop")
    assert job.folder.stop.exists()


def test_a_long_path_in_a_message_leaves_the_panels_width(panel):
    message = "Expected a folder at C:\\" + "\\".join(["a_long_name_of_a_folder"] * 20)

    panel.widget.context.say(message)

    assert panel["statusLabel"].text == panel["statusLabel"].toolTip == message
    assert panel["statusFrame"].minimumSizeHint().width() < 300


# Plan


def test_a_plan_is_made_and_shown_with_its_reasons(panel):
    task = make_task(panel)
    panel.click("planButton")
    panel.choose("presetCombo", "Small U-Net (2 GB or processor)")

    panel.click("makePlanButton")
    with pytest.raises(BenchError, match="Wait until this is done: Planning and preparing the data"):
        panel.click("makePlanButton")
    finish_jobs(panel)

    plan = panel.widget.context.plan()
    assert plan.dataset_name == task.name
    names = [configuration.name for configuration in plan.configurations]
    assert column(panel, "configurationsTable", 0)[: len(names)] == names
    panel["configurationsTable"].selectRow(names.index("2d"))
    assert plan.reasons["2d.patch_size"] in panel["reasonsLabel"].text
    assert not panel["fingerprintPicture"].pixmap.isNull()
    assert panel["workCommand"].text.split()[-3:] == [task.name, "--preset", "small"]


def test_a_task_that_grew_is_measured_again(panel, monkeypatch):
    make_task(panel, 2)
    context, asked = panel.widget.context, []
    monkeypatch.setattr(context, "start_job", lambda words, title: asked.append(words))
    context.folders.fingerprint.parent.mkdir(parents=True, exist_ok=True)
    context.folders.fingerprint.write_text("{}")
    past = time.time() - 100
    panel["planButton"].collapsed = False

    panel.click("makePlanButton")
    os.utime(context.folders.fingerprint, (past, past))
    panel.click("makePlanButton")

    assert ["--clean" in words for words in asked] == [False, True]


# Set-up


@pytest.fixture
def without_packages(monkeypatch):
    """A Python that has neither torch nor tqdm until they are installed; returns what was installed, and how."""
    from NNSegmentUI import dependencies

    installed, real = {}, dependencies.importlib.util.find_spec

    def find_spec(name, package=None):
        if name in ("torch", "tqdm"):
            return real("json") if name in installed else None
        if name in ("PyTorchUtils", "slicer.packaging"):
            return real("json") if name in sys.modules else None
        return real(name, package)

    monkeypatch.setattr(dependencies.importlib.util, "find_spec", find_spec)
    return installed


def torch_extension(monkeypatch, installed, signature: str, gives: str = "1"):
    """A stand-in of the PyTorch extension, whose method has the given parameters."""
    made = types.ModuleType("PyTorchUtils")
    code = f"""
class PyTorchUtilsLogic:
    def installTorch(self{signature}):
        installed["torch"] = dict(locals()); installed["torch"].pop("self")
        return {gives}
"""
    exec(code, {"installed": installed}, made.__dict__)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", made)


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        (", askConfirmation=False, forceComputationBackend=None", {"askConfirmation", "forceComputationBackend"}),
        (", torchVersionRequirement=None", {"torchVersionRequirement"}),
        ("", set()),
    ],
)
def test_what_is_missing_is_installed_with_one_click(panel, monkeypatch, without_packages, signature, arguments):
    import slicer

    installed = without_packages
    torch_extension(monkeypatch, installed, signature)
    monkeypatch.setattr(slicer.util, "pip_install", lambda what: installed.update(tqdm=what), raising=False)
    panel.widget.head._setup.refresh()
    panel.widget.context.results_changed.emit()
    assert "PyTorch, tqdm" in panel["setupLabel"].text
    assert "press Install" in panel["applyRunButton"].toolTip

    panel.choose("cpuOnlyBox", True)
    panel.click("installButton")
    panel.wait_until(lambda: not panel["setupFrame"].visible, 30)
    assert "press Install" not in panel["applyRunButton"].toolTip

    assert installed["tqdm"] == "tqdm>=4.66"
    assert set(installed["torch"]) == arguments
    assert installed["torch"].get("forceComputationBackend", "cpu") == "cpu"
    assert panel["statusLabel"].text == "Everything that was missing is installed."


def test_a_failed_installation_is_told_in_the_panel(panel, monkeypatch, without_packages):
    installed = without_packages
    installed["tqdm"] = "there"
    torch_extension(monkeypatch, {}, "", gives="None")
    panel.widget.head._setup.refresh()

    panel.click("installButton")
    panel.wait_until(lambda: "did not install" in panel["statusLabel"].text, 30)

    assert "Without GPU support" in panel["statusLabel"].text
    assert panel["installButton"].enabled


@pytest.fixture
def with_old_torch(monkeypatch, without_packages):
    """A Slicer with a PyTorch that another extension installed, not loaded yet; tqdm is there."""
    from NNSegmentUI import dependencies

    without_packages |= {"tqdm": "there", "torch": {"version": "2.5.1+cu128"}}
    versions = {"torchVersionRequirement": "2.10.0"}
    monkeypatch.setattr(
        dependencies.importlib.metadata, "version",
        lambda name: without_packages["torch"].get("version") or versions[next(iter(without_packages["torch"]))],
    )  # fmt: skip
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return without_packages


@pytest.mark.parametrize("agrees", [False, True])
def test_a_torch_that_cannot_be_used_is_told_and_replaced_only_by_one_who_agrees(
    panel, monkeypatch, with_old_torch, agrees
):
    import slicer

    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text) or agrees)
    torch_extension(monkeypatch, with_old_torch, ", torchVersionRequirement=None")
    panel.widget.head._setup.refresh()
    assert panel["setupLabel"].text == (
        "Slicer has PyTorch 2.5.1+cu128, but 2.6 or newer except 2.9 is needed; "
        "Install asks you before it replaces that."
    )

    panel.click("installButton")
    panel.wait_until(lambda: not panel["setupProgress"].visible, 30)

    assert len(asked) == 1
    assert "Replace it?" in asked[0]
    assert panel["setupFrame"].visible != agrees
    new = {"torchVersionRequirement": ">=2.6,!=2.9.*"}
    assert with_old_torch["torch"] == (new if agrees else {"version": "2.5.1+cu128"})


def test_a_torch_that_is_only_slow_is_told_and_can_be_replaced(panel, monkeypatch, with_old_torch):
    import slicer
    from NNSegmentUI import dependencies

    asked, slow = [], "Slicer has PyTorch 2.9.1, which computes 3D convolutions several times slower"
    with_old_torch["torch"] = {"version": "2.9.1"}
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: asked.append(text))
    torch_extension(monkeypatch, with_old_torch, ", torchVersionRequirement=None")
    panel.widget.head._setup.refresh()

    panel.click("installButton")

    assert panel["setupLabel"].text == f"{slow}; Install asks you before it replaces that."
    assert asked == [f"{slow}. Replace it? Other extensions use the new one, too."]
    assert dependencies.without_torch(panel.widget.context) == ""


def test_a_torch_that_slicer_has_loaded_is_not_replaced(panel, monkeypatch, with_old_torch):
    torch_extension(monkeypatch, with_old_torch, "")
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    panel.widget.head._setup.refresh()

    panel.click("installButton")

    assert "restart Slicer, and press Install" in panel["statusLabel"].text
    assert with_old_torch["torch"] == {"version": "2.5.1+cu128"}


def test_nobody_looks_at_an_installation_of_a_panel_that_is_gone(panel, monkeypatch, without_packages):
    import slicer

    goes_on = threading.Event()
    torch_extension(monkeypatch, without_packages, "")
    monkeypatch.setattr(slicer.util, "pip_install", lambda what: goes_on.wait(30), raising=False)
    setup = panel.widget.head._setup
    setup.refresh()
    panel.click("installButton")
    assert setup._timer.active

    panel.widget.cleanup()
    goes_on.set()

    assert not setup._timer.active
    while setup._installation.is_running():
        pass


@pytest.mark.parametrize(("comes", "told"), [(True, "restart Slicer"), (False, "Extensions Manager")])
def test_the_torch_extension_is_fetched_when_it_is_missing(panel, monkeypatch, without_packages, comes, told):
    from NNSegmentUI import dependencies

    without_packages["tqdm"] = "there"
    asked = []
    manager = types.SimpleNamespace(
        interactive=True, installExtensionFromServer=lambda *words: asked.append((words, manager.interactive)) or comes
    )
    application = types.SimpleNamespace(extensionsManagerModel=lambda: manager)
    monkeypatch.setattr(dependencies, "slicer", types.SimpleNamespace(app=application))
    panel.widget.head._setup.refresh()
    assert "PyTorch extension" in panel["setupLabel"].text

    panel.click("installButton")

    assert asked == [(("PyTorch", False), False)]
    assert manager.interactive
    assert told in panel["statusLabel"].text


def test_what_is_still_to_do_is_told_after_the_other_packages_came(panel, monkeypatch, without_packages):
    import slicer
    from NNSegmentUI import dependencies

    monkeypatch.setattr(slicer.util, "pip_install", lambda what: without_packages.update(tqdm=what), raising=False)
    monkeypatch.setattr(dependencies, "install_torch_extension", lambda: True)
    panel.widget.head._setup.refresh()

    panel.click("installButton")
    panel.wait_until(lambda: "tqdm" in without_packages and not panel["setupProgress"].visible, 30)

    assert "restart Slicer" in panel["statusLabel"].text


def test_an_installation_that_leaves_something_out_is_told(panel, monkeypatch, without_packages):
    import slicer

    torch_extension(monkeypatch, without_packages, "")
    monkeypatch.setattr(slicer.util, "pip_install", lambda what: None, raising=False)
    panel.widget.head._setup.refresh()

    panel.click("installButton")
    panel.wait_until(lambda: "Still missing: tqdm;" in panel["statusLabel"].text, 30)


# Console


def test_the_self_test_of_developer_mode_passes(panel):
    import slicer

    slicer.selfTests["NNSegment"]()


def test_the_self_test_passes_where_a_process_still_holds_its_log(panel, monkeypatch, tmp_path):
    import slicer

    unlink = os.unlink

    def refuse_the_log(path, **options):
        if str(path).endswith("log.txt"):
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        unlink(path, **options)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "unlink", refuse_the_log)

    slicer.selfTests["NNSegment"]()

    assert list(tmp_path.rglob("log.txt"))


@pytest.mark.parametrize(("length", "seconds"), [(900, 900), (0.5, 0.5), ("15m", 900)])
def test_the_console_takes_a_number_as_time_for_seconds(panel, root, monkeypatch, length, seconds):
    import slicer

    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)
    monkeypatch.setattr("NNSegmentLib.jobs.start", lambda words, *_, **__: build_parser().parse_args(words))

    asked = logic.train("Phantom", "2d", fold=0, time=length, device="cpu")

    assert (asked.time, asked.fold, asked.device) == (seconds, "0", "cpu")


@pytest.mark.slow
def test_the_console_makes_a_task_trains_and_predicts_into_a_segmentation(panel, root):
    import slicer

    for number in range(4):
        load_case(number)
    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)

    task = logic.create_task("Phantom", segments=["mass", "organ"])
    logic.wait(logic.plan(task, preset="small"))
    logic.wait(logic.train(task, "2d", fold=0, time="10s", device="cpu"))
    volume, reference = load_case(9, "new")
    slicer.mrmlScene.RemoveNode(reference)
    segmentation = logic.predict(volume, task=task, device="cpu")

    segments = segmentation.GetSegmentation()
    assert [segments.GetNthSegment(n).GetName() for n in range(2)] == ["mass", "organ"]
    assert segmentation.GetNodeReference("referenceImageGeometryRef") is volume
    assert json.loads((load_task(task.folder).folder / "dataset.json").read_text())["labels"]["mass"] == 1


def test_the_console_adds_cases_and_begins_again(panel, root, monkeypatch):
    import slicer

    load_case(0)
    logic, asked = slicer.util.getModuleLogic("NNSegment"), []
    logic.set_workspace(root)
    task = logic.create_task("Phantom")

    grown = logic.add_cases(task, [load_case(1), load_case(2)])
    monkeypatch.setattr(logic.console, "_start", asked.append)
    logic.plan(grown, anew=True)

    assert [case.id for case in load_task(task.folder).cases] == ["patient0", "patient1", "patient2"]
    assert asked[0][-1] == "--anew"


def test_the_console_takes_a_single_channel_or_segment_as_one(panel, root):
    import slicer

    load_case(0)
    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)

    task = logic.create_task("Phantom", channels="CT", segments="mass")

    assert [channel.name for channel in task.channels] == ["CT"]
    assert [label.name for label in task.labels.foreground] == ["mass"]


def test_the_console_refuses_a_task_of_another_workspace(panel, root, tmp_path, monkeypatch):
    import slicer

    from NNSegmentLib.errors import TaskError

    load_case(0)
    logic, asked = slicer.util.getModuleLogic("NNSegment"), []
    monkeypatch.setattr(logic.console, "_start", asked.append)
    logic.set_workspace(root)
    task = logic.create_task("Phantom")
    logic.plan(task.folder)

    logic.set_workspace(tmp_path / "another")
    logic.create_task("Phantom")
    with pytest.raises(
        TaskError, match=f"Dataset501_Phantom lies in {task.folder.parent}, but the workspace is .*another"
    ):
        logic.plan(task)
    with pytest.raises(TaskError, match="Expected a task, its number or its name, found None"):
        logic.check(None)

    assert [words[3] for words in asked] == [str(task.folder)]


def test_the_console_tells_what_it_was_given_instead_of_nodes(panel, root):
    import slicer

    from NNSegmentLib.errors import ImageError

    volume, segmentation = load_case(0)
    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)
    task = logic.create_task("Phantom")

    for volumes, sentence in (("patient0", "found 'patient0'"), (None, "found nothing"), ((), "found none")):
        with pytest.raises(ImageError, match=f"Expected a volume.*{sentence}"):
            logic.predict(volumes, task=task)
    with pytest.raises(ImageError, match="Expected a segmentation, found the volume patient0"):
        logic.predict(volume, task=task, segmentation=volume)
    with pytest.raises(ImageError, match="write a single pair as"):
        logic.add_cases(task, (volume, segmentation))

    assert not list(root.glob("predictions/*"))


def test_the_console_tells_why_a_job_failed(panel, root):
    import slicer

    from NNSegmentLib.errors import NNSegmentError, RunError

    load_case(0)
    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)
    task = logic.create_task("Phantom")
    (task.folder / "dataset.json").write_text("{}")

    with pytest.raises(RunError, match=r"dataset\.json"):
        logic.wait(logic.check(task))
    for which in ({}, {"task": task, "model": root}):
        with pytest.raises(NNSegmentError, match="task or a model"):
            logic.predict(slicer.util.getNode("patient0"), **which)

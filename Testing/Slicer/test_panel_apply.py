"""Answers of a model find the volume that they were made for and no other, once, and writing volumes holds nobody up."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from finished_runs import GRID, NAME, make_job, make_task, train
from mrml_nodes import Builder

from NNSegmentLib.application import Application, AppliedCase, new_application_folder
from NNSegmentLib.errors import ImageError
from NNSegmentLib.geometry import Geometry
from NNSegmentLib.image import read_geometry, write_labels
from NNSegmentLib.labels import Label, LabelSet
from NNSegmentLib.model.card import ModelCard
from NNSegmentLib.records import write_json
from NNSegmentLib.run import Finished, append_event

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"
CARD = ModelCard(("MRI",), LabelSet((Label("background", (0,)), Label("organ", (1,), (200, 10, 10)))), ".nii.gz")
SHIFT = np.array([[1.0, 0, 0, 25], [0, 1, 0, -4], [0, 0, 1, 3], [0, 0, 0, 1]])


@pytest.fixture
def parts(bench):
    """`scene_application`, which the panel and the console have in common."""
    from bench.modules import load_scripted_module

    load_scripted_module(MODULE)
    from NNSegmentUI import scene_application

    return scene_application


def load_volume(seed: int = 1, name: str = "CT", grid: Geometry = GRID, transform=None):
    """A volume as a series of a common protocol gives it: the patients differ in the voxels."""
    import slicer

    voxels = np.random.default_rng(seed).normal(100, 30, grid.shape).astype(np.int16)
    return Builder(slicer.mrmlScene).volume(voxels, grid.ijk_to_ras, name, transform)


def make_transform(matrix: np.ndarray = SHIFT):
    import slicer

    return Builder(slicer.mrmlScene).linear(matrix)


def ask(parts, root: Path, volumes, **options):
    """Write volumes as a caller does, and let a model answer at once; returns the folder."""
    folder = new_application_folder(root)
    parts.write_volumes(folder, [[volume] for volume in volumes], CARD, **options)
    answer(folder.images, folder.labels)
    return folder


def answer(images: Path, labels: Path) -> None:
    """Label maps of the images' file type, as a model writes them: every voxel is the organ."""
    for path in sorted(images.iterdir()):
        grid = read_geometry(path)
        write_labels(labels / path.name.replace("_0000", ""), np.ones(grid.shape, np.uint8), grid)


def segmentations() -> list:
    import slicer

    return list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))


def names_in(node) -> list[str]:
    segmentation = node.GetSegmentation()
    return [segmentation.GetSegment(i).GetName() for i in segmentation.GetSegmentIDs()]


# The volume


def another_patient():
    return load_volume(seed=2)


def another_grid():
    return load_volume(grid=Geometry(GRID.shape, (2.5, 1.0, 1.0), GRID.origin_mm))


def under_a_transform():
    return load_volume(transform=make_transform())


@pytest.mark.parametrize("load_next", [another_patient, another_grid, under_a_transform])
def test_an_answer_is_not_put_on_the_volume_that_has_the_id_and_the_name_in_the_next_scene(
    bench, parts, tmp_path, load_next
):
    asked = load_volume()
    asked_id, folder = asked.GetID(), ask(parts, tmp_path, [asked])
    bench.close_scene()
    other = load_next()
    assert (other.GetID(), other.GetName()) == (asked_id, "CT")

    shown = parts.show_results(folder)

    assert (shown.nodes, shown.lost, shown.others) == ((), (), ("CT",))
    assert segmentations() == []


def test_the_volume_is_found_when_its_file_is_loaded_into_another_scene(bench, parts, tmp_path):
    """Under another id, among volumes of the same name."""
    folder = ask(parts, tmp_path, [load_volume()])
    bench.close_scene()
    another_patient(), load_volume(seed=3)
    again = load_volume()

    (node,) = parts.show_results(folder).nodes

    assert node.GetNodeReference("referenceImageGeometryRef") is again


def test_segments_and_probabilities_are_put_into_the_study_of_the_volume(parts, tmp_path):
    import slicer

    from NNSegmentLib.probability_files import write_probabilities

    volume = load_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    folder = ask(parts, tmp_path, [volume], probabilities=True)
    write_probabilities(folder.labels / "CT.npz", np.full((2, *GRID.shape), 0.5, np.float32), GRID, GRID)

    (node,) = parts.show_results(folder).nodes

    made = [node, *(slicer.util.getNode(f"CT probability of {name}") for name in ("background", "organ"))]
    assert [hierarchy.GetItemParent(hierarchy.GetItemByDataNode(each)) for each in made] == [study] * 3


@pytest.mark.parametrize("saved", ["before", "while"])
def test_volume_and_segmentation_are_found_when_the_scene_is_saved_and_loaded(bench, parts, tmp_path, saved):
    """Whether it was saved before Apply was clicked, or while the model was at work."""
    import slicer

    transform, scene = make_transform(), tmp_path / "scene.mrb"
    volume = load_volume(transform=transform)
    mine = Builder(slicer.mrmlScene).segmentation({"mine": None}, GRID.ijk_to_ras, "Mine", transform, volume)
    if saved == "before":
        slicer.util.saveScene(str(scene))
    folder = ask(parts, tmp_path, [volume], segmentation=mine)
    if saved == "while":
        slicer.util.saveScene(str(scene))
    bench.close_scene()
    shutil.unpack_archive(scene, tmp_path / "unpacked", "zip")  # as Slicer does before it reads it
    slicer.util.loadScene(str(next((tmp_path / "unpacked").rglob("*.mrml"))))

    (node,) = parts.show_results(folder).nodes

    assert (node.GetName(), len(segmentations())) == ("Mine", 1)
    assert names_in(node) == ["mine", "organ"]
    (again,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(1), again).all()


def test_a_record_of_an_earlier_version_finds_its_volume_by_id_and_name(parts, tmp_path):
    volume, folder = load_volume(), new_application_folder(tmp_path)
    labels = CARD.label_set.labels
    folder.save(Application((AppliedCase("CT", (volume.GetID(),), "CT"),), labels, file_ending=".nii.gz"))
    write_labels(folder.labels / "CT.nii.gz", np.ones(GRID.shape, np.uint8), GRID)

    assert len(parts.show_results(folder).nodes) == 1


# The segmentation


def test_a_segmentation_that_has_the_id_in_the_next_scene_takes_no_answer(bench, parts, tmp_path):
    import slicer

    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    mine_id, folder = mine.GetID(), ask(parts, tmp_path, [load_volume()], segmentation=mine)
    bench.close_scene()
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Of another patient")
    assert other.GetID() == mine_id
    load_volume()

    (node,) = parts.show_results(folder).nodes

    assert node is not other
    assert names_in(other) == []


@pytest.mark.parametrize("drawn_on", ["nothing", "another volume"])
def test_a_segmentation_takes_the_answer_whatever_it_was_drawn_on(parts, tmp_path, drawn_on):
    import slicer

    volume, other = load_volume(), load_volume(seed=2, name="MR")
    reference = other if drawn_on == "another volume" else None
    drawn = np.ones(GRID.shape, bool)
    mine = Builder(slicer.mrmlScene).segmentation({"mine": drawn}, GRID.ijk_to_ras, "Mine", volume=reference)

    shown = parts.show_results(ask(parts, tmp_path, [volume], segmentation=mine))

    assert shown.nodes == (mine,)
    assert names_in(mine) == ["mine", "organ"]


# Writing


def test_while_volumes_are_written_the_cursor_waits_and_each_one_is_told(parts, tmp_path):
    import qt

    told = []

    def say(text):
        told.append((text, qt.QApplication.overrideCursor().shape()))

    ask(parts, tmp_path, [load_volume(1, "first"), load_volume(2, "second")], say=say)

    assert told == [
        (f"Writing volume {n} of 2 for the model: {name}", qt.Qt.WaitCursor)
        for n, name in ((1, "first"), (2, "second"))
    ]
    assert qt.QApplication.overrideCursor() is None


def test_the_cursor_comes_back_when_a_volume_cannot_be_written(parts, tmp_path):
    import qt
    import slicer

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(ImageError, match="holds no voxels"):
        parts.write_volumes(new_application_folder(tmp_path), [[empty]], CARD)

    assert qt.QApplication.overrideCursor() is None


def test_copies_are_written_plain_whatever_files_the_model_has_learned_from(parts, tmp_path):
    folder = new_application_folder(tmp_path)
    card = ModelCard(CARD.channels, CARD.label_set, ".nrrd")
    parts.write_volumes(folder, [[load_volume()]], card)

    (file,) = folder.images.iterdir()
    assert file.name == "CT_0000.nii"
    assert file.stat().st_size > 2 * np.prod(GRID.shape)  # int16, not compressed


# Panel and console


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    train(make_task(tmp_path), "3d_fullres", 0)
    return tmp_path


@pytest.fixture
def panel(bench, root):
    panel = bench.open_module(MODULE)
    panel.choose("workspaceEdit", root)
    panel.choose("taskCombo", NAME)
    panel["taskButton"].collapsed, panel["applyButton"].collapsed = True, False
    yield panel
    panel.close()


class Computing:
    """Stands for the child process, which the panel finds while it runs; it ends with `finish`."""

    def __init__(self, context, root: Path) -> None:
        self.context, self.root, self.job = context, root, None

    def start(self, words, *_where, title: str = "Segmenting", **_how):
        self.job = make_job(self.root, tuple(map(str, words)), title)
        self.context.poll()
        assert self.context.running_verb("predict").id == self.job.id
        return self.job

    def finish(self) -> None:
        words = self.job.request.arguments
        answer(*(Path(words[words.index(option) + 1]) for option in ("-i", "-o")))
        write_json(self.job.folder.result, [])
        append_event(self.job.folder.events, Finished(time.time()))


@pytest.fixture
def computing(panel, root, monkeypatch):
    from NNSegmentLib import jobs

    stand_in = Computing(panel.widget.context, root)
    monkeypatch.setattr(jobs, "start", stand_in.start)
    return stand_in


def test_the_panel_tells_where_the_answer_is_that_it_put_on_no_other_volume(panel, computing, bench, root):
    panel.choose("applyVolume0", load_volume())
    panel.click("applyRunButton")
    bench.close_scene()
    another_patient()
    computing.finish()
    panel.widget.context.poll()

    (folder,) = (root / "predictions").iterdir()
    assert segmentations() == []
    assert panel["applyStatusLabel"].text == (
        f"Not the volume that was segmented, or changed or moved since: CT; the label maps are in {folder / 'labels'}."
    )
    assert [path.name for path in (folder / "labels").iterdir()] == ["CT.nii.gz"]


def test_what_the_console_predicts_is_in_the_scene_once(panel, computing, root, monkeypatch):
    """The panel's timer finds the job, too."""
    import slicer

    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)
    monkeypatch.setattr(logic.console, "wait", lambda job, timeout_s: computing.finish())

    node = logic.predict(load_volume(), task=NAME)
    panel.widget.context.poll()

    assert segmentations() == [node]
    (folder,) = (root / "predictions").iterdir()
    assert sorted(path.name for path in folder.rglob("*.*")) == ["CT.nii.gz", "application.json"]
    assert panel["applyRunButton"].text == "Apply"


def test_the_console_tells_that_the_volume_is_gone(panel, computing, bench, root, monkeypatch):
    import slicer

    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)

    def wait(job, timeout_s):
        computing.finish()
        bench.close_scene()
        another_patient()

    monkeypatch.setattr(logic.console, "wait", wait)

    with pytest.raises(ImageError, match="The volume CT left the scene, or was changed or moved, while"):
        logic.predict(load_volume(), task=NAME)
    panel.widget.context.poll()

    assert segmentations() == []


def test_a_volume_without_voxels_leaves_nothing_behind_in_the_console(panel, root):
    import slicer

    logic = slicer.util.getModuleLogic("NNSegment")
    logic.set_workspace(root)
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")

    with pytest.raises(ImageError, match="empty holds no voxels"):
        logic.predict(empty, task=NAME)

    assert list((root / "predictions").iterdir()) == []


def test_the_panel_names_the_volume_that_it_writes(panel, computing, monkeypatch):
    from NNSegmentUI import apply_section

    load_volume(1, "first"), load_volume(2, "second")
    panel.choose("applyInputBox", "All loaded volumes")
    shown, real = [], apply_section.write_volumes

    def watched(*given, say, **named):
        def heard(text):
            say(text)
            shown.append((panel["applyStatusLabel"].text, panel["applyStatusLabel"].visible))

        return real(*given, say=heard, **named)

    monkeypatch.setattr(apply_section, "write_volumes", watched)
    panel.click("applyRunButton")

    assert shown == [
        (f"Writing volume {n} of 2 for the model: {name}", True) for n, name in ((1, "first"), (2, "second"))
    ]
    assert panel["applyStatusLabel"].text == ""
    computing.finish()
    panel.widget.context.poll()
    assert len(segmentations()) == 2


def test_a_prediction_that_is_refused_leaves_no_copies(panel, computing, root, monkeypatch):
    panel.choose("applyVolume0", load_volume())
    monkeypatch.setattr(panel.widget.context, "start_job", lambda words, title: None)

    panel.click("applyRunButton")

    assert list((root / "predictions").iterdir()) == []


def test_a_refused_prediction_of_a_folder_takes_no_former_answers_away(panel, parts, root, monkeypatch):
    former = ask(parts, root, [load_volume()])
    panel.choose("applyInputBox", "A folder of images")
    panel.choose("applyInputFolder", former.images)
    panel.choose("applyOutputFolder", former.labels)
    monkeypatch.setattr(panel.widget.context, "start_job", lambda words, title: None)

    panel.click("applyRunButton")

    assert len(list(former.labels.iterdir())) == 1


# Undo


def segment(panel, computing, volume=None, into=None):
    """Apply clicked and answered; returns the segmentation."""
    panel.choose("applyVolume0", volume or load_volume())
    panel.choose("applyOutputSelector", into)
    panel.click("applyRunButton")
    computing.finish()
    panel.widget.context.poll()
    return into or segmentations()[-1]


def draw(node, name: str, volume, mask: np.ndarray) -> None:
    """What the Segment Editor does to a segment, which is new where there is none of this name."""
    import slicer

    ids = node.GetSegmentation()
    segment_id = ids.GetSegmentIdBySegmentName(name) or ids.AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, volume)


def box(size: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, bool)
    mask[:size, :size, :size] = True
    return mask


def voxels(node, name: str, volume) -> int:
    import slicer

    segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(name)
    return int((slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume) > 0).sum())


def test_undo_asks_once_before_it_takes_corrections_away(panel, computing):
    volume = load_volume()
    node = segment(panel, computing, volume)
    draw(node, "left", volume, box(5))

    panel.click("applyUndoButton")
    asked, kept = panel["statusLabel"].text, voxels(node, "left", volume)
    panel.click("applyUndoButton")

    assert asked == "Changed by hand since the prediction: left. Press Undo once more to take that away, too."
    assert kept == 5**3
    assert segmentations() == []
    assert not panel["statusFrame"].visible


def test_undo_asks_again_when_more_was_corrected_since_it_asked(panel, computing):
    volume = load_volume()
    node = segment(panel, computing, volume)
    draw(node, "left", volume, box(5))
    panel.click("applyUndoButton")
    draw(node, "left", volume, box(6))

    panel.click("applyUndoButton")

    assert panel["statusLabel"].text.startswith("Changed by hand since the prediction: left. Press Undo once more")
    assert voxels(node, "left", volume) == 6**3


def put_in(node, volume) -> None:
    """What the Segment Editor or the console do meanwhile: another prediction in the same segmentation."""
    from NNSegmentLib.prediction import Prediction
    from NNSegmentLib.scene import show_prediction

    show_prediction(Prediction(np.ones(GRID.shape, np.uint8), GRID, CARD.label_set), volume, node)


def test_undo_leaves_what_another_prediction_brought_since(panel, computing):
    from NNSegmentLib.scene import undo_prediction

    volume = load_volume()
    node = segment(panel, computing, volume)
    put_in(node, volume)

    panel.click("applyUndoButton")
    told, left, can_undo = panel["applyStatusLabel"].text, names_in(node), panel["applyUndoButton"].enabled
    undo_prediction(node)
    panel.click("applyUndoButton")

    assert told == "Another prediction was put into CT prediction since; undo that one first."
    assert left == ["left", "right", "organ"]
    assert can_undo
    assert segmentations() == []


def test_undo_takes_no_former_prediction_for_one_that_was_taken_back_elsewhere(panel, computing):
    import slicer

    from NNSegmentLib.scene import undo_prediction

    volume = load_volume()
    mine = Builder(slicer.mrmlScene).segmentation({"mine": box(3)}, GRID.ijk_to_ras, "Mine", volume=volume)
    put_in(mine, volume)
    segment(panel, computing, volume, into=mine)
    undo_prediction(mine)

    panel.click("applyUndoButton")

    assert names_in(mine) == ["mine", "organ"]
    assert not panel["applyUndoButton"].enabled


def test_an_answer_that_goes_into_a_folder_leaves_the_one_in_the_scene_to_be_undone(panel, computing, root, tmp_path):
    segment(panel, computing)
    images = tmp_path / "images"
    images.mkdir()
    write_labels(images / "a_0000.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    panel.choose("applyInputBox", "A folder of images")
    panel.choose("applyInputFolder", images)
    panel.choose("applyOutputFolder", tmp_path / "out")
    panel.click("applyRunButton")
    computing.finish()
    panel.widget.context.poll()
    told = panel["applyStatusLabel"].text

    panel.choose("applyInputBox", "One volume")
    panel.click("applyUndoButton")

    assert told == f"The label maps are in {tmp_path / 'out'}."
    assert segmentations() == []


def test_undo_takes_only_the_answer_that_came_late(panel, computing, root, tmp_path):
    first = segment(panel, computing, load_volume(1, "first"))
    panel.choose("applyVolume0", load_volume(2, "second"))
    panel.click("applyRunButton")
    panel.choose("workspaceEdit", tmp_path / "another")
    computing.finish()
    panel.choose("workspaceEdit", root)
    there = [node.GetName() for node in segmentations()]

    panel.click("applyUndoButton")

    assert there == ["first prediction", "second prediction"]
    assert segmentations() == [first]


def test_what_was_drawn_besides_the_prediction_stays_in_its_segmentation(panel, computing):
    volume = load_volume()
    node = segment(panel, computing, volume)
    draw(node, "lesion", volume, box(3))

    panel.click("applyUndoButton")

    assert names_in(node) == ["lesion"]
    assert voxels(node, "lesion", volume) == 3**3
    assert panel["applyStatusLabel"].text == (
        "Still in the scene, with what was no part of the prediction: CT prediction."
    )


@pytest.mark.parametrize("leaves", ["the segmentation", "the scene"])
def test_a_prediction_that_left_the_scene_can_be_neither_undone_nor_shown(panel, computing, bench, leaves):
    """The next segmentation may have the same id."""
    import slicer

    node_id = segment(panel, computing).GetID()
    if leaves == "the scene":
        bench.close_scene()
    else:
        slicer.mrmlScene.RemoveNode(segmentations()[0])
    mine = Builder(slicer.mrmlScene).segmentation({"mine": box(3)}, GRID.ijk_to_ras, "Mine")

    assert mine.GetID() == node_id or leaves == "the segmentation"
    assert panel["applyStatusLabel"].text == ""
    assert not panel["applyUndoButton"].enabled
    assert not panel["applyShow3DButton"].enabled


# Whose answer it is


def test_a_volume_that_was_renamed_meanwhile_gets_its_answer(panel, computing):
    volume = load_volume()
    panel.choose("applyVolume0", volume)
    panel.click("applyRunButton")
    volume.SetName("Another name")
    computing.finish()
    panel.widget.context.poll()

    assert [node.GetName() for node in segmentations()] == ["Another name prediction"]


def test_the_segmentation_of_one_patient_does_not_stay_chosen_for_the_next(panel):
    import slicer

    build, (one, next_one) = Builder(slicer.mrmlScene), (load_volume(n, f"patient {n}") for n in (1, 2))
    drawn_on_one = build.segmentation({"mine": box(3)}, GRID.ijk_to_ras, "Of patient 1", volume=one)
    drawn_on_nothing = build.segmentation({"mine": box(3)}, GRID.ijk_to_ras, "Of nobody")
    chosen = []
    for output in (drawn_on_one, drawn_on_nothing):
        panel.choose("applyVolume0", one)
        panel.choose("applyOutputSelector", output)
        panel.choose("applyVolume0", next_one)
        chosen.append(panel["applyOutputSelector"].currentNode())
    panel.choose("applyOutputSelector", drawn_on_one)

    assert chosen == [None, drawn_on_nothing]
    assert panel["applyOutputSelector"].currentNode() is drawn_on_one


@pytest.fixture
def two_channels(panel, monkeypatch):
    """The panel with a model of T1 and T2."""
    from NNSegmentUI import apply_section

    card = ModelCard(("T1", "T2"), CARD.label_set, ".nii.gz")
    monkeypatch.setattr(apply_section, "read_card", lambda choice: (card, ""))
    panel.widget.context.results_changed.emit()
    return panel


def test_an_ampersand_in_a_channels_name_is_shown_and_marks_no_shortcut(panel, monkeypatch):
    from NNSegmentUI import apply_section

    card = ModelCard(("T1&T2",), CARD.label_set, ".nii.gz")
    monkeypatch.setattr(apply_section, "read_card", lambda choice: (card, ""))
    panel.widget.context.results_changed.emit()

    label, selector = panel.widget.sections["apply_section"]._selectors[0]
    assert label.buddy() is selector
    assert label.text == "T1&&T2:"  # as Qt wants it


def test_the_other_channels_of_one_patient_do_not_stay_chosen_for_the_next(two_channels):
    panel = two_channels
    names = ("P1_T1", "P1_T2", "P2_T1", "P2_T2", "alone")
    volumes = {name: load_volume(seed, name) for seed, name in enumerate(names)}
    second, chosen = panel["applyVolume1"], []
    for name in ("P1_T1", "P2_T1", "alone"):
        panel.choose("applyVolume0", volumes[name])
        chosen.append(second.currentNode())

    panel.choose("applyVolume1", volumes["P1_T2"])
    load_volume(9, "one more")

    assert chosen == [volumes["P1_T2"], volumes["P2_T2"], None]
    assert second.currentNode() is volumes["P1_T2"]  # what was chosen by hand stays


def test_a_segmentation_that_was_chosen_on_purpose_stays_when_volumes_come_and_go(panel):
    import slicer

    one, two = load_volume(1, "one"), load_volume(2, "two")
    drawn = Builder(slicer.mrmlScene).segmentation({"mine": box(3)}, GRID.ijk_to_ras, "Of one", volume=one)
    panel.choose("applyVolume0", two)
    panel.choose("applyOutputSelector", drawn)

    slicer.mrmlScene.RemoveNode(load_volume(3, "three"))
    one.SetName("renamed")
    panel["applyVolume0"].currentNodeChanged.emit(two)

    assert panel["applyOutputSelector"].currentNode() is drawn


def test_a_damaged_answer_hides_no_other(panel, computing, root):
    load_volume(1, "first"), load_volume(2, "second"), load_volume(3, "third")
    panel.choose("applyInputBox", "All loaded volumes")
    panel.click("applyRunButton")
    computing.finish()
    (damaged,) = (root / "predictions").rglob("labels/first.*")
    damaged.write_bytes(damaged.read_bytes()[:80])
    panel.widget.context.poll()

    assert panel["applyStatusLabel"].text == "In the scene: second prediction, third prediction."
    assert panel["statusLabel"].text.startswith(str(damaged))


# Other workspaces, other times


def test_an_answer_is_shown_though_another_workspace_was_opened_meanwhile(panel, computing, root, tmp_path):
    panel.choose("applyVolume0", load_volume())
    panel.click("applyRunButton")
    panel.choose("workspaceEdit", tmp_path / "another")
    others = panel.widget.context.running_jobs()
    computing.finish()
    panel.widget.context.poll()

    assert others == []
    assert [node.GetName() for node in segmentations()] == ["CT prediction"]
    assert panel["applyRunButton"].text == "Apply"
    assert list((root / "predictions").rglob("images")) == []


def test_an_answer_that_came_just_before_its_workspace_is_opened_again_is_shown_once(panel, computing, root, tmp_path):
    panel.choose("applyVolume0", load_volume())
    panel.click("applyRunButton")
    panel.choose("workspaceEdit", tmp_path / "another")
    computing.finish()
    panel.choose("workspaceEdit", root)
    panel.widget.context.poll()

    assert len(segmentations()) == 1
    assert panel["applyJobLabel"].text == "Segmenting with 3d_fullres: done"
    assert panel["applyRunButton"].text == "Apply"


def test_a_click_on_cancel_starts_nothing_where_the_prediction_has_just_ended(panel, computing, root):
    panel.choose("applyVolume0", load_volume())
    panel.click("applyRunButton")
    computing.finish()

    panel.click("applyRunButton")

    assert len(list((root / "predictions").iterdir())) == 1
    assert panel["applyRunButton"].text == "Apply"


@pytest.mark.parametrize("volume_is_there", [True, False])
def test_a_prediction_that_ended_while_the_panel_was_closed_is_taken_by_the_next_one(
    bench, panel, computing, root, volume_is_there
):
    panel.choose("applyVolume0", load_volume())
    panel.click("applyRunButton")
    panel.widget.cleanup()
    computing.finish()
    if not volume_is_there:
        bench.close_scene()

    late = bench.open_module(MODULE)
    (folder,) = (root / "predictions").iterdir()
    told = late["statusLabel"].text
    late.choose("workspaceEdit", root / "another")
    late.choose("workspaceEdit", root)
    late.close()

    where = (
        "In the scene: CT prediction." if volume_is_there else "No longer in the scene: CT; their label maps are in "
    )
    assert told.startswith(f"A prediction has ended meanwhile. {where}")
    assert volume_is_there or str(folder / "labels") in told
    assert len(segmentations()) == volume_is_there
    assert [path.name for path in folder.iterdir()] == ["application.json", "labels"]


def test_copies_of_volumes_go_when_nobody_is_left_who_asked_for_the_answer(bench, panel, parts, root):
    """Slicer ended before a model did that was applied from the console or in the Segment Editor."""
    folder = ask(parts, root, [load_volume()], shown_by="effect")
    words = ("predict", "-i", str(folder.images), "-o", str(folder.labels), "-m", "model")
    make_job(root, words, "Segmenting", [Finished(time.time())])

    panel.choose("workspaceEdit", root / "another")
    panel.choose("workspaceEdit", root)

    assert panel["statusLabel"].text == (f"A prediction has ended meanwhile. The label maps are in {folder.labels}.")
    assert not folder.images.exists()
    assert segmentations() == []

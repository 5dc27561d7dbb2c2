"""Train, Results and Apply on the panel, clicked, with runs and validations that lie on disk."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from bench.harness import BenchError
from finished_runs import GRID, NAME, begin, epoch, make_job, make_task, train
from mrml_nodes import Builder

from NNSegmentLib import pipeline
from NNSegmentLib.folds import load_folds
from NNSegmentLib.image import read_geometry, read_image, read_labels, write_image, write_labels
from NNSegmentLib.run import Failed, Finished, Message, Progressed, append_event

MODULE = Path(__file__).resolve().parents[2] / "NNSegment" / "NNSegment.py"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make_task(tmp_path)
    return tmp_path


@pytest.fixture
def folders(root):
    return pipeline.folders_of(NAME, root)


@pytest.fixture
def panel(bench, root):
    panel = bench.open_module(MODULE)
    yield panel
    panel.close()


def open_task(panel, root, section: str):
    """Choose workspace and task as a person does, and open one section."""
    panel.choose("workspaceEdit", root)
    panel.choose("taskCombo", NAME)
    for name in ("taskButton", "planButton", "trainButton", "resultsButton", "applyButton"):
        panel[name].collapsed = name != section
    return panel


def grid(panel) -> list[list[str]]:
    table = panel["runsTable"]
    return [[table.item(r, c).text() for c in range(table.columnCount)] for r in range(table.rowCount)]


def grid_row(panel, configuration: str) -> int:
    table = panel["runsTable"]
    return next(r for r in range(table.rowCount) if table.verticalHeaderItem(r).text() == configuration)


def table_texts(table) -> list[list[str]]:
    return [[table.item(r, c).text() for c in range(table.columnCount)] for r in range(table.rowCount)]


def started(panel, monkeypatch) -> list[tuple[str, ...]]:
    """The words of the jobs that the panel asks for, which are not started."""
    asked = []
    monkeypatch.setattr(panel.widget.context, "start_job", lambda words, title: asked.append(tuple(words)))
    return asked


# Train


def test_the_grid_shows_the_state_of_every_run(panel, root, folders):
    train(folders, "3d_fullres", 0)
    begin(folders, "3d_fullres", 1, epochs=4)

    open_task(panel, root, "trainButton")

    row = grid(panel)[[c.name for c in pipeline.plan_of(folders).configurations].index("3d_fullres")]
    assert row[0].startswith("0.")
    assert row[1] == "‖40%"
    assert row[2:] == ["–"] * (len(row) - 2)


def test_a_run_that_another_process_holds_counts_as_running(panel, root, folders):
    from NNSegmentLib.machine.locks import only_one_in

    run = begin(folders, "3d_fullres", 0, epochs=2)
    with only_one_in(run.folder):
        open_task(panel, root, "trainButton")

        assert any("▶20%" in row for row in grid(panel))
        with pytest.raises(BenchError, match="is disabled: This run is being trained; stop it first."):
            panel.click("trainStartButton")


@pytest.mark.parametrize(
    ("length", "text", "expected"),
    [
        ("Quick look (5 minutes)", "", ("--time", "5m")),
        ("An hour", "", ("--time", "1h")),
        ("Full nnU-Net schedule (1000 epochs)", "", ("--epochs", "1000")),
        ("Other …", "200 epochs", ("--epochs", "200")),
        ("Other …", "1h30m", ("--time", "1h30m")),
    ],
)
def test_a_length_becomes_an_option_of_the_command(panel, root, monkeypatch, length, text, expected):
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    panel.choose("trainLengthBox", length)
    if text:
        panel.set_text("trainLengthEdit", text)

    panel.click("trainStartButton")

    assert asked == [("train", NAME, "3d_fullres", "0", "-p", "nnUNetPlans", *expected)]
    assert panel["trainCommandEdit"].text.endswith(f"{NAME} 3d_fullres 0 -p nnUNetPlans {' '.join(expected)}")


def test_all_folds_share_the_time(panel, root, monkeypatch):
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    panel.choose("trainLengthBox", "An hour")
    panel.choose("trainFoldBox", "All folds, one after the other")

    panel.click("trainStartButton")

    assert asked[0][3:] == ("folds", "-p", "nnUNetPlans", "--time", "15m")  # four cases make four folds


def test_a_length_that_is_none_is_refused_on_the_button(panel, root):
    open_task(panel, root, "trainButton")
    panel.choose("trainLengthBox", "Other …")
    panel.set_text("trainLengthEdit", "soon")

    with pytest.raises(BenchError, match="A length is written like 30m, 2h or 200 epochs, found 'soon'"):
        panel.click("trainStartButton")


def test_a_stopped_run_is_resumed_with_the_schedule_it_has(panel, root, folders, monkeypatch):
    begin(folders, "3d_fullres", 1, epochs=4)
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    with pytest.raises(BenchError, match="nothing to go on from"):
        panel.click("trainResumeButton")

    panel.choose("trainFoldBox", "Fold 1")
    panel.choose("trainDeviceBox", "Processor (slow)")
    panel.click("trainResumeButton")

    assert asked == [("train", NAME, "3d_fullres", "1", "-p", "nnUNetPlans", "--resume", "--device", "cpu")]


def test_settings_and_weights_to_start_from_are_passed_on(panel, root, monkeypatch):
    (root / "settings.json").write_text("{}")
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    panel["trainAdvancedBox"].collapsed = False
    panel.choose("trainSettingsPath", root / "settings.json")
    panel.choose("trainProbabilitiesBox", True)

    panel.click("trainStartButton")

    assert asked[0][-3:] == ("--settings", str(root / "settings.json"), "--save-probabilities")


@pytest.mark.parametrize("written", ["a model", "a model/fold_0/checkpoint_final.pth"])
def test_the_training_starts_from_a_model_or_a_checkpoint_as_the_command_line_shows(panel, root, monkeypatch, written):
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    panel["trainAdvancedBox"].collapsed = False
    accepted = []
    panel["trainPretrainedPath"].connect("currentPathChanged(QString)", accepted.append)

    panel.choose("trainPretrainedPath", root / written)
    shown = panel["trainCommandEdit"].text
    panel.click("trainStartButton")

    assert accepted == [str(root / written)]
    assert asked[0][-2:] == ("--pretrained", str(root / written))
    assert shown == panel.widget.context.command_line(asked[0])


def test_the_command_line_shows_settings_of_another_ending_that_the_training_would_take(panel, root, monkeypatch):
    open_task(panel, root, "trainButton")
    asked = started(panel, monkeypatch)
    panel["trainAdvancedBox"].collapsed = False

    for name in ("settings", "settings.txt"):
        panel.choose("trainSettingsPath", root / name)
    shown = panel["trainCommandEdit"].text
    panel.click("trainStartButton")

    assert asked[0][-2:] == ("--settings", str(root / "settings.txt"))
    assert shown == panel.widget.context.command_line(asked[0])


def test_emptied_settings_leave_the_command_line(panel, root):
    (root / "settings.json").write_text("{}")
    open_task(panel, root, "trainButton")
    panel["trainAdvancedBox"].collapsed = False
    panel.choose("trainSettingsPath", root / "settings.json")
    assert "--settings" in panel["trainCommandEdit"].text

    panel.choose("trainSettingsPath", "")

    assert "--settings" not in panel["trainCommandEdit"].text


def test_the_command_line_names_the_python_that_is_chosen(panel, root):
    open_task(panel, root, "trainButton")
    assert panel["trainCommandEdit"].text.split()[1:4] == ["-m", "NNSegmentLib", "train"]
    choice = panel.widget.head._setup._choice

    choice._use(Path("/other/python"))
    shown = panel["trainCommandEdit"].text
    choice._use(None)

    assert shown.startswith("/other/python -m NNSegmentLib train ")
    assert not panel["trainCommandEdit"].text.startswith("/other")


def test_a_click_on_the_grid_chooses_the_run_and_shows_its_epoch(panel, root, folders):
    begin(folders, "3d_fullres", 2, epochs=4)
    open_task(panel, root, "trainButton")
    row = [c.name for c in pipeline.plan_of(folders).configurations].index("3d_fullres")

    panel["runsTable"].cellClicked.emit(row, 2)

    assert panel["trainFoldBox"].currentText == "Fold 2"
    assert panel["trainEpochLabel"].text == "3d_fullres, fold 2: Epoch 4 / 10 · Dice 0.400 · left 0.40, right 0.20"


@pytest.mark.parametrize(
    ("section", "button", "told"),
    [
        ("trainButton", "trainStartButton", "Make a plan first."),
        ("planButton", "diagramButton", "The plan is no longer there; make it again."),
    ],
)
def test_a_plan_that_was_deleted_behind_the_panel_is_told(panel, root, folders, section, button, told):
    open_task(panel, root, section)
    shutil.rmtree(folders.preprocessed)

    panel.click(button)

    assert panel["statusLabel"].text == told
    assert not panel[button].isVisible() or not panel[button].enabled


def test_a_training_of_another_task_is_told_with_its_name(panel, root, monkeypatch):
    open_task(panel, root, "trainButton")
    titles = []
    monkeypatch.setattr(panel.widget.context, "start_job", lambda words, title: titles.append(title))
    panel.click("trainStartButton")
    make_job(root, ("train", NAME, "3d_fullres", "0"), titles[0], [epoch(1)])
    panel.choose("taskCombo", "New task …")
    panel.widget.context.poll()

    assert titles == [f"Training 3d_fullres, fold 0 of {NAME}"]
    assert panel["trainJobLabel"].text.startswith(titles[0])
    assert panel["trainStopButton"].toolTip.startswith(f"Stops “{titles[0]}” after the current step")


def test_the_panel_says_on_what_a_training_runs(panel, root):
    open_task(panel, root, "trainButton")
    said = Message("Training on the processor (2 cores) for 1000 epochs.", time.time())
    make_job(root, ("train", NAME, "3d_fullres", "0"), events=[said, epoch(1)])

    panel.wait_until(lambda: panel["statusLabel"].text == said.text, 10, "the sentence of the training")


def test_the_curves_grow_with_the_run_in_a_plot_of_slicer(panel, root, folders):
    import slicer

    run = begin(folders, "3d_fullres", 0, epochs=4)
    open_task(panel, root, "trainButton")
    panel.click("trainCurvesButton")
    job = make_job(root, ("train", NAME, "3d_fullres", "0"), events=[epoch(4)])
    append_event(run.events, epoch(5))
    panel.widget.context.job_events.emit(job, [epoch(5)])

    chart = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")[0]
    table = slicer.util.getNodesByClass("vtkMRMLTableNode")[0].GetTable()
    assert chart.GetTitle() == "3d_fullres, fold 0"
    assert chart.GetNumberOfPlotSeriesNodes() == 3
    assert [table.GetValueByName(n, "Dice").ToDouble() for n in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert slicer.util.getNodesByClass("vtkMRMLLayoutNode")[0].GetViewArrangement() in (
        slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView, slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalPlotView
    )  # fmt: skip


def test_the_curves_come_back_after_the_scene_was_closed(panel, root, folders, bench):
    import slicer

    begin(folders, "3d_fullres", 0, epochs=4)
    open_task(panel, root, "trainButton")
    panel.click("trainCurvesButton")
    bench.close_scene()

    panel.click("trainCurvesButton")
    panel.click("trainCurvesButton")

    assert slicer.util.getNodesByClass("vtkMRMLTableNode")[0].GetNumberOfRows() == 4


@pytest.mark.parametrize("gone", ["the picture", "the plan"])
def test_a_picture_of_the_network_that_is_gone_is_told_instead_of_opened(panel, root, folders, monkeypatch, gone):
    from NNSegmentUI import plan_section
    from PySide6 import QtGui

    opened = []
    monkeypatch.setattr(plan_section, "open_file", opened.append)
    open_task(panel, root, "planButton")
    section = panel.widget.sections["plan_section"]
    picture = section._diagram_path()
    picture.parent.mkdir()
    QtGui.QPixmap(30, 20).save(str(picture))
    section.refresh()
    panel.click("openDiagramButton")

    (picture if gone == "the picture" else folders.plan("nnUNetPlans")).unlink()
    panel.click("openDiagramButton")

    assert opened == [picture]
    assert panel["statusLabel"].text == "The picture is no longer there; draw the network again."
    assert not panel["openDiagramButton"].visible


# The view of a job


def test_a_job_shows_its_progress_and_the_time_left(panel, root):
    open_task(panel, root, "trainButton")
    now = time.time()
    events = [Progressed(0, 10, "Predicting", now - 20), Progressed(4, 10, "Predicting", now)]

    panel.widget.sections["train_section"]._job_view.show(
        make_job(root, ("train", NAME, "2d", "0"), "Training", events)
    )

    assert panel["trainJobLabel"].text == "Training: Predicting: 4 / 10"
    assert panel["trainProgressBar"].value == 400
    assert panel["trainTimeLeftLabel"].text == "30 s left"


def test_a_job_that_gives_no_sign_of_life_is_told(panel, root):
    open_task(panel, root, "trainButton")
    job = make_job(root, ("train", NAME, "2d", "0"), "Training", [epoch(1)])
    job.folder.heartbeat.touch()
    os.utime(job.folder.heartbeat, (time.time() - 300, time.time() - 300))

    panel.widget.sections["train_section"]._job_view.show(job)

    assert panel["trainJobLabel"].text.endswith(" – no sign of life for 5 min")


def test_stop_asks_first_and_can_insist(panel, root):
    open_task(panel, root, "trainButton")
    job = make_job(root, ("train", NAME, "2d", "0"), "Training", [epoch(1)])
    panel.widget.sections["train_section"]._job_view.show(job)

    panel.click("trainStopButton")

    assert job.folder.stop.exists()
    assert panel["trainStopButton"].text == "Stop now"
    assert "stopping" in panel["trainJobLabel"].text


def test_a_failed_job_says_why(panel, root):
    open_task(panel, root, "trainButton")
    job = make_job(root, ("train", NAME, "2d", "0"), "Training", [Failed("No memory left.", time.time())])

    panel.widget.sections["train_section"]._job_view.show(job)

    assert panel["trainJobLabel"].text == "Training: No memory left."
    assert not panel["trainStopButton"].visible


def test_the_log_of_a_job_that_is_not_there_is_told_instead_of_opened(panel, root, monkeypatch):
    opened = []
    monkeypatch.setattr("NNSegmentUI.job_view.open_file", opened.append)
    open_task(panel, root, "trainButton")
    job = make_job(root, ("train", NAME, "2d", "0"), "Training", [epoch(1)])
    panel.widget.sections["train_section"]._job_view.show(job)

    panel.click("trainLogButton")

    assert panel["statusLabel"].text == f"{job.folder.log} is not there; somebody deleted the job's folder."
    assert opened == []


def test_a_file_in_the_place_of_a_folder_ends_no_panel(panel, root, folders):
    job = make_job(root, ("train", NAME, "2d", "0"), "Training", [epoch(1)])
    open_task(panel, root, "trainButton")
    model = folders.model("nnUNetPlans", "2d").folder
    model.parent.mkdir(parents=True)
    for folder in (job.folder.folder, model):
        shutil.rmtree(folder, ignore_errors=True)
        folder.write_text("no folder")

    panel.widget.context.poll()
    panel.choose("trainConfigurationBox", "2d")

    assert (job.events(), job.log(), grid(panel)[grid_row(panel, "2d")][0]) == ([], "", "–")


# Results


def test_work_on_the_results_stays_in_sight_while_no_task_is_open(panel, root):
    make_job(root, ("report", NAME), "Writing the report", [Progressed(1, 4, "Drawing", time.time())])
    open_task(panel, root, "resultsButton")
    panel.choose("taskCombo", "New task …")

    shown = []
    for _again in range(3):
        panel.widget.context.results_changed.emit()
        shown.append(panel["resultsStopButton"].visible)

    assert shown == [True] * 3


def test_the_comparison_is_shown_with_the_best_one_in_bold(panel, root, folders):
    for configuration, shift in (("2d", 3), ("3d_fullres", 1)):
        for fold in range(4):
            train(folders, configuration, fold, shift)
    selection = pipeline.best(NAME, root)

    open_task(panel, root, "resultsButton")

    rows = table_texts(panel["candidatesTable"])
    assert [row[0] for row in rows] == [candidate.title for candidate in selection.candidates]
    best = rows.index(next(row for row in rows if row[0] == selection.best.title))
    assert [panel["candidatesTable"].item(n, 0).font().bold() for n in range(len(rows))].index(True) == best
    assert rows[best][1] == f"{selection.best.dice:.3f}"
    assert panel["bestLabel"].text.startswith(f"Best: {selection.best.title}.")


def test_cases_are_sorted_by_dice_the_worst_first(panel, root, folders):
    train(folders, "3d_fullres", 0)
    for fold in range(1, 4):
        train(folders, "3d_fullres", fold, shift=fold)
    pipeline.best(NAME, root)

    open_task(panel, root, "resultsButton")
    panel.choose("scoresBox", "3d_fullres, all its folds")

    dice = [float(row[1]) for row in table_texts(panel["scoresTable"])]
    assert len(dice) == 4
    assert dice == sorted(dice)


def test_a_table_of_many_labels_scrolls_and_keeps_room_for_the_case(panel, root):
    from NNSegmentUI.widgets import fill_table

    table, labels = panel["scoresTable"], [f"right adrenal gland {n}" for n in range(8)]
    open_task(panel, root, "resultsButton")
    table.setVisible(True)
    fill_table(table, ("Case", "Dice", *labels), [("case_0001", "0.9", *["0.5"] * 8)])
    panel.wait_until(lambda: table.horizontalScrollBar().maximum > 0, 5, "a bar to scroll with")

    assert table.columnWidth(0) >= table.fontMetrics().horizontalAdvance("case_0001")
    assert table.horizontalHeaderItem(9).text() == "right adren…"
    assert table.horizontalHeaderItem(9).toolTip() == "right adrenal gland 7"


def test_a_click_on_a_case_shows_image_reference_and_prediction(panel, root, folders):
    import slicer

    train(folders, "3d_fullres", 0)
    open_task(panel, root, "resultsButton")
    case_id = table_texts(panel["scoresTable"])[0][0]

    panel.choose("scoresTable", 0)
    panel.choose("scoresTable", 0)

    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    nodes = {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")}
    assert [volume.GetName() for volume in volumes] == [case_id]  # the second click loads nothing again
    assert set(nodes) == {f"{case_id} reference", f"{case_id} prediction"}
    reference = slicer.util.arrayFromSegmentBinaryLabelmap(nodes[f"{case_id} reference"], first_id(nodes), volumes[0])
    assert np.array_equal(reference > 0, labels_of(folders, case_id) == 1)
    assert not nodes[f"{case_id} reference"].GetDisplayNode().GetVisibility2DFill()
    background = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID()
    assert background == volumes[0].GetID()


def test_the_picture_for_the_tutorial_shows_the_worst_case(panel, root, folders, monkeypatch):
    from bench.screenshots import Photographer

    for fold in range(3):
        train(folders, "3d_fullres", fold, shift=fold)
    pipeline.best(NAME, root)
    open_task(panel, root, "resultsButton")
    started(panel, monkeypatch)
    photographer = object.__new__(Photographer)
    photographer.panel = panel
    for step in ("unfold", "finish", "picture"):
        monkeypatch.setattr(photographer, step, lambda name: None)

    photographer.results()

    rows = table_texts(panel["scoresTable"])
    assert panel["scoresTable"].currentRow() == 0
    assert panel["statusLabel"].text.startswith(f"{rows[0][0]}: ")
    assert float(rows[0][1]) < float(rows[-1][1])


def test_a_case_without_a_dice_is_shown_with_a_dash(panel, root, folders):
    from dataclasses import replace

    from NNSegmentLib.scores import load_scores, save_scores

    run = train(folders, "3d_fullres", 0)
    scores = load_scores(run.summary)
    empty = tuple(replace(m, dice=math.nan) for m in scores.cases[0].metrics)
    save_scores(replace(scores, cases=(replace(scores.cases[0], metrics=empty), *scores.cases[1:])), run.summary)
    open_task(panel, root, "resultsButton")

    panel.choose("scoresTable", 0)

    assert panel["statusLabel"].text.endswith(f"Dice {table_texts(panel['scoresTable'])[0][1]}.")
    assert "nan" not in panel["statusLabel"].text


def test_a_report_whose_result_is_damaged_is_told_and_can_be_written_again(panel, root):
    open_task(panel, root, "resultsButton")
    job = make_job(root, ("report", NAME), "Writing the report")
    panel.widget.context.poll()
    waits = not panel["reportButton"].enabled
    job.folder.result.write_text('{"repo')
    append_event(job.folder.events, Finished(time.time()))

    panel.widget.context.poll()

    assert waits
    assert panel["statusLabel"].text.startswith(f"{job.folder.result} is not valid JSON")
    assert panel["reportButton"].enabled


def test_buttons_wait_no_longer_for_a_job_whose_end_goes_wrong_elsewhere(panel, root):
    open_task(panel, root, "resultsButton")
    job = make_job(root, ("report", NAME), "Writing the report")
    panel.widget.context.poll()
    append_event(job.folder.events, Failed("No space left.", time.time()))

    def fail(*_unused):
        raise ZeroDivisionError

    panel.widget.context.job_ended.connect(fail)
    with pytest.raises(ZeroDivisionError):
        panel.widget.context.poll()

    assert panel["reportButton"].enabled


def test_the_slices_go_through_the_first_segment_of_a_case_that_is_shown(panel, root, folders):
    """Not through the middle of the image, where a small segment does not lie."""
    import slicer

    train(folders, "3d_fullres", 0)
    open_task(panel, root, "resultsButton")
    panel.choose("scoresTable", 0)

    left = np.argwhere(labels_of(folders, table_texts(panel["scoresTable"])[0][0]) == 1)
    centre = GRID.world(left.mean(axis=0))[0]
    for name in ("Red", "Green", "Yellow"):
        matrix = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
        normal, origin = ([matrix.GetElement(row, column) for row in range(3)] for column in (2, 3))
        assert abs(np.dot(normal, centre - origin)) < max(GRID.spacing_mm), name


def first_id(nodes) -> str:
    return next(iter(nodes.values())).GetSegmentation().GetSegmentIdBySegmentName("left")


def labels_of(folders, case_id):
    return read_image(folders.raw / "labelsTr" / f"{case_id}.nii.gz").array[0]


def test_without_a_validation_find_best_says_what_is_missing(panel, root):
    open_task(panel, root, "resultsButton")

    with pytest.raises(BenchError, match="Train at least one fold first"):
        panel.click("bestButton")


# Apply


def load_volume(name: str = "patient", transform=None):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros(GRID.shape, np.int16), name=name)
    volume.SetSpacing(1.0, 1.0, 2.0)
    volume.SetOrigin(5.0, -3.0, 10.0)
    return volume


def matrix_of(volume):
    """The 4×4 index → RAS matrix of a volume node."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


class Predicting:
    """Stands for the child process: writes box labels for every image it is given, then the job is over."""

    def __init__(self, context, root: Path) -> None:
        self.context, self.root, self.words = context, root, ()

    def __call__(self, words, title):
        self.words = tuple(words)
        images, labels = (Path(words[words.index(option) + 1]) for option in ("-i", "-o"))
        for path in sorted(images.glob("*_0000.nii*")):
            grid = read_geometry(path)
            write_labels(labels / path.name.replace("_0000", ""), np.ones(grid.shape, np.uint8), grid)
        job = make_job(self.root, self.words, title, [Finished(time.time())])
        self.context._follow(job)
        return job


@pytest.fixture
def predicting(panel, root, folders, monkeypatch):
    (train(folders, "3d_fullres", 0).folder / "checkpoint_final.pth").touch()
    open_task(panel, root, "applyButton")
    stand_in = Predicting(panel.widget.context, root)
    monkeypatch.setattr(panel.widget.context, "start_job", stand_in)
    return stand_in


def test_apply_says_what_it_misses(panel, predicting):
    panel.choose("applyModelBox", "3d_fullres")
    with pytest.raises(BenchError, match="Choose a volume for MRI."):
        panel.click("applyRunButton")

    panel.choose("applyModelBox", "Folder or zip …")
    with pytest.raises(BenchError, match="Choose a model folder or zip."):
        panel.click("applyRunButton")


def test_texts_that_are_too_long_for_a_path_are_told_on_the_button(panel, predicting):
    panel.choose("applyInputBox", "A folder of images")
    panel.choose("applyInputFolder", "/" + "a" * 300)
    with pytest.raises(BenchError, match="Choose a folder of images."):
        panel.click("applyRunButton")

    panel.choose("applyModelBox", "Folder or zip …")
    panel.choose("applyModelPath", "/" + "a" * 300)
    with pytest.raises(BenchError, match="cannot be read"):
        panel.click("applyRunButton")


def test_a_model_is_looked_for_once_its_path_rests(panel, predicting, folders, monkeypatch):
    from NNSegmentUI import apply_section
    from PySide6 import QtTest

    looked, read = [], apply_section.read_card
    monkeypatch.setattr(apply_section, "read_card", lambda choice: looked.append(choice.place) or read(choice))
    panel.choose("applyModelBox", "Folder or zip …")
    looked.clear()

    QtTest.QTest.keyClicks(panel["applyModelPath"].comboBox().lineEdit(), str(folders.results))
    with pytest.raises(BenchError, match="is looked for once the path rests"):
        panel.click("applyRunButton")
    panel.wait_until(lambda: panel["applyModelLabel"].text == "MRI → left, right", 10, "the card of the model")

    assert looked == [folders.results]


def test_apply_refuses_a_segmentation_of_surfaces_before_anything_is_computed(panel, predicting, root):
    import slicer

    surfaces = Builder(slicer.mrmlScene).surface("Bones", (6, 6, 6), 4)
    panel.choose("applyVolume0", load_volume())
    panel.choose("applyOutputSelector", surfaces)

    panel.click("applyRunButton")

    assert panel["statusLabel"].text.startswith("The segmentation Bones keeps its segments as Closed surface")
    assert predicting.words == ()
    assert list(root.glob("predictions/*")) == []


def test_undo_takes_a_new_segmentation_away_and_brings_replaced_segments_back(panel, predicting):
    import slicer

    volume = load_volume()
    drawn = np.zeros(GRID.shape, bool)
    drawn[2:5, 4:9, 4:9] = True
    mine = Builder(slicer.mrmlScene).segmentation({"left": drawn}, matrix_of(volume), "Mine", volume=volume)
    panel.choose("applyVolume0", volume)
    for place in (None, mine):
        panel.choose("applyOutputSelector", place)
        panel.click("applyRunButton")
        panel.widget.context.poll()
        panel.click("applyUndoButton")

    assert [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")] == ["Mine"]
    ids = mine.GetSegmentation().GetSegmentIDs()
    assert len(ids) == 1
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(mine, ids[0], volume) > 0, drawn)
    with pytest.raises(BenchError, match="Nothing is predicted yet."):
        panel.click("applyUndoButton")


def test_apply_makes_a_segmentation_with_the_models_names_and_colours(panel, predicting):
    import slicer

    volume = load_volume()
    panel.choose("applyVolume0", volume)
    panel.click("applyRunButton")
    panel.widget.context.poll()

    node = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    segmentation = node.GetSegmentation()
    assert [segmentation.GetSegment(i).GetName() for i in segmentation.GetSegmentIDs()] == ["left", "right"]
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetSegmentIDs()[0], volume)
    assert mask.all() and mask.shape == GRID.shape
    assert panel["applyStatusLabel"].text == f"In the scene: {node.GetName()}."
    assert panel["applyShow3DButton"].enabled
    assert not list(Path(predicting.root, "predictions").rglob("*_0000.nii*"))  # the copies are gone


def test_options_reach_the_command(panel, predicting):
    panel.choose("applyVolume0", load_volume())
    panel["applyAdvancedBox"].collapsed = False
    panel.set_text("applyFoldsEdit", "0")
    panel.choose("applyMirroringBox", False)
    panel.choose("applyDeviceBox", "Processor (slow)")

    panel.click("applyRunButton")

    assert predicting.words[-5:] == ("-f", "0", "--no-mirroring", "--device", "cpu")


@pytest.mark.parametrize("text", ["-f", "0 first"])
def test_what_is_no_fold_is_told_on_the_button(panel, predicting, text):
    panel.choose("applyVolume0", load_volume())
    panel["applyAdvancedBox"].collapsed = False
    panel.set_text("applyFoldsEdit", text)

    with pytest.raises(BenchError, match="A fold is a number from 0, or 'all', found "):
        panel.click("applyRunButton")


@pytest.mark.parametrize("has_amx", [True, False])
def test_half_precision_is_offered_where_the_processor_has_a_unit_for_it(bench, root, tmp_path, monkeypatch, has_amx):
    from NNSegmentLib.machine import processor

    train(pipeline.folders_of(NAME, root), "3d_fullres", 0)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.CPUINFO.write_text("flags : fpu amx_bf16\n" if has_amx else "flags : fpu\n")
    panel = open_task(bench.open_module(MODULE), root, "applyButton")
    panel.choose("applyVolume0", load_volume())
    panel["applyAdvancedBox"].collapsed = False

    if has_amx:
        panel.click("applyHalfBox")
    else:
        with pytest.raises(
            BenchError, match="It would take longer here: it needs Linux and a processor with Intel's AMX"
        ):
            panel.click("applyHalfBox")
    shown = panel["applyCommandEdit"].text
    panel.close()

    assert shown.endswith(" --half") == has_amx


def test_a_region_restricts_the_prediction_to_its_box(panel, predicting):
    import slicer

    volume = load_volume()
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetCenter(5 + 10, -3 + 8, 10 + 10)
    roi.SetSize(8.1, 4.1, 8.1)  # voxels 6…14 along x, 6…10 along y, 3…7 along z
    panel.choose("applyVolume0", volume)
    panel.choose("applyRoiSelector", roi)
    panel.click("applyRunButton")
    panel.widget.context.poll()

    node = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetSegmentIDs()[0], volume)
    expected = np.zeros(GRID.shape, bool)
    expected[3:8, 6:11, 6:15] = True
    assert np.array_equal(mask > 0, expected)


def test_all_loaded_volumes_are_segmented_in_one_go(panel, predicting):
    import slicer

    load_volume("first"), load_volume("second")
    panel.choose("applyInputBox", "All loaded volumes")
    panel.click("applyRunButton")
    panel.widget.context.poll()

    names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")}
    assert names == {"first prediction", "second prediction"}


def test_a_volume_that_left_the_scene_meanwhile_is_named(panel, predicting):
    import slicer

    volume = load_volume("gone")
    panel.choose("applyVolume0", volume)
    panel.click("applyRunButton")
    slicer.mrmlScene.RemoveNode(volume)
    panel.widget.context.poll()

    assert panel["applyStatusLabel"].text.startswith("No longer in the scene: gone; their label maps are in ")


def test_a_folder_is_predicted_where_it_is(panel, predicting, tmp_path):
    os.makedirs(tmp_path / "in")
    panel.choose("applyInputBox", "A folder of images")
    with pytest.raises(BenchError, match="Choose a folder of images."):
        panel.click("applyRunButton")
    panel.choose("applyInputFolder", tmp_path / "in")
    panel.choose("applyOutputFolder", tmp_path / "out")

    panel.click("applyRunButton")
    panel.widget.context.poll()

    assert predicting.words[1:5] == ("-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"))
    assert panel["applyStatusLabel"].text == f"The label maps are in {tmp_path / 'out'}."


def test_the_three_sections_fit_a_narrow_panel(panel, root, folders):
    train(folders, "3d_fullres", 0)
    open_task(panel, root, "trainButton")
    for name in ("resultsButton", "applyButton"):
        panel[name].collapsed = False

    assert panel.overflow_px(400) == 0


def test_a_task_with_runs_is_shown_without_torch(bench, root, folders):
    train(folders, "3d_fullres", 0)
    script = f"""
import sys
from bench import harness
harness.start()
panel = harness.open_module({str(MODULE)!r})
panel.choose("workspaceEdit", {str(root)!r})
panel.choose("taskCombo", {NAME!r})
for name in ("planButton", "trainButton", "resultsButton", "applyButton"):
    panel.click(name)
sys.exit("torch was loaded" if "torch" in sys.modules else 0)
"""
    bench.run_fresh(script, timeout_s=240)


# Beginning again


def add_case(folders, n: int) -> None:
    """One case more in the task's folder, as the panel's section Task writes it."""
    labels = read_labels(folders.raw / "labelsTr" / "case0.nii.gz")
    write_image(folders.raw / "imagesTr" / f"case{n}_0000.nii.gz", labels.array.astype(np.int16), labels.geometry)
    write_labels(folders.raw / "labelsTr" / f"case{n}.nii.gz", labels.array, labels.geometry)


def test_cases_that_came_after_the_training_are_told_and_taken(panel, root, folders):
    train(folders, "3d_fullres", 0)
    add_case(folders, 4)
    open_task(panel, root, "trainButton")
    assert "in none of its folds: case4. To train on them, plan again" in panel["trainNewCasesLabel"].text

    open_task(panel, root, "planButton")
    assert panel["newCasesLabel"].text == "New since the training, and in none of its folds: case4."
    assert panel["anewBox"].checked
    panel.click("makePlanButton")
    panel.wait_until(lambda: not panel["workFrame"].visible, 240, "the end of the job")

    assert any("case4" in fold.validation for fold in load_folds(folders.splits))
    assert folders.models() == ()
    assert not panel["anewBox"].visible
    assert not panel["newCasesLabel"].visible


@pytest.mark.parametrize("trained_by", ["NNSegment", "nnU-Net"])
def test_cases_that_were_corrected_since_the_training_are_told(panel, root, folders, monkeypatch, trained_by):
    run = train(folders, "3d_fullres", 0)
    if trained_by == "NNSegment":
        run.settings.write_text("{}")
        run.checkpoint_latest.touch()
        os.utime(run.checkpoint_latest, (time.time() + 3600,) * 2)  # it trains on, with the label maps from before
    for case, minutes in (("case0", -5), ("case2", 5)):
        os.utime(folders.raw / "labelsTr" / f"{case}.nii.gz", (time.time() + 60 * minutes,) * 2)
    open_task(panel, root, "trainButton")
    assert panel["trainNewCasesLabel"].text == (
        "Corrected or replaced since the training: case2. To train on them, plan again with “Begin again with "
        "all cases, new and corrected ones” ticked under Plan."
    )

    open_task(panel, root, "planButton")
    asked = started(panel, monkeypatch)
    panel.click("makePlanButton")
    panel.click("anewBox")
    os.utime(folders.raw / "labelsTr" / "case1.nii.gz", (time.time() + 300,) * 2)
    panel.widget.context.results_changed.emit()
    panel.click("makePlanButton")

    assert panel["newCasesLabel"].text == "Corrected or replaced since the training: case1, case2."
    assert ["--anew" in words for words in asked] == [False, True]


def test_corrections_are_told_until_every_trained_fold_has_learnt_them(panel, root, folders):
    first = train(folders, "3d_fullres", 0)
    os.utime(folders.raw / "labelsTr" / "case2.nii.gz", (time.time() + 60,) * 2)
    add_case(folders, 4)
    open_task(panel, root, "trainButton")
    told, texts = panel["trainNewCasesLabel"], []

    for run in (train(folders, "3d_fullres", 1), first):
        os.utime(run.checkpoint_final, (time.time() + 120,) * 2)
        os.utime(run.checkpoint_latest, (time.time() + 120,) * 2)
        panel.widget.context.results_changed.emit()
        texts.append(told.text)

    assert "none of its folds: case4. Corrected or replaced since the training: case2. To train on" in texts[0]
    assert texts[1].endswith(
        "none of its folds: case4. To train on them, plan again with “Begin again with all cases, new and corrected ones” ticked under Plan."
    )


@pytest.fixture
def looked(panel, root, folders, monkeypatch) -> list:
    """Each look for new cases, of a trained task that has one, with Plan and Train closed."""
    from NNSegmentLib import lookup

    train(folders, "3d_fullres", 0)
    add_case(folders, 4)
    open_task(panel, root, "resultsButton")
    looked, real = [], lookup.cases_in_no_fold
    monkeypatch.setattr(lookup, "cases_in_no_fold", lambda *given: looked.append(given) or real(*given))
    return looked


def test_a_closed_train_section_looks_for_no_new_cases(panel, looked):
    panel.widget.context.results_changed.emit()
    closed = len(looked)
    panel["trainButton"].collapsed = False

    assert (closed, len(looked)) == (0, 1)
    assert panel["trainNewCasesLabel"].visible


def test_what_becomes_of_a_run_that_is_trained_again_is_told(panel, root, folders):
    run, texts = train(folders, "3d_fullres", 0), []
    open_task(panel, root, "trainButton")
    panel.choose("trainFoldBox", "Fold 0")
    texts.append(panel["trainStartButton"].toolTip)

    run.earlier.mkdir()
    run.checkpoint_final.rename(run.earlier / run.checkpoint_final.name)
    panel.widget.context.results_changed.emit()
    texts.append(panel["trainStartButton"].toolTip)

    assert [text.removeprefix("Train from the beginning; the ") for text in texts] == [
        "run that is there is kept in earlier_fold_0.",
        "finished run in earlier_fold_0 is kept, and this unfinished one is replaced.",
    ]


def test_why_a_run_failed_is_shown_in_letters_by_its_tooltip(panel, root, folders):
    run = begin(folders, "3d_fullres", 0, epochs=1)
    append_event(run.events, Failed('<img src="file:///nowhere/a.png"> is missing.', time.time()))

    open_task(panel, root, "trainButton")

    tooltip = panel["runsTable"].item(grid_row(panel, "3d_fullres"), 0).toolTip()
    assert "&lt;img" in tooltip and "<img" not in tooltip


def test_beginning_again_is_offered_where_something_was_trained(panel, root, folders, monkeypatch):
    open_task(panel, root, "planButton")
    assert not panel["anewBox"].visible

    train(folders, "3d_fullres", 0)
    panel.widget.context.results_changed.emit()

    assert panel["anewBox"].visible
    assert not panel["anewBox"].checked
    asked = started(panel, monkeypatch)
    panel.click("makePlanButton")
    panel.click("anewBox")
    panel.click("makePlanButton")
    assert ["--anew" in words for words in asked] == [False, True]


def test_what_was_ticked_to_begin_one_task_again_is_not_ticked_for_the_next(panel, root, folders, monkeypatch):
    other = NAME.replace("501", "502")
    shutil.copytree(folders.raw, folders.raw.with_name(other))
    pipeline.plan(other, root)
    for each in (folders, pipeline.folders_of(other, root)):
        train(each, "3d_fullres", 0)
    open_task(panel, root, "planButton")
    panel.click("anewBox")
    panel.widget.context.results_changed.emit()
    stayed, asked = panel["anewBox"].checked, started(panel, monkeypatch)

    panel.choose("taskCombo", other)
    panel.click("makePlanButton")

    assert stayed
    assert panel["anewBox"].visible
    assert "--anew" not in asked[0]


def test_a_closed_plan_section_reads_nothing_and_new_cases_are_looked_for_once(panel, looked):
    panel.widget.sections["plan_section"].refresh()
    closed = len(looked)
    panel["planButton"].collapsed = False

    assert (closed, len(looked)) == (0, 1)
    assert panel["newCasesLabel"].text.endswith("case4.")


def test_a_workspace_that_is_taken_away_while_new_cases_are_looked_for_is_told(panel, root, folders, monkeypatch):
    from NNSegmentLib import lookup

    train(folders, "3d_fullres", 0)
    open_task(panel, root, "planButton")

    def refuse(*_unused):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lookup, "cases_in_no_fold", refuse)
    panel.widget.context.results_changed.emit()

    assert (
        panel["statusLabel"].text == f"The workspace {root} cannot be read (Permission denied); choose another folder."
    )


def test_models_that_were_set_aside_can_be_applied(panel, root, folders):
    train(folders, "3d_fullres", 0)
    train(folders, "2d", 0)
    pipeline.plan(NAME, root, anew=True)
    train(folders, "2d", 0)
    pipeline.best(NAME, root, ensembles=False)
    pipeline.plan(NAME, root, anew=True)
    train(folders, "3d_fullres", 0)

    open_task(panel, root, "applyButton")

    box = panel["applyModelBox"]
    titles = [box.itemText(n) for n in range(box.count)]
    assert titles[0] == "3d_fullres"
    assert [title.split(" until 20")[0] for title in titles[1:-1]] == ["2d", "3d_fullres", "Best of this task"]
    box.setCurrentIndex(3)
    assert panel["applyModelLabel"].text == "MRI → left, right"

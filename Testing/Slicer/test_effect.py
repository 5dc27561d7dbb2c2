"""The Segment Editor effect is loaded from its file and clicked, with real nodes and a real child process."""

from __future__ import annotations

import json
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from bench import harness
from finished_runs import make_job
from mrml_nodes import Builder

ROOT = Path(__file__).resolve().parents[2]
EFFECT_MODULE = ROOT / "NNSegment" / "SegmentEditorNNSegment" / "SegmentEditorNNSegment.py"
COLORS = "LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n1,a,10,20,250,255\n2,b,250,128,0,255\n"


@pytest.fixture(scope="module")
def factory():
    """What knows the effects that the Segment Editor offers."""
    reason = harness.why_not()
    if reason:
        pytest.skip(reason)
    harness.start()
    import slicer
    from bench.modules import load_scripted_module

    load_scripted_module(ROOT / "NNSegment" / "NNSegment.py")
    return slicer.qSlicerSegmentEditorEffectFactory.instance()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A workspace with a model of random weights, which takes one volume, and one that takes two."""
    folder = tmp_path_factory.mktemp("workspace")
    write_model(folder / "nnUNet_results" / "Dataset501_One", channels=1)
    write_model(folder / "nnUNet_results" / "Dataset502_Two", channels=2)
    return folder


def write_model(folder: Path, channels: int) -> None:
    import torch

    from NNSegmentLib.engine.checkpoints import Checkpoint, save_checkpoint
    from NNSegmentLib.engine.network import build_network
    from NNSegmentLib.planning.plan import Configuration, IntensityStats, NetworkSpec, Plan, save_plan

    network = NetworkSpec("PlainConvUNet", (4, 8), ((3,) * 3,) * 2, ((1,) * 3, (2,) * 3), (1, 1), (1,))
    configuration = Configuration(
        name="3d_fullres", data_identifier="nnUNetPlans_3d_fullres", batch_size=2, patch_size=(16,) * 3,
        median_shape=(16.0,) * 3, spacing_mm=(1.0,) * 3, normalization=("ZScoreNormalization",) * channels,
        use_mask_for_norm=(False,) * channels, network=network, batch_dice=False,
    )  # fmt: skip
    stats = (IntensityStats(1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 2.0),) * channels
    plan = Plan(
        folder.name, "nnUNetPlans", (0, 1, 2), (configuration,), stats, (1.0, 1.0, 1.0), (16, 16, 16)
    )  # fmt: skip
    model = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    save_plan(plan, model / "plans.json")
    description = {
        "channel_names": {str(n): f"T{n + 1}" for n in range(channels)},
        "labels": {"background": 0, "a": 1, "b": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (model / "dataset.json").write_text(json.dumps(description))
    (model / "labels.csv").write_text(COLORS)
    torch.manual_seed(7)
    weights = build_network(network, channels, 3).state_dict()
    state = Checkpoint(weights, "3d_fullres", 0, {}, {}, mirroring_axes=(0, 1, 2))
    save_checkpoint(state, model / "fold_0" / "checkpoint_final.pth")


@pytest.fixture
def editor(factory, workspace):
    """A Segment Editor, on a parameter node, that offers the effect."""
    import slicer

    slicer.app.userSettings().setValue("NNSegment/Workspace", str(workspace))
    load_effect_module(factory)
    made = slicer.qMRMLSegmentEditorWidget()
    made.setMRMLScene(slicer.mrmlScene)
    made.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    yield made
    made.setMRMLSegmentEditorNode(None)
    harness.close_scene()
    harness.check_slots()


@pytest.fixture
def effect(editor):
    """The effect as the Segment Editor has it: cloned from the registered one."""
    effect = editor.effectByName("NNSegment")
    yield effect
    effect.cleanup()


def load_effect_module(factory) -> None:
    """As at Slicer's start: the module is loaded, then it hears that the application has started."""
    from bench.modules import load_scripted_module

    factory._bench.effects.clear()
    module = load_scripted_module(EFFECT_MODULE)
    assert module.hidden
    sys.modules[EFFECT_MODULE.stem].register_effect()


def edit(effect, angle_degrees: float = 20.0):
    """A volume under a transform, oblique in the world, chosen in the editor with an empty segmentation."""
    import slicer
    import vtk

    array = np.random.default_rng(3).normal(100, 20, (18, 20, 16)).astype(np.float32)
    volume = slicer.util.addVolumeFromArray(array, name="patient 11")
    turn = vtk.vtkTransform()
    turn.RotateZ(angle_degrees)
    turn.Scale(1.2, 1.0, 1.1)
    volume.SetIJKToRASMatrix(turn.GetMatrix())
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = vtk.vtkMatrix4x4()
    shift.SetElement(0, 3, 25.0)
    moved.SetMatrixTransformToParent(shift)
    volume.SetAndObserveTransformNodeID(moved.GetID())
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "edited")
    node = effect.parameterSetNode()
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(volume)
    return volume, segmentation


def click_apply(effect) -> None:
    from bench.hands import click

    python = effect.self()
    effect.optionsFrame().show()
    assert python.apply_button.enabled, python.apply_button.toolTip
    click(python.apply_button)
    harness.check_slots()


def segment_voxels(segmentation, name: str, volume) -> np.ndarray:
    import slicer

    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0


def test_the_effect_is_registered_when_the_application_has_started(factory, monkeypatch):
    import slicer
    from bench.modules import load_scripted_module

    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **_: None)  # the other module's part
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    factory._bench.effects.clear()
    load_scripted_module(EFFECT_MODULE)
    assert not factory.registeredEffects()

    slicer.app.startupCompleted.emit()
    harness.check_slots()

    assert factory.registeredEffects()


def test_the_hidden_module_registers_one_effect_with_an_icon(factory):
    load_effect_module(factory)

    (found,) = factory.registeredEffects()
    assert found.name == "NNSegment"
    assert not found.perSegment and not found.requireSegments
    assert not found.self().icon().isNull()
    assert "trained model" in found.self().helpText()


def test_the_texts_of_the_effect_are_translated_under_its_own_name(factory):
    from slicer.i18n import getContext

    source = EFFECT_MODULE.parent / "SegmentEditorNNSegmentLib" / "SegmentEditorEffect.py"

    assert getContext(str(source)) == "SegmentEditorNNSegmentLib.SegmentEditorEffect"


def test_the_self_test_of_developer_mode_passes(factory):
    script = f"""
import sys
from bench import harness
harness.start()
import slicer
from bench.modules import load_scripted_module
for path in ({str(ROOT / "NNSegment" / "NNSegment.py")!r}, {str(EFFECT_MODULE)!r}):
    load_scripted_module(path)
sys.modules["SegmentEditorNNSegment"].register_effect()
slicer.selfTests["SegmentEditorNNSegment"]()
harness.check_slots()
"""
    harness.run_fresh(script, timeout_s=240)


def test_apply_says_what_is_missing(effect):
    python = effect.self()

    effect.activate()
    assert (python.apply_button.enabled, python.apply_button.toolTip[:6]) == (False, "Choose")

    edit(effect)
    python.sourceVolumeNodeChanged()
    assert python.apply_button.enabled

    python.model_box.setCurrentIndex(python.model_box.findText("Dataset502_Two: 3d_fullres"))
    assert not python.apply_button.enabled
    assert "takes 2 volumes (T1, T2)" in python.apply_button.toolTip


def test_without_a_model_apply_says_where_to_train_one(effect, tmp_path):
    import slicer

    slicer.app.userSettings().setValue("NNSegment/Workspace", str(tmp_path))
    edit(effect)

    effect.activate()

    assert not effect.self().apply_button.enabled
    assert "train one in the module NNSegment" in effect.self().apply_button.toolTip


def test_without_torch_apply_says_where_to_install_it(effect, monkeypatch):
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies, "torch_is_missing", lambda: True)
    edit(effect)

    effect.activate()

    assert (
        effect.self().apply_button.toolTip
        == "PyTorch is not installed: press Install at the top of the module NNSegment."
    )


def test_with_a_torch_that_cannot_be_used_apply_says_what_is_needed(effect, monkeypatch):
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies.importlib.metadata, "version", lambda name: "2.5.1+cu128")
    edit(effect)

    effect.activate()

    assert effect.self().apply_button.toolTip == (
        "Slicer has PyTorch 2.5.1+cu128, but 2.6 or newer except 2.9 is needed: press Install at the top of the module "
        "NNSegment."
    )


def test_a_torch_that_is_only_slow_is_no_reason_against_applying(effect, monkeypatch):
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies.importlib.metadata, "version", lambda name: "2.9.1+cu128")
    edit(effect)

    effect.activate()

    assert "PyTorch" not in effect.self().apply_button.toolTip


def test_a_python_chosen_in_the_panel_applies_the_model_without_torch_in_slicer(effect, monkeypatch, tmp_path):
    import slicer
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies, "torch_is_missing", lambda: True)
    slicer.app.userSettings().setValue("NNSegment/Python", str(tmp_path / "python"))
    edit(effect)

    effect.activate()
    slicer.app.userSettings().setValue("NNSegment/Python", "")

    assert effect.self().apply_button.enabled
    assert effect.self().context.python_executable == tmp_path / "python"


def test_where_no_torch_exists_for_slicer_apply_says_where_to_choose_another_python(effect, monkeypatch):
    from NNSegmentUI import dependencies

    monkeypatch.setattr(dependencies, "has_no_torch", lambda: True)
    edit(effect)

    effect.activate()

    assert "choose another Python at the top of the module NNSegment" in effect.self().apply_button.toolTip


def test_calls_that_come_before_the_options_or_without_a_scene_do_no_harm(factory):
    load_effect_module(factory)
    python = factory.registeredEffects()[-1].self().clone().self()

    python.updateGUIFromMRML()
    python.setupOptionsFrame()
    python.sourceVolumeNodeChanged()
    python.cleanup()

    assert python.context is not None


def test_the_choices_are_kept_in_the_scene(effect):
    effect.activate()
    python = effect.self()

    python.model_box.setCurrentIndex(1)
    python.mirroring_box.setChecked(False)

    assert effect.parameter("Model").endswith("Dataset502_Two/nnUNetTrainer__nnUNetPlans__3d_fullres")
    assert effect.integerParameter("Mirroring") == 0


def test_models_are_not_looked_up_for_an_effect_that_is_not_active(effect, editor, monkeypatch):
    """The editor tells all effects of another volume, also when the user draws by hand."""
    from NNSegmentLib.model import card

    read, real = [], card.read_card
    monkeypatch.setattr(card, "read_card", lambda model: read.append(model) or real(model))
    volume, segmentation = edit(effect)
    effect.activate()
    read_when_active = len(read)
    effect.deactivate()
    effect.self().cards.clear()

    editor.setSourceVolumeNode(None)
    editor.setSourceVolumeNode(volume)

    assert (read_when_active, len(read)) == (1, 1)
    effect.activate()
    assert effect.self().apply_button.enabled


def test_a_scene_that_remembers_no_model_has_none_asked_for(effect, editor, tmp_path):
    import slicer

    slicer.app.userSettings().setValue("NNSegment/Workspace", str(tmp_path))
    edit(effect)
    effect.activate()

    editor.mrmlSegmentEditorNode().Modified()
    effect.self().mirroring_box.setChecked(False)
    harness.check_slots()

    assert not effect.parameterDefined("Model")
    assert effect.integerParameter("Mirroring") == 0


def test_a_segmentation_that_cannot_take_the_answer_is_told_before_the_model_runs(effect, workspace, monkeypatch):
    volume, segmentation = edit(effect)
    surface = Builder(segmentation.GetScene()).surface("ball", (0, 0, 0), 5.0)
    effect.parameterSetNode().SetAndObserveSegmentationNode(surface)
    effect.activate()
    started, before = [], sorted((workspace / "predictions").glob("*"))
    monkeypatch.setattr(effect.self().context, "start_job", lambda words, title: started.append(words))

    click_apply(effect)

    assert "keeps its segments as Closed surface" in effect.self().status_label.text
    assert not started
    assert sorted((workspace / "predictions").glob("*")) == before


def test_an_effect_that_was_cleaned_up_hears_of_nothing_more(effect, monkeypatch):
    edit(effect)
    effect.activate()
    python, model = effect.self(), effect.parameter("Model")
    started, opened = [], []
    monkeypatch.setattr(python.context, "start_job", lambda words, title: started.append(words))
    monkeypatch.setattr("NNSegmentUI.job_view.open_file", opened.append)
    python.job_view.show(make_job(python.context.workspace_path, ("predict",)))
    ((log,), (stop,)) = (python.job_view._frame.findChildren(qt_button(), f"effect{n}Button") for n in ("Log", "Stop"))

    effect.cleanup()
    effect.cleanup()
    python.model_box.setCurrentIndex(1)
    python.mirroring_box.setChecked(False)
    for button in (python.apply_button, log, stop):
        button.click()
    python.context.say("too late", "error")
    harness.check_slots()

    assert (effect.parameter("Model"), effect.integerParameter("Mirroring")) == (model, 1)
    assert (started, opened, python.status_label.text) == ([], [], "")
    assert not python.job_view.job.folder.stop.exists()


def qt_button():
    import qt

    return qt.QPushButton


def ask(effect, workspace, monkeypatch):
    """Click Apply; returns the job, which no process does, the copy, and where the model is to write its label map."""
    python, jobs = effect.self(), []

    def start_job(words, title):
        jobs.append(make_job(workspace, tuple(words), title))
        return jobs[0]

    monkeypatch.setattr(python.context, "start_job", start_job)
    effect.activate()
    click_apply(effect)
    words = jobs[0].request.arguments
    (image,) = Path(words[words.index("-i") + 1]).iterdir()
    return jobs[0], image, Path(words[words.index("-o") + 1]) / image.name.replace("_0000", "")


@pytest.mark.parametrize("closed", ["scene", "segmentation"])
def test_segments_are_not_put_into_what_has_the_same_id_by_then(effect, workspace, monkeypatch, closed):
    """After a scene is closed, the nodes of the next patient get the ids of the last one's."""
    import slicer

    from NNSegmentLib.image import read_geometry, write_labels

    volume, segmentation = edit(effect)
    ids = (volume.GetID(), segmentation.GetID())
    job, image, answer = ask(effect, workspace, monkeypatch)
    write_labels(answer, np.ones((18, 20, 16), np.uint8), read_geometry(image))
    if closed == "scene":
        harness.close_scene()
        volume = slicer.util.addVolumeFromArray(np.zeros((18, 20, 16), np.float32), name="patient 11")
    else:
        slicer.mrmlScene.RemoveNode(segmentation)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert (volume.GetID(), other.GetID()) == ids or closed == "segmentation"

    effect.self()._on_ended(job, "finished")

    gone = "patient 11" if closed == "scene" else "edited"
    assert other.GetSegmentation().GetNumberOfSegments() == 0
    assert effect.self().status_label.text == (
        f"{gone} is no longer in the scene; the label map of the model is {answer}.gz"
    )
    assert answer.with_name(answer.name + ".gz").is_file()


def test_the_copy_for_the_model_is_written_plain_while_the_cursor_waits(effect, workspace, monkeypatch):
    import qt

    from NNSegmentLib.application import ApplicationFolder

    seen, real = [], ApplicationFolder.write_case

    def write_case(self, *given):
        seen.append(qt.QApplication.overrideCursor().shape())
        real(self, *given)

    monkeypatch.setattr(ApplicationFolder, "write_case", write_case)
    edit(effect)
    job, image, _answer = ask(effect, workspace, monkeypatch)

    assert image.name == "patient_11_0000.nii"
    assert image.stat().st_size > 4 * 18 * 20 * 16  # float32, not compressed
    assert seen == [qt.Qt.WaitCursor]
    assert qt.QApplication.overrideCursor() is None
    effect.self()._on_ended(job, "stopped")
    assert not image.exists()


def test_the_copies_for_the_model_tell_who_shows_the_answer(effect, workspace, monkeypatch):
    """So that the panel neither shows it a second time, nor keeps them where Slicer ends before the model does."""
    from NNSegmentLib.application import application_of

    edit(effect)
    job, _image, _answer = ask(effect, workspace, monkeypatch)

    application = application_of(job.request.arguments).load()
    assert application.shown_by == "effect"
    assert [case.name for case in application.cases] == ["patient 11"]
    effect.self()._on_ended(job, "stopped")


@pytest.mark.slow
def test_the_answer_of_the_model_becomes_segments_and_undo_takes_them_back(effect, editor, workspace):
    from NNSegmentLib.image import read_labels

    volume, segmentation = edit(effect)
    effect.activate()
    python = effect.self()

    click_apply(effect)
    command = " ".join(python.job.command)
    assert not python.apply_button.enabled
    harness.wait_until(lambda: python.job is None, timeout_s=120)

    assert python.status_label.text == "patient 11 was segmented: a, b"
    answer = read_labels(sorted((workspace / "predictions").rglob("labels/*.nii.gz"))[-1]).array
    assert len(np.unique(answer)) > 1
    for value, name in ((1, "a"), (2, "b")):
        assert np.array_equal(segment_voxels(segmentation, name, volume), answer == value)
    assert segmentation.GetSegmentation().GetSegment("b").GetColor() == pytest.approx(
        (250 / 255, 128 / 255, 0), abs=1e-6
    )
    assert "predict" in command and "-m NNSegmentLib" in command
    assert not list((workspace / "predictions").rglob("images"))
    editor.undo()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


@pytest.mark.slow
def test_a_stopped_model_leaves_the_segmentation_as_it_was(effect):
    _, segmentation = edit(effect)
    effect.activate()
    python = effect.self()
    click_apply(effect)
    job = python.job

    python.job_view.stop()
    harness.wait_until(lambda: python.job is None, timeout_s=60)

    assert not job.is_running()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
    assert "stopped" in python.status_label.text
    assert python.apply_button.enabled


@pytest.mark.slow
def test_an_answer_that_comes_after_the_scene_was_closed_is_kept_on_disk(effect, workspace):
    edit(effect)
    effect.activate()
    python = effect.self()
    click_apply(effect)
    harness.close_scene()

    until = time.monotonic() + 120
    while python.job is not None and time.monotonic() < until:
        python.context.poll()
        time.sleep(0.2)

    file = sorted((workspace / "predictions").rglob("labels/*.nii.gz"))[-1]
    assert python.status_label.text == f"patient 11 is no longer in the scene; the label map of the model is {file}"

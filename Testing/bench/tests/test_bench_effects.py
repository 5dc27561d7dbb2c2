"""A scripted effect of the Segment Editor is registered, clicked and undone on real segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).resolve().parents[1] / "sample" / "BenchSampleEffectLib" / "SegmentEditorEffect.py"


@pytest.fixture
def editor(bench):
    import qSlicerSegmentationsEditorEffectsPythonQt as effects
    import slicer

    registered = effects.qSlicerSegmentEditorScriptedEffect(None)
    registered.setPythonSource(SOURCE.as_posix())
    registered.self().register()
    made = slicer.qMRMLSegmentEditorWidget()
    made.setMRMLScene(slicer.mrmlScene)
    made.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    made.setSegmentationNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    yield made
    made.setMRMLSegmentEditorNode(None)


@pytest.fixture
def edited(editor):
    """A volume with 600 bright voxels, and an empty segment on its grid."""
    import slicer

    array = np.zeros((10, 20, 30), np.int16)
    array[2:8, 5:15, 10:20] = 100
    volume = slicer.util.addVolumeFromArray(array, name="volume")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "edited")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("bright")
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    editor.setCurrentSegmentID(segment)
    return lambda: int(slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume).sum())


def test_the_editor_offers_a_registered_effect_with_its_defaults(editor):
    editor.setActiveEffectByName("Bright")

    effect = editor.activeEffect()
    assert "Bright" in editor.availableEffectNames()
    assert effect.integerParameter("Level") == 50
    assert effect.self().levelBox.value == 50
    assert editor.mrmlSegmentEditorNode().GetAttribute("Bright.Level") == "50"


def test_an_effect_fills_the_segment_and_undo_empties_it(editor, edited, bench):
    from bench import hands

    editor.setActiveEffectByName("Bright")
    before = edited()

    hands.click(editor.activeEffect().self().applyButton)
    filled = edited()
    editor.undo()
    bench.check_slots()

    assert (before, filled, edited()) == (0, 600, 0)


def test_the_options_follow_the_parameters_of_the_scene(editor):
    editor.setActiveEffectByName("Bright")

    editor.mrmlSegmentEditorNode().SetAttribute("Bright.Level", "70")

    assert editor.activeEffect().self().levelBox.value == 70


def test_no_effect_becomes_active_without_a_segmentation(editor):
    editor.setSegmentationNode(None)

    editor.setActiveEffectByName("Bright")

    assert editor.activeEffect() is None


def test_an_effect_has_no_names_of_its_own_invention(editor):
    effect = editor.effectByName("Bright")

    with pytest.raises(AttributeError):
        effect.segmentLabelmap()
    with pytest.raises(AttributeError, match="not allowed"):
        effect.lable = "Bright"
    with pytest.raises(KeyError, match="has no parameter 'Size'"):
        effect.parameter("Size")
    with pytest.raises(NotImplementedError, match="xyToRas exists in Slicer"):
        effect.xyToRas((0, 0), None)


def test_an_empty_text_makes_no_parameter(editor):
    """And a parameter that is there becomes empty by one, which counts as not defined."""
    effect, node = editor.effectByName("Bright"), editor.mrmlSegmentEditorNode()

    effect.setParameterDefault("Name", "")
    before = node.GetAttribute("Bright.Name")
    effect.setParameter("Name", "bone")
    effect.setParameter("Name", "")

    assert (before, node.GetAttribute("Bright.Name"), effect.parameterDefined("Name")) == (None, "", False)


def test_all_effects_are_told_of_another_source_volume(editor, monkeypatch):
    import slicer

    effect, told = editor.effectByName("Bright"), []
    monkeypatch.setattr(type(effect.self()), "sourceVolumeNodeChanged", lambda self: told.append(self), raising=False)

    editor.setSourceVolumeNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))

    assert not effect.active()
    assert told == [effect.self()]

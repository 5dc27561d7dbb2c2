"""The hidden module that adds NNSegment's effect to the Segment Editor when Slicer has started."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

EFFECT_FILE = Path(__file__).resolve().parent / "SegmentEditorNNSegmentLib" / "SegmentEditorEffect.py"


class SegmentEditorNNSegment(ScriptedLoadableModule):
    """What the application knows about the module; it has no panel."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("SegmentEditorNNSegment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "NNSegment"]
        parent.hidden = True
        parent.contributors = ["The NNSegment developers"]
        parent.helpText = _(
            "The Segment Editor effect of the module NNSegment: segments the volume with a trained model."
        )
        parent.acknowledgementText = _("Part of NNSegment.")
        slicer.app.connect("startupCompleted()", register_effect)


def register_effect():
    """Make the effect known to the Segment Editor."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource(EFFECT_FILE.as_posix())
    effect.self().register()


class SegmentEditorNNSegmentTest(ScriptedLoadableModuleTest):
    """The self-test in Slicer: the Segment Editor offers the effect, which says what it still needs."""

    def runTest(self):
        slicer.mrmlScene.Clear(0)
        self.test_the_editor_offers_the_effect()

    def test_the_editor_offers_the_effect(self):
        editor = slicer.qMRMLSegmentEditorWidget()
        editor.setMRMLScene(slicer.mrmlScene)
        editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        # without a segmentation no effect becomes active, and Slicer 5.10 crashes
        editor.setSegmentationNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
        editor.setActiveEffectByName("NNSegment")
        effect = editor.activeEffect()
        self.assertEqual(effect.name, "NNSegment")
        button = effect.self().apply_button
        self.assertFalse(button.enabled)
        self.assertTrue(button.toolTip)
        self.delayDisplay("The effect is there.")

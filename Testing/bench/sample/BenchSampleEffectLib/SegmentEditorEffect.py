"""A small scripted effect, which the tests of the bench register: it fills the segment where the volume is bright."""

from pathlib import Path

import qt
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Bright"
        scriptedEffect.title = "Bright"
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        made = effects.qSlicerSegmentEditorScriptedEffect(None)
        made.setPythonSource(Path(__file__).as_posix())
        return made

    def setupOptionsFrame(self):
        self.levelBox = qt.QSpinBox()
        self.levelBox.maximum = 1000
        self.applyButton = qt.QPushButton("Apply")
        self.scriptedEffect.addLabeledOptionsWidget("Level:", self.levelBox)
        self.scriptedEffect.addOptionsWidget(self.applyButton)
        self.levelBox.connect("valueChanged(int)", lambda value: self.scriptedEffect.setParameter("Level", value))
        self.applyButton.connect("clicked()", self.onApply)

    def setMRMLDefaults(self):
        self.scriptedEffect.setParameterDefault("Level", 50)

    def updateGUIFromMRML(self):
        self.levelBox.value = self.scriptedEffect.integerParameter("Level")

    def onApply(self):
        threshold = vtk.vtkImageThreshold()
        threshold.SetInputData(self.scriptedEffect.sourceVolumeImageData())
        threshold.ThresholdByUpper(self.scriptedEffect.integerParameter("Level"))
        threshold.SetInValue(1)
        threshold.SetOutValue(0)
        threshold.SetOutputScalarTypeToUnsignedChar()
        threshold.Update()
        labels = self.scriptedEffect.defaultModifierLabelmap()
        labels.DeepCopy(threshold.GetOutput())
        self.scriptedEffect.saveStateForUndo()
        self.scriptedEffect.modifySelectedSegmentByLabelmap(labels, self.scriptedEffect.ModificationModeSet)

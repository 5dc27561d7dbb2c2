"""`qMRMLSegmentEditorWidget`: the registered effects over one real editor logic, without painting in views."""

from __future__ import annotations

import vtk
from PySide6 import QtWidgets

from . import mrml_widgets  # noqa: F401  (defines the base class)
from .lookalikes import define, lookalike


def new_logic(history):
    import slicer

    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    logic.SetSegmentationHistory(history)
    return logic


@define
class qMRMLSegmentEditorWidget:
    def _build(self):
        import slicer

        lookalike("qMRMLWidget")._build(self)
        history = slicer.vtkSegmentationHistory()
        self._bench.__dict__.update(history=history, logic=new_logic(history), effects={}, active=None, tag=None)
        self.setLayout(QtWidgets.QVBoxLayout())
        self.updateEffectList()

    def updateEffectList(self):
        import slicer

        for registered in slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects():
            if registered.name not in self._bench.effects:
                self._adopt(registered.self().clone())

    def _adopt(self, effect):
        self._bench.effects[effect.name] = effect
        effect._bench.logic = self._bench.logic
        effect._bench.select = self.setActiveEffectByName
        effect._tell("setupOptionsFrame")
        self.layout().addWidget(effect.optionsFrame())
        effect.optionsFrame().hide()

    # --- nodes -------------------------------------------------------------------------------------------------

    def mrmlSegmentEditorNode(self):
        return self._bench.logic.GetSegmentEditorNode()

    def setMRMLSegmentEditorNode(self, node):
        if self._bench.tag is not None:
            self.mrmlSegmentEditorNode().RemoveObserver(self._bench.tag)
        self._bench.logic.SetSegmentEditorNode(node)
        self._bench.tag = None
        if node is None:
            return
        for effect in self._bench.effects.values():
            effect._tell("setMRMLDefaults")
        self._bench.tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._follow())

    def _follow(self):
        if self._bench.active is not None:
            self._bench.active.updateGUIFromMRML()

    def segmentationNode(self):
        return self._bench.logic.GetSegmentationNode()

    def setSegmentationNode(self, node):
        self._bench.logic.SetSegmentationNode(node)
        self._bench.history.SetSegmentation(None if node is None else node.GetSegmentation())
        self.segmentationNodeChanged.emit(node)

    def sourceVolumeNode(self):
        return self._bench.logic.GetSourceVolumeNode()

    def setSourceVolumeNode(self, node):
        self._bench.logic.SetSourceVolumeNode(node)
        for effect in self._bench.effects.values():
            effect._tell("sourceVolumeNodeChanged")
        self.sourceVolumeNodeChanged.emit(node)

    def currentSegmentID(self):
        return self._bench.logic.GetCurrentSegmentID() or ""

    def setCurrentSegmentID(self, segment_id):
        self._bench.logic.SetCurrentSegmentID(segment_id)
        self.currentSegmentIDChanged.emit(segment_id)

    # --- effects -----------------------------------------------------------------------------------------------

    def availableEffectNames(self):
        return list(self._bench.effects)

    def effectByName(self, name):
        return self._bench.effects.get(name)

    def effectCount(self):
        return len(self._bench.effects)

    def activeEffect(self):
        return self._bench.active

    def setActiveEffect(self, effect):
        """Without a segmentation no effect becomes active, as in 5.12; 5.10 crashes instead."""
        if self.segmentationNode() is None:
            effect = None
        before, self._bench.active = self._bench.active, effect
        if before is not None:
            before.optionsFrame().hide()
            before.deactivate()
        if effect is not None:
            effect.optionsFrame().show()
            effect.activate()
            effect.updateGUIFromMRML()

    def setActiveEffectByName(self, name):
        self.setActiveEffect(self.effectByName(name))

    # --- undo --------------------------------------------------------------------------------------------------

    def saveStateForUndo(self):
        self._bench.logic.SaveStateForUndo()

    def undo(self):
        self._bench.logic.Undo()

    def redo(self):
        self._bench.logic.Redo()

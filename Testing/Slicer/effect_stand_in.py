"""What a scripted effect of the Segment Editor meets in Slicer: its adaptor, and the packages it imports.

The nodes, the segments and undo are real; the Segment Editor's widgets are not there. Import it when the bench has
started.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

from bench.lookalikes import define
from PySide6 import QtWidgets

registered: list = []
"""The effects that the Segment Editor would offer."""


@define
class qSlicerSegmentEditorScriptedEffect:
    def _build(self):
        frame = QtWidgets.QWidget()
        QtWidgets.QFormLayout(frame)
        self._bench.__dict__.update(python=None, source="", node=None, frame=frame, logic=None)

    def setPythonSource(self, path):
        self._bench.source = path
        self._bench.python = effect_class(path)(self)
        return True

    def pythonSource(self):
        return self._bench.source

    def self(self):
        return self._bench.python

    def optionsFrame(self):
        return self._bench.frame

    def addOptionsWidget(self, widget):
        self._bench.frame.layout().addRow(widget)

    def addLabeledOptionsWidget(self, label, widget):
        self._bench.frame.layout().addRow(label, widget)

    def parameterSetNode(self):
        return self._bench.node

    def setParameterSetNode(self, node):
        self._bench.node, self._bench.logic = node, editor_logic(node)
        self._bench.python.setMRMLDefaults()

    def parameter(self, name):
        return self._bench.node.GetAttribute(f"{self.name},{name}") or ""

    def integerParameter(self, name):
        return int(self.parameter(name) or 0)

    def setParameter(self, name, value):
        self._bench.node.SetAttribute(f"{self.name},{name}", str(value))

    def setParameterDefault(self, name, value):
        if self._bench.node.GetAttribute(f"{self.name},{name}") is None:
            self.setParameter(name, value)

    def saveStateForUndo(self):
        self._bench.logic.SetSegmentationNode(self._bench.node.GetSegmentationNode())
        self._bench.logic.SaveStateForUndo()

    def activate(self):
        self._bench.python.activate()


def install() -> None:
    """Make the packages importable that effects import."""
    adaptors = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    adaptors.qSlicerSegmentEditorScriptedEffect = qSlicerSegmentEditorScriptedEffect
    bases = types.ModuleType("SegmentEditorEffects")
    bases.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    sys.modules |= {adaptors.__name__: adaptors, bases.__name__: bases}


def editor_logic(node):
    import slicer

    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSegmentEditorNode(node)
    return logic


def undo(effect) -> None:
    """What the Segment Editor's Undo button does."""
    effect._bench.logic.Undo()


class AbstractScriptedSegmentEditorEffect:
    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        registered.append(self.scriptedEffect)


def effect_class(path: str):
    """As Slicer finds it: the folder names the module, the file names the class."""
    file = Path(path)
    module = sys.modules.get(file.parent.name)
    if module is None or not hasattr(module, file.stem):
        spec = importlib.util.spec_from_file_location(file.parent.name, file)
        module = sys.modules[file.parent.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return getattr(module, file.stem)

"""Scripted effects of the Segment Editor: the adaptor that an effect calls, over Slicer's real editor logic."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

from PySide6 import QtWidgets

from .lookalikes import define, lookalike

MODES = ("Set", "Add", "Remove", "RemoveAll")
BASES = ("Effect", "LabelEffect", "PaintEffect", "AutoCompleteEffect")
_factory = None


@define
class qSlicerSegmentEditorAbstractEffect:
    defaults = {"perSegment": True, "requireSegments": True, "showEffectCursorInSliceView": True}

    def _build(self):
        frame = QtWidgets.QFrame()
        QtWidgets.QFormLayout(frame)
        self._bench.__dict__.update(frame=frame, logic=None, active=False, python=None, source="", select=None)

    # --- options -----------------------------------------------------------------------------------------------

    def optionsFrame(self):
        return self._bench.frame

    def optionsLayout(self):
        return self._bench.frame.layout()

    def addOptionsWidget(self, widget):
        self._bench.frame.layout().addRow(widget)

    def addLabeledOptionsWidget(self, text, widget):
        label = QtWidgets.QLabel(text)
        self._bench.frame.layout().addRow(label, widget)
        return label

    # --- parameters: attributes "<effect>.<name>" of the editor's node, or "<name>" for those that effects share -----

    def parameterSetNode(self):
        return None if self._bench.logic is None else self._bench.logic.GetSegmentEditorNode()

    def scene(self):
        import slicer

        return slicer.mrmlScene

    def _key(self, name):
        node, own = self.parameterSetNode(), f"{self.name}.{name}"
        return own if node.GetAttribute(own) is not None else name

    def parameter(self, name):
        value = self.parameterSetNode().GetAttribute(self._key(name))
        if value is None:
            raise KeyError(f"the effect {self.name} has no parameter '{name}': give it a default first")
        return value

    def integerParameter(self, name):
        return int(self.parameter(name))

    def doubleParameter(self, name):
        return float(self.parameter(name))

    def parameterDefined(self, name):
        return bool(self.parameterSetNode().GetAttribute(self._key(name)))

    def commonParameterDefined(self, name):
        return bool(self.parameterSetNode().GetAttribute(name))

    def setCommonParameter(self, name, value):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError(f"a parameter of an effect is text or a number, got {value!r}")
        if str(value) or self.parameterSetNode().GetAttribute(name) is not None:
            self.parameterSetNode().SetAttribute(name, str(value))  # an empty text does not make a parameter

    def setParameter(self, name, value):
        self.setCommonParameter(f"{self.name}.{name}", value)

    def setParameterDefault(self, name, value):
        if self.parameterSetNode().GetAttribute(f"{self.name}.{name}") is None:
            self.setParameter(name, value)

    def setCommonParameterDefault(self, name, value):
        if self.parameterSetNode().GetAttribute(name) is None:
            self.setCommonParameter(name, value)

    def nodeReference(self, name):
        return self.parameterSetNode().GetNodeReference(f"{self.name}.{name}")

    def setNodeReference(self, name, node):
        self.parameterSetNode().SetNodeReferenceID(f"{self.name}.{name}", None if node is None else node.GetID())

    # --- label maps and edits ------------------------------------------------------------------------------------

    def selectedSegmentLabelmap(self):
        logic = self._bench.logic
        return logic.GetSelectedSegmentLabelmap() if logic.UpdateSelectedSegmentLabelmap() else None

    def modifierLabelmap(self):
        return self._bench.logic.GetModifierLabelmap()

    def defaultModifierLabelmap(self):
        logic = self._bench.logic
        made = logic.UpdateReferenceGeometryImage() and logic.ResetModifierLabelmapToDefault()
        return logic.GetModifierLabelmap() if made else None

    def maskLabelmap(self):
        return self._bench.logic.GetMaskLabelmap() if self._bench.logic.UpdateMaskLabelmap() else None

    def referenceGeometryImage(self):
        logic = self._bench.logic
        return logic.GetReferenceGeometryImage() if logic.UpdateReferenceGeometryImage() else None

    def sourceVolumeImageData(self):
        logic = self._bench.logic
        made = logic.UpdateReferenceGeometryImage() and logic.UpdateAlignedSourceVolume()
        return logic.GetAlignedSourceVolume() if made else None

    def saveStateForUndo(self):
        self._bench.logic.SaveStateForUndo()

    def modifySegmentByLabelmap(self, segmentation, segment_id, label_map, mode, bypass_masking=False):
        logic = self._bench.logic
        logic.UpdateMaskLabelmap()
        logic_mode = getattr(logic, f"ModificationMode{MODES[mode]}")
        logic.ModifySegmentByLabelmap(segmentation, segment_id, label_map, logic_mode, self.perSegment, bypass_masking)

    def modifySelectedSegmentByLabelmap(self, label_map, mode, bypass_masking=False):
        logic = self._bench.logic
        target = logic.GetSegmentationNode(), logic.GetCurrentSegmentID()
        self.modifySegmentByLabelmap(*target, label_map, mode, bypass_masking)

    def confirmCurrentSegmentVisible(self):
        return self.ConfirmedWithoutDialog

    # --- life ----------------------------------------------------------------------------------------------------

    def active(self):
        return self._bench.active

    def selectEffect(self, name):
        self._bench.select(name)

    def activate(self):
        self._bench.active = True
        self._tell("activate")

    def deactivate(self):
        self._tell("deactivate")
        self._bench.active = False

    def cleanup(self):
        self._tell("cleanup")

    def updateGUIFromMRML(self):
        self._tell("updateGUIFromMRML")

    def updateMRMLFromGUI(self):
        self._tell("updateMRMLFromGUI")

    def helpText(self):
        return self._tell("helpText") or ""

    def _tell(self, method):
        """Call the effect's Python object; it need not have every method."""
        function = getattr(self._bench.python, method, None)
        return function() if function else None


@define
class qSlicerSegmentEditorScriptedEffect:
    def setPythonSource(self, path):
        self._bench.source = path
        self._bench.python = effect_class(Path(path))(self)
        return True

    def pythonSource(self):
        return self._bench.source

    def self(self):
        return self._bench.python


@define
class qSlicerSegmentEditorEffectFactory:
    def _build(self):
        self._bench.effects = []

    def instance():
        global _factory
        if _factory is None:
            _factory = lookalike("qSlicerSegmentEditorEffectFactory")()
        return _factory

    def registerEffect(self, effect):
        if effect.name in {e.name for e in self._bench.effects}:
            return False
        self._bench.effects.append(effect)
        self.effectRegistered.emit(effect.name)
        return True

    def registeredEffects(self):
        return list(self._bench.effects)


def effect_class(file: Path) -> type:
    """As Slicer finds it: the folder names the module, the file names the class."""
    name = file.stem if file.stem.endswith("Effect") else file.stem + "Effect"
    module = sys.modules.get(file.parent.name)
    if module is None or not hasattr(module, name):
        spec = importlib.util.spec_from_file_location(file.parent.name, file)
        module = sys.modules[file.parent.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return getattr(module, name)


class AbstractScriptedSegmentEditorEffect:
    """The base class of scripted effects."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        import slicer

        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)


def install_effects() -> None:
    """Make importable what effects import."""
    adaptors = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    adaptors.qSlicerSegmentEditorScriptedEffect = qSlicerSegmentEditorScriptedEffect
    bases = types.ModuleType("SegmentEditorEffects")
    for kind in BASES:
        name = f"AbstractScriptedSegmentEditor{kind}"
        made = type(name, (AbstractScriptedSegmentEditorEffect,), {})
        setattr(bases, name, AbstractScriptedSegmentEditorEffect if kind == "Effect" else made)
    sys.modules |= {adaptors.__name__: adaptors, bases.__name__: bases}

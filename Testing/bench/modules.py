"""Modules of the application: the built-in ones' logics, and scripted modules loaded from their unmodified files."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

from PySide6 import QtWidgets

from .lookalikes import define, lookalike


@define
class qSlicerAbstractCoreModule:
    def _build(self):
        self._bench.__dict__.update(logic=None, widget=None)

    def logic(self):
        return self._bench.logic

    def widgetRepresentation(self):
        return self._bench.widget


@define
class qSlicerScriptedLoadableModule:
    def widgetRepresentation(self):
        if self._bench.widget is None:
            self._bench.widget = make_widget(self)
        return self._bench.widget

    def createNewWidgetRepresentation(self):
        return make_widget(self)


@define
class qSlicerWidget:
    def _build(self):
        self._bench.scene = None

    def mrmlScene(self):
        return self._bench.scene

    def setMRMLScene(self, scene):
        self._bench.scene = scene
        self.mrmlSceneChanged.emit(scene)


@define
class qSlicerScriptedLoadableModuleWidget:
    def _build(self):
        lookalike("qSlicerWidget")._build(self)
        self._bench.python = None
        self.setLayout(QtWidgets.QVBoxLayout())

    def self(self):
        return self._bench.python

    def reload(self):
        fill_widget(self, self.moduleName)

    def enter(self):
        self._bench.values["isEntered"] = True
        self._bench.python.enter()

    def exit(self):
        self._bench.values["isEntered"] = False
        self._bench.python.exit()

    def setEditedNode(self, node, role="", context=""):
        edit = getattr(self._bench.python, "setEditedNode", None)
        return bool(edit and edit(node, role, context))


@define
class qSlicerModuleManager:
    def module(self, name):
        import slicer

        return getattr(slicer.modules, name.lower(), None)

    def modulesNames(self):
        import slicer

        return [n for n in vars(slicer.moduleNames) if not n.startswith("_")]


def register(name: str, module) -> None:
    """Make a module known as `slicer.modules.<lower case name>`."""
    import slicer

    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.moduleNames, name, name)


def register_built_in(name: str, logic) -> None:
    module = lookalike("qSlicerLoadableModule")()
    module._bench.values.update(name=name, title=name)
    module._bench.logic = logic
    register(name, module)


def import_file(path: Path) -> types.ModuleType:
    """What Slicer does with a scripted module: import the file under its own name, its folder on the path."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = python_module
    spec.loader.exec_module(python_module)
    return python_module


def load_scripted_module(path: str | Path):
    """Import the file and let its module class describe itself; the widget is not made yet."""
    import slicer

    path = Path(path).resolve()
    python_module = import_file(path)
    module = slicer.qSlicerScriptedLoadableModule()
    module._bench.values.update(name=path.stem, path=str(path))
    register(path.stem, module)
    setattr(slicer.modules, path.stem + "Instance", getattr(python_module, path.stem)(module))
    slicer.app.moduleManager().moduleLoaded.emit(path.stem)
    return module


def make_widget(module):
    """What Slicer does when a module is first shown: make the widget class on a parent, then set it up."""
    import slicer

    name = module.name
    parent = slicer.qSlicerScriptedLoadableModuleWidget()
    parent.setObjectName(name + "ModuleWidget")
    parent.setMRMLScene(slicer.mrmlScene)
    parent._bench.values["moduleName"] = name
    fill_widget(parent, name)
    return parent


def fill_widget(parent, name: str) -> None:
    import slicer

    python = getattr(sys.modules[name], name + "Widget")(parent)
    parent._bench.python = python
    setattr(slicer.modules, name + "Widget", python)
    python.setup()
    parent.layout().addStretch(1)

"""`slicer.app`, and everything else the application adds to the module `slicer` before a scripted module is loaded."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

from PySide6 import QtCore

from . import editor, files, mrml_widgets, segment_widgets  # noqa: F401  (each defines look-alikes)
from .ctk_widgets import CtkModule
from .effects import install_effects
from .lookalikes import define, lookalike
from .modules import register_built_in
from .mrml import Mrml, map_views, start_mrml
from .pythonqt import make_qt_module
from .ui_loader import UiLoader

ADDITIONS = Path(__file__).parent / "slicer_additions"
MODULES = Path(__file__).parent / "slicer_modules"
VERSION = (5, 13)
DOCUMENTATION = "https://slicer.readthedocs.io/en/latest"


@define
class qSlicerCoreApplication:
    def _build(self):
        self._bench.__dict__.update(environment=dict(os.environ), mrml=None, managers={})
        self._bench.values.update(
            majorVersion=VERSION[0], minorVersion=VERSION[1], temporaryPath=tempfile.gettempdir(), revision="0",
            slicerHome=str(ADDITIONS), repositoryRevision="0", os=sys.platform, documentationBaseUrl=DOCUMENTATION,
        )  # fmt: skip

    def mrmlScene(self):
        return self._bench.mrml.scene

    def applicationLogic(self):
        return self._bench.mrml.application_logic

    def moduleLogic(self, name):
        return self._bench.mrml.application_logic.GetModuleLogic(name)

    def moduleManager(self):
        return self._bench.managers["modules"]

    def coreIOManager(self):
        return self._bench.managers["files"]

    def testingEnabled(self):
        return True

    def startupEnvironment(self):
        environment = QtCore.QProcessEnvironment()
        for name, value in self._bench.environment.items():
            environment.insert(name, value)
        return environment

    def environment(self):
        return QtCore.QProcessEnvironment.systemEnvironment()

    def userSettings(self):
        return QtCore.QSettings()

    def settings(self):
        return QtCore.QSettings()

    def revisionUserSettings(self):
        return QtCore.QSettings()

    def moduleDocumentationUrl(self, name):
        """Where Slicer's own modules have a page, and those of extensions have none."""
        return f"{DOCUMENTATION}/user_guide/modules/{name.lower()}.html"

    def setRenderPaused(self, paused):
        """Views of the bench render on demand only."""

    def pauseRender(self):
        """Views of the bench render on demand only."""

    def resumeRender(self):
        """Views of the bench render on demand only."""

    def logUsageEvent(self, component, event):
        self.usageEventLogged.emit(component, event)


@define
class qSlicerApplication:
    def ioManager(self):
        return self._bench.managers["files"]

    def layoutManager(self):
        map_views(self._bench.mrml)
        return self._bench.managers["layout"]

    def mainWindow(self):
        return None


def _slicer_class(name: str):
    """Names of `slicer` that come from the table: any class of Slicer, and nothing else."""
    if name[:4] in ("qMRM", "qSli") or name.startswith("ctk"):
        return lookalike(name)
    raise AttributeError(f"module 'slicer' has no attribute '{name}'")


def install_qt() -> types.ModuleType:
    """Put `qt`, `ctk` and the alias `PythonQt` where scripted modules import them from."""
    qt = make_qt_module()
    qt.QUiLoader = UiLoader
    sys.modules["qt"] = qt
    sys.modules["ctk"] = CtkModule("ctk")
    alias = types.ModuleType("PythonQt")
    sys.modules["PythonQt"] = alias
    for part in ("QtCore", "QtGui", "QtWidgets", "QtNetwork", "QtUiTools"):
        setattr(alias, part, qt)
        sys.modules[f"PythonQt.{part}"] = qt
    return qt


def keep_settings_apart() -> None:
    """Settings of the bench live in a new folder, so that no run sees another's."""
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    folder = tempfile.mkdtemp(prefix="bench-settings-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, folder)


def make_application():
    application = lookalike("qSlicerApplication")([])
    application.setOrganizationName("bench")
    application.setApplicationName("Slicer")
    return application


def fill_slicer(application, mrml: Mrml) -> None:
    """Add to the module `slicer` of the wheel what only the application knows."""
    import slicer
    import slicer.util

    slicer.__path__.append(str(ADDITIONS))
    sys.path.append(str(MODULES))
    slicer.app, slicer.mrmlScene = application, mrml.scene
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    slicer.moduleNames = types.SimpleNamespace()
    slicer.selfTests = {}
    slicer.__getattr__ = _slicer_class


def start_application() -> Mrml:
    """Start once in a process: Qt first, then the scene, then the modules' logics."""
    from .layout import make_layout_manager

    install_qt()
    keep_settings_apart()
    application, mrml = make_application(), start_mrml()
    fill_slicer(application, mrml)
    install_effects()
    application._bench.mrml = mrml
    application._bench.managers.update(
        modules=lookalike("qSlicerModuleManager")(),
        files=lookalike("qSlicerCoreIOManager")(),
        layout=make_layout_manager(mrml),
    )
    for name, logic in mrml.logics.items():
        register_built_in(name, logic)
    return mrml

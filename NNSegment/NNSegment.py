"""The NNSegment module of 3D Slicer: from loaded volumes and segmentations to a trained model and its predictions.

The panel is assembled here from the sections in NNSegmentUI; the work is done by NNSegmentLib, in child processes.
"""

import importlib.util
import sys
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

POLL_MS = 1000
SECTIONS = (
    ("taskButton", "task_section", "TaskSection"),
    ("planButton", "plan_section", "PlanSection"),
    ("trainButton", "train_section", "TrainSection"),
    ("resultsButton", "results_section", "ResultsSection"),
    ("applyButton", "apply_section", "ApplySection"),
)
"""(collapsible button of the panel, file in NNSegmentUI, class)."""


def _make_library_importable():
    """Installed, the library lies beside the module; in a checkout one folder up."""
    if importlib.util.find_spec("NNSegmentLib") is None:
        sys.path.append(str(Path(__file__).resolve().parent.parent))


_make_library_importable()


class NNSegment(ScriptedLoadableModule):
    """What the application shows about the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("NNSegment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Volumes"]
        parent.contributors = ["NNSegment contributors"]
        parent.helpText = (
            _(
                "Trains nnU-Net models on volumes and segmentations that are loaded in Slicer, and applies them to new "
                "volumes. Nothing leaves this computer."
            )
            + self.getDefaultModuleDocumentationLink()
        )
        parent.acknowledgementText = _(
            "Follows the method of Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical "
            "image segmentation. Nature Methods 18, 203-211 (2021)."
        )


class NNSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: a head with workspace, task and status, and one section per step."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.context = self.head = self.timer = None
        self.sections = {}

    def setup(self):
        from NNSegmentUI.context import PanelContext
        from NNSegmentUI.head import PanelHead

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/NNSegment.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = NNSegmentLogic()
        self.context = PanelContext()
        self.head = PanelHead(self.ui, self.context, self.resourcePath)
        self._make_sections()
        self.head.open_last_workspace()
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.connect("timeout()", self.context.poll)
        self.timer.start()

    def cleanup(self):
        """Jobs go on without the panel; the next start finds them."""
        self.removeObservers()
        if self.timer is not None:
            self.timer.stop()
        for section in self.sections.values():
            if hasattr(section, "cleanup"):
                section.cleanup()
        self.sections.clear()

    def enter(self):
        """What happened meanwhile is looked up at once, not a second later."""
        self.context.poll()

    def onReload(self):
        """Developer mode: forget our own packages, too, so that edited files are read again."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("NNSegmentUI", "NNSegmentLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def _make_sections(self):
        for button, file, name in SECTIONS:
            parent = getattr(self.ui, button)
            if importlib.util.find_spec(f"NNSegmentUI.{file}") is None:
                parent.hide()
                continue
            module = importlib.import_module(f"NNSegmentUI.{file}")
            self.sections[file] = getattr(module, name)(parent, self.context, self.resourcePath)


class NNSegmentLogic(ScriptedLoadableModuleLogic):
    """The module from the Python console."""


class NNSegmentTest(ScriptedLoadableModuleTest):
    """The self-test that developer mode offers."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()

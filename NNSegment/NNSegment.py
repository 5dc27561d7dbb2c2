"""The NNSegment module of 3D Slicer: from loaded volumes and segmentations to a trained model and its predictions.

The panel is assembled here from the sections in NNSegmentUI; the work is done by NNSegmentLib, in child processes.
"""

import importlib.util
import sys
import tempfile
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
DOCUMENTATION = "https://github.com/nnsegment/SlicerNNSegment#readme"
"""Slicer's own pages, of which the base class knows, have none about extensions."""
SECTIONS = (
    ("taskButton", "task_section", "TaskSection"),
    ("planButton", "plan_section", "PlanSection"),
    ("trainButton", "train_section", "TrainSection"),
    ("resultsButton", "results_section", "ResultsSection"),
    ("applyButton", "apply_section", "ApplySection"),
)
"""(collapsible button of the panel, file in NNSegmentUI, class)."""
COMMAND_LINES = ("workCommand", "trainCommandEdit", "applyCommandEdit")
"""The lines of the panel that show a command, to copy it."""


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
        parent.contributors = ["The NNSegment developers"]
        parent.helpText = (
            _(
                "Trains nnU-Net models on volumes and segmentations that are loaded in Slicer, and applies them to new "
                "volumes. Nothing leaves this computer."
            )
            + f'<p><a href="{DOCUMENTATION}">'
            + _("Documentation and tutorial")
            + "</a></p>"
        )
        parent.acknowledgementText = _(
            "Follows the method of Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical "
            "image segmentation. Nature Methods 18, 203-211 (2021)."
        )
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data():
    """Offer the phantoms in the module Sample Data."""
    from NNSegmentUI import sample_data

    sample_data.register_sample_data()


class NNSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: a head with workspace, task and status, and one section per step."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.context = self.head = self.parameters = self.timer = self.root = None
        self.sections = {}

    def setup(self):
        from NNSegmentUI.context import PanelContext, saved_python
        from NNSegmentUI.head import PanelHead
        from NNSegmentUI.parameters import SceneParameters

        ScriptedLoadableModuleWidget.setup(self)
        self.root = slicer.util.loadUI(self.resourcePath("UI/NNSegment.ui"))
        self.layout.addWidget(self.root)
        self.ui = slicer.util.childWidgetVariables(self.root)
        self.root.setMRMLScene(slicer.mrmlScene)
        self.logic = NNSegmentLogic()
        self.context = PanelContext(saved_python())
        self.head = PanelHead(self.ui, self.context, self.resourcePath)
        self._make_sections()
        self._explain_commands(self.root)
        self.head.open_last_workspace()
        self.parameters = SceneParameters(self.logic, self.context)
        self.timer = qt.QTimer()
        self.timer.setInterval(POLL_MS)
        self.timer.connect("timeout()", self.context.poll)
        self.timer.start()

    def cleanup(self):
        """Jobs go on without the panel; the next start finds them."""
        self.removeObservers()
        if self.timer is not None:
            self.timer.stop()
        for part in (self.head, *self.sections.values(), self.parameters):
            if hasattr(part, "cleanup"):
                part.cleanup()
        self.sections.clear()
        self.head = self.parameters = None  # the application may call again when it ends
        if self.root is not None:
            self._delete_widgets()

    def _delete_widgets(self):
        """A reload only hides them: they would go on to follow the scene, beside those of the new panel."""
        from NNSegmentUI.widgets import leave_scene

        leave_scene(self.root)
        self.root.deleteLater()
        self.root = None

    def enter(self):
        """What happened meanwhile is looked up at once, not a second later."""
        self.context.poll()

    def onReload(self):
        """Developer mode: forget our own packages, too, so that edited files are read again."""
        bridge = sys.modules.get("NNSegmentLib.scene")
        if bridge is not None:
            bridge.forget_predictions(slicer.mrmlScene)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("NNSegmentUI", "NNSegmentLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def _make_sections(self):
        for button, file, name in SECTIONS:
            section = getattr(importlib.import_module(f"NNSegmentUI.{file}"), name)
            self.sections[file] = section(getattr(self.ui, button), self.context, self.resourcePath)

    def _explain_commands(self, widget):
        """A terminal does not know where the library is: the tooltips of command lines tell what it needs first."""
        from NNSegmentLib.machine.launch import terminal_setting

        for name in COMMAND_LINES:
            edit = slicer.util.findChild(widget, name)
            text = _(
                "{tip}\nA terminal (on Windows the Command Prompt) first needs this line, so that Python finds NNSegment:"
            )
            edit.toolTip = text.format(tip=edit.toolTip) + f"\n{terminal_setting()}"


class NNSegmentLogic(ScriptedLoadableModuleLogic):
    """The module from the Python console.

        logic = slicer.util.getModuleLogic("NNSegment")
        logic.set_workspace("~/NNSegment")
        task = logic.create_task("Liver", [(volume1, segmentation1), (volume2, segmentation2)], channels=["CT"])
        logic.wait(logic.plan(task))
        logic.wait(logic.train(task, "3d_fullres", fold=0, time="1h"))
        segmentation = logic.predict(volume3, task=task)

    A task may be given as the record that `create_task` returns, as a number, or as a name. What takes long is a job
    (`NNSegmentLib.jobs.Job`), a process that goes on when Slicer is closed.
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        self._console = None

    def getParameterNode(self):
        """The scene's `NNSegmentParameterNode`."""
        from NNSegmentUI.parameters import NNSegmentParameterNode

        return NNSegmentParameterNode(super().getParameterNode())

    @property
    def console(self):
        """What does the work; made when it is first needed."""
        if self._console is None:
            from NNSegmentUI.console import Console

            self._console = Console()
        return self._console

    def set_workspace(self, folder):
        """Use this folder for tasks, models and jobs; until then it is the one that the panel used last."""
        self.console.set_workspace(folder)

    def set_python(self, path):
        """Let this Python do the work, one outside of Slicer that has PyTorch; returns the device it computes on.

        Until then it is the one that was chosen on the panel; None takes that one again. Raises SettingsError with all
        that the Python lacks.
        """
        return self.console.set_python(path)

    def create_task(self, name, pairs=None, channels=("MR",), segments=None):
        """Write a new task and return it.

        `pairs` are (volume node, segmentation node), with a tuple of volume nodes where there are several channels;
        None takes every pair of the scene. A channel named CT keeps Hounsfield units. `segments` names those that
        count, in the order of their label values. A single channel or segment may be given as a text. Raises TaskError
        and ImageError with a sentence for the user.
        """
        return self.console.create_task(name, pairs, channels, segments)

    def add_cases(self, task, pairs):
        """Write more (volume node, segmentation node) pairs into a task and return it.

        Where models were trained before, `plan(task, anew=True)` begins again with all cases. Raises TaskError,
        ImageError.
        """
        return self.console.add_cases(task, pairs)

    def check(self, task, fix=False):
        """Start looking for everything wrong with the task's files; returns the job."""
        return self.console.start("check", task, *(["--fix"] if fix else []))

    def plan(self, task, preset="default", gpu_memory_gb=None, anew=False):
        """Start measuring the data, planning configurations and preparing the cases; returns the job.

        `anew` begins again with all cases, also those that came or were corrected after a training, and sets the
        trained models aside.
        """
        memory = [] if gpu_memory_gb is None else ["--gpu-memory", gpu_memory_gb]
        return self.console.start("plan", task, "--preset", preset, *memory, *(["--anew"] if anew else []))

    def train(self, task, configuration="3d_fullres", fold="folds", time=None, epochs=None, device=None, resume=False):
        """Start training one fold, 'all' cases, or all 'folds' in turn; returns the job.

        `time` ("30m", "2h") or `epochs` sets the length; otherwise it is that of nnU-Net.
        """
        options = {"--time": time, "--epochs": epochs, "--device": device}
        words = [word for option, value in options.items() if value is not None for word in (option, value)]
        return self.console.start("train", task, configuration, fold, *words, *(["--resume"] if resume else []))

    def best(self, task):
        """Start comparing what was trained, so that predictions use the best of it; returns the job."""
        return self.console.start("best", task)

    def wait(self, job, timeout_s=float("inf")):
        """Wait for a job while Slicer stays alive; returns its result, as the command gives it with --json.

        Raises RunError with the reason when it failed, was stopped, or is not done in time.
        """
        return self.console.wait(job, timeout_s)

    def predict(
        self, volumes, task=None, model=None, configuration=None, segmentation=None, device=None, show_3d=False
    ):
        """Segment a volume node (a tuple of them for several channels) and return the segmentation node.

        With a `task`, its best configuration is used unless one is named; `model` is any folder or zip of nnU-Net,
        version 1 or 2. Segments go into the given segmentation node, or a new one. Raises ModelError, ImageError, RunError.
        """
        return self.console.predict(volumes, task, model, configuration, segmentation, device, show_3d)


class NNSegmentTest(ScriptedLoadableModuleTest):
    """The self-test that developer mode offers; it needs neither torch nor a network."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_loaded_pairs_become_a_task_that_is_sound()

    def test_loaded_pairs_become_a_task_that_is_sound(self):
        self.delayDisplay("Two volumes with a segmentation each are written as a task and checked in a job")
        for number in range(2):
            self._add_pair(f"case{number}")
        # Windows deletes no file that is open, and a process that has just ended may still hold its log
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            logic = NNSegmentLogic()
            logic.set_workspace(folder)
            task = logic.create_task("SelfTest")
            findings = logic.wait(logic.check(task), timeout_s=300)
            self.assertEqual([case.id for case in task.cases], ["case0", "case1"])
            self.assertEqual([label.name for label in task.labels.foreground], ["box"])
            self.assertEqual([f for f in findings["findings"] if f["severity"] == "error"], [])
        self.delayDisplay("Test passed")

    def _add_pair(self, name):
        import numpy as np

        image = np.random.default_rng(len(name)).normal(100, 10, (16, 20, 24)).astype(np.int16)
        inside = np.zeros(image.shape, np.uint8)
        inside[4:12, 5:15, 6:18] = 1
        volume = slicer.util.addVolumeFromArray(image + 50 * inside, name=name)
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name + " segmentation")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = segmentation.GetSegmentation().AddEmptySegment("box", "box")
        slicer.util.updateSegmentBinaryLabelmapFromArray(inside, segmentation, segment, volume)

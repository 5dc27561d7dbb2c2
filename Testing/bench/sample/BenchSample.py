"""A small scripted module of the usual shape, which the tests of the bench load and click through."""

import sys

import ctk
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:
    from typing import Annotated
except ImportError:
    from typing import Annotated


class BenchSample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Bench Sample")
        parent.categories = ["Segmentation"]
        parent.contributors = ["NNSegment"]
        parent.helpText = _("Counts the voxels above a threshold and makes a segment of them.")


@parameterNodeWrapper
class BenchSampleParameterNode:
    inputVolume: slicer.vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(0, 200)] = 50.0
    epochs: int = 3
    invert: bool = False
    name: str = "bright"


class BenchSampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.process = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BenchSample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BenchSampleLogic()
        self.parameters = self.logic.getParameterNode()
        self._binding = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.updateButton)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.updateButton)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.runButton.connect("clicked()", self.onRun)
        self.ui.casesSelector.connect("checkedNodesChanged()", self.updateTable)
        self.updateButton()

    def cleanup(self):
        self.removeObservers()
        self.parameters.disconnectGui(self._binding)

    def updateButton(self, caller=None, event=None):
        ready = self.parameters.inputVolume is not None
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Make the segment.") if ready else _("Choose a volume first.")

    def updateTable(self):
        nodes = self.ui.casesSelector.checkedNodes()
        self.ui.casesTable.rowCount = len(nodes)
        for row, node in enumerate(nodes):
            self.ui.casesTable.setItem(row, 0, qt.QTableWidgetItem(node.GetName()))

    def onApply(self):
        segmentation = self.logic.process(self.parameters)
        self.ui.segmentsTable.setSegmentationNode(segmentation)
        self.ui.statusLabel.text = _("{count} voxels").format(count=self.logic.count)

    def onRun(self):
        program = f"import time\nfor i in range({self.parameters.epochs}):\n time.sleep(0.02); print(i + 1, flush=True)"
        self.process = qt.QProcess()
        self.process.connect("readyReadStandardOutput()", self.onOutput)
        self.process.connect("finished(int,QProcess::ExitStatus)", self.onFinished)
        self.process.start(sys.executable, ["-c", program])

    def onOutput(self):
        lines = bytes(self.process.readAllStandardOutput().data()).decode().split()
        self.ui.progressBar.value = 100 * int(lines[-1]) // self.parameters.epochs

    def onFinished(self, code, status):
        self.ui.statusLabel.text = f"ended with {code}"


class BenchSampleLogic(ScriptedLoadableModuleLogic):
    count = 0

    def getParameterNode(self):
        return BenchSampleParameterNode(super().getParameterNode())

    def process(self, parameters):
        """A segmentation with one segment: the voxels of the volume above (or below) the threshold."""
        array = slicer.util.arrayFromVolume(parameters.inputVolume)
        mask = array < parameters.threshold if parameters.invert else array > parameters.threshold
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(parameters.inputVolume)
        segment = segmentation.GetSegmentation().AddEmptySegment(parameters.name, parameters.name, (1.0, 0.0, 0.0))
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype("uint8"), segmentation, segment, parameters.inputVolume
        )
        self.count = int(mask.sum())
        return segmentation


class BenchSampleTest(ScriptedLoadableModuleTest):
    def runTest(self):
        slicer.mrmlScene.Clear(0)
        assert ctk.ctkCollapsibleButton().collapsed is False

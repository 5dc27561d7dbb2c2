"""The layout manager with slice, 3D and plot views: real MRML views that render off screen, on demand."""

from __future__ import annotations

from PySide6 import QtCore, QtGui

from . import mrml_widgets  # noqa: F401  (defines the base class)
from .lookalikes import define, lookalike
from .mrml import Mrml, map_views, view_nodes
from .rendering import RenderedChart, RenderedSlice, RenderedThreeD, to_image, window_pixels


@define
class qMRMLSliceView:
    def _build(self):
        self._bench.__dict__.update(logic=None, rendered=None)

    def _rendered(self):
        if self._bench.rendered is None:
            self._bench.rendered = RenderedSlice(self._bench.logic)
        return self._bench.rendered

    def mrmlSliceNode(self):
        return self._bench.logic.GetSliceNode()

    def renderWindow(self):
        return self._rendered().window

    def interactor(self):
        return self._rendered().interactor

    def scheduleRender(self):
        """The bench renders when somebody looks."""

    def forceRender(self):
        self._rendered().pixels()

    def convertRASToXYZ(self, ras):
        import vtk

        to_slice = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), to_slice)
        return list(to_slice.MultiplyPoint([*ras, 1.0])[:3])

    def convertXYZToRAS(self, xyz):
        return list(self.mrmlSliceNode().GetXYToRAS().MultiplyPoint([*xyz, 1.0])[:3])


@define
class qMRMLSliceControllerWidget:
    def _build(self):
        lookalike("qMRMLWidget")._build(self)
        self._bench.logic = None

    def sliceLogic(self):
        return self._bench.logic

    def mrmlSliceNode(self):
        return self._bench.logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._bench.logic.GetSliceCompositeNode()

    def fitSliceToBackground(self):
        self._bench.logic.FitSliceToBackground()

    def setSliceOffsetValue(self, offset):
        self._bench.logic.SetSliceOffset(offset)

    def setSliceVisible(self, visible):
        self.mrmlSliceNode().SetSliceVisible(visible)


@define
class qMRMLSliceWidget:
    def _build(self):
        self._bench.view = lookalike("qMRMLSliceView")(self)
        self._bench.controller = lookalike("qMRMLSliceControllerWidget")(self)

    def _show(self, logic):
        self._bench.logic = self._bench.view._bench.logic = self._bench.controller._bench.logic = logic
        return self

    def sliceLogic(self):
        return self._bench.logic

    def mrmlSliceNode(self):
        return self._bench.logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._bench.logic.GetSliceCompositeNode()

    def sliceView(self):
        return self._bench.view

    def sliceController(self):
        return self._bench.controller

    def fitSliceToBackground(self):
        self._bench.logic.FitSliceToBackground()

    def setSliceOrientation(self, orientation):
        self.mrmlSliceNode().SetOrientation(orientation)


@define
class qMRMLThreeDView:
    def _build(self):
        self._bench.__dict__.update(logic=None, layout_name="", rendered=None, shown=None)

    def _rendered(self):
        node = self.mrmlViewNode()
        if self._bench.rendered is None or self._bench.shown is not node:
            self._bench.rendered, self._bench.shown = RenderedThreeD(node), node
        return self._bench.rendered

    def mrmlViewNode(self):
        """Looked up each time: when the scene is closed, the logic forgets the node that stays in the scene."""
        return self._bench.logic.GetMRMLScene().GetSingletonNode(self._bench.layout_name, "vtkMRMLViewNode")

    def renderWindow(self):
        return self._rendered().window

    def renderer(self):
        return self._rendered().renderer

    def interactor(self):
        return self._rendered().interactor

    def resetFocalPoint(self):
        self._rendered().reset_camera()

    def resetCamera(self, *_):
        self._rendered().reset_camera()

    def scheduleRender(self):
        """The bench renders when somebody looks."""

    def forceRender(self):
        self._rendered().pixels()

    def rotateToViewAxis(self, axis):
        import slicer

        cameras = slicer.util.getNodesByClass("vtkMRMLCameraNode")
        next(c for c in cameras if c.GetLayoutName() == self.mrmlViewNode().GetLayoutName()).RotateTo(axis)


@define
class qMRMLThreeDWidget:
    def _build(self):
        self._bench.__dict__.update(logic=None, view=lookalike("qMRMLThreeDView")(self))

    def _show(self, logic, layout_name):
        self._bench.logic = self._bench.view._bench.logic = logic
        self._bench.view._bench.layout_name = layout_name
        return self

    def threeDView(self):
        return self._bench.view

    def mrmlViewNode(self):
        return self._bench.view.mrmlViewNode()

    def viewLogic(self):
        return self._bench.logic


@define
class qMRMLPlotView:
    def _build(self):
        self._bench.__dict__.update(scene=None, node=None, rendered=None)
        self.setMinimumHeight(120)

    def setMRMLScene(self, scene):
        self._bench.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def setMRMLPlotViewNode(self, node):
        self._bench.node = node
        self.update()

    def _pixels(self, size):
        if self._bench.rendered is None:
            self._bench.rendered = RenderedChart()
        node = self._bench.node
        return self._bench.rendered.pixels(node.GetPlotChartNode() if node is not None else None, size)

    def renderWindow(self):
        self._pixels((self.width, self.height))
        return self._bench.rendered.window

    def chart(self):
        self._pixels((self.width, self.height))
        return self._bench.rendered.chart

    def fitToContent(self):
        self.update()

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        painter.drawImage(0, 0, to_image(self._pixels((max(self.width, 1), max(self.height, 1)))))


@define
class qMRMLPlotWidget:
    def _build(self):
        self._bench.__dict__.update(scene=None, view=lookalike("qMRMLPlotView")(self))

    def setMRMLScene(self, scene):
        self._bench.view.setMRMLScene(scene)

    def setMRMLPlotViewNode(self, node):
        self._bench.view.setMRMLPlotViewNode(node)

    def mrmlPlotViewNode(self):
        return self._bench.view._bench.node

    def plotView(self):
        return self._bench.view

    def resizeEvent(self, event):
        self._bench.view.setGeometry(self.rect)


@define
class qMRMLLayoutManager:
    def _build(self):
        self._bench.__dict__.update(mrml=None, slices={}, three_d={}, plots={})

    def mrmlScene(self):
        return self._bench.mrml.scene

    def layoutLogic(self):
        return self._bench.mrml.layout_logic

    # --- slices ------------------------------------------------------------------------------------------------

    def sliceViewNames(self):
        return list(self._bench.mrml.slice_logics)

    def sliceWidget(self, name):
        logic = self._bench.mrml.slice_logics.get(name)
        if logic is not None and name not in self._bench.slices:
            self._bench.slices[name] = lookalike("qMRMLSliceWidget")()._show(logic)
        return self._bench.slices.get(name)

    def mrmlSliceLogics(self):
        return self._bench.mrml.application_logic.GetSliceLogics()

    def resetSliceViews(self):
        for logic in self._bench.mrml.slice_logics.values():
            logic.FitSliceToBackground()

    # --- 3D ----------------------------------------------------------------------------------------------------

    def threeDWidget(self, place):
        index = place if isinstance(place, int) else int(place) - 1
        logics = self._bench.mrml.view_logics
        if not 0 <= index < len(logics):
            return None
        if index not in self._bench.three_d:
            self._bench.three_d[index] = lookalike("qMRMLThreeDWidget")()._show(logics[index], str(index + 1))
        return self._bench.three_d[index]

    def mrmlViewLogics(self):
        return self._bench.mrml.application_logic.GetViewLogics()

    def resetThreeDViews(self):
        for index in range(len(self._bench.mrml.view_logics)):
            self.threeDWidget(index).threeDView().resetFocalPoint()

    # --- plots -------------------------------------------------------------------------------------------------

    def _plot_nodes(self):
        return [node for node in view_nodes(self._bench.mrml) if node.IsA("vtkMRMLPlotViewNode")]

    def plotWidget(self, index):
        nodes = self._plot_nodes()
        if not 0 <= index < len(nodes):
            return None
        if index not in self._bench.plots:
            self._bench.plots[index] = lookalike("qMRMLPlotWidget")()
        self._bench.plots[index].setMRMLPlotViewNode(nodes[index])
        return self._bench.plots[index]

    # --- the arrangement ---------------------------------------------------------------------------------------

    def setLayout(self, layout):
        self._bench.mrml.layout_logic.GetLayoutNode().SetViewArrangement(layout)
        map_views(self._bench.mrml)
        self.layoutChanged.emit(layout)

    layout = QtCore.Property(
        int,
        lambda self: self._bench.mrml.layout_logic.GetLayoutNode().GetViewArrangement(),
        lambda self, layout: self.setLayout(layout),
    )
    threeDViewCount = QtCore.Property(int, lambda self: len(self._bench.mrml.view_logics))
    plotViewCount = QtCore.Property(int, lambda self: len(self._plot_nodes()))

    def setRenderPaused(self, paused):
        """Views of the bench render on demand only."""

    pauseRender = resumeRender = lambda self: None


def make_layout_manager(mrml: Mrml):
    """The layout manager of the application; its views are made when somebody asks for them."""
    manager = lookalike("qSlicerLayoutManager")()
    manager._bench.mrml = mrml
    return manager


def slice_pixels(manager, name: str, size: tuple[int, int]):
    """What the slice view of that name shows at that size, (height, width, 3) uint8."""
    rendered = manager.sliceWidget(name).sliceView()._rendered()
    rendered.resize(size)
    return rendered.pixels()


def three_d_pixels(manager, size: tuple[int, int]):
    """What the first 3D view shows at that size, (height, width, 3) uint8."""
    rendered = manager.threeDWidget(0).threeDView()._rendered()
    rendered.resize(size)
    return window_pixels(rendered.window)


def plot_pixels(manager, size: tuple[int, int]):
    """What the first plot view shows at that size, (height, width, 3) uint8."""
    return manager.plotWidget(0).plotView()._pixels(size)

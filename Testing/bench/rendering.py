"""MRML views rendered off screen with Mesa: slices, 3D and charts, without any window system."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

SLICE_MANAGERS = ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D")
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


def prefer_egl() -> None:
    """Without a screen VTK tries X first and complains before it takes EGL."""
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def offscreen_window(size: tuple[int, int]):
    import vtk

    prefer_egl()
    window = vtk.vtkRenderWindow()
    window.SetShowWindow(False)
    window.SetOffScreenRendering(1)
    window.SetSize(*size)
    return window


def window_pixels(window) -> np.ndarray:
    """The picture of the window, (height, width, 3) uint8, first row on top."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    window.Render()
    reader = vtk.vtkWindowToImageFilter()
    reader.SetInput(window)
    reader.ReadFrontBufferOff()
    reader.Update()
    image = reader.GetOutput()
    width, height, _ = image.GetDimensions()
    flat = vtk_to_numpy(image.GetPointData().GetScalars())
    return np.ascontiguousarray(flat.reshape(height, width, -1)[::-1, :, :3])


def to_image(pixels: np.ndarray):
    from PySide6 import QtGui

    height, width, _ = pixels.shape
    return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format_RGB888).copy()


def save_png(pixels: np.ndarray, path: str | Path) -> Path:
    if not to_image(pixels).save(str(path)):
        raise OSError(f"the picture cannot be written to {path}")
    return Path(path)


class ManagedView:
    """A render window whose content Slicer's own displayable managers put there."""

    def __init__(self, factory_class, managers, node, size):
        import slicer
        import vtk

        self.renderer, self.window = vtk.vtkRenderer(), offscreen_window(size)
        self.window.AddRenderer(self.renderer)
        self._prepare()
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory = factory_class.GetInstance()
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(node)

    def _prepare(self) -> None:
        """Add what must lie below everything else."""

    def resize(self, size: tuple[int, int]) -> None:
        self.window.SetSize(*size)


class RenderedSlice(ManagedView):
    """One slice view: the blended image layers below, segments and models above."""

    def __init__(self, logic, size=(400, 400)):
        import slicer

        self.logic = logic
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory
        super().__init__(factory, SLICE_MANAGERS, logic.GetSliceNode(), size)
        self.resize(size)

    def _prepare(self):
        """The image is the first actor of the overlay pass: in the pass before it, segments would not blend with it."""
        import vtk

        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.mapper, self.layer = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.layer.SetMapper(self.mapper)
        self.renderer.AddViewProp(self.layer)

    def resize(self, size):
        super().resize(size)
        self.logic.ResizeSliceNode(*size)

    def pixels(self) -> np.ndarray:
        """What the view shows; black where no volume is."""
        self.logic.UpdatePipeline()
        connection = self.logic.GetImageDataConnection()
        shown = connection is not None and self.logic.GetSliceCompositeNode().GetBackgroundVolumeID() is not None
        self.layer.SetVisibility(shown)
        if shown:
            self.mapper.SetInputConnection(connection)
        return window_pixels(self.window)


class RenderedThreeD(ManagedView):
    """The 3D view, with surfaces of segments and models."""

    def __init__(self, node, size=(400, 400)):
        import slicer

        super().__init__(slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, node, size)

    def reset_camera(self) -> None:
        self.renderer.ResetCamera()

    def pixels(self) -> np.ndarray:
        return window_pixels(self.window)


class RenderedChart:
    """A chart of MRML plot nodes drawn by VTK's charts."""

    def __init__(self, size=(400, 300)):
        import vtk

        self.window = offscreen_window(size)
        self.view = vtk.vtkContextView()
        self.view.SetRenderWindow(self.window)
        self.chart = vtk.vtkChartXY()
        self.view.GetScene().AddItem(self.chart)

    def pixels(self, chart_node, size: tuple[int, int]) -> np.ndarray:
        """The chart of the node; an empty white picture for None."""
        self.window.SetSize(*size)
        self.view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
        self.chart.ClearPlots()
        if chart_node is not None:
            self._set_titles(chart_node)
            for index in range(chart_node.GetNumberOfPlotSeriesNodes()):
                self._add_series(chart_node.GetNthPlotSeriesNode(index))
        self.chart.RecalculateBounds()
        return window_pixels(self.window)

    def _set_titles(self, node):
        import vtk

        self.chart.SetTitle(node.GetTitle() or "")
        self.chart.SetShowLegend(bool(node.GetLegendVisibility()))
        for axis, text in ((vtk.vtkAxis.BOTTOM, node.GetXAxisTitle()), (vtk.vtkAxis.LEFT, node.GetYAxisTitle())):
            self.chart.GetAxis(axis).SetTitle(text or "")

    def _add_series(self, series):
        import vtk

        table = series.GetTableNode().GetTable() if series.GetTableNode() else None
        if table is None or not table.GetColumnByName(series.GetYColumnName() or ""):
            return
        bars = series.GetPlotType() in (series.PlotTypeBar, series.PlotTypeScatterBar)
        plot = self.chart.AddPlot(vtk.vtkChart.BAR if bars else vtk.vtkChart.LINE)
        by_index = series.GetPlotType() in (series.PlotTypeBar, series.PlotTypeLine) or not series.GetXColumnName()
        if by_index:
            plot.SetUseIndexForXSeries(True)
            plot.SetInputData(table, series.GetYColumnName(), series.GetYColumnName())
        else:
            plot.SetInputData(table, series.GetXColumnName(), series.GetYColumnName())
        plot.SetColorF(*series.GetColor())
        plot.SetWidth(series.GetLineWidth())
        plot.SetLabel(series.GetName())

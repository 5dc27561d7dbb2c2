"""The curves of a training run as a plot of Slicer, drawn again as epochs come in."""

from __future__ import annotations

import math

import slicer
import vtk
from slicer.i18n import tr as _

EPOCH = "Epoch"
_COLORS = {"training loss": (0.16, 0.45, 0.78), "validation loss": (0.82, 0.24, 0.22), "Dice": (0.20, 0.62, 0.30)}
_NODES = {"table": "vtkMRMLTableNode", "chart": "vtkMRMLPlotChartNode"}


class Curves:
    """One table, one chart and three series in the scene; made when first shown, made again after the scene closed."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._title = ""

    @property
    def chart(self):
        """The chart node, or None while there is none."""
        return self._node("chart")

    @property
    def table(self):
        """The table node, or None while there is none."""
        return self._node("table")

    def draw(self, events, title: str) -> None:
        """Show the epochs among the events of one run."""
        from NNSegmentLib.run import EpochFinished

        epochs = [event for event in events if isinstance(event, EpochFinished)]
        if self.chart is None or self.table is None:
            self._make_nodes()
        self._fill(self.table, epochs)
        self.chart.SetTitle(title)

    def show_in_layout(self) -> None:
        """Make room for the plot in the views."""
        if self.chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(self.chart)

    def _node(self, name: str):
        return slicer.mrmlScene.GetNodeByID(self._ids[name]) if name in self._ids else None

    def _make_nodes(self) -> None:
        for name, node_class in _NODES.items():
            node = slicer.mrmlScene.AddNewNodeByClass(node_class, f"NNSegment {name}")
            node.SetSaveWithScene(False)
            self._ids[name] = node.GetID()
        self._fill(self.table, [])
        self.chart.SetXAxisTitle(_("Epoch"))
        self.chart.SetYAxisTitle(_("Loss and Dice"))
        for column, color in _COLORS.items():
            self.chart.AddAndObservePlotSeriesNodeID(self._make_series(column, color).GetID())

    def _make_series(self, column: str, color):
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", column)
        series.SetSaveWithScene(False)
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetXColumnName(EPOCH)
        series.SetYColumnName(column)
        series.SetColor(*color)
        return series

    def _fill(self, node, epochs) -> None:
        modified = node.StartModify()
        table = vtk.vtkTable()
        _add_column(table, EPOCH, [event.epoch for event in epochs])
        _add_column(table, "training loss", [event.train_loss for event in epochs])
        _add_column(table, "validation loss", [event.validation_loss for event in epochs])
        _add_column(table, "Dice", [event.mean_dice for event in epochs])
        node.SetAndObserveTable(table)
        node.EndModify(modified)


def _add_column(table, name: str, values) -> None:
    from NNSegmentLib.run import HIGHEST_DRAWN

    column = vtk.vtkFloatArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(math.nan if value is None or abs(value) > HIGHEST_DRAWN else value)
    table.AddColumn(column)

"""Behaviour of the qMRML widgets that show the segments of a segmentation."""

from __future__ import annotations

import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from . import mrml_widgets  # noqa: F401  (defines the base class)
from .lookalikes import define, lookalike

SEGMENT_ID = QtCore.Qt.UserRole


def observe_segments(widget, node, react) -> None:
    """Follow the segmentation of the node, after the event that is under way has ended."""
    observed = widget._bench.__dict__.get("observed")
    if observed:
        observed[0].RemoveObserver(observed[1])
    widget._bench.observed = None
    if node is None:
        return
    segmentation = node.GetSegmentation()
    later = lambda *_: QtCore.QTimer.singleShot(0, widget, react)  # noqa: E731
    widget._bench.observed = (segmentation, segmentation.AddObserver(vtk.vtkCommand.AnyEvent, later))


def color_icon(segment) -> QtGui.QIcon:
    pixmap = QtGui.QPixmap(12, 12)
    pixmap.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
    return QtGui.QIcon(pixmap)


def column(parent, *widgets) -> None:
    layout = QtWidgets.QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


@define
class qMRMLSegmentSelectorWidget:
    defaults = {"segmentationNodeSelectorVisible": True}

    def _build(self):
        lookalike("qMRMLWidget")._build(self)
        selector = self._bench.selector = lookalike("qMRMLNodeComboBox")()
        selector.nodeTypes = ["vtkMRMLSegmentationNode"]
        selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled = True
        self._bench.list = QtWidgets.QListWidget()
        self._bench.list.setMaximumHeight(90)
        column(self, selector, self._bench.list)
        self.mrmlSceneChanged.connect(selector.setMRMLScene)
        selector.currentNodeChanged[object].connect(self._node_changed)
        self._bench.list.itemChanged.connect(lambda _: self.segmentSelectionChanged.emit(self.selectedSegmentIDs()))
        self._bench.list.currentRowChanged.connect(lambda _: self.currentSegmentChanged.emit(self.currentSegmentID()))

    def _node_changed(self, node):
        observe_segments(self, node, self._fill)
        self._fill()
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)

    def _on_multiSelection(self, _):
        self._fill()

    def _on_segmentationNodeSelectorVisible(self, visible):
        self._bench.selector.setVisible(visible)

    def _fill(self):
        segments, selected, current = self._bench.list, self.selectedSegmentIDs(), self.currentSegmentID()
        segments.blockSignals(True)
        segments.clear()
        for segment_id in self.segmentIDs():
            segments.addItem(self._item(segment_id, segment_id in selected))
        segments.blockSignals(False)
        self.setCurrentSegmentID(current)

    def _item(self, segment_id, ticked):
        segment = self.currentNode().GetSegmentation().GetSegment(segment_id)
        item = QtWidgets.QListWidgetItem(color_icon(segment), segment.GetName())
        item.setData(SEGMENT_ID, segment_id)
        if self.multiSelection:
            item.setCheckState(QtCore.Qt.Checked if ticked else QtCore.Qt.Unchecked)
        return item

    def _items(self):
        return [self._bench.list.item(i) for i in range(self._bench.list.count)]

    def segmentIDs(self):
        node = self.currentNode()
        return [] if node is None else list(node.GetSegmentation().GetSegmentIDs())

    def currentNode(self):
        return self._bench.selector.currentNode()

    def currentNodeID(self):
        return self._bench.selector.currentNodeID

    def setCurrentNode(self, node):
        self._bench.selector.setCurrentNode(node)

    def setCurrentNodeID(self, node_id):
        self._bench.selector.setCurrentNodeID(node_id)

    def currentSegmentID(self):
        item = self._bench.list.currentItem()
        return "" if item is None else item.data(SEGMENT_ID)

    def setCurrentSegmentID(self, segment_id):
        for index, item in enumerate(self._items()):
            if item.data(SEGMENT_ID) == segment_id:
                self._bench.list.setCurrentRow(index)

    def selectedSegmentIDs(self):
        return [i.data(SEGMENT_ID) for i in self._items() if i.checkState() == QtCore.Qt.Checked]

    def setSelectedSegmentIDs(self, segment_ids):
        for item in self._items():
            item.setCheckState(QtCore.Qt.Checked if item.data(SEGMENT_ID) in segment_ids else QtCore.Qt.Unchecked)


@define
class qMRMLSegmentsTableView:
    defaults = {
        "selectionMode": 3, "headerVisible": True, "visibilityColumnVisible": True, "colorColumnVisible": True,
        "opacityColumnVisible": True, "statusColumnVisible": False, "layerColumnVisible": False,
    }  # fmt: skip

    def _build(self):
        lookalike("qMRMLWidget")._build(self)
        self._bench.__dict__.update(node=None, hidden=[])
        table = self._bench.table = QtWidgets.QTableWidget(0, 3)
        table.setHorizontalHeaderLabels(["", "Color", "Name"])
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.horizontalHeader().setStretchLastSection(True)
        column(self, table)
        table.selectionModel().selectionChanged.connect(lambda a, b: self.selectionChanged.emit(a, b))
        table.itemChanged.connect(self._edited)

    segmentCount = QtCore.Property(int, lambda self: len(self.displayedSegmentIDs()))

    def tableWidget(self):
        return self._bench.table

    def segmentationNode(self):
        return self._bench.node

    def setSegmentationNode(self, node):
        self._bench.node = node
        observe_segments(self, node, self._fill)
        self._fill()

    def displayedSegmentIDs(self):
        node = self._bench.node
        return (
            [] if node is None else [i for i in node.GetSegmentation().GetSegmentIDs() if i not in self._bench.hidden]
        )

    def setHideSegments(self, segment_ids):
        self._bench.hidden = list(segment_ids)
        self._fill()

    def hideSegments(self):
        return self._bench.hidden

    def _on_readOnly(self, read_only):
        triggers = (
            QtWidgets.QAbstractItemView.NoEditTriggers if read_only else QtWidgets.QAbstractItemView.DoubleClicked
        )
        self._bench.table.setEditTriggers(triggers)

    def _on_headerVisible(self, visible):
        self._bench.table.horizontalHeader().setVisible(visible)

    def _on_visibilityColumnVisible(self, visible):
        self._bench.table.setColumnHidden(0, not visible)

    def _on_colorColumnVisible(self, visible):
        self._bench.table.setColumnHidden(1, not visible)

    def _fill(self):
        selected, table = self.selectedSegmentIDs(), self._bench.table
        table.blockSignals(True)
        table.setRowCount(len(self.displayedSegmentIDs()))
        for index, segment_id in enumerate(self.displayedSegmentIDs()):
            segment = self._bench.node.GetSegmentation().GetSegment(segment_id)
            name = QtWidgets.QTableWidgetItem(segment.GetName())
            name.setData(SEGMENT_ID, segment_id)
            for place, item in enumerate((QtWidgets.QTableWidgetItem("●"), self._swatch(segment), name)):
                table.setItem(index, place, item)
        table.blockSignals(False)
        self.setSelectedSegmentIDs(selected)

    def _swatch(self, segment):
        item = QtWidgets.QTableWidgetItem()
        item.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
        return item

    def _edited(self, item):
        if item.column() == 2:
            self._bench.node.GetSegmentation().GetSegment(item.data(SEGMENT_ID)).SetName(item.text())

    def selectedSegmentIDs(self):
        table = self._bench.table
        return [table.item(i.row(), 2).data(SEGMENT_ID) for i in table.selectionModel().selectedRows()]

    def setSelectedSegmentIDs(self, segment_ids):
        model = self._bench.table.selectionModel()
        flags = QtCore.QItemSelectionModel.Select | QtCore.QItemSelectionModel.Rows
        model.clearSelection()
        for index, segment_id in enumerate(self.displayedSegmentIDs()):
            if segment_id in segment_ids:
                model.select(self._bench.table.model().index(index, 0), flags)

    def clearSelection(self):
        self._bench.table.clearSelection()

    def rowForSegmentID(self, segment_id):
        ids = self.displayedSegmentIDs()
        return ids.index(segment_id) if segment_id in ids else -1

    def segmentIDForRow(self, index):
        return self.displayedSegmentIDs()[index]


@define
class qMRMLSegmentationShow3DButton:
    def _build(self):
        self._bench.node = None
        self.setText("Show 3D")
        self.setCheckable(True)
        self.toggled.connect(self._toggled)

    def segmentationNode(self):
        return self._bench.node

    def setSegmentationNode(self, node):
        self._bench.node = node

    def _toggled(self, on):
        node = self._bench.node
        if node is None:
            return
        if on:
            node.CreateClosedSurfaceRepresentation()
        else:
            node.RemoveClosedSurfaceRepresentation()

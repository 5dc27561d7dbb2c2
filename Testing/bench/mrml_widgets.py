"""Behaviour of the qMRML widgets that choose nodes, on the real scene."""

from __future__ import annotations

import shiboken6
import vtk
from PySide6 import QtCore, QtWidgets

from .ctk_widgets import row
from .lookalikes import define, lookalike

ADD, REMOVE, RENAME = "\0add", "\0remove", "\0rename"


def same_object(one, other) -> bool:
    return one is other


def watch_scene(widget, scene, react) -> None:
    """Observe what changes the list of nodes; forget the scene that was observed before."""
    for observed, tag in widget._bench.__dict__.setdefault("tags", []):
        observed.RemoveObserver(tag)
    widget._bench.tags = []
    if scene is None:
        return

    def changed(*_):
        if shiboken6.isValid(widget):  # a deleted widget of Slicer observes nothing any more
            react()

    for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent, scene.EndCloseEvent):
        widget._bench.tags.append((scene, scene.AddObserver(event, changed)))


def node_label(class_name: str) -> str:
    """ "vtkMRMLScalarVolumeNode" → "ScalarVolume"."""
    return class_name.removeprefix("vtkMRML").removesuffix("Node")


@define
class qMRMLWidget:
    def _build(self):
        self._bench.scene = None

    def mrmlScene(self):
        return self._bench.scene

    def setMRMLScene(self, scene):
        if not same_object(scene, self._bench.scene):
            self._bench.scene = scene
            self.mrmlSceneChanged.emit(scene)


@define
class qMRMLNodeComboBox:
    defaults = {
        "addEnabled": True, "removeEnabled": True, "showChildNodeTypes": True, "selectNodeUponCreation": True,
        "noneDisplay": "None",
    }  # fmt: skip

    def _build(self):
        self._bench.__dict__.update(scene=None, attributes=[], filling=False, last="", labels={}, actions=[], named=[])
        combo = self._bench.combo = QtWidgets.QComboBox()
        combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(8)
        row(self, combo)
        combo.currentIndexChanged.connect(lambda _: self._announce())
        combo.activated.connect(self._activated)

    def mrmlScene(self):
        return self._bench.scene

    def setMRMLScene(self, scene):
        self._bench.scene = scene
        watch_scene(self, scene, self._fill)
        self._fill()

    def addAttribute(self, node_type, name, value=None):
        self._bench.attributes.append((node_type, name, None if value is None else str(value)))
        self._fill()

    def removeAttribute(self, node_type, name):
        self._bench.attributes = [a for a in self._bench.attributes if a[:2] != (node_type, name)]
        self._fill()

    def setNodeTypeLabel(self, label, node_type):
        self._bench.labels[node_type] = label
        self._fill()

    def nodeTypeLabel(self, node_type):
        return self._bench.labels.get(node_type, node_label(node_type))

    def addMenuAction(self, action):
        self._bench.actions.append(action)

    # --- which nodes -------------------------------------------------------------------------------------------

    def _listed(self, node):
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        types = [t for t in self.nodeTypes if (node.IsA(t) if self.showChildNodeTypes else node.GetClassName() == t)]
        hidden = any(node.IsA(t) for t in self.hideChildNodeTypes if t not in self.nodeTypes)
        return bool(types) and not hidden and self._attributes_fit(node, types)

    def _attributes_fit(self, node, types):
        wanted = [(name, value) for kind, name, value in self._bench.attributes if kind in types]
        found = [(node.GetAttribute(name), value) for name, value in wanted]
        return all(has is not None and value in (None, has) for has, value in found)

    def _nodes(self):
        scene = self._bench.scene
        every = [] if scene is None else [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        return [node for node in every if self._listed(node)]

    def nodeCount(self):
        return len(self._nodes())

    def nodeFromIndex(self, index):
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    # --- the list ----------------------------------------------------------------------------------------------

    def _fill(self, *_):
        if self._bench.scene is not None and self._bench.scene.IsBatchProcessing():
            return
        combo, chosen = self._bench.combo, self._bench.last
        self._bench.filling = True
        combo.clear()
        if self.noneEnabled:
            combo.addItem(self.noneDisplay, "")
        self._watch_names(self._nodes())
        for node in self._nodes():
            combo.addItem(node.GetName(), node.GetID())
        self._fill_actions(combo)
        combo.setCurrentIndex(self._place_of(chosen))
        self._bench.filling = False
        self._decorate()
        self._announce()

    def _fill_actions(self, combo):
        kind = self.nodeTypeLabel(self.nodeTypes[0]) if self.nodeTypes else "node"
        for enabled, text, data in (
            (self.addEnabled, f"Create new {kind}", ADD),
            (self.removeEnabled, "Delete current node", REMOVE),
            (self.renameEnabled, "Rename current node", RENAME),
        ):
            if enabled:
                combo.addItem(text, data)

    def _place_of(self, node_id):
        """Where the node stands in the list; else the first node or None, as in Slicer."""
        place = self._bench.combo.findData(node_id) if node_id else -1
        first = str(self._bench.combo.itemData(0) or "")
        return place if place >= 0 else -1 if first.startswith("\0") or not self._bench.combo.count else 0

    def _decorate(self):
        """Checkable boxes show their ticks here."""

    def _watch_names(self, nodes):
        for node, tag in self._bench.named:
            node.RemoveObserver(tag)
        modified = vtk.vtkCommand.ModifiedEvent
        self._bench.named = [(n, n.AddObserver(modified, lambda caller, _: self._renamed(caller))) for n in nodes]

    def _renamed(self, node):
        if not shiboken6.isValid(self._bench.combo):  # a deleted widget of Slicer observes nothing any more
            return
        place = self._bench.combo.findData(node.GetID())
        if place >= 0 and self._bench.combo.itemText(place) != node.GetName():
            self._bench.combo.setItemText(place, node.GetName())
            self.currentNodeRenamed.emit(node.GetName())

    _on_nodeTypes = _on_showHidden = _on_showChildNodeTypes = _on_hideChildNodeTypes = _fill
    _on_noneEnabled = _on_addEnabled = _on_removeEnabled = _on_renameEnabled = _on_noneDisplay = _fill

    def _announce(self):
        node_id = self._current_id()
        shown = str(self._bench.combo.currentData or "")
        if self._bench.filling or node_id == self._bench.last or shown.startswith("\0"):
            return
        self._bench.last = node_id
        node = self.currentNode()
        self.currentNodeChanged[object].emit(node)
        self.currentNodeChanged[bool].emit(node is not None)
        self.currentNodeIDChanged.emit(node_id)

    def _activated(self, index):
        chosen = self._bench.combo.itemData(index)
        if chosen == ADD:
            node = self.addNode()
            self.nodeAddedByUser.emit(node)
            self.nodeAddedByUserAction.emit(node)
        elif chosen == REMOVE:
            self._bench.scene.RemoveNode(self._bench.scene.GetNodeByID(self._bench.last))
        elif chosen != RENAME:
            self.nodeActivated.emit(self.currentNode())

    # --- the current node --------------------------------------------------------------------------------------

    def addNode(self, node_type=None):
        kind = node_type or self.nodeTypes[0]
        name = self._bench.scene.GenerateUniqueName(self.baseName or node_label(kind))
        node = self._bench.scene.AddNewNodeByClass(kind, name)
        for _, attribute, value in (a for a in self._bench.attributes if a[0] == kind and a[2] is not None):
            node.SetAttribute(attribute, value)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAdded.emit(node)
        return node

    def removeCurrentNode(self):
        node = self.currentNode()
        self.nodeAboutToBeRemoved.emit(node)
        self._bench.scene.RemoveNode(node)

    def currentNode(self):
        node_id = self._current_id()
        return self._bench.scene.GetNodeByID(node_id) if self._bench.scene is not None and node_id else None

    def setCurrentNode(self, node):
        self._select(node if isinstance(node, str) else "" if node is None else node.GetID())

    def setCurrentNodeID(self, node_id):
        self._select(node_id)

    def setCurrentNodeIndex(self, index):
        self.setCurrentNode(self.nodeFromIndex(index))

    def _current_id(self):
        data = self._bench.combo.currentData
        return data if data and not data.startswith("\0") else ""

    def _select(self, node_id):
        place = self._bench.combo.findData(node_id or "") if node_id or self.noneEnabled else -1
        self._bench.combo.setCurrentIndex(place)

    currentNodeID = QtCore.Property(str, lambda self: self._current_id(), lambda self, node_id: self._select(node_id))


@define
class qMRMLCheckableNodeComboBox:
    defaults = {"addEnabled": False, "removeEnabled": False}

    def _build(self):
        lookalike("qMRMLNodeComboBox")._build(self)
        self._bench.checked = set()

    def _decorate(self):
        combo = self._bench.combo
        for index in range(combo.count):
            ticked = combo.itemData(index) in self._bench.checked
            state = QtCore.Qt.Checked if ticked else QtCore.Qt.Unchecked
            combo.setItemData(index, state, QtCore.Qt.CheckStateRole)

    def setCheckState(self, node, state):
        change = self._bench.checked.add if int(state) == 2 else self._bench.checked.discard
        before = set(self._bench.checked)
        change(node.GetID())
        self._decorate()
        if before != self._bench.checked:
            self.checkedNodesChanged.emit()

    def check(self, node):
        self.setCheckState(node, QtCore.Qt.Checked)

    def uncheck(self, node):
        self.setCheckState(node, QtCore.Qt.Unchecked)

    def checkState(self, node):
        return QtCore.Qt.Checked if node.GetID() in self._bench.checked else QtCore.Qt.Unchecked

    def checkedNodes(self):
        return [n for n in self._nodes() if n.GetID() in self._bench.checked]

    def uncheckedNodes(self):
        return [n for n in self._nodes() if n.GetID() not in self._bench.checked]

    def allChecked(self):
        return not self.uncheckedNodes()

    def noneChecked(self):
        return not self.checkedNodes()


@define
class qMRMLSpinBox:
    def mrmlScene(self):
        return self._bench.__dict__.get("scene")

    def setMRMLScene(self, scene):
        self._bench.scene = scene


@define
class qMRMLSliderWidget:
    def mrmlScene(self):
        return self._bench.__dict__.get("scene")

    def setMRMLScene(self, scene):
        self._bench.scene = scene


@define
class qMRMLTableView:
    def _build(self):
        self._bench.__dict__.update(scene=None, table=None, tag=None)

    def mrmlScene(self):
        return self._bench.scene

    def setMRMLScene(self, scene):
        self._bench.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlTableNode(self):
        return self._bench.table

    def setMRMLTableNode(self, node):
        if self._bench.tag is not None:
            self._bench.table.RemoveObserver(self._bench.tag)
        self._bench.table, self._bench.tag = node, None
        if node is not None:
            self._bench.tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        self._show()

    def _show(self):
        from PySide6 import QtGui

        model, table = QtGui.QStandardItemModel(self), self._bench.table
        if table is not None:
            columns = [table.GetColumnName(c) for c in range(table.GetNumberOfColumns())]
            for r in range(table.GetNumberOfRows()):
                texts = [table.GetCellText(r, c) for c in range(len(columns))]
                model.appendRow([QtGui.QStandardItem(text) for text in texts])
            model.setHorizontalHeaderLabels(columns)
        self.setModel(model)

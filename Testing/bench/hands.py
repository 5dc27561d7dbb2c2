"""What a person's hands do to a widget: each function goes through the widget's own events or its user-level setters."""

from __future__ import annotations

from pathlib import Path

from PySide6 import QtCore, QtTest, QtWidgets

from .lookalikes import Lookalike, api_name


def click(widget) -> None:
    """Press and release the mouse in the middle of the widget; on the box of a check box, on the head of a section."""
    place = QtCore.QPoint(widget.width // 2, widget.height // 2)
    if isinstance(widget, QtWidgets.QCheckBox | QtWidgets.QRadioButton):
        place = QtCore.QPoint(8, widget.height // 2)
    if isinstance(widget, Lookalike) and api_name(type(widget)) == "ctkCollapsibleButton":
        place = QtCore.QPoint(20, 10)
    QtTest.QTest.mouseClick(widget, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier, place)


def set_text(widget, text: str) -> None:
    """Replace the text by typing; editing ends with the Enter key where there is one line."""
    if isinstance(widget, QtWidgets.QPlainTextEdit | QtWidgets.QTextEdit):
        widget.setPlainText(text)
        return
    if isinstance(widget, QtWidgets.QSpinBox | QtWidgets.QDoubleSpinBox):
        widget = widget.findChild(QtWidgets.QLineEdit)
    if not isinstance(widget, QtWidgets.QLineEdit):
        choose(widget, text)
        return
    widget.selectAll()
    QtTest.QTest.keyClick(widget, QtCore.Qt.Key_Delete)
    QtTest.QTest.keyClicks(widget, text)
    QtTest.QTest.keyClick(widget, QtCore.Qt.Key_Return)


def choose(widget, value) -> None:
    """Choose by what the widget is: a node, the text of an entry, a tick, a number, the text of a tab, a path."""
    if hasattr(widget, "currentNodeID") and hasattr(widget, "setCurrentNode"):
        widget.setCurrentNode(value)
    elif isinstance(widget, QtWidgets.QComboBox):
        _choose_entry(widget, value)
    elif isinstance(widget, QtWidgets.QTabWidget):
        _choose_tab(widget, value)
    elif isinstance(widget, QtWidgets.QAbstractButton):
        if widget.checked != bool(value):
            click(widget)
    elif hasattr(widget, "currentPath"):
        widget.currentPath = str(value)
    elif hasattr(widget, "directory") and isinstance(value, str | Path):
        widget.directory = str(value)
    else:
        _choose_row_or_number(widget, value)


def _choose_entry(combo, text) -> None:
    index = combo.findText(str(text))
    if index < 0 and combo.editable:
        combo.setEditText(str(text))
        return
    if index < 0:
        entries = [combo.itemText(i) for i in range(combo.count)]
        raise LookupError(f"'{combo.name}' has no entry '{text}'; it has {entries}")
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def _choose_tab(tabs, text) -> None:
    texts = [tabs.tabText(i) for i in range(tabs.count)]
    if text not in texts:
        raise LookupError(f"'{tabs.name}' has no tab '{text}'; it has {texts}")
    tabs.setCurrentIndex(texts.index(text))


def _choose_row_or_number(widget, value) -> None:
    if isinstance(widget, QtWidgets.QTableWidget):
        widget.selectRow(int(value))
        widget.cellClicked.emit(int(value), 0)
    elif isinstance(widget, QtWidgets.QListWidget):
        widget.setCurrentRow(int(value))
    else:
        widget.value = value

"""Behaviour of the ctk widgets: the module `ctk` of the bench."""

from __future__ import annotations

import re
import types
from fnmatch import fnmatch

from PySide6 import QtCore, QtGui, QtWidgets

from .lookalikes import define, lookalike

HEADER_HEIGHT = 24
_UNLIMITED = 16_777_215
"""Qt's largest height."""
_HISTORY = 5
"""Entries that a ctkPathLineEdit offers."""


def row(parent, *widgets, stretch: int = 0) -> None:
    """Lay widgets out in one row without margins; the one at index `stretch` takes the free width."""
    layout = QtWidgets.QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, int(index == stretch))


class _Collapsible:
    """Hides its children when collapsed, those too that were added while it was collapsed."""

    def _on_collapsed(self, collapsed):
        self.setChecked(not collapsed)
        self._show_children()
        self.updateGeometry()
        if hasattr(self, "contentsCollapsed"):
            self.contentsCollapsed.emit(collapsed)

    def _show_children(self):
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            child.setVisible(not self.collapsed)

    def showEvent(self, event):
        if self.collapsed:
            self._show_children()


@define
class ctkCollapsibleButton(_Collapsible):
    defaults = {"collapsedHeight": 10}

    def _build(self):
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(6, HEADER_HEIGHT + 6, 6, 6)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(lambda on: setattr(self, "collapsed", not on))

    def sizeHint(self):
        layout = self.layout()
        hint = layout.totalSizeHint() if layout and not self.collapsed else QtCore.QSize()
        return hint.expandedTo(QtCore.QSize(80, HEADER_HEIGHT))

    def minimumSizeHint(self):
        layout = self.layout()
        hint = layout.totalMinimumSize() if layout and not self.collapsed else QtCore.QSize()
        return hint.expandedTo(QtCore.QSize(80, HEADER_HEIGHT))

    def paintEvent(self, event):
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, HEADER_HEIGHT - 1)
        option.text = ("▸ " if self.collapsed else "▾ ") + self.text
        painter.drawControl(QtWidgets.QStyle.CE_PushButton, option)


@define
class ctkCollapsibleGroupBox(_Collapsible):
    def _build(self):
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: setattr(self, "collapsed", not on))

    def _on_collapsed(self, collapsed):
        """Only the title is left, as ctk does it."""
        self.setFlat(collapsed)
        self.setMaximumHeight(self.fontMetrics().height() + 6 if collapsed else _UNLIMITED)
        _Collapsible._on_collapsed(self, collapsed)


class _Ranged:
    """A number with limits shown in a spin box, and in a slider where there is one."""

    def _make_spin_box(self):
        spin = self._bench.spin = QtWidgets.QDoubleSpinBox()
        self._bench.busy = False
        spin.valueChanged.connect(self._take)
        return spin

    def _take(self, value):
        if not self._bench.busy:
            self.value = value

    def _show_number(self, *_):
        spin, self._bench.busy = self._bench.spin, True
        spin.setDecimals(self.decimals)
        spin.setRange(self.minimum, self.maximum)
        spin.setSingleStep(self.singleStep)
        spin.setPrefix(self.prefix)
        spin.setSuffix(self.suffix)
        spin.setValue(self.value)
        self._bench.busy = False

    def _clamped(self, value):
        return round(float(min(max(value, self.minimum), self.maximum)), self.decimals)


@define
class ctkSliderWidget(_Ranged):
    defaults = {
        "minimum": 0.0, "maximum": 100.0, "singleStep": 1.0, "decimals": 2, "value": 0.0, "tracking": True,
        "spinBoxVisible": True,
    }  # fmt: skip

    def _build(self):
        self._bench.slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        row(self, self._bench.slider, self._make_spin_box())
        self._bench.slider.valueChanged.connect(self._take_step)
        self._sync()

    def _take_step(self, step):
        if not self._bench.busy:
            self.value = self.minimum + step * self.singleStep

    def _sync(self, *_):
        self._show_number()
        self._bench.busy = True
        self._bench.slider.setRange(0, round((self.maximum - self.minimum) / (self.singleStep or 1)))
        self._bench.slider.setValue(round((self.value - self.minimum) / (self.singleStep or 1)))
        self._bench.busy = False

    _on_decimals = _on_singleStep = _on_prefix = _on_suffix = _sync

    def _on_minimum(self, _):
        self._on_value(self.value)

    _on_maximum = _on_minimum

    def _on_spinBoxVisible(self, visible):
        self._bench.spin.setVisible(visible)

    def _on_value(self, value):
        self._bench.values["value"] = self._clamped(value)
        self._sync()
        self.valueChanged.emit(self.value)


@define
class ctkDoubleSpinBox(_Ranged):
    defaults = {"minimum": 0.0, "maximum": 99.99, "singleStep": 1.0, "decimals": 2, "value": 0.0}

    def _build(self):
        row(self, self._make_spin_box())
        self._show_number()

    def _sync(self, *_):
        self._show_number()

    _on_decimals = _on_singleStep = _on_prefix = _on_suffix = _sync

    def _on_minimum(self, _):
        self._on_value(self.value)

    _on_maximum = _on_minimum

    def _on_value(self, value):
        self._bench.values["value"] = self._clamped(value)
        self._show_number()
        self.valueChanged[float].emit(self.value)
        self.valueChanged[str].emit(self._bench.spin.text)


@define
class ctkRangeWidget:
    defaults = {
        "minimum": 0.0, "maximum": 99.0, "minimumValue": 0.0, "maximumValue": 99.0, "singleStep": 1.0, "decimals": 2,
    }  # fmt: skip

    def _build(self):
        self._bench.low, self._bench.high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        row(self, self._bench.low, self._bench.high)
        self._bench.low.valueChanged.connect(lambda v: setattr(self, "minimumValue", v))
        self._bench.high.valueChanged.connect(lambda v: setattr(self, "maximumValue", v))
        self._sync()

    def _sync(self, *_):
        for spin, value in ((self._bench.low, self.minimumValue), (self._bench.high, self.maximumValue)):
            spin.blockSignals(True)
            spin.setDecimals(self.decimals)
            spin.setRange(self.minimum, self.maximum)
            spin.setValue(value)
            spin.blockSignals(False)

    _on_minimum = _on_maximum = _on_singleStep = _on_decimals = _sync

    def _on_minimumValue(self, value):
        self._sync()
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def _on_maximumValue(self, value):
        self._sync()
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self.minimumValue, self.maximumValue)

    def setValues(self, low, high):
        self.minimumValue, self.maximumValue = float(low), float(high)

    def setRange(self, low, high):
        self.minimum, self.maximum = float(low), float(high)


@define
class ctkPathLineEdit:
    # the flags of QDir::Filter, which the extracted table names without their numbers
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable, Hidden = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x100
    defaults = {"filters": Dirs | Files, "showBrowseButton": True, "showHistoryButton": True}

    def _build(self):
        self._bench.accepted = False
        combo = self._bench.combo = QtWidgets.QComboBox()
        combo.setEditable(True)
        combo.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        combo.lineEdit().setCompleter(QtWidgets.QCompleter(self))  # a combo box's own one writes into the line
        combo.setMinimumContentsLength(1)
        combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._bench.browse = QtWidgets.QToolButton()
        self._bench.browse.setText("…")
        row(self, combo, self._bench.browse)
        combo.editTextChanged.connect(lambda text: setattr(self, "currentPath", text))
        self._bench.browse.clicked.connect(lambda: self.browse())

    def _accepts(self, path):
        """As CTK does: any text that ends as the name filters want, whether there is such a file or not."""
        endings = [ending for text in self.nameFilters or () for ending in re.findall(r"\*[^\s;)]*", text)]
        return bool(path) and (not endings or any(fnmatch(path, ending) for ending in endings))

    def _on_currentPath(self, path):
        """CTK tells of no path that it does not accept, so not of one that is emptied."""
        if self._bench.combo.currentText != path:
            self._bench.combo.setEditText(path)
        before, self._bench.accepted = self._bench.accepted, self._accepts(path)
        if self._bench.accepted:
            self.currentPathChanged.emit(path)
        if self._bench.accepted != before:
            self.validInputChanged.emit(self._bench.accepted)

    def _on_showBrowseButton(self, visible):
        self._bench.browse.setVisible(visible)

    def comboBox(self):
        return self._bench.combo

    def _on_settingKey(self, _key):
        self.retrieveHistory()

    def addCurrentPathToHistory(self):
        """As CTK does: while the list is sorted the line shows other entries, and tells of them."""
        combo, path = self._bench.combo, self.currentPath
        if not path:
            return
        QtCore.QSettings().setValue(self.settingKey, [path, *(p for p in self._history() if p != path)])
        known = combo.findText(path)
        if known >= 0:
            combo.removeItem(known)
        while combo.count >= _HISTORY:
            combo.removeItem(combo.count - 1)
        combo.insertItem(0, path)
        combo.setCurrentIndex(0)

    def retrieveHistory(self):
        """As CTK does: an empty line shows the newest entry afterwards, and tells nobody."""
        path, blocked = self.currentPath, self.blockSignals(True)
        self._bench.combo.clear()
        self._bench.combo.addItems(self._history()[:_HISTORY])
        if path:
            self.currentPath = path
        self.blockSignals(blocked)

    def _history(self):
        saved = QtCore.QSettings().value(self.settingKey) or []
        return [saved] if isinstance(saved, str) else list(saved)


@define
class ctkDirectoryButton:
    def _build(self):
        self._bench.button = QtWidgets.QPushButton()
        row(self, self._bench.button)

    def _on_directory(self, path):
        self._bench.button.setText(path)
        self.directoryChanged.emit(path)


@define
class ctkCheckableComboBox:
    def _build(self):
        self.model().itemChanged.connect(lambda _: self.checkedIndexesChanged.emit())

    def checkableModel(self):
        return self.model()

    def setCheckState(self, index, state):
        self.model().setData(index, state.value, QtCore.Qt.CheckStateRole)

    def checkState(self, index):
        return QtCore.Qt.CheckState(index.data(QtCore.Qt.CheckStateRole) or 0)

    def checkedIndexes(self):
        indexes = [self.model().index(i, 0) for i in range(self.model().rowCount())]
        return [i for i in indexes if self.checkState(i) == QtCore.Qt.Checked]

    def allChecked(self):
        return len(self.checkedIndexes()) == self.model().rowCount()

    def noneChecked(self):
        return not self.checkedIndexes()


@define
class ctkSearchBox:
    defaults = {"showSearchIcon": False}


@define
class ctkColorPickerButton:
    def _on_color(self, color):
        pixmap = QtGui.QPixmap(12, 12)
        pixmap.fill(color)
        self.setIcon(QtGui.QIcon(pixmap))
        self.colorChanged.emit(color)


class CtkModule(types.ModuleType):
    """`ctk`: exactly the ctk classes of the table."""

    def __getattr__(self, name):
        if not name.startswith("ctk"):
            raise AttributeError(f"module 'ctk' has no attribute '{name}'")
        return lookalike(name)
